/* policy_sieve.c: SIEVE (Zhang et al., NSDI 2024): one queue in order of insertion, a visited bit,
 * a hand that goes from the oldest to the newest and takes what was not visited since.
 */
#include <stdlib.h>

#include "policies.h"

struct sieve {
    struct policy_links links;
    struct policy_queue queue;
    uint8_t *visited;
    uint32_t hand;
    size_t capacity;
};

static void *make(size_t capacity, size_t keys)
{
    struct sieve *sieve = policy_memory(1, sizeof *sieve);
    sieve->links = policy_links_make(keys);
    sieve->queue = policy_queue_make(1);
    sieve->visited = policy_memory(keys, 1);
    sieve->hand = POLICY_NONE;
    sieve->capacity = capacity;
    return sieve;
}

static void evict(struct sieve *sieve)
{
    uint32_t at = sieve->hand == POLICY_NONE ? sieve->queue.oldest : sieve->hand;
    while (sieve->visited[at] != 0) {
        sieve->visited[at] = 0;
        at = sieve->links.newer[at];
        at = at == POLICY_NONE ? sieve->queue.oldest : at;
    }
    sieve->hand = sieve->links.newer[at];
    policy_take(&sieve->links, &sieve->queue, at);
}

static bool request(void *self, uint32_t key)
{
    struct sieve *sieve = self;
    if (sieve->links.where[key] != 0) {
        sieve->visited[key] = 1;
        return true;
    }
    if (sieve->queue.size == sieve->capacity) {
        evict(sieve);
    }
    sieve->visited[key] = 0;
    policy_push(&sieve->links, &sieve->queue, key);
    return false;
}

static void end(void *self)
{
    struct sieve *sieve = self;
    policy_links_end(&sieve->links);
    free(sieve->visited);
    free(sieve);
}

const struct policy policy_sieve = {"SIEVE", make, request, end};
