/* rows.c: which rows of the map's log are read next, and which of those that were read go out. What
 * is read is sent by batches.c; rows that came to nothing are remembered by pending.c, rows that
 * Redis turns out to lack by verify.c.
 *
 * Order of reading: refused rows whose time has come, rows to look at again, the tombstones of a
 * resync, dirty rows, what Redis turned out to lack, the other rows of a resync, those of the
 * rolling verification. So neither delays a new write.
 */
#include "daemon/sync/internal.h"

#include <string.h>

/* ---- What to read -----------------------------------------------------------------------------
 */

/* A session may end over each of them: see batches_one_by_one(). */
static uint32_t rows_at_once(const struct sync *self)
{
    return batches_one_by_one(self) ? 1 : self->settings.batch_commands;
}

static bool window_open(const struct sync *self)
{
    const struct outbound *out = &self->out;
    if (batches_one_by_one(self) && batches_push_out(self))
        return false;
    return out->batches < self->settings.batches_in_flight &&
           out->in_flight_items + self->settings.batch_commands <= SYNC_IN_FLIGHT_MAX &&
           out->in_flight_bytes <
               (size_t)self->settings.batches_in_flight * self->settings.batch_bytes;
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
    read->read.max_records = rows_at_once(self);
    read->read.max_bytes = self->settings.batch_bytes;
    *retry = pending_due(self);
    if (*retry != NULL) {
        out->read_source = FROM_RETRY;
        read->read.from_row = (*retry)->row;
        read->read.max_records = 1;
        read->read.include_clean = (*retry)->clean;
        return true;
    }
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
        read->read.max_records = verify_wanted_span(self, rows_at_once(self));
        return true;
    }
    if (resync_reads(self)) {
        out->read_source = FROM_RESYNC;
        read->read.from_row = out->resync_row;
        if (out->resync == RESYNC_ENTRIES)
            read->read.max_records = self->settings.batch_commands; /* compared only */
        return true;
    }
    if (verify_due(self) <= self->now_ms) {
        out->read_source = FROM_VERIFY;
        read->read.from_row = self->verify.row;
        read->read.max_records = self->settings.batch_commands;
        return true;
    }
    return false;
}

void rows_advance(struct sync *self)
{
    struct outbound *out = &self->out;
    sync_action choice;
    struct retry *retry = NULL;
    if (out->reading || out->need_scripts || self->rejoin || self->now_ms < out->read_at ||
        sync_marks_hold(self) || !window_open(self))
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

int64_t rows_deadline(const struct sync *self)
{
    const struct outbound *out = &self->out;
    if (!self->joined || out->reading || out->need_scripts || self->rejoin ||
        sync_marks_hold(self) || !window_open(self))
        return SYNC_NEVER;
    int64_t read = out->retry_at;
    if (ranges_due(self) < read)
        read = ranges_due(self);
    if (out->left.any && out->left.due_ms < read)
        read = out->left.due_ms;
    if (out->scan == LOG_COOLING && out->scan_at < read)
        read = out->scan_at;
    if (verify_due(self) < read)
        read = verify_due(self);
    if (out->scan == LOG_ACTIVE || self->verify.wanted_count != 0 || resync_reads(self))
        read = self->now_ms;
    if (read != SYNC_NEVER && read < out->read_at)
        read = out->read_at;
    return read;
}

/* ---- What was read ----------------------------------------------------------------------------
 */

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
        if (out->scan_row != out->read_row)
            break; /* it is to be read from further back meanwhile */
        out->scan_row = rows->next_row;
        if (count != 0)
            out->recheck_pause_ms = 0;
        if (!rows->end) {
            out->scan = LOG_ACTIVE;
        } else if (count != 0 || out->scan == LOG_ACTIVE) {
            out->scan = LOG_COOLING;
            out->scan_at = self->now_ms + (count != 0 ? self->settings.linger_ms : 0);
            out->scan_lone = count == 1;
        } else if (out->scan != LOG_ARMED && sync_act(self, SYNC_ACT_ARM) != NULL) {
            out->scan = LOG_ARMED;
        }
        break;
    case FROM_RANGE:
        if (out->ranges[0].low != out->read_row)
            break; /* it has grown meanwhile, or another stands before it: once more */
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

void rows_read(struct sync *self, const sync_event *event)
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
    if (count != 0 && !batches_push(self, count, retry)) {
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
        action->read.max_records = rows_at_once(self);
        action->read.max_bytes = self->settings.batch_bytes;
        out->reading = true;
    }
}
