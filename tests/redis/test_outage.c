/* test_outage.c: Redis and larderd go away and come back: killed, restarted empty, frozen; writes
 * go on meanwhile, and afterwards everything is everywhere.
 */
#include "tests/redis/fleet.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static harness_redis redis;
static host a, b;

static void setup(void)
{
    pair_start(&redis, &a, &b, NULL);
}

static void teardown(void)
{
    pair_end(&redis, &a, &b);
}

static void fill(host *self, const char *prefix, int count)
{
    char key[32];
    for (int i = 0; i < count; i++) {
        (void)snprintf(key, sizeof key, "%s%d", prefix, i);
        host_set(self, key, key);
    }
}

static void expect_filled(host *self, const char *prefix, int count)
{
    char key[32];
    for (int i = 0; i < count; i++) {
        (void)snprintf(key, sizeof key, "%s%d", prefix, i);
        host_comes_to(self, key, key);
    }
}

static void expect_in_redis(const char *prefix, int count, bool there)
{
    char key[32], name[40];
    for (int i = 0; i < count; i++) {
        (void)snprintf(key, sizeof key, "%s%d", prefix, i);
        (void)snprintf(name, sizeof name, "t:%s", key);
        redis_comes_to(&redis, name, there ? key : NULL);
    }
}

/* Restarted empty: what was written before, meanwhile and deleted meanwhile is all as it should be.
 */
START_TEST(redis_restarts_empty)
{
    fill(&a, "before", 300);
    fill(&b, "gone", 50);
    expect_filled(&b, "before", 300);
    expect_filled(&a, "gone", 50);
    host_drained(&a);
    host_drained(&b);
    harness_redis_kill(&redis);
    host_redis_up(&a, false);
    host_redis_up(&b, false);
    fill(&a, "during", 300);
    for (int i = 0; i < 50; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "gone%d", i);
        host_delete(&b, key);
    }
    ck_assert(host_has(&a, "before7", "before7"));
    ck_assert(host_has(&a, "during7", "during7"));
    harness_redis_restart(&redis);
    expect_filled(&b, "during", 300);
    host_drained(&a);
    host_drained(&b);
    expect_in_redis("before", 300, true);
    expect_in_redis("during", 300, true);
    expect_in_redis("gone", 50, false);
    for (int i = 0; i < 50; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "gone%d", i);
        host_comes_to(&a, key, NULL);
    }
}
END_TEST

/* Written while Redis is away and over before it returns: it is found nowhere, and the value that
 * it had replaced does not come back either. What is left to the others is left to the millisecond.
 */
START_TEST(what_expired_during_the_outage_is_not_resurrected)
{
    host_set(&a, "old", "before");
    host_comes_to(&b, "old", "before");
    host_drained(&a);
    host_in_step(&b);
    harness_redis_kill(&redis);
    host_redis_up(&a, false);
    larder_policy brief = {.expiry = larder_expire_in(200)};
    larder_policy later = {.expiry = larder_expire_in(600000)};
    ck_assert_int_eq(larder_set(a.map, "old", 3, "brief", 5, &brief), LARDER_OK);
    ck_assert_int_eq(larder_set(a.map, "new", 3, "brief", 5, &brief), LARDER_OK);
    ck_assert_int_eq(larder_set(a.map, "later", 5, "later", 5, &later), LARDER_OK);
    int64_t expires = host_info(&a, "later").expires_ms;
    host_comes_to(&a, "old", NULL);
    host_comes_to(&a, "new", NULL);
    harness_redis_restart(&redis);
    host_comes_to(&b, "later", "later"); /* which was written after them */
    host_drained(&a);
    host_comes_to(&b, "old", NULL);
    ck_assert_int_eq(host_info(&b, "later").expires_ms, expires);
    for (int i = 0; i < 2; i++) {
        const char *key = i == 0 ? "old" : "new";
        ck_assert(host_has(&a, key, NULL));
        ck_assert(host_has(&b, key, NULL));
        redis_comes_to(&redis, i == 0 ? "t:old" : "t:new", NULL);
    }
}
END_TEST

START_TEST(redis_returns_with_its_data)
{
    host_end(&a);
    host_end(&b);
    harness_redis_end(&redis);
    memset(&redis, 0, sizeof redis);
    redis.append_only = true;
    harness_redis_start(&redis, "durable");
    host_start(&a, "c", &redis, NULL, NULL);
    host_start(&b, "d", &redis, NULL, NULL);
    host_in_step(&a);
    host_in_step(&b); /* nobody tells a host that comes later what stands in Redis */
    fill(&a, "before", 200);
    expect_filled(&b, "before", 200);
    host_drained(&a);
    host_in_step(&b);
    harness_redis_kill(&redis);
    host_redis_up(&a, false);
    fill(&a, "during", 200);
    host_set(&b, "before3", "changed");
    harness_redis_restart(&redis);
    expect_filled(&b, "during", 200);
    host_comes_to(&a, "before3", "changed");
    host_drained(&a);
    host_drained(&b);
    redis_comes_to(&redis, "t:before3", "changed");
    expect_in_redis("during", 200, true);
}
END_TEST

/* Values too large for their events, of keys that both write: whose loses hears of the winner
 * twice, as the answer to its push and as an event, and fetches it from a Redis that may not have
 * it yet. */
START_TEST(large_values_of_keys_that_both_write_get_through)
{
    enum { KEYS = 60 };
    static char values[KEYS][3001];
    char key[16];
    for (int i = 0; i < KEYS; i++) {
        memset(values[i], 'a' + i % 26, sizeof values[i] - 1);
        (void)snprintf(key, sizeof key, "large%d", i);
        host_set(i % 2 == 0 ? &a : &b, key, values[(i + 1) % KEYS]);
    }
    host_drained(&a);
    host_drained(&b);
    harness_redis_kill(&redis);
    host_redis_up(&a, false);
    host_redis_up(&b, false);
    for (int i = 0; i < KEYS; i++) {
        (void)snprintf(key, sizeof key, "large%d", i);
        host_set(i % 3 == 0 ? &a : &b, key, "small and older");
    }
    (void)usleep(10000); /* within a millisecond their order would be anybody's guess */
    for (int i = 0; i < KEYS; i++) {
        (void)snprintf(key, sizeof key, "large%d", i);
        host_set(i % 3 == 0 ? &b : &a, key, values[i]);
    }
    harness_redis_restart(&redis);
    for (int i = 0; i < KEYS; i++) {
        (void)snprintf(key, sizeof key, "large%d", i);
        host_comes_to(&a, key, values[i]);
        host_comes_to(&b, key, values[i]);
    }
}
END_TEST

START_TEST(redis_frozen)
{
    host_set(&a, "k", "1");
    host_comes_to(&b, "k", "1");
    harness_freeze(&redis.process);
    int64_t slowest = 0;
    for (int i = 0; i < 500; i++) {
        char value[16];
        (void)snprintf(value, sizeof value, "%d", i);
        int64_t from = harness_now_ms();
        host_set(&a, "k", value);
        ck_assert(host_has(&a, "k", value));
        int64_t took = harness_now_ms() - from;
        slowest = took > slowest ? took : slowest;
    }
    ck_assert_int_lt(slowest, harness_patience(1000)); /* no timeout of Redis's shows in it */
    host_redis_up(&a, false);
    host_set(&a, "k", "last");
    harness_thaw(&redis.process);
    host_comes_to(&b, "k", "last");
    redis_comes_to(&redis, "t:k", "last");
    host_drained(&a);
}
END_TEST

START_TEST(hot_key_costs_few_pushes)
{
    host_set(&a, "hot", "0");
    host_drained(&a);
    harness_redis_kill(&redis);
    host_redis_up(&a, false);
    char value[16];
    for (int i = 1; i <= 20000; i++) {
        (void)snprintf(value, sizeof value, "%d", i);
        host_set(&a, "hot", value);
    }
    ck_assert_uint_eq(host_dirty(&a), 1);
    host_stop_daemon(&b); /* only a's pushes count */
    harness_redis_restart(&redis);
    redis_comes_to(&redis, "t:hot", "20000");
    host_drained(&a);
    /* one event for the one key; the stream's first entry is the other XADD */
    ck_assert_uint_eq(redis_calls(&redis, "xadd"), 2);
    host_start_daemon(&b);
}
END_TEST

/* How often Redis has read from a client since it began. */
static uint64_t redis_reads(void)
{
    char *text = harness_redis_command(&redis, "INFO", "stats", NULL);
    const char *at = strstr(text, "total_reads_processed:");
    ck_assert_ptr_nonnull(at);
    uint64_t reads = strtoull(strchr(at, ':') + 1, NULL, 10);
    free(text);
    return reads;
}

static bool a_is_drained(void *context)
{
    (void)context;
    return host_dirty(&a) == 0;
}

/* Many keys to a write, so many writes without an answer: that is what makes it quick, also on a
 * machine that is not. */
START_TEST(backlog_is_pushed_in_batches)
{
    enum { KEYS = 20000 };
    harness_redis_kill(&redis);
    host_redis_up(&a, false);
    fill(&a, "k", KEYS);
    ck_assert_uint_eq(host_dirty(&a), KEYS);
    harness_redis_restart(&redis);
    int64_t from = harness_now_ms();
    ck_assert(wait_until(a_is_drained, NULL, 60000));
    printf("# %d keys pushed in %" PRId64 " ms, which Redis read in %" PRIu64 " pieces\n", KEYS,
           harness_now_ms() - from, redis_reads());
    ck_assert_uint_lt(redis_reads(), KEYS / 10);
    char *size = harness_redis_command(&redis, "DBSIZE", NULL);
    ck_assert_int_eq(strtol(size, NULL, 10),
                     2 * KEYS +
                         4); /* values, records, the stream, the marks, whose the node ids are */
    free(size);
    host_comes_to(&b, "k19999", "k19999");
}
END_TEST

/* Killed again and again while it pushes: nothing is lost. */
START_TEST(larderd_killed)
{
    char prefix[16];
    for (int round = 0; round < 8; round++) {
        (void)snprintf(prefix, sizeof prefix, "r%d-", round);
        fill(&a, prefix, 300);
        host_kill_daemon(&a);
        host_start_daemon(&a);
    }
    host_drained(&a);
    for (int round = 0; round < 8; round++) {
        (void)snprintf(prefix, sizeof prefix, "r%d-", round);
        expect_in_redis(prefix, 300, true);
        expect_filled(&b, prefix, 300);
    }
}
END_TEST

/* Stopped for longer than it waits for a reply while replies are on their way: they lie in the
 * socket when it goes on, and it is not Redis that was late. */
START_TEST(larderd_stopped)
{
    char prefix[16];
    for (int round = 0; round < 4; round++) {
        (void)snprintf(prefix, sizeof prefix, "r%d-", round);
        fill(&a, prefix, 3000);
        harness_freeze(&a.larderd.process);
        struct timespec pause = {.tv_sec = 1, .tv_nsec = 300000000};
        (void)nanosleep(&pause, NULL);
        harness_thaw(&a.larderd.process);
        host_drained(&a);
    }
    harness_never_logged(&a.larderd.process, "connection lost");
}
END_TEST

START_TEST(larderd_drains_at_its_end)
{
    fill(&a, "k", 2000);
    host_stop_daemon(&a);
    expect_in_redis("k", 2000, true);
    ck_assert_uint_eq(host_dirty(&a), 0);
}
END_TEST

START_TEST(redis_not_there_at_start)
{
    host_stop_daemon(&a);
    host_stop_daemon(&b);
    harness_redis_kill(&redis);
    host_set(&a, "k", "v");
    host_start_daemon(&a); /* ready without Redis */
    host_start_daemon(&b);
    ck_assert(host_has(&a, "k", "v"));
    harness_redis_restart(&redis);
    host_comes_to(&b, "k", "v");
}
END_TEST

/* Redis comes and goes at random under load; when it stays, all converge. */
START_TEST(flapping_redis)
{
    uint64_t random = harness_seed() ^ 77;
    char key[16], value[16], name[32];
    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < 400; i++) {
            host *self = harness_random(&random) % 2 != 0 ? &a : &b;
            (void)snprintf(key, sizeof key, "k%d", (int)(harness_random(&random) % 60));
            (void)snprintf(value, sizeof value, "%d-%d", round, i);
            if (harness_random(&random) % 8 == 0)
                host_delete(self, key);
            else
                host_set(self, key, value);
        }
        harness_redis_kill(&redis);
        harness_redis_restart(&redis);
    }
    host_redis_up(&a, true);
    host_redis_up(&b, true);
    pair_settles(&a, &b);
    for (int k = 0; k < 60; k++) {
        (void)snprintf(key, sizeof key, "k%d", k);
        (void)snprintf(name, sizeof name, "t:k%d", k);
        char *in_redis = harness_redis_command(&redis, "GET", name, NULL);
        host_comes_to(&a, key, in_redis);
        host_comes_to(&b, key, in_redis);
        free(in_redis);
    }
}
END_TEST

int main(void)
{
    harness_needs_redis();
    Suite *suite = suite_create("outage");
    TCase *fleet = tcase_create("two hosts");
    tcase_add_checked_fixture(fleet, setup, teardown);
    tcase_set_timeout(fleet, 120);
    tcase_add_test(fleet, redis_restarts_empty);
    tcase_add_test(fleet, what_expired_during_the_outage_is_not_resurrected);
    tcase_add_test(fleet, redis_returns_with_its_data);
    tcase_add_test(fleet, large_values_of_keys_that_both_write_get_through);
    tcase_add_test(fleet, redis_frozen);
    tcase_add_test(fleet, hot_key_costs_few_pushes);
    tcase_add_test(fleet, backlog_is_pushed_in_batches);
    tcase_add_test(fleet, larderd_killed);
    tcase_add_test(fleet, larderd_stopped);
    tcase_add_test(fleet, larderd_drains_at_its_end);
    tcase_add_test(fleet, redis_not_there_at_start);
    tcase_add_test(fleet, flapping_redis);
    suite_add_tcase(suite, fleet);
    return harness_run(suite);
}
