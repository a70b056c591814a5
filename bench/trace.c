/* trace.c: see trace.h.
 */
#include "trace.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "policies.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

const double trace_shares[TRACE_SHARES] = {0.01, 0.05, 0.10, 0.25};

const struct trace_reference trace_references[] = {{"multi2",
                                                    0,
                                                    {{3.51, 6.76, 9.74, 0.00, 10.60},
                                                     {26.89, 28.19, 35.20, 38.37, 34.76},
                                                     {36.92, 36.16, 49.30, 50.47, 39.83},
                                                     {48.28, 50.83, 57.76, 61.68, 50.84}}},
                                                   {"oltp",
                                                    0,
                                                    {{41.63, 40.29, 46.47, 36.95, 45.40},
                                                     {60.08, 59.99, 62.11, 58.41, 60.99},
                                                     {66.52, 66.66, 67.78, 63.81, 67.27},
                                                     {73.27, 73.72, 73.68, 70.78, 73.74}}},
                                                   {"orm-night",
                                                    1500000,
                                                    {{60.98, 54.96, 58.33, 31.31, 63.90},
                                                     {71.55, 73.92, 76.46, 73.61, 72.41},
                                                     {85.93, 86.52, 89.34, 87.97, 87.28},
                                                     {94.36, 94.41, 94.65, 94.37, 94.49}}},
                                                   {"sprite",
                                                    0,
                                                    {{16.33, 19.29, 21.24, 0.00, 19.03},
                                                     {65.63, 60.53, 67.18, 60.75, 65.39},
                                                     {86.48, 81.52, 86.14, 75.23, 85.50},
                                                     {93.25, 91.62, 92.57, 88.48, 92.77}}},
                                                   {"web07",
                                                    0,
                                                    {{39.15, 42.32, 43.79, 39.04, 41.91},
                                                     {50.56, 53.44, 54.22, 51.59, 53.21},
                                                     {55.66, 57.93, 58.12, 56.04, 58.06},
                                                     {62.88, 64.20, 64.18, 61.58, 64.44}}},
                                                   {NULL, 0, {{0}}}};

size_t trace_capacity(const struct trace *trace, double share)
{
    size_t capacity = (size_t)((double)trace->keys * share);
    return capacity > 0 ? capacity : 1;
}

/* ---- Keys to numbers ---------------------------------------------------------------------------
 */

struct names {
    char **slots; /* a key's text; numbers beside */
    uint32_t *numbers;
    size_t size, used; /* a power of two */
};

static uint32_t number_of(struct names *names, const char *key);

static void grow(struct names *names)
{
    struct names old = *names;
    names->size = old.size == 0 ? 1024 : old.size * 2;
    names->slots = policy_memory(names->size, sizeof *names->slots);
    names->numbers = policy_memory(names->size, sizeof *names->numbers);
    for (size_t at = 0; at < old.size; at++) {
        if (old.slots[at] != NULL) {
            size_t slot = XXH3_64bits(old.slots[at], strlen(old.slots[at])) & (names->size - 1);
            while (names->slots[slot] != NULL) {
                slot = (slot + 1) & (names->size - 1);
            }
            names->slots[slot] = old.slots[at];
            names->numbers[slot] = old.numbers[at];
        }
    }
    free(old.slots);
    free(old.numbers);
}

static uint32_t number_of(struct names *names, const char *key)
{
    if (2 * names->used >= names->size) {
        grow(names);
    }
    size_t slot = XXH3_64bits(key, strlen(key)) & (names->size - 1);
    while (names->slots[slot] != NULL && strcmp(names->slots[slot], key) != 0) {
        slot = (slot + 1) & (names->size - 1);
    }
    if (names->slots[slot] == NULL) {
        names->slots[slot] = strdup(key);
        names->numbers[slot] = (uint32_t)names->used++;
    }
    return names->numbers[slot];
}

static void forget(struct names *names)
{
    for (size_t at = 0; at < names->size; at++) {
        free(names->slots[at]);
    }
    free(names->slots);
    free(names->numbers);
}

/* ---- Files -------------------------------------------------------------------------------------
 */

static bool find(const char *name, char *path, size_t size)
{
    const char *folders[] = {getenv("LARDER_TRACES"), "../shared/traces", "../../shared/traces"};
    for (size_t at = 0; at < sizeof folders / sizeof folders[0]; at++) {
        if (folders[at] != NULL) {
            int length = snprintf(path, size, "%s/%s.txt.xz", folders[at], name);
            if (length > 0 && (size_t)length < size && access(path, R_OK) == 0) {
                return true;
            }
        }
    }
    (void)printf("no trace %s in %s (nor in $LARDER_TRACES): skipped\n", name, folders[1]);
    return false;
}

/* A pipe from xz; the child dies of SIGPIPE where not everything is read. */
static FILE *decompress(const char *path, pid_t *child)
{
    int ends[2];
    (void)fflush(NULL);
    if (pipe(ends) != 0 || (*child = fork()) < 0) {
        perror("pipe, fork");
        exit(1);
    }
    if (*child == 0) {
        (void)dup2(ends[1], STDOUT_FILENO);
        (void)close(ends[0]);
        (void)close(ends[1]);
        (void)execlp("xz", "xz", "-dc", path, (char *)NULL);
        perror("xz");
        _exit(127);
    }
    (void)close(ends[1]);
    return fdopen(ends[0], "r");
}

bool trace_read(const char *name, size_t first, struct trace *trace)
{
    char path[PATH_MAX], line[4096];
    struct names names = {0};
    size_t room = 0;
    pid_t child;
    int status = 0;
    *trace = (struct trace){0};
    if (!find(name, path, sizeof path)) {
        return false;
    }
    FILE *file = decompress(path, &child);
    while ((first == 0 || trace->count < first) && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\r\n")] = '\0';
        if (trace->count == room) {
            room = room == 0 ? 65536 : room * 2;
            trace->requests = realloc(trace->requests, room * sizeof *trace->requests);
            if (trace->requests == NULL) {
                perror("realloc");
                exit(1);
            }
        }
        trace->requests[trace->count++] = number_of(&names, line);
    }
    (void)fclose(file);
    (void)waitpid(child, &status, 0);
    if (trace->count == 0) {
        (void)fprintf(stderr, "%s cannot be read (is xz there?)\n", path);
        exit(1);
    }
    trace->keys = names.used;
    forget(&names);
    return true;
}

void trace_end(struct trace *trace)
{
    free(trace->requests);
    *trace = (struct trace){0};
}
