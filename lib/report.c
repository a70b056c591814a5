/* report.c: larder_stats_read(): the counters of all processes and what stands in the map now.
 */
#include <string.h>

#include "clock.h"
#include "figures.h"
#include "format.h"
#include "handle.h"
#include "removal.h"
#include "stats.h"
#include "store.h"

enum { DIRTY_LOOKS_MAX = 4096 };

/* Time of the oldest write that is still dirty, as far as a bounded look from the log's beginning
 * shows. A row that is clean stays so (what is written again gets another one), so each look goes
 * on where the last one of this process ended: who asks often does not walk the same rows each
 * time. */
static int64_t oldest_dirty(struct transaction *t)
{
    _Atomic uint64_t *clean_before = &t->store->clean_before;
    uint64_t from = atomic_load_explicit(clean_before, memory_order_relaxed), row;
    int64_t found = 0;
    larder_bytes form, bytes;
    struct record record;
    for (int looks = 0; looks < DIRTY_LOOKS_MAX && found == 0; looks++) {
        if (store_log_next(t, from, &row, &form) != LARDER_OK) {
            return 0; /* an older snapshot than somebody else's */
        }
        if (store_entry_get(t, form.data, form.size, &bytes) == LARDER_OK &&
            record_decode(bytes.data, bytes.size, &record) &&
            (record.header.flags & RECORD_DIRTY) != 0) {
            found = clock_version_ms(record.header.clock);
            from = row;
        } else {
            from = row + 1;
        }
    }
    /* relaxed: a hint; another thread's may be overwritten by an older one, which is true as well
     */
    atomic_store_explicit(clean_before, from, memory_order_relaxed);
    return found;
}

static uint64_t hits_of(uint64_t lookups, uint64_t misses, uint64_t absent, uint64_t stale)
{
    uint64_t others = misses + absent + stale;
    return lookups > others ? lookups - others : 0;
}

static void from_counters(struct control *control, larder_stats *stats)
{
    /* lookups, which stand first, last: one that is counted meanwhile must not make hits negative
     */
    for (size_t i = figure_count; i-- > 0;) {
        if (figures[i].counter >= 0) {
            uint64_t sum = stats_sum(control, (enum stats_counter)figures[i].counter);
            memcpy((char *)stats + figures[i].offset, &sum, sizeof sum);
        }
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
    stats->log_rows = ledger.values + ledger.tombstones; /* each has one */
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
    stats.hot_size = atomic_load(&control_life(control)->hot_size);
    stats.generation = GENERATION_NUMBER(atomic_load(&control->generation));
    stats.processes = stats_processes(control);
    stats.daemon_heartbeat_ms = atomic_load(&control->daemon_heartbeat_ms);
    stats.replicates = atomic_load(&control->replicates);
    stats.redis_up = atomic_load(&control->redis_up);
    memset(out, 0, size_of_out);
    memcpy(out, &stats, size_of_out < sizeof stats ? size_of_out : sizeof stats);
    return result;
}
