/* host.c: the hosts of the chaos test; see chaos.h. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/chaos/chaos.h"

enum { STARTS_US = 5000000 }; /* until a larderd that was started takes signals, at most */

static struct host_settings common;

static pid_t run(struct host *host, const char *const *words, const char *log)
{
    return network_run(&host->place, words, log, wall_clock_environment(&host->clock));
}

void host_start_larderd(struct host *host)
{
    const char *path = getenv("LARDERD");
    const char *words[] = {path,      "-c",       host->config,    "--map",
                           MAP_NAME,  "--dir",    host->directory, "--redis",
                           host->url, "--prefix", PREFIX,          NULL};
    host->larderd = run(host, words, host->log);
    host->larderd_since_us = test_now_us();
    host->larderd_frozen = false;
}

void host_end_larderd(struct host *host, int signal_number)
{
    if (host->larderd == 0)
        return;
    bool starting = test_now_us() - host->larderd_since_us < STARTS_US;
    kill(host->larderd, signal_number);
    if (host->larderd_frozen)
        kill(host->larderd, SIGCONT);
    int status = test_wait(host->larderd, 60000);
    /* one that has just been started does not take signals yet */
    bool early = starting && WIFSIGNALED(status) && WTERMSIG(status) == signal_number;
    test_check(signal_number != SIGTERM || early || (WIFEXITED(status) && WEXITSTATUS(status) == 0),
               "larderd of host %u: %s", host->number, test_status_text(status));
    host->larderd = 0;
    host->larderd_frozen = false;
}

void host_start_worker(struct host *host, unsigned worker)
{
    static uint64_t started;
    char self[500], number[16], seed[32], rate[32];
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    test_check(size > 0, "/proc/self/exe");
    self[size] = '\0';
    test_random random = test_random_new(1000 + started++);
    snprintf(number, sizeof number, "%u", host->number * WORKERS + worker);
    snprintf(seed, sizeof seed, "%" PRIu64, test_random_next(&random));
    snprintf(rate, sizeof rate, "%" PRIu64, common.rate);
    const char *words[] = {self, "worker", host->directory, common.board, number, seed, rate, NULL};
    host->workers[worker] = run(host, words, host->worker_log);
    host->worker_frozen[worker] = false;
}

void host_kill_worker(struct host *host, unsigned worker)
{
    test_kill(host->workers[worker]);
    host->workers[worker] = 0;
    host->worker_frozen[worker] = false;
}

static void look(pid_t pid, const struct host *host, const char *what, const char *log)
{
    int status = 0;
    if (pid != 0 && waitpid(pid, &status, WNOHANG) == pid)
        test_fail("a %s of host %u ended by itself: %s: see %s", what, host->number,
                  test_status_text(status), log);
}

void host_look(struct host *host)
{
    look(host->larderd, host, "larderd", host->log);
    for (unsigned worker = 0; worker < WORKERS; worker++)
        look(host->workers[worker], host, "worker", host->worker_log);
}

larder_stats host_stats(struct host *host)
{
    larder_stats stats;
    int code = larder_stats_read(host->map, &stats, sizeof stats);
    test_check(code == LARDER_OK, "stats: %d %s", code, larder_last_error());
    return stats;
}

void host_begin(struct host *host, unsigned number, const struct host_settings *settings)
{
    char name[16];
    common = *settings;
    memset(host, 0, sizeof *host);
    host->number = number;
    snprintf(name, sizeof name, "host%u", number);
    network_place(&host->place, name);
    snprintf(host->directory, sizeof host->directory, "%s/%s", test_directory(), name);
    snprintf(host->log, sizeof host->log, "%s/larderd%u.log", test_directory(), number);
    snprintf(host->worker_log, sizeof host->worker_log, "%s/worker%u.log", test_directory(),
             number);
    snprintf(host->config, sizeof host->config, "%s/%s.conf", test_directory(), name);
    snprintf(host->url, sizeof host->url, "%s", settings->url);
    test_check(mkdir(host->directory, 0700) == 0, "mkdir: %s", strerror(errno));
    wall_clock_make(&host->clock, name);
    FILE *file = fopen(host->config, "we");
    test_check(file != NULL, "%s: %s", host->config, strerror(errno));
    /* deadlines such that a cut is noticed in seconds */
    fprintf(file,
            "map = { size = %d; };\n"
            "redis = { reply_timeout = \"2s\"; connect_timeout = \"2s\"; ping = \"1s\"; };\n",
            MAP_BYTES);
    fclose(file);
    host_start_larderd(host);
    larder_options options = {.dir = host->directory, .flags = LARDER_ATTACH};
    int code = LARDER_ENOTFOUND;
    test_until((code = larder_open(MAP_NAME, &options, &host->map)) != LARDER_ENOTFOUND, 60000,
               "larderd of host %u makes no map: see %s", number, host->log);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    for (unsigned worker = 0; worker < WORKERS; worker++)
        host_start_worker(host, worker);
}

void host_join_workers(struct host *host)
{
    for (unsigned worker = 0; worker < WORKERS; worker++) {
        if (host->workers[worker] != 0)
            test_join(host->workers[worker], 60000, "a worker");
        host->workers[worker] = 0;
    }
}

void host_end(struct host *host)
{
    larder_close(&host->map);
    host_end_larderd(host, SIGTERM);
}

void process_freeze(pid_t pid)
{
    test_stop(pid);
}

void process_thaw(pid_t pid)
{
    test_check(kill(pid, SIGCONT) == 0, "SIGCONT: %s", strerror(errno));
}
