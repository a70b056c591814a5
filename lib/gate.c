/* gate.c: robust, timed mutexes between processes.
 *
 * glibc keeps each thread's held robust mutexes in a list that the kernel walks when the thread
 * dies; the next to enter learns of it (EOWNERDEAD) and must say that the mutex is consistent
 * again. That is said at once: what the mutex protects is repaired by the caller, who is told.
 */
#include "gate.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "self.h"

/* A waiter that was woken and killed before it took the mutex has used up the wake-up, and the
 * others would sleep on beside a free mutex; so nobody sleeps for long. */
enum { SLICE_MS = 5 };

/* A write holds its gate for two or three microseconds: whoever goes to sleep for that long pays
 * tens of them, and makes the holder pay for the wake-up. So a waiter looks at the word for a while
 * first. Where that was in vain (the holder has no processor, and may be waiting for ours) the next
 * wait of the thread looks for half as long. bench/bench_writers */
enum { SPIN_MOST_NS = 20000, SPIN_LEAST_NS = 1000, PAUSES_MOST = 8 };
static __thread int32_t spin_ns __attribute__((tls_model("initial-exec")));

int gate_init(struct gate *gate)
{
    pthread_mutexattr_t attributes;
    memset(gate, 0, sizeof *gate);
    int error = pthread_mutexattr_init(&attributes);
    if (error != 0) {
        return error;
    }
    error = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (error == 0) {
        error = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    }
    if (error == 0) {
        /* a handler that calls back into the library must get an error, not a deadlock */
        error = pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
    }
    if (error == 0) {
        error = pthread_mutex_init(&gate->mutex, &attributes);
    }
    (void)pthread_mutexattr_destroy(&attributes);
    return error;
}

/* Held by a thread that does not exist: the kernel marks the mutexes of a thread that dies, so this
 * one was never locked by it; its memory is damaged. Linux gives the lock word of a robust mutex a
 * fixed form (futex(2)). */
static const volatile uint32_t *lock_word(const struct gate *gate)
{
    return (const volatile uint32_t *)(const void *)&gate->mutex;
}

static bool is_orphaned(struct gate *gate)
{
    const volatile uint32_t *word = lock_word(gate);
    uint32_t before = *word;
    pid_t owner = (pid_t)(before & FUTEX_TID_MASK);
    if (owner == 0 || (before & FUTEX_OWNER_DIED) != 0 || kill(owner, 0) == 0 || errno != ESRCH) {
        return false;
    }
    /* It may have died since the word was read. A thread's mutexes are marked before it is gone
     * from the process table, so now the word tells. */
    atomic_thread_fence(memory_order_seq_cst);
    return (*word & ~(uint32_t)FUTEX_WAITERS) == (before & ~(uint32_t)FUTEX_WAITERS);
}

static int64_t monotonic_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

bool gate_looks_held(const struct gate *gate)
{
    uint32_t word = *lock_word(gate);
    return (word & FUTEX_TID_MASK) != 0 && (word & FUTEX_OWNER_DIED) == 0;
}

bool gate_is_own(const struct gate *gate)
{
    return (*lock_word(gate) & FUTEX_TID_MASK) == self()->thread;
}

enum gate_result gate_try(struct gate *gate)
{
    if (gate_looks_held(gate)) {
        return GATE_BUSY;
    }
    switch (pthread_mutex_trylock(&gate->mutex)) {
    case 0:
        return GATE_ENTERED;
    case EOWNERDEAD:
        return pthread_mutex_consistent(&gate->mutex) == 0 ? GATE_RECOVERED : GATE_BROKEN;
    case EBUSY:
        return GATE_BUSY;
    default:
        return GATE_BROKEN;
    }
}

/* EBUSY: not free in the time that is worth it. Only reads of the word until it is free, so that
 * the holder keeps its cache line; more and more seldom, so that the holder's way out is free. */
static int spin(struct gate *gate, int64_t began, int64_t wait_ms)
{
    int64_t budget = spin_ns == 0 ? SPIN_MOST_NS : spin_ns;
    budget = budget < wait_ms * 1000000 ? budget : wait_ms * 1000000;
    unsigned pauses = 1;
    const uint32_t first = *lock_word(gate);
    bool moves = false; /* somebody left or entered meanwhile */
    for (int64_t now = began; now - began < budget; now = monotonic_ns()) {
        gate_pause(pauses);
        pauses = pauses < PAUSES_MOST ? pauses * 2 : PAUSES_MOST;
        moves = moves || *lock_word(gate) != first;
        if (gate_looks_held(gate)) {
            continue;
        }
        int error = pthread_mutex_trylock(&gate->mutex);
        if (error != EBUSY) {
            spin_ns = SPIN_MOST_NS;
            return error;
        }
    }
    if (!moves) {
        spin_ns = (int32_t)(budget / 2 < SPIN_LEAST_NS ? SPIN_LEAST_NS : budget / 2);
    }
    return EBUSY;
}

enum gate_result gate_enter(struct gate *gate, int64_t wait_ms)
{
    int error = pthread_mutex_trylock(&gate->mutex);
    if (__builtin_expect(error == 0, 1)) {
        return GATE_ENTERED;
    }
    const int64_t began = error == EBUSY ? monotonic_ns() : 0;
    if (error == EBUSY && wait_ms > 0) {
        error = spin(gate, began, wait_ms);
    }
    if (error == EBUSY) { /* also asked for with no time to wait: tells our own from another's */
        /* The end is a point in time: slices that are woken late must not add up. */
        int64_t now = monotonic_ns();
        const int64_t end = began + wait_ms * 1000000;
        do {
            int64_t slice_end = now + SLICE_MS * INT64_C(1000000);
            slice_end = slice_end < end ? slice_end : end;
            struct timespec until = {.tv_sec = (time_t)(slice_end / 1000000000),
                                     .tv_nsec = (long)(slice_end % 1000000000)};
            error = pthread_mutex_clocklock(&gate->mutex, CLOCK_MONOTONIC, &until);
            now = monotonic_ns();
        } while (error == ETIMEDOUT && now < end);
    }
    switch (error) {
    case 0:
        return GATE_ENTERED;
    case EOWNERDEAD:
        return pthread_mutex_consistent(&gate->mutex) == 0 ? GATE_RECOVERED : GATE_BROKEN;
    case EBUSY:
    case ETIMEDOUT:
        return is_orphaned(gate) ? GATE_BROKEN : GATE_BUSY;
    case EDEADLK:
        return GATE_OWN;
    default:
        return GATE_BROKEN;
    }
}

void gate_leave(struct gate *gate)
{
    (void)pthread_mutex_unlock(&gate->mutex);
}
