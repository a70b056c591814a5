/* network.c: see network.h. The work is done by ip(8), which this process runs in the namespaces.
 */
#include "network.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/multi/harness.h"

enum { WORDS_MAX = 24, DEADLINE_MS = 60000 };

static unsigned places;

static void die_with(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(97);
    alarm(0);
}

/* In a child: become the program. */
static void become(const char *const *words, int out, const char *const *environment)
{
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (in < 0 || out < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        _exit(96);
    for (size_t i = 0; environment != NULL && environment[i] != NULL; i++)
        putenv((char *)(uintptr_t)environment[i]);
    execvp(words[0], (char *const *)(uintptr_t)words);
    fprintf(stderr, "%s: %s\n", words[0], strerror(errno));
    _exit(95);
}

pid_t network_run(const struct place *place, const char *const *words, const char *log,
                  const char *const *environment)
{
    fflush(NULL);
    pid_t parent = getpid(), child = fork();
    test_check(child >= 0, "fork: %s", strerror(errno));
    if (child != 0)
        return child;
    die_with(parent);
    if (place != NULL && setns(place->descriptor, CLONE_NEWNET) != 0)
        _exit(94);
    become(words, open(log, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600), environment);
    _exit(93);
}

/* Run "ip ..." (words separated by spaces) in a place (NULL: at the switch). */
static bool ip(const struct place *place, const char *command)
{
    char text[200], log[300];
    const char *words[WORDS_MAX] = {"ip"};
    size_t count = 1;
    snprintf(text, sizeof text, "%s", command);
    for (char *at = text, *word; (word = strsep(&at, " ")) != NULL && count < WORDS_MAX - 1;)
        words[count++] = word;
    words[count] = NULL;
    snprintf(log, sizeof log, "%s/ip.log", test_directory());
    int status = test_wait(network_run(place, words, log, NULL), DEADLINE_MS);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void must(const struct place *place, const char *command)
{
    test_check(ip(place, command), "ip %s (%s): see ip.log", command,
               place == NULL ? "switch" : place->name);
}

static bool write_text(const char *path, const char *text)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);
    bool good = file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text);
    if (file >= 0)
        close(file);
    return good;
}

/* A user who is not root is root in a namespace of his own, where that is allowed. */
static bool separate(void)
{
    char map[64];
    uid_t user = getuid();
    gid_t group = getgid();
    if (unshare(CLONE_NEWNET) == 0)
        return true;
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
        return false;
    snprintf(map, sizeof map, "0 %u 1\n", (unsigned)user);
    if (!write_text("/proc/self/uid_map", map))
        return false;
    (void)write_text("/proc/self/setgroups", "deny\n");
    snprintf(map, sizeof map, "0 %u 1\n", (unsigned)group);
    return write_text("/proc/self/gid_map", map);
}

void network_begin(void)
{
    char reason[200];
    if (!separate()) {
        snprintf(reason, sizeof reason, "network namespaces cannot be made here: %s",
                 strerror(errno));
        test_skip(reason);
    }
    if (!ip(NULL, "link set lo up") || !ip(NULL, "link add br0 type bridge") ||
        !ip(NULL, "link set br0 up") || !ip(NULL, "link add probe0 type veth peer name probe1"))
        test_skip("ip(8) cannot make a bridge and cables here");
    must(NULL, "link del probe0");
}

/* Somebody must be in a namespace until it has a descriptor. */
static int hold(void *context)
{
    const int *ends = context;
    char byte = 0;
    if (unshare(CLONE_NEWNET) != 0 || write(ends[3], &byte, 1) != 1)
        return 1;
    return read(ends[0], &byte, 1) == 1 ? 0 : 1;
}

void network_place(struct place *place, const char *name)
{
    char path[64], command[160], byte = 0;
    int ends[4]; /* to the holder; from it */
    test_check(pipe2(ends, O_CLOEXEC) == 0 && pipe2(ends + 2, O_CLOEXEC) == 0, "pipe");
    memset(place, 0, sizeof *place);
    place->index = ++places;
    snprintf(place->name, sizeof place->name, "%s", name);
    snprintf(place->address, sizeof place->address, "10.77.0.%u", place->index);
    pid_t holder = test_spawn(hold, ends);
    test_check(read(ends[2], &byte, 1) == 1, "%s: no namespace", name);
    snprintf(path, sizeof path, "/proc/%d/ns/net", (int)holder);
    place->descriptor = open(path, O_RDONLY | O_CLOEXEC);
    test_check(place->descriptor >= 0, "%s: %s", path, strerror(errno));
    snprintf(command, sizeof command, "link add v%u type veth peer name eth0 netns %d",
             place->index, (int)holder);
    must(NULL, command);
    snprintf(command, sizeof command, "link set v%u master br0 up", place->index);
    must(NULL, command);
    must(place, "link set lo up");
    snprintf(command, sizeof command, "addr add %s/24 dev eth0", place->address);
    must(place, command);
    must(place, "link set eth0 up");
    test_check(write(ends[1], &byte, 1) == 1, "%s: the holder is gone", name);
    test_join(holder, DEADLINE_MS, "the holder of a namespace");
    for (size_t i = 0; i < 4; i++)
        close(ends[i]);
}

void network_cable(const struct place *place, bool plugged)
{
    char command[64];
    snprintf(command, sizeof command, "link set v%u %s", place->index, plugged ? "up" : "down");
    must(NULL, command);
}

void network_silence(const struct place *from, const struct place *to, bool silent)
{
    /* A neighbour's address that nobody has: frames go out and nobody takes them. Taken away, not
     * deleted: of two that were split from all others, the first may have undone it. */
    char command[120];
    snprintf(command, sizeof command,
             silent ? "neigh replace %s lladdr 02:00:00:00:00:01 nud permanent dev eth0"
                    : "neigh flush to %s dev eth0 nud permanent",
             to->address);
    must(from, command);
}
