/* events: four processes write and publish while others follow. Nothing is lost that was not said
 * to be missed, and each writer's events come in its order, whatever happens in between: writers
 * are killed and stopped in the middle, and a follower that dawdles is told what it missed.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "larder.h"
#include "tests/multi/harness.h"

enum { WRITERS = 4, NAME_MAX_SIZE = 64 };

static larder *handle;

struct shared {
    _Atomic uint64_t done[WRITERS]; /* events of the writer that returned OK */
    _Atomic uint64_t begun[WRITERS];
    _Atomic int ready, stop;
};
static struct shared *shared;
static uint64_t events_each;

/* What a writer did up to now, by the names and keys that came: "w:WRITER:SERIAL". */
struct ledger {
    uint64_t last[WRITERS]; /* serial seen last; 0: none */
    uint64_t seen, missed, gaps, damaged;
};

static int writer(void *context)
{
    unsigned self = *(const unsigned *)context;
    uint8_t data[600];
    char name[NAME_MAX_SIZE];
    for (uint64_t serial = atomic_load(&shared->begun[self]) + 1;
         serial <= events_each && !atomic_load(&shared->stop); serial++) {
        int length = snprintf(name, sizeof name, "w:%u:%llu", self, (unsigned long long)serial);
        size_t size = (size_t)(serial * 37 % sizeof data);
        test_value_fill(data, size, serial);
        atomic_store(&shared->begun[self], serial);
        int code = serial % 3 == 0   ? larder_publish(handle, (larder_bytes){name, (size_t)length},
                                                      (larder_bytes){data, size})
                   : serial % 3 == 1 ? larder_set(handle, name, (size_t)length, data, size, NULL)
                                     : larder_delete(handle, name, (size_t)length);
        if (code < 0)
            return fprintf(stderr, "writer %u: %d %s\n", self, code, larder_last_error()) > 0 ? 10
                                                                                              : 11;
        atomic_store(&shared->done[self], serial);
    }
    return 0;
}

static void note(struct ledger *ledger, const larder_event *event)
{
    char name[NAME_MAX_SIZE];
    unsigned self;
    unsigned long long serial;
    test_check(event->name.size < sizeof name, "a name of %zu bytes", event->name.size);
    memcpy(name, event->name.data, event->name.size);
    name[event->name.size] = '\0';
    test_check(sscanf(name, "w:%u:%llu", &self, &serial) == 2 && self < WRITERS, "torn: %s", name);
    test_check(serial > ledger->last[self], "writer %u: %llu after %llu", self, serial,
               (unsigned long long)ledger->last[self]);
    ledger->gaps += serial - ledger->last[self] - 1;
    ledger->last[self] = serial;
    ledger->seen++;
    if (event->kind == LARDER_EVENT_NAMED) {
        size_t size = (size_t)(serial * 37 % 600);
        test_check(event->data.size == size && test_value_is(event->data.data, size, serial),
                   "torn data of %s", name);
    }
}

/* Read until every writer's last event was seen, or, with writers that died, nothing comes. */
static void read_all(larder_follower *follower, struct ledger *ledger, unsigned pause_us,
                     int64_t quiet_ms)
{
    larder_event event;
    for (;;) {
        int code = larder_wait_event(follower, quiet_ms, &event);
        test_check(code >= 0, "wait: %d %s", code, larder_last_error());
        if (code == LARDER_MISS)
            return;
        if (code == LARDER_MISSED)
            ledger->missed += event.missed;
        else
            note(ledger, &event);
        if (pause_us > 0 && ledger->seen % 64 == 0)
            test_pause_us(pause_us);
        bool all = true;
        for (unsigned i = 0; i < WRITERS; i++)
            all = all && ledger->last[i] == events_each;
        if (all)
            return;
    }
}

static larder_follower *follow(uint32_t kinds)
{
    larder_filter filter = {.kinds = kinds};
    larder_follower *follower = NULL;
    int code = LARDER_EBUSY;
    /* several children may be opening the map at once, on a machine that is busy otherwise */
    test_until((code = larder_follow(handle, &filter, &follower)) != LARDER_EBUSY, 20000,
               "follow: busy");
    test_check(code == LARDER_OK, "follow: %d %s", code, larder_last_error());
    return follower;
}

#define MINE (LARDER_EVENT_SET | LARDER_EVENT_DELETE | LARDER_EVENT_NAMED)

static void begin_round(uint64_t each)
{
    memset((void *)shared, 0, sizeof *shared);
    events_each = each;
}

static const unsigned numbers[WRITERS] = {0, 1, 2, 3};

static pid_t start(unsigned i)
{
    return test_spawn(writer, (void *)(uintptr_t)&numbers[i]);
}

static unsigned dawdle_us;

static int follower_process(void *context)
{
    struct ledger *ledger = context;
    larder_follower *follower = follow(MINE);
    (void)atomic_fetch_add(&shared->ready, 1);
    read_all(follower, ledger, dawdle_us, 3000);
    larder_unfollow(&follower);
    return 0;
}

/* ---- Everybody lives: all is seen, or told to be missed */

static void all_is_seen(unsigned dawdle, uint64_t each)
{
    struct ledger *ledgers = test_shared(3 * sizeof *ledgers);
    pid_t writers[WRITERS], followers[3];
    begin_round(each);
    for (unsigned i = 0; i < 3; i++) {
        dawdle_us = i == 2 ? dawdle : 0;
        followers[i] = test_spawn(follower_process, &ledgers[i]);
    }
    test_until(atomic_load(&shared->ready) == 3, 20000, "followers");
    for (unsigned i = 0; i < WRITERS; i++)
        writers[i] = start(i);
    for (unsigned i = 0; i < WRITERS; i++)
        test_join(writers[i], 60000, "a writer");
    for (unsigned i = 0; i < 3; i++) {
        test_join(followers[i], 60000, "a follower");
        const struct ledger *ledger = &ledgers[i];
        test_check(ledger->seen + ledger->missed == WRITERS * each,
                   "follower %u: %llu seen, %llu missed of %llu", i,
                   (unsigned long long)ledger->seen, (unsigned long long)ledger->missed,
                   (unsigned long long)(WRITERS * each));
        test_check(ledger->gaps <= ledger->missed, "follower %u: lost without a word", i);
        if (dawdle > 0 && i == 2)
            test_check(ledger->missed > 0, "the one that dawdled was told nothing");
    }
}

/* ---- Writers are killed: nothing that returned OK is lost without a word, no torn one comes */

static void some_are_killed(unsigned kills)
{
    test_random random = test_random_new(7);
    for (unsigned kill_number = 0; kill_number < kills; kill_number++) {
        begin_round(UINT64_MAX);
        larder_follower *follower = follow(MINE);
        struct ledger ledger = {0};
        pid_t writers[2] = {start(0), start(1)};
        test_pause_us(500 + test_random_below(&random, 3000));
        test_kill(writers[0]);
        uint64_t after = atomic_load(&shared->done[1]) + 50;
        test_until(atomic_load(&shared->done[1]) >= after, 20000, "the other one stands still");
        atomic_store(&shared->stop, 1);
        test_join(writers[1], 20000, "the writer that lives");
        larder_event event;
        int code;
        while ((code = larder_wait_event(follower, 250, &event)) != LARDER_MISS) {
            test_check(code == LARDER_OK || code == LARDER_MISSED, "next: %d", code);
            if (code == LARDER_OK)
                note(&ledger, &event);
            else
                ledger.missed += event.missed;
        }
        for (unsigned i = 0; i < 2; i++)
            test_check(ledger.missed > 0 || ledger.last[i] >= atomic_load(&shared->done[i]),
                       "kill %u: writer %u said %llu, %llu came", kill_number, i,
                       (unsigned long long)atomic_load(&shared->done[i]),
                       (unsigned long long)ledger.last[i]);
        test_check(ledger.gaps <= ledger.missed, "kill %u: lost without a word", kill_number);
        larder_unfollow(&follower);
    }
}

/* ---- Writers are stopped in the middle: nobody waits for them but for a while, and when they go
 * on, nothing is torn */

static void some_are_stopped(unsigned stops)
{
    test_random random = test_random_new(8);
    begin_round(UINT64_MAX);
    larder_follower *follower = follow(MINE);
    struct ledger ledger = {0};
    pid_t writers[2] = {start(0), start(1)};
    larder_event event;
    for (unsigned i = 0; i < stops; i++) {
        test_pause_us(300 + test_random_below(&random, 3000));
        test_stop(writers[0]);
        /* named events pass whoever holds the gate; ours does, soon */
        char name[NAME_MAX_SIZE];
        uint64_t serial = i + 1;
        int length = snprintf(name, sizeof name, "w:2:%llu", (unsigned long long)serial);
        uint8_t data[600];
        size_t size = (size_t)(serial * 37 % sizeof data);
        test_value_fill(data, size, serial);
        int code = larder_publish(handle, (larder_bytes){name, (size_t)length},
                                  (larder_bytes){data, size});
        test_check(code == LARDER_OK, "publish: %d", code);
        uint64_t began = test_now_us();
        bool passed_over = false;
        while (ledger.last[2] < serial && !passed_over) {
            code = larder_wait_event(follower, 5000, &event);
            test_check(code == LARDER_OK || code == LARDER_MISSED, "next: %d", code);
            if (code == LARDER_OK) {
                note(&ledger, &event);
            } else { /* the other writer has gone round meanwhile: ours may be among those */
                ledger.missed += event.missed;
                passed_over = true;
            }
        }
        test_check(test_now_us() - began < 10000000u * TEST_SLOWNESS, "the follower was held up");
        kill(writers[0], SIGCONT);
    }
    atomic_store(&shared->stop, 1);
    for (unsigned i = 0; i < 2; i++) {
        int status = test_wait(writers[i], 20000);
        /* beside a stopped holder of the gate a set may be refused, which ends the writer */
        test_check(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 10),
                   "a writer: %s", test_status_text(status));
    }
    while (larder_wait_event(follower, 250, &event) != LARDER_MISS) {
    }
    larder_unfollow(&follower);
}

int main(void)
{
    test_begin("events", 300);
    larder_options options = {
        .dir = test_directory(), .map_size = 64u << 20, .write_wait_ms = 5000};
    int code = larder_open("events", &options, &handle);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    shared = test_shared(sizeof *shared);
    all_is_seen(0, test_number("LARDER_EVENTS", 1500, 20000)); /* fits the ring: all is seen */
    all_is_seen(20000, test_number("LARDER_EVENTS", 6000, 50000));
    some_are_killed((unsigned)test_number("LARDER_KILLS", 12, 500));
    some_are_stopped((unsigned)test_number("LARDER_STOPS", 10, 200));
    larder_close(&handle);
    test_end();
}
