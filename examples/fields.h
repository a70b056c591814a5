/* fields.h: header fields between libevent's lists and larder_http.h's arrays, and what they say of
 * where a message ends (RFC 9112, 6). libevent takes the first field of a name, and what it does
 * not understand for nothing: two that read one message in two ways are how requests are smuggled,
 * so what could be read in two ways is told here.
 */
#ifndef LARDER_EXAMPLES_FIELDS_H
#define LARDER_EXAMPLES_FIELDS_H

#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <stdbool.h>
#include <stddef.h>

#include "larder_http.h"

/* Read the list into room for LARDER_HTTP_HEADERS_MAX fields; they point into it. White space that
 * stands before a colon is taken away (RFC 9112, 5.1); *spaced: there was some. NULL, or what is
 * wrong: a text for the other side. */
const char *fields_read(const struct evkeyvalq *from, larder_http_header *fields, size_t *count,
                        bool *spaced);

/* Add a field of any size. false: no memory, or none that may be sent. */
bool fields_add(struct evkeyvalq *to, const larder_http_header *field);

bool fields_named(const larder_http_header *field, const char *name);

struct framing {
    bool chunked;  /* Transfer-Encoding: chunked, and nothing else */
    bool coding;   /* another coding, or several */
    bool length;   /* there is a Content-Length */
    bool faulty;   /* that is no number, or several that are not the same */
    bool has_body; /* a length that is not 0, or any coding */
};

struct framing fields_framing(const larder_http_header *fields, size_t count);

#endif
