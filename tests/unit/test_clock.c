/* test_clock.c: the hybrid logical clock never goes back or repeats, whatever the wall clock does;
 * expiry is half-open to the millisecond.
 */
#include "clock.h"

#include <check.h>
#include <pthread.h>
#include <stdlib.h>

#include "tests/harness.h"

static struct control *control;

static void make_control(void)
{
    control = calloc(1, sizeof *control);
    ck_assert_ptr_nonnull(control);
    atomic_store(&control->node, 7);
}

static void drop_control(void)
{
    free(control);
}

START_TEST(versions_carry_the_wall_clock_and_the_node)
{
    int64_t before = clock_wall_ms();
    larder_version version = clock_next(control);
    int64_t after = clock_wall_ms();
    ck_assert_int_ge(clock_version_ms(version.clock), before);
    ck_assert_int_le(clock_version_ms(version.clock), after);
    ck_assert_uint_eq(version.node, 7);
    ck_assert_uint_eq(version.reserved, 0);
}
END_TEST

START_TEST(versions_only_grow)
{
    uint64_t last = 0;
    for (int i = 0; i < 100000; i++) { /* more than the counter holds in one millisecond */
        larder_version version = clock_next(control);
        ck_assert_uint_gt(version.clock, last);
        last = version.clock;
    }
}
END_TEST

START_TEST(a_wall_clock_that_was_ahead_is_not_followed_back)
{
    uint64_t future = (uint64_t)(clock_wall_ms() + INT64_C(31536000000)) << 16;
    atomic_store(&control->clock, future);
    ck_assert_uint_eq(clock_next(control).clock, future + 1);
    ck_assert_uint_eq(clock_next(control).clock, future + 2);
}
END_TEST

START_TEST(the_offset_of_redis_moves_versions)
{
    atomic_store(&control->clock_offset_ms, 5000);
    int64_t before = clock_wall_ms();
    int64_t ms = clock_version_ms(clock_next(control).clock);
    ck_assert_int_ge(ms, before + 5000);
    ck_assert_int_le(ms, clock_wall_ms() + 5000);
    /* stepping the offset back must not step versions back */
    atomic_store(&control->clock_offset_ms, -5000);
    ck_assert_int_ge(clock_version_ms(clock_next(control).clock), ms);
}
END_TEST

START_TEST(what_was_observed_is_never_given_again)
{
    uint64_t seen = (uint64_t)(clock_wall_ms() + 60000) << 16 | 12;
    clock_observe(control, seen);
    ck_assert_uint_eq(clock_next(control).clock, seen + 1);
    clock_observe(control, seen - 100); /* an older one changes nothing */
    ck_assert_uint_eq(clock_next(control).clock, seen + 2);
}
END_TEST

static uint64_t redis_clock(int64_t ahead_ms)
{
    return (uint64_t)(clock_wall_ms() + ahead_ms) << 16;
}

static void learn_redis_clock(void)
{
    atomic_store(&control->clock_redis_ms, clock_wall_ms() - clock_monotonic_ms());
    atomic_store(&control->clock_offset_ms, 0);
}

/* A map that was made while the host's clock was wrong, and then hears of Redis's. */
START_TEST(a_clock_that_began_ahead_goes_back_and_follows_again)
{
    atomic_store(&control->clock_offset_ms, 300000);
    ck_assert_uint_gt(clock_next(control).clock, redis_clock(299000));
    clock_note(control); /* of no clock that anybody knows */
    learn_redis_clock();
    clock_note(control);
    ck_assert(clock_lower(control));
    ck_assert_uint_lt(clock_next(control).clock, redis_clock(CLOCK_NOTED_EVERY_MS + 1000));
    uint64_t heard = redis_clock(30000);
    clock_observe(control, heard);
    ck_assert_uint_eq(clock_next(control).clock, heard + 1);
}
END_TEST

START_TEST(where_redis_was_set_back_what_comes_in_is_followed)
{
    learn_redis_clock();
    atomic_store(&control->clock, redis_clock(300000));
    atomic_store(&control->clock_seen, redis_clock(300000)); /* was no more than allowed then */
    ck_assert(clock_lower(control));
    uint64_t next = clock_next(control).clock;
    ck_assert_uint_lt(next, redis_clock(CLOCK_AHEAD_MS));
    clock_observe(control, next + 100);
    ck_assert_uint_eq(clock_next(control).clock, next + 101);
}
END_TEST

enum { THREADS = 4, EACH = 20000 };
static uint64_t given[THREADS][EACH];

static void *take_versions(void *context)
{
    uint64_t *mine = context;
    for (int i = 0; i < EACH; i++) {
        mine[i] = clock_next(control).clock;
    }
    return NULL;
}

static int by_clock(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

START_TEST(threads_never_get_the_same_version)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, take_versions, given[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        (void)pthread_join(threads[i], NULL);
        for (int at = 1; at < EACH; at++) {
            ck_assert_uint_gt(given[i][at], given[i][at - 1]);
        }
    }
    uint64_t *all = &given[0][0];
    qsort(all, (size_t)THREADS * EACH, sizeof *all, by_clock);
    for (size_t i = 1; i < (size_t)THREADS * EACH; i++) {
        ck_assert_uint_ne(all[i], all[i - 1]);
    }
}
END_TEST

START_TEST(versions_order_by_clock_then_node)
{
    larder_version a = {.clock = 5, .node = 9}, b = {.clock = 6, .node = 1};
    ck_assert_int_lt(clock_compare(a, b), 0);
    ck_assert_int_gt(clock_compare(b, a), 0);
    b.clock = 5;
    ck_assert_int_gt(clock_compare(a, b), 0);
    ck_assert_int_lt(clock_compare(b, a), 0);
    b.node = 9;
    ck_assert_int_eq(clock_compare(a, b), 0);
    b.node = UINT32_MAX; /* unsigned, as other hosts and Redis compare it */
    ck_assert_int_lt(clock_compare(a, b), 0);
}
END_TEST

START_TEST(expiry_is_half_open)
{
    ck_assert(!clock_expired(CLOCK_NEVER));
    ck_assert(clock_expired(0));
    ck_assert(clock_expired(-1));
    ck_assert(clock_expired(clock_wall_ms()));     /* now >= expires_at */
    ck_assert(clock_expired(clock_wall_ms() - 1)); /* the coarse clock may not know yet */
    ck_assert(!clock_expired(clock_wall_ms() + 100000));
    ck_assert(!clock_expired(CLOCK_NEVER - 1));
    for (int i = 0; i < 20; i++) { /* never early, never late, wherever the coarse clock stands */
        int64_t at = clock_wall_ms() + 3;
        bool expired;
        int64_t before, after;
        do {
            before = clock_wall_ms();
            expired = clock_expired(at);
            after = clock_wall_ms();
            ck_assert(!expired || after >= at);
            ck_assert(expired || before < at);
        } while (!expired);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("clock");
    TCase *tests = tcase_create("clock");
    tcase_add_checked_fixture(tests, make_control, drop_control);
    tcase_add_test(tests, versions_carry_the_wall_clock_and_the_node);
    tcase_add_test(tests, versions_only_grow);
    tcase_add_test(tests, a_wall_clock_that_was_ahead_is_not_followed_back);
    tcase_add_test(tests, the_offset_of_redis_moves_versions);
    tcase_add_test(tests, what_was_observed_is_never_given_again);
    tcase_add_test(tests, a_clock_that_began_ahead_goes_back_and_follows_again);
    tcase_add_test(tests, where_redis_was_set_back_what_comes_in_is_followed);
    tcase_add_test(tests, threads_never_get_the_same_version);
    tcase_add_test(tests, versions_order_by_clock_then_node);
    tcase_add_test(tests, expiry_is_half_open);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
