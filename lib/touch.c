/* touch.c: another expiry for what is there. The value stays where it stands; version, times and
 * the place in the log change. Called by users (larder_touch()) and after reads of sliding entries.
 */
#include "touch.h"

#include "clock.h"
#include "evict.h"
#include "expiry.h"
#include "handle.h"
#include "invalidate.h"
#include "policy.h"
#include "writer.h"

enum { SLIDE_EVICTIONS = 32 };

struct touch_request {
    struct key key;
    const larder_expiry *expiry; /* NULL: the entry's own sliding period */
    bool only_if_due;
    struct expiry_times times; /* out: what it has now */
};

static int new_times(struct touch_request *request, const struct record *old)
{
    struct expiry_times before = policy_times(old);
    int64_t now = clock_wall_ms();
    if (request->expiry != NULL) {
        return expiry_replan(&before, request->expiry, now, &request->times);
    }
    if (before.sliding_ms <= 0 || (request->only_if_due && !expiry_slide_is_due(&before, now))) {
        return LARDER_MISS; /* somebody was faster */
    }
    expiry_slide(&before, now, &request->times);
    return LARDER_OK;
}

static int touch_operation(struct writer *writer, void *context)
{
    struct touch_request *request = context;
    struct record old;
    int result = entry_find(&writer->transaction, &request->key, &old);
    if (result != LARDER_OK) {
        return result;
    }
    larder_version version = clock_next(writer->control);
    marks_fence();
    if (!lookup_alive(writer->control, &old, request->key.hash)) {
        return LARDER_MISS;
    }
    result = new_times(request, &old);
    if (result != LARDER_OK) {
        return result;
    }
    if (clock_expired(request->times.expires_at_ms)) {
        return entry_delete(writer, &request->key, &old, version);
    }
    bool local = (old.header.flags & RECORD_LOCAL) != 0;
    struct record changed = old;
    changed.header.clock = version.clock;
    changed.header.node = version.node;
    changed.header.flags |= local ? 0 : RECORD_DIRTY;
    changed.created_ms = record_created_ms(&old);
    changed.acked_ms = 0;
    policy_set_times(&changed, &request->times);
    return entry_retime(writer, &request->key, &old, &changed);
}

static void count(const struct larder *handle, int result)
{
    enum stats_counter counter = result == LARDER_OK      ? STATS_TOUCHES
                                 : result == LARDER_EBUSY ? STATS_REFUSED_BUSY
                                                          : STATS_REFUSED_FULL;
    if (result == LARDER_OK || result == LARDER_EBUSY || result == LARDER_EFULL) {
        stats_count(map_stats(handle->map), counter);
    }
}

int larder_touch(larder *handle, const void *key, size_t key_size, const larder_expiry *expiry)
{
    struct touch_request request = {.expiry = expiry};
    int64_t expires_at_ms = CLOCK_NEVER;
    int result = handle_enter_write(handle);
    if (result == LARDER_OK && expiry == NULL) {
        result = error_set(LARDER_EINVAL, "larder_touch() without an expiry");
    }
    if (result == LARDER_OK) {
        result = key_make(&request.key, key, key_size);
    }
    if (result == LARDER_OK) {
        result = expiry_resolve(expiry, clock_wall_ms(), &expires_at_ms);
    }
    if (result != LARDER_OK) {
        return result;
    }
    result = writer_run(handle, 0, touch_operation, &request);
    count(handle, result);
    if (result < 0 && result != LARDER_ENAMESPACE && result != LARDER_EOVERFLOW &&
        clock_expired(expires_at_ms)) {
        /* a delete in all but name, and that is never refused */
        invalidate_later(handle, &request.key);
        result = LARDER_OK;
    }
    return result;
}

/* ---- Reads that extend ------------------------------------------------------------------------
 */

void touch_slide(const struct larder *handle, const struct lookup *l)
{
    struct touch_request request = {.only_if_due = true};
    struct expiry_times times = policy_times(&l->record);
    struct writer writer;
    if ((handle->flags & LARDER_READ_ONLY) != 0 || !expiry_slide_is_due(&times, clock_wall_ms()) ||
        key_make(&request.key, l->key.data, l->key.size) != LARDER_OK ||
        writer_begin(&writer, handle, 0) != LARDER_OK) {
        return;
    }
    if (!evict_fits(&writer, WRITER_PATH_PAGES)) {
        (void)evict_some(&writer, WRITER_PATH_PAGES, SLIDE_EVICTIONS);
    }
    int result = touch_operation(&writer, &request);
    if (result < 0 || writer.transaction.error != LARDER_OK) {
        writer_abort(&writer);
    } else if (writer_commit(&writer) == LARDER_OK && result == LARDER_OK) {
        stats_count(map_stats(handle->map), STATS_SLIDES);
    }
}

void touch_extend(larder *handle, const void *key, size_t key_size, const larder_expiry *expiry,
                  int64_t *expires_ms)
{
    struct touch_request request = {.expiry =
                                        expiry->kind == LARDER_EXPIRY_DEFAULT ? NULL : expiry};
    if (key_make(&request.key, key, key_size) != LARDER_OK) {
        return;
    }
    int result = writer_run(handle, 0, touch_operation, &request);
    if (result == LARDER_OK) {
        stats_count(map_stats(handle->map), STATS_SLIDES);
    } else {
        count(handle, result);
    }
    if (result == LARDER_OK && expires_ms != NULL) {
        *expires_ms = request.times.expires_at_ms;
    }
}
