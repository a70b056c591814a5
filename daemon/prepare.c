/* prepare.c: see prepare.h.
 */
#include "daemon/prepare.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/secret.h"

#define TOKEN_LEAST 16 /* bytes */

/* A number as it is; else what the lookup finds. -2: nothing. */
static int64_t find_id(const char *text, int64_t (*look_up)(const char *name))
{
    char *end;
    if (!*text) {
        return -1;
    }
    if (strspn(text, "0123456789") == strlen(text)) {
        errno = 0;
        unsigned long number = strtoul(text, &end, 10);
        return errno || number >= UINT32_MAX ? -2 : (int64_t)number;
    }
    return look_up(text);
}

static int64_t look_up_user(const char *name)
{
    const struct passwd *found = getpwnam(name);
    return found ? (int64_t)found->pw_uid : -2;
}

static int64_t look_up_group(const char *name)
{
    const struct group *found = getgrnam(name);
    return found ? (int64_t)found->gr_gid : -2;
}

static void read_secret(const struct conf *conf, const char *file, const char *setting,
                        const char *path, const char *credential, char **out,
                        conf_problems *problems)
{
    char error[CONF_TEXT_MAX + 256];
    if (!secret_read(path, credential, out, error, sizeof error)) {
        conf_setting_problem(conf, file, setting, problems, error);
    }
}

static void prepare_tls(const struct conf *conf, const char *file, struct prepared *out,
                        conf_problems *problems)
{
    static const char *const settings[] = {[TLS_FAULT_NONE] = "redis.url",
                                           [TLS_FAULT_CA] = "tls.ca",
                                           [TLS_FAULT_CA_DIR] = "tls.ca_dir",
                                           [TLS_FAULT_CERT] = "tls.cert",
                                           [TLS_FAULT_KEY] = "tls.key"};
    char error[CONF_TEXT_MAX + 256], *key = NULL;
    enum tls_fault fault = TLS_FAULT_KEY;
    if (!replicator_url_is_tls(conf->redis.url)) {
        return;
    }
    bool good =
        !*conf->tls.cert || secret_read_pem(conf->tls.key, "tls-key", &key, error, sizeof error);
    if (good) {
        tls_settings wanted = {.ca = conf->tls.ca,
                               .ca_dir = conf->tls.ca_dir,
                               .cert = conf->tls.cert,
                               .key = key,
                               .server_name = conf->tls.server_name};
        out->tls = tls_create(&wanted, &fault, error, sizeof error);
        good = out->tls != NULL;
    }
    if (!good) {
        conf_setting_problem(conf, file, settings[fault], problems, error);
    }
    secret_free(&key);
}

void prepare_read(const struct conf *conf, const char *file, struct prepared *out,
                  conf_problems *problems)
{
    char error[256];
    memset(out, 0, sizeof *out);
    read_secret(conf, file, "redis.password_file", conf->redis.password_file, "redis-password",
                &out->password, problems);
    read_secret(conf, file, "sentinel.password_file", conf->sentinel.password_file,
                "sentinel-password", &out->sentinel_password, problems);
    read_secret(conf, file, "listen_token_file", conf->web.token_file, "listen-token", &out->token,
                problems);
    if (out->token && *out->token && strlen(out->token) < TOKEN_LEAST) {
        conf_setting_problem(conf, file, "listen_token_file", problems,
                             "the token has less than 16 characters");
    }
    prepare_tls(conf, file, out, problems);
    out->owner = find_id(conf->map.owner, look_up_user);
    out->group = find_id(conf->map.group, look_up_group);
    if (out->owner == -2) {
        conf_setting_problem(conf, file, "map.owner", problems, "there is no such user");
    }
    if (out->group == -2) {
        conf_setting_problem(conf, file, "map.group", problems, "there is no such group");
    }
    if ((*conf->map.owner || *conf->map.group) && !*conf->map.dir) {
        conf_setting_problem(conf, file, *conf->map.owner ? "map.owner" : "map.group", problems,
                             "needs map.dir: the default folders have their owners");
    }
    if (*conf->web.listen &&
        conf_parse_listen(conf->web.listen, &out->listen, error, sizeof error) &&
        !out->listen.is_unix && !out->listen.loopback && out->token && !*out->token) {
        conf_setting_problem(conf, file, "listen", problems,
                             "is not a loopback address: that needs listen_token_file");
    }
}

void prepare_free(struct prepared *self)
{
    secret_free(&self->password);
    secret_free(&self->sentinel_password);
    secret_free(&self->token);
    tls_release(&self->tls);
}

/* ---- The directory --------------------------------------------------------------------------- */

static bool hand_over(int directory, const struct conf *conf, const struct prepared *prepared)
{
    mode_t mode = conf->map.mode ? (mode_t)conf->map.mode : 02770;
    uid_t owner = prepared->owner < 0 ? (uid_t)-1 : (uid_t)prepared->owner;
    gid_t group = prepared->group < 0 ? (gid_t)-1 : (gid_t)prepared->group;
    /* The mode last: giving a directory away takes its set-group-id bit. */
    return fchown(directory, owner, group) == 0 && fchmod(directory, mode) == 0;
}

static void compare(int directory, const struct conf *conf, const struct prepared *prepared)
{
    struct stat status;
    if (fstat(directory, &status) == 0 &&
        ((prepared->owner >= 0 && (int64_t)status.st_uid != prepared->owner) ||
         (prepared->group >= 0 && (int64_t)status.st_gid != prepared->group))) {
        log_event(
            LOG_WARNING, "map_owner",
            "the directory of map %s is there already, with owner %u and group %u: it stays so",
            conf->map.name, (unsigned)status.st_uid, (unsigned)status.st_gid);
    }
}

bool prepare_directory(const struct conf *conf, const struct prepared *prepared, char *error,
                       size_t error_size)
{
    if (prepared->owner < 0 && prepared->group < 0) {
        return true;
    }
    const char *failed = NULL;
    int directory = -1;
    int parent = open(conf->map.dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (parent < 0) {
        failed = "open";
    } else {
        bool made = mkdirat(parent, conf->map.name, 0700) == 0;
        if (!made && errno != EEXIST) {
            failed = "mkdir";
        } else {
            directory =
                openat(parent, conf->map.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (directory < 0) {
                failed = "open";
            } else if (!made) {
                compare(directory, conf, prepared);
            } else if (!hand_over(directory, conf, prepared)) {
                failed = "chown";
                int reason = errno;
                unlinkat(parent, conf->map.name, AT_REMOVEDIR);
                errno = reason;
            }
        }
    }
    if (failed) {
        snprintf(error, error_size, "%s of %s/%s: %s", failed, conf->map.dir, conf->map.name,
                 strerror(errno));
    }
    if (directory >= 0) {
        close(directory);
    }
    if (parent >= 0) {
        close(parent);
    }
    return !failed;
}

/* ---- Settings of the parts ------------------------------------------------------------------- */

static const char *or_null(const char *text)
{
    return text && *text ? text : NULL;
}

void prepare_map(const struct conf *conf, larder_options *out)
{
    *out = (larder_options){.dir = or_null(conf->map.dir),
                            .map_size = (uint64_t)conf->map.size,
                            .hot_size = conf->map.hot_set ? (uint64_t)conf->map.hot_size
                                                          : LARDER_NO_HOT_SET,
                            .max_value = (uint64_t)conf->map.max_value,
                            .write_wait_ms = conf->map.write_wait_ms,
                            .flags = conf->map.protect ? LARDER_PROTECT : 0,
                            .mode = (uint32_t)conf->map.mode};
}

void prepare_replicator(const struct conf *conf, const struct prepared *prepared,
                        replicator_settings *out)
{
    replicator_settings_init(out);
    out->url = conf->redis.url;
    out->tls = prepared->tls;
    out->user = or_null(conf->redis.user);
    out->password = or_null(prepared->password);
    out->sentinel_user = or_null(conf->sentinel.user);
    out->sentinel_password = or_null(prepared->sentinel_password);
    out->prefix = or_null(conf->redis.prefix);
    out->map_name = conf->map.name;
    out->connect_timeout_ms = conf->redis.connect_timeout_ms;
    out->reply_timeout_ms = conf->redis.reply_timeout_ms;
    out->linger_ms = conf->redis.linger_ms;
    out->backoff_min_ms = conf->redis.backoff_min_ms;
    out->backoff_max_ms = conf->redis.backoff_max_ms;
    out->park_ms = conf->redis.park_ms;
    out->retry_max_ms = conf->redis.retry_max_ms;
    out->tombstone_ms = conf->janitor.tombstone_ms;
    out->ping_ms = conf->redis.ping_ms;
    out->verify_ms = conf->redis.verify_ms;
    out->busy_poll_us = (uint32_t)conf->redis.busy_poll_us;
    out->breaker_failures = (uint32_t)conf->redis.breaker_failures;
    out->breaker_open_ms = conf->redis.breaker_open_ms;
    out->batch_commands = (uint32_t)conf->redis.batch_commands;
    out->batch_bytes = (uint32_t)conf->redis.batch_bytes;
    out->batches_in_flight = (uint32_t)conf->redis.batches_in_flight;
    out->retry_entries = (uint32_t)conf->redis.retry_entries;
    out->inline_value = (uint32_t)conf->redis.inline_value;
    out->foreign = (enum replicator_foreign)conf_foreign_number(conf->redis.foreign);
    out->stream_bytes = (uint64_t)conf->redis.stream_bytes;
    out->max_value = (uint64_t)conf->map.max_value;
    out->max_reply_bytes = (uint64_t)conf->redis.max_reply;
}

void prepare_janitor(const struct conf *conf, janitor_settings *out)
{
    *out = (janitor_settings){.watermark = conf->janitor.watermark,
                              .period_ms = conf->janitor.period_ms,
                              .pass_ms = conf->janitor.pass_ms,
                              .readers_ms = conf->janitor.readers_ms,
                              .tombstone_ms = conf->janitor.tombstone_ms,
                              .verify_rate = conf->janitor.verify_rate};
}
