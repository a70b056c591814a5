/* cmd_warm.c: larder warm: have larderd bring keys that this host lacks from Redis. The keys come
 * from a file, one a line, and are asked for many at a time; memory does not grow with the file.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/output.h"
#include "tools/tool.h"

enum {
    WINDOW = 128, /* of the 512 keys that may be asked for at a time: the workers ask, too */
    BUDGET_MS = 5000,
    TRIES = 4,
    GIVE_UP = 3 * WINDOW, /* keys in a row that nobody answered */
    KEY_MAX = 960         /* bytes; longer ones are not asked for: larder_ask() */
};

struct asked_key {
    larder_asked asked;
    size_t size;
    char bytes[KEY_MAX];
};

struct warming {
    struct tool *tool;
    int64_t budget_ms;
    uint64_t line;
    struct asked_key window[WINDOW];
    size_t asked;
    uint64_t there, found, not_kept, absent, unanswered, in_a_row;
};

static void note_unanswered(struct warming *warming)
{
    warming->unanswered++;
    warming->in_a_row++;
}

static bool is_there(struct warming *warming, const char *key, size_t size)
{
    static const larder_read peek = {.flags = LARDER_PEEK};
    larder_info info;
    int code = larder_get_with(warming->tool->handle, key, size, NULL, 0, &info, &peek);
    return code == LARDER_OK || code == LARDER_ESIZE || code == LARDER_ABSENT;
}

/* What Redis had may be dead on this host, invalidated by a tag, or have been evicted since. */
static void note_answer(struct warming *warming, const struct asked_key *key, int code)
{
    warming->in_a_row = 0;
    if (code == LARDER_MISS) {
        warming->absent++;
    } else if (code == LARDER_OK && is_there(warming, key->bytes, key->size)) {
        warming->found++;
    } else if (code == LARDER_OK) {
        warming->not_kept++;
    }
}

/* Wait for all that was asked for. */
static int collect(struct warming *warming)
{
    for (size_t i = 0; i < warming->asked; i++) {
        const struct asked_key *key = &warming->window[i];
        int code = larder_ask_wait(warming->tool->handle, &key->asked, warming->budget_ms);
        if (code == LARDER_EBUSY) {
            note_unanswered(warming);
        } else if (code < 0) {
            return tool_fail(warming->tool, code, NULL);
        } else {
            note_answer(warming, key, code);
        }
    }
    warming->asked = 0;
    return TOOL_OK;
}

static int ask(struct warming *warming, larder_bytes key)
{
    struct tool *tool = warming->tool;
    if (is_there(warming, key.data, key.size)) {
        warming->there++;
        return TOOL_OK;
    }
    for (int tries = 0; tries < TRIES; tries++) {
        struct asked_key *next = &warming->window[warming->asked];
        int code = larder_ask(tool->handle, key.data, key.size, warming->budget_ms, &next->asked);
        if (code == LARDER_WAIT) {
            next->size = key.size <= KEY_MAX ? key.size : 0;
            memcpy(next->bytes, key.data, next->size);
            warming->asked++;
            return warming->asked == WINDOW ? collect(warming) : TOOL_OK;
        }
        int result = code < 0 ? tool_fail(tool, code, &key) : collect(warming);
        if (result != TOOL_OK) {
            return result;
        }
    }
    note_unanswered(warming);
    return TOOL_OK;
}

static int read_line(struct warming *warming, char *line, size_t size)
{
    larder_bytes key = {line, size};
    warming->line++;
    if (size == 0) {
        return TOOL_OK;
    }
    int result = TOOL_OK;
    if (strlen(line) != size && warming->tool->hex) {
        output_error("warm: line %" PRIu64 " has a zero byte in it", warming->line);
        return TOOL_USAGE;
    }
    if (warming->tool->hex) {
        result = tool_key(warming->tool, line, &key);
    }
    if (result == TOOL_OK) {
        result = ask(warming, key);
    }
    if (result == TOOL_USAGE) {
        output_error("warm: that was line %" PRIu64, warming->line);
    }
    return result;
}

static int read_all(struct warming *warming, FILE *file, const char *name)
{
    char *line = NULL;
    size_t room = 0;
    int result = TOOL_OK;
    while (result == TOOL_OK && warming->in_a_row < GIVE_UP) {
        errno = 0;
        ssize_t size = getline(&line, &room, file);
        if (size < 0) {
            if (ferror(file) || errno == ENOMEM) {
                output_error("warm: reading %.200s: %s", name, strerror(errno));
                result = TOOL_FAILED;
            }
            break;
        }
        if (size > 0 && line[size - 1] == '\n') {
            line[--size] = '\0';
        }
        result = read_line(warming, line, (size_t)size);
    }
    free(line);
    return result == TOOL_OK ? collect(warming) : result;
}

static int report(const struct warming *warming)
{
    if (warming->tool->json) {
        struct document counts = document_object();
        document_count(&counts, "found", warming->found);
        document_count(&counts, "there", warming->there);
        document_count(&counts, "not_kept", warming->not_kept);
        document_count(&counts, "absent", warming->absent);
        document_count(&counts, "unanswered", warming->unanswered);
        if (!output_document(&counts)) {
            return TOOL_FAILED;
        }
    } else {
        (void)printf("%" PRIu64 " brought, %" PRIu64 " there already, %" PRIu64
                     " not kept here, %" PRIu64 " not in Redis, %" PRIu64 " without an answer\n",
                     warming->found, warming->there, warming->not_kept, warming->absent,
                     warming->unanswered);
    }
    if (warming->in_a_row >= GIVE_UP) {
        output_error("warm: given up at line %" PRIu64 ": there is no larderd that reaches Redis",
                     warming->line);
    }
    return warming->unanswered > 0 ? TOOL_BUSY : TOOL_OK;
}

int cmd_warm(struct tool *tool)
{
    struct warming warming = {
        .tool = tool, .budget_ms = tool->read_through_ms != 0 ? tool->read_through_ms : BUDGET_MS};
    const char *name = tool->arguments[0];
    bool standard = strcmp(name, "-") == 0;
    FILE *file = standard ? stdin : fopen(name, "re");
    if (file == NULL) {
        output_error("warm: %.200s: %s", name, strerror(errno));
        return TOOL_USAGE;
    }
    int result = read_all(&warming, file, name);
    if (!standard) {
        (void)fclose(file);
    }
    return result == TOOL_OK ? report(&warming) : result;
}
