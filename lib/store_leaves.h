/* store_leaves.h: the leaves of the main tree as bytes, and joining those that have become empty.
 *
 * LMDB joins two leaves only where both are less than a quarter full. Of a full map, into which as
 * much goes as is evicted, two fifths of the leaves' bytes are then in use (doc/decisions/020). So
 * whoever deletes an entry joins its leaf with the one before it where both fit into one: their
 * values are taken away until LMDB finds both less than a quarter full, and put back once it has
 * joined them, all of it inside the transaction. MAP_FORMAT
 */
#ifndef LARDER_LIB_STORE_LEAVES_H
#define LARDER_LIB_STORE_LEAVES_H

#include "store_lmdb.h"

enum {
    LEAVES_PAGE = 4096,
    LEAVES_BYTES = LEAVES_PAGE - LMDB_PAGE_HEADER,
    LEAVES_LOW = LEAVES_BYTES / 2 /* that empty a leaf is looked at */
};

/* The page on which a record stands, NULL: it cannot be seen. A protected map's writer has changed
 * pages in memory of its own. */
const uint8_t *leaves_page_of(const struct transaction *t, const MDB_val *data);

/* Bytes of its pointers and nodes, of LEAVES_BYTES. */
size_t leaves_used(const uint8_t *page);

/* Join the leaves around the place where an entry was, if they fit into one. Under the guard, of a
 * writer that has its cursor. An LMDB code. */
int leaves_join_around(struct transaction *t, const MDB_val *form);

#endif
