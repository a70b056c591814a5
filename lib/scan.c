/* scan.c: walking live entries in key order, a bounded piece and one snapshot a call.
 */
#include <stdlib.h>
#include <string.h>

#include "handle.h"
#include "lookup.h"
#include "pattern.h"
#include "scan.h"
#include "stats.h"
#include "writer.h"

enum { SCAN_LOOKS_MAX = 16384, SCAN_BYTES_MAX = 64 << 20 };

/* A growing block that everything a scan brings is copied to; offsets until it stops growing. */
struct arena {
    uint8_t *bytes;
    size_t used, size;
};

static bool arena_room(struct arena *arena, size_t more)
{
    if (arena->size - arena->used >= more) {
        return true;
    }
    size_t size = arena->size == 0 ? 4096 : arena->size;
    while (size - arena->used < more) {
        size *= 2;
    }
    uint8_t *bytes = realloc(arena->bytes, size);
    if (bytes == NULL) {
        return false;
    }
    arena->bytes = bytes;
    arena->size = size;
    return true;
}

struct scan {
    const struct larder *handle;
    struct transaction *t;
    struct control *control;
    const struct scan_filter *filter;
    uint32_t flags;
    bool end;
    struct arena arena;
    size_t mark_count; /* pending invalidations, copied before the snapshot was taken */
    struct removal_mark marks[CONTROL_PENDING_ROWS];
};

static uint64_t dead_before(const struct scan *scan, uint64_t hash)
{
    uint64_t dead = 0;
    for (size_t i = 0; i < scan->mark_count; i++) {
        if (scan->marks[i].hash == hash && scan->marks[i].clock > dead) {
            dead = scan->marks[i].clock;
        }
    }
    return dead;
}

static bool carries(const struct record *record, const uint8_t *mark)
{
    for (size_t i = 0; i < record->header.mark_count; i++) {
        if (memcmp(record->marks + i * RECORD_MARK_SIZE, mark, RECORD_MARK_SIZE) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_wanted(const struct scan_filter *filter, const struct record *record,
                      const uint8_t *key, size_t size)
{
    const larder_bytes *prefix = &filter->prefix;
    return size >= prefix->size &&
           (prefix->size == 0 || memcmp(key, prefix->data, prefix->size) == 0) &&
           (filter->mark == NULL || carries(record, filter->mark)) &&
           (filter->glob == NULL || pattern_matches(*filter->glob, key, size));
}

/* Past the range of forms that can begin with the prefix. */
static bool beyond(const larder_bytes *form, const uint8_t *bound, size_t bound_size)
{
    return form->size < bound_size || memcmp(form->data, bound, bound_size) != 0;
}

/* Copy an entry if it is live and wanted: OK, MISS (pass over), error. */
static int take(struct scan *scan, const larder_bytes *form, const larder_bytes *bytes,
                larder_item *item)
{
    struct record record;
    bool expired;
    if (!record_decode(bytes->data, bytes->size, &record)) {
        stats_count(map_stats(scan->handle->map), STATS_READ_CORRUPT);
        return LARDER_MISS;
    }
    const uint8_t *key =
        record.long_key != NULL ? record.long_key : (const uint8_t *)form->data + 1;
    size_t key_size = record.long_key != NULL ? record.long_key_size : form->size - 1;
    if (!is_wanted(scan->filter, &record, key, key_size)) {
        return LARDER_MISS;
    }
    uint64_t hash = key_hash(key, key_size);
    int outcome = lookup_judge(scan->control, &record, hash, dead_before(scan, hash), 0, &expired);
    if (outcome == LARDER_MISS && expired && scan->filter->past) {
        outcome = LARDER_STALE;
    }
    if (outcome == LARDER_MISS || (scan->flags & SCAN_COUNT) != 0) {
        return outcome == LARDER_MISS ? LARDER_MISS : LARDER_OK;
    }
    bool with_value = (scan->flags & LARDER_SCAN_VALUES) != 0;
    size_t value_size = with_value ? record.value_size : 0;
    if (!arena_room(&scan->arena, key_size + value_size)) {
        return error_set(LARDER_ENOMEM, "no memory for a scan of %zu bytes", scan->arena.used);
    }
    uint8_t *at = scan->arena.bytes + scan->arena.used;
    memcpy(at, key, key_size);
    if (value_size > 0 && lookup_copy(scan->t, &record, at + key_size) != LARDER_OK) {
        stats_count(map_stats(scan->handle->map), STATS_READ_CORRUPT);
        return LARDER_MISS;
    }
    *item = (larder_item){.key_size = key_size, .value_size = value_size, .outcome = outcome};
    lookup_info(&record, scan->t->store->control->home, &item->info);
    scan->arena.used += key_size + value_size;
    return LARDER_OK;
}

static int walk(struct scan *scan, larder_cursor *cursor, larder_item *items, size_t max,
                size_t *found)
{
    uint8_t bound[KEY_FORM_MAX];
    size_t bound_size =
        key_prefix_bound(bound, scan->filter->prefix.data, scan->filter->prefix.size);
    uint8_t at[KEY_FORM_MAX];
    size_t at_size = bound_size;
    bool after = false;
    memcpy(at, bound, bound_size);
    if (cursor->size > 0) {
        at_size = cursor->size;
        memcpy(at, cursor->position, at_size);
        after = true;
    }
    for (size_t looks = 0; *found < max && looks < SCAN_LOOKS_MAX; looks++) {
        larder_bytes form, bytes;
        int result = store_entry_next(scan->t, at, at_size, after, &form, &bytes);
        if (result == LARDER_MISS ||
            (result == LARDER_OK && (form.size > sizeof at || beyond(&form, bound, bound_size)))) {
            scan->end = true;
            break;
        }
        if (result != LARDER_OK) {
            return result;
        }
        memcpy(at, form.data, form.size);
        at_size = form.size;
        after = true;
        result = take(scan, &form, &bytes, items == NULL ? NULL : &items[*found]);
        if (result < 0) {
            return result;
        }
        *found += result == LARDER_OK;
        if (scan->arena.used > SCAN_BYTES_MAX) {
            break;
        }
    }
    if (after) {
        cursor->size = (uint32_t)at_size;
        memcpy(cursor->position, at, at_size);
    }
    return LARDER_OK;
}

/* One piece, in a snapshot of its own. */
static int piece(struct scan *scan, struct map *map, larder_cursor *cursor, larder_item *items,
                 size_t max, size_t *found)
{
    int result = LARDER_EBUSY;
    for (int tries = 0; tries < LOOKUP_TRIES; tries++) {
        scan->control = map_control(map);
        scan->mark_count = removal_copy_pending(scan->control, scan->marks);
        result = registry_snapshot(map, NULL, &scan->t);
        if (result != LARDER_OK || scan->t->store->control == scan->control) {
            break;
        }
        store_read_end(scan->t); /* the segment was replaced in between: ask the new one */
        result = LARDER_EBUSY;
    }
    if (result == LARDER_OK) {
        result = walk(scan, cursor, items, max, found);
        store_read_end(scan->t);
    }
    return result;
}

int scan_run(larder *handle, larder_cursor *cursor, const struct scan_filter *filter,
             larder_item *items, size_t max, uint32_t flags, size_t *found, void **memory)
{
    struct scan scan;
    int result;
    memset(&scan, 0, offsetof(struct scan, marks));
    scan.handle = handle;
    scan.filter = filter;
    scan.flags = flags;
    *found = 0;
    do {
        result = piece(&scan, handle->map, cursor, items, max, found);
    } while (result == LARDER_OK && *found == 0 && !scan.end && (flags & SCAN_ONE_PIECE) == 0);
    if (result == LARDER_OK && *found == 0 && !scan.end) {
        result = LARDER_MISS;
    }
    if (result != LARDER_OK) {
        free(scan.arena.bytes);
        *found = 0;
        return result;
    }
    if ((flags & SCAN_COUNT) != 0) {
        return LARDER_OK;
    }
    uint8_t *at = scan.arena.bytes;
    for (size_t i = 0; i < *found; i++) {
        items[i].key = at;
        items[i].value = (flags & LARDER_SCAN_VALUES) != 0 ? at + items[i].key_size : NULL;
        at += items[i].key_size + items[i].value_size;
    }
    *memory = scan.arena.bytes;
    return LARDER_OK;
}

/* ---- The public forms -------------------------------------------------------------------------
 */

static int check_scan(const char *name, const larder_cursor *cursor, const larder_item *items,
                      size_t max, uint32_t flags, size_t *found, void **memory)
{
    if (cursor == NULL || items == NULL || found == NULL || memory == NULL ||
        (flags & ~(uint32_t)LARDER_SCAN_VALUES) != 0 || cursor->size > KEY_FORM_MAX ||
        cursor->reserved != 0 || (cursor->size > 0 && cursor->position[0] != KEY_TAG) || max == 0 ||
        max > LARDER_MANY_MAX) {
        return error_set(LARDER_EINVAL,
                         "%s(): a missing place, an unknown flag, a damaged cursor, or %zu items "
                         "(1 to %u)",
                         name, max, LARDER_MANY_MAX);
    }
    *found = 0;
    *memory = NULL;
    return LARDER_OK;
}

int larder_scan(larder *handle, larder_cursor *cursor, larder_bytes prefix, larder_item *items,
                size_t max, uint32_t flags, size_t *found, void **memory)
{
    struct scan_filter filter = {.prefix = prefix};
    int result = handle_enter(handle);
    if (result == LARDER_OK) {
        result = check_scan("larder_scan", cursor, items, max, flags, found, memory);
    }
    if (result == LARDER_OK &&
        ((prefix.data == NULL && prefix.size > 0) || prefix.size > LARDER_KEY_MAX)) {
        result = error_set(LARDER_EINVAL, "larder_scan(): a prefix of %zu bytes, or none at all",
                           prefix.size);
    }
    return result == LARDER_OK ? scan_run(handle, cursor, &filter, items, max, flags, found, memory)
                               : result;
}

int larder_scan_match(larder *handle, larder_cursor *cursor, larder_bytes glob, larder_item *items,
                      size_t max, uint32_t flags, size_t *found, void **memory)
{
    uint8_t literal[LARDER_GLOB_MAX];
    int result = handle_enter(handle);
    if (result == LARDER_OK) {
        result = check_scan("larder_scan_match", cursor, items, max, flags, found, memory);
    }
    if (result == LARDER_OK) {
        result = pattern_check(glob);
    }
    if (result != LARDER_OK) {
        return result;
    }
    struct scan_filter filter = {.prefix = {literal, pattern_literal_prefix(glob, literal)},
                                 .glob = &glob};
    return scan_run(handle, cursor, &filter, items, max, flags, found, memory);
}
