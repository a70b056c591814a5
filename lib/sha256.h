/* sha256.h: SHA-256 (FIPS 180-4), for what must not be found out from what is stored (session ids),
 * and for keys that nobody may be able to aim at (variants of a page). In the library because a
 * worker links nothing but LMDB and libc.
 */
#ifndef LARDER_LIB_SHA256_H
#define LARDER_LIB_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_SIZE = 32, SHA256_BLOCK = 64 };

struct sha256 {
    uint32_t state[8];
    uint64_t total; /* bytes so far */
    uint8_t block[SHA256_BLOCK];
};

void sha256_begin(struct sha256 *self);
void sha256_add(struct sha256 *self, const void *data, size_t size);
void sha256_end(struct sha256 *self, uint8_t digest[SHA256_SIZE]);

/* The same in one. */
void sha256(const void *data, size_t size, uint8_t digest[SHA256_SIZE]);

#endif
