/* write.c: larder_set and its kin and larder_delete: what a caller may ask for, and what becomes of
 * the key when the gate is busy or there is no room.
 */
#include "write.h"

#include <inttypes.h>
#include <stdio.h>

#include "clock.h"
#include "invalidate.h"
#include "lookup.h"
#include "marks.h"
#include "removal.h"
#include "sample.h"
#include "write_internal.h"

/* ---- Arguments --------------------------------------------------------------------------------
 */

int write_make_request(const struct larder *handle, const void *key, size_t key_size,
                       const void *value, size_t value_size, const larder_policy *policy,
                       struct set_request *request)
{
    int result = key_make(&request->key, key, key_size);
    if (result != LARDER_OK) {
        return result;
    }
    if (value == NULL && value_size != 0) {
        return error_set(LARDER_EINVAL, "no value, but a size of %zu", value_size);
    }
    request->value = value;
    request->value_size = value_size;
    request->condition = SET_ALWAYS;
    request->created_ms = 0;
    request->place.transaction = 0;
    return policy_resolve(handle, policy, value_size, &request->plan);
}

int write_too_big(const struct larder *handle, size_t size)
{
    stats_count(map_stats(handle->map), STATS_REFUSED_SIZE);
    return error_set(LARDER_ETOOBIG, "value of %zu bytes: the limit is %" PRIu64, size,
                     handle->max_value);
}

/* ---- Refusals ---------------------------------------------------------------------------------
 */

bool write_was_refused(int result)
{
    return result < 0 && result != LARDER_ENAMESPACE;
}

void write_count_refusal(const struct larder *handle, int result)
{
    if (result == LARDER_EBUSY) {
        stats_count(map_stats(handle->map), STATS_REFUSED_BUSY);
    } else if (result == LARDER_EFULL) {
        stats_count(map_stats(handle->map), STATS_REFUSED_FULL);
    }
}

/* ---- Set, add, replace, cas -------------------------------------------------------------------
 */

/* Whether a fill may come in: newer than all that is known of its key, whatever it is, and of its
 * group and tags. */
static int judge_fill(const struct writer *writer, const struct set_request *request,
                      const struct record *old)
{
    uint64_t hash = request->key.hash, clock = request->expected.clock;
    struct record fill = record_make(request->expected, request->plan.kind, 0, INT64_MAX);
    policy_furnish(&request->plan, &fill);
    if ((old != NULL &&
         clock_compare(record_version(old, writer->control->home), request->expected) >= 0) ||
        removal_fill_floor(writer->control, hash) >= clock ||
        removal_pending_clock(writer->control, hash) >= clock ||
        lookup_death(writer->control, &fill, hash) != 0) {
        return LARDER_CONFLICT;
    }
    return LARDER_OK;
}

static int judge_condition(const struct writer *writer, const struct set_request *request,
                           const struct record *old)
{
    bool there = old != NULL && lookup_alive(writer->control, old, request->key.hash);
    switch (request->condition) {
    case SET_IF_MISSING:
        return there ? LARDER_EXISTS : LARDER_OK;
    case SET_IF_THERE:
        return there ? LARDER_OK : LARDER_MISS;
    case SET_IF_VERSION:
    case SET_IF_SAME:
        if (!there) {
            return LARDER_MISS;
        }
        return clock_compare(record_version(old, writer->control->home), request->expected) == 0
                   ? LARDER_OK
                   : LARDER_CONFLICT;
    case SET_IF_NEWER:
        return judge_fill(writer, request, old);
    default:
        return LARDER_OK;
    }
}

static int store_value(struct writer *writer, const struct set_request *request,
                       const struct record *before, larder_version version)
{
    struct record record = record_make(version, request->plan.kind, request->plan.flags,
                                       request->plan.times.expires_at_ms);
    policy_furnish(&request->plan, &record);
    record.created_ms = request->created_ms;
    record.value_size = request->value_size;
    if (before != NULL) {
        return entry_store(writer, &request->key, before, &record, request->value);
    }
    bool inserted = false;
    return entry_upsert(writer, &request->key, &record, request->value, &inserted);
}

int write_set_one(struct writer *writer, const struct set_request *request)
{
    struct record old;
    const struct record *before = NULL;
    const struct expiry_times *times = &request->plan.times;
    /* In the past: a delete. It may have come to that on the way here: then a value that is of use
     * as a stale one is kept. */
    bool past = clock_expired(times->stale_until_ms > times->expires_at_ms ? times->stale_until_ms
                                                                           : times->expires_at_ms);
    larder_version version =
        request->condition == SET_IF_NEWER ? request->expected : clock_next(writer->control);
    if (request->condition != SET_ALWAYS || past) {
        int found = entry_find(&writer->transaction, &request->key, &old);
        if (found < 0) {
            return found;
        }
        before = found == LARDER_OK ? &old : NULL;
        marks_fence(); /* an invalidation that is not seen now is newer than this version */
        int verdict = judge_condition(writer, request, before);
        if (verdict != LARDER_OK) {
            return verdict;
        }
    }
    if (past) {
        return entry_delete(writer, &request->key, before, version);
    }
    return store_value(writer, request, before, version);
}

static int set_operation(struct writer *writer, void *context)
{
    return write_set_one(writer, context);
}

int write_delete_one(struct writer *writer, const struct key *key)
{
    struct record old;
    int found = entry_find(&writer->transaction, key, &old);
    if (found < 0) {
        return found;
    }
    bool there = found == LARDER_OK && lookup_alive(writer->control, &old, key->hash);
    int result =
        entry_delete(writer, key, found == LARDER_OK ? &old : NULL, clock_next(writer->control));
    return result != LARDER_OK ? result : there ? LARDER_OK : LARDER_MISS;
}

static int delete_operation(struct writer *writer, void *context)
{
    return write_delete_one(writer, context);
}

/* ---- Others' requests, in our transaction ------------------------------------------------------
 */

/* Its version was drawn when it was posted, so that one carried out late, by a holder that was
 * stopped meanwhile, is dead on arrival. Where a newer one stands by now, the request cannot count
 * as overwritten: what came in between may have read the older value and kept it (a touch, incr,
 * cas). Then, as where something was removed, its poster has to draw another. */
static int serve(struct writer *writer, const struct combine_request *posted)
{
    struct set_request request = {.value = posted->value,
                                  .value_size = posted->value_size,
                                  .plan = {.times = {.expires_at_ms = posted->expires_at_ms},
                                           .kind = posted->kind,
                                           .flags = posted->flags}};
    struct record old;
    int found = key_make(&request.key, posted->key, posted->key_size);
    if (found == LARDER_OK) {
        found = entry_find(&writer->transaction, &request.key, &old);
    }
    if (found < 0) {
        return found;
    }
    const struct record *before = found == LARDER_OK ? &old : NULL;
    if ((before != NULL &&
         clock_compare(record_version(before, writer->control->home), posted->version) >= 0) ||
        posted->version.clock <= removal_floor(writer->control, request.key.hash)) {
        return LARDER_EBUSY;
    }
    if (posted->operation == COMBINE_DELETE) {
        bool there = before != NULL && lookup_alive(writer->control, before, request.key.hash);
        int result = entry_delete(writer, &request.key, before, posted->version);
        return result != LARDER_OK ? result : there ? LARDER_OK : LARDER_MISS;
    }
    return store_value(writer, &request, before, posted->version);
}

static bool may_be_quick(const struct writer *writer, int64_t expires_at_ms)
{
    return !clock_expired(expires_at_ms) &&
           !events_wanted(&writer->control->events, LARDER_EVENT_SET);
}

/* A plain set, over what stands there. Nobody is told of it: where somebody follows, it takes a
 * transaction. */
static int set_quickly(struct writer *writer, void *context)
{
    struct set_request *request = context;
    const struct policy_plan *plan = &request->plan;
    if (!may_be_quick(writer, plan->times.expires_at_ms)) {
        return WRITER_NEEDS_TRANSACTION;
    }
    struct record record = record_make(clock_next(writer->control), plan->kind, plan->flags,
                                       plan->times.expires_at_ms);
    record.value_size = request->value_size;
    return entry_overwrite(writer, &request->key, &record, request->value, &request->place);
}

static void look_ahead(struct store *store, struct combine_request *posted, void *context)
{
    struct set_request *request = context;
    hotset_prefetch(&store->hot, request->key.hash);
    if (!request->key.is_long) {
        struct store_place *place = &request->place;
        store_look_ahead(store, request->key.form, request->key.form_size, place);
        if (place->record.data != NULL) {
            posted->place = (struct combine_place){.generation = store->generation,
                                                   .transaction = place->transaction,
                                                   .offset = place->offset,
                                                   .size = place->record.size};
        }
    }
}

/* Where the poster has seen it, if that can be. */
static struct store_place place_of(const struct store *store, const struct combine_place *told,
                                   const struct key *key)
{
    if (told->generation != store->generation) {
        return (struct store_place){.transaction = 0};
    }
    return store_place_told(store, told->transaction, told->offset, told->size, key->form,
                            key->form_size);
}

/* As serve() does, so that a set which is not the key's newest is left to its poster. */
static int serve_quickly(struct writer *writer, const struct combine_request *posted)
{
    struct key key;
    if (posted->operation != COMBINE_SET || !may_be_quick(writer, posted->expires_at_ms) ||
        key_make(&key, posted->key, posted->key_size) != LARDER_OK ||
        posted->version.clock <= removal_floor(writer->control, key.hash)) {
        return WRITER_NEEDS_TRANSACTION;
    }
    struct record record =
        record_make(posted->version, posted->kind, posted->flags, posted->expires_at_ms);
    record.value_size = posted->value_size;
    struct store_place place = place_of(writer->transaction.store, &posted->place, &key);
    return entry_overwrite(writer, &key, &record, posted->value, &place);
}

int write_run(const struct larder *handle, size_t need, writer_operation *operation, void *context)
{
    struct writer_plan plan = {
        .operation = operation, .serve = serve, .context = context, .need = need};
    return writer_run_plan(handle, &plan);
}

/* Whether the gate's holder may do it: plain, small, and nothing to compare. */
static bool is_plain(const larder *handle, const struct set_request *request)
{
    const struct expiry_times *times = &request->plan.times;
    return request->condition == SET_ALWAYS && request->created_ms == 0 &&
           request->plan.mark_count == 0 && times->stale_until_ms == 0 && times->sliding_ms == 0 &&
           times->limit_ms == 0 && (handle->flags & LARDER_LOCAL) == 0 &&
           combine_fits(request->key.size, request->value_size);
}

static int write_set(const larder *handle, struct set_request *request)
{
    if (!is_plain(handle, request)) {
        return write_run(handle, request->value_size, set_operation, request);
    }
    struct combine_request posted = {.operation = COMBINE_SET,
                                     .key = request->key.data,
                                     .key_size = request->key.size,
                                     .value = request->value,
                                     .value_size = request->value_size,
                                     .expires_at_ms = request->plan.times.expires_at_ms,
                                     .kind = request->plan.kind,
                                     .flags = request->plan.flags};
    struct writer_plan plan = {.operation = set_operation,
                               .quick = set_quickly,
                               .look = look_ahead,
                               .request = &posted,
                               .serve = serve,
                               .serve_quickly = serve_quickly,
                               .context = request,
                               .need = request->value_size};
    return writer_run_plan(handle, &plan);
}

static int write_delete(const larder *handle, const struct key *key)
{
    struct combine_request posted = {.operation = COMBINE_DELETE,
                                     .key = key->data,
                                     .key_size = key->size,
                                     .expires_at_ms = CLOCK_NEVER,
                                     .kind = RECORD_VALUE};
    bool plain = (handle->flags & LARDER_LOCAL) == 0 && combine_fits(key->size, 0);
    struct writer_plan plan = {.operation = delete_operation,
                               .request = plain ? &posted : NULL,
                               .serve = serve,
                               .context = (void *)(uintptr_t)key};
    return writer_run_plan(handle, &plan);
}

/* Whether a refused write would have put an old value out of sight, as far as a look without the
 * gate can tell. */
static bool would_replace(larder *handle, const struct set_request *request, int result)
{
    static const larder_read peek = {.flags = LARDER_PEEK};
    larder_info info;
    char reason[384];
    (void)snprintf(reason, sizeof reason, "%s", larder_last_error());
    int found;
    switch (request->condition) {
    case SET_IF_MISSING:
    case SET_IF_SAME:
    case SET_IF_NEWER: /* what is there was allowed to be, and still is */
        return false;
    case SET_IF_VERSION:
        found =
            larder_get_with(handle, request->key.data, request->key.size, NULL, 0, &info, &peek);
        (void)error_set(result, "%s", reason); /* not that the value did not fit no buffer */
        return (found == LARDER_OK || found == LARDER_ABSENT || found == LARDER_ESIZE) &&
               clock_compare(info.version, request->expected) == 0;
    default:
        return true;
    }
}

static int run_set(larder *handle, struct set_request *request)
{
    int result;
    if (request->value_size > handle->max_value) {
        result = write_too_big(handle, request->value_size);
    } else {
        result = write_set(handle, request);
        write_count_refusal(handle, result);
    }
    if (result == LARDER_OK) {
        stats_count(map_stats(handle->map), STATS_SETS);
    } else if (write_was_refused(result) && would_replace(handle, request, result)) {
        invalidate_later(handle, &request->key);
    }
    return result;
}

static int set(larder *handle, const void *key, size_t key_size, const void *value,
               size_t value_size, const larder_policy *policy)
{
    struct set_request request;
    int result = handle_enter_write(handle);
    if (result == LARDER_OK) {
        result = write_make_request(handle, key, key_size, value, value_size, policy, &request);
    }
    return result == LARDER_OK ? run_set(handle, &request) : result;
}

int larder_set(larder *handle, const void *key, size_t key_size, const void *value,
               size_t value_size, const larder_policy *policy)
{
    uint64_t began = sample_begin_write();
    int result = set(handle, key, key_size, value, value_size, policy);
    return began == 0 ? result : sample_end_write(handle, began, LARDER_LATENCY_SET, result);
}

static int set_if(larder *handle, const void *key, size_t key_size, const void *value,
                  size_t value_size, const larder_policy *policy, enum set_condition condition,
                  const larder_version *expected)
{
    struct set_request request;
    int result = handle_enter_write(handle);
    if (result == LARDER_OK) {
        result = write_make_request(handle, key, key_size, value, value_size, policy, &request);
    }
    if (result != LARDER_OK) {
        return result;
    }
    request.condition = condition;
    if (expected != NULL) {
        request.expected = *expected;
    }
    return run_set(handle, &request);
}

int larder_add(larder *handle, const void *key, size_t key_size, const void *value,
               size_t value_size, const larder_policy *policy)
{
    return set_if(handle, key, key_size, value, value_size, policy, SET_IF_MISSING, NULL);
}

int larder_replace(larder *handle, const void *key, size_t key_size, const void *value,
                   size_t value_size, const larder_policy *policy)
{
    return set_if(handle, key, key_size, value, value_size, policy, SET_IF_THERE, NULL);
}

int larder_cas(larder *handle, const void *key, size_t key_size, const void *value,
               size_t value_size, const larder_version *expected, const larder_policy *policy)
{
    if (expected == NULL) {
        return error_set(LARDER_EINVAL, "larder_cas() without an expected version");
    }
    return set_if(handle, key, key_size, value, value_size, policy, SET_IF_VERSION, expected);
}

int write_swap(larder *handle, const void *key, size_t key_size, const void *value,
               size_t value_size, const larder_version *expected, const larder_policy *policy)
{
    return set_if(handle, key, key_size, value, value_size, policy, SET_IF_SAME, expected);
}

int write_fill(larder *handle, const void *key, size_t key_size, const void *value,
               size_t value_size, const larder_policy *policy, struct write_fill *fill)
{
    struct set_request request;
    int result = write_make_request(handle, key, key_size, value, value_size, policy, &request);
    if (result != LARDER_OK) {
        fill->refused = true;
        return result;
    }
    int64_t created_ms = clock_version_ms(fill->version.clock) + fill->took_ms;
    request.condition = SET_IF_NEWER;
    request.expected = fill->version;
    request.created_ms = fill->took_ms > 0 ? created_ms : 0;
    fill->info = (larder_info){.size = value_size,
                               .version = fill->version,
                               .created_ms = created_ms,
                               .expires_ms = request.plan.times.expires_at_ms,
                               .stale_until_ms = request.plan.times.stale_until_ms};
    return run_set(handle, &request);
}

/* ---- Delete -----------------------------------------------------------------------------------
 */

int larder_delete(larder *handle, const void *key, size_t key_size)
{
    uint64_t began = sample_begin_write();
    struct key made;
    int result = handle_enter_write(handle);
    if (result == LARDER_OK) {
        result = key_make(&made, key, key_size);
    }
    if (result != LARDER_OK) {
        return result;
    }
    result = write_delete(handle, &made);
    if (write_was_refused(result)) {
        write_count_refusal(handle, result);
        invalidate_later(handle, &made); /* an invalidation is never refused */
        result = LARDER_OK;
    }
    if (result >= 0) {
        stats_count(map_stats(handle->map), STATS_DELETES);
    }
    return began == 0 ? result : sample_end_write(handle, began, LARDER_LATENCY_DELETE, result);
}
