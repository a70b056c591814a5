/* report.h: what the demo shows: a line while it runs, and tables at the end. It only formats.
 */
#ifndef LARDER_EXAMPLES_REPORT_H
#define LARDER_EXAMPLES_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "examples/replay.h"
#include "larder.h"

#define REPORT_SERIES_MAX 4096

typedef struct report_facts {
    const char *log_name;
    const replay *replay;
    size_t requests;
    unsigned clients, workers;
    double elapsed_s;

    /* seconds since the first request; negative: it did not happen */
    double killed_s, started_s, answered_s, drained_s, refilled_s;

    const uint64_t *outbox; /* sampled every outbox_every_ms */
    size_t outbox_count;
    int64_t outbox_every_ms;

    larder_stats stats;   /* at the end */
    const char *compared; /* what compare printed */
} report_facts;

/* The line while it runs. On a terminal it overwrites itself. */
typedef struct report_line {
    const char *phase;
    double elapsed_s;
    size_t answered, requests;
    double rate; /* answers a second, lately */
    replay_counts counts;
    uint64_t outbox;
    bool redis_up;
} report_line;

void report_progress(const report_line *line, bool terminal);
void report_summary(const report_facts *facts);

#endif
