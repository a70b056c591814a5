/* server_internal.h: the running daemon's state, shared by server.c and reload.c alone.
 */
#ifndef LARDER_DAEMON_SERVER_INTERNAL_H
#define LARDER_DAEMON_SERVER_INTERNAL_H

#include <time.h>

#include <event2/event.h>

#include "daemon/janitor.h"
#include "daemon/log.h"
#include "daemon/replicator.h"
#include "daemon/server.h"
#include "daemon/web.h"
#include "larder.h"

#define SERVER_EVENTS 8

struct server {
    struct conf conf;
    struct prepared prepared;
    const server_source *source;
    larder *map;
    uint64_t fence;
    bool replicates; /* fixed at the start: the map was claimed so */
    struct event_base *base;
    replicator *replicator;
    janitor *janitor;
    web *web;
    struct event *events[SERVER_EVENTS];
    size_t event_count;
    bool events_failed;
    struct event *stop_timer, *restart_timer; /* of events */

    bool stopping, leaving;
    int exit_code;
    int64_t started_ms;

    larder_stats stats; /* the last that could be read */
    int64_t stats_ms;   /* monotonic; 0: never */
    replicator_status redis;
    bool degraded;
    int64_t degraded_since_ms;
    log_trouble unreadable, heartbeat_failing;
};

int64_t server_clock_ms(clockid_t clock);
void server_status_text(const struct server *self, char *out, size_t size);

/* Stop the replicator, if there is one, and start it with the settings of now. */
void server_restart_replicator(struct server *self);

/* SIGHUP: read the settings again and apply what can change; all or nothing. */
void server_reload(struct server *self);

#endif
