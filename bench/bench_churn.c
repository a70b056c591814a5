/* bench_churn: a map written over many times with values of mixed sizes, each power of two as
 * likely as the next: what share of it is of use, and what a set costs, compared with the same map
 * while it was still filling. Keys are new ones in no order; a few are read again, so that both
 * queues have work.
 *
 *   churn_used     pages that hold something / all pages
 *   churn_payload  bytes of live keys and values / bytes of the map
 *
 *   bench_churn [--map MIB] [--times N (map-fulls)] [--least BYTES] [--most BYTES]
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/measure.h"
#include "larder.h"

enum { SAMPLES_MOST = 4000000 };

static larder *map;
static uint8_t *value;

struct samples {
    double *us;
    size_t count;
};

static void add(struct samples *samples, uint64_t ns)
{
    if (samples->count < SAMPLES_MOST) {
        samples->us[samples->count++] = (double)ns / 1e3;
    }
}

static larder_stats statistics(void)
{
    larder_stats stats;
    test_check(larder_stats_read(map, &stats, sizeof stats) == LARDER_OK, "stats");
    return stats;
}

static uint64_t payload(void)
{
    larder_cursor cursor = {.size = 0};
    larder_item items[256];
    size_t found = 0;
    uint64_t bytes = 0;
    do {
        void *memory = NULL;
        int code = larder_scan(map, &cursor, (larder_bytes){NULL, 0}, items, 256, LARDER_SCAN_KEYS,
                               &found, &memory);
        test_check(code == LARDER_OK, "scan: %d %s", code, larder_last_error());
        for (size_t at = 0; at < found; at++) {
            bytes += items[at].key_size + items[at].info.size;
        }
        larder_free(memory);
    } while (found > 0);
    return bytes;
}

static void figures(const char *name, struct samples *samples)
{
    char figure[64];
    snprintf(figure, sizeof figure, "churn_set_%s_p50", name);
    test_figure(figure, measure_quantile(samples->us, samples->count, 0.5), "us");
    snprintf(figure, sizeof figure, "churn_set_%s_p99", name);
    test_figure(figure, measure_quantile(samples->us, samples->count, 0.99), "us");
}

int main(int argc, char **argv)
{
    measure_begin("bench_churn", 300);
    uint64_t size = measure_option(argc, argv, "--map", 256) << 20;
    uint64_t times = measure_option(argc, argv, "--times", 20);
    double least = (double)measure_option(argc, argv, "--least", 100);
    double most = (double)measure_option(argc, argv, "--most", 256 << 10);
    struct samples fresh = {.us = calloc(SAMPLES_MOST, sizeof(double))},
                   full = {.us = calloc(SAMPLES_MOST, sizeof(double))};
    value = calloc(1, (size_t)most + 1);
    test_check(fresh.us != NULL && full.us != NULL && value != NULL, "calloc");
    larder_options options = {.dir = test_directory(), .map_size = size};
    int code = larder_open("churn", &options, &map);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    test_random random = test_random_new(1);
    uint64_t written = 0, refused = 0;
    bool filling = true;
    for (uint64_t at = 0; written < times * size; at++) {
        char key[40];
        double share = (double)test_random_below(&random, 1 << 20) / (1 << 20);
        size_t bytes = (size_t)(least * pow(most / least, share));
        size_t key_size =
            (size_t)snprintf(key, sizeof key, "%016" PRIx64, at * UINT64_C(0x9e3779b97f4a7c15));
        memcpy(value, &at, bytes < sizeof at ? bytes : sizeof at);
        uint64_t began = test_now_ns();
        code = larder_set(map, key, key_size, value, bytes, NULL);
        uint64_t took = test_now_ns() - began;
        test_check(code == LARDER_OK || code == LARDER_EFULL, "set: %d %s", code,
                   larder_last_error());
        refused += code != LARDER_OK;
        written += bytes;
        if (filling && at % 64 == 0 && statistics().evictions > 0) {
            filling = false;
        }
        if (filling) {
            add(&fresh, took);
        } else if (written > times * size / 2) {
            add(&full, took);
        }
        if (at % 8 == 0) { /* an old key, if it is still there */
            uint64_t back = test_random_below(&random, at + 1) / 2 + at / 2;
            (void)snprintf(key, sizeof key, "%016" PRIx64, back * UINT64_C(0x9e3779b97f4a7c15));
            (void)larder_has(map, key, key_size);
        }
    }
    larder_stats stats = statistics();
    uint64_t live = payload();
    figures("fresh", &fresh);
    figures("full", &full);
    test_figure("churn_set_p99_ratio",
                measure_quantile(full.us, full.count, 0.99) /
                    measure_quantile(fresh.us, fresh.count, 0.99),
                "ratio");
    test_figure("churn_entries", (double)stats.entries, "count");
    test_figure("churn_refused", (double)refused, "count");
    test_figure("churn_used", 100.0 * (double)stats.used_bytes / (double)stats.map_size, "%");
    test_figure("churn_payload", 100.0 * (double)live / (double)stats.map_size, "%");
    larder_close(&map);
    free(fresh.us);
    free(full.us);
    free(value);
    test_end();
}
