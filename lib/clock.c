/* clock.c: wall clocks and the hybrid logical clock in the control segment.
 */
#include "clock.h"

#include <time.h>

#include "monotone.h"

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

static uint64_t physical(const struct control *control)
{
    int64_t offset = atomic_load_explicit(&control->clock_offset_ms, memory_order_relaxed);
    return (uint64_t)(clock_wall_ms() + offset) << 16;
}

larder_version clock_next(struct control *control)
{
    uint64_t now = physical(control);
    /* relaxed: the word orders versions, it publishes nothing */
    uint64_t last = atomic_load_explicit(&control->clock, memory_order_relaxed);
    uint64_t next;
    do {
        next = now > last ? now : last + 1;
    } while (!atomic_compare_exchange_weak_explicit(&control->clock, &last, next,
                                                    memory_order_relaxed, memory_order_relaxed));
    return (larder_version){.clock = next,
                            .node = atomic_load_explicit(&control->node, memory_order_relaxed)};
}

uint64_t clock_limit(const struct control *control)
{
    int64_t redis = atomic_load_explicit(&control->clock_redis_ms, memory_order_relaxed);
    int64_t now = redis == 0 ? 0 : clock_monotonic_ms() + redis;
    return now <= 0 ? UINT64_MAX : (uint64_t)(now + CLOCK_AHEAD_MS) << 16 | UINT16_MAX;
}

bool clock_lower(struct control *control)
{
    uint64_t limit = clock_limit(control);
    uint64_t now = limit == UINT64_MAX
                       ? limit
                       : limit - ((uint64_t)(CLOCK_AHEAD_MS - CLOCK_NOTED_EVERY_MS) << 16);
    uint64_t seen = atomic_load_explicit(&control->clock_seen, memory_order_relaxed);
    uint64_t last = atomic_load_explicit(&control->clock, memory_order_relaxed);
    if (seen >
        limit) { /* Redis's clock was set back: not up to the limit, or it is refused again */
        seen = limit - ((uint64_t)CLOCK_NOTED_EVERY_MS << 16);
    }
    now = seen > now ? seen : now; /* what is written next must still be newer */
    while (last > limit) {
        if (atomic_compare_exchange_weak_explicit(&control->clock, &last, now, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

void clock_note(struct control *control)
{
    uint64_t last = atomic_load_explicit(&control->clock, memory_order_relaxed);
    uint64_t limit = clock_limit(control);
    if (limit != UINT64_MAX && last <= limit) {
        monotone_raise(&control->clock_seen, last);
    }
}

void clock_observe(struct control *control, uint64_t clock)
{
    /* Both: where Redis's clock was set back the one stays ahead while the other was lowered. */
    if (atomic_load_explicit(&control->clock_seen, memory_order_relaxed) >= clock &&
        atomic_load_explicit(&control->clock, memory_order_relaxed) >= clock) {
        return;
    }
    uint64_t limit = clock_limit(control);
    if (clock <= limit) {
        monotone_raise(&control->clock_seen, clock);
    }
    monotone_raise(&control->clock, clock <= limit ? clock : limit);
}
