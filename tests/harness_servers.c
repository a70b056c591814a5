/* harness_servers.c: redis-server and larderd for tests; see harness.h. Replies of Redis are
 * decoded here by hand, so that a fault in the code under test cannot hide itself in its own tests.
 */
#include "tests/harness.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGUMENTS_MAX 60
#define REPLY_MS 10000

/* ---- A connection: blocking, with a deadline ----------------------------------------------------
 */

struct wire {
    int fd;
    int64_t deadline;
    char bytes[4096];
    size_t begin, end;
    bool failed; /* closed, or too late: everything after it does nothing */
};

static int unix_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static bool wire_open(struct wire *wire, const char *path, int milliseconds)
{
    *wire = (struct wire){.deadline = harness_now_ms() + harness_patience(milliseconds)};
    wire->fd = unix_connect(path);
    wire->failed = wire->fd < 0;
    return !wire->failed;
}

static void wire_close(struct wire *wire)
{
    if (wire->fd >= 0) {
        (void)close(wire->fd);
        wire->fd = -1;
    }
}

static bool wire_ready(struct wire *wire, short events)
{
    int64_t left = wire->deadline - harness_now_ms();
    struct pollfd ready = {.fd = wire->fd, .events = events};
    if (!wire->failed && (left <= 0 || poll(&ready, 1, (int)left) <= 0)) {
        wire->failed = true;
    }
    return !wire->failed;
}

static void wire_send(struct wire *wire, const char *data, size_t size)
{
    while (size > 0 && wire_ready(wire, POLLOUT)) {
        ssize_t sent = send(wire->fd, data, size, MSG_NOSIGNAL);
        if (sent <= 0) {
            wire->failed = true;
            return;
        }
        data += sent;
        size -= (size_t)sent;
    }
}

static int wire_byte(struct wire *wire)
{
    if (wire->begin == wire->end) {
        if (!wire_ready(wire, POLLIN)) {
            return -1;
        }
        ssize_t got = recv(wire->fd, wire->bytes, sizeof wire->bytes, 0);
        if (got <= 0) {
            wire->failed = true;
            return -1;
        }
        wire->begin = 0;
        wire->end = (size_t)got;
    }
    return (unsigned char)wire->bytes[wire->begin++];
}

static void wire_line(struct wire *wire, char *line, size_t size)
{
    size_t used = 0;
    int byte;
    while ((byte = wire_byte(wire)) >= 0 && byte != '\n') {
        if (used + 1 < size && byte != '\r') {
            line[used++] = (char)byte;
        }
    }
    line[used] = '\0';
}

/* The reply as text in *out (an open_memstream); false for nil. */
static bool wire_reply(struct wire *wire, FILE *out)
{
    char line[512];
    wire_line(wire, line, sizeof line);
    long count = line[0] != '\0' ? strtol(line + 1, NULL, 10) : 0;
    switch (line[0]) {
    case '+':
    case ':':
        (void)fputs(line + 1, out);
        return true;
    case '-':
        (void)fputs(line, out);
        return true;
    case '$':
        for (long i = 0; i < count && !wire->failed; i++) {
            (void)fputc(wire_byte(wire), out);
        }
        if (count >= 0) {
            wire_line(wire, line, sizeof line);
        }
        return count >= 0;
    case '*': {
        for (long i = 0; i < count && !wire->failed; i++) {
            if (i > 0) {
                (void)fputc('\n', out);
            }
            (void)wire_reply(wire, out);
        }
        return count >= 0;
    }
    default:
        wire->failed = true;
        return false;
    }
}

static void wire_command(struct wire *wire, const char *const arguments[])
{
    char head[48];
    size_t count = 0;
    while (arguments[count] != NULL) {
        count++;
    }
    wire_send(wire, head, (size_t)snprintf(head, sizeof head, "*%zu\r\n", count));
    for (size_t i = 0; i < count; i++) {
        size_t size = strlen(arguments[i]);
        wire_send(wire, head, (size_t)snprintf(head, sizeof head, "$%zu\r\n", size));
        wire_send(wire, arguments[i], size);
        wire_send(wire, "\r\n", 2);
    }
}

/* ---- Redis ------------------------------------------------------------------------------------
 */

void harness_needs_redis(void)
{
    if (system("command -v redis-server >/dev/null 2>&1") != 0) {
        (void)printf("skipped: there is no redis-server in PATH\n");
        exit(77);
    }
}

/* One exchange over a connection of its own. *text is NULL for nil. */
static bool exchange(const harness_redis *redis, const char *const arguments[], char **text,
                     int milliseconds)
{
    struct wire wire;
    size_t size = 0;
    *text = NULL;
    if (!wire_open(&wire, redis->socket, milliseconds)) {
        return false;
    }
    FILE *out = NULL;
    if (redis->password[0] != '\0') {
        const char *const login[] = {"AUTH", redis->password, NULL};
        char *ignored = NULL;
        wire_command(&wire, login);
        out = open_memstream(&ignored, &size);
        ck_assert_ptr_nonnull(out);
        (void)wire_reply(&wire, out);
        (void)fclose(out);
        free(ignored);
    }
    wire_command(&wire, arguments);
    out = open_memstream(text, &size);
    ck_assert_ptr_nonnull(out);
    bool something = wire_reply(&wire, out);
    (void)fclose(out);
    if (!something || wire.failed) {
        free(*text);
        *text = NULL;
    }
    bool done = !wire.failed;
    wire_close(&wire);
    return done;
}

static bool answers_ping(void *context)
{
    static const char *const ping[] = {"PING", NULL};
    const harness_redis *redis = context;
    char *reply = NULL;
    bool pong = exchange(redis, ping, &reply, 1000) && reply != NULL && strcmp(reply, "PONG") == 0;
    free(reply);
    return pong;
}

void harness_redis_restart(harness_redis *redis)
{
    const char *arguments[ARGUMENTS_MAX + 1];
    size_t count = 0;
    arguments[count++] = "redis-server";
    arguments[count++] = "--port";
    arguments[count++] = "0";
    arguments[count++] = "--unixsocket";
    arguments[count++] = redis->socket;
    arguments[count++] = "--dir";
    arguments[count++] = redis->directory;
    arguments[count++] = "--save";
    arguments[count++] = "";
    arguments[count++] = "--appendonly";
    arguments[count++] = redis->append_only ? "yes" : "no";
    arguments[count++] = "--appendfsync";
    arguments[count++] = "always";
    arguments[count++] = "--daemonize";
    arguments[count++] = "no";
    if (redis->password[0] != '\0') {
        arguments[count++] = "--requirepass";
        arguments[count++] = redis->password;
    }
    const char *refused = getenv("LARDER_TEST_REFUSE"); /* a command that is not to be had */
    if (refused != NULL && *refused != '\0') {
        arguments[count++] = "--rename-command";
        arguments[count++] = refused;
        arguments[count++] = "";
    }
    for (size_t i = 0; redis->extra != NULL && redis->extra[i] != NULL; i++) {
        ck_assert_uint_lt(count, ARGUMENTS_MAX);
        arguments[count++] = redis->extra[i];
    }
    arguments[count] = NULL;
    harness_start(&redis->process, redis->process.name, arguments, NULL);
    if (!wait_until(answers_ping, redis, 10000)) {
        char *log = harness_log(&redis->process);
        ck_abort_msg("redis-server does not answer; its log:\n%s", log);
    }
}

void harness_redis_start(harness_redis *redis, const char *name)
{
    (void)snprintf(redis->process.name, sizeof redis->process.name, "%s", name);
    (void)snprintf(redis->directory, sizeof redis->directory, "%s", harness_path("%s", name));
    (void)snprintf(redis->socket, sizeof redis->socket, "%s", harness_path("%s.sock", name));
    ck_assert_msg(mkdir(redis->directory, 0700) == 0, "mkdir %s: %s", redis->directory,
                  strerror(errno));
    harness_redis_restart(redis);
}

void harness_redis_end(harness_redis *redis)
{
    (void)harness_end(&redis->process, SIGTERM, 10000);
}

void harness_redis_kill(harness_redis *redis)
{
    (void)harness_end(&redis->process, SIGKILL, 10000);
}

const char *harness_redis_url(const harness_redis *redis)
{
    static _Thread_local char url[128];
    (void)snprintf(url, sizeof url, "unix://%s", redis->socket);
    return url;
}

char *harness_redis_command_list(harness_redis *redis, const char *const words[])
{
    char *reply = NULL;
    ck_assert_msg(exchange(redis, words, &reply, REPLY_MS), "%s: no reply to %s",
                  redis->process.name, words[0]);
    return reply;
}

char *harness_redis_try(harness_redis *redis, const char *command)
{
    const char *const words[] = {command, NULL};
    char *reply = NULL;
    return exchange(redis, words, &reply, REPLY_MS) ? reply : NULL;
}

static char *command_list(harness_redis *redis, va_list list)
{
    const char *arguments[ARGUMENTS_MAX + 1];
    size_t count = 0;
    do {
        ck_assert_uint_le(count, ARGUMENTS_MAX);
        arguments[count] = va_arg(list, const char *);
    } while (arguments[count++] != NULL);
    return harness_redis_command_list(redis, arguments);
}

char *harness_redis_command(harness_redis *redis, ...)
{
    va_list list;
    va_start(list, redis);
    char *reply = command_list(redis, list);
    va_end(list);
    return reply;
}

bool harness_redis_says(harness_redis *redis, const char *expected, ...)
{
    va_list list;
    va_start(list, expected);
    char *reply = command_list(redis, list);
    va_end(list);
    bool same =
        expected == NULL || reply == NULL ? expected == reply : strcmp(expected, reply) == 0;
    free(reply);
    return same;
}

/* ---- larderd ----------------------------------------------------------------------------------
 */

/* The service manager's end of sd_notify(3): a datagram socket. */
static int notify_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    (void)unlink(path);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ck_assert_msg(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0, "%s: %s",
                  path, strerror(errno));
    return fd;
}

struct readiness {
    int fd;
    harness_larderd *larderd;
    bool ready;
};

static bool is_ready_or_dead(void *context)
{
    struct readiness *readiness = context;
    char text[1024];
    ssize_t got = recv(readiness->fd, text, sizeof text - 1, 0);
    if (got > 0) {
        text[got] = '\0';
        readiness->ready = strstr(text, "READY=1") != NULL;
    }
    return readiness->ready || !harness_alive(&readiness->larderd->process);
}

void harness_larderd_start(harness_larderd *larderd, const char *map, const char *directory,
                           const char *redis_url, const char *const extra[])
{
    const char *program = getenv("LARDERD");
    ck_assert_msg(program != NULL && access(program, X_OK) == 0,
                  "$LARDERD does not name a program: %s", program == NULL ? "unset" : program);
    const char *arguments[ARGUMENTS_MAX + 1] = {program, "--map", map, "--dir", directory};
    size_t count = 5;
    if (redis_url != NULL) {
        arguments[count++] = "--redis";
        arguments[count++] = redis_url;
    }
    for (size_t i = 0; extra != NULL && extra[i] != NULL; i++) {
        ck_assert_uint_lt(count, ARGUMENTS_MAX);
        arguments[count++] = extra[i];
    }
    arguments[count] = NULL;

    /* Several daemons in one test: the first free name. */
    char name[24];
    int number = 0;
    do {
        (void)snprintf(name, sizeof name, "larderd%d", number++);
        (void)snprintf(larderd->notify, sizeof larderd->notify, "%s",
                       harness_path("%s.ready", name));
    } while (access(larderd->notify, F_OK) == 0);

    struct readiness readiness = {.fd = notify_socket(larderd->notify), .larderd = larderd};
    char notify[128];
    (void)snprintf(notify, sizeof notify, "NOTIFY_SOCKET=%s", larderd->notify);
    const char *const environment[] = {notify, NULL};
    harness_start(&larderd->process, name, arguments, environment);
    (void)wait_until(is_ready_or_dead, &readiness, 10000);
    (void)close(readiness.fd);
    if (!readiness.ready) {
        char *log = harness_log(&larderd->process);
        ck_abort_msg("larderd is not ready; its log:\n%s", log);
    }
}

void harness_larderd_end(harness_larderd *larderd, int milliseconds)
{
    int status = harness_end(&larderd->process, SIGTERM, milliseconds);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        char *log = harness_log(&larderd->process);
        ck_abort_msg("larderd ended with wait status %#x; its log:\n%s", (unsigned)status, log);
    }
}
