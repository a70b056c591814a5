/* clock.h: the times the library works with: wall clock, cheap wall clock, hybrid logical clock.
 */
#ifndef LARDER_LIB_CLOCK_H
#define LARDER_LIB_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "control.h"
#include "larder.h"
#include "replica.h"

#define CLOCK_NEVER INT64_MAX

/* ms since the epoch, exact. About 20 ns. */
int64_t clock_wall_ms(void);

/* ms of CLOCK_MONOTONIC: for deadlines. */
int64_t clock_monotonic_ms(void);
int64_t clock_monotonic_ns(void);

/* Whether expires_at has come (now >= expires_at). Asks the kernel's coarse clock (about 5 ns), and
 * the exact one only within the coarse one's error of the moment. */
bool clock_expired_by_now(int64_t expires_at_ms);
static inline bool clock_expired(int64_t expires_at_ms)
{
    return __builtin_expect(expires_at_ms != CLOCK_NEVER, 0) && clock_expired_by_now(expires_at_ms);
}

/* The next version: never the same or a smaller one twice in a map, whatever the wall clock does.
 * Kulkarni et al., "Logical Physical Clocks", 2014. Wait-free but for other callers' progress. */
larder_version clock_next(struct control *control);

/* Never give a version at or below this one again (an inbound one was seen, or Redis has taken one
 * of ours); but for one that is too far ahead of Redis's clock, which raises ours no further than
 * is allowed. */
void clock_observe(struct control *control, uint64_t clock);

/* How far ahead of Redis's clock a version may be. Clocks are compared every heartbeat, to within a
 * round trip, so none that works is ahead by seconds; and what is ahead by more than this must not
 * rule over what is written later. */
#define CLOCK_AHEAD_MS REPLICA_AHEAD_MS

/* The highest version that is not too far ahead now; UINT64_MAX while Redis's clock is unknown. */
uint64_t clock_limit(const struct control *control);

/* Remember how far the versions given have come, unless they are too far ahead, or nobody knows
 * whether they are: a map that is made while the host's clock is wrong has yet to learn Redis's.
 * Called by larderd so often, that clock_lower() gives none of them again. */
#define CLOCK_NOTED_EVERY_MS 2000
void clock_note(struct control *control);

/* If the versions given are too far ahead, go on from a little after what Redis's clock says now,
 * or from the highest version that was observed or noted. Who drew one before may still use it. */
bool clock_lower(struct control *control);

static inline int64_t clock_version_ms(uint64_t clock)
{
    return (int64_t)(clock >> 16);
}

static inline int clock_compare(larder_version a, larder_version b)
{
    if (a.clock != b.clock) {
        return a.clock < b.clock ? -1 : 1;
    }
    return a.node == b.node ? 0 : a.node < b.node ? -1 : 1;
}

#endif
