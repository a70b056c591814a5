/* test_liars.c: servers that are not Redis, or not in their right mind: silence, closed doors,
 * garbage, drips, floods, replies out of step. larderd must neither crash nor hang nor grow, the
 * map must not notice, and once a real Redis stands in the same place all is well. Deadlines here
 * are those of the quick configuration (fleet.c): a second for a reply.
 */
#include "tests/redis/fleet.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct lie {
    const char *name;
    const char *once;   /* said when a client connects */
    const char *repeat; /* said again and again */
    int pause_us;       /* between the repetitions */
    bool listens;       /* waits for a request before it says anything */
    bool closes;        /* after what it said once */
};

static const struct lie tales[] = {
    {"silent", "", NULL, 0, false, false},
    {"closes", "", NULL, 0, false, true},
    {"http", "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", NULL, 0, true, true},
    {"unasked", "+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n", NULL, 0, false,
     false},
    {"ok to all", "", "+OK\r\n", 1000, true, false},
    {"zeros to all", "", ":0\r\n", 1000, true, false},
    {"nils to all", "", "$-1\r\n", 1000, true, false},
    {"empty arrays", "", "*0\r\n", 1000, true, false},
    {"errors to all", "", "-ERR no\r\n", 1000, true, false},
    {"loading for ever", "", "-LOADING Redis is loading\r\n", 1000, true, false},
    {"drips a line", "+", "x", 20000, true, false},
    {"drips a string", "$100000\r\n", "x", 20000, true, false},
    {"endless line", "+", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 0,
     true, false},
    {"endless string", "$2000000000\r\n",
     "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 0, true, false},
    {"huge array", "*2000000000\r\n", ":1\r\n", 0, true, false},
    {"larger array", "*4294967297\r\n", ":1\r\n", 0, true, false},
    {"negative sizes", "$-7\r\n*-9\r\n", NULL, 0, true, false},
    {"no number", "*x\r\n", NULL, 0, true, false},
    {"nested", "", "*1\r\n", 0, true, false},
    {"endless header", "*1", "1", 0, true, false},
    {"bytes", "\xff\xfe\x01\x02\x80\x81\r\n", "\x07\x00\xff", 100, false, false},
    {"messages", "*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$1\r\ny\r\n", NULL, 0, false, false},
};

static volatile sig_atomic_t *told; /* connections that the liar took; shared with it */

static void speak(int client, const struct lie *lie)
{
    char request[4096];
    if (lie->listens && read(client, request, sizeof request) <= 0)
        return;
    size_t size = strlen(lie->once);
    if (size != 0 && send(client, lie->once, size, MSG_NOSIGNAL) < 0)
        return;
    if (lie->closes)
        return;
    while (lie->repeat != NULL) {
        size = strlen(lie->repeat);
        if (send(client, lie->repeat, size == 0 ? 1 : size, MSG_NOSIGNAL) < 0)
            return;
        struct timespec pause = {.tv_nsec = lie->pause_us * 1000L};
        if (lie->pause_us != 0)
            (void)nanosleep(&pause, NULL);
    }
    while (read(client, request, sizeof request) > 0) {
    }
}

static void relay(int client, const char *server);

/* A process for each connection, all of one group, so that they end together. */
static void serve(int listener, const struct lie *lie, const char *server)
{
    (void)signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0)
            _exit(1);
        (*told)++;
        pid_t child = fork();
        if (child == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            (void)close(listener);
            if (lie != NULL)
                speak(client, lie);
            else
                relay(client, server);
            _exit(0);
        }
        (void)close(client);
    }
}

/* lie NULL: it passes on what the server at that path says; see below. */
static pid_t start_server(const char *path, const struct lie *lie, const char *server)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(listener, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(listen(listener, 64), 0);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(listener, lie, server);
    }
    (void)close(listener);
    return pid;
}

static pid_t start_liar(const char *path, const struct lie *lie)
{
    return start_server(path, lie, NULL);
}

static long resident_kb(pid_t pid)
{
    char path[64], line[256];
    long found = -1;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "RssAnon: %ld", &found) == 1)
            break;
    (void)fclose(file);
    return found;
}

static bool told_enough(void *context)
{
    (void)context;
    return *told >= 6; /* three sessions of two connections */
}

START_TEST(lies)
{
    const struct lie *lie = &tales[_i];
    host a;
    char path[108], url[128];
    told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne((void *)told, MAP_FAILED);
    *told = 0;
    (void)snprintf(path, sizeof path, "%s", harness_path("liar"));
    (void)snprintf(url, sizeof url, "unix://%s", path);
    pid_t liar = start_liar(path, lie);
    host_start(&a, "a", NULL, url, NULL);
    int64_t until = harness_now_ms() + harness_patience(60000);
    int64_t slowest = 0;
    for (int i = 0; !told_enough(NULL); i++) {
        char value[16];
        (void)snprintf(value, sizeof value, "%d", i);
        int64_t from = harness_now_ms();
        host_set(&a, "k", value);
        ck_assert(host_has(&a, "k", value));
        int64_t took = harness_now_ms() - from;
        slowest = took > slowest ? took : slowest;
        struct timespec pause = {.tv_nsec = 2000000};
        (void)nanosleep(&pause, NULL);
        ck_assert_msg(harness_alive(&a.larderd.process), "%s: larderd died", lie->name);
        ck_assert_msg(harness_now_ms() < until, "%s: larderd hangs in a session", lie->name);
    }
    ck_assert_msg(slowest < harness_patience(500), "%s: the map was slowed down: %d ms", lie->name,
                  (int)slowest);
    long resident = resident_kb(a.larderd.process.pid);
    const char *sanitized = getenv("SANITIZED"); /* sanitizers keep what was freed */
    ck_assert_msg(resident < 100 * 1024 || (sanitized != NULL && strcmp(sanitized, "yes") == 0),
                  "%s: larderd has grown to %ld kB", lie->name, resident);
    host_set(&a, "k", "true");
    ck_assert_int_eq(kill(liar, SIGKILL), 0);
    ck_assert_int_eq(waitpid(liar, NULL, 0), liar);
    ck_assert_int_eq(unlink(path), 0);

    harness_redis redis;
    memset(&redis, 0, sizeof redis);
    harness_redis_start(&redis, "honest");
    ck_assert_int_eq(symlink(redis.socket, path), 0);
    redis_comes_to(&redis, "t:k", "true");
    host_drained(&a);
    host_end(&a);
    harness_redis_end(&redis);
}
END_TEST

#define SECRET "hunter2-of-the-fleet"
#define SHA "$40\r\n0123456789012345678901234567890123456789\r\n"

/* Whoever is at the other end has been told the password, and may say it where it pleases. */
static const struct lie echoes[] = {
    {"to all but AUTH", "+OK\r\n", "-ERR what is " SECRET "?\r\n", 1000, true, false},
    {"as a session's error", "+OK\r\n", "-LOADING " SECRET SECRET " again\r\n", 1000, true, false},
    {"to AUTH", "", "-WRONGPASS " SECRET " is wrong\r\n", 1000, true, false},
    {"unasked", "-ERR " SECRET "\r\n-ERR " SECRET "\r\n", NULL, 0, false, false},
    {"as its version", "+OK\r\n+OK\r\n" SHA SHA SHA SHA "$38\r\nredis_version:3." SECRET "\r\n\r\n",
     NULL, 0, true, false},
};

START_TEST(passwords_are_not_logged)
{
    const struct lie *lie = &echoes[_i];
    host a;
    char path[108], url[128], configuration[600];
    told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne((void *)told, MAP_FAILED);
    (void)snprintf(path, sizeof path, "%s", harness_path("liar"));
    (void)snprintf(url, sizeof url, "unix://%s", path);
    (void)snprintf(configuration, sizeof configuration,
                   "redis = { prefix = \"t:\"; " HOST_QUICK "password_file = \"%s\"; };\n"
                   "map = { size = \"64M\"; };\n",
                   harness_write("password", 0600, SECRET));
    pid_t liar = start_liar(path, lie);
    host_start(&a, "a", NULL, url, configuration);
    host_logs(&a, "***");
    char *log = harness_log(&a.larderd.process);
    ck_assert_msg(strstr(log, "hunter2") == NULL, "%s: the password is in the log: %s", lie->name,
                  log);
    free(log);
    ck_assert_int_eq(kill(liar, SIGKILL), 0);
    ck_assert_int_eq(waitpid(liar, NULL, 0), liar);
    host_end(&a);
}
END_TEST

/* ---- A lie among truths -----------------------------------------------------------------------
 */

enum { ENDLESS_SET = 1, ENDLESS_STREAM, LOST_SCRIPTS }; /* what *lying says */

static volatile sig_atomic_t *lying;

/* The set of marks never ends: its last page names another one. */
static void spoil_reply(char *bytes, size_t size)
{
    if (*lying != ENDLESS_SET)
        return;
    static const char last[] = "*2\r\n$1\r\n0\r\n*";
    for (char *at = bytes; (at = memmem(at, size - (size_t)(at - bytes), last, sizeof last - 1));)
        at[strlen("*2\r\n$1\r\n")] = '7';
}

/* The script that pushes is never there. */
static void lose_scripts(char *bytes, size_t size)
{
    static const char keys[] = "\r\n$1\r\n3\r\n";
    for (char *at = bytes; (at = memmem(at, size - (size_t)(at - bytes), keys, sizeof keys - 1));
         at++)
        if (at - bytes >= 45 && memcmp(at - 45, "$40\r\n", 5) == 0)
            memset(at - 40, '0', 40);
}

/* Whatever of the stream is asked for, its beginning is told. */
static void spoil_request(char *bytes, size_t size)
{
    if (*lying == LOST_SCRIPTS)
        lose_scripts(bytes, size);
    if (*lying != ENDLESS_STREAM)
        return;
    char *end = bytes + size;
    char *at = memmem(bytes, size, "XRANGE\r\n", 8);
    char *id = at != NULL ? memmem(at, (size_t)(end - at), "\r\n(", 3) : NULL;
    for (char *byte = id != NULL ? id + 2 : end; byte < end && *byte != '\r'; byte++)
        *byte = *byte == '-' ? '-' : '0';
}

static bool pass_on(int from, int to, void (*spoil)(char *bytes, size_t size))
{
    char bytes[65536];
    ssize_t got = read(from, bytes, sizeof bytes);
    if (got <= 0)
        return false;
    spoil(bytes, (size_t)got);
    for (ssize_t sent = 0, more; sent < got; sent += more) {
        more = send(to, bytes + sent, (size_t)(got - sent), MSG_NOSIGNAL);
        if (more <= 0)
            return false;
    }
    return true;
}

static void relay(int client, const char *server)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", server);
    int to = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (to < 0 || connect(to, (struct sockaddr *)&address, sizeof address) != 0)
        return;
    struct pollfd both[] = {{.fd = client, .events = POLLIN}, {.fd = to, .events = POLLIN}};
    while (poll(both, 2, -1) > 0) {
        if (both[0].revents != 0 && !pass_on(client, to, spoil_request))
            return;
        if (both[1].revents != 0 && !pass_on(to, client, spoil_reply))
            return;
    }
}

static void start_relay(host *self, const char *path, const harness_redis *redis, int lie)
{
    char url[128];
    lying = mmap(NULL, sizeof *lying, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(lying != MAP_FAILED && told != MAP_FAILED);
    *lying = lie;
    (void)snprintf(url, sizeof url, "unix://%s", path);
    (void)start_server(path, NULL, redis->socket);
    host_start(self, "a", NULL, url, NULL);
}

START_TEST(a_set_without_an_end)
{
    harness_redis redis;
    host a;
    memset(&redis, 0, sizeof redis);
    harness_redis_start(&redis, "honest");
    start_relay(&a, harness_path("relay"), &redis, ENDLESS_SET);
    host_logs(&a, "HSCAN of the set of marks does not end");
    host_set(&a, "k", "v");
    *lying = 0;
    redis_comes_to(&redis, "t:k", "v");
    host_drained(&a);
    host_end(&a);
    harness_redis_end(&redis);
}
END_TEST

START_TEST(a_stream_that_begins_again)
{
    harness_redis redis;
    host a, b;
    char key[16];
    memset(&redis, 0, sizeof redis);
    harness_redis_start(&redis, "honest");
    host_start(&b, "b", &redis, NULL, NULL);
    start_relay(&a, harness_path("relay"), &redis, 0);
    host_in_step(&a);
    for (int i = 0; i < 1000; i++) { /* more than a page of them */
        (void)snprintf(key, sizeof key, "k%d", i);
        host_set(&b, key, "v");
    }
    host_comes_to(&a, "k999", "v");
    host_in_step(&a);
    host_stop_daemon(&a);
    host_set(&b, "away", "v");
    host_drained(&b);
    *lying = ENDLESS_STREAM;
    host_start_daemon(&a);
    host_logs(&a, "XRANGE was answered with something else");
    *lying = 0;
    host_comes_to(&a, "away", "v");
    host_end(&a);
    host_end(&b);
    harness_redis_end(&redis);
}
END_TEST

static bool loaded(void *context)
{
    harness_redis *redis = context;
    return redis_calls(redis, "script|load") >= 10 * 4;
}

START_TEST(scripts_that_are_lost_at_once)
{
    harness_redis redis;
    host a;
    memset(&redis, 0, sizeof redis);
    harness_redis_start(&redis, "honest");
    start_relay(&a, harness_path("relay"), &redis, 0);
    host_in_step(&a);
    ck_assert(harness_redis_says(&redis, "OK", "CONFIG", "RESETSTAT", NULL));
    *lying = LOST_SCRIPTS;
    int64_t from = harness_now_ms();
    host_set(&a, "k", "v");
    ck_assert(wait_until(loaded, &redis, PATIENCE_MS));
    /* three at once, seven after pauses of 10 to 640 ms */
    ck_assert_int_ge(harness_now_ms() - from, 1000);
    *lying = 0;
    redis_comes_to(&redis, "t:k", "v");
    host_drained(&a);
    host_end(&a);
    harness_redis_end(&redis);
}
END_TEST

int main(void)
{
    harness_needs_redis();
    Suite *suite = suite_create("liars");
    TCase *all = tcase_create("lies");
    tcase_set_timeout(all, 120);
    tcase_add_loop_test(all, lies, 0, (int)(sizeof tales / sizeof *tales));
    suite_add_tcase(suite, all);
    TCase *secrets = tcase_create("secrets");
    tcase_set_timeout(secrets, 120);
    tcase_add_loop_test(secrets, passwords_are_not_logged, 0,
                        (int)(sizeof echoes / sizeof *echoes));
    suite_add_tcase(suite, secrets);
    TCase *among = tcase_create("among truths");
    tcase_set_timeout(among, 120);
    tcase_add_test(among, a_set_without_an_end);
    tcase_add_test(among, a_stream_that_begins_again);
    tcase_add_test(among, scripts_that_are_lost_at_once);
    suite_add_tcase(suite, among);
    return harness_run(suite);
}
