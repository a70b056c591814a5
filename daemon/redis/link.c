/* link.c: sessions: both connections, which reply goes where, liveness. What a session begins with
 * is link_greeting.c's subject. See link.h.
 */
#include "daemon/redis/link_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Keys that tracking may name at once. It names all that were changed in one round of the server's
 * loop; whatever ended the session would leave them unnoticed. About 100 bytes of memory each. */
#define TOLD_KEYS_MAX (UINT32_C(1) << 20)

static void on_ping(evutil_socket_t fd, short what, void *context);
static void on_broken(evutil_socket_t fd, short what, void *context);
static bool make_sentinel(struct link *self);

struct link *link_create(const link_settings *settings, const link_callbacks *callbacks,
                         void *context)
{
    struct link *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    self->settings = *settings;
    self->callbacks = *callbacks;
    self->context = context;
    self->random = settings->random_seed;
    self->average_event = 256;
    self->range_most = SYNC_PAGE_MAX;
    names_fleet(settings->prefix, "events", self->stream, sizeof self->stream);
    names_fleet(settings->prefix, "channel", self->channel_name, sizeof self->channel_name);
    names_fleet(settings->prefix, "marks", self->mark_set, sizeof self->mark_set);
    self->ping = event_new(settings->base, -1, EV_PERSIST, on_ping, self);
    self->broken = evtimer_new(settings->base, on_broken, self);
    self->load_later = evtimer_new(settings->base, link_load_later, self);
    if (self->ping == NULL || self->broken == NULL || self->load_later == NULL ||
        !link_unscripted_create(self) ||
        (settings->url.kind == URL_SENTINEL && !make_sentinel(self)) ||
        (settings->url.kind == URL_CLUSTER && !link_cluster_create(self))) {
        link_destroy(&self);
        return NULL;
    }
    return self;
}

void link_disconnect(struct link *self)
{
    if (self->commands != NULL) {
        self->bytes_sent += connection_bytes_out(self->commands);
        self->bytes_received += connection_bytes_in(self->commands);
    }
    if (self->channel != NULL) {
        self->bytes_sent += connection_bytes_out(self->channel);
        self->bytes_received += connection_bytes_in(self->channel);
    }
    connection_close(&self->commands);
    connection_close(&self->channel);
    if (self->sentinel != NULL)
        sentinel_rest(self->sentinel);
    if (self->unscripted != NULL)
        unscripted_reset(self->unscripted);
    self->begun = self->without_scripts = false;
    if (self->cluster != NULL)
        cluster_disconnect(self->cluster);
    untold_clear(&self->untold);
    if (self->ping != NULL)
        event_del(self->ping);
    if (self->broken != NULL)
        event_del(self->broken);
    if (self->load_later != NULL)
        event_del(self->load_later);
    self->commands_ready = self->channel_ready = self->told_connected = false;
    self->scripts_loading = 0;
    self->load_wanted = self->join_repeated = self->range_out = false;
}

void link_destroy(struct link **self)
{
    if (self == NULL || *self == NULL)
        return;
    link_disconnect(*self);
    sentinel_destroy(&(*self)->sentinel);
    unscripted_destroy(&(*self)->unscripted);
    cluster_destroy(&(*self)->cluster);
    free((*self)->run_ids);
    free((*self)->flushed);
    resolver_close(&(*self)->resolver);
    if ((*self)->ping != NULL)
        event_free((*self)->ping);
    if ((*self)->broken != NULL)
        event_free((*self)->broken);
    if ((*self)->load_later != NULL)
        event_free((*self)->load_later);
    names_free(&(*self)->names);
    free((*self)->event);
    free(*self);
    *self = NULL;
}

void link_fail(struct link *self, enum sync_cause cause, const char *why, bool timed_out,
               bool protocol)
{
    char copy[512]; /* why may live in what is closed now */
    if (!self->begun)
        return;
    snprintf(copy, sizeof copy, "%s", why);
    if (protocol)
        link_range_failed(self);
    link_disconnect(self);
    self->callbacks.disconnected(self->context, cause, copy, timed_out, protocol);
}

bool link_session_error(const reply *error, enum sync_cause *cause)
{
    static const char *const later[] = {"LOADING",  "READONLY",    "BUSY",    "MASTERDOWN",
                                        "TRYAGAIN", "CLUSTERDOWN", "MISCONF", "NOREPLICAS"};
    static const char *const parked[] = {"NOAUTH", "WRONGPASS", "MOVED", "ASK", "CROSSSLOT"};
    for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
        if (reply_error_is(error, later[i])) {
            *cause = SYNC_NOT_READY;
            return true;
        }
    }
    for (size_t i = 0; i < sizeof parked / sizeof *parked; i++) {
        if (reply_error_is(error, parked[i])) {
            *cause = SYNC_NO_PERMISSION;
            return true;
        }
    }
    return false;
}

bool link_send(struct link *self, connection *to, enum request_kind kind, uint32_t index,
               uint64_t id, void *pointer, int count, const char *const *arguments,
               const size_t *sizes)
{
    size_t lengths[8];
    connection_tag tag = {.kind = kind, .index = index, .id = id, .pointer = pointer};
    bool sent = false;
    if (sizes == NULL) {
        for (int i = 0; i < count && i < 8; i++)
            lengths[i] = strlen(arguments[i]);
        sizes = lengths;
    }
    if (to != NULL && link_call_unscripted(self, &tag, count, arguments, sizes, &sent))
        return sent;
    if (to == NULL && self->cluster != NULL)
        return cluster_send(self->cluster, &tag, count, arguments, sizes);
    return to != NULL && connection_send(to, &tag, count, arguments, sizes);
}

/* ---- Replies and what else happens ------------------------------------------------------------
 */

void link_commands_answer(void *context, const connection_tag *tag, const reply *got,
                          int64_t sent_us)
{
    struct link *self = context;
    int64_t took = connection_now_us() - sent_us;
    self->round_trip_us = self->round_trip_us == 0 ? took : (self->round_trip_us * 7 + took) / 8;
    if (link_refused_script(self, tag, got) || link_greeting_failed(self, tag, got))
        return;
    switch ((enum request_kind)tag->kind) {
    case REQUEST_SCRIPT:
        link_got_script(self, tag->index, got);
        break;
    case REQUEST_SERVER:
        link_got_server(self, tag->index, got);
        break;
    case REQUEST_STATE:
        link_cluster_state(self, got);
        break;
    case REQUEST_ROLE:
        link_got_role(self, got);
        break;
    case REQUEST_JOIN:
        link_got_join(self, got);
        break;
    case REQUEST_PUSH:
        link_got_push(self, tag, got);
        break;
    case REQUEST_COMPARE:
        link_got_record(self, tag, got);
        break;
    case REQUEST_RANGE:
        link_got_range(self, got);
        break;
    case REQUEST_FETCH:
        link_got_fetch(self, tag->id, got);
        break;
    case REQUEST_EMIT:
        link_got_emit(self, tag->pointer, got);
        break;
    case REQUEST_ASK:
        link_got_ask(self, tag, got);
        break;
    case REQUEST_TTL:
        link_got_ttl(self, tag->id, got);
        break;
    case REQUEST_UNSCRIPTED:
        unscripted_got(self->unscripted, tag->index, got);
        break;
    case REQUEST_TRACK:
    case REQUEST_NOTIFICATIONS:
    case REQUEST_TRACKED:
        link_foreign_answer(self, tag, got);
        break;
    case REQUEST_MARK:
        link_got_mark(self, got);
        break;
    case REQUEST_MARK_PAGE:
        link_got_mark_page(self, got);
        break;
    case REQUEST_MARK_SET:
        link_got_mark_set(self, got);
        break;
    case REQUEST_FLUSHED:
        link_cluster_flushed(self, tag->index, got);
        break;
    case REQUEST_AUTH:
    case REQUEST_SELECT:
    case REQUEST_NAME:
    case REQUEST_WATCH:
    case REQUEST_SUBSCRIBE:
    case REQUEST_CLIENT_ID:
    case REQUEST_LISTEN:
    case REQUEST_PING:
        break;
    }
}

static void on_channel_answer(void *context, const connection_tag *tag, const reply *got,
                              int64_t sent_us)
{
    struct link *self = context;
    (void)sent_us;
    if (link_greeting_failed(self, tag, got))
        return;
    if (tag->kind == REQUEST_CLIENT_ID || tag->kind == REQUEST_LISTEN) {
        link_foreign_answer(self, tag, got);
        return;
    }
    if (tag->kind == REQUEST_SUBSCRIBE)
        link_got_subscribed(self, got);
}

static void on_message(void *context, const char *text, size_t size)
{
    link_got_message(context, text, size);
}

static void on_changed(void *context, const reply *message)
{
    link_foreign_message(context, message);
}

static void on_commands_message(void *context, const char *text, size_t size)
{
    (void)text;
    (void)size;
    link_fail(context, SYNC_LOST_CONNECTION, "a message came on the command connection", false,
              true);
}

static void on_idle(void *context)
{
    struct link *self = context;
    if (self->told_connected)
        self->callbacks.idle(self->context);
}

static void on_down(void *context, const char *why, bool timed_out, bool protocol)
{
    const struct link *self = context;
    bool refused = connection_refused(self->commands) || connection_refused(self->channel);
    link_fail(context, refused ? SYNC_NO_PERMISSION : SYNC_LOST_CONNECTION, why, timed_out,
              protocol);
}

static void on_ping(evutil_socket_t fd, short what, void *context)
{
    struct link *self = context;
    const char *words[] = {"PING"};
    (void)fd;
    (void)what;
    if (self->channel != NULL && connection_waiting(self->channel) == 0 && /* else its deadline */
        (!link_send(self, self->channel, REQUEST_PING, 0, 0, NULL, 1, words, NULL) ||
         !link_foreign_probe(self))) {
        link_fail(self, SYNC_LOST_CONNECTION, "no memory for a request", false, false);
        return;
    }
    if (self->cluster != NULL)
        link_cluster_ping(self);
}

/* ---- Connecting -------------------------------------------------------------------------------
 */

/* A fresh resolver for every attempt, so that changes of resolv.conf are seen. */
static void renew_resolver(struct link *self)
{
    const redis_url *url = &self->settings.url;
    bool needed = url->kind == URL_SENTINEL || url->kind == URL_CLUSTER; /* may name hosts, too */
    resolver_close(&self->resolver);
    for (size_t i = 0; i < url->place_count; i++)
        needed = needed || connection_needs_lookup(&url->places[i]);
    if (needed)
        self->resolver = resolver_create(self->settings.base, self->settings.connect_timeout_ms);
}

static void on_broken(evutil_socket_t fd, short what, void *context)
{
    struct link *self = context;
    (void)fd;
    (void)what;
    link_disconnect(self);
    self->callbacks.disconnected(self->context, SYNC_LOST_CONNECTION, "no memory for a connection",
                                 false, false);
}

static connection *open_within(struct link *self, const codec_limits *limits,
                               const url_place *place, const connection_callbacks *callbacks,
                               void *context)
{
    connection_settings settings = {.base = self->settings.base,
                                    .resolver = self->resolver,
                                    .tls = self->settings.tls,
                                    .place = *place,
                                    .limits = *limits,
                                    .connect_timeout_ms = self->settings.connect_timeout_ms,
                                    .reply_timeout_ms = self->settings.reply_timeout_ms};
    return connection_open(&settings, callbacks, context);
}

connection *link_open(struct link *self, const url_place *place,
                      const connection_callbacks *callbacks, void *context)
{
    return open_within(self, &self->settings.limits, place, callbacks, context);
}

bool link_open_channel(struct link *self, const url_place *place)
{
    static const connection_callbacks channel = {link_channel_up, on_channel_answer, on_message,
                                                 on_idle,         on_down,           on_changed};
    codec_limits limits = self->settings.limits;
    if (self->settings.foreign == LINK_FOREIGN_TRACKING && limits.max_elements < TOLD_KEYS_MAX)
        limits.max_elements = TOLD_KEYS_MAX;
    self->server = *place;
    self->channel = open_within(self, &limits, place, &channel, self);
    return self->channel != NULL;
}

static void connect_to(struct link *self, const url_place *server)
{
    static const connection_callbacks commands = {
        link_commands_up, link_commands_answer, on_commands_message, on_idle, on_down, NULL};
    self->commands = link_open(self, server, &commands, self);
    if (self->commands == NULL || !link_open_channel(self, server)) {
        struct timeval soon = {0, 10000};
        evtimer_add(self->broken, &soon);
    }
}

void link_connect(struct link *self)
{
    link_disconnect(self);
    renew_resolver(self);
    self->begun = true;
    if (self->sentinel != NULL)
        sentinel_find(self->sentinel, self->resolver);
    else if (self->cluster != NULL)
        cluster_connect(self->cluster);
    else
        connect_to(self, &self->settings.url.places[0]);
}

/* ---- Sentinels --------------------------------------------------------------------------------
 */

static void on_found(void *context, const url_place *master)
{
    connect_to(context, master);
}

static void on_not_found(void *context, enum sync_cause cause, const char *why, bool timed_out)
{
    link_fail(context, cause, why, timed_out, false);
}

static void on_moved(void *context, const url_place *master)
{
    char why[400], name[URL_PLACE_TEXT_MAX];
    url_place_text(master, name);
    snprintf(why, sizeof why, "a Sentinel says that the master is %s now", name);
    link_fail(context, SYNC_LOST_CONNECTION, why, false, false);
}

static bool make_sentinel(struct link *self)
{
    static const sentinel_callbacks callbacks = {on_found, on_not_found, on_moved};
    const link_settings *s = &self->settings;
    sentinel_settings settings = {.base = s->base,
                                  .url = &s->url,
                                  .tls = s->tls,
                                  .user = s->sentinel_user,
                                  .password = s->sentinel_password,
                                  .limits = s->limits,
                                  .connect_timeout_ms = s->connect_timeout_ms,
                                  .reply_timeout_ms = s->reply_timeout_ms,
                                  .ping_ms = s->ping_ms};
    self->sentinel = sentinel_create(&settings, &callbacks, self);
    return self->sentinel != NULL;
}

void link_read_figures(const struct link *self, link_figures *out)
{
    if (self->server.host[0] != 0 || self->server.path[0] != 0)
        url_place_text(&self->server, out->server);
    else
        out->server[0] = 0;
    out->bytes_sent = self->bytes_sent;
    out->bytes_received = self->bytes_received;
    if (self->commands != NULL) {
        out->bytes_sent += connection_bytes_out(self->commands);
        out->bytes_received += connection_bytes_in(self->commands);
    }
    if (self->channel != NULL) {
        out->bytes_sent += connection_bytes_out(self->channel);
        out->bytes_received += connection_bytes_in(self->channel);
    }
    out->without_scripts = self->without_scripts;
    if (self->cluster != NULL) {
        uint64_t sent, received;
        cluster_bytes(self->cluster, &sent, &received);
        out->bytes_sent += sent;
        out->bytes_received += received;
    }
    out->scripts_loaded = self->scripts_loaded;
    out->round_trip_us = self->round_trip_us;
}
