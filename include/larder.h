/* larder.h: the public interface of liblarder, a shared-memory cache for the worker processes of
 * one host.
 *
 * Every function may be called from any thread, and in a child after fork() on a handle that the
 * parent opened: its first use opens the files anew, one process of the map at a time, about a
 * millisecond each. Where more begin in one moment than go through in 50 ms, the others' first
 * reads are misses, and their writes EBUSY, for a tenth of a second at a time: open before you
 * serve. None is async-signal-safe; none is a cancellation point while it holds a lock. No call
 * waits for another process without a deadline, opens a socket or starts a thread. Sizes are in
 * bytes, times in milliseconds since the epoch, durations in milliseconds.
 *
 * Copyright (c) the larder authors. SPDX-License-Identifier: MIT
 */
#ifndef LARDER_H
#define LARDER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct larder larder; /* a handle on one map */

typedef struct larder_bytes {
    const void *data;
    size_t size;
} larder_bytes;

/* Orders all writes of a fleet: hybrid logical clock (48 bits of ms, 16 of counter), then node. */
typedef struct larder_version {
    uint64_t clock;
    uint32_t node, reserved;
} larder_version;

/* ---- Outcomes (>= 0) and errors (< 0) --------------------------------------------------------
 * The numbers are frozen. Treat an unknown outcome as a miss, an unknown error as "no cache". */
enum {
    LARDER_OK = 0,
    LARDER_MISS = 1,     /* not there, expired, or deleted */
    LARDER_STALE = 2,    /* a value past its freshness (only where stale ones were asked for) */
    LARDER_EXISTS = 3,   /* add: the key is there already */
    LARDER_CONFLICT = 4, /* cas, fill: the version is another one */
    LARDER_ABSENT = 5,   /* a negative entry: known not to exist at the origin */
    LARDER_REFRESH = 6,  /* lease: a value, and you are the one to renew it */
    LARDER_FILL = 7,     /* lease: no value, and you are the one to get it */
    LARDER_WAIT = 8,     /* lease: no value, and another is getting it */
    LARDER_SKIP = 9,     /* fill: a value that is not for the cache */
    LARDER_MISSED = 10,  /* events: some were overwritten before this follower had seen them */

    LARDER_EBUSY = -1001,        /* another process held a lock past the deadline */
    LARDER_ESIZE = -1002,        /* the caller's buffer is too small; info holds the size */
    LARDER_EINVAL = -1003,       /* an argument is not valid; larder_last_error() names it */
    LARDER_ETOOBIG = -1004,      /* key or value over the limit */
    LARDER_EFULL = -1005,        /* no space, and nothing could be evicted in time */
    LARDER_ENAMESPACE = -1006,   /* the map belongs to another PID namespace */
    LARDER_ECORRUPT = -1007,     /* damaged data; a new generation starts at the next open */
    LARDER_EFORMAT = -1008,      /* made by another version, page size or byte order */
    LARDER_EACCESS = -1009,      /* permissions, owner or mode of the map's directory or files */
    LARDER_ENOTFOUND = -1010,    /* LARDER_ATTACH: there is no such map */
    LARDER_ENOSPACE = -1011,     /* the file system or RLIMIT_FSIZE has no room for the map */
    LARDER_ENOMEM = -1012,       /* malloc or mmap failed */
    LARDER_ESYSTEM = -1013,      /* another system call failed; larder_last_error() names it */
    LARDER_ENUMBER = -1014,      /* incr: the value is not a decimal 64-bit integer */
    LARDER_EOVERFLOW = -1015,    /* incr: the result does not fit; a time does not fit */
    LARDER_EREADONLY = -1016,    /* the handle was opened with LARDER_READ_ONLY */
    LARDER_EUNSUPPORTED = -1017, /* a valid request that this version does not carry out */
    LARDER_ELIMIT = -1018,       /* a bounded resource of the process or map is used up */
    LARDER_EDUPLICATE = -1019    /* a second copy of the library in one process */
};

/* A short English text for a code; never NULL, static. */
const char *larder_strerror(int code);

/* This thread's last error in full words, naming the thing and the limit; "" if there was none.
 * Valid until this thread's next larder call. */
const char *larder_last_error(void);

/* "MAJOR.MINOR.PATCH" of the library that is loaded. */
const char *larder_version_text(void);

/* ---- Open and close ------------------------------------------------------------------------ */

#define LARDER_NO_HOT_SET UINT64_MAX
/* Bytes of a key; the least is 1. One of more than about 4,000 is kept on pages that lie together,
 * and in a map that has long been full there may be none: then it is refused with LARDER_EFULL. */
#define LARDER_KEY_MAX 65535u
#define LARDER_NAME_MAX 65535u /* bytes of the name of a group or tag; the least is 1 */
#define LARDER_TAGS_MAX 16u    /* tags of an entry, beside its group */
#define LARDER_GLOB_MAX 1024u  /* bytes of a glob pattern; the least is 1 */

/* larder_options.flags */
enum {
    LARDER_ATTACH = 1u << 0,    /* never create: LARDER_ENOTFOUND where there is no map */
    LARDER_READ_ONLY = 1u << 1, /* refuse writes through this handle; implies LARDER_ATTACH */
    LARDER_PROTECT = 1u << 2,   /* creator's: map without write access to the data pages */
    LARDER_LOCAL = 1u << 3, /* options: nothing written here travels; policy: this entry. Nor does
                               what others write of its key come in while it stands */
    LARDER_VERIFY = 1u << 4 /* check every entry's checksum on every read */
};

typedef struct larder_options { /* zero-initialise; unknown members must be 0, else LARDER_EINVAL */
    const char *dir;       /* NULL: $LARDER_DIR (secure_getenv); /run/larder if it exists (no access
                              is an error); else /dev/shm/larder-UID, made with mode 0700 */
    uint64_t map_size;     /* bytes, the creator's choice; 0 = min(256 MiB, half the free space), at
                              least 16 MiB */
    uint64_t hot_size;     /* bytes of the hot set, the creator's choice: copies of records of up to
                              about 1.2 kB (192 bytes of it for a value of 100) that hits read
                              instead of the map; beside map_size, on the same file system. 64 KiB to
                              1 TiB; 0 = two fifths of map_size, and no more than half of what the map
                              leaves free (none with LARDER_PROTECT); LARDER_NO_HOT_SET */
    uint64_t max_value;    /* bytes of a value. The creator's is the map's: 0 = 8 MiB, and never
                              more than a sixteenth of the map; an option over 4 GiB - 1 is
                              LARDER_EINVAL. Whoever opens it later may ask for less, for
                              writes through that handle alone; what is more than the map's is
                              heard as the map's, without an error. A larger value is
                              LARDER_ETOOBIG, which names the limit */
    int64_t write_wait_ms; /* how long a write waits for the gate; 0 = 50; at most 60,000 */
    uint32_t flags, mode;  /* mode: permissions of the map's directory if it is made; 0 = 0700 in
                              the user's own folder, else 2770 */
    uint64_t max_entries;  /* the creator's choice: so many at most, the rest is evicted as from a
                              full map; 0 = as many as fit. Tombstones do not count */
    uint64_t reserved[7];
} larder_options;

/* Open the map NAME ([A-Za-z0-9_-][A-Za-z0-9._-]{0,62}), creating it unless LARDER_ATTACH. The same
 * map may be opened several times in a process; the handles share one LMDB environment.
 * options may be NULL. On error *out is NULL and nothing was changed. Waits for other processes
 * that are opening it, 1 s and what a try takes, 3 s at most; then EBUSY: one of them was stopped,
 * or they are too many.
 * Errors: EINVAL, EACCESS, ENOTFOUND, ENOSPACE, ENAMESPACE, EFORMAT, EBUSY, ENOMEM, ESYSTEM,
 * EDUPLICATE. */
int larder_open(const char *name, const larder_options *options, larder **out);

/* Close a handle and set *handle to NULL; NULL is allowed. No other thread may be inside a call
 * with this handle; views borrowed through it must have been released. */
void larder_close(larder **handle);

/* ---- Expiry and policy --------------------------------------------------------------------- */

/* larder_expiry.kind */
enum {
    LARDER_EXPIRY_DEFAULT = 0, /* the map's default: never */
    LARDER_EXPIRY_NEVER = 1,
    LARDER_EXPIRY_IN = 2, /* ms from now */
    LARDER_EXPIRY_AT = 3, /* ms since the epoch; in the past, its stale time included = delete */
    LARDER_EXPIRY_ALIGNED = 4, /* the next multiple of ms on the wall clock (UTC), + offset_ms */
    LARDER_EXPIRY_SLIDING = 5  /* ms after the last read or write, see larder_expire_sliding() */
};

typedef struct larder_expiry {
    int64_t ms, offset_ms;
    uint32_t kind, reserved;
} larder_expiry;

/* An entry is valid while now < expires_at. A TTL of 0 means no expiry; a negative one is
 * LARDER_EINVAL at set. larder_expire_aligned(300000, 0) is "the next 5-minute mark": an instant
 * that is itself a mark belongs to the period that begins there. The period is a whole number of
 * seconds; offset_ms is in (-period, period). */
larder_expiry larder_expire_never(void);
larder_expiry larder_expire_in(int64_t ms);
larder_expiry larder_expire_at(int64_t ms_since_epoch);
larder_expiry larder_expire_aligned(int64_t period_ms, int64_t offset_ms);

/* ms after the entry was last written or read (get in all forms, borrow; not has, scan, or a read
 * with LARDER_PEEK). A read writes the extension down at most once in a quarter of the period, and
 * never waits for that: where the gate is busy, the next read tries again. So an entry that is read
 * lives for at least three quarters of the period after its last read. 0 is LARDER_EINVAL. */
larder_expiry larder_expire_sliding(int64_t ms);

/* larder_policy.flags; LARDER_LOCAL too */
enum {
    LARDER_NEGATIVE = 1u << 16 /* store "known absent" (the value must be empty) */
};

/* Durations are 0 (none) or more; a negative one is LARDER_EINVAL, one that leads past the end of
 * time LARDER_EOVERFLOW. Without an expiry there is neither jitter nor staleness. Groups and tags
 * are any bytes, 1 to LARDER_NAME_MAX of them, compared whole: no separator, no pattern. A group
 * and a tag of one name are two things. */
typedef struct larder_policy { /* zero-initialised = the map's defaults */
    larder_expiry expiry;
    int64_t stale_ms;         /* fresh until it expires, then for so long served to those who accept
                                 a stale value; to all others a miss */
    int64_t jitter_ms;        /* expires earlier by a random 0 .. jitter_ms (never later, and not at
                                 once), so that what was written together does not expire together */
    int64_t max_lifetime_ms;  /* neither reads nor larder_touch() extend it past so long after this
                                 write; 0: they may. Cuts staleness, too */
    larder_bytes group;       /* at most one; size 0: none */
    const larder_bytes *tags; /* tag_count of them, doubles too, at most LARDER_TAGS_MAX;
                                 an entry has a double once */
    size_t tag_count;
    uint32_t flags, reserved0;
    uint64_t reserved[8];
} larder_policy;

/* larder_info.flags */
enum {
    LARDER_INFO_MARKED = 1u << 0, /* it has a group or tags */
    LARDER_INFO_SLIDING = 1u << 1 /* reads extend it */
};

typedef struct larder_info {
    uint64_t size; /* bytes of the value */
    larder_version version;
    int64_t created_ms, expires_ms /* INT64_MAX: never */, stale_until_ms /* 0: never stale */;
    uint32_t flags, reserved0;
    uint64_t reserved[4];
} larder_info;

/* ---- Reading: never waits for another process, never returns an expired or deleted value -----
 * Outcomes: OK, MISS, ABSENT. info may be NULL. */

/* Copy the value into buffer. Too small a buffer: LARDER_ESIZE, buffer untouched, info filled;
 * NULL, 0 asks for the size. */
int larder_get(larder *handle, const void *key, size_t key_size, void *buffer, size_t buffer_size,
               larder_info *info);

/* The same into memory of the library's: release with larder_free(). A value of 0 bytes gives a
 * non-NULL pointer too; LARDER_ABSENT, like a miss or an error, gives NULL. */
int larder_get_alloc(larder *handle, const void *key, size_t key_size, void **value,
                     size_t *value_size, larder_info *info);
void larder_free(void *memory);

typedef struct larder_read { /* zero-initialised = larder_get */
    uint32_t flags, reserved0;
    int64_t read_through_ms; /* on a miss: have larderd ask Redis, and wait for that at most so
                                long, see larder_ask(); 0 = do not ask; at most 60,000 */
    larder_expiry extend;    /* with LARDER_EXTEND */
    uint64_t reserved[3];
} larder_read;

/* larder_read.flags */
enum {
    LARDER_PEEK = 1u << 0, /* leave statistics, popularity and a sliding expiry untouched */
    /* LARDER_STALE and the value while it is past its expiry, but not past its stale_until_ms */
    LARDER_ACCEPT_STALE = 1u << 1,
    /* get and extend: what is found gets the expiry `extend` from now on (default: its own sliding
     * period, and nothing where it has none), without waiting for a quarter of the period. Waits
     * for the gate like a write; where that is refused the value comes all the same, and info holds
     * the expiry it kept. A handle that is read-only: LARDER_EREADONLY. */
    LARDER_EXTEND = 1u << 2
};

/* Waits for another process only where read_through_ms says so. */
int larder_get_with(larder *handle, const void *key, size_t key_size, void *buffer,
                    size_t buffer_size, larder_info *info, const larder_read *read);

/* A view: pointers into the map, valid until larder_release(), which must be called by the same
 * process; any thread may. At most 64 at a time in a process (LARDER_ELIMIT). Views pin old pages:
 * hold them for milliseconds, not minutes. A child of fork() must not use or release its parent's
 * views (releasing one there does nothing). Only LARDER_OK gives a view: with LARDER_ABSENT, info
 * alone is filled in, and there is nothing to release (releasing it does nothing). */
typedef struct larder_view {
    const struct iovec *parts;
    size_t part_count;
    larder_info info;
    void *internal[2];
} larder_view;

int larder_borrow(larder *handle, const void *key, size_t key_size, larder_view *view);
void larder_release(larder *handle, larder_view *view);

int larder_has(larder *handle, const void *key, size_t key_size);

/* ---- Writing: waits for the write gate at most write_wait_ms ---------------------------------
 * A write that returned an outcome >= 0 is visible to every process at once and survives the death
 * of any. Where a set, set_many, replace, or a cas that would have matched, is refused (EBUSY,
 * EFULL, ETOOBIG of the value, ...) the old value is not served either: the keys read as misses. A
 * refused add, incr or touch and all bad arguments (EINVAL, ETOOBIG of the key) change nothing.
 * policy may be NULL. */

int larder_set(larder *handle, const void *key, size_t key_size, const void *value,
               size_t value_size, const larder_policy *policy);

/* OK: it was there; MISS: it was not. Never refused for a busy gate: then OK, and the deletion is
 * remembered in shared memory until the next writer makes it durable. */
int larder_delete(larder *handle, const void *key, size_t key_size);

/* Give an entry another expiry; its group, tags, time of creation, how long it may be stale and its
 * longest life stay. A sliding entry slides on only if the new expiry slides. OK or MISS. */
int larder_touch(larder *handle, const void *key, size_t key_size, const larder_expiry *expiry);

/* Atomic on a host; between hosts the newest write wins. */
int larder_add(larder *handle, const void *key, size_t key_size, const void *value,
               size_t value_size, const larder_policy *policy); /* OK, EXISTS */
int larder_replace(larder *handle, const void *key, size_t key_size, const void *value,
                   size_t value_size, const larder_policy *policy); /* OK, MISS */
int larder_cas(larder *handle, const void *key, size_t key_size, const void *value,
               size_t value_size, const larder_version *expected,
               const larder_policy *policy); /* OK, CONFLICT, MISS */

/* Add delta to a decimal integer; a missing key counts from 0. With a NULL policy or default expiry
 * an existing entry keeps its expiry; where the policy names no group and no tags, it keeps those,
 * too, whatever the expiry. ENUMBER, EOVERFLOW: nothing changed. result may be NULL. */
int larder_incr(larder *handle, const void *key, size_t key_size, int64_t delta, int64_t *result,
                const larder_policy *policy);

/* ---- Many keys: one snapshot to read, one commit to write, an outcome an item --------------- */

typedef struct larder_item {
    const void *key;
    size_t key_size;
    const void *value; /* in: set_many; out: get_many, scan */
    size_t value_size;
    int outcome, reserved0;
    larder_info info;
} larder_item;

#define LARDER_MANY_MAX 4096u /* items of one call; more is LARDER_EINVAL */

/* *memory holds all values; release it with larder_free(). OK, or an error for the whole call. */
int larder_get_many(larder *handle, larder_item *items, size_t count, void **memory);
/* The values of one larder_set_many() together are at most the largest value (ETOOBIG). */
int larder_set_many(larder *handle, larder_item *items, size_t count, const larder_policy *policy);
int larder_delete_many(larder *handle, larder_item *items, size_t count);

/* A place between two keys, in key byte order. Zero-initialise to begin; plain, copyable bytes. */
typedef struct larder_cursor {
    uint32_t size, reserved;
    uint8_t position[512];
} larder_cursor;

/* flags of larder_scan */
enum {
    LARDER_SCAN_KEYS = 0,
    LARDER_SCAN_VALUES = 1u << 0 /* bring the values too */
};

/* Up to max live entries whose key begins with prefix, after the cursor, in key byte order (keys
 * longer than 509 bytes: by their first 494 bytes). *found = 0 means the end. Keys and values live
 * in *memory until larder_free(). Each call is a snapshot of its own; it looks at a bounded number
 * of entries, so that fewer than max may come before the end. */
int larder_scan(larder *handle, larder_cursor *cursor, larder_bytes prefix, larder_item *items,
                size_t max, uint32_t flags, size_t *found, void **memory);

/* The same for keys that match a pattern: "*" any bytes, "?" one byte, "[a-z]" one of these,
 * "[!a-z]" or "[^a-z]" one of the others, "\X" the byte X. Bytes, not characters; the whole key
 * must match; nothing else is special. What stands before the first wildcard narrows the walk.
 * EINVAL: not a pattern (empty, a class without end, a range that ends before it begins, a lone "\"
 * at the end), ETOOBIG: over LARDER_GLOB_MAX bytes. */
int larder_scan_match(larder *handle, larder_cursor *cursor, larder_bytes glob, larder_item *items,
                      size_t max, uint32_t flags, size_t *found, void **memory);

/* ---- Invalidating many ------------------------------------------------------------------------
 * LARDER_OK, or an error that changed nothing: EINVAL, ETOOBIG, EREADONLY, ENAMESPACE. Never
 * refused because of a busy gate or a full map: what cannot be exact is then wider than asked for.
 * An entry whose write had returned before the call began is read by nobody any more once the call
 * has returned; one whose write begins later lives; what races is either. */

/* Everything that carries the group, or the tag. count NULL: O(1). Else it receives how many live
 * entries there were, as far as could be seen, for which the whole map is walked first. At least
 * the newest 65,536 names are told apart; entries with any group or tag that are older than the
 * oldest of these invalidations are dead too. Waits at most 40 ms for another process. */
int larder_invalidate_group(larder *handle, larder_bytes name, uint64_t *count);
int larder_invalidate_tag(larder *handle, larder_bytes name, uint64_t *count);

/* Every key that begins with prefix (1 to LARDER_KEY_MAX bytes), or matches the pattern (see
 * larder_scan_match()). Deletes them one by one, 64 in a commit: takes time in proportion to the
 * keys it walks over. count (may be NULL) receives how many live ones went. Exact on this host;
 * other hosts are told the first 112 bytes of a longer prefix, and of a longer pattern the literal
 * bytes that it begins with: ETOOBIG where there are none. */
int larder_invalidate_prefix(larder *handle, larder_bytes prefix, uint64_t *count);
int larder_invalidate_match(larder *handle, larder_bytes glob, uint64_t *count);

/* Everything, at once: O(1). Space and statistics follow as the dead entries are removed. */
int larder_clear(larder *handle);

/* ---- Read-through -----------------------------------------------------------------------------
 * What this host does not have, another may have put into Redis. A worker asks larderd through
 * shared memory; larderd asks Redis once for all who miss a key at the same time, and puts what it
 * finds into the map. Nobody waits where that cannot help: without a larderd, with Redis not
 * reached, or after three requests in a row came to nothing (then one a second tries again). */

typedef struct larder_asked { /* plain, copyable bytes; needs no release */
    uint64_t internal[4];
} larder_asked;

/* Ask for a key, for larder_ask_wait(). Never waits; budget_ms (1 to 60,000) is how long the answer
 * is of use. To get many keys, ask for all of them and then wait for each.
 *   WAIT  asked
 *   MISS  there is nobody to ask, too much is being asked for already (512 keys), or the key has
 *         over 960 bytes: take the miss
 * Errors: EINVAL, ETOOBIG, ENAMESPACE. */
int larder_ask(larder *handle, const void *key, size_t key_size, int64_t budget_ms,
               larder_asked *asked);

/* Wait for the answer at most wait_ms (0: only look), and never past the budget.
 *   OK     worth another look: larder_get() has it, unless what Redis had is dead on this host (an
 *          invalidation that Redis had not heard of, say) or went again in between
 *   MISS   Redis has none
 *   WAIT   not yet; the notify descriptor will tell
 *   EBUSY  no answer within the budget, or larderd could not get one
 * Errors: EINVAL. A child of fork() may wait for what its parent asked. */
int larder_ask_wait(larder *handle, const larder_asked *asked, int64_t wait_ms);

/* ---- Events ---------------------------------------------------------------------------------
 * What happens to a map, as it happens, in a bounded ring in shared memory: no log, and nothing is
 * kept for those who are not there. A write tells of itself behind its commit and in the order of
 * commits: what an event speaks of can be read. While nobody follows a kind, nobody tells it.
 * Follow first, read then: what happened in between is told. */

/* larder_filter.kinds, larder_event.kind */
enum {
    LARDER_EVENT_SET = 1u << 0,        /* stored or given another expiry; name: the key */
    LARDER_EVENT_DELETE = 1u << 1,     /* deleted, whether or not it was there; the key */
    LARDER_EVENT_INVALIDATE = 1u << 2, /* cause says what name is */
    LARDER_EVENT_EVICT = 1u << 3,      /* removed to make room, or found dead; the key */
    LARDER_EVENT_EXPIRE = 1u << 4,     /* removed because it had expired; the key */
    LARDER_EVENT_NAMED = 1u << 5       /* of larder_publish() */
};

/* larder_event.cause; treat an unknown one as LARDER_CAUSE_NONE */
enum {
    LARDER_CAUSE_NONE = 0,    /* a call of a process of this host */
    LARDER_CAUSE_REPLICA = 1, /* it came from another host */
    LARDER_CAUSE_KEY = 2,     /* invalidate: of one key (a write was refused) */
    LARDER_CAUSE_GROUP = 3,   /* ... of a group: name is the group's */
    LARDER_CAUSE_TAG = 4,
    LARDER_CAUSE_PREFIX = 5,
    LARDER_CAUSE_MATCH = 6, /* ... by a pattern: name is the pattern */
    LARDER_CAUSE_CLEAR = 7, /* ... of everything: name is empty */
    LARDER_CAUSE_SMALL = 8, /* evict: from the queue of new entries */
    LARDER_CAUSE_MAIN = 9,  /* ... from the queue of those that were asked for */
    LARDER_CAUSE_DEAD = 10  /* ... a group, tag or clear had made it dead */
};

/* larder_event.flags */
enum {
    LARDER_EVENT_CUT = 1u << 0 /* the key is longer than 4,096 bytes: name is its beginning */
};

#define LARDER_EVENT_NAME_MAX 255u  /* bytes of an event's name; any bytes, the least is 1 */
#define LARDER_EVENT_DATA_MAX 4096u /* bytes of its data */

typedef struct larder_event {
    uint32_t kind, cause, flags;
    uint32_t reserved0;
    uint64_t number;         /* of the ring: dense over all kinds, larger is later */
    uint64_t missed;         /* LARDER_MISSED: how many, of all kinds, at most */
    larder_version version;  /* of the entry or invalidation; 0 of named ones */
    int64_t expires_ms;      /* SET: INT64_MAX is never */
    uint64_t name_hash;      /* of keys, in full: two cut ones can be told apart by it */
    uint64_t name_size;      /* in full, where name was cut */
    larder_bytes name, data; /* valid until the next call with this follower; data: of named ones */
    uint64_t reserved[4];
} larder_event;

typedef struct larder_filter { /* zero-initialised = everything; unknown members must be 0 */
    uint32_t kinds, reserved0; /* LARDER_EVENT_*; 0 = all */
    larder_bytes prefix;       /* events of keys: of those that begin so. Invalidations of more than
                                  a key are told if they may hit such keys */
    const larder_bytes *names; /* named events: these (at most 64), compared byte by byte; none =
                                  all of them */
    size_t name_count;
    uint64_t reserved[4];
} larder_filter;

typedef struct larder_follower larder_follower;

/* Tell all followers of this host, under a name (any bytes, ':' has no meaning) with up to 4,096
 * bytes. It never waits; while nobody follows named events it does nothing. OK; EINVAL, ETOOBIG,
 * EREADONLY. A publisher that is killed inside has published it or not. */
int larder_publish(larder *handle, larder_bytes name, larder_bytes data);

/* Follow the map's events from now on. filter may be NULL. Any number of followers a process, 64 a
 * map (LARDER_ELIMIT); each sees all that its filter lets through, whatever the others do. A
 * follower is for one thread at a time, must be given up before its handle is closed, and is not
 * inherited: a child of fork() gets LARDER_EINVAL and follows anew. */
int larder_follow(larder *handle, const larder_filter *filter, larder_follower **follower);

/* The next event, without waiting: LARDER_OK; LARDER_MISS: none yet; LARDER_MISSED: the ring (8,192
 * events) went over some that this follower had not seen, or a process died or was stopped in the
 * middle of telling one. That is told once, with how many (event->missed), and then it goes on at
 * the oldest that is still there. Whoever keeps a copy of what the map holds forgets it then. */
int larder_next_event(larder_follower *follower, larder_event *event);

/* The same, but wait for one at most wait_ms (0 to 3,600,000). */
int larder_wait_event(larder_follower *follower, int64_t wait_ms, larder_event *event);

/* Stop, and set *follower to NULL; NULL is allowed. */
void larder_unfollow(larder_follower **follower);

/* ---- Get or fill: one caller of a host asks the origin, the others wait or take a stale value ---
 *
 * A lease is the right to fill one key. It ends when it is filled or abandoned, when its holder's
 * process dies (noticed within milliseconds where somebody waits), or at its deadline, whatever the
 * holder does. Each lease carries a version, drawn before the origin is asked: what is filled is
 * stored as of then, and only if the key has not been written, deleted or invalidated since. So a
 * fill never brings back what an invalidation took away, and a holder that lost its lease may still
 * fill without harm. */

typedef struct larder_lease_options { /* zero-initialise; unknown members must be 0 */
    int64_t hold_ms; /* the holder's deadline, from now; 0 = 10,000; at most 600,000 */
    int64_t wait_ms; /* larder_fetch_with(): how long to wait for another's fill before filling
                        oneself; 0 = 10,000; -1 = not at all; at most 600,000 */
    uint32_t early_percent; /* renew ahead of expiry, by chance, the likelier the nearer it is and
                               the longer the last fill took: 100 is XFetch with beta = 1 (Vattani,
                               Chierichetti, Lowenstein, VLDB 2015); 0 = never; at most 10,000. Not
                               for aligned expiry, whose mark stays the same */
    uint32_t flags;
    int64_t read_through_ms; /* larder_fetch_with(): whoever is to fill asks Redis first, and waits
                                for that at most so long, see larder_ask(); 0 = does not */
    uint64_t reserved[5];
} larder_lease_options;

/* Plain, copyable bytes. Any thread of the process may use it; a child of fork() has not inherited
 * it (LARDER_EINVAL there). It needs no release. */
typedef struct larder_lease {
    larder_version version; /* what a fill is stored as */
    uint64_t internal[6];
} larder_lease;

/* Read a key, and where it is missing, stale, or due for early renewal, take its lease. Never waits
 * for another process. options may be NULL. value and value_size may both be NULL: then only the
 * outcome and info are given; else *value is released with larder_free(). info may be NULL.
 *   OK       a fresh value                 ABSENT  a negative entry
 *   STALE    a stale value; another is renewing it
 *   REFRESH  a stale or (early) fresh value; the lease is yours
 *   FILL     nothing; the lease is yours
 *   WAIT     nothing; another has the lease: larder_lease_wait(), or the notify descriptor
 * With all 1,024 leases in use, or the 16 that a key can have, every caller is told to fill.
 * Errors: EINVAL, ETOOBIG (the key), EREADONLY, ENOMEM, ENAMESPACE, ELIMIT (4,096 threads read the
 * map already). */
int larder_lease_acquire(larder *handle, const void *key, size_t key_size,
                         const larder_lease_options *options, larder_lease *lease, void **value,
                         size_t *value_size, larder_info *info);

/* After LARDER_WAIT: wait at most wait_ms (0: only look) until that lease has ended.
 *   OK    it has: call larder_lease_acquire() again
 *   SKIP  it has, and its holder says that the value is not for the cache: get it yourself
 *   WAIT  it has not yet
 * Errors: EINVAL. */
int larder_lease_wait(larder *handle, const larder_lease *lease, int64_t wait_ms);

/* Store the value and end the lease. key is the one of the lease. Waits for the write gate like
 * larder_set(). OK, CONFLICT (a newer write, delete or invalidation: not stored) or an error; the
 * lease has ended in any case but EINVAL of the handle, key or lease. */
int larder_lease_fill(larder *handle, const larder_lease *lease, const void *key, size_t key_size,
                      const void *value, size_t value_size, const larder_policy *policy);

/* Give the holder hold_ms (0 = 10,000) from now. OK; CONFLICT: the lease was lost. */
int larder_lease_renew(larder *handle, const larder_lease *lease, int64_t hold_ms);

/* End the lease without a value. why: LARDER_SKIP lets all who wait get the value themselves, at
 * once; 0 lets one of them try. OK; CONFLICT: the lease was lost. */
int larder_lease_abandon(larder *handle, const larder_lease *lease, int why);

typedef struct larder_filled { /* zeroed before the fill is called */
    const void *value;
    size_t value_size;
    larder_policy policy;         /* zero = the map's defaults */
    void (*release)(void *owner); /* called once when the value is no longer needed; may be NULL */
    void *owner;
    uint64_t reserved[4];
} larder_filled;

/* Get the value from its origin. Runs in the caller's thread, with no lock held and no transaction
 * open; it may call the library. Returns
 *   OK      filled->value is stored under filled->policy
 *   ABSENT  the origin has none: stored as a negative entry under filled->policy
 *   SKIP    filled->value is for this caller and not for the cache
 *   < 0     it failed; larder_fetch() returns that number, or a stale value where there is one
 * A fill of the same key from inside the fill is called without a lease. One that leaves by
 * longjmp() or an exception keeps its lease until the deadline. */
typedef int larder_fill(void *context, const void *key, size_t key_size, larder_filled *filled);

/* Get the value, or fill it: of all callers of a host that miss at once, one calls its fill and the
 * others get what it stored. A cache that cannot help (gate busy, full, damaged, read-only) never
 * stands in the way: then every caller's fill is called and its value returned. Where a fill fails
 * one of those who wait tries; where that fails, too, all others do, at once.
 *   OK      *value, released with larder_free()
 *   STALE   the same, past its freshness: another is renewing it, or the fill failed
 *   ABSENT  *value is NULL
 * Errors: what the fill returned; EINVAL, EOVERFLOW, EUNSUPPORTED (also of the fill's policy),
 * ETOOBIG (the key), ENOMEM. info may be NULL. */
int larder_fetch(larder *handle, const void *key, size_t key_size, larder_fill *fill, void *context,
                 void **value, size_t *value_size, larder_info *info);
int larder_fetch_with(larder *handle, const void *key, size_t key_size, larder_fill *fill,
                      void *context, const larder_lease_options *options, void **value,
                      size_t *value_size, larder_info *info);

/* A descriptor for event loops (select, poll, epoll): readable when a lease that this process was
 * told to WAIT for has ended, whether by a fill or by its holder's death or deadline, and when what
 * it asked for (larder_ask()) is answered or its budget over. One a process and map, the same at
 * each call; call this before larder_lease_acquire() and larder_ask(). When it is readable call
 * larder_notify_clear(), then larder_lease_wait() with 0 for each lease that is waited for, and
 * larder_ask_wait() with 0 for each key. It is
 * closed by the last larder_close() of the map: take it out of the loop before. A child of fork()
 * asks for its own. At most 256 processes of a map have one (ELIMIT). >= 0, or an error. */
int larder_notify_fd(larder *handle);
int larder_notify_clear(larder *handle);

/* ---- Statistics ----------------------------------------------------------------------------- */

typedef struct larder_stats {
    /* counted since the map was made, over all processes */
    uint64_t hits, misses, expired, absent; /* expired ones count as misses too */
    uint64_t read_busy, read_corrupt;       /* misses because of a busy gate, of damage */
    uint64_t sets, deletes, touches, refused_busy, refused_full, refused_size;
    uint64_t evictions, expirations, pending_overflows, gate_recoveries, generations;
    /* of this process alone */
    uint64_t process_hits, process_misses, process_sets;
    /* now */
    uint64_t entries, tombstones, dirty, log_rows, pending;
    uint64_t map_size, used_bytes, generation, processes;
    int64_t oldest_dirty_ms;     /* time of the oldest write Redis has not acknowledged; 0: none */
    int64_t daemon_heartbeat_ms; /* 0: never seen */
    uint32_t replicates, redis_up; /* 0 or 1 */
    /* counted since the map was made; more of them */
    uint64_t hot_hits;            /* of hits and absent: answered by the hot set */
    uint64_t stale;               /* lookups answered with a stale value; not among the hits */
    uint64_t invalidations_group; /* calls, whatever they hit */
    uint64_t invalidations_tag, invalidations_prefix, invalidations_match, invalidations_clear;
    uint64_t evicted_small, evicted_main; /* of the evictions: from which queue */
    uint64_t reclaimed_expired;           /* of the expirations: found while making room */
    uint64_t reclaimed_dead;              /* removed: a group, tag or clear had made them dead */
    uint64_t lease_fills, lease_waits, lease_takeovers, lease_timeouts, lease_refused_fills;
    uint64_t refreshes;     /* leases given ahead of expiry or for a stale value */
    uint64_t slides;        /* expiries extended by a read */
    uint64_t combined;      /* writes that another process committed together with its own */
    uint64_t events;        /* put into the event ring */
    uint64_t events_missed; /* overwritten before a follower had seen them; counted by it */
    uint64_t hot_size;      /* now: bytes of the hot set; 0: there is none */
    /* misses that asked Redis, by how that ended; one that found something is a miss all the same
     */
    uint64_t read_through_found, read_through_absent, read_through_timeouts;
    uint64_t read_through_nobody; /* nobody to ask: no wait */
    uint64_t read_through_full;   /* too much was being asked for, or too long a key: no wait */
    uint64_t read_through_joined; /* of the first three: waited for another's request */
} larder_stats;

/* Fill at most size_of_out bytes (so that a newer library serves an older caller). EBUSY: the map
 * is being resized or made anew just now. */
int larder_stats_read(larder *handle, larder_stats *out, size_t size_of_out);

/* How long calls take, from sampled ones of all processes since the map was made. */
enum {
    LARDER_LATENCY_HIT = 0,    /* larder_get() and its kin that found something */
    LARDER_LATENCY_MISS = 1,   /* ... that did not */
    LARDER_LATENCY_SET = 2,    /* larder_set(), the wait for the gate included */
    LARDER_LATENCY_DELETE = 3, /* larder_delete() */
    LARDER_LATENCY_FETCH = 4   /* get or fill, the fill or the wait for it included */
};

#define LARDER_LATENCY_BUCKETS 128

typedef struct larder_latency {
    uint32_t kind;
    uint32_t one_in;                          /* on average one call in so many is sampled */
    uint64_t count, sum_ns;                   /* of the sampled ones */
    uint64_t p50_ns, p90_ns, p99_ns, p999_ns; /* within an eighth; 0: nothing was sampled */
    uint64_t buckets[LARDER_LATENCY_BUCKETS]; /* calls of at least larder_latency_bound_ns(i) and
                                                 less than ...(i + 1) */
} larder_latency;

/* LARDER_OK, or EINVAL. Where reading the clock takes a system call nothing is timed. */
int larder_latency_read(larder *handle, uint32_t kind, larder_latency *out, size_t size_of_out);
uint64_t larder_latency_bound_ns(size_t bucket);

#ifdef __cplusplus
}
#endif
#endif
