/* maps.h: what the unit tests of the library share: a map in the test's directory, the question
 * whether it is whole, a child that does one thing and reports by its exit status, and a child that
 * holds a gate until it is told to leave. A helper that cannot do its work fails the running test.
 */
#ifndef LARDER_TESTS_UNIT_MAPS_H
#define LARDER_TESTS_UNIT_MAPS_H

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "handle.h"
#include "inspect.h"
#include "larder.h"
#include "tests/harness.h"

#define MAPS_SIZE (UINT64_C(16) << 20)

/* ---- Maps --------------------------------------------------------------------------------------
 */

/* larder_options.hot_size of the maps that follow: a test that goes behind the library's back, or
 * looks at what the tree alone decides, has LARDER_NO_HOT_SET. */
static uint64_t maps_hot_size;

static inline larder *maps_open(const char *name, uint64_t size, uint32_t flags)
{
    larder *map = NULL;
    larder_options options = {
        .dir = harness_directory(), .map_size = size, .hot_size = maps_hot_size, .flags = flags};
    int result = larder_open(name, &options, &map);
    ck_assert_msg(result == LARDER_OK, "larder_open(%s): %d %s", name, result, larder_last_error());
    return map;
}

/* A fresh map; no two tests of a process get the same. */
static inline larder *maps_new(void)
{
    static unsigned count;
    char name[16];
    (void)snprintf(name, sizeof name, "map%u", count++);
    return maps_open(name, MAPS_SIZE, 0);
}

static inline struct control *maps_control(larder *map)
{
    return map_control(map->map);
}

static inline void maps_whole(larder *map)
{
    inspect_report report;
    int result = inspect_check(map, &report);
    ck_assert_msg(result == LARDER_OK && !report.damaged, "inspect_check: %d %s", result,
                  report.damaged ? report.damage : larder_last_error());
}

static inline larder_stats maps_stats(larder *map)
{
    larder_stats stats;
    ck_assert_int_eq(larder_stats_read(map, &stats, sizeof stats), LARDER_OK);
    return stats;
}

/* ---- Text keys and values ----------------------------------------------------------------------
 */

static inline int maps_set(larder *map, const char *key, const char *value)
{
    return larder_set(map, key, strlen(key), value, strlen(value), NULL);
}

static inline int maps_delete(larder *map, const char *key)
{
    return larder_delete(map, key, strlen(key));
}

static inline int maps_has(larder *map, const char *key)
{
    return larder_has(map, key, strlen(key));
}

/* The value as text, in a buffer that is good until the next call; NULL if it is a miss. */
static inline const char *maps_get(larder *map, const char *key)
{
    static char text[4096];
    larder_info info;
    int result = larder_get(map, key, strlen(key), text, sizeof text - 1, &info);
    if (result == LARDER_MISS) {
        return NULL;
    }
    ck_assert_msg(result == LARDER_OK, "get of %s: %d %s", key, result, larder_last_error());
    text[info.size] = '\0';
    return text;
}

static inline larder_info maps_info(larder *map, const char *key)
{
    larder_info info;
    char text[4096];
    int result = larder_get(map, key, strlen(key), text, sizeof text, &info);
    ck_assert_msg(result == LARDER_OK || result == LARDER_ABSENT, "%s: %d", key, result);
    return info;
}

/* ---- Processes ---------------------------------------------------------------------------------
 */

/* Run the function in a child; its value is the child's exit status, which is returned (or minus
 * the signal that ended it). */
static inline int maps_in_child(int (*function)(void *context), void *context)
{
    (void)fflush(NULL);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(function(context));
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0) {
        ck_assert_int_eq(errno, EINTR);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

struct maps_holder {
    pid_t pid;
    int leave; /* closing it tells the child to leave the gate and end */
};

/* Start a child that holds the gate; returns when it is inside. */
static inline struct maps_holder maps_hold(struct gate *gate)
{
    int inside[2], leave[2];
    char byte = 0;
    ck_assert_int_eq(pipe(inside), 0);
    ck_assert_int_eq(pipe(leave), 0);
    (void)fflush(NULL);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)close(leave[1]);
        if (gate_enter(gate, 5000) < 0 || write(inside[1], "x", 1) != 1) {
            _exit(1);
        }
        (void)!read(leave[0], &byte, 1);
        gate_leave(gate);
        _exit(0);
    }
    (void)close(inside[1]);
    (void)close(leave[0]);
    ck_assert_int_eq(read(inside[0], &byte, 1), 1);
    (void)close(inside[0]);
    return (struct maps_holder){.pid = pid, .leave = leave[1]};
}

/* Tell it to leave (or kill it inside) and wait until it is gone. */
static inline void maps_let_go(struct maps_holder *holder)
{
    int status = 0;
    (void)close(holder->leave);
    ck_assert_int_eq(waitpid(holder->pid, &status, 0), holder->pid);
    ck_assert_int_eq(status, 0);
}

static inline void maps_kill(struct maps_holder *holder)
{
    int status = 0;
    ck_assert_int_eq(kill(holder->pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(holder->pid, &status, 0), holder->pid);
    (void)close(holder->leave);
}

#endif
