/* inspect.h: looking into a map, for the tool and for tests: who reads it, is it whole.
 */
#ifndef LARDER_LIB_INSPECT_H
#define LARDER_LIB_INSPECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hot_keys.h"
#include "larder.h"

typedef struct inspect_reader {
    int pid;
    uint64_t thread;
    uint64_t transaction; /* the snapshot it holds; UINT64_MAX: none */
    uint64_t lag;         /* transactions behind the newest; 0 without a snapshot */
    bool alive;
} inspect_reader;

/* Up to max readers; *found may be larger than max. */
int inspect_readers(larder *handle, inspect_reader *readers, size_t max, size_t *found);

typedef struct inspect_report {
    uint64_t entries, tombstones, dirty, rows, chunks, bytes; /* what was walked */
    bool damaged;
    char damage[512]; /* the first damage, naming the key (escaped) and what is wrong */
} inspect_report;

/* Walk the whole map in one snapshot: the tree, every entry's checksum and chunk list, chunks that
 * nobody owns, log rows against entries in both directions, counters of the control segment.
 * LARDER_OK with report->damaged = false, LARDER_ECORRUPT with it true, or why it could not look.
 */
int inspect_check(larder *handle, inspect_report *report);

/* Up to max keys that are asked for most, by sampled lookups; *total: of what their counts are
 * parts. */
size_t inspect_hot_keys(larder *handle, struct hot_key *keys, size_t max, uint64_t *total);

#endif
