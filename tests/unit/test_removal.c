/* test_removal.c: what keeps removed things removed while no record says so: pending rows when the
 * gate is busy, barriers when there are too many or the key is too long, floors against what comes
 * late. Wider is allowed, stale is not.
 */
#include "removal.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "clock.h"
#include "replica.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"
#include "upkeep.h"

/* ---- The tables --------------------------------------------------------------------------------
 */

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

static struct key number_key(unsigned number, char text[16])
{
    struct key key;
    int size = snprintf(text, 16, "key%u", number);
    ck_assert_int_eq(key_make(&key, text, (size_t)size), LARDER_OK);
    return key;
}

START_TEST(a_pending_row_kills_what_is_older)
{
    char text[16];
    struct removal_pending pending;
    struct key key = number_key(1, text), other;
    char other_text[16];
    other = number_key(2, other_text);
    ck_assert_uint_eq(removal_dead_before(control, key.hash), 0);
    ck_assert(!removal_any_pending(control));
    ck_assert(!removal_pend(control, &key, (larder_version){.clock = 500, .node = 3}));
    ck_assert_uint_eq(removal_dead_before(control, key.hash), 500);
    ck_assert_uint_eq(removal_dead_before(control, other.hash), 0);
    ck_assert(!removal_pend(control, &key, (larder_version){.clock = 400}));
    ck_assert_uint_eq(removal_dead_before(control, key.hash), 500); /* the newest counts */
    ck_assert_uint_eq(removal_count_pending(control), 2);
    size_t index = 0, rows = 0;
    while (removal_next_pending(control, &index, &pending)) {
        ck_assert_uint_eq(pending.key_size, key.size);
        ck_assert_mem_eq(pending.key, key.data, key.size);
        removal_free_pending(control, pending.index);
        rows++;
    }
    ck_assert_uint_eq(rows, 2);
    ck_assert_uint_eq(removal_dead_before(control, key.hash), 0);
    ck_assert(!removal_any_pending(control));
}
END_TEST

START_TEST(when_the_table_is_full_the_buckets_barrier_rises)
{
    char text[16];
    for (unsigned i = 0; i < CONTROL_PENDING_ROWS; i++) {
        struct key key = number_key(i, text);
        ck_assert(!removal_pend(control, &key, (larder_version){.clock = 100 + i}));
    }
    ck_assert_uint_eq(removal_count_pending(control), CONTROL_PENDING_ROWS);
    struct key last = number_key(100000, text);
    ck_assert(removal_pend(control, &last, (larder_version){.clock = 9000}));
    ck_assert_uint_eq(removal_count_pending(control), CONTROL_PENDING_ROWS);
    ck_assert_uint_eq(removal_dead_before(control, last.hash), 9000);
    ck_assert_uint_eq(removal_floor(control, last.hash), 9000);
    size_t others = 0;
    for (unsigned i = 0; i < CONTROL_PENDING_ROWS; i++) {
        struct key key = number_key(i, text);
        if (control_bucket(key.hash) != control_bucket(last.hash)) {
            ck_assert_uint_eq(removal_dead_before(control, key.hash), 100 + i);
            others++;
        }
    }
    ck_assert_uint_gt(others, 0);
}
END_TEST

static uint64_t untold_bucket(larder *map, uint64_t hash)
{
    replica_marks marks = {.count = 0};
    uint64_t clock = 0;
    char name[8];
    (void)snprintf(name, sizeof name, "b%03x", (unsigned)control_bucket(hash));
    ck_assert_int_eq(replica_marks_read(map, &marks, false, false, false), LARDER_OK);
    for (size_t i = 0; i < marks.count; i++) {
        if (marks.marks[i].name_size == 4 && memcmp(marks.marks[i].name, name, 4) == 0) {
            clock = marks.marks[i].clock;
        }
    }
    return clock;
}

/* What larderd does for want of room, and a delete of a worker's that found the table full, at a
 * version that it had drawn before: in whatever order, the others are told of the latter. */
START_TEST(a_barrier_for_this_host_alone_hides_none_that_is_to_be_told)
{
    static uint8_t bytes[CONTROL_PENDING_KEY + 1];
    for (int first = 0; first < 2; first++) {
        larder *map = maps_open(first == 0 ? "one" : "two", MAPS_SIZE, 0);
        struct control *own = maps_control(map);
        struct key key;
        memset(bytes, 'x', sizeof bytes);
        ck_assert_int_eq(key_make(&key, bytes, sizeof bytes), LARDER_OK);
        uint64_t workers = clock_next(own).clock;
        larder_version larderds = clock_next(own);
        if (first == 0) {
            removal_raise_barrier(own, key.hash, workers);
        }
        ck_assert(removal_pend(own, &key, larderds));
        if (first == 1) {
            ck_assert_uint_eq(untold_bucket(map, key.hash), 0);
            removal_raise_barrier(own, key.hash, workers);
        }
        ck_assert_uint_eq(removal_dead_before(own, key.hash), larderds.clock);
        ck_assert_uint_eq(untold_bucket(map, key.hash), workers);
        larder_close(&map);
    }
}
END_TEST

START_TEST(a_key_too_long_for_a_row_raises_the_barrier)
{
    static uint8_t bytes[CONTROL_PENDING_KEY + 1];
    struct key key;
    memset(bytes, 'x', sizeof bytes);
    ck_assert_int_eq(key_make(&key, bytes, CONTROL_PENDING_KEY), LARDER_OK);
    ck_assert(!removal_pend(control, &key, (larder_version){.clock = 5}));
    ck_assert_uint_eq(removal_count_pending(control), 1);
    ck_assert_int_eq(key_make(&key, bytes, CONTROL_PENDING_KEY + 1), LARDER_OK);
    ck_assert(removal_pend(control, &key, (larder_version){.clock = 6}));
    ck_assert_uint_eq(removal_count_pending(control), 1);
    ck_assert_uint_eq(removal_dead_before(control, key.hash), 6);
}
END_TEST

START_TEST(floors_and_barriers_only_rise)
{
    char text[16];
    struct key key = number_key(1, text);
    removal_raise_floor(control, key.hash, 50);
    removal_raise_floor(control, key.hash, 40);
    ck_assert_uint_eq(removal_floor(control, key.hash), 50);
    ck_assert_uint_eq(removal_dead_before(control, key.hash), 0); /* a floor kills nothing there */
    removal_raise_barrier(control, key.hash, 45);
    ck_assert_uint_eq(removal_floor(control, key.hash), 50);
    ck_assert_uint_eq(removal_dead_before(control, key.hash), 45);
    removal_raise_barrier(control, key.hash, 44);
    ck_assert_uint_eq(removal_dead_before(control, key.hash), 45);
    removal_raise_all_floors(control, 60);
    removal_raise_all_floors(control, 10);
    for (uint64_t bucket = 0; bucket < CONTROL_BUCKETS; bucket++) {
        ck_assert_uint_eq(removal_floor(control, bucket << 52), 60);
    }
}
END_TEST

static int claim_and_die(void *context)
{
    struct pending_row *row = context;
    atomic_store(&row->state, (uint64_t)(uint32_t)getpid() << 32 | PENDING_CLAIMED);
    return 0;
}

START_TEST(a_row_whose_claimer_died_is_free_again)
{
    struct removal_pending pending;
    size_t index = 0;
    struct pending_row *row = &control->pending_rows[7];
    ck_assert_int_eq(maps_in_child(claim_and_die, row), 0);
    ck_assert(!removal_next_pending(control, &index, &pending));
    ck_assert_uint_eq(atomic_load(&row->state), PENDING_FREE);
    /* one that lives keeps it */
    atomic_store(&row->state, (uint64_t)(uint32_t)getpid() << 32 | PENDING_CLAIMED);
    index = 0;
    ck_assert(!removal_next_pending(control, &index, &pending));
    ck_assert_uint_ne(atomic_load(&row->state), PENDING_FREE);
}
END_TEST

START_TEST(damaged_rows_are_cleared_not_followed)
{
    struct removal_pending pending;
    size_t index = 0;
    struct pending_row *row = &control->pending_rows[70];
    atomic_store(&row->state, (uint64_t)1 << 32 | PENDING_READY);
    row->key_size = CONTROL_PENDING_KEY + 1;
    atomic_store(&control->pending[1], UINT64_C(1) << 6);
    ck_assert(!removal_next_pending(control, &index, &pending));
    ck_assert_uint_eq(atomic_load(&row->state), PENDING_FREE);
    ck_assert(!removal_any_pending(control));
    /* a late bit on a free row goes, too */
    atomic_store(&control->pending[2], 2);
    index = 0;
    ck_assert(!removal_next_pending(control, &index, &pending));
    ck_assert(!removal_any_pending(control));
}
END_TEST

/* ---- In a map, with the gate held by another process --------------------------------------------
 */

struct other {
    larder *map;
    const char *key;
};

static int reads_as_miss(void *context)
{
    struct other *other = context;
    return larder_has(other->map, other->key, strlen(other->key)) == LARDER_MISS ? 0 : 1;
}

static int reads_as_hit(void *context)
{
    struct other *other = context;
    return larder_has(other->map, other->key, strlen(other->key)) == LARDER_OK ? 0 : 1;
}

START_TEST(a_delete_is_never_refused)
{
    larder *map = maps_new();
    struct other other = {.map = map, .key = "key"};
    ck_assert_int_eq(maps_set(map, "key", "old"), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "bystander", "stays"), LARDER_OK);
    struct maps_holder holder = maps_hold(&maps_control(map)->write_gate);
    int64_t began = harness_now_ms();
    ck_assert_int_eq(maps_delete(map, "key"), LARDER_OK);
    ck_assert_int_le(harness_now_ms() - began, 50 + harness_patience(1000));
    ck_assert_ptr_null(maps_get(map, "key"));
    ck_assert_int_eq(maps_in_child(reads_as_miss, &other), 0);
    ck_assert_str_eq(maps_get(map, "bystander"), "stays");
    larder_stats stats = maps_stats(map);
    ck_assert_uint_eq(stats.pending, 1);
    ck_assert_uint_eq(stats.refused_busy, 1);
    ck_assert_uint_eq(stats.entries, 2);
    maps_let_go(&holder);
    ck_assert_ptr_null(maps_get(map, "key")); /* still, and nobody wrote yet */
    ck_assert_int_eq(maps_set(map, "next", "writer"), LARDER_OK);
    stats = maps_stats(map);
    ck_assert_uint_eq(stats.pending, 0); /* durable */
    ck_assert_uint_eq(stats.entries, 2); /* bystander, next */
    ck_assert_ptr_null(maps_get(map, "key"));
    ck_assert_int_eq(maps_in_child(reads_as_miss, &other), 0);
    maps_whole(map);
    larder_close(&map);
}
END_TEST

START_TEST(a_refused_set_does_not_leave_the_old_value)
{
    larder *map = maps_new();
    ck_assert_int_eq(maps_set(map, "key", "old"), LARDER_OK);
    struct maps_holder holder = maps_hold(&maps_control(map)->write_gate);
    ck_assert_int_eq(maps_set(map, "key", "new"), LARDER_EBUSY);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "write gate"));
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "50 ms"));
    ck_assert_ptr_null(maps_get(map, "key"));
    /* an add that was refused changed nothing and promised nothing */
    ck_assert_int_eq(larder_add(map, "added", 5, "x", 1, NULL), LARDER_EBUSY);
    ck_assert_uint_eq(maps_stats(map).pending, 1);
    maps_let_go(&holder);
    ck_assert_int_eq(maps_set(map, "key", "newest"), LARDER_OK); /* newer than the pending row */
    ck_assert_str_eq(maps_get(map, "key"), "newest");
    ck_assert_uint_eq(maps_stats(map).pending, 0);
    maps_whole(map);
    larder_close(&map);
}
END_TEST

START_TEST(many_key_forms_pend_each_key)
{
    larder *map = maps_new();
    larder_item items[3] = {{.key = "a", .key_size = 1, .value = "1", .value_size = 1},
                            {.key = "b", .key_size = 1, .value = "2", .value_size = 1},
                            {.key = "c", .key_size = 1, .value = "3", .value_size = 1}};
    ck_assert_int_eq(larder_set_many(map, items, 3, NULL), LARDER_OK);
    struct maps_holder holder = maps_hold(&maps_control(map)->write_gate);
    ck_assert_int_eq(larder_set_many(map, items, 2, NULL), LARDER_EBUSY);
    ck_assert_int_eq(items[0].outcome, LARDER_EBUSY);
    ck_assert_ptr_null(maps_get(map, "a"));
    ck_assert_ptr_null(maps_get(map, "b"));
    ck_assert_str_eq(maps_get(map, "c"), "3");
    ck_assert_int_eq(larder_delete_many(map, items, 3), LARDER_OK);
    ck_assert_int_eq(items[2].outcome, LARDER_OK);
    ck_assert_ptr_null(maps_get(map, "c"));
    maps_let_go(&holder);
    ck_assert_int_eq(maps_set(map, "d", "4"), LARDER_OK);
    ck_assert_uint_eq(maps_stats(map).entries, 1);
    ck_assert_uint_eq(maps_stats(map).pending, 0);
    maps_whole(map);
    larder_close(&map);
}
END_TEST

START_TEST(a_pending_row_spares_what_was_written_after_it)
{
    larder *map = maps_new();
    char text[16];
    struct key key = number_key(1, text);
    ck_assert_int_eq(maps_set(map, text, "old"), LARDER_OK);
    larder_version version = clock_next(maps_control(map)); /* drawn, then stopped for a while */
    ck_assert_int_eq(maps_set(map, text, "new"), LARDER_OK);
    ck_assert(!removal_pend(maps_control(map), &key, version));
    ck_assert_str_eq(maps_get(map, text), "new");
    ck_assert_int_eq(maps_set(map, "next", "writer"), LARDER_OK);
    ck_assert_uint_eq(maps_stats(map).pending, 0);
    ck_assert_str_eq(maps_get(map, text), "new");
    maps_whole(map);
    larder_close(&map);
}
END_TEST

START_TEST(overflow_is_wider_never_stale)
{
    larder *map = NULL;
    char text[16];
    const unsigned keys = CONTROL_PENDING_ROWS + 40;
    larder_options options = {
        .dir = harness_directory(), .map_size = MAPS_SIZE, .write_wait_ms = 1};
    ck_assert_int_eq(larder_open("overflow", &options, &map), LARDER_OK);
    for (unsigned i = 0; i < keys; i++) {
        (void)number_key(i, text);
        ck_assert_int_eq(maps_set(map, text, "value"), LARDER_OK);
    }
    ck_assert_int_eq(maps_set(map, "witness", "value"), LARDER_OK);
    bool witness_hit = false; /* its bucket may be one of the raised ones */
    struct key witness;
    ck_assert_int_eq(key_make(&witness, "witness", 7), LARDER_OK);
    struct maps_holder holder = maps_hold(&maps_control(map)->write_gate);
    for (unsigned i = 0; i < keys; i++) {
        struct key key = number_key(i, text);
        ck_assert_int_eq(maps_delete(map, text), LARDER_OK);
        witness_hit |= control_bucket(key.hash) == control_bucket(witness.hash);
    }
    for (unsigned i = 0; i < keys; i++) {
        (void)number_key(i, text);
        ck_assert_ptr_null(maps_get(map, text));
    }
    ck_assert(witness_hit || maps_has(map, "witness") == LARDER_OK);
    ck_assert_uint_eq(maps_stats(map).pending, CONTROL_PENDING_ROWS);
    ck_assert_uint_eq(maps_stats(map).pending_overflows, 40);
    maps_let_go(&holder);
    /* each writer makes a bounded number durable; what is set anew is there at once */
    for (unsigned i = 0; i < 10; i++) {
        (void)number_key(i, text);
        ck_assert_int_eq(maps_set(map, text, "again"), LARDER_OK);
        ck_assert_str_eq(maps_get(map, text), "again");
    }
    ck_assert_uint_eq(maps_stats(map).pending, 0);
    for (unsigned i = 10; i < keys; i++) {
        (void)number_key(i, text);
        ck_assert_ptr_null(maps_get(map, text));
    }
    maps_whole(map);
    larder_close(&map);
}
END_TEST

START_TEST(a_long_keys_refused_delete_kills_its_bucket)
{
    larder *map = maps_new();
    static char long_key[3001];
    memset(long_key, 'l', sizeof long_key - 1);
    struct other other = {.map = map, .key = long_key};
    ck_assert_int_eq(maps_set(map, long_key, "old"), LARDER_OK);
    ck_assert_int_eq(maps_in_child(reads_as_hit, &other), 0);
    struct maps_holder holder = maps_hold(&maps_control(map)->write_gate);
    ck_assert_int_eq(maps_delete(map, long_key), LARDER_OK);
    ck_assert_ptr_null(maps_get(map, long_key));
    ck_assert_int_eq(maps_in_child(reads_as_miss, &other), 0);
    ck_assert_uint_eq(maps_stats(map).pending, 0);
    ck_assert_uint_eq(maps_stats(map).pending_overflows, 1);
    maps_let_go(&holder);
    ck_assert_ptr_null(maps_get(map, long_key));
    ck_assert_int_eq(larder_add(map, long_key, 3000, "new", 3, NULL),
                     LARDER_OK); /* dead = absent */
    ck_assert_str_eq(maps_get(map, long_key), "new");
    maps_whole(map);
    larder_close(&map);
}
END_TEST

START_TEST(a_holder_killed_inside_loses_nothing_pending)
{
    larder *map = maps_new();
    ck_assert_int_eq(maps_set(map, "key", "old"), LARDER_OK);
    struct maps_holder holder = maps_hold(&maps_control(map)->write_gate);
    ck_assert_int_eq(maps_delete(map, "key"), LARDER_OK);
    maps_kill(&holder);
    ck_assert_int_eq(maps_set(map, "other", "x"), LARDER_OK);
    ck_assert_ptr_null(maps_get(map, "key"));
    ck_assert_uint_eq(maps_stats(map).gate_recoveries, 1);
    ck_assert_uint_eq(maps_stats(map).entries, 1);
    maps_whole(map);
    larder_close(&map);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("removal");
    TCase *tables = tcase_create("tables");
    tcase_add_checked_fixture(tables, make_control, drop_control);
    tcase_add_test(tables, a_pending_row_kills_what_is_older);
    tcase_add_test(tables, when_the_table_is_full_the_buckets_barrier_rises);
    tcase_add_test(tables, a_barrier_for_this_host_alone_hides_none_that_is_to_be_told);
    tcase_add_test(tables, a_key_too_long_for_a_row_raises_the_barrier);
    tcase_add_test(tables, floors_and_barriers_only_rise);
    tcase_add_test(tables, a_row_whose_claimer_died_is_free_again);
    tcase_add_test(tables, damaged_rows_are_cleared_not_followed);
    suite_add_tcase(suite, tables);
    TCase *maps = tcase_create("maps");
    tcase_set_timeout(maps, 30);
    tcase_add_test(maps, a_delete_is_never_refused);
    tcase_add_test(maps, a_refused_set_does_not_leave_the_old_value);
    tcase_add_test(maps, many_key_forms_pend_each_key);
    tcase_add_test(maps, a_pending_row_spares_what_was_written_after_it);
    tcase_add_test(maps, overflow_is_wider_never_stale);
    tcase_add_test(maps, a_long_keys_refused_delete_kills_its_bucket);
    tcase_add_test(maps, a_holder_killed_inside_loses_nothing_pending);
    suite_add_tcase(suite, maps);
    return harness_run(suite);
}
