/* wake.c: the workers' end of the daemon's FIFO.
 */
#include "wake.h"

#include <fcntl.h>
#include <unistd.h>

/* Open for reading, too: then a write never raises SIGPIPE, whether or not a daemon is there, and
 * the descriptor need not be closed (and its number given to somebody else) before the map is. */
int wake_open(struct map *map)
{
    int fifo = atomic_load(&map->wake_fifo);
    if (fifo < 0) {
        fifo = openat(map->directory, WAKE_NAME, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
        int none = -1;
        if (fifo >= 0 && !atomic_compare_exchange_strong(&map->wake_fifo, &none, fifo)) {
            (void)close(fifo);
            fifo = none;
        }
    }
    return fifo;
}

void wake_daemon_slow(struct map *map)
{
    uint32_t sleeps = 1;
    if (!atomic_compare_exchange_strong(&map_control(map)->daemon_sleeps, &sleeps, 0)) {
        return; /* somebody else does it */
    }
    int fifo = wake_open(map);
    if (fifo >= 0) {
        ssize_t written = write(fifo, "", 1);
        (void)written; /* a full FIFO wakes as well */
    }
}
