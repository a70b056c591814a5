/* test_expiry.c: from what a caller asks for to an absolute time: the next mark of a period on the
 * wall clock, times to live, absolute times; what is refused, what never becomes "for ever".
 */
#include "expiry.h"

#include <check.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "tests/harness.h"

enum { SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE };
#define DAY INT64_C(86400000)
#define MIDNIGHT INT64_C(1767225600000) /* 2026-01-01 00:00:00 UTC */

static int64_t at(int hour, int minute, int second, int ms)
{
    return MIDNIGHT + (int64_t)hour * HOUR + minute * MINUTE + second * SECOND + ms;
}

static int64_t aligned(int64_t now, int64_t period, int64_t offset)
{
    int64_t mark = -1;
    larder_expiry expiry = larder_expire_aligned(period, offset);
    ck_assert_int_eq(expiry_resolve(&expiry, now, &mark), LARDER_OK);
    ck_assert_int_gt(mark, now);
    ck_assert_int_le(mark - now, period);
    return mark;
}

START_TEST(the_next_five_minute_mark)
{
    const int64_t five = 5 * MINUTE;
    ck_assert_int_eq(aligned(at(12, 2, 0, 0), five, 0), at(12, 5, 0, 0));
    ck_assert_int_eq(aligned(at(12, 9, 0, 0), five, 0), at(12, 10, 0, 0));
    ck_assert_int_eq(aligned(at(12, 23, 0, 0), five, 0), at(12, 25, 0, 0));
    ck_assert_int_eq(aligned(at(12, 5, 0, 0), five, 0), at(12, 10, 0, 0));
    ck_assert_int_eq(aligned(at(12, 4, 59, 999), five, 0), at(12, 5, 0, 0));
    ck_assert_int_eq(aligned(at(12, 5, 0, 1), five, 0), at(12, 10, 0, 0));
    ck_assert_int_eq(aligned(at(12, 55, 0, 0), five, 0), at(13, 0, 0, 0));
    ck_assert_int_eq(aligned(at(23, 59, 0, 0), five, 0), MIDNIGHT + DAY);
    ck_assert_int_eq(aligned(at(23, 59, 59, 999), five, 0), MIDNIGHT + DAY);
    ck_assert_int_eq(aligned(MIDNIGHT - 1, five, 0), MIDNIGHT); /* the year rolls */
}
END_TEST

START_TEST(marks_of_other_periods)
{
    ck_assert_int_eq(aligned(at(12, 2, 0, 0), 10 * MINUTE, 0), at(12, 10, 0, 0));
    ck_assert_int_eq(aligned(at(12, 2, 0, 0), 15 * MINUTE, 0), at(12, 15, 0, 0));
    ck_assert_int_eq(aligned(at(12, 2, 0, 0), 30 * MINUTE, 0), at(12, 30, 0, 0));
    ck_assert_int_eq(aligned(at(12, 2, 0, 0), HOUR, 0), at(13, 0, 0, 0));
    ck_assert_int_eq(aligned(at(12, 2, 0, 0), DAY, 0), MIDNIGHT + DAY);
    ck_assert_int_eq(aligned(at(12, 0, 0, 1), SECOND, 0), at(12, 0, 1, 0));
    /* 7 minutes divide no hour: the marks are multiples of the period since the epoch */
    const int64_t seven = 7 * MINUTE;
    int64_t mark = aligned(at(12, 2, 0, 0), seven, 0);
    ck_assert_int_eq(mark % seven, 0);
    ck_assert_int_eq(aligned(mark - 1, seven, 0), mark);
    ck_assert_int_eq(aligned(mark, seven, 0), mark + seven);
}
END_TEST

START_TEST(offsets_move_the_marks)
{
    const int64_t five = 5 * MINUTE;
    ck_assert_int_eq(aligned(at(12, 2, 0, 0), five, 30 * SECOND), at(12, 5, 30, 0));
    ck_assert_int_eq(aligned(at(12, 0, 29, 999), five, 30 * SECOND), at(12, 0, 30, 0));
    ck_assert_int_eq(aligned(at(12, 0, 30, 0), five, 30 * SECOND), at(12, 5, 30, 0));
    ck_assert_int_eq(aligned(at(12, 2, 0, 0), five, -30 * SECOND), at(12, 4, 30, 0));
    ck_assert_int_eq(aligned(at(12, 2, 0, 0), five, five - 1), at(12, 4, 59, 999));
    ck_assert_int_eq(aligned(at(12, 2, 0, 0), five, -(five - 1)), at(12, 5, 0, 1));
    ck_assert_int_eq(aligned(at(12, 2, 0, 0), DAY, 3 * HOUR), MIDNIGHT + DAY + 3 * HOUR);
    /* local midnight of UTC+2 is 22:00 UTC */
    ck_assert_int_eq(aligned(at(12, 2, 0, 0), DAY, -2 * HOUR), at(22, 0, 0, 0));
    ck_assert_int_eq(aligned(0, five, 0), five);
    ck_assert_int_eq(aligned(-1, five, 0), 0); /* a clock before the epoch */
    ck_assert_int_eq(aligned(-five, five, 0), 0);
}
END_TEST

/* Refused with that code and a sentence that names the number; the place is left alone. */
static void refused(larder_expiry expiry, int64_t now, int code, const char *named)
{
    int64_t place = 4711;
    ck_assert_int_eq(expiry_resolve(&expiry, now, &place), code);
    ck_assert_msg(strstr(larder_last_error(), named) != NULL, "\"%s\" does not name %s",
                  larder_last_error(), named);
    ck_assert_int_eq(place, 4711);
}

START_TEST(periods_and_offsets_that_make_no_sense)
{
    refused(larder_expire_aligned(0, 0), MIDNIGHT, LARDER_EINVAL, "0 ms");
    refused(larder_expire_aligned(-1000, 0), MIDNIGHT, LARDER_EINVAL, "-1000");
    refused(larder_expire_aligned(1500, 0), MIDNIGHT, LARDER_EINVAL, "1500");
    refused(larder_expire_aligned(999, 0), MIDNIGHT, LARDER_EINVAL, "999");
    refused(larder_expire_aligned(1000, 1000), MIDNIGHT, LARDER_EINVAL, "1000");
    refused(larder_expire_aligned(1000, -1000), MIDNIGHT, LARDER_EINVAL, "-1000");
    refused(larder_expire_aligned(INT64_MIN, 0), MIDNIGHT, LARDER_EINVAL, "period");
    const int64_t longest = INT64_MAX / 1000 * 1000;
    refused(larder_expire_aligned(longest, 0), INT64_MAX - 1, LARDER_EOVERFLOW, "fit");
    refused(larder_expire_aligned(longest, -(longest - 1)), INT64_MAX, LARDER_EOVERFLOW, "fit");
}
END_TEST

START_TEST(times_to_live)
{
    int64_t place;
    larder_expiry expiry = larder_expire_in(250);
    ck_assert_int_eq(expiry_resolve(&expiry, MIDNIGHT, &place), LARDER_OK);
    ck_assert_int_eq(place, MIDNIGHT + 250);
    expiry = larder_expire_in(1); /* less than a second is not "for ever" */
    ck_assert_int_eq(expiry_resolve(&expiry, MIDNIGHT, &place), LARDER_OK);
    ck_assert_int_eq(place, MIDNIGHT + 1);
    expiry = larder_expire_in(0); /* no expiry */
    ck_assert_int_eq(expiry_resolve(&expiry, MIDNIGHT, &place), LARDER_OK);
    ck_assert_int_eq(place, CLOCK_NEVER);
    expiry = larder_expire_in(INT64_MAX - MIDNIGHT - 1);
    ck_assert_int_eq(expiry_resolve(&expiry, MIDNIGHT, &place), LARDER_OK);
    ck_assert_int_eq(place, INT64_MAX - 1);
    refused(larder_expire_in(-1), MIDNIGHT, LARDER_EINVAL, "-1 ms");
    refused(larder_expire_in(INT64_MIN), MIDNIGHT, LARDER_EINVAL, "negative");
}
END_TEST

START_TEST(a_time_to_live_that_does_not_fit)
{
    int64_t place;
    larder_expiry expiry = larder_expire_in(INT64_MAX - MIDNIGHT);
    ck_assert_int_eq(expiry_resolve(&expiry, MIDNIGHT, &place), LARDER_EOVERFLOW);
    expiry = larder_expire_in(INT64_MAX);
    ck_assert_int_eq(expiry_resolve(&expiry, MIDNIGHT, &place), LARDER_EOVERFLOW);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "9223372036854775807"));
}
END_TEST

START_TEST(absolute_times)
{
    int64_t place;
    larder_expiry expiry = larder_expire_at(MIDNIGHT + 7);
    ck_assert_int_eq(expiry_resolve(&expiry, MIDNIGHT, &place), LARDER_OK);
    ck_assert_int_eq(place, MIDNIGHT + 7);
    expiry = larder_expire_at(MIDNIGHT - 7); /* in the past: the caller makes it a delete */
    ck_assert_int_eq(expiry_resolve(&expiry, MIDNIGHT, &place), LARDER_OK);
    ck_assert_int_eq(place, MIDNIGHT - 7);
    expiry = larder_expire_at(0);
    ck_assert_int_eq(expiry_resolve(&expiry, MIDNIGHT, &place), LARDER_OK);
    ck_assert_int_eq(place, 0);
    refused(larder_expire_at(-1), MIDNIGHT, LARDER_EINVAL, "-1");
}
END_TEST

START_TEST(never_and_the_default)
{
    int64_t place = 0;
    larder_expiry expiry = larder_expire_never();
    ck_assert_int_eq(expiry_resolve(&expiry, MIDNIGHT, &place), LARDER_OK);
    ck_assert_int_eq(place, CLOCK_NEVER);
    expiry = (larder_expiry){.kind = LARDER_EXPIRY_DEFAULT};
    place = 0;
    ck_assert_int_eq(expiry_resolve(&expiry, MIDNIGHT, &place), LARDER_OK);
    ck_assert_int_eq(place, CLOCK_NEVER);
}
END_TEST

START_TEST(what_is_not_understood_is_refused)
{
    refused((larder_expiry){.kind = 6}, MIDNIGHT, LARDER_EINVAL, "6");
    refused((larder_expiry){.kind = UINT32_MAX}, MIDNIGHT, LARDER_EINVAL, "4294967295");
    refused((larder_expiry){.kind = LARDER_EXPIRY_IN, .ms = 5, .reserved = 1}, MIDNIGHT,
            LARDER_EINVAL, "reserved");
    refused((larder_expiry){.kind = LARDER_EXPIRY_IN, .ms = 5, .offset_ms = 1}, MIDNIGHT,
            LARDER_EINVAL, "offset_ms");
    refused((larder_expiry){.kind = LARDER_EXPIRY_DEFAULT, .ms = 300000}, MIDNIGHT, LARDER_EINVAL,
            "300000"); /* a forgotten kind must not become "never" */
    refused((larder_expiry){.kind = LARDER_EXPIRY_NEVER, .ms = -1}, MIDNIGHT, LARDER_EINVAL, "-1");
}
END_TEST

/* ---- All times of an entry --------------------------------------------------------------------
 */

static struct expiry_times planned(larder_policy policy, uint64_t random)
{
    struct expiry_times times;
    ck_assert_int_eq(expiry_plan(&policy, MIDNIGHT, random, &times), LARDER_OK);
    return times;
}

static void not_planned(larder_policy policy, int code, const char *named)
{
    struct expiry_times times;
    ck_assert_int_eq(expiry_plan(&policy, MIDNIGHT, 0, &times), code);
    ck_assert_msg(strstr(larder_last_error(), named) != NULL, "\"%s\" does not name %s",
                  larder_last_error(), named);
}

START_TEST(fresh_then_stale)
{
    struct expiry_times times =
        planned((larder_policy){.expiry = larder_expire_in(1000), .stale_ms = 500}, 0);
    ck_assert_int_eq(times.expires_at_ms, MIDNIGHT + 1000);
    ck_assert_int_eq(times.stale_until_ms, MIDNIGHT + 1500);
    times = planned((larder_policy){.expiry = larder_expire_aligned(300000, 0), .stale_ms = 1}, 0);
    ck_assert_int_eq(times.expires_at_ms, MIDNIGHT + 300000);
    ck_assert_int_eq(times.stale_until_ms, MIDNIGHT + 300001);
    times = planned((larder_policy){.stale_ms = 500}, 0); /* what never expires is never stale */
    ck_assert_int_eq(times.expires_at_ms, CLOCK_NEVER);
    ck_assert_int_eq(times.stale_until_ms, 0);
    not_planned((larder_policy){.expiry = larder_expire_in(1000), .stale_ms = INT64_MAX},
                LARDER_EOVERFLOW, "9223372036854775807");
    not_planned(
        (larder_policy){.expiry = larder_expire_in(1000), .stale_ms = INT64_MAX - MIDNIGHT - 1000},
        LARDER_EOVERFLOW, "stale_ms"); /* the last millisecond means "never" */
}
END_TEST

START_TEST(jitter_only_shortens)
{
    uint64_t stream = harness_seed();
    bool shortened = false;
    for (int i = 0; i < 1000; i++) {
        struct expiry_times times = planned(
            (larder_policy){.expiry = larder_expire_in(1000), .jitter_ms = 100, .stale_ms = 50},
            harness_random(&stream));
        ck_assert_int_le(times.expires_at_ms, MIDNIGHT + 1000);
        ck_assert_int_ge(times.expires_at_ms, MIDNIGHT + 900);
        ck_assert_int_eq(times.stale_until_ms, times.expires_at_ms + 50);
        shortened = shortened || times.expires_at_ms < MIDNIGHT + 1000;
        /* a jitter longer than the life leaves a millisecond of it */
        times = planned((larder_policy){.expiry = larder_expire_in(10), .jitter_ms = INT64_MAX},
                        harness_random(&stream));
        ck_assert_int_gt(times.expires_at_ms, MIDNIGHT);
        ck_assert_int_le(times.expires_at_ms, MIDNIGHT + 10);
    }
    ck_assert(shortened);
    struct expiry_times times = planned((larder_policy){.jitter_ms = 100}, 77);
    ck_assert_int_eq(times.expires_at_ms, CLOCK_NEVER);
    times = planned((larder_policy){.expiry = larder_expire_at(MIDNIGHT - 5), .jitter_ms = 9}, 77);
    ck_assert_int_eq(times.expires_at_ms, MIDNIGHT - 5);
}
END_TEST

START_TEST(sliding_and_how_often_it_is_written_down)
{
    struct expiry_times times = planned((larder_policy){.expiry = larder_expire_sliding(1000)}, 0);
    ck_assert_int_eq(times.expires_at_ms, MIDNIGHT + 1000);
    ck_assert_int_eq(times.sliding_ms, 1000);
    ck_assert(!expiry_slide_is_due(&times, MIDNIGHT));
    ck_assert(!expiry_slide_is_due(&times, MIDNIGHT + 249));
    ck_assert(expiry_slide_is_due(&times, MIDNIGHT + 250));
    ck_assert(expiry_slide_is_due(&times, MIDNIGHT + 999));
    struct expiry_times later;
    expiry_slide(&times, MIDNIGHT + 250, &later);
    ck_assert_int_eq(later.expires_at_ms, MIDNIGHT + 1250);
    ck_assert_int_eq(later.sliding_ms, 1000);
    ck_assert(!expiry_slide_is_due(&later, MIDNIGHT + 499));
    struct expiry_times fixed = planned((larder_policy){.expiry = larder_expire_in(1000)}, 0);
    ck_assert(!expiry_slide_is_due(&fixed, MIDNIGHT + 999));
    refused(larder_expire_sliding(0), MIDNIGHT, LARDER_EINVAL, "0 ms");
    refused(larder_expire_sliding(-7), MIDNIGHT, LARDER_EINVAL, "-7");
    refused(larder_expire_sliding(INT64_MAX), MIDNIGHT, LARDER_EOVERFLOW, "fit");
}
END_TEST

START_TEST(the_longest_life_cuts_everything)
{
    struct expiry_times times = planned((larder_policy){.expiry = larder_expire_sliding(1000),
                                                        .stale_ms = 400,
                                                        .max_lifetime_ms = 1600},
                                        0);
    ck_assert_int_eq(times.limit_ms, MIDNIGHT + 1600);
    ck_assert_int_eq(times.expires_at_ms, MIDNIGHT + 1000);
    ck_assert_int_eq(times.stale_until_ms, MIDNIGHT + 1400);
    struct expiry_times later;
    expiry_slide(&times, MIDNIGHT + 500, &later);
    ck_assert_int_eq(later.expires_at_ms, MIDNIGHT + 1500);
    ck_assert_int_eq(later.stale_until_ms, MIDNIGHT + 1600);
    expiry_slide(&later, MIDNIGHT + 900, &times);
    ck_assert_int_eq(times.expires_at_ms, MIDNIGHT + 1600);
    ck_assert_int_eq(times.stale_until_ms, 0);
    ck_assert(!expiry_slide_is_due(&times, MIDNIGHT + 1599)); /* nothing to be gained */
    times = planned((larder_policy){.max_lifetime_ms = 70}, 0);
    ck_assert_int_eq(times.expires_at_ms, MIDNIGHT + 70);
    not_planned((larder_policy){.max_lifetime_ms = INT64_MAX}, LARDER_EOVERFLOW, "max_lifetime_ms");
}
END_TEST

START_TEST(another_expiry_keeps_staleness_and_limit)
{
    struct expiry_times times, old = planned((larder_policy){.expiry = larder_expire_in(1000),
                                                             .stale_ms = 500,
                                                             .max_lifetime_ms = 9000},
                                             0);
    larder_expiry expiry = larder_expire_in(3000);
    ck_assert_int_eq(expiry_replan(&old, &expiry, MIDNIGHT + 10, &times), LARDER_OK);
    ck_assert_int_eq(times.expires_at_ms, MIDNIGHT + 3010);
    ck_assert_int_eq(times.stale_until_ms, MIDNIGHT + 3510);
    expiry = larder_expire_never();
    ck_assert_int_eq(expiry_replan(&old, &expiry, MIDNIGHT + 10, &times), LARDER_OK);
    ck_assert_int_eq(times.expires_at_ms, MIDNIGHT + 9000);
    /* what a damaged record claims */
    old = (struct expiry_times){.expires_at_ms = INT64_MAX - 1, .stale_until_ms = INT64_MIN};
    expiry = larder_expire_in(5);
    ck_assert_int_eq(expiry_replan(&old, &expiry, MIDNIGHT, &times), LARDER_OK);
    ck_assert_int_eq(times.stale_until_ms, 0);
}
END_TEST

START_TEST(a_child_of_fork_draws_other_numbers)
{
    int other[2];
    (void)expiry_random();
    ck_assert_int_eq(pipe(other), 0);
    (void)fflush(NULL);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        uint64_t drawn = expiry_random();
        _exit(write(other[1], &drawn, sizeof drawn) == (ssize_t)sizeof drawn ? 0 : 1);
    }
    uint64_t own = expiry_random(), theirs = 0;
    ck_assert_int_eq(read(other[0], &theirs, sizeof theirs), (ssize_t)sizeof theirs);
    ck_assert_uint_ne(own, theirs);
    int status = 0;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("expiry");
    TCase *tests = tcase_create("expiry");
    tcase_add_test(tests, the_next_five_minute_mark);
    tcase_add_test(tests, marks_of_other_periods);
    tcase_add_test(tests, offsets_move_the_marks);
    tcase_add_test(tests, periods_and_offsets_that_make_no_sense);
    tcase_add_test(tests, times_to_live);
    tcase_add_test(tests, a_time_to_live_that_does_not_fit);
    tcase_add_test(tests, absolute_times);
    tcase_add_test(tests, never_and_the_default);
    tcase_add_test(tests, what_is_not_understood_is_refused);
    tcase_add_test(tests, fresh_then_stale);
    tcase_add_test(tests, jitter_only_shortens);
    tcase_add_test(tests, sliding_and_how_often_it_is_written_down);
    tcase_add_test(tests, the_longest_life_cuts_everything);
    tcase_add_test(tests, another_expiry_keeps_staleness_and_limit);
    tcase_add_test(tests, a_child_of_fork_draws_other_numbers);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
