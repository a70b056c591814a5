/* cmd_stat.c: larder stat: the map's statistics in groups, as lib/figures.c names them.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "figures.h"
#include "tools/output.h"
#include "tools/tool.h"

static void print_line(const char *name, const char *value)
{
    (void)printf("  ");
    for (const char *at = name; *at != '\0'; at++) {
        (void)putchar(*at == '_' ? ' ' : *at);
    }
    (void)printf("%*s\n", 44 - (int)strlen(name), value);
}

static void print_row(const larder_stats *stats, const struct figure *row, int64_t now_ms)
{
    char text[OUTPUT_UNIT_SIZE];
    uint64_t value = row->unit == FIGURE_RATIO ? 0 : figure_value(stats, row);
    double share = row->unit == FIGURE_RATIO ? figure_ratio(stats, row) : 0;
    switch (row->unit) {
    case FIGURE_RATIO:
        (void)snprintf(text, sizeof text, share < 0 ? "-" : "%.2f %%", share * 100);
        break;
    case FIGURE_BYTES:
        (void)output_bytes(text, value);
        break;
    case FIGURE_BOOL:
        (void)snprintf(text, sizeof text, "%s", value != 0 ? "yes" : "no");
        break;
    case FIGURE_SINCE:
        if (value == 0) {
            (void)snprintf(text, sizeof text, "-");
        } else {
            int64_t age = now_ms - (int64_t)value;
            char age_text[OUTPUT_UNIT_SIZE];
            (void)snprintf(text, sizeof text, "%.20s ago",
                           output_duration(age_text, age > 0 ? age : 0));
        }
        break;
    case FIGURE_COUNT:
    case FIGURE_NOW:
    default:
        (void)snprintf(text, sizeof text, "%" PRIu64, value);
        break;
    }
    /* "_ms" is the unit of the JSON figure alone */
    int length = (int)strlen(row->name) - (row->unit == FIGURE_SINCE ? (int)strlen("_ms") : 0);
    char name[64];
    (void)snprintf(name, sizeof name, "%.*s", length, row->name);
    print_line(name, text);
}

static void print_text(const struct tool *tool, const larder_stats *stats)
{
    int64_t now_ms = tool_now_ms();
    (void)printf("map %s\n", tool->map);
    const char *group = "";
    for (size_t i = 0; i < figure_count; i++) {
        const struct figure *row = &figures[i];
        if (row->group == NULL) {
            continue;
        }
        if (strcmp(row->group, group) != 0) {
            group = row->group;
            (void)printf("\n%s\n", group);
        }
        print_row(stats, row, now_ms);
    }
}

static json_t *json_figure(const larder_stats *stats, const struct figure *row)
{
    if (row->unit == FIGURE_RATIO) {
        double value = figure_ratio(stats, row);
        return value < 0 ? json_null() : json_real(value);
    }
    uint64_t value = figure_value(stats, row);
    if (row->unit == FIGURE_BOOL) {
        return json_boolean(value != 0);
    }
    if (row->unit == FIGURE_SINCE && value == 0) {
        return json_null();
    }
    return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

static bool print_json(const struct tool *tool, const larder_stats *stats)
{
    struct document all = document_object();
    struct document part = {NULL, false}; /* a member of all, which owns it */
    const char *group = "";
    document_put(&all, "map", json_string(tool->map));
    for (size_t i = 0; i < figure_count; i++) {
        if (figures[i].group == NULL) {
            continue;
        }
        if (strcmp(figures[i].group, group) != 0) {
            group = figures[i].group;
            part.root = json_object();
            document_put(&all, group, part.root);
            part.root = all.failed ? NULL : part.root; /* a failure releases it */
        }
        document_put(&part, figures[i].name, json_figure(stats, &figures[i]));
    }
    all.failed |= part.failed;
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
