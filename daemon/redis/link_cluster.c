/* link_cluster.c: a session with a cluster: what link.c does for one server, for each of its
 * masters, and the one run id that stands for all of theirs. See link.h.
 */
#include "daemon/redis/link_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static connection *open_connection(void *context, const url_place *place,
                                   const connection_callbacks *callbacks, void *owner)
{
    return link_open(context, place, callbacks, owner);
}

static bool greet(void *context, connection *to)
{
    return link_greet(context, to);
}

/* The channel is read at the stream's node: its messages come from there, before those of others.
 */
static void on_mapped(void *context)
{
    struct link *self = context;
    uint16_t slot = names_slot((const uint8_t *)self->stream, strlen(self->stream));
    const url_place *place = cluster_place(self->cluster, slot);
    if (self->foreign_unwatched)
        self->callbacks.warned(self->context,
                               "redis.foreign is of no effect with a cluster: what other programs "
                               "change there is noticed when it is read");
    self->foreign_unwatched = false;
    memset(self->run_ids, 0, SLOTS_NODES_MAX * sizeof *self->run_ids);
    self->run_ids_known = 0;
    if (place == NULL)
        link_fail(self, SYNC_NOT_READY, "nobody serves the slot of the event stream", false, false);
    else if (!link_open_channel(self, place))
        link_fail(self, SYNC_LOST_CONNECTION, "no memory for a connection", false, false);
}

static void on_up(void *context, size_t node, connection *to)
{
    struct link *self = context;
    const char *info[] = {"INFO", "server", "replication", "commandstats"},
               *state[] = {"CLUSTER", "INFO"};
    if (!link_greet(self, to) || !link_send_scripts(self, to) ||
        !link_send(self, to, REQUEST_STATE, 0, 0, NULL, 2, state, NULL) ||
        !link_send(self, to, REQUEST_SERVER, (uint32_t)node, 0, NULL, 4, info, NULL))
        link_fail(self, SYNC_LOST_CONNECTION, "no memory for the greeting", false, false);
}

static void on_idle(void *context)
{
    struct link *self = context;
    if (self->told_connected)
        self->callbacks.idle(self->context);
}

static void on_down(void *context, const connection *of, const char *why, bool timed_out,
                    bool protocol, bool forbidden)
{
    forbidden = forbidden || connection_refused(of);
    link_fail(context, forbidden ? SYNC_NO_PERMISSION : SYNC_LOST_CONNECTION, why, timed_out,
              protocol);
}

bool link_cluster_create(struct link *self)
{
    static const cluster_callbacks callbacks = {open_connection,      greet,   on_mapped, on_up,
                                                link_commands_answer, on_idle, on_down};
    const redis_url *url = &self->settings.url;
    self->foreign_unwatched = self->settings.foreign != LINK_FOREIGN_OFF;
    self->settings.foreign = LINK_FOREIGN_OFF; /* both ways would be wanted of every node */
    self->run_ids = calloc(SLOTS_NODES_MAX, sizeof *self->run_ids);
    self->flushed = calloc(SLOTS_NODES_MAX, sizeof *self->flushed);
    self->cluster =
        cluster_create(self->settings.base, url->places, url->place_count, &callbacks, self);
    return self->run_ids != NULL && self->flushed != NULL && self->cluster != NULL;
}

/* A node that was started again takes a while until it serves its slots; a session before that
 * would end with the first push. (Where it may not be asked, that is how it is noticed.) */
void link_cluster_state(struct link *self, const reply *got)
{
    if (got->kind == REPLY_STRING && strstr(got->text, "cluster_state:fail") != NULL)
        link_fail(self, SYNC_NOT_READY, "CLUSTERDOWN a node says that the cluster is down", false,
                  false);
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* One of another node, or of a node that was started again, is another server to the machine:
 * something may be lost there. Where one is not known, none is. */
static void sum_up(struct link *self)
{
    size_t nodes = cluster_nodes(self->cluster);
    qsort(self->run_ids, nodes, sizeof *self->run_ids, compare_texts);
    self->run_id[0] = self->history[0] = 0;
    if (self->run_ids[0][0] == 0) /* unknown ones are sorted to the front */
        return;
    uint64_t sum = replica_value_hash(self->run_ids, nodes * sizeof *self->run_ids);
    snprintf(self->run_id, sizeof self->run_id, "cluster-%zu-%016llx", nodes,
             (unsigned long long)sum);
    snprintf(self->history, sizeof self->history, "%s", self->run_id);
}

/* FLUSHALL of the node that has the stream shows by that; of another one by this alone. */
static uint64_t count_flushes(const reply *got)
{
    char all[200], database[200];
    link_info_field(got, "cmdstat_flushall:calls=", all, sizeof all);
    link_info_field(got, "cmdstat_flushdb:calls=", database, sizeof database);
    return strtoull(all, NULL, 10) + strtoull(database, NULL, 10);
}

void link_cluster_server(struct link *self, size_t node, const reply *got)
{
    if (node >= cluster_nodes(self->cluster))
        return;
    self->run_ids[node][0] = 0;
    if (got->kind == REPLY_STRING && self->history[0] != 0) {
        self->flushed[node] = count_flushes(got);
        snprintf(self->run_ids[node], sizeof *self->run_ids, "%.41s-%04x", self->history,
                 (unsigned)(self->flushed[node] & 0xffff));
    }
    if (++self->run_ids_known < cluster_nodes(self->cluster))
        return;
    sum_up(self);
    self->commands_ready = true;
}

/* The next session finds another history, and compares all. */
void link_cluster_flushed(struct link *self, size_t node, const reply *got)
{
    if (got->kind == REPLY_STRING && node < cluster_nodes(self->cluster) &&
        count_flushes(got) != self->flushed[node])
        link_fail(self, SYNC_LOST_CONNECTION, "a node of the cluster was flushed", false, false);
}

/* Where INFO may be asked for, it is asked for also while much else is under way: flushing shows
 * in nothing else. */
void link_cluster_ping(struct link *self)
{
    const char *ping[] = {"PING"}, *info[] = {"INFO", "commandstats"};
    for (size_t i = 0; i < cluster_nodes(self->cluster); i++) {
        connection *to = cluster_connection(self->cluster, i);
        bool sent = true;
        if (self->run_id[0] != 0)
            sent = link_send(self, to, REQUEST_FLUSHED, (uint32_t)i, 0, NULL, 2, info, NULL);
        else if (connection_waiting(to) == 0)
            sent = link_send(self, to, REQUEST_PING, 0, 0, NULL, 1, ping, NULL);
        if (!sent) {
            link_fail(self, SYNC_LOST_CONNECTION, "no memory for a request", false, false);
            return;
        }
    }
    cluster_refresh(self->cluster);
}
