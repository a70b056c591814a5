/* policy_s3fifo.c: S3-FIFO (Yang et al., SOSP 2023): a small first queue of a tenth, a main queue
 * with two-bit counters and reinsertion, ghosts for nine tenths. Where the paper leaves it open, as
 * the reference has it: two hits promote, and what is promoted starts from no hits.
 */
#include <stdlib.h>

#include "policies.h"

enum { SMALL = 1, MAIN = 2, GHOST = 3, PROMOTE_AT = 2, COUNT_MOST = 3 };

struct s3fifo {
    struct policy_links links;
    struct policy_queue small, main, ghost;
    uint32_t *count;
    size_t small_capacity, main_capacity, ghost_capacity;
};

static void *make(size_t capacity, size_t keys)
{
    struct s3fifo *self = policy_memory(1, sizeof *self);
    self->links = policy_links_make(keys);
    self->small = policy_queue_make(SMALL);
    self->main = policy_queue_make(MAIN);
    self->ghost = policy_queue_make(GHOST);
    self->count = policy_memory(keys, sizeof *self->count);
    self->small_capacity = capacity / 10 > 0 ? capacity / 10 : 1;
    self->main_capacity = capacity - self->small_capacity;
    self->ghost_capacity = capacity * 9 / 10;
    return self;
}

static bool evict_small(struct s3fifo *self)
{
    uint32_t key = self->small.oldest;
    policy_take(&self->links, &self->small, key);
    if (self->count[key] >= PROMOTE_AT) {
        self->count[key] = 0;
        policy_push(&self->links, &self->main, key);
        return false;
    }
    if (self->ghost_capacity > 0) {
        if (self->ghost.size == self->ghost_capacity) {
            policy_take(&self->links, &self->ghost, self->ghost.oldest);
        }
        policy_push(&self->links, &self->ghost, key);
    }
    return true;
}

static bool evict_main(struct s3fifo *self)
{
    uint32_t key = self->main.oldest;
    uint32_t count = self->count[key];
    policy_take(&self->links, &self->main, key);
    if (count == 0) {
        return true;
    }
    self->count[key] = (count < COUNT_MOST ? count : COUNT_MOST) - 1;
    policy_push(&self->links, &self->main, key);
    return false;
}

static void evict(struct s3fifo *self)
{
    bool gone = false;
    while (!gone) {
        gone = self->main.size > self->main_capacity || self->small.size == 0 ? evict_main(self)
                                                                              : evict_small(self);
    }
}

static bool request(void *context, uint32_t key)
{
    struct s3fifo *self = context;
    uint8_t where = self->links.where[key];
    if (where == SMALL || where == MAIN) {
        self->count[key]++;
        return true;
    }
    if (where == GHOST) {
        policy_take(&self->links, &self->ghost, key);
    }
    while (self->small.size + self->main.size >= self->small_capacity + self->main_capacity) {
        evict(self);
    }
    self->count[key] = 0;
    policy_push(&self->links, where == GHOST ? &self->main : &self->small, key);
    return false;
}

static void end(void *context)
{
    struct s3fifo *self = context;
    policy_links_end(&self->links);
    free(self->count);
    free(self);
}

const struct policy policy_s3fifo = {"S3-FIFO", make, request, end};
