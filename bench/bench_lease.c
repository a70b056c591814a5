/* bench_lease: what get-or-fill costs. In one process: a lease with its fill beside a plain set, a
 * fetch that hits beside a plain get. Between processes: from a fill to its waiter (asleep in
 * larder_lease_wait(), or in poll() on the notify descriptor), and from a holder's death to its
 * waiter.
 *
 *   bench_lease [--keys N] [--rounds N] [--wakes N] [--deaths N]
 */
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/measure.h"
#include "larder.h"

enum { VALUE = 100, ROUNDS_MAX = 1000, WAKES_MAX = 100000 };

struct board {
    _Atomic uint64_t round;  /* the holder has the lease of this round */
    _Atomic uint64_t waits;  /* the waiter waits for it */
    _Atomic uint64_t filled; /* when the fill returned, ns */
    _Atomic uint64_t done;
};

static struct board *board;
static larder *handle;

static larder *open_map(void)
{
    larder *map = NULL;
    larder_options options = {.dir = test_directory(), .map_size = 256u << 20};
    int code = larder_open("bench", &options, &map);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    return map;
}

static size_t key_text(char out[32], const char *what, uint64_t number)
{
    return (size_t)snprintf(out, 32, "%s:%010" PRIu64, what, number);
}

/* ---- One process --------------------------------------------------------------------------- */

typedef void one_call(uint64_t number);

static uint8_t value[VALUE];

static void call_set(uint64_t number)
{
    char key[32];
    size_t size = key_text(key, "set", number);
    test_check(larder_set(handle, key, size, value, VALUE, NULL) == LARDER_OK, "set");
}

static void call_fill(uint64_t number)
{
    char key[32];
    larder_lease lease;
    size_t size = key_text(key, "fill", number);
    int code = larder_lease_acquire(handle, key, size, NULL, &lease, NULL, NULL, NULL);
    test_check(code == LARDER_FILL, "acquire: %d", code);
    code = larder_lease_fill(handle, &lease, key, size, value, VALUE, NULL);
    test_check(code == LARDER_OK, "fill: %d %s", code, larder_last_error());
}

static void call_abandon(uint64_t number)
{
    char key[32];
    larder_lease lease;
    size_t size = key_text(key, "abandon", number);
    int code = larder_lease_acquire(handle, key, size, NULL, &lease, NULL, NULL, NULL);
    test_check(code == LARDER_FILL, "acquire: %d", code);
    test_check(larder_lease_abandon(handle, &lease, 0) == LARDER_OK, "abandon");
}

static void call_get(uint64_t number)
{
    char key[32];
    void *found;
    size_t found_size, size = key_text(key, "fill", number);
    int code = larder_get_alloc(handle, key, size, &found, &found_size, NULL);
    test_check(code == LARDER_OK, "get: %d", code);
    larder_free(found);
}

static int no_fill(void *context, const void *key, size_t key_size, larder_filled *filled)
{
    (void)context;
    (void)key;
    (void)key_size;
    (void)filled;
    return -1;
}

static void call_fetch(uint64_t number)
{
    char key[32];
    void *found;
    size_t found_size, size = key_text(key, "fill", number);
    int code = larder_fetch(handle, key, size, no_fill, NULL, &found, &found_size, NULL);
    test_check(code == LARDER_OK, "fetch: %d", code);
    larder_free(found);
}

static void alone(size_t rounds, uint64_t keys)
{
    static const struct {
        const char *name;
        one_call *call;
    } calls[] = {{"lease_plain_set", call_set},
                 {"lease_acquire_and_fill", call_fill},
                 {"lease_acquire_and_abandon", call_abandon},
                 {"lease_plain_get_alloc", call_get},
                 {"lease_fetch_hit", call_fetch}};
    enum { CALLS = sizeof calls / sizeof calls[0] };
    static double times[CALLS][ROUNDS_MAX];
    for (size_t round = 0; round < rounds; round++) { /* they take turns */
        for (size_t i = 0; i < CALLS; i++) {
            uint64_t began = test_now_ns();
            for (uint64_t key = 0; key < keys; key++) {
                calls[i].call(round * keys + key * 7919 % keys);
            }
            times[i][round] = (double)(test_now_ns() - began) / (double)keys;
        }
    }
    for (size_t i = 0; i < CALLS; i++) {
        test_figure(calls[i].name, measure_median(times[i], rounds), "ns");
    }
}

/* ---- Two processes ------------------------------------------------------------------------- */

static double latencies[WAKES_MAX];

static void report(const char *name, size_t count)
{
    char figure[64];
    snprintf(figure, sizeof figure, "%s_p50", name);
    test_figure(figure, measure_quantile(latencies, count, 0.5), "us");
    snprintf(figure, sizeof figure, "%s_p99", name);
    test_figure(figure, measure_quantile(latencies, count, 0.99), "us");
}

/* Takes the lease of each round, waits until it is waited for, and a moment, and fills it. */
static int holder(void *context)
{
    uint64_t wakes = *(uint64_t *)context;
    larder *map = open_map();
    for (uint64_t round = 1; round <= wakes; round++) {
        char key[32];
        larder_lease lease;
        size_t size = key_text(key, "wake", round);
        int code = larder_lease_acquire(map, key, size, NULL, &lease, NULL, NULL, NULL);
        test_check(code == LARDER_FILL, "acquire: %d", code);
        atomic_store(&board->round, round);
        test_until(atomic_load(&board->waits) == round, 10000, "nobody waits");
        test_pause_us(300); /* it sleeps by then */
        code = larder_lease_fill(map, &lease, key, size, &round, sizeof round, NULL);
        atomic_store(&board->filled, test_now_ns());
        test_check(code == LARDER_OK, "fill: %d", code);
        test_until(atomic_load(&board->done) == round, 10000, "the waiter does not wake");
        code = larder_delete(map, key, size);
        test_check(code == LARDER_OK, "delete: %d", code);
    }
    larder_close(&map);
    return 0;
}

static void wait_asleep(const larder_lease *lease)
{
    int code = larder_lease_wait(handle, lease, 10000);
    test_check(code == LARDER_OK, "wait: %d", code);
}

static void wait_in_poll(const larder_lease *lease)
{
    struct pollfd file = {.fd = larder_notify_fd(handle), .events = POLLIN};
    do {
        test_check(poll(&file, 1, 10000) == 1, "poll");
        test_check(larder_notify_clear(handle) == LARDER_OK, "clear");
    } while (larder_lease_wait(handle, lease, 0) == LARDER_WAIT);
}

/* From the moment when the fill has returned in one process to the one when its waiter has come
 * back in the other; less than nothing where the waiter was first. */
static void wake(const char *name, uint64_t wakes, void (*wait)(const larder_lease *lease))
{
    *board = (struct board){.round = 0};
    pid_t child = test_spawn(holder, &wakes);
    for (uint64_t round = 1; round <= wakes; round++) {
        char key[32];
        larder_lease lease;
        size_t size = key_text(key, "wake", round);
        test_until(atomic_load(&board->round) == round, 10000, "nobody holds");
        int code = larder_lease_acquire(handle, key, size, NULL, &lease, NULL, NULL, NULL);
        test_check(code == LARDER_WAIT, "acquire: %d", code);
        atomic_store(&board->waits, round);
        wait(&lease);
        uint64_t woken = test_now_ns();
        test_until(atomic_load(&board->filled) != 0, 10000, "not filled");
        uint64_t filled = atomic_exchange(&board->filled, 0);
        latencies[round - 1] = woken > filled ? (double)(woken - filled) / 1e3 : 0;
        atomic_store(&board->done, round);
    }
    test_join(child, 10000, "the holder");
    report(name, wakes);
}

static int doomed(void *context)
{
    char key[32];
    larder_lease lease;
    uint64_t round = *(uint64_t *)context;
    larder *map = open_map();
    size_t size = key_text(key, "death", round);
    int code = larder_lease_acquire(map, key, size, NULL, &lease, NULL, NULL, NULL);
    test_check(code == LARDER_FILL, "acquire: %d", code);
    atomic_store(&board->round, round);
    for (;;) {
        pause();
    }
}

static int executioner(void *context)
{
    test_pause_us(20000); /* into the waiter's sleep */
    atomic_store(&board->filled, test_now_ns());
    return kill(*(pid_t *)context, SIGKILL);
}

static void death(const char *name, uint64_t deaths, void (*wait)(const larder_lease *lease))
{
    *board = (struct board){.round = 0};
    for (uint64_t round = 1; round <= deaths; round++) {
        char key[32];
        larder_lease lease;
        uint64_t number = round + (wait == wait_in_poll ? 1000000 : 0);
        size_t size = key_text(key, "death", number);
        pid_t child = test_spawn(doomed, &number);
        test_until(atomic_load(&board->round) == number, 10000, "nobody holds");
        int code = larder_lease_acquire(handle, key, size, NULL, &lease, NULL, NULL, NULL);
        test_check(code == LARDER_WAIT, "acquire: %d", code);
        pid_t killer = test_spawn(executioner, &child);
        wait(&lease);
        latencies[round - 1] = (double)(test_now_ns() - atomic_load(&board->filled)) / 1e3;
        test_join(killer, 10000, "the killer");
        test_check(test_wait(child, 10000) == SIGKILL, "not killed");
    }
    report(name, deaths);
}

int main(int argc, char **argv)
{
    measure_begin("bench_lease", 120);
    uint64_t keys = measure_option(argc, argv, "--keys", 2000);
    size_t rounds = measure_option(argc, argv, "--rounds", 20);
    uint64_t wakes = measure_option(argc, argv, "--wakes", 2000);
    uint64_t deaths = measure_option(argc, argv, "--deaths", 100);
    test_check(keys > 0 && rounds > 0 && rounds <= ROUNDS_MAX && wakes > 0 && wakes <= WAKES_MAX &&
                   deaths > 0 && deaths <= WAKES_MAX,
               "options");
    board = test_shared(sizeof *board);
    test_value_fill(value, VALUE, 1);
    handle = open_map();
    alone(rounds, keys);
    wake("lease_wake", wakes, wait_asleep);
    death("lease_death", deaths, wait_asleep);
    test_check(larder_notify_fd(handle) >= 0, "notify: %s", larder_last_error());
    wake("lease_notify", wakes, wait_in_poll);
    death("lease_notify_death", deaths, wait_in_poll);
    larder_close(&handle);
    test_end();
}
