/* cmd_follow.c: larder follow, larder publish. Follow: print events as they come, one line or one
 * JSON document each, until it is ended, --limit events were printed, or --wait is over.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/output.h"
#include "tools/tool.h"

static const struct {
    uint32_t kind;
    const char *name;
} kinds[] = {
    {LARDER_EVENT_SET, "set"},       {LARDER_EVENT_DELETE, "delete"},
    {LARDER_EVENT_EVICT, "evict"},   {LARDER_EVENT_INVALIDATE, "invalidate"},
    {LARDER_EVENT_EXPIRE, "expire"}, {LARDER_EVENT_NAMED, "event"},
};

static const char *const causes[] = {
    [LARDER_CAUSE_NONE] = "none",   [LARDER_CAUSE_REPLICA] = "replica",
    [LARDER_CAUSE_KEY] = "key",     [LARDER_CAUSE_GROUP] = "group",
    [LARDER_CAUSE_TAG] = "tag",     [LARDER_CAUSE_PREFIX] = "prefix",
    [LARDER_CAUSE_MATCH] = "match", [LARDER_CAUSE_CLEAR] = "clear",
    [LARDER_CAUSE_SMALL] = "small", [LARDER_CAUSE_MAIN] = "main",
    [LARDER_CAUSE_DEAD] = "dead",
};

uint32_t tool_event_kind(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(kinds[i].name, name) == 0) {
            return kinds[i].kind;
        }
    }
    return 0;
}

static const char *kind_name(uint32_t kind)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (kinds[i].kind == kind) {
            return kinds[i].name;
        }
    }
    return "unknown";
}

static const char *cause_name(uint32_t cause)
{
    return cause < sizeof causes / sizeof causes[0] ? causes[cause] : "unknown";
}

static void print_text(const struct tool *tool, const larder_event *event)
{
    (void)printf("%s", kind_name(event->kind));
    if (event->cause != LARDER_CAUSE_NONE) {
        (void)printf("/%s", cause_name(event->cause));
    }
    (void)putchar('\t');
    output_key(event->name, tool->hex);
    if ((event->flags & LARDER_EVENT_CUT) != 0) {
        (void)printf("... (%" PRIu64 " bytes)", event->name_size);
    }
    if (event->kind == LARDER_EVENT_NAMED) {
        (void)putchar('\t');
        output_key(event->data, false);
    }
    (void)putchar('\n');
}

static bool print_json(const struct tool *tool, const larder_event *event)
{
    char text[OUTPUT_UNIT_SIZE];
    struct document row = document_object();
    document_put(&row, "kind", json_string(kind_name(event->kind)));
    document_put(&row, "cause", json_string(cause_name(event->cause)));
    document_count(&row, "number", event->number);
    if (event->kind == LARDER_EVENT_NAMED) {
        document_bytes(&row, "name", event->name.data, event->name.size);
        document_bytes(&row, "data", event->data.data, event->data.size);
    } else {
        document_key(&row, event->name, tool->hex);
        document_count(&row, "key_size", event->name_size);
        document_put(&row, "cut", json_boolean((event->flags & LARDER_EVENT_CUT) != 0));
        document_put(&row, "version", json_string(output_version(text, event->version)));
        document_time(&row, "expires_ms", event->expires_ms);
    }
    return output_document(&row);
}

static bool print_missed(const struct tool *tool, const larder_event *event)
{
    if (tool->json) {
        struct document row = document_object();
        document_put(&row, "kind", json_string("missed"));
        document_count(&row, "missed", event->missed);
        return output_document(&row);
    }
    (void)printf("missed\t%" PRIu64 "\n", event->missed);
    return true;
}

static int print_events(struct tool *tool, larder_follower *follower)
{
    enum { WAIT_MS = 3600000 };
    int64_t until = tool->has_wait ? tool_now_ms() + tool->wait_ms : INT64_MAX;
    uint64_t printed = 0;
    larder_event event;
    while (tool->limit == 0 || printed < tool->limit) {
        int code = larder_next_event(follower, &event);
        if (code == LARDER_MISS) {
            (void)fflush(stdout); /* whoever reads sees what has come before the next one does */
            int64_t left = until - tool_now_ms();
            if (output_failed() || left <= 0) {
                return TOOL_OK; /* main() tells why it failed */
            }
            code = larder_wait_event(follower, left < WAIT_MS ? left : WAIT_MS, &event);
        }
        if (code < 0) {
            return tool_fail(tool, code, NULL);
        }
        bool done = true;
        if (code == LARDER_MISSED) {
            done = print_missed(tool, &event);
        } else if (code == LARDER_OK) {
            printed++;
            if (tool->json) {
                done = print_json(tool, &event);
            } else {
                print_text(tool, &event);
            }
        }
        if (!done || output_failed()) {
            return TOOL_FAILED;
        }
    }
    return TOOL_OK;
}

int cmd_follow(struct tool *tool)
{
    if (tool->target_count > 1) {
        output_error("follow: one --prefix, not %zu", tool->target_count);
        return TOOL_USAGE;
    }
    larder_filter filter = {.kinds = tool->kinds,
                            .prefix =
                                tool->target_count == 1 ? tool->targets[0].name : (larder_bytes){0},
                            .names = tool->names,
                            .name_count = tool->name_count};
    if (tool->name_count > 0 && tool->kinds == 0) {
        filter.kinds = LARDER_EVENT_NAMED; /* names are asked for, and nothing else */
    }
    larder_follower *follower = NULL;
    int code = larder_follow(tool->handle, &filter, &follower);
    if (code < 0) {
        return tool_fail(tool, code, NULL);
    }
    int result = print_events(tool, follower);
    larder_unfollow(&follower);
    return result;
}

int cmd_publish(struct tool *tool)
{
    larder_bytes name = {tool->arguments[0], strlen(tool->arguments[0])};
    larder_bytes data = {"", 0};
    if (tool->argument_count > 1) {
        data = (larder_bytes){tool->arguments[1], strlen(tool->arguments[1])};
    }
    int code = larder_publish(tool->handle, name, data);
    if (code < 0) {
        return tool_fail(tool, code, &name);
    }
    if (tool->json) {
        struct document report = document_object();
        document_put(&report, "outcome", json_string("published"));
        return output_document(&report) ? TOOL_OK : TOOL_FAILED;
    }
    return TOOL_OK;
}
