/* harness.c: directories, seeds, waits and processes of the check programs; see harness.h. The
 * servers are in harness_servers.c.
 */
#include "tests/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOWNESS 5
#else
#define SLOWNESS 1
#endif
#define ARGUMENTS_MAX 64

static uint64_t seed;
static char base[64];       /* made by harness_run(), shared by all tests of the program */
static char directory[96];  /* this process's own, in base */
static pid_t directory_pid; /* whose it is: a forked test has its own */

/* ---- Seed, time, places -----------------------------------------------------------------------
 */

uint64_t harness_seed(void)
{
    return seed;
}

uint64_t harness_random(uint64_t *stream)
{
    uint64_t word = (*stream += UINT64_C(0x9e3779b97f4a7c15)); /* splitmix64, Vigna */
    word = (word ^ (word >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    word = (word ^ (word >> 27)) * UINT64_C(0x94d049bb133111eb);
    return word ^ (word >> 31);
}

int64_t harness_now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int harness_patience(int milliseconds)
{
    return milliseconds > INT_MAX / SLOWNESS ? INT_MAX : milliseconds * SLOWNESS;
}

static void pause_ms(long milliseconds)
{
    struct timespec span = {.tv_sec = milliseconds / 1000,
                            .tv_nsec = (milliseconds % 1000) * 1000000L};
    int result;
    do {
        result = nanosleep(&span, &span);
    } while (result != 0 && errno == EINTR);
}

bool wait_until(bool (*condition)(void *context), void *context, int milliseconds)
{
    int64_t deadline = harness_now_ms() + harness_patience(milliseconds);
    for (;;) {
        if (condition(context)) {
            return true;
        }
        if (harness_now_ms() >= deadline) {
            return false;
        }
        pause_ms(2);
    }
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status;
    (void)type;
    (void)place;
    return remove(path) == 0 || errno == ENOENT ? 0 : -1;
}

static void remove_tree(const char *path)
{
    (void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void make_base(void)
{
    const char *parent = getenv("LARDER_TEST_DIR");
    if (parent == NULL || *parent == '\0' || strlen(parent) > 40) {
        parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    }
    (void)snprintf(base, sizeof base, "%s/larder.XXXXXX", parent);
    if (mkdtemp(base) == NULL) {
        (void)fprintf(stderr, "mkdtemp %s: %s\n", base, strerror(errno));
        exit(99);
    }
}

const char *harness_directory(void)
{
    if (directory_pid != getpid()) {
        ck_assert_msg(base[0] != '\0', "harness_directory() outside harness_run()");
        directory_pid = getpid();
        (void)snprintf(directory, sizeof directory, "%s/%d", base, (int)directory_pid);
        remove_tree(directory); /* process ids come again */
        ck_assert_msg(mkdir(directory, 0700) == 0, "mkdir %s: %s", directory, strerror(errno));
    }
    return directory;
}

const char *harness_path(const char *format, ...)
{
    static _Thread_local char paths[8][256];
    static _Thread_local unsigned next;
    char *path = paths[next++ % 8];
    int used = snprintf(path, sizeof paths[0], "%s/", harness_directory());
    va_list arguments;
    va_start(arguments, format);
    int more = vsnprintf(path + used, sizeof paths[0] - (size_t)used, format, arguments);
    va_end(arguments);
    ck_assert_msg(more >= 0 && (size_t)(used + more) < sizeof paths[0], "path too long: %s", path);
    return path;
}

const char *harness_write(const char *name, mode_t mode, const char *text)
{
    const char *path = harness_path("%s", name);
    FILE *file = fopen(path, "we");
    ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
    ck_assert_int_eq(chmod(path, mode), 0);
    return path;
}

int harness_run(Suite *suite)
{
    const char *text = getenv("LARDER_SEED");
    if (text != NULL && *text != '\0') {
        seed = strtoull(text, NULL, 0);
    } else if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed) {
        seed = (uint64_t)harness_now_ms();
    }
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    (void)printf("LARDER_SEED=%" PRIu64 "\n", seed);
    (void)signal(SIGPIPE, SIG_IGN);
    make_base();
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    if (failed > 0 && getenv("LARDER_TEST_KEEP") != NULL) {
        (void)printf("kept: %s\n", base);
    } else {
        remove_tree(base);
    }
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* ---- Processes --------------------------------------------------------------------------------
 */

/* In the child: never returns. */
static void run(const harness_process *process, const char *const argv[],
                const char *const environment[], pid_t parent)
{
    int log = open(process->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (log < 0 || nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0 ||
        dup2(log, STDERR_FILENO) < 0) {
        _exit(126);
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(126); /* it died before the line above */
    }
    for (size_t i = 0; environment != NULL && environment[i] != NULL; i++) {
        char *entry = strdup(environment[i]);
        if (entry == NULL || putenv(entry) != 0) {
            _exit(126);
        }
    }
    char *arguments[ARGUMENTS_MAX + 1];
    size_t count = 0;
    for (; count < ARGUMENTS_MAX && argv[count] != NULL; count++) {
        arguments[count] = strdup(argv[count]);
        if (arguments[count] == NULL) {
            _exit(126);
        }
    }
    arguments[count] = NULL;
    if (count == 0) {
        _exit(126);
    }
    (void)signal(SIGPIPE, SIG_DFL);
    (void)execvp(arguments[0], arguments);
    (void)fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

void harness_start(harness_process *process, const char *name, const char *const argv[],
                   const char *const environment[])
{
    if (name != process->name) {
        (void)snprintf(process->name, sizeof process->name, "%s", name);
    }
    (void)snprintf(process->log, sizeof process->log, "%s", harness_path("%s.log", name));
    (void)fflush(NULL);
    pid_t parent = getpid();
    pid_t child = fork();
    ck_assert_msg(child >= 0, "fork: %s", strerror(errno));
    if (child == 0) {
        run(process, argv, environment, parent);
    }
    process->pid = child;
}

struct reaped {
    harness_process *process;
    int status, options;
    bool lost; /* somebody else has reaped it, or it never was ours */
};

static bool reap(void *context)
{
    struct reaped *reaped = context;
    pid_t got = waitpid(reaped->process->pid, &reaped->status, reaped->options | WNOHANG);
    reaped->lost = got < 0 && errno != EINTR;
    return got == reaped->process->pid || reaped->lost;
}

int harness_end(harness_process *process, int signal_number, int milliseconds)
{
    ck_assert_msg(process->pid > 0, "%s is not running", process->name);
    if (signal_number != 0) {
        ck_assert_msg(kill(process->pid, signal_number) == 0, "kill %s: %s", process->name,
                      strerror(errno));
    }
    struct reaped reaped = {.process = process};
    if (!wait_until(reap, &reaped, milliseconds)) {
        (void)kill(process->pid, SIGKILL);
        (void)waitpid(process->pid, NULL, 0);
        process->pid = 0;
        char *log = harness_log(process);
        ck_abort_msg("%s did not end in %d ms after signal %d; its log:\n%s", process->name,
                     harness_patience(milliseconds), signal_number, log);
    }
    ck_assert_msg(!reaped.lost, "%s: waitpid: no such child", process->name);
    process->pid = 0;
    return reaped.status;
}

void harness_freeze(harness_process *process)
{
    struct reaped reaped = {.process = process, .options = WUNTRACED};
    ck_assert_msg(kill(process->pid, SIGSTOP) == 0, "SIGSTOP %s: %s", process->name,
                  strerror(errno));
    ck_assert_msg(wait_until(reap, &reaped, 5000) && !reaped.lost && WIFSTOPPED(reaped.status),
                  "%s did not stop", process->name);
}

void harness_thaw(harness_process *process)
{
    ck_assert_msg(kill(process->pid, SIGCONT) == 0, "SIGCONT %s: %s", process->name,
                  strerror(errno));
}

bool harness_alive(harness_process *process)
{
    struct reaped reaped = {.process = process};
    if (process->pid > 0 && reap(&reaped)) {
        process->pid = 0;
    }
    return process->pid > 0;
}

char *harness_log(const harness_process *process)
{
    char *text = NULL;
    size_t size = 0, used = 0;
    FILE *file = fopen(process->log, "re");
    ck_assert_msg(file != NULL, "%s: %s", process->log, strerror(errno));
    do {
        size = size == 0 ? 4096 : size * 2;
        char *larger = realloc(text, size);
        ck_assert_ptr_nonnull(larger);
        text = larger;
        used += fread(text + used, 1, size - 1 - used, file);
    } while (used == size - 1);
    text[used] = '\0';
    (void)fclose(file);
    return text;
}

struct wanted {
    const harness_process *process;
    const char *text;
};

static bool log_has(void *context)
{
    const struct wanted *wanted = context;
    char *log = harness_log(wanted->process);
    bool found = strstr(log, wanted->text) != NULL;
    free(log);
    return found;
}

void harness_never_logged(const harness_process *process, const char *text)
{
    char *log = harness_log(process);
    ck_assert_msg(strstr(log, text) == NULL, "%s", log);
    free(log);
}

bool harness_logged(const harness_process *process, const char *text, int milliseconds)
{
    struct wanted wanted = {.process = process, .text = text};
    return wait_until(log_has, &wanted, milliseconds);
}

pid_t harness_serve(int listener, void (*serve)(int client, const void *context),
                    const void *context)
{
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid != 0) {
        (void)close(listener);
        return pid;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0)
            _exit(1);
        if (fork() == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            serve(client, context);
            _exit(0);
        }
        (void)close(client);
    }
}
