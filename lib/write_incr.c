/* write_incr.c: larder_incr: numbers that are kept as text, counted inside the gate. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lookup.h"
#include "write_internal.h"

struct incr_request {
    struct set_request set;
    int64_t delta, result;
    bool keep_times, keep_marks;
};

enum { NUMBER_SIZE = 24 };

/* A decimal 64-bit integer, nothing before or behind it, as Redis has it. */
static bool parse_number(const uint8_t *text, size_t size, int64_t *number)
{
    char copy[NUMBER_SIZE];
    char *end = NULL;
    if (size == 0 || size >= sizeof copy) {
        return false;
    }
    memcpy(copy, text, size);
    copy[size] = '\0';
    size_t first = copy[0] == '-' ? 1 : 0;
    if (copy[first] < '0' || copy[first] > '9' || (copy[first] == '0' && size > 1)) {
        return false;
    }
    errno = 0;
    *number = strtoll(copy, &end, 10);
    return errno == 0 && *end == '\0' && (size_t)(end - copy) == size;
}

static int incr_one(struct writer *writer, struct incr_request *request)
{
    struct set_request set = request->set;
    struct policy_plan *plan = &set.plan;
    struct record old;
    int64_t before = 0;
    char text[NUMBER_SIZE];
    int found = entry_find(&writer->transaction, &set.key, &old);
    if (found < 0) {
        return found;
    }
    if (found == LARDER_OK && lookup_alive(writer->control, &old, set.key.hash) &&
        old.header.kind == RECORD_VALUE) {
        if (old.value == NULL || !parse_number(old.value, old.value_size, &before)) {
            return error_set(LARDER_ENUMBER, "the value is not a decimal 64-bit integer");
        }
        if (request->keep_times) {
            plan->times = policy_times(&old);
        }
        if (request->keep_marks && old.header.mark_count > 0 &&
            old.header.mark_count <= RECORD_MARKS_MAX) {
            plan->mark_count = old.header.mark_count;
            memcpy(plan->marks, old.marks, (size_t)plan->mark_count * RECORD_MARK_SIZE);
        }
        set.condition = SET_IF_VERSION; /* looks once more, after its version was drawn */
        set.expected = record_version(&old, writer->control->home);
    }
    if (__builtin_add_overflow(before, request->delta, &request->result)) {
        return error_set(LARDER_EOVERFLOW, "%" PRId64 " and %" PRId64 " do not fit 64 bits", before,
                         request->delta);
    }
    int length = snprintf(text, sizeof text, "%" PRId64, request->result);
    set.value = text;
    set.value_size = (size_t)length;
    return write_set_one(writer, &set);
}

static int incr_operation(struct writer *writer, void *context)
{
    int result = incr_one(writer, context);
    /* it died between the two looks: then the number counts from 0 */
    return result == LARDER_MISS ? incr_one(writer, context) : result;
}

int larder_incr(larder *handle, const void *key, size_t key_size, int64_t delta, int64_t *result,
                const larder_policy *policy)
{
    struct incr_request request = {.delta = delta};
    int outcome = handle_enter_write(handle);
    if (outcome == LARDER_OK) {
        outcome = write_make_request(handle, key, key_size, NULL, 0, policy, &request.set);
    }
    if (outcome == LARDER_OK && request.set.plan.kind != RECORD_VALUE) {
        outcome = error_set(LARDER_EINVAL, "a counter cannot be negative knowledge");
    }
    if (outcome != LARDER_OK) {
        return outcome;
    }
    request.keep_times = policy == NULL || policy->expiry.kind == LARDER_EXPIRY_DEFAULT;
    request.keep_marks = request.set.plan.mark_count == 0;
    outcome = write_run(handle, NUMBER_SIZE, incr_operation, &request);
    write_count_refusal(handle, outcome);
    if (outcome == LARDER_OK) {
        stats_count(map_stats(handle->map), STATS_SETS);
        if (result != NULL) {
            *result = request.result;
        }
    }
    return outcome;
}
