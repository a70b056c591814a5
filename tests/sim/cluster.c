/* cluster.c: which node of the simulated Redis Cluster has what: slots that move while they are
 * written (MOVED, ASK, TRYAGAIN), and nodes that are replaced by a replica which lacks the last
 * writes, or start empty. One server is a cluster of one node. Called by server.c, host.c and
 * world.c.
 */
#include "tests/sim/sim.h"

#include <string.h>

bool server_is_cluster(void)
{
    return sim.server.nodes > 1;
}

void cluster_begin(void)
{
    sim.server.nodes = 2 + sim_pick(SERVERS_MAX - 1);
    for (unsigned k = 0; k < KEYS_MAX; k++)
        sim.server.slots[k].owner = sim_pick(sim.server.nodes);
}

/* ---- Slots that move --------------------------------------------------------------------------
 */

/* -1: a request to any node. */
static int slot_of(const request *r)
{
    switch (r->kind) {
    case ASK_PUSH:
    case ASK_FETCH:
    case ASK_RECORD:
        return r->key;
    case ASK_CONNECT:
    case ASK_LOAD:
        return -1;
    default:
        return STREAM_SLOT;
    }
}

/* Where its content is. */
static unsigned place_of(const slot *at)
{
    return at->state == SLOT_GONE ? at->to : at->owner;
}

bool cluster_redirects(request *r)
{
    int number = slot_of(r);
    if (!server_is_cluster() || number < 0)
        return false;
    const slot *at = &sim.server.slots[number];
    bool asking = r->asking && at->state == SLOT_GONE && r->server == at->to;
    r->asking = false;
    if (asking)
        return false;
    if (r->server != at->owner) { /* MOVED */
        r->server = at->owner;
        return true;
    }
    if (at->state != SLOT_GONE)
        return false;
    r->server = at->to; /* ASK */
    r->asking = true;
    return true;
}

/* TRYAGAIN: it names two keys, and while their slot moves they are not both where it came to: one
 * is here and one is there, or one is nowhere. (With neither here, Redis asks over there, and is
 * told so there.) */
bool cluster_tries_again(const request *r)
{
    int number = slot_of(r);
    if (number < 0 || sim.server.slots[number].state == SLOT_RESTS)
        return false;
    const server_data *data = &sim.server.data;
    bool whole = true;
    switch (r->kind) {
    case ASK_PUSH:
    case ASK_FETCH:
        whole = data->keys[r->key].there && server_plain_there(&data->keys[r->key]);
        break;
    case ASK_MARK:
        whole = data->marks_id != 0 && data->stream_there;
        break;
    case ASK_JOIN:
        whole = data->stream_there && server_knows_node(r->node);
        break;
    default:
        return false;
    }
    return !whole || sim.server.slots[number].state == SLOT_SPLIT;
}

/* It begins to move, moves, or has moved, with all that stands there. */
void server_migrate(int number)
{
    slot *at = &sim.server.slots[number];
    const char *name = number == STREAM_SLOT ? "the stream" : sim.key_names[number];
    switch (at->state) {
    case SLOT_RESTS:
        at->to = (at->owner + 1 + sim_pick(sim.server.nodes - 1)) % sim.server.nodes;
        at->state = SLOT_LEAVES;
        break;
    case SLOT_LEAVES:
        at->state = SLOT_SPLIT;
        break;
    case SLOT_SPLIT:
        at->state = SLOT_GONE;
        break;
    case SLOT_GONE:
        at->owner = at->to;
        at->state = SLOT_RESTS;
    }
    TRACE("redis: the slot of %s, of node %u, to node %u: %d", name, at->owner, at->to,
          (int)at->state);
}

void cluster_settle(void)
{
    for (int number = 0; number < SLOTS; number++)
        while (sim.server.slots[number].state != SLOT_RESTS)
            server_migrate(number);
}

/* ---- Nodes that are replaced ------------------------------------------------------------------
 */

static void copy_stream(server_data *to, const server_data *from)
{
    to->stream_there = from->stream_there;
    to->last_epoch = from->last_epoch;
    to->last_number = from->last_number;
    to->first = from->first;
    to->count = from->count;
    memcpy(to->stream + from->first, from->stream + from->first,
           (from->count - from->first) * sizeof *to->stream);
    memcpy(to->marks, from->marks, sizeof to->marks);
    to->marks_id = from->marks_id;
}

void server_replicate(void)
{
    server *self = &sim.server;
    memcpy(self->replica.keys, self->data.keys, sizeof self->data.keys);
    copy_stream(&self->replica, &self->data);
    for (int number = 0; number < SLOTS; number++)
        self->slots[number].replica_at = place_of(&self->slots[number]);
}

static bool concerns(unsigned node, unsigned one)
{
    return node == ALL_NODES || node == one;
}

static const char *name_of(unsigned node)
{
    bool of_stream = node == place_of(&sim.server.slots[STREAM_SLOT]);
    return node == ALL_NODES ? "all" : of_stream ? "the stream's node" : "a node of keys";
}

/* Half of it may be at the node: the value, whose record is still where it was. */
static void lose_half(unsigned node, int key)
{
    const slot *at = &sim.server.slots[key];
    stored *there = &sim.server.data.keys[key];
    if (node == ALL_NODES || at->state != SLOT_SPLIT || at->to != node)
        return;
    there->plain = false;
    there->unlinked = true;
}

/* What came to a node only lately, its replica has never seen. */
static bool replica_has(unsigned node, const slot *at)
{
    return node == ALL_NODES || at->replica_at == node;
}

static void lose_stream(void)
{
    sim.server.data.nodes = 0;
    server_lose_marks();
    server_forget_stream();
}

void server_fail_over(unsigned node)
{
    server *self = &sim.server;
    TRACE("redis: failover of %s", name_of(node));
    for (unsigned k = 0; k < sim.keys_count; k++) {
        const slot *at = &self->slots[k];
        lose_half(node, (int)k);
        if (!concerns(node, place_of(at)))
            continue;
        if (replica_has(node, at))
            self->data.keys[k] = self->replica.keys[k];
        else
            memset(&self->data.keys[k], 0, sizeof self->data.keys[k]);
    }
    const slot *stream = &self->slots[STREAM_SLOT];
    if (concerns(node, place_of(stream)) && replica_has(node, stream))
        copy_stream(&self->data, &self->replica);
    else if (concerns(node, place_of(stream)))
        lose_stream();
    if (!sim.calm && sim_one_in(2))
        server_set_clock((int64_t)sim_pick(4000) - 2000);
    server_is_another(node);
}

void cluster_empty(unsigned node)
{
    server *self = &sim.server;
    for (unsigned k = 0; k < sim.keys_count; k++) {
        lose_half(node, (int)k);
        if (concerns(node, place_of(&self->slots[k])))
            memset(&self->data.keys[k], 0, sizeof self->data.keys[k]);
    }
    if (concerns(node, place_of(&self->slots[STREAM_SLOT])))
        lose_stream();
}

void server_restart_empty(unsigned node)
{
    TRACE("redis: restart of %s, empty", name_of(node));
    cluster_empty(node);
    server_is_another(node);
}
