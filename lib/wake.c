/* wake.c: the workers' end of the daemon's FIFO.
 */
#include "wake.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

/* Write a byte; a daemon that is gone must not cost the host program a SIGPIPE. */
static void touch(struct map *map, int fifo)
{
    sigset_t pipe_signal, before, pending;
    (void)sigemptyset(&pipe_signal);
    (void)sigaddset(&pipe_signal, SIGPIPE);
    (void)sigpending(&pending);
    (void)pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    if (write(fifo, "", 1) < 0 && errno == EPIPE) { /* a full FIFO wakes as well */
        if (sigismember(&pending, SIGPIPE) == 0) {
            (void)sigtimedwait(&pipe_signal, NULL, &(struct timespec){0});
        }
        if (atomic_compare_exchange_strong(&map->wake_fifo, &fifo, -1)) {
            (void)close(fifo);
        }
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void wake_daemon_slow(struct map *map)
{
    uint32_t sleeps = 1;
    if (!atomic_compare_exchange_strong(&map_control(map)->daemon_sleeps, &sleeps, 0)) {
        return; /* somebody else does it */
    }
    int fifo = atomic_load(&map->wake_fifo);
    if (fifo < 0) {
        /* ENXIO where no daemon has it open: then there is nobody to wake */
        fifo = openat(map->directory, WAKE_NAME, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
        if (fifo < 0) {
            return;
        }
        int none = -1;
        if (!atomic_compare_exchange_strong(&map->wake_fifo, &none, fifo)) {
            (void)close(fifo);
            fifo = none;
        }
    }
    touch(map, fifo);
}
