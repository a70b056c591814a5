/* replica_marks.c: the part of the replicator's port that is about invalidations of many: those
 * that Redis has not been told of, and the sweep of what a prefix or pattern has invalidated.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "handle.h"
#include "lookup.h"
#include "marks.h"
#include "pattern.h"
#include "removal.h"
#include "replica_internal.h"
#include "scan.h"
#include "sweeps.h"
#include "wake.h"

enum { SWEEP_KEYS = 64 };

static_assert(REPLICA_MARK_NAME_MAX == SWEEPS_NAME_MAX + 1, "a kind and a name");

/* Floors last: what leaves a table during a walk over it is then found there. */
enum stage { STAGE_WORDS, STAGE_BUCKETS, STAGE_MARKS, STAGE_SWEEPS, STAGE_FLOORS, STAGE_END };

/* ---- Reading ----------------------------------------------------------------------------------
 */

static void add(replica_marks *out, uint64_t clock, char kind, const void *name, size_t size)
{
    replica_mark *mark = &out->marks[out->count++];
    mark->clock = clock;
    mark->name_size = (uint32_t)size + 1;
    mark->name[0] = (uint8_t)kind;
    memcpy(mark->name + 1, name, size);
}

static bool is_full(const replica_marks *out)
{
    return out->count == REPLICA_MARKS_AT_ONCE;
}

static void read_words(struct control *control, replica_marks *out, bool all)
{
    uint64_t cleared = atomic_load(&control->cleared);
    uint64_t floor = atomic_load(&control->marks.floor_untold);
    if (cleared != 0 && (all || cleared > atomic_load(&control->cleared_told))) {
        add(out, cleared, 'c', "", 0);
    }
    if (floor != 0 && (all || floor > atomic_load(&control->marks.floor_told))) {
        add(out, floor, 'f', "", 0);
    }
}

static void read_floors(struct control *control, replica_marks *out)
{
    uint64_t marked = atomic_load(&control->marks.floor);
    uint64_t arrivals = atomic_load(&control->sweeps.floor);
    if (marked != 0) {
        add(out, marked, 'F', "", 0);
    }
    if (arrivals != 0) {
        add(out, arrivals, 'A', "", 0);
    }
}

static void read_buckets(struct control *control, replica_marks *out, bool all)
{
    uint64_t cleared = atomic_load(&control->cleared);
    for (; out->index < CONTROL_BUCKETS && !is_full(out); out->index++) {
        uint64_t clock = atomic_load(&control->barriers[out->index]);
        if (clock > cleared && (all || clock > atomic_load(&control->barriers_told[out->index]))) {
            char name[8];
            (void)snprintf(name, sizeof name, "%03x", (unsigned)out->index);
            add(out, clock, 'b', name, 3);
        }
    }
}

static void read_marks(struct control *control, replica_marks *out, bool all)
{
    uint64_t tag, clock;
    while (!is_full(out) && marks_next(control, all, &out->index, &tag, &clock)) {
        char name[20];
        (void)snprintf(name, sizeof name, "%016" PRIx64, tag);
        add(out, clock, 'm', name, 16);
    }
}

static int read_sweeps(struct control *control, replica_marks *out, bool all)
{
    struct sweep sweep;
    bool busy = false;
    while (!is_full(out) &&
           sweeps_next(control, &out->index, all ? 0 : SWEEP_TOLD, &sweep, &busy)) {
        add(out, sweep.clock, sweep.kind == SWEEP_GLOB ? 'g' : 'p', sweep.name, sweep.size);
    }
    return busy ? error_set(LARDER_EBUSY, "the table of prefixes is held by another process")
                : LARDER_OK;
}

int replica_marks_read(larder *handle, replica_marks *out, bool all, bool floors, bool restart)
{
    out->count = 0;
    out->end = false;
    int result = handle_enter(handle);
    if (result != LARDER_OK) {
        return result;
    }
    struct control *control = map_control(handle->map);
    uint64_t news = atomic_load(&control->news);
    if (!all && news == out->looked_at) {
        out->end = true;
        return LARDER_OK;
    }
    if (!all || restart) {
        out->stage = out->index = 0;
    }
    while (out->stage != STAGE_END && !is_full(out) && result == LARDER_OK) {
        switch ((enum stage)out->stage) {
        case STAGE_WORDS:
            read_words(control, out, all);
            break;
        case STAGE_BUCKETS:
            read_buckets(control, out, all);
            break;
        case STAGE_MARKS:
            read_marks(control, out, all);
            break;
        case STAGE_SWEEPS:
            result = read_sweeps(control, out, all);
            break;
        case STAGE_FLOORS:
            if (out->count + 2 > REPLICA_MARKS_AT_ONCE) {
                return result; /* with the next ones */
            }
            if (floors) {
                read_floors(control, out);
            }
            break;
        case STAGE_END:
            break;
        }
        if (!is_full(out) || out->stage == STAGE_FLOORS) {
            out->stage++;
            out->index = 0;
        }
    }
    out->end = out->stage == STAGE_END;
    if (!all && out->count == 0 && out->end && result == LARDER_OK) {
        out->looked_at = news;
    }
    return result;
}

/* ---- What Redis has ---------------------------------------------------------------------------
 */

static void told(struct control *control, const replica_mark *mark)
{
    char text[REPLICA_MARK_NAME_MAX + 1];
    size_t size = mark->name_size < sizeof text ? mark->name_size : sizeof text - 1;
    memcpy(text, mark->name, size);
    text[size] = '\0';
    struct sweep sweep = {.clock = mark->clock};
    enum sweep_kind kind = text[0] == 'g' ? SWEEP_GLOB : SWEEP_PREFIX;
    switch (text[0]) {
    case 'c':
        removal_told(&control->cleared_told, mark->clock);
        break;
    case 'f':
        removal_told(&control->marks.floor_told, mark->clock);
        break;
    case 'b':
        removal_told(&control->barriers_told[strtoul(text + 1, NULL, 16) % CONTROL_BUCKETS],
                     mark->clock);
        break;
    case 'm':
        marks_told(control, strtoull(text + 1, NULL, 16), mark->clock);
        break;
    case 'p':
    case 'g':
        if (sweeps_name(&sweep, kind, (larder_bytes){mark->name + 1, size - 1})) {
            sweeps_done(control, &sweep, SWEEP_TOLD);
        }
        break;
    default:
        break;
    }
}

int replica_marks_told(larder *handle, uint64_t fence, const replica_mark *marks, size_t count)
{
    int result = handle_enter_write(handle);
    if (result == LARDER_OK) {
        result = replica_check_fence(map_control(handle->map), fence);
    }
    for (size_t i = 0; i < count && result == LARDER_OK; i++) {
        told(map_control(handle->map), &marks[i]);
    }
    return result;
}

/* ---- Sweeping ---------------------------------------------------------------------------------
 */

struct sweep_batch {
    const larder_item *items;
    size_t count;
    uint64_t clock, fence;
};

/* What stands there now, if it is no newer. */
static int sweep_batch(struct writer *writer, void *context)
{
    struct sweep_batch *batch = context;
    int result = replica_check_fence(writer->control, batch->fence);
    writer->cause = LARDER_CAUSE_REPLICA;
    for (size_t i = 0; i < batch->count && result == LARDER_OK; i++) {
        struct key key;
        struct record old;
        result = key_make(&key, batch->items[i].key, batch->items[i].key_size);
        if (result == LARDER_OK) {
            result = entry_find(&writer->transaction, &key, &old);
        }
        if (result == LARDER_OK && old.header.kind != RECORD_DELETED &&
            old.header.clock <= batch->clock) {
            result = entry_bury(writer, &key, &old, record_version(&old, writer->control->home));
        }
        result = result == LARDER_MISS ? LARDER_OK : result;
    }
    return result;
}

/* There is no room to bury them: dead from now on, and buried with the next write that has room, at
 * their own versions, too. */
static void make_dead(const larder *handle, const struct sweep_batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        const larder_item *item = &batch->items[i];
        larder_version version = item->info.version;
        struct key key;
        if (version.clock > batch->clock ||
            key_make(&key, item->key, item->key_size) != LARDER_OK) {
            continue;
        }
        version.node += version.node == REMOVAL_LEAVES_NOTHING; /* this leaves a removal */
        if (removal_pend(map_control(handle->map), &key, version)) {
            stats_count(map_stats(handle->map), STATS_PENDING_OVERFLOWS);
        }
    }
}

static bool next_sweep(struct control *control, replica_sweep *sweep, bool *busy)
{
    struct sweep next;
    size_t index = 0;
    if (!sweeps_next(control, &index, SWEEP_SWEPT, &next, busy)) {
        return false;
    }
    *sweep =
        (replica_sweep){.active = true, .clock = next.clock, .kind = next.kind, .size = next.size};
    memcpy(sweep->name, next.name, next.size);
    return true;
}

int replica_sweep_some(larder *handle, uint64_t fence, replica_sweep *sweep, bool *more)
{
    bool busy = false;
    uint8_t literal[LARDER_GLOB_MAX];
    larder_item items[SWEEP_KEYS];
    void *memory = NULL;
    size_t found = 0;
    int result = handle_enter_write(handle);
    *more = true;
    if (result != LARDER_OK) {
        return result;
    }
    struct control *control = map_control(handle->map);
    if (!sweep->active && !next_sweep(control, sweep, &busy)) {
        *more = busy;
        return LARDER_OK;
    }
    larder_bytes name = {sweep->name, sweep->size};
    bool glob = sweep->kind == SWEEP_GLOB;
    struct scan_filter filter = {.prefix = name, .past = true};
    if (glob) {
        filter.glob = &name;
        filter.prefix = (larder_bytes){literal, pattern_literal_prefix(name, literal)};
    }
    larder_cursor before = sweep->cursor;
    result = scan_run(handle, &sweep->cursor, &filter, items, SWEEP_KEYS,
                      LARDER_SCAN_KEYS | SCAN_ONE_PIECE, &found, &memory);
    if (result == LARDER_MISS) {
        return LARDER_OK;
    }
    if (result == LARDER_OK && found == 0) {
        struct sweep done = {.clock = sweep->clock, .kind = sweep->kind, .size = sweep->size};
        memcpy(done.name, sweep->name, sweep->size);
        sweeps_done(control, &done, SWEEP_SWEPT);
        sweep->active = false;
        return LARDER_OK;
    }
    if (result == LARDER_OK) {
        struct sweep_batch batch = {
            .items = items, .count = found, .clock = sweep->clock, .fence = fence};
        result = replica_run(handle, 0, sweep_batch, &batch);
        if (result == LARDER_EFULL &&
            replica_check_fence(control, fence) == LARDER_OK) { /* readers must not wait for it */
            make_dead(handle, &batch);
            result = LARDER_OK;
        }
        larder_free(memory);
    }
    if (result < 0) {
        sweep->cursor = before; /* this piece again */
    }
    return result;
}
