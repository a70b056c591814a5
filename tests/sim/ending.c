/* ending.c: how a seed ends: the trouble is over, all is let through until the fleet is at rest,
 * and what must hold then is looked at (check.c). After that, of a fleet that is in step, is made
 * what chance alone hardly ever brings about. Called by world.c.
 */
#include "tests/sim/sim.h"

enum { ROUNDS_MAX = 4000, QUIET_MS = 1600 };

/* Redis goes on having no memory while all else is well: deletions must be known all the same. */
static void end_without_memory(void)
{
    int64_t until = sim.now_ms + check_told_within() + 1000;
    TRACE("all is well, but Redis has no memory");
    while (sim.now_ms < until) {
        world_let_all_through();
        world_pass_time();
    }
    world_let_all_through();
    check_deletions_told();
}

static void at_rest(void)
{
    int64_t quiet_since = sim.now_ms;
    size_t emitted = sim.emitted;
    TRACE("all is well");
    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        world_let_all_through();
        if (!check_settled() || sim.emitted != emitted)
            quiet_since = sim.now_ms;
        emitted = sim.emitted;
        if (sim.now_ms - quiet_since >= QUIET_MS) /* over several heartbeats */
            return;
        world_pass_time();
    }
    check_never_settled();
}

/* Something of the key that is older than that: the place of a value that it never got, say. */
static bool holds_older(const host *self, int key, const replica_record *than)
{
    const held_entry *ours = &self->map.keys[key];
    return ours->there && sync_order(&ours->record, than) < 0;
}

/* What a mark means is still there: who comes across it takes it away. That is who has it; or who
 * has something older, pushes that, and is answered with it: then it comes in, and what a prefix
 * means may not. (Where that was invalidated nobody may have had the value itself to remove.) */
static bool dead_in_redis(int key)
{
    const stored *there = &sim.server.data.keys[key];
    bool dead = false;
    for (unsigned h = 0; h < sim.hosts_count && !dead; h++) {
        const host *self = &sim.hosts[h];
        dead = there->there && there->record.kind != REPLICA_DELETED &&
               many_death(self, key, &there->record, holds_older(self, key, &there->record)) != 0;
    }
    return dead;
}

/* What may be told of a key that Redis has no record of: once by each host; and what is older,
 * where that is told first, makes each host that has something newer tell that again. Hosts at rest
 * may differ so: all but its writer keep the place of a value that is too large for them. */
static size_t told_of_missing(int key)
{
    size_t most = sim.hosts_count;
    for (unsigned a = 0; a < sim.hosts_count; a++)
        for (unsigned b = 0; b < sim.hosts_count; b++)
            most += sim.hosts[a].map.keys[key].there &&
                    holds_older(&sim.hosts[b], key, &sim.hosts[a].map.keys[key].record);
    return most;
}

/* Another server, which has all: everybody pushes everything again, and nobody is told anything. */
static void move_house(void)
{
    size_t missing = 0, before = sim.emitted;
    server_replicate();
    server_fail_over(ALL_NODES);
    for (unsigned k = 0; k < sim.keys_count; k++) {
        if (!sim.server.data.keys[k].there)
            missing += told_of_missing((int)k);
        else if (sim.truth[k].lost || dead_in_redis((int)k))
            missing += sim.hosts_count; /* hints of lost deletions are told, too */
    }
    at_rest();
    check_converged();
    if (sim.emitted > before + missing)
        sim_fail("a server that has all was told %zu entries", sim.emitted - before);
}

/* A host's larderd dies when Redis has stored and told what it sent, and it has not heard so. The
 * next one hears it from the stream: that says that Redis has it. (What a mark means is removed by
 * each host that holds it: they would all tell of each key.) */
static void die_unanswered(void)
{
    host *self = world_any_host();
    size_t emitted = sim.emitted;
    map_set(self, world_any_key(), REPLICA_VALUE, INT64_MAX);
    while (self->worked < self->tail)
        host_work_one(self);
    if (sim.emitted != emitted + 1 || self->map.position.epoch == 0)
        return; /* it had something else to do first; or does not know what to read again */
    host_start(self);
    at_rest();
    check_converged();
    if (sim.emitted > emitted + 1)
        sim_fail("what the stream had told already was told again");
}

/* A new epoch begins while a host is cut off. What is told in it, it must not miss: Redis, and who
 * wrote it, may have had to make room for something else since. */
static void miss_a_beginning(void)
{
    host *self = world_any_host(), *other = world_any_host();
    int key = world_any_key();
    replica_record missed;
    if (other == self)
        return;
    map_set(self, key, REPLICA_VALUE, INT64_MAX);
    at_rest();
    TRACE("host %d: is cut off, and the stream goes", self->number);
    host_disconnect(self, SYNC_LOST_CONNECTION);
    server_flush(true);
    world_go_on_without(self, 3); /* a heartbeat notices */
    if (!world_settle_without(self))
        return;
    map_set(other, key, REPLICA_VALUE, INT64_MAX);
    missed = other->map.keys[key].record;
    if (!world_settle_without(self))
        return;
    sim.now_ms += SIM_RECENTLY_MS + 1000;
    if (!world_settle_without(self))
        return;
    for (unsigned h = 0; h < sim.hosts_count; h++)
        if (&sim.hosts[h] != self)
            map_evict(&sim.hosts[h], key);
    server_evict(key, true);
    at_rest();
    const held_entry *held = &self->map.keys[key];
    if (map_live(self, key) && sync_order(&held->record, &missed) < 0)
        sim_fail("host %d still reads %s of %s, which is older than what the epoch had told",
                 self->number, sim_text(&held->record), sim.key_names[key]);
}

/* What chance alone hardly ever brings about, made of a fleet that is in step. */
static void afterwards(void)
{
    if (sim.faults[FAULT_EXPIRY] || sim.faults[FAULT_CROWD] || sim.faults[FAULT_FAR] ||
        server_is_cluster())
        return;
    switch (sim_pick(4)) {
    case 0:
        die_unanswered();
        break;
    case 1:
        miss_a_beginning();
        break;
    default:
        break;
    }
}

void ending_run(void)
{
    sim.calm = true;
    sim.server.loading = sim.server.denied = false;
    sim.server.refused = 0;
    cluster_settle();
    for (unsigned h = 0; h < sim.hosts_count; h++) {
        host *self = &sim.hosts[h];
        self->busy = self->dies_applying = false;
        self->dies_in = 0;
    }
    while (sim.server.orphan_count != 0)
        server_work_orphan();
    if (sim.server.no_memory)
        end_without_memory();
    sim.server.no_memory = false;
    at_rest();
    check_converged();
    if (!sim.faults[FAULT_EXPIRY] && !sim.faults[FAULT_CROWD] && sim_one_in(2))
        move_house();
    afterwards();
}
