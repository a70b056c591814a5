/* figures.c: the table. Rows of one group stand together, and so do those of one family.
 */
#include "figures.h"

#include <string.h>

#include "control.h"

#define AT(member) offsetof(larder_stats, member)
#define COUNTED(group, member, counter, family, label, help)                                       \
    {                                                                                              \
        group, #member, FIGURE_COUNT, counter, AT(member), {0}, family, label, help                \
    }
#define STANDS(group, member, unit, family, help)                                                  \
    {                                                                                              \
        group, #member, unit, -1, AT(member), {0}, family, NULL, help                              \
    }

const struct figure figures[] = {
    COUNTED("lookups", hits, STATS_LOOKUPS, "larder_lookups", "result=\"hit\"",
            "Lookups that found a value."),
    COUNTED("lookups", misses, STATS_MISSES, NULL, NULL,
            "Lookups that found nothing to serve: the next three among them, and keys not there."),
    COUNTED("lookups", expired, STATS_EXPIRED, "larder_lookups", "result=\"expired\"",
            "Misses because the entry had expired."),
    COUNTED("lookups", read_busy, STATS_READ_BUSY, "larder_lookups", "result=\"busy\"",
            "Misses because a gate was held by another process."),
    COUNTED("lookups", read_corrupt, STATS_READ_CORRUPT, "larder_lookups", "result=\"corrupt\"",
            "Misses because of damage."),
    COUNTED("lookups", absent, STATS_ABSENT, "larder_lookups", "result=\"absent\"",
            "Lookups that found a negative entry."),
    COUNTED("lookups", stale, STATS_STALE, "larder_lookups", "result=\"stale\"",
            "Lookups answered with a stale value."),
    COUNTED("lookups", hot_hits, STATS_HOT_HITS, "larder_hot_hits", NULL,
            "Lookups answered by the hot set, without LMDB: of the hits and negative entries."),
    {"lookups",
     "hit_ratio",
     FIGURE_RATIO,
     -1,
     AT(hits),
     {AT(hits), AT(misses), AT(absent), AT(stale)},
     NULL,
     NULL,
     "Hits of all lookups."},
    {"lookups",
     "hot_ratio",
     FIGURE_RATIO,
     -1,
     AT(hot_hits),
     {AT(hits), AT(absent)},
     NULL,
     NULL,
     "Answers of the hot set of all hits and negative entries."},
    COUNTED("writes", sets, STATS_SETS, "larder_writes", "kind=\"set\"", "Entries stored."),
    COUNTED("writes", deletes, STATS_DELETES, "larder_writes", "kind=\"delete\"",
            "Keys deleted, there or not."),
    COUNTED("writes", touches, STATS_TOUCHES, "larder_writes", "kind=\"touch\"",
            "Entries given another expiry."),
    COUNTED("writes", slides, STATS_SLIDES, "larder_writes", "kind=\"slide\"",
            "Expiries extended by a read."),
    COUNTED("writes", combined, STATS_COMBINED, "larder_combined_writes", NULL,
            "Writes that another process committed together with its own."),
    COUNTED("writes", refused_busy, STATS_REFUSED_BUSY, "larder_writes_refused", "reason=\"busy\"",
            "Writes refused: the write gate was held past the deadline."),
    COUNTED("writes", refused_full, STATS_REFUSED_FULL, "larder_writes_refused", "reason=\"full\"",
            "Writes refused: the map was full and nothing could go."),
    COUNTED("writes", refused_size, STATS_REFUSED_SIZE, "larder_writes_refused", "reason=\"size\"",
            "Writes refused: the value was too large."),
    COUNTED("invalidations", invalidations_group, STATS_INVALIDATIONS_GROUP, "larder_invalidations",
            "kind=\"group\"", "Calls to invalidate, of a group."),
    COUNTED("invalidations", invalidations_tag, STATS_INVALIDATIONS_TAG, "larder_invalidations",
            "kind=\"tag\"", "Calls to invalidate, of a tag."),
    COUNTED("invalidations", invalidations_prefix, STATS_INVALIDATIONS_PREFIX,
            "larder_invalidations", "kind=\"prefix\"", "Calls to invalidate, of a prefix."),
    COUNTED("invalidations", invalidations_match, STATS_INVALIDATIONS_MATCH, "larder_invalidations",
            "kind=\"match\"", "Calls to invalidate, by a pattern."),
    COUNTED("invalidations", invalidations_clear, STATS_INVALIDATIONS_CLEAR, "larder_invalidations",
            "kind=\"clear\"", "Calls to clear the map."),
    COUNTED("removals", evictions, STATS_EVICTIONS, "larder_evictions", "reason=\"space\"",
            "Live entries removed to make room."),
    COUNTED("removals", expirations, STATS_EXPIRATIONS, "larder_evictions", "reason=\"expired\"",
            "Entries removed because they had expired."),
    COUNTED("removals", reclaimed_dead, STATS_RECLAIMED_DEAD, "larder_evictions", "reason=\"dead\"",
            "Entries removed because a group, tag or clear had made them dead."),
    COUNTED("removals", evicted_small, STATS_EVICTED_SMALL, "larder_evictions_by_queue",
            "queue=\"small\"", "Evictions from the queue of new entries."),
    COUNTED("removals", evicted_main, STATS_EVICTED_MAIN, "larder_evictions_by_queue",
            "queue=\"main\"", "Evictions from the queue of entries that were asked for."),
    COUNTED("removals", reclaimed_expired, STATS_RECLAIMED_EXPIRED, "larder_reclaimed_expired",
            NULL, "Expired entries that were found while making room."),
    COUNTED("leases", lease_fills, STATS_LEASE_FILLS, "larder_leases", "kind=\"fill\"",
            "Leases given to fill or refresh a key."),
    COUNTED("leases", refreshes, STATS_REFRESHES, "larder_leases", "kind=\"refresh\"",
            "Of them: ahead of expiry, or for a stale value."),
    COUNTED("leases", lease_takeovers, STATS_LEASE_TAKEOVERS, "larder_leases", "kind=\"takeover\"",
            "Of them: taken over from a holder that died or was late."),
    COUNTED("leases", lease_refused_fills, STATS_LEASE_REFUSED_FILLS, "larder_lease_refused_fills",
            NULL, "Fills not stored: something newer came in between."),
    COUNTED("leases", lease_waits, STATS_LEASE_WAITS, "larder_lease_waits", NULL,
            "Callers that waited for the fill of another."),
    COUNTED("leases", lease_timeouts, STATS_LEASE_TIMEOUTS, "larder_lease_timeouts", NULL,
            "Waits for a fill that ended at their deadline."),
    COUNTED("read-through", read_through_found, STATS_ASKS_FOUND, "larder_read_through",
            "result=\"found\"", "Misses that Redis had the value for."),
    COUNTED("read-through", read_through_absent, STATS_ASKS_ABSENT, "larder_read_through",
            "result=\"absent\"", "Misses that Redis had no value for either."),
    COUNTED("read-through", read_through_timeouts, STATS_ASKS_TIMEOUTS, "larder_read_through",
            "result=\"timeout\"", "Misses that waited for Redis in vain."),
    COUNTED("read-through", read_through_nobody, STATS_ASKS_NOBODY, "larder_read_through",
            "result=\"nobody\"", "Misses that did not wait: Redis was not to be had."),
    COUNTED("read-through", read_through_full, STATS_ASKS_FULL, "larder_read_through",
            "result=\"full\"", "Misses that did not wait: too much asked for, or too long a key."),
    COUNTED("read-through", read_through_joined, STATS_ASKS_JOINED, "larder_read_through_joined",
            NULL, "Misses that waited for the request of another."),
    COUNTED("events", events, STATS_EVENTS, "larder_published_events", NULL,
            "Events put into the ring: only while somebody follows their kind."),
    COUNTED("events", events_missed, STATS_EVENTS_MISSED, "larder_missed_events", NULL,
            "Events overwritten before a follower had seen them, counted by each follower."),
    COUNTED(
        "upkeep", pending_overflows, STATS_PENDING_OVERFLOWS, "larder_pending_overflows", NULL,
        "Times the table of refused invalidations overflowed: a bucket of keys was invalidated."),
    COUNTED("upkeep", gate_recoveries, STATS_GATE_RECOVERIES, "larder_gate_recoveries", NULL,
            "Times a gate was taken over from a process that died in it."),
    COUNTED("upkeep", generations, STATS_GENERATIONS, "larder_generations", NULL,
            "Generations started: after damage, a resize, and the first."),
    STANDS("contents", entries, FIGURE_NOW, "larder_map_entries", "Entries in the map."),
    STANDS("contents", tombstones, FIGURE_NOW, "larder_map_tombstones", "Remembered deletions."),
    STANDS("contents", log_rows, FIGURE_NOW, "larder_map_log_rows", "Rows of the map's log."),
    STANDS("contents", pending, FIGURE_NOW, "larder_map_pending",
           "Refused invalidations that wait for the next writer."),
    STANDS("space", map_size, FIGURE_BYTES, "larder_map_size_bytes", "Size of the map."),
    STANDS("space", hot_size, FIGURE_BYTES, "larder_hot_size_bytes",
           "Size of the hot set, beside the map."),
    STANDS("space", used_bytes, FIGURE_BYTES, "larder_map_used_bytes", "What of it is in use."),
    {"space",
     "used_share",
     FIGURE_RATIO,
     -1,
     AT(used_bytes),
     {AT(map_size)},
     NULL,
     NULL,
     "Of the map's size in use."},
    STANDS("space", generation, FIGURE_NOW, "larder_map_generation", "Number of the generation."),
    STANDS("space", processes, FIGURE_NOW, "larder_map_processes",
           "Processes that have the map open."),
    STANDS("replication", replicates, FIGURE_BOOL, NULL,
           "Whether the map is kept in step with Redis."),
    STANDS("replication", redis_up, FIGURE_BOOL, NULL,
           "Whether Redis is reached, as the daemon last said."),
    STANDS("replication", dirty, FIGURE_NOW, "larder_outbox_entries",
           "Entries and deletions that Redis has not acknowledged."),
    STANDS("replication", oldest_dirty_ms, FIGURE_SINCE, NULL, "The oldest of them."),
    STANDS("replication", daemon_heartbeat_ms, FIGURE_SINCE, NULL,
           "The daemon's last sign of life."),
    STANDS(NULL, process_hits, FIGURE_NOW, NULL, "Hits of the asking process alone."),
    STANDS(NULL, process_misses, FIGURE_NOW, NULL, "Its misses."),
    STANDS(NULL, process_sets, FIGURE_NOW, NULL, "Its sets."),
};
const size_t figure_count = sizeof figures / sizeof figures[0];

/* What a family with labels is, as a whole. */
static const struct {
    const char *family, *help;
} families[] = {
    {"larder_lookups", "Lookups in the map by all processes since it was made, by result."},
    {"larder_writes", "Writes by all processes since the map was made."},
    {"larder_writes_refused",
     "Writes refused: the write gate was held, the map was full, the value too large."},
    {"larder_invalidations", "Calls to invalidate more than a key."},
    {"larder_evictions",
     "Entries removed to make room, because they had expired, because something made them dead."},
    {"larder_evictions_by_queue", "Evictions for space, by the queue that gave the entry up."},
    {"larder_read_through", "Misses that asked Redis by larderd, by how that ended."},
    {"larder_leases", "Leases given; refreshes and takeovers are counted among the fills, too."},
};

const char *figure_family_help(const struct figure *figure)
{
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if (figure->label != NULL && strcmp(families[i].family, figure->family) == 0) {
            return families[i].help;
        }
    }
    return figure->help;
}

static uint64_t read_u64(const larder_stats *stats, size_t offset)
{
    uint64_t value;
    memcpy(&value, (const char *)stats + offset, sizeof value);
    return value;
}

uint64_t figure_value(const larder_stats *stats, const struct figure *figure)
{
    if (figure->unit == FIGURE_BOOL) {
        uint32_t value;
        memcpy(&value, (const char *)stats + figure->offset, sizeof value);
        return value;
    }
    uint64_t value = read_u64(stats, figure->offset);
    return figure->unit == FIGURE_SINCE && value > INT64_MAX ? 0 : value;
}

double figure_ratio(const larder_stats *stats, const struct figure *figure)
{
    double whole = 0;
    for (size_t i = 0; i < sizeof figure->whole / sizeof figure->whole[0]; i++) {
        /* hits stand at the beginning and never last: 0 in a later place is none */
        if (i == 0 || figure->whole[i] != 0) {
            whole += (double)read_u64(stats, figure->whole[i]);
        }
    }
    return whole > 0 ? (double)read_u64(stats, figure->offset) / whole : -1;
}
