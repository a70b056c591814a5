/* servers.c: see servers.h. */
#include "tests/chaos/servers.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/multi/harness.h"

static void await(const struct redis *redis)
{
    uint64_t deadline = test_now_us() + 20000000u * TEST_SLOWNESS;
    for (;;) {
        struct client client;
        if (client_connect(&client, &redis->server)) {
            struct reply reply = client_words(&client, 1, (const char *const[]){"PING"});
            bool ready = reply.type == '+';
            client_close(&client);
            if (ready)
                return;
        }
        test_check(test_now_us() < deadline, "%s does not begin: see %s", redis->place.name,
                   redis->server.log);
        test_pause_us(5000);
    }
}

void redis_start(struct redis *redis)
{
    char port[16];
    snprintf(port, sizeof port, "%d", REDIS_PORT);
    const char *words[] = {"redis-server",
                           "--port",
                           port,
                           "--bind",
                           redis->place.address,
                           "--unixsocket",
                           redis->server.socket,
                           "--dir",
                           redis->directory,
                           "--save",
                           "",
                           "--appendonly",
                           redis->keeps ? "yes" : "no",
                           "--protected-mode",
                           "no",
                           NULL};
    unlink(redis->server.socket);
    redis->pid = network_run(&redis->place, words, redis->server.log, NULL);
    redis->frozen = false;
    await(redis);
}

static void redis_begin(struct redis *redis, const char *name, bool keeps)
{
    memset(redis, 0, sizeof *redis);
    network_place(&redis->place, name);
    redis->keeps = keeps;
    snprintf(redis->directory, sizeof redis->directory, "%s/%s", test_directory(), name);
    snprintf(redis->server.log, sizeof redis->server.log, "%s/%s.log", test_directory(), name);
    int size = snprintf(redis->server.socket, sizeof redis->server.socket, "%s/%s.sock",
                        test_directory(), name);
    test_check(size > 0 && (size_t)size < sizeof redis->server.socket, "a long directory");
    test_check(mkdir(redis->directory, 0700) == 0, "mkdir: %s", strerror(errno));
    redis_start(redis);
}

void redis_side_begin(struct redis_side *side, bool keeps)
{
    memset(side, 0, sizeof *side);
    side->count = 1;
    redis_begin(&side->servers[0], "redis", keeps);
    snprintf(side->url, sizeof side->url, "redis://%s:%d/0", side->servers[0].place.address,
             REDIS_PORT);
}

void redis_kill(struct redis *redis)
{
    if (redis->pid != 0)
        test_kill(redis->pid);
    redis->pid = 0;
    redis->frozen = false;
}

void redis_freeze(struct redis *redis)
{
    test_stop(redis->pid);
    redis->frozen = true;
}

void redis_thaw(struct redis *redis)
{
    test_check(kill(redis->pid, SIGCONT) == 0, "SIGCONT: %s", strerror(errno));
    redis->frozen = false;
}

bool redis_answers(const struct redis *redis)
{
    return redis->pid != 0 && !redis->frozen;
}

void redis_tell(const struct redis *redis, const char *const *words)
{
    struct client client;
    size_t count = 0;
    while (words[count] != NULL)
        count++;
    test_check(client_connect(&client, &redis->server), "%s: connect", redis->place.name);
    (void)client_words(&client, count, words);
    client_close(&client);
}

void redis_side_look(struct redis_side *side)
{
    for (unsigned i = 0; i < side->count; i++) {
        int status = 0;
        struct redis *redis = &side->servers[i];
        if (redis->pid != 0 && waitpid(redis->pid, &status, WNOHANG) == redis->pid)
            test_fail("%s ended by itself: %s: see %s", redis->place.name, test_status_text(status),
                      redis->server.log);
    }
}

void redis_side_end(struct redis_side *side)
{
    for (unsigned i = 0; i < side->count; i++)
        redis_kill(&side->servers[i]);
}
