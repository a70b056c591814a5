/* servers.h: the Redis side of the chaos test: redis-servers in network namespaces of their own,
 * killed, stopped and commanded. The test talks to them over unix sockets, which no cut reaches.
 */
#ifndef LARDER_TESTS_CHAOS_SERVERS_H
#define LARDER_TESTS_CHAOS_SERVERS_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/servers.h"
#include "tests/chaos/network.h"

enum { SERVERS_MAX = 8, REDIS_PORT = 6379, SENTINEL_PORT = 26379, SENTINELS = 3 };

enum redis_form { REDIS_SINGLE, REDIS_SENTINEL /* a master, a replica, three Sentinels */ };

struct redis {
    struct place place;
    struct server server; /* for client_connect(): its socket */
    char directory[300];
    pid_t pid;          /* 0: it does not run */
    bool frozen, keeps; /* keeps: an append-only file, synced once a second */
};

struct redis_side {
    enum redis_form form;
    struct redis servers[SERVERS_MAX];
    unsigned count;
    struct place sentinel_places[SENTINELS];
    struct server sentinel_servers[SENTINELS]; /* for client_connect() */
    pid_t sentinels[SENTINELS];
    char url[300];
};

void redis_side_begin(struct redis_side *side, enum redis_form form, bool keeps);
/* The server that all must agree with; NULL while there is none, or more than one says so, its
 * replica has not caught up, or a Sentinel names another one. */
const struct redis *redis_master(const struct redis_side *side);
/* Again, after a kill: where another one is the master by now, as its replica. */
void redis_restart(struct redis_side *side, struct redis *redis);
void redis_kill(struct redis *redis);
void redis_freeze(struct redis *redis);
void redis_thaw(struct redis *redis);
bool redis_answers(const struct redis *redis); /* it runs and is not frozen */
/* One command of words; what it answers is not looked at (LOADING, OOM, ...). */
void redis_tell(const struct redis *redis, const char *const *words);
/* Fails the test if a server has ended by itself. */
void redis_side_look(struct redis_side *side);
void redis_side_end(struct redis_side *side);

#endif
