/* wake.h: telling the daemon that there is something to do. It sleeps in an event loop, where a
 * futex has no place: so a FIFO in the map's directory, touched only while it says that it sleeps.
 */
#ifndef LARDER_LIB_WAKE_H
#define LARDER_LIB_WAKE_H

#include "map.h"

#define WAKE_NAME "wake"

/* This process's descriptor of the FIFO, opened once; -1: there is none. */
int wake_open(struct map *map);

/* After a commit that the daemon should know of. One load while it is awake. */
void wake_daemon_slow(struct map *map);

static inline void wake_daemon(struct map *map)
{
    /* seq_cst: after the commit; pairs with the store in replica_wake_arm(), after which the daemon
     * looks at the outbox once more */
    if (__builtin_expect(atomic_load(&map_control(map)->daemon_sleeps) != 0, 0)) {
        wake_daemon_slow(map);
    }
}

#endif
