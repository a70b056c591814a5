/* stored.c: the form in which a response stands in the map, and in Redis, and is read by hosts of
 * any byte order: a fixed head, the names it varies by, the header fields, the body. Numbers are
 * little endian. Decoding checks every length and that what it gives out can be sent: no field of
 * another response, or a forged one, may split an answer in two. HTTP_FORMAT
 *
 *   0  "LHR", 1     4  kind, 1 byte; flags, 3 bytes    8  status (2), field count (2)
 *  12  vary size    16 made_ms   24 lifetime_ms   32 stale_while_revalidate_ms   40
 * stale_if_error_ms 48  seed         56 digest (32)   88 head size   92 reserved   96 body size 104
 * vary, then the fields: name size (2), reserved (2), value size (4), name, value; the body
 */
#include <string.h>

#include "error.h"
#include "http/arena.h"
#include "http/headers.h"
#include "http/text.h"
#include "http/vary.h"

enum { HEAD_SIZE = 104, FIELD_SIZE = 8, DIGEST_AT = 56 };

static const uint8_t magic[4] = {'L', 'H', 'R', 1};

static const uint32_t known_flags = LARDER_HTTP_STORED_REVALIDATE | LARDER_HTTP_STORED_NO_STALE |
                                    LARDER_HTTP_STORED_PRIVATE | LARDER_HTTP_STORED_PUBLIC |
                                    LARDER_HTTP_STORED_HEURISTIC | LARDER_HTTP_STORED_VARIANT |
                                    LARDER_HTTP_STORED_AUTHORIZATION | LARDER_HTTP_STORED_COOKIE;

static uint64_t get(const uint8_t *bytes, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) {
        value |= (uint64_t)bytes[i] << 8 * i;
    }
    return value;
}

static void put(uint8_t *bytes, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size; i++) {
        bytes[i] = (uint8_t)(value >> 8 * i);
    }
}

/* ---- Decoding ---------------------------------------------------------------------------------
 */

static int corrupt(const char *what)
{
    return error_set(LARDER_ECORRUPT, "a stored response with %s", what);
}

static int fields_decode(const uint8_t *bytes, size_t size, larder_http_header *fields,
                         size_t count)
{
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        if (size - at < FIELD_SIZE) {
            return corrupt("fewer header fields than it says");
        }
        size_t name_size = (size_t)get(bytes + at, 2), value_size = (size_t)get(bytes + at + 4, 4);
        at += FIELD_SIZE;
        if (name_size > size - at || value_size > size - at - name_size) {
            return corrupt("a header field that is longer than all");
        }
        fields[i].name = (larder_bytes){bytes + at, name_size};
        fields[i].value = (larder_bytes){bytes + at + name_size, value_size};
        at += name_size + value_size;
    }
    if (at != size) {
        return corrupt("bytes behind its header fields");
    }
    return headers_check((struct headers){fields, count}) == LARDER_OK
               ? LARDER_OK
               : corrupt("header fields that are none");
}

static int head_decode(const uint8_t *head, larder_http_stored *stored)
{
    stored->kind = head[4];
    stored->flags = (uint32_t)get(head + 5, 3);
    stored->response.status = (uint32_t)get(head + 8, 2);
    stored->made_ms = (int64_t)get(head + 16, 8);
    stored->lifetime_ms = (int64_t)get(head + 24, 8);
    stored->stale_while_revalidate_ms = (int64_t)get(head + 32, 8);
    stored->stale_if_error_ms = (int64_t)get(head + 40, 8);
    stored->seed = get(head + 48, 8);
    memcpy(stored->digest, head + DIGEST_AT, sizeof stored->digest);
    if (stored->kind != LARDER_HTTP_RESPONSE && stored->kind != LARDER_HTTP_VARIANTS) {
        return corrupt("an unknown kind");
    }
    if ((stored->flags & ~known_flags) != 0) {
        return corrupt("unknown flags");
    }
    if (stored->made_ms < 0 || stored->lifetime_ms < 0 || stored->stale_while_revalidate_ms < 0 ||
        stored->stale_if_error_ms < 0) {
        return corrupt("negative times");
    }
    if (stored->kind == LARDER_HTTP_RESPONSE &&
        (stored->response.status < 200 || stored->response.status > 599)) {
        return corrupt("no valid status");
    }
    return LARDER_OK;
}

/* The parts behind the head, whose sizes add up to what there is. */
static int parts_decode(larder_bytes bytes, larder_http_arena *arena, larder_http_stored *stored)
{
    const uint8_t *head = bytes.data, *at = head + HEAD_SIZE;
    size_t left = bytes.size - HEAD_SIZE, count = (size_t)get(head + 10, 2);
    uint64_t vary_size = get(head + 12, 4), fields_size = get(head + 88, 4);
    uint64_t body_size = get(head + 96, 8);
    if (vary_size > left || fields_size > left - vary_size ||
        body_size != left - vary_size - fields_size) {
        return corrupt("parts that do not add up");
    }
    if (count > LARDER_HTTP_HEADERS_MAX) {
        return corrupt("too many header fields");
    }
    stored->vary = (larder_bytes){at, (size_t)vary_size};
    if (!vary_valid(stored->vary)) {
        return corrupt("an unreadable Vary");
    }
    stored->response.body = (larder_bytes){at + vary_size + fields_size, (size_t)body_size};
    struct arena memory = arena_begin(arena);
    larder_http_header *fields = arena_take(&memory, count * sizeof *fields);
    int result = memory.too_small
                     ? LARDER_OK
                     : fields_decode(at + vary_size, (size_t)fields_size, fields, count);
    stored->response.headers = fields;
    stored->response.header_count = count;
    return result == LARDER_OK ? arena_end(&memory) : result;
}

int larder_http_decode(larder_bytes bytes, larder_http_arena *arena, larder_http_stored *stored)
{
    *stored = (larder_http_stored){.kind = 0};
    if (bytes.size < HEAD_SIZE || memcmp(bytes.data, magic, sizeof magic) != 0) {
        return corrupt("another format");
    }
    int result = head_decode(bytes.data, stored);
    if (result == LARDER_OK) {
        result = parts_decode(bytes, arena, stored);
    }
    if (result != LARDER_OK) {
        *stored = (larder_http_stored){.kind = 0};
    }
    return result;
}

/* ---- Encoding ---------------------------------------------------------------------------------
 */

static void head_encode(const larder_http_stored *stored, size_t fields_size, uint8_t *head)
{
    memset(head, 0, HEAD_SIZE);
    memcpy(head, magic, sizeof magic);
    put(head + 4, 1, stored->kind);
    put(head + 5, 3, stored->flags);
    put(head + 8, 2, stored->response.status);
    put(head + 10, 2, stored->response.header_count);
    put(head + 12, 4, stored->vary.size);
    put(head + 16, 8, (uint64_t)stored->made_ms);
    put(head + 24, 8, (uint64_t)stored->lifetime_ms);
    put(head + 32, 8, (uint64_t)stored->stale_while_revalidate_ms);
    put(head + 40, 8, (uint64_t)stored->stale_if_error_ms);
    put(head + 48, 8, stored->seed);
    memcpy(head + DIGEST_AT, stored->digest, sizeof stored->digest);
    put(head + 88, 4, fields_size);
    put(head + 96, 8, stored->response.body.size);
}

static uint8_t *append(uint8_t *at, larder_bytes bytes)
{
    if (bytes.size > 0) {
        memcpy(at, bytes.data, bytes.size);
    }
    return at + bytes.size;
}

int larder_http_encode(const larder_http_stored *stored, larder_http_arena *arena,
                       larder_bytes *bytes)
{
    struct headers headers = headers_of_response(&stored->response);
    uint8_t checked[HEAD_SIZE];
    larder_http_stored again = *stored;
    size_t fields_size = 0;
    int result = headers_check(headers);
    if (result != LARDER_OK) {
        return result;
    }
    for (size_t i = 0; i < headers.count; i++) {
        fields_size += FIELD_SIZE + headers.fields[i].name.size + headers.fields[i].value.size;
    }
    head_encode(stored, fields_size, checked);
    if (!vary_valid(stored->vary) || head_decode(checked, &again) != LARDER_OK ||
        again.flags != stored->flags || again.kind != stored->kind ||
        again.response.status != stored->response.status) {
        return error_set(LARDER_EINVAL, "no response that could be stored: %s",
                         larder_last_error());
    }
    struct arena memory = arena_begin(arena);
    size_t size = HEAD_SIZE + stored->vary.size + fields_size + stored->response.body.size;
    uint8_t *begin = arena_take(&memory, size);
    if (begin != NULL) {
        memcpy(begin, checked, HEAD_SIZE);
        uint8_t *at = append(begin + HEAD_SIZE, stored->vary);
        for (size_t i = 0; i < headers.count; i++) {
            memset(at, 0, FIELD_SIZE);
            put(at, 2, headers.fields[i].name.size);
            put(at + 4, 4, headers.fields[i].value.size);
            at = append(append(at + FIELD_SIZE, headers.fields[i].name), headers.fields[i].value);
        }
        append(at, stored->response.body);
        *bytes = (larder_bytes){begin, size};
    }
    return arena_end(&memory);
}
