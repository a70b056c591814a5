/* test_spin.c: who may look instead of sleeping: nobody where it is off, half of the processors at
 * most, nobody for whom it has not paid; who died in a place, and damage. Of each limit, not of the
 * machine: with one processor nobody may at all.
 */
#include "spin.h"

#include <check.h>
#include <string.h>

#include "clock.h"
#include "tests/harness.h"

static struct spin_area area;

static int64_t now_us(void)
{
    return clock_monotonic_ns() / 1000;
}

static unsigned places(void)
{
    unsigned half = spin_processors() / 2;
    return half < SPIN_PLACES ? half : SPIN_PLACES;
}

static bool begin(struct spin *spin)
{
    return spin_begin(&area, INT64_MAX, spin);
}

static void setup(void)
{
    memset(&area, 0, sizeof area);
    atomic_store(&area.limit_us, SPIN_MOST_US);
}

/* How many may at once; leaves their places taken. */
static unsigned take_all(struct spin spins[SPIN_PLACES + 1])
{
    unsigned count = 0;
    while (count <= SPIN_PLACES && begin(&spins[count])) {
        count++;
    }
    return count;
}

START_TEST(nobody_where_it_is_off)
{
    struct spin spin;
    atomic_store(&area.limit_us, 0);
    ck_assert(!begin(&spin));
}
END_TEST

START_TEST(half_of_the_processors_at_once)
{
    struct spin spins[SPIN_PLACES + 1];
    /* A slow machine may be past the time of the first before the last: then there is room again.
     */
    int64_t began = now_us();
    unsigned count = take_all(spins);
    if (now_us() - began < SPIN_MOST_US) {
        ck_assert_uint_eq(count, places());
    }
    if (count != 0) { /* who goes makes room */
        spin_end(&spins[count - 1], true);
        ck_assert(begin(&spins[count - 1]));
    }
}
END_TEST

START_TEST(it_is_over_at_its_time)
{
    struct spin spin;
    int64_t began = now_us();
    if (!begin(&spin)) {
        ck_assert_uint_eq(places(), 0);
        return;
    }
    ck_assert_int_le(spin.until_us, now_us() + SPIN_MOST_US);
    while (spin_on(&spin)) {
        ck_assert_int_lt(now_us() - began, 60 * 1000000);
    }
    ck_assert(spin.disturbed || now_us() >= spin.until_us);
    atomic_store(&area.limit_us, UINT32_MAX); /* damage: no longer than ever */
    spin_end(&spin, true);
    atomic_store(&area.doubt, 0);
    ck_assert(begin(&spin));
    ck_assert_int_le(spin.until_us, now_us() + SPIN_MOST_US);
    spin_end(&spin, true);
    /* nor longer than the caller has time */
    atomic_store(&area.doubt, 0);
    int64_t until = now_us() + 5;
    ck_assert(spin_begin(&area, until, &spin));
    ck_assert_int_le(spin.until_us, until);
}
END_TEST

START_TEST(places_of_the_dead_and_damage_are_free)
{
    struct spin spin;
    if (places() == 0) {
        return;
    }
    for (unsigned i = 0; i < SPIN_PLACES; i++) { /* they died in there a while ago */
        atomic_store(&area.until_us[i], now_us() - 1);
    }
    ck_assert(begin(&spin));
    for (unsigned i = 0; i < SPIN_PLACES; i++) { /* no clock says that */
        atomic_store(&area.until_us[i], INT64_MAX);
    }
    ck_assert(begin(&spin));
    /* who ends late does not free the place of the next one */
    atomic_store(&area.until_us[spin.place], spin.until_us + 7);
    spin_end(&spin, true);
    ck_assert_int_eq(atomic_load(&area.until_us[spin.place]), spin.until_us + 7);
}
END_TEST

static unsigned tries_of(unsigned calls)
{
    unsigned tries = 0;
    for (unsigned i = 0; i < calls; i++) {
        struct spin spin;
        if (begin(&spin)) {
            tries++;
            spin_end(&spin, false);
        }
    }
    return tries;
}

START_TEST(what_does_not_pay_is_seldom_tried)
{
    struct spin spin;
    if (places() == 0) {
        ck_assert_uint_eq(tries_of(1000), 0);
        return;
    }
    ck_assert_uint_le(tries_of(SPIN_TRY_EVERY * 10), SPIN_DOUBT + 11);
    ck_assert_uint_ge(atomic_load(&area.doubt), SPIN_DOUBT);
    ck_assert_uint_ge(tries_of(SPIN_TRY_EVERY * 2), 1); /* it may pay again */
    atomic_store(&area.doubt, UINT32_MAX);              /* damage: as much as there is */
    ck_assert_uint_ge(tries_of(SPIN_TRY_EVERY * 2), 1);
    for (unsigned good = 0; good < 16 * SPIN_TRY_EVERY * 2; good++) {
        if (begin(&spin)) {
            spin_end(&spin, true);
        }
    }
    ck_assert_uint_lt(atomic_load(&area.doubt), SPIN_DOUBT);
    ck_assert(begin(&spin));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("spin");
    TCase *tests = tcase_create("spin");
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_set_timeout(tests, 30);
    tcase_add_test(tests, nobody_where_it_is_off);
    tcase_add_test(tests, half_of_the_processors_at_once);
    tcase_add_test(tests, it_is_over_at_its_time);
    tcase_add_test(tests, places_of_the_dead_and_damage_are_free);
    tcase_add_test(tests, what_does_not_pay_is_seldom_tried);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
