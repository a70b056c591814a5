/* larder.c: the admin tool's main program: the table of commands, which drives dispatch and help;
 * opening the map; the library's errors as messages and exit codes. What a command does is in its
 * cmd_*.c.
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/escape.h"
#include "tools/output.h"
#include "tools/tool.h"

/* clang-format off */
const struct command tool_commands[] = {
    {"get", "KEY [--meta] [--read-through DURATION]", "write a value to standard output",
     1, 1, OPTION_META | OPTION_READ_THROUGH, ACCESS_EXAMINE, cmd_get},
    {"set", "KEY VALUE|- [--ttl DURATION | --at TIME | --every DURATION | --sliding DURATION]",
     "store a value; \"-\" reads it from standard input",
     1, 2, OPTIONS_POLICY, ACCESS_NONE, cmd_set},
    {"rm", "KEY...", "delete keys",
     1, -1, 0, ACCESS_ATTACH, cmd_rm},
    {"ls", "[PREFIX | --match GLOB] [--long] [--limit N]", "list keys in byte order",
     0, 1, OPTION_LONG | OPTION_LIMIT | OPTION_MATCH, ACCESS_EXAMINE, cmd_ls},
    {"invalidate", "--group NAME | --tag NAME | --prefix PREFIX | --match GLOB",
     "kill all entries of a group or tag, or whose keys are meant",
     0, 0, OPTION_GROUP | OPTION_TAG | OPTION_PREFIX | OPTION_MATCH | OPTION_COUNT, ACCESS_ATTACH,
     cmd_invalidate},
    {"evict", "--group NAME | --tag NAME | --prefix PREFIX | --match GLOB",
     "the same as invalidate",
     0, 0, OPTION_GROUP | OPTION_TAG | OPTION_PREFIX | OPTION_MATCH | OPTION_COUNT, ACCESS_ATTACH,
     cmd_invalidate},
    {"clear", "", "kill all entries at once",
     0, 0, 0, ACCESS_ATTACH, cmd_clear},
    {"warm", "FILE|- [--read-through DURATION]",
     "bring the keys that FILE names, one a line, from Redis",
     1, 1, OPTION_READ_THROUGH, ACCESS_ATTACH, cmd_warm},
    {"stat", "", "show the map's statistics",
     0, 0, 0, ACCESS_EXAMINE, cmd_stat},
    {"check", "", "walk the whole map and name the first damage",
     0, 0, 0, ACCESS_EXAMINE, cmd_check},
    {"readers", "", "show who reads the map",
     0, 0, 0, ACCESS_EXAMINE, cmd_readers},
    {"create", "[--size SIZE] [--hot-size SIZE] [--max-value SIZE]", "make the map if it is not there",
     0, 0, OPTION_SIZE | OPTION_HOT_SIZE | OPTION_MAX_VALUE, ACCESS_NONE, cmd_create},
    {"top", "[--once] [--interval DURATION] [--limit N]",
     "show rates, latencies and the keys asked for most",
     0, 0, OPTION_ONCE | OPTION_INTERVAL | OPTION_LIMIT, ACCESS_EXAMINE, cmd_top},
    {"follow", "[--kind KIND] [--prefix PREFIX] [--name NAME] [--limit N] [--wait DURATION]",
     "print events as they come",
     0, 0, OPTION_KIND | OPTION_PREFIX | OPTION_NAME | OPTION_LIMIT | OPTION_WAIT,
     ACCESS_EXAMINE, cmd_follow},
    {"publish", "NAME [DATA]", "tell all followers of this host",
     1, 2, 0, ACCESS_ATTACH, cmd_publish},
    {"version", "", "name the versions of tool and library",
     0, 0, 0, ACCESS_NONE, cmd_version},
    {"help", "[COMMAND]", "say how a command is used",
     0, 1, 0, ACCESS_NONE, cmd_help},
    {NULL, NULL, NULL, 0, 0, 0, ACCESS_NONE, NULL},
};
/* clang-format on */

const struct command *tool_find_command(const char *name)
{
    for (const struct command *row = tool_commands; row->name != NULL; row++) {
        if (strcmp(row->name, name) == 0) {
            return row;
        }
    }
    return NULL;
}

int64_t tool_now_ms(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) {
        return 0;
    }
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int tool_exit_of(int code)
{
    switch (code) {
    case LARDER_EBUSY:
        return TOOL_BUSY;
    case LARDER_ECORRUPT:
        return TOOL_CORRUPT;
    case LARDER_EINVAL:
    case LARDER_ETOOBIG:
    case LARDER_EOVERFLOW:
    case LARDER_EUNSUPPORTED:
        return TOOL_USAGE;
    case LARDER_ENAMESPACE:
    case LARDER_EFORMAT:
    case LARDER_EACCESS:
    case LARDER_ENOTFOUND:
        return TOOL_CANNOT_OPEN;
    default:
        return TOOL_FAILED;
    }
}

/* The library's words for its last error; its short text where it has none. */
static const char *reason_of(int code)
{
    const char *reason = larder_last_error();
    return reason[0] != '\0' ? reason : larder_strerror(code);
}

int tool_fail(const struct tool *tool, int code, const larder_bytes *key)
{
    const char *reason = reason_of(code);
    char shown[160];
    if (key == NULL) {
        output_error("%s: %s", tool->command->name, reason);
    } else {
        output_error("%s %s: %s", tool->command->name,
                     escape_text(shown, sizeof shown, key->data, key->size, ESCAPE_KEY), reason);
    }
    return tool_exit_of(code);
}

int tool_open(struct tool *tool, enum tool_access access)
{
    larder_options options = {
        .dir = tool->dir,
        .map_size = tool->size,
        .hot_size = tool->hot_size,
        .max_value = tool->max_value,
        .flags = access == ACCESS_CREATE    ? 0
                 : access == ACCESS_EXAMINE ? LARDER_READ_ONLY
                                            : LARDER_ATTACH,
    };
    int code = larder_open(tool->map, &options, &tool->handle);
    if (code >= 0) {
        return TOOL_OK;
    }
    output_error("open map \"%.70s\": %s", tool->map, reason_of(code));
    int result = tool_exit_of(code);
    return result == TOOL_FAILED ? TOOL_CANNOT_OPEN : result;
}

int tool_key(const struct tool *tool, char *argument, larder_bytes *key)
{
    size_t size = strlen(argument);
    size_t bad = 0;
    if (tool->hex && !escape_from_hex(argument, (uint8_t *)argument, &size, &bad)) {
        output_error("%s: --hex: byte %zu of the key is not one of an even number of hexadecimal "
                     "digits",
                     tool->command->name, bad + 1);
        return TOOL_USAGE;
    }
    *key = (larder_bytes){argument, size};
    return TOOL_OK;
}

int cmd_version(struct tool *tool)
{
    if (tool->json) {
        struct document version = document_object();
        document_put(&version, "tool", json_string(PACKAGE_VERSION));
        document_put(&version, "library", json_string(larder_version_text()));
        return output_document(&version) ? TOOL_OK : TOOL_FAILED;
    }
    (void)printf("larder %s (liblarder %s)\n", PACKAGE_VERSION, larder_version_text());
    return TOOL_OK;
}

static void print_command_help(const struct command *row)
{
    (void)printf("usage: larder [-d DIR] [-m NAME] [--json] [--hex] %s%s%s\n%s\n\n", row->name,
                 row->usage[0] != '\0' ? " " : "", row->usage, row->summary);
    options_print(row->options | OPTIONS_GENERAL);
}

static void print_help(void)
{
    (void)printf("usage: larder [-d DIR] [-m NAME] [--json] [--hex] COMMAND ...\n"
                 "Look into a larder map and change it.\n\n");
    for (const struct command *row = tool_commands; row->name != NULL; row++) {
        (void)printf("  %-10s %-32s %s\n", row->name,
                     strlen(row->usage) <= 32                   ? row->usage
                     : strncmp(row->usage, "KEY VALUE", 9) == 0 ? "KEY VALUE|- [OPTION...]"
                     : row->usage[0] == 'K'                     ? "KEY [OPTION...]"
                                                                : "[OPTION...]",
                     row->summary);
    }
    (void)printf("\n");
    options_print(OPTIONS_GENERAL | OPTION_VERSION);
    (void)printf("\nDurations: 250ms, 30s, 5m, 2h, 7d; a bare number is seconds.\n"
                 "Exit codes: 0 done, a hit; 1 a key is not there; 2 wrong usage; 3 the map cannot "
                 "be opened;\n4 damage; 5 busy; 6 anything else.\n");
}

int cmd_help(struct tool *tool)
{
    if (tool->argument_count == 0) {
        print_help();
        return TOOL_OK;
    }
    const struct command *row = tool_find_command(tool->arguments[0]);
    if (row == NULL) {
        output_error("help: no command \"%.100s\"; try \"larder help\"", tool->arguments[0]);
        return TOOL_USAGE;
    }
    print_command_help(row);
    return TOOL_OK;
}

static int run(struct tool *tool, int argc, char **argv)
{
    switch (options_read(tool, argc, argv)) {
    case OPTIONS_WRONG:
        return TOOL_USAGE;
    case OPTIONS_VERSION:
        return cmd_version(tool);
    case OPTIONS_HELP:
        if (tool->command != NULL) {
            print_command_help(tool->command);
        } else {
            print_help();
        }
        return TOOL_OK;
    case OPTIONS_RUN:
        break;
    }
    if (tool->command == NULL) {
        output_error("usage: larder [-d DIR] [-m NAME] [--json] [--hex] COMMAND ...; try \"larder "
                     "help\"");
        return TOOL_USAGE;
    }
    if (tool->command->access != ACCESS_NONE) {
        int opened = tool_open(tool, tool->command->access);
        if (opened != TOOL_OK) {
            return opened;
        }
    }
    return tool->command->run(tool);
}

int main(int argc, char **argv)
{
    struct tool tool = {.map = getenv("LARDER_MAP")};
    if (tool.map == NULL || tool.map[0] == '\0') {
        tool.map = "default";
    }
    (void)signal(SIGPIPE, SIG_IGN); /* a reader that left is a failed write, with a message */
    output_begin();
    int result = run(&tool, argc, argv);
    larder_close(&tool.handle);
    free(tool.tags);
    free(tool.targets);
    free(tool.names);
    if (!output_end() && (result == TOOL_OK || result == TOOL_MISS)) {
        result = TOOL_FAILED;
    }
    return result;
}
