/* gate.h: a mutex in shared memory that is robust (its holder may die) and timed (its holder may be
 * stopped). Every lock of LMDB's that could block is entered only through one of these.
 */
#ifndef LARDER_LIB_GATE_H
#define LARDER_LIB_GATE_H

#include <pthread.h>
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
void gate_leave(struct gate *gate);

#endif
