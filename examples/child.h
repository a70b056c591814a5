/* child.h: the programs that the demo runs: started with their output in a file, watched, and ended
 * by process id. None outlives the demo.
 */
#ifndef LARDER_EXAMPLES_CHILD_H
#define LARDER_EXAMPLES_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct child {
    const char *name;
    char log[256]; /* the file with its standard error, and its output unless that is a pipe */
    pid_t pid;     /* 0: not running */
    bool expected; /* it was told to end */
    int status;    /* as waitpid() gave it, once it has ended */
};

/* Run argv (argv[0] looked up in PATH), its output appended to log. output: NULL, or where to put
 * the reading end of a pipe that gets its standard output instead. 0, or -1 and errno. */
int child_start(struct child *self, const char *name, const char *log, char *const argv[],
                int *output);

/* Collect whoever has ended. Returns the first of these children that ended without being told to,
 * or NULL. */
struct child *children_reap(struct child *const *children, size_t count);

/* Send the signal; the child is expected to end where that is what the signal asks for. */
void child_signal(struct child *self, int signal_number);

/* Is there no such process any more? Collects it if so. */
bool child_gone(struct child *self);

/* Up to the last size - 1 bytes of its log, cut at a line. */
void child_log_tail(const struct child *self, char *out, size_t size);

#endif
