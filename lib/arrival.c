/* arrival.c: see arrival.h.
 */
#include "arrival.h"

#include <string.h>

#include "clock.h"
#include "error.h"
#include "lookup.h"
#include "marks.h"
#include "pattern.h"
#include "removal.h"
#include "sweeps.h"

/* All of the bytes, as hex digits. */
static bool read_hex(const uint8_t *text, size_t size, uint64_t *number)
{
    *number = 0;
    for (size_t i = 0; i < size; i++) {
        uint8_t c = text[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
            return false;
        }
        *number = *number << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return true;
}

/* What another host's wrong clock made is not believed: what is written here would be dead at once,
 * for as long as that clock was ahead. */
static uint64_t clock_of(const struct control *control, const replica_record *in)
{
    uint64_t limit = clock_limit(control);
    return in->version.clock < limit ? in->version.clock : limit;
}

static int take_group_or_tag(struct control *control, const replica_record *in, bool *known)
{
    uint64_t tag;
    *known = in->key_size == 17 && read_hex(in->key + 1, 16, &tag) && tag != 0;
    return !*known || marks_merge(control, tag, clock_of(control, in)) ? LARDER_OK : LARDER_EBUSY;
}

static void take_bucket(struct control *control, const replica_record *in, bool *known)
{
    uint64_t bucket;
    *known = in->key_size == 4 && read_hex(in->key + 1, 3, &bucket);
    if (*known) {
        removal_raise_barrier(control, bucket << 52, clock_of(control, in));
        removal_told(&control->barriers_told[bucket], clock_of(control, in));
    }
}

static int take_sweep(struct control *control, const replica_record *in, bool *known)
{
    struct sweep sweep = {.clock = clock_of(control, in), .flags = SWEEP_TOLD};
    enum sweep_kind kind = in->key[0] == 'p' ? SWEEP_PREFIX : SWEEP_GLOB;
    larder_bytes name = {in->key + 1, in->key_size - 1};
    *known = name.size > 0 && name.size <= SWEEPS_NAME_MAX &&
             (kind == SWEEP_PREFIX || pattern_check(name) == LARDER_OK) &&
             sweeps_name(&sweep, kind, name);
    if (!*known) {
        return LARDER_OK;
    }
    /* fills that began before it may bring what was there before */
    removal_raise_fill_floor(control, sweep.clock);
    return sweeps_add(control, &sweep) ? LARDER_OK : LARDER_EBUSY;
}

/* Prefixes and patterns that the fleet's set had no room for, up to that clock. Those that this
 * host has seen it has swept; it cannot know that it saw all. */
static void take_unknown(struct control *control, uint64_t clock)
{
    if (clock <= atomic_load(&control->sweeps.floor) ||
        clock <= removal_higher(&control->cleared, &control->cleared_here)) {
        return;
    }
    clock_observe(control, clock);
    removal_clear_here(control, clock);
}

int arrival_mark(struct control *control, replica_event *event)
{
    const replica_record *in = &event->record;
    uint64_t clock = clock_of(control, in);
    bool known = in->key_size == 1;
    int result = LARDER_OK;
    switch (in->key_size == 0 ? 0 : in->key[0]) {
    case 'm':
        result = take_group_or_tag(control, in, &known);
        break;
    case 'b':
        take_bucket(control, in, &known);
        break;
    case 'p':
    case 'g':
        result = take_sweep(control, in, &known);
        break;
    case 'c':
        if (known) {
            removal_told(&control->cleared_told, clock);
            removal_clear(control, clock);
        }
        break;
    case 'f':
    case 'F':
        if (known) {
            marks_merge_floor(control, clock);
        }
        break;
    case 'A':
        if (known) {
            take_unknown(control, clock);
        }
        break;
    default:
        known = false;
    }
    if (result != LARDER_OK) {
        return error_set(result, "a table of invalidations is held by another process");
    }
    if (known) {
        clock_observe(control, clock);
    }
    event->verdict = known ? REPLICA_APPLIED : REPLICA_REFUSED;
    return LARDER_OK;
}

bool arrival_is_dead(struct writer *writer, const struct key *key, const struct record *old,
                     replica_event *event, int *result)
{
    const replica_record *in = &event->record;
    uint64_t swept;
    uint32_t count = in->mark_count < RECORD_MARKS_MAX ? in->mark_count : RECORD_MARKS_MAX;
    struct record record = {.header = {.clock = in->version.clock, .mark_count = (uint8_t)count},
                            .marks = in->marks};
    *result = LARDER_OK;
    if (in->kind == REPLICA_DELETED) {
        return false;
    }
    if (!sweeps_death(writer->control, key, in->version.clock, &swept)) {
        *result = error_set(LARDER_EBUSY, "the table of prefixes is held by another process");
        return true;
    }
    if (swept == 0 && lookup_death(writer->control, &record, key->hash) == 0) {
        return false;
    }
    event->verdict = old == NULL ? REPLICA_REFUSED : REPLICA_APPLIED;
    if (swept == 0 && lookup_death_in_fleet(writer->control, &record, key->hash) == 0) {
        event->verdict = REPLICA_REFUSED; /* by a barrier for this host alone: so is what is here */
        return true;
    }
    if (old == NULL && in->version.clock <= removal_bucket_floor(writer->control, key->hash)) {
        return true; /* a removal of it would let in what is older than the floor */
    }
    *result = entry_bury(writer, key, old, in->version);
    return true;
}
