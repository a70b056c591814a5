/* write_many.c: many keys set or deleted in one transaction: all of them or none. */
#include <stdlib.h>

#include "invalidate.h"
#include "write_internal.h"

struct many_request {
    struct set_request *requests;
    larder_item *items;
    size_t count;
};

/* LARDER_OK: with room for the requests, unless there are none. */
static int begin_many(larder *handle, larder_item *items, size_t count, struct many_request *many)
{
    *many = (struct many_request){.items = items, .count = count};
    int result = handle_enter_write(handle);
    if (result != LARDER_OK) {
        return result;
    }
    if ((items == NULL && count > 0) || count > LARDER_MANY_MAX) {
        return error_set(LARDER_EINVAL, "%zu items in one call: at most %u", count,
                         LARDER_MANY_MAX);
    }
    if (count == 0) {
        return LARDER_OK;
    }
    many->requests = malloc(count * sizeof *many->requests);
    return many->requests != NULL ? LARDER_OK : error_set(LARDER_ENOMEM, "out of memory");
}

static int set_many_operation(struct writer *writer, void *context)
{
    struct many_request *many = context;
    for (size_t i = 0; i < many->count; i++) {
        int result = write_set_one(writer, &many->requests[i]);
        if (result < 0) {
            return result;
        }
        many->items[i].outcome = result;
    }
    return LARDER_OK;
}

int larder_set_many(larder *handle, larder_item *items, size_t count, const larder_policy *policy)
{
    struct many_request many;
    int result = begin_many(handle, items, count, &many);
    if (result != LARDER_OK || count == 0) {
        return result;
    }
    size_t bytes = 0;
    for (size_t i = 0; i < count && result == LARDER_OK; i++) {
        result = write_make_request(handle, items[i].key, items[i].key_size, items[i].value,
                                    items[i].value_size, policy, &many.requests[i]);
        bytes += items[i].value_size;
    }
    if (result != LARDER_OK) { /* an argument is wrong: nothing happened */
        free(many.requests);
        return result;
    }
    if (bytes > handle->max_value) {
        result = write_too_big(handle, bytes);
    } else {
        result = write_run(handle, bytes, set_many_operation, &many);
        write_count_refusal(handle, result);
    }
    for (size_t i = 0; i < count && write_was_refused(result); i++) {
        invalidate_later(handle, &many.requests[i].key);
        items[i].outcome = result;
    }
    if (result == LARDER_OK) {
        stats_add(map_stats(handle->map), STATS_SETS, count);
    }
    free(many.requests);
    return result;
}

static int delete_many_operation(struct writer *writer, void *context)
{
    struct many_request *many = context;
    for (size_t i = 0; i < many->count; i++) {
        int result = write_delete_one(writer, &many->requests[i].key);
        if (result < 0) {
            return result;
        }
        many->items[i].outcome = result;
    }
    return LARDER_OK;
}

int larder_delete_many(larder *handle, larder_item *items, size_t count)
{
    struct many_request many;
    int result = begin_many(handle, items, count, &many);
    if (result != LARDER_OK || count == 0) {
        return result;
    }
    for (size_t i = 0; i < count && result == LARDER_OK; i++) {
        result = key_make(&many.requests[i].key, items[i].key, items[i].key_size);
    }
    if (result != LARDER_OK) {
        free(many.requests);
        return result;
    }
    result = write_run(handle, 0, delete_many_operation, &many);
    if (write_was_refused(result)) {
        write_count_refusal(handle, result);
        for (size_t i = 0; i < count; i++) {
            invalidate_later(handle, &many.requests[i].key);
            items[i].outcome = LARDER_OK;
        }
        result = LARDER_OK;
    }
    if (result >= 0) {
        stats_add(map_stats(handle->map), STATS_DELETES, count);
    }
    free(many.requests);
    return result;
}
