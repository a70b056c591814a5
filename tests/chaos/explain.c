/* explain.c: see explain.h. Called when the test has failed already: it only looks.
 */
#include "tests/chaos/explain.h"

#include <inttypes.h>
#include <string.h>

#include "daemon/redis/names.h"
#include "lib/replica.h"
#include "tests/chaos/faults.h"
#include "tests/chaos/heard.h"

enum { AROUND_MS = 10000, LATE_MS = 30000, LOOK_US = 100000 };

/* ---- Redis ------------------------------------------------------------------------------------
 */

static void tell_reply(FILE *out, const char *what, const struct reply *reply)
{
    fprintf(out, "    %s: ", what);
    if (reply->type == '$' || reply->type == '+' || reply->type == '-')
        for (size_t i = 0; i < reply->size && i < 200; i++)
            fputc(reply->text[i] >= ' ' && reply->text[i] < 127 ? reply->text[i] : '.', out);
    else if (reply->type == ':')
        fprintf(out, "%" PRId64, reply->number);
    else
        fprintf(out, "none");
    fprintf(out, "\n");
}

static void tell_redis(FILE *out, const struct redis_side *side, const char *name, size_t size)
{
    static names_pair names;
    char key[64], record[64];
    struct client client;
    if (names_of(&names, PREFIX, (const uint8_t *)name, size) != 0)
        return;
    snprintf(key, sizeof key, "%.*s", (int)names.key_size, (const char *)names.key);
    snprintf(record, sizeof record, "%.*s", (int)names.record_size, (const char *)names.record);
    const struct redis *redis = redis_of(side, key, names.key_size);
    fprintf(out, "  slot %u, at %s:\n", names_slot(names.key, names.key_size), redis->place.name);
    if (!client_connect(&client, &redis->server))
        return;
    const char *const asked[][4] = {{"record", "GET", record},
                                    {"bytes of the value", "STRLEN", key},
                                    {"ms left of the record", "PTTL", record},
                                    {"ms left of the value", "PTTL", key}};
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        struct reply reply = client_words(&client, 2, &asked[i][1]);
        tell_reply(out, asked[i][0], &reply);
    }
    client_close(&client);
}

/* ---- A host ------------------------------------------------------------------------------------
 */

static int read_key(struct host *host, const char *name, size_t size, larder_info *info)
{
    static uint8_t value[VALUE_MAX];
    memset(info, 0, sizeof *info);
    return larder_get(host->map, name, size, value, sizeof value, info);
}

static void tell_hosts(FILE *out, struct host *hosts, const char *name, size_t size)
{
    for (unsigned host = 0; host < HOSTS; host++) {
        larder_info info;
        larder_stats stats = host_stats(&hosts[host]);
        int code = read_key(&hosts[host], name, size, &info);
        fprintf(out,
                "  host %u: %s, of %" PRIx64 "/%08" PRIx32 "%s%s, over at %" PRId64 " ms; %" PRIu64
                " dirty, %" PRIu64 " pending, Redis %s\n",
                host, code == LARDER_OK ? "answered" : "a miss", info.version.clock,
                info.version.node,
                info.version.node == REPLICA_FOREIGN_NODE ? ", another program's value" : "",
                (info.flags & LARDER_INFO_MARKED) != 0 ? ", marked" : "", info.expires_ms,
                stats.dirty, stats.pending, stats.redis_up != 0 ? "up" : "down");
    }
}

/* An invalidation that came late, and one that never comes, are two kinds of mistakes. */
static void tell_whether_it_goes(FILE *out, struct host *hosts, const char *name, size_t size)
{
    uint64_t began = test_now_us(), passed = 0;
    unsigned answered = HOSTS;
    while (answered != 0 && passed < LATE_MS) {
        answered = 0;
        for (unsigned host = 0; host < HOSTS; host++) {
            larder_info info;
            answered += read_key(&hosts[host], name, size, &info) == LARDER_OK;
        }
        test_pause_us(LOOK_US);
        passed = (test_now_us() - began) / 1000;
    }
    fprintf(out, "  after %" PRIu64 " ms %u hosts answer it\n", passed, answered);
}

/* ---- All of it ---------------------------------------------------------------------------------
 */

static void tell_marks(FILE *out, uint32_t key, struct host *hosts, const struct redis_side *side)
{
    static struct heard heard[HOSTS + 1];
    char name[MANY_NAME];
    for (unsigned host = 0; host < HOSTS; host++)
        (void)heard_by_host(&hosts[host], &heard[host]);
    (void)heard_by_redis(side, &heard[HOSTS]);
    fprintf(out, "  %-20s %16s %16s %16s %16s\n", "invalidated up to", "host 0", "host 1", "host 2",
            "Redis");
    for (unsigned i = 0; many_mark_name(key, i, name); i++) {
        if (name[0] == 0)
            continue;
        fprintf(out, "  %-20s", name);
        for (unsigned place = 0; place <= HOSTS; place++)
            fprintf(out, " %16" PRIx64, heard_clock(&heard[place], name));
        fprintf(out, "\n");
    }
}

static void tell_notes(FILE *out, uint32_t key, const struct board *board)
{
    for (unsigned i = 0; i < NOTES; i++) {
        const struct many_note *note = &board->notes[i];
        uint64_t done = atomic_load(&note->done_ms);
        if (note->begun_ms == 0 || !many_concerns(note, key))
            continue;
        fprintf(out, "  %s %" PRIu32 " by worker %u of host %u at %.2f s, ",
                many_kind_name(note->kind), note->number, note->worker, note->worker / WORKERS,
                faults_time(note->begun_ms));
        if (done != 0)
            fprintf(out, "for %" PRIu64 " ms, ", done - note->begun_ms);
        else
            fprintf(out, "not to its end, ");
        fprintf(out, "%" PRIx64 " and older; around it:\n", note->seen);
        faults_tell(out, note->begun_ms - AROUND_MS, note->begun_ms + AROUND_MS);
    }
}

void explain_hidden(FILE *out, uint32_t key, struct host *hosts, const struct redis_side *side,
                    const struct board *board)
{
    char name[32];
    size_t size = key_name(key, name);
    fprintf(out, "%s, at %.2f s:\n", name, faults_time(test_now_us() / 1000));
    tell_hosts(out, hosts, name, size);
    tell_redis(out, side, name, size);
    tell_marks(out, key, hosts, side);
    if (key_owner(key) >= 0) {
        const struct deed *deed = &board->deeds[key - (KEYS - OWNED)];
        fprintf(out,
                "  its writer, %d, did %016" PRIx64 " last, at %.2f s (begun: %016" PRIx64 ")\n",
                key_owner(key), atomic_load(&deed->done), faults_time(atomic_load(&deed->done_ms)),
                atomic_load(&deed->begun));
    }
    tell_notes(out, key, board);
    tell_whether_it_goes(out, hosts, name, size);
    fflush(out);
}
