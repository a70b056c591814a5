/* policies.h: cache replacement policies over numbered keys of one size each, for the simulator and
 * the hit-ratio benchmark. Each lives in policy_NAME.c. They know nothing of the library: what the
 * map really does is measured on a map (bench_hit_ratio).
 *
 * request() says whether the key was there; if not it is brought in, and others leave so that at
 * most capacity keys are there when it returns.
 */
#ifndef LARDER_BENCH_POLICIES_H
#define LARDER_BENCH_POLICIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct policy {
    const char *name;
    void *(*make)(size_t capacity, size_t keys); /* keys are 0 .. keys - 1 */
    bool (*request)(void *self, uint32_t key);
    void (*end)(void *self);
};

extern const struct policy policy_lru, policy_sieve, policy_s3fifo, policy_tinylfu, policy_arc,
    policy_inplace;

/* All of them; the last is NULL. */
extern const struct policy *const policies[];

/* The share of the requests that were hits, in percent. */
double policy_replay(const struct policy *policy, size_t capacity, size_t keys,
                     const uint32_t *requests, size_t count);

/* ---- Queues of keys, each key in one queue at a time -------------------------------------------
 */

#define POLICY_NONE UINT32_MAX

struct policy_queue {
    uint32_t oldest, newest;
    size_t size;
    uint8_t number; /* what where[] says of its members; not 0 */
};

struct policy_links {
    uint32_t *older, *newer;
    uint8_t *where; /* 0: in no queue */
};

struct policy_links policy_links_make(size_t keys);
void policy_links_end(struct policy_links *links);

static inline struct policy_queue policy_queue_make(uint8_t number)
{
    return (struct policy_queue){.oldest = POLICY_NONE, .newest = POLICY_NONE, .number = number};
}

static inline void policy_push(struct policy_links *links, struct policy_queue *queue, uint32_t key)
{
    links->older[key] = queue->newest;
    links->newer[key] = POLICY_NONE;
    *(queue->newest == POLICY_NONE ? &queue->oldest : &links->newer[queue->newest]) = key;
    queue->newest = key;
    links->where[key] = queue->number;
    queue->size++;
}

static inline void policy_take(struct policy_links *links, struct policy_queue *queue, uint32_t key)
{
    uint32_t older = links->older[key], newer = links->newer[key];
    *(older == POLICY_NONE ? &queue->oldest : &links->newer[older]) = newer;
    *(newer == POLICY_NONE ? &queue->newest : &links->older[newer]) = older;
    links->where[key] = 0;
    queue->size--;
}

/* calloc() or the end of the program. */
void *policy_memory(size_t count, size_t size);

#endif
