/* link_internal.h: what link.c (the session), link_greeting.c (how it begins), link_push.c and
 * link_requests.c (commands and replies) and the other link_*.c share.
 */
#ifndef LARDER_DAEMON_REDIS_LINK_INTERNAL_H
#define LARDER_DAEMON_REDIS_LINK_INTERNAL_H

#include "daemon/redis/cluster.h"
#include "daemon/redis/connection.h"
#include "daemon/redis/link.h"
#include "daemon/redis/names.h"
#include "daemon/redis/script.h"
#include "daemon/redis/sentinel.h"
#include "daemon/redis/unscripted.h"
#include "daemon/redis/untold.h"

enum request_kind {
    REQUEST_AUTH = 1,
    REQUEST_SELECT,
    REQUEST_NAME,
    REQUEST_SCRIPT, /* index: enum script_id */
    REQUEST_SERVER, /* INFO server */
    REQUEST_STATE,  /* CLUSTER INFO */
    REQUEST_ROLE,   /* where Sentinels named the server */
    REQUEST_WATCH,  /* where scripts are refused: whether there is another way */
    REQUEST_SUBSCRIBE,
    REQUEST_PING,
    REQUEST_CLIENT_ID,     /* of the channel's connection */
    REQUEST_LISTEN,        /* SUBSCRIBE or PSUBSCRIBE to changes of keys */
    REQUEST_TRACK,         /* CLIENT TRACKING ON */
    REQUEST_NOTIFICATIONS, /* CONFIG GET */
    REQUEST_TRACKED,       /* CLIENT TRACKINGINFO */
    REQUEST_JOIN,
    REQUEST_PUSH,    /* pointer: batch, index */
    REQUEST_COMPARE, /* the same */
    REQUEST_RANGE,
    REQUEST_FETCH, /* id */
    REQUEST_ASK,   /* id; index 1: behind a REQUEST_TTL */
    REQUEST_TTL,
    REQUEST_UNSCRIPTED, /* index: unscripted.c's */
    REQUEST_MARK,       /* invalidations of many */
    REQUEST_MARK_PAGE,
    REQUEST_MARK_SET, /* which set it is */
    REQUEST_EMIT,     /* pointer: batch */
    REQUEST_FLUSHED   /* INFO commandstats; index: of the cluster's node */
};

#define LINK_ENDS 64u /* of a cluster's nodes, each answers when it does */

struct link {
    link_settings settings;
    link_callbacks callbacks;
    void *context;
    resolver *resolver;
    sentinel *sentinel;             /* NULL: the URL names the server itself */
    url_place server;               /* of this session */
    bool begun;                     /* link_connect() was called, and it is not over */
    connection *commands, *channel; /* with a cluster, commands is NULL */
    cluster *cluster;               /* NULL: no cluster */
    untold *untold;                 /* events of a cluster that have yet to be told */
    char (*run_ids)[48];            /* of the cluster's nodes; "": not known */
    size_t run_ids_known;
    uint64_t *flushed;      /* how often each of the nodes was, when this session began */
    bool foreign_unwatched; /* with a cluster, though the settings ask for it */
    struct event *ping, *broken;
    bool commands_ready, channel_ready, told_connected;
    unscripted *unscripted;
    bool without_scripts; /* in this session: the server refused them ... */
    char refusal[200];    /* ... with these words */
    uint32_t scripts_loading;
    bool load_wanted; /* scripts() is owed */
    char sha[SCRIPT_COUNT][41];
    char run_id[48], history[48], redis_version[32];
    char stream[NAMES_FLEET_MAX], channel_name[NAMES_FLEET_MAX], mark_set[NAMES_FLEET_MAX];
    names_pair names;
    uint8_t *event;
    size_t event_size; /* room of event */
    uint64_t random;
    uint64_t join_epoch, join_number, join_identity;
    uint32_t join_node;
    uint64_t marks_id; /* of the fleet's set, as asked with the last join; 0: there is none */
    bool join_repeated;
    struct event *load_later;
    int64_t loaded_us;   /* when scripts were loaded last because Redis had lost them */
    uint32_t loads;      /* one soon after the other */
    int64_t walk_us;     /* since when the fleet's set is read ... */
    uint32_t walk_pages; /* ... and how many pages of it were asked for */
    uint64_t range_epoch, range_number; /* the range that was asked for: behind this entry */
    uint32_t range_limit;
    uint32_t range_most; /* what that may be: less after a reply that was over redis.max_reply */
    bool range_out;
    uint64_t average_event; /* bytes, smoothed */
    uint64_t bytes_sent, bytes_received, scripts_loaded;
    int64_t round_trip_us;
    int64_t channel_id; /* of its connection, as Redis counts them */
    bool warned;
    struct {
        uint64_t id;
        int64_t left_ms; /* < 0: none */
    } ends[LINK_ENDS];   /* PTTL's last answers, until those of the ASKs behind them come */
    sync_change changes[SYNC_PAGE_MAX];
};

/* The session is over; disconnected() is called once, by the loop. */
void link_fail(struct link *self, enum sync_cause cause, const char *why, bool timed_out,
               bool protocol);
/* What an error reply says about the session, if anything. false: it concerns the one request. */
bool link_session_error(const reply *error, enum sync_cause *cause);
bool link_send(struct link *self, connection *to, enum request_kind kind, uint32_t index,
               uint64_t id, void *pointer, int count, const char *const *arguments,
               const size_t *sizes);

void link_commands_answer(void *self, const connection_tag *tag, const reply *got, int64_t sent_us);

/* ---- What a session begins with (link_greeting.c). false: no memory. */
bool link_greet(struct link *self, connection *to);
bool link_send_scripts(struct link *self, connection *to);
bool link_load_now(struct link *self); /* whatever link_load() would wait for */
void link_load_later(evutil_socket_t fd, short what, void *self);
void link_commands_up(void *self); /* connection_callbacks' up */
void link_channel_up(void *self);
void link_got_script(struct link *self, uint32_t index, const reply *got);
void link_script_done(struct link *self);
void link_got_server(struct link *self, uint32_t node, const reply *got);
/* The value of "name:" in INFO's text; "": there is none. */
void link_info_field(const reply *got, const char *name, char *out, size_t out_size);
void link_got_role(struct link *self, const reply *got);
void link_got_subscribed(struct link *self, const reply *got);
/* An error that ends the session: any, for what the session cannot do without. */
bool link_greeting_failed(struct link *self, const connection_tag *tag, const reply *got);

/* ---- Where scripts are refused (link_unscripted.c) */
bool link_unscripted_create(struct link *self); /* false: no memory */
/* Was the request a script that the server does not permit? Then all is done. */
bool link_refused_script(struct link *self, const connection_tag *tag, const reply *got);
/* Is the command a script that must be carried out in another way? *sent: it is on its way. */
bool link_call_unscripted(struct link *self, const connection_tag *tag, int count,
                          const char *const *arguments, const size_t *sizes, bool *sent);
/* Entries that the stream is to be trimmed to, about. */
uint64_t link_stream_length(const struct link *self);
void link_out_of_step(struct link *self, const char *what);
/* Redis will not do what the session needs: parked for a missing right, else tried again. */
void link_refused(struct link *self, const char *what, const reply *error);

/* With a cluster. */
bool link_cluster_create(struct link *self);
/* A node's INFO, of which the history has been read. */
void link_cluster_server(struct link *self, size_t node, const reply *got);
void link_cluster_flushed(struct link *self, size_t node, const reply *got);
void link_cluster_state(struct link *self, const reply *got);
void link_cluster_ping(struct link *self);
/* connection_open() with the settings of this link. */
connection *link_open(struct link *self, const url_place *place,
                      const connection_callbacks *callbacks, void *context);
bool link_open_channel(struct link *self, const url_place *place);

void link_got_emit(struct link *self, struct sync_batch *batch, const reply *got);
void link_got_join(struct link *self, const reply *got);
void link_got_push(struct link *self, const connection_tag *tag, const reply *got);
void link_got_record(struct link *self, const connection_tag *tag, const reply *got);
void link_got_range(struct link *self, const reply *got);
void link_range_failed(struct link *self); /* a reply was over a limit, or none of Redis's */
void link_got_fetch(struct link *self, uint64_t id, const reply *got);
/* foreign.c: noticing what other programs change. false: it could not be sent. */
bool link_foreign_listen(struct link *self); /* on the channel, before it is ready */
bool link_foreign_begin(struct link *self);  /* both connections are ready */
bool link_foreign_probe(struct link *self);  /* now and then: is it still told? */
void link_foreign_answer(struct link *self, const connection_tag *tag, const reply *got);
void link_foreign_message(struct link *self, const reply *message);
void link_got_ask(struct link *self, const connection_tag *tag, const reply *got);
void link_got_ttl(struct link *self, uint64_t id, const reply *got);
/* The record and value of a key, as MGET gives them. false: there is no record to be read. */
bool link_read_winner(const reply *record, const reply *value, sync_change *out);
bool link_mark_set(struct link *self); /* asks which set there is, ahead of a join */
void link_got_mark_set(struct link *self, const reply *got);
void link_got_mark(struct link *self, const reply *got);
void link_got_mark_page(struct link *self, const reply *got);
void link_got_message(struct link *self, const char *text, size_t size);

#endif
