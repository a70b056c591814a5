/* hold_gate.c: hold a map's write gate, for tests of what others do meanwhile: a child writes
 * without end and is stopped again and again until it was stopped inside a write, which shows by
 * this process's own writes being refused. Then "held" is printed, and the child stays stopped
 * until standard input ends, when it is killed. Uses the public interface alone.
 *
 * usage: hold_gate DIR NAME
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "larder.h"

enum { ITEMS = 64, VALUE_SIZE = 4096, FIND_MS = 30000, HOLD_MS = 60000 };

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static larder *open_map(const char *dir, const char *name)
{
    larder *handle = NULL;
    larder_options options = {.dir = dir, .flags = LARDER_ATTACH, .write_wait_ms = 20};
    if (larder_open(name, &options, &handle) < 0) {
        (void)fprintf(stderr, "hold_gate: %s\n", larder_last_error());
        exit(1);
    }
    return handle;
}

static void write_without_end(const char *dir, const char *name)
{
    static char value[VALUE_SIZE];
    static char keys[ITEMS][32];
    larder_item items[ITEMS];
    larder *handle = open_map(dir, name);
    for (int i = 0; i < ITEMS; i++) {
        (void)snprintf(keys[i], sizeof keys[i], "hold_gate:%d", i);
        items[i] = (larder_item){
            .key = keys[i], .key_size = 16, .value = value, .value_size = sizeof value};
    }
    for (;;) {
        (void)larder_set_many(handle, items, ITEMS, NULL);
    }
}

/* Stop the child inside a write, or wherever it is when the time is up. */
static int stop_inside(pid_t child, larder *handle)
{
    int64_t until = now_ms() + FIND_MS;
    uint64_t round = 0;
    while (now_ms() < until) {
        struct timespec pause = {.tv_nsec = (long)(round++ * 37777 % 2000000)};
        int status = 0;
        (void)nanosleep(&pause, NULL); /* so that it stops somewhere else each time */
        (void)kill(child, SIGSTOP);
        if (waitpid(child, &status, WUNTRACED) != child || !WIFSTOPPED(status)) {
            (void)fprintf(stderr, "hold_gate: the writer ended\n");
            return 1;
        }
        if (larder_set(handle, "hold_gate", 9, "", 0, NULL) == LARDER_EBUSY) {
            return 0;
        }
        (void)kill(child, SIGCONT);
    }
    (void)fprintf(stderr, "hold_gate: never stopped inside a write\n");
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        return 2;
    }
    pid_t parent = getpid();
    pid_t child = fork();
    if (child < 0) {
        return 1;
    }
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent) {
            write_without_end(argv[1], argv[2]);
        }
        return 1;
    }
    larder *handle = open_map(argv[1], argv[2]);
    (void)larder_has(handle, "hold_gate", 9); /* a reader that the tool can show */
    int result = stop_inside(child, handle);
    if (result == 0) {
        (void)puts("held");
        (void)fflush(stdout);
        struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
        (void)poll(&input, 1, HOLD_MS);
    }
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    larder_close(&handle);
    return result;
}
