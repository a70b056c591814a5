/* harness.c: see harness.h. Linked into every process test and into the benchmark drivers; it must
 * never call the library, so that a failure of the library cannot take the harness with it.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *test_name = "test";
static uint64_t seed;
static bool long_form;
static pid_t main_pid;
static char directory[256];

bool test_long(void)
{
    return long_form;
}
uint64_t test_seed(void)
{
    return seed;
}

static uint64_t number_from(const char *text, const char *variable)
{
    char *end = NULL;
    errno = 0;
    uint64_t number = strtoull(text, &end, 0);
    if (errno != 0 || end == text || *end != '\0') {
        fprintf(stderr, "%s: %s=%s is not a number\n", test_name, variable, text);
        exit(2);
    }
    return number;
}

uint64_t test_number(const char *variable, uint64_t short_default, uint64_t long_default)
{
    const char *text = getenv(variable);
    if (text != NULL && *text != '\0')
        return number_from(text, variable);
    return long_form ? long_default : short_default;
}

/* Only async-signal-safe calls. The children die with this process (PR_SET_PDEATHSIG). */
static void watchdog_fired(int signal_number)
{
    (void)signal_number;
    static const char text[] = "watchdog: the test did not end in time\n";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
    (void)ignored;
    _exit(98);
}

void test_begin(const char *name, unsigned limit_s)
{
    test_name = name;
    main_pid = getpid();
    const char *text = getenv("LARDER_LONG");
    long_form = text != NULL && *text != '\0' && strcmp(text, "0") != 0;
    text = getenv("LARDER_SEED");
    if (text != NULL && *text != '\0') {
        seed = number_from(text, "LARDER_SEED");
    } else if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed) {
        seed = test_now_ns();
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    printf("%s: LARDER_SEED=%" PRIu64 "%s\n", name, seed, long_form ? " LARDER_LONG=1" : "");
    signal(SIGALRM, watchdog_fired);
    alarm(limit_s * TEST_SLOWNESS * (long_form ? 10u : 1u));
}

static void clean_up(void)
{
    if (getpid() == main_pid && directory[0] != '\0') {
        test_remove_tree(directory);
        directory[0] = '\0';
    }
}

void test_end(void)
{
    clean_up();
    printf("%s: ok\n", test_name);
    exit(0);
}

void test_skip(const char *reason)
{
    clean_up();
    printf("%s: skipped: %s\n", test_name, reason);
    exit(TEST_SKIP);
}

void test_fail_at(const char *file, int line, const char *format, ...)
{
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    fflush(stdout);
    fprintf(stderr, "%s:%d: FAILED (pid %d, LARDER_SEED=%" PRIu64 "): %s\n", file, line,
            (int)getpid(), seed, text);
    fflush(stderr);
    if (getpid() != main_pid)
        _exit(99);
    if (getenv("LARDER_TEST_KEEP") == NULL) {
        clean_up();
    } else {
        fprintf(stderr, "kept: %s\n", directory);
    }
    _exit(1);
}

void test_figure(const char *name, double value, const char *unit)
{
    printf("%s %.6g %s\n", name, value, unit);
}

/* ---- Time ---------------------------------------------------------------------------------- */

uint64_t test_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t test_now_us(void)
{
    return test_now_ns() / 1000u;
}

void test_pause_us(uint64_t us)
{
    struct timespec span = {.tv_sec = (time_t)(us / 1000000u),
                            .tv_nsec = (long)(us % 1000000u) * 1000L};
    while (nanosleep(&span, &span) != 0 && errno == EINTR)
        continue;
}

/* ---- Randomness ---------------------------------------------------------------------------- */

uint64_t test_random_next(test_random *random)
{
    uint64_t word = (random->state += UINT64_C(0x9e3779b97f4a7c15)); /* splitmix64, Vigna */
    word = (word ^ (word >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    word = (word ^ (word >> 27)) * UINT64_C(0x94d049bb133111eb);
    return word ^ (word >> 31);
}

test_random test_random_new(uint64_t stream)
{
    test_random random = {seed ^ (stream * UINT64_C(0xd1342543de82ef95))};
    random.state = test_random_next(&random);
    return random;
}

uint64_t test_random_below(test_random *random, uint64_t limit)
{
    return test_random_next(random) % limit;
}

/* ---- Places and memory --------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status;
    (void)type;
    (void)place;
    return remove(path) == 0 || errno == ENOENT ? 0 : -1;
}

void test_remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *test_directory(void)
{
    if (directory[0] == '\0') {
        const char *base = getenv("LARDER_TEST_DIR");
        snprintf(directory, sizeof directory, "%s/larder-%s-XXXXXX",
                 base != NULL && *base != '\0' ? base : "/dev/shm", test_name);
        if (mkdtemp(directory) == NULL) {
            fprintf(stderr, "%s: mkdtemp %s: %s\n", test_name, directory, strerror(errno));
            exit(1);
        }
    }
    return directory;
}

void *test_shared(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    test_check(memory != MAP_FAILED, "mmap of %zu bytes: %s", size, strerror(errno));
    return memory;
}

/* ---- Processes ----------------------------------------------------------------------------- */

pid_t test_spawn(int (*function)(void *context), void *context)
{
    fflush(NULL);
    pid_t parent = getpid();
    pid_t child = fork();
    test_check(child >= 0, "fork: %s", strerror(errno));
    if (child != 0)
        return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(97); /* it died before the line above */
    alarm(0);
    exit(function(context));
}

const char *test_status_text(int status)
{
    static _Thread_local char text[80];
    if (WIFEXITED(status)) {
        snprintf(text, sizeof text, "exit %d", WEXITSTATUS(status));
    } else if (WIFSIGNALED(status)) {
        snprintf(text, sizeof text, "signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    } else {
        snprintf(text, sizeof text, "status %#x", (unsigned)status);
    }
    return text;
}

int test_wait(pid_t child, uint64_t milliseconds)
{
    uint64_t deadline = test_now_us() + milliseconds * 1000u * TEST_SLOWNESS;
    for (;;) {
        int status = 0;
        pid_t got = waitpid(child, &status, WNOHANG);
        if (got == child)
            return status;
        test_check(got == 0 || errno == EINTR, "waitpid %d: %s", (int)child, strerror(errno));
        if (test_now_us() > deadline) {
            char command[160]; /* where it hangs, for the log */
            snprintf(command, sizeof command, "cat /proc/%d/wchan /proc/%d/syscall >&2", (int)child,
                     (int)child);
            if (system(command) != 0)
                fprintf(stderr, "(no wchan)\n");
            kill(child, SIGKILL);
            test_fail("child %d still runs after %" PRIu64 " ms", (int)child, milliseconds);
        }
        test_pause_us(500);
    }
}

void test_join(pid_t child, uint64_t milliseconds, const char *what)
{
    int status = test_wait(child, milliseconds);
    test_check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: %s", what,
               test_status_text(status));
}

void test_kill(pid_t child)
{
    kill(child, SIGKILL);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
}

void test_stop(pid_t child)
{
    test_check(kill(child, SIGSTOP) == 0, "SIGSTOP %d: %s", (int)child, strerror(errno));
    uint64_t deadline = test_now_us() + 5000000u;
    for (;;) {
        int status = 0;
        pid_t got = waitpid(child, &status, WUNTRACED | WNOHANG);
        if (got == child) {
            test_check(WIFSTOPPED(status), "child %d was to stop: %s", (int)child,
                       test_status_text(status));
            return;
        }
        test_check(test_now_us() < deadline, "child %d does not stop", (int)child);
        test_pause_us(50);
    }
}

/* ---- Values that tell whose they are ----------------------------------------------------------
 */

static uint64_t value_word(uint64_t tag, size_t index)
{
    if (index == 0)
        return tag;
    uint64_t word = (tag + index) * UINT64_C(0x9e3779b97f4a7c15);
    return word ^ (word >> 29);
}

void test_value_fill(void *out, size_t size, uint64_t tag)
{
    uint8_t *bytes = out;
    for (size_t at = 0, index = 0; at < size; at += 8, index++) {
        uint64_t word = value_word(tag, index);
        memcpy(bytes + at, &word, size - at < 8 ? size - at : 8);
    }
}

bool test_value_is(const void *value, size_t size, uint64_t tag)
{
    const uint8_t *bytes = value;
    for (size_t at = 0, index = 0; at < size; at += 8, index++) {
        uint64_t word = value_word(tag, index);
        if (memcmp(bytes + at, &word, size - at < 8 ? size - at : 8) != 0)
            return false;
    }
    return true;
}

bool test_value_tag(const void *value, size_t size, uint64_t *tag)
{
    if (size < 8)
        return false;
    memcpy(tag, value, 8);
    return test_value_is(value, size, *tag);
}
