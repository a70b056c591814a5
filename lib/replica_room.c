/* replica_room.c: the writes of the replicator's port in a map that is full because a snapshot that
 * somebody holds pins what is freed. It may be held for as long as its process likes, and larderd
 * has one thread: so it is waited for once, and after that the port asks now and then only.
 *
 * For replica_apply(), replica_acknowledge() and the sweeps. Of larderd's one thread.
 */
#include "clock.h"
#include "handle.h"
#include "replica_internal.h"
#include "room.h"

enum { STUCK_MS = 2000, HASTY_MS = 1 };

static struct {
    uint64_t snapshot; /* 0: none */
    int64_t until_ms;
} stuck;

bool replica_is_stuck(const larder *handle)
{
    return stuck.snapshot != 0 && clock_monotonic_ms() < stuck.until_ms &&
           room_pinned_by(handle) == stuck.snapshot;
}

int replica_run(const larder *handle, size_t need, writer_operation *operation, void *context)
{
    if (replica_is_stuck(handle)) {
        return room_refuse(handle);
    }
    struct larder hasty = *handle;
    hasty.write_wait_ms = handle->write_wait_ms < HASTY_MS ? handle->write_wait_ms : HASTY_MS;
    /* Listing the readers costs as much as a write of its own: only where one was met. */
    bool known = stuck.snapshot != 0 && room_pinned_by(handle) == stuck.snapshot;
    int result = writer_run(known ? &hasty : handle, need, operation, context);
    if (result != LARDER_EFULL) {
        return result;
    }
    /* Whether it is a snapshot's doing, which outlasts one more try. Others come and go. */
    uint64_t snapshot = room_pinned_by(handle);
    if (snapshot != 0 && snapshot != stuck.snapshot) {
        result = writer_run(&hasty, need, operation, context);
    }
    if (result == LARDER_EFULL && snapshot != 0 && room_pinned_by(handle) == snapshot) {
        stuck.snapshot = snapshot;
        stuck.until_ms = clock_monotonic_ms() + STUCK_MS;
    }
    return result;
}
