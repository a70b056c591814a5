/* format.c: records, encoded and taken apart. Pure functions over bytes. MAP_FORMAT
 */
#include "format.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <string.h>

#include "clock.h"

struct reader {
    const uint8_t *at;
    size_t left;
    bool failed;
};

static const uint8_t *take(struct reader *reader, size_t size)
{
    if (reader->failed || size > reader->left) {
        reader->failed = true;
        return NULL;
    }
    const uint8_t *bytes = reader->at;
    reader->at += size;
    reader->left -= size;
    return bytes;
}

static int64_t take_time(struct reader *reader, bool there, int64_t otherwise)
{
    const uint8_t *bytes = there ? take(reader, sizeof(int64_t)) : NULL;
    int64_t time = otherwise;
    if (bytes != NULL) {
        memcpy(&time, bytes, sizeof time);
    }
    return time;
}

static void take_long_key(struct reader *reader, struct record *record)
{
    uint32_t size = 0;
    const uint8_t *bytes = take(reader, sizeof size);
    if (bytes == NULL) {
        return;
    }
    memcpy(&size, bytes, sizeof size);
    if (size <= KEY_PLAIN_MAX || size > LARDER_KEY_MAX) {
        reader->failed = true;
        return;
    }
    record->long_key = take(reader, size);
    record->long_key_size = size;
}

static void take_value(struct reader *reader, struct record *record)
{
    const struct record_header *header = &record->header;
    if ((header->flags & RECORD_CHUNKED) == 0) {
        record->value = take(reader, header->value_size);
        return;
    }
    const uint8_t *list = take(reader, 2 * sizeof(uint64_t));
    if (list == NULL) {
        return;
    }
    memcpy(&record->first_chunk, list, sizeof record->first_chunk);
    memcpy(&record->value_checksum, list + sizeof(uint64_t), sizeof record->value_checksum);
    record->chunk_count = record_chunks(header->value_size);
    if (record->chunk_count == 0 || record->first_chunk > UINT64_MAX - record->chunk_count) {
        reader->failed = true;
    }
}

bool record_decode(const void *bytes, size_t size, struct record *record)
{
    struct reader reader = {.at = bytes, .left = size};
    const uint8_t *head = take(&reader, sizeof record->header);
    if (head == NULL) {
        return false;
    }
    memcpy(&record->header, head, sizeof record->header);
    const struct record_header *header = &record->header;
    if (header->kind < RECORD_VALUE || header->kind > RECORD_DELETED ||
        (header->flags & ~RECORD_FLAGS) != 0 || (header->extras & ~RECORD_EXTRAS) != 0 ||
        header->mark_count > RECORD_MARKS_MAX) {
        return false;
    }
    record->created_ms = take_time(&reader, (header->extras & RECORD_HAS_CREATED) != 0,
                                   clock_version_ms(header->clock));
    record->stale_until_ms = take_time(&reader, (header->extras & RECORD_HAS_STALE) != 0, 0);
    record->sliding_ms = take_time(&reader, (header->extras & RECORD_HAS_SLIDING) != 0, 0);
    record->marks = take(&reader, (size_t)header->mark_count * RECORD_MARK_SIZE);
    record->long_key = NULL;
    record->long_key_size = 0;
    if ((header->flags & RECORD_LONG_KEY) != 0) {
        take_long_key(&reader, record);
    }
    record->value = NULL;
    record->first_chunk = 0;
    record->value_checksum = 0;
    record->chunk_count = 0;
    take_value(&reader, record);
    return !reader.failed && reader.left == 0;
}

static size_t size_without_value(const struct record *record)
{
    size_t size = sizeof record->header;
    size += (size_t)__builtin_popcount(record->header.extras) * sizeof(int64_t);
    size += (size_t)record->header.mark_count * RECORD_MARK_SIZE;
    if ((record->header.flags & RECORD_LONG_KEY) != 0) {
        size += sizeof(uint32_t) + record->long_key_size;
    }
    return size;
}

size_t record_size(const struct record *record)
{
    bool chunked = (record->header.flags & RECORD_CHUNKED) != 0;
    return size_without_value(record) +
           (chunked ? 2 * sizeof(uint64_t) : (size_t)record->header.value_size);
}

bool record_needs_chunks(const struct key *key, const struct record *record)
{
    size_t size = key->form_size + size_without_value(record) + record->header.value_size;
    return record->header.value_size > 2 * sizeof(uint64_t) && size > RECORD_NODE_MAX;
}

static uint8_t *put(uint8_t *at, const void *bytes, size_t size)
{
    if (size > 0) {
        memcpy(at, bytes, size);
    }
    return at + size;
}

void record_encode(void *bytes, const struct record *record, uint64_t key_hash)
{
    const struct record_header *header = &record->header;
    uint8_t *start = bytes;
    uint8_t *at = put(start, header, sizeof *header);
    if ((header->extras & RECORD_HAS_CREATED) != 0) {
        at = put(at, &record->created_ms, sizeof record->created_ms);
    }
    if ((header->extras & RECORD_HAS_STALE) != 0) {
        at = put(at, &record->stale_until_ms, sizeof record->stale_until_ms);
    }
    if ((header->extras & RECORD_HAS_SLIDING) != 0) {
        at = put(at, &record->sliding_ms, sizeof record->sliding_ms);
    }
    at = put(at, record->marks, (size_t)header->mark_count * RECORD_MARK_SIZE);
    if ((header->flags & RECORD_LONG_KEY) != 0) {
        uint32_t size = (uint32_t)record->long_key_size;
        at = put(at, &size, sizeof size);
        at = put(at, record->long_key, record->long_key_size);
    }
    if ((header->flags & RECORD_CHUNKED) != 0) {
        at = put(at, &record->first_chunk, sizeof record->first_chunk);
        at = put(at, &record->value_checksum, sizeof record->value_checksum);
    } else {
        at = put(at, record->value, header->value_size);
    }
    uint64_t checksum = XXH3_64bits_withSeed(start + sizeof checksum,
                                             (size_t)(at - start) - sizeof checksum, key_hash);
    memcpy(start, &checksum, sizeof checksum);
}

bool record_intact(const void *bytes, size_t size, uint64_t key_hash)
{
    uint64_t checksum;
    if (size < sizeof(struct record_header)) {
        return false;
    }
    memcpy(&checksum, bytes, sizeof checksum);
    return checksum == XXH3_64bits_withSeed((const uint8_t *)bytes + sizeof checksum,
                                            size - sizeof checksum, key_hash);
}

uint64_t record_value_hash(const void *value, size_t size)
{
    return XXH3_64bits(value, size);
}

bool record_is_of(const struct record *record, const struct key *key)
{
    if (!key->is_long) {
        return (record->header.flags & RECORD_LONG_KEY) == 0;
    }
    return record->long_key != NULL && record->long_key_size == key->size &&
           memcmp(record->long_key, key->data, key->size) == 0;
}
