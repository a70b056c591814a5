/* batches.c: what is under way to Redis: batches of rows, what each answer means, telling where
 * that is a step of its own, acknowledgements to the map. Called by rows.c, which sends what it has
 * read, and by session.c with the answers. A row that comes to nothing is left to pending.c.
 */
#include "daemon/sync/internal.h"

#include <stdlib.h>
#include <string.h>

static void free_batch(struct sync_batch *batch)
{
    free(batch->items);
    free(batch->acks);
    free(batch->keys);
    free(batch);
}

void batches_destroy(struct outbound *out)
{
    while (out->first != NULL) {
        struct sync_batch *next = out->first->next;
        free_batch(out->first);
        out->first = next;
    }
}

static void unlink_batch(struct outbound *out, struct sync_batch *batch)
{
    struct sync_batch **at = &out->first;
    while (*at != NULL && *at != batch)
        at = &(*at)->next;
    if (*at == NULL)
        return;
    *at = batch->next;
    if (out->last == &batch->next)
        out->last = at;
    out->batches--;
    out->in_flight_bytes -= batch->bytes;
    free_batch(batch);
}

/* ---- Sending ----------------------------------------------------------------------------------
 */

static struct sync_batch *make_batch(struct sync *self, size_t count)
{
    struct outbound *out = &self->out;
    size_t keys = 0, bytes = 0;
    for (size_t i = 0; i < count; i++) {
        keys += out->selected[i]->key_size;
        bytes += out->selected[i]->key_size + out->selected[i]->value_size;
    }
    struct sync_batch *batch = count == 0 ? NULL : calloc(1, sizeof *batch);
    if (batch == NULL)
        return NULL;
    batch->items = calloc(count, sizeof *batch->items);
    batch->acks = calloc(count, sizeof *batch->acks);
    batch->keys = malloc(keys == 0 ? 1 : keys);
    if (batch->items == NULL || batch->acks == NULL || batch->keys == NULL) {
        free_batch(batch);
        return NULL;
    }
    uint8_t *at = batch->keys;
    for (size_t i = 0; i < count; i++) {
        const replica_record *record = out->selected[i];
        sync_item *item = &batch->items[i];
        memcpy(at, record->key, record->key_size);
        item->key = at;
        item->key_size = (uint32_t)record->key_size;
        asks_expect(self, record->key, record->key_size);
        item->row = record->row;
        item->version = record->version;
        item->value_hash = record->value_hash;
        item->kind = (uint8_t)record->kind;
        item->ours = record->dirty || verify_told_lately(self, record);
        at += record->key_size;
    }
    batch->count = count;
    batch->bytes = bytes;
    batch->source = out->read_source;
    batch->generation = out->resync_generation;
    batch->phase = out->resync;
    batch->clean = out->read_source >= FROM_RESYNC;
    batch->compares = out->read_source == FROM_VERIFY ||
                      (out->read_source == FROM_RESYNC && out->resync == RESYNC_ENTRIES);
    batch->ack_at = SYNC_NEVER;
    batch->sent_ms = self->now_ms;
    return batch;
}

bool batches_one_by_one(const struct sync *self)
{
    return self->out.silent >= SILENT_MAX;
}

bool batches_push_out(const struct sync *self)
{
    for (const struct sync_batch *batch = self->out.first; batch != NULL; batch = batch->next)
        if (!batch->compares && batch->answered < batch->count)
            return true;
    return false;
}

bool batches_push(struct sync *self, size_t count, const struct retry *retry)
{
    struct outbound *out = &self->out;
    struct sync_batch *batch = make_batch(self, count);
    sync_action *action =
        batch == NULL ? NULL : sync_act(self, batch->compares ? SYNC_ACT_COMPARE : SYNC_ACT_PUSH);
    if (action == NULL) {
        if (batch != NULL)
            free_batch(batch);
        return false;
    }
    if (retry != NULL)
        batch->clean = retry->clean;
    bool removes =
        !batch->compares && (retry != NULL ? retry->remove : pending_removes_at_once(self));
    for (size_t i = 0; i < count; i++) /* a value must never pass for a removal */
        batch->items[i].remove = removes && batch->items[i].kind == REPLICA_DELETED;
    *out->last = batch;
    out->last = &batch->next;
    out->batches++;
    out->in_flight_bytes += batch->bytes;
    out->in_flight_items += count;
    out->idle_reads = 0;
    action->push.batch = batch;
    action->push.records = out->selected;
    action->push.items = batch->items;
    action->push.count = count;
    action->push.epoch = batch->epoch = self->cursor.epoch;
    action->push.emitter = self->emitter;
    action->push.nonce_seed = sync_random(&self->random);
    action->push.quiet = batch->clean;
    action->push.redis_ms = sync_redis_now(self);
    if (!batch->compares)
        self->counters.pushed += count;
    return true;
}

/* ---- Answers ----------------------------------------------------------------------------------
 */

/* Stored by a script that tells nobody; once its batch has been told, this is not asked any more.
 */
static bool untold(const struct sync *self, const sync_item *item)
{
    return self->settings.events_apart && item->outcome == SYNC_STORED;
}

static void acknowledge(struct sync *self, struct sync_batch *batch)
{
    if (batch->acking || batch->ack_at > self->now_ms)
        return;
    sync_action *action = sync_act(self, SYNC_ACT_ACKNOWLEDGE);
    if (action == NULL)
        return;
    action->acknowledge.batch = batch;
    action->acknowledge.acks = batch->acks;
    action->acknowledge.count = batch->ack_count;
    batch->acking = true;
}

/* All is answered, and told: what was stored is acknowledged to the map. */
static void finish_batch(struct sync *self, struct sync_batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        const sync_item *item = &batch->items[i];
        /* That a quiet push found it there says nothing new of a clean entry. But a dirty one has
         * perhaps been stored and not told (in a cluster, or without scripts): it waits for its own
         * push, which tells it again. */
        bool done = item->outcome == SYNC_STORED || item->outcome == SYNC_AHEAD ||
                    (item->outcome == SYNC_SAME && item->what == REPLICA_FORGET);
        if (!done)
            continue;
        replica_ack *ack = &batch->acks[batch->ack_count++];
        ack->key = item->key;
        ack->key_size = item->key_size;
        ack->version = item->version;
        ack->kind = (enum replica_kind)item->kind;
        ack->what = (enum replica_ack_kind)item->what;
    }
    batch->answered_all = true;
    batch->ack_at = self->now_ms;
    if (batch->ack_count == 0)
        unlink_batch(&self->out, batch);
}

/* A key that was in the retry set and is so no more. */
static void settled(struct sync *self, const struct sync_batch *batch, const sync_item *item)
{
    if (batch->source == FROM_RETRY)
        pending_taken(self, item->row);
}

static void answered(struct sync *self, struct sync_batch *batch, sync_item *item,
                     const sync_change *winner)
{
    switch ((enum sync_outcome)item->outcome) {
    case SYNC_STORED:
        if (self->settings.events_apart) {
            batch->emit_wanted = true;
            return; /* what it means is known once it was told, or could not be */
        }
        settled(self, batch, item);
        break;
    case SYNC_SAME:
        settled(self, batch, item);
        if (batch->source == FROM_RETRY)
            pending_again(self, item->row); /* only the retry set knew of it */
        break;
    case SYNC_LACKING:
        settled(self, batch, item);
        if (!inbound_mark_dirty(self, item))
            pending_put_back(self, batch, item);
        if (batch->source == FROM_RETRY)
            pending_again(self, item->row); /* it gets no new row where it was dirty before */
        break;
    case SYNC_OLD:
        self->counters.old++;
        settled(self, batch, item);
        if (winner == NULL) {
            pending_refuse(self, batch, item, SYNC_REFUSED_KEY);
        } else {
            sync_change change = *winner;
            change.record.key = item->key;
            change.record.key_size = item->key_size;
            (void)inbound_take(self, &change, false);
            /* Seen again once the winner is applied: it may not have found room, or the entry may
             * have been written again before it came, under this same row. */
            pending_again(self, item->row);
        }
        break;
    case SYNC_NO_STREAM:
        pending_put_back(self, batch, item);
        sync_rejoin(self, false);
        break;
    case SYNC_NO_SCRIPT:
        pending_put_back(self, batch, item);
        self->out.need_scripts = true;
        break;
    case SYNC_AHEAD:
        self->counters.ahead++;
        item->what = REPLICA_AHEAD;
        settled(self, batch, item);
        sync_hurry_heartbeat(self);
        break;
    case SYNC_FOUND:
    case SYNC_NOT_FOUND:
        verify_answered(self, batch, item, winner);
        break;
    case SYNC_NO_MEMORY:
    case SYNC_REFUSED_KEY:
    case SYNC_REMOVED:
    case SYNC_LATER:
        if (batch->compares)
            break; /* a record that may not be read: there is no more to find out */
        pending_refuse(self, batch, item, (enum sync_outcome)item->outcome);
        break;
    }
    struct retry *entry = pending_find(&self->out, item->row);
    if (entry != NULL) {
        entry->out = false;
        if (entry->due_ms < self->out.retry_at)
            self->out.retry_at = entry->due_ms;
    }
}

void batches_reply(struct sync *self, const sync_event *event)
{
    struct outbound *out = &self->out;
    struct sync_batch *batch = event->reply.batch;
    sync_item *item = event->reply.index < batch->count ? &batch->items[event->reply.index] : NULL;
    if (item == NULL || item->answered) {
        sync_end_session(self, SYNC_LOST_CONNECTION); /* out of step */
        return;
    }
    item->outcome = (uint8_t)event->reply.outcome;
    item->answered = true;
    batch->answered++;
    if (!batch->compares && batch->source != FROM_RETRY) {
        out->answered = true;
        out->silent = 0;
    }
    out->in_flight_items--;
    if (item->outcome == SYNC_AHEAD)
        sync_hear_time(self, event->reply.redis_ms, batch->sent_ms);
    answered(self, batch, item, event->reply.winner);
    if (batch->answered == batch->count && !batch->emit_wanted)
        finish_batch(self, batch);
}

/* ---- Telling, where it is a step of its own ---------------------------------------------------
 */

static bool emit_due(const struct sync *self, const struct sync_batch *batch)
{
    return batch->emit_wanted && !batch->emit_out && batch->answered == batch->count &&
           !self->rejoin && !self->out.need_scripts;
}

static void emit(struct sync *self, struct sync_batch *batch)
{
    sync_action *action = sync_act(self, SYNC_ACT_EMIT);
    if (action == NULL)
        return;
    action->emit.batch = batch;
    /* Where another epoch has begun, what was stored before may be lost: it must be pushed again.
     */
    action->emit.epoch = batch->epoch;
    batch->emit_out = true;
}

/* Told: the rows are done with. Not told: as if each of them had been refused for this reason; it
 * is pushed again, found to be equal, and told then. */
void batches_emitted(struct sync *self, const sync_event *event)
{
    struct sync_batch *batch = event->emitted.batch;
    bool told = event->emitted.outcome == SYNC_STORED;
    batch->emit_wanted = batch->emit_out = false;
    for (size_t i = 0; i < batch->count; i++) {
        sync_item *item = &batch->items[i];
        if (item->outcome != SYNC_STORED)
            continue;
        item->outcome = (uint8_t)event->emitted.outcome;
        if (told)
            settled(self, batch, item);
        else
            answered(self, batch, item, NULL);
    }
    finish_batch(self, batch);
}

void batches_acknowledged(struct sync *self, const sync_event *event)
{
    struct outbound *out = &self->out;
    struct sync_batch *batch = event->acknowledged.batch;
    batch->acking = false;
    if (event->status < 0) {
        self->counters.map_busy++;
        batch->ack_at = self->now_ms + (event->status == LARDER_EBUSY ? MAP_BUSY_MS : MAP_ERROR_MS);
        return;
    }
    self->counters.acknowledged += event->acknowledged.cleared;
    if (event->acknowledged.cleared < batch->ack_count && out->scan == LOG_ARMED) {
        /* Overwritten on their way out: the map has given them new rows and wakes nobody. Not at
         * once, so that a key that is written all the time goes once a linger. */
        out->scan = LOG_COOLING;
        out->scan_at = self->now_ms + self->settings.linger_ms;
    }
    bool lone = out->scan == LOG_COOLING && out->scan_lone && batch->source == FROM_LOG &&
                event->acknowledged.cleared == batch->ack_count;
    unlink_batch(out, batch);
    if (lone && out->batches == 0)
        out->scan_at = self->now_ms; /* a round trip gathers what a lone writer writes */
}

uint32_t batches_unacknowledged(const struct sync *self)
{
    size_t count = 0;
    for (const struct sync_batch *batch = self->out.first; batch != NULL; batch = batch->next)
        count += batch->answered_all ? batch->ack_count : 0;
    return (uint32_t)count;
}

/* ---- Sessions and lost history ----------------------------------------------------------------
 */

/* The one row that was out, or one that Redis refused by that before: it waits for its own time, so
 * that the others go on. */
static bool ends_sessions(struct sync *self, const struct sync_batch *batch, const sync_item *item)
{
    struct retry *entry = batch->source == FROM_RETRY ? pending_find(&self->out, item->row) : NULL;
    return !item->answered && !batch->compares &&
           (batches_one_by_one(self) || (entry != NULL && entry->reason == SYNC_REFUSED_KEY));
}

/* Redis, or something before it, may close the connection over a row (too large for a buffer, say)
 * without a word. As it is the first to go in the next session again, nothing would ever go. */
void batches_disconnected(struct sync *self)
{
    struct outbound *out = &self->out;
    struct sync_batch *next;
    bool unanswered = false;
    for (struct sync_batch *batch = out->first; batch != NULL; batch = next) {
        next = batch->next;
        if (batch->answered_all)
            continue; /* only the map's answer is outstanding */
        for (size_t i = 0; i < batch->count; i++) {
            sync_item *item = &batch->items[i];
            if (item->answered && !untold(self, item))
                continue;
            unanswered = unanswered || (!item->answered && !batch->compares);
            if (ends_sessions(self, batch, item)) {
                item->outcome = SYNC_REFUSED_KEY;
                pending_refuse(self, batch, item, SYNC_REFUSED_KEY);
            } else {
                item->outcome = SYNC_NO_SCRIPT; /* as if it had not been sent */
                pending_put_back(self, batch, item);
            }
        }
        batch->answered = batch->count;
        finish_batch(self, batch);
    }
    if (unanswered)
        out->silent = out->answered ? 0 : out->silent + 1;
    out->answered = false;
    out->in_flight_items = 0;
}

/* What was stored and told before history was lost may be lost, too; acknowledged late, because the
 * map was busy, it would pass for clean, and be passed over, if it is an old removal.
 */
void batches_forget_answers(struct sync *self)
{
    struct sync_batch *next;
    for (struct sync_batch *batch = self->out.first; batch != NULL; batch = next) {
        next = batch->next;
        if (!batch->answered_all || batch->acking)
            continue;
        for (size_t i = 0; i < batch->count; i++)
            pending_again(self, batch->items[i].row);
        unlink_batch(&self->out, batch);
    }
}

/* ---- At the end of every step -----------------------------------------------------------------
 */

void batches_advance(struct sync *self)
{
    struct outbound *out = &self->out;
    for (struct sync_batch *batch = out->first; batch != NULL; batch = batch->next)
        if (batch->answered_all)
            acknowledge(self, batch);
    if (!self->joined)
        return;
    for (struct sync_batch *batch = out->first; batch != NULL; batch = batch->next)
        if (emit_due(self, batch))
            emit(self, batch);
}

int64_t batches_deadline(const struct sync *self)
{
    int64_t due = SYNC_NEVER;
    for (const struct sync_batch *batch = self->out.first; batch != NULL; batch = batch->next) {
        if (batch->answered_all && !batch->acking && batch->ack_at < due)
            due = batch->ack_at;
        if (self->joined && emit_due(self, batch))
            due = self->now_ms;
    }
    return due;
}
