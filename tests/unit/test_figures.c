/* test_figures.c: the table of figures is complete: every member of larder_stats has one row, every
 * counter ends up in a member of its own, and what belongs together stands together.
 */
#include "figures.h"

#include <check.h>
#include <string.h>

#include "control.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"

START_TEST(every_member_has_one_row)
{
    uint8_t covered[sizeof(larder_stats)] = {0};
    for (size_t i = 0; i < figure_count; i++) {
        size_t size = figures[i].unit == FIGURE_BOOL ? sizeof(uint32_t) : sizeof(uint64_t);
        if (figures[i].unit == FIGURE_RATIO) {
            continue;
        }
        ck_assert_uint_le(figures[i].offset + size, sizeof(larder_stats));
        for (size_t at = 0; at < size; at++) {
            ck_assert_msg(covered[figures[i].offset + at]++ == 0, "%s: twice", figures[i].name);
        }
    }
    for (size_t at = 0; at < sizeof covered; at++) {
        ck_assert_msg(covered[at] == 1, "byte %zu of larder_stats has no row", at);
    }
}
END_TEST

START_TEST(every_counter_is_read_from_its_own_member)
{
    larder *map = maps_new();
    struct control *control = maps_control(map);
    for (int i = 0; i < STATS_COUNTERS; i++) {
        atomic_store(&control->stats[7].counters[i], 1000000u + (unsigned)i);
    }
    larder_stats stats = maps_stats(map);
    int seen[STATS_COUNTERS] = {0};
    for (size_t i = 0; i < figure_count; i++) {
        int counter = figures[i].counter;
        if (counter < 0) {
            continue;
        }
        ck_assert_int_lt(counter, STATS_COUNTERS);
        seen[counter]++;
        if (counter == STATS_LOOKUPS) { /* hits follow from the others: 2 million less 3 */
            ck_assert_uint_eq(stats.hits, 0);
        } else if (counter != STATS_GENERATIONS) { /* this one was there before */
            ck_assert_msg(figure_value(&stats, &figures[i]) == 1000000u + (unsigned)counter, "%s",
                          figures[i].name);
        }
    }
    for (int i = 0; i < STATS_COUNTERS; i++) {
        ck_assert_msg(seen[i] == 1, "counter %d has %d rows", i, seen[i]);
    }
    larder_close(&map);
}
END_TEST

START_TEST(hits_are_what_is_left)
{
    larder *map = maps_new();
    struct control *control = maps_control(map);
    atomic_store(&control->stats[7].counters[STATS_LOOKUPS], 100);
    atomic_store(&control->stats[7].counters[STATS_HOT_HITS], 50);
    atomic_store(&control->stats[7].counters[STATS_MISSES], 20);
    atomic_store(&control->stats[7].counters[STATS_ABSENT], 7);
    atomic_store(&control->stats[7].counters[STATS_STALE], 3);
    larder_stats stats = maps_stats(map);
    ck_assert_uint_eq(stats.hits, 120);
    ck_assert_uint_eq(stats.hot_hits, 50);
    for (size_t i = 0; i < figure_count; i++) {
        if (strcmp(figures[i].name, "hit_ratio") == 0) {
            ck_assert_double_eq_tol(figure_ratio(&stats, &figures[i]), 0.8, 1e-9);
        }
        if (strcmp(figures[i].name, "used_share") == 0) {
            stats.map_size = 0;
            ck_assert_double_lt(figure_ratio(&stats, &figures[i]), 0); /* nothing to divide by */
        }
    }
    larder_close(&map);
}
END_TEST

START_TEST(groups_and_families_stand_together)
{
    for (size_t i = 1; i < figure_count; i++) {
        for (size_t j = 0; j + 1 < i; j++) {
            if (figures[i].group != NULL && figures[j].group != NULL &&
                strcmp(figures[i].group, figures[j].group) == 0) {
                ck_assert_msg(figures[i - 1].group != NULL &&
                                  strcmp(figures[i - 1].group, figures[i].group) == 0,
                              "%s is apart from its group", figures[i].name);
            }
        }
        ck_assert_ptr_nonnull(figures[i].help);
        ck_assert_int_eq(figures[i].help[strlen(figures[i].help) - 1], '.');
        if (figures[i].label != NULL) {
            ck_assert_str_ne(figure_family_help(&figures[i]), figures[i].help);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("figures");
    TCase *tests = tcase_create("figures");
    tcase_add_test(tests, every_member_has_one_row);
    tcase_add_test(tests, every_counter_is_read_from_its_own_member);
    tcase_add_test(tests, hits_are_what_is_left);
    tcase_add_test(tests, groups_and_families_stand_together);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
