/* policy_inplace.c: what the map does (lib/evict.c), on numbered keys: one queue in order of
 * insertion that nothing is ever moved in. A small hand follows the newest seventh: what it passes
 * with two hits stays where it is and is main from then on, the rest leaves as a ghost. A main hand
 * goes round below it as SIEVE's does, with two-bit counters. A key that was a ghost when it came
 * is main at once. Where the queue grew with nothing evicted, all but its newest seventh is main.
 */
#include <stdlib.h>

#include "policies.h"

enum { SHARE = 7, GHOST_MORE = 8, PROMOTE_AT = 2, COUNT_MOST = 3, JUMP_MOST = 2048 };

struct inplace {
    struct policy_links links;
    struct policy_queue queue;
    uint8_t *count, *returned;
    uint64_t *inserted, *ghost; /* ordinals, 0: none */
    uint64_t insertions, ghosts;
    uint32_t small_hand, hand; /* POLICY_NONE: beyond the newest; at the oldest */
    size_t capacity, small, returned_in_small;
};

static void *make(size_t capacity, size_t keys)
{
    struct inplace *self = policy_memory(1, sizeof *self);
    self->links = policy_links_make(keys);
    self->queue = policy_queue_make(1);
    self->count = policy_memory(keys, 1);
    self->returned = policy_memory(keys, 1);
    self->inserted = policy_memory(keys, sizeof *self->inserted);
    self->ghost = policy_memory(keys, sizeof *self->ghost);
    self->small_hand = self->hand = POLICY_NONE;
    self->capacity = capacity;
    return self;
}

static size_t share(const struct inplace *self)
{
    size_t target = self->queue.size / SHARE;
    return target > 0 ? target : 1;
}

static size_t waiting(const struct inplace *self)
{
    return self->small - self->returned_in_small;
}

static void drop(struct inplace *self, uint32_t key)
{
    if (self->hand == key) {
        self->hand = self->links.newer[key];
    }
    policy_take(&self->links, &self->queue, key);
}

static void pass(struct inplace *self, uint32_t key)
{
    self->small_hand = self->links.newer[key];
    self->small--;
    self->returned_in_small -= self->returned[key];
}

static bool step_small(struct inplace *self)
{
    uint32_t key = self->small_hand;
    pass(self, key);
    if (self->returned[key] != 0) {
        return false;
    }
    if (self->count[key] >= PROMOTE_AT) {
        self->count[key] = 0;
        return false;
    }
    drop(self, key);
    self->ghost[key] = ++self->ghosts;
    return true;
}

static bool step_main(struct inplace *self)
{
    uint64_t limit =
        self->small_hand == POLICY_NONE ? UINT64_MAX : self->inserted[self->small_hand];
    if (self->hand == POLICY_NONE || self->inserted[self->hand] >= limit) {
        self->hand = self->queue.oldest;
    }
    uint32_t key = self->hand;
    if (self->count[key] > 0) {
        self->count[key]--;
        self->hand = self->links.newer[key];
        return false;
    }
    drop(self, key);
    return true;
}

/* The queue grew while there was room: what is beyond its share did not have to be proved. */
static void jump(struct inplace *self)
{
    size_t left = share(self);
    left = left < JUMP_MOST ? left : JUMP_MOST;
    self->small = self->returned_in_small = 0;
    self->small_hand = POLICY_NONE;
    for (uint32_t key = self->queue.newest; key != POLICY_NONE && waiting(self) < left;
         key = self->links.older[key]) {
        self->small_hand = key;
        self->small++;
        self->returned_in_small += self->returned[key];
    }
}

static void evict(struct inplace *self)
{
    if (waiting(self) > 2 * share(self) + 1) {
        jump(self);
    }
    bool gone = false;
    while (!gone) {
        gone = waiting(self) > share(self) || self->small == self->queue.size ? step_small(self)
                                                                              : step_main(self);
    }
}

static bool request(void *context, uint32_t key)
{
    struct inplace *self = context;
    if (self->links.where[key] != 0) {
        if (self->count[key] < COUNT_MOST) {
            self->count[key]++;
        }
        return true;
    }
    size_t memory = self->queue.size + self->queue.size / GHOST_MORE;
    self->returned[key] = self->ghost[key] != 0 && self->ghosts - self->ghost[key] < memory;
    self->ghost[key] = 0;
    self->count[key] = 0;
    self->inserted[key] = ++self->insertions;
    policy_push(&self->links, &self->queue, key);
    self->small++;
    self->returned_in_small += self->returned[key];
    if (self->small_hand == POLICY_NONE) {
        self->small_hand = key;
    }
    if (self->queue.size > self->capacity) {
        evict(self);
    }
    return false;
}

static void end(void *context)
{
    struct inplace *self = context;
    policy_links_end(&self->links);
    free(self->count);
    free(self->returned);
    free(self->inserted);
    free(self->ghost);
    free(self);
}

const struct policy policy_inplace = {"larder", make, request, end};
