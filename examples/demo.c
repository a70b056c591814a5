/* demo.c: larder at work. Starts redis-server, larderd and the example server in a directory given
 * to it, replays an access log through them, kills Redis a third of the way in and starts it again,
 * empty, at two thirds; shows what happens and sums up. Exit status 0 only if every answer was
 * right and Redis holds in the end exactly what the map holds. demo.sh calls this and removes the
 * directory. It never leaves a process running: each dies with it, however it ends.
 */
#include "examples/demo.h"

#include <getopt.h>
#include <inttypes.h>
#include <locale.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define SAMPLE_MS 250  /* how often the outbox is sampled */
#define LINE_MS 2000   /* between two lines where the output is no terminal */
#define STALL_MS 60000 /* without a single answer; a slow machine is no failure, ... */
#define LATE_MS 300000 /* ... but this long after the planned end it is */
#define DRAIN_MS 60000 /* for the outbox to be empty in the end */
#define ANSWER_S 30    /* that an answer may take */
#define PER_CONNECTION 40
#define WARM_UP 300 /* requests sent once more if the mark has just emptied the cache */

int64_t demo_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static double replay_seconds(const demo *self)
{
    return (double)(demo_now_ms() - self->started_ms) / 1000.0;
}

/* Say what went wrong; the demo then ends with a failure. */
bool demo_fail(demo *self, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    fprintf(stderr, "%sdemo: ", self->terminal && self->started_ms != 0 ? "\n" : "");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    self->failed = true;
    return false;
}

bool demo_fail_child(demo *self, const struct child *child, const char *what)
{
    char tail[2048];
    child_log_tail(child, tail, sizeof tail);
    return demo_fail(self, "%s %s; the end of its log:\n%s", child->name, what, tail);
}

/* ---- Waiting: always on the loop, always with a deadline ------------------------------------- */

/* See demo.h. */
bool demo_wait(demo *self, bool (*condition)(demo *), int64_t wait_ms)
{
    int64_t deadline = demo_now_ms() + wait_ms;
    while (!condition(self)) {
        if (self->interrupted != 0 || self->failed || demo_now_ms() > deadline)
            return false;
        event_base_loop(self->base, EVLOOP_ONCE);
    }
    return true;
}

static bool replay_finished(demo *self)
{
    return self->finished;
}

/* As long as answers come, and not for ever. */
static bool wait_for_replay(demo *self, const replay *run, double planned_s)
{
    int64_t latest = demo_now_ms() + (int64_t)(planned_s * 1000) + LATE_MS;
    size_t answered;
    do {
        answered = replay_answered(run);
        int64_t left = latest - demo_now_ms();
        if (demo_wait(self, replay_finished, left < STALL_MS ? left : STALL_MS))
            return true;
    } while (self->interrupted == 0 && !self->failed && replay_answered(run) > answered &&
             demo_now_ms() < latest);
    return false;
}

/* ---- While it runs -------------------------------------------------------------------------- */

static const char *phase_name(const demo *self)
{
    if (self->facts.killed_s < 0)
        return "before";
    return self->facts.started_s < 0 ? "Redis down" : "after";
}

static void sample(demo *self, int64_t now)
{
    larder_stats_read(self->cache, &self->stats, sizeof self->stats);
    if (now - self->sampled_ms < SAMPLE_MS || self->facts.outbox_count == REPORT_SERIES_MAX)
        return;
    self->sampled_ms = now;
    self->outbox[self->facts.outbox_count++] = self->stats.dirty;
}

static void show(demo *self, int64_t now)
{
    int64_t since = now - self->shown_ms;
    if (since < (self->terminal ? SAMPLE_MS : LINE_MS))
        return;
    report_line line = {.phase = phase_name(self),
                        .elapsed_s = replay_seconds(self),
                        .answered = replay_answered(self->replay),
                        .requests = self->requests,
                        .outbox = self->stats.dirty,
                        .redis_up = self->stats.redis_up != 0};
    replay_read(self->replay, &line.counts, NULL);
    line.rate = (double)(line.answered - self->shown_answered) * 1000.0 / (double)since;
    self->shown_ms = now;
    self->shown_answered = line.answered;
    report_progress(&line, self->terminal);
}

/* After Redis's return: when does it answer, when is the outbox empty, when has it all again? */
static void watch_return(demo *self)
{
    report_facts *facts = &self->facts;
    if (facts->answered_s < 0) {
        if (!stage_redis_answers(self))
            return;
        facts->answered_s = replay_seconds(self);
        self->refilling = stage_compare(self, "50000", true);
    }
    if (facts->drained_s < 0 && self->stats.dirty == 0 && self->stats.redis_up != 0)
        facts->drained_s = replay_seconds(self);
    if (self->refilling && child_gone(&self->child[COMPARE])) {
        self->refilling = false;
        if (stage_compared(self))
            facts->refilled_s = replay_seconds(self);
    }
}

static void on_tick(evutil_socket_t descriptor, short what, void *context)
{
    (void)descriptor;
    (void)what;
    demo *self = context;
    if (self->started_ms == 0 || self->replay == NULL || self->interrupted != 0)
        return;
    int64_t now = demo_now_ms();
    if (now - self->sampled_ms >= SAMPLE_MS ||
        (self->facts.started_s >= 0 && self->facts.drained_s < 0))
        sample(self, now);
    if (self->facts.started_s >= 0)
        watch_return(self);
    if (!self->finished)
        show(self, now);
}

static void on_signal(evutil_socket_t signal_number, short what, void *context)
{
    (void)what;
    demo *self = context;
    if (signal_number != SIGCHLD) {
        self->interrupted = (int)signal_number;
        return;
    }
    struct child *all[] = {&self->child[REDIS], &self->child[LARDERD], &self->child[SERVER]};
    struct child *dead = children_reap(all, sizeof all / sizeof all[0]);
    if (dead != NULL)
        demo_fail_child(self, dead, "has ended");
}

/* Before request NUMBER goes out: is it the one at a third, or at two thirds? */
static void on_released(void *context, size_t number)
{
    demo *self = context;
    if (number == self->requests / 3) {
        child_signal(&self->child[REDIS], SIGKILL);
        self->facts.killed_s = replay_seconds(self);
        replay_set_phase(self->replay, 1);
    } else if (number == self->requests * 2 / 3) {
        if (!child_gone(&self->child[REDIS]))
            demo_fail(self, "Redis survived SIGKILL");
        else
            stage_redis(self);
        self->facts.started_s = replay_seconds(self);
        replay_set_phase(self->replay, 2);
    }
}

static void on_finished(void *context)
{
    ((demo *)context)->finished = true;
}

static bool all_replay(demo *self)
{
    replay_settings settings = {.base = self->base,
                                .site = self->site,
                                .address = "127.0.0.1",
                                .port = self->port,
                                .clients = self->clients,
                                .per_connection = PER_CONNECTION,
                                .rate = (double)self->requests / self->seconds,
                                .timeout_s = ANSWER_S,
                                .count = self->requests,
                                .released = on_released,
                                .finished = on_finished,
                                .context = self};
    self->facts = (report_facts){.log_name = self->log_name,
                                 .requests = self->requests,
                                 .clients = self->clients,
                                 .workers = self->workers,
                                 .killed_s = -1,
                                 .started_s = -1,
                                 .answered_s = -1,
                                 .drained_s = -1,
                                 .refilled_s = -1,
                                 .outbox = self->outbox,
                                 .outbox_every_ms = SAMPLE_MS};
    self->replay = replay_start(&settings);
    if (self->replay == NULL)
        return demo_fail(self, "no memory for the replay");
    self->facts.replay = self->replay;
    self->started_ms = self->shown_ms = demo_now_ms();
    bool done = wait_for_replay(self, self->replay, self->seconds);
    self->facts.elapsed_s = replay_seconds(self);
    if (!done && self->interrupted == 0 && !self->failed)
        demo_fail(self, "only %zu of %zu requests were answered", replay_answered(self->replay),
                  self->requests);
    return done;
}

/* ---- At the end ----------------------------------------------------------------------------- */

static bool all_watched(demo *self)
{
    return self->facts.drained_s >= 0 && !self->refilling;
}

static void warm_released(void *context, size_t number)
{
    (void)context;
    (void)number;
}

/* The 5-minute mark has just emptied the cache, and there is nothing to compare: ask once more. */
static bool warm_up(demo *self)
{
    replay_settings settings = {.base = self->base,
                                .site = self->site,
                                .address = "127.0.0.1",
                                .port = self->port,
                                .clients = self->clients,
                                .per_connection = PER_CONNECTION,
                                .rate = 150,
                                .timeout_s = ANSWER_S,
                                .count = WARM_UP,
                                .released = warm_released,
                                .finished = on_finished,
                                .context = self};
    replay_counts total;
    printf("%sthe 5-minute mark has just emptied the cache: %d requests more before comparing\n",
           self->terminal ? "\n" : "", WARM_UP);
    self->finished = false;
    replay *warm = replay_start(&settings);
    bool good = warm != NULL && wait_for_replay(self, warm, 2);
    if (good) {
        replay_read(warm, &total, NULL);
        good = total.errors == 0 || demo_fail(self, "%s", replay_error(warm, 0));
    }
    replay_free(&warm);
    return good && demo_wait(self, stage_in_step, DRAIN_MS);
}

/* How many entries the last comparison found equal. */
static uint64_t compared_equal(const demo *self)
{
    static const char label[] = "equal=";
    const char *found = strstr(self->compared, label);
    return found == NULL ? 0 : strtoull(found + sizeof label - 1, NULL, 10);
}

static bool all_verify(demo *self)
{
    replay_counts total;
    replay_read(self->replay, &total, NULL);
    if (!demo_wait(self, all_watched, DRAIN_MS) || !demo_wait(self, stage_in_step, DRAIN_MS)) {
        if (self->interrupted == 0 && !self->failed)
            demo_fail(self, "the outbox did not drain: %" PRIu64 " writes wait", self->stats.dirty);
        return false;
    }
    if (self->facts.refilled_s < 0)
        return demo_fail(self, "Redis did not get all of the map again: %s", self->compared);
    if (!stage_compare_all(self))
        return false;
    if (compared_equal(self) == 0 && (!warm_up(self) || !stage_compare_all(self)))
        return false;
    if (compared_equal(self) == 0)
        return demo_fail(self, "nothing was compared");
    return total.errors == 0 || demo_fail(self, "%" PRIu64 " requests failed", total.errors);
}

static void all_report(demo *self)
{
    if (self->terminal)
        printf("\n");
    larder_stats_read(self->cache, &self->facts.stats, sizeof self->facts.stats);
    self->facts.compared = self->compared;
    report_summary(&self->facts);
    for (unsigned i = 0; replay_error(self->replay, i) != NULL; i++)
        printf("  error: %s\n", replay_error(self->replay, i));
}

/* ---- Start and end of the demo -------------------------------------------------------------- */

static bool loop_prepare(demo *self)
{
    static const int numbers[] = {SIGCHLD, SIGTERM, SIGINT};
    struct timeval tick = {.tv_usec = DEMO_TICK_MS * 1000};
    signal(SIGPIPE, SIG_IGN);
    self->base = event_base_new();
    if (self->base == NULL)
        return demo_fail(self, "no event loop");
    self->tick = event_new(self->base, -1, EV_PERSIST, on_tick, self);
    if (self->tick == NULL || event_add(self->tick, &tick) != 0)
        return demo_fail(self, "no timer");
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        self->signals[i] = evsignal_new(self->base, numbers[i], on_signal, self);
        if (self->signals[i] == NULL || event_add(self->signals[i], NULL) != 0)
            return demo_fail(self, "no signal handler");
    }
    return true;
}

static double number_option(const char *name, const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= least && value <= most)) {
        fprintf(stderr, "demo: --%s: '%s' is not a number from %g to %g\n", name, text, least,
                most);
        exit(2);
    }
    return value;
}

static void options_read(demo *self, int argc, char **argv)
{
    static const struct option names[] = {
        {"work", required_argument, NULL, 'w'},
        {"log", required_argument, NULL, 'l'},
        {"log-name", required_argument, NULL, 'n'},
        {"redis-server", required_argument, NULL, 'r'},
        {"larderd", required_argument, NULL, 'd'},
        {"server", required_argument, NULL, 's'},
        {"compare", required_argument, NULL, 'c'},
        {"seconds", required_argument, NULL, 't'},
        {"requests", required_argument, NULL, 'q'},
        {"clients", required_argument, NULL, 'k'},
        {"workers", required_argument, NULL, 'x'},
        {"map-size", required_argument, NULL, 'm'},
        {NULL, 0, NULL, 0},
    };
    const char **texts[128] = {['w'] = &self->work,
                               ['l'] = &self->log_file,
                               ['n'] = &self->log_name,
                               ['r'] = &self->redis_program,
                               ['d'] = &self->larderd_program,
                               ['s'] = &self->server_program,
                               ['c'] = &self->compare_program,
                               ['m'] = &self->map_size};
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (option == '?')
            exit(2);
        else if (option == 't')
            self->seconds = number_option("seconds", optarg, 1, 3600);
        else if (option == 'q')
            self->requests = (size_t)number_option("requests", optarg, 9, SITE_REQUESTS_MAX);
        else if (option == 'k')
            self->clients = (unsigned)number_option("clients", optarg, 1, REPLAY_CLIENTS_MAX);
        else if (option == 'x')
            self->workers = (unsigned)number_option("workers", optarg, 1, REPLAY_WORKERS_MAX);
        else
            *texts[option] = optarg;
    }
    if (self->work == NULL || self->log_file == NULL || self->larderd_program == NULL ||
        self->server_program == NULL || self->compare_program == NULL || optind != argc) {
        fprintf(stderr, "demo: called by demo.sh: --work, --log, --larderd, --server and --compare "
                        "are needed\n");
        exit(2);
    }
    if (self->log_name == NULL)
        self->log_name = self->log_file;
    if (snprintf(self->socket, sizeof self->socket, "%s/redis.sock", self->work) >=
        (int)sizeof self->socket) {
        fprintf(stderr, "demo: %s is too long a name for a directory of sockets\n", self->work);
        exit(2);
    }
}

static void demo_free(demo *self)
{
    replay_free(&self->replay);
    larder_close(&self->cache);
    site_free(&self->site);
    if (self->server_output >= 0)
        close(self->server_output);
    for (size_t i = 0; i < sizeof self->signals / sizeof self->signals[0]; i++)
        if (self->signals[i] != NULL)
            event_free(self->signals[i]);
    if (self->tick != NULL)
        event_free(self->tick);
    if (self->base != NULL)
        event_base_free(self->base);
}

int main(int argc, char **argv)
{
    static demo self = {.redis_program = "redis-server",
                        .map_size = "96M",
                        .seconds = 42,
                        .clients = 12,
                        .workers = 4,
                        .server_output = -1};
    char error[512];
    options_read(&self, argc, argv);
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* should demo.sh be killed, the programs end with it */
    setlocale(LC_CTYPE, "");
    self.terminal = isatty(STDOUT_FILENO) == 1;
    if (site_load(self.log_file, &self.site, error, sizeof error) != 0 || self.site == NULL) {
        demo_fail(&self, "%s", error);
    } else if (loop_prepare(&self)) {
        if (self.requests == 0)
            self.requests = self.site->request_count;
        if (stage_start(&self) && all_replay(&self))
            all_verify(&self);
        if (self.replay != NULL && self.interrupted == 0)
            all_report(&self);
        stage_stop_all(&self);
    }
    demo_free(&self);
    if (self.interrupted != 0) {
        printf("\ndemo: interrupted; everything has been stopped\n");
        return 128 + self.interrupted;
    }
    printf("\ndemo: %s\n", self.failed ? "FAILED" : "ok");
    return self.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
