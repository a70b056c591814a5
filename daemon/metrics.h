/* metrics.h: larderd's figures: one snapshot struct, and one table that names and describes each
 * figure once. web.c prints /metrics by it and fills the status page from the snapshot; `larderd
 * --help-metrics` prints the table. It only formats: main.c gathers the snapshot.
 */
#ifndef LARDER_DAEMON_METRICS_H
#define LARDER_DAEMON_METRICS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <event2/buffer.h>

#include "daemon/janitor.h"
#include "daemon/replicator.h"
#include "larder.h"

typedef struct metrics_web {
    uint64_t requests, refused, errors; /* refused: wrong token; errors: other 4xx and 5xx */
    uint64_t connections;               /* now */
} metrics_web;

typedef struct metrics_snapshot {
    int64_t now_ms, started_ms; /* wall clock */
    char map_name[64];
    larder_stats map;
    larder_latency latencies[LARDER_LATENCY_FETCH + 1]; /* by kind */
    bool map_fresh;                                     /* map was read just now */
    int64_t map_age_ms;                                 /* since it was read last */
    bool replicates;
    replicator_status redis; /* all zero where the map does not replicate */
    bool degraded;           /* replicates, and Redis is not in step */
    int64_t degraded_since_ms;
    janitor_counters janitor;
    metrics_web web;
    uint64_t log_dropped;
    /* filled by metrics_complete() */
    uint64_t other_misses;
    int64_t oldest_age_ms;
    uint64_t replicates_now, redis_up, map_up, degraded_now;
    int64_t cpu_ms;
    uint64_t resident_bytes;
} metrics_snapshot;

/* Fill what follows from the rest and from the operating system. */
void metrics_complete(metrics_snapshot *snapshot);

/* OpenMetrics text, "# EOF" included. */
void metrics_write(const metrics_snapshot *snapshot, struct evbuffer *out);

/* A Markdown table of the figures, for --help-metrics and doc/metrics.md. */
void metrics_print_doc(FILE *out);

#endif
