/* cluster.h: the connections of one session with a Redis Cluster: finds the nodes from any of those
 * that the URL names, keeps a connection to each master, and sends each command to the node that
 * serves its key, following redirections. Beneath link.c, which sees one connection: commands go
 * in, replies come out (in the order of each node, not of all). What the commands mean is the
 * link's affair, as are greeting and run ids.
 *
 * A session is with all masters or with none: where one is lost, or other nodes become masters, it
 * ends, and the next one begins with a new map.
 */
#ifndef LARDER_DAEMON_REDIS_CLUSTER_H
#define LARDER_DAEMON_REDIS_CLUSTER_H

#include "daemon/redis/connection.h"
#include "daemon/redis/slots.h"

#define CLUSTER_TAGS 0x10000u /* kinds of tags from here on are cluster.c's own */

/* The reply that stands for "not now": the slot is on its way to another node. */
#define CLUSTER_LATER "LATER"

typedef struct cluster_callbacks { /* none is called from within a cluster_ function */
    /* Open a connection; as connection_open(). The one that is called from within functions. */
    connection *(*open)(void *context, const url_place *place,
                        const connection_callbacks *callbacks, void *owner);
    /* Authenticate: the replies come to answer(). false: it could not be sent. As open(). */
    bool (*greet)(void *context, connection *to);
    /* The map is known; connections to all nodes are being opened. */
    void (*mapped)(void *context);
    /* This node's connection is there: it must be greeted. */
    void (*up)(void *context, size_t node, connection *to);
    void (*answer)(void *context, const connection_tag *tag, const reply *answer, int64_t sent_us);
    void (*idle)(void *context);
    /* The session is over; cluster_disconnect() follows. of: the connection that ended it, or NULL.
     * forbidden: it would be so again until somebody has put it right. */
    void (*down)(void *context, const connection *of, const char *why, bool timed_out,
                 bool protocol, bool forbidden);
} cluster_callbacks;

typedef struct cluster cluster;

/* seeds: the URL's places; copied. NULL: no memory. */
cluster *cluster_create(struct event_base *base, const url_place *seeds, size_t count,
                        const cluster_callbacks *callbacks, void *context);
void cluster_destroy(cluster **self);

/* Begin a session: mapped(), then up() for each node; or down(). */
void cluster_connect(cluster *self);
/* End it; nothing of it is called back any more. */
void cluster_disconnect(cluster *self);

/* Once mapped: */
size_t cluster_nodes(const cluster *self);
connection *cluster_connection(const cluster *self, size_t node);
/* Who serves this slot; NULL: nobody. */
const url_place *cluster_place(const cluster *self, uint16_t slot);

/* Send a command to the node that serves its first key (without one: to any). false: no memory, or
 * no session. */
bool cluster_send(cluster *self, const connection_tag *tag, int count, const char *const *arguments,
                  const size_t *sizes);

/* Called now and then: looks at the map again when it is time. */
void cluster_refresh(cluster *self);

void cluster_bytes(const cluster *self, uint64_t *sent, uint64_t *received);

#endif
