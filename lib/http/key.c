/* key.c: from a request to the key that its page stands under. What the application names (prefix,
 * group) and what the client sends (path, parameters, user) cannot be mistaken for one another:
 * what has a meaning in the key is percent-encoded where it comes from a client.
 */
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "http/arena.h"
#include "http/headers.h"
#include "http/text.h"

enum { PARAMS_MAX = 1024 };

/* A key that is being written, twice: first for its size. */
struct writer {
    char *text; /* NULL: only the size is wanted */
    size_t size;
};

static void put(struct writer *writer, char c)
{
    if (writer->text != NULL) {
        writer->text[writer->size] = c;
    }
    writer->size++;
}

static void put_bytes(struct writer *writer, larder_bytes bytes)
{
    for (size_t i = 0; i < bytes.size; i++) {
        put(writer, ((const char *)bytes.data)[i]);
    }
}

static void put_escaped(struct writer *writer, char c)
{
    static const char digits[] = "0123456789ABCDEF";
    put(writer, '%');
    put(writer, digits[(unsigned char)c >> 4]);
    put(writer, digits[(unsigned char)c & 15]);
}

static void put_except(struct writer *writer, char c, const char *special)
{
    if (c != '\0' && strchr(special, c) != NULL) {
        put_escaped(writer, c);
    } else {
        put(writer, c);
    }
}

/* Parts have colons between them; the first has none in front. */
static void put_separator(struct writer *writer)
{
    if (writer->size > 0) {
        put(writer, ':');
    }
}

/* The byte at *at, decoded; *at then stands behind it. */
static char decoded(larder_bytes text, size_t *at)
{
    const char *bytes = text.data;
    char c = bytes[*at];
    if (c == '%' && text.size - *at > 2) {
        int high = text_hex(bytes[*at + 1]), low = text_hex(bytes[*at + 2]);
        if (high >= 0 && low >= 0) {
            *at += 3;
            return (char)(high << 4 | low);
        }
    }
    *at += 1;
    return c;
}

/* ---- Path and parameters of the forms by route and by method -----------------------------------
 */

static const char specials[] = ":&=%#{}/";

static void put_path(struct writer *writer, larder_bytes path)
{
    const char *bytes = path.data;
    while (path.size > 0 && bytes[path.size - 1] == '/') {
        path.size--;
    }
    size_t at = 0;
    while (at < path.size && bytes[at] == '/') {
        at++;
    }
    if (at == path.size) {
        return;
    }
    put_separator(writer);
    while (at < path.size) {
        if (bytes[at] == '/') {
            put(writer, ':');
            at++;
        } else {
            put_except(writer, decoded(path, &at), specials);
        }
    }
}

/* One parameter: what stands before and behind its first '=', still encoded. */
struct param {
    larder_bytes name, value;
    size_t number; /* keeps those of one name in their order */
};

/* A byte of a name or value, '+' being a space (application/x-www-form-urlencoded). */
static char param_byte(larder_bytes text, size_t *at)
{
    if (((const char *)text.data)[*at] == '+') {
        *at += 1;
        return ' ';
    }
    return decoded(text, at);
}

static int name_compare(larder_bytes a, larder_bytes b)
{
    size_t left = 0, right = 0;
    while (left < a.size && right < b.size) {
        unsigned char one = (unsigned char)param_byte(a, &left);
        unsigned char other = (unsigned char)param_byte(b, &right);
        if (one != other) {
            return one < other ? -1 : 1;
        }
    }
    return (left < a.size) - (right < b.size);
}

static int param_compare(const void *a, const void *b)
{
    const struct param *one = a, *other = b;
    int order = name_compare(one->name, other->name);
    return order != 0 ? order : (one->number > other->number) - (one->number < other->number);
}

static void put_param_part(struct writer *writer, larder_bytes part)
{
    size_t at = 0;
    while (at < part.size) {
        put_except(writer, param_byte(part, &at), ":&=%#{}");
    }
}

/* The next of the query that is not empty. */
static bool param_next(larder_bytes *query, struct param *param)
{
    while (query->size > 0) {
        const char *begin = query->data, *ampersand = memchr(begin, '&', query->size);
        size_t size = ampersand == NULL ? query->size : (size_t)(ampersand - begin);
        size_t taken = ampersand == NULL ? size : size + 1;
        *query = (larder_bytes){begin + taken, query->size - taken};
        if (size == 0) {
            continue;
        }
        const char *equals = memchr(begin, '=', size);
        size_t name_size = equals == NULL ? size : (size_t)(equals - begin);
        param->name = (larder_bytes){begin, name_size};
        param->value = equals == NULL ? (larder_bytes){begin + size, 0}
                                      : (larder_bytes){equals + 1, size - name_size - 1};
        return true;
    }
    return false;
}

static size_t params_count(larder_bytes query)
{
    struct param param;
    size_t count = 0;
    while (param_next(&query, &param)) {
        count++;
    }
    return count;
}

static void params_read(larder_bytes query, struct param *params, size_t count)
{
    for (size_t i = 0; i < count && param_next(&query, &params[i]); i++) {
        params[i].number = i;
    }
    qsort(params, count, sizeof *params, param_compare);
}

static void put_params(struct writer *writer, const struct param *params, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        put_separator(writer);
        put_param_part(writer, params[i].name);
        put(writer, '=');
        put_param_part(writer, params[i].value);
    }
}

static void put_front(struct writer *writer, const larder_http_key_options *options)
{
    put_bytes(writer, options->prefix);
    if (options->group.size > 0) {
        put_separator(writer);
        put(writer, '{');
        for (size_t i = 0; i < options->group.size; i++) {
            put_except(writer, ((const char *)options->group.data)[i], "{}%");
        }
        put(writer, '}');
    }
}

static void put_method(struct writer *writer, larder_bytes method, larder_bytes user)
{
    larder_bytes name = text_is(method, "HEAD") ? text_of("GET") : method;
    put_separator(writer);
    for (size_t i = 0; i < name.size; i++) {
        put_except(writer, ((const char *)name.data)[i], specials);
    }
    put(writer, ':');
    for (size_t i = 0; i < user.size; i++) {
        put_except(writer, ((const char *)user.data)[i], specials);
    }
}

/* ---- The form by URI
 * -----------------------------------------------------------------------------
 */

static bool unreserved(char c) /* RFC 3986, 2.3 */
{
    char lower = text_lower(c);
    return (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("-._~", c) != NULL);
}

/* RFC 3986, 6.2.2.1 and 6.2.2.2: needless escapes go, needed ones in upper case. What should have
 * been escaped is. */
static void put_normal(struct writer *writer, larder_bytes text)
{
    const char *bytes = text.data;
    size_t at = 0;
    while (at < text.size) {
        size_t begin = at;
        char c = decoded(text, &at);
        bool was_escaped = at - begin == 3;
        if (was_escaped ? unreserved(c) : (c > ' ' && c < 0x7f && c != '#')) {
            put(writer, c);
        } else if (!was_escaped && bytes[begin] == '%') {
            put(writer, '%');
        } else {
            put_escaped(writer, c);
        }
    }
}

/* In lower case. */
static void put_authority(struct writer *writer, larder_bytes scheme, larder_bytes authority)
{
    authority = text_authority(authority, scheme);
    const char *bytes = authority.data;
    for (size_t i = 0; i < authority.size; i++) {
        put_except(writer, text_lower(bytes[i]), "/?#");
    }
}

static int put_uri(struct writer *writer, const larder_http_request *request, larder_bytes prefix)
{
    larder_bytes scheme = request->scheme.size > 0 ? request->scheme : text_of("http");
    larder_bytes authority = request->authority;
    if (authority.size == 0) {
        authority = headers_only(headers_of_request(request), "host");
    }
    if (authority.size == 0) {
        return error_set(LARDER_EINVAL, "a request with neither authority nor one Host header");
    }
    put_bytes(writer, prefix);
    if (prefix.size > 0) {
        put(writer, ':');
    }
    for (size_t i = 0; i < scheme.size; i++) {
        put(writer, text_lower(((const char *)scheme.data)[i]));
    }
    put_bytes(writer, text_of("://"));
    put_authority(writer, scheme, authority);
    if (request->path.size == 0 || ((const char *)request->path.data)[0] != '/') {
        put(writer, '/');
    }
    put_normal(writer, request->path);
    if (request->query.size > 0) {
        put(writer, '?');
        put_normal(writer, request->query);
    }
    return LARDER_OK;
}

/* ---------------------------------------------------------------------------------------------- */

static int put_key(struct writer *writer, const larder_http_request *request,
                   const larder_http_key_options *options, const struct param *params, size_t count)
{
    if (options->form == LARDER_HTTP_KEY_URI) {
        return put_uri(writer, request, options->prefix);
    }
    put_front(writer, options);
    if (options->form == LARDER_HTTP_KEY_METHOD) {
        put_method(writer, request->method, options->user);
    }
    put_path(writer, request->path);
    put_params(writer, params, count);
    return LARDER_OK;
}

static int check(const larder_http_request *request, const larder_http_key_options *options)
{
    static const uint64_t none[sizeof options->reserved / sizeof options->reserved[0]];
    const size_t parts[] = {options->prefix.size, options->group.size,    options->user.size,
                            request->method.size, request->path.size,     request->query.size,
                            request->scheme.size, request->authority.size};
    if (options->form > LARDER_HTTP_KEY_URI || options->reserved0 != 0 ||
        memcmp(options->reserved, none, sizeof none) != 0) {
        return error_set(LARDER_EINVAL, "unknown members of larder_http_key_options are not 0");
    }
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (parts[i] > LARDER_KEY_MAX) {
            return error_set(LARDER_ETOOBIG, "a part of a key of %zu bytes: the limit is %u",
                             parts[i], LARDER_KEY_MAX);
        }
    }
    return LARDER_OK;
}

/* The parameters stand where the key will: behind them it is written, then moved down. */
static int key_write(struct arena *memory, const larder_http_request *request,
                     const larder_http_key_options *options, size_t count, larder_bytes *key)
{
    size_t begin = memory->at;
    char *first = arena_take_text(memory, 0);
    struct param *params = arena_take(memory, count * sizeof *params);
    if (params == NULL) {
        arena_take_text(memory, 3 * (size_t)LARDER_KEY_MAX); /* how much: nobody knows yet */
        return arena_end(memory);
    }
    params_read(request->query, params, count);
    struct writer writer = {NULL, 0};
    int result = put_key(&writer, request, options, params, count);
    if (result != LARDER_OK) {
        return result;
    }
    if (writer.size == 0 || writer.size > LARDER_KEY_MAX) {
        return error_set(writer.size == 0 ? LARDER_EINVAL : LARDER_ETOOBIG,
                         "a key of %zu bytes: the limits are 1 and %u", writer.size,
                         LARDER_KEY_MAX);
    }
    writer = (struct writer){arena_take_text(memory, writer.size), 0};
    if (writer.text == NULL) {
        return arena_end(memory);
    }
    (void)put_key(&writer, request, options, params, count);
    memmove(first, writer.text, writer.size);
    *key = (larder_bytes){first, writer.size};
    memory->at = begin + writer.size;
    return arena_end(memory);
}

int larder_http_key(const larder_http_request *request, const larder_http_key_options *options,
                    larder_http_arena *arena, larder_bytes *key)
{
    int result = check(request, options);
    if (result != LARDER_OK) {
        return result;
    }
    size_t count = options->form == LARDER_HTTP_KEY_URI ? 0 : params_count(request->query);
    if (count > PARAMS_MAX) {
        return error_set(LARDER_ETOOBIG, "a query of %zu parameters: the limit is %d", count,
                         PARAMS_MAX);
    }
    struct arena memory = arena_begin(arena);
    return key_write(&memory, request, options, count, key);
}
