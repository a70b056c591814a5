/* test_spoiled.c: a real Redis whose words are spoilt on their way to one of two hosts: bytes that
 * get lost, come twice, come one a second, or come changed. The session must end or the word be
 * passed over: larderd lives, and whatever its host serves was set by somebody under that key. Once
 * nothing is spoilt any more both hosts agree.
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

enum spoiling { HONEST, LOSE, DOUBLE, DRIP, CHANGE, SPOILINGS };
enum { KEYS = 50, SPELL = 40, ONE_IN = 30 };
static const char *const names[SPOILINGS] = {"honest", "lose", "double", "drip", "change"};

static volatile sig_atomic_t *spoiling; /* shared with the proxy: enum spoiling */
static volatile sig_atomic_t *spoilt;   /* how often */

static int unix_socket(const char *path, bool listens)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (made < 0)
        return -1;
    int result = listens ? bind(made, (struct sockaddr *)&address, sizeof address)
                         : connect(made, (struct sockaddr *)&address, sizeof address);
    return result == 0 && (!listens || listen(made, 64) == 0) ? made : -1;
}

static bool send_all(int to, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(to, bytes, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        bytes += sent;
        size -= (size_t)sent;
    }
    return true;
}

/* Only what stands in values is changed: a version or a key of another's making is as good as a
 * true one. */
static bool send_spoilt(int client, char *bytes, size_t size)
{
    size_t at = (size_t)rand() % size;
    char *letter = memchr(bytes + at, 'w', size - at);
    enum spoiling how = (enum spoiling) * spoiling;
    if (how == HONEST || (how != DRIP && rand() % ONE_IN != 0) || (how == CHANGE && letter == NULL))
        return send_all(client, bytes, size);
    (*spoilt)++;
    switch (how) {
    case LOSE:
        return send_all(client, bytes, at) && send_all(client, bytes + at + 1, size - at - 1);
    case DOUBLE:
        return send_all(client, bytes, size) && send_all(client, bytes + at, size - at);
    case DRIP:
        for (size_t i = 0; i < size && *spoiling == DRIP; i++) {
            struct timespec pause = {.tv_sec = 1};
            if (!send_all(client, bytes + i, 1))
                return false;
            (void)nanosleep(&pause, NULL);
        }
        return false;
    default:
        *letter = 'v';
        return send_all(client, bytes, size);
    }
}

static void carry(int client, const void *context)
{
    const char *server_path = context;
    static char bytes[16384];
    int server = unix_socket(server_path, false);
    srand((unsigned)harness_seed() ^ (unsigned)getpid());
    while (server >= 0) {
        struct pollfd ends[2] = {{.fd = client, .events = POLLIN},
                                 {.fd = server, .events = POLLIN}};
        if (poll(ends, 2, -1) < 0)
            return;
        for (int i = 0; i < 2; i++) {
            if (ends[i].revents == 0)
                continue;
            ssize_t got = read(ends[i].fd, bytes, sizeof bytes);
            if (got <= 0 || !(i == 0 ? send_all(server, bytes, (size_t)got)
                                     : send_spoilt(client, bytes, (size_t)got)))
                return;
        }
    }
}

static pid_t start_proxy(const char *path, const char *server_path)
{
    int listener = unix_socket(path, true);
    ck_assert_int_ge(listener, 0);
    return harness_serve(listener, carry, server_path);
}

static void value_of(int key, const char *who, int number, char out[96])
{
    memset(out, 'w', SPELL);
    (void)snprintf(out + SPELL, 96 - SPELL, "-%d-%s-%d", key, who, number);
}

/* Somebody's value of that key, letter by letter. */
static void expect_sound(host *self, int key, const char *name)
{
    void *found = NULL;
    size_t size = 0;
    char own[96], other[96];
    int result = larder_get_alloc(self->map, name, strlen(name), &found, &size, NULL);
    ck_assert(result == LARDER_OK || result == LARDER_MISS);
    if (result != LARDER_OK)
        return;
    char *text = strndup(found, size);
    int number = atoi(strrchr(text, '-') == NULL ? "" : strrchr(text, '-') + 1);
    value_of(key, "a", number, own);
    value_of(key, "b", number, other);
    ck_assert_msg(strcmp(text, own) == 0 || strcmp(text, other) == 0, "%s is %s", name, text);
    free(text);
    larder_free(found);
}

START_TEST(spoilt_words)
{
    host a, b;
    harness_redis redis;
    char path[108], url[128], name[16], value[96];
    void *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(shared, MAP_FAILED);
    spoiling = shared;
    spoilt = spoiling + 1;
    *spoiling = HONEST;
    memset(&redis, 0, sizeof redis);
    harness_redis_start(&redis, "redis");
    (void)snprintf(path, sizeof path, "%s", harness_path("proxy"));
    (void)snprintf(url, sizeof url, "unix://%s", path);
    pid_t proxy = start_proxy(path, redis.socket);
    host_start(&a, "a", &redis, url, NULL);
    host_start(&b, "b", &redis, NULL, NULL);
    host_redis_up(&a, true);
    host_redis_up(&b, true);
    *spoiling = _i;
    int64_t until = harness_now_ms() + 4000;
    int number = 0;
    while (harness_now_ms() < until || *spoilt == 0) {
        ck_assert_msg(harness_now_ms() < until + harness_patience(30000), "nothing was spoilt");
        for (int key = 0; key < KEYS; key++) {
            (void)snprintf(name, sizeof name, "0-%d", key);
            value_of(key, number % 3 == 0 ? "a" : "b", number, value);
            host_set(number % 3 == 0 ? &a : &b, name, value);
            expect_sound(&a, key, name);
        }
        number++;
        struct timespec pause = {.tv_nsec = 5000000};
        (void)nanosleep(&pause, NULL);
        ck_assert_msg(harness_alive(&a.larderd.process), "%s: larderd died", names[_i]);
    }
    *spoiling = HONEST;
    for (int key = 0; key < KEYS; key++) {
        (void)snprintf(name, sizeof name, "0-%d", key);
        value_of(key, "b", number, value);
        host_set(&b, name, value);
    }
    for (int key = 0; key < KEYS; key++) {
        (void)snprintf(name, sizeof name, "0-%d", key);
        value_of(key, "b", number, value);
        host_comes_to(&a, name, value);
    }
    host_drained(&a);
    host_end(&a);
    host_end(&b);
    ck_assert_int_eq(kill(proxy, SIGKILL), 0);
    ck_assert_int_eq(waitpid(proxy, NULL, 0), proxy);
    harness_redis_end(&redis);
}
END_TEST

int main(void)
{
    harness_needs_redis();
    Suite *suite = suite_create("spoiled");
    TCase *all = tcase_create("spoilt words");
    tcase_set_timeout(all, 60);
    tcase_add_loop_test(all, spoilt_words, LOSE, SPOILINGS);
    suite_add_tcase(suite, all);
    return harness_run(suite);
}
