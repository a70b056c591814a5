/* report.c: larder_stats_read(): the counters of all processes and what stands in the map now.
 */
#include <stddef.h>
#include <string.h>

#include "clock.h"
#include "format.h"
#include "handle.h"
#include "removal.h"
#include "stats.h"
#include "store.h"

enum { DIRTY_LOOKS_MAX = 4096 };

/* Time of the oldest write that is still dirty, as far as a bounded look from the log's end shows.
 */
static int64_t oldest_dirty(struct transaction *t)
{
    uint64_t from = 0, row;
    larder_bytes form, bytes;
    struct record record;
    for (int looks = 0; looks < DIRTY_LOOKS_MAX; looks++) {
        if (store_log_next(t, from, &row, &form) != LARDER_OK) {
            return 0;
        }
        if (store_entry_get(t, form.data, form.size, &bytes) == LARDER_OK &&
            record_decode(bytes.data, bytes.size, &record) &&
            (record.header.flags & RECORD_DIRTY) != 0) {
            return clock_version_ms(record.header.clock);
        }
        from = row + 1;
    }
    return 0;
}

static uint64_t hits_of(uint64_t lookups, uint64_t misses, uint64_t absent, uint64_t stale)
{
    uint64_t others = misses + absent + stale;
    return lookups > others ? lookups - others : 0;
}

/* Where each counter goes; hits follow from others. */
static const size_t places[STATS_COUNTERS] = {
    [STATS_LOOKUPS] = offsetof(larder_stats, hits),
    [STATS_MISSES] = offsetof(larder_stats, misses),
    [STATS_EXPIRED] = offsetof(larder_stats, expired),
    [STATS_ABSENT] = offsetof(larder_stats, absent),
    [STATS_READ_BUSY] = offsetof(larder_stats, read_busy),
    [STATS_READ_CORRUPT] = offsetof(larder_stats, read_corrupt),
    [STATS_SETS] = offsetof(larder_stats, sets),
    [STATS_DELETES] = offsetof(larder_stats, deletes),
    [STATS_TOUCHES] = offsetof(larder_stats, touches),
    [STATS_REFUSED_BUSY] = offsetof(larder_stats, refused_busy),
    [STATS_REFUSED_FULL] = offsetof(larder_stats, refused_full),
    [STATS_REFUSED_SIZE] = offsetof(larder_stats, refused_size),
    [STATS_EVICTIONS] = offsetof(larder_stats, evictions),
    [STATS_EXPIRATIONS] = offsetof(larder_stats, expirations),
    [STATS_PENDING_OVERFLOWS] = offsetof(larder_stats, pending_overflows),
    [STATS_GATE_RECOVERIES] = offsetof(larder_stats, gate_recoveries),
    [STATS_GENERATIONS] = offsetof(larder_stats, generations),
    [STATS_HOT_HITS] = offsetof(larder_stats, hot_hits),
    [STATS_STALE] = offsetof(larder_stats, stale),
    [STATS_INVALIDATIONS_GROUP] = offsetof(larder_stats, invalidations_group),
    [STATS_INVALIDATIONS_TAG] = offsetof(larder_stats, invalidations_tag),
    [STATS_INVALIDATIONS_PREFIX] = offsetof(larder_stats, invalidations_prefix),
    [STATS_INVALIDATIONS_MATCH] = offsetof(larder_stats, invalidations_match),
    [STATS_INVALIDATIONS_CLEAR] = offsetof(larder_stats, invalidations_clear),
    [STATS_EVICTED_SMALL] = offsetof(larder_stats, evicted_small),
    [STATS_EVICTED_MAIN] = offsetof(larder_stats, evicted_main),
    [STATS_RECLAIMED_EXPIRED] = offsetof(larder_stats, reclaimed_expired),
    [STATS_RECLAIMED_DEAD] = offsetof(larder_stats, reclaimed_dead),
    [STATS_LEASE_FILLS] = offsetof(larder_stats, lease_fills),
    [STATS_LEASE_WAITS] = offsetof(larder_stats, lease_waits),
    [STATS_LEASE_TAKEOVERS] = offsetof(larder_stats, lease_takeovers),
    [STATS_LEASE_TIMEOUTS] = offsetof(larder_stats, lease_timeouts),
    [STATS_LEASE_REFUSED_FILLS] = offsetof(larder_stats, lease_refused_fills),
    [STATS_REFRESHES] = offsetof(larder_stats, refreshes),
    [STATS_SLIDES] = offsetof(larder_stats, slides),
    [STATS_COMBINED] = offsetof(larder_stats, combined),
    [STATS_EVENTS] = offsetof(larder_stats, events),
    [STATS_EVENTS_MISSED] = offsetof(larder_stats, events_missed),
};

static void from_counters(struct control *control, larder_stats *stats)
{
    /* lookups last: one that is counted meanwhile must not make hits negative */
    for (size_t i = STATS_COUNTERS; i-- > 0;) {
        uint64_t sum = stats_sum(control, (enum stats_counter)i);
        memcpy((char *)stats + places[i], &sum, sizeof sum);
    }
    stats->hits =
        hits_of(stats->hits + stats->hot_hits, stats->misses, stats->absent, stats->stale);
}

static void from_snapshot(struct transaction *t, larder_stats *stats)
{
    struct ledger ledger = {0};
    (void)store_ledger(t, &ledger);
    stats->entries = ledger.values;
    stats->tombstones = ledger.tombstones;
    stats->dirty = ledger.dirty;
    stats->log_rows = store_log_rows(t);
    stats->used_bytes = store_used_pages(t) * t->store->control->page_size;
    if (ledger.dirty > 0) {
        stats->oldest_dirty_ms = oldest_dirty(t);
    }
}

int larder_stats_read(larder *handle, larder_stats *out, size_t size_of_out)
{
    larder_stats stats = {0};
    struct transaction *t;
    int result = handle_enter(handle);
    if (result == LARDER_OK && out == NULL) {
        result = error_set(LARDER_EINVAL, "larder_stats_read() without a place for them");
    }
    if (result == LARDER_OK) {
        result = registry_snapshot(handle->map, NULL, &t);
    }
    if (result != LARDER_OK) {
        return result;
    }
    from_snapshot(t, &stats);
    result = t->error;
    store_read_end(t);
    struct control *control = map_control(handle->map);
    struct stats_slot *own = map_stats(handle->map);
    from_counters(control, &stats);
    stats.process_misses = atomic_load(&own->counters[STATS_MISSES]);
    stats.process_hits = hits_of(atomic_load(&own->counters[STATS_LOOKUPS]) +
                                     atomic_load(&own->counters[STATS_HOT_HITS]),
                                 stats.process_misses, atomic_load(&own->counters[STATS_ABSENT]),
                                 atomic_load(&own->counters[STATS_STALE]));
    stats.process_sets = atomic_load(&own->counters[STATS_SETS]);
    stats.pending = removal_count_pending(control);
    stats.map_size = atomic_load(&control_life(control)->map_size);
    stats.generation = GENERATION_NUMBER(atomic_load(&control->generation));
    stats.processes = stats_processes(control);
    stats.daemon_heartbeat_ms = atomic_load(&control->daemon_heartbeat_ms);
    stats.replicates = atomic_load(&control->replicates);
    stats.redis_up = atomic_load(&control->redis_up);
    memset(out, 0, size_of_out);
    memcpy(out, &stats, size_of_out < sizeof stats ? size_of_out : sizeof stats);
    return result;
}
