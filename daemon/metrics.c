/* metrics.c: see metrics.h. Rows of one family stand together; a counter's family is named without
 * the "_total" that its samples end in, as OpenMetrics has it.
 */
#include "daemon/metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "figures.h"

enum metric_type { COUNTER, GAUGE };
enum metric_source { U64, U32, I64_MS, I64_US, STATE, BREAKER }; /* ms and us come out as seconds */

typedef struct metric_row {
    const char *family;
    enum metric_type type;
    const char *label; /* "result=\"hit\"" or NULL */
    enum metric_source source;
    size_t offset;
    const char *help; /* of the family: in its first row */
} metric_row;

#define AT(member) offsetof(metrics_snapshot, member)

/* Beside those of lib/figures.c, which come first. */
static const metric_row own_rows[] = {
    {"larder_map_up", GAUGE, NULL, U64, AT(map_up), "1: the map could be read just now."},
    {"larder_replicates", GAUGE, NULL, U64, AT(replicates_now),
     "1: the map is kept in step with Redis; 0: it is host-local."},
    {"larder_outbox_oldest_age_seconds", GAUGE, NULL, I64_MS, AT(oldest_age_ms),
     "Age of the oldest of them; 0: there is none."},
    {"larder_redis_up", GAUGE, NULL, U64, AT(redis_up), "1: connected to Redis and in step."},
    {"larder_redis_state", GAUGE, "state=", STATE, AT(redis.state),
     "1 for the state that the connection to Redis is in."},
    {"larder_redis_breaker", GAUGE, "state=", BREAKER, AT(redis.breaker),
     "1 for the state that the circuit breaker is in."},
    {"larder_degraded", GAUGE, NULL, U64, AT(degraded_now),
     "1: the map should be in step with Redis and is not: "
     "Redis is not reached, or takes nothing for 5 s."},
    {"larder_replication_lag_seconds", GAUGE, NULL, I64_MS, AT(redis.lag_ms),
     "Age of the oldest event of another host in the batch applied last."},
    {"larder_redis_round_trip_seconds", GAUGE, NULL, I64_US, AT(redis.round_trip_us),
     "Smoothed round trip of the command connection; 0: unknown."},
    {"larder_redis_clock_offset_seconds", GAUGE, NULL, I64_MS, AT(redis.clock_offset_ms),
     "Clock of Redis minus ours."},
    {"larder_redis_in_flight", GAUGE, NULL, U32, AT(redis.in_flight),
     "Commands sent and not answered."},
    {"larder_redis_retry_entries", GAUGE, NULL, U32, AT(redis.retry_entries),
     "Keys that Redis refused and that wait for another try."},
    {"larder_redis_retry_left_entries", GAUGE, NULL, U64, AT(redis.left_entries),
     "Keys that Redis refused beyond redis.retry_entries: they are tried again together."},
    {"larder_redis_unacknowledged_entries", GAUGE, NULL, U32, AT(redis.unacknowledged),
     "Entries that Redis has taken and that the map is yet to be told of: more than a moment where it "
     "has no room."},
    {"larder_redis_pushed", COUNTER, NULL, U64, AT(redis.pushed),
     "Commands sent that carried an entry."},
    {"larder_redis_acknowledged", COUNTER, NULL, U64, AT(redis.acknowledged),
     "Entries that Redis acknowledged."},
    {"larder_redis_superseded", COUNTER, NULL, U64, AT(redis.old),
     "Entries for which Redis had a newer version."},
    {"larder_redis_refused", COUNTER, NULL, U64, AT(redis.refused),
     "Pushes that Redis refused, each try counted."},
    {"larder_events", COUNTER, "result=\"applied\"", U64, AT(redis.applied),
     "Events of the fleet, by what became of them here."},
    {"larder_events", COUNTER, "result=\"equal\"", U64, AT(redis.echoes), NULL},
    {"larder_events", COUNTER, "result=\"ours_newer\"", U64, AT(redis.ours_newer), NULL},
    {"larder_events", COUNTER, "result=\"not_stored\"", U64, AT(redis.not_stored), NULL},
    {"larder_events", COUNTER, "result=\"duplicate\"", U64, AT(redis.duplicates), NULL},
    {"larder_event_gaps", COUNTER, NULL, U64, AT(redis.gaps),
     "Holes found in the numbers of the event stream; each was closed from the stream."},
    {"larder_resyncs", COUNTER, NULL, U64, AT(redis.resyncs),
     "Times the history in Redis was lost and everything was compared again."},
    {"larder_verified", COUNTER, NULL, U64, AT(redis.verified),
     "Entries whose version was compared with their record in Redis."},
    {"larder_verify_mended", COUNTER, NULL, U64, AT(redis.mended),
     "Of these, where the two were not the same."},
    {"larder_verify_forgotten", COUNTER, NULL, U64, AT(redis.forgotten),
     "Of these, dropped after an absence longer than removals are remembered."},
    {"larder_clock_ahead", COUNTER, NULL, U64, AT(redis.ahead),
     "Writes that were too far ahead of Redis's clock and were stamped anew."},
    {"larder_nodes_drawn", COUNTER, NULL, U64, AT(redis.nodes_drawn),
     "Times another map was found to have our node id."},
    {"larder_redis_connects", COUNTER, NULL, U64, AT(redis.connects), "Sessions with Redis begun."},
    {"larder_redis_connect_failures", COUNTER, NULL, U64, AT(redis.connect_failures),
     "Attempts to connect that failed."},
    {"larder_redis_timeouts", COUNTER, NULL, U64, AT(redis.timeouts),
     "Requests to Redis that passed their deadline."},
    {"larder_redis_protocol_errors", COUNTER, NULL, U64, AT(redis.protocol_errors),
     "Replies of Redis that were malformed, out of step or over a limit."},
    {"larder_read_through_asked", COUNTER, NULL, U64, AT(redis.asks),
     "Requests of workers for what they had missed, as larderd took them."},
    {"larder_read_through_commands", COUNTER, NULL, U64, AT(redis.asks_sent),
     "Commands sent to Redis for them: one for all who wait for a key."},
    {"larder_foreign_changes", COUNTER, NULL, U64, AT(redis.foreign),
     "Local copies that went because another program had changed the key in Redis."},
    {"larder_foreign_checks", COUNTER, NULL, U64, AT(redis.foreign_checks),
     "Keys looked at because Redis told that they had changed, larder's own writes included."},
    {"larder_foreign_skipped", COUNTER, NULL, U64, AT(redis.foreign_skipped),
     "Keys not looked at: too many changed at a time."},
    {"larder_redis_sent_bytes", COUNTER, NULL, U64, AT(redis.bytes_sent), "Sent to Redis."},
    {"larder_redis_received_bytes", COUNTER, NULL, U64, AT(redis.bytes_received),
     "Received from Redis."},
    {"larder_janitor_rows", COUNTER, NULL, U64, AT(janitor.rows_looked_at),
     "Rows of the log that the expiry walk looked at."},
    {"larder_janitor_removed", COUNTER, NULL, U64, AT(janitor.removed),
     "Expired entries and old deletions that it removed."},
    {"larder_janitor_passes", COUNTER, NULL, U64, AT(janitor.passes), "Walks completed."},
    {"larder_janitor_pass_seconds", GAUGE, NULL, I64_MS, AT(janitor.pass_took_ms),
     "How long the last walk took."},
    {"larder_janitor_evicted", COUNTER, NULL, U64, AT(janitor.evicted),
     "Entries evicted ahead of need, above the watermark."},
    {"larder_janitor_eviction_blocked", COUNTER, NULL, U64, AT(janitor.eviction_blocked),
     "Evictions that freed nothing because an old reader held the pages."},
    {"larder_janitor_readers_cleared", COUNTER, NULL, U64, AT(janitor.readers_cleared),
     "Reader slots of dead processes that were cleared."},
    {"larder_janitor_verified", COUNTER, NULL, U64, AT(janitor.verified),
     "Entries whose checksums were verified in the background."},
    {"larder_janitor_damaged", COUNTER, NULL, U64, AT(janitor.damaged),
     "Damaged entries that verification found."},
    {"larder_janitor_put_off", COUNTER, NULL, U64, AT(janitor.busy),
     "Steps put off because the write gate was held."},
    {"larder_janitor_errors", COUNTER, NULL, U64, AT(janitor.errors), "Steps that failed."},
    {"larder_web_requests", COUNTER, NULL, U64, AT(web.requests), "HTTP requests answered."},
    {"larder_web_refused", COUNTER, NULL, U64, AT(web.refused),
     "HTTP requests without the right token."},
    {"larder_web_errors", COUNTER, NULL, U64, AT(web.errors), "HTTP requests that were mistaken."},
    {"larder_web_connections", GAUGE, NULL, U64, AT(web.connections), "HTTP connections open."},
    {"larder_log_dropped_lines", COUNTER, NULL, U64, AT(log_dropped),
     "Lines not logged: over the rate limit, or standard error would not take them."},
    {"process_start_time_seconds", GAUGE, NULL, I64_MS, AT(started_ms),
     "When larderd was started, in seconds since the epoch."},
    {"process_cpu_seconds", COUNTER, NULL, I64_MS, AT(cpu_ms), "Processor time larderd used."},
    {"process_resident_memory_bytes", GAUGE, NULL, U64, AT(resident_bytes),
     "Resident memory of larderd, the touched part of the map included."},
};

#define OWN_ROWS (sizeof own_rows / sizeof *own_rows)

static metric_row rows[128];
static size_t row_count;

/* Put the table together; larderd has one thread. */
static void gather_rows(void)
{
    if (row_count > 0) {
        return;
    }
    for (size_t i = 0; i < figure_count; i++) {
        const struct figure *figure = &figures[i];
        if (figure->family == NULL) {
            continue;
        }
        rows[row_count++] = (metric_row){figure->family,
                                         figure->unit == FIGURE_COUNT ? COUNTER : GAUGE,
                                         figure->label,
                                         U64,
                                         AT(map) + figure->offset,
                                         figure_family_help(figure)};
        if (figure->offset == offsetof(larder_stats, hits)) {
            rows[row_count++] = (metric_row){figure->family,   COUNTER, "result=\"miss\"", U64,
                                             AT(other_misses), NULL};
        }
    }
    assert(row_count + OWN_ROWS <= sizeof rows / sizeof *rows);
    memcpy(rows + row_count, own_rows, sizeof own_rows);
    row_count += OWN_ROWS;
}

void metrics_complete(metrics_snapshot *snapshot)
{
    const larder_stats *map = &snapshot->map;
    uint64_t told = map->expired + map->read_busy + map->read_corrupt;
    snapshot->other_misses = map->misses > told ? map->misses - told : 0;
    snapshot->oldest_age_ms = 0;
    if (map->oldest_dirty_ms > 0 && snapshot->now_ms > map->oldest_dirty_ms) {
        snapshot->oldest_age_ms = snapshot->now_ms - map->oldest_dirty_ms;
    }
    snapshot->replicates_now = snapshot->replicates;
    snapshot->redis_up = snapshot->replicates && snapshot->redis.state == REPLICATOR_UP;
    snapshot->map_up = snapshot->map_fresh;
    snapshot->degraded_now = snapshot->degraded;

    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        snapshot->cpu_ms = (int64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
                           (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
    }
    char text[128] = "", *at = text;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file) {
        if (fgets(text, sizeof text, file)) {
            (void)strtoull(text, &at, 10); /* the whole size; the resident part comes second */
        }
        (void)fclose(file);
        snapshot->resident_bytes = strtoull(at, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
    }
}

static const char *suffix(const metric_row *row)
{
    return row->type == COUNTER ? "_total" : "";
}

static void write_states(const metric_row *row, const void *at, struct evbuffer *out)
{
    int now, last = row->source == STATE ? REPLICATOR_PARKED : REPLICATOR_BREAKER_HALF_OPEN;
    memcpy(&now, at, sizeof now); /* both enums are ints to the compiler */
    for (int i = 0; i <= last; i++) {
        const char *name = row->source == STATE
                               ? replicator_state_name((enum replicator_state)i)
                               : replicator_breaker_name((enum replicator_breaker)i);
        evbuffer_add_printf(out, "%s{%s\"%s\"} %d\n", row->family, row->label, name, i == now);
    }
}

_Static_assert(sizeof(enum replicator_state) == sizeof(int), "write_states copies an int");
_Static_assert(sizeof(enum replicator_breaker) == sizeof(int), "write_states copies an int");

static void write_sample(const metric_row *row, const void *at, struct evbuffer *out)
{
    uint64_t whole = 0;
    uint32_t narrow;
    int64_t time;
    evbuffer_add_printf(out, "%s%s", row->family, suffix(row));
    if (row->label) {
        evbuffer_add_printf(out, "{%s}", row->label);
    }
    switch (row->source) {
    case U32:
        memcpy(&narrow, at, sizeof narrow);
        evbuffer_add_printf(out, " %" PRIu32 "\n", narrow);
        break;
    case I64_MS:
        memcpy(&time, at, sizeof time);
        evbuffer_add_printf(out, " %.3f\n", (double)time / 1e3);
        break;
    case I64_US:
        memcpy(&time, at, sizeof time);
        evbuffer_add_printf(out, " %.6f\n", (double)time / 1e6);
        break;
    default:
        memcpy(&whole, at, sizeof whole);
        evbuffer_add_printf(out, " %" PRIu64 "\n", whole);
        break;
    }
}

static const char latency_family[] = "larder_call_seconds";
static const char latency_help[] =
    "How long sampled calls of all processes took: one lookup in 256, one write in 8.";

static const char *const latency_calls[] = {
    [LARDER_LATENCY_HIT] = "hit",     [LARDER_LATENCY_MISS] = "miss",
    [LARDER_LATENCY_SET] = "set",     [LARDER_LATENCY_DELETE] = "delete",
    [LARDER_LATENCY_FETCH] = "fetch",
};

enum { LATENCY_STEP = 8 }; /* buckets put together: bounds four times apart */

static void write_latencies(const metrics_snapshot *snapshot, struct evbuffer *out)
{
    evbuffer_add_printf(out, "# TYPE %s histogram\n# HELP %s %s\n", latency_family, latency_family,
                        latency_help);
    for (size_t kind = 0; kind < sizeof latency_calls / sizeof *latency_calls; kind++) {
        const larder_latency *latency = &snapshot->latencies[kind];
        const char *call = latency_calls[kind];
        uint64_t below = 0;
        for (size_t i = 0; i < LARDER_LATENCY_BUCKETS; i++) {
            below += latency->buckets[i];
            if ((i + 1) % LATENCY_STEP == 0 && i + 1 < LARDER_LATENCY_BUCKETS) {
                evbuffer_add_printf(out, "%s_bucket{call=\"%s\",le=\"%.9f\"} %" PRIu64 "\n",
                                    latency_family, call,
                                    (double)larder_latency_bound_ns(i + 1) / 1e9, below);
            }
        }
        evbuffer_add_printf(out,
                            "%s_bucket{call=\"%s\",le=\"+Inf\"} %" PRIu64 "\n"
                            "%s_count{call=\"%s\"} %" PRIu64 "\n%s_sum{call=\"%s\"} %.9f\n",
                            latency_family, call, below, latency_family, call, below,
                            latency_family, call, (double)latency->sum_ns / 1e9);
    }
}

void metrics_write(const metrics_snapshot *snapshot, struct evbuffer *out)
{
    gather_rows();
    const char *family = "";
    for (size_t i = 0; i < row_count; i++) {
        const metric_row *row = &rows[i];
        const void *at = (const char *)snapshot + row->offset;
        if (strcmp(family, row->family) != 0) {
            family = row->family;
            evbuffer_add_printf(out, "# TYPE %s %s\n# HELP %s %s\n", family,
                                row->type == COUNTER ? "counter" : "gauge", family, row->help);
        }
        if (row->source == STATE || row->source == BREAKER) {
            write_states(row, at, out);
        } else {
            write_sample(row, at, out);
        }
    }
    write_latencies(snapshot, out);
    /* Names are limited to [A-Za-z0-9._-], so the label needs no escaping. */
    evbuffer_add_printf(out,
                        "# TYPE larder_build info\n# HELP larder_build What runs.\n"
                        "larder_build_info{version=\"%s\",map=\"%s\"} 1\n# EOF\n",
                        larder_version_text(), snapshot->map_name);
}

void metrics_print_doc(FILE *out)
{
    gather_rows();
    const char *family = "";
    fputs("# Figures of larderd at /metrics\n\n"
          "Printed by `larderd --help-metrics` from the table that /metrics itself is made of.\n\n"
          "| name | type | meaning |\n|---|---|---|\n",
          out);
    for (size_t i = 0; i < row_count; i++) {
        const metric_row *row = &rows[i];
        if (strcmp(family, row->family) == 0) {
            continue;
        }
        family = row->family;
        fprintf(out, "| `%s%s", family, suffix(row));
        if (row->label && strchr(row->label, '"')) {
            fprintf(out, "{%.*s}", (int)strcspn(row->label, "\""), row->label);
        } else if (row->label) {
            fprintf(out, "{%s}", row->label);
        }
        fprintf(out, "` | %s | %s", row->type == COUNTER ? "counter" : "gauge", row->help);
        for (size_t j = i; j < row_count && strcmp(rows[j].family, family) == 0; j++) {
            if (rows[j].label && strchr(rows[j].label, '"')) {
                const char *value = strchr(rows[j].label, '"') + 1;
                fprintf(out, "%s`%.*s`", j == i ? " (" : ", ", (int)strlen(value) - 1, value);
                fputs(j + 1 == row_count || strcmp(rows[j + 1].family, family) != 0 ? ")" : "",
                      out);
            }
        }
        fputs(" |\n", out);
    }
    fprintf(out, "| `%s{call=}` | histogram | %s (`hit`, `miss`, `set`, `delete`, `fetch`) |\n",
            latency_family, latency_help);
    fputs("| `larder_build_info{version=,map=}` | info | What runs. |\n", out);
}
