/* slots.h: which node of a cluster serves which key: the map of slots that CLUSTER SLOTS answers,
 * the redirections that nodes answer instead, and the slot that a command belongs to. Pure;
 * whatever servers say is treated as hostile. Used by cluster.c.
 */
#ifndef LARDER_DAEMON_REDIS_SLOTS_H
#define LARDER_DAEMON_REDIS_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/redis/codec.h"
#include "daemon/redis/url.h"

#define SLOTS_COUNT 16384u
#define SLOTS_NODES_MAX 256u     /* masters of one cluster */
#define SLOTS_NOWHERE UINT16_MAX /* served by nobody; of a command: without a key */

typedef struct slots_map {
    url_place nodes[SLOTS_NODES_MAX]; /* the masters that have slots, each once */
    size_t node_count;
    uint16_t owner[SLOTS_COUNT]; /* index of nodes, or SLOTS_NOWHERE */
    size_t covered;              /* slots that somebody serves */
} slots_map;

/* Read the reply to CLUSTER SLOTS of the node at asked (a node that does not know its own address
 * is that one). false: a sentence in error, and out is of no use. */
bool slots_read(const reply *got, const url_place *asked, slots_map *out, char *error,
                size_t error_size);

/* The node's index, or -1. */
int slots_find(const slots_map *map, const url_place *place);

/* Are they the same nodes, in any order? Then place_of[i] of it is where b's node i stands in a. */
bool slots_same_nodes(const slots_map *a, const slots_map *b, uint16_t place_of[SLOTS_NODES_MAX]);

typedef struct slots_redirection {
    bool ask; /* this once (ASK); else from now on (MOVED) */
    uint16_t slot;
    url_place to;
} slots_redirection;

/* Is this error a redirection? asked: who gave it. */
bool slots_redirected(const reply *error, const url_place *asked, slots_redirection *out);

/* The slot of a command's first key; SLOTS_NOWHERE: it has none. Knows EVAL, EVALSHA and FCALL;
 * of any other command the first argument is the key. */
uint16_t slots_of_command(int count, const char *const *arguments, const size_t *sizes);

#endif
