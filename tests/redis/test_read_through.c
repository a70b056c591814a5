/* test_read_through.c: misses that larderd answers from Redis: a host that starts cold, keys that
 * were evicted here, values that other programs wrote, many workers and one request, and no wait
 * where Redis is not to be had.
 */
#include "tests/redis/fleet.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BUDGET_MS = 5000, LONG_MS = 30000 };

static harness_redis redis;
static host a, b;

static void setup(void)
{
    memset(&redis, 0, sizeof redis);
    memset(&b, 0, sizeof b);
    harness_redis_start(&redis, "redis");
    host_start(&a, "a", &redis, NULL, NULL);
    host_redis_up(&a, true);
}

static void teardown(void)
{
    host_end(&a);
    if (b.map != NULL)
        host_end(&b);
    harness_redis_end(&redis);
}

static void start_b(void)
{
    host_start(&b, "b", &redis, NULL, NULL);
    host_redis_up(&b, true);
}

static void start_b_with(const char *configuration)
{
    host_start(&b, "b", &redis, NULL, configuration);
    host_redis_up(&b, true);
}

/* The value as text, good until the next call; NULL: a miss. */
static const char *read_through(host *self, const char *key, int64_t budget_ms)
{
    static char text[65536];
    larder_info info;
    larder_read read = {.read_through_ms = budget_ms};
    int result = larder_get_with(self->map, key, strlen(key), text, sizeof text - 1, &info, &read);
    if (result == LARDER_ABSENT)
        return "(absent)";
    if (result == LARDER_MISS)
        return NULL;
    ck_assert_msg(result == LARDER_OK, "%s: %d %s", key, result, larder_last_error());
    text[info.size] = 0;
    return text;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static larder_stats figures(host *self)
{
    larder_stats stats;
    ck_assert_int_eq(larder_stats_read(self->map, &stats, sizeof stats), LARDER_OK);
    return stats;
}

START_TEST(a_cold_host_warms_itself)
{
    host_set(&a, "k", "value");
    larder_policy negative = {.flags = LARDER_NEGATIVE, .expiry = larder_expire_in(60000)};
    ck_assert_int_eq(larder_set(a.map, "none", 4, "", 0, &negative), LARDER_OK);
    host_drained(&a);
    start_b();
    ck_assert(host_has(&b, "k", NULL));
    ck_assert_pstr_eq(read_through(&b, "k", BUDGET_MS), "value");
    ck_assert(host_has(&b, "k", "value"));
    ck_assert_pstr_eq(read_through(&b, "none", BUDGET_MS), "(absent)");
    larder_info here = host_info(&a, "k"), there = host_info(&b, "k");
    ck_assert_uint_eq(here.version.clock, there.version.clock);
    ck_assert_uint_eq(here.version.node, there.version.node);
    ck_assert_uint_eq(host_dirty(&b), 0);

    int64_t began = now_ms();
    ck_assert_ptr_null(read_through(&b, "nowhere", BUDGET_MS));
    ck_assert_int_lt(now_ms() - began, BUDGET_MS / 2); /* an answer, not a budget */
    larder_stats stats = figures(&b);
    ck_assert_uint_eq(stats.read_through_found, 2);
    ck_assert_uint_eq(stats.read_through_absent, 1);
    ck_assert_uint_eq(stats.read_through_timeouts, 0);
}
END_TEST

static int by_size(const void *left, const void *right)
{
    int64_t a_ms = *(const int64_t *)left, b_ms = *(const int64_t *)right;
    return (a_ms > b_ms) - (a_ms < b_ms);
}

/* Whether it comes while larderd is still at the last one, or has gone to sleep since: who is not
 * heard waits 50 ms before he says it again. */
START_TEST(a_miss_is_heard_at_once)
{
    enum { KEYS = 60, REMINDER_MS = 50 };
    int64_t took_ms[KEYS];
    char key[16];
    for (int i = 0; i < KEYS; i++) {
        (void)snprintf(key, sizeof key, "key%d", i);
        host_set(&a, key, "value");
    }
    host_drained(&a);
    start_b_with("redis = { prefix = \"t:\"; busy_poll_us = 0; };\n");
    for (int i = 0; i < KEYS; i++) {
        (void)snprintf(key, sizeof key, "key%d", i);
        int64_t began = now_ms();
        ck_assert_pstr_eq(read_through(&b, key, BUDGET_MS), "value");
        took_ms[i] = now_ms() - began;
        if (i % 3 != 0)
            usleep(2000);
    }
    qsort(took_ms, KEYS, sizeof *took_ms, by_size);
    ck_assert_int_lt(took_ms[KEYS / 2], REMINDER_MS);
}
END_TEST

/* More than the map holds: what was evicted, here or with it, raised the floors of all buckets over
 * what Redis has. */
START_TEST(what_was_evicted_comes_back)
{
    enum { KEYS = 8000, SIZE = 4000 };
    char key[32], value[SIZE];
    memset(value, 'x', sizeof value);
    for (int i = 0; i < KEYS; i++) {
        int size = snprintf(key, sizeof key, "key%d", i);
        host_set_bytes(&a, key, (size_t)size, value, sizeof value);
    }
    host_drained(&a);
    start_b_with("redis = { prefix = \"t:\"; }; map = { size = \"16M\"; hot_size = \"1M\"; };\n");
    for (int i = 0; i < 2 * KEYS; i++) {
        (void)snprintf(key, sizeof key, "key%d", i % KEYS);
        const char *got = read_through(&b, key, BUDGET_MS);
        ck_assert_msg(got != NULL && strlen(got) == SIZE, "%s, round %d", key, i / KEYS);
    }
    ck_assert_uint_gt(figures(&b).evictions, KEYS / 2);
    ck_assert_uint_eq(host_dirty(&b), 0);
}
END_TEST

START_TEST(a_deleted_key_does_not_come_back)
{
    host_set(&a, "k", "v");
    host_drained(&a);
    start_b();
    host_delete(&b, "k");
    ck_assert_ptr_null(read_through(&b, "k", BUDGET_MS));
    host_comes_to(&a, "k", NULL);
    ck_assert_ptr_null(read_through(&a, "k", BUDGET_MS));
    ck_assert_ptr_null(read_through(&b, "k", BUDGET_MS));
}
END_TEST

START_TEST(a_foreign_value_is_served_and_loses_to_any_write)
{
    start_b();
    ck_assert(harness_redis_says(&redis, "OK", "SET", "t:k", "foreign", NULL));
    ck_assert_pstr_eq(read_through(&b, "k", BUDGET_MS), "foreign");
    ck_assert_int_lt(host_info(&b, "k").expires_ms, INT64_MAX); /* nobody tells of its change */
    ck_assert(harness_redis_says(&redis, "OK", "SET", "t:short", "foreign", "PX", "30000", NULL));
    ck_assert_pstr_eq(read_through(&b, "short", BUDGET_MS), "foreign");
    char *ends = harness_redis_command(&redis, "PEXPIRETIME", "t:short", NULL);
    ck_assert_int_le(llabs(host_info(&b, "short").expires_ms - strtoll(ends, NULL, 10)), 1000);
    free(ends);
    ck_assert_uint_eq(host_dirty(&b), 0);
    host_set(&a, "k", "ours");
    host_comes_to(&b, "k", "ours");
    redis_comes_to(&redis, "t:k", "ours");
    /* over a record, and over a deletion */
    ck_assert(harness_redis_says(&redis, "OK", "SET", "t:k", "foreign again", NULL));
    host_delete(&a, "gone");
    host_comes_to(&b, "gone", NULL);
    host_drained(&a);
    ck_assert(harness_redis_says(&redis, "OK", "SET", "t:gone", "revived", NULL));
    ck_assert_pstr_eq(read_through(&b, "gone", BUDGET_MS), "revived");
    ck_assert_pstr_eq(read_through(&a, "gone", BUDGET_MS), "revived");
    host_set(&b, "gone", "ours");
    host_comes_to(&a, "gone", "ours");
    redis_comes_to(&redis, "t:gone", "ours");
}
END_TEST

enum { PROCESSES = 8, THREADS = 63 };

static void *miss(void *context)
{
    larder_read read = {.read_through_ms = LONG_MS};
    char value[64];
    larder_info info;
    int result = larder_get_with(b.map, "popular", 7, value, sizeof value, &info, &read);
    bool right = result == LARDER_OK && info.size == 5 && memcmp(value, "value", 5) == 0;
    return right ? context : NULL;
}

/* A process that finds the map's gates busy when it opens it misses for a moment: not what is asked
 * here. */
static bool comes_in(void)
{
    int64_t until = now_ms() + LONG_MS / 2;
    while (larder_has(b.map, "there", 5) != LARDER_OK && now_ms() < until)
        usleep(1000);
    return now_ms() < until;
}

static int crowd(void)
{
    pthread_t threads[THREADS];
    int failed = 0;
    if (!comes_in())
        return 101;
    for (size_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, miss, &failed) != 0)
            return 100;
    for (size_t i = 0; i < THREADS; i++) {
        void *right = NULL;
        failed += pthread_join(threads[i], &right) != 0 || right == NULL;
    }
    return failed;
}

START_TEST(five_hundred_misses_are_one_request)
{
    host_set(&a, "popular", "value");
    host_drained(&a);
    start_b_with("redis = { prefix = \"t:\"; reply_timeout = \"30s\"; };\n");
    host_set(&b, "there", "it is");
    host_drained(&b);
    uint64_t before = redis_calls(&redis, "mget");
    pid_t workers[PROCESSES];
    harness_freeze(&redis.process); /* so that all are there before the answer is */
    for (size_t i = 0; i < PROCESSES; i++) {
        workers[i] = fork();
        ck_assert_int_ge(workers[i], 0);
        if (workers[i] == 0)
            _exit(crowd());
    }
    int64_t until = now_ms() + LONG_MS / 2;
    while (figures(&b).read_through_joined < PROCESSES * THREADS - 1 && now_ms() < until)
        usleep(1000);
    harness_thaw(&redis.process);
    for (size_t i = 0; i < PROCESSES; i++) {
        int status;
        ck_assert_int_eq(waitpid(workers[i], &status, 0), workers[i]);
        ck_assert_int_eq(status, 0);
    }
    ck_assert_uint_eq(figures(&b).read_through_found, PROCESSES * THREADS);
    ck_assert_uint_eq(redis_calls(&redis, "mget") - before, 1);
}
END_TEST

START_TEST(nobody_waits_without_redis)
{
    start_b();
    ck_assert_ptr_null(read_through(&b, "k", BUDGET_MS));
    harness_redis_kill(&redis);
    host_redis_up(&b, false);
    int64_t began = now_ms();
    for (int i = 0; i < 50; i++)
        ck_assert_ptr_null(read_through(&b, "k", BUDGET_MS));
    ck_assert_int_lt(now_ms() - began, BUDGET_MS / 2);
    ck_assert_uint_ge(figures(&b).read_through_nobody, 50);
    harness_redis_restart(&redis);
    host_redis_up(&b, true);
    host_set(&a, "k", "v");
    host_drained(&a);
    ck_assert_pstr_eq(read_through(&b, "k", BUDGET_MS), "v");
}
END_TEST

START_TEST(a_hung_redis_costs_three_budgets)
{
    start_b();
    ck_assert_ptr_null(read_through(&b, "k", BUDGET_MS));
    harness_freeze(&redis.process);
    int64_t began = now_ms();
    char key[16];
    for (int i = 0; i < 100; i++) {
        (void)snprintf(key, sizeof key, "k%d", i);
        ck_assert_ptr_null(read_through(&b, key, 100));
    }
    ck_assert_int_lt(now_ms() - began, 1500);
    ck_assert_uint_ge(figures(&b).read_through_timeouts, 3);
    harness_thaw(&redis.process);
    host_set(&a, "k", "v");
    host_comes_to(&b, "k", "v");
    /* and it is found out that it answers again */
    host_set(&a, "later", "v");
    host_drained(&a);
    uint64_t found = figures(&b).read_through_absent;
    int64_t until = now_ms() + PATIENCE_MS;
    while (figures(&b).read_through_absent < found + 5 && now_ms() < until) {
        (void)read_through(&b, "nowhere", 100);
        usleep(10000);
    }
    ck_assert_uint_ge(figures(&b).read_through_absent, found + 5);
}
END_TEST

START_TEST(an_event_loop_is_told)
{
    larder_asked asked;
    host_set(&a, "k", "v");
    host_drained(&a);
    start_b();
    int fd = larder_notify_fd(b.map);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(larder_ask(b.map, "k", 1, BUDGET_MS, &asked), LARDER_WAIT);
    int outcome = LARDER_WAIT;
    while (outcome == LARDER_WAIT) {
        struct pollfd poller = {.fd = fd, .events = POLLIN};
        ck_assert_int_eq(poll(&poller, 1, BUDGET_MS), 1);
        ck_assert_int_eq(larder_notify_clear(b.map), LARDER_OK);
        outcome = larder_ask_wait(b.map, &asked, 0);
    }
    ck_assert_int_eq(outcome, LARDER_OK);
    ck_assert(host_has(&b, "k", "v"));
}
END_TEST

/* ---- Changes by other programs --------------------------------------------------------------- */

/* On A and B the same values stand, unperturbed by their own writes; a foreign write takes the copy
 * of B alone, which looks for such; and a write of larder's wins over it. */
static void foreign_changes_are_noticed(void)
{
    char key[16];
    for (int i = 0; i < 200; i++) {
        (void)snprintf(key, sizeof key, "key%d", i);
        host_set(i % 2 == 0 ? &a : &b, key, "ours");
    }
    for (int i = 0; i < 200; i++) {
        (void)snprintf(key, sizeof key, "key%d", i);
        host_comes_to(&a, key, "ours");
        host_comes_to(&b, key, "ours");
    }
    host_drained(&a);
    host_drained(&b);
    ck_assert(harness_redis_says(&redis, "OK", "SET", "t:key7", "foreign", NULL));
    host_comes_to(&b, "key7", "foreign");
    ck_assert(harness_redis_says(&redis, "1", "DEL", "t:key8", NULL));
    host_comes_to(&b, "key8", NULL);
    ck_assert(harness_redis_says(&redis, "8", "APPEND", "t:key9", "more", NULL));
    host_comes_to(&b, "key9", "oursmore");
    ck_assert(host_has(&a, "key7", "ours")); /* it does not look */
    host_set(&a, "key7", "ours again");
    host_comes_to(&b, "key7", "ours again");
    redis_comes_to(&redis, "t:key7", "ours again");
    /* what larder itself wrote was looked at, a second later, and stayed */
    int64_t until = now_ms() + 1500;
    while (now_ms() < until) {
        for (int i = 10; i < 200; i++) {
            (void)snprintf(key, sizeof key, "key%d", i);
            ck_assert_msg(host_has(&b, key, "ours"), "%s", key);
        }
        usleep(20000);
    }
    ck_assert_uint_eq(host_dirty(&b), 0);
}

START_TEST(tracking_notices_foreign_writes)
{
    start_b_with("redis = { prefix = \"t:\"; foreign = \"tracking\"; " HOST_QUICK "};\n");
    foreign_changes_are_noticed();
}
END_TEST

START_TEST(lost_tracking_ends_the_session)
{
    start_b_with("redis = { prefix = \"t:\"; foreign = \"tracking\"; " HOST_QUICK "};\n");
    host_set(&b, "k", "ours");
    host_drained(&b);
    char *killed = harness_redis_command(&redis, "CLIENT", "KILL", "TYPE", "pubsub", NULL);
    ck_assert_ptr_nonnull(killed);
    free(killed);
    host_logs(&b, "connection lost");
    host_redis_up(&b, true);
    ck_assert(harness_redis_says(&redis, "OK", "SET", "t:k", "foreign", NULL));
    host_comes_to(&b, "k", "foreign");
}
END_TEST

/* All that one round of Redis's loop has changed is named in one message. */
START_TEST(tracking_names_very_many_keys_at_once)
{
    start_b_with("redis = { prefix = \"t:\"; foreign = \"tracking\"; " HOST_QUICK "};\n");
    host_set(&b, "k", "ours");
    host_drained(&b);
    ck_assert(harness_redis_says(&redis, "1", "EVAL",
                                 "for i = 1, 70000 do redis.call('SET', 't:' .. i, 'x') end "
                                 "redis.call('SET', 't:k', 'theirs') return 1",
                                 "0", NULL));
    host_comes_to(&b, "k", "theirs");
    harness_never_logged(&b.larderd.process, "connection lost");
}
END_TEST

START_TEST(notifications_notice_foreign_writes)
{
    ck_assert(
        harness_redis_says(&redis, "OK", "CONFIG", "SET", "notify-keyspace-events", "EA", NULL));
    start_b_with("redis = { prefix = \"t:\"; foreign = \"notifications\"; };\n");
    foreign_changes_are_noticed();
}
END_TEST

START_TEST(a_server_that_does_not_notify_is_named)
{
    start_b_with("redis = { prefix = \"t:\"; foreign = \"notifications\"; };\n");
    host_logs(&b, "notify-keyspace-events must have E and A");
    ck_assert(harness_redis_says(&redis, "notify-keyspace-events\n", "CONFIG", "GET",
                                 "notify-keyspace-events",
                                 NULL)); /* and is not set behind his back */
}
END_TEST

static int fills;

static int fill(void *context, const void *key, size_t key_size, larder_filled *filled)
{
    (void)context;
    (void)key;
    (void)key_size;
    fills++;
    filled->value = "origin";
    filled->value_size = 6;
    return LARDER_OK;
}

START_TEST(a_fetch_asks_redis_before_its_origin)
{
    larder_lease_options options = {.read_through_ms = BUDGET_MS};
    void *value;
    size_t size;
    fills = 0;
    host_set(&a, "k", "redis");
    host_drained(&a);
    start_b();
    ck_assert_int_eq(larder_fetch_with(b.map, "k", 1, fill, NULL, &options, &value, &size, NULL),
                     LARDER_OK);
    ck_assert_uint_eq(size, 5);
    ck_assert_mem_eq(value, "redis", 5);
    ck_assert_int_eq(fills, 0);
    larder_free(value);
    ck_assert_int_eq(larder_fetch_with(b.map, "l", 1, fill, NULL, &options, &value, &size, NULL),
                     LARDER_OK);
    ck_assert_mem_eq(value, "origin", 6);
    ck_assert_int_eq(fills, 1);
    larder_free(value);
    host_comes_to(&a, "l", "origin");
}
END_TEST

/* What a shell says to the script, in which "larder" is the tool on that host's map; *code: its
 * exit status. Good until the next call. */
static const char *shell(int *code, const host *self, const char *script)
{
    static char text[4096];
    char command[1024];
    const char *tool = getenv("LARDER");
    (void)snprintf(command, sizeof command, "larder() { %s -m m -d %s \"$@\"; }; { %s\n} 2>&1",
                   tool != NULL ? tool : "./larder", self->directory, script);
    FILE *pipe = popen(command, "r");
    ck_assert_ptr_nonnull(pipe);
    size_t size = fread(text, 1, sizeof text - 1, pipe);
    text[size] = 0;
    int status = pclose(pipe);
    *code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return text;
}

START_TEST(the_tool_reads_through_and_warms)
{
    int code;
    char key[32];
    for (int i = 0; i < 1000; i++) {
        (void)snprintf(key, sizeof key, "key %d", i);
        host_set(&a, key, key);
    }
    host_drained(&a);
    start_b();
    ck_assert_str_eq(shell(&code, &b, "larder get 'key 7'"), "");
    ck_assert_int_eq(code, 1);
    ck_assert_str_eq(shell(&code, &b, "larder get 'key 7' --read-through 5s"), "key 7");
    ck_assert_int_eq(code, 0);
    char script[300];
    const char *list = harness_path("keys.hex");
    (void)snprintf(script, sizeof script, "larder ls --hex >%s && printf '\\n%s\\n' >>%s", list,
                   "6e6f7768657265", list); /* an empty line, and "nowhere" */
    (void)shell(&code, &a, script);
    ck_assert_int_eq(code, 0);
    (void)snprintf(script, sizeof script, "larder warm --hex %s", list);
    ck_assert_str_eq(shell(&code, &b, script),
                     "999 brought, 1 there already, 0 not kept here, 1 not in Redis, "
                     "0 without an answer\n");
    ck_assert_int_eq(code, 0);
    for (int i = 0; i < 1000; i++) {
        (void)snprintf(key, sizeof key, "key %d", i);
        ck_assert(host_has(&b, key, key));
    }
    const char *said = shell(&code, &b, "printf 'key 1\n' | larder --json warm -");
    ck_assert_msg(code == 0 && strstr(said, "\"there\": 1") != NULL, "%s", said);
    (void)shell(&code, &b, "larder warm /nowhere/at/all");
    ck_assert_int_eq(code, 2);
    said = shell(&code, &b, "printf 'xyz\n' | larder warm --hex -");
    ck_assert_msg(code == 2 && strstr(said, "line 1") != NULL, "%s", said);
    host_stop_daemon(&b);
    said = shell(&code, &b, "echo another | larder warm --read-through 10ms -");
    ck_assert_msg(code == 5 && strstr(said, "1 without an answer") != NULL, "%d %s", code, said);
}
END_TEST

/* Of what Redis has, the values of a tag that was invalidated here are brought to nobody. */
START_TEST(warming_counts_what_can_be_read)
{
    int code;
    larder_bytes tag = {"tag", 3};
    larder_policy tagged = {.tags = &tag, .tag_count = 1};
    ck_assert_int_eq(larder_set(a.map, "tagged", 6, "v", 1, &tagged), LARDER_OK);
    host_set(&a, "plain", "v");
    host_drained(&a);
    start_b();
    ck_assert_int_eq(larder_invalidate_tag(b.map, tag, NULL), LARDER_OK);
    const char *said = shell(&code, &b, "printf 'tagged\nplain\n' | larder warm -");
    ck_assert_str_eq(said, "1 brought, 0 there already, 1 not kept here, 0 not in Redis, "
                           "0 without an answer\n");
    ck_assert_int_eq(code, 0);
    ck_assert(host_has(&b, "plain", "v"));
    ck_assert(host_has(&b, "tagged", NULL));
}
END_TEST

/* A value over the limit of replies ends the session, and is then left alone for a while. */
START_TEST(a_value_that_is_too_large_ends_one_session)
{
    start_b();
    ck_assert(harness_redis_says(&redis, "20000000", "SETRANGE", "t:huge", "19999999", "x", NULL));
    ck_assert_ptr_null(read_through(&b, "huge", BUDGET_MS));
    host_redis_up(&b, true);
    host_set(&a, "k", "v");
    host_comes_to(&b, "k", "v");
    for (int i = 0; i < 20; i++)
        ck_assert_ptr_null(read_through(&b, "huge", BUDGET_MS));
    host_redis_up(&b, true);
    ck_assert_uint_eq(redis_calls(&redis, "mget"), 1);
}
END_TEST

int main(void)
{
    harness_needs_redis();
    Suite *suite = suite_create("read_through");
    TCase *tests = tcase_create("read-through");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, a_cold_host_warms_itself);
    tcase_add_test(tests, a_miss_is_heard_at_once);
    tcase_add_test(tests, what_was_evicted_comes_back);
    tcase_add_test(tests, a_deleted_key_does_not_come_back);
    tcase_add_test(tests, a_foreign_value_is_served_and_loses_to_any_write);
    tcase_add_test(tests, five_hundred_misses_are_one_request);
    tcase_add_test(tests, nobody_waits_without_redis);
    tcase_add_test(tests, a_hung_redis_costs_three_budgets);
    tcase_add_test(tests, tracking_notices_foreign_writes);
    tcase_add_test(tests, lost_tracking_ends_the_session);
    tcase_add_test(tests, tracking_names_very_many_keys_at_once);
    tcase_add_test(tests, notifications_notice_foreign_writes);
    tcase_add_test(tests, a_server_that_does_not_notify_is_named);
    tcase_add_test(tests, an_event_loop_is_told);
    tcase_add_test(tests, a_fetch_asks_redis_before_its_origin);
    tcase_add_test(tests, the_tool_reads_through_and_warms);
    tcase_add_test(tests, warming_counts_what_can_be_read);
    tcase_add_test(tests, a_value_that_is_too_large_ends_one_session);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
