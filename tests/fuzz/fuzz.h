/* fuzz.h: what the fuzz targets share. A target is one function that libFuzzer calls with any bytes
 * (`./dev fuzz`), and replay.c, in `make check`, with those of its corpus and small changes of
 * them. It must hold for every input: no crash, no sanitizer's complaint, and what fuzz_check()
 * says.
 */
#ifndef LARDER_TESTS_FUZZ_H
#define LARDER_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define fuzz_check(condition)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fuzz_fail(__FILE__, __LINE__, #condition);                                             \
    } while (0)

void fuzz_fail(const char *file, int line, const char *condition) __attribute__((noreturn));

/* Bytes allocated at the moment, where the allocator can tell (a sanitizer's); else 0. */
size_t fuzz_memory(void);

#endif
