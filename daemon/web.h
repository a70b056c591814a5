/* web.h: larderd's small HTTP server on the loopback or a unix socket: /healthz and /readyz (JSON),
 * /metrics (OpenMetrics), / (a page for people). Read-only. main.c starts it and gives it a
 * function that gathers the figures; it knows neither the map nor Redis. Everything about a client
 * is bounded: connections, their life, header and body sizes; a token where one is configured.
 */
#ifndef LARDER_DAEMON_WEB_H
#define LARDER_DAEMON_WEB_H

#include <stdbool.h>
#include <stddef.h>

#include <event2/event.h>

#include "daemon/conf.h"
#include "daemon/metrics.h"

typedef struct web_settings {
    conf_listen where;
    int64_t connections;                                    /* at a time */
    int64_t timeout_ms;                                     /* silence that ends a connection */
    void (*snapshot)(void *context, metrics_snapshot *out); /* all but its web member */
    void *context;
} web_settings;

typedef struct web web;

/* Listen. A unix socket that nobody listens on any more is replaced; anything else in its place is
 * an error. NULL, and a sentence in error. */
web *web_start(struct event_base *base, const web_settings *settings, char *error,
               size_t error_size);

/* Ask every request for this token from now on ("" or NULL: for none). Copied. False: no memory. */
bool web_token(web *self, const char *token);

/* The port that was bound (0: a unix socket). */
unsigned web_port(const web *self);

/* Closes all connections and removes the unix socket, if it is still ours. NULL-safe, sets NULL. */
void web_free(web **self);

#endif
