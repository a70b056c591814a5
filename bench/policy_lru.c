/* policy_lru.c: least recently used. The yardstick: its figures are exact in every simulator.
 */
#include <stdlib.h>

#include "policies.h"

struct lru {
    struct policy_links links;
    struct policy_queue queue;
    size_t capacity;
};

static void *make(size_t capacity, size_t keys)
{
    struct lru *lru = policy_memory(1, sizeof *lru);
    lru->links = policy_links_make(keys);
    lru->queue = policy_queue_make(1);
    lru->capacity = capacity;
    return lru;
}

static bool request(void *self, uint32_t key)
{
    struct lru *lru = self;
    bool hit = lru->links.where[key] != 0;
    if (hit) {
        policy_take(&lru->links, &lru->queue, key);
    } else if (lru->queue.size == lru->capacity) {
        policy_take(&lru->links, &lru->queue, lru->queue.oldest);
    }
    policy_push(&lru->links, &lru->queue, key);
    return hit;
}

static void end(void *self)
{
    struct lru *lru = self;
    policy_links_end(&lru->links);
    free(lru);
}

const struct policy policy_lru = {"LRU", make, request, end};
