/* descent.c: see descent.h. Called by store*.c for readers. It must never read outside the mapping,
 * whatever the pages say, and never read a length twice: another process may be scribbling on it.
 *
 * A page is not searched by halves: each comparison would wait for memory whose address only the
 * one before it knows. A round compares several keys at once and counts the smaller ones; its loads
 * do not depend on one another and overlap. Only eight bytes of each key are looked at, from where
 * the separators above stop agreeing with the wanted key. That is a guess (a shorter key is read
 * beyond its end), so what comes out is proven by exact comparisons, and searched for exactly where
 * the proof fails.
 */
#include "descent.h"

#include <endian.h>
#include <stdatomic.h>
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
    KEY_MAX = 511,         /* LMDB's */

    WORD = 8,
    /* Measured with bench_hit at a million entries. */
    BRANCH_FAN = 8,   /* keys compared in a round */
    BRANCH_ALL = 12,  /* so many are compared in one round */
    LEAF_FAN = 16,    /* a leaf is not in any cache: few rounds, since each waits for memory */
    LEAF_ALL = 32,    /* what lies on a page of 4 KiB with values of 100 bytes */
    POINTER_LINES = 4 /* lines at the head of a branch page that its pointers usually take */
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

/* ---- Keys ------------------------------------------------------------------------------------ */

/* What is looked for. In a tree of numbers `key` is that number, in the machine's order. */
struct wanted {
    const uint8_t *key;
    uint32_t size;
    bool number;
};

/* Up to eight bytes of a key from an offset on, zeros beyond its end. */
INLINE uint64_t key_word(const uint8_t *key, uint32_t size, uint32_t from)
{
    if (from + WORD <= size) {
        return read_word(key + from);
    }
    if (__builtin_expect(size >= WORD, 1)) {
        uint32_t missing = from + WORD - size;
        return missing == WORD ? 0 : read_word(key + size - WORD) << 8 * missing;
    }
    uint64_t word = 0;
    for (uint32_t i = from; i < size; i++) {
        word |= (uint64_t)key[i] << (56 - 8 * (i - from));
    }
    return word;
}

/* How many bytes two keys have in common at their beginning, if they agree before `from`; and the
 * order of a against b. */
INLINE uint32_t keys_common(const uint8_t *a, uint32_t a_size, const uint8_t *b, uint32_t b_size,
                            uint32_t from, int *order)
{
    uint32_t least = a_size < b_size ? a_size : b_size;
    for (uint32_t at = from; at < least; at += WORD) {
        if (at + WORD > least && least >= WORD) {
            at = least - WORD; /* the last word, part of it once more */
        }
        uint64_t ours = key_word(a, least, at), theirs = key_word(b, least, at);
        if (ours != theirs) {
            *order = ours < theirs ? -1 : 1;
            return at + (uint32_t)__builtin_clzll(ours ^ theirs) / 8;
        }
    }
    *order = a_size < b_size ? -1 : a_size > b_size;
    return least;
}

/* A node's key against the wanted one; both agree before `from`. False: the node is damaged. */
INLINE bool node_compare(const struct page *page, uint32_t index, const struct wanted *wanted,
                         uint32_t from, uint32_t *common, int *order)
{
    struct node node;
    if (__builtin_expect(!node_open(page, index, &node), 0)) {
        return false;
    }
    const uint8_t *key = page->at + node.at + NODE_HEADER;
    if (wanted->number) {
        uint64_t theirs = read64(key), ours = read64(wanted->key);
        *common = 0;
        *order = theirs < ours ? -1 : theirs > ours;
        return node.key_size == sizeof theirs;
    }
    *common = keys_common(key, node.key_size, wanted->key, wanted->size,
                          from <= node.key_size ? from : 0, order);
    return true;
}

/* ---- Searching a page ------------------------------------------------------------------------ */

/* The part of a page where the answer lies: [low, high] as a rank, that is the number of nodes
 * before it. */
struct range {
    uint32_t low, high;
};

/* What the nodes of one page are compared by. */
struct probe {
    uint64_t word, mask;
    uint32_t from; /* from the beginning of a node */
};

/* The eight bytes from skip on; those before are the same in all keys of the page. */
INLINE struct probe probe_make(const struct wanted *wanted, uint32_t skip)
{
    if (wanted->number) {
        return (struct probe){.word = read64(wanted->key), .mask = UINT64_MAX, .from = NODE_HEADER};
    }
    struct probe probe = {.word = key_word(wanted->key, wanted->size, skip),
                          .mask = UINT64_MAX,
                          .from = NODE_HEADER + skip};
    uint32_t end = skip + WORD;
    if (end > wanted->size) {
        probe.mask = skip == wanted->size ? 0 : UINT64_MAX << 8 * (end - wanted->size);
    }
    return probe;
}

/* A node's word; anything at all of a damaged node or a short key, but from inside the page. */
INLINE uint64_t probe_node(const struct page *page, uint32_t index, const struct wanted *wanted,
                           const struct probe *probe)
{
    uint32_t at = node_offset(page, index) + probe->from, last = page->size - WORD;
    uint32_t over = at > last ? at - last : 0;
    const uint8_t *word = page->at + (at - over);
    return wanted->number ? read64(word) : (read_word(word) << (8 * over & 63)) & probe->mask;
}

/* Where the first node stands that is not below the wanted key; nodes that look the same lie in
 * the range. */
INLINE struct range page_guess(const struct page *page, uint32_t low, const struct wanted *wanted,
                               uint32_t skip, uint32_t fan, uint32_t all)
{
    struct probe probe = probe_make(wanted, skip);
    uint32_t high = page->count, step, same;
    do {
        uint32_t below = 0;
        step = high - low > all ? (high - low) / fan + 1 : 1;
        same = 0;
        for (uint32_t at = low + step - 1; at < high; at += step) {
            uint64_t theirs = probe_node(page, at, wanted, &probe);
            below += theirs < probe.word;
            same += theirs == probe.word;
        }
        uint32_t end = low + (below + same + 1) * step - 1;
        low += below * step;
        high = end < high ? end : high;
    } while (step > 1 && same == 0);
    return (struct range){.low = low, .high = high};
}

/* By halves and in full: how many nodes are below the wanted key, or (with_equal) not above it. */
static __attribute__((noinline)) bool page_search(const struct page *page, struct range range,
                                                  const struct wanted *wanted, uint32_t skip,
                                                  bool with_equal, uint32_t *rank)
{
    while (range.low < range.high) {
        uint32_t middle = range.low + (range.high - range.low) / 2, common;
        int order;
        if (!node_compare(page, middle, wanted, skip, &common, &order)) {
            return false;
        }
        if (order < 0 || (with_equal && order == 0)) {
            range.low = middle + 1;
        } else {
            range.high = middle;
        }
    }
    *rank = range.low;
    return true;
}

/* Bytes that the wanted key shares with all keys of a page, from the first and the last of them. */
INLINE uint32_t page_common(const struct page *page, uint32_t low, const struct wanted *wanted)
{
    uint32_t first, last;
    int order;
    if (wanted->number || page->count <= low ||
        !node_compare(page, low, wanted, 0, &first, &order) ||
        !node_compare(page, page->count - 1, wanted, 0, &last, &order)) {
        return 0;
    }
    return first < last ? first : last;
}

/* ---- Down the tree --------------------------------------------------------------------------- */

/* Bytes that the nearest smaller and the nearest larger separator share with the wanted key: so
 * does every key between them. */
struct fences {
    uint32_t low, high;
};

/* Whether rank is right for a branch page; then the fences of the child before it. */
INLINE bool fences_prove(struct fences *fences, const struct page *page, uint32_t rank,
                         const struct wanted *wanted, uint32_t skip)
{
    int order;
    if (rank > 1 &&
        (!node_compare(page, rank - 1, wanted, skip, &fences->low, &order) || order > 0)) {
        return false;
    }
    return rank >= page->count ||
           (node_compare(page, rank, wanted, skip, &fences->high, &order) && order > 0);
}

INLINE void prefetch_page(const struct descent *tree, uint64_t number, bool leaf)
{
    if (__builtin_expect(number < tree->pages, 1)) {
        const uint8_t *at = page_at(tree, number);
        __builtin_prefetch(at);
        for (uint32_t line = 1; !leaf && line < POINTER_LINES; line++) {
            __builtin_prefetch(at + (size_t)line * DESCENT_LINE);
        }
    }
}

/* Ask for all keys of a leaf. Into the second cache: it can wait for more lines at a time than the
 * first, which alone is a tenth of a descent that finds nothing in the caches. */
INLINE void prefetch_nodes(const struct page *page, const struct wanted *wanted, uint32_t skip)
{
    uint32_t mask = page->size - 1, from = NODE_HEADER + (wanted->number ? 0 : skip);
    if (page->count > LEAF_ALL) {
        return;
    }
    for (uint32_t i = 0; i < page->count; i++) {
        uint32_t at = node_offset(page, i);
        __builtin_prefetch(page->at + ((at + from) & mask), 0, 2);
        __builtin_prefetch(page->at + ((at + NODE_HEADER - 1) & mask), 0, 2);
    }
}

/* Where the way down went, level by level. */
struct step {
    struct page page;
    uint32_t index;
};

/* One branch page: the child where the wanted key belongs. */
INLINE bool page_choose(const struct descent *tree, const struct page *page,
                        const struct wanted *wanted, struct fences *fences, bool above_leaf,
                        uint32_t *index, uint64_t *child)
{
    uint32_t skip = fences->low < fences->high ? fences->low : fences->high, rank;
    if (__builtin_expect(page->count < BRANCH_LEAST, 0)) {
        return false;
    }
    if (skip == 0) {
        skip = page_common(page, 1, wanted);
    }
    /* The first key of a branch page stands for the least there can be, and is not looked at. */
    struct range range = page_guess(page, 1, wanted, skip, BRANCH_FAN, BRANCH_ALL);
    rank = range.low;
    if (range.low < range.high && !page_search(page, range, wanted, skip, true, &rank)) {
        return false;
    }
    if (!node_child(page, rank - 1, child)) {
        return false;
    }
    prefetch_page(tree, *child, above_leaf);
    if (__builtin_expect(!fences_prove(fences, page, rank, wanted, skip), 0)) {
        range = (struct range){.low = 1, .high = page->count};
        *fences = (struct fences){0, 0};
        if (!page_search(page, range, wanted, 0, true, &rank) ||
            !node_child(page, rank - 1, child)) {
            return false;
        }
    }
    *index = rank - 1;
    return true;
}

/* The leaf where the wanted key belongs, and what all its keys begin with. Not for an empty tree.
 * With steps the way is noted there, the leaf not included. */
INLINE bool to_leaf(const struct descent *tree, const struct wanted *wanted, struct page *page,
                    uint32_t *skip, struct step *steps)
{
    struct fences fences = {0, 0};
    uint64_t number = tree->root;
    for (uint32_t level = tree->depth; level > 1; level--) {
        uint32_t index;
        if (!page_open(tree, number, PAGE_BRANCH, page) ||
            !page_choose(tree, page, wanted, &fences, level == 2, &index, &number)) {
            return false;
        }
        if (steps != NULL) {
            steps[level] = (struct step){.page = *page, .index = index};
        }
    }
    *skip = fences.low < fences.high ? fences.low : fences.high;
    return page_open(tree, number, PAGE_LEAF, page);
}

/* The node with exactly the wanted key, every byte of it compared. */
INLINE int leaf_find(const struct page *page, const struct wanted *wanted, uint32_t skip,
                     uint32_t *index)
{
    prefetch_nodes(page, wanted, skip);
    struct range range = page_guess(page, 0, wanted, skip, LEAF_FAN, LEAF_ALL);
    uint32_t rank = range.low, common;
    int order = 1;
    if (range.high - range.low > 1 && !page_search(page, range, wanted, skip, false, &rank)) {
        return LARDER_ECORRUPT;
    }
    if (rank < page->count && !node_compare(page, rank, wanted, 0, &common, &order)) {
        return LARDER_ECORRUPT;
    }
    if (__builtin_expect(order != 0, 0)) { /* a miss, or led astray by a shorter key */
        range = (struct range){.low = 0, .high = page->count};
        if (!page_search(page, range, wanted, 0, false, &rank) ||
            (rank < page->count && !node_compare(page, rank, wanted, 0, &common, &order))) {
            return LARDER_ECORRUPT;
        }
    }
    *index = rank;
    return rank < page->count && order == 0 ? LARDER_OK : LARDER_MISS;
}

INLINE int find(const struct descent *tree, const struct wanted *wanted, uint32_t kind,
                struct page *page, uint32_t *index, larder_bytes *data)
{
    uint32_t skip;
    struct node node;
    if (__builtin_expect(tree->depth == 0, 0)) {
        return LARDER_MISS;
    }
    if (__builtin_expect(!to_leaf(tree, wanted, page, &skip, NULL), 0)) {
        return LARDER_ECORRUPT;
    }
    int result = leaf_find(page, wanted, skip, index);
    if (__builtin_expect(result != LARDER_OK, 0)) {
        return result;
    }
    return node_open(page, *index, &node) && node_data(tree, page, &node, kind, data)
               ? LARDER_OK
               : LARDER_ECORRUPT;
}

int descent_find(const struct descent *tree, const void *key, size_t size, larder_bytes *data)
{
    struct page page;
    uint32_t index;
    if (__builtin_expect(size == 0 || size > KEY_MAX, 0)) {
        return LARDER_MISS;
    }
    const struct wanted wanted = {.key = key, .size = (uint32_t)size, .number = false};
    return find(tree, &wanted, NODE_PLAIN, &page, &index, data);
}

/* ---- Numbers --------------------------------------------------------------------------------- */

/* The page that the next number's data stand on, while the caller copies this one's. */
INLINE void prefetch_next(const struct descent *tree, const struct page *page, uint32_t index)
{
    struct node node;
    larder_bytes data;
    if (index < page->count && node_open(page, index, &node) &&
        node.at + NODE_HEADER + node.key_size + sizeof(uint64_t) <= page->size &&
        read16(page->at + node.at + NODE_FLAGS) == NODE_BIG) {
        data.data = page->at + node.at + NODE_HEADER + node.key_size;
        prefetch_page(tree, read64(data.data), false);
    }
}

int descent_find_number(const struct descent *tree, uint64_t number, struct descent_place *place,
                        larder_bytes *data)
{
    const struct wanted wanted = {
        .key = (const uint8_t *)&number, .size = sizeof number, .number = true};
    struct page page = {
        .at = place->page, .count = place->count, .upper = place->upper, .size = tree->page_size};
    uint32_t index = place->index + 1, common;
    int order, result;
    struct node node;
    if (page.at != NULL && index < page.count &&
        node_compare(&page, index, &wanted, 0, &common, &order) && order == 0) {
        result = node_open(&page, index, &node) && node_data(tree, &page, &node, NODE_PLAIN, data)
                     ? LARDER_OK
                     : LARDER_ECORRUPT;
    } else {
        result = find(tree, &wanted, NODE_PLAIN, &page, &index, data);
    }
    if (result == LARDER_OK) {
        *place = (struct descent_place){
            .page = page.at, .count = page.count, .upper = page.upper, .index = index};
        prefetch_next(tree, &page, index + 1);
    }
    return result;
}

/* ---- Straight to a page ---------------------------------------------------------------------- */

const void *descent_page(const struct descent *tree, uint64_t page, uint64_t number)
{
    if (__builtin_expect(page >= tree->pages, 0)) {
        return NULL;
    }
    const uint8_t *at = page_at(tree, page), *content = at + PAGE_HEADER;
    bool sane = read64(at + PAGE_NUMBER) == page &&
                (read16(at + PAGE_FLAGS) & PAGE_KINDS) == PAGE_OVERFLOW &&
                read32(at + PAGE_RUN) == 1 && read64(content) == number;
    return __builtin_expect(sane, 1) ? content + sizeof number : NULL;
}

/* ---- In order -------------------------------------------------------------------------------- */

/* The leaf after the one that steps lead to. MISS: there is none. */
static int next_leaf(const struct descent *tree, struct step *steps, struct page *page)
{
    uint32_t level = 2;
    uint64_t number;
    while (level <= tree->depth && steps[level].index + 1 >= steps[level].page.count) {
        level++;
    }
    if (level > tree->depth) {
        return LARDER_MISS;
    }
    if (!node_child(&steps[level].page, steps[level].index + 1, &number)) {
        return LARDER_ECORRUPT;
    }
    for (; level > 2; level--) {
        if (!page_open(tree, number, PAGE_BRANCH, page) || page->count < BRANCH_LEAST ||
            !node_child(page, 0, &number)) {
            return LARDER_ECORRUPT;
        }
    }
    /* Only a root may be empty. */
    return page_open(tree, number, PAGE_LEAF, page) && page->count > 0 ? LARDER_OK
                                                                       : LARDER_ECORRUPT;
}

static int next(const struct descent *tree, const struct wanted *wanted, bool after,
                larder_bytes *found, larder_bytes *data)
{
    struct step steps[DEPTH_MAX + 1];
    struct page page;
    struct node node;
    uint32_t skip, rank, common;
    int order;
    if (tree->depth == 0) {
        return LARDER_MISS;
    }
    if (!to_leaf(tree, wanted, &page, &skip, steps) ||
        !page_search(&page, (struct range){.low = 0, .high = page.count}, wanted, skip, after,
                     &rank)) {
        return LARDER_ECORRUPT;
    }
    if (rank == page.count) {
        int result = next_leaf(tree, steps, &page);
        if (result != LARDER_OK) {
            return result;
        }
        rank = 0;
    }
    if (!node_compare(&page, rank, wanted, 0, &common, &order) || order < 0 ||
        (after && order == 0) || !node_open(&page, rank, &node) ||
        !node_data(tree, &page, &node, NODE_PLAIN, data)) {
        return LARDER_ECORRUPT;
    }
    found->data = page.at + node.at + NODE_HEADER;
    found->size = node.key_size;
    return LARDER_OK;
}

int descent_next(const struct descent *tree, const void *key, size_t size, bool after,
                 larder_bytes *found, larder_bytes *data)
{
    if (size > KEY_MAX) {
        return LARDER_MISS;
    }
    const struct wanted wanted = {.key = key, .size = (uint32_t)size, .number = false};
    return next(tree, &wanted, after, found, data);
}

int descent_next_number(const struct descent *tree, uint64_t from, uint64_t *number,
                        larder_bytes *data)
{
    const struct wanted wanted = {
        .key = (const uint8_t *)&from, .size = sizeof from, .number = true};
    larder_bytes found;
    int result = next(tree, &wanted, false, &found, data);
    if (result == LARDER_OK) {
        *number = read64(found.data); /* its size was compared */
    }
    return result;
}

/* ---- Snapshots and databases ----------------------------------------------------------------- */

/* Root and depth from an MDB_db. False: no tree can look like that. */
INLINE bool tree_make(struct descent *tree, const uint8_t *database)
{
    tree->root = read64(database + DATABASE_ROOT);
    tree->depth = tree->root == EMPTY_ROOT ? 0 : read16(database + DATABASE_DEPTH);
    return tree->depth <= DEPTH_MAX && (tree->depth == 0) == (tree->root == EMPTY_ROOT);
}

bool descent_knows(const uint8_t *base)
{
    return read32(base + META_MAGIC) == MAGIC && read32(base + META_VERSION) == VERSION;
}

void descent_take_back(uint8_t *base, uint32_t page_size, uint64_t number)
{
    _Atomic uint64_t *at = (_Atomic uint64_t *)(base + (number & 1) * page_size + META_NUMBER);
    atomic_store_explicit(at, number - 2, memory_order_release);
}

bool descent_begin(struct descent *tree, const uint8_t *base, uint32_t page_size, uint64_t pages,
                   uint64_t number)
{
    const uint8_t *meta = base + (number & 1) * page_size;
    uint64_t last = read64(meta + META_LAST_PAGE);
    tree->base = base;
    tree->page_size = page_size;
    tree->pages = last < pages ? last + 1 : pages;
    bool sane = tree_make(tree, meta + META_MAIN);
    return sane && last < pages && page_size <= PAGE_SIZE_MAX &&
           read64(meta + META_NUMBER) == number;
}

int descent_open(const struct descent *tree, const void *name, size_t size,
                 struct descent_database *database)
{
    const struct wanted wanted = {.key = name, .size = (uint32_t)size, .number = false};
    struct page page;
    uint32_t index;
    larder_bytes record;
    int result = find(tree, &wanted, NODE_DATABASE, &page, &index, &record);
    if (result != LARDER_OK) {
        return result;
    }
    const uint8_t *at = record.data;
    if (record.size != DATABASE_SIZE) {
        return LARDER_ECORRUPT;
    }
    *database = (struct descent_database){.tree = *tree,
                                          .branch_pages = read64(at + DATABASE_BRANCHES),
                                          .leaf_pages = read64(at + DATABASE_LEAVES),
                                          .overflow_pages = read64(at + DATABASE_OVERFLOWS),
                                          .entries = read64(at + DATABASE_ENTRIES)};
    return tree_make(&database->tree, at) && read16(at + DATABASE_FLAGS) == DATABASE_NUMBERS
               ? LARDER_OK
               : LARDER_ECORRUPT;
}
