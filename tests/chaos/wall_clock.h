/* wall_clock.h: a wall clock that the test sets, of one host or of one Redis: the processes that go
 * by it have clock_shim.c preloaded, which adds to the real time what a mapped file says.
 */
#ifndef LARDER_TESTS_CHAOS_WALL_CLOCK_H
#define LARDER_TESTS_CHAOS_WALL_CLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct wall_clock {
    char path[300];
    _Atomic int64_t *offset_ms;
};

void wall_clock_make(struct wall_clock *clock, const char *name);
/* Not where a sanitizer's runtime wants to be loaded first. */
bool wall_clock_can_be_set(void);
void wall_clock_set(const struct wall_clock *clock, int64_t offset_ms);
/* For network_run(): what makes a program go by it. Valid until the next call. */
const char *const *wall_clock_environment(const struct wall_clock *clock);

#endif
