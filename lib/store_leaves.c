/* store_leaves.c: see store_leaves.h. */
#include "store_leaves.h"

#include <string.h>

#include "key.h"

enum {
    LEAF_QUARTER = LEAVES_BYTES / 4,    /* LMDB's FILL_THRESHOLD; below it */
    LEAF_JOINED = LEAVES_BYTES / 4 * 3, /* so full it may become: there is to be room for more */
    LEAF_NODES = LEAF_QUARTER / 12,
    NODE_FLAGS = 4, /* in a node's header */
    NODE_KEY_SIZE = 6,
    NODE_HEADER = 8
};

struct leaf_node {
    MDB_val key, data;
    bool emptied;
};

/* A leaf, copied and taken apart. */
struct leaf {
    uint8_t bytes[LEAVES_PAGE];
    struct leaf_node nodes[LEAF_NODES];
    size_t count, used;
};

static uint16_t half_at(const uint8_t *at)
{
    uint16_t half;
    memcpy(&half, at, sizeof half);
    return half;
}

const uint8_t *leaves_page_of(const struct transaction *t, const MDB_val *data)
{
    const struct store *store = t->store;
    size_t offset = (size_t)((const uint8_t *)data->mv_data - store->base);
    if ((store->control->flags & LARDER_PROTECT) != 0 || !store->descends ||
        store->page_size != LEAVES_PAGE || offset >= store->max_pages * LEAVES_PAGE) {
        return NULL;
    }
    return store->base + offset / LEAVES_PAGE * LEAVES_PAGE;
}

size_t leaves_used(const uint8_t *page)
{
    size_t lower = half_at(page + LMDB_PAGE_LOWER), upper = half_at(page + LMDB_PAGE_UPPER);
    return upper >= lower && upper <= LEAVES_PAGE ? LEAVES_BYTES - (upper - lower) : LEAVES_BYTES;
}

/* False: there is something on it that is no small entry, or more than can be joined. */
static bool take_leaf(const uint8_t *page, struct leaf *leaf)
{
    size_t keys = 0;
    memcpy(leaf->bytes, page, sizeof leaf->bytes);
    page = leaf->bytes;
    leaf->used = leaves_used(page);
    leaf->count = ((size_t)half_at(page + LMDB_PAGE_LOWER) - LMDB_PAGE_HEADER) / sizeof(uint16_t);
    if (leaf->count == 0 || leaf->count > LEAF_NODES) {
        return false;
    }
    for (size_t i = 0; i < leaf->count; i++) {
        size_t at = half_at(page + LMDB_PAGE_HEADER + i * sizeof(uint16_t));
        if (at < LMDB_PAGE_HEADER || at > LEAVES_PAGE - NODE_HEADER) {
            return false;
        }
        const uint8_t *node = page + at;
        size_t key_size = half_at(node + NODE_KEY_SIZE);
        size_t size = half_at(node) | (size_t)half_at(node + 2) << 16;
        if (half_at(node + NODE_FLAGS) != 0 || key_size == 0 || key_size > KEY_FORM_MAX ||
            size > LEAVES_PAGE || at + NODE_HEADER + key_size + size > LEAVES_PAGE ||
            node[NODE_HEADER] != KEY_TAG) {
            return false;
        }
        leaf->nodes[i] =
            (struct leaf_node){.key = lmdb_value(node + NODE_HEADER, key_size),
                               .data = lmdb_value(node + NODE_HEADER + key_size, size)};
        keys += sizeof(uint16_t) + NODE_HEADER + key_size + 1;
    }
    return keys < LEAF_QUARTER;
}

/* Take away as many values as it takes. */
static int empty_leaf(struct transaction *t, struct leaf *leaf)
{
    MDB_val none = {0};
    size_t left = leaf->used;
    int code = MDB_SUCCESS;
    for (size_t i = 0; i < leaf->count && code == MDB_SUCCESS; i++) {
        struct leaf_node *node = &leaf->nodes[i];
        if (left < LEAF_QUARTER) {
            break;
        }
        if (node->data.mv_size <= 1) {
            continue;
        }
        MDB_val key = node->key, data;
        code = mdb_cursor_get(t->cursor, &key, &data, MDB_SET_KEY);
        if (code == MDB_SUCCESS) {
            key = node->key;
            code = mdb_cursor_put(t->cursor, &key, &none, MDB_CURRENT);
            node->emptied = true;
            left -= node->data.mv_size & ~(size_t)1;
        }
    }
    return code;
}

static int fill_leaf(struct transaction *t, const struct leaf *leaf)
{
    int code = MDB_SUCCESS;
    for (size_t i = 0; i < leaf->count && code == MDB_SUCCESS; i++) {
        const struct leaf_node *node = &leaf->nodes[i];
        if (node->emptied) {
            MDB_val key = node->key, data = node->data;
            code = mdb_cursor_put(t->cursor, &key, &data, 0);
        }
    }
    return code;
}

/* What LMDB joins is the leaf of an entry that is deleted, with the one before it. */
static int join(struct transaction *t, struct leaf *before, struct leaf *leaf)
{
    struct leaf_node *last = &leaf->nodes[leaf->count - 1];
    MDB_val key = last->key, data = {0};
    int code = empty_leaf(t, before);
    if (code == MDB_SUCCESS) {
        code = empty_leaf(t, leaf);
    }
    if (code == MDB_SUCCESS) {
        code = mdb_cursor_get(t->cursor, &key, &data, MDB_SET_KEY);
    }
    if (code == MDB_SUCCESS) {
        last->emptied = true; /* to be put back */
        code = mdb_cursor_del(t->cursor, 0);
    }
    if (code == MDB_SUCCESS) {
        code = fill_leaf(t, before);
    }
    if (code == MDB_SUCCESS) {
        code = fill_leaf(t, leaf);
    }
    return code == MDB_NOTFOUND ? MDB_CORRUPTED : code; /* they were there a moment ago */
}

/* The leaf beside the one with that key at its edge; NULL: there is none, or code says why. */
static const uint8_t *neighbour(struct transaction *t, const MDB_val *edge, MDB_cursor_op way,
                                int *code)
{
    MDB_val key = *edge, data = {0};
    *code = mdb_cursor_get(t->cursor, &key, &data, MDB_SET_KEY);
    if (*code == MDB_SUCCESS) {
        *code = mdb_cursor_get(t->cursor, &key, &data, way);
    }
    if (*code == MDB_NOTFOUND) {
        *code = MDB_SUCCESS;
        return NULL;
    }
    return *code == MDB_SUCCESS ? leaves_page_of(t, &data) : NULL;
}

int leaves_join_around(struct transaction *t, const MDB_val *form)
{
    struct leaf other, leaf;
    MDB_val key = *form, data = {0};
    int code = mdb_cursor_get(t->cursor, &key, &data, MDB_SET_RANGE);
    const uint8_t *page = code == MDB_SUCCESS ? leaves_page_of(t, &data) : NULL;
    if (page == NULL || leaves_used(page) >= LEAF_JOINED || !take_leaf(page, &leaf)) {
        return code == MDB_NOTFOUND ? MDB_SUCCESS : code;
    }
    page = neighbour(t, &leaf.nodes[0].key, MDB_PREV, &code);
    if (page != NULL && leaves_used(page) + leaf.used <= LEAF_JOINED && take_leaf(page, &other)) {
        return join(t, &other, &leaf);
    }
    page =
        code == MDB_SUCCESS ? neighbour(t, &leaf.nodes[leaf.count - 1].key, MDB_NEXT, &code) : NULL;
    if (page != NULL && leaves_used(page) + leaf.used <= LEAF_JOINED && take_leaf(page, &other)) {
        return join(t, &leaf, &other);
    }
    return code;
}
