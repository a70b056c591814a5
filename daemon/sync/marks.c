/* marks.c: invalidations of many (groups, tags, prefixes, patterns, all) on their way out: those
 * made on this host, as soon as they are made; all that this host knows, and the fleet's set merged
 * down, where history is lost, the set is another, or this larderd has just begun. What comes in is
 * an event like any other (inbound.c). Newest wins, so that order and repetition never matter.
 */
#include "daemon/sync/internal.h"

#include <string.h>

static void exchange(struct sync *self)
{
    struct marks_state *marks = &self->marks;
    marks->exchange = EXCHANGE_UP;
    marks->restart = marks->untold_first = true;
    marks->set_id = marks->up_id = 0;
}

/* The set was lost between two joins. What is in it now may have been told to nobody; and what the
 * stream tells up to here may be in the lost one alone, so where it ends must be known. */
static void exchange_anew(struct sync *self)
{
    self->marks.floors = true;
    self->marks.quiet = false;
    exchange(self);
    sync_rejoin(self, false);
}

void sync_marks_begin(struct sync *self)
{
    self->marks.look = self->marks.quiet = true;
    self->marks.floors = false;
}

void sync_marks_joined(struct sync *self, uint64_t set_id, bool lost, bool other_server)
{
    struct marks_state *marks = &self->marks;
    bool under_way = marks->exchange != EXCHANGE_NONE && set_id == marks->up_id;
    bool another = set_id == 0 || (marks->known_id != 0 && set_id != marks->known_id);
    /* One that was made since the last join may have had another before it, and an exchange with it
     * have begun too early. */
    bool same = set_id != 0 && set_id == marks->joined_id;
    marks->look = true;
    marks->joined_id = marks->known_id = set_id;
    if (!lost && !other_server && same && (set_id == marks->set_id || under_way))
        return;
    marks->heard_number = self->heard_number;
    /* and what an exchange that was refused had to say is still to be said */
    marks->floors = marks->floors || lost || another || other_server;
    marks->quiet = marks->quiet && !marks->floors && !other_server;
    exchange(self);
    marks->up_id = set_id; /* lost before the walk has told it anything, it is another, too */
}

void sync_marks_disconnected(struct sync *self)
{
    struct marks_state *marks = &self->marks;
    marks->pushing = marks->paging = false;
    marks->look = true;
    marks->up_id = 0; /* an exchange begins anew */
}

void sync_marks_look(struct sync *self)
{
    self->marks.look = true;
}

bool sync_marks_hold(const struct sync *self)
{
    return self->marks.exchange != EXCHANGE_NONE;
}

bool sync_marks_drained(const struct sync *self)
{
    const struct marks_state *marks = &self->marks;
    return !marks->look && !marks->reading && !marks->pushing && !marks->telling &&
           marks->exchange == EXCHANGE_NONE;
}

static void later(struct sync *self, int64_t pause_ms)
{
    self->marks.look = true;
    self->marks.at = self->now_ms + pause_ms;
}

/* ---- Up ---------------------------------------------------------------------------------------
 */

static bool is_busy(const struct marks_state *marks)
{
    return marks->reading || marks->pushing || marks->telling;
}

/* May the walk over all begin? What was told before the set was found to be another may be in the
 * lost one alone: who has heard it must say it to this one, because the host that made it may be
 * gone. So all that was told up to then is in the map first. */
static bool may_walk(const struct sync *self)
{
    const struct marks_state *marks = &self->marks;
    return marks->exchange == EXCHANGE_UP && !marks->untold_first &&
           (!marks->restart || (self->cursor.number >= marks->heard_number && inbound_empty(self)));
}

static bool may_read(const struct sync *self)
{
    const struct marks_state *marks = &self->marks;
    return marks->look || (marks->exchange == EXCHANGE_UP && marks->untold_first) || may_walk(self);
}

static void read_some(struct sync *self)
{
    struct marks_state *marks = &self->marks;
    if (is_busy(marks) || !may_read(self) || self->now_ms < marks->at || self->out.need_scripts ||
        self->rejoin)
        return;
    sync_action *action = sync_act(self, SYNC_ACT_MARKS);
    if (action == NULL)
        return;
    /* What Redis has not been told yet comes first, because it is told to all. */
    marks->walking = may_walk(self);
    action->marks.all = marks->walking;
    action->marks.floors = marks->walking && marks->floors;
    action->marks.restart = marks->restart;
    if (marks->walking)
        marks->restart = false;
    marks->reading = true;
    marks->look = false; /* what is made from here on is told of again */
}

void sync_marks_read(struct sync *self, const sync_event *event)
{
    struct marks_state *marks = &self->marks;
    if (!marks->reading)
        return;
    marks->reading = false;
    if (event->status < 0) {
        self->counters.map_busy++;
        marks->restart = true; /* it may have got some way */
        later(self, event->status == LARDER_EBUSY ? MAP_BUSY_MS : MAP_ERROR_MS);
        return;
    }
    if (event->marks->count == 0 && !marks->walking) {
        marks->untold_first = false;
        return;
    }
    sync_action *action = self->joined ? sync_act(self, SYNC_ACT_MARK) : NULL;
    if (action == NULL) {
        marks->restart = true;
        marks->look = true;
        return;
    }
    marks->count = event->marks->count;
    marks->end = event->marks->end;
    memcpy(marks->under_way, event->marks->marks, marks->count * sizeof *marks->under_way);
    marks->pushing = true;
    action->mark.marks = marks->under_way;
    action->mark.count = marks->count;
    action->mark.epoch = self->cursor.epoch;
    action->mark.emitter = self->emitter;
    action->mark.nonce_seed = sync_random(&self->random);
    action->mark.quiet = marks->walking && marks->quiet;
    self->counters.marks_pushed += marks->count;
}

/* Redis has what was under way. */
static void stored(struct sync *self, uint64_t set_id)
{
    struct marks_state *marks = &self->marks;
    marks->known_id = set_id;
    /* A walk may have left out what only looked like no news: who made it looks once more. */
    if (!marks->walking) {
        marks->telling = true;
        marks->look = true; /* until there are no more */
        uint64_t expected = marks->exchange == EXCHANGE_NONE ? marks->set_id : marks->up_id;
        if (set_id != expected && (expected != 0 || marks->exchange == EXCHANGE_NONE))
            exchange_anew(self); /* the set was lost and is another */
        return;
    }
    if (marks->restart)
        return; /* the walk begins anew */
    if (marks->up_id != 0 && set_id != marks->up_id) {
        exchange_anew(self);
        return;
    }
    marks->up_id = set_id;
    if (marks->end) {
        marks->exchange = EXCHANGE_DOWN;
        marks->page = 0;
        marks->page_spoilt = false;
    }
}

void sync_marks_answered(struct sync *self, const sync_event *event)
{
    struct marks_state *marks = &self->marks;
    if (!marks->pushing)
        return;
    marks->pushing = false;
    switch (event->marked.outcome) {
    case SYNC_STORED:
        stored(self, event->marked.set_id);
        return;
    case SYNC_NO_STREAM:
        marks->look = marks->restart = true;
        sync_rejoin(self, false);
        return;
    case SYNC_NO_SCRIPT:
        marks->look = marks->restart = true;
        self->out.need_scripts = true;
        return;
    default:
        /* Entries do not wait for what Redis will not have; the next heartbeat tries once more. */
        self->counters.refused++;
        marks->exchange = EXCHANGE_NONE;
        marks->set_id = marks->up_id = 0;
        later(self, self->settings.backoff_max_ms);
    }
}

static void tell_map(struct sync *self)
{
    struct marks_state *marks = &self->marks;
    if (!marks->telling || marks->reading || self->now_ms < marks->at)
        return;
    sync_action *action = sync_act(self, SYNC_ACT_MARKS_TOLD);
    if (action == NULL)
        return;
    action->mark.marks = marks->under_way;
    action->mark.count = marks->count;
    marks->reading = true; /* its answer is */
}

void sync_marks_told(struct sync *self, int status)
{
    struct marks_state *marks = &self->marks;
    if (!marks->telling)
        return;
    marks->reading = false;
    if (status < 0) {
        self->counters.map_busy++;
        later(self, status == LARDER_EBUSY ? MAP_BUSY_MS : MAP_ERROR_MS);
        return;
    }
    marks->telling = false;
    marks->count = 0;
}

/* ---- Down -------------------------------------------------------------------------------------
 */

static void ask_for_page(struct sync *self)
{
    struct marks_state *marks = &self->marks;
    if (marks->exchange != EXCHANGE_DOWN || marks->paging || marks->telling || self->rejoin ||
        !inbound_has_room(self))
        return;
    sync_action *action = sync_act(self, SYNC_ACT_MARK_PAGE);
    if (action == NULL)
        return;
    action->page.from = marks->page;
    marks->paging = true;
    marks->page_spoilt = false;
}

void sync_marks_page(struct sync *self, const sync_event *event)
{
    struct marks_state *marks = &self->marks;
    if (!marks->paging)
        return;
    for (size_t i = 0; i < event->mark_page.count && !marks->page_spoilt; i++) {
        if (inbound_take(self, &event->mark_page.changes[i], false))
            self->counters.marks_taken++;
        else
            marks->page_spoilt = true; /* no room: all of the page once more */
    }
    if (!event->mark_page.last)
        return;
    marks->paging = false;
    if (marks->exchange != EXCHANGE_DOWN || marks->page_spoilt)
        return;
    marks->page = event->mark_page.next;
    if (marks->page == 0)
        marks->exchange = EXCHANGE_APPLYING;
}

/* ---- At the end of every step -----------------------------------------------------------------
 */

void sync_marks_advance(struct sync *self)
{
    struct marks_state *marks = &self->marks;
    tell_map(self);
    if (!self->joined)
        return;
    if (marks->exchange == EXCHANGE_APPLYING && inbound_empty(self)) {
        marks->exchange = EXCHANGE_NONE;
        self->cursor.marks_id = marks->set_id = marks->up_id;
        sync_marks_begin(self);
    }
    read_some(self);
    ask_for_page(self);
}

int64_t sync_marks_deadline(const struct sync *self)
{
    const struct marks_state *marks = &self->marks;
    if (marks->telling)
        return marks->reading ? SYNC_NEVER : marks->at;
    if (!self->joined || is_busy(marks) || self->out.need_scripts || self->rejoin)
        return SYNC_NEVER;
    if (may_read(self))
        return marks->at > self->now_ms ? marks->at : self->now_ms;
    return marks->exchange == EXCHANGE_DOWN && !marks->paging ? self->now_ms : SYNC_NEVER;
}
