/* outbound.c: from the map to Redis: which rows of the log are read next, batches in flight, what
 * each answer means, acknowledgements. Rows that could not be finished are remembered as runs of
 * rows to look at again, or, where Redis refuses the key itself, in the retry set (pending.c).
 *
 * Order of reading: refused rows whose time has come, rows to look at again, the tombstones of a
 * resync, dirty rows, what Redis turned out to lack, the other rows of a resync, those of the
 * rolling verification (verify.c). So neither delays a new write.
 */
#include "daemon/sync/internal.h"

#include <stdlib.h>
#include <string.h>

bool outbound_create(struct sync *self)
{
    struct outbound *out = &self->out;
    out->last = &out->first;
    out->retries = calloc(self->settings.retry_entries, sizeof *out->retries);
    out->retry_at = out->read_at = SYNC_NEVER;
    out->read_at = 0;
    return out->retries != NULL;
}

static void free_batch(struct sync_batch *batch)
{
    free(batch->items);
    free(batch->acks);
    free(batch->keys);
    free(batch);
}

void outbound_destroy(struct sync *self)
{
    while (self->out.first != NULL) {
        struct sync_batch *next = self->out.first->next;
        free_batch(self->out.first);
        self->out.first = next;
    }
    free(self->out.retries);
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

/* ---- Sessions and resyncs ---------------------------------------------------------------------
 */

static void finish_batch(struct sync *self, struct sync_batch *batch);

/* Stored by a script that tells nobody; once its batch has been told, this is not asked any more.
 */
static bool untold(const struct sync *self, const sync_item *item)
{
    return self->settings.events_apart && item->outcome == SYNC_STORED;
}

/* A quiet push found it there: all is well with a clean entry. But a dirty one has perhaps been
 * stored and not told: it waits for its own push, which tells it again. */
static bool untold_if_dirty(const struct sync *self)
{
    return self->settings.events_apart;
}

void outbound_disconnected(struct sync *self)
{
    struct outbound *out = &self->out;
    struct sync_batch *next;
    for (struct sync_batch *batch = out->first; batch != NULL; batch = next) {
        next = batch->next;
        if (batch->answered_all)
            continue; /* only the map's answer is outstanding */
        for (size_t i = 0; i < batch->count; i++) {
            sync_item *item = &batch->items[i];
            if (item->answered && !untold(self, item))
                continue;
            item->outcome = SYNC_NO_SCRIPT; /* as if it had not been sent */
            pending_put_back(self, batch, item);
        }
        batch->answered = batch->count;
        finish_batch(self, batch);
    }
    out->in_flight_items = 0;
    for (size_t i = 0; i < out->range_count; i++)
        if (out->ranges[i].low < out->scan_row)
            out->scan_row = out->ranges[i].low;
    out->range_count = 0;
    for (size_t i = 0; i < out->retry_count; i++)
        out->retries[i].out = false;
    if (out->retry_count != 0)
        out->retry_at = self->now_ms;
    out->scan = LOG_ACTIVE;
    out->reading = false;
    out->need_scripts = out->loading = false;
    verify_disconnected(self);
}

/* What was stored and told before history was lost may be lost, too; acknowledged late, because the
 * map was busy, it would pass for clean, and be passed over, if it is an old removal.
 */
static void forget_acknowledgements(struct sync *self)
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

void outbound_resync(struct sync *self, bool reads_on)
{
    struct outbound *out = &self->out;
    self->counters.resyncs++;
    forget_acknowledgements(self);
    /* A cluster's keys may have outlived the last events of its stream: what is read on there can
     * be older than what nobody tells any more, and must be compared, too. */
    out->resync = reads_on && self->settings.events_apart ? RESYNC_WAITING : RESYNC_TOMBSTONES;
    out->resync_generation++;
    out->resync_row = 0;
    size_t kept = 0;
    for (size_t i = 0; i < out->retry_count; i++) {
        if (!out->retries[i].clean)
            out->retries[kept++] = out->retries[i];
        else
            pending_again(self, out->retries[i].row); /* it may have become dirty */
    }
    out->retry_count = kept;
    verify_begin(self);
}

static bool resync_in_flight(const struct sync *self)
{
    const struct outbound *out = &self->out;
    for (const struct sync_batch *batch = out->first; batch != NULL; batch = batch->next)
        if ((batch->source == FROM_RESYNC || batch->source == FROM_WANTED) &&
            batch->generation == out->resync_generation)
            return true;
    return self->verify.wanted_count != 0 ||
           (out->reading && (out->read_source == FROM_RESYNC || out->read_source == FROM_WANTED));
}

/* Redis had no memory for an acknowledged row that is pushed again: only the retry set knows of it,
 * so the place in the stream must not say that all has been pushed. (A key that Redis refuses for
 * its own sake holds up nothing: it may do so for ever.) */
static bool resync_refused(const struct outbound *out)
{
    for (size_t i = 0; i < out->retry_count; i++)
        if (out->retries[i].clean && out->retries[i].reason != SYNC_REFUSED_KEY)
            return true;
    return false;
}

void outbound_wake(struct sync *self)
{
    self->out.scan = LOG_ACTIVE;
}

void outbound_recheck(struct sync *self)
{
    struct outbound *out = &self->out;
    if (!self->joined || !outbound_drained(self) || out->resync != RESYNC_NONE ||
        self->now_ms < out->recheck_at)
        return;
    out->recheck_pause_ms = out->recheck_pause_ms == 0 ? 1000 : out->recheck_pause_ms * 2;
    if (out->recheck_pause_ms > RECHECK_MAX_MS)
        out->recheck_pause_ms = RECHECK_MAX_MS;
    out->recheck_at = self->now_ms + out->recheck_pause_ms;
    out->scan_row = 0;
    out->scan = LOG_ACTIVE;
}

bool outbound_drained(const struct sync *self)
{
    const struct outbound *out = &self->out;
    return out->scan == LOG_ARMED && !out->reading && out->range_count == 0 && out->batches == 0 &&
           out->retry_count == 0 && self->verify.wanted_count == 0;
}

/* ---- Reading ----------------------------------------------------------------------------------
 */

static bool window_open(const struct sync *self)
{
    const struct outbound *out = &self->out;
    return out->batches < self->settings.batches_in_flight &&
           out->in_flight_items + self->settings.batch_commands <= SYNC_IN_FLIGHT_MAX &&
           out->in_flight_bytes <
               (size_t)self->settings.batches_in_flight * self->settings.batch_bytes &&
           out->retry_count < self->settings.retry_entries;
}

/* When the rows to look at again are read. Not before the winners that some of them wait for could
 * be applied: the same answer would come at once, as fast as Redis gives it. */
static int64_t ranges_due(const struct sync *self)
{
    const struct outbound *out = &self->out;
    return out->range_count == 0 || inbound_held_up(self) ? SYNC_NEVER : out->ranges_at;
}

static bool resync_reads(const struct sync *self)
{
    const struct outbound *out = &self->out;
    return out->resync == RESYNC_TOMBSTONES ||
           (out->resync == RESYNC_ENTRIES && verify_has_room(self) && !inbound_held_up(self));
}

/* What to read next. false: nothing now. */
static bool choose(struct sync *self, sync_action *read, struct retry **retry)
{
    struct outbound *out = &self->out;
    read->read.max_records = self->settings.batch_commands;
    read->read.max_bytes = self->settings.batch_bytes;
    *retry = pending_due(self);
    if (*retry != NULL) {
        out->read_source = FROM_RETRY;
        read->read.from_row = (*retry)->row;
        read->read.max_records = 1;
        read->read.include_clean = (*retry)->clean;
        return true;
    }
    if (out->retry_count == self->settings.retry_entries)
        return false;
    if (ranges_due(self) <= self->now_ms) {
        out->read_source = FROM_RANGE;
        read->read.from_row = out->ranges[0].low;
        return true;
    }
    if (out->scan == LOG_COOLING && out->scan_at <= self->now_ms) {
        out->read_source = FROM_LOG;
        read->read.from_row = out->scan_row;
        return true;
    }
    if (out->scan == LOG_ACTIVE && out->resync != RESYNC_TOMBSTONES) {
        out->read_source = FROM_LOG;
        read->read.from_row = out->scan_row;
        return true;
    }
    read->read.include_clean = true;
    if (self->verify.wanted_count != 0) {
        out->read_source = FROM_WANTED;
        read->read.from_row = self->verify.wanted[0];
        read->read.max_records = verify_wanted_span(self);
        return true;
    }
    if (resync_reads(self)) {
        out->read_source = FROM_RESYNC;
        read->read.from_row = out->resync_row;
        return true;
    }
    if (verify_due(self) <= self->now_ms) {
        out->read_source = FROM_VERIFY;
        read->read.from_row = self->verify.row;
        return true;
    }
    return false;
}

static void read_more(struct sync *self)
{
    struct outbound *out = &self->out;
    sync_action choice;
    struct retry *retry = NULL;
    if (out->reading || out->need_scripts || self->rejoin || self->now_ms < out->read_at ||
        sync_marks_hold(self) ||
        !(window_open(self) || out->retry_count == self->settings.retry_entries) ||
        out->batches >= self->settings.batches_in_flight)
        return;
    if (out->idle_reads >= READS_AT_A_TIME) {
        out->idle_reads = 0;
        out->read_at = self->now_ms + 1; /* let the loop look after the rest */
        return;
    }
    memset(&choice, 0, sizeof choice);
    if (!choose(self, &choice, &retry))
        return;
    sync_action *action = sync_act(self, SYNC_ACT_READ);
    if (action == NULL)
        return;
    action->read = choice.read;
    out->read_row = choice.read.from_row;
    out->reading = true;
    out->idle_reads++;
    if (retry != NULL)
        retry->out = true;
}

/* ---- What was read ----------------------------------------------------------------------------
 */

static struct sync_batch *make_batch(struct sync *self, size_t count)
{
    struct outbound *out = &self->out;
    size_t keys = 0, bytes = 0;
    for (size_t i = 0; i < count; i++) {
        keys += out->selected[i]->key_size;
        bytes += out->selected[i]->key_size + out->selected[i]->value_size;
    }
    struct sync_batch *batch = calloc(1, sizeof *batch);
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

/* Send the selected records. false: no memory; the rows must be read again. */
static bool push(struct sync *self, size_t count, const struct retry *retry)
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
    if (retry != NULL) {
        batch->clean = retry->clean;
        /* the row may bear another entry by now: a value must never pass for a removal */
        batch->remove = retry->remove && out->selected[0]->kind == REPLICA_DELETED;
    }
    *out->last = batch;
    out->last = &batch->next;
    out->batches++;
    out->in_flight_bytes += batch->bytes;
    out->in_flight_items += count;
    out->idle_reads = 0;
    action->push.batch = batch;
    action->push.records = out->selected;
    action->push.count = count;
    action->push.epoch = batch->epoch = self->cursor.epoch;
    action->push.emitter = self->emitter;
    action->push.nonce_seed = sync_random(&self->random);
    action->push.quiet = batch->clean;
    action->push.remove = batch->remove;
    action->push.redis_ms = sync_redis_now(self);
    if (!batch->compares)
        self->counters.pushed += count;
    return true;
}

static size_t select_rows(struct sync *self, const replica_batch *rows)
{
    struct outbound *out = &self->out;
    size_t count = 0;
    for (size_t i = 0; i < rows->count && count < self->settings.batch_commands; i++) {
        const replica_record *record = &rows->records[i];
        struct retry *refused = pending_find(out, record->row);
        if (out->read_source == FROM_RANGE && record->row > out->ranges[0].high)
            break;
        if (out->read_source == FROM_RETRY) {
            if (record->row != out->read_row)
                break;
        } else if (refused != NULL) {
            if (out->read_source >= FROM_RESYNC && out->resync != RESYNC_NONE)
                refused->clean = true; /* the resync counts on it, dirty or not */
            continue;                  /* waits for its own time */
        }
        if (out->read_source == FROM_RESYNC &&
            (record->kind == REPLICA_DELETED) != (out->resync == RESYNC_TOMBSTONES))
            continue;
        if (out->read_source >= FROM_RESYNC && !verify_takes(self, record))
            continue;
        if (out->read_source == FROM_WANTED && !verify_wants(&self->verify, record->row))
            continue;
        out->selected[count++] = record;
    }
    return count;
}

/* Move on behind what was read. */
static void passed(struct sync *self, const replica_batch *rows, size_t count)
{
    struct outbound *out = &self->out;
    switch (out->read_source) {
    case FROM_LOG:
        out->scan_row = rows->next_row;
        if (count != 0)
            out->recheck_pause_ms = 0;
        if (!rows->end) {
            out->scan = LOG_ACTIVE;
        } else if (count != 0 || out->scan == LOG_ACTIVE) {
            out->scan = LOG_COOLING;
            out->scan_at = self->now_ms + (count != 0 ? self->settings.linger_ms : 0);
            out->scan_few = count <= FEW_ROWS;
        } else if (out->scan != LOG_ARMED && sync_act(self, SYNC_ACT_ARM) != NULL) {
            out->scan = LOG_ARMED;
        }
        break;
    case FROM_RANGE:
        if (rows->end || rows->next_row > out->ranges[0].high) {
            out->range_count--;
            memmove(&out->ranges[0], &out->ranges[1], out->range_count * sizeof *out->ranges);
        } else {
            out->ranges[0].low = rows->next_row;
        }
        break;
    case FROM_RETRY:
        if (count == 0)
            pending_forget(out, out->read_row); /* overwritten or acknowledged meanwhile */
        break;
    case FROM_RESYNC:
        out->resync_row = rows->next_row;
        if (rows->end) {
            out->resync = out->resync == RESYNC_TOMBSTONES ? RESYNC_ENTRIES : RESYNC_DRAINING;
            if (out->resync == RESYNC_ENTRIES)
                out->resync_row = 0;
        }
        break;
    case FROM_WANTED:
        verify_wanted_read(&self->verify, rows->end ? UINT64_MAX : rows->next_row);
        break;
    case FROM_VERIFY:
        verify_passed(self, rows);
        break;
    }
}

void outbound_rows(struct sync *self, const sync_event *event)
{
    struct outbound *out = &self->out;
    if (!out->reading)
        return;
    out->reading = false;
    struct retry *retry = out->read_source == FROM_RETRY ? pending_find(out, out->read_row) : NULL;
    if (event->status < 0) {
        self->counters.map_busy++;
        if (out->scan == LOG_ARMED)
            out->scan = LOG_ACTIVE; /* the look after the arming is still owed */
        out->read_at = self->now_ms + (event->status == LARDER_EBUSY ? MAP_BUSY_MS : MAP_ERROR_MS);
        if (retry != NULL) {
            retry->out = false;
            out->retry_at = out->read_at;
        }
        return;
    }
    bool armed_now = out->scan == LOG_ARMED;
    size_t count = select_rows(self, event->rows);
    if (count != 0 && !push(self, count, retry)) {
        if (out->scan == LOG_ARMED)
            out->scan = LOG_ACTIVE;
        out->read_at = self->now_ms + MAP_ERROR_MS;
        if (retry != NULL) {
            retry->out = false;
            out->retry_at = out->read_at;
        }
        return;
    }
    passed(self, event->rows, count);
    if (out->scan == LOG_ARMED && !armed_now) {
        sync_marks_look(self);
        /* A write between the last read and the arming would wake nobody: look once more. */
        sync_action *action = sync_act(self, SYNC_ACT_READ);
        if (action == NULL) {
            out->scan = LOG_ACTIVE;
            return;
        }
        out->read_source = FROM_LOG;
        out->read_row = action->read.from_row = out->scan_row;
        action->read.max_records = self->settings.batch_commands;
        action->read.max_bytes = self->settings.batch_bytes;
        out->reading = true;
    }
}

/* ---- Answers ----------------------------------------------------------------------------------
 */

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
        bool done = item->outcome == SYNC_STORED || item->outcome == SYNC_AHEAD ||
                    (item->outcome == SYNC_SAME &&
                     (item->what == REPLICA_FORGET || !untold_if_dirty(self)));
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
    if (batch->source != FROM_RETRY)
        return;
    struct retry *entry = pending_find(&self->out, item->row);
    bool memory = entry != NULL && entry->reason != SYNC_REFUSED_KEY;
    pending_forget(&self->out, item->row);
    if (memory)
        pending_hurry(self);
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
        if (untold_if_dirty(self) && batch->source == FROM_RETRY)
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

void outbound_reply(struct sync *self, const sync_event *event)
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
void outbound_emitted(struct sync *self, const sync_event *event)
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

void outbound_acknowledged(struct sync *self, const sync_event *event)
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
    bool few = out->scan == LOG_COOLING && out->scan_few && batch->source == FROM_LOG &&
               event->acknowledged.cleared == batch->ack_count;
    unlink_batch(out, batch);
    if (few && out->batches == 0)
        out->scan_at = self->now_ms; /* a round trip gathers what a lone writer writes */
}

/* ---- At the end of every step -----------------------------------------------------------------
 */

void outbound_advance(struct sync *self)
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
    if (out->need_scripts && !out->loading && sync_act(self, SYNC_ACT_LOAD) != NULL)
        out->loading = true;
    if (out->resync == RESYNC_WAITING && !self->in.catching_up && inbound_empty(self))
        out->resync = RESYNC_TOMBSTONES;
    if (out->resync == RESYNC_DRAINING && !resync_in_flight(self) && !resync_refused(out))
        out->resync = RESYNC_NONE; /* the place in the stream may be stored again */
    read_more(self);
}

int64_t outbound_deadline(const struct sync *self)
{
    const struct outbound *out = &self->out;
    int64_t due = SYNC_NEVER;
    for (const struct sync_batch *batch = out->first; batch != NULL; batch = batch->next) {
        if (batch->answered_all && !batch->acking && batch->ack_at < due)
            due = batch->ack_at;
        if (self->joined && emit_due(self, batch))
            due = self->now_ms;
    }
    if (!self->joined || out->reading || out->need_scripts || self->rejoin ||
        sync_marks_hold(self) || out->batches >= self->settings.batches_in_flight)
        return due;
    int64_t read = out->retry_at;
    if (window_open(self)) {
        if (ranges_due(self) < read)
            read = ranges_due(self);
        if (out->scan == LOG_COOLING && out->scan_at < read)
            read = out->scan_at;
        if (verify_due(self) < read)
            read = verify_due(self);
        if (out->scan == LOG_ACTIVE || self->verify.wanted_count != 0 || resync_reads(self))
            read = self->now_ms;
    }
    if (read != SYNC_NEVER && read < out->read_at)
        read = out->read_at;
    return read < due ? read : due;
}
