/* drive.c: see drive.h.
 */
#include "drive.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/measure.h"

enum {
    FILL_MS = 180000,
    ANSWER_MS = 30000,
    WARM_NS = 400000000,
    LEAD_NS = 2000000, /* from the command to the start: all workers are awake by then */
    SETTLE_NS = 10000000,
    SETTLE_LONG_NS = 60000000, /* where the keys are others than before */
    MISSES_MAX = 100           /* of the 1,000 keys looked at after filling */
};

const char *const drive_operation_names[DRIVE_OPERATIONS] = {"get", "set", "mix"};

static bool out(struct drive_instance *instance, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static bool out(struct drive_instance *instance, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(instance->why, sizeof instance->why, format, arguments);
    va_end(arguments);
    instance->alive = false;
    return false;
}

static bool say(struct drive_instance *instance, unsigned worker, const char *line)
{
    size_t size = strlen(line);
    return write(instance->in[worker], line, size) == (ssize_t)size ||
           out(instance, "cannot speak to its worker");
}

static bool ended(pid_t *pid)
{
    int status;
    if (*pid <= 0 || waitpid(*pid, &status, WNOHANG) != *pid)
        return false;
    *pid = 0;
    return true;
}

/* One line, without its end. */
static bool hear(struct drive_instance *instance, unsigned worker, char *line, size_t line_size,
                 uint64_t limit_ms)
{
    uint64_t until_us = test_now_us() + limit_ms * 1000;
    size_t used = 0;
    while (test_now_us() < until_us) {
        struct pollfd waiting = {.fd = instance->out[worker], .events = POLLIN};
        if (poll(&waiting, 1, 100) > 0) {
            ssize_t more = read(instance->out[worker], line + used, line_size - 1 - used);
            if (more > 0)
                used += (size_t)more;
            line[used] = '\0';
            if (used > 0 && line[used - 1] == '\n') {
                line[used - 1] = '\0';
                if (strncmp(line, "error ", 6) == 0)
                    return out(instance, "%.200s", line + 6);
                return true;
            }
            if (used + 1 >= line_size)
                return out(instance, "its worker talks nonsense");
        } else if (ended(&instance->workers[worker]) || ended(&instance->setup.server)) {
            return out(instance, "it ended: see %s/log", instance->directory);
        }
    }
    return out(instance, "no answer in %" PRIu64 " s", limit_ms / 1000);
}

static bool order(struct drive_instance *instance, unsigned worker, const char *command, char *line,
                  size_t line_size)
{
    return say(instance, worker, command) && hear(instance, worker, line, line_size, FILL_MS);
}

struct worker_of {
    struct drive_instance *instance;
    unsigned number;
};

static int run_worker(void *context)
{
    struct worker_of *worker = context;
    return peer_worker(worker->instance->peer, &worker->instance->setup, worker->number);
}

static void open_fifos(struct drive_instance *instance)
{
    char path[320];
    for (unsigned at = 0; at < PEER_WORKERS; at++) {
        int *ends[] = {&instance->in[at], &instance->out[at]};
        static const char *const names[] = {"in", "out"};
        for (unsigned end = 0; end < 2; end++) {
            snprintf(path, sizeof path, "%s/w%u.%s", instance->directory, at, names[end]);
            test_check(mkfifo(path, 0600) == 0, "mkfifo %s: %s", path, strerror(errno));
            *ends[end] = open(path, O_RDWR | O_CLOEXEC);
            test_check(*ends[end] >= 0, "open %s: %s", path, strerror(errno));
        }
    }
}

static bool run(struct drive_instance *instance, const char *pass, const char *operation,
                const char *stream, unsigned processes, uint64_t window_ns,
                char answers[PEER_WORKERS][256])
{
    char line[256];
    uint64_t start_ns = test_now_ns() + LEAD_NS;
    snprintf(line, sizeof line, "%s %s %s %" PRIu64 " %" PRIu64 "\n", pass, operation, stream,
             start_ns, window_ns);
    for (unsigned at = 0; at < processes; at++) {
        if (!say(instance, at, line))
            return false;
    }
    for (unsigned at = 0; at < processes; at++) {
        if (!hear(instance, at, answers[at], sizeof answers[at], ANSWER_MS))
            return false;
    }
    return true;
}

static bool mean_of(struct drive_instance *instance, const char *answer, struct peer_mean *mean)
{
    return (sscanf(answer, "mean %" SCNu64 " %" SCNu64 " %" SCNu64, &mean->calls, &mean->elapsed_ns,
                   &mean->misses) == 3 &&
            mean->calls > 0) ||
           out(instance, "not a mean: %.100s", answer);
}

static bool times_of(struct drive_instance *instance, const char *answer, struct peer_times *times)
{
    return sscanf(answer, "times %" SCNu64 " %" SCNu64 " %" SCNu64 " %lf %lf %lf %lf %lf %lf",
                  &times->gets, &times->sets, &times->misses, &times->get_p50, &times->get_p99,
                  &times->get_p999, &times->set_p50, &times->set_p99, &times->set_p999) == 9 ||
           out(instance, "not percentiles: %.100s", answer);
}

/* The same loops around a call that does nothing: the least of a few. */
static bool measure_loop(struct drive_instance *instance)
{
    char answers[PEER_WORKERS][256];
    struct peer_mean mean;
    struct peer_times times;
    instance->loop_ns = instance->timer_ns = 1e9;
    for (unsigned round = 0; round < 5; round++) {
        if (!run(instance, "mean", "empty", "zipf", 1, 3000000, answers) ||
            !mean_of(instance, answers[0], &mean))
            return false;
        double loop_ns = (double)mean.elapsed_ns / (double)mean.calls;
        if (loop_ns < instance->loop_ns)
            instance->loop_ns = loop_ns;
        if (!run(instance, "times", "empty", "zipf", 1, 3000000, answers) ||
            !times_of(instance, answers[0], &times))
            return false;
        if (times.get_p50 < instance->timer_ns)
            instance->timer_ns = times.get_p50;
    }
    return true;
}

/* The second worker has none of the store's pages mapped yet: it reads around in it first. */
static bool warm(struct drive_instance *instance)
{
    char answers[PEER_WORKERS][256];
    uint64_t window_ns = instance->setup.entries * 1000;
    if (window_ns > WARM_NS)
        window_ns = WARM_NS;
    return run(instance, "mean", "get", "uniform", PEER_WORKERS, window_ns, answers) &&
           run(instance, "mean", "get", "zipf", PEER_WORKERS, window_ns / 2, answers);
}

static bool fill(struct drive_instance *instance)
{
    char line[256];
    uint64_t missing = 0, bytes = 0;
    if (!order(instance, 0, "fill\n", line, sizeof line))
        return false;
    if (sscanf(line, "ok %" SCNu64, &missing) != 1)
        return out(instance, "not an answer: %.100s", line);
    if (missing > MISSES_MAX)
        return out(instance, "%" PRIu64 " of 1,000 entries were lost while it was filled", missing);
    if (!order(instance, 0, "memory\n", line, sizeof line))
        return false;
    if (sscanf(line, "memory %" SCNu64, &bytes) == 1)
        instance->entry_bytes = (double)bytes / (double)instance->setup.entries;
    return order(instance, 1, "attach\n", line, sizeof line);
}

void drive_open(struct drive_instance *instance, const struct peer *peer, const char *label,
                const char *root, const struct peer_setup *setup)
{
    struct worker_of workers[PEER_WORKERS];
    memset(instance, 0, sizeof *instance);
    instance->peer = peer;
    instance->setup = *setup;
    instance->last = WORKLOAD_COUNT;
    snprintf(instance->label, sizeof instance->label, "%s", label);
    snprintf(instance->directory, sizeof instance->directory, "%s/%s", root, label);
    instance->setup.directory = instance->directory;
    for (unsigned at = 0; at < PEER_WORKERS; at++)
        instance->in[at] = instance->out[at] = -1;
    if (peer->available != NULL &&
        !peer->available(&instance->setup, instance->why, sizeof instance->why))
        return;
    test_check(mkdir(instance->directory, 0700) == 0, "mkdir %s: %s", instance->directory,
               strerror(errno));
    open_fifos(instance);
    instance->alive = true;
    if (peer->start != NULL)
        instance->setup.server = peer->start(&instance->setup);
    for (unsigned at = 0; at < PEER_WORKERS && !peer->foreign; at++) {
        workers[at] = (struct worker_of){instance, at};
        instance->workers[at] = test_spawn(run_worker, &workers[at]);
    }
    if (!fill(instance) || !measure_loop(instance) || !warm(instance))
        return;
}

static double no_less(double value, double least)
{
    return value < least ? least : value;
}

static bool take_means(struct drive_instance *instance, const struct drive_cell *cell,
                       char answers[PEER_WORKERS][256], struct drive_figures *figures)
{
    uint64_t calls = 0, misses = 0;
    struct peer_mean mean;
    for (unsigned at = 0; at < cell->processes; at++) {
        if (!mean_of(instance, answers[at], &mean))
            return false;
        double ns = (double)mean.elapsed_ns / (double)mean.calls - instance->loop_ns;
        ns = no_less(ns, 0.1);
        figures->mean_ns += ns / cell->processes;
        figures->rate_per_s += 1e9 / ns;
        calls += mean.calls;
        misses += mean.misses;
    }
    figures->miss_share = (double)misses / (double)calls;
    return true;
}

static bool take_times(struct drive_instance *instance, const struct drive_cell *cell,
                       char answers[PEER_WORKERS][256], struct drive_figures *figures)
{
    struct peer_times times;
    for (unsigned at = 0; at < cell->processes; at++) {
        if (!times_of(instance, answers[at], &times))
            return false;
        const double heard[] = {times.get_p50, times.get_p99, times.get_p999,
                                times.set_p50, times.set_p99, times.set_p999};
        double *kept[] = {&figures->get_p50, &figures->get_p99, &figures->get_p999,
                          &figures->set_p50, &figures->set_p99, &figures->set_p999};
        for (size_t which = 0; which < sizeof heard / sizeof *heard; which++) {
            *kept[which] = no_less(heard[which] - instance->timer_ns, *kept[which]);
        }
    }
    return true;
}

bool drive_cell(struct drive_instance *instance, const struct drive_cell *cell, uint64_t window_ns,
                struct drive_figures *figures)
{
    char answers[PEER_WORKERS][256];
    const char *operation = drive_operation_names[cell->operation];
    const char *stream = workload_names[cell->workload];
    uint64_t settle_ns = cell->workload == instance->last ? SETTLE_NS : SETTLE_LONG_NS;
    *figures = (struct drive_figures){.mean_ns = 0};
    if (!instance->alive)
        return false;
    if (settle_ns > window_ns * 2)
        settle_ns = window_ns * 2;
    instance->last = cell->workload;
    return run(instance, "mean", operation, stream, cell->processes, settle_ns, answers) &&
           run(instance, "mean", operation, stream, cell->processes, window_ns, answers) &&
           take_means(instance, cell, answers, figures) &&
           run(instance, "times", operation, stream, cell->processes, window_ns / 2, answers) &&
           take_times(instance, cell, answers, figures);
}

static void end_worker(pid_t *pid)
{
    for (uint64_t until_us = test_now_us() + 5000000; *pid > 0 && !ended(pid);) {
        if (test_now_us() > until_us) {
            test_kill(*pid);
            *pid = 0;
        }
        test_pause_us(1000);
    }
}

void drive_close(struct drive_instance *instance)
{
    for (unsigned at = 0; at < PEER_WORKERS; at++) {
        if (instance->in[at] >= 0 && write(instance->in[at], "quit\n", 5) != 5)
            instance->alive = false;
    }
    for (unsigned at = 0; at < PEER_WORKERS; at++)
        end_worker(&instance->workers[at]);
    if (instance->setup.server > 0)
        test_kill(instance->setup.server);
    instance->setup.server = 0;
    for (unsigned at = 0; at < PEER_WORKERS; at++) {
        if (instance->in[at] >= 0) {
            close(instance->in[at]);
            close(instance->out[at]);
        }
    }
    if (instance->in[0] >= 0 && instance->why[0] == '\0')
        test_remove_tree(instance->directory);
    instance->alive = false;
}
