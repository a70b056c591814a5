/* replica.h: the replicator's port to the map. larderd reads the outbox here, acknowledges what
 * Redis took, and applies what other hosts did. Nothing here knows Redis; nothing above it knows
 * LMDB. All calls copy: no pointer into the map leaves this file's functions.
 *
 * Every write of this port carries the fencing number that replica_claim() gave and is refused
 * (REPLICA_FENCED) once a later daemon has claimed the map.
 */
#ifndef LARDER_LIB_REPLICA_H
#define LARDER_LIB_REPLICA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "larder.h"

#define REPLICA_FENCED (-1100) /* a later daemon owns the map */

#define REPLICA_MARKS_MAX 17u /* a group and 16 tags */
#define REPLICA_MARK_SIZE 16u

/* Versions further ahead of Redis's clock are refused there (and here, see clock.h). */
#define REPLICA_AHEAD_MS 60000

/* What a record is; the order of the numbers is the order of precedence at equal versions. */
enum replica_kind {
    REPLICA_VALUE = 1,
    REPLICA_NEGATIVE = 2, /* known absent; no value */
    REPLICA_DELETED = 3,  /* tombstone */
    REPLICA_MARK = 4      /* no entry: an invalidation of many; key is its name, see replica_mark */
};

typedef struct replica_record {
    larder_version version;
    enum replica_kind kind;
    uint32_t mark_count;    /* of marks */
    uint64_t row;           /* log row (outbox only) */
    uint64_t value_hash;    /* replica_value_hash(); 0 without a value */
    int64_t expires_at_ms;  /* INT64_MAX: never */
    int64_t stale_until_ms; /* 0: never stale */
    int64_t sliding_ms;     /* 0: not sliding */
    int64_t limit_ms;       /* no expiry may be later, whoever extends it; 0: none */
    int64_t created_ms;     /* 0: the version's */
    int64_t acked_ms; /* when Redis took it, by this host's clock; 0: not from here (outbox only) */
    bool dirty;       /* Redis is not known to have it (outbox only) */
    const uint8_t *key, *value;
    size_t key_size, value_size;
    uint8_t marks[REPLICA_MARKS_MAX * REPLICA_MARK_SIZE]; /* as marks_make() writes them */
} replica_record;

/* From when on it is of no use to anybody, not even as a stale value. */
static inline int64_t replica_gone_ms(const replica_record *record)
{
    return record->stale_until_ms > record->expires_at_ms ? record->stale_until_ms
                                                          : record->expires_at_ms;
}

/* XXH3 64 bits of the value: what "equal" compares after version and kind. */
uint64_t replica_value_hash(const void *value, size_t size);

/* < 0, 0, > 0: precedence by (version clock, node, kind, value hash). */
int replica_compare(const replica_record *a, const replica_record *b);

/* Where the inbound stream was left. Stored in the map, moved in the transaction that applies. */
typedef struct replica_position {
    uint64_t epoch;    /* of the event stream; 0: never connected */
    uint64_t number;   /* last number applied */
    uint64_t nonce;    /* of the event at that number */
    char run_id[48];   /* of the server, text, 0-terminated */
    int64_t seen_ms;   /* Redis's clock when this was known to be the stream's end; 0: unknown */
    int64_t since_ms;  /* the same of the stream's end that this host began at: what had been told
                          before, it does not know; 0: nothing */
    uint64_t marks_id; /* of the fleet's set of invalidations that this map's were last merged with;
                          0: unknown. Kept where those are, and so not lost with the entries */
} replica_position;

/* Become the map's daemon: an exclusive lock on DIR/NAME/larderd.lock (released when the process
 * ends), a new fencing number, and whether the map replicates from now on (only then are tombstones
 * kept). LARDER_EXISTS: another larderd lives; *other_pid names it (0 if unknown). */
int replica_claim(larder *handle, bool replicates, uint64_t *fence, int *other_pid);

/* Is the map's directory still where it was opened? false: it was removed or another stands in its
 * place, so that who opens the map from now on gets another one. */
bool replica_in_place(larder *handle);

/* This map's node id (32 random bits, never 0). */
uint32_t replica_node(larder *handle);

/* Another one from now on: a map elsewhere has the same. */
int replica_draw_node(larder *handle, uint64_t fence);

/* What tells this map from a copy of it: not stored in it, the same as long as it lives. */
uint64_t replica_identity(larder *handle);

typedef struct replica_batch {
    replica_record *records; /* valid until replica_batch_free or the next fill */
    size_t count;
    uint64_t next_row; /* where to go on: first row not looked at */
    bool end;          /* nothing further in the log at the moment */
    void *memory;
    size_t memory_size;
    size_t capacity;
} replica_batch;

/* Copy up to max_records rows from the log, beginning with row from_row (0: the first), values of
 * max_bytes together at most (at least one record comes, whatever its size). Clean rows are passed
 * over unless include_clean; expired values come with their expires_at_ms and may be treated as the
 * caller sees fit. Looks at a bounded number of rows a call (next_row moves even with count 0). */
int replica_outbox(larder *handle, replica_batch *batch, uint64_t from_row, size_t max_records,
                   size_t max_bytes, bool include_clean);
void replica_batch_free(replica_batch *batch);

enum replica_ack_kind {
    REPLICA_STORED, /* Redis has it: its dirty flag goes */
    REPLICA_AHEAD,  /* its version is too far ahead of Redis's clock: it gets another */
    REPLICA_FORGET  /* Redis knows nothing of it, and we were away for so long that nobody would: it
                       goes, unless it is dirty */
};

typedef struct replica_ack {
    const uint8_t *key;
    size_t key_size;
    larder_version version;
    enum replica_kind kind;
    enum replica_ack_kind what;
} replica_ack;

/* What became of entries; each counts only where version and kind still match. A dirty one that was
 * written again meanwhile goes to the end of the log, as does one with a new version, so that a
 * cursor need never go back for it. *cleared: how many are dirty no more (or gone); may be NULL.
 * At most 4,096 acks, in short transactions: after an error some may be done, and all can be given
 * again. */
int replica_acknowledge(larder *handle, uint64_t fence, const replica_ack *acks, size_t count,
                        size_t *cleared);

enum replica_verdict {
    REPLICA_APPLIED, /* it was newer and is now ours (or our older copy was dropped) */
    REPLICA_EQUAL,   /* we have exactly this; its dirty flag, if set, is now cleared */
    REPLICA_OLDER,   /* ours is newer: it has been marked dirty, unless doubtful, and is pushed */
    REPLICA_REFUSED  /* under the removal floor, too large, no space: ignored; local copy gone if
                        it was older */
};

/* What answers a miss of this host, and so may come in below the removal floor: the floor says that
 * something this old was removed *here*, and Redis still has it. But not where the floor, or
 * anything else that removes, has risen since the miss was asked for: then the reply may be older
 * than the removal. */
enum replica_fill_kind {
    REPLICA_FILL_NONE = 0,
    REPLICA_FILL_ASKED = 1,
    REPLICA_FILL_FOREIGN = 2, /* no version of its own: any write of larder's wins over it */
    /* Not a miss: another program changed the key. Ours goes if Redis has it, and is no newer. */
    REPLICA_FILL_CHANGED = 3, /* to this, which has no version either */
    REPLICA_FILL_GONE = 4     /* to nothing */
};

typedef struct replica_fill {
    enum replica_fill_kind kind;
    uint64_t floor, barrier; /* of the key, when it was asked for */
    uint64_t clock;          /* drawn then */
} replica_fill;

#define REPLICA_FOREIGN_NODE 1u  /* the version of a foreign value: the least node, no map's own */
#define REPLICA_FOREIGN_MS 60000 /* a foreign value is kept so long at most: nobody tells of it */

typedef struct replica_event {
    replica_record record;
    replica_fill fill;  /* zero: the event of a write */
    bool value_missing; /* the event names a version without its value: drop an older local copy */
    bool unordered; /* older events of this key may still come after it: what is not stored of it
                       leaves a floor, which they do not pass */
    bool late;      /* something newer of this key may have been told before this host listened: it
                       counts only against what is here and newer. Of a value value_missing says
                       afterwards that it is to be fetched */
    bool untold;    /* Redis holds it, but the others may not have been told: if we have exactly
                       this, its dirty flag stays */
    bool hint;      /* a removal that Redis holds no record of: what is stored of it is dirty */
    bool doubtful;  /* what is here and newer may have been deleted since, so long ago that nobody
                       remembers: it stays clean, for its record in Redis to decide */
    enum replica_verdict verdict; /* out */
    uint64_t row; /* out, of a hint: where its removal stands, dirty; 0: it does not */
} replica_event;

/* Apply events in order, in short transactions, and store the position in the last one: never
 * without what came before it. position may be NULL (unchanged). At most 1,024 events. After an
 * error (LARDER_EBUSY: try again) some may have been applied; given again they are EQUAL. */
int replica_apply(larder *handle, uint64_t fence, replica_event *events, size_t count,
                  const replica_position *position);

/* ---- Read-through: what workers of this host wait for, see ask.h ------------------------------
 */

#define REPLICA_SLOTS 512u
#define REPLICA_ASKED_KEY_MAX 960u

typedef struct replica_asked {
    uint64_t word; /* with slot: the request's name */
    uint32_t slot, key_size;
    uint8_t key[REPLICA_ASKED_KEY_MAX];
    replica_fill fill; /* for the event that answers */
} replica_asked;

enum replica_answer {
    REPLICA_ANSWER_FOUND = 0,  /* what Redis has has been applied */
    REPLICA_ANSWER_ABSENT = 1, /* it has none */
    REPLICA_ANSWER_UNKNOWN = 2
};

/* What the map says of a key now, for a fill of it that is yet to be asked for. */
replica_fill replica_fill_begin(larder *handle, const void *key, size_t key_size);

/* The next request that waits to be taken. False: there is none. */
bool replica_ask_next(larder *handle, replica_asked *out);
/* Wake all who wait for it. */
void replica_ask_answer(larder *handle, uint32_t slot, uint64_t word, enum replica_answer answer);
/* To be called once a second: frees what workers left behind. */
void replica_ask_sweep(larder *handle);
/* Whether the caller is going to look for requests by itself; else the first worker that makes one
 * touches the FIFO of replica_wake_fd(). After saying that it is not, it looks once more. */
void replica_ask_attend(larder *handle, bool attended);
bool replica_ask_is_posted(larder *handle);
/* For how many microseconds workers may look for an answer before they sleep; 0: not at all. */
void replica_ask_spin(larder *handle, uint32_t limit_us);

int replica_position_read(larder *handle, replica_position *out);

/* Redis's clock minus this host's CLOCK_MONOTONIC: what versions go by from now on. */
int replica_publish_clock(larder *handle, uint64_t fence, int64_t redis_minus_monotonic_ms);
/* ---- Invalidations of many --------------------------------------------------------------------
 *
 * Each has a name, and the newest clock of a name is all that counts. Names:
 *   m tag:16 (hex)     a group or tag: the first half of its hash
 *   c                  all
 *   b bucket:3 (hex)   a bucket of key hashes (lib/removal.h)
 *   p PREFIX, g GLOB   keys
 *   f                  all that is marked: stands for groups and tags that a table had no room for
 *   F, A               what the fleet's set had no room for, for hosts that come later: F is like
 * f, A may stand for any key
 */
#define REPLICA_MARK_NAME_MAX 113u
#define REPLICA_MARKS_AT_ONCE 64u

typedef struct replica_mark {
    uint64_t clock;
    uint32_t name_size;
    uint8_t name[REPLICA_MARK_NAME_MAX];
} replica_mark;

typedef struct replica_marks { /* zeroed at first; what the port remembers between two calls */
    replica_mark marks[REPLICA_MARKS_AT_ONCE];
    size_t count;
    bool end; /* there were no more */
    uint64_t looked_at;
    size_t stage, index; /* of a walk over all */
} replica_marks;

/* Some marks that Redis has not been told of (all: of any, in a walk that begins where restart is
 * true and is over with end; floors: and what stands for those that this map had no room for).
 * Those that have not been told (replica_marks_told) come again. LARDER_EBUSY: their table is held,
 * try again. */
int replica_marks_read(larder *handle, replica_marks *out, bool all, bool floors, bool restart);

/* Redis has these now. */
int replica_marks_told(larder *handle, uint64_t fence, const replica_mark *marks, size_t count);

/* Remove some of what a prefix or pattern has invalidated elsewhere, or here by a process that died
 * over it. *more: there is more to do. A piece of a walk, or a transaction. */
typedef struct replica_sweep {
    bool active;
    uint64_t clock;
    uint8_t kind, size;
    uint8_t name[REPLICA_MARK_NAME_MAX];
    larder_cursor cursor;
} replica_sweep; /* zeroed at first */
int replica_sweep_some(larder *handle, uint64_t fence, replica_sweep *sweep, bool *more);

/* The daemon's face in the control segment, for workers, the tool and statistics. */
int replica_publish_state(larder *handle, uint64_t fence, bool redis_up, int64_t heartbeat_ms);

/* Wake-up: a descriptor (a FIFO in the map's directory) that becomes readable when a worker wrote
 * while the daemon slept. Arm just before sleeping, after which the outbox must be looked at once
 * more; a worker touches the FIFO only while it is armed. */
int replica_wake_fd(larder *handle);
void replica_wake_arm(larder *handle);
void replica_wake_drain(larder *handle);
/* Whether no worker has touched it for a write since. */
bool replica_wake_is_armed(larder *handle);

#endif
