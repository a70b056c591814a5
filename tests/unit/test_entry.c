/* test_entry.c: entries inside a write: record, chunks, log row and ledger change together. The
 * whole map is walked after each step.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "removal.h"
#include "replica.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"
#include "writer.h"

static larder *map;

static void open_map(void)
{
    map = maps_new();
}

static void close_map(void)
{
    larder_close(&map);
}

static void replicate(void)
{
    uint64_t fence;
    int other;
    ck_assert_int_eq(replica_claim(map, true, &fence, &other), LARDER_OK);
}

static struct writer begin(void)
{
    struct writer writer;
    ck_assert_int_eq(writer_begin(&writer, map, 1000), LARDER_OK);
    return writer;
}

static void commit(struct writer *writer)
{
    ck_assert_int_eq(writer_commit(writer), LARDER_OK);
    maps_whole(map);
}

/* What the map must count now. */
static void counts(uint64_t entries, uint64_t tombstones, uint64_t dirty)
{
    larder_stats stats = maps_stats(map);
    ck_assert_uint_eq(stats.entries, entries);
    ck_assert_uint_eq(stats.tombstones, tombstones);
    ck_assert_uint_eq(stats.dirty, dirty);
    ck_assert_uint_eq(stats.log_rows, entries + tombstones);
    maps_whole(map);
}

static uint64_t chunks(void)
{
    inspect_report report;
    ck_assert_int_eq(inspect_check(map, &report), LARDER_OK);
    return report.chunks;
}

/* The record's fixed part, as it stands. */
static struct record look(const char *text)
{
    struct key key;
    struct record record;
    struct writer writer = begin();
    ck_assert_int_eq(key_make(&key, text, strlen(text)), LARDER_OK);
    ck_assert_int_eq(entry_find(&writer.transaction, &key, &record), LARDER_OK);
    writer_abort(&writer);
    return record;
}

static bool gone(const char *text)
{
    struct key key;
    struct record record;
    struct writer writer = begin();
    ck_assert_int_eq(key_make(&key, text, strlen(text)), LARDER_OK);
    int result = entry_find(&writer.transaction, &key, &record);
    writer_abort(&writer);
    return result == LARDER_MISS;
}

/* Store a value under the key with these flags. */
static void store(const char *text, const void *value, size_t size, unsigned flags)
{
    struct key key;
    struct record old;
    struct writer writer = begin();
    ck_assert_int_eq(key_make(&key, text, strlen(text)), LARDER_OK);
    int found = entry_find(&writer.transaction, &key, &old);
    struct record record =
        record_make(clock_next(writer.control), RECORD_VALUE, flags, CLOCK_NEVER);
    record.value_size = size;
    ck_assert_int_eq(entry_store(&writer, &key, found == LARDER_OK ? &old : NULL, &record, value),
                     LARDER_OK);
    commit(&writer);
}

/* Drop it as eviction does, after giving it an acknowledgement of that age (0: none). */
static void drop(const char *text, int64_t acked_ago_ms)
{
    struct key key;
    struct record record;
    struct writer writer = begin();
    ck_assert_int_eq(key_make(&key, text, strlen(text)), LARDER_OK);
    ck_assert_int_eq(entry_find(&writer.transaction, &key, &record), LARDER_OK);
    if (acked_ago_ms != 0) {
        struct record changed = record;
        changed.acked_ms = clock_wall_ms() - acked_ago_ms;
        ck_assert_int_eq(entry_reseal(&writer, &key, &record, &changed), LARDER_OK);
        ck_assert_int_eq(entry_find(&writer.transaction, &key, &record), LARDER_OK);
        ck_assert_int_eq(record.acked_ms, changed.acked_ms);
    }
    ck_assert_int_eq(entry_drop(&writer, &key, &record), LARDER_OK);
    commit(&writer);
}

START_TEST(a_dirty_entry_keeps_its_row_when_it_is_written_again)
{
    store("key", "1", 1, RECORD_DIRTY);
    uint64_t row = look("key").header.row;
    for (int i = 0; i < 3; i++) {
        store("key", "22", 2, RECORD_DIRTY);
        ck_assert_uint_eq(look("key").header.row, row);
    }
    counts(1, 0, 1);
    ck_assert_str_eq(maps_get(map, "key"), "22");
}
END_TEST

START_TEST(a_clean_entry_that_becomes_dirty_goes_to_the_logs_end)
{
    store("key", "1", 1, 0);
    store("other", "1", 1, RECORD_DIRTY);
    uint64_t row = look("key").header.row;
    store("key", "2", 1, 0); /* clean over clean: it is not to travel, so it stays */
    ck_assert_uint_eq(look("key").header.row, row);
    store("key", "3", 1, RECORD_DIRTY);
    ck_assert_uint_gt(look("key").header.row, look("other").header.row);
    counts(2, 0, 2);
    store("key", "4", 1, 0); /* an inbound one over a dirty one */
    counts(2, 0, 1);
    ck_assert_str_eq(maps_get(map, "key"), "4");
}
END_TEST

START_TEST(versions_survive_that_the_map_becomes_another_node)
{
    larder_info before, after, later;
    store("key", "1", 1, RECORD_DIRTY);
    ck_assert_int_eq(larder_get(map, "key", 3, NULL, 0, &before), LARDER_ESIZE);
    uint32_t home = maps_control(map)->home;
    ck_assert_uint_eq(before.version.node, home);
    atomic_store(&maps_control(map)->node, home + 1);
    ck_assert_int_eq(larder_get(map, "key", 3, NULL, 0, &after), LARDER_ESIZE);
    ck_assert_uint_eq(after.version.node, home);
    store("new", "1", 1, RECORD_DIRTY);
    ck_assert_int_eq(larder_get(map, "new", 3, NULL, 0, &later), LARDER_ESIZE);
    ck_assert_uint_eq(later.version.node, home + 1);
    ck_assert_int_eq(larder_cas(map, "key", 3, "2", 1, &after.version, NULL), LARDER_OK);
    ck_assert_int_eq(larder_cas(map, "new", 3, "2", 1, &later.version, NULL), LARDER_OK);
    maps_whole(map);
}
END_TEST

START_TEST(values_of_every_size_come_back_and_leave_no_chunks)
{
    static uint8_t value[3 * CHUNK_SIZE + 2], got[sizeof value];
    const size_t inline_max = RECORD_PAGE_MAX - sizeof(struct record_head) - 4;
    const size_t tail_max = RECORD_NODE_MAX - sizeof(struct record_head) - 4 - 24 - 4;
    const size_t sizes[] = {0,
                            1,
                            RECORD_NODE_MAX - sizeof(struct record_head) - 4,
                            RECORD_NODE_MAX - sizeof(struct record_head) - 3,
                            inline_max - 1,
                            inline_max,
                            inline_max + 1,
                            CHUNK_SIZE - 1,
                            CHUNK_SIZE + tail_max,
                            CHUNK_SIZE + tail_max + 1,
                            CHUNK_SIZE,
                            CHUNK_SIZE + 1,
                            2 * CHUNK_SIZE - 1,
                            2 * CHUNK_SIZE,
                            2 * CHUNK_SIZE + 1,
                            3 * CHUNK_SIZE,
                            3 * CHUNK_SIZE + 1,
                            5};
    larder_info info;
    for (size_t i = 0; i < sizeof value; i++) {
        value[i] = (uint8_t)(i * 7 + i / 256);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        store("key", value, sizes[i], RECORD_DIRTY);
        ck_assert_int_eq(larder_get(map, "key", 3, got, sizeof got, &info), LARDER_OK);
        ck_assert_uint_eq(info.size, sizes[i]);
        ck_assert_mem_eq(got, value, sizes[i]);
        size_t tail = sizes[i] % CHUNK_SIZE;
        size_t count = record_chunks(sizes[i]) - (tail > 0 && tail <= tail_max ? 1 : 0);
        ck_assert_uint_eq(chunks(), sizes[i] <= inline_max ? 0 : count);
        counts(1, 0, 1);
    }
    store("key", value, sizeof value, 0);
    ck_assert_uint_eq(chunks(), 3);
    ck_assert_int_eq(maps_delete(map, "key"), LARDER_OK);
    ck_assert_uint_eq(chunks(), 0);
    counts(0, 0, 0);
}
END_TEST

START_TEST(an_upsert_finds_out_what_is_there)
{
    static uint8_t value[9000];
    struct key key;
    ck_assert_int_eq(key_make(&key, "key", 3), LARDER_OK);
    const size_t sizes[] = {10, 9000, 9000, 3, 0};
    for (size_t i = 0; i < 5; i++) {
        bool inserted;
        struct writer writer = begin();
        struct record record =
            record_make(clock_next(writer.control), RECORD_VALUE, RECORD_DIRTY, CLOCK_NEVER);
        record.value_size = sizes[i];
        ck_assert_int_eq(entry_upsert(&writer, &key, &record, value, &inserted), LARDER_OK);
        ck_assert_int_eq(inserted, i == 0);
        commit(&writer);
        counts(1, 0, 1);
        ck_assert_uint_eq(chunks(), sizes[i] == 9000 ? 2 : 0);
    }
}
END_TEST

START_TEST(long_keys_stand_in_their_records)
{
    static char text[60001];
    memset(text, 'k', sizeof text - 1);
    store(text, "value", 5, RECORD_DIRTY);
    ck_assert_str_eq(maps_get(map, text), "value");
    text[59999] = 'x'; /* the same leading bytes */
    ck_assert_ptr_null(maps_get(map, text));
    store(text, "another", 7, RECORD_DIRTY);
    ck_assert_str_eq(maps_get(map, text), "another");
    counts(2, 0, 2);

    struct writer writer = begin();
    struct key key, found;
    larder_bytes form, bytes;
    struct record record;
    void *memory;
    ck_assert_int_eq(key_make(&key, text, 60000), LARDER_OK);
    ck_assert_int_eq(
        store_entry_next(&writer.transaction, key.form, key.form_size, false, &form, &bytes),
        LARDER_OK);
    ck_assert(record_decode(bytes.data, bytes.size, &record));
    ck_assert_int_eq(entry_key(&form, &record, &found, &memory), LARDER_OK);
    ck_assert_uint_eq(found.size, 60000);
    ck_assert_mem_eq(found.data, text, 60000);
    ck_assert_uint_eq(found.hash, key.hash);
    free(memory);
    writer_abort(&writer);
    ck_assert_int_eq(maps_delete(map, text), LARDER_OK);
    counts(1, 0, 1);
}
END_TEST

START_TEST(a_delete_leaves_a_tombstone_only_where_the_map_replicates)
{
    store("key", "1", 1, RECORD_DIRTY);
    struct record before = look("key");
    ck_assert_int_eq(maps_delete(map, "key"), LARDER_OK);
    counts(0, 0, 0);
    struct key key;
    ck_assert_int_eq(key_make(&key, "key", 3), LARDER_OK);
    ck_assert_uint_ge(removal_floor(maps_control(map), key.hash), before.header.clock);
    ck_assert_int_eq(maps_delete(map, "key"), LARDER_MISS);
    counts(0, 0, 0);

    replicate();
    store("key", "2", 1, RECORD_DIRTY);
    ck_assert_int_eq(maps_delete(map, "key"), LARDER_OK);
    counts(0, 1, 1);
    struct record tombstone = look("key");
    ck_assert_uint_eq(tombstone.header.kind, RECORD_DELETED);
    ck_assert_int_eq(maps_delete(map, "key"), LARDER_MISS); /* again: a newer one in its place */
    ck_assert_uint_gt(look("key").header.clock, tombstone.header.clock);
    counts(0, 1, 1);
    ck_assert_int_eq(maps_delete(map, "never there"), LARDER_MISS); /* Redis may have it */
    counts(0, 2, 2);
    store("key", "3", 1, RECORD_DIRTY); /* and back to life */
    counts(1, 1, 2);
}
END_TEST

START_TEST(what_is_local_leaves_no_tombstone)
{
    replicate();
    store("key", "1", 1, RECORD_LOCAL);
    counts(1, 0, 0);
    ck_assert_int_eq(maps_delete(map, "key"), LARDER_OK);
    counts(0, 0, 0);
    store("key", "1", 1, RECORD_LOCAL);
    drop("key", 0);
    counts(0, 0, 0);
}
END_TEST

START_TEST(what_goes_for_space_leaves_an_invalidation_where_redis_may_be_behind)
{
    replicate();
    store("dirty", "1", 1, RECORD_DIRTY);
    struct record before = look("dirty");
    drop("dirty", 0);
    struct record after = look("dirty");
    ck_assert_uint_eq(after.header.kind, RECORD_DELETED);
    ck_assert_uint_eq(after.header.clock,
                      before.header.clock); /* of its version, not a newer one */
    ck_assert_uint_eq(after.header.node, before.header.node);
    counts(0, 1, 1);

    store("just acknowledged", "1", 1, 0);
    drop("just acknowledged", WRITER_ACKED_RECENTLY_MS - 5000);
    counts(0, 2, 2);

    store("long ago", "1", 1, 0);
    drop("long ago", WRITER_ACKED_RECENTLY_MS + 1);
    ck_assert(gone("long ago"));
    store("from elsewhere", "1", 1, 0);
    drop("from elsewhere", 0);
    ck_assert(gone("from elsewhere"));
    counts(0, 2, 2);

    drop("dirty", 0); /* an old tombstone goes for good */
    ck_assert(gone("dirty"));
    counts(0, 1, 1);
}
END_TEST

START_TEST(a_map_that_does_not_replicate_forgets_what_it_drops)
{
    store("dirty", "1", 1, RECORD_DIRTY);
    drop("dirty", 0);
    ck_assert(gone("dirty"));
    counts(0, 0, 0);
}
END_TEST

START_TEST(tombstones_are_capped_by_barriers)
{
    enum { BATCH = 4000 };
    static char texts[BATCH][16];
    static larder_item items[BATCH];
    const uint64_t cap = entry_tombstone_cap(atomic_load(&map->map->store));
    replicate();
    store("victim", "1", 1, 0);
    struct key key;
    ck_assert_int_eq(key_make(&key, "victim", 6), LARDER_OK);
    for (int round = 0; (uint64_t)round * BATCH < cap + BATCH; round++) {
        for (unsigned i = 0; i < BATCH; i++) {
            int size = snprintf(texts[i], sizeof texts[i], "%d/%u", round, i);
            items[i] = (larder_item){.key = texts[i], .key_size = (size_t)size};
        }
        ck_assert_int_eq(larder_delete_many(map, items, BATCH), LARDER_OK);
    }
    counts(1, cap, cap);
    uint64_t barrier = atomic_load(&maps_control(map)->barrier_max);
    ck_assert_uint_ne(barrier, 0);
    /* past the cap a delete is remembered by its bucket alone: nothing older may come in or live */
    ck_assert_int_eq(maps_set(map, "victim", "2"), LARDER_OK);
    ck_assert_int_eq(maps_delete(map, "victim"), LARDER_OK);
    counts(0, cap, cap);
    ck_assert_uint_ge(removal_floor(maps_control(map), key.hash), barrier);
    ck_assert_uint_ge(removal_dead_before(maps_control(map), key.hash), barrier);
    ck_assert_int_eq(maps_set(map, "victim", "3"), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "victim"), "3");
}
END_TEST

START_TEST(a_requeued_entry_is_dirty_and_last)
{
    struct key key;
    struct record record;
    store("key", "1", 1, 0);
    store("other", "1", 1, RECORD_DIRTY);
    struct writer writer = begin();
    ck_assert_int_eq(key_make(&key, "key", 3), LARDER_OK);
    ck_assert_int_eq(entry_find(&writer.transaction, &key, &record), LARDER_OK);
    ck_assert_int_eq(entry_requeue(&writer, &key, &record), LARDER_OK);
    commit(&writer);
    counts(2, 0, 2);
    ck_assert_uint_gt(look("key").header.row, look("other").header.row);
    ck_assert_uint_eq(look("key").header.clock, record.header.clock);
    ck_assert_str_eq(maps_get(map, "key"), "1");
}
END_TEST

START_TEST(a_damaged_record_is_found_and_the_generation_given_up)
{
    struct key key;
    struct record record;
    store("key", "1", 1, 0);
    struct writer writer = begin();
    ck_assert_int_eq(key_make(&key, "key", 3), LARDER_OK);
    ck_assert_int_eq(
        store_entry_put(&writer.transaction, key.form, key.form_size, "not a record", 12),
        LARDER_OK);
    ck_assert_int_eq(entry_find(&writer.transaction, &key, &record), LARDER_ECORRUPT);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "\"key\""));
    bool inserted;
    struct record fresh = record_make(clock_next(writer.control), RECORD_VALUE, 0, CLOCK_NEVER);
    ck_assert_int_eq(entry_upsert(&writer, &key, &fresh, NULL, &inserted), LARDER_ECORRUPT);
    writer_abort(&writer);
    ck_assert_uint_ne(atomic_load(&maps_control(map)->generation) & GENERATION_POISONED, 0);
    ck_assert_ptr_null(maps_get(map, "key")); /* a fresh generation */
    ck_assert_int_eq(maps_set(map, "key", "2"), LARDER_OK);
    ck_assert_uint_eq(maps_stats(map).generation, 2);
    counts(1, 0, 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("entry");
    TCase *tests = tcase_create("entry");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, open_map, close_map);
    tcase_add_test(tests, a_dirty_entry_keeps_its_row_when_it_is_written_again);
    tcase_add_test(tests, a_clean_entry_that_becomes_dirty_goes_to_the_logs_end);
    tcase_add_test(tests, versions_survive_that_the_map_becomes_another_node);
    tcase_add_test(tests, values_of_every_size_come_back_and_leave_no_chunks);
    tcase_add_test(tests, an_upsert_finds_out_what_is_there);
    tcase_add_test(tests, long_keys_stand_in_their_records);
    tcase_add_test(tests, a_delete_leaves_a_tombstone_only_where_the_map_replicates);
    tcase_add_test(tests, what_is_local_leaves_no_tombstone);
    tcase_add_test(tests, what_goes_for_space_leaves_an_invalidation_where_redis_may_be_behind);
    tcase_add_test(tests, a_map_that_does_not_replicate_forgets_what_it_drops);
    tcase_add_test(tests, tombstones_are_capped_by_barriers);
    tcase_add_test(tests, a_requeued_entry_is_dirty_and_last);
    tcase_add_test(tests, a_damaged_record_is_found_and_the_generation_given_up);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
