/* lookup.h: from a key to its live record in a snapshot: what get, has, borrow, scan and the
 * many-key forms have in common.
 */
#ifndef LARDER_LIB_LOOKUP_H
#define LARDER_LIB_LOOKUP_H

#include <stdbool.h>
#include <stdint.h>

#include "clock.h"
#include "format.h"
#include "larder.h"
#include "map.h"
#include "marks.h"
#include "removal.h"

enum {
    LOOKUP_TRIES = 3, /* a control segment may be replaced under a reader; not again and again */
    LOOKUP_COLD = -1, /* lookup_find_hot(): ask the tree */

    LOOKUP_LARGE_IN_ROW = 8 /* after so many large values the next one is taken to be large, too */
};

struct lookup {
    struct key key;
    struct record record;
    larder_bytes bytes; /* the record as it stands in the map */
    uint64_t dead_before;
};

/* The clock of what killed an entry though its record says nothing of it: a barrier, a clear, or
 * the invalidation of one of its marks; 0 while it lives. Pending rows and expiry are asked
 * elsewhere. Invalidations that returned before this call are seen. */
static inline uint64_t lookup_death(struct control *control, const struct record *record,
                                    uint64_t hash)
{
    uint64_t barrier = removal_barrier_death(control, hash, record->header.clock);
    return __builtin_expect(barrier != 0, 0) ? barrier : marks_death(&control->marks, record);
}

/* The same of what a removal is to be made of, that Redis and the other hosts are told. Of what
 * only a barrier of this host has killed they may go on having it. */
static inline uint64_t lookup_death_in_fleet(struct control *control, const struct record *record,
                                             uint64_t hash)
{
    uint64_t barrier = removal_barrier_of_fleet(control, hash);
    return record->header.clock <= barrier ? barrier : marks_death(&control->marks, record);
}

/* lookup_death() of a record that a walk came across; hashes its key only where it must. */
static inline uint64_t lookup_death_of_form(struct control *control, const larder_bytes *form,
                                            const struct record *record)
{
    if (record->header.mark_count == 0 &&
        record->header.clock > atomic_load_explicit(&control->barrier_max, memory_order_acquire)) {
        return 0;
    }
    uint64_t hash = record->long_key != NULL
                        ? key_hash(record->long_key, record->long_key_size)
                        : key_hash((const uint8_t *)form->data + 1, form->size - 1);
    return lookup_death(control, record, hash);
}

/* What a record is to a reader: OK (a value), ABSENT, STALE (only with LARDER_ACCEPT_STALE in
 * flags), or MISS; *expired where its time is why it is not fresh. dead_before:
 * removal_pending_clock(), from before the snapshot was taken. This is the one judgement of all
 * readers and of every write with a condition. */
static inline int lookup_judge(struct control *control, const struct record *record, uint64_t hash,
                               uint64_t dead_before, unsigned flags, bool *expired)
{
    const struct record_header *header = &record->header;
    *expired = false;
    if (header->kind == RECORD_DELETED || header->clock <= dead_before ||
        lookup_death(control, record, hash) != 0) {
        return LARDER_MISS;
    }
    if (__builtin_expect(clock_expired(record->expires_at_ms), 0)) {
        *expired = true;
        return (flags & LARDER_ACCEPT_STALE) != 0 && header->kind == RECORD_VALUE &&
                       record->stale_until_ms != 0 && !clock_expired(record->stale_until_ms)
                   ? LARDER_STALE
                   : LARDER_MISS;
    }
    return header->kind == RECORD_VALUE ? LARDER_OK : LARDER_ABSENT;
}

/* Whether a reader that begins now would find the record, if it still stands in the tree. */
static inline bool lookup_alive(struct control *control, const struct record *record, uint64_t hash)
{
    bool expired;
    return lookup_judge(control, record, hash, removal_pending_clock(control, hash), 0, &expired) !=
           LARDER_MISS;
}

/* Whether a record was found: there is something to copy, or knowledge of its absence. */
static inline bool lookup_found(int result)
{
    return result == LARDER_OK || result == LARDER_ABSENT || result == LARDER_STALE;
}

/* Find the key's copy in the hot set of the reader's store; no snapshot is needed. copy has
 * HOTSET_COPY_MAX bytes, and the record points into it. OK, STALE, ABSENT or MISS are final;
 * LOOKUP_COLD: there is no copy. l->key is begun (key_begin()), l->dead_before is set. flags as
 * below. */
int lookup_find_hot(const struct larder *handle, struct transaction *t, struct lookup *l,
                    uint8_t *copy, unsigned flags);

/* Find the key in a snapshot; l->key and l->dead_before are set, the latter before the snapshot was
 * taken. flags are a larder_read's: LARDER_PEEK does not count, with LARDER_ACCEPT_STALE a stale
 * value is found, too. OK, STALE, ABSENT or MISS; damage is a miss. A small record is offered to
 * the hot set. */
int lookup_find(const struct larder *handle, struct transaction *t, struct lookup *l,
                unsigned flags);

/* A small record that was found is the transaction's until its next look-up: keep it in room, which
 * has OVERWRITE_MAX bytes. */
void lookup_keep(struct lookup *l, uint8_t *room);

void lookup_info(const struct record *record, uint32_t home, larder_info *info);

/* Copy the value of a found record. */
int lookup_copy(struct transaction *t, const struct record *record, void *buffer);

#endif
