/* policy.h: checking a larder_http_policy, which every decision begins with.
 */
#ifndef LARDER_LIB_HTTP_POLICY_H
#define LARDER_LIB_HTTP_POLICY_H

#include "larder_http.h"

/* LARDER_OK, or EINVAL: an unknown kind, flag or member, a negative duration, a status header that
 * is no field name. */
int http_policy_check(const larder_http_policy *policy);

uint64_t http_policy_max_body(const larder_http_policy *policy);

#endif
