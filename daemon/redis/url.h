/* url.h: reads the URL of a Redis server. Pure text work: no lookup, no connection. Used by the
 * replicator and by larderd --check. It must never print a password, and refuses URLs that hold
 * one: a URL stands in argv and in logs.
 */
#ifndef LARDER_DAEMON_REDIS_URL_H
#define LARDER_DAEMON_REDIS_URL_H

#include <stddef.h>
#include <stdint.h>

#define URL_DATABASE_MAX 65535u

enum url_kind { URL_TCP = 1, URL_UNIX = 2 };

typedef struct redis_url {
    enum url_kind kind;
    char host[256]; /* name or address, without brackets; TCP */
    uint16_t port;
    char path[108]; /* fits sockaddr_un with its 0; UNIX */
    uint32_t database;
    char user[128];    /* "" : none */
    char display[384]; /* for people: "host:port/db" or "unix:/path/db" */
} redis_url;

/* 0, or -1 and a sentence in error. */
int url_parse(const char *text, redis_url *out, char *error, size_t error_size);

#endif
