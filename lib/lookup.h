/* lookup.h: from a key to its live record in a snapshot: what get, has, borrow, scan and the
 * many-key forms have in common.
 */
#ifndef LARDER_LIB_LOOKUP_H
#define LARDER_LIB_LOOKUP_H

#include <stdbool.h>
#include <stdint.h>

#include "clock.h"
#include "format.h"
#include "larder.h"
#include "map.h"
#include "removal.h"

enum {
    LOOKUP_TRIES = 3, /* a control segment may be replaced under a reader; not again and again */
    LOOKUP_COLD = -1  /* lookup_find_hot(): ask the tree */
};

struct lookup {
    struct key key;
    struct record record;
    larder_bytes bytes; /* the record as it stands in the map */
    uint64_t dead_before;
};

/* What a record is to a reader: OK (a value), ABSENT, or MISS; *expired where that is why. */
static inline int lookup_judge(const struct record *record, uint64_t dead_before, bool *expired)
{
    const struct record_header *header = &record->header;
    *expired = false;
    if (header->kind == RECORD_DELETED || header->clock <= dead_before) {
        return LARDER_MISS;
    }
    if (__builtin_expect(clock_expired(record->expires_at_ms), 0)) {
        *expired = true;
        return LARDER_MISS;
    }
    return header->kind == RECORD_VALUE ? LARDER_OK : LARDER_ABSENT;
}

/* Find the key's copy in the hot set of the reader's store; no snapshot is needed. copy has
 * HOTSET_COPY_MAX bytes, and the record points into it. OK, ABSENT or MISS are final; LOOKUP_COLD:
 * there is no copy. l->key is begun (key_begin()), l->dead_before is set. Counts unless peek. */
int lookup_find_hot(const struct larder *handle, struct transaction *t, struct lookup *l,
                    uint8_t *copy, bool peek);

/* Find the key in a snapshot; l->key and l->dead_before are set, the latter before the snapshot was
 * taken. OK, ABSENT or MISS; damage is a miss. Counts unless peek. A small record is offered to the
 * hot set. */
int lookup_find(const struct larder *handle, struct transaction *t, struct lookup *l, bool peek);

void lookup_info(const struct record *record, larder_info *info);

/* Copy the value of a found record. */
int lookup_copy(struct transaction *t, const struct record *record, void *buffer);

#endif
