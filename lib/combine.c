/* combine.c: slots in which waiting writers leave small requests for the gate's holder. See
 * combine.h. The slots are shared memory: sizes are checked, contents copied before use.
 */
#include "combine.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "control.h"
#include "format.h"
#include "self.h"

enum {
    STATE_BITS = 4,
    STATE_MASK = (1 << STATE_BITS) - 1,
    LOOK_NS = 20000,   /* before sleeping; a commit takes two or three microseconds */
    SLEEP_NS = 500000, /* the holder may have left without us, or died: look again */
    PAUSES_MOST = 16
};

static uint32_t word_of(uint32_t owner, enum combine_state state)
{
    return owner | (uint32_t)state;
}

static uint32_t own(void)
{
    return self()->process << STATE_BITS;
}

static bool move(struct combine_slot *slot, uint32_t owner, enum combine_state from,
                 enum combine_state to)
{
    uint32_t expected = word_of(owner, from);
    /* acquire and release: what was written before a state is seen by whoever sees the state.
     * seq_cst, because sleeps is looked at after done, and set before the last look at the state */
    return atomic_compare_exchange_strong(&slot->state, &expected, word_of(owner, to));
}

static uint64_t bit_of(const struct control *control, const struct combine_slot *slot)
{
    return UINT64_C(1) << (slot - control->combine.slots);
}

/* ---- The poster -------------------------------------------------------------------------------
 */

static bool is_dead(uint32_t word)
{
    pid_t pid = (pid_t)(word >> STATE_BITS);
    return kill(pid, 0) != 0 && errno == ESRCH;
}

/* A slot for this process; where none is free, one of the dead. */
static struct combine_slot *claim(struct control *control)
{
    uint32_t owner = own();
    size_t start = owner >> STATE_BITS; /* so that processes do not meet at the first one */
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < COMBINE_SLOTS; i++) {
            struct combine_slot *slot = &control->combine.slots[(start + i) % COMBINE_SLOTS];
            uint32_t word = atomic_load_explicit(&slot->state, memory_order_relaxed);
            uint32_t state = word & STATE_MASK;
            bool takeable =
                pass == 0 ? word == COMBINE_FREE
                          : state != COMBINE_TAKEN && state != COMBINE_ABANDONED && is_dead(word);
            if (takeable && atomic_compare_exchange_strong(&slot->state, &word,
                                                           word_of(owner, COMBINE_CLAIMED))) {
                return slot;
            }
        }
    }
    return NULL;
}

struct combine_slot *combine_post(struct control *control, const struct combine_request *request)
{
    struct combine_slot *slot = claim(control);
    if (slot == NULL) {
        return NULL;
    }
    atomic_store_explicit(&slot->sleeps, 0, memory_order_relaxed);
    slot->clock = request->version.clock;
    slot->node = request->version.node;
    slot->expires_at_ms = request->expires_at_ms;
    slot->operation = (uint8_t)request->operation;
    slot->kind = request->kind;
    slot->flags = request->flags;
    slot->key_size = (uint16_t)request->key_size;
    slot->value_size = (uint16_t)request->value_size;
    slot->place = request->place;
    memcpy(slot->bytes, request->key, request->key_size);
    if (request->value_size > 0) {
        memcpy(slot->bytes + request->key_size, request->value, request->value_size);
    }
    (void)move(slot, own(), COMBINE_CLAIMED, COMBINE_POSTED);
    (void)atomic_fetch_or(&control->combine.posted, bit_of(control, slot));
    return slot;
}

static void release(struct combine_slot *slot)
{
    atomic_store_explicit(&slot->state, COMBINE_FREE, memory_order_release);
}

/* Take back what nobody has taken yet. The bit goes while the slot is still ours: else it might be
 * the next one's. */
static bool take_back(struct control *control, struct combine_slot *slot)
{
    if (!move(slot, own(), COMBINE_POSTED, COMBINE_CLAIMED)) {
        return false;
    }
    (void)atomic_fetch_and(&control->combine.posted, ~bit_of(control, slot));
    release(slot);
    return true;
}

bool combine_withdraw(struct control *control, struct combine_slot *slot, int *outcome)
{
    if (take_back(control, slot) || move(slot, own(), COMBINE_TAKEN, COMBINE_ABANDONED)) {
        return true;
    }
    uint32_t state = atomic_load_explicit(&slot->state, memory_order_acquire) & STATE_MASK;
    *outcome = atomic_load_explicit(&slot->outcome, memory_order_relaxed);
    release(slot);
    return state != COMBINE_DONE;
}

static void sleep_on(struct combine_slot *slot, int64_t until_ns, int64_t now)
{
    uint32_t word = atomic_load(&slot->state);
    uint32_t state = word & STATE_MASK;
    int64_t left = until_ns - now < SLEEP_NS ? until_ns - now : SLEEP_NS;
    if (left <= 0 || (state != COMBINE_POSTED && state != COMBINE_TAKEN)) {
        return;
    }
    struct timespec wait = {.tv_nsec = (long)left};
    atomic_store(&slot->sleeps, 1); /* before the kernel's look at the state: see move() */
    (void)syscall(SYS_futex, &slot->state, FUTEX_WAIT, word, &wait, NULL, 0);
    atomic_store_explicit(&slot->sleeps, 0, memory_order_relaxed);
}

enum combine_verdict combine_wait(struct control *control, struct combine_slot **posted,
                                  int64_t until_ns, int64_t patience_ns, enum gate_result *entered,
                                  int *outcome)
{
    struct gate *gate = &control->write_gate;
    struct combine_slot *slot = *posted;
    int64_t now = clock_monotonic_ns();
    int64_t look_until = now + LOOK_NS, free_since = now;
    unsigned pauses = 1;
    for (;;) {
        uint32_t state = atomic_load_explicit(&slot->state, memory_order_acquire) & STATE_MASK;
        if (state == COMBINE_DONE) {
            *outcome = atomic_load_explicit(&slot->outcome, memory_order_relaxed);
            release(slot);
            return COMBINE_CARRIED_OUT;
        }
        if (state != COMBINE_POSTED && state != COMBINE_TAKEN) { /* refused */
            int64_t left_ms = (until_ns - clock_monotonic_ns()) / 1000000;
            release(slot);
            *posted = NULL;
            *entered = gate_enter(gate, left_ms > 0 ? left_ms : 0);
            return *entered >= 0 ? COMBINE_HELD : COMBINE_NOT;
        }
        *entered = GATE_BUSY;
        if (gate_looks_held(gate)) {
            free_since = now;
        } else if (now - free_since >= patience_ns) {
            *entered = gate_try(gate);
        }
        if (*entered != GATE_BUSY) {
            if (*entered >= 0) {
                return COMBINE_HELD;
            }
            return combine_withdraw(control, slot, outcome) ? COMBINE_NOT : COMBINE_CARRIED_OUT;
        }
        gate_pause(pauses);
        pauses = pauses < PAUSES_MOST ? pauses * 2 : PAUSES_MOST;
        now = clock_monotonic_ns();
        if (now >= until_ns) {
            break;
        }
        if (now >= look_until) {
            sleep_on(slot, until_ns, now);
        }
    }
    if (take_back(control, slot)) {
        *posted = NULL;
        *entered = gate_enter(gate, 0); /* says whether it is busy or damaged */
        return *entered >= 0 ? COMBINE_HELD : COMBINE_NOT;
    }
    /* Taken: the holder may carry it out after all, so that nobody else may. */
    *entered = GATE_BUSY;
    return combine_withdraw(control, slot, outcome) ? COMBINE_NOT : COMBINE_CARRIED_OUT;
}

/* ---- The holder -------------------------------------------------------------------------------
 */

bool combine_any(struct control *control)
{
    return atomic_load_explicit(&control->combine.posted, memory_order_relaxed) != 0;
}

static bool read_request(struct combine_slot *slot, struct combine_request *request, uint8_t *bytes)
{
    size_t key_size = slot->key_size, value_size = slot->value_size;
    if (key_size == 0 || !combine_fits(key_size, value_size) ||
        (slot->operation != COMBINE_SET && slot->operation != COMBINE_DELETE) ||
        (slot->kind != RECORD_VALUE && slot->kind != RECORD_NEGATIVE)) {
        return false;
    }
    memcpy(bytes, slot->bytes, key_size + value_size);
    *request = (struct combine_request){
        .operation = (enum combine_operation)slot->operation,
        .key = bytes,
        .key_size = key_size,
        .value = bytes + key_size,
        .value_size = value_size,
        .version = {.clock = slot->clock, .node = slot->node},
        .expires_at_ms = slot->expires_at_ms,
        .kind = slot->kind,
        .flags = slot->flags & (RECORD_DIRTY | RECORD_LOCAL),
        .place = slot->place,
    };
    return true;
}

bool combine_take(struct control *control, struct combine_batch *batch, uint64_t generation,
                  uint64_t number, struct combine_request *request, uint8_t *bytes)
{
    uint64_t posted = atomic_load_explicit(&control->combine.posted, memory_order_acquire);
    posted &= (UINT64_C(1) << COMBINE_SLOTS) - 1;
    for (; posted != 0 && batch->count < COMBINE_BATCH; posted &= posted - 1) {
        size_t index = (size_t)__builtin_ctzll(posted);
        struct combine_slot *slot = &control->combine.slots[index];
        uint32_t word = atomic_load_explicit(&slot->state, memory_order_relaxed);
        if ((word & STATE_MASK) != COMBINE_POSTED) {
            continue; /* the bit is its owner's: it is about to post, or to take back */
        }
        /* only the gate's holder writes these; before the state, which is what a successor reads */
        atomic_store_explicit(&slot->generation, generation, memory_order_relaxed);
        atomic_store_explicit(&slot->transaction, number, memory_order_relaxed);
        atomic_store_explicit(&slot->outcome, LARDER_EINVAL, memory_order_relaxed);
        uint32_t owner = word & ~(uint32_t)STATE_MASK;
        if (!move(slot, owner, COMBINE_POSTED, COMBINE_TAKEN)) {
            continue;
        }
        (void)atomic_fetch_and(&control->combine.posted, ~(UINT64_C(1) << index));
        batch->taken[batch->count].slot = (uint8_t)index;
        batch->taken[batch->count].owner = owner;
        batch->taken[batch->count].outcome = LARDER_EINVAL;
        batch->count++;
        if (read_request(slot, request, bytes)) {
            return true;
        }
    }
    return false;
}

void combine_note(struct control *control, struct combine_batch *batch, int outcome)
{
    size_t last = batch->count - 1;
    batch->taken[last].outcome = outcome;
    atomic_store_explicit(&control->combine.slots[batch->taken[last].slot].outcome, outcome,
                          memory_order_relaxed);
}

void combine_note_done(struct control *control, uint32_t slot, uint64_t generation,
                       uint64_t transaction)
{
    if (slot >= COMBINE_SLOTS) {
        return;
    }
    struct combine_slot *at = &control->combine.slots[slot];
    uint32_t state = atomic_load_explicit(&at->state, memory_order_relaxed) & STATE_MASK;
    if ((state == COMBINE_TAKEN || state == COMBINE_ABANDONED) &&
        atomic_load_explicit(&at->generation, memory_order_relaxed) == generation &&
        atomic_load_explicit(&at->transaction, memory_order_relaxed) == transaction) {
        atomic_store_explicit(&at->outcome, LARDER_OK, memory_order_relaxed);
    }
}

void combine_finish(struct control *control, struct combine_batch *batch, bool committed)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct combine_slot *slot = &control->combine.slots[batch->taken[i].slot];
        bool done = committed && batch->taken[i].outcome >= 0;
        if (!move(slot, batch->taken[i].owner, COMBINE_TAKEN,
                  done ? COMBINE_DONE : COMBINE_REFUSED)) {
            release(slot); /* abandoned */
        }
    }
}

void combine_wake(struct control *control, struct combine_batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct combine_slot *slot = &control->combine.slots[batch->taken[i].slot];
        if (atomic_load(&slot->sleeps) != 0) {
            (void)syscall(SYS_futex, &slot->state, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
        }
    }
    batch->count = 0;
}

void combine_settle(struct control *control, uint64_t generation, uint64_t last)
{
    for (size_t i = 0; i < COMBINE_SLOTS; i++) {
        struct combine_slot *slot = &control->combine.slots[i];
        uint32_t word = atomic_load_explicit(&slot->state, memory_order_acquire);
        uint32_t owner = word & ~(uint32_t)STATE_MASK;
        if ((word & STATE_MASK) == COMBINE_TAKEN) {
            bool same = atomic_load_explicit(&slot->generation, memory_order_relaxed) == generation;
            bool committed =
                same && atomic_load_explicit(&slot->transaction, memory_order_relaxed) <= last &&
                atomic_load_explicit(&slot->outcome, memory_order_relaxed) >= 0;
            if (move(slot, owner, COMBINE_TAKEN, committed ? COMBINE_DONE : COMBINE_REFUSED)) {
                (void)syscall(SYS_futex, &slot->state, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
                continue;
            }
            word = atomic_load_explicit(&slot->state, memory_order_acquire);
        }
        if ((word & STATE_MASK) == COMBINE_ABANDONED) {
            release(slot);
        }
    }
}
