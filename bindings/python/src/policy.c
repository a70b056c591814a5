/* policy.c: the keyword arguments that say how long an entry lives and what it belongs to.
 *
 *   ttl, at, every (with offset), sliding   at most one of these
 *   stale, jitter, max_lifetime             durations
 *   group, tags, negative, local
 */
#include "binding.h"

#include <stddef.h>
#include <string.h>

static int take_expiry(larder_expiry *expiry, unsigned *kinds, PyObject *name, PyObject *value)
{
    int64_t ms = 0;
    if (arguments_is(name, "ttl")) {
        if (convert_duration(value, "ttl", &ms) != 0) {
            return -1;
        }
        if (value == Py_None) {
            return 1;
        }
        *expiry = ms == 0 ? larder_expire_never() : larder_expire_in(ms);
    } else if (arguments_is(name, "at")) {
        if (value == Py_None) {
            return 1;
        }
        if (convert_instant(value, "at", &ms) != 0) {
            return -1;
        }
        *expiry = larder_expire_at(ms);
    } else if (arguments_is(name, "every")) {
        if (value == Py_None) {
            return 1;
        }
        if (convert_duration(value, "every", &ms) != 0) {
            return -1;
        }
        *expiry = larder_expire_aligned(ms, expiry->offset_ms);
    } else if (arguments_is(name, "sliding")) {
        if (value == Py_None) {
            return 1;
        }
        if (convert_duration(value, "sliding", &ms) != 0) {
            return -1;
        }
        *expiry = larder_expire_sliding(ms);
    } else {
        return 0;
    }
    (*kinds)++;
    return 1;
}

/* The offset may be named before the period. */
static int finish_expiry(larder_expiry *expiry, unsigned kinds, PyObject *offset)
{
    if (kinds > 1) {
        PyErr_SetString(PyExc_ValueError, "ttl, at, every and sliding exclude each other");
        return -1;
    }
    if (offset != NULL && offset != Py_None) {
        if (expiry->kind != LARDER_EXPIRY_ALIGNED) {
            PyErr_SetString(PyExc_ValueError, "offset is for every");
            return -1;
        }
        return convert_signed_duration(offset, "offset", &expiry->offset_ms);
    }
    return 0;
}

/* ---- Marks ----------------------------------------------------------------------------------- */

static int take_group(struct policy *policy, PyObject *value)
{
    if (value == Py_None) {
        return 1;
    }
    bytes_in_release(&policy->group);
    if (bytes_in_take(&policy->group, value, "group") != 0) {
        return -1;
    }
    if (policy->group.size == 0) {
        PyErr_SetString(PyExc_ValueError, "group: an empty name");
        return -1;
    }
    policy->policy.group = (larder_bytes){policy->group.data, policy->group.size};
    return 1;
}

static int take_tags(struct policy *policy, PyObject *value)
{
    if (value == Py_None) {
        return 1;
    }
    if (PyUnicode_Check(value) || PyBytes_Check(value) || policy->held != NULL) {
        PyErr_SetString(PyExc_TypeError, "tags: a sequence of names, not one name");
        return -1;
    }
    policy->held = PySequence_Tuple(value);
    Py_ssize_t count = policy->held == NULL ? -1 : PyTuple_Size(policy->held);
    if (count < 0) {
        return -1;
    }
    if (count > (Py_ssize_t)LARDER_TAGS_MAX) {
        PyErr_Format(PyExc_ValueError, "tags: %zd of them: the limit is %u", count,
                     LARDER_TAGS_MAX);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        struct bytes_in *tag = &policy->tags[i];
        if (bytes_in_take(tag, PyTuple_GetItem(policy->held, i), "tags") != 0) {
            return -1;
        }
        policy->taken++;
        policy->names[i] = (larder_bytes){tag->data, tag->size};
    }
    policy->policy.tags = policy->names;
    policy->policy.tag_count = (size_t)count;
    return 1;
}

static int take_flag(struct policy *policy, PyObject *value, uint32_t flag)
{
    int set = PyObject_IsTrue(value);
    if (set < 0) {
        return -1;
    }
    if (set > 0) {
        policy->policy.flags |= flag;
    }
    return 1;
}

/* ---- All of it ------------------------------------------------------------------------------- */

void policy_begin(struct policy *policy)
{
    memset(policy, 0, offsetof(struct policy, tags));
}

int policy_take(struct policy *policy, PyObject *name, PyObject *value)
{
    larder_policy *out = &policy->policy;
    int taken = take_expiry(&out->expiry, &policy->expiries, name, value);
    if (taken != 0) {
        return taken;
    }
    if (arguments_is(name, "group")) {
        return take_group(policy, value);
    }
    if (arguments_is(name, "tags")) {
        return take_tags(policy, value);
    }
    if (arguments_is(name, "stale")) {
        return convert_duration(value, "stale", &out->stale_ms) == 0 ? 1 : -1;
    }
    if (arguments_is(name, "jitter")) {
        return convert_duration(value, "jitter", &out->jitter_ms) == 0 ? 1 : -1;
    }
    if (arguments_is(name, "max_lifetime")) {
        return convert_duration(value, "max_lifetime", &out->max_lifetime_ms) == 0 ? 1 : -1;
    }
    if (arguments_is(name, "offset")) {
        policy->offset = value;
        return 1;
    }
    if (arguments_is(name, "negative")) {
        return take_flag(policy, value, LARDER_NEGATIVE);
    }
    return arguments_is(name, "local") ? take_flag(policy, value, LARDER_LOCAL) : 0;
}

int policy_finish(struct policy *policy)
{
    return finish_expiry(&policy->policy.expiry, policy->expiries, policy->offset);
}

void policy_release(struct policy *policy)
{
    bytes_in_release(&policy->group);
    while (policy->taken > 0) {
        bytes_in_release(&policy->tags[--policy->taken]);
    }
    Py_CLEAR(policy->held);
}

int policy_take_all(struct policy *policy, const struct arguments *arguments, const char *function)
{
    policy_begin(policy);
    Py_ssize_t count = arguments_named(arguments);
    int taken = 1;
    for (Py_ssize_t i = 0; i < count && taken > 0; i++) {
        PyObject *name = arguments_name(arguments, i);
        taken = policy_take(policy, name, arguments_value(arguments, i));
        if (taken == 0) {
            taken = arguments_unknown(function, name);
        }
    }
    if (taken < 0 || policy_finish(policy) != 0) {
        policy_release(policy);
        return -1;
    }
    return 0;
}

int policy_take_dict(struct policy *policy, PyObject *dict, const char *function)
{
    policy_begin(policy);
    PyObject *name = NULL, *value = NULL;
    Py_ssize_t place = 0;
    int taken = 1;
    while (taken > 0 && dict != NULL && PyDict_Next(dict, &place, &name, &value)) {
        if (!PyUnicode_Check(name)) { /* a caller's dict: no call has looked at its names */
            PyErr_Format(PyExc_TypeError, "%s() has no argument %R: names are str", function, name);
            taken = -1;
            break;
        }
        taken = policy_take(policy, name, value);
        if (taken == 0) {
            taken = arguments_unknown(function, name);
        }
    }
    if (taken < 0 || policy_finish(policy) != 0) {
        policy_release(policy);
        return -1;
    }
    return 0;
}

int policy_take_expiry(larder_expiry *expiry, const struct arguments *arguments,
                       const char *function)
{
    memset(expiry, 0, sizeof *expiry);
    unsigned kinds = 0;
    PyObject *offset = NULL;
    Py_ssize_t count = arguments_named(arguments);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = arguments_name(arguments, i), *value = arguments_value(arguments, i);
        int taken = take_expiry(expiry, &kinds, name, value);
        if (taken == 0 && arguments_is(name, "offset")) {
            offset = value;
            taken = 1;
        }
        if (taken <= 0) {
            return taken < 0 ? -1 : arguments_unknown(function, name);
        }
    }
    return finish_expiry(expiry, kinds, offset);
}
