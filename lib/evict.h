/* evict.h: making room. The log is one queue in order of insertion, and nothing is ever moved in
 * it:
 *
 *   oldest [ main queue: rows below small_hand ][ first queue: about the newest seventh ] newest
 *              ^ hand, goes round                 ^ small_hand, follows
 *
 * What the small hand passes was asked for twice meanwhile, and stays where it is: from then on it
 * is main; or it leaves, and its key is remembered as a ghost (ghosts.h). A key that comes back
 * while it is a ghost is not put to the test again (RECORD_RETURNED). The hand goes over the main
 * queue as SIEVE's does (Zhang et al., NSDI 2024), with counters of two bits: S3-FIFO (Yang et al.,
 * SOSP 2023) without its moves. A hit moves nothing either: it raises one byte, and only up to 3.
 * doc/decisions/014 has the figures.
 *
 * Ahead of all that go entries that have expired or that something made dead. Both hands are in the
 * ledger: they move with the transaction that moved them or not at all.
 */
#ifndef LARDER_LIB_EVICT_H
#define LARDER_LIB_EVICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control.h"
#include "writer.h"

enum { EVICT_POPULARITY_MOST = 3 };

/* Why an entry goes. */
enum evict_cause {
    EVICT_SMALL,   /* for room, from the first queue */
    EVICT_MAIN,    /* for room, from the main queue */
    EVICT_EXPIRED, /* it had expired, and somebody came across it */
    EVICT_DEAD     /* a barrier made it dead */
};

/* Pages that must stay free. What one transaction frees the second after it can use, so two must
 * fit meanwhile: the largest that may come, and one like those that came lately (ledger NULL: that
 * one, too, may be the largest). */
uint64_t evict_reserve(const struct control_life *life, const struct ledger *ledger);

/* Whether need more pages fit below the reserve. */
bool evict_fits(struct writer *writer, uint64_t need);

/* Evict inside this write until need pages fit or max entries went; a bounded walk. Returns how
 * many entries went. */
size_t evict_some(struct writer *writer, uint64_t need, size_t max);

/* Before a write of so many pages: evict a few entries where they do not fit below the reserve, and
 * as many as it takes where they are far from fitting. False: there is no room for them yet. */
bool evict_ahead(struct writer *writer, uint64_t need);

/* Where the map has a capacity in entries and this write went beyond it: evict what is too much. */
void evict_excess(struct writer *writer);

/* The one way by which eviction removes an entry. */
int evict_remove(struct writer *writer, const struct key *key, const struct record *record,
                 enum evict_cause cause);

/* For entry.c: what it counts in the ledger, by = 1 or -1. */
void evict_count(struct ledger *ledger, const struct record_header *header, int64_t by);

/* For entry.c: whether a key that comes in is spared the first queue, because it left it shortly
 * before. To be asked once an insertion: the ghost is forgotten. */
bool evict_returns(struct writer *writer, const struct key *key);

/* For entry.c: whether a value that is written anew, and moves to the end of the log, has been
 * through the first queue already. */
static inline bool evict_is_proved(const struct ledger *ledger, const struct record_header *old)
{
    return (old->flags & RECORD_RETURNED) != 0 || old->row < ledger->small_hand;
}

/* When an entry is of no use to anybody any more. */
static inline int64_t evict_end_of_life(const struct record *record)
{
    return record_gone_ms(record);
}

/* For entry.c: an entry that ends then comes in. */
static inline void evict_note_expiry(struct ledger *ledger, int64_t expires_at_ms)
{
    if (expires_at_ms < ledger->earliest_expiry_ms) {
        ledger->earliest_expiry_ms = expires_at_ms;
    }
    if (expires_at_ms < ledger->walk_earliest_ms) {
        ledger->walk_earliest_ms = expires_at_ms;
    }
}

/* ---- Popularity --------------------------------------------------------------------------------
 * Two bits a key hash, 0 .. EVICT_POPULARITY_MOST, four of them in a byte, shared by the keys that
 * meet there. Anybody may write it at any time: of two who change a byte at once one is lost. */

struct evict_counter {
    _Atomic uint8_t *byte;
    unsigned shift;
};

static inline struct evict_counter evict_counter(const struct store *store, uint64_t hash)
{
    uint64_t at = ((hash & UINT32_MAX) * (4 * store->popularity)) >> 32;
    return (struct evict_counter){.byte = &store->control->popularity[at / 4],
                                  .shift = (unsigned)(at % 4) * 2};
}

static inline void evict_prefetch(const struct store *store, uint64_t hash)
{
    __builtin_prefetch((const void *)evict_counter(store, hash).byte);
}

/* Hits noted since they were used up. */
static inline unsigned evict_hits(const struct store *store, uint64_t hash)
{
    struct evict_counter counter = evict_counter(store, hash);
    return (unsigned)atomic_load_explicit(counter.byte, memory_order_relaxed) >> counter.shift &
           EVICT_POPULARITY_MOST;
}

static inline void evict_set_hits(const struct store *store, uint64_t hash, unsigned hits)
{
    struct evict_counter counter = evict_counter(store, hash);
    unsigned byte = atomic_load_explicit(counter.byte, memory_order_relaxed);
    unsigned changed =
        (byte & ~((unsigned)EVICT_POPULARITY_MOST << counter.shift)) | hits << counter.shift;
    if (changed != byte) {
        atomic_store_explicit(counter.byte, (uint8_t)changed, memory_order_relaxed);
    }
}

/* Note a hit: at most one store, and none once the counter is full. Returns whether there was one
 * before. */
static inline bool evict_touch(const struct store *store, uint64_t hash)
{
    unsigned count = evict_hits(store, hash);
    if (count < EVICT_POPULARITY_MOST) {
        evict_set_hits(store, hash, count + 1);
    }
    return count > 0;
}

/* Note several at once, that were counted elsewhere. */
static inline void evict_note_hot(const struct store *store, uint64_t hash, unsigned hits)
{
    unsigned count = evict_hits(store, hash) + hits;
    evict_set_hits(store, hash, count < EVICT_POPULARITY_MOST ? count : EVICT_POPULARITY_MOST);
}

/* A new entry has to earn its place: the counter may be another key's, long gone. */
static inline void evict_forget_hits(const struct store *store, uint64_t hash)
{
    evict_set_hits(store, hash, 0);
}

#endif
