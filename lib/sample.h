/* sample.h: one call in so many is looked at more closely: how long it took, and which key it was.
 * The public functions call sample_begin_*() first and sample_end() last; all that the other calls
 * pay is counting down a number of their thread's. The sampled ones ask the clock twice, which is
 * no system call; where it would be one (a clock source without vDSO), none is timed.
 */
#ifndef LARDER_LIB_SAMPLE_H
#define LARDER_LIB_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

#include "larder.h"

enum {
    SAMPLE_READS = 256, /* one in so many, on average: the distances are random, so that nobody's
                          rhythm is mistaken for his load */
    SAMPLE_WRITES = 8
};

struct sample_thread {
    uint32_t reads_left, writes_left;
    uint64_t random; /* 0: this thread has not begun */
};
extern __thread struct sample_thread sample_thread __attribute__((tls_model("initial-exec")));

uint64_t sample_begin_slow(uint32_t *left, uint32_t one_in);

/* 0: this call is not sampled. */
static inline uint64_t sample_begin_read(void)
{
    if (__builtin_expect(sample_thread.reads_left != 0, 1)) {
        sample_thread.reads_left--;
        return 0;
    }
    return sample_begin_slow(&sample_thread.reads_left, SAMPLE_READS);
}

static inline uint64_t sample_begin_write(void)
{
    if (__builtin_expect(sample_thread.writes_left != 0, 1)) {
        sample_thread.writes_left--;
        return 0;
    }
    return sample_begin_slow(&sample_thread.writes_left, SAMPLE_WRITES);
}

/* Returns outcome. A lookup's key is noted, too; the kind of a lookup follows from its outcome. */
int sample_end_read(const larder *handle, uint64_t began, const void *key, size_t key_size,
                    int outcome);
int sample_end_write(const larder *handle, uint64_t began, uint32_t kind, int outcome);

#endif
