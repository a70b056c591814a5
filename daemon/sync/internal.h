/* internal.h: the machine's inside, shared by session.c (states, joining, the one step function),
 * outbound.c with rows.c and batches.c (from the map to Redis), inbound.c (from Redis to the map)
 * and the other files of this folder. Nobody else includes it.
 */
#ifndef LARDER_DAEMON_SYNC_INTERNAL_H
#define LARDER_DAEMON_SYNC_INTERNAL_H

#include "daemon/sync/sync.h"

#define RANGES_MAX 256u     /* runs of rows to look at again */
#define RANGE_JOIN 64u      /* rows this close become one run */
#define SILENT_MAX 2u       /* sessions that a push may have ended before each goes alone */
#define READS_AT_A_TIME 32u /* reads that find nothing before the loop gets its turn */
#define FETCHES_MAX 1024u   /* large values waiting to be fetched */
#define FETCHES_OUT 16u     /* of these, asked for */
#define FETCH_BYTES_OUT (8u * 1024u * 1024u)
#define FETCH_TRIES 7u     /* in a session, of a value that is not there yet ... */
#define FETCH_AGAIN_MS 250 /* ... after such a pause, and twice as long each time: 16 s */
#define ASKS_MAX 512u      /* keys that workers wait for */
#define ASKS_OUT 128u      /* of these, asked for */
#define ASKS_TRIES 4u      /* a reply that was overtaken is asked for again */
#define ASKS_ROOM 8u       /* actions left to the others */
#define ASKS_LEFT_MAX REPLICA_FOREIGN_MS
#define CHECKS_MAX 256u    /* of ASKS_MAX: keys that may have been changed */
#define CHECK_MS 20        /* several changes of a key are looked at together */
#define CHECK_OURS_MS 1000 /* and those that may well be larder's own, later */
#define EXPECTED_MAX 8192u
#define ASKS_SHUNNED 16u
#define ASKS_SHUN_MS 60000
#define POSITION_EVERY_MS 1000 /* the place in the stream is stored at least this often */
#define SEEN_EVERY_MS 60000    /* so is how lately that place was the stream's end */
#define MAP_BUSY_MS 50         /* pause before a refused map call is repeated */
#define MAP_ERROR_MS 500       /* the same, after an error that is not "busy" */
#define SESSION_WORKED_MS 1000 /* a session that lasted this long was a success */
#define RECHECK_MAX_MS 60000
#define WALL_STEP_MS 60000       /* what this host's clock may go back by without being suspect */
#define ROUND_TRIP_MOST_MS 10000 /* an answer that took longer says nothing about the time */

/* why a row was read */
enum source { FROM_LOG, FROM_RANGE, FROM_RETRY, FROM_RESYNC, FROM_WANTED, FROM_VERIFY };

enum log_scan {
    LOG_ACTIVE,  /* there may be rows: read now */
    LOG_COOLING, /* the end was reached: look again after the linger */
    LOG_ARMED    /* asleep until a worker writes */
};

enum resync_phase {
    RESYNC_NONE,
    RESYNC_WAITING,    /* until the stream has been read, or for others that came before */
    RESYNC_TOMBSTONES, /* pushed */
    RESYNC_ENTRIES,    /* compared with their records, and what Redis lacks pushed */
    RESYNC_DRAINING
};

#define WANTED_MAX 4096u /* rows that Redis lacks, which wait to be read again and pushed */

struct sync_batch {
    struct sync_batch *next;
    enum source source;
    uint32_t generation; /* of the resync it belongs to */
    enum resync_phase phase;
    bool clean;                 /* clean entries may be in it */
    bool compares;              /* asks for records: nothing is pushed */
    bool emit_wanted, emit_out; /* some of it is stored, and has yet to be told */
    uint64_t epoch;             /* in which it is pushed */
    bool acking;                /* ACKNOWLEDGE is out */
    bool answered_all;          /* and told */
    int64_t sent_ms;            /* when, monotonic */
    int64_t ack_at;             /* not before */
    uint16_t attempts;          /* of the retried row */
    size_t count, answered, ack_count, bytes;
    sync_item *items;
    replica_ack *acks;
    uint8_t *keys;
};

struct retry {
    uint64_t row;
    int64_t due_ms;
    uint16_t attempts;
    uint8_t reason; /* enum sync_outcome */
    bool clean, remove, out;
    bool heard; /* a removal that another host tells outside the numbers: its own to push */
};

struct range {
    uint64_t low, high;
};

/* Dirty rows that Redis refused when the retry set had no room for them: from the first of them on
 * the log is read again when their time has come. */
struct left {
    uint64_t first;
    bool any;
    int64_t due_ms;
    uint16_t attempts;
    uint64_t rows, before; /* how many they are; and were when they were last pushed again ... */
    int64_t again_ms;      /* ... which was then */
};

/* Comparing what the map has with Redis's records: after lost history, and all the time. */
struct verify {
    uint64_t wanted[WANTED_MAX]; /* rows, ascending */
    size_t wanted_count;
    uint64_t row;         /* of the rolling pass */
    int64_t at, began_at; /* its next look; when it began */
    uint64_t entries;     /* in the map, about */
};

struct outbound {
    enum log_scan scan;
    uint64_t scan_row;
    int64_t scan_at; /* COOLING: until */
    bool scan_lone;  /* one row was found: only its own round trip is waited for */
    struct range ranges[RANGES_MAX];
    size_t range_count;
    int64_t ranges_at;
    struct retry *retries; /* sorted by row */
    size_t retry_count;
    int64_t retry_at;     /* earliest due */
    int64_t no_memory_ms; /* when Redis last said that it has none, monotonic; 0: never */
    struct left left;
    struct sync_batch *first, **last;
    size_t batches, in_flight_bytes, in_flight_items;
    bool answered;   /* some push of this session was, other than those tried again */
    uint32_t silent; /* sessions in a row that ended with pushes out, and none answered */
    bool reading;
    enum source read_source;
    uint64_t read_row;
    uint32_t idle_reads;
    int64_t read_at; /* not before: the map was busy, or the loop needs its turn */
    bool need_scripts, loading;
    enum resync_phase resync;
    uint32_t resync_generation;
    uint64_t resync_row;
    bool resync_reads_on;  /* WAITING: until the stream has been read, too */
    int64_t resync_at;     /* WAITING: not before */
    int64_t resynced_ms;   /* when the last one was begun ... */
    uint32_t resyncs_soon; /* ... and how many, one soon after the other */
    int64_t recheck_at, recheck_pause_ms;
    const replica_record *selected[SYNC_BATCH_MAX];
};

struct change_set { /* what one apply carries */
    replica_event events[SYNC_APPLY_MAX];
    uint64_t full_size[SYNC_APPLY_MAX];
    bool from_stream[SYNC_APPLY_MAX];
    size_t count, bytes;
    replica_position position;
    bool with_position;
};

enum fetch_state { FETCH_FREE, FETCH_QUEUED, FETCH_OUT };

struct fetch {
    enum fetch_state state;
    unsigned tries; /* that brought nothing */
    bool overtaken; /* by an event of its key */
    int64_t due_ms; /* of one that is queued: not before */
    uint64_t id, size;
    replica_record wanted; /* key points to memory of its own */
};

struct fetches {
    struct fetch *list;
    size_t count, out;
    uint64_t bytes_out, last_id;
    int64_t due_ms; /* when one of those that are queued can be asked for */
};

struct inbound {
    struct change_set *collecting, *applying;
    bool apply_wanted, apply_out; /* applying holds work; the call is out */
    int64_t apply_at;
    bool catching_up, range_out;
    uint64_t seen_epoch, seen_number; /* highest seen on the channel, whether taken or not */
    uint64_t range_number;     /* of these, when the range was asked for: it must hold them */
    uint64_t heartbeat_number; /* last number at the previous heartbeat */
    int64_t position_at;       /* when the position was last stored */
};

enum ask_state {
    ASK_FREE,
    ASK_QUEUED,
    ASK_OUT,
    ASK_TAKEN, /* the answer is in a set of changes */
    ASK_DONE   /* to be told */
};

struct ask {
    enum ask_state state;
    enum sync_answer answer;
    uint32_t tries;
    bool overtaken; /* by an event: newest (no key, no value) */
    bool with_end;  /* it was another program's value the first time */
    bool check;     /* it is here and may have been changed by another program */
    int64_t due_ms; /* not to be sent before */
    uint64_t order; /* of the request to Redis */
    uint8_t *key;
    size_t key_size;
    replica_fill fill;
    replica_record newest;
    const struct change_set *set;
    uint64_t slots[SYNC_SLOTS_MAX / 64]; /* who waits */
};

struct expected { /* keys that larder itself has just written in Redis */
    uint64_t hash;
    int64_t until_ms;
};

struct shunned {
    uint64_t hash;
    int64_t until_ms;
};

struct asks {
    struct ask *asks;
    size_t count, queued, out, done;
    uint64_t order;
    struct shunned shunned[ASKS_SHUNNED];
    size_t shun_next;
    size_t checks;
    struct expected *expected;
};

/* The whole table up, then the fleet's set down: where neither is known to hold the other. */
enum exchange { EXCHANGE_NONE, EXCHANGE_UP, EXCHANGE_DOWN, EXCHANGE_APPLYING };

struct marks_state {
    enum exchange exchange;
    bool restart;                   /* UP: from the first one */
    bool floors;                    /* UP: the set was lost, what stands for old ones with it */
    bool quiet;                     /* UP: the set has had all of it before */
    bool untold_first, walking;     /* UP: before the walk over all; what is under way is of it */
    bool look;                      /* there may be some that Redis has not */
    bool reading, pushing, telling; /* waited for */
    bool end;                       /* the marks under way are the last of the walk */
    bool paging, page_spoilt;       /* DOWN: a page is under way; not all of it found room */
    uint64_t page;                  /* where it begins */
    uint64_t set_id;                /* of the set that we have exchanged with; 0: none */
    uint64_t up_id;                 /* UP: of the set that is being filled */
    uint64_t joined_id;             /* of the set that the last join found; 0: none yet */
    uint64_t known_id;              /* of the last set heard of, by a join or by what it was told */
    uint64_t heard_number;          /* UP: the stream's end when the set was found to be another */
    int64_t at;                     /* not before */
    size_t count;
    replica_mark under_way[REPLICA_MARKS_AT_ONCE];
};

struct sync {
    sync_settings settings;
    sync_backoff backoff;
    enum sync_state state;
    int64_t now_ms, wall_ms, lag_ms;
    int64_t wall_offset_ms; /* this host's clock minus the monotonic one: the most there was */
    bool wall_set_back;     /* by more than WALL_STEP_MS, since the machine was made */
    int64_t redis_ms;       /* Redis's clock minus the monotonic one */
    int64_t join_ms;        /* when the join under way was sent */
    uint64_t heard_number;  /* what the last one said was the stream's end, ... */
    int64_t heard_ms;       /* ... and when, by Redis's clock */
    bool clock_known;
    bool started, joined, join_out, rejoin, lost;
    int64_t attempt_at, heartbeat_at, session_ms;
    bool session_counted;
    uint64_t emitter, random;
    char run_id[sizeof((replica_position *)0)->run_id];
    replica_position stored; /* what the map holds */
    replica_position cursor; /* the last event taken */
    replica_position asked;  /* the cursor that the join under way asks about */
    struct outbound out;
    struct inbound in;
    struct fetches fetches;
    struct asks asks;
    struct verify verify;
    struct marks_state marks;
    sync_counters counters;
    sync_action_list *actions; /* of the step under way */
};

/* The next free action, or NULL when the list is full (the rest waits for the next step). */
sync_action *sync_act(struct sync *self, enum sync_action_kind kind);
size_t sync_room(const struct sync *self);
/* Look at the stream before anything else is pushed; lost: it is known that history is. */
void sync_rejoin(struct sync *self, bool lost);
void sync_end_session(struct sync *self, enum sync_cause cause);

bool outbound_create(struct sync *self);
void outbound_destroy(struct sync *self);
void outbound_disconnected(struct sync *self);
/* reads_on: the stream is read on from the cursor. */
void outbound_resync(struct sync *self, bool reads_on);
void outbound_wake(struct sync *self);
void outbound_recheck(struct sync *self, uint64_t dirty); /* so many the map counts */
void outbound_read_from(struct sync *self, uint64_t row); /* the log, once more, to its end */
void outbound_advance(struct sync *self);
int64_t outbound_deadline(const struct sync *self);
bool outbound_drained(const struct sync *self);

/* rows.c: which rows are read next, and which of them go out. */
void rows_read(struct sync *self, const sync_event *event);
void rows_advance(struct sync *self);
/* When there is something to read; SYNC_NEVER: not before something happens. */
int64_t rows_deadline(const struct sync *self);

/* batches.c: what is under way to Redis. */
void batches_destroy(struct outbound *out);
/* Sessions end one after the other and no push is answered: one row at a time goes out, so that it
 * shows which one ends them. */
bool batches_one_by_one(const struct sync *self);
bool batches_push_out(const struct sync *self); /* one that has yet to be answered */
/* Send the selected records. false: no memory; the rows must be read again. */
bool batches_push(struct sync *self, size_t count, const struct retry *retry);
void batches_reply(struct sync *self, const sync_event *event);
void batches_emitted(struct sync *self, const sync_event *event);
void batches_acknowledged(struct sync *self, const sync_event *event);
/* The session is over: what was not answered comes to nothing. */
void batches_disconnected(struct sync *self);
/* History is lost: what was answered and has yet to be acknowledged counts for nothing. */
void batches_forget_answers(struct sync *self);
void batches_advance(struct sync *self);
int64_t batches_deadline(const struct sync *self);
/* Entries that Redis has taken, and the map has not been told of. */
uint32_t batches_unacknowledged(const struct sync *self);

/* What Redis's clock says now, as far as we know. */
int64_t sync_redis_now(const struct sync *self);
/* Redis's clock said redis_ms some time after sent_ms (monotonic). */
void sync_hear_time(struct sync *self, int64_t redis_ms, int64_t sent_ms);
/* Look at the clock, and at the stream, at once. */
void sync_hurry_heartbeat(struct sync *self);
bool sync_ahead(const struct sync *self, uint64_t clock);
/* sync_order() of an item on its way and a record. */
int sync_order_item(const sync_item *item, const replica_record *record);

/* verify.c: which rows are compared, what their records mean, what Redis lacks. */
/* Have we been away for longer than T? Then what has no record goes. */
bool verify_absent(const struct sync *self);
/* Has this host told Redis of it less than half of T ago? */
bool verify_told_lately(const struct sync *self, const replica_record *record);
void verify_begin(struct sync *self); /* history is lost */
void verify_joined(struct sync *self);
void verify_disconnected(struct sync *self);
bool verify_has_room(const struct sync *self);
/* When the rolling pass looks again; SYNC_NEVER: not now. */
int64_t verify_due(const struct sync *self);
bool verify_takes(const struct sync *self, const replica_record *record);
void verify_passed(struct sync *self, const replica_batch *rows);
void verify_answered(struct sync *self, const struct sync_batch *batch, sync_item *item,
                     const sync_change *found);
void verify_want(struct sync *self, uint64_t row);
bool verify_wants(const struct verify *verify, uint64_t row);
/* Rows up to next_row have been read. */
void verify_wanted_read(struct verify *verify, uint64_t next_row);
/* How many records to read from the first wanted row on. */
uint32_t verify_wanted_span(const struct sync *self, uint32_t most);

/* Look at this row again soon. */
void pending_again(struct sync *self, uint64_t row);
/* Push this item's row again: its batch came to nothing for it. */
void pending_put_back(struct sync *self, const struct sync_batch *batch, const sync_item *item);
struct retry *pending_find(struct outbound *out, uint64_t row);
void pending_forget(struct outbound *out, uint64_t row);
void pending_refuse(struct sync *self, const struct sync_batch *batch, const sync_item *item,
                    enum sync_outcome reason);
/* Redis took what it had refused before: this row, and perhaps others. */
void pending_taken(struct sync *self, uint64_t row);
/* Whether deletions go out as mere removals at once, which need no memory. */
bool pending_removes_at_once(const struct sync *self);
/* Rows that were left, once their time has come. */
void pending_left_again(struct sync *self);
uint64_t pending_left(const struct sync *self); /* about: each refusal counts */
struct retry *pending_due(struct sync *self);
/* A session begins. */
void pending_connected(struct sync *self);
/* A removal that Redis has no memory for was told by another host: ours of it, dirty, stands in
 * this row, and waits for as long as that host goes on telling it. anew: it has just come. */
void pending_heard(struct sync *self, uint64_t row, bool anew);

/* marks.c: invalidations of many. */
/* Nothing is owed to the set. */
void sync_marks_begin(struct sync *self);
void sync_marks_joined(struct sync *self, uint64_t set_id, bool lost, bool other_server);
void sync_marks_disconnected(struct sync *self);
void sync_marks_look(struct sync *self); /* some may have been made */
void sync_marks_read(struct sync *self, const sync_event *event);
void sync_marks_answered(struct sync *self, const sync_event *event);
void sync_marks_told(struct sync *self, int status);
void sync_marks_page(struct sync *self, const sync_event *event);
void sync_marks_advance(struct sync *self);
int64_t sync_marks_deadline(const struct sync *self);
/* Nothing else goes out before the exchange is over. */
bool sync_marks_hold(const struct sync *self);
bool sync_marks_drained(const struct sync *self);

bool inbound_create(struct sync *self);
void inbound_destroy(struct sync *self);
void inbound_disconnected(struct sync *self);
void inbound_forget(struct sync *self);
void inbound_joined(struct sync *self, uint64_t last_number);
void inbound_stream(struct sync *self, const sync_change *change);
void inbound_range(struct sync *self, const sync_change *changes, size_t count, bool more);
void inbound_applied(struct sync *self, int status);
/* Let the map mark what it holds of this item's key dirty; false: no room. */
bool inbound_mark_dirty(struct sync *self, const sync_item *item);
/* Take a winner or a fetched value; false: no room. */
bool inbound_take(struct sync *self, const sync_change *change, bool from_stream);
/* The same of what answers a miss. */
bool inbound_take_fill(struct sync *self, const sync_change *change, const replica_fill *fill,
                       enum replica_fill_kind kind);
void inbound_advance(struct sync *self, bool flush);
int64_t inbound_deadline(const struct sync *self);
bool inbound_empty(const struct sync *self);
bool inbound_has_room(const struct sync *self); /* for a page of marks */
/* The map was busy: what came in waits for the next attempt to apply it. */
bool inbound_held_up(const struct sync *self);

bool fetches_create(struct sync *self);
void fetches_destroy(struct sync *self);
/* The local copy of this key is gone: get the new value, of so many bytes. */
void fetches_want(struct sync *self, const replica_record *record, uint64_t size);
void fetches_outdate(struct sync *self, const replica_record *record);
void fetches_came(struct sync *self, uint64_t id, const sync_change *change);
void fetches_disconnected(struct sync *self, enum sync_cause cause);
void fetches_advance(struct sync *self);
int64_t fetches_deadline(const struct sync *self);

bool asks_create(struct sync *self);
void asks_destroy(struct sync *self);
void asks_add(struct sync *self, const sync_event *event);
void asks_changed(struct sync *self, const sync_event *event);
/* This key is being written by larder: that it changes is no news. */
void asks_expect(struct sync *self, const uint8_t *key, size_t key_size);
void asks_answered(struct sync *self, const sync_event *event);
void asks_overtaken(struct sync *self, const replica_record *record);
void asks_applied(struct sync *self, const struct change_set *set, enum sync_answer answer);
void asks_disconnected(struct sync *self, enum sync_cause cause);
void asks_advance(struct sync *self);
int64_t asks_deadline(const struct sync *self);

#endif
