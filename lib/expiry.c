/* expiry.c: expiry kinds, staleness, jitter, longest life, and what a read does to a sliding one.
 */
#include "expiry.h"

#include <inttypes.h>
#include <sys/random.h>
#include <time.h>

#include "clock.h"
#include "error.h"

larder_expiry larder_expire_never(void)
{
    return (larder_expiry){.kind = LARDER_EXPIRY_NEVER};
}

larder_expiry larder_expire_in(int64_t ms)
{
    return (larder_expiry){.kind = LARDER_EXPIRY_IN, .ms = ms};
}

larder_expiry larder_expire_at(int64_t ms_since_epoch)
{
    return (larder_expiry){.kind = LARDER_EXPIRY_AT, .ms = ms_since_epoch};
}

larder_expiry larder_expire_aligned(int64_t period_ms, int64_t offset_ms)
{
    return (larder_expiry){.kind = LARDER_EXPIRY_ALIGNED, .ms = period_ms, .offset_ms = offset_ms};
}

larder_expiry larder_expire_sliding(int64_t ms)
{
    return (larder_expiry){.kind = LARDER_EXPIRY_SLIDING, .ms = ms};
}

static int resolve_aligned(const larder_expiry *expiry, int64_t now_ms, int64_t *expires_at_ms)
{
    int64_t period = expiry->ms;
    if (period <= 0 || period % 1000 != 0) {
        return error_set(LARDER_EINVAL,
                         "aligned expiry with a period of %" PRId64
                         " ms: it must be a positive whole number of seconds",
                         period);
    }
    if (expiry->offset_ms <= -period || expiry->offset_ms >= period) {
        return error_set(LARDER_EINVAL,
                         "aligned expiry with an offset of %" PRId64
                         " ms: it must be smaller than the period of %" PRId64 " ms",
                         expiry->offset_ms, period);
    }
    int64_t shifted, mark;
    if (__builtin_sub_overflow(now_ms, expiry->offset_ms, &shifted)) {
        return error_set(LARDER_EOVERFLOW, "aligned expiry: the time does not fit 64 bits");
    }
    int64_t into = shifted % period;
    if (into < 0) {
        into += period;
    }
    if (__builtin_add_overflow(now_ms, period - into, &mark) || mark == CLOCK_NEVER) {
        return error_set(LARDER_EOVERFLOW, "aligned expiry: the time does not fit 64 bits");
    }
    *expires_at_ms = mark;
    return LARDER_OK;
}

int expiry_resolve(const larder_expiry *expiry, int64_t now_ms, int64_t *expires_at_ms)
{
    int64_t moment;
    if (expiry->reserved != 0) {
        return error_set(LARDER_EINVAL, "larder_expiry.reserved is not 0");
    }
    if (expiry->kind != LARDER_EXPIRY_ALIGNED && expiry->offset_ms != 0) {
        return error_set(LARDER_EINVAL, "larder_expiry.offset_ms is for aligned expiry only");
    }
    switch (expiry->kind) {
    case LARDER_EXPIRY_DEFAULT:
    case LARDER_EXPIRY_NEVER:
        if (expiry->ms != 0) {
            return error_set(LARDER_EINVAL, "larder_expiry.ms is %" PRId64 " without a kind",
                             expiry->ms);
        }
        *expires_at_ms = CLOCK_NEVER;
        return LARDER_OK;
    case LARDER_EXPIRY_IN:
        if (expiry->ms < 0) {
            return error_set(LARDER_EINVAL, "time to live of %" PRId64 " ms: it cannot be negative",
                             expiry->ms);
        }
        if (expiry->ms == 0) {
            *expires_at_ms = CLOCK_NEVER;
            return LARDER_OK;
        }
        if (__builtin_add_overflow(now_ms, expiry->ms, &moment) || moment == CLOCK_NEVER) {
            return error_set(LARDER_EOVERFLOW, "time to live of %" PRId64 " ms does not fit",
                             expiry->ms);
        }
        *expires_at_ms = moment;
        return LARDER_OK;
    case LARDER_EXPIRY_AT:
        if (expiry->ms < 0) {
            return error_set(LARDER_EINVAL, "expiry at %" PRId64 " ms: before the epoch",
                             expiry->ms);
        }
        *expires_at_ms = expiry->ms;
        return LARDER_OK;
    case LARDER_EXPIRY_ALIGNED:
        return resolve_aligned(expiry, now_ms, expires_at_ms);
    case LARDER_EXPIRY_SLIDING:
        if (expiry->ms <= 0) {
            return error_set(LARDER_EINVAL,
                             "sliding expiry of %" PRId64 " ms: the period must be positive",
                             expiry->ms);
        }
        if (__builtin_add_overflow(now_ms, expiry->ms, &moment) || moment == CLOCK_NEVER) {
            return error_set(LARDER_EOVERFLOW, "sliding expiry of %" PRId64 " ms does not fit",
                             expiry->ms);
        }
        *expires_at_ms = moment;
        return LARDER_OK;
    default:
        return error_set(LARDER_EINVAL, "unknown expiry kind %u", expiry->kind);
    }
}

/* ---- All times of an entry --------------------------------------------------------------------
 */

static int too_late(const char *what, int64_t ms)
{
    return error_set(LARDER_EOVERFLOW, "%s of %" PRId64 " ms: the time does not fit 64 bits", what,
                     ms);
}

static int add_staleness(struct expiry_times *times, int64_t stale_ms)
{
    if (stale_ms == 0 || times->expires_at_ms == CLOCK_NEVER) {
        return LARDER_OK;
    }
    if (__builtin_add_overflow(times->expires_at_ms, stale_ms, &times->stale_until_ms) ||
        times->stale_until_ms == CLOCK_NEVER) {
        return too_late("stale_ms", stale_ms);
    }
    if (times->limit_ms != 0 && times->stale_until_ms > times->limit_ms) {
        times->stale_until_ms = times->limit_ms;
    }
    if (times->stale_until_ms <= times->expires_at_ms) {
        times->stale_until_ms = 0;
    }
    return LARDER_OK;
}

static void cut(struct expiry_times *times)
{
    if (times->limit_ms != 0 && times->expires_at_ms > times->limit_ms) {
        times->expires_at_ms = times->limit_ms;
    }
}

int expiry_plan(const larder_policy *policy, int64_t now_ms, uint64_t random,
                struct expiry_times *times)
{
    *times = (struct expiry_times){.expires_at_ms = CLOCK_NEVER};
    int result = expiry_resolve(&policy->expiry, now_ms, &times->expires_at_ms);
    if (result != LARDER_OK) {
        return result;
    }
    if (policy->expiry.kind == LARDER_EXPIRY_SLIDING) {
        times->sliding_ms = policy->expiry.ms;
    }
    if (policy->max_lifetime_ms != 0) {
        if (__builtin_add_overflow(now_ms, policy->max_lifetime_ms, &times->limit_ms) ||
            times->limit_ms == CLOCK_NEVER) {
            return too_late("max_lifetime_ms", policy->max_lifetime_ms);
        }
        cut(times);
    }
    if (policy->jitter_ms > 0 && times->expires_at_ms != CLOCK_NEVER &&
        times->expires_at_ms > now_ms) {
        uint64_t room = (uint64_t)(times->expires_at_ms - now_ms) - 1;
        uint64_t most = (uint64_t)policy->jitter_ms < room ? (uint64_t)policy->jitter_ms : room;
        times->expires_at_ms -= (int64_t)(random % (most + 1));
    }
    return add_staleness(times, policy->stale_ms);
}

int expiry_replan(const struct expiry_times *old, const larder_expiry *expiry, int64_t now_ms,
                  struct expiry_times *times)
{
    *times = (struct expiry_times){.expires_at_ms = CLOCK_NEVER, .limit_ms = old->limit_ms};
    int result = expiry_resolve(expiry, now_ms, &times->expires_at_ms);
    if (result != LARDER_OK) {
        return result;
    }
    if (expiry->kind == LARDER_EXPIRY_SLIDING) {
        times->sliding_ms = expiry->ms;
    }
    cut(times);
    int64_t stale_ms = 0;
    if (old->stale_until_ms == 0 ||
        __builtin_sub_overflow(old->stale_until_ms, old->expires_at_ms, &stale_ms) ||
        stale_ms < 0) {
        stale_ms = 0;
    }
    return add_staleness(times, stale_ms);
}

void expiry_slide(const struct expiry_times *old, int64_t now_ms, struct expiry_times *times)
{
    larder_expiry expiry = larder_expire_sliding(old->sliding_ms);
    if (expiry_replan(old, &expiry, now_ms, times) != LARDER_OK) {
        *times = *old; /* the period in the record is damaged, or at the end of time */
    }
}

bool expiry_slide_is_due(const struct expiry_times *times, int64_t now_ms)
{
    if (times->sliding_ms <= 0 || times->expires_at_ms == CLOCK_NEVER ||
        (times->limit_ms != 0 && times->expires_at_ms >= times->limit_ms)) {
        return false;
    }
    int64_t left = times->expires_at_ms - now_ms;
    return left <= times->sliding_ms - times->sliding_ms / 4;
}

uint64_t expiry_random(void)
{
    static __thread uint64_t state __attribute__((tls_model("initial-exec")));
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    if (state == 0 && getrandom(&state, sizeof state, GRND_NONBLOCK) != (ssize_t)sizeof state) {
        state = (uint64_t)(uintptr_t)&state;
    }
    /* The time goes in at every draw: a child of fork() begins with its parent's state. */
    state ^= (uint64_t)now.tv_nsec << 20 ^ (uint64_t)now.tv_sec;
    state = state != 0 ? state : 1;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * UINT64_C(2685821657736338717);
}
