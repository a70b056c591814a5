/* server.c: see server.h. One thread, one event loop; nothing here waits without a deadline except
 * in the loop itself. Reloading is in reload.c.
 */
#include "daemon/server.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/server_internal.h"
#include "lib/replica.h"
#include "lib/upkeep.h"

#define OPEN_ATTEMPTS 10 /* each waits up to a second for the map's gates */
#define OPEN_PAUSE_MS 100
#define STOP_GRACE_MS 500 /* beyond the drain, for the loop's last rounds */
#define RESTART_PAUSE_MS 1000
#define READABLE_MS 5000 /* a map that could not be read for so long is not readable */
#define HELD_UP_MS 5000  /* what waits for so long to go to Redis is held up */

int64_t server_clock_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static struct timeval to_timeval(int64_t milliseconds)
{
    return (struct timeval){.tv_sec = milliseconds / 1000,
                            .tv_usec = (suseconds_t)(milliseconds % 1000) * 1000};
}

/* Leave the loop with this exit code; the first one counts. */
static void leave(struct server *self, int code)
{
    if (!self->leaving) {
        self->leaving = true;
        self->exit_code = code;
    }
    event_base_loopbreak(self->base);
}

/* ---- The state ------------------------------------------------------------------------------- */

/* Up, and yet what was written does not go: Redis refuses it (it has no memory, a right was taken
 * away), or there is much of it. */
static bool is_held_up(const struct server *self)
{
    int64_t oldest = self->stats.oldest_dirty_ms;
    return oldest > 0 && server_clock_ms(CLOCK_REALTIME) - oldest > HELD_UP_MS;
}

/* Look at map and replicator; called at least once a second. */
static void look(struct server *self)
{
    larder_stats stats;
    int64_t now = server_clock_ms(CLOCK_MONOTONIC);
    int code = larder_stats_read(self->map, &stats, sizeof stats);
    if (code >= 0) {
        if (self->stats_ms && stats.generation != self->stats.generation) {
            log_event(LOG_NOTICE, "map_generation", "generation %" PRIu64 " of map %s began",
                      stats.generation, self->conf.map.name);
        }
        self->stats = stats;
        self->stats_ms = now;
        if (log_trouble_ends(&self->unreadable)) {
            log_event(LOG_NOTICE, "map_readable", "map %s can be read again", self->conf.map.name);
        }
    } else if (now - self->stats_ms > READABLE_MS && log_trouble_begins(&self->unreadable)) {
        log_event(LOG_ERR, "map_unreadable", "%s: %s", larder_strerror(code), larder_last_error());
    }
    memset(&self->redis, 0, sizeof self->redis);
    if (self->replicator) {
        replicator_status_read(self->replicator, &self->redis);
    }
    bool degraded = self->replicates && (self->redis.state != REPLICATOR_UP || is_held_up(self));
    if (degraded && !self->degraded) {
        self->degraded_since_ms = server_clock_ms(CLOCK_REALTIME);
    }
    self->degraded = degraded;
}

static void on_snapshot(void *context, metrics_snapshot *out)
{
    struct server *self = context;
    look(self);
    out->now_ms = server_clock_ms(CLOCK_REALTIME);
    out->started_ms = self->started_ms;
    snprintf(out->map_name, sizeof out->map_name, "%s", self->conf.map.name);
    out->map = self->stats;
    for (uint32_t kind = 0; kind <= LARDER_LATENCY_FETCH; kind++) {
        (void)larder_latency_read(self->map, kind, &out->latencies[kind],
                                  sizeof out->latencies[kind]); /* all 0 where it cannot */
    }
    out->map_age_ms = server_clock_ms(CLOCK_MONOTONIC) - self->stats_ms;
    out->map_fresh = out->map_age_ms <= READABLE_MS;
    out->replicates = self->replicates;
    out->redis = self->redis;
    out->degraded = self->degraded;
    out->degraded_since_ms = self->degraded_since_ms;
    if (self->janitor) {
        janitor_counters_read(self->janitor, &out->janitor);
    }
    out->log_dropped = log_dropped();
}

static const char *redis_word(const struct server *self)
{
    return self->replicates ? replicator_state_name(self->redis.state) : "not used";
}

void server_status_text(const struct server *self, char *out, size_t size)
{
    snprintf(out, size, "map %s: %" PRIu64 " entries; redis %s; %" PRIu64 " waiting",
             self->conf.map.name, self->stats.entries, redis_word(self), self->stats.dirty);
}

/* Tell workers and the tool that we live; find out whether a later daemon took the map. */
static void on_heartbeat(evutil_socket_t fd, short what, void *context)
{
    struct server *self = context;
    char text[200];
    (void)fd, (void)what;
    look(self);
    int code = replica_publish_state(self->map, self->fence, self->redis.state == REPLICATOR_UP,
                                     server_clock_ms(CLOCK_REALTIME));
    if (code == REPLICA_FENCED) {
        log_event(LOG_ERR, "fenced",
                  "a later larderd took map %s over, or it was made anew: ending",
                  self->conf.map.name);
        leave(self, SERVER_FENCED);
        return;
    }
    if (!replica_in_place(self->map)) {
        log_event(
            LOG_ERR, "map_gone",
            "the directory of map %s was removed or replaced: ending, to begin with the new one",
            self->conf.map.name);
        leave(self, SERVER_FAILED);
        return;
    }
    if (code < 0 && code != LARDER_EBUSY && log_trouble_begins(&self->heartbeat_failing)) {
        log_event(LOG_ERR, "heartbeat_failed", "%s: %s", larder_strerror(code),
                  larder_last_error());
    } else if (code >= 0) {
        log_trouble_ends(&self->heartbeat_failing);
    }
    server_status_text(self, text, sizeof text);
    notify_status(text);
}

static void on_watchdog(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what, (void)context;
    notify_watchdog();
}

/* ---- The replicator -------------------------------------------------------------------------- */

static void on_replicator_log(void *context, int priority, const char *text)
{
    (void)context;
    log_event(priority, "redis", "%s", text);
}

static void on_fenced(void *context)
{
    struct server *self = context;
    log_event(LOG_ERR, "fenced", "a later larderd took map %s over, or it was made anew: ending",
              self->conf.map.name);
    leave(self, SERVER_FENCED);
}

static bool start_replicator(struct server *self)
{
    replicator_settings settings;
    char error[512] = "";
    int code = 0;
    prepare_replicator(&self->conf, &self->prepared, &settings);
    settings.log = on_replicator_log;
    self->replicator =
        replicator_start(self->base, self->map, &settings, self->fence, &code, error, sizeof error);
    if (!self->replicator) {
        log_event(LOG_ERR, "replicator_failed", "%s: %s", larder_strerror(code), error);
        return false;
    }
    replicator_on_fenced(self->replicator, on_fenced, self);
    return true;
}

/* After a replicator was stopped for a reload, or failed to start after one. */
static void on_restart(evutil_socket_t fd, short what, void *context)
{
    struct server *self = context;
    struct timeval pause = to_timeval(RESTART_PAUSE_MS);
    (void)fd, (void)what;
    replicator_free(&self->replicator);
    if (!self->stopping && !start_replicator(self)) {
        event_add(self->restart_timer, &pause);
    }
}

/* May be called from inside the replicator: it is freed later, by a timer or at the end. */
static void on_replicator_stopped(void *context)
{
    struct server *self = context;
    struct timeval now = {0, 0};
    if (self->stopping) {
        leave(self, SERVER_OK);
    } else {
        event_add(self->restart_timer, &now);
    }
}

void server_restart_replicator(struct server *self)
{
    struct timeval now = {0, 0};
    if (self->replicator) {
        replicator_stop(self->replicator, 0, on_replicator_stopped, self);
    } else {
        event_add(self->restart_timer, &now);
    }
}

/* ---- Signals --------------------------------------------------------------------------------- */

static void on_stop_deadline(evutil_socket_t fd, short what, void *context)
{
    struct server *self = context;
    (void)fd, (void)what;
    log_event(LOG_WARNING, "stop_deadline", "the drain did not end in time");
    leave(self, SERVER_OK);
}

static void on_terminate(evutil_socket_t signal_number, short what, void *context)
{
    struct server *self = context;
    (void)what;
    /* A second signal: at once. */
    int64_t drain_ms = self->stopping ? 0 : self->conf.drain_ms;
    struct timeval deadline = to_timeval(drain_ms + STOP_GRACE_MS);
    if (!self->stopping) {
        log_line line;
        log_begin(&line, LOG_INFO, "stopping");
        log_number(&line, "signal", (int64_t)signal_number);
        log_number(&line, "waiting", (int64_t)self->stats.dirty);
        log_end(&line);
        notify_stopping("pushing to Redis what waits");
    }
    self->stopping = true;
    janitor_free(&self->janitor);
    event_add(self->stop_timer, &deadline);
    if (self->replicator) {
        replicator_stop(self->replicator, drain_ms, on_replicator_stopped, self);
    } else {
        leave(self, SERVER_OK);
    }
}

static void on_hangup(evutil_socket_t signal_number, short what, void *context)
{
    struct server *self = context;
    (void)signal_number, (void)what;
    if (!self->stopping) {
        server_reload(self);
    }
}

static void mask_reloads(int how)
{
    sigset_t hangup;
    (void)sigemptyset(&hangup);
    (void)sigaddset(&hangup, SIGHUP);
    (void)sigprocmask(how, &hangup, NULL);
}

void server_hold_reloads(void)
{
    mask_reloads(SIG_BLOCK);
}

/* What libevent has to say goes the way of all lines. */
static void on_library_log(int severity, const char *text)
{
    log_event(severity >= EVENT_LOG_ERR   ? LOG_ERR
              : severity >= EVENT_LOG_MSG ? LOG_WARNING
                                          : LOG_DEBUG,
              "libevent", "%s", text);
}

/* ---- Life ------------------------------------------------------------------------------------ */

static bool open_map(struct server *self)
{
    larder_options options;
    char error[512];
    int code = 0;
    if (!prepare_directory(&self->conf, &self->prepared, error, sizeof error)) {
        log_event(LOG_ERR, "map_failed", "%s", error);
        return false;
    }
    prepare_map(&self->conf, &options);
    for (int i = 0; i < OPEN_ATTEMPTS; i++) {
        code = larder_open(self->conf.map.name, &options, &self->map);
        if (code != LARDER_EBUSY) {
            break;
        }
        poll(NULL, 0, OPEN_PAUSE_MS);
    }
    if (code < 0) {
        log_line line;
        log_begin(&line, LOG_ERR, "map_failed");
        log_text(&line, "map", self->conf.map.name);
        log_text(&line, "error", larder_strerror(code));
        log_text(&line, "msg", larder_last_error());
        log_end(&line);
        return false;
    }
    return true;
}

/* 0, or the exit code. */
static int claim_map(struct server *self)
{
    int other = 0, code = 0;
    for (int i = 0; i < OPEN_ATTEMPTS; i++) {
        code = replica_claim(self->map, self->replicates, &self->fence, &other);
        if (code != LARDER_EBUSY) {
            break;
        }
        poll(NULL, 0, OPEN_PAUSE_MS);
    }
    if (code == LARDER_EXISTS) {
        log_line line;
        log_begin(&line, LOG_ERR, "map_claimed");
        log_text(&line, "map", self->conf.map.name);
        log_number(&line, "pid", other);
        log_text(&line, "msg", "another larderd keeps this map: only one can");
        log_end(&line);
        return SERVER_CLAIMED;
    }
    if (code < 0) {
        log_event(LOG_ERR, "map_claim_failed", "%s: %s", larder_strerror(code),
                  larder_last_error());
        return SERVER_FAILED;
    }
    return SERVER_OK;
}

static struct event *add_event(struct server *self, evutil_socket_t fd, short what,
                               event_callback_fn call, int64_t period_ms)
{
    struct timeval period = to_timeval(period_ms);
    struct event *made = event_new(self->base, fd, what, call, self);
    if (!made || (period_ms >= 0 && event_add(made, period_ms > 0 ? &period : NULL) != 0)) {
        self->events_failed = true;
    }
    if (made && self->event_count < SERVER_EVENTS) {
        self->events[self->event_count++] = made;
    }
    return made;
}

#define NOT_YET (-1) /* add_event() makes it without adding it */

static bool start_events(struct server *self)
{
    short signals = EV_SIGNAL | EV_PERSIST;
    add_event(self, SIGTERM, signals, on_terminate, 0);
    add_event(self, SIGINT, signals, on_terminate, 0);
    add_event(self, SIGHUP, signals, on_hangup, 0);
    add_event(self, -1, EV_PERSIST, on_heartbeat, 1000);
    self->stop_timer = add_event(self, -1, 0, on_stop_deadline, NOT_YET);
    self->restart_timer = add_event(self, -1, 0, on_restart, NOT_YET);
    if (notify_watchdog_ms() > 0) {
        add_event(self, -1, EV_PERSIST, on_watchdog, notify_watchdog_ms());
        notify_watchdog();
    }
    return !self->events_failed;
}

static bool start_web(struct server *self)
{
    char error[512];
    if (!*self->conf.web.listen) {
        return true;
    }
    web_settings settings = {.where = self->prepared.listen,
                             .connections = self->conf.web.connections,
                             .timeout_ms = self->conf.web.timeout_ms,
                             .snapshot = on_snapshot,
                             .context = self};
    self->web = web_start(self->base, &settings, error, sizeof error);
    if (!self->web || !web_token(self->web, self->prepared.token)) {
        log_event(LOG_ERR, "listen_failed", "%s", self->web ? "no memory" : error);
        return false;
    }
    log_line line;
    log_begin(&line, LOG_INFO, "listening");
    log_text(&line, "at", self->conf.web.listen);
    if (web_port(self->web)) {
        log_number(&line, "port", (int64_t)web_port(self->web));
    }
    log_end(&line);
    return true;
}

static bool start_parts(struct server *self)
{
    janitor_settings settings;
    prepare_janitor(&self->conf, &settings);
    self->janitor = janitor_start(self->base, self->map, &settings);
    if (!self->janitor || !start_events(self)) {
        log_event(LOG_ERR, "start_failed", "no memory");
        return false;
    }
    return start_web(self) && (!self->replicates || start_replicator(self));
}

/* A map that is there gets the size that is configured: a new generation with what must not be lost
 * and what fits. Where that cannot be it keeps the old one, and larderd goes on. */
static void match_size(struct server *self)
{
    larder_stats before = {0};
    uint64_t wanted = (uint64_t)self->conf.map.size & ~UINT64_C(4095);
    bool changed = false;
    if (wanted == 0 || larder_stats_read(self->map, &before, sizeof before) != LARDER_OK) {
        return;
    }
    int result = upkeep_resize(self->map, wanted, &changed);
    if (result == LARDER_OK && !changed) {
        return;
    }
    log_line line;
    log_begin(&line, result == LARDER_OK ? LOG_INFO : LOG_WARNING, "map_size");
    log_number(&line, "configured", (int64_t)wanted);
    log_number(&line, "before", (int64_t)before.map_size);
    log_text(&line, "msg",
             result == LARDER_OK ? "a new generation was started" : larder_last_error());
    log_end(&line);
}

static int start(struct server *self)
{
    self->base = event_base_new();
    if (!self->base) {
        log_event(LOG_ERR, "start_failed", "no event loop: %s", strerror(errno));
        return SERVER_FAILED;
    }
    if (!open_map(self)) {
        return SERVER_FAILED;
    }
    int code = claim_map(self);
    if (code == SERVER_OK) {
        match_size(self);
    }
    if (code == SERVER_OK && !start_parts(self)) {
        code = SERVER_FAILED;
    }
    return code;
}

static void announce(struct server *self)
{
    char text[200];
    on_heartbeat(-1, 0, self);
    log_line line;
    log_begin(&line, LOG_INFO, "ready");
    log_text(&line, "version", larder_version_text());
    log_text(&line, "map", self->conf.map.name);
    log_number(&line, "size", (int64_t)self->stats.map_size);
    log_number(&line, "generation", (int64_t)self->stats.generation);
    log_number(&line, "entries", (int64_t)self->stats.entries);
    log_text(&line, "redis", self->replicates ? self->conf.redis.url : "none");
    log_end(&line);
    server_status_text(self, text, sizeof text);
    notify_ready(text);
}

static void stop(struct server *self)
{
    web_free(&self->web);
    janitor_free(&self->janitor);
    replicator_free(&self->replicator);
    if (self->map && self->fence && self->exit_code != SERVER_FENCED) {
        replica_publish_state(self->map, self->fence, false, server_clock_ms(CLOCK_REALTIME));
    }
    for (size_t i = 0; i < self->event_count; i++) {
        event_free(self->events[i]);
    }
    larder_close(&self->map);
    if (self->base) {
        event_base_free(self->base);
    }
    prepare_free(&self->prepared);
    conf_free(&self->conf);
}

int server_run(struct conf *conf, struct prepared *prepared, const server_source *source)
{
    struct server self = {.conf = *conf, .prepared = *prepared, .source = source};
    char error[256];
    memset(conf, 0, sizeof *conf);
    memset(prepared, 0, sizeof *prepared);
    self.started_ms = server_clock_ms(CLOCK_REALTIME);
    self.replicates = *self.conf.redis.url != '\0';
    signal(SIGPIPE, SIG_IGN);
    event_set_log_callback(on_library_log);
    if (!notify_open(error, sizeof error)) {
        log_event(LOG_WARNING, "notify_unusable", "%s", error);
    }
    self.exit_code = start(&self);
    if (self.exit_code == SERVER_OK) {
        announce(&self);
        mask_reloads(SIG_UNBLOCK);
        if (!self.leaving && event_base_dispatch(self.base) < 0) {
            log_event(LOG_ERR, "loop_failed", "the event loop ended: %s", strerror(errno));
            self.exit_code = SERVER_FAILED;
        }
        server_hold_reloads();
        log_event(LOG_INFO, "stopped", "exit code %d", self.exit_code);
    }
    int code = self.exit_code;
    stop(&self);
    notify_close();
    return code;
}
