/* bench_hit: what a hit costs above LMDB. 100,000 entries of 100 bytes in a map and in an
 * environment of plain LMDB beside it; rounds of look-ups take turns (A B B A …), the same keys in
 * the same order. Plain: mdb_txn_renew, mdb_get, copy of the value, mdb_txn_reset. Larder:
 * larder_get.
 *
 *   bench_hit [--entries N] [--size BYTES] [--rounds N] [--lookups N (a round)]
 *   bench_hit --strace-loop N   N hits between two markers (see no_syscall.sh)
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/measure.h"
#include "larder.h"

enum { KEY_SIZE = 16, VALUE_MAX = 4096, ROUNDS_MAX = 1000 };

static uint32_t entries, size;
static larder *handle;
static struct measure_lmdb lmdb;
static char (*keys)[KEY_SIZE + 1];

static void fill(bool with_lmdb)
{
    uint8_t value[VALUE_MAX];
    keys = malloc((size_t)entries * sizeof *keys);
    test_check(keys != NULL, "malloc");
    for (uint32_t at = 0; at < entries; at++) {
        snprintf(keys[at], sizeof keys[at], "bench:%010" PRIu32, at);
    }
    /* in random order, as a cache is filled */
    test_random random = test_random_new(1);
    uint32_t *order = calloc(entries, sizeof *order);
    test_check(order != NULL, "calloc");
    for (uint32_t at = 0; at < entries; at++)
        order[at] = at;
    for (uint32_t at = entries - 1; at > 0; at--) {
        uint32_t other = (uint32_t)test_random_below(&random, at + 1), swap = order[at];
        order[at] = order[other];
        order[other] = swap;
    }
    for (uint32_t at = 0; at < entries; at++) {
        const char *key = keys[order[at]];
        test_value_fill(value, size, order[at]);
        int code = larder_set(handle, key, KEY_SIZE, value, size, NULL);
        test_check(code == LARDER_OK, "set: %d %s", code, larder_last_error());
        if (with_lmdb)
            measure_lmdb_put(&lmdb, key, KEY_SIZE, value, size);
    }
    free(order);
}

static uint64_t sum; /* so that no look-up is for nothing */

static double time_larder(const uint32_t *wanted, size_t count)
{
    uint8_t value[VALUE_MAX];
    uint64_t began = test_now_ns();
    for (size_t at = 0; at < count; at++) {
        int code = larder_get(handle, keys[wanted[at]], KEY_SIZE, value, sizeof value, NULL);
        if (__builtin_expect(code != LARDER_OK, 0))
            test_fail("get: %d", code);
        sum += value[0];
    }
    return (double)(test_now_ns() - began) / (double)count;
}

static double time_lmdb(MDB_txn *txn, const uint32_t *wanted, size_t count)
{
    uint8_t value[VALUE_MAX];
    uint64_t began = test_now_ns();
    for (size_t at = 0; at < count; at++) {
        MDB_val key = {KEY_SIZE, keys[wanted[at]]}, data;
        int code = mdb_txn_renew(txn);
        if (__builtin_expect(code != MDB_SUCCESS, 0))
            test_fail("renew: %d", code);
        code = mdb_get(txn, lmdb.database, &key, &data);
        if (__builtin_expect(code != MDB_SUCCESS || data.mv_size > sizeof value, 0)) {
            test_fail("mdb_get: %d", code);
        }
        memcpy(value, data.mv_data, data.mv_size);
        mdb_txn_reset(txn);
        sum += value[0];
    }
    return (double)(test_now_ns() - began) / (double)count;
}

static void compare(const char *name, MDB_txn *txn, const uint32_t *wanted, size_t count,
                    size_t rounds)
{
    static double ours[ROUNDS_MAX], plain[ROUNDS_MAX], ratios[ROUNDS_MAX];
    char figure[80];
    time_lmdb(txn, wanted, count);
    time_larder(wanted, count);
    for (size_t round = 0; round < rounds; round++) {
        const uint32_t *part = wanted + round * count;
        if (round % 2 == 0) {
            plain[round] = time_lmdb(txn, part, count);
            ours[round] = time_larder(part, count);
        } else {
            ours[round] = time_larder(part, count);
            plain[round] = time_lmdb(txn, part, count);
        }
        ratios[round] = ours[round] / plain[round];
    }
    snprintf(figure, sizeof figure, "hit_%s_larder", name);
    test_figure(figure, measure_median(ours, rounds), "ns");
    snprintf(figure, sizeof figure, "hit_%s_lmdb", name);
    test_figure(figure, measure_median(plain, rounds), "ns");
    snprintf(figure, sizeof figure, "hit_%s_added", name);
    test_figure(figure, 100.0 * (measure_median(ratios, rounds) - 1.0), "%");
}

/* The markers are writes to a descriptor that is not there: cheap, and seen by strace. */
static void strace_loop(uint64_t count)
{
    test_random random = test_random_new(2);
    uint32_t *wanted = malloc(4096 * sizeof *wanted);
    test_check(wanted != NULL, "malloc");
    measure_uniform(wanted, 4096, entries, &random);
    time_larder(wanted, 4096);
    ssize_t ignored = write(-1, "hits begin", 10);
    for (uint64_t at = 0; at < count; at++) {
        uint8_t value[VALUE_MAX];
        int code = larder_get(handle, keys[wanted[at % 4096]], KEY_SIZE, value, sizeof value, NULL);
        if (code != LARDER_OK)
            test_fail("get: %d", code);
        sum += value[0];
    }
    ignored += write(-1, "hits end", 8);
    (void)ignored;
    free(wanted);
}

int main(int argc, char **argv)
{
    char path[512];
    MDB_txn *txn = NULL;
    measure_begin("bench_hit", 120);
    entries = (uint32_t)measure_option(argc, argv, "--entries", 100000);
    size = (uint32_t)measure_option(argc, argv, "--size", 100);
    size_t rounds = measure_option(argc, argv, "--rounds", 60);
    size_t count = measure_option(argc, argv, "--lookups", 20000);
    uint64_t loop = measure_option(argc, argv, "--strace-loop", 0);
    test_check(entries > 0 && size <= 2000 && rounds > 0 && rounds <= ROUNDS_MAX, "options");
    uint64_t map_size = ((uint64_t)entries * (size + 400) + (64u << 20)) & ~UINT64_C(4095);
    larder_options options = {.dir = test_directory(), .map_size = map_size};
    int code = larder_open("bench", &options, &handle);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    if (loop > 0) {
        fill(false);
        strace_loop(loop);
        larder_close(&handle);
        test_end();
    }
    snprintf(path, sizeof path, "%s/plain", test_directory());
    measure_lmdb_open(&lmdb, path, map_size);
    fill(true);
    code = mdb_txn_begin(lmdb.env, NULL, MDB_RDONLY, &txn);
    test_check(code == MDB_SUCCESS, "begin: %s", mdb_strerror(code));
    mdb_txn_reset(txn);
    uint32_t *wanted = malloc(rounds * count * sizeof *wanted);
    test_check(wanted != NULL, "malloc");
    test_random random = test_random_new(3);
    measure_uniform(wanted, rounds * count, entries, &random);
    compare("uniform", txn, wanted, count, rounds);
    measure_zipf(wanted, rounds * count, entries, &random);
    compare("zipf", txn, wanted, count, rounds);
    test_check(sum > 0, "nothing was read");
    mdb_txn_abort(txn);
    mdb_env_close(lmdb.env);
    larder_close(&handle);
    free(wanted);
    free(keys);
    test_end();
}
