/* store_lmdb.c: see store_lmdb.h. */
#include "store_lmdb.h"

#include <errno.h>
#include <string.h>

#include "error.h"

/* ---- Assertions ------------------------------------------------------------------------------ */

__thread void **lmdb_guard;

void lmdb_on_assertion(MDB_env *env, const char *message)
{
    struct store *store = mdb_env_get_userctx(env);
    if (store == NULL || lmdb_guard == NULL) {
        return; /* LMDB aborts: only while making a new generation, before anybody uses it */
    }
    atomic_store(&store->hosed, true);
    control_poison(store->control, store->generation);
    (void)error_set(LARDER_ECORRUPT, "LMDB's assertion failed: %s", message);
    void **target = lmdb_guard;
    lmdb_guard = NULL;
    __builtin_longjmp(target, 1);
}

/* ---- Errors ---------------------------------------------------------------------------------- */

int lmdb_convert(struct store *store, int code, const char *what)
{
    switch (code) {
    case MDB_SUCCESS:
        return LARDER_OK;
    case MDB_NOTFOUND:
        return LARDER_MISS;
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
        return error_set(LARDER_EFULL, "%s: the map is full", what);
    case MDB_READERS_FULL:
        return error_set(LARDER_ELIMIT, "%s: all %d reader slots are in use", what,
                         CONTROL_MAX_READERS);
    case ENOMEM:
        return error_set(LARDER_ENOMEM, "%s: out of memory", what);
    case ENOSPC:
    case EDQUOT:
        return error_set(LARDER_ENOSPACE, "%s: %s", what, mdb_strerror(code));
    case EACCES:
    case EPERM:
    case EROFS:
        return error_set(LARDER_EACCESS, "%s: %s", what, mdb_strerror(code));
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_PANIC:
    case MDB_BAD_TXN:
    case MDB_CURSOR_FULL:
    case MDB_PAGE_FULL:
    case MDB_INCOMPATIBLE:
    case MDB_BAD_DBI:
        if (store != NULL) {
            control_poison(store->control, store->generation);
        }
        return error_set(LARDER_ECORRUPT, "%s: %s", what, mdb_strerror(code));
    default:
        return error_set(LARDER_ESYSTEM, "%s: %s", what, mdb_strerror(code));
    }
}

int lmdb_fail(struct transaction *t, int code, const char *what)
{
    t->error = lmdb_convert(t->store, code, what);
    return t->error;
}

int lmdb_hosed(struct transaction *t)
{
    t->error = LARDER_ECORRUPT;
    return t->error;
}

/* ---- Calls ----------------------------------------------------------------------------------- */

int lmdb_get(struct transaction *t, MDB_dbi database, MDB_val *key, MDB_val *data, const char *what)
{
    if (__builtin_expect(t->error != LARDER_OK, 0)) {
        return t->error;
    }
    volatile int code = MDB_PANIC;
    LMDB_GUARDED(code = mdb_get(t->txn, database, key, data), return lmdb_hosed(t));
    if (__builtin_expect(code == MDB_SUCCESS, 1)) {
        return __builtin_expect(lmdb_in_page(t, data), 1) ? LARDER_OK
                                                          : lmdb_fail(t, MDB_CORRUPTED, what);
    }
    return code == MDB_NOTFOUND ? LARDER_MISS : lmdb_fail(t, code, what);
}

int lmdb_put(struct transaction *t, MDB_dbi database, MDB_val *key, MDB_val *data, unsigned flags,
             const char *what)
{
    if (t->error != LARDER_OK) {
        return t->error;
    }
    t->changed = true;
    volatile int code = MDB_PANIC;
    LMDB_GUARDED(code = mdb_put(t->txn, database, key, data, flags), return lmdb_hosed(t));
    return code == MDB_SUCCESS ? LARDER_OK : lmdb_fail(t, code, what);
}

int lmdb_append_room(struct transaction *t, MDB_dbi database, MDB_val *key, MDB_val *room,
                     const char *what)
{
    if (t->error != LARDER_OK) {
        return t->error;
    }
    t->changed = true;
    volatile int code = MDB_PANIC;
    LMDB_GUARDED(
        {
            code = mdb_put(t->txn, database, key, room, MDB_RESERVE | MDB_APPEND);
            if (code == MDB_KEYEXIST) { /* but never over another's */
                code = mdb_put(t->txn, database, key, room, MDB_RESERVE | MDB_NOOVERWRITE);
            }
        },
        return lmdb_hosed(t));
    return code == MDB_SUCCESS ? LARDER_OK
                               : lmdb_fail(t, code == MDB_KEYEXIST ? MDB_CORRUPTED : code, what);
}

int lmdb_delete(struct transaction *t, MDB_dbi database, MDB_val *key, const char *what)
{
    if (t->error != LARDER_OK) {
        return t->error;
    }
    volatile int code = MDB_PANIC;
    LMDB_GUARDED(code = mdb_del(t->txn, database, key, NULL), return lmdb_hosed(t));
    if (code == MDB_SUCCESS) {
        t->changed = true;
        return LARDER_OK;
    }
    return code == MDB_NOTFOUND ? LARDER_MISS : lmdb_fail(t, code, what);
}

int lmdb_seek(struct transaction *t, MDB_dbi database, MDB_val *key, MDB_val *data, bool after,
              const char *what)
{
    MDB_cursor *cursor = NULL;
    MDB_val wanted = *key;
    if (t->error != LARDER_OK) {
        return t->error;
    }
    volatile int code = MDB_PANIC;
    LMDB_GUARDED(
        {
            code = mdb_cursor_open(t->txn, database, &cursor);
            if (code == MDB_SUCCESS) {
                code = mdb_cursor_get(cursor, key, data, MDB_SET_RANGE);
                if (code == MDB_SUCCESS && after && key->mv_size == wanted.mv_size &&
                    memcmp(key->mv_data, wanted.mv_data, wanted.mv_size) == 0) {
                    code = mdb_cursor_get(cursor, key, data, MDB_NEXT);
                }
                mdb_cursor_close(cursor);
            }
        },
        return lmdb_hosed(t));
    if (code == MDB_SUCCESS) {
        return lmdb_in_page(t, key) && lmdb_in_page(t, data) ? LARDER_OK
                                                             : lmdb_fail(t, MDB_CORRUPTED, what);
    }
    return code == MDB_NOTFOUND ? LARDER_MISS : lmdb_fail(t, code, what);
}

int lmdb_get_at_cursor(struct transaction *t, MDB_val *key, MDB_val *data)
{
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
                code = mdb_cursor_get(t->cursor, key, data, MDB_SET_KEY);
            }
        },
        return lmdb_hosed(t));
    if (code == MDB_SUCCESS) {
        return lmdb_in_page(t, data) ? LARDER_OK
                                     : lmdb_fail(t, MDB_CORRUPTED, "looking for an entry");
    }
    return code == MDB_NOTFOUND ? LARDER_MISS : lmdb_fail(t, code, "looking for an entry");
}
