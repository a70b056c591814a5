/* gate.h: a mutex in shared memory that is robust (its holder may die) and timed (its holder may be
 * stopped). Every lock of LMDB's that could block is entered only through one of these.
 */
#ifndef LARDER_LIB_GATE_H
#define LARDER_LIB_GATE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct gate {
    pthread_mutex_t mutex;
    uint8_t padding[64 - sizeof(pthread_mutex_t)];
};

enum gate_result {
    GATE_ENTERED = 0,
    GATE_RECOVERED = 1, /* entered; the last holder died inside: look at what it left */
    GATE_BUSY = -1,     /* held past the deadline */
    GATE_OWN = -2,      /* this thread holds it already */
    GATE_BROKEN = -3    /* not a mutex any more, or held by nobody who exists */
};

/* Make a gate in fresh memory. 0 or an errno. */
int gate_init(struct gate *gate);

/* Enter within wait_ms (0: at once or not at all). Waits on CLOCK_MONOTONIC. */
enum gate_result gate_enter(struct gate *gate, int64_t wait_ms);
/* Enter at once or not at all, without a system call: ENTERED, RECOVERED, BUSY (whoever holds it),
 * BROKEN. A gate that is held is only looked at, so that it can be asked for again and again. */
enum gate_result gate_try(struct gate *gate);
bool gate_looks_held(const struct gate *gate);
/* Whether this thread holds it. */
bool gate_is_own(const struct gate *gate);
void gate_leave(struct gate *gate);

/* Between two looks at a word that another processor will change. */
static inline void gate_pause(unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("isb");
#endif
    }
}

#endif
