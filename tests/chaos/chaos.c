/* chaos.c: three hosts and a Redis in network namespaces, workers that write, delete, invalidate
 * and evict, and a schedule of trouble drawn from the seed: cuts in both directions or in one,
 * SIGKILL and SIGSTOP of Redis, larderds and workers, failovers, slots that move, FLUSHALL, output
 * buffers that are cut, clocks that are set. Then all is repaired, and within ten seconds all hosts
 * and Redis must agree (compare.h). At the end each way of disagreeing is made by hand, to see that
 * the comparison notices it.
 *
 *   LARDER_SEED=N            the same schedule again
 *   LARDER_CHAOS_FORM=N      0: one Redis; 1: a master, a replica and three Sentinels; 2: a cluster
 *                            (by the seed)
 *   LARDER_CHAOS_SCRIPTS=N   0: Redis refuses scripts, no cluster; 1: it runs them (by the seed)
 *   LARDER_CHAOS_SECONDS=N   of trouble (20; 120 in the long form)
 *   LARDER_CHAOS_SCHEDULES=N one after another, each with a seed of its own (1; 20)
 *   LARDER_CHAOS_RATE=N      operations a second of a worker (250; 0: as many as it can)
 *   LARDER_CHAOS_SETTLE=N    seconds until all agree (30; 10)
 *
 * What larderds, workers and Redis said is kept in chaos-SEED/ of the working directory on failure.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/chaos/chaos.h"
#include "tests/chaos/compare.h"
#include "tests/chaos/faults.h"
#include "tests/chaos/servers.h"

enum { MEND_US = 1000000, GOSSIP_S = 8 };

static struct host hosts[HOSTS];
static struct redis_side redis_side;
static struct board *board;
static struct differences differences;

/* ---- Seeing that the comparison sees ------------------------------------------------------- */

/* The clock of its version. */
static uint64_t set_named(struct host *host, const char *name, uint64_t tag)
{
    uint8_t value[100];
    larder_policy policy = {.flags = LARDER_LOCAL};
    larder_info info = {0};
    size_t size = strlen(name);
    test_value_fill(value, sizeof value, tag);
    int code = larder_set(host->map, name, size, value, sizeof value, &policy);
    test_check(code == LARDER_OK, "set: %d %s", code, larder_last_error());
    code = larder_get(host->map, name, size, value, sizeof value, &info);
    test_check(code == LARDER_OK, "get: %d %s", code, larder_last_error());
    return info.version.clock;
}

static uint64_t set_locally(struct host *host, uint32_t key)
{
    char name[32];
    key_name(key, name);
    return set_named(host, name, tag_of(key, 15, 1, false));
}

/* By a key that nobody compares. */
static uint64_t clock_of(struct host *host)
{
    return set_named(host, "clock", 1);
}

/* One of two hosts has the key, and the other one deletes it later: that is the host whose clock is
 * ahead, which may be by minutes where one was set. Of one clock, node ids would decide. */
static void delete_what_is_there(uint32_t key)
{
    char name[32];
    size_t size = key_name(key, name);
    bool ahead = clock_of(&hosts[0]) > clock_of(&hosts[2]);
    struct host *deletes = &hosts[ahead ? 0 : 2], *has = &hosts[ahead ? 2 : 0];
    uint64_t older = set_locally(has, key);
    test_until(clock_of(deletes) > older, 10000, "the clock of host %u stands", deletes->number);
    int code = larder_delete(deletes->map, name, size);
    test_check(code == LARDER_OK || code == LARDER_MISS, "delete: %d %s", code,
               larder_last_error());
}

/* A key that is present, and so in Redis, too, and stays so. */
static uint32_t present_key(char full[64])
{
    for (uint32_t key = HOT; key < KEYS - OWNED; key++) {
        static uint8_t value[VALUE_MAX];
        char name[32];
        larder_info info;
        size_t size = key_name(key, name);
        int code = larder_get(hosts[0].map, name, size, value, sizeof value, &info);
        if (code != LARDER_OK || info.expires_ms != INT64_MAX)
            continue;
        size = (size_t)snprintf(full, 64, PREFIX "%s", name);
        struct client client;
        const struct redis *redis = redis_of(&redis_side, full, size);
        test_check(client_connect(&client, &redis->server), "connect");
        struct reply reply = client_words(&client, 2, (const char *const[]){"TTL", full});
        client_close(&client);
        if (reply.type == ':' && reply.number == -1)
            return key;
    }
    test_fail("no key is on a host and in Redis");
}

/* Sentinels whose clocks were set may find another master long after all was repaired; who compares
 * then finds Redis not whole, and no more. */
static void compare_whole(FILE *out)
{
    enum { WHOLE_MS = 30000 };
    test_until(redis_whole(&redis_side), WHOLE_MS, "Redis: %s", redis_side.missing);
    compare(hosts, &redis_side, board, out, &differences);
}

static void must_differ(const char *what, uint64_t before, const uint64_t *figure)
{
    compare_whole(NULL);
    test_check(*figure > before, "the comparison does not see %s", what);
}

/* A value without a record, of a key that nobody knows: of a cluster that is no difference. */
static void see_what_is_bare(void)
{
    char name[32], full[64];
    uint8_t value[100];
    uint32_t key = HOT;
    while (key < KEYS - OWNED && compare_knows(key))
        key++;
    if (key == KEYS - OWNED)
        return; /* all have been written, and none evicted */
    (void)key_name(key, name);
    size_t full_size = (size_t)snprintf(full, sizeof full, PREFIX "%s", name);
    test_value_fill(value, sizeof value, tag_of(key, 15, 1, false));
    const struct redis *redis = redis_of(&redis_side, full, full_size);
    const char *words[] = {"SET", full, (const char *)value};
    size_t sizes[] = {3, full_size, sizeof value};
    uint64_t bare = differences.bare;
    struct client client;
    test_check(client_connect(&client, &redis->server), "connect");
    client_append(&client, 3, words, sizes);
    test_check(client_reply(&client).type == '+', "SET %s", full);
    client_close(&client);
    compare_whole(NULL);
    if (redis_side.form == REDIS_CLUSTER)
        test_check(differences.bare == bare + 1 && differences.in_redis == 0,
                   "a value whose record is lost is a difference");
    else
        test_check(differences.in_redis == 1, "the comparison does not see a value without record");
    redis_tell(redis, (const char *const[]){"DEL", full, NULL});
}

/* A value beside a deletion's record, where no move of its slot can have brought it. */
static void see_what_is_beside(void)
{
    char name[32], full[64];
    uint32_t key = HOT;
    while (key < KEYS - OWNED && !compare_knows_deleted(key))
        key++;
    if (key == KEYS - OWNED)
        return;
    (void)key_name(key, name);
    size_t size = (size_t)snprintf(full, sizeof full, PREFIX "%s", name);
    const struct redis *redis = redis_of(&redis_side, full, size);
    redis_tell(redis, (const char *const[]){"SET", full, "not deleted", NULL});
    must_differ("a value beside its deletion", 0, &differences.in_redis);
    redis_tell(redis, (const char *const[]){"DEL", full, NULL});
}

static void see_that_it_sees(void)
{
    char full[64];
    for (unsigned i = 0; i < HOSTS; i++)
        host_end_larderd(&hosts[i], SIGTERM); /* nobody mends it */
    uint32_t key = present_key(full);
    compare_whole(stderr);
    const struct redis *redis = redis_of(&redis_side, full, strlen(full));
    test_check(differences.total == differences.dirty, "it sees what is not there");
    see_what_is_bare();
    see_what_is_beside();
    redis_tell(redis, (const char *const[]){"SET", full, "something else", NULL});
    must_differ("a value of Redis's that is not its record's", 0, &differences.in_redis);
    redis_tell(redis, (const char *const[]){"DEL", full, NULL});
    atomic_store(&board->dead[0].all, UINT64_MAX); /* as if all had been cleared just now */
    must_differ("what was cleared, and is there", 0, &differences.marks);
    atomic_store(&board->dead[0].all, 0);
    struct many_note *note = &board->notes[0]; /* as if nobody had heard of one */
    uint64_t seen = note->seen, done_ms = atomic_load(&note->done_ms);
    note->seen = UINT64_MAX;
    atomic_store(&note->done_ms, 1);
    must_differ("an invalidation that nobody has heard of", 0, &differences.unheard);
    note->seen = seen;
    atomic_store(&note->done_ms, done_ms);
    struct deed *deed = &board->deeds[OWNED - 1]; /* as if it had been deleted just now */
    atomic_store(&deed->begun, tag_of(KEYS - 1, 0, 1, true));
    atomic_store(&deed->done, tag_of(KEYS - 1, 0, 1, true));
    atomic_store(&deed->done_ms, test_now_us() / 1000);
    (void)set_locally(&hosts[1], KEYS - 1);
    must_differ("an owned key that its writer did not write", 0, &differences.deeds);
    delete_what_is_there(key);
    must_differ("a deleted key that is there", 0, &differences.versions);
    test_check(differences.dirty != 0, "the comparison does not see what waits");
}

/* ---- A schedule ---------------------------------------------------------------------------- */

static void begin(uint64_t rate)
{
    static char path[300];
    static const char *const forms[] = {"one Redis", "a master, a replica, three Sentinels",
                                        "a cluster of three masters and three replicas"};
    test_random random = test_random_new(5);
    snprintf(path, sizeof path, "%s/board", test_directory());
    board = board_map(path, true);
    network_begin();
    bool keeps = test_random_below(&random, 2) == 0;
    printf("Redis keeps %s\n", keeps ? "what is a second old" : "nothing");
    uint64_t form =
        test_number("LARDER_CHAOS_FORM", test_seed() % REDIS_FORMS, test_seed() % REDIS_FORMS);
    test_check(form < REDIS_FORMS, "there is no form %" PRIu64, form);
    printf("%s\n", forms[form]);
    /* Of four fleets one does without; clusters know no such mode. */
    uint64_t drawn = test_random_below(&random, 4) != 0;
    bool scripts = test_number("LARDER_CHAOS_SCRIPTS", drawn, drawn) != 0 || form == REDIS_CLUSTER;
    printf("%s scripts\n", scripts ? "with" : "without");
    redis_side_begin(&redis_side, (enum redis_form)form, keeps, scripts);
    struct host_settings settings = {.board = path, .url = redis_side.url, .rate = rate};
    for (unsigned i = 0; i < HOSTS; i++)
        host_begin(&hosts[i], i, &settings);
    for (unsigned i = 0; i < HOSTS; i++)
        test_until(host_stats(&hosts[i]).redis_up != 0, 60000, "host %u does not connect: see %s",
                   i, hosts[i].log);
}

static void look(void)
{
    redis_side_look(&redis_side);
    for (unsigned i = 0; i < HOSTS; i++) {
        host_look(&hosts[i]);
        if (host_stats(&hosts[i]).tombstones > TOMBSTONES_KEPT)
            atomic_store(&board->crowded, 1);
    }
}

static bool filled(void)
{
    look();
    for (unsigned i = 0; i < HOSTS * WORKERS; i++)
        if (atomic_load(&board->workers[i].count) < FILL)
            return false;
    return true;
}

/* Which of them is the master is for the Sentinels, or for the nodes, to repair. */
static void wait_for_redis(void)
{
    uint64_t began = test_now_us(), mended = began;
    while (!redis_whole(&redis_side)) {
        uint64_t now = test_now_us(), passed = (now - began) / 1000000;
        test_check(passed < 120 * TEST_SLOWNESS, "Redis does not come together again: %s",
                   redis_side.missing);
        if (now - mended >= MEND_US) {
            redis_mend(&redis_side, passed >= GOSSIP_S);
            mended = test_now_us();
        }
        look();
        test_pause_us(100000);
    }
    test_figure("chaos_redis_whole_after", (double)(test_now_us() - began) / 1e6, "s");
}

static void trouble(uint64_t seconds)
{
    atomic_store(&board->go, 1);
    test_until(filled(), 180000, "the maps are not filled");
    uint64_t until = test_now_us() + seconds * 1000000;
    faults_begin(hosts, &redis_side, board);
    while (test_now_us() < until) {
        faults_step();
        look();
        test_pause_us(5000);
    }
    atomic_store(&board->stop, 1);
    faults_end();
    for (unsigned i = 0; i < HOSTS; i++)
        host_join_workers(&hosts[i]);
    wait_for_redis();
}

/* What differs is written to differences.log, and told to whoever reads the test's. */
static void tell_differences(double after_s)
{
    char path[300], line[300];
    snprintf(path, sizeof path, "%s/differences.log", test_directory());
    FILE *file = fopen(path, "we+");
    test_check(file != NULL, "%s: %s", path, strerror(errno));
    compare(hosts, &redis_side, board, file, &differences);
    rewind(file);
    for (unsigned lines = 0; lines < 30 && fgets(line, sizeof line, file) != NULL; lines++)
        fprintf(stderr, "%s", line);
    fclose(file);
    fprintf(stderr,
            "%.1f s after the last repair: %" PRIu64 " differences: %" PRIu64 " waiting, %" PRIu64
            " versions, %" PRIu64 " values, %" PRIu64 " in Redis, %" PRIu64 " owned, %" PRIu64
            " invalidated, %" PRIu64 " unheard\n",
            after_s, differences.total, differences.dirty, differences.versions, differences.values,
            differences.in_redis, differences.deeds, differences.marks, differences.unheard);
}

/* How long a process was ready to run and did not get a processor, so far, in microseconds. */
static uint64_t starved_us(pid_t pid)
{
    char path[64];
    unsigned long long ran = 0, waited = 0;
    snprintf(path, sizeof path, "/proc/%d/schedstat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0; /* a kernel that does not count it */
    if (fscanf(file, "%llu %llu", &ran, &waited) != 2)
        waited = 0;
    fclose(file);
    return waited / 1000;
}

/* What a machine that others use as well takes from the fleet, and from the one that looks at it,
 * is not the fleet's delay: the wait of the one that waited most. */
static uint64_t starved(uint64_t before[HOSTS + SERVERS_MAX + 1])
{
    uint64_t most = 0;
    for (unsigned i = 0; i <= HOSTS + redis_side.count; i++) {
        pid_t pid = i == 0       ? getpid()
                    : i <= HOSTS ? hosts[i - 1].larderd
                                 : redis_side.servers[i - 1 - HOSTS].pid;
        uint64_t now = starved_us(pid);
        if (before[i] == 0)
            before[i] = now + 1;
        most = now + 1 - before[i] > most ? now + 1 - before[i] : most;
    }
    return most;
}

/* Once it is too late it goes on for some time: never and late are two kinds of mistakes. */
static void settle(uint64_t limit_s)
{
    uint64_t starved_before[HOSTS + SERVERS_MAX + 1] = {0};
    uint64_t began = test_now_us(), limit = limit_s * 1000000 * TEST_SLOWNESS, late = 0;
    (void)starved(starved_before);
    for (;;) {
        look();
        compare(hosts, &redis_side, board, NULL, &differences);
        uint64_t took = test_now_us() - began, waited = starved(starved_before);
        uint64_t own = took > waited ? took - waited : 0;
        if (differences.total == 0) {
            test_figure("chaos_equal_after", (double)took / 1e6, "s");
            test_figure("chaos_equal_after_with_a_processor", (double)own / 1e6, "s");
            test_check(own < limit, "that is too late: the limit is %" PRIu64 " s", limit_s);
            return;
        }
        printf("%7.2f s  it takes: %" PRIu64 " waiting, %" PRIu64 " versions, %" PRIu64
               " values, %" PRIu64 " in Redis, %" PRIu64 " owned, %" PRIu64 " invalidated, %" PRIu64
               " unheard\n",
               (double)took / 1e6, differences.dirty, differences.versions, differences.values,
               differences.in_redis, differences.deeds, differences.marks, differences.unheard);
        if (own >= limit && late++ == 0)
            tell_differences((double)own / 1e6);
        if (own >= limit + 60000000 || took >= 10 * limit + 60000000) {
            tell_differences((double)took / 1e6);
            test_fail("they do not agree");
        }
        test_pause_us(50000);
    }
}

static void figures(void)
{
    uint64_t sets = 0, deletes = 0, gets = 0, hits = 0, refused = 0, evictions = 0, tombstones = 0;
    uint64_t overflows = 0;
    for (unsigned i = 0; i < HOSTS * WORKERS; i++) {
        const struct worker_board *of = &board->workers[i];
        sets += atomic_load(&of->sets);
        deletes += atomic_load(&of->deletes);
        gets += atomic_load(&of->gets);
        hits += atomic_load(&of->hits);
        refused += atomic_load(&of->refused);
    }
    for (unsigned i = 0; i < HOSTS; i++) {
        larder_stats stats = host_stats(&hosts[i]);
        evictions += stats.evictions;
        overflows += stats.pending_overflows;
        tombstones = stats.tombstones > tombstones ? stats.tombstones : tombstones;
    }
    test_figure("chaos_sets", (double)sets, "count");
    test_figure("chaos_deletes", (double)deletes, "count");
    test_figure("chaos_refused", (double)refused, "count");
    test_figure("chaos_gets", (double)gets, "count");
    test_figure("chaos_hits", (double)hits, "count");
    test_figure("chaos_evictions", (double)evictions, "count");
    test_figure("chaos_pending_overflows", (double)overflows, "count");
    test_figure("chaos_tombstones", (double)tombstones, "count");
    test_figure("chaos_marks", (double)atomic_load(&board->marks), "count");
    test_figure("chaos_clears", (double)atomic_load(&board->clears), "count");
    faults_figures();
    test_figure("chaos_crowded", (double)atomic_load(&board->crowded), "count");
    test_check(sets > 0 && hits > 0, "nothing was done");
}

static void see_that_marks_hold(void)
{
    uint64_t hidden = differences.hidden, answered = 0;
    hidden_stay_hidden(hosts, &redis_side, board, &answered);
    test_figure("chaos_hidden_in_redis", (double)hidden, "count");
    test_figure("chaos_bare_in_redis", (double)differences.bare, "count");
    test_figure("chaos_beside_deletions_in_redis", (double)differences.beside, "count");
    test_figure("chaos_hidden_asked_for", (double)answered, "count");
    test_check(hidden == 0 || answered != 0, "no larderd asks Redis");
}

static int schedule(void *context)
{
    (void)context;
    begin(test_number("LARDER_CHAOS_RATE", 250, 250));
    trouble(test_number("LARDER_CHAOS_SECONDS", 20, 120));
    figures();
    settle(test_number("LARDER_CHAOS_SETTLE", 30, 10));
    see_that_marks_hold();
    for (unsigned i = 0; i < HOSTS; i++)
        printf("chaos_keys_on_host_%u %" PRIu64 " count\n", i, differences.present[i]);
    test_figure("chaos_keys_in_redis", (double)differences.present[HOSTS], "count");
    test_figure("chaos_keys_deleted", (double)differences.deleted, "count");
    test_check(differences.deleted > 0 && differences.present[HOSTS] > 0, "nothing is left");
    see_that_it_sees();
    for (unsigned i = 0; i < HOSTS; i++)
        host_end(&hosts[i]);
    redis_side_end(&redis_side);
    return 0;
}

static void keep_logs(void)
{
    char command[700];
    snprintf(command, sizeof command,
             "mkdir -p chaos-%" PRIu64 " && cp %s/*.log chaos-%" PRIu64 "/ && "
             "echo \"logs: $PWD/chaos-%" PRIu64 "\"; grep -ah FAILED %s/worker*.log >&2",
             test_seed(), test_directory(), test_seed(), test_seed(), test_directory());
    if (system(command) != 0)
        fprintf(stderr, "(no worker failed)\n");
}

/* In a process of its own, so that a failure leaves somebody to keep the logs. */
static void one(void)
{
    (void)test_directory();
    int status = test_wait(test_spawn(schedule, NULL), 600000);
    if (WIFEXITED(status) && WEXITSTATUS(status) == TEST_SKIP)
        test_skip("see above");
    bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!good)
        keep_logs();
    test_check(good, "the schedule failed: %s", test_status_text(status));
}

/* Each is this program again, with a seed of its own. */
static void many(uint64_t schedules)
{
    test_random random = test_random_new(6);
    char self[500], command[600];
    uint64_t failed = 0;
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    test_check(size > 0, "/proc/self/exe");
    self[size] = '\0';
    for (uint64_t i = 0; i < schedules; i++) {
        snprintf(command, sizeof command, "LARDER_SEED=%" PRIu64 " LARDER_CHAOS_SCHEDULES=1 '%s'",
                 test_random_next(&random) >> 16, self);
        int status = system(command);
        if (WIFEXITED(status) && WEXITSTATUS(status) == TEST_SKIP)
            test_skip("see above");
        failed += status != 0;
    }
    test_check(failed == 0, "%" PRIu64 " of %" PRIu64 " schedules failed", failed, schedules);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "worker") == 0)
        return worker_main(argc - 2, argv + 2);
    test_begin("chaos", 600);
    servers_needed();
    if (TEST_SLOWNESS > 1)
        test_skip(
            "its schedule is in real time, and a sanitizer's processes are not in step with it");
    uint64_t schedules = test_number("LARDER_CHAOS_SCHEDULES", 1, 20);
    if (schedules > 1)
        many(schedules);
    else
        one();
    test_end();
}
