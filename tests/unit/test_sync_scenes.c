/* test_sync_scenes.c: one protocol machine, told step by step what happens: the scenes in which a
 * seed of the simulated fleet (tests/sim) once showed it to be wrong.
 */
#include "tests/harness.h"

#include <string.h>

#include "daemon/sync/sync.h"

static struct sync *machine;
static int64_t now_ms;
static sync_action_list done; /* all that the machine asked for since expect_nothing() */

static int64_t verify_ms;             /* of begin() */
static int64_t wall_step_ms;          /* that this host's clock has been set by */
static uint64_t set_of_marks;         /* Redis's */
static uint64_t set_known, set_found; /* by the map, and by the first join of begin() */
static replica_position stored_place;
static bool floors_told; /* to it */
static bool walked;      /* all that the map knows was read */

static bool answer_by_itself(const sync_action *action);

static void give(sync_event event)
{
    sync_action_list actions;
    event.now_ms = now_ms;
    event.wall_ms = now_ms + wall_step_ms;
    sync_step(machine, &event, &actions);
    for (size_t i = 0; i < actions.count; i++) {
        ck_assert_uint_lt(done.count, SYNC_ACTIONS_MAX);
        if (!answer_by_itself(&actions.items[i]))
            done.items[done.count++] = actions.items[i];
    }
}

/* There are no marks, here or in Redis; and the place in the stream is stored at once. */
static bool answer_by_itself(const sync_action *action)
{
    static const replica_marks none = {.end = true};
    switch (action->kind) {
    case SYNC_ACT_MARKS:
        floors_told = floors_told || action->marks.floors;
        walked = walked || action->marks.all;
        give((sync_event){.kind = SYNC_EV_MARKS, .marks = &none});
        return true;
    case SYNC_ACT_MARK:
        give((sync_event){.kind = SYNC_EV_MARKED, .marked = {SYNC_STORED, set_of_marks}});
        return true;
    case SYNC_ACT_MARKS_TOLD:
        give((sync_event){.kind = SYNC_EV_MARKS_TOLD});
        return true;
    case SYNC_ACT_APPLY:
        if (action->apply.count != 0)
            return false;
        stored_place = *action->apply.position;
        give((sync_event){.kind = SYNC_EV_APPLIED});
        return true;
    case SYNC_ACT_MARK_PAGE:
        give((sync_event){.kind = SYNC_EV_MARK_PAGE, .mark_page = {.last = true}});
        return true;
    default:
        return false;
    }
}

static const sync_action *asked_for(enum sync_action_kind kind)
{
    for (size_t i = 0; i < done.count; i++)
        if (done.items[i].kind == kind)
            return &done.items[i];
    return NULL;
}

static void give_rows(const replica_record *records, size_t count)
{
    replica_batch rows = {.records = (replica_record *)(uintptr_t)records,
                          .count = count,
                          .next_row = count == 0 ? 100 : records[count - 1].row + 1,
                          .end = true};
    give((sync_event){.kind = SYNC_EV_ROWS, .rows = &rows});
}

/* Of all that is read now; nothing is there. */
static bool is_read(uint64_t row)
{
    bool found = false;
    for (int turn = 0; turn < 8 && !found; turn++) {
        for (size_t i = 0; i < done.count; i++)
            found = found ||
                    (done.items[i].kind == SYNC_ACT_READ && done.items[i].read.from_row == row);
        if (asked_for(SYNC_ACT_READ) == NULL)
            break;
        const sync_action *apply = asked_for(SYNC_ACT_APPLY);
        sync_action kept = apply == NULL ? (sync_action){.kind = SYNC_ACT_ARM} : *apply;
        done.items[0] = kept;
        done.count = 1;
        give_rows(NULL, 0);
    }
    return found;
}

/* A machine that is up, in step with an empty stream, and asleep. */
static void begin_keeping(int64_t keep_ms)
{
    replica_position nowhere = {.epoch = 7, .run_id = "run", .marks_id = set_known};
    sync_settings settings = {.batch_commands = 8,
                              .batch_bytes = 65536,
                              .batches_in_flight = 2,
                              .retry_entries = 8,
                              .linger_ms = 2,
                              .backoff_min_ms = 10,
                              .backoff_max_ms = 20,
                              .park_ms = 100,
                              .retry_max_ms = 100,
                              .heartbeat_ms = 1000000,
                              .breaker_failures = 3,
                              .breaker_open_ms = 10,
                              .page = 8,
                              .max_value = 1000,
                              .keep_ms = keep_ms,
                              .verify_ms = verify_ms,
                              .random_seed = harness_seed()};
    now_ms = 1000;
    done.count = 0;
    floors_told = false;
    machine = sync_create(&settings);
    ck_assert_ptr_nonnull(machine);
    give((sync_event){.kind = SYNC_EV_START, .position = &nowhere});
    give((sync_event){.kind = SYNC_EV_CONNECTED, .run_id = "run"});
    give((sync_event){
        .kind = SYNC_EV_JOINED,
        .joined = {.epoch = 7, .cursor_found = true, .redis_ms = now_ms, .marks_id = set_found}});
    for (int i = 0; i < 4; i++) {
        give_rows(NULL, 0);
        now_ms += 2;
        give((sync_event){.kind = SYNC_EV_TICK});
    }
    ck_assert_ptr_nonnull(asked_for(SYNC_ACT_ARM));
    done.count = 0;
}

static void begin(void)
{
    set_of_marks = 1;
    set_known = set_found = 0;
    begin_keeping(0);
}

static void begin_with_sets(uint64_t known, uint64_t found)
{
    set_known = known;
    set_found = set_of_marks = found;
    begin_keeping(0);
}

static void end(void)
{
    sync_destroy(&machine);
}

static void join(uint64_t marks_id, uint64_t last_number)
{
    give((sync_event){.kind = SYNC_EV_JOINED,
                      .joined = {.epoch = 7,
                                 .last_number = last_number,
                                 .cursor_found = true,
                                 .redis_ms = now_ms,
                                 .marks_id = marks_id}});
}

static void connect_to_another(void)
{
    give((sync_event){.kind = SYNC_EV_DISCONNECTED, .cause = SYNC_LOST_CONNECTION});
    now_ms += 1000;
    give((sync_event){.kind = SYNC_EV_TICK});
    give((sync_event){.kind = SYNC_EV_CONNECTED, .run_id = "another"});
    done.count = 0;
    walked = false;
}

static void join_another(uint64_t marks_id)
{
    connect_to_another();
    join(marks_id, 0);
}

static sync_change change_of(uint64_t clock, uint64_t hash, uint64_t size)
{
    return (sync_change){.epoch = 7,
                         .emitter = 1,
                         .numbered = true,
                         .value_missing = true,
                         .full_size = size,
                         .record = {.version = {.clock = clock, .node = 9},
                                    .kind = REPLICA_VALUE,
                                    .value_hash = hash,
                                    .expires_at_ms = INT64_MAX,
                                    .key = (const uint8_t *)"key",
                                    .key_size = 3}};
}

/* An event whose value is not with it; the map holds nothing of the key, and is told so. */
static void hear(uint64_t number, const sync_change *change)
{
    sync_change numbered = *change;
    numbered.number = number;
    give((sync_event){.kind = SYNC_EV_STREAM, .change = &numbered});
    give((sync_event){.kind = SYNC_EV_IDLE});
    const sync_action *apply = asked_for(SYNC_ACT_APPLY);
    ck_assert_ptr_nonnull(apply);
    ck_assert_uint_eq(apply->apply.count, 1);
    apply->apply.events[0].verdict = REPLICA_REFUSED;
    give((sync_event){.kind = SYNC_EV_APPLIED});
}

/* The first event, of a value that is fetched. */
static uint64_t hear_and_fetch(const sync_change *change)
{
    hear(1, change);
    const sync_action *fetch = asked_for(SYNC_ACT_FETCH);
    ck_assert_ptr_nonnull(fetch);
    return fetch->fetch.id;
}

START_TEST(a_fetch_that_an_event_overtook_brings_nothing)
{
    sync_change first = change_of(10, 1, 500), second = change_of(20, 2, 5000);
    uint64_t id = hear_and_fetch(&first);
    done.count = 0;
    hear(2, &second); /* too large to be fetched: the key stays a miss */
    ck_assert_ptr_null(asked_for(SYNC_ACT_FETCH));
    done.count = 0;

    first.value_missing = false;
    first.record.value = (const uint8_t *)"old";
    first.record.value_size = 3;
    give((sync_event){.kind = SYNC_EV_FETCHED, .fetched = {.id = id, .change = &first}});
    give((sync_event){.kind = SYNC_EV_IDLE});
    ck_assert_ptr_null(asked_for(SYNC_ACT_APPLY));
}
END_TEST

static uint64_t fetch_of(uint64_t after_ms)
{
    now_ms += (int64_t)after_ms;
    done.count = 0;
    give((sync_event){.kind = SYNC_EV_TICK});
    const sync_action *fetch = asked_for(SYNC_ACT_FETCH);
    return fetch == NULL ? 0 : fetch->fetch.id;
}

/* Redis has come back empty, say, and whoever told of the value has not pushed it yet. */
START_TEST(a_value_that_is_not_there_yet_is_fetched_again)
{
    sync_change change = change_of(10, 1, 500);
    uint64_t id = hear_and_fetch(&change);
    for (uint64_t pause = 250; pause <= 8000; pause *= 2) {
        give((sync_event){.kind = SYNC_EV_FETCHED, .fetched = {.id = id}});
        ck_assert_int_eq(sync_deadline(machine) <= now_ms + (int64_t)pause, true);
        ck_assert_uint_eq(fetch_of(pause - 1), 0);
        ck_assert_uint_eq(fetch_of(1), id);
    }
    change.value_missing = false;
    change.record.value = (const uint8_t *)"new";
    change.record.value_size = 3;
    give((sync_event){.kind = SYNC_EV_FETCHED, .fetched = {.id = id, .change = &change}});
    give((sync_event){.kind = SYNC_EV_IDLE});
    ck_assert_ptr_nonnull(asked_for(SYNC_ACT_APPLY));
}
END_TEST

START_TEST(a_value_that_does_not_come_is_given_up)
{
    sync_change change = change_of(10, 1, 500);
    uint64_t id = hear_and_fetch(&change);
    sync_view view;
    for (int i = 0; i < 7; i++) {
        ck_assert_uint_ne(id, 0);
        give((sync_event){.kind = SYNC_EV_FETCHED, .fetched = {.id = id}});
        id = fetch_of(UINT64_C(250) << i);
    }
    ck_assert_uint_eq(id, 0);
    sync_look(machine, &view);
    ck_assert_uint_eq(view.counters.fetches_dropped, 1);
}
END_TEST

START_TEST(a_value_that_an_event_overtook_is_not_fetched_again)
{
    sync_change first = change_of(10, 1, 500), second = change_of(20, 2, 5000);
    uint64_t id = hear_and_fetch(&first);
    hear(2, &second); /* too large to be fetched */
    give((sync_event){.kind = SYNC_EV_FETCHED, .fetched = {.id = id}});
    ck_assert_uint_eq(fetch_of(60000), 0);
}
END_TEST

START_TEST(what_was_not_there_is_looked_for_anew_in_the_next_session)
{
    sync_change change = change_of(10, 1, 500);
    uint64_t id = hear_and_fetch(&change);
    for (int i = 0; i < 6; i++) {
        give((sync_event){.kind = SYNC_EV_FETCHED, .fetched = {.id = id}});
        ck_assert_uint_eq(fetch_of(UINT64_C(250) << i), id);
    }
    connect_to_another();
    join(0, 1);
    ck_assert_ptr_nonnull(asked_for(SYNC_ACT_FETCH));
    give((sync_event){.kind = SYNC_EV_FETCHED, .fetched = {.id = id}});
    ck_assert_uint_eq(fetch_of(250), id);
}
END_TEST

static replica_record record_of_row(uint64_t row, enum replica_kind kind)
{
    return (replica_record){.version = {.clock = 5, .node = 3},
                            .kind = kind,
                            .value_hash = kind == REPLICA_VALUE ? 5 : 0,
                            .row = row,
                            .expires_at_ms = INT64_MAX,
                            .key = (const uint8_t *)"key",
                            .key_size = 3,
                            .value = (const uint8_t *)"ours",
                            .value_size = kind == REPLICA_VALUE ? 4 : 0};
}

/* A worker writes; the entry is on its way. */
static struct sync_batch *push_one(const replica_record *record)
{
    give((sync_event){.kind = SYNC_EV_WAKE});
    ck_assert_ptr_nonnull(asked_for(SYNC_ACT_READ));
    give_rows(record, 1);
    const sync_action *push = asked_for(SYNC_ACT_PUSH);
    ck_assert_ptr_nonnull(push);
    return push->push.batch;
}

/* ---- How long the next writes are gathered ----------------------------------------------------
 */

static const replica_record two_rows[] = {{.version = {.clock = 5, .node = 3},
                                           .kind = REPLICA_DELETED,
                                           .row = 4,
                                           .key = (const uint8_t *)"a",
                                           .key_size = 1},
                                          {.version = {.clock = 6, .node = 3},
                                           .kind = REPLICA_DELETED,
                                           .row = 5,
                                           .key = (const uint8_t *)"b",
                                           .key_size = 1}};

/* So many of them are written, pushed, answered a millisecond later, and acknowledged: how many the
 * map has found as they were. */
static void round_trip_of(size_t count, size_t cleared)
{
    give((sync_event){.kind = SYNC_EV_WAKE});
    give_rows(two_rows, count);
    ck_assert_ptr_nonnull(asked_for(SYNC_ACT_PUSH));
    struct sync_batch *batch = asked_for(SYNC_ACT_PUSH)->push.batch;
    now_ms++;
    done.count = 0;
    for (size_t i = 0; i < count; i++)
        give((sync_event){.kind = SYNC_EV_REPLY,
                          .reply = {.batch = batch, .index = i, .outcome = SYNC_STORED}});
    ck_assert_ptr_nonnull(asked_for(SYNC_ACT_ACKNOWLEDGE));
    ck_assert_ptr_null(asked_for(SYNC_ACT_READ));
    give((sync_event){.kind = SYNC_EV_ACKNOWLEDGED, .acknowledged = {batch, cleared}});
}

/* The linger, which is 2, began when the rows were read. */
static void the_log_is_read_after_the_linger(int64_t left_ms)
{
    ck_assert_ptr_null(asked_for(SYNC_ACT_READ));
    ck_assert_int_eq(sync_deadline(machine), now_ms + left_ms);
    now_ms += left_ms;
    give((sync_event){.kind = SYNC_EV_TICK});
    ck_assert_ptr_nonnull(asked_for(SYNC_ACT_READ));
}

START_TEST(after_a_lone_write_the_log_is_read_when_its_round_trip_is_over)
{
    round_trip_of(1, 1);
    ck_assert_ptr_nonnull(asked_for(SYNC_ACT_READ));
}
END_TEST

START_TEST(the_next_writes_are_gathered_where_several_came)
{
    round_trip_of(2, 2);
    the_log_is_read_after_the_linger(1);
}
END_TEST

START_TEST(a_round_trip_that_takes_long_is_not_waited_for)
{
    (void)push_one(&two_rows[0]);
    done.count = 0;
    the_log_is_read_after_the_linger(2);
    give_rows(&two_rows[1], 1);
    ck_assert_ptr_nonnull(asked_for(SYNC_ACT_PUSH)); /* beside the other one */
}
END_TEST

START_TEST(a_key_that_is_written_all_the_time_goes_once_a_linger)
{
    round_trip_of(1, 0); /* written again on its way */
    the_log_is_read_after_the_linger(1);
}
END_TEST

START_TEST(a_row_that_lost_is_not_pushed_again_before_the_winner_could_be_applied)
{
    replica_record ours = record_of_row(4, REPLICA_VALUE);
    sync_change winner = change_of(10, 1, 500);
    winner.numbered = false;
    struct sync_batch *batch = push_one(&ours);
    give((sync_event){.kind = SYNC_EV_REPLY,
                      .reply = {.batch = batch, .outcome = SYNC_OLD, .winner = &winner}});
    give((sync_event){.kind = SYNC_EV_IDLE});
    give_rows(NULL, 0); /* of the log */
    ck_assert_ptr_nonnull(asked_for(SYNC_ACT_APPLY));
    give((sync_event){.kind = SYNC_EV_APPLIED, .status = LARDER_EBUSY});
    done.count = 0;

    now_ms += 10; /* the linger is over, the map's pause is not */
    give((sync_event){.kind = SYNC_EV_TICK});
    ck_assert_msg(!is_read(ours.row), "its row is read at once");
    ck_assert_int_gt(sync_deadline(machine), now_ms);
    now_ms += 100;
    give((sync_event){.kind = SYNC_EV_TICK});
    ck_assert_ptr_nonnull(asked_for(SYNC_ACT_APPLY));
    give((sync_event){.kind = SYNC_EV_APPLIED});
    ck_assert_msg(is_read(ours.row), "its row is read now");
}
END_TEST

/* A snapshot that somebody holds pins a full map. */
START_TEST(what_the_map_has_no_room_to_note_waits_and_is_not_sent_again)
{
    enum { TURNS = 20 };
    replica_record ours = record_of_row(4, REPLICA_VALUE);
    sync_view view;
    size_t tried = 0;
    struct sync_batch *batch = push_one(&ours);
    done.count = 0;
    give((sync_event){.kind = SYNC_EV_REPLY, .reply = {.batch = batch, .outcome = SYNC_STORED}});
    for (int turn = 0; turn < TURNS; turn++) {
        sync_action_list now = done;
        done.count = 0;
        for (size_t i = 0; i < now.count; i++) {
            ck_assert_int_ne(now.items[i].kind, SYNC_ACT_PUSH);
            if (now.items[i].kind == SYNC_ACT_READ) {
                give_rows(NULL, 0);
            } else if (now.items[i].kind == SYNC_ACT_ACKNOWLEDGE) {
                ck_assert_ptr_eq(now.items[i].acknowledge.batch, batch);
                give((sync_event){.kind = SYNC_EV_ACKNOWLEDGED,
                                  .status = LARDER_EFULL,
                                  .acknowledged = {.batch = batch}});
                tried++;
            }
        }
        sync_look(machine, &view);
        ck_assert_uint_eq(view.unacknowledged, 1);
        ck_assert(!view.drained);
        now_ms += 100;
        give((sync_event){.kind = SYNC_EV_TICK});
    }
    ck_assert_uint_ge(tried, 2); /* every half second */
    ck_assert_uint_lt(tried, TURNS / 2);
    while (asked_for(SYNC_ACT_ACKNOWLEDGE) == NULL) {
        now_ms += 100;
        give((sync_event){.kind = SYNC_EV_TICK});
    }
    give(
        (sync_event){.kind = SYNC_EV_ACKNOWLEDGED, .acknowledged = {.batch = batch, .cleared = 1}});
    sync_look(machine, &view);
    ck_assert_uint_eq(view.unacknowledged, 0);
    ck_assert_uint_eq(view.counters.acknowledged, 1);
}
END_TEST

/* A row that bore a deletion when Redis had no memory for it. */
START_TEST(a_value_never_passes_for_a_removal)
{
    replica_record ours = record_of_row(4, REPLICA_DELETED);
    struct sync_batch *batch = push_one(&ours);
    done.count = 0;
    give((sync_event){.kind = SYNC_EV_REPLY, .reply = {.batch = batch, .outcome = SYNC_NO_MEMORY}});
    const sync_action *read = asked_for(SYNC_ACT_READ);
    ck_assert(read != NULL && read->read.from_row == ours.row);
    replica_record written = record_of_row(4, REPLICA_VALUE);
    give_rows(&written, 1);
    const sync_action *push = asked_for(SYNC_ACT_PUSH);
    ck_assert_ptr_nonnull(push);
    ck_assert(!push->push.items[0].remove);
}
END_TEST

/* ---- More is refused than the retry set holds --------------------------------------------------
 */

enum { REFUSED_ROWS = 24, FIRST_ROW = 100 }; /* the set holds 8 */

static struct {
    replica_record rows[REFUSED_ROWS];
    size_t count;
    bool has_memory, stored[REFUSED_ROWS], removed[REFUSED_ROWS];
    uint64_t fatal;    /* the connection ends over this row, where it is not 0 */
    unsigned sessions; /* that ended so */
} refusing;

static void write_untold(enum replica_kind kind)
{
    refusing.rows[refusing.count] = record_of_row(FIRST_ROW + refusing.count, kind);
    refusing.count++;
}

static void write_row(enum replica_kind kind)
{
    write_untold(kind);
    give((sync_event){.kind = SYNC_EV_WAKE});
}

static void read_dirty(const sync_action *read)
{
    replica_record found[REFUSED_ROWS];
    replica_batch rows = {.records = found, .next_row = FIRST_ROW + refusing.count, .end = true};
    for (size_t i = 0; i < refusing.count && rows.end; i++) {
        if (refusing.rows[i].row < read->read.from_row || refusing.stored[i])
            continue;
        found[rows.count++] = refusing.rows[i];
        if (rows.count == read->read.max_records) {
            rows.next_row = refusing.rows[i].row + 1;
            rows.end = false;
        }
    }
    give((sync_event){.kind = SYNC_EV_ROWS, .rows = &rows});
}

/* Up to the row that ends it; nothing of it is waited for any more. */
static void end_session(void)
{
    refusing.sessions++;
    give((sync_event){.kind = SYNC_EV_DISCONNECTED, .cause = SYNC_LOST_CONNECTION});
    now_ms += 1000;
    done.count = 0;
    give((sync_event){.kind = SYNC_EV_TICK});
    give((sync_event){.kind = SYNC_EV_CONNECTED, .run_id = "run"});
    done.count = 0;
    join(0, 0);
}

/* false: the session is over. */
static bool answer_push(const sync_action *push)
{
    size_t count = push->push.count;
    uint64_t row[REFUSED_ROWS];
    bool remove[REFUSED_ROWS];
    for (size_t i = 0; i < count; i++) { /* the last answer may end the batch */
        row[i] = push->push.items[i].row - FIRST_ROW;
        remove[i] = push->push.items[i].remove;
    }
    for (size_t i = 0; i < count; i++) {
        if (refusing.fatal != 0 && row[i] == refusing.fatal - FIRST_ROW) {
            end_session();
            return false;
        }
        bool stored = refusing.has_memory && !remove[i];
        refusing.stored[row[i]] |= stored;
        refusing.removed[row[i]] |= remove[i];
        give((sync_event){.kind = SYNC_EV_REPLY,
                          .reply = {.batch = push->push.batch,
                                    .index = i,
                                    .outcome = stored      ? SYNC_STORED
                                               : remove[i] ? SYNC_REMOVED
                                                           : SYNC_NO_MEMORY}});
    }
    return true;
}

static void play(int turns)
{
    for (int turn = 0; turn < turns; turn++) {
        sync_action_list now = done;
        done.count = 0;
        for (size_t i = 0; i < now.count; i++) {
            if (now.items[i].kind == SYNC_ACT_READ)
                read_dirty(&now.items[i]);
            else if (now.items[i].kind == SYNC_ACT_PUSH && !answer_push(&now.items[i]))
                break;
            else if (now.items[i].kind == SYNC_ACT_ACKNOWLEDGE)
                give((sync_event){.kind = SYNC_EV_ACKNOWLEDGED,
                                  .acknowledged = {now.items[i].acknowledge.batch,
                                                   now.items[i].acknowledge.count}});
        }
        now_ms++;
        give((sync_event){.kind = SYNC_EV_TICK});
    }
}

START_TEST(what_finds_no_place_among_the_refused_holds_up_nothing)
{
    sync_view view;
    memset(&refusing, 0, sizeof refusing);
    for (int i = 0; i < 16; i++)
        write_row(REPLICA_VALUE);
    play(20);
    sync_look(machine, &view);
    ck_assert_uint_eq(view.retry_entries, 8);
    ck_assert_uint_eq(view.left_entries, 8);
    write_row(REPLICA_DELETED);
    write_row(REPLICA_DELETED);
    play(6);
    ck_assert_msg(refusing.removed[16] && refusing.removed[17], "deletions wait for a place");
    refusing.has_memory = true;
    play(400);
    for (size_t i = 0; i < refusing.count; i++)
        ck_assert_msg(refusing.stored[i], "row %zu is forgotten", i);
    sync_look(machine, &view);
    ck_assert_uint_eq(view.retry_entries, 0);
    ck_assert_uint_eq(view.left_entries, 0);
}
END_TEST

/* Something before Redis closes the connection of who sends it, without a word. */
START_TEST(a_row_that_ends_sessions_holds_up_nothing)
{
    enum { FATAL = 3, ROWS = 16 };
    sync_view view;
    memset(&refusing, 0, sizeof refusing);
    refusing.has_memory = true;
    refusing.fatal = FIRST_ROW + FATAL;
    for (int i = 0; i < ROWS; i++)
        write_row(REPLICA_VALUE);
    play(40);
    for (size_t i = 0; i < ROWS; i++)
        ck_assert_msg(refusing.stored[i] == (i != FATAL), "row %zu after %u sessions", i,
                      refusing.sessions);
    sync_look(machine, &view);
    ck_assert_uint_eq(view.retry_entries, 1);
    unsigned found_out = refusing.sessions;
    now_ms += 100; /* the longest pause of a row that is refused */
    play(100);
    ck_assert_uint_gt(refusing.sessions, found_out); /* it is tried again, now and then */
    write_row(REPLICA_VALUE);
    play(40);
    ck_assert(refusing.stored[ROWS]);
    refusing.fatal = 0;
    now_ms += 100;
    play(100);
    ck_assert(refusing.stored[FATAL]);
}
END_TEST

/* Its worker died before the wake-up; the number of dirty entries tells of nothing now. */
START_TEST(what_nobody_told_of_goes_with_what_found_no_place)
{
    memset(&refusing, 0, sizeof refusing);
    for (int i = 0; i < 16; i++)
        write_row(REPLICA_VALUE);
    play(20);
    write_untold(REPLICA_DELETED);
    play(200);
    ck_assert_msg(refusing.removed[16], "nobody finds the deletion");
}
END_TEST

/* ---- History lost again and again -------------------------------------------------------------
 */

static uint64_t epoch;

/* Somebody has begun a new epoch: the stream was gone. */
static void lose_history(void)
{
    sync_change begun = {.epoch = ++epoch, .emitter = 1, .numbered = true, .begin = true};
    give((sync_event){.kind = SYNC_EV_STREAM, .change = &begun});
    ck_assert_ptr_nonnull(asked_for(SYNC_ACT_JOIN));
    done.count = 0;
    give((sync_event){.kind = SYNC_EV_JOINED,
                      .joined = {.epoch = epoch, .redis_ms = now_ms, .marks_id = set_found}});
}

/* Answer all reads, of an empty map, for a while. Were clean entries among them? */
static bool compares(void)
{
    bool clean = false;
    for (int turn = 0; turn < 20; turn++) {
        bool reads = false;
        for (size_t i = 0; i < done.count; i++) {
            reads = reads || done.items[i].kind == SYNC_ACT_READ;
            clean =
                clean || (done.items[i].kind == SYNC_ACT_READ && done.items[i].read.include_clean);
        }
        done.count = 0;
        if (reads)
            give_rows(NULL, 0);
        now_ms++;
        give((sync_event){.kind = SYNC_EV_TICK});
    }
    return clean;
}

static bool compares_after(int64_t pause_ms)
{
    now_ms += pause_ms - 60; /* what compares() takes, and a little more */
    give((sync_event){.kind = SYNC_EV_TICK});
    bool early = compares();
    now_ms += 60;
    give((sync_event){.kind = SYNC_EV_TICK});
    return !early && compares();
}

START_TEST(history_that_is_lost_all_the_time_is_compared_now_and_then)
{
    epoch = 7;
    for (unsigned i = 0; i < SYNC_RESYNCS_AT_ONCE; i++) {
        lose_history();
        ck_assert_msg(compares(), "the %u. comparison waits", i + 1);
    }
    lose_history();
    ck_assert(!compares());
    give((sync_event){.kind = SYNC_EV_WAKE}); /* what is written now does not wait */
    ck_assert_ptr_nonnull(asked_for(SYNC_ACT_READ));
    ck_assert(!compares());
    ck_assert(sync_deadline(machine) <= now_ms + 1000);
    ck_assert(compares_after(960));
    lose_history();
    ck_assert(!compares());
    now_ms += 900;
    lose_history(); /* and the comparison does not wait longer for that */
    ck_assert(!compares());
    ck_assert(compares_after(1060));
    for (int i = 0; i < 4; i++) {
        lose_history();
        ck_assert(compares_after(4000));
    }
    now_ms += 60000;
    lose_history();
    ck_assert_msg(compares(), "a quiet minute later a comparison waits");
}
END_TEST

/* Events of a stream that is gone, in the place of which another of the same epoch stands. */
START_TEST(what_is_not_in_the_stream_is_not_asked_for_again_and_again)
{
    sync_change change = change_of(10, 1, 500);
    change.number = 5;
    give((sync_event){.kind = SYNC_EV_STREAM, .change = &change});
    for (int turn = 0; turn < 3; turn++) {
        if (asked_for(SYNC_ACT_RANGE) == NULL)
            return; /* it is content */
        done.count = 0;
        give((sync_event){.kind = SYNC_EV_RANGE});
        ck_assert_ptr_nonnull(asked_for(SYNC_ACT_JOIN));
        give((sync_event){.kind = SYNC_EV_JOINED,
                          .joined = {.epoch = 7, .cursor_found = true, .redis_ms = now_ms}});
    }
    ck_abort_msg("it asks for ever");
}
END_TEST

/* Answer what is asked for: Redis has no memory for that row. */
static void refuse_again(const replica_record *ours, const struct sync_batch *first)
{
    sync_action_list now = done;
    bool of_ours = false;
    done.count = 0;
    for (size_t i = 0; i < now.count; i++)
        if (now.items[i].kind == SYNC_ACT_PUSH && now.items[i].push.batch != first)
            give((sync_event){.kind = SYNC_EV_REPLY,
                              .reply = {.batch = now.items[i].push.batch,
                                        .outcome = now.items[i].push.items[0].remove
                                                       ? SYNC_REMOVED
                                                       : SYNC_NO_MEMORY}});
    for (size_t i = 0; i < now.count; i++)
        of_ours = of_ours ||
                  (now.items[i].kind == SYNC_ACT_READ && now.items[i].read.from_row == ours->row);
    give_rows(ours, of_ours ? 1 : 0);
}

/* What Redis had once and has no memory for now: only the machine knows that it lacks it. */
START_TEST(a_resync_is_not_over_before_redis_had_memory_for_all_of_it)
{
    replica_record ours = record_of_row(4, REPLICA_DELETED);
    sync_view view;
    join_another(0);
    give_rows(&ours, 1); /* tombstones first */
    struct sync_batch *batch = asked_for(SYNC_ACT_PUSH)->push.batch;
    give((sync_event){.kind = SYNC_EV_REPLY, .reply = {.batch = batch, .outcome = SYNC_NO_MEMORY}});
    for (int turn = 0; turn < 8; turn++) {
        refuse_again(&ours, batch);
        now_ms += 10;
        give((sync_event){.kind = SYNC_EV_TICK});
    }
    sync_look(machine, &view);
    ck_assert_uint_eq(view.retry_entries, 1);
    ck_assert(view.resyncing);
    while (asked_for(SYNC_ACT_READ) != NULL || asked_for(SYNC_ACT_PUSH) != NULL) /* to its rest */
        refuse_again(&ours, batch);
    /* that one may be clean, and what is dirty another, that nobody told of */
    done.count = 0;
    give((sync_event){.kind = SYNC_EV_RECHECK, .entries = 1});
    ck_assert_ptr_nonnull(asked_for(SYNC_ACT_READ));
}
END_TEST

/* The rolling comparison asks all the time, and what is asked about says nothing of what is dirty.
 */
START_TEST(what_nobody_told_of_is_looked_for_while_records_are_compared)
{
    replica_record ours = record_of_row(4, REPLICA_VALUE);
    end();
    verify_ms = 500;
    begin();
    verify_ms = 0;
    now_ms += 1000;
    give((sync_event){.kind = SYNC_EV_TICK});
    give_rows(&ours, 1);
    ck_assert_ptr_nonnull(asked_for(SYNC_ACT_COMPARE));
    done.count = 0;
    give((sync_event){.kind = SYNC_EV_RECHECK, .entries = 1});
    const sync_action *read = asked_for(SYNC_ACT_READ);
    ck_assert_ptr_nonnull(read);
    ck_assert(read->read.from_row == 0 && !read->read.include_clean);
}
END_TEST

/* So does what Redis refuses: with many of those one is always under way. */
START_TEST(what_nobody_told_of_is_looked_for_while_a_refused_row_is_tried_again)
{
    replica_record ours = record_of_row(4, REPLICA_VALUE);
    struct sync_batch *batch = push_one(&ours);
    give((sync_event){.kind = SYNC_EV_REPLY,
                      .reply = {.batch = batch, .outcome = SYNC_REFUSED_KEY}});
    for (int i = 0; i < 4; i++) { /* the log to its end, before the row's time has come */
        give_rows(NULL, 0);
        now_ms++;
        give((sync_event){.kind = SYNC_EV_TICK});
    }
    done.count = 0;
    now_ms += 100;
    give((sync_event){.kind = SYNC_EV_TICK});
    const sync_action *read = asked_for(SYNC_ACT_READ);
    ck_assert(read != NULL && read->read.from_row == ours.row);
    give((sync_event){.kind = SYNC_EV_RECHECK, .entries = 2});
    done.count = 0;
    give_rows(&ours, 1);
    ck_assert_ptr_nonnull(asked_for(SYNC_ACT_PUSH));
    read = asked_for(SYNC_ACT_READ);
    ck_assert(read != NULL && read->read.from_row == 0);
}
END_TEST

/* It bears the version of what it removed, and the server that took it is lost. */
START_TEST(an_old_removal_that_was_told_lately_is_pushed_again)
{
    replica_record ours = record_of_row(4, REPLICA_DELETED);
    for (int told = 0; told < 2; told++) {
        end();
        done.count = 0;
        begin_keeping(10000);
        now_ms += 20000;
        join_another(1);
        ours.acked_ms = told ? now_ms - 500 : 0;
        ck_assert_ptr_nonnull(asked_for(SYNC_ACT_READ));
        give_rows(&ours, 1);
        ck_assert_int_eq(asked_for(SYNC_ACT_PUSH) != NULL, told);
    }
}
END_TEST

START_TEST(a_set_of_marks_that_is_lost_in_an_exchange_is_told_the_floors)
{
    end();
    begin_with_sets(1, 1);
    ck_assert(!floors_told); /* it is the one that was known */
    set_of_marks = 2;        /* lost right after the join has seen it */
    join_another(1);
    ck_assert_ptr_nonnull(asked_for(SYNC_ACT_JOIN));
    floors_told = false;
    join(2, 0);
    ck_assert(floors_told);
}
END_TEST

/* Which set has all that this map had told is stored with the map: a larderd that has just begun
 * knows whether this is that one. And another server may lack the last of what it was told. */
START_TEST(a_set_of_marks_that_is_another_is_told_the_floors)
{
    end();
    begin_with_sets(0, 1);
    ck_assert(!floors_told); /* of a map that never told any */
    end();
    begin_with_sets(1, 2);
    ck_assert(floors_told);
    end();
    begin_with_sets(1, 1);
    ck_assert(!floors_told);
    join_another(1);
    ck_assert(floors_told);
}
END_TEST

START_TEST(the_place_says_which_set_of_marks_has_all)
{
    end();
    begin_with_sets(0, 5);
    for (int turn = 0; turn < 20 && stored_place.marks_id != 5; turn++) {
        now_ms += 100;
        give((sync_event){.kind = SYNC_EV_TICK});
        (void)is_read(UINT64_MAX);
        done.count = 0;
    }
    ck_assert_uint_eq(stored_place.marks_id, 5);
}
END_TEST

/* A removal that another host cannot store. Ours of it waits while that host goes on telling it,
 * and is pushed by us when it does so no more. */
static void hear_removal(uint64_t row, enum replica_verdict verdict)
{
    sync_change change = change_of(10, 0, 0);
    change.numbered = change.value_missing = false;
    change.record.kind = REPLICA_DELETED;
    done.count = 0;
    give((sync_event){.kind = SYNC_EV_STREAM, .change = &change});
    give((sync_event){.kind = SYNC_EV_IDLE});
    const sync_action *apply = asked_for(SYNC_ACT_APPLY);
    ck_assert_ptr_nonnull(apply);
    replica_event *event = &apply->apply.events[0];
    ck_assert(event->hint && event->untold && !event->late);
    ck_assert_uint_eq(event->record.version.node, 9);
    event->verdict = verdict;
    event->row = row;
    done.count = 0;
    give((sync_event){.kind = SYNC_EV_APPLIED});
}

START_TEST(a_removal_that_was_heard_is_pushed_when_it_is_heard_no_more)
{
    replica_record ours = record_of_row(4, REPLICA_DELETED);
    hear_removal(ours.row, REPLICA_APPLIED);
    for (int turn = 0; turn < 20; turn++) { /* the pauses of the other host are 20 ms at most */
        now_ms += 20;
        give((sync_event){.kind = SYNC_EV_TICK});
        ck_assert(!is_read(ours.row));
        hear_removal(ours.row, REPLICA_EQUAL);
    }
    now_ms += 60;
    give((sync_event){.kind = SYNC_EV_TICK});
    const sync_action *read = asked_for(SYNC_ACT_READ);
    ck_assert(read != NULL && read->read.from_row == ours.row && !read->read.include_clean);
    done.count = 0;
    give_rows(&ours, 1);
    const sync_action *push = asked_for(SYNC_ACT_PUSH);
    ck_assert(push != NULL && !push->push.items[0].remove && !push->push.quiet);
    struct sync_batch *batch = push->push.batch;
    done.count = 0;
    give((sync_event){.kind = SYNC_EV_REPLY, .reply = {.batch = batch, .outcome = SYNC_NO_MEMORY}});
    read = asked_for(SYNC_ACT_READ);
    ck_assert(read != NULL && read->read.from_row == ours.row);
    give_rows(&ours, 1);
    push = asked_for(SYNC_ACT_PUSH);
    ck_assert(push != NULL && push->push.items[0].remove); /* now it is told by us */
}
END_TEST

/* It may have been in the lost set alone, and who made it may be gone. */
START_TEST(what_was_told_before_a_set_of_marks_was_lost_is_heard_before_another_is_filled)
{
    sync_change mark = change_of(10, 0, 0);
    mark.number = 1;
    mark.value_missing = false;
    mark.record.kind = REPLICA_MARK;
    set_of_marks = 2;
    connect_to_another();
    join(2, 1);
    ck_assert(!walked);
    ck_assert_ptr_nonnull(asked_for(SYNC_ACT_RANGE));
    give((sync_event){.kind = SYNC_EV_RANGE, .range = {.changes = &mark, .count = 1}});
    ck_assert_ptr_nonnull(asked_for(SYNC_ACT_APPLY));
    ck_assert(!walked);
    give((sync_event){.kind = SYNC_EV_APPLIED});
    ck_assert(walked);
}
END_TEST

/* What becomes of this entry, where Redis has no record of it and the host is new, or was away for
 * longer than T. */
static const sync_action *becomes_of(const replica_record *ours, enum sync_action_kind kind)
{
    for (int turn = 0; turn < 12 && asked_for(kind) == NULL; turn++) {
        const sync_action *compare = asked_for(SYNC_ACT_COMPARE), *read = asked_for(SYNC_ACT_READ);
        struct sync_batch *batch = compare == NULL ? NULL : compare->push.batch;
        bool clean = read != NULL && read->read.include_clean && read->read.from_row <= ours->row;
        done.count = 0;
        if (batch != NULL)
            give((sync_event){.kind = SYNC_EV_REPLY,
                              .reply = {.batch = batch, .outcome = SYNC_NOT_FOUND}});
        if (read != NULL)
            give_rows(ours, clean ? 1 : 0);
        now_ms += 2;
        give((sync_event){.kind = SYNC_EV_TICK});
    }
    return asked_for(kind);
}

/* Redis took it from this host a moment ago, and lost it; or is about to be told. */
START_TEST(a_new_host_forgets_what_nobody_knows_but_not_what_it_has_told)
{
    replica_record ours = record_of_row(4, REPLICA_VALUE);
    for (int told = 0; told < 3; told++) {
        end();
        done.count = 0;
        begin_keeping(10000);
        now_ms += 20000;
        join_another(1);
        ours.acked_ms = told == 1 ? now_ms - 500 : 0;
        ours.dirty = told == 2;
        const sync_action *action = becomes_of(&ours, told ? SYNC_ACT_PUSH : SYNC_ACT_ACKNOWLEDGE);
        ck_assert_ptr_nonnull(action);
        if (told)
            ck_assert(action->push.records[0]->row == ours.row && action->push.quiet);
        else
            ck_assert_int_eq(action->acknowledge.acks[0].what, REPLICA_FORGET);
    }
}
END_TEST

/* What it told then seems to be of now, or still to come. */
START_TEST(a_clock_that_was_set_back_makes_nothing_told_lately)
{
    replica_record ours = record_of_row(4, REPLICA_VALUE);
    const int64_t day_ms = 86400000, keep_ms = 400000;
    for (int seen = 0; seen < 2; seen++) { /* by the machine, or by none */
        end();
        done.count = 0;
        wall_step_ms = day_ms;
        begin_keeping(keep_ms);
        ours.acked_ms = now_ms + wall_step_ms;
        now_ms += keep_ms + 1000;
        if (seen) {
            wall_step_ms -= keep_ms; /* "1 s ago" */
        } else {
            wall_step_ms -= day_ms;
            end();
            begin_keeping(keep_ms);
            now_ms += keep_ms + 1000;
        }
        join_another(1);
        const sync_action *action = becomes_of(&ours, SYNC_ACT_ACKNOWLEDGE);
        ck_assert(action != NULL && action->acknowledge.acks[0].what == REPLICA_FORGET);
    }
    wall_step_ms = 0;
}
END_TEST

/* The deletion that came after ours may stand further on in the stream, and its record be gone. */
START_TEST(after_a_long_absence_an_older_event_is_no_reason_to_push)
{
    for (int away = 0; away < 2; away++) {
        end();
        done.count = 0;
        begin_keeping(10000);
        now_ms += away ? 20000 : 5000;
        join_another(1);
        sync_change change = change_of(10, 0, 0);
        change.number = 1;
        give((sync_event){.kind = SYNC_EV_STREAM, .change = &change});
        give((sync_event){.kind = SYNC_EV_IDLE});
        const sync_action *apply = asked_for(SYNC_ACT_APPLY);
        ck_assert(apply != NULL && apply->apply.count == 1);
        ck_assert_int_eq(apply->apply.events[0].doubtful, away);
    }
}
END_TEST

/* A host of a cluster that begins at the stream's end: what is told late may be older than what was
 * told before it listened. */
START_TEST(what_is_older_than_the_beginning_is_told_late)
{
    static const replica_position nowhere = {.epoch = 0};
    sync_settings settings = {.batch_commands = 8,
                              .batch_bytes = 65536,
                              .retry_entries = 8,
                              .heartbeat_ms = 1000000,
                              .page = 8,
                              .events_apart = true,
                              .random_seed = harness_seed()};
    sync_destroy(&machine);
    machine = sync_create(&settings);
    ck_assert_ptr_nonnull(machine);
    give((sync_event){.kind = SYNC_EV_START, .position = &nowhere});
    give((sync_event){.kind = SYNC_EV_CONNECTED, .run_id = "run"});
    give((sync_event){.kind = SYNC_EV_JOINED,
                      .joined = {.epoch = 7, .last_number = 5, .last_nonce = 1, .redis_ms = 9000}});
    for (int late = 1; late >= 0; late--) {
        sync_change change = change_of(UINT64_C(69001) << 16, 1, 3);
        change.record.version.clock -= (uint64_t)late << 16;
        change.number = 7 - (uint64_t)late;
        done.count = 0;
        give((sync_event){.kind = SYNC_EV_STREAM, .change = &change});
        give((sync_event){.kind = SYNC_EV_IDLE});
        const sync_action *apply = asked_for(SYNC_ACT_APPLY);
        ck_assert_ptr_nonnull(apply);
        ck_assert_uint_eq(apply->apply.count, 1);
        ck_assert_int_eq(apply->apply.events[0].late, late);
        give((sync_event){.kind = SYNC_EV_APPLIED});
    }
    hear_removal(0, REPLICA_APPLIED); /* of what Redis has now */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sync_scenes");
    TCase *all = tcase_create("scenes");
    tcase_add_checked_fixture(all, begin, end);
    tcase_add_test(all, a_fetch_that_an_event_overtook_brings_nothing);
    tcase_add_test(all, a_value_that_is_not_there_yet_is_fetched_again);
    tcase_add_test(all, a_value_that_does_not_come_is_given_up);
    tcase_add_test(all, a_value_that_an_event_overtook_is_not_fetched_again);
    tcase_add_test(all, what_was_not_there_is_looked_for_anew_in_the_next_session);
    tcase_add_test(all, after_a_lone_write_the_log_is_read_when_its_round_trip_is_over);
    tcase_add_test(all, the_next_writes_are_gathered_where_several_came);
    tcase_add_test(all, a_round_trip_that_takes_long_is_not_waited_for);
    tcase_add_test(all, a_key_that_is_written_all_the_time_goes_once_a_linger);
    tcase_add_test(all, a_row_that_lost_is_not_pushed_again_before_the_winner_could_be_applied);
    tcase_add_test(all, what_the_map_has_no_room_to_note_waits_and_is_not_sent_again);
    tcase_add_test(all, a_value_never_passes_for_a_removal);
    tcase_add_test(all, what_is_not_in_the_stream_is_not_asked_for_again_and_again);
    tcase_add_test(all, what_finds_no_place_among_the_refused_holds_up_nothing);
    tcase_add_test(all, a_row_that_ends_sessions_holds_up_nothing);
    tcase_add_test(all, what_nobody_told_of_goes_with_what_found_no_place);
    tcase_add_test(all, history_that_is_lost_all_the_time_is_compared_now_and_then);
    tcase_add_test(all, a_resync_is_not_over_before_redis_had_memory_for_all_of_it);
    tcase_add_test(all, what_nobody_told_of_is_looked_for_while_records_are_compared);
    tcase_add_test(all, what_nobody_told_of_is_looked_for_while_a_refused_row_is_tried_again);
    tcase_add_test(all, an_old_removal_that_was_told_lately_is_pushed_again);
    tcase_add_test(all, a_new_host_forgets_what_nobody_knows_but_not_what_it_has_told);
    tcase_add_test(all, a_clock_that_was_set_back_makes_nothing_told_lately);
    tcase_add_test(all, after_a_long_absence_an_older_event_is_no_reason_to_push);
    tcase_add_test(all, what_is_older_than_the_beginning_is_told_late);
    tcase_add_test(all, a_set_of_marks_that_is_lost_in_an_exchange_is_told_the_floors);
    tcase_add_test(all, a_set_of_marks_that_is_another_is_told_the_floors);
    tcase_add_test(all, the_place_says_which_set_of_marks_has_all);
    tcase_add_test(all, a_removal_that_was_heard_is_pushed_when_it_is_heard_no_more);
    tcase_add_test(all,
                   what_was_told_before_a_set_of_marks_was_lost_is_heard_before_another_is_filled);
    suite_add_tcase(suite, all);
    return harness_run(suite);
}
