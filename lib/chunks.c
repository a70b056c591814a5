/* chunks.c: large values in pieces.
 */
#include "chunks.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <string.h>

#include "error.h"

int chunks_write(struct transaction *t, uint64_t first, const void *value, size_t size)
{
    const uint8_t *bytes = value;
    for (uint64_t id = first; size > 0; id++) {
        size_t part = size < CHUNK_SIZE ? size : CHUNK_SIZE;
        int result = store_chunk_put(t, id, bytes, part);
        if (result != LARDER_OK) {
            return result;
        }
        bytes += part;
        size -= part;
    }
    return LARDER_OK;
}

int chunks_delete(struct transaction *t, uint64_t first, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int result = store_chunk_delete(t, first + i);
        if (result < 0) {
            return result;
        }
    }
    return LARDER_OK;
}

int chunks_part(struct transaction *t, const struct record *record, size_t index,
                larder_bytes *part)
{
    size_t left = record->value_size - index * (size_t)CHUNK_SIZE;
    size_t expected = left < CHUNK_SIZE ? left : CHUNK_SIZE;
    int result = store_chunk_get(t, record->first_chunk + index, part);
    if (result == LARDER_MISS || (result == LARDER_OK && part->size != expected)) {
        return error_set(LARDER_ECORRUPT, "chunk %zu of a value of %zu bytes is missing or damaged",
                         index, record->value_size);
    }
    return result;
}

int chunks_copy(struct transaction *t, const struct record *record, void *buffer)
{
    uint8_t *at = buffer;
    for (size_t i = 0; i < record->chunk_count; i++) {
        larder_bytes part;
        int result = chunks_part(t, record, i, &part);
        if (result != LARDER_OK) {
            return result;
        }
        memcpy(at, part.data, part.size);
        at += part.size;
    }
    return LARDER_OK;
}

int chunks_verify(struct transaction *t, const struct record *record)
{
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    (void)XXH3_64bits_reset(&state);
    for (size_t i = 0; i < record->chunk_count; i++) {
        larder_bytes part;
        int result = chunks_part(t, record, i, &part);
        if (result != LARDER_OK) {
            return result;
        }
        (void)XXH3_64bits_update(&state, part.data, part.size);
    }
    if (XXH3_64bits_digest(&state) != record->value_checksum) {
        return error_set(LARDER_ECORRUPT, "the checksum of a value of %zu bytes is wrong",
                         record->value_size);
    }
    return LARDER_OK;
}
