/* sides.h: two hosts, played by two maps with a larderd each, on one Redis: what the benchmarks of
 * the fleet share. See servers.h for the servers themselves.
 */
#ifndef LARDER_BENCH_SIDES_H
#define LARDER_BENCH_SIDES_H

#include <stdint.h>

#include "bench/servers.h"
#include "larder.h"

struct side {
    const char *map;
    char directory[300];
    struct server larderd;
    larder *handle;
};

/* A handle on the side's map, waiting for larderd to make it: for processes of their own. */
larder *side_attach(const struct side *side);

/* Returns once larderd has reached Redis. name: of the side, in the benchmark's directory;
 * settings: more of larderd's configuration, "" for none. */
void side_start(struct side *side, const char *map, const char *name, const char *redis_url,
                const char *settings);
void side_end(struct side *side);

/* Set a value of that number (test_value_fill()) on it. */
void side_set(struct side *side, const char *key, size_t key_size, uint64_t number,
              size_t value_size);

#endif
