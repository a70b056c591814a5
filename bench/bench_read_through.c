/* bench_read_through: what it costs a worker to get what its host lacks and Redis has: a cold map B
 * beside a map A that filled Redis, each with its larderd, on one Redis. Every key is read through
 * once on B. Bare GETs of the same values by a client with a blocking socket of its own take turns
 * with them, so that both see the same machine, a block at a time: larderd looks for the next
 * request for a while before it sleeps, and a GET in that while finds its processor awake, which no
 * GET does where nobody reads through. By one caller, and by several processes at once, in rounds
 * that alternate; the figures are the rounds' medians. Then threads of eight processes miss
 * one key at once: how many requests does that cost Redis? And what does larderd do when nobody
 * asks?
 *
 *   bench_read_through [--keys N (a caller and round)] [--rounds N] [--callers N] [--crowds N]
 *                      [--block N (keys; divides --keys)]
 *                      [--busy-poll N (redis.busy_poll_us of B)]
 *                      [--tcp 1 (all speak to Redis by the loopback instead of its unix socket)]
 */
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/measure.h"
#include "bench/sides.h"
#include "larder.h"
#include "tests/ports.h"

enum {
    KEYS_MAX = 100000,
    ROUNDS_MAX = 25,
    CALLERS_MAX = 64,
    VALUE = 100,
    BUDGET_MS = 5000,
    PROCESSES = 8,
    THREADS = 63,
    IDLE_MS = 3000
};

struct board {
    pthread_barrier_t start, stop;
    _Atomic uint32_t failed;
};

static struct board *board;
static struct side a, b;
static struct server redis;
static uint64_t crowds;
static double *through, *bare; /* of each key, us; shared by all processes */

static size_t name_key(char key[48], const char *what, uint64_t number)
{
    return (size_t)snprintf(key, 48, "%s:%06" PRIu64, what, number);
}

static void fill(const char *what, uint64_t count)
{
    for (uint64_t at = 0; at < count; at++) {
        char key[48];
        size_t size = name_key(key, what, at);
        side_set(&a, key, size, at + 1, VALUE);
    }
}

/* ---- One worker ---------------------------------------------------------------------------- */

static double read_one(larder *handle, const char *key, size_t size, uint64_t number)
{
    static const larder_read read = {.read_through_ms = BUDGET_MS};
    uint8_t value[VALUE];
    uint64_t began = test_now_ns();
    int code = larder_get_with(handle, key, size, value, sizeof value, NULL, &read);
    uint64_t ended = test_now_ns();
    test_check(code == LARDER_OK && test_value_is(value, sizeof value, number), "%s: %d", key,
               code);
    return (double)(ended - began) / 1e3;
}

static double get_one(struct client *client, const char *key)
{
    char name[64];
    snprintf(name, sizeof name, "through:%s", key);
    uint64_t began = test_now_ns();
    struct reply reply = client_words(client, 2, (const char *const[]){"GET", name});
    uint64_t ended = test_now_ns();
    test_check(reply.type == '$' && reply.size == VALUE, "GET %s", name);
    return (double)(ended - began) / 1e3;
}

struct figures { /* us, one for each round */
    double bare_p50[ROUNDS_MAX], bare_p99[ROUNDS_MAX];
    double hit_p50[ROUNDS_MAX], hit_p99[ROUNDS_MAX], ratio[ROUNDS_MAX];
};

/* Rounds of one caller and of all take turns; a key is asked for once. The first of each is not
 * counted: it meets maps whose pages nobody has touched. */
static uint64_t keys, rounds, callers, block;

static uint64_t first_key(uint64_t round, bool all, uint64_t caller)
{
    return (round * (callers + 1) + (all ? 1 + caller : 0)) * keys;
}

/* A block's keys, by one of the two. */
static void one_side(larder *handle, struct client *client, uint64_t first, bool is_through)
{
    for (uint64_t at = first; at < first + block; at++) {
        char key[48];
        size_t size = name_key(key, "key", at);
        if (is_through) {
            through[at] = read_one(handle, key, size, at + 1);
        } else {
            bare[at] = get_one(client, key);
        }
    }
}

static void take_turns(larder *handle, struct client *client, uint64_t first)
{
    bool through_first = false;
    for (uint64_t at = first; at < first + keys; at += block, through_first = !through_first) {
        one_side(handle, client, at, through_first);
        one_side(handle, client, at, !through_first);
    }
}

static int call(void *context)
{
    uint64_t caller = *(const uint64_t *)context;
    struct client client;
    larder *handle = side_attach(&b);
    test_check(client_connect(&client, &redis), "connect");
    for (uint64_t round = 0; round <= rounds; round++) {
        pthread_barrier_wait(&board->start);
        if (caller == 0) {
            take_turns(handle, &client, first_key(round, false, 0));
        }
        pthread_barrier_wait(&board->start);
        take_turns(handle, &client, first_key(round, true, caller));
    }
    client_close(&client);
    larder_close(&handle);
    return 0;
}

static void sum_up(struct figures *figures, uint64_t round, uint64_t first, uint64_t count)
{
    figures->bare_p50[round] = measure_quantile(bare + first, count, 0.5);
    figures->bare_p99[round] = measure_quantile(bare + first, count, 0.99);
    figures->hit_p50[round] = measure_quantile(through + first, count, 0.5);
    figures->hit_p99[round] = measure_quantile(through + first, count, 0.99);
    figures->ratio[round] = figures->hit_p50[round] / figures->bare_p50[round];
}

static void make_barrier(pthread_barrier_t *barrier, unsigned count)
{
    pthread_barrierattr_t shared;
    test_check(pthread_barrierattr_init(&shared) == 0 &&
                   pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED) == 0 &&
                   pthread_barrier_init(barrier, &shared, count) == 0,
               "barrier");
}

static void run_rounds(struct figures *alone, struct figures *together)
{
    pid_t children[CALLERS_MAX] = {0};
    uint64_t numbers[CALLERS_MAX];
    make_barrier(&board->start, (unsigned)callers);
    for (uint64_t caller = 0; caller < callers; caller++) {
        numbers[caller] = caller;
        children[caller] = test_spawn(call, &numbers[caller]);
    }
    for (uint64_t caller = 0; caller < callers; caller++) {
        test_join(children[caller], 120000, "a caller");
    }
    for (uint64_t round = 1; round <= rounds; round++) {
        sum_up(alone, round - 1, first_key(round, false, 0), keys);
        sum_up(together, round - 1, first_key(round, true, 0), callers * keys);
    }
}

static void tell(struct figures *figures, uint64_t at_once)
{
    struct {
        const char *name, *unit;
        double *values;
    } rows[] = {{"bare_get_p99", "us", figures->bare_p99},
                {"hit_p99", "us", figures->hit_p99},
                {"bare_get_p50", "us", figures->bare_p50},
                {"hit_p50", "us", figures->hit_p50},
                {"ratio_p50", "x", figures->ratio}};
    for (size_t at = 0; at < sizeof rows / sizeof *rows; at++) {
        char name[80];
        if (at_once == 1) {
            snprintf(name, sizeof name, "read_through_%s", rows[at].name);
        } else {
            snprintf(name, sizeof name, "read_through_%" PRIu64 "_callers_%s", at_once,
                     rows[at].name);
        }
        test_figure(name, measure_median(rows[at].values, rounds), rows[at].unit);
    }
}

/* ---- Many at once -------------------------------------------------------------------------- */

static void *miss(void *context)
{
    larder *handle = context;
    for (uint64_t round = 0; round < crowds; round++) {
        static const larder_read read = {.read_through_ms = BUDGET_MS};
        char key[48];
        uint8_t value[VALUE];
        size_t size = name_key(key, "crowd", round);
        pthread_barrier_wait(&board->start);
        int code = larder_get_with(handle, key, size, value, sizeof value, NULL, &read);
        if (code != LARDER_OK || !test_value_is(value, sizeof value, round + 1)) {
            atomic_fetch_add(&board->failed, 1);
        }
        pthread_barrier_wait(&board->stop);
    }
    return NULL;
}

static int crowd(void *context)
{
    pthread_t threads[THREADS];
    pthread_attr_t attributes;
    (void)context;
    larder *handle = side_attach(&b);
    test_check(pthread_attr_init(&attributes) == 0, "attr");
    test_check(pthread_attr_setstacksize(&attributes, 128 * 1024) == 0, "stack size");
    for (size_t at = 0; at < THREADS; at++) {
        test_check(pthread_create(&threads[at], &attributes, miss, handle) == 0, "thread");
    }
    for (size_t at = 0; at < THREADS; at++) {
        test_check(pthread_join(threads[at], NULL) == 0, "join");
    }
    larder_close(&handle);
    return 0;
}

static uint64_t calls(struct client *client)
{
    struct reply reply = client_words(client, 2, (const char *const[]){"INFO", "commandstats"});
    char *text = strndup(reply.text, reply.size);
    test_check(text != NULL, "memory");
    const char *at = strstr(text, "cmdstat_mget:calls=");
    uint64_t count = at == NULL ? 0 : strtoull(at + strlen("cmdstat_mget:calls="), NULL, 10);
    free(text);
    return count;
}

static void many_at_once(struct client *client)
{
    pid_t children[PROCESSES];
    uint64_t before = calls(client), took_us = 0;
    make_barrier(&board->start, PROCESSES * THREADS + 1);
    make_barrier(&board->stop, PROCESSES * THREADS + 1);
    for (size_t at = 0; at < PROCESSES; at++) {
        children[at] = test_spawn(crowd, NULL);
    }
    for (uint64_t round = 0; round < crowds; round++) {
        pthread_barrier_wait(&board->start);
        uint64_t began = test_now_us();
        pthread_barrier_wait(&board->stop);
        took_us += test_now_us() - began;
    }
    for (size_t at = 0; at < PROCESSES; at++) {
        test_join(children[at], 20000, "a crowd");
    }
    uint64_t asked = calls(client) - before;
    test_check(atomic_load(&board->failed) == 0, "%u reads failed",
               (unsigned)atomic_load(&board->failed));
    test_figure("read_through_crowd", PROCESSES * THREADS, "callers");
    test_figure("read_through_crowd_served", (double)took_us / (double)crowds / 1e3, "ms");
    test_figure("read_through_requests_a_key", (double)asked / (double)crowds, "count");
}

/* ---- Nobody --------------------------------------------------------------------------------- */

/* Nanoseconds that the process has run (Documentation/scheduler/sched-stats.rst). */
static double ran_ns(pid_t pid)
{
    char path[64];
    double ran = 0;
    snprintf(path, sizeof path, "/proc/%ld/schedstat", (long)pid);
    FILE *file = fopen(path, "re");
    if (file != NULL && fscanf(file, "%lf", &ran) != 1) {
        ran = 0;
    }
    if (file != NULL) {
        fclose(file);
    }
    return ran;
}

static void idle(void)
{
    uint64_t began = test_now_ns();
    double before = ran_ns(b.larderd.pid);
    test_pause_us((uint64_t)IDLE_MS * 1000);
    double ran = ran_ns(b.larderd.pid) - before;
    test_figure("read_through_idle_larderd", 100 * ran / (double)(test_now_ns() - began), "%");
}

int main(int argc, char **argv)
{
    static struct figures alone, together;
    struct client client;
    char settings[80];
    measure_begin("bench_read_through", 240);
    servers_needed();
    keys = measure_option(argc, argv, "--keys", 800);
    rounds = measure_option(argc, argv, "--rounds", 5);
    callers = measure_option(argc, argv, "--callers", 8);
    crowds = measure_option(argc, argv, "--crowds", 20);
    block = measure_option(argc, argv, "--block", 100);
    test_check(keys > 0 && keys <= KEYS_MAX && crowds > 0 && rounds > 0 && rounds <= ROUNDS_MAX &&
                   callers > 1 && callers <= CALLERS_MAX && block > 0 && keys % block == 0 &&
                   first_key(rounds + 1, false, 0) <= KEYS_MAX,
               "options");
    uint64_t total = first_key(rounds + 1, false, 0);
    board = test_shared(sizeof *board);
    through = test_shared(total * sizeof *through);
    bare = test_shared(total * sizeof *bare);
    snprintf(settings, sizeof settings, "redis = { busy_poll_us = %" PRIu64 "; };\n",
             measure_option(argc, argv, "--busy-poll", 100));
    if (measure_option(argc, argv, "--tcp", 0) != 0) {
        test_check(port_claim(redis.port), "no port");
    }
    server_redis_start(&redis, "redis", NULL);
    side_start(&a, "through", "a", redis.url, "");
    fill("key", total);
    fill("crowd", crowds);
    server_wait_clean(a.handle, 60000);
    side_start(&b, "through", "b", redis.url, settings);
    test_check(client_connect(&client, &redis), "connect");
    many_at_once(&client);
    run_rounds(&alone, &together);
    idle();
    tell(&together, callers);
    tell(&alone, 1);
    client_close(&client);
    side_end(&a);
    side_end(&b);
    server_end(&redis, SIGTERM);
    test_end();
}
