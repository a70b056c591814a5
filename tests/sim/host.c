/* host.c: one host's larderd without its sockets: feeds the real protocol machine, carries out its
 * actions against the map's model, and holds the wires to Redis: requests not yet worked off,
 * replies and messages not yet read. What passes between machine and world passes here, so this is
 * also where most of the machine's rules are switched off.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <string.h>

/* ---- Wires ------------------------------------------------------------------------------------
 */

/* The connection is gone. What Redis had received already it may still carry out. */
static void cut(host *self)
{
    bool orphans = sim.faults[FAULT_ORPHANS] && !sim.calm;
    for (unsigned n = 0; orphans && n < sim.server.nodes; n++) {
        uint64_t received = self->worked;
        if (self->tail > self->worked)
            received += sim_pick((unsigned)(self->tail - self->worked) + 1);
        for (uint64_t i = self->worked; i < received; i++) {
            const request *r = &self->asked[i % ASKED_MAX];
            if (r->server == n &&
                (r->kind == ASK_PUSH || r->kind == ASK_EMIT || r->kind == ASK_MARK))
                server_orphan(r);
        }
    }
    self->head = self->worked = self->tail;
    self->heard_head = self->heard_tail;
    self->subscribed = false;
    memset(self->kept, 0, sizeof self->kept);
}

static request *ask(host *self, enum asked kind)
{
    if (self->tail - self->head == ASKED_MAX)
        sim_fail("host %d asks Redis without end", self->number);
    request *r = &self->asked[self->tail++ % ASKED_MAX];
    r->kind = kind;
    r->server = sim.server.slots[STREAM_SLOT].owner;
    r->asking = false;
    return r;
}

/* ---- Several nodes: each has a connection of its own, and answers when it does ----------------
 */

/* Bring the one at index to the front of [first, index]. */
static void bring_forward(host *self, uint64_t first, uint64_t index)
{
    static request moved;
    if (index == first)
        return;
    moved = self->asked[index % ASKED_MAX];
    for (uint64_t i = index; i > first; i--)
        self->asked[i % ASKED_MAX] = self->asked[(i - 1) % ASKED_MAX];
    self->asked[first % ASKED_MAX] = moved;
}

/* Of [first, end), choose a node's oldest. */
static void choose_node(host *self, uint64_t first, uint64_t end)
{
    if (!server_is_cluster() || end - first < 2)
        return;
    uint64_t chosen = first + sim_pick((unsigned)(end - first));
    unsigned node = self->asked[chosen % ASKED_MAX].server;
    for (uint64_t i = first; i < chosen; i++) {
        if (self->asked[i % ASKED_MAX].server == node) {
            chosen = i;
            break;
        }
    }
    bring_forward(self, first, chosen);
}

void host_work_one(host *self)
{
    if (self->worked == self->tail)
        return;
    choose_node(self, self->worked, self->tail);
    request *r = &self->asked[self->worked % ASKED_MAX];
    if (cluster_redirects(r))
        return; /* sent again, in its turn there */
    self->worked++;
    server_work(r);
}

bool host_stalled(const host *self)
{
    return !sim.calm && sim.step < self->stalled_until;
}

void host_hear(host *self, const stream_entry *entry, bool numbered)
{
    if (self->heard_tail - self->heard_head == HEARD_MAX) {
        host_disconnect(self, SYNC_LOST_CONNECTION); /* client-output-buffer-limit */
        return;
    }
    message *to = &self->heard[self->heard_tail++ % HEARD_MAX];
    to->numbered = numbered;
    to->entry = *entry;
}

/* ---- Actions ----------------------------------------------------------------------------------
 */

static void feed(host *self, const sync_event *event);

static void do_push(host *self, const sync_action *action)
{
    uint64_t nonces = action->push.nonce_seed;
    for (size_t i = 0; i < action->push.count; i++) {
        const replica_record *record = action->push.records[i];
        request *r = ask(self, action->kind == SYNC_ACT_COMPARE ? ASK_RECORD : ASK_PUSH);
        r->batch = action->push.batch;
        r->index = i;
        r->key = sim_key(record->key, record->key_size);
        r->record = *record;
        r->record.key = r->record.value = NULL;
        r->epoch = action->push.epoch;
        r->emitter = action->push.emitter;
        r->nonce = sync_random(&nonces);
        r->quiet = action->push.quiet && !rule_off(RULE_QUIET);
        r->remove = action->push.items[i].remove;
        r->redis_ms = action->push.redis_ms;
        r->server = sim.server.slots[r->key].owner;
    }
}

/* What has been stored of a batch and is not told yet: the link keeps its events. */
static void keep_event(host *self, const request *r)
{
    struct kept *kept = NULL;
    for (unsigned i = 0; i < KEPT_MAX; i++)
        if (self->kept[i].batch == r->batch)
            kept = &self->kept[i];
    for (unsigned i = 0; i < KEPT_MAX && kept == NULL; i++)
        if (self->kept[i].batch == NULL)
            kept = &self->kept[i];
    if (kept == NULL || (kept->batch != NULL && kept->count == BATCH_MAX))
        sim_fail("host %d: more is stored and not told than there may be", self->number);
    if (kept->batch == NULL)
        kept->count = 0;
    kept->batch = r->batch;
    stream_entry *event = &kept->events[kept->count++];
    *event = server_event(r);
    event->skipped = r->outcome != SYNC_STORED || (r->replayed && rule_off(RULE_EMIT_OF_REPLAY));
}

static void do_emit(host *self, const sync_action *action)
{
    struct kept *kept = self->kept;
    sync_event told = {.kind = SYNC_EV_EMITTED, .emitted = {.batch = action->emit.batch}};
    while (kept->batch != action->emit.batch)
        if (++kept == self->kept + KEPT_MAX)
            sim_fail("host %d: tells of a batch that stored nothing", self->number);
    kept->batch = NULL;
    if (!rule_off(RULE_EMIT)) {
        request *r = ask(self, ASK_EMIT);
        r->batch = action->emit.batch;
        r->epoch = action->emit.epoch;
        r->limit = kept->count;
        memcpy(r->events, kept->events, sizeof r->events);
    }
    if (rule_off(RULE_EMIT) || rule_off(RULE_EMIT_ANSWERED))
        feed(self, &told);
}

static void do_map(host *self, const sync_action *action)
{
    sync_event answer = {.kind = SYNC_EV_ROWS, .rows = &self->rows_out};
    if (action->kind == SYNC_ACT_READ) {
        answer.status = map_outbox(self, action);
        if (rule_off(RULE_ARM) && self->just_armed && answer.status == LARDER_OK) {
            self->rows_out.count = 0;
            self->rows_out.end = true;
        }
        self->just_armed = false;
    } else if (action->kind == SYNC_ACT_APPLY) {
        answer.kind = SYNC_EV_APPLIED;
        answer.status = map_apply(self, action);
    } else {
        size_t cleared;
        answer.kind = SYNC_EV_ACKNOWLEDGED;
        answer.status = map_acknowledge(self, action, &cleared);
        answer.acknowledged.batch = action->acknowledge.batch;
        answer.acknowledged.cleared = cleared;
    }
    feed(self, &answer);
}

static void do_marks(host *self, const sync_action *action)
{
    sync_event answer = {.kind = SYNC_EV_MARKS, .marks = &self->marks_out};
    if (self->busy && !sim_one_in(3)) {
        answer.status = LARDER_EBUSY;
        answer.kind = action->kind == SYNC_ACT_MARKS_TOLD ? SYNC_EV_MARKS_TOLD : SYNC_EV_MARKS;
    } else if (action->kind == SYNC_ACT_MARKS) {
        many_read_out(self, action);
    } else {
        answer.kind = SYNC_EV_MARKS_TOLD;
        many_tell(self, action);
    }
    feed(self, &answer);
}

static void do_mark(host *self, const sync_action *action)
{
    request *r = ask(self, ASK_MARK);
    uint64_t nonces = action->mark.nonce_seed;
    r->marks_count = action->mark.count;
    if (r->marks_count > MARKS_AT_ONCE)
        sim_fail("host %d: too many marks at once", self->number);
    memcpy(r->marks, action->mark.marks, r->marks_count * sizeof *r->marks);
    r->epoch = action->mark.epoch;
    r->emitter = action->mark.emitter;
    r->nonce = sync_random(&nonces);
    r->quiet = action->mark.quiet;
}

static void carry_out(host *self, const sync_action *action)
{
    request *r;
    switch (action->kind) {
    case SYNC_ACT_CONNECT:
        cut(self);
        (void)ask(self, ASK_CONNECT);
        break;
    case SYNC_ACT_DISCONNECT:
        cut(self);
        break;
    case SYNC_ACT_JOIN:
    case SYNC_ACT_RANGE:
        r = ask(self, action->kind == SYNC_ACT_JOIN ? ASK_JOIN : ASK_RANGE);
        r->epoch = action->cursor.epoch;
        r->number = action->cursor.number;
        r->limit = action->cursor.count;
        r->node = self->map.node;
        r->identity = self->map.identity;
        break;
    case SYNC_ACT_DRAW_NODE:
        TRACE("host %d: another has its node id", self->number);
        self->map.node = map_draw_node();
        break;
    case SYNC_ACT_PUSH:
    case SYNC_ACT_COMPARE:
        do_push(self, action);
        break;
    case SYNC_ACT_EMIT:
        do_emit(self, action);
        break;
    case SYNC_ACT_LOAD:
        (void)ask(self, ASK_LOAD);
        break;
    case SYNC_ACT_FETCH:
        r = ask(self, ASK_FETCH);
        r->id = action->fetch.id;
        r->key = sim_key(action->fetch.key, action->fetch.key_size);
        break;
    case SYNC_ACT_MARKS:
    case SYNC_ACT_MARKS_TOLD:
        do_marks(self, action);
        break;
    case SYNC_ACT_MARK:
        do_mark(self, action);
        break;
    case SYNC_ACT_MARK_PAGE:
        r = ask(self, ASK_MARK_PAGE);
        r->page = action->page.from;
        break;
    case SYNC_ACT_ASK:
    case SYNC_ACT_ANSWER:
        sim_fail("nobody has asked");
    case SYNC_ACT_ARM:
        self->armed = self->just_armed = true;
        break;
    case SYNC_ACT_READ:
    case SYNC_ACT_APPLY:
    case SYNC_ACT_ACKNOWLEDGE:
        do_map(self, action);
        break;
    }
}

/* The map goes by Redis's clock; whenever that, or this host's own, was set. */
static void tell_clock(host *self)
{
    int64_t redis = 0;
    if (rule_off(RULE_OFFSET) || !sync_clock(self->machine, &redis))
        return;
    self->map.clock_known = true;
    self->map.redis_ms = redis;
    self->map.offset_ms = redis - self->skew;
}

/* Actions that answer at once are worked off after the others of their step, as the daemon does. */
static void feed(host *self, const sync_event *event)
{
    if (sim.feeding) {
        if (sim.waiting_count == WAITING_MAX)
            sim_fail("host %d: too many answers in one step", self->number);
        sim.waiting[sim.waiting_count++] = *event;
        return;
    }
    sim.feeding = true;
    sync_event now = *event;
    for (unsigned turn = 0;; turn++) {
        sync_action_list actions;
        if (turn == 2000)
            sim_fail("host %d: the machine goes round in circles", self->number);
        now.now_ms = sim.now_ms;
        now.wall_ms = host_wall(self);
        sim.in_machine = true;
        sync_step(self->machine, &now, &actions);
        sim.in_machine = false;
        tell_clock(self);
        for (size_t i = 0; i < actions.count; i++)
            carry_out(self, &actions.items[i]);
        if (sim.waiting_count == 0)
            break;
        now = sim.waiting[0];
        sim.waiting_count--;
        memmove(sim.waiting, sim.waiting + 1, sim.waiting_count * sizeof *sim.waiting);
    }
    sim.feeding = false;
    check_bounds(self);
    if (self->dies_in != 0 && --self->dies_in == 0)
        host_start(self);
}

void host_say(host *self, enum sync_event_kind kind)
{
    sync_event event = {.kind = kind};
    feed(self, &event);
}

void host_recheck(host *self)
{
    sync_event event = {.kind = SYNC_EV_RECHECK, .entries = map_dirty(&self->map)};
    feed(self, &event);
}

void host_disconnect(host *self, enum sync_cause cause)
{
    sync_event event = {.kind = SYNC_EV_DISCONNECTED, .cause = cause};
    cut(self);
    feed(self, &event);
}

/* ---- What Redis says --------------------------------------------------------------------------
 */

static void point_at_value(sync_change *change, const uint64_t *value)
{
    change->record.value = (const uint8_t *)value;
}

static void spoil(sync_change *change)
{
    change->malformed = true; /* its number counts, its content is lost */
    change->emitter = 0;
}

static void give_joined(host *self, request *r, sync_event *event)
{
    sync_joined *joined = &r->joined;
    sync_view view;
    sync_look(self->machine, &view);
    bool other = self->join_epoch != joined->epoch;
    if (rule_off(RULE_MARK_SET) && machine_marks_id(self->machine) != 0)
        joined->marks_id = machine_marks_id(self->machine);
    if (rule_off(RULE_NONCE) && joined->cursor_found)
        joined->cursor_nonce = machine_nonce(self->machine);
    if (rule_off(RULE_HEARTBEAT) && view.state == SYNC_UP && joined->epoch == view.epoch &&
        joined->last_number > view.number)
        joined->last_number = view.number;
    if (rule_off(RULE_NODE))
        joined->node_taken = false;
    if (rule_off(RULE_BEGINNING) && other)
        self->adopted_until = joined->last_number;
    if (rule_off(RULE_POSITION_AFTER_RESYNC) && other) {
        self->map.position = (replica_position){.epoch = joined->epoch,
                                                .number = joined->last_number,
                                                .nonce = joined->last_nonce,
                                                .seen_ms = joined->redis_ms,
                                                .since_ms = joined->redis_ms};
        memcpy(self->map.position.run_id, sim.server.run_id, sizeof sim.server.run_id);
    }
    TRACE("host %d: joins %" PRIu64 "-%" PRIu64 ", its place %" PRIu64 "-%" PRIu64 " is %s",
          self->number, joined->epoch, joined->last_number, r->epoch, r->number,
          joined->cursor_found ? "there" : "not there");
    self->join_epoch = joined->epoch;
    event->kind = SYNC_EV_JOINED;
    event->joined = *joined;
}

static void give_replied(host *self, const request *r, sync_event *event)
{
    event->kind = SYNC_EV_REPLY;
    event->reply.batch = r->batch;
    event->reply.index = r->index;
    event->reply.outcome = r->outcome;
    event->reply.winner = r->has_change ? &r->changes[0] : NULL;
    event->reply.redis_ms = r->redis_ms;
    if ((r->outcome == SYNC_FOUND || r->outcome == SYNC_NOT_FOUND) && rule_off(RULE_VERIFY))
        event->reply.outcome = SYNC_SAME;
    if (r->outcome == SYNC_FOUND && rule_off(RULE_VERIFY_OLDER) &&
        sync_order(&r->changes[0].record, &r->record) < 0)
        event->reply.outcome = SYNC_SAME;
    if (r->outcome == SYNC_NOT_FOUND && rule_off(RULE_VERIFY_MISSING))
        event->reply.outcome = SYNC_SAME;
    if ((r->outcome == SYNC_NO_SCRIPT || r->outcome == SYNC_NO_STREAM) && rule_off(RULE_NOT_ACKED))
        event->reply.outcome = SYNC_STORED;
    if ((r->outcome == SYNC_REFUSED_KEY || r->outcome == SYNC_NO_MEMORY) && rule_off(RULE_RETRY))
        event->reply.outcome = SYNC_STORED;
    if (r->outcome == SYNC_OLD && rule_off(RULE_WINNER))
        event->reply.outcome = SYNC_SAME;
    if (event->reply.outcome == SYNC_STORED && server_is_cluster())
        keep_event(self, r);
}

static void give_range(host *self, request *r, sync_event *event)
{
    for (size_t i = 0; i < r->count; i++) {
        sync_change *change = &r->changes[i];
        point_at_value(change, &change->record.value_hash);
        if (!change->begin && (rule_off(RULE_RANGE) ||
                               (rule_off(RULE_BEGINNING) && change->epoch == self->join_epoch &&
                                change->number <= self->adopted_until)))
            spoil(change);
    }
    if (r->count != 0)
        TRACE("host %d: reads the stream from %" PRIu64 "-%" PRIu64 " to %" PRIu64 "-%" PRIu64,
              self->number, r->epoch, r->number, r->changes[r->count - 1].epoch,
              r->changes[r->count - 1].number);
    event->kind = SYNC_EV_RANGE;
    event->range.changes = r->changes;
    event->range.count = r->count;
    event->range.more = r->count == r->limit;
}

void host_give_reply(host *self)
{
    sync_event event = {.kind = SYNC_EV_SCRIPTS};
    choose_node(self, self->head, self->worked);
    request *r = &self->asked[self->head % ASKED_MAX];
    if (r->fails) {
        host_disconnect(self, r->cause);
        return;
    }
    self->head++;
    if (r->has_change)
        point_at_value(&r->changes[0], &r->plain_hash);
    switch (r->kind) {
    case ASK_CONNECT:
        self->subscribed = true;
        event.kind = SYNC_EV_CONNECTED;
        event.run_id = sim.server.run_id;
        if (rule_off(RULE_RUN_ID) && self->map.position.run_id[0] != 0)
            event.run_id = self->map.position.run_id;
        break;
    case ASK_JOIN:
        give_joined(self, r, &event);
        break;
    case ASK_PUSH:
    case ASK_RECORD:
        give_replied(self, r, &event);
        break;
    case ASK_EMIT:
        if (rule_off(RULE_EMIT_ANSWERED))
            return;
        event.kind = SYNC_EV_EMITTED;
        event.emitted.batch = r->batch;
        event.emitted.outcome = r->outcome;
        break;
    case ASK_RANGE:
        give_range(self, r, &event);
        break;
    case ASK_FETCH:
        event.kind = SYNC_EV_FETCHED;
        event.fetched.id = r->id;
        event.fetched.change = r->has_change ? &r->changes[0] : NULL;
        break;
    case ASK_MARK:
        event.kind = SYNC_EV_MARKED;
        event.marked.outcome = r->outcome;
        event.marked.set_id = r->set_id;
        break;
    case ASK_MARK_PAGE:
        event.kind = SYNC_EV_MARK_PAGE;
        event.mark_page.changes = r->changes;
        event.mark_page.count = rule_off(RULE_MARKS_DOWN) ? 0 : r->count;
        event.mark_page.last = true;
        event.mark_page.next = r->next;
        break;
    case ASK_LOAD:
        break;
    }
    feed(self, &event);
}

/* Without the rule, what a gap has swallowed is taken for known. */
static void hide_gap(host *self, const sync_change *next)
{
    sync_view view;
    sync_look(self->machine, &view);
    if (next->epoch != view.epoch || view.state != SYNC_UP || next->number <= view.number + 1 ||
        next->number > view.number + HEARD_MAX)
        return;
    for (uint64_t number = view.number + 1; number < next->number; number++) {
        sync_change missing = {.epoch = next->epoch, .number = number, .numbered = true};
        sync_event event = {.kind = SYNC_EV_STREAM, .change = &missing};
        spoil(&missing);
        feed(self, &event);
    }
}

void host_give_message(host *self)
{
    message got = self->heard[self->heard_head++ % HEARD_MAX];
    const stream_entry *entry = &got.entry;
    sync_change change = server_change(entry, got.numbered);
    sync_event event = {.kind = SYNC_EV_STREAM, .change = &change};
    point_at_value(&change, &entry->record.value_hash);
    if (got.numbered) {
        TRACE("host %d: hears %" PRIu64 "-%" PRIu64, self->number, entry->epoch, entry->number);
        if (rule_off(RULE_GAP))
            hide_gap(self, &change);
    }
    feed(self, &event);
}

/* ---- Life -------------------------------------------------------------------------------------
 */

/* It believes that its connections are lost, and what it had taken in before still counts: it would
 * store that, and acknowledge. Each transaction of its asks who owns the map: then it ends. */
void host_wake_ghost(host *self)
{
    sync_action_list actions;
    sync_event event = {.kind = SYNC_EV_DISCONNECTED,
                        .cause = SYNC_LOST_CONNECTION,
                        .now_ms = sim.now_ms,
                        .wall_ms = host_wall(self)};
    if (self->ghost == NULL)
        return;
    TRACE("host %d: the larderd of before wakes", self->number);
    sync_step(self->ghost, &event, &actions);
    for (size_t i = 0; i < actions.count && rule_off(RULE_FENCE); i++) {
        size_t cleared;
        if (actions.items[i].kind == SYNC_ACT_APPLY)
            (void)map_apply(self, &actions.items[i]);
        else if (actions.items[i].kind == SYNC_ACT_ACKNOWLEDGE)
            (void)map_acknowledge(self, &actions.items[i], &cleared);
    }
    sync_destroy(&self->ghost);
}

void host_stop(host *self)
{
    sync_destroy(&self->ghost);
    self->ghost = self->machine;
    self->machine = NULL;
    host_start(self);
}

void host_start(host *self)
{
    self->settings =
        (sync_settings){.batch_commands = 1 + sim_pick(4),
                        .batch_bytes = 65536,
                        .batches_in_flight = 1 + sim_pick(3),
                        .retry_entries = 1 + sim_pick(KEYS_MAX),
                        .linger_ms = 2,
                        .backoff_min_ms = 10,
                        .backoff_max_ms = 200,
                        .park_ms = 1000,
                        .retry_max_ms = 500,
                        .heartbeat_ms = 300,
                        .breaker_failures = 3,
                        .breaker_open_ms = 100,
                        .page = 1 + sim_pick(PAGE_MAX),
                        .max_value = LARGE_SIZE,
                        .verify_ms = sim.faults[FAULT_VERIFY] && !rule_off(RULE_ROLLING) ? 500 : 0,
                        .keep_ms = rule_off(RULE_ABSENT) ? 0 : SIM_KEEP_MS,
                        .events_apart = server_is_cluster(),
                        .random_seed = sim_random()};
    TRACE("host %d: larderd starts", self->number);
    self->dies_applying = false;
    self->dies_in = 0;
    if (rule_off(RULE_MARK_UNSWEPT))
        memset(self->map.unswept, 0, sizeof self->map.unswept);
    sync_destroy(&self->machine);
    self->machine = sync_create(&self->settings);
    if (self->machine == NULL)
        sim_fail("no memory");
    cut(self);
    self->armed = self->just_armed = false;
    replica_position position = self->map.position;
    position.marks_id = rule_off(RULE_MARK_SET_KEPT) ? 0 : position.marks_id;
    sync_event event = {.kind = SYNC_EV_START, .position = &position};
    feed(self, &event);
}
