/* fuzz_session.c: any bytes as what stands in the map for a session, as the Cookie header of a
 * request, and as the parts of a cookie that is to be set. A record is refused or lies within the
 * bytes, in order, and is the same bytes again; whatever is found in a header is an id that stands
 * there; no cookie that is written can end its header, or gain an attribute.
 */
#include "tests/fuzz/fuzz.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "larder_session.h"
#include "session_id.h"
#include "session_record.h"

static bool within(larder_bytes part, const uint8_t *data, size_t size)
{
    const uint8_t *begin = part.data;
    return part.size == 0 ||
           (begin >= data && part.size <= size && (size_t)(begin - data) <= size - part.size);
}

/* ---- Records ------------------------------------------------------------------------------------
 */

/* Every other field is taken away, and one is added. */
static void merge(const struct session_record *record)
{
    static struct session_record merged;
    static larder_session_field changes[LARDER_SESSION_FIELDS_MAX];
    const larder_session_field *sorted[LARDER_SESSION_FIELDS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < record->field_count; i += 2) {
        changes[count] = record->fields[i];
        changes[count++].flags = LARDER_SESSION_REMOVE;
    }
    fuzz_check(session_sort_fields(changes, count, sorted) == LARDER_OK);
    fuzz_check(session_merge(record, sorted, count, &merged) == LARDER_OK);
    fuzz_check(merged.field_count == record->field_count - count);
    for (size_t i = 0; i < merged.field_count; i++)
        fuzz_check(session_compare_names(merged.fields[i].name, record->fields[2 * i + 1].name) ==
                   0);
}

static void as_record(const uint8_t *data, size_t size)
{
    static struct session_record record;
    uint8_t *again;
    if (!session_record_decode(data, size, &record))
        return;
    fuzz_check(record.field_count <= LARDER_SESSION_FIELDS_MAX);
    fuzz_check(within(record.user, data, size) && record.user.size <= LARDER_SESSION_USER_MAX);
    for (size_t i = 0; i < record.field_count; i++) {
        const larder_session_field *field = &record.fields[i];
        fuzz_check(within(field->name, data, size) && within(field->value, data, size));
        fuzz_check(field->name.size > 0 && field->flags == 0);
        fuzz_check(i == 0 ||
                   session_compare_names(record.fields[i - 1].name, record.fields[i].name) < 0);
    }
    fuzz_check(session_record_size(&record) == size);
    again = malloc(size + 1);
    fuzz_check(again != NULL);
    session_record_encode(&record, again);
    fuzz_check(memcmp(again, data, size) == 0);
    free(again);
    merge(&record);
}

/* ---- Cookies ------------------------------------------------------------------------------------
 */

/* What stands before the next line break, or all. */
static larder_bytes take_line(larder_bytes *left)
{
    const char *begin = left->data, *end = left->size == 0 ? NULL : memchr(begin, '\n', left->size);
    size_t size = end == NULL ? left->size : (size_t)(end - begin);
    size_t taken = size + (end != NULL);
    *left = (larder_bytes){begin + taken, left->size - taken};
    return (larder_bytes){begin, size};
}

static void as_header(larder_bytes name, larder_bytes header)
{
    larder_session_id id;
    int result = larder_cookie_read(header, name, &id);
    fuzz_check(result == LARDER_OK || result == LARDER_MISS || result == LARDER_EINVAL ||
               result == LARDER_ETOOBIG);
    if (result != LARDER_OK)
        return;
    fuzz_check(strlen(id.text) == LARDER_SESSION_ID_SIZE &&
               session_id_is_valid(id.text, LARDER_SESSION_ID_SIZE));
    fuzz_check(memmem(header.data, header.size, id.text, LARDER_SESSION_ID_SIZE) != NULL);
}

static void as_cookie(larder_cookie cookie)
{
    static const char id[] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    char buffer[LARDER_COOKIE_SIZE];
    larder_session_id found;
    size_t size = 0, parts = 1;
    int result =
        larder_cookie_write(&cookie, id, LARDER_SESSION_ID_SIZE, buffer, sizeof buffer, &size);
    fuzz_check(result == LARDER_OK || result == LARDER_EINVAL || result == LARDER_ETOOBIG);
    if (result != LARDER_OK)
        return;
    fuzz_check(size < sizeof buffer && strlen(buffer) == size);
    for (size_t i = 0; i < size; i++) {
        fuzz_check(isprint((unsigned char)buffer[i]) != 0);
        parts += buffer[i] == ';';
    }
    fuzz_check(parts <= 7);
    fuzz_check(((cookie.flags & LARDER_COOKIE_PLAIN) != 0) == (strstr(buffer, "; Secure") == NULL));
    fuzz_check(((cookie.flags & LARDER_COOKIE_SCRIPT) != 0) ==
               (strstr(buffer, "; HttpOnly") == NULL));
    fuzz_check(strstr(buffer, "; SameSite=") != NULL);
    fuzz_check(larder_cookie_read((larder_bytes){buffer, size}, cookie.name, &found) == LARDER_OK &&
               strcmp(found.text, id) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t nothing[1];
    data = size == 0 ? nothing : data;
    as_record(data, size);
    larder_bytes left = {data, size};
    larder_cookie cookie = {.flags = size == 0 ? 0 : data[0] & 31u,
                            .max_age_ms = size < 2 ? 0 : data[1] * INT64_C(100000000000)};
    as_header((larder_bytes){NULL, 0}, left);
    cookie.name = take_line(&left);
    as_header(cookie.name, left);
    cookie.path = take_line(&left);
    cookie.domain = take_line(&left);
    as_cookie(cookie);
    return 0;
}
