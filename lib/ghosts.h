/* ghosts.h: keys that left the first queue not long ago: a table of fingerprints in the control
 * segment. Read and written inside the write gate, by eviction and by whoever inserts an entry.
 * It is a guess, not a promise: a slot that was lost, torn or taken for another key only makes an
 * entry wait in another queue. Nothing may depend on it but that.
 *
 * A slot has six bits for when, so that only as much of the table is in use as the ghosts that
 * count need: 2^ledger.ghost_bits slots, and time in sixteenths of that. It changes only where the
 * number of entries has changed severalfold; then the older ghosts are forgotten.
 */
#ifndef LARDER_LIB_GHOSTS_H
#define LARDER_LIB_GHOSTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Ten bits of the key's hash (0: the slot is empty), six of when. */
typedef _Atomic uint16_t ghost_slot;

struct ledger;
struct store;

/* Remember a key. About `window` of them will be asked for. Counts in the ledger. */
void ghosts_add(const struct store *store, struct ledger *ledger, uint64_t hash, uint64_t window);

/* Whether the key is one of the last `window` ghosts, by a sixteenth of the table; it is forgotten.
 */
bool ghosts_take(const struct store *store, const struct ledger *ledger, uint64_t hash,
                 uint64_t window);

#endif
