/* fill_look.c: the looks at a key that come before a fill, and whether what they find is due for
 * renewal before it ends. See fill.h.
 */
#include <stdlib.h>
#include <time.h>

#include "clock.h"
#include "fill.h"
#include "handle.h"
#include "lookup.h"

enum { LOOK_AGAIN_NS = 500000 };

/* ---- Looking ----------------------------------------------------------------------------------
 */

static int take_value(struct transaction *t, const struct lookup *l, bool with_value,
                      struct fill_value *value)
{
    lookup_info(&l->record, t->store->control->home, &value->info);
    if (!with_value || l->record.header.kind != RECORD_VALUE) {
        return LARDER_OK;
    }
    size_t size = l->record.value_size;
    void *memory = malloc(size == 0 ? 1 : size);
    if (memory == NULL) {
        return error_set(LARDER_ENOMEM, "no memory for a value of %zu bytes", size);
    }
    if (size > 0 && lookup_copy(t, &l->record, memory) != LARDER_OK) {
        free(memory);
        return LARDER_MISS;
    }
    value->data = memory;
    value->size = size;
    return LARDER_OK;
}

int fill_look(larder *handle, const struct fill_ask *ask, bool with_value, struct fill_value *value)
{
    *value = (struct fill_value){.data = NULL};
    struct transaction *t;
    struct lookup l = {.key = ask->key};
    for (int tries = 0; tries < LOOKUP_TRIES; tries++) {
        struct control *control = map_control(handle->map);
        l.dead_before = removal_pending_clock(control, l.key.hash);
        int result = registry_snapshot(handle->map, NULL, &t);
        if (result != LARDER_OK) {
            return result;
        }
        if (t->store->control != control) {
            store_read_end(t); /* the segment was replaced in between: ask the new one */
            continue;
        }
        result = lookup_find(handle, t, &l, LARDER_PEEK | LARDER_ACCEPT_STALE);
        if (result != LARDER_MISS) {
            int taken = take_value(t, &l, with_value, value);
            result = taken == LARDER_OK ? result : taken;
        }
        store_read_end(t);
        return result;
    }
    return error_set(LARDER_EBUSY, "the map is being replaced");
}

int fill_look_patiently(larder *handle, const struct fill_ask *ask, struct fill_value *value)
{
    int result = fill_look(handle, ask, ask->with_value, value);
    if (result >= 0 || ask->patience_ms == 0) {
        return result;
    }
    int64_t until = clock_monotonic_ms() + ask->patience_ms;
    while (result == LARDER_EBUSY && clock_monotonic_ms() < until) {
        (void)nanosleep(&(struct timespec){.tv_nsec = LOOK_AGAIN_NS}, NULL);
        result = fill_look(handle, ask, ask->with_value, value);
    }
    return result;
}

int fill_look_first(larder *handle, const struct fill_ask *ask, struct fill_value *value)
{
    *value = (struct fill_value){.data = NULL};
    const struct key *key = &ask->key;
    if (ask->with_value) {
        return larder_get_alloc(handle, key->data, key->size, &value->data, &value->size,
                                &value->info);
    }
    int result = larder_get(handle, key->data, key->size, NULL, 0, &value->info);
    return result == LARDER_ESIZE ? LARDER_OK : result;
}

/* ---- Early renewal ----------------------------------------------------------------------------
 */

/* An exponentially distributed number with mean 1,000: -ln(u) for u uniform in (0, 1]. The
 * logarithm by the number of leading zeros and a parabola: 1 % off at most, and no libm. */
static uint64_t exponential_thousandths(void)
{
    static __thread uint64_t state;
    if (state == 0) {
        struct timespec now;
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        state = ((uint64_t)now.tv_nsec << 32) ^ (uint64_t)now.tv_sec ^ (uint64_t)(uintptr_t)&state;
        state = state == 0 ? 1 : state;
    }
    state ^= state << 13; /* xorshift64: Marsaglia, 2003 */
    state ^= state >> 7;
    state ^= state << 17;
    uint64_t u = state * UINT64_C(0x2545f4914f6cdd1d);
    u = u == 0 ? 1 : u;
    int zeros = __builtin_clzll(u);
    uint64_t x = ((u << zeros) >> 43) & 0xfffff; /* u = 2^(63-zeros) * (1 + x / 2^20) */
    uint64_t log2_x = (x * (1409024 - ((x * 360448) >> 20))) >> 20; /* 1.3438 x - 0.3438 x^2 */
    uint64_t minus_log2 = ((uint64_t)zeros + 1) * 1048576 - log2_x;
    return (minus_log2 * 693) >> 20; /* ln 2 */
}

/* XFetch: whether now - delta * beta * ln(random) >= expiry; delta is how long the last fill took,
 * which is what lies between the version that was drawn before it and the creation time. */
bool fill_is_due(const larder_info *info, uint32_t early_percent)
{
    if (__builtin_expect(early_percent == 0, 1)) {
        return false;
    }
    int64_t took = info->created_ms - clock_version_ms(info->version.clock);
    if (info->expires_ms == CLOCK_NEVER || took <= 0 || took > LEASE_HOLD_MAX_MS) {
        return false;
    }
    int64_t ahead = took * early_percent / 100 * (int64_t)exponential_thousandths() / 1000;
    return clock_wall_ms() + ahead >= info->expires_ms;
}
