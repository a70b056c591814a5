/* events.h: the ring of events in the control segment: how it lies there, how events get into it
 * (the writer inside its transaction, larder_publish and invalidations at once) and how one is read
 * out again (follow.c). Nothing here waits for anybody, takes a lock or trusts what it reads.
 *
 * An event has a number; number N stands in slot N % EVENTS_SLOTS. Its word is (N << 3 | state):
 *
 *   writing -> ready                    events that are true at once
 *   writing -> prepared -> ready        events of a transaction: ready once it is committed
 *                       -> cancelled    ... or it was not
 *
 * Every step is a compare-and-swap from exactly the word before it. Whoever was stopped for a whole
 * lap of the ring therefore publishes nothing over its successor; what it may scribble into the
 * slot when it goes on, the checksum shows. A process that dies leaves a word that followers pass
 * over; the prepared ones of a dead writer are decided by the next one, which knows what was
 * committed.
 */
#ifndef LARDER_LIB_EVENTS_H
#define LARDER_LIB_EVENTS_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "larder.h"
#include "notify.h"

enum {
    EVENTS_SLOTS = 8192,
    EVENTS_INLINE = 104,          /* bytes of name and data that stand in the slot */
    EVENTS_BYTES = 512 * 1024,    /* ring of longer ones */
    EVENTS_BODY_MAX = 4096 + 255, /* bytes kept of one event: longer keys are cut */
    EVENTS_KEY_MAX = 4096,
    EVENTS_FOLLOWERS = 64 /* of a map */
};

enum event_state {
    EVENT_FREE = 0,
    EVENT_WRITING = 1,
    EVENT_PREPARED = 2,
    EVENT_READY = 3,
    EVENT_CANCELLED = 4
};

#define EVENT_WORD(number, state) ((number) << 3 | (uint64_t)(state))
#define EVENT_NUMBER(word) ((word) >> 3)
#define EVENT_STATE(word) ((enum event_state)((word)&7))

struct event_fields {
    uint64_t transaction, generation; /* of a prepared one */
    uint64_t key_hash;
    uint64_t clock;
    int64_t expires_ms;
    uint64_t place;     /* in the ring of bytes, where the body is longer than EVENTS_INLINE */
    uint32_t name_size; /* in full */
    uint16_t name_kept; /* bytes of it in the body; the data follows */
    uint16_t data_size;
    uint32_t node;
    uint8_t kind; /* log2 of LARDER_EVENT_* */
    uint8_t cause;
    uint16_t flags;
};
static_assert(sizeof(struct event_fields) == 64, "MAP_FORMAT");

struct event_slot {
    _Atomic uint64_t word;
    _Atomic uint64_t checksum; /* of number, fields and body */
    _Atomic int32_t pid;
    uint32_t reserved;
    struct event_fields fields;
    uint8_t body[EVENTS_INLINE];
};
static_assert(sizeof(struct event_slot) == 192, "MAP_FORMAT");
static_assert(offsetof(struct event_slot, fields) == 24, "MAP_FORMAT");
static_assert(offsetof(struct event_slot, body) == 88, "MAP_FORMAT");

/* Who follows: only so that writers know whether anybody does. */
struct event_follower {
    _Atomic int32_t pid; /* 0: free */
    _Atomic uint32_t kinds;
    _Atomic uint64_t token; /* tells one follower of a process from the next */
};
static_assert(sizeof(struct event_follower) == 16, "MAP_FORMAT");

struct event_ring {
    /* read by every write: kinds that somebody follows in the low half, in the high one how many
     * have ever begun to, so that one who leaves cannot take away a bit of one who comes */
    _Atomic uint64_t interest;
    uint8_t padding0[56];
    _Atomic uint64_t head;  /* number of the newest event; the first is 1 */
    _Atomic uint64_t bytes; /* given away in the ring of bytes */
    uint8_t padding1[48];
    _Atomic uint32_t bell;        /* a futex: raised when there is news */
    _Atomic uint32_t bell_wanted; /* somebody sleeps on it */
    uint8_t padding2[24];
    struct notify_set listeners; /* processes with a follower that wait in an event loop */
    struct event_follower followers[EVENTS_FOLLOWERS];
    struct event_slot slots[EVENTS_SLOTS];
    uint8_t body[EVENTS_BYTES];
};
static_assert(offsetof(struct event_ring, head) == 64, "MAP_FORMAT");
static_assert(offsetof(struct event_ring, followers) == 192, "MAP_FORMAT");
static_assert(sizeof(struct event_ring) % 64 == 0, "MAP_FORMAT");

/* What is to be told. */
struct event_draft {
    uint32_t kind, cause, flags;
    larder_version version;
    int64_t expires_ms;
    uint64_t key_hash;
    larder_bytes name, data;          /* data: at most LARDER_EVENT_DATA_MAX */
    uint64_t transaction, generation; /* of a prepared one */
};

/* The prepared events of one transaction: theirs are the prepared slots from first to last. */
struct event_batch {
    uint64_t first, last; /* first 0: none */
};

/* Whether anybody follows events of that kind: all that a write costs while nobody does. */
static inline bool events_wanted(const struct event_ring *ring, uint32_t kind)
{
    /* relaxed: whoever is told, after larder_follow() returned, to look at what comes next learns
     * of it through something that orders; a write that is not so ordered is before or after */
    return __builtin_expect(
        (atomic_load_explicit(&ring->interest, memory_order_relaxed) & kind) != 0, 0);
}

/* Put an event that is true already. Its number, or 0 where a whole lap overtook it. Ring the bell
 * behind the last. */
uint64_t events_put(struct event_ring *ring, const struct event_draft *draft);

/* Inside a transaction, the write gate held: put one that becomes true with its commit; then tell
 * which it was. */
void events_prepare(struct event_ring *ring, const struct event_draft *draft,
                    struct event_batch *batch);
void events_decide(struct event_ring *ring, struct event_batch *batch, bool committed);

/* The first transaction after a writer died in the gate: what it had prepared is true if its
 * transaction is one of those up to last_committed. */
void events_recover(struct event_ring *ring, uint64_t generation, uint64_t last_committed);

/* Wake those who sleep; a system call only if somebody does. */
void events_ring_bell(struct event_ring *ring);

/* ---- Followers */

/* Enter one in the table. Its index, or -1: the table is full. */
int events_join(struct event_ring *ring, uint32_t kinds, uint64_t token);
void events_leave(struct event_ring *ring, int index, uint64_t token);

/* Strike those out whose process has ended. */
void events_sweep(struct event_ring *ring);

enum event_read {
    EVENT_READ_OK,
    EVENT_READ_NONE,    /* cancelled, or its publisher gave up */
    EVENT_READ_PENDING, /* not (yet) finished */
    EVENT_READ_LOST     /* overwritten or damaged */
};

/* A copy of event number; body holds EVENTS_BODY_MAX bytes. *pid: of its publisher, as far as the
 * slot tells (PENDING), else 0; *prepared: it waits for a commit. */
enum event_read events_read(struct event_ring *ring, uint64_t number, struct event_fields *fields,
                            uint8_t *body, int32_t *pid, bool *prepared);

/* Sleep until the bell rings after it stood at seen, at most so long. */
void events_sleep(struct event_ring *ring, uint32_t seen, int64_t ms);

#endif
