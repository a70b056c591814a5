/* cmd_set.c: larder set: store a value from the command line or from standard input, which is read
 * no further than one byte over the limit: that byte makes the library refuse the value, so that
 * the old one is not served either.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/map.h" /* the handle's limit of a value */
#include "tools/output.h"
#include "tools/tool.h"

enum { FIRST_BUFFER = 64 * 1024 };

/* As much as fits of what standard input has. -1 with errno, 0 at the end. */
static ssize_t read_some(uint8_t *into, size_t size)
{
    for (;;) {
        ssize_t count = read(STDIN_FILENO, into, size);
        if (count >= 0 || (errno != EINTR && errno != EAGAIN)) {
            return count;
        }
        struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
        (void)poll(&input, 1, -1); /* somebody else made it non-blocking: wait for its writer */
    }
}

/* Standard input up to its end, or limit + 1 bytes. *value is the caller's to free. */
static int read_input(uint64_t limit, uint8_t **value, size_t *value_size)
{
    size_t most = limit < SIZE_MAX / 2 ? (size_t)limit + 1 : SIZE_MAX / 2;
    size_t capacity = 0;
    size_t used = 0;
    uint8_t *buffer = NULL;
    for (;;) {
        if (used == capacity && used < most) {
            capacity = capacity == 0 ? FIRST_BUFFER : capacity * 2;
            capacity = capacity < most ? capacity : most;
            uint8_t *larger = realloc(buffer, capacity);
            if (larger == NULL) {
                output_error("set: no memory for a value of %zu bytes", capacity);
                break;
            }
            buffer = larger;
        }
        ssize_t count = used == most ? 0 : read_some(buffer + used, capacity - used);
        if (count < 0) {
            output_error("set: cannot read standard input: %s", strerror(errno));
            break;
        }
        if (count == 0) {
            *value = buffer;
            *value_size = used;
            return TOOL_OK;
        }
        used += (size_t)count;
    }
    free(buffer);
    return TOOL_FAILED;
}

int cmd_set(struct tool *tool)
{
    larder_bytes key;
    uint8_t *input = NULL;
    const char *given = tool->argument_count > 1 ? tool->arguments[1] : "";
    const void *value = given;
    size_t size = strlen(given);
    if ((tool->argument_count == 1) != tool->negative) {
        output_error("set: %s", tool->negative ? "a negative entry has no VALUE"
                                               : "a VALUE is missing (or --negative)");
        return TOOL_USAGE;
    }
    int result = tool_key(tool, tool->arguments[0], &key);
    if (result == TOOL_OK) { /* not before: a mistake makes no map */
        result = tool_open(tool, ACCESS_CREATE);
    }
    if (result == TOOL_OK && strcmp(given, "-") == 0) {
        result = read_input(tool->handle->max_value, &input, &size);
        value = input;
    }
    if (result != TOOL_OK) {
        return result;
    }
    larder_policy policy = {
        .expiry = tool->expiry,
        .group = tool->group,
        .tags = tool->tag_count > 0 ? tool->tags : NULL,
        .tag_count = tool->tag_count,
        .stale_ms = tool->stale_ms,
        .jitter_ms = tool->jitter_ms,
        .max_lifetime_ms = tool->max_lifetime_ms,
        .flags = tool->negative ? LARDER_NEGATIVE : 0,
    };
    int outcome = larder_set(tool->handle, key.data, key.size, value, size, &policy);
    free(input);
    if (outcome < 0) {
        return tool_fail(tool, outcome, &key);
    }
    bool past = tool->expiry.kind == LARDER_EXPIRY_AT && tool->expiry.ms <= tool_now_ms();
    if (past) {
        output_error("set: the time of --at is past: the value is not kept");
    }
    if (tool->json) {
        struct document stored = document_object();
        document_key(&stored, key, tool->hex);
        document_put(&stored, "outcome", json_string(past ? "expired" : "stored"));
        document_count(&stored, "size", size);
        return output_document(&stored) ? TOOL_OK : TOOL_FAILED;
    }
    return TOOL_OK;
}
