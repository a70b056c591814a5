/* bench_outage: does a worker feel that Redis is hung or gone? A worker reads and writes at a
 * steady pace in a process of its own, larderd replicates its map; phases with Redis up, hung
 * (SIGSTOP) and gone (SIGKILL) take turns in random order. Each phase gives the median and the 99th
 * percentile of get and set; the bootstrap bounds compare the phases with an outage with those
 * without. Then an outage in which many distinct keys are set and one key is overwritten again and
 * again: how long until all is in Redis after its return, and in how many pushes.
 *
 *   bench_outage [--phases N (together)] [--phase-ms N] [--distinct N] [--overwrites N]
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/measure.h"
#include "bench/servers.h"
#include "larder.h"

enum {
    STATES = 3,
    PHASES_MAX = 300,
    SAMPLES_MAX = 1000000,
    KEYS = 20000,
    VALUE = 100,
    SET_EVERY_NS = 500000
};
enum state { UP, HUNG, GONE };
static const char *const state_names[STATES] = {"up", "hung", "gone"};

struct samples {
    _Atomic uint32_t count;
    float ns[SAMPLES_MAX];
};

struct board {
    _Atomic uint32_t on, end, ready;
    struct samples gets, sets;
};

static struct board *board;
static const char *directory;

static larder *open_map(uint32_t flags)
{
    larder_options options = {.dir = directory, .flags = flags, .write_wait_ms = 1000};
    larder *handle = NULL;
    uint64_t deadline = test_now_us() + 20000000;
    int code;
    while ((code = larder_open("bench", &options, &handle)) == LARDER_ENOTFOUND &&
           test_now_us() < deadline) {
        test_pause_us(1000);
    }
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    return handle;
}

/* ---- The worker ---------------------------------------------------------------------------- */

static void note(struct samples *samples, uint64_t ns)
{
    uint32_t at = atomic_load_explicit(&samples->count, memory_order_relaxed);
    if (at < SAMPLES_MAX) {
        samples->ns[at] = (float)ns;
        atomic_store_explicit(&samples->count, at + 1, memory_order_release);
    }
}

/* Reads without a rest, so that its processor is as warm in one phase as in the other, and sets a
 * key every half millisecond: a rate that larderd carries to Redis. */
static int worker(void *context)
{
    (void)context;
    larder *handle = open_map(LARDER_ATTACH);
    test_random random = test_random_new(1);
    uint8_t value[VALUE];
    uint64_t next_set = 0;
    test_value_fill(value, sizeof value, 1);
    for (uint32_t at = 0; at < KEYS; at++) {
        char key[32];
        size_t size = (size_t)snprintf(key, sizeof key, "key:%" PRIu32, at);
        int code = larder_set(handle, key, size, value, sizeof value, NULL);
        test_check(code == LARDER_OK, "set: %d %s", code, larder_last_error());
    }
    atomic_store(&board->ready, 1);
    while (!atomic_load(&board->end)) {
        char key[32];
        size_t size =
            (size_t)snprintf(key, sizeof key, "key:%u", (unsigned)test_random_below(&random, KEYS));
        bool on = atomic_load(&board->on) != 0;
        uint64_t began = test_now_ns();
        bool sets = began >= next_set;
        int code = sets ? larder_set(handle, key, size, value, sizeof value, NULL)
                        : larder_get(handle, key, size, value, sizeof value, NULL);
        uint64_t ended = test_now_ns();
        test_check(code == LARDER_OK, "request: %d %s", code, larder_last_error());
        if (sets)
            next_set = ended + SET_EVERY_NS;
        if (on)
            note(sets ? &board->sets : &board->gets, ended - began);
    }
    larder_close(&handle);
    return 0;
}

/* ---- Phases -------------------------------------------------------------------------------- */

enum { FIGURES = 4 }; /* get p50, get p99, set p50, set p99 */
static const char *const figure_names[FIGURES] = {"get_p50", "get_p99", "set_p50", "set_p99"};
static double figures[FIGURES][STATES][PHASES_MAX];
static size_t phase_counts[STATES];
static size_t beside[STATES][PHASES_MAX]; /* the phase with Redis up of the same pair */

static void take(struct samples *samples, double *p50, double *p99)
{
    static double sorted[SAMPLES_MAX];
    uint32_t count = atomic_load_explicit(&samples->count, memory_order_acquire);
    for (uint32_t at = 0; at < count; at++)
        sorted[at] = (double)samples->ns[at];
    *p50 = measure_quantile(sorted, count, 0.5);
    *p99 = measure_quantile(sorted, count, 0.99);
}

static void one_phase(enum state state, size_t pair, struct server *redis, larder *handle,
                      uint64_t phase_ms)
{
    if (state == UP)
        server_wait_redis(handle, true, 20000);
    if (state == HUNG)
        server_freeze(redis);
    if (state == GONE)
        server_end(redis, SIGKILL);
    atomic_store(&board->gets.count, 0);
    atomic_store(&board->sets.count, 0);
    atomic_store(&board->on, 1);
    test_pause_us(phase_ms * 1000);
    atomic_store(&board->on, 0);
    test_pause_us(3000);
    size_t at = phase_counts[state]++;
    beside[state][at] = pair;
    take(&board->gets, &figures[0][state][at], &figures[1][state][at]);
    take(&board->sets, &figures[2][state][at], &figures[3][state][at]);
    if (state == HUNG)
        server_thaw(redis);
    if (state == GONE)
        server_redis_start(redis, "redis", NULL);
}

static void phases(struct server *redis, larder *handle, uint64_t count, uint64_t phase_ms)
{
    test_random random = test_random_new(2);
    pid_t child = test_spawn(worker, NULL);
    test_until(atomic_load(&board->ready), 20000, "the worker does not begin");
    server_wait_redis(handle, true, 20000);
    server_wait_clean(handle, 20000);
    /* up and an outage take turns, which outage is drawn; every second pair begins with it */
    for (uint64_t at = 0; at < count; at++) {
        bool up = (at % 2 == 0) != (at / 2 % 2 == 1);
        enum state outage = phase_counts[HUNG] > phase_counts[GONE]   ? GONE
                            : phase_counts[GONE] > phase_counts[HUNG] ? HUNG
                            : test_random_below(&random, 2) == 0      ? HUNG
                                                                      : GONE;
        one_phase(up ? UP : outage, (size_t)(at / 2), redis, handle, phase_ms);
    }
    atomic_store(&board->end, 1);
    test_join(child, 20000, "the worker");
    test_figure("outage_phases", (double)count, "count");
    for (unsigned figure = 0; figure < FIGURES; figure++) {
        char name[80];
        static double copy[PHASES_MAX];
        for (unsigned state = 0; state < STATES; state++) {
            memcpy(copy, figures[figure][state], phase_counts[state] * sizeof *copy);
            snprintf(name, sizeof name, "outage_%s_%s", figure_names[figure], state_names[state]);
            test_figure(name, measure_median(copy, phase_counts[state]) / 1e3, "us");
        }
        for (unsigned state = HUNG; state < STATES; state++) {
            for (size_t at = 0; at < phase_counts[state]; at++) {
                copy[at] = figures[figure][state][at] / figures[figure][UP][beside[state][at]];
            }
            snprintf(name, sizeof name, "outage_%s_%s_to_up", figure_names[figure],
                     state_names[state]);
            test_figure(name, measure_median(copy, phase_counts[state]), "ratio");
            snprintf(name, sizeof name, "outage_%s_%s_to_up_bound", figure_names[figure],
                     state_names[state]);
            test_figure(name, measure_median_bound(copy, phase_counts[state], &random), "ratio");
        }
    }
}

/* ---- After an outage ----------------------------------------------------------------------- */

static int64_t integer(struct client *client, size_t count, const char *const *words)
{
    struct reply reply = client_words(client, count, words);
    test_check(reply.type == ':', "%s: %.*s", words[0], (int)reply.size, reply.text);
    return reply.number;
}

/* How many of the keys hold their value in Redis, asked in pipelines. */
static uint64_t count_in_redis(struct client *client, uint64_t distinct)
{
    uint64_t right = 0;
    for (uint64_t first = 0; first < distinct; first += 1000) {
        uint64_t last = first + 1000 < distinct ? first + 1000 : distinct;
        for (uint64_t at = first; at < last; at++) {
            char key[48];
            snprintf(key, sizeof key, "bench:distinct:%" PRIu64, at);
            const char *words[] = {"GET", key};
            size_t sizes[] = {3, strlen(key)};
            client_append(client, 2, words, sizes);
        }
        for (uint64_t at = first; at < last; at++) {
            struct reply reply = client_reply(client);
            right += reply.type == '$' && reply.size == VALUE &&
                     test_value_is(reply.text, reply.size, at);
        }
    }
    return right;
}

static void many_keys(struct server *redis, larder *handle, uint64_t distinct)
{
    uint8_t value[VALUE];
    struct client client;
    server_end(redis, SIGKILL);
    server_wait_redis(handle, false, 20000);
    uint64_t began = test_now_us();
    for (uint64_t at = 0; at < distinct; at++) {
        char key[48];
        size_t size = (size_t)snprintf(key, sizeof key, "distinct:%" PRIu64, at);
        test_value_fill(value, sizeof value, at);
        int code = larder_set(handle, key, size, value, sizeof value, NULL);
        test_check(code == LARDER_OK, "set: %d %s", code, larder_last_error());
    }
    test_figure("outage_sets_while_gone",
                (double)distinct / ((double)(test_now_us() - began) / 1e6), "1/s");
    server_redis_start(redis, "redis", NULL); /* empty: it kept nothing */
    began = test_now_us();
    test_check(client_connect(&client, redis), "connect");
    server_wait_redis(handle, true, 60000);
    test_figure("outage_connected_after", (double)(test_now_us() - began) / 1e6, "s");
    server_wait_clean(handle, 60000); /* asks the map, so that Redis has nothing but its work */
    double seconds = (double)(test_now_us() - began) / 1e6;
    uint64_t there = count_in_redis(&client, distinct);
    test_check(there == distinct, "%" PRIu64 " of %" PRIu64 " keys are in Redis", there, distinct);
    test_figure("outage_distinct_keys", (double)distinct, "count");
    test_figure("outage_all_in_redis_after", seconds, "s");
    client_close(&client);
}

/* Redis keeps its memory this time (it hangs), so that its stream tells the pushes. */
static void one_key(struct server *redis, larder *handle, uint64_t overwrites)
{
    const char *length[] = {"XLEN", "larder:{bench:}:events"};
    struct client client;
    uint8_t value[VALUE];
    test_check(client_connect(&client, redis), "connect");
    int64_t before = integer(&client, 2, length);
    server_freeze(redis);
    server_wait_redis(handle, false, 30000);
    for (uint64_t at = 1; at <= overwrites; at++) {
        test_value_fill(value, sizeof value, at);
        int code = larder_set(handle, "one", 3, value, sizeof value, NULL);
        test_check(code == LARDER_OK, "set: %d %s", code, larder_last_error());
    }
    larder_stats stats;
    test_check(larder_stats_read(handle, &stats, sizeof stats) == LARDER_OK, "stats");
    test_figure("outage_waiting_after_overwrites", (double)stats.dirty, "count");
    server_thaw(redis);
    uint64_t began = test_now_us();
    server_wait_redis(handle, true, 30000);
    server_wait_clean(handle, 30000);
    struct reply reply = client_words(&client, 2, (const char *const[]){"GET", "bench:one"});
    test_check(reply.type == '$' && reply.size == VALUE &&
                   test_value_is(reply.text, reply.size, overwrites),
               "Redis does not hold the last value");
    test_figure("outage_overwrites", (double)overwrites, "count");
    test_figure("outage_overwritten_key_in_redis_after", (double)(test_now_us() - began) / 1e6,
                "s");
    test_figure("outage_pushes_of_overwritten_key", (double)(integer(&client, 2, length) - before),
                "count");
    client_close(&client);
}

int main(int argc, char **argv)
{
    struct server redis = {0}, larderd = {0};
    measure_begin("bench_outage", 600);
    servers_needed();
    uint64_t count = measure_option(argc, argv, "--phases", 40) & ~UINT64_C(1);
    uint64_t phase_ms = measure_option(argc, argv, "--phase-ms", 250);
    uint64_t distinct = measure_option(argc, argv, "--distinct", 200000);
    uint64_t overwrites = measure_option(argc, argv, "--overwrites", 1000000);
    test_check(count >= 4 && count <= PHASES_MAX && phase_ms >= 20 && phase_ms <= 10000, "options");
    directory = test_directory();
    board = test_shared(sizeof *board);
    server_redis_start(&redis, "redis", NULL);
    /* quick to notice, so that phases can be short */
    server_larderd_start(&larderd, "larderd", "bench", directory, redis.url,
                         "map = { size = \"256M\"; };\n"
                         "redis = { reply_timeout = \"200ms\"; connect_timeout = \"200ms\"; "
                         "backoff_min = \"20ms\"; backoff_max = \"100ms\"; };\n");
    larder *handle = open_map(LARDER_ATTACH);
    phases(&redis, handle, count, phase_ms);
    server_wait_redis(handle, true, 20000);
    server_wait_clean(handle, 20000);
    /* the rest with the settings that it comes with */
    server_end(&larderd, SIGTERM);
    server_larderd_start(&larderd, "larderd", "bench", directory, redis.url,
                         "map = { size = \"256M\"; };\n");
    server_wait_redis(handle, true, 20000);
    many_keys(&redis, handle, distinct);
    one_key(&redis, handle, overwrites);
    server_end(&larderd, SIGTERM);
    server_end(&redis, SIGTERM);
    larder_close(&handle);
    test_end();
}
