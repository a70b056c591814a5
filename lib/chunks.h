/* chunks.h: values too large to stand beside their key, cut into pieces of one page each, so that
 * no run of pages is ever needed and space does not fragment. The record says which page each piece
 * stands on, so that a reader need not ask the tree of chunks (doc/decisions, 019).
 */
#ifndef LARDER_LIB_CHUNKS_H
#define LARDER_LIB_CHUNKS_H

#include <stddef.h>
#include <stdint.h>

#include "format.h"
#include "store.h"

/* Write size bytes as chunks first .. first + record_chunks(size) - 1. pages: which page each of
 * them stands on, or NULL. */
int chunks_write(struct transaction *t, uint64_t first, const void *value, size_t size,
                 uint32_t *pages);
int chunks_delete(struct transaction *t, uint64_t first, size_t count);

/* Part number index, below record_parts(), of a value in chunks: ECORRUPT where it is missing. */
int chunks_part(struct transaction *t, const struct record *record, size_t index,
                larder_bytes *part);

/* Ask for the first pages of a value that is to be read soon. */
void chunks_ask(const struct transaction *t, const struct record *record);

/* Copy the whole value. */
int chunks_copy(struct transaction *t, const struct record *record, void *buffer);

/* Compare with the checksum in the record: LARDER_OK or ECORRUPT. */
int chunks_verify(struct transaction *t, const struct record *record);

/* Whether the tree has each chunk, on the page that the record names: LARDER_OK or ECORRUPT. */
int chunks_verify_pages(struct transaction *t, const struct record *record);

#endif
