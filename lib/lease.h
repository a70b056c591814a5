/* lease.h: the lease table: who fills which key, and how others wait for it. In the control
 * segment, without a lock: each lease is one word that changes by compare-and-swap alone, so a
 * process that is killed or stopped anywhere blocks nobody.
 *
 *   FREE -> CLAIMED (not decided yet: anybody may undo it) -> HELD -> FREE
 *
 * A claim becomes a lease only after its owner has seen that no other way of the set holds or
 * claims the key; of two claimants at least one sees the other (Dekker), and whoever sees a claim
 * undoes it or steps back. So a key has one holder at most. What stands beside the word (key,
 * deadline, start) a late writer may spoil only into "ended early" or "not found": one fill too
 * many, never a wrong value, because a fill is stored by its version.
 *
 * Called by fetch.c. Never blocks but in lease_sleep(), which has a deadline. Layout: MAP_FORMAT
 */
#ifndef LARDER_LIB_LEASE_H
#define LARDER_LIB_LEASE_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "notify.h"

enum {
    LEASE_SETS = 64,
    LEASE_WAYS = 16,
    LEASE_SLOTS = LEASE_SETS * LEASE_WAYS,
    LEASE_NONE = LEASE_SLOTS, /* in place of a slot: filled without a lease */
    LEASE_HOLD_MAX_MS = 600000
};

struct lease_slot {
    _Atomic uint64_t key;        /* second half of the key's hash */
    _Atomic int64_t deadline_ms; /* CLOCK_MONOTONIC */
    _Atomic uint64_t start;      /* of the holder's process */
    _Atomic int64_t guarded_ms;  /* until then some waiter looks after the holder */
    _Atomic uint32_t ends;       /* futex: rises when a lease of this slot ends */
    _Atomic uint32_t sleepers;   /* 1: somebody may sleep on it */
    struct notify_set watchers;  /* processes that wait in event loops */
    uint8_t padding[56];
};
static_assert(sizeof(struct lease_slot) == 128, "MAP_FORMAT");
static_assert(offsetof(struct lease_slot, ends) == 32, "MAP_FORMAT");

struct lease_table {
    _Atomic uint64_t words[LEASE_SLOTS]; /* see lease.c; the ways of a set side by side */
    struct lease_slot slots[LEASE_SLOTS];
};
static_assert(sizeof(struct lease_table) == LEASE_SLOTS * 136, "MAP_FORMAT");

/* Why a lease ended; in the word of a free slot. */
enum lease_end {
    LEASE_FILLED = 0,
    LEASE_ABANDONED = 1, /* others try themselves, one at a time */
    LEASE_SKIPPED = 2,   /* the value is not for the cache: all may go and get it */
    LEASE_LOST = 3       /* the holder died or was late */
};

/* One lease as somebody saw it: its own, or another's to wait for. */
struct lease_ticket {
    uint64_t word;
    uint32_t slot;
};

enum lease_claim {
    LEASE_TAKEN, /* it is ours */
    LEASE_HELD,  /* another has it: the ticket is for waiting */
    LEASE_FULL   /* no place: fill without one */
};

/* hash: of the key, see key_hash_wide(). Leases of dead and late holders end on the way. */
enum lease_claim lease_claim(struct map *map, const uint64_t hash[2], int64_t hold_ms,
                             struct lease_ticket *ticket);

/* End a lease and wake all who wait. False: it had been lost. */
bool lease_end(struct map *map, const struct lease_ticket *ticket, enum lease_end reason);

/* Give the holder hold_ms from now. False: it had been lost. */
bool lease_extend(struct map *map, const struct lease_ticket *ticket, int64_t hold_ms);

/* Whether the lease is held. One that has a dead or late holder is ended first. False: *reason says
 * how it ended (LEASE_ABANDONED where that is not known any more). */
bool lease_is_held(struct map *map, const struct lease_ticket *ticket, enum lease_end *reason);

/* Sleep until the lease has ended (true) or until_ms (CLOCK_MONOTONIC) has come. A dead holder is
 * noticed within a few milliseconds, by the one waiter that looks after it for all. */
bool lease_sleep(struct map *map, const struct lease_ticket *ticket, int64_t until_ms,
                 enum lease_end *reason);

/* Have this process's notify descriptor told when the lease ends. */
void lease_watch(struct map *map, const struct lease_ticket *ticket);

/* End all that this process holds: its last handle goes. */
void lease_abandon_all(struct map *map);

/* End all leases of a process that is gone. */
void lease_end_all(struct map *map, pid_t pid);

#endif
