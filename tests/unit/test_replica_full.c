/* test_replica_full.c: events that a full map has no room for: what they are newer than is not read
 * any more, and those behind them are not held up.
 */
#include "replica.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "removal.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"

enum { LONG_KEY = 65000, LONG_KEYS = 120 };

static larder *map;
static uint64_t fence;
static const char *const watched[] = {"news",   "gone",    "mine",    "tagged", "theirs",
                                      "shared", "pre:one", "pre:two", "other"};

static void keep_asking(void)
{
    for (size_t i = 0; i < sizeof watched / sizeof watched[0]; i++) {
        (void)maps_get(map, watched[i]);
    }
}

static void fill(const char *name, size_t size, int count)
{
    char key[32], value[1000];
    memset(value, 'v', sizeof value);
    for (int i = 0; i < count; i++) {
        (void)snprintf(key, sizeof key, "%s%07d", name, i);
        ck_assert_int_eq(larder_set(map, key, strlen(key), value, size, NULL), LARDER_OK);
        if (i % 100 == 0) {
            keep_asking();
        }
    }
}

static void open_map(void)
{
    int other = -1;
    larder_bytes tag = {"tag", 3};
    larder_policy policy = {.tags = &tag, .tag_count = 1};
    map = maps_new();
    fill("filler", 100, 60000);
    ck_assert_uint_gt(maps_stats(map).evictions, 0);
    ck_assert_int_eq(maps_set(map, "news", "old"), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "gone", "secret"), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "mine", "newest"), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "tagged", 6, "page", 4, &policy), LARDER_OK);
    fill("filler", 100, 1000);
    ck_assert_int_eq(replica_claim(map, true, &fence, &other), LARDER_OK);
}

static void close_map(void)
{
    maps_whole(map);
    larder_close(&map);
}

/* A reader that keeps its snapshot, until no write has room any more. */
static void pin(larder_view *view)
{
    char key[32], value[1000];
    int result = LARDER_OK;
    memset(value, 'w', sizeof value);
    ck_assert_int_eq(maps_set(map, "pinned", "held"), LARDER_OK);
    ck_assert_int_eq(larder_borrow(map, "pinned", 6, view), LARDER_OK);
    for (int i = 0; i < 100000 && result == LARDER_OK; i++) {
        (void)snprintf(key, sizeof key, "more%07d", i);
        result = larder_set(map, key, strlen(key), value, sizeof value, NULL);
        keep_asking();
    }
    ck_assert_int_eq(result, LARDER_EFULL);
    ck_assert_str_eq(maps_get(map, "news"), "old");
    ck_assert_str_eq(maps_get(map, "gone"), "secret");
    ck_assert_str_eq(maps_get(map, "mine"), "newest");
    ck_assert_str_eq(maps_get(map, "tagged"), "page");
}

static replica_event event_of(const char *key, size_t size, int64_t ms, enum replica_kind kind,
                              const char *value)
{
    return (replica_event){
        .record = {.version = {.clock = (uint64_t)(clock_wall_ms() + ms) << 16, .node = 9},
                   .kind = kind,
                   .expires_at_ms = INT64_MAX,
                   .key = (const uint8_t *)key,
                   .key_size = size,
                   .value = (const uint8_t *)value,
                   .value_size = value == NULL ? 0 : strlen(value),
                   .value_hash = value == NULL ? 0 : replica_value_hash(value, strlen(value))},
        .verdict = (enum replica_verdict)77};
}

static replica_event write_of(const char *key, int64_t ms, const char *value)
{
    return event_of(key, strlen(key), ms, value == NULL ? REPLICA_DELETED : REPLICA_VALUE, value);
}

static uint64_t position_number(void)
{
    replica_position position;
    ck_assert_int_eq(replica_position_read(map, &position), LARDER_OK);
    return position.number;
}

/* ---- Tests ------------------------------------------------------------------------------------
 */

START_TEST(a_key_that_finds_no_room_holds_up_nobody)
{
    static char names[LONG_KEYS][LONG_KEY];
    replica_event events[LONG_KEYS + 2];
    replica_position position = {.epoch = 3, .number = 8, .nonce = 5};
    size_t refused = 0;
    for (size_t i = 0; i < LONG_KEYS; i++) {
        memset(names[i], 'a' + (int)(i % 26), LONG_KEY);
        names[i][0] = (char)i;
        events[i] = event_of(names[i], LONG_KEY, 1000, REPLICA_VALUE, "value");
    }
    events[LONG_KEYS] = write_of("news", 1000, "new");
    events[LONG_KEYS + 1] = write_of("gone", 1000, NULL);
    ck_assert_int_eq(replica_apply(map, fence, events, LONG_KEYS + 2, &position), LARDER_OK);
    for (size_t i = 0; i < LONG_KEYS; i++) {
        refused += events[i].verdict == REPLICA_REFUSED;
        ck_assert_int_eq(larder_has(map, names[i], LONG_KEY),
                         events[i].verdict == REPLICA_REFUSED ? LARDER_MISS : LARDER_OK);
    }
    ck_assert_uint_gt(refused, 0); /* else this map has room, and nothing is tested */
    ck_assert_str_eq(maps_get(map, "news"), "new");
    ck_assert_ptr_null(maps_get(map, "gone"));
    ck_assert_str_eq(maps_get(map, "mine"), "newest");
    ck_assert_uint_eq(position_number(), 8);
    /* what was not here costs nobody anything */
    ck_assert_uint_eq(maps_stats(map).pending_overflows, 0);
    ck_assert_uint_eq(removal_count_pending(maps_control(map)), 0);
}
END_TEST

START_TEST(what_a_held_snapshot_leaves_no_room_for_is_not_read)
{
    larder_view view;
    replica_position position = {.epoch = 3, .number = 8, .nonce = 5};
    pin(&view);
    uint64_t pending = removal_count_pending(maps_control(map));
    replica_event events[] = {write_of("strange", 1000, "value"), write_of("news", 1000, "new"),
                              write_of("gone", 1000, NULL), write_of("mine", -100000, "older")};
    ck_assert_int_eq(replica_apply(map, fence, events, 4, &position), LARDER_OK);
    ck_assert_ptr_null(maps_get(map, "news"));
    ck_assert_ptr_null(maps_get(map, "gone"));
    ck_assert_str_eq(maps_get(map, "mine"), "newest");
    ck_assert_uint_eq(removal_count_pending(maps_control(map)), pending + 2);
    larder_release(map, &view);
    replica_event again[] = {write_of("news", 1000, "new"), write_of("mine", 2000, "theirs")};
    again[0].record.version = events[1].record.version; /* told once more */
    position.number = 9;
    ck_assert_int_eq(replica_apply(map, fence, again, 2, &position), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "news"), "new");
    ck_assert_ptr_null(maps_get(map, "gone"));
    ck_assert_str_eq(maps_get(map, "mine"), "theirs");
    ck_assert_uint_eq(position_number(), 9);
    ck_assert_uint_eq(removal_count_pending(maps_control(map)), 0);
}
END_TEST

/* By eviction on another host, say: it bears the version of what it removes. */
START_TEST(a_removal_of_the_values_own_version_needs_no_room)
{
    larder_view view;
    larder_info info;
    char value[16];
    pin(&view);
    ck_assert_int_eq(larder_get(map, "gone", 4, value, sizeof value, &info), LARDER_OK);
    replica_event removal = write_of("gone", 0, NULL), value_again = write_of("news", 0, "old");
    removal.record.version = info.version;
    ck_assert_int_eq(larder_get(map, "news", 4, value, sizeof value, &info), LARDER_OK);
    value_again.record.version = info.version;
    ck_assert_int_eq(replica_apply(map, fence, &removal, 1, NULL), LARDER_OK);
    ck_assert_int_eq(replica_apply(map, fence, &value_again, 1, NULL), LARDER_OK);
    ck_assert_ptr_null(maps_get(map, "gone"));
    ck_assert_str_eq(maps_get(map, "news"), "old");
    larder_release(map, &view);
    ck_assert_int_eq(maps_set(map, "other", "value"), LARDER_OK);
    ck_assert_ptr_null(maps_get(map, "gone"));
}
END_TEST

START_TEST(invalidations_need_no_room)
{
    larder_view view;
    replica_position position = {.epoch = 3, .number = 8, .nonce = 5};
    pin(&view);
    replica_event clear = event_of("c", 1, 1000, REPLICA_MARK, NULL);
    ck_assert_int_eq(replica_apply(map, fence, &clear, 1, &position), LARDER_OK);
    ck_assert_int_eq(clear.verdict, REPLICA_APPLIED);
    for (size_t i = 0; i < sizeof watched / sizeof watched[0]; i++) {
        ck_assert_ptr_null(maps_get(map, watched[i]));
    }
    larder_release(map, &view);
}
END_TEST

/* How often the key waits in the outbox. */
static size_t rows_of(const char *key, enum replica_kind *kind, larder_version *version)
{
    replica_batch batch = {0};
    size_t count = 0;
    do {
        ck_assert_int_eq(replica_outbox(map, &batch, batch.next_row, 1000, 1 << 20, false),
                         LARDER_OK);
        for (size_t i = 0; i < batch.count; i++) {
            const replica_record *record = &batch.records[i];
            if (record->key_size == strlen(key) && memcmp(record->key, key, strlen(key)) == 0) {
                *kind = record->kind;
                *version = record->version;
                count++;
            }
        }
    } while (!batch.end);
    replica_batch_free(&batch);
    return count;
}

static size_t is_waiting(const char *key)
{
    enum replica_kind kind;
    larder_version version;
    return rows_of(key, &kind, &version);
}

/* A copy of what another program wrote into Redis, over a record of that age. */
static void copy_foreign(const char *key, int64_t ms)
{
    replica_event event = write_of(key, ms, "foreign");
    event.fill = replica_fill_begin(map, key, strlen(key));
    event.fill.kind = REPLICA_FILL_FOREIGN;
    ck_assert_int_eq(replica_apply(map, fence, &event, 1, NULL), LARDER_OK);
    ck_assert_int_eq(event.verdict, REPLICA_APPLIED);
}

START_TEST(a_copy_of_another_programs_value_gives_way_to_any_write)
{
    larder_view view;
    copy_foreign("theirs", 1000); /* its version is made up, and above that of the write to come */
    pin(&view);
    ck_assert_str_eq(maps_get(map, "theirs"), "foreign");
    replica_event event = write_of("theirs", 500, "new");
    ck_assert_int_eq(replica_apply(map, fence, &event, 1, NULL), LARDER_OK);
    ck_assert_int_eq(event.verdict, REPLICA_REFUSED);
    ck_assert_ptr_null(maps_get(map, "theirs"));
    larder_release(map, &view);
    ck_assert_int_eq(maps_set(map, "next", "writer"), LARDER_OK);
    ck_assert_uint_eq(removal_count_pending(maps_control(map)), 0);
    ck_assert_ptr_null(maps_get(map, "theirs"));
    ck_assert_uint_eq(is_waiting("theirs"), 0); /* else the newer value would go from Redis */
}
END_TEST

START_TEST(what_another_program_changed_is_not_deleted_for_want_of_room)
{
    larder_view view;
    replica_event theirs = write_of("shared", 1000, "larder's");
    ck_assert_int_eq(replica_apply(map, fence, &theirs, 1, NULL), LARDER_OK);
    pin(&view);
    ck_assert_str_eq(maps_get(map, "shared"), "larder's");
    replica_event event = write_of("shared", 1000, "foreign");
    event.record.version = theirs.record.version;
    event.fill = replica_fill_begin(map, "shared", 6);
    event.fill.kind = REPLICA_FILL_CHANGED;
    ck_assert_int_eq(replica_apply(map, fence, &event, 1, NULL), LARDER_OK);
    ck_assert_ptr_null(maps_get(map, "shared"));
    larder_release(map, &view);
    ck_assert_int_eq(maps_set(map, "next", "writer"), LARDER_OK);
    ck_assert_ptr_null(maps_get(map, "shared"));
    ck_assert_uint_eq(is_waiting("shared"), 0); /* else it would go from Redis */
}
END_TEST

START_TEST(a_prefix_needs_no_room)
{
    larder_view view;
    replica_sweep sweep = {.active = false};
    enum replica_kind kind = 0;
    larder_version told, after;
    bool more = true;
    replica_event one = write_of("pre:one", 1000, "dies");
    ck_assert_int_eq(replica_apply(map, fence, &one, 1, NULL), LARDER_OK);
    copy_foreign("pre:two", 1000);
    ck_assert_int_eq(maps_set(map, "other", "lives"), LARDER_OK);
    pin(&view);
    replica_event prefix = event_of("ppre:", 5, 5000, REPLICA_MARK, NULL);
    ck_assert_int_eq(replica_apply(map, fence, &prefix, 1, NULL), LARDER_OK);
    ck_assert_int_eq(prefix.verdict, REPLICA_APPLIED);
    while (more) {
        ck_assert_int_eq(replica_sweep_some(map, fence, &sweep, &more), LARDER_OK);
    }
    ck_assert_ptr_null(maps_get(map, "pre:one"));
    ck_assert_ptr_null(maps_get(map, "pre:two"));
    ck_assert_str_eq(maps_get(map, "other"), "lives");
    larder_release(map, &view);
    ck_assert_int_eq(maps_set(map, "next", "writer"), LARDER_OK);
    ck_assert_uint_eq(removal_count_pending(maps_control(map)), 0);
    ck_assert_ptr_null(maps_get(map, "pre:one"));
    ck_assert_str_eq(maps_get(map, "other"), "lives");
    /* Redis is told, too, at the version that every host gives it */
    told = one.record.version;
    ck_assert_uint_eq(rows_of("pre:one", &kind, &after), 1);
    ck_assert_int_eq(kind, REPLICA_DELETED);
    ck_assert(after.clock == told.clock && after.node == told.node);
    ck_assert_uint_eq(rows_of("pre:two", &kind, &after), 1);
    ck_assert_int_eq(kind, REPLICA_DELETED);
}
END_TEST

/* More than one snapshot is waited for never, whatever comes. */
START_TEST(a_held_snapshot_is_waited_for_once)
{
    enum { EVENTS = 200 };
    larder_view view;
    larder_version version;
    enum replica_kind kind;
    char key[EVENTS][16];
    static replica_event events[EVENTS];
    pin(&view);
    ck_assert_uint_eq(rows_of("mine", &kind, &version), 1);
    replica_ack ack = {
        .key = (const uint8_t *)"mine", .key_size = 4, .version = version, .kind = kind};
    replica_event first = write_of("first", 1000, "value");
    ck_assert_int_eq(replica_apply(map, fence, &first, 1, NULL), LARDER_OK);
    int64_t began = harness_now_ms();
    for (int i = 0; i < EVENTS; i++) {
        (void)snprintf(key[i], sizeof key[i], "event%d", i);
        events[i] = write_of(key[i], 1000, "value");
        ck_assert_int_eq(replica_apply(map, fence, &events[i], 1, NULL), LARDER_OK);
        ck_assert_int_eq(replica_acknowledge(map, fence, &ack, 1, NULL), LARDER_EFULL);
    }
    /* at the wait of a write each it would be 20 s */
    ck_assert_int_le(harness_now_ms() - began, harness_patience(5000));
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "pins the freed pages"));
    ck_assert_uint_eq(is_waiting("mine"), 1);
    larder_release(map, &view);
    size_t cleared = 0;
    ck_assert_int_eq(replica_acknowledge(map, fence, &ack, 1, &cleared), LARDER_OK);
    ck_assert_uint_eq(cleared, 1);
    ck_assert_uint_eq(is_waiting("mine"), 0);
}
END_TEST

START_TEST(another_programs_change_is_not_missed)
{
    larder_view view;
    pin(&view);
    replica_event event = write_of("news", 0, NULL);
    event.fill = (replica_fill){.kind = REPLICA_FILL_GONE, .clock = event.record.version.clock};
    ck_assert_int_eq(replica_apply(map, fence, &event, 1, NULL), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "news"), "old"); /* dirty: Redis has not had it yet */
    larder_release(map, &view);
}
END_TEST

START_TEST(one_that_was_succeeded_kills_nothing)
{
    larder_view view;
    pin(&view);
    replica_event event = write_of("gone", 1000, NULL);
    (void)atomic_fetch_add(&maps_control(map)->fence, 1);
    ck_assert_int_eq(replica_apply(map, fence, &event, 1, NULL), REPLICA_FENCED);
    ck_assert_str_eq(maps_get(map, "gone"), "secret");
    larder_release(map, &view);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("replica, full");
    TCase *tests = tcase_create("events");
    tcase_add_checked_fixture(tests, open_map, close_map);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, a_key_that_finds_no_room_holds_up_nobody);
    tcase_add_test(tests, what_a_held_snapshot_leaves_no_room_for_is_not_read);
    tcase_add_test(tests, a_removal_of_the_values_own_version_needs_no_room);
    tcase_add_test(tests, invalidations_need_no_room);
    tcase_add_test(tests, another_programs_change_is_not_missed);
    tcase_add_test(tests, a_copy_of_another_programs_value_gives_way_to_any_write);
    tcase_add_test(tests, what_another_program_changed_is_not_deleted_for_want_of_room);
    tcase_add_test(tests, a_prefix_needs_no_room);
    tcase_add_test(tests, a_held_snapshot_is_waited_for_once);
    tcase_add_test(tests, one_that_was_succeeded_kills_nothing);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
