/* evict.c: the hand that makes room.
 */
#include "evict.h"

#include <stdlib.h>

#include "clock.h"
#include "error.h"
#include "format.h"

enum {
    LOOKS_PER_EVICTION = 16, /* rows looked at for each entry that may go */
    LOOKS_LEAST = 256,
    PAGES_PER_STEP = 2048, /* of values in chunks: a step holds the gate */
    RECOUNT_EVERY = 16     /* entries between two counts of pages */
};

uint64_t evict_reserve(const struct control_life *life)
{
    uint64_t largest = record_chunks(atomic_load(&life->max_value));
    return 2 * (largest + WRITER_PATH_PAGES);
}

bool evict_fits(struct writer *writer, uint64_t need)
{
    struct store *store = writer->transaction.store;
    uint64_t reserve = evict_reserve(store->life);
    if (store_has_fresh_pages(store, need + reserve)) {
        return true;
    }
    return store_used_pages(&writer->transaction) + need + reserve <= store->max_pages;
}

/* Whether the key was asked for since this was last asked: in the tree, or in the hot set, whose
 * hits leave no other mark. */
static bool was_asked_for(const struct store *store, const struct key *key)
{
    struct hotset_key hot = {.hash = key->hash, .data = key->data, .size = key->size};
    _Atomic uint8_t *popularity = evict_popularity(store, key->hash);
    bool asked = hotset_age(&store->hot, &hot) > 0;
    if (atomic_load_explicit(popularity, memory_order_relaxed) != 0) {
        atomic_store_explicit(popularity, 0, memory_order_relaxed);
        asked = true;
    }
    return asked;
}

/* Whether the entry of a row goes. It is removed here. */
static bool judge(struct writer *writer, uint64_t row, const larder_bytes *form, size_t *chunks)
{
    struct transaction *t = &writer->transaction;
    struct record record;
    larder_bytes bytes;
    struct key key;
    void *memory = NULL;
    bool gone = false;

    int result = store_entry_get(t, form->data, form->size, &bytes);
    if (result != LARDER_OK || !record_decode(bytes.data, bytes.size, &record) ||
        record.header.row != row) {
        if (result >= 0) { /* a row that nothing names: not ours to keep, nor to find again */
            (void)store_log_delete(t, row);
        }
        return false;
    }
    if (record.header.kind == RECORD_DELETED) {
        return false; /* the janitor's */
    }
    if (entry_key(form, &record, &key, &memory) != LARDER_OK) {
        return false;
    }
    bool expired = clock_expired(record.expires_at_ms);
    if (!expired && was_asked_for(t->store, &key)) {
        gone = false;
    } else if (entry_drop(writer, &key, &record) == LARDER_OK) {
        *chunks = record.chunk_count;
        stats_count(map_stats(writer->map), expired ? STATS_EXPIRATIONS : STATS_EVICTIONS);
        gone = true;
    }
    free(memory);
    return gone;
}

size_t evict_some(struct writer *writer, uint64_t need, size_t max)
{
    struct transaction *t = &writer->transaction;
    size_t looks = LOOKS_LEAST + max * LOOKS_PER_EVICTION;
    size_t gone = 0;
    uint64_t freed = 0;
    uint64_t hand = writer->ledger.hand;
    bool wrapped = false;
    writer->nothing_left = false;
    while (gone < max && freed < PAGES_PER_STEP && looks-- > 0 && t->error == LARDER_OK) {
        uint64_t row;
        larder_bytes form;
        int result = store_log_next(t, writer->ledger.hand, &row, &form);
        if (result == LARDER_MISS) {
            if (wrapped && gone == 0) {
                writer->nothing_left = true; /* twice round */
                break;
            }
            wrapped = true;
            writer->ledger.hand = 0;
            continue;
        }
        if (result != LARDER_OK) {
            break;
        }
        writer->ledger.hand = row + 1;
        size_t chunks = 0;
        if (judge(writer, row, &form, &chunks)) {
            gone++;
            freed += 1 + chunks;
            if ((chunks > 0 || gone % RECOUNT_EVERY == 0) && evict_fits(writer, need)) {
                break;
            }
        }
    }
    if (writer->ledger.hand >= writer->ledger.next_row) {
        writer->ledger.hand = 0; /* past the newest: the oldest is next, not the one that comes */
    }
    if (writer->ledger.hand != hand && !t->changed) {
        (void)store_touch(t); /* so that the hand moves on, even if all it saw was spared */
    }
    return gone;
}
