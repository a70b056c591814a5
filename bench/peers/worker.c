/* worker.c: one worker process of a comparison: reads commands from its FIFO, runs the calls,
 * answers. Used by the peers that C reaches, and inside uWSGI's workers; php_worker.php is the same
 * in PHP. The mean is taken without a timer between the calls, because a timer costs as much as a
 * small look-up; percentiles come from a pass of their own. It prints nothing itself.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "peer.h"
#include "workload.h"

enum { SAMPLES_MAX = 400000, BETWEEN_LOOKS = 64, SAMPLE_KEYS = 1000 };

char peer_error[256];

bool peer_failed(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(peer_error, sizeof peer_error, format, arguments);
    va_end(arguments);
    return false;
}

static const struct peer *peer;
static struct peer_setup *setup;
static struct workload_stream streams[WORKLOAD_COUNT];
static uint8_t value[PEER_VALUE_MAX], buffer[PEER_VALUE_MAX + 1];
static uint32_t *get_samples, *set_samples;

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* What the loop itself costs; through a pointer as the peers are called. */
static int64_t empty_get(const char *key, void *out, size_t size)
{
    (void)key, (void)out;
    return (int64_t)size - 1;
}
static int64_t (*volatile empty)(const char *, void *, size_t) = empty_get;

enum operation { GET, SET, MIX, EMPTY, UNKNOWN };

static enum operation operation_of(const char *text)
{
    static const char *const names[] = {"get", "set", "mix", "empty"};
    for (unsigned at = 0; at < UNKNOWN; at++) {
        if (strcmp(names[at], text) == 0)
            return (enum operation)at;
    }
    return UNKNOWN;
}

static struct workload_stream *stream_of(const char *text)
{
    for (unsigned at = 0; at < WORKLOAD_COUNT; at++) {
        if (strcmp(workload_names[at], text) == 0 && streams[at].count > 0)
            return &streams[at];
    }
    return NULL;
}

static inline const char *next_key(struct workload_stream *stream)
{
    const char *key = stream->keys + stream->at * PEER_KEY_SIZE;
    if (++stream->at == stream->count)
        stream->at = 0;
    return key;
}

/* How often this process lost its processor without having asked for it. */
static long preempted(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_nivcsw : 0;
}

/* Until then, or later: a worker that was woken late still measures for as long. */
static uint64_t wait_for(uint64_t start_ns)
{
    uint64_t now;
    do {
        now = now_ns();
    } while (now < start_ns);
    return now;
}

/* One call; misses are counted, a set that fails ends the pass. */
static inline bool one(int64_t (*get)(const char *, void *, size_t), bool is_set, const char *key,
                       uint64_t *misses)
{
    if (is_set)
        return peer->set(key, value, setup->value_size);
    int64_t size = get(key, buffer, sizeof buffer - 1);
    if (__builtin_expect(size != (int64_t)setup->value_size, 0)) {
        if (size >= 0)
            return peer_failed("a value of %" PRId64 " bytes came back", size);
        ++*misses;
    }
    return true;
}

static bool some_calls(enum operation operation, struct workload_stream *stream, unsigned *tenth,
                       uint64_t *misses)
{
    static uint64_t sum; /* so that the empty call is not for nothing */
    int64_t (*get)(const char *, void *, size_t) = operation == EMPTY ? empty : peer->get;
    for (unsigned at = 0; at < BETWEEN_LOOKS; at++) {
        bool is_set = operation == SET;
        if (operation == MIX && ++*tenth == 10) {
            *tenth = 0;
            is_set = true;
        }
        if (__builtin_expect(operation == EMPTY, 0))
            sum += (uint64_t)get(next_key(stream), buffer, sizeof buffer);
        else if (!one(get, is_set, next_key(stream), misses))
            return false;
    }
    return true;
}

/* Calls among which the processor was given to somebody else measure the machine's other work:
 * they are left out, unless they are nearly all there is. */
static bool pass_mean(enum operation operation, struct workload_stream *stream, uint64_t start_ns,
                      uint64_t duration_ns, struct peer_mean *mean)
{
    uint64_t calls = 0, elapsed_ns = 0, after;
    unsigned tenth = 0;
    *mean = (struct peer_mean){0, 0, 0};
    uint64_t end_ns = wait_for(start_ns) + duration_ns;
    long lost = preempted();
    do {
        uint64_t before = now_ns();
        if (!some_calls(operation, stream, &tenth, &mean->misses))
            return false;
        after = now_ns();
        calls += BETWEEN_LOOKS;
        elapsed_ns += after - before;
        long lost_now = preempted();
        if (lost_now == lost) {
            mean->calls += BETWEEN_LOOKS;
            mean->elapsed_ns += after - before;
        }
        lost = lost_now;
    } while (after < end_ns);
    if (mean->calls < calls / 10) {
        mean->calls = calls;
        mean->elapsed_ns = elapsed_ns;
    }
    if (mean->misses > 0) /* as a share of the calls that count */
        mean->misses = mean->misses * mean->calls / calls;
    return true;
}

static int compare(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return a < b ? -1 : a > b;
}

static double percentile(uint32_t *samples, size_t count, double share)
{
    return count == 0 ? 0 : samples[(size_t)(share * (double)(count - 1))];
}

static bool pass_times(enum operation operation, struct workload_stream *stream, uint64_t start_ns,
                       uint64_t duration_ns, struct peer_times *times)
{
    int64_t (*get)(const char *, void *, size_t) = operation == EMPTY ? empty : peer->get;
    uint64_t tenth = 0;
    size_t gets = 0, sets = 0;
    *times = (struct peer_times){.gets = 0};
    uint64_t before = wait_for(start_ns), end_ns = before + duration_ns;
    while (before < end_ns && gets < SAMPLES_MAX && sets < SAMPLES_MAX) {
        bool is_set = operation == SET;
        if (operation == MIX && ++tenth == 10) {
            tenth = 0;
            is_set = true;
        }
        if (operation == EMPTY) {
            times->misses += get(next_key(stream), buffer, sizeof buffer) < 0;
        } else if (!one(get, is_set, next_key(stream), &times->misses)) {
            return false;
        }
        uint64_t after = now_ns(), took = after - before;
        uint32_t sample = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
        if (is_set)
            set_samples[sets++] = sample;
        else
            get_samples[gets++] = sample;
        before = after;
    }
    qsort(get_samples, gets, sizeof *get_samples, compare);
    qsort(set_samples, sets, sizeof *set_samples, compare);
    times->gets = gets;
    times->sets = sets;
    times->get_p50 = percentile(get_samples, gets, 0.5);
    times->get_p99 = percentile(get_samples, gets, 0.99);
    times->get_p999 = percentile(get_samples, gets, 0.999);
    times->set_p50 = percentile(set_samples, sets, 0.5);
    times->set_p99 = percentile(set_samples, sets, 0.99);
    times->set_p999 = percentile(set_samples, sets, 0.999);
    return true;
}

/* A value begins with its key, so that a store that mixes entries up is found out. */
static bool fill(uint64_t *misses)
{
    struct workload_stream *keys = &streams[WORKLOAD_FILL];
    bool (*set)(const char *, const void *, size_t) =
        peer->set_quietly != NULL ? peer->set_quietly : peer->set;
    *misses = 0;
    for (size_t at = 0; at < keys->count; at++) {
        const char *key = keys->keys + at * PEER_KEY_SIZE;
        memcpy(value, key, PEER_KEY_SIZE);
        if (!set(key, value, setup->value_size))
            return false;
    }
    if (peer->settle != NULL && !peer->settle())
        return false;
    size_t step = keys->count / SAMPLE_KEYS + 1;
    for (size_t at = 0; at < keys->count; at += step) {
        const char *key = keys->keys + at * PEER_KEY_SIZE;
        int64_t size = peer->get(key, buffer, sizeof buffer - 1);
        if (size < 0)
            ++*misses;
        else if (size != (int64_t)setup->value_size || memcmp(buffer, key, PEER_KEY_SIZE) != 0 ||
                 memcmp(buffer + PEER_KEY_SIZE, value + PEER_KEY_SIZE,
                        setup->value_size - PEER_KEY_SIZE) != 0)
            return peer_failed("another value than the one that was stored");
    }
    return true;
}

static void carry_out(const char *line, FILE *out)
{
    char verb[16] = "", operation_text[16] = "", stream_text[16] = "";
    uint64_t start = 0, duration = 0, misses = 0;
    peer_error[0] = '\0';
    int words = sscanf(line, "%15s %15s %15s %" SCNu64 " %" SCNu64, verb, operation_text,
                       stream_text, &start, &duration);
    enum operation operation = operation_of(operation_text);
    struct workload_stream *stream = stream_of(stream_text);
    struct peer_mean mean;
    struct peer_times times;
    if (strcmp(verb, "fill") == 0) {
        setup->create = true;
        if (peer->open(setup) && fill(&misses))
            fprintf(out, "ok %" PRIu64 "\n", misses);
    } else if (strcmp(verb, "attach") == 0) {
        if (peer->open(setup))
            fprintf(out, "ok 0\n");
    } else if (strcmp(verb, "memory") == 0) {
        fprintf(out, "memory %" PRIu64 "\n", peer->memory != NULL ? peer->memory() : 0);
    } else if (words != 5 || operation == UNKNOWN || stream == NULL) {
        peer_failed("no such command: %.100s", line);
    } else if (strcmp(verb, "mean") == 0) {
        if (pass_mean(operation, stream, start, duration, &mean))
            fprintf(out, "mean %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", mean.calls, mean.elapsed_ns,
                    mean.misses);
    } else if (pass_times(operation, stream, start, duration, &times)) {
        fprintf(out, "times %" PRIu64 " %" PRIu64 " %" PRIu64 " %.0f %.0f %.0f %.0f %.0f %.0f\n",
                times.gets, times.sets, times.misses, times.get_p50, times.get_p99, times.get_p999,
                times.set_p50, times.set_p99, times.set_p999);
    }
    if (peer_error[0] != '\0')
        fprintf(out, "error %s\n", peer_error);
    fflush(out);
}

static FILE *open_fifo(unsigned number, const char *which, const char *mode)
{
    char path[512];
    snprintf(path, sizeof path, "%s/w%u.%s", setup->directory, number, which);
    return fopen(path, mode);
}

int peer_worker(const struct peer *which, struct peer_setup *where, unsigned number)
{
    char line[256];
    peer = which;
    setup = where;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    FILE *in = open_fifo(number, "in", "re"), *out = open_fifo(number, "out", "we");
    get_samples = calloc(SAMPLES_MAX, sizeof *get_samples);
    set_samples = calloc(SAMPLES_MAX, sizeof *set_samples);
    if (in == NULL || out == NULL || get_samples == NULL || set_samples == NULL)
        return 3;
    for (size_t at = 0; at < sizeof value; at++)
        value[at] = (uint8_t)('a' + at % 23);
    for (unsigned at = 0; at < WORKLOAD_COUNT; at++) {
        streams[at] = workload_map(setup->streams, workload_names[at]);
        /* The workers do not walk the same keys at the same time. */
        streams[at].at = streams[at].count / PEER_WORKERS * number;
    }
    while (fgets(line, sizeof line, in) != NULL && strncmp(line, "quit", 4) != 0)
        carry_out(line, out);
    if (peer->close != NULL)
        peer->close();
    fclose(in);
    fclose(out);
    free(get_samples);
    free(set_samples);
    return 0;
}
