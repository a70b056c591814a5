/* freshness.c: see freshness.h.
 */
#include "http/freshness.h"

#include "http/text.h"

#define SECOND_MS INT64_C(1000)
#define HEURISTIC_MAX_MS INT64_C(86400000)

bool freshness_by_default(uint32_t status)
{
    switch (status) {
    case 200:
    case 203:
    case 204:
    case 300:
    case 301:
    case 308:
    case 404:
    case 405:
    case 410:
    case 414:
    case 501:
        return true;
    default:
        return false;
    }
}

/* The response's Date, or when it came where there is none (RFC 9110, 6.6.1). */
static int64_t date_of(const larder_http_response *response, int64_t response_ms)
{
    larder_bytes text = headers_only(headers_of_response(response), "date");
    int64_t ms;
    return text.size > 0 && larder_http_date_read(text, response_ms, &ms) == LARDER_OK
               ? ms
               : response_ms;
}

int64_t freshness_made(const larder_http_response *response, const larder_http_place *place)
{
    int64_t response_ms = place->response_ms, delay = response_ms - place->request_ms;
    int64_t date = date_of(response, response_ms);
    int64_t apparent_age = date < response_ms ? response_ms - date : 0, age_value = 0;
    larder_bytes list = headers_first(headers_of_response(response), "age"), age;
    /* of several, in one field or more, the first (5.1) */
    if (!text_next(&list, &age) || !text_seconds(age, &age_value)) {
        age_value = 0;
    }
    int64_t corrected_age = age_value * SECOND_MS + (delay > 0 ? delay : 0);
    /* Date counts whole seconds: within the current one nothing has an age by it */
    apparent_age = apparent_age < SECOND_MS ? 0 : apparent_age;
    int64_t made = response_ms - (apparent_age > corrected_age ? apparent_age : corrected_age);
    return made > 0 ? made : 0;
}

static int64_t guess(const larder_http_policy *policy, const larder_http_response *response,
                     int64_t response_ms)
{
    int64_t most = policy->heuristic_max_ms == 0 ? HEURISTIC_MAX_MS : policy->heuristic_max_ms;
    int64_t date = date_of(response, response_ms), modified;
    larder_bytes text = headers_only(headers_of_response(response), "last-modified");
    if (text.size == 0 || larder_http_date_read(text, response_ms, &modified) != LARDER_OK ||
        modified >= date) {
        return 0;
    }
    int64_t tenth = (date - modified) / 10;
    return tenth < most ? tenth : most;
}

int64_t freshness_lifetime(const larder_http_policy *policy, const larder_http_response *response,
                           const struct control *control, int64_t response_ms, bool *is_explicit,
                           bool *heuristic)
{
    struct headers headers = headers_of_response(response);
    *heuristic = false;
    *is_explicit = true;
    if (control->bad_age) {
        return 0;
    }
    if (control->s_maxage >= 0) {
        return control->s_maxage * SECOND_MS;
    }
    if (control->max_age >= 0) {
        return control->max_age * SECOND_MS;
    }
    if (headers_have(headers, "expires")) { /* what is no date is in the past (5.3) */
        int64_t expires, date = date_of(response, response_ms);
        larder_bytes text = headers_only(headers, "expires");
        return text.size > 0 && larder_http_date_read(text, response_ms, &expires) == LARDER_OK &&
                       expires > date
                   ? expires - date
                   : 0;
    }
    *is_explicit = false;
    if ((policy->flags & LARDER_HTTP_NO_HEURISTIC) != 0 ||
        !(freshness_by_default(response->status) || (control->flags & CONTROL_PUBLIC) != 0)) {
        return 0;
    }
    int64_t lifetime = guess(policy, response, response_ms);
    *heuristic = lifetime > 0;
    return lifetime;
}
