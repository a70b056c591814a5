/* process.c: asking the kernel after other processes.
 */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct status {
    char state;
    long threads;
    uint64_t start;
};

/* /proc/PID/stat, proc(5): "pid (name) state ...", threads is field 20, the start field 22. */
static bool read_status(pid_t pid, struct status *status)
{
    char path[32], text[1024];
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return false;
    }
    ssize_t got = read(file, text, sizeof text - 1);
    (void)close(file);
    if (got <= 0) {
        return false;
    }
    text[got] = '\0';
    char *at = strrchr(text, ')'); /* the name may hold anything, this too */
    if (at == NULL || at[1] != ' ' || at[2] == '\0') {
        return false;
    }
    at += 2;
    *status = (struct status){.state = *at};
    for (int field = 3; field < 22; field++) {
        if (field == 20) {
            status->threads = strtol(at, NULL, 10);
        }
        at = strchr(at, ' ');
        if (at == NULL) {
            return false;
        }
        at++;
    }
    status->start = strtoull(at, NULL, 10);
    return true;
}

uint64_t process_start(void)
{
    static _Atomic uint64_t known; /* start, of the process of known_pid */
    static _Atomic pid_t known_pid;
    pid_t self = getpid();
    /* acquire: pairs with the release below */
    if (atomic_load_explicit(&known_pid, memory_order_acquire) == self) {
        return atomic_load_explicit(&known, memory_order_relaxed);
    }
    struct status status;
    if (!read_status(self, &status)) {
        return 0;
    }
    atomic_store_explicit(&known, status.start, memory_order_relaxed);
    atomic_store_explicit(&known_pid, self, memory_order_release);
    return status.start;
}

bool process_gone(pid_t pid, uint64_t start)
{
    struct status status;
    if (pid <= 0 || (kill(pid, 0) != 0 && errno == ESRCH)) {
        return true;
    }
    if (!read_status(pid, &status)) {
        return false;
    }
    if (start != 0 && status.start != start) {
        return true;
    }
    /* A leader that ended before its other threads looks like a zombie, but the process lives. */
    return (status.state == 'Z' || status.state == 'X') && status.threads <= 1;
}
