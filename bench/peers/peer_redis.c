/* peer_redis.c: redis-server over a unix socket in the instance's directory, spoken to with
 * hiredis; a call is one command and its answer. Nothing on disk. Starts the server; the driver
 * ends it by pid.
 */
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/measure.h"
#include "peer.h"

enum { UNANSWERED_MAX = 200 };

static redisContext *redis;
static unsigned unanswered;

static bool available(const struct peer_setup *setup, char *why, size_t why_size)
{
    (void)setup;
    return peer_installed("redis-server", why, why_size);
}

static pid_t start(const struct peer_setup *setup)
{
    char socket_path[256], log[300];
    snprintf(socket_path, sizeof socket_path, "%s/socket", setup->directory);
    snprintf(log, sizeof log, "%s/log", setup->directory);
    const char *words[] = {"redis-server",   "--port",       "0",  "--unixsocket",
                           socket_path,      "--save",       "",   "--dir",
                           setup->directory, "--appendonly", "no", NULL};
    return peer_run(words, log, NULL);
}

static bool open_store(const struct peer_setup *setup)
{
    char path[256];
    uint64_t until_us = test_now_us() + 10000000;
    snprintf(path, sizeof path, "%s/socket", setup->directory);
    for (;;) {
        redis = redisConnectUnix(path);
        if (redis != NULL && redis->err == 0)
            return true;
        if (test_now_us() > until_us)
            return peer_failed("redis: %s", redis != NULL ? redis->errstr : "no memory");
        if (redis != NULL)
            redisFree(redis);
        test_pause_us(2000);
    }
}

static int64_t get(const char *key, void *buffer, size_t buffer_size)
{
    const char *words[] = {"GET", key};
    const size_t sizes[] = {3, PEER_KEY_SIZE};
    int64_t size = -1;
    redisReply *reply = redisCommandArgv(redis, 2, words, sizes);
    if (reply != NULL && reply->type == REDIS_REPLY_STRING && (size_t)reply->len <= buffer_size) {
        size = (int64_t)reply->len;
        memcpy(buffer, reply->str, (size_t)size);
    }
    freeReplyObject(reply);
    return size;
}

static bool good(redisReply *reply)
{
    bool stored = reply != NULL && reply->type == REDIS_REPLY_STATUS;
    if (!stored)
        peer_failed("redis: %.200s", reply == NULL ? redis->errstr : "SET was refused");
    freeReplyObject(reply);
    return stored;
}

static bool set(const char *key, const void *value, size_t size)
{
    const char *words[] = {"SET", key, value};
    const size_t sizes[] = {3, PEER_KEY_SIZE, size};
    return good(redisCommandArgv(redis, 3, words, sizes));
}

static bool settle(void)
{
    for (; unanswered > 0; unanswered--) {
        void *reply = NULL;
        if (redisGetReply(redis, &reply) != REDIS_OK || !good(reply))
            return false;
    }
    return true;
}

static bool set_quietly(const char *key, const void *value, size_t size)
{
    const char *words[] = {"SET", key, value};
    const size_t sizes[] = {3, PEER_KEY_SIZE, size};
    if (redisAppendCommandArgv(redis, 3, words, sizes) != REDIS_OK)
        return peer_failed("redis: %s", redis->errstr);
    return ++unanswered < UNANSWERED_MAX || settle();
}

static uint64_t memory(void)
{
    redisReply *reply = redisCommand(redis, "INFO memory");
    const char *at =
        reply != NULL && reply->str != NULL ? strstr(reply->str, "used_memory:") : NULL;
    uint64_t bytes = at != NULL ? strtoull(at + strlen("used_memory:"), NULL, 10) : 0;
    freeReplyObject(reply);
    return bytes;
}

static void close_store(void)
{
    redisFree(redis);
}

const struct peer peer_redis = {.name = "redis",
                                .what = "hiredis, unix socket, nothing on disk",
                                .available = available,
                                .start = start,
                                .open = open_store,
                                .get = get,
                                .set = set,
                                .set_quietly = set_quietly,
                                .settle = settle,
                                .memory = memory,
                                .close = close_store};
