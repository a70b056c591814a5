/* resize.c: a map of another size: what must not be lost and what fits is copied into a new
 * generation while readers go on with the old one. Rows and chunks keep their numbers; chunks
 * stand on other pages there, and their records say so.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "chunks.h"
#include "clock.h"
#include "error.h"
#include "evict.h"
#include "format.h"
#include "handle.h"
#include "hotset.h"
#include "map.h"
#include "registry.h"
#include "removal.h"
#include "upkeep.h"
#include "writer.h"

enum { ROWS_PER_COMMIT = 10000, READER_WAIT_MS = 50 };

struct copy {
    struct transaction from, to;
    struct store *target;
    struct ledger ledger;  /* of the new generation */
    uint64_t skip_bytes;   /* clean values to leave out, the oldest first */
    uint64_t needed_bytes; /* what cannot be left out */
    uint64_t clean_bytes;
    uint32_t pages[RECORD_PAGES_MAX]; /* of the chunks that were copied last */
};

typedef int visitor(struct copy *copy, uint64_t row, const larder_bytes *form,
                    const larder_bytes *bytes, const struct record *record);

/* A failover may still forget what was acknowledged just now. */
static bool must_stay(const struct record *record)
{
    bool recent =
        record->acked_ms != 0 && clock_wall_ms() - record->acked_ms < WRITER_ACKED_RECENTLY_MS;
    return recent || record->header.kind == RECORD_DELETED ||
           (record->header.flags & RECORD_DIRTY) != 0;
}

/* Space of an entry, roughly: pages are two thirds full, a chunk has one for itself. */
static uint64_t weight(const larder_bytes *form, const larder_bytes *bytes,
                       const struct record *record)
{
    return (bytes->size + 2 * form->size + 64) * 3 / 2 +
           (uint64_t)record->chunk_count * (CHUNK_PAGE + 64);
}

static int weigh(struct copy *copy, uint64_t row, const larder_bytes *form,
                 const larder_bytes *bytes, const struct record *record)
{
    (void)row;
    uint64_t *sum = must_stay(record) ? &copy->needed_bytes : &copy->clean_bytes;
    *sum += weight(form, bytes, record);
    return LARDER_OK;
}

static int copy_chunks(struct copy *copy, const struct record *record)
{
    larder_bytes part;
    for (size_t i = 0; i < record->chunk_count; i++) {
        uint32_t page = 0;
        int result = chunks_part(&copy->from, record, i, &part);
        if (result != LARDER_OK) {
            return result;
        }
        (void)store_chunk_put(&copy->to, record->first_chunk + i, part.data, part.size, &page);
        if (record->pages != NULL) {
            copy->pages[i] = page;
        }
    }
    return LARDER_OK;
}

/* A record in chunks, with the pages where they stand now. One that is damaged stays so: it must
 * not be sealed again. */
static int put_moved(struct copy *copy, const larder_bytes *form, const larder_bytes *bytes,
                     const struct record *record)
{
    struct transaction *to = &copy->to;
    struct record moved = *record;
    struct key key;
    void *memory = NULL, *sealed = malloc(bytes->size);
    int result = entry_key(form, record, &key, &memory);
    if (sealed == NULL) {
        result = error_set(LARDER_ENOMEM, "out of memory");
    }
    if (result == LARDER_OK) {
        memcpy(sealed, bytes->data, bytes->size);
        moved.pages = copy->pages;
        if (record_intact(bytes->data, bytes->size, key.hash) &&
            record_size(&moved) == bytes->size) {
            record_encode(sealed, &moved, key.hash);
        }
        result = store_entry_put(to, form->data, form->size, sealed, bytes->size);
    }
    free(memory);
    free(sealed);
    return result;
}

/* What it replaced, on its way here still, must not be stored in its place. */
static int leave_out(struct copy *copy, const larder_bytes *form, const struct record *record)
{
    struct key key;
    void *memory = NULL;
    int result = entry_key(form, record, &key, &memory);
    if (result == LARDER_OK) {
        removal_raise_floor(copy->target->control, key.hash, record->header.clock);
    }
    free(memory);
    return result;
}

static int copy_entry(struct copy *copy, uint64_t row, const larder_bytes *form,
                      const larder_bytes *bytes, const struct record *record)
{
    struct transaction *to = &copy->to;
    if (!must_stay(record) && copy->skip_bytes > 0) {
        uint64_t skipped = weight(form, bytes, record);
        copy->skip_bytes -= skipped < copy->skip_bytes ? skipped : copy->skip_bytes;
        return leave_out(copy, form, record);
    }
    int result = copy_chunks(copy, record);
    if (result != LARDER_OK) {
        /* damaged: it is left out */
        return result == LARDER_ECORRUPT && copy->from.error == LARDER_OK
                   ? leave_out(copy, form, record)
                   : result;
    }
    if (record->pages != NULL) {
        result = put_moved(copy, form, bytes, record);
        if (result != LARDER_OK) {
            return result;
        }
    } else {
        (void)store_entry_put(to, form->data, form->size, bytes->data, bytes->size);
    }
    (void)store_log_append(to, row, form->data, form->size);
    *(record->header.kind == RECORD_DELETED ? &copy->ledger.tombstones : &copy->ledger.values) += 1;
    copy->ledger.dirty += (record->header.flags & RECORD_DIRTY) != 0;
    evict_count(&copy->ledger, &record->header, 1);
    return to->error;
}

static int walk(struct copy *copy, visitor *visit, size_t rows_per_commit)
{
    uint64_t row;
    larder_bytes form, bytes;
    struct record record;
    size_t count = 0;
    int result;
    for (uint64_t from = 0; (result = store_log_next(&copy->from, from, &row, &form)) == LARDER_OK;
         from = row + 1) {
        if (store_entry_get(&copy->from, form.data, form.size, &bytes) != LARDER_OK ||
            !record_decode(bytes.data, bytes.size, &record) || record.header.row != row) {
            continue;
        }
        result = visit(copy, row, &form, &bytes, &record);
        if (result == LARDER_OK && rows_per_commit > 0 && ++count % rows_per_commit == 0) {
            result = store_write_commit(&copy->to);
            if (result == LARDER_OK) {
                result = store_write_begin(copy->target, &copy->to);
            }
        }
        if (result != LARDER_OK) {
            return result;
        }
    }
    return result == LARDER_MISS ? LARDER_OK : result;
}

static int fill_generation(struct copy *copy)
{
    const struct control_life *life = copy->target->life;
    uint64_t size = atomic_load(&life->map_size);
    uint64_t room = size - evict_reserve(life, NULL) * copy->target->control->page_size;
    int result = walk(copy, weigh, 0);
    if (result != LARDER_OK) {
        return result;
    }
    if (copy->needed_bytes > room) {
        return error_set(LARDER_EFULL,
                         "a map of %" PRIu64
                         " bytes cannot hold what Redis has not got yet (%" PRIu64 " bytes)",
                         size, copy->needed_bytes);
    }
    uint64_t all = copy->needed_bytes + copy->clean_bytes;
    copy->skip_bytes = all > room ? all - room : 0;
    result = store_write_begin(copy->target, &copy->to);
    if (result == LARDER_OK) {
        result = walk(copy, copy_entry, ROWS_PER_COMMIT);
    }
    if (result == LARDER_OK) {
        return store_write_commit(&copy->to);
    }
    store_write_abort(&copy->to);
    return result;
}

/* The hot set keeps its share of the map. */
static uint64_t hot_size_for(struct control_life *life, uint64_t map_size)
{
    double share = (double)atomic_load(&life->hot_size) / (double)atomic_load(&life->map_size);
    double size = share * (double)map_size;
    return size < (double)HOTSET_SIZE_MAX ? (uint64_t)size / HOTSET_PAGE * HOTSET_PAGE
                                          : HOTSET_SIZE_MAX;
}

int generation_resize(struct map *map, uint64_t map_size)
{
    struct control *control = map_control(map);
    struct store *store = atomic_load(&map->store);
    uint64_t word = store->generation;
    char path[MAP_PATH_MAX + 128];
    struct copy copy = {.skip_bytes = 0};
    if (atomic_load(&control->generation) != word ||
        !ledger_read(store->life, store_last_transaction(store), &copy.ledger)) {
        return error_set(LARDER_EBUSY, "the map is being replaced");
    }
    copy.ledger.values = copy.ledger.tombstones = copy.ledger.dirty = 0;
    copy.ledger.small = copy.ledger.returned = 0;
    struct control_life *life = control_life_of(control, word + 1);
    atomic_store(&life->generation, word + 1);
    atomic_store(&life->map_size, map_size);
    atomic_store(&life->max_value, handle_value_limit(0, map_size));
    atomic_store(&life->hot_size, hot_size_for(store->life, map_size));
    atomic_store(&life->max_entries, atomic_load(&store->life->max_entries));
    int result = generation_prepare(map, word + 1, map_size, path, sizeof path);
    if (result != LARDER_OK) {
        return result;
    }
    result = store_open(path, control, word + 1, &copy.target);
    if (result == LARDER_OK) {
        result = store_reader_open(store, &copy.from, READER_WAIT_MS);
    }
    if (result == LARDER_OK) {
        result = store_read_begin(&copy.from, NULL);
        if (result == LARDER_OK) {
            result = fill_generation(&copy);
            atomic_store(&copy.ledger.transaction, store_last_transaction(copy.target));
            store_read_end(&copy.from);
        }
        store_reader_close(&copy.from);
    }
    store_close(&copy.target);
    if (result != LARDER_OK) {
        generation_abandon(map, word + 1);
        return result;
    }
    return generation_publish(map, word, &copy.ledger);
}

/* What a dead writer had begun or taken belongs to this generation: a write finishes it. */
static void settle_the_dead(const larder *handle)
{
    struct writer writer;
    if (writer_begin(&writer, handle, MAP_OPEN_WAIT_MS) == LARDER_OK) {
        (void)writer_commit(&writer);
    }
}

int upkeep_resize(larder *handle, uint64_t map_size, bool *changed)
{
    *changed = false;
    int result = handle_enter_write(handle);
    if (result == LARDER_OK) {
        result = handle_check_size(map_size);
    }
    if (result != LARDER_OK) {
        return result;
    }
    struct map *map = handle->map;
    settle_the_dead(handle);
    registry_lock();
    result = map_refresh_locked(map, MAP_OPEN_WAIT_MS);
    if (result == LARDER_OK && atomic_load(&control_life(map_control(map))->map_size) != map_size) {
        result = map_enter_gates(map);
        if (result == LARDER_OK) {
            result = atomic_load(&map_control(map)->recovery_due) == 0
                         ? generation_resize(map, map_size)
                         : error_set(LARDER_EBUSY, "a writer died just now: try again");
            *changed = result == LARDER_OK;
            map_leave_gates(map);
        }
        if (result == LARDER_OK) {
            result = map_refresh_locked(map, MAP_OPEN_WAIT_MS);
        }
    }
    if (result == LARDER_OK) {
        handle->max_value = handle_value_limit(
            handle->wanted_value, atomic_load(&control_life(map_control(map))->map_size));
    }
    registry_unlock();
    return result;
}
