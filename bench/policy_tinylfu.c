/* policy_tinylfu.c: W-TinyLFU (Einziger, Friedman, Manes 2017): a window of 1 %, a segmented LRU
 * (a fifth on probation), and a contest between the window's victim and the main part's by counters
 * to 15 that are halved every ten capacities. The counters are exact here, one a key: a sketch only
 * adds collisions.
 */
#include <stdlib.h>

#include "policies.h"

enum { WINDOW = 1, PROBATION = 2, PROTECTED = 3, COUNT_MOST = 15, SAMPLE = 10 };

struct tinylfu {
    struct policy_links links;
    struct policy_queue queues[4]; /* by number */
    uint8_t *count;
    size_t keys, window, main, protected, samples;
};

static void *make(size_t capacity, size_t keys)
{
    struct tinylfu *self = policy_memory(1, sizeof *self);
    self->links = policy_links_make(keys);
    for (int number = WINDOW; number <= PROTECTED; number++) {
        self->queues[number] = policy_queue_make((uint8_t)number);
    }
    self->count = policy_memory(keys, 1);
    self->keys = keys;
    self->window = capacity / 100 > 0 ? capacity / 100 : 1;
    self->main = capacity - self->window;
    self->protected = self->main * 8 / 10;
    return self;
}

static void move(struct tinylfu *self, uint32_t key, int to)
{
    uint8_t from = self->links.where[key];
    if (from != 0) {
        policy_take(&self->links, &self->queues[from], key);
    }
    if (to != 0) {
        policy_push(&self->links, &self->queues[to], key);
    }
}

static void sample(struct tinylfu *self, uint32_t key)
{
    if (self->count[key] < COUNT_MOST) {
        self->count[key]++;
    }
    if (++self->samples >= SAMPLE * (self->window + self->main)) {
        for (size_t at = 0; at < self->keys; at++) {
            self->count[at] /= 2;
        }
        self->samples /= 2;
    }
}

static void drain_window(struct tinylfu *self)
{
    while (self->queues[WINDOW].size > self->window) {
        uint32_t candidate = self->queues[WINDOW].oldest;
        if (self->queues[PROBATION].size + self->queues[PROTECTED].size < self->main) {
            move(self, candidate, PROBATION);
            continue;
        }
        struct policy_queue *from = &self->queues[PROBATION];
        if (from->size == 0) {
            from = &self->queues[PROTECTED];
        }
        if (from->size > 0 && self->count[candidate] > self->count[from->oldest]) {
            move(self, from->oldest, 0);
            move(self, candidate, PROBATION);
        } else {
            move(self, candidate, 0);
        }
    }
}

static bool request(void *context, uint32_t key)
{
    struct tinylfu *self = context;
    uint8_t where = self->links.where[key];
    sample(self, key);
    if (where == PROBATION) {
        move(self, key, PROTECTED);
        if (self->queues[PROTECTED].size > self->protected) {
            move(self, self->queues[PROTECTED].oldest, PROBATION);
        }
    } else {
        move(self, key, where == 0 ? WINDOW : where);
        drain_window(self);
    }
    return where != 0;
}

static void end(void *context)
{
    struct tinylfu *self = context;
    policy_links_end(&self->links);
    free(self->count);
    free(self);
}

const struct policy policy_tinylfu = {"W-TinyLFU", make, request, end};
