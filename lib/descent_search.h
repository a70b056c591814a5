/* descent_search.h: finding a key on one of LMDB's pages. For descent.c alone.
 *
 * A page is not searched by halves: each comparison would wait for memory whose address only the
 * one before it knows. A round compares several keys at once and counts the smaller ones; its loads
 * do not depend on one another and overlap. Only eight bytes of each key are looked at, from where
 * the separators above stop agreeing with the wanted key. That is a guess (a shorter key is read
 * beyond its end), so what comes out is proven by exact comparisons, and searched for exactly where
 * the proof fails.
 */
#ifndef LARDER_LIB_DESCENT_SEARCH_H
#define LARDER_LIB_DESCENT_SEARCH_H

#include "descent_page.h"

enum { WORD = 8 };

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

#endif
