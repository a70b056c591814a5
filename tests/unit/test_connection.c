/* test_connection.c: connecting by name: every address of a name is tried, and nothing that is
 * silent (an address, a name server) takes more than its time.
 */
#include "tests/harness.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/redis/connection.h"

static struct event_base *base;
static connection *made;
static bool is_up, is_down, timed_out;
static char why_down[512], answered[64];

static void on_up(void *context)
{
    (void)context;
    is_up = true;
    event_base_loopbreak(base);
}

static void on_answer(void *context, const connection_tag *tag, const reply *answer,
                      int64_t sent_us)
{
    (void)context, (void)tag, (void)sent_us;
    (void)snprintf(answered, sizeof answered, "%s", answer->text);
    event_base_loopbreak(base);
}

static void on_message(void *context, const char *text, size_t size)
{
    (void)context, (void)text, (void)size;
}

static void on_idle(void *context)
{
    (void)context;
}

static void on_down(void *context, const char *why, bool late, bool protocol)
{
    (void)context, (void)protocol;
    is_down = true;
    timed_out = late;
    (void)snprintf(why_down, sizeof why_down, "%s", why);
    event_base_loopbreak(base);
}

static const connection_callbacks callbacks = {on_up,   on_answer, on_message,
                                               on_idle, on_down,   NULL};

static void setup(void)
{
    base = event_base_new();
    ck_assert_ptr_nonnull(base);
    is_up = is_down = timed_out = false;
    why_down[0] = answered[0] = 0;
}

static void teardown(void)
{
    connection_close(&made);
    event_base_free(base);
}

/* Something on this address that accepts; its port. A backlog of 0 and nobody who accepts: the
 * second connection is not answered any more. */
static uint16_t listen_on(const char *address, uint16_t port, int *fd)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t size = sizeof at;
    ck_assert_int_eq(inet_pton(AF_INET, address, &at.sin_addr), 1);
    *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ck_assert(*fd >= 0 && bind(*fd, (struct sockaddr *)&at, size) == 0 && listen(*fd, 0) == 0 &&
              getsockname(*fd, (struct sockaddr *)&at, &size) == 0);
    return ntohs(at.sin_port);
}

static int connect_to(const char *address, uint16_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    (void)inet_pton(AF_INET, address, &at.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    (void)connect(fd, (struct sockaddr *)&at, sizeof at);
    return fd;
}

static const char *hosts_file(const char *text)
{
    const char *path = harness_path("hosts");
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    (void)fputs(text, file);
    ck_assert_int_eq(fclose(file), 0);
    return path;
}

static void open_to(const char *host, uint16_t port, resolver *names, int64_t timeout_ms)
{
    connection_settings settings = {.base = base,
                                    .resolver = names,
                                    .limits = {65536, 1024, 4},
                                    .connect_timeout_ms = timeout_ms,
                                    .reply_timeout_ms = timeout_ms};
    ck_assert(url_place_set(&settings.place, host, strlen(host), port));
    made = connection_open(&settings, &callbacks, NULL);
    ck_assert_ptr_nonnull(made);
    ck_assert(!is_up && !is_down);
}

static void run(void)
{
    (void)event_base_dispatch(base);
}

START_TEST(later_addresses_are_tried)
{
    int fd;
    uint16_t port = listen_on("127.0.0.3", 0, &fd);
    resolver *names = resolver_create_with(
        base, 5000, hosts_file("127.0.0.1 cache\n127.0.0.2 cache\n::1 cache\n127.0.0.3 cache\n"),
        NULL);
    open_to("cache", port, names, 5000);
    run();
    ck_assert_msg(is_up, "%s", why_down);
    connection_close(&made);
    resolver_close(&names);
    (void)close(fd);
}
END_TEST

START_TEST(no_address_answers)
{
    int fd;
    uint16_t port = listen_on("127.0.0.1", 0, &fd);
    (void)close(fd);
    resolver *names =
        resolver_create_with(base, 5000, hosts_file("127.0.0.1 cache\n127.0.0.2 cache\n"), NULL);
    int64_t began = harness_now_ms();
    open_to("cache", port, names, 5000);
    run();
    ck_assert(is_down && !timed_out);
    ck_assert_msg(strstr(why_down, "refused") != NULL, "%s", why_down);
    ck_assert_int_lt(harness_now_ms() - began, 4000);
    connection_close(&made);
    resolver_close(&names);
}
END_TEST

/* One that is silent leaves the other its time. */
START_TEST(silent_address)
{
    int silent, good, filler[4];
    uint16_t port = listen_on("127.0.0.2", 0, &silent);
    (void)listen_on("127.0.0.3", port, &good);
    for (size_t i = 0; i < 4; i++)
        filler[i] = connect_to("127.0.0.2", port);
    resolver *names =
        resolver_create_with(base, 2000, hosts_file("127.0.0.2 cache\n127.0.0.3 cache\n"), NULL);
    open_to("cache", port, names, 2000);
    run();
    ck_assert_msg(is_up, "%s", why_down);
    connection_close(&made);
    is_up = false;
    open_to("127.0.0.2", port, NULL, 300); /* alone: over in time */
    run();
    ck_assert(is_down && timed_out);
    ck_assert_msg(strstr(why_down, "no connection within 300 ms") != NULL, "%s", why_down);
    for (size_t i = 0; i < 4; i++)
        (void)close(filler[i]);
    connection_close(&made);
    resolver_close(&names);
    (void)close(silent);
    (void)close(good);
}
END_TEST

/* A UDP port that takes questions and does not answer; "address:port" of it. */
static const char *silent_name_server(int *fd)
{
    static char text[32];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    *fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ck_assert(*fd >= 0 && bind(*fd, (struct sockaddr *)&at, size) == 0 &&
              getsockname(*fd, (struct sockaddr *)&at, &size) == 0);
    (void)snprintf(text, sizeof text, "127.0.0.1:%u", (unsigned)ntohs(at.sin_port));
    return text;
}

START_TEST(silent_name_server_takes_its_time_alone)
{
    int fd;
    resolver *names = resolver_create_with(base, 10000, NULL, silent_name_server(&fd));
    int64_t began = harness_now_ms();
    open_to("cache.example", 6379, names, 300);
    run();
    ck_assert(is_down && timed_out);
    ck_assert_msg(strstr(why_down, "name server") != NULL, "%s", why_down);
    ck_assert_int_lt(harness_now_ms() - began, harness_patience(3000));
    /* closed while the question is open; the resolver, too, which libevent still looks at */
    connection_close(&made);
    resolver_close(&names);
    (void)event_base_loop(base, EVLOOP_NONBLOCK);
    (void)event_base_loop(base, EVLOOP_NONBLOCK);
    (void)close(fd);
}
END_TEST

START_TEST(unknown_name)
{
    resolver *names = resolver_create_with(base, 1000, hosts_file("127.0.0.1 cache\n"), NULL);
    open_to("other", 6379, names, 1000);
    run();
    ck_assert(is_down);
    ck_assert_msg(strstr(why_down, "other") != NULL, "%s", why_down);
    connection_close(&made);
    is_down = false;
    open_to("other", 6379, NULL, 1000); /* nobody to ask */
    run();
    ck_assert(is_down);
    connection_close(&made);
    resolver_close(&names);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("connection");
    TCase *all = tcase_create("connect");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 60);
    tcase_add_test(all, later_addresses_are_tried);
    tcase_add_test(all, no_address_answers);
    tcase_add_test(all, silent_address);
    tcase_add_test(all, silent_name_server_takes_its_time_alone);
    tcase_add_test(all, unknown_name);
    suite_add_tcase(suite, all);
    return harness_run(suite);
}
