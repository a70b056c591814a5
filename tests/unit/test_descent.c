/* test_descent.c: our own way down LMDB's trees against LMDB's: random trees of all key sizes, with
 * deletions; walks; numbers; and pages that are damaged in every way, between two pages that nobody
 * may touch.
 */
#include "descent.h"

#include <check.h>
#include <lmdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "key.h"
#include "store.h"
#include "tests/harness.h"

enum {
    MAP_BYTES = 256 << 20,
    PAGE = 4096,
    KEYS = 4000,
    KEY_MAX = 511,
    DATA_MAX = 6000,
    NUMBERS = 700
};

static MDB_env *env;
static MDB_dbi entries, numbers;
static uint64_t stream;
static uint8_t data_bytes[DATA_MAX];

static uint64_t below(uint64_t limit)
{
    return harness_random(&stream) % limit;
}

static void must(int code)
{
    ck_assert_msg(code == MDB_SUCCESS, "lmdb: %s", mdb_strerror(code));
}

static void open_env(void)
{
    MDB_txn *txn;
    const char *path = harness_path("trees");
    stream = harness_seed() ^ 17;
    for (size_t i = 0; i < sizeof data_bytes; i++) {
        data_bytes[i] = (uint8_t)below(256);
    }
    ck_assert_int_eq(mkdir(path, 0700), 0);
    must(mdb_env_create(&env));
    must(mdb_env_set_maxdbs(env, 2));
    must(mdb_env_set_mapsize(env, MAP_BYTES));
    must(mdb_env_open(env, path, MDB_WRITEMAP | MDB_NOSYNC | MDB_NOTLS, 0600));
    must(mdb_txn_begin(env, NULL, 0, &txn));
    must(mdb_dbi_open(txn, NULL, 0, &entries));
    must(mdb_dbi_open(txn, "\x01numbers", MDB_CREATE | MDB_INTEGERKEY, &numbers));
    must(mdb_txn_commit(txn));
}

static void close_env(void)
{
    char file[300];
    mdb_env_close(env);
    for (int i = 0; i < 2; i++) {
        (void)snprintf(file, sizeof file, "%s/%s", harness_path("trees"),
                       i == 0 ? "data.mdb" : "lock.mdb");
        (void)unlink(file);
    }
    (void)rmdir(harness_path("trees"));
}

/* ---- Keys ------------------------------------------------------------------------------------ */

struct key_bytes {
    size_t size;
    uint8_t bytes[KEY_MAX];
};

/* Keys as they are, and keys that are made to be mixed up: prefixes of one another, zeros at the
 * end, differences in the last byte of hundreds. */
static struct key_bytes random_key(void)
{
    static const char *const prefixes[] = {"bench:", "http://www.example.org/images/", "u", ""};
    struct key_bytes key = {.size = 0};
    const char *prefix = prefixes[below(4)];
    key.bytes[0] = 2;
    memcpy(key.bytes + 1, prefix, strlen(prefix));
    key.size = 1 + strlen(prefix);
    switch (below(6)) {
    case 0: /* a number of fixed width */
        key.size +=
            (size_t)snprintf((char *)key.bytes + key.size, 32, "%010u", (unsigned)below(100000));
        break;
    case 1: /* one that is as long as it is large */
        key.size +=
            (size_t)snprintf((char *)key.bytes + key.size, 32, "%u", (unsigned)below(20000));
        break;
    case 2: /* zeros and a little more */
        key.size += below(40);
        key.bytes[key.size++] = (uint8_t)below(3);
        break;
    case 3: /* long, alike up to near the end */
        memset(key.bytes + key.size, 'x', KEY_MAX - key.size);
        key.size = KEY_MAX - below(12);
        key.bytes[key.size - 1 - below(4)] = (uint8_t)below(256);
        break;
    case 4: /* anything, of any size */
        while (key.size < KEY_MAX && below(key.size < 60 ? 20 : 200) != 0)
            key.bytes[key.size++] = (uint8_t)below(256);
        break;
    default: /* short ones of all kinds */
        key.size = 1 + below(9);
        for (size_t i = 0; i < key.size; i++)
            key.bytes[i] = (uint8_t)(below(2) * 255 * below(2) + below(3));
        key.bytes[0] = 2;
        break;
    }
    return key;
}

static MDB_val val(const void *bytes, size_t size)
{
    return (MDB_val){.mv_size = size, .mv_data = (void *)(uintptr_t)bytes};
}

static void put(MDB_txn *txn, const struct key_bytes *key)
{
    size_t size = below(60) == 0 ? below(DATA_MAX) : below(200);
    MDB_val name = val(key->bytes, key->size), data = val(data_bytes + below(9), size / 2);
    must(mdb_put(txn, entries, &name, &data, 0));
}

/* The mapping that LMDB reads, from where a record lies in it. */
static const uint8_t *base_of(MDB_txn *txn)
{
    MDB_val key = val("\x01numbers", 8), data;
    uint64_t number;
    must(mdb_get(txn, entries, &key, &data));
    const uint8_t *page = (const uint8_t *)((uintptr_t)data.mv_data & ~(uintptr_t)(PAGE - 1));
    memcpy(&number, page, sizeof number);
    return page - number * PAGE;
}

static struct descent tree_of(MDB_txn *txn)
{
    struct descent tree;
    ck_assert(descent_begin(&tree, base_of(txn), PAGE, MAP_BYTES / PAGE, mdb_txn_id(txn)));
    return tree;
}

/* ---- The same as LMDB ------------------------------------------------------------------------ */

static void compare_get(MDB_txn *txn, const struct descent *tree, const struct key_bytes *key)
{
    MDB_val name = val(key->bytes, key->size), data;
    larder_bytes found = {0};
    int theirs = mdb_get(txn, entries, &name, &data);
    int ours = descent_find(tree, key->bytes, key->size, &found);
    ck_assert_int_eq(ours, theirs == MDB_NOTFOUND ? LARDER_MISS : LARDER_OK);
    if (ours == LARDER_OK) {
        ck_assert_ptr_eq(found.data, data.mv_data);
        ck_assert_uint_eq(found.size, data.mv_size);
    }
}

static void compare_next(MDB_cursor *cursor, const struct descent *tree,
                         const struct key_bytes *key, bool after)
{
    MDB_val name = val(key->bytes, key->size), data;
    larder_bytes found = {0}, bytes = {0};
    int theirs = mdb_cursor_get(cursor, &name, &data, MDB_SET_RANGE);
    if (theirs == MDB_SUCCESS && after && name.mv_size == key->size &&
        memcmp(name.mv_data, key->bytes, key->size) == 0) {
        theirs = mdb_cursor_get(cursor, &name, &data, MDB_NEXT);
    }
    int ours = descent_next(tree, key->bytes, key->size, after, &found, &bytes);
    ck_assert_int_eq(ours, theirs == MDB_NOTFOUND ? LARDER_MISS : LARDER_OK);
    if (ours == LARDER_OK) {
        ck_assert_ptr_eq(found.data, name.mv_data);
        ck_assert_uint_eq(found.size, name.mv_size);
        ck_assert_ptr_eq(bytes.data, data.mv_data);
        ck_assert_uint_eq(bytes.size, data.mv_size);
    }
}

START_TEST(random_trees_give_what_lmdb_gives)
{
    static struct key_bytes keys[KEYS];
    size_t count = 0;
    for (size_t round = 0; round < 60; round++) {
        MDB_txn *txn;
        must(mdb_txn_begin(env, NULL, 0, &txn));
        for (size_t i = 0; i < KEYS / 8; i++) {
            size_t at = count < KEYS ? count++ : below(KEYS);
            keys[at] = random_key();
            put(txn, &keys[at]);
        }
        for (size_t i = 0; round % 3 == 2 && i < KEYS / 4; i++) {
            struct key_bytes *gone = &keys[below(count)];
            MDB_val name = val(gone->bytes, gone->size);
            (void)mdb_del(txn, entries, &name, NULL);
        }
        must(mdb_txn_commit(txn));
        must(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn));
        MDB_cursor *cursor;
        must(mdb_cursor_open(txn, entries, &cursor));
        struct descent tree = tree_of(txn);
        for (size_t i = 0; i < count; i++) {
            struct key_bytes other = i % 2 == 0 ? keys[i] : random_key();
            if (i % 4 == 0) { /* a neighbour */
                other.bytes[other.size - 1] = (uint8_t)(other.bytes[other.size - 1] + 1);
            }
            compare_get(txn, &tree, &keys[i]);
            compare_get(txn, &tree, &other);
            if (i % 4 == round % 4) {
                compare_next(cursor, &tree, &keys[i], i % 8 < 4);
                compare_next(cursor, &tree, &other, i % 8 < 4);
            }
        }
        mdb_cursor_close(cursor);
        mdb_txn_abort(txn);
    }
}
END_TEST

START_TEST(empty_trees)
{
    MDB_txn *txn;
    struct descent_database database;
    struct descent_place place = {.page = NULL};
    larder_bytes bytes;
    uint64_t number;
    must(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn));
    struct descent tree = tree_of(txn);
    ck_assert_int_eq(descent_open(&tree, "\x01numbers", 8, &database), LARDER_OK);
    ck_assert_uint_eq(database.entries, 0);
    ck_assert_uint_eq(database.tree.depth, 0);
    ck_assert_int_eq(descent_find_number(&database.tree, 1, &place, &bytes), LARDER_MISS);
    ck_assert_int_eq(descent_next_number(&database.tree, 0, &number, &bytes), LARDER_MISS);
    ck_assert_int_eq(descent_open(&tree, "\x01nothing", 8, &database), LARDER_MISS);
    /* the record of a database is not a record */
    ck_assert_int_eq(descent_find(&tree, "\x01numbers", 8, &bytes), LARDER_ECORRUPT);
    ck_assert_int_eq(descent_find(&tree, "", 0, &bytes), LARDER_MISS);
    mdb_txn_abort(txn);
}
END_TEST

static void put_numbers(size_t count, uint64_t gap)
{
    MDB_txn *txn;
    uint64_t number = 0;
    must(mdb_txn_begin(env, NULL, 0, &txn));
    for (size_t i = 0; i < count; i++) {
        MDB_val key = val(&number, sizeof number), data = val(data_bytes, i % 5 == 0 ? 100 : 4080);
        must(mdb_put(txn, numbers, &key, &data, 0));
        number += 1 + below(gap);
    }
    must(mdb_txn_commit(txn));
}

START_TEST(numbers_with_and_without_gaps)
{
    MDB_txn *txn;
    struct descent_database database;
    struct descent_place place = {.page = NULL};
    put_numbers(NUMBERS, 1);
    put_numbers(NUMBERS, 700);
    must(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn));
    struct descent tree = tree_of(txn);
    ck_assert_int_eq(descent_open(&tree, "\x01numbers", 8, &database), LARDER_OK);
    ck_assert_uint_gt(database.tree.depth, 1);
    MDB_stat theirs;
    must(mdb_stat(txn, numbers, &theirs));
    ck_assert_uint_eq(database.entries, theirs.ms_entries);
    ck_assert_uint_eq(database.overflow_pages, theirs.ms_overflow_pages);
    uint64_t number = 0, walked = 0;
    for (size_t i = 0; i < 20000; i++) {
        larder_bytes bytes = {0};
        number = below(4) == 0 ? below(250000) : number + below(3);
        MDB_val key = val(&number, sizeof number), data;
        int code = mdb_get(txn, numbers, &key, &data);
        ck_assert_int_eq(descent_find_number(&database.tree, number, &place, &bytes),
                         code == MDB_NOTFOUND ? LARDER_MISS : LARDER_OK);
        if (code == MDB_SUCCESS) {
            ck_assert_ptr_eq(bytes.data, data.mv_data);
            ck_assert_uint_eq(bytes.size, data.mv_size);
        }
    }
    larder_bytes bytes;
    for (number = 0; descent_next_number(&database.tree, number, &number, &bytes) == LARDER_OK;
         number++) {
        walked++;
    }
    ck_assert_uint_eq(walked, theirs.ms_entries);
    mdb_txn_abort(txn);
}
END_TEST

START_TEST(a_meta_page_of_another_snapshot)
{
    MDB_txn *txn;
    struct descent tree;
    put_numbers(10, 1);
    must(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn));
    uint64_t number = mdb_txn_id(txn);
    const uint8_t *base = base_of(txn);
    ck_assert(descent_begin(&tree, base, PAGE, MAP_BYTES / PAGE, number));
    ck_assert(!descent_begin(&tree, base, PAGE, MAP_BYTES / PAGE, number + 2));
    ck_assert(!descent_begin(&tree, base, PAGE, 3, number)); /* pages beyond the mapping */
    mdb_txn_abort(txn);
}
END_TEST

/* ---- Damage ---------------------------------------------------------------------------------- */

static uint8_t *copy; /* of all used pages, the page before and the one behind are not there */
static const uint8_t *whole; /* as they were */
static size_t copy_pages;
static uint64_t copy_number;
static struct key_bytes known[KEYS];

static void make_copy(void)
{
    MDB_txn *txn;
    MDB_envinfo info;
    open_env();
    put_numbers(NUMBERS, 1);
    must(mdb_txn_begin(env, NULL, 0, &txn));
    for (size_t i = 0; i < KEYS; i++) {
        known[i] = random_key();
        put(txn, &known[i]);
    }
    must(mdb_txn_commit(txn));
    must(mdb_env_info(env, &info));
    copy_pages = info.me_last_pgno + 1;
    uint8_t *around =
        mmap(NULL, (copy_pages + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *original = malloc(copy_pages * PAGE);
    ck_assert(around != MAP_FAILED && original != NULL);
    copy = around + PAGE;
    ck_assert_int_eq(mprotect(copy, copy_pages * PAGE, PROT_READ | PROT_WRITE), 0);
    must(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn));
    copy_number = mdb_txn_id(txn);
    memcpy(original, base_of(txn), copy_pages * PAGE);
    memcpy(copy, original, copy_pages * PAGE);
    whole = original;
    mdb_txn_abort(txn);
}

static void drop_copy(void)
{
    (void)munmap(copy - PAGE, (copy_pages + 2) * PAGE);
    free((void *)(uintptr_t)whole);
    close_env();
}

static uint64_t sum;

/* Whatever a call says, it said so without leaving the pages; and what it gives lies in them. */
static void touch(int result, const larder_bytes *bytes)
{
    ck_assert(result == LARDER_OK || result == LARDER_MISS || result == LARDER_ECORRUPT);
    if (result == LARDER_OK && bytes->size > 0) {
        const uint8_t *at = bytes->data;
        ck_assert(at >= copy && bytes->size <= (size_t)(copy + copy_pages * PAGE - at));
        sum += at[0] + at[bytes->size - 1];
    }
}

/* Straight to a page, whatever it is. */
static bool look_straight(const struct descent *tree, uint64_t page)
{
    uint64_t begins = 0;
    if (page < copy_pages) {
        memcpy(&begins, copy + page * PAGE + 16, sizeof begins);
    }
    larder_bytes bytes = {.data = descent_page(tree, page, begins), .size = PAGE - 24};
    ck_assert_ptr_null(descent_page(tree, page, begins + 1));
    touch(bytes.data != NULL ? LARDER_OK : LARDER_MISS, &bytes);
    return bytes.data != NULL;
}

/* Look for some keys, walk from some, read some numbers. Returns how many calls found damage. */
static unsigned look(size_t looks)
{
    struct descent tree;
    struct descent_database database;
    struct descent_place place = {.page = NULL};
    larder_bytes found = {0}, bytes = {0};
    unsigned damaged = 0;
    uint64_t number = 0;
    if (!descent_begin(&tree, copy, PAGE, copy_pages, copy_number)) {
        return 1;
    }
    for (size_t i = 0; i < looks; i++) {
        (void)look_straight(&tree, below(4) == 0 ? UINT64_MAX >> below(64) : below(copy_pages));
        const struct key_bytes *key = &known[below(KEYS)];
        int result = descent_find(&tree, key->bytes, key->size, &bytes);
        touch(result, &bytes);
        damaged += result < 0;
        result = descent_next(&tree, key->bytes, key->size, i % 2 == 0, &found, &bytes);
        touch(result, &bytes);
        touch(result, &found);
        damaged += result < 0;
    }
    if (descent_open(&tree, "\x01numbers", 8, &database) != LARDER_OK) {
        return damaged + 1;
    }
    for (size_t i = 0; i < looks; i++) {
        int result = descent_find_number(&database.tree, below(NUMBERS), &place, &bytes);
        touch(result, &bytes);
        damaged += result < 0;
    }
    for (size_t i = 0; i < looks; i++) {
        uint64_t last = number;
        int result = descent_next_number(&database.tree, number, &number, &bytes);
        touch(result, &bytes);
        ck_assert_uint_ge(number, last);
        damaged += result < 0;
        number++;
    }
    return damaged;
}

START_TEST(bytes_flipped_anywhere)
{
    unsigned damaged = 0;
    ck_assert_uint_eq(look(2000), 0);
    for (size_t round = 0; round < 3000; round++) {
        size_t changed[16], count = 1 + below(16);
        for (size_t i = 0; i < count; i++) {
            size_t page = below(copy_pages) * PAGE;
            /* headers and pointers more often than the rest */
            changed[i] = page + (below(2) == 0 ? below(PAGE) : below(64));
            copy[changed[i]] = (uint8_t)below(256);
        }
        damaged += look(60);
        for (size_t i = 0; i < count; i++) {
            copy[changed[i]] = whole[changed[i]];
        }
    }
    ck_assert_uint_gt(damaged, 100); /* it is noticed, too */
    ck_assert_uint_eq(look(2000), 0);
}
END_TEST

/* One field of every page, and of every node of it, gets each of these. */
static const uint16_t extremes[] = {0,    1,    15,   16,   17,     24,    4080,
                                    4088, 4095, 4096, 4097, 0xfffe, 0xffff};

START_TEST(each_field_at_its_extremes)
{
    unsigned damaged = 0;
    for (size_t page = 0; page < copy_pages; page += 1 + below(4)) {
        for (size_t field = 0; field < 24; field += 2) {
            for (size_t i = 0; i < sizeof extremes / sizeof extremes[0]; i += 1 + below(3)) {
                memcpy(copy + page * PAGE + field, &extremes[i], 2);
                damaged += look(6);
            }
        }
        memcpy(copy + page * PAGE, whole + page * PAGE, PAGE);
    }
    /* and of the nodes of the roots, through which every way leads */
    struct descent tree;
    ck_assert(descent_begin(&tree, copy, PAGE, copy_pages, copy_number));
    ck_assert_uint_lt(tree.root, copy_pages);
    uint8_t *root = copy + tree.root * PAGE;
    for (size_t pointer = 16; pointer < 40; pointer += 2) {
        uint16_t node;
        memcpy(&node, root + pointer, sizeof node);
        for (size_t field = 0; field < 8 && node < PAGE - 8; field += 2) {
            for (size_t i = 0; i < sizeof extremes / sizeof extremes[0]; i++) {
                memcpy(root + node + field, &extremes[i], 2);
                damaged += look(30);
            }
            memcpy(root + node + field, whole + tree.root * PAGE + node + field, 2);
        }
    }
    ck_assert_uint_gt(damaged, 100);
    ck_assert_uint_eq(look(2000), 0);
}
END_TEST

/* Overflow pages that are no part of a run, and no others. */
START_TEST(straight_to_a_page)
{
    struct descent tree;
    unsigned found = 0;
    ck_assert(descent_begin(&tree, copy, PAGE, copy_pages, copy_number));
    for (uint64_t page = 0; page < copy_pages + 2; page++) {
        const uint8_t *at = whole + page * PAGE;
        uint64_t number = 0;
        uint32_t run = 0;
        bool single = false;
        if (page < tree.pages) {
            memcpy(&number, at, sizeof number);
            memcpy(&run, at + 12, sizeof run);
            single = number == page && (at[10] & 0x6f) == 0x04 && run == 1;
        }
        ck_assert_int_eq(look_straight(&tree, page), single);
        found += single;
    }
    ck_assert_uint_gt(found, 10);
    ck_assert_ptr_null(descent_page(&tree, UINT64_MAX, 0));
    ck_assert_ptr_null(descent_page(&tree, tree.pages, 0));
}
END_TEST

START_TEST(pages_that_lead_round_in_circles)
{
    struct descent tree;
    larder_bytes bytes, found;
    ck_assert(descent_begin(&tree, copy, PAGE, copy_pages, copy_number));
    ck_assert_uint_gt(tree.depth, 1);
    uint8_t *root = copy + tree.root * PAGE;
    uint16_t lower;
    memcpy(&lower, root + 12, sizeof lower);
    for (size_t pointer = 16; pointer < lower; pointer += 2) { /* each child is the root */
        uint16_t node;
        memcpy(&node, root + pointer, sizeof node);
        uint32_t low = (uint32_t)tree.root;
        memcpy(root + node, &low, sizeof low);
    }
    const struct key_bytes *key = &known[0];
    for (uint32_t depth = 1; depth <= 32; depth++) {
        tree.depth = depth;
        ck_assert_int_eq(descent_find(&tree, key->bytes, key->size, &bytes), LARDER_ECORRUPT);
        ck_assert_int_eq(descent_next(&tree, key->bytes, key->size, false, &found, &bytes),
                         LARDER_ECORRUPT);
    }
    /* a depth that no tree has */
    uint16_t deep = 33;
    uint8_t *meta = copy + (copy_number & 1) * PAGE;
    memcpy(meta + 16 + 72 + 6, &deep, sizeof deep);
    ck_assert(!descent_begin(&tree, copy, PAGE, copy_pages, copy_number));
}
END_TEST

/* ---- Readers and a writer -------------------------------------------------------------------- */

enum { STORE_BYTES = 16 << 20, STORE_KEYS = 2000, CHILDREN = 2, WRITES = 1000 };

static struct control *control;
static char store_path[256];
static _Atomic uint32_t *done;

/* A value says whose it is, and is of one piece. */
static size_t fill_value(uint8_t *value, uint64_t key, uint64_t version)
{
    size_t size = 16 + (key * 37 + version * 11) % 900;
    memcpy(value, &key, sizeof key);
    memcpy(value + 8, &version, sizeof version);
    memset(value + 16, (int)((key + version) & 0xff), size - 16);
    return size;
}

static size_t store_key(uint8_t *form, uint64_t key)
{
    form[0] = KEY_TAG;
    return 1 + (size_t)snprintf((char *)form + 1, 40, "key:%u", (unsigned)key);
}

static int read_beside_a_writer(void)
{
    struct store *store = NULL;
    struct transaction reader;
    uint8_t form[64], expected[1024];
    uint64_t stream_of_child = (uint64_t)getpid();
    unsigned hits = 0;
    if (store_open(store_path, control, 1, &store) != LARDER_OK || !store->descends ||
        store_reader_open(store, &reader, 1000) != LARDER_OK) {
        return 2;
    }
    while (atomic_load(done) == 0 || hits < 1000) {
        if (store_read_begin(&reader, NULL) != LARDER_OK) {
            continue;
        }
        for (unsigned i = 0; i < 20; i++) {
            uint64_t key = harness_random(&stream_of_child) % STORE_KEYS, version;
            size_t size = store_key(form, key);
            larder_bytes record;
            int result = store_entry_get(&reader, form, size, &record);
            if (result == LARDER_MISS)
                continue;
            if (result != LARDER_OK || record.size < 16)
                return 3;
            memcpy(&version, (const uint8_t *)record.data + 8, sizeof version);
            if (record.size != fill_value(expected, key, version) ||
                memcmp(expected, record.data, record.size) != 0)
                return 4;
            hits++;
        }
        store_read_end(&reader);
    }
    store_reader_close(&reader);
    store_close(&store);
    return 0;
}

START_TEST(readers_beside_a_writer_see_whole_values)
{
    struct store *store = NULL;
    pid_t children[CHILDREN];
    stream = harness_seed() ^ 18;
    control =
        mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    done = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(control != MAP_FAILED && done != MAP_FAILED);
    atomic_store(&control_life_of(control, 1)->map_size, STORE_BYTES);
    atomic_store(&control->generation, 1);
    overwrite_reset(&control->overwrites[1], 1);
    control->page_size = PAGE;
    control->mode = 0600;
    ck_assert_int_eq(gate_init(&control->reader_gate), 0);
    (void)snprintf(store_path, sizeof store_path, "%s", harness_path("store"));
    ck_assert_int_eq(mkdir(store_path, 0700), 0);
    ck_assert_int_eq(store_create(store_path, STORE_BYTES, false, 0600), LARDER_OK);
    for (int i = 0; i < CHILDREN; i++) {
        children[i] = fork();
        ck_assert_int_ge(children[i], 0);
        if (children[i] == 0)
            _exit(read_beside_a_writer());
    }
    ck_assert_int_eq(store_open(store_path, control, 1, &store), LARDER_OK);
    for (uint64_t version = 1; version <= WRITES; version++) {
        struct transaction writer;
        uint8_t form[64], value[1024];
        ck_assert_int_eq(store_write_begin(store, &writer), LARDER_OK);
        for (unsigned i = 0; i < 8; i++) {
            uint64_t key = below(STORE_KEYS);
            size_t size = store_key(form, key);
            if (below(5) == 0) {
                ck_assert_int_ge(store_entry_delete(&writer, form, size), 0);
            } else {
                size_t bytes = fill_value(value, key, version);
                ck_assert_int_eq(store_entry_put(&writer, form, size, value, bytes), LARDER_OK);
            }
        }
        ck_assert_int_eq(store_write_commit(&writer), LARDER_OK);
    }
    atomic_store(done, 1);
    for (int i = 0; i < CHILDREN; i++) {
        int status = -1;
        ck_assert_int_eq(waitpid(children[i], &status, 0), children[i]);
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a reader ended with %x",
                      (unsigned)status);
    }
    store_close(&store);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("descent");
    TCase *same = tcase_create("same");
    tcase_set_timeout(same, harness_patience(60000) / 1000);
    tcase_add_checked_fixture(same, open_env, close_env);
    tcase_add_test(same, empty_trees);
    tcase_add_test(same, random_trees_give_what_lmdb_gives);
    tcase_add_test(same, numbers_with_and_without_gaps);
    tcase_add_test(same, a_meta_page_of_another_snapshot);
    suite_add_tcase(suite, same);
    TCase *damage = tcase_create("damage");
    tcase_set_timeout(damage, harness_patience(60000) / 1000);
    tcase_add_checked_fixture(damage, make_copy, drop_copy);
    tcase_add_test(damage, bytes_flipped_anywhere);
    tcase_add_test(damage, each_field_at_its_extremes);
    tcase_add_test(damage, straight_to_a_page);
    tcase_add_test(damage, pages_that_lead_round_in_circles);
    suite_add_tcase(suite, damage);
    TCase *beside = tcase_create("beside");
    tcase_set_timeout(beside, harness_patience(60000) / 1000);
    tcase_add_test(beside, readers_beside_a_writer_see_whole_values);
    suite_add_tcase(suite, beside);
    return harness_run(suite);
}
