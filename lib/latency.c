/* latency.c: see latency.h; and larder_latency_read().
 */
#include "latency.h"

#include <string.h>

#include "handle.h"
#include "sample.h"

static_assert(LARDER_LATENCY_FETCH == LATENCY_KINDS - 1, "a histogram for each kind");

size_t latency_bucket(uint64_t ns)
{
    if (ns < 16) {
        return (size_t)ns / 4;
    }
    size_t power = 63u - (size_t)__builtin_clzll(ns); /* at least 4 */
    size_t bucket = (power - 3) * 4 + (size_t)(ns >> (power - 2) & 3);
    return bucket < LARDER_LATENCY_BUCKETS ? bucket : LARDER_LATENCY_BUCKETS - 1;
}

uint64_t larder_latency_bound_ns(size_t bucket)
{
    if (bucket < 4) {
        return bucket * 4;
    }
    if (bucket >= LARDER_LATENCY_BUCKETS) {
        return UINT64_MAX;
    }
    return (uint64_t)(4 + bucket % 4) << (bucket / 4 + 1);
}

void latency_note(struct latency_table *table, uint32_t kind, uint32_t stripe, uint64_t ns)
{
    if (kind < LATENCY_KINDS) {
        struct latency_histogram *histogram = &table->stripes[stripe % LATENCY_STRIPES][kind];
        (void)atomic_fetch_add_explicit(&histogram->buckets[latency_bucket(ns)], 1,
                                        memory_order_relaxed);
        (void)atomic_fetch_add_explicit(&histogram->sum_ns, ns, memory_order_relaxed);
    }
}

/* The time below which that share of the calls stayed, in proportion inside its bucket. */
static uint64_t quantile(const larder_latency *latency, double share)
{
    double wanted = share * (double)latency->count, before = 0;
    for (size_t i = 0; i < LARDER_LATENCY_BUCKETS; i++) {
        double here = (double)latency->buckets[i];
        if (here > 0 && before + here >= wanted) {
            uint64_t low = larder_latency_bound_ns(i);
            if (i == LARDER_LATENCY_BUCKETS - 1) {
                return low;
            }
            uint64_t width = larder_latency_bound_ns(i + 1) - low;
            return low + (uint64_t)((double)width * (wanted - before) / here);
        }
        before += here;
    }
    return 0;
}

void latency_sum(const struct latency_table *table, uint32_t kind, larder_latency *out)
{
    *out = (larder_latency){.kind = kind};
    for (size_t stripe = 0; stripe < LATENCY_STRIPES; stripe++) {
        const struct latency_histogram *histogram = &table->stripes[stripe][kind];
        out->sum_ns += atomic_load_explicit(&histogram->sum_ns, memory_order_relaxed);
        for (size_t i = 0; i < LARDER_LATENCY_BUCKETS; i++) {
            uint64_t count = atomic_load_explicit(&histogram->buckets[i], memory_order_relaxed);
            out->buckets[i] += count;
            out->count += count;
        }
    }
    out->p50_ns = quantile(out, 0.5);
    out->p90_ns = quantile(out, 0.9);
    out->p99_ns = quantile(out, 0.99);
    out->p999_ns = quantile(out, 0.999);
}

int larder_latency_read(larder *handle, uint32_t kind, larder_latency *out, size_t size_of_out)
{
    larder_latency latency;
    int result = handle_enter(handle);
    if (result == LARDER_OK && (out == NULL || kind >= LATENCY_KINDS)) {
        result = error_set(LARDER_EINVAL, "latency of kind %u: there are %d; with a place for it",
                           kind, LATENCY_KINDS);
    }
    if (result != LARDER_OK) {
        return result;
    }
    latency_sum(&map_control(handle->map)->latency, kind, &latency);
    latency.one_in = kind <= LARDER_LATENCY_MISS ? SAMPLE_READS : SAMPLE_WRITES;
    memset(out, 0, size_of_out);
    memcpy(out, &latency, size_of_out < sizeof latency ? size_of_out : sizeof latency);
    return LARDER_OK;
}
