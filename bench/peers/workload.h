/* workload.h: the keys of a comparison, as files of 16-byte keys one after another that all workers
 * map and read in order: making a key, or fetching it from a random place, would cost as much as a
 * look-up. The driver writes them, the workers only read.
 */
#ifndef LARDER_BENCH_WORKLOAD_H
#define LARDER_BENCH_WORKLOAD_H

#include <stddef.h>
#include <stdint.h>

enum workload { WORKLOAD_FILL, WORKLOAD_ZIPF, WORKLOAD_UNIFORM, WORKLOAD_COUNT };

/* "fill": each key once, in random order. "zipf" and "uniform": PEER_STREAM_KEYS draws. */
extern const char *const workload_names[WORKLOAD_COUNT];

/* Write all streams of a number of entries into a directory. */
void workload_write(const char *directory, uint64_t entries);

struct workload_stream {
    const char *keys; /* PEER_KEY_SIZE bytes each, no terminator */
    size_t count, at;
};
/* Map one; count is 0 where that failed. */
struct workload_stream workload_map(const char *directory, const char *name);

#endif
