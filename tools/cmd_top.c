/* cmd_top.c: larder top: what goes on in a map right now: rates, latencies, and the keys that are
 * asked for most, from sampled lookups. Plain text that is printed again each interval; on a
 * terminal in the same place.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "inspect.h"
#include "tools/output.h"
#include "tools/tool.h"

enum { KEYS_SHOWN = 20, INTERVAL_MS = 2000, LATENCIES = LARDER_LATENCY_FETCH + 1 };

static const char *const calls[LATENCIES] = {
    [LARDER_LATENCY_HIT] = "hit",     [LARDER_LATENCY_MISS] = "miss",
    [LARDER_LATENCY_SET] = "set",     [LARDER_LATENCY_DELETE] = "delete",
    [LARDER_LATENCY_FETCH] = "fetch",
};

struct reading {
    int64_t at_ms;
    larder_stats stats;
    larder_latency latencies[LATENCIES];
    struct hot_key keys[HOT_KEYS_SLOTS];
    size_t key_count;
    uint64_t samples; /* that the keys' counts are parts of */
};

static int take(struct tool *tool, struct reading *reading)
{
    int code = larder_stats_read(tool->handle, &reading->stats, sizeof reading->stats);
    for (uint32_t i = 0; i < LATENCIES && code >= 0; i++) {
        code = larder_latency_read(tool->handle, i, &reading->latencies[i],
                                   sizeof reading->latencies[i]);
    }
    reading->at_ms = tool_now_ms();
    reading->key_count =
        inspect_hot_keys(tool->handle, reading->keys, HOT_KEYS_SLOTS, &reading->samples);
    return code;
}

static uint64_t lookups(const larder_stats *stats)
{
    return stats->hits + stats->misses + stats->absent + stats->stale;
}

/* A second; -1 where there is nothing to compare with. */
static double rate(const struct reading *before, const struct reading *now, uint64_t was,
                   uint64_t is)
{
    double seconds = before == NULL ? 0 : (double)(now->at_ms - before->at_ms) / 1000;
    return seconds > 0 && is >= was ? (double)(is - was) / seconds : -1;
}

#define RATE(before, now, figure)                                                                  \
    rate(before, now, (before) == NULL ? 0 : (before)->stats.figure, (now)->stats.figure)

static double lookup_rate(const struct reading *before, const struct reading *now)
{
    return rate(before, now, before == NULL ? 0 : lookups(&before->stats), lookups(&now->stats));
}

static double part(uint64_t one, uint64_t whole)
{
    return whole > 0 ? (double)one / (double)whole : -1;
}

/* The size of the value as it stands; -1 where it is not there or the key is not known in full. */
static int64_t size_of(const struct tool *tool, const struct hot_key *key)
{
    static const larder_read peek = {.flags = LARDER_PEEK};
    larder_info info = {0};
    if (key->kept < key->key_size) {
        return -1;
    }
    int code = larder_get_with(tool->handle, key->key, key->key_size, NULL, 0, &info, &peek);
    return code == LARDER_OK || code == LARDER_ESIZE ? (int64_t)info.size : -1;
}

static const char *number(char text[OUTPUT_UNIT_SIZE], double value, int digits, const char *unit)
{
    if (value < 0) {
        return "-";
    }
    (void)snprintf(text, OUTPUT_UNIT_SIZE, "%.*f%s", digits, value, unit);
    return text;
}

static void print_head(const struct tool *tool, const struct reading *before,
                       const struct reading *now)
{
    char a[OUTPUT_UNIT_SIZE], b[OUTPUT_UNIT_SIZE], c[OUTPUT_UNIT_SIZE], d[OUTPUT_UNIT_SIZE];
    const larder_stats *stats = &now->stats;
    uint64_t all = lookups(stats);
    (void)printf("map %s: %" PRIu64 " entries, %s of %s used, %" PRIu64 " processes\n", tool->map,
                 stats->entries, output_bytes(a, stats->used_bytes),
                 output_bytes(b, stats->map_size), stats->processes);
    (void)printf("a second: lookups %s, sets %s, deletes %s, evictions %s\n",
                 number(a, lookup_rate(before, now), 0, ""),
                 number(b, RATE(before, now, sets), 0, ""),
                 number(c, RATE(before, now, deletes), 0, ""),
                 number(d, RATE(before, now, evictions), 0, ""));
    (void)printf("hits %s, of them from the hot set %s\n",
                 number(a, 100 * part(stats->hits, all), 2, " %"),
                 number(b, 100 * part(stats->hot_hits, stats->hits + stats->absent), 2, " %"));
    for (int i = 0; i < LATENCIES; i++) {
        const larder_latency *latency = &now->latencies[i];
        if (latency->count > 0) {
            (void)printf("%s us: p50 %.2f, p99 %.2f, p99.9 %.2f\n", calls[i],
                         (double)latency->p50_ns / 1000, (double)latency->p99_ns / 1000,
                         (double)latency->p999_ns / 1000);
        }
    }
}

static size_t shown(const struct tool *tool, const struct reading *now)
{
    size_t most = tool->limit != 0 ? (size_t)tool->limit : KEYS_SHOWN;
    return now->key_count < most ? now->key_count : most;
}

static void print_text(const struct tool *tool, const struct reading *before,
                       const struct reading *now)
{
    print_head(tool, before, now);
    double all = lookup_rate(before, now);
    (void)printf("\n%8s %8s %10s %12s  %s\n", "share", "hits", "a second", "bytes", "key");
    for (size_t i = 0; i < shown(tool, now); i++) {
        const struct hot_key *key = &now->keys[i];
        char a[OUTPUT_UNIT_SIZE], b[OUTPUT_UNIT_SIZE], c[OUTPUT_UNIT_SIZE], d[OUTPUT_UNIT_SIZE];
        double share = part(key->count, now->samples);
        (void)printf("%8s %8s %10s %12s  ", number(a, 100 * share, 2, " %"),
                     number(b, 100 * part(key->hits, key->count), 0, " %"),
                     number(c, all < 0 ? -1 : all * share, 0, ""),
                     number(d, (double)size_of(tool, key), 0, ""));
        output_key((larder_bytes){key->key, key->kept}, tool->hex);
        (void)printf("%s\n", key->kept < key->key_size ? "..." : "");
    }
}

static json_t *real_or_null(double value)
{
    return value < 0 ? json_null() : json_real(value);
}

static bool print_json(const struct tool *tool, const struct reading *before,
                       const struct reading *now)
{
    struct document all = document_object(), latencies = document_object();
    json_t *keys = json_array();
    double rate_of_all = lookup_rate(before, now);
    document_put(&all, "map", json_string(tool->map));
    document_put(&all, "lookups_per_s", real_or_null(rate_of_all));
    document_put(&all, "sets_per_s", real_or_null(RATE(before, now, sets)));
    document_put(&all, "deletes_per_s", real_or_null(RATE(before, now, deletes)));
    document_put(&all, "evictions_per_s", real_or_null(RATE(before, now, evictions)));
    document_put(&all, "hit_ratio", real_or_null(part(now->stats.hits, lookups(&now->stats))));
    for (int i = 0; i < LATENCIES; i++) {
        const larder_latency *latency = &now->latencies[i];
        struct document call = document_object();
        document_count(&call, "sampled", latency->count);
        document_count(&call, "p50_ns", latency->p50_ns);
        document_count(&call, "p99_ns", latency->p99_ns);
        document_count(&call, "p999_ns", latency->p999_ns);
        latencies.failed |= call.failed;
        document_put(&latencies, calls[i], call.root);
    }
    all.failed |= latencies.failed;
    document_put(&all, "latency", latencies.root);
    for (size_t i = 0; i < shown(tool, now); i++) {
        const struct hot_key *key = &now->keys[i];
        struct document row = document_object();
        double share = part(key->count, now->samples);
        int64_t size = size_of(tool, key);
        document_key(&row, (larder_bytes){key->key, key->kept}, tool->hex);
        document_count(&row, "key_size", key->key_size);
        document_put(&row, "share", real_or_null(share));
        document_put(&row, "hit_ratio", real_or_null(part(key->hits, key->count)));
        document_put(&row, "per_s", real_or_null(rate_of_all < 0 ? -1 : rate_of_all * share));
        document_put(&row, "size", size < 0 ? json_null() : json_integer((json_int_t)size));
        all.failed |= row.failed || json_array_append_new(keys, row.root) != 0;
    }
    document_put(&all, "keys", keys);
    return output_document(&all);
}

static void pause_ms(int64_t ms)
{
    struct timespec wait = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    (void)nanosleep(&wait, NULL);
}

/* One screen after the other; with --once one, and with an interval given its rates are of that. */
static int show(struct tool *tool, struct reading *readings)
{
    bool clear = !tool->once && !tool->json && isatty(STDOUT_FILENO) == 1;
    int64_t interval = tool->interval_ms != 0 ? tool->interval_ms : INTERVAL_MS;
    struct reading *before = NULL, *now = &readings[0];
    int code = take(tool, now);
    if (tool->once && tool->interval_ms != 0 && code >= 0) {
        pause_ms(interval);
        before = now;
        now = &readings[1];
        code = take(tool, now);
    }
    while (code >= 0) {
        bool printed = true;
        if (tool->json) {
            printed = print_json(tool, before, now);
        } else {
            (void)printf("%s", clear ? "\033[H\033[2J" : "");
            print_text(tool, before, now);
        }
        (void)fflush(stdout);
        if (!printed || output_failed()) {
            return TOOL_FAILED;
        }
        if (tool->once) {
            return TOOL_OK;
        }
        pause_ms(interval);
        before = now;
        now = now == &readings[0] ? &readings[1] : &readings[0];
        code = take(tool, now);
        if (!clear && !tool->json) {
            (void)printf("\n");
        }
    }
    return tool_fail(tool, code, NULL);
}

int cmd_top(struct tool *tool)
{
    struct reading *readings = calloc(2, sizeof *readings);
    if (readings == NULL) {
        output_error("top: out of memory");
        return TOOL_FAILED;
    }
    int result = show(tool, readings);
    free(readings);
    return result;
}
