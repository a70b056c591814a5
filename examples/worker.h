/* worker.h: one worker process of the example server. server.c forks it; it serves until SIGTERM.
 */
#ifndef LARDER_EXAMPLES_WORKER_H
#define LARDER_EXAMPLES_WORKER_H

#include <stdint.h>

#include "examples/site.h"
#include "larder.h"

typedef struct worker_settings {
    const site *site;
    larder *cache;        /* opened by the parent, before it forked */
    int listener;         /* listening, non-blocking, shared by all workers */
    unsigned number;      /* 1 .. workers: the X-Worker header */
    int64_t origin_ms;    /* what a page costs at the origin */
    const char *upstream; /* an origin's IP address: be a caching reverse proxy to it; or NULL */
    uint16_t upstream_port;
    int64_t upstream_timeout_ms;
    int64_t drain_ms; /* how long answers under way may take after SIGTERM */
} worker_settings;

/* Serve until SIGTERM or SIGINT, then finish what was begun. Returns the process's exit status. */
int worker_run(const worker_settings *settings);

#endif
