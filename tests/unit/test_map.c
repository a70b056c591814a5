/* test_map.c: attaching to a map's directory and keeping up with its generations: damaged,
 * truncated, retired; processes that have it open follow, and who only reads leaves it alone.
 */
#include "map.h"

#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "removal.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"

static bool exists(larder *map, const char *name)
{
    struct stat status;
    return fstatat(map->map->directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

static int set_in_child(void *context)
{
    return maps_set(context, "by a child", "value") == LARDER_OK ? 0 : 1;
}

START_TEST(a_poisoned_generation_is_replaced_and_everybody_follows)
{
    larder *map = maps_new();
    struct key key;
    ck_assert_int_eq(maps_set(map, "old", "value"), LARDER_OK);
    larder_version before = maps_info(map, "old").version;
    control_poison(maps_control(map), 1);
    /* the next to look, in another process, starts afresh; this one, attached to the old, follows
     */
    ck_assert_int_eq(maps_in_child(set_in_child, map), 0);
    ck_assert_uint_eq(GENERATION_NUMBER(atomic_load(&maps_control(map)->generation)), 2);
    ck_assert_ptr_null(maps_get(map, "old"));
    ck_assert_str_eq(maps_get(map, "by a child"), "value");
    ck_assert(exists(map, "g2"));
    ck_assert(!exists(map, "g1"));
    ck_assert_int_eq(key_make(&key, "old", 3), LARDER_OK); /* nothing older may come back in */
    ck_assert_uint_gt(removal_floor(maps_control(map), key.hash), before.clock);
    ck_assert_int_eq(maps_set(map, "old", "again"), LARDER_OK);
    ck_assert_uint_eq(maps_stats(map).generations, 2);
    maps_whole(map);
    larder_close(&map);
}
END_TEST

START_TEST(many_generations_leave_nothing_behind)
{
    larder *map = maps_new();
    ck_assert_int_eq(mkdirat(map->map->directory, "g7.new", 0700), 0); /* its maker was killed */
    ck_assert_int_eq(mkdirat(map->map->directory, "group", 0700), 0);  /* somebody else's */
    for (uint64_t i = 1; i <= 5; i++) {
        ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
        control_poison(maps_control(map), i);
        ck_assert_ptr_null(maps_get(map, "key"));
    }
    size_t generations = 0;
    DIR *listing = opendir(map->map->path);
    ck_assert_ptr_nonnull(listing);
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        generations += entry->d_name[0] == 'g';
    }
    (void)closedir(listing);
    ck_assert_uint_eq(generations, 2); /* g6 and group */
    ck_assert(exists(map, "g6"));
    maps_whole(map);
    larder_close(&map);
}
END_TEST

START_TEST(a_view_outlives_its_generation)
{
    larder *map = maps_new();
    larder_view view;
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    ck_assert_int_eq(larder_borrow(map, "key", 3, &view), LARDER_OK);
    control_poison(maps_control(map), 1);
    ck_assert_ptr_null(maps_get(map, "key"));
    ck_assert_int_eq(maps_set(map, "key", "new"), LARDER_OK);
    ck_assert_mem_eq(view.parts[0].iov_base, "value", 5);
    larder_release(map, &view);
    ck_assert_str_eq(maps_get(map, "key"), "new");
    larder_close(&map);
}
END_TEST

START_TEST(who_only_reads_leaves_a_damaged_generation_alone)
{
    larder *map = maps_open("map", MAPS_SIZE, 0);
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    control_poison(maps_control(map), 1);
    larder_close(&map);
    larder_options options = {.dir = harness_directory(), .flags = LARDER_READ_ONLY};
    ck_assert_int_eq(larder_open("map", &options, &map), LARDER_ECORRUPT);
    ck_assert_ptr_null(map);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "generation 1"));
    map = maps_open("map", 0, LARDER_ATTACH);
    ck_assert_uint_eq(maps_stats(map).generation, 2);
    larder_close(&map);
}
END_TEST

START_TEST(a_truncated_file_starts_another_generation_at_the_next_open)
{
    char file[4200];
    larder *map = maps_open("map", MAPS_SIZE, 0);
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    (void)snprintf(file, sizeof file, "%s/g1/data.mdb", map->map->path);
    larder_close(&map);
    ck_assert_int_eq(truncate(file, MAPS_SIZE / 2), 0);
    map = maps_open("map", 0, LARDER_ATTACH);
    ck_assert_ptr_null(maps_get(map, "key"));
    ck_assert_int_eq(maps_set(map, "key", "again"), LARDER_OK);
    ck_assert_uint_eq(maps_stats(map).generation, 2);
    ck_assert_uint_eq(maps_stats(map).map_size, MAPS_SIZE);
    maps_whole(map);
    larder_close(&map);
}
END_TEST

START_TEST(a_missing_generation_is_made_again)
{
    char file[4200];
    larder *map = maps_open("map", MAPS_SIZE, 0);
    (void)snprintf(file, sizeof file, "%s/g1/data.mdb", map->map->path);
    larder_close(&map);
    ck_assert_int_eq(unlink(file), 0);
    map = maps_open("map", 0, 0);
    ck_assert_int_eq(maps_set(map, "key", "again"), LARDER_OK);
    ck_assert_uint_eq(maps_stats(map).generation, 2);
    larder_close(&map);
}
END_TEST

START_TEST(a_segment_that_was_replaced_is_left_by_all)
{
    larder *map = maps_new();
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    struct control *before = maps_control(map);
    ck_assert_int_eq(control_retire(map->map->directory), LARDER_OK);
    ck_assert_ptr_null(maps_get(map, "key"));
    ck_assert_ptr_ne(maps_control(map), before);
    ck_assert_int_eq(maps_set(map, "key", "again"), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "key"), "again");
    ck_assert_int_eq(maps_in_child(set_in_child, map), 0);
    ck_assert_str_eq(maps_get(map, "by a child"), "value");
    maps_whole(map);
    larder_close(&map);
}
END_TEST

START_TEST(a_cut_segment_is_replaced_at_open)
{
    larder *map = maps_open("map", MAPS_SIZE, 0);
    char file[4200];
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    (void)snprintf(file, sizeof file, "%s/control", map->map->path);
    larder_close(&map);
    ck_assert_int_eq(truncate(file, 100), 0);
    larder_options attach = {.dir = harness_directory(), .flags = LARDER_ATTACH};
    ck_assert_int_eq(larder_open("map", &attach, &map), LARDER_EFORMAT); /* not its to replace */
    map = maps_open("map", MAPS_SIZE, 0);
    ck_assert_ptr_null(maps_get(map, "key"));
    ck_assert_int_eq(maps_set(map, "key", "again"), LARDER_OK);
    maps_whole(map);
    larder_close(&map);
}
END_TEST

START_TEST(a_segment_of_another_version_is_refused)
{
    larder *map = maps_open("map", MAPS_SIZE, 0);
    maps_control(map)->format = CONTROL_FORMAT + 1;
    larder_close(&map);
    larder_options options = {.dir = harness_directory(), .map_size = MAPS_SIZE};
    ck_assert_int_eq(larder_open("map", &options, &map), LARDER_EFORMAT);
    ck_assert_ptr_null(map);
}
END_TEST

START_TEST(a_held_open_gate_does_not_hold_an_open_for_ever)
{
    larder *map = maps_open("map", MAPS_SIZE, 0);
    struct maps_holder holder = maps_hold(&maps_control(map)->open_gate);
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK); /* who has it open goes on */
    control_poison(maps_control(map), 1);
    int64_t began = harness_now_ms();
    ck_assert_ptr_null(maps_get(map, "key")); /* a miss, in time */
    ck_assert_int_lt(maps_set(map, "key", "value"), 0);
    ck_assert_int_le(harness_now_ms() - began, harness_patience(5000));
    maps_let_go(&holder);
    int64_t until = harness_now_ms() + harness_patience(5000);
    while (maps_set(map, "key", "value") != LARDER_OK) { /* soon it is tried again */
        ck_assert_int_lt(harness_now_ms(), until);
    }
    ck_assert_str_eq(maps_get(map, "key"), "value");
    larder_close(&map);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("map");
    TCase *tests = tcase_create("map");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, a_poisoned_generation_is_replaced_and_everybody_follows);
    tcase_add_test(tests, many_generations_leave_nothing_behind);
    tcase_add_test(tests, a_view_outlives_its_generation);
    tcase_add_test(tests, who_only_reads_leaves_a_damaged_generation_alone);
    tcase_add_test(tests, a_truncated_file_starts_another_generation_at_the_next_open);
    tcase_add_test(tests, a_missing_generation_is_made_again);
    tcase_add_test(tests, a_segment_that_was_replaced_is_left_by_all);
    tcase_add_test(tests, a_cut_segment_is_replaced_at_open);
    tcase_add_test(tests, a_segment_of_another_version_is_refused);
    tcase_add_test(tests, a_held_open_gate_does_not_hold_an_open_for_ever);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
