/* latency.h: how long sampled calls took: log-scaled histograms in the control segment, a few
 * stripes of them so that processes seldom meet on one line. Written by sample.c, read by
 * larder_latency_read(). Counts may be lost to nothing: they are added atomically.
 */
#ifndef LARDER_LIB_LATENCY_H
#define LARDER_LIB_LATENCY_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "larder.h"

enum { LATENCY_KINDS = 5, LATENCY_STRIPES = 8 };

struct latency_histogram {
    _Atomic uint64_t sum_ns;
    uint8_t padding[56];
    _Atomic uint64_t buckets[LARDER_LATENCY_BUCKETS];
};
static_assert(sizeof(struct latency_histogram) == 1088, "MAP_FORMAT");

struct latency_table {
    struct latency_histogram stripes[LATENCY_STRIPES][LATENCY_KINDS];
};

/* Four buckets a power of two: 0, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80 ... ns; the last
 * one takes all above 30 s. */
size_t latency_bucket(uint64_t ns);

/* kind: LARDER_LATENCY_*. stripe: any number. */
void latency_note(struct latency_table *table, uint32_t kind, uint32_t stripe, uint64_t ns);

/* Sum up a kind, with what follows from it. */
void latency_sum(const struct latency_table *table, uint32_t kind, larder_latency *out);

#endif
