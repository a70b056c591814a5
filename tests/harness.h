/* harness.h: what the check programs of tests/unit and tests/redis share: a directory that is
 * removed again, a seed that is printed, waits with a deadline, and real servers: redis-server on a
 * unix socket and larderd, started, stopped, frozen and killed by pid. It knows nothing of the
 * library.
 *
 * A helper that cannot do its work fails the running test (ck_abort). Servers die with the test
 * that started them, however it ends. Every wait ends; deadlines are longer under sanitizers.
 */
#ifndef LARDER_TESTS_CHECK_HARNESS_H
#define LARDER_TESTS_CHECK_HARNESS_H

#include <check.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Run the suite (each test in a process of its own unless CK_FORK=no) and free it. Returns main()'s
 * status. Prints the seed, and removes the directories that the tests made. */
int harness_run(Suite *suite);

/* ---- Seed, time, places -----------------------------------------------------------------------
 */

uint64_t harness_seed(void); /* from $LARDER_SEED, or chosen; printed by harness_run() */
uint64_t harness_random(uint64_t *stream); /* the next of a stream; begin with *stream = seed ^ n */

int64_t harness_now_ms(void);           /* CLOCK_MONOTONIC */
int harness_patience(int milliseconds); /* that deadline, scaled for sanitizers and slow machines */

/* Look at the condition every 2 ms until it holds (true) or the scaled deadline is over (false). */
bool wait_until(bool (*condition)(void *context), void *context, int milliseconds);

/* A directory of this process's own on a memory file system; the same one at each call, empty at
 * the first, and gone after harness_run(). Short enough for a unix socket in it. */
const char *harness_directory(void);

/* A path in it, in a buffer that is good until the eighth next call. */
const char *harness_path(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Write a file of that name and mode in it; its path, as harness_path() gives it. */
const char *harness_write(const char *name, mode_t mode, const char *text);

/* ---- Processes --------------------------------------------------------------------------------
 */

typedef struct harness_process {
    pid_t pid;     /* 0: not running */
    char name[32]; /* for messages */
    char log[160]; /* stdout and stderr, appended */
} harness_process;

/* Run argv[0] (looked up in PATH unless it has a slash) with /dev/null as stdin and everything it
 * says in NAME.log of the directory. It is killed when this process dies. environment: extra
 * "NAME=value" strings up to a NULL, or NULL. */
void harness_start(harness_process *process, const char *name, const char *const argv[],
                   const char *const environment[]);

/* Send the signal (0: none) and reap it within the deadline; SIGKILL and a failed test after it.
 * Returns the wait status. */
int harness_end(harness_process *process, int signal_number, int milliseconds);

void harness_freeze(harness_process *process); /* SIGSTOP; returns when it has stopped */
void harness_thaw(harness_process *process);   /* SIGCONT */
bool harness_alive(harness_process *process);  /* reaps it if it has ended: then pid is 0 */

/* The process's log, 0-terminated, to be freed. */
char *harness_log(const harness_process *process);

/* Fails the test if the log has this text by now. */
void harness_never_logged(const harness_process *process, const char *text);

/* Wait until the log has this text; false after the deadline. */
bool harness_logged(const harness_process *process, const char *text, int milliseconds);

/* A server of a test's own making: a process that serves each client of the listening socket, which
 * it is given, in one more process. All of them are killed when this one dies. */
pid_t harness_serve(int listener, void (*serve)(int client, const void *context),
                    const void *context);

/* ---- Redis ------------------------------------------------------------------------------------
 */

typedef struct harness_redis {
    harness_process process;
    char directory[128], socket[108]; /* data files and the socket: survive a restart */
    bool append_only;
    char password[64];        /* "": none */
    const char *const *extra; /* more arguments, NULL-terminated, or NULL */
} harness_redis;

/* Skip the whole program (exit 77) where there is no redis-server. Call it first in main(). */
void harness_needs_redis(void);

/* Start a server in a directory of its own; name distinguishes several in one test. It keeps
 * nothing on disk unless append_only is set (then every write is synced). Members other than
 * process, directory and socket may be set before (zero-initialise). Returns when it answers PING.
 */
void harness_redis_start(harness_redis *redis, const char *name);

/* Start it again after a kill or an end, on the same socket and directory. */
void harness_redis_restart(harness_redis *redis);

/* Ends by SIGTERM, by SIGKILL; freeze and thaw by harness_freeze(&redis->process). */
void harness_redis_end(harness_redis *redis);
void harness_redis_kill(harness_redis *redis);

/* "unix:///path/of/socket" */
const char *harness_redis_url(const harness_redis *redis);

/* Send one command (arguments up to a NULL; text without 0 bytes) over a connection of its own and
 * return the reply as redis-cli --no-raw would not: bulk and simple strings as they are, integers
 * in decimal, nil as NULL, errors with their leading '-', arrays one element a line. To be freed.
 */
char *harness_redis_command(harness_redis *redis, ...) __attribute__((sentinel));

/* The same with the words in an array, up to a NULL. */
char *harness_redis_command_list(harness_redis *redis, const char *const words[]);

/* The same, and compare; NULL expects nil. */
bool harness_redis_says(harness_redis *redis, const char *expected, ...) __attribute__((sentinel));

/* One word, to a server that may end the connection over it, as one does that becomes a replica:
 * NULL then. */
char *harness_redis_try(harness_redis *redis, const char *command);

/* ---- larderd ----------------------------------------------------------------------------------
 */

typedef struct harness_larderd {
    harness_process process;
    char notify[108]; /* the service manager's socket, played by the test */
} harness_larderd;

/* Run $LARDERD with --map, --dir, --redis (NULL: none) and extra arguments (NULL-terminated, or
 * NULL) and return when it has said READY=1 to the service manager. */
void harness_larderd_start(harness_larderd *larderd, const char *map, const char *directory,
                           const char *redis_url, const char *const extra[]);

/* SIGTERM; fails the test unless it exits 0 within the deadline. */
void harness_larderd_end(harness_larderd *larderd, int milliseconds);

#endif
