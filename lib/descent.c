/* descent.c: see descent.h: down a tree, to its numbers, along its leaves; snapshots. Called by
 * store*.c for readers. What a page is stands in descent_page.h, how a key is found on one in
 * descent_search.h.
 */
#include "descent.h"

#include <stdatomic.h>

#include "descent_search.h"

enum {
    /* Measured with bench_hit at a million entries. */
    BRANCH_FAN = 8,   /* keys compared in a round */
    BRANCH_ALL = 12,  /* so many are compared in one round */
    LEAF_FAN = 16,    /* a leaf is not in any cache: few rounds, since each waits for memory */
    LEAF_ALL = 32,    /* what lies on a page of 4 KiB with values of 100 bytes */
    POINTER_LINES = 4 /* lines at the head of a branch page that its pointers usually take */
};

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

bool descent_stands_at(const uint8_t *base, uint64_t mapped, uint64_t offset, size_t data_size,
                       const void *key, size_t size)
{
    if (offset < NODE_HEADER + size || offset > mapped || data_size > mapped - offset) {
        return false;
    }
    const uint8_t *node = base + offset - size - NODE_HEADER;
    return read32(node + NODE_LOW) == data_size && read16(node + NODE_FLAGS) == NODE_PLAIN &&
           read16(node + NODE_KEY_SIZE) == size && memcmp(base + offset - size, key, size) == 0;
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
