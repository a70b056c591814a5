/* sentinel.h: asks a set of Sentinels who the master of a service is, and goes on listening for the
 * day when it is another. All are asked at once: one that was cut off from the others, and still
 * names a master that has been replaced, is outvoted by its configuration's epoch. What they say is
 * a hint all the same: link.c asks the server itself whether it is a master. One that tells of a
 * move that the others know nothing of is not listened to for a while (1 s, twice that each time,
 * 30 s).
 */
#ifndef LARDER_DAEMON_REDIS_SENTINEL_H
#define LARDER_DAEMON_REDIS_SENTINEL_H

#include "daemon/redis/connection.h"
#include "daemon/sync/sync.h"

typedef struct sentinel_settings { /* texts must live as long as the sentinel */
    struct event_base *base;
    const redis_url *url;        /* of the kind URL_SENTINEL */
    tls *tls;                    /* NULL: without */
    const char *user, *password; /* of the Sentinels; NULL: none */
    codec_limits limits;
    int64_t connect_timeout_ms, reply_timeout_ms, ping_ms;
} sentinel_settings;

typedef struct sentinel_callbacks { /* from the loop; any sentinel_ function may be called */
    void (*found)(void *context, const url_place *master);
    void (*failed)(void *context, enum sync_cause cause, const char *why, bool timed_out);
    /* After found(): it seems to be another one now. */
    void (*moved)(void *context, const url_place *master);
} sentinel_callbacks;

typedef struct sentinel sentinel;

sentinel *sentinel_create(const sentinel_settings *settings, const sentinel_callbacks *callbacks,
                          void *context); /* NULL: no memory */
void sentinel_destroy(sentinel **self);   /* NULL-safe, sets NULL */

/* Ask anew: found() or failed() follows, once; the latter within the connect and the reply timeout
 * together. names: for hosts' names; it must not be closed before the next call or the rest. */
void sentinel_find(sentinel *self, resolver *names);
/* Close all connections; nothing is called back any more. */
void sentinel_rest(sentinel *self);

#endif
