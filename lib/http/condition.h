/* condition.h: entity tags and the conditions that a cache evaluates itself (RFC 9110, 8.8 and 13;
 * RFC 9111, 4.3.2).
 */
#ifndef LARDER_LIB_HTTP_CONDITION_H
#define LARDER_LIB_HTTP_CONDITION_H

#include <stdbool.h>
#include <stdint.h>

#include "larder_http.h"

/* An entity tag, weak or strong, and nothing else (RFC 9110, 8.8.3). */
bool condition_etag_valid(larder_bytes etag);

/* The response's own, or none: a field that is not valid or comes twice is none. */
larder_bytes condition_etag(const larder_http_response *response);

/* Two valid entity tags, compared weakly (RFC 9110, 8.8.3.2). */
bool condition_same_weakly(larder_bytes a, larder_bytes b);

/* Does the client have this already: is 304 the answer to its If-None-Match, or without one to its
 * If-Modified-Since? made_ms stands for a Last-Modified that is not there. */
bool condition_not_modified(const larder_http_request *request,
                            const larder_http_response *response, int64_t made_ms);

#endif
