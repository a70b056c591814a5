/* janitor.h: larderd keeping its map in order, in steps of about a millisecond on the event loop:
 * expired entries and old tombstones, eviction to the watermark, reader slots of dead processes,
 * background verification. main.c starts it, web.c shows its counters. It works through
 * lib/upkeep.h only; a step that is refused or fails is counted and tried again later.
 */
#ifndef LARDER_DAEMON_JANITOR_H
#define LARDER_DAEMON_JANITOR_H

#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>

#include "larder.h"

typedef struct janitor_settings {
    double watermark;     /* share of the map, 0..1, above which entries are evicted */
    int64_t period_ms;    /* between two rounds of steps */
    int64_t pass_ms;      /* in which every row of the log is looked at */
    int64_t readers_ms;   /* between two looks at the reader table */
    int64_t tombstone_ms; /* age at which a clean tombstone goes */
    int64_t verify_rate;  /* entries a second; 0: no verification */
} janitor_settings;

typedef struct janitor_counters { /* since the start */
    uint64_t rows_looked_at, removed, passes;
    uint64_t evicted, eviction_blocked; /* blocked: an old reader pinned the pages */
    uint64_t readers_cleared;
    uint64_t verified, damaged;
    uint64_t busy, errors; /* steps put off because the gate was held; steps that failed */
    int64_t pass_took_ms;  /* the last whole pass; 0: none yet */
} janitor_counters;

typedef struct janitor janitor;

/* Begin; handle must outlive it. NULL: no memory. */
janitor *janitor_start(struct event_base *base, larder *handle, const janitor_settings *settings);
void janitor_configure(janitor *self, const janitor_settings *settings);
void janitor_counters_read(const janitor *self, janitor_counters *out);
void janitor_free(janitor **self); /* NULL-safe, sets NULL */

#endif
