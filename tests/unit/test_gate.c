/* test_gate.c: a gate between processes: its holder may be slow, stopped or killed, and nobody
 * waits longer than asked for.
 */
#include "gate.h"

#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/harness.h"
#include "tests/unit/maps.h"

static struct gate *gate;

static void make_gate(void)
{
    gate = mmap(NULL, sizeof *gate, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(gate != MAP_FAILED);
    ck_assert_int_eq(gate_init(gate), 0);
}

static void drop_gate(void)
{
    (void)munmap(gate, sizeof *gate);
}

/* Refused as busy, not before the deadline and not long after it. */
static void busy_for(int64_t wait_ms)
{
    int64_t began = harness_now_ms();
    ck_assert_int_eq(gate_enter(gate, wait_ms), GATE_BUSY);
    int64_t took = harness_now_ms() - began;
    ck_assert_int_ge(took, wait_ms - 1);
    ck_assert_int_le(took, wait_ms + harness_patience(1000));
}

START_TEST(in_and_out)
{
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(gate_enter(gate, 0), GATE_ENTERED);
        gate_leave(gate);
        ck_assert_int_eq(gate_enter(gate, 100), GATE_ENTERED);
        gate_leave(gate);
    }
    gate_leave(gate); /* not held: nothing happens */
    ck_assert_int_eq(gate_enter(gate, 0), GATE_ENTERED);
    gate_leave(gate);
}
END_TEST

START_TEST(the_holder_itself_is_told)
{
    ck_assert_int_eq(gate_enter(gate, 0), GATE_ENTERED);
    int64_t began = harness_now_ms();
    ck_assert_int_eq(gate_enter(gate, 0), GATE_OWN);
    ck_assert_int_eq(gate_enter(gate, 60000), GATE_OWN);
    ck_assert_int_le(harness_now_ms() - began, harness_patience(1000));
    gate_leave(gate);
}
END_TEST

START_TEST(a_held_gate_is_busy_in_time)
{
    struct maps_holder holder = maps_hold(gate);
    busy_for(0);
    busy_for(3);
    busy_for(50);
    busy_for(120);
    maps_let_go(&holder);
    ck_assert_int_eq(gate_enter(gate, 0), GATE_ENTERED);
    gate_leave(gate);
}
END_TEST

START_TEST(a_stopped_holder_is_waited_for_no_longer)
{
    int status;
    struct maps_holder holder = maps_hold(gate);
    ck_assert_int_eq(kill(holder.pid, SIGSTOP), 0);
    ck_assert_int_eq(waitpid(holder.pid, &status, WUNTRACED), holder.pid);
    ck_assert(WIFSTOPPED(status));
    busy_for(50);
    ck_assert_int_eq(kill(holder.pid, SIGCONT), 0);
    maps_let_go(&holder);
    ck_assert_int_eq(gate_enter(gate, 0), GATE_ENTERED);
    gate_leave(gate);
}
END_TEST

START_TEST(a_killed_holder_is_recovered_from_once)
{
    struct maps_holder holder = maps_hold(gate);
    maps_kill(&holder);
    ck_assert_int_eq(gate_enter(gate, 0), GATE_RECOVERED);
    gate_leave(gate);
    ck_assert_int_eq(gate_enter(gate, 0), GATE_ENTERED);
    gate_leave(gate);
}
END_TEST

struct waiter {
    pthread_t thread;
    enum gate_result result;
    int64_t wait_ms;
};

static void *wait_for_gate(void *context)
{
    struct waiter *waiter = context;
    waiter->result = gate_enter(gate, waiter->wait_ms);
    if (waiter->result >= 0) {
        gate_leave(gate);
    }
    return NULL;
}

START_TEST(one_who_waits_gets_in_when_the_holder_leaves_or_dies)
{
    struct waiter waiter = {.wait_ms = harness_patience(10000)};
    struct maps_holder holder = maps_hold(gate);
    ck_assert_int_eq(pthread_create(&waiter.thread, NULL, wait_for_gate, &waiter), 0);
    maps_let_go(&holder);
    ck_assert_int_eq(pthread_join(waiter.thread, NULL), 0);
    ck_assert_int_eq(waiter.result, GATE_ENTERED);

    holder = maps_hold(gate);
    ck_assert_int_eq(pthread_create(&waiter.thread, NULL, wait_for_gate, &waiter), 0);
    maps_kill(&holder);
    ck_assert_int_eq(pthread_join(waiter.thread, NULL), 0);
    ck_assert_int_eq(waiter.result, GATE_RECOVERED);
}
END_TEST

static void *enter_and_end(void *context)
{
    *(enum gate_result *)context = gate_enter(gate, 0);
    return NULL;
}

START_TEST(a_thread_that_ended_inside_is_recovered_from)
{
    pthread_t thread;
    enum gate_result result = GATE_BROKEN;
    ck_assert_int_eq(pthread_create(&thread, NULL, enter_and_end, &result), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(result, GATE_ENTERED);
    ck_assert_int_eq(gate_enter(gate, 0), GATE_RECOVERED);
    gate_leave(gate);
}
END_TEST

START_TEST(another_thread_of_the_process_finds_it_busy)
{
    struct waiter waiter = {.wait_ms = 20};
    ck_assert_int_eq(gate_enter(gate, 0), GATE_ENTERED);
    ck_assert_int_eq(pthread_create(&waiter.thread, NULL, wait_for_gate, &waiter), 0);
    ck_assert_int_eq(pthread_join(waiter.thread, NULL), 0);
    ck_assert_int_eq(waiter.result, GATE_BUSY);
    gate_leave(gate);
}
END_TEST

/* Shared by the processes that contend. */
struct counted {
    uint64_t inside; /* plain: the gate is what protects it */
    _Atomic uint64_t entered, recovered;
};

enum { CONTENDERS = 4, TURNS = 4000 };

static void contend(struct counted *counted, uint64_t turns)
{
    for (uint64_t i = 0; i < turns; i++) {
        enum gate_result result = gate_enter(gate, harness_patience(10000));
        if (result < 0) {
            _exit(1);
        }
        counted->inside++;
        (void)atomic_fetch_add(result == GATE_RECOVERED ? &counted->recovered : &counted->entered,
                               1);
        gate_leave(gate);
    }
}

static struct counted *make_counted(void)
{
    struct counted *counted =
        mmap(NULL, sizeof *counted, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(counted != MAP_FAILED);
    return counted;
}

static pid_t start_contender(struct counted *counted, uint64_t turns)
{
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        contend(counted, turns);
        _exit(0);
    }
    return child;
}

/* More of them than processors: one that looks must not keep the holder from leaving. */
START_TEST(many_who_want_it_at_once_all_get_it)
{
    struct counted *counted = make_counted();
    pid_t children[CONTENDERS];
    for (int i = 0; i < CONTENDERS; i++) {
        children[i] = start_contender(counted, TURNS);
    }
    for (int i = 0; i < CONTENDERS; i++) {
        int status;
        ck_assert_int_eq(waitpid(children[i], &status, 0), children[i]);
        ck_assert_int_eq(status, 0);
    }
    ck_assert_uint_eq(counted->inside, CONTENDERS * TURNS);
    ck_assert_uint_eq(atomic_load(&counted->recovered), 0);
    (void)munmap(counted, sizeof *counted);
}
END_TEST

struct goal {
    struct counted *counted;
    uint64_t entered;
};

static bool is_reached(void *context)
{
    const struct goal *goal = context;
    return atomic_load(&goal->counted->entered) >= goal->entered;
}

/* Killed while they look, sleep, or are inside, whatever comes: the one that is left goes on. */
START_TEST(contenders_that_are_killed_hold_nobody_up)
{
    enum { ROUNDS = 60 };
    struct counted *counted = make_counted();
    for (int round = 0; round < ROUNDS; round++) {
        pid_t children[2];
        for (int i = 0; i < 2; i++) {
            children[i] = start_contender(counted, UINT64_MAX);
        }
        struct goal goal = {counted, atomic_load(&counted->entered) + 200 + (uint64_t)round * 7};
        ck_assert(wait_until(is_reached, &goal, 10000));
        for (int i = 0; i < 2; i++) {
            int status;
            ck_assert_int_eq(kill(children[i], SIGKILL), 0);
            ck_assert_int_eq(waitpid(children[i], &status, 0), children[i]);
            ck_assert(WIFSIGNALED(status)); /* it was never refused */
        }
        enum gate_result result = gate_enter(gate, 0);
        ck_assert_msg(result >= 0, "round %d: %d", round, result);
        gate_leave(gate);
    }
    (void)munmap(counted, sizeof *counted);
}
END_TEST

START_TEST(memory_that_is_no_gate_is_called_broken)
{
    memset(gate, 0x7f, sizeof *gate);
    ck_assert_int_eq(gate_enter(gate, 20), GATE_BROKEN);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gate");
    TCase *tests = tcase_create("gate");
    tcase_set_timeout(tests, 30);
    tcase_add_checked_fixture(tests, make_gate, drop_gate);
    tcase_add_test(tests, in_and_out);
    tcase_add_test(tests, the_holder_itself_is_told);
    tcase_add_test(tests, a_held_gate_is_busy_in_time);
    tcase_add_test(tests, a_stopped_holder_is_waited_for_no_longer);
    tcase_add_test(tests, a_killed_holder_is_recovered_from_once);
    tcase_add_test(tests, one_who_waits_gets_in_when_the_holder_leaves_or_dies);
    tcase_add_test(tests, a_thread_that_ended_inside_is_recovered_from);
    tcase_add_test(tests, another_thread_of_the_process_finds_it_busy);
    tcase_add_test(tests, many_who_want_it_at_once_all_get_it);
    tcase_add_test(tests, contenders_that_are_killed_hold_nobody_up);
    tcase_add_test(tests, memory_that_is_no_gate_is_called_broken);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
