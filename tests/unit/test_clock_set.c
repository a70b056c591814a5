/* test_clock_set.c: what becomes of entries when somebody sets the host's wall clock. The program's
 * own clock_gettime() adds to what the kernel says.
 */
#include <check.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "replica.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"

static larder *map;
static uint64_t fence;
static _Atomic time_t ahead_s;

int clock_gettime(clockid_t id, struct timespec *out)
{
    int result = (int)syscall(SYS_clock_gettime, id, out);
    if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        out->tv_sec += atomic_load(&ahead_s);
    }
    return result;
}

/* A minute of life, and the clock an hour ahead: to every reader it is over. */
static void open_map(void)
{
    int other = -1;
    larder_policy policy = {.expiry = larder_expire_in(60000)};
    map = maps_new();
    ck_assert_int_eq(replica_claim(map, true, &fence, &other), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "p:k", 3, "value", 5, &policy), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "q:k", 3, "value", 5, &policy), LARDER_OK);
    int64_t before = clock_wall_ms();
    atomic_store(&ahead_s, 3600);
    ck_assert_int_ge(clock_wall_ms() - before, 3600000);
    ck_assert_ptr_null(maps_get(map, "p:k"));
}

static void close_map(void)
{
    maps_whole(map);
    larder_close(&map);
    atomic_store(&ahead_s, 0);
}

static void only_the_other_one_comes_back(void)
{
    atomic_store(&ahead_s, 0);
    ck_assert_ptr_null(maps_get(map, "p:k"));
    ck_assert_str_eq(maps_get(map, "q:k"), "value");
}

START_TEST(what_a_prefix_has_invalidated_does_not_come_back)
{
    uint64_t count = 77;
    ck_assert_int_eq(larder_invalidate_prefix(map, (larder_bytes){"p:", 2}, &count), LARDER_OK);
    ck_assert_uint_eq(count, 0); /* nobody could see it */
    only_the_other_one_comes_back();
}
END_TEST

START_TEST(what_a_pattern_has_invalidated_does_not_come_back)
{
    ck_assert_int_eq(larder_invalidate_match(map, (larder_bytes){"p*k", 3}, NULL), LARDER_OK);
    only_the_other_one_comes_back();
}
END_TEST

START_TEST(what_another_host_has_invalidated_does_not_come_back)
{
    replica_sweep sweep = {0};
    bool more = true;
    larder_version version = {.clock = clock_next(maps_control(map)).clock + 1, .node = 7};
    replica_event event = {.record = {.key = (const uint8_t *)"pp:",
                                      .key_size = 3,
                                      .version = version,
                                      .kind = REPLICA_MARK}};
    ck_assert_int_eq(replica_apply(map, fence, &event, 1, NULL), LARDER_OK);
    ck_assert_int_eq(event.verdict, REPLICA_APPLIED);
    for (int i = 0; i < 100 && more; i++) {
        ck_assert_int_ge(replica_sweep_some(map, fence, &sweep, &more), 0);
    }
    ck_assert(!more);
    only_the_other_one_comes_back();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("clock set");
    TCase *tests = tcase_create("clock set");
    tcase_add_checked_fixture(tests, open_map, close_map);
    tcase_add_test(tests, what_a_prefix_has_invalidated_does_not_come_back);
    tcase_add_test(tests, what_a_pattern_has_invalidated_does_not_come_back);
    tcase_add_test(tests, what_another_host_has_invalidated_does_not_come_back);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
