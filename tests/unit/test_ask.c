/* test_ask.c: the request table of read-through: posting, joining, taking, ending; who dies or
 * stops in the middle; a full table; damage. The daemon is played by the test.
 */
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ask.h"
#include "clock.h"
#include "key.h"
#include "tests/unit/maps.h"
#include "wake.h"

static larder *map;

static struct map *shared(void)
{
    return map->map;
}

static struct ask_table *table(void)
{
    return &maps_control(map)->asks;
}

/* A daemon that reaches Redis. */
static void pretend_daemon(void)
{
    atomic_store(&maps_control(map)->redis_up, 1);
    atomic_store(&maps_control(map)->daemon_heartbeat_ms, clock_wall_ms());
}

static void setup(void)
{
    map = maps_new();
    pretend_daemon();
    (void)mkfifoat(shared()->directory, WAKE_NAME, 0600);
}

static void teardown(void)
{
    larder_close(&map);
}

static enum ask_begin ask(const char *key, int64_t budget_ms, struct ask_ticket *ticket)
{
    uint64_t hash[2];
    key_hash_wide(key, strlen(key), hash);
    return ask_begin(shared(), key, strlen(key), hash, budget_ms, ticket);
}

static void pause_ms(long ms)
{
    struct timespec time = {.tv_nsec = ms * 1000000};
    (void)nanosleep(&time, NULL);
}

START_TEST(a_request_goes_round)
{
    struct ask_ticket ticket, other;
    struct ask_taken taken;
    ck_assert(!ask_take(shared(), &taken));
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_BEGUN);
    ck_assert(ticket.own);
    ck_assert_int_eq(ask_look(shared(), &ticket), ASK_PENDING);
    ck_assert_int_eq(ask("key", 5000, &other), ASK_BEGUN);
    ck_assert(!other.own);
    ck_assert(ask_take(shared(), &taken));
    ck_assert_uint_eq(taken.key_size, 3);
    ck_assert_mem_eq(taken.key, "key", 3);
    ck_assert(!ask_take(shared(), &taken)); /* one for both */
    ck_assert_int_eq(ask("key", 5000, &other), ASK_BEGUN);
    ck_assert(!other.own); /* also while it is under way */
    ck_assert(ask_answer(shared(), taken.slot, taken.word, ASK_ABSENT));
    ck_assert_int_eq(ask_sleep(shared(), &ticket, clock_monotonic_ms() + 5000), ASK_ABSENT);
    ck_assert_int_eq(ask_look(shared(), &other), ASK_ABSENT);
    ck_assert(!ask_answer(shared(), taken.slot, taken.word, ASK_FOUND)); /* it is over */
    /* the slot's next request is not mistaken for it */
    ck_assert_int_eq(ask("key", 5000, &other), ASK_BEGUN);
    ck_assert(other.own);
    ck_assert_int_eq(ask_look(shared(), &ticket), ASK_OVER); /* not known any more: look */
    ck_assert_int_eq(ask_look(shared(), &other), ASK_PENDING);
}
END_TEST

static int answer_later(void *context)
{
    struct ask_taken taken;
    pause_ms(20);
    bool took = ask_take(shared(), &taken);
    return took && ask_answer(shared(), taken.slot, taken.word, *(enum ask_end *)context) ? 0 : 1;
}

START_TEST(a_sleeper_is_woken)
{
    struct ask_ticket ticket;
    enum ask_end end = ASK_FOUND;
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_BEGUN);
    (void)fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        registry_check_fork();
        _exit(answer_later(&end));
    }
    int64_t began = clock_monotonic_ms();
    ck_assert_int_eq(ask_sleep(shared(), &ticket, began + 5000), ASK_FOUND);
    ck_assert_int_lt(clock_monotonic_ms() - began, 2500);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(nobody_waits_longer_than_he_said)
{
    struct ask_ticket ticket;
    ck_assert_int_eq(ask("key", 30, &ticket), ASK_BEGUN);
    int64_t began = clock_monotonic_ms();
    ck_assert_int_eq(ask_sleep(shared(), &ticket, began + 30), ASK_PENDING);
    ck_assert_int_ge(clock_monotonic_ms() - began, 29);
    ck_assert_int_lt(clock_monotonic_ms() - began, 1000 * 3);
    /* its time is over: the slot is anybody's, and the daemon has nothing to take */
    struct ask_taken taken;
    pause_ms(5);
    ck_assert(!ask_take(shared(), &taken));
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_BEGUN);
    ck_assert(ticket.own);
}
END_TEST

START_TEST(who_joins_has_his_own_time)
{
    struct ask_ticket first, second;
    struct ask_taken taken;
    ck_assert_int_eq(ask("key", 20, &first), ASK_BEGUN);
    ck_assert_int_eq(ask("key", 5000, &second), ASK_BEGUN);
    ck_assert(!second.own);
    pause_ms(30);
    ck_assert(ask_take(shared(), &taken)); /* it did not end with the first one's budget */
    ck_assert(ask_answer(shared(), taken.slot, taken.word, ASK_FOUND));
    ck_assert_int_eq(ask_look(shared(), &second), ASK_FOUND);
}
END_TEST

START_TEST(a_daemon_that_is_away_is_not_asked)
{
    struct ask_ticket ticket;
    struct control *control = maps_control(map);
    atomic_store(&control->redis_up, 0);
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_NOBODY);
    ck_assert_int_eq(ask_look(shared(), &ticket), ASK_FAILED);
    pretend_daemon();
    atomic_store(&control->daemon_heartbeat_ms, clock_wall_ms() - ASK_HEARTBEAT_MS);
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_NOBODY);
    atomic_store(&control->daemon_heartbeat_ms, clock_wall_ms() + 2 * ASK_HEARTBEAT_MS);
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_NOBODY); /* the clock was set back */
    atomic_store(&control->daemon_heartbeat_ms, 0);
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_NOBODY);
    pretend_daemon();
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_BEGUN);
}
END_TEST

START_TEST(three_in_a_row_and_then_one_a_second)
{
    struct ask_ticket ticket;
    for (int i = 0; i < ASK_FAILURES; i++) {
        ck_assert_int_eq(ask("key", 5000, &ticket), ASK_BEGUN);
        ask_note_timeout(shared());
    }
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_NOBODY);
    atomic_store(&table()->rest_until_ms, clock_monotonic_ms());
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_BEGUN); /* the one that finds out */
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_NOBODY);
    atomic_store(&table()->rest_until_ms, INT64_MAX); /* damage */
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_BEGUN);
    ask_note_answer(shared());
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_BEGUN);
    ck_assert_int_eq(ask("other", 5000, &ticket), ASK_BEGUN);
}
END_TEST

START_TEST(a_full_table_is_a_plain_miss)
{
    struct ask_ticket ticket;
    char key[ASK_KEY_MAX + 2];
    int begun = 0, full = 0;
    for (int i = 0; i < 4 * ASK_SLOTS; i++) {
        (void)snprintf(key, sizeof key, "key%d", i);
        enum ask_begin begin = ask(key, 5000, &ticket);
        begun += begin == ASK_BEGUN;
        full += begin == ASK_NO_ROOM;
    }
    ck_assert_int_eq(begun, ASK_SLOTS);
    ck_assert_int_eq(full, 3 * ASK_SLOTS);
    struct ask_taken taken;
    int taken_count = 0;
    while (ask_take(shared(), &taken)) {
        taken_count++;
        ck_assert(ask_answer(shared(), taken.slot, taken.word, ASK_FOUND));
    }
    ck_assert_int_eq(taken_count, ASK_SLOTS);
    ck_assert_int_eq(ask("another", 5000, &ticket), ASK_BEGUN);
    memset(key, 'k', sizeof key);
    key[ASK_KEY_MAX + 1] = '\0';
    ck_assert_int_eq(ask(key, 5000, &ticket), ASK_NO_ROOM);
    key[ASK_KEY_MAX] = '\0';
    ck_assert_int_eq(ask(key, 5000, &ticket), ASK_BEGUN);
}
END_TEST

/* Whoever dies or stops between two steps leaves a word; each of them ends by itself. */
START_TEST(what_was_left_behind_is_freed)
{
    struct ask_ticket ticket;
    struct ask_taken taken;
    static const char *const keys[] = {"one", "two", "three"};
    uint32_t past = (uint32_t)clock_monotonic_ms() - 1, soon = past + 1000;
    for (uint64_t state = 1; state <= 3; state++) {
        for (size_t i = 0; i < ASK_SLOTS; i++) {
            atomic_store(&table()->words[i], state << 62 | UINT64_C(7) << 32 | soon);
        }
        ck_assert_int_eq(ask(keys[state - 1], 5000, &ticket), ASK_NO_ROOM);
        for (size_t i = 0; i < ASK_SLOTS; i++) {
            atomic_store(&table()->words[i], state << 62 | UINT64_C(7) << 32 | past);
        }
        ck_assert_int_eq(ask(keys[state - 1], 5000, &ticket), ASK_BEGUN);
        ck_assert(ticket.own);
        ask_sweep(shared());
        for (size_t i = 0; i < ASK_SLOTS; i++) {
            ck_assert(i == ticket.slot || atomic_load(&table()->words[i]) >> 62 == 0);
        }
        ck_assert(ask_take(shared(), &taken));
        ck_assert(ask_answer(shared(), taken.slot, taken.word, ASK_FOUND));
        ck_assert(!ask_take(shared(), &taken));
    }
    /* posted, and killed before the daemon was told: the next sweep finds it, and so does whoever
     * asks for the same */
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_BEGUN);
    for (size_t i = 0; i < ASK_WORDS; i++) {
        atomic_store(&table()->posted[i], 0);
    }
    ck_assert(!ask_take(shared(), &taken));
    ask_sweep(shared());
    ck_assert(ask_take(shared(), &taken));
    ck_assert_uint_eq(taken.slot, ticket.slot);
    /* taken, and the daemon was killed: its successor ends it */
    ask_begin_daemon(shared());
    ck_assert_int_eq(ask_look(shared(), &ticket), ASK_FAILED);
}
END_TEST

START_TEST(a_lost_claim_is_not_posted)
{
    struct ask_ticket ticket;
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_BEGUN);
    /* the word as it was while its key was written, and its time over */
    uint64_t claimed = (ticket.word & ~(UINT64_C(3) << 62)) | UINT64_C(1) << 62;
    claimed = (claimed & ~UINT64_C(0xffffffff)) | ((uint32_t)clock_monotonic_ms() - 1);
    atomic_store(&table()->words[ticket.slot], claimed);
    struct ask_ticket other;
    ck_assert_int_eq(ask("key", 5000, &other), ASK_BEGUN);
    ck_assert(other.own);
    ck_assert_uint_eq(other.slot, ticket.slot);
    ck_assert_int_ne((int)(other.word >> 32), (int)(ticket.word >> 32));
}
END_TEST

START_TEST(garbage_is_refused)
{
    struct ask_ticket ticket;
    struct ask_taken taken;
    uint64_t stream = harness_seed();
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_BEGUN);
    table()->slots[ticket.slot].key[1] ^= 1; /* a late writer */
    ck_assert(!ask_take(shared(), &taken));
    ck_assert_int_eq(ask_look(shared(), &ticket), ASK_FAILED);
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_BEGUN);
    atomic_store(&table()->slots[ticket.slot].key_size, UINT32_MAX);
    ck_assert(!ask_take(shared(), &taken));
    ticket.slot = UINT32_MAX;
    ck_assert_int_eq(ask_look(shared(), &ticket), ASK_FAILED);
    ck_assert_int_eq(ask_sleep(shared(), &ticket, clock_monotonic_ms() + 1000), ASK_FAILED);
    ck_assert(!ask_answer(shared(), UINT32_MAX, UINT64_MAX, ASK_FOUND));
    /* nothing that stands there may hang or crash anybody, and it heals by itself */
    for (int round = 0; round < 50; round++) {
        uint8_t *bytes = (uint8_t *)table();
        for (size_t i = 0; i < sizeof *table(); i += sizeof(uint64_t)) {
            uint64_t garbage = harness_random(&stream);
            memcpy(bytes + i, &garbage, sizeof garbage);
        }
        (void)ask("key", 10, &ticket);
        for (int i = 0; i < ASK_SLOTS && ask_take(shared(), &taken); i++) {
            ck_assert_uint_le(taken.key_size, ASK_KEY_MAX);
        }
        ask_sweep(shared());
        (void)ask_sleep(shared(), &ticket, clock_monotonic_ms() + 5);
    }
    ask_begin_daemon(shared());
    for (size_t i = 0; i < ASK_SLOTS; i++) {
        uint64_t word = atomic_load(&table()->words[i]);
        int32_t left = (int32_t)((uint32_t)word - (uint32_t)clock_monotonic_ms());
        ck_assert(word >> 62 == 0 || (left > 0 && left <= ASK_BUDGET_MAX_MS));
    }
}
END_TEST

static int ask_and_die(void *context)
{
    struct ask_ticket ticket;
    (void)context;
    registry_check_fork();
    return ask("key", 5000, &ticket) == ASK_BEGUN ? 0 : 1;
}

START_TEST(a_requester_that_is_gone_keeps_nobody)
{
    struct ask_ticket ticket;
    struct ask_taken taken;
    ck_assert_int_eq(maps_in_child(ask_and_die, NULL), 0);
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_BEGUN);
    ck_assert(!ticket.own);
    ck_assert(ask_take(shared(), &taken));
    ck_assert(ask_answer(shared(), taken.slot, taken.word, ASK_FOUND));
    ck_assert_int_eq(ask_look(shared(), &ticket), ASK_FOUND);
}
END_TEST

/* Bytes in the daemon's FIFO, which are gone then. */
static int wakes(void)
{
    char bytes[64];
    ssize_t got = read(wake_open(shared()), bytes, sizeof bytes);
    return got > 0 ? (int)got : 0;
}

START_TEST(one_wakes_the_daemon_for_all)
{
    struct ask_ticket ticket;
    struct ask_taken taken;
    ck_assert_int_eq(ask("one", 5000, &ticket), ASK_BEGUN);
    ck_assert_int_eq(ask("one", 5000, &ticket), ASK_BEGUN); /* joined */
    ck_assert_int_eq(ask("two", 5000, &ticket), ASK_BEGUN);
    ck_assert(ask_is_posted(shared()));
    ck_assert_int_eq(wakes(), 1);
    ask_attend(shared(), false); /* it wakes, and takes them */
    ck_assert(ask_take(shared(), &taken) && ask_take(shared(), &taken));
    ck_assert(!ask_is_posted(shared()));
    ck_assert_int_eq(ask("one", 5000, &ticket), ASK_BEGUN); /* under way */
    ck_assert_int_eq(wakes(), 0);
    ck_assert_int_eq(ask("three", 5000, &ticket), ASK_BEGUN);
    ck_assert_int_eq(wakes(), 1);
    ask_attend(shared(), true); /* it looks all the time */
    ck_assert(ask_take(shared(), &taken));
    ck_assert_int_eq(ask("four", 5000, &ticket), ASK_BEGUN);
    ck_assert_int_eq(wakes(), 0);
    ck_assert(ask_take(shared(), &taken));
    ask_begin_daemon(shared()); /* that one died over it; the next one sleeps */
    ck_assert_int_eq(ask("five", 5000, &ticket), ASK_BEGUN);
    ck_assert_int_eq(wakes(), 1);
}
END_TEST

START_TEST(who_waits_long_wakes_the_daemon_himself)
{
    struct ask_ticket ticket;
    struct ask_taken taken;
    (void)wake_open(shared());
    ask_attend(shared(), true); /* by a worker that was to wake the daemon, and died */
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_BEGUN);
    atomic_store(&table()->posted[ticket.slot / 64], 0); /* another died before that, too */
    ck_assert_int_eq(ask_sleep(shared(), &ticket, clock_monotonic_ms() + 300), ASK_PENDING);
    ck_assert_int_ge(wakes(), 1);
    ck_assert(ask_take(shared(), &taken)); /* from here on it is the daemon's */
    ck_assert_int_eq(ask_sleep(shared(), &ticket, clock_monotonic_ms() + 300), ASK_PENDING);
    ck_assert_int_eq(wakes(), 0);
}
END_TEST

START_TEST(who_may_looks_before_he_sleeps)
{
    struct ask_ticket ticket;
    struct ask_taken taken;
    ask_spin(shared(), SPIN_MOST_US);
    ck_assert_int_eq(ask("key", 5000, &ticket), ASK_BEGUN);
    ck_assert_int_eq(ask_sleep(shared(), &ticket, clock_monotonic_ms() + 30), ASK_PENDING);
    ck_assert(spin_processors() < 2 || atomic_load(&table()->spins.doubt) != 0);
    ck_assert(ask_take(shared(), &taken));
    ck_assert(ask_answer(shared(), taken.slot, taken.word, ASK_FOUND));
    ck_assert_int_eq(ask_sleep(shared(), &ticket, clock_monotonic_ms() + 5000), ASK_FOUND);
    for (unsigned i = 0; i < SPIN_PLACES; i++) {
        ck_assert_int_eq(atomic_load(&table()->spins.until_us[i]), 0);
    }
}
END_TEST

START_TEST(arguments_that_are_none)
{
    larder_asked asked = {.internal = {0}};
    ck_assert_int_eq(larder_ask(map, "key", 3, 0, &asked), LARDER_EINVAL);
    ck_assert_int_eq(larder_ask(map, "key", 3, 60001, &asked), LARDER_EINVAL);
    ck_assert_int_eq(larder_ask(map, "", 0, 10, &asked), LARDER_EINVAL);
    ck_assert_int_eq(larder_ask(map, "key", 3, 10, NULL), LARDER_EINVAL);
    ck_assert_int_eq(larder_ask(NULL, "key", 3, 10, &asked), LARDER_EINVAL);
    asked = (larder_asked){.internal = {0}};
    ck_assert_int_eq(larder_ask_wait(map, &asked, 0), LARDER_EINVAL);
    ck_assert_int_eq(larder_ask(map, "key", 3, 1000, &asked), LARDER_WAIT);
    ck_assert_int_eq(larder_ask_wait(map, &asked, -1), LARDER_EINVAL);
    ck_assert_int_eq(larder_ask_wait(map, &asked, 0), LARDER_WAIT);
    atomic_store(&maps_control(map)->redis_up, 0);
    ck_assert_int_eq(larder_ask(map, "key", 3, 1000, &asked), LARDER_MISS);
    ck_assert_int_eq(larder_ask_wait(map, &asked, 0), LARDER_EBUSY);
    larder_lease_options options = {.read_through_ms = -1};
    larder_lease lease;
    ck_assert_int_eq(larder_lease_acquire(map, "key", 3, &options, &lease, NULL, NULL, NULL),
                     LARDER_EINVAL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ask");
    TCase *tests = tcase_create("ask");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 30);
    tcase_add_test(tests, a_request_goes_round);
    tcase_add_test(tests, a_sleeper_is_woken);
    tcase_add_test(tests, nobody_waits_longer_than_he_said);
    tcase_add_test(tests, who_joins_has_his_own_time);
    tcase_add_test(tests, a_daemon_that_is_away_is_not_asked);
    tcase_add_test(tests, three_in_a_row_and_then_one_a_second);
    tcase_add_test(tests, a_full_table_is_a_plain_miss);
    tcase_add_test(tests, what_was_left_behind_is_freed);
    tcase_add_test(tests, a_lost_claim_is_not_posted);
    tcase_add_test(tests, garbage_is_refused);
    tcase_add_test(tests, a_requester_that_is_gone_keeps_nobody);
    tcase_add_test(tests, one_wakes_the_daemon_for_all);
    tcase_add_test(tests, who_waits_long_wakes_the_daemon_himself);
    tcase_add_test(tests, who_may_looks_before_he_sleeps);
    tcase_add_test(tests, arguments_that_are_none);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
