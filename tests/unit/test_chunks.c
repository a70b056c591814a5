/* test_chunks.c: values in pieces: a reader goes straight to the pages that the record names, and a
 * record that names wrong ones, or pages that were scribbled over, never make it give wrong bytes.
 */
#include "chunks.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"
#include "upkeep.h"
#include "writer.h"

enum { PAGE = 4096, SIZE = 16384, CHUNKS = 4, LARGE = (RECORD_PAGES_MAX + 3) * CHUNK_SIZE + 17 };

static larder *map;
static uint8_t value[SIZE], other[SIZE], got[SIZE], *large;

static void open_map(void)
{
    uint64_t stream = harness_seed();
    maps_hot_size = LARDER_NO_HOT_SET;
    map = maps_new();
    for (size_t i = 0; i < SIZE; i++) {
        value[i] = (uint8_t)harness_random(&stream);
        other[i] = (uint8_t)harness_random(&stream);
    }
    ck_assert_int_eq(larder_set(map, "other", 5, other, SIZE, NULL), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "key", 3, value, SIZE, NULL), LARDER_OK);
}

static void close_map(void)
{
    larder_close(&map);
    free(large);
    large = NULL;
}

/* ---- Looking ----------------------------------------------------------------------------------
 */

struct found {
    struct transaction *snapshot;
    struct key key;
    struct record record;
};

/* The record in a snapshot, which end() gives back. */
static struct found find(const char *text)
{
    struct found found;
    larder_bytes bytes;
    ck_assert_int_eq(key_make(&found.key, text, strlen(text)), LARDER_OK);
    ck_assert_int_eq(registry_snapshot(map->map, NULL, &found.snapshot), LARDER_OK);
    ck_assert_int_eq(store_entry_get(found.snapshot, found.key.form, found.key.form_size, &bytes),
                     LARDER_OK);
    ck_assert(record_decode(bytes.data, bytes.size, &found.record));
    return found;
}

static void end(const struct found *found)
{
    store_read_end(found->snapshot);
}

static void is(const char *text, const uint8_t *expected)
{
    larder_info info;
    memset(got, 0, sizeof got);
    ck_assert_int_eq(larder_get(map, text, strlen(text), got, sizeof got, &info), LARDER_OK);
    ck_assert_uint_eq(info.size, SIZE);
    ck_assert_mem_eq(got, expected, SIZE);
}

/* Copy it. Whether the tree of chunks had to be asked. */
static bool asks_the_tree(struct found *found, const void *expected)
{
    uint8_t *bytes = malloc(found->record.value_size);
    ck_assert_ptr_nonnull(bytes);
    ck_assert_int_eq(chunks_copy(found->snapshot, &found->record, bytes), LARDER_OK);
    ck_assert_mem_eq(bytes, expected, found->record.value_size);
    free(bytes);
    return found->snapshot->chunks_known;
}

START_TEST(a_reader_goes_straight_to_the_pages)
{
    struct found found = find("key");
    ck_assert_uint_eq(found.record.chunk_count, CHUNKS);
    ck_assert_uint_eq(found.record.tail_size, SIZE - CHUNKS * CHUNK_SIZE);
    ck_assert_uint_eq(record_parts(&found.record), CHUNKS + 1);
    ck_assert(!asks_the_tree(&found, value));
    ck_assert_int_eq(chunks_verify(found.snapshot, &found.record), LARDER_OK);
    ck_assert(!found.snapshot->chunks_known);
    ck_assert_int_eq(chunks_verify_pages(found.snapshot, &found.record), LARDER_OK);
    ck_assert(found.snapshot->chunks_known);
    end(&found);
}
END_TEST

static int write_over_it(void *context)
{
    (void)context;
    for (unsigned round = 0; round < 50; round++) {
        if (larder_set(map, "key", 3, other, SIZE, NULL) != LARDER_OK ||
            larder_set(map, "other", 5, value, SIZE, NULL) != LARDER_OK) {
            return 1;
        }
    }
    return larder_delete(map, "key", 3);
}

START_TEST(a_snapshot_keeps_its_pages_while_others_write)
{
    struct found found = find("key");
    ck_assert_int_eq(maps_in_child(write_over_it, NULL), LARDER_OK);
    ck_assert(!asks_the_tree(&found, value));
    end(&found);
    ck_assert_int_eq(maps_has(map, "key"), LARDER_MISS);
    is("other", value);
}
END_TEST

START_TEST(pages_stay_right_while_the_tree_grows_and_shrinks)
{
    char name[16];
    uint64_t stream = harness_seed();
    for (unsigned round = 0; round < 1500; round++) {
        uint64_t random = harness_random(&stream);
        (void)snprintf(name, sizeof name, "k%u", (unsigned)(random % 150));
        size_t size = random >> 32 & 7 ? 3000 + (random >> 16) % 13000 : 20;
        ck_assert_int_eq((random >> 40 & 3) != 0
                             ? larder_set(map, name, strlen(name), other, size, NULL)
                             : maps_delete(map, name) & ~LARDER_MISS,
                         LARDER_OK);
        if (round % 100 == 0) {
            maps_whole(map); /* it looks where each chunk stands */
        }
    }
    struct found found = find("key"); /* leaves were copied, split and joined around it */
    ck_assert(!asks_the_tree(&found, value));
    end(&found);
}
END_TEST

START_TEST(a_touch_keeps_the_pages)
{
    larder_expiry expiry = {.kind = LARDER_EXPIRY_IN, .ms = 100000};
    ck_assert_int_eq(larder_touch(map, "key", 3, &expiry), LARDER_OK);
    struct found found = find("key");
    ck_assert(!asks_the_tree(&found, value));
    end(&found);
    maps_whole(map);
}
END_TEST

START_TEST(a_map_of_another_size_has_other_pages)
{
    bool changed;
    struct found found = find("key");
    uint32_t before = record_page(&found.record, 0);
    end(&found);
    ck_assert_int_eq(maps_delete(map, "other"), LARDER_OK);
    ck_assert_int_eq(upkeep_resize(map, 2 * MAPS_SIZE, &changed), LARDER_OK);
    ck_assert(changed);
    found = find("key");
    ck_assert_uint_ne(record_page(&found.record, 0), before);
    ck_assert(!asks_the_tree(&found, value));
    end(&found);
    maps_whole(map);
    is("key", value);
}
END_TEST

START_TEST(a_protected_map_names_pages_too)
{
    larder_close(&map);
    map = maps_open("protected", MAPS_SIZE, LARDER_PROTECT);
    ck_assert_int_eq(larder_set(map, "key", 3, value, SIZE, NULL), LARDER_OK);
    struct found found = find("key");
    ck_assert(!asks_the_tree(&found, value));
    end(&found);
    maps_whole(map);
}
END_TEST

START_TEST(a_record_does_not_name_pages_without_end)
{
    larder_close(&map);
    map = maps_open("large", 4 * MAPS_SIZE, 0);
    large = calloc(1, LARGE);
    ck_assert_ptr_nonnull(large);
    for (size_t i = 0; i < LARGE; i++) {
        large[i] = (uint8_t)(i * 7 + i / 251);
    }
    ck_assert_int_eq(larder_set(map, "key", 3, large, LARGE, NULL), LARDER_OK);
    struct found found = find("key");
    ck_assert_ptr_null(found.record.pages);
    ck_assert(asks_the_tree(&found, large));
    end(&found);
    ck_assert_int_eq(larder_set(map, "key", 3, large, RECORD_PAGES_MAX * CHUNK_SIZE + 17, NULL),
                     LARDER_OK);
    found = find("key");
    ck_assert(!asks_the_tree(&found, large));
    end(&found);
    maps_whole(map);
}
END_TEST

/* ---- Damage -----------------------------------------------------------------------------------
 */

/* Seal the record again with these pages in it (NULL: none). */
static void rename_pages(const char *text, const uint32_t *pages)
{
    struct writer writer;
    struct key key;
    struct record record;
    ck_assert_int_eq(writer_begin(&writer, map, 1000), LARDER_OK);
    ck_assert_int_eq(key_make(&key, text, strlen(text)), LARDER_OK);
    ck_assert_int_eq(entry_find(&writer.transaction, &key, &record), LARDER_OK);
    struct record changed = record;
    changed.pages = pages;
    ck_assert_int_eq(entry_reseal(&writer, &key, &record, &changed), LARDER_OK);
    ck_assert_int_eq(writer_commit(&writer), LARDER_OK);
}

static bool check_complains(void)
{
    inspect_report report;
    return inspect_check(map, &report) == LARDER_ECORRUPT &&
           strstr(report.damage, "does not stand on page") != NULL;
}

START_TEST(wrong_pages_lead_to_the_tree)
{
    uint32_t right[CHUNKS], theirs[CHUNKS];
    struct found found = find("other");
    memcpy(theirs, found.record.pages, sizeof theirs);
    end(&found);
    found = find("key");
    memcpy(right, found.record.pages, sizeof right);
    uint32_t root = (uint32_t)found.snapshot->tree.root;
    uint32_t pages = (uint32_t)found.snapshot->tree.pages;
    end(&found);
    const uint32_t wrong[] = {
        1,          pages - 1, pages,     pages + 1, MAPS_SIZE / PAGE - 1, root, MAPS_SIZE / PAGE,
        UINT32_MAX, theirs[0], theirs[1], right[1] /* another chunk of the same value */};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        uint32_t named[CHUNKS];
        memcpy(named, right, sizeof named);
        named[0] = wrong[i];
        rename_pages("key", named);
        ck_assert_msg(wrong[i] == right[0] || check_complains(), "page %u", wrong[i]);
        is("key", value);
        found = find("key");
        ck_assert(asks_the_tree(&found, value));
        end(&found);
        is("other", other);
    }
    rename_pages("key", theirs); /* all of them another value's */
    is("key", value);
    rename_pages("key", NULL);
    maps_whole(map); /* not to know them is no damage */
    is("key", value);
    rename_pages("key", right);
    maps_whole(map);
}
END_TEST

/* Pages that exist, but hold what is not a chunk: branches and leaves of a larger tree. */
START_TEST(pages_of_the_trees_are_no_chunks)
{
    char name[16];
    for (unsigned i = 0; i < 500; i++) {
        (void)snprintf(name, sizeof name, "small%u", i);
        ck_assert_int_eq(maps_set(map, name, name), LARDER_OK);
    }
    struct found found = find("key");
    ck_assert_uint_ge(found.snapshot->tree.depth, 2);
    const struct descent tree = found.snapshot->tree;
    for (uint32_t page = 1; page < tree.pages; page++) {
        for (size_t i = 0; i < CHUNKS; i++) {
            const void *at = store_chunk_at(found.snapshot, page, found.record.first_chunk + i);
            ck_assert_int_eq(at != NULL, page == record_page(&found.record, i));
        }
    }
    ck_assert_ptr_null(store_chunk_at(found.snapshot, 0, 0));
    end(&found);
}
END_TEST

/* The page in the file, to scribble on. */
static uint8_t *page_of(const struct found *found, size_t index)
{
    const struct store *store = found->snapshot->store;
    return (uint8_t *)(uintptr_t)store->base +
           (size_t)record_page(&found->record, index) * store->page_size;
}

START_TEST(scribbled_pages_are_never_another_value)
{
    static const struct {
        size_t offset, size;
        uint64_t with;
    } damage[] = {
        {0, 8, 5},        /* another page's number */
        {10, 2, 0x02},    /* a leaf */
        {10, 2, 0x01},    /* a branch */
        {12, 4, 0},       /* a run of none */
        {12, 4, 1000000}, /* a run beyond the file */
        {16, 8, 0},       /* of another chunk */
        {16, 8, UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof damage / sizeof damage[0]; i++) {
        larder *fresh = maps_new();
        larder_close(&map);
        map = fresh;
        ck_assert_int_eq(larder_set(map, "key", 3, value, SIZE, NULL), LARDER_OK);
        struct found found = find("key");
        memcpy(page_of(&found, 2) + damage[i].offset, &damage[i].with, damage[i].size);
        ck_assert_ptr_null(store_chunk_at(found.snapshot, record_page(&found.record, 2),
                                          found.record.first_chunk + 2));
        end(&found);
        larder_info info;
        ck_assert_int_eq(larder_get(map, "key", 3, got, sizeof got, &info), LARDER_MISS);
        ck_assert_uint_ge(maps_stats(map).read_corrupt, 1);
    }
}
END_TEST

START_TEST(scribbled_bytes_are_found_by_their_checksum)
{
    struct found found = find("key");
    page_of(&found, 3)[PAGE - 1] ^= 1;
    ck_assert_int_eq(chunks_verify(found.snapshot, &found.record), LARDER_ECORRUPT);
    end(&found);
    larder *verifying = maps_open(strrchr(map->map->path, '/') + 1, 0, LARDER_VERIFY);
    ck_assert_int_eq(larder_get(verifying, "key", 3, got, sizeof got, NULL), LARDER_MISS);
    ck_assert_int_eq(larder_get(verifying, "other", 5, got, sizeof got, NULL), LARDER_OK);
    larder_close(&verifying);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("chunks");
    TCase *tests = tcase_create("chunks");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, open_map, close_map);
    tcase_add_test(tests, a_reader_goes_straight_to_the_pages);
    tcase_add_test(tests, a_snapshot_keeps_its_pages_while_others_write);
    tcase_add_test(tests, pages_stay_right_while_the_tree_grows_and_shrinks);
    tcase_add_test(tests, a_touch_keeps_the_pages);
    tcase_add_test(tests, a_map_of_another_size_has_other_pages);
    tcase_add_test(tests, a_protected_map_names_pages_too);
    tcase_add_test(tests, a_record_does_not_name_pages_without_end);
    tcase_add_test(tests, wrong_pages_lead_to_the_tree);
    tcase_add_test(tests, pages_of_the_trees_are_no_chunks);
    tcase_add_test(tests, scribbled_pages_are_never_another_value);
    tcase_add_test(tests, scribbled_bytes_are_found_by_their_checksum);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
