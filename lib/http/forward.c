/* forward.c: the header fields with which a gateway asks the origin (RFC 9110, 7.6.1; RFC 9111,
 * 4.3.1).
 */
#include "http/arena.h"
#include "http/condition.h"
#include "http/headers.h"
#include "http/text.h"

int larder_http_forward(const larder_http_policy *policy, const larder_http_request *request,
                        const larder_http_stored *stored, larder_http_arena *arena,
                        const larder_http_header **headers, size_t *header_count)
{
    struct headers asked = headers_of_request(request);
    int kind = larder_http_classify(policy, request);
    if (kind < 0) {
        return kind;
    }
    struct arena memory = arena_begin(arena);
    larder_http_header *fields = arena_take(&memory, (asked.count + 2) * sizeof *fields);
    size_t count = 0;
    if (memory.too_small) {
        return arena_end(&memory);
    }
    for (size_t i = 0; i < asked.count; i++) {
        larder_bytes name = asked.fields[i].name;
        bool condition =
            text_is_name(name, "if-none-match") || text_is_name(name, "if-modified-since");
        /* what is looked up is asked for without a body */
        bool body = text_is_name(name, "content-length") || text_is_name(name, "expect");
        /* the whole page is wanted; the client's conditions are judged by what comes */
        if (!headers_hop_by_hop(asked, name) &&
            !((condition || body) && kind == LARDER_HTTP_LOOKUP)) {
            fields[count++] = asked.fields[i];
        }
    }
    if (stored != NULL && kind == LARDER_HTTP_LOOKUP) {
        larder_bytes etag = condition_etag(&stored->response);
        larder_bytes modified =
            headers_only(headers_of_response(&stored->response), "last-modified");
        if (etag.size > 0) {
            fields[count++] = (larder_http_header){text_of("If-None-Match"), etag};
        }
        if (modified.size > 0) {
            fields[count++] = (larder_http_header){text_of("If-Modified-Since"), modified};
        }
    }
    *headers = fields;
    *header_count = count;
    return arena_end(&memory);
}
