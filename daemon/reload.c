/* reload.c: SIGHUP. The file is read as at the start; one problem anywhere and nothing changes.
 * Else what can change at run time does, and what cannot is named and stays as it is.
 */
#include <string.h>

#include "daemon/notify.h"
#include "daemon/server_internal.h"

static void log_setting(const char *event, int priority, const conf_row *row,
                        const struct conf *from, const struct conf *to, const char *message)
{
    char before[CONF_TEXT_MAX + 1], after[CONF_TEXT_MAX + 1];
    log_line line;
    conf_format(from, row, before, sizeof before);
    conf_format(to, row, after, sizeof after);
    log_begin(&line, priority, event);
    log_text(&line, "setting", row->name);
    log_text(&line, "from", before);
    log_text(&line, "to", after);
    if (message) {
        log_text(&line, "msg", message);
    }
    log_end(&line);
}

/* Whether the map replicates is part of the claim on it. */
static bool needs_restart(const conf_row *row, const struct conf *running, const struct conf *next)
{
    return row->reload == CONF_RESTART || (strcmp(row->name, "redis.url") == 0 &&
                                           (*running->redis.url == 0) != (*next->redis.url == 0));
}

struct changes {
    unsigned live, replicator, restart;
};

/* Give next what cannot change now from running, and count. False: no memory. */
static bool settle(const struct conf *running, struct conf *next, struct changes *changes)
{
    for (size_t i = 0; i < conf_row_count; i++) {
        const conf_row *row = &conf_rows[i];
        if (conf_same(running, next, row)) {
            continue;
        }
        if (needs_restart(row, running, next)) {
            log_setting("reload_needs_restart", LOG_WARNING, row, running, next,
                        "takes a restart; unchanged until then");
            if (!conf_copy(next, running, row)) {
                return false;
            }
            changes->restart++;
        } else {
            changes->replicator += row->reload == CONF_REPLICATOR;
            changes->live += row->reload == CONF_LIVE;
        }
    }
    return true;
}

static void log_changes(const struct conf *running, const struct conf *next)
{
    for (size_t i = 0; i < conf_row_count; i++) {
        if (!conf_same(running, next, &conf_rows[i])) {
            log_setting("reload_changed", LOG_INFO, &conf_rows[i], running, next, NULL);
        }
    }
}

static void refuse(const conf_problems *problems)
{
    for (size_t i = 0; i < problems->count && i < CONF_PROBLEMS_MAX; i++) {
        log_event(LOG_ERR, "config", "%s", problems->text[i] ? problems->text[i] : "no memory");
    }
    log_event(LOG_ERR, "reload_refused", "%zu problems: nothing was changed", problems->count);
}

static void apply(struct server *self, struct conf *next, struct prepared *next_prepared,
                  bool restart_replicator)
{
    janitor_settings settings;
    conf_free(&self->conf);
    prepare_free(&self->prepared);
    self->conf = *next;
    self->prepared = *next_prepared;
    memset(next, 0, sizeof *next);
    memset(next_prepared, 0, sizeof *next_prepared);
    log_level(log_level_number(self->conf.log_level));
    prepare_janitor(&self->conf, &settings);
    if (self->janitor) {
        janitor_configure(self->janitor, &settings);
    }
    if (restart_replicator && self->replicates) {
        server_restart_replicator(self);
    }
}

void server_reload(struct server *self)
{
    struct conf next;
    struct prepared next_prepared;
    conf_problems problems = {.count = 0};
    struct changes changes = {0, 0, 0};
    char text[200];
    notify_reloading("reading the settings again");
    const server_source *source = self->source;
    conf_read(&next, source->file, source->must_exist, source->flags, source->flag_count,
              &problems);
    prepare_read(&next, source->file, &next_prepared, &problems);
    if (problems.count == 0 && !settle(&self->conf, &next, &changes)) {
        conf_problem(&problems, NULL, 0, "no memory");
    }
    if (problems.count == 0 && self->web && !self->prepared.listen.is_unix &&
        !self->prepared.listen.loopback && !*next_prepared.token) {
        conf_problem(&problems, NULL, 0, "listen: is not a loopback address: that needs a token");
    }
    if (problems.count == 0 && self->web && !web_token(self->web, next_prepared.token)) {
        conf_problem(&problems, NULL, 0, "no memory");
    }
    if (problems.count > 0) {
        refuse(&problems);
    } else {
        bool secrets =
            strcmp(self->prepared.password, next_prepared.password) != 0 ||
            strcmp(self->prepared.sentinel_password, next_prepared.sentinel_password) != 0 ||
            !tls_same(self->prepared.tls, next_prepared.tls);
        next_prepared.listen = self->prepared.listen;
        log_changes(&self->conf, &next);
        apply(self, &next, &next_prepared, changes.replicator > 0 || secrets);
        log_line line;
        log_begin(&line, LOG_NOTICE, "reloaded");
        log_number(&line, "changed", (int64_t)changes.live + changes.replicator);
        log_number(&line, "need_restart", (int64_t)changes.restart);
        log_text(&line, "redis", changes.replicator || secrets ? "connects anew" : "unchanged");
        log_end(&line);
    }
    conf_free(&next);
    prepare_free(&next_prepared);
    conf_problems_free(&problems);
    server_status_text(self, text, sizeof text);
    notify_ready(text);
}
