/* replica_event.c: one event of a write against what stands in the map: which of them wins, and
 * what is left of the other. Inside a write; the transactions are replica_apply.c's.
 */
#include "arrival.h"
#include "clock.h"
#include "format.h"
#include "removal.h"
#include "replica_internal.h"

replica_record replica_of_record(const struct record *record, uint32_t home)
{
    replica_record r = {.version = record_version(record, home),
                        .kind = (enum replica_kind)record->header.kind};
    if (record->value_size > 0) {
        /* a chunked value's checksum is the hash of the value */
        r.value_hash = record->chunk_count > 0
                           ? record->value_checksum
                           : replica_value_hash(record->value, record->value_size);
    }
    return r;
}

/* Just below it, and no foreign value's. */
static larder_version version_before(larder_version version)
{
    if (version.node-- == 0) {
        version.clock--; /* the node is the greatest now */
    }
    if (version.node == REPLICA_FOREIGN_NODE) {
        version.node--;
    }
    return version;
}

/* It is newer than ours, or than what might still come of a key that we know nothing of, and its
 * value is not to be had, or not yet: ours goes. Redis holds the newer one, so no invalidation is
 * needed. Where the value may be fetched, a removal of the version just before it keeps its place:
 * the floor of a bucket is that of other keys, too, whose newer ones would then shut this one out.
 */
static int take_place(struct writer *writer, const struct key *key, const struct record *old,
                      const replica_event *event, bool dead)
{
    const replica_record *in = &event->record;
    larder_version before = version_before(in->version);
    if (event->value_missing && !dead) {
        int order =
            old == NULL ? -1 : clock_compare(record_version(old, writer->control->home), before);
        if (order == 0 && old->header.kind == RECORD_DELETED) {
            return LARDER_OK; /* it stands there: who loses to an event hears of it as well */
        }
        if (order <= 0) {
            return entry_stand_in(writer, key, old, before);
        }
        before = (larder_version){.clock = in->version.clock - 1}; /* ours is worth nothing */
    } else {
        before.clock = in->version.clock; /* it will never come */
    }
    int result = LARDER_OK;
    if (old != NULL) {
        struct record again;
        result = replica_clean(writer, key, old, 0);
        if (result == LARDER_OK) {
            result = entry_find(&writer->transaction, key, &again);
        }
        if (result == LARDER_OK) {
            result = entry_drop(writer, key, &again);
        }
    }
    removal_raise_floor(writer->control, key->hash, before.clock);
    return result;
}

int replica_store_inbound(struct writer *writer, const struct key *key, const struct record *old,
                          replica_event *event)
{
    const replica_record *in = &event->record;
    bool dead = in->kind == REPLICA_DELETED || clock_expired(replica_gone_ms(in));
    bool unusable = event->value_missing ||
                    in->value_size > atomic_load(&writer->transaction.store->life->max_value);
    event->verdict = unusable && !dead ? REPLICA_REFUSED : REPLICA_APPLIED;
    if ((dead || unusable) && in->kind != REPLICA_DELETED) {
        return old == NULL && !event->unordered ? LARDER_OK
                                                : take_place(writer, key, old, event, dead);
    }
    struct record record =
        record_make(in->version, (enum record_kind)in->kind, event->hint ? RECORD_DIRTY : 0,
                    in->kind == REPLICA_DELETED ? CLOCK_NEVER : in->expires_at_ms);
    record.value_size = in->kind == REPLICA_VALUE ? in->value_size : 0;
    if (in->kind != REPLICA_DELETED) {
        record.stale_until_ms = in->stale_until_ms;
        record.sliding_ms = in->sliding_ms;
        record.limit_ms = in->limit_ms;
        record.created_ms = in->created_ms;
        record.header.mark_count =
            (uint8_t)(in->mark_count < RECORD_MARKS_MAX ? in->mark_count : RECORD_MARKS_MAX);
        record.marks = in->marks;
    }
    return entry_store(writer, key, old, &record, in->value);
}

int replica_apply_one(struct writer *writer, replica_event *event)
{
    struct key key;
    struct record old;
    const replica_record *in = &event->record;
    if (in->kind == REPLICA_MARK) {
        return arrival_mark(writer->control, event);
    }
    int result = key_make(&key, in->key, in->key_size);
    if (result != LARDER_OK || in->kind < REPLICA_VALUE || in->kind > REPLICA_DELETED) {
        event->verdict = REPLICA_REFUSED;
        return LARDER_OK;
    }
    int found = entry_find(&writer->transaction, &key, &old);
    if (found < 0) {
        return found;
    }
    if (event->fill.kind != REPLICA_FILL_NONE) {
        return replica_apply_fill(writer, &key, found == LARDER_OK ? &old : NULL, event);
    }
    if (found == LARDER_OK && replica_is_foreign(&old)) {
        return replica_apply_over_foreign(writer, &key, &old, event);
    }
    if (found == LARDER_OK && (old.header.flags & RECORD_LOCAL) == 0) {
        bool dirty = (old.header.flags & RECORD_DIRTY) != 0;
        replica_record ours = replica_of_record(&old, writer->control->home);
        int order = replica_compare(&ours, in);
        uint64_t limit = order > 0 && !dirty ? clock_limit(writer->control) : UINT64_MAX;
        if (ours.version.clock > limit && in->version.clock <= limit) {
            order = -1; /* Redis takes ours for nothing; a dirty one is going to be stamped anew */
        }
        if (order == 0) {
            event->verdict = REPLICA_EQUAL;
            event->row = dirty ? old.header.row : 0;
            return dirty && !event->untold ? replica_clean(writer, &key, &old, clock_wall_ms())
                                           : LARDER_OK;
        }
        if (order > 0) {
            event->verdict = REPLICA_OLDER;
            return dirty || event->doubtful ? LARDER_OK : entry_requeue(writer, &key, &old);
        }
    } else if (found == LARDER_OK) {
        event->verdict = REPLICA_REFUSED; /* a local entry stays local */
        return LARDER_OK;
    }
    clock_observe(writer->control, in->version.clock);
    if (arrival_is_dead(writer, &key, found == LARDER_OK ? &old : NULL, event, &result)) {
        /* Here alone: ours is dead with it, and would lose to it again each time it is pushed. */
        return result == LARDER_OK && found == LARDER_OK && event->verdict == REPLICA_REFUSED
                   ? take_place(writer, &key, &old, event, true)
                   : result;
    }
    if (found == LARDER_MISS && in->version.clock <= removal_floor(writer->control, key.hash)) {
        event->verdict = REPLICA_REFUSED;
        return LARDER_OK;
    }
    if (found == LARDER_MISS && event->late && in->kind != REPLICA_VALUE) {
        removal_raise_floor(writer->control, key.hash, in->version.clock);
        event->verdict = REPLICA_REFUSED;
        return LARDER_OK;
    }
    /* Nor does something older say anything that stands there: it may have been written, or left by
     * another such event, since this host listens. */
    if (event->late && in->kind != REPLICA_DELETED) {
        event->value_missing = true;
    }
    result = replica_store_inbound(writer, &key, found == LARDER_OK ? &old : NULL, event);
    event->row = 0;
    if (result == LARDER_OK && event->hint) {
        result = entry_find(&writer->transaction, &key, &old);
        event->row =
            result == LARDER_OK ? old.header.row : 0; /* no room: a barrier stands for it */
    }
    return result < 0 ? result : LARDER_OK;
}
