/* replicator_poll.h: when larderd looks for the next request of a worker, and for Redis's answer to
 * one, instead of sleeping until it is woken. To wake a process on another processor takes longer
 * than all else of a read-through together. So, where the next one usually comes within the limit,
 * the loop goes round without sleeping for as long as that usually takes; workers then need no
 * system call to be heard. Between two rounds the processor is offered to others, and where these
 * took it, there is no looking for a while, twice as long each time. When nobody asks, nothing of
 * this happens.
 *
 * No map, no loop in here: what is to be done comes out as answers, times go in (microseconds of
 * CLOCK_MONOTONIC). Called by replicator_ask.c.
 */
#ifndef LARDER_DAEMON_REPLICATOR_POLL_H
#define LARDER_DAEMON_REPLICATOR_POLL_H

#include <stdbool.h>
#include <stdint.h>

enum { POLL_MOST_US = 1000 }; /* of the limit */

struct poll_expected { /* something that follows on something */
    int64_t since_us;  /* 0: it is not waited for */
    int64_t usual_us;  /* how long it takes, smoothed */
};

struct poll {
    int64_t limit_us;                    /* 0: never */
    struct poll_expected request, reply; /* after an answer; after a request to Redis */
    int64_t rest_until_us, rest_us;
};

/* limit_us is taken as 0 where there is one processor. */
void poll_init(struct poll *self, int64_t limit_us, unsigned processors);

void poll_requested(struct poll *self, int64_t now_us); /* a worker asked */
void poll_sent(struct poll *self, int64_t now_us);      /* Redis was asked */
void poll_replied(struct poll *self, int64_t now_us);   /* Redis answered */
void poll_answered(struct poll *self, int64_t now_us);  /* workers were told */

/* Whether to look on. */
bool poll_wanted(const struct poll *self, int64_t now_us);

/* The processor was offered to others, who had it for so long. */
void poll_offered(struct poll *self, int64_t now_us, int64_t took_us);

#endif
