/* cluster.h: a Redis Cluster for tests: nodes on loopback ports with the unix sockets of
 * tests/harness.h, joined by commands, slots spread evenly over the masters.
 */
#ifndef LARDER_TESTS_REDIS_CLUSTER_H
#define LARDER_TESTS_REDIS_CLUSTER_H

#include "tests/harness.h"

#define CLUSTER_NODES_MAX 6
#define CLUSTER_SLOTS 16384u

typedef struct cluster_servers {
    harness_redis nodes[CLUSTER_NODES_MAX]; /* masters first, then a replica of each, or none */
    char ports[CLUSTER_NODES_MAX][8], bus_ports[CLUSTER_NODES_MAX][8];
    char ids[CLUSTER_NODES_MAX][48];
    const char *extra[CLUSTER_NODES_MAX][32];
    int masters, count;
    char tls[3][256]; /* certificate, key, authority; "": without TLS */
} cluster_servers;

/* extra: of each server, NULL-terminated, or NULL. Returns when every node says that all is well.
 */
void cluster_start(cluster_servers *self, int masters, bool replicas, const char *const extra[]);
/* The same of masters that listen with TLS alone, each with that certificate (NAME.crt, NAME.key
 * and ca.crt of the test's directory), and ask for none. */
void cluster_start_tls(cluster_servers *self, int masters, const char *certificate);
void cluster_end(cluster_servers *self);
void cluster_is_well(cluster_servers *self); /* wait until all that run say so */

/* redis-cluster:// (rediss-cluster://), the given number of nodes from the first one on. */
const char *cluster_url(const cluster_servers *self, int from, int count);

unsigned cluster_slot(cluster_servers *self, const char *key); /* as Redis says */
/* Who serves it, by the view of the first node that runs; -1: nobody. */
int cluster_owner(cluster_servers *self, unsigned slot);

/* Does the cluster hold this plain value now? NULL: none. */
bool cluster_has(cluster_servers *self, const char *key, const char *value);
void cluster_comes_to(cluster_servers *self, const char *key, const char *value);

/* Let a slot begin to move; move its keys; let it have moved. */
void cluster_migrate_begin(cluster_servers *self, unsigned slot, int to);
void cluster_migrate_keys(cluster_servers *self, unsigned slot, int to);
void cluster_migrate_end(cluster_servers *self, unsigned slot, int to);

#endif
