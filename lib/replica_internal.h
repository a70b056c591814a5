/* replica_internal.h: what replica.c (being the daemon), replica_event.c (the events of writes),
 * replica_fill.c (what answers a miss), replica_apply.c (their transactions), replica_outbox.c
 * (what goes to Redis), replica_ack.c (what it answered) and replica_marks.c (sweeps) share.
 */
#ifndef LARDER_LIB_REPLICA_INTERNAL_H
#define LARDER_LIB_REPLICA_INTERNAL_H

#include "format.h"
#include "key.h"
#include "replica.h"
#include "writer.h"

/* LARDER_OK, or REPLICA_FENCED. */
int replica_check_fence(const struct control *control, uint64_t fence);

#define REPLICA_SLICE 128u /* acks or events of one transaction: workers want the gate, too */

/* A full map, of which one transaction can write only so many pages anew, takes them in shorter
 * ones still. false: it is not that, or it would not help. */
bool replica_smaller_slice(size_t *slice, size_t tried, int result);

/* writer_run(), but no longer for a snapshot that was waited for already: EFULL at once, but for
 * one try in two seconds. EBUSY, too, where the gate was not to be had at the second try. */
int replica_run(const larder *handle, size_t need, writer_operation *operation, void *context);

/* Whether that is so now: then nothing has room, however small. */
bool replica_is_stuck(const larder *handle);

/* Take the dirty flag away; acked_ms 0: not because Redis has this one. */
int replica_clean(struct writer *writer, const struct key *key, const struct record *record,
                  int64_t acked_ms);

replica_record replica_of_record(const struct record *record, uint32_t home);

/* Apply one event, inside a write: replica_apply(). */
int replica_apply_one(struct writer *writer, replica_event *event);

/* Store an event's record, or drop what is there, which is older; old: NULL where nothing is. */
int replica_store_inbound(struct writer *writer, const struct key *key, const struct record *old,
                          replica_event *event);

/* Apply an event with a fill. */
int replica_apply_fill(struct writer *writer, const struct key *key, const struct record *old,
                       replica_event *event);

/* Whether it is a copy of what another program put into Redis. */
static inline bool replica_is_foreign(const struct record *record)
{
    return record->header.node == REPLICA_FOREIGN_NODE;
}

/* Apply the event of a write to a key that has such a copy: the copy goes whatever happens. */
int replica_apply_over_foreign(struct writer *writer, const struct key *key,
                               const struct record *old, replica_event *event);

#endif
