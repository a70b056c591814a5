/* pidns.c: robust mutexes and LMDB's reader table go by pid, so a process of another PID namespace
 * would take living readers for dead ones. It is refused with LARDER_ENAMESPACE, whichever side
 * made the map, and the map is untouched. Skipped where the machine does not let us make a
 * namespace.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "larder.h"

static const char *directory;

/* LeakSanitizer cannot trace the first process of a namespace; the other sanitizers can stay. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

static int try_open(const char *map, larder **handle)
{
    larder_options options = {.dir = directory, .map_size = 16u << 20};
    return larder_open(map, &options, handle);
}

static int refused(void *context)
{
    larder *handle = NULL;
    int code = try_open(context, &handle);
    test_check(code == LARDER_ENAMESPACE, "open from another PID namespace: %d %s", code,
               larder_last_error());
    test_check(handle == NULL, "an error and a handle");
    test_check(strstr(larder_last_error(), "namespace") != NULL, "the message: %s",
               larder_last_error());
    return 0;
}

static int make(void *context)
{
    larder *handle = NULL;
    int code = try_open(context, &handle);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    test_check(larder_set(handle, "k", 1, "v", 1, NULL) == LARDER_OK, "set");
    larder_close(&handle);
    return 0;
}

static bool write_file(const char *path, const char *text)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    bool done = write(file, text, strlen(text)) == (ssize_t)strlen(text);
    close(file);
    return done;
}

/* This process's children go to a new PID namespace, with the same user. */
static bool enter_namespace(void)
{
    unsigned user = (unsigned)geteuid(), group = (unsigned)getegid();
    char text[64];
    if (unshare(CLONE_NEWPID) == 0)
        return true;
    if (unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0)
        return false;
    snprintf(text, sizeof text, "%u %u 1\n", user, user);
    if (!write_file("/proc/self/uid_map", text))
        return false;
    snprintf(text, sizeof text, "%u %u 1\n", group, group);
    return write_file("/proc/self/setgroups", "deny") && write_file("/proc/self/gid_map", text);
}

static int strangers(void)
{
    return refused("outside") != 0 || make("inside") != 0;
}

static larder *inherited;

static int with_handle(void)
{
    char value[1];
    int code = larder_get(inherited, "k", 1, value, 1, NULL);
    test_check(code == LARDER_ENAMESPACE, "get from another PID namespace: %d", code);
    /* just refused: for a moment it is not even tried again */
    code = larder_set(inherited, "k", 1, "w", 1, NULL);
    test_check(code == LARDER_ENAMESPACE || code == LARDER_EBUSY,
               "set from another PID namespace: %d %s", code, larder_last_error());
    return refused("outside");
}

/* The first process of a namespace is its init: one child does all. test_spawn() would look for the
 * parent, who has no pid in there. */
static int run_inside(int (*function)(void))
{
    if (!enter_namespace())
        return TEST_SKIP;
    pid_t child = fork();
    test_check(child >= 0, "fork: %s", strerror(errno));
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int status = function();
        fflush(NULL);
        _exit(status); /* LeakSanitizer does not work in there */
    }
    test_join(child, 10000, "a process inside");
    fflush(NULL);
    _exit(0); /* for the same reason */
}

static int in_namespace(void *context)
{
    (void)context;
    return run_inside(strangers);
}

static int in_namespace_with_handle(void *context)
{
    (void)context;
    return run_inside(with_handle);
}

int main(void)
{
    test_begin("pidns", 30);
    directory = test_directory();
    larder *handle = NULL;
    char value[1];
    test_join(test_spawn(make, "outside"), 10000, "a process that makes a map outside");
    int status = test_wait(test_spawn(in_namespace, NULL), 20000);
    if (WIFEXITED(status) && WEXITSTATUS(status) == TEST_SKIP) {
        test_skip("no permission to make a PID namespace");
    }
    test_check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "inside: %s",
               test_status_text(status));
    test_check(try_open("outside", &handle) == LARDER_OK, "open: %s", larder_last_error());
    test_check(larder_get(handle, "k", 1, value, 1, NULL) == LARDER_OK && value[0] == 'v',
               "the refused process hurt the map");
    larder_close(&handle);
    test_join(test_spawn(refused, "inside"), 10000, "a process outside");
    /* and one that goes inside with a handle that it inherits: no write, no read, no crash */
    test_check(try_open("outside", &inherited) == LARDER_OK, "open: %s", larder_last_error());
    test_join(test_spawn(in_namespace_with_handle, NULL), 20000, "inside, with a handle");
    test_check(larder_get(inherited, "k", 1, value, 1, NULL) == LARDER_OK && value[0] == 'v',
               "the process inside hurt the map");
    larder_close(&inherited);
    test_end();
}
