/* rows.c: see rows.h.
 */
#include "rows.h"

#include <string.h>

/* A walk over the rows of a block. */
struct walk {
    const uint8_t *at, *end;
    uint16_t left; /* rows that are still to come */
    const uint8_t *began;
    unsigned index;
    larder_bytes form;
};

static bool begin(const larder_bytes *block, struct walk *walk)
{
    *walk = (struct walk){.at = block->data};
    if (block->size < ROWS_HEAD) {
        return false;
    }
    memcpy(&walk->left, block->data, sizeof walk->left);
    walk->end = walk->at + block->size;
    walk->at += ROWS_HEAD;
    return true;
}

/* LARDER_OK, LARDER_MISS at the end, ECORRUPT. */
static int step(struct walk *walk)
{
    if (walk->left == 0) {
        return walk->at == walk->end ? LARDER_MISS : LARDER_ECORRUPT;
    }
    walk->began = walk->at;
    walk->index = (unsigned)__builtin_ctz(walk->left);
    walk->left &= (uint16_t)(walk->left - 1);
    if (walk->at == walk->end) {
        return LARDER_ECORRUPT;
    }
    size_t size = *walk->at++, room = (size_t)(walk->end - walk->at);
    bool is_long = size == 0;
    size = is_long ? room : size;
    if (size > room || (is_long && (walk->left != 0 || size <= ROWS_FORM_SHORT)) ||
        size > KEY_FORM_MAX) {
        return LARDER_ECORRUPT;
    }
    walk->form = (larder_bytes){.data = walk->at, .size = size};
    walk->at += size;
    return LARDER_OK;
}

int rows_next(const larder_bytes *block, unsigned from, unsigned *index, larder_bytes *form)
{
    struct walk walk;
    int result = begin(block, &walk) ? step(&walk) : LARDER_ECORRUPT;
    while (result == LARDER_OK && walk.index < from) {
        result = step(&walk);
    }
    if (result == LARDER_OK) {
        *index = walk.index;
        *form = walk.form;
    }
    return result;
}

int rows_previous(const larder_bytes *block, unsigned before, unsigned *index, larder_bytes *form)
{
    struct walk walk;
    int found = LARDER_MISS;
    int result = begin(block, &walk) ? step(&walk) : LARDER_ECORRUPT;
    while (result == LARDER_OK && walk.index < before) {
        *index = walk.index;
        *form = walk.form;
        found = LARDER_OK;
        result = step(&walk);
    }
    return result < 0 ? result : found;
}

static uint8_t *put(uint8_t *at, const void *bytes, size_t size)
{
    if (size > 0) {
        memcpy(at, bytes, size);
    }
    return at + size;
}

/* Where the first row at or after index begins, and which rows there are. */
static int find(const larder_bytes *block, unsigned index, struct walk *walk, uint16_t *rows)
{
    *rows = 0;
    if (block->size == 0) { /* a new one */
        *walk = (struct walk){.at = block->data, .began = block->data, .end = block->data};
        return LARDER_MISS;
    }
    if (!begin(block, walk) || block->size > ROWS_BUFFER) {
        return LARDER_ECORRUPT;
    }
    *rows = walk->left;
    walk->began = walk->at;
    int result = step(walk);
    while (result == LARDER_OK && walk->index < index) {
        result = step(walk);
    }
    if (result == LARDER_MISS) {
        walk->began = walk->at;
    }
    return result < 0 ? result : (*rows >> index & 1) != 0 ? LARDER_OK : LARDER_MISS;
}

int rows_insert(const larder_bytes *block, unsigned index, const larder_bytes *form, uint8_t *out,
                size_t *size)
{
    struct walk walk;
    uint16_t rows;
    int found = find(block, index, &walk, &rows);
    if (found != LARDER_MISS) {
        return found == LARDER_OK ? LARDER_EXISTS : found;
    }
    bool is_long = form->size > ROWS_FORM_SHORT, is_last = rows >> index == 0;
    const uint8_t *start = block->data;
    if (form->size == 0 || form->size > KEY_FORM_MAX || (is_long && !is_last)) {
        return LARDER_ECORRUPT;
    }
    uint16_t before = (uint16_t)(rows & ((1u << index) - 1));
    if (is_last && before != 0) { /* nothing comes behind a long one */
        unsigned last;
        larder_bytes newest = {0};
        (void)rows_previous(block, index, &last, &newest);
        if (newest.size > ROWS_FORM_SHORT) {
            return LARDER_ECORRUPT;
        }
    }
    uint8_t head = is_long ? 0 : (uint8_t)form->size;
    rows |= (uint16_t)(1u << index);
    uint8_t *at = put(out, &rows, ROWS_HEAD);
    if (before != 0) {
        at = put(at, start + ROWS_HEAD, (size_t)(walk.began - start) - ROWS_HEAD);
    }
    at = put(at, &head, 1);
    at = put(at, form->data, form->size);
    at = put(at, walk.began, (size_t)(walk.end - walk.began));
    *size = (size_t)(at - out);
    return LARDER_OK;
}

int rows_remove(const larder_bytes *block, unsigned index, uint8_t *out, size_t *size)
{
    struct walk walk;
    uint16_t rows;
    int found = find(block, index, &walk, &rows);
    if (found != LARDER_OK) {
        return found;
    }
    const uint8_t *start = block->data;
    rows &= (uint16_t) ~(1u << index);
    *size = 0;
    if (rows != 0) {
        uint8_t *at = put(out, &rows, ROWS_HEAD);
        at = put(at, start + ROWS_HEAD, (size_t)(walk.began - start) - ROWS_HEAD);
        at = put(at, walk.at, (size_t)(walk.end - walk.at));
        *size = (size_t)(at - out);
    }
    return LARDER_OK;
}

uint64_t rows_number(uint64_t next, size_t form_size, uint64_t *used)
{
    bool is_long = form_size > ROWS_FORM_SHORT;
    if (ROWS_INDEX(next) != 0 && *used + 1 + form_size > ROWS_BYTES_MOST) {
        next = (next | (ROWS_IN_BLOCK - 1)) + 1;
    }
    *used = (ROWS_INDEX(next) != 0 ? *used : ROWS_HEAD) + 1 + form_size;
    *used = is_long ? ROWS_BYTES_MOST : *used; /* nothing comes behind it */
    return next;
}
