/* cluster.h: a Redis Cluster for benchmarks: masters on loopback ports, slots spread evenly, no
 * replicas; or one server on a unix socket in its place, so that a benchmark asks both alike. Its
 * own questions go over unix sockets. All die with the program that started them.
 */
#ifndef LARDER_BENCH_CLUSTER_H
#define LARDER_BENCH_CLUSTER_H

#include "bench/servers.h"

enum { CLUSTER_MASTERS_MAX = 6 };

struct cluster {
    struct server nodes[CLUSTER_MASTERS_MAX];
    struct client clients[CLUSTER_MASTERS_MAX];
    unsigned count;
    char url[128]; /* for larderd */
};

/* masters: 3 .. CLUSTER_MASTERS_MAX; 0: a server alone. Returns once every node says that all is
 * well. Fails after 20 s. */
void cluster_start(struct cluster *cluster, unsigned masters);
/* The plain value that Redis has of the key, whichever node serves it; type 0: none. Valid until
 * the next call. */
struct reply cluster_get(struct cluster *cluster, const char *key);
void cluster_end(struct cluster *cluster);

#endif
