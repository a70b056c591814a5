/* stats.c: claiming, folding and summing of statistics slots.
 */
#include "stats.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <unistd.h>

/* Add a slot's counts to slot 0 and zero them. Each counter is taken with an exchange, so that two
 * folders or a late count never make one count twice. */
static void fold(struct control *control, struct stats_slot *slot)
{
    for (size_t i = 0; i < STATS_COUNTERS; i++) {
        uint64_t count = atomic_exchange(&slot->counters[i], 0);
        (void)atomic_fetch_add(&control->stats[0].counters[i], count);
    }
}

static bool dead(int32_t pid)
{
    return pid > 0 && kill(pid, 0) != 0 && errno == ESRCH;
}

struct stats_slot *stats_claim(struct control *control)
{
    int32_t self = (int32_t)getpid();
    /* An earlier process of this number left its slot: fold and take that one, so that a number
     * stands in one slot only. */
    for (size_t i = 1; i < CONTROL_STATS_SLOTS; i++) {
        struct stats_slot *slot = &control->stats[i];
        if (atomic_load(&slot->pid) == self) {
            fold(control, slot);
            return slot;
        }
    }
    for (int pass = 0; pass < 2; pass++) { /* free ones first: asking after the dead costs a call */
        for (size_t i = 1; i < CONTROL_STATS_SLOTS; i++) {
            struct stats_slot *slot = &control->stats[i];
            int32_t pid = atomic_load(&slot->pid);
            if ((pid == 0 || (pass == 1 && dead(pid))) &&
                atomic_compare_exchange_strong(&slot->pid, &pid, self)) {
                fold(control, slot);
                return slot;
            }
        }
    }
    return &control->stats[0];
}

void stats_release(struct control *control, struct stats_slot *slot)
{
    if (slot == NULL || slot == &control->stats[0]) {
        return;
    }
    int32_t self = (int32_t)getpid();
    if (atomic_load(&slot->pid) == self) {
        fold(control, slot);
        (void)atomic_compare_exchange_strong(&slot->pid, &self, 0);
    }
}

uint64_t stats_sum(struct control *control, enum stats_counter counter)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < CONTROL_STATS_SLOTS; i++) {
        sum += atomic_load_explicit(&control->stats[i].counters[counter], memory_order_relaxed);
    }
    return sum;
}

uint64_t stats_processes(struct control *control)
{
    uint64_t count = 0;
    for (size_t i = 1; i < CONTROL_STATS_SLOTS; i++) {
        int32_t pid = atomic_load(&control->stats[i].pid);
        count += pid > 0 && !dead(pid);
    }
    return count;
}
