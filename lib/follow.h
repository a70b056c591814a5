/* follow.h: telling the followers of something that is true already and belongs to no transaction:
 * an invalidation, a named event. Called by the public functions; what a transaction does is told
 * by writer_tell(). Never waits.
 */
#ifndef LARDER_LIB_FOLLOW_H
#define LARDER_LIB_FOLLOW_H

#include "events.h"
#include "map.h"

void follow_tell_slow(struct map *map, const struct event_draft *draft);

/* Wake those who wait for events: behind the last that was put. */
void follow_wake(struct map *map);

/* Tell that something was invalidated: cause says what name is. version: of the invalidation. */
static inline void follow_tell_invalidation(struct map *map, uint32_t cause, larder_bytes name,
                                            larder_version version)
{
    if (events_wanted(&map_control(map)->events, LARDER_EVENT_INVALIDATE)) {
        follow_tell_slow(map, &(struct event_draft){.kind = LARDER_EVENT_INVALIDATE,
                                                    .cause = cause,
                                                    .name = name,
                                                    .version = version,
                                                    .expires_ms = INT64_MAX});
    }
}

#endif
