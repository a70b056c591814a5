/* classify.c: what a request is to the cache, before anything is looked up; and the checks of a
 * policy.
 */
#include <string.h>

#include "error.h"
#include "http/headers.h"
#include "http/policy.h"
#include "http/text.h"

int http_policy_check(const larder_http_policy *policy)
{
    static const uint64_t none[sizeof policy->reserved / sizeof policy->reserved[0]];
    const uint32_t known = LARDER_HTTP_PRIVATE | LARDER_HTTP_SHARED | LARDER_HTTP_NO_HEURISTIC;
    if (policy->kind > LARDER_HTTP_GATEWAY || (policy->flags & ~known) != 0 ||
        memcmp(policy->reserved, none, sizeof none) != 0) {
        return error_set(LARDER_EINVAL, "unknown members or flags of larder_http_policy are not 0");
    }
    if (policy->ttl_ms < 0 || policy->expires_ms < 0 || policy->stale_while_revalidate_ms < 0 ||
        policy->stale_if_error_ms < 0 || policy->heuristic_max_ms < 0) {
        return error_set(LARDER_EINVAL, "a time of larder_http_policy is negative");
    }
    if ((policy->flags & LARDER_HTTP_PRIVATE) != 0 &&
        ((policy->flags & LARDER_HTTP_SHARED) != 0 || policy->kind != LARDER_HTTP_ROUTE)) {
        return error_set(LARDER_EINVAL, "LARDER_HTTP_PRIVATE is for a route that is not shared");
    }
    if (policy->status_header.size > 0 && !text_is_token(policy->status_header)) {
        return error_set(LARDER_EINVAL, "the status header's name is not one");
    }
    return LARDER_OK;
}

uint64_t http_policy_max_body(const larder_http_policy *policy)
{
    return policy->max_body == 0 ? LARDER_HTTP_BODY_MAX : policy->max_body;
}

/* Conditions that only the origin can judge, and parts of a page (RFC 9110, 13.1, 14.2). */
static bool for_the_origin(struct headers headers)
{
    static const char *const names[] = {"range", "if-match", "if-unmodified-since", "if-range"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (headers_have(headers, names[i])) {
            return true;
        }
    }
    return false;
}

int larder_http_classify(const larder_http_policy *policy, const larder_http_request *request)
{
    struct headers headers = headers_of_request(request);
    struct control control;
    int result = http_policy_check(policy);
    if (result != LARDER_OK) {
        return result;
    }
    bool reads = text_is(request->method, "GET") || text_is(request->method, "HEAD");
    if (!reads) {
        return text_is(request->method, "OPTIONS") || text_is(request->method, "TRACE")
                   ? LARDER_HTTP_BYPASS
                   : LARDER_HTTP_UNSAFE;
    }
    if (headers_check(headers) != LARDER_OK || for_the_origin(headers)) {
        return LARDER_HTTP_BYPASS;
    }
    /* the origin would not see fields that the key and the variant are made of */
    if (policy->kind == LARDER_HTTP_GATEWAY && headers_nominate(headers)) {
        return LARDER_HTTP_BYPASS;
    }
    control_read(headers, &control);
    return (control.flags & CONTROL_NO_STORE) != 0 ? LARDER_HTTP_BYPASS : LARDER_HTTP_LOOKUP;
}
