/* bench_writers: several processes that write at once, larder and plain LMDB in turns. Each process
 * overwrites keys in random order for a while; the figures are sets per second of all together and
 * the time of one call, as medians of the rounds.
 *
 *   bench_writers [--entries N] [--size BYTES] [--rounds N] [--ms N (a round)] [--processes N]
 *                 [--inserts 1 (new keys as well: one in ten)]
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/measure.h"
#include "larder.h"

enum { PROCESSES_MAX = 8, ROUNDS_MAX = 100, VALUE_MAX = 2000, KEYS = 8192, BUCKETS = 64 * 16 };

/* Of one process; times by their logarithm, 16 steps a power of two. */
struct result {
    _Atomic uint64_t calls, refused, longest_ns;
    _Atomic uint32_t times[BUCKETS];
};

struct board {
    _Atomic uint32_t ready, go, stop;
    struct result results[PROCESSES_MAX];
};

enum side { LARDER, LMDB, SIDES };
static const char *const side_names[] = {"larder", "lmdb"};

struct job {
    enum side side;
    unsigned process;
};

static struct board *board;
static uint64_t entries, map_size, inserts;
static uint32_t size;
static char plain_path[512];

struct keys {
    char text[32];
    size_t size;
};

static unsigned bucket_of(uint64_t ns)
{
    ns = ns < 16 ? 16 : ns;
    unsigned power = 63 - (unsigned)__builtin_clzll(ns);
    return power * 16 + (unsigned)(ns >> (power - 4) & 15);
}

static double time_of(unsigned bucket)
{
    unsigned power = bucket / 16;
    return (double)((16 + bucket % 16) * 2 + 1) * (double)(UINT64_C(1) << power) / 32;
}

static size_t key_text(char out[32], uint64_t number)
{
    return (size_t)snprintf(out, 32, "bench:%010" PRIu64, number);
}

static larder *open_larder(void)
{
    larder *handle = NULL;
    larder_options options = {.dir = test_directory(), .map_size = map_size};
    int code = larder_open("bench", &options, &handle);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    return handle;
}

static int fill(void *context)
{
    (void)context;
    uint8_t value[VALUE_MAX];
    char key[32];
    struct measure_lmdb lmdb;
    larder *handle = open_larder();
    measure_lmdb_open(&lmdb, plain_path, map_size);
    test_value_fill(value, size, 1);
    for (uint64_t at = 0; at < entries; at++) {
        size_t key_size = key_text(key, at * 7919 % entries);
        int code = larder_set(handle, key, key_size, value, size, NULL);
        test_check(code == LARDER_OK, "set: %d %s", code, larder_last_error());
        measure_lmdb_put(&lmdb, key, key_size, value, size);
    }
    mdb_env_close(lmdb.env);
    larder_close(&handle);
    return 0;
}

static int work(void *context)
{
    const struct job *job = context;
    struct result *result = &board->results[job->process];
    struct measure_lmdb lmdb = {0};
    larder *handle = NULL;
    uint8_t value[VALUE_MAX];
    struct keys *keys = calloc(KEYS, sizeof *keys);
    test_random random = test_random_new(job->process + 10);
    test_check(keys != NULL, "calloc");
    for (size_t at = 0; at < KEYS; at++) {
        uint64_t number = test_random_below(&random, entries);
        if (inserts != 0 && at % 10 == 0) {
            number = UINT64_C(10000000000) + test_random_below(&random, UINT32_MAX);
        }
        keys[at].size = key_text(keys[at].text, number);
    }
    test_value_fill(value, size, job->process);
    if (job->side == LARDER) {
        handle = open_larder();
    } else {
        measure_lmdb_attach(&lmdb, plain_path, map_size);
    }
    (void)atomic_fetch_add(&board->ready, 1);
    test_until(atomic_load(&board->go) != 0, 10000, "the start never came");
    uint64_t began = test_now_ns();
    for (size_t at = 0; atomic_load_explicit(&board->stop, memory_order_relaxed) == 0; at++) {
        const struct keys *key = &keys[at % KEYS];
        if (job->side == LARDER) {
            int code = larder_set(handle, key->text, key->size, value, size, NULL);
            if (__builtin_expect(code == LARDER_EBUSY, 0)) {
                (void)atomic_fetch_add(&result->refused, 1);
            } else if (__builtin_expect(code != LARDER_OK, 0)) {
                test_fail("set: %d %s", code, larder_last_error());
            }
        } else {
            measure_lmdb_put(&lmdb, key->text, key->size, value, size);
        }
        uint64_t now = test_now_ns(), took = now - began;
        unsigned bucket = bucket_of(took);
        atomic_store_explicit(&result->times[bucket], result->times[bucket] + 1,
                              memory_order_relaxed);
        atomic_store_explicit(&result->calls, result->calls + 1, memory_order_relaxed);
        if (took > result->longest_ns) {
            atomic_store_explicit(&result->longest_ns, took, memory_order_relaxed);
        }
        began = now;
    }
    free(keys);
    if (job->side == LARDER) {
        larder_close(&handle);
    } else {
        mdb_env_close(lmdb.env);
    }
    return 0;
}

struct figures {
    double rate, p50, p99, p999, longest, refused;
};

/* The time below which that share of all calls ended, us. */
static double quantile(unsigned processes, uint64_t calls, double share)
{
    uint64_t below = 0;
    for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
        for (unsigned at = 0; at < processes; at++) {
            below += atomic_load(&board->results[at].times[bucket]);
        }
        if ((double)below >= share * (double)calls) {
            return time_of(bucket) / 1e3;
        }
    }
    return 0;
}

static struct figures run(enum side side, unsigned processes, uint64_t round_ms)
{
    struct job jobs[PROCESSES_MAX];
    pid_t children[PROCESSES_MAX];
    struct figures figures = {0};
    memset((void *)board, 0, sizeof *board);
    for (unsigned at = 0; at < processes; at++) {
        jobs[at] = (struct job){.side = side, .process = at};
        children[at] = test_spawn(work, &jobs[at]);
    }
    test_until(atomic_load(&board->ready) == processes, 10000, "the writers never came up");
    uint64_t began = test_now_ns(), calls = 0;
    atomic_store(&board->go, 1);
    test_pause_us(round_ms * 1000);
    atomic_store(&board->stop, 1);
    double seconds = (double)(test_now_ns() - began) / 1e9;
    for (unsigned at = 0; at < processes; at++) {
        test_join(children[at], 10000, "a writer");
        calls += atomic_load(&board->results[at].calls);
        figures.refused += (double)atomic_load(&board->results[at].refused);
        double longest = (double)atomic_load(&board->results[at].longest_ns) / 1e3;
        figures.longest = longest > figures.longest ? longest : figures.longest;
    }
    figures.rate = (double)calls / seconds;
    figures.p50 = quantile(processes, calls, 0.5);
    figures.p99 = quantile(processes, calls, 0.99);
    figures.p999 = quantile(processes, calls, 0.999);
    return figures;
}

static double median_of(const struct figures *rounds, size_t count, size_t offset)
{
    double values[ROUNDS_MAX];
    for (size_t at = 0; at < count; at++) {
        memcpy(&values[at], (const uint8_t *)&rounds[at] + offset, sizeof values[at]);
    }
    return measure_median(values, count);
}

static void print(const char *what, unsigned processes, enum side side, double value,
                  const char *unit)
{
    char name[80];
    snprintf(name, sizeof name, "writers_%u_%s_%s", processes, what, side_names[side]);
    test_figure(name, value, unit);
}

/* Returns larder's rate. */
static double compare(unsigned processes, size_t rounds, uint64_t round_ms)
{
    static struct figures all[SIDES][ROUNDS_MAX];
    char name[80];
    for (size_t round = 0; round < rounds; round++) {
        enum side first = round % 2 == 0 ? LARDER : LMDB;
        all[first][round] = run(first, processes, round_ms);
        all[1 - first][round] = run(1 - first, processes, round_ms);
    }
    double rates[SIDES];
    for (enum side side = LARDER; side < SIDES; side++) {
        rates[side] = median_of(all[side], rounds, offsetof(struct figures, rate));
        print("rate", processes, side, rates[side], "sets/s");
        print("p50", processes, side, median_of(all[side], rounds, offsetof(struct figures, p50)),
              "us");
        print("p99", processes, side, median_of(all[side], rounds, offsetof(struct figures, p99)),
              "us");
        print("p99.9", processes, side,
              median_of(all[side], rounds, offsetof(struct figures, p999)), "us");
        print("longest", processes, side,
              median_of(all[side], rounds, offsetof(struct figures, longest)), "us");
    }
    print("refused", processes, LARDER,
          median_of(all[LARDER], rounds, offsetof(struct figures, refused)), "sets");
    snprintf(name, sizeof name, "writers_%u_rate_ratio", processes);
    test_figure(name, rates[LARDER] / rates[LMDB], "ratio");
    return rates[LARDER];
}

int main(int argc, char **argv)
{
    measure_begin("bench_writers", 120);
    entries = measure_option(argc, argv, "--entries", 100000);
    size = (uint32_t)measure_option(argc, argv, "--size", 100);
    inserts = measure_option(argc, argv, "--inserts", 0);
    size_t rounds = measure_option(argc, argv, "--rounds", 5);
    uint64_t round_ms = measure_option(argc, argv, "--ms", 400);
    unsigned only = (unsigned)measure_option(argc, argv, "--processes", 0);
    test_check(entries > 0 && size <= VALUE_MAX && rounds > 0 && rounds <= ROUNDS_MAX &&
                   only <= PROCESSES_MAX,
               "options");
    map_size = (entries * (size + 500) + (128u << 20)) & ~UINT64_C(4095);
    (void)snprintf(plain_path, sizeof plain_path, "%s/plain", test_directory());
    board = test_shared(sizeof *board);
    test_join(test_spawn(fill, NULL), 100000, "filling the maps");
    if (only > 0) {
        (void)compare(only, rounds, round_ms);
        test_end();
    }
    double one = compare(1, rounds, round_ms);
    double two = compare(2, rounds, round_ms);
    double four = compare(4, rounds, round_ms);
    test_figure("writers_2_to_1", two / one, "ratio");
    test_figure("writers_4_to_1", four / one, "ratio");
    test_end();
}
