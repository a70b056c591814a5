/* test_replica.c: the replicator's port: the outbox in order, acknowledgements that match or not,
 * what other hosts did applied by precedence, the position with it, and one daemon a map.
 */
#include "replica.h"

#include <check.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "marks.h"
#include "removal.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"
#include "writer.h"

static larder *map;
static uint64_t fence;

static void open_map(void)
{
    int other = -1;
    map = maps_new();
    ck_assert_int_eq(replica_claim(map, true, &fence, &other), LARDER_OK);
    ck_assert_int_eq(other, 0);
}

static void close_map(void)
{
    maps_whole(map);
    larder_close(&map);
}

/* The keys of a batch, with a blank between; good until the next call. */
static const char *keys_of(const replica_batch *batch)
{
    static char text[1024];
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < batch->count; i++) {
        used +=
            (size_t)snprintf(text + used, sizeof text - used, "%s%.*s", i == 0 ? "" : " ",
                             (int)batch->records[i].key_size, (const char *)batch->records[i].key);
    }
    return text;
}

/* Everything dirty, from the first row on. */
static const char *outbox(void)
{
    replica_batch batch = {0};
    ck_assert_int_eq(replica_outbox(map, &batch, 0, 100, 1 << 20, false), LARDER_OK);
    ck_assert(batch.end);
    const char *keys = keys_of(&batch);
    replica_batch_free(&batch);
    return keys;
}

/* The record of that key as the outbox has it (clean ones too); its pointers are not good. */
static replica_record record_of(const char *key)
{
    replica_batch batch = {0};
    replica_record found = {.row = 0};
    ck_assert_int_eq(replica_outbox(map, &batch, 0, 1000, 1 << 20, true), LARDER_OK);
    for (size_t i = 0; i < batch.count; i++) {
        if (batch.records[i].key_size == strlen(key) &&
            memcmp(batch.records[i].key, key, strlen(key)) == 0) {
            found = batch.records[i];
        }
    }
    replica_batch_free(&batch);
    ck_assert_msg(found.row != 0, "no record of %s", key);
    return found;
}

static size_t acknowledge(const char *key, larder_version version, enum replica_kind kind)
{
    size_t cleared = 99;
    replica_ack ack = {
        .key = (const uint8_t *)key, .key_size = strlen(key), .version = version, .kind = kind};
    ck_assert_int_eq(replica_acknowledge(map, fence, &ack, 1, &cleared), LARDER_OK);
    maps_whole(map);
    return cleared;
}

/* An event of another node, that many ms from now. */
static replica_event event_of(const char *key, int64_t ms, enum replica_kind kind,
                              const char *value)
{
    replica_event event = {
        .record = {.version = {.clock = (uint64_t)(clock_wall_ms() + ms) << 16, .node = 9},
                   .kind = kind,
                   .expires_at_ms = INT64_MAX,
                   .key = (const uint8_t *)key,
                   .key_size = strlen(key)},
        .verdict = (enum replica_verdict)77};
    if (value != NULL) {
        event.record.value = (const uint8_t *)value;
        event.record.value_size = strlen(value);
        event.record.value_hash = replica_value_hash(value, strlen(value));
    }
    return event;
}

static enum replica_verdict apply(replica_event *event)
{
    ck_assert_int_eq(replica_apply(map, fence, event, 1, NULL), LARDER_OK);
    maps_whole(map);
    return event->verdict;
}

/* ---- Outbox ------------------------------------------------------------------------------------
 */

START_TEST(the_outbox_has_the_dirty_in_order)
{
    replica_batch batch = {0};
    larder_policy local = {.flags = LARDER_LOCAL}, negative = {.flags = LARDER_NEGATIVE};
    larder_policy expiring = {.expiry = larder_expire_at(clock_wall_ms() + 100000)};
    static char long_key[601];
    memset(long_key, 'l', 600);
    ck_assert_int_eq(maps_set(map, "b", "1"), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "a", "22"), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "hidden", 6, "x", 1, &local), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "n", 1, NULL, 0, &negative), LARDER_OK);
    ck_assert_int_eq(maps_delete(map, "gone"), LARDER_MISS);
    ck_assert_int_eq(larder_set(map, "e", 1, "333", 3, &expiring), LARDER_OK);
    ck_assert_int_eq(maps_set(map, long_key, "long"), LARDER_OK);
    ck_assert_int_eq(replica_outbox(map, &batch, 0, 100, 1 << 20, false), LARDER_OK);
    ck_assert_uint_eq(batch.count, 6);
    const replica_record *r = batch.records;
    ck_assert_mem_eq(r[0].key, "b", 1);
    ck_assert_int_eq(r[0].kind, REPLICA_VALUE);
    ck_assert_uint_eq(r[0].value_size, 1);
    ck_assert_mem_eq(r[0].value, "1", 1);
    ck_assert_uint_eq(r[0].value_hash, replica_value_hash("1", 1));
    ck_assert_int_eq(r[0].expires_at_ms, INT64_MAX);
    ck_assert_uint_eq(r[0].version.node, replica_node(map));
    ck_assert_mem_eq(r[1].value, "22", 2);
    ck_assert_int_eq(r[2].kind, REPLICA_NEGATIVE);
    ck_assert_uint_eq(r[2].value_hash, 0);
    ck_assert_int_eq(r[3].kind, REPLICA_DELETED);
    ck_assert_int_eq(r[4].expires_at_ms, expiring.expiry.ms);
    ck_assert_uint_eq(r[5].key_size, 600);
    ck_assert_mem_eq(r[5].key, long_key, 600);
    ck_assert_mem_eq(r[5].value, "long", 4);
    for (size_t i = 1; i < batch.count; i++) {
        ck_assert_uint_gt(r[i].row, r[i - 1].row);
        ck_assert_int_gt(replica_compare(&r[i], &r[i - 1]), 0); /* and so are the versions */
    }
    ck_assert(batch.end);
    ck_assert_uint_gt(batch.next_row, r[5].row);
    ck_assert_int_eq(replica_outbox(map, &batch, batch.next_row, 100, 1 << 20, false), LARDER_OK);
    ck_assert_uint_eq(batch.count, 0);
    ck_assert(batch.end);
    replica_batch_free(&batch);
    replica_batch_free(&batch);
}
END_TEST

START_TEST(overwrites_cost_one_row)
{
    for (int i = 0; i < 1000; i++) {
        char value[16];
        (void)snprintf(value, sizeof value, "%d", i);
        ck_assert_int_eq(maps_set(map, "k", value), LARDER_OK);
    }
    ck_assert_str_eq(outbox(), "k");
    ck_assert_uint_eq(maps_stats(map).log_rows, 1);
    ck_assert_uint_eq(maps_stats(map).dirty, 1);
}
END_TEST

START_TEST(batches_are_bounded_and_go_on)
{
    replica_batch batch = {0};
    static char value[20000];
    char key[8];
    for (int i = 0; i < 10; i++) {
        (void)snprintf(key, sizeof key, "%d", i);
        ck_assert_int_eq(larder_set(map, key, 1, value, i == 4 ? sizeof value : 10, NULL),
                         LARDER_OK);
    }
    ck_assert_int_eq(replica_outbox(map, &batch, 0, 3, 1 << 20, false), LARDER_OK);
    ck_assert_str_eq(keys_of(&batch), "0 1 2");
    ck_assert(!batch.end);
    /* 3 is 11 bytes; 4 would not fit and comes first the next time, alone though over the limit */
    ck_assert_int_eq(replica_outbox(map, &batch, batch.next_row, 100, 1000, false), LARDER_OK);
    ck_assert_str_eq(keys_of(&batch), "3");
    ck_assert_int_eq(replica_outbox(map, &batch, batch.next_row, 100, 1000, false), LARDER_OK);
    ck_assert_str_eq(keys_of(&batch), "4");
    ck_assert_uint_eq(batch.records[0].value_size, sizeof value);
    ck_assert_uint_eq(batch.records[0].value_hash, replica_value_hash(value, sizeof value));
    ck_assert_int_eq(replica_outbox(map, &batch, batch.next_row, 100, 1000, false), LARDER_OK);
    ck_assert_str_eq(keys_of(&batch), "5 6 7 8 9");
    ck_assert(batch.end);
    replica_batch_free(&batch);
}
END_TEST

START_TEST(a_long_run_of_clean_rows_is_looked_over_in_bounded_steps)
{
    enum { ROWS = 9000 };
    replica_batch batch = {0};
    static replica_event events[1000];
    static char keys[1000][8];
    for (int round = 0; round < ROWS / 1000; round++) {
        for (int i = 0; i < 1000; i++) {
            (void)snprintf(keys[i], sizeof keys[i], "%d", round * 1000 + i);
            events[i] = event_of(keys[i], 0, REPLICA_NEGATIVE, NULL);
        }
        ck_assert_int_eq(replica_apply(map, fence, events, 1000, NULL), LARDER_OK);
    }
    ck_assert_int_eq(maps_set(map, "dirty", "1"), LARDER_OK);
    ck_assert_int_eq(replica_outbox(map, &batch, 0, 100, 1 << 20, false), LARDER_OK);
    ck_assert_uint_eq(batch.count, 0);
    ck_assert(!batch.end);
    ck_assert_uint_gt(batch.next_row, 1000);
    ck_assert_uint_lt(batch.next_row, 2000); /* a snapshot is held for a millisecond, not for ten */
    for (int calls = 1; batch.count == 0; calls++) {
        ck_assert_int_lt(calls, 20);
        ck_assert_int_eq(replica_outbox(map, &batch, batch.next_row, 100, 1 << 20, false),
                         LARDER_OK);
    }
    ck_assert_str_eq(keys_of(&batch), "dirty");
    ck_assert(batch.end);
    replica_batch_free(&batch);
}
END_TEST

START_TEST(a_damaged_entry_does_not_hold_up_the_rest)
{
    static char big[10000];
    struct writer writer;
    struct record record, changed;
    struct key key;
    ck_assert_int_eq(larder_set(map, "big", 3, big, sizeof big, NULL), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "next", "value"), LARDER_OK);
    ck_assert_int_eq(writer_begin(&writer, map, 1000), LARDER_OK);
    ck_assert_int_eq(key_make(&key, "big", 3), LARDER_OK);
    ck_assert_int_eq(entry_find(&writer.transaction, &key, &record), LARDER_OK);
    changed = record;
    changed.pages = NULL; /* or a reader would not ask the tree */
    ck_assert_int_eq(entry_reseal(&writer, &key, &record, &changed), LARDER_OK);
    ck_assert_int_eq(store_chunk_delete(&writer.transaction, record.first_chunk), LARDER_OK);
    ck_assert_int_eq(writer_commit(&writer), LARDER_OK);
    ck_assert_str_eq(outbox(), "next");
    ck_assert_int_eq(maps_set(map, "big", "mended"), LARDER_OK);
    ck_assert_str_eq(outbox(), "big next");
}
END_TEST

/* ---- Acknowledging -----------------------------------------------------------------------------
 */

START_TEST(what_redis_took_is_clean)
{
    ck_assert_int_eq(maps_set(map, "a", "1"), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "b", "1"), LARDER_OK);
    ck_assert_int_eq(maps_delete(map, "c"), LARDER_MISS);
    replica_record a = record_of("a"), c = record_of("c");
    ck_assert_uint_eq(acknowledge("a", a.version, REPLICA_VALUE), 1);
    ck_assert_str_eq(outbox(), "b c");
    ck_assert_uint_eq(acknowledge("a", a.version, REPLICA_VALUE), 0); /* again */
    ck_assert_uint_eq(acknowledge("nobody", a.version, REPLICA_VALUE), 0);
    ck_assert_uint_eq(acknowledge("c", c.version, REPLICA_DELETED), 1);
    ck_assert_str_eq(outbox(), "b");
    ck_assert_str_eq(maps_get(map, "a"), "1");
    ck_assert_uint_eq(maps_stats(map).dirty, 1);
    replica_batch all = {0};
    ck_assert_int_eq(replica_outbox(map, &all, 0, 100, 1 << 20, true), LARDER_OK);
    ck_assert_str_eq(keys_of(&all), "a b c");
    replica_batch_free(&all);
}
END_TEST

START_TEST(what_was_written_meanwhile_goes_to_the_end_of_the_log)
{
    ck_assert_int_eq(maps_set(map, "a", "1"), LARDER_OK);
    replica_record sent = record_of("a");
    ck_assert_int_eq(maps_set(map, "b", "1"), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "a", "2"), LARDER_OK); /* under the old row */
    ck_assert_str_eq(outbox(), "a b");
    ck_assert_uint_eq(acknowledge("a", sent.version, REPLICA_VALUE), 0);
    ck_assert_str_eq(outbox(), "b a");
    ck_assert_str_eq(maps_get(map, "a"), "2");
    /* the same version as another kind is no match either */
    ck_assert_uint_eq(acknowledge("b", record_of("b").version, REPLICA_DELETED), 0);
    ck_assert_str_eq(outbox(), "a b");
    ck_assert_uint_eq(maps_stats(map).dirty, 2);
}
END_TEST

START_TEST(acknowledgements_are_bounded_and_a_bad_one_spoils_them)
{
    static replica_ack acks[4097];
    size_t cleared = 99;
    ck_assert_int_eq(replica_acknowledge(map, fence, acks, 4097, &cleared), LARDER_EINVAL);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "4096"));
    ck_assert_int_eq(maps_set(map, "a", "1"), LARDER_OK);
    replica_record a = record_of("a");
    acks[0] = (replica_ack){(const uint8_t *)"a", 1, a.version, REPLICA_VALUE, REPLICA_STORED};
    acks[1] = (replica_ack){(const uint8_t *)"", 0, a.version, REPLICA_VALUE, REPLICA_STORED};
    ck_assert_int_eq(replica_acknowledge(map, fence, acks, 2, &cleared), LARDER_EINVAL);
    ck_assert_str_eq(outbox(), "a");
    ck_assert_uint_eq(cleared, 99);
    ck_assert_int_eq(replica_acknowledge(map, fence, acks, 1, NULL), LARDER_OK);
    ck_assert_str_eq(outbox(), "");
}
END_TEST

/* ---- Applying ----------------------------------------------------------------------------------
 */

START_TEST(newer_ones_are_applied_clean)
{
    ck_assert_int_eq(maps_set(map, "k", "ours"), LARDER_OK);
    replica_event event = event_of("k", 1000, REPLICA_VALUE, "theirs");
    ck_assert_int_eq(apply(&event), REPLICA_APPLIED);
    ck_assert_str_eq(maps_get(map, "k"), "theirs");
    ck_assert_str_eq(outbox(), "");
    larder_info info = maps_info(map, "k");
    ck_assert_uint_eq(info.version.clock, event.record.version.clock);
    ck_assert_uint_eq(info.version.node, 9);
    event = event_of("new", 1000, REPLICA_VALUE, "");
    ck_assert_int_eq(apply(&event), REPLICA_APPLIED);
    ck_assert_str_eq(maps_get(map, "new"), "");
    event = event_of("n", 1000, REPLICA_NEGATIVE, NULL);
    ck_assert_int_eq(apply(&event), REPLICA_APPLIED);
    ck_assert_int_eq(maps_has(map, "n"), LARDER_ABSENT);
    /* whatever we write after having seen it is newer */
    ck_assert_int_eq(maps_set(map, "k", "ours again"), LARDER_OK);
    ck_assert_uint_gt(maps_info(map, "k").version.clock, event.record.version.clock);
    event = event_of("k", 900, REPLICA_DELETED, NULL);
    ck_assert_int_eq(apply(&event), REPLICA_OLDER);
    ck_assert_str_eq(maps_get(map, "k"), "ours again");
}
END_TEST

/* What an entry needs on any host: as a stale value, sliding, and under its marks. */
START_TEST(times_and_marks_come_along)
{
    larder_bytes tags[2] = {{"t1", 2}, {"t2", 2}};
    larder_policy policy = {.expiry = larder_expire_sliding(60000),
                            .stale_ms = 30000,
                            .max_lifetime_ms = 3600000,
                            .group = {"g", 1},
                            .tags = tags,
                            .tag_count = 2};
    ck_assert_int_eq(larder_set(map, "k", 1, "v", 1, &policy), LARDER_OK);
    replica_record sent = record_of("k");
    larder_info info = maps_info(map, "k");
    ck_assert_int_eq(sent.expires_at_ms, info.expires_ms);
    ck_assert_int_eq(sent.stale_until_ms, info.expires_ms + 30000);
    ck_assert_int_eq(sent.sliding_ms, 60000);
    /* it is counted from the call, created from when the gate was entered */
    ck_assert_int_le(sent.limit_ms, info.created_ms + 3600000);
    ck_assert_int_gt(sent.limit_ms, info.created_ms + 3600000 - 10000);
    ck_assert_uint_eq(sent.mark_count, 3);

    replica_event event = event_of("theirs", 1000, REPLICA_VALUE, "v");
    event.record.expires_at_ms = sent.expires_at_ms;
    event.record.stale_until_ms = sent.stale_until_ms;
    event.record.sliding_ms = sent.sliding_ms;
    event.record.limit_ms = sent.limit_ms;
    event.record.created_ms = 12345;
    event.record.mark_count = sent.mark_count;
    memcpy(event.record.marks, sent.marks, sizeof sent.marks);
    ck_assert_int_eq(apply(&event), REPLICA_APPLIED);
    info = maps_info(map, "theirs");
    ck_assert_int_eq(info.stale_until_ms, sent.stale_until_ms);
    ck_assert_int_eq(info.created_ms, 12345);
    ck_assert_uint_eq(info.flags, LARDER_INFO_MARKED | LARDER_INFO_SLIDING);
    ck_assert_int_eq(larder_invalidate_tag(map, tags[1], NULL), LARDER_OK);
    ck_assert_ptr_null(maps_get(map, "theirs"));

    /* expired on its way, but still of use */
    event = event_of("late", 2000, REPLICA_VALUE, "v");
    event.record.expires_at_ms = 1000;
    event.record.stale_until_ms = INT64_MAX - 1;
    ck_assert_int_eq(apply(&event), REPLICA_APPLIED);
    larder_read accept = {.flags = LARDER_ACCEPT_STALE};
    char buffer[8];
    ck_assert_int_eq(larder_get_with(map, "late", 4, buffer, sizeof buffer, &info, &accept),
                     LARDER_STALE);
}
END_TEST

START_TEST(deletes_are_applied_and_remembered)
{
    ck_assert_int_eq(maps_set(map, "k", "ours"), LARDER_OK);
    replica_event event = event_of("k", 1000, REPLICA_DELETED, NULL);
    ck_assert_int_eq(apply(&event), REPLICA_APPLIED);
    ck_assert_ptr_null(maps_get(map, "k"));
    ck_assert_uint_eq(maps_stats(map).tombstones, 1);
    replica_event late = event_of("k", 500, REPLICA_VALUE, "late");
    ck_assert_int_eq(apply(&late), REPLICA_OLDER); /* and ours is pushed again */
    ck_assert_ptr_null(maps_get(map, "k"));
    ck_assert_str_eq(outbox(), "k");
    event = event_of("unknown", 1000, REPLICA_DELETED, NULL);
    ck_assert_int_eq(apply(&event), REPLICA_APPLIED);
    late = event_of("unknown", 500, REPLICA_VALUE, "late");
    late.doubtful = true;
    ck_assert_int_eq(apply(&late), REPLICA_OLDER);
    ck_assert_str_eq(outbox(), "k"); /* that one waits for what Redis says of it */
    late.doubtful = false;
    ck_assert_int_eq(apply(&late), REPLICA_OLDER);
    ck_assert_ptr_null(maps_get(map, "unknown"));
}
END_TEST

/* Redis has no record of it: who hears it keeps it for the log, until it comes with a number. */
START_TEST(a_removal_told_outside_the_numbers_stays_dirty)
{
    ck_assert_int_eq(maps_set(map, "k", "ours"), LARDER_OK);
    ck_assert_uint_eq(acknowledge("k", record_of("k").version, REPLICA_VALUE), 1);
    replica_event told = event_of("k", 1000, REPLICA_DELETED, NULL), hint = told;
    hint.hint = hint.untold = true;
    ck_assert_int_eq(apply(&hint), REPLICA_APPLIED);
    ck_assert_ptr_null(maps_get(map, "k"));
    ck_assert_str_eq(outbox(), "k");
    ck_assert_uint_eq(hint.row, record_of("k").row);
    hint.row = 0;
    ck_assert_int_eq(apply(&hint), REPLICA_EQUAL); /* no acknowledgement */
    ck_assert_str_eq(outbox(), "k");
    ck_assert_uint_eq(hint.row, record_of("k").row);
    ck_assert_int_eq(apply(&told), REPLICA_EQUAL);
    ck_assert_str_eq(outbox(), "");
    /* what is written over it is this host's own */
    hint = event_of("k", -1000, REPLICA_DELETED, NULL);
    hint.hint = hint.untold = true;
    ck_assert_int_eq(maps_set(map, "k", "anew"), LARDER_OK);
    ck_assert_int_eq(apply(&hint), REPLICA_OLDER);
    ck_assert_uint_eq(hint.row, 0);
    ck_assert_str_eq(maps_get(map, "k"), "anew");
}
END_TEST

START_TEST(equals_clear_the_dirty_flag)
{
    ck_assert_int_eq(maps_set(map, "k", "ours"), LARDER_OK);
    replica_record ours = record_of("k");
    replica_event event = event_of("k", 0, REPLICA_VALUE, "ours");
    event.record.version = ours.version;
    ck_assert_int_eq(apply(&event), REPLICA_EQUAL);
    ck_assert_str_eq(outbox(), "");
    ck_assert_int_eq(apply(&event), REPLICA_EQUAL);
    ck_assert_str_eq(maps_get(map, "k"), "ours");
    /* the same version with another value: the hash decides, the same way on every host */
    replica_event other = event_of("k", 0, REPLICA_VALUE, "other");
    other.record.version = ours.version;
    bool wins = other.record.value_hash > ours.value_hash;
    ck_assert_int_eq(apply(&other), wins ? REPLICA_APPLIED : REPLICA_OLDER);
    ck_assert_str_eq(maps_get(map, "k"), wins ? "other" : "ours");
    /* and a delete of the same version wins */
    other = event_of("k", 0, REPLICA_DELETED, NULL);
    other.record.version = ours.version;
    ck_assert_int_eq(apply(&other), REPLICA_APPLIED);
    ck_assert_ptr_null(maps_get(map, "k"));
}
END_TEST

START_TEST(chunked_values_are_compared_by_their_hash_too)
{
    static char value[20001];
    memset(value, 'v', 20000);
    ck_assert_int_eq(maps_set(map, "k", value), LARDER_OK);
    replica_event event = event_of("k", 0, REPLICA_VALUE, value);
    event.record.version = record_of("k").version;
    ck_assert_int_eq(apply(&event), REPLICA_EQUAL);
    event = event_of("k", 1000, REPLICA_VALUE, value);
    ck_assert_int_eq(apply(&event), REPLICA_APPLIED);
    ck_assert_int_eq(apply(&event), REPLICA_EQUAL);
}
END_TEST

START_TEST(older_ones_make_ours_travel_again)
{
    ck_assert_int_eq(maps_set(map, "k", "ours"), LARDER_OK);
    ck_assert_uint_eq(acknowledge("k", record_of("k").version, REPLICA_VALUE), 1);
    ck_assert_str_eq(outbox(), "");
    replica_event event = event_of("k", -100000, REPLICA_VALUE, "old");
    ck_assert_int_eq(apply(&event), REPLICA_OLDER);
    ck_assert_str_eq(maps_get(map, "k"), "ours");
    ck_assert_str_eq(outbox(), "k");
    ck_assert_int_eq(apply(&event), REPLICA_OLDER); /* dirty already: nothing more to do */
    ck_assert_str_eq(outbox(), "k");
}
END_TEST

START_TEST(an_event_without_its_value_drops_an_older_copy)
{
    ck_assert_int_eq(maps_set(map, "k", "ours"), LARDER_OK);
    replica_event event = event_of("k", 1000, REPLICA_VALUE, NULL);
    event.value_missing = true;
    event.record.value_hash = 5;
    ck_assert_int_eq(apply(&event), REPLICA_REFUSED);
    ck_assert_ptr_null(maps_get(map, "k"));
    ck_assert_str_eq(outbox(), ""); /* Redis has the newer one: no invalidation of ours */
    ck_assert_uint_eq(maps_stats(map).tombstones, 1); /* it keeps the place */
    ck_assert_uint_eq(maps_stats(map).dirty, 0);
    /* it comes twice where an entry of ours lost to it in Redis and the event was heard, too */
    ck_assert_int_eq(apply(&event), REPLICA_REFUSED);
    ck_assert_uint_eq(maps_stats(map).tombstones, 1);
    /* when the value comes it is stored; what is older than it is not, nor is one of its own clock
     */
    replica_event older = event_of("k", 500, REPLICA_VALUE, "older");
    ck_assert_int_eq(apply(&older), REPLICA_OLDER);
    older.record.version = event.record.version;
    older.record.version.node -= 2;
    ck_assert_int_eq(apply(&older), REPLICA_OLDER);
    ck_assert_ptr_null(maps_get(map, "k"));
    replica_event with = event;
    with.value_missing = false;
    with.record.value = (const uint8_t *)"value";
    with.record.value_size = 5;
    with.record.value_hash = replica_value_hash("value", 5);
    ck_assert_int_eq(apply(&with), REPLICA_APPLIED);
    ck_assert_str_eq(maps_get(map, "k"), "value");
    /* an echo of what we have, without its value, is equal */
    event.record.value_hash = with.record.value_hash;
    ck_assert_int_eq(apply(&event), REPLICA_EQUAL);
    ck_assert_str_eq(maps_get(map, "k"), "value");
    /* the same version with another value, of a host that has our node id: one of the two rules */
    event.record.value_hash = with.record.value_hash - 1;
    ck_assert_int_eq(apply(&event), REPLICA_OLDER);
    ck_assert_str_eq(maps_get(map, "k"), "value");
    event.record.value_hash = with.record.value_hash + 1;
    ck_assert_int_eq(apply(&event), REPLICA_REFUSED);
    ck_assert_ptr_null(maps_get(map, "k"));
    event = event_of("unknown", 1000, REPLICA_VALUE, NULL);
    event.value_missing = true;
    ck_assert_int_eq(apply(&event), REPLICA_REFUSED);
}
END_TEST

/* What this host alone takes for dead may be the winner all the same: ours is dead with it, and
 * goes; else it would be pushed, and lose, for ever. */
START_TEST(what_loses_to_a_value_that_is_dead_here_alone_goes)
{
    ck_assert_int_eq(maps_set(map, "k", "ours"), LARDER_OK);
    replica_event event = event_of("k", 1000, REPLICA_VALUE, "theirs");
    struct key key;
    ck_assert_int_eq(key_make(&key, "k", 1), LARDER_OK);
    removal_raise_barrier_here(maps_control(map), key.hash, event.record.version.clock);
    ck_assert_str_eq(outbox(), "k");
    ck_assert_int_eq(apply(&event), REPLICA_REFUSED);
    ck_assert_ptr_null(maps_get(map, "k"));
    ck_assert_str_eq(outbox(), "");
    ck_assert_uint_eq(maps_stats(map).dirty, 0);
    ck_assert_int_eq(apply(&event), REPLICA_REFUSED);
    event = event_of("k", 2000, REPLICA_VALUE, "newer");
    ck_assert_int_eq(apply(&event), REPLICA_APPLIED);
    ck_assert_str_eq(maps_get(map, "k"), "newer");
}
END_TEST

/* After history was lost all keys that were written meanwhile are missed at once. */
START_TEST(neighbours_do_not_shut_each_other_out)
{
    char name[16], other[16];
    struct key key;
    ck_assert_int_eq(key_make(&key, "k", 1), LARDER_OK);
    uint64_t bucket = key.hash >> 52;
    for (int i = 0;; i++) { /* another key of the same bucket of floors */
        (void)snprintf(other, sizeof other, "other%d", i);
        ck_assert_int_eq(key_make(&key, other, strlen(other)), LARDER_OK);
        if (key.hash >> 52 == bucket)
            break;
    }
    for (int held = 0; held < 2; held++) {
        const char *const keys[] = {"k", other};
        replica_event events[2];
        for (int i = 0; i < 2; i++) {
            (void)snprintf(name, sizeof name, "new%d", i);
            ck_assert_int_eq(held != 0 ? maps_set(map, keys[i], "old") : LARDER_OK, LARDER_OK);
            events[i] = event_of(keys[i], 1000 * (held + 1) + 10 * i, REPLICA_VALUE, "new");
            events[i].unordered = true;
            events[i].value_missing = true;
            ck_assert_int_eq(apply(&events[i]), REPLICA_REFUSED);
        }
        for (int i = 0; i < 2; i++) { /* fetched, or told at last */
            events[i].value_missing = false;
            ck_assert_int_eq(apply(&events[i]), REPLICA_APPLIED);
            ck_assert_str_eq(maps_get(map, keys[i]), "new");
        }
        ck_assert_uint_eq(maps_stats(map).tombstones, 0);
        ck_assert_str_eq(outbox(), "");
    }
}
END_TEST

/* Of a key that is not here something newer may have been told before this host listened. */
START_TEST(late_ones_are_not_believed)
{
    replica_event event = event_of("k", 0, REPLICA_VALUE, "late");
    event.unordered = event.late = true;
    ck_assert_int_eq(apply(&event), REPLICA_REFUSED);
    ck_assert(event.value_missing); /* to be fetched, whatever it is by now */
    ck_assert_ptr_null(maps_get(map, "k"));
    event.late = event.value_missing = false;
    ck_assert_int_eq(apply(&event), REPLICA_APPLIED);
    ck_assert_str_eq(maps_get(map, "k"), "late");
    event = event_of("k", -30000, REPLICA_VALUE, "older");
    event.unordered = event.late = true; /* what is here and newer is */
    ck_assert_int_eq(apply(&event), REPLICA_OLDER);
    ck_assert_str_eq(maps_get(map, "k"), "late");
    event = event_of("k", 10000, REPLICA_VALUE, "newer");
    event.unordered = event.late = true;
    ck_assert_int_eq(apply(&event), REPLICA_REFUSED);
    ck_assert(event.value_missing);
    ck_assert_ptr_null(maps_get(map, "k"));
    ck_assert_str_eq(outbox(), "");
    event = event_of("k", 20000, REPLICA_DELETED, NULL); /* perhaps not the last word */
    replica_event removed = event;
    event.unordered = event.late = true;
    ck_assert_int_eq(apply(&event), REPLICA_APPLIED);
    /* what the first of them has left says nothing of the next */
    for (int i = 0; i < 3; i++) {
        event = event_of("again", i, i < 2 ? REPLICA_VALUE : REPLICA_NEGATIVE, i < 2 ? "v" : NULL);
        event.unordered = event.late = true;
        ck_assert_int_eq(apply(&event), REPLICA_REFUSED);
        ck_assert(event.value_missing);
        ck_assert_ptr_null(maps_get(map, "again"));
    }
    ck_assert_str_eq(outbox(), "");
    uint64_t before = maps_stats(map).tombstones;
    enum replica_kind kinds[] = {REPLICA_NEGATIVE, REPLICA_DELETED};
    for (int i = 0; i < 2; i++) {
        char key[] = {(char)('x' + i), 0};
        event = event_of(key, 20, kinds[i], NULL);
        event.unordered = event.late = true;
        ck_assert_int_eq(apply(&event), REPLICA_REFUSED);
        ck_assert_uint_eq(maps_stats(map).tombstones, before);
        replica_event older = event_of(key, -1000, REPLICA_VALUE, "older");
        ck_assert_int_eq(apply(&older), REPLICA_REFUSED);
        ck_assert_ptr_null(maps_get(map, key));
    }
    /* a removal may bear the version of what it removed, and that may still be under way */
    removed.record.kind = REPLICA_VALUE;
    ck_assert_int_eq(apply(&removed), REPLICA_OLDER);
    ck_assert_ptr_null(maps_get(map, "k"));
    ck_assert_str_eq(outbox(), "k");
}
END_TEST

START_TEST(expired_and_oversized_values_do_not_come_in)
{
    ck_assert_int_eq(maps_set(map, "k", "ours"), LARDER_OK);
    replica_event event = event_of("k", 1000, REPLICA_VALUE, "expired");
    event.record.expires_at_ms = clock_wall_ms() - 1;
    ck_assert_int_eq(apply(&event), REPLICA_APPLIED);
    ck_assert_ptr_null(maps_get(map, "k"));
    ck_assert_uint_eq(maps_stats(map).entries, 0);
    ck_assert_int_eq(maps_set(map, "k", "ours"), LARDER_OK);
    char *huge = calloc(1, map->max_value + 1);
    ck_assert_ptr_nonnull(huge);
    event = event_of("k", 5000, REPLICA_VALUE, "");
    event.record.value = (uint8_t *)huge;
    event.record.value_size = map->max_value + 1;
    ck_assert_int_eq(apply(&event), REPLICA_REFUSED);
    ck_assert_ptr_null(maps_get(map, "k")); /* ours was older */
    ck_assert_uint_eq(maps_stats(map).entries, 0);
    ck_assert_uint_eq(maps_stats(map).dirty, 0);
    free(huge);
}
END_TEST

START_TEST(nothing_under_the_floor_comes_in)
{
    struct key key;
    ck_assert_int_eq(key_make(&key, "k", 1), LARDER_OK);
    replica_event event = event_of("k", 0, REPLICA_VALUE, "old");
    removal_raise_floor(maps_control(map), key.hash, event.record.version.clock);
    ck_assert_int_eq(apply(&event), REPLICA_REFUSED);
    ck_assert_ptr_null(maps_get(map, "k"));
    event.record.version.clock++;
    ck_assert_int_eq(apply(&event), REPLICA_APPLIED);
    ck_assert_str_eq(maps_get(map, "k"), "old");
}
END_TEST

START_TEST(local_entries_stay_local)
{
    larder_policy local = {.flags = LARDER_LOCAL};
    ck_assert_int_eq(larder_set(map, "k", 1, "mine", 4, &local), LARDER_OK);
    replica_event event = event_of("k", 1000, REPLICA_VALUE, "theirs");
    ck_assert_int_eq(apply(&event), REPLICA_REFUSED);
    event = event_of("k", 1000, REPLICA_DELETED, NULL);
    ck_assert_int_eq(apply(&event), REPLICA_REFUSED);
    ck_assert_str_eq(maps_get(map, "k"), "mine");
}
END_TEST

/* What Redis has of the key under no record. */
static enum replica_verdict fill_without_record(const char *key, const char *value)
{
    replica_event event = event_of(key, 0, REPLICA_VALUE, value);
    event.record.version = (larder_version){0};
    event.fill = replica_fill_begin(map, key, strlen(key));
    event.fill.kind = REPLICA_FILL_FOREIGN;
    return apply(&event);
}

START_TEST(what_was_invalidated_does_not_come_back_when_its_record_is_lost)
{
    replica_event event = event_of("k", 0, REPLICA_VALUE, "invalidated");
    marks_make(event.record.marks, MARK_GROUP, "g", 1);
    event.record.mark_count = 1;
    ck_assert_int_eq(apply(&event), REPLICA_APPLIED);
    ck_assert_int_eq(larder_invalidate_group(map, (larder_bytes){"g", 1}, NULL), LARDER_OK);
    ck_assert_int_eq(fill_without_record("k", "invalidated"), REPLICA_REFUSED);
    ck_assert_ptr_null(maps_get(map, "k"));
    /* bytes that this host never had under the key are another program's */
    ck_assert_int_eq(fill_without_record("k", "another's"), REPLICA_APPLIED);
    ck_assert_str_eq(maps_get(map, "k"), "another's");
}
END_TEST

/* Redis was asked after a change, and something of the key's bucket was removed meanwhile: the
 * reply may be older than that, and is not stored; but what was changed must not stay. */
START_TEST(what_another_program_changed_goes_also_where_its_value_may_not_come)
{
    struct key key;
    ck_assert_int_eq(key_make(&key, "k", 1), LARDER_OK);
    replica_event ours = event_of("k", 0, REPLICA_VALUE, "ours");
    ck_assert_int_eq(apply(&ours), REPLICA_APPLIED);
    replica_event event = event_of("k", 0, REPLICA_VALUE, "theirs");
    event.record.version = ours.record.version;
    event.fill = replica_fill_begin(map, "k", 1);
    event.fill.kind = REPLICA_FILL_CHANGED;
    removal_raise_floor(maps_control(map), key.hash, clock_next(maps_control(map)).clock);
    ck_assert_int_eq(apply(&event), REPLICA_APPLIED);
    ck_assert_ptr_null(maps_get(map, "k"));
    ck_assert_str_eq(outbox(), ""); /* else it would go from Redis */
    event.fill = replica_fill_begin(map, "k", 1);
    event.fill.kind = REPLICA_FILL_FOREIGN;
    ck_assert_int_eq(apply(&event), REPLICA_APPLIED);
    ck_assert_str_eq(maps_get(map, "k"), "theirs");

    /* one that Redis has yet to be told stays */
    ck_assert_int_eq(larder_set(map, "k", 1, "ours again", 10, NULL), LARDER_OK);
    event.record.version = record_of("k").version;
    event.fill = replica_fill_begin(map, "k", 1);
    event.fill.kind = REPLICA_FILL_CHANGED;
    removal_raise_floor(maps_control(map), key.hash, clock_next(maps_control(map)).clock);
    ck_assert_int_eq(apply(&event), REPLICA_REFUSED);
    ck_assert_str_eq(maps_get(map, "k"), "ours again");
}
END_TEST

START_TEST(an_impossible_key_is_refused_and_the_rest_applied)
{
    replica_event events[3] = {event_of("", 1000, REPLICA_VALUE, "x"),
                               event_of("a", 1000, REPLICA_VALUE, "1"),
                               event_of("b", 1000, REPLICA_VALUE, "2")};
    ck_assert_int_eq(replica_apply(map, fence, events, 3, NULL), LARDER_OK);
    ck_assert_int_eq(events[0].verdict, REPLICA_REFUSED);
    ck_assert_int_eq(events[1].verdict, REPLICA_APPLIED);
    ck_assert_str_eq(maps_get(map, "b"), "2");
}
END_TEST

START_TEST(an_impossible_kind_is_refused_and_harms_nothing)
{
    static const int kinds[] = {0, 4, 255, 256 + REPLICA_VALUE};
    ck_assert_int_eq(maps_set(map, "k", "ours"), LARDER_OK);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        replica_event event = event_of("k", 1000, (enum replica_kind)kinds[i], "x");
        ck_assert_int_eq(apply(&event), REPLICA_REFUSED);
        ck_assert_str_eq(maps_get(map, "k"), "ours");
    }
    ck_assert_uint_eq(maps_stats(map).generation, 1);
}
END_TEST

START_TEST(the_position_moves_with_what_was_applied)
{
    replica_position position = {.epoch = 9, .number = 9}, read = {.epoch = 1};
    ck_assert_int_eq(replica_position_read(map, &read), LARDER_OK);
    ck_assert_uint_eq(read.epoch, 0);
    replica_event event = event_of("k", 1000, REPLICA_VALUE, "theirs");
    position = (replica_position){.epoch = 3, .number = 17, .nonce = 0xabcdef, .run_id = "run"};
    ck_assert_int_eq(replica_apply(map, fence, &event, 1, &position), LARDER_OK);
    ck_assert_int_eq(replica_position_read(map, &read), LARDER_OK);
    ck_assert_uint_eq(read.epoch, 3);
    ck_assert_uint_eq(read.number, 17);
    ck_assert_uint_eq(read.nonce, 0xabcdef);
    ck_assert_str_eq(read.run_id, "run");
    position.number = 18;
    memset(position.run_id, 'x', sizeof position.run_id); /* not terminated */
    ck_assert_int_eq(replica_apply(map, fence, NULL, 0, &position), LARDER_OK);
    for (int i = 0; i < 3; i++) { /* it stays, whatever is written */
        ck_assert_int_eq(maps_set(map, "k", "ours"), LARDER_OK);
        ck_assert_int_eq(replica_position_read(map, &read), LARDER_OK);
        ck_assert_uint_eq(read.number, 18);
        ck_assert_uint_eq(strlen(read.run_id), sizeof read.run_id - 1);
    }
    static replica_event many[1025];
    ck_assert_int_eq(replica_apply(map, fence, many, 1025, NULL), LARDER_EINVAL);
}
END_TEST

START_TEST(a_busy_gate_leaves_everything_as_it_was)
{
    struct maps_holder holder = maps_hold(&maps_control(map)->write_gate);
    replica_event event = event_of("k", 1000, REPLICA_VALUE, "theirs");
    ck_assert_int_eq(replica_apply(map, fence, &event, 1, NULL), LARDER_EBUSY);
    replica_ack ack = {(const uint8_t *)"k", 1, event.record.version, REPLICA_VALUE,
                       REPLICA_STORED};
    ck_assert_int_eq(replica_acknowledge(map, fence, &ack, 1, NULL), LARDER_EBUSY);
    maps_let_go(&holder);
    ck_assert_ptr_null(maps_get(map, "k"));
    ck_assert_int_eq(apply(&event), REPLICA_APPLIED);
}
END_TEST

/* ---- One daemon --------------------------------------------------------------------------------
 */

static int claim_in_child(void *context)
{
    uint64_t other_fence;
    int other = 0;
    int result = replica_claim(map, true, &other_fence, &other);
    return result == LARDER_EXISTS && other == *(pid_t *)context ? 0 : 1;
}

/* Keys in no order, so that each one stands in another leaf. */
static size_t scattered(uint32_t number, char out[24])
{
    return (size_t)snprintf(out, 24, "%08x", number * 2654435761u);
}

static void apply_scattered(uint32_t first, uint32_t count)
{
    static replica_event events[1024];
    static char keys[1024][24], value[300];
    for (uint32_t i = 0; i < count; i++) {
        events[i] = event_of("", 0, REPLICA_VALUE, NULL);
        events[i].record.key_size = scattered(first + i, keys[i]);
        events[i].record.key = (const uint8_t *)keys[i];
        events[i].record.value = (const uint8_t *)value;
        events[i].record.value_size = sizeof value;
        events[i].record.value_hash = replica_value_hash(value, sizeof value);
    }
    replica_position position = {.epoch = 7, .number = first, .nonce = 1};
    ck_assert_msg(replica_apply(map, fence, events, count, &position) == LARDER_OK,
                  "after %" PRIu32 " events: %s", first, larder_last_error());
}

static void set_and_acknowledge(uint32_t first, uint32_t count)
{
    static replica_ack acks[1024];
    replica_batch batch = {0};
    size_t cleared = 0, acked = 0;
    char value[400] = "";
    for (uint32_t i = 0; i < count; i++) {
        char key[24];
        size_t size = scattered(first + i, key);
        ck_assert_int_eq(larder_set(map, key, size, value, sizeof value, NULL), LARDER_OK);
    }
    uint64_t row = 0;
    do {
        ck_assert_int_eq(replica_outbox(map, &batch, row, count, 1 << 20, false), LARDER_OK);
        for (size_t i = 0; i < batch.count; i++) {
            acks[i] = (replica_ack){.key = batch.records[i].key,
                                    .key_size = batch.records[i].key_size,
                                    .version = batch.records[i].version,
                                    .kind = batch.records[i].kind};
        }
        size_t now = 0;
        ck_assert_msg(replica_acknowledge(map, fence, acks, batch.count, &now) == LARDER_OK,
                      "%zu acknowledgements: %s", batch.count, larder_last_error());
        acked += batch.count;
        cleared += now;
        row = batch.next_row;
    } while (!batch.end);
    ck_assert_uint_ge(acked, count);
    ck_assert_uint_eq(cleared, acked);
    replica_batch_free(&batch);
}

START_TEST(a_full_map_goes_on_taking_what_comes)
{
    enum { EVENTS = 80 * 1024 };
    for (uint32_t first = 0; first < EVENTS; first += 1024) {
        apply_scattered(first, 1024);
        if (first >= EVENTS / 2)
            set_and_acknowledge(first + EVENTS, 1024);
    }
    maps_whole(map);
}
END_TEST

START_TEST(there_is_one_daemon)
{
    pid_t self = getpid();
    ck_assert_int_eq(maps_in_child(claim_in_child, &self), 0);
    ck_assert_uint_ne(replica_node(map), 0);
    ck_assert_uint_eq(replica_node(NULL), 0);
    larder *reading = NULL;
    char name[16];
    (void)snprintf(name, sizeof name, "%s", strrchr(map->map->path, '/') + 1);
    reading = maps_open(name, 0, LARDER_READ_ONLY);
    uint64_t other_fence;
    int other;
    ck_assert_int_eq(replica_claim(reading, true, &other_fence, &other), LARDER_EREADONLY);
    larder_close(&reading);
}
END_TEST

START_TEST(a_daemon_that_was_succeeded_is_fenced)
{
    replica_event event = event_of("k", 1000, REPLICA_VALUE, "theirs");
    replica_ack ack = {(const uint8_t *)"k", 1, event.record.version, REPLICA_VALUE,
                       REPLICA_STORED};
    ck_assert_int_eq(replica_publish_state(map, fence, true, 12345), LARDER_OK);
    larder_stats stats = maps_stats(map);
    ck_assert_uint_eq(stats.redis_up, 1);
    ck_assert_uint_eq(stats.replicates, 1);
    ck_assert_int_eq(stats.daemon_heartbeat_ms, 12345);
    (void)atomic_fetch_add(&maps_control(map)->fence, 1); /* another one claimed the map */
    ck_assert_int_eq(replica_apply(map, fence, &event, 1, NULL), REPLICA_FENCED);
    ck_assert_int_eq(replica_acknowledge(map, fence, &ack, 1, NULL), REPLICA_FENCED);
    ck_assert_int_eq(replica_publish_state(map, fence, false, 99), REPLICA_FENCED);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "another larderd"));
    ck_assert_int_eq(maps_stats(map).daemon_heartbeat_ms, 12345);
    ck_assert_ptr_null(maps_get(map, "k"));
}
END_TEST

static bool readable(int fifo)
{
    struct pollfd wait = {.fd = fifo, .events = POLLIN};
    return poll(&wait, 1, 0) == 1;
}

static int set_in_child(void *context)
{
    return maps_set(map, context, "value") == LARDER_OK ? 0 : 1;
}

START_TEST(a_write_wakes_a_daemon_that_sleeps)
{
    int fifo = replica_wake_fd(map);
    ck_assert_int_ge(fifo, 0);
    ck_assert_int_eq(maps_set(map, "k", "1"), LARDER_OK); /* awake: no byte */
    ck_assert(!readable(fifo));
    replica_wake_arm(map);
    ck_assert(!readable(fifo));
    ck_assert_int_eq(maps_in_child(set_in_child, (void *)(uintptr_t) "by a worker"), 0);
    ck_assert(readable(fifo));
    ck_assert_int_eq(maps_in_child(set_in_child, (void *)(uintptr_t) "another"), 0);
    replica_wake_drain(map);
    ck_assert(!readable(fifo));
    replica_wake_arm(map);
    ck_assert_int_eq(maps_delete(map, "k"), LARDER_OK); /* our own, too */
    ck_assert(readable(fifo));
    replica_wake_drain(map);
    replica_wake_arm(map);
    ck_assert_int_eq(maps_has(map, "k"), LARDER_MISS); /* reading wakes nobody */
    ck_assert(!readable(fifo));
    int again = replica_wake_fd(map);
    ck_assert_int_ge(again, 0);
    replica_wake_drain(NULL);
    replica_wake_arm(NULL);
    ck_assert_int_eq(replica_wake_fd(NULL), -1);
}
END_TEST

START_TEST(records_compare_by_version_kind_and_hash)
{
    replica_record a = {.version = {.clock = 5, .node = 5}, .kind = REPLICA_VALUE, .value_hash = 5};
    replica_record b = a;
    ck_assert_int_eq(replica_compare(&a, &b), 0);
    b.value_hash = 6;
    ck_assert_int_lt(replica_compare(&a, &b), 0);
    ck_assert_int_gt(replica_compare(&b, &a), 0);
    a.kind = REPLICA_DELETED;
    ck_assert_int_gt(replica_compare(&a, &b), 0);
    ck_assert_int_lt(replica_compare(&b, &a), 0);
    b.version.node = 6;
    ck_assert_int_lt(replica_compare(&a, &b), 0);
    a.version.clock = 6;
    ck_assert_int_gt(replica_compare(&a, &b), 0);
    ck_assert_uint_eq(replica_value_hash(NULL, 0), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("replica");
    TCase *tests = tcase_create("replica");
    tcase_set_timeout(tests, 30);
    tcase_add_checked_fixture(tests, open_map, close_map);
    tcase_add_test(tests, the_outbox_has_the_dirty_in_order);
    tcase_add_test(tests, overwrites_cost_one_row);
    tcase_add_test(tests, batches_are_bounded_and_go_on);
    tcase_add_test(tests, a_long_run_of_clean_rows_is_looked_over_in_bounded_steps);
    tcase_add_test(tests, a_damaged_entry_does_not_hold_up_the_rest);
    tcase_add_test(tests, what_redis_took_is_clean);
    tcase_add_test(tests, what_was_written_meanwhile_goes_to_the_end_of_the_log);
    tcase_add_test(tests, acknowledgements_are_bounded_and_a_bad_one_spoils_them);
    tcase_add_test(tests, newer_ones_are_applied_clean);
    tcase_add_test(tests, times_and_marks_come_along);
    tcase_add_test(tests, deletes_are_applied_and_remembered);
    tcase_add_test(tests, a_removal_told_outside_the_numbers_stays_dirty);
    tcase_add_test(tests, equals_clear_the_dirty_flag);
    tcase_add_test(tests, chunked_values_are_compared_by_their_hash_too);
    tcase_add_test(tests, older_ones_make_ours_travel_again);
    tcase_add_test(tests, an_event_without_its_value_drops_an_older_copy);
    tcase_add_test(tests, what_loses_to_a_value_that_is_dead_here_alone_goes);
    tcase_add_test(tests, late_ones_are_not_believed);
    tcase_add_test(tests, neighbours_do_not_shut_each_other_out);
    tcase_add_test(tests, expired_and_oversized_values_do_not_come_in);
    tcase_add_test(tests, nothing_under_the_floor_comes_in);
    tcase_add_test(tests, local_entries_stay_local);
    tcase_add_test(tests, what_was_invalidated_does_not_come_back_when_its_record_is_lost);
    tcase_add_test(tests, what_another_program_changed_goes_also_where_its_value_may_not_come);
    tcase_add_test(tests, an_impossible_key_is_refused_and_the_rest_applied);
    tcase_add_test(tests, an_impossible_kind_is_refused_and_harms_nothing);
    tcase_add_test(tests, the_position_moves_with_what_was_applied);
    tcase_add_test(tests, a_busy_gate_leaves_everything_as_it_was);
    tcase_add_test(tests, a_full_map_goes_on_taking_what_comes);
    tcase_add_test(tests, there_is_one_daemon);
    tcase_add_test(tests, a_daemon_that_was_succeeded_is_fenced);
    tcase_add_test(tests, a_write_wakes_a_daemon_that_sleeps);
    tcase_add_test(tests, records_compare_by_version_kind_and_hash);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
