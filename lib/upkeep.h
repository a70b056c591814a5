/* upkeep.h: keeping a map in order: removal of expired entries and old tombstones, eviction to a
 * watermark, dead readers. larderd's janitor calls it in small steps; workers evict through the
 * same code when they find the map full. Every step holds the write gate for about a millisecond at
 * most. With the handle of a larderd (replica_claim()) that another has relieved, what would change
 * entries is REPLICA_FENCED.
 */
#ifndef LARDER_LIB_UPKEEP_H
#define LARDER_LIB_UPKEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "larder.h"

typedef struct upkeep_step {
    uint64_t next_row; /* in: where to begin (0: the oldest row); out: where to go on */
    size_t looked_at;  /* out */
    size_t removed;    /* out: expired entries and old clean tombstones */
    bool wrapped;      /* out: the end of the log was reached; next_row is 0 */
} upkeep_step;

/* Look at up to max_rows rows of the log and remove what has expired and tombstones older than
 * tombstone_ms. LARDER_EBUSY: nothing happened. */
int upkeep_expire(larder *handle, upkeep_step *step, size_t max_rows, int64_t tombstone_ms);

/* Evict, by the policy's hand, until used bytes <= share (0..1) of the map, at most max_entries.
 * *evicted counts them. LARDER_EFULL: nothing more can be freed (an old reader pins the pages). */
int upkeep_evict(larder *handle, double share, size_t max_entries, size_t *evicted);

/* Clear reader slots of dead processes. */
int upkeep_readers(larder *handle, int *cleared);

/* Compare the checksums of up to max_rows entries from *next_row on; *next_row moves (0 = wrapped).
 * LARDER_ECORRUPT on the first damage. */
int upkeep_verify(larder *handle, uint64_t *next_row, size_t max_rows);

/* Give the map another size (bytes, a multiple of 4096): a new generation that carries over all
 * that is dirty, the tombstones, the inbound position, and as much of the rest as fits. Writers
 * wait or are refused meanwhile, readers go on. *changed is false where it has that size already.
 * EFULL: what must not be lost does not fit; ENOSPC; the old generation then stays. */
int upkeep_resize(larder *handle, uint64_t map_size, bool *changed);

#endif
