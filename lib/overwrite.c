/* overwrite.c: see overwrite.h. The area and the pages are shared memory: what is read of the redo
 * slot is checked before it is used.
 */
#include "overwrite.h"

#include <string.h>

#include "format.h"
#include "gate.h"

enum {
    READ_TRIES = 100,
    LINE_BITS = 6,
    PAUSES = 8 /* an overwrite takes a few dozen nanoseconds */
};

static size_t sequence_of(uint64_t offset)
{
    return (size_t)(offset >> LINE_BITS) % OVERWRITE_SEQUENCES;
}

/* Against a slot that was torn or flipped, not against an enemy. */
static uint64_t seal_of(uint64_t offset, uint32_t size, uint64_t transaction)
{
    const uint64_t odd = UINT64_C(0x9e3779b97f4a7c15);
    return ((offset * odd ^ size) * odd ^ transaction) * odd;
}

void overwrite_reset(struct overwrite_area *area)
{
    for (size_t i = 0; i < OVERWRITE_SEQUENCES; i++) {
        uint32_t sequence = atomic_load_explicit(&area->sequences[i], memory_order_relaxed);
        atomic_store_explicit(&area->sequences[i], sequence + (sequence & 1), memory_order_release);
    }
    atomic_store_explicit(&area->redo.active, 0, memory_order_release);
}

static void copy_to_place(struct overwrite_area *area, uint8_t *place, uint64_t offset,
                          uint32_t size)
{
    _Atomic uint32_t *sequence = &area->sequences[sequence_of(offset)];
    /* odd already where a holder died in here */
    uint32_t odd = atomic_load_explicit(sequence, memory_order_relaxed) | 1;
    atomic_store_explicit(sequence, odd, memory_order_relaxed);
    atomic_thread_fence(memory_order_release); /* no byte of the place before the odd sequence */
    memcpy(place, area->redo.bytes, size);
    atomic_store_explicit(sequence, odd + 1, memory_order_release);
}

void overwrite_carry_out(struct overwrite_area *area, uint8_t *base, uint64_t offset, uint32_t size,
                         uint64_t transaction, uint64_t hash)
{
    struct overwrite_redo *redo = &area->redo;
    atomic_store_explicit(&redo->offset, offset, memory_order_relaxed);
    redo->size = size;
    redo->transaction = transaction;
    redo->hash = hash;
    redo->seal = seal_of(offset, size, transaction);
    /* release: who finds it active, or the sequence odd, finds all of it */
    atomic_store_explicit(&redo->active, 1, memory_order_release);
    copy_to_place(area, base + offset, offset, size);
    atomic_store_explicit(&redo->active, 0, memory_order_release);
}

bool overwrite_finish(struct overwrite_area *area, uint8_t *base, uint64_t limit, uint64_t last)
{
    struct overwrite_redo *redo = &area->redo;
    uint64_t offset = atomic_load_explicit(&redo->offset, memory_order_acquire);
    uint32_t size = redo->size;
    if (size > OVERWRITE_MAX || offset > limit || size > limit - offset ||
        redo->transaction != last || redo->seal != seal_of(offset, size, last) ||
        !record_intact(redo->bytes, size, redo->hash)) {
        return false;
    }
    copy_to_place(area, base + offset, offset, size);
    atomic_store_explicit(&redo->active, 0, memory_order_release);
    return true;
}

bool overwrite_read(const struct overwrite_area *area, const uint8_t *base, uint64_t offset,
                    size_t size, uint8_t *copy)
{
    const _Atomic uint32_t *sequence = &area->sequences[sequence_of(offset)];
    for (int tries = 0; tries < READ_TRIES; tries++) {
        const uint8_t *from = base + offset;
        /* acquire: pairs with the releases in copy_to_place() */
        uint32_t before = atomic_load_explicit(sequence, memory_order_acquire);
        if (__builtin_expect((before & 1) != 0, 0) &&
            atomic_load_explicit(&area->redo.offset, memory_order_relaxed) == offset) {
            from = area->redo.bytes; /* size fits: the caller's is checked, not the slot's */
        }
        memcpy(copy, from, size);
        atomic_thread_fence(memory_order_acquire);
        if (__builtin_expect(atomic_load_explicit(sequence, memory_order_relaxed) == before, 1)) {
            return true;
        }
        gate_pause(PAUSES);
    }
    return false;
}
