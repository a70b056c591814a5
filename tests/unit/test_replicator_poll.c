/* test_replicator_poll.c: when larderd looks instead of sleeping: while requests and answers come
 * close to each other, and at no other time; never with one processor, nor for a while after others
 * wanted it. Times are the test's.
 */
#include "daemon/replicator_poll.h"

#include <check.h>

#include "tests/harness.h"

enum { LIMIT_US = 100 };

static struct poll poll_state;
static int64_t now_us;

static void setup(void)
{
    now_us = 1000000;
    poll_init(&poll_state, LIMIT_US, 2);
}

static bool wanted(void)
{
    return poll_wanted(&poll_state, now_us);
}

/* A request after so long a pause, answered by Redis after so long. */
static void round_trip(int64_t pause_us, int64_t reply_us)
{
    now_us += pause_us;
    poll_requested(&poll_state, now_us);
    poll_sent(&poll_state, now_us);
    now_us += reply_us;
    poll_replied(&poll_state, now_us);
    poll_answered(&poll_state, now_us);
}

static void round_trips(unsigned count, int64_t pause_us, int64_t reply_us)
{
    for (unsigned i = 0; i < count; i++) {
        round_trip(pause_us, reply_us);
    }
}

START_TEST(nobody_asks)
{
    ck_assert(!wanted());
    now_us += 1000000;
    ck_assert(!wanted());
}
END_TEST

START_TEST(requests_close_to_each_other)
{
    round_trip(20, 20);
    ck_assert(!wanted()); /* one is no habit */
    round_trips(40, 20, 20);
    ck_assert(wanted()); /* the next request */
    now_us += 20;
    poll_requested(&poll_state, now_us);
    ck_assert(!wanted());
    poll_sent(&poll_state, now_us);
    ck_assert(wanted()); /* its answer */
    now_us += LIMIT_US;
    ck_assert(!wanted()); /* it is late: sleep */
}
END_TEST

START_TEST(it_ends_with_the_last_request)
{
    round_trips(40, 20, 20);
    now_us += LIMIT_US;
    ck_assert(!wanted());
    now_us += 1000000;
    ck_assert(!wanted());
}
END_TEST

START_TEST(requests_far_between)
{
    round_trips(40, 20, 20);
    round_trips(40, 5000, 20);
    ck_assert(!wanted()); /* not for the next one ... */
    now_us += 5000;
    poll_requested(&poll_state, now_us);
    poll_sent(&poll_state, now_us);
    ck_assert(wanted()); /* ... but for its answer */
    round_trips(40, 20, 20);
    ck_assert(wanted());
}
END_TEST

START_TEST(a_redis_that_is_far_away)
{
    round_trips(40, 20, 2000);
    poll_requested(&poll_state, now_us += 20);
    poll_sent(&poll_state, now_us);
    ck_assert(!wanted());
    poll_replied(&poll_state, now_us += 2000);
    poll_answered(&poll_state, now_us);
    ck_assert(wanted()); /* the next request */
}
END_TEST

START_TEST(one_processor_or_off)
{
    poll_init(&poll_state, LIMIT_US, 1);
    round_trips(40, 20, 20);
    ck_assert(!wanted());
    poll_init(&poll_state, 0, 8);
    round_trips(40, 20, 20);
    ck_assert(!wanted());
}
END_TEST

/* How long it rests after others had the processor. */
static int64_t rest_us(void)
{
    round_trips(2, 20, 20);
    ck_assert(wanted());
    poll_offered(&poll_state, now_us, 3000);
    int64_t began = now_us;
    while (!wanted()) {
        round_trip(20, 20);
        ck_assert_int_lt(now_us - began, 10000000);
    }
    return now_us - began;
}

START_TEST(others_want_the_processor)
{
    round_trips(40, 20, 20);
    poll_offered(&poll_state, now_us, 10); /* Redis, at most */
    ck_assert(wanted());
    int64_t first = rest_us(), second = rest_us(), last = 0;
    ck_assert_int_ge(first, 10000);
    ck_assert_int_gt(second, first * 3 / 2);
    for (int i = 0; i < 20; i++) {
        last = rest_us();
    }
    ck_assert_int_ge(last, 900000);
    ck_assert_int_le(last, 1100000);
    round_trips(1000, 20, 20); /* it has paid for long: forgotten */
    ck_assert_int_le(rest_us(), first + 1000);
}
END_TEST

START_TEST(times_that_make_no_sense)
{
    round_trips(40, 20, 20);
    poll_requested(&poll_state, now_us - 1000000); /* before what it follows on */
    poll_replied(&poll_state, INT64_MAX / 2);
    ck_assert(!poll_wanted(&poll_state, INT64_MAX / 2));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("replicator_poll");
    TCase *tests = tcase_create("replicator_poll");
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, nobody_asks);
    tcase_add_test(tests, requests_close_to_each_other);
    tcase_add_test(tests, it_ends_with_the_last_request);
    tcase_add_test(tests, requests_far_between);
    tcase_add_test(tests, a_redis_that_is_far_away);
    tcase_add_test(tests, one_processor_or_off);
    tcase_add_test(tests, others_want_the_processor);
    tcase_add_test(tests, times_that_make_no_sense);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
