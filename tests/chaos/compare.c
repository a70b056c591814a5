/* compare.c: see compare.h. Values are read as workers read them, through the public calls;
 * versions of deletions come from the replicator's port, records from Redis.
 */
#include "tests/chaos/compare.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/names.h"
#include "daemon/redis/wire.h"
#include "lib/replica.h"
#include "tests/chaos/explain.h"
#include "tests/chaos/heard.h"
#include "tests/chaos/nodes.h"

enum { PIPELINE = 1000, REDIS = HOSTS, DETAILS_MAX = 200, ASKED_MAX = 2000, ASK_MS = 5000 };

struct sight {              /* of a key on a host or in Redis */
    larder_version version; /* clock 0: not known there */
    bool present, deleted;
    uint64_t hash, tag, record_hash;
    int64_t acked_ms; /* by a host's log */
};

static struct sight sights[HOSTS + 1][KEYS];
static enum redis_form form;
static uint32_t hidden[KEYS];
static size_t hidden_count, told_keys;

static void tell(struct differences *out, uint64_t *figure, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void tell(struct differences *out, uint64_t *figure, const char *format, ...)
{
    va_list arguments;
    (*figure)++;
    out->total++;
    if (out->told == NULL)
        return;
    va_start(arguments, format);
    vfprintf(out->told, format, arguments);
    va_end(arguments);
}

static int order(const larder_version *a, const larder_version *b)
{
    if (a->clock != b->clock)
        return a->clock < b->clock ? -1 : 1;
    return a->node == b->node ? 0 : a->node < b->node ? -1 : 1;
}

/* ---- A host -------------------------------------------------------------------------------- */

static int key_number(const uint8_t *key, size_t size)
{
    const char *colon = memmem(key, size, "k:", 2);
    char text[16] = "";
    if (colon == NULL || size - (size_t)(colon + 2 - (const char *)key) >= sizeof text)
        return -1;
    memcpy(text, colon + 2, size - (size_t)(colon + 2 - (const char *)key));
    long number = strtol(text, NULL, 10);
    return number >= 0 && number < KEYS ? (int)number : -1;
}

static void see_log(struct host *host, struct sight *seen)
{
    replica_batch batch = {0};
    uint64_t row = 0;
    do {
        int code = replica_outbox(host->map, &batch, row, 1024, 1 << 20, true);
        test_check(code == LARDER_OK, "outbox: %d %s", code, larder_last_error());
        for (size_t i = 0; i < batch.count; i++) {
            const replica_record *record = &batch.records[i];
            int key = key_number(record->key, record->key_size);
            if (key < 0)
                continue;
            seen[key].version = record->version;
            seen[key].deleted = record->kind == REPLICA_DELETED;
            seen[key].acked_ms = record->acked_ms;
        }
        row = batch.next_row;
    } while (!batch.end);
    replica_batch_free(&batch);
}

static void see_host(struct host *host, struct sight *seen, struct differences *out)
{
    static uint8_t value[VALUE_MAX];
    see_log(host, seen);
    for (uint32_t key = 0; key < KEYS; key++) {
        char name[32];
        larder_info info;
        size_t size = key_name(key, name);
        int code = larder_get(host->map, name, size, value, sizeof value, &info);
        test_check(code == LARDER_OK || code == LARDER_MISS, "get: %d %s", code,
                   larder_last_error());
        struct sight *sight = &seen[key];
        if (code == LARDER_MISS)
            continue;
        sight->present = true;
        sight->deleted = false;
        sight->version = info.version;
        sight->hash = replica_value_hash(value, info.size);
        test_check(test_value_tag(value, info.size, &sight->tag), "%s: torn", name);
        out->present[host->number]++;
    }
    larder_stats stats = host_stats(host);
    if (stats.dirty != 0 || stats.pending != 0 || stats.redis_up == 0)
        tell(out, &out->dirty, "host %u: %" PRIu64 " dirty, %" PRIu64 " pending, Redis %s\n",
             host->number, stats.dirty, stats.pending, stats.redis_up ? "up" : "down");
}

/* ---- Redis --------------------------------------------------------------------------------- */

static void ask(struct client *client, uint32_t key)
{
    static names_pair names;
    char name[32];
    size_t size = key_name(key, name);
    test_check(names_of(&names, PREFIX, (const uint8_t *)name, size) == 0, "names of %s", name);
    const char *words[] = {"MGET", (const char *)names.key, (const char *)names.record};
    size_t sizes[] = {4, names.key_size, names.record_size};
    client_append(client, 3, words, sizes);
}

static void take(struct client *client, struct sight *sight, struct differences *out)
{
    struct reply reply = client_reply(client);
    if (reply.type == '-') { /* its slot has just been given away, say: look again */
        tell(out, &out->dirty, "MGET: %.*s\n", (int)reply.size, reply.text);
        return;
    }
    test_check(reply.type == '*' && reply.number == 2, "MGET: %c", reply.type);
    reply = client_reply(client);
    if (reply.type == '$') {
        sight->present = true;
        sight->hash = replica_value_hash(reply.text, reply.size);
        (void)test_value_tag(reply.text, reply.size, &sight->tag);
        out->present[REDIS]++;
    }
    reply = client_reply(client);
    sync_change change;
    memset(&change, 0, sizeof change);
    if (reply.type == '$' && wire_record_read(reply.text, reply.size, &change)) {
        sight->version = change.record.version;
        sight->deleted = change.record.kind == REPLICA_DELETED;
        sight->record_hash = change.record.value_hash;
    }
}

/* The server that a key is at: many at a time, since each answers in its own order. */
static void see_server(const struct redis_side *side, const struct redis *redis, struct sight *seen,
                       struct differences *out)
{
    static uint32_t asked[PIPELINE];
    struct client client;
    size_t count = 0;
    test_check(client_connect(&client, &redis->server), "connect");
    for (uint32_t key = 0; key <= KEYS; key++) {
        char name[32], full[64];
        if (key < KEYS) {
            key_name(key, name);
            int size = snprintf(full, sizeof full, PREFIX "%s", name);
            if (redis_of(side, full, (size_t)size) != redis)
                continue;
            ask(&client, key);
            asked[count++] = key;
        }
        if (count < PIPELINE && key < KEYS)
            continue;
        for (size_t i = 0; i < count; i++)
            take(&client, &seen[asked[i]], out);
        count = 0;
    }
    client_close(&client);
}

static void see_redis(struct redis_side *side, struct sight *seen, struct differences *out)
{
    if (!redis_whole(side)) {
        tell(out, &out->dirty, "Redis is not whole: %s\n", side->missing);
        return;
    }
    for (unsigned i = 0; i < side->count; i++)
        if (memchr(side->owner, (int)i, sizeof side->owner) != NULL)
            see_server(side, &side->servers[i], seen, out);
}

/* ---- All of them --------------------------------------------------------------------------- */

static const char *place_name(unsigned place)
{
    static const char *const names[] = {"host 0", "host 1", "host 2", "Redis"};
    return names[place];
}

/* Its host may have evicted what Redis had taken long before it lost it, or have forgotten that it
 * had deleted it: then an older value that somebody who was away still had, or Redis itself, is the
 * newest that is left. */
static bool forgotten(const struct deed *deed, const struct board *board)
{
    uint64_t done_ms = atomic_load(&deed->done_ms), lost_ms = atomic_load(&board->lost_ms);
    return tag_deletes(atomic_load(&deed->done))
               ? atomic_load(&board->crowded) != 0 && done_ms < lost_ms
               : done_ms + REMEMBERED_MS < lost_ms;
}

static void tell_sights(FILE *out, uint32_t key)
{
    for (unsigned place = 0; place <= REDIS; place++) {
        const struct sight *sight = &sights[place][key];
        fprintf(out, "    %s: %" PRIx64 "/%08" PRIx32 "%s%s, %016" PRIx64 ", acked %" PRId64 "\n",
                place_name(place), sight->version.clock, sight->version.node,
                sight->present ? ", present" : "", sight->deleted ? ", deleted" : "", sight->tag,
                sight->acked_ms);
    }
}

static void tell_key(uint32_t key, struct differences *out)
{
    if (out->told != NULL && ++told_keys <= DETAILS_MAX)
        tell_sights(out->told, key);
}

static void judge_deed(uint32_t key, int place, const struct sight *sight,
                       const struct board *board, struct differences *out)
{
    const struct deed *deed = &board->deeds[key - (KEYS - OWNED)];
    uint64_t done = atomic_load(&deed->done), begun = atomic_load(&deed->begun);
    bool own = place == key_owner(key) / WORKERS;
    if (sight->tag == done || (sight->tag == begun && !tag_is_refused(done)) ||
        (!own && tag_is_refused(done)) || forgotten(deed, board))
        return;
    tell(out, &out->deeds,
         "k:%" PRIu32 ": %s has %016" PRIx64 "; its writer did %016" PRIx64
         " last (begun: %016" PRIx64 "), %.1f s before Redis lost data last\n",
         key, place_name((unsigned)place), sight->tag, done, begun,
         ((double)atomic_load(&board->lost_ms) - (double)atomic_load(&deed->done_ms)) / 1e3);
}

/* Invalidations that one host has made hold on all of them. */
static uint64_t dead_clock(uint32_t key, const struct board *board)
{
    uint64_t clock = 0;
    for (unsigned host = 0; host < HOSTS; host++) {
        uint64_t there = many_dead(&board->dead[host], key);
        clock = there > clock ? there : clock;
    }
    return clock;
}

/* Redis has it, no host knows of it, and the record is gone that it was stored with. Both are
 * written and removed at once: only where keys of a slot are moved can one be lost without the
 * other. */
static bool is_bare(uint32_t key, const struct sight *newest)
{
    const struct sight *sight = &sights[REDIS][key];
    return form == REDIS_CLUSTER && sight->version.clock == 0 && newest->version.clock == 0 &&
           !newest->deleted;
}

static bool slot_was_moved(uint32_t key)
{
    char name[32], full[64];
    key_name(key, name);
    int size = snprintf(full, sizeof full, PREFIX "%s", name);
    return form == REDIS_CLUSTER &&
           nodes_began_to_move(names_slot((const uint8_t *)full, (size_t)size));
}

static bool redis_knows_deletion(uint32_t key, const struct sight *newest)
{
    const struct sight *sight = &sights[REDIS][key];
    return sight->deleted && newest->deleted && order(&sight->version, &newest->version) == 0;
}

/* A deletion's record and a value: see compare.h. */
static bool is_beside(uint32_t key, const struct sight *newest)
{
    return redis_knows_deletion(key, newest) && slot_was_moved(key);
}

/* Redis has it, no host knows of it, and an invalidation of many, or of a bucket, has hit it. */
static bool is_hidden(uint32_t key, const struct sight *newest, const struct board *board)
{
    const struct sight *sight = &sights[REDIS][key];
    bool wide = sight->version.clock <= dead_clock(key, board);
    if (newest->deleted || order(&sight->version, &newest->version) != 0 ||
        sight->version.clock == 0 || sight->hash != sight->record_hash)
        return false;
    for (unsigned host = 0; host < HOSTS; host++)
        if (sights[host][key].present)
            return false;
    if (key_owner(key) >= 0 && !wide) {
        const struct deed *deed = &board->deeds[key - (KEYS - OWNED)];
        wide = tag_is_wide(atomic_load(&deed->done)) && sight->tag != atomic_load(&deed->begun);
    }
    return wide;
}

static const struct sight *newest_of(uint32_t key)
{
    const struct sight *newest = &sights[0][key];
    for (unsigned place = 1; place <= REDIS; place++) {
        const struct sight *sight = &sights[place][key];
        int ordered = order(&sight->version, &newest->version);
        if (ordered > 0 || (ordered == 0 && sight->deleted && !newest->deleted))
            newest = sight;
    }
    return newest;
}

static void judge_place(uint32_t key, unsigned place, const struct sight *newest,
                        const struct board *board, struct differences *out)
{
    const struct sight *sight = &sights[place][key];
    uint64_t dead = dead_clock(key, board);
    if (newest->deleted || order(&sight->version, &newest->version) != 0)
        tell(out, place == REDIS ? &out->in_redis : &out->versions,
             "k:%" PRIu32 ": %s has %" PRIx64 "/%08" PRIx32 " (%016" PRIx64
             "), the newest is %" PRIx64 "/%08" PRIx32 "%s of %s\n",
             key, place_name(place), sight->version.clock, sight->version.node, sight->tag,
             newest->version.clock, newest->version.node, newest->deleted ? ", deleted," : "",
             place_name((unsigned)((newest - &sights[0][key]) / KEYS)));
    else if (place == REDIS && sight->hash != sight->record_hash)
        tell(out, &out->in_redis, "k:%" PRIu32 ": Redis's value is not its record's\n", key);
    else if (newest->present && sight->hash != newest->hash)
        tell(out, &out->values, "k:%" PRIu32 ": %s has another value than %s\n", key,
             place_name(place), place_name((unsigned)((newest - &sights[0][key]) / KEYS)));
    if (place != REDIS && sight->version.clock <= dead)
        tell(out, &out->marks,
             "k:%" PRIu32 ": %s has %" PRIx64 ", which was invalidated up to %" PRIx64
             " at least\n",
             key, place_name(place), sight->version.clock, dead);
    if (key_owner(key) >= 0)
        judge_deed(key, (int)place, sight, board, out);
}

static void judge_bare(uint32_t key, const struct board *board, struct differences *out)
{
    out->bare++;
    if (key_owner(key) >= 0 && !tag_is_wide(atomic_load(&board->deeds[key - (KEYS - OWNED)].done)))
        judge_deed(key, REDIS, &sights[REDIS][key], board, out);
}

static void judge(uint32_t key, const struct board *board, struct differences *out)
{
    const struct sight *newest = newest_of(key);
    uint64_t before = out->total;
    out->deleted += newest->deleted && newest->version.clock != 0;
    for (unsigned place = 0; place <= REDIS; place++) {
        if (!sights[place][key].present)
            continue;
        if (place == REDIS && is_bare(key, newest))
            judge_bare(key, board, out);
        else if (place == REDIS && is_beside(key, newest))
            out->beside++;
        else if (place == REDIS && is_hidden(key, newest, board))
            hidden[hidden_count++] = key;
        else
            judge_place(key, place, newest, board, out);
    }
    if (out->total != before)
        tell_key(key, out);
}

static void see_heard(struct host *hosts, const struct redis_side *side, const struct board *board,
                      struct differences *out)
{
    static struct heard heard;
    for (unsigned place = 0; place <= REDIS; place++) {
        bool read =
            place == REDIS ? heard_by_redis(side, &heard) : heard_by_host(&hosts[place], &heard);
        uint64_t lacks = heard_lacks(&heard, board, place_name(place), out->told);
        out->unheard += lacks;
        out->total += lacks;
        if (!read)
            tell(out, &out->dirty, "%s: its invalidations cannot be read\n", place_name(place));
    }
}

void compare(struct host *hosts, struct redis_side *side, const struct board *board, FILE *told,
             struct differences *out)
{
    memset(out, 0, sizeof *out);
    out->told = told;
    memset(sights, 0, sizeof sights);
    hidden_count = told_keys = 0;
    form = side->form;
    /* Hosts first: what invalidations have hit becomes a removal bit by bit, up to half a minute
     * later, and goes to Redis then. Seen the other way round, Redis would be behind. */
    for (unsigned host = 0; host < HOSTS; host++)
        see_host(&hosts[host], sights[host], out);
    see_redis(side, sights[REDIS], out);
    see_heard(hosts, side, board, out);
    for (uint32_t key = 0; key < KEYS; key++)
        judge(key, board, out);
    out->hidden = hidden_count;
}

bool compare_knows(uint32_t key)
{
    bool known = false;
    for (unsigned place = 0; place <= REDIS; place++)
        known = known || sights[place][key].present || sights[place][key].version.clock != 0;
    return known;
}

bool compare_knows_deleted(uint32_t key)
{
    return redis_knows_deletion(key, newest_of(key)) && !slot_was_moved(key);
}

/* What the test knows of it, in a file that is kept, and to whoever reads the test's output. */
static void explain(uint32_t key, struct host *hosts, const struct redis_side *side,
                    const struct board *board)
{
    char path[300], line[300];
    snprintf(path, sizeof path, "%s/hidden.log", test_directory());
    FILE *file = fopen(path, "we+");
    test_check(file != NULL, "%s: %s", path, strerror(errno));
    fprintf(file, "When all agreed:\n");
    tell_sights(file, key);
    explain_hidden(file, key, hosts, side, board);
    rewind(file);
    while (fgets(line, sizeof line, file) != NULL)
        fprintf(stderr, "%s", line);
    fclose(file);
}

void hidden_stay_hidden(struct host *hosts, const struct redis_side *side,
                        const struct board *board, uint64_t *answered)
{
    *answered = 0;
    for (size_t i = 0; i < hidden_count && i < ASKED_MAX; i++) {
        for (unsigned host = 0; host < HOSTS; host++) {
            static uint8_t value[VALUE_MAX];
            char name[32];
            size_t size = key_name(hidden[i], name);
            larder_asked asked;
            larder_info info;
            int code = larder_ask(hosts[host].map, name, size, ASK_MS, &asked);
            if (code == LARDER_WAIT)
                code = larder_ask_wait(hosts[host].map, &asked, ASK_MS);
            *answered += code == LARDER_MISS || code == LARDER_OK;
            code = larder_get(hosts[host].map, name, size, value, sizeof value, &info);
            if (code == LARDER_MISS)
                continue;
            explain(hidden[i], hosts, side, board);
            test_fail("%s was invalidated, and host %u has %" PRIx64 "/%08" PRIx32
                      " from Redis: %d",
                      name, host, info.version.clock, info.version.node, code);
        }
    }
}
