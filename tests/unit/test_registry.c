/* test_registry.c: what a process has open: handles that share a map, readers that come and go with
 * their threads, and what becomes of all that after fork().
 */
#include "registry.h"

#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"
#include "tests/unit/maps.h"

static size_t readers(larder *map)
{
    inspect_reader list[64];
    size_t found = 0;
    ck_assert_int_eq(inspect_readers(map, list, 64, &found), LARDER_OK);
    return found;
}

START_TEST(handles_of_one_map_share_it)
{
    larder *first = maps_open("shared", MAPS_SIZE, 0), *second = maps_open("shared", 0, 0);
    ck_assert_ptr_eq(first->map, second->map);
    ck_assert_int_eq(maps_set(first, "key", "value"), LARDER_OK);
    ck_assert_str_eq(maps_get(second, "key"), "value");
    larder_close(&first);
    ck_assert_ptr_null(first);
    ck_assert_str_eq(maps_get(second, "key"), "value");
    ck_assert_int_eq(maps_set(second, "key", "2"), LARDER_OK);
    larder_close(&second);
    first = maps_open("shared", 0, LARDER_ATTACH);
    ck_assert_str_eq(maps_get(first, "key"), "2"); /* it outlives its processes */
    larder_close(&first);
    larder_close(&first);
    larder_close(NULL);
    ck_assert_int_eq(maps_has(first, "key"), LARDER_EINVAL);
}
END_TEST

START_TEST(a_thread_may_go_between_maps)
{
    larder *maps[6];
    char name[16], value[16];
    for (int i = 0; i < 6; i++) {
        (void)snprintf(name, sizeof name, "m%d", i);
        maps[i] = maps_open(name, MAPS_SIZE, 0);
        (void)snprintf(value, sizeof value, "v%d", i);
        ck_assert_int_eq(maps_set(maps[i], "key", value), LARDER_OK);
    }
    for (int round = 0; round < 20; round++) {
        int i = round * 5 % 6;
        (void)snprintf(value, sizeof value, "v%d", i);
        ck_assert_str_eq(maps_get(maps[i], "key"), value);
        ck_assert_uint_eq(readers(maps[i]), 1);
    }
    larder_close(&maps[2]);
    maps[2] = maps_open("m2", 0, LARDER_ATTACH);
    ck_assert_str_eq(maps_get(maps[2], "key"), "v2");
    for (int i = 0; i < 6; i++) {
        larder_close(&maps[i]);
    }
}
END_TEST

struct visitor {
    pthread_t thread;
    larder *map;
    pthread_barrier_t *barrier;
    const char *seen;
};

static void *visit(void *context)
{
    struct visitor *visitor = context;
    visitor->seen = maps_has(visitor->map, "key") == LARDER_OK ? "hit" : "miss";
    if (visitor->barrier != NULL) {
        (void)pthread_barrier_wait(visitor->barrier);
        (void)pthread_barrier_wait(visitor->barrier);
    }
    return NULL;
}

START_TEST(a_threads_reader_ends_with_it)
{
    pthread_barrier_t barrier;
    struct visitor visitors[8];
    larder *map = maps_new();
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    ck_assert_uint_eq(readers(map), 1);
    ck_assert_int_eq(pthread_barrier_init(&barrier, NULL, 9), 0);
    for (int i = 0; i < 8; i++) {
        visitors[i] = (struct visitor){.map = map, .barrier = &barrier};
        ck_assert_int_eq(pthread_create(&visitors[i].thread, NULL, visit, &visitors[i]), 0);
    }
    (void)pthread_barrier_wait(&barrier);
    ck_assert_uint_eq(readers(map), 9);
    (void)pthread_barrier_wait(&barrier);
    for (int i = 0; i < 8; i++) {
        ck_assert_int_eq(pthread_join(visitors[i].thread, NULL), 0);
        ck_assert_str_eq(visitors[i].seen, "hit");
    }
    ck_assert_uint_eq(readers(map), 1);
    for (int i = 0; i < 1500; i++) { /* more than there are slots */
        struct visitor one = {.map = map};
        ck_assert_int_eq(pthread_create(&one.thread, NULL, visit, &one), 0);
        ck_assert_int_eq(pthread_join(one.thread, NULL), 0);
        ck_assert_str_eq(one.seen, "hit");
    }
    ck_assert_uint_eq(readers(map), 1);
    (void)pthread_barrier_destroy(&barrier);
    larder_close(&map);
}
END_TEST

static void *visit_twice(void *context)
{
    struct visitor *visitor = context;
    ck_assert_int_eq(maps_has(visitor->map, "key"), LARDER_OK);
    (void)pthread_barrier_wait(visitor->barrier);
    (void)pthread_barrier_wait(visitor->barrier); /* meanwhile it was closed and opened again */
    visitor->seen = maps_has(visitor->map, "key") == LARDER_OK ? "hit" : "miss";
    return NULL;
}

START_TEST(a_map_is_closed_while_another_thread_has_a_reader)
{
    pthread_barrier_t barrier;
    struct visitor visitor = {.map = maps_open("closed", MAPS_SIZE, 0), .barrier = &barrier};
    ck_assert_int_eq(maps_set(visitor.map, "key", "value"), LARDER_OK);
    ck_assert_int_eq(pthread_barrier_init(&barrier, NULL, 2), 0);
    ck_assert_int_eq(pthread_create(&visitor.thread, NULL, visit_twice, &visitor), 0);
    (void)pthread_barrier_wait(&barrier);
    larder_close(&visitor.map);
    visitor.map = maps_open("closed", 0, LARDER_ATTACH);
    ck_assert_uint_eq(readers(visitor.map), 1); /* this thread's; the other one's went */
    (void)pthread_barrier_wait(&barrier);
    ck_assert_int_eq(pthread_join(visitor.thread, NULL), 0);
    ck_assert_str_eq(visitor.seen, "hit");
    ck_assert_uint_eq(readers(visitor.map), 1);
    (void)pthread_barrier_destroy(&barrier);
    larder_close(&visitor.map);
}
END_TEST

/* ---- Fork --------------------------------------------------------------------------------------
 */

struct family {
    larder *map;
    larder_view view;
};

static int grandchild(void *context)
{
    struct family *family = context;
    bool good = maps_set(family->map, "grandchild", "was here") == LARDER_OK &&
                strcmp(maps_get(family->map, "child"), "was here") == 0;
    larder_close(&family->map); /* _exit() would leave the slot to whoever clears dead ones */
    return good ? 0 : 1;
}

static int child(void *context)
{
    struct family *family = context;
    if (strcmp(maps_get(family->map, "parent"), "was here") != 0 ||
        maps_set(family->map, "child", "was here") != LARDER_OK) {
        return 1;
    }
    larder_release(family->map, &family->view); /* the parent's: does nothing to it */
    if (family->view.parts != NULL) {
        return 2;
    }
    larder_view own;
    for (int i = 0; i < 64; i++) { /* and takes nothing of the child's allowance */
        if (larder_borrow(family->map, "parent", 6, &own) != LARDER_OK) {
            return 3;
        }
        larder_release(family->map, &own);
    }
    if (maps_in_child(grandchild, family) != 0) {
        return 4;
    }
    larder_close(&family->map);
    return family->map == NULL ? 0 : 5;
}

START_TEST(a_child_has_a_world_of_its_own)
{
    struct family family = {.map = maps_new()};
    ck_assert_int_eq(maps_set(family.map, "parent", "was here"), LARDER_OK);
    ck_assert_int_eq(larder_borrow(family.map, "parent", 6, &family.view), LARDER_OK);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(maps_in_child(child, &family), 0);
        ck_assert_uint_eq(family.view.part_count, 1);
        ck_assert_mem_eq(family.view.parts[0].iov_base, "was here", 8);
        ck_assert_str_eq(maps_get(family.map, "child"), "was here");
        ck_assert_str_eq(maps_get(family.map, "grandchild"), "was here");
    }
    larder_release(family.map, &family.view);
    ck_assert_uint_le(readers(family.map), 2); /* nobody left a slot behind */
    maps_whole(family.map);
    larder_close(&family.map);
}
END_TEST

static int open_again(void *context)
{
    larder *second = NULL;
    struct family *family = context;
    larder_options options = {.dir = family->view.internal[1]};
    int result = larder_open("forked", &options, &second);
    bool same = result == LARDER_OK && second->map == family->map->map;
    const char *value = result == LARDER_OK ? maps_get(second, "key") : NULL;
    bool good = same && value != NULL && strcmp(value, "value") == 0;
    larder_close(&second);
    return good ? 0 : 1;
}

START_TEST(a_child_may_open_what_it_inherited)
{
    char directory[256];
    (void)snprintf(directory, sizeof directory, "%s", harness_directory());
    struct family family = {.map = maps_open("forked", MAPS_SIZE, 0)};
    family.view.internal[1] = directory;
    ck_assert_int_eq(maps_set(family.map, "key", "value"), LARDER_OK);
    ck_assert_int_eq(maps_in_child(open_again, &family), 0);
    ck_assert_str_eq(maps_get(family.map, "key"), "value");
    larder_close(&family.map);
}
END_TEST

static int count_own_readers(void *context)
{
    larder *map = context;
    inspect_reader list[8];
    size_t found = 0;
    if (maps_has(map, "key") != LARDER_OK || inspect_readers(map, list, 8, &found) != LARDER_OK) {
        return 99;
    }
    int own = 0;
    for (size_t i = 0; i < found; i++) {
        own += list[i].pid == getpid();
    }
    return own;
}

START_TEST(a_childs_reader_is_its_own)
{
    larder *map = maps_new();
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    ck_assert_int_eq(maps_in_child(count_own_readers, map), 1);
    larder_close(&map);
}
END_TEST

START_TEST(views_of_a_process_are_bounded)
{
    larder *map = maps_new();
    larder_view views[65];
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    for (int i = 0; i < 64; i++) {
        ck_assert_int_eq(larder_borrow(map, "key", 3, &views[i]), LARDER_OK);
    }
    ck_assert_int_eq(larder_borrow(map, "key", 3, &views[64]), LARDER_ELIMIT);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "64"));
    ck_assert_ptr_null(views[64].parts);
    larder_release(map, &views[64]); /* none: nothing happens */
    larder_release(map, &views[7]);
    larder_release(map, &views[7]);
    ck_assert_int_eq(larder_borrow(map, "key", 3, &views[64]), LARDER_OK);
    larder_release(map, &views[64]);
    for (int i = 0; i < 64; i++) {
        larder_release(map, &views[i]);
    }
    ck_assert_uint_le(readers(map), 2); /* one may be kept for the next view */
    larder_close(&map);
}
END_TEST

START_TEST(checking_a_map_leaves_no_reader_behind)
{
    larder *map = maps_open("checked", MAPS_SIZE, 0), *other = maps_open("other", MAPS_SIZE, 0);
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
        ck_assert_int_eq(maps_has(other, "key"),
                         LARDER_MISS); /* now this thread's is the other's */
        maps_whole(map);
    }
    ck_assert_uint_eq(readers(map), 1);
    larder_close(&map);
    larder_close(&other);
}
END_TEST

static void *check_map(void *context)
{
    maps_whole(context);
    return NULL;
}

START_TEST(checking_from_fresh_threads_leaves_no_reader_behind)
{
    larder *map = maps_new();
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    for (int i = 0; i < 5; i++) {
        pthread_t thread;
        ck_assert_int_eq(pthread_create(&thread, NULL, check_map, map), 0);
        ck_assert_int_eq(pthread_join(thread, NULL), 0);
    }
    ck_assert_uint_eq(readers(map), 1);
    larder_close(&map);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("registry");
    TCase *tests = tcase_create("registry");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, handles_of_one_map_share_it);
    tcase_add_test(tests, a_thread_may_go_between_maps);
    tcase_add_test(tests, a_threads_reader_ends_with_it);
    tcase_add_test(tests, a_map_is_closed_while_another_thread_has_a_reader);
    tcase_add_test(tests, a_child_has_a_world_of_its_own);
    tcase_add_test(tests, a_child_may_open_what_it_inherited);
    tcase_add_test(tests, a_childs_reader_is_its_own);
    tcase_add_test(tests, views_of_a_process_are_bounded);
    tcase_add_test(tests, checking_a_map_leaves_no_reader_behind);
    tcase_add_test(tests, checking_from_fresh_threads_leaves_no_reader_behind);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
