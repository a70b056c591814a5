/* store_log.c: the log's blocks of rows (rows.h) at the right edge of the main tree. */
#include "store.h"

#include <endian.h>
#include <string.h>

#include "format.h"
#include "rows.h"
#include "store_leaves.h"
#include "store_lmdb.h"

enum {
    ROW_FORM = 7,  /* the tag and a block's number, most significant byte first. MAP_FORMAT */
    ROW_SHIFT = 16 /* of a 64-bit number: its first two bytes are always zero */
};

static MDB_val block_form(uint8_t form[ROW_FORM], uint64_t row)
{
    row = row < RECORD_ROW_MAX ? row : RECORD_ROW_MAX;
    uint64_t big_endian = htobe64(ROWS_BLOCK(row) << ROW_SHIFT);
    form[0] = LMDB_ROW_TAG;
    memcpy(form + 1, &big_endian, ROW_FORM - 1);
    return lmdb_value(form, ROW_FORM);
}

/* The first row of the block under that key. False: it is none. */
static bool take_block(const MDB_val *key, uint64_t *row)
{
    uint64_t big_endian = 0;
    if (key->mv_size != ROW_FORM || *(const uint8_t *)key->mv_data != LMDB_ROW_TAG) {
        return false;
    }
    memcpy(&big_endian, (const uint8_t *)key->mv_data + 1, ROW_FORM - 1);
    *row = be64toh(big_endian) >> ROW_SHIFT << ROWS_BITS;
    return true;
}

/* What rows.c found, as the transaction's result. */
static int rows_found(struct transaction *t, int result, const char *what)
{
    return result == LARDER_ECORRUPT ? lmdb_fail(t, MDB_CORRUPTED, what) : result;
}

/* The writer's cursor in the log, opened when it is first needed. */
static int rows_get(struct transaction *t, MDB_val *key, MDB_val *data, MDB_cursor_op op)
{
    volatile int code = MDB_PANIC;
    LMDB_GUARDED(
        {
            code = MDB_SUCCESS;
            if (t->rows == NULL) {
                code = mdb_cursor_open(t->txn, LMDB_ENTRIES, &t->rows);
            }
            if (code == MDB_SUCCESS) {
                code = mdb_cursor_get(t->rows, key, data, op);
            }
        },
        return MDB_CORRUPTED);
    if (code == MDB_SUCCESS && (!lmdb_in_page(t, key) || !lmdb_in_page(t, data))) {
        return MDB_CORRUPTED;
    }
    return code;
}

static int rows_put(struct transaction *t, MDB_val *key, MDB_val *data, unsigned flags,
                    const char *what)
{
    t->changed = true;
    volatile int code = MDB_PANIC;
    LMDB_GUARDED(code = mdb_cursor_put(t->rows, key, data, flags), return lmdb_hosed(t));
    return code == MDB_SUCCESS ? LARDER_OK : lmdb_fail(t, code, what);
}

/* The one where the cursor stands. */
static int delete_block(struct transaction *t, const char *what)
{
    t->changed = true;
    volatile int code = MDB_PANIC;
    LMDB_GUARDED(code = mdb_cursor_del(t->rows, 0), return lmdb_hosed(t));
    return code == MDB_SUCCESS ? LARDER_OK : lmdb_fail(t, code, what);
}

/* Whether a record may grow by so much on its page. Where the page cannot be seen: yes. MAP_FORMAT
 */
static bool may_grow(const struct transaction *t, const MDB_val *data, size_t more)
{
    const uint8_t *page = leaves_page_of(t, data);
    return page == NULL ||
           LEAVES_BYTES - leaves_used(page) > more; /* sizes are rounded up to even */
}

/* Numbers come in ascending order: then the newest block grows at the tree's right edge. LMDB
 * halves a page where a record outgrows it, but not where one is appended: so that block is
 * appended anew. Where they do not (a generation that is copied), their block is looked for. */
int store_log_append(struct transaction *t, uint64_t row, const void *form, size_t size)
{
    static const char what[] = "appending to the log";
    uint8_t block_key[ROW_FORM], bytes[ROWS_BUFFER];
    MDB_val key = {0}, data = {0};
    uint64_t last = 0;
    larder_bytes block = {0}, added = {form, size};
    unsigned flags = MDB_CURRENT;
    if (t->error != LARDER_OK) {
        return t->error;
    }
    int code = rows_get(t, &key, &data, MDB_LAST);
    if (code != MDB_SUCCESS || !take_block(&key, &last) || ROWS_BLOCK(last) < ROWS_BLOCK(row)) {
        flags = MDB_APPEND;
    } else if (ROWS_BLOCK(last) > ROWS_BLOCK(row)) {
        key = block_form(block_key, row);
        code = rows_get(t, &key, &data, MDB_SET_KEY);
        flags = code == MDB_NOTFOUND ? MDB_NOOVERWRITE : MDB_CURRENT;
    }
    if (code != MDB_SUCCESS && code != MDB_NOTFOUND) {
        return atomic_load(&t->store->hosed) ? lmdb_hosed(t) : lmdb_fail(t, code, what);
    }
    bool outgrows = false;
    if (flags == MDB_CURRENT) {
        block = lmdb_bytes(&data);
        outgrows = ROWS_BLOCK(last) == ROWS_BLOCK(row) && !may_grow(t, &data, 1 + size);
    }
    int result = rows_insert(&block, ROWS_INDEX(row), &added, bytes, &data.mv_size);
    if (result != LARDER_OK) { /* never over another's */
        return lmdb_fail(t, MDB_CORRUPTED, what);
    }
    if (outgrows) {
        if (delete_block(t, what) != LARDER_OK) {
            return t->error;
        }
        flags = MDB_APPEND;
    }
    data.mv_data = bytes;
    key = block_form(block_key, row);
    return rows_put(t, &key, &data, flags, what);
}

int store_log_delete(struct transaction *t, uint64_t row)
{
    static const char what[] = "removing a log row";
    uint8_t block_key[ROW_FORM], bytes[ROWS_BUFFER];
    MDB_val key = block_form(block_key, row), data = {0};
    if (t->error != LARDER_OK) {
        return t->error;
    }
    int code = rows_get(t, &key, &data, MDB_SET_KEY);
    if (code != MDB_SUCCESS) {
        return code == MDB_NOTFOUND            ? LARDER_MISS
               : atomic_load(&t->store->hosed) ? lmdb_hosed(t)
                                               : lmdb_fail(t, code, what);
    }
    larder_bytes block = lmdb_bytes(&data);
    int result = rows_remove(&block, ROWS_INDEX(row), bytes, &data.mv_size);
    if (result != LARDER_OK) {
        return rows_found(t, result, what);
    }
    if (data.mv_size > 0) {
        data.mv_data = bytes;
        key = block_form(block_key, row);
        return rows_put(t, &key, &data, MDB_CURRENT, what);
    }
    return delete_block(t, what);
}

/* The first block at or behind that of a row. */
static int next_block(struct transaction *t, uint64_t from, uint64_t *first, larder_bytes *block)
{
    static const char what[] = "walking the log";
    uint8_t block_key[ROW_FORM];
    MDB_val key = block_form(block_key, from), data = {0};
    int result;
    if (store_finds_own_way(t)) {
        larder_bytes at = {0};
        result = lmdb_found(
            t, descent_next(&t->tree, block_key, sizeof block_key, false, &at, block), what);
        key = lmdb_value(at.data, at.size);
    } else {
        result = lmdb_seek(t, LMDB_ENTRIES, &key, &data, false, what);
        *block = lmdb_bytes(&data);
    }
    if (result == LARDER_OK && !take_block(&key, first)) {
        return lmdb_fail(t, MDB_CORRUPTED, what);
    }
    return result;
}

int store_log_next(struct transaction *t, uint64_t from, uint64_t *row, larder_bytes *form)
{
    uint64_t first = 0;
    larder_bytes block = {0};
    unsigned index = 0;
    for (int looks = 0; looks < 2 && from <= RECORD_ROW_MAX; looks++) {
        int result = next_block(t, from, &first, &block);
        if (result != LARDER_OK) {
            return result;
        }
        bool is_own = first == ROWS_BLOCK(from) << ROWS_BITS;
        result = rows_next(&block, is_own ? ROWS_INDEX(from) : 0, &index, form);
        if (result == LARDER_OK) {
            *row = first + index;
            return LARDER_OK;
        }
        if (result != LARDER_MISS || !is_own) { /* a block has rows */
            return lmdb_fail(t, MDB_CORRUPTED, "walking the log");
        }
        from = first + ROWS_IN_BLOCK; /* the rest of it has gone */
    }
    return LARDER_MISS;
}

int store_log_previous(struct transaction *t, uint64_t before, uint64_t *row, larder_bytes *form)
{
    static const char what[] = "walking the log back";
    uint8_t block_key[ROW_FORM];
    MDB_val key = block_form(block_key, before), data;
    MDB_cursor *cursor = NULL;
    uint64_t first = 0;
    unsigned index = 0;
    volatile int result = LARDER_MISS;
    if (t->error != LARDER_OK) {
        return t->error;
    }
    volatile int code = MDB_PANIC;
    LMDB_GUARDED(
        {
            code = mdb_cursor_open(t->txn, LMDB_ENTRIES, &cursor);
            if (code == MDB_SUCCESS) {
                code = mdb_cursor_get(cursor, &key, &data, MDB_SET_RANGE);
                if (code == MDB_NOTFOUND) {
                    code = mdb_cursor_get(cursor, &key, &data, MDB_LAST);
                }
                while (code == MDB_SUCCESS && result == LARDER_MISS) {
                    larder_bytes block = lmdb_bytes(&data);
                    if (!lmdb_in_page(t, &key) || !lmdb_in_page(t, &data)) {
                        code = MDB_CORRUPTED;
                    } else if (!take_block(&key, &first)) {
                        break;
                    } else {
                        if (first < before) {
                            result = rows_previous(&block,
                                                   before - first < ROWS_IN_BLOCK
                                                       ? (unsigned)(before - first)
                                                       : ROWS_IN_BLOCK,
                                                   &index, form);
                        }
                        if (result == LARDER_MISS) {
                            code = mdb_cursor_get(cursor, &key, &data, MDB_PREV);
                        }
                    }
                }
                mdb_cursor_close(cursor);
            }
        },
        return lmdb_hosed(t));
    if (code != MDB_SUCCESS || result < 0) {
        return code == MDB_NOTFOUND ? LARDER_MISS
                                    : lmdb_fail(t, result < 0 ? MDB_CORRUPTED : code, what);
    }
    *row = first + index;
    return result;
}
