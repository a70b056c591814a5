/* sim.h: the simulated fleet: what its parts know of each other. Each host is the real protocol
 * machine (daemon/sync) over a model of its map (map.c), all talk to one model of Redis (server.c)
 * through wires that lose and delay (host.c); world.c lets a seed choose what happens next, and
 * check.c says what must hold. Nothing here has a clock, a thread or a socket: a seed replays
 * exactly.
 *
 * Failures leave by sim_fail(), from anywhere, to sim_run().
 */
#ifndef LARDER_TESTS_SIM_SIM_H
#define LARDER_TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/sync/sync.h"
#include "tests/sim/rules.h"

enum {
    HOSTS_MAX = 5,
    KEYS_MAX = 6,
    SERVERS_MAX = 4, /* nodes of a cluster */
    BUCKETS = 2,     /* of floors: keys share them, as those of a map do */
    PAGE_MAX = 8,
    BATCH_MAX = 4,
    KEPT_MAX = 4,    /* batches in flight */
    ASKED_MAX = 128, /* requests on one connection */
    HEARD_MAX = 256, /* messages of the channel that one host has not read: then it is cut */
    ORPHANS_MAX = 64,
    STREAM_MAX = 8192,
    WAITING_MAX = 64,
    NODES_MAX = 256,
    VALUE_SIZE = 8, /* a value is its hash */
    LARGE_SIZE = 4096,
    HUGE_SIZE = 65536
};

#define SIM_KEEP_MS INT64_C(86400000) /* T: how long removals are remembered */
#define SIM_BEGAN_MS INT64_C(1000000000000)
#define SIM_AHEAD_MS REPLICA_AHEAD_MS
/* Invalidations of many, by what they name. */
enum {
    GROUPS = 3,
    PREFIXES = 2,                    /* three keys each */
    MARK_PREFIX = GROUPS,            /* and the next */
    MARK_BUCKET = GROUPS + PREFIXES, /* and the next */
    MARK_CLEAR = MARK_BUCKET + BUCKETS,
    MARK_FLOOR,        /* f */
    MARK_SET_GROUPS,   /* F */
    MARK_SET_PREFIXES, /* A; in a map: its own arrivals floor */
    MARKS,
    MADE_MAX = 64,
    MARKS_AT_ONCE = 3, /* of one request */
    MARKS_PAGE = 2     /* of one page of the set */
};

#define SIM_RECENTLY_MS INT64_C(30000) /* WRITER_ACKED_RECENTLY_MS of the map */

/* ---- What one seed switches on ----------------------------------------------------------------
 */

enum fault {
    FAULT_CUT,         /* a connection ends; what it carried is lost, in part */
    FAULT_ORPHANS,     /* what it carried to Redis may be carried out later all the same */
    FAULT_STALL,       /* nothing passes between one host and Redis for a while */
    FAULT_CRASH,       /* larderd dies and is started again */
    FAULT_BUSY,        /* the map's gate is busy */
    FAULT_NO_SCRIPT,   /* SCRIPT FLUSH */
    FAULT_NO_MEMORY,   /* OOM */
    FAULT_REFUSE,      /* Redis refuses a key */
    FAULT_NOT_READY,   /* LOADING, READONLY; or a right is missing */
    FAULT_TRIM,        /* the stream is cut short */
    FAULT_SHORT,       /* it is short */
    FAULT_FAILOVER,    /* to a server that lacks the last writes, with another clock */
    FAULT_EMPTY,       /* a restart without a dump */
    FAULT_FLUSH,       /* FLUSHALL, or the stream alone goes; nobody is disconnected */
    FAULT_REDIS_EVICT, /* values, or records, too */
    FAULT_DEAF,        /* messages of the channel are lost without a trace, or come twice */
    FAULT_EVICT,       /* the map evicts */
    FAULT_FORGET,      /* the map forgets tombstones that Redis has */
    FAULT_EXPIRY,      /* values expire */
    FAULT_CLOCK,       /* hosts' clocks are set */
    FAULT_JUMP,        /* seconds, minutes pass */
    FAULT_WIPE,        /* a host loses its map */
    FAULT_FOREIGN,     /* other programs write plain values */
    FAULT_FILL,        /* fills that take their time */
    FAULT_LARGE,       /* values that do not travel with their event */
    FAULT_TWINS,       /* two hosts have one node id: a map is a copy of another's */
    FAULT_VERIFY,      /* none: each entry is compared with its record all the time */
    FAULT_FAR,         /* clocks that are set by more than may be */
    FAULT_ABSENCE,     /* a host is away longer than removals are remembered */
    FAULT_SWITCH,      /* a map gets a new generation */
    FAULT_MARKS,       /* groups, prefixes, buckets, all are invalidated */
    FAULT_CROWD,       /* and there is room for few of them */
    FAULT_SET,         /* their set in Redis is lost */
    FAULT_CLUSTER,     /* Redis is a Cluster: set and event are two steps, on two nodes */
    FAULT_MIGRATE,     /* slots move between its nodes */
    FAULT_KILL,        /* workers die between their commit and the wake-up */
    FAULT_UNSCRIPTED,  /* a server that refuses scripts: a push is not one step */
    FAULT_GHOST,       /* a larderd that was stopped wakes when its successor is at work */
    FAULT_DAMAGE,      /* a map is damaged, and begins anew */
    FAULT_OVERTAKEN,   /* what is under way comes to nothing, or is carried out when all else has
                          gone on: the scenes of scenes.c */
    FAULT_COUNT
};

/* ---- Redis ------------------------------------------------------------------------------------
 */

typedef struct stream_entry {
    uint64_t epoch, number, nonce, emitter;
    bool begin, with_value;
    bool skipped; /* by a rule that is off */
    int key;
    replica_record record;
} stream_entry;

typedef struct stored { /* a key with its version record */
    bool there;         /* the record */
    bool untold;        /* a cluster has stored it, and no event has said so yet */
    replica_record record;
    int64_t until;                   /* the record's own end */
    bool plain;                      /* the value that anybody can GET */
    bool evicted, unlinked, foreign; /* the record, the value is gone; it is another program's */
    uint64_t plain_hash;
    int64_t plain_until;
} stored;

typedef struct server_data { /* what a failover takes from the replica */
    stored keys[KEYS_MAX];
    uint64_t marks_id; /* of the mark set; 0: there is none */
    uint64_t marks[MARKS];
    bool stream_there;
    uint64_t last_epoch, last_number; /* of the stream, even if all is trimmed */
    size_t first, count;              /* entries [first, count) of stream[] */
    size_t nodes;                     /* node ids that are claimed, and for whom */
    uint32_t node_ids[NODES_MAX], node_owners[NODES_MAX];
    stream_entry *stream;
} server_data;

enum asked {
    ASK_CONNECT,
    ASK_JOIN,
    ASK_PUSH,
    ASK_RECORD,
    ASK_EMIT,
    ASK_RANGE,
    ASK_FETCH,
    ASK_LOAD,
    ASK_MARK,
    ASK_MARK_PAGE
};

typedef struct request {
    enum asked kind;
    unsigned server;                /* the cluster's node that it was sent to */
    bool asking;                    /* with ASKING */
    stream_entry events[BATCH_MAX]; /* EMIT: limit of them */
    uint64_t epoch, number, id, nonce, emitter;
    uint32_t limit;
    struct sync_batch *batch;
    size_t index;
    int key;
    bool quiet, remove;
    uint32_t node, identity; /* JOIN */
    int64_t redis_ms; /* Redis's time as the sender believes it to be; in the reply, as it is */
    replica_record record;
    size_t marks_count;
    replica_mark marks[MARKS_AT_ONCE];
    uint64_t page;
    /* the reply, once Redis has worked it off */
    enum sync_outcome outcome;
    bool has_change, fails, replayed; /* replayed: equal to what was there */
    uint64_t plain_hash;              /* what the value that comes with changes[0] is */
    enum sync_cause cause;
    sync_joined joined;
    uint64_t set_id, next;
    size_t count;
    sync_change changes[PAGE_MAX];
} request;

/* Of a cluster. All that is the fleet's (stream, set of marks, node ids) has one. */
enum { STREAM_SLOT = KEYS_MAX, SLOTS };
enum slot_state {
    SLOT_RESTS,
    SLOT_LEAVES, /* nothing has moved yet */
    SLOT_SPLIT,  /* of two keys one is here and one is there */
    SLOT_GONE    /* all is over there, where only who asks gets it */
};

typedef struct slot {
    unsigned owner, to, replica_at; /* replica_at: whose replica has seen what stands there */
    enum slot_state state;
} slot;

typedef struct server {
    server_data data, replica;
    char run_id[24];
    unsigned life;
    int64_t skew;
    bool scripts, no_memory, loading, denied;
    unsigned refused; /* mask of keys; STREAM_SLOT: the set of marks */
    unsigned nodes;   /* 1: no cluster */
    unsigned lives[SERVERS_MAX];
    slot slots[SLOTS];
    request orphans[ORPHANS_MAX];
    size_t orphan_count;
} server;

/* ---- A host -----------------------------------------------------------------------------------
 */

typedef struct held_entry { /* an entry of the map; its value is its hash */
    bool there, dirty;
    bool late; /* a removal, and Redis may have had something newer already when it came */
    replica_record record;
    int64_t acked_ms; /* 0: not known to be in Redis */
    uint64_t row;
} held_entry;

typedef struct host_map {
    held_entry keys[KEYS_MAX];
    uint64_t floors[BUCKETS], fill_floor;
    uint64_t marks[MARKS], floor_untold;
    uint64_t
        cleared; /* of marks[MARK_CLEAR]: what is more is only what the set's floor stood for */
    bool untold[MARKS], unswept[PREFIXES];
    unsigned marks_walk;
    uint64_t next_row, clock, clock_seen;
    int64_t offset_ms, redis_ms; /* Redis's clock minus ours, and minus the monotonic one */
    bool clock_known;
    uint32_t node, identity;
    replica_position position;
    bool seen_any[KEYS_MAX], seen_ahead[KEYS_MAX];
    uint64_t lowered_from;         /* the highest that the clock has been taken back from */
    replica_record seen[KEYS_MAX]; /* the newest that ever was held here */
    bool filling;
    int fill_key;
    larder_version fill_version;
} host_map;

typedef struct message {
    bool numbered;
    stream_entry entry;
} message;

struct kept { /* what has been stored of a batch, and not been told */
    const struct sync_batch *batch;
    uint32_t count;
    stream_entry events[BATCH_MAX];
};

typedef struct host {
    int number;
    struct sync *machine, *ghost; /* ghost: of a larderd that was stopped, and replaced */
    sync_settings settings;
    host_map map;
    int64_t skew, beat_at;
    bool busy, armed, subscribed, just_armed;
    bool dies_applying;          /* larderd dies inside the next apply */
    unsigned dies_in;            /* so many machine steps; 0: it lives */
    uint64_t stalled_until;      /* a step's number */
    uint64_t head, worked, tail; /* head..worked: replies; worked..tail: not yet at Redis */
    uint64_t heard_head, heard_tail;
    struct kept kept[KEPT_MAX];
    uint64_t join_epoch, adopted_until; /* for RULE_BEGINNING and RULE_POSITION_AFTER_RESYNC */
    /* From here on nothing is looked at that was not written before, in the same seed. */
    request asked[ASKED_MAX];
    message heard[HEARD_MAX];
    replica_record rows[SYNC_BATCH_MAX];
    replica_batch rows_out;
    replica_marks marks_out;
} host;

/* ---- The world --------------------------------------------------------------------------------
 */

typedef struct truth { /* what was written, ever */
    bool any, lost;    /* lost: by no fault of ours, nobody holds it any more */
    bool forgotten;    /* Redis has evicted its record, once */
    bool buried;       /* a deletion that was forgotten because of its age */
    bool silent;       /* who should have told of it has lost its map before */
    replica_record newest;
    int64_t since_ms;
} truth;

struct made { /* an invalidation of many */
    uint64_t clock;
    uint64_t counts; /* what is no newer than this must be gone by it */
};

typedef struct world {
    uint64_t seed, chance, step, failover_at;
    int64_t now_ms;
    unsigned hosts_count, keys_count, steps, trouble;
    bool faults[FAULT_COUNT];
    enum fault events[FAULT_COUNT]; /* of these, what can happen at a step */
    unsigned events_count;
    bool calm; /* all faults are over */
    server server;
    host hosts[HOSTS_MAX];
    truth truth[KEYS_MAX];
    struct made newest_made[MARKS];    /* of the invalidations that have returned, */
    struct made made[MARKS][MADE_MAX]; /* and all of these, the last MADE_MAX */
    unsigned made_count[MARKS];
    char key_names[KEYS_MAX][8];
    size_t emitted, stream_max; /* stream_max 0: as long as it likes */
    bool in_machine;
    bool tracing, feeding; /* feeding: see feed() in host.c */
    sync_event waiting[WAITING_MAX];
    size_t waiting_count;
} world;

extern world sim;

/* ---- sim.c: running one seed ------------------------------------------------------------------
 */

/* NULL: all held. Else what did not (until the next call). */
const char *sim_run(uint64_t seed, enum rule off, bool tracing);
void sim_create(void);

/* LARDER_SEED, or 1; a new one in the long form. */
uint64_t sim_first_seed(void);
void sim_destroy(void);
void sim_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define TRACE(...) (sim.tracing ? sim_trace(__VA_ARGS__) : (void)0)
uint64_t sim_random(void);
unsigned sim_pick(unsigned below);
static inline bool sim_one_in(unsigned n)
{
    return sim_pick(n) == 0;
}
bool sim_large(uint64_t hash);
uint64_t sim_size(uint64_t hash);
int sim_key(const uint8_t *key, size_t size);
void sim_name_key(int key, replica_record *record);
/* A record in a few letters, good until the fourth next call. */
const char *sim_text(const replica_record *record);

/* ---- server.c ---------------------------------------------------------------------------------
 */

void server_reset(server *self, stream_entry *stream, stream_entry *replica_stream);
int64_t server_wall(const server *self);
sync_change server_change(const stream_entry *entry, bool numbered);
void server_publish(const stream_entry *entry, bool numbered);
bool server_emit(const request *r, stream_entry *entry); /* false: no stream of that epoch */
void server_lose_marks(void);
void server_work(request *asked);
stream_entry server_event(const request *pushed);
void server_orphan(const request *asked);
void server_work_orphan(void);
void server_set_clock(int64_t by);
void server_expire(void); /* records, too */
/* Of all nodes, or of one of a cluster. */
enum { ALL_NODES = SERVERS_MAX };
void server_is_another(unsigned node);
void server_forget_stream(void);
bool server_knows_node(uint32_t node);
void server_flush(bool stream_alone);
void server_trim(void);
void server_evict(int key, bool record_too);
void server_foreign_write(int key);
/* Too far ahead of its clock? And an invalidation's clock, but no more than that. */
bool server_ahead(uint64_t clock);
uint64_t server_believed(uint64_t clock);
bool server_plain_there(const stored *at);

/* ---- cluster.c --------------------------------------------------------------------------------
 */

bool server_is_cluster(void);
void cluster_begin(void);
bool cluster_redirects(request *r); /* true: it is sent on to another node */
bool cluster_tries_again(const request *r);
void cluster_empty(unsigned node);
void server_replicate(void);
void server_fail_over(unsigned node);
void server_restart_empty(unsigned node);
void server_migrate(int number); /* a slot: one step further */
void cluster_settle(void);       /* all have arrived */

/* ---- map.c ------------------------------------------------------------------------------------
 */

uint32_t map_draw_node(void);
void map_reset(host_map *self); /* a new one, with a node id of its own */
int64_t host_wall(const host *self);
bool map_live(const host *self, int key); /* a reader would get a value */
unsigned map_dirty(const host_map *self);
/* What workers and the janitor do. */
void map_set(host *self, int key, enum replica_kind kind, int64_t expires_at_ms);
void map_evict(host *self, int key);
void map_expire(host *self);
void map_forget_old(host *self); /* tombstones older than T */
void map_switch(host *self);     /* a new generation: with all that must stay */
void map_damage(host *self);     /* one without what stood there */
void map_copy(host *self, const host *from);
/* Does Redis's clock say that this is too far ahead? */
bool map_ahead(const host_map *self, uint64_t clock);
void map_observe(host_map *self, uint64_t clock);
/* An invalidation's clock, but no more than that. */
uint64_t map_believed(const host_map *self, uint64_t clock);
void map_forget_tombstones(host *self);
void map_fill_begin(host *self, int key);
void map_fill_end(host *self);
/* The port. */
int map_outbox(host *self, const sync_action *action);
int map_apply(host *self, const sync_action *action);
int map_acknowledge(host *self, const sync_action *action, size_t *cleared);

/* What is there, or comes in, of this version is dead: a removal of the same version. */
void map_bury(host *self, int key, larder_version version);
larder_version map_next_version(host *self);
void map_wake(host *self);

/* ---- many.c -----------------------------------------------------------------------------------
 */

const char *many_name(int mark);
int many_number(const uint8_t *name, size_t size);
bool many_concern(int mark, int key, const replica_record *record);
/* The clock of what has killed the record for a reader of this host; arriving: for one that comes
 * in; 0: it lives. */
uint64_t many_death(const host *self, int key, const replica_record *record, bool arriving);
void many_invalidate(host *self, int mark); /* a worker does; or dies over it */
bool many_sweep(host *self);                /* larderd, one step; false: nothing is left */
void many_janitor(host *self);
bool many_untold(const host_map *self);
void many_arrive(host *self, replica_event *event);
void many_read_out(host *self, const sync_action *action);
void many_tell(host *self, const sync_action *action);
void many_server_take(request *r);
void many_server_page(request *r);
sync_change many_change(int mark, uint64_t clock);
void many_forgotten(void); /* somebody has lost its table: what does nobody know any more? */
void many_check(void);     /* at rest */

/* ---- host.c -----------------------------------------------------------------------------------
 */

void host_start(host *self); /* larderd starts; the one before died where it stood */
void host_stop(host *self);  /* the same, but that one was only stopped */
void host_wake_ghost(host *self);
void host_say(host *self, enum sync_event_kind kind);
void host_recheck(host *self); /* the map has dirty entries */
void host_disconnect(host *self, enum sync_cause cause);
void host_work_one(host *self);
void host_give_reply(host *self);
void host_give_message(host *self);
void host_hear(host *self, const stream_entry *entry, bool numbered);
bool host_stalled(const host *self);
static inline bool host_waits(const host *self) /* anything under way? */
{
    return self->head != self->tail || self->heard_head != self->heard_tail;
}

/* ---- wraps.c: looks into the machine, and is in its way when a rule is off */

uint64_t machine_nonce(const struct sync *machine);    /* of the entry it has asked about */
uint64_t machine_marks_id(const struct sync *machine); /* of the set that it knows; 0: none */
uint64_t machine_nonce(const struct sync *machine);    /* of the entry it has asked about */

/* ---- world.c ----------------------------------------------------------------------------------
 */

void world_begin(uint64_t seed);
void world_run(void);
host *world_any_host(void);
int world_any_key(void);
void world_let_all_through(void); /* until nothing is under way */
void world_pass_time(void);       /* on to when somebody wants to be called */
/* The others go on, without it; until they are in step: false: they are not. */
void world_go_on_without(const host *away, unsigned turns);
bool world_settle_without(const host *away);
bool world_in_step(const host *self);
void world_wipe(host *self);
void world_copy_map(host *self, const host *from);

/* ---- scenes.c ---------------------------------------------------------------------------------
 */

void scenes_play(host *self);

/* ---- ending.c ---------------------------------------------------------------------------------
 */

void ending_run(void);

/* ---- check.c ----------------------------------------------------------------------------------
 */

void check_written(int key, const replica_record *record);
void check_removed(int key, const replica_record *record);
/* Is the newest write held by Redis, or by a host other than that one? */
bool check_known(int key, const host *without);
/* Something went that may go: is the newest write nowhere now? */
void check_lost(int key);
/* A cluster has stored what nobody has told of: is there still somebody who will? */
void check_untold(int key);
/* Redis refuses a key for its own sake; acknowledged: it had taken this once. */
void check_refused(int key, bool acknowledged);
/* A host, new here or away for long, drops what has no record. */
void check_forgets(const host *self, int key);
void check_held(host *self, int key);
/* A write got another version than it had: Redis took that for too far ahead. */
void check_stamped(int key, const replica_record *old, const replica_record *anew);
/* A record too far ahead gave way to what was written later: which of the two will stay is open. */
void check_gave_way(int key);
/* Everybody who was there has forgotten this deletion, so long ago was it. */
void check_buried(int key);
void check_bounds(const host *self);
bool check_settled(void);
int64_t check_told_within(void);
void check_deletions_told(void);
void check_converged(void);
void check_never_settled(void) __attribute__((noreturn));

#endif
