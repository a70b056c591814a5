/* invalidate.h: an invalidation of one key that no writer could carry out: shared memory remembers
 * it, and it is never refused.
 */
#ifndef LARDER_LIB_INVALIDATE_H
#define LARDER_LIB_INVALIDATE_H

#include "key.h"
#include "larder.h"

/* The key reads as a miss from now on, until it is written again; the next writer makes that
 * durable. */
void invalidate_later(const struct larder *handle, const struct key *key);

#endif
