/* evict.h: making room. SIEVE (Zhang et al., NSDI 2024) over the log: rows stand in order of
 * insertion, a hand moves from the oldest towards the newest, takes what was not asked for since it
 * last passed and spares the rest; a hit moves nothing, it sets one byte.
 */
#ifndef LARDER_LIB_EVICT_H
#define LARDER_LIB_EVICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control.h"
#include "writer.h"

/* Pages that must stay free: what one transaction frees the second after it can use, so two of the
 * largest must fit meanwhile. */
uint64_t evict_reserve(const struct control_life *life);

/* Whether need more pages fit below the reserve. */
bool evict_fits(struct writer *writer, uint64_t need);

/* Evict inside this write until need pages fit or max entries went; a bounded walk. Returns how
 * many entries went. */
size_t evict_some(struct writer *writer, uint64_t need, size_t max);

static inline _Atomic uint8_t *evict_popularity(const struct store *store, uint64_t hash)
{
    return &store->control->popularity[hash & store->popularity_mask];
}

/* Note a hit: at most one store, and only the first time. Returns whether there was one before. */
static inline bool evict_touch(const struct store *store, uint64_t hash)
{
    _Atomic uint8_t *popularity = evict_popularity(store, hash);
    if (atomic_load_explicit(popularity, memory_order_relaxed) == 0) {
        atomic_store_explicit(popularity, 1, memory_order_relaxed);
        return false;
    }
    return true;
}

#endif
