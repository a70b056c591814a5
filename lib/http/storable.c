/* storable.c: see storable.h.
 */
#include "http/storable.h"

#include "http/condition.h"
#include "http/credentials.h"
#include "http/freshness.h"
#include "http/headers.h"
#include "http/policy.h"
#include "http/text.h"

#define SECOND_MS INT64_C(1000)

/* Statuses whose meaning for a cache is known here (RFC 9111, 5.2.2.3). */
static bool understood(uint32_t status)
{
    return freshness_by_default(status) || status == 302 || status == 303 || status == 307;
}

/* Is the body the one that the head tells of? */
static bool whole(const larder_http_response *response)
{
    struct headers headers = headers_of_response(response);
    larder_bytes text = headers_only(headers, "content-length");
    int64_t length;
    return (response->flags & LARDER_HTTP_OPEN_ENDED) == 0 &&
           (!headers_have(headers, "content-length") ||
            (text_seconds(text, &length) && (uint64_t)length == response->body.size));
}

/* What holds under both policies. */
static uint32_t refuse(const larder_http_policy *policy, const larder_http_request *request,
                       const larder_http_response *response, const struct control *control,
                       struct vary *vary)
{
    struct headers headers = headers_of_response(response);
    struct control asked;
    control_read(headers_of_request(request), &asked);
    if (!text_is(request->method, "GET")) {
        return LARDER_HTTP_WHY_METHOD;
    }
    if (response->status < 200 || response->status > 599 || response->status == 304) {
        return LARDER_HTTP_WHY_STATUS;
    }
    if (response->status == 206 || headers_have(headers, "content-range") ||
        headers_have(headers_of_request(request), "range")) {
        return LARDER_HTTP_WHY_PARTIAL;
    }
    /* must-understand makes way for who understands (RFC 9111, 5.2.2.3) */
    bool must_understand =
        policy->kind == LARDER_HTTP_GATEWAY && (control->flags & CONTROL_MUST_UNDERSTAND) != 0;
    if (must_understand && !understood(response->status)) {
        return LARDER_HTTP_WHY_STATUS;
    }
    if ((asked.flags & CONTROL_NO_STORE) != 0 ||
        ((control->flags & CONTROL_NO_STORE) != 0 && !must_understand)) {
        return LARDER_HTTP_WHY_NO_STORE;
    }
    if (headers_have(headers, "set-cookie")) {
        return LARDER_HTTP_WHY_SET_COOKIE;
    }
    if (response->body.size > http_policy_max_body(policy) || headers_check(headers) != LARDER_OK) {
        return LARDER_HTTP_WHY_TOO_LARGE;
    }
    if (!whole(response)) {
        return LARDER_HTTP_WHY_OPEN_ENDED;
    }
    vary_read(response, vary);
    return vary->anything || vary->too_many ? LARDER_HTTP_WHY_VARY : LARDER_HTTP_WHY_NONE;
}

static uint32_t storable_route(const larder_http_policy *policy, const larder_http_request *request,
                               const larder_http_response *response, const struct control *control,
                               const larder_http_place *place, larder_http_stored *stored,
                               struct vary *vary)
{
    if (response->status > 299) {
        return LARDER_HTTP_WHY_STATUS;
    }
    bool is_private = (policy->flags & LARDER_HTTP_PRIVATE) != 0;
    if ((control->flags & CONTROL_PRIVATE) != 0 && !is_private) {
        return LARDER_HTTP_WHY_PRIVATE;
    }
    if ((control->flags & CONTROL_NO_CACHE) != 0) { /* there is nobody to revalidate with */
        return LARDER_HTTP_WHY_REVALIDATE;
    }
    stored->made_ms = place->response_ms;
    stored->lifetime_ms = policy->ttl_ms == 0 ? INT64_MAX : policy->ttl_ms;
    if (policy->expires_ms != 0) {
        stored->lifetime_ms = policy->expires_ms - stored->made_ms;
    }
    if (stored->lifetime_ms <= 0) {
        return LARDER_HTTP_WHY_NO_FRESHNESS;
    }
    stored->stale_while_revalidate_ms = policy->stale_while_revalidate_ms;
    stored->stale_if_error_ms = policy->stale_if_error_ms;
    stored->flags |= is_private ? LARDER_HTTP_STORED_PRIVATE : 0;
    if (is_private || (control->flags & CONTROL_PRIVATE) != 0) {
        stored->flags &= ~(uint32_t)LARDER_HTTP_STORED_PUBLIC;
    }
    /* each user's own, under a variant's key */
    bool may_be_one_users = (stored->flags & LARDER_HTTP_STORED_PUBLIC) == 0;
    if (may_be_one_users && (credentials_that_matter(policy) & credentials_of(request)) != 0) {
        vary_add(vary, text_of("authorization"));
        vary_add(vary, text_of("cookie"));
    }
    return vary->too_many ? LARDER_HTTP_WHY_VARY : LARDER_HTTP_WHY_NONE;
}

/* RFC 9111, 3.5, and the same for cookies, unless the origin lets them vary: what was made for a
 * request with credentials is for all only where it says so. */
static bool for_one_user(const larder_http_policy *policy, const larder_http_request *request,
                         const larder_http_stored *stored, const struct vary *vary)
{
    uint32_t matter = credentials_that_matter(policy) & credentials_of(request);
    if ((stored->flags & LARDER_HTTP_STORED_PUBLIC) != 0 || matter == 0) {
        return false;
    }
    for (size_t i = 0; i < vary->count && matter == LARDER_HTTP_STORED_COOKIE; i++) {
        if (text_is_name(vary->names[i], "cookie")) {
            return false;
        }
    }
    return true;
}

static int64_t window_ms(int64_t seconds, int64_t otherwise_ms)
{
    return seconds >= 0 ? seconds * SECOND_MS : otherwise_ms;
}

static void gateway_flags(const struct control *control, larder_http_stored *stored)
{
    if ((control->flags & CONTROL_NO_CACHE) != 0) {
        stored->flags |= LARDER_HTTP_STORED_REVALIDATE | LARDER_HTTP_STORED_NO_STALE;
    }
    if ((control->flags & (CONTROL_MUST_REVALIDATE | CONTROL_PROXY_REVALIDATE)) != 0 ||
        control->s_maxage >= 0) { /* which has the meaning of proxy-revalidate (5.2.2.10) */
        stored->flags |= LARDER_HTTP_STORED_NO_STALE;
    }
}

static uint32_t storable_gateway(const larder_http_policy *policy,
                                 const larder_http_request *request,
                                 const larder_http_response *response,
                                 const struct control *control, const larder_http_place *place,
                                 larder_http_stored *stored, const struct vary *vary)
{
    bool is_explicit, heuristic;
    if ((control->flags & CONTROL_PRIVATE) != 0) {
        return LARDER_HTTP_WHY_PRIVATE;
    }
    if (for_one_user(policy, request, stored, vary)) {
        return LARDER_HTTP_WHY_CREDENTIALS;
    }
    stored->made_ms = freshness_made(response, place);
    stored->lifetime_ms =
        freshness_lifetime(policy, response, control, place->response_ms, &is_explicit, &heuristic);
    stored->flags |= heuristic ? LARDER_HTTP_STORED_HEURISTIC : 0;
    if (!is_explicit && !freshness_by_default(response->status) &&
        (control->flags & CONTROL_PUBLIC) == 0) {
        return LARDER_HTTP_WHY_STATUS;
    }
    gateway_flags(control, stored);
    stored->stale_while_revalidate_ms =
        window_ms(control->stale_while_revalidate, policy->stale_while_revalidate_ms);
    stored->stale_if_error_ms = window_ms(control->stale_if_error, policy->stale_if_error_ms);
    bool validator = condition_etag(response).size > 0 ||
                     headers_only(headers_of_response(response), "last-modified").size > 0;
    bool usable = (stored->flags & LARDER_HTTP_STORED_REVALIDATE) == 0 &&
                  stored->made_ms + stored->lifetime_ms > place->response_ms;
    bool stale_usable = (stored->flags & LARDER_HTTP_STORED_NO_STALE) == 0 &&
                        (stored->stale_while_revalidate_ms > 0 || stored->stale_if_error_ms > 0);
    return usable || validator || stale_usable ? LARDER_HTTP_WHY_NONE
                                               : LARDER_HTTP_WHY_NO_FRESHNESS;
}

uint32_t storable(const larder_http_policy *policy, const larder_http_request *request,
                  const larder_http_response *response, const larder_http_place *place,
                  larder_http_stored *stored, struct vary *vary)
{
    struct control control;
    control_read(headers_of_response(response), &control);
    *stored = (larder_http_stored){.kind = LARDER_HTTP_RESPONSE, .flags = credentials_of(request)};
    *vary = (struct vary){.count = 0};
    if ((control.flags & CONTROL_PUBLIC) != 0 || control.s_maxage >= 0) {
        stored->flags |= LARDER_HTTP_STORED_PUBLIC;
    }
    uint32_t reason = refuse(policy, request, response, &control, vary);
    if (reason != LARDER_HTTP_WHY_NONE) {
        return reason;
    }
    return policy->kind == LARDER_HTTP_ROUTE
               ? storable_route(policy, request, response, &control, place, stored, vary)
               : storable_gateway(policy, request, response, &control, place, stored, vary);
}
