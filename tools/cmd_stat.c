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
    UNIT_BOOL, /* of 32 bits */
    UNIT_SINCE /* a time in ms, 0: never; shown as its age */
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
    ROW(NULL, generation, UNIT_COUNT),
    ROW(NULL, processes, UNIT_COUNT),
    ROW("replication", replicates, UNIT_BOOL),
    ROW(NULL, redis_up, UNIT_BOOL),
    ROW(NULL, dirty, UNIT_COUNT),
    ROW(NULL, oldest_dirty_ms, UNIT_SINCE),
    ROW(NULL, daemon_heartbeat_ms, UNIT_SINCE),
};
enum { ROW_COUNT = sizeof rows / sizeof rows[0] };

/* The figure of a row; a time before 1970 counts as never. */
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

/* Hits in all lookups, 0 to 1; -1 where there were none. */
static double hit_ratio(const larder_stats *stats)
{
    double all = (double)stats->hits + (double)stats->misses + (double)stats->absent;
    return all > 0 ? (double)stats->hits / all : -1;
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
    uint64_t value = figure(stats, row);
    char text[OUTPUT_UNIT_SIZE];
    switch (row->unit) {
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

/* Figures that follow from others, behind the last row of their group. */
static void print_derived(const larder_stats *stats, const char *group)
{
    char text[OUTPUT_UNIT_SIZE];
    double ratio = -1;
    const char *name = NULL;
    if (group[0] == 'l') {
        name = "hit_ratio";
        ratio = hit_ratio(stats);
    } else if (group[0] == 's') {
        name = "used_share";
        ratio = stats->map_size > 0 ? (double)stats->used_bytes / (double)stats->map_size : -1;
    }
    if (name != NULL) {
        (void)snprintf(text, sizeof text, ratio < 0 ? "-" : "%.2f %%", ratio * 100);
        print_line(name, text);
    }
}

static void print_text(const struct tool *tool, const larder_stats *stats)
{
    int64_t now_ms = tool_now_ms();
    const char *group = NULL;
    (void)printf("map %s\n", tool->map);
    for (int i = 0; i < ROW_COUNT; i++) {
        if (rows[i].group != NULL) {
            group = rows[i].group;
            (void)printf("\n%s\n", group);
        }
        print_row(stats, &rows[i], now_ms);
        if (i + 1 == ROW_COUNT || rows[i + 1].group != NULL) {
            print_derived(stats, group);
        }
    }
}

static json_t *json_ratio(double ratio)
{
    return ratio < 0 ? json_null() : json_real(ratio);
}

static bool print_json(const struct tool *tool, const larder_stats *stats)
{
    struct document all = document_object();
    document_put(&all, "map", json_string(tool->map));
    struct document part = {NULL, false};
    for (int i = 0; i < ROW_COUNT; i++) {
        if (rows[i].group != NULL) {
            part = document_object();
            document_put(&all, rows[i].group, json_incref(part.root));
        }
        uint64_t value = figure(stats, &rows[i]);
        if (rows[i].unit == UNIT_BOOL) {
            document_put(&part, rows[i].name, json_boolean(value != 0));
        } else if (rows[i].unit == UNIT_SINCE && value == 0) {
            document_put(&part, rows[i].name, json_null());
        } else {
            document_count(&part, rows[i].name, value);
        }
        if (i + 1 == ROW_COUNT || rows[i + 1].group != NULL) {
            all.failed |= part.failed;
            json_decref(part.root);
        }
    }
    json_t *lookups = json_object_get(all.root, "lookups");
    all.failed |= json_object_set_new(lookups, "hit_ratio", json_ratio(hit_ratio(stats))) != 0;
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
