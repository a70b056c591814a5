/* tool.h: what the parts of larder, the admin tool, share: its state, its exit codes, the table of
 * commands and the table of options. Commands are functions of cmd_*.c; each opens nothing itself
 * unless it says so, writes its result to standard output and returns an exit code.
 */
#ifndef LARDER_TOOLS_TOOL_H
#define LARDER_TOOLS_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "larder.h"

enum tool_exit {
    TOOL_OK = 0,          /* done; a hit */
    TOOL_MISS = 1,        /* a key is not there */
    TOOL_USAGE = 2,       /* the request is not valid, or not supported */
    TOOL_CANNOT_OPEN = 3, /* no such map, no access, foreign format, no space */
    TOOL_CORRUPT = 4,     /* damage was found */
    TOOL_BUSY = 5,        /* another process held a lock past the deadline */
    TOOL_FAILED = 6       /* anything else: full, out of memory, output could not be written */
};

enum tool_access {
    ACCESS_NONE,    /* the command needs no map, or opens it itself */
    ACCESS_EXAMINE, /* the map must exist; nothing is changed, damage stays as it is found */
    ACCESS_ATTACH,  /* the map must exist */
    ACCESS_CREATE   /* the map is made where it is missing */
};

enum tool_target_kind { TARGET_GROUP, TARGET_TAG, TARGET_PREFIX, TARGET_MATCH };

struct tool_target { /* of invalidate; the prefix of follow */
    enum tool_target_kind kind;
    larder_bytes name;
};

struct tool {
    /* options */
    const char *dir, *map; /* dir NULL: the library's rule */
    bool json, hex, meta, long_listing;
    const char *expiry_option; /* which of OPTIONS_EXPIRY was given, or NULL */
    larder_expiry expiry;
    larder_bytes group, *tags; /* tags: room for one a word of the command line */
    size_t tag_count;
    int64_t stale_ms, jitter_ms, max_lifetime_ms;
    bool negative, count;
    larder_bytes match;          /* of ls; data NULL: none */
    struct tool_target *targets; /* of invalidate, in their order; room for one a word */
    size_t target_count;
    uint64_t limit;                     /* 0: none */
    uint64_t size, hot_size, max_value; /* bytes; 0: the library's defaults */
    uint32_t kinds;                     /* LARDER_EVENT_*; 0: all */
    larder_bytes *names;                /* room for one a word of the command line */
    size_t name_count;
    bool once, has_wait;
    int64_t wait_ms, interval_ms; /* interval 0: not given */
    int64_t read_through_ms;      /* 0: Redis is not asked */
    /* what is left */
    char **arguments;
    int argument_count;
    const struct command *command;
    larder *handle;
};

/* Bits of struct command.options; the rows are in options.c. */
enum {
    OPTION_DIR = 1u << 0,
    OPTION_MAP = 1u << 1,
    OPTION_JSON = 1u << 2,
    OPTION_HEX = 1u << 3,
    OPTION_META = 1u << 4,
    OPTION_TTL = 1u << 5,
    OPTION_AT = 1u << 6,
    OPTION_EVERY = 1u << 7,
    OPTION_GROUP = 1u << 8,
    OPTION_TAG = 1u << 9,
    OPTION_LONG = 1u << 10,
    OPTION_LIMIT = 1u << 11,
    OPTION_SIZE = 1u << 12,
    OPTION_HOT_SIZE = 1u << 16,
    OPTION_MAX_VALUE = 1u << 13,
    OPTION_HELP = 1u << 14,
    OPTION_VERSION = 1u << 15,
    OPTION_SLIDING = 1u << 17,
    OPTION_STALE = 1u << 18,
    OPTION_JITTER = 1u << 19,
    OPTION_MAX_LIFETIME = 1u << 20,
    OPTION_NEGATIVE = 1u << 21,
    OPTION_PREFIX = 1u << 22,
    OPTION_MATCH = 1u << 23,
    OPTION_COUNT = 1u << 24,
    OPTION_KIND = 1u << 25,
    OPTION_NAME = 1u << 26,
    OPTION_WAIT = 1u << 27,
    OPTION_ONCE = 1u << 28,
    OPTION_INTERVAL = 1u << 29,
    OPTION_READ_THROUGH = 1u << 30,
    OPTIONS_GENERAL = OPTION_DIR | OPTION_MAP | OPTION_JSON | OPTION_HEX | OPTION_HELP,
    OPTIONS_EXPIRY = OPTION_TTL | OPTION_AT | OPTION_EVERY | OPTION_SLIDING,
    OPTIONS_POLICY = OPTIONS_EXPIRY | OPTION_GROUP | OPTION_TAG | OPTION_STALE | OPTION_JITTER |
                     OPTION_MAX_LIFETIME | OPTION_NEGATIVE
};

struct command {
    const char *name;
    const char *usage;   /* its arguments, behind the name */
    const char *summary; /* one line */
    int least, most;     /* arguments; most -1: any number */
    unsigned options;    /* beside OPTIONS_GENERAL */
    enum tool_access access;
    int (*run)(struct tool *tool);
};

extern const struct command tool_commands[]; /* ends with a row whose name is NULL */

const struct command *tool_find_command(const char *name);

/* ---- options.c */

enum options_result {
    OPTIONS_RUN,     /* go on */
    OPTIONS_HELP,    /* --help was asked for */
    OPTIONS_VERSION, /* --version was asked for */
    OPTIONS_WRONG    /* a message has been written */
};

/* Read the command line: general options, the command, its options and arguments in any order, "--"
 * before those that begin with "-". tool->command is NULL where none was named. */
enum options_result options_read(struct tool *tool, int argc, char **argv);

/* One line for each option in mask, indented. */
void options_print(unsigned mask);

/* ---- larder.c */

/* Open the map as tool's options say. TOOL_OK, or an exit code after a message. */
int tool_open(struct tool *tool, enum tool_access access);

/* The key that an argument means: its bytes, or what its hexadecimal digits stand for with --hex
 * (in place: the argument is overwritten). TOOL_OK, or TOOL_USAGE after a message. */
int tool_key(const struct tool *tool, char *argument, larder_bytes *key);

/* Exit code for one of the library's error codes. */
int tool_exit_of(int code);

/* Say on standard error what went wrong with what ("get", "open the map"; key may be NULL) in the
 * library's words, and return the exit code. Must follow the failed call directly. */
int tool_fail(const struct tool *tool, int code, const larder_bytes *key);

/* ms since the epoch. */
int64_t tool_now_ms(void);

/* ---- cmd_*.c */
/* LARDER_EVENT_* of a name that follow prints; 0: there is none such. */
uint32_t tool_event_kind(const char *name);

int cmd_get(struct tool *tool);
int cmd_set(struct tool *tool);
int cmd_rm(struct tool *tool);
int cmd_ls(struct tool *tool);
int cmd_invalidate(struct tool *tool);
int cmd_clear(struct tool *tool);
int cmd_stat(struct tool *tool);
int cmd_check(struct tool *tool);
int cmd_readers(struct tool *tool);
int cmd_create(struct tool *tool);
int cmd_follow(struct tool *tool);
int cmd_publish(struct tool *tool);
int cmd_top(struct tool *tool);
int cmd_warm(struct tool *tool);
int cmd_version(struct tool *tool);
int cmd_help(struct tool *tool);

#endif
