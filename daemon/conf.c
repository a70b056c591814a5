/* conf.c: reading larderd's settings by the table of conf_table.c; see conf.h. libconfig parses;
 * which names, types and ranges are right is decided here, with the place of every mistake.
 */
#include "daemon/conf.h"

#include <errno.h>
#include <fcntl.h>
#include <libconfig.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/replicator.h"

static void *field(const struct conf *conf, const conf_row *row)
{
    return (char *)(uintptr_t)conf + row->offset;
}

/* ---- Problems -------------------------------------------------------------------------------- */

void conf_problem(conf_problems *problems, const char *file, unsigned line, const char *format, ...)
{
    size_t index = problems->count++;
    if (index >= CONF_PROBLEMS_MAX) {
        return;
    }
    char raw[1024], escaped[2048], place[512] = "", name[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(raw, sizeof raw, format, arguments);
    va_end(arguments);
    if (file) {
        log_escape(name, sizeof name, file);
        if (line) {
            snprintf(place, sizeof place, "%s:%u: ", name, line);
        } else {
            snprintf(place, sizeof place, "%s: ", name);
        }
    }
    /* Quotes are ours; everything else that a file may hold is made harmless. */
    size_t length = 0;
    for (const char *at = raw; *at && length + 8 < sizeof escaped; at++) {
        char one[2] = {*at, '\0'};
        length += *at == '"' || *at == '\\'
                      ? (size_t)snprintf(escaped + length, sizeof escaped - length, "%c", *at)
                      : log_escape(escaped + length, sizeof escaped - length, one);
    }
    escaped[length] = '\0';
    if (asprintf(&problems->text[index], "%s%s", place, escaped) < 0) {
        problems->text[index] = NULL;
    }
}

void conf_problems_free(conf_problems *problems)
{
    for (size_t i = 0; i < problems->count && i < CONF_PROBLEMS_MAX; i++) {
        free(problems->text[i]);
        problems->text[i] = NULL;
    }
    problems->count = 0;
}

/* ---- One value ------------------------------------------------------------------------------- */

/* given: the value as it was written, of any bytes. */
static bool in_range(const conf_row *row, double value, const char *given, char *error,
                     size_t error_size)
{
    if ((row->least == 0 && row->most == 0) || (value >= row->least && value <= row->most)) {
        return true;
    }
    if (row->type == CONF_MODE) {
        snprintf(error, error_size, "must be octal, 0 to 7777, not %.40s", given);
        return false;
    }
    char least[32], most[32];
    struct conf scratch;
    memset(&scratch, 0, sizeof scratch);
    double bounds[2] = {row->least, row->most};
    for (int i = 0; i < 2; i++) {
        if (row->type == CONF_SHARE) {
            *(double *)field(&scratch, row) = bounds[i];
        } else {
            *(int64_t *)field(&scratch, row) = (int64_t)bounds[i];
        }
        conf_format(&scratch, row, i ? most : least, sizeof least);
    }
    snprintf(error, error_size, "must be %s to %s, not %.40s", least, most, given);
    return false;
}

/* Store a number of a row of any numeric type, if range and check allow it. */
static bool store_number(struct conf *conf, const conf_row *row, int64_t value, const char *given,
                         char *error, size_t error_size)
{
    if (!in_range(row, (double)value, given, error, error_size) ||
        (row->check && !row->check(&value, error, error_size))) {
        return false;
    }
    *(int64_t *)field(conf, row) = value;
    return true;
}

static bool store_share(struct conf *conf, const conf_row *row, double value, const char *given,
                        char *error, size_t error_size)
{
    if (!in_range(row, value, given, error, error_size)) { /* NaN is not in any range */
        return false;
    }
    *(double *)field(conf, row) = value;
    return true;
}

static bool store_text(struct conf *conf, const conf_row *row, const char *text, char *error,
                       size_t error_size)
{
    if (strlen(text) > CONF_TEXT_MAX) {
        snprintf(error, error_size, "is %zu bytes: the limit is %u", strlen(text), CONF_TEXT_MAX);
        return false;
    }
    if (row->check && !row->check(text, error, error_size)) {
        return false;
    }
    char *copy = strdup(text);
    if (!copy) {
        snprintf(error, error_size, "no memory");
        return false;
    }
    char **place = field(conf, row);
    free(*place);
    *place = copy;
    return true;
}

/* One beyond 64 bits is the largest, or the smallest: no range reaches that far. */
static bool parse_integer(const char *text, int base, int64_t *value)
{
    char *end;
    if (!*text || strspn(text, "+-0123456789") != strlen(text)) {
        return false;
    }
    *value = strtoll(text, &end, base);
    return *end == '\0' && end != text;
}

bool conf_set(struct conf *conf, const conf_row *row, const char *text, char *error,
              size_t error_size)
{
    int64_t number = 0;
    double share;
    char *end;
    snprintf(error, error_size, "is not valid");
    switch (row->type) {
    case CONF_TEXT:
        return store_text(conf, row, text, error, error_size);
    case CONF_BOOL:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
            snprintf(error, error_size, "must be true or false");
            return false;
        }
        *(bool *)field(conf, row) = text[0] == 't';
        return true;
    case CONF_INTEGER:
        if (!parse_integer(text, 10, &number)) {
            snprintf(error, error_size, "must be a whole number");
            return false;
        }
        return store_number(conf, row, number, text, error, error_size);
    case CONF_MODE:
        if (!parse_integer(text, 8, &number)) {
            snprintf(error, error_size, "must be permissions in octal, as \"2770\"");
            return false;
        }
        return store_number(conf, row, number, text, error, error_size);
    case CONF_SIZE:
        if (!conf_parse_size(text, &number)) {
            snprintf(error, error_size,
                     "must be a size: a number of bytes, or one with K, M, G, T");
            return false;
        }
        return store_number(conf, row, number, text, error, error_size);
    case CONF_DURATION:
        if (!conf_parse_duration(text, &number)) {
            snprintf(error, error_size,
                     "must be a duration: seconds, or a number with ms, s, m, h, d");
            return false;
        }
        return store_number(conf, row, number, text, error, error_size);
    case CONF_SHARE:
        share = strtod(text, &end);
        if (end == text || *end) {
            snprintf(error, error_size, "must be a fraction like 0.9");
            return false;
        }
        return store_share(conf, row, share, text, error, error_size);
    }
    return false;
}

bool conf_same(const struct conf *a, const struct conf *b, const conf_row *row)
{
    switch (row->type) {
    case CONF_TEXT:
        return strcmp(*(char **)field(a, row), *(char **)field(b, row)) == 0;
    case CONF_BOOL:
        return *(bool *)field(a, row) == *(bool *)field(b, row);
    case CONF_SHARE:
        return memcmp(field(a, row), field(b, row), sizeof(double)) == 0;
    default:
        return *(int64_t *)field(a, row) == *(int64_t *)field(b, row);
    }
}

bool conf_copy(struct conf *conf, const struct conf *from, const conf_row *row)
{
    size_t index = (size_t)(row - conf_rows);
    char *copy;
    switch (row->type) {
    case CONF_TEXT:
        copy = strdup(*(char **)field(from, row));
        if (!copy) {
            return false;
        }
        free(*(char **)field(conf, row));
        *(char **)field(conf, row) = copy;
        break;
    case CONF_BOOL:
        *(bool *)field(conf, row) = *(bool *)field(from, row);
        break;
    default: /* int64_t and double are of one size */
        memcpy(field(conf, row), field(from, row), sizeof(int64_t));
        break;
    }
    conf->line[index] = from->line[index];
    return true;
}

void conf_free(struct conf *conf)
{
    for (size_t i = 0; i < conf_row_count; i++) {
        if (conf_rows[i].type == CONF_TEXT) {
            free(*(char **)field(conf, &conf_rows[i]));
        }
    }
    memset(conf, 0, sizeof *conf);
}

/* ---- The file -------------------------------------------------------------------------------- */

static const char *const type_names[] = {"nothing",       "a group",    "a number",
                                         "a number",      "a fraction", "text",
                                         "a truth value", "an array",   "a list"};

static const char *wanted(enum conf_type type)
{
    switch (type) {
    case CONF_TEXT:
        return "text in quotes";
    case CONF_BOOL:
        return "true or false";
    case CONF_INTEGER:
        return "a whole number";
    case CONF_SIZE:
        return "a number of bytes or text like \"8M\"";
    case CONF_DURATION:
        return "a number of seconds or text like \"30s\"";
    case CONF_SHARE:
        return "a fraction like 0.9";
    case CONF_MODE:
        return "octal permissions in quotes, like \"2770\"";
    }
    return "";
}

/* Give a file's value to its row. */
static bool take_value(struct conf *conf, const conf_row *row, const config_setting_t *setting,
                       char *error, size_t error_size)
{
    int type = config_setting_type(setting);
    bool whole = type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64;
    long long number = whole ? config_setting_get_int64(setting) : 0;
    if (type == CONFIG_TYPE_STRING && (row->type == CONF_TEXT || row->type == CONF_SIZE ||
                                       row->type == CONF_DURATION || row->type == CONF_MODE)) {
        return conf_set(conf, row, config_setting_get_string(setting), error, error_size);
    }
    if (type == CONFIG_TYPE_BOOL && row->type == CONF_BOOL) {
        *(bool *)field(conf, row) = config_setting_get_bool(setting) != 0;
        return true;
    }
    char given[64];
    if (whole && (number == CONF_BEYOND || number == -CONF_BEYOND)) {
        snprintf(given, sizeof given, "a number beyond 64 bits");
    } else if (whole) {
        snprintf(given, sizeof given, "%lld", number);
    } else if (type == CONFIG_TYPE_FLOAT) {
        snprintf(given, sizeof given, "%g", config_setting_get_float(setting));
    }
    if (whole && (row->type == CONF_INTEGER || row->type == CONF_SIZE)) {
        return store_number(conf, row, number, given, error, error_size);
    }
    if (row->type == CONF_DURATION && (whole || type == CONFIG_TYPE_FLOAT)) {
        double seconds = whole ? (double)number : config_setting_get_float(setting);
        if (!(seconds > -1e15 && seconds < 1e15)) { /* NaN too */
            seconds = 1e15;
        }
        double ms = seconds * 1000.0;
        return store_number(conf, row, (int64_t)(ms < 0 ? ms - 0.5 : ms + 0.5), given, error,
                            error_size);
    }
    if (row->type == CONF_SHARE && (whole || type == CONFIG_TYPE_FLOAT)) {
        return store_share(conf, row, whole ? (double)number : config_setting_get_float(setting),
                           given, error, error_size);
    }
    snprintf(error, error_size, "must be %s, not %s", wanted(row->type),
             type >= 0 && type <= 8 ? type_names[type] : "this");
    return false;
}

/* Smallest number of insertions, deletions and replacements, capped: for "did you mean". */
static unsigned distance(const char *a, const char *b)
{
    size_t length_a = strlen(a), length_b = strlen(b);
    unsigned row[64];
    if (length_a >= 63 || length_b >= 63) {
        return 100;
    }
    for (size_t j = 0; j <= length_b; j++) {
        row[j] = (unsigned)j;
    }
    for (size_t i = 1; i <= length_a; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= length_b; j++) {
            unsigned cost = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            unsigned step = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            row[j] = cost < step ? cost : step;
        }
    }
    return row[length_b];
}

static void unknown(const char *file, unsigned line, const char *name, conf_problems *problems)
{
    const char *last = strrchr(name, '.'), *nearest = NULL;
    unsigned least = 4;
    if (strcmp(last ? last + 1 : name, "password") == 0) {
        conf_problem(problems, file, line,
                     "%s: passwords do not belong in the configuration: use redis.password_file",
                     name);
        return;
    }
    for (size_t i = 0; i < conf_row_count; i++) {
        unsigned steps = distance(name, conf_rows[i].name);
        if (steps < least) {
            least = steps;
            nearest = conf_rows[i].name;
        }
    }
    if (nearest) {
        conf_problem(problems, file, line, "unknown setting %s (did you mean %s?)", name, nearest);
    } else {
        conf_problem(problems, file, line, "unknown setting %s", name);
    }
}

static bool is_group(const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < conf_row_count; i++) {
        if (strncmp(conf_rows[i].name, name, length) == 0 && conf_rows[i].name[length] == '.') {
            return true;
        }
    }
    return false;
}

static void take_group(struct conf *conf, const config_setting_t *group, const char *group_name,
                       const char *file, conf_problems *problems)
{
    for (int i = 0; i < config_setting_length(group); i++) {
        const config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
        char name[160], error[512];
        if (!setting || !config_setting_name(setting)) {
            continue;
        }
        snprintf(name, sizeof name, "%s%s%.120s", group_name, *group_name ? "." : "",
                 config_setting_name(setting));
        const conf_row *row = conf_row_find(name);
        if (row) {
            if (take_value(conf, row, setting, error, sizeof error)) {
                conf->line[row - conf_rows] = setting->line;
            } else if (config_setting_type(setting) != CONFIG_TYPE_NONE) {
                conf_problem(problems, file, setting->line, "%s %s", name, error);
            } /* else: the parser stopped in the middle of it and says so itself */
        } else if (!*group_name && is_group(name)) {
            if (config_setting_type(setting) == CONFIG_TYPE_GROUP) {
                take_group(conf, setting, name, file, problems);
            } else if (config_setting_type(setting) != CONFIG_TYPE_NONE) {
                conf_problem(problems, file, setting->line, "%s must be a group: %s = { ... };",
                             name, name);
            }
        } else {
            unknown(file, setting->line, name, problems);
        }
    }
}

/* The whole file in memory, with a zero byte behind it. Only regular files: anything else could
 * block, and libconfig ends the process over a directory. */
static char *read_whole(const char *file, bool must_exist, size_t *size, conf_problems *problems)
{
    char *text = NULL;
    struct stat status;
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        if (errno != ENOENT || must_exist) {
            conf_problem(problems, file, 0, "%s", strerror(errno));
        }
        return NULL;
    }
    if (fstat(fd, &status) != 0) {
        conf_problem(problems, file, 0, "%s", strerror(errno));
    } else if (!S_ISREG(status.st_mode)) {
        conf_problem(problems, file, 0, "not a regular file");
    } else if (status.st_size > (off_t)CONF_FILE_MAX) {
        conf_problem(problems, file, 0, "%lld bytes: the limit is %u", (long long)status.st_size,
                     CONF_FILE_MAX);
    } else if (!(text = malloc(CONF_FILE_MAX + 2))) {
        conf_problem(problems, file, 0, "no memory");
    } else {
        ssize_t got;
        *size = 0;
        do {
            got = read(fd, text + *size, CONF_FILE_MAX + 1 - *size);
            *size += got > 0 ? (size_t)got : 0;
        } while ((got > 0 && *size <= CONF_FILE_MAX) || (got < 0 && errno == EINTR));
        text[*size] = '\0';
        if (got < 0 || *size > CONF_FILE_MAX) {
            conf_problem(problems, file, 0, "%s", got < 0 ? strerror(errno) : "too large");
            free(text);
            text = NULL;
        }
    }
    close(fd);
    return text;
}

/* The setting that the parser took last, with its groups: "map.size"; "": there is none. */
static void name_last(const config_setting_t *at, char *name, size_t size)
{
    size_t length = 0;
    name[0] = '\0';
    for (int count; at && config_setting_type(at) == CONFIG_TYPE_GROUP; length = strlen(name)) {
        count = config_setting_length(at);
        at = count > 0 ? config_setting_get_elem(at, (unsigned)count - 1) : NULL;
        if (at && config_setting_name(at)) {
            snprintf(name + length, size - length, "%s%.120s", length ? "." : "",
                     config_setting_name(at));
        }
    }
}

static void syntax_problem(const config_t *parsed, const char *file, conf_problems *problems)
{
    const char *text = config_error_text(parsed);
    char last[400];
    bool syntax = !text || strcmp(text, "syntax error") == 0;
    name_last(config_root_setting(parsed), last, sizeof last);
    conf_problem(problems, file, (unsigned)config_error_line(parsed), "%s%s%s%s",
                 text ? text : "syntax error", syntax && *last ? " at or after " : "",
                 syntax ? last : "",
                 syntax ? " (a setting is NAME = VALUE; a group NAME = { ... };)" : "");
}

static void read_file(struct conf *conf, const char *file, bool must_exist, conf_problems *problems)
{
    size_t size;
    char *prepared = NULL, *text = read_whole(file, must_exist, &size, problems);
    if (text && conf_prepare_text(file, text, size, &prepared, problems)) {
        config_t parsed;
        config_init(&parsed);
        bool whole = config_read_string(&parsed, prepared) == CONFIG_TRUE;
        if (!whole) {
            syntax_problem(&parsed, file, problems);
        }
        /* What stood before a syntax error is looked at too. */
        take_group(conf, config_root_setting(&parsed), "", file, problems);
        config_destroy(&parsed);
    }
    free(prepared);
    free(text);
}

/* ---- All of it ------------------------------------------------------------------------------- */

/* The place is its line of the file, its flag, or nowhere. */
void conf_setting_problem(const struct conf *conf, const char *file, const char *setting,
                          conf_problems *problems, const char *text)
{
    unsigned line = conf->line[conf_row_find(setting) - conf_rows];
    bool in_file = line != 0 && line != CONF_FROM_FLAG;
    conf_problem(problems, in_file ? file : NULL, in_file ? line : 0, "%s: %s", setting, text);
}

static void check_together(const struct conf *conf, const char *file, conf_problems *problems)
{
    if (conf->redis.backoff_max_ms < conf->redis.backoff_min_ms) {
        conf_setting_problem(conf, file, "redis.backoff_max", problems,
                             "must not be less than redis.backoff_min");
    }
    if (conf->redis.batch_bytes > conf->redis.max_reply) {
        conf_setting_problem(conf, file, "redis.batch_bytes", problems,
                             "must not be more than redis.max_reply");
    }
    if (conf->map.size && conf->map.max_value > conf->map.size / 16) {
        size_t index = (size_t)(conf_row_find("map.max_value") - conf_rows);
        if (conf->line[index]) {
            conf_setting_problem(conf, file, "map.max_value", problems,
                                 "must not be more than a sixteenth of map.size");
        }
    }
    const char *at = strchr(conf->redis.url, '@');
    if (*conf->redis.user && at) {
        conf_setting_problem(conf, file, "redis.user", problems,
                             "is given although redis.url names a user");
    }
}

/* A setting of TLS beside a URL without it, or without any, is a mistake that must not pass in
 * silence: nobody would read the files that it names. */
static void check_tls(const struct conf *conf, const char *file, conf_problems *problems)
{
    static const char *const names[] = {"tls.ca", "tls.ca_dir", "tls.cert", "tls.key",
                                        "tls.server_name"};
    const char *const values[] = {conf->tls.ca, conf->tls.ca_dir, conf->tls.cert, conf->tls.key,
                                  conf->tls.server_name};
    if (!replicator_url_is_tls(conf->redis.url)) {
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            if (*values[i]) {
                conf_setting_problem(conf, file, names[i], problems,
                                     "is given, but redis.url does not ask for TLS (rediss://)");
            }
        }
    }
    if (*conf->tls.key && !*conf->tls.cert) {
        conf_setting_problem(conf, file, "tls.key", problems, "needs tls.cert");
    }
}

void conf_read(struct conf *conf, const char *file, bool must_exist, const conf_flag *flags,
               size_t flag_count, conf_problems *problems)
{
    char error[512];
    memset(conf, 0, sizeof *conf);
    for (size_t i = 0; i < conf_row_count; i++) {
        if (!conf_set(conf, &conf_rows[i], conf_rows[i].initial, error, sizeof error)) {
            conf_problem(problems, NULL, 0, "the default of %s %s", conf_rows[i].name, error);
        }
    }
    read_file(conf, file, must_exist, problems);
    for (size_t i = 0; i < flag_count; i++) {
        const conf_row *row = conf_row_find(flags[i].setting);
        if (conf_set(conf, row, flags[i].value, error, sizeof error)) {
            conf->line[row - conf_rows] = CONF_FROM_FLAG;
        } else {
            conf_problem(problems, NULL, 0, "%s: %s %s", flags[i].option, flags[i].setting, error);
        }
    }
    check_together(conf, file, problems);
    check_tls(conf, file, problems);
}
