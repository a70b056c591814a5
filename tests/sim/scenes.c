/* scenes.c: schedules of several steps that chance hardly ever brings about, each of them one in
 * which some rule is all that stands between the fleet and a wrong value: something is under way,
 * is held up, and all the rest goes on. A seed plays them in the middle of everything else: what
 * they need may not be so, and then nothing comes of it. Called by world.c.
 */
#include "tests/sim/sim.h"

enum { TURNS_MAX = 60 };

/* ---- Moving one host on -----------------------------------------------------------------------
 */

/* The first request of that kind that Redis has not worked off yet; NULL: there is none. */
static const request *on_wire(const host *self, enum asked kind)
{
    for (uint64_t i = self->worked; i < self->tail; i++)
        if (self->asked[i % ASKED_MAX].kind == kind)
            return &self->asked[i % ASKED_MAX];
    return NULL;
}

static void pass_one(host *self)
{
    if (self->head < self->worked)
        host_give_reply(self);
    else if (self->worked < self->tail)
        host_work_one(self);
    else
        world_pass_time();
    host_say(self, SYNC_EV_IDLE);
}

/* This host alone, until it has sent a request of that kind. */
static const request *until_sent(host *self, enum asked kind)
{
    for (unsigned turn = 0; turn < TURNS_MAX && on_wire(self, kind) == NULL; turn++)
        pass_one(self);
    return on_wire(self, kind);
}

/* This host alone, until what it wrote is told and acknowledged. */
static bool until_told(host *self, size_t emitted)
{
    for (unsigned turn = 0; turn < TURNS_MAX; turn++) {
        if (sim.emitted != emitted && map_dirty(&self->map) == 0)
            return true;
        pass_one(self);
    }
    return false;
}

static bool settled(void)
{
    sim.server.orphan_count = 0;
    return world_settle_without(NULL);
}

static void all_go_on(unsigned turns)
{
    world_go_on_without(NULL, turns);
}

/* ---- The scenes -------------------------------------------------------------------------------
 */

/* A larderd has heard of a write, and is stopped before it can apply it. A failover forgets that
 * write, its writer loses it, too, and all have compared what they have when the old one wakes. */
static void wakes_with_what_nobody_knows(host *self, host *other, int key)
{
    if (self->ghost != NULL || !settled())
        return;
    server_replicate();
    size_t emitted = sim.emitted;
    map_set(other, key, REPLICA_VALUE, INT64_MAX);
    if (!until_told(other, emitted))
        return;
    while (self->heard_head < self->heard_tail)
        host_give_message(self);
    host_stop(self);
    if (sim.faults[FAULT_FAILOVER])
        server_fail_over(ALL_NODES);
    if (sim.faults[FAULT_WIPE])
        world_wipe(other);
    all_go_on(12);
    host_wake_ghost(self);
}

/* In a cluster: what was stored is told when something newer has been told long ago. One who has
 * joined in between hears the older one alone: who tells it, and nobody holds the newer one any
 * more; or who wrote that. */
static void is_told_late(host *self, host *other, int key)
{
    if (!server_is_cluster() || !sim.faults[FAULT_ORPHANS] || !settled())
        return;
    map_set(self, key, REPLICA_VALUE, INT64_MAX);
    const request *telling = until_sent(self, ASK_EMIT);
    if (telling == NULL)
        return;
    request late = *telling;
    TRACE("host %d: what it tells is held up", self->number);
    host_disconnect(self, SYNC_LOST_CONNECTION);
    map_set(other, key, sim_one_in(2) ? REPLICA_DELETED : REPLICA_VALUE, INT64_MAX);
    all_go_on(10);
    bool forgotten = sim_one_in(2);
    if (sim.faults[FAULT_EVICT])
        sim.now_ms += SIM_RECENTLY_MS + 1000;
    for (unsigned h = 0; forgotten && h < sim.hosts_count; h++) {
        if (sim.faults[FAULT_EVICT])
            map_evict(&sim.hosts[h], key);
        if (sim.faults[FAULT_FORGET])
            map_forget_tombstones(&sim.hosts[h]);
    }
    if (sim.faults[FAULT_WIPE])
        world_wipe(forgotten ? self : other);
    all_go_on(10);
    server_orphan(&late);
}

/* In a cluster: a failover forgets a write that nobody else had heard of. Its writer stores it once
 * more, when the others have compared, and dies before it can tell. */
static void dies_between_two_steps(host *self, int key)
{
    if (!server_is_cluster() || !sim.faults[FAULT_FAILOVER] || !settled())
        return;
    server_replicate();
    size_t emitted = sim.emitted;
    map_set(self, key, REPLICA_VALUE, INT64_MAX);
    if (!until_told(self, emitted))
        return;
    server_fail_over(ALL_NODES);
    world_go_on_without(self, 12);
    if (until_sent(self, ASK_EMIT) != NULL)
        host_start(self);
}

/* A map has become a copy of another's, and before it has a node id of its own, both write: one
 * version, two values. The lesser is stored when its host alone still holds the other one. */
static void write_one_version(host *self, host *other, int key)
{
    if (!sim.faults[FAULT_TWINS] || !sim.faults[FAULT_WIPE] || !settled())
        return;
    world_copy_map(other, self);
    map_set(self, key, REPLICA_VALUE, INT64_MAX);
    map_set(other, key, REPLICA_VALUE, INT64_MAX);
    uint64_t ours = self->map.keys[key].record.value_hash;
    bool lesser = ours < other->map.keys[key].record.value_hash;
    host *low = lesser ? self : other, *high = lesser ? other : self;
    const request *pushing = until_sent(low, ASK_PUSH);
    if (pushing == NULL || pushing->key != key)
        return;
    request late = *pushing;
    size_t emitted = sim.emitted;
    host_disconnect(low, SYNC_LOST_CONNECTION);
    if (!until_told(high, emitted))
        return;
    all_go_on(10);
    for (unsigned h = 0; h < sim.hosts_count; h++)
        if (&sim.hosts[h] != low)
            world_wipe(&sim.hosts[h]);
    all_go_on(10);
    server_orphan(&late);
}

/* In a cluster: a host fetches a value, and a worker writes another. That is stored, the connection
 * goes before it is told, and the fetch is repeated: it brings the host's own. */
static void fetches_its_own(host *self, host *other, int key)
{
    if (!sim.faults[FAULT_LARGE] || !settled())
        return;
    size_t emitted = sim.emitted;
    for (unsigned i = 0; i < 16; i++) {
        map_set(other, key, REPLICA_VALUE, INT64_MAX);
        if (sim_size(other->map.keys[key].record.value_hash) == LARGE_SIZE)
            break;
    }
    if (!until_told(other, emitted))
        return;
    while (self->heard_head < self->heard_tail)
        host_give_message(self);
    host_say(self, SYNC_EV_IDLE);
    if (on_wire(self, ASK_FETCH) == NULL)
        return;
    map_set(self, key, REPLICA_VALUE, INT64_MAX);
    for (unsigned turn = 0; turn < TURNS_MAX && on_wire(self, ASK_PUSH) == NULL; turn++)
        world_pass_time();
    while (self->worked < self->tail)
        host_work_one(self);
    host_disconnect(self, SYNC_LOST_CONNECTION);
}

/* A host is new here, and has written something, when Redis loses all: it was never away, though it
 * has not stored its place yet. */
static void is_new_when_all_is_lost(host *self, int key)
{
    if (!sim.faults[FAULT_WIPE] || !sim.faults[FAULT_EMPTY] || !settled())
        return;
    world_wipe(self);
    size_t emitted = sim.emitted;
    map_set(self, key, REPLICA_VALUE, INT64_MAX);
    if (until_told(self, emitted) && self->map.position.epoch == 0)
        server_restart_empty(ALL_NODES);
}

/* A host has heard of a deletion, and its map is busy. A failover forgets that, something newer is
 * written, and all of it is told where this host will not read it: it begins at the stream's end,
 * and looks for what its map has, but not for what it is still to apply. (It would apply that
 * first, to exchange invalidations: those are refused.) */
static void heard_what_a_failover_forgets(host *self, host *other, int key)
{
    if (!sim.faults[FAULT_BUSY] || !sim.faults[FAULT_FAILOVER] || !sim.faults[FAULT_MARKS] ||
        !settled())
        return;
    server_replicate();
    size_t emitted = sim.emitted;
    map_set(other, key, REPLICA_DELETED, INT64_MAX);
    if (!until_told(other, emitted))
        return;
    self->busy = true;
    while (self->heard_head < self->heard_tail)
        host_give_message(self);
    host_say(self, SYNC_EV_IDLE);
    server_fail_over(ALL_NODES);
    map_set(other, key, REPLICA_VALUE, INT64_MAX);
    world_go_on_without(self, 12);
    many_invalidate(self, MARK_BUCKET + (key + 1) % BUCKETS);
    sim.server.refused |= 1U << STREAM_SLOT;
    for (unsigned turn = 0; turn < TURNS_MAX; turn++)
        pass_one(self);
    sim.server.refused &= ~(1U << STREAM_SLOT);
}

/* Groups are invalidated, and the map has no room for the first of them any more when a failover
 * forgets them all. Who made them has not heard them told: its place is still in the stream. */
static void has_no_room_when_a_failover_forgets(host *self)
{
    if (!sim.faults[FAULT_MARKS] || !sim.faults[FAULT_CROWD] || !sim.faults[FAULT_FAILOVER])
        return;
    if (sim.server.data.marks_id == 0)
        many_invalidate(self, MARK_BUCKET);
    if (!settled())
        return;
    server_replicate();
    for (int group = 0; group < GROUPS; group++) {
        many_invalidate(self, group);
        for (unsigned turn = 0; turn < TURNS_MAX && many_untold(&self->map); turn++)
            pass_one(self);
    }
    server_fail_over(ALL_NODES);
}

void scenes_play(host *self)
{
    host *other = world_any_host();
    int key = world_any_key();
    unsigned scene = sim_pick(7);
    if (other == self || host_stalled(self) || host_stalled(other))
        return;
    TRACE("host %d, host %d: a scene, %u", self->number, other->number, scene);
    switch (scene) {
    case 0:
        wakes_with_what_nobody_knows(self, other, key);
        break;
    case 1:
        is_told_late(self, other, key);
        break;
    case 2:
        dies_between_two_steps(self, key);
        break;
    case 3:
        if (server_is_cluster())
            fetches_its_own(self, other, key);
        else
            write_one_version(self, other, key);
        break;
    case 4:
        is_new_when_all_is_lost(self, key);
        break;
    case 5:
        heard_what_a_failover_forgets(self, other, key);
        break;
    default:
        has_no_room_when_a_failover_forgets(self);
    }
}
