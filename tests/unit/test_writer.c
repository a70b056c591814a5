/* test_writer.c: one write: what is killed, refused or aborted leaves the last committed state and
 * its ledger; a full map makes room, or says who pins it.
 */
#include "writer.h"

#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "removal.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"

static larder *map;

static void open_map(void)
{
    map = maps_new();
}

static void close_map(void)
{
    larder_close(&map);
}

/* Put one dirty value inside a write. */
static int put(struct writer *writer, const char *text, const void *value, size_t size)
{
    struct key key;
    struct record old;
    int result = key_make(&key, text, strlen(text));
    if (result != LARDER_OK) {
        return result;
    }
    int found = entry_find(&writer->transaction, &key, &old);
    struct record record =
        record_make(clock_next(writer->control), RECORD_VALUE, RECORD_DIRTY, CLOCK_NEVER);
    record.value_size = size;
    return found < 0 ? found
                     : entry_store(writer, &key, found == LARDER_OK ? &old : NULL, &record, value);
}

START_TEST(an_aborted_write_leaves_nothing)
{
    struct writer writer;
    ck_assert_int_eq(maps_set(map, "key", "old"), LARDER_OK);
    ck_assert_int_eq(writer_begin(&writer, map, 100), LARDER_OK);
    ck_assert_int_eq(put(&writer, "key", "new", 3), LARDER_OK);
    ck_assert_int_eq(put(&writer, "other", "new", 3), LARDER_OK);
    writer_abort(&writer);
    ck_assert_str_eq(maps_get(map, "key"), "old");
    ck_assert_ptr_null(maps_get(map, "other"));
    ck_assert_uint_eq(maps_stats(map).entries, 1);
    maps_whole(map);
    ck_assert_int_eq(writer_begin(&writer, map, 100), LARDER_OK);
    ck_assert_int_eq(put(&writer, "other", "new", 3), LARDER_OK);
    ck_assert_ptr_null(maps_get(map, "other")); /* not before the commit */
    ck_assert_int_eq(writer_commit(&writer), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "other"), "new");
    maps_whole(map);
}
END_TEST

START_TEST(a_write_inside_a_write_is_refused_not_deadlocked)
{
    struct writer outer, inner;
    ck_assert_int_eq(writer_begin(&outer, map, 100), LARDER_OK);
    ck_assert_int_eq(writer_begin(&inner, map, 100), LARDER_EBUSY);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "signal handler"));
    ck_assert_int_eq(maps_set(map, "key", "from a handler"), LARDER_EBUSY);
    writer_abort(&outer);
    ck_assert_int_eq(maps_set(map, "key", "later"), LARDER_OK);
}
END_TEST

START_TEST(a_write_cannot_be_cancelled_inside)
{
    struct writer writer;
    int before, inside;
    ck_assert_int_eq(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &before), 0);
    ck_assert_int_eq(writer_begin(&writer, map, 100), LARDER_OK);
    ck_assert_int_eq(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &inside), 0);
    ck_assert_int_eq(inside, PTHREAD_CANCEL_DISABLE);
    writer_abort(&writer);
    ck_assert_int_eq(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &inside), 0);
    ck_assert_int_eq(inside, PTHREAD_CANCEL_ENABLE); /* as it was */
}
END_TEST

enum stage { AFTER_BEGIN, AFTER_PUT, AFTER_LEDGER, AFTER_COMMIT, STAGES };

static int write_and_die(void *context)
{
    enum stage stage = *(enum stage *)context;
    struct writer writer;
    registry_check_fork();
    if (writer_begin(&writer, map, 1000) != LARDER_OK) {
        return 1;
    }
    if (stage > AFTER_BEGIN && (put(&writer, "key", "new", 3) != LARDER_OK ||
                                put(&writer, "other", "new", 3) != LARDER_OK)) {
        return 2;
    }
    if (stage > AFTER_PUT) {
        writer.ledger.transaction = writer.transaction.number;
        ledger_write(writer.transaction.store->life, &writer.ledger);
    }
    if (stage > AFTER_LEDGER && store_write_commit(&writer.transaction) != LARDER_OK) {
        return 3;
    }
    (void)kill(getpid(), SIGKILL);
    return 4;
}

START_TEST(a_writer_killed_at_any_stage_leaves_a_whole_map)
{
    for (enum stage stage = AFTER_BEGIN; stage < STAGES; stage++) {
        ck_assert_int_eq(maps_set(map, "key", "old"), LARDER_OK);
        (void)maps_delete(map, "other");
        ck_assert_int_eq(maps_in_child(write_and_die, &stage), -SIGKILL);
        ck_assert_str_eq(maps_get(map, "key"), stage < AFTER_COMMIT ? "old" : "new");
        ck_assert_int_eq(maps_has(map, "other"), stage < AFTER_COMMIT ? LARDER_MISS : LARDER_OK);
        maps_whole(map);
        ck_assert_int_eq(maps_set(map, "after", "fine"), LARDER_OK);
        ck_assert_uint_eq(maps_stats(map).gate_recoveries, stage + 1u);
        ck_assert_uint_eq(maps_stats(map).generation, 1);
        maps_whole(map);
    }
}
END_TEST

START_TEST(a_ledger_of_another_transaction_is_damage)
{
    struct writer writer;
    ck_assert_int_eq(maps_set(map, "key", "old"), LARDER_OK);
    struct control *control = maps_control(map);
    uint64_t last = atomic_load(&control_life(control)->committed);
    control_life(control)->ledgers[last & 1].transaction += 2;
    ck_assert_int_eq(writer_begin(&writer, map, 100), LARDER_ECORRUPT);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "ledger"));
    ck_assert_uint_ne(atomic_load(&control->generation) & GENERATION_POISONED, 0);
    ck_assert_int_eq(maps_set(map, "key", "new"), LARDER_OK); /* the next to look starts afresh */
    ck_assert_uint_eq(maps_stats(map).generation, 2);
    ck_assert_uint_eq(maps_stats(map).entries, 1);
    maps_whole(map);
}
END_TEST

/* ---- Room --------------------------------------------------------------------------------------
 */

static size_t calls;

static int always_full(struct writer *writer, void *context)
{
    (void)writer;
    (void)context;
    calls++;
    return LARDER_EFULL;
}

static int put_then_return(struct writer *writer, void *context)
{
    int result = put(writer, "key", "new", 3);
    return result == LARDER_OK ? *(int *)context : result;
}

START_TEST(an_operation_is_all_or_nothing)
{
    int code = LARDER_ENUMBER;
    ck_assert_int_eq(maps_set(map, "key", "old"), LARDER_OK);
    ck_assert_int_eq(writer_run(map, 3, put_then_return, &code), LARDER_ENUMBER);
    ck_assert_str_eq(maps_get(map, "key"), "old");
    code = LARDER_CONFLICT; /* an outcome is committed and handed on */
    ck_assert_int_eq(writer_run(map, 3, put_then_return, &code), LARDER_CONFLICT);
    ck_assert_str_eq(maps_get(map, "key"), "new");
    maps_whole(map);
}
END_TEST

START_TEST(rounds_of_making_room_are_bounded)
{
    calls = 0;
    for (int i = 0; i < 2000; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "key%d", i);
        ck_assert_int_eq(maps_set(map, key, "value"), LARDER_OK);
    }
    ck_assert_int_eq(writer_run(map, 100, always_full, NULL), LARDER_EFULL);
    ck_assert_uint_ge(calls, 1);
    ck_assert_uint_le(calls, 30);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "full"));
    maps_whole(map);
}
END_TEST

/* Overwrite until a set is refused or that many went well. */
static int churn(unsigned count)
{
    static char value[1500];
    char key[16];
    for (unsigned i = 0; i < count; i++) {
        (void)snprintf(key, sizeof key, "key%u", i % 20000);
        int result = larder_set(map, key, strlen(key), value, sizeof value, NULL);
        if (result != LARDER_OK) {
            return result;
        }
    }
    return LARDER_OK;
}

START_TEST(a_view_that_pins_the_pages_is_named)
{
    larder_view view;
    char pid[32];
    (void)snprintf(pid, sizeof pid, "process %d ", (int)getpid());
    ck_assert_int_eq(churn(20000), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "seen", "value"), LARDER_OK);
    ck_assert_int_eq(larder_borrow(map, "seen", 4, &view), LARDER_OK);
    ck_assert_int_eq(churn(60000), LARDER_EFULL);
    ck_assert_msg(strstr(larder_last_error(), pid) != NULL, "%s", larder_last_error());
    uint64_t entries = maps_stats(map).entries;
    (void)churn(100);
    ck_assert_uint_ge(maps_stats(map).entries + 200, entries); /* and the map was not emptied */
    ck_assert_mem_eq(view.parts[0].iov_base, "value", 5);      /* the view is as it was */
    larder_release(map, &view);
    ck_assert_int_eq(churn(60000), LARDER_OK);
    maps_whole(map);
}
END_TEST

static int borrow_and_die(void *context)
{
    larder_view view;
    (void)context;
    if (larder_borrow(map, "seen", 4, &view) != LARDER_OK) {
        return 1;
    }
    (void)kill(getpid(), SIGKILL);
    return 2;
}

START_TEST(a_dead_readers_pages_are_taken_back)
{
    ck_assert_int_eq(maps_set(map, "seen", "value"), LARDER_OK);
    ck_assert_int_eq(maps_in_child(borrow_and_die, NULL), -SIGKILL);
    ck_assert_int_eq(churn(60000), LARDER_OK);
    maps_whole(map);
}
END_TEST

START_TEST(an_overfull_map_still_deletes)
{
    larder_view view;
    ck_assert_int_eq(churn(20000), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "seen", "value"), LARDER_OK);
    ck_assert_int_eq(larder_borrow(map, "seen", 4, &view), LARDER_OK);
    ck_assert_int_eq(churn(60000), LARDER_EFULL);
    ck_assert_int_ge(maps_delete(map, "seen"), LARDER_OK); /* never refused */
    ck_assert_ptr_null(maps_get(map, "seen"));
    larder_release(map, &view);
    ck_assert_int_eq(churn(200), LARDER_OK);
    ck_assert_ptr_null(maps_get(map, "seen"));
    ck_assert_uint_eq(maps_stats(map).pending, 0);
    maps_whole(map);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("writer");
    TCase *tests = tcase_create("writer");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, open_map, close_map);
    tcase_add_test(tests, an_aborted_write_leaves_nothing);
    tcase_add_test(tests, a_write_inside_a_write_is_refused_not_deadlocked);
    tcase_add_test(tests, a_write_cannot_be_cancelled_inside);
    tcase_add_test(tests, a_writer_killed_at_any_stage_leaves_a_whole_map);
    tcase_add_test(tests, a_ledger_of_another_transaction_is_damage);
    tcase_add_test(tests, an_operation_is_all_or_nothing);
    tcase_add_test(tests, rounds_of_making_room_are_bounded);
    tcase_add_test(tests, a_view_that_pins_the_pages_is_named);
    tcase_add_test(tests, a_dead_readers_pages_are_taken_back);
    tcase_add_test(tests, an_overfull_map_still_deletes);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
