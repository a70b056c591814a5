/* demo.h: what the two halves of the demo share: demo.c (the replay, what is watched and shown) and
 * stage.c (the programs that it needs).
 */
#ifndef LARDER_EXAMPLES_DEMO_H
#define LARDER_EXAMPLES_DEMO_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "examples/child.h"
#include "examples/replay.h"
#include "examples/report.h"
#include "examples/site.h"
#include "larder.h"

#define DEMO_TICK_MS 20 /* how often conditions are looked at */

enum {
    REDIS,
    LARDERD,
    SERVER,
    COMPARE, /* runs now and then */
    CHILDREN
};

typedef struct demo {
    const char *work, *log_file, *log_name, *redis_program, *larderd_program, *server_program,
        *compare_program, *map_size;
    double seconds;
    size_t requests;
    unsigned clients, workers;

    struct event_base *base;
    struct event *tick, *signals[3];
    struct child child[CHILDREN];
    site *site;
    larder *cache;
    replay *replay;
    char socket[96]; /* Redis's */
    int server_output;
    uint16_t port;

    int64_t started_ms, shown_ms, sampled_ms; /* monotonic; started_ms 0: not replaying */
    size_t shown_answered;
    int interrupted; /* the signal that asks for the end */
    bool finished, failed, terminal, refilling;
    report_facts facts;
    larder_stats stats;
    uint64_t outbox[REPORT_SERIES_MAX];
    char compared[1024];
} demo;

int64_t demo_now_ms(void); /* monotonic */

/* Say what went wrong; the demo goes on to its end, which is then a failure. Always false. */
bool demo_fail(demo *self, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool demo_fail_child(demo *self, const struct child *child, const char *what);

/* Let the loop run until the condition holds. false: time is over, or the demo was told to end. */
bool demo_wait(demo *self, bool (*condition)(demo *), int64_t wait_ms);

/* Start Redis, larderd and the server, each when the one before is ready. */
bool stage_start(demo *self);

/* Start Redis alone, empty. */
bool stage_redis(demo *self);

/* Does Redis answer? An attempt takes 100 ms at most. */
bool stage_redis_answers(demo *self);

/* Is there a map, is it in step with Redis, and has Redis all? Reads self->stats. */
bool stage_in_step(demo *self);

/* Begin to compare map and Redis; when the child has ended, stage_compared() says whether they
 * agree and leaves what it said in self->compared. */
bool stage_compare(demo *self, const char *wait_ms, bool records_only);
bool stage_compared(demo *self);

/* Compare all, and wait for it. */
bool stage_compare_all(demo *self);

/* End all programs, the last one started first. */
void stage_stop_all(demo *self);

#endif
