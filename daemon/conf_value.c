/* conf_value.c: the forms of single values in larderd's settings (sizes, durations, addresses) and
 * the preparation of a file's text for libconfig. Pure: no file, no socket, no lookup. Used by
 * conf.c and conf_table.c.
 */
#include "daemon/conf.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

struct unit {
    const char *name;
    int64_t factor;
};

static const struct unit size_units[] = {{"T", INT64_C(1) << 40},
                                         {"G", INT64_C(1) << 30},
                                         {"M", INT64_C(1) << 20},
                                         {"K", 1024},
                                         {"", 1}};
static const struct unit duration_units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000},
                                             {"s", 1000},     {"ms", 1},      {"", 1000}};

/* Digits, perhaps a fraction (kept to six places), and one of the units. What is beyond 64 bits is
 * INT64_MAX: no range reaches that far, and its message says more than that this is no number. */
static bool parse_unit(const char *text, const struct unit *units, size_t unit_count,
                       int64_t *value)
{
    char *end;
    if (!isdigit((unsigned char)*text)) {
        return false;
    }
    int64_t whole = strtoll(text, &end, 10); /* INT64_MAX, too, where it is more */
    int64_t millionths = 0;
    if (*end == '.') {
        int64_t place = 100000;
        end++;
        if (!isdigit((unsigned char)*end)) {
            return false;
        }
        for (; isdigit((unsigned char)*end); end++) {
            millionths += place * (*end - '0');
            place /= 10;
        }
    }
    for (size_t i = 0; i < unit_count; i++) {
        if (strcmp(end, units[i].name) == 0) {
            int64_t part = (int64_t)((double)millionths * (double)units[i].factor / 1e6 + 0.5);
            if (__builtin_mul_overflow(whole, units[i].factor, value) ||
                __builtin_add_overflow(*value, part, value)) {
                *value = INT64_MAX;
            }
            return true;
        }
    }
    return false;
}

bool conf_parse_size(const char *text, int64_t *bytes)
{
    return parse_unit(text, size_units, sizeof size_units / sizeof *size_units, bytes);
}

bool conf_parse_duration(const char *text, int64_t *milliseconds)
{
    return parse_unit(text, duration_units, sizeof duration_units / sizeof *duration_units,
                      milliseconds);
}

/* The largest unit that divides the value; units end with the one whose name is "". */
static void format_unit(int64_t value, const struct unit *units, size_t unit_count, char *out,
                        size_t size)
{
    for (size_t i = 0; i < unit_count; i++) {
        if (value % units[i].factor == 0 && value / units[i].factor != 0) {
            snprintf(out, size, "%" PRId64 "%s", value / units[i].factor, units[i].name);
            return;
        }
    }
    snprintf(out, size, "%" PRId64, value);
}

void conf_format(const struct conf *conf, const conf_row *row, char *out, size_t size)
{
    const void *at = (const char *)conf + row->offset;
    switch (row->type) {
    case CONF_TEXT:
        snprintf(out, size, "%s", *(char *const *)at);
        break;
    case CONF_BOOL:
        snprintf(out, size, "%s", *(const bool *)at ? "true" : "false");
        break;
    case CONF_INTEGER:
        snprintf(out, size, "%" PRId64, *(const int64_t *)at);
        break;
    case CONF_SIZE:
        format_unit(*(const int64_t *)at, size_units, sizeof size_units / sizeof *size_units, out,
                    size);
        break;
    case CONF_DURATION:
        format_unit(*(const int64_t *)at, duration_units,
                    sizeof duration_units / sizeof *duration_units, out, size);
        break;
    case CONF_SHARE:
        snprintf(out, size, "%.2f", *(const double *)at);
        break;
    case CONF_MODE:
        snprintf(out, size, "%" PRIo64, (uint64_t) * (const int64_t *)at);
        break;
    }
}

/* ---- Addresses ------------------------------------------------------------------------------- */

static bool parse_host(const char *host, conf_listen *out)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (strcmp(host, "localhost") == 0) {
        host = "127.0.0.1";
    }
    snprintf(out->address, sizeof out->address, "%s", host);
    if (inet_pton(AF_INET, host, &v4) == 1) {
        out->loopback = (ntohl(v4.s_addr) >> 24) == 127;
        return true;
    }
    if (inet_pton(AF_INET6, host, &v6) == 1) {
        out->loopback = IN6_IS_ADDR_LOOPBACK(&v6);
        return true;
    }
    return false;
}

bool conf_parse_listen(const char *text, conf_listen *out, char *error, size_t error_size)
{
    memset(out, 0, sizeof *out);
    if (strncmp(text, "unix:", 5) == 0) {
        const char *path = text + 5;
        while (path[0] == '/' && path[1] == '/') { /* unix:///path is as good */
            path++;
        }
        if (*path != '/' || strlen(path) >= sizeof out->path) {
            snprintf(error, error_size, "must be unix: and an absolute path of at most %zu bytes",
                     sizeof out->path - 1);
            return false;
        }
        out->is_unix = true;
        memcpy(out->path, path, strlen(path) + 1);
        return true;
    }
    char host[sizeof out->address];
    const char *colon = strrchr(text, ':');
    size_t length = colon ? (size_t)(colon - text) : 0;
    bool brackets = length > 2 && text[0] == '[' && text[length - 1] == ']';
    const char *begin = brackets ? text + 1 : text;
    length -= brackets ? 2 : 0;
    if (colon && length > 0 && length < sizeof host && isdigit((unsigned char)colon[1]) &&
        strspn(colon + 1, "0123456789") == strlen(colon + 1) && strlen(colon + 1) <= 5) {
        memcpy(host, begin, length);
        host[length] = '\0';
        out->port = (unsigned)strtoul(colon + 1, NULL, 10);
        if (out->port <= 65535 && brackets == (strchr(host, ':') != NULL) &&
            parse_host(host, out)) {
            return true;
        }
    }
    snprintf(error, error_size,
             "must be ADDRESS:PORT with a numeric address (IPv6 in brackets), or unix:/PATH");
    return false;
}

/* ---- The text of a file ---------------------------------------------------------------------- */

/* One pass over the text that knows libconfig's comments and strings. libconfig 1.5 has three
 * traps, each closed here: it reads 4294967296 as 0 (a number needs the suffix L beyond 32 bits: it
 * is put there, and beyond 64 the number becomes CONF_BEYOND), it ends the process when an @include
 * names a directory
 * (@include is refused), and it stops silently at a zero byte (refused). */
struct scan {
    const char *file;
    const char *at, *end;
    unsigned line;
    char *out;
    size_t length;
    conf_problems *problems;
};

static void copy_one(struct scan *scan)
{
    scan->line += *scan->at == '\n';
    scan->out[scan->length++] = *scan->at++;
}

static void copy_until(struct scan *scan, const char *stop)
{
    size_t size = strlen(stop);
    while (scan->at < scan->end) {
        if ((size_t)(scan->end - scan->at) >= size && memcmp(scan->at, stop, size) == 0) {
            for (size_t i = 0; i < size; i++) {
                copy_one(scan);
            }
            return;
        }
        copy_one(scan);
    }
}

static void copy_string(struct scan *scan)
{
    copy_one(scan);
    while (scan->at < scan->end && *scan->at != '"') {
        if (*scan->at == '\\' && scan->at + 1 < scan->end) {
            copy_one(scan);
        }
        copy_one(scan);
    }
    if (scan->at < scan->end) {
        copy_one(scan);
    }
}

static bool name_byte(char byte)
{
    return isalnum((unsigned char)byte) || byte == '_' || byte == '*' || byte == '-';
}

/* At a digit that begins a number. The out buffer has a byte to spare for each of the text. */
static void copy_number(struct scan *scan)
{
    const char *begin = scan->at, *at = begin;
    bool hex = at + 1 < scan->end && at[0] == '0' && (at[1] == 'x' || at[1] == 'X');
    at += hex ? 2 : 0;
    while (at < scan->end && (hex ? isxdigit((unsigned char)*at) : isdigit((unsigned char)*at))) {
        at++;
    }
    bool fraction = !hex && at < scan->end && strchr(".eE", *at) != NULL && *at;
    if (fraction) {
        while (at < scan->end && *at && strchr("0123456789.eE+-", *at)) {
            at++;
        }
    }
    bool is_long = !fraction && at < scan->end && *at == 'L';
    char digits[32];
    size_t size = (size_t)(at - begin);
    if (!fraction) {
        unsigned long long value = 0;
        if (size < sizeof digits) {
            memcpy(digits, begin, size);
            digits[size] = '\0';
            value = strtoull(digits, NULL, hex ? 16 : 10); /* ULLONG_MAX where it is more */
        }
        if (size >= sizeof digits ||
            value > INT64_MAX) { /* which takes at least as many bytes as this */
            scan->length +=
                (size_t)snprintf(scan->out + scan->length, sizeof digits, "%" PRId64, CONF_BEYOND);
            scan->at = at;
        }
        while (scan->at < at) {
            copy_one(scan);
        }
        if ((value > INT32_MAX || size >= sizeof digits) && !is_long) {
            scan->out[scan->length++] = 'L';
        }
    }
    while (scan->at < at) {
        copy_one(scan);
    }
    while (scan->at < scan->end && *scan->at == 'L') {
        copy_one(scan);
    }
}

bool conf_prepare_text(const char *file, char *text, size_t size, char **prepared,
                       conf_problems *problems)
{
    struct scan scan = {
        .file = file, .at = text, .end = text + size, .line = 1, .problems = problems};
    scan.out = *prepared = malloc(2 * size + 2);
    if (!scan.out) {
        conf_problem(problems, file, 0, "no memory");
        return false;
    }
    while (scan.at < scan.end) {
        char byte = *scan.at, next = scan.at + 1 < scan.end ? scan.at[1] : '\0';
        if (byte == '\0') {
            conf_problem(problems, file, scan.line, "a zero byte: this is not a text file");
            return false;
        }
        if (byte == '#' || (byte == '/' && next == '/')) {
            copy_until(&scan, "\n");
        } else if (byte == '/' && next == '*') {
            copy_until(&scan, "*/");
        } else if (byte == '"') {
            copy_string(&scan);
        } else if (byte == '@') {
            conf_problem(problems, file, scan.line,
                         "@include is not supported: larderd reads one file");
            return false;
        } else if (isalpha((unsigned char)byte) || byte == '*' || byte == '_') {
            while (scan.at < scan.end && name_byte(*scan.at)) {
                copy_one(&scan);
            }
        } else if (isdigit((unsigned char)byte)) {
            copy_number(&scan);
        } else {
            copy_one(&scan);
        }
    }
    scan.out[scan.length] = '\0';
    return true;
}
