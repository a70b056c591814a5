/* pattern.c: glob patterns.
 */
#include "pattern.h"

#include "error.h"

/* One member of a class at *at, an escape resolved. False: the pattern ends. */
static bool class_byte(const uint8_t *pattern, size_t size, size_t *at, uint8_t *byte)
{
    if (*at < size && pattern[*at] == '\\') {
        ++*at;
    }
    if (*at >= size) {
        return false;
    }
    *byte = pattern[(*at)++];
    return true;
}

enum class_result { CLASS_IN, CLASS_OUT, CLASS_OPEN, CLASS_EMPTY_RANGE };

/* The class that begins behind a "[" at *at, which moves behind its "]". */
static enum class_result match_class(const uint8_t *pattern, size_t size, size_t *at, uint8_t byte)
{
    bool negated = false;
    bool in = false;
    if (*at < size && (pattern[*at] == '!' || pattern[*at] == '^')) {
        negated = true;
        ++*at;
    }
    for (bool first = true; *at < size && (first || pattern[*at] != ']'); first = false) {
        uint8_t low, high;
        if (!class_byte(pattern, size, at, &low)) {
            return CLASS_OPEN;
        }
        high = low;
        if (*at + 1 < size && pattern[*at] == '-' && pattern[*at + 1] != ']') {
            ++*at;
            if (!class_byte(pattern, size, at, &high)) {
                return CLASS_OPEN;
            }
            if (high < low) {
                return CLASS_EMPTY_RANGE;
            }
        }
        in = in || (byte >= low && byte <= high);
    }
    if (*at >= size) {
        return CLASS_OPEN;
    }
    ++*at;
    return in != negated ? CLASS_IN : CLASS_OUT;
}

/* Whether the one-byte element at *at matches; *at moves behind it. */
static bool match_one(const uint8_t *pattern, size_t size, size_t *at, uint8_t byte)
{
    uint8_t c = pattern[(*at)++];
    switch (c) {
    case '?':
        return true;
    case '[':
        return match_class(pattern, size, at, byte) == CLASS_IN;
    case '\\':
        return *at < size && pattern[(*at)++] == byte;
    default:
        return c == byte;
    }
}

int pattern_check(larder_bytes pattern)
{
    const uint8_t *bytes = pattern.data;
    if (bytes == NULL || pattern.size == 0) {
        return error_set(LARDER_EINVAL, "a pattern of 0 bytes");
    }
    if (pattern.size > LARDER_GLOB_MAX) {
        return error_set(LARDER_ETOOBIG, "a pattern of %zu bytes: the limit is %u", pattern.size,
                         LARDER_GLOB_MAX);
    }
    for (size_t at = 0; at < pattern.size;) {
        size_t start = at;
        uint8_t c = bytes[at++];
        if (c == '\\' && at++ >= pattern.size) {
            return error_set(LARDER_EINVAL, "a \"\\\" at the end of a pattern");
        }
        if (c != '[') {
            continue;
        }
        switch (match_class(bytes, pattern.size, &at, 0)) {
        case CLASS_OPEN:
            return error_set(LARDER_EINVAL, "the \"[\" at byte %zu of a pattern has no \"]\"",
                             start + 1);
        case CLASS_EMPTY_RANGE:
            return error_set(LARDER_EINVAL,
                             "the \"[\" at byte %zu of a pattern has a range that "
                             "ends before it begins",
                             start + 1);
        default:
            break;
        }
    }
    return LARDER_OK;
}

bool pattern_matches(larder_bytes pattern, const void *text, size_t size)
{
    const uint8_t *glob = pattern.data, *bytes = text;
    size_t at = 0, i = 0;
    size_t star = SIZE_MAX, star_i = 0; /* behind the last star; where it stops taking bytes */
    while (i < size) {
        if (at < pattern.size && glob[at] == '*') {
            star = ++at;
            star_i = i;
            continue;
        }
        if (at < pattern.size && match_one(glob, pattern.size, &at, bytes[i])) {
            i++;
            continue;
        }
        if (star == SIZE_MAX) {
            return false;
        }
        at = star; /* the star takes one byte more */
        i = ++star_i;
    }
    while (at < pattern.size && glob[at] == '*') {
        at++;
    }
    return at == pattern.size;
}

size_t pattern_literal_prefix(larder_bytes pattern, uint8_t *prefix)
{
    const uint8_t *glob = pattern.data;
    size_t count = 0;
    for (size_t at = 0; at < pattern.size && count < LARDER_GLOB_MAX; at++) {
        uint8_t c = glob[at];
        if (c == '*' || c == '?' || c == '[') {
            break;
        }
        if (c == '\\' && ++at >= pattern.size) {
            break;
        }
        prefix[count++] = glob[at];
    }
    return count;
}
