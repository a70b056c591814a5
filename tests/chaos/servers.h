/* servers.h: the Redis side of the chaos test: redis-servers in network namespaces of their own,
 * killed, stopped, commanded, their clocks set: one alone, a master and a replica with Sentinels,
 * or a Redis Cluster (nodes.h). The test talks to them over unix sockets, which no cut reaches.
 */
#ifndef LARDER_TESTS_CHAOS_SERVERS_H
#define LARDER_TESTS_CHAOS_SERVERS_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/servers.h"
#include "tests/chaos/network.h"
#include "tests/chaos/wall_clock.h"

enum {
    MASTERS = 3, /* of the cluster; each has a replica */
    SERVERS_MAX = 2 * MASTERS,
    REDIS_PORT = 6379,
    SENTINEL_PORT = 26379,
    SENTINELS = 3,
    SLOTS = 16384
};

enum redis_form {
    REDIS_SINGLE,
    REDIS_SENTINEL, /* a master, a replica, three Sentinels */
    REDIS_CLUSTER,  /* three masters, three replicas */
    REDIS_FORMS
};

struct redis {
    struct place place;
    struct server server; /* for client_connect(): its socket */
    struct wall_clock clock;
    char directory[300], id[48]; /* id: as a node of the cluster */
    pid_t pid;                   /* 0: it does not run */
    bool frozen, keeps;          /* keeps: an append-only file, synced once a second */
};

struct redis_side {
    enum redis_form form;
    bool scripts; /* else the servers refuse them */
    struct redis servers[SERVERS_MAX];
    unsigned count;
    struct place sentinel_places[SENTINELS];
    struct server sentinel_servers[SENTINELS]; /* for client_connect() */
    pid_t sentinels[SENTINELS];
    char url[300];
    unsigned char owner[SLOTS]; /* which server a key is at: as redis_whole() has found it */
    char missing[200];          /* what it lacked when redis_whole() looked last */
};

void redis_side_begin(struct redis_side *side, enum redis_form form, bool keeps, bool scripts);
/* For each key there is one server that all must agree with, and everybody knows it; replicas have
 * caught up; no slot is on the move. */
bool redis_whole(struct redis_side *side);
/* What an operator would do about what does not mend itself: slots that were left half moved, and,
 * once there was time enough for gossip, those that not all see at the same node. */
void redis_mend(struct redis_side *side, bool gossiped);
const struct redis *redis_of(const struct redis_side *side, const void *name, size_t size);

/* 'm': master; 'r': replica that has caught up; '?': anything else. */
char redis_role(const struct redis *redis);
/* Again, after a kill: where another one is the master by now, as its replica. */
void redis_restart(struct redis_side *side, struct redis *redis);
void redis_kill(struct redis *redis);
void redis_freeze(struct redis *redis);
void redis_thaw(struct redis *redis);
bool redis_answers(const struct redis *redis); /* it runs and is not frozen */
bool redis_all_answer(const struct redis_side *side);
/* One command of words; whether the answer was not an error (READONLY, LOADING, OOM, MOVED ...). */
bool redis_tell(const struct redis *redis, const char *const *words);
/* Have the replica, or the Sentinels, put another master in the place of the one there is. */
bool redis_switch_master(struct redis_side *side, const struct redis *replica, bool forced);
/* Nothing of this one reaches the other servers and Sentinels, nor of these it; hosts reach it. */
void redis_split(const struct redis_side *side, const struct redis *redis, bool split);
/* Fails the test if a server has ended by itself. */
void redis_side_look(struct redis_side *side);
void redis_side_end(struct redis_side *side);

#endif
