/* ghosts.c: see ghosts.h. A bucket is eight slots of a quarter of a cache line; the oldest makes
 * way.
 */
#include "ghosts.h"

#include "control.h"
#include "store.h"

enum {
    WAYS = 8,
    STAMP_BITS = 6,
    STAMP_MOST = (1 << STAMP_BITS) - 1,
    PRINT_MOST = (1 << (16 - STAMP_BITS)) - 1,
    UNIT_BITS = 4, /* a turn of the table in units of time: older ones than four are gone by then */
    BITS_LEAST = 6,
    BITS_MOST = 40
};

/* The part of the table that is in use. */
struct table {
    ghost_slot *slots;
    uint64_t buckets;
    unsigned unit_bits; /* ghosts to a unit of the stamps, as a power of two */
};

static struct table table_of(const struct store *store, const struct ledger *ledger)
{
    uint64_t bits = ledger->ghost_bits < BITS_LEAST ? BITS_LEAST : ledger->ghost_bits;
    bits = bits < BITS_MOST ? bits : BITS_MOST;
    uint64_t most = store->popularity * CONTROL_GHOST_BYTES / sizeof(ghost_slot) / WAYS;
    uint64_t wanted = (UINT64_C(1) << bits) / WAYS;
    return (struct table){
        .slots = (ghost_slot *)(void *)(store->control->popularity + store->popularity),
        .buckets = wanted < most ? wanted : most,
        .unit_bits = (unsigned)bits - UNIT_BITS};
}

static ghost_slot *bucket(const struct table *table, uint64_t hash)
{
    return table->slots + ((hash & UINT32_MAX) * table->buckets >> 32) * WAYS;
}

static unsigned fingerprint(uint64_t hash)
{
    unsigned print = (unsigned)(hash >> 32) & PRINT_MOST;
    return print != 0 ? print : 1;
}

static unsigned age(const struct table *table, uint64_t count, unsigned slot)
{
    return ((unsigned)(count >> table->unit_bits) - slot) & STAMP_MOST;
}

/* So many slots that the window's ghosts are still there: eight ways are not filled evenly. */
static void fit(struct ledger *ledger, uint64_t window)
{
    uint64_t slots = ledger->ghost_bits < BITS_MOST ? UINT64_C(1) << ledger->ghost_bits : 0;
    if (slots < window + window / 4 || (slots / 8 > window && ledger->ghost_bits > BITS_LEAST)) {
        uint64_t bits = BITS_LEAST;
        while (bits < BITS_MOST && UINT64_C(1) << bits < window + window / 2) {
            bits++;
        }
        ledger->ghost_bits = bits;
    }
}

void ghosts_add(const struct store *store, struct ledger *ledger, uint64_t hash, uint64_t window)
{
    fit(ledger, window);
    struct table table = table_of(store, ledger);
    ghost_slot *slots = bucket(&table, hash);
    uint64_t count = ++ledger->ghosts;
    unsigned oldest = 0;
    size_t place = 0;
    for (size_t i = 0; i < WAYS; i++) {
        unsigned slot = atomic_load_explicit(&slots[i], memory_order_relaxed);
        if (slot == 0 || slot >> STAMP_BITS == fingerprint(hash)) {
            place = i;
            break;
        }
        if (age(&table, count, slot) >= oldest) {
            oldest = age(&table, count, slot);
            place = i;
        }
    }
    unsigned stamp = (unsigned)(count >> table.unit_bits) & STAMP_MOST;
    /* relaxed: only the gate's holder looks, and the gate orders holders */
    atomic_store_explicit(&slots[place], (uint16_t)(fingerprint(hash) << STAMP_BITS | stamp),
                          memory_order_relaxed);
}

bool ghosts_take(const struct store *store, const struct ledger *ledger, uint64_t hash,
                 uint64_t window)
{
    struct table table = table_of(store, ledger);
    ghost_slot *slots = bucket(&table, hash);
    for (size_t i = 0; i < WAYS; i++) {
        unsigned slot = atomic_load_explicit(&slots[i], memory_order_relaxed);
        if (slot >> STAMP_BITS == fingerprint(hash)) {
            uint64_t since = (uint64_t)age(&table, ledger->ghosts, slot) << table.unit_bits;
            atomic_store_explicit(&slots[i], 0, memory_order_relaxed);
            return since < window;
        }
    }
    return false;
}
