/* result.c: medians, ratios, the table and the figures: see result.h.
 */
#include "result.h"

#include <inttypes.h>
#include <string.h>

#include "bench/measure.h"

int result_peer(const struct result *result, const char *name)
{
    for (unsigned at = 0; at < result->peer_count; at++) {
        if (strcmp(result->peers[at], name) == 0)
            return (int)at;
    }
    return -1;
}

const struct result_size *result_size_of(const struct result *result, uint64_t entries,
                                         uint64_t value_size)
{
    for (unsigned at = 0; at < result->size_count; at++) {
        if (result->sizes[at].entries == entries && result->sizes[at].value_size == value_size)
            return &result->sizes[at];
    }
    return NULL;
}

const struct result_line *result_cell(const struct result_size *size,
                                      enum drive_operation operation, enum workload workload,
                                      unsigned processes)
{
    for (unsigned at = 0; size != NULL && at < size->cell_count; at++) {
        const struct drive_cell *cell = &size->cells[at];
        if (cell->operation == operation && cell->workload == workload &&
            cell->processes == processes)
            return size->lines[at];
    }
    return NULL;
}

static double field_of(const struct drive_figures *figures, size_t field)
{
    double value;
    memcpy(&value, (const char *)figures + field, sizeof value);
    return value;
}

double result_median(const struct result_line *line, size_t field)
{
    double values[RESULT_ROUNDS_MAX];
    if (line == NULL || line->rounds == 0)
        return -1;
    for (unsigned round = 0; round < line->rounds; round++)
        values[round] = field_of(&line->rounds_of[round], field);
    return measure_median(values, line->rounds);
}

double result_ratio(const struct result_line *line, const struct result_line *other, size_t field)
{
    double values[RESULT_ROUNDS_MAX];
    unsigned rounds = 0;
    for (; line != NULL && other != NULL && rounds < line->rounds && rounds < other->rounds;
         rounds++) {
        double below = field_of(&other->rounds_of[rounds], field);
        values[rounds] = below > 0 ? field_of(&line->rounds_of[rounds], field) / below : 0;
    }
    return rounds == 0 ? -1 : measure_median(values, rounds);
}

/* ---- The table ------------------------------------------------------------------------------ */

static void table_line(const struct result *result, const struct drive_cell *cell,
                       const struct result_line *lines, unsigned peer)
{
    int lmdb = result_peer(result, "lmdb");
    const struct result_line *line = &lines[peer];
    bool sets = cell->operation == DRIVE_SET;
    size_t p50 = sets ? RESULT_FIELD(set_p50) : RESULT_FIELD(get_p50);
    size_t p99 = sets ? RESULT_FIELD(set_p99) : RESULT_FIELD(get_p99);
    size_t p999 = sets ? RESULT_FIELD(set_p999) : RESULT_FIELD(get_p999);
    if (line->rounds == 0)
        return;
    printf("    %-14s %9.0f %9.2f %9.0f %9.0f %9.0f", result->peers[peer],
           result_median(line, RESULT_FIELD(mean_ns)),
           result_median(line, RESULT_FIELD(rate_per_s)) / 1e6, result_median(line, p50),
           result_median(line, p99), result_median(line, p999));
    if (lmdb >= 0)
        printf(" %8.2f", result_ratio(line, &lines[lmdb], RESULT_FIELD(rate_per_s)));
    else
        printf(" %8s", "-");
    double misses = result_median(line, RESULT_FIELD(miss_share));
    if (misses > 0)
        printf("  (misses %.2f %%)", 100 * misses);
    printf("\n");
}

static void table_size(const struct result *result, const struct result_size *size)
{
    printf("\n%" PRIu64 " entries of %" PRIu64 " bytes\n", size->entries, size->value_size);
    for (unsigned at = 0; at < result->peer_count; at++) {
        if (size->why[at][0] != '\0')
            printf("  not measured: %s: %s\n", result->peers[at], size->why[at]);
    }
    for (unsigned at = 0; at < size->cell_count; at++) {
        const struct drive_cell *cell = &size->cells[at];
        printf("  %s, %s, %u process%s%s\n", drive_operation_names[cell->operation],
               workload_names[cell->workload], cell->processes, cell->processes > 1 ? "es" : "",
               cell->operation == DRIVE_MIX ? " (percentiles of its gets)" : "");
        printf("    %-14s %9s %9s %9s %9s %9s %8s\n", "", "mean ns", "M/s", "p50", "p99", "p99.9",
               "x lmdb");
        for (unsigned peer = 0; peer < result->peer_count; peer++)
            table_line(result, cell, size->lines[at], peer);
    }
    printf("  bytes an entry takes, all told:");
    for (unsigned peer = 0; peer < result->peer_count; peer++) {
        if (size->entry_bytes[peer] > 0)
            printf(" %s %.0f", result->peers[peer], size->entry_bytes[peer]);
    }
    printf("\n");
}

void result_table(const struct result *result)
{
    printf("mean ns: of a call, from loops without a timer, their own cost taken off; M/s: million "
           "calls a second of all processes;\np50, p99, p99.9: ns, each call timed, the timer's "
           "median taken off, the worse process; x lmdb: median of the rounds' ratios of calls a "
           "second\n");
    for (unsigned at = 0; at < result->size_count; at++)
        table_size(result, &result->sizes[at]);
    printf("\n");
}

/* ---- Figures -------------------------------------------------------------------------------- */

static void figure(const char *base, const char *what, double value, const char *unit)
{
    char name[160];
    if (value < 0)
        return;
    snprintf(name, sizeof name, "%s_%s", base, what);
    for (char *at = name; *at != '\0'; at++) {
        if (*at == '-' || *at == '@')
            *at = '_';
    }
    test_figure(name, value, unit);
}

static void figures_of(const struct result *result, const struct result_size *size, unsigned at,
                       unsigned peer)
{
    const struct drive_cell *cell = &size->cells[at];
    const struct result_line *lines = size->lines[at], *line = &lines[peer];
    int lmdb = result_peer(result, "lmdb");
    char base[128];
    bool sets = cell->operation == DRIVE_SET;
    if (line->rounds == 0)
        return;
    snprintf(base, sizeof base, "peers_%s_%s_%s_%up_%s", size->name,
             drive_operation_names[cell->operation], workload_names[cell->workload],
             cell->processes, result->peers[peer]);
    figure(base, "mean", result_median(line, RESULT_FIELD(mean_ns)), "ns");
    figure(base, "rate", result_median(line, RESULT_FIELD(rate_per_s)), "1/s");
    figure(base, "p50", result_median(line, sets ? RESULT_FIELD(set_p50) : RESULT_FIELD(get_p50)),
           "ns");
    figure(base, "p99", result_median(line, sets ? RESULT_FIELD(set_p99) : RESULT_FIELD(get_p99)),
           "ns");
    figure(base, "p999",
           result_median(line, sets ? RESULT_FIELD(set_p999) : RESULT_FIELD(get_p999)), "ns");
    if (lmdb >= 0 && peer != (unsigned)lmdb)
        figure(base, "to_lmdb", result_ratio(line, &lines[lmdb], RESULT_FIELD(rate_per_s)),
               "ratio");
}

void result_figures(const struct result *result)
{
    char name[96];
    for (unsigned which = 0; which < result->size_count; which++) {
        const struct result_size *size = &result->sizes[which];
        for (unsigned at = 0; at < size->cell_count; at++) {
            for (unsigned peer = 0; peer < result->peer_count; peer++)
                figures_of(result, size, at, peer);
        }
        for (unsigned peer = 0; peer < result->peer_count; peer++) {
            snprintf(name, sizeof name, "peers_%s_%s", size->name, result->peers[peer]);
            if (size->entry_bytes[peer] > 0)
                figure(name, "entry", size->entry_bytes[peer], "B");
        }
    }
    for (unsigned peer = 0; peer < result->peer_count; peer++) {
        snprintf(name, sizeof name, "peers_%s", result->peers[peer]);
        if (result->timer_ns[peer] > 0) {
            figure(name, "empty_call", result->loop_ns[peer], "ns");
            figure(name, "empty_timed_call", result->timer_ns[peer], "ns");
        }
    }
}
