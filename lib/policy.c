/* policy.c: checking a policy and working out what it means now.
 */
#include "policy.h"

#include <string.h>

#include "clock.h"
#include "error.h"
#include "marks.h"

static int check(const larder_policy *policy, size_t value_size)
{
    static const uint64_t none[sizeof policy->reserved / sizeof policy->reserved[0]];
    const uint32_t known = LARDER_NEGATIVE | LARDER_LOCAL;
    if ((policy->flags & ~known) != 0 || policy->reserved0 != 0 ||
        memcmp(policy->reserved, none, sizeof none) != 0) {
        return error_set(LARDER_EINVAL, "unknown members or flags of larder_policy are not 0");
    }
    if (policy->stale_ms < 0 || policy->jitter_ms < 0 || policy->max_lifetime_ms < 0) {
        return error_set(LARDER_EINVAL, "a duration of larder_policy is negative");
    }
    if ((policy->flags & LARDER_NEGATIVE) != 0 && value_size != 0) {
        return error_set(LARDER_EINVAL, "a negative entry has no value, this one has %zu bytes",
                         value_size);
    }
    if (policy->tag_count > LARDER_TAGS_MAX) {
        return error_set(LARDER_EINVAL, "%zu tags: an entry has %u at most", policy->tag_count,
                         LARDER_TAGS_MAX);
    }
    if (policy->tag_count > 0 && policy->tags == NULL) {
        return error_set(LARDER_EINVAL, "%zu tags, but no pointer to them", policy->tag_count);
    }
    return LARDER_OK;
}

int policy_check_name(const char *what, larder_bytes name)
{
    if (name.data == NULL || name.size == 0) {
        return error_set(LARDER_EINVAL, "a %s of 0 bytes", what);
    }
    if (name.size > LARDER_NAME_MAX) {
        return error_set(LARDER_ETOOBIG, "a %s of %zu bytes: the limit is %u", what, name.size,
                         LARDER_NAME_MAX);
    }
    return LARDER_OK;
}

static void add_mark(struct policy_plan *plan, enum mark_kind kind, larder_bytes name)
{
    uint8_t *mark = plan->marks + (size_t)plan->mark_count * RECORD_MARK_SIZE;
    marks_make(mark, kind, name.data, name.size);
    for (const uint8_t *other = plan->marks; other < mark; other += RECORD_MARK_SIZE) {
        if (memcmp(other, mark, RECORD_MARK_SIZE) == 0) {
            return;
        }
    }
    plan->mark_count++;
}

static int add_marks(struct policy_plan *plan, const larder_policy *policy)
{
    int result = LARDER_OK;
    if (policy->group.size != 0) {
        result = policy_check_name("group", policy->group);
        if (result != LARDER_OK) {
            return result;
        }
        add_mark(plan, MARK_GROUP, policy->group);
    }
    for (size_t i = 0; i < policy->tag_count; i++) {
        result = policy_check_name("tag", policy->tags[i]);
        if (result != LARDER_OK) {
            return result;
        }
        add_mark(plan, MARK_TAG, policy->tags[i]);
    }
    return LARDER_OK;
}

int policy_resolve(const struct larder *handle, const larder_policy *policy, size_t value_size,
                   struct policy_plan *plan)
{
    static const larder_policy defaults;
    int result = LARDER_OK;
    plan->mark_count = 0;
    if (policy == NULL) {
        policy = &defaults;
    } else {
        result = check(policy, value_size);
        if (result == LARDER_OK) {
            result = add_marks(plan, policy);
        }
        if (result != LARDER_OK) {
            return result;
        }
    }
    bool local = ((policy->flags | handle->flags) & LARDER_LOCAL) != 0;
    plan->kind = (policy->flags & LARDER_NEGATIVE) != 0 ? RECORD_NEGATIVE : RECORD_VALUE;
    plan->flags = local ? RECORD_LOCAL : RECORD_DIRTY;
    /* the time is asked for only where it matters */
    bool timeless = policy->expiry.kind <= LARDER_EXPIRY_NEVER && policy->max_lifetime_ms == 0;
    return expiry_plan(policy, timeless ? 0 : clock_wall_ms(),
                       policy->jitter_ms != 0 ? expiry_random() : 0, &plan->times);
}

void policy_furnish(const struct policy_plan *plan, struct record *record)
{
    policy_set_times(record, &plan->times);
    record->header.mark_count = plan->mark_count;
    record->marks = plan->marks;
}
