/* faults.c: see faults.h. */
#include "tests/chaos/faults.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "daemon/redis/names.h"
#include "tests/chaos/nodes.h"

enum {
    PAUSE_MS = 1000,    /* between two new ones, on average */
    MOVE_PAUSE_MS = 10, /* between a few keys of a slot that is moved and the next */
    HISTORY = 2048
};

enum kind {
    CUT_HOST,
    CUT_REDIS,
    SPLIT_REDIS,
    DEAF_HOST,
    MUTE_HOST,
    KILL_REDIS,
    FREEZE_REDIS,
    KILL_LARDERD,
    FREEZE_LARDERD,
    RESTART_LARDERD,
    KILL_WORKER,
    FREEZE_WORKER,
    FLUSH_REDIS,
    KILL_CHANNELS,
    KILL_CLIENTS,
    SMALL_BUFFERS,
    SET_CLOCK,
    SET_REDIS_CLOCK,
    NO_MEMORY,
    FORGET_SCRIPTS,
    TRIM_STREAM,
    SWITCH_MASTER,
    MOVE_SLOTS,
    CLEAR_HOST,
    KINDS
};

/* Where it happens: of two in one place the second is not drawn. */
enum where {
    HOST_CABLE,
    HOST_LARDERD,
    HOST_WORKER,
    HOST_CLOCK,
    HOST_AT_ONCE,
    REDIS_CABLE,
    REDIS_PROCESS,
    REDIS_CLOCK,
    REDIS_SLOTS, /* of all servers together */
    REDIS_AT_ONCE,
    REDIS_SETTINGS,
    PLACES
};

/* The forms of Redis that can have it; the cluster's streams is the server that has the stream. */
enum {
    ALONE = 1 << REDIS_SINGLE,
    SENTINEL = 1 << REDIS_SENTINEL,
    CLUSTER = 1 << REDIS_CLUSTER,
    SEVERAL = SENTINEL | CLUSTER,
    ALL = ALONE | SEVERAL
};

static const struct {
    const char *name, *what;
    enum where where;
    unsigned weight, least_ms, most_ms; /* how long until it is repaired */
    unsigned forms;
} kinds[KINDS] = {
    [CUT_HOST] = {"cut_host", "its cable is pulled", HOST_CABLE, 6, 500, 12000, ALL},
    [CUT_REDIS] = {"cut_redis", "its cable is pulled", REDIS_CABLE, 3, 500, 9000, ALL},
    [SPLIT_REDIS] = {"split_redis", "cut off from the other servers", REDIS_CABLE, 3, 500, 9000,
                     SEVERAL},
    [DEAF_HOST] = {"deaf_host", "hears nothing of Redis", HOST_CABLE, 3, 500, 9000, ALL},
    [MUTE_HOST] = {"mute_host", "is not heard by Redis", HOST_CABLE, 3, 500, 9000, ALL},
    [KILL_REDIS] = {"kill_redis", "killed", REDIS_PROCESS, 3, 50, 5000, ALL},
    [FREEZE_REDIS] = {"freeze_redis", "stopped", REDIS_PROCESS, 3, 200, 8000, ALL},
    [KILL_LARDERD] = {"kill_larderd", "larderd killed", HOST_LARDERD, 7, 20, 5000, ALL},
    [FREEZE_LARDERD] = {"freeze_larderd", "larderd stopped", HOST_LARDERD, 5, 200, 8000, ALL},
    [RESTART_LARDERD] = {"restart_larderd", "larderd ended", HOST_LARDERD, 2, 20, 3000, ALL},
    [KILL_WORKER] = {"kill_worker", "a worker killed", HOST_WORKER, 8, 10, 1000, ALL},
    [FREEZE_WORKER] = {"freeze_worker", "a worker stopped", HOST_WORKER, 6, 100, 5000, ALL},
    [FLUSH_REDIS] = {"flush_redis", "FLUSHALL", REDIS_AT_ONCE, 2, 0, 0, ALL},
    [KILL_CHANNELS] = {"kill_channels", "subscribers' connections ended", REDIS_AT_ONCE, 4, 0, 0,
                       ALL},
    [KILL_CLIENTS] = {"kill_clients", "clients' connections ended", REDIS_AT_ONCE, 3, 0, 0, ALL},
    [SMALL_BUFFERS] = {"small_buffers", "output buffers of subscribers of 8 kB", REDIS_SETTINGS, 4,
                       500, 6000, ALL},
    [SET_CLOCK] = {"set_clock", "clock set", HOST_CLOCK, 5, 200, 15000, ALL},
    [SET_REDIS_CLOCK] = {"set_redis_clock", "clock set", REDIS_CLOCK, 4, 200, 15000, ALL},
    [NO_MEMORY] = {"no_memory", "no memory for writes", REDIS_SETTINGS, 2, 300, 5000, ALL},
    [FORGET_SCRIPTS] = {"forget_scripts", "SCRIPT FLUSH", REDIS_AT_ONCE, 2, 0, 0, ALL},
    [TRIM_STREAM] = {"trim_stream", "stream trimmed to 10 entries", REDIS_AT_ONCE, 2, 0, 0, ALL},
    [SWITCH_MASTER] = {"switch_master", "to be another's master", REDIS_AT_ONCE, 3, 0, 0, SEVERAL},
    [MOVE_SLOTS] = {"move_slots", "slots begin to move", REDIS_SLOTS, 8, 500, 12000, CLUSTER},
    [CLEAR_HOST] = {"clear_host", "everything is invalidated", HOST_AT_ONCE, 1, 0, 0, ALL},
};

struct broken { /* one per place; until 0: whole */
    enum kind kind;
    uint64_t until_ms;
    unsigned worker;
};

struct said {
    uint64_t at_ms;
    enum kind kind;
    unsigned target;
    char what[64];
};

static struct host *hosts;
static struct redis_side *side;
static struct board *board;
static struct broken host_cables[HOSTS], host_larderds[HOSTS], host_workers[HOSTS],
    host_clocks[HOSTS], redis_cables[SERVERS_MAX], redis_processes[SERVERS_MAX],
    redis_settings[SERVERS_MAX], redis_clocks[SERVERS_MAX], redis_slots;
static struct said history[HISTORY];
static size_t history_count;
static uint64_t counts[KINDS], began_ms, next_ms, moved_ms;
static test_random randomness;

static uint64_t now_ms(void)
{
    return test_now_us() / 1000;
}

static unsigned below(unsigned limit)
{
    return (unsigned)test_random_below(&randomness, limit);
}

static bool on_a_host(enum where where)
{
    return where <= HOST_AT_ONCE;
}

static void say(enum kind kind, unsigned target, const char *what)
{
    struct said *said = &history[history_count++ % HISTORY];
    *said = (struct said){.at_ms = now_ms(), .kind = kind, .target = target};
    snprintf(said->what, sizeof said->what, "%s", what);
    printf("%7.2f s  %s %u: %s\n", (double)(now_ms() - began_ms) / 1e3,
           on_a_host(kinds[kind].where) ? "host" : "Redis", target, what);
}

static struct broken *broken_at(enum where where, unsigned target)
{
    switch (where) {
    case HOST_CABLE:
        return &host_cables[target];
    case HOST_LARDERD:
        return &host_larderds[target];
    case HOST_WORKER:
        return &host_workers[target];
    case HOST_CLOCK:
        return &host_clocks[target];
    case REDIS_CABLE:
        return &redis_cables[target];
    case REDIS_PROCESS:
        return &redis_processes[target];
    case REDIS_SETTINGS:
        return &redis_settings[target];
    case REDIS_CLOCK:
        return &redis_clocks[target];
    case REDIS_SLOTS:
        return &redis_slots;
    case HOST_AT_ONCE:
    case REDIS_AT_ONCE:
    case PLACES:
        break;
    }
    return NULL;
}

static bool can_have(enum kind kind)
{
    return (kinds[kind].forms >> side->form & 1) != 0 && (kind != FORGET_SCRIPTS || side->scripts);
}

/* A failover forgets what the replica had not got, a broken move what the old owner had not. */
static bool forgets(enum kind kind)
{
    bool failover = kind == CUT_REDIS || kind == FREEZE_REDIS || kind == SPLIT_REDIS ||
                    kind == SWITCH_MASTER || kind == MOVE_SLOTS || kind == SET_REDIS_CLOCK;
    return kind == FLUSH_REDIS || kind == KILL_REDIS || (failover && side->form != REDIS_SINGLE);
}

/* ---- Repairs ------------------------------------------------------------------------------- */

static void repair(enum kind kind, unsigned target, struct broken *broken)
{
    struct host *host = &hosts[on_a_host(kinds[kind].where) ? target : 0];
    struct redis *redis = &side->servers[on_a_host(kinds[kind].where) ? 0 : target];
    switch (kind) {
    case CUT_HOST:
        network_cable(&host->place, true);
        break;
    case CUT_REDIS:
        network_cable(&redis->place, true);
        break;
    case SPLIT_REDIS:
        redis_split(side, redis, false);
        break;
    case DEAF_HOST:
        for (unsigned i = 0; i < side->count; i++)
            network_silence(&side->servers[i].place, &host->place, false);
        break;
    case MUTE_HOST:
        for (unsigned i = 0; i < side->count; i++)
            network_silence(&host->place, &side->servers[i].place, false);
        break;
    case KILL_REDIS:
        redis_restart(side, redis);
        break;
    case FREEZE_REDIS:
        redis_thaw(redis);
        break;
    case KILL_LARDERD:
    case RESTART_LARDERD:
        host_start_larderd(host);
        break;
    case FREEZE_LARDERD:
        process_thaw(host->larderd);
        host->larderd_frozen = false;
        break;
    case KILL_WORKER:
        host_start_worker(host, broken->worker);
        break;
    case FREEZE_WORKER:
        process_thaw(host->workers[broken->worker]);
        host->worker_frozen[broken->worker] = false;
        break;
    case SET_CLOCK:
        wall_clock_set(&host->clock, 0);
        break;
    case SET_REDIS_CLOCK:
        wall_clock_set(&redis->clock, 0);
        break;
    case SMALL_BUFFERS:
        redis_tell(redis, (const char *const[]){"CONFIG", "SET", "client-output-buffer-limit",
                                                "pubsub 32mb 8mb 60", NULL});
        break;
    case NO_MEMORY:
        redis_tell(redis, (const char *const[]){"CONFIG", "SET", "maxmemory", "0", NULL});
        break;
    default:
        break;
    }
    char text[64];
    snprintf(text, sizeof text, "%s is over", kinds[kind].name);
    say(kind, target, text);
    broken->until_ms = 0;
    if (forgets(kind))
        atomic_store(&board->lost_ms, now_ms());
}

/* Settings can be given back only by a server that answers, and one that was killed has forgotten
 * them. */
static bool repairable(enum kind kind, unsigned target)
{
    return kinds[kind].where != REDIS_SETTINGS || redis_answers(&side->servers[target]);
}

static void repair_due(uint64_t now)
{
    for (enum where where = HOST_CABLE; where < PLACES; where++) {
        unsigned count = on_a_host(where) ? HOSTS : side->count;
        for (unsigned target = 0; target < count; target++) {
            struct broken *broken = broken_at(where, target);
            if (broken != NULL && broken->until_ms != 0 && broken->until_ms <= now &&
                repairable(broken->kind, target))
                repair(broken->kind, target, broken);
        }
    }
}

/* ---- Trouble ------------------------------------------------------------------------------- */

static void break_host(enum kind kind, struct host *host, struct broken *broken)
{
    unsigned worker = below(WORKERS);
    broken->worker = worker;
    switch (kind) {
    case CUT_HOST:
        network_cable(&host->place, false);
        break;
    case DEAF_HOST:
        for (unsigned i = 0; i < side->count; i++)
            network_silence(&side->servers[i].place, &host->place, true);
        break;
    case MUTE_HOST:
        for (unsigned i = 0; i < side->count; i++)
            network_silence(&host->place, &side->servers[i].place, true);
        break;
    case KILL_LARDERD:
        host_end_larderd(host, SIGKILL);
        break;
    case RESTART_LARDERD:
        host_end_larderd(host, SIGTERM);
        break;
    case FREEZE_LARDERD:
        process_freeze(host->larderd);
        host->larderd_frozen = true;
        break;
    case KILL_WORKER:
        host_kill_worker(host, worker);
        break;
    case FREEZE_WORKER:
        process_freeze(host->workers[worker]);
        host->worker_frozen[worker] = true;
        break;
    case SET_CLOCK:
        wall_clock_set(&host->clock, (int64_t)below(20000) - 10000);
        break;
    case CLEAR_HOST:
        atomic_store(&board->clear_wanted[host->number], 1);
        break;
    default:
        break;
    }
}

static const char *const *words_of(enum kind kind)
{
    static const char *const flush[] = {"FLUSHALL", NULL},
                             *const channels[] = {"CLIENT", "KILL", "TYPE", "pubsub", NULL},
                             *const clients[] = {"CLIENT", "KILL", "TYPE", "normal", NULL},
                             *const buffers[] = {"CONFIG", "SET", "client-output-buffer-limit",
                                                 "pubsub 8kb 4kb 1", NULL},
                             *const memory[] = {"CONFIG", "SET", "maxmemory", "1mb", NULL},
                             *const scripts[] = {"SCRIPT", "FLUSH", NULL},
                             *const trim[] = {"XTRIM", STREAM, "MAXLEN", "10", NULL};
    switch (kind) {
    case FLUSH_REDIS:
        return flush;
    case KILL_CHANNELS:
        return channels;
    case KILL_CLIENTS:
        return clients;
    case SMALL_BUFFERS:
        return buffers;
    case NO_MEMORY:
        return memory;
    case FORGET_SCRIPTS:
        return scripts;
    default:
        return trim;
    }
}

/* false: it cannot be had here and now. */
static bool break_redis(enum kind kind, struct redis *redis)
{
    switch (kind) {
    case CUT_REDIS:
        network_cable(&redis->place, false);
        return true;
    case SPLIT_REDIS:
        redis_split(side, redis, true);
        return true;
    case KILL_REDIS:
        redis_kill(redis);
        return true;
    case FREEZE_REDIS:
        redis_freeze(redis);
        return true;
    case SET_REDIS_CLOCK:
        wall_clock_set(&redis->clock, (int64_t)below(20000) - 10000);
        return true;
    case SWITCH_MASTER:
        return redis_switch_master(side, redis, below(2) == 0);
    case MOVE_SLOTS:
        return nodes_move_begin(side, &randomness);
    default: /* a replica takes neither FLUSHALL nor XTRIM, other nodes do not have the stream */
        return redis_tell(redis, words_of(kind));
    }
}

static enum kind draw_kind(void)
{
    unsigned sum = 0, weights[KINDS];
    for (unsigned kind = 0; kind < KINDS; kind++) {
        weights[kind] = can_have(kind) ? kinds[kind].weight : 0;
        sum += weights[kind];
    }
    unsigned at = below(sum), kind = 0;
    while (at >= weights[kind])
        at -= weights[kind++];
    return (enum kind)kind;
}

/* A Redis that does not answer cannot be told anything. */
static bool possible(enum kind kind, unsigned target)
{
    bool told = kinds[kind].where == REDIS_AT_ONCE || kinds[kind].where == REDIS_SETTINGS;
    return !(told && !redis_answers(&side->servers[target])) &&
           !((kind == SET_CLOCK || kind == SET_REDIS_CLOCK) && !wall_clock_can_be_set());
}

/* What is about the stream and its channel hits the server that has them, most of the time. */
static unsigned draw_server(enum kind kind)
{
    bool streams = kind == KILL_CHANNELS || kind == SMALL_BUFFERS || kind == TRIM_STREAM;
    if (kinds[kind].where == REDIS_SLOTS)
        return 0;
    int of = -1;
    if (streams && side->form == REDIS_CLUSTER && below(4) != 0)
        of = nodes_server(side, names_slot((const uint8_t *)STREAM, strlen(STREAM)));
    return of < 0 ? below(side->count) : (unsigned)of;
}

static void break_something(uint64_t now)
{
    static struct broken nowhere;
    enum kind kind = draw_kind();
    bool host = on_a_host(kinds[kind].where);
    unsigned target = host ? below(HOSTS) : draw_server(kind);
    unsigned lasts = kinds[kind].least_ms + below(kinds[kind].most_ms - kinds[kind].least_ms + 1);
    struct broken *broken = broken_at(kinds[kind].where, target);
    if (broken == NULL)
        broken = &nowhere;
    if (broken->until_ms != 0 || !possible(kind, target))
        return;
    broken->kind = kind;
    if (host)
        break_host(kind, &hosts[target], broken);
    else if (!break_redis(kind, &side->servers[target]))
        return;
    say(kind, target, kinds[kind].what);
    counts[kind]++;
    if (forgets(kind))
        atomic_store(&board->lost_ms, now);
    if (broken != &nowhere)
        broken->until_ms = now + lasts;
}

void faults_begin(struct host *of_hosts, struct redis_side *of_side, struct board *of_board)
{
    board = of_board;
    hosts = of_hosts;
    side = of_side;
    randomness = test_random_new(77);
    began_ms = now_ms();
    next_ms = began_ms + 1000;
}

void faults_step(void)
{
    uint64_t now = now_ms();
    repair_due(now);
    if (redis_slots.until_ms != 0 && now >= moved_ms) {
        moved_ms = now + below(2 * MOVE_PAUSE_MS);
        if (!nodes_move_step(side, &randomness) && redis_slots.until_ms > now)
            redis_slots.until_ms = now; /* through, or stuck */
    }
    if (now < next_ms)
        return;
    next_ms = now + 1 + below(2 * PAUSE_MS);
    break_something(now);
}

void faults_end(void)
{
    repair_due(UINT64_MAX - 1); /* servers first, so that settings can be given back ... */
    repair_due(UINT64_MAX - 1);
}

double faults_time(uint64_t at_ms)
{
    return ((double)at_ms - (double)began_ms) / 1e3;
}

void faults_tell(FILE *out, uint64_t from_ms, uint64_t to_ms)
{
    size_t first = history_count > HISTORY ? history_count - HISTORY : 0;
    for (size_t i = first; i < history_count; i++) {
        const struct said *said = &history[i % HISTORY];
        if (said->at_ms >= from_ms && said->at_ms <= to_ms)
            fprintf(out, "%7.2f s  %s %u: %s\n", faults_time(said->at_ms),
                    on_a_host(kinds[said->kind].where) ? "host" : "Redis", said->target,
                    said->what);
    }
}

void faults_figures(void)
{
    char name[64];
    for (unsigned kind = 0; kind < KINDS; kind++) {
        snprintf(name, sizeof name, "chaos_%s", kinds[kind].name);
        test_figure(name, (double)counts[kind], "count");
    }
    test_figure("chaos_slots_moved", (double)nodes_moved(), "count");
}
