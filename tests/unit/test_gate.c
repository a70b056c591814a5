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
    tcase_add_test(tests, memory_that_is_no_gate_is_called_broken);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
