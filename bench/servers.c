/* servers.c: see servers.h.
 */
#include "servers.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/multi/harness.h"

enum { SETTINGS_MAX = 16 }; /* of a server: words of its command line */

/* $LARDERD, else the one of the same build. */
static const char *larderd_path(void)
{
    static char beside[512];
    const char *path = getenv("LARDERD");
    if (path != NULL && *path != '\0')
        return path;
    ssize_t size = readlink("/proc/self/exe", beside, sizeof beside - 32);
    char *slash = size > 0 ? memrchr(beside, '/', (size_t)size) : NULL;
    if (slash == NULL)
        return "larderd";
    memcpy(slash, "/../larderd", sizeof "/../larderd");
    return beside;
}

void servers_needed(void)
{
    if (access("/usr/bin/redis-server", X_OK) != 0 && access("/usr/sbin/redis-server", X_OK) != 0 &&
        access("/usr/local/bin/redis-server", X_OK) != 0) {
        test_skip("no redis-server");
    }
    if (access(larderd_path(), X_OK) != 0) {
        test_skip("no larderd: set LARDERD");
    }
}

static pid_t run(const char *const *words, const char *log)
{
    fflush(NULL);
    pid_t parent = getpid(), child = fork();
    test_check(child >= 0, "fork: %s", strerror(errno));
    if (child != 0)
        return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(97);
    int out = open(log, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (out < 0 || in < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        _exit(96);
    alarm(0);
    execvp(words[0], (char *const *)(uintptr_t)words);
    fprintf(stderr, "%s: %s\n", words[0], strerror(errno));
    _exit(95);
}

void server_redis_start(struct server *redis, const char *name, const char *const *settings)
{
    struct client client;
    snprintf(redis->socket, sizeof redis->socket, "%s/%s.sock", test_directory(), name);
    snprintf(redis->log, sizeof redis->log, "%s/%s.log", test_directory(), name);
    bool by_port = redis->port[0] != '\0';
    if (by_port)
        snprintf(redis->url, sizeof redis->url, "redis://127.0.0.1:%s", redis->port);
    else
        snprintf(redis->url, sizeof redis->url, "unix://%s", redis->socket);
    const char *words[13 + SETTINGS_MAX + 1] = {"redis-server",
                                                "--port",
                                                by_port ? redis->port : "0",
                                                "--unixsocket",
                                                redis->socket,
                                                "--save",
                                                "",
                                                "--appendonly",
                                                "no",
                                                "--dir",
                                                test_directory(),
                                                "--daemonize",
                                                "no"};
    for (size_t at = 0; settings != NULL && settings[at] != NULL; at++) {
        test_check(at < SETTINGS_MAX, "too many settings");
        words[13 + at] = settings[at];
    }
    unlink(redis->socket);
    redis->pid = run(words, redis->log);
    test_until(client_connect(&client, redis), 10000, "redis-server does not begin: see %s",
               redis->log);
    struct reply reply;
    do {
        reply = client_words(&client, 1, (const char *const[]){"PING"});
    } while (reply.type != '+');
    client_close(&client);
}

void server_larderd_start(struct server *larderd, const char *name, const char *map,
                          const char *directory, const char *redis_url, const char *settings)
{
    char config[300];
    snprintf(larderd->log, sizeof larderd->log, "%s/%s.log", test_directory(), name);
    snprintf(config, sizeof config, "%s/%s.conf", test_directory(), name);
    FILE *file = fopen(config, "we");
    test_check(file != NULL, "%s: %s", config, strerror(errno));
    fputs(settings, file);
    fclose(file);
    const char *words[] = {larderd_path(), "-c",      config,    "--map",   map,
                           "--dir",        directory, "--redis", redis_url, NULL};
    larderd->pid = run(words, larderd->log);
}

void server_freeze(struct server *server)
{
    test_stop(server->pid);
}

void server_thaw(struct server *server)
{
    test_check(kill(server->pid, SIGCONT) == 0, "SIGCONT: %s", strerror(errno));
}

void server_end(struct server *server, int signal_number)
{
    if (server->pid == 0)
        return;
    test_check(kill(server->pid, signal_number) == 0, "kill: %s", strerror(errno));
    int status = test_wait(server->pid, 20000);
    if (signal_number == SIGTERM) {
        test_check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: %s", server->log,
                   test_status_text(status));
    }
    server->pid = 0;
}

static larder_stats statistics(larder *handle)
{
    larder_stats stats;
    int code = larder_stats_read(handle, &stats, sizeof stats);
    test_check(code == LARDER_OK, "stats: %d %s", code, larder_last_error());
    return stats;
}

void server_wait_redis(larder *handle, bool up, uint64_t milliseconds)
{
    test_until((statistics(handle).redis_up != 0) == up, milliseconds, "Redis does not come %s",
               up ? "up" : "down");
}

void server_wait_clean(larder *handle, uint64_t milliseconds)
{
    uint64_t deadline = test_now_us() + milliseconds * 1000;
    for (;;) {
        larder_stats stats = statistics(handle);
        if (stats.dirty == 0 && stats.pending == 0)
            return;
        test_check(test_now_us() < deadline, "%" PRIu64 " entries still wait", stats.dirty);
        test_pause_us(2000);
    }
}

/* ---- A client ------------------------------------------------------------------------------ */

static bool connect_to(struct client *client, int family, const void *address, socklen_t size)
{
    client->socket = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    test_check(client->socket >= 0, "socket: %s", strerror(errno));
    return connect(client->socket, address, size) == 0;
}

bool client_connect(struct client *client, const struct server *redis)
{
    struct sockaddr_un file = {.sun_family = AF_UNIX};
    struct sockaddr_in port = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int no_delay = 1;
    memset(client, 0, sizeof *client);
    snprintf(file.sun_path, sizeof file.sun_path, "%s", redis->socket);
    port.sin_port = htons((uint16_t)strtoul(redis->port, NULL, 10));
    if (port.sin_port == 0 ? connect_to(client, AF_UNIX, &file, sizeof file)
                           : connect_to(client, AF_INET, &port, sizeof port) &&
                                 setsockopt(client->socket, IPPROTO_TCP, TCP_NODELAY, &no_delay,
                                            sizeof no_delay) == 0)
        return true;
    close(client->socket);
    return false;
}

void client_close(struct client *client)
{
    close(client->socket);
    free(client->out);
    free(client->in);
}

static void put(struct client *client, const void *bytes, size_t size)
{
    if (client->out == NULL || client->out_used + size > client->out_size) {
        client->out_size = (client->out_used + size) * 2;
        client->out = realloc(client->out, client->out_size);
        test_check(client->out != NULL, "realloc");
    }
    memcpy(client->out + client->out_used, bytes, size);
    client->out_used += size;
}

void client_append(struct client *client, size_t count, const char *const *arguments,
                   const size_t *sizes)
{
    char line[32];
    put(client, line, (size_t)snprintf(line, sizeof line, "*%zu\r\n", count));
    for (size_t at = 0; at < count; at++) {
        put(client, line, (size_t)snprintf(line, sizeof line, "$%zu\r\n", sizes[at]));
        put(client, arguments[at], sizes[at]);
        put(client, "\r\n", 2);
    }
}

void client_flush(struct client *client)
{
    for (size_t at = 0; at < client->out_used;) {
        ssize_t sent = send(client->socket, client->out + at, client->out_used - at, MSG_NOSIGNAL);
        test_check(sent > 0 || errno == EINTR, "send: %s", strerror(errno));
        if (sent > 0)
            at += (size_t)sent;
    }
    client->out_used = 0;
}

static void more(struct client *client)
{
    if (client->in_at > 0) {
        memmove(client->in, client->in + client->in_at, client->in_used - client->in_at);
        client->in_used -= client->in_at;
        client->in_at = 0;
    }
    if (client->in_size - client->in_used < 65536) {
        client->in_size = client->in_size * 2 + 65536;
        client->in = realloc(client->in, client->in_size);
        test_check(client->in != NULL, "realloc");
    }
    struct pollfd wait = {.fd = client->socket, .events = POLLIN};
    test_check(poll(&wait, 1, 60000) == 1, "Redis does not answer in 60 s");
    ssize_t got =
        read(client->socket, client->in + client->in_used, client->in_size - client->in_used);
    test_check(got > 0, "Redis closed the connection");
    client->in_used += (size_t)got;
}

static size_t line_end(struct client *client)
{
    size_t looked = 0;
    for (;;) {
        size_t left = client->in_used - client->in_at;
        char *end = left > looked ? memmem(client->in + client->in_at, left, "\r\n", 2) : NULL;
        if (end != NULL)
            return (size_t)(end - client->in) - client->in_at;
        looked = left > 0 ? left - 1 : 0;
        more(client);
    }
}

struct reply client_reply(struct client *client)
{
    client_flush(client);
    size_t end = line_end(client);
    char *line = client->in + client->in_at;
    struct reply reply = {.type = line[0], .text = line + 1, .size = end - 1};
    if (reply.type == ':' || reply.type == '*' || reply.type == '$') {
        reply.number = strtoll(line + 1, NULL, 10);
    }
    client->in_at += end + 2;
    if (reply.type == '$' || reply.type == '*') {
        if (reply.number < 0) {
            reply.type = 0;
        } else if (reply.type == '$') {
            reply.size = (size_t)reply.number;
            while (client->in_used - client->in_at < reply.size + 2)
                more(client);
            reply.text = client->in + client->in_at;
            client->in_at += reply.size + 2;
        }
    }
    return reply;
}

struct reply client_words(struct client *client, size_t count, const char *const *words)
{
    size_t sizes[16];
    test_check(count <= 16, "too many words");
    for (size_t at = 0; at < count; at++)
        sizes[at] = strlen(words[at]);
    client_append(client, count, words, sizes);
    return client_reply(client);
}
