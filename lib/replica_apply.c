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

enum { EVENTS_MAX = 1024, PINNED_MS = 2000 };

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
    int result = writer_run(handle, bytes, apply_operation, request);
    if (result == LARDER_OK && request->position != NULL) {
        atomic_store(&map_control(handle->map)->marks.set_id, request->position->marks_id);
    }
    return result;
}

/* ---- No room ----------------------------------------------------------------------------------
 */

/* Whether the event is newer than what can be read of its key. An answer to a miss is not; what
 * another program has done is, where Redis has what stands here. */
static bool is_newer(const struct control *control, const replica_event *event,
                     const struct record *old)
{
    bool ours = (old->header.flags & (RECORD_LOCAL | RECORD_DIRTY)) != 0;
    if (old->header.kind == RECORD_DELETED) {
        return false;
    }
    return event->fill.kind != REPLICA_FILL_NONE
               ? event->fill.kind >= REPLICA_FILL_CHANGED && !ours
               : (old->header.flags & RECORD_LOCAL) == 0 &&
                     clock_compare(record_version(old, control->home), event->record.version) < 0;
}

/* Not known: yes. Whatever this host writes after the look is newer, for it has seen the clock. */
static bool replaces_something(const larder *handle, const struct key *key,
                               const replica_event *event)
{
    struct transaction *t;
    struct record old;
    if (registry_snapshot(handle->map, NULL, &t) != LARDER_OK) {
        return true;
    }
    int found = entry_find(t, key, &old);
    bool replaces =
        found < 0 || (found == LARDER_OK && is_newer(map_control(handle->map), event, &old));
    store_read_end(t);
    return replaces;
}

/* Dead from now on, and gone with the next write that has room. */
static void make_dead(const larder *handle, const struct key *key, const replica_event *event)
{
    struct control *control = map_control(handle->map);
    larder_version version = event->record.version;
    /* told must not pass a barrier that this host still has to tell */
    _Atomic uint64_t *told = &control->barriers_told[control_bucket(key->hash)];
    bool all_told = atomic_load(&control->barriers[control_bucket(key->hash)]) <= atomic_load(told);
    bool wider;
    if (event->fill.kind != REPLICA_FILL_NONE) { /* what another program wrote has no version */
        wider = removal_pend_now(control, key, &version);
    } else {
        /* a value itself stays alive where it has room: on other hosts, say */
        version.clock -= event->record.kind == REPLICA_DELETED ? 0 : 1;
        wider = removal_pend(control, key, version);
    }
    if (wider && all_told) { /* a barrier for this host alone: the others know what has happened */
        removal_told(told, version.clock);
    }
    if (wider) {
        stats_count(map_stats(handle->map), STATS_PENDING_OVERFLOWS);
    }
}

/* A write that finds no room tries for as long as the handle waits. While the same snapshot is held
 * that is done once in a while: the events come by the thousand. Of larderd's one thread. */
static struct {
    uint64_t snapshot; /* 0: none */
    int64_t until_ms;
} pinned;

static bool is_still_pinned(const struct larder *handle)
{
    return pinned.snapshot != 0 && clock_monotonic_ms() < pinned.until_ms &&
           room_pinned_by(handle) == pinned.snapshot;
}

/* Found full: whether that is a snapshot's doing, which outlasts one more try. Others come and go.
 */
static int try_again(larder *handle, struct apply_request *request, bool *stuck)
{
    uint64_t snapshot = room_pinned_by(handle);
    if (snapshot == 0) {
        return LARDER_EFULL;
    }
    int result = apply_slice(handle, request);
    *stuck = result == LARDER_EFULL && room_pinned_by(handle) == snapshot;
    if (*stuck) {
        pinned.snapshot = snapshot;
        pinned.until_ms = clock_monotonic_ms() + PINNED_MS;
    }
    return result;
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
    int result = writer_run(handle, 0, apply_operation, &request);
    event->value_missing = false; /* it is not to be fetched again */
    event->verdict = REPLICA_REFUSED;
    return result;
}

/* There is no room for it. What it is newer than goes, or is dead where not even that has room. */
static int give_way(larder *handle, replica_event *event, uint64_t fence, bool try_smaller)
{
    struct control *control = map_control(handle->map);
    struct key key;
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
    if (!replaces_something(handle, &key, event)) {
        return LARDER_OK;
    }
    int result = try_smaller ? drop_older(handle, event, fence) : LARDER_EFULL;
    if (result == LARDER_EFULL) {
        make_dead(handle, &key, event);
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
    bool stored = false, stuck = false;
    struct apply_request request = {.events = events, .fence = fence};
    while (result == LARDER_OK && count > 0) {
        request.count = count < slice ? count : slice;
        request.position = request.count == count ? position : NULL;
        stuck = is_still_pinned(handle);
        result = stuck ? LARDER_EFULL : apply_slice(handle, &request);
        if (result == LARDER_EFULL && !stuck) {
            result = try_again(handle, &request, &stuck);
        }
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
    if (result == LARDER_OK && position != NULL && !stored && !is_still_pinned(handle)) {
        result = store_position(handle, fence, position);
    }
    return result;
}
