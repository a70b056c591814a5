/* link_greeting.c: what a session begins with: who we are, the scripts, what the server is, and
 * that the channel is listened to. Called by link.c, and by link_cluster.c for each node. See
 * link.h.
 */
#include "daemon/redis/link_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOADS_AT_ONCE 3u        /* of lost scripts; those that follow wait longer and longer */
#define LOADS_APART_US 10000000 /* what is further apart has nothing to do with each other */
#define LOAD_PAUSE_US 10000
#define LOAD_PAUSE_MOST_US 1000000

#define REDIS_MAJOR_NEEDED 7 /* XADD <epoch>-*, script flags */

/* Those that the session has use for. */
static bool is_needed(const struct link *self, enum script_id id)
{
    bool of_cluster = id == SCRIPT_STORE || id == SCRIPT_EMIT;
    return self->cluster != NULL ? id != SCRIPT_PUSH : !of_cluster;
}

bool link_send_scripts(struct link *self, connection *to)
{
    for (uint32_t i = 0; i < SCRIPT_COUNT; i++) {
        const char *words[] = {"SCRIPT", "LOAD", script_text((enum script_id)i)};
        if (!is_needed(self, (enum script_id)i))
            continue;
        if (!link_send(self, to, REQUEST_SCRIPT, i, 0, NULL, 3, words, NULL))
            return false;
        self->scripts_loading++;
    }
    return true;
}

bool link_load_now(struct link *self)
{
    self->load_wanted = true;
    if (self->cluster == NULL)
        return link_send_scripts(self, self->commands);
    for (size_t i = 0; i < cluster_nodes(self->cluster); i++)
        if (!link_send_scripts(self, cluster_connection(self->cluster, i)))
            return false;
    return cluster_nodes(self->cluster) != 0;
}

void link_load_later(evutil_socket_t fd, short what, void *context)
{
    struct link *self = context;
    (void)fd;
    (void)what;
    if (!link_load_now(self))
        link_fail(self, SYNC_LOST_CONNECTION, "no memory for a request", false, false);
}

/* Where they are lost as soon as they are loaded (by SCRIPT FLUSH in a loop, or because something
 * stands before several servers), pushes would fail as fast as Redis answers. */
bool link_load(struct link *self)
{
    int64_t now = connection_now_us();
    self->loads = now - self->loaded_us > LOADS_APART_US ? 1 : self->loads + 1;
    self->loaded_us = now;
    if (self->loads <= LOADS_AT_ONCE)
        return link_load_now(self);
    int64_t pause = LOAD_PAUSE_US;
    for (uint32_t i = LOADS_AT_ONCE + 1; i < self->loads && pause < LOAD_PAUSE_MOST_US; i++)
        pause *= 2;
    if (pause > LOAD_PAUSE_MOST_US)
        pause = LOAD_PAUSE_MOST_US;
    struct timeval time = {.tv_sec = pause / 1000000, .tv_usec = pause % 1000000};
    return evtimer_add(self->load_later, &time) == 0;
}

bool link_greet(struct link *self, connection *to)
{
    char database[16];
    const char *name[] = {"CLIENT", "SETNAME", self->settings.client_name};
    const char *select[] = {"SELECT", database};
    if (self->settings.password != NULL || self->settings.user != NULL) {
        const char *user = self->settings.user, *password = self->settings.password;
        if (password == NULL)
            password = ""; /* a user without a password */
        const char *words[] = {"AUTH", user != NULL ? user : password, password};
        if (!link_send(self, to, REQUEST_AUTH, 0, 0, NULL, user != NULL ? 3 : 2, words, NULL))
            return false;
    }
    snprintf(database, sizeof database, "%u", self->settings.url.database);
    if (self->settings.url.database != 0 &&
        !link_send(self, to, REQUEST_SELECT, 0, 0, NULL, 2, select, NULL))
        return false;
    return link_send(self, to, REQUEST_NAME, 0, 0, NULL, 3, name, NULL);
}

void link_commands_up(void *context)
{
    struct link *self = context;
    const char *info[] = {"INFO", "server", "replication"}, *role[] = {"ROLE"};
    if (!link_greet(self, self->commands) ||
        (self->sentinel != NULL &&
         !link_send(self, self->commands, REQUEST_ROLE, 0, 0, NULL, 1, role, NULL)) ||
        !link_send_scripts(self, self->commands) ||
        !link_send(self, self->commands, REQUEST_SERVER, 0, 0, NULL, 3, info, NULL))
        link_fail(self, SYNC_LOST_CONNECTION, "no memory for the greeting", false, false);
}

void link_channel_up(void *context)
{
    struct link *self = context;
    const char *words[] = {"SUBSCRIBE", self->channel_name};
    if (!link_greet(self, self->channel) || !link_foreign_listen(self) ||
        !link_send(self, self->channel, REQUEST_SUBSCRIBE, 0, 0, NULL, 2, words, NULL))
        link_fail(self, SYNC_LOST_CONNECTION, "no memory for the greeting", false, false);
}

/* ---- What comes back --------------------------------------------------------------------------
 */

static void tell_connected(struct link *self)
{
    if (self->told_connected || !self->commands_ready || !self->channel_ready)
        return;
    struct timeval every = {.tv_sec = self->settings.ping_ms / 1000,
                            .tv_usec = self->settings.ping_ms % 1000 * 1000};
    event_add(self->ping, &every);
    if (!link_foreign_begin(self)) {
        link_fail(self, SYNC_LOST_CONNECTION, "no memory for a request", false, false);
        return;
    }
    self->told_connected = true;
    self->callbacks.connected(self->context, self->run_id, self->history, self->redis_version);
}

void link_info_field(const reply *got, const char *name, char *out, size_t out_size)
{
    const char *at = strstr(got->text, name);
    out[0] = 0;
    if (at == NULL)
        return;
    at += strlen(name);
    size_t size = strcspn(at, "\r\n");
    if (size < out_size) {
        memcpy(out, at, size);
        out[size] = 0;
    }
}

/* A server that was demoted and promoted again has the run id it had, and the other's data: the id
 * of the replication history is another one then. Half of each is enough. */
static void name_history(struct link *self, const reply *got)
{
    char replication_id[48];
    link_info_field(got, "master_replid:", replication_id, sizeof replication_id);
    snprintf(self->history, sizeof self->history, "%.20s-%.20s", self->run_id, replication_id);
}

void link_got_server(struct link *self, uint32_t node, const reply *got)
{
    self->run_id[0] = self->history[0] = self->redis_version[0] = 0;
    if (got->kind == REPLY_STRING) { /* where INFO is not permitted, the two are unknown */
        link_info_field(got, "run_id:", self->run_id, sizeof self->run_id);
        link_info_field(got, "redis_version:", self->redis_version, sizeof self->redis_version);
        if (self->run_id[0] != 0)
            name_history(self, got);
    }
    if (self->redis_version[0] != 0 && strtol(self->redis_version, NULL, 10) < REDIS_MAJOR_NEEDED) {
        char why[128];
        snprintf(why, sizeof why, "Redis %s is too old: %d.0 is needed", self->redis_version,
                 REDIS_MAJOR_NEEDED);
        link_fail(self, SYNC_NO_PERMISSION, why, false, false);
        return;
    }
    if (self->cluster != NULL)
        link_cluster_server(self, node, got);
    else
        self->commands_ready = true;
    tell_connected(self);
}

/* Sentinels may be behind, and a master that was replaced comes back as one before it is told. */
void link_got_role(struct link *self, const reply *got)
{
    char why[400], name[URL_PLACE_TEXT_MAX];
    if (got->kind == REPLY_ARRAY && got->count != 0 && got->elements[0]->kind == REPLY_STRING &&
        reply_text_is(got->elements[0], "master"))
        return;
    url_place_text(&self->server, name);
    snprintf(why, sizeof why, "%s is not a master, though the Sentinels name it", name);
    link_fail(self, SYNC_NOT_READY, why, false, false);
}

void link_script_done(struct link *self)
{
    if (--self->scripts_loading == 0 && self->load_wanted) {
        self->load_wanted = false;
        self->callbacks.scripts(self->context);
    }
}

void link_got_script(struct link *self, uint32_t index, const reply *got)
{
    if (got->kind != REPLY_STRING || got->size != 40 || index >= SCRIPT_COUNT) {
        link_fail(self, SYNC_LOST_CONNECTION, "SCRIPT LOAD was answered with something else", false,
                  true);
        return;
    }
    memcpy(self->sha[index], got->text, 41);
    self->scripts_loaded++;
    link_script_done(self);
}

void link_got_subscribed(struct link *self, const reply *got)
{
    if (got->kind != REPLY_ARRAY || got->count != 3 ||
        !reply_text_is(got->elements[0], "subscribe")) {
        link_fail(self, SYNC_LOST_CONNECTION, "SUBSCRIBE was answered with something else", false,
                  true);
        return;
    }
    self->channel_ready = true;
    tell_connected(self);
}

bool link_greeting_failed(struct link *self, const connection_tag *tag, const reply *got)
{
    enum sync_cause cause = SYNC_NO_PERMISSION;
    char why[300];
    if (got->kind != REPLY_ERROR)
        return false;
    bool session = link_session_error(got, &cause);
    if (!session &&
        (tag->kind == REQUEST_NAME || tag->kind == REQUEST_NOTIFICATIONS ||
         tag->kind == REQUEST_SERVER || tag->kind == REQUEST_STATE || tag->kind >= REQUEST_JOIN))
        return false;
    if (!session && tag->kind == REQUEST_PING)
        cause = SYNC_LOST_CONNECTION;
    if (tag->kind == REQUEST_WATCH) /* the reason is the other refusal */
        snprintf(why, sizeof why, "%.150s; nor without scripts: %.120s", self->refusal, got->said);
    else
        snprintf(why, sizeof why, "%s%.250s",
                 tag->kind == REQUEST_SELECT ? "SELECT: "
                 : tag->kind == REQUEST_ROLE ? "ROLE: "
                 : tag->kind == REQUEST_AUTH ? "AUTH: "
                                             : "",
                 got->said);
    link_fail(self, cause, why, false, false);
    return true;
}
