/* sweeps.c: see sweeps.h.
 */
#include "sweeps.h"

#include <string.h>

#include "control.h"
#include "monotone.h"
#include "pattern.h"
#include "removal.h"

enum { SWEEPS_WAIT_MS = 20 };

static_assert(SWEEPS_NAME_MAX <= UINT8_MAX, "fits sweep_row.size");

int sweeps_init(struct sweeps *sweeps)
{
    return gate_init(&sweeps->gate);
}

bool sweeps_name(struct sweep *out, enum sweep_kind kind, larder_bytes name)
{
    uint8_t literal[LARDER_GLOB_MAX];
    if (kind == SWEEP_GLOB && name.size > SWEEPS_NAME_MAX) {
        kind = SWEEP_PREFIX;
        name = (larder_bytes){literal, pattern_literal_prefix(name, literal)};
    }
    if (name.size == 0) {
        return false;
    }
    out->kind = (uint8_t)kind;
    out->size = (uint8_t)(name.size < SWEEPS_NAME_MAX ? name.size : SWEEPS_NAME_MAX);
    memcpy(out->name, name.data, out->size);
    return true;
}

static size_t used(struct sweeps *sweeps)
{
    uint64_t count = atomic_load(&sweeps->used);
    return count < SWEEPS_ROWS ? (size_t)count : SWEEPS_ROWS;
}

static bool same(const struct sweep_row *row, const struct sweep *sweep)
{
    return row->kind == sweep->kind && row->size == sweep->size &&
           memcmp(row->name, sweep->name, sweep->size) == 0;
}

static struct sweep_row *find(struct sweeps *sweeps, const struct sweep *sweep)
{
    for (size_t i = 0; i < used(sweeps); i++) {
        struct sweep_row *row = &sweeps->rows[i];
        if (atomic_load(&row->clock) != 0 && same(row, sweep)) {
            return row;
        }
    }
    return NULL;
}

/* All are taken: the oldest goes, and something wider stands for it. */
static struct sweep_row *recycle(struct control *control)
{
    struct sweeps *sweeps = &control->sweeps;
    struct sweep_row *oldest = &sweeps->rows[0];
    for (size_t i = 1; i < SWEEPS_ROWS; i++) {
        if (atomic_load(&sweeps->rows[i].clock) < atomic_load(&oldest->clock)) {
            oldest = &sweeps->rows[i];
        }
    }
    uint64_t clock = atomic_load(&oldest->clock);
    uint32_t flags = atomic_load(&oldest->flags);
    bool told = (flags & SWEEP_TOLD) != 0 || atomic_load(&control->replicates) == 0;
    if (told && (flags & SWEEP_SWEPT) != 0) {
        sweeps_raise_floor(control, clock);
    } else {
        removal_clear(control, clock);
    }
    return oldest;
}

bool sweeps_add(struct control *control, const struct sweep *sweep)
{
    struct sweeps *sweeps = &control->sweeps;
    if (gate_enter(&sweeps->gate, SWEEPS_WAIT_MS) < 0) {
        return false;
    }
    struct sweep_row *row = find(sweeps, sweep);
    if (row == NULL) {
        size_t count = used(sweeps);
        row = count < SWEEPS_ROWS ? &sweeps->rows[count] : recycle(control);
        /* who dies in between leaves a row that is free */
        atomic_store(&row->clock, 0);
        row->kind = sweep->kind;
        row->size = sweep->size;
        memcpy(row->name, sweep->name, sweep->size);
        if (count < SWEEPS_ROWS) {
            atomic_store(&sweeps->used, count + 1);
        }
    }
    if (atomic_load(&row->clock) < sweep->clock) {
        /* Nothing is done with it until all that is so says it: first not swept and not told. */
        atomic_store(&row->flags, 0);
        atomic_store(&row->clock, sweep->clock);
        monotone_raise(&sweeps->newest, sweep->clock);
        atomic_store(&row->flags, sweep->flags);
    }
    gate_leave(&sweeps->gate);
    control_news(control);
    return true;
}

void sweeps_done(struct control *control, const struct sweep *sweep, uint32_t flag)
{
    struct sweeps *sweeps = &control->sweeps;
    if (gate_enter(&sweeps->gate, SWEEPS_WAIT_MS) < 0) {
        return; /* it is done once more, which is harmless */
    }
    struct sweep_row *row = find(sweeps, sweep);
    if (row != NULL && atomic_load(&row->clock) <= sweep->clock) {
        (void)atomic_fetch_or(&row->flags, flag);
    }
    gate_leave(&sweeps->gate);
}

bool sweeps_next(struct control *control, size_t *index, uint32_t lacking, struct sweep *out,
                 bool *busy)
{
    struct sweeps *sweeps = &control->sweeps;
    *busy = gate_enter(&sweeps->gate, SWEEPS_WAIT_MS) < 0;
    if (*busy) {
        return false;
    }
    bool found = false;
    for (; *index < used(sweeps) && !found; ++*index) {
        const struct sweep_row *row = &sweeps->rows[*index];
        uint32_t flags = atomic_load(&row->flags);
        if (atomic_load(&row->clock) == 0 || row->size > SWEEPS_NAME_MAX || row->size == 0 ||
            (lacking != 0 && (flags & lacking) == lacking)) {
            continue;
        }
        out->clock = atomic_load(&row->clock);
        out->flags = flags;
        out->kind = row->kind;
        out->size = row->size;
        memcpy(out->name, row->name, row->size);
        found = true;
    }
    gate_leave(&sweeps->gate);
    return found;
}

static bool is_of(const struct sweep_row *row, const struct key *key)
{
    if (row->size == 0 || row->size > SWEEPS_NAME_MAX) {
        return false;
    }
    if (row->kind == SWEEP_GLOB) {
        return pattern_matches((larder_bytes){row->name, row->size}, key->data, key->size);
    }
    return key->size >= row->size && memcmp(key->data, row->name, row->size) == 0;
}

bool sweeps_death(struct control *control, const struct key *key, uint64_t clock, uint64_t *death)
{
    struct sweeps *sweeps = &control->sweeps;
    *death = 0;
    if (clock > atomic_load(&sweeps->newest)) {
        return true;
    }
    if (gate_enter(&sweeps->gate, SWEEPS_WAIT_MS) < 0) {
        return false;
    }
    uint64_t newest = atomic_load(&sweeps->floor);
    for (size_t i = 0; i < used(sweeps); i++) {
        uint64_t swept = atomic_load(&sweeps->rows[i].clock);
        if (swept > newest && swept >= clock && is_of(&sweeps->rows[i], key)) {
            newest = swept;
        }
    }
    gate_leave(&sweeps->gate);
    *death = newest >= clock ? newest : 0;
    return true;
}

void sweeps_raise_floor(struct control *control, uint64_t clock)
{
    monotone_raise(&control->sweeps.newest, clock);
    monotone_raise(&control->sweeps.floor, clock);
}
