/* chunks.h: values too large to stand beside their key, cut into pieces of one page each, so that
 * no run of pages is ever needed and space does not fragment.
 */
#ifndef LARDER_LIB_CHUNKS_H
#define LARDER_LIB_CHUNKS_H

#include <stddef.h>
#include <stdint.h>

#include "format.h"
#include "store.h"

/* Write a value as chunks first .. first + record_chunks(size) - 1. */
int chunks_write(struct transaction *t, uint64_t first, const void *value, size_t size);
int chunks_delete(struct transaction *t, uint64_t first, size_t count);

/* The bytes of chunk number index of a record: ECORRUPT where it is missing or of a wrong size. */
int chunks_part(struct transaction *t, const struct record *record, size_t index,
                larder_bytes *part);

/* Copy the whole value. */
int chunks_copy(struct transaction *t, const struct record *record, void *buffer);

/* Compare with the checksum in the record: LARDER_OK or ECORRUPT. */
int chunks_verify(struct transaction *t, const struct record *record);

#endif
