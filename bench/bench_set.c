/* bench_set: what a set costs above LMDB. Plain: one mdb_put in a transaction of its own. Larder:
 * one larder_set, which also writes its log row. Overwrites of existing keys and inserts of new
 * ones are measured apart; rounds take turns, keys and values are the same.
 *
 *   bench_set [--entries N] [--size BYTES] [--rounds N] [--writes N (a round)]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/measure.h"
#include "larder.h"

enum { VALUE_MAX = 4096, ROUNDS_MAX = 1000 };

static larder *handle;
static struct measure_lmdb lmdb;
static uint32_t size;

static size_t key_text(char out[32], uint64_t number)
{
    return (size_t)snprintf(out, 32, "bench:%010" PRIu64, number);
}

struct keys {
    char text[32];
    size_t size;
};

static double time_larder(const struct keys *keys, size_t count, uint64_t tag)
{
    uint8_t value[VALUE_MAX];
    test_value_fill(value, size, tag);
    uint64_t began = test_now_ns();
    for (size_t at = 0; at < count; at++) {
        int code = larder_set(handle, keys[at].text, keys[at].size, value, size, NULL);
        if (__builtin_expect(code != LARDER_OK, 0)) {
            test_fail("set: %d %s", code, larder_last_error());
        }
    }
    return (double)(test_now_ns() - began) / (double)count;
}

static double time_lmdb(const struct keys *keys, size_t count, uint64_t tag)
{
    uint8_t value[VALUE_MAX];
    test_value_fill(value, size, tag);
    uint64_t began = test_now_ns();
    for (size_t at = 0; at < count; at++) {
        measure_lmdb_put(&lmdb, keys[at].text, keys[at].size, value, size);
    }
    return (double)(test_now_ns() - began) / (double)count;
}

static void compare(const char *name, uint64_t entries, bool fresh, size_t rounds, size_t count)
{
    static double ours[ROUNDS_MAX], plain[ROUNDS_MAX], ratios[ROUNDS_MAX];
    struct keys *keys = malloc(count * sizeof *keys);
    test_random random = test_random_new(fresh ? 2 : 1);
    char figure[80];
    test_check(keys != NULL, "malloc");
    for (size_t round = 0; round < rounds; round++) {
        for (size_t at = 0; at < count; at++) {
            uint64_t number = test_random_below(&random, entries);
            if (fresh) { /* in no order: a permutation of what follows */
                number = (round * count + at) * UINT64_C(2654435761) % 4294967296 + 10000000000;
            }
            keys[at].size = key_text(keys[at].text, number);
        }
        if (round % 2 == 0) {
            plain[round] = time_lmdb(keys, count, round);
            ours[round] = time_larder(keys, count, round);
        } else {
            ours[round] = time_larder(keys, count, round);
            plain[round] = time_lmdb(keys, count, round);
        }
        ratios[round] = ours[round] / plain[round];
    }
    snprintf(figure, sizeof figure, "set_%s_larder", name);
    test_figure(figure, measure_median(ours, rounds), "ns");
    snprintf(figure, sizeof figure, "set_%s_lmdb", name);
    test_figure(figure, measure_median(plain, rounds), "ns");
    snprintf(figure, sizeof figure, "set_%s_ratio", name);
    test_figure(figure, measure_median(ratios, rounds), "ratio");
    free(keys);
}

int main(int argc, char **argv)
{
    char path[512], key[32];
    measure_begin("bench_set", 120);
    uint64_t entries = measure_option(argc, argv, "--entries", 100000);
    size = (uint32_t)measure_option(argc, argv, "--size", 100);
    size_t rounds = measure_option(argc, argv, "--rounds", 60);
    size_t count = measure_option(argc, argv, "--writes", 2000);
    test_check(entries > 0 && size <= 2000 && rounds > 0 && rounds <= ROUNDS_MAX, "options");
    uint64_t map_size = ((entries + rounds * count) * (size + 500) + (64u << 20)) & ~UINT64_C(4095);
    larder_options options = {.dir = test_directory(), .map_size = map_size};
    int code = larder_open("bench", &options, &handle);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    snprintf(path, sizeof path, "%s/plain", test_directory());
    measure_lmdb_open(&lmdb, path, map_size);
    uint8_t value[VALUE_MAX];
    test_value_fill(value, size, 1);
    for (uint64_t at = 0; at < entries; at++) {
        size_t key_size = key_text(key, at * 7919 % entries);
        code = larder_set(handle, key, key_size, value, size, NULL);
        test_check(code == LARDER_OK, "set: %d %s", code, larder_last_error());
        measure_lmdb_put(&lmdb, key, key_size, value, size);
    }
    compare("overwrite", entries, false, rounds, count);
    compare("insert", entries, true, rounds, count);
    larder_stats stats;
    test_check(larder_stats_read(handle, &stats, sizeof stats) == LARDER_OK, "stats");
    test_check(stats.evictions == 0, "the map was full");
    mdb_env_close(lmdb.env);
    larder_close(&handle);
    test_end();
}
