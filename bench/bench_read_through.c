/* bench_read_through: what it costs a worker to get what its host lacks and Redis has: a cold map B
 * beside a map A that filled Redis, each with its larderd, on one Redis. Every key is read through
 * once on B; a bare GET of the same value by a client with a blocking socket of its own takes turns
 * with it, so that both see the same machine. Then threads of eight processes miss one key at once:
 * how many requests does that cost Redis?
 *
 *   bench_read_through [--keys N] [--crowds N]
 */
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/measure.h"
#include "bench/servers.h"
#include "larder.h"

enum { KEYS_MAX = 100000, VALUE = 100, BUDGET_MS = 5000, PROCESSES = 8, THREADS = 63 };

struct side {
    char directory[300];
    struct server larderd;
    larder *handle;
};

struct board {
    pthread_barrier_t start, stop;
    _Atomic uint32_t failed;
};

static struct board *board;
static struct side a, b;
static uint64_t crowds;

static larder *attach(const char *directory)
{
    larder_options options = {.dir = directory, .flags = LARDER_ATTACH, .write_wait_ms = 1000};
    larder *handle = NULL;
    uint64_t deadline = test_now_us() + 20000000;
    int code;
    while ((code = larder_open("through", &options, &handle)) == LARDER_ENOTFOUND &&
           test_now_us() < deadline) {
        test_pause_us(1000);
    }
    test_check(code == LARDER_OK, "attach: %d %s", code, larder_last_error());
    return handle;
}

static void side_start(struct side *side, const char *name, const struct server *redis)
{
    char log[32];
    snprintf(side->directory, sizeof side->directory, "%s/%s", test_directory(), name);
    test_check(mkdir(side->directory, 0700) == 0, "mkdir");
    snprintf(log, sizeof log, "larderd-%s", name);
    server_larderd_start(&side->larderd, log, "through", side->directory, redis->url,
                         "map = { size = \"64M\"; };\n");
    side->handle = attach(side->directory);
    server_wait_redis(side->handle, true, 20000);
}

static size_t name_key(char key[48], const char *what, uint64_t number)
{
    return (size_t)snprintf(key, 48, "%s:%06" PRIu64, what, number);
}

static void fill(const char *what, uint64_t count)
{
    for (uint64_t at = 0; at < count; at++) {
        char key[48];
        uint8_t value[VALUE];
        size_t size = name_key(key, what, at);
        test_value_fill(value, sizeof value, at + 1);
        int code = larder_set(a.handle, key, size, value, sizeof value, NULL);
        test_check(code == LARDER_OK, "set: %d %s", code, larder_last_error());
    }
}

/* ---- One worker ---------------------------------------------------------------------------- */

static double read_one(const char *key, size_t size, uint64_t number)
{
    static const larder_read read = {.read_through_ms = BUDGET_MS};
    uint8_t value[VALUE];
    uint64_t began = test_now_ns();
    int code = larder_get_with(b.handle, key, size, value, sizeof value, NULL, &read);
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

static void take_turns(struct client *client, uint64_t keys)
{
    static double through[KEYS_MAX], bare[KEYS_MAX];
    for (uint64_t at = 0; at < keys; at++) {
        char key[48];
        size_t size = name_key(key, "key", at);
        if (at % 2 == 0) {
            bare[at] = get_one(client, key);
        }
        through[at] = read_one(key, size, at + 1);
        if (at % 2 != 0) {
            bare[at] = get_one(client, key);
        }
    }
    double bare_p50 = measure_quantile(bare, keys, 0.5);
    double through_p50 = measure_quantile(through, keys, 0.5);
    test_figure("read_through_keys", (double)keys, "count");
    test_figure("read_through_bare_get_p99", measure_quantile(bare, keys, 0.99), "us");
    test_figure("read_through_hit_p99", measure_quantile(through, keys, 0.99), "us");
    test_figure("read_through_bare_get_p50", bare_p50, "us");
    test_figure("read_through_hit_p50", through_p50, "us");
    test_figure("read_through_ratio_p50", through_p50 / bare_p50, "x");
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
    larder *handle = attach(b.directory);
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
    pthread_barrierattr_t shared;
    uint64_t before = calls(client), took_us = 0;
    test_check(pthread_barrierattr_init(&shared) == 0 &&
                   pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED) == 0 &&
                   pthread_barrier_init(&board->start, &shared, PROCESSES * THREADS + 1) == 0 &&
                   pthread_barrier_init(&board->stop, &shared, PROCESSES * THREADS + 1) == 0,
               "barrier");
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

int main(int argc, char **argv)
{
    struct server redis = {0};
    struct client client;
    measure_begin("bench_read_through", 180);
    servers_needed();
    uint64_t keys = measure_option(argc, argv, "--keys", 20000);
    crowds = measure_option(argc, argv, "--crowds", 20);
    test_check(keys > 0 && keys <= KEYS_MAX && crowds > 0, "options");
    board = test_shared(sizeof *board);
    server_redis_start(&redis, "redis");
    side_start(&a, "a", &redis);
    fill("key", keys);
    fill("crowd", crowds);
    server_wait_clean(a.handle, 60000);
    side_start(&b, "b", &redis);
    test_check(client_connect(&client, &redis), "connect");
    many_at_once(&client);
    take_turns(&client, keys);
    client_close(&client);
    server_end(&a.larderd, SIGTERM);
    server_end(&b.larderd, SIGTERM);
    server_end(&redis, SIGTERM);
    larder_close(&a.handle);
    larder_close(&b.handle);
    test_end();
}
