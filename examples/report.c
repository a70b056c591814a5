/* report.c: see report.h. The demo calls this; nothing here measures or decides.
 */
#include "examples/report.h"

#include <inttypes.h>
#include <langinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPARK_WIDTH 60
#define SERIES_WIDTH 12

static const char *const phase_titles[REPLAY_PHASES] = {"before", "Redis down", "after"};

static double percent(uint64_t part, uint64_t whole)
{
    return whole == 0 ? 0.0 : 100.0 * (double)part / (double)whole;
}

void report_progress(const report_line *line, bool terminal)
{
    printf("%s%5.1f s  %-10s  %5zu of %zu requests  %4.0f/s  hits %4.1f %%  errors %" PRIu64
           "  outbox %4" PRIu64 "  redis %s%s",
           terminal ? "\r\033[K" : "", line->elapsed_s, line->phase, line->answered, line->requests,
           line->rate, percent(line->counts.hits, line->counts.hits + line->counts.misses),
           line->counts.errors, line->outbox, line->redis_up ? "up" : "DOWN", terminal ? "" : "\n");
    fflush(stdout);
}

/* ---- Latencies ------------------------------------------------------------------------------ */

static int latency_order(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

/* The nearest-rank percentile in ms of sorted latencies in us. */
static double rank(const uint32_t *sorted, size_t count, unsigned per_cent)
{
    size_t at = (count * per_cent + 99) / 100;
    return (double)sorted[at == 0 ? 0 : at - 1] / 1000.0;
}

/* "p50 / p99" of the requests of a phase with this outcome, or "-" where there was none. */
static void latency_text(const report_facts *facts, unsigned phase, enum replay_outcome outcome,
                         char *out, size_t size)
{
    const replay_sample *samples = replay_samples(facts->replay);
    uint32_t *latencies = calloc(facts->requests, sizeof *latencies);
    size_t count = 0;
    for (size_t i = 0; latencies != NULL && i < facts->requests; i++)
        if (samples[i].phase == phase && samples[i].outcome == outcome)
            latencies[count++] = samples[i].latency_us;
    if (count == 0) {
        snprintf(out, size, "-");
    } else {
        qsort(latencies, count, sizeof *latencies, latency_order);
        snprintf(out, size, "%.2f / %.2f", rank(latencies, count, 50), rank(latencies, count, 99));
    }
    free(latencies);
}

static void row_begin(const char *title)
{
    printf("  %-26s", title);
}

static void phases_print(const report_facts *facts)
{
    replay_counts total, phases[REPLAY_PHASES];
    char text[64];
    replay_read(facts->replay, &total, phases);
    row_begin("");
    for (unsigned i = 0; i < REPLAY_PHASES; i++)
        printf("%18s", phase_titles[i]);
    printf("%12s\n", "all");
    row_begin("requests");
    for (unsigned i = 0; i < REPLAY_PHASES; i++)
        printf("%18" PRIu64,
               phases[i].hits + phases[i].misses + phases[i].bypasses + phases[i].errors);
    printf("%12zu\n", replay_answered(facts->replay));
    row_begin("hit ratio, %");
    for (unsigned i = 0; i < REPLAY_PHASES; i++)
        printf("%18.1f", percent(phases[i].hits, phases[i].hits + phases[i].misses));
    printf("%12.1f\n", percent(total.hits, total.hits + total.misses));
    row_begin("hit, p50 / p99 in ms");
    for (unsigned i = 0; i < REPLAY_PHASES; i++) {
        latency_text(facts, i, REPLAY_HIT, text, sizeof text);
        printf("%18s", text);
    }
    printf("\n");
    row_begin("miss, p50 / p99 in ms");
    for (unsigned i = 0; i < REPLAY_PHASES; i++) {
        latency_text(facts, i, REPLAY_MISS, text, sizeof text);
        printf("%18s", text);
    }
    printf("\n");
    row_begin("errors");
    for (unsigned i = 0; i < REPLAY_PHASES; i++)
        printf("%18" PRIu64, phases[i].errors);
    printf("%12" PRIu64 "\n", total.errors);
}

static void workers_print(const report_facts *facts)
{
    const replay_sample *samples = replay_samples(facts->replay);
    printf("\n  %-10s%12s%14s\n", "worker", "requests", "hit ratio, %");
    for (unsigned worker = 1; worker <= facts->workers; worker++) {
        uint64_t hits = 0, misses = 0, all = 0;
        for (size_t i = 0; i < facts->requests; i++) {
            if (samples[i].worker != worker)
                continue;
            all++;
            hits += samples[i].outcome == REPLAY_HIT;
            misses += samples[i].outcome == REPLAY_MISS;
        }
        printf("  %-10u%12" PRIu64 "%14.1f\n", worker, all, percent(hits, hits + misses));
    }
}

/* ---- The queue ------------------------------------------------------------------------------ */

/* The highest of the samples that fall to column AT of WIDTH. */
static uint64_t column(const report_facts *facts, size_t at, size_t width)
{
    size_t first = facts->outbox_count * at / width, end = facts->outbox_count * (at + 1) / width;
    uint64_t highest = 0;
    for (size_t i = first; i < end || i == first; i++)
        if (facts->outbox[i] > highest)
            highest = facts->outbox[i];
    return highest;
}

static void outbox_print(const report_facts *facts)
{
    static const char *const bars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    static const char *const plain[] = {"_", ".", ":", "-", "=", "+", "*", "#"};
    const char *const *levels = strcmp(nl_langinfo(CODESET), "UTF-8") == 0 ? bars : plain;
    uint64_t peak = 0;
    if (facts->outbox_count == 0)
        return;
    for (size_t i = 0; i < facts->outbox_count; i++)
        if (facts->outbox[i] > peak)
            peak = facts->outbox[i];
    size_t width = facts->outbox_count < SPARK_WIDTH ? facts->outbox_count : SPARK_WIDTH;
    printf("\n  outbox: writes that Redis has not acknowledged (peak %" PRIu64 ")\n  ", peak);
    for (size_t i = 0; i < width; i++) {
        uint64_t value = column(facts, i, width);
        size_t level = peak == 0 ? 0 : (size_t)((value * 7 + peak - 1) / peak);
        printf("%s", levels[level]);
    }
    printf("\n ");
    width = facts->outbox_count < SERIES_WIDTH ? facts->outbox_count : SERIES_WIDTH;
    for (size_t i = 0; i < width; i++)
        printf(" %" PRIu64, column(facts, i, width));
    printf("   (highest in each of %zu stretches of %.1f s)\n", width,
           (double)facts->outbox_count * (double)facts->outbox_every_ms / 1000.0 / (double)width);
}

static void outage_print(const report_facts *facts)
{
    if (facts->killed_s < 0)
        return;
    printf("\n  Redis: killed (SIGKILL) at %.1f s", facts->killed_s);
    if (facts->answered_s >= 0)
        printf(", back, empty, at %.1f s", facts->answered_s);
    printf("\n");
    if (facts->drained_s >= 0)
        printf("  outbox drained %.2f s after that\n", facts->drained_s - facts->answered_s);
    if (facts->refilled_s >= 0)
        printf("  Redis had every entry of the map again %.2f s after that\n",
               facts->refilled_s - facts->answered_s);
}

void report_summary(const report_facts *facts)
{
    printf("\n  %zu requests of %s in %.1f s (%.0f/s) from %u clients to %u workers\n\n",
           facts->requests, facts->log_name, facts->elapsed_s,
           (double)facts->requests / facts->elapsed_s, facts->clients, facts->workers);
    phases_print(facts);
    workers_print(facts);
    outbox_print(facts);
    outage_print(facts);
    printf("\n  map: %" PRIu64 " entries, %.1f of %.0f MiB; %" PRIu64 " expired, %" PRIu64
           " evicted, %" PRIu64 " writes refused\n",
           facts->stats.entries, (double)facts->stats.used_bytes / 1048576.0,
           (double)facts->stats.map_size / 1048576.0, facts->stats.expirations,
           facts->stats.evictions,
           facts->stats.refused_busy + facts->stats.refused_full + facts->stats.refused_size);
    printf("  map against Redis: %s\n", facts->compared[0] == '\0' ? "not done" : facts->compared);
}
