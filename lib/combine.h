/* combine.h: small writes that wait for the gate are carried out by its holder, many in one commit
 * (flat combining: Hendler, Incze, Shavit, Tzafrir, SPAA 2010). A writer that finds the gate held
 * posts what it wants into a slot of the control segment and waits for either; the holder takes
 * what is posted into its transaction and says in the slot what came of it.
 *
 * States of a slot, and who moves it:
 *   free -> claimed -> posted        the poster
 *   posted -> claimed -> free        the poster withdraws: it has the gate itself, or no time left
 *   posted -> taken                  the gate's holder, after it has noted its transaction there
 *   taken -> done | refused          the same holder, after its commit | without one
 *   taken -> abandoned               the poster's time is over while the holder is stopped
 *   done, refused -> free            the poster has read it;  abandoned -> free: the holder
 * Whoever leaves the gate in order leaves nothing taken. One that finds its predecessor dead inside
 * settles what is taken before it does anything else: done if and only if an outcome and a
 * committed transaction are noted, else refused. A request that is carried out in place
 * (overwrite.h) is noted with the last transaction, and its outcome before the redo slot that names
 * it is empty. So nothing is lost, done twice or told wrongly, whoever dies when.
 *
 * The version is drawn by the poster: whatever is invalidated after an abandoned request has a
 * higher one, and the request, should it still be carried out, is dead on arrival. MAP_FORMAT
 */
#ifndef LARDER_LIB_COMBINE_H
#define LARDER_LIB_COMBINE_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gate.h"
#include "larder.h"

enum {
    COMBINE_SLOTS = 32,
    COMBINE_BYTES = 1952, /* key and value of a request */
    COMBINE_BATCH = 16    /* requests that one transaction takes along */
};

enum combine_state {
    COMBINE_FREE = 0,
    COMBINE_CLAIMED = 1,
    COMBINE_POSTED = 2,
    COMBINE_TAKEN = 3,
    COMBINE_DONE = 4,
    COMBINE_REFUSED = 5, /* not carried out: the poster does it itself, and learns why */
    COMBINE_ABANDONED = 6
};

enum combine_operation { COMBINE_SET = 1, COMBINE_DELETE = 2 };

/* Where the poster found the key's record: it has waited for that memory, and the holder need not.
 * Advice: the holder believes it of its own generation and the last transaction alone, and looks
 * whether the key stands there. */
struct combine_place {
    uint64_t generation, transaction; /* 0: it has not looked, or found nothing */
    uint64_t offset;                  /* in the mapping */
    uint64_t size;
};

struct combine_slot {
    _Atomic uint32_t state;  /* enum combine_state, and the poster's pid << 4; a futex */
    _Atomic uint32_t sleeps; /* the poster waits in the kernel for state to change */
    _Atomic int32_t outcome; /* of a request that was done: LARDER_OK, LARDER_MISS */
    uint32_t node;
    _Atomic uint64_t generation, transaction; /* the holder's */
    uint64_t clock;
    int64_t expires_at_ms;
    uint16_t key_size, value_size;
    uint8_t operation, kind, flags;
    uint8_t padding[9];
    struct combine_place place;
    uint8_t bytes[COMBINE_BYTES];
};
static_assert(sizeof(struct combine_slot) == 2048, "MAP_FORMAT");
static_assert(offsetof(struct combine_slot, bytes) == 96, "MAP_FORMAT");

struct combine_table {
    _Atomic uint64_t posted; /* a hint: a bit for each slot that is worth a look */
    uint8_t padding[56];
    struct combine_slot slots[COMBINE_SLOTS];
};
static_assert(sizeof(struct combine_table) == 64 + COMBINE_SLOTS * 2048, "MAP_FORMAT");

struct control;

/* What is asked for: plain in every respect. Key and value are the caller's. */
struct combine_request {
    enum combine_operation operation;
    const void *key, *value;
    size_t key_size, value_size;
    larder_version version;
    int64_t expires_at_ms;
    uint8_t kind, flags; /* of the record */
    struct combine_place place;
};

static inline bool combine_fits(size_t key_size, size_t value_size)
{
    return key_size <= COMBINE_BYTES && value_size <= COMBINE_BYTES - key_size;
}

/* ---- The poster -------------------------------------------------------------------------------
 */

/* Post a request. NULL: no slot is free. */
struct combine_slot *combine_post(struct control *control, const struct combine_request *request);

enum combine_verdict {
    COMBINE_CARRIED_OUT, /* by another; its outcome is given */
    COMBINE_HELD,        /* the gate was entered: carry on, see combine_withdraw() */
    COMBINE_NOT          /* neither: entered says why */
};

/* Wait for the one or the other until the deadline (monotonic, ns). The gate is entered when it has
 * been free for patience_ns. The slot is no longer the caller's then, unless the gate was entered
 * and *slot is still there. */
enum combine_verdict combine_wait(struct control *control, struct combine_slot **slot,
                                  int64_t until_ns, int64_t patience_ns, enum gate_result *entered,
                                  int *outcome);

/* Take the request back: inside the gate, or because the time is over. False: it was done, outcome
 * says how. What is taken by a holder that is stopped is abandoned: it may still be done. The slot
 * is no longer the caller's. */
bool combine_withdraw(struct control *control, struct combine_slot *slot, int *outcome);

/* ---- The holder -------------------------------------------------------------------------------
 */

/* The requests that a transaction takes along. */
struct combine_batch {
    size_t count;
    struct {
        uint8_t slot;
        uint32_t owner; /* its state word without the state */
        int outcome;    /* below 0: refuse */
    } taken[COMBINE_BATCH];
};

bool combine_any(struct control *control);

/* Take the next posted request into transaction number of that generation. bytes holds
 * COMBINE_BYTES and keeps what request points to. False: there is none, or no room in the batch. */
bool combine_take(struct control *control, struct combine_batch *batch, uint64_t generation,
                  uint64_t number, struct combine_request *request, uint8_t *bytes);

/* Before the commit: what came of the one taken last. */
void combine_note(struct control *control, struct combine_batch *batch, int outcome);

/* The last holder died after it had carried that slot's request out in place, or the next one has
 * done so for it: combine_settle() is to call it done. */
void combine_note_done(struct control *control, uint32_t slot, uint64_t generation,
                       uint64_t transaction);

/* After the end of the transaction, inside the gate. */
void combine_finish(struct control *control, struct combine_batch *batch, bool committed);

/* After leaving the gate: wake those who sleep. */
void combine_wake(struct control *control, struct combine_batch *batch);

/* The last holder died inside: settle what it had taken. last is the last committed transaction. */
void combine_settle(struct control *control, uint64_t generation, uint64_t last);

#endif
