/* gate.c: robust, timed mutexes between processes.
 *
 * glibc keeps each thread's held robust mutexes in a list that the kernel walks when the thread
 * dies; the next to enter learns of it (EOWNERDEAD) and must say that the mutex is consistent again.
 * That is said at once: what the mutex protects is repaired by the caller, who is told.
 */
#include "gate.h"

#include <errno.h>
#include <string.h>
#include <time.h>

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

enum gate_result gate_enter(struct gate *gate, int64_t wait_ms)
{
    int error = pthread_mutex_trylock(&gate->mutex);
    if (error == EBUSY && wait_ms > 0) {
        struct timespec until;
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += (time_t)(wait_ms / 1000);
        until.tv_nsec += (long)(wait_ms % 1000) * 1000000L;
        if (until.tv_nsec >= 1000000000L) {
            until.tv_nsec -= 1000000000L;
            until.tv_sec++;
        }
        error = pthread_mutex_clocklock(&gate->mutex, CLOCK_MONOTONIC, &until);
    }
    switch (error) {
    case 0:
        return GATE_ENTERED;
    case EOWNERDEAD:
        return pthread_mutex_consistent(&gate->mutex) == 0 ? GATE_RECOVERED : GATE_BROKEN;
    case EBUSY:
    case ETIMEDOUT:
        return GATE_BUSY;
    default:
        return GATE_BROKEN;
    }
}

void gate_leave(struct gate *gate)
{
    (void)pthread_mutex_unlock(&gate->mutex);
}
