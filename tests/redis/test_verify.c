/* test_verify.c: what no event tells is found by comparing; clocks that stand wrong, copied maps,
 * hosts that were away too long, a larderd that was stopped while another took its map.
 */
#include "tests/redis/fleet.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "control.h"
#include "daemon/redis/wire.h"
#include "handle.h"

#define YEAR_MS INT64_C(31536000000)
#define DAY_MS INT64_C(86400000)

static harness_redis redis;
static host a, b;

static const char *with_verify(const char *period)
{
    static char text[512];
    (void)snprintf(text, sizeof text,
                   "redis = { prefix = \"t:\"; " HOST_QUICK "verify = \"%s\"; };\n"
                   "map = { size = \"64M\"; };\n",
                   period);
    return text;
}

static void setup(void)
{
    pair_start(&redis, &a, &b, with_verify("0"));
}

static void setup_rolling(void)
{
    pair_start(&redis, &a, &b, with_verify("300ms"));
}

static void teardown(void)
{
    pair_end(&redis, &a, &b);
}

static int64_t wall_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static struct control *control_of(const host *self)
{
    return map_control(self->map->map);
}

static void redis_forgets(const char *key)
{
    char record[64];
    (void)snprintf(record, sizeof record, "v:{%s}", key);
    free(harness_redis_command(&redis, "DEL", key, record, NULL));
}

/* ---- All the time -----------------------------------------------------------------------------
 */

START_TEST(an_evicted_record_comes_back)
{
    host_set(&a, "k", "v");
    host_comes_to(&b, "k", "v");
    host_drained(&a);
    redis_forgets("t:k");
    redis_comes_to(&redis, "t:k", "v");
    host_delete(&b, "k");
    host_comes_to(&a, "k", NULL);
    redis_forgets("t:k"); /* a deletion is remembered, too */
    for (int i = 0; i < 300; i++) {
        if (harness_redis_says(&redis, "1", "EXISTS", "v:{t:k}", NULL))
            break;
        (void)usleep(50000);
    }
    ck_assert(harness_redis_says(&redis, "1", "EXISTS", "v:{t:k}", NULL));
}
END_TEST

/* A host died between its set and its event. */
START_TEST(what_nobody_told_is_found)
{
    host_set(&a, "k", "old");
    host_comes_to(&b, "k", "old");
    /* newer, whatever the host thought of Redis's clock when it stamped its own */
    replica_record record = {.version = {.clock = host_info(&a, "k").version.clock + 1, .node = 77},
                             .kind = REPLICA_VALUE,
                             .value_hash = replica_value_hash("new", 3),
                             .value_size = 3,
                             .expires_at_ms = INT64_MAX};
    char text[WIRE_RECORD_MAX];
    (void)wire_record(&record, text);
    free(harness_redis_command(&redis, "MSET", "t:k", "new", "v:{t:k}", text, NULL));
    host_comes_to(&a, "k", "new");
    host_comes_to(&b, "k", "new");
}
END_TEST

/* ---- After lost history -----------------------------------------------------------------------
 */

START_TEST(values_that_redis_has_are_not_sent)
{
    enum { KEYS = 2000 };
    static char value[4001];
    char key[32];
    memset(value, 'v', 4000);
    for (int i = 0; i < KEYS; i++) {
        (void)snprintf(key, sizeof key, "k%d", i);
        host_set(&a, key, value);
    }
    host_drained(&a);
    free(harness_redis_command(&redis, "DEL", "t:k7", "v:{t:k7}", "larder:{t:}:events", NULL));
    free(harness_redis_command(&redis, "CONFIG", "RESETSTAT", NULL));
    redis_comes_to(&redis, "t:k7", value);
    for (int i = 0; i < 200 && redis_calls(&redis, "get") < KEYS; i++)
        (void)usleep(50000);
    ck_assert_uint_ge(redis_calls(&redis, "get"), KEYS);
    ck_assert_uint_lt(redis_calls(&redis, "set"), 100); /* that key, and the claims of node ids */
}
END_TEST

static void was_away_for_a_day(const host *self)
{
    struct control *control = control_of(self);
    for (size_t life = 0; life < 2; life++) {
        for (size_t copy = 0; copy < 2; copy++) {
            control->lives[life].ledgers[copy].position_seen_ms = wall_ms() - DAY_MS - 60000;
        }
    }
}

START_TEST(a_host_that_was_away_too_long_forgets_what_nobody_knows)
{
    host_set(&a, "deleted", "v");
    host_set(&a, "kept", "v");
    host_comes_to(&b, "deleted", "v");
    host_comes_to(&b, "kept", "v");
    host_drained(&a);
    host_drained(&b);
    host_stop_daemon(&b);
    was_away_for_a_day(&b);
    host_stop_daemon(&a);       /* it does not say that it knows better */
    redis_forgets("t:deleted"); /* its deletion was, long ago */
    host_set(&b, "dirty", "v");
    host_start_daemon(&b);
    redis_comes_to(&redis, "t:dirty", "v");
    host_comes_to(&b, "deleted", NULL);
    ck_assert(host_has(&b, "kept", "v"));
    ck_assert(host_has(&b, "dirty", "v"));
    ck_assert(harness_redis_says(&redis, "0", "EXISTS", "t:deleted", "v:{t:deleted}", NULL));
    host_start_daemon(&a);
    host_comes_to(&a, "dirty", "v");
}
END_TEST

/* ---- Clocks -----------------------------------------------------------------------------------
 */

START_TEST(a_host_whose_clock_stood_a_year_ahead_heals)
{
    host_set(&a, "before", "v");
    host_comes_to(&b, "before", "v");
    atomic_store(&control_of(&a)->clock, (uint64_t)(wall_ms() + YEAR_MS) << 16);
    host_set(&a, "k", "ahead");
    host_delete(&a, "before");
    host_comes_to(&b, "k", "ahead");
    host_comes_to(&b, "before", NULL);
    host_drained(&a);
    ck_assert_int_lt((int64_t)(host_info(&a, "k").version.clock >> 16), wall_ms() + 60000);
    /* and so what others write later is newer */
    (void)usleep(2100000);
    host_set(&b, "k", "later");
    host_set(&b, "before", "again");
    host_comes_to(&a, "k", "later");
    host_comes_to(&a, "before", "again");
    redis_comes_to(&redis, "t:k", "later");
}
END_TEST

/* ---- Copies -----------------------------------------------------------------------------------
 */

START_TEST(a_copy_of_a_map_gets_a_node_id_of_its_own)
{
    host c;
    char command[600];
    host_set(&a, "k", "v");
    host_drained(&a);
    host_stop_daemon(&a);
    (void)snprintf(command, sizeof command, "cp -a '%s' '%s'", a.directory, harness_path("host-c"));
    ck_assert_int_eq(system(command), 0);
    host_start_daemon(&a);
    host_redis_up(&a, true);
    uint32_t node = atomic_load(&control_of(&a)->node);
    host_start(&c, "c", &redis, NULL, with_verify("0"));
    host_logs(&c, "node id");
    ck_assert_uint_eq(atomic_load(&control_of(&a)->node), node);
    ck_assert_uint_ne(atomic_load(&control_of(&c)->node), node);
    host_set(&c, "k", "of the copy");
    host_comes_to(&a, "k", "of the copy");
    host_end(&c);
}
END_TEST

/* ---- Two daemons ------------------------------------------------------------------------------
 */

START_TEST(a_larderd_that_was_stopped_while_another_took_over_ends)
{
    char lock[400];
    host_set(&a, "k", "v");
    host_drained(&a);
    harness_larderd before = a.larderd;
    harness_freeze(&before.process);
    (void)snprintf(lock, sizeof lock, "%s/m/larderd.lock", a.directory);
    ck_assert_int_eq(unlink(lock), 0);
    memset(&a.larderd, 0, sizeof a.larderd);
    host_start_daemon(&a);
    host_set(&a, "k", "w");
    host_comes_to(&b, "k", "w");
    harness_thaw(&before.process);
    host_set(&b, "k", "x"); /* both hear of it */
    ck_assert(harness_logged(&before.process, "another larderd has claimed this map", PATIENCE_MS));
    (void)harness_end(&before.process, SIGTERM, 10000);
    host_comes_to(&a, "k", "x");
    host_set(&a, "k", "y");
    host_comes_to(&b, "k", "y");
    host_drained(&a);
}
END_TEST

int main(void)
{
    harness_needs_redis();
    Suite *suite = suite_create("verify");
    TCase *rolling = tcase_create("all the time");
    tcase_add_checked_fixture(rolling, setup_rolling, teardown);
    tcase_set_timeout(rolling, 120);
    tcase_add_test(rolling, an_evicted_record_comes_back);
    tcase_add_test(rolling, what_nobody_told_is_found);
    suite_add_tcase(suite, rolling);
    TCase *fleet = tcase_create("two hosts");
    tcase_add_checked_fixture(fleet, setup, teardown);
    tcase_set_timeout(fleet, 120);
    tcase_add_test(fleet, values_that_redis_has_are_not_sent);
    tcase_add_test(fleet, a_host_that_was_away_too_long_forgets_what_nobody_knows);
    tcase_add_test(fleet, a_host_whose_clock_stood_a_year_ahead_heals);
    tcase_add_test(fleet, a_copy_of_a_map_gets_a_node_id_of_its_own);
    tcase_add_test(fleet, a_larderd_that_was_stopped_while_another_took_over_ends);
    suite_add_tcase(suite, fleet);
    return harness_run(suite);
}
