/* sync.h: the replication protocol as a pure state machine: events in, actions out.
 *
 * No socket, no clock, no map call, no thread: the caller says what happened and what time it is,
 * and carries out what the machine asks for. The same input gives the same output, so that a
 * simulator can drive several machines through loss, duplicates, crashes and skewed clocks.
 * replicator.c is the only other caller. Memory failures never abort: work is put off and tried
 * again. Every list in here is bounded by a constant or a setting.
 *
 * doc/protocol.md says what the rules are and why.
 */
#ifndef LARDER_DAEMON_SYNC_SYNC_H
#define LARDER_DAEMON_SYNC_SYNC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/replica.h" /* types only */

#define SYNC_APPLY_MAX 1024u             /* events of one apply: the port's limit */
#define SYNC_APPLY_BYTES (1024u * 1024u) /* bytes of one apply; one larger event goes alone */
#define SYNC_BATCH_MAX 4096u             /* commands of one batch, whatever the settings say */
#define SYNC_PAGE_MAX 128u               /* stream entries of one range page */
#define SYNC_IN_FLIGHT_MAX 32768u        /* commands sent and not answered */
#define SYNC_SLOTS_MAX 512u              /* places where workers wait for what they miss */
#define SYNC_RESYNCS_AT_ONCE 6u          /* of those, without a pause */
#define SYNC_NEVER INT64_MAX

typedef struct sync_settings {
    uint32_t batch_commands, batch_bytes, batches_in_flight, retry_entries;
    int64_t linger_ms;
    int64_t backoff_min_ms, backoff_max_ms, park_ms, retry_max_ms, heartbeat_ms;
    uint32_t breaker_failures;
    int64_t breaker_open_ms;
    uint32_t page;      /* stream entries of one range, 1 .. SYNC_PAGE_MAX */
    bool foreign;       /* CHANGED comes, for larder's own writes, too */
    uint64_t max_value; /* larger values are never fetched */
    int64_t verify_ms;  /* each entry is compared with its record once in so long; 0: never */
    int64_t keep_ms;    /* T: how long removals are remembered */
    bool events_apart;  /* Cluster: what is stored is told by SYNC_ACT_EMIT, batch by batch */
    uint64_t random_seed;
} sync_settings;

/* ---- Order ---------------------------------------------------------------------------------- */

/* < 0, 0, > 0: precedence by (clock, node, kind, value hash), the protocol's one order. */
int sync_order(const replica_record *a, const replica_record *b);

/* ---- Back-off and breaker ------------------------------------------------------------------- */

enum sync_breaker { SYNC_BREAKER_CLOSED, SYNC_BREAKER_OPEN, SYNC_BREAKER_HALF_OPEN };

typedef struct sync_backoff {
    int64_t min_ms, max_ms, open_ms;
    uint32_t threshold, failures;
    enum sync_breaker breaker;
    uint64_t random;
} sync_backoff;

uint64_t sync_random(uint64_t *state); /* splitmix64 */
void sync_backoff_init(sync_backoff *self, int64_t min_ms, int64_t max_ms, uint32_t threshold,
                       int64_t open_ms, uint64_t seed);
/* An attempt begins: an open breaker becomes half-open. */
void sync_backoff_attempt(sync_backoff *self);
/* It failed: how many ms to wait before the next one (full jitter; the first is nearly at once). */
int64_t sync_backoff_failed(sync_backoff *self);
/* It worked, and lasted: start anew. */
void sync_backoff_worked(sync_backoff *self);

/* ---- Events --------------------------------------------------------------------------------- */

/* Why a session ended or could not begin. */
enum sync_cause {
    SYNC_LOST_CONNECTION, /* refused, closed, timed out */
    SYNC_BAD_REPLY,       /* a reply out of step, malformed or over a limit */
    SYNC_NOT_READY,       /* LOADING, READONLY, BUSY, ...: the server says "later" */
    SYNC_NO_PERMISSION    /* NOAUTH, WRONGPASS, NOPERM, a version that lacks a command: park */
};

enum sync_outcome {
    SYNC_STORED,      /* newer or equal: written and emitted (events_apart: only written) */
    SYNC_SAME,        /* equal to what is there; nothing was written or emitted */
    SYNC_OLD,         /* a newer one is there: winner */
    SYNC_NO_STREAM,   /* nothing written: the stream is gone or began a new epoch */
    SYNC_NO_SCRIPT,   /* nothing written: the script must be loaded again */
    SYNC_NO_MEMORY,   /* refused for want of memory: all keys may be */
    SYNC_REFUSED_KEY, /* refused for this key's own sake */
    SYNC_REMOVED,     /* under OOM: the value is gone and others were told; no record stored */
    SYNC_AHEAD,       /* nothing written: the version is too far ahead of Redis's clock: redis_ms */
    SYNC_FOUND,       /* to a question: this is the record: winner */
    SYNC_NOT_FOUND,   /* to a question: there is none */
    SYNC_LACKING,     /* quiet, events_apart: Redis has it not, or older; nothing was written */
    SYNC_LATER        /* its slot is on its way to another node; nothing was written */
};

/* One event of the stream, from the channel, from a range or made of a push's winner. */
typedef struct sync_change {
    uint64_t epoch, number, nonce, emitter;
    bool numbered;      /* false: a hint outside the numbers (a removal under OOM) */
    bool begin;         /* the first entry of an epoch: carries no record */
    bool value_missing; /* the record has a value that is not here */
    bool malformed;     /* could not be read: its number counts, its content is lost */
    /* ASKED: another program's value. It has no version of its own (the clock is that of the record
     * under which it stands, or 0), and how long it lives was asked for with with_end alone. */
    bool foreign, with_end;
    int64_t left_ms;    /* INT64_MAX: without an end */
    uint64_t full_size; /* bytes of the value, here or not */
    replica_record record;
} sync_change;

typedef struct sync_joined {
    uint64_t epoch, last_number, last_nonce; /* of the newest entry */
    bool cursor_found;
    uint64_t cursor_nonce; /* of the entry at the cursor that was asked about */
    int64_t redis_ms;      /* the server's wall clock */
    bool node_taken;       /* another map has our node id */
    uint64_t marks_id;     /* of the fleet's mark set; 0: there is none */
} sync_joined;

enum sync_event_kind {
    SYNC_EV_START,        /* position: where the map says that the stream was left */
    SYNC_EV_CONNECTED,    /* both connections greeted, subscribed, scripts loaded: run_id */
    SYNC_EV_DISCONNECTED, /* cause */
    SYNC_EV_JOINED,       /* joined */
    SYNC_EV_ROWS,         /* rows: what SYNC_ACT_READ asked for; status < 0: busy, try later */
    SYNC_EV_REPLY,        /* batch, index, outcome, winner */
    SYNC_EV_EMITTED,      /* batch, outcome: all or none of it was told */
    SYNC_EV_SCRIPTS,      /* the scripts are loaded again */
    SYNC_EV_STREAM,       /* change, from the channel */
    SYNC_EV_RANGE,        /* changes, count: the page asked for, or a part */
    SYNC_EV_FETCHED,      /* id; change with the value, or NULL: not there or of no use */
    SYNC_EV_ASK,          /* ask: a worker waits for a key that it missed */
    SYNC_EV_ASKED,        /* asked: what Redis has */
    SYNC_EV_CHANGED,      /* ask (slot unused): the key changed in Redis, by whoever's hand */
    SYNC_EV_IDLE,         /* no further input is at hand: apply what was collected */
    SYNC_EV_APPLIED,      /* status of the apply; the verdicts stand in its events */
    SYNC_EV_ACKNOWLEDGED, /* batch, status, cleared */
    SYNC_EV_MARKS,        /* marks: what SYNC_ACT_MARKS asked for; status */
    SYNC_EV_MARKED,       /* marked: the answer to SYNC_ACT_MARK */
    SYNC_EV_MARKS_TOLD,   /* status */
    SYNC_EV_MARK_PAGE,    /* mark_page: a piece of it */
    SYNC_EV_WAKE,         /* a worker wrote */
    SYNC_EV_RECHECK, /* entries: so many are dirty; scan from the start if they are not known */
    SYNC_EV_COUNT,   /* entries: so many are in the map, about */
    SYNC_EV_TICK     /* the time asked for came (or any other time) */
};

struct sync_batch;

typedef struct sync_event {
    enum sync_event_kind kind;
    int64_t now_ms;  /* monotonic */
    int64_t wall_ms; /* wall clock of this host */
    int status;      /* LARDER_OK or an error of the port */
    union {
        const replica_position *position;
        const char *run_id;
        enum sync_cause cause;
        sync_joined joined;
        const replica_batch *rows;
        struct {
            struct sync_batch *batch;
            size_t index;
            enum sync_outcome outcome;
            const sync_change *winner; /* SYNC_OLD, SYNC_FOUND; NULL: unreadable */
            int64_t redis_ms;          /* SYNC_AHEAD */
        } reply;
        uint64_t entries;
        struct {
            struct sync_batch *batch;
            enum sync_outcome
                outcome; /* STORED, NO_STREAM, NO_SCRIPT, NO_MEMORY, LATER, REFUSED_KEY */
        } emitted;
        const sync_change *change;
        struct {
            const sync_change *changes;
            size_t count;
            bool more; /* behind them, perhaps */
        } range;
        struct {
            uint64_t id;
            const sync_change *change;
        } fetched;
        const replica_marks *marks;
        struct {
            enum sync_outcome outcome;
            uint64_t set_id;
        } marked;
        struct {
            const sync_change *changes;
            size_t count;
            bool last;     /* of the page */
            uint64_t next; /* with last: where the next page begins; 0: that was all */
        } mark_page;
        struct {
            uint32_t slot; /* < SYNC_SLOTS_MAX: to be named in the answer */
            const uint8_t *key;
            size_t key_size;
            replica_fill fill; /* what the map says of the key now */
        } ask;
        struct {
            uint64_t id;
            const sync_change *change; /* NULL: Redis has none */
            bool failed;               /* NULL, because nobody knows */
        } asked;
        struct {
            struct sync_batch *batch;
            size_t cleared;
        } acknowledged;
    };
} sync_event;

/* ---- Actions -------------------------------------------------------------------------------- */

/* What workers that wait for a key are told. */
enum sync_answer {
    SYNC_ANSWER_FOUND,  /* what Redis has is in the map, or something newer */
    SYNC_ANSWER_ABSENT, /* Redis has none */
    SYNC_ANSWER_UNKNOWN /* it could not be asked */
};

enum sync_action_kind {
    SYNC_ACT_CONNECT,    /* begin a session; answer CONNECTED or DISCONNECTED */
    SYNC_ACT_DISCONNECT, /* end it at once; no answer (the machine is disconnected already) */
    SYNC_ACT_JOIN,       /* run the join script for cursor; answer JOINED */
    SYNC_ACT_READ,       /* read; answer ROWS at once, whose records must live until the actions
                            of that step are done */
    SYNC_ACT_PUSH,       /* push: send each item; answer REPLY for each, in any order */
    SYNC_ACT_COMPARE,    /* push: ask for the record of each; answer REPLY for each, in any order */
    SYNC_ACT_DRAW_NODE,  /* the map needs another node id; no answer */
    SYNC_ACT_EMIT,       /* emit: tell the others what was stored of a batch; answer EMITTED */
    SYNC_ACT_LOAD,       /* load the scripts; answer SCRIPTS */
    SYNC_ACT_RANGE,      /* cursor.count entries after cursor; answer RANGE */
    SYNC_ACT_FETCH,      /* fetch: value and record of a key; answer FETCHED */
    SYNC_ACT_ASK,        /* the same for a worker that waits; answer ASKED */
    SYNC_ACT_ANSWER,     /* answer: tell those who wait in these slots */
    SYNC_ACT_APPLY,      /* apply; answer APPLIED */
    SYNC_ACT_ACKNOWLEDGE, /* acknowledge; answer ACKNOWLEDGED */
    SYNC_ACT_MARKS,       /* marks: read invalidations of many from the map; answer MARKS at once */
    SYNC_ACT_MARK,        /* mark: merge them into the fleet's set; answer MARKED */
    SYNC_ACT_MARKS_TOLD,  /* mark.marks and .count: Redis has these; answer MARKS_TOLD at once */
    SYNC_ACT_MARK_PAGE,   /* page: some of the fleet's set; answer MARK_PAGE, once or more */
    SYNC_ACT_ARM          /* arm the wake-up (the machine reads once more after it) */
};

typedef struct sync_item { /* an entry on its way to Redis; key lives in the batch */
    uint64_t row;
    larder_version version;
    uint64_t value_hash;
    const uint8_t *key;
    uint32_t key_size;
    uint8_t kind;
    uint8_t outcome; /* enum sync_outcome, once answered */
    uint8_t what;    /* enum replica_ack_kind, for the map */
    bool ours;       /* this host has to tell it, or has told it less than half of T ago */
    bool answered;
    bool remove; /* Redis has no memory for this deletion: only unlink and tell */
} sync_item;

typedef struct sync_action {
    enum sync_action_kind kind;
    union {
        struct {
            uint64_t epoch, number;
            uint32_t count; /* RANGE */
        } cursor;           /* JOIN, RANGE */
        struct {
            uint64_t from_row;
            uint32_t max_records, max_bytes;
            bool include_clean;
        } read;
        struct {
            struct sync_batch *batch;       /* hand back with the replies */
            const replica_record **records; /* valid until the step's actions are done */
            const sync_item *items;         /* of these records, as long */
            size_t count;
            uint64_t epoch, emitter, nonce_seed;
            bool quiet; /* equal entries are neither written nor emitted again; events_apart: none
                           is written, see SYNC_LACKING */
            int64_t redis_ms;
        } push;
        struct {
            struct sync_batch
                *batch; /* its items with outcome SYNC_STORED, none of them told yet */
            uint64_t epoch;
        } emit;
        struct {
            uint64_t id;
            const uint8_t *key;
            size_t key_size;
            bool with_end; /* ASK: and how long it lives, where it is another program's */
        } fetch;           /* FETCH, ASK */
        struct {
            uint64_t slots[SYNC_SLOTS_MAX / 64]; /* a bit for each */
            enum sync_answer answer;
        } answer;
        struct {
            bool all, floors, restart;
        } marks;
        struct {
            const replica_mark *marks; /* valid until the answer */
            size_t count;
            uint64_t epoch, emitter, nonce_seed;
            bool quiet; /* all that is known: no need to tell what is no news to anybody */
        } mark;
        struct {
            uint64_t from;
        } page;
        struct {
            replica_event *events;
            size_t count;
            const replica_position *position; /* NULL: leave it */
        } apply;
        struct {
            struct sync_batch *batch;
            const replica_ack *acks;
            size_t count;
        } acknowledge;
    };
} sync_action;

#define SYNC_ACTIONS_MAX 32u

typedef struct sync_action_list {
    sync_action items[SYNC_ACTIONS_MAX];
    size_t count;
} sync_action_list;

/* ---- The machine ---------------------------------------------------------------------------- */

enum sync_state {
    SYNC_DISCONNECTED,
    SYNC_CONNECTING, /* until JOINED */
    SYNC_SYNCING,    /* catching up, or pushing the log again */
    SYNC_UP,
    SYNC_PARKED
};

typedef struct sync_counters {
    uint64_t pushed, acknowledged, old, refused, events, applied, echoes, ours_newer, not_stored;
    uint64_t duplicates, gaps, resyncs, connects, connect_failures, map_busy, malformed;
    uint64_t overflows, fetches, fetches_dropped;
    uint64_t asks, asks_joined, asks_sent, answers[3]; /* enum sync_answer */
    uint64_t foreign, foreign_checks, foreign_skipped;
    uint64_t verified, mended, forgotten, ahead, nodes_drawn;
    uint64_t marks_pushed, marks_taken;
} sync_counters;

typedef struct sync_view { /* for status and tests */
    enum sync_state state;
    enum sync_breaker breaker;
    uint32_t failures, in_flight_items, in_flight_batches, retry_entries, ranges;
    uint32_t resyncs_soon;   /* comparisons of all, each within a minute of the one before */
    uint64_t left_entries;   /* refused ones without a place among retry_entries, about */
    uint32_t unacknowledged; /* entries that Redis has taken, and the map is yet to be told of */
    uint64_t epoch, number, scan_row;
    bool resyncing, catching_up,
        drained; /* drained: nothing dirty is known, in flight or waiting */
    int64_t attempt_at_ms, lag_ms, clock_offset_ms;
    sync_counters counters;
} sync_view;

struct sync;

/* NULL: no memory. */
struct sync *sync_create(const sync_settings *settings);
void sync_destroy(struct sync **self);

/* One event in; what is to be done about it out (the list is emptied first). The memory that the
 * actions point to belongs to the machine and lives until the answer. An event that does not fit
 * the state is ignored: answers may come late. */
void sync_step(struct sync *self, const sync_event *event, sync_action_list *actions);

/* When a TICK is wanted, monotonic ms; SYNC_NEVER: not at all. */
int64_t sync_deadline(const struct sync *self);

void sync_look(const struct sync *self, sync_view *out);
enum sync_state sync_state_now(const struct sync *self); /* of the view: for every event */

/* Redis's clock minus the monotonic one that events carry; false: not known yet. */
bool sync_clock(const struct sync *self, int64_t *redis_minus_monotonic_ms);

/* The place in the stream that is now true, for a last write at a clean end; false: it must not be
 * stored (history is being pushed again, or nothing is known). */
bool sync_position(const struct sync *self, replica_position *out);

#endif
