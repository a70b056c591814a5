/* clock.c: wall clocks and the hybrid logical clock in the control segment.
 */
#include "clock.h"

#include <time.h>

/* A tick is 10 ms at most, but a host that takes the processor away delays it, too. */
enum { COARSE_ERROR_MS = 1000 };

int64_t clock_wall_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t clock_monotonic_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t clock_monotonic_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

bool clock_expired_by_now(int64_t expires_at_ms)
{
    struct timespec coarse;
    (void)clock_gettime(CLOCK_REALTIME_COARSE, &coarse);
    int64_t now = (int64_t)coarse.tv_sec * 1000 + coarse.tv_nsec / 1000000;
    if (now >= expires_at_ms) {
        return true; /* the coarse clock is never ahead */
    }
    if (expires_at_ms - now > COARSE_ERROR_MS) {
        return false;
    }
    return clock_wall_ms() >= expires_at_ms;
}

larder_version clock_next(struct control *control)
{
    int64_t offset = atomic_load_explicit(&control->clock_offset_ms, memory_order_relaxed);
    uint64_t physical = (uint64_t)(clock_wall_ms() + offset) << 16;
    /* relaxed: the word orders versions, it publishes nothing */
    uint64_t last = atomic_load_explicit(&control->clock, memory_order_relaxed);
    uint64_t next;
    do {
        next = physical > last ? physical : last + 1;
    } while (!atomic_compare_exchange_weak_explicit(&control->clock, &last, next,
                                                    memory_order_relaxed, memory_order_relaxed));
    return (larder_version){.clock = next,
                            .node = atomic_load_explicit(&control->node, memory_order_relaxed)};
}

void clock_observe(struct control *control, uint64_t clock)
{
    uint64_t last = atomic_load_explicit(&control->clock, memory_order_relaxed);
    while (last < clock &&
           !atomic_compare_exchange_weak_explicit(&control->clock, &last, clock,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}
