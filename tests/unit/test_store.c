/* test_store.c: one LMDB environment as the library sees it: snapshots, the three trees, sticky
 * transactions, full maps and reader tables, files that are missing, cut, foreign or damaged.
 */
#include "store.h"

#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "format.h"
#include "key.h"
#include "rows.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"

enum { MAP_BYTES = 16 << 20 };

static struct control *control;
static struct store *store;
static char path[256];

static void make_store(void)
{
    control =
        mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(control != MAP_FAILED);
    atomic_store(&control_life_of(control, 1)->map_size, MAP_BYTES);
    atomic_store(&control->generation, 1);
    overwrite_reset(&control->overwrites[1], 1);
    control->page_size = (uint32_t)sysconf(_SC_PAGESIZE);
    control->mode = 0600;
    ck_assert_int_eq(gate_init(&control->reader_gate), 0);
    (void)snprintf(path, sizeof path, "%s", harness_path("store"));
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_assert_int_eq(store_create(path, MAP_BYTES, false, 0600), LARDER_OK);
    store = NULL;
}

static void open_store(void)
{
    ck_assert_int_eq(store_open(path, control, 1, &store), LARDER_OK);
}

static void drop_store(void)
{
    char file[300];
    store_close(&store);
    ck_assert_ptr_null(store);
    (void)snprintf(file, sizeof file, "%s/data.mdb", path);
    (void)unlink(file);
    (void)snprintf(file, sizeof file, "%s/lock.mdb", path);
    (void)unlink(file);
    (void)rmdir(path);
    (void)munmap(control, sizeof *control);
}

/* ---- Small words -------------------------------------------------------------------------------
 */

static struct transaction begin_write(void)
{
    struct transaction t;
    ck_assert_int_eq(store_write_begin(store, &t), LARDER_OK);
    return t;
}

static struct transaction begin_read(void)
{
    struct transaction t;
    ck_assert_int_eq(store_reader_open(store, &t, 50), LARDER_OK);
    ck_assert_int_eq(store_read_begin(&t, NULL), LARDER_OK);
    return t;
}

static void end_read(struct transaction *t)
{
    store_read_end(t);
    store_reader_close(t);
}

static void put(struct transaction *t, const char *form, const char *record)
{
    ck_assert_int_eq(store_entry_put(t, form, strlen(form), record, strlen(record)), LARDER_OK);
}

/* The record equals the text; NULL: it is not there. */
static void is(struct transaction *t, const char *form, const char *record)
{
    larder_bytes bytes;
    int result = store_entry_get(t, form, strlen(form), &bytes);
    if (record == NULL) {
        ck_assert_int_eq(result, LARDER_MISS);
        return;
    }
    ck_assert_int_eq(result, LARDER_OK);
    ck_assert_uint_eq(bytes.size, strlen(record));
    ck_assert_mem_eq(bytes.data, record, bytes.size);
}

static void commit(struct transaction *t)
{
    ck_assert_int_eq(store_write_commit(t), LARDER_OK);
}

/* ---- Trees -------------------------------------------------------------------------------------
 */

START_TEST(entries_are_written_found_and_removed)
{
    larder_bytes existing;
    void *room = NULL;
    open_store();
    struct transaction t = begin_write();
    is(&t, "\2a", NULL);
    put(&t, "\2a", "one");
    is(&t, "\2a", "one");
    put(&t, "\2a", "another");
    is(&t, "\2a", "another");
    ck_assert_int_eq(store_entry_insert(&t, "\2b", 2, 3, &room, &existing), LARDER_OK);
    memcpy(room, "two", 3);
    ck_assert_int_eq(store_entry_insert(&t, "\2b", 2, 5, &room, &existing), LARDER_EXISTS);
    ck_assert_uint_eq(existing.size, 3);
    ck_assert_mem_eq(existing.data, "two", 3);
    put(&t, "\2b", "straight to where the insert stood");
    put(&t, "\2a", "elsewhere");
    is(&t, "\2b", "straight to where the insert stood");
    commit(&t);
    ck_assert_uint_eq(atomic_load(&control_life_of(control, 1)->committed), t.number);
    t = begin_write();
    ck_assert_int_eq(store_entry_delete(&t, "\2a", 2), LARDER_OK);
    ck_assert_int_eq(store_entry_delete(&t, "\2a", 2), LARDER_MISS);
    commit(&t);
    struct transaction r = begin_read();
    is(&r, "\2a", NULL);
    is(&r, "\2b", "straight to where the insert stood");
    end_read(&r);
}
END_TEST

START_TEST(a_snapshot_stands_still)
{
    open_store();
    struct transaction w = begin_write();
    put(&w, "\2k", "old");
    commit(&w);
    struct transaction r = begin_read();
    w = begin_write();
    put(&w, "\2k", "new");
    is(&r, "\2k", "old");
    commit(&w);
    is(&r, "\2k", "old");
    store_read_end(&r);
    ck_assert_int_eq(store_read_begin(&r, NULL), LARDER_OK);
    is(&r, "\2k", "new");
    end_read(&r);
}
END_TEST

START_TEST(what_is_not_committed_never_was)
{
    open_store();
    struct transaction w = begin_write();
    put(&w, "\2k", "old");
    commit(&w);
    uint64_t last = store_last_transaction(store);
    w = begin_write();
    put(&w, "\2k", "never");
    store_write_abort(&w);
    store_write_abort(&w); /* twice is once */
    w = begin_write();
    is(&w, "\2k", "old");
    commit(&w); /* without a change: aborted */
    ck_assert_uint_eq(store_last_transaction(store), last);
    ck_assert_uint_eq(atomic_load(&control_life_of(control, 1)->committed), last);
    w = begin_write();
    ck_assert_int_eq(store_touch(&w), LARDER_OK); /* nothing but a number */
    commit(&w);
    ck_assert_uint_eq(store_last_transaction(store), last + 1);
}
END_TEST

START_TEST(entries_come_in_byte_order)
{
    static const char *const forms[] = {"\2", "\2\1", "\2a", "\2a!", "\2b", "\2\xff"};
    larder_bytes found, record;
    open_store();
    struct transaction t = begin_write();
    for (size_t i = 5; i > 0; i--) {
        put(&t, forms[i], "x");
    }
    ck_assert_int_eq(store_touch(&t), LARDER_OK); /* below all entries: not to be seen */
    commit(&t);
    t = begin_read();
    for (size_t i = 0; i < 5; i++) {
        ck_assert_int_eq(store_entry_next(&t, forms[i], strlen(forms[i]), true, &found, &record),
                         LARDER_OK);
        ck_assert_uint_eq(found.size, strlen(forms[i + 1]));
        ck_assert_mem_eq(found.data, forms[i + 1], found.size);
    }
    ck_assert_int_eq(store_entry_next(&t, "\2\xff", 2, true, &found, &record), LARDER_MISS);
    ck_assert_int_eq(store_entry_next(&t, "\2a", 2, false, &found, &record), LARDER_OK);
    ck_assert_mem_eq(found.data, "\2a", 2);
    end_read(&t);
}
END_TEST

START_TEST(log_rows_come_in_numeric_order)
{
    static const uint64_t rows[] = {1, 2, 255, 256, 65536, UINT64_C(1) << 40};
    uint64_t row;
    larder_bytes form;
    open_store();
    struct transaction t = begin_write();
    for (size_t i = 0; i < 6; i++) {
        ck_assert_int_eq(store_log_append(&t, rows[i], "\2k", 2), LARDER_OK);
    }
    ck_assert_int_eq(store_log_append(&t, 100, "\2late", 5), LARDER_OK); /* not in order: allowed */
    ck_assert_int_eq(store_log_delete(&t, 100), LARDER_OK);
    ck_assert_int_eq(store_log_delete(&t, 100), LARDER_MISS);
    commit(&t);
    t = begin_read();
    uint64_t from = 0;
    for (size_t i = 0; i < 6; i++, from = row + 1) {
        ck_assert_int_eq(store_log_next(&t, from, &row, &form), LARDER_OK);
        ck_assert_uint_eq(row, rows[i]);
        ck_assert_uint_eq(form.size, 2);
    }
    ck_assert_int_eq(store_log_next(&t, from, &row, &form), LARDER_MISS);
    end_read(&t);
}
END_TEST

/* A log beside a model of it, by a writer and by a reader. */
enum { LOG_ROWS = 3000 };
static size_t log_sizes[LOG_ROWS]; /* 0: not there */

static void log_form(uint8_t form[KEY_FORM_MAX], uint64_t row, size_t size)
{
    memset(form, (int)(row % 251), size);
    form[0] = KEY_TAG;
}

static void same_log(struct transaction *t)
{
    uint8_t form[KEY_FORM_MAX];
    uint64_t from = 0, before = UINT64_MAX, row;
    larder_bytes found;
    for (uint64_t at = 0; at < LOG_ROWS; at++) {
        if (log_sizes[at] != 0) {
            ck_assert_int_eq(store_log_next(t, from, &row, &found), LARDER_OK);
            ck_assert_uint_eq(row, at);
            log_form(form, row, log_sizes[at]);
            ck_assert_uint_eq(found.size, log_sizes[at]);
            ck_assert_mem_eq(found.data, form, found.size);
            from = row + 1;
        }
    }
    ck_assert_int_eq(store_log_next(t, from, &row, &found), LARDER_MISS);
    ck_assert_int_eq(store_log_next(t, UINT64_MAX, &row, &found), LARDER_MISS);
    for (uint64_t at = LOG_ROWS; at-- > 0;) {
        if (log_sizes[at] != 0) {
            ck_assert_int_eq(store_log_previous(t, before, &row, &found), LARDER_OK);
            ck_assert_uint_eq(row, at);
            before = row;
        }
    }
    ck_assert_int_eq(store_log_previous(t, before, &row, &found), LARDER_MISS);
}

static void same_log_to_all(void)
{
    struct transaction t = begin_write();
    same_log(&t);
    store_write_abort(&t);
    t = begin_read();
    same_log(&t);
    end_read(&t);
}

static void a_log_of(size_t longest)
{
    uint64_t stream = harness_seed() ^ longest, used = 0, next = 1;
    open_store();
    memset(log_sizes, 0, sizeof log_sizes);
    struct transaction t = begin_write();
    put(&t, "\2k", "an entry before it");
    while (next < LOG_ROWS) {
        uint8_t form[KEY_FORM_MAX];
        size_t size = 2 + harness_random(&stream) % (longest - 1);
        uint64_t row = rows_number(next, size, &used);
        if (row >= LOG_ROWS) {
            break;
        }
        log_form(form, row, size);
        ck_assert_int_eq(store_log_append(&t, row, form, size), LARDER_OK);
        log_sizes[row] = size;
        next = row + 1;
        if (row % 7 == 0) {
            commit(&t);
            t = begin_write();
        }
        uint64_t gone = harness_random(&stream) % LOG_ROWS;
        if (row % 3 == 0) {
            ck_assert_int_eq(store_log_delete(&t, gone),
                             log_sizes[gone] != 0 ? LARDER_OK : LARDER_MISS);
            log_sizes[gone] = 0;
        }
    }
    commit(&t);
    same_log_to_all();
    t = begin_write();
    for (uint64_t row = 0; row < LOG_ROWS; row++) {
        if (log_sizes[row] != 0 && row % 5 != 0) {
            ck_assert_int_eq(store_log_delete(&t, row), LARDER_OK);
            log_sizes[row] = 0;
        }
    }
    commit(&t);
    same_log_to_all();
    t = begin_write();
    for (uint64_t row = 0; row < LOG_ROWS; row++) {
        (void)store_log_delete(&t, row);
        log_sizes[row] = 0;
    }
    commit(&t);
    same_log_to_all();
}

START_TEST(a_log_of_short_keys)
{
    a_log_of(40);
}
END_TEST

START_TEST(a_log_of_keys_of_every_size)
{
    a_log_of(KEY_FORM_MAX);
}
END_TEST

START_TEST(log_pages_are_full)
{
    enum { ROWS = 20000, FORM = 17, LOG_PAGE = 4096 };
    uint8_t form[KEY_FORM_MAX];
    open_store();
    struct transaction t = begin_write();
    for (uint64_t row = 1; row <= ROWS; row++) {
        log_form(form, row, FORM);
        ck_assert_int_eq(store_log_append(&t, row, form, FORM), LARDER_OK);
        if (row % 11 == 0) {
            commit(&t);
            t = begin_write();
        }
    }
    commit(&t);
    t = begin_read();
    ck_assert_uint_le(store_used_pages(&t) * LOG_PAGE, ROWS * (FORM + 4));
    end_read(&t);
}
END_TEST

/* Entries beside a model of them, while leaves are joined. */
enum { LEAF_ENTRIES = 3000 };
static size_t leaf_sizes[LEAF_ENTRIES]; /* 0: not there */

static size_t leaf_form(uint8_t form[KEY_FORM_MAX], unsigned entry)
{
    size_t size = (size_t)snprintf((char *)form, KEY_FORM_MAX, "\2%x", entry * 2654435761u);
    if (entry % 16 == 0) { /* some are long */
        memset(form + size, 'l', 400);
        size += 400;
    }
    return size;
}

static void leaf_change(struct transaction *t, unsigned entry, size_t size)
{
    static uint8_t value[2100];
    uint8_t form[KEY_FORM_MAX];
    size_t form_size = leaf_form(form, entry);
    if (size == 0) {
        ck_assert_int_eq(store_entry_delete(t, form, form_size),
                         leaf_sizes[entry] != 0 ? LARDER_OK : LARDER_MISS);
    } else {
        memset(value, (int)(entry + size), size);
        ck_assert_int_eq(store_entry_put(t, form, form_size, value, size), LARDER_OK);
    }
    leaf_sizes[entry] = size;
}

static void same_entries(struct transaction *t)
{
    uint8_t form[KEY_FORM_MAX];
    size_t there = 0;
    larder_bytes key, bytes;
    for (unsigned entry = 0; entry < LEAF_ENTRIES; entry++) {
        int result = store_entry_get(t, form, leaf_form(form, entry), &bytes);
        ck_assert_int_eq(result, leaf_sizes[entry] != 0 ? LARDER_OK : LARDER_MISS);
        if (result == LARDER_OK) {
            ck_assert_uint_eq(bytes.size, leaf_sizes[entry]);
            ck_assert_uint_eq(((const uint8_t *)bytes.data)[bytes.size - 1],
                              (uint8_t)(entry + bytes.size));
            there++;
        }
    }
    uint8_t at[KEY_FORM_MAX] = {KEY_TAG};
    for (size_t size = 1; store_entry_next(t, at, size, true, &key, &bytes) == LARDER_OK;) {
        size = key.size;
        memcpy(at, key.data, size);
        there--;
    }
    ck_assert_uint_eq(there, 0);
}

static size_t leaf_bytes(void)
{
    size_t bytes = 0;
    for (unsigned entry = 0; entry < LEAF_ENTRIES; entry++) {
        bytes += leaf_sizes[entry] != 0 ? leaf_sizes[entry] + 24 : 0;
    }
    return bytes;
}

/* In and out at random: how full the pages are then, in per cent. */
static unsigned long churn_leaves(size_t largest)
{
    uint64_t stream = harness_seed() ^ largest;
    memset(leaf_sizes, 0, sizeof leaf_sizes);
    struct transaction t = begin_write();
    for (unsigned turn = 0; turn < 40 * LEAF_ENTRIES; turn++) {
        unsigned entry = (unsigned)(harness_random(&stream) % LEAF_ENTRIES);
        leaf_change(&t, entry, leaf_sizes[entry] != 0 ? 0 : 1 + harness_random(&stream) % largest);
        if (turn % 10 == 0) {
            commit(&t);
            t = begin_write();
        }
        if (turn % 10000 == 0) {
            same_entries(&t);
        }
    }
    commit(&t);
    t = begin_write();
    same_entries(&t);
    store_write_abort(&t);
    t = begin_read();
    same_entries(&t);
    unsigned long full = 100 * leaf_bytes() / (store_used_pages(&t) * 4096);
    end_read(&t);
    t = begin_write();
    for (unsigned entry = 0; entry < LEAF_ENTRIES; entry++) {
        leaf_change(&t, entry, 0);
    }
    commit(&t);
    return full;
}

START_TEST(leaves_are_joined)
{
    open_store();
    (void)churn_leaves(60);
    ck_assert_uint_ge(churn_leaves(600), 50);
    (void)churn_leaves(2000); /* two of them hardly ever fit into one */
    struct transaction t = begin_read();
    ck_assert_uint_le(store_used_pages(&t), 12); /* nothing is left but the free list */
    end_read(&t);
}
END_TEST

START_TEST(leaves_of_a_protected_map_are_not_joined_but_right)
{
    control->flags = LARDER_PROTECT;
    open_store();
    (void)churn_leaves(600);
}
END_TEST

START_TEST(chunks_are_a_page_each)
{
    static uint8_t bytes[CHUNK_SIZE];
    uint32_t pages[51];
    uint64_t id;
    larder_bytes data;
    open_store();
    memset(bytes, 'c', sizeof bytes);
    struct transaction t = begin_write();
    uint64_t before = store_used_pages(&t);
    for (uint64_t i = 1; i <= 50; i++) {
        size_t size = i % 2 == 0 ? sizeof bytes : 0; /* whatever their size */
        ck_assert_int_eq(store_chunk_put(&t, i * 2, bytes, size, &pages[i]), LARDER_OK);
        ck_assert_uint_ne(pages[i], 0);
    }
    uint64_t used = store_used_pages(&t) - before;
    ck_assert_uint_ge(used, 50);
    ck_assert_uint_le(used, 54); /* and the tree above them */
    commit(&t);
    t = begin_write();
    ck_assert_int_eq(store_chunk_get(&t, 4, &data), LARDER_OK);
    ck_assert_uint_eq(data.size, sizeof bytes);
    ck_assert_mem_eq(data.data, bytes, sizeof bytes);
    ck_assert(!store_chunks_direct(&t)); /* writers ask the tree */
    ck_assert_int_eq(store_chunk_get(&t, 5, &data), LARDER_MISS);
    ck_assert_int_eq(store_chunk_next(&t, 5, &id), LARDER_OK);
    ck_assert_uint_eq(id, 6);
    ck_assert_int_eq(store_chunk_delete(&t, 6), LARDER_OK);
    ck_assert_int_eq(store_chunk_delete(&t, 6), LARDER_MISS);
    ck_assert_int_eq(store_chunk_next(&t, 5, &id), LARDER_OK);
    ck_assert_uint_eq(id, 8);
    ck_assert_int_eq(store_chunk_next(&t, 101, &id), LARDER_MISS);
    commit(&t);
    t = begin_read();
    ck_assert(store_chunks_direct(&t));
    for (uint64_t i = 1; i <= 50; i++) {
        if (i * 2 != 6) {
            ck_assert_int_eq(store_chunk_get(&t, i * 2, &data), LARDER_OK);
            ck_assert_ptr_eq(store_chunk_at(&t, pages[i], i * 2), data.data);
            ck_assert_ptr_null(store_chunk_at(&t, pages[i], i * 2 + 1));
        }
    }
    end_read(&t);
}
END_TEST

/* ---- Errors ------------------------------------------------------------------------------------
 */

START_TEST(a_failure_sticks_to_the_transaction)
{
    larder_bytes bytes, form;
    uint64_t row, id;
    void *room;
    open_store();
    struct transaction t = begin_write();
    put(&t, "\2a", "one");
    ck_assert_int_eq(store_entry_put(&t, "", 0, "x", 1), LARDER_ESYSTEM); /* LMDB has no such key */
    ck_assert_int_eq(t.error, LARDER_ESYSTEM);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "writing an entry"));
    ck_assert_int_eq(store_entry_get(&t, "\2a", 2, &bytes), LARDER_ESYSTEM);
    ck_assert_int_eq(store_entry_put(&t, "\2b", 2, "x", 1), LARDER_ESYSTEM);
    ck_assert_int_eq(store_entry_insert(&t, "\2b", 2, 1, &room, &bytes), LARDER_ESYSTEM);
    ck_assert_int_eq(store_entry_delete(&t, "\2a", 2), LARDER_ESYSTEM);
    ck_assert_int_eq(store_entry_next(&t, "\2", 1, true, &form, &bytes), LARDER_ESYSTEM);
    ck_assert_int_eq(store_log_append(&t, 1, "\2a", 2), LARDER_ESYSTEM);
    ck_assert_int_eq(store_log_next(&t, 0, &row, &form), LARDER_ESYSTEM);
    ck_assert_int_eq(store_chunk_get(&t, 1, &bytes), LARDER_ESYSTEM);
    ck_assert_int_eq(store_chunk_next(&t, 0, &id), LARDER_ESYSTEM);
    ck_assert_int_eq(store_touch(&t), LARDER_ESYSTEM);
    ck_assert_int_eq(store_write_commit(&t), LARDER_ESYSTEM);
    t = begin_write();
    is(&t, "\2a", NULL);
    commit(&t);
    ck_assert_uint_eq(atomic_load(&control->generation), 1); /* no damage */
}
END_TEST

START_TEST(a_full_map_says_so_and_keeps_what_it_has)
{
    static uint8_t bytes[CHUNK_SIZE];
    open_store();
    struct transaction t = begin_write();
    put(&t, "\2a", "one");
    commit(&t);
    t = begin_write();
    ck_assert(store_has_fresh_pages(store, 100));
    ck_assert(!store_has_fresh_pages(store, MAP_BYTES / 4096));
    int result = LARDER_OK;
    for (uint64_t i = 1; result == LARDER_OK; i++) {
        ck_assert_uint_le(i, MAP_BYTES / CHUNK_SIZE);
        uint32_t page;
        result = store_chunk_put(&t, i, bytes, sizeof bytes, &page);
    }
    ck_assert_int_eq(result, LARDER_EFULL);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "full"));
    ck_assert_int_eq(store_write_commit(&t), LARDER_EFULL);
    t = begin_write();
    is(&t, "\2a", "one");
    put(&t, "\2b", "two");
    commit(&t);
}
END_TEST

START_TEST(a_reader_table_that_is_full)
{
    static struct transaction readers[CONTROL_MAX_READERS + 1];
    open_store();
    size_t count = 0;
    int result;
    while ((result = store_reader_open(store, &readers[count], 50)) == LARDER_OK) {
        count++;
        ck_assert_uint_le(count, CONTROL_MAX_READERS);
    }
    ck_assert_int_eq(result, LARDER_ELIMIT);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "all 4096 reader slots"));
    ck_assert_uint_eq(count, CONTROL_MAX_READERS);
    store_reader_close(&readers[--count]);
    ck_assert_int_eq(store_reader_open(store, &readers[count], 50), LARDER_OK);
    count++;
    while (count > 0) {
        store_reader_close(&readers[--count]);
    }
    store_reader_close(&readers[0]); /* closed already */
}
END_TEST

START_TEST(a_held_reader_gate_is_busy_in_time)
{
    struct transaction t;
    open_store();
    struct maps_holder holder = maps_hold(&control->reader_gate);
    int64_t began = harness_now_ms();
    ck_assert_int_eq(store_reader_open(store, &t, 30), LARDER_EBUSY);
    ck_assert_int_le(harness_now_ms() - began, 30 + harness_patience(1000));
    maps_let_go(&holder);
    ck_assert_int_eq(store_reader_open(store, &t, 30), LARDER_OK);
    store_reader_close(&t);
}
END_TEST

START_TEST(writers_that_are_always_ahead_make_a_read_busy)
{
    open_store();
    struct transaction w = begin_write(), r = begin_read();
    put(&w, "\2a", "one");
    commit(&w);
    store_read_end(&r);
    uint64_t announced = atomic_exchange(&control_life_of(control, 1)->announced, w.number + 2);
    ck_assert_int_eq(store_read_begin(&r, NULL), LARDER_EBUSY);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "100 tries"));
    atomic_store(&control_life_of(control, 1)->announced, announced);
    struct stats_slot slot = {.pid = 1};
    ck_assert_int_eq(store_read_begin(&r, &slot), LARDER_OK);
    ck_assert_uint_eq(atomic_load(&slot.counters[STATS_LOOKUPS]), 1);
    is(&r, "\2a", "one");
    end_read(&r);
}
END_TEST

/* ---- Readers -----------------------------------------------------------------------------------
 */

static int read_and_die(void *context)
{
    (void)context;
    struct store *own = NULL;
    struct transaction t;
    store_forget(&store);
    if (store_open(path, control, 1, &own) != LARDER_OK ||
        store_reader_open(own, &t, 1000) != LARDER_OK || store_read_begin(&t, NULL) != LARDER_OK) {
        return 1;
    }
    (void)kill(getpid(), SIGKILL);
    return 2;
}

START_TEST(dead_readers_are_listed_and_cleared)
{
    inspect_reader readers[4];
    size_t found = 9;
    uint64_t snapshot;
    int cleared = -1;
    open_store();
    ck_assert_int_eq(store_list_readers(store, readers, 4, &found), LARDER_OK);
    ck_assert_uint_eq(found, 0);
    ck_assert_int_eq(store_oldest_reader(store, &snapshot), 0);
    ck_assert_int_eq(maps_in_child(read_and_die, NULL), -SIGKILL);
    for (int i = 0; i < 3; i++) {
        struct transaction w = begin_write();
        put(&w, "\2a", i % 2 == 0 ? "one" : "two");
        commit(&w);
    }
    struct transaction r = begin_read();
    ck_assert_int_eq(store_list_readers(store, readers, 1, &found), LARDER_OK); /* room for one */
    ck_assert_uint_eq(found, 2);
    ck_assert_int_eq(store_list_readers(store, readers, 4, &found), LARDER_OK);
    ck_assert_uint_eq(found, 2);
    ck_assert_int_ne(readers[0].pid, getpid());
    ck_assert(!readers[0].alive);
    ck_assert_uint_eq(readers[0].lag, 3);
    ck_assert_uint_eq(readers[0].transaction + 3, store_last_transaction(store));
    ck_assert_int_eq(readers[1].pid, getpid());
    ck_assert(readers[1].alive);
    ck_assert_uint_eq(readers[1].lag, 0);
    ck_assert_int_eq(store_oldest_reader(store, &snapshot), readers[0].pid);
    ck_assert_uint_eq(snapshot, readers[0].transaction);
    ck_assert_int_eq(store_clear_dead_readers(store, &cleared), LARDER_OK);
    ck_assert_int_eq(cleared, 1);
    ck_assert_int_eq(store_clear_dead_readers(store, NULL), LARDER_OK);
    store_read_end(&r);
    ck_assert_int_eq(store_list_readers(store, readers, 4, &found), LARDER_OK);
    ck_assert_uint_eq(found, 1);
    ck_assert_uint_eq(readers[0].transaction, UINT64_MAX);
    ck_assert_uint_eq(readers[0].lag, 0);
    store_reader_close(&r);
}
END_TEST

/* ---- Files -------------------------------------------------------------------------------------
 */

static void not_opened(int code, const char *why)
{
    ck_assert_int_eq(store_open(path, control, 1, &store), code);
    ck_assert_ptr_null(store);
    ck_assert_msg(strstr(larder_last_error(), why) != NULL, "\"%s\" does not say \"%s\"",
                  larder_last_error(), why);
}

START_TEST(files_that_are_missing_cut_or_foreign)
{
    char data[300], lock[300], aside[300];
    (void)snprintf(data, sizeof data, "%s/data.mdb", path);
    (void)snprintf(lock, sizeof lock, "%s/lock.mdb", path);
    (void)snprintf(aside, sizeof aside, "%s/aside", path);
    ck_assert_int_eq(rename(data, aside), 0);
    not_opened(LARDER_ECORRUPT, "data.mdb");
    ck_assert_int_eq(symlink(aside, data), 0);
    not_opened(LARDER_EACCESS, "not a regular file");
    ck_assert_int_eq(unlink(data), 0);
    ck_assert_int_eq(rename(aside, data), 0);
    ck_assert_int_eq(unlink(lock), 0);
    not_opened(LARDER_ECORRUPT, "lock.mdb");
    int file = open(lock, O_WRONLY | O_CREAT, 0600);
    ck_assert_int_eq(write(file, "garbage", 7), 7);
    (void)close(file);
    open_store(); /* LMDB makes a lock file anew that nobody has open */
    store_close(&store);
    ck_assert_int_eq(truncate(data, 8192), 0);
    not_opened(LARDER_ECORRUPT, "8192 bytes, it should have 16777216");
    ck_assert_int_eq(truncate(data, 0), 0);
    ck_assert_int_eq(truncate(data, MAP_BYTES), 0);
    not_opened(LARDER_ECORRUPT, "map's"); /* all zero: no databases */
    file = open(data, O_WRONLY | O_TRUNC);
    for (int i = 0; i < 1024; i++) {
        ck_assert_int_eq(write(file, "not LMDB's, but some text of that size", 38), 38);
    }
    (void)close(file);
    ck_assert_int_eq(truncate(data, MAP_BYTES), 0);
    not_opened(LARDER_ECORRUPT, "opening the map's files");
}
END_TEST

START_TEST(a_file_system_that_is_too_small)
{
    struct statvfs space;
    const char *other = harness_path("huge");
    char file[300];
    ck_assert_int_eq(mkdir(other, 0700), 0);
    ck_assert_int_eq(statvfs(other, &space), 0);
    uint64_t size =
        ((uint64_t)space.f_blocks * space.f_frsize + (UINT64_C(1) << 30)) & ~UINT64_C(4095);
    if (space.f_blocks > 0) {
        ck_assert_int_eq(store_create(other, size, true, 0600), LARDER_ENOSPACE);
        ck_assert_ptr_nonnull(strstr(larder_last_error(), "map of "));
    }
    (void)snprintf(file, sizeof file, "%s/data.mdb", other);
    (void)unlink(file);
    (void)snprintf(file, sizeof file, "%s/lock.mdb", other);
    (void)unlink(file);
    ck_assert_int_eq(rmdir(other), 0);
    ck_assert_int_eq(store_create(other, MAP_BYTES, true, 0600), LARDER_ESYSTEM); /* no directory */
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "lock.mdb"));
}
END_TEST

START_TEST(a_protected_map_is_written_all_the_same)
{
    control->flags = LARDER_PROTECT;
    open_store();
    struct transaction t = begin_write();
    put(&t, "\2a", "one");
    commit(&t);
    struct transaction r = begin_read();
    is(&r, "\2a", "one");
    end_read(&r);
}
END_TEST

/* LMDB's page header: number, pad, flags, lower, upper. */
struct page_header {
    uint64_t number;
    uint16_t pad, flags, lower, upper;
};

/* Make every branch page of the file claim that it has one key: LMDB asserts that there are more.
 */
static size_t damage_branches(void)
{
    char data[300];
    struct page_header page;
    size_t damaged = 0;
    (void)snprintf(data, sizeof data, "%s/data.mdb", path);
    int file = open(data, O_RDWR);
    ck_assert_int_ge(file, 0);
    for (off_t at = 2 * 4096; at < MAP_BYTES; at += 4096) {
        ck_assert_int_eq(pread(file, &page, sizeof page, at), (ssize_t)sizeof page);
        if ((page.flags & 1) != 0 && page.number == (uint64_t)at / 4096) {
            page.lower = 16 + 2;
            ck_assert_int_eq(pwrite(file, &page, sizeof page, at), (ssize_t)sizeof page);
            damaged++;
        }
    }
    (void)close(file);
    return damaged;
}

START_TEST(an_assertion_of_lmdbs_does_not_end_the_program)
{
    static void *given_up[3]; /* the price; whoever looks for leaks shall find them here */
    char form[16];
    larder_bytes bytes;
    open_store();
    struct transaction t = begin_write();
    for (int i = 0; i < 1000; i++) {
        (void)snprintf(form, sizeof form, "\2key%d", i);
        put(&t, form, "some record of some bytes that fills pages a little faster");
    }
    commit(&t);
    t = begin_read();
    given_up[0] = store->env;
    given_up[1] = t.txn;
    ck_assert_uint_gt(damage_branches(), 0);
    /* a reader finds its own way, and sees the damage */
    ck_assert_int_eq(store_entry_get(&t, "\2key5", 5, &bytes), LARDER_ECORRUPT);
    ck_assert(!atomic_load(&store->hosed));
    ck_assert_uint_eq(atomic_load(&control->generation), 1 | GENERATION_POISONED);
    atomic_store(&control->generation, 1);
    /* a writer asks LMDB */
    struct transaction w = begin_write();
    given_up[2] = w.txn;
    ck_assert_int_eq(store_entry_get(&w, "\2key5", 5, &bytes), LARDER_ECORRUPT);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "assertion"));
    ck_assert(atomic_load(&store->hosed));
    ck_assert_uint_eq(atomic_load(&control->generation), 1 | GENERATION_POISONED);
    store_write_abort(&w);
    /* that environment is never touched again */
    ck_assert_int_eq(store_write_begin(store, &w), LARDER_ECORRUPT);
    end_read(&t);
    ck_assert_ptr_nonnull(given_up[0]);
    ck_assert_ptr_nonnull(given_up[1]);
    ck_assert_ptr_nonnull(given_up[2]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("store");
    TCase *tests = tcase_create("store");
    tcase_set_timeout(tests, harness_patience(30000) / 1000);
    tcase_add_checked_fixture(tests, make_store, drop_store);
    tcase_add_test(tests, entries_are_written_found_and_removed);
    tcase_add_test(tests, a_snapshot_stands_still);
    tcase_add_test(tests, what_is_not_committed_never_was);
    tcase_add_test(tests, entries_come_in_byte_order);
    tcase_add_test(tests, log_rows_come_in_numeric_order);
    tcase_add_test(tests, a_log_of_short_keys);
    tcase_add_test(tests, a_log_of_keys_of_every_size);
    tcase_add_test(tests, log_pages_are_full);
    tcase_add_test(tests, leaves_are_joined);
    tcase_add_test(tests, leaves_of_a_protected_map_are_not_joined_but_right);
    tcase_add_test(tests, chunks_are_a_page_each);
    tcase_add_test(tests, a_failure_sticks_to_the_transaction);
    tcase_add_test(tests, a_full_map_says_so_and_keeps_what_it_has);
    tcase_add_test(tests, a_reader_table_that_is_full);
    tcase_add_test(tests, a_held_reader_gate_is_busy_in_time);
    tcase_add_test(tests, writers_that_are_always_ahead_make_a_read_busy);
    tcase_add_test(tests, dead_readers_are_listed_and_cleared);
    tcase_add_test(tests, files_that_are_missing_cut_or_foreign);
    tcase_add_test(tests, a_file_system_that_is_too_small);
    tcase_add_test(tests, a_protected_map_is_written_all_the_same);
    tcase_add_test(tests, an_assertion_of_lmdbs_does_not_end_the_program);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
