/* pattern.h: patterns over the bytes of keys. Pure functions.
 *
 *   *  any bytes, also none      ?  any one byte       \X  the byte X
 *   [a-z_]  one of these bytes   [!a-z], [^a-z]  one that is none of them; a "]" that comes first,
 *   and a "-" that comes first or last, stand for themselves
 *
 * Bytes, not characters; no byte is special otherwise ("/" and NUL neither). Matching takes at most
 * pattern x text steps and no memory: only the last star is ever tried again.
 */
#ifndef LARDER_LIB_PATTERN_H
#define LARDER_LIB_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "larder.h"

/* EINVAL: empty, a class without an end, an empty range ("z-a"), a "\" with nothing behind it;
 * ETOOBIG: over LARDER_GLOB_MAX. */
int pattern_check(larder_bytes pattern);

/* Whether the whole text matches a pattern that pattern_check() has taken. */
bool pattern_matches(larder_bytes pattern, const void *text, size_t size);

/* The bytes that every match begins with; prefix holds LARDER_GLOB_MAX. Returns how many. */
size_t pattern_literal_prefix(larder_bytes pattern, uint8_t *prefix);

#endif
