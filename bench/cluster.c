/* cluster.c: see cluster.h. */
#include "bench/cluster.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "tests/multi/harness.h"
#include "tests/ports.h"

enum { SLOTS = 16384, JOIN_MS = 20000 };

static void tell(struct cluster *cluster, unsigned node, size_t count, const char *const *words)
{
    struct reply reply = client_words(&cluster->clients[node], count, words);
    test_check(reply.type == '+', "%s %s: %.*s", words[0], words[1], (int)reply.size, reply.text);
}

static bool is_well(struct cluster *cluster)
{
    char known[40];
    int size = snprintf(known, sizeof known, "cluster_known_nodes:%u\r", cluster->count);
    for (unsigned i = 0; i < cluster->count; i++) {
        struct reply info =
            client_words(&cluster->clients[i], 2, (const char *const[]){"CLUSTER", "INFO"});
        test_check(info.type == '$', "CLUSTER INFO: %c", info.type);
        if (memmem(info.text, info.size, "cluster_state:ok", 16) == NULL ||
            memmem(info.text, info.size, known, (size_t)size) == NULL)
            return false;
    }
    return true;
}

static void join(struct cluster *cluster, char ports[][8], char bus_ports[][8])
{
    for (unsigned i = 0; i < cluster->count; i++) {
        char first[16], last[16], epoch[16];
        snprintf(first, sizeof first, "%u", SLOTS * i / cluster->count);
        snprintf(last, sizeof last, "%u", SLOTS * (i + 1) / cluster->count - 1);
        snprintf(epoch, sizeof epoch, "%u", i + 1);
        tell(cluster, i, 4, (const char *const[]){"CLUSTER", "ADDSLOTSRANGE", first, last});
        tell(cluster, i, 3, (const char *const[]){"CLUSTER", "SET-CONFIG-EPOCH", epoch});
    }
    for (unsigned i = 1; i < cluster->count; i++)
        tell(cluster, 0, 5,
             (const char *const[]){"CLUSTER", "MEET", "127.0.0.1", ports[i], bus_ports[i]});
    test_until(is_well(cluster), JOIN_MS, "the cluster does not come together: see %s",
               cluster->nodes[0].log);
}

static void start_node(struct cluster *cluster, unsigned node, const char *const *settings)
{
    char name[16];
    snprintf(name, sizeof name, "redis%u", node);
    server_redis_start(&cluster->nodes[node], name, settings);
    test_check(client_connect(&cluster->clients[node], &cluster->nodes[node]), "connect");
}

void cluster_start(struct cluster *cluster, unsigned masters)
{
    char ports[2 * CLUSTER_MASTERS_MAX][8];
    memset(cluster, 0, sizeof *cluster);
    test_check(masters == 0 || (masters >= 3 && masters <= CLUSTER_MASTERS_MAX), "%u masters",
               masters);
    cluster->count = masters == 0 ? 1 : masters;
    if (masters == 0) {
        start_node(cluster, 0, NULL);
        snprintf(cluster->url, sizeof cluster->url, "%s", cluster->nodes[0].url);
        return;
    }
    for (unsigned i = 0; i < 2 * masters; i++)
        test_check(port_claim(ports[i]), "no port");
    for (unsigned i = 0; i < masters; i++) {
        char file[16];
        snprintf(file, sizeof file, "nodes%u.conf", i);
        start_node(cluster, i,
                   (const char *const[]){"--bind", "127.0.0.1", "--port", ports[i],
                                         "--cluster-enabled", "yes", "--cluster-port",
                                         ports[masters + i], "--cluster-config-file", file, NULL});
    }
    join(cluster, ports, ports + masters);
    snprintf(cluster->url, sizeof cluster->url, "redis-cluster://127.0.0.1:%s,127.0.0.1:%s",
             ports[0], ports[1]);
}

struct reply cluster_get(struct cluster *cluster, const char *key)
{
    struct reply reply = {0};
    for (unsigned i = 0; i < cluster->count; i++) { /* the others say MOVED */
        reply = client_words(&cluster->clients[i], 2, (const char *const[]){"GET", key});
        if (reply.type != '-')
            return reply;
    }
    test_fail("GET %s: %.*s", key, (int)reply.size, reply.text);
}

void cluster_end(struct cluster *cluster)
{
    for (unsigned i = 0; i < cluster->count; i++) {
        client_close(&cluster->clients[i]);
        server_end(&cluster->nodes[i], SIGTERM);
    }
}
