/* cmd_ls.c: larder ls: the keys of a map, or those with a prefix, in byte order. Keys are printed
 * as they are scanned, batch by batch, so that memory does not grow with the map; the JSON document
 * is written in parts for the same reason.
 */
#include <inttypes.h>
#include <stdio.h>

#include "tools/output.h"
#include "tools/tool.h"

enum { BATCH = 256 };

static void print_long(const struct tool *tool, const larder_item *item, int64_t now_ms)
{
    char left[OUTPUT_UNIT_SIZE];
    char created[OUTPUT_UNIT_SIZE];
    if (item->info.expires_ms == INT64_MAX) {
        (void)snprintf(left, sizeof left, "never");
    } else {
        int64_t ms = item->info.expires_ms - now_ms;
        (void)output_duration(left, ms > 0 ? ms : 0);
    }
    (void)printf("%10" PRIu64 "  %9s  %s  ", item->info.size, left,
                 output_time(created, item->info.created_ms));
    output_key((larder_bytes){item->key, item->key_size}, tool->hex);
    (void)printf("%s\n", item->outcome == LARDER_ABSENT ? "  (negative)" : "");
}

static bool print_item(const struct tool *tool, const larder_item *item, bool first, int64_t now_ms)
{
    larder_bytes key = {item->key, item->key_size};
    if (tool->json) {
        struct document row = document_object();
        document_key(&row, key, tool->hex);
        if (tool->long_listing) {
            document_info(&row, &item->info, now_ms);
            document_put(&row, "negative", json_boolean(item->outcome == LARDER_ABSENT));
        }
        (void)printf(first ? "\n" : ",\n");
        return output_document_part(&row);
    }
    if (tool->long_listing) {
        print_long(tool, item, now_ms);
    } else {
        output_key(key, tool->hex);
        (void)putchar('\n');
    }
    return true;
}

int cmd_ls(struct tool *tool)
{
    larder_bytes prefix = {"", 0};
    if (tool->argument_count == 1 && tool->match.data != NULL) {
        output_error("ls: PREFIX and --match exclude each other");
        return TOOL_USAGE;
    }
    if (tool->argument_count == 1) {
        int result = tool_key(tool, tool->arguments[0], &prefix);
        if (result != TOOL_OK) {
            return result;
        }
    }
    larder_cursor cursor = {0};
    larder_item items[BATCH];
    uint64_t limit = tool->limit != 0 ? tool->limit : UINT64_MAX;
    uint64_t printed = 0;
    bool more = false;
    bool began = false;
    for (;;) {
        size_t found = 0;
        void *memory = NULL;
        /* One beyond the limit tells whether there are more. */
        size_t want = limit - printed < BATCH ? (size_t)(limit - printed) + 1 : BATCH;
        want = want < BATCH ? want : BATCH;
        int code = tool->match.data != NULL
                       ? larder_scan_match(tool->handle, &cursor, tool->match, items, want,
                                           LARDER_SCAN_KEYS, &found, &memory)
                       : larder_scan(tool->handle, &cursor, prefix, items, want, LARDER_SCAN_KEYS,
                                     &found, &memory);
        if (code < 0) {
            if (began && tool->json) {
                (void)printf(
                    "\n"); /* what was written so far is no document, and the exit says so */
            }
            return tool_fail(tool, code, tool->argument_count == 1 ? &prefix : NULL);
        }
        if (!began && tool->json) {
            (void)printf("{\"entries\": [");
        }
        began = true;
        int64_t now_ms = tool_now_ms();
        bool built = true;
        for (size_t i = 0; i < found && built && !more && !output_failed(); i++) {
            more = printed == limit;
            if (!more) {
                built = print_item(tool, &items[i], printed == 0, now_ms);
                printed++;
            }
        }
        larder_free(memory);
        if (!built || output_failed()) { /* output_end() says what went wrong with the writing */
            return TOOL_FAILED;
        }
        if (found == 0 || more) {
            break;
        }
    }
    if (tool->json) {
        (void)printf("%s], \"count\": %" PRIu64 ", \"more\": %s}\n", printed > 0 ? "\n" : "",
                     printed, more ? "true" : "false");
    }
    return TOOL_OK;
}
