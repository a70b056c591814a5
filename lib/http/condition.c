/* condition.c: see condition.h.
 */
#include "http/condition.h"

#include <string.h>

#include "http/headers.h"
#include "http/text.h"
#include "key.h"

void larder_http_etag(larder_bytes body, char *text)
{
    static const char digits[] = "0123456789abcdef";
    uint64_t
        hash[2]; /* low half first: written as one number, so that byte order does not matter */
    key_hash_wide(body.data, body.size, hash);
    *text++ = 'W';
    *text++ = '/';
    *text++ = '"';
    for (int half = 1; half >= 0; half--) {
        for (int shift = 60; shift >= 0; shift -= 4) {
            *text++ = digits[hash[half] >> shift & 15];
        }
    }
    *text++ = '"';
    *text = '\0';
}

/* Take an entity tag off the front; there are no escapes in it. false: there is none. */
static bool etag_next(larder_bytes *text, larder_bytes *etag)
{
    const char *bytes = text->data;
    size_t at = text->size >= 2 && bytes[0] == 'W' && bytes[1] == '/' ? 2 : 0;
    if (at == text->size || bytes[at] != '"') {
        return false;
    }
    for (at++; at < text->size && bytes[at] != '"'; at++) {
        unsigned char c = (unsigned char)bytes[at];
        if (c <= ' ' || c == 0x7f) {
            return false;
        }
    }
    if (at == text->size) {
        return false;
    }
    *etag = (larder_bytes){bytes, at + 1};
    *text = (larder_bytes){bytes + at + 1, text->size - at - 1};
    return true;
}

bool condition_etag_valid(larder_bytes etag)
{
    larder_bytes whole;
    return etag_next(&etag, &whole) && etag.size == 0;
}

larder_bytes condition_etag(const larder_http_response *response)
{
    static const larder_bytes none;
    larder_bytes etag = headers_only(headers_of_response(response), "etag");
    return condition_etag_valid(etag) ? etag : none;
}

static larder_bytes opaque(larder_bytes etag)
{
    const char *bytes = etag.data;
    return bytes[0] == 'W' ? (larder_bytes){bytes + 2, etag.size - 2} : etag;
}

bool condition_same_weakly(larder_bytes a, larder_bytes b)
{
    return text_same(opaque(a), opaque(b));
}

/* If-None-Match: "*" or a list; compared weakly (RFC 9110, 13.1.2). What cannot be read ends the
 * list: the full answer is never wrong. */
static bool list_matches(larder_bytes list, larder_bytes etag)
{
    larder_bytes found;
    if (text_is(list, "*")) {
        return true;
    }
    for (;;) {
        while (list.size > 0 && strchr(" \t,", ((const char *)list.data)[0]) != NULL) {
            list = (larder_bytes){(const char *)list.data + 1, list.size - 1};
        }
        if (!etag_next(&list, &found)) {
            return false;
        }
        if (etag.size > 0 && condition_same_weakly(found, etag)) {
            return true;
        }
    }
}

static bool not_modified_since(larder_bytes since, const larder_http_response *response,
                               int64_t made_ms)
{
    larder_bytes modified = headers_only(headers_of_response(response), "last-modified");
    int64_t since_ms, modified_ms;
    if (larder_http_date_read(since, made_ms, &since_ms) != LARDER_OK) {
        return false;
    }
    if (modified.size == 0 || larder_http_date_read(modified, made_ms, &modified_ms) != LARDER_OK) {
        modified_ms = made_ms; /* RFC 9111, 4.3.2 */
    }
    return modified_ms <= since_ms;
}

bool condition_not_modified(const larder_http_request *request,
                            const larder_http_response *response, int64_t made_ms)
{
    struct headers headers = headers_of_request(request);
    if (response->status != 200 ||
        (!text_is(request->method, "GET") && !text_is(request->method, "HEAD"))) {
        return false;
    }
    if (headers_have(headers, "if-none-match")) { /* outranks If-Modified-Since (13.2.2) */
        size_t at = 0;
        const larder_http_header *field;
        larder_bytes etag = condition_etag(response);
        while ((field = headers_next(headers, "if-none-match", &at)) != NULL) {
            if (list_matches(text_trim(field->value), etag)) {
                return true;
            }
        }
        return false;
    }
    larder_bytes since = headers_only(headers, "if-modified-since");
    return since.size > 0 && not_modified_since(since, response, made_ms);
}
