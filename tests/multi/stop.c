/* stop.c: a process is stopped (SIGSTOP) while it holds one of the map's locks. The others get
 * LARDER_EBUSY within their deadline and go on reading; what they delete or fail to overwrite in
 * that time is never read again, by anybody, neither before nor after the stopped one goes on or is
 * killed. Then the same with processes stopped inside larder_open and a thread's first read.
 *
 * The writer is stopped at random instants until a probing set is refused: then it holds the gate.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "handle.h"
#include "harness.h"
#include "inspect.h"
#include "larder.h"

enum { KEYS = 6, BATCH = 128, BATCH_VALUE = 2000, BUSY_KEYS = 4, FLOOD = 3000, STEPS = 512 };

struct board {
    _Atomic uint32_t park, parked, end;
    _Atomic uint64_t written;         /* batches of the writer that were acknowledged */
    _Atomic uint64_t step, step_done; /* of the watching process */
    _Atomic uint64_t flood;           /* flood keys of this round were deleted: 0 or the round */
    _Atomic uint64_t flood_count;
    _Atomic uint64_t round;
    _Atomic uint64_t busy_keys_dead; /* clock: keys of the stopped batch were deleted before it */
};

static struct board *board;
static const char *directory;

static larder *open_map(int64_t write_wait_ms)
{
    larder_options options = {
        .dir = directory, .map_size = 64u << 20, .write_wait_ms = write_wait_ms};
    larder *handle = NULL;
    int code = larder_open("stop", &options, &handle);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    return handle;
}

static int set_text(larder *handle, const char *key, const char *text)
{
    return larder_set(handle, key, strlen(key), text, strlen(text), NULL);
}

/* ---- Keys of a round: family 'a' is left alone, 'd' deleted, 'm' deleted in one call, 'r'
 * overwritten in vain, 'x' likewise by set after add, replace, cas and set_many. One of each family
 * is long, one has chunks. */

static void family_key(char out[1024], char family, unsigned index)
{
    int used = snprintf(out, 1024, "%c:%u:", family, index);
    if (index == 1) { /* longer than LMDB's keys */
        memset(out + used, 'k', 800);
        out[used + 800] = '\0';
    }
}

static size_t family_size(unsigned index)
{
    return index == 2 ? 30000 : 40 + index;
}

static uint64_t family_tag(char family, unsigned index, uint64_t round)
{
    return ((uint64_t)family << 48) | ((uint64_t)index << 40) | round;
}

static void family_set(larder *handle, char family, uint64_t round)
{
    static uint8_t value[30000];
    char key[1024];
    for (unsigned index = 0; index < KEYS; index++) {
        family_key(key, family, index);
        test_value_fill(value, family_size(index), family_tag(family, index, round));
        uint64_t deadline = test_now_us() + 5000000u * TEST_SLOWNESS;
        int code;
        while ((code = larder_set(handle, key, strlen(key), value, family_size(index), NULL)) ==
               LARDER_EBUSY) {
            test_check(test_now_us() < deadline, "set %.16s stays busy", key);
        }
        test_check(code == LARDER_OK, "set %.16s: %d %s", key, code, larder_last_error());
    }
}

static void family_is_there(larder *handle, char family, uint64_t round)
{
    static uint8_t value[30000];
    char key[1024];
    for (unsigned index = 0; index < KEYS; index++) {
        family_key(key, family, index);
        larder_info info;
        int code = larder_get(handle, key, strlen(key), value, sizeof value, &info);
        test_check(code == LARDER_OK, "get %.16s: %d", key, code);
        test_check(info.size == family_size(index) &&
                       test_value_is(value, info.size, family_tag(family, index, round)),
                   "get %.16s: another value", key);
    }
}

static void key_is_gone(larder *handle, const char *key, const char *when)
{
    static uint8_t buffer[32];
    size_t size = strlen(key);
    int code = larder_get(handle, key, size, buffer, sizeof buffer, NULL);
    test_check(code == LARDER_MISS, "%s: get %.16s gives %d: the old value", when, key, code);
    code = larder_has(handle, key, size);
    test_check(code == LARDER_MISS, "%s: has %.16s gives %d", when, key, code);
    void *memory = NULL;
    size_t got = 0;
    code = larder_get_alloc(handle, key, size, &memory, &got, NULL);
    test_check(code == LARDER_MISS, "%s: get_alloc %.16s gives %d", when, key, code);
    larder_view view;
    code = larder_borrow(handle, key, size, &view);
    test_check(code == LARDER_MISS, "%s: borrow %.16s gives %d", when, key, code);
    larder_item item = {.key = key, .key_size = size};
    code = larder_get_many(handle, &item, 1, &memory);
    test_check(code == LARDER_OK && item.outcome == LARDER_MISS, "%s: get_many %.16s gives %d %d",
               when, key, code, item.outcome);
    larder_free(memory);
    larder_cursor cursor = {0};
    size_t found = 0;
    code = larder_scan(handle, &cursor, (larder_bytes){key, size}, &item, 1, LARDER_SCAN_KEYS,
                       &found, &memory);
    test_check(code == LARDER_OK && found == 0, "%s: scan %.16s gives %d and %zu", when, key, code,
               found);
    larder_free(memory);
}

static void family_is_gone(larder *handle, char family, const char *when)
{
    char key[1024];
    for (unsigned index = 0; index < KEYS; index++) {
        family_key(key, family, index);
        key_is_gone(handle, key, when);
    }
}

static void flood_is_gone(larder *handle, const char *when)
{
    uint64_t round = atomic_load(&board->flood), count = atomic_load(&board->flood_count);
    if (round == 0)
        return;
    for (uint64_t index = 0; index < count; index++) {
        char key[64], value[64];
        size_t size = (size_t)snprintf(key, sizeof key, "flood:%" PRIu64 ":%" PRIu64, round, index);
        int code = larder_get(handle, key, size, value, sizeof value, NULL);
        test_check(code == LARDER_MISS, "%s: deleted %s gives %d", when, key, code);
    }
}

/* A key of the batch in which the writer was stopped, deleted meanwhile: gone, unless the batch
 * came to that item after it went on, and so after the deletion. */
static void busy_key_is_gone(larder *handle, unsigned index, const char *when)
{
    char key[16];
    larder_info info;
    snprintf(key, sizeof key, "w:%03u", index);
    int code = larder_get(handle, key, strlen(key), NULL, 0, &info);
    if (code != LARDER_ESIZE) {
        key_is_gone(handle, key, when);
        return;
    }
    test_check(info.version.clock > atomic_load(&board->busy_keys_dead), "%s: %s is the old value",
               when, key);
}

static void removed_keys_are_gone(larder *handle, const char *when)
{
    family_is_gone(handle, 'd', when);
    family_is_gone(handle, 'm', when);
    family_is_gone(handle, 'r', when);
    family_is_gone(handle, 'x', when);
    flood_is_gone(handle, when);
    for (unsigned index = 0; index < BUSY_KEYS; index++)
        busy_key_is_gone(handle, index, when);
}

/* ---- The processes ------------------------------------------------------------------------- */

static int writer(void *context)
{
    (void)context;
    larder *handle = open_map(1000);
    static uint8_t values[BATCH][BATCH_VALUE];
    static char keys[BATCH][16];
    larder_item items[BATCH];
    while (!atomic_load(&board->end)) {
        uint64_t number = atomic_load(&board->written) + 1;
        for (unsigned at = 0; at < BATCH; at++) {
            snprintf(keys[at], sizeof keys[at], "w:%03u", at);
            test_value_fill(values[at], BATCH_VALUE, number << 16 | at);
            items[at] = (larder_item){.key = keys[at],
                                      .key_size = strlen(keys[at]),
                                      .value = values[at],
                                      .value_size = BATCH_VALUE};
        }
        int code = larder_set_many(handle, items, BATCH, NULL);
        test_check(code == LARDER_OK || code == LARDER_EBUSY, "set_many: %d %s", code,
                   larder_last_error());
        atomic_store(&board->written, number);
        if (atomic_load(&board->park)) {
            atomic_store(&board->parked, 1);
            while (atomic_load(&board->park))
                test_pause_us(100);
            atomic_store(&board->parked, 0);
        }
    }
    larder_close(&handle);
    return 0;
}

/* Attached all the time; looks whenever the step moves. */
static int watcher(void *context)
{
    (void)context;
    larder *handle = open_map(50);
    larder_has(handle, "warm", 4);
    atomic_store(&board->step_done, 1);
    uint64_t seen = 0;
    while (!atomic_load(&board->end)) {
        uint64_t step = atomic_load(&board->step);
        if (step == seen) {
            test_pause_us(100);
            continue;
        }
        family_is_there(handle, 'a', atomic_load(&board->round));
        removed_keys_are_gone(handle, "in a process that was attached before");
        seen = step;
        atomic_store(&board->step_done, step + 1);
    }
    larder_close(&handle);
    return 0;
}

/* Attaches only now. */
static int newcomer(void *context)
{
    (void)context;
    uint64_t began = test_now_us();
    larder *handle = open_map(50);
    uint64_t took = test_now_us() - began;
    test_check(took < 1000000u * TEST_SLOWNESS, "attach took %" PRIu64 " us", took);
    family_is_there(handle, 'a', atomic_load(&board->round));
    removed_keys_are_gone(handle, "in a process that attached afterwards");
    larder_close(&handle);
    return 0;
}

static void all_look(larder *handle, const char *when)
{
    removed_keys_are_gone(handle, when);
    uint64_t step = atomic_fetch_add(&board->step, 1) + 1;
    test_until(atomic_load(&board->step_done) == step + 1, 10000,
               "%s: the watching process found something", when);
    test_join(test_spawn(newcomer, NULL), 10000, "a newcomer");
}

/* ---- A round ------------------------------------------------------------------------------- */

static uint64_t waits_us[STEPS], reads_us[STEPS];
static unsigned wait_count, read_count, tries;

static int compare_numbers(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static void note(uint64_t *list, unsigned *count, uint64_t value)
{
    if (*count < STEPS)
        list[(*count)++] = value;
}

/* Stop the writer at random instants until it holds the gate. */
static void stop_with_gate(pid_t child, larder *probe, test_random *random)
{
    for (unsigned attempt = 0; attempt < 2000; attempt++) {
        tries++;
        test_pause_us(test_random_below(random, 3000));
        test_stop(child);
        int code = set_text(probe, "probe", "value");
        if (code == LARDER_EBUSY)
            return;
        test_check(code == LARDER_OK, "probe: %d %s", code, larder_last_error());
        kill(child, SIGCONT);
    }
    test_fail("the writer was never stopped inside the gate");
}

static void timed_busy(int code, uint64_t began, const char *what)
{
    uint64_t took = test_now_us() - began;
    note(waits_us, &wait_count, took);
    test_check(code == LARDER_EBUSY, "%s while the gate is held: %d %s", what, code,
               larder_last_error());
    test_check(took < 1000000u * TEST_SLOWNESS, "%s took %" PRIu64 " us", what, took);
}

static void refuse_all(larder *handle)
{
    char key[1024];
    for (unsigned index = 0; index < KEYS; index++) {
        family_key(key, 'r', index);
        uint64_t began = test_now_us();
        timed_busy(set_text(handle, key, "new"), began, "set");
        family_key(key, 'd', index);
        began = test_now_us();
        int code = larder_delete(handle, key, strlen(key));
        note(waits_us, &wait_count, test_now_us() - began);
        test_check(code == LARDER_OK, "delete while the gate is held: %d %s", code,
                   larder_last_error());
        began = test_now_us();
        family_key(key, 'a', index);
        code = larder_has(handle, key, strlen(key));
        note(reads_us, &read_count, test_now_us() - began);
        test_check(code == LARDER_OK, "has %.16s: %d", key, code);
    }
    static char keys[KEYS][1024];
    larder_item items[KEYS] = {0};
    for (unsigned index = 0; index < KEYS; index++) {
        family_key(keys[index], 'm', index);
        items[index].key = keys[index];
        items[index].key_size = strlen(keys[index]);
    }
    uint64_t began = test_now_us();
    int code = larder_delete_many(handle, items, KEYS);
    note(waits_us, &wait_count, test_now_us() - began);
    test_check(code == LARDER_OK, "delete_many while the gate is held: %d", code);
    for (unsigned index = 0; index < KEYS; index++) {
        test_check(items[index].outcome == LARDER_OK, "item of delete_many: %d",
                   items[index].outcome);
    }
}

/* Every other way to write is refused, too, and leaves no old value. */
static void refuse_the_rest(larder *handle)
{
    char key[1024];
    larder_info info;
    family_key(key, 'x', 0);
    uint64_t began = test_now_us();
    timed_busy(larder_add(handle, key, strlen(key), "n", 1, NULL), began, "add");
    set_text(handle, key, "n");
    family_key(key, 'x', 1);
    began = test_now_us();
    timed_busy(larder_replace(handle, key, strlen(key), "n", 1, NULL), began, "replace");
    family_key(key, 'x', 2);
    int code = larder_get(handle, key, strlen(key), NULL, 0, &info);
    test_check(code == LARDER_ESIZE, "get for the size: %d", code);
    began = test_now_us();
    timed_busy(larder_cas(handle, key, strlen(key), "n", 1, &info.version, NULL), began, "cas");
    char text[8] = "";
    began = test_now_us();
    timed_busy(larder_incr(handle, "count", 5, 1, NULL, NULL), began, "incr");
    code = larder_get(handle, "count", 5, text, sizeof text - 1, NULL);
    test_check(code == LARDER_MISS || (code == LARDER_OK && strcmp(text, "41") == 0),
               "a refused incr left %d '%s'", code, text);
    for (unsigned index = 3; index < KEYS; index++) {
        family_key(key, 'x', index);
        larder_item item = {.key = key, .key_size = strlen(key), .value = "n", .value_size = 1};
        began = test_now_us();
        code = larder_set_many(handle, &item, 1, NULL);
        timed_busy(code == LARDER_OK ? item.outcome : code, began, "set_many");
    }
    for (unsigned index = 0; index < BUSY_KEYS; index++) {
        snprintf(key, sizeof key, "w:%03u", index);
        code = larder_delete(handle, key, strlen(key));
        test_check(code == LARDER_OK || code == LARDER_MISS, "delete %s: %d", key, code);
    }
    /* nobody else draws versions while the gate is held */
    atomic_store(&board->busy_keys_dead, clock_next(map_control(handle->map)).clock);
}

/* More deletions than the pending table holds. */
static void flood_set(larder *handle, uint64_t round, uint64_t count)
{
    for (uint64_t index = 0; index < count; index++) {
        char key[64];
        snprintf(key, sizeof key, "flood:%" PRIu64 ":%" PRIu64, round, index);
        int code = set_text(handle, key, "flooded");
        test_check(code == LARDER_OK, "set %s: %d %s", key, code, larder_last_error());
    }
}

static void flood_delete(larder *quick, uint64_t round, uint64_t count)
{
    for (uint64_t index = 0; index < count; index++) {
        char key[64];
        size_t size = (size_t)snprintf(key, sizeof key, "flood:%" PRIu64 ":%" PRIu64, round, index);
        int code = larder_delete(quick, key, size);
        test_check(code == LARDER_OK || code == LARDER_MISS, "delete %s: %d %s", key, code,
                   larder_last_error());
    }
    atomic_store(&board->flood_count, count);
    atomic_store(&board->flood, round);
}

static void is_whole(larder *handle)
{
    inspect_report report;
    int code = inspect_check(handle, &report);
    test_check(code == LARDER_OK && !report.damaged, "check: %d %s", code,
               report.damaged ? report.damage : larder_last_error());
}

static void go_on(pid_t *child, larder *handle, bool killed)
{
    if (killed) {
        test_kill(*child);
        uint64_t began = test_now_us();
        int code = set_text(handle, "probe", "after");
        uint64_t took = test_now_us() - began;
        test_check(code == LARDER_OK && took < 1000000u * TEST_SLOWNESS,
                   "the first set after the holder's death: %d after %" PRIu64 " us", code, took);
    } else {
        atomic_store(&board->park, 1);
        kill(*child, SIGCONT);
        test_until(atomic_load(&board->parked), 5000, "the writer does not go on");
        int code = set_text(handle, "probe", "after");
        test_check(code == LARDER_OK, "the first set after SIGCONT: %d", code);
    }
}

static void one_round(uint64_t round, pid_t *child, larder *handle, larder *quick,
                      test_random *random)
{
    bool killed = round % 2 == 0, flood = round % 3 == 1;
    atomic_store(&board->round, round);
    const char families[] = "admrx";
    uint64_t written = atomic_load(&board->written);
    test_until(atomic_load(&board->written) > written, 5000, "the writer does not write");
    atomic_store(&board->flood, 0);
    /* what is set here would be refused now and then while the writer is at work */
    atomic_store(&board->park, 1);
    test_until(atomic_load(&board->parked), 5000, "the writer does not park");
    for (const char *family = families; *family != '\0'; family++) {
        family_set(handle, *family, round);
        family_is_there(handle, *family, round);
    }
    test_check(set_text(handle, "count", "41") == LARDER_OK, "set");
    if (flood)
        flood_set(handle, round, FLOOD / TEST_SLOWNESS);
    atomic_store(&board->park, 0);
    stop_with_gate(*child, quick, random);
    refuse_all(handle);
    refuse_the_rest(handle);
    if (!flood)
        family_is_there(handle, 'a', round);
    if (!flood)
        all_look(handle, "while the gate is held");
    if (flood) {
        flood_delete(quick, round, FLOOD / TEST_SLOWNESS);
        removed_keys_are_gone(handle, "after a flood of deletions");
    }
    go_on(child, handle, killed);
    if (flood)
        family_set(handle, 'a', round); /* the barrier may have taken them */
    all_look(handle, "after the holder went on or died");
    is_whole(handle);
    if (killed) {
        *child = test_spawn(writer, NULL);
    } else {
        atomic_store(&board->park, 0);
    }
    for (const char *family = families; *family != '\0'; family++) {
        family_set(handle, *family, round + 100000);
        family_is_there(handle, *family, round + 100000);
    }
}

/* ---- Stopped in open, in a first read ------------------------------------------------------ */

static void *first_read(void *context)
{
    larder *handle = context;
    int code = larder_has(handle, "steady", 6);
    test_check(code == LARDER_OK || code == LARDER_MISS, "has: %d %s", code, larder_last_error());
    return NULL;
}

static void read_in_a_thread(larder *handle)
{
    pthread_t thread;
    test_check(pthread_create(&thread, NULL, first_read, handle) == 0, "pthread_create");
    test_check(pthread_join(thread, NULL) == 0, "pthread_join");
}

static int opener(void *context)
{
    (void)context;
    while (!atomic_load(&board->end)) {
        larder_options options = {.dir = directory};
        larder *handle = NULL;
        int code = larder_open("stop", &options, &handle);
        if (code == LARDER_EBUSY)
            continue; /* the other one was stopped inside */
        test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
        read_in_a_thread(handle);
        larder_view view;
        if (larder_borrow(handle, "steady", 6, &view) == LARDER_OK)
            larder_release(handle, &view);
        larder_close(&handle);
    }
    return 0;
}

static int short_opener(void *context)
{
    (void)context;
    larder_options options = {.dir = directory};
    larder *handle = NULL;
    int code = larder_open("stop", &options, &handle);
    if (code == LARDER_EBUSY)
        return 5;
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    code = larder_has(handle, "steady", 6); /* a miss where the reader gate is held */
    test_check(code == LARDER_OK || code == LARDER_MISS, "has: %d", code);
    larder_close(&handle);
    return 0;
}

static void stop_openers(larder *handle, test_random *random, uint64_t rounds)
{
    atomic_store(&board->end, 0);
    pid_t child = test_spawn(opener, NULL);
    unsigned refused = 0;
    for (uint64_t round = 0; round < rounds; round++) {
        test_pause_us(test_random_below(random, 4000));
        test_stop(child);
        uint64_t began = test_now_us();
        test_check(set_text(handle, "steady", "value") == LARDER_OK, "set: %s",
                   larder_last_error());
        test_check(larder_has(handle, "steady", 6) == LARDER_OK, "has: %s", larder_last_error());
        read_in_a_thread(handle);
        uint64_t took = test_now_us() - began;
        test_check(took < 1000000u * TEST_SLOWNESS, "set and reads took %" PRIu64 " us", took);
        int status = test_wait(test_spawn(short_opener, NULL), 5000);
        test_check(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 5),
                   "open beside a stopped one: %s", test_status_text(status));
        refused += WEXITSTATUS(status) == 5;
        kill(child, SIGCONT);
        status = 0;
        test_check(waitpid(child, &status, WNOHANG) == 0, "the opening process ended: %s",
                   test_status_text(status));
    }
    atomic_store(&board->end, 1);
    test_join(child, 5000, "the opening process");
    test_figure("stop_opens_refused_busy", refused, "count");
}

int main(void)
{
    test_begin("stop", 90);
    uint64_t rounds = test_number("LARDER_ROUNDS", 4, 40);
    directory = test_directory();
    board = test_shared(sizeof *board);
    test_random random = test_random_new(1);
    pid_t child = test_spawn(writer, NULL), watching = test_spawn(watcher, NULL);
    larder *handle = open_map(0), *quick = open_map(1);
    test_until(atomic_load(&board->step_done) == 1, 5000, "the watching process does not begin");
    for (uint64_t round = 1; round <= rounds; round++) {
        one_round(round, &child, handle, quick, &random);
    }
    larder_stats stats;
    test_check(larder_stats_read(handle, &stats, sizeof stats) == LARDER_OK, "stats");
    test_check(stats.pending_overflows > 0, "the pending table never overflowed");
    test_check(stats.refused_busy > 0, "refusals are not counted");
    atomic_store(&board->end, 1);
    test_join(child, 10000, "the writer");
    test_join(watching, 10000, "the watching process");
    stop_openers(handle, &random, test_number("LARDER_STOPS", 60, 2000) / TEST_SLOWNESS);
    is_whole(handle);
    larder_close(&quick);
    larder_close(&handle);
    qsort(waits_us, wait_count, sizeof waits_us[0], compare_numbers);
    qsort(reads_us, read_count, sizeof reads_us[0], compare_numbers);
    test_figure("stop_rounds", (double)rounds, "count");
    test_figure("stop_tries", tries, "count");
    test_figure("stop_refused_median", (double)waits_us[wait_count / 2] / 1e3, "ms");
    test_figure("stop_refused_longest", (double)waits_us[wait_count - 1] / 1e3, "ms");
    test_figure("stop_read_median", (double)reads_us[read_count / 2], "us");
    test_figure("stop_read_longest", (double)reads_us[read_count - 1], "us");
    test_check(waits_us[wait_count / 2] <= 100000u * TEST_SLOWNESS, "refusals take %" PRIu64 " us",
               waits_us[wait_count / 2]);
    test_end();
}
