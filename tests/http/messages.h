/* messages.h: requests and responses out of a line of text, for the tests of lib/http. What is made
 * points into the text given, or into static memory, and is good until the eighth next call.
 */
#ifndef LARDER_TESTS_HTTP_MESSAGES_H
#define LARDER_TESTS_HTTP_MESSAGES_H

#include "larder_http.h"

larder_bytes message_text(const char *text);

/* "GET /path?query" and header lines parted by '\n' ("" or NULL: none). */
larder_http_request message_request(const char *line, const char *headers);

/* The same for a response; NULL body: none. */
larder_http_response message_response(uint32_t status, const char *headers, const char *body);

/* 64 KiB, empty at each call. */
larder_http_arena *message_arena(void);

#endif
