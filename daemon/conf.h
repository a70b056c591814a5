/* conf.h: larderd's settings: one struct, one table (conf_table.c) with a row per setting, and the
 * reader that fills the first from a libconfig file and from flags by the second. main.c calls it
 * at start, for --check and at each reload. It opens no map and no socket; it prints nothing:
 * problems are collected, every one with its place.
 */
#ifndef LARDER_DAEMON_CONF_H
#define LARDER_DAEMON_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define CONF_FILE_DEFAULT "/etc/larder/larder.conf"
#define CONF_FILE_MAX (1u << 20) /* bytes of a configuration file */
#define CONF_BEYOND INT64_MAX    /* stands for a number of more than 64 bits */
#define CONF_TEXT_MAX 4096u      /* bytes of a text setting */
#define CONF_PROBLEMS_MAX 100u   /* problems kept; the rest is counted */
#define CONF_ROWS_MAX 96u

struct conf { /* texts are owned, never NULL; "" = not set; sizes in bytes, times in ms */
    char *log_level;
    int64_t drain_ms;
    struct {
        char *name, *dir, *owner, *group;
        int64_t size, hot_size, max_value, write_wait_ms, mode;
        bool protect, hot_set;
    } map;
    struct {
        char *url, *user, *password_file, *prefix, *foreign;
        int64_t connect_timeout_ms, reply_timeout_ms, ping_ms, verify_ms, linger_ms;
        int64_t backoff_min_ms, backoff_max_ms, park_ms, retry_max_ms;
        int64_t breaker_failures, breaker_open_ms;
        int64_t batch_commands, batch_bytes, batches_in_flight, retry_entries;
        int64_t inline_value, stream_bytes, max_reply, busy_poll_us;
    } redis;
    struct {
        char *ca, *ca_dir, *cert, *key, *server_name;
    } tls;
    struct {
        char *user, *password_file;
    } sentinel;
    struct {
        double watermark;
        int64_t period_ms, pass_ms, readers_ms, tombstone_ms, verify_rate;
    } janitor;
    struct {
        char *listen, *token_file;
        int64_t connections, timeout_ms;
    } web;
    unsigned line[CONF_ROWS_MAX]; /* per row: line of the file, 0 = default, CONF_FROM_FLAG */
};

#define CONF_FROM_FLAG UINT32_MAX

/* redis.foreign as a number, enum replicator_foreign; -1: none of them. */
int conf_foreign_number(const char *text);

enum conf_type {
    CONF_TEXT,     /* char *: text */
    CONF_BOOL,     /* bool: true or false */
    CONF_INTEGER,  /* int64_t: a whole number */
    CONF_SIZE,     /* int64_t: bytes, a number or "64K", "8M", "2G", "1T" (powers of 1,024) */
    CONF_DURATION, /* int64_t, ms: seconds, or "250ms", "30s", "5m", "2h", "1d" */
    CONF_SHARE,    /* double: a fraction */
    CONF_MODE      /* int64_t: permissions as octal text, "2770" */
};

enum conf_reload {                  /* what it takes to change the setting while larderd runs */
                   CONF_LIVE,       /* SIGHUP */
                   CONF_REPLICATOR, /* SIGHUP, which connects to Redis anew */
                   CONF_RESTART     /* a restart of larderd */
};

typedef struct conf_row {
    const char *name; /* "map.size"; without a dot: at the top of the file */
    enum conf_type type;
    size_t offset;       /* in struct conf */
    double least, most;  /* in the struct's unit; both 0: any */
    const char *initial; /* default, as it would be written in the file */
    enum conf_reload reload;
    const char *doc; /* sentences; one paragraph */
    /* A further test of the value; false and a sentence in error. NULL: none. */
    bool (*check)(const void *value, char *error, size_t error_size);
} conf_row;

extern const conf_row conf_rows[];
extern const size_t conf_row_count;
const conf_row *conf_row_find(const char *name); /* NULL: no such setting */

typedef struct conf_problems {
    char *text[CONF_PROBLEMS_MAX]; /* "FILE:LINE: what is wrong" */
    size_t count;                  /* all of them; those past the limit have no text */
} conf_problems;

void conf_problem(conf_problems *problems, const char *file, unsigned line, const char *format, ...)
    __attribute__((format(printf, 4, 5))); /* line 0: left out; file NULL: both are */
/* The same of a setting, with the place where it was set. */
void conf_setting_problem(const struct conf *conf, const char *file, const char *setting,
                          conf_problems *problems, const char *text);
void conf_problems_free(conf_problems *problems);

typedef struct conf_flag { /* a setting from the command line */
    const char *option;    /* "--map", for messages */
    const char *setting;   /* "map.name" */
    const char *value;
} conf_flag;

/* Defaults, then the file, then the flags, then what only makes sense together; everything wrong is
 * added to problems. must_exist false: an absent file is no problem. Always fills *conf (release it
 * with conf_free); use it only if problems->count did not grow. */
void conf_read(struct conf *conf, const char *file, bool must_exist, const conf_flag *flags,
               size_t flag_count, conf_problems *problems);
void conf_free(struct conf *conf);

/* Take text as the file would give it in quotes. False: *conf is unchanged, a sentence in error. */
bool conf_set(struct conf *conf, const conf_row *row, const char *text, char *error,
              size_t error_size);
/* The value as it would be written in the file, without quotes: "8M", "30s", "true". */
void conf_format(const struct conf *conf, const conf_row *row, char *out, size_t size);
bool conf_same(const struct conf *a, const struct conf *b, const conf_row *row);
/* Give the row's value of from to conf. False: no memory. */
bool conf_copy(struct conf *conf, const struct conf *from, const conf_row *row);

/* For --help-settings, and doc/larder.conf.example. */
void conf_print_help(FILE *out);
void conf_print_example(FILE *out);

/* Parsers, pure. False: not in that form. What is beyond 64 bits is CONF_BEYOND: it is in no
 * setting's range. */
bool conf_parse_size(const char *text, int64_t *bytes);
bool conf_parse_duration(const char *text, int64_t *milliseconds);

/* Where --listen points: "unix:/path", "127.0.0.1:9100", "[::1]:9100", "localhost:9100". */
typedef struct conf_listen {
    bool is_unix, loopback;
    char path[104];   /* unix */
    char address[64]; /* numeric */
    unsigned port;    /* 0: the kernel chooses */
} conf_listen;
bool conf_parse_listen(const char *text, conf_listen *out, char *error, size_t error_size);

/* Internal to conf*.c: the text of the file as libconfig 1.5 can be trusted with it. */
bool conf_prepare_text(const char *file, char *text, size_t size, char **prepared,
                       conf_problems *problems);

#endif
