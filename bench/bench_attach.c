/* bench_attach: what a worker pays to use a map that is there: attach and close, in processes that
 * have just begun and again and again in one; and the memory that it adds, from
 * /proc/self/smaps_rollup. Rss counts pages that all share in full, Pss its part of them, private
 * what it alone has.
 *
 *   bench_attach [--rounds N] [--processes N] [--hits N]
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/measure.h"
#include "larder.h"

enum { ENTRIES = 100000, ROUNDS_MAX = 10000, PROCESSES_MAX = 1000 };

struct board {
    _Atomic uint32_t ready, end;
    double attach_us[PROCESSES_MAX], close_us[PROCESSES_MAX], rounds_us[ROUNDS_MAX];
    uint64_t rss[3], pss[3], own[3]; /* before, attached, after hits */
};

static struct board *board;
static const char *directory;
static uint64_t rounds, hits;

static larder *attach(void)
{
    larder_options options = {.dir = directory, .flags = LARDER_ATTACH};
    larder *handle = NULL;
    int code = larder_open("bench", &options, &handle);
    test_check(code == LARDER_OK, "attach: %d %s", code, larder_last_error());
    return handle;
}

/* The other process: made the map and stays. */
static int holder(void *context)
{
    (void)context;
    larder_options options = {.dir = directory, .map_size = 64u << 20};
    larder *handle = NULL;
    int code = larder_open("bench", &options, &handle);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    for (unsigned at = 0; at < ENTRIES; at++) {
        char key[32], value[100] = "value";
        size_t key_size = (size_t)snprintf(key, sizeof key, "bench:%u", at);
        code = larder_set(handle, key, key_size, value, sizeof value, NULL);
        test_check(code == LARDER_OK, "set: %d %s", code, larder_last_error());
    }
    atomic_store(&board->ready, 1);
    while (!atomic_load(&board->end))
        test_pause_us(1000);
    larder_close(&handle);
    return 0;
}

static int fresh_process(void *context)
{
    uint64_t index = *(uint64_t *)context, began = test_now_ns();
    larder *handle = attach();
    uint64_t middle = test_now_ns();
    larder_close(&handle);
    board->attach_us[index] = (double)(middle - began) / 1e3;
    board->close_us[index] = (double)(test_now_ns() - middle) / 1e3;
    return 0;
}

static int again_and_again(void *context)
{
    (void)context;
    for (uint64_t round = 0; round < rounds; round++) {
        uint64_t began = test_now_ns();
        larder *handle = attach();
        larder_close(&handle);
        board->rounds_us[round] = (double)(test_now_ns() - began) / 1e3;
    }
    return 0;
}

static void look(unsigned at)
{
    board->rss[at] = measure_memory("Rss:");
    board->pss[at] = measure_memory("Pss:");
    board->own[at] = measure_memory("Private_Dirty:") + measure_memory("Private_Clean:");
}

static int memory(void *context)
{
    (void)context;
    test_random random = test_random_new(1);
    look(0);
    larder *handle = attach();
    look(1);
    for (uint64_t at = 0; at < hits; at++) {
        char key[32], value[100];
        size_t key_size = (size_t)snprintf(key, sizeof key, "bench:%u",
                                           (unsigned)test_random_below(&random, ENTRIES));
        int code = larder_get(handle, key, key_size, value, sizeof value, NULL);
        test_check(code == LARDER_OK, "get: %d", code);
    }
    look(2);
    larder_close(&handle);
    return 0;
}

static double kilobytes(uint64_t after, uint64_t before)
{
    return ((double)after - (double)before) / 1024.0;
}

int main(int argc, char **argv)
{
    measure_begin("bench_attach", 60);
    uint64_t processes = measure_option(argc, argv, "--processes", 200);
    rounds = measure_option(argc, argv, "--rounds", 2000);
    hits = measure_option(argc, argv, "--hits", 100000);
    test_check(rounds > 0 && rounds <= ROUNDS_MAX && processes > 0 && processes <= PROCESSES_MAX,
               "options");
    directory = test_directory();
    board = test_shared(sizeof *board);
    pid_t child = test_spawn(holder, NULL);
    test_until(atomic_load(&board->ready), 20000, "the map is not made");
    for (uint64_t at = 0; at < processes; at++) {
        test_join(test_spawn(fresh_process, &at), 10000, "a fresh process");
    }
    test_join(test_spawn(again_and_again, NULL), 30000, "attaching again and again");
    test_join(test_spawn(memory, NULL), 30000, "the process that measures its memory");
    atomic_store(&board->end, 1);
    test_join(child, 10000, "the holder");
    static double both[PROCESSES_MAX];
    for (uint64_t at = 0; at < processes; at++)
        both[at] = board->attach_us[at] + board->close_us[at];
    test_figure("attach_first_attach", measure_median(board->attach_us, processes), "us");
    test_figure("attach_first_close", measure_median(board->close_us, processes), "us");
    test_figure("attach_first_p99", measure_quantile(both, processes, 0.99), "us");
    test_figure("attach_again", measure_median(board->rounds_us, rounds), "us");
    test_figure("attach_rss_added", kilobytes(board->rss[1], board->rss[0]), "KiB");
    test_figure("attach_pss_added", kilobytes(board->pss[1], board->pss[0]), "KiB");
    test_figure("attach_private_added", kilobytes(board->own[1], board->own[0]), "KiB");
    test_figure("attach_rss_added_after_hits", kilobytes(board->rss[2], board->rss[0]), "KiB");
    test_figure("attach_pss_added_after_hits", kilobytes(board->pss[2], board->pss[0]), "KiB");
    test_figure("attach_private_added_after_hits", kilobytes(board->own[2], board->own[0]), "KiB");
    test_figure("attach_and_close", measure_median(both, processes), "us");
    test_end();
}
