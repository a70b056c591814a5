/* invalidate.c: what an unsafe request makes old (RFC 9111, 4.4).
 */
#include <string.h>

#include "http/headers.h"
#include "http/text.h"

static bool unsafe(larder_bytes method)
{
    return !text_is(method, "GET") && !text_is(method, "HEAD") && !text_is(method, "OPTIONS") &&
           !text_is(method, "TRACE");
}

static larder_bytes cut(larder_bytes text, size_t from)
{
    return (larder_bytes){(const char *)text.data + from, text.size - from};
}

static size_t find(larder_bytes text, const char *any)
{
    size_t at = 0;
    while (at < text.size && strchr(any, ((const char *)text.data)[at]) == NULL) {
        at++;
    }
    return at;
}

/* Take "scheme://authority" off; false: another origin than the request's. */
static bool same_origin(const larder_http_request *request, larder_bytes *uri)
{
    larder_bytes scheme = request->scheme.size > 0 ? request->scheme : text_of("http");
    larder_bytes authority = request->authority;
    if (authority.size == 0) {
        authority = headers_only(headers_of_request(request), "host");
    }
    if (uri->size <= scheme.size + 3 ||
        !text_same_name((larder_bytes){uri->data, scheme.size}, scheme) ||
        memcmp((const char *)uri->data + scheme.size, "://", 3) != 0) {
        return false;
    }
    larder_bytes rest = cut(*uri, scheme.size + 3);
    size_t end = find(rest, "/?#");
    *uri = cut(rest, end);
    return authority.size > 0 &&
           text_same_name(text_authority((larder_bytes){rest.data, end}, scheme),
                          text_authority(authority, scheme));
}

/* The request for what a Location or Content-Location names; false: not of this origin, or not to
 * be understood without a base. */
static bool locate(const larder_http_request *request, larder_bytes uri, larder_http_request *named)
{
    bool absolute_path = uri.size > 0 && ((const char *)uri.data)[0] == '/' &&
                         (uri.size < 2 || ((const char *)uri.data)[1] != '/');
    if (!absolute_path && !same_origin(request, &uri)) {
        return false;
    }
    uri.size = find(uri, "#");
    size_t path_end = find(uri, "?");
    named->path = (larder_bytes){uri.data, path_end};
    named->query = path_end < uri.size ? cut(uri, path_end + 1) : (larder_bytes){"", 0};
    return true;
}

int larder_http_invalidates(const larder_http_request *request,
                            const larder_http_response *response,
                            const larder_http_key_options *options, larder_http_arena *arena,
                            larder_bytes *keys, size_t *key_count)
{
    static const char *const names[] = {"location", "content-location"};
    larder_http_request named = *request;
    *key_count = 0;
    if (!unsafe(request->method) || response->status < 200 || response->status > 399) {
        return LARDER_OK;
    }
    named.method = text_of("GET");
    size_t used = arena->used;
    int result = larder_http_key(&named, options, arena, &keys[0]);
    *key_count = result == LARDER_OK;
    for (size_t i = 0; result == LARDER_OK && i < sizeof names / sizeof names[0]; i++) {
        larder_bytes uri = headers_only(headers_of_response(response), names[i]);
        if (uri.size > 0 && locate(request, uri, &named)) {
            result = larder_http_key(&named, options, arena, &keys[*key_count]);
            *key_count += result == LARDER_OK;
        }
    }
    if (result == LARDER_ESIZE) {
        arena->used = used;
        arena->wanted += 3 * (size_t)LARDER_KEY_MAX;
        *key_count = 0;
    }
    return result == LARDER_ESIZE ? result : LARDER_OK; /* what has no key is not stored */
}
