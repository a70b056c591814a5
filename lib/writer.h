/* writer.h: one write: the gate, LMDB's transaction inside it, the ledger that goes with it.
 *
 *   writer_begin -> entry_* -> writer_commit | writer_abort
 *
 * Between begin and commit nothing of the host program is called and the thread cannot be
 * cancelled. Signals are not blocked: two system calls would be a quarter of a set (doc/decisions).
 * A handler that calls back in gets EBUSY. Whatever dies in between leaves the last committed
 * transaction and its ledger.
 */
#ifndef LARDER_LIB_WRITER_H
#define LARDER_LIB_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "combine.h"
#include "format.h"
#include "hotset.h"
#include "map.h"
#include "store.h"

enum {
    WRITER_PENDING_MAX = 64,          /* pending invalidations made durable by one write */
    WRITER_ACKED_RECENTLY_MS = 30000, /* a failover may still forget what Redis acknowledged */
    WRITER_PATH_PAGES = 64            /* pages that one small write may dirty in all trees */
};

/* The last record that a write made, for the hot set once it is committed. */
struct writer_fresh {
    uint64_t hash;
    size_t key_size, size;            /* size 0: none */
    uint8_t bytes[HOTSET_RECORD_MAX]; /* key, record */
};

struct writer {
    const struct larder *handle;
    struct map *map;
    struct control *control;
    struct transaction transaction;
    struct ledger ledger;
    int cancelled;   /* the thread's cancel state before */
    uint64_t change; /* number of this write among all; see hotset.h */
    bool replicates;
    bool nothing_left; /* evict_some() went round and found nothing to take */
    size_t applied_count;
    uint64_t dirty_before; /* entries that Redis lacks, when this began */
    bool quiet;     /* nothing of this is acknowledged: as many afterwards means the same ones */
    uint32_t cause; /* LARDER_CAUSE_* of what is done next, for its events */
    struct event_batch events;            /* told once this is committed */
    uint16_t applied[WRITER_PENDING_MAX]; /* pending rows that this transaction makes durable */
    struct writer_fresh fresh;
    uint32_t pages[RECORD_PAGES_MAX]; /* of the chunks that were written last */
    struct combine_batch batch;       /* others' requests in this transaction */
    uint32_t request; /* 1 + the slot of the one that is carried out in place; 0: our own */
};

/* Enter the gate within wait_ms and begin. EBUSY, ECORRUPT, or what opening a generation can give.
 */
int writer_begin(struct writer *writer, const struct larder *handle, int64_t wait_ms);
/* The same without making pending invalidations durable first, which takes room itself. */
int writer_begin_bare(struct writer *writer, const struct larder *handle, int64_t wait_ms);
int writer_commit(struct writer *writer);
void writer_abort(struct writer *writer);

/* Tell those who follow, once this is committed, that something of that kind became of the key. */
void writer_tell_slow(struct writer *writer, uint32_t kind, const struct key *key,
                      larder_version version, int64_t expires_ms);

static inline void writer_tell(struct writer *writer, uint32_t kind, const struct key *key,
                               larder_version version, int64_t expires_ms)
{
    if (events_wanted(&writer->control->events, kind)) {
        writer_tell_slow(writer, kind, key, version, expires_ms);
    }
}

/* An operation of one transaction, repeated with room made where the map is full. The operation
 * returns an outcome (committed) or an error (aborted). need is what its values take, in bytes. */
typedef int writer_operation(struct writer *writer, void *context);
int writer_run(const struct larder *handle, size_t need, writer_operation *operation,
               void *context);

/* A write that may do without a transaction: inside the gate, with nothing due that has to come
 * first. An outcome, or WRITER_NEEDS_TRANSACTION, and nothing has happened. */
enum { WRITER_NEEDS_TRANSACTION = -1 };
typedef int writer_quick(struct writer *writer, void *context);
/* Called before the gate is entered: what can be made ready there, for whoever carries the request
 * out. request: the plan's. */
typedef void writer_look(struct store *store, struct combine_request *request, void *context);

/* Carries out one request of somebody else's in this transaction; an outcome below 0 leaves it to
 * its poster. */
typedef int writer_serve(struct writer *writer, const struct combine_request *request);

/* What writer_run_plan() may do; NULL where it may not. */
struct writer_plan {
    writer_operation *operation;     /* never NULL */
    writer_quick *quick;             /* tried before it */
    writer_look *look;               /* with quick */
    struct combine_request *request; /* the same write, small and plain: where the gate is held, its
                                        holder may carry it out, and the outcome is what it says */
    writer_serve *serve;             /* take others' requests along */
    writer_serve *serve_quickly;     /* after quick; WRITER_NEEDS_TRANSACTION is an outcome */
    void *context;                   /* of operation, quick and look */
    size_t need;                     /* bytes that the values take */
};
int writer_run_plan(const struct larder *handle, const struct writer_plan *plan);

/* ---- Entries, inside a write ------------------------------------------------------------------
 */

/* The key's record as it stands: LARDER_OK, LARDER_MISS, error. Its pointers end with the next
 * write of this transaction; its header stays. */
int entry_find(struct transaction *t, const struct key *key, struct record *record);

/* Store a record (version, kind, times, marks, flags and value set by the caller) in place of old
 * (NULL: there is none). Chooses chunks and the log row, keeps the ledger. */
int entry_store(struct writer *writer, const struct key *key, const struct record *old,
                struct record *record, const void *value);

/* The same without having looked: finds out what is there while it writes. Nothing of the record
 * may point into the map. */
int entry_upsert(struct writer *writer, const struct key *key, struct record *record,
                 const void *value, bool *inserted);

/* The same in place of what stands there, for writer_quick: where a record of the key waits in the
 * log already, has room for this one, and nothing that is counted would change. Plain records:
 * no marks, no chunks. place: store_look_ahead()'s, or zeros. */
int entry_overwrite(struct writer *writer, const struct key *key, struct record *record,
                    const void *value, struct store_place *place);

/* Remove because somebody asked: leaves a tombstone of that version where the map replicates. old
 * may be NULL: then only the tombstone is written. */
int entry_delete(struct writer *writer, const struct key *key, const struct record *old,
                 larder_version version);

/* The same of what a mark, a barrier, a clear, a prefix or pattern has killed, at its own version:
 * all hosts make the same removal of it, and none can take away what is newer. Where there is no
 * room for tombstones, what killed it stands for it. */
int entry_bury(struct writer *writer, const struct key *key, const struct record *old,
               larder_version version);

/* Remove for space, because it expired or is dead: leaves an invalidation where Redis may hold, or
 * a failover bring back, something older. One that is dead is buried. */
int entry_drop(struct writer *writer, const struct key *key, const struct record *old);

/* Redis holds something newer than old (NULL: nothing is here), whose value is still to come: a
 * removal of this version, which nobody is told of, keeps its place. Where there is no room for
 * tombstones, the floor of its bucket does. */
int entry_stand_in(struct writer *writer, const struct key *key, const struct record *old,
                   larder_version version);

/* Write a record again whose flags, row or times changed; value and long key are still old's. */
int entry_reseal(struct writer *writer, const struct key *key, const struct record *old,
                 const struct record *changed);

/* Give an entry another version and other times; its value stays where it is. changed is old but
 * for those, and for the dirty flag, which may be set. */
int entry_retime(struct writer *writer, const struct key *key, const struct record *old,
                 const struct record *changed);

/* Make an entry dirty, its row the last of the log, as if it had just been written. */
int entry_requeue(struct writer *writer, const struct key *key, const struct record *old);

/* How many tombstones a map of that size keeps: past it the barrier of the key's bucket rises
 * instead. */
uint64_t entry_tombstone_cap(const struct store *store);

/* The key of a record that was found by its form. memory keeps a long key's bytes (free it). */
int entry_key(const larder_bytes *form, const struct record *record, struct key *key,
              void **memory);

#endif
