/* bench_hit_ratio: real traces through a real map: get, and on a miss set, with a capacity in
 * entries (larder_options.max_entries) so that every cell of the reference can be measured. Prints
 * the map's hit ratio beside the simulator's of the same policy and the reference's S3-FIFO. No
 * Redis, no daemon.
 *
 *   bench_hit_ratio [TRACE ...]
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench/measure.h"
#include "bench/policies.h"
#include "bench/trace.h"
#include "larder.h"

enum { MAP_SIZE = 64 << 20 };

struct sums {
    double to_reference, worst, off;
    unsigned cells;
};

static double replay(const struct trace *trace, size_t capacity)
{
    static unsigned maps;
    char name[32], key[16];
    larder *map = NULL;
    size_t hits = 0;
    larder_options options = {.dir = test_directory(),
                              .map_size = MAP_SIZE,
                              .max_entries = capacity,
                              .write_wait_ms = 1000};
    (void)snprintf(name, sizeof name, "map%u", maps++);
    int code = larder_open(name, &options, &map);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    for (size_t at = 0; at < trace->count; at++) {
        char value[8];
        int size = snprintf(key, sizeof key, "k%u", trace->requests[at]);
        code = larder_get(map, key, (size_t)size, value, sizeof value, NULL);
        if (code == LARDER_OK) {
            hits++;
            continue;
        }
        test_check(code == LARDER_MISS, "get: %d %s", code, larder_last_error());
        code = larder_set(map, key, (size_t)size, "12345678", 8, NULL);
        test_check(code == LARDER_OK, "set: %d %s", code, larder_last_error());
    }
    larder_stats stats;
    test_check(larder_stats_read(map, &stats, sizeof stats) == LARDER_OK, "stats");
    test_check(stats.entries <= capacity, "%zu entries at most: there are %llu", capacity,
               (unsigned long long)stats.entries);
    test_check(stats.hits == hits, "the map counted other hits");
    larder_close(&map);
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", test_directory(), name);
    test_remove_tree(path);
    return 100.0 * (double)hits / (double)trace->count;
}

static void cell(const struct trace *trace, const struct trace_reference *reference, size_t at,
                 struct sums *sums)
{
    char name[80];
    size_t capacity = trace_capacity(trace, trace_shares[at]);
    double map = replay(trace, capacity), known = reference->ratios[at][TRACE_S3FIFO];
    double simulated =
        policy_replay(&policy_inplace, capacity, trace->keys, trace->requests, trace->count);
    (void)printf("%-10s %4.0f %% %7zu entries: map %6.2f, simulator %6.2f, S3-FIFO %6.2f\n",
                 reference->name, 100 * trace_shares[at], capacity, map, simulated, known);
    (void)snprintf(name, sizeof name, "hit_ratio_%s_%02.0f", reference->name,
                   100 * trace_shares[at]);
    test_figure(name, map, "%");
    sums->to_reference += map - known;
    sums->worst = map - known < sums->worst ? map - known : sums->worst;
    sums->off = fabs(map - simulated) > sums->off ? fabs(map - simulated) : sums->off;
    sums->cells++;
}

int main(int argc, char **argv)
{
    struct sums sums = {.cells = 0};
    measure_begin("bench_hit_ratio", 600);
    for (const struct trace_reference *r = trace_references; r->name != NULL; r++) {
        struct trace trace;
        bool wanted = argc < 2;
        for (int i = 1; i < argc; i++) {
            wanted |= strcmp(argv[i], r->name) == 0;
        }
        if (wanted && trace_read(r->name, r->first, &trace)) {
            for (size_t at = 0; at < TRACE_SHARES; at++) {
                cell(&trace, r, at, &sums);
            }
            trace_end(&trace);
        }
    }
    if (sums.cells == 0) {
        (void)printf("no trace was found: nothing is measured\n");
    } else {
        test_figure("hit_ratio_to_s3fifo_mean", sums.to_reference / sums.cells, "points");
        test_figure("hit_ratio_to_s3fifo_worst", sums.worst, "points");
        test_figure("hit_ratio_map_off_simulator", sums.off, "points");
    }
    test_end();
}
