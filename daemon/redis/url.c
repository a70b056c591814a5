/* url.c: see url.h. The forms: redis://[USER@]HOST[:PORT][/DB] and unix://[USER@]/PATH[?db=N];
 * user and path may be percent-encoded.
 */
#include "daemon/redis/url.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int fail(char *error, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int fail(char *error, size_t size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (size != 0)
        vsnprintf(error, size, format, arguments);
    va_end(arguments);
    return -1;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Decode %XX of text[0..size) into out; -1: bad escape, a 0 byte, or too long. */
static int decode(const char *text, size_t size, char *out, size_t out_size)
{
    size_t used = 0;
    for (size_t i = 0; i < size; i++) {
        int c = (unsigned char)text[i];
        if (c == '%') {
            if (i + 2 >= size)
                return -1;
            int high = hex_digit(text[i + 1]), low = hex_digit(text[i + 2]);
            if (high < 0 || low < 0)
                return -1;
            c = high * 16 + low;
            i += 2;
        }
        if (c == 0 || used + 1 >= out_size)
            return -1;
        out[used++] = (char)c;
    }
    out[used] = 0;
    return 0;
}

static int number(const char *text, size_t size, uint32_t max, uint32_t *out)
{
    uint32_t value = 0;
    if (size == 0 || size > 9)
        return -1;
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        value = value * 10 + (uint32_t)(text[i] - '0');
    }
    if (value > max)
        return -1;
    *out = value;
    return 0;
}

/* Take "USER@" off the front of [*text, end of the authority). */
static int take_user(const char **text, size_t size, redis_url *out, char *error, size_t error_size)
{
    const char *at = NULL;
    for (size_t i = 0; i < size; i++)
        if ((*text)[i] == '@')
            at = *text + i;
    if (at == NULL)
        return 0;
    size_t user_size = (size_t)(at - *text);
    if (memchr(*text, ':', user_size) != NULL)
        return fail(error, error_size,
                    "a password in the URL is refused, because other users can read it there: put "
                    "it into a file (see the configuration's password settings)");
    if (user_size == 0 || decode(*text, user_size, out->user, sizeof out->user) != 0)
        return fail(error, error_size, "the URL's user is empty, too long or badly encoded");
    *text = at + 1;
    return 0;
}

static int parse_query(const char *query, redis_url *out, char *error, size_t error_size)
{
    if (strncmp(query, "db=", 3) != 0 || strchr(query, '&') != NULL)
        return fail(error, error_size,
                    strstr(query, "pass") != NULL
                        ? "a password in the URL is refused: put it into a file"
                        : "the only setting a URL may carry is db=N");
    if (number(query + 3, strlen(query + 3), URL_DATABASE_MAX, &out->database) != 0)
        return fail(error, error_size, "the database is not a number from 0 to %u",
                    URL_DATABASE_MAX);
    return 0;
}

static int parse_unix(const char *rest, redis_url *out, char *error, size_t error_size)
{
    out->kind = URL_UNIX;
    const char *slash = strchr(rest, '/');
    if (slash != NULL && slash != rest &&
        take_user(&rest, (size_t)(slash - rest), out, error, error_size) != 0)
        return -1;
    if (*rest != '/')
        return fail(error, error_size, "unix:// needs an absolute path: unix:///run/redis.sock");
    const char *query = strchr(rest, '?');
    size_t size = query != NULL ? (size_t)(query - rest) : strlen(rest);
    if (decode(rest, size, out->path, sizeof out->path) != 0)
        return fail(error, error_size,
                    "the socket's path is badly encoded or longer than %zu bytes",
                    sizeof out->path - 1);
    if (query != NULL && parse_query(query + 1, out, error, error_size) != 0)
        return -1;
    snprintf(out->display, sizeof out->display, "unix:%s/%u", out->path, out->database);
    return 0;
}

static int parse_port(const char *text, size_t size, redis_url *out, char *error, size_t error_size)
{
    uint32_t port;
    if (number(text, size, 65535, &port) != 0 || port == 0)
        return fail(error, error_size, "the port is not a number from 1 to 65535");
    out->port = (uint16_t)port;
    return 0;
}

static int parse_host(const char *text, size_t size, redis_url *out, char *error, size_t error_size)
{
    const char *end = text + size, *host = text, *host_end, *port = NULL;
    if (size != 0 && *text == '[') {
        host = text + 1;
        host_end = memchr(host, ']', (size_t)(end - host));
        if (host_end == NULL)
            return fail(error, error_size, "the address begins with [ and lacks its ]");
        if (host_end + 1 != end) {
            if (host_end[1] != ':')
                return fail(error, error_size, "only a port may follow the address");
            port = host_end + 2;
        }
    } else {
        const char *colon = memchr(text, ':', size);
        host_end = colon != NULL ? colon : end;
        port = colon != NULL ? colon + 1 : NULL;
        if (colon != NULL && memchr(port, ':', (size_t)(end - port)) != NULL)
            return fail(error, error_size, "an IPv6 address needs brackets: redis://[::1]:6379");
    }
    size_t host_size = (size_t)(host_end - host);
    if (host_size == 0)
        return fail(error, error_size, "the URL names no host");
    if (host_size >= sizeof out->host)
        return fail(error, error_size, "the host's name is longer than %zu bytes",
                    sizeof out->host - 1);
    for (size_t i = 0; i < host_size; i++)
        if ((unsigned char)host[i] <= ' ' || (unsigned char)host[i] > '~' || host[i] == ',')
            return fail(error, error_size, "the host's name holds a character that none can hold");
    memcpy(out->host, host, host_size);
    return port == NULL ? 0 : parse_port(port, (size_t)(end - port), out, error, error_size);
}

static int parse_tcp(const char *rest, redis_url *out, char *error, size_t error_size)
{
    out->kind = URL_TCP;
    out->port = 6379;
    size_t authority = strcspn(rest, "/?");
    const char *tail = rest + authority;
    if (take_user(&rest, authority, out, error, error_size) != 0)
        return -1;
    if (parse_host(rest, (size_t)(tail - rest), out, error, error_size) != 0)
        return -1;
    if (*tail == '/') {
        tail++;
        size_t size = strcspn(tail, "?");
        if (size != 0 && number(tail, size, URL_DATABASE_MAX, &out->database) != 0)
            return fail(error, error_size, "the database is not a number from 0 to %u",
                        URL_DATABASE_MAX);
        tail += size;
    }
    if (*tail == '?' && parse_query(tail + 1, out, error, error_size) != 0)
        return -1;
    const char *open = strchr(out->host, ':') != NULL ? "[" : "", *close = *open != 0 ? "]" : "";
    snprintf(out->display, sizeof out->display, "%s%s%s:%u/%u", open, out->host, close,
             (unsigned)out->port, out->database);
    return 0;
}

int url_parse(const char *text, redis_url *out, char *error, size_t error_size)
{
    static const char *const later[] = {"rediss://", "redis-sentinel://", "redis-cluster://"};
    memset(out, 0, sizeof *out);
    if (text == NULL || *text == 0)
        return fail(error, error_size, "the URL is empty");
    if (strlen(text) > 1024)
        return fail(error, error_size, "the URL is longer than 1024 bytes");
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        if (strncmp(text, later[i], strlen(later[i])) == 0)
            return fail(error, error_size, "%s is known, but this version does not carry it out",
                        later[i]);
    if (strncmp(text, "redis://", 8) == 0)
        return parse_tcp(text + 8, out, error, error_size);
    if (strncmp(text, "unix://", 7) == 0)
        return parse_unix(text + 7, out, error, error_size);
    return fail(error, error_size,
                "a Redis URL begins with redis:// or unix:// (redis://localhost:6379/0, "
                "unix:///run/redis/redis.sock)");
}
