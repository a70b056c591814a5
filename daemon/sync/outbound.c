/* outbound.c: from the map to Redis, over all: its state, its part in sessions and in lost history,
 * its step. What is read next is rows.c's subject, what is under way batches.c's; rows that could
 * not be finished are remembered as runs of rows to look at again, or, where Redis refuses the key
 * itself, in the retry set (pending.c).
 */
#include "daemon/sync/internal.h"

#include <stdlib.h>

bool outbound_create(struct sync *self)
{
    struct outbound *out = &self->out;
    out->last = &out->first;
    out->retries = calloc(self->settings.retry_entries, sizeof *out->retries);
    out->retry_at = out->read_at = SYNC_NEVER;
    out->read_at = 0;
    return out->retries != NULL;
}

void outbound_destroy(struct sync *self)
{
    batches_destroy(&self->out);
    free(self->out.retries);
}

#define RESYNCS_APART_MS 60000 /* what is further apart has nothing to do with each other */
#define RESYNC_PAUSE_MS 1000
#define RESYNC_PAUSE_MOST_MS 4000

/* ---- Sessions and resyncs ---------------------------------------------------------------------
 */

void outbound_read_from(struct sync *self, uint64_t row)
{
    struct outbound *out = &self->out;
    if (row < out->scan_row)
        out->scan_row = row;
    out->scan = LOG_ACTIVE;
}

void outbound_disconnected(struct sync *self)
{
    struct outbound *out = &self->out;
    batches_disconnected(self);
    for (size_t i = 0; i < out->range_count; i++)
        outbound_read_from(self, out->ranges[i].low);
    out->range_count = 0;
    if (out->left.any)
        outbound_read_from(self, out->left.first);
    out->left.any = false;
    out->left.rows = out->left.before = 0;
    for (size_t i = 0; i < out->retry_count; i++)
        out->retries[i].out = false;
    if (out->retry_count != 0)
        out->retry_at = self->now_ms;
    out->scan = LOG_ACTIVE;
    out->reading = false;
    out->need_scripts = out->loading = false;
    verify_disconnected(self);
}

/* A Redis that evicts its stream loses its history again and again, through what it is told in the
 * comparison itself: then the next one waits, and what is written and removed goes its way
 * meanwhile. Not for long: whoever has lost history has repaired Redis, for all that we know. */
static void put_off(struct sync *self)
{
    struct outbound *out = &self->out;
    bool waits = out->resync == RESYNC_WAITING && out->resync_at > self->now_ms;
    int64_t pause = 0;
    if (out->resyncs_soon != 0 && self->now_ms - out->resynced_ms >= RESYNCS_APART_MS)
        out->resyncs_soon = 0;
    if (out->resyncs_soon < UINT32_MAX)
        out->resyncs_soon++;
    out->resynced_ms = self->now_ms;
    if (waits)
        return; /* or it would never be its turn */
    for (uint32_t i = SYNC_RESYNCS_AT_ONCE; i < out->resyncs_soon && pause < RESYNC_PAUSE_MOST_MS;
         i++)
        pause = pause == 0 ? RESYNC_PAUSE_MS : pause * 2;
    out->resync_at = self->now_ms + pause;
}

void outbound_resync(struct sync *self, bool reads_on)
{
    struct outbound *out = &self->out;
    self->counters.resyncs++;
    batches_forget_answers(self);
    put_off(self);
    /* A cluster's keys may have outlived the last events of its stream: what is read on there can
     * be older than what nobody tells any more, and must be compared, too. */
    out->resync_reads_on = reads_on && self->settings.events_apart;
    out->resync =
        out->resync_reads_on || out->resync_at > self->now_ms ? RESYNC_WAITING : RESYNC_TOMBSTONES;
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

/* Nothing is known of that could be pushed now, but what Redis refuses: that waits for its time, or
 * is tried again, which with many of those goes on all the time. */
static bool nothing_to_push(const struct sync *self)
{
    const struct outbound *out = &self->out;
    bool reads = out->reading && out->read_source != FROM_RETRY && out->read_source != FROM_VERIFY;
    for (const struct sync_batch *batch = out->first; batch != NULL; batch = batch->next)
        if (!batch->compares && batch->source != FROM_RETRY)
            return false;
    return out->scan == LOG_ARMED && !reads && out->range_count == 0 &&
           self->verify.wanted_count == 0;
}

static bool idle(const struct sync *self)
{
    return nothing_to_push(self) && self->out.batches == 0 && !self->out.reading;
}

/* All that is dirty is in the retry set, at most, and there are more: a worker died between its
 * commit and the wake-up, say. Not while rows are left, which are more than the set as well. (A
 * resync reads them all by itself, but once it has, it may wait for as long as Redis has no memory,
 * with clean ones in the set, too: then their number says nothing.) */
void outbound_recheck(struct sync *self, uint64_t dirty)
{
    struct outbound *out = &self->out;
    bool reads_all = out->resync != RESYNC_NONE && out->resync != RESYNC_DRAINING;
    uint64_t known = out->resync == RESYNC_NONE ? out->retry_count : 0;
    if (!self->joined || !nothing_to_push(self) || dirty <= known || reads_all || out->left.any ||
        self->now_ms < out->recheck_at)
        return;
    out->recheck_pause_ms = out->recheck_pause_ms == 0 ? 1000 : out->recheck_pause_ms * 2;
    if (out->recheck_pause_ms > RECHECK_MAX_MS)
        out->recheck_pause_ms = RECHECK_MAX_MS;
    out->recheck_at = self->now_ms + out->recheck_pause_ms;
    outbound_read_from(self, 0);
}

bool outbound_drained(const struct sync *self)
{
    return idle(self) && self->out.retry_count == 0 && !self->out.left.any;
}

/* ---- At the end of every step -----------------------------------------------------------------
 */

void outbound_advance(struct sync *self)
{
    struct outbound *out = &self->out;
    batches_advance(self);
    if (!self->joined)
        return;
    if (out->need_scripts && !out->loading && sync_act(self, SYNC_ACT_LOAD) != NULL)
        out->loading = true;
    if (out->resync == RESYNC_WAITING && self->now_ms >= out->resync_at &&
        (!out->resync_reads_on || (!self->in.catching_up && inbound_empty(self))))
        out->resync = RESYNC_TOMBSTONES;
    if (out->resync == RESYNC_DRAINING && !resync_in_flight(self) && !resync_refused(out))
        out->resync = RESYNC_NONE; /* the place in the stream may be stored again */
    pending_left_again(self);
    rows_advance(self);
}

int64_t outbound_deadline(const struct sync *self)
{
    const struct outbound *out = &self->out;
    int64_t due = batches_deadline(self), read = rows_deadline(self);
    due = read < due ? read : due;
    if (self->joined && out->resync == RESYNC_WAITING && out->resync_at > self->now_ms &&
        out->resync_at < due)
        due = out->resync_at;
    return due;
}
