/* server.c: the model of Redis: what the scripts of daemon/redis/script.c do, each at once and
 * whole, the stream with its numbers, the channel, and the ways in which a server forgets. It knows
 * nothing of machines and maps; requests come from host.c.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A cluster's is made of those of its nodes. */
static void name_run(server *self)
{
    (void)snprintf(self->run_id, sizeof self->run_id, "run%u.%u.%u.%u", self->lives[0],
                   self->lives[1], self->lives[2], self->lives[3]);
}

void server_reset(server *self, stream_entry *stream, stream_entry *replica_stream)
{
    memset(self, 0, sizeof *self);
    self->data.stream = stream;
    self->replica.stream = replica_stream;
    self->nodes = 1;
    name_run(self);
}

int64_t server_wall(const server *self)
{
    return sim.now_ms + self->skew;
}

/* ---- Keys that end ----------------------------------------------------------------------------
 */

bool server_plain_there(const stored *at)
{
    return at->plain && server_wall(&sim.server) < at->plain_until;
}

static stored *look(int key)
{
    stored *at = &sim.server.data.keys[key];
    if (at->there && server_wall(&sim.server) >= at->until)
        at->there = false;
    if (at->plain && !server_plain_there(at)) {
        at->plain = false;
        at->unlinked = true; /* and stays so, should the clock be set back */
    }
    return at;
}

/* ---- The stream and the channel ---------------------------------------------------------------
 */

void server_publish(const stream_entry *entry, bool numbered)
{
    for (unsigned h = 0; h < sim.hosts_count; h++) {
        if (!sim.hosts[h].subscribed)
            continue;
        if (sim.faults[FAULT_DEAF] && !sim.calm && sim_one_in(8))
            continue;
        host_hear(&sim.hosts[h], entry, numbered);
        if (sim.faults[FAULT_DEAF] && !sim.calm && sim_one_in(16))
            host_hear(&sim.hosts[h], entry, numbered);
    }
}

/* XADD with the id "epoch-*"; false: it would not be the greatest. */
static bool add(uint64_t epoch, stream_entry *entry)
{
    server_data *data = &sim.server.data;
    if (data->stream_there && epoch < data->last_epoch)
        return false;
    entry->epoch = epoch;
    entry->number = data->stream_there && epoch == data->last_epoch ? data->last_number + 1 : 0;
    if (data->count == STREAM_MAX)
        sim_fail("the stream grows without end");
    data->stream[data->count++] = *entry;
    data->stream_there = true;
    data->last_epoch = epoch;
    data->last_number = entry->number;
    sim.emitted++;
    if (sim.stream_max != 0 && data->count - data->first > sim.stream_max)
        data->first = data->count - sim.stream_max; /* MAXLEN */
    TRACE("redis: tells %" PRIu64 "-%" PRIu64, entry->epoch, entry->number);
    return true;
}

static const stream_entry *find(uint64_t epoch, uint64_t number)
{
    const server_data *data = &sim.server.data;
    for (size_t i = data->first; i < data->count; i++)
        if (data->stream[i].epoch == epoch && data->stream[i].number == number)
            return &data->stream[i];
    return NULL;
}

sync_change server_change(const stream_entry *entry, bool numbered)
{
    sync_change change = {.epoch = entry->epoch,
                          .number = entry->number,
                          .nonce = entry->nonce,
                          .emitter = entry->emitter,
                          .numbered = numbered,
                          .begin = entry->begin,
                          .record = entry->record};
    if (entry->record.kind == REPLICA_MARK) {
        sync_change mark = many_change(entry->key, entry->record.version.clock);
        change.record.key = mark.record.key;
        change.record.key_size = mark.record.key_size;
    } else if (!entry->begin) {
        sim_name_key(entry->key, &change.record);
        change.full_size =
            entry->record.kind == REPLICA_VALUE ? sim_size(entry->record.value_hash) : 0;
        change.value_missing = entry->record.kind == REPLICA_VALUE && !entry->with_value;
        change.record.value_size = change.full_size != 0 && entry->with_value ? VALUE_SIZE : 0;
    }
    return change;
}

/* ---- The scripts ------------------------------------------------------------------------------
 */

static int compare(const replica_record *a, const replica_record *b)
{
    if (rule_off(RULE_COMPARE))
        return -1;
    if (a->version.clock != b->version.clock)
        return a->version.clock < b->version.clock ? -1 : 1;
    if (a->version.node != b->version.node)
        return a->version.node < b->version.node ? -1 : 1;
    if (a->kind != b->kind && !rule_off(RULE_KIND_ORDER))
        return a->kind < b->kind ? -1 : 1;
    if (a->value_hash != b->value_hash && !rule_off(RULE_HASH_ORDER))
        return a->value_hash < b->value_hash ? -1 : 1;
    return 0;
}

/* The winner of a push that came too late; its value, if that may be had and is the record's. */
static void answer_old(request *r, const stored *at)
{
    bool small = at->plain && !sim_large(at->plain_hash);
    stream_entry winner = {
        .key = r->key,
        .record = at->record,
        .with_value = small && (at->plain_hash == at->record.value_hash || rule_off(RULE_HASH))};
    r->outcome = SYNC_OLD;
    r->changes[0] = server_change(&winner, false);
    r->plain_hash = at->plain_hash;
    r->has_change = true;
}

void server_forget_stream(void)
{
    server_data *data = &sim.server.data;
    data->stream_there = false;
    data->first = data->count;
}

bool server_emit(const request *r, stream_entry *entry)
{
    const server_data *data = &sim.server.data;
    if ((!data->stream_there && !rule_off(RULE_EPOCH)) || !add(r->epoch, entry))
        return false;
    if (entry->number == 0 && !rule_off(RULE_EPOCH_ANEW)) {
        server_forget_stream(); /* an epoch that was over, begun anew by one who did not know */
        return false;
    }
    return true;
}

bool server_ahead(uint64_t clock)
{
    return (int64_t)(clock >> 16) > server_wall(&sim.server) + SIM_AHEAD_MS;
}

uint64_t server_believed(uint64_t clock)
{
    uint64_t most = (uint64_t)(server_wall(&sim.server) + SIM_AHEAD_MS) << 16 | UINT16_MAX;
    return clock < most ? clock : most;
}

static bool ahead(uint64_t clock)
{
    return server_ahead(clock) && !rule_off(RULE_AHEAD);
}

static void write_entry(const request *r, stored *at, bool set)
{
    int64_t until = r->redis_ms;
    check_written(r->key, &r->record); /* it may have been refused once, and stamped anew */
    if (r->record.kind != REPLICA_DELETED && r->record.expires_at_ms > until)
        until = r->record.expires_at_ms;
    at->there = true;
    at->untold = server_is_cluster();
    at->record = r->record;
    at->until = until >= INT64_MAX - SIM_KEEP_MS ? INT64_MAX : until + SIM_KEEP_MS;
    at->plain = set;
    at->plain_hash = r->record.value_hash;
    at->plain_until = r->record.expires_at_ms;
    at->unlinked = !set;
    at->evicted = at->foreign = false;
    if (server_is_cluster() && !r->quiet) /* what is clean must not be stored so: RULE_LACKING */
        check_untold(r->key);
}

static bool sets_value(const request *r)
{
    return r->record.kind == REPLICA_VALUE && r->record.expires_at_ms > r->redis_ms;
}

stream_entry server_event(const request *r)
{
    return (stream_entry){.nonce = r->nonce,
                          .emitter = r->emitter,
                          .with_value = sets_value(r) && !sim_large(r->record.value_hash),
                          .key = r->key,
                          .record = r->record};
}

static void push(request *r)
{
    server *self = &sim.server;
    stored *at = look(r->key);
    bool set = sets_value(r);
    stream_entry entry = server_event(r);
    int order = at->there ? compare(&at->record, &r->record) : -1;
    if (at->there && ahead(at->record.version.clock)) {
        if (order > 0)
            check_gave_way(r->key);
        order = -1;
    }
    r->replayed = order == 0;
    if (!self->scripts) {
        r->outcome = SYNC_NO_SCRIPT;
    } else if (ahead(r->record.version.clock)) {
        r->outcome = SYNC_AHEAD;
        r->redis_ms = server_wall(self);
    } else if (cluster_tries_again(r)) {
        r->outcome = SYNC_LATER;
    } else if (self->refused >> r->key & 1) {
        r->outcome = SYNC_REFUSED_KEY;
        check_refused(r->key, r->quiet);
    } else if (order > 0) {
        answer_old(r, at);
    } else if (r->remove) {
        r->outcome = SYNC_REMOVED;
        if (rule_off(RULE_REMOVE))
            return;
        at->plain = false;
        at->unlinked = true;
        check_removed(r->key, &r->record);
        server_publish(&entry, false);
    } else if (order == 0 && r->quiet) {
        r->outcome = SYNC_SAME;
    } else if (r->quiet && server_is_cluster() && !rule_off(RULE_LACKING)) {
        r->outcome = SYNC_LACKING;
    } else if (self->no_memory) {
        r->outcome = SYNC_NO_MEMORY;
    } else if (server_is_cluster() || rule_off(RULE_EVENT) ||
               (order == 0 && rule_off(RULE_EVENT_OF_REPLAY))) {
        write_entry(r, at, set);
        r->outcome = SYNC_STORED;
    } else if (!server_emit(r, &entry)) {
        /* Without scripts it may have been there when it was looked at, and gone when the
         * transaction came: that writes all but the event. */
        if (sim.faults[FAULT_UNSCRIPTED] && sim_one_in(2)) {
            write_entry(r, at, set);
            at->untold = true;
        }
        r->outcome = SYNC_NO_STREAM;
    } else {
        write_entry(r, at, set);
        r->outcome = SYNC_STORED;
        server_publish(&entry, true);
    }
}

bool server_knows_node(uint32_t node)
{
    const server_data *data = &sim.server.data;
    for (size_t i = 0; i < data->nodes; i++)
        if (data->node_ids[i] == node)
            return true;
    return false;
}

/* Is the node id another map's? */
static bool node_taken(server_data *data, uint32_t node, uint32_t identity)
{
    for (size_t i = 0; i < data->nodes; i++)
        if (data->node_ids[i] == node)
            return data->node_owners[i] != identity;
    if (data->nodes < NODES_MAX) {
        data->node_ids[data->nodes] = node;
        data->node_owners[data->nodes++] = identity;
    }
    return false;
}

static void ask(request *r)
{
    const stored *at = look(r->key);
    stream_entry found = {.key = r->key, .record = at->record};
    r->outcome = at->there ? SYNC_FOUND : SYNC_NOT_FOUND;
    r->has_change = at->there;
    if (at->there)
        r->changes[0] = server_change(&found, false);
}

/* The emit script of a cluster: what a batch has stored is told. */
static void tell(request *r)
{
    server *self = &sim.server;
    r->outcome = self->scripts ? SYNC_STORED : SYNC_NO_SCRIPT;
    if (self->scripts && self->no_memory)
        r->outcome = SYNC_NO_MEMORY;
    for (uint32_t i = 0; i < r->limit && r->outcome == SYNC_STORED; i++) {
        stream_entry *event = &r->events[i];
        stored *at = &self->data.keys[event->key];
        if (event->skipped)
            continue;
        if (!server_emit(r, event)) {
            r->outcome = SYNC_NO_STREAM;
            break;
        }
        server_publish(event, true);
        if (sync_order(&event->record, &at->record) == 0)
            at->untold = false;
    }
    TRACE("redis: tells what was stored: %d", (int)r->outcome);
}

static void join(request *r)
{
    server_data *data = &sim.server.data;
    r->joined.node_taken = node_taken(data, r->node, r->identity);
    r->joined.redis_ms = server_wall(&sim.server);
    if (data->first == data->count) {
        stream_entry begin = {.nonce = sim_random(), .begin = true};
        uint64_t epoch = (uint64_t)r->joined.redis_ms * 1000 + sim_pick(1000); /* us */
        if (rule_off(RULE_EPOCH_RISES))
            server_forget_stream();
        else if (r->epoch >= epoch)
            epoch = r->epoch + 1 + sim_pick(1000);
        if (data->stream_there && data->last_epoch >= epoch)
            epoch = data->last_epoch + 1 + sim_pick(1000);
        (void)add(epoch, &begin);
        server_publish(&begin, true);
    }
    const stream_entry *last = &data->stream[data->count - 1];
    const stream_entry *at = find(r->epoch, r->number);
    r->joined.epoch = last->epoch;
    r->joined.last_number = last->number;
    r->joined.last_nonce = last->nonce;
    r->joined.cursor_found = at != NULL && r->epoch != 0;
    r->joined.cursor_nonce = at != NULL ? at->nonce : 0;
    r->joined.marks_id = data->marks_id;
}

static void range(request *r)
{
    const server_data *data = &sim.server.data;
    for (size_t i = data->first; i < data->count && r->count < r->limit; i++) {
        const stream_entry *entry = &data->stream[i];
        if (entry->epoch > r->epoch || (entry->epoch == r->epoch && entry->number > r->number))
            r->changes[r->count++] = server_change(entry, true);
    }
}

static void fetch(request *r)
{
    const stored *at = look(r->key);
    bool fits = at->plain && (at->plain_hash == at->record.value_hash || rule_off(RULE_HASH));
    if (!at->there || at->record.kind != REPLICA_VALUE || !fits || cluster_tries_again(r))
        return;
    stream_entry found = {.key = r->key, .record = at->record, .with_value = true};
    r->changes[0] = server_change(&found, false);
    r->plain_hash = at->plain_hash;
    r->has_change = true;
}

/* ---- Working off ------------------------------------------------------------------------------
 */

void server_work(request *r)
{
    server *self = &sim.server;
    r->count = 0;
    r->has_change = r->fails = false;
    if (self->loading || self->denied) {
        r->fails = true;
        r->cause = self->denied ? SYNC_NO_PERMISSION : SYNC_NOT_READY;
        return;
    }
    if (r->kind == ASK_JOIN && cluster_tries_again(r)) {
        r->fails = true;
        r->cause = SYNC_NOT_READY;
        return;
    }
    switch (r->kind) {
    case ASK_PUSH:
        push(r);
        TRACE("redis: push %s of %s: %d", sim.key_names[r->key], sim_text(&r->record),
              (int)r->outcome);
        break;
    case ASK_RECORD:
        ask(r);
        TRACE("redis: asked for %s: %s", sim.key_names[r->key],
              r->has_change ? sim_text(&r->changes[0].record) : "none");
        break;
    case ASK_EMIT:
        tell(r);
        break;
    case ASK_JOIN:
        join(r);
        break;
    case ASK_RANGE:
        range(r);
        break;
    case ASK_FETCH:
        fetch(r);
        break;
    case ASK_MARK:
        many_server_take(r);
        break;
    case ASK_MARK_PAGE:
        many_server_page(r);
        break;
    case ASK_LOAD:
    case ASK_CONNECT:
        self->scripts = true;
        break;
    }
}

/* A request of a connection that is gone, which Redis has received all the same. */
void server_orphan(const request *asked)
{
    server *self = &sim.server;
    if (self->orphan_count < ORPHANS_MAX)
        self->orphans[self->orphan_count++] = *asked;
}

void server_work_orphan(void)
{
    server *self = &sim.server;
    if (self->orphan_count == 0)
        return;
    request r = self->orphans[0];
    self->orphan_count--;
    memmove(self->orphans, self->orphans + 1, self->orphan_count * sizeof *self->orphans);
    TRACE("redis: of a connection that is gone:");
    server_work(&r);
}

/* ---- Forgetting -------------------------------------------------------------------------------
 */

static void forgotten(void)
{
    for (unsigned k = 0; k < sim.keys_count; k++)
        check_lost((int)k);
    many_forgotten();
}

void server_is_another(unsigned node)
{
    server *self = &sim.server;
    for (unsigned n = 0; n < self->nodes; n++)
        self->lives[n] += node == ALL_NODES || node == n;
    name_run(self);
    self->scripts = false;
    self->orphan_count = 0;
    for (unsigned h = 0; h < sim.hosts_count; h++)
        host_disconnect(&sim.hosts[h], SYNC_LOST_CONNECTION);
    forgotten();
}

/* A server's clock that goes further than versions may be ahead is beyond what can be kept. */
void server_set_clock(int64_t by)
{
    int64_t most = SIM_AHEAD_MS / 3;
    if (sim.faults[FAULT_FAR] && by < 0)
        by = -by; /* versions just within the limit would be beyond it: what is newest is open then
                   */
    sim.server.skew += by;
    sim.server.skew = sim.server.skew > most ? most : sim.server.skew;
    sim.server.skew = sim.server.skew < -most ? -most : sim.server.skew;
}

void server_lose_marks(void)
{
    server_data *data = &sim.server.data;
    memset(data->marks, 0, sizeof data->marks);
    data->marks_id = 0;
}

void server_flush(bool stream_alone)
{
    TRACE("redis: %s", stream_alone ? "the stream is gone" : "FLUSHALL");
    if (!stream_alone)
        cluster_empty(ALL_NODES);
    server_forget_stream();
    forgotten();
}

void server_trim(void)
{
    server_data *data = &sim.server.data;
    if (data->count > data->first)
        data->first += 1 + sim_pick((unsigned)(data->count - data->first));
    TRACE("redis: trimmed to %zu entries", data->count - data->first);
}

void server_evict(int key, bool record_too)
{
    stored *at = &sim.server.data.keys[key];
    TRACE("redis: evicts %s%s", sim.key_names[key], record_too ? " and its record" : "");
    at->plain = at->foreign = false;
    at->unlinked = true;
    if (record_too) {
        at->there = false;
        at->evicted = true;
        sim.truth[key].forgotten = true;
    }
    check_lost(key);
}

void server_expire(void)
{
    for (unsigned k = 0; k < sim.keys_count; k++)
        (void)look((int)k);
}

void server_foreign_write(int key)
{
    stored *at = &sim.server.data.keys[key];
    TRACE("redis: another program sets %s", sim.key_names[key]);
    at->plain = at->foreign = true;
    at->plain_hash = sim_random() | 1;
    at->plain_until = INT64_MAX;
}
