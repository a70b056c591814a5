/* log.h: larderd's log: one line an event on stderr, `key=value` pairs, whatever a value holds kept
 * on that line (control characters, quotes and backslashes are escaped, so that nobody can forge
 * one). Called from everywhere in daemon/, in the one thread of the event loop. It never blocks (a
 * line that stderr would not take at once is dropped and counted), never allocates, and writes a
 * bounded number of lines a second. It must never be given a key's value or a password.
 */
#ifndef LARDER_DAEMON_LOG_H
#define LARDER_DAEMON_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <syslog.h> /* LOG_ERR .. LOG_DEBUG */

#define LOG_LINE_MAX 2048u /* bytes of a line with its newline; longer ones end in "..." */

/* Write to descriptor fd what is at least as important as priority. Where the descriptor is the
 * journal's ($JOURNAL_STREAM) lines begin with its "<N>" and carry no time of their own. */
void log_open(int fd, int priority);
void log_level(int priority);
bool log_wanted(int priority);

/* "error", "warning", "notice", "info", "debug" <-> the number; -1: no such name. */
const char *log_level_name(int priority);
int log_level_number(const char *name);

typedef struct log_line { /* fill with log_begin .. log_end */
    char text[LOG_LINE_MAX];
    size_t length;
    int priority;
    bool full;
} log_line;

void log_begin(log_line *line, int priority,
               const char *event); /* event: a literal like map_open */
void log_text(log_line *line, const char *name, const char *value);
void log_number(log_line *line, const char *name, int64_t value);
void log_end(log_line *line);

/* The short form: level, event and msg="...". */
void log_event(int priority, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A lasting trouble is logged when it begins, once a minute while it lasts, and when it ends.
 * log_trouble_begins: should this occurrence be logged? log_trouble_ends: was there one? */
typedef struct log_trouble {
    bool active;
    int64_t logged_ms;    /* monotonic */
    uint64_t occurrences; /* since it began */
} log_trouble;
bool log_trouble_begins(log_trouble *trouble);
bool log_trouble_ends(log_trouble *trouble);

uint64_t
log_dropped(void); /* lines not written since the start: rate limit or a stderr that is full */

/* Copy text to out (always terminated) with control characters, quotes and backslashes as \n, \t,
 * \xHH, \", \\. Returns the length; ends in "..." where it did not fit. size is at least 8. */
size_t log_escape(char *out, size_t size, const char *text);

#endif
