/* hotset.h: copies of small records in shared memory, in front of the trees: a hit there costs one
 * or two memory misses instead of a descent's five or six.
 *
 * One file per generation, of pages; a key belongs to one page, which holds its copy or none. A
 * page is a set-associative cache of its own: tags and a sequence lock in its first line, so that a
 * hit touches one page of memory and writes at most one byte (see hotset_find()).
 *
 * Invariant: a copy that hotset_find() returns is of the newest version that had been written when
 * the call began, or of a newer one. Writes are numbered (control_life.changes counts those that
 * have ended). It holds because a writer raises the page's `newest` to its own number and takes the
 * old copy out *before* what it writes can be seen, and a copy is put in only by a reader that had
 * seen at least `newest` writes end before it looked, compared under the page's lock.
 *
 * A copy is a record as it stands in the tree (format.h): whoever finds one judges it as such.
 */
#ifndef LARDER_LIB_HOTSET_H
#define LARDER_LIB_HOTSET_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    HOTSET_PAGE = 4096,
    HOTSET_LINE = 64,
    HOTSET_LINES = HOTSET_PAGE / HOTSET_LINE,
    HOTSET_HEAD_LINES = 2,   /* a hit looks at the first alone */
    HOTSET_WAYS = 20,        /* copies a page holds at most */
    HOTSET_REFERENCED = 3,   /* the counter of a copy ends here */
    HOTSET_ENTRY_LINES = 20, /* of the largest copy: a third of a page */
    HOTSET_COPY_MAX = HOTSET_ENTRY_LINES * HOTSET_LINE
};

/* What stands before a copy's key and record. MAP_FORMAT */
struct hotset_entry {
    uint16_t key_size, record_size;
};
static_assert(sizeof(struct hotset_entry) == 4, "MAP_FORMAT");

enum { HOTSET_RECORD_MAX = HOTSET_COPY_MAX - (int)sizeof(struct hotset_entry) }; /* key + record */

/* MAP_FORMAT. The lock: sequence << 32 | pid of the holder << 1 | retired. Free: low half zero.
 * A way: ten bits of the key's hash << 6 | the line where its copy begins; 0: no copy.
 * Counters: two bits a way, how often it was asked for. Readers change them without the lock, so
 * they stand where a late store can do no harm, and count only roughly. */
struct hotset_page {
    _Atomic uint64_t lock;
    _Atomic uint64_t newest; /* no copy from before this write has ended comes in */
    _Atomic uint64_t counters;
    uint16_t ways[HOTSET_WAYS];
    _Atomic uint64_t free; /* bit n: line n holds nothing */
    uint8_t hand;          /* the way where the search for a victim goes on */
    uint8_t padding[55];
    uint8_t lines[HOTSET_LINES - HOTSET_HEAD_LINES][HOTSET_LINE];
};
static_assert(sizeof(struct hotset_page) == HOTSET_PAGE, "MAP_FORMAT");
static_assert(offsetof(struct hotset_page, ways) == 24, "MAP_FORMAT");
static_assert(offsetof(struct hotset_page, free) == 64, "MAP_FORMAT");
static_assert(offsetof(struct hotset_page, lines) == 128, "MAP_FORMAT");

/* As this process has it mapped. pages NULL: there is none, and nothing is ever found. */
struct hotset {
    struct hotset_page *pages;
    uint64_t count; /* of pages */
    pid_t pid;
};

/* What is looked for. The hash is the key's (key.h). */
struct hotset_key {
    uint64_t hash;
    const void *data;
    size_t size;
};

#define HOTSET_NAME "hot" /* of the file, beside LMDB's */
#define HOTSET_SIZE_MAX (UINT64_C(1) << 40)

/* Make the file in the directory of a generation: preallocated, empty, for the owner alone. size:
 * bytes, a multiple of HOTSET_PAGE; 0: none. ENOSPC, ESYSTEM. */
int hotset_create(const char *directory, uint64_t size);

/* Map it. ECORRUPT: missing or of another size; ENOMEM, ESYSTEM. */
int hotset_open(const char *directory, uint64_t size, struct hotset *hot);
void hotset_close(struct hotset *hot);

static inline struct hotset_page *hotset_page_of(const struct hotset *hot, uint64_t hash)
{
    return &hot->pages[(hash >> 32) * hot->count >> 32]; /* HOTSET_SIZE_MAX: fits 64 bits */
}

/* Begin to bring in what hotset_find() will look at. */
static inline void hotset_prefetch(const struct hotset *hot, uint64_t hash)
{
    if (hot->pages != NULL) {
        __builtin_prefetch(hotset_page_of(hot, hash));
    }
}

/* Copy what stands there of the key into copy, which has HOTSET_COPY_MAX bytes. Returns the record
 * in it and its size, NULL: not there. Waits for nobody. Notes that it was asked for unless peek.
 */
const uint8_t *hotset_find(const struct hotset *hot, const struct hotset_key *key, uint8_t *copy,
                           size_t *record_size, bool peek);

/* Take the key's copy out, and let none in from before this write has ended: to be called by each
 * writer of the key before what it writes can be seen. Returns whether there was one. */
bool hotset_forget(const struct hotset *hot, const struct hotset_key *key, uint64_t change);

enum hotset_claim {
    HOTSET_IF_ROOM,  /* where nothing has to go for it */
    HOTSET_SOMETIMES /* in a full page it takes another's place, one time in four to sixteen */
};

/* Put a copy in, if it is new enough (changes: writes that had ended before the record was looked
 * for), the record small enough and the page to be had at once. */
void hotset_offer(const struct hotset *hot, const struct hotset_key *key, const void *record,
                  size_t record_size, uint64_t changes, enum hotset_claim claim);

/* How often the key's copy was asked for since its counter was last halved (0..3; 0 where there is
 * none), and halve it: the eviction's question. */
unsigned hotset_age(const struct hotset *hot, const struct hotset_key *key);

/* Copies in all pages, by a walk over their heads. */
uint64_t hotset_entries(const struct hotset *hot);

#endif
