/* messages.c: see messages.h.
 */
#include "tests/http/messages.h"

#include <stdlib.h>
#include <string.h>

enum { RING = 8, FIELDS = 64 };

larder_bytes message_text(const char *text)
{
    return (larder_bytes){text, text == NULL ? 0 : strlen(text)};
}

static const larder_http_header *fields_of(const char *text, size_t *count)
{
    static larder_http_header ring[RING][FIELDS];
    static unsigned next;
    larder_http_header *fields = ring[next++ % RING];
    *count = 0;
    while (text != NULL && *text != '\0') {
        const char *end = strchrnul(text, '\n'), *colon = memchr(text, ':', (size_t)(end - text));
        if (colon == NULL || *count == FIELDS) {
            abort();
        }
        const char *value = colon + 1;
        while (*value == ' ') {
            value++;
        }
        fields[(*count)++] =
            (larder_http_header){{text, (size_t)(colon - text)}, {value, (size_t)(end - value)}};
        text = *end == '\0' ? end : end + 1;
    }
    return fields;
}

larder_http_request message_request(const char *line, const char *headers)
{
    larder_http_request request = {.method = {line, 0}};
    const char *space = strchr(line, ' ');
    if (space == NULL) {
        abort();
    }
    const char *path = space + 1, *query = strchrnul(path, '?');
    request.method.size = (size_t)(space - line);
    request.path = (larder_bytes){path, (size_t)(query - path)};
    request.query = message_text(*query == '?' ? query + 1 : NULL);
    request.headers = fields_of(headers, &request.header_count);
    return request;
}

larder_http_response message_response(uint32_t status, const char *headers, const char *body)
{
    larder_http_response response = {.status = status, .body = message_text(body)};
    response.headers = fields_of(headers, &response.header_count);
    return response;
}

larder_http_arena *message_arena(void)
{
    static uint64_t memory[8192];
    static larder_http_arena arena;
    arena = (larder_http_arena){.data = memory, .size = sizeof memory};
    return &arena;
}
