/* stats.h: counters, one slot of the control segment per process, so that counting needs no lock
 * and shares no cache line with other processes. Readers sum all slots.
 */
#ifndef LARDER_LIB_STATS_H
#define LARDER_LIB_STATS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/single_threaded.h>

#include "control.h"

/* Take a slot for this process; slots of dead processes are folded into slot 0 and reused. Never
 * fails: with all slots taken the process counts in slot 0. */
struct stats_slot *stats_claim(struct control *control);
void stats_release(struct control *control, struct stats_slot *slot);

uint64_t stats_sum(struct control *control, enum stats_counter counter);
uint64_t stats_processes(struct control *control);

/* Whether nobody else counts in this slot now: the process has one thread, and the slot is its own
 * (number 0 is everybody's). A locked instruction is then not needed, and one is a tenth of a hit:
 * it waits for all stores before it and keeps back all loads behind it. */
static inline bool stats_alone(const struct stats_slot *slot)
{
    return __libc_single_threaded != 0 &&
           atomic_load_explicit(&slot->pid, memory_order_relaxed) != 0;
}

static inline void stats_add(struct stats_slot *slot, enum stats_counter counter, uint64_t count)
{
    _Atomic uint64_t *at = &slot->counters[counter];
    if (__builtin_expect(stats_alone(slot), 1)) {
        atomic_store_explicit(at, atomic_load_explicit(at, memory_order_relaxed) + count,
                              memory_order_relaxed);
    } else {
        (void)atomic_fetch_add_explicit(at, count, memory_order_relaxed);
    }
}

/* Count with the strength of a full barrier. On x86 every locked instruction is one; elsewhere a
 * fence is spelt out. */
static inline void stats_count_and_fence(struct stats_slot *slot, enum stats_counter counter)
{
    (void)atomic_fetch_add_explicit(&slot->counters[counter], 1, memory_order_seq_cst);
#if !defined(__x86_64__) && !defined(__i386__)
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

static inline void stats_count(struct stats_slot *slot, enum stats_counter counter)
{
    stats_add(slot, counter, 1);
}

#endif
