/* harness.h: what the process tests share: a seed that is printed, children that die with their
 * parent, waits with a deadline, a temporary directory, shared memory, self-describing values and
 * figures. Used by tests/multi and by the drivers in bench/; it knows nothing of the library.
 *
 * A failure prints the place, the seed and the reason, removes the directory and ends the process
 * with status 1 (a child with 99, which its parent then reports). Nothing here waits for ever: a
 * watchdog ends the whole test when its time is over.
 */
#ifndef LARDER_TESTS_HARNESS_H
#define LARDER_TESTS_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TEST_SLOWNESS 5u /* how much slower than a plain build everything is */
#else
#define TEST_SLOWNESS 1u
#endif

#define TEST_SKIP 77 /* exit status: the machine cannot run this test */

/* Set up: seed from $LARDER_SEED or chosen (and printed), long form from $LARDER_LONG, a watchdog
 * that ends the test after limit_s (times ten in the long form, times TEST_SLOWNESS). */
void test_begin(const char *name, unsigned limit_s);
/* Remove the directories made by this process and exit 0, printing "NAME: ok". */
void test_end(void) __attribute__((noreturn));
void test_skip(const char *reason) __attribute__((noreturn));
bool test_long(void);
uint64_t test_seed(void);

/* A number from the environment, else the short or the long default. */
uint64_t test_number(const char *variable, uint64_t short_default, uint64_t long_default);

void test_fail_at(const char *file, int line, const char *format, ...)
    __attribute__((noreturn, format(printf, 3, 4)));
#define test_fail(...) test_fail_at(__FILE__, __LINE__, __VA_ARGS__)
#define test_check(condition, ...)                                                                 \
    do {                                                                                           \
        if (!(condition))                                                                          \
            test_fail_at(__FILE__, __LINE__, __VA_ARGS__);                                         \
    } while (0)

/* One line "name value unit". */
void test_figure(const char *name, double value, const char *unit);

/* ---- Time ---------------------------------------------------------------------------------- */

uint64_t test_now_ns(void); /* CLOCK_MONOTONIC */
uint64_t test_now_us(void);
void test_pause_us(uint64_t us); /* between two looks at a condition, or before an injected fault */

/* Look at the condition every 200 us until it holds; fail after milliseconds (x TEST_SLOWNESS). */
#define test_until(condition, milliseconds, ...)                                                   \
    do {                                                                                           \
        uint64_t until_us_ = test_now_us() + (uint64_t)(milliseconds)*1000u * TEST_SLOWNESS;       \
        while (!(condition)) {                                                                     \
            if (test_now_us() > until_us_)                                                         \
                test_fail_at(__FILE__, __LINE__, __VA_ARGS__);                                     \
            test_pause_us(200);                                                                    \
        }                                                                                          \
    } while (0)

/* ---- Randomness ---------------------------------------------------------------------------- */

typedef struct test_random {
    uint64_t state;
} test_random;

test_random test_random_new(uint64_t stream); /* a stream of the test's seed */
uint64_t test_random_next(test_random *random);
uint64_t test_random_below(test_random *random, uint64_t limit); /* 0 .. limit - 1; limit > 0 */

/* ---- Places and memory --------------------------------------------------------------------- */

const char *test_directory(void); /* made at the first call, under $LARDER_TEST_DIR or /dev/shm */
void *test_shared(size_t size);   /* zeroed memory shared with all children forked later */
void test_remove_tree(const char *path);

/* ---- Processes ----------------------------------------------------------------------------- */

/* Fork a child that runs function(context) and exits with its result; it is killed when the thread
 * that called this ends. */
pid_t test_spawn(int (*function)(void *context), void *context);
/* The wait status; fails (and kills the child) when it has not ended in time. */
int test_wait(pid_t child, uint64_t milliseconds);
/* Fail unless the child ends with status 0 in time; 'what' names it. */
void test_join(pid_t child, uint64_t milliseconds, const char *what);
/* SIGKILL and reap. */
void test_kill(pid_t child);
/* SIGSTOP and return once it has stopped. */
void test_stop(pid_t child);
const char *test_status_text(int status); /* "exit 3", "signal 11 (Segmentation fault)" */

/* ---- Values that tell whose they are ----------------------------------------------------------
 */

/* Fill out with bytes that follow from tag and size; the first 8 bytes (or fewer) are the tag. */
void test_value_fill(void *out, size_t size, uint64_t tag);
/* Whether these are exactly the bytes test_value_fill(tag) gives. */
bool test_value_is(const void *value, size_t size, uint64_t tag);
/* The tag of a value of at least 8 bytes that is whole; false if it is torn. */
bool test_value_tag(const void *value, size_t size, uint64_t *tag);

#endif
