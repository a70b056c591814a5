/* replica_apply.c: events applied in short transactions, and what becomes of one that the map has
 * no room for.
 *
 * Invariant: what replica_apply() has returned of is not read any more where it is newer than what
 * was here, whether there was room for it or not. An event that cannot be stored must not hold up
 * those behind it: an invalidation may be among them.
 */
#include <string.h>

#include "arrival.h"
#include "clock.h"
#include "error.h"
#include "handle.h"
#include "registry.h"
#include "removal.h"
#include "replica_internal.h"
#include "room.h"

enum { EVENTS_MAX = 1024 };

struct apply_request {
    replica_event *events;
    size_t count;
    const replica_position *position;
    uint64_t fence;
};

static int apply_operation(struct writer *writer, void *context)
{
    struct apply_request *request = context;
    int result = replica_check_fence(writer->control, request->fence);
    writer->cause = LARDER_CAUSE_REPLICA;
    bool fills = request->count > 0;
    for (size_t i = 0; i < request->count && result == LARDER_OK; i++) {
        fills = fills && request->events[i].fill.kind != REPLICA_FILL_NONE;
        result = replica_apply_one(writer, &request->events[i]);
    }
    writer->quiet = fills; /* the daemon need not wake itself for what it has just got from Redis */
    if (result == LARDER_OK && request->position != NULL) {
        const replica_position *in = request->position;
        struct control_position *position = &writer->ledger.position;
        *position =
            (struct control_position){.epoch = in->epoch, .number = in->number, .nonce = in->nonce};
        memcpy(position->run_id, in->run_id, sizeof position->run_id);
        position->run_id[sizeof position->run_id - 1] = '\0';
        writer->ledger.position_seen_ms = in->seen_ms;
        writer->ledger.position_since_ms = in->since_ms;
        result = store_touch(&writer->transaction);
    }
    return result;
}

static int apply_slice(larder *handle, struct apply_request *request)
{
    size_t bytes = 0;
    for (size_t i = 0; i < request->count; i++) {
        bytes += request->events[i].record.value_size;
    }
    int result = replica_run(handle, bytes, apply_operation, request);
    if (result == LARDER_OK && request->position != NULL) {
        atomic_store(&map_control(handle->map)->marks.set_id, request->position->marks_id);
    }
    return result;
}

/* ---- No room ----------------------------------------------------------------------------------
 */

/* Whether what can be read of its key has to give way to the event. To an answer to a miss nothing
 * has; to what another program has done, what Redis has of it; a copy of what another program did,
 * whose version is no true one, to any write. */
static bool gives_way(const struct control *control, const replica_event *event,
                      const struct record *old)
{
    bool dirty = (old->header.flags & RECORD_DIRTY) != 0;
    if (old->header.kind == RECORD_DELETED || (old->header.flags & RECORD_LOCAL) != 0) {
        return false;
    }
    if (event->fill.kind != REPLICA_FILL_NONE) {
        return event->fill.kind >= REPLICA_FILL_CHANGED && !dirty;
    }
    int order = clock_compare(record_version(old, control->home), event->record.version);
    /* A removal by eviction, expiry or an invalidation of many bears the version of its value. */
    return replica_is_foreign(old) || order < 0 ||
           (order == 0 && event->record.kind == REPLICA_DELETED);
}

/* Whether something has to give way, and the removal that does it. Where nobody can look: yes.
 * Whatever this host writes after the look is newer, for it has seen the clock. */
static bool find_removal(const larder *handle, const struct key *key, const replica_event *event,
                         larder_version *removal)
{
    struct control *control = map_control(handle->map);
    struct transaction *t;
    struct record old;
    int found = registry_snapshot(handle->map, NULL, &t);
    if (found == LARDER_OK) {
        found = entry_find(t, key, &old);
        store_read_end(t);
    }
    if (found == LARDER_MISS || (found == LARDER_OK && !gives_way(control, event, &old))) {
        return false;
    }
    /* a value itself stays alive where it has room: on other hosts, say */
    *removal = event->record.version;
    removal->clock -= event->record.kind == REPLICA_DELETED ? 0 : 1;
    if (event->fill.kind != REPLICA_FILL_NONE || (found == LARDER_OK && replica_is_foreign(&old))) {
        /* No version is told: Redis has something of another program, or newer than it says. */
        *removal = (larder_version){.clock = found == LARDER_OK ? old.header.clock
                                                                : clock_next(control).clock,
                                    .node = REMOVAL_LEAVES_NOTHING};
    }
    return true;
}

/* Dead from now on, and gone with the next write that has room. */
static void make_dead(const larder *handle, const struct key *key, larder_version removal)
{
    if (removal_pend(map_control(handle->map), key, removal)) {
        stats_count(map_stats(handle->map), STATS_PENDING_OVERFLOWS);
    }
}

/* In a smaller write: what stands there goes, as if evicted. */
static int drop_older(larder *handle, replica_event *event, uint64_t fence)
{
    if (event->fill.kind != REPLICA_FILL_NONE || event->record.kind == REPLICA_DELETED ||
        event->value_missing) {
        return LARDER_EFULL;
    }
    struct apply_request request = {.events = event, .count = 1, .fence = fence};
    event->value_missing = true;
    int result = replica_run(handle, 0, apply_operation, &request);
    event->value_missing = false; /* it is not to be fetched again */
    event->verdict = REPLICA_REFUSED;
    return result;
}

/* There is no room for it. What it is newer than goes, or is dead where not even that has room. */
static int give_way(larder *handle, replica_event *event, uint64_t fence, bool try_smaller)
{
    struct control *control = map_control(handle->map);
    struct key key;
    larder_version removal;
    if (event->record.kind == REPLICA_MARK) {
        return arrival_mark(control, event);
    }
    event->verdict = REPLICA_REFUSED;
    event->row = 0;
    if (key_make(&key, event->record.key, event->record.key_size) != LARDER_OK) {
        return LARDER_OK;
    }
    if (event->fill.kind == REPLICA_FILL_NONE) {
        clock_observe(control, event->record.version.clock);
    }
    if (!find_removal(handle, &key, event, &removal)) {
        return LARDER_OK;
    }
    int result = try_smaller ? drop_older(handle, event, fence) : LARDER_EFULL;
    if (result == LARDER_EFULL) {
        make_dead(handle, &key, removal);
        result = LARDER_OK;
    }
    return result;
}

static int give_way_to_all(larder *handle, const struct apply_request *request, bool try_smaller)
{
    int result = replica_check_fence(map_control(handle->map), request->fence);
    for (size_t i = 0; i < request->count && result == LARDER_OK; i++) {
        result = give_way(handle, &request->events[i], request->fence, try_smaller);
    }
    return result;
}

/* ---- Applying ---------------------------------------------------------------------------------
 */

/* The position alone. Without room for it the older one stays, and what comes after that is told
 * once more to the next larderd: at worst the same again. */
static int store_position(larder *handle, uint64_t fence, const replica_position *position)
{
    struct apply_request request = {.fence = fence, .position = position};
    int result = apply_slice(handle, &request);
    return result == LARDER_EFULL ? LARDER_OK : result;
}

int replica_apply(larder *handle, uint64_t fence, replica_event *events, size_t count,
                  const replica_position *position)
{
    int result = handle_enter_write(handle);
    if (result != LARDER_OK) {
        return result;
    }
    if (count > EVENTS_MAX) {
        return error_set(LARDER_EINVAL, "%zu events: at most %d", count, EVENTS_MAX);
    }
    size_t slice = REPLICA_SLICE;
    bool stored = false;
    struct apply_request request = {.events = events, .fence = fence};
    while (result == LARDER_OK && count > 0) {
        request.count = count < slice ? count : slice;
        request.position = request.count == count ? position : NULL;
        result = apply_slice(handle, &request);
        bool stuck = result == LARDER_EFULL && replica_is_stuck(handle);
        stored = result == LARDER_OK && request.position != NULL;
        if (!stuck && replica_smaller_slice(&slice, request.count, result)) {
            result = LARDER_OK;
            continue;
        }
        if (result == LARDER_EFULL) { /* of one event; stuck: of any */
            result = give_way_to_all(handle, &request, !stuck);
        }
        request.events += request.count;
        count -= request.count;
    }
    if (result == LARDER_OK && position != NULL && !stored) {
        result = store_position(handle, fence, position);
    }
    return result;
}

/* ---- The position -----------------------------------------------------------------------------
 */

int replica_position_read(larder *handle, replica_position *out)
{
    struct transaction *t;
    int result = handle_enter(handle);
    if (result == LARDER_OK) {
        result = registry_snapshot(handle->map, NULL, &t);
    }
    if (result != LARDER_OK) {
        return result;
    }
    struct ledger ledger;
    bool whole = store_ledger(t, &ledger);
    store_read_end(t);
    if (!whole) {
        return error_set(LARDER_EBUSY, "no ledger to be had: writers are too fast");
    }
    *out = (replica_position){.epoch = ledger.position.epoch,
                              .number = ledger.position.number,
                              .nonce = ledger.position.nonce,
                              .seen_ms = ledger.position_seen_ms,
                              .since_ms = ledger.position_since_ms,
                              .marks_id = atomic_load(&map_control(handle->map)->marks.set_id)};
    memcpy(out->run_id, ledger.position.run_id, sizeof out->run_id);
    out->run_id[sizeof out->run_id - 1] = '\0';
    return LARDER_OK;
}
