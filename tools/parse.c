/* parse.c: see parse.h. Everything is built on take_number(), which reads digits and tells overflow
 * from the absence of a number.
 */
#include "tools/parse.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum number { NUMBER_OK, NUMBER_NONE, NUMBER_OVERFLOW };

static bool fail(parse_error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

static bool fail(parse_error *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    return false;
}

/* Read decimal digits at *at and move it behind them, over all of them even on overflow. */
static enum number take_number(const char **at, uint64_t *value)
{
    const char *start = *at;
    bool overflow = false;
    *value = 0;
    for (; **at >= '0' && **at <= '9'; (*at)++) {
        overflow |= __builtin_mul_overflow(*value, 10u, value);
        overflow |= __builtin_add_overflow(*value, (uint64_t)(**at - '0'), value);
    }
    return *at == start ? NUMBER_NONE : overflow ? NUMBER_OVERFLOW : NUMBER_OK;
}

bool parse_duration(const char *text, int64_t *ms, parse_error *error)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"ms", 1},    {"s", 1000},        {"", 1000},
                 {"m", 60000}, {"h", 3600 * 1000}, {"d", (int64_t)24 * 3600 * 1000}};
    const char *at = text;
    uint64_t value;
    if (*at == '-') {
        return fail(error, "\"%.100s\": a duration cannot be negative", text);
    }
    enum number number = take_number(&at, &value);
    for (size_t i = 0; number != NUMBER_NONE && i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(at, units[i].unit) != 0) {
            continue;
        }
        int64_t result;
        if (number == NUMBER_OVERFLOW || __builtin_mul_overflow(value, units[i].ms, &result)) {
            return fail(error, "\"%.100s\": the limit is %" PRId64 "ms", text, INT64_MAX);
        }
        *ms = result;
        return true;
    }
    return fail(error, "\"%.100s\" is not a duration like 250ms, 30s, 5m or 2h", text);
}

/* Up to nine decimals behind a point, to milliseconds, rounded down. */
static bool take_fraction(const char **at, int64_t *ms)
{
    *ms = 0;
    if (**at != '.') {
        return true;
    }
    (*at)++;
    int64_t unit = 100;
    int digits = 0;
    for (; **at >= '0' && **at <= '9'; (*at)++, digits++, unit /= 10) {
        *ms += unit * (**at - '0');
    }
    return digits >= 1 && digits <= 9;
}

/* Exactly count digits, from least to most. */
static bool take_field(const char **at, int count, int least, int most, int *value)
{
    *value = 0;
    for (int i = 0; i < count; i++, (*at)++) {
        if (**at < '0' || **at > '9') {
            return false;
        }
        *value = *value * 10 + (**at - '0');
    }
    return *value >= least && *value <= most;
}

static bool take_char(const char **at, const char *allowed)
{
    if (**at == '\0' || strchr(allowed, **at) == NULL) {
        return false;
    }
    (*at)++;
    return true;
}

/* Days from 1970-01-01 to a date of the Gregorian calendar, year 0 to 9999 (the era method of
 * Howard Hinnant's chrono-compatible date algorithms). */
static int64_t days_of_date(int year, int month, int day)
{
    int shifted = month <= 2 ? year - 1 : year;
    int era = (shifted >= 0 ? shifted : shifted - 399) / 400;
    int year_of_era = shifted - era * 400;
    int day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return (int64_t)era * 146097 + day_of_era - 719468;
}

static int days_of_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : days[month - 1];
}

/* RFC 3339 section 5.6, with its note that a space may stand for the T. */
static bool take_rfc3339(const char *at, int64_t *ms)
{
    int year, month, day, hour, minute, second;
    int64_t fraction;
    if (!take_field(&at, 4, 0, 9999, &year) || !take_char(&at, "-") ||
        !take_field(&at, 2, 1, 12, &month) || !take_char(&at, "-") ||
        !take_field(&at, 2, 1, days_of_month(year, month), &day) || !take_char(&at, "Tt ") ||
        !take_field(&at, 2, 0, 23, &hour) || !take_char(&at, ":") ||
        !take_field(&at, 2, 0, 59, &minute) || !take_char(&at, ":") ||
        !take_field(&at, 2, 0, 60, &second) || !take_fraction(&at, &fraction)) {
        return false;
    }
    int offset_minutes = 0;
    if (!take_char(&at, "Zz")) {
        bool west = *at == '-';
        int hours, minutes;
        if (!take_char(&at, "+-") || !take_field(&at, 2, 0, 23, &hours) || !take_char(&at, ":") ||
            !take_field(&at, 2, 0, 59, &minutes)) {
            return false;
        }
        offset_minutes = (west ? -1 : 1) * (hours * 60 + minutes);
    }
    if (*at != '\0') {
        return false;
    }
    int64_t minutes = (days_of_date(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    *ms = (minutes * 60 + second) * 1000 + fraction;
    return true;
}

bool parse_time(const char *text, int64_t *ms, parse_error *error)
{
    const char *at = text;
    uint64_t seconds;
    int64_t fraction;
    int64_t result;
    if (*at == '-') {
        return fail(error, "\"%.100s\": a time cannot be negative", text);
    }
    enum number number = take_number(&at, &seconds);
    if (number != NUMBER_NONE && take_fraction(&at, &fraction) && *at == '\0') {
        if (number == NUMBER_OVERFLOW || __builtin_mul_overflow(seconds, 1000, &result) ||
            __builtin_add_overflow(result, fraction, &result)) {
            return fail(error, "\"%.100s\": the limit is %" PRId64 " seconds", text,
                        INT64_MAX / 1000);
        }
    } else if (!take_rfc3339(text, &result)) {
        return fail(error,
                    "\"%.100s\" is not a time like 2026-05-01T12:00:00Z or seconds since 1970",
                    text);
    }
    if (result < 0) {
        return fail(error, "\"%.100s\": a time before 1970 cannot be kept", text);
    }
    *ms = result;
    return true;
}

bool parse_size(const char *text, uint64_t *bytes, parse_error *error)
{
    const char *at = text;
    uint64_t value;
    if (*at == '-') {
        return fail(error, "\"%.100s\": a size cannot be negative", text);
    }
    enum number number = take_number(&at, &value);
    unsigned shift = 0;
    if (number != NUMBER_NONE && *at != '\0') {
        static const char units[] = "kmgt";
        const char *unit = strchr(units, *at | 0x20);
        if (unit == NULL) {
            number = NUMBER_NONE;
        } else {
            shift = (unsigned)(unit - units + 1) * 10;
            at++;
        }
    }
    if (number == NUMBER_NONE ||
        (*at != '\0' && (shift == 0 || (strcasecmp(at, "b") != 0 && strcasecmp(at, "ib") != 0)))) {
        return fail(error, "\"%.100s\" is not a size like 65536, 64K, 256M or 2G", text);
    }
    if (number == NUMBER_OVERFLOW || value > (uint64_t)INT64_MAX >> shift) {
        return fail(error, "\"%.100s\": the limit is %" PRId64 " bytes", text, INT64_MAX);
    }
    if (value == 0) {
        return fail(error, "\"%.100s\": a size is at least 1 byte", text);
    }
    *bytes = value << shift;
    return true;
}

bool parse_count(const char *text, uint64_t least, uint64_t most, uint64_t *count,
                 parse_error *error)
{
    const char *at = text;
    uint64_t value;
    enum number number = take_number(&at, &value);
    if (number == NUMBER_NONE || *at != '\0') {
        return fail(error, "\"%.100s\" is not a whole number", text);
    }
    if (number == NUMBER_OVERFLOW || value < least || value > most) {
        return fail(error, "\"%.100s\": from %" PRIu64 " to %" PRIu64 " is allowed", text, least,
                    most);
    }
    *count = value;
    return true;
}
