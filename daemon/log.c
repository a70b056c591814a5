/* log.c: see log.h. The limit is a token bucket of 200 lines refilled at 20 a second, of which the
 * last 50 are kept for errors; what it swallows is counted and told by the next line that passes.
 */
#include "daemon/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BUCKET_LINES 200
#define BUCKET_RESERVE 50 /* for LOG_ERR and worse */
#define REFILL_MS 50      /* one line more every so many milliseconds */
#define TROUBLE_MS 60000

static struct {
    int fd, priority;
    bool journal;
    int64_t tokens, refilled_ms;
    uint64_t dropped, dropped_told;
} state = {.fd = STDERR_FILENO, .priority = LOG_INFO, .tokens = BUCKET_LINES};

static const struct {
    const char *name;
    int priority;
} levels[] = {{"error", LOG_ERR},
              {"warning", LOG_WARNING},
              {"notice", LOG_NOTICE},
              {"info", LOG_INFO},
              {"debug", LOG_DEBUG}};

static int64_t monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* $JOURNAL_STREAM is "device:inode" of the stream that the service manager connected. */
static bool is_journal(int fd)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat status;
    char *end = NULL;
    if (!stream || fstat(fd, &status) != 0) {
        return false;
    }
    unsigned long long device = strtoull(stream, &end, 10);
    if (end == stream || *end != ':') {
        return false;
    }
    unsigned long long inode = strtoull(end + 1, NULL, 10);
    return device == (unsigned long long)status.st_dev &&
           inode == (unsigned long long)status.st_ino;
}

void log_open(int fd, int priority)
{
    state.fd = fd;
    state.priority = priority;
    state.journal = is_journal(fd);
    state.tokens = BUCKET_LINES;
    state.refilled_ms = monotonic_ms();
}

void log_level(int priority)
{
    state.priority = priority;
}

bool log_wanted(int priority)
{
    return priority <= state.priority;
}

uint64_t log_dropped(void)
{
    return state.dropped;
}

const char *log_level_name(int priority)
{
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        if (priority <= levels[i].priority) {
            return levels[i].name;
        }
    }
    return "debug";
}

int log_level_number(const char *name)
{
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        if (strcmp(name, levels[i].name) == 0) {
            return levels[i].priority;
        }
    }
    return -1;
}

size_t log_escape(char *out, size_t size, const char *text)
{
    size_t length = 0;
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        char piece[5];
        size_t piece_size;
        if (*at == '"' || *at == '\\') {
            piece_size = (size_t)snprintf(piece, sizeof piece, "\\%c", *at);
        } else if (*at == '\n' || *at == '\t') {
            piece_size = (size_t)snprintf(piece, sizeof piece, "\\%c", *at == '\n' ? 'n' : 't');
        } else if (*at < 0x20 || *at >= 0x7f) { /* a terminal may take 0x80..0x9f as controls */
            piece_size = (size_t)snprintf(piece, sizeof piece, "\\x%02x", *at);
        } else {
            piece[0] = (char)*at;
            piece_size = 1;
        }
        if (length + piece_size + 4 > size) { /* room for "..." and the end */
            memcpy(out + length, "...", 4);
            return length + 3;
        }
        memcpy(out + length, piece, piece_size);
        length += piece_size;
    }
    out[length] = '\0';
    return length;
}

/* One byte is kept for the newline that log_end() adds. */
static void append(log_line *line, const char *text)
{
    size_t size = strlen(text), space = LOG_LINE_MAX - 1 - line->length;
    if (line->full) {
        return;
    }
    if (size > space) {
        line->full = true;
        size = space;
    }
    memcpy(line->text + line->length, text, size);
    line->length += size;
}

void log_begin(log_line *line, int priority, const char *event)
{
    line->length = 0;
    line->full = false;
    line->priority = priority;
    if (!log_wanted(priority)) {
        return;
    }
    char head[64];
    if (state.journal) {
        snprintf(head, sizeof head, "<%d>", priority & LOG_PRIMASK);
    } else {
        struct timespec now;
        struct tm broken;
        clock_gettime(CLOCK_REALTIME, &now);
        gmtime_r(&now.tv_sec, &broken);
        size_t length = strftime(head, sizeof head, "time=%Y-%m-%dT%H:%M:%S", &broken);
        snprintf(head + length, sizeof head - length, ".%03ldZ ", now.tv_nsec / 1000000);
    }
    append(line, head);
    append(line, "level=");
    append(line, log_level_name(priority));
    append(line, " event=");
    append(line, event);
}

void log_text(log_line *line, const char *name, const char *value)
{
    char escaped[LOG_LINE_MAX];
    if (!log_wanted(line->priority)) {
        return;
    }
    size_t length = log_escape(escaped, sizeof escaped, value);
    bool quote = length == 0 || length != strlen(value) || strpbrk(escaped, " =,;'`") != NULL;
    append(line, " ");
    append(line, name);
    append(line, quote ? "=\"" : "=");
    /* A cut value still gets its closing quote: the space for it is taken first. */
    size_t space = LOG_LINE_MAX - 1 - line->length;
    if (!line->full && length + 2 > space) {
        memcpy(escaped + (space > 8 ? space - 8 : 0), "...", 4);
    }
    append(line, escaped);
    append(line, quote ? "\"" : "");
}

void log_number(log_line *line, const char *name, int64_t value)
{
    char text[32];
    if (!log_wanted(line->priority)) {
        return;
    }
    snprintf(text, sizeof text, "=%lld", (long long)value);
    append(line, " ");
    append(line, name);
    append(line, text);
}

static bool take_token(int priority)
{
    int64_t now = monotonic_ms(), refill = (now - state.refilled_ms) / REFILL_MS;
    if (refill > 0) {
        state.refilled_ms += refill * REFILL_MS;
        state.tokens = state.tokens + refill > BUCKET_LINES ? BUCKET_LINES : state.tokens + refill;
    }
    if (state.tokens <= (priority <= LOG_ERR ? 0 : BUCKET_RESERVE)) {
        return false;
    }
    state.tokens--;
    return true;
}

/* A pipe or socket that polls as writable takes a line of this size whole or at once fails; a file
 * always takes it. So nothing waits here. */
static bool write_line(const char *text, size_t size)
{
    struct pollfd poll_fd = {.fd = state.fd, .events = POLLOUT};
    if (poll(&poll_fd, 1, 0) != 1 || !(poll_fd.revents & POLLOUT)) {
        return false;
    }
    ssize_t written;
    do {
        written = write(state.fd, text, size);
    } while (written < 0 && errno == EINTR);
    return written == (ssize_t)size;
}

void log_end(log_line *line)
{
    if (!log_wanted(line->priority)) {
        return;
    }
    if (!take_token(line->priority)) {
        state.dropped++;
        return;
    }
    if (state.dropped > state.dropped_told) {
        uint64_t told = state.dropped;
        log_number(line, "dropped_lines", (int64_t)(told - state.dropped_told));
        state.dropped_told = told;
    }
    line->text[line->length++] = '\n';
    if (!write_line(line->text, line->length)) {
        state.dropped++;
    }
}

void log_event(int priority, const char *event, const char *format, ...)
{
    if (!log_wanted(priority)) {
        return;
    }
    char message[LOG_LINE_MAX / 2];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    log_line line;
    log_begin(&line, priority, event);
    log_text(&line, "msg", message);
    log_end(&line);
}

bool log_trouble_begins(log_trouble *trouble)
{
    int64_t now = monotonic_ms();
    if (!trouble->active) {
        *trouble = (log_trouble){.active = true, .logged_ms = now, .occurrences = 1};
        return true;
    }
    trouble->occurrences++;
    if (now - trouble->logged_ms < TROUBLE_MS) {
        return false;
    }
    trouble->logged_ms = now;
    return true;
}

bool log_trouble_ends(log_trouble *trouble)
{
    bool was = trouble->active;
    trouble->active = false;
    return was;
}
