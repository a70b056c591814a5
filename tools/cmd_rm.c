/* cmd_rm.c: larder rm: delete keys, in one commit for each 4,096 of them. The exit code is a miss
 * as soon as one of them was not there.
 */
#include <stdlib.h>

#include "tools/escape.h"
#include "tools/output.h"
#include "tools/tool.h"

struct removal {
    larder_item *items;
    size_t count;
    uint64_t deleted, missing;
    int result; /* of the first key that failed, else TOOL_OK */
};

/* Delete up to LARDER_MANY_MAX keys and note what became of each. TOOL_OK, or why none could. */
static int remove_batch(struct tool *tool, struct removal *removal, size_t first, size_t count)
{
    larder_item *items = removal->items + first;
    int code;
    if (count == 1) {
        code = larder_delete(tool->handle, items->key, items->key_size);
        items->outcome = code;
        if (code < 0) {
            larder_bytes key = {items->key, items->key_size};
            return tool_fail(tool, code, &key);
        }
    } else {
        code = larder_delete_many(tool->handle, items, count);
        if (code < 0) {
            return tool_fail(tool, code, NULL);
        }
    }
    for (size_t i = 0; i < count; i++) {
        removal->deleted += items[i].outcome == LARDER_OK;
        removal->missing += items[i].outcome == LARDER_MISS;
        if (items[i].outcome < 0) {
            char shown[160];
            output_error(
                "rm %s: %s",
                escape_text(shown, sizeof shown, items[i].key, items[i].key_size, ESCAPE_KEY),
                larder_strerror(items[i].outcome));
            removal->result =
                removal->result != TOOL_OK ? removal->result : tool_exit_of(items[i].outcome);
        }
    }
    return TOOL_OK;
}

static bool print_json(const struct tool *tool, const struct removal *removal)
{
    struct document report = document_object();
    json_t *keys = json_array();
    for (size_t i = 0; i < removal->count; i++) {
        const larder_item *item = &removal->items[i];
        struct document row = document_object();
        document_key(&row, (larder_bytes){item->key, item->key_size}, tool->hex);
        document_put(&row, "outcome",
                     json_string(item->outcome == LARDER_OK     ? "deleted"
                                 : item->outcome == LARDER_MISS ? "miss"
                                                                : "error"));
        report.failed |= row.failed || json_array_append_new(keys, row.root) != 0;
    }
    document_count(&report, "deleted", removal->deleted);
    document_count(&report, "missing", removal->missing);
    document_put(&report, "keys", keys);
    return output_document(&report);
}

int cmd_rm(struct tool *tool)
{
    struct removal removal = {.count = (size_t)tool->argument_count};
    removal.items = calloc(removal.count, sizeof *removal.items);
    if (removal.items == NULL) {
        output_error("rm: out of memory");
        return TOOL_FAILED;
    }
    int result = TOOL_OK;
    for (size_t i = 0; i < removal.count && result == TOOL_OK; i++) {
        larder_bytes key;
        result = tool_key(tool, tool->arguments[i], &key);
        if (result == TOOL_OK) {
            removal.items[i].key = key.data;
            removal.items[i].key_size = key.size;
        }
    }
    for (size_t first = 0; first < removal.count && result == TOOL_OK; first += LARDER_MANY_MAX) {
        size_t rest = removal.count - first;
        result =
            remove_batch(tool, &removal, first, rest < LARDER_MANY_MAX ? rest : LARDER_MANY_MAX);
    }
    if (result == TOOL_OK) {
        result = removal.result != TOOL_OK ? removal.result
                 : removal.missing > 0     ? TOOL_MISS
                                           : TOOL_OK;
        if (tool->json && !print_json(tool, &removal)) {
            result = TOOL_FAILED;
        }
    }
    free(removal.items);
    return result;
}
