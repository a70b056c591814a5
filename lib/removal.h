/* removal.h: what keeps removed things removed when no record in the tree says so: barriers
 * (nothing of a bucket of key hashes this old is alive), floors (nothing this old may come in), and
 * the pending table: invalidations whose writer found the gate busy. All in the control segment,
 * all wait-free; the next holder of the gate makes pending rows durable.
 *
 * Barriers are of two sorts. Those of everywhere are told to Redis, and so to all hosts. Those of
 * this host alone stand for what the others know already, but this map had no room for.
 *
 * Invariant: once removal_pend() has returned, removal_dead_before() of that key is at least its
 * version until a commit has removed the key from the tree. Wider, never stale.
 */
#ifndef LARDER_LIB_REMOVAL_H
#define LARDER_LIB_REMOVAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control.h"
#include "key.h"
#include "larder.h"

uint64_t removal_pending_clock_slow(struct control *control, uint64_t hash);

/* The clock of the newest pending invalidation of that key: at and below it an entry is dead,
 * whatever its record says; 0: none. To be asked *before* the snapshot is taken: a pending row goes
 * only after the commit that replaces it. */
static inline uint64_t removal_pending_clock(struct control *control, uint64_t hash)
{
    uint64_t any = 0;
    for (size_t i = 0; i < CONTROL_PENDING_WORDS; i++) {
        /* acquire: pairs with the stores in removal_pend() */
        any |= atomic_load_explicit(&control->pending[i], memory_order_acquire);
    }
    return __builtin_expect(any == 0, 1) ? 0 : removal_pending_clock_slow(control, hash);
}

static inline uint64_t removal_higher(const _Atomic uint64_t *a, const _Atomic uint64_t *b)
{
    /* acquire: pairs with the releases in removal_raise_barrier() and removal_clear() */
    uint64_t first = atomic_load_explicit(a, memory_order_acquire);
    uint64_t second = atomic_load_explicit(b, memory_order_acquire);
    return first > second ? first : second;
}

/* The clock under which everything of that key's bucket is to be removed, in Redis too; 0: none. Of
 * a clear for this host alone, too: it stands for prefixes that it has not seen, whose values Redis
 * may still have. */
static inline uint64_t removal_barrier_of_fleet(struct control *control, uint64_t hash)
{
    uint64_t cleared = removal_higher(&control->cleared, &control->cleared_here);
    uint64_t barrier =
        atomic_load_explicit(&control->barriers[control_bucket(hash)], memory_order_acquire);
    return barrier > cleared ? barrier : cleared;
}

/* The clock under which everything of that key's bucket is dead, 0: none. Barriers only rise, so
 * they are asked when a record has been found. */
static inline uint64_t removal_barrier(struct control *control, uint64_t hash)
{
    uint64_t fleet = removal_barrier_of_fleet(control, hash);
    uint64_t here =
        atomic_load_explicit(&control->barriers_here[control_bucket(hash)], memory_order_acquire);
    return fleet > here ? fleet : here;
}

/* The barrier that killed an entry of that version, 0 while it lives. One load for an entry that is
 * newer than all barriers. */
static inline uint64_t removal_barrier_death(struct control *control, uint64_t hash, uint64_t clock)
{
    if (__builtin_expect(clock > atomic_load_explicit(&control->barrier_max, memory_order_acquire),
                         1)) {
        return 0;
    }
    uint64_t barrier = removal_barrier(control, hash);
    return clock <= barrier ? barrier : 0;
}

/* Both: at and below this an entry of that key is dead. */
static inline uint64_t removal_dead_before(struct control *control, uint64_t hash)
{
    uint64_t pending = removal_pending_clock(control, hash);
    uint64_t barrier = removal_barrier(control, hash);
    return pending > barrier ? pending : barrier;
}

static inline bool removal_any_pending(struct control *control)
{
    uint64_t any = 0;
    for (size_t i = 0; i < CONTROL_PENDING_WORDS; i++) {
        any |= atomic_load_explicit(&control->pending[i], memory_order_acquire);
    }
    return any != 0;
}

/* Rows that wait to be made durable. */
uint64_t removal_count_pending(struct control *control);

/* For a walk over many keys: the pending rows as they are before its snapshot is taken. marks holds
 * CONTROL_PENDING_ROWS. Barriers need no copy, they never go. */
struct removal_mark {
    uint64_t hash, clock;
};
size_t removal_copy_pending(struct control *control, struct removal_mark *marks);

/* The node of a pending version that is none: it takes away what stands there and is no newer, if
 * that is clean, and leaves nothing. No map has that node (REPLICA_FOREIGN_NODE is the same). */
#define REMOVAL_LEAVES_NOTHING 1u

/* Remember that the key was invalidated at that version, and that the other hosts know it. Falls
 * back to a barrier of its bucket, for this host alone, when the table is full or the key too long;
 * then true is returned. */
bool removal_pend(struct control *control, const struct key *key, larder_version version);

/* The same of what nobody else knows, at a version of now, drawn a second time once the row can be
 * seen: whoever holds the gate and did not see it before it wrote (cas, touch) had drawn its own
 * version before. The barrier that it may fall back to is one for all hosts. */
bool removal_pend_now(struct control *control, const struct key *key, larder_version *version);

void removal_raise_barrier(struct control *control, uint64_t hash, uint64_t clock);
void removal_raise_barrier_here(struct control *control, uint64_t hash, uint64_t clock);

/* Nothing this old is alive, whatever its key, nor may it come in. */
void removal_clear(struct control *control, uint64_t clock);
void removal_clear_here(struct control *control, uint64_t clock);

/* Redis has the clear, or a bucket's barrier, of that clock: one of the words for that. */
void removal_told(_Atomic uint64_t *told, uint64_t clock);

/* Floors; inside the write gate. */
void removal_raise_floor(struct control *control, uint64_t hash, uint64_t clock);
uint64_t removal_floor(struct control *control, uint64_t hash);
uint64_t removal_bucket_floor(struct control *control, uint64_t hash); /* without the clear */
void removal_raise_all_floors(struct control *control, uint64_t clock);
/* Those beyond limit (clock_limit()) go down to it: what is beyond it does not come in anyway. */
void removal_lower_floors(struct control *control, uint64_t limit);

/* Many keys were invalidated, also such as are not here: no fill that began before may be stored.
 * What other hosts wrote is not held up by that. */
void removal_raise_fill_floor(struct control *control, uint64_t clock);
/* The floor for a fill of that key. */
uint64_t removal_fill_floor(struct control *control, uint64_t hash);

/* One pending row, copied; inside the write gate. */
struct removal_pending {
    size_t index;
    larder_version version;
    size_t key_size;
    uint8_t key[CONTROL_PENDING_KEY];
};

/* The next ready row at or after *index; frees rows of dead claimers on the way. False: no more. */
bool removal_next_pending(struct control *control, size_t *index, struct removal_pending *out);

/* Free a row; after the commit that made it durable. */
void removal_free_pending(struct control *control, size_t index);

#endif
