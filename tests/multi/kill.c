/* kill.c: two processes in a loop of reads and writes, a third one killed by SIGKILL at random
 * instants, again and again ($LARDER_KILLS). After each kill the whole map is walked, and every key
 * of the dead process is compared with its journal: what it was told is stored must be there, what
 * it was doing may be old or new, a batch is all or nothing. The survivors compare each of their
 * own reads, and no call of theirs may take over a second. Then processes are killed inside
 * larder_open of a map that does not exist yet.
 *
 * The journal lives in anonymous shared memory and is written around each call, never by the
 * library.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"
#include "inspect.h"
#include "larder.h"

enum { SLOTS = 3, VICTIM = 2, KEYS = 96, SHARED_KEYS = 12, BATCH = 6, VALUE_MAX = 24 * 1024 };
#define NOTHING UINT64_MAX /* no operation in flight */
#define STALL_US 1000000u

struct entry { /* of one key; a value is named by its tag, 0 = absent */
    _Atomic uint64_t acknowledged, in_flight, batch;
};

struct journal { /* of one slot */
    struct entry entries[KEYS];
    _Atomic int64_t counter, counter_delta;
    _Atomic uint64_t sequence, operations, longest_us;
    _Atomic uint32_t longest_call;
};

struct board {
    struct journal journals[SLOTS];
    _Atomic uint32_t stop;
    _Atomic uint32_t pause; /* survivors park between two calls while it is set */
    _Atomic uint32_t parked;
};

static struct board *board;
static const char *directory;

enum call {
    CALL_OPEN,
    CALL_GET,
    CALL_SET,
    CALL_DELETE,
    CALL_MANY,
    CALL_INCR,
    CALL_BORROW,
    CALL_TOUCH,
    CALL_SCAN,
    CALL_SHARED,
    CALL_CLOSE
};
static const char *const call_names[] = {"open",   "get",   "set",  "delete", "set_many", "incr",
                                         "borrow", "touch", "scan", "shared", "close"};

/* ---- What both sides know ----------------------------------------------------------------------
 */

static size_t key_text(char out[32], unsigned slot, unsigned index)
{
    return (size_t)snprintf(out, 32, "own:%u:%u", slot, index);
}

static size_t size_of(uint64_t tag)
{
    uint64_t word = (tag * UINT64_C(0x9e3779b97f4a7c15)) >> 16;
    if (word % 10 < 7)
        return 8 + (size_t)((word >> 8) % 200);
    if (word % 10 < 9)
        return 200 + (size_t)((word >> 8) % 3900);
    return 4096 + (size_t)((word >> 8) % (VALUE_MAX - 4096));
}

static larder *open_map(const char *name, uint64_t map_size, int *code)
{
    larder_options options = {.dir = directory, .map_size = map_size, .write_wait_ms = 3000};
    larder *handle = NULL;
    *code = larder_open(name, &options, &handle);
    return handle;
}

/* For messages: what the map says of itself. */
static const char *state_of(larder *handle)
{
    static char text[200];
    larder_stats stats = {0};
    if (larder_stats_read(handle, &stats, sizeof stats) < 0)
        return "no statistics";
    snprintf(text, sizeof text,
             "generation %" PRIu64 ", %" PRIu64 " entries, %" PRIu64 " reads met damage, %" PRIu64
             " a busy gate, %" PRIu64 " recoveries",
             stats.generation, stats.entries, stats.read_corrupt, stats.read_busy,
             stats.gate_recoveries);
    return text;
}

/* The tag stored under an own key, 0 if absent; fails on anything torn or foreign. */
static uint64_t read_tag(larder *handle, unsigned slot, unsigned index)
{
    static _Thread_local uint8_t value[VALUE_MAX];
    char key[32];
    size_t key_size = key_text(key, slot, index);
    larder_info info;
    int code = larder_get(handle, key, key_size, value, sizeof value, &info);
    if (code == LARDER_MISS)
        return 0;
    test_check(code == LARDER_OK, "get %s: %d %s", key, code, larder_last_error());
    uint64_t tag = 0;
    test_check(test_value_tag(value, info.size, &tag) && info.size == size_of(tag),
               "get %s: a torn value of %" PRIu64 " bytes, tag %#" PRIx64, key, info.size, tag);
    return tag;
}

/* ---- The processes in the loop ------------------------------------------------------------------
 */

struct worker {
    larder *handle;
    struct journal *journal;
    unsigned slot;
    test_random random;
    uint64_t began_us;
    uint64_t newest_shared[SHARED_KEYS]; /* newest version clock seen */
    uint8_t value[VALUE_MAX];
    uint8_t values[BATCH][VALUE_MAX];
};

static void call_begins(struct worker *worker)
{
    worker->began_us = test_now_us();
}

static void call_ended(struct worker *worker, enum call call)
{
    uint64_t took = test_now_us() - worker->began_us;
    if (took > atomic_load(&worker->journal->longest_us)) {
        atomic_store(&worker->journal->longest_us, took);
        atomic_store(&worker->journal->longest_call, (uint32_t)call);
    }
    atomic_fetch_add(&worker->journal->operations, 1);
}

static uint64_t new_tag(struct worker *worker, unsigned index)
{
    uint64_t sequence = atomic_fetch_add(&worker->journal->sequence, 1) + 1;
    return ((uint64_t)(worker->slot + 1) << 56) | ((uint64_t)index << 40) | sequence;
}

static void must(int code, const char *what)
{
    test_check(code == LARDER_OK || code == LARDER_MISS, "%s: %d %s", what, code,
               larder_last_error());
}

static void begin_entry(struct entry *entry, uint64_t tag, uint64_t batch)
{
    atomic_store(&entry->batch, batch);
    atomic_store(&entry->in_flight, tag);
}

static void end_entry(struct entry *entry)
{
    atomic_store(&entry->acknowledged, atomic_load(&entry->in_flight));
    atomic_store(&entry->in_flight, NOTHING);
}

static void do_get(struct worker *worker, unsigned index)
{
    call_begins(worker);
    uint64_t tag = read_tag(worker->handle, worker->slot, index);
    call_ended(worker, CALL_GET);
    uint64_t expected = atomic_load(&worker->journal->entries[index].acknowledged);
    test_check(tag == expected, "own:%u:%u reads %#" PRIx64 ", acknowledged was %#" PRIx64 "; %s",
               worker->slot, index, tag, expected, state_of(worker->handle));
}

static void do_set(struct worker *worker, unsigned index)
{
    char key[32];
    size_t key_size = key_text(key, worker->slot, index);
    uint64_t tag = new_tag(worker, index);
    test_value_fill(worker->value, size_of(tag), tag);
    begin_entry(&worker->journal->entries[index], tag, 0);
    call_begins(worker);
    int code = larder_set(worker->handle, key, key_size, worker->value, size_of(tag), NULL);
    call_ended(worker, CALL_SET);
    must(code, "set");
    end_entry(&worker->journal->entries[index]);
}

static void do_delete(struct worker *worker, unsigned index)
{
    char key[32];
    size_t key_size = key_text(key, worker->slot, index);
    struct entry *entry = &worker->journal->entries[index];
    uint64_t before = atomic_load(&entry->acknowledged);
    begin_entry(entry, 0, 0);
    call_begins(worker);
    int code = larder_delete(worker->handle, key, key_size);
    call_ended(worker, CALL_DELETE);
    must(code, "delete");
    test_check((code == LARDER_OK) == (before != 0), "delete %s said %d, it was %s; %s", key, code,
               before != 0 ? "there" : "absent", state_of(worker->handle));
    end_entry(entry);
}

static void do_many(struct worker *worker)
{
    larder_item items[BATCH] = {0};
    char keys[BATCH][32];
    unsigned first = (unsigned)test_random_below(&worker->random, KEYS);
    uint64_t batch = atomic_fetch_add(&worker->journal->sequence, 1) + 1;
    for (unsigned at = 0; at < BATCH; at++) {
        unsigned index = (first + at * 7) % KEYS;
        uint64_t tag = new_tag(worker, index);
        items[at].key_size = key_text(keys[at], worker->slot, index);
        items[at].key = keys[at];
        items[at].value_size = size_of(tag);
        items[at].value = worker->values[at];
        test_value_fill(worker->values[at], size_of(tag), tag);
        begin_entry(&worker->journal->entries[index], tag, batch);
    }
    call_begins(worker);
    int code = larder_set_many(worker->handle, items, BATCH, NULL);
    call_ended(worker, CALL_MANY);
    must(code, "set_many");
    for (unsigned at = 0; at < BATCH; at++) {
        must(items[at].outcome, "item of set_many");
        end_entry(&worker->journal->entries[(first + at * 7) % KEYS]);
    }
}

static void do_incr(struct worker *worker)
{
    char key[32];
    size_t key_size = (size_t)snprintf(key, sizeof key, "count:%u", worker->slot);
    int64_t delta = (int64_t)test_random_below(&worker->random, 1000) + 1, result = 0;
    atomic_store(&worker->journal->counter_delta, delta);
    call_begins(worker);
    int code = larder_incr(worker->handle, key, key_size, delta, &result, NULL);
    call_ended(worker, CALL_INCR);
    must(code, "incr");
    int64_t expected = atomic_load(&worker->journal->counter) + delta;
    test_check(result == expected, "%s: %" PRId64 ", expected %" PRId64, key, result, expected);
    atomic_store(&worker->journal->counter, expected);
    atomic_store(&worker->journal->counter_delta, 0);
}

static void do_borrow(struct worker *worker, unsigned index)
{
    char key[32];
    size_t key_size = key_text(key, worker->slot, index), at = 0;
    larder_view view;
    call_begins(worker);
    int code = larder_borrow(worker->handle, key, key_size, &view);
    call_ended(worker, CALL_BORROW);
    must(code, "borrow");
    if (code != LARDER_OK)
        return;
    for (size_t part = 0; part < view.part_count; part++) {
        test_check(at + view.parts[part].iov_len <= VALUE_MAX, "%s: a view too long", key);
        memcpy(worker->value + at, view.parts[part].iov_base, view.parts[part].iov_len);
        at += view.parts[part].iov_len;
    }
    uint64_t tag = 0;
    test_check(at == view.info.size && test_value_tag(worker->value, at, &tag),
               "%s: a torn view of %zu bytes", key, at);
    larder_release(worker->handle, &view);
}

static void do_touch(struct worker *worker, unsigned index)
{
    char key[32];
    size_t key_size = key_text(key, worker->slot, index);
    larder_expiry expiry = larder_expire_in(3600000);
    call_begins(worker);
    int code = larder_touch(worker->handle, key, key_size, &expiry);
    call_ended(worker, CALL_TOUCH);
    must(code, "touch");
}

static void do_scan(struct worker *worker)
{
    char prefix[32];
    larder_bytes bytes = {prefix, (size_t)snprintf(prefix, sizeof prefix, "own:%u:", worker->slot)};
    larder_cursor cursor = {0};
    larder_item items[32];
    size_t found = 0;
    void *memory = NULL;
    call_begins(worker);
    int code =
        larder_scan(worker->handle, &cursor, bytes, items, 32, LARDER_SCAN_VALUES, &found, &memory);
    call_ended(worker, CALL_SCAN);
    must(code, "scan");
    for (size_t at = 0; at < found; at++) {
        uint64_t tag = 0;
        test_check(test_value_tag(items[at].value, items[at].value_size, &tag),
                   "scan brought a torn value of %zu bytes", items[at].value_size);
    }
    larder_free(memory);
}

/* Keys that all three write: a reader never sees a torn value or an older version than before. */
static void do_shared(struct worker *worker)
{
    unsigned index = (unsigned)test_random_below(&worker->random, SHARED_KEYS);
    char key[32];
    size_t key_size = (size_t)snprintf(key, sizeof key, "shared:%u", index);
    larder_info info;
    int code;
    call_begins(worker);
    switch (test_random_below(&worker->random, 5)) {
    case 0:
        code = larder_delete(worker->handle, key, key_size);
        break;
    case 1: {
        uint64_t tag = new_tag(worker, index);
        test_value_fill(worker->value, size_of(tag), tag);
        code = larder_set(worker->handle, key, key_size, worker->value, size_of(tag), NULL);
        break;
    }
    default:
        code = larder_get(worker->handle, key, key_size, worker->value, VALUE_MAX, &info);
        if (code != LARDER_OK)
            break;
        uint64_t tag = 0;
        test_check(test_value_tag(worker->value, info.size, &tag) && info.size == size_of(tag),
                   "%s: a torn value", key);
        test_check(info.version.clock >= worker->newest_shared[index],
                   "%s: version %#" PRIx64 " after %#" PRIx64, key, info.version.clock,
                   worker->newest_shared[index]);
        worker->newest_shared[index] = info.version.clock;
    }
    call_ended(worker, CALL_SHARED);
    must(code, "a call on a shared key");
}

static void work_once(struct worker *worker)
{
    unsigned index = (unsigned)test_random_below(&worker->random, KEYS);
    uint64_t dice = test_random_below(&worker->random, 100);
    if (dice < 30)
        do_set(worker, index);
    else if (dice < 45)
        do_delete(worker, index);
    else if (dice < 65)
        do_get(worker, index);
    else if (dice < 72)
        do_many(worker);
    else if (dice < 78)
        do_incr(worker);
    else if (dice < 82)
        do_borrow(worker, index);
    else if (dice < 84)
        do_touch(worker, index);
    else if (dice < 86)
        do_scan(worker);
    else
        do_shared(worker);
}

static struct worker *worker_new(unsigned slot, uint64_t stream)
{
    struct worker *worker = calloc(1, sizeof *worker);
    test_check(worker != NULL, "calloc");
    worker->slot = slot;
    worker->journal = &board->journals[slot];
    worker->random = test_random_new(stream);
    return worker;
}

static void worker_open(struct worker *worker)
{
    int code = 0;
    call_begins(worker);
    worker->handle = open_map("kill", 64u << 20, &code);
    call_ended(worker, CALL_OPEN);
    test_check(worker->handle != NULL, "open: %d %s", code, larder_last_error());
}

static int survivor(void *context)
{
    unsigned slot = *(unsigned *)context;
    struct worker *worker = worker_new(slot, 1000 + slot);
    worker_open(worker);
    while (!atomic_load(&board->stop)) {
        if (atomic_load(&board->pause)) {
            atomic_fetch_add(&board->parked, 1);
            while (atomic_load(&board->pause))
                test_pause_us(200);
            atomic_fetch_sub(&board->parked, 1);
        }
        work_once(worker);
    }
    larder_close(&worker->handle);
    free(worker);
    return 0;
}

/* Dies by a timer of its own that fires after a random time, while it runs; the parent's SIGKILL
 * (which comes too, later) finds it mostly while it waits. */
static int victim(void *context)
{
    uint64_t round = *(uint64_t *)context;
    struct worker *worker = worker_new(VICTIM, 100000 + round);
    bool own_timer = test_random_below(&worker->random, 3) != 0;
    bool reopens = test_random_below(&worker->random, 3) == 0;
    if (own_timer) {
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
        timer_t timer;
        long ns = 100000 + (long)test_random_below(&worker->random, reopens ? 3000000 : 8000000);
        struct itimerspec when = {.it_value = {0, ns * (long)TEST_SLOWNESS}};
        test_check(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0, "timer_create");
        test_check(timer_settime(timer, 0, &when, NULL) == 0, "timer_settime");
    }
    for (;;) {
        worker_open(worker);
        uint64_t count = reopens ? test_random_below(&worker->random, 20) : UINT64_MAX;
        while (count-- > 0)
            work_once(worker);
        larder_close(&worker->handle);
    }
}

/* ---- The one that looks -------------------------------------------------------------------- */

struct looker {
    int command[2], answer[2];
};

static void look_at_map(larder *handle)
{
    inspect_report report;
    int code = inspect_check(handle, &report);
    test_check(code == LARDER_OK && !report.damaged, "check: %d %s", code,
               report.damaged ? report.damage : larder_last_error());
}

/* Compare a slot whose process is dead or parked, and settle what was in flight. */
static void look_at_slot(larder *handle, unsigned slot)
{
    struct journal *journal = &board->journals[slot];
    uint64_t batch = 0;
    int batch_is_new = -1;
    for (unsigned index = 0; index < KEYS; index++) {
        struct entry *entry = &journal->entries[index];
        uint64_t acknowledged = atomic_load(&entry->acknowledged);
        uint64_t in_flight = atomic_load(&entry->in_flight);
        uint64_t tag = read_tag(handle, slot, index);
        if (in_flight == NOTHING) {
            test_check(tag == acknowledged,
                       "own:%u:%u holds %#" PRIx64 ", acknowledged was %#" PRIx64, slot, index, tag,
                       acknowledged);
            continue;
        }
        test_check(tag == acknowledged || tag == in_flight,
                   "own:%u:%u holds %#" PRIx64 ", neither %#" PRIx64 " nor %#" PRIx64, slot, index,
                   tag, acknowledged, in_flight);
        if (atomic_load(&entry->batch) != 0 && acknowledged != in_flight) {
            test_check(batch == 0 || batch == atomic_load(&entry->batch), "two batches in flight");
            batch = atomic_load(&entry->batch);
            int is_new = tag == in_flight;
            test_check(batch_is_new == -1 || batch_is_new == is_new,
                       "a batch is half written: own:%u:%u", slot, index);
            batch_is_new = is_new;
        }
        atomic_store(&entry->acknowledged, tag);
        atomic_store(&entry->in_flight, NOTHING);
    }
    char key[32], text[32] = "";
    size_t key_size = (size_t)snprintf(key, sizeof key, "count:%u", slot);
    int code = larder_get(handle, key, key_size, text, sizeof text - 1, NULL);
    must(code, "get of a counter");
    int64_t value = code == LARDER_OK ? strtoll(text, NULL, 10) : 0;
    int64_t old = atomic_load(&journal->counter), delta = atomic_load(&journal->counter_delta);
    test_check(value == old || value == old + delta,
               "%s holds %" PRId64 ", neither %" PRId64 " nor %" PRId64, key, value, old,
               old + delta);
    atomic_store(&journal->counter, value);
    atomic_store(&journal->counter_delta, 0);
}

/* Commands: 'a' the map and all slots' keys, 's' print statistics. */
static int looker_main(void *context)
{
    struct looker *looker = context;
    close(looker->command[1]);
    close(looker->answer[0]);
    int code = 0;
    larder *handle = open_map("kill", 64u << 20, &code);
    test_check(handle != NULL, "open: %d %s", code, larder_last_error());
    char command;
    while (read(looker->command[0], &command, 1) == 1) {
        if (command == 's') {
            larder_stats stats;
            code = larder_stats_read(handle, &stats, sizeof stats);
            test_check(code == LARDER_OK, "stats: %d %s", code, larder_last_error());
            test_figure("kill_gate_recoveries", (double)stats.gate_recoveries, "count");
            test_figure("kill_evictions", (double)stats.evictions, "count");
            test_figure("kill_generations", (double)stats.generation, "number");
            test_check(stats.evictions == 0, "something was evicted from a map of 64 MiB");
        } else {
            look_at_map(handle);
            for (unsigned slot = 0; slot < SLOTS; slot++)
                look_at_slot(handle, slot);
        }
        test_check(write(looker->answer[1], &command, 1) == 1, "write: %s", strerror(errno));
    }
    larder_close(&handle);
    return 0;
}

static void ask(struct looker *looker, char command)
{
    test_check(write(looker->command[1], &command, 1) == 1, "write: %s", strerror(errno));
    struct pollfd poll_fd = {.fd = looker->answer[0], .events = POLLIN};
    int ready = poll(&poll_fd, 1, 15000 * (int)TEST_SLOWNESS);
    char answer = 0;
    test_check(ready == 1, "no answer to '%c' in 15 s", command);
    test_check(read(looker->answer[0], &answer, 1) == 1, "the looking process ended");
}

/* ---- The course of it ---------------------------------------------------------------------- */

/* Without reaping it. */
static bool ended(pid_t child)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid != 0;
}

static void still_runs(pid_t child, const char *what)
{
    int status = 0;
    test_check(waitpid(child, &status, WNOHANG) == 0, "%s ended: %s", what,
               test_status_text(status));
}

static void reap_victim(pid_t child)
{
    int status = test_wait(child, 5000);
    test_check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the victim ended itself: %s",
               test_status_text(status));
}

static void kill_in_the_loop(uint64_t kills)
{
    struct looker looker;
    test_check(pipe2(looker.command, O_CLOEXEC) == 0 && pipe2(looker.answer, O_CLOEXEC) == 0,
               "pipe: %s", strerror(errno));
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        for (unsigned index = 0; index < KEYS; index++) {
            atomic_store(&board->journals[slot].entries[index].in_flight, NOTHING);
        }
    }
    unsigned slots[VICTIM] = {0, 1};
    pid_t survivors[VICTIM];
    for (unsigned slot = 0; slot < VICTIM; slot++)
        survivors[slot] = test_spawn(survivor, &slots[slot]);
    pid_t looking = test_spawn(looker_main, &looker);
    close(looker.command[0]);
    close(looker.answer[1]);
    test_random random = test_random_new(7);
    for (uint64_t round = 0; round < kills; round++) {
        pid_t child = test_spawn(victim, &round);
        test_pause_us((200 + test_random_below(&random, 9000)) * TEST_SLOWNESS);
        kill(child, SIGKILL);
        reap_victim(child);
        /* The survivors go on over the corpse, then rest between two calls while all is looked at:
         * a walk's snapshot pins every page that they would free. */
        uint64_t goal = atomic_load(&board->journals[0].operations) + 20;
        test_until(atomic_load(&board->journals[0].operations) >= goal || ended(survivors[0]), 5000,
                   "a survivor does not go on");
        atomic_store(&board->pause, 1);
        test_until(atomic_load(&board->parked) == VICTIM || ended(survivors[0]) ||
                       ended(survivors[1]),
                   5000, "the survivors do not park");
        for (unsigned slot = 0; slot < VICTIM; slot++)
            still_runs(survivors[slot], "a survivor");
        ask(&looker, 'a');
        atomic_store(&board->pause, 0);
        test_until(atomic_load(&board->parked) == 0, 5000, "the survivors do not go on");
    }
    atomic_store(&board->stop, 1);
    for (unsigned slot = 0; slot < VICTIM; slot++)
        test_join(survivors[slot], 10000, "a survivor");
    ask(&looker, 'a');
    ask(&looker, 's');
    close(looker.command[1]);
    test_join(looking, 10000, "the looking process");
}

static int opener(void *context)
{
    char name[32];
    snprintf(name, sizeof name, "new-%" PRIu64, *(uint64_t *)context);
    for (;;) {
        int code = 0;
        larder *handle = open_map(name, 16u << 20, &code);
        test_check(handle != NULL, "open: %d %s", code, larder_last_error());
        must(larder_set(handle, "k", 1, "value", 5, NULL), "set");
        larder_close(&handle);
    }
}

/* Somebody dies while making a map: whoever comes next finds or makes a whole one. */
static int successor(void *context)
{
    char name[32], value[8];
    snprintf(name, sizeof name, "new-%" PRIu64, *(uint64_t *)context);
    int code = 0;
    uint64_t began = test_now_us();
    larder *handle = open_map(name, 16u << 20, &code);
    uint64_t took = test_now_us() - began;
    test_check(handle != NULL, "open after a death: %d %s", code, larder_last_error());
    test_check(took < STALL_US * TEST_SLOWNESS, "open after a death took %" PRIu64 " us", took);
    look_at_map(handle);
    code = larder_get(handle, "k", 1, value, sizeof value, NULL);
    must(code, "get");
    test_check(code == LARDER_MISS || memcmp(value, "value", 5) == 0, "another value");
    must(larder_set(handle, "k", 1, "other", 5, NULL), "set");
    must(larder_get(handle, "k", 1, value, sizeof value, NULL), "get");
    test_check(memcmp(value, "other", 5) == 0, "not what was set");
    look_at_map(handle);
    larder_close(&handle);
    return 0;
}

static void kill_in_open(uint64_t kills)
{
    test_random random = test_random_new(8);
    for (uint64_t round = 0; round < kills; round++) {
        pid_t children[2] = {test_spawn(opener, &round), test_spawn(opener, &round)};
        test_pause_us(test_random_below(&random, 4000) * TEST_SLOWNESS);
        for (int at = 0; at < 2; at++) {
            kill(children[at], SIGKILL);
            reap_victim(children[at]);
        }
        test_join(test_spawn(successor, &round), 10000, "the next to open");
        char path[512];
        snprintf(path, sizeof path, "%s/new-%" PRIu64, directory, round);
        test_remove_tree(path);
    }
}

int main(void)
{
    test_begin("kill", 60);
    uint64_t kills = test_number("LARDER_KILLS", 150 / TEST_SLOWNESS, 1000);
    directory = test_directory();
    board = test_shared(sizeof *board);
    uint64_t began = test_now_us();
    if (kills > 0)
        kill_in_the_loop(kills);
    uint64_t openings = test_number("LARDER_KILLS_IN_OPEN", kills / 4, kills / 4);
    kill_in_open(openings);
    uint64_t longest = 0, operations = 0;
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        operations += atomic_load(&board->journals[slot].operations);
        if (slot == VICTIM)
            continue;
        uint64_t took = atomic_load(&board->journals[slot].longest_us);
        if (took > longest)
            longest = took;
        printf("survivor %u: longest call %s %" PRIu64 " us\n", slot,
               call_names[atomic_load(&board->journals[slot].longest_call)], took);
    }
    test_figure("kill_kills", (double)kills, "count");
    test_figure("kill_kills_in_open", (double)openings, "count");
    test_figure("kill_operations", (double)operations, "count");
    test_figure("kill_seconds", (double)(test_now_us() - began) / 1e6, "s");
    test_figure("kill_longest_call_of_a_survivor", (double)longest / 1e3, "ms");
    test_check(longest <= STALL_US * TEST_SLOWNESS, "a survivor stalled for %" PRIu64 " us",
               longest);
    test_end();
}
