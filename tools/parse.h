/* parse.h: what people type, to numbers: durations, times, sizes, counts. Pure: no clock, no
 * locale. Used by the tool's options. Each function returns false with a sentence that names the
 * text; it never rounds silently, wraps around, or takes a prefix of what was typed.
 */
#ifndef LARDER_TOOLS_PARSE_H
#define LARDER_TOOLS_PARSE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct parse_error {
    char text[256]; /* holds bytes as they were typed: escape before showing */
} parse_error;

/* "250ms", "30s", "5m", "2h", "7d"; a bare number is seconds. Whole numbers; to milliseconds. */
bool parse_duration(const char *text, int64_t *ms, parse_error *error);

/* RFC 3339 ("2026-05-01T12:00:00Z", "2026-05-01 14:00:00.5+02:00") or seconds since the epoch with
 * up to nine decimals. To milliseconds since the epoch, rounded down. A second of 60 is the first
 * of the next minute. */
bool parse_time(const char *text, int64_t *ms, parse_error *error);

/* "65536", "64K", "256M", "2G", "1T" (powers of 1024; "MB" and "MiB" are the same as "M"). To
 * bytes; at least 1. */
bool parse_size(const char *text, uint64_t *bytes, parse_error *error);

/* A whole number from least to most. */
bool parse_count(const char *text, uint64_t least, uint64_t most, uint64_t *count,
                 parse_error *error);

#endif
