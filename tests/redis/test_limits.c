/* test_limits.c: what is too large for one side. Replies near the limit of redis.max_reply: what a
 * host with its own settings tells must be readable to it, and what one with larger ones tells must
 * not keep it from the rest. And what Redis ends the connection over must not keep back the others.
 */
#include "tests/redis/fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static harness_redis redis;
static host a, b;

static void setup(void)
{
    memset(&redis, 0, sizeof redis);
    memset(&b, 0, sizeof b);
    harness_redis_start(&redis, "redis");
}

static void teardown(void)
{
    host_end(&a);
    if (b.map != NULL)
        host_end(&b);
    harness_redis_end(&redis);
}

static void set_large(host *self, const char *key, size_t size)
{
    char *value = malloc(size);
    ck_assert_ptr_nonnull(value);
    memset(value, 'x', size);
    host_set_bytes(self, key, strlen(key), value, size);
    free(value);
}

static uint64_t joins_wanted;

static bool has_joined(void *context)
{
    (void)context;
    return redis_calls(&redis, "xrevrange") >= joins_wanted;
}

/* The join script, which is the heartbeat, too, tells of two entries, as large as any event. */
START_TEST(large_events_do_not_keep_from_joining)
{
    host_start(
        &a, "a", &redis, NULL,
        "redis = { prefix = \"t:\"; inline_value = \"1M\"; max_reply = \"1200K\"; " HOST_QUICK
        "};\n");
    host_redis_up(&a, true);
    set_large(&a, "large", 700000);
    host_drained(&a);
    joins_wanted = redis_calls(&redis, "xrevrange") + 3;
    ck_assert(wait_until(has_joined, NULL, PATIENCE_MS));
    host_set(&a, "k", "v");
    redis_comes_to(&redis, "t:k", "v");
    harness_never_logged(&a.larderd.process, "larger than the limit");
}
END_TEST

/* A page of the stream is as long as this host's own events allow; those of another may be larger.
 */
START_TEST(larger_events_of_others_are_caught_up_with)
{
    enum { EVENTS = 60 };
    char key[16];
    host_start(&a, "a", &redis, NULL,
               "redis = { prefix = \"t:\"; inline_value = \"512K\"; " HOST_QUICK "};\n");
    host_start(&b, "b", &redis, NULL,
               "redis = { prefix = \"t:\"; max_reply = \"1M\"; " HOST_QUICK "};\n");
    host_redis_up(&a, true);
    host_redis_up(&b, true);
    host_set(&a, "first", "1");
    host_comes_to(&b, "first", "1");
    host_in_step(&b);
    host_stop_daemon(&b);
    for (int i = 0; i < EVENTS; i++) {
        (void)snprintf(key, sizeof key, "k%d", i);
        set_large(&a, key, i < EVENTS / 2 ? 300000 : 1000);
    }
    host_set(&a, "last", "1");
    host_drained(&a);
    host_start_daemon(&b);
    host_comes_to(&b, "last", "1");
    for (int i = 0; i < EVENTS; i++) {
        (void)snprintf(key, sizeof key, "k%d", i);
        ck_assert_uint_eq(host_info(&b, key).size, i < EVENTS / 2 ? 300000 : 1000);
    }
    /* from the stream: nothing of it was passed over */
    char *log = harness_log(&b.larderd.process);
    char *again = strstr(log, "connected");
    ck_assert_msg(again != NULL && strstr(again + 1, "comparing all entries") == NULL, "%s", log);
    free(log);
}
END_TEST

static void limit_queries(const char *bytes)
{
    ck_assert(harness_redis_says(&redis, "OK", "CONFIG", "SET", "client-query-buffer-limit", bytes,
                                 NULL));
}

/* Without a word: Redis closes the connection of who sends so much. (A value that is larger than
 * proto-max-bulk-len is answered, and is one refused row.) */
START_TEST(a_value_that_redis_ends_the_connection_over_holds_up_nothing)
{
    enum { OTHERS = 300 };
    char key[16];
    limit_queries("1048576");
    host_start(&a, "a", &redis, NULL, "redis = { prefix = \"t:\"; " HOST_QUICK "};\n");
    host_redis_up(&a, true);
    host_stop_daemon(&a);
    host_set(&a, "before", "1");
    set_large(&a, "large", 2000000);
    for (int i = 0; i < OTHERS; i++) {
        (void)snprintf(key, sizeof key, "k%d", i);
        host_set(&a, key, "1");
    }
    host_start_daemon(&a);
    for (int i = 0; i < OTHERS; i++) {
        (void)snprintf(key, sizeof key, "t:k%d", i);
        redis_comes_to(&redis, key, "1");
    }
    redis_comes_to(&redis, "t:before", "1");
    host_set(&a, "later", "1");
    redis_comes_to(&redis, "t:later", "1");
    ck_assert(harness_redis_says(&redis, "0", "EXISTS", "t:large", NULL));
    limit_queries("1073741824");
    host_drained(&a);
    ck_assert(harness_redis_says(&redis, "2000000", "STRLEN", "t:large", NULL));
}
END_TEST

int main(void)
{
    harness_needs_redis();
    Suite *suite = suite_create("limits");
    TCase *tests = tcase_create("limits");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, large_events_do_not_keep_from_joining);
    tcase_add_test(tests, larger_events_of_others_are_caught_up_with);
    tcase_add_test(tests, a_value_that_redis_ends_the_connection_over_holds_up_nothing);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
