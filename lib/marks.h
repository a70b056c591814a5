/* marks.h: groups and tags. A mark is the hash of a name; invalidating it stores a version, and an
 * entry that carries the mark and is not newer is dead. The table lies in the control segment.
 * Reads are wait-free: an unmarked entry asks nothing, one newer than every invalidation asks one
 * word. An invalidation is O(1) over time and never refused: what the table cannot take (its gate
 * is held by a stopped process, a flood of names) raises the floor, at and below which every marked
 * entry is dead. Wider, never stale. MAP_FORMAT
 *
 * Exact are at least the newest MARKS_EXACT marks; older ones are what the floor stands for.
 */
#ifndef LARDER_LIB_MARKS_H
#define LARDER_LIB_MARKS_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format.h"
#include "gate.h"
#include "larder.h"

struct control;

enum {
    MARKS_EXACT = 65536,
    MARKS_WAYS = 8,
    MARKS_BUCKETS = 16384,
    MARKS_SLOTS = MARKS_BUCKETS * MARKS_WAYS,
    MARKS_SWEEP_AT = MARKS_SLOTS / 4 * 3 /* slots in use that make a sweep worth its time */
};

enum mark_kind { MARK_GROUP = 1, MARK_TAG = 2 };

/* A mark stands in one of two buckets, as the first half of its hash, which is all of it that is
 * looked at and that travels; two names that share it die together. */
struct marks_bucket {
    _Atomic uint64_t tags[MARKS_WAYS];   /* 0: free */
    _Atomic uint64_t clocks[MARKS_WAYS]; /* newest invalidation of that mark */
};
static_assert(sizeof(struct marks_bucket) == 128, "MAP_FORMAT");

struct marks {
    _Atomic uint64_t newest; /* clock of the newest invalidation of any mark; 0: none */
    _Atomic uint64_t floor;  /* every marked entry not newer than this is dead */
    uint8_t padding0[48];
    struct gate gate;      /* for taking and freeing slots; raising a clock needs none */
    _Atomic uint64_t used; /* slots that are taken; the gate's */
    /* What Redis has not been told: a floor that stands for invalidations made here, and a bit a
     * slot. Set once the mark is stored, cleared by what Redis has acknowledged. */
    _Atomic uint64_t floor_untold, floor_told;
    _Atomic uint64_t set_id; /* of the set in Redis that has all that was told; 0: unknown */
    uint8_t padding1[32];
    struct marks_bucket buckets[MARKS_BUCKETS];
    _Atomic uint8_t untold[MARKS_BUCKETS];
};
static_assert(offsetof(struct marks, gate) == 64, "MAP_FORMAT");
static_assert(offsetof(struct marks, buckets) == 192, "MAP_FORMAT");

/* Make the gate in fresh, zeroed memory. 0 or an errno. */
int marks_init(struct marks *marks);

/* The mark of a name: XXH3, 128 bits, seeded with the kind, so that a group and a tag of one name
 * are two. out holds RECORD_MARK_SIZE bytes. */
void marks_make(uint8_t *out, enum mark_kind kind, const void *name, size_t size);

/* Every entry that carries the mark and was written before this call is dead once it has returned.
 * Waits for the table's gate 20 ms at most, twice. False: it took the floor, so that every marked
 * entry of that age died. *version is the invalidation's. */
bool marks_invalidate(struct control *control, const uint8_t *mark, larder_version *version);

/* The invalidation that has just returned is to be told to other hosts; exact is what it returned.
 * Before the caller's caller is told anything. */
void marks_to_tell(struct control *control, const uint8_t *mark, uint64_t clock, bool exact);

/* ---- What larderd does --------------------------------------------------------------------------
 */

/* The first half of a mark's hash: its name between hosts. */
uint64_t marks_tag(const uint8_t *mark);

/* Another host's invalidation. False: the table's gate is held; try again. */
bool marks_merge(struct control *control, uint64_t tag, uint64_t clock);
/* The same of a floor. */
void marks_merge_floor(struct control *control, uint64_t clock);

/* The next mark from slot *index on that Redis has not been told of, or, with all, any. False: no
 * more; *index is MARKS_SLOTS. */
bool marks_next(struct control *control, bool all, size_t *index, uint64_t *tag, uint64_t *clock);
/* Redis has it, of that clock. */
void marks_told(struct control *control, uint64_t tag, uint64_t clock);

/* For who writes anew what stood there before (touch, cas, incr): between clock_next() and asking
 * whether the entry is still alive. Then an invalidation that is missed draws a later version. */
static inline void marks_fence(void)
{
    /* acquire: pairs with the release fence between the two steps of marks_invalidate() and
     * larder_clear(), by way of the clock word that both change */
    atomic_thread_fence(memory_order_acquire);
}

uint64_t marks_death_slow(const struct marks *marks, const struct record *record);

/* The clock of the invalidation that killed the record, 0 while it lives. Asks nothing of an
 * unmarked one. Invalidations that returned before this call are seen. */
static inline uint64_t marks_death(const struct marks *marks, const struct record *record)
{
    if (__builtin_expect(record->header.mark_count == 0, 1)) {
        return 0;
    }
    /* acquire: pairs with the release in marks_invalidate() */
    if (record->header.clock > atomic_load_explicit(&marks->newest, memory_order_acquire)) {
        return 0;
    }
    return marks_death_slow(marks, record);
}

/* Marks that the table names. */
static inline uint64_t marks_count(struct marks *marks)
{
    return atomic_load_explicit(&marks->used, memory_order_relaxed);
}

#endif
