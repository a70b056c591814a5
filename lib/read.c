/* read.c: larder_get and its kin. A hit: fork mark, hash, barriers and pending rows, hot set, copy;
 * without a copy there: snapshot, one descent, checks, copy. No lock, no system call, no allocation
 * (but get_alloc's own). What must see one snapshot (many keys, views) asks the tree alone.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "asking.h"
#include "chunks.h"
#include "clock.h"
#include "expiry.h"
#include "handle.h"
#include "lookup.h"
#include "sample.h"
#include "touch.h"

enum { VIEWS_MAX = 64 };

/* Ask for what is dead, then take the snapshot, both of one control segment. */
static int snapshot(struct map *map, struct lookup *lookups, size_t count, struct stats_slot *stats,
                    struct transaction **t)
{
    for (int tries = 0; tries < LOOKUP_TRIES; tries++) {
        struct control *control = map_control(map);
        for (size_t i = 0; i < count; i++) {
            lookups[i].dead_before = removal_pending_clock(control, lookups[i].key.hash);
        }
        int result = registry_snapshot(map, stats, t);
        if (__builtin_expect(result != LARDER_OK || (*t)->store->control == control, 1)) {
            return result;
        }
        store_read_end(*t); /* the segment was replaced in between: ask the new one */
        stats = NULL;
    }
    return error_set(LARDER_EBUSY, "the map is being replaced");
}

/* Whatever keeps us from looking, to the caller the cache just does not have it. */
static int unable(struct map *map, int reason)
{
    if (reason == LARDER_ENAMESPACE) {
        return reason;
    }
    struct stats_slot *stats = map_stats(map);
    stats_count(stats, reason == LARDER_EBUSY ? STATS_READ_BUSY : STATS_READ_CORRUPT);
    stats_count(stats, STATS_LOOKUPS);
    stats_count(stats, STATS_MISSES);
    return LARDER_MISS;
}

/* A record that was found: a copy from the hot set, or one that stands in a snapshot. */
struct found {
    struct lookup lookup;
    struct transaction *snapshot; /* NULL: none is held */
    uint8_t copy[HOTSET_COPY_MAX];
};

/* The hot set, before any snapshot: OK, STALE, ABSENT, MISS, or LOOKUP_COLD. */
static int find_hot(const struct larder *handle, struct found *found, unsigned flags)
{
    struct lookup *l = &found->lookup;
    struct transaction *t;
    if (__builtin_expect(registry_reader(handle->map, &t) != LARDER_OK, 0)) {
        return LOOKUP_COLD; /* why, the snapshot will tell */
    }
    /* Among large values a look at the hot set is in vain, and one more wait for memory: a tenth of
     * a get of 16 KiB (bench_peers). */
    if (__builtin_expect(t->large_in_row >= LOOKUP_LARGE_IN_ROW, 0)) {
        return LOOKUP_COLD;
    }
    hotset_prefetch(&t->store->hot, l->key.hash);
    struct control *control = map_control(handle->map);
    l->dead_before = removal_pending_clock(control, l->key.hash);
    /* The generation once more: a pending row that is gone by now may have been made durable in the
     * next one, and the copies here know nothing of that. acquire: not before the rows. */
    if (__builtin_expect(t->store->control != control ||
                             atomic_load_explicit(&control->generation, memory_order_acquire) !=
                                 t->store->generation,
                         0)) {
        return LOOKUP_COLD;
    }
    return lookup_find_hot(handle, t, l, found->copy, flags);
}

/* Key, barriers, hot set or snapshot, record: then the caller copies and calls finish(). With a
 * result that is not lookup_found() no snapshot is held. */
static int begin(const struct larder *handle, const void *key, size_t key_size, struct found *found,
                 unsigned flags)
{
    struct lookup *l = &found->lookup;
    found->snapshot = NULL;
    int result = handle_enter(handle);
    if (__builtin_expect(result == LARDER_OK, 1)) {
        result = key_begin(&l->key, key, key_size);
    }
    if (__builtin_expect(result != LARDER_OK, 0)) {
        return result < 0 ? result : LARDER_ESYSTEM; /* outcomes come from the map alone */
    }
    result = find_hot(handle, found, flags);
    if (result != LOOKUP_COLD) {
        return result;
    }
    key_shape(&l->key);
    struct stats_slot *stats = map_stats(handle->map);
    struct transaction *t;
    result = snapshot(handle->map, l, 1, (flags & LARDER_PEEK) != 0 ? NULL : stats, &t);
    if (__builtin_expect(result != LARDER_OK, 0)) {
        return unable(handle->map, result);
    }
    result = lookup_find(handle, t, l, flags);
    if (lookup_found(result)) {
        found->snapshot = t;
    } else {
        store_read_end(t);
    }
    return result;
}

static int copy_value(const struct found *found, void *buffer)
{
    return lookup_copy(found->snapshot, &found->lookup.record, buffer);
}

static void finish(struct found *found)
{
    if (found->snapshot != NULL) {
        store_read_end(found->snapshot);
    }
}

static int check_read(const struct larder *handle, const larder_read *read)
{
    static const uint64_t none[sizeof read->reserved / sizeof read->reserved[0]];
    const uint32_t known = LARDER_PEEK | LARDER_ACCEPT_STALE | LARDER_EXTEND;
    int64_t expires_at_ms;
    if ((read->flags & ~known) != 0 || read->reserved0 != 0 ||
        memcmp(read->reserved, none, sizeof none) != 0) {
        return error_set(LARDER_EINVAL, "unknown members or flags of larder_read are not 0");
    }
    if (read->read_through_ms != 0) {
        int valid = asking_check_budget(read->read_through_ms);
        if (valid != LARDER_OK) {
            return valid;
        }
    }
    if ((read->flags & LARDER_EXTEND) == 0) {
        return read->extend.kind == LARDER_EXPIRY_DEFAULT && read->extend.ms == 0
                   ? LARDER_OK
                   : error_set(LARDER_EINVAL, "larder_read.extend without LARDER_EXTEND");
    }
    if ((read->flags & LARDER_PEEK) != 0) {
        return error_set(LARDER_EINVAL, "LARDER_PEEK and LARDER_EXTEND contradict each other");
    }
    int result = handle_enter_write(handle);
    return result == LARDER_OK ? expiry_resolve(&read->extend, clock_wall_ms(), &expires_at_ms)
                               : result;
}

static int get_found(larder *handle, const void *key, size_t key_size, void *buffer,
                     size_t buffer_size, larder_info *info, const larder_read *read, unsigned flags)
{
    struct found found;
    int result = begin(handle, key, key_size, &found, flags);
    if (!lookup_found(result)) {
        return result;
    }
    const struct record *record = &found.lookup.record;
    if (info != NULL) {
        lookup_info(record, map_control(handle->map)->home, info);
    }
    if (__builtin_expect(record->value_size > buffer_size, 0)) {
        result = error_set(LARDER_ESIZE, "the value has %zu bytes, the buffer %zu",
                           record->value_size, buffer_size);
    } else if (record->value_size > 0 && copy_value(&found, buffer) != LARDER_OK) {
        stats_count(map_stats(handle->map), STATS_READ_CORRUPT);
        result = LARDER_MISS;
    }
    finish(&found);
    if (__builtin_expect((flags & LARDER_EXTEND) != 0, 0)) {
        if (lookup_found(result)) {
            touch_extend(handle, key, key_size, &read->extend,
                         info != NULL ? &info->expires_ms : NULL);
        }
    } else if (__builtin_expect(lookup_found(result), 1)) {
        touch_after_read(handle, &found.lookup, flags);
    }
    return result;
}

static int get_with(larder *handle, const void *key, size_t key_size, void *buffer,
                    size_t buffer_size, larder_info *info, const larder_read *read)
{
    unsigned flags = 0;
    int64_t read_through_ms = 0;
    if (read != NULL) {
        int valid = check_read(handle, read);
        if (valid != LARDER_OK) {
            return valid;
        }
        flags = read->flags;
        read_through_ms = read->read_through_ms;
    }
    if (__builtin_expect(buffer == NULL && buffer_size != 0, 0)) {
        return error_set(LARDER_EINVAL, "no buffer, but a size of %zu", buffer_size);
    }
    int result = get_found(handle, key, key_size, buffer, buffer_size, info, read, flags);
    if (__builtin_expect(result == LARDER_MISS && read_through_ms != 0, 0) &&
        asking_read_through(handle, key, key_size, read_through_ms)) {
        /* PEEK: it has been counted, as the miss that it was */
        result =
            get_found(handle, key, key_size, buffer, buffer_size, info, read, flags | LARDER_PEEK);
    }
    return result;
}

int larder_get_with(larder *handle, const void *key, size_t key_size, void *buffer,
                    size_t buffer_size, larder_info *info, const larder_read *read)
{
    /* A read that may wait for Redis tells nothing of how long reads of the map take. */
    bool apart = read != NULL && ((read->flags & LARDER_PEEK) != 0 || read->read_through_ms != 0);
    uint64_t began = apart ? 0 : sample_begin_read();
    int result = get_with(handle, key, key_size, buffer, buffer_size, info, read);
    return __builtin_expect(began == 0, 1) ? result
                                           : sample_end_read(handle, began, key, key_size, result);
}

int larder_get(larder *handle, const void *key, size_t key_size, void *buffer, size_t buffer_size,
               larder_info *info)
{
    return larder_get_with(handle, key, key_size, buffer, buffer_size, info, NULL);
}

static int get_alloc(larder *handle, const void *key, size_t key_size, void **value,
                     size_t *value_size, larder_info *info)
{
    struct found found;
    if (value == NULL || value_size == NULL) {
        return error_set(LARDER_EINVAL, "larder_get_alloc() without a place for the value");
    }
    *value = NULL;
    *value_size = 0;
    int result = begin(handle, key, key_size, &found, 0);
    if (!lookup_found(result)) {
        return result;
    }
    size_t size = found.lookup.record.value_size;
    void *memory = malloc(size == 0 ? 1 : size);
    if (memory == NULL) {
        result = error_set(LARDER_ENOMEM, "no memory for a value of %zu bytes", size);
    } else if (copy_value(&found, memory) != LARDER_OK) {
        stats_count(map_stats(handle->map), STATS_READ_CORRUPT);
        result = LARDER_MISS;
    }
    finish(&found);
    if (result != LARDER_OK && result != LARDER_ABSENT) {
        free(memory);
        return result;
    }
    touch_after_read(handle, &found.lookup, 0);
    if (info != NULL) {
        lookup_info(&found.lookup.record, map_control(handle->map)->home, info);
    }
    if (result == LARDER_ABSENT) { /* nothing is known to be there: nothing to release either */
        free(memory);
        return result;
    }
    *value = memory;
    *value_size = size;
    return result;
}

int larder_get_alloc(larder *handle, const void *key, size_t key_size, void **value,
                     size_t *value_size, larder_info *info)
{
    uint64_t began = sample_begin_read();
    int result = get_alloc(handle, key, key_size, value, value_size, info);
    return __builtin_expect(began == 0, 1) ? result
                                           : sample_end_read(handle, began, key, key_size, result);
}

void larder_free(void *memory)
{
    free(memory);
}

int larder_has(larder *handle, const void *key, size_t key_size)
{
    uint64_t began = sample_begin_read();
    struct found found;
    int result = begin(handle, key, key_size, &found, 0);
    finish(&found);
    return __builtin_expect(began == 0, 1) ? result
                                           : sample_end_read(handle, began, key, key_size, result);
}

/* ---- Views ------------------------------------------------------------------------------------
 */

struct view {
    struct reader *reader;
    struct iovec parts[];
};

static int fill_parts(struct transaction *t, const struct record *record, struct view *view)
{
    if (record->chunk_count == 0) {
        view->parts[0] = (struct iovec){.iov_base = (void *)(uintptr_t)record->value,
                                        .iov_len = record->value_size};
        return LARDER_OK;
    }
    for (size_t i = 0; i < record_parts(record); i++) {
        larder_bytes part;
        int result = chunks_part(t, record, i, &part);
        if (result != LARDER_OK) {
            return result;
        }
        view->parts[i] =
            (struct iovec){.iov_base = (void *)(uintptr_t)part.data, .iov_len = part.size};
    }
    return LARDER_OK;
}

static int take_view(struct map *map)
{
    if (atomic_fetch_add(&map->views, 1) >= VIEWS_MAX) {
        (void)atomic_fetch_sub(&map->views, 1);
        return error_set(LARDER_ELIMIT, "%d views are borrowed already", VIEWS_MAX);
    }
    return LARDER_OK;
}

int larder_borrow(larder *handle, const void *key, size_t key_size, larder_view *out)
{
    struct lookup l;
    struct reader *reader = NULL;
    struct view *view = NULL;
    if (out == NULL) {
        return error_set(LARDER_EINVAL, "larder_borrow() without a place for the view");
    }
    *out = (larder_view){.parts = NULL};
    int result = handle_enter(handle);
    if (result == LARDER_OK) {
        result = key_make(&l.key, key, key_size);
    }
    if (result == LARDER_OK) {
        result = take_view(handle->map);
    }
    if (result != LARDER_OK) {
        return result;
    }
    struct control *control = map_control(handle->map);
    l.dead_before = removal_pending_clock(control, l.key.hash);
    result = registry_view_begin(handle->map, map_stats(handle->map), &reader);
    if (result == LARDER_OK && reader->transaction.store->control != control) {
        l.dead_before = UINT64_MAX; /* the segment was replaced in between: a miss is never wrong */
    }
    if (result != LARDER_OK) {
        stats_count(map_stats(handle->map), STATS_READ_BUSY);
        (void)atomic_fetch_sub(&handle->map->views, 1);
        return result == LARDER_ENOMEM || result == LARDER_ELIMIT || result == LARDER_ENAMESPACE
                   ? result
                   : LARDER_MISS;
    }
    result = lookup_find(handle, &reader->transaction, &l, 0);
    if (result == LARDER_ABSENT) { /* nothing is there to be looked at, nor to be released */
        lookup_info(&l.record, control->home, &out->info);
        touch_after_read(handle, &l, 0);
    } else if (result == LARDER_OK) {
        size_t count = record_parts(&l.record);
        view = malloc(sizeof *view + count * sizeof view->parts[0]);
        if (view == NULL) {
            result = error_set(LARDER_ENOMEM, "out of memory");
        } else if (fill_parts(&reader->transaction, &l.record, view) != LARDER_OK) {
            stats_count(map_stats(handle->map), STATS_READ_CORRUPT);
            result = LARDER_MISS;
        } else {
            view->reader = reader;
            out->parts = view->parts;
            out->part_count = l.record.value_size == 0 ? 0 : count;
            out->internal[0] = view;
            lookup_info(&l.record, control->home, &out->info);
            touch_after_read(handle, &l, 0);
            return result;
        }
    }
    free(view);
    registry_view_end(&reader);
    (void)atomic_fetch_sub(&handle->map->views, 1);
    return result;
}

void larder_release(larder *handle, larder_view *out)
{
    if (out == NULL || out->internal[0] == NULL || handle_enter(handle) != LARDER_OK) {
        return;
    }
    struct view *view = out->internal[0];
    *out = (larder_view){.parts = NULL};
    bool own = atomic_load(&view->reader->map) != NULL; /* not a view of the parent's */
    registry_view_end(&view->reader);
    if (own) {
        (void)atomic_fetch_sub(&handle->map->views, 1);
    }
    free(view);
}

/* ---- Many keys --------------------------------------------------------------------------------
 */

/* small: OVERWRITE_MAX bytes for each. Returns what the values found take. */
static size_t find_many(const struct larder *handle, struct transaction *t, struct lookup *lookups,
                        larder_item *items, size_t count, uint8_t *small)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        items[i].outcome = lookup_find(handle, t, &lookups[i], 0);
        if (items[i].outcome == LARDER_OK || items[i].outcome == LARDER_ABSENT) {
            lookup_keep(&lookups[i], small + i * OVERWRITE_MAX);
            lookup_info(&lookups[i].record, t->store->control->home, &items[i].info);
            bytes += lookups[i].record.value_size;
        }
    }
    return bytes;
}

int larder_get_many(larder *handle, larder_item *items, size_t count, void **memory)
{
    struct lookup *lookups = NULL;
    struct transaction *t = NULL;
    int result = handle_enter(handle);
    if (result != LARDER_OK) {
        return result;
    }
    if (memory == NULL || (items == NULL && count > 0) || count > LARDER_MANY_MAX) {
        return error_set(LARDER_EINVAL, "larder_get_many() of %zu items: at most %u, with memory",
                         count, LARDER_MANY_MAX);
    }
    *memory = NULL;
    if (count == 0) {
        return LARDER_OK;
    }
    lookups = malloc(count * (sizeof *lookups + OVERWRITE_MAX));
    if (lookups == NULL) {
        return error_set(LARDER_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < count && result == LARDER_OK; i++) {
        items[i].value = NULL;
        items[i].value_size = 0;
        items[i].outcome = LARDER_MISS;
        result = key_make(&lookups[i].key, items[i].key, items[i].key_size);
    }
    if (result != LARDER_OK) {
        free(lookups);
        return result;
    }
    stats_add(map_stats(handle->map), STATS_LOOKUPS, count);
    if (snapshot(handle->map, lookups, count, NULL, &t) != LARDER_OK) {
        stats_count(map_stats(handle->map), STATS_READ_BUSY);
        stats_add(map_stats(handle->map), STATS_MISSES, count);
        free(lookups);
        return LARDER_OK; /* all of them are misses */
    }
    size_t bytes = find_many(handle, t, lookups, items, count, (uint8_t *)&lookups[count]);
    uint8_t *at = malloc(bytes == 0 ? 1 : bytes);
    *memory = at;
    if (at == NULL) {
        result = error_set(LARDER_ENOMEM, "no memory for values of %zu bytes", bytes);
    }
    for (size_t i = 0; i < count && result == LARDER_OK; i++) {
        if (items[i].outcome != LARDER_OK && items[i].outcome != LARDER_ABSENT) {
            continue;
        }
        if (lookup_copy(t, &lookups[i].record, at) != LARDER_OK) {
            stats_count(map_stats(handle->map), STATS_READ_CORRUPT);
            items[i].outcome = LARDER_MISS;
            continue;
        }
        items[i].value = at;
        items[i].value_size = lookups[i].record.value_size;
        at += items[i].value_size;
    }
    store_read_end(t);
    for (size_t i = 0; i < count; i++) {
        if (lookup_found(items[i].outcome)) {
            touch_after_read(handle, &lookups[i], 0);
        }
    }
    free(lookups);
    return result;
}
