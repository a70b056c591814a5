/* lookup.c: finding a live record, counting what came of it, describing it.
 */
#include "lookup.h"

#include <string.h>

#include "chunks.h"
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

int lookup_find(const struct larder *handle, struct transaction *t, struct lookup *l, bool peek)
{
    struct stats_slot *stats = map_stats(handle->map);
    bool expired = false;
    __builtin_prefetch((const void *)evict_popularity(t->store, l->key.hash));
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
            result = lookup_judge(&l->record, l->dead_before, &expired);
        }
    } else if (result < 0) {
        stats_count(stats, STATS_READ_CORRUPT);
        result = LARDER_MISS;
    }
    if (peek) {
        return result;
    }
    if (__builtin_expect(result == LARDER_OK, 1)) {
        evict_touch(t->store, l->key.hash);
    } else if (result == LARDER_ABSENT) {
        evict_touch(t->store, l->key.hash);
        stats_count(stats, STATS_ABSENT);
    } else {
        stats_count(stats, STATS_MISSES);
        if (expired) {
            stats_count(stats, STATS_EXPIRED);
        }
    }
    return result;
}

void lookup_info(const struct record *record, larder_info *info)
{
    *info = (larder_info){.size = record->value_size,
                          .version = record_version(record),
                          .created_ms = record_created_ms(record),
                          .expires_ms = record->expires_at_ms,
                          .stale_until_ms = record->stale_until_ms};
}

int lookup_copy(struct transaction *t, const struct record *record, void *buffer)
{
    if (__builtin_expect(record->chunk_count == 0, 1)) {
        memcpy(buffer, record->value, record->value_size);
        return LARDER_OK;
    }
    return chunks_copy(t, record, buffer);
}
