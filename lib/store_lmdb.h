/* store_lmdb.h: the store's calls to LMDB. Each runs under a guard, what comes back is checked
 * against the page it stands on, and codes become the library's. Only store*.c may include it.
 *
 * What is written for whom: LMDB 0.9.24 (Debian 12). Its locks have no deadline, so each is entered
 * only inside a gate (gate.h); its assertions abort, so each call that can meet one runs under a
 * guard that a failed assertion leaves by a jump, after poisoning the generation.
 */
#ifndef LARDER_LIB_STORE_LMDB_H
#define LARDER_LIB_STORE_LMDB_H

#include <lmdb.h>

#include "store.h"

#define LMDB_CHUNKS_NAME                                                                           \
    "\x01"                                                                                         \
    "chunks" /* two literals: \x takes every hexadecimal digit */

enum {
    LMDB_ENTRIES = 1, /* the fixed handle of the main tree */
    LMDB_FREE_LIST = 0,
    LMDB_PAGE_HEADER = 16, /* before a page's content, and in it: */
    LMDB_PAGE_LOWER = 12,  /* where the room between pointers and nodes begins */
    LMDB_PAGE_UPPER = 14,  /* and ends */
    LMDB_ROW_TAG =
        0x03 /* first byte of a key of the log: past all entries, so that it grows there */
};

/* ---- Assertions ------------------------------------------------------------------------------ */

/* Where a failed assertion of this thread goes. */
extern __thread void **lmdb_guard __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* For mdb_env_set_assert(); the environment's user context is its store. */
void lmdb_on_assertion(MDB_env *env, const char *message);

/* Run the statement under a guard; on a failed assertion run the other one. The compiler's own jump
 * saves three words; sigsetjmp would be a fifth of a hit. */
#define LMDB_GUARDED(statement, failed)                                                            \
    do {                                                                                           \
        void *here_[5];                                                                            \
        if (__builtin_setjmp(here_) == 0) {                                                        \
            lmdb_guard = here_;                                                                    \
            statement;                                                                             \
            lmdb_guard = NULL;                                                                     \
        } else {                                                                                   \
            failed;                                                                                \
        }                                                                                          \
    } while (0)

/* ---- Results --------------------------------------------------------------------------------- */

/* The one converter from LMDB's codes. Damage poisons the generation. store: NULL if there is none.
 */
int lmdb_convert(struct store *store, int code, const char *what);

/* The transaction's result from now on. */
int lmdb_fail(struct transaction *t, int code, const char *what);
int lmdb_hosed(struct transaction *t);

static inline MDB_val lmdb_value(const void *data, size_t size)
{
    return (MDB_val){.mv_size = size, .mv_data = (void *)(uintptr_t)data};
}

static inline larder_bytes lmdb_bytes(const MDB_val *value)
{
    return (larder_bytes){.data = value->mv_data, .size = value->mv_size};
}

/* LMDB gives out what a node says of itself. What it says must lie on the node's own page, or, for
 * what has pages of its own, inside the file: a damaged size must not lead a copy out of the
 * mapping. */
static inline bool lmdb_in_page(const struct transaction *t, const MDB_val *data)
{
    const struct store *store = t->store;
    const uint8_t *at = data->mv_data;
    size_t page = store->page_size;
    size_t offset = (size_t)(at - store->base);
    if (at < store->base || offset >= store->max_pages * page) {
        /* a protected map's writer has changed pages in memory of its own */
        return t->write && (store->control->flags & LARDER_PROTECT) != 0;
    }
    size_t in = offset % page;
    if (in == LMDB_PAGE_HEADER && data->mv_size > page / 2 - LMDB_PAGE_HEADER) {
        return data->mv_size <= store->max_pages * page - offset; /* pages of its own */
    }
    return data->mv_size <= page - in;
}

/* Whether this is a reader that finds its own way. */
static inline bool store_finds_own_way(const struct transaction *t)
{
    return !t->write && t->store->descends && t->error == LARDER_OK;
}

/* What descent.c found, as the transaction's result. Damage poisons the generation. */
static inline int lmdb_found(struct transaction *t, int result, const char *what)
{
    return __builtin_expect(result >= 0, 1) ? result : lmdb_fail(t, MDB_CORRUPTED, what);
}

/* ---- Calls. A failed transaction does nothing; what: the beginning of the error's text ----------
 */

int lmdb_get(struct transaction *t, MDB_dbi database, MDB_val *key, MDB_val *data,
             const char *what);

int lmdb_put(struct transaction *t, MDB_dbi database, MDB_val *key, MDB_val *data, unsigned flags,
             const char *what);

/* Room for a value. Numbers come in ascending order, and then the page that takes them is filled to
 * the brim; where they do not (a generation that is copied), LMDB says so and the ordinary way is
 * taken. */
int lmdb_append_room(struct transaction *t, MDB_dbi database, MDB_val *key, MDB_val *room,
                     const char *what);

int lmdb_delete(struct transaction *t, MDB_dbi database, MDB_val *key, const char *what);

/* The first record at or after key. */
int lmdb_seek(struct transaction *t, MDB_dbi database, MDB_val *key, MDB_val *data, bool after,
              const char *what);

/* A writer looks up through its cursor, which stays where the entry is. */
int lmdb_get_at_cursor(struct transaction *t, MDB_val *key, MDB_val *data);

#endif
