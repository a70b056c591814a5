/* hot_keys.c: see hot_keys.h.
 */
#include "hot_keys.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static uint64_t checksum(uint64_t hash, uint32_t key_size, const void *key, size_t kept)
{
    return XXH3_64bits_withSeed(key, kept, hash ^ key_size);
}

static size_t kept_of(size_t key_size)
{
    return key_size < HOT_KEYS_KEPT ? key_size : HOT_KEYS_KEPT;
}

static void take(struct hot_key_slot *slot, uint64_t hash, const void *key, size_t key_size,
                 bool hit)
{
    size_t kept = kept_of(key_size);
    atomic_store_explicit(&slot->hash, 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_release); /* gone before it changes; pairs with copy() */
    slot->key_size = (uint32_t)key_size;
    memcpy(slot->key, key, kept);
    atomic_store_explicit(&slot->checksum, checksum(hash, (uint32_t)key_size, key, kept),
                          memory_order_relaxed);
    atomic_store_explicit(&slot->count, 1, memory_order_relaxed);
    atomic_store_explicit(&slot->hits, hit, memory_order_relaxed);
    atomic_store_explicit(&slot->hash, hash, memory_order_release);
}

/* One of many does it; what is counted meanwhile may be lost. */
static void halve(struct hot_key_table *table, uint64_t samples)
{
    uint64_t halved = atomic_load_explicit(&table->halved, memory_order_relaxed);
    if (samples - halved < HOT_KEYS_HALVE_AT ||
        !atomic_compare_exchange_strong(&table->halved, &halved, samples)) {
        return;
    }
    for (size_t i = 0; i < HOT_KEYS_SLOTS; i++) {
        struct hot_key_slot *slot = &table->slots[i];
        uint32_t count = atomic_load_explicit(&slot->count, memory_order_relaxed);
        uint32_t hits = atomic_load_explicit(&slot->hits, memory_order_relaxed);
        atomic_store_explicit(&slot->count, count / 2, memory_order_relaxed);
        atomic_store_explicit(&slot->hits, hits / 2, memory_order_relaxed);
    }
    uint64_t total = atomic_load_explicit(&table->total, memory_order_relaxed);
    atomic_store_explicit(&table->total, total / 2, memory_order_relaxed);
}

void hot_keys_note(struct hot_key_table *table, uint64_t hash, const void *key, size_t key_size,
                   bool hit, uint32_t chance)
{
    hash = hash == 0 ? 1 : hash;
    struct hot_key_slot *set = &table->slots[(hash >> 40) % HOT_KEYS_SETS * HOT_KEYS_WAYS];
    struct hot_key_slot *least = set;
    uint32_t least_count = UINT32_MAX;
    uint64_t samples = atomic_fetch_add_explicit(&table->samples, 1, memory_order_relaxed) + 1;
    (void)atomic_fetch_add_explicit(&table->total, 1, memory_order_relaxed);
    halve(table, samples);
    for (size_t way = 0; way < HOT_KEYS_WAYS; way++) {
        struct hot_key_slot *slot = &set[way];
        if (atomic_load_explicit(&slot->hash, memory_order_relaxed) == hash) {
            (void)atomic_fetch_add_explicit(&slot->count, 1, memory_order_relaxed);
            (void)atomic_fetch_add_explicit(&slot->hits, hit, memory_order_relaxed);
            return;
        }
        uint32_t count = atomic_load_explicit(&slot->count, memory_order_relaxed);
        if (count < least_count) {
            least_count = count;
            least = slot;
        }
    }
    /* A stranger wears the least one away, with a chance of 2^(-count / 9), which is 1.08^-count,
     * the paper's: hardly ever one that is heavy. */
    uint32_t shift = least_count / 9;
    if (shift >= 32 || chance > UINT32_MAX >> shift) {
        return;
    }
    if (least_count <= 1) {
        take(least, hash, key, key_size, hit);
    } else {
        atomic_store_explicit(&least->count, least_count - 1, memory_order_relaxed);
        uint32_t hits = atomic_load_explicit(&least->hits, memory_order_relaxed);
        if (hits > 0 && hits >= least_count) { /* never more hits than lookups */
            atomic_store_explicit(&least->hits, least_count - 1, memory_order_relaxed);
        }
    }
}

static bool copy(const struct hot_key_slot *slot, struct hot_key *out)
{
    out->hash = atomic_load_explicit(&slot->hash, memory_order_acquire); /* pairs with take() */
    out->count = atomic_load_explicit(&slot->count, memory_order_relaxed);
    out->hits = atomic_load_explicit(&slot->hits, memory_order_relaxed);
    out->key_size = slot->key_size;
    out->kept = (uint32_t)kept_of(out->key_size);
    memcpy(out->key, slot->key, out->kept);
    uint64_t sum = atomic_load_explicit(&slot->checksum, memory_order_relaxed);
    out->hits = out->hits < out->count ? out->hits : out->count;
    return out->hash != 0 && out->count != 0 &&
           sum == checksum(out->hash, out->key_size, out->key, out->kept);
}

static int by_count(const void *a, const void *b)
{
    const struct hot_key *one = a, *other = b;
    if (one->count != other->count) {
        return one->count < other->count ? 1 : -1;
    }
    return one->hash < other->hash ? -1 : one->hash > other->hash;
}

size_t hot_keys_read(const struct hot_key_table *table, struct hot_key *keys, size_t max,
                     uint64_t *total)
{
    struct hot_key all[HOT_KEYS_SLOTS];
    size_t count = 0;
    *total = atomic_load_explicit(&table->total, memory_order_relaxed);
    for (size_t i = 0; i < HOT_KEYS_SLOTS; i++) {
        count += copy(&table->slots[i], &all[count]);
    }
    qsort(all, count, sizeof all[0], by_count);
    count = count < max ? count : max;
    memcpy(keys, all, count * sizeof all[0]);
    return count;
}
