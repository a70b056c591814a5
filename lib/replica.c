/* replica.c: the replicator's port: being the map's daemon, and sleeping until there is work.
 */
#include "replica.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ask.h"
#include "clock.h"
#include "format.h"
#include "handle.h"
#include "replica_internal.h"
#include "wake.h"

#define LOCK_NAME "larderd.lock"

uint64_t replica_value_hash(const void *value, size_t size)
{
    return size == 0 ? 0 : record_value_hash(value, size);
}

int replica_compare(const replica_record *a, const replica_record *b)
{
    int order = clock_compare(a->version, b->version);
    if (order != 0) {
        return order;
    }
    if (a->kind != b->kind) {
        return a->kind < b->kind ? -1 : 1;
    }
    return a->value_hash == b->value_hash ? 0 : a->value_hash < b->value_hash ? -1 : 1;
}

/* ---- Being the daemon -------------------------------------------------------------------------
 */

int replica_claim(larder *handle, bool replicates, uint64_t *fence, int *other_pid)
{
    int result = handle_enter_write(handle);
    if (result != LARDER_OK) {
        return result;
    }
    struct map *map = handle->map;
    struct control *control = map_control(map);
    *other_pid = 0;
    /* The descriptor is never closed: the lock is the process's until it ends, however it ends. */
    int file =
        openat(map->directory, LOCK_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, control->mode);
    if (file < 0) {
        return error_system(LARDER_EACCESS, "%s/" LOCK_NAME, map->path);
    }
    if (flock(file, LOCK_EX | LOCK_NB) != 0) {
        *other_pid = atomic_load(&control->daemon_pid);
        (void)close(file);
        return LARDER_EXISTS;
    }
    if (mkfifoat(map->directory, WAKE_NAME, control->mode) != 0 && errno != EEXIST) {
        result = error_system(LARDER_EACCESS, "%s/" WAKE_NAME, map->path);
        (void)close(file);
        return result;
    }
    (void)!fchmodat(map->directory, WAKE_NAME, control->mode, 0); /* the umask took bits away */
    *fence = handle->fence = atomic_fetch_add(&control->fence, 1) + 1;
    atomic_store(&control->daemon_pid, (int32_t)getpid());
    atomic_store(&control->daemon_sleeps, 0);
    ask_begin_daemon(map);
    atomic_store(&control->replicates, replicates ? 1 : 0);
    return LARDER_OK;
}

bool replica_in_place(larder *handle)
{
    struct stat status;
    if (handle_enter(handle) != LARDER_OK) {
        return true; /* other calls tell what is wrong */
    }
    if (lstat(handle->map->path, &status) != 0) {
        return errno != ENOENT && errno != ENOTDIR;
    }
    return status.st_dev == handle->map->device && status.st_ino == handle->map->inode;
}

uint32_t replica_node(larder *handle)
{
    return handle_enter(handle) == LARDER_OK ? atomic_load(&map_control(handle->map)->node) : 0;
}

uint64_t replica_identity(larder *handle)
{
    struct {
        uint8_t boot_id[16];
        uint64_t device, inode;
    } identity = {.device = 0};
    if (handle_enter(handle) != LARDER_OK) {
        return 0;
    }
    memcpy(identity.boot_id, map_control(handle->map)->boot_id, sizeof identity.boot_id);
    identity.device = (uint64_t)handle->map->device;
    identity.inode = (uint64_t)handle->map->inode;
    return record_value_hash(&identity, sizeof identity);
}

int replica_check_fence(const struct control *control, uint64_t fence)
{
    if (atomic_load(&control->fence) != fence) {
        return error_set(REPLICA_FENCED, "another larderd has taken over this map");
    }
    return LARDER_OK;
}

int replica_draw_node(larder *handle, uint64_t fence)
{
    int result = handle_enter_write(handle);
    if (result == LARDER_OK) {
        struct control *control = map_control(handle->map);
        result = replica_check_fence(control, fence);
        if (result == LARDER_OK) {
            atomic_store(&control->node, control_random_node());
        }
    }
    return result;
}

int replica_publish_clock(larder *handle, uint64_t fence, int64_t redis_minus_monotonic_ms)
{
    int result = handle_enter_write(handle);
    if (result == LARDER_OK) {
        struct control *control = map_control(handle->map);
        result = replica_check_fence(control, fence);
        if (result == LARDER_OK) {
            int64_t ours = clock_wall_ms() - clock_monotonic_ms();
            clock_note(control); /* by what was believed so far, and by this */
            atomic_store(&control->clock_redis_ms, redis_minus_monotonic_ms);
            atomic_store(&control->clock_offset_ms, redis_minus_monotonic_ms - ours);
            clock_note(control);
        }
    }
    return result;
}

int replica_publish_state(larder *handle, uint64_t fence, bool redis_up, int64_t heartbeat_ms)
{
    int result = handle_enter(handle);
    if (result == LARDER_OK) {
        struct control *control = map_control(handle->map);
        result = replica_check_fence(control, fence);
        if (result == LARDER_OK) {
            clock_note(control);
            atomic_store(&control->redis_up, redis_up ? 1 : 0);
            atomic_store(&control->daemon_heartbeat_ms, heartbeat_ms);
        }
    }
    return result;
}

/* ---- Wake-up ----------------------------------------------------------------------------------
 */

int replica_wake_fd(larder *handle)
{
    return handle_enter(handle) == LARDER_OK ? wake_open(handle->map) : -1;
}

void replica_wake_arm(larder *handle)
{
    if (handle_enter(handle) == LARDER_OK) {
        atomic_store(&map_control(handle->map)->daemon_sleeps, 1);
    }
}

bool replica_wake_is_armed(larder *handle)
{
    return handle_enter(handle) == LARDER_OK &&
           atomic_load(&map_control(handle->map)->daemon_sleeps) != 0;
}

void replica_wake_drain(larder *handle)
{
    char bytes[64];
    if (handle_enter(handle) == LARDER_OK) {
        int fifo = atomic_load(&handle->map->wake_fifo);
        while (fifo >= 0 && read(fifo, bytes, sizeof bytes) == (ssize_t)sizeof bytes) {
        }
    }
}
