/* servers.h: real servers for the benchmarks: redis-server on a unix socket, larderd ($LARDERD) on
 * a map, stopped, continued and ended by pid, and a small client of Redis's protocol with
 * pipelines. All die with the program that started them.
 */
#ifndef LARDER_BENCH_SERVERS_H
#define LARDER_BENCH_SERVERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "larder.h"

struct server {
    pid_t pid;    /* 0: not running */
    char port[8]; /* Redis listens there on the loopback, too, and is spoken to so; "": by socket */
    char log[300], socket[108], url[128];
};

/* Skip (exit 77) unless redis-server is installed and $LARDERD names a program. */
void servers_needed(void);

/* Returns once it answers. Keeps nothing on disk; memory stays with the process. settings: more
 * words of its command line, up to 16 and a NULL; NULL: none, and it listens on its socket alone.
 */
void server_redis_start(struct server *redis, const char *name, const char *const *settings);
/* Returns at once; the map is there when it is there. settings: text of its configuration file. */
void server_larderd_start(struct server *larderd, const char *name, const char *map,
                          const char *directory, const char *redis_url, const char *settings);
void server_freeze(struct server *server);
void server_thaw(struct server *server);
void server_end(struct server *server, int signal_number);

/* Wait until the daemon says that it is connected, or (up false) that it is not. */
void server_wait_redis(larder *handle, bool up, uint64_t milliseconds);
/* Wait until nothing waits to be sent. */
void server_wait_clean(larder *handle, uint64_t milliseconds);

/* ---- A client ------------------------------------------------------------------------------ */

struct client {
    int socket;
    char *out, *in;
    size_t out_size, out_used, in_size, in_used, in_at;
};

struct reply {
    char type;      /* + - : $ * and 0 for nil */
    int64_t number; /* of ':' and '*' (elements follow as replies of their own) */
    const char *text;
    size_t size; /* valid until the next call */
};

bool client_connect(struct client *client, const struct server *redis);
void client_close(struct client *client);
/* Append a command to the pipeline: count arguments. */
void client_append(struct client *client, size_t count, const char *const *arguments,
                   const size_t *sizes);
/* Send what was appended. */
void client_flush(struct client *client);
/* The next reply; fails after 60 s. Flushes first. */
struct reply client_reply(struct client *client);
/* One command of words, one reply. */
struct reply client_words(struct client *client, size_t count, const char *const *words);

#endif
