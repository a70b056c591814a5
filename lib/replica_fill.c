/* replica_fill.c: applying what answers a miss: values that Redis had when a worker asked for them,
 * with the version that stands in their record, and foreign ones, which have none.
 *
 * A foreign value gets a version just above all that this host knows of the key, with the least
 * node, so that every write that comes later is newer; it is never dirty, is not pushed when
 * history is lost, and expires soon, because nobody may tell of its next change.
 */
#include "arrival.h"
#include "clock.h"
#include "lookup.h"
#include "removal.h"
#include "replica_internal.h"

/* Whether something was removed since the miss was asked for that may have been this. */
static bool removed_since(struct control *control, const struct key *key, const replica_fill *fill,
                          uint64_t clock)
{
    uint64_t floor = removal_floor(control, key->hash);
    /* prefixes and patterns take only what is here: nothing may come in that was asked for before
     */
    uint64_t fills = atomic_load_explicit(&control->fill_floor, memory_order_acquire);
    return (floor != fill->floor && clock <= floor) || fills >= fill->clock ||
           removal_barrier(control, key->hash) >= clock ||
           removal_pending_clock(control, key->hash) >= clock;
}

static int refuse(replica_event *event)
{
    event->verdict = REPLICA_REFUSED;
    return LARDER_OK;
}

static int apply_asked(struct writer *writer, const struct key *key, const struct record *old,
                       replica_event *event)
{
    struct control *control = writer->control;
    const replica_record *in = &event->record;
    int result;
    if (old != NULL) {
        replica_record ours = replica_of_record(old, control->home);
        int order = replica_compare(&ours, in);
        if (replica_is_foreign(old)) {
            order = -1; /* it had no version of its own */
        }
        if (order >= 0) {
            event->verdict = order == 0 ? REPLICA_EQUAL : REPLICA_REFUSED;
            return LARDER_OK;
        }
    }
    clock_observe(control, in->version.clock);
    if (arrival_is_dead(writer, key, old, event, &result)) {
        return result;
    }
    if (removed_since(control, key, &event->fill, in->version.clock)) {
        return refuse(event);
    }
    return replica_store_inbound(writer, key, old, event);
}

/* Whether a foreign value may stand in the place of what is there: of nothing that is alive, and of
 * nothing that Redis is still to be told. */
static bool may_replace(struct control *control, const struct key *key, const struct record *old,
                        const replica_event *event)
{
    bool outdated =
        event->fill.kind == REPLICA_FILL_CHANGED &&
        (event->record.version.clock == 0 || old->header.clock <= event->record.version.clock);
    return (old->header.flags & RECORD_DIRTY) == 0 &&
           (outdated || replica_is_foreign(old) || !lookup_alive(control, old, key->hash));
}

/* Whether Redis has lost the record alone, and the value is the one that an invalidation of the
 * fleet has hit here. It is to become a removal, and takes the value away from Redis: as another
 * program's it would be served again, and the removal would not be made. */
static bool is_dead_value(struct control *control, const struct key *key, const struct record *old,
                          const replica_event *event)
{
    return event->record.version.clock == 0 && old->header.kind == RECORD_VALUE &&
           !replica_is_foreign(old) && lookup_death_in_fleet(control, old, key->hash) != 0 &&
           replica_of_record(old, control->home).value_hash == event->record.value_hash;
}

/* What another program took away, or wrote over with what may not come in. A copy that Redis has
 * yet to be told stays, and is told. */
static int apply_gone(struct writer *writer, const struct key *key, const struct record *old,
                      replica_event *event)
{
    if (old == NULL || (old->header.flags & RECORD_DIRTY) != 0 ||
        old->header.kind == RECORD_DELETED) {
        return refuse(event);
    }
    struct record again;
    int result =
        replica_clean(writer, key, old, 0); /* no invalidation is needed: it is not there */
    if (result == LARDER_OK) {
        result = entry_find(&writer->transaction, key, &again);
    }
    event->verdict = REPLICA_APPLIED;
    return result == LARDER_OK ? entry_drop(writer, key, &again) : result;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static int apply_foreign(struct writer *writer, const struct key *key, const struct record *old,
                         replica_event *event)
{
    struct control *control = writer->control;
    replica_record *in = &event->record;
    if (old != NULL &&
        (!may_replace(control, key, old, event) || is_dead_value(control, key, old, event))) {
        return refuse(event);
    }
    if (old != NULL && event->fill.kind == REPLICA_FILL_CHANGED &&
        old->header.kind == RECORD_VALUE &&
        replica_of_record(old, control->home).value_hash == in->value_hash &&
        lookup_alive(control, old, key->hash)) {
        event->verdict = REPLICA_EQUAL;
        return LARDER_OK;
    }
    uint64_t known = later(later(event->fill.floor, event->fill.barrier), in->version.clock);
    known = later(known, old == NULL ? 0 : old->header.clock);
    in->version = (larder_version){.clock = known + 1, .node = REPLICA_FOREIGN_NODE};
    int64_t soon = clock_wall_ms() + REPLICA_FOREIGN_MS;
    in->expires_at_ms = in->expires_at_ms < soon ? in->expires_at_ms : soon;
    clock_observe(control, known);
    if (removed_since(control, key, &event->fill, in->version.clock)) {
        /* Perhaps another key of the bucket was. What is here is outdated all the same, and nobody
         * tells of that once more. */
        return event->fill.kind == REPLICA_FILL_CHANGED ? apply_gone(writer, key, old, event)
                                                        : refuse(event);
    }
    return replica_store_inbound(writer, key, old, event);
}

int replica_apply_fill(struct writer *writer, const struct key *key, const struct record *old,
                       replica_event *event)
{
    if (old != NULL && (old->header.flags & RECORD_LOCAL) != 0) {
        return refuse(event); /* a local entry stays local */
    }
    switch (event->fill.kind) {
    case REPLICA_FILL_FOREIGN:
    case REPLICA_FILL_CHANGED:
        return apply_foreign(writer, key, old, event);
    case REPLICA_FILL_GONE:
        return apply_gone(writer, key, old, event);
    default:
        return apply_asked(writer, key, old, event);
    }
}

int replica_apply_over_foreign(struct writer *writer, const struct key *key,
                               const struct record *old, replica_event *event)
{
    const replica_record *in = &event->record;
    int result;
    clock_observe(writer->control, in->version.clock);
    if (arrival_is_dead(writer, key, old, event, &result)) {
        return result;
    }
    if (in->version.clock + 1 >= old->header.clock) {
        return replica_store_inbound(writer, key, old, event);
    }
    /* Older than something that was removed here: not stored, as if the copy were not there. */
    event->verdict = REPLICA_REFUSED;
    return entry_drop(writer, key, old);
}
