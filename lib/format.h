/* format.h: what stands behind a key in the tree: a record. MAP_FORMAT
 *
 *   head (24 bytes) | extras, 8 bytes each, in the order of their bits | marks: how many (a byte),
 *   16 bytes each | long key (4 bytes of size, the key) | the value, or the list of its chunks:
 *   where they are (24 bytes), the page that each stands on (4 bytes each), what is left of the
 *   value behind them | padding, whose last byte says how much of it there is
 *
 * A value's size is what is left of the record, so that the common entry carries 24 or 32 bytes
 * beside its value: leaves are most of what a hit waits for. All integers in the machine's byte
 * order (the control segment refuses another one). Records are read by memcpy and never trusted:
 * record_decode() checks every length against the bytes that are there. Whoever changes a field
 * here raises CONTROL_FORMAT.
 */
#ifndef LARDER_LIB_FORMAT_H
#define LARDER_LIB_FORMAT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "key.h"
#include "larder.h"

enum record_kind { RECORD_VALUE = 1, RECORD_NEGATIVE = 2, RECORD_DELETED = 3 };

enum {
    RECORD_DIRTY = 1 << 0,   /* Redis has not acknowledged this version and kind */
    RECORD_LOCAL = 1 << 1,   /* never travels */
    RECORD_CHUNKED = 1 << 2, /* the value stands in the chunks database */
    RECORD_LONG_KEY = 1 << 3,
    RECORD_RETURNED = 1 << 4, /* came back soon after its eviction: not on trial (evict.h) */
    RECORD_PADDED = 1 << 5,   /* stands where a longer one stood (overwrite.h) */
    RECORD_FLAGS = 0x3f,
    RECORD_PADDING_MAX = 255,

    RECORD_HAS_EXPIRY = 1 << 0,
    RECORD_HAS_CREATED = 1 << 1, /* creation time, where it is not the version's */
    RECORD_HAS_ACKED = 1 << 2,   /* when Redis acknowledged it to us */
    RECORD_HAS_STALE = 1 << 3,   /* stale-until */
    RECORD_HAS_SLIDING = 1 << 4, /* sliding period */
    RECORD_HAS_LIMIT = 1 << 5,   /* longest life */
    RECORD_EXTRAS = 6,           /* how many times there are */
    RECORD_HAS_NODE = 1 << 6,    /* written elsewhere */
    RECORD_HAS_MARKS = 1 << 7,   /* no extra of 8 bytes */

    RECORD_MARKS_MAX = 17, /* a group and 16 tags */
    RECORD_MARK_SIZE = 16,

    /* A leaf node of LMDB holds two of these on a page of 4 KiB. (4096 - 16) / 2 rounded down to
     * even, less the 2 bytes of its pointer and 8 of its header. */
    RECORD_NODE_MAX = 2030, /* key form + record */

    /* A larger one takes a page of its own: one page less LMDB's page header. Beyond that it would
     * take a run of them, which is what chunks are for. */
    RECORD_PAGE_MAX = 4080,

    CHUNK_PAGE = RECORD_PAGE_MAX, /* its number, then */
    CHUNK_SIZE = CHUNK_PAGE - 8,  /* this much of the value */
    RECORD_PAGES_MAX = 260        /* pages that a record names: those of a value of 1 MiB */
};

/* As it stands in the tree. Packed: row | kind << 48 | flags << 50 | extras << 56. */
struct record_head {
    uint64_t checksum; /* XXH3 of all that follows, seeded with the key's hash */
    uint64_t clock;    /* version */
    uint64_t packed;
};
static_assert(sizeof(struct record_head) == 24, "MAP_FORMAT");

/* Rows of the log that there can be: nine years of a million new keys a second. */
#define RECORD_ROW_MAX ((UINT64_C(1) << 48) - 1)

struct record_header {
    uint64_t checksum, clock, row;
    uint32_t node; /* 0: the one that this map was made with, see record_version() */
    uint8_t kind, flags, mark_count, extras;
};

/* A record taken apart, or about to be put together. Pointers go into the encoded bytes. */
struct record {
    struct record_header header; /* checksum and extras are record_encode()'s */
    int64_t expires_at_ms;       /* INT64_MAX: never */
    int64_t created_ms;          /* 0: the version's */
    int64_t acked_ms;            /* 0: it was not, or not by us */
    int64_t stale_until_ms;      /* 0: never stale */
    int64_t sliding_ms;          /* 0: not sliding */
    int64_t limit_ms;            /* no expiry may be later, whoever extends it; 0: none */
    const uint8_t *marks;
    const uint8_t *long_key;
    size_t long_key_size;
    size_t value_size;
    const uint8_t *value;    /* NULL where it is chunked */
    uint64_t first_chunk;    /* ids first_chunk .. first_chunk + chunk_count - 1 */
    uint64_t value_checksum; /* of a chunked value: record_value_hash() */
    size_t chunk_count;
    const void *pages;   /* record_page() of each chunk; NULL: not known */
    const uint8_t *tail; /* of a chunked value: what is left of it behind its chunks */
    size_t tail_size;
    size_t padding; /* for record_encode(): bytes to add, at most RECORD_PADDING_MAX; a decoded
                       record has lost its own, and the flag */
};

/* A record with nothing in it but these. */
static inline struct record record_make(larder_version version, enum record_kind kind,
                                        unsigned flags, int64_t expires_at_ms)
{
    return (struct record){.header = {.clock = version.clock,
                                      .node = version.node,
                                      .kind = (uint8_t)kind,
                                      .flags = (uint8_t)flags},
                           .expires_at_ms = expires_at_ms};
}

/* Take a record apart. False: it is damaged (nothing beyond the bytes was looked at). */
bool record_decode(const void *bytes, size_t size, struct record *record);

/* Bytes that the record will take, value or chunk list included. */
size_t record_size(const struct record *record);

/* Whether the value is too large for its record. */
bool record_needs_chunks(const struct key *key, const struct record *record);

/* How many chunks a value that needs them is cut into, and how much of it (tail_size) is left for
 * the record: the end of it where that fits, which saves a reader a page, and the map most of one.
 */
void record_cut(const struct key *key, struct record *record);

/* Write it into record_size() bytes and seal it with its checksum. */
void record_encode(void *bytes, const struct record *record, uint64_t key_hash);

/* Whether the checksum is right. */
bool record_intact(const void *bytes, size_t size, uint64_t key_hash);

uint64_t record_value_hash(const void *value, size_t size);

/* Chunks of a value of which nothing stands in its record: the most that one of that size takes. */
static inline size_t record_chunks(size_t value_size)
{
    return (value_size + CHUNK_SIZE - 1) / CHUNK_SIZE;
}

/* The page that a chunk is said to stand on: a hint (store_chunk_at()). 0: not known. */
static inline uint32_t record_page(const struct record *record, size_t index)
{
    uint32_t page = 0;
    if (record->pages != NULL) {
        memcpy(&page, (const uint8_t *)record->pages + index * sizeof page, sizeof page);
    }
    return page;
}

/* In how many pieces the value stands in the map. */
static inline size_t record_parts(const struct record *record)
{
    return record->chunk_count == 0 ? 1 : record->chunk_count + (record->tail_size > 0);
}

/* home: control->home. Most entries are of that node, and leave it out. */
static inline larder_version record_version(const struct record *record, uint32_t home)
{
    return (larder_version){.clock = record->header.clock,
                            .node = record->header.node != 0 ? record->header.node : home};
}

/* Before record_size(): a node that need not be written is not. */
static inline void record_leave_out(struct record *record, uint32_t home)
{
    if (record->header.node == home) {
        record->header.node = 0;
    }
}

static inline int64_t record_created_ms(const struct record *record)
{
    return record->created_ms != 0 ? record->created_ms : (int64_t)(record->header.clock >> 16);
}

/* From when on nobody is served the record any more, not even as a stale one. */
static inline int64_t record_gone_ms(const struct record *record)
{
    return record->stale_until_ms > record->expires_at_ms ? record->stale_until_ms
                                                          : record->expires_at_ms;
}

/* Whether the record is of this key (always, unless two long keys share a form). */
bool record_is_of(const struct record *record, const struct key *key);

#endif
