/* bench_drain: what an outage leaves behind, and how fast it goes. Redis hangs, many keys are set,
 * Redis goes on: how many keys a second larderd pushes until nothing waits, beside what a bare
 * client reaches that runs the same script on the same server, with as many commands under way, and
 * does nothing else. They take turns; the medians are compared. Then a map that holds nothing but
 * what waits, and is written on: what larderd's memory and the map come to, and whether all that
 * the map still has is in Redis afterwards.
 *
 *   bench_drain [--rounds N] [--keys N (a round)] [--full N (sets into the full map)]
 */
#include <assert.h>
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/measure.h"
#include "bench/servers.h"
#include "daemon/redis/names.h"
#include "daemon/redis/script.h"
#include "daemon/redis/wire.h"
#include "larder.h"

enum { VALUE = 100, ROUNDS_MAX = 50, BATCH = 128, BATCHES = 8 /* larderd's defaults */ };

static struct server redis, larderd;
static larder *handle;

static larder *attach(const char *name)
{
    larder_options options = {
        .dir = test_directory(), .flags = LARDER_ATTACH, .write_wait_ms = 1000};
    larder *opened = NULL;
    int code = LARDER_ENOTFOUND;
    test_until((code = larder_open(name, &options, &opened)) != LARDER_ENOTFOUND, 20000,
               "larderd makes no map");
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    return opened;
}

static larder_stats stats(void)
{
    larder_stats read;
    int code = larder_stats_read(handle, &read, sizeof read);
    test_check(code == LARDER_OK, "stats: %d %s", code, larder_last_error());
    return read;
}

static int set_key(uint64_t number, const char *family)
{
    char key[48];
    uint8_t value[VALUE];
    size_t size = (size_t)snprintf(key, sizeof key, "%s:%" PRIu64, family, number);
    test_value_fill(value, sizeof value, number);
    return larder_set(handle, key, size, value, sizeof value, NULL);
}

/* Processor time of a process so far, microseconds: what a machine that others use as well does not
 * change much. */
static double processor_us(pid_t pid)
{
    char path[64];
    unsigned long long ns = 0;
    snprintf(path, sizeof path, "/proc/%d/schedstat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file != NULL) {
        if (fscanf(file, "%llu", &ns) != 1)
            ns = 0;
        fclose(file);
    }
    return (double)ns / 1e3;
}

struct cost { /* of a key, microseconds of processor */
    double client, redis;
};
static struct cost larderd_cost[ROUNDS_MAX], bare_cost[ROUNDS_MAX];

/* ---- larderd ------------------------------------------------------------------------------- */

static double drain(uint64_t round, uint64_t keys)
{
    char family[32];
    snprintf(family, sizeof family, "r%" PRIu64, round);
    server_freeze(&redis);
    server_wait_redis(handle, false, 30000);
    for (uint64_t at = 0; at < keys; at++)
        test_check(set_key(at, family) == LARDER_OK, "set: %s", larder_last_error());
    server_thaw(&redis);
    server_wait_redis(handle, true, 30000);
    double larderd_us = processor_us(larderd.pid), redis_us = processor_us(redis.pid);
    uint64_t before = stats().dirty, began = test_now_us();
    test_check(before > keys / 2, "%" PRIu64 " are left to be pushed", before);
    server_wait_clean(handle, 120000);
    double seconds = (double)(test_now_us() - began) / 1e6;
    larderd_cost[round] = (struct cost){(processor_us(larderd.pid) - larderd_us) / (double)before,
                                        (processor_us(redis.pid) - redis_us) / (double)before};
    return (double)before / seconds;
}

/* ---- The bare client ----------------------------------------------------------------------- */

static redisContext *bare;
static char sha[64];

static void begin_bare(void)
{
    bare = redisConnectUnix(redis.socket);
    test_check(bare != NULL && bare->err == 0, "connect");
    redisReply *reply = redisCommand(bare, "SCRIPT LOAD %s", script_text(SCRIPT_PUSH));
    test_check(reply != NULL && reply->type == REDIS_REPLY_STRING, "SCRIPT LOAD");
    snprintf(sha, sizeof sha, "%s", reply->str);
    freeReplyObject(reply);
    reply = redisCommand(bare, "XADD larder:{bare:}:events 1-1 e B1");
    test_check(reply != NULL && reply->type == REDIS_REPLY_STRING, "XADD");
    freeReplyObject(reply);
}

/* What larderd would send for it. */
static void append(uint64_t round, uint64_t number)
{
    static names_pair names;
    char key[48], record[WIRE_RECORD_MAX], event[WIRE_EVENT_HEAD_MAX + 48 + VALUE], at[16];
    uint8_t value[VALUE];
    size_t key_size = (size_t)snprintf(key, sizeof key, "r%" PRIu64 ":%" PRIu64, round, number);
    test_value_fill(value, sizeof value, number);
    replica_record from = {.version = {.clock = test_now_ns(), .node = 1},
                           .kind = REPLICA_VALUE,
                           .value_hash = replica_value_hash(value, sizeof value),
                           .expires_at_ms = INT64_MAX,
                           .value_size = sizeof value};
    test_check(names_of(&names, "bare:", (const uint8_t *)key, key_size) == 0, "names");
    size_t record_size = wire_record(&from, record);
    size_t used = wire_event_head(record, record_size, key_size, true, 1, number, event);
    memcpy(event + used, key, key_size);
    memcpy(event + used + key_size, value, sizeof value);
    size_t at_size = (size_t)snprintf(at, sizeof at, "%zu", used + key_size + 1);
    const char *words[] = {"EVALSHA",
                           sha,
                           "3",
                           (const char *)names.key,
                           (const char *)names.record,
                           "larder:{bare:}:events",
                           record,
                           event,
                           at,
                           "s",
                           "",
                           "",
                           "1-*",
                           "200000",
                           "larder:{bare:}:channel",
                           "",
                           "2048",
                           "",
                           "60000"};
    static_assert(sizeof words / sizeof *words == 6 + PUSH_ARGUMENTS, "as the script wants it");
    size_t sizes[sizeof words / sizeof *words];
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        sizes[i] = strlen(words[i]);
    sizes[3] = names.key_size;
    sizes[4] = names.record_size;
    sizes[7] = used + key_size + sizeof value;
    sizes[8] = at_size;
    test_check(redisAppendCommandArgv(bare, sizeof words / sizeof *words, words, sizes) == REDIS_OK,
               "append");
}

static void take_reply(void)
{
    redisReply *reply = NULL;
    test_check(redisGetReply(bare, (void **)&reply) == REDIS_OK && reply != NULL, "no reply");
    test_check(reply->type == REDIS_REPLY_INTEGER && reply->integer == PUSH_REPLY_STORED,
               "a push was not stored: %s", reply->str == NULL ? "" : reply->str);
    freeReplyObject(reply);
}

static void flush(void)
{
    int done = 0;
    while (done == 0)
        test_check(redisBufferWrite(bare, &done) == REDIS_OK, "write: %s", bare->errstr);
}

/* BATCHES of BATCH commands under way: when one is answered, the next is sent. */
static double push_bare(uint64_t round, uint64_t keys)
{
    uint64_t sent = 0, answered = 0, began = test_now_us();
    double own_us = processor_us(getpid()), redis_us = processor_us(redis.pid);
    while (answered < keys) {
        while (sent < keys && sent + BATCH <= answered + (uint64_t)BATCH * BATCHES) {
            for (uint64_t i = 0; i < BATCH && sent < keys; i++)
                append(round, sent++);
            flush();
        }
        for (uint64_t i = 0; i < BATCH && answered < sent; i++, answered++)
            take_reply();
    }
    double seconds = (double)(test_now_us() - began) / 1e6;
    bare_cost[round] = (struct cost){(processor_us(getpid()) - own_us) / (double)keys,
                                     (processor_us(redis.pid) - redis_us) / (double)keys};
    return (double)keys / seconds;
}

static double median_cost(const struct cost *costs, uint64_t rounds, bool of_redis)
{
    double values[ROUNDS_MAX];
    for (uint64_t round = 0; round < rounds; round++)
        values[round] = of_redis ? costs[round].redis : costs[round].client;
    return measure_median(values, rounds);
}

static void compare_rates(uint64_t rounds, uint64_t keys)
{
    static double ours[ROUNDS_MAX], theirs[ROUNDS_MAX], shares[ROUNDS_MAX];
    begin_bare();
    (void)push_bare(rounds, keys);
    for (uint64_t round = 0; round < rounds; round++) {
        ours[round] = drain(round, keys);
        theirs[round] = push_bare(round, keys);
        shares[round] = ours[round] / theirs[round];
    }
    redisFree(bare);
    test_figure("drain_keys", (double)keys, "count");
    test_figure("drain_rounds", (double)rounds, "count");
    test_figure("drain_larderd_processor", median_cost(larderd_cost, rounds, false), "us");
    test_figure("drain_larderd_processor_of_redis", median_cost(larderd_cost, rounds, true), "us");
    test_figure("drain_bare_client_processor", median_cost(bare_cost, rounds, false), "us");
    test_figure("drain_bare_client_processor_of_redis", median_cost(bare_cost, rounds, true), "us");
    test_figure("drain_larderd", measure_median(ours, rounds), "1/s");
    test_figure("drain_bare_client", measure_median(theirs, rounds), "1/s");
    test_figure("drain_share_of_bare_client", measure_median(shares, rounds), "ratio");
}

/* ---- A map that is full of what waits ---------------------------------------------------------
 */

static double resident_mb(const char *field)
{
    char path[64], line[256];
    long kb = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)larderd.pid);
    FILE *file = fopen(path, "re");
    test_check(file != NULL, "%s", path);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, field, strlen(field)) == 0)
            kb = strtol(line + strlen(field), NULL, 10);
    }
    fclose(file);
    return (double)kb / 1024;
}

static double map_mb(void)
{
    char path[400];
    struct stat status;
    snprintf(path, sizeof path, "%s/full/g1/data.mdb", test_directory());
    test_check(stat(path, &status) == 0, "%s", path);
    return (double)status.st_blocks * 512 / (1 << 20);
}

/* Of all that the map has, in Redis; *there: how many that is. */
static uint64_t missing_in_redis(uint64_t sets, uint64_t *there)
{
    struct client client;
    uint64_t missing = 0;
    test_check(client_connect(&client, &redis), "connect");
    for (uint64_t at = 0; at < sets; at++) {
        char key[48], name[64];
        uint8_t value[VALUE];
        size_t size = (size_t)snprintf(key, sizeof key, "f:%" PRIu64, at);
        if (larder_get(handle, key, size, value, sizeof value, NULL) != LARDER_OK)
            continue;
        ++*there;
        snprintf(name, sizeof name, "full:%s", key);
        struct reply reply = client_words(&client, 2, (const char *const[]){"GET", name});
        missing +=
            reply.type != '$' || reply.size != VALUE || memcmp(reply.text, value, VALUE) != 0;
    }
    client_close(&client);
    return missing;
}

static void full_map(uint64_t sets)
{
    uint64_t refused = 0, most = 0, there = 0;
    handle = attach("full");
    server_wait_redis(handle, true, 20000);
    test_figure("full_larderd_memory_before", resident_mb("RssAnon:"), "MiB");
    server_freeze(&redis);
    server_wait_redis(handle, false, 30000);
    for (uint64_t at = 0; at < sets; at++) {
        int code = set_key(at, "f");
        test_check(code == LARDER_OK || code == LARDER_EFULL || code == LARDER_EBUSY, "set: %s",
                   larder_last_error());
        refused += code != LARDER_OK;
        if (at % 1000 == 0) {
            uint64_t dirty = stats().dirty;
            most = dirty > most ? dirty : most;
        }
    }
    test_figure("full_sets", (double)sets, "count");
    test_figure("full_sets_refused", (double)refused, "count");
    test_figure("full_outbox_at_most", (double)most, "count");
    test_figure("full_map", map_mb(), "MiB");
    test_figure("full_larderd_memory_in_outage", resident_mb("RssAnon:"), "MiB");
    server_thaw(&redis);
    uint64_t began = test_now_us();
    server_wait_redis(handle, true, 60000);
    server_wait_clean(handle, 240000);
    test_figure("full_drained_after", (double)(test_now_us() - began) / 1e6, "s");
    test_figure("full_larderd_memory_after", resident_mb("RssAnon:"), "MiB");
    uint64_t missing = missing_in_redis(sets, &there);
    test_figure("full_keys_in_map", (double)there, "count");
    test_figure("full_keys_missing_in_redis", (double)missing, "count");
    test_check(missing == 0 && there > 0, "%" PRIu64 " keys are not in Redis", missing);
    test_check(resident_mb("RssAnon:") < 128, "larderd has grown");
}

int main(int argc, char **argv)
{
    measure_begin("bench_drain", 900);
    servers_needed();
    uint64_t rounds = measure_option(argc, argv, "--rounds", 5);
    uint64_t keys = measure_option(argc, argv, "--keys", 50000);
    uint64_t full = measure_option(argc, argv, "--full", 600000);
    test_check(rounds > 0 && rounds < ROUNDS_MAX && keys >= BATCH, "options");
    server_redis_start(&redis, "redis", NULL);
    server_larderd_start(&larderd, "larderd", "drain", test_directory(), redis.url,
                         "map = { size = \"512M\"; };\n"
                         "redis = { reply_timeout = \"500ms\"; backoff_min = \"20ms\"; };\n");
    handle = attach("drain");
    server_wait_redis(handle, true, 20000);
    compare_rates(rounds, keys);
    server_end(&larderd, SIGTERM);
    larder_close(&handle);
    server_larderd_start(&larderd, "larderd-full", "full", test_directory(), redis.url,
                         "map = { size = \"64M\"; };\n"
                         "redis = { reply_timeout = \"1s\"; backoff_min = \"20ms\"; };\n");
    full_map(full);
    server_end(&larderd, SIGTERM);
    server_end(&redis, SIGTERM);
    larder_close(&handle);
    test_end();
}
