/* session.c: the machine's frame: sessions with Redis, joining the stream, noticing that history is
 * lost, and the one step function. See sync.h for the contract and doc/protocol.md for the rules.
 */
#include "daemon/sync/internal.h"

#include <stdlib.h>
#include <string.h>

size_t sync_room(const struct sync *self)
{
    return SYNC_ACTIONS_MAX - self->actions->count;
}

sync_action *sync_act(struct sync *self, enum sync_action_kind kind)
{
    if (sync_room(self) == 0)
        return NULL;
    sync_action *action = &self->actions->items[self->actions->count++];
    memset(action, 0, sizeof *action);
    action->kind = kind;
    return action;
}

struct sync *sync_create(const sync_settings *settings)
{
    struct sync *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    self->settings = *settings;
    if (self->settings.batch_commands == 0 || self->settings.batch_commands > SYNC_BATCH_MAX)
        self->settings.batch_commands = SYNC_BATCH_MAX;
    if (self->settings.page == 0 || self->settings.page > SYNC_PAGE_MAX)
        self->settings.page = SYNC_PAGE_MAX;
    if (self->settings.batches_in_flight == 0)
        self->settings.batches_in_flight = 1;
    if (self->settings.retry_entries == 0)
        self->settings.retry_entries = 1;
    sync_marks_begin(self);
    self->random = settings->random_seed;
    self->emitter = sync_random(&self->random);
    sync_backoff_init(&self->backoff, settings->backoff_min_ms, settings->backoff_max_ms,
                      settings->breaker_failures, settings->breaker_open_ms,
                      sync_random(&self->random));
    self->attempt_at = self->heartbeat_at = SYNC_NEVER;
    if (!outbound_create(self) || !inbound_create(self) || !fetches_create(self) ||
        !asks_create(self))
        sync_destroy(&self);
    return self;
}

void sync_destroy(struct sync **self)
{
    if (self == NULL || *self == NULL)
        return;
    outbound_destroy(*self);
    inbound_destroy(*self);
    fetches_destroy(*self);
    asks_destroy(*self);
    free(*self);
    *self = NULL;
}

/* ---- Sessions ---------------------------------------------------------------------------------
 */

static void disconnected(struct sync *self, enum sync_cause cause)
{
    if (self->state == SYNC_DISCONNECTED || self->state == SYNC_PARKED)
        return;
    if (!self->joined)
        self->counters.connect_failures++;
    else if (self->now_ms - self->session_ms >= SESSION_WORKED_MS)
        sync_backoff_worked(&self->backoff);
    outbound_disconnected(self);
    inbound_disconnected(self);
    fetches_disconnected(self, cause);
    asks_disconnected(self, cause);
    sync_marks_disconnected(self);
    if (self->out.resync != RESYNC_NONE)
        self->cursor = self->stored; /* what was adopted counts only once the log is pushed */
    self->joined = self->join_out = self->rejoin = self->lost = false;
    self->heartbeat_at = SYNC_NEVER;
    int64_t pause = sync_backoff_failed(&self->backoff);
    if (cause == SYNC_NO_PERMISSION) {
        self->state = SYNC_PARKED;
        if (pause < self->settings.park_ms)
            pause = self->settings.park_ms;
    } else {
        self->state = SYNC_DISCONNECTED;
    }
    self->attempt_at = self->now_ms + pause;
}

void sync_end_session(struct sync *self, enum sync_cause cause)
{
    if (self->state == SYNC_DISCONNECTED || self->state == SYNC_PARKED)
        return;
    disconnected(self, cause);
    sync_act(self, SYNC_ACT_DISCONNECT); /* always first of its step's consequences: has room */
}

static void attempt(struct sync *self)
{
    if (self->attempt_at > self->now_ms || sync_act(self, SYNC_ACT_CONNECT) == NULL)
        return;
    sync_backoff_attempt(&self->backoff);
    self->state = SYNC_CONNECTING;
    self->attempt_at = SYNC_NEVER;
}

static void connected(struct sync *self, const char *run_id)
{
    if (self->state != SYNC_CONNECTING)
        return;
    size_t size = strlen(run_id);
    if (size >= sizeof self->run_id)
        size = sizeof self->run_id - 1;
    memset(self->run_id, 0, sizeof self->run_id);
    memcpy(self->run_id, run_id, size);
    self->session_ms = self->now_ms;
    self->heartbeat_at = self->now_ms; /* the first join */
    pending_connected(self);
}

/* ---- Joining ----------------------------------------------------------------------------------
 */

void sync_rejoin(struct sync *self, bool lost)
{
    self->rejoin = true;
    self->lost = self->lost || lost;
    self->heartbeat_at = self->now_ms;
}

int64_t sync_redis_now(const struct sync *self)
{
    return self->clock_known ? self->now_ms + self->redis_ms : self->wall_ms;
}

bool sync_ahead(const struct sync *self, uint64_t clock)
{
    return self->clock_known && (int64_t)(clock >> 16) > sync_redis_now(self) + REPLICA_AHEAD_MS;
}

/* It said so some time between then and now: what we believe is changed no further than that asks
 * for, so that slow round trips do not make the clock jitter. */
void sync_hear_time(struct sync *self, int64_t redis_ms, int64_t sent_ms)
{
    int64_t least = redis_ms - self->now_ms, most = redis_ms + 1 - sent_ms;
    if (redis_ms <= 0 || most < least || most - least > ROUND_TRIP_MOST_MS)
        return;
    if (!self->clock_known)
        self->redis_ms = least + (most - least) / 2;
    self->clock_known = true;
    self->redis_ms = self->redis_ms < least ? least : self->redis_ms;
    self->redis_ms = self->redis_ms > most ? most : self->redis_ms;
}

bool sync_clock(const struct sync *self, int64_t *redis_minus_monotonic_ms)
{
    *redis_minus_monotonic_ms = self->redis_ms;
    return self->clock_known;
}

void sync_hurry_heartbeat(struct sync *self)
{
    if (!self->join_out && self->joined)
        self->heartbeat_at = self->now_ms;
}

static void ask_to_join(struct sync *self)
{
    if (self->heartbeat_at > self->now_ms || self->join_out)
        return;
    sync_action *action = sync_act(self, SYNC_ACT_JOIN);
    if (action == NULL)
        return;
    action->cursor.epoch = self->cursor.epoch;
    action->cursor.number = self->cursor.number;
    self->asked = self->cursor;
    self->join_out = true;
    self->join_ms = self->now_ms;
    self->heartbeat_at = SYNC_NEVER;
}

/* Is all that was seen before the cursor still the history of this stream? */
static bool history_holds(const struct sync *self, const sync_joined *joined)
{
    return self->asked.epoch != 0 && joined->epoch == self->asked.epoch && joined->cursor_found &&
           (self->asked.nonce == 0 || joined->cursor_nonce == self->asked.nonce) &&
           joined->last_number >= self->asked.number;
}

/* Another history: where in it do we begin? In an epoch that began while we knew the one before, at
 * its beginning, so that nothing that was told in it is missed; if that is trimmed away already,
 * the first range shows it, and the second adoption, like that of a host that never was here,
 * begins at the end. The begin entry's nonce is not known then: 0. */
static void adopt(struct sync *self, const sync_joined *joined)
{
    bool beginning =
        self->asked.epoch != 0 && self->asked.epoch != joined->epoch && joined->last_number != 0;
    self->cursor.epoch = joined->epoch;
    self->cursor.number = beginning ? 0 : joined->last_number;
    self->cursor.nonce = beginning ? 0 : joined->last_nonce;
    if (!beginning && joined->last_number != 0)
        self->cursor.since_ms = joined->redis_ms;
}

static void joined(struct sync *self, const sync_joined *joined)
{
    if (!self->join_out)
        return;
    bool first = !self->joined;
    bool unfinished = first && self->out.resync != RESYNC_NONE; /* by the session before */
    sync_hear_time(self, joined->redis_ms, self->join_ms);
    /* What was deleted so long ago may be known from no record, but from the stream, still: it must
     * not be read behind what we would push meanwhile. */
    bool away = first && self->stored.epoch != 0 && verify_absent(self);
    bool holds = history_holds(self, joined);
    bool lost = self->lost || away || !holds || (unfinished && !self->settings.events_apart);
    bool other_server =
        first && self->run_id[0] != 0 && strcmp(self->run_id, self->stored.run_id) != 0;
    self->join_out = self->rejoin = self->lost = false;
    self->joined = true;
    if (joined->node_taken && sync_act(self, SYNC_ACT_DRAW_NODE) != NULL)
        self->counters.nodes_drawn++;
    self->heartbeat_at = self->now_ms + self->settings.heartbeat_ms;
    if (first) {
        self->counters.connects++;
        self->backoff.breaker = SYNC_BREAKER_CLOSED; /* failures are forgotten once it lasts */
    }
    if (lost) {
        adopt(self, joined);
        inbound_forget(self);
    }
    if (self->run_id[0] != 0)
        memcpy(self->cursor.run_id, self->run_id, sizeof self->cursor.run_id);
    if (lost || unfinished || other_server)
        outbound_resync(self, !lost);
    self->heard_number = joined->last_number;
    self->heard_ms = sync_redis_now(self);
    verify_joined(self);
    sync_marks_joined(self, joined->marks_id, lost, other_server);
    inbound_joined(self, joined->last_number);
}

/* ---- The step ---------------------------------------------------------------------------------
 */

static void advance(struct sync *self, bool flush)
{
    if (!self->started)
        return;
    if (self->state == SYNC_DISCONNECTED || self->state == SYNC_PARKED)
        attempt(self);
    if (self->state == SYNC_DISCONNECTED || self->state == SYNC_PARKED) {
        inbound_advance(self, flush); /* what came before the end still counts */
        sync_marks_advance(self);
        outbound_advance(self); /* as do acknowledgements the map was too busy for */
        asks_advance(self);
        return;
    }
    ask_to_join(self);
    inbound_advance(self, flush);
    fetches_advance(self);
    sync_marks_advance(self);
    outbound_advance(self);
    asks_advance(self);
    if (self->joined) {
        self->state = self->out.resync != RESYNC_NONE || self->in.catching_up || self->rejoin ||
                              sync_marks_hold(self)
                          ? SYNC_SYNCING
                          : SYNC_UP;
        if (self->backoff.failures != 0 && self->now_ms - self->session_ms >= SESSION_WORKED_MS)
            sync_backoff_worked(&self->backoff);
    }
}

static void take(struct sync *self, const sync_event *event)
{
    switch (event->kind) {
    case SYNC_EV_START:
        self->started = true;
        self->stored = self->cursor = *event->position;
        self->marks.known_id = event->position->marks_id;
        self->attempt_at = self->now_ms;
        break;
    case SYNC_EV_CONNECTED:
        connected(self, event->run_id);
        break;
    case SYNC_EV_DISCONNECTED:
        disconnected(self, event->cause);
        break;
    case SYNC_EV_JOINED:
        joined(self, &event->joined);
        break;
    case SYNC_EV_ROWS:
        rows_read(self, event);
        break;
    case SYNC_EV_REPLY:
        batches_reply(self, event);
        break;
    case SYNC_EV_EMITTED:
        batches_emitted(self, event);
        break;
    case SYNC_EV_SCRIPTS:
        self->out.loading = self->out.need_scripts = false;
        break;
    case SYNC_EV_STREAM:
        inbound_stream(self, event->change);
        break;
    case SYNC_EV_RANGE:
        inbound_range(self, event->range.changes, event->range.count, event->range.more);
        break;
    case SYNC_EV_FETCHED:
        fetches_came(self, event->fetched.id, event->fetched.change);
        break;
    case SYNC_EV_ASK:
        asks_add(self, event);
        break;
    case SYNC_EV_CHANGED:
        asks_changed(self, event);
        break;
    case SYNC_EV_ASKED:
        asks_answered(self, event);
        break;
    case SYNC_EV_APPLIED:
        inbound_applied(self, event->status);
        break;
    case SYNC_EV_ACKNOWLEDGED:
        batches_acknowledged(self, event);
        break;
    case SYNC_EV_MARKS:
        sync_marks_read(self, event);
        break;
    case SYNC_EV_MARKED:
        sync_marks_answered(self, event);
        break;
    case SYNC_EV_MARKS_TOLD:
        sync_marks_told(self, event->status);
        break;
    case SYNC_EV_MARK_PAGE:
        sync_marks_page(self, event);
        break;
    case SYNC_EV_WAKE:
        outbound_wake(self);
        sync_marks_look(self);
        break;
    case SYNC_EV_RECHECK:
        outbound_recheck(self, event->entries);
        break;
    case SYNC_EV_COUNT:
        self->verify.entries = event->entries;
        break;
    case SYNC_EV_IDLE:
    case SYNC_EV_TICK:
        break;
    }
}

/* A clock that is set back stays suspect: what the map says was told when may be of before. */
static void watch_wall(struct sync *self, int64_t wall_ms)
{
    int64_t offset = wall_ms - self->now_ms;
    if (self->wall_ms == 0 || offset > self->wall_offset_ms)
        self->wall_offset_ms = offset;
    if (offset < self->wall_offset_ms - WALL_STEP_MS)
        self->wall_set_back = true;
    self->wall_ms = wall_ms;
}

void sync_step(struct sync *self, const sync_event *event, sync_action_list *actions)
{
    actions->count = 0;
    self->actions = actions;
    self->now_ms = event->now_ms;
    watch_wall(self, event->wall_ms);
    take(self, event);
    /* Replies and messages come in bursts: what they bring is applied when the burst is over. */
    bool burst = event->kind == SYNC_EV_STREAM || event->kind == SYNC_EV_REPLY ||
                 event->kind == SYNC_EV_FETCHED || event->kind == SYNC_EV_ASKED ||
                 event->kind == SYNC_EV_MARK_PAGE;
    advance(self, !burst);
    self->actions = NULL;
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t sync_deadline(const struct sync *self)
{
    int64_t due = earlier(outbound_deadline(self), inbound_deadline(self));
    due = earlier(due, fetches_deadline(self));
    due = earlier(earlier(due, asks_deadline(self)), self->attempt_at);
    due = earlier(due, sync_marks_deadline(self));
    return self->join_out ? due : earlier(due, self->heartbeat_at);
}

void sync_look(const struct sync *self, sync_view *out)
{
    memset(out, 0, sizeof *out);
    out->state = self->state;
    out->breaker = self->backoff.breaker;
    out->failures = self->backoff.failures;
    out->in_flight_items = (uint32_t)self->out.in_flight_items;
    out->in_flight_batches = (uint32_t)self->out.batches;
    out->retry_entries = (uint32_t)self->out.retry_count;
    out->left_entries = pending_left(self);
    out->resyncs_soon = self->out.resyncs_soon;
    out->ranges = (uint32_t)self->out.range_count;
    out->unacknowledged = batches_unacknowledged(self);
    out->epoch = self->cursor.epoch;
    out->number = self->cursor.number;
    out->scan_row = self->out.scan_row;
    out->resyncing = self->out.resync != RESYNC_NONE || sync_marks_hold(self);
    out->catching_up = self->in.catching_up;
    out->drained = outbound_drained(self) && inbound_empty(self) && sync_marks_drained(self);
    out->attempt_at_ms = self->attempt_at;
    out->lag_ms = self->lag_ms;
    out->clock_offset_ms = self->clock_known ? sync_redis_now(self) - self->wall_ms : 0;
    out->counters = self->counters;
}

enum sync_state sync_state_now(const struct sync *self)
{
    return self->state;
}

bool sync_position(const struct sync *self, replica_position *out)
{
    if (self->cursor.epoch == 0 || self->out.resync != RESYNC_NONE || !inbound_empty(self))
        return false;
    *out = self->cursor;
    return true;
}
