/* connection.h: one connection to Redis on a libevent loop: name lookup, connect (every address of
 * a name, one after the other), TLS, requests with deadlines, replies in order, messages of a
 * subscription. The replicator opens two of them a session. Nothing here blocks; nothing here knows
 * what the requests mean.
 */
#ifndef LARDER_DAEMON_REDIS_CONNECTION_H
#define LARDER_DAEMON_REDIS_CONNECTION_H

#include <event2/event.h>

#include "daemon/redis/codec.h"
#include "daemon/redis/lookup.h"
#include "daemon/redis/tls.h"
#include "daemon/redis/url.h"

/* A time of a server's beyond it (the year 4199) is nonsense, and would not fit a version's clock.
 */
#define REDIS_MS_MAX (INT64_C(1) << 46)

#define CONNECTION_REQUESTS_MAX 65536u /* sent and not answered */

typedef struct connection_tag { /* what a request was, given back with its reply */
    uint32_t kind, index;
    uint64_t id;
    void *pointer;
} connection_tag;

typedef struct connection_callbacks {
    void (*up)(void *context);
    /* The reply to the oldest request; valid during the call. sent_us: monotonic microseconds. */
    void (*answer)(void *context, const connection_tag *tag, const reply *answer, int64_t sent_us);
    /* A message of the channel; valid during the call. */
    void (*message)(void *context, const char *text, size_t size);
    /* All that had arrived has been given. */
    void (*idle)(void *context);
    /* It is over: refused, closed, timed out, out of step, over a limit. Once; close it then. */
    void (*down)(void *context, const char *why, bool timed_out, bool protocol);
    /* Another message that was not asked for: keys that changed. NULL: there is none to come. */
    void (*changed)(void *context, const reply *message);
} connection_callbacks;

typedef struct connection_settings {
    struct event_base *base;
    resolver *resolver; /* only for a host's name; may be NULL for others. It is closed later */
    tls *tls;           /* NULL: without; shared by the connection */
    url_place place;
    codec_limits limits;
    int64_t connect_timeout_ms; /* lookup, all addresses and TLS together */
    int64_t reply_timeout_ms;
} connection_settings;

typedef struct connection connection;

/* Begin to connect. Never calls back before it returned. NULL: no memory. */
connection *connection_open(const connection_settings *settings,
                            const connection_callbacks *callbacks, void *context);

/* Close; NULL-safe, sets NULL. May be called from within a callback; none comes after it. */
void connection_close(connection **self);

/* Send a command; its reply comes to answer() with the tag. false: no memory, or too many are
 * waiting; the connection is still sound then. */
bool connection_send(connection *self, const connection_tag *tag, int count,
                     const char *const *arguments, const size_t *sizes);

/* The same with a command that codec_command() made; the caller keeps it. */
bool connection_send_bytes(connection *self, const connection_tag *tag, const char *command,
                           size_t size);

size_t connection_waiting(const connection *self); /* requests without a reply */
uint64_t connection_bytes_in(const connection *self);
uint64_t connection_bytes_out(const connection *self);

/* Once it is over: was it TLS, in a way that only an operator can put right? */
bool connection_refused(const connection *self);

/* Is the host a name that must be looked up? */
bool connection_needs_lookup(const url_place *place);

int64_t connection_now_us(void); /* the monotonic clock */

#endif
