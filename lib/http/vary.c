/* vary.c: see vary.h.
 */
#include "http/vary.h"

#include <string.h>

#include "error.h"
#include "http/credentials.h"
#include "http/headers.h"
#include "http/text.h"

void vary_add(struct vary *vary, larder_bytes name)
{
    for (size_t i = 0; i < vary->count; i++) {
        if (text_same_name(vary->names[i], name)) {
            return;
        }
    }
    if (vary->count == LARDER_HTTP_VARY_MAX) {
        vary->too_many = true;
        return;
    }
    vary->names[vary->count++] = name;
}

void vary_read(const larder_http_response *response, struct vary *vary)
{
    struct headers headers = headers_of_response(response);
    size_t at = 0;
    const larder_http_header *field;
    *vary = (struct vary){.count = 0};
    while ((field = headers_next(headers, "vary", &at)) != NULL) {
        larder_bytes list = field->value, name;
        while (text_next(&list, &name)) {
            if (text_is_token(name) && !text_is(name, "*")) {
                vary_add(vary, name);
            } else { /* what is no name may mean anything */
                vary->anything = true;
            }
        }
    }
}

static int name_compare(larder_bytes a, larder_bytes b)
{
    const char *left = a.data, *right = b.data;
    for (size_t i = 0; i < a.size && i < b.size; i++) {
        int order = (unsigned char)text_lower(left[i]) - (unsigned char)text_lower(right[i]);
        if (order != 0) {
            return order;
        }
    }
    return (a.size > b.size) - (a.size < b.size);
}

larder_bytes vary_join(struct vary *vary, struct arena *arena)
{
    size_t size = vary->count == 0 ? 0 : vary->count - 1, at = 0;
    for (size_t i = 0; i < vary->count; i++) {
        larder_bytes name = vary->names[i];
        size_t place = i;
        for (; place > 0 && name_compare(name, vary->names[place - 1]) < 0; place--) {
            vary->names[place] = vary->names[place - 1];
        }
        vary->names[place] = name;
        size += name.size;
    }
    char *text = arena_take_text(arena, size);
    if (text == NULL) {
        return (larder_bytes){NULL, 0};
    }
    for (size_t i = 0; i < vary->count; i++) {
        if (i > 0) {
            text[at++] = ',';
        }
        for (size_t j = 0; j < vary->names[i].size; j++) {
            text[at++] = text_lower(((const char *)vary->names[i].data)[j]);
        }
    }
    return (larder_bytes){text, size};
}

bool vary_has(larder_bytes joined, larder_bytes name)
{
    larder_bytes found;
    while (text_next(&joined, &found)) {
        if (text_same_name(found, name)) {
            return true;
        }
    }
    return false;
}

bool vary_valid(larder_bytes joined)
{
    const char *bytes = joined.data;
    larder_bytes name, before = {NULL, 0};
    size_t count = 0, size = 0, whole = joined.size;
    for (size_t i = 0; i < whole; i++) {
        if (bytes[i] != text_lower(bytes[i])) {
            return false;
        }
    }
    while (text_next(&joined, &name)) {
        if (!text_is_token(name) || (count > 0 && name_compare(before, name) >= 0)) {
            return false;
        }
        before = name;
        size += name.size + (count++ > 0);
    }
    /* nothing but names and single commas */
    return count <= LARDER_HTTP_VARY_MAX && size == whole;
}

/* ---- Values -----------------------------------------------------------------------------------
 * Each with its size in front, so that no two sets of values give the same bytes. */

static void add_size(struct sha256 *hash, size_t size)
{
    uint8_t bytes[8];
    for (unsigned i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)((uint64_t)size >> 8 * i);
    }
    sha256_add(hash, bytes, sizeof bytes);
}

static void add_bytes(struct sha256 *hash, larder_bytes bytes)
{
    add_size(hash, bytes.size);
    sha256_add(hash, bytes.data, bytes.size);
}

/* Lists for which white space around commas and the split over fields are known to mean nothing
 * (RFC 9110, 12.5). */
static bool is_accept(larder_bytes name)
{
    return text_is_name(name, "accept") || text_is_name(name, "accept-charset") ||
           text_is_name(name, "accept-encoding") || text_is_name(name, "accept-language");
}

static void add_values(struct sha256 *hash, larder_bytes name, struct headers headers)
{
    bool any = false;
    for (size_t i = 0; i < headers.count; i++) {
        larder_bytes list = headers.fields[i].value, element;
        if (!text_same_name(headers.fields[i].name, name)) {
            continue;
        }
        any = true;
        if (!is_accept(name)) {
            add_bytes(hash, text_trim(list));
            continue;
        }
        while (text_next(&list, &element)) {
            add_bytes(hash, element);
        }
    }
    add_size(hash,
             any ? SIZE_MAX : SIZE_MAX - 1); /* the end; an empty field is not an absent one */
}

void vary_digest(larder_bytes joined, const larder_http_request *request,
                 uint8_t digest[SHA256_SIZE])
{
    struct sha256 hash;
    larder_bytes name;
    sha256_begin(&hash);
    while (text_next(&joined, &name)) {
        add_bytes(&hash, name);
        add_values(&hash, name, headers_of_request(request));
    }
    sha256_end(&hash, digest);
}

int vary_key(larder_bytes key, uint64_t seed, const uint8_t digest[SHA256_SIZE],
             larder_http_arena *arena, larder_bytes *variant)
{
    static const char digits[] = "0123456789abcdef";
    enum { TAIL = 1 + 16 + 1 + 2 * SHA256_SIZE };
    struct arena memory = arena_begin(arena);
    size_t size = key.size + TAIL, at = key.size;
    if (key.size > LARDER_KEY_MAX - TAIL) {
        return error_set(LARDER_ETOOBIG, "a key of %zu bytes: no room for a variant's", key.size);
    }
    char *text = arena_take_text(&memory, size);
    if (text != NULL) {
        memcpy(text, key.data, key.size);
        text[at++] = '#';
        for (int shift = 60; shift >= 0; shift -= 4) {
            text[at++] = digits[seed >> shift & 15];
        }
        text[at++] = '#';
        for (size_t i = 0; i < SHA256_SIZE; i++) {
            text[at++] = digits[digest[i] >> 4];
            text[at++] = digits[digest[i] & 15];
        }
        *variant = (larder_bytes){text, size};
    }
    return arena_end(&memory);
}

/* ---- Choosing ---------------------------------------------------------------------------------
 */

static int variant_of(larder_bytes key, larder_bytes names, uint64_t seed,
                      const larder_http_request *request, larder_http_arena *arena,
                      larder_bytes *variant)
{
    uint8_t digest[SHA256_SIZE];
    vary_digest(names, request, digest);
    int result = vary_key(key, seed, digest, arena, variant);
    return result == LARDER_OK ? LARDER_HTTP_VARIANT : result;
}

int larder_http_select(const larder_http_policy *policy, const larder_http_request *request,
                       larder_bytes key, const larder_http_stored *stored, larder_http_arena *arena,
                       larder_bytes *variant)
{
    if (stored->kind == LARDER_HTTP_VARIANTS) {
        return variant_of(key, stored->vary, stored->seed, request, arena, variant);
    }
    if ((stored->flags & LARDER_HTTP_STORED_VARIANT) != 0) {
        uint8_t digest[SHA256_SIZE];
        vary_digest(stored->vary, request, digest);
        return memcmp(digest, stored->digest, sizeof digest) == 0 &&
                       credentials_allow(policy, request, stored)
                   ? LARDER_HTTP_CHOSEN
                   : LARDER_HTTP_OTHER;
    }
    if (credentials_allow(policy, request, stored)) {
        return LARDER_HTTP_CHOSEN;
    }
    /* The page of those without credentials stands at the key; a user's own, beside it. */
    if (policy->kind == LARDER_HTTP_ROUTE && credentials_of(request) != 0) {
        return variant_of(key, text_of(CREDENTIALS_NAMES), stored->seed, request, arena, variant);
    }
    return LARDER_HTTP_OTHER;
}
