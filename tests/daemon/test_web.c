/* test_web.c: larderd's HTTP server with real clients: what it answers, OpenMetrics and JSON that
 * parse, what it refuses, the token, the socket's permissions, and clients that send slowly, much
 * or nothing.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/daemon/shell.h"

START_TEST(answers_with_json_that_parses)
{
    shell self = {.manager = 0};
    char *body;
    shell_start(&self, "json", NULL);
    static const char *const paths[] = {"/healthz", "/readyz", "/healthz?verbose=1"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        ck_assert_int_eq(shell_get(self.web, paths[i], &body), 200);
        json_error_t error;
        json_t *parsed = json_loads(body, JSON_REJECT_DUPLICATES, &error);
        ck_assert_msg(parsed != NULL, "%s: %s", error.text, body);
        ck_assert_str_eq(json_string_value(json_object_get(parsed, "status")), "ok");
        ck_assert_str_eq(json_string_value(json_object_get(parsed, "redis")), "local");
        ck_assert(json_is_null(json_object_get(parsed, "degraded_since")));
        ck_assert_int_eq(json_integer_value(json_object_get(parsed, "queue_depth")), 0);
        ck_assert(json_is_real(json_object_get(parsed, "oldest_age_seconds")));
        json_decref(parsed);
        free(body);
    }
    ck_assert_int_eq(shell_get(self.web, "/", &body), 200);
    ck_assert_ptr_nonnull(strstr(body, "<h1>larder: m</h1>"));
    free(body);
    shell_end(&self, 0, 5000);
}
END_TEST

/* ---- OpenMetrics -------------------------------------------------------------------------------
 */

struct family {
    char name[96], type[16];
    bool helped, sampled;
};

static size_t name_length(const char *text)
{
    size_t length = 0;
    while (isalnum((unsigned char)text[length]) || text[length] == '_') {
        length++;
    }
    return isdigit((unsigned char)text[0]) ? 0 : length;
}

/* One sample line belongs to the family, has the suffix of its type, and a number. */
static void check_sample(const char *line, const struct family *family)
{
    size_t length = strlen(family->name);
    const char *suffix = strcmp(family->type, "counter") == 0 ? "_total"
                         : strcmp(family->type, "info") == 0  ? "_info"
                         : strcmp(family->type, "histogram") == 0
                             ? (strstr(line, "_bucket{") != NULL  ? "_bucket"
                                : strstr(line, "_count{") != NULL ? "_count"
                                                                  : "_sum")
                             : "";
    ck_assert_msg(strncmp(line, family->name, length) == 0 &&
                      strncmp(line + length, suffix, strlen(suffix)) == 0,
                  "sample not of family %s: %s", family->name, line);
    const char *at = line + length + strlen(suffix);
    if (*at == '{') {
        const char *label = at + 1;
        do {
            size_t size = name_length(label);
            ck_assert_msg(size > 0 && label[size] == '=' && label[size + 1] == '"', "label: %s",
                          line);
            label = strchr(label + size + 2, '"');
            ck_assert_msg(label != NULL, "label: %s", line);
            label++;
        } while (*label++ == ',');
        ck_assert_msg(label[-1] == '}', "labels: %s", line);
        at = label;
    }
    char *end;
    ck_assert_msg(*at == ' ', "sample: %s", line);
    double value = strtod(at + 1, &end);
    ck_assert_msg(end != at + 1 && *end == '\0' && isfinite(value), "value: %s", line);
    ck_assert_msg(strcmp(family->type, "counter") != 0 || value >= 0, "negative: %s", line);
}

START_TEST(metrics_are_openmetrics)
{
    shell self = {.manager = 0};
    char *body, *rest, *line;
    struct family families[128] = {0}, *family = NULL;
    size_t count = 0;
    bool ended = false;
    shell_start(&self, "metrics", NULL);
    ck_assert_int_eq(shell_get(self.web, "/metrics", &body), 200);
    for (line = strtok_r(body, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        ck_assert_msg(!ended, "a line after # EOF: %s", line);
        if (strncmp(line, "# TYPE ", 7) == 0) {
            ck_assert_uint_lt(count, 128);
            ck_assert(family == NULL || (family->helped && family->sampled));
            family = &families[count++];
            ck_assert_int_eq(sscanf(line, "# TYPE %95s %15s", family->name, family->type), 2);
            ck_assert_uint_eq(name_length(family->name), strlen(family->name));
            for (size_t i = 0; i + 1 < count; i++) {
                ck_assert_str_ne(families[i].name, family->name);
            }
        } else if (strncmp(line, "# HELP ", 7) == 0) {
            ck_assert_ptr_nonnull(family);
            ck_assert_int_eq(strncmp(line + 7, family->name, strlen(family->name)), 0);
            ck_assert_msg(strlen(line + 7) > strlen(family->name) + 5, "help: %s", line);
            family->helped = true;
        } else if (strcmp(line, "# EOF") == 0) {
            ended = true;
        } else {
            ck_assert_msg(family != NULL && family->helped, "before its family: %s", line);
            check_sample(line, family);
            family->sampled = true;
        }
    }
    ck_assert(ended);
    ck_assert_uint_gt(count, 40);
    free(body);
    static const char *const promised[] = {"larder_lookups_total{result=\"hit\"}",
                                           "larder_evictions_total{reason=\"space\"}",
                                           "larder_map_used_bytes",
                                           "larder_call_seconds_count{call=\"hit\"}",
                                           "larder_call_seconds_bucket{call=\"set\",le=\"+Inf\"}",
                                           "larder_outbox_entries",
                                           "larder_outbox_oldest_age_seconds",
                                           "larder_redis_up",
                                           "larder_replication_lag_seconds"};
    for (size_t i = 0; i < sizeof promised / sizeof *promised; i++) {
        ck_assert_msg(shell_metric(&self, promised[i]) >= 0, "no %s", promised[i]);
    }
    shell_end(&self, 0, 5000);
}
END_TEST

/* ---- Refusals ----------------------------------------------------------------------------------
 */

static void expect(const char *socket_path, const char *request, int wanted, const char *text)
{
    char *answer = shell_exchange(socket_path, request);
    ck_assert_msg(shell_status(answer) == wanted, "not %d for %.60s: %.200s", wanted, request,
                  answer);
    ck_assert_msg(text == NULL || strstr(answer, text) != NULL, "no %s: %s", text, answer);
    free(answer);
}

START_TEST(refuses_other_paths_methods_and_sizes)
{
    shell self = {.manager = 0};
    shell_start(&self, "refusals", NULL);
#define END "Host: x\r\nConnection: close\r\n\r\n"
    expect(self.web, "GET /nothing HTTP/1.1\r\n" END, 404, NULL);
    expect(self.web, "GET /../etc/passwd HTTP/1.1\r\n" END, 404, NULL);
    expect(self.web, "GET /<script> HTTP/1.1\r\n" END, 404, NULL);
    expect(self.web, "DELETE /metrics HTTP/1.1\r\n" END, 405, "Allow: GET, HEAD\r\n");
    expect(self.web,
           "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
           405, "Allow: GET, HEAD\r\n");
    expect(self.web, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", 413, NULL);
    char *head = shell_exchange(self.web, "HEAD /metrics HTTP/1.1\r\n" END);
    ck_assert_ptr_nonnull(strstr(head, "HTTP/1.1 200"));
    ck_assert_str_eq(strstr(head, "\r\n\r\n"), "\r\n\r\n");
    free(head);
    char *large = malloc(101000), *filler = calloc(1, 100001);
    ck_assert(large != NULL && filler != NULL);
    memset(filler, 'a', 100000);
    snprintf(large, 101000, "GET /metrics HTTP/1.1\r\nX: %s\r\n" END, filler);
    free(filler);
    char *answer = shell_exchange(self.web, large);
    ck_assert_msg(strstr(answer, " 200 ") == NULL, "100,000 bytes of headers were taken");
    free(answer);
    free(large);
    ck_assert_int_eq(shell_get(self.web, "/healthz", NULL), 200);
    shell_end(&self, 0, 5000);
}
END_TEST

START_TEST(survives_nonsense)
{
    shell self = {.manager = 0};
    const char *file = shell_file("nonsense.conf", "listen_timeout = \"100ms\";\n");
    shell_start(&self, "nonsense", (const char *const[]){"-c", file, NULL});
    uint64_t stream = harness_seed() ^ 5;
    static const char *const pieces[] = {
        "GET ",     "/",    " HTTP/1.1", "\r\n",    "\n",
        ":",        "\x01", "Host: ",    "POST",    "Content-Length: ",
        "-1",       "99",   "%",         "chunked", "Transfer-Encoding: ",
        "\r\n\r\n", "\xff"};
    for (int i = 0; i < 60; i++) {
        char request[512];
        size_t length = 0;
        for (int j = 0; j < 12; j++) {
            const char *piece = pieces[harness_random(&stream) % (sizeof pieces / sizeof *pieces)];
            length += (size_t)snprintf(request + length, sizeof request - length, "%s", piece);
        }
        snprintf(request + length, sizeof request - length, "\r\n\r\n");
        free(shell_exchange(self.web, request));
    }
    ck_assert_int_eq(shell_get(self.web, "/healthz", NULL), 200);
    shell_end(&self, 0, 5000);
}
END_TEST

START_TEST(asks_for_the_token)
{
    shell self = {.manager = 0};
    const char *token = shell_file("token", "0123456789abcdef\n");
    const char *file = shell_file("token.conf", "listen_token_file = \"%s\";\n", token);
    shell_start(&self, "token", (const char *const[]){"-c", file, NULL});
    expect(self.web, "GET /metrics HTTP/1.1\r\n" END, 401, "WWW-Authenticate: Bearer");
    expect(self.web, "GET /nothing HTTP/1.1\r\n" END, 401, NULL);
    expect(self.web, "GET / HTTP/1.1\r\nAuthorization: Bearer 0123456789abcdeX\r\n" END, 401, NULL);
    expect(self.web, "GET / HTTP/1.1\r\nAuthorization: Bearer 0123456789abcde\r\n" END, 401, NULL);
    expect(self.web, "GET / HTTP/1.1\r\nAuthorization: Bearer 0123456789abcdef0\r\n" END, 401,
           NULL);
    expect(self.web, "GET / HTTP/1.1\r\nAuthorization: Bearer \r\n" END, 401, NULL);
    expect(self.web, "GET / HTTP/1.1\r\nAuthorization: Basic 0123456789abcdef\r\n" END, 401, NULL);
    expect(self.web, "GET / HTTP/1.1\r\nAuthorization: Bearer 0123456789abcdef\r\n" END, 200, NULL);
    /* Another token from the next SIGHUP on. */
    (void)shell_file("token", "fedcba9876543210\n");
    ck_assert_int_eq(kill(self.process.pid, SIGHUP), 0);
    ck_assert(harness_logged(&self.process, "event=reloaded", 5000));
    expect(self.web, "GET / HTTP/1.1\r\nAuthorization: Bearer 0123456789abcdef\r\n" END, 401, NULL);
    expect(self.web, "GET / HTTP/1.1\r\nAuthorization: Bearer fedcba9876543210\r\n" END, 200, NULL);
    shell_end(&self, 0, 5000);
    char *log = harness_log(&self.process);
    ck_assert_ptr_null(strstr(log, "0123456789abcde"));
    ck_assert_ptr_null(strstr(log, "fedcba987654321"));
    free(log);
}
END_TEST

/* ---- Listening ---------------------------------------------------------------------------------
 */

START_TEST(its_socket_is_for_its_group_and_a_stale_one_is_replaced)
{
    shell self = {.manager = 0};
    struct stat status;
    shell_start(&self, "stale", NULL);
    ck_assert_int_eq(stat(self.web, &status), 0);
    ck_assert(S_ISSOCK(status.st_mode));
    ck_assert_uint_eq(status.st_mode & 0777, 0660);
    (void)harness_end(&self.process, SIGKILL, 5000); /* the socket stays behind */
    ck_assert_int_eq(access(self.web, F_OK), 0);
    shell_start(&self, "stale", NULL);
    ck_assert_int_eq(shell_get(self.web, "/healthz", NULL), 200);
    shell_end(&self, 0, 5000);
    ck_assert_int_ne(access(self.web, F_OK), 0);
}
END_TEST

START_TEST(listens_on_a_loopback_port_of_the_kernels_choice)
{
    shell self = {.manager = 0};
    shell_start(&self, "port", (const char *const[]){"--listen", "127.0.0.1:0", NULL});
    char *log = harness_log(&self.process), *at = strstr(log, " port=");
    ck_assert_ptr_nonnull(at);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)strtoul(at + 6, NULL, 10)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    static const char request[] = "GET /readyz HTTP/1.0\r\n\r\n";
    ck_assert_int_eq(send(fd, request, sizeof request - 1, MSG_NOSIGNAL), sizeof request - 1);
    char answer[16] = "";
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    ck_assert_int_eq(poll(&poll_fd, 1, harness_patience(5000)), 1);
    ck_assert_int_eq(recv(fd, answer, 12, MSG_WAITALL), 12);
    ck_assert_str_eq(answer + 8, " 200");
    close(fd);
    free(log);
    shell_end(&self, 0, 5000);
}
END_TEST

static int idle_connection(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert(connect(fd, (struct sockaddr *)&address, sizeof address) == 0 || errno == EAGAIN);
    return fd;
}

/* Eight connections are served; ten that say nothing are sent away in time, so that the next one is
 * served too. */
START_TEST(silent_clients_do_not_keep_others_out)
{
    shell self = {.manager = 0};
    int idle[10];
    const char *file =
        shell_file("few.conf", "listen_connections = 8;\nlisten_timeout = \"300ms\";\n");
    shell_start(&self, "few", (const char *const[]){"-c", file, NULL});
    for (size_t i = 0; i < 10; i++) {
        idle[i] = idle_connection(self.web);
    }
    ck_assert(harness_logged(&self.process, "event=web_full", 5000));
    ck_assert_int_eq(shell_get(self.web, "/healthz", NULL), 200);
    for (size_t i = 0; i < 10; i++) {
        close(idle[i]);
    }
    shell_end(&self, 0, 5000);
}
END_TEST

/* A client that sends a byte now and then is never silent, but its time is over too. */
START_TEST(a_dripping_client_is_ended)
{
    shell self = {.manager = 0};
    const char *file = shell_file("drip.conf", "listen_timeout = \"200ms\";\n");
    shell_start(&self, "drip", (const char *const[]){"-c", file, NULL});
    int fd = idle_connection(self.web);
    int64_t began = harness_now_ms();
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    char byte;
    ck_assert_int_eq(send(fd, "GET /", 5, MSG_NOSIGNAL), 5);
    for (;;) {
        ck_assert_msg(harness_now_ms() - began < harness_patience(8000), "it is still served");
        if (poll(&poll_fd, 1, 40) == 1 && recv(fd, &byte, 1, 0) <= 0) {
            break;
        }
        if (send(fd, "x", 1, MSG_NOSIGNAL) < 0) {
            break;
        }
    }
    close(fd);
    ck_assert_int_eq(shell_get(self.web, "/healthz", NULL), 200);
    shell_end(&self, 0, 5000);
}
END_TEST

static size_t descriptors_of(pid_t pid)
{
    char path[64];
    size_t count = 0;
    snprintf(path, sizeof path, "/proc/%ld/fd", (long)pid);
    DIR *directory = opendir(path);
    ck_assert_ptr_nonnull(directory);
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        count += entry->d_name[0] != '.';
    }
    closedir(directory);
    return count;
}

static int64_t processor_ms(pid_t pid)
{
    char path[64];
    char text[1024] = "";
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    ck_assert_ptr_nonnull(fgets(text, sizeof text, file));
    fclose(file);
    char *at = strrchr(text, ')'); /* fields 14 and 15 are the 12th and 13th after the name */
    ck_assert_ptr_nonnull(at);
    for (int i = 0; i < 12; i++) {
        at = strchr(at + 1, ' ');
        ck_assert_ptr_nonnull(at);
    }
    unsigned long user = strtoul(at, &at, 10), system = strtoul(at, NULL, 10);
    return (int64_t)(user + system) * 1000 / sysconf(_SC_CLK_TCK);
}

/* Without a descriptor to spare a client waits, the daemon does not spin, and goes on later. */
START_TEST(lives_without_descriptors)
{
    shell self = {.manager = 0};
    struct rlimit before, few;
    shell_start(&self, "descriptors", NULL);
    ck_assert_int_eq(shell_get(self.web, "/healthz", NULL), 200);
    ck_assert_int_eq(prlimit(self.process.pid, RLIMIT_NOFILE, NULL, &before), 0);
    few = (struct rlimit){descriptors_of(self.process.pid), before.rlim_max};
    ck_assert_int_eq(prlimit(self.process.pid, RLIMIT_NOFILE, &few, NULL), 0);
    int waiting[3];
    for (size_t i = 0; i < 3; i++) {
        waiting[i] = idle_connection(self.web);
    }
    ck_assert(harness_logged(&self.process, "event=web_accept_failed", 5000));
    shell_forget(&self);
    int64_t used = processor_ms(self.process.pid);
    harness_process pause = {.pid = 0};
    harness_start(&pause, "sleep", (const char *const[]){"sleep", "1", NULL}, NULL);
    (void)harness_end(&pause, 0, 5000);
    ck_assert_int_le(processor_ms(self.process.pid) - used, 300);
    ck_assert_int_eq(prlimit(self.process.pid, RLIMIT_NOFILE, &before, NULL), 0);
    ck_assert_int_eq(shell_get(self.web, "/healthz", NULL), 200);
    for (size_t i = 0; i < 3; i++) {
        close(waiting[i]);
    }
    shell_end(&self, 0, 5000);
}
END_TEST

int main(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
    Suite *suite = suite_create("web");
    TCase *cases = tcase_create("http");
    tcase_set_timeout(cases, 30);
    tcase_add_test(cases, answers_with_json_that_parses);
    tcase_add_test(cases, metrics_are_openmetrics);
    tcase_add_test(cases, refuses_other_paths_methods_and_sizes);
    tcase_add_test(cases, survives_nonsense);
    tcase_add_test(cases, asks_for_the_token);
    tcase_add_test(cases, its_socket_is_for_its_group_and_a_stale_one_is_replaced);
    tcase_add_test(cases, listens_on_a_loopback_port_of_the_kernels_choice);
    tcase_add_test(cases, silent_clients_do_not_keep_others_out);
    tcase_add_test(cases, a_dripping_client_is_ended);
    tcase_add_test(cases, lives_without_descriptors);
    suite_add_tcase(suite, cases);
    return harness_run(suite);
}
