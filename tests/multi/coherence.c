/* coherence.c: no read is older than a write, touch, delete, invalidation or expiry that had
 * returned (or had passed) before the read began: whichever process wrote, whichever process reads,
 * through the hot set or the trees. Four processes, two of them with two threads, do both, on a few
 * thousand keys in front of which a hot set of a few pages fills, evicts and collides.
 *
 * Then once more in trouble: processes are stopped and killed at random instants, also inside the
 * write gate, so that others' writes are refused and invalidations pend; generations change.
 * LARDER_READS, LARDER_TROUBLE: how many reads. journal.c says what is checked.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "inspect.h"
#include "journal.h"
#include "upkeep.h"

enum { MAP_SIZE = 128 << 20, OTHER_SIZE = 144 << 20 };

struct process {
    pid_t pid;
    unsigned first_slot, threads, lives;
};

static struct process processes[PROCESSES] = {
    {.first_slot = 0, .threads = 1},
    {.first_slot = 1, .threads = 2},
    {.first_slot = 3, .threads = 1},
    {.first_slot = 4, .threads = 2},
};
static const char *directory;
static const char *map_name;
static uint64_t hot_size;
static larder *parent_handle;
static uint64_t stops, kills, switches;

static larder *open_map(unsigned flags)
{
    larder_options options = {.dir = directory,
                              .map_size = MAP_SIZE,
                              .hot_size = hot_size,
                              .write_wait_ms = board->trouble ? 2 : 60000,
                              .flags = flags};
    larder *handle = NULL;
    uint64_t deadline = test_now_us() + 10000000u * TEST_SLOWNESS;
    int result;
    while ((result = larder_open(map_name, &options, &handle)) == LARDER_EBUSY && board->trouble) {
        test_check(test_now_us() < deadline, "open stays busy");
    }
    test_check(result == LARDER_OK, "open: %d %s", result, larder_last_error());
    return handle;
}

/* ---- A process --------------------------------------------------------------------------------
 */

static void *work(void *context)
{
    struct worker *worker = context;
    unsigned writes = board->trouble ? 20 : 2;
    while (larder_has(worker->handle, "k0", 2) == LARDER_MISS && !board->trouble) {
    }
    atomic_fetch_add(&board->warm, 1);
    while (atomic_load(&board->go) == 0) {
        test_pause_us(200);
    }
    while (atomic_load_explicit(&board->end, memory_order_relaxed) == 0) {
        if (test_random_below(&worker->random, 100) < writes) {
            coherence_write(worker);
            atomic_fetch_add_explicit(&board->writes, 1, memory_order_relaxed);
        } else {
            coherence_read(worker);
        }
    }
    return NULL;
}

/* Every second life begins with the handle that it inherited, the others open one, some of those
 * with checksums compared. */
static int run(void *context)
{
    static struct worker workers[2];
    const struct process *process = context;
    pthread_t second;
    bool inherits = process->lives % 2 == 1;
    larder *handle =
        inherits ? parent_handle : open_map(process->first_slot == 3 ? LARDER_VERIFY : 0);
    for (unsigned i = 0; i < process->threads; i++) {
        workers[i].handle = handle;
        workers[i].slot = process->first_slot + i;
        workers[i].random = test_random_new(workers[i].slot * 100000u + process->lives);
    }
    if (process->threads == 2) {
        test_check(pthread_create(&second, NULL, work, &workers[1]) == 0, "pthread_create");
    }
    (void)work(&workers[0]);
    if (process->threads == 2) {
        test_check(pthread_join(second, NULL) == 0, "pthread_join");
    }
    larder_close(&handle);
    return 0;
}

static void start(struct process *process)
{
    process->lives++;
    process->pid = test_spawn(run, process);
}

static void all_live(void)
{
    for (unsigned i = 0; i < PROCESSES; i++) {
        int status = 0;
        pid_t ended = waitpid(processes[i].pid, &status, WNOHANG);
        test_check(ended == 0, "process %u, after %" PRIu64 " reads: %s", i, coherence_reads(),
                   test_status_text(status));
    }
}

/* ---- Trouble ----------------------------------------------------------------------------------
 */

static void stop_one(test_random *random, struct process *process)
{
    test_stop(process->pid);
    stops++;
    test_pause_us(200 + test_random_below(random, 8000));
    test_check(kill(process->pid, SIGCONT) == 0, "SIGCONT: %s", strerror(errno));
}

/* A new generation, while all work on; some invalidations may pend. */
static void switch_generation(void)
{
    static unsigned busy; /* in a row */
    bool changed = false;
    int result = upkeep_resize(parent_handle, switches % 2 == 0 ? OTHER_SIZE : MAP_SIZE, &changed);
    test_check(result == LARDER_OK || result == LARDER_EBUSY, "resize: %d %s", result,
               larder_last_error());
    busy = changed ? 0 : busy + 1;
    test_check(busy < 20, "the generation cannot be changed any more: %s", larder_last_error());
    switches += changed;
}

static void make_trouble(test_random *random)
{
    struct process *process = &processes[test_random_below(random, PROCESSES)];
    unsigned what = (unsigned)test_random_below(random, 100);
    test_pause_us(test_random_below(random, 3000));
    all_live();
    if (what < 65) {
        stop_one(random, process);
    } else if (what < 95) {
        if (what < 75) { /* killed while it is stopped: others may just have found it so */
            test_stop(process->pid);
            test_pause_us(test_random_below(random, 4000));
        }
        test_kill(process->pid);
        kills++;
        start(process);
    } else if (what < 97) {
        switch_generation();
    } else {
        int result = LARDER_EFULL;
        /* Full: a reader that gets no processor keeps all that was let go since. It goes on. */
        for (unsigned tries = 0; result == LARDER_EFULL && tries < 100 * TEST_SLOWNESS; tries++) {
            upkeep_step step = {.next_row = 0};
            test_pause_us(tries == 0 ? 0 : 20000);
            result = upkeep_expire(parent_handle, &step, 500, 0);
        }
        test_check(result == LARDER_OK || result == LARDER_EBUSY, "expire: %d %s", result,
                   larder_last_error());
    }
}

/* ---- A run ------------------------------------------------------------------------------------
 */

static void is_whole(larder_stats *stats)
{
    inspect_report report;
    int result = LARDER_EBUSY;
    for (unsigned tries = 0; tries < 100 && result == LARDER_EBUSY; tries++) {
        result = inspect_check(parent_handle, &report);
    }
    test_check(result == LARDER_OK && !report.damaged, "check: %d %s", result,
               result == LARDER_OK ? report.damage : larder_last_error());
    test_check(larder_stats_read(parent_handle, stats, sizeof *stats) == LARDER_OK, "stats");
    test_check(stats->read_corrupt == 0, "%" PRIu64 " reads found damage", stats->read_corrupt);
    test_check(stats->evictions == 0, "the map is too small for this test");
}

static void figure(const char *name, uint64_t number)
{
    char text[64];
    (void)snprintf(text, sizeof text, "coherence_%s_%s", map_name, name);
    test_figure(text, (double)number, "count");
}

/* Opening, reads may find gates busy: from here on they do not, but for trouble. */
static void all_warm(void)
{
    larder_stats stats;
    test_until(atomic_load(&board->warm) == SLOTS, 20000, "the processes do not begin");
    test_check(larder_stats_read(parent_handle, &stats, sizeof stats) == LARDER_OK, "stats");
    atomic_store(&board->busy_before, stats.read_busy);
    atomic_store(&board->go, 1);
}

static void run_map(const char *name, uint64_t hot_bytes, bool trouble, uint64_t reads)
{
    test_random random = test_random_new(77);
    larder_stats stats;
    memset(board, 0, sizeof *board);
    map_name = name;
    hot_size = hot_bytes;
    board->far_ms = coherence_now_ms() + INT64_C(10) * 24 * 3600 * 1000;
    parent_handle = open_map(0);
    coherence_fill(parent_handle);
    board->trouble = trouble;
    if (trouble) { /* the parent's handle was as patient as can be, its children's must not be */
        larder_close(&parent_handle);
        parent_handle = open_map(0);
        (void)larder_has(parent_handle, "k0", 2); /* so that it is inherited open */
    }
    for (unsigned i = 0; i < PROCESSES; i++) {
        start(&processes[i]);
    }
    all_warm();
    while (coherence_reads() < reads) {
        if (trouble) {
            make_trouble(&random);
        } else {
            test_pause_us(1000);
            all_live();
        }
    }
    atomic_store(&board->end, 1);
    for (unsigned i = 0; i < PROCESSES; i++) {
        test_join(processes[i].pid, 20000, "a process");
    }
    is_whole(&stats);
    figure("reads", coherence_reads());
    figure("writes", atomic_load(&board->writes));
    figure("hot_hits", stats.hot_hits);
    test_check(stats.hot_hits > coherence_reads() / 20, "the hot set had no part in it");
    if (trouble) {
        figure("refused", stats.refused_busy);
        figure("excused", atomic_load(&board->excused));
        figure("recoveries", stats.gate_recoveries);
        test_check(stats.refused_busy > 0 || reads < 100000, "nothing was ever refused");
    } else {
        test_check(stats.refused_busy == 0, "there was trouble");
        test_check(atomic_load(&board->excused) == 0, "reads found gates busy");
    }
    larder_close(&parent_handle);
}

int main(void)
{
    test_begin("coherence", 60);
    uint64_t reads = test_number("LARDER_READS", 2000000, 300000000) / TEST_SLOWNESS;
    uint64_t in_trouble = test_number("LARDER_TROUBLE", 400000, 30000000) / TEST_SLOWNESS;
    (void)alarm((unsigned)(60 + (reads + in_trouble) / 20000) * TEST_SLOWNESS);
    directory = test_directory();
    board = test_shared(sizeof *board);
    run_map("crowded", 64 << 10, false, reads - reads / 4);
    run_map("roomy", 1 << 20, false, reads / 4);
    run_map("trouble", 256 << 10, true, in_trouble);
    test_figure("coherence_stops", (double)stops, "count");
    test_figure("coherence_kills", (double)kills, "count");
    test_figure("coherence_generations", (double)switches, "count");
    test_end();
}
