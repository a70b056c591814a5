/* format.c: records, encoded and taken apart. Pure functions over bytes. MAP_FORMAT
 */
#include "format.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <string.h>

#include "copy.h"

enum { KIND_SHIFT = 48, FLAGS_SHIFT = 50, EXTRAS_SHIFT = 56 }; /* of record_head.packed */

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

static int64_t take_extra(struct reader *reader, bool there, int64_t otherwise)
{
    const uint8_t *bytes = there ? take(reader, sizeof(int64_t)) : NULL;
    int64_t extra = otherwise;
    if (bytes != NULL) {
        memcpy(&extra, bytes, sizeof extra);
    }
    return extra;
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

/* Behind it the pages, 32 bits each, and the tail. */
struct chunk_list {
    uint64_t first, checksum;
    uint32_t size; /* of the whole value */
    uint16_t tail; /* bytes of it that stand here */
    uint16_t pages;
};
static_assert(sizeof(struct chunk_list) == 24, "MAP_FORMAT");

/* What the list of a value in one chunk takes. */
enum { LIST_LEAST = sizeof(struct chunk_list) + sizeof(uint32_t) };

/* False: no value is cut like that. */
static bool list_is_sane(const struct chunk_list *list)
{
    if (list->tail >= list->size || (list->tail != 0 && list->tail != list->size % CHUNK_SIZE)) {
        return false;
    }
    size_t count = record_chunks(list->size - list->tail);
    return list->first <= UINT64_MAX - count &&
           (list->pages == 0 || (list->pages == count && count <= RECORD_PAGES_MAX));
}

static void take_value(struct reader *reader, struct record *record)
{
    if ((record->header.flags & RECORD_CHUNKED) == 0) {
        record->value_size = reader->left;
        record->value = take(reader, reader->left);
        return;
    }
    struct chunk_list list;
    const uint8_t *bytes = take(reader, sizeof list);
    if (bytes == NULL) {
        return;
    }
    memcpy(&list, bytes, sizeof list);
    if (!list_is_sane(&list)) {
        reader->failed = true;
        return;
    }
    record->first_chunk = list.first;
    record->value_checksum = list.checksum;
    record->value_size = list.size;
    record->chunk_count = record_chunks(list.size - list.tail);
    if (list.pages > 0) {
        record->pages = take(reader, list.pages * sizeof(uint32_t));
    }
    record->tail_size = list.tail;
    record->tail = take(reader, list.tail);
}

static bool header_is_sane(const struct record_header *header)
{
    return header->kind >= RECORD_VALUE && (header->flags & ~RECORD_FLAGS) == 0;
}

/* The head taken apart. */
static inline void unpack(const uint8_t *bytes, struct record_header *header)
{
    struct record_head head;
    memcpy(&head, bytes, sizeof head);
    header->checksum = head.checksum;
    header->clock = head.clock;
    header->row = head.packed & RECORD_ROW_MAX;
    header->kind = (uint8_t)(head.packed >> KIND_SHIFT & 3);
    header->flags = (uint8_t)(head.packed >> FLAGS_SHIFT & 0x3f);
    header->extras = (uint8_t)(head.packed >> EXTRAS_SHIFT);
}

/* 0 is not a node's number, nor is anything beyond 32 bits. */
static uint32_t take_node(struct reader *reader, bool there)
{
    int64_t node = take_extra(reader, there, 0);
    reader->failed |= there && (node <= 0 || node > UINT32_MAX);
    return (uint32_t)node;
}

static void take_marks(struct reader *reader, struct record *record)
{
    const uint8_t *count = take(reader, 1);
    if (count == NULL || *count == 0 || *count > RECORD_MARKS_MAX) {
        reader->failed = true;
        return;
    }
    record->header.mark_count = *count;
    record->marks = take(reader, (size_t)*count * RECORD_MARK_SIZE);
}

/* Leave the padding out. */
static void drop_padding(struct reader *reader, struct record *record)
{
    if ((record->header.flags & RECORD_PADDED) != 0 && !reader->failed) {
        size_t padding = reader->left > 0 ? reader->at[reader->left - 1] : 0;
        reader->failed = padding == 0 || padding > reader->left;
        reader->left -= reader->failed ? 0 : padding;
        record->header.flags &= (uint8_t)~RECORD_PADDED;
    }
}

/* What few records have: extras beyond the expiry, marks, a long key, chunks. */
static bool take_uncommon(struct reader *reader, struct record *record)
{
    unsigned extras = record->header.extras;
    record->created_ms = take_extra(reader, (extras & RECORD_HAS_CREATED) != 0, 0);
    record->acked_ms = take_extra(reader, (extras & RECORD_HAS_ACKED) != 0, 0);
    record->stale_until_ms = take_extra(reader, (extras & RECORD_HAS_STALE) != 0, 0);
    record->sliding_ms = take_extra(reader, (extras & RECORD_HAS_SLIDING) != 0, 0);
    record->limit_ms = take_extra(reader, (extras & RECORD_HAS_LIMIT) != 0, 0);
    record->header.node = take_node(reader, (extras & RECORD_HAS_NODE) != 0);
    if ((extras & RECORD_HAS_MARKS) != 0) {
        take_marks(reader, record);
    }
    if ((record->header.flags & RECORD_LONG_KEY) != 0) {
        take_long_key(reader, record);
    }
    drop_padding(reader, record);
    take_value(reader, record);
    return !reader->failed && reader->left == 0;
}

/* The common record: a head, perhaps an expiry, a value. */
static inline bool decode_plain(const uint8_t *bytes, size_t size, struct record *record)
{
    const struct record_header *header = &record->header;
    size_t head = sizeof(struct record_head);
    if (size < head + sizeof(int64_t)) {
        return false;
    }
    unpack(bytes, &record->header);
    if ((header->extras & ~RECORD_HAS_EXPIRY) != 0 ||
        (header->flags & ~(RECORD_DIRTY | RECORD_LOCAL | RECORD_PADDED)) != 0 ||
        header->kind < RECORD_VALUE) {
        return false;
    }
    record->expires_at_ms = INT64_MAX;
    if ((header->extras & RECORD_HAS_EXPIRY) != 0) {
        memcpy(&record->expires_at_ms, bytes + head, sizeof record->expires_at_ms);
        head += sizeof record->expires_at_ms;
    }
    if (__builtin_expect((header->flags & RECORD_PADDED) != 0, 0)) {
        size_t padding = bytes[size - 1];
        if (padding == 0 || padding > size - head) {
            return false;
        }
        size -= padding;
        record->header.flags &= (uint8_t)~RECORD_PADDED;
    }
    record->value = bytes + head;
    record->value_size = size - head;
    return true;
}

bool record_decode(const void *bytes, size_t size, struct record *record)
{
    *record = (struct record){.value = NULL};
    if (__builtin_expect(decode_plain(bytes, size, record), 1)) {
        return true;
    }
    struct reader reader = {.at = bytes, .left = size};
    const uint8_t *head = take(&reader, sizeof(struct record_head));
    if (__builtin_expect(head == NULL, 0)) {
        return false;
    }
    unpack(head, &record->header); /* the rest is as it was before */
    const struct record_header *header = &record->header;
    if (__builtin_expect(!header_is_sane(header), 0)) {
        return false;
    }
    record->expires_at_ms =
        take_extra(&reader, (header->extras & RECORD_HAS_EXPIRY) != 0, INT64_MAX);
    return take_uncommon(&reader, record);
}

static uint8_t extras_of(const struct record *record)
{
    unsigned extras = 0;
    extras |= record->expires_at_ms != INT64_MAX ? RECORD_HAS_EXPIRY : 0u;
    extras |= record->created_ms != 0 ? RECORD_HAS_CREATED : 0u;
    extras |= record->acked_ms != 0 ? RECORD_HAS_ACKED : 0u;
    extras |= record->stale_until_ms != 0 ? RECORD_HAS_STALE : 0u;
    extras |= record->sliding_ms != 0 ? RECORD_HAS_SLIDING : 0u;
    extras |= record->limit_ms != 0 ? RECORD_HAS_LIMIT : 0u;
    extras |= record->header.node != 0 ? RECORD_HAS_NODE : 0u;
    extras |= record->header.mark_count != 0 ? RECORD_HAS_MARKS : 0u;
    return (uint8_t)extras;
}

static size_t size_without_value(const struct record *record)
{
    size_t size = sizeof(struct record_head);
    unsigned extras = extras_of(record);
    size += (size_t)__builtin_popcount(extras & (RECORD_HAS_MARKS - 1u)) * sizeof(int64_t);
    if ((extras & RECORD_HAS_MARKS) != 0) {
        size += 1 + (size_t)record->header.mark_count * RECORD_MARK_SIZE;
    }
    if ((record->header.flags & RECORD_LONG_KEY) != 0) {
        size += sizeof(uint32_t) + record->long_key_size;
    }
    return size;
}

size_t record_size(const struct record *record)
{
    size_t size = size_without_value(record) + record->padding;
    if ((record->header.flags & RECORD_CHUNKED) == 0) {
        return size + record->value_size;
    }
    size_t pages = record->pages != NULL ? record->chunk_count : 0;
    return size + sizeof(struct chunk_list) + pages * sizeof(uint32_t) + record->tail_size;
}

/* How far a record (with its key's form) that takes a page of its own may grow without taking
 * another one. Only one with a long key may take several. */
static size_t page_room(size_t size)
{
    enum { PAGE = 4096, PAGE_HEADER = PAGE - RECORD_PAGE_MAX };
    return (size + PAGE_HEADER + PAGE - 1) / PAGE * PAGE - PAGE_HEADER;
}

bool record_needs_chunks(const struct key *key, const struct record *record)
{
    size_t size = key->form_size + size_without_value(record);
    return size + record->value_size > page_room(size + LIST_LEAST);
}

void record_cut(const struct key *key, struct record *record)
{
    size_t count = record->value_size / CHUNK_SIZE, tail = record->value_size % CHUNK_SIZE;
    size_t size = key->form_size + size_without_value(record) + sizeof(struct chunk_list);
    if (count <= RECORD_PAGES_MAX) {
        size += count * sizeof(uint32_t);
    }
    size_t room = size <= RECORD_NODE_MAX ? RECORD_NODE_MAX : page_room(size);
    bool fits = count > 0 && size + tail <= room;
    record->chunk_count = fits ? count : record_chunks(record->value_size);
    record->tail_size = fits ? tail : 0;
}

static uint8_t *put(uint8_t *at, const void *bytes, size_t size)
{
    if (size > 0) {
        memcpy(at, bytes, size);
    }
    return at + size;
}

/* Of the caller's bytes, which may be many: all else is a few, whose number the compiler knows. */
static uint8_t *put_value(uint8_t *at, const void *bytes, size_t size)
{
    if (size > 0) {
        copy_bytes(at, bytes, size);
    }
    return at + size;
}

static uint8_t *put_extra(uint8_t *at, bool there, int64_t extra)
{
    return there ? put(at, &extra, sizeof extra) : at;
}

void record_encode(void *bytes, const struct record *record, uint64_t key_hash)
{
    struct record_header header = record->header;
    header.extras = extras_of(record);
    header.flags =
        (uint8_t)((header.flags & ~RECORD_PADDED) | (record->padding > 0 ? RECORD_PADDED : 0));
    struct record_head head = {
        .clock = header.clock,
        .packed = (header.row & RECORD_ROW_MAX) | (uint64_t)header.kind << KIND_SHIFT |
                  (uint64_t)header.flags << FLAGS_SHIFT | (uint64_t)header.extras << EXTRAS_SHIFT};
    uint8_t *start = bytes;
    uint8_t *at = put(start, &head, sizeof head);
    at = put_extra(at, (header.extras & RECORD_HAS_EXPIRY) != 0, record->expires_at_ms);
    at = put_extra(at, (header.extras & RECORD_HAS_CREATED) != 0, record->created_ms);
    at = put_extra(at, (header.extras & RECORD_HAS_ACKED) != 0, record->acked_ms);
    at = put_extra(at, (header.extras & RECORD_HAS_STALE) != 0, record->stale_until_ms);
    at = put_extra(at, (header.extras & RECORD_HAS_SLIDING) != 0, record->sliding_ms);
    at = put_extra(at, (header.extras & RECORD_HAS_LIMIT) != 0, record->limit_ms);
    at = put_extra(at, (header.extras & RECORD_HAS_NODE) != 0, (int64_t)header.node);
    if ((header.extras & RECORD_HAS_MARKS) != 0) {
        at = put(at, &header.mark_count, 1);
        at = put(at, record->marks, (size_t)header.mark_count * RECORD_MARK_SIZE);
    }
    if ((record->header.flags & RECORD_LONG_KEY) != 0) {
        uint32_t size = (uint32_t)record->long_key_size;
        at = put(at, &size, sizeof size);
        at = put(at, record->long_key, record->long_key_size);
    }
    if ((record->header.flags & RECORD_CHUNKED) != 0) {
        struct chunk_list list = {
            .first = record->first_chunk,
            .checksum = record->value_checksum,
            .size = (uint32_t)record->value_size,
            .tail = (uint16_t)record->tail_size,
            .pages = (uint16_t)(record->pages != NULL ? record->chunk_count : 0),
        };
        at = put(at, &list, sizeof list);
        at = put(at, record->pages, list.pages * sizeof(uint32_t));
        at = put_value(at, record->tail, record->tail_size);
    } else {
        at = put_value(at, record->value, record->value_size);
    }
    if (record->padding > 0) {
        memset(at, 0, record->padding);
        at += record->padding;
        at[-1] = (uint8_t)record->padding;
    }
    uint64_t checksum = XXH3_64bits_withSeed(start + sizeof checksum,
                                             (size_t)(at - start) - sizeof checksum, key_hash);
    memcpy(start, &checksum, sizeof checksum);
}

bool record_intact(const void *bytes, size_t size, uint64_t key_hash)
{
    uint64_t checksum;
    if (size < sizeof(struct record_head)) {
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
