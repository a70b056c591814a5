/* headers.c: see headers.h.
 */
#include "http/headers.h"

#include <string.h>

#include "error.h"
#include "http/text.h"

struct headers headers_of_request(const larder_http_request *request)
{
    return (struct headers){request->headers, request->header_count};
}

struct headers headers_of_response(const larder_http_response *response)
{
    return (struct headers){response->headers, response->header_count};
}

static bool value_valid(larder_bytes value)
{
    const char *bytes = value.data;
    for (size_t i = 0; i < value.size; i++) {
        if (bytes[i] == '\r' || bytes[i] == '\n' || bytes[i] == '\0') {
            return false;
        }
    }
    return true;
}

int headers_check(struct headers headers)
{
    size_t size = 0;
    if (headers.count > LARDER_HTTP_HEADERS_MAX) {
        return error_set(LARDER_ETOOBIG, "%zu header fields: the limit is %u", headers.count,
                         LARDER_HTTP_HEADERS_MAX);
    }
    for (size_t i = 0; i < headers.count; i++) {
        const larder_http_header *field = &headers.fields[i];
        if (field->name.size > LARDER_HTTP_HEAD_MAX - size ||
            field->value.size > LARDER_HTTP_HEAD_MAX - size - field->name.size) {
            return error_set(LARDER_ETOOBIG, "header fields of more than %u bytes",
                             LARDER_HTTP_HEAD_MAX);
        }
        size += field->name.size + field->value.size;
        if (!text_is_token(field->name) || !value_valid(field->value)) {
            return error_set(LARDER_EINVAL, "header field %zu is not valid", i);
        }
    }
    return LARDER_OK;
}

const larder_http_header *headers_next(struct headers headers, const char *lower_case, size_t *at)
{
    while (*at < headers.count) {
        const larder_http_header *field = headers.fields + (*at)++;
        if (text_is_name(field->name, lower_case)) {
            return field;
        }
    }
    return NULL;
}

larder_bytes headers_only(struct headers headers, const char *lower_case)
{
    static const larder_bytes none;
    size_t at = 0;
    const larder_http_header *field = headers_next(headers, lower_case, &at);
    return field == NULL || headers_next(headers, lower_case, &at) != NULL
               ? none
               : text_trim(field->value);
}

larder_bytes headers_first(struct headers headers, const char *lower_case)
{
    static const larder_bytes none;
    size_t at = 0;
    const larder_http_header *field = headers_next(headers, lower_case, &at);
    return field == NULL ? none : text_trim(field->value);
}

bool headers_have(struct headers headers, const char *lower_case)
{
    size_t at = 0;
    return headers_next(headers, lower_case, &at) != NULL;
}

bool headers_list_has(struct headers headers, const char *lower_case, larder_bytes element)
{
    size_t at = 0;
    const larder_http_header *field;
    while ((field = headers_next(headers, lower_case, &at)) != NULL) {
        larder_bytes list = field->value, found;
        while (text_next(&list, &found)) {
            if (text_same_name(found, element)) {
                return true;
            }
        }
    }
    return false;
}

static bool name_among(larder_bytes name, const char *const *lower_case, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (text_is_name(name, lower_case[i])) {
            return true;
        }
    }
    return false;
}

static bool always_hop_by_hop(larder_bytes name)
{
    static const char *const names[] = {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "proxy-authentication-info",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    };
    return name_among(name, names, sizeof names / sizeof names[0]);
}

/* Without these the message would be another one, whatever Connection says of them. */
static bool never_hop_by_hop(larder_bytes name)
{
    static const char *const names[] = {"host", "content-length", "authorization", "cookie"};
    return name_among(name, names, sizeof names / sizeof names[0]);
}

bool headers_hop_by_hop(struct headers headers, larder_bytes name)
{
    return always_hop_by_hop(name) ||
           (!never_hop_by_hop(name) && headers_list_has(headers, "connection", name));
}

bool headers_nominate(struct headers headers)
{
    size_t at = 0;
    const larder_http_header *field;
    while ((field = headers_next(headers, "connection", &at)) != NULL) {
        larder_bytes list = field->value, option;
        while (text_next(&list, &option)) {
            if (!text_is_name(option, "close") && !always_hop_by_hop(option)) {
                return true;
            }
        }
    }
    return false;
}

/* ---- Cache-Control ------------------------------------------------------------------------------
 */

static const struct {
    const char *name;
    uint32_t flag;
} flags[] = {
    {"no-cache", CONTROL_NO_CACHE},
    {"no-store", CONTROL_NO_STORE},
    {"no-transform", CONTROL_NO_TRANSFORM},
    {"only-if-cached", CONTROL_ONLY_IF_CACHED},
    {"must-revalidate", CONTROL_MUST_REVALIDATE},
    {"proxy-revalidate", CONTROL_PROXY_REVALIDATE},
    {"must-understand", CONTROL_MUST_UNDERSTAND},
    {"private", CONTROL_PRIVATE},
    {"public", CONTROL_PUBLIC},
};

/* One of several that differ, or one that is no number, makes the response stale (RFC 9111, 4.2.1:
 * "encouraged to consider responses that have invalid freshness information to be stale"). */
static void age_read(struct control *control, int64_t *age, larder_bytes argument)
{
    int64_t seconds;
    if (!text_seconds(argument, &seconds) || (*age >= 0 && *age != seconds)) {
        control->bad_age = true;
        return;
    }
    *age = seconds;
}

static void seconds_read(int64_t *value, larder_bytes argument)
{
    int64_t seconds;
    if (text_seconds(argument, &seconds)) {
        *value = seconds;
    }
}

static void directive_read(struct control *control, larder_bytes name, larder_bytes argument)
{
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        /* no-cache="field" and private="field" are taken as if they named no field: that is
         * stricter (RFC 9111, 5.2.2.4 and 5.2.2.7) */
        if (text_is_name(name, flags[i].name)) {
            control->flags |= flags[i].flag;
            return;
        }
    }
    if (text_is_name(name, "max-age")) {
        age_read(control, &control->max_age, argument);
    } else if (text_is_name(name, "s-maxage")) {
        age_read(control, &control->s_maxage, argument);
    } else if (text_is_name(name, "max-stale")) {
        if (argument.data == NULL) {
            control->flags |= CONTROL_MAX_STALE_ANY;
        }
        seconds_read(&control->max_stale, argument);
    } else if (text_is_name(name, "min-fresh")) {
        seconds_read(&control->min_fresh, argument);
    } else if (text_is_name(name, "stale-while-revalidate")) {
        seconds_read(&control->stale_while_revalidate, argument);
    } else if (text_is_name(name, "stale-if-error")) {
        seconds_read(&control->stale_if_error, argument);
    }
}

void control_read(struct headers headers, struct control *control)
{
    *control = (struct control){.max_age = -1,
                                .s_maxage = -1,
                                .max_stale = -1,
                                .min_fresh = -1,
                                .stale_while_revalidate = -1,
                                .stale_if_error = -1};
    size_t at = 0;
    const larder_http_header *field;
    while ((field = headers_next(headers, "cache-control", &at)) != NULL) {
        larder_bytes list = field->value, element;
        control->flags |= CONTROL_PRESENT;
        while (text_next(&list, &element)) {
            const char *begin = element.data, *equals = memchr(begin, '=', element.size);
            larder_bytes argument = {NULL, 0};
            if (equals != NULL) {
                argument = text_trim(
                    (larder_bytes){equals + 1, element.size - (size_t)(equals - begin) - 1});
                element = text_trim((larder_bytes){begin, (size_t)(equals - begin)});
            }
            directive_read(control, element, argument);
        }
    }
    /* Pragma: no-cache of a client that knows no Cache-Control (RFC 9111, 5.4) */
    if ((control->flags & CONTROL_PRESENT) == 0 &&
        headers_list_has(headers, "pragma", text_of("no-cache"))) {
        control->flags |= CONTROL_NO_CACHE;
    }
}
