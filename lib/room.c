/* room.c: see room.h. */
#include "room.h"

#include <time.h>

#include "clock.h"
#include "error.h"
#include "evict.h"
#include "handle.h"
#include "registry.h"
#include "writer.h"

enum {
    ROOM_COMMITS = 4096, /* of one making of room: time ends it before */
    EVICT_BATCH = 512,
    EVICT_LESS = 4
};

static int full_because_of_reader(struct store *store)
{
    uint64_t snapshot;
    int pid = store_oldest_reader(store, &snapshot);
    if (pid == 0) {
        return error_set(LARDER_EFULL, "the map is full and nothing can be evicted");
    }
    return error_set(LARDER_EFULL,
                     "the map is full: an old snapshot of process %d pins the freed pages", pid);
}

/* The map was full: evict in transactions of their own, until there is room, and two at least,
 * because what one frees the second after it can use. Each evicts as much as it has room for; one
 * that had too little of it all the same tries less. Where enough is free but not to be had (a
 * snapshot pins it, or did a moment ago), evicting would only empty the map: a commit that moves
 * the free list on is all that helps.
 */
int room_make(const struct larder *handle, uint64_t need, int64_t until_ms)
{
    struct writer writer;
    size_t batch = EVICT_BATCH;
    for (int commits = 0; commits < ROOM_COMMITS;) {
        int result = writer_begin_bare(&writer, handle, handle->write_wait_ms);
        if (result != LARDER_OK) {
            return result;
        }
        struct store *store = writer.transaction.store;
        uint64_t snapshot;
        bool fits = evict_fits(&writer, need);
        if (fits && store_oldest_reader(store, &snapshot) != 0) {
            result = full_because_of_reader(store);
            writer_abort(&writer);
            return result;
        }
        writer.nothing_left = false;
        if (fits) {
            (void)store_touch(&writer.transaction);
        } else {
            (void)evict_some(&writer, need, batch);
        }
        if (writer.nothing_left && writer.transaction.error == LARDER_OK) {
            result = full_because_of_reader(store);
            writer_abort(&writer);
            return result;
        }
        result = writer_commit(&writer);
        if (result == LARDER_EFULL && !fits && batch > 1) {
            batch /= EVICT_LESS;
            continue;
        }
        if (result == LARDER_EFULL) { /* not even that has room */
            return full_because_of_reader(store);
        }
        if (result != LARDER_OK) {
            return result;
        }
        commits++;
        if (commits >= 2 && (fits || clock_monotonic_ms() > until_ms)) {
            return LARDER_OK;
        }
    }
    return LARDER_OK;
}

bool room_clear_readers(const struct larder *handle)
{
    struct transaction *reader;
    uint64_t snapshot;
    int cleared = 0;
    if (registry_reader(handle->map, &reader) != LARDER_OK ||
        store_oldest_reader(reader->store, &snapshot) == 0) {
        return false;
    }
    struct gate *gate = &reader->store->control->reader_gate;
    if (gate_enter(gate, MAP_READER_WAIT_MS) < 0) {
        return false;
    }
    (void)store_clear_dead_readers(reader->store, &cleared);
    gate_leave(gate);
    return cleared > 0;
}

bool room_wait_for_reader(const struct larder *handle, int *patience)
{
    static _Atomic uint64_t stayed; /* the snapshot that was waited for in vain */
    struct transaction *reader;
    uint64_t snapshot;
    if (registry_reader(handle->map, &reader) != LARDER_OK) {
        return false;
    }
    if (store_oldest_reader(reader->store, &snapshot) != 0) {
        if (snapshot == atomic_load_explicit(&stayed, memory_order_relaxed)) {
            return false;
        }
        if (*patience == 0) {
            atomic_store_explicit(&stayed, snapshot, memory_order_relaxed);
        }
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return (*patience)-- > 0;
}

uint64_t room_pinned_by(const struct larder *handle)
{
    struct transaction *reader;
    uint64_t snapshot;
    bool pinned = registry_reader(handle->map, &reader) == LARDER_OK &&
                  store_oldest_reader(reader->store, &snapshot) != 0;
    return pinned ? snapshot : 0;
}

int room_refuse(const struct larder *handle)
{
    struct transaction *reader;
    uint64_t snapshot;
    int result = registry_reader(handle->map, &reader);
    if (result != LARDER_OK) {
        return result;
    }
    if (store_oldest_reader(reader->store, &snapshot) != 0) {
        return full_because_of_reader(reader->store);
    }
    /* Room was made, several times. Values are kept in pieces of a page, keys are not. */
    return error_set(LARDER_EFULL,
                     "the map is full: the pages that are free do not lie together, as "
                     "those of a key of many KiB must, or others were faster");
}
