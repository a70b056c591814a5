/* cluster.c: see cluster.h. */
#include "tests/redis/cluster.h"
#include "tests/ports.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE_MS 20000

static void expect_ok(char *reply)
{
    ck_assert_msg(reply != NULL && strcmp(reply, "OK") == 0, "%s", reply == NULL ? "nil" : reply);
    free(reply);
}

static void start_node(cluster_servers *self, int i, const char *const extra[])
{
    const char *fixed[] = {"--bind",
                           "127.0.0.1",
                           "--cluster-enabled",
                           "yes",
                           "--cluster-port",
                           self->bus_ports[i],
                           "--cluster-node-timeout",
                           "1000",
                           "--cluster-replica-validity-factor",
                           "0",
                           "--repl-diskless-sync-delay",
                           "0",
                           "--repl-ping-replica-period",
                           "1"};
    const char *plain[] = {"--port", self->ports[i]};
    const char *tls[] = {"--port",
                         "0",
                         "--tls-port",
                         self->ports[i],
                         "--tls-cluster",
                         "yes",
                         "--tls-auth-clients",
                         "no",
                         "--tls-cert-file",
                         self->tls[0],
                         "--tls-key-file",
                         self->tls[1],
                         "--tls-ca-cert-file",
                         self->tls[2]};
    bool with_tls = self->tls[0][0] != 0;
    char name[16];
    size_t count = 0;
    for (size_t k = 0; k < (with_tls ? sizeof tls : sizeof plain) / sizeof *tls; k++)
        self->extra[i][count++] = with_tls ? tls[k] : plain[k];
    for (size_t k = 0; k < sizeof fixed / sizeof *fixed; k++)
        self->extra[i][count++] = fixed[k];
    for (size_t k = 0; extra != NULL && extra[k] != NULL; k++)
        self->extra[i][count++] = extra[k];
    self->extra[i][count] = NULL;
    self->nodes[i].extra = self->extra[i];
    (void)snprintf(name, sizeof name, "node%d", i);
    harness_redis_start(&self->nodes[i], name);
    char *id = harness_redis_command(&self->nodes[i], "CLUSTER", "MYID", NULL);
    (void)snprintf(self->ids[i], sizeof self->ids[i], "%s", id);
    free(id);
}

struct knows {
    cluster_servers *self;
    int node;
};

static bool knows_all(void *context)
{
    struct knows *knows = context;
    char *nodes = harness_redis_command(&knows->self->nodes[knows->node], "CLUSTER", "NODES", NULL);
    bool all = strstr(nodes, "handshake") == NULL;
    for (int i = 0; i < knows->self->count; i++)
        all = all && strstr(nodes, knows->self->ids[i]) != NULL;
    free(nodes);
    return all;
}

static bool all_well(void *context)
{
    cluster_servers *self = context;
    for (int i = 0; i < self->count; i++) {
        if (self->nodes[i].process.pid == 0)
            continue;
        char *info = harness_redis_command(&self->nodes[i], "CLUSTER", "INFO", NULL);
        bool well = strstr(info, "cluster_state:ok") != NULL;
        free(info);
        if (!well)
            return false;
    }
    return true;
}

void cluster_is_well(cluster_servers *self)
{
    if (!wait_until(all_well, self, PATIENCE_MS)) {
        char *log = harness_log(&self->nodes[0].process);
        ck_abort_msg("the cluster is not well; node 0:\n%s", log);
    }
}

static bool replicas_linked(void *context)
{
    cluster_servers *self = context;
    for (int i = self->masters; i < self->count; i++) {
        char *info = harness_redis_command(&self->nodes[i], "INFO", "replication", NULL);
        bool linked = strstr(info, "master_link_status:up") != NULL;
        free(info);
        if (!linked)
            return false;
    }
    return true;
}

static void start(cluster_servers *self, int masters, bool replicas, const char *const extra[])
{
    self->masters = masters;
    self->count = replicas ? 2 * masters : masters;
    for (int i = 0; i < self->count; i++) {
        ck_assert(port_claim(self->ports[i]) && port_claim(self->bus_ports[i]));
        start_node(self, i, extra);
    }
    for (int i = 0; i < masters; i++) {
        char first[8], last[8];
        (void)snprintf(first, sizeof first, "%u", CLUSTER_SLOTS * (unsigned)i / (unsigned)masters);
        (void)snprintf(last, sizeof last, "%u",
                       CLUSTER_SLOTS * (unsigned)(i + 1) / (unsigned)masters - 1);
        expect_ok(
            harness_redis_command(&self->nodes[i], "CLUSTER", "ADDSLOTSRANGE", first, last, NULL));
    }
    for (int i = 0; i < self->count; i++) {
        char epoch[16];
        (void)snprintf(epoch, sizeof epoch, "%d", i + 1);
        expect_ok(
            harness_redis_command(&self->nodes[i], "CLUSTER", "SET-CONFIG-EPOCH", epoch, NULL));
    }
    for (int i = 1; i < self->count; i++)
        expect_ok(harness_redis_command(&self->nodes[0], "CLUSTER", "MEET", "127.0.0.1",
                                        self->ports[i], self->bus_ports[i], NULL));
    for (int i = 0; i < self->count; i++) {
        struct knows knows = {self, i};
        ck_assert_msg(wait_until(knows_all, &knows, PATIENCE_MS), "node %d does not know all", i);
    }
    for (int i = masters; i < self->count; i++)
        expect_ok(harness_redis_command(&self->nodes[i], "CLUSTER", "REPLICATE",
                                        self->ids[i - masters], NULL));
    cluster_is_well(self);
    ck_assert(wait_until(replicas_linked, self, PATIENCE_MS));
}

void cluster_start(cluster_servers *self, int masters, bool replicas, const char *const extra[])
{
    memset(self, 0, sizeof *self);
    start(self, masters, replicas, extra);
}

void cluster_start_tls(cluster_servers *self, int masters, const char *certificate)
{
    memset(self, 0, sizeof *self);
    (void)snprintf(self->tls[0], sizeof self->tls[0], "%s", harness_path("%s.crt", certificate));
    (void)snprintf(self->tls[1], sizeof self->tls[1], "%s", harness_path("%s.key", certificate));
    (void)snprintf(self->tls[2], sizeof self->tls[2], "%s", harness_path("ca.crt"));
    start(self, masters, false, NULL);
}

void cluster_end(cluster_servers *self)
{
    for (int i = 0; i < self->count; i++)
        if (self->nodes[i].process.pid != 0)
            harness_redis_kill(&self->nodes[i]);
}

const char *cluster_url(const cluster_servers *self, int from, int count)
{
    static char url[256];
    int size = snprintf(url, sizeof url, "redis%s-cluster://", self->tls[0][0] != 0 ? "s" : "");
    for (int i = from; i < from + count; i++)
        size += snprintf(url + size, sizeof url - (size_t)size, "%s127.0.0.1:%s",
                         i == from ? "" : ",", self->ports[i]);
    return url;
}

unsigned cluster_slot(cluster_servers *self, const char *key)
{
    for (int i = 0; i < self->count; i++) {
        if (self->nodes[i].process.pid == 0)
            continue;
        char *slot = harness_redis_command(&self->nodes[i], "CLUSTER", "KEYSLOT", key, NULL);
        unsigned number = (unsigned)strtoul(slot, NULL, 10);
        free(slot);
        return number;
    }
    ck_abort_msg("no node runs");
}

static int by_port(const cluster_servers *self, const char *port, size_t size)
{
    for (int i = 0; i < self->count; i++)
        if (strlen(self->ports[i]) == size && strncmp(self->ports[i], port, size) == 0)
            return i;
    return -1;
}

int cluster_owner(cluster_servers *self, unsigned slot)
{
    int found = -1;
    for (int i = 0; i < self->count; i++) {
        if (self->nodes[i].process.pid == 0)
            continue;
        char *text = harness_redis_command(&self->nodes[i], "CLUSTER", "SLOTS", NULL);
        for (char *line = text; line != NULL && found < 0;) {
            /* first, last, host, port, ...: numbers below 16384 that are followed by a number begin
             * an entry */
            char *rest;
            unsigned long first = strtoul(line, &rest, 10);
            char *second = *rest == '\n' ? rest + 1 : NULL;
            char *host = second == NULL ? NULL : strchr(second, '\n');
            unsigned long last = second == NULL ? 0 : strtoul(second, &rest, 10);
            if (host != NULL && rest == host && rest != second && strncmp(host, "\n127.", 5) == 0 &&
                slot >= first && slot <= last) {
                char *port = strchr(host + 1, '\n') + 1;
                found = by_port(self, port, strcspn(port, "\n"));
            }
            line = strchr(line, '\n');
            line = line == NULL ? NULL : line + 1;
        }
        free(text);
        return found;
    }
    return -1;
}

/* The key's plain value, from whoever serves it. */
static char *get(cluster_servers *self, const char *key)
{
    int owner = cluster_owner(self, cluster_slot(self, key));
    return owner < 0 || self->nodes[owner].process.pid == 0
               ? NULL
               : harness_redis_command(&self->nodes[owner], "GET", key, NULL);
}

bool cluster_has(cluster_servers *self, const char *key, const char *value)
{
    char *found = get(self, key);
    bool same = found == NULL || value == NULL ? found == value : strcmp(found, value) == 0;
    free(found);
    return same;
}

struct wanted {
    cluster_servers *self;
    const char *key, *value;
};

static bool has(void *context)
{
    struct wanted *wanted = context;
    return cluster_has(wanted->self, wanted->key, wanted->value);
}

void cluster_comes_to(cluster_servers *self, const char *key, const char *value)
{
    struct wanted wanted = {self, key, value};
    if (!wait_until(has, &wanted, PATIENCE_MS)) {
        char *found = get(self, key);
        ck_abort_msg("the cluster has %.100s of %s instead of %.100s",
                     found == NULL ? "nothing" : found, key, value == NULL ? "nothing" : value);
    }
}

/* ---- Slots on the move ------------------------------------------------------------------------
 */

static void number(unsigned slot, char out[8])
{
    (void)snprintf(out, 8, "%u", slot);
}

void cluster_migrate_begin(cluster_servers *self, unsigned slot, int to)
{
    char text[8];
    int from = cluster_owner(self, slot);
    number(slot, text);
    expect_ok(harness_redis_command(&self->nodes[to], "CLUSTER", "SETSLOT", text, "IMPORTING",
                                    self->ids[from], NULL));
    expect_ok(harness_redis_command(&self->nodes[from], "CLUSTER", "SETSLOT", text, "MIGRATING",
                                    self->ids[to], NULL));
}

void cluster_migrate_keys(cluster_servers *self, unsigned slot, int to)
{
    char text[8];
    int from = cluster_owner(self, slot);
    number(slot, text);
    for (;;) {
        char *key =
            harness_redis_command(&self->nodes[from], "CLUSTER", "GETKEYSINSLOT", text, "1", NULL);
        if (key == NULL || *key == 0) {
            free(key);
            return;
        }
        char *moved = harness_redis_command(&self->nodes[from], "MIGRATE", "127.0.0.1",
                                            self->ports[to], key, "0", "5000", NULL);
        ck_assert_msg(strcmp(moved, "OK") == 0 || strcmp(moved, "NOKEY") == 0, "%s", moved);
        free(moved);
        free(key);
    }
}

void cluster_migrate_end(cluster_servers *self, unsigned slot, int to)
{
    char text[8];
    number(slot, text);
    expect_ok(harness_redis_command(&self->nodes[to], "CLUSTER", "SETSLOT", text, "NODE",
                                    self->ids[to], NULL));
    for (int i = 0; i < self->masters; i++)
        if (i != to && self->nodes[i].process.pid != 0)
            free(harness_redis_command(&self->nodes[i], "CLUSTER", "SETSLOT", text, "NODE",
                                       self->ids[to], NULL));
}
