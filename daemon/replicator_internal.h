/* replicator_internal.h: what replicator.c (events and actions), replicator_life.c (settings,
 * start, stop, state, status) and replicator_say.c (the log) share.
 */
#ifndef LARDER_DAEMON_REPLICATOR_INTERNAL_H
#define LARDER_DAEMON_REPLICATOR_INTERNAL_H

#include "daemon/deadline.h"
#include "daemon/redis/connection.h"
#include "daemon/redis/link.h"
#include "daemon/replicator.h"
#include "daemon/replicator_poll.h"
#include "daemon/sync/sync.h"

#define REPLICATOR_QUEUE 1024u
#define SWEEP_PAUSE_US 500 /* between two pieces of a sweep */
#define SWEEP_BUSY_US 50000

struct replicator {
    replicator_settings settings; /* texts are our own copies */
    char *texts[6];
    char client_name[128];
    redis_url url;
    struct event_base *base;
    larder *map;
    uint64_t fence;
    struct sync *machine;
    struct link *link;
    struct deadline *timer; /* the machine's */
    struct event *wake, *beat, *drain, *ended, *sweep, *round;
    replica_batch rows;
    replica_marks marks;
    replica_sweep sweeping;
    sync_event queue[REPLICATOR_QUEUE];
    size_t queue_first, queued;
    bool running, fenced, stopping, finished, told;
    void (*stopped)(void *context);
    void *stopped_context;
    void (*on_fenced)(void *context);
    void *fenced_context;

    enum sync_state state;
    int64_t since_ms, error_ms, error_logged_ms, map_logged_ms;
    uint64_t resyncs_told; /* comparisons that the log tells of */
    bool often_told;       /* that they come too often */
    int64_t troubles_ms;   /* the minute in which troubles are counted, monotonic */
    uint32_t troubles;
    uint64_t dirty;  /* entries in the map, at the last beat */
    int64_t left_ms; /* when it was last told that more is refused than is remembered; 0: never */
    bool left_told;  /* and it lasts */
    unsigned left_quiet; /* beats since there was any */
    char error[256], run_id[48], redis_version[32];
    uint64_t timeouts, protocol_errors;
    uint64_t ask_words[SYNC_SLOTS_MAX]; /* names of the requests in these slots */
    struct poll poll;
    bool polling;               /* the loop does not sleep */
    bool taking, look_promised; /* see replicator_ask.c */
    bool clock_told;
    int64_t clock_redis_ms, clock_offset_ms; /* as told to the map */
};

int64_t replicator_wall_ms(void);
int64_t replicator_now_ms(void);
void replicator_say(replicator *self, int priority, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void replicator_trouble(replicator *self, const char *said);
/* Once a second while connected: keys that Redis refuses, beside those that are remembered. */
void replicator_say_left(replicator *self, uint64_t left);
/* Names that the other end gives itself or others, for a log: without the passwords. */
void replicator_mask(const replicator *self, const char *text, char *out, size_t size);
void replicator_feed(replicator *self, const sync_event *event);
/* From within an action: to be worked off after it. */
void replicator_post(replicator *self, const sync_event *event);
/* After every round: has the state changed, is the drain over? */
void replicator_noticed(replicator *self);
/* Read-through: take what workers have asked for; tell those who wait. */
bool replicator_ask_begin(replicator *self);
void replicator_take_asks(replicator *self);
void replicator_keep_look(replicator *self);                      /* at the end of a round */
bool replicator_ask(replicator *self, const sync_action *action); /* false: not sent */
/* A key changed in Redis; context: the replicator. */
void replicator_changed(void *context, const uint8_t *key, size_t key_size);
void replicator_answer(replicator *self, const sync_action *action);
bool replicator_make_events(replicator *self);
extern const link_callbacks replicator_link_callbacks;

#endif
