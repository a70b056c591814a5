/* stampede: many callers, one origin. A cold key asked for by a thousand threads of eight processes
 * at once costs one call of the origin; a holder that is killed or stopped is replaced, by one; a
 * fill never brings back what was invalidated while it ran; and whoever is killed at random leaves
 * nothing behind that keeps others from their origin.
 */
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "larder.h"

enum {
    PROCESSES = 8,
    THREADS = 125,
    ALL = PROCESSES * THREADS,
    STACK = 128 * 1024,
    ORIGIN_MS = 30,
    VALUE = 100,
    ROUNDS_MAX = 1000,
    WAITERS = 4, /* processes */
    WAITER_THREADS = 8
};

struct board {
    pthread_barrier_t start, stop; /* of a round: all callers and the parent */
    _Atomic uint32_t ready, threads_failed;
    _Atomic uint32_t calls;     /* of the origin, in this round */
    _Atomic uint64_t filled_ns; /* when the origin answered */
    _Atomic uint64_t began_ns;  /* when the second fill began */
    uint64_t got_ns[ALL];       /* when each had the value */
    _Atomic uint32_t holder_in, release;
    _Atomic uint64_t origin, floor; /* the origin's number; what is invalidated is below */
    _Atomic uint32_t end, fetches, conflicts;
    _Atomic uint64_t slowest_us;
};

static struct board *board;
static const char *directory;

static larder *open_map(const char *name)
{
    larder *handle = NULL;
    larder_options options = {.dir = directory, .map_size = 64u << 20};
    int code = larder_open(name, &options, &handle);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    return handle;
}

static void round_key(char key[32], const char *what, uint64_t round)
{
    snprintf(key, 32, "%s:%06" PRIu64, what, round);
}

static larder_stats stats_of(larder *handle)
{
    larder_stats stats;
    test_check(larder_stats_read(handle, &stats, sizeof stats) == LARDER_OK, "stats");
    return stats;
}

/* ---- A thousand callers -------------------------------------------------------------------- */

struct caller {
    larder *handle;
    unsigned number;
    uint32_t rounds;
};

static int slow_origin(void *context, const void *key, size_t key_size, larder_filled *filled)
{
    static __thread uint8_t value[VALUE];
    (void)key;
    (void)key_size;
    atomic_fetch_add(&board->calls, 1);
    test_pause_us(ORIGIN_MS * 1000);
    test_value_fill(value, sizeof value, *(const uint32_t *)context);
    filled->value = value;
    filled->value_size = sizeof value;
    atomic_store(&board->filled_ns, test_now_ns());
    return LARDER_OK;
}

static void *call(void *context)
{
    struct caller *caller = context;
    char key[32];
    for (uint32_t round = 1; round <= caller->rounds; round++) {
        pthread_barrier_wait(&board->start);
        void *value = NULL;
        size_t size = 0;
        round_key(key, "cold", round);
        int code = larder_fetch(caller->handle, key, strlen(key), slow_origin, &round, &value,
                                &size, NULL);
        board->got_ns[caller->number] = test_now_ns();
        if (code != LARDER_OK || !test_value_is(value, size, round)) {
            fprintf(stderr, "fetch: %d %s, %zu bytes\n", code, larder_last_error(), size);
            atomic_fetch_add(&board->threads_failed, 1);
        }
        larder_free(value);
        pthread_barrier_wait(&board->stop);
    }
    return NULL;
}

static int crowd(void *context)
{
    static struct caller callers[THREADS];
    static pthread_t threads[THREADS];
    uint32_t packed = *(uint32_t *)context;
    larder *handle = open_map("stampede");
    pthread_attr_t attributes;
    test_check(pthread_attr_init(&attributes) == 0, "attr");
    test_check(pthread_attr_setstacksize(&attributes, STACK) == 0, "stack size");
    for (unsigned i = 0; i < THREADS; i++) {
        callers[i] = (struct caller){
            .handle = handle, .number = (packed >> 16) * THREADS + i, .rounds = packed & 0xffff};
        test_check(pthread_create(&threads[i], &attributes, call, &callers[i]) == 0, "thread %u",
                   i);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    larder_close(&handle);
    return 0;
}

static int compare_numbers(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static void stampede(uint32_t rounds)
{
    pid_t children[PROCESSES];
    uint32_t packed[PROCESSES];
    static double median[ROUNDS_MAX], last[ROUNDS_MAX];
    pthread_barrierattr_t attributes;
    test_check(pthread_barrierattr_init(&attributes) == 0 &&
                   pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) == 0 &&
                   pthread_barrier_init(&board->start, &attributes, ALL + 1) == 0 &&
                   pthread_barrier_init(&board->stop, &attributes, ALL + 1) == 0,
               "barriers");
    for (uint32_t i = 0; i < PROCESSES; i++) {
        packed[i] = i << 16 | rounds;
        children[i] = test_spawn(crowd, &packed[i]);
    }
    for (uint32_t round = 1; round <= rounds; round++) {
        atomic_store(&board->calls, 0);
        pthread_barrier_wait(&board->start);
        pthread_barrier_wait(&board->stop);
        test_check(atomic_load(&board->threads_failed) == 0, "%u fetches failed",
                   atomic_load(&board->threads_failed));
        test_check(atomic_load(&board->calls) == 1, "round %u: %u calls of the origin", round,
                   atomic_load(&board->calls));
        qsort(board->got_ns, ALL, sizeof board->got_ns[0], compare_numbers);
        uint64_t filled = atomic_load(&board->filled_ns);
        median[round - 1] = (double)(board->got_ns[ALL / 2] - filled) / 1e6;
        last[round - 1] = (double)(board->got_ns[ALL - 1] - filled) / 1e6;
    }
    for (uint32_t i = 0; i < PROCESSES; i++) {
        test_join(children[i], 10000, "a crowd");
    }
    double sums[2] = {0, 0};
    for (uint32_t i = 0; i < rounds; i++) {
        sums[0] += median[i] / rounds;
        sums[1] += last[i] / rounds;
    }
    test_figure("stampede_callers", ALL, "count");
    test_figure("stampede_origin_calls", 1, "count");
    test_figure("stampede_value_median", sums[0], "ms");
    test_figure("stampede_value_last", sums[1], "ms");
}

/* ---- A holder that dies or stops ----------------------------------------------------------- */

static larder_lease_options takeover_options;

static int stuck_origin(void *context, const void *key, size_t key_size, larder_filled *filled)
{
    (void)context;
    (void)key;
    (void)key_size;
    atomic_fetch_add(&board->calls, 1);
    atomic_store(&board->holder_in, 1);
    while (!atomic_load(&board->release)) {
        test_pause_us(200);
    }
    filled->value = "late";
    filled->value_size = 4;
    return LARDER_OK;
}

static int holder(void *context)
{
    larder *handle = open_map("takeover");
    void *value = NULL;
    size_t size = 0;
    int code = larder_fetch_with(handle, context, strlen(context), stuck_origin, NULL,
                                 &takeover_options, &value, &size, NULL);
    bool own = code == LARDER_OK && size == 4 && memcmp(value, "late", 4) == 0;
    larder_free(value);
    larder_close(&handle);
    return own ? 0 : 1;
}

static int quick_origin(void *context, const void *key, size_t key_size, larder_filled *filled)
{
    (void)context;
    (void)key;
    (void)key_size;
    uint64_t none = 0;
    atomic_compare_exchange_strong(&board->began_ns, &none, test_now_ns());
    atomic_fetch_add(&board->calls, 1);
    test_pause_us(5000);
    filled->value = "next";
    filled->value_size = 4;
    return LARDER_OK;
}

static larder *waiting_map;
static const char *waiting_key;

static void *wait_for_it(void *unused)
{
    (void)unused;
    void *value = NULL;
    size_t size = 0;
    atomic_fetch_add(&board->ready, 1);
    int code = larder_fetch_with(waiting_map, waiting_key, strlen(waiting_key), quick_origin, NULL,
                                 &takeover_options, &value, &size, NULL);
    if (code != LARDER_OK || size != 4 || memcmp(value, "next", 4) != 0) {
        atomic_fetch_add(&board->threads_failed, 1);
    }
    larder_free(value);
    return NULL;
}

static int waiter(void *context)
{
    pthread_t threads[WAITER_THREADS];
    waiting_map = open_map("takeover");
    waiting_key = context;
    for (unsigned i = 0; i < WAITER_THREADS; i++) {
        test_check(pthread_create(&threads[i], NULL, wait_for_it, NULL) == 0, "thread");
    }
    for (unsigned i = 0; i < WAITER_THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    larder_close(&waiting_map);
    return 0;
}

/* Milliseconds from the fault to the beginning of the next fill. */
static double replace_holder(larder *handle, uint64_t round, bool kill_it)
{
    char key[32];
    pid_t waiters[WAITERS];
    round_key(key, kill_it ? "kill" : "stop", round);
    atomic_store(&board->ready, 0);
    atomic_store(&board->calls, 0);
    atomic_store(&board->began_ns, 0);
    atomic_store(&board->holder_in, 0);
    atomic_store(&board->release, 0);
    takeover_options = (larder_lease_options){.hold_ms = kill_it ? 60000 : 400, .wait_ms = 60000};
    uint64_t waits = stats_of(handle).lease_waits;
    pid_t child = test_spawn(holder, key);
    test_until(atomic_load(&board->holder_in), 10000, "the holder does not begin");
    uint64_t held_ns = test_now_ns();
    if (!kill_it) {
        test_stop(child);
    }
    for (unsigned i = 0; i < WAITERS; i++) {
        waiters[i] = test_spawn(waiter, key);
    }
    if (kill_it) {
        test_until(stats_of(handle).lease_waits - waits >= WAITERS * WAITER_THREADS, 10000,
                   "not all wait");
        held_ns = test_now_ns();
        test_check(kill(child, SIGKILL) == 0, "kill"); /* not reaped: a zombie holds nothing */
    }
    for (unsigned i = 0; i < WAITERS; i++) {
        test_join(waiters[i], 20000, "a waiter");
    }
    test_check(atomic_load(&board->threads_failed) == 0, "%u waiters failed",
               atomic_load(&board->threads_failed));
    test_check(atomic_load(&board->calls) == 2, "%u calls of the origin, not 2",
               atomic_load(&board->calls));
    if (kill_it) {
        test_check(test_wait(child, 5000) == SIGKILL, "the holder was not killed");
    } else {
        atomic_store(&board->release, 1);
        kill(child, SIGCONT);
        test_join(child, 5000, "the stopped holder gets its own value");
        char text[8] = "";
        test_check(larder_get(handle, key, strlen(key), text, sizeof text, NULL) == LARDER_OK &&
                       strcmp(text, "next") == 0,
                   "a late fill replaced a newer one: '%s'", text);
    }
    return (double)(atomic_load(&board->began_ns) - held_ns) / 1e6;
}

static void takeover(uint64_t rounds)
{
    larder *handle = open_map("takeover");
    static double times[ROUNDS_MAX];
    double worst = 0;
    for (uint64_t round = 0; round < rounds; round++) {
        times[round] = replace_holder(handle, round, true);
        worst = times[round] > worst ? times[round] : worst;
    }
    double sum = 0;
    for (uint64_t round = 0; round < rounds; round++) {
        sum += times[round] / (double)rounds;
    }
    test_figure("takeover_after_kill_mean", sum, "ms");
    test_figure("takeover_after_kill_worst", worst, "ms");
    test_check(sum < 100.0 * TEST_SLOWNESS, "a dead holder is noticed after %f ms", sum);
    double late = replace_holder(handle, 0, false);
    test_figure("takeover_after_stop_at_400", late, "ms");
    test_check(late < 1500.0 * TEST_SLOWNESS, "a stopped holder kept the lease for %f ms", late);
    test_check(late >= 350.0, "the lease ended before its deadline, after %f ms", late);
    test_check(stats_of(handle).lease_takeovers == rounds + 1, "%" PRIu64 " takeovers",
               stats_of(handle).lease_takeovers);
    larder_close(&handle);
}

/* ---- Invalidations that race with fills ----------------------------------------------------- */

static int numbered_origin(void *context, const void *key, size_t key_size, larder_filled *filled)
{
    uint64_t *number = context;
    (void)key;
    (void)key_size;
    *number = atomic_load(&board->origin);
    if ((*number & 3) != 0) {
        test_pause_us(*number % 300);
    }
    filled->value = number;
    filled->value_size = sizeof *number;
    return LARDER_OK;
}

static int reader(void *context)
{
    (void)context;
    larder *handle = open_map("race");
    while (!atomic_load(&board->end)) {
        uint64_t floor = atomic_load(&board->floor), number = 0, mine;
        void *value = NULL;
        size_t size = 0;
        uint64_t began = test_now_us();
        int code = larder_fetch(handle, "raced", 5, numbered_origin, &mine, &value, &size, NULL);
        uint64_t took = test_now_us() - began;
        test_check(code == LARDER_OK && size == sizeof number, "fetch: %d %s", code,
                   larder_last_error());
        memcpy(&number, value, sizeof number);
        larder_free(value);
        test_check(number >= floor, "got %" PRIu64 ", of before the invalidation of %" PRIu64,
                   number, floor);
        atomic_fetch_add(&board->fetches, 1);
        uint64_t slowest = atomic_load(&board->slowest_us);
        while (took > slowest &&
               !atomic_compare_exchange_weak(&board->slowest_us, &slowest, took)) {
        }
    }
    larder_close(&handle);
    return 0;
}

static void race(uint64_t count, test_random *random)
{
    pid_t readers[WAITERS];
    larder *handle = open_map("race");
    atomic_store(&board->end, 0);
    for (unsigned i = 0; i < WAITERS; i++) {
        readers[i] = test_spawn(reader, NULL);
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t number = atomic_fetch_add(&board->origin, 1) + 1;
        int code = larder_delete(handle, "raced", 5);
        test_check(code == LARDER_OK || code == LARDER_MISS, "delete: %d %s", code,
                   larder_last_error());
        atomic_store(&board->floor, number);
        test_pause_us(test_random_below(random, 600));
    }
    test_check(stats_of(handle).lease_refused_fills > 0, "no fill raced with an invalidation");
    test_figure("race_refused_fills", (double)stats_of(handle).lease_refused_fills, "count");
    atomic_store(&board->end, 1);
    for (unsigned i = 0; i < WAITERS; i++) {
        test_join(readers[i], 10000, "a reader");
    }
    test_figure("race_fetches", atomic_load(&board->fetches), "count");
    test_figure("race_slowest_fetch", (double)atomic_load(&board->slowest_us) / 1e3, "ms");
    larder_close(&handle);
}

/* ---- Killed anywhere ------------------------------------------------------------------------ */

static int victim(void *context)
{
    larder *handle = open_map("victims");
    test_random random = test_random_new(*(uint64_t *)context);
    larder_lease_options options = {.hold_ms = 60000, .wait_ms = 60000};
    char key[32];
    for (;;) {
        uint64_t mine;
        void *value = NULL;
        size_t size = 0;
        round_key(key, "victim", test_random_below(&random, 8));
        int code = larder_fetch_with(handle, key, strlen(key), numbered_origin, &mine, &options,
                                     &value, &size, NULL);
        if (code != LARDER_OK || size != sizeof mine) {
            fprintf(stderr, "fetch: %d %s\n", code, larder_last_error());
            return 1;
        }
        larder_free(value);
        (void)larder_delete(handle, key, strlen(key));
        atomic_fetch_add(&board->fetches, 1);
    }
}

static void kill_at_random(uint64_t count, test_random *random)
{
    enum { VICTIMS = 6 };
    pid_t victims[VICTIMS];
    uint64_t streams[VICTIMS];
    char key[32];
    larder *handle = open_map("victims");
    atomic_store(&board->fetches, 0);
    for (unsigned i = 0; i < VICTIMS; i++) {
        streams[i] = 100 + i;
        victims[i] = test_spawn(victim, &streams[i]);
    }
    for (uint64_t i = 0; i < count; i++) {
        unsigned who = (unsigned)test_random_below(random, VICTIMS);
        test_pause_us(test_random_below(random, 3000));
        int status = 0;
        test_check(waitpid(victims[who], &status, WNOHANG) == 0, "a victim ended by itself: %s",
                   test_status_text(status));
        test_kill(victims[who]);
        streams[who] = 1000 + i;
        victims[who] = test_spawn(victim, &streams[who]);
        /* With leases of a minute, whoever could not tell a dead holder would stand still here. */
        uint32_t before = atomic_load(&board->fetches);
        test_until(atomic_load(&board->fetches) > before + 20, 10000, "the others stand still");
    }
    for (unsigned i = 0; i < VICTIMS; i++) {
        test_kill(victims[i]);
    }
    for (uint64_t i = 0; i < 8; i++) {
        uint64_t mine;
        void *value = NULL;
        size_t size = 0;
        round_key(key, "victim", i);
        uint64_t began = test_now_us();
        int code =
            larder_fetch(handle, key, strlen(key), numbered_origin, &mine, &value, &size, NULL);
        test_check(code == LARDER_OK, "fetch: %d", code);
        test_check(test_now_us() - began < 1000000u * TEST_SLOWNESS, "a dead lease was waited for");
        larder_free(value);
    }
    test_figure("killed", (double)count, "count");
    larder_close(&handle);
}

int main(void)
{
    test_begin("stampede", 120);
    directory = test_directory();
    board = test_shared(sizeof *board);
    test_random random = test_random_new(1);
    stampede((uint32_t)test_number("LARDER_ROUNDS", 5, 200));
    takeover(test_number("LARDER_KILLS", 5, 100));
    race(test_number("LARDER_RACES", 1500, 100000) / TEST_SLOWNESS, &random);
    kill_at_random(test_number("LARDER_VICTIMS", 60, 5000) / TEST_SLOWNESS, &random);
    test_end();
}
