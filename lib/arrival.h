/* arrival.h: what comes from other hosts and is no entry: invalidations of many, by their names;
 * and entries that such an invalidation has overtaken on their way. For the replicator's writes
 * (replica_event.c), and for invalidations that find no room for one (replica_apply.c).
 */
#ifndef LARDER_LIB_ARRIVAL_H
#define LARDER_LIB_ARRIVAL_H

#include <stdbool.h>

#include "replica.h"
#include "writer.h"

/* Take an invalidation: REPLICA_MARK. Not part of a transaction, needs no room in the map, and is
 * never undone: newest wins. EBUSY: a table is held by a stopped process. */
int arrival_mark(struct control *control, replica_event *event);

/* Whether an entry that comes in, and is newer than old (NULL: nothing stands there), is dead
 * already: by a group or tag, a prefix or pattern, a clear or a bucket. Then a removal takes its
 * place, which goes to Redis, too, as its value may still stand there. *result is set in either
 * case. */
bool arrival_is_dead(struct writer *writer, const struct key *key, const struct record *old,
                     replica_event *event, int *result);

#endif
