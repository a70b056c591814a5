/* date.c: HTTP dates (RFC 9110, 5.6.7), in UTC and English whatever the locale: read in all three
 * forms, written in the first.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "http/text.h"

enum { YEAR_MAX = 9999 };
#define DAY_MS INT64_C(86400000)

static const char month_names[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                        "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
static const char day_names[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
static const char long_day_names[7][10] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                           "Thursday", "Friday", "Saturday"};

/* Days from 1970-01-01 to a day of the proleptic Gregorian calendar, and back (Hinnant's
 * algorithms): years begin in March, so that the leap day is a year's last. */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = year / 400, year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

struct civil {
    int year, month, day; /* month: 1 to 12 */
};

static struct civil civil_of(int64_t days)
{
    days += 719468;
    int64_t era = days / 146097, day_of_era = days - era * 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month = (5 * day_of_year + 2) / 153;
    struct civil civil = {.day = (int)(day_of_year - (153 * month + 2) / 5 + 1),
                          .month = (int)(month < 10 ? month + 3 : month - 9)};
    civil.year = (int)(year_of_era + era * 400 + (civil.month <= 2));
    return civil;
}

/* ---- Reading ------------------------------------------------------------------------------------
 * A cursor that fails once stays failed: the end is checked, not each step. */

struct cursor {
    const char *at, *end;
    bool failed;
};

static void expect(struct cursor *cursor, const char *literal)
{
    size_t size = strlen(literal);
    if (cursor->failed || (size_t)(cursor->end - cursor->at) < size ||
        memcmp(cursor->at, literal, size) != 0) {
        cursor->failed = true;
        return;
    }
    cursor->at += size;
}

static int number(struct cursor *cursor, int digits)
{
    int value = 0;
    for (int i = 0; i < digits; i++) {
        if (cursor->failed || cursor->at == cursor->end || *cursor->at < '0' || *cursor->at > '9') {
            cursor->failed = true;
            return 0;
        }
        value = value * 10 + (*cursor->at++ - '0');
    }
    return value;
}

static int month(struct cursor *cursor)
{
    for (int i = 0; i < 12; i++) {
        if (!cursor->failed && cursor->end - cursor->at >= 3 &&
            memcmp(cursor->at, month_names[i], 3) == 0) {
            cursor->at += 3;
            return i + 1;
        }
    }
    cursor->failed = true;
    return 0;
}

struct moment {
    struct civil date;
    int hour, minute, second;
};

static void time_of_day(struct cursor *cursor, struct moment *moment)
{
    moment->hour = number(cursor, 2);
    expect(cursor, ":");
    moment->minute = number(cursor, 2);
    expect(cursor, ":");
    moment->second = number(cursor, 2);
}

/* "06 Nov 1994 08:49:37 GMT" */
static void rest_fixdate(struct cursor *cursor, struct moment *moment)
{
    moment->date.day = number(cursor, 2);
    expect(cursor, " ");
    moment->date.month = month(cursor);
    expect(cursor, " ");
    moment->date.year = number(cursor, 4);
    expect(cursor, " ");
    time_of_day(cursor, moment);
    expect(cursor, " GMT");
}

/* "06-Nov-94 08:49:37 GMT": of the years that end so, the one in (now - 50, now + 50]. */
static void rest_rfc850(struct cursor *cursor, struct moment *moment, int64_t now_ms)
{
    moment->date.day = number(cursor, 2);
    expect(cursor, "-");
    moment->date.month = month(cursor);
    expect(cursor, "-");
    int now_year = civil_of(now_ms / DAY_MS).year;
    int year = now_year / 100 * 100 + number(cursor, 2);
    if (year > now_year + 50) {
        year -= 100;
    } else if (year <= now_year - 50) {
        year += 100;
    }
    moment->date.year = year;
    expect(cursor, " ");
    time_of_day(cursor, moment);
    expect(cursor, " GMT");
}

/* "Nov  6 08:49:37 1994" */
static void rest_asctime(struct cursor *cursor, struct moment *moment)
{
    moment->date.month = month(cursor);
    expect(cursor, " ");
    if (!cursor->failed && cursor->at < cursor->end && *cursor->at == ' ') {
        cursor->at++;
        moment->date.day = number(cursor, 1);
    } else {
        moment->date.day = number(cursor, 2);
    }
    expect(cursor, " ");
    time_of_day(cursor, moment);
    expect(cursor, " ");
    moment->date.year = number(cursor, 4);
}

static bool skip(struct cursor *cursor, const char *name, const char *separator)
{
    struct cursor tried = *cursor;
    expect(&tried, name);
    expect(&tried, separator);
    if (!tried.failed) {
        *cursor = tried;
    }
    return !tried.failed;
}

static void read_any(struct cursor *cursor, struct moment *moment, int64_t now_ms)
{
    for (int i = 0; i < 7; i++) {
        if (skip(cursor, long_day_names[i], ", ")) {
            rest_rfc850(cursor, moment, now_ms);
            return;
        }
        if (skip(cursor, day_names[i], ", ")) {
            rest_fixdate(cursor, moment);
            return;
        }
        if (skip(cursor, day_names[i], " ")) {
            rest_asctime(cursor, moment);
            return;
        }
    }
    cursor->failed = true;
}

static bool moment_valid(const struct moment *moment)
{
    static const int lengths[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const struct civil *date = &moment->date;
    if (date->month < 1 || date->month > 12 || date->day < 1) {
        return false;
    }
    bool leap = (date->year % 4 == 0 && date->year % 100 != 0) || date->year % 400 == 0;
    int length = lengths[date->month - 1] + (date->month == 2 && leap);
    return date->day <= length && moment->hour <= 23 && moment->minute <= 59 &&
           moment->second <= 60; /* a leap second is the next minute's first */
}

int larder_http_date_read(larder_bytes text, int64_t now_ms, int64_t *ms)
{
    struct moment moment = {{0, 0, 0}, 0, 0, 0};
    const char *begin = text.data;
    struct cursor cursor = {begin, text.size == 0 ? begin : begin + text.size, text.size == 0};
    now_ms = now_ms < 0 ? 0 : now_ms;
    if (!cursor.failed) {
        read_any(&cursor, &moment, now_ms);
    }
    if (cursor.failed || cursor.at != cursor.end || !moment_valid(&moment)) {
        return error_set(LARDER_EINVAL, "not an HTTP date: %zu bytes", text.size);
    }
    int64_t days = days_of(moment.date.year, moment.date.month, moment.date.day);
    *ms = ((days * 24 + moment.hour) * 60 + moment.minute) * 60000 + moment.second * INT64_C(1000);
    return LARDER_OK;
}

/* ---- Writing ----------------------------------------------------------------------------------
 */

void larder_http_date_write(int64_t ms, char *text)
{
    int64_t last_ms = days_of(YEAR_MAX + 1, 1, 1) * DAY_MS - 1;
    ms = ms < 0 ? 0 : ms > last_ms ? last_ms : ms;
    int64_t days = ms / DAY_MS, seconds = ms % DAY_MS / 1000;
    struct civil civil = civil_of(days);
    char line[64]; /* what the compiler believes that numbers can be */
    snprintf(line, sizeof line, "%s, %02d %s %04d %02d:%02d:%02d GMT", day_names[(days + 4) % 7],
             civil.day, month_names[civil.month - 1], civil.year, (int)(seconds / 3600),
             (int)(seconds / 60 % 60), (int)(seconds % 60));
    memcpy(text, line, LARDER_HTTP_DATE_SIZE - 1);
    text[LARDER_HTTP_DATE_SIZE - 1] = '\0';
}
