/* descent_page.h: LMDB's pages and nodes as bytes of the mapping. Whatever they say, nothing
 * outside the mapping is read, and no length twice: another process may be scribbling on it. For
 * descent.c alone.
 *
 * MAP_FORMAT: see descent.h.
 */
#ifndef LARDER_LIB_DESCENT_PAGE_H
#define LARDER_LIB_DESCENT_PAGE_H

#include "descent.h"

#include <endian.h>
#include <string.h>

enum {
    PAGE_NUMBER = 0, /* MDB_page */
    PAGE_FLAGS = 10,
    PAGE_LOWER = 12,
    PAGE_UPPER = 14,
    PAGE_RUN = 12, /* of an overflow page: how many there are, 32 bits */
    PAGE_HEADER = 16,

    PAGE_BRANCH = 0x01,
    PAGE_LEAF = 0x02,
    PAGE_OVERFLOW = 0x04,
    PAGE_KINDS = 0x6f, /* with meta, LEAF2 and sub-pages; other bits are a writer's own marks */

    NODE_LOW = 0, /* MDB_node: size of the data or number of the child */
    NODE_FLAGS = 4,
    NODE_KEY_SIZE = 6,
    NODE_HEADER = 8,

    NODE_PLAIN = 0,
    NODE_BIG = 0x01,      /* the data stand on pages of their own */
    NODE_DATABASE = 0x02, /* the data are an MDB_db */

    DATABASE_FLAGS = 4, /* MDB_db */
    DATABASE_DEPTH = 6,
    DATABASE_BRANCHES = 8,
    DATABASE_LEAVES = 16,
    DATABASE_OVERFLOWS = 24,
    DATABASE_ENTRIES = 32,
    DATABASE_ROOT = 40,
    DATABASE_SIZE = 48,
    DATABASE_NUMBERS = 0x08, /* MDB_INTEGERKEY */

    META_MAGIC = PAGE_HEADER, /* MDB_meta */
    META_VERSION = PAGE_HEADER + 4,
    META_MAIN = PAGE_HEADER + 72, /* mm_dbs[MAIN_DBI] */
    META_LAST_PAGE = PAGE_HEADER + 120,
    META_NUMBER = PAGE_HEADER + 128,

    BRANCH_LEAST = 2,      /* keys that LMDB leaves on a branch page */
    PAGE_SIZE_MAX = 32768, /* LMDB's: offsets have 16 bits */
    DEPTH_MAX = 32,        /* LMDB's */
    KEY_MAX = 511          /* LMDB's */
};

#define MAGIC UINT32_C(0xBEEFC0DE)
#define VERSION UINT32_C(1)
#define EMPTY_ROOT UINT64_MAX

/* Everything on the way down is one function: made of calls it is a sixth slower (bench_hit). */
#define INLINE static inline __attribute__((always_inline))

/* ---- Memory ---------------------------------------------------------------------------------- */

/* Makes the value opaque to the compiler, so that it cannot read the memory a second time. */
#define READ_ONCE(value) __asm__("" : "+r"(value))

INLINE uint32_t read16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    READ_ONCE(value);
    return value;
}

INLINE uint32_t read32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    READ_ONCE(value);
    return value;
}

INLINE uint64_t read64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    READ_ONCE(value);
    return value;
}

/* Words made so compare as their bytes do. */
INLINE uint64_t read_word(const uint8_t *at)
{
    return be64toh(read64(at));
}

/* ---- Pages and nodes ------------------------------------------------------------------------- */

struct page {
    const uint8_t *at;
    uint32_t count;       /* of nodes; their pointers lie in the page */
    uint32_t upper, size; /* nodes lie from upper to size */
};

struct node {
    uint32_t at, key_size; /* header and key lie in the page */
};

INLINE const uint8_t *page_at(const struct descent *tree, uint64_t number)
{
    return tree->base + number * tree->page_size;
}

/* False: there is no such page, or it is not one of that kind. */
INLINE bool page_open(const struct descent *tree, uint64_t number, uint32_t kind, struct page *page)
{
    if (__builtin_expect(number >= tree->pages, 0)) {
        return false;
    }
    const uint8_t *at = page_at(tree, number);
    uint32_t lower = read16(at + PAGE_LOWER), upper = read16(at + PAGE_UPPER);
    *page = (struct page){
        .at = at, .count = (lower - PAGE_HEADER) / 2, .upper = upper, .size = tree->page_size};
    return __builtin_expect(read64(at + PAGE_NUMBER) == number &&
                                (read16(at + PAGE_FLAGS) & PAGE_KINDS) == kind &&
                                lower >= PAGE_HEADER && lower <= upper && upper <= tree->page_size,
                            1);
}

INLINE uint32_t node_offset(const struct page *page, uint32_t index)
{
    return read16(page->at + PAGE_HEADER + (size_t)index * sizeof(uint16_t));
}

/* index is below page->count. False: the node does not lie in the page. */
INLINE bool node_open(const struct page *page, uint32_t index, struct node *node)
{
    uint32_t at = node_offset(page, index);
    if (__builtin_expect(at < page->upper || at + NODE_HEADER > page->size, 0)) {
        return false;
    }
    node->at = at;
    node->key_size = read16(page->at + at + NODE_KEY_SIZE);
    return __builtin_expect(node->key_size <= page->size - NODE_HEADER - at, 1);
}

INLINE bool node_child(const struct page *page, uint32_t index, uint64_t *number)
{
    struct node node;
    if (__builtin_expect(!node_open(page, index, &node), 0)) {
        return false;
    }
    const uint8_t *at = page->at + node.at;
    *number = read32(at + NODE_LOW) | (uint64_t)read16(at + NODE_FLAGS) << 32;
    return true;
}

/* The data of a node of that kind, which lie in the mapping. A plain one's may stand on pages of
 * their own. */
INLINE bool node_data(const struct descent *tree, const struct page *page, const struct node *node,
                      uint32_t kind, larder_bytes *data)
{
    const uint8_t *at = page->at + node->at;
    uint32_t flags = read16(at + NODE_FLAGS), begin = node->at + NODE_HEADER + node->key_size;
    size_t size = read32(at + NODE_LOW);
    data->size = size;
    data->data = page->at + begin;
    if (__builtin_expect(flags == kind, 1)) {
        return __builtin_expect(size <= page->size - begin, 1);
    }
    if (flags != NODE_BIG || kind != NODE_PLAIN || page->size - begin < sizeof(uint64_t)) {
        return false;
    }
    uint64_t number = read64(page->at + begin);
    if (number >= tree->pages) {
        return false;
    }
    const uint8_t *run = page_at(tree, number);
    uint64_t pages = read32(run + PAGE_RUN);
    data->data = run + PAGE_HEADER;
    return read64(run + PAGE_NUMBER) == number &&
           (read16(run + PAGE_FLAGS) & PAGE_KINDS) == PAGE_OVERFLOW &&
           pages <= tree->pages - number && size + PAGE_HEADER <= pages * tree->page_size;
}

#endif
