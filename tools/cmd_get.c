/* cmd_get.c: larder get: a value to standard output, byte for byte (escaped on a terminal), with
 * its times and version before it where --meta asks for them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "tools/escape.h"
#include "tools/output.h"
#include "tools/tool.h"

/* Lines of "name: value", and an empty one. */
static void print_meta(const struct tool *tool, larder_bytes key, const larder_info *info,
                       bool negative)
{
    char text[OUTPUT_UNIT_SIZE];
    (void)printf("key: ");
    output_key(key, tool->hex);
    (void)printf("\nsize: %" PRIu64 "\n", info->size);
    (void)printf("version: %s\n", output_version(text, info->version));
    (void)printf("created: %s\n", output_time(text, info->created_ms));
    (void)printf("expires: %s", output_time(text, info->expires_ms));
    if (info->expires_ms != INT64_MAX) {
        int64_t left = info->expires_ms - tool_now_ms();
        (void)printf(" (in %s)", output_duration(text, left > 0 ? left : 0));
    }
    (void)printf("\nnegative: %s\n\n", negative ? "yes" : "no");
}

static int print_json(const struct tool *tool, int outcome, larder_bytes key, const void *value,
                      size_t size, const larder_info *info)
{
    struct document got = document_object();
    document_key(&got, key, tool->hex);
    document_put(&got, "outcome",
                 json_string(outcome == LARDER_OK       ? "hit"
                             : outcome == LARDER_ABSENT ? "absent"
                                                        : "miss"));
    if (outcome == LARDER_OK) {
        document_bytes(&got, "value", value, size);
    }
    if (outcome == LARDER_OK || outcome == LARDER_ABSENT) {
        document_info(&got, info, tool_now_ms());
    }
    if (!output_document(&got)) {
        return TOOL_FAILED;
    }
    return outcome == LARDER_OK ? TOOL_OK : TOOL_MISS;
}

/* Whether it is worth another look. */
static bool read_through(const struct tool *tool, larder_bytes key)
{
    larder_asked asked;
    return tool->read_through_ms != 0 &&
           larder_ask(tool->handle, key.data, key.size, tool->read_through_ms, &asked) ==
               LARDER_WAIT &&
           larder_ask_wait(tool->handle, &asked, tool->read_through_ms) == LARDER_OK;
}

int cmd_get(struct tool *tool)
{
    larder_bytes key;
    int result = tool_key(tool, tool->arguments[0], &key);
    if (result != TOOL_OK) {
        return result;
    }
    void *value = NULL;
    size_t size = 0;
    larder_info info = {0};
    int outcome = larder_get_alloc(tool->handle, key.data, key.size, &value, &size, &info);
    if (outcome == LARDER_MISS && read_through(tool, key)) {
        outcome = larder_get_alloc(tool->handle, key.data, key.size, &value, &size, &info);
    }
    if (outcome < 0) {
        return tool_fail(tool, outcome, &key);
    }
    if (tool->json) {
        result = print_json(tool, outcome, key, value, size, &info);
    } else {
        result = outcome == LARDER_OK ? TOOL_OK : TOOL_MISS;
        if (tool->meta && (outcome == LARDER_OK || outcome == LARDER_ABSENT)) {
            print_meta(tool, key, &info, outcome == LARDER_ABSENT);
        }
        if (outcome == LARDER_OK) {
            output_value(value, size);
        } else if (isatty(STDERR_FILENO) == 1) { /* a script has the exit code */
            char shown[160];
            output_error("get %s: %s",
                         escape_text(shown, sizeof shown, key.data, key.size, ESCAPE_KEY),
                         larder_strerror(outcome));
        }
    }
    larder_free(value);
    return result;
}
