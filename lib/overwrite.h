/* overwrite.h: a record written over where it stands, in the page of a committed snapshot, without
 * a transaction. Copying the path of pages that leads to one record is most of what a small write
 * costs; a record that keeps its size changes nothing on that path.
 *
 *   writer, inside the write gate            reader, in a snapshot that names the place
 *     the redo slot: place and new bytes       sequence of the place, before
 *     sequence of the place odd                copy the record (odd and the redo slot names this
 *     copy them to the place                     place: copy from there)
 *     sequence even                            sequence, after: the same, or once more
 *     whose request it was learns of it
 *     slot empty
 *
 * Invariants: while a sequence is odd the redo slot holds all of what its place is to hold. So a
 * reader never waits for a writer that is stopped in the middle, and the next holder of the gate
 * finishes what a dead one began, before anything else is written. A place is of the newest
 * committed snapshot: whoever writes it holds the gate, and nothing commits meanwhile.
 *
 * An older snapshot that shares the page sees the newer record, too. Nobody asks of two records of
 * a snapshot that they were true at the same time; that a record is whole is what counts.
 */
#ifndef LARDER_LIB_OVERWRITE_H
#define LARDER_LIB_OVERWRITE_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "larder.h"

enum {
    OVERWRITE_MAX = 1024,      /* bytes of a record; larger ones are never written over */
    OVERWRITE_SEQUENCES = 1024 /* shared by all places, by their cache line */
};

/* What is being written, whole. MAP_FORMAT */
struct overwrite_redo {
    _Atomic uint32_t active; /* 1: to be carried out by whoever holds the gate next */
    uint32_t size;
    _Atomic uint64_t offset; /* of the place in the file */
    uint64_t transaction;    /* the last one that was committed then */
    uint64_t seal;           /* of offset, size and transaction; the record has its own checksum */
    uint64_t hash;           /* of the record's key */
    uint32_t request; /* 1 + the slot of combine.h whose request it is; 0: the writer's own */
    uint8_t reserved[20];
    uint8_t bytes[OVERWRITE_MAX];
};
static_assert(sizeof(struct overwrite_redo) == 64 + OVERWRITE_MAX, "MAP_FORMAT");

/* One of each generation. */
struct overwrite_area {
    _Atomic uint64_t owner; /* the generation */
    uint8_t padding[56];
    struct overwrite_redo redo;
    _Atomic uint32_t sequences[OVERWRITE_SEQUENCES];
};
static_assert(sizeof(struct overwrite_area) % 64 == 0, "MAP_FORMAT");

/* Give the area to its next generation. Sequences go on rising, and who still reads in the one
 * before the last finds another owner. */
void overwrite_reset(struct overwrite_area *area, uint64_t generation);

/* What is to be written, and where. */
struct overwrite {
    uint64_t offset, transaction, hash;
    uint32_t size, request;
};

/* Write size bytes that stand in area->redo.bytes, the record of a key of that hash, to base +
 * offset. Inside the gate. Then overwrite_end(). */
void overwrite_carry_out(struct overwrite_area *area, uint8_t *base, const struct overwrite *what);

/* Do again what a holder of the gate left behind when it died. limit: bytes of the mapping; last:
 * the last committed transaction. *request as above. False: the slot is damaged. Then
 * overwrite_end(). */
bool overwrite_finish(struct overwrite_area *area, uint8_t *base, uint64_t limit, uint64_t last,
                      uint32_t *request);

/* It is done, and whoever asked for it has been told. */
void overwrite_end(struct overwrite_area *area);

static inline bool overwrite_unfinished(const struct overwrite_area *area)
{
    return __builtin_expect(atomic_load_explicit(&area->redo.active, memory_order_relaxed) != 0, 0);
}

/* Copy a record of at most OVERWRITE_MAX bytes that stands at base + offset, whole, into copy.
 * Waits for nobody. False: writers were faster a hundred times, or the area is another
 * generation's by now. */
bool overwrite_read(const struct overwrite_area *area, uint64_t generation, const uint8_t *base,
                    uint64_t offset, size_t size, uint8_t *copy);

#endif
