/* evict_internal.h: what evict.c and evict_walk.c share: an entry that may have to go.
 */
#ifndef LARDER_LIB_EVICT_INTERNAL_H
#define LARDER_LIB_EVICT_INTERNAL_H

#include "evict.h"

/* What stands behind a row of the log, or was met on the walk. */
struct candidate {
    struct record record;
    struct key key;
    void *memory; /* of a long key */
};

enum step { STEP_PASSED, STEP_GONE };

/* Why it must go whatever its popularity; false: it need not. */
bool evict_useless(struct writer *writer, const struct candidate *candidate,
                   enum evict_cause *cause);
/* Adds to pages what it took: one, and its chunks. */
enum step evict_remove_candidate(struct writer *writer, const struct candidate *candidate,
                                 enum evict_cause cause, uint64_t *pages);

/* One step of the walk, where anything can have expired or died since the last one was through. How
 * many entries went. */
size_t evict_reclaim(struct writer *writer, uint64_t *pages);

#endif
