/* link.h: a session with Redis in the protocol's own terms: one connection for commands (with a
 * cluster: one to each of its masters), one for the channel, greeted, authenticated and subscribed.
 * Turns the machine's actions into commands and the replies into what the machine wants to know.
 * The replicator is the only caller. Nothing in here decides anything: that is daemon/sync.
 */
#ifndef LARDER_DAEMON_REDIS_LINK_H
#define LARDER_DAEMON_REDIS_LINK_H

#include <event2/event.h>

#include "daemon/redis/codec.h"
#include "daemon/redis/tls.h"
#include "daemon/redis/url.h"
#include "daemon/sync/sync.h"

typedef struct link_callbacks { /* none is called from within a link_ function */
    /* history: what is another one where the server's data may be another's */
    void (*connected)(void *context, const char *run_id, const char *history,
                      const char *redis_version);
    void (*disconnected)(void *context, enum sync_cause cause, const char *why, bool timed_out,
                         bool protocol);
    void (*joined)(void *context, const sync_joined *joined);
    /* trouble: Redis's words where a push was refused, else NULL */
    void (*replied)(void *context, struct sync_batch *batch, size_t index,
                    enum sync_outcome outcome, const sync_change *winner, int64_t redis_ms,
                    const char *trouble);
    /* trouble: as in replied() */
    void (*emitted)(void *context, struct sync_batch *batch, enum sync_outcome outcome,
                    const char *trouble);
    void (*scripts)(void *context);
    void (*streamed)(void *context, const sync_change *change);
    /* In order; more: there may be others behind them. */
    void (*ranged)(void *context, const sync_change *changes, size_t count, bool more);
    void (*fetched)(void *context, uint64_t id, const sync_change *change);
    /* change: NULL: Redis has none, or (failed) it would not say */
    void (*asked)(void *context, uint64_t id, const sync_change *change, bool failed);
    /* A key was changed, by whomever; valid during the call */
    void (*changed)(void *context, const uint8_t *key, size_t key_size);
    void (*warned)(void *context, const char *text); /* to be logged */
    /* set_id: of the mark set, where outcome is SYNC_STORED */
    void (*marked)(void *context, enum sync_outcome outcome, uint64_t set_id, const char *trouble);
    /* a piece of a page; the last one has last, and where the next page begins (0: that was all) */
    void (*mark_page)(void *context, const sync_change *changes, size_t count, bool last,
                      uint64_t next);
    void (*idle)(void *context);
} link_callbacks;

/* How changes by other programs are noticed. */
enum link_foreign { LINK_FOREIGN_OFF, LINK_FOREIGN_TRACKING, LINK_FOREIGN_NOTIFICATIONS };

typedef struct link_settings { /* texts must live as long as the link */
    struct event_base *base;
    redis_url url;
    tls *tls; /* where the URL asks for it, else NULL; must live as long as the link */
    const char *user, *password, *prefix, *client_name;
    const char *sentinel_user, *sentinel_password;
    codec_limits limits;
    int64_t connect_timeout_ms, reply_timeout_ms, ping_ms, tombstone_ms;
    uint32_t inline_value;
    enum link_foreign foreign;
    uint64_t stream_bytes, random_seed;
} link_settings;

typedef struct link_figures {
    uint64_t bytes_sent, bytes_received, scripts_loaded;
    int64_t round_trip_us;
    char server[URL_PLACE_TEXT_MAX]; /* of this session, or the last; "": none yet */
    bool without_scripts;
} link_figures;

struct link;

struct link *link_create(const link_settings *settings, const link_callbacks *callbacks,
                         void *context); /* NULL: no memory */
void link_destroy(struct link **self);

/* Begin a session: connected() or disconnected() follows. */
void link_connect(struct link *self);
/* End it; nothing of it is called back any more. */
void link_disconnect(struct link *self);

/* false: the request could not be sent; the session is of no more use. */
/* node: this map's, which is claimed for identity, a number of this map alone. */
bool link_join(struct link *self, uint64_t epoch, uint64_t number, uint32_t node,
               uint64_t identity);
bool link_push(struct link *self, const sync_action *push);
bool link_compare(struct link *self, const sync_action *push);
bool link_emit(struct link *self, const sync_action *emit);
bool link_load(struct link *self);
bool link_range(struct link *self, uint64_t epoch, uint64_t number, uint32_t limit);
bool link_fetch(struct link *self, uint64_t id, const uint8_t *key, size_t key_size);
/* The same for a worker that waits: asked() follows, also with values that are not larder's;
 * with_end: and with how long these live. 0; -1: it could not be sent; -2: a name that cannot be in
 * Redis. */
int link_ask(struct link *self, uint64_t id, const uint8_t *key, size_t key_size, bool with_end);

bool link_mark(struct link *self, const sync_action *push);
bool link_mark_page(struct link *self, uint64_t from);

void link_read_figures(const struct link *self, link_figures *out);

#endif
