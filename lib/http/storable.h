/* storable.h: may a response be stored, and what is then known of it: lifetime, flags, names that
 * it varies by (RFC 9111, 3).
 */
#ifndef LARDER_LIB_HTTP_STORABLE_H
#define LARDER_LIB_HTTP_STORABLE_H

#include "http/vary.h"
#include "larder_http.h"

/* LARDER_HTTP_WHY_NONE: it may, and stored has times and flags, vary the names; else the reason why
 * not. */
uint32_t storable(const larder_http_policy *policy, const larder_http_request *request,
                  const larder_http_response *response, const larder_http_place *place,
                  larder_http_stored *stored, struct vary *vary);

#endif
