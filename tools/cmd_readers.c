/* cmd_readers.c: larder readers: the slots of the map's reader table: who has one, which snapshot
 * it holds and how far behind the newest that is. An old snapshot pins pages; a dead owner's slot
 * is cleared by larderd or by the next process that needs one.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/inspect.h"
#include "tools/output.h"
#include "tools/tool.h"

enum { FIRST_CAPACITY = 1024, MOST_CAPACITY = 1 << 20 };

/* All readers into memory that the caller frees. */
static int read_all(struct tool *tool, inspect_reader **readers, size_t *found)
{
    for (size_t capacity = FIRST_CAPACITY; capacity <= MOST_CAPACITY; capacity *= 2) {
        *readers = calloc(capacity, sizeof **readers);
        if (*readers == NULL) {
            output_error("readers: out of memory");
            return TOOL_FAILED;
        }
        *found = 0;
        int code = inspect_readers(tool->handle, *readers, capacity, found);
        if (code >= 0 && *found <= capacity) {
            return TOOL_OK;
        }
        free(*readers);
        *readers = NULL;
        if (code < 0) {
            return tool_fail(tool, code, NULL);
        }
    }
    output_error("readers: more than %d of them", MOST_CAPACITY);
    return TOOL_FAILED;
}

static void print_text(const inspect_reader *readers, size_t count)
{
    (void)printf("%8s  %16s  %12s  %8s  %s\n", "PID", "THREAD", "SNAPSHOT", "LAG", "PROCESS");
    for (size_t i = 0; i < count; i++) {
        const inspect_reader *reader = &readers[i];
        char snapshot[32] = "-";
        char lag[32] = "-";
        if (reader->transaction != UINT64_MAX) {
            (void)snprintf(snapshot, sizeof snapshot, "%" PRIu64, reader->transaction);
            (void)snprintf(lag, sizeof lag, "%" PRIu64, reader->lag);
        }
        (void)printf("%8d  %16" PRIx64 "  %12s  %8s  %s\n", reader->pid, reader->thread, snapshot,
                     lag, reader->alive ? "alive" : "dead");
    }
}

static bool print_json(const struct tool *tool, const inspect_reader *readers, size_t count)
{
    struct document all = document_object();
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        const inspect_reader *reader = &readers[i];
        struct document row = document_object();
        char thread[24];
        (void)snprintf(thread, sizeof thread, "%" PRIx64, reader->thread);
        document_put(&row, "pid", json_integer(reader->pid));
        document_put(&row, "thread", json_string(thread));
        if (reader->transaction == UINT64_MAX) {
            document_put(&row, "transaction", json_null());
        } else {
            document_count(&row, "transaction", reader->transaction);
        }
        document_count(&row, "lag", reader->lag);
        document_put(&row, "alive", json_boolean(reader->alive));
        all.failed |= row.failed || json_array_append_new(list, row.root) != 0;
    }
    document_put(&all, "map", json_string(tool->map));
    document_put(&all, "readers", list);
    return output_document(&all);
}

int cmd_readers(struct tool *tool)
{
    inspect_reader *readers = NULL;
    size_t count = 0;
    int result = read_all(tool, &readers, &count);
    if (readers == NULL) { /* a message has been written */
        return result;
    }
    if (tool->json) {
        result = print_json(tool, readers, count) ? TOOL_OK : TOOL_FAILED;
    } else {
        print_text(readers, count);
    }
    free(readers);
    return result;
}
