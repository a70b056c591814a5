/* cmd_check.c: larder check: walk the whole map in one snapshot, say what was walked, and name the
 * first damage. Repairs nothing: the next opener of a damaged map starts a new generation.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lib/inspect.h"
#include "tools/output.h"
#include "tools/tool.h"

static bool print_json(const struct tool *tool, const inspect_report *report)
{
    struct document checked = document_object();
    document_put(&checked, "map", json_string(tool->map));
    document_put(&checked, "damaged", json_boolean(report->damaged));
    if (report->damaged) {
        document_bytes(&checked, "damage", report->damage, strlen(report->damage));
    }
    document_count(&checked, "entries", report->entries);
    document_count(&checked, "tombstones", report->tombstones);
    document_count(&checked, "dirty", report->dirty);
    document_count(&checked, "log_rows", report->rows);
    document_count(&checked, "chunks", report->chunks);
    document_count(&checked, "bytes", report->bytes);
    return output_document(&checked);
}

static void print_text(const inspect_report *report)
{
    char bytes[OUTPUT_UNIT_SIZE];
    (void)printf("%s: %" PRIu64 " entries (%" PRIu64 " dirty), %" PRIu64 " tombstones, %" PRIu64
                 " log rows, %" PRIu64 " chunks, %s of values\n",
                 report->damaged ? "damaged" : "ok", report->entries, report->dirty,
                 report->tombstones, report->rows, report->chunks,
                 output_bytes(bytes, report->bytes));
}

int cmd_check(struct tool *tool)
{
    inspect_report report = {0};
    int code = inspect_check(tool->handle, &report);
    report.damage[sizeof report.damage - 1] = '\0';
    if (code < 0 && !report.damaged) {
        return tool_fail(tool, code, NULL);
    }
    if (tool->json) {
        if (!print_json(tool, &report)) {
            return TOOL_FAILED;
        }
    } else {
        print_text(&report);
    }
    if (report.damaged) {
        output_error("check: damaged: %s", report.damage);
        return TOOL_CORRUPT;
    }
    return TOOL_OK;
}
