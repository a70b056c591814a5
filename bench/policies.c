/* policies.c: what the policies share; see policies.h.
 */
#include "policies.h"

#include <stdio.h>
#include <stdlib.h>

const struct policy *const policies[] = {&policy_lru, &policy_sieve,   &policy_s3fifo,
                                         &policy_arc, &policy_tinylfu, &policy_inplace,
                                         NULL};

void *policy_memory(size_t count, size_t size)
{
    void *memory = calloc(count == 0 ? 1 : count, size);
    if (memory == NULL) {
        (void)fprintf(stderr, "no memory for %zu times %zu bytes\n", count, size);
        exit(1);
    }
    return memory;
}

struct policy_links policy_links_make(size_t keys)
{
    return (struct policy_links){.older = policy_memory(keys, sizeof(uint32_t)),
                                 .newer = policy_memory(keys, sizeof(uint32_t)),
                                 .where = policy_memory(keys, sizeof(uint8_t))};
}

void policy_links_end(struct policy_links *links)
{
    free(links->older);
    free(links->newer);
    free(links->where);
}

double policy_replay(const struct policy *policy, size_t capacity, size_t keys,
                     const uint32_t *requests, size_t count)
{
    void *self = policy->make(capacity, keys);
    size_t hits = 0;
    for (size_t at = 0; at < count; at++) {
        hits += policy->request(self, requests[at]);
    }
    policy->end(self);
    return count == 0 ? 0 : 100.0 * (double)hits / (double)count;
}
