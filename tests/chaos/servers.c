/* servers.c: see servers.h. */
#include "tests/chaos/servers.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/redis/names.h"
#include "tests/chaos/nodes.h"
#include "tests/multi/harness.h"

static void await(const struct redis *redis)
{
    uint64_t deadline = test_now_us() + 60000000u * TEST_SLOWNESS;
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

static const char *const no_scripts[] = {"--user", "default", "on",          "nopass", "~*",
                                         "&*",     "+@all",   "-@scripting", NULL};

/* master: its address, or NULL */
static void start(const struct redis_side *side, struct redis *redis, const char *master)
{
    char port[16], replica_of[64];
    snprintf(port, sizeof port, "%d", REDIS_PORT);
    snprintf(replica_of, sizeof replica_of, "%s %d", master == NULL ? "" : master, REDIS_PORT);
    const char *first[] = {"redis-server",
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
                           "--repl-diskless-sync-delay",
                           "0"};
    const char *words[48];
    size_t count = sizeof first / sizeof *first;
    memcpy(words, first, sizeof first);
    for (size_t i = 0; side->form == REDIS_CLUSTER && nodes_settings[i] != NULL; i++)
        words[count++] = nodes_settings[i];
    for (size_t i = 0; !side->scripts && no_scripts[i] != NULL; i++)
        words[count++] = no_scripts[i];
    if (master != NULL) {
        words[count++] = "--replicaof";
        words[count++] = replica_of;
    }
    words[count] = NULL;
    unlink(redis->server.socket);
    redis->pid =
        network_run(&redis->place, words, redis->server.log, wall_clock_environment(&redis->clock));
    redis->frozen = false;
    await(redis);
}

static void redis_begin(struct redis_side *side, bool keeps, const char *master)
{
    char name[16];
    struct redis *redis = &side->servers[side->count];
    snprintf(name, sizeof name, "redis%u", side->count++);
    memset(redis, 0, sizeof *redis);
    network_place(&redis->place, name);
    wall_clock_make(&redis->clock, name);
    redis->keeps = keeps;
    snprintf(redis->directory, sizeof redis->directory, "%s/%s", test_directory(), name);
    snprintf(redis->server.log, sizeof redis->server.log, "%s/%s.log", test_directory(), name);
    int size = snprintf(redis->server.socket, sizeof redis->server.socket, "%s/%s.sock",
                        test_directory(), name);
    test_check(size > 0 && (size_t)size < sizeof redis->server.socket, "a long directory");
    test_check(mkdir(redis->directory, 0700) == 0, "mkdir: %s", strerror(errno));
    start(side, redis, master);
}

static void start_sentinel(struct redis_side *side, unsigned number)
{
    char path[300], log[300], name[16];
    snprintf(name, sizeof name, "sentinel%u", number);
    network_place(&side->sentinel_places[number], name);
    snprintf(path, sizeof path, "%s/%s.conf", test_directory(), name);
    snprintf(log, sizeof log, "%s/%s.log", test_directory(), name);
    FILE *file = fopen(path, "we");
    test_check(file != NULL, "%s: %s", path, strerror(errno));
    snprintf(side->sentinel_servers[number].socket, sizeof side->sentinel_servers[number].socket,
             "%s/%s.sock", test_directory(), name);
    fprintf(file,
            "unixsocket %s\nport %d\nbind %s\nprotected-mode no\nsentinel monitor chaos %s %d 2\n"
            "sentinel down-after-milliseconds chaos 1000\nsentinel failover-timeout chaos 3000\n",
            side->sentinel_servers[number].socket, SENTINEL_PORT,
            side->sentinel_places[number].address, side->servers[0].place.address, REDIS_PORT);
    fclose(file);
    const char *words[] = {"redis-server", path, "--sentinel", NULL};
    side->sentinels[number] = network_run(&side->sentinel_places[number], words, log, NULL);
}

static void begin_single(struct redis_side *side, bool keeps)
{
    redis_begin(side, keeps, NULL);
    snprintf(side->url, sizeof side->url, "redis://%s:%d/0", side->servers[0].place.address,
             REDIS_PORT);
}

static void begin_sentinel(struct redis_side *side, bool keeps)
{
    redis_begin(side, keeps, NULL);
    redis_begin(side, keeps, side->servers[0].place.address);
    for (unsigned i = 0; i < SENTINELS; i++)
        start_sentinel(side, i);
    snprintf(side->url, sizeof side->url, "redis-sentinel://%s:%d,%s:%d,%s:%d/chaos",
             side->sentinel_places[0].address, SENTINEL_PORT, side->sentinel_places[1].address,
             SENTINEL_PORT, side->sentinel_places[2].address, SENTINEL_PORT);
    test_until(redis_whole(side), 20000, "the replica does not catch up");
}

static void begin_cluster(struct redis_side *side, bool keeps)
{
    for (unsigned i = 0; i < SERVERS_MAX; i++)
        redis_begin(side, keeps, NULL);
    nodes_join(side);
    snprintf(side->url, sizeof side->url, "redis-cluster://%s:%d,%s:%d,%s:%d",
             side->servers[0].place.address, REDIS_PORT, side->servers[1].place.address, REDIS_PORT,
             side->servers[MASTERS].place.address, REDIS_PORT);
}

void redis_side_begin(struct redis_side *side, enum redis_form form, bool keeps, bool scripts)
{
    memset(side, 0, sizeof *side);
    side->form = form;
    side->scripts = scripts;
    if (form == REDIS_SINGLE)
        begin_single(side, keeps);
    else if (form == REDIS_SENTINEL)
        begin_sentinel(side, keeps);
    else
        begin_cluster(side, keeps);
}

char redis_role(const struct redis *redis)
{
    struct client client;
    char found = '?';
    if (!redis_answers(redis) || !client_connect(&client, &redis->server))
        return found;
    struct reply reply = client_words(&client, 1, (const char *const[]){"ROLE"});
    int64_t count = reply.number;
    if (reply.type == '*' && count > 0) {
        reply = client_reply(&client);
        if (reply.type == '$' && reply.size == 6 && memcmp(reply.text, "master", 6) == 0)
            found = 'm';
        for (int64_t i = 1; i < count && found != 'm'; i++) { /* "slave", address, port, state */
            reply = client_reply(&client);
            if (i == 3 && reply.type == '$' && reply.size == 9 &&
                memcmp(reply.text, "connected", 9) == 0)
                found = 'r';
        }
    }
    client_close(&client);
    return found;
}

static bool sentinels_name(const struct redis_side *side, const struct redis *master)
{
    static const char *const words[] = {"SENTINEL", "get-master-addr-by-name", "chaos"};
    for (unsigned i = 0; i < SENTINELS; i++) {
        struct client client;
        if (!client_connect(&client, &side->sentinel_servers[i]))
            return false;
        struct reply reply = client_words(&client, 3, words);
        bool named = false;
        if (reply.type == '*' && reply.number == 2) {
            reply = client_reply(&client);
            named = reply.type == '$' && reply.size == strlen(master->place.address) &&
                    memcmp(reply.text, master->place.address, reply.size) == 0;
        }
        client_close(&client);
        if (!named)
            return false;
    }
    return true;
}

static bool has_one_master(struct redis_side *side)
{
    const struct redis *master = NULL;
    for (unsigned i = 0; i < side->count; i++) {
        char is = redis_role(&side->servers[i]);
        if (is == '?' || (is == 'm' && master != NULL))
            return false;
        master = is == 'm' ? &side->servers[i] : master;
    }
    if (master == NULL || !sentinels_name(side, master))
        return false;
    memset(side->owner, (int)(master - side->servers), sizeof side->owner);
    return true;
}

bool redis_whole(struct redis_side *side)
{
    snprintf(side->missing, sizeof side->missing, "not one master, its replica and its name");
    if (!redis_all_answer(side))
        return false;
    return side->form == REDIS_SINGLE || /* its owner of all is number 0 */
           (side->form == REDIS_SENTINEL ? has_one_master(side) : nodes_whole(side));
}

void redis_mend(struct redis_side *side, bool gossiped)
{
    if (side->form == REDIS_CLUSTER && redis_all_answer(side))
        nodes_mend(side, gossiped);
}

const struct redis *redis_of(const struct redis_side *side, const void *name, size_t size)
{
    return &side->servers[side->owner[names_slot(name, size)]];
}

void redis_restart(struct redis_side *side, struct redis *redis)
{
    const char *master = NULL;
    for (unsigned i = 0; i < side->count && side->form == REDIS_SENTINEL; i++)
        if (&side->servers[i] != redis && redis_role(&side->servers[i]) == 'm')
            master = side->servers[i].place.address;
    start(side, redis, master);
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

bool redis_all_answer(const struct redis_side *side)
{
    for (unsigned i = 0; i < side->count; i++)
        if (!redis_answers(&side->servers[i]))
            return false;
    return true;
}

static bool tell(const struct server *server, const char *const *words)
{
    struct client client;
    size_t count = 0;
    while (words[count] != NULL)
        count++;
    test_check(client_connect(&client, server), "%s: connect", server->socket);
    bool good = client_words(&client, count, words).type != '-';
    client_close(&client);
    return good;
}

bool redis_tell(const struct redis *redis, const char *const *words)
{
    return tell(&redis->server, words);
}

bool redis_switch_master(struct redis_side *side, const struct redis *replica, bool forced)
{
    static const char *const by_sentinel[] = {"SENTINEL", "FAILOVER", "chaos", NULL};
    const char *by_replica[] = {"CLUSTER", "FAILOVER", forced ? "FORCE" : NULL, NULL};
    return side->form == REDIS_CLUSTER ? tell(&replica->server, by_replica)
                                       : tell(&side->sentinel_servers[0], by_sentinel);
}

void redis_split(const struct redis_side *side, const struct redis *redis, bool split)
{
    for (unsigned i = 0; i < side->count; i++) {
        if (&side->servers[i] == redis)
            continue;
        network_silence(&redis->place, &side->servers[i].place, split);
        network_silence(&side->servers[i].place, &redis->place, split);
    }
    for (unsigned i = 0; i < SENTINELS && side->form == REDIS_SENTINEL; i++) {
        network_silence(&redis->place, &side->sentinel_places[i], split);
        network_silence(&side->sentinel_places[i], &redis->place, split);
    }
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
    for (unsigned i = 0; i < SENTINELS; i++)
        if (side->sentinels[i] != 0)
            test_kill(side->sentinels[i]);
    for (unsigned i = 0; i < side->count; i++)
        redis_kill(&side->servers[i]);
}
