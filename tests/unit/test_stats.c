/* test_stats.c: counters: a slot a process, what the dead counted is kept, and nothing is counted
 * twice; the public figures of a map.
 */
#include "stats.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "figures.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"

static struct control *control;

static void make_control(void)
{
    control =
        mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(control != MAP_FAILED);
}

static void drop_control(void)
{
    (void)munmap(control, sizeof *control);
}

START_TEST(a_process_has_one_slot_and_its_counts_stay)
{
    struct stats_slot *slot = stats_claim(control);
    ck_assert_ptr_ne(slot, &control->stats[0]);
    ck_assert_int_eq(atomic_load(&slot->pid), (int)getpid());
    stats_count(slot, STATS_SETS);
    stats_add(slot, STATS_SETS, 4);
    stats_count_and_fence(slot, STATS_LOOKUPS);
    ck_assert_uint_eq(stats_sum(control, STATS_SETS), 5);
    ck_assert_uint_eq(stats_sum(control, STATS_LOOKUPS), 1);
    ck_assert_uint_eq(stats_processes(control), 1);
    /* the same process again: the same slot, what stood there is folded */
    ck_assert_ptr_eq(stats_claim(control), slot);
    ck_assert_uint_eq(atomic_load(&slot->counters[STATS_SETS]), 0);
    ck_assert_uint_eq(stats_sum(control, STATS_SETS), 5);
    stats_count(slot, STATS_SETS);
    stats_release(control, slot);
    ck_assert_int_eq(atomic_load(&slot->pid), 0);
    ck_assert_uint_eq(stats_sum(control, STATS_SETS), 6);
    ck_assert_uint_eq(stats_processes(control), 0);
    stats_release(control, slot); /* not ours any more */
    stats_release(control, NULL);
    stats_release(control, &control->stats[0]);
    ck_assert_uint_eq(stats_sum(control, STATS_SETS), 6);
}
END_TEST

static int count_and_leave_the_slot(void *context)
{
    (void)context;
    stats_add(stats_claim(control), STATS_MISSES, 7);
    return 0;
}

START_TEST(slots_of_dead_processes_are_folded_and_reused)
{
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(maps_in_child(count_and_leave_the_slot, NULL), 0);
        ck_assert_uint_eq(stats_sum(control, STATS_MISSES), 7u * (unsigned)(i + 1));
    }
    ck_assert_uint_eq(stats_processes(control), 0); /* the dead do not count as processes */
    /* all slots but those of the dead are in use: theirs are taken */
    for (size_t i = 1; i < CONTROL_STATS_SLOTS; i++) {
        int32_t none = 0;
        (void)atomic_compare_exchange_strong(&control->stats[i].pid, &none, 1);
    }
    struct stats_slot *slot = stats_claim(control);
    ck_assert_ptr_ne(slot, &control->stats[0]);
    ck_assert_uint_eq(atomic_load(&slot->counters[STATS_MISSES]), 0);
    ck_assert_uint_eq(stats_sum(control, STATS_MISSES), 21);
    stats_release(control, slot);
    ck_assert_uint_eq(stats_sum(control, STATS_MISSES), 21);
}
END_TEST

START_TEST(with_no_slot_left_slot_zero_counts)
{
    for (size_t i = 1; i < CONTROL_STATS_SLOTS; i++) {
        atomic_store(&control->stats[i].pid, 1); /* process 1 always lives */
    }
    struct stats_slot *slot = stats_claim(control);
    ck_assert_ptr_eq(slot, &control->stats[0]);
    stats_count(slot, STATS_DELETES);
    stats_release(control, slot);
    ck_assert_uint_eq(stats_sum(control, STATS_DELETES), 1);
    ck_assert_uint_eq(stats_processes(control), CONTROL_STATS_SLOTS - 1);
}
END_TEST

/* ---- The figures of a map ----------------------------------------------------------------------
 */

static int use_map(void *context)
{
    larder *map = context;
    ck_assert_int_eq(maps_set(map, "child", "1"), LARDER_OK);
    ck_assert_int_eq(maps_has(map, "child"), LARDER_OK);
    ck_assert_int_eq(maps_has(map, "nothing"), LARDER_MISS);
    return 0;
}

/* Of figures, by name. */
static double ratio(const larder_stats *stats, const char *name)
{
    for (size_t i = 0; i < figure_count; i++) {
        if (strcmp(figures[i].name, name) == 0) {
            return figure_ratio(stats, &figures[i]);
        }
    }
    ck_abort_msg("no figure %s", name);
}

START_TEST(a_dead_copy_in_the_hot_set_is_no_hit)
{
    larder *map = maps_new();
    larder_policy policies[] = {{.expiry = larder_expire_in(1)},
                                {.expiry = larder_expire_in(1), .stale_ms = 100000},
                                {.group = {"g", 1}},
                                {.flags = LARDER_NEGATIVE}};
    const char *keys[] = {"expired", "stale", "invalidated", "absent"};
    const larder_read stale = {.flags = LARDER_ACCEPT_STALE};
    for (size_t i = 0; i < 4; i++) {
        bool negative = i == 3;
        ck_assert_int_eq(larder_set(map, keys[i], strlen(keys[i]), negative ? NULL : "x", !negative,
                                    &policies[i]),
                         LARDER_OK);
    }
    ck_assert_int_eq(larder_invalidate_group(map, (larder_bytes){"g", 1}, NULL), LARDER_OK);
    int64_t until = harness_now_ms() + harness_patience(5000);
    while (larder_get_with(map, "stale", 5, NULL, 0, NULL, &(larder_read){.flags = LARDER_PEEK}) !=
           LARDER_MISS) {
        ck_assert_int_lt(harness_now_ms(), until);
    }
    for (int i = 0; i < 100; i++) {
        char value[8];
        ck_assert_int_eq(maps_has(map, "expired"), LARDER_MISS);
        ck_assert_int_eq(maps_has(map, "invalidated"), LARDER_MISS);
        ck_assert_int_eq(larder_get_with(map, "stale", 5, value, sizeof value, NULL, &stale),
                         LARDER_STALE);
    }
    for (int i = 0; i < 10; i++) {
        ck_assert_int_eq(maps_has(map, "absent"), LARDER_ABSENT);
    }
    larder_stats stats = maps_stats(map);
    ck_assert_uint_eq(stats.hits, 0);
    ck_assert_uint_eq(stats.misses, 200);
    ck_assert_uint_eq(stats.stale, 100);
    ck_assert_uint_eq(stats.absent, 10);
    ck_assert_uint_le(stats.hot_hits, 10);
    ck_assert(ratio(&stats, "hot_ratio") <= 1);
    ck_assert(ratio(&stats, "hit_ratio") <= 1);
    larder_close(&map);
}
END_TEST

START_TEST(what_is_done_is_counted)
{
    larder *map = maps_new();
    larder_policy negative = {.flags = LARDER_NEGATIVE};
    larder_expiry soon = larder_expire_in(1);
    larder_expiry later = larder_expire_in(100000);
    larder_policy short_lived = {.expiry = soon};
    ck_assert_int_eq(maps_set(map, "a", "1"), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "b", "2"), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "n", 1, NULL, 0, &negative), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "short", 5, "x", 1, &short_lived), LARDER_OK);
    int64_t until = harness_now_ms() + harness_patience(5000);
    while (larder_get_with(map, "short", 5, NULL, 0, NULL, &(larder_read){.flags = LARDER_PEEK}) !=
           LARDER_MISS) {
        ck_assert_int_lt(harness_now_ms(), until);
    }
    ck_assert_int_eq(maps_has(map, "short"), LARDER_MISS);
    ck_assert_int_eq(maps_has(map, "a"), LARDER_OK);
    ck_assert_int_eq(maps_has(map, "n"), LARDER_ABSENT);
    ck_assert_int_eq(maps_has(map, "nothing"), LARDER_MISS);
    ck_assert_int_eq(larder_touch(map, "a", 1, &later), LARDER_OK);
    ck_assert_int_eq(maps_delete(map, "b"), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "big", 3, map, 9u << 20, NULL), LARDER_ETOOBIG);
    larder_stats stats = maps_stats(map);
    ck_assert_uint_eq(stats.sets, 4);
    ck_assert_uint_eq(stats.hits, 1);
    ck_assert_uint_eq(stats.misses, 2);
    ck_assert_uint_eq(stats.expired, 1);
    ck_assert_uint_eq(stats.absent, 1);
    ck_assert_uint_eq(stats.touches, 1);
    ck_assert_uint_eq(stats.deletes, 1);
    ck_assert_uint_eq(stats.refused_size, 1);
    ck_assert_uint_eq(stats.process_hits, 1);
    ck_assert_uint_eq(stats.process_misses, 2);
    ck_assert_uint_eq(stats.process_sets, 4);
    ck_assert_uint_eq(stats.processes, 1);
    ck_assert_uint_eq(stats.generation, 1);
    ck_assert_uint_eq(stats.generations, 1);
    ck_assert_uint_eq(stats.map_size, MAPS_SIZE);
    ck_assert_uint_gt(stats.used_bytes, 0);
    ck_assert_uint_lt(stats.used_bytes, MAPS_SIZE / 8);
    /* the expired one stands there until somebody removes it; the refused one's key waits */
    ck_assert_uint_eq(stats.entries, 3);
    ck_assert_uint_eq(stats.pending, 1);
    ck_assert_int_eq(maps_in_child(use_map, map), 0);
    stats = maps_stats(map);
    ck_assert_uint_eq(stats.sets, 5);
    ck_assert_uint_eq(stats.hits, 2);
    ck_assert_uint_eq(stats.misses, 3);
    ck_assert_uint_eq(stats.process_sets, 4);
    larder_close(&map);
}
END_TEST

START_TEST(an_older_callers_structure_is_not_overrun)
{
    larder *map = maps_new();
    ck_assert_int_eq(maps_set(map, "a", "1"), LARDER_OK);
    size_t sizes[] = {0, 8, offsetof(larder_stats, deletes), sizeof(larder_stats),
                      sizeof(larder_stats) + 64};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t *bytes = malloc(sizes[i] + 8);
        ck_assert_ptr_nonnull(bytes);
        memset(bytes, 0xee, sizes[i] + 8);
        ck_assert_int_eq(larder_stats_read(map, (larder_stats *)(void *)bytes, sizes[i]),
                         LARDER_OK);
        ck_assert_mem_eq(bytes + sizes[i], "\xee\xee\xee\xee\xee\xee\xee\xee", 8);
        if (sizes[i] > sizeof(larder_stats)) { /* a newer caller's members read as 0 */
            for (size_t at = sizeof(larder_stats); at < sizes[i]; at++) {
                ck_assert_uint_eq(bytes[at], 0);
            }
        }
        if (sizes[i] >= offsetof(larder_stats, deletes)) {
            uint64_t sets;
            memcpy(&sets, bytes + offsetof(larder_stats, sets), sizeof sets);
            ck_assert_uint_eq(sets, 1);
        }
        free(bytes);
    }
    ck_assert_int_eq(larder_stats_read(map, NULL, 8), LARDER_EINVAL);
    larder_close(&map);
    larder_stats stats;
    ck_assert_int_eq(larder_stats_read(map, &stats, sizeof stats), LARDER_EINVAL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stats");
    TCase *slots = tcase_create("slots");
    tcase_add_checked_fixture(slots, make_control, drop_control);
    tcase_add_test(slots, a_process_has_one_slot_and_its_counts_stay);
    tcase_add_test(slots, slots_of_dead_processes_are_folded_and_reused);
    tcase_add_test(slots, with_no_slot_left_slot_zero_counts);
    suite_add_tcase(suite, slots);
    TCase *of_maps = tcase_create("figures");
    tcase_set_timeout(of_maps, 20);
    tcase_add_test(of_maps, a_dead_copy_in_the_hot_set_is_no_hit);
    tcase_add_test(of_maps, what_is_done_is_counted);
    tcase_add_test(of_maps, an_older_callers_structure_is_not_overrun);
    suite_add_tcase(suite, of_maps);
    return harness_run(suite);
}
