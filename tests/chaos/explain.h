/* explain.h: all that is known of a key that was invalidated and is answered nevertheless, for
 * whoever has to find out why: a second run of the same seed has other threads, and may be good.
 */
#ifndef LARDER_TESTS_CHAOS_EXPLAIN_H
#define LARDER_TESTS_CHAOS_EXPLAIN_H

#include <stdio.h>

#include "tests/chaos/chaos.h"
#include "tests/chaos/servers.h"

/* Its value and record in Redis; the invalidations that mean it, by whom and when; the clocks of
 * their names on each host and in the fleet's set; what was broken around then; and whether a host
 * that answers it goes on to do so. */
void explain_hidden(FILE *out, uint32_t key, struct host *hosts, const struct redis_side *side,
                    const struct board *board);

#endif
