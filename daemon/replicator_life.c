/* replicator_life.c: settings, start, stop, the heartbeat and the status of the replicator. See
 * replicator.h; the work itself is in replicator.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <syslog.h>
#include <time.h>

#include "daemon/redis/names.h"
#include "daemon/replicator_internal.h"

#define BEAT_MS 1000
#define ENTRY_OVERHEAD                                                                             \
    ((uint64_t)LARDER_KEY_MAX + 2048) /* of a stream's entry, beside its value                     \
                                       */

void replicator_settings_init(replicator_settings *settings)
{
    *settings = (replicator_settings){
        .connect_timeout_ms = 5000,
        .reply_timeout_ms = 5000,
        .linger_ms = 1,
        .backoff_min_ms = 100,
        .backoff_max_ms = 2000,
        .park_ms = 30000,
        .retry_max_ms = 60000,
        .tombstone_ms = 86400000,
        .verify_ms = 600000,
        .ping_ms = 2000,
        .busy_poll_us = 100,
        .breaker_failures = 3,
        .breaker_open_ms = 1000,
        .batch_commands = 128,
        .batch_bytes = 524288,
        .batches_in_flight = 8,
        .retry_entries = 4096,
        .inline_value = 2048,
        .stream_bytes = 67108864,
        .max_value = 8388608,
        .max_reply_bytes = 16777216,
        .max_reply_elements = 65536,
        .max_reply_depth = 4,
    };
}

int replicator_url_check(const char *url, char *error, size_t error_size)
{
    redis_url parsed;
    return url_parse(url, &parsed, error, error_size);
}

bool replicator_url_is_tls(const char *url)
{
    redis_url parsed;
    char error[256];
    return url_parse(url, &parsed, error, sizeof error) == 0 && parsed.tls;
}

const char *replicator_state_name(enum replicator_state state)
{
    static const char *const names[] = {"disconnected", "connecting", "syncing", "up", "parked"};
    return (size_t)state < sizeof names / sizeof *names ? names[state] : "unknown";
}

const char *replicator_breaker_name(enum replicator_breaker state)
{
    static const char *const names[] = {"closed", "open", "half-open"};
    return (size_t)state < sizeof names / sizeof *names ? names[state] : "unknown";
}

/* ---- State ------------------------------------------------------------------------------------
 */

static enum replicator_state as_state(enum sync_state state)
{
    switch (state) {
    case SYNC_DISCONNECTED:
        return REPLICATOR_DISCONNECTED;
    case SYNC_CONNECTING:
        return REPLICATOR_CONNECTING;
    case SYNC_SYNCING:
        return REPLICATOR_SYNCING;
    case SYNC_UP:
        return REPLICATOR_UP;
    case SYNC_PARKED:
        return REPLICATOR_PARKED;
    }
    return REPLICATOR_DISCONNECTED;
}

static bool is_up(enum sync_state state)
{
    return state == SYNC_UP || state == SYNC_SYNCING;
}

static void publish(replicator *self)
{
    (void)replica_publish_state(self->map, self->fence, is_up(self->state), replicator_wall_ms());
}

static void say_connected(replicator *self)
{
    link_figures figures;
    char server[sizeof figures.server];
    bool named = self->url.kind == URL_SENTINEL; /* which one it is of those it may lead to */
    link_read_figures(self->link, &figures);
    replicator_mask(self, figures.server, server, sizeof server);
    replicator_say(self, LOG_NOTICE, "redis %s: connected%s%s%s", self->url.display,
                   named ? " to " : "", named ? server : "",
                   figures.without_scripts ? "; it refuses scripts: WATCH, MULTI and EXEC do their "
                                             "work, more slowly"
                                           : "");
}

static bool is_often(const sync_view *view)
{
    return view->resyncs_soon > SYNC_RESYNCS_AT_ONCE;
}

static void say_often(replicator *self, const sync_view *view)
{
    if (is_often(view) && !self->often_told)
        replicator_say(self, LOG_WARNING,
                       "redis %s: its history is lost again and again (does it evict? see "
                       "maxmemory-policy): all entries are compared less often from now on",
                       self->url.display);
    self->often_told = is_often(view);
}

static void state_changed(replicator *self, const sync_view *view)
{
    enum sync_state before = self->state;
    self->state = view->state;
    self->since_ms = replicator_wall_ms();
    if (is_up(before) != is_up(self->state)) {
        publish(self);
        if (is_up(self->state))
            say_connected(self);
        else
            replicator_say(self, LOG_WARNING, "redis %s: connection lost: %s", self->url.display,
                           self->error);
    }
    if (self->state == SYNC_PARKED && before != SYNC_PARKED)
        replicator_say(self, LOG_ALERT,
                       "redis %s: parked: %s; the map goes on alone, next try in %lld s",
                       self->url.display, self->error,
                       (long long)((view->attempt_at_ms - replicator_now_ms()) / 1000));
    /* It is syncing, too, while invalidations of many are exchanged alone. */
    bool compares = view->counters.resyncs != self->resyncs_told;
    self->resyncs_told = view->counters.resyncs;
    if (self->state == SYNC_SYNCING && compares && !is_often(view))
        replicator_say(self, LOG_NOTICE,
                       "redis %s: its history is another one than ours: comparing all entries",
                       self->url.display);
}

static void finish(replicator *self)
{
    replica_position position;
    if (self->finished)
        return;
    if (!self->fenced && sync_position(self->machine, &position))
        (void)replica_apply(self->map, self->fence, NULL, 0, &position);
    self->finished = true;
    link_disconnect(self->link);
    deadline_set(self->timer, DEADLINE_NEVER);
    event_del(self->wake);
    event_del(self->beat);
    evtimer_del(self->drain);
    self->state = SYNC_DISCONNECTED;
    if (!self->fenced)
        publish(self);
    event_active(self->ended, EV_TIMEOUT, 0);
}

void replicator_noticed(replicator *self)
{
    sync_view view;
    if (self->fenced || self->finished ||
        (sync_state_now(self->machine) == self->state && !self->stopping))
        return;
    sync_look(self->machine, &view);
    say_often(self, &view);
    if (view.state != self->state)
        state_changed(self, &view);
    if (self->stopping && (view.drained || !is_up(view.state)))
        finish(self);
}

/* One that was written again meanwhile was refused more than once. */
static uint64_t left_entries(const replicator *self, const sync_view *view)
{
    return view->left_entries < self->dirty ? view->left_entries : self->dirty;
}

static void on_beat(evutil_socket_t fd, short what, void *context)
{
    replicator *self = context;
    larder_stats stats;
    (void)fd;
    (void)what;
    publish(self);
    replica_ask_spin(self->map, self->settings.busy_poll_us); /* the map may be another one now */
    replica_ask_sweep(self->map);
    replicator_take_asks(self);
    if (larder_stats_read(self->map, &stats, sizeof stats) != LARDER_OK)
        return;
    sync_view view;
    sync_look(self->machine, &view);
    self->dirty = stats.dirty;
    say_often(self, &view);
    if (is_up(view.state))
        replicator_say_left(self, left_entries(self, &view));
    sync_event count = {.kind = SYNC_EV_COUNT};
    count.entries = stats.entries + stats.tombstones;
    replicator_feed(self, &count);
    if (stats.dirty != 0) {
        sync_event event = {.kind = SYNC_EV_RECHECK, .entries = stats.dirty};
        replicator_feed(self, &event);
    }
}

/* ---- Start ------------------------------------------------------------------------------------
 */

static int fail(replicator **self, int code, int *out, char *error, size_t size, const char *why)
{
    if (error != NULL && size != 0)
        snprintf(error, size, "%s", why);
    if (out != NULL)
        *out = code;
    replicator_free(self);
    return code;
}

static bool copy_text(replicator *self, size_t slot, const char **text)
{
    if (*text == NULL)
        return true;
    self->texts[slot] = strdup(*text);
    *text = self->texts[slot];
    return *text != NULL;
}

static const char *check_settings(const replicator_settings *s)
{
    if (s->map_name == NULL || *s->map_name == 0)
        return "the map's name is missing";
    if (s->prefix != NULL && strlen(s->prefix) > NAMES_PREFIX_MAX)
        return "the prefix is longer than 255 bytes";
    if (s->user != NULL && (*s->user == 0 || strlen(s->user) > 255))
        return "the user is empty or longer than 255 bytes";
    if (s->connect_timeout_ms < 1 || s->reply_timeout_ms < 1 || s->linger_ms < 0 ||
        s->backoff_min_ms < 1 || s->backoff_max_ms < s->backoff_min_ms || s->park_ms < 1 ||
        s->retry_max_ms < 1 || s->tombstone_ms < 1 || s->ping_ms < 1 || s->breaker_open_ms < 0 ||
        s->verify_ms < 0 || s->busy_poll_us > POLL_MOST_US)
        return "a time is out of its range";
    if (s->batch_commands < 1 || s->batch_commands > SYNC_BATCH_MAX || s->batch_bytes < 1 ||
        s->batches_in_flight < 1 || s->batches_in_flight > 256 || s->retry_entries < 1 ||
        s->retry_entries > 1000000)
        return "a batch's limit is out of its range";
    if (s->max_reply_depth < 2 || s->max_reply_depth > 7 || s->max_reply_elements < 1024 ||
        s->max_reply_bytes < (uint64_t)s->inline_value + ENTRY_OVERHEAD)
        return "a reply's limit is out of its range";
    return NULL;
}

static bool make_machine(replicator *self, uint64_t seed)
{
    const replicator_settings *s = &self->settings;
    uint64_t fits = s->max_reply_bytes - ENTRY_OVERHEAD;
    uint64_t page = s->max_reply_bytes / (s->inline_value + ENTRY_OVERHEAD);
    sync_settings machine = {.batch_commands = s->batch_commands,
                             .batch_bytes = s->batch_bytes,
                             .batches_in_flight = s->batches_in_flight,
                             .retry_entries = s->retry_entries,
                             .linger_ms = s->linger_ms,
                             .backoff_min_ms = s->backoff_min_ms,
                             .backoff_max_ms = s->backoff_max_ms,
                             .park_ms = s->park_ms,
                             .retry_max_ms = s->retry_max_ms,
                             .heartbeat_ms = s->ping_ms,
                             .breaker_failures = s->breaker_failures,
                             .breaker_open_ms = s->breaker_open_ms,
                             .page = page > SYNC_PAGE_MAX ? SYNC_PAGE_MAX : (uint32_t)page,
                             .foreign = s->foreign != REPLICATOR_FOREIGN_OFF,
                             .max_value = s->max_value < fits ? s->max_value : fits,
                             .verify_ms = s->verify_ms,
                             .keep_ms = s->tombstone_ms,
                             .events_apart = self->url.kind == URL_CLUSTER,
                             .random_seed = seed};
    link_settings link = {.base = self->base,
                          .url = self->url,
                          .tls = self->url.tls ? s->tls : NULL,
                          .user = s->user,
                          .password = s->password,
                          .sentinel_user = s->sentinel_user,
                          .sentinel_password = s->sentinel_password,
                          .prefix = s->prefix,
                          .client_name = self->client_name,
                          .limits = {.max_bytes = s->max_reply_bytes,
                                     .max_elements = s->max_reply_elements,
                                     .max_depth = s->max_reply_depth,
                                     .secrets = {s->password, s->sentinel_password}},
                          .connect_timeout_ms = s->connect_timeout_ms,
                          .reply_timeout_ms = s->reply_timeout_ms,
                          .ping_ms = s->ping_ms,
                          .tombstone_ms = s->tombstone_ms,
                          .inline_value = s->inline_value,
                          .foreign = (enum link_foreign)s->foreign,
                          .stream_bytes = s->stream_bytes,
                          .random_seed = seed ^ 0x6c61726465720000u};
    self->machine = sync_create(&machine);
    self->link = link_create(&link, &replicator_link_callbacks, self);
    return self->machine != NULL && self->link != NULL;
}

static void on_ended(evutil_socket_t fd, short what, void *context)
{
    replicator *self = context;
    (void)fd;
    (void)what;
    if (self->fenced && !self->finished) {
        replicator_say(self, LOG_ERR, "another larderd has claimed this map: replication ends");
        finish(self); /* comes here once more */
        return;
    }
    if (self->stopping && !self->told) {
        self->told = true;
        self->stopped(self->stopped_context);
    } else if (self->fenced && !self->told) {
        self->told = true;
        if (self->on_fenced != NULL)
            self->on_fenced(self->fenced_context);
    }
}

static void on_drain_over(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    finish(context);
}

static bool make_events(replicator *self)
{
    struct timeval beat = {.tv_sec = BEAT_MS / 1000, .tv_usec = BEAT_MS % 1000 * 1000};
    self->beat = event_new(self->base, -1, EV_PERSIST, on_beat, self);
    self->drain = evtimer_new(self->base, on_drain_over, self);
    self->ended = event_new(self->base, -1, 0, on_ended, self);
    return self->beat != NULL && self->drain != NULL && self->ended != NULL &&
           event_add(self->beat, &beat) == 0 && replicator_make_events(self);
}

static uint64_t make_seed(uint64_t wanted)
{
    uint64_t seed = wanted;
    if (seed == 0 && getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        seed = (uint64_t)replicator_wall_ms() ^ (uint64_t)replicator_now_ms() << 32;
    return seed;
}

replicator *replicator_start(struct event_base *base, larder *handle,
                             const replicator_settings *settings, uint64_t fence, int *code,
                             char *error, size_t error_size)
{
    char why[256];
    replica_position position;
    replicator *self = calloc(1, sizeof *self);
    if (self == NULL) {
        fail(&self, LARDER_ENOMEM, code, error, error_size, "no memory");
        return NULL;
    }
    self->base = base;
    self->map = handle;
    self->fence = fence;
    self->settings = *settings;
    self->since_ms = replicator_wall_ms();
    replicator_settings *s = &self->settings;
    const char *bad = check_settings(s);
    if (bad == NULL && url_parse(s->url, &self->url, why, sizeof why) != 0)
        bad = why;
    if (bad == NULL && self->url.tls && s->tls == NULL)
        bad = "the URL asks for TLS, and its settings are missing";
    s->tls = tls_share(s->tls);
    if (bad != NULL) {
        fail(&self, LARDER_EINVAL, code, error, error_size, bad);
        return NULL;
    }
    char prefix[128];
    snprintf(prefix, sizeof prefix, "%.100s:", s->map_name);
    if (s->prefix == NULL)
        s->prefix = prefix;
    if (s->user == NULL && self->url.user[0] != 0)
        s->user = self->url.user;
    snprintf(self->client_name, sizeof self->client_name, "larderd-%.100s", s->map_name);
    if (!copy_text(self, 0, &s->user) || !copy_text(self, 1, &s->password) ||
        !copy_text(self, 4, &s->sentinel_user) || !copy_text(self, 5, &s->sentinel_password) ||
        !copy_text(self, 2, &s->prefix) || !copy_text(self, 3, &s->map_name) ||
        !make_machine(self, make_seed(s->random_seed))) {
        fail(&self, LARDER_ENOMEM, code, error, error_size, "no memory");
        return NULL;
    }
    s->url = NULL; /* parsed; the caller's text may go */
    int result = replica_position_read(handle, &position);
    if (result != LARDER_OK || !make_events(self)) {
        fail(&self, LARDER_ESYSTEM, code, error, error_size,
             result != LARDER_OK ? larder_last_error() : "the map's wake-up cannot be opened");
        return NULL;
    }
    replica_ask_spin(handle, s->busy_poll_us);
    sync_event event = {.kind = SYNC_EV_START, .position = &position};
    replicator_feed(self, &event);
    if (code != NULL)
        *code = LARDER_OK;
    return self;
}

/* ---- Stop -------------------------------------------------------------------------------------
 */

void replicator_stop(replicator *self, int64_t drain_ms, void (*stopped)(void *context),
                     void *context)
{
    if (!self->stopping) {
        self->stopping = true;
        self->stopped = stopped;
        self->stopped_context = context;
    }
    if (self->finished) {
        event_active(self->ended, EV_TIMEOUT, 0);
        return;
    }
    if (drain_ms < 0)
        drain_ms = 0;
    struct timeval time = {.tv_sec = drain_ms / 1000, .tv_usec = drain_ms % 1000 * 1000};
    if (drain_ms == 0)
        finish(self);
    else if (!evtimer_pending(self->drain, NULL) || drain_ms < 1000)
        evtimer_add(self->drain, &time);
    if (!self->finished)
        replicator_noticed(self);
}

void replicator_on_fenced(replicator *self, void (*fenced)(void *context), void *context)
{
    self->on_fenced = fenced;
    self->fenced_context = context;
}

void replicator_free(replicator **self)
{
    if (self == NULL || *self == NULL)
        return;
    replicator *old = *self;
    struct event *events[] = {old->wake, old->beat, old->drain, old->ended, old->sweep, old->round};
    *self = NULL;
    link_destroy(&old->link);
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (events[i] != NULL)
            event_free(events[i]);
    deadline_free(&old->timer);
    sync_destroy(&old->machine);
    replica_batch_free(&old->rows);
    tls_release(&old->settings.tls);
    for (size_t i = 0; i < sizeof old->texts / sizeof *old->texts; i++) {
        if (old->texts[i] != NULL)
            explicit_bzero(old->texts[i], strlen(old->texts[i]));
        free(old->texts[i]);
    }
    free(old);
}

/* ---- Status -----------------------------------------------------------------------------------
 */

void replicator_status_read(const replicator *self, replicator_status *out)
{
    sync_view view;
    link_figures figures;
    char server[sizeof figures.server];
    memset(out, 0, sizeof *out);
    sync_look(self->machine, &view);
    link_read_figures(self->link, &figures);
    replicator_mask(self, figures.server, server, sizeof server);
    out->state = as_state(self->state);
    out->breaker = (enum replicator_breaker)view.breaker;
    out->since_ms = self->since_ms;
    memcpy(out->error, self->error, sizeof out->error);
    out->error_ms = self->error_ms;
    if (self->url.kind == URL_SENTINEL && figures.server[0] != 0)
        snprintf(out->server, sizeof out->server, "%.115s/%u", server, self->url.database);
    else
        snprintf(out->server, sizeof out->server, "%.127s", self->url.display);
    memcpy(out->run_id, self->run_id, sizeof out->run_id);
    memcpy(out->redis_version, self->redis_version, sizeof out->redis_version);
    const sync_counters *c = &view.counters;
    out->pushed = c->pushed;
    out->acknowledged = c->acknowledged;
    out->old = c->old;
    out->events = c->events;
    out->applied = c->applied;
    out->echoes = c->echoes;
    out->ours_newer = c->ours_newer;
    out->not_stored = c->not_stored;
    out->duplicates = c->duplicates;
    out->gaps = c->gaps;
    out->resyncs = c->resyncs;
    out->connects = c->connects;
    out->reconnects = c->connects > 1 ? c->connects - 1 : 0;
    out->connect_failures = c->connect_failures;
    out->timeouts = self->timeouts;
    out->protocol_errors = self->protocol_errors;
    out->refused = c->refused;
    out->scripts_loaded = figures.scripts_loaded;
    out->map_busy = c->map_busy;
    out->bytes_sent = figures.bytes_sent;
    out->bytes_received = figures.bytes_received;
    out->retry_entries = view.retry_entries;
    out->left_entries = left_entries(self, &view);
    out->asks = c->asks;
    out->asks_sent = c->asks_sent;
    out->foreign = c->foreign;
    out->foreign_checks = c->foreign_checks;
    out->foreign_skipped = c->foreign_skipped;
    out->in_flight = view.in_flight_items;
    out->unacknowledged = view.unacknowledged;
    out->epoch = view.epoch;
    out->number = view.number;
    out->lag_ms = view.lag_ms;
    out->round_trip_us = figures.round_trip_us;
    out->verified = c->verified;
    out->mended = c->mended;
    out->forgotten = c->forgotten;
    out->ahead = c->ahead;
    out->nodes_drawn = c->nodes_drawn;
    out->clock_offset_ms = view.clock_offset_ms;
    if (view.attempt_at_ms != SYNC_NEVER) {
        int64_t left = view.attempt_at_ms - replicator_now_ms();
        out->attempt_in_ms = left > 0 ? left : 0;
    }
}
