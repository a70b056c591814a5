/* sessions.c: sessions changed by several processes at once. No update is lost, and none brings
 * back what was ended: by key, with all of its user, or by another id. Updaters are killed at
 * random instants meanwhile.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "larder_session.h"

enum { UPDATERS = 3, READERS = 1, WORKERS = UPDATERS + READERS };
enum { BY_KEY, BY_USER, BY_RENEWAL, WAYS };

/* One session a round. A worker that begins a call after `over` has been raised to the round knows
 * that the session has ended: the deletion had returned. */
struct board {
    char id[LARDER_SESSION_ID_SIZE + 1]; /* of the round; changed between rounds only */
    _Atomic uint64_t round;              /* even: nobody may be at work; odd: a session is up */
    _Atomic uint64_t over;
    _Atomic uint64_t counts[UPDATERS]; /* what the updater's field is at least */
    _Atomic uint32_t at_work[WORKERS];
    _Atomic uint64_t updates, misses, reads;
    _Atomic uint32_t stop;
};

static struct board *board;

static larder *open_map(void)
{
    larder *map = NULL;
    larder_options options = {
        .dir = test_directory(), .map_size = UINT64_C(16) << 20, .write_wait_ms = 5000};
    int result = larder_open("sessions", &options, &map);
    test_check(result == LARDER_OK, "open: %d %s", result, larder_last_error());
    return map;
}

/* ---- Workers ----------------------------------------------------------------------------------
 */

static uint64_t count_of(const larder_session *session, unsigned updater)
{
    char name[8];
    int size = snprintf(name, sizeof name, "u%u", updater);
    const larder_session_field *field =
        larder_session_find(session, (larder_bytes){name, (size_t)size});
    uint64_t count = 0;
    if (field != NULL) {
        test_check(field->value.size == sizeof count, "a field of %zu bytes", field->value.size);
        memcpy(&count, field->value.data, sizeof count);
    }
    return count;
}

/* Nothing that an update had returned before may be missing. */
static void check_counts(const larder_session *session, const uint64_t *before)
{
    for (unsigned i = 0; i < UPDATERS; i++) {
        test_check(count_of(session, i) >= before[i], "updater %u: %llu was written, %llu is there",
                   i, (unsigned long long)before[i], (unsigned long long)count_of(session, i));
    }
}

static void read_counts(uint64_t *before)
{
    for (unsigned i = 0; i < UPDATERS; i++) {
        before[i] = atomic_load(&board->counts[i]);
    }
}

static void update_once(larder *map, unsigned self, uint64_t round)
{
    uint64_t before[UPDATERS], count = atomic_load(&board->counts[self]) + 1;
    char name[8];
    int size = snprintf(name, sizeof name, "u%u", self);
    larder_session_field change = {.name = {name, (size_t)size}, .value = {&count, sizeof count}};
    larder_session after;
    bool was_over = atomic_load(&board->over) >= round;
    read_counts(before);
    int result =
        larder_session_update(map, NULL, board->id, LARDER_SESSION_ID_SIZE, &change, 1, &after);
    if (result == LARDER_OK) {
        test_check(!was_over, "an update was taken after the session had ended");
        test_check(count_of(&after, self) == count, "its own update is not in it");
        check_counts(&after, before);
        larder_session_free(&after);
        atomic_store(&board->counts[self], count);
        atomic_fetch_add(&board->updates, 1);
        return;
    }
    test_check(result == LARDER_MISS || result == LARDER_EBUSY, "update: %d %s", result,
               larder_last_error());
    atomic_fetch_add(&board->misses, result == LARDER_MISS);
}

static void read_once(larder *map, uint64_t round)
{
    uint64_t before[UPDATERS];
    larder_session session;
    bool was_over = atomic_load(&board->over) >= round;
    read_counts(before);
    int result = larder_session_get(map, NULL, board->id, LARDER_SESSION_ID_SIZE, &session);
    test_check(result == LARDER_OK || result == LARDER_MISS, "get: %d %s", result,
               larder_last_error());
    if (result == LARDER_OK) {
        test_check(!was_over, "a session that had ended was read");
        check_counts(&session, before);
        larder_session_free(&session);
        atomic_fetch_add(&board->reads, 1);
    }
}

static int work(void *context)
{
    unsigned self = *(unsigned *)context;
    larder *map = open_map();
    while (atomic_load(&board->stop) == 0) {
        atomic_store(&board->at_work[self], 1);
        uint64_t round = atomic_load(&board->round);
        if (round % 2 == 0) {
            atomic_store(&board->at_work[self], 0);
            test_pause_us(20);
            continue;
        }
        if (self < UPDATERS) {
            update_once(map, self, round);
        } else {
            read_once(map, round);
        }
        atomic_store(&board->at_work[self], 0);
    }
    larder_close(&map);
    return 0;
}

/* ---- Rounds -----------------------------------------------------------------------------------
 */

static void begin_round(larder *map, uint64_t round, larder_bytes user)
{
    larder_session_id id;
    int result = larder_session_create(map, NULL, user, NULL, 0, &id);
    test_check(result == LARDER_OK, "create: %d %s", result, larder_last_error());
    memcpy(board->id, id.text, sizeof board->id);
    for (unsigned i = 0; i < UPDATERS; i++) {
        atomic_store(&board->counts[i], 0);
    }
    atomic_store(&board->round, round);
}

static void end_session(larder *map, int way, larder_bytes user, larder_session_id *moved)
{
    int result = way == BY_KEY ? larder_session_delete(map, NULL, board->id, LARDER_SESSION_ID_SIZE)
                 : way == BY_USER ? larder_session_delete_user(map, NULL, user, NULL)
                                  : larder_session_renew(map, NULL, board->id,
                                                         LARDER_SESSION_ID_SIZE, NULL, moved);
    test_check(result == LARDER_OK || (way == BY_RENEWAL && result == LARDER_EBUSY),
               "end %d: %d %s", way, result, larder_last_error());
    if (result == LARDER_EBUSY) { /* others were always quicker: then by key */
        end_session(map, BY_KEY, user, moved);
    }
}

static void expect_end(larder *map)
{
    larder_session session;
    for (int i = 0; i < 20; i++) {
        int result = larder_session_get(map, NULL, board->id, LARDER_SESSION_ID_SIZE, &session);
        test_check(result == LARDER_MISS, "a session came back: %d", result);
    }
}

/* The round is over when nobody is inside a call any more; then it must still be gone. */
static void end_round(larder *map, uint64_t round)
{
    atomic_store(&board->round, round + 1);
    for (unsigned i = 0; i < WORKERS; i++) {
        test_until(atomic_load(&board->at_work[i]) == 0, 20000, "worker %u does not end", i);
    }
    expect_end(map);
}

static void replace_worker(pid_t *workers, unsigned *numbers, unsigned victim)
{
    test_kill(workers[victim]);
    atomic_store(&board->at_work[victim], 0);
    workers[victim] = test_spawn(work, &numbers[victim]);
}

int main(void)
{
    test_begin("sessions", 120);
    board = test_shared(sizeof *board);
    larder *map = open_map();
    test_random random = test_random_new(1);
    uint64_t rounds = test_number("LARDER_ROUNDS", 300, 20000), moved_alive = 0;
    unsigned numbers[WORKERS];
    pid_t workers[WORKERS];
    for (unsigned i = 0; i < WORKERS; i++) {
        numbers[i] = i;
        workers[i] = test_spawn(work, &numbers[i]);
    }
    for (uint64_t i = 0; i < rounds; i++) {
        char name[16];
        int size = snprintf(name, sizeof name, "user%u", (unsigned)(i % 5));
        larder_bytes user = {name, (size_t)size};
        uint64_t round = 2 * i + 1, updates = atomic_load(&board->updates);
        int way = (int)test_random_below(&random, WAYS);
        larder_session_id moved = {.text = ""};
        begin_round(map, round, user);
        test_until(atomic_load(&board->updates) > updates + 5, 20000, "nobody updates");
        if (i % 16 == 7) {
            replace_worker(workers, numbers, (unsigned)test_random_below(&random, UPDATERS));
        }
        test_pause_us(test_random_below(&random, 500));
        end_session(map, way, user, &moved);
        atomic_store(&board->over, round);
        expect_end(map);
        end_round(map, round);
        if (moved.text[0] != '\0') { /* and what was moved has all that was written before */
            larder_session session;
            int result =
                larder_session_get(map, NULL, moved.text, LARDER_SESSION_ID_SIZE, &session);
            uint64_t before[UPDATERS];
            test_check(result == LARDER_OK, "what was moved is not there: %d", result);
            read_counts(before);
            check_counts(&session, before);
            larder_session_free(&session);
            moved_alive++;
        }
    }
    atomic_store(&board->stop, 1);
    for (unsigned i = 0; i < WORKERS; i++) {
        test_join(workers[i], 20000, "worker");
    }
    test_figure("sessions_ended", (double)rounds, "sessions");
    test_figure("sessions_moved", (double)moved_alive, "sessions");
    test_figure("sessions_updates", (double)atomic_load(&board->updates), "updates");
    test_figure("sessions_misses", (double)atomic_load(&board->misses), "updates");
    test_figure("sessions_reads", (double)atomic_load(&board->reads), "reads");
    test_check(atomic_load(&board->misses) > 0, "no update ever raced an end");
    larder_close(&map);
    test_end();
}
