/* replicator.c: the glue of replication: feeds the protocol machine (daemon/sync) with what the map
 * (lib/replica.h), Redis (daemon/redis/link.h) and the clock say, and carries out its actions. One
 * event is worked off at a time; what an action brings about at once waits in a short queue, so
 * that nothing is ever entered twice. See replicator.h for the contract.
 */
#include "daemon/replicator.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <syslog.h>
#include <time.h>

#include "daemon/redis/link.h"
#include "daemon/redis/names.h"
#include "daemon/replicator_internal.h"

#define CLOCK_TOLERANCE_MS 2 /* of reading two clocks one after the other */

/* ---- Time -------------------------------------------------------------------------------------
 */

static int64_t clock_ms(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t replicator_wall_ms(void)
{
    return clock_ms(CLOCK_REALTIME);
}

int64_t replicator_now_ms(void)
{
    return clock_ms(CLOCK_MONOTONIC);
}

/* ---- The map ----------------------------------------------------------------------------------
 */

/* A status of the port: another larderd that took over ends us. */
static int checked(replicator *self, int status, const char *what)
{
    if (status == REPLICA_FENCED && !self->fenced) {
        self->fenced = true;
        event_active(self->ended, EV_TIMEOUT, 0);
    } else if (status < 0 && status != LARDER_EBUSY && status != REPLICA_FENCED) {
        int64_t now = replicator_now_ms();
        if (now - self->map_logged_ms > 60000 || self->map_logged_ms == 0) {
            self->map_logged_ms = now;
            replicator_say(self, LOG_ERR, "map: %s: %s (%s)", what, larder_strerror(status),
                           larder_last_error());
        }
    }
    return status;
}

void replicator_post(replicator *self, const sync_event *event)
{
    if (self->queued == REPLICATOR_QUEUE) { /* cannot be: an action answers at most once */
        replicator_say(self, LOG_CRIT, "too many events in one step");
        abort();
    }
    self->queue[(self->queue_first + self->queued++) % REPLICATOR_QUEUE] = *event;
}

static void do_read(replicator *self, const sync_action *action)
{
    sync_event answer = {.kind = SYNC_EV_ROWS, .rows = &self->rows};
    answer.status = checked(self,
                            replica_outbox(self->map, &self->rows, action->read.from_row,
                                           action->read.max_records, action->read.max_bytes,
                                           action->read.include_clean),
                            "reading the log");
    replicator_post(self, &answer);
}

static void do_apply(replicator *self, const sync_action *action)
{
    sync_event answer = {.kind = SYNC_EV_APPLIED};
    answer.status = checked(self,
                            replica_apply(self->map, self->fence, action->apply.events,
                                          action->apply.count, action->apply.position),
                            "applying events");
    for (size_t i = 0; i < action->apply.count && answer.status >= 0; i++)
        if (action->apply.events[i].record.kind == REPLICA_MARK)
            event_active(self->sweep, EV_TIMEOUT, 0); /* it may be a prefix */
    replicator_post(self, &answer);
}

static void do_acknowledge(replicator *self, const sync_action *action)
{
    sync_event answer = {.kind = SYNC_EV_ACKNOWLEDGED};
    size_t cleared = 0;
    answer.status = checked(self,
                            replica_acknowledge(self->map, self->fence, action->acknowledge.acks,
                                                action->acknowledge.count, &cleared),
                            "acknowledging");
    answer.acknowledged.batch = action->acknowledge.batch;
    answer.acknowledged.cleared = cleared;
    replicator_post(self, &answer);
}

static void do_marks(replicator *self, const sync_action *action)
{
    sync_event answer = {.kind = SYNC_EV_MARKS, .marks = &self->marks};
    answer.status = checked(self,
                            replica_marks_read(self->map, &self->marks, action->marks.all,
                                               action->marks.floors, action->marks.restart),
                            "reading invalidations");
    replicator_post(self, &answer);
}

static void do_marks_told(replicator *self, const sync_action *action)
{
    sync_event answer = {.kind = SYNC_EV_MARKS_TOLD};
    answer.status = checked(
        self, replica_marks_told(self->map, self->fence, action->mark.marks, action->mark.count),
        "acknowledging invalidations");
    replicator_post(self, &answer);
}

/* ---- Actions ----------------------------------------------------------------------------------
 */

static void unsent(replicator *self)
{
    sync_event event = {.kind = SYNC_EV_DISCONNECTED, .cause = SYNC_LOST_CONNECTION};
    link_disconnect(self->link);
    replicator_trouble(self, "a request could not be sent");
    replicator_post(self, &event);
}

static void carry_out(replicator *self, const sync_action *action)
{
    bool sent = true;
    switch (action->kind) {
    case SYNC_ACT_CONNECT:
        link_connect(self->link);
        break;
    case SYNC_ACT_DISCONNECT:
        link_disconnect(self->link);
        break;
    case SYNC_ACT_JOIN:
        sent = link_join(self->link, action->cursor.epoch, action->cursor.number,
                         replica_node(self->map), replica_identity(self->map));
        break;
    case SYNC_ACT_READ:
        do_read(self, action);
        break;
    case SYNC_ACT_PUSH:
        sent = link_push(self->link, action);
        break;
    case SYNC_ACT_EMIT:
        sent = link_emit(self->link, action);
        break;
    case SYNC_ACT_LOAD:
        sent = link_load(self->link);
        break;
    case SYNC_ACT_COMPARE:
        sent = link_compare(self->link, action);
        break;
    case SYNC_ACT_DRAW_NODE:
        (void)checked(self, replica_draw_node(self->map, self->fence), "drawing a node id");
        replicator_say(self, LOG_NOTICE,
                       "redis %s: another map has this one's node id (a copy of it?): a new one is"
                       " drawn",
                       self->url.display);
        break;
    case SYNC_ACT_RANGE:
        sent = link_range(self->link, action->cursor.epoch, action->cursor.number,
                          action->cursor.count);
        break;
    case SYNC_ACT_FETCH:
        sent = link_fetch(self->link, action->fetch.id, action->fetch.key, action->fetch.key_size);
        break;
    case SYNC_ACT_ASK:
        sent = replicator_ask(self, action);
        break;
    case SYNC_ACT_ANSWER:
        replicator_answer(self, action);
        break;
    case SYNC_ACT_APPLY:
        do_apply(self, action);
        break;
    case SYNC_ACT_ACKNOWLEDGE:
        do_acknowledge(self, action);
        break;
    case SYNC_ACT_MARKS:
        do_marks(self, action);
        break;
    case SYNC_ACT_MARK:
        sent = link_mark(self->link, action);
        break;
    case SYNC_ACT_MARKS_TOLD:
        do_marks_told(self, action);
        break;
    case SYNC_ACT_MARK_PAGE:
        sent = link_mark_page(self->link, action->page.from);
        break;
    case SYNC_ACT_ARM:
        replica_wake_arm(self->map);
        break;
    }
    if (!sent)
        unsent(self);
}

/* The map goes by Redis's clock. It is told anew whenever that, or this host's own, was set.
 * ours: this host's, as Redis's is told: against the monotonic one. */
static void tell_clock(replicator *self, int64_t ours)
{
    int64_t redis = 0;
    if (!sync_clock(self->machine, &redis))
        return;
    int64_t offset = redis - ours;
    if (self->clock_told && redis == self->clock_redis_ms &&
        llabs(offset - self->clock_offset_ms) <= CLOCK_TOLERANCE_MS)
        return;
    if (checked(self, replica_publish_clock(self->map, self->fence, redis), "setting the clock") !=
        LARDER_OK)
        return;
    self->clock_told = true;
    self->clock_redis_ms = redis;
    self->clock_offset_ms = offset;
}

static void step(replicator *self, sync_event *event)
{
    sync_action_list actions;
    event->now_ms = replicator_now_ms();
    event->wall_ms = replicator_wall_ms();
    sync_step(self->machine, event, &actions);
    tell_clock(self, event->wall_ms - event->now_ms); /* before an action that counts on it */
    for (size_t i = 0; i < actions.count && !self->fenced; i++)
        carry_out(self, &actions.items[i]);
}

/* Everything that happens comes through here. */
void replicator_feed(replicator *self, const sync_event *event)
{
    if (self->fenced || self->finished)
        return;
    if (self->running) {
        replicator_post(self, event);
        return;
    }
    self->running = true;
    sync_event now = *event;
    step(self, &now);
    while (self->queued != 0 && !self->fenced) {
        now = self->queue[self->queue_first];
        self->queue_first = (self->queue_first + 1) % REPLICATOR_QUEUE;
        self->queued--;
        step(self, &now);
    }
    self->running = false;
    replicator_noticed(self);
    deadline_set(self->timer, sync_deadline(self->machine));
    replicator_keep_look(self);
}

static void on_timer(void *context)
{
    sync_event event = {.kind = SYNC_EV_TICK};
    replicator_feed(context, &event);
}

static void on_wake(evutil_socket_t fd, short what, void *context)
{
    replicator *self = context;
    sync_event event = {.kind = SYNC_EV_WAKE};
    (void)fd;
    (void)what;
    replica_wake_drain(self->map);
    replicator_take_asks(self);
    if (!replica_wake_is_armed(self->map)) /* else nobody has written anything */
        replicator_feed(self, &event);
}

/* ---- What the link says -----------------------------------------------------------------------
 */

static void on_connected(void *context, const char *run_id, const char *history,
                         const char *redis_version)
{
    replicator *self = context;
    sync_event event = {.kind = SYNC_EV_CONNECTED, .run_id = history};
    snprintf(self->run_id, sizeof self->run_id, "%s", run_id);
    replicator_mask(self, redis_version, self->redis_version, sizeof self->redis_version);
    replicator_feed(self, &event);
}

static void on_disconnected(void *context, enum sync_cause cause, const char *why, bool timed_out,
                            bool protocol)
{
    replicator *self = context;
    sync_event event = {.kind = SYNC_EV_DISCONNECTED, .cause = cause};
    if (protocol && cause == SYNC_LOST_CONNECTION)
        event.cause = SYNC_BAD_REPLY;
    self->timeouts += timed_out;
    self->protocol_errors += protocol;
    replicator_trouble(self, why);
    replicator_feed(self, &event);
}

static void on_joined(void *context, const sync_joined *joined)
{
    sync_event event = {.kind = SYNC_EV_JOINED, .joined = *joined};
    replicator_feed(context, &event);
}

static void on_replied(void *context, struct sync_batch *batch, size_t index,
                       enum sync_outcome outcome, const sync_change *winner, int64_t redis_ms,
                       const char *trouble)
{
    replicator *self = context;
    sync_event event = {.kind = SYNC_EV_REPLY};
    event.reply.batch = batch;
    event.reply.index = index;
    event.reply.outcome = outcome;
    event.reply.winner = winner;
    event.reply.redis_ms = redis_ms;
    if (outcome == SYNC_AHEAD)
        replicator_trouble(self,
                           "a write was stamped anew: its version was too far ahead of Redis's"
                           " clock");
    if (trouble != NULL && outcome != SYNC_NO_SCRIPT) {
        char why[256];
        snprintf(why, sizeof why, "a key was refused: %.200s", trouble);
        replicator_trouble(self, why);
    }
    replicator_feed(self, &event);
}

static void on_emitted(void *context, struct sync_batch *batch, enum sync_outcome outcome,
                       const char *trouble)
{
    replicator *self = context;
    sync_event event = {.kind = SYNC_EV_EMITTED};
    event.emitted.batch = batch;
    event.emitted.outcome = outcome;
    if (trouble != NULL && outcome != SYNC_NO_SCRIPT) {
        char why[256];
        snprintf(why, sizeof why, "events could not be told: %.200s", trouble);
        replicator_trouble(self, why);
    }
    replicator_feed(self, &event);
}

static void on_scripts(void *context)
{
    sync_event event = {.kind = SYNC_EV_SCRIPTS};
    replicator_feed(context, &event);
}

static void on_streamed(void *context, const sync_change *change)
{
    sync_event event = {.kind = SYNC_EV_STREAM, .change = change};
    replicator_feed(context, &event);
}

static void on_ranged(void *context, const sync_change *changes, size_t count, bool more)
{
    sync_event event = {.kind = SYNC_EV_RANGE};
    event.range.changes = changes;
    event.range.count = count;
    event.range.more = more;
    replicator_feed(context, &event);
}

static void on_fetched(void *context, uint64_t id, const sync_change *change)
{
    sync_event event = {.kind = SYNC_EV_FETCHED};
    event.fetched.id = id;
    event.fetched.change = change;
    replicator_feed(context, &event);
}

static void on_asked(void *context, uint64_t id, const sync_change *change, bool failed)
{
    sync_event event = {.kind = SYNC_EV_ASKED};
    event.asked.id = id;
    event.asked.change = change;
    event.asked.failed = failed;
    poll_replied(&((replicator *)context)->poll, connection_now_us());
    replicator_feed(context, &event);
}

static void on_warned(void *context, const char *text)
{
    replicator *self = context;
    replicator_say(self, LOG_WARNING, "redis %s: %s", self->url.display, text);
}

static void on_marked(void *context, enum sync_outcome outcome, uint64_t set_id,
                      const char *trouble)
{
    replicator *self = context;
    sync_event event = {.kind = SYNC_EV_MARKED};
    event.marked.outcome = outcome;
    event.marked.set_id = set_id;
    if (trouble != NULL && outcome != SYNC_NO_SCRIPT) {
        char why[256];
        snprintf(why, sizeof why, "invalidations were refused: %.200s", trouble);
        replicator_trouble(self, why);
    }
    replicator_feed(self, &event);
}

static void on_mark_page(void *context, const sync_change *changes, size_t count, bool last,
                         uint64_t next)
{
    sync_event event = {.kind = SYNC_EV_MARK_PAGE};
    event.mark_page.changes = changes;
    event.mark_page.count = count;
    event.mark_page.last = last;
    event.mark_page.next = next;
    replicator_feed(context, &event);
}

static void on_idle(void *context)
{
    sync_event event = {.kind = SYNC_EV_IDLE};
    replicator_feed(context, &event);
}

const link_callbacks replicator_link_callbacks = {
    on_connected,       on_disconnected, on_joined, on_replied,   on_emitted,
    on_scripts,         on_streamed,     on_ranged, on_fetched,   on_asked,
    replicator_changed, on_warned,       on_marked, on_mark_page, on_idle};

/* A piece of what prefixes and patterns have invalidated goes; others get their turn in between. */
static void on_sweep(evutil_socket_t fd, short what, void *context)
{
    replicator *self = context;
    bool more = false;
    (void)fd;
    (void)what;
    if (self->fenced || self->finished)
        return;
    int status = checked(self, replica_sweep_some(self->map, self->fence, &self->sweeping, &more),
                         "removing what was invalidated");
    struct timeval soon = {.tv_usec = status < 0 ? SWEEP_BUSY_US : SWEEP_PAUSE_US};
    if (more && !self->fenced)
        evtimer_add(self->sweep, &soon);
}

bool replicator_make_events(replicator *self)
{
    self->timer = deadline_new(self->base, on_timer, self);
    if (!replicator_ask_begin(self))
        return false;
    self->sweep = evtimer_new(self->base, on_sweep, self);
    if (self->sweep == NULL)
        return false;
    event_active(self->sweep, EV_TIMEOUT, 0); /* what a larderd before this one left */
    int fifo = replica_wake_fd(self->map);
    if (self->timer == NULL || fifo < 0)
        return false;
    self->wake = event_new(self->base, fifo, EV_READ | EV_PERSIST, on_wake, self);
    return self->wake != NULL && event_add(self->wake, NULL) == 0;
}
