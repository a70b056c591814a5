/* bench_fleet: two hosts, played by two maps with a larderd each, on one Redis or
 * on a cluster. How long until what is set on A is read on B, one at a time and at a steady rate;
 * and whether, after both have written the same keys at once, A, B and Redis agree.
 *
 *   bench_fleet [--sets N] [--keys N] [--writes N (a side)] [--rate N (a second)] [--rate-sets N]
 *               [--cluster N (masters, 3 or more; 0: one server alone)]
 */
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/cluster.h"
#include "bench/measure.h"
#include "bench/sides.h"
#include "larder.h"

enum { SETS_MAX = 20000, VALUE = 100 };

static struct side a, b;

static uint64_t shared_keys, shared_writes; /* both write the same keys, so often each */

static void set_number(struct side *side, const char *key, uint64_t number)
{
    side_set(side, key, strlen(key), number, VALUE);
}

static void latency(struct side *from, struct side *to, const char *name, uint64_t sets)
{
    static double us[SETS_MAX];
    char figure[80];
    for (uint64_t at = 0; at < sets; at++) {
        char key[48];
        snprintf(key, sizeof key, "%s:%" PRIu64, name, at % 100);
        uint64_t began = test_now_ns(), deadline = test_now_us() + 10000000;
        set_number(from, key, at + 1);
        for (;;) {
            uint8_t value[VALUE];
            uint64_t number = 0;
            int code = larder_get(to->handle, key, strlen(key), value, sizeof value, NULL);
            if (code == LARDER_OK)
                memcpy(&number, value, sizeof number);
            if (code == LARDER_OK && number == at + 1)
                break;
            test_check(test_now_us() < deadline, "%s does not arrive", key);
            test_pause_us(20);
        }
        us[at] = (double)(test_now_ns() - began) / 1e3;
    }
    snprintf(figure, sizeof figure, "fleet_%s_p99", name);
    test_figure(figure, measure_quantile(us, sets, 0.99) / 1e3, "ms");
    snprintf(figure, sizeof figure, "fleet_%s_p50", name);
    test_figure(figure, measure_quantile(us, sets, 0.5) / 1e3, "ms");
}

/* ---- At a steady rate: a process sets on A, this one looks on B at one key after the other ----
 */

enum { RATE_KEYS = 4096 };

struct steady {
    uint64_t rate, sets;
    _Atomic uint64_t *set_ns; /* when each set began, and that it did */
};
static struct steady steady;

static size_t rate_key(uint64_t number, char out[48])
{
    return (size_t)snprintf(out, 48, "rate:%" PRIu64, number % RATE_KEYS);
}

static int set_steadily(void *context)
{
    struct side *side = context;
    uint64_t began = test_now_ns();
    for (uint64_t at = 0; at < steady.sets; at++) {
        char key[48];
        uint64_t due = began + at * 1000000000 / steady.rate, now = test_now_ns();
        if (now < due)
            test_pause_us((due - now) / 1000);
        (void)rate_key(at, key);
        atomic_store(&steady.set_ns[at], test_now_ns());
        set_number(side, key, at + 1);
    }
    return 0;
}

static uint64_t number_seen(struct side *side, const char *key, size_t size)
{
    uint8_t value[VALUE];
    uint64_t number = 0;
    if (larder_get(side->handle, key, size, value, sizeof value, NULL) == LARDER_OK)
        memcpy(&number, value, sizeof number);
    return number;
}

static void latency_at_rate(struct side *from, struct side *to)
{
    double *us = test_shared(steady.sets * sizeof *us);
    steady.set_ns = test_shared(steady.sets * sizeof *steady.set_ns);
    uint64_t began = test_now_ns();
    pid_t child = test_spawn(set_steadily, from);
    for (uint64_t at = 0; at < steady.sets; at++) {
        char key[48];
        size_t size = rate_key(at, key);
        uint64_t deadline = test_now_us() + 20000000;
        while (number_seen(to, key, size) < at + 1) { /* a later one of that key will do */
            test_check(test_now_us() < deadline, "%s does not arrive", key);
            test_pause_us(100);
        }
        us[at] = (double)(test_now_ns() - atomic_load(&steady.set_ns[at])) / 1e3;
    }
    double seconds = (double)(test_now_ns() - began) / 1e9;
    test_join(child, 20000, "the writer");
    test_figure("fleet_rate", (double)steady.sets / seconds, "1/s");
    test_figure("fleet_rate_p99", measure_quantile(us, steady.sets, 0.99) / 1e3, "ms");
    test_figure("fleet_rate_p50", measure_quantile(us, steady.sets, 0.5) / 1e3, "ms");
}

static int write_shared(void *context)
{
    struct side *side = context;
    test_random random = test_random_new(side == &a ? 1 : 2);
    for (uint64_t at = 0; at < shared_writes; at++) {
        char key[48];
        snprintf(key, sizeof key, "shared:%" PRIu64, test_random_below(&random, shared_keys));
        if (test_random_below(&random, 5) == 0) {
            int code = larder_delete(side->handle, key, strlen(key));
            test_check(code >= 0, "delete: %d", code);
        } else {
            set_number(side, key, test_random_next(&random));
        }
        if (at % 20 == 19)
            test_pause_us(500);
    }
    return 0;
}

/* 0: absent, else the number in the value. */
static uint64_t number_on(struct side *side, const char *key)
{
    uint8_t value[VALUE];
    uint64_t number = 0;
    int code = larder_get(side->handle, key, strlen(key), value, sizeof value, NULL);
    test_check(code == LARDER_OK || code == LARDER_MISS, "get: %d", code);
    if (code == LARDER_OK)
        memcpy(&number, value, sizeof number);
    return number;
}

static uint64_t differing(struct cluster *redis, uint64_t keys)
{
    uint64_t different = 0;
    for (uint64_t at = 0; at < keys; at++) {
        char key[48], name[64];
        uint64_t number = 0;
        snprintf(key, sizeof key, "shared:%" PRIu64, at);
        snprintf(name, sizeof name, "fleet:%s", key);
        struct reply reply = cluster_get(redis, name);
        test_check(reply.type == '$' || reply.type == 0, "GET %s: %c", name, reply.type);
        if (reply.type == '$' && reply.size >= sizeof number) {
            memcpy(&number, reply.text, sizeof number);
        }
        different += number != number_on(&a, key) || number != number_on(&b, key);
    }
    return different;
}

static void both_at_once(struct cluster *redis)
{
    pid_t on_a = test_spawn(write_shared, &a), on_b = test_spawn(write_shared, &b);
    test_join(on_a, 60000, "the writer on A");
    test_join(on_b, 60000, "the writer on B");
    uint64_t began = test_now_us();
    server_wait_clean(a.handle, 20000);
    server_wait_clean(b.handle, 20000);
    uint64_t deadline = test_now_us() + 10000000, different;
    while ((different = differing(redis, shared_keys)) != 0 && test_now_us() < deadline) {
        test_pause_us(2000);
    }
    test_figure("fleet_writes_at_once", (double)(2 * shared_writes), "count");
    test_figure("fleet_equal_after", (double)(test_now_us() - began) / 1e3, "ms");
    test_figure("fleet_keys_that_differ", (double)different, "count");
    test_check(different == 0, "%" PRIu64 " keys differ between A, B and Redis", different);
}

int main(int argc, char **argv)
{
    static struct cluster redis;
    measure_begin("bench_fleet", 120);
    servers_needed();
    uint64_t sets = measure_option(argc, argv, "--sets", 1000);
    shared_keys = measure_option(argc, argv, "--keys", 100);
    shared_writes = measure_option(argc, argv, "--writes", 20000);
    steady.rate = measure_option(argc, argv, "--rate", 5000);
    steady.sets = measure_option(argc, argv, "--rate-sets", 25000);
    uint64_t masters = measure_option(argc, argv, "--cluster", 0);
    test_check(masters <= CLUSTER_MASTERS_MAX, "options");
    test_check(steady.rate > 0 && steady.sets > 0, "options");
    test_check(sets > 0 && sets <= SETS_MAX && shared_keys > 0, "options");
    cluster_start(&redis, (unsigned)masters);
    side_start(&a, "fleet", "a", redis.url, "");
    side_start(&b, "fleet", "b", redis.url, "");
    both_at_once(&redis);
    latency(&b, &a, "b_to_a", sets);
    latency(&a, &b, "a_to_b", sets);
    latency_at_rate(&a, &b);
    side_end(&a);
    side_end(&b);
    cluster_end(&redis);
    test_end();
}
