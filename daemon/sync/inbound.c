/* inbound.c: from Redis to the map: events of the channel by their dense numbers, gaps closed from
 * the stream, winners and large values, all collected into applies of bounded size. What does not
 * fit is not queued: it becomes a gap, and the stream itself is the queue.
 */
#include "daemon/sync/internal.h"

#include <stdlib.h>
#include <string.h>

/* Places of events are cleared when they are taken. */
static struct change_set *make_set(void)
{
    struct change_set *set = malloc(sizeof *set);
    if (set != NULL) {
        set->count = set->bytes = 0;
        set->with_position = false;
    }
    return set;
}

bool inbound_create(struct sync *self)
{
    struct inbound *in = &self->in;
    in->collecting = make_set();
    in->applying = make_set();
    in->apply_at = SYNC_NEVER;
    return in->collecting != NULL && in->applying != NULL;
}

static void empty_set(struct change_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        free((void *)(uintptr_t)set->events[i].record.key);
    set->count = 0;
    set->bytes = 0;
    set->with_position = false;
}

void inbound_destroy(struct sync *self)
{
    struct inbound *in = &self->in;
    if (in->collecting != NULL)
        empty_set(in->collecting);
    if (in->applying != NULL)
        empty_set(in->applying);
    free(in->collecting);
    free(in->applying);
}

bool inbound_empty(const struct sync *self)
{
    return self->in.collecting->count == 0 && !self->in.apply_wanted;
}

bool inbound_has_room(const struct sync *self)
{
    return self->in.collecting->count < SYNC_APPLY_MAX / 2;
}

bool inbound_held_up(const struct sync *self)
{
    const struct inbound *in = &self->in;
    return in->apply_wanted && !in->apply_out && in->apply_at > self->now_ms;
}

static bool has_room(const struct change_set *set, size_t bytes)
{
    return set->count < SYNC_APPLY_MAX &&
           (set->count == 0 || set->bytes + bytes <= SYNC_APPLY_BYTES);
}

bool inbound_take(struct sync *self, const sync_change *change, bool from_stream)
{
    struct change_set *set = self->in.collecting;
    const replica_record *record = &change->record;
    size_t value_size = change->value_missing ? 0 : record->value_size;
    size_t bytes = record->key_size + value_size;
    if (!has_room(set, bytes))
        return false;
    uint8_t *memory = malloc(bytes + 1);
    if (memory == NULL)
        return false;
    memcpy(memory, record->key, record->key_size);
    if (value_size != 0)
        memcpy(memory + record->key_size, record->value, value_size);
    replica_event *event = &set->events[set->count];
    memset(event, 0, sizeof *event);
    event->record = *record;
    event->record.key = memory;
    event->record.value = memory + record->key_size;
    event->record.value_size = value_size;
    event->value_missing = change->value_missing;
    event->unordered = self->settings.events_apart;
    event->untold = self->settings.events_apart && !from_stream;
    event->late =
        self->settings.events_apart && from_stream && record->kind != REPLICA_MARK &&
        self->cursor.since_ms != 0 &&
        (int64_t)(record->version.clock >> 16) <= self->cursor.since_ms + REPLICA_AHEAD_MS;
    set->full_size[set->count] = change->full_size;
    set->from_stream[set->count] = from_stream;
    set->count++;
    set->bytes += bytes;
    if (record->kind != REPLICA_MARK) {
        fetches_outdate(self, record);
        asks_overtaken(self, record);
    }
    return true;
}

bool inbound_take_fill(struct sync *self, const sync_change *change, const replica_fill *fill,
                       enum replica_fill_kind kind)
{
    if (!inbound_take(self, change, false))
        return false;
    replica_event *event = &self->in.collecting->events[self->in.collecting->count - 1];
    event->fill = *fill;
    event->fill.kind = kind;
    return true;
}

/* Redis has an older version than the map's clean entry, or none. In events_apart what is stored
 * there and what is told are two steps, between which larderd may die: so the entry becomes dirty
 * first, which outlives that. The map does so for whatever an older event meets: here is one that
 * is older than all. (Where nothing is held any more, it changes nothing.) */
bool inbound_mark_dirty(struct sync *self, const sync_item *item)
{
    sync_change oldest = {.value_missing = true,
                          .record = {.version = {.clock = 1},
                                     .kind = REPLICA_VALUE,
                                     .key = item->key,
                                     .key_size = item->key_size}};
    return inbound_take(self, &oldest, false);
}

/* ---- The channel and the stream ---------------------------------------------------------------
 */

static void begin_catching_up(struct sync *self)
{
    if (!self->in.catching_up)
        self->counters.gaps++;
    self->in.catching_up = true;
}

/* What happened to others meanwhile. After an absence longer than T a value of ours that is newer
 * than this may have been deleted, and the deletion be forgotten: to push it is for the comparison
 * to decide, which asks for its record. */
static bool take_told(struct sync *self, const sync_change *change)
{
    if (!inbound_take(self, change, true))
        return false;
    replica_event *event = &self->in.collecting->events[self->in.collecting->count - 1];
    event->doubtful = self->out.resync != RESYNC_NONE && verify_absent(self);
    return true;
}

/* The event at cursor + 1. false: no room; the cursor has not moved. */
static bool accept(struct sync *self, const sync_change *change)
{
    bool own = change->emitter == self->emitter;
    if (!change->begin && !change->malformed)
        asks_expect(self, change->record.key, change->record.key_size);
    if (!change->begin && !change->malformed && !own && !take_told(self, change)) {
        self->counters.overflows++;
        return false;
    }
    self->counters.events++;
    if (own && !change->begin)
        self->counters.echoes++;
    if (change->malformed)
        self->counters.malformed++;
    self->cursor.number = change->number;
    self->cursor.nonce = change->nonce;
    return true;
}

static void note_seen(struct inbound *in, const sync_change *change)
{
    if (change->epoch != in->seen_epoch) {
        in->seen_epoch = change->epoch;
        in->seen_number = change->number;
    } else if (change->number > in->seen_number) {
        in->seen_number = change->number;
    }
}

/* A removal told outside the numbers, by a host whose Redis has no memory. Redis does not hold its
 * record, so it is no acknowledgement of the same deletion where that is dirty, and is dirty where
 * it is news: should the host that told it be gone when there is memory, whoever heard it sees to
 * it.
 */
static void take_hint(struct sync *self, const sync_change *change)
{
    if (change->malformed || change->begin || change->emitter == self->emitter ||
        change->record.kind != REPLICA_DELETED || !inbound_take(self, change, true))
        return;
    replica_event *event = &self->in.collecting->events[self->in.collecting->count - 1];
    event->hint = event->untold = true;
    event->late = false; /* Redis had nothing newer when it was told */
}

void inbound_stream(struct sync *self, const sync_change *change)
{
    struct inbound *in = &self->in;
    if (!change->numbered) {
        take_hint(self, change);
        return;
    }
    note_seen(in, change);
    if (!self->joined)
        return; /* compared with the cursor when the join is answered */
    if (change->epoch != self->cursor.epoch) {
        if (change->epoch > self->cursor.epoch)
            sync_rejoin(self, false);
        return;
    }
    if (change->number <= self->cursor.number) {
        self->counters.duplicates++;
        return;
    }
    if (in->catching_up)
        return;
    if (change->number != self->cursor.number + 1 || !accept(self, change))
        begin_catching_up(self);
}

/* Another history is adopted, and part of it passed over: what was collected before must not be
 * applied after newer events that we shall never see. The log that is pushed now makes up for it.
 */
void inbound_forget(struct sync *self)
{
    struct inbound *in = &self->in;
    asks_applied(self, in->collecting, SYNC_ANSWER_UNKNOWN);
    empty_set(in->collecting);
    if (in->apply_out)
        return;
    asks_applied(self, in->applying, SYNC_ANSWER_UNKNOWN);
    empty_set(in->applying);
    in->apply_wanted = false;
    in->apply_at = SYNC_NEVER;
}

void inbound_joined(struct sync *self, uint64_t last_number)
{
    struct inbound *in = &self->in;
    if (in->seen_epoch == self->cursor.epoch && in->seen_number > self->cursor.number)
        begin_catching_up(self);
    if (last_number > self->cursor.number &&
        (in->heartbeat_number == 0 || in->heartbeat_number > self->cursor.number)) {
        /* The first join of a session; or events of a whole heartbeat ago have not come: the end
         * of the channel was lost without a later event that would show the gap. */
        if (in->seen_epoch != self->cursor.epoch || in->seen_number < last_number) {
            in->seen_epoch = self->cursor.epoch;
            in->seen_number = last_number;
        }
        begin_catching_up(self);
    }
    in->heartbeat_number = last_number;
}

void inbound_range(struct sync *self, const sync_change *changes, size_t count, bool more)
{
    struct inbound *in = &self->in;
    if (!in->range_out)
        return;
    in->range_out = false;
    if (!in->catching_up)
        return;
    bool full = false;
    for (size_t i = 0; i < count && !full; i++) {
        if (changes[i].epoch == self->cursor.epoch && changes[i].number <= self->cursor.number)
            continue;
        if (changes[i].epoch != self->cursor.epoch ||
            changes[i].number != self->cursor.number + 1) {
            /* trimmed away under us, or another epoch began: the stream cannot tell what we missed
             */
            sync_rejoin(self, true);
            in->catching_up = false;
            return;
        }
        full = !accept(self, &changes[i]);
    }
    if (full || more)
        return; /* the next page, when there is room */
    bool announced = in->seen_epoch == self->cursor.epoch && in->seen_number > self->cursor.number;
    if (in->range_number > self->cursor.number) {
        /* What had been announced is not in the stream: it was another stream's, of the same epoch.
         * To go on believing it would be to ask for it for ever. */
        in->catching_up = false;
        in->seen_epoch = in->seen_number = 0;
        sync_rejoin(self, true);
    } else if (!announced) {
        in->catching_up = false;
    }
}

void inbound_disconnected(struct sync *self)
{
    struct inbound *in = &self->in;
    in->catching_up = in->range_out = false;
    in->seen_epoch = in->seen_number = 0;
    in->heartbeat_number = 0;
}

/* ---- Applying ---------------------------------------------------------------------------------
 */

static void count_verdicts(struct sync *self, const struct change_set *set)
{
    int64_t oldest = INT64_MAX;
    for (size_t i = 0; i < set->count; i++) {
        const replica_event *event = &set->events[i];
        if (event->fill.kind != REPLICA_FILL_NONE) { /* counted by its answer */
            self->counters.foreign +=
                event->fill.kind >= REPLICA_FILL_CHANGED && event->verdict == REPLICA_APPLIED;
            continue;
        }
        int64_t written = (int64_t)(event->record.version.clock >> 16);
        if (event->record.kind == REPLICA_MARK)
            sync_marks_look(self); /* a table may have had no room for it */
        if (event->hint && event->row != 0)
            pending_heard(self, event->row, event->verdict == REPLICA_APPLIED);
        if (set->from_stream[i] && written < oldest)
            oldest = written;
        if (event->value_missing && event->record.kind == REPLICA_VALUE &&
            (event->verdict == REPLICA_APPLIED || event->verdict == REPLICA_REFUSED)) {
            self->counters.applied++; /* what was older is gone; the value comes by itself */
            fetches_want(self, &event->record, set->full_size[i]);
            continue;
        }
        switch (event->verdict) {
        case REPLICA_APPLIED:
            self->counters.applied++;
            break;
        case REPLICA_EQUAL:
            self->counters.echoes++;
            break;
        case REPLICA_OLDER:
            self->counters.ours_newer++;
            outbound_wake(self); /* the map has marked ours dirty */
            break;
        case REPLICA_REFUSED:
            self->counters.not_stored++;
            break;
        }
    }
    if (oldest != INT64_MAX) {
        int64_t lag = sync_redis_now(self) - oldest;
        self->lag_ms = lag < 0 ? 0 : lag;
    }
}

void inbound_applied(struct sync *self, int status)
{
    struct inbound *in = &self->in;
    if (!in->apply_out)
        return;
    in->apply_out = false;
    if (status < 0) {
        self->counters.map_busy++;
        in->apply_at = self->now_ms + (status == LARDER_EBUSY ? MAP_BUSY_MS : MAP_ERROR_MS);
        return;
    }
    count_verdicts(self, in->applying);
    if (in->applying->with_position) {
        self->stored = in->applying->position;
        in->position_at = self->now_ms;
    }
    asks_applied(self, in->applying, SYNC_ANSWER_FOUND);
    empty_set(in->applying);
    in->apply_wanted = false;
}

static bool position_moved(const struct sync *self)
{
    return self->cursor.epoch != 0 && self->out.resync == RESYNC_NONE &&
           (self->cursor.epoch != self->stored.epoch ||
            self->cursor.number != self->stored.number ||
            self->cursor.nonce != self->stored.nonce || /* another stream's of the same epoch */
            self->cursor.since_ms != self->stored.since_ms ||
            self->cursor.marks_id != self->stored.marks_id ||
            self->cursor.seen_ms >= self->stored.seen_ms + SEEN_EVERY_MS ||
            strcmp(self->cursor.run_id, self->stored.run_id) != 0);
}

/* Echoes alone move the place in the stream without work for the map: it is stored now and then. */
static bool position_due(const struct sync *self)
{
    return position_moved(self) && (self->now_ms >= self->in.position_at + POSITION_EVERY_MS ||
                                    self->cursor.epoch != self->stored.epoch ||
                                    self->cursor.seen_ms >= self->stored.seen_ms + SEEN_EVERY_MS ||
                                    strcmp(self->cursor.run_id, self->stored.run_id) != 0);
}

static void apply(struct sync *self)
{
    struct inbound *in = &self->in;
    struct change_set *set = in->applying;
    if (!in->apply_wanted || in->apply_out || self->now_ms < in->apply_at)
        return;
    sync_action *action = sync_act(self, SYNC_ACT_APPLY);
    if (action == NULL)
        return;
    action->apply.events = set->events;
    action->apply.count = set->count;
    action->apply.position = set->with_position ? &set->position : NULL;
    in->apply_out = true;
    in->apply_at = SYNC_NEVER;
}

void inbound_advance(struct sync *self, bool flush)
{
    struct inbound *in = &self->in;
    if (self->joined && self->cursor.number >= self->heard_number &&
        self->out.resync == RESYNC_NONE)
        self->cursor.seen_ms = self->heard_ms;
    bool full = !has_room(in->collecting, 4096) || in->collecting->count >= SYNC_APPLY_MAX / 2;
    if (!in->apply_wanted &&
        (((flush || full) && in->collecting->count != 0) || (flush && position_due(self)))) {
        struct change_set *set = in->collecting;
        in->collecting = in->applying;
        in->applying = set;
        set->with_position = position_moved(self);
        set->position = self->cursor;
        in->apply_wanted = true;
        in->apply_at = self->now_ms;
    }
    apply(self);
    if (!self->joined)
        return;
    if (in->catching_up && !in->range_out && !self->join_out && in->collecting->count == 0) {
        sync_action *action = sync_act(self, SYNC_ACT_RANGE);
        if (action != NULL) {
            action->cursor.epoch = self->cursor.epoch;
            action->cursor.number = self->cursor.number;
            action->cursor.count = self->settings.page;
            in->range_out = true;
            in->range_number = in->seen_epoch == self->cursor.epoch ? in->seen_number : 0;
        }
    }
}

int64_t inbound_deadline(const struct sync *self)
{
    const struct inbound *in = &self->in;
    int64_t due = SYNC_NEVER;
    if (in->apply_wanted && !in->apply_out)
        due = in->apply_at;
    else if (!in->apply_wanted && position_moved(self))
        due = in->position_at + POSITION_EVERY_MS;
    return due;
}
