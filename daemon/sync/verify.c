/* verify.c: comparing what the map has with Redis's records, without sending values: of all entries
 * after history was lost, and of each once a period all the time. What Redis lacks, or has an older
 * record of, is wanted: its row is read again and pushed. Called by rows.c, which reads, and
 * batches.c, which sends; neither is done here.
 */
#include "daemon/sync/internal.h"

#include <string.h>

/* Share of the period that a rolling pass is spread over: it must be through before the next. */
#define PACE_OF(PERIOD) ((PERIOD) / 10 * 9)
#define LEAST_PAUSE_MS 1
#define ENTRIES_UNKNOWN 100000u /* until we are told */

/* A place that never was stored says nothing of how long: 0. */
bool verify_absent(const struct sync *self)
{
    return self->settings.keep_ms != 0 &&
           sync_redis_now(self) - self->stored.seen_ms > self->settings.keep_ms;
}

void verify_begin(struct sync *self)
{
    struct verify *verify = &self->verify;
    verify->wanted_count = 0;
    /* It is compared now: the rolling pass begins anew after it. */
    verify->row = 0;
    verify->began_at = verify->at = self->now_ms + self->settings.verify_ms;
}

void verify_joined(struct sync *self)
{
    struct verify *verify = &self->verify;
    if (verify->at == 0)
        verify->began_at = verify->at = self->now_ms;
}

void verify_disconnected(struct sync *self)
{
    struct verify *verify = &self->verify;
    if (verify->wanted_count != 0 && verify->wanted[0] < verify->row)
        verify->row = verify->wanted[0]; /* they are found again */
    verify->wanted_count = 0;
}

/* ---- Rows that Redis lacks --------------------------------------------------------------------
 */

static size_t place(const struct verify *verify, uint64_t row)
{
    size_t low = 0, high = verify->wanted_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (verify->wanted[middle] < row)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool verify_wants(const struct verify *verify, uint64_t row)
{
    size_t at = place(verify, row);
    return at < verify->wanted_count && verify->wanted[at] == row;
}

void verify_want(struct sync *self, uint64_t row)
{
    struct verify *verify = &self->verify;
    size_t at = place(verify, row);
    if ((at < verify->wanted_count && verify->wanted[at] == row) ||
        verify->wanted_count == WANTED_MAX) /* cannot be: verify_has_room() was asked */
        return;
    memmove(&verify->wanted[at + 1], &verify->wanted[at],
            (verify->wanted_count - at) * sizeof *verify->wanted);
    verify->wanted[at] = row;
    verify->wanted_count++;
}

void verify_wanted_read(struct verify *verify, uint64_t next_row)
{
    size_t passed = place(verify, next_row);
    verify->wanted_count -= passed;
    memmove(&verify->wanted[0], &verify->wanted[passed],
            verify->wanted_count * sizeof *verify->wanted);
}

uint32_t verify_wanted_span(const struct sync *self, uint32_t most)
{
    const struct verify *verify = &self->verify;
    size_t end = place(verify, verify->wanted[0] + most);
    return (uint32_t)(verify->wanted[end - 1] - verify->wanted[0] + 1);
}

/* All that is asked about may turn out to be wanted, and so may all that is pushed for that. */
bool verify_has_room(const struct sync *self)
{
    size_t may_be = self->verify.wanted_count + self->settings.batch_commands;
    for (const struct sync_batch *batch = self->out.first; batch != NULL; batch = batch->next)
        if (batch->compares || batch->source == FROM_WANTED)
            may_be += batch->count;
    return may_be <= WANTED_MAX;
}

/* ---- Rows to compare --------------------------------------------------------------------------
 */

static bool told_within(const struct sync *self, const replica_record *record, int64_t ms)
{
    return record->acked_ms != 0 && self->wall_ms - record->acked_ms < ms;
}

/* Half of T, and no moment that is yet to come: this host's clock may have been set back since, and
 * what was told before an absence of T must not pass for told after it. Where it has been set back
 * under our eyes, nothing was told lately. */
bool verify_told_lately(const struct sync *self, const replica_record *record)
{
    return !self->wall_set_back && record->acked_ms <= self->wall_ms + WALL_STEP_MS &&
           told_within(self, record, self->settings.keep_ms / 2);
}

bool verify_takes(const struct sync *self, const replica_record *record)
{
    int64_t written = (int64_t)(record->version.clock >> 16), keep_ms = self->settings.keep_ms;
    /* A removal may have the version of what it has removed, and be told long after that. */
    return record->kind != REPLICA_DELETED || keep_ms == 0 || told_within(self, record, keep_ms) ||
           sync_redis_now(self) - written < keep_ms;
}

int64_t verify_due(const struct sync *self)
{
    if (self->settings.verify_ms == 0 || self->out.resync != RESYNC_NONE || self->in.catching_up ||
        inbound_held_up(self) || !verify_has_room(self))
        return SYNC_NEVER;
    for (const struct sync_batch *batch = self->out.first; batch != NULL; batch = batch->next)
        if (batch->compares)
            return SYNC_NEVER; /* one at a time */
    return self->verify.at;
}

void verify_passed(struct sync *self, const replica_batch *rows)
{
    struct verify *verify = &self->verify;
    int64_t period = self->settings.verify_ms;
    if (rows->end) {
        verify->row = 0;
        verify->at = verify->began_at + period;
        if (verify->at <= self->now_ms)
            verify->at = self->now_ms + LEAST_PAUSE_MS;
        verify->began_at = verify->at;
        return;
    }
    verify->row = rows->next_row;
    uint64_t entries = verify->entries != 0 ? verify->entries : ENTRIES_UNKNOWN;
    if (entries < rows->count)
        entries = rows->count;
    int64_t pause = (int64_t)((double)PACE_OF(period) * (double)rows->count / (double)entries);
    verify->at = self->now_ms + (pause > LEAST_PAUSE_MS ? pause : LEAST_PAUSE_MS);
}

/* ---- What the records say ---------------------------------------------------------------------
 */

void verify_answered(struct sync *self, const struct sync_batch *batch, sync_item *item,
                     const sync_change *found)
{
    bool missing = item->outcome == SYNC_NOT_FOUND;
    self->counters.verified++;
    if (!missing && (found == NULL || sync_order_item(item, &found->record) == 0))
        return; /* of another format, say: not ours to write over; or just what we have */
    bool newer = !missing && !sync_ahead(self, found->record.version.clock) &&
                 sync_order_item(item, &found->record) < 0;
    if (newer) {
        sync_change change = *found;
        change.record.key = item->key;
        change.record.key_size = item->key_size;
        self->counters.mended++;
        if (!inbound_take(self, &change, false))
            pending_put_back(self, batch, item); /* no room: it is asked about once more */
    } else if (missing && batch->source == FROM_RESYNC && verify_absent(self) && !item->ours) {
        /* (Of what Redis took from us lately, a deletion would still be known: that it has
         * no record is Redis's loss. And what was dirty when it was read may be acknowledged by
         * now.) */
        item->what = REPLICA_FORGET;
        item->outcome = SYNC_SAME; /* so that the map is told */
        self->counters.forgotten++;
    } else {
        self->counters.mended++;
        verify_want(self, item->row);
    }
}
