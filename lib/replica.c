/* replica.c: the replicator's port: reading the outbox, acknowledging, applying what came in.
 */
#include "replica.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arrival.h"
#include "ask.h"
#include "clock.h"
#include "format.h"
#include "handle.h"
#include "lookup.h"
#include "removal.h"
#include "replica_internal.h"
#include "wake.h"
#include "writer.h"

enum { OUTBOX_LOOKS_MAX = 1024 };

static_assert(REPLICA_MARKS_MAX == RECORD_MARKS_MAX && REPLICA_MARK_SIZE == RECORD_MARK_SIZE,
              "the same marks");

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
            clock_note(control);
            atomic_store(&control->clock_redis_ms, redis_minus_monotonic_ms);
            atomic_store(&control->clock_offset_ms, redis_minus_monotonic_ms - ours);
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

/* ---- Outbox -----------------------------------------------------------------------------------
 */

static bool grow(replica_batch *batch, size_t used, size_t more)
{
    if (batch->memory_size - used >= more) {
        return true;
    }
    size_t size = batch->memory_size == 0 ? 65536 : batch->memory_size;
    while (size - used < more) {
        size *= 2;
    }
    void *memory = realloc(batch->memory, size);
    if (memory == NULL) {
        return false;
    }
    batch->memory = memory;
    batch->memory_size = size;
    return true;
}

static bool grow_records(replica_batch *batch, size_t max)
{
    if (batch->capacity >= max) {
        return true;
    }
    replica_record *records = realloc(batch->records, max * sizeof *records);
    if (records == NULL) {
        return false;
    }
    batch->records = records;
    batch->capacity = max;
    return true;
}

/* Copy a record behind the bytes used so far. MISS: it is none to send. */
static int copy_out(struct transaction *t, uint64_t row, const larder_bytes *form,
                    bool include_clean, replica_batch *batch, size_t *used)
{
    larder_bytes bytes;
    struct record record;
    int result = store_entry_get(t, form->data, form->size, &bytes);
    if (result != LARDER_OK || !record_decode(bytes.data, bytes.size, &record) ||
        record.header.row != row) {
        return result < 0 ? result : LARDER_MISS;
    }
    bool dirty = (record.header.flags & RECORD_DIRTY) != 0;
    if ((record.header.flags & RECORD_LOCAL) != 0 || (!dirty && !include_clean) ||
        (!dirty && replica_is_foreign(&record))) {
        return LARDER_MISS;
    }
    const uint8_t *key =
        record.long_key != NULL ? record.long_key : (const uint8_t *)form->data + 1;
    size_t key_size = record.long_key != NULL ? record.long_key_size : form->size - 1;
    if (record.header.kind != RECORD_DELETED &&
        lookup_death(t->store->control, &record, key_hash(key, key_size)) != 0) {
        if (!dirty) {
            return LARDER_MISS; /* the janitor makes a deletion of it, and that goes out */
        }
        record = record_make(record_version(&record, t->store->control->home), RECORD_DELETED, 0,
                             CLOCK_NEVER); /* dead: it goes out as what it is about to be */
    }
    size_t value_size = record.value_size;
    if (!grow(batch, *used, key_size + value_size)) {
        return error_set(LARDER_ENOMEM, "no memory for the outbox");
    }
    uint8_t *at = (uint8_t *)batch->memory + *used;
    memcpy(at, key, key_size);
    if (value_size > 0) {
        result = lookup_copy(t, &record, at + key_size);
        if (result == LARDER_ECORRUPT && t->error == LARDER_OK) {
            return LARDER_MISS; /* a chunk is gone: no reason to hold up the rest */
        }
        if (result != LARDER_OK) {
            return result;
        }
    }
    batch->records[batch->count++] = (replica_record){
        .version = record_version(&record, t->store->control->home),
        .kind = (enum replica_kind)record.header.kind,
        .row = row,
        .value_hash = replica_value_hash(at + key_size, value_size),
        .expires_at_ms = record.expires_at_ms,
        .stale_until_ms = record.stale_until_ms,
        .sliding_ms = record.sliding_ms,
        .limit_ms = record.limit_ms,
        .created_ms = record.created_ms,
        .acked_ms = record.acked_ms,
        .dirty = dirty,
        .mark_count = record.header.mark_count,
        .key_size = key_size,
        .value_size = value_size,
    };
    if (record.header.mark_count != 0) {
        memcpy(batch->records[batch->count - 1].marks, record.marks,
               (size_t)record.header.mark_count * RECORD_MARK_SIZE);
    }
    *used += key_size + value_size;
    return LARDER_OK;
}

static int fill(struct transaction *t, replica_batch *batch, size_t max_records, size_t max_bytes,
                bool include_clean)
{
    size_t used = 0;
    for (size_t looks = 0; looks < OUTBOX_LOOKS_MAX && batch->count < max_records; looks++) {
        uint64_t row;
        larder_bytes form;
        int result = store_log_next(t, batch->next_row, &row, &form);
        if (result == LARDER_MISS) {
            batch->end = true;
            break;
        }
        if (result == LARDER_OK) {
            size_t before = used;
            result = copy_out(t, row, &form, include_clean, batch, &used);
            if (result == LARDER_OK && used > max_bytes && batch->count > 1) {
                batch->count--; /* it comes first the next time */
                used = before;
                break;
            }
        }
        if (result < 0) {
            return result;
        }
        batch->next_row = row + 1;
    }
    const uint8_t *at = batch->memory;
    for (size_t i = 0; i < batch->count; i++) {
        replica_record *record = &batch->records[i];
        record->key = at;
        record->value = at + record->key_size;
        at += record->key_size + record->value_size;
    }
    return LARDER_OK;
}

int replica_outbox(larder *handle, replica_batch *batch, uint64_t from_row, size_t max_records,
                   size_t max_bytes, bool include_clean)
{
    struct transaction *t;
    batch->count = 0;
    batch->end = false;
    batch->next_row = from_row;
    int result = handle_enter(handle);
    if (result != LARDER_OK) {
        return result;
    }
    if (!grow_records(batch, max_records) || !grow(batch, 0, 1)) {
        return error_set(LARDER_ENOMEM, "no memory for the outbox");
    }
    result = registry_snapshot(handle->map, NULL, &t);
    if (result != LARDER_OK) {
        return result;
    }
    result = fill(t, batch, max_records, max_bytes, include_clean);
    store_read_end(t);
    return result;
}

void replica_batch_free(replica_batch *batch)
{
    free(batch->records);
    free(batch->memory);
    *batch = (replica_batch){.records = NULL};
}

/* ---- Applying ---------------------------------------------------------------------------------
 */

replica_record replica_of_record(const struct record *record, uint32_t home)
{
    replica_record r = {.version = record_version(record, home),
                        .kind = (enum replica_kind)record->header.kind};
    if (record->value_size > 0) {
        /* a chunked value's checksum is the hash of the value */
        r.value_hash = record->chunk_count > 0
                           ? record->value_checksum
                           : replica_value_hash(record->value, record->value_size);
    }
    return r;
}

/* Just below it, and no foreign value's. */
static larder_version version_before(larder_version version)
{
    if (version.node-- == 0) {
        version.clock--; /* the node is the greatest now */
    }
    if (version.node == REPLICA_FOREIGN_NODE) {
        version.node--;
    }
    return version;
}

/* It is newer than ours, or than what might still come of a key that we know nothing of, and its
 * value is not to be had, or not yet: ours goes. Redis holds the newer one, so no invalidation is
 * needed. Where the value may be fetched, a removal of the version just before it keeps its place:
 * the floor of a bucket is that of other keys, too, whose newer ones would then shut this one out.
 */
static int take_place(struct writer *writer, const struct key *key, const struct record *old,
                      const replica_event *event, bool dead)
{
    const replica_record *in = &event->record;
    larder_version before = version_before(in->version);
    if (event->value_missing && !dead) {
        int order =
            old == NULL ? -1 : clock_compare(record_version(old, writer->control->home), before);
        if (order == 0 && old->header.kind == RECORD_DELETED) {
            return LARDER_OK; /* it stands there: who loses to an event hears of it as well */
        }
        if (order <= 0) {
            return entry_stand_in(writer, key, old, before);
        }
        before = (larder_version){.clock = in->version.clock - 1}; /* ours is worth nothing */
    } else {
        before.clock = in->version.clock; /* it will never come */
    }
    int result = LARDER_OK;
    if (old != NULL) {
        struct record again;
        result = replica_clean(writer, key, old, 0);
        if (result == LARDER_OK) {
            result = entry_find(&writer->transaction, key, &again);
        }
        if (result == LARDER_OK) {
            result = entry_drop(writer, key, &again);
        }
    }
    removal_raise_floor(writer->control, key->hash, before.clock);
    return result;
}

int replica_store_inbound(struct writer *writer, const struct key *key, const struct record *old,
                          replica_event *event)
{
    const replica_record *in = &event->record;
    bool dead = in->kind == REPLICA_DELETED || clock_expired(replica_gone_ms(in));
    bool unusable = event->value_missing ||
                    in->value_size > atomic_load(&writer->transaction.store->life->max_value);
    event->verdict = unusable && !dead ? REPLICA_REFUSED : REPLICA_APPLIED;
    if ((dead || unusable) && in->kind != REPLICA_DELETED) {
        return old == NULL && !event->unordered ? LARDER_OK
                                                : take_place(writer, key, old, event, dead);
    }
    struct record record =
        record_make(in->version, (enum record_kind)in->kind, event->hint ? RECORD_DIRTY : 0,
                    in->kind == REPLICA_DELETED ? CLOCK_NEVER : in->expires_at_ms);
    record.value_size = in->kind == REPLICA_VALUE ? in->value_size : 0;
    if (in->kind != REPLICA_DELETED) {
        record.stale_until_ms = in->stale_until_ms;
        record.sliding_ms = in->sliding_ms;
        record.limit_ms = in->limit_ms;
        record.created_ms = in->created_ms;
        record.header.mark_count =
            (uint8_t)(in->mark_count < RECORD_MARKS_MAX ? in->mark_count : RECORD_MARKS_MAX);
        record.marks = in->marks;
    }
    return entry_store(writer, key, old, &record, in->value);
}

int replica_apply_one(struct writer *writer, replica_event *event)
{
    struct key key;
    struct record old;
    const replica_record *in = &event->record;
    if (in->kind == REPLICA_MARK) {
        return arrival_mark(writer->control, event);
    }
    int result = key_make(&key, in->key, in->key_size);
    if (result != LARDER_OK || in->kind < REPLICA_VALUE || in->kind > REPLICA_DELETED) {
        event->verdict = REPLICA_REFUSED;
        return LARDER_OK;
    }
    int found = entry_find(&writer->transaction, &key, &old);
    if (found < 0) {
        return found;
    }
    if (event->fill.kind != REPLICA_FILL_NONE) {
        return replica_apply_fill(writer, &key, found == LARDER_OK ? &old : NULL, event);
    }
    if (found == LARDER_OK && replica_is_foreign(&old)) {
        return replica_apply_over_foreign(writer, &key, &old, event);
    }
    if (found == LARDER_OK && (old.header.flags & RECORD_LOCAL) == 0) {
        bool dirty = (old.header.flags & RECORD_DIRTY) != 0;
        replica_record ours = replica_of_record(&old, writer->control->home);
        int order = replica_compare(&ours, in);
        uint64_t limit = order > 0 && !dirty ? clock_limit(writer->control) : UINT64_MAX;
        if (ours.version.clock > limit && in->version.clock <= limit) {
            order = -1; /* Redis takes ours for nothing; a dirty one is going to be stamped anew */
        }
        if (order == 0) {
            event->verdict = REPLICA_EQUAL;
            event->row = dirty ? old.header.row : 0;
            return dirty && !event->untold ? replica_clean(writer, &key, &old, clock_wall_ms())
                                           : LARDER_OK;
        }
        if (order > 0) {
            event->verdict = REPLICA_OLDER;
            return dirty || event->doubtful ? LARDER_OK : entry_requeue(writer, &key, &old);
        }
    } else if (found == LARDER_OK) {
        event->verdict = REPLICA_REFUSED; /* a local entry stays local */
        return LARDER_OK;
    }
    clock_observe(writer->control, in->version.clock);
    if (arrival_is_dead(writer, &key, found == LARDER_OK ? &old : NULL, event, &result)) {
        /* Here alone: ours is dead with it, and would lose to it again each time it is pushed. */
        return result == LARDER_OK && found == LARDER_OK && event->verdict == REPLICA_REFUSED
                   ? take_place(writer, &key, &old, event, true)
                   : result;
    }
    if (found == LARDER_MISS && in->version.clock <= removal_floor(writer->control, key.hash)) {
        event->verdict = REPLICA_REFUSED;
        return LARDER_OK;
    }
    if (found == LARDER_MISS && event->late && in->kind != REPLICA_VALUE) {
        removal_raise_floor(writer->control, key.hash, in->version.clock);
        event->verdict = REPLICA_REFUSED;
        return LARDER_OK;
    }
    /* Nor does something older say anything that stands there: it may have been written, or left by
     * another such event, since this host listens. */
    if (event->late && in->kind != REPLICA_DELETED) {
        event->value_missing = true;
    }
    result = replica_store_inbound(writer, &key, found == LARDER_OK ? &old : NULL, event);
    event->row = 0;
    if (result == LARDER_OK && event->hint) {
        result = entry_find(&writer->transaction, &key, &old);
        event->row =
            result == LARDER_OK ? old.header.row : 0; /* no room: a barrier stands for it */
    }
    return result < 0 ? result : LARDER_OK;
}

int replica_position_read(larder *handle, replica_position *out)
{
    struct transaction *t;
    int result = handle_enter(handle);
    if (result == LARDER_OK) {
        result = registry_snapshot(handle->map, NULL, &t);
    }
    if (result != LARDER_OK) {
        return result;
    }
    struct ledger ledger;
    bool whole = store_ledger(t, &ledger);
    store_read_end(t);
    if (!whole) {
        return error_set(LARDER_EBUSY, "no ledger to be had: writers are too fast");
    }
    *out = (replica_position){.epoch = ledger.position.epoch,
                              .number = ledger.position.number,
                              .nonce = ledger.position.nonce,
                              .seen_ms = ledger.position_seen_ms,
                              .since_ms = ledger.position_since_ms,
                              .marks_id = atomic_load(&map_control(handle->map)->marks.set_id)};
    memcpy(out->run_id, ledger.position.run_id, sizeof out->run_id);
    out->run_id[sizeof out->run_id - 1] = '\0';
    return LARDER_OK;
}
