/* spin.c: see spin.h. All of the area is advice: whatever damage or a process that died left there,
 * the worst of it is a caller that sleeps at once, or spins for SPIN_MOST_US.
 */
#include "spin.h"

#include <sched.h>

#include "clock.h"
#include "gate.h"

enum {
    PAUSES = 16,       /* between two looks at word and clock */
    DISTURBED_US = 25, /* between two looks: somebody else had the processor */
    DOUBT_STEP = 3,    /* a turn for nothing outweighs so many good ones */
    DOUBT_MOST = 16
};

static int64_t now_us(void)
{
    return clock_monotonic_ns() / 1000;
}

unsigned spin_processors(void)
{
    static _Atomic unsigned known;
    unsigned count = atomic_load_explicit(&known, memory_order_relaxed);
    if (__builtin_expect(count == 0, 0)) {
        cpu_set_t set;
        /* more than the set has room for are more than enough */
        int processors = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 2;
        count = processors > 0 ? (unsigned)processors : 1;
        atomic_store_explicit(&known, count, memory_order_relaxed);
    }
    return count;
}

static unsigned places(void)
{
    unsigned half = spin_processors() / 2;
    return half < SPIN_PLACES ? half : SPIN_PLACES;
}

static bool is_worth_it(struct spin_area *area)
{
    if (atomic_load_explicit(&area->doubt, memory_order_relaxed) < SPIN_DOUBT) {
        return true;
    }
    uint32_t turn = atomic_fetch_add_explicit(&area->turns, 1, memory_order_relaxed);
    return turn % SPIN_TRY_EVERY == 0;
}

bool spin_begin(struct spin_area *area, int64_t until_us, struct spin *spin)
{
    int64_t limit = atomic_load_explicit(&area->limit_us, memory_order_relaxed);
    if (limit == 0 || places() == 0 || !is_worth_it(area)) {
        return false;
    }
    int64_t now = now_us();
    limit = limit < SPIN_MOST_US ? limit : SPIN_MOST_US;
    until_us = until_us < now + limit ? until_us : now + limit;
    for (unsigned place = 0; place < places(); place++) {
        int64_t taken = atomic_load_explicit(&area->until_us[place], memory_order_relaxed);
        bool is_free = taken <= now || taken > now + SPIN_MOST_US;
        /* relaxed: it guards nothing but the processor */
        if (is_free &&
            atomic_compare_exchange_strong_explicit(&area->until_us[place], &taken, until_us,
                                                    memory_order_relaxed, memory_order_relaxed)) {
            *spin =
                (struct spin){.area = area, .until_us = until_us, .looked_us = now, .place = place};
            return true;
        }
    }
    return false;
}

bool spin_on(struct spin *spin)
{
    gate_pause(PAUSES);
    int64_t now = now_us();
    spin->disturbed = now - spin->looked_us >= DISTURBED_US;
    spin->looked_us = now;
    return !spin->disturbed && now < spin->until_us;
}

void spin_end(const struct spin *spin, bool came)
{
    struct spin_area *area = spin->area;
    int64_t mine = spin->until_us;
    (void)atomic_compare_exchange_strong_explicit(&area->until_us[spin->place], &mine, 0,
                                                  memory_order_relaxed, memory_order_relaxed);
    uint32_t doubt = atomic_load_explicit(&area->doubt, memory_order_relaxed);
    if (came && !spin->disturbed && doubt != 0) {
        doubt = doubt - 1 < DOUBT_MOST ? doubt - 1 : DOUBT_MOST - 1;
        atomic_store_explicit(&area->doubt, doubt, memory_order_relaxed);
    } else if (!came || spin->disturbed) {
        doubt = doubt < DOUBT_MOST - DOUBT_STEP ? doubt + DOUBT_STEP : DOUBT_MOST;
        atomic_store_explicit(&area->doubt, doubt, memory_order_relaxed);
    }
}
