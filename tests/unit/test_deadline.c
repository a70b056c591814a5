/* test_deadline.c: times of the monotonic clock as events of a loop: never early, not by the
 * kernel's tick, replaced, taken back.
 */
#include "daemon/deadline.h"

#include <check.h>
#include <stdlib.h>
#include <time.h>

#include "tests/harness.h"

static struct event_base *base;
static struct deadline *deadline;
static int64_t set_to, chain_left;
static unsigned came;

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void set(int64_t due_ms)
{
    set_to = due_ms;
    deadline_set(deadline, due_ms);
}

/* Another one in a millisecond, as often as chain_left says; then the loop ends. */
static void on_due(void *context)
{
    ck_assert_ptr_eq(context, &came);
    ck_assert_msg(now_us() >= set_to * 1000, "%lld us early",
                  (long long)(set_to * 1000 - now_us()));
    came++;
    if (chain_left-- > 0)
        set(harness_now_ms() + 1);
    else
        event_base_loopbreak(base);
}

static void setup(void)
{
    base = event_base_new();
    ck_assert_ptr_nonnull(base);
    came = 0;
    chain_left = 0;
    deadline = deadline_new(base, on_due, &came);
    ck_assert_ptr_nonnull(deadline);
}

static void teardown(void)
{
    deadline_free(&deadline);
    ck_assert_ptr_null(deadline);
    deadline_free(&deadline);
    event_base_free(base);
}

START_TEST(nothing_is_due_before_a_time_is_set)
{
    event_base_loop(base, EVLOOP_NONBLOCK);
    ck_assert_uint_eq(came, 0);
    set(harness_now_ms() + 3600000);
    event_base_loop(base, EVLOOP_NONBLOCK);
    ck_assert_uint_eq(came, 0);
}
END_TEST

START_TEST(it_comes_once)
{
    set(harness_now_ms() + 2);
    event_base_dispatch(base);
    ck_assert_uint_eq(came, 1);
    event_base_loop(base, EVLOOP_NONBLOCK);
    ck_assert_uint_eq(came, 1);
}
END_TEST

START_TEST(what_is_over_comes_from_the_loop)
{
    const int64_t times[] = {harness_now_ms() - 5, 1, 0, -7, INT64_MIN};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        set(times[i] < 0 ? 0 : times[i]);
        deadline_set(deadline, times[i]);
        ck_assert_uint_eq(came, i);
        event_base_dispatch(base);
        ck_assert_uint_eq(came, i + 1);
    }
}
END_TEST

START_TEST(the_same_time_again_comes_again)
{
    int64_t past = harness_now_ms() - 1;
    set(past);
    event_base_dispatch(base);
    set(past);
    event_base_dispatch(base);
    ck_assert_uint_eq(came, 2);
}
END_TEST

/* Also one that the kernel holds to be due already, when the loop has yet to look. */
START_TEST(a_time_is_replaced_and_taken_back)
{
    set(harness_now_ms() + 3600000);
    set(harness_now_ms() + 1);
    event_base_dispatch(base);
    ck_assert_uint_eq(came, 1);
    set(harness_now_ms() - 1);
    set(DEADLINE_NEVER);
    event_base_loop(base, EVLOOP_NONBLOCK);
    ck_assert_uint_eq(came, 1);
    set(harness_now_ms() - 1);
    set(harness_now_ms() + 3600000);
    event_base_loop(base, EVLOOP_NONBLOCK);
    ck_assert_uint_eq(came, 1);
}
END_TEST

static void put_off(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    (void)context;
    set(harness_now_ms() + 3600000);
}

START_TEST(what_is_set_anew_between_the_look_and_the_call_does_not_come)
{
    event_base_priority_init(base, 2);
    deadline_free(&deadline); /* of another priority, now */
    deadline = deadline_new(base, on_due, &came);
    struct event *first = event_new(base, -1, 0, put_off, NULL);
    ck_assert_ptr_nonnull(deadline);
    ck_assert_ptr_nonnull(first);
    ck_assert_int_eq(event_priority_set(first, 0), 0);
    set(harness_now_ms() - 1);
    event_active(first, EV_TIMEOUT, 0); /* the loop finds both */
    for (int turn = 0; turn < 3; turn++)
        event_base_loop(base, EVLOOP_NONBLOCK);
    ck_assert_uint_eq(came, 0);
    set(harness_now_ms() - 1);
    event_base_dispatch(base);
    ck_assert_uint_eq(came, 1);
    event_free(first);
}
END_TEST

/* Eight milliseconds one after the other take eight, or nine: by a clock that moves with a tick of
 * 4 ms they take 32. On a busy machine not every time. */
START_TEST(it_does_not_go_by_the_tick)
{
    enum { CHAIN = 8, ENOUGH_US = 20000 };
    int64_t give_up = harness_now_ms() + harness_patience(10000), took = INT64_MAX;
    while (took > ENOUGH_US && harness_now_ms() < give_up) {
        chain_left = CHAIN - 1;
        int64_t began = now_us();
        set(harness_now_ms() + 1);
        event_base_dispatch(base);
        took = now_us() - began;
    }
    ck_assert_int_le(took, ENOUGH_US);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("deadline");
    TCase *tests = tcase_create("deadline");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, nothing_is_due_before_a_time_is_set);
    tcase_add_test(tests, it_comes_once);
    tcase_add_test(tests, what_is_over_comes_from_the_loop);
    tcase_add_test(tests, the_same_time_again_comes_again);
    tcase_add_test(tests, a_time_is_replaced_and_taken_back);
    tcase_add_test(tests, what_is_set_anew_between_the_look_and_the_call_does_not_come);
    tcase_add_test(tests, it_does_not_go_by_the_tick);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
