/* control.h: the control segment, one file of shared memory beside the LMDB files of a map.
 *
 * Everything that must be seen by all processes without a system call lives here: which generation
 * is current, the gates, the clock, what is known about the current transaction, statistics,
 * popularity, invalidations that are not durable yet, removal floors, the daemon's face.
 * The layout is fixed by format version (MAP_FORMAT); every offset is asserted below. Contents are
 * input: indices and sizes that are read from here are checked before use.
 */
#ifndef LARDER_LIB_CONTROL_H
#define LARDER_LIB_CONTROL_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "ask.h"
#include "combine.h"
#include "events.h"
#include "gate.h"
#include "ghosts.h"
#include "hot_keys.h"
#include "larder.h"
#include "latency.h"
#include "lease.h"
#include "marks.h"
#include "notify.h"
#include "overwrite.h"
#include "sweeps.h"

#define CONTROL_MAGIC UINT64_C(0x3152454452414cff) /* "\xffLARDER1" */

enum {
    CONTROL_FORMAT = 8,
    CONTROL_BYTE_ORDER = 0x01020304,
    CONTROL_BUCKETS = 4096,     /* of key hashes: floors and barriers */
    CONTROL_PENDING_ROWS = 256, /* invalidations refused by a busy gate */
    CONTROL_PENDING_WORDS = CONTROL_PENDING_ROWS / 64,
    CONTROL_WALK_FORM = 512,
    CONTROL_PENDING_KEY = 992,  /* longest key of such a row; a longer one raises its barrier */
    CONTROL_STATS_SLOTS = 1024, /* processes; slot 0 collects those that ended */
    CONTROL_MAX_READERS = 4096, /* threads that have read; the lock file has 64 bytes for each */

    /* The tables of the eviction (evict.h, ghosts.h), for entries that take 320 bytes of the map
     * each: two popularity counters and a ghost slot for every one of them. */
    CONTROL_MAP_PER_POPULARITY = 640, /* bytes of the map to a byte of four counters, and ... */
    CONTROL_GHOST_BYTES = 4           /* ... so many bytes of ghosts */
};

/* The generation word: the number, and beside it what has become of it. A worker compares the whole
 * word with the generation it has open, so that one load notices everything. */
#define GENERATION_POISONED (UINT64_C(1) << 63) /* damaged: the next to look starts another */
#define GENERATION_RETIRED (UINT64_C(1) << 62)  /* this segment was replaced: attach again */
#define GENERATION_NUMBER(word) ((word) & ((UINT64_C(1) << 62) - 1))

/* Where the inbound stream was left; see replica.h. */
struct control_position {
    uint64_t epoch, number, nonce;
    char run_id[48];
};

/* What belongs to a transaction but is too small and too often written for a database of its own.
 * Two copies, as LMDB keeps two meta pages: transaction N writes copy N & 1 before it commits. The
 * copy that names the last committed transaction is the truth, whoever died when. */
struct ledger {
    _Atomic uint64_t transaction; /* 0 while it is written */
    uint64_t next_row;            /* of the log; never reused */
    uint64_t next_chunk;          /* never reused */
    uint64_t hand;                /* row where the eviction of the main queue goes on */
    uint64_t values;              /* entries that are values or negatives */
    uint64_t tombstones;
    uint64_t dirty;
    uint64_t reserved;
    struct control_position position;

    /* eviction, see evict.h */
    uint64_t small_hand;        /* rows from here on are the first queue's; 0: nothing went yet */
    uint64_t small;             /* values among these rows */
    uint64_t returned;          /* of them, those with RECORD_RETURNED */
    uint64_t ghosts;            /* how many were ever remembered */
    int64_t earliest_expiry_ms; /* no entry expires before; INT64_MAX: none does */
    int64_t walk_earliest_ms;   /* the same of what the current walk has passed */
    uint64_t swept_barrier;     /* what barriers up to it made dead is gone */
    uint64_t walk_barrier;      /* the same once the current walk is through */
    uint64_t ghost_bits;        /* how much of their table is in use, see ghosts.h */
    uint64_t block_bytes;       /* of the log's newest block, see rows_number() */
    uint64_t recent_pages;      /* that large writes took lately, see evict_reserve() */
    int64_t position_seen_ms;   /* Redis's time when position was known to be its stream's end */
    int64_t position_since_ms; /* the same of the end that it was begun at; 0: from its beginning */
    uint8_t padding[16];
};
static_assert(sizeof(struct ledger) == 256, "MAP_FORMAT");

/* What belongs to one generation. The next one's is filled in while the current one is in use; the
 * generation word switches from one to the other in one store. */
struct control_life {
    _Atomic uint64_t generation;
    _Atomic uint64_t map_size, max_value; /* bytes */
    _Atomic uint64_t hot_size;            /* bytes of the hot set; 0: there is none */
    _Atomic uint64_t max_entries;         /* 0: as many as fit */
    uint8_t padding0[24];

    /* written by every transaction */
    _Atomic uint64_t announced; /* the number of the transaction that is about to begin, or is on */
    _Atomic uint64_t committed; /* the last one that ended well */
    _Atomic uint64_t changes;   /* writes that have ended, in a transaction or in place */
    uint8_t padding1[40];

    struct ledger ledgers[2];
};
static_assert(sizeof(struct control_life) == 640, "MAP_FORMAT");

/* MAP_FORMAT: append only. One row for each in lib/figures.c names and describes it. */
enum stats_counter {
    /* Looked up, but for HOT_HITS. Hits are both, less MISSES, ABSENT and STALE. */
    STATS_LOOKUPS,
    STATS_MISSES,
    STATS_EXPIRED,
    STATS_ABSENT,
    STATS_READ_BUSY,
    STATS_READ_CORRUPT,
    STATS_SETS,
    STATS_DELETES,
    STATS_TOUCHES,
    STATS_REFUSED_BUSY,
    STATS_REFUSED_FULL,
    STATS_REFUSED_SIZE,
    STATS_EVICTIONS,
    STATS_EXPIRATIONS,
    STATS_PENDING_OVERFLOWS,
    STATS_GATE_RECOVERIES,
    STATS_GENERATIONS,
    STATS_HOT_HITS, /* values and negative entries found in the hot set: not beside LOOKUPS */
    STATS_STALE,    /* answered with a stale value: beside LOOKUPS, not beside MISSES */
    STATS_INVALIDATIONS_GROUP, /* calls, not entries */
    STATS_INVALIDATIONS_TAG,
    STATS_INVALIDATIONS_PREFIX,
    STATS_INVALIDATIONS_MATCH,
    STATS_INVALIDATIONS_CLEAR,
    STATS_EVICTED_SMALL,       /* EVICTIONS of the first queue */
    STATS_EVICTED_MAIN,        /* EVICTIONS of the main queue */
    STATS_RECLAIMED_EXPIRED,   /* EXPIRATIONS that eviction came across */
    STATS_RECLAIMED_DEAD,      /* entries removed because a mark or barrier had made them dead */
    STATS_LEASE_FILLS,         /* leases given to fill or refresh a key */
    STATS_LEASE_WAITS,         /* callers that waited for another's fill */
    STATS_LEASE_TAKEOVERS,     /* leases taken over from a holder that died or was late */
    STATS_LEASE_TIMEOUTS,      /* waits that ended at their deadline */
    STATS_LEASE_REFUSED_FILLS, /* fills not stored: something newer came in between */
    STATS_REFRESHES,           /* leases given ahead of expiry or for a stale value */
    STATS_SLIDES,              /* expiries extended by a read */
    STATS_COMBINED,            /* writes that another process carried out in its own commit */
    STATS_EVENTS,              /* put into the event ring */
    STATS_EVENTS_MISSED,       /* that a follower was too slow to see */
    STATS_ASKS_FOUND,          /* misses that Redis had the value for */
    STATS_ASKS_ABSENT,         /* that it had not */
    STATS_ASKS_TIMEOUTS,       /* that waited in vain */
    STATS_ASKS_NOBODY,         /* that did not wait: there was nobody to ask */
    STATS_ASKS_FULL,           /* the same: no slot, or too long a key */
    STATS_ASKS_JOINED,         /* that waited for another's request; among the first three */
    STATS_COUNTERS
};

#define STATS_ROOM 63 /* counters that a slot has room for */

struct stats_slot {
    _Atomic int32_t pid; /* 0: free */
    uint32_t reserved;
    _Atomic uint64_t counters[STATS_ROOM];
};
static_assert(sizeof(struct stats_slot) == 512, "MAP_FORMAT");
static_assert(STATS_COUNTERS <= STATS_ROOM, "MAP_FORMAT");

enum pending_state { PENDING_FREE = 0, PENDING_CLAIMED = 1, PENDING_READY = 2 };

struct pending_row {
    _Atomic uint64_t state; /* enum pending_state, and the claimer's pid << 32 */
    _Atomic uint64_t hash, clock;
    uint32_t node, key_size;
    uint8_t key[CONTROL_PENDING_KEY];
};
static_assert(sizeof(struct pending_row) == 1024, "MAP_FORMAT");

/* Where the walk that looks for expired entries goes on: a key form. Written inside the gate, not
 * part of any transaction: a torn one only makes the walk begin elsewhere. */
struct evict_walk {
    _Atomic uint32_t size; /* 0: at the first entry */
    uint8_t form[CONTROL_WALK_FORM];
};
static_assert(sizeof(struct evict_walk) == 516, "MAP_FORMAT");

/* The popularity bytes, and the ghosts behind them. */
static inline size_t control_tail(uint64_t popularity)
{
    return (size_t)popularity * (1 + CONTROL_GHOST_BYTES);
}

struct control {
    /* identity: written before the file is published, then constant */
    uint64_t magic;
    uint32_t format, byte_order;
    uint32_t page_size, flags; /* LARDER_PROTECT */
    uint64_t segment_size;
    uint8_t boot_id[16];
    uint64_t pid_namespace; /* inode of /proc/self/ns/pid; 0 where it cannot be known */
    uint64_t popularity_size;
    uint32_t home; /* node as it was at first: records without one are of it */
    uint32_t reserved;
    _Atomic uint32_t node; /* of this life of the map; never 0 */
    uint32_t mode;         /* of the files */

    /* read by some hits, seldom written */
    _Atomic uint64_t cleared;    /* nothing this old is alive, nor may it come in */
    _Atomic uint64_t fill_floor; /* no fill whose version was drawn by then may be stored */
    uint8_t padding0[32];

    /* read by every hit, seldom written */
    _Atomic uint64_t generation;  /* GENERATION_* */
    _Atomic uint64_t barrier_max; /* highest barrier of any bucket, or the clear; 0: none */
    _Atomic uint64_t pending[CONTROL_PENDING_WORDS]; /* a bit for each ready row */
    _Atomic int64_t retry_at_ms; /* monotonic: no new generation is tried before */
    _Atomic uint32_t replicates;
    _Atomic uint32_t recovery_due; /* a writer died: LMDB's own mutexes are to be repaired */

    _Atomic uint64_t clock;          /* hybrid logical clock, last value given */
    _Atomic int64_t clock_offset_ms; /* Redis's clock minus ours */
    /* Redis's clock minus CLOCK_MONOTONIC, which nobody sets: what is too far ahead of Redis is
     * told by this one. 0: not known. */
    _Atomic int64_t clock_redis_ms;
    _Atomic uint64_t clock_seen; /* the highest version that is known elsewhere, too */
    uint8_t padding3[32];

    struct gate write_gate;  /* before LMDB's writer mutex */
    struct gate reader_gate; /* before LMDB's reader-table mutex */
    struct gate open_gate;   /* before LMDB's file lock; generations are made inside */

    struct control_life lives[2]; /* of generation N: [N & 1] */

    /* the daemon's face */
    _Atomic uint64_t fence;
    _Atomic int32_t daemon_pid;
    _Atomic uint32_t daemon_sleeps; /* 1: touch the FIFO after a write */
    _Atomic int64_t daemon_heartbeat_ms;
    _Atomic uint32_t redis_up;
    uint8_t padding4[36];

    struct stats_slot stats[CONTROL_STATS_SLOTS];
    _Atomic uint64_t barriers[CONTROL_BUCKETS]; /* nothing of that bucket this old is alive */
    _Atomic uint64_t floors[CONTROL_BUCKETS];   /* nothing of that bucket this old may come in */
    struct pending_row pending_rows[CONTROL_PENDING_ROWS];
    struct event_ring events;
    _Alignas(64) struct latency_table latency;
    _Alignas(64) struct hot_key_table hot_keys;
    _Alignas(64) struct lease_table leases;
    struct notify_table notify;
    _Alignas(64) struct combine_table combine;
    _Alignas(64) struct evict_walk evict_walk;
    _Alignas(64) struct overwrite_area overwrites[2]; /* of generation N: [N & 1] */
    _Alignas(64) struct marks marks;
    _Alignas(64) struct ask_table asks;
    _Alignas(64) struct sweeps sweeps;

    /* What Redis has of the clear and of the barriers, and how often there was news for it: an
     * invalidation of a mark, of a bucket, of a prefix, of all. */
    _Alignas(64) _Atomic uint64_t news;
    _Atomic uint64_t cleared_told;
    _Alignas(64) _Atomic uint64_t barriers_told[CONTROL_BUCKETS];
    /* The same for this host alone: the others know what it stands for, or have no need to. Words
     * of their own, so that none of these passes for one that has been told. */
    _Alignas(64) _Atomic uint64_t cleared_here;
    _Alignas(64) _Atomic uint64_t barriers_here[CONTROL_BUCKETS];
    _Alignas(64) _Atomic uint8_t
        popularity[]; /* popularity_size, whole cache lines; ghosts behind */
};
static_assert(sizeof(ghost_slot) == 2, "MAP_FORMAT");
static_assert(offsetof(struct control, evict_walk) % 64 == 0, "MAP_FORMAT");
static_assert(offsetof(struct control, popularity) % 64 == 0, "MAP_FORMAT");
static_assert(offsetof(struct control, generation) == 128, "MAP_FORMAT");
static_assert(offsetof(struct control, clock) == 192, "MAP_FORMAT");
static_assert(offsetof(struct control, write_gate) == 256, "MAP_FORMAT");
static_assert(offsetof(struct control, lives) == 448, "MAP_FORMAT");
static_assert(offsetof(struct control, fence) == 1728, "MAP_FORMAT");
static_assert(offsetof(struct control, stats) == 1792, "MAP_FORMAT");
static_assert(offsetof(struct control, events) % 64 == 0, "MAP_FORMAT");
static_assert(offsetof(struct control, marks) % 64 == 0, "MAP_FORMAT");
static_assert(offsetof(struct control, asks) % 64 == 0, "MAP_FORMAT");
static_assert(offsetof(struct control, combine) % 64 == 0, "MAP_FORMAT");
static_assert(offsetof(struct control, latency) % 64 == 0, "MAP_FORMAT");
static_assert(offsetof(struct control, hot_keys) % 64 == 0, "MAP_FORMAT");

struct control_settings {
    uint64_t map_size, max_value, hot_size, max_entries;
    uint32_t flags, mode;
};

/* Make a segment under its final name in the directory, unless somebody else just did (then that
 * one stays, LARDER_OK too). Preallocated: a full file system is an error here, not a SIGBUS later.
 */
int control_create(int directory, const struct control_settings *settings);

/* Bytes of the segment of a map of that size. */
size_t control_size(uint64_t map_size);

/* Map the segment. LARDER_ENOTFOUND; EFORMAT (another version, page size, byte order, boot, or not
 * a segment at all: *replaceable says whether it may be put aside), ENAMESPACE, EACCESS, ENOMEM. */
int control_attach(int directory, struct control **control, size_t *size, bool *replaceable);
/* LARDER_OK, or ENAMESPACE where this process is in another PID namespace than the map. */
int control_check_namespace(const struct control *control);

void control_detach(struct control **control, size_t size);

/* Put an unusable segment aside: tell those who have it, take its name away. */
int control_retire(int directory);

/* A node id: 32 random bits, never 0. */
uint32_t control_random_node(void);

/* Say that the generation that word names is damaged. */
void control_poison(struct control *control, uint64_t word);

static inline struct control_life *control_life_of(struct control *control, uint64_t generation)
{
    return &control->lives[generation & 1];
}

/* The current generation's. */
static inline struct control_life *control_life(struct control *control)
{
    return control_life_of(control, atomic_load(&control->generation));
}

/* A ledger is written by the gate's holder and read by anybody: its transaction number is zero
 * while it is being written. False: it is not (any more) the one of that transaction. */
bool ledger_read(struct control_life *life, uint64_t transaction, struct ledger *ledger);
void ledger_write(struct control_life *life, const struct ledger *ledger);

static inline size_t control_bucket(uint64_t hash)
{
    return (size_t)(hash >> 52) & (CONTROL_BUCKETS - 1);
}

/* Something that other hosts are to be told stands in the tables now. */
static inline void control_news(struct control *control)
{
    (void)atomic_fetch_add(&control->news, 1);
}

/* Popularity bytes of a segment of that size, whatever it says of itself. */
static inline uint64_t control_popularity(size_t segment_size)
{
    return (segment_size - sizeof(struct control)) / (1 + CONTROL_GHOST_BYTES);
}

#endif
