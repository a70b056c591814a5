/* freshness.h: when a response was made and how long it is fresh (RFC 9111, 4.2).
 */
#ifndef LARDER_LIB_HTTP_FRESHNESS_H
#define LARDER_LIB_HTTP_FRESHNESS_H

#include <stdbool.h>

#include "http/headers.h"
#include "larder_http.h"

/* A response without freshness information of that status may be kept (RFC 9110, 15.1). */
bool freshness_by_default(uint32_t status);

/* 4.2.3: the time of the answer less its age then, as Date, Age and the delay tell it. */
int64_t freshness_made(const larder_http_response *response, const larder_http_place *place);

/* 4.2.1 and 4.2.2, in ms. *explicit: the origin says it; *heuristic: it is a guess. */
int64_t freshness_lifetime(const larder_http_policy *policy, const larder_http_response *response,
                           const struct control *control, int64_t response_ms, bool *is_explicit,
                           bool *heuristic);

#endif
