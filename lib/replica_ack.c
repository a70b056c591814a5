/* replica_ack.c: what Redis answered to entries that were sent to it, or asked about: acknowledged,
 * stamped anew, or forgotten. The rest of the port is replica.c.
 */
#include "clock.h"
#include "error.h"
#include "handle.h"
#include "lookup.h"
#include "marks.h"
#include "removal.h"
#include "replica_internal.h"

enum { ACKS_MAX = 4096 };

int replica_clean(struct writer *writer, const struct key *key, const struct record *record,
                  int64_t acked_ms)
{
    struct record changed = *record;
    changed.header.flags &= (uint8_t)~RECORD_DIRTY;
    changed.acked_ms = acked_ms;
    return entry_reseal(writer, key, record, &changed);
}

/* Redis took the version for too far ahead. The clock goes back with it, so that what is written
 * from now on is not refused, too; and so do the floors of what was removed meanwhile: what they
 * keep out beyond the limit, Redis keeps out. */
static int stamp_anew(struct writer *writer, const struct key *key, const struct record *record)
{
    if (clock_lower(writer->control)) {
        removal_lower_floors(writer->control, clock_limit(writer->control));
    }
    larder_version version = clock_next(writer->control);
    marks_fence();
    if (record->header.kind != RECORD_DELETED &&
        lookup_death(writer->control, record, key->hash) != 0) {
        return entry_drop(writer, key, record); /* a new version would bring it back to life */
    }
    struct record moved = *record;
    bool dirty = (record->header.flags & RECORD_DIRTY) != 0;
    moved.header.clock = version.clock;
    moved.header.node = version.node;
    moved.header.flags |= RECORD_DIRTY;
    moved.acked_ms = 0;
    int result = entry_retime(writer, key, record, &moved);
    struct record again;
    if (result == LARDER_OK && dirty) { /* it kept its row */
        result = entry_find(&writer->transaction, key, &again);
        result = result == LARDER_OK ? entry_requeue(writer, key, &again) : result;
    }
    return result;
}

/* Redis has the removal of what is dead: now the map has it, too. */
static int bury_acknowledged(struct writer *writer, const struct key *key,
                             const struct record *record, int64_t now_ms)
{
    struct record removal;
    int result = entry_drop(writer, key, record);
    if (result == LARDER_OK) {
        result = entry_find(&writer->transaction, key, &removal);
    }
    if (result == LARDER_OK && removal.header.kind == RECORD_DELETED) {
        return replica_clean(writer, key, &removal, now_ms);
    }
    return result < 0 ? result : LARDER_OK;
}

static int acknowledge_one(struct writer *writer, const replica_ack *ack, int64_t now_ms,
                           size_t *cleared)
{
    struct key key;
    struct record record;
    int result = key_make(&key, ack->key, ack->key_size);
    if (result != LARDER_OK) {
        return result;
    }
    result = entry_find(&writer->transaction, &key, &record);
    if (result != LARDER_OK || (record.header.flags & RECORD_LOCAL) != 0) {
        return result < 0 ? result : LARDER_OK;
    }
    bool dirty = (record.header.flags & RECORD_DIRTY) != 0;
    bool same = clock_compare(record_version(&record, writer->control->home), ack->version) == 0;
    if (same && dirty && ack->kind == REPLICA_DELETED && record.header.kind != RECORD_DELETED &&
        ack->what == REPLICA_STORED && lookup_death(writer->control, &record, key.hash) != 0) {
        ++*cleared;
        return bury_acknowledged(writer, &key, &record, now_ms);
    }
    same = same && record.header.kind == (uint8_t)ack->kind;
    if (!same) {
        /* Written again on its way out, under a row that the cursor may have passed. */
        return dirty ? entry_requeue(writer, &key, &record) : LARDER_OK;
    }
    switch (ack->what) {
    case REPLICA_AHEAD:
        return stamp_anew(writer, &key, &record);
    case REPLICA_FORGET:
        if (dirty) {
            return LARDER_OK;
        }
        ++*cleared;
        return entry_drop(writer, &key, &record);
    case REPLICA_STORED:
        break;
    }
    if (!dirty) {
        return LARDER_OK;
    }
    ++*cleared;
    clock_observe(writer->control, ack->version.clock);
    return replica_clean(writer, &key, &record, now_ms);
}

bool replica_smaller_slice(size_t *slice, size_t tried, int result)
{
    if (result != LARDER_EFULL || tried <= 1) {
        return false;
    }
    *slice = tried / 2;
    return true;
}

struct acknowledge_request {
    const replica_ack *acks;
    size_t count, cleared;
    uint64_t fence;
    int64_t now_ms;
};

static int acknowledge_operation(struct writer *writer, void *context)
{
    struct acknowledge_request *request = context;
    int result = replica_check_fence(writer->control, request->fence);
    writer->cause = LARDER_CAUSE_REPLICA;
    request->cleared = 0;
    for (size_t i = 0; i < request->count && result == LARDER_OK; i++) {
        result = acknowledge_one(writer, &request->acks[i], request->now_ms, &request->cleared);
    }
    return result;
}

int replica_acknowledge(larder *handle, uint64_t fence, const replica_ack *acks, size_t count,
                        size_t *cleared)
{
    size_t slice = REPLICA_SLICE, done = 0;
    int result = handle_enter_write(handle);
    if (result == LARDER_OK && count > ACKS_MAX) {
        result = error_set(LARDER_EINVAL, "%zu acknowledgements: at most %d", count, ACKS_MAX);
    }
    struct acknowledge_request request = {.acks = acks, .fence = fence, .now_ms = clock_wall_ms()};
    while (result == LARDER_OK && count > 0) {
        request.count = count < slice ? count : slice;
        result = replica_run(handle, 0, acknowledge_operation, &request);
        if (result == LARDER_OK) {
            done += request.cleared;
            request.acks += request.count;
            count -= request.count;
        } else if (!replica_is_stuck(handle) &&
                   replica_smaller_slice(&slice, request.count, result)) {
            result = LARDER_OK;
        }
    }
    if (result == LARDER_OK && cleared != NULL) {
        *cleared = done;
    }
    return result;
}
