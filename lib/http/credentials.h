/* credentials.h: whose page is it? What a request carries to say who asks (Authorization, Cookie),
 * and whether a response that was made for such a request, or without, may answer another one.
 * Every path from a stored response to a client goes through credentials_allow().
 */
#ifndef LARDER_LIB_HTTP_CREDENTIALS_H
#define LARDER_LIB_HTTP_CREDENTIALS_H

#include <stdbool.h>
#include <stdint.h>

#include "larder_http.h"

#define CREDENTIALS_NAMES "authorization,cookie" /* as vary_join() writes them */

/* LARDER_HTTP_STORED_AUTHORIZATION, LARDER_HTTP_STORED_COOKIE: what the request carries. */
uint32_t credentials_of(const larder_http_request *request);

/* Those of them that make the page another one as far as the policy knows. */
uint32_t credentials_that_matter(const larder_http_policy *policy);

/* May the response answer this request, as far as credentials go? Each kind that either the request
 * carries or the response was made with has to be out of consequence: by the policy, because the
 * response is public (RFC 9111, 3.5), or because the response varies by it. */
bool credentials_allow(const larder_http_policy *policy, const larder_http_request *request,
                       const larder_http_stored *stored);

#endif
