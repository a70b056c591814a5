/* text.h: the lexical rules that all header fields share (RFC 9110, 5.6): tokens, lists, quoted
 * strings, numbers. Bounded by the bytes given, never by a 0 byte; case folds in ASCII alone,
 * whatever the locale.
 */
#ifndef LARDER_LIB_HTTP_TEXT_H
#define LARDER_LIB_HTTP_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "larder_http.h"

larder_bytes text_of(const char *literal);

bool text_same(larder_bytes a, larder_bytes b);            /* byte by byte */
bool text_is(larder_bytes a, const char *literal);         /* byte by byte */
bool text_is_name(larder_bytes a, const char *lower_case); /* without regard to case */
bool text_same_name(larder_bytes a, larder_bytes b);

char text_lower(char c);
bool text_is_token(larder_bytes text); /* RFC 9110, 5.6.2: one or more tchar */

/* Without spaces and tabs around (RFC 9110, 5.6.3). */
larder_bytes text_trim(larder_bytes text);

/* Take the next element off a comma-separated list (RFC 9110, 5.6.1), trimmed; commas inside quoted
 * strings do not part. Empty elements are skipped. false: none is left. */
bool text_next(larder_bytes *list, larder_bytes *element);

/* delta-seconds (RFC 9111, 1.2.2): digits alone; what is too large is INT32_MAX. A quoted string of
 * them is read, too, as "should" be. false: garbage. */
bool text_seconds(larder_bytes text, int64_t *seconds);

/* The content of a quoted string without its quotes (escapes stay); any other text as it is. */
larder_bytes text_unquoted(larder_bytes text);

int text_hex(char c); /* 0 to 15, or -1 */

/* Host and port without the scheme's default port, or an empty one (RFC 9110, 4.2.3). */
larder_bytes text_authority(larder_bytes authority, larder_bytes scheme);

#endif
