/* expiry.h: from what a caller asks for to an absolute time. Pure functions, no clock of their own.
 */
#ifndef LARDER_LIB_EXPIRY_H
#define LARDER_LIB_EXPIRY_H

#include <stdbool.h>
#include <stdint.h>

#include "larder.h"

/* The times of an entry, as its record has them. */
struct expiry_times {
    int64_t expires_at_ms;  /* INT64_MAX: never */
    int64_t stale_until_ms; /* 0: not served stale */
    int64_t sliding_ms;     /* 0: not sliding */
    int64_t limit_ms;       /* 0: no longest life */
};

/* The moment an entry written at now_ms expires: ms since the epoch, INT64_MAX for never. It may
 * lie in the past (LARDER_EXPIRY_AT): then the write is a delete. EINVAL: negative time, a period
 * that is not a whole number of seconds, offset outside
 * (-period, period), a sliding period of 0, unknown kind; EOVERFLOW. */
int expiry_resolve(const larder_expiry *expiry, int64_t now_ms, int64_t *expires_at_ms);

/* All times of an entry that is written at now_ms, from its policy: first the expiry, then the
 * longest life cuts it, then random (any number) shortens it by up to jitter_ms, but not to
 * nothing; staleness begins where it then ends, and the longest life cuts that, too. An entry
 * without expiry has neither jitter nor staleness. Durations must not be negative. The errors of
 * expiry_resolve(). */
int expiry_plan(const larder_policy *policy, int64_t now_ms, uint64_t random,
                struct expiry_times *times);

/* The times of an entry that had `old` and is given another expiry at now_ms: the time it may be
 * stale for and its longest life stay. */
int expiry_replan(const struct expiry_times *old, const larder_expiry *expiry, int64_t now_ms,
                  struct expiry_times *times);

/* The times of a sliding entry that was read at now_ms. */
void expiry_slide(const struct expiry_times *old, int64_t now_ms, struct expiry_times *times);

/* Whether it is time to write the extension down: at most once in a quarter of the period. */
bool expiry_slide_is_due(const struct expiry_times *times, int64_t now_ms);

/* A number for the jitter: xorshift64*, a state per thread, seeded by the kernel; a child of fork()
 * goes another way than its parent. */
uint64_t expiry_random(void);

#endif
