/* policy.h: from a caller's larder_policy to what its records will carry: kind, flags, times,
 * marks. All of it is decided before the gate; a policy that is not valid changes nothing.
 */
#ifndef LARDER_LIB_POLICY_H
#define LARDER_LIB_POLICY_H

#include <stddef.h>
#include <stdint.h>

#include "expiry.h"
#include "format.h"
#include "larder.h"
#include "map.h"

struct policy_plan {
    struct expiry_times times;
    uint8_t kind, flags; /* of the record */
    uint8_t mark_count;
    uint8_t marks[RECORD_MARKS_MAX * RECORD_MARK_SIZE]; /* the group's first; no two are the same */
};

/* policy may be NULL: the map's defaults. EINVAL: an unknown member or flag, a negative duration, a
 * negative entry with a value, a group or tag without bytes, more than LARDER_TAGS_MAX tags;
 * ETOOBIG: a name over LARDER_NAME_MAX; what expiry_plan() refuses. */
int policy_resolve(const struct larder *handle, const larder_policy *policy, size_t value_size,
                   struct policy_plan *plan);

/* EINVAL or ETOOBIG where it cannot be the name of a group or tag ("group", "tag"). */
int policy_check_name(const char *what, larder_bytes name);

/* Give a record the plan's times and marks; the marks stay where they are. */
void policy_furnish(const struct policy_plan *plan, struct record *record);

static inline struct expiry_times policy_times(const struct record *record)
{
    return (struct expiry_times){.expires_at_ms = record->expires_at_ms,
                                 .stale_until_ms = record->stale_until_ms,
                                 .sliding_ms = record->sliding_ms,
                                 .limit_ms = record->limit_ms};
}

static inline void policy_set_times(struct record *record, const struct expiry_times *times)
{
    record->expires_at_ms = times->expires_at_ms;
    record->stale_until_ms = times->stale_until_ms;
    record->sliding_ms = times->sliding_ms;
    record->limit_ms = times->limit_ms;
}

#endif
