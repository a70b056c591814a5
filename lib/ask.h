/* ask.h: the request table of read-through: what a worker that misses asks larderd to get from
 * Redis. In the control segment, without a lock: each request is one word that changes by
 * compare-and-swap alone, so that workers and daemons that are killed or stopped anywhere block
 * nobody.
 *
 *   FREE -> CLAIMED (its key is being written) -> POSTED -> TAKEN (by the daemon) -> FREE
 *
 * Whoever misses the same key meanwhile waits on the same request. Every word carries its deadline:
 * past it anybody may free the slot. What stands beside the word (key, hash) a late writer may
 * spoil; the daemon compares both before it asks, and what it then asks for is at worst of no use
 * to whoever waits: the answer is never in the slot, it is the map that is looked at again.
 *
 * The daemon is woken through its FIFO only by the first who posts since it last looked; and while
 * it looks all the time (replicator_poll.c) by nobody.
 *
 * Called by the public functions (asking.c) and by the replicator's port (replica_ask.c). Never
 * blocks but in ask_sleep(), which has a deadline. Layout: MAP_FORMAT
 */
#ifndef LARDER_LIB_ASK_H
#define LARDER_LIB_ASK_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "notify.h"
#include "spin.h"

enum {
    ASK_SLOTS = 512,
    ASK_WORDS = ASK_SLOTS / 64,
    ASK_PROBES = 64,   /* slots that a key can have */
    ASK_KEY_MAX = 960, /* bytes; longer keys are not asked for */
    ASK_BUDGET_MAX_MS = 60000,
    ASK_FAILURES = 3,   /* requests in a row that came to nothing in time: then nobody asks ... */
    ASK_REST_MS = 1000, /* ... but one such often */
    ASK_HEARTBEAT_MS = 3000 /* a daemon that said nothing for so long is not asked */
};

struct ask_slot {
    _Atomic uint64_t hash[2];  /* of the key, see key_hash_wide() */
    _Atomic uint32_t ends;     /* futex: rises when a request of this slot ends */
    _Atomic uint32_t sleepers; /* 1: somebody may sleep on it */
    _Atomic uint32_t key_size;
    uint32_t reserved;
    struct notify_set watchers; /* processes that wait in event loops */
    uint8_t key[ASK_KEY_MAX];
};
static_assert(sizeof(struct ask_slot) == 1024, "MAP_FORMAT");
static_assert(offsetof(struct ask_slot, key) == 64, "MAP_FORMAT");

struct ask_table {
    _Atomic uint64_t words[ASK_SLOTS];  /* see ask.c */
    _Atomic uint64_t posted[ASK_WORDS]; /* a bit for each slot that the daemon should look at */
    _Atomic uint32_t failures;          /* requests in a row whose time was over */
    _Atomic uint32_t attended;          /* 1: the daemon is going to look at posted by itself */
    _Atomic int64_t rest_until_ms; /* CLOCK_MONOTONIC: with ASK_FAILURES of them, who comes first
                                      from then on asks again */
    struct spin_area spins;        /* of those who wait for an answer */
    struct ask_slot slots[ASK_SLOTS];
};
static_assert(offsetof(struct ask_table, slots) == ASK_SLOTS * 8 + 128, "MAP_FORMAT");

/* How a request ended. */
enum ask_end {
    ASK_FOUND = 0,   /* it is in the map, or was for a moment */
    ASK_ABSENT = 1,  /* Redis has none */
    ASK_FAILED = 2,  /* nobody knows */
    ASK_PENDING = 3, /* it has not yet */
    ASK_OVER = 4     /* to who looks: somehow, and its slot is another's by now; in no word */
};

/* One request as somebody saw it. */
struct ask_ticket {
    uint64_t word;
    uint32_t slot;
    bool own; /* this caller made it */
};

enum ask_begin {
    ASK_BEGUN,   /* the ticket is for waiting */
    ASK_NOBODY,  /* no daemon that can reach Redis, or it does not answer */
    ASK_NO_ROOM, /* no slot, or the key is too long */
};

/* Ask for the key, or join who has asked already, and wake the daemon. hash: key_hash_wide(). */
enum ask_begin ask_begin(struct map *map, const void *key, size_t key_size, const uint64_t hash[2],
                         int64_t budget_ms, struct ask_ticket *ticket);

/* How it stands; without a wait. */
enum ask_end ask_look(struct map *map, const struct ask_ticket *ticket);

/* Wait until the request has ended, or until_ms (CLOCK_MONOTONIC) has come: ASK_PENDING. Looks for
 * a while (spin.h), then sleeps. */
enum ask_end ask_sleep(struct map *map, const struct ask_ticket *ticket, int64_t until_ms);

/* What the wait came to, for whether others should ask: an answer, or the time was over. */
void ask_note_answer(struct map *map);
void ask_note_timeout(struct map *map);

/* Have this process's notify descriptor told when the request ends, or until_ms has come. */
void ask_watch(struct map *map, const struct ask_ticket *ticket, int64_t until_ms);

/* ---- The daemon's side ------------------------------------------------------------------------
 */

struct ask_taken {
    uint64_t word;
    uint32_t slot;
    uint32_t key_size;
    uint8_t key[ASK_KEY_MAX];
};

/* Whether the daemon is going to look for requests without being woken. Whoever says that it is not
 * looks once more before it sleeps. */
void ask_attend(struct map *map, bool attended);

/* Whether something is posted: eight loads. */
bool ask_is_posted(struct map *map);

/* How long those who wait may spin, at most SPIN_MOST_US; 0: not at all. */
void ask_spin(struct map *map, uint32_t limit_us);

/* Take the next request that is posted. False: there is none. */
bool ask_take(struct map *map, struct ask_taken *taken);

/* End it and wake who waits. False: it had ended (its time was over). */
bool ask_answer(struct map *map, uint32_t slot, uint64_t word, enum ask_end end);

/* Once a second: free what is past its deadline, and look again at what a worker that died had
 * posted without telling. */
void ask_sweep(struct map *map);

/* A daemon begins: end all that its predecessor had taken, and let workers ask again. */
void ask_begin_daemon(struct map *map);

#endif
