/* bars.c: the bars that the library is held to, each with its figure, met or missed: see result.h.
 * A bar whose cells were not run, or whose peer is not there, is said to be unmeasured, never met.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "bench/measure.h"
#include "result.h"

enum { BARS_MAX = 48 };

static struct bar {
    char name[80];
    double figure, limit;
    const char *unit;
    bool at_least, measured, met;
} bars[BARS_MAX];
static unsigned bar_count;

/* figure < 0: unmeasured. */
static void bar(double figure, bool at_least, double limit, const char *unit, const char *format,
                ...) __attribute__((format(printf, 5, 6)));

static void bar(double figure, bool at_least, double limit, const char *unit, const char *format,
                ...)
{
    va_list arguments;
    test_check(bar_count < BARS_MAX, "too many bars");
    struct bar *next = &bars[bar_count++];
    va_start(arguments, format);
    vsnprintf(next->name, sizeof next->name, format, arguments);
    va_end(arguments);
    next->figure = figure;
    next->limit = limit;
    next->unit = unit;
    next->at_least = at_least;
    next->measured = figure >= 0;
    next->met = next->measured && (at_least ? figure >= limit : figure <= limit);
}

/* A peer's line in a cell; NULL: not run. */
static const struct result_line *line(const struct result *result, const struct result_size *size,
                                      enum drive_operation operation, enum workload workload,
                                      unsigned processes, const char *peer)
{
    const struct result_line *lines = result_cell(size, operation, workload, processes);
    int at = result_peer(result, peer);
    return lines == NULL || at < 0 || lines[at].rounds == 0 ? NULL : &lines[at];
}

/* How many times as many calls a second. */
static double times(const struct result_line *one, const struct result_line *other)
{
    return result_ratio(one, other, RESULT_FIELD(rate_per_s));
}

static void against_all(const struct result *result, const struct result_size *size,
                        enum drive_operation operation, unsigned processes,
                        const char *const *names, const char *bar_name)
{
    for (; *names != NULL; names++) {
        bar(times(line(result, size, operation, WORKLOAD_ZIPF, processes, "larder"),
                  line(result, size, operation, WORKLOAD_ZIPF, processes, *names)),
            true, 1.0, "ratio", "%s_to_%s", bar_name, *names);
    }
}

static void hits(const struct result *result)
{
    static const char *const peers[] = {"tdb", "apcu", "yac", "uwsgi", "memcached", "redis", NULL};
    const struct result_size *million = result_size_of(result, 1000000, 100);
    const struct result_size *small = result_size_of(result, 100000, 100);
    const struct result_size *large = result_size_of(result, 10000, 16384);
    const struct result_line *one = line(result, million, DRIVE_GET, WORKLOAD_ZIPF, 1, "larder");
    bar(times(one, line(result, million, DRIVE_GET, WORKLOAD_ZIPF, 1, "lmdb")), true, 2.5, "ratio",
        "hit_1m_zipf_to_lmdb");
    against_all(result, million, DRIVE_GET, 1, peers, "hit_1m_zipf");
    bar(result_median(one, RESULT_FIELD(get_p99)), false, 1000, "ns", "hit_1m_zipf_p99");
    bar(times(line(result, million, DRIVE_GET, WORKLOAD_ZIPF, 2, "larder"), one), true, 1.9,
        "ratio", "hit_1m_zipf_2_processes_to_1");
    bar(times(line(result, million, DRIVE_GET, WORKLOAD_UNIFORM, 1, "larder"),
              line(result, million, DRIVE_GET, WORKLOAD_UNIFORM, 1, "lmdb")),
        true, 1.5, "ratio", "hit_1m_uniform_to_lmdb");
    bar(times(line(result, small, DRIVE_GET, WORKLOAD_ZIPF, 1, "larder"),
              line(result, small, DRIVE_GET, WORKLOAD_ZIPF, 1, "lmdb")),
        true, 2.5, "ratio", "hit_100k_zipf_to_lmdb");
    bar(times(line(result, large, DRIVE_GET, WORKLOAD_ZIPF, 1, "larder"),
              line(result, large, DRIVE_GET, WORKLOAD_ZIPF, 1, "lmdb")),
        true, 0.9, "ratio", "hit_16k_zipf_to_lmdb");
    bar(result_ratio(line(result, million, DRIVE_GET, WORKLOAD_UNIFORM, 1, "larder-cold"),
                     line(result, million, DRIVE_GET, WORKLOAD_UNIFORM, 1, "lmdb"),
                     RESULT_FIELD(mean_ns)),
        false, 1.2, "ratio", "never_hot_1m_uniform_time_to_lmdb");
}

static void writes(const struct result *result, const struct result_size *size, const char *name)
{
    static const char *const peers[] = {"apcu", "yac", "uwsgi", NULL};
    char mix[40];
    const struct result_line *one = line(result, size, DRIVE_SET, WORKLOAD_ZIPF, 1, "larder");
    const struct result_line *two = line(result, size, DRIVE_SET, WORKLOAD_ZIPF, 2, "larder");
    const struct result_line *mixed = line(result, size, DRIVE_MIX, WORKLOAD_ZIPF, 2, "larder");
    bar(times(one, line(result, size, DRIVE_SET, WORKLOAD_ZIPF, 1, "lmdb")), true, 0.75, "ratio",
        "set_%s_to_lmdb", name);
    bar(times(two, one), true, 1.0, "ratio", "set_%s_2_processes_to_1", name);
    bar(times(two, line(result, size, DRIVE_SET, WORKLOAD_ZIPF, 2, "lmdb")), true, 1.5, "ratio",
        "set_%s_2_processes_to_lmdb", name);
    bar(result_median(two, RESULT_FIELD(set_p99)), false, 20000, "ns", "set_%s_2_processes_p99",
        name);
    bar(times(mixed, line(result, size, DRIVE_MIX, WORKLOAD_ZIPF, 2, "lmdb")), true, 2.5, "ratio",
        "mix_%s_2_processes_to_lmdb", name);
    snprintf(mix, sizeof mix, "mix_%s_2_processes", name);
    against_all(result, size, DRIVE_MIX, 2, peers, mix);
    bar(result_median(mixed, RESULT_FIELD(get_p99)), false, 1500, "ns",
        "mix_%s_2_processes_get_p99", name);
}

static void memory(const struct result *result)
{
    const struct result_size *million = result_size_of(result, 1000000, 100);
    int larder = result_peer(result, "larder"), lmdb = result_peer(result, "lmdb");
    double ratio = -1;
    if (million != NULL && larder >= 0 && lmdb >= 0 && million->entry_bytes[lmdb] > 0)
        ratio = million->entry_bytes[larder] / million->entry_bytes[lmdb];
    bar(ratio, false, 1.4, "ratio", "memory_1m_to_lmdb");
}

/* No bars: for the reader. */
static void distances(const struct result *result, const struct result_size *size, const char *name)
{
    char figure[80];
    double ratio = times(line(result, size, DRIVE_MIX, WORKLOAD_ZIPF, 2, "larder"),
                         line(result, size, DRIVE_MIX, WORKLOAD_ZIPF, 2, "tdb"));
    snprintf(figure, sizeof figure, "distance_mix_%s_2_processes_to_tdb", name);
    if (ratio >= 0)
        test_figure(figure, ratio, "ratio");
}

unsigned result_bars(const struct result *result)
{
    unsigned missed = 0, unmeasured = 0;
    bar_count = 0;
    hits(result);
    writes(result, result_size_of(result, 1000000, 100), "1m");
    writes(result, result_size_of(result, 100000, 100), "100k");
    memory(result);
    printf("%-44s %12s %12s\n", "bar", "limit", "figure");
    for (unsigned at = 0; at < bar_count; at++) {
        const struct bar *one = &bars[at];
        missed += one->measured && !one->met;
        unmeasured += !one->measured;
        printf("%-44s %s %9.2f ", one->name, one->at_least ? ">=" : "<=", one->limit);
        if (one->measured)
            printf("%12.3f  %s\n", one->figure, one->met ? "met" : "MISSED");
        else
            printf("%12s  unmeasured\n", "-");
    }
    printf("\n");
    for (unsigned at = 0; at < bar_count; at++) {
        char name[100];
        snprintf(name, sizeof name, "bar_%.79s", bars[at].name);
        if (bars[at].measured)
            test_figure(name, bars[at].figure, bars[at].unit);
    }
    distances(result, result_size_of(result, 1000000, 100), "1m");
    distances(result, result_size_of(result, 100000, 100), "100k");
    test_figure("bars_met", bar_count - missed - unmeasured, "count");
    test_figure("bars_missed", missed, "count");
    test_figure("bars_unmeasured", unmeasured, "count");
    return missed;
}
