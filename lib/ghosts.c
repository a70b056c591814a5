/* ghosts.c: see ghosts.h. A bucket is eight slots of one cache line's half; the oldest makes way.
 */
#include "ghosts.h"

#include "store.h"

enum {
    WAYS = 8,
    STAMP_BITS = 16,
    UNITS_BITS = 14 /* the table's size in units of time: a slot that is older is gone by then */
};

static uint64_t slots_of(const struct store *store)
{
    return (store->popularity_mask + 1) / 2;
}

static ghost_slot *bucket(const struct store *store, uint64_t hash)
{
    ghost_slot *slots =
        (ghost_slot *)(void *)(store->control->popularity + store->popularity_mask + 1);
    return slots + (hash & (slots_of(store) / WAYS - 1)) * WAYS;
}

static uint16_t fingerprint(uint64_t hash)
{
    return (uint16_t)(hash >> 48 | 1);
}

/* Ghosts to a unit of the stamps, as a power of two. */
static unsigned unit_bits(const struct store *store)
{
    unsigned bits = 63u - (unsigned)__builtin_clzll(slots_of(store));
    return bits > UNITS_BITS ? bits - UNITS_BITS : 0;
}

static uint16_t stamp(const struct store *store, uint64_t ordinal)
{
    return (uint16_t)(ordinal >> unit_bits(store));
}

void ghosts_add(const struct store *store, uint64_t hash, uint64_t ordinal)
{
    ghost_slot *slots = bucket(store, hash);
    uint16_t now = stamp(store, ordinal), age = 0;
    size_t place = 0;
    for (size_t i = 0; i < WAYS; i++) {
        uint32_t slot = atomic_load_explicit(&slots[i], memory_order_relaxed);
        if (slot == 0 || slot >> STAMP_BITS == fingerprint(hash)) {
            place = i;
            break;
        }
        if ((uint16_t)(now - (uint16_t)slot) >= age) {
            age = (uint16_t)(now - (uint16_t)slot);
            place = i;
        }
    }
    /* relaxed: only the gate's holder looks, and the gate orders holders */
    atomic_store_explicit(&slots[place], (uint32_t)fingerprint(hash) << STAMP_BITS | now,
                          memory_order_relaxed);
}

bool ghosts_take(const struct store *store, uint64_t hash, uint64_t count, uint64_t window)
{
    ghost_slot *slots = bucket(store, hash);
    uint64_t most = slots_of(store);
    uint16_t now = stamp(store, count);
    window = window < most ? window : most;
    for (size_t i = 0; i < WAYS; i++) {
        uint32_t slot = atomic_load_explicit(&slots[i], memory_order_relaxed);
        if (slot >> STAMP_BITS == fingerprint(hash)) {
            uint64_t age = (uint64_t)(uint16_t)(now - (uint16_t)slot) << unit_bits(store);
            atomic_store_explicit(&slots[i], 0, memory_order_relaxed);
            return age < window;
        }
    }
    return false;
}
