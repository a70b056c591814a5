/* test_combine.c: a small write that waits for the gate is carried out by the gate's holder,
 * exactly once and with the outcome that its caller is told, though the holder is killed or stopped
 * at any stage of it.
 */
#include "combine.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "clock.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"
#include "writer.h"

enum stage { TAKEN, SERVED, COMMITTED, LEFT, ABORTED };
enum { WAIT_MS = 1000 };
enum fate { LIVES, IS_KILLED, IS_STOPPED };

/* Shared by the holder (a child) and the poster (the test). */
struct plan {
    enum stage stage;
    enum fate fate;
    int outcome;                  /* that the holder notes */
    _Atomic uint32_t inside, met; /* the holder is in the gate; has taken a request and acted */
};

static larder *map;
static struct plan *plan;

static void open_map(void)
{
    map = maps_new();
    map->write_wait_ms = WAIT_MS; /* a holder may have to wait for a processor before it serves */
    plan = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(plan != MAP_FAILED);
}

static void close_map(void)
{
    larder_close(&map);
    (void)munmap(plan, sizeof *plan);
}

static bool is_set(void *context)
{
    return atomic_load((_Atomic uint32_t *)context) != 0;
}

/* ---- The holder ------------------------------------------------------------------------------ */

static int serve(struct writer *writer, const struct combine_request *request)
{
    struct key key;
    struct record old;
    int found = key_make(&key, request->key, request->key_size);
    if (found == LARDER_OK) {
        found = entry_find(&writer->transaction, &key, &old);
    }
    if (found < 0) {
        return found;
    }
    const struct record *before = found == LARDER_OK ? &old : NULL;
    if (request->operation == COMBINE_DELETE) {
        return entry_delete(writer, &key, before, request->version);
    }
    struct record record = record_make(request->version, RECORD_VALUE, RECORD_DIRTY, CLOCK_NEVER);
    record.value_size = request->value_size;
    return entry_store(writer, &key, before, &record, request->value);
}

static void meet_fate(void)
{
    atomic_store(&plan->met, 1);
    if (plan->fate != LIVES) {
        (void)kill(getpid(), plan->fate == IS_KILLED ? SIGKILL : SIGSTOP);
    }
}

static int take_one(struct writer *writer)
{
    uint8_t bytes[COMBINE_BYTES];
    struct combine_request request;
    int64_t until = clock_monotonic_ms() + harness_patience(5000);
    while (!combine_take(writer->control, &writer->batch, writer->transaction.store->generation,
                         writer->transaction.number, &request, bytes)) {
        if (clock_monotonic_ms() > until) {
            return 2;
        }
        (void)nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
    if (plan->stage == TAKEN) {
        meet_fate();
    }
    int result = serve(writer, &request);
    combine_note(writer->control, &writer->batch, result < 0 ? result : plan->outcome);
    return result < 0 ? 3 : 0;
}

static int hold(void)
{
    struct writer writer;
    registry_check_fork();
    if (writer_begin(&writer, map, 5000) != LARDER_OK) {
        return 1;
    }
    atomic_store(&plan->inside, 1);
    int result = take_one(&writer);
    if (result != 0) {
        return result;
    }
    if (plan->stage == SERVED) {
        meet_fate();
    }
    if (plan->stage == ABORTED) {
        writer_abort(&writer);
        return 0;
    }
    if (plan->stage == COMMITTED) {
        writer.ledger.transaction = writer.transaction.number;
        ledger_write(writer.transaction.store->life, &writer.ledger);
        if (store_write_commit(&writer.transaction) != LARDER_OK) {
            return 4;
        }
        meet_fate();
        combine_finish(writer.control, &writer.batch, true);
        gate_leave(&writer.control->write_gate);
        combine_wake(writer.control, &writer.batch);
        return 0;
    }
    return writer_commit(&writer) == LARDER_OK ? 0 : 5;
}

static pid_t start_holder(enum stage stage, enum fate fate, int outcome)
{
    *plan = (struct plan){.stage = stage, .fate = fate, .outcome = outcome};
    (void)fflush(NULL);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(hold());
    }
    ck_assert(wait_until(is_set, &plan->inside, 5000));
    return child;
}

static void end_holder(pid_t child, int expected)
{
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, expected);
}

static uint64_t states(enum combine_state wanted)
{
    uint64_t count = 0;
    for (size_t i = 0; i < COMBINE_SLOTS; i++) {
        count += (atomic_load(&maps_control(map)->combine.slots[i].state) & 15) == wanted;
    }
    return count;
}

static void nothing_left(void)
{
    ck_assert_uint_eq(states(COMBINE_FREE), COMBINE_SLOTS);
    ck_assert_uint_eq(atomic_load(&maps_control(map)->combine.posted), 0);
    maps_whole(map);
}

/* ---- Tests ------------------------------------------------------------------------------------
 */

START_TEST(a_set_is_carried_out_by_the_holder)
{
    pid_t child = start_holder(LEFT, LIVES, LARDER_OK);
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    ck_assert_uint_eq(maps_stats(map).combined, 1);
    ck_assert_uint_eq(maps_stats(map).process_sets, 1);
    ck_assert_str_eq(maps_get(map, "key"), "value");
    end_holder(child, 0);
    nothing_left();
}
END_TEST

START_TEST(a_delete_is_told_what_was_there)
{
    for (int outcome = LARDER_OK; outcome <= LARDER_MISS; outcome++) {
        ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
        pid_t child = start_holder(LEFT, LIVES, outcome);
        ck_assert_int_eq(maps_delete(map, "key"), outcome);
        ck_assert_int_eq(maps_has(map, "key"), LARDER_MISS);
        end_holder(child, 0);
    }
    ck_assert_uint_eq(maps_stats(map).combined, 2);
    nothing_left();
}
END_TEST

START_TEST(what_the_holder_aborts_is_done_by_its_poster)
{
    pid_t child = start_holder(ABORTED, LIVES, LARDER_OK);
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "key"), "value");
    ck_assert_uint_eq(maps_stats(map).combined, 0);
    end_holder(child, 0);
    nothing_left();
}
END_TEST

START_TEST(a_killed_holder_loses_and_doubles_nothing)
{
    for (enum stage stage = TAKEN; stage <= COMMITTED; stage++) {
        bool committed = stage == COMMITTED;
        uint64_t combined = maps_stats(map).combined;
        ck_assert_int_eq(maps_set(map, "key", "old"), LARDER_OK);
        pid_t child = start_holder(stage, IS_KILLED, LARDER_OK);
        ck_assert_int_eq(maps_set(map, "key", "new"), LARDER_OK);
        end_holder(child, SIGKILL);
        ck_assert_str_eq(maps_get(map, "key"), "new");
        ck_assert_uint_eq(maps_stats(map).combined - combined, committed ? 1 : 0);
        /* it says MISS where it carried the delete out, which looked for itself would say OK */
        child = start_holder(stage, IS_KILLED, LARDER_MISS);
        ck_assert_int_eq(maps_delete(map, "key"), committed ? LARDER_MISS : LARDER_OK);
        end_holder(child, SIGKILL);
        ck_assert_int_eq(maps_has(map, "key"), LARDER_MISS);
        nothing_left();
    }
    ck_assert_uint_eq(maps_stats(map).generation, 1);
}
END_TEST

START_TEST(a_stopped_holder_is_waited_for_no_longer_and_its_late_write_is_dead)
{
    for (enum stage stage = TAKEN; stage <= COMMITTED; stage++) {
        ck_assert_int_eq(maps_set(map, "key", "old"), LARDER_OK);
        pid_t child = start_holder(stage, IS_STOPPED, LARDER_OK);
        int64_t began = harness_now_ms();
        ck_assert_int_eq(maps_set(map, "key", "new"), LARDER_EBUSY);
        ck_assert_int_le(harness_now_ms() - began, WAIT_MS + harness_patience(1000));
        ck_assert_int_eq(maps_has(map, "key"), LARDER_MISS); /* neither old nor new */
        ck_assert_int_eq(maps_delete(map, "key"), LARDER_OK);
        ck_assert_uint_eq(states(COMBINE_ABANDONED), 1);
        ck_assert_int_eq(kill(child, SIGCONT), 0);
        end_holder(child, 0);
        ck_assert_int_eq(maps_has(map, "key"), LARDER_MISS); /* it was invalidated since */
        ck_assert_int_eq(maps_set(map, "other", "value"), LARDER_OK);
        ck_assert_int_eq(maps_has(map, "key"), LARDER_MISS);
        nothing_left();
    }
}
END_TEST

START_TEST(an_abandoned_request_of_a_holder_that_dies_is_cleared)
{
    pid_t child = start_holder(SERVED, IS_STOPPED, LARDER_OK);
    ck_assert_int_eq(maps_set(map, "key", "new"), LARDER_EBUSY);
    ck_assert_int_eq(kill(child, SIGKILL), 0);
    end_holder(child, SIGKILL);
    ck_assert_int_eq(maps_set(map, "other", "value"), LARDER_OK);
    ck_assert_int_eq(maps_has(map, "key"), LARDER_MISS);
    nothing_left();
}
END_TEST

static struct combine_slot *post(const char *key)
{
    struct control *control = maps_control(map);
    struct combine_request request = {.operation = COMBINE_SET,
                                      .key = key,
                                      .key_size = strlen(key),
                                      .value = "value",
                                      .value_size = 5,
                                      .version = clock_next(control),
                                      .expires_at_ms = CLOCK_NEVER,
                                      .kind = RECORD_VALUE,
                                      .flags = RECORD_DIRTY};
    return combine_post(control, &request);
}

static int post_and_die(void *context)
{
    (void)context;
    registry_check_fork();
    while (post("dead") != NULL) {
    }
    (void)kill(getpid(), SIGKILL);
    return 1;
}

START_TEST(slots_of_the_dead_are_used_again)
{
    struct combine_slot *slots[COMBINE_SLOTS];
    int outcome;
    ck_assert_int_eq(maps_in_child(post_and_die, NULL), -SIGKILL);
    ck_assert_uint_eq(states(COMBINE_POSTED), COMBINE_SLOTS);
    /* at most a batch at once; nobody was told, so they may be done or not */
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    /* they are all of one key: those that come behind a newer one are given back to their poster */
    ck_assert_uint_eq(states(COMBINE_DONE) + states(COMBINE_REFUSED), COMBINE_BATCH);
    ck_assert_uint_ge(states(COMBINE_DONE), 1);
    ck_assert_str_eq(maps_get(map, "dead"), "value");
    for (size_t i = 0; i < COMBINE_SLOTS; i++) {
        slots[i] = post("mine");
        ck_assert_ptr_nonnull(slots[i]);
    }
    ck_assert_ptr_null(post("one too many"));
    for (size_t i = 0; i < COMBINE_SLOTS; i++) {
        ck_assert(combine_withdraw(maps_control(map), slots[i], &outcome));
    }
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    ck_assert_int_eq(maps_has(map, "mine"), LARDER_MISS);
    nothing_left();
}
END_TEST

START_TEST(without_a_free_slot_the_gate_is_waited_for)
{
    struct control *control = maps_control(map);
    for (size_t i = 0; i < COMBINE_SLOTS; i++) { /* by one who lives */
        atomic_store(&control->combine.slots[i].state, (uint32_t)getpid() << 4 | COMBINE_CLAIMED);
    }
    struct maps_holder holder = maps_hold(&control->write_gate);
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_EBUSY);
    maps_let_go(&holder);
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "key"), "value");
    ck_assert_uint_eq(states(COMBINE_CLAIMED), COMBINE_SLOTS);
}
END_TEST

/* Shared memory is input. */
START_TEST(damaged_slots_do_no_harm)
{
    struct control *control = maps_control(map);
    memset(&control->combine, 0xff, sizeof control->combine);
    for (size_t i = 0; i < COMBINE_SLOTS; i++) {
        atomic_store(&control->combine.slots[i].state, (uint32_t)getpid() << 4 | COMBINE_POSTED);
    }
    control->combine.slots[0].key_size = 0;
    control->combine.slots[1].key_size = 3;
    control->combine.slots[1].value_size = COMBINE_BYTES;
    control->combine.slots[2].key_size = 3;
    control->combine.slots[2].value_size = 5;
    control->combine.slots[2].operation = 9;
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    }
    ck_assert_uint_eq(states(COMBINE_REFUSED), COMBINE_SLOTS);
    ck_assert_str_eq(maps_get(map, "key"), "value");
    ck_assert_uint_eq(maps_stats(map).entries, 1);
    maps_whole(map);
}
END_TEST

/* What is written in many at once by one process, and by another meanwhile: versions never go back.
 */
static int overwrite(void *context)
{
    (void)context;
    registry_check_fork();
    char value[32];
    for (unsigned i = 0; i < 20000; i++) {
        int size = snprintf(value, sizeof value, "%d:%u", (int)getpid(), i);
        int result = i % 7 == 0 ? maps_delete(map, "key")
                                : larder_set(map, "key", 3, value, (size_t)size, NULL);
        if (result != LARDER_OK && result != LARDER_MISS) {
            return 1;
        }
    }
    return 0;
}

START_TEST(versions_never_go_back)
{
    enum { WRITERS = 3 };
    pid_t children[WRITERS];
    larder_version newest = {0};
    larder_close(&map);
    larder_options options = {.dir = harness_directory(), .write_wait_ms = 10000};
    ck_assert_int_eq(larder_open("versions", &options, &map), LARDER_OK);
    (void)fflush(NULL);
    for (int i = 0; i < WRITERS; i++) {
        children[i] = fork();
        ck_assert_int_ge(children[i], 0);
        if (children[i] == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            _exit(overwrite(NULL));
        }
    }
    for (int left = WRITERS; left > 0;) {
        char value[32];
        larder_info info;
        int result = larder_get(map, "key", 3, value, sizeof value, &info);
        if (result == LARDER_OK) {
            ck_assert_int_ge(clock_compare(info.version, newest), 0);
            newest = info.version;
        } else {
            ck_assert_int_eq(result, LARDER_MISS);
        }
        int status;
        if (waitpid(-1, &status, WNOHANG) > 0) {
            ck_assert_int_eq(status, 0);
            left--;
        }
    }
    ck_assert_uint_gt(maps_stats(map).combined, 0);
    nothing_left();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("combine");
    TCase *tests = tcase_create("combine");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, open_map, close_map);
    tcase_add_test(tests, a_set_is_carried_out_by_the_holder);
    tcase_add_test(tests, a_delete_is_told_what_was_there);
    tcase_add_test(tests, what_the_holder_aborts_is_done_by_its_poster);
    tcase_add_test(tests, a_killed_holder_loses_and_doubles_nothing);
    tcase_add_test(tests, a_stopped_holder_is_waited_for_no_longer_and_its_late_write_is_dead);
    tcase_add_test(tests, an_abandoned_request_of_a_holder_that_dies_is_cleared);
    tcase_add_test(tests, slots_of_the_dead_are_used_again);
    tcase_add_test(tests, without_a_free_slot_the_gate_is_waited_for);
    tcase_add_test(tests, damaged_slots_do_no_harm);
    tcase_add_test(tests, versions_never_go_back);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
