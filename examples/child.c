/* child.c: see child.h. The demo calls this; it must never signal a process it did not start. */
#include "examples/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* In the new process: redirect, and run the program. */
_Noreturn static void child_become(const char *log, char *const argv[], int output, pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    /* A group of its own: Ctrl-C at the terminal reaches the demo alone, which ends them in order.
     */
    if (in >= 0 && out >= 0 && setpgid(0, 0) == 0 && dup2(in, STDIN_FILENO) >= 0 &&
        dup2(output >= 0 ? output : out, STDOUT_FILENO) >= 0 && dup2(out, STDERR_FILENO) >= 0 &&
        prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 && getppid() == parent)
        execvp(argv[0], argv);
    dprintf(STDERR_FILENO, "cannot run %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

int child_start(struct child *self, const char *name, const char *log, char *const argv[],
                int *output)
{
    int ends[2] = {-1, -1};
    pid_t parent = getpid();
    if (output != NULL && pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    *self = (struct child){.name = name};
    snprintf(self->log, sizeof self->log, "%s", log);
    pid_t pid = fork();
    if (pid == 0)
        child_become(log, argv, ends[1], parent);
    int saved = errno;
    if (ends[1] >= 0)
        close(ends[1]);
    if (pid < 0) {
        if (ends[0] >= 0)
            close(ends[0]);
        errno = saved;
        return -1;
    }
    self->pid = pid;
    if (output != NULL)
        *output = ends[0];
    return 0;
}

bool child_gone(struct child *self)
{
    int status;
    if (self->pid == 0)
        return true;
    if (waitpid(self->pid, &status, WNOHANG) != self->pid)
        return false;
    self->status = status;
    self->pid = 0;
    return true;
}

struct child *children_reap(struct child *const *children, size_t count)
{
    struct child *unexpected = NULL;
    for (size_t i = 0; i < count; i++) {
        if (children[i]->pid == 0 || !child_gone(children[i]))
            continue;
        if (!children[i]->expected && unexpected == NULL)
            unexpected = children[i];
    }
    return unexpected;
}

void child_signal(struct child *self, int signal_number)
{
    if (self->pid == 0)
        return;
    if (signal_number == SIGTERM || signal_number == SIGKILL)
        self->expected = true;
    kill(self->pid, signal_number);
}

void child_log_tail(const struct child *self, char *out, size_t size)
{
    out[0] = '\0';
    int file = open(self->log, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return;
    off_t end = lseek(file, 0, SEEK_END);
    off_t from = end > (off_t)size - 1 ? end - ((off_t)size - 1) : 0;
    ssize_t got = end < 0 ? -1 : pread(file, out, size - 1, from);
    close(file);
    out[got > 0 ? got : 0] = '\0';
    char *line = from > 0 ? strchr(out, '\n') : NULL;
    if (line != NULL)
        memmove(out, line + 1, strlen(line + 1) + 1);
}
