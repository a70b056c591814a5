/* shell.h: what the tests of larderd's shell share: a larderd with the test as its service manager,
 * programs that are run to their end, and small HTTP requests over unix sockets. Built on
 * tests/harness.h: every wait has a deadline, failing helpers fail the test.
 */
#ifndef LARDER_TESTS_DAEMON_SHELL_H
#define LARDER_TESTS_DAEMON_SHELL_H

#include "tests/harness.h"

typedef struct shell {
    harness_process process;
    int manager;          /* the service manager's socket */
    char notify[108];     /* its name, "@..." if abstract */
    char web[108];        /* socket of larderd's HTTP server */
    char map_dir[128];    /* --dir */
    char messages[65536]; /* datagrams so far, each ended by "|" */
} shell;

const char *shell_program(void); /* $LARDERD */

/* Run larderd as process NAME on map "m" of a directory of its own (map_dir; kept if it is set
 * already), with extra arguments and environment (NULL-terminated, or NULL), and its HTTP server on
 * a unix socket. shell_start waits for READY=1; shell_launch does not. Set abstract for an abstract
 * socket of the manager. */
void shell_launch(shell *self, const char *name, const char *const extra[],
                  const char *const environment[], bool abstract);
void shell_start(shell *self, const char *name, const char *const extra[]);

/* SIGTERM; it must end with that exit code in time. */
void shell_end(shell *self, int code, int milliseconds);

/* Wait until the manager was told this text, whole datagrams or parts; false after the deadline. */
bool shell_said(shell *self, const char *text, int milliseconds);
void shell_forget(shell *self); /* what was said so far */

/* Run a program to its end: exit code (128 + signal), and what it wrote, to be freed. */
int shell_run(const char *const argv[], char **output);

/* Send request bytes as they are; everything that comes until the other side closes (or the
 * deadline, which fails the test), 0-terminated, to be freed. */
char *shell_exchange(const char *socket_path, const char *request);

/* The status code of an answer; fails the test where it is not HTTP. */
int shell_status(const char *answer);

/* A GET of path; returns the status code; *body is to be freed. */
int shell_get(const char *socket_path, const char *path, char **body);

/* The value of a sample of /metrics, named as it stands there with its labels; NAN: not there. */
double shell_metric(shell *self, const char *sample);

/* Wait until the sample is at least that; false after the deadline. */
bool shell_metric_reaches(shell *self, const char *sample, double least, int milliseconds);

/* Wait until the body of path has this text; false after the deadline. */
bool shell_shows(shell *self, const char *path, const char *text, int milliseconds);

/* Write a file of the test's directory (mode 0600) and return its path. */
const char *shell_file(const char *name, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
