/* untold.h: the events of a cluster's batches between storing and telling: kept as text, so that
 * what was stored can be told when the whole batch is answered, though the map may have moved on.
 * Bounded by the batches in flight. Used by link_push.c.
 */
#ifndef LARDER_DAEMON_REDIS_UNTOLD_H
#define LARDER_DAEMON_REDIS_UNTOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct untold_event {
    size_t at, size; /* of bytes */
    bool stored;
} untold_event;

typedef struct untold { /* of one batch */
    struct untold *next;
    const void *batch;
    size_t count, answered, stored;
    uint8_t *bytes;
    size_t used, room;
    untold_event events[];
} untold;

/* All of these take the address of the first of a list. */

/* A batch of count items is on its way. NULL: no memory. */
untold *untold_begin(untold **list, const void *batch, size_t count);
/* Keep an item's event. false: no memory. */
bool untold_keep(untold *self, size_t index, const void *event, size_t size);
/* An item is answered. A batch of which nothing was stored is forgotten with its last one. */
void untold_answered(untold **list, const void *batch, size_t index, bool stored);
untold *untold_find(untold *const *list, const void *batch); /* or NULL */
void untold_forget(untold **list, const void *batch);
void untold_clear(untold **list);

#endif
