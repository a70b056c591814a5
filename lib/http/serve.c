/* serve.c: may what is stored answer this request, at this time? RFC 9111, 4 and 5.2.1, and RFC
 * 5861 for a gateway; the application's word for its own routes.
 */
#include "error.h"
#include "http/condition.h"
#include "http/credentials.h"
#include "http/headers.h"
#include "http/policy.h"

#define SECOND_MS INT64_C(1000)

static void decide(larder_http_decision *decision, uint32_t action, uint32_t reason)
{
    decision->action = action;
    decision->reason = reason;
}

/* Within so many milliseconds behind its lifetime? */
static bool stale_within(const larder_http_decision *decision, int64_t window_ms)
{
    return decision->fresh_ms > -window_ms && window_ms > 0;
}

/* What is not served may still serve if the origin fails (RFC 5861, 4), where nothing forbids stale
 * answers. seconds: of the request's stale-if-error, or -1. */
static void consider_error(const larder_http_stored *stored, int64_t seconds,
                           larder_http_decision *decision)
{
    bool allowed =
        (stored->flags & (LARDER_HTTP_STORED_NO_STALE | LARDER_HTTP_STORED_REVALIDATE)) == 0;
    if (allowed && (decision->fresh_ms > 0 || stale_within(decision, stored->stale_if_error_ms) ||
                    (seconds > 0 && stale_within(decision, seconds * SECOND_MS)))) {
        decision->flags |= LARDER_HTTP_IF_ERROR;
    }
}

static void serve_route(const larder_http_stored *stored, const struct control *control,
                        larder_http_decision *decision)
{
    if ((control->flags & CONTROL_NO_CACHE) != 0 ||
        (control->max_age >= 0 && decision->age_ms >= control->max_age * SECOND_MS)) {
        decide(decision, LARDER_HTTP_FORWARD, LARDER_HTTP_WHY_NO_CACHE);
    } else if (decision->fresh_ms > 0) {
        decide(decision, LARDER_HTTP_SERVE, LARDER_HTTP_WHY_FRESH);
    } else if (stale_within(decision, stored->stale_while_revalidate_ms)) {
        decide(decision, LARDER_HTTP_SERVE_STALE, LARDER_HTTP_WHY_STALE);
    } else {
        decide(decision, LARDER_HTTP_FORWARD, LARDER_HTTP_WHY_STALE);
        consider_error(stored, -1, decision);
    }
}

static bool client_takes_stale(const struct control *control, const larder_http_decision *decision)
{
    return (control->flags & CONTROL_MAX_STALE_ANY) != 0 ||
           (control->max_stale >= 0 && decision->fresh_ms >= -control->max_stale * SECOND_MS);
}

/* RFC 9111, 4.2.4: no directive of the response may forbid it. */
static void serve_stale(const larder_http_stored *stored, const struct control *control,
                        larder_http_decision *decision)
{
    decide(decision, LARDER_HTTP_REVALIDATE, LARDER_HTTP_WHY_STALE);
    if ((stored->flags & LARDER_HTTP_STORED_NO_STALE) != 0) {
        return;
    }
    if (client_takes_stale(control, decision)) {
        decide(decision, LARDER_HTTP_SERVE, LARDER_HTTP_WHY_MAX_STALE);
    } else if (control->min_fresh < 0 && control->max_age < 0 &&
               stale_within(decision, stored->stale_while_revalidate_ms)) {
        decide(decision, LARDER_HTTP_SERVE_STALE, LARDER_HTTP_WHY_STALE);
    }
}

static void serve_gateway(const larder_http_stored *stored, const struct control *control,
                          larder_http_decision *decision)
{
    if ((stored->flags & LARDER_HTTP_STORED_REVALIDATE) != 0) {
        decide(decision, LARDER_HTTP_REVALIDATE, LARDER_HTTP_WHY_REVALIDATE);
    } else if ((control->flags & CONTROL_NO_CACHE) != 0 ||
               (control->max_age >= 0 && decision->age_ms > control->max_age * SECOND_MS)) {
        decide(decision, LARDER_HTTP_REVALIDATE, LARDER_HTTP_WHY_NO_CACHE);
    } else if (decision->fresh_ms <= 0) {
        serve_stale(stored, control, decision);
    } else if (control->min_fresh >= 0 && decision->fresh_ms < control->min_fresh * SECOND_MS) {
        decide(decision, LARDER_HTTP_REVALIDATE, LARDER_HTTP_WHY_MIN_FRESH);
    } else {
        decide(decision, LARDER_HTTP_SERVE, LARDER_HTTP_WHY_FRESH);
    }
    if (decision->action != LARDER_HTTP_REVALIDATE) {
        return;
    }
    consider_error(stored, control->stale_if_error, decision);
    if (condition_etag(&stored->response).size == 0 &&
        headers_only(headers_of_response(&stored->response), "last-modified").size == 0) {
        decision->action = LARDER_HTTP_FORWARD;
    }
}

static void serve(const larder_http_policy *policy, const larder_http_request *request,
                  const larder_http_stored *stored, const struct control *control,
                  larder_http_decision *decision)
{
    if (stored == NULL || stored->kind != LARDER_HTTP_RESPONSE) {
        decide(decision, LARDER_HTTP_FORWARD, LARDER_HTTP_WHY_ABSENT);
    } else if (!credentials_allow(policy, request, stored)) {
        decide(decision, LARDER_HTTP_FORWARD, LARDER_HTTP_WHY_CREDENTIALS);
    } else if (policy->kind == LARDER_HTTP_ROUTE) {
        serve_route(stored, control, decision);
    } else {
        serve_gateway(stored, control, decision);
    }
    bool serves =
        decision->action == LARDER_HTTP_SERVE || decision->action == LARDER_HTTP_SERVE_STALE;
    if (serves) {
        decision->status = condition_not_modified(request, &stored->response, stored->made_ms)
                               ? 304
                               : stored->response.status;
    } else if (policy->kind == LARDER_HTTP_GATEWAY &&
               (control->flags & CONTROL_ONLY_IF_CACHED) != 0) { /* RFC 9111, 5.2.1.7 */
        decision->action = LARDER_HTTP_UNAVAILABLE;
        decision->status = 504;
        decision->flags = 0;
    }
}

int larder_http_serve(const larder_http_policy *policy, const larder_http_request *request,
                      const larder_http_stored *stored, int64_t now_ms,
                      larder_http_decision *decision)
{
    struct control control;
    int result = http_policy_check(policy);
    *decision = (larder_http_decision){.action = LARDER_HTTP_FORWARD};
    if (result != LARDER_OK) {
        return result;
    }
    if (now_ms < 0) {
        return error_set(LARDER_EINVAL, "a time before 1970");
    }
    if (stored != NULL) {
        /* a clock that was set back makes nothing older or younger than new */
        decision->age_ms = now_ms > stored->made_ms ? now_ms - stored->made_ms : 0;
        decision->fresh_ms =
            stored->lifetime_ms == INT64_MAX ? INT64_MAX : stored->lifetime_ms - decision->age_ms;
    }
    control_read(headers_of_request(request), &control);
    serve(policy, request, stored, &control, decision);
    return LARDER_OK;
}
