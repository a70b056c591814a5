/* incoming.c: what a client asked for, copied (a renewal may outlive its client) and looked
 * through: a request that could be read in two ways, or that no server may answer (RFC
 * 9112, 3.2, 5.1, 6.1 and 6.3), is refused and its connection closed, so that nothing behind it is
 * taken for a request.
 */
#include <event2/http.h>
#include <event2/http_struct.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "examples/exchange.h"
#include "examples/fields.h"

static const char *method_name(enum evhttp_cmd_type method)
{
    switch (method) {
    case EVHTTP_REQ_GET:
        return "GET";
    case EVHTTP_REQ_HEAD:
        return "HEAD";
    case EVHTTP_REQ_POST:
        return "POST";
    case EVHTTP_REQ_PUT:
        return "PUT";
    case EVHTTP_REQ_DELETE:
        return "DELETE";
    case EVHTTP_REQ_PATCH:
        return "PATCH";
    default:
        return "OPTIONS";
    }
}

static bool keep(exchange *self, larder_bytes *text)
{
    char *copy = exchange_take(self, text->size + 1);
    if (copy == NULL)
        return false;
    memcpy(copy, text->data, text->size);
    copy[text->size] = '\0';
    text->data = copy;
    return true;
}

/* A copy of the fields. NULL, or what is wrong with them. */
static const char *read_fields(exchange *self)
{
    static const char no_memory[] = "Too many header fields.\n";
    larder_http_header *fields = exchange_take(self, LARDER_HTTP_HEADERS_MAX * sizeof *fields);
    size_t count = 0;
    bool spaced = false;
    if (fields == NULL)
        return no_memory;
    const char *wrong =
        fields_read(evhttp_request_get_input_headers(self->client), fields, &count, &spaced);
    if (wrong != NULL || spaced)
        return "A header field has a name that is none.\n";
    for (size_t i = 0; i < count; i++) {
        if (!keep(self, &fields[i].name) || !keep(self, &fields[i].value))
            return no_memory;
    }
    self->request.headers = fields;
    self->request.header_count = count;
    return NULL;
}

/* "http://AUTHORITY/PATH": the authority is that of the target, whatever Host says (RFC 9112,
 * 3.2.2). */
static bool read_absolute(exchange *self, larder_bytes *target)
{
    static const char scheme[] = "http://";
    const char *text = target->data;
    if (strncasecmp(text, scheme, sizeof scheme - 1) != 0)
        return false;
    larder_bytes authority = {text + sizeof scheme - 1, strcspn(text + sizeof scheme - 1, "/?#")};
    if (authority.size == 0 || memchr(authority.data, '@', authority.size) != NULL)
        return false;
    text = (const char *)authority.data + authority.size;
    *target = (larder_bytes){text, strlen(text)};
    self->request.authority = authority;
    larder_http_header *fields = (larder_http_header *)(uintptr_t)self->request.headers;
    for (size_t i = 0; i < self->request.header_count; i++) {
        if (fields_named(&fields[i], "Host"))
            fields[i].value = authority;
    }
    return true;
}

/* What a URI is written in (RFC 3986, 2). A space ends the target (RFC 9112, 3), though libevent
 * looks for the last one: what stands behind it would be the key's and not the origin's. */
static bool is_written_right(const larder_bytes *target)
{
    const unsigned char *text = target->data;
    for (size_t i = 0; i < target->size; i++) {
        if (text[i] <= ' ' || text[i] > '~')
            return false;
    }
    return target->size > 0;
}

static bool read_target(exchange *self)
{
    const char *uri = evhttp_request_get_uri(self->client);
    if (uri == NULL)
        return false;
    larder_bytes target = {uri, strlen(uri)};
    if (!is_written_right(&target) || !keep(self, &target))
        return false;
    uri = target.data;
    bool all = self->method == EVHTTP_REQ_OPTIONS && strcmp(uri, "*") == 0; /* RFC 9112, 3.2.4 */
    if (uri[0] != '/' && !all && !read_absolute(self, &target))
        return false;
    target.size = strcspn(target.data, "#");
    const char *mark = memchr(target.data, '?', target.size);
    size_t path_size = mark == NULL ? target.size : (size_t)(mark - (const char *)target.data);
    self->request.path = (larder_bytes){target.data, path_size};
    if (path_size == 0)
        self->request.path = (larder_bytes){"/", 1};
    if (mark != NULL)
        self->request.query = (larder_bytes){mark + 1, target.size - path_size - 1};
    return true;
}

static bool has_one_host(const exchange *self)
{
    size_t hosts = 0;
    for (size_t i = 0; i < self->request.header_count; i++)
        hosts += fields_named(&self->request.headers[i], "Host");
    bool old = self->client->major == 1 && self->client->minor == 0;
    return hosts == 1 || (old && hosts == 0);
}

/* RFC 9110, 7.6.2: who may pass it on no further answers himself; false: he did. */
bool incoming_goes_on(exchange *self)
{
    static const larder_http_header allow = {{"Allow", 5},
                                             {"GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS", 44}};
    if (self->method != EVHTTP_REQ_OPTIONS)
        return true;
    for (size_t i = 0; i < self->request.header_count; i++) {
        larder_http_header *field = (larder_http_header *)(uintptr_t)&self->request.headers[i];
        char *text = (char *)(uintptr_t)field->value.data, *end;
        if (!fields_named(field, "Max-Forwards") || text[0] < '0' || text[0] > '9')
            continue;
        unsigned long left = strtoul(text, &end, 10);
        if (*end != '\0' || left > INT32_MAX)
            continue;
        if (left == 0) {
            larder_http_response answer = {.status = 204, .headers = &allow, .header_count = 1};
            client_answer(self, &answer);
            return false;
        }
        snprintf(text, field->value.size + 1, "%lu", left - 1); /* is never longer */
        field->value.size = strlen(text);
    }
    return true;
}

int incoming_read(exchange *self, const char **why)
{
    const char *method = method_name(self->method);
    self->request = (larder_http_request){.method = {method, strlen(method)}};
    *why = read_fields(self);
    if (*why != NULL)
        return 400;
    struct framing framing = fields_framing(self->request.headers, self->request.header_count);
    *why = "It can be read in two ways where this request ends.\n";
    if (framing.faulty || (framing.length && (framing.chunked || framing.coding)) ||
        ((framing.chunked || framing.coding) && self->client->minor == 0))
        return 400;
    *why = "Of transfer codings only chunked is known.\n";
    if (framing.coding)
        return 501;
    *why = "HEAD has no body.\n"; /* libevent takes it for the next request */
    if (self->method == EVHTTP_REQ_HEAD && framing.has_body)
        return 400;
    *why = "A request has one Host.\n";
    if (!has_one_host(self))
        return 400;
    *why = "The target is no path and no http: URI.\n";
    return read_target(self) ? 0 : 400;
}
