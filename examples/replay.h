/* replay.h: sends the requests of an access log to a server at a steady pace, from several clients
 * with keep-alive connections, checks every answer to the byte, and keeps what it measured. Lives
 * on the caller's event loop. It must never wait, and never leave a wrong answer uncounted.
 */
#ifndef LARDER_EXAMPLES_REPLAY_H
#define LARDER_EXAMPLES_REPLAY_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "examples/site.h"

#define REPLAY_PHASES 3 /* before, during and after the outage */
#define REPLAY_WORKERS_MAX 64
#define REPLAY_CLIENTS_MAX 256
#define REPLAY_ERRORS_KEPT 8

enum replay_outcome {
    REPLAY_PENDING = 0,
    REPLAY_HIT = 1,
    REPLAY_MISS = 2,
    REPLAY_BYPASS = 3, /* a method that is not cached */
    REPLAY_ERROR = 4
};

typedef struct replay_sample { /* one request */
    uint32_t latency_us;       /* from when it was due to the last byte of the answer */
    uint8_t outcome, phase, worker, unused;
} replay_sample;

typedef struct replay_settings {
    struct event_base *base;
    const site *site;
    const char *address; /* numeric */
    uint16_t port;
    unsigned clients;
    unsigned
        per_connection;  /* requests after which a client opens a new connection, as visitors do */
    double rate;         /* requests a second */
    int timeout_s;       /* an answer that takes longer is an error */
    size_t first, count; /* which requests of the log; from the beginning again at its end */
    void (*released)(void *context, size_t number); /* before request NUMBER goes out */
    void (*finished)(void *context);                /* all are answered */
    void *context;
} replay_settings;

typedef struct replay_counts {
    uint64_t hits, misses, bypasses, errors;
} replay_counts;

typedef struct replay replay;

/* Begin; settings are copied, what they point to must outlive the replay. NULL: no memory. */
replay *replay_start(const replay_settings *settings);
void replay_free(replay **self);

/* What is released from now on belongs to this phase (0 .. REPLAY_PHASES - 1). */
void replay_set_phase(replay *self, unsigned phase);

/* What came back so far. total may be NULL; per_phase is NULL or has REPLAY_PHASES elements. */
void replay_read(const replay *self, replay_counts *total, replay_counts *per_phase);
size_t replay_released(const replay *self);
size_t replay_answered(const replay *self);
const replay_sample *replay_samples(const replay *self); /* as many as settings.count */

/* The first errors in words, at most REPLAY_ERRORS_KEPT; NULL: there is no error of that number. */
const char *replay_error(const replay *self, unsigned number);

#endif
