/* store.c: from a response to what is written into the map for it: the fields that are kept, an
 * entity tag, and the key: the page's own, or a variant's beside a note of what the page varies by
 * (RFC 9111, 3, 3.1 and 4.1).
 */
#include <string.h>

#include "error.h"
#include "http/arena.h"
#include "http/condition.h"
#include "http/credentials.h"
#include "http/headers.h"
#include "http/policy.h"
#include "http/storable.h"
#include "http/text.h"
#include "key.h"

#define DAY_MS INT64_C(86400000)

/* ---- What is kept of a response
 * ------------------------------------------------------------------ */

static bool kept(const larder_http_policy *policy, struct headers headers, larder_bytes name)
{
    /* Date and Age are in the time when it was made; the length is the body's */
    return !headers_hop_by_hop(headers, name) && !text_is_name(name, "content-length") &&
           !text_is_name(name, "date") && !text_is_name(name, "age") &&
           !text_is_name(name, "set-cookie") &&
           (policy->status_header.size == 0 || !text_same_name(name, policy->status_header));
}

/* The fields to be stored; a route's page without a valid entity tag gets one. */
static int fields_keep(const larder_http_policy *policy, const larder_http_response *response,
                       larder_http_arena *arena, larder_http_stored *stored)
{
    struct headers headers = headers_of_response(response);
    struct arena memory = arena_begin(arena);
    larder_http_header *fields = arena_take(&memory, (headers.count + 1) * sizeof *fields);
    char *etag = arena_take_text(&memory, LARDER_HTTP_ETAG_SIZE);
    size_t count = 0;
    bool tag_it = policy->kind == LARDER_HTTP_ROUTE && condition_etag(response).size == 0;
    if (memory.too_small) {
        return arena_end(&memory);
    }
    for (size_t i = 0; i < headers.count; i++) {
        larder_bytes name = headers.fields[i].name;
        if (kept(policy, headers, name) && !(tag_it && text_is_name(name, "etag"))) {
            fields[count++] = headers.fields[i];
        }
    }
    if (tag_it) {
        larder_http_etag(response->body, etag);
        fields[count++] = (larder_http_header){text_of("ETag"), {etag, LARDER_HTTP_ETAG_SIZE - 1}};
    }
    stored->response = (larder_http_response){.status = response->status,
                                              .headers = fields,
                                              .header_count = count,
                                              .body = response->body};
    return arena_end(&memory);
}

/* ---- Under which key, and what else
 * ----------------------------------------------------------------
 */

/* What stands at the page's own key and can be built on. */
static const larder_http_stored *foundation(const larder_http_place *place)
{
    const larder_http_stored *found = place->found;
    return found == NULL || (found->flags & LARDER_HTTP_STORED_VARIANT) != 0 ? NULL : found;
}

/* A number that the page's earlier variants did not have. */
static uint64_t new_seed(const larder_http_place *place, const larder_http_response *response)
{
    const uint64_t parts[] = {
        place->seed, (uint64_t)place->response_ms, key_hash(place->key.data, place->key.size),
        place->seed != 0 ? 0 : key_hash(response->body.data, response->body.size),
        place->found == NULL ? 0 : place->found->seed};
    return key_hash(parts, sizeof parts);
}

/* Of what varies once, the names stay, and new ones join them. */
static void vary_join_found(const larder_http_stored *found, struct vary *vary)
{
    larder_bytes names = found->vary, name;
    while (text_next(&names, &name)) {
        vary_add(vary, name);
    }
}

/* Fresh for so long, and then kept for as long as it may be served stale, or as it can be
 * revalidated. */
static larder_policy times(const larder_http_policy *policy, const larder_http_stored *stored)
{
    larder_policy result = {.expiry = larder_expire_never()};
    if (stored->lifetime_ms > INT64_MAX - DAY_MS - stored->made_ms) {
        return result;
    }
    result.expiry = larder_expire_at(stored->made_ms + stored->lifetime_ms);
    result.stale_ms = stored->stale_while_revalidate_ms > stored->stale_if_error_ms
                          ? stored->stale_while_revalidate_ms
                          : stored->stale_if_error_ms;
    if (policy->kind == LARDER_HTTP_GATEWAY && stored->kind == LARDER_HTTP_RESPONSE &&
        result.stale_ms < DAY_MS) {
        result.stale_ms = DAY_MS;
    }
    return result;
}

static int add_write(const larder_http_policy *policy, larder_bytes key,
                     const larder_http_stored *stored, larder_http_arena *arena,
                     larder_http_plan *plan)
{
    larder_http_write *write = &plan->writes[plan->write_count++];
    write->key = key;
    write->policy = times(policy, stored);
    return larder_http_encode(stored, arena, &write->value);
}

/* The note that the page varies: it outlives the variants, so that they do not begin anew with it.
 */
static int add_note(const larder_http_policy *policy, const larder_http_place *place,
                    larder_http_arena *arena, larder_http_plan *plan)
{
    const larder_http_stored *variant = &plan->stored;
    larder_http_stored note = {.kind = LARDER_HTTP_VARIANTS,
                               .made_ms = place->response_ms,
                               .lifetime_ms = INT64_MAX,
                               .vary = variant->vary,
                               .seed = variant->seed};
    if (variant->lifetime_ms < INT64_MAX / 4) {
        note.lifetime_ms = 2 * variant->lifetime_ms + DAY_MS;
    }
    return add_write(policy, place->key, &note, arena, plan);
}

/* The names as text, and whether what stands at the key already says them. */
static int names_settle(const larder_http_policy *policy, const larder_http_request *request,
                        const larder_http_place *place, struct vary *vary, larder_http_arena *arena,
                        larder_http_plan *plan, bool *noted)
{
    const larder_http_stored *found = foundation(place);
    bool is_note = found != NULL && found->kind == LARDER_HTTP_VARIANTS;
    if (is_note) {
        vary_join_found(found, vary);
    }
    if (vary->too_many) {
        plan->reason = LARDER_HTTP_WHY_VARY;
        return LARDER_SKIP;
    }
    struct arena memory = arena_begin(arena);
    larder_bytes joined = vary_join(vary, &memory);
    int result = arena_end(&memory);
    if (result != LARDER_OK) {
        return result;
    }
    plan->stored.vary = joined;
    /* a page for all keeps its place beside what is one user's: see larder_http_select() */
    *noted = (is_note && text_same(found->vary, joined)) ||
             (found != NULL && !is_note && text_is(joined, CREDENTIALS_NAMES) &&
              policy->kind == LARDER_HTTP_ROUTE && credentials_of(request) != 0);
    return LARDER_OK;
}

static int variant_write(const larder_http_policy *policy, const larder_http_request *request,
                         const larder_http_place *place, bool noted, larder_http_arena *arena,
                         larder_http_plan *plan)
{
    larder_http_stored *stored = &plan->stored;
    larder_bytes variant;
    int result = LARDER_OK;
    stored->seed = noted ? foundation(place)->seed : new_seed(place, &stored->response);
    if (!noted) {
        result = add_note(policy, place, arena, plan);
    }
    if (result != LARDER_OK) {
        return result;
    }
    stored->flags |= LARDER_HTTP_STORED_VARIANT;
    vary_digest(stored->vary, request, stored->digest);
    result = vary_key(place->key, stored->seed, stored->digest, arena, &variant);
    return result == LARDER_OK ? add_write(policy, variant, stored, arena, plan) : result;
}

static int plan_make(const larder_http_policy *policy, const larder_http_request *request,
                     const larder_http_response *response, const larder_http_place *place,
                     struct vary *vary, larder_http_arena *arena, larder_http_plan *plan)
{
    bool noted = false;
    int result = fields_keep(policy, response, arena, &plan->stored);
    if (result == LARDER_OK) {
        result = names_settle(policy, request, place, vary, arena, plan, &noted);
    }
    if (result != LARDER_OK) {
        return result;
    }
    if (plan->stored.vary.size > 0) {
        return variant_write(policy, request, place, noted, arena, plan);
    }
    const larder_http_stored *found = foundation(place);
    plan->stored.seed = found != NULL ? found->seed : new_seed(place, response);
    return add_write(policy, place->key, &plan->stored, arena, plan);
}

/* How much memory is enough, where it was not. */
static void wanted(const larder_http_response *response, const larder_http_place *place,
                   larder_http_arena *arena)
{
    struct headers headers = headers_of_response(response);
    size_t size = arena->used + response->body.size + 2 * place->key.size + 4096;
    for (size_t i = 0; i < headers.count; i++) {
        size += headers.fields[i].name.size + headers.fields[i].value.size +
                2 * sizeof headers.fields[i];
    }
    arena->wanted = size;
}

static int place_check(const larder_http_place *place)
{
    static const uint64_t none[sizeof place->reserved / sizeof place->reserved[0]];
    if (place->key.size == 0 || place->request_ms < 0 || place->response_ms < 0 ||
        memcmp(place->reserved, none, sizeof none) != 0) {
        return error_set(LARDER_EINVAL, "larder_http_place without key, with a negative time or "
                                        "with unknown members that are not 0");
    }
    return LARDER_OK;
}

int larder_http_store(const larder_http_policy *policy, const larder_http_request *request,
                      const larder_http_response *response, const larder_http_place *place,
                      larder_http_arena *arena, larder_http_plan *plan)
{
    struct vary vary;
    size_t used = arena->used;
    int result = http_policy_check(policy);
    *plan = (larder_http_plan){.write_count = 0};
    if (result == LARDER_OK) {
        result = place_check(place);
    }
    if (result != LARDER_OK) {
        return result;
    }
    plan->reason = storable(policy, request, response, place, &plan->stored, &vary);
    result = plan->reason == LARDER_HTTP_WHY_NONE
                 ? plan_make(policy, request, response, place, &vary, arena, plan)
                 : LARDER_SKIP;
    if (result != LARDER_OK) {
        arena->used = used;
        plan->write_count = 0;
        plan->stored = (larder_http_stored){.kind = 0};
    }
    if (result == LARDER_ESIZE) {
        wanted(response, place, arena);
    }
    return result;
}
