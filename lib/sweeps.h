/* sweeps.h: invalidations by prefix and by pattern, which no key that is not there can show: a
 * table in the control segment of those that happened, here or on another host. Each is told to
 * Redis, swept (what it means is removed from this map) and kept, because what comes in later may
 * be older than it. Workers add their own, larderd does the rest. No hit ever looks here.
 *
 * Rows are bounded and recycled, the oldest first. What a row stood for is then under the floor:
 * nothing that old may come in from other hosts, whatever its key. A row that is not yet swept or
 * told raises the clear instead. Wider, never stale. MAP_FORMAT
 */
#ifndef LARDER_LIB_SWEEPS_H
#define LARDER_LIB_SWEEPS_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gate.h"
#include "key.h"
#include "larder.h"

struct control;

enum {
    SWEEPS_ROWS = 4096,
    SWEEPS_NAME_MAX = 112, /* longer ones are cut: wider */
    SWEEP_SWEPT = 1 << 0,
    SWEEP_TOLD = 1 << 1
};

enum sweep_kind { SWEEP_PREFIX = 1, SWEEP_GLOB = 2 };

struct sweep_row {
    _Atomic uint64_t clock; /* 0: free */
    _Atomic uint32_t flags;
    uint16_t reserved;
    uint8_t kind, size;
    uint8_t name[SWEEPS_NAME_MAX];
};
static_assert(sizeof(struct sweep_row) == 128, "MAP_FORMAT");

struct sweeps {
    _Atomic uint64_t newest; /* clock of the newest row, or of the floor; 0: none */
    _Atomic uint64_t floor;  /* nothing this old may come in from elsewhere */
    _Atomic uint64_t used;   /* rows from here on were never taken */
    uint8_t padding0[40];
    struct gate gate; /* for every look at the rows */
    struct sweep_row rows[SWEEPS_ROWS];
};
static_assert(offsetof(struct sweeps, gate) == 64, "MAP_FORMAT");
static_assert(offsetof(struct sweeps, rows) == 128, "MAP_FORMAT");

struct sweep { /* a row's copy */
    uint64_t clock;
    uint32_t flags;
    uint8_t kind, size;
    uint8_t name[SWEEPS_NAME_MAX];
};

int sweeps_init(struct sweeps *sweeps);

/* What stands for a checked prefix or pattern: itself, or where it is too long for a row something
 * wider. False: nothing less than everything. */
bool sweeps_name(struct sweep *out, enum sweep_kind kind, larder_bytes name);

/* Add it (clock, flags, name) or renew it. False: the gate is held by somebody who was stopped;
 * nothing happened. */
bool sweeps_add(struct control *control, const struct sweep *sweep);

/* Swept, or told, up to that clock. */
void sweeps_done(struct control *control, const struct sweep *sweep, uint32_t flag);

/* The next row from *index on that has not all of these flags (0: any row). False: no more, or the
 * gate is held (*busy). */
bool sweeps_next(struct control *control, size_t *index, uint32_t lacking, struct sweep *out,
                 bool *busy);

/* The clock of what keeps an entry of that key and clock out, if it comes from elsewhere; 0:
 * nothing. False: the gate is held. */
bool sweeps_death(struct control *control, const struct key *key, uint64_t clock, uint64_t *death);

void sweeps_raise_floor(struct control *control, uint64_t clock);

#endif
