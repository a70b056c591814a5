/* shell.c: see shell.h.
 */
#include "tests/daemon/shell.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
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

const char *shell_program(void)
{
    const char *program = getenv("LARDERD");
    ck_assert_msg(program != NULL && access(program, X_OK) == 0,
                  "$LARDERD does not name a program: %s", program ? program : "unset");
    return program;
}

/* ---- The service manager -----------------------------------------------------------------------
 */

static int bind_manager(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(name);
    ck_assert_uint_lt(length, sizeof address.sun_path);
    memcpy(address.sun_path, name, length);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    if (name[0] == '@') {
        address.sun_path[0] = '\0';
    } else {
        size++;
        (void)unlink(name);
    }
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_msg(bind(fd, (struct sockaddr *)&address, size) == 0, "bind %s: %s", name,
                  strerror(errno));
    return fd;
}

static void receive(shell *self)
{
    size_t length = strlen(self->messages);
    while (length + 2 < sizeof self->messages) {
        ssize_t got =
            recv(self->manager, self->messages + length, sizeof self->messages - length - 2, 0);
        if (got < 0) {
            ck_assert(errno == EAGAIN || errno == EINTR || errno == ECONNREFUSED);
            break;
        }
        length += (size_t)got;
        self->messages[length++] = '|';
        self->messages[length] = '\0';
    }
}

struct wanted {
    shell *self;
    const char *text;
};

static bool said(void *context)
{
    struct wanted *wanted = context;
    receive(wanted->self);
    return strstr(wanted->self->messages, wanted->text) != NULL ||
           !harness_alive(&wanted->self->process);
}

bool shell_said(shell *self, const char *text, int milliseconds)
{
    struct wanted wanted = {self, text};
    (void)wait_until(said, &wanted, milliseconds);
    receive(self);
    return strstr(self->messages, text) != NULL;
}

void shell_forget(shell *self)
{
    receive(self);
    self->messages[0] = '\0';
}

/* ---- larderd -----------------------------------------------------------------------------------
 */

static bool has_log(void *context)
{
    const shell *self = context;
    return access(self->process.log, F_OK) == 0;
}

void shell_launch(shell *self, const char *name, const char *const extra[],
                  const char *const environment[], bool abstract)
{
    const char *argv[32] = {shell_program(), "--map", "m", "--dir", NULL, "--listen", NULL};
    char listen_at[128], notify[160];
    const char *variables[16] = {NULL};
    size_t count = 7, variable_count = 0;
    if (self->map_dir[0] == '\0') {
        snprintf(self->map_dir, sizeof self->map_dir, "%s", harness_path("%s-maps", name));
        ck_assert_msg(mkdir(self->map_dir, 0700) == 0 || errno == EEXIST, "mkdir %s: %s",
                      self->map_dir, strerror(errno));
    }
    snprintf(self->web, sizeof self->web, "%s", harness_path("%s.web", name));
    snprintf(listen_at, sizeof listen_at, "unix:%s", self->web);
    if (abstract) {
        snprintf(self->notify, sizeof self->notify, "@larder-test-%ld-%s", (long)getpid(), name);
    } else {
        snprintf(self->notify, sizeof self->notify, "%s", harness_path("%s.notify", name));
    }
    if (self->manager <= 0) {
        self->manager = bind_manager(self->notify);
    }
    shell_forget(self);
    argv[4] = self->map_dir;
    argv[6] = listen_at;
    for (; extra != NULL && *extra != NULL; extra++) {
        ck_assert_uint_lt(count, 31);
        argv[count++] = *extra;
    }
    argv[count] = NULL;
    snprintf(notify, sizeof notify, "NOTIFY_SOCKET=%s", self->notify);
    variables[variable_count++] = notify;
    for (; environment != NULL && *environment != NULL; environment++) {
        ck_assert_uint_lt(variable_count, 15);
        variables[variable_count++] = *environment;
    }
    harness_start(&self->process, name, argv, variables);
    ck_assert(wait_until(has_log, self, 5000)); /* the child makes it */
}

void shell_start(shell *self, const char *name, const char *const extra[])
{
    shell_launch(self, name, extra, NULL, false);
    if (!shell_said(self, "READY=1", 10000)) {
        ck_abort_msg("larderd did not become ready; its log:\n%s", harness_log(&self->process));
    }
}

void shell_end(shell *self, int code, int milliseconds)
{
    int status = harness_end(&self->process, SIGTERM, milliseconds);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code) {
        ck_abort_msg("larderd ended with status %x and not exit code %d; its log:\n%s",
                     (unsigned)status, code, harness_log(&self->process));
    }
}

/* ---- Programs ----------------------------------------------------------------------------------
 */

int shell_run(const char *const argv[], char **output)
{
    static int number;
    harness_process process = {.pid = 0};
    char name[32];
    snprintf(name, sizeof name, "run%d", ++number);
    harness_start(&process, name, argv, NULL);
    int status = harness_end(&process, 0, 20000);
    if (output != NULL) {
        *output = harness_log(&process);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

const char *shell_file(const char *name, const char *format, ...)
{
    static char paths[8][160];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s", harness_path("%s", name));
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (file == NULL) {
        ck_abort_msg("%s: %s", path, strerror(errno));
        return path;
    }
    va_list arguments;
    va_start(arguments, format);
    vfprintf(file, format, arguments);
    va_end(arguments);
    ck_assert_int_eq(fclose(file), 0);
    return path;
}

/* ---- HTTP --------------------------------------------------------------------------------------
 */

static int connect_to(const char *socket_path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", socket_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_msg(connect(fd, (struct sockaddr *)&address, sizeof address) == 0, "connect %s: %s",
                  socket_path, strerror(errno));
    return fd;
}

char *shell_exchange(const char *socket_path, const char *request)
{
    int fd = connect_to(socket_path);
    size_t size = strlen(request), space = 1u << 20, length = 0;
    char *answer = malloc(space);
    ck_assert_ptr_nonnull(answer);
    /* The server may close before it has read all: that is its right. */
    for (size_t sent = 0; sent < size;) {
        ssize_t wrote = send(fd, request + sent, size - sent, MSG_NOSIGNAL);
        if (wrote <= 0) {
            break;
        }
        sent += (size_t)wrote;
    }
    int64_t deadline = harness_now_ms() + harness_patience(10000);
    for (;;) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        int64_t left = deadline - harness_now_ms();
        ck_assert_msg(left > 0 && poll(&poll_fd, 1, (int)left) == 1,
                      "no end of the answer to %.60s", request);
        ssize_t got = read(fd, answer + length, space - length - 1);
        if (got <= 0) {
            break;
        }
        length += (size_t)got;
    }
    answer[length] = '\0';
    close(fd);
    return answer;
}

int shell_status(const char *answer)
{
    ck_assert_msg(strncmp(answer, "HTTP/1.", 7) == 0 && strlen(answer) > 12, "not HTTP: %.200s",
                  answer);
    return (int)strtol(answer + 9, NULL, 10);
}

int shell_get(const char *socket_path, const char *path, char **body)
{
    char request[1024];
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
             path);
    char *answer = shell_exchange(socket_path, request);
    int code = shell_status(answer);
    char *end = strstr(answer, "\r\n\r\n");
    ck_assert_ptr_nonnull(end);
    if (body != NULL) {
        *body = strdup(end + 4);
        ck_assert_ptr_nonnull(*body);
    }
    free(answer);
    return code;
}

double shell_metric(shell *self, const char *sample)
{
    char *body, wanted[256];
    double value = (double)NAN;
    ck_assert_int_eq(shell_get(self->web, "/metrics", &body), 200);
    snprintf(wanted, sizeof wanted, "\n%s ", sample);
    const char *at = strstr(body, wanted);
    if (at != NULL) {
        value = strtod(at + strlen(wanted), NULL);
    }
    free(body);
    return value;
}

struct sample {
    shell *self;
    const char *name;
    double least;
};

static bool reaches(void *context)
{
    struct sample *sample = context;
    return shell_metric(sample->self, sample->name) >= sample->least;
}

bool shell_metric_reaches(shell *self, const char *sample, double least, int milliseconds)
{
    struct sample wanted = {self, sample, least};
    return wait_until(reaches, &wanted, milliseconds);
}

struct page {
    shell *self;
    const char *path, *text;
};

static bool shows(void *context)
{
    struct page *page = context;
    char *body;
    (void)shell_get(page->self->web, page->path, &body);
    bool found = strstr(body, page->text) != NULL;
    free(body);
    return found;
}

bool shell_shows(shell *self, const char *path, const char *text, int milliseconds)
{
    struct page page = {self, path, text};
    return wait_until(shows, &page, milliseconds);
}
