/* url.c: see url.h. The forms, where a list is HOST[:PORT] with commas between them:
 *
 *   redis://[USER@]HOST[:PORT][/DB][?db=N]            rediss://          with TLS
 *   unix://[USER@]/PATH[?db=N]
 *   redis-sentinel://[USER@]LIST/SERVICE[/DB][?db=N]  rediss-sentinel:// both with TLS
 *   redis-cluster://[USER@]LIST                       rediss-cluster://
 *
 * User, path and service may be percent-encoded.
 */
#include "daemon/redis/url.h"

#include <arpa/inet.h>
#include <netinet/in.h>
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
    char *path = out->places[0].path;
    if (decode(rest, size, path, sizeof out->places[0].path) != 0)
        return fail(error, error_size,
                    "the socket's path is badly encoded or longer than %zu bytes",
                    sizeof out->places[0].path - 1);
    out->place_count = 1;
    return query != NULL ? parse_query(query + 1, out, error, error_size) : 0;
}

static int parse_port(const char *text, size_t size, uint16_t *out, char *error, size_t error_size)
{
    uint32_t port;
    if (number(text, size, 65535, &port) != 0 || port == 0)
        return fail(error, error_size, "the port is not a number from 1 to 65535");
    *out = (uint16_t)port;
    return 0;
}

static bool good_name(const char *host, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        char c = host[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && c != '-' && c != '.' && c != '_')
            return false;
    }
    return true;
}

static bool good_ipv6(const char *host, size_t size)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;
    if (size >= sizeof text)
        return false;
    memcpy(text, host, size);
    text[size] = 0;
    return inet_pton(AF_INET6, text, &address) == 1;
}

bool url_place_set(url_place *out, const char *host, size_t size, long long port)
{
    memset(out, 0, sizeof *out);
    if (size == 0 || size >= sizeof out->host || port < 1 || port > 65535 ||
        !(good_name(host, size) || good_ipv6(host, size)))
        return false;
    memcpy(out->host, host, size);
    out->port = (uint16_t)port;
    return true;
}

void url_place_text(const url_place *place, char out[URL_PLACE_TEXT_MAX])
{
    bool brackets = strchr(place->host, ':') != NULL;
    if (place->path[0] != 0)
        snprintf(out, URL_PLACE_TEXT_MAX, "unix:%s", place->path);
    else
        snprintf(out, URL_PLACE_TEXT_MAX, brackets ? "[%s]:%u" : "%s:%u", place->host,
                 (unsigned)place->port);
}

bool url_place_same(const url_place *a, const url_place *b)
{
    return a->port == b->port && strcmp(a->host, b->host) == 0 && strcmp(a->path, b->path) == 0;
}

/* HOST[:PORT]; the port is there already where none is given. */
static int parse_host(const char *text, size_t size, url_place *out, char *error, size_t error_size)
{
    const char *end = text + size, *host = text, *host_end, *port = NULL;
    bool brackets = size != 0 && *text == '[';
    if (brackets) {
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
    if (brackets && !good_ipv6(host, host_size))
        return fail(error, error_size, "what stands between [ and ] is not an IPv6 address");
    if (!brackets && !good_name(host, host_size))
        return fail(error, error_size, "the host's name holds a character that none can hold");
    memcpy(out->host, host, host_size);
    return port == NULL ? 0 : parse_port(port, (size_t)(end - port), &out->port, error, error_size);
}

/* [USER@]HOST[:PORT], more of these after commas if list. */
static int parse_hosts(const char *text, size_t size, bool list, uint16_t port, redis_url *out,
                       char *error, size_t error_size)
{
    const char *end = text + size;
    if (take_user(&text, size, out, error, error_size) != 0)
        return -1;
    for (;;) {
        const char *comma = list ? memchr(text, ',', (size_t)(end - text)) : NULL;
        const char *stop = comma != NULL ? comma : end;
        if (out->place_count == URL_PLACES_MAX)
            return fail(error, error_size, "the URL names more than %u hosts", URL_PLACES_MAX);
        url_place *place = &out->places[out->place_count++];
        place->port = port;
        if (parse_host(text, (size_t)(stop - text), place, error, error_size) != 0)
            return -1;
        if (comma == NULL)
            return 0;
        text = comma + 1;
    }
}

/* What follows the hosts, and a service: [/DB][?db=N]. */
static int parse_tail(const char *tail, redis_url *out, char *error, size_t error_size)
{
    if (*tail == '/') {
        tail++;
        size_t size = strcspn(tail, "?");
        if (size != 0 && number(tail, size, URL_DATABASE_MAX, &out->database) != 0)
            return fail(error, error_size, "the database is not a number from 0 to %u",
                        URL_DATABASE_MAX);
        tail += size;
    }
    return *tail == '?' ? parse_query(tail + 1, out, error, error_size) : 0;
}

static int parse_tcp(const char *rest, redis_url *out, char *error, size_t error_size)
{
    size_t authority = strcspn(rest, "/?");
    out->kind = URL_TCP;
    if (parse_hosts(rest, authority, false, URL_PORT, out, error, error_size) != 0)
        return -1;
    return parse_tail(rest + authority, out, error, error_size);
}

static int parse_sentinel(const char *rest, redis_url *out, char *error, size_t error_size)
{
    size_t authority = strcspn(rest, "/?");
    const char *tail = rest + authority;
    out->kind = URL_SENTINEL;
    if (parse_hosts(rest, authority, true, URL_PORT_SENTINEL, out, error, error_size) != 0)
        return -1;
    size_t size = *tail == '/' ? strcspn(++tail, "/?") : 0;
    if (size == 0)
        return fail(error, error_size,
                    "the URL names no service: redis-sentinel://HOST,HOST/SERVICE");
    if (decode(tail, size, out->service, sizeof out->service) != 0)
        return fail(error, error_size,
                    "the service's name is badly encoded or longer than %zu bytes",
                    sizeof out->service - 1);
    for (const char *at = out->service; *at != 0; at++)
        if ((unsigned char)*at <= ' ' || *at == 0x7f)
            return fail(error, error_size, "the service's name holds a space or control character");
    return parse_tail(tail + size, out, error, error_size);
}

static int parse_cluster(const char *rest, redis_url *out, char *error, size_t error_size)
{
    size_t authority = strcspn(rest, "/?");
    out->kind = URL_CLUSTER;
    if (parse_hosts(rest, authority, true, URL_PORT, out, error, error_size) != 0 ||
        parse_tail(rest + authority, out, error, error_size) != 0)
        return -1;
    return out->database == 0 ? 0 : fail(error, error_size, "a cluster has no database but 0");
}

/* "host:port/db"; "service at host:port,host:port/db"; what does not fit is left out. */
/* Append what has room; used stays below the size. */
static void describe_more(redis_url *url, size_t *used, const char *before, const char *text)
{
    size_t room = sizeof url->display - *used;
    int size = snprintf(url->display + *used, room, "%s%s", before, text);
    if (size > 0)
        *used += (size_t)size < room ? (size_t)size : room - 1;
}

static void describe(redis_url *url)
{
    char database[16];
    size_t used = 0;
    if (url->kind == URL_SENTINEL)
        describe_more(url, &used, url->service, " at ");
    for (size_t i = 0; i < url->place_count; i++) {
        char text[URL_PLACE_TEXT_MAX];
        url_place_text(&url->places[i], text);
        if (i != 0 && used + strlen(text) + 16 > sizeof url->display) {
            describe_more(url, &used, ",", "...");
            break;
        }
        describe_more(url, &used, i != 0 ? "," : "", text);
    }
    snprintf(database, sizeof database, "%u", url->database);
    if (url->kind != URL_CLUSTER)
        describe_more(url, &used, "/", database);
}

int url_parse(const char *text, redis_url *out, char *error, size_t error_size)
{
    static const struct {
        const char *scheme;
        bool tls;
        int (*parse)(const char *rest, redis_url *out, char *error, size_t error_size);
    } forms[] = {{"redis://", false, parse_tcp},
                 {"rediss://", true, parse_tcp},
                 {"unix://", false, parse_unix},
                 {"redis-sentinel://", false, parse_sentinel},
                 {"rediss-sentinel://", true, parse_sentinel},
                 {"redis-cluster://", false, parse_cluster},
                 {"rediss-cluster://", true, parse_cluster}};
    memset(out, 0, sizeof *out);
    if (text == NULL || *text == 0)
        return fail(error, error_size, "the URL is empty");
    if (strlen(text) > 2048)
        return fail(error, error_size, "the URL is longer than 2048 bytes");
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        size_t size = strlen(forms[i].scheme);
        if (strncmp(text, forms[i].scheme, size) == 0) {
            out->tls = forms[i].tls;
            if (forms[i].parse(text + size, out, error, error_size) != 0)
                return -1;
            describe(out);
            return 0;
        }
    }
    return fail(error, error_size,
                "a Redis URL begins with redis://, rediss://, unix://, redis-sentinel:// or "
                "redis-cluster:// (redis://localhost:6379/0, unix:///run/redis/redis.sock)");
}
