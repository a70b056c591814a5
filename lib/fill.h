/* fill.h: taking, using and giving back the right to fill a key: what the public lease functions
 * and larder_fetch() have in common.
 */
#ifndef LARDER_LIB_FILL_H
#define LARDER_LIB_FILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "key.h"
#include "larder.h"
#include "lease.h"

enum { FILL_DEFAULT_MS = 10000 };

/* A value that was found: memory of malloc()'s, NULL where none was wanted or there is none. */
struct fill_value {
    void *data;
    size_t size;
    larder_info info;
};

struct fill_ask {
    struct key key;
    uint64_t hash[2];
    int64_t hold_ms, wait_ms;
    int64_t patience_ms; /* how long the holder tries to look whether a value has come meanwhile */
    int64_t read_through_ms; /* 0: do not ask Redis */
    uint32_t early_percent;
    bool with_value;
};

/* EINVAL where they are wrong. NULL: the defaults. */
int fill_check_options(const larder_lease_options *options);

/* Key and checked options. EINVAL, ETOOBIG. */
int fill_ask_make(struct fill_ask *ask, const void *key, size_t key_size,
                  const larder_lease_options *options);

/* ---- Looking (fill_look.c) --------------------------------------------------------------------
 */

/* The caller's own look, counted as one. OK, STALE, ABSENT or MISS, or an error; so are all. */
int fill_look_first(larder *handle, const struct fill_ask *ask, struct fill_value *value);

/* Once more, by the holder of the key's lease; not counted. */
int fill_look(larder *handle, const struct fill_ask *ask, bool with_value,
              struct fill_value *value);

/* The same by who has just taken the lease, on whom all others wait: it does not give up at once.
 */
int fill_look_patiently(larder *handle, const struct fill_ask *ask, struct fill_value *value);

/* Whether a value that was read is due for early renewal; draws a random number. */
bool fill_is_due(const larder_info *info, uint32_t early_percent);

/* ---- Leases (fill.c) --------------------------------------------------------------------------
 */

/* Take the lease of a key whose value was read and is due: REFRESH, or OK where another renews it
 * or just did. */
int fill_acquire_early(larder *handle, const struct fill_ask *ask, larder_lease *lease,
                       const struct fill_value *value);

/* Take the lease of a key that was a miss: see larder_lease_acquire(). The value is the caller's to
 * free. */
int fill_acquire(larder *handle, const struct fill_ask *ask, larder_lease *lease,
                 struct fill_value *value);

/* A lease that is none: to fill without one, as of now. */
void fill_without_lease(larder *handle, const struct fill_ask *ask, larder_lease *lease);

/* Whether it is this process's to fill: a child of fork() has not inherited it. */
bool fill_is_own(const larder_lease *lease);

/* The ticket inside. */
struct lease_ticket fill_ticket(const larder_lease *lease);

/* End it, if it is a real one. False: it had been lost. */
bool fill_end(larder *handle, const larder_lease *lease, enum lease_end reason);

/* Store and end, for a lease that is this process's. */
int fill_store(larder *handle, const larder_lease *lease, const struct key *key, const void *value,
               size_t value_size, const larder_policy *policy, larder_info *info, bool *refused);

#endif
