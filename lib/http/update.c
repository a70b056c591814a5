/* update.c: what a 304 says of a stored response (RFC 9111, 3.2 and 4.3.4).
 */
#include "error.h"
#include "http/arena.h"
#include "http/condition.h"
#include "http/headers.h"
#include "http/text.h"

/* Fields that say how the stored bytes are to be read stay with those. */
static bool replaceable(struct headers headers, larder_bytes name)
{
    return !headers_hop_by_hop(headers, name) && !text_is_name(name, "content-encoding") &&
           !text_is_name(name, "content-length") && !text_is_name(name, "content-range") &&
           !text_is_name(name, "content-type");
}

static bool has_name(struct headers headers, larder_bytes name)
{
    for (size_t i = 0; i < headers.count; i++) {
        if (text_same_name(headers.fields[i].name, name)) {
            return true;
        }
    }
    return false;
}

static bool is_weak(larder_bytes tag)
{
    return ((const char *)tag.data)[0] == 'W';
}

/* Is it this response that the 304 speaks of? (RFC 9111, 4.3.4) A strong validator in it names
 * those that have the same one, and no others. A weak one those that it corresponds to: an entity
 * tag by weak comparison, a Last-Modified by its bytes. Where it has none at all, it answers the
 * conditions that were sent, which were this response's; an origin whose answers have entity tags
 * does send one (RFC 9110, 15.4.5), so that such a 304 is no word on a response that has one. */
static bool speaks_of(const larder_http_response *response, const larder_http_response *stored)
{
    larder_bytes tag = condition_etag(response), known = condition_etag(stored);
    larder_bytes modified = headers_only(headers_of_response(response), "last-modified");
    if (tag.size > 0) {
        return known.size > 0 &&
               (is_weak(tag) ? condition_same_weakly(tag, known) : text_same(tag, known));
    }
    if (modified.size > 0) {
        return text_same(modified, headers_only(headers_of_response(stored), "last-modified"));
    }
    return known.size == 0;
}

static int merge(const larder_http_stored *stored, const larder_http_response *response,
                 larder_http_arena *arena, larder_http_response *merged)
{
    struct headers old = headers_of_response(&stored->response),
                   new = headers_of_response(response);
    struct arena memory = arena_begin(arena);
    larder_http_header *fields = arena_take(&memory, (old.count + new.count) * sizeof *fields);
    size_t count = 0;
    if (memory.too_small) {
        return arena_end(&memory);
    }
    for (size_t i = 0; i < old.count; i++) {
        larder_bytes name = old.fields[i].name;
        if (!(replaceable(new, name) && has_name(new, name))) {
            fields[count++] = old.fields[i];
        }
    }
    for (size_t i = 0; i < new.count; i++) {
        if (replaceable(new, new.fields[i].name)) {
            fields[count++] = new.fields[i];
        }
    }
    *merged = stored->response;
    merged->headers = fields;
    merged->header_count = count;
    return arena_end(&memory);
}

int larder_http_update(const larder_http_policy *policy, const larder_http_request *request,
                       const larder_http_stored *stored, const larder_http_response *response,
                       const larder_http_place *place, larder_http_arena *arena,
                       larder_http_plan *plan)
{
    larder_http_response merged;
    size_t used = arena->used;
    *plan = (larder_http_plan){.write_count = 0};
    if (response->status != 304 || stored->kind != LARDER_HTTP_RESPONSE) {
        return error_set(LARDER_EINVAL, "only a 304 updates, and only a stored response");
    }
    if (!speaks_of(response, &stored->response)) {
        return LARDER_CONFLICT;
    }
    int result = merge(stored, response, arena, &merged);
    if (result == LARDER_OK) {
        result = larder_http_store(policy, request, &merged, place, arena, plan);
    }
    if (result == LARDER_SKIP) { /* for this client alone */
        plan->stored.response = merged;
    }
    if (result == LARDER_ESIZE) {
        arena->used = used;
        arena->wanted += (LARDER_HTTP_HEADERS_MAX * 2) * sizeof(larder_http_header);
    }
    return result;
}
