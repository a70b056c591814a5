/* store.c: transactions, their space and their readers. Environments: store_open.c; the trees
 * within: store_entries.c, store_leaves.c, store_log.c, store_chunks.c; each call to LMDB:
 * store_lmdb.h.
 */
#include "store.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "allocate.h"
#include "error.h"
#include "format.h"
#include "stats.h"
#include "store_lmdb.h"

enum { RENEW_TRIES = 100, META_PAGES = 2, SLOT_WAIT_MS = 50 };

/* ---- Readers --------------------------------------------------------------------------------- */

int store_reader_open(struct store *store, struct transaction *reader, int64_t wait_ms)
{
    *reader = (struct transaction){.store = store};
    enum gate_result entered = gate_enter(&store->control->reader_gate, wait_ms);
    if (entered < 0) {
        return error_set(entered == GATE_BUSY ? LARDER_EBUSY : LARDER_ECORRUPT,
                         "the reader table's gate is %s",
                         entered == GATE_BUSY ? "held by another process" : "damaged");
    }
    volatile int code = MDB_PANIC;
    LMDB_GUARDED(code = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &reader->txn),
                 code = MDB_CORRUPTED);
    if (code == MDB_READERS_FULL && mdb_reader_check(store->env, NULL) == MDB_SUCCESS) {
        LMDB_GUARDED(code = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &reader->txn),
                     code = MDB_CORRUPTED);
    }
    gate_leave(&store->control->reader_gate);
    if (code != MDB_SUCCESS) {
        reader->txn = NULL;
        return lmdb_convert(store, code, "taking a reader slot");
    }
    mdb_txn_reset(reader->txn);
    return LARDER_OK;
}

void store_reader_close(struct transaction *reader)
{
    if (reader->txn != NULL && !atomic_load(&reader->store->hosed)) {
        mdb_txn_abort(reader->txn);
    }
    reader->txn = NULL;
}

/* The slot is not what this reader left there: whatever the reason, it stays so. The read fails,
 * and the next has another slot; the old one is given back, or this process's number would keep it
 * (and with it old pages) as long as it lives. If it is another's by now, the other finds out
 * likewise. */
__attribute__((cold, noinline)) static void change_slot(struct transaction *reader)
{
    struct transaction other;
    if (store_reader_open(reader->store, &other, SLOT_WAIT_MS) != LARDER_OK) {
        return; /* the next read tries again */
    }
    struct MDB_txn *damaged = reader->txn;
    reader->txn = other.txn;
    mdb_txn_abort(damaged);
}

int store_read_begin(struct transaction *reader, struct stats_slot *lookups)
{
    const struct store *store = reader->store;
    struct control_life *life = store->life;
    reader->error = LARDER_OK;
    reader->chunks_known = false;
    for (int tries = 0; tries < RENEW_TRIES; tries++) {
        /* acquire: what these changes did is in the snapshot */
        reader->changes = atomic_load_explicit(&life->changes, memory_order_acquire);
        int code = mdb_txn_renew(reader->txn);
        if (__builtin_expect(code != MDB_SUCCESS, 0)) {
            if (code == MDB_BAD_RSLOT) {
                change_slot(reader);
            }
            return lmdb_fail(reader, code, "renewing a snapshot");
        }
        reader->number = mdb_txn_id(reader->txn);
        /* The root stands on the meta page, like what LMDB copies: it is read before the check. */
        bool whole = !store->descends || descent_begin(&reader->tree, store->base, store->page_size,
                                                       store->max_pages, reader->number);
        /* LMDB publishes the slot with a plain store and copies the meta page after its last check.
         * The fence puts the slot before the load; a writer two ahead of the snapshot may have
         * reused its meta page meanwhile (three ahead: its pages), so that one is not trusted.
         * Pairs with the store of announced in store_write_begin(). */
        if (__builtin_expect(lookups != NULL, 1)) {
            stats_count_and_fence(lookups, STATS_LOOKUPS);
            lookups = NULL;
        } else {
            atomic_thread_fence(memory_order_seq_cst);
        }
        uint64_t announced = atomic_load_explicit(&life->announced, memory_order_acquire);
        if (__builtin_expect(announced < reader->number + 2, 1)) {
            if (__builtin_expect(whole, 1)) {
                return LARDER_OK;
            }
            mdb_txn_reset(reader->txn);
            return lmdb_fail(reader, MDB_CORRUPTED, "the meta page of a snapshot");
        }
        mdb_txn_reset(reader->txn);
    }
    reader->error = error_set(LARDER_EBUSY, "no stable snapshot in %d tries", RENEW_TRIES);
    return reader->error;
}

bool store_ledger(struct transaction *reader, struct ledger *ledger)
{
    struct control_life *life = reader->store->life;
    if (ledger_read(life, reader->number, ledger)) {
        return true;
    }
    for (int tries = 0; tries < RENEW_TRIES; tries++) {
        if (ledger_read(life, atomic_load_explicit(&life->committed, memory_order_acquire),
                        ledger)) {
            return true;
        }
    }
    return false;
}

void store_read_end(struct transaction *reader)
{
    if (__builtin_expect(!atomic_load_explicit(&reader->store->hosed, memory_order_relaxed), 1)) {
        mdb_txn_reset(reader->txn);
    }
}

/* The number that readers begin with, 0: not to be had. */
static uint64_t published_transaction(struct store *store)
{
    MDB_txn *volatile txn = NULL;
    volatile int code = MDB_PANIC;
    LMDB_GUARDED(
        {
            MDB_txn *begun = NULL;
            code = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &begun);
            txn = begun;
        },
        return 0);
    if (code != MDB_SUCCESS) {
        return 0;
    }
    uint64_t number = mdb_txn_id(txn);
    mdb_txn_abort(txn);
    return number;
}

int store_undo_unpublished(struct store *store)
{
    uint64_t last = store_last_transaction(store);
    uint64_t published = published_transaction(store);
    if (published == 0) {
        return error_set(LARDER_EBUSY, "a writer died, and no reader slot is free");
    }
    if (last == published || !store->writable) { /* else the page is written in one piece */
        return LARDER_OK;
    }
    if (last != published + 1 || last < 2) {
        control_poison(store->control, store->generation);
        return error_set(LARDER_ECORRUPT, "a writer died, and its meta page is damaged");
    }
    descent_take_back((uint8_t *)(uintptr_t)store->base, store->page_size, last);
    return LARDER_OK;
}

/* ---- Writers --------------------------------------------------------------------------------- */

int store_write_begin(struct store *store, struct transaction *writer)
{
    MDB_envinfo info;
    *writer = (struct transaction){.store = store, .write = true};
    if (atomic_load(&store->hosed)) {
        return lmdb_hosed(writer);
    }
    if (!store->writable) { /* then LMDB writes through the file, where a signal is waiting */
        writer->error = allocate_check(store->max_pages * store->page_size, "map");
        if (writer->error != LARDER_OK) {
            return writer->error;
        }
    }
    (void)mdb_env_info(store->env, &info);
    uint64_t next = (uint64_t)info.me_last_txnid + 1;
    /* Seen before any page of this transaction is written and before the reader table is looked at.
     * Pairs with store_read_begin(). */
    atomic_store_explicit(&store->life->announced, next, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    volatile int code = MDB_PANIC;
    LMDB_GUARDED(code = mdb_txn_begin(store->env, NULL, 0, &writer->txn),
                 return lmdb_hosed(writer));
    if (code != MDB_SUCCESS) {
        writer->txn = NULL;
        return lmdb_fail(writer, code, "beginning a write");
    }
    writer->number = mdb_txn_id(writer->txn);
    if (writer->number != next) {
        mdb_txn_abort(writer->txn);
        writer->txn = NULL;
        return lmdb_fail(writer, MDB_CORRUPTED, "transaction numbers");
    }
    return LARDER_OK;
}

int store_write_commit(struct transaction *writer)
{
    if (writer->txn == NULL || writer->error != LARDER_OK || !writer->changed) {
        store_write_abort(writer);
        return writer->error;
    }
    volatile int code = MDB_PANIC;
    LMDB_GUARDED(code = mdb_txn_commit(writer->txn), code = MDB_CORRUPTED);
    writer->txn = NULL;
    if (atomic_load(&writer->store->hosed)) {
        return lmdb_hosed(writer);
    }
    if (code != MDB_SUCCESS) {
        return lmdb_fail(writer, code, "committing a write");
    }
    atomic_store_explicit(&writer->store->life->committed, writer->number, memory_order_release);
    return LARDER_OK;
}

void store_write_abort(struct transaction *writer)
{
    if (writer->txn != NULL && !atomic_load(&writer->store->hosed)) {
        LMDB_GUARDED(mdb_txn_abort(writer->txn), (void)lmdb_hosed(writer));
    }
    writer->txn = NULL;
}

/* ---- Space and readers ----------------------------------------------------------------------- */

uint64_t store_used_pages(struct transaction *t)
{
    const MDB_dbi databases[] = {LMDB_FREE_LIST, LMDB_ENTRIES, t->store->chunks};
    uint64_t pages = META_PAGES;
    for (size_t i = 0; i < sizeof databases / sizeof databases[0] && t->error == LARDER_OK; i++) {
        MDB_stat stat;
        struct descent_database chunks;
        if (databases[i] == t->store->chunks &&
            store_finds_own_way(t)) { /* LMDB would walk to its record */
            if (lmdb_found(
                    t,
                    descent_open(&t->tree, LMDB_CHUNKS_NAME, sizeof LMDB_CHUNKS_NAME - 1, &chunks),
                    "counting pages") == LARDER_OK) {
                pages += chunks.branch_pages + chunks.leaf_pages + chunks.overflow_pages;
            }
            continue;
        }
        volatile int code = MDB_PANIC;
        LMDB_GUARDED(code = mdb_stat(t->txn, databases[i], &stat), {
            (void)lmdb_hosed(t);
            return pages;
        });
        if (code != MDB_SUCCESS) {
            (void)lmdb_fail(t, code, "counting pages");
            break;
        }
        pages += stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
    }
    return pages;
}

bool store_has_fresh_pages(struct store *store, uint64_t pages)
{
    MDB_envinfo info;
    (void)mdb_env_info(store->env, &info);
    return info.me_last_pgno + pages < store->max_pages;
}

uint64_t store_last_transaction(struct store *store)
{
    MDB_envinfo info;
    (void)mdb_env_info(store->env, &info);
    return info.me_last_txnid;
}

int store_clear_dead_readers(struct store *store, int *cleared)
{
    int count = 0;
    int code = mdb_reader_check(store->env, &count);
    if (cleared != NULL) {
        *cleared = count;
    }
    return lmdb_convert(store, code, "clearing dead readers");
}

struct reader_list {
    inspect_reader *readers;
    size_t max, found;
    int oldest_pid;
    uint64_t oldest, newest;
};

/* One line of mdb_reader_list(): "%10d %zx %zu" or "... -" without a snapshot. The thread is
 * printed in hexadecimal. */
static int on_reader(const char *line, void *context)
{
    struct reader_list *list = context;
    int pid = 0;
    unsigned long thread = 0;
    char snapshot[32] = "";
    if (sscanf(line, "%d %lx %31s", &pid, &thread, snapshot) != 3) {
        return 0; /* the heading */
    }
    uint64_t transaction = UINT64_MAX;
    if (snapshot[0] != '-') {
        transaction = strtoull(snapshot, NULL, 10);
        if (transaction < list->oldest) {
            list->oldest = transaction;
            list->oldest_pid = pid;
        }
    }
    if (list->found < list->max) {
        list->readers[list->found] = (inspect_reader){
            .pid = pid,
            .thread = thread,
            .transaction = transaction,
            .lag = transaction < list->newest ? list->newest - transaction : 0,
            .alive = kill(pid, 0) == 0 || errno == EPERM,
        };
    }
    list->found++;
    return 0;
}

int store_list_readers(struct store *store, inspect_reader *readers, size_t max, size_t *found)
{
    struct reader_list list = {.readers = readers,
                               .max = max,
                               .oldest = UINT64_MAX,
                               .newest = store_last_transaction(store)};
    int code = mdb_reader_list(store->env, on_reader, &list);
    *found = list.found;
    return code < 0 ? lmdb_convert(store, code, "listing readers") : LARDER_OK;
}

int store_oldest_reader(struct store *store, uint64_t *snapshot)
{
    struct reader_list list = {.oldest = store_last_transaction(store)};
    (void)mdb_reader_list(store->env, on_reader, &list);
    *snapshot = list.oldest;
    return list.oldest_pid;
}
