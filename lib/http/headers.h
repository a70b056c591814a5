/* headers.h: header sections: found fields, their limits, and which fields end at each hop and are
 * therefore neither stored nor sent on (RFC 9110, 7.6.1). And Cache-Control, read once into a
 * struct.
 */
#ifndef LARDER_LIB_HTTP_HEADERS_H
#define LARDER_LIB_HTTP_HEADERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "larder_http.h"

struct headers {
    const larder_http_header *fields;
    size_t count;
};

struct headers headers_of_request(const larder_http_request *request);
struct headers headers_of_response(const larder_http_response *response);

/* No more fields and bytes than the limits say, names that are tokens, values without CR, LF and
 * NUL (RFC 9110, 5.1 and 5.5). LARDER_OK, ETOOBIG or EINVAL. */
int headers_check(struct headers headers);

/* The first field of that name at or behind *at; *at then stands behind it. NULL: none. */
const larder_http_header *headers_next(struct headers headers, const char *lower_case, size_t *at);

/* The only field of that name: its value. Several or none: a value of NULL, 0. */
larder_bytes headers_only(struct headers headers, const char *lower_case);
larder_bytes headers_first(struct headers headers, const char *lower_case);
bool headers_have(struct headers headers, const char *lower_case);

/* Does a list field (all fields of that name together) have the element, without regard to case? */
bool headers_list_has(struct headers headers, const char *lower_case, larder_bytes element);

/* Connection and what it names but Host, Content-Length, Authorization and Cookie; Keep-Alive,
 * Proxy-*, TE, Trailer, Transfer-Encoding, Upgrade. */
bool headers_hop_by_hop(struct headers headers, larder_bytes name);

/* Does Connection name fields that are not of one hop in every message? */
bool headers_nominate(struct headers headers);

/* ---- Cache-Control (RFC 9111, 5.2; RFC 5861) ----------------------------------------------------
 * Seconds of -1: the directive is not there, or garbage. */

enum {
    CONTROL_NO_CACHE = 1u << 0,
    CONTROL_NO_STORE = 1u << 1,
    CONTROL_NO_TRANSFORM = 1u << 2,
    CONTROL_ONLY_IF_CACHED = 1u << 3,
    CONTROL_MUST_REVALIDATE = 1u << 4,
    CONTROL_PROXY_REVALIDATE = 1u << 5,
    CONTROL_MUST_UNDERSTAND = 1u << 6,
    CONTROL_PRIVATE = 1u << 7,
    CONTROL_PUBLIC = 1u << 8,
    CONTROL_MAX_STALE_ANY = 1u << 9, /* max-stale without a number */
    CONTROL_PRESENT = 1u << 10       /* there is a Cache-Control field, whatever it says */
};

struct control {
    uint32_t flags;
    int64_t max_age, s_maxage, max_stale, min_fresh, stale_while_revalidate, stale_if_error;
    bool bad_age; /* max-age or s-maxage with garbage, or several that differ */
};

void control_read(struct headers headers, struct control *control);

#endif
