/* ghosts.h: keys that left the first queue not long ago: a table of fingerprints in the control
 * segment. Read and written inside the write gate, by eviction and by whoever inserts an entry.
 * It is a guess, not a promise: a slot that was lost, torn or taken for another key only makes an
 * entry wait in another queue. Nothing may depend on it but that.
 */
#ifndef LARDER_LIB_GHOSTS_H
#define LARDER_LIB_GHOSTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Sixteen bits of the key's hash (the lowest of them set: 0 is an empty slot), sixteen of when. */
typedef _Atomic uint32_t ghost_slot;

struct store;

/* Remember a key as the ordinal-th ghost. */
void ghosts_add(const struct store *store, uint64_t hash, uint64_t ordinal);

/* Whether the key is one of the last `window` ghosts (there were `count`); it is forgotten. */
bool ghosts_take(const struct store *store, uint64_t hash, uint64_t count, uint64_t window);

#endif
