/* test_inspect.c: each kind of damage is found and named: broken invariants made through the
 * library's own inner calls, and bits flipped in the file of a closed map.
 */
#include "inspect.h"

#include <check.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "clock.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"
#include "upkeep.h"
#include "writer.h"

/* So that under a sanitizer, too, a process that dies in a damaged tree dies of its signal. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void) /* NOLINT(bugprone-reserved-identifier) */
{
    return "handle_segv=0:handle_sigbus=0:handle_sigfpe=0";
}

static larder *map;
static char big[10001];

static void open_map(void)
{
    maps_hot_size = LARDER_NO_HOT_SET;
    map = maps_new();
    memset(big, 'b', sizeof big - 1);
    ck_assert_int_eq(maps_set(map, "small", "value"), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "big", big), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "other\n", "value"), LARDER_OK);
    maps_whole(map);
}

static void close_map(void)
{
    larder_close(&map);
}

static void finds(const char *what)
{
    inspect_report report;
    ck_assert_int_eq(inspect_check(map, &report), LARDER_ECORRUPT);
    ck_assert(report.damaged);
    ck_assert_msg(strstr(report.damage, what) != NULL, "\"%s\" does not name \"%s\"", report.damage,
                  what);
    ck_assert_str_eq(larder_last_error(), report.damage);
}

static struct writer begin(void)
{
    struct writer writer;
    ck_assert_int_eq(writer_begin(&writer, map, 1000), LARDER_OK);
    return writer;
}

static struct record find(struct writer *writer, const char *text, struct key *key)
{
    struct record record;
    ck_assert_int_eq(key_make(key, text, strlen(text)), LARDER_OK);
    ck_assert_int_eq(entry_find(&writer->transaction, key, &record), LARDER_OK);
    return record;
}

static void commit(struct writer *writer)
{
    ck_assert_int_eq(writer_commit(writer), LARDER_OK);
}

/* The record of "big" no longer says where its chunks stand: readers ask the tree for them. */
static void forget_pages(void)
{
    struct key key;
    struct writer writer = begin();
    struct record record = find(&writer, "big", &key), changed = record;
    changed.pages = NULL;
    ck_assert_int_eq(entry_reseal(&writer, &key, &record, &changed), LARDER_OK);
    commit(&writer);
}

static void put_chunk(struct writer *writer, uint64_t id, const void *bytes, size_t size)
{
    uint32_t page;
    ck_assert_int_eq(store_chunk_put(&writer->transaction, id, bytes, size, &page), LARDER_OK);
}

START_TEST(a_whole_map_is_counted)
{
    inspect_report report;
    ck_assert_int_eq(inspect_check(map, &report), LARDER_OK);
    ck_assert(!report.damaged);
    ck_assert_str_eq(report.damage, "");
    ck_assert_uint_eq(report.entries, 3);
    ck_assert_uint_eq(report.tombstones, 0);
    ck_assert_uint_eq(report.dirty, 3);
    ck_assert_uint_eq(report.rows, 3);
    ck_assert_uint_eq(report.chunks, 2);
    ck_assert_uint_eq(report.bytes, 10010);
    ck_assert_int_eq(inspect_check(NULL, &report), LARDER_EINVAL);
}
END_TEST

START_TEST(a_missing_chunk)
{
    uint64_t row = 0;
    struct key key;
    struct writer writer = begin();
    struct record record = find(&writer, "big", &key);
    ck_assert_int_eq(store_chunk_delete(&writer.transaction, record.first_chunk + 1), LARDER_OK);
    commit(&writer);
    finds("entry \"big\": chunk 1");
    forget_pages();
    finds("entry \"big\": chunk 1");
    ck_assert_int_eq(upkeep_verify(map, &row, 100), LARDER_ECORRUPT);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "\"big\""));
    char got[sizeof big]; /* and to a reader it is a miss, counted */
    ck_assert_int_eq(larder_get(map, "big", 3, got, sizeof got, NULL), LARDER_MISS);
    void *memory;
    size_t size;
    larder_view view;
    ck_assert_int_eq(larder_get_alloc(map, "big", 3, &memory, &size, NULL), LARDER_MISS);
    ck_assert_ptr_null(memory);
    ck_assert_int_eq(larder_borrow(map, "big", 3, &view), LARDER_MISS);
    larder_item item = {.key = "big", .key_size = 3};
    ck_assert_int_eq(larder_get_many(map, &item, 1, &memory), LARDER_OK);
    ck_assert_int_eq(item.outcome, LARDER_MISS);
    larder_free(memory);
    ck_assert_uint_eq(maps_stats(map).read_corrupt, 4);
}
END_TEST

START_TEST(a_chunk_with_other_bytes_on_another_page)
{
    static char other[CHUNK_SIZE];
    struct key key;
    struct writer writer = begin();
    struct record record = find(&writer, "big", &key);
    uint64_t id = record.first_chunk;
    ck_assert_int_eq(store_chunk_delete(&writer.transaction, id), LARDER_OK);
    put_chunk(&writer, id, other, sizeof other);
    commit(&writer);
    finds("entry \"big\": chunk 0 does not stand on page");
    forget_pages();
    finds("entry \"big\": the checksum");
}
END_TEST

START_TEST(a_chunk_that_nobody_owns)
{
    struct writer writer = begin();
    put_chunk(&writer, writer.ledger.next_chunk++, "lost", 4);
    commit(&writer);
    finds("belongs to no entry");
}
END_TEST

START_TEST(a_chunk_that_two_own)
{
    struct key key, other;
    struct writer writer = begin();
    struct record record = find(&writer, "big", &key);
    struct record small = find(&writer, "small", &other);
    struct record stolen = find(&writer, "big", &key);
    stolen.header.row = small.header.row;
    (void)record;
    ck_assert_int_eq(entry_reseal(&writer, &other, &small, &stolen), LARDER_OK);
    commit(&writer);
    finds("belongs to two entries");
}
END_TEST

START_TEST(a_row_that_is_missing_names_another_or_belongs_to_nobody)
{
    struct key key, other;
    struct writer writer = begin();
    struct record record = find(&writer, "small", &key);
    ck_assert_int_eq(store_log_delete(&writer.transaction, record.header.row), LARDER_OK);
    commit(&writer);
    finds("entry \"small\": its log row");
    writer = begin();
    ck_assert_int_eq(key_make(&other, "another", 7), LARDER_OK);
    ck_assert_int_eq(
        store_log_append(&writer.transaction, record.header.row, other.form, other.form_size),
        LARDER_OK);
    commit(&writer);
    finds("names another key");
    writer = begin();
    (void)find(&writer, "small", &key);
    ck_assert_int_eq(store_log_delete(&writer.transaction, record.header.row), LARDER_OK);
    ck_assert_int_eq(
        store_log_append(&writer.transaction, record.header.row, key.form, key.form_size),
        LARDER_OK);
    ck_assert_int_eq(
        store_log_append(&writer.transaction, writer.ledger.next_row++, key.form, key.form_size),
        LARDER_OK);
    commit(&writer);
    finds("belongs to no entry");
}
END_TEST

START_TEST(a_number_that_was_never_given)
{
    struct writer writer = begin();
    writer.ledger.next_row = 1;
    ck_assert_int_eq(store_touch(&writer.transaction), LARDER_OK);
    commit(&writer);
    finds("was never given");
}
END_TEST

START_TEST(a_ledger_that_counts_wrongly)
{
    struct writer writer = begin();
    writer.ledger.dirty++;
    ck_assert_int_eq(store_touch(&writer.transaction), LARDER_OK);
    commit(&writer);
    finds("the ledger counts 3 entries, 0 tombstones, 4 dirty; there are 3, 0, 3");
}
END_TEST

START_TEST(a_record_that_is_malformed_or_has_a_wrong_sum)
{
    struct key key;
    larder_bytes bytes;
    uint8_t copy[256];
    struct writer writer = begin();
    (void)find(&writer, "other\n", &key);
    ck_assert_int_eq(store_entry_get(&writer.transaction, key.form, key.form_size, &bytes),
                     LARDER_OK);
    ck_assert_uint_le(bytes.size, sizeof copy);
    size_t size = bytes.size;
    memcpy(copy, bytes.data, size);
    copy[size - 1] ^= 1;
    ck_assert_int_eq(store_entry_put(&writer.transaction, key.form, key.form_size, copy, size),
                     LARDER_OK);
    commit(&writer);
    finds("entry \"other\\x0a\": wrong checksum");
    uint64_t row = 0;
    ck_assert_int_eq(upkeep_verify(map, &row, 100), LARDER_ECORRUPT);
    /* read without checking it is a hit, with checking a miss */
    char name[16];
    (void)snprintf(name, sizeof name, "%s", strrchr(map->map->path, '/') + 1);
    larder *careful = maps_open(name, 0, LARDER_VERIFY);
    ck_assert_int_eq(maps_has(map, "other\n"), LARDER_OK);
    ck_assert_int_eq(maps_has(careful, "other\n"), LARDER_MISS);
    ck_assert_int_eq(maps_has(careful, "big"), LARDER_OK);
    larder_close(&careful);
    writer = begin();
    ck_assert_int_eq(store_entry_put(&writer.transaction, key.form, key.form_size, copy, 20),
                     LARDER_OK);
    commit(&writer);
    finds("entry \"other\\x0a\": its record of 20 bytes is malformed");
    ck_assert_int_eq(maps_has(map, "other\n"), LARDER_MISS);
}
END_TEST

START_TEST(a_long_key_under_anothers_form)
{
    static char text[601];
    struct key key;
    memset(text, 'l', 600);
    ck_assert_int_eq(maps_set(map, text, "value"), LARDER_OK);
    struct writer writer = begin();
    struct record record = find(&writer, text, &key);
    static uint8_t other[600];
    memset(other, 'l', 599);
    other[599] = 'x';
    struct record changed = record;
    changed.long_key = other;
    ck_assert_int_eq(entry_reseal(&writer, &key, &record, &changed), LARDER_OK);
    commit(&writer);
    finds("the long key in its record is another one");
    ck_assert_int_eq(maps_has(map, text), LARDER_MISS);
}
END_TEST

START_TEST(readers_are_listed)
{
    inspect_reader readers[4];
    size_t found = 9;
    larder_view view;
    ck_assert_int_eq(larder_borrow(map, "big", 3, &view), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "another", "2"), LARDER_OK); /* in a transaction */
    ck_assert_int_eq(inspect_readers(map, readers, 4, &found), LARDER_OK);
    ck_assert_uint_eq(found, 2);
    uint64_t lag = readers[0].lag > readers[1].lag ? readers[0].lag : readers[1].lag;
    ck_assert_uint_eq(lag, 1);
    ck_assert(readers[0].alive && readers[1].alive);
    ck_assert_int_eq(readers[0].pid, getpid());
    larder_release(map, &view);
    ck_assert_int_eq(inspect_readers(NULL, readers, 4, &found), LARDER_EINVAL);
    ck_assert_uint_eq(found, 0);
}
END_TEST

/* ---- A file with a wrong bit -------------------------------------------------------------------
 */

START_TEST(one_flipped_bit_is_found_or_does_no_harm)
{
    char file[4096];
    uint64_t stream = harness_seed();
    struct control *control = maps_control(map);
    for (int i = 0; i < 300; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "key%d", i);
        ck_assert_int_eq(larder_set(map, key, strlen(key), big, (size_t)i * 20, NULL), LARDER_OK);
    }
    (void)snprintf(file, sizeof file, "%s/g1/data.mdb", map->map->path);
    int found = 0, data = open(file, O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(data, 0);
    for (int i = 0; i < 60; i++) {
        uint8_t byte;
        inspect_report report;
        /* among the pages in use, but for the two meta pages */
        off_t at = 8192 + (off_t)(harness_random(&stream) % (UINT64_C(400) * 4096));
        uint8_t bit = (uint8_t)(1u << harness_random(&stream) % 8);
        ck_assert_int_eq(pread(data, &byte, 1, at), 1);
        byte ^= bit;
        ck_assert_int_eq(pwrite(data, &byte, 1, at), 1);
        int result = inspect_check(map, &report);
        if (result == LARDER_ECORRUPT) {
            ck_assert(report.damaged);
            ck_assert_uint_gt(strlen(report.damage), 10);
            found++;
        } else {
            ck_assert_msg(result == LARDER_OK, "byte %jd: %d %s", (intmax_t)at, result,
                          larder_last_error());
            ck_assert_uint_eq(report.entries, 303);
            ck_assert_uint_eq(report.rows, 303);
        }
        byte ^= bit;
        ck_assert_int_eq(pwrite(data, &byte, 1, at), 1);
        /* whole again; what the walk has said about the generation is not to count */
        atomic_store(&control->generation, 1);
        ck_assert_int_eq(maps_has(map, "small"), LARDER_OK); /* the walk's death is not ours */
    }
    (void)close(data);
    ck_assert_int_gt(found, 10);
    maps_whole(map);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("inspect");
    TCase *tests = tcase_create("inspect");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, open_map, close_map);
    tcase_add_test(tests, a_whole_map_is_counted);
    tcase_add_test(tests, a_missing_chunk);
    tcase_add_test(tests, a_chunk_with_other_bytes_on_another_page);
    tcase_add_test(tests, a_chunk_that_nobody_owns);
    tcase_add_test(tests, a_chunk_that_two_own);
    tcase_add_test(tests, a_row_that_is_missing_names_another_or_belongs_to_nobody);
    tcase_add_test(tests, a_number_that_was_never_given);
    tcase_add_test(tests, a_ledger_that_counts_wrongly);
    tcase_add_test(tests, a_record_that_is_malformed_or_has_a_wrong_sum);
    tcase_add_test(tests, a_long_key_under_anothers_form);
    tcase_add_test(tests, readers_are_listed);
    tcase_add_test(tests, one_flipped_bit_is_found_or_does_no_harm);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
