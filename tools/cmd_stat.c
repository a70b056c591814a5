/* cmd_stat.c: larder stat: the map's statistics in groups. One row a figure drives text and JSON; a
 * member added to larder_stats wants a row here and nothing else.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "tools/output.h"
#include "tools/tool.h"

enum unit {
    UNIT_COUNT,
    UNIT_BYTES,
    UNIT_BOOL,      /* of 32 bits */
    UNIT_SINCE,     /* a time in ms, 0: never; shown as its age */
    UNIT_HIT_RATIO, /* these two follow from others */
    UNIT_USED_SHARE
};

struct row {
    const char *group; /* NULL: the one before */
    const char *name;  /* in JSON; with spaces for underscores in text */
    enum unit unit;
    size_t offset; /* in larder_stats */
};

#define ROW(group, member, unit)                                                                   \
    {                                                                                              \
        group, #member, unit, offsetof(larder_stats, member)                                       \
    }

static const struct row rows[] = {
    ROW("lookups", hits, UNIT_COUNT),
    ROW(NULL, misses, UNIT_COUNT),
    ROW(NULL, absent, UNIT_COUNT),
    ROW(NULL, expired, UNIT_COUNT),
    ROW(NULL, read_busy, UNIT_COUNT),
    ROW(NULL, read_corrupt, UNIT_COUNT),
    {NULL, "hit_ratio", UNIT_HIT_RATIO, 0},
    ROW("writes", sets, UNIT_COUNT),
    ROW(NULL, deletes, UNIT_COUNT),
    ROW(NULL, touches, UNIT_COUNT),
    ROW(NULL, refused_busy, UNIT_COUNT),
    ROW(NULL, refused_full, UNIT_COUNT),
    ROW(NULL, refused_size, UNIT_COUNT),
    ROW("upkeep", evictions, UNIT_COUNT),
    ROW(NULL, expirations, UNIT_COUNT),
    ROW(NULL, pending_overflows, UNIT_COUNT),
    ROW(NULL, gate_recoveries, UNIT_COUNT),
    ROW(NULL, generations, UNIT_COUNT),
    ROW("contents", entries, UNIT_COUNT),
    ROW(NULL, tombstones, UNIT_COUNT),
    ROW(NULL, log_rows, UNIT_COUNT),
    ROW(NULL, pending, UNIT_COUNT),
    ROW("space", map_size, UNIT_BYTES),
    ROW(NULL, used_bytes, UNIT_BYTES),
    {NULL, "used_share", UNIT_USED_SHARE, 0},
    ROW(NULL, generation, UNIT_COUNT),
    ROW(NULL, processes, UNIT_COUNT),
    ROW("replication", replicates, UNIT_BOOL),
    ROW(NULL, redis_up, UNIT_BOOL),
    ROW(NULL, dirty, UNIT_COUNT),
    ROW(NULL, oldest_dirty_ms, UNIT_SINCE),
    ROW(NULL, daemon_heartbeat_ms, UNIT_SINCE),
};
enum { ROW_COUNT = sizeof rows / sizeof rows[0] };

/* The figure of a row that has an offset; a time before 1970 counts as never. */
static uint64_t figure(const larder_stats *stats, const struct row *row)
{
    const char *at = (const char *)stats + row->offset;
    if (row->unit == UNIT_BOOL) {
        return *(const uint32_t *)(const void *)at;
    }
    if (row->unit == UNIT_SINCE) {
        int64_t ms = *(const int64_t *)(const void *)at;
        return ms > 0 ? (uint64_t)ms : 0;
    }
    return *(const uint64_t *)(const void *)at;
}

static bool is_ratio(enum unit unit)
{
    return unit == UNIT_HIT_RATIO || unit == UNIT_USED_SHARE;
}

/* 0 to 1, or -1 where there is nothing to divide by. */
static double ratio(const larder_stats *stats, enum unit unit)
{
    double part = (double)(unit == UNIT_HIT_RATIO ? stats->hits : stats->used_bytes);
    double whole = unit == UNIT_HIT_RATIO
                       ? (double)stats->hits + (double)stats->misses + (double)stats->absent
                       : (double)stats->map_size;
    return whole > 0 ? part / whole : -1;
}

static void print_line(const char *name, const char *value)
{
    (void)printf("  ");
    for (const char *at = name; *at != '\0'; at++) {
        (void)putchar(*at == '_' ? ' ' : *at);
    }
    (void)printf("%*s\n", 44 - (int)strlen(name), value);
}

static void print_row(const larder_stats *stats, const struct row *row, int64_t now_ms)
{
    char text[OUTPUT_UNIT_SIZE];
    uint64_t value = is_ratio(row->unit) ? 0 : figure(stats, row);
    double share = is_ratio(row->unit) ? ratio(stats, row->unit) : 0;
    switch (row->unit) {
    case UNIT_HIT_RATIO:
    case UNIT_USED_SHARE:
        (void)snprintf(text, sizeof text, share < 0 ? "-" : "%.2f %%", share * 100);
        break;
    case UNIT_BYTES:
        (void)output_bytes(text, value);
        break;
    case UNIT_BOOL:
        (void)snprintf(text, sizeof text, "%s", value != 0 ? "yes" : "no");
        break;
    case UNIT_SINCE:
        if (value == 0) {
            (void)snprintf(text, sizeof text, "-");
        } else {
            int64_t age = now_ms - (int64_t)value;
            char age_text[OUTPUT_UNIT_SIZE];
            (void)snprintf(text, sizeof text, "%.20s ago",
                           output_duration(age_text, age > 0 ? age : 0));
        }
        break;
    case UNIT_COUNT:
    default:
        (void)snprintf(text, sizeof text, "%" PRIu64, value);
        break;
    }
    /* "_ms" is the unit of the JSON figure alone */
    int length = (int)strlen(row->name) - (row->unit == UNIT_SINCE ? (int)strlen("_ms") : 0);
    char name[64];
    (void)snprintf(name, sizeof name, "%.*s", length, row->name);
    print_line(name, text);
}

static void print_text(const struct tool *tool, const larder_stats *stats)
{
    int64_t now_ms = tool_now_ms();
    (void)printf("map %s\n", tool->map);
    for (int i = 0; i < ROW_COUNT; i++) {
        if (rows[i].group != NULL) {
            (void)printf("\n%s\n", rows[i].group);
        }
        print_row(stats, &rows[i], now_ms);
    }
}

static json_t *json_figure(const larder_stats *stats, const struct row *row)
{
    if (is_ratio(row->unit)) {
        double value = ratio(stats, row->unit);
        return value < 0 ? json_null() : json_real(value);
    }
    uint64_t value = figure(stats, row);
    if (row->unit == UNIT_BOOL) {
        return json_boolean(value != 0);
    }
    if (row->unit == UNIT_SINCE && value == 0) {
        return json_null();
    }
    return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

static bool print_json(const struct tool *tool, const larder_stats *stats)
{
    struct document all = document_object();
    struct document group = {NULL, false}; /* a member of all, which owns it */
    document_put(&all, "map", json_string(tool->map));
    for (int i = 0; i < ROW_COUNT; i++) {
        if (rows[i].group != NULL) {
            group.root = json_object();
            document_put(&all, rows[i].group, group.root);
            group.root = all.failed ? NULL : group.root; /* a failure releases it */
        }
        document_put(&group, rows[i].name, json_figure(stats, &rows[i]));
    }
    all.failed |= group.failed;
    return output_document(&all);
}

int cmd_stat(struct tool *tool)
{
    larder_stats stats = {0};
    int code = larder_stats_read(tool->handle, &stats, sizeof stats);
    if (code < 0) {
        return tool_fail(tool, code, NULL);
    }
    if (tool->json) {
        return print_json(tool, &stats) ? TOOL_OK : TOOL_FAILED;
    }
    print_text(tool, &stats);
    return TOOL_OK;
}
