/* rows.h: rows of the log, sixteen to a block, so that a row costs little more than the key it
 * names. Pure functions over a block's bytes; store_log.c keeps the blocks in the tree. MAP_FORMAT
 *
 *   which rows are there (16 bits) | for each in ascending order: size of the form (a byte), form
 *
 * A form of more than 255 bytes has size 0 and reaches to the block's end: it is the last. A block
 * without rows does not exist. Contents are input: every length is checked.
 */
#ifndef LARDER_LIB_ROWS_H
#define LARDER_LIB_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format.h"
#include "key.h"
#include "larder.h"

enum {
    ROWS_BITS = 4,
    ROWS_IN_BLOCK = 1 << ROWS_BITS, /* small enough that blocks fill a page to the brim */
    ROWS_HEAD = sizeof(uint16_t),
    ROWS_FORM_SHORT = 255,
    ROWS_BYTES_MOST = RECORD_NODE_MAX - 16, /* of a block: it stands on a leaf with others */
    ROWS_BUFFER = ROWS_HEAD + ROWS_IN_BLOCK * (1 + KEY_FORM_MAX) /* for any that there can be */
};

#define ROWS_BLOCK(row) ((row) >> ROWS_BITS)
#define ROWS_INDEX(row) ((unsigned)(row) & (ROWS_IN_BLOCK - 1))

/* The first row at or after from, and the last one before a row: their index in the block.
 * LARDER_OK, LARDER_MISS: there is none, ECORRUPT (without a message). */
int rows_next(const larder_bytes *block, unsigned from, unsigned *index, larder_bytes *form);
int rows_previous(const larder_bytes *block, unsigned before, unsigned *index, larder_bytes *form);

/* The block with a row more, or less, into out (ROWS_BUFFER bytes); *size 0: nothing is left.
 * LARDER_OK; LARDER_EXISTS; LARDER_MISS; ECORRUPT, also for a row behind one that is long. */
int rows_insert(const larder_bytes *block, unsigned index, const larder_bytes *form, uint8_t *out,
                size_t *size);
int rows_remove(const larder_bytes *block, unsigned index, uint8_t *out, size_t *size);

/* The number of the next row where the newest block has *used bytes, and those it has with it: the
 * next one, or the first of a new block if this form does not fit the old one. */
uint64_t rows_number(uint64_t next, size_t form_size, uint64_t *used);

#endif
