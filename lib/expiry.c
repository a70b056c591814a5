/* expiry.c: expiry kinds.
 */
#include "expiry.h"

#include <inttypes.h>

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
        if (__builtin_add_overflow(now_ms, expiry->ms, expires_at_ms) ||
            *expires_at_ms == CLOCK_NEVER) {
            return error_set(LARDER_EOVERFLOW, "time to live of %" PRId64 " ms does not fit",
                             expiry->ms);
        }
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
        return error_set(LARDER_EUNSUPPORTED, "sliding expiry: not in this version");
    default:
        return error_set(LARDER_EINVAL, "unknown expiry kind %u", expiry->kind);
    }
}
