/* pending.c: rows that must be read again: runs of rows whose push came to nothing or whose entry
 * was overwritten in flight, and the bounded set of rows that Redis refuses for their own sake or
 * for want of memory. What that set has no room for is left in the map, and the log is read again
 * from the first of it on, later: what comes after it must not wait, deletions above all. Called by
 * rows.c and batches.c; it never reads or sends anything.
 */
#include "daemon/sync/internal.h"

#include <string.h>

/* ---- Rows to look at again --------------------------------------------------------------------
 */

static void stretch(struct range *range, struct range by)
{
    if (by.low < range->low)
        range->low = by.low;
    if (by.high > range->high)
        range->high = by.high;
}

static void again(struct sync *self, struct range run)
{
    struct outbound *out = &self->out;
    size_t at = 0, end;
    if (out->range_count == 0)
        out->ranges_at = self->now_ms + self->settings.linger_ms;
    while (at < out->range_count && out->ranges[at].high + RANGE_JOIN < run.low)
        at++;
    for (end = at; end < out->range_count && run.high + RANGE_JOIN >= out->ranges[end].low; end++)
        stretch(&run, out->ranges[end]);
    if (at == end && out->range_count == RANGES_MAX) {
        /* no room for another run: stretch a neighbour; passing over clean rows is only slower */
        stretch(&out->ranges[at == out->range_count ? at - 1 : at], run);
        return;
    }
    memmove(&out->ranges[at + 1], &out->ranges[end],
            (out->range_count - end) * sizeof *out->ranges);
    out->ranges[at] = run;
    out->range_count = out->range_count + 1 - (end - at);
}

void pending_again(struct sync *self, uint64_t row)
{
    again(self, (struct range){.low = row, .high = row});
}

/* Push this item's row again: its batch came to nothing for it. */
void pending_put_back(struct sync *self, const struct sync_batch *batch, const sync_item *item)
{
    struct outbound *out = &self->out;
    /* Whatever it was read for, it may be dirty, and of another kind by now. */
    pending_again(self, item->row);
    if (batch->source == FROM_WANTED)
        verify_want(self, item->row);
    if (batch->source == FROM_VERIFY && item->row < self->verify.row)
        self->verify.row = item->row;
    if (batch->source == FROM_RESYNC && batch->generation == out->resync_generation &&
        out->resync != RESYNC_NONE) {
        bool further = out->resync > batch->phase;
        if (further)
            out->resync =
                batch->phase; /* each pass looks at its own kinds only: back to that one */
        if (further || item->row < out->resync_row)
            out->resync_row = item->row;
    }
}

/* ---- Refused rows -----------------------------------------------------------------------------
 */

static size_t place(const struct outbound *out, uint64_t row)
{
    size_t low = 0, high = out->retry_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (out->retries[middle].row < row)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct retry *pending_find(struct outbound *out, uint64_t row)
{
    size_t at = place(out, row);
    return at < out->retry_count && out->retries[at].row == row ? &out->retries[at] : NULL;
}

void pending_forget(struct outbound *out, uint64_t row)
{
    struct retry *found = pending_find(out, row);
    if (found == NULL)
        return;
    size_t at = (size_t)(found - out->retries);
    out->retry_count--;
    memmove(found, found + 1, (out->retry_count - at) * sizeof *found);
}

static int64_t pause_before(struct sync *self, unsigned attempts, enum sync_outcome reason)
{
    int64_t pause = self->settings.backoff_min_ms;
    int64_t most =
        reason == SYNC_REFUSED_KEY ? self->settings.retry_max_ms : self->settings.backoff_max_ms;
    for (unsigned i = 0; i < attempts && pause < most; i++)
        pause *= 2;
    if (pause > most)
        pause = most;
    return pause / 2 + (int64_t)(sync_random(&self->random) % (uint64_t)(pause / 2 + 1));
}

/* Where the row must stand; NULL: there is no room. */
static struct retry *add(struct outbound *out, uint64_t row, size_t room)
{
    if (out->retry_count >= room)
        return NULL;
    size_t at = place(out, row);
    memmove(&out->retries[at + 1], &out->retries[at],
            (out->retry_count - at) * sizeof *out->retries);
    memset(&out->retries[at], 0, sizeof *out->retries);
    out->retries[at].row = row;
    out->retry_count++;
    return &out->retries[at];
}

/* The row stays dirty, and all that is remembered is the first of such. */
static void leave(struct sync *self, uint64_t row, bool at_once)
{
    struct left *left = &self->out.left;
    left->rows++;
    if (left->any) {
        left->first = row < left->first ? row : left->first;
    } else {
        left->any = true;
        left->first = row;
        left->due_ms = self->now_ms + pause_before(self, left->attempts, SYNC_REFUSED_KEY);
        if (left->attempts < UINT16_MAX)
            left->attempts++;
    }
    if (at_once)
        left->due_ms = self->now_ms;
}

/* The whole log from there on, not those rows alone: while rows are left their number does not tell
 * whether there are others that nobody told of, whose worker died between its commit and the
 * wake-up (outbound_recheck()). These come after them, since the log had been read to its end. */
void pending_left_again(struct sync *self)
{
    struct left *left = &self->out.left;
    if (!left->any || left->due_ms > self->now_ms)
        return;
    left->any = false;
    left->before = left->rows;
    left->rows = 0;
    left->again_ms = self->now_ms;
    outbound_read_from(self, left->first);
}

/* While they are pushed again, Redis has yet to say which of them it takes now. */
uint64_t pending_left(const struct sync *self)
{
    const struct outbound *out = &self->out;
    const struct left *left = &out->left;
    bool under_way = (out->scan != LOG_ARMED || out->batches != 0) &&
                     self->now_ms - left->again_ms < self->settings.retry_max_ms;
    return under_way && left->before > left->rows ? left->before : left->rows;
}

/* What Redis refused was taken after all: all else may be, too. */
static void hurry_left(struct sync *self)
{
    self->out.left.due_ms = self->now_ms;
    self->out.left.attempts = 0;
}

/* The set is full, and it is memory that Redis lacks: what is deleted now is not going to find a
 * place, nor the time that a place gives it. */
bool pending_removes_at_once(const struct sync *self)
{
    const struct outbound *out = &self->out;
    return out->retry_count >= self->settings.retry_entries && out->no_memory_ms != 0 &&
           self->now_ms - out->no_memory_ms < 2 * self->settings.backoff_max_ms;
}

void pending_refuse(struct sync *self, const struct sync_batch *batch, const sync_item *item,
                    enum sync_outcome reason)
{
    struct outbound *out = &self->out;
    struct retry *entry = pending_find(out, item->row);
    /* A deletion that found no memory at least takes the old value away, at once. */
    bool remove = reason == SYNC_NO_MEMORY && item->kind == REPLICA_DELETED && !item->remove;
    if (reason != SYNC_REMOVED)
        self->counters.refused++;
    if (reason == SYNC_NO_MEMORY)
        out->no_memory_ms = self->now_ms;
    if (entry == NULL) {
        entry = add(out, item->row, self->settings.retry_entries);
        if (entry == NULL && batch->clean && !inbound_mark_dirty(self, item)) {
            pending_put_back(self, batch, item); /* nobody else would know of it */
            return;
        }
        if (entry == NULL) {
            leave(self, item->row, remove);
            return;
        }
        entry->clean = batch->clean;
    }
    entry->heard = false;
    entry->remove = remove;
    entry->reason = (uint8_t)reason;
    entry->out = false;
    entry->due_ms =
        entry->remove ? self->now_ms : self->now_ms + pause_before(self, entry->attempts, reason);
    if (entry->attempts < UINT16_MAX && !entry->remove)
        entry->attempts++;
    if (entry->due_ms < out->retry_at)
        out->retry_at = entry->due_ms;
}

/* Whoever hears a removal told again leaves the telling to that host: of a whole fleet that heard
 * it, one at a time goes on with it. Half of the set stays free for what Redis refuses us; what
 * finds no room is pushed like any other row. */
void pending_heard(struct sync *self, uint64_t row, bool anew)
{
    struct outbound *out = &self->out;
    struct retry *entry = pending_find(out, row);
    if (entry == NULL && anew)
        entry = add(out, row, self->settings.retry_entries / 2);
    if (entry == NULL && anew)
        outbound_wake(self);
    if (entry == NULL || entry->out || (!anew && !entry->heard))
        return;
    entry->heard = true;
    entry->remove = false;
    entry->reason = SYNC_NO_MEMORY;
    uint64_t repeats = (uint64_t)self->settings.backoff_max_ms; /* at most: see pause_before() */
    entry->due_ms =
        self->now_ms + (int64_t)(2 * repeats + sync_random(&self->random) % (repeats + 1));
    if (entry->due_ms < out->retry_at)
        out->retry_at = entry->due_ms;
}

/* Memory is there again: what was refused for want of it need not wait longer. */
static void hurry(struct sync *self)
{
    struct outbound *out = &self->out;
    hurry_left(self);
    for (size_t i = 0; i < out->retry_count; i++) {
        struct retry *entry = &out->retries[i];
        if (entry->reason == SYNC_REFUSED_KEY || entry->out || entry->heard)
            continue;
        entry->due_ms = self->now_ms;
        entry->attempts = 0;
        out->retry_at = self->now_ms;
    }
}

void pending_taken(struct sync *self, uint64_t row)
{
    struct retry *entry = pending_find(&self->out, row);
    if (entry == NULL)
        return;
    bool memory = entry->reason != SYNC_REFUSED_KEY;
    pending_forget(&self->out, row);
    if (memory)
        hurry(self);
    else
        hurry_left(self);
}

/* One of these may have ended the last session: the others have some time before it may end this
 * one. */
void pending_connected(struct sync *self)
{
    struct outbound *out = &self->out;
    int64_t soonest = self->now_ms + self->settings.backoff_max_ms;
    for (size_t i = 0; i < out->retry_count; i++)
        if (out->retries[i].reason == SYNC_REFUSED_KEY && out->retries[i].due_ms < soonest)
            out->retries[i].due_ms = soonest;
}

struct retry *pending_due(struct sync *self)
{
    struct outbound *out = &self->out;
    struct retry *due = NULL;
    if (out->retry_at > self->now_ms)
        return NULL;
    out->retry_at = SYNC_NEVER;
    for (size_t i = 0; i < out->retry_count; i++) {
        struct retry *entry = &out->retries[i];
        if (entry->out)
            continue;
        if (due == NULL && entry->due_ms <= self->now_ms)
            due = entry;
        if (entry->due_ms < out->retry_at)
            out->retry_at = entry->due_ms;
    }
    return due;
}
