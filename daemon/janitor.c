/* janitor.c: see janitor.h. A round, once a period, decides what is due; steps then do it one at a
 * time, with the event loop running in between, until nothing is due.
 *
 * The expiry walk is paced by the length of the log: a walk takes two thirds of pass_ms and the
 * next begins pass_ms / 3 after it at the earliest, so that no row waits longer than pass_ms and a
 * small map costs nothing.
 */
#include "daemon/janitor.h"

#include <stdlib.h>
#include <time.h>

#include "daemon/log.h"
#include "lib/replica.h"
#include "lib/upkeep.h"

#define STEP_ROWS 256u  /* of an expiry step */
#define STEP_VERIFY 64u /* of a verify step */
#define STEP_EVICT 64u  /* entries of an eviction step */
#define STEP_PAUSE_US                                                                              \
    500 /* between steps of one round: the loop serves others, workers the gate                    \
         */
#define BLOCKED_PAUSE_MS 1000 /* after an eviction that could free nothing */
#define LEAST_ROWS 64u        /* a round looks at no fewer: small maps are done in one go */

struct janitor {
    larder *handle;
    janitor_settings settings;
    janitor_counters counters;
    struct event *round_timer, *step_timer, *readers_timer;

    uint64_t expire_row, expire_due;
    int64_t pass_began_ms, rest_until_ms;
    uint64_t verify_row, verify_due;
    int64_t verify_paid_ms;
    bool evict_due;
    unsigned turn; /* whose step is next */
    int64_t evict_after_ms;

    log_trouble busy, failing, blocked, damage;
};

static int64_t monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* A busy gate is ordinary and only said when it lasts; anything else is said at once, then once a
 * minute. True: the step was carried out. */
static bool carried_out(janitor *self, const char *what, int code)
{
    if (code >= 0) {
        if (log_trouble_ends(&self->failing)) {
            log_event(LOG_NOTICE, "janitor_recovered", "after %llu failures",
                      (unsigned long long)self->failing.occurrences);
        }
        if (self->busy.occurrences >= 100 && self->busy.active) {
            log_event(LOG_NOTICE, "janitor_gate_free", "after %llu steps put off",
                      (unsigned long long)self->busy.occurrences);
        }
        log_trouble_ends(&self->busy);
        return true;
    }
    if (code == REPLICA_FENCED) {
        return false; /* server.c finds it out with the next heartbeat, and ends */
    }
    if (code == LARDER_EBUSY) {
        self->counters.busy++;
        bool minute = log_trouble_begins(&self->busy);
        if (self->busy.occurrences == 100 || (minute && self->busy.occurrences > 100)) {
            log_event(LOG_WARNING, "janitor_gate_busy",
                      "%s put off: the map's write gate has been held for long", what);
        }
        return false;
    }
    self->counters.errors++;
    if (log_trouble_begins(&self->failing)) {
        log_line line;
        log_begin(&line, LOG_ERR, "janitor_failed");
        log_text(&line, "step", what);
        log_text(&line, "error", larder_strerror(code));
        log_text(&line, "msg", larder_last_error());
        log_end(&line);
    }
    return false;
}

/* ---- Steps: each does one call of a bounded size and says whether it should be repeated -------
 */

static void step_evict(janitor *self)
{
    size_t evicted = 0;
    int code = upkeep_evict(self->handle, self->settings.watermark, STEP_EVICT, &evicted);
    self->counters.evicted += evicted;
    if (code == LARDER_EFULL) {
        self->counters.eviction_blocked++;
        self->evict_due = false;
        self->evict_after_ms = monotonic_ms() + BLOCKED_PAUSE_MS;
        if (log_trouble_begins(&self->blocked)) {
            log_line line;
            log_begin(&line, LOG_WARNING, "eviction_blocked");
            log_text(&line, "msg", larder_last_error());
            log_end(&line);
        }
        return;
    }
    if (!carried_out(self, "eviction", code) || evicted < STEP_EVICT) {
        self->evict_due = false;
    }
    if (code >= 0 && log_trouble_ends(&self->blocked)) {
        log_event(LOG_NOTICE, "eviction_goes_on", "the pages are free again");
    }
}

static void step_expire(janitor *self)
{
    upkeep_step step = {.next_row = self->expire_row};
    size_t rows = self->expire_due < STEP_ROWS ? (size_t)self->expire_due : STEP_ROWS;
    int code = upkeep_expire(self->handle, &step, rows, self->settings.tombstone_ms);
    if (!carried_out(self, "expiry", code)) {
        self->expire_due = 0; /* the next round goes on from the same row */
        return;
    }
    self->expire_row = step.next_row;
    self->counters.rows_looked_at += step.looked_at;
    self->counters.removed += step.removed;
    size_t done = step.looked_at > rows || step.looked_at == 0 ? rows : step.looked_at;
    self->expire_due -= done;
    if (step.wrapped) {
        int64_t now = monotonic_ms();
        self->counters.passes++;
        self->counters.pass_took_ms = now - self->pass_began_ms;
        self->rest_until_ms = now + self->settings.pass_ms / 3;
        self->expire_row = 0;
        self->expire_due = 0;
    }
}

static void step_verify(janitor *self)
{
    size_t rows = self->verify_due < STEP_VERIFY ? (size_t)self->verify_due : STEP_VERIFY;
    uint64_t before = self->verify_row;
    int code = upkeep_verify(self->handle, &self->verify_row, rows);
    self->verify_due -= rows;
    if (code == LARDER_ECORRUPT) {
        self->counters.damaged++;
        if (self->verify_row == before) {
            self->verify_row++; /* never look at the same damage for ever */
        }
        if (log_trouble_begins(&self->damage)) {
            log_line line;
            log_begin(&line, LOG_ERR, "map_damaged");
            log_text(&line, "msg", larder_last_error());
            log_end(&line);
        }
    } else if (carried_out(self, "verification", code)) {
        self->counters.verified += rows;
    } else {
        self->verify_due = 0;
    }
}

static void plan_step(janitor *self)
{
    struct timeval pause = {0, STEP_PAUSE_US};
    if (self->evict_due || self->expire_due > 0 || self->verify_due > 0) {
        event_add(self->step_timer, &pause);
    }
}

/* The kinds take turns, so that none starves behind workers who keep another one busy. */
static void on_step(evutil_socket_t fd, short what, void *context)
{
    janitor *self = context;
    (void)fd, (void)what;
    for (unsigned looked = 0; looked < 3; looked++) {
        unsigned turn = self->turn++ % 3;
        if (turn == 0 && self->evict_due) {
            step_evict(self);
            break;
        }
        if (turn == 1 && self->expire_due > 0) {
            step_expire(self);
            break;
        }
        if (turn == 2 && self->verify_due > 0) {
            step_verify(self);
            break;
        }
    }
    plan_step(self);
}

/* ---- Rounds ---------------------------------------------------------------------------------- */

static void plan_expiry(janitor *self, uint64_t rows, int64_t now)
{
    if (rows == 0 || (self->expire_row == 0 && now < self->rest_until_ms)) {
        return;
    }
    if (self->expire_row == 0 && self->expire_due == 0) {
        self->pass_began_ms = now;
    }
    double share = (double)self->settings.period_ms * 1.5 / (double)self->settings.pass_ms;
    uint64_t due = (uint64_t)((double)rows * (share > 1 ? 1 : share)) + 1;
    due = due < LEAST_ROWS ? LEAST_ROWS : due;
    /* What an earlier round left is added, but never more than one round's worth again. */
    self->expire_due = self->expire_due > due ? 2 * due : self->expire_due + due;
}

static void plan_verify(janitor *self, uint64_t rows, int64_t now)
{
    int64_t passed = now - self->verify_paid_ms;
    int64_t due = self->settings.verify_rate * (passed < 10000 ? passed : 10000) / 1000;
    if (rows == 0 || self->settings.verify_rate == 0) {
        self->verify_paid_ms = now;
    } else if (due > 0) {
        self->verify_paid_ms = now;
        self->verify_due = (uint64_t)due;
    }
}

static void on_round(evutil_socket_t fd, short what, void *context)
{
    janitor *self = context;
    larder_stats stats;
    int64_t now = monotonic_ms();
    (void)fd, (void)what;
    if (!carried_out(self, "statistics", larder_stats_read(self->handle, &stats, sizeof stats))) {
        return;
    }
    self->evict_due = stats.map_size > 0 && now >= self->evict_after_ms &&
                      (double)stats.used_bytes > self->settings.watermark * (double)stats.map_size;
    plan_expiry(self, stats.log_rows, now);
    plan_verify(self, stats.entries, now);
    plan_step(self);
}

static void on_readers(evutil_socket_t fd, short what, void *context)
{
    janitor *self = context;
    int cleared = 0;
    (void)fd, (void)what;
    if (carried_out(self, "reader check", upkeep_readers(self->handle, &cleared)) && cleared > 0) {
        self->counters.readers_cleared += (uint64_t)cleared;
        log_event(LOG_INFO, "readers_cleared", "%d reader slots of dead processes", cleared);
    }
}

/* ---- Life ------------------------------------------------------------------------------------ */

static struct timeval to_timeval(int64_t milliseconds)
{
    return (struct timeval){.tv_sec = milliseconds / 1000,
                            .tv_usec = (suseconds_t)(milliseconds % 1000) * 1000};
}

void janitor_configure(janitor *self, const janitor_settings *settings)
{
    struct timeval round = to_timeval(settings->period_ms);
    struct timeval readers = to_timeval(settings->readers_ms);
    self->settings = *settings;
    event_add(self->round_timer, &round);
    event_add(self->readers_timer, &readers);
}

janitor *janitor_start(struct event_base *base, larder *handle, const janitor_settings *settings)
{
    janitor *self = calloc(1, sizeof *self);
    if (!self) {
        return NULL;
    }
    self->handle = handle;
    self->verify_paid_ms = monotonic_ms();
    self->round_timer = event_new(base, -1, EV_PERSIST, on_round, self);
    self->step_timer = event_new(base, -1, 0, on_step, self);
    self->readers_timer = event_new(base, -1, EV_PERSIST, on_readers, self);
    if (!self->round_timer || !self->step_timer || !self->readers_timer) {
        janitor_free(&self);
        return NULL;
    }
    janitor_configure(self, settings);
    return self;
}

void janitor_counters_read(const janitor *self, janitor_counters *out)
{
    *out = self->counters;
}

void janitor_free(janitor **self)
{
    janitor *gone = *self;
    if (!gone) {
        return;
    }
    if (gone->round_timer) {
        event_free(gone->round_timer);
    }
    if (gone->step_timer) {
        event_free(gone->step_timer);
    }
    if (gone->readers_timer) {
        event_free(gone->readers_timer);
    }
    free(gone);
    *self = NULL;
}
