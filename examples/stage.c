/* stage.c: the programs that the demo runs, from their start to their end: Redis, larderd, the
 * server, and the comparison of map and Redis. demo.c calls this; it never signals a process that
 * it did not start, and never waits without a deadline.
 */
#include "examples/demo.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAP_NAME "demo"
#define PREFIX "demo:"
#define START_MS 60000 /* for each program to be ready */
#define STOP_MS 10000  /* for each program to end after SIGTERM */
#define AGREE_MS 60000 /* for map and Redis to agree in the end */

/* ---- Conditions ------------------------------------------------------------------------------ */

/* Does Redis answer? An attempt takes 100 ms at most. */
bool stage_redis_answers(demo *self)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval timeout = {.tv_usec = 100000};
    char answer[7];
    snprintf(address.sun_path, sizeof address.sun_path, "%s", self->socket);
    int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool answers = connection >= 0 &&
                   setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0 &&
                   connect(connection, (struct sockaddr *)&address, sizeof address) == 0 &&
                   send(connection, "PING\r\n", 6, MSG_NOSIGNAL) == 6 &&
                   recv(connection, answer, sizeof answer, MSG_WAITALL) == sizeof answer &&
                   memcmp(answer, "+PONG\r\n", sizeof answer) == 0;
    if (connection >= 0)
        close(connection);
    return answers;
}

/* Has larderd made the map, and is it in step with Redis? */
bool stage_in_step(demo *self)
{
    char directory[300];
    snprintf(directory, sizeof directory, "%s/maps", self->work);
    larder_options options = {.dir = directory, .flags = LARDER_ATTACH | LARDER_READ_ONLY};
    if (self->cache == NULL && larder_open(MAP_NAME, &options, &self->cache) != LARDER_OK)
        return false;
    return larder_stats_read(self->cache, &self->stats, sizeof self->stats) == LARDER_OK &&
           self->stats.redis_up == 1 && self->stats.dirty == 0;
}

/* Has the server said on which port it listens? */
static bool server_listens(demo *self)
{
    static const char label[] = "listening on 127.0.0.1:";
    char line[64];
    struct pollfd ready = {.fd = self->server_output, .events = POLLIN};
    if (poll(&ready, 1, 0) != 1)
        return false;
    ssize_t got = read(self->server_output, line, sizeof line - 1); /* one short write: one line */
    line[got > 0 ? got : 0] = '\0';
    if (strncmp(line, label, sizeof label - 1) != 0)
        return false;
    self->port = (uint16_t)strtoul(line + sizeof label - 1, NULL, 10);
    return self->port != 0;
}

static bool compare_ended(demo *self)
{
    return child_gone(&self->child[COMPARE]);
}

/* ---- The programs --------------------------------------------------------------------------- */

static bool child_run(demo *self, unsigned which, const char *name, char *const argv[], int *output)
{
    char log[300];
    snprintf(log, sizeof log, "%s/%s.log", self->work, name);
    return child_start(&self->child[which], name, log, argv, output) == 0 ||
           demo_fail(self, "cannot start %s: %s", name, strerror(errno));
}

bool stage_redis(demo *self)
{
    char *argv[] = {(char *)(uintptr_t)self->redis_program,
                    "--port",
                    "0",
                    "--unixsocket",
                    self->socket,
                    "--unixsocketperm",
                    "700",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                    "--dir",
                    (char *)(uintptr_t)self->work,
                    "--daemonize",
                    "no",
                    NULL};
    return child_run(self, REDIS, "redis-server", argv, NULL);
}

static bool larderd_start(demo *self)
{
    char file[300];
    snprintf(file, sizeof file, "%s/larder.conf", self->work);
    FILE *out = fopen(file, "we");
    if (out == NULL)
        return demo_fail(self, "cannot write %s: %s", file, strerror(errno));
    fprintf(out,
            "log_level = \"info\";\n"
            "map = { name = \"" MAP_NAME "\"; dir = \"%s/maps\"; size = \"%s\"; };\n"
            "redis = { url = \"unix://%s\"; prefix = \"" PREFIX "\"; };\n",
            self->work, self->map_size, self->socket);
    if (fclose(out) != 0)
        return demo_fail(self, "cannot write %s: %s", file, strerror(errno));
    char *argv[] = {(char *)(uintptr_t)self->larderd_program, "-c", file, NULL};
    return child_run(self, LARDERD, "larderd", argv, NULL);
}

static bool server_start(demo *self)
{
    char directory[300], workers[16];
    snprintf(directory, sizeof directory, "%s/maps", self->work);
    snprintf(workers, sizeof workers, "%u", self->workers);
    char *argv[] = {(char *)(uintptr_t)self->server_program,
                    "--log",
                    (char *)(uintptr_t)self->log_file,
                    "--dir",
                    directory,
                    "--map",
                    MAP_NAME,
                    "--workers",
                    workers,
                    NULL};
    return child_run(self, SERVER, "server", argv, &self->server_output);
}

/* Compare map and Redis; the result comes when the child has ended (compare_read). */
bool stage_compare(demo *self, const char *wait_ms, bool records_only)
{
    char directory[300], log[300];
    snprintf(directory, sizeof directory, "%s/maps", self->work);
    snprintf(log, sizeof log, "%s/compare.log", self->work);
    unlink(log);
    char *argv[] = {(char *)(uintptr_t)self->compare_program,
                    "--dir",
                    directory,
                    "--map",
                    MAP_NAME,
                    "--redis",
                    self->socket,
                    "--prefix",
                    PREFIX,
                    "--wait",
                    (char *)(uintptr_t)wait_ms,
                    records_only ? "--records" : NULL,
                    NULL};
    bool started = child_run(self, COMPARE, "compare", argv, NULL);
    self->child[COMPARE].expected = true; /* to end by itself */
    return started;
}

/* What it said; true: they agree. */
bool stage_compared(demo *self)
{
    const struct child *child = &self->child[COMPARE];
    child_log_tail(child, self->compared, sizeof self->compared);
    self->compared[strcspn(self->compared, "\n")] = '\0';
    return WIFEXITED(child->status) && WEXITSTATUS(child->status) == 0;
}

bool stage_start(demo *self)
{
    char directory[300];
    snprintf(directory, sizeof directory, "%s/maps", self->work);
    if (mkdir(directory, 0700) != 0)
        return demo_fail(self, "cannot make %s: %s", directory, strerror(errno));
    if (!stage_redis(self))
        return false;
    if (!demo_wait(self, stage_redis_answers, START_MS))
        return demo_fail_child(self, &self->child[REDIS], "does not answer");
    if (!larderd_start(self))
        return false;
    if (!demo_wait(self, stage_in_step, START_MS))
        return demo_fail_child(self, &self->child[LARDERD], "does not come into step with Redis");
    if (!server_start(self))
        return false;
    if (!demo_wait(self, server_listens, START_MS))
        return demo_fail_child(self, &self->child[SERVER], "does not listen");
    return true;
}

/* SIGTERM, and SIGKILL for one that does not end. false: it did not end well. */
static bool stage_stop(demo *self, unsigned which)
{
    struct child *child = &self->child[which];
    if (child->pid == 0)
        return true;
    child_signal(child, SIGTERM);
    int64_t deadline = demo_now_ms() + STOP_MS;
    while (!child_gone(child)) {
        if (demo_now_ms() > deadline) {
            child_signal(child, SIGKILL);
            waitpid(child->pid, &child->status, 0);
            child->pid = 0;
            return demo_fail_child(self, child, "did not end after SIGTERM and was killed");
        }
        event_base_loop(self->base, EVLOOP_ONCE);
    }
    if (!WIFEXITED(child->status) || WEXITSTATUS(child->status) != 0)
        return demo_fail_child(self, child, "did not end well after SIGTERM");
    return true;
}

/* Map against Redis, with nobody writing. */
bool stage_compare_all(demo *self)
{
    char wait_ms[16];
    snprintf(wait_ms, sizeof wait_ms, "%d", AGREE_MS);
    if (!stage_compare(self, wait_ms, false))
        return false;
    if (!demo_wait(self, compare_ended, AGREE_MS * 2))
        return self->interrupted != 0 || self->failed
                   ? false
                   : demo_fail(self, "the comparison of map and Redis takes too long");
    return stage_compared(self) || demo_fail(self, "map and Redis differ: %s", self->compared);
}

void stage_stop_all(demo *self)
{
    stage_stop(self, COMPARE);
    stage_stop(self, SERVER);
    stage_stop(self, LARDERD);
    stage_stop(self, REDIS);
}
