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
static uint64_t seal_of(const struct overwrite *what)
{
    const uint64_t odd = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t seal = (what->offset * odd ^ what->size) * odd ^ what->transaction;
    return (seal * odd ^ what->request) * odd;
}

void overwrite_reset(struct overwrite_area *area, uint64_t generation)
{
    atomic_store_explicit(&area->owner, generation, memory_order_relaxed);
    /* before any sequence: pairs with the fence in overwrite_read() */
    atomic_thread_fence(memory_order_release);
    for (size_t i = 0; i < OVERWRITE_SEQUENCES; i++) {
        uint32_t sequence = atomic_load_explicit(&area->sequences[i], memory_order_relaxed);
        atomic_store_explicit(&area->sequences[i], sequence + (sequence & 1), memory_order_relaxed);
    }
    overwrite_end(area);
}

static void copy_to_place(struct overwrite_area *area, uint8_t *place, uint64_t offset,
                          uint32_t size)
{
    _Atomic uint32_t *sequence = &area->sequences[sequence_of(offset)];
    /* odd already where a holder died in here */
    uint32_t odd = atomic_load_explicit(sequence, memory_order_relaxed) | 1;
    /* release: who finds it odd finds all of the redo slot */
    atomic_store_explicit(sequence, odd, memory_order_release);
    atomic_thread_fence(memory_order_release); /* no byte of the place before the odd sequence */
    memcpy(place, area->redo.bytes, size);
    atomic_store_explicit(sequence, odd + 1, memory_order_release);
}

void overwrite_carry_out(struct overwrite_area *area, uint8_t *base, const struct overwrite *what)
{
    struct overwrite_redo *redo = &area->redo;
    atomic_store_explicit(&redo->offset, what->offset, memory_order_relaxed);
    redo->size = what->size;
    redo->transaction = what->transaction;
    redo->hash = what->hash;
    redo->request = what->request;
    redo->seal = seal_of(what);
    /* release: who finds it active finds all of it */
    atomic_store_explicit(&redo->active, 1, memory_order_release);
    copy_to_place(area, base + what->offset, what->offset, what->size);
}

bool overwrite_finish(struct overwrite_area *area, uint8_t *base, uint64_t limit, uint64_t last,
                      uint32_t *request)
{
    struct overwrite_redo *redo = &area->redo;
    struct overwrite what = {.offset = atomic_load_explicit(&redo->offset, memory_order_acquire),
                             .transaction = redo->transaction,
                             .hash = redo->hash,
                             .size = redo->size,
                             .request = redo->request};
    if (what.size > OVERWRITE_MAX || what.offset > limit || what.size > limit - what.offset ||
        what.transaction != last || redo->seal != seal_of(&what) ||
        !record_intact(redo->bytes, what.size, what.hash)) {
        return false;
    }
    copy_to_place(area, base + what.offset, what.offset, what.size);
    *request = what.request;
    return true;
}

void overwrite_end(struct overwrite_area *area)
{
    atomic_store_explicit(&area->redo.active, 0, memory_order_release);
    /* The next record is put into the slot after the last sequence was seen even. */
    atomic_thread_fence(memory_order_release);
}

bool overwrite_read(const struct overwrite_area *area, uint64_t generation, const uint8_t *base,
                    uint64_t offset, size_t size, uint8_t *copy)
{
    const struct overwrite_redo *redo = &area->redo;
    const _Atomic uint32_t *sequence = &area->sequences[sequence_of(offset)];
    for (int tries = 0; tries < READ_TRIES; tries++) {
        const uint8_t *from = base + offset;
        /* acquire: pairs with the releases in copy_to_place() */
        uint32_t before = atomic_load_explicit(sequence, memory_order_acquire);
        if (__builtin_expect((before & 1) != 0, 0) &&
            atomic_load_explicit(&redo->active, memory_order_relaxed) == 1 &&
            atomic_load_explicit(&redo->offset, memory_order_relaxed) == offset) {
            from = redo->bytes; /* size fits: the caller's is checked, not the slot's */
        }
        memcpy(copy, from, size);
        atomic_thread_fence(memory_order_acquire);
        if (__builtin_expect(atomic_load_explicit(&area->owner, memory_order_relaxed) != generation,
                             0)) {
            return false;
        }
        if (__builtin_expect(atomic_load_explicit(sequence, memory_order_relaxed) == before, 1)) {
            return true;
        }
        gate_pause(PAUSES);
    }
    return false;
}
