/* test_sentinel.c: larderd behind real Sentinels: it finds the master, follows it through a
 * failover, and uses neither a server that is no master nor one that only a Sentinel that is behind
 * takes for it.
 */
#include "tests/ports.h"
#include "tests/redis/certificates.h"
#include "tests/redis/fleet.h"

#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FAILOVER_MS 60000

struct server { /* a server with a TCP port beside its socket */
    harness_redis redis;
    char port[8];
    const char *arguments[24];
};

struct watch { /* a Sentinel; redis is only its socket */
    harness_redis redis;
    char port[8], configuration[160];
};

static struct server servers[2];
static struct watch watches[3];
static host a, b;

static void start_server(struct server *self, const char *name, ...)
{
    size_t count = 0;
    va_list more;
    memset(self, 0, sizeof *self);
    ck_assert(port_claim(self->port));
    self->arguments[count++] = "--bind";
    self->arguments[count++] = "127.0.0.1";
    self->arguments[count++] = "--repl-diskless-sync-delay";
    self->arguments[count++] = "0";
    self->arguments[count++] = "--port";
    self->arguments[count++] = self->port;
    va_start(more, name);
    do {
        ck_assert_uint_lt(count, sizeof self->arguments / sizeof *self->arguments);
        self->arguments[count] = va_arg(more, const char *);
    } while (self->arguments[count++] != NULL);
    va_end(more);
    self->redis.extra = self->arguments;
    harness_redis_start(&self->redis, name);
}

static bool answers(void *context)
{
    struct watch *self = context;
    if (access(self->redis.socket, F_OK) != 0)
        return false;
    return harness_alive(&self->redis.process);
}

/* A Sentinel that calls the server at port "svc"; more: further lines of its configuration. */
static void start_watch(struct watch *self, const char *name, const char *port, const char *more)
{
    char text[1024], file[32];
    memset(self, 0, sizeof *self);
    ck_assert(port_claim(self->port));
    (void)snprintf(self->redis.socket, sizeof self->redis.socket, "%s",
                   harness_path("%s.sock", name));
    (void)snprintf(text, sizeof text,
                   "port %s\nbind 127.0.0.1\nunixsocket %s\ndir %s\n"
                   "sentinel monitor svc 127.0.0.1 %s 2\n"
                   "sentinel down-after-milliseconds svc 1500\n"
                   "sentinel failover-timeout svc 4000\n%s\n",
                   self->port, self->redis.socket, harness_directory(), port, more);
    (void)snprintf(file, sizeof file, "%s.conf", name);
    (void)snprintf(self->configuration, sizeof self->configuration, "%s",
                   harness_write(file, 0600, text));
    const char *const command[] = {"redis-server", self->configuration, "--sentinel", NULL};
    harness_start(&self->redis.process, name, command, NULL);
    if (!wait_until(answers, self, 10000)) {
        char *log = harness_log(&self->redis.process);
        ck_abort_msg("the Sentinel %s does not answer; its log:\n%s", name, log);
    }
}

static void end_watch(struct watch *self)
{
    if (self->redis.process.pid != 0)
        (void)harness_end(&self->redis.process, SIGTERM, 10000);
}

/* The configuration with these further groups. */
static const char *settings(const char *more)
{
    static char text[1024];
    (void)snprintf(text, sizeof text,
                   "redis = { prefix = \"t:\"; " HOST_QUICK "};\nmap = { size = \"64M\"; };\n%s\n",
                   more);
    return text;
}

static void start_host(host *self, const char *name, const char *scheme, const char *ports,
                       const char *more)
{
    char url[160];
    (void)snprintf(url, sizeof url, "%s://%s/svc", scheme, ports);
    host_start(self, name, NULL, url, settings(more));
}

static const char *ports_of(const struct watch *list, size_t count)
{
    static char text[128];
    text[0] = 0;
    ck_assert_uint_le(count, 3);
    for (size_t i = 0; i < count; i++) {
        size_t used = strlen(text);
        (void)snprintf(text + used, sizeof text - used, "%s127.0.0.1:%.7s", i != 0 ? "," : "",
                       list[i].port);
    }
    return text;
}

/* ---- A failover ---------------------------------------------------------------------------------
 */

static bool know_each_other(void *context)
{
    (void)context;
    for (size_t i = 0; i < 3; i++) {
        char *master = harness_redis_command(&watches[i].redis, "SENTINEL", "MASTER", "svc", NULL);
        bool ready = strstr(master, "num-slaves\n1\n") != NULL &&
                     strstr(master, "num-other-sentinels\n2\n") != NULL;
        free(master);
        if (!ready)
            return false;
    }
    return true;
}

static void setup(void)
{
    start_server(&servers[0], "first", NULL);
    start_server(&servers[1], "second", "--replicaof", "127.0.0.1", servers[0].port, NULL);
    for (size_t i = 0; i < 3; i++)
        start_watch(&watches[i], i == 0 ? "s1" : i == 1 ? "s2" : "s3", servers[0].port, "");
    ck_assert_msg(wait_until(know_each_other, NULL, 30000), "the Sentinels do not meet");
    start_host(&a, "a", "redis-sentinel", ports_of(watches, 3), "");
    start_host(&b, "b", "redis-sentinel", ports_of(watches, 3), "");
    host_in_step(&a);
    host_in_step(&b);
    host_set(&a, "before", "1");
    host_comes_to(&b, "before", "1");
}

static void teardown(void)
{
    host_end(&a);
    host_end(&b);
    for (size_t i = 0; i < 3; i++)
        end_watch(&watches[i]);
    for (size_t i = 0; i < 2; i++)
        if (servers[i].redis.process.pid != 0)
            harness_redis_end(&servers[i].redis);
}

static void logs_connected_to(host *self, const struct server *server)
{
    char text[64];
    (void)snprintf(text, sizeof text, "connected to 127.0.0.1:%s", server->port);
    if (!harness_logged(&self->larderd.process, text, FAILOVER_MS)) {
        char *log = harness_log(&self->larderd.process);
        ck_abort_msg("%s: never %s; its log:\n%s", self->name, text, log);
    }
}

static size_t times_connected_to(host *self, const struct server *server)
{
    char text[64];
    size_t count = 0;
    (void)snprintf(text, sizeof text, "connected to 127.0.0.1:%s", server->port);
    char *log = harness_log(&self->larderd.process);
    for (const char *at = log; (at = strstr(at, text)) != NULL; at++)
        count++;
    free(log);
    return count;
}

static bool is_replica(void *context)
{
    struct server *server = context;
    char *role = harness_redis_try(&server->redis, "ROLE");
    bool replica = role != NULL && strncmp(role, "slave", 5) == 0;
    free(role);
    return replica;
}

/* The connections of larderd alone: without theirs the Sentinels would take the server for dead. */
static void cut_larderds(harness_redis *redis)
{
    char *list = harness_redis_command(redis, "CLIENT", "LIST", NULL), *rest = list;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        char *end = strncmp(line, "id=", 3) == 0 ? strchr(line, ' ') : NULL;
        if (end == NULL || strstr(end, "name=larderd-") == NULL)
            continue;
        *end = 0;
        free(harness_redis_command(redis, "CLIENT", "KILL", "ID", line + 3, NULL));
    }
    free(list);
}

START_TEST(the_master_dies)
{
    logs_connected_to(&a, &servers[0]);
    harness_redis_kill(&servers[0].redis);
    host_redis_up(&a, false);
    host_set(&a, "during", "a");
    host_set(&b, "during-too", "b");
    host_delete(&b, "before");
    logs_connected_to(&a, &servers[1]);
    logs_connected_to(&b, &servers[1]);
    host_comes_to(&b, "during", "a");
    host_comes_to(&a, "during-too", "b");
    host_comes_to(&a, "before", NULL);
    redis_comes_to(&servers[1].redis, "t:during", "a");
    /* it returns, as the master that it was, until the Sentinels have told it */
    harness_redis_restart(&servers[0].redis);
    for (int i = 0; i < 20; i++) {
        char value[16];
        (void)snprintf(value, sizeof value, "%d", i);
        cut_larderds(&servers[1].redis);
        host_set(&a, "after", value);
        host_comes_to(&b, "after", value);
    }
    ck_assert_msg(wait_until(is_replica, &servers[0], FAILOVER_MS), "the old master still is one");
    host_set(&a, "after", "all");
    host_comes_to(&b, "after", "all");
    host_drained(&a);
    host_drained(&b);
    ck_assert_uint_eq(times_connected_to(&a, &servers[0]), 1);
    ck_assert_uint_eq(times_connected_to(&b, &servers[0]), 1);
}
END_TEST

/* Nothing breaks: it is told. */
START_TEST(the_master_is_moved)
{
    /* refused while a replica is not ready, say */
    for (int i = 0; i < 100; i++) {
        char *reply = harness_redis_command(&watches[1].redis, "SENTINEL", "FAILOVER", "svc", NULL);
        bool done = strcmp(reply, "OK") == 0;
        free(reply);
        if (done)
            break;
        (void)usleep(100000);
    }
    logs_connected_to(&a, &servers[1]);
    host_logs(&a, "a Sentinel says that the master is 127.0.0.1");
    logs_connected_to(&b, &servers[1]);
    host_set(&a, "k", "v");
    host_comes_to(&b, "k", "v");
    redis_comes_to(&servers[1].redis, "t:k", "v");
}
END_TEST

/* ---- Sentinels that have never heard of each other ----------------------------------------------
 */

static void end_two(void)
{
    for (size_t i = 0; i < 3; i++)
        end_watch(&watches[i]);
    for (size_t i = 0; i < 2; i++)
        if (servers[i].redis.process.pid != 0)
            harness_redis_end(&servers[i].redis);
}

static void clear(void)
{
    memset(servers, 0, sizeof servers);
    memset(watches, 0, sizeof watches);
}

START_TEST(a_sentinel_that_is_behind)
{
    start_server(&servers[0], "first", NULL);
    start_server(&servers[1], "second", NULL);
    start_watch(&watches[0], "s1", servers[0].port, "sentinel config-epoch svc 3");
    start_watch(&watches[1], "s2", servers[1].port, "sentinel config-epoch svc 4");
    start_host(&a, "a", "redis-sentinel", ports_of(watches, 2), "");
    logs_connected_to(&a, &servers[1]);
    host_set(&a, "k", "v");
    redis_comes_to(&servers[1].redis, "t:k", "v");
    ck_assert(harness_redis_says(&servers[0].redis, NULL, "GET", "t:k", NULL));
    host_end(&a);
    end_two();
}
END_TEST

/* ---- One that lies ------------------------------------------------------------------------------
 */

static _Atomic unsigned *hints; /* that it has given; shared with it */

static void say(int client, const char *text)
{
    if (send(client, text, strlen(text), MSG_NOSIGNAL) < 0)
        _exit(0);
}

/* Names the true master when it is asked, and tells of moves that there were none of all the time.
 */
static void lie_to(int client, const void *context)
{
    const char *port = context;
    static const char switched[] = "svc 127.0.0.1 1 127.0.0.1 2";
    char heard[4096] = "", text[256];
    size_t size = 0;
    while (strstr(heard, "SUBSCRIBE") == NULL) {
        ssize_t got = recv(client, heard + size, sizeof heard - 1 - size, 0);
        if (got <= 0)
            _exit(0);
        size += (size_t)got;
        heard[size] = 0;
    }
    (void)snprintf(text, sizeof text, "*2\r\n$9\r\n127.0.0.1\r\n$%zu\r\n%s\r\n*0\r\n", strlen(port),
                   port);
    say(client, text);
    say(client, "*3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n");
    (void)snprintf(text, sizeof text,
                   "*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$%zu\r\n%s\r\n",
                   strlen(switched), switched);
    for (;;) {
        struct timespec pause = {.tv_nsec = 10000000};
        say(client, text);
        (*hints)++;
        (void)nanosleep(&pause, NULL);
        ssize_t got = recv(client, heard, sizeof heard - 1, MSG_DONTWAIT);
        if (got == 0)
            _exit(0);
        if (got > 0) /* nothing but PING */
            say(client, "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    }
}

static pid_t start_lying_sentinel(const char *at, const char *master)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)strtoul(at, NULL, 10)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(listener, 0);
    ck_assert_int_eq(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(listen(listener, 64), 0);
    return harness_serve(listener, lie_to, master);
}

static bool has_given_many(void *context)
{
    (void)context;
    return *hints >= 400;
}

/* Its hints end a session, then none for a second, then none for two, and so on. */
START_TEST(a_sentinel_that_lies)
{
    char ports[128];
    size_t allowed = 2; /* the first session, and the one after the first hint */
    hints = mmap(NULL, sizeof *hints, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne((void *)hints, MAP_FAILED);
    start_server(&servers[0], "first", NULL);
    start_watch(&watches[0], "s1", servers[0].port, "");
    start_watch(&watches[1], "s2", servers[0].port, "");
    ck_assert(port_claim(watches[2].port));
    pid_t liar = start_lying_sentinel(watches[2].port, servers[0].port);
    (void)snprintf(ports, sizeof ports, "%s", ports_of(watches, 3));
    int64_t began = harness_now_ms();
    start_host(&a, "a", "redis-sentinel", ports, "");
    logs_connected_to(&a, &servers[0]);
    ck_assert(wait_until(has_given_many, NULL, 60000));
    size_t times = times_connected_to(&a, &servers[0]);
    for (int64_t took = harness_now_ms() - began, pause = 1000; took >= pause; pause *= 2) {
        took -= pause;
        allowed++;
    }
    ck_assert_msg(times <= allowed, "%u hints made %zu sessions; %zu would be many", *hints, times,
                  allowed);
    host_set(&a, "k", "v");
    redis_comes_to(&servers[0].redis, "t:k", "v");
    ck_assert_int_eq(kill(liar, SIGKILL), 0);
    ck_assert_int_eq(waitpid(liar, NULL, 0), liar);
    host_end(&a);
    end_two();
}
END_TEST

START_TEST(not_a_master)
{
    start_server(&servers[0], "first", NULL);
    start_server(&servers[1], "second", "--replicaof", "127.0.0.1", servers[0].port, NULL);
    ck_assert(wait_until(is_replica, &servers[1], 10000));
    start_watch(&watches[0], "s1", servers[1].port, "");
    start_host(&a, "a", "redis-sentinel", ports_of(watches, 1), "");
    host_set(&a, "k", "v");
    host_logs(&a, "is not a master, though the Sentinels name it");
    host_redis_up(&a, false);
    ck_assert_uint_eq(host_dirty(&a), 1);
    host_end(&a);
    end_two();
}
END_TEST

/* Of three one is not there, and one is silent. */
START_TEST(sentinels_that_do_not_answer)
{
    char ports[128], nobody[8];
    ck_assert(port_claim(nobody));
    start_server(&servers[0], "first", NULL);
    start_watch(&watches[0], "s1", servers[0].port, "");
    start_watch(&watches[1], "s2", servers[0].port, "");
    harness_freeze(&watches[0].redis.process);
    (void)snprintf(ports, sizeof ports, "127.0.0.1:%s,%s", nobody, ports_of(watches, 2));
    int64_t began = harness_now_ms();
    start_host(&a, "a", "redis-sentinel", ports, "");
    logs_connected_to(&a, &servers[0]);
    ck_assert_int_lt(harness_now_ms() - began, harness_patience(5000));
    /* the last one dies: the session goes on, and a new one cannot begin */
    (void)harness_end(&watches[1].redis.process, SIGKILL, 5000);
    host_set(&a, "k", "v");
    redis_comes_to(&servers[0].redis, "t:k", "v");
    cut_larderds(&servers[0].redis);
    host_redis_up(&a, false);
    host_logs(&a, "Sentinel 127.0.0.1:");
    harness_thaw(&watches[0].redis.process);
    host_redis_up(&a, true);
    host_end(&a);
    end_two();
}
END_TEST

START_TEST(unknown_service)
{
    char url[160];
    start_server(&servers[0], "first", NULL);
    start_watch(&watches[0], "s1", servers[0].port, "");
    (void)snprintf(url, sizeof url, "redis-sentinel://%s/other", ports_of(watches, 1));
    host_start(&a, "a", NULL, url, settings(""));
    host_logs(&a, "it does not know the service other");
    host_end(&a);
    end_two();
}
END_TEST

/* The Sentinels have another password than the server. */
START_TEST(passwords_of_both)
{
    char url[160], configuration[600];
    start_server(&servers[0], "first", NULL);
    free(harness_redis_command(&servers[0].redis, "ACL", "SETUSER", "app", "on", ">of-the-server",
                               "~*", "&*", "+@all", NULL));
    start_watch(&watches[0], "s1", servers[0].port,
                "user watcher on >of-the-sentinel ~* &* +@all\nuser default off");
    (void)harness_write("server.password", 0600, "of-the-server");
    (void)harness_write("sentinel.password", 0600, "wrong-secret");
    (void)snprintf(configuration, sizeof configuration,
                   "sentinel = { user = \"watcher\"; password_file = \"%s/sentinel.password\"; };\n"
                   "redis = { user = \"app\"; password_file = \"%s/server.password\"; "
                   "prefix = \"t:\"; park = \"1s\"; };\nmap = { size = \"64M\"; };\n",
                   harness_directory(), harness_directory());
    (void)snprintf(url, sizeof url, "redis-sentinel://%s/svc", ports_of(watches, 1));
    host_start(&a, "a", NULL, url, configuration);
    host_logs(&a, "WRONGPASS");
    host_logs(&a, "parked");
    (void)harness_write("sentinel.password", 0600, "of-the-sentinel");
    ck_assert_int_eq(kill(a.larderd.process.pid, SIGHUP), 0);
    logs_connected_to(&a, &servers[0]);
    host_set(&a, "k", "v");
    redis_comes_to(&servers[0].redis, "t:k", "v");
    char *log = harness_log(&a.larderd.process);
    ck_assert_msg(strstr(log, "of-the-se") == NULL && strstr(log, "wrong-secret") == NULL,
                  "a password is in the log: %s", log);
    free(log);
    host_end(&a);
    end_two();
}
END_TEST

START_TEST(both_with_tls)
{
    char more[700], group[256], crt[160], key[160], ca[160], port[8];
    certificate_make("ca", NULL, NULL, -86400, 864000);
    certificate_make("server", "ca", "IP:127.0.0.1", -86400, 864000);
    (void)snprintf(crt, sizeof crt, "%s", harness_path("server.crt"));
    (void)snprintf(key, sizeof key, "%s", harness_path("server.key"));
    (void)snprintf(ca, sizeof ca, "%s", harness_path("ca.crt"));
    memset(&servers[0], 0, sizeof servers[0]);
    struct server *self = &servers[0];
    ck_assert(port_claim(self->port));
    const char *const arguments[] = {"--bind",
                                     "127.0.0.1",
                                     "--tls-port",
                                     self->port,
                                     "--tls-cert-file",
                                     crt,
                                     "--tls-key-file",
                                     key,
                                     "--tls-ca-cert-file",
                                     ca,
                                     "--tls-auth-clients",
                                     "no"};
    memcpy(self->arguments, arguments, sizeof arguments);
    self->redis.extra = self->arguments;
    harness_redis_start(&self->redis, "first");
    ck_assert(port_claim(port));
    (void)snprintf(more, sizeof more,
                   "tls-cert-file %s\ntls-key-file %s\ntls-ca-cert-file %s\n"
                   "tls-auth-clients no\ntls-replication yes\ntls-port %s",
                   crt, key, ca, port);
    start_watch(&watches[0], "s1", self->port, more);
    (void)snprintf(watches[0].port, sizeof watches[0].port, "%s", port); /* the one with TLS */
    (void)snprintf(group, sizeof group, "tls = { ca = \"%s\"; };", ca);
    start_host(&a, "a", "rediss-sentinel", ports_of(watches, 1), group);
    logs_connected_to(&a, self);
    host_set(&a, "k", "v");
    redis_comes_to(&self->redis, "t:k", "v");
    host_end(&a);
    end_two();
}
END_TEST

int main(void)
{
    harness_needs_redis();
    Suite *suite = suite_create("sentinel");
    TCase *failover = tcase_create("failover");
    tcase_add_checked_fixture(failover, setup, teardown);
    tcase_set_timeout(failover, 180);
    tcase_add_test(failover, the_master_dies);
    tcase_add_test(failover, the_master_is_moved);
    suite_add_tcase(suite, failover);
    TCase *apart = tcase_create("apart");
    tcase_add_checked_fixture(apart, clear, NULL);
    tcase_set_timeout(apart, 60);
    tcase_add_test(apart, a_sentinel_that_is_behind);
    tcase_add_test(apart, a_sentinel_that_lies);
    tcase_add_test(apart, not_a_master);
    tcase_add_test(apart, sentinels_that_do_not_answer);
    tcase_add_test(apart, unknown_service);
    tcase_add_test(apart, passwords_of_both);
    tcase_add_test(apart, both_with_tls);
    suite_add_tcase(suite, apart);
    return harness_run(suite);
}
