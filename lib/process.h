/* process.h: whether a process that left its number in shared memory still lives. Numbers are given
 * again, so the time of its start goes with it; and a process that was killed keeps its number
 * until its parent asks after it, so a zombie counts as gone.
 *
 * Called on slow paths only: a few system calls each.
 */
#ifndef LARDER_LIB_PROCESS_H
#define LARDER_LIB_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* When this process was started, in ticks since boot; 0: not to be known here (no /proc). */
uint64_t process_start(void);

/* Whether the process of that number and start (0: not known) is gone. In doubt it lives. */
bool process_gone(pid_t pid, uint64_t start);

#endif
