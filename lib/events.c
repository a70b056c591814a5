/* events.c: see events.h.
 */
#include "events.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { SWEEP_EVERY = 1024 /* events */ };

static struct event_slot *slot_of(struct event_ring *ring, uint64_t number)
{
    return &ring->slots[number % EVENTS_SLOTS];
}

static uint64_t checksum(uint64_t number, const struct event_fields *fields, const void *body,
                         size_t size)
{
    uint64_t sum = XXH3_64bits_withSeed(fields, sizeof *fields, number);
    return size == 0 ? sum : XXH3_64bits_withSeed(body, size, sum);
}

/* ---- The ring of bytes ------------------------------------------------------------------------
 */

static void bytes_put(struct event_ring *ring, uint64_t place, const uint8_t *from, size_t size)
{
    size_t at = (size_t)(place % EVENTS_BYTES);
    size_t first = size < EVENTS_BYTES - at ? size : EVENTS_BYTES - at;
    memcpy(ring->body + at, from, first);
    memcpy(ring->body, from + first, size - first);
}

static void bytes_get(const struct event_ring *ring, uint64_t place, uint8_t *to, size_t size)
{
    size_t at = (size_t)(place % EVENTS_BYTES);
    size_t first = size < EVENTS_BYTES - at ? size : EVENTS_BYTES - at;
    memcpy(to, ring->body + at, first);
    memcpy(to + first, ring->body, size - first);
}

/* ---- Putting ----------------------------------------------------------------------------------
 */

/* Make the slot ours unless somebody a lap ahead has it. A number that is out of all reason is
 * damage, and makes way. */
static bool claim(struct event_slot *slot, uint64_t number)
{
    uint64_t word = atomic_load_explicit(&slot->word, memory_order_relaxed);
    do {
        uint64_t there = EVENT_NUMBER(word);
        if (there >= number && there - number < (UINT64_C(1) << 40)) {
            return false;
        }
        /* acq_rel: what is written below stays behind it; pairs with events_read()'s second look */
    } while (!atomic_compare_exchange_weak_explicit(&slot->word, &word,
                                                    EVENT_WORD(number, EVENT_WRITING),
                                                    memory_order_acq_rel, memory_order_relaxed));
    return true;
}

static bool step(struct event_slot *slot, uint64_t number, enum event_state from,
                 enum event_state to)
{
    uint64_t word = EVENT_WORD(number, from);
    /* seq_cst: before the look at bell_wanted; pairs with the follower, which says that it sleeps
     * and then looks at the slot. The acquire in events_read() sees the slot whole. */
    return atomic_compare_exchange_strong(&slot->word, &word, EVENT_WORD(number, to));
}

static uint64_t put(struct event_ring *ring, const struct event_draft *draft,
                    enum event_state state)
{
    uint8_t joined[EVENTS_BODY_MAX];
    const uint8_t *body = draft->name.data;
    size_t kept = draft->name.size < EVENTS_KEY_MAX ? draft->name.size : EVENTS_KEY_MAX;
    size_t room = EVENTS_BODY_MAX - kept;
    size_t data = draft->data.size < room ? draft->data.size : room;
    size_t size = kept + data;
    struct event_fields fields = {
        .transaction = draft->transaction,
        .generation = draft->generation,
        .key_hash = draft->key_hash,
        .clock = draft->version.clock,
        .expires_ms = draft->expires_ms,
        .name_size = (uint32_t)draft->name.size,
        .name_kept = (uint16_t)kept,
        .data_size = (uint16_t)data,
        .node = draft->version.node,
        .kind = (uint8_t)__builtin_ctz(draft->kind),
        .cause = (uint8_t)draft->cause,
        .flags = (uint16_t)(draft->flags | (kept < draft->name.size ? LARDER_EVENT_CUT : 0)),
    };
    if (data > 0) {
        memcpy(joined, draft->name.data, kept);
        memcpy(joined + kept, draft->data.data, data);
        body = joined;
    }
    uint64_t number = atomic_fetch_add_explicit(&ring->head, 1, memory_order_acq_rel) + 1;
    struct event_slot *slot = slot_of(ring, number);
    if (!claim(slot, number)) {
        return 0;
    }
    atomic_store_explicit(&slot->pid, (int32_t)getpid(), memory_order_relaxed);
    if (size > EVENTS_INLINE) {
        fields.place = atomic_fetch_add_explicit(&ring->bytes, size, memory_order_acq_rel);
        bytes_put(ring, fields.place, body, size);
    } else if (size > 0) {
        memcpy(slot->body, body, size);
    }
    memcpy(&slot->fields, &fields, sizeof fields);
    atomic_store_explicit(&slot->checksum, checksum(number, &fields, body, size),
                          memory_order_relaxed);
    if (number % SWEEP_EVERY == 0) {
        events_sweep(ring);
    }
    return step(slot, number, EVENT_WRITING, state) ? number : 0;
}

uint64_t events_put(struct event_ring *ring, const struct event_draft *draft)
{
    return put(ring, draft, EVENT_READY);
}

void events_prepare(struct event_ring *ring, const struct event_draft *draft,
                    struct event_batch *batch)
{
    uint64_t number = put(ring, draft, EVENT_PREPARED);
    if (number != 0) {
        batch->first = batch->first == 0 ? number : batch->first;
        batch->last = number;
    }
}

void events_decide(struct event_ring *ring, struct event_batch *batch, bool committed)
{
    if (batch->first == 0) {
        return;
    }
    uint64_t first = batch->first, last = batch->last;
    if (last - first >= EVENTS_SLOTS) {
        first = last - EVENTS_SLOTS + 1;
    }
    for (uint64_t number = first; number <= last; number++) {
        (void)step(slot_of(ring, number), number, EVENT_PREPARED,
                   committed ? EVENT_READY : EVENT_CANCELLED);
    }
    *batch = (struct event_batch){0};
}

void events_recover(struct event_ring *ring, uint64_t generation, uint64_t last_committed)
{
    for (size_t i = 0; i < EVENTS_SLOTS; i++) {
        struct event_slot *slot = &ring->slots[i];
        uint64_t word = atomic_load_explicit(&slot->word, memory_order_acquire);
        if (EVENT_STATE(word) == EVENT_PREPARED) {
            bool committed =
                slot->fields.generation == generation && slot->fields.transaction <= last_committed;
            (void)step(slot, EVENT_NUMBER(word), EVENT_PREPARED,
                       committed ? EVENT_READY : EVENT_CANCELLED);
        }
    }
}

/* ---- The bell ---------------------------------------------------------------------------------
 */

void events_ring_bell(struct event_ring *ring)
{
    /* seq_cst: behind the step to ready; pairs with events_sleep() */
    if (atomic_load(&ring->bell_wanted) != 0 && atomic_exchange(&ring->bell_wanted, 0) != 0) {
        (void)atomic_fetch_add(&ring->bell, 1);
        (void)syscall(SYS_futex, &ring->bell, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
    }
}

void events_sleep(struct event_ring *ring, uint32_t seen, int64_t ms)
{
    struct timespec wait = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    (void)syscall(SYS_futex, &ring->bell, FUTEX_WAIT, seen, &wait, NULL, 0);
}

/* ---- Who follows ------------------------------------------------------------------------------
 */

static uint32_t kinds_of_all(struct event_ring *ring)
{
    uint32_t kinds = 0;
    for (size_t i = 0; i < EVENTS_FOLLOWERS; i++) {
        if (atomic_load(&ring->followers[i].pid) != 0) {
            kinds |= atomic_load(&ring->followers[i].kinds);
        }
    }
    return kinds;
}

/* Somebody left. Whoever comes meanwhile raises the high half, and it is counted anew. */
static void narrow_interest(struct event_ring *ring)
{
    uint64_t before = atomic_load(&ring->interest);
    uint64_t after;
    do {
        after = (before >> 32 << 32) | kinds_of_all(ring);
    } while (!atomic_compare_exchange_weak(&ring->interest, &before, after));
}

int events_join(struct event_ring *ring, uint32_t kinds, uint64_t token)
{
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < EVENTS_FOLLOWERS; i++) {
            struct event_follower *follower = &ring->followers[i];
            int32_t none = 0;
            /* the kinds may be the last one's for a moment: wider */
            if (atomic_compare_exchange_strong(&follower->pid, &none, (int32_t)getpid())) {
                atomic_store(&follower->token, token);
                atomic_store(&follower->kinds, kinds);
                uint64_t before = atomic_load(&ring->interest);
                while (!atomic_compare_exchange_weak(&ring->interest, &before,
                                                     (before + (UINT64_C(1) << 32)) | kinds)) {
                }
                return i;
            }
        }
        events_sweep(ring); /* full: of the dead, perhaps */
    }
    return -1;
}

void events_leave(struct event_ring *ring, int index, uint64_t token)
{
    if (index < 0 || index >= EVENTS_FOLLOWERS) {
        return;
    }
    struct event_follower *follower = &ring->followers[index];
    if (atomic_load(&follower->token) == token) {
        int32_t self = (int32_t)getpid();
        atomic_store(&follower->token, 0);
        (void)atomic_compare_exchange_strong(&follower->pid, &self, 0);
        narrow_interest(ring);
    }
}

void events_sweep(struct event_ring *ring)
{
    bool changed = false;
    for (size_t i = 0; i < EVENTS_FOLLOWERS; i++) {
        int32_t pid = atomic_load(&ring->followers[i].pid);
        if (pid != 0 && (pid < 0 || (kill(pid, 0) != 0 && errno == ESRCH))) {
            changed |= atomic_compare_exchange_strong(&ring->followers[i].pid, &pid, 0);
        }
    }
    if (changed) {
        narrow_interest(ring);
    }
}

/* ---- Reading ----------------------------------------------------------------------------------
 */

enum event_read events_read(struct event_ring *ring, uint64_t number, struct event_fields *fields,
                            uint8_t *body, int32_t *pid, bool *prepared)
{
    struct event_slot *slot = slot_of(ring, number);
    /* acquire: pairs with step() */
    uint64_t word = atomic_load_explicit(&slot->word, memory_order_acquire);
    *pid = 0;
    *prepared = EVENT_STATE(word) == EVENT_PREPARED && EVENT_NUMBER(word) == number;
    if (EVENT_NUMBER(word) > number) {
        return EVENT_READ_LOST;
    }
    if (EVENT_NUMBER(word) < number || EVENT_STATE(word) == EVENT_WRITING ||
        EVENT_STATE(word) == EVENT_PREPARED) {
        *pid = EVENT_NUMBER(word) == number ? atomic_load_explicit(&slot->pid, memory_order_relaxed)
                                            : 0;
        return EVENT_READ_PENDING;
    }
    if (EVENT_STATE(word) != EVENT_READY) {
        return EVENT_READ_NONE;
    }
    memcpy(fields, &slot->fields, sizeof *fields);
    uint64_t sum = atomic_load_explicit(&slot->checksum, memory_order_relaxed);
    size_t size = (size_t)fields->name_kept + fields->data_size;
    if (size > EVENTS_BODY_MAX || fields->kind > 31) {
        return EVENT_READ_LOST;
    }
    if (size > EVENTS_INLINE) {
        bytes_get(ring, fields->place, body, size);
    } else {
        memcpy(body, slot->body, size);
    }
    /* the copy before the second look; pairs with claim() */
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(&slot->word, memory_order_relaxed) != word ||
        sum != checksum(number, fields, body, size)) {
        return EVENT_READ_LOST;
    }
    return EVENT_READ_OK;
}
