/* deadline.h: an event at a time of the monotonic clock that comes then, and not up to 4 ms later:
 * libevent's own timers go by the clock's coarse reading, which moves with the kernel's tick (4 ms
 * with Debian's kernels), where a base is not told to set a kernel timer on each of its rounds.
 * Here that is set when the time changes, and no other time.
 *
 * Not for use by several threads; after fork() it belongs to one of the two processes. Called by
 * replicator.c.
 */
#ifndef LARDER_DAEMON_DEADLINE_H
#define LARDER_DAEMON_DEADLINE_H

#include <event2/event.h>
#include <stdint.h>

#define DEADLINE_NEVER INT64_MAX

struct deadline;

/* To be freed before the base is. NULL: no memory, or no descriptor. Nothing is due yet. */
struct deadline *deadline_new(struct event_base *base, void (*due)(void *context), void *context);

/* due() is called once when CLOCK_MONOTONIC has reached due_ms, never before, and from the loop
 * also where that has passed already. Replaces the time that was set before. DEADLINE_NEVER: not at
 * all. The same time again costs nothing. */
void deadline_set(struct deadline *self, int64_t due_ms);

void deadline_free(struct deadline **self);

#endif
