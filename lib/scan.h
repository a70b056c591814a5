/* scan.h: a walk over the entries in key order, in bounded snapshots: what larder_scan() and the
 * invalidations by prefix, by pattern and with a count have in common.
 */
#ifndef LARDER_LIB_SCAN_H
#define LARDER_LIB_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "larder.h"

enum {                          /* beside LARDER_SCAN_* */
       SCAN_COUNT = 1 << 16,    /* bring nothing, only count */
       SCAN_ONE_PIECE = 1 << 17 /* MISS where a piece brings nothing and is not the last */
};

/* What an entry must have to be brought. */
struct scan_filter {
    larder_bytes prefix;      /* size 0: any */
    const larder_bytes *glob; /* a checked pattern, whose literal prefix `prefix` is; NULL: any */
    const uint8_t *mark;      /* one of its marks; NULL: any */
    bool past; /* what is past its time, too, as STALE: a clock that is set back brings it back */
};

/* As larder_scan(), with arguments that have been checked. With SCAN_COUNT items and memory may be
 * NULL. *found = 0 means the end; a piece that brings nothing is followed by the next one here, in
 * a snapshot of its own. */
int scan_run(larder *handle, larder_cursor *cursor, const struct scan_filter *filter,
             larder_item *items, size_t max, uint32_t flags, size_t *found, void **memory);

#endif
