/* invalidate.h: an invalidation of one key that no writer could carry out: shared memory remembers
 * it, and it is never refused. And what larder_invalidate_prefix() and _match() take.
 */
#ifndef LARDER_LIB_INVALIDATE_H
#define LARDER_LIB_INVALIDATE_H

#include "key.h"
#include "larder.h"

/* The key reads as a miss from now on, until it is written again; the next writer makes that
 * durable. */
void invalidate_later(const struct larder *handle, const struct key *key);

/* EINVAL or ETOOBIG where they would be refused: for who has several to carry out, or none. */
int invalidate_check_prefix(larder_bytes prefix);
int invalidate_check_match(larder_bytes glob);

#endif
