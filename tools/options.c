/* options.c: the table of the tool's options, and reading the command line by it. A row has the
 * option's names, its argument, its help and the function that takes it, so that parsing and help
 * cannot disagree. Knows no command beyond its name and its mask of options.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/output.h"
#include "tools/parse.h"
#include "tools/tool.h"

typedef struct option_row {
    const char *name;
    char letter;          /* 0: none */
    const char *argument; /* its name in the help, or NULL */
    unsigned bit;
    bool (*take)(struct tool *tool, const char *text,
                 parse_error *error); /* NULL: see options_read */
    const char *help;
} option_row;

static bool take_dir(struct tool *tool, const char *text, parse_error *error)
{
    (void)error;
    tool->dir = text;
    return true;
}

static bool take_map(struct tool *tool, const char *text, parse_error *error)
{
    (void)error;
    tool->map = text;
    return true;
}

static bool take_json(struct tool *tool, const char *text, parse_error *error)
{
    (void)text, (void)error;
    tool->json = true;
    return true;
}

static bool take_hex(struct tool *tool, const char *text, parse_error *error)
{
    (void)text, (void)error;
    tool->hex = true;
    return true;
}

static bool take_meta(struct tool *tool, const char *text, parse_error *error)
{
    (void)text, (void)error;
    tool->meta = true;
    return true;
}

static bool take_long(struct tool *tool, const char *text, parse_error *error)
{
    (void)text, (void)error;
    tool->long_listing = true;
    return true;
}

static bool only_expiry(struct tool *tool, const char *name, parse_error *error)
{
    if (tool->expiry_option != NULL) {
        (void)snprintf(error->text, sizeof error->text, "an entry has one expiry, and %s was given",
                       tool->expiry_option);
        return false;
    }
    tool->expiry_option = name;
    return true;
}

static bool take_ttl(struct tool *tool, const char *text, parse_error *error)
{
    int64_t ms;
    if (!only_expiry(tool, "--ttl", error) || !parse_duration(text, &ms, error)) {
        return false;
    }
    tool->expiry = larder_expire_in(ms);
    return true;
}

static bool take_at(struct tool *tool, const char *text, parse_error *error)
{
    int64_t ms;
    if (!only_expiry(tool, "--at", error) || !parse_time(text, &ms, error)) {
        return false;
    }
    tool->expiry = larder_expire_at(ms);
    return true;
}

static bool take_every(struct tool *tool, const char *text, parse_error *error)
{
    int64_t ms;
    if (!only_expiry(tool, "--every", error) || !parse_duration(text, &ms, error)) {
        return false;
    }
    tool->expiry = larder_expire_aligned(ms, 0);
    return true;
}

static bool take_sliding(struct tool *tool, const char *text, parse_error *error)
{
    int64_t ms;
    if (!only_expiry(tool, "--sliding", error) || !parse_duration(text, &ms, error)) {
        return false;
    }
    tool->expiry = larder_expire_sliding(ms);
    return true;
}

static bool take_stale(struct tool *tool, const char *text, parse_error *error)
{
    return parse_duration(text, &tool->stale_ms, error);
}

static bool take_jitter(struct tool *tool, const char *text, parse_error *error)
{
    return parse_duration(text, &tool->jitter_ms, error);
}

static bool take_max_lifetime(struct tool *tool, const char *text, parse_error *error)
{
    return parse_duration(text, &tool->max_lifetime_ms, error);
}

static bool take_negative(struct tool *tool, const char *text, parse_error *error)
{
    (void)text, (void)error;
    tool->negative = true;
    return true;
}

static bool take_count(struct tool *tool, const char *text, parse_error *error)
{
    (void)text, (void)error;
    tool->count = true;
    return true;
}

static void add_target(struct tool *tool, enum tool_target_kind kind, const char *text)
{
    tool->targets[tool->target_count++] =
        (struct tool_target){.kind = kind, .name = {text, strlen(text)}};
}

static bool take_prefix(struct tool *tool, const char *text, parse_error *error)
{
    (void)error;
    add_target(tool, TARGET_PREFIX, text);
    return true;
}

static bool take_match(struct tool *tool, const char *text, parse_error *error)
{
    (void)error;
    tool->match = (larder_bytes){text, strlen(text)};
    add_target(tool, TARGET_MATCH, text);
    return true;
}

/* As larder_invalidate_group() and _tag() have it; a policy's empty group would be none at all. */
static bool is_mark(const char *what, const char *text, parse_error *error)
{
    if (*text == '\0') {
        (void)snprintf(error->text, sizeof error->text, "a %s of 0 bytes", what);
    }
    return *text != '\0';
}

static bool take_group(struct tool *tool, const char *text, parse_error *error)
{
    if (!is_mark("group", text, error)) {
        return false;
    }
    tool->group = (larder_bytes){text, strlen(text)};
    add_target(tool, TARGET_GROUP, text);
    return true;
}

static bool take_tag(struct tool *tool, const char *text, parse_error *error)
{
    if (!is_mark("tag", text, error)) {
        return false;
    }
    tool->tags[tool->tag_count++] = (larder_bytes){text, strlen(text)};
    add_target(tool, TARGET_TAG, text);
    return true;
}

static bool take_limit(struct tool *tool, const char *text, parse_error *error)
{
    return parse_count(text, 1, UINT32_MAX, &tool->limit, error);
}

static bool take_size(struct tool *tool, const char *text, parse_error *error)
{
    return parse_size(text, &tool->size, error);
}

static bool take_hot_size(struct tool *tool, const char *text, parse_error *error)
{
    return parse_size(text, &tool->hot_size, error);
}

static bool take_max_value(struct tool *tool, const char *text, parse_error *error)
{
    return parse_size(text, &tool->max_value, error);
}

static bool take_kind(struct tool *tool, const char *text, parse_error *error)
{
    uint32_t kind = tool_event_kind(text);
    if (kind == 0) {
        (void)snprintf(error->text, sizeof error->text,
                       "\"%.20s\" is none of set, delete, invalidate, evict, expire, event", text);
        return false;
    }
    tool->kinds |= kind;
    return true;
}

static bool take_name(struct tool *tool, const char *text, parse_error *error)
{
    (void)error;
    tool->names[tool->name_count++] = (larder_bytes){text, strlen(text)};
    return true;
}

static bool take_wait(struct tool *tool, const char *text, parse_error *error)
{
    tool->has_wait = true;
    return parse_duration(text, &tool->wait_ms, error);
}

static bool take_read_through(struct tool *tool, const char *text, parse_error *error)
{
    if (!parse_duration(text, &tool->read_through_ms, error)) {
        return false;
    }
    if (tool->read_through_ms < 1 || tool->read_through_ms > 60000) {
        (void)snprintf(error->text, sizeof error->text, "\"%.20s\" is not in 1ms to 60s", text);
        return false;
    }
    return true;
}

static bool take_once(struct tool *tool, const char *text, parse_error *error)
{
    (void)text, (void)error;
    tool->once = true;
    return true;
}

static bool take_interval(struct tool *tool, const char *text, parse_error *error)
{
    if (!parse_duration(text, &tool->interval_ms, error)) {
        return false;
    }
    if (tool->interval_ms < 100 || tool->interval_ms > 3600000) {
        (void)snprintf(error->text, sizeof error->text, "\"%.20s\" is not in 100ms to 1h", text);
        return false;
    }
    return true;
}

static const option_row rows[] = {
    {"dir", 'd', "DIR", OPTION_DIR, take_dir,
     "the directory of the maps (else $LARDER_DIR, /run/larder, /dev/shm/larder-UID)"},
    {"map", 'm', "NAME", OPTION_MAP, take_map, "the map (else $LARDER_MAP, else \"default\")"},
    {"json", 0, NULL, OPTION_JSON, take_json, "print one JSON document"},
    {"hex", 0, NULL, OPTION_HEX, take_hex, "keys are hexadecimal digits, in and out"},
    {"help", 'h', NULL, OPTION_HELP, NULL, "say how it is used"},
    {"version", 0, NULL, OPTION_VERSION, NULL, "name the versions of tool and library"},
    {"meta", 0, NULL, OPTION_META, take_meta, "size, times and version, an empty line, the value"},
    {"ttl", 0, "DURATION", OPTION_TTL, take_ttl, "expires so long from now (0: never)"},
    {"at", 0, "TIME", OPTION_AT, take_at, "expires at an RFC 3339 time or epoch seconds"},
    {"every", 0, "DURATION", OPTION_EVERY, take_every,
     "expires at the clock's next multiple: 5m is :00, :05, :10 ..."},
    {"sliding", 0, "DURATION", OPTION_SLIDING, take_sliding,
     "expires so long after it was last read"},
    {"stale", 0, "DURATION", OPTION_STALE, take_stale,
     "may be served stale for so long after it expired"},
    {"jitter", 0, "DURATION", OPTION_JITTER, take_jitter,
     "expires earlier by a random time up to this"},
    {"max-lifetime", 0, "DURATION", OPTION_MAX_LIFETIME, take_max_lifetime,
     "no read extends it past so long from now"},
    {"negative", 0, NULL, OPTION_NEGATIVE, take_negative,
     "the key is known to have no value: VALUE is left out"},
    {"group", 0, "NAME", OPTION_GROUP, take_group, "the entry's group; what is invalidated"},
    {"tag", 0, "NAME", OPTION_TAG, take_tag, "a tag, likewise; may be repeated"},
    {"prefix", 0, "PREFIX", OPTION_PREFIX, take_prefix, "keys that begin so"},
    {"match", 0, "GLOB", OPTION_MATCH, take_match, "keys that match *, ?, [a-z], [!a-z], \\X"},
    {"count", 0, NULL, OPTION_COUNT, take_count, "say how many live entries there were"},
    {"long", 'l', NULL, OPTION_LONG, take_long, "size, remaining time and time of writing too"},
    {"limit", 'n', "N", OPTION_LIMIT, take_limit, "at most so many keys, or events"},
    {"size", 0, "SIZE", OPTION_SIZE, take_size,
     "bytes of the map, like 256M (else 256M, at most half of what is free)"},
    {"hot-size", 0, "SIZE", OPTION_HOT_SIZE, take_hot_size,
     "bytes of its hot set, beside it (else two fifths of the map's)"},
    {"max-value", 0, "SIZE", OPTION_MAX_VALUE, take_max_value,
     "the largest value it will take (else 8M; never above a sixteenth of SIZE)"},
    {"kind", 0, "KIND", OPTION_KIND, take_kind,
     "set, delete, invalidate, evict, expire or event; may be repeated"},
    {"name", 0, "NAME", OPTION_NAME, take_name, "named events of that name; may be repeated"},
    {"wait", 0, "DURATION", OPTION_WAIT, take_wait, "end after so long"},
    {"read-through", 0, "DURATION", OPTION_READ_THROUGH, take_read_through,
     "have larderd ask Redis for what is not here, and wait at most so long"},
    {"once", 0, NULL, OPTION_ONCE, take_once, "print one screen and end"},
    {"interval", 0, "DURATION", OPTION_INTERVAL, take_interval, "between two screens (else 2s)"},
};
enum { ROW_COUNT = sizeof rows / sizeof rows[0], FIRST_VALUE = 256 };

/* One run of getopt over argv with the options of mask; stops at the first argument where stop. */
static enum options_result read_options(struct tool *tool, unsigned mask, bool stop, int argc,
                                        char **argv)
{
    struct option known[ROW_COUNT + 1];
    char letters[2 * ROW_COUNT + 3] = "";
    size_t count = 0;
    size_t length = 0;
    letters[length++] = stop ? '+' : ':'; /* ':' alone: a missing argument is told apart */
    if (stop) {
        letters[length++] = ':';
    }
    for (int i = 0; i < ROW_COUNT; i++) {
        if ((rows[i].bit & mask) == 0) {
            continue;
        }
        int has_argument = rows[i].argument != NULL ? required_argument : no_argument;
        known[count++] = (struct option){rows[i].name, has_argument, NULL, FIRST_VALUE + i};
        if (rows[i].letter != 0) {
            letters[length++] = rows[i].letter;
            if (has_argument == required_argument) {
                letters[length++] = ':';
            }
        }
    }
    known[count] = (struct option){NULL, 0, NULL, 0};
    letters[length] = '\0';

    const char *where = tool->command == NULL ? "" : tool->command->name;
    const char *colon = tool->command == NULL ? "" : ": ";
    opterr = 0;
    optind = 0; /* glibc: begin anew */
    int found;
    while ((found = getopt_long(argc, argv, letters, known, NULL)) != -1) {
        const option_row *row = NULL;
        for (int i = 0; i < ROW_COUNT; i++) {
            if (found == FIRST_VALUE + i || (rows[i].letter != 0 && found == rows[i].letter)) {
                row = &rows[i];
            }
        }
        parse_error error;
        if (found == ':') {
            output_error("%s%soption \"%.100s\" wants an argument", where, colon, argv[optind - 1]);
            return OPTIONS_WRONG;
        }
        if (row == NULL) { /* '?': a short one is in optopt, and optind may not have moved */
            char letter[] = {'-', (char)optopt, '\0'};
            bool is_short = optopt > 0 && optopt < FIRST_VALUE;
            output_error("%s%sunknown option \"%.100s\" (\"--\" goes before a word that only looks "
                         "like one)",
                         where, colon, is_short ? letter : argv[optind - 1]);
            return OPTIONS_WRONG;
        }
        if (row->take == NULL) {
            return row->bit == OPTION_HELP ? OPTIONS_HELP : OPTIONS_VERSION;
        }
        if (!row->take(tool, optarg, &error)) {
            output_error("%s%s--%s: %s", where, colon, row->name, error.text);
            return OPTIONS_WRONG;
        }
    }
    return OPTIONS_RUN;
}

enum options_result options_read(struct tool *tool, int argc, char **argv)
{
    enum options_result result =
        read_options(tool, OPTIONS_GENERAL | OPTION_VERSION, true, argc, argv);
    if (result != OPTIONS_RUN || optind >= argc) {
        return result;
    }
    const char *name = argv[optind];
    tool->command = tool_find_command(name);
    if (tool->command == NULL) {
        output_error("no command \"%.100s\"; try \"larder help\"", name);
        return OPTIONS_WRONG;
    }
    int first = optind;
    tool->tags = calloc((size_t)argc, sizeof *tool->tags);
    tool->targets = calloc((size_t)argc, sizeof *tool->targets);
    tool->names = calloc((size_t)argc, sizeof *tool->names);
    if (tool->tags == NULL || tool->targets == NULL || tool->names == NULL) {
        output_error("out of memory");
        return OPTIONS_WRONG;
    }
    result = read_options(tool, OPTIONS_GENERAL | tool->command->options, false, argc - first,
                          argv + first);
    if (result != OPTIONS_RUN) {
        return result;
    }
    tool->arguments = argv + first + optind;
    tool->argument_count = argc - first - optind;
    if (tool->argument_count < tool->command->least ||
        (tool->command->most >= 0 && tool->argument_count > tool->command->most)) {
        output_error("usage: larder %s%s%s", tool->command->name,
                     tool->command->usage[0] != '\0' ? " " : "", tool->command->usage);
        return OPTIONS_WRONG;
    }
    return OPTIONS_RUN;
}

void options_print(unsigned mask)
{
    for (int i = 0; i < ROW_COUNT; i++) {
        if ((rows[i].bit & mask) == 0) {
            continue;
        }
        char names[64];
        (void)snprintf(names, sizeof names, "%c%c%s--%s%s%s", rows[i].letter != 0 ? '-' : ' ',
                       rows[i].letter != 0 ? rows[i].letter : ' ',
                       rows[i].letter != 0 ? ", " : "  ", rows[i].name,
                       rows[i].argument != NULL ? " " : "",
                       rows[i].argument != NULL ? rows[i].argument : "");
        (void)printf("  %-24s %s\n", names, rows[i].help);
    }
}
