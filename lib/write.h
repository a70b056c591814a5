/* write.h: what fetch.c and session.c need of write.c beside the public functions: storing a fill,
 * and a swap that changes nothing where it is refused.
 */
#ifndef LARDER_LIB_WRITE_H
#define LARDER_LIB_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "larder.h"

struct write_fill {
    larder_version version; /* drawn before the origin was asked */
    int64_t took_ms;        /* how long the origin took; 0: under a millisecond, or not known */
    larder_info info;       /* out: the entry as it was, or would have been, stored */
    bool refused;           /* out: an argument is wrong, nothing was tried */
};

/* Store what the origin said, as of the version: OK; CONFLICT where the key has been written,
 * deleted or invalidated since (nothing changes); or an error (nothing changes either: what is
 * stored was allowed to be served before). The time that the fill took stands between version and
 * creation time. */
int write_fill(larder *handle, const void *key, size_t key_size, const void *value,
               size_t value_size, const larder_policy *policy, struct write_fill *fill);

/* larder_cas() of an entry that must not be lost: where it is refused (EBUSY, EFULL, ...) the old
 * value goes on being served. With an expiry in the past it is a deletion of that version. */
int write_swap(larder *handle, const void *key, size_t key_size, const void *value,
               size_t value_size, const larder_version *expected, const larder_policy *policy);

#endif
