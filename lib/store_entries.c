/* store_entries.c: the entries in the main tree: looked up, written, written over in place, walked.
 */
#include "store.h"

#include <string.h>

#include "error.h"
#include "key.h"
#include "overwrite.h"
#include "store_leaves.h"
#include "store_lmdb.h"

#define TICK_NAME "\x01tick" /* see store_touch() */

/* A small record may be written over while a reader looks: give it a copy. MISS: none is to be had.
 */
static int hold_still(struct transaction *t, larder_bytes *record)
{
    const struct store *store = t->store;
    if (t->write || record->size > OVERWRITE_MAX) {
        return LARDER_OK;
    }
    uint64_t offset = (uint64_t)((const uint8_t *)record->data - store->base);
    if (__builtin_expect(!overwrite_read(store->overwrites, store->generation, store->base, offset,
                                         record->size, t->record),
                         0)) {
        return LARDER_MISS;
    }
    record->data = t->record;
    return LARDER_OK;
}

static int entry_get(struct transaction *t, const void *form, size_t size, larder_bytes *record)
{
    if (__builtin_expect(store_finds_own_way(t), 1)) {
        return lmdb_found(t, descent_find(&t->tree, form, size, record), "reading an entry");
    }
    MDB_val key = lmdb_value(form, size), data;
    int result = t->write ? lmdb_get_at_cursor(t, &key, &data)
                          : lmdb_get(t, LMDB_ENTRIES, &key, &data, "reading an entry");
    if (__builtin_expect(result == LARDER_OK, 1)) {
        *record = lmdb_bytes(&data);
    }
    return result;
}

int store_entry_get(struct transaction *t, const void *form, size_t size, larder_bytes *record)
{
    int result = entry_get(t, form, size, record);
    return __builtin_expect(result == LARDER_OK, 1) ? hold_still(t, record) : result;
}

/* In the tree of transaction last. Pages may change under a guess, which trusts none of them. Those
 * of the last transaction do not, but for records that are written over: a writer changes copies.
 */
static void find_place(struct store *store, const void *form, size_t size, uint64_t last,
                       struct store_place *place)
{
    struct descent tree;
    place->transaction = last;
    if (store->writable && !atomic_load_explicit(&store->hosed, memory_order_relaxed) &&
        descent_begin(&tree, store->base, store->page_size, store->max_pages, last) &&
        descent_find(&tree, form, size, &place->record) == LARDER_OK &&
        place->record.size <= OVERWRITE_MAX) {
        place->offset = (uint64_t)((const uint8_t *)place->record.data - store->base);
    } else {
        place->record.data = NULL;
    }
}

void store_look_ahead(struct store *store, const void *form, size_t size, struct store_place *place)
{
    /* Not LMDB's number: it stands on the meta page a moment before the root does. acquire: the
     * whole commit is seen, pairs with store_write_commit(). */
    find_place(store, form, size,
               atomic_load_explicit(&store->life->committed, memory_order_acquire), place);
}

struct store_place store_place_told(const struct store *store, uint64_t transaction,
                                    uint64_t offset, uint64_t size, const void *form,
                                    size_t form_size)
{
    struct store_place place = {.transaction = 0};
    if (store->writable && !atomic_load_explicit(&store->hosed, memory_order_relaxed) &&
        size <= OVERWRITE_MAX &&
        descent_stands_at(store->base, store->max_pages * store->page_size, offset, (size_t)size,
                          form, form_size)) {
        place = (struct store_place){.record = {store->base + offset, (size_t)size},
                                     .offset = offset,
                                     .transaction = transaction};
    }
    return place;
}

int store_entry_place(struct store *store, const void *form, size_t size, struct store_place *place)
{
    uint64_t last = store_last_transaction(store);
    if (place->transaction != last) {
        find_place(store, form, size, last, place);
    }
    return place->record.data != NULL ? LARDER_OK : LARDER_MISS;
}

void store_overwrite(struct store *store, const struct store_place *place, uint64_t key_hash,
                     uint32_t request)
{
    struct overwrite what = {.offset = place->offset,
                             .transaction = place->transaction,
                             .hash = key_hash,
                             .size = (uint32_t)place->record.size,
                             .request = request};
    overwrite_carry_out(store->overwrites, (uint8_t *)(uintptr_t)store->base, &what);
}

int store_finish_overwrite(struct store *store, uint32_t *request)
{
    bool finished =
        store->writable && overwrite_finish(store->overwrites, (uint8_t *)(uintptr_t)store->base,
                                            store->max_pages * store->page_size,
                                            store_last_transaction(store), request);
    if (!finished) {
        control_poison(store->control, store->generation);
        return error_set(LARDER_ECORRUPT, "the slot of a record being overwritten is damaged");
    }
    return LARDER_OK;
}

int store_entry_insert(struct transaction *t, const void *form, size_t size, size_t record_size,
                       void **room, larder_bytes *existing)
{
    MDB_val key = lmdb_value(form, size), data = {.mv_size = record_size};
    if (t->error != LARDER_OK) {
        return t->error;
    }
    volatile int code = MDB_PANIC;
    LMDB_GUARDED(
        {
            code = MDB_SUCCESS;
            if (t->cursor == NULL) {
                code = mdb_cursor_open(t->txn, LMDB_ENTRIES, &t->cursor);
            }
            if (code == MDB_SUCCESS) {
                code = mdb_cursor_put(t->cursor, &key, &data, MDB_NOOVERWRITE | MDB_RESERVE);
            }
        },
        return lmdb_hosed(t));
    if (code == MDB_KEYEXIST) {
        if (!lmdb_in_page(t, &data)) {
            return lmdb_fail(t, MDB_CORRUPTED, "inserting an entry");
        }
        *existing = lmdb_bytes(&data);
        return LARDER_EXISTS;
    }
    if (code != MDB_SUCCESS) {
        return lmdb_fail(t, code, "inserting an entry");
    }
    t->changed = true;
    *room = data.mv_data;
    return LARDER_OK;
}

/* Whether the writer's cursor stands at that entry. */
static bool is_at(struct transaction *t, const MDB_val *form)
{
    MDB_val key, data;
    return t->cursor != NULL &&
           mdb_cursor_get(t->cursor, &key, &data, MDB_GET_CURRENT) == MDB_SUCCESS &&
           key.mv_size == form->mv_size && memcmp(key.mv_data, form->mv_data, form->mv_size) == 0;
}

int store_entry_put(struct transaction *t, const void *form, size_t size, const void *record,
                    size_t record_size)
{
    MDB_val key = lmdb_value(form, size), data = lmdb_value(record, record_size);
    if (t->error != LARDER_OK) {
        return t->error;
    }
    t->changed = true;
    volatile int code = MDB_PANIC;
    LMDB_GUARDED(code = is_at(t, &key) ? mdb_cursor_put(t->cursor, &key, &data, MDB_CURRENT)
                                       : mdb_put(t->txn, LMDB_ENTRIES, &key, &data, 0),
                 return lmdb_hosed(t));
    return code == MDB_SUCCESS ? LARDER_OK : lmdb_fail(t, code, "writing an entry");
}

int store_entry_next(struct transaction *t, const void *form, size_t size, bool after,
                     larder_bytes *key, larder_bytes *record)
{
    int result;
    if (store_finds_own_way(t)) {
        result = lmdb_found(t, descent_next(&t->tree, form, size, after, key, record),
                            "walking the entries");
    } else {
        MDB_val at = lmdb_value(form, size), data;
        result = lmdb_seek(t, LMDB_ENTRIES, &at, &data, after, "walking the entries");
        *key = lmdb_bytes(&at);
        *record = result == LARDER_OK ? lmdb_bytes(&data) : (larder_bytes){0};
    }
    if (result == LARDER_OK) {
        uint8_t tag = key->size == 0 ? 0 : ((const uint8_t *)key->data)[0];
        if (tag != KEY_TAG) { /* behind the last entry the log begins */
            return tag == LMDB_ROW_TAG ? LARDER_MISS
                                       : lmdb_fail(t, MDB_CORRUPTED, "walking the entries");
        }
        if (hold_still(t, record) != LARDER_OK) {
            record->size = 0; /* no record: who walks passes over it */
        }
    }
    return result;
}

int store_entry_walk(struct transaction *t, const void *form, size_t size, bool after, size_t max,
                     store_visitor *visit, void *context)
{
    MDB_cursor *volatile cursor = NULL;
    MDB_val wanted = lmdb_value(form, size), key = wanted, data;
    if (t->error != LARDER_OK) {
        return t->error;
    }
    volatile int code = MDB_PANIC;
    LMDB_GUARDED(
        {
            MDB_cursor *opened = NULL;
            code = mdb_cursor_open(t->txn, LMDB_ENTRIES, &opened);
            cursor = opened;
            if (code == MDB_SUCCESS) {
                code = mdb_cursor_get(opened, &key, &data, MDB_SET_RANGE);
                if (code == MDB_SUCCESS && after && key.mv_size == wanted.mv_size &&
                    memcmp(key.mv_data, wanted.mv_data, wanted.mv_size) == 0) {
                    code = mdb_cursor_get(opened, &key, &data, MDB_NEXT);
                }
            }
        },
        return lmdb_hosed(t));
    bool more = true;
    while (code == MDB_SUCCESS && more) {
        larder_bytes found = lmdb_bytes(&key), record = lmdb_bytes(&data);
        if (!lmdb_in_page(t, &key) || !lmdb_in_page(t, &data)) {
            code = MDB_CORRUPTED;
        } else if (found.size == 0 || *(const uint8_t *)found.data != KEY_TAG) {
            code = MDB_NOTFOUND; /* behind the last entry the log begins */
        } else if (!visit(context, &found, &record) || --max == 0) {
            more = false;
        } else {
            LMDB_GUARDED(code = mdb_cursor_get(cursor, &key, &data, MDB_NEXT),
                         return lmdb_hosed(t));
        }
    }
    if (cursor != NULL) {
        mdb_cursor_close(cursor);
    }
    if (code == MDB_SUCCESS) {
        return LARDER_OK;
    }
    return code == MDB_NOTFOUND ? LARDER_MISS : lmdb_fail(t, code, "walking the entries");
}
int store_entry_delete(struct transaction *t, const void *form, size_t size)
{
    static const char what[] = "deleting an entry";
    MDB_val key = lmdb_value(form, size), wanted = key, data = {0};
    int found = lmdb_get_at_cursor(t, &key, &data);
    if (found != LARDER_OK) {
        return found;
    }
    const uint8_t *page = leaves_page_of(t, &data);
    bool low = page != NULL && leaves_used(page) < LEAVES_LOW + data.mv_size;
    t->changed = true;
    volatile int code = MDB_PANIC;
    LMDB_GUARDED(
        {
            code = mdb_cursor_del(t->cursor, 0);
            if (code == MDB_SUCCESS && low) {
                code = leaves_join_around(t, &wanted);
            }
        },
        return lmdb_hosed(t));
    return code == MDB_SUCCESS ? LARDER_OK : lmdb_fail(t, code, what);
}
int store_touch(struct transaction *t)
{
    MDB_val key = lmdb_value(TICK_NAME, sizeof TICK_NAME - 1);
    MDB_val data = lmdb_value(&t->number, sizeof t->number);
    return lmdb_put(t, LMDB_ENTRIES, &key, &data, 0, "touching the tree");
}
