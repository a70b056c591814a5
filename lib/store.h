/* store.h: one LMDB environment of one generation, as the rest of the library sees it. store*.c are
 * the only files that know lmdb.h.
 *
 *   main tree   0x01chunks             LMDB's own record of the named database
 *               0x01tick            -> see store_touch()
 *               0x02... -> record      entries (see key.h, format.h)
 *               0x03 block -> rows     the log (rows.h): order of writes; exactly one row an entry
 *   chunks      id (u64)  -> id, bytes parts of large values, one page each
 *
 * The entries stand in the main tree because a read then needs no look-up of a database record, and
 * a write dirties one tree only: the log is its right edge (doc/decisions).
 *
 * A transaction is sticky: after a failure further calls do nothing and its error says why. Calls
 * that can fail return the error too.
 */
#ifndef LARDER_LIB_STORE_H
#define LARDER_LIB_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "control.h"
#include "descent.h"
#include "hotset.h"
#include "inspect.h"
#include "larder.h"

enum { STORE_CHUNKS_PAGE = 4096 /* so large are pages that one chunk fills */ };

struct MDB_cursor;
struct MDB_env;
struct MDB_txn;

struct store {
    struct MDB_env *env;
    unsigned chunks; /* database handle */
    struct control *control;
    struct control_life *life; /* of this generation */
    struct overwrite_area *overwrites;
    uint64_t generation;
    uint64_t max_pages;
    uint32_t page_size;  /* as it was at opening, whatever the segment says later */
    const uint8_t *base; /* of the mapping; see in_page() */
    bool descends;       /* readers find their own way (descent.h), not through LMDB */
    bool writable;       /* and small records may be written over (overwrite.h) */
    struct hotset hot;   /* copies of small records, in front of the trees */
    uint64_t popularity; /* bytes, from the segment's real size, whatever it says of itself */
    _Atomic bool hosed;  /* LMDB's assertion failed here: never touch env again */
    _Atomic uint64_t clean_before; /* rows below it are clean, as this process has seen: report.c */
    unsigned users;                /* the registry's count of what refers to this store */
    struct store *next;            /* the registry's list */
};

struct transaction {
    struct store *store;
    struct MDB_txn *txn;
    struct MDB_cursor *cursor; /* a writer's, in the main tree; where the last look-up ended */
    struct MDB_cursor *rows;   /* a writer's, where it last changed the log */
    int error;                 /* sticky; LARDER_OK */
    bool write;                /* of a writer; begins and ends inside the write gate */
    bool changed;              /* a write did something */
    uint64_t number;           /* a writer's own; a reader's snapshot */
    uint64_t changes;          /* of a reader: how many there were before its snapshot was taken */

    /* of a reader of a store that descends */
    struct descent tree;        /* the main tree of the snapshot */
    struct descent chunks;      /* where chunks_known */
    struct descent_place place; /* of the last chunk that was read */
    bool chunks_known;
    unsigned large_in_row; /* of its look-ups, the last so many found what no hot set takes */

    uint8_t record[OVERWRITE_MAX]; /* of a reader: the small record it was given last */
};

/* Make the files of a generation in an existing empty directory: preallocated, databases made.
 * ENOSPACE, EACCESS, ESYSTEM. */
int store_create(const char *path, uint64_t map_size, bool protect, mode_t mode);

/* Open them; to be called inside the open gate. ECORRUPT: missing, cut off, or not LMDB's. */
int store_open(const char *path, struct control *control, uint64_t generation, struct store **out);
void store_close(struct store **store);

/* In a child after fork: give up the inherited environment without touching the parent's reader
 * slots or locks. Readers that were taken from it must be forgotten, not closed. */
void store_forget(struct store **store);

/* A thread's read transaction; taking one may wait for the reader gate, at most wait_ms. */
int store_reader_open(struct store *store, struct transaction *reader, int64_t wait_ms);
void store_reader_close(struct transaction *reader);

/* Take and leave a snapshot. No lock, no system call. EBUSY: writers were too fast a hundred times.
 * With a slot the lookup is counted there, by the instruction that is the fence as well. */
int store_read_begin(struct transaction *reader, struct stats_slot *lookups);
void store_read_end(struct transaction *reader);

/* The ledger of a snapshot or, writers being quick, of a later one: for what needs no exact match.
 * False: writers are too quick even for that. */
bool store_ledger(struct transaction *reader, struct ledger *ledger);

/* A writer may have died between the number of its commit and the root that goes with it, which
 * LMDB writes to the meta page in that order, and no reader had been told of either: take the
 * number back, or LMDB would take the commit for whole. After a writer's death, inside the write
 * gate and the reader gate, before store_write_begin(). ECORRUPT, EBUSY (no reader slot is free).
 */
int store_undo_unpublished(struct store *store);

/* Begin and end a write transaction; inside the write gate. Ending without change aborts. */
int store_write_begin(struct store *store, struct transaction *writer);
int store_write_commit(struct transaction *writer);
void store_write_abort(struct transaction *writer);

/* LARDER_OK, LARDER_MISS or an error. Bytes are valid until the transaction's next write or end; a
 * reader's until it reads the next entry, because a small record may be written over where it
 * stands (overwrite.h), and is copied. */
int store_entry_get(struct transaction *t, const void *form, size_t size, larder_bytes *record);
/* The first entry at or after form (beyond it if after is true). The form lies in the map. */
int store_entry_next(struct transaction *t, const void *form, size_t size, bool after,
                     larder_bytes *found, larder_bytes *record);
/* Make room for a record that is not there yet: LARDER_OK, and the caller fills the room before the
 * transaction's next call; LARDER_EXISTS and the one that is there. Either way the tree is
 * descended once. */
int store_entry_insert(struct transaction *t, const void *form, size_t size, size_t record_size,
                       void **room, larder_bytes *existing);
/* Show up to max entries from form on (beyond it if after is true), in key order, to the visitor,
 * which must not call anything here; until it returns false. LARDER_MISS: there are no more. */
typedef bool store_visitor(void *context, const larder_bytes *form, const larder_bytes *record);
int store_entry_walk(struct transaction *t, const void *form, size_t size, bool after, size_t max,
                     store_visitor *visit, void *context);
/* Where the newest committed record of that form stands, for store_overwrite(). */
struct store_place {
    larder_bytes record;  /* data NULL: there is none to be written over */
    uint64_t offset;      /* in the mapping */
    uint64_t transaction; /* the last one; 0: nobody has looked */
};
/* Look for it without the gate and without a snapshot, so that the memory is waited for by many
 * writers at a time. A guess: what is found is true if the gate is entered and that transaction is
 * still the last. */
void store_look_ahead(struct store *store, const void *form, size_t size,
                      struct store_place *place);
/* A guess that another process has made. Zeros where no such record of that form stands there; that
 * it is the newest holds as above. */
struct store_place store_place_told(const struct store *store, uint64_t transaction,
                                    uint64_t offset, uint64_t size, const void *form,
                                    size_t form_size);
/* Inside the write gate, no transaction begun: LARDER_OK; LARDER_MISS: there is none, or it is none
 * to be written over. place is a guess, or zeros. */
int store_entry_place(struct store *store, const void *form, size_t size,
                      struct store_place *place);
/* request as in overwrite.h. Then overwrite_end(). */
void store_overwrite(struct store *store, const struct store_place *place, uint64_t key_hash,
                     uint32_t request);
/* Finish an overwrite whose writer died; inside the gate. Then overwrite_end(). ECORRUPT, and the
 * generation is poisoned. */
int store_finish_overwrite(struct store *store, uint32_t *request);

/* Write a record over whatever is there. Straight to the place if a look-up or insert of this
 * writer has just been there. */
int store_entry_put(struct transaction *t, const void *form, size_t size, const void *record,
                    size_t record_size);
int store_entry_delete(struct transaction *t, const void *form, size_t size);

/* Change something, so that a transaction which only moves the ledger is committed as one. */
int store_touch(struct transaction *t);

int store_log_append(struct transaction *t, uint64_t row, const void *form, size_t size);
int store_log_delete(struct transaction *t, uint64_t row);
/* The first row >= from; LARDER_MISS at the end. */
int store_log_next(struct transaction *t, uint64_t from, uint64_t *row, larder_bytes *form);
/* The last row < before; LARDER_MISS at the beginning. */
int store_log_previous(struct transaction *t, uint64_t before, uint64_t *row, larder_bytes *form);

/* A chunk takes a page of its own, whatever its size (at most CHUNK_SIZE). Which one, for
 * store_chunk_at(), or 0. */
int store_chunk_put(struct transaction *t, uint64_t id, const void *data, size_t size,
                    uint32_t *page);
/* All CHUNK_SIZE bytes of it. A page that does not bear its number is a miss, too. */
int store_chunk_get(struct transaction *t, uint64_t id, larder_bytes *data);

/* Whether this transaction may look for chunks where their record says: a reader that finds its own
 * way, where a chunk fills a page. Writers may have other pages than those of the file. */
static inline bool store_chunks_direct(const struct transaction *t)
{
    return t->store->descends && !t->write && t->error == LARDER_OK &&
           t->store->page_size == STORE_CHUNKS_PAGE;
}

/* All CHUNK_SIZE bytes of a chunk without its tree, if it stands on that page; else NULL. page and
 * id are of one record of the snapshot, store_chunks_direct().
 *
 * Why a page that bears a chunk's number is that chunk, in a snapshot whose record names both: LMDB
 * gives a value's page another number never, and the page to somebody else only once the chunk is
 * deleted or written again. Copying, splitting and joining leaves moves what names the page, not
 * the page. Chunks are never written again, and deleted only in the transaction that replaces their
 * record (entry.c); so a snapshot that sees the record keeps the page. Chunk numbers are not given
 * twice. Where that is not so the file is damaged, or was copied by other hands: then the page's
 * header or its chunk number tells. */
static inline const void *store_chunk_at(const struct transaction *t, uint32_t page, uint64_t id)
{
    return descent_page(&t->tree, page, id);
}

int store_chunk_delete(struct transaction *t, uint64_t id);
/* The first chunk >= from; LARDER_MISS at the end. */
int store_chunk_next(struct transaction *t, uint64_t from, uint64_t *id);

/* Pages that hold something in this transaction, meta pages included. */
uint64_t store_used_pages(struct transaction *t);
/* Whether the file still has pages that were never used: then no counting is needed. */
bool store_has_fresh_pages(struct store *store, uint64_t pages);

/* Number of the last committed transaction. */
uint64_t store_last_transaction(struct store *store);

/* Clear slots of dead readers; inside the reader gate. */
int store_clear_dead_readers(struct store *store, int *cleared);
/* Process that holds the oldest snapshot, 0 if nobody holds one older than the newest; and which.
 */
int store_oldest_reader(struct store *store, uint64_t *snapshot);
int store_list_readers(struct store *store, inspect_reader *readers, size_t max, size_t *found);

#endif
