/* url.h: reads the URL of a Redis server, of Sentinels or of a cluster. Pure text work: no lookup,
 * no connection. Used by the replicator and by larderd --check. It must never print a password, and
 * refuses URLs that hold one: a URL stands in argv and in logs.
 */
#ifndef LARDER_DAEMON_REDIS_URL_H
#define LARDER_DAEMON_REDIS_URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define URL_DATABASE_MAX 65535u
#define URL_PLACES_MAX 16u      /* Sentinels, or nodes to begin with, in one URL */
#define URL_PLACE_TEXT_MAX 272u /* bytes of url_place_text() with its 0 */
#define URL_PORT 6379u
#define URL_PORT_SENTINEL 26379u

enum url_kind {
    URL_TCP = 1,  /* one server: places[0] */
    URL_UNIX = 2, /* one server: places[0], whose path is set */
    URL_SENTINEL, /* the server that these Sentinels call service */
    URL_CLUSTER   /* the cluster that these nodes are of; database is 0 */
};

typedef struct url_place { /* where something listens */
    char host[256];        /* name or address, without brackets; "" where there is a path */
    uint16_t port;
    char path[108]; /* fits sockaddr_un with its 0 */
} url_place;

typedef struct redis_url {
    enum url_kind kind;
    bool tls;
    url_place places[URL_PLACES_MAX];
    size_t place_count; /* at least 1 */
    char service[128];  /* SENTINEL */
    uint32_t database;
    char user[128];    /* of the servers (not of the Sentinels); "" : none */
    char display[512]; /* for people: "host:port/db" or "unix:/path/db" */
} redis_url;

/* 0, or -1 and a sentence in error. */
int url_parse(const char *text, redis_url *out, char *error, size_t error_size);

/* A place that a server named (host of size bytes, port as a number). false: no host has such a
 * name, or there is no such port. */
bool url_place_set(url_place *out, const char *host, size_t size, long long port);

/* "host:port", "[::1]:port" or "unix:/path". */
void url_place_text(const url_place *place, char out[URL_PLACE_TEXT_MAX]);

bool url_place_same(const url_place *a, const url_place *b);

#endif
