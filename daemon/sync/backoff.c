/* backoff.c: when to try again. Full jitter (a whole fleet must not come back in step), doubling
 * from min_ms to max_ms; after `threshold` failures in a row the breaker opens, and attempts keep a
 * floor below which they do not fall. Pure: the caller keeps the time.
 */
#include "daemon/sync/sync.h"

uint64_t sync_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int64_t uniform(sync_backoff *self, int64_t from, int64_t to)
{
    if (to <= from)
        return from;
    return from + (int64_t)(sync_random(&self->random) % (uint64_t)(to - from + 1));
}

void sync_backoff_init(sync_backoff *self, int64_t min_ms, int64_t max_ms, uint32_t threshold,
                       int64_t open_ms, uint64_t seed)
{
    self->min_ms = min_ms;
    self->max_ms = max_ms < min_ms ? min_ms : max_ms;
    self->threshold = threshold == 0 ? 1 : threshold;
    self->open_ms = open_ms;
    self->failures = 0;
    self->breaker = SYNC_BREAKER_CLOSED;
    self->random = seed;
}

void sync_backoff_attempt(sync_backoff *self)
{
    if (self->breaker == SYNC_BREAKER_OPEN)
        self->breaker = SYNC_BREAKER_HALF_OPEN;
}

int64_t sync_backoff_failed(sync_backoff *self)
{
    int64_t most = self->min_ms;
    for (uint32_t i = 0; i < self->failures && most < self->max_ms; i++)
        most *= 2;
    if (most > self->max_ms)
        most = self->max_ms;
    if (self->failures < UINT32_MAX)
        self->failures++;
    if (self->failures < self->threshold)
        return uniform(self, 0, most);
    self->breaker = SYNC_BREAKER_OPEN;
    int64_t least = self->open_ms / 2 < self->max_ms ? self->open_ms / 2 : self->max_ms;
    return uniform(self, least, most > self->open_ms ? most : self->open_ms);
}

void sync_backoff_worked(sync_backoff *self)
{
    self->failures = 0;
    self->breaker = SYNC_BREAKER_CLOSED;
}
