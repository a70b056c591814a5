/* wake.c: the workers' end of the daemon's FIFO.
 */
#include "wake.h"

#include <fcntl.h>
#include <unistd.h>

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
    ssize_t written = write(fifo, "", 1);
    (void)written; /* a full FIFO wakes as well; EPIPE: the daemon went (SIGPIPE is blocked) */
}
