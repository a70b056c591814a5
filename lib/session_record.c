/* session_record.c: see session_record.h.
 */
#include "session_record.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

/* ---- Fields -----------------------------------------------------------------------------------
 */

int session_compare_names(larder_bytes one, larder_bytes other)
{
    size_t shorter = one.size < other.size ? one.size : other.size;
    int order = shorter == 0 ? 0 : memcmp(one.data, other.data, shorter);
    return order != 0 ? order : (one.size > other.size) - (one.size < other.size);
}

static int check_field(const larder_session_field *field, size_t index)
{
    if (field->name.data == NULL || field->name.size == 0) {
        return error_set(LARDER_EINVAL, "field %zu of a session has no name", index);
    }
    if (field->name.size > LARDER_SESSION_FIELD_NAME_MAX) {
        return error_set(LARDER_ETOOBIG, "name of %zu bytes of a session's field: the limit is %u",
                         field->name.size, LARDER_SESSION_FIELD_NAME_MAX);
    }
    if ((field->flags & ~(uint32_t)LARDER_SESSION_REMOVE) != 0 || field->reserved0 != 0) {
        return error_set(LARDER_EINVAL, "unknown members or flags of field %zu are not 0", index);
    }
    if (field->value.data == NULL && field->value.size != 0 &&
        (field->flags & LARDER_SESSION_REMOVE) == 0) {
        return error_set(LARDER_EINVAL, "field %zu of a session has no value, but a size of %zu",
                         index, field->value.size);
    }
    return LARDER_OK;
}

static int compare_fields(const void *one, const void *other)
{
    const larder_session_field *const *a = one, *const *b = other;
    return session_compare_names((*a)->name, (*b)->name);
}

int session_sort_fields(const larder_session_field *fields, size_t count,
                        const larder_session_field *sorted[])
{
    if (count > LARDER_SESSION_FIELDS_MAX || (count > 0 && fields == NULL)) {
        return error_set(LARDER_EINVAL,
                         "%zu fields of a session in one call, or none at all: at "
                         "most %u",
                         count, LARDER_SESSION_FIELDS_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        int result = check_field(&fields[i], i);
        if (result != LARDER_OK) {
            return result;
        }
        sorted[i] = &fields[i];
    }
    if (count > 1) {
        qsort(sorted, count, sizeof sorted[0], compare_fields);
    }
    for (size_t i = 1; i < count; i++) {
        if (session_compare_names(sorted[i - 1]->name, sorted[i]->name) == 0) {
            return error_set(LARDER_EINVAL, "a session's field is named twice in one call");
        }
    }
    return LARDER_OK;
}

static bool add(struct session_record *record, const larder_session_field *field)
{
    if (record->field_count == LARDER_SESSION_FIELDS_MAX) {
        return false;
    }
    record->fields[record->field_count++] =
        (larder_session_field){.name = field->name, .value = field->value};
    return true;
}

int session_merge(const struct session_record *old, const larder_session_field *const changes[],
                  size_t count, struct session_record *record)
{
    size_t left = 0, right = 0;
    bool fits = true;
    record->field_count = 0;
    while (fits && (left < old->field_count || right < count)) {
        int order = left == old->field_count ? 1
                    : right == count
                        ? -1
                        : session_compare_names(old->fields[left].name, changes[right]->name);
        if (order < 0) {
            fits = add(record, &old->fields[left++]);
            continue;
        }
        left += order == 0;
        const larder_session_field *change = changes[right++];
        fits = (change->flags & LARDER_SESSION_REMOVE) != 0 || add(record, change);
    }
    return fits ? LARDER_OK
                : error_set(LARDER_ETOOBIG, "a session of more than %u fields",
                            LARDER_SESSION_FIELDS_MAX);
}

/* ---- Bytes ------------------------------------------------------------------------------------
 */

static uint8_t *put(uint8_t *at, const void *bytes, size_t size)
{
    if (size > 0) {
        memcpy(at, bytes, size);
    }
    return at + size;
}

static uint8_t *put_16(uint8_t *at, size_t value)
{
    uint16_t word = htole16((uint16_t)value);
    return put(at, &word, sizeof word);
}

static uint8_t *put_64(uint8_t *at, int64_t value)
{
    uint64_t word = htole64((uint64_t)value);
    return put(at, &word, sizeof word);
}

static uint16_t get_16(const uint8_t *at)
{
    uint16_t word;
    memcpy(&word, at, sizeof word);
    return le16toh(word);
}

static int64_t get_64(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return (int64_t)le64toh(word);
}

size_t session_record_size(const struct session_record *record)
{
    size_t size = SESSION_RECORD_HEAD + record->user.size;
    for (size_t i = 0; i < record->field_count; i++) {
        size_t name = record->fields[i].name.size, value = record->fields[i].value.size;
        if (value > SESSION_RECORD_SIZE_MAX || size > SESSION_RECORD_SIZE_MAX) {
            return SIZE_MAX; /* more than any limit */
        }
        size += SESSION_RECORD_FIELD_HEAD + name + value;
    }
    return size;
}

void session_record_encode(const struct session_record *record, void *bytes)
{
    static const uint8_t begin[2] = {SESSION_RECORD_VERSION, 0};
    uint8_t *at = put(bytes, begin, sizeof begin);
    at = put_16(at, record->field_count);
    at = put_16(at, record->user.size);
    at = put_16(at, 0);
    at = put_64(at, record->created_ms);
    at = put_64(at, record->ttl_ms);
    at = put_64(at, record->ends_ms);
    at = put(at, record->user.data, record->user.size);
    for (size_t i = 0; i < record->field_count; i++) {
        const larder_session_field *field = &record->fields[i];
        uint32_t value_size = htole32((uint32_t)field->value.size);
        at = put_16(at, field->name.size);
        at = put_16(at, 0);
        at = put(at, &value_size, sizeof value_size);
        at = put(at, field->name.data, field->name.size);
        at = put(at, field->value.data, field->value.size);
    }
}

/* The field that begins there; how many bytes it takes, or 0: it is not one. */
static size_t decode_field(const uint8_t *at, size_t left, larder_session_field *field)
{
    uint32_t value_size;
    if (left < SESSION_RECORD_FIELD_HEAD) {
        return 0;
    }
    size_t name_size = get_16(at);
    memcpy(&value_size, at + 4, sizeof value_size);
    value_size = le32toh(value_size);
    left -= SESSION_RECORD_FIELD_HEAD;
    if (name_size == 0 || name_size > LARDER_SESSION_FIELD_NAME_MAX || get_16(at + 2) != 0 ||
        name_size > left || value_size > left - name_size) {
        return 0;
    }
    at += SESSION_RECORD_FIELD_HEAD;
    *field = (larder_session_field){.name = {at, name_size}, .value = {at + name_size, value_size}};
    return SESSION_RECORD_FIELD_HEAD + name_size + value_size;
}

static bool decode_head(const uint8_t *at, size_t size, struct session_record *record)
{
    if (size < SESSION_RECORD_HEAD || at[0] != SESSION_RECORD_VERSION || at[1] != 0 ||
        get_16(at + 6) != 0) {
        return false;
    }
    record->field_count = get_16(at + 2);
    record->user = (larder_bytes){at + SESSION_RECORD_HEAD, get_16(at + 4)};
    record->created_ms = get_64(at + 8);
    record->ttl_ms = get_64(at + 16);
    record->ends_ms = get_64(at + 24);
    return record->field_count <= LARDER_SESSION_FIELDS_MAX &&
           record->user.size <= LARDER_SESSION_USER_MAX &&
           record->user.size <= size - SESSION_RECORD_HEAD && record->created_ms >= 0 &&
           record->ttl_ms > 0 && record->ends_ms >= 0;
}

bool session_record_decode(const void *bytes, size_t size, struct session_record *record)
{
    const uint8_t *at = bytes;
    if (!decode_head(at, size, record)) {
        return false;
    }
    size_t used = SESSION_RECORD_HEAD + record->user.size;
    for (size_t i = 0; i < record->field_count; i++) {
        size_t took = decode_field(at + used, size - used, &record->fields[i]);
        if (took == 0 || (i > 0 && session_compare_names(record->fields[i - 1].name,
                                                         record->fields[i].name) >= 0)) {
            return false;
        }
        used += took;
    }
    return used == size;
}
