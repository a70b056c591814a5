/* world.c: what happens next: a seed chooses the fleet, the kinds of trouble it will have, and then
 * every step: who writes, what arrives, what is lost, who dies. Each seed has some kinds of trouble
 * and not others, so that rare meetings of two are not drowned by a third. How it ends is in
 * ending.c.
 */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <string.h>

host *world_any_host(void)
{
    return &sim.hosts[sim_pick(sim.hosts_count)];
}

int world_any_key(void)
{
    return (int)sim_pick(sim.keys_count);
}

/* ---- The beginning ----------------------------------------------------------------------------
 */

/* Those that are no events, but colour others. */
static bool is_event(enum fault fault)
{
    switch (fault) {
    case FAULT_ORPHANS:
    case FAULT_SHORT:
    case FAULT_DEAF:
    case FAULT_EVICT:
    case FAULT_FORGET:
    case FAULT_EXPIRY:
    case FAULT_FILL:
    case FAULT_LARGE:
    case FAULT_VERIFY:
    case FAULT_FAR:
    case FAULT_MARKS:
    case FAULT_CROWD:
    case FAULT_CLUSTER:
    case FAULT_KILL:
    case FAULT_UNSCRIPTED:
    case FAULT_COUNT:
        return false;
    default:
        return true;
    }
}

static void choose_faults(void)
{
    uint64_t needs = rules[rule_favoured].needs;
    unsigned share = sim_pick(4); /* none, a quarter, half, three quarters of them */
    uint64_t apart = ~sim.seed;   /* so that seeds without the later kinds go as they did before */
    for (unsigned f = 0; f < FAULT_COUNT; f++)
        sim.faults[f] =
            needs >> f & 1 || (f < FAULT_KILL ? sim_pick(4) < (needs != 0 && share != 0 ? 1 : share)
                                              : sync_random(&apart) % 12 < share);
    /* It mends what the other rules are for: only some have it. */
    if (rule_favoured != RULE_NONE && !(needs >> FAULT_VERIFY & 1))
        sim.faults[FAULT_VERIFY] = false;
    sim.faults[FAULT_MIGRATE] = sim.faults[FAULT_MIGRATE] && sim.faults[FAULT_CLUSTER];
    sim.faults[FAULT_UNSCRIPTED] = sim.faults[FAULT_UNSCRIPTED] && !sim.faults[FAULT_CLUSTER];
    sim.events_count = 0;
    for (unsigned f = 0; f < FAULT_COUNT; f++)
        if (sim.faults[f] && is_event((enum fault)f))
            sim.events[sim.events_count++] = (enum fault)f;
    sim.trouble = 5 + sim_pick(sim_one_in(2) ? 20 : 80);
}

static void begin_host(unsigned number)
{
    host *self = &sim.hosts[number];
    struct sync *machine = self->machine;
    sync_destroy(&self->ghost);
    memset(self, 0, offsetof(host, asked));
    self->machine = machine;
    self->number = (int)number;
    self->skew = sim_one_in(2) ? (int64_t)sim_pick(2000) - 1000 : 0;
    self->beat_at = sim.now_ms + 1000;
    map_reset(&self->map);
}

static void make_twins(const host *a, host *b)
{
    b->map.node = a->map.node;
    b->skew = a->skew;
}

void world_begin(uint64_t seed)
{
    sim.seed = sim.chance = seed;
    sim.now_ms = SIM_BEGAN_MS;
    sim.step = sim.emitted = sim.failover_at = 0;
    sim.calm = sim.feeding = false;
    sim.waiting_count = 0;
    memset(sim.truth, 0, sizeof sim.truth);
    memset(sim.newest_made, 0, sizeof sim.newest_made);
    memset(sim.made_count, 0, sizeof sim.made_count);
    server_reset(&sim.server, sim.server.data.stream, sim.server.replica.stream);
    sim.hosts_count = 2 + sim_pick(HOSTS_MAX - 1);
    sim.keys_count = 1 + sim_pick(KEYS_MAX);
    sim.steps = sim_one_in(3) ? 200 + sim_pick(1200) : 50 + sim_pick(250);
    choose_faults();
    if (sim.faults[FAULT_CLUSTER])
        cluster_begin();
    sim.stream_max = sim.faults[FAULT_SHORT] ? 2 + sim_pick(30) : 0;
    for (unsigned h = 0; h < sim.hosts_count; h++)
        begin_host(h);
    if (sim.faults[FAULT_TWINS])
        make_twins(&sim.hosts[0], &sim.hosts[1]);
    for (unsigned h = 0; h < sim.hosts_count; h++)
        host_start(&sim.hosts[h]);
}

/* ---- Passing on -------------------------------------------------------------------------------
 */

static void tick(host *self)
{
    host_say(self, SYNC_EV_TICK);
    if (sim.now_ms < self->beat_at)
        return;
    self->beat_at = sim.now_ms + 1000;
    if (map_dirty(&self->map) != 0 && !rule_off(RULE_RECHECK))
        host_recheck(self);
}

/* All that is under way for a host; false: nothing was. */
static bool let_through(host *self)
{
    bool any = host_waits(self);
    while (self->worked < self->tail)
        host_work_one(self);
    while (self->heard_head < self->heard_tail)
        host_give_message(self);
    while (self->head < self->worked)
        host_give_reply(self);
    host_say(self, SYNC_EV_IDLE);
    return any;
}

void world_let_all_through(void)
{
    bool more = true;
    for (unsigned turn = 0; turn < 1000 && more; turn++) {
        more = false;
        for (unsigned h = 0; h < sim.hosts_count; h++)
            more = let_through(&sim.hosts[h]) || more;
    }
    if (more)
        sim_fail("the fleet talks without end");
}

/* On to when somebody wants to be called. */
void world_pass_time(void)
{
    int64_t next = sim.now_ms + 300;
    for (unsigned h = 0; h < sim.hosts_count; h++) {
        int64_t due = sync_deadline(sim.hosts[h].machine);
        next = due < next ? due : next;
        next = sim.hosts[h].beat_at < next ? sim.hosts[h].beat_at : next;
    }
    sim.now_ms = next > sim.now_ms ? next : sim.now_ms + 1;
    for (unsigned h = 0; h < sim.hosts_count; h++) {
        map_expire(&sim.hosts[h]);
        many_janitor(&sim.hosts[h]);
        while (many_sweep(&sim.hosts[h])) {
        }
        tick(&sim.hosts[h]);
    }
}

/* ---- Steps ------------------------------------------------------------------------------------
 */

static int64_t choose_expiry(const host *self)
{
    if (!sim.faults[FAULT_EXPIRY] || sim_one_in(2))
        return INT64_MAX;
    return host_wall(self) + (sim_one_in(3) ? 40000 : 20 + (int64_t)sim_pick(2000));
}

static void worker(host *self)
{
    switch (sim_pick(16)) {
    case 0:
    case 1:
    case 2:
        map_set(self, world_any_key(), REPLICA_DELETED, INT64_MAX);
        break;
    case 3:
        map_set(self, world_any_key(), REPLICA_NEGATIVE, choose_expiry(self));
        break;
    case 4:
    case 5:
        if (sim.faults[FAULT_EVICT])
            map_evict(self, world_any_key());
        break;
    case 6:
        if (sim.faults[FAULT_FORGET])
            map_forget_tombstones(self);
        break;
    case 7:
        map_expire(self);
        many_janitor(self);
        break;
    case 8:
        if (sim.faults[FAULT_FILL])
            map_fill_begin(self, world_any_key());
        break;
    case 9:
        map_fill_end(self);
        (void)many_sweep(self);
        break;
    case 10:
        if (sim.faults[FAULT_MARKS])
            many_invalidate(self, (int)sim_pick(MARK_CLEAR + 1));
        break;
    default:
        map_set(self, world_any_key(), REPLICA_VALUE, choose_expiry(self));
    }
}

void world_wipe(host *self)
{
    TRACE("host %d: loses its map", self->number);
    map_reset(&self->map);
    for (unsigned k = 0; k < sim.keys_count; k++) {
        check_untold((int)k);
        check_lost((int)k);
    }
    many_forgotten();
    host_start(self);
}

static void damage(host *self)
{
    map_damage(self);
    for (unsigned k = 0; k < sim.keys_count; k++) {
        check_untold((int)k);
        check_lost((int)k);
    }
    if (sim_one_in(2))
        host_start(self);
}

/* It is stopped, and replaced; or one that was wakes. */
static void stop_or_wake(host *self)
{
    if (self->ghost == NULL)
        host_stop(self);
    else
        host_wake_ghost(self);
}

void world_copy_map(host *self, const host *from)
{
    map_copy(self, from);
    for (unsigned k = 0; k < sim.keys_count; k++) {
        check_untold((int)k);
        check_lost((int)k);
    }
    host_start(self);
}

static void set_clock(host *self)
{
    int64_t by = (int64_t)sim_pick(20000) - 10000;
    if (sim_one_in(3)) {
        TRACE("redis: its clock is set by %lld ms", (long long)by);
        server_set_clock(by);
        return;
    }
    if (sim.faults[FAULT_FAR] && sim_one_in(2))
        by *= sim_one_in(2) ? 100 : 10000;
    TRACE("host %d: its clock is set by %lld ms", self->number, (long long)by);
    self->skew += by;
}

static void jump(void)
{
    int64_t by = sim_one_in(3) ? 31000 : sim_one_in(2) ? 1000 + sim_pick(4000) : sim_pick(300000);
    TRACE("%lld ms pass", (long long)by);
    sim.now_ms += by;
}

/* At once, a little later (in the middle of something, with luck), or inside a transaction. */
static void crash(host *self)
{
    TRACE("host %d: larderd dies, or will", self->number);
    switch (sim_pick(3)) {
    case 0:
        host_start(self);
        break;
    case 1:
        self->dies_in = 1 + sim_pick(40);
        break;
    default:
        self->dies_applying = true;
    }
}

/* History was lost; a daemon that dies while it sees to that must not take it for done. */
static void crash_some(void)
{
    for (unsigned h = 0; sim.faults[FAULT_CRASH] && h < sim.hosts_count; h++)
        if (sim_one_in(4))
            sim.hosts[h].dies_in = 1 + sim_pick(40);
}

static unsigned any_node(void)
{
    return server_is_cluster() && !sim_one_in(4) ? sim_pick(sim.server.nodes) : ALL_NODES;
}

static void trouble_of_server(enum fault fault)
{
    server *redis = &sim.server;
    switch (fault) {
    case FAULT_NO_SCRIPT:
        redis->scripts = false;
        break;
    case FAULT_NO_MEMORY:
        redis->no_memory = !redis->no_memory;
        TRACE("redis: %s", redis->no_memory ? "out of memory" : "memory is there again");
        break;
    case FAULT_REFUSE:
        redis->refused ^= 1u << sim_pick(KEYS_MAX);
        break;
    case FAULT_NOT_READY:
        redis->loading = !redis->loading && sim_one_in(2);
        redis->denied = !redis->loading && !redis->denied && sim_one_in(4);
        break;
    case FAULT_TRIM:
        server_trim();
        break;
    case FAULT_FAILOVER:
        server_replicate(); /* all that comes from now on, the other server will lack */
        sim.failover_at = sim.step + 1 + sim_pick(sim_one_in(3) ? 400 : 40);
        break;
    case FAULT_EMPTY:
        server_restart_empty(any_node());
        crash_some();
        break;
    case FAULT_FLUSH:
        server_flush(sim_one_in(2));
        crash_some();
        break;
    case FAULT_SET:
        TRACE("redis: the set of marks is gone");
        server_lose_marks();
        many_forgotten();
        break;
    case FAULT_MIGRATE:
        server_migrate(sim_one_in(4) ? STREAM_SLOT : world_any_key());
        break;
    case FAULT_REDIS_EVICT:
        server_evict(world_any_key(), sim.faults[FAULT_VERIFY] && sim_one_in(2));
        break;
    default:
        server_foreign_write(world_any_key());
    }
}

bool world_in_step(const host *self)
{
    const server_data *data = &sim.server.data;
    sync_view view;
    sync_look(self->machine, &view);
    return view.state == SYNC_UP && view.drained && !host_waits(self) &&
           view.epoch == data->last_epoch && view.number == data->last_number &&
           map_dirty(&self->map) == 0;
}

/* The others go on, without it. */
void world_go_on_without(const host *away, unsigned turns)
{
    for (unsigned turn = 0; turn < turns; turn++) {
        for (unsigned h = 0; h < sim.hosts_count; h++)
            if (&sim.hosts[h] != away && !host_stalled(&sim.hosts[h]))
                (void)let_through(&sim.hosts[h]);
        world_pass_time();
    }
}

static bool others_in_step(const host *away)
{
    for (unsigned h = 0; h < sim.hosts_count; h++)
        if (&sim.hosts[h] != away && !world_in_step(&sim.hosts[h]))
            return false;
    return true;
}

bool world_settle_without(const host *away)
{
    for (unsigned turn = 0; turn < 60 && !others_in_step(away); turn++)
        world_go_on_without(away, 1);
    return others_in_step(away);
}

/* So long that everybody else has forgotten what was deleted meanwhile, and the stream, too. */
static void be_away(host *self)
{
    bool known[KEYS_MAX] = {false};
    TRACE("host %d: is away", self->number);
    for (unsigned h = 0; h < sim.hosts_count; h++)
        sim.hosts[h].busy = sim.hosts[h].map.filling = false; /* nor for a day */
    host_disconnect(self, SYNC_LOST_CONNECTION);
    self->stalled_until = UINT64_MAX;
    world_go_on_without(self, 4);
    for (unsigned i = sim_pick(6); i > 0; i--) {
        host *other = world_any_host();
        if (other != self)
            map_set(other, world_any_key(), sim_one_in(2) ? REPLICA_DELETED : REPLICA_VALUE,
                    INT64_MAX);
    }
    world_go_on_without(self, 4);
    for (unsigned turn = 0; turn < 30 && !others_in_step(self); turn++)
        world_go_on_without(self, 1);
    if (!others_in_step(self)) { /* nobody else is behind for a day */
        self->stalled_until = 0;
        return;
    }
    /* A deletion that Redis had lost when the host that alone still knew of it went away is told by
     * nobody within T: that it lasts is not promised. */
    for (unsigned k = 0; k < sim.keys_count; k++)
        known[k] = !sim.truth[k].lost && check_known((int)k, self);
    sim.server.orphan_count = 0;
    sim.now_ms += SIM_KEEP_MS + 60000;
    sim.failover_at = 0; /* no replica lags by a day */
    TRACE("a day passes");
    world_go_on_without(self, 2);
    server_expire();
    for (unsigned h = 0; h < sim.hosts_count; h++)
        map_forget_old(&sim.hosts[h]);
    for (unsigned k = 0; k < sim.keys_count; k++) {
        check_lost((int)k);
        if (known[k])
            check_buried((int)k);
    }
    if (!sim_one_in(3))
        server_trim();
    self->stalled_until = 0;
    host_start(self);
}

static void trouble(enum fault fault)
{
    host *self = world_any_host();
    const host *from;
    switch (fault) {
    case FAULT_CUT:
        TRACE("host %d: connection lost", self->number);
        host_disconnect(self, SYNC_LOST_CONNECTION);
        break;
    case FAULT_STALL:
        TRACE("host %d: cut off for a while", self->number);
        self->stalled_until = sim.step + 20 + sim_pick(400);
        break;
    case FAULT_CRASH:
        crash(self);
        break;
    case FAULT_BUSY:
        self->busy = !self->busy;
        break;
    case FAULT_CLOCK:
        set_clock(self);
        break;
    case FAULT_JUMP:
        jump();
        break;
    case FAULT_WIPE:
        world_wipe(self);
        break;
    case FAULT_TWINS:
        from = world_any_host();
        if (from != self)
            world_copy_map(self, from);
        break;
    case FAULT_SWITCH:
        map_switch(self);
        break;
    case FAULT_GHOST:
        stop_or_wake(self);
        break;
    case FAULT_DAMAGE:
        damage(self);
        break;
    case FAULT_ABSENCE:
        be_away(self);
        break;
    case FAULT_OVERTAKEN:
        scenes_play(self);
        break;
    default:
        trouble_of_server(fault);
    }
}

static bool all_in_step(void)
{
    return others_in_step(NULL) && sim.server.orphan_count == 0;
}

/* A stretch of good weather, so that what comes next meets a fleet that is in step. Then Redis may
 * evict a record. (Where a host is not in step, the order of two versions is lost with the record,
 * and only comparing all of them now and then would tell.) */
static void lull(void)
{
    bool evicts = sim.faults[FAULT_REDIS_EVICT] && sim_one_in(2);
    TRACE("a lull");
    for (unsigned turn = 0; turn < (evicts ? 20 : 3) && !(evicts && all_in_step()); turn++) {
        for (unsigned h = 0; h < sim.hosts_count; h++)
            if (!host_stalled(&sim.hosts[h]))
                (void)let_through(&sim.hosts[h]);
        world_pass_time();
    }
    if (evicts && all_in_step())
        server_evict(world_any_key(), true);
}

static void one_step(void)
{
    host *self = world_any_host();
    bool stalled = host_stalled(self);
    sim.step++;
    if (sim.step == sim.failover_at) {
        server_fail_over(any_node());
        crash_some();
    }
    switch (sim_pick(16)) {
    case 0:
    case 1:
        worker(self);
        break;
    case 2:
        if (sim.events_count != 0 && sim_pick(100) < sim.trouble)
            trouble(sim.events[sim_pick(sim.events_count)]);
        break;
    case 3:
        sim.now_ms += sim_pick(20);
        tick(self);
        break;
    case 4:
        host_say(self, SYNC_EV_IDLE);
        break;
    case 5:
    case 6:
        if (self->heard_head < self->heard_tail && !stalled)
            host_give_message(self);
        break;
    case 7:
    case 8:
    case 9:
    case 10:
        if (!stalled)
            host_work_one(self);
        break;
    case 15:
        server_work_orphan();
        if (sim_one_in(12))
            lull();
        break;
    default:
        if (self->head < self->worked && !stalled)
            host_give_reply(self);
    }
}

/* ---- All of it --------------------------------------------------------------------------------
 */

void world_run(void)
{
    for (unsigned i = 0; i < sim.steps; i++)
        one_step();
    ending_run();
}
