/* conf_table.c: a row for every setting of larderd: the only place that names its type, range,
 * unit, default and meaning. conf.c reads files by it; --help-settings, doc/larder.conf.example and
 * the report of a reload are printed from it.
 */
#include "daemon/conf.h"

#include <ctype.h>
#include <string.h>

#include "daemon/log.h"
#include "daemon/replicator.h"
#include "daemon/replicator_poll.h"

#define AT(member) offsetof(struct conf, member)

/* The beginning of a row whose setting has its member's name. */
#define TEXT(name) #name, CONF_TEXT, AT(name), 0, 0
#define BOOL(name) #name, CONF_BOOL, AT(name), 0, 0
#define MODE(name) #name, CONF_MODE, AT(name)
#define SHARE(name) #name, CONF_SHARE, AT(name)
#define INTEGER(name) #name, CONF_INTEGER, AT(name)
#define SIZE(name) #name, CONF_SIZE, AT(name)
#define DURATION(name) #name, CONF_DURATION, AT(name##_ms)

#define KIB 1024.0
#define MIB (1024.0 * KIB)
#define GIB (1024.0 * MIB)
#define SECOND 1000.0
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)

static bool check_name(const void *value, char *error, size_t error_size)
{
    const char *name = value;
    size_t length = strlen(name);
    bool good = length >= 1 && length <= 63 && name[0] != '.';
    for (size_t i = 0; good && i < length; i++) {
        good = isalnum((unsigned char)name[i]) || strchr("._-", name[i]) != NULL;
    }
    if (!good) {
        snprintf(error, error_size,
                 "must be 1 to 63 of the characters A-Z a-z 0-9 . _ - and not begin with a dot");
    }
    return good;
}

static bool check_path(const void *value, char *error, size_t error_size)
{
    const char *path = value;
    if (*path && *path != '/') {
        snprintf(error, error_size, "must be an absolute path");
        return false;
    }
    return true;
}

static bool check_map_size(const void *value, char *error, size_t error_size)
{
    int64_t size = *(const int64_t *)value;
    if (size != 0 && size < (int64_t)(16 * MIB)) {
        snprintf(error, error_size, "must be 0 (chosen by itself) or at least 16M");
        return false;
    }
    return true;
}

static bool check_hot_size(const void *value, char *error, size_t error_size)
{
    int64_t size = *(const int64_t *)value;
    if (size != 0 && size < 64 * 1024) {
        snprintf(error, error_size, "must be 0 (chosen by itself) or at least 64K");
        return false;
    }
    return true;
}

static bool check_mode(const void *value, char *error, size_t error_size)
{
    int64_t mode = *(const int64_t *)value;
    if (mode != 0 && (mode & 0700) != 0700) {
        snprintf(error, error_size, "must let the owner in (0700)");
        return false;
    }
    if (mode & 07) {
        snprintf(error, error_size,
                 "must not let everybody in: whoever opens a map is trusted "
                 "with all of it; use a group");
        return false;
    }
    return true;
}

static bool check_url(const void *value, char *error, size_t error_size)
{
    const char *url = value;
    char why[256];
    if (!*url || replicator_url_check(url, why, sizeof why) == 0) {
        return true;
    }
    snprintf(error, error_size, "cannot be used: %s", why);
    return false;
}

static bool check_server_name(const void *value, char *error, size_t error_size)
{
    const char *name = value;
    if (strlen(name) > 255 || strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                           "0123456789-._:") != strlen(name)) {
        snprintf(error, error_size, "must be a host's name or an address");
        return false;
    }
    return true;
}

static bool check_listen(const void *value, char *error, size_t error_size)
{
    conf_listen where;
    const char *text = value;
    return !*text || conf_parse_listen(text, &where, error, error_size);
}

/* enum replicator_foreign; -1: none of them. */
int conf_foreign_number(const char *text)
{
    static const char *const names[] = {"off", "tracking", "notifications"};
    for (int i = 0; i < 3; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    return -1;
}

static bool check_level(const void *value, char *error, size_t error_size)
{
    if (log_level_number(value) < 0) {
        snprintf(error, error_size, "must be error, warning, notice, info or debug");
        return false;
    }
    return true;
}

static bool check_foreign(const void *value, char *error, size_t error_size)
{
    if (conf_foreign_number(value) < 0) {
        snprintf(error, error_size, "must be off, tracking or notifications");
        return false;
    }
    return true;
}

const conf_row conf_rows[] = {
    {TEXT(log_level), "info", CONF_LIVE,
     "The least important lines that are logged: error, warning, notice, info or debug.",
     check_level},
    {DURATION(drain), 0, MINUTE, "2s", CONF_LIVE,
     "How long SIGTERM lets larderd push to Redis what waits. What is left stays in the map and is "
     "pushed by the next larderd.",
     NULL},
    {"listen", CONF_TEXT, AT(web.listen), 0, 0, "", CONF_RESTART,
     "Where /healthz, /readyz, /metrics and the status page are served: \"127.0.0.1:9121\", "
     "\"[::1]:9121\" or \"unix:/run/larder/web.sock\". Empty: nowhere. Other addresses than the "
     "loopback need listen_token_file.",
     check_listen},
    {"listen_token_file", CONF_TEXT, AT(web.token_file), 0, 0, "", CONF_LIVE,
     "File that holds a token of at least 16 characters; requests must then carry the header "
     "\"Authorization: Bearer TOKEN\". Default: $CREDENTIALS_DIRECTORY/listen-token, if it is there.",
     check_path},
    {"listen_connections", CONF_INTEGER, AT(web.connections), 1, 1024, "32", CONF_RESTART,
     "Connections served at a time; more wait to be accepted.", NULL},
    {"listen_timeout", CONF_DURATION, AT(web.timeout_ms), 100, 5 * MINUTE, "5s", CONF_RESTART,
     "How long a connection may be silent. None lasts longer than twelve times that.", NULL},

    {TEXT(map.name), "default", CONF_RESTART, "Name of the map.", check_name},
    {TEXT(map.dir), "", CONF_RESTART,
     "Directory of the maps; must be on a tmpfs to be fast. Empty: $LARDER_DIR, else /run/larder if "
     "it exists, else /dev/shm/larder-UID.",
     check_path},
    {SIZE(map.size), 0, 16 * 1024 * GIB, "0", CONF_RESTART,
     "Size of the map. 0: what it has, and for a new one 256M or half of the free space, whichever is "
     "less. A map of another size gets a new generation when larderd starts: with all that Redis has "
     "not got yet, and as much of the rest as fits.",
     check_map_size},
    {SIZE(map.hot_size), 0, 1024 * GIB, "0", CONF_RESTART,
     "Size of a new map's hot set: copies of small entries that hits read instead of the map, beside "
     "it in memory. 0: two fifths of the map's size, and no more than half of what the map leaves free.",
     check_hot_size},
    {BOOL(map.hot_set), "true", CONF_RESTART,
     "Whether a new map has a hot set. By itself a protected map has none.", NULL},
    {SIZE(map.max_value), 1, GIB, "8M", CONF_RESTART,
     "Largest value; never more than a sixteenth of the map.", NULL},
    {DURATION(map.write_wait), 1, MINUTE, "20ms", CONF_RESTART,
     "How long one write of larderd's own waits for the map's write gate before it is put off.",
     NULL},
    {MODE(map.mode), 0, 07777, "0", CONF_RESTART,
     "Permissions of the map's directory when it is made. 0: 2770, or 0700 in the user's own folder.",
     check_mode},
    {TEXT(map.owner), "", CONF_RESTART,
     "User (name or number) whom the map's directory is given to when it is made. Empty: larderd's.",
     NULL},
    {TEXT(map.group), "", CONF_RESTART,
     "Group (name or number) of the map's directory when it is made; its members can use the map. "
     "Empty: larderd's.",
     NULL},
    {BOOL(map.protect), "false", CONF_RESTART,
     "Map the data pages without write access, so that a stray store of a worker cannot damage them. "
     "Writes cost about five times as much.",
     NULL},

    {TEXT(redis.url), "", CONF_REPLICATOR,
     "redis://[USER@]HOST[:PORT][/DB] or unix:///PATH[?db=N]; rediss:// is the first with TLS. "
     "redis-cluster://[USER@]HOST[:PORT],HOST[:PORT]...: nodes of a cluster (rediss-cluster://: with TLS). "
     "redis-sentinel://[USER@]HOST[:PORT],HOST[:PORT].../SERVICE[/DB]: the master that these Sentinels "
     "name (rediss-sentinel://: they and it with TLS). Empty: host-local, nothing is replicated (going from or to empty takes a restart). A password "
     "does not belong here.",
     check_url},
    {TEXT(redis.user), "", CONF_REPLICATOR, "ACL user, where the URL does not name one.", NULL},
    {TEXT(redis.password_file), "", CONF_REPLICATOR,
     "File that holds the password; others must not be able to read it. Default: "
     "$CREDENTIALS_DIRECTORY/redis-password, if it is there. Read again at SIGHUP.",
     check_path},
    {TEXT(redis.prefix), "", CONF_REPLICATOR,
     "In front of every key in Redis. Empty: the map's name and a colon.", NULL},
    {DURATION(redis.connect_timeout), 10, 10 * MINUTE, "5s", CONF_REPLICATOR,
     "For name lookup, connect and greeting, each.", NULL},
    {DURATION(redis.reply_timeout), 10, 10 * MINUTE, "5s", CONF_REPLICATOR,
     "From sending a command to its whole reply.", NULL},
    {DURATION(redis.ping), 10, 10 * MINUTE, "2s", CONF_REPLICATOR,
     "Idle connections are probed this often.", NULL},
    {DURATION(redis.verify), 0, 7 * DAY, "10m", CONF_REPLICATOR,
     "Each entry's version is compared with its record in Redis once in so long, without sending "
     "the value. 0: only after Redis has lost its history.",
     NULL},
    {DURATION(redis.linger), 0, SECOND, "1ms", CONF_REPLICATOR,
     "How long a batch that is not full waits for more writes. A lone write does not wait.", NULL},
    {INTEGER(redis.busy_poll_us), 0, POLL_MOST_US, "100", CONF_REPLICATOR,
     "Microseconds for which larderd looks for the next miss of a worker, and a worker for its "
     "answer, before they sleep, where misses come that fast. Nobody looks where there is one "
     "processor, or where it has not paid lately. 0: never.",
     NULL},
    {DURATION(redis.backoff_min), 1, MINUTE, "100ms", CONF_REPLICATOR,
     "First pause between attempts to connect; the pauses grow and are jittered.", NULL},
    {DURATION(redis.backoff_max), 1, HOUR, "2s", CONF_REPLICATOR,
     "Longest pause between attempts to connect.", NULL},
    {DURATION(redis.park), SECOND, DAY, "30s", CONF_REPLICATOR,
     "Pause after wrong credentials or a missing permission.", NULL},
    {DURATION(redis.retry_max), 10, DAY, "1m", CONF_REPLICATOR,
     "Longest pause before a key that Redis refused is tried again.", NULL},
    {INTEGER(redis.breaker_failures), 1, 1000, "3", CONF_REPLICATOR,
     "Failures in a row that open the circuit breaker.", NULL},
    {DURATION(redis.breaker_open), 10, HOUR, "1s", CONF_REPLICATOR,
     "How long the breaker stays open before one attempt is let through.", NULL},
    {INTEGER(redis.batch_commands), 1, 4096, "128", CONF_REPLICATOR, "Commands of one batch.",
     NULL},
    {SIZE(redis.batch_bytes), KIB, 64 * MIB, "512K", CONF_REPLICATOR,
     "Bytes of one batch; a larger value goes alone.", NULL},
    {INTEGER(redis.batches_in_flight), 1, 256, "8", CONF_REPLICATOR,
     "Batches sent and not yet acknowledged.", NULL},
    {INTEGER(redis.retry_entries), 1, 1000000, "4096", CONF_REPLICATOR,
     "Keys that Redis refuses which are remembered one by one.", NULL},
    {SIZE(redis.inline_value), 0, MIB, "2K", CONF_REPLICATOR,
     "Values up to this size travel to the other hosts in their event.", NULL},
    {SIZE(redis.stream_bytes), MIB, 64 * GIB, "64M", CONF_REPLICATOR,
     "What the event stream may take in Redis.", NULL},
    {TEXT(redis.foreign), "off", CONF_REPLICATOR,
     "How to learn what other programs change in Redis: off (it shows when a value is fetched), "
     "tracking (CLIENT TRACKING of all keys with the prefix) or notifications (keyspace notifications, "
     "which the server must be set to send). Each change of a key that is here costs a look, larder's "
     "own writes included.",
     check_foreign},
    {SIZE(redis.max_reply), 64 * KIB, 2 * GIB, "16M", CONF_REPLICATOR,
     "Largest reply taken from Redis.", NULL},

    {TEXT(tls.ca), "", CONF_REPLICATOR,
     "File with the certificates (PEM) of the authorities to trust. Neither ca nor ca_dir: those of "
     "the system. All files of this group are read again at SIGHUP. The group counts only where "
     "redis.url asks for TLS; the server's chain and name are always verified, and nothing older "
     "than TLS 1.2 is spoken.",
     check_path},
    {TEXT(tls.ca_dir), "", CONF_REPLICATOR,
     "Directory of such certificates, as `openssl rehash` makes it.", check_path},
    {TEXT(tls.cert), "", CONF_REPLICATOR,
     "File with larderd's own certificate (PEM), and after it those between it and the authority, "
     "where the server asks for one.",
     check_path},
    {TEXT(tls.key), "", CONF_REPLICATOR,
     "File with the private key (PEM, not encrypted) of tls.cert; others must not be able to read "
     "it. Default: $CREDENTIALS_DIRECTORY/tls-key, if it is there.",
     check_path},
    {TEXT(tls.server_name), "", CONF_REPLICATOR,
     "Name or address that the server's certificate must have. Empty: the host that larderd "
     "connects to.",
     check_server_name},

    {TEXT(sentinel.user), "", CONF_REPLICATOR,
     "ACL user of the Sentinels, where redis.url names some; redis.user is the servers'.", NULL},
    {TEXT(sentinel.password_file), "", CONF_REPLICATOR,
     "File that holds the Sentinels' password; others must not be able to read it. Default: "
     "$CREDENTIALS_DIRECTORY/sentinel-password, if it is there. Read again at SIGHUP.",
     check_path},

    {SHARE(janitor.watermark), 0.1, 0.99, "0.90", CONF_LIVE,
     "Share of the map above which entries are evicted ahead of need.", NULL},
    {DURATION(janitor.period), 10, MINUTE, "100ms", CONF_LIVE,
     "How often the janitor takes a step.", NULL},
    {DURATION(janitor.pass), SECOND, DAY, "30s", CONF_LIVE,
     "Each expired entry is removed within this time.", NULL},
    {DURATION(janitor.readers), SECOND, HOUR, "10s", CONF_LIVE,
     "How often the reader slots of dead processes are cleared.", NULL},
    {DURATION(janitor.tombstone), MINUTE, 30 * DAY, "1d", CONF_REPLICATOR,
     "How long removals are remembered; a host that was away longer starts its clean entries anew. "
     "Must be the same on all hosts.",
     NULL},
    {INTEGER(janitor.verify_rate), 0, 1000000, "100", CONF_LIVE,
     "Entries a second whose checksums are verified in the background. 0: none.", NULL},
};

const size_t conf_row_count = sizeof conf_rows / sizeof *conf_rows;

_Static_assert(sizeof conf_rows / sizeof *conf_rows <= CONF_ROWS_MAX, "room for every row's line");

const conf_row *conf_row_find(const char *name)
{
    for (size_t i = 0; i < conf_row_count; i++) {
        if (strcmp(conf_rows[i].name, name) == 0) {
            return &conf_rows[i];
        }
    }
    return NULL;
}

static const char *type_text(enum conf_type type)
{
    switch (type) {
    case CONF_TEXT:
        return "text";
    case CONF_BOOL:
        return "true or false";
    case CONF_INTEGER:
        return "whole number";
    case CONF_SIZE:
        return "bytes, or \"64K\", \"8M\", \"2G\"";
    case CONF_DURATION:
        return "seconds, or \"250ms\", \"30s\", \"5m\", \"2h\"";
    case CONF_SHARE:
        return "fraction";
    case CONF_MODE:
        return "octal text";
    }
    return "";
}

static const char *reload_text(enum conf_reload reload)
{
    switch (reload) {
    case CONF_LIVE:
        return "SIGHUP applies it";
    case CONF_REPLICATOR:
        return "SIGHUP applies it and connects to Redis anew";
    case CONF_RESTART:
        return "takes a restart";
    }
    return "";
}

/* What a bound looks like in the file. */
static void bound_text(const conf_row *row, double bound, char *out, size_t size)
{
    struct conf scratch;
    memset(&scratch, 0, sizeof scratch);
    if (row->type == CONF_SHARE) {
        *(double *)(void *)((char *)&scratch + row->offset) = bound;
    } else {
        *(int64_t *)(void *)((char *)&scratch + row->offset) = (int64_t)bound;
    }
    conf_format(&scratch, row, out, size);
}

static void print_facts(FILE *out, const conf_row *row)
{
    fputs(type_text(row->type), out);
    if (row->type != CONF_MODE && (row->least != 0 || row->most != 0)) {
        char least[32], most[32];
        bound_text(row, row->least, least, sizeof least);
        bound_text(row, row->most, most, sizeof most);
        fprintf(out, "; %s to %s", least, most);
    }
    fprintf(out, "; %s", reload_text(row->reload));
}

/* Words of text, broken before column 96, each line after indent. */
static void print_wrapped(FILE *out, const char *indent, const char *text)
{
    size_t column = 0;
    for (const char *at = text; *at;) {
        size_t word = strcspn(at, " ");
        if (column && column + 1 + word > 96) {
            fputc('\n', out);
            column = 0;
        }
        if (!column) {
            fputs(indent, out);
            column = strlen(indent);
        } else {
            fputc(' ', out);
            column++;
        }
        fwrite(at, 1, word, out);
        column += word;
        at += word;
        at += strspn(at, " ");
    }
    fputc('\n', out);
}

static bool quoted(enum conf_type type, const char *value)
{
    if (type == CONF_TEXT || type == CONF_MODE) {
        return true;
    }
    return (type == CONF_SIZE || type == CONF_DURATION) &&
           strspn(value, "0123456789") != strlen(value);
}

void conf_print_help(FILE *out)
{
    fprintf(out, "Settings of larderd (default file: %s)\n", CONF_FILE_DEFAULT);
    for (size_t i = 0; i < conf_row_count; i++) {
        const conf_row *row = &conf_rows[i];
        const char *quote = quoted(row->type, row->initial) ? "\"" : "";
        fprintf(out, "\n%s = %s%s%s\n    (", row->name, quote, row->initial, quote);
        print_facts(out, row);
        fputs(")\n", out);
        print_wrapped(out, "    ", row->doc);
    }
}

void conf_print_example(FILE *out)
{
    char group[32] = "";
    fputs(
        "# larder.conf: settings of larderd. Every setting is shown with its default; take away\n"
        "# the \"#\" in front of one to change it. Printed by `larderd --print-example`; the same\n"
        "# table gives `larderd --help-settings`. `larderd --check -c FILE` finds mistakes.\n",
        out);
    for (size_t i = 0; i < conf_row_count; i++) {
        const conf_row *row = &conf_rows[i];
        const char *dot = strchr(row->name, '.'), *name = dot ? dot + 1 : row->name;
        const char *quote = quoted(row->type, row->initial) ? "\"" : "";
        char this_group[32];
        snprintf(this_group, sizeof this_group, "%.*s", dot ? (int)(dot - row->name) : 0,
                 row->name);
        if (strcmp(group, this_group) != 0) {
            fprintf(out, "%s\n%s = {", *group ? "};\n" : "", this_group);
            memcpy(group, this_group, sizeof group);
        }
        fputs("\n", out);
        print_wrapped(out, *group ? "    # " : "# ", row->doc);
        fputs(*group ? "    # (" : "# (", out);
        print_facts(out, row);
        fprintf(out, ")\n%s#%s = %s%s%s;\n", *group ? "    " : "", name, quote, row->initial,
                quote);
    }
    fputs(*group ? "};\n" : "", out);
}
