/* start.c: programs that the comparison starts: servers, PHP, uWSGI. They die with the driver; the
 * driver ends them by pid. Called in the driver alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "bench/measure.h"
#include "peer.h"

bool peer_installed(const char *program, char *why, size_t why_size)
{
    const char *path = getenv("PATH");
    char folder[256], file[300];
    while (path != NULL && *path != '\0') {
        size_t size = strcspn(path, ":");
        if (size < sizeof folder) {
            memcpy(folder, path, size);
            folder[size] = '\0';
            snprintf(file, sizeof file, "%s/%s", folder, program);
            if (access(file, X_OK) == 0)
                return true;
        }
        path += size + (path[size] == ':');
    }
    snprintf(why, why_size, "%s is not installed", program);
    return false;
}

pid_t peer_run(const char *const *words, const char *log, const char *preload)
{
    fflush(NULL);
    pid_t parent = getpid(), child = fork();
    test_check(child >= 0, "fork: %s", strerror(errno));
    if (child != 0)
        return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(97);
    int out = open(log, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (out < 0 || in < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        _exit(96);
    if (preload != NULL)
        setenv("LD_PRELOAD", preload, 1);
    alarm(0);
    execvp(words[0], (char *const *)(uintptr_t)words);
    fprintf(stderr, "%s: %s\n", words[0], strerror(errno));
    _exit(95);
}
