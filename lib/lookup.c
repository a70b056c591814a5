/* lookup.c: finding a live record, counting what came of it, describing it.
 */
#include "lookup.h"

#include <string.h>

#include "chunks.h"
#include "copy.h"
#include "evict.h"
#include "stats.h"
#include "store.h"

static bool damaged(const struct larder *handle, struct transaction *t, const struct lookup *l)
{
    if (__builtin_expect((handle->flags & LARDER_VERIFY) == 0, 1)) {
        return false;
    }
    return !record_intact(l->bytes.data, l->bytes.size, l->key.hash) ||
           (l->record.chunk_count > 0 && chunks_verify(t, &l->record) != LARDER_OK);
}

/* What came of a lookup that was no hit. */
static void count_other(struct stats_slot *stats, int result, bool expired)
{
    stats_count(stats, result == LARDER_ABSENT  ? STATS_ABSENT
                       : result == LARDER_STALE ? STATS_STALE
                                                : STATS_MISSES);
    if (result == LARDER_MISS && expired) {
        stats_count(stats, STATS_EXPIRED);
    }
}

static struct hotset_key hot_key(const struct key *key)
{
    return (struct hotset_key){.hash = key->hash, .data = key->data, .size = key->size};
}

int lookup_find_hot(const struct larder *handle, struct transaction *t, struct lookup *l,
                    uint8_t *copy, unsigned flags)
{
    bool expired = false;
    bool peek = (flags & LARDER_PEEK) != 0;
    struct hotset_key key = hot_key(&l->key);
    size_t size;
    const uint8_t *bytes = hotset_find(&t->store->hot, &key, copy, &size, peek);
    if (bytes == NULL ||
        __builtin_expect(!record_decode(bytes, size, &l->record) || l->record.chunk_count > 0, 0)) {
        return LOOKUP_COLD; /* damaged: the tree may know better. No copy has chunks, and nobody
                               who finds one holds a snapshot to look for them */
    }
    l->bytes = (larder_bytes){.data = bytes, .size = size};
    if (__builtin_expect(damaged(handle, t, l), 0)) {
        return LOOKUP_COLD;
    }
    int result =
        lookup_judge(t->store->control, &l->record, l->key.hash, l->dead_before, flags, &expired);
    if (peek) {
        return result;
    }
    struct stats_slot *stats = map_stats(handle->map);
    if (__builtin_expect(result == LARDER_OK, 1)) {
        stats_count(stats, STATS_HOT_HITS);
        return result;
    }
    /* A dead or stale copy is no hit: counted as one, it made the hot set's part of the hits more
     * than all of them. */
    stats_count(stats, result == LARDER_ABSENT ? STATS_HOT_HITS : STATS_LOOKUPS);
    count_other(stats, result, expired);
    return result;
}

/* A record that was asked for, for the hot set. What nobody had asked for before must not push out
 * what was: a scan passes by. */
static void offer(const struct transaction *t, const struct lookup *l, bool known)
{
    if (!l->key.is_long && l->record.chunk_count == 0) {
        struct hotset_key key = hot_key(&l->key);
        hotset_offer(&t->store->hot, &key, l->bytes.data, l->bytes.size, t->changes,
                     known ? HOTSET_SOMETIMES : HOTSET_IF_ROOM);
    }
}

int lookup_find(const struct larder *handle, struct transaction *t, struct lookup *l,
                unsigned flags)
{
    struct stats_slot *stats = map_stats(handle->map);
    bool expired = false;
    if (__builtin_expect(t->large_in_row < LOOKUP_LARGE_IN_ROW, 1)) { /* else pages go first */
        evict_prefetch(t->store, l->key.hash);
    }
    int result = store_entry_get(t, l->key.form, l->key.form_size, &l->bytes);
    if (__builtin_expect(result == LARDER_OK, 1)) {
        if (__builtin_expect(!record_decode(l->bytes.data, l->bytes.size, &l->record) ||
                                 damaged(handle, t, l),
                             0)) {
            stats_count(stats, STATS_READ_CORRUPT);
            result = LARDER_MISS;
        } else if (__builtin_expect(!record_is_of(&l->record, &l->key), 0)) {
            result = LARDER_MISS;
        } else {
            if (l->record.chunk_count > 0) {
                chunks_ask(t, &l->record);
            }
            result = lookup_judge(t->store->control, &l->record, l->key.hash, l->dead_before, flags,
                                  &expired);
        }
    } else if (result < 0) {
        stats_count(stats, STATS_READ_CORRUPT);
        result = LARDER_MISS;
    }
    if ((flags & LARDER_PEEK) != 0) {
        return result;
    }
    if (__builtin_expect(lookup_found(result), 1)) {
        offer(t, l, evict_touch(t->store, l->key.hash));
        bool large = l->record.chunk_count > 0 || l->bytes.size > HOTSET_RECORD_MAX;
        t->large_in_row = large ? t->large_in_row + 1 : 0;
    }
    if (__builtin_expect(result != LARDER_OK, 0)) {
        count_other(stats, result, expired);
    }
    return result;
}

void lookup_keep(struct lookup *l, uint8_t *room)
{
    if (l->bytes.size <= OVERWRITE_MAX) {
        memcpy(room, l->bytes.data, l->bytes.size);
        l->bytes.data = room;
        (void)record_decode(room, l->bytes.size, &l->record); /* as it was decoded before */
    }
}

void lookup_info(const struct record *record, uint32_t home, larder_info *info)
{
    *info = (larder_info){.size = record->value_size,
                          .version = record_version(record, home),
                          .created_ms = record_created_ms(record),
                          .expires_ms = record->expires_at_ms,
                          .stale_until_ms = record->stale_until_ms,
                          .flags = record->header.mark_count != 0 ? LARDER_INFO_MARKED : 0};
    if (record->sliding_ms != 0) {
        info->flags |= LARDER_INFO_SLIDING;
    }
}

int lookup_copy(struct transaction *t, const struct record *record, void *buffer)
{
    if (__builtin_expect(record->chunk_count == 0, 1)) {
        copy_bytes(buffer, record->value, record->value_size);
        return LARDER_OK;
    }
    return chunks_copy(t, record, buffer);
}
