/* lease.c: get or fill: Map.fetch(), and leases for those who wait in a loop of their own
 * (larder.Lease; the asyncio form is made of these).
 */
#include "binding.h"

#include <string.h>

/* ---- Options --------------------------------------------------------------------------------- */

static int take_option(larder_lease_options *options, PyObject *name, PyObject *value)
{
    if (arguments_is(name, "hold")) {
        return convert_duration(value, "hold", &options->hold_ms) == 0 ? 1 : -1;
    }
    if (arguments_is(name, "wait")) {
        int result = convert_duration(value, "wait", &options->wait_ms);
        if (result == 0 && value != Py_None && options->wait_ms == 0) {
            options->wait_ms = -1; /* in the library, 0 is the default */
        }
        return result == 0 ? 1 : -1;
    }
    if (arguments_is(name, "read_through")) {
        return convert_duration(value, "read_through", &options->read_through_ms) == 0 ? 1 : -1;
    }
    if (arguments_is(name, "early")) {
        uint64_t percent = 0;
        if (convert_size(value, "early", &percent) != 0) {
            return -1;
        }
        options->early_percent = percent > UINT32_MAX ? UINT32_MAX : (uint32_t)percent;
        return 1;
    }
    return 0;
}

/* ---- Fetch ----------------------------------------------------------------------------------- */

struct fetch {
    PyObject *fill, *result;
    PyThreadState *thread;
    struct policy *policy;
    struct policy own; /* what the fill named itself; as long as the value is needed */
    struct bytes_in value;
    PyObject *held, *held_policy;   /* what value and own borrow from */
    PyObject *type, *error, *trace; /* of the fill */
    bool has_own;
};

static PyObject *filled_type, *skip_type;

static PyObject *attribute(PyObject *object, const char *name)
{
    return PyObject_GetAttrString(object, name);
}

static PyObject *copy_of(PyObject *policy)
{
    if (!PyDict_Check(policy)) {
        PyErr_SetString(PyExc_TypeError, "policy of a Filled: a dict");
        return NULL;
    }
    return PyDict_Copy(policy);
}

/* What the fill returned: bytes, None (absent), a Filled or a Skip around bytes. */
static int take_result(struct fetch *fetch, larder_filled *filled)
{
    PyObject *result = fetch->result, *value = NULL, *named = NULL;
    int outcome = LARDER_OK;
    filled->policy = fetch->policy->policy;
    int is_filled = PyObject_IsInstance(result, filled_type);
    int is_skip = is_filled == 0 ? PyObject_IsInstance(result, skip_type) : 0;
    if (is_filled < 0 || is_skip < 0) {
        return -1;
    }
    if (is_filled || is_skip) {
        value = attribute(result, "value");
        named = value != NULL && is_filled ? attribute(result, "policy") : NULL;
        if (value == NULL || (is_filled && named == NULL)) {
            Py_XDECREF(value);
            return -1;
        }
        outcome = is_skip ? LARDER_SKIP : LARDER_OK;
        fetch->held = value; /* the Filled may be given others meanwhile */
        if (is_filled) {
            fetch->held_policy = copy_of(named);
            Py_DECREF(named);
            if (fetch->held_policy == NULL ||
                policy_take_dict(&fetch->own, fetch->held_policy, "Filled") != 0) {
                return -1;
            }
            fetch->has_own = true;
            filled->policy = fetch->own.policy;
        }
    } else {
        value = result;
    }
    if (value == Py_None && outcome == LARDER_OK) {
        return LARDER_ABSENT;
    }
    if (bytes_in_take(&fetch->value, value, "what the fill returned") != 0) {
        return -1;
    }
    filled->value = fetch->value.size == 0 ? "" : fetch->value.data;
    filled->value_size = fetch->value.size;
    return outcome;
}

/* Called without the GIL, in the thread that called Map.fetch(). */
static int fetch_fill(void *context, const void *key, size_t key_size, larder_filled *filled)
{
    (void)key;
    (void)key_size;
    struct fetch *fetch = context;
    PyEval_RestoreThread(fetch->thread);
    fetch->result = PyObject_CallNoArgs(fetch->fill);
    int outcome = fetch->result == NULL ? -1 : take_result(fetch, filled);
    if (outcome < 0) {
        PyErr_Fetch(&fetch->type, &fetch->error, &fetch->trace);
        outcome = LARDER_ESYSTEM; /* the caller is told by the exception itself */
    }
    fetch->thread = PyEval_SaveThread();
    return outcome;
}

static PyObject *fetch_run(map_object *map, const struct bytes_in *key, struct fetch *fetch,
                           const larder_lease_options *options)
{
    void *value = NULL;
    size_t size = 0;
    PyObject *out = NULL;
    larder *handle = map_enter(map);
    if (handle == NULL) {
        return NULL;
    }
    fetch->thread = PyEval_SaveThread();
    int result = larder_fetch_with(handle, key->data, key->size, fetch_fill, fetch, options, &value,
                                   &size, NULL);
    PyEval_RestoreThread(fetch->thread);
    /* What ends a program is not made good by an old value. */
    bool ends = fetch->type != NULL && !PyErr_GivenExceptionMatches(fetch->type, PyExc_Exception);
    if (!ends && (result == LARDER_OK || result == LARDER_STALE)) {
        out = PyBytes_FromStringAndSize(value, (Py_ssize_t)size);
    } else if (!ends && result == LARDER_ABSENT) {
        out = Py_NewRef(Py_None);
    } else if (fetch->type != NULL) {
        PyErr_Restore(fetch->type, fetch->error, fetch->trace);
        fetch->type = fetch->error = fetch->trace = NULL;
    } else {
        (void)errors_raise(result);
    }
    larder_free(value);
    map_leave(map);
    return out;
}

static int take_options(struct policy *policy, larder_lease_options *options,
                        const struct arguments *arguments, const char *function)
{
    policy_begin(policy);
    int taken = 1;
    for (Py_ssize_t i = 0; taken > 0 && i < arguments_named(arguments); i++) {
        PyObject *name = arguments_name(arguments, i), *value = arguments_value(arguments, i);
        taken = take_option(options, name, value);
        if (taken == 0) {
            taken = policy_take(policy, name, value);
        }
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

static PyObject *map_fetch(PyObject *self, PyObject *const *values, Py_ssize_t count,
                           PyObject *names)
{
    struct arguments arguments = {values, count, names};
    larder_lease_options options = {.hold_ms = 0};
    struct policy policy;
    struct bytes_in key;
    PyObject *out = NULL;
    if (!arguments_counted(&arguments, "fetch", 2, 2) ||
        take_options(&policy, &options, &arguments, "fetch") != 0) {
        return NULL;
    }
    if (bytes_in_take(&key, values[0], "key") == 0) {
        struct fetch fetch = {.fill = values[1], .policy = &policy};
        out = fetch_run((map_object *)self, &key, &fetch, &options);
        bytes_in_release(&fetch.value);
        if (fetch.has_own) {
            policy_release(&fetch.own);
        }
        Py_XDECREF(fetch.result);
        Py_XDECREF(fetch.held);
        Py_XDECREF(fetch.held_policy);
        Py_XDECREF(fetch.type);
        Py_XDECREF(fetch.error);
        Py_XDECREF(fetch.trace);
        bytes_in_release(&key);
    }
    policy_release(&policy);
    return out;
}

/* ---- Leases ---------------------------------------------------------------------------------- */

typedef struct lease_object {
    PyObject_HEAD map_object *map;
    PyObject *key; /* bytes */
    larder_lease lease;
    bool unused; /* ours to fill, and neither filled nor abandoned */
} lease_object;

static PyTypeObject *lease_type;

/* Whoever lets go of it will not fill: the others need not wait until hold is over. In a child of
 * fork() it is the parent's, which is an error that nobody looks at. */
static void lease_dealloc(PyObject *self)
{
    lease_object *lease = (lease_object *)self;
    if (lease->unused && lease->map->handle != NULL && !lease->map->closing) {
        (void)larder_lease_abandon(lease->map->handle, &lease->lease, 0);
    }
    Py_CLEAR(lease->map);
    Py_CLEAR(lease->key);
    module_free_object(self);
}

static PyObject *lease_new(map_object *map, const struct bytes_in *key, const larder_lease *from,
                           bool own)
{
    lease_object *lease = (lease_object *)module_new_object(lease_type);
    if (lease == NULL) {
        return NULL;
    }
    lease->lease = *from;
    lease->map = (map_object *)Py_NewRef((PyObject *)map);
    lease->key = PyBytes_FromStringAndSize(key->data, (Py_ssize_t)key->size);
    if (lease->key == NULL) {
        Py_CLEAR(lease);
        return NULL;
    }
    lease->unused = own;
    return (PyObject *)lease;
}

/* (outcome, Entry or None, Lease or None) */
static PyObject *acquired(map_object *map, const struct bytes_in *key, int result,
                          const larder_lease *lease, const void *value, size_t size,
                          const larder_info *info)
{
    PyObject *entry = NULL, *held = NULL, *bytes = NULL;
    if (value != NULL) {
        bytes = PyBytes_FromStringAndSize(value, (Py_ssize_t)size);
        if (bytes == NULL) {
            return NULL;
        }
    }
    entry = bytes != NULL || result == LARDER_ABSENT ? entry_new(result, bytes, info)
                                                     : Py_NewRef(Py_None);
    bool has = result == LARDER_FILL || result == LARDER_REFRESH || result == LARDER_WAIT;
    held = has ? lease_new(map, key, lease, result != LARDER_WAIT) : Py_NewRef(Py_None);
    if (entry == NULL || held == NULL) {
        Py_XDECREF(entry);
        Py_XDECREF(held);
        return NULL;
    }
    return Py_BuildValue("(iNN)", result, entry, held);
}

static PyObject *map_lease_acquire(PyObject *self, PyObject *const *values, Py_ssize_t count,
                                   PyObject *names)
{
    map_object *map = (map_object *)self;
    struct arguments arguments = {values, count, names};
    larder_lease_options options = {.hold_ms = 0};
    struct bytes_in key;
    void *value = NULL;
    size_t size = 0;
    PyObject *out = NULL;
    if (!arguments_counted(&arguments, "lease_acquire", 1, 1)) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < arguments_named(&arguments); i++) {
        PyObject *name = arguments_name(&arguments, i);
        int taken = take_option(&options, name, arguments_value(&arguments, i));
        if (taken <= 0) {
            (void)(taken < 0 ? 0 : arguments_unknown("lease_acquire", name));
            return NULL;
        }
    }
    if (bytes_in_take(&key, values[0], "key") != 0) {
        return NULL;
    }
    larder *handle = map_handle(map);
    if (handle != NULL) {
        larder_lease lease;
        larder_info info = {.size = 0};
        /* Never waits: keeps the GIL. */
        int result = larder_lease_acquire(handle, key.data, key.size, &options, &lease, &value,
                                          &size, &info);
        out = result < 0 ? errors_raise(result)
                         : acquired(map, &key, result, &lease, value, size, &info);
        if (out == NULL && (result == LARDER_FILL || result == LARDER_REFRESH)) {
            (void)larder_lease_abandon(handle, &lease, 0); /* nobody has it: others need not wait */
        }
        larder_free(value);
    }
    bytes_in_release(&key);
    return out;
}

static PyObject *lease_wait(PyObject *self, PyObject *arguments)
{
    lease_object *lease = (lease_object *)self;
    PyObject *timeout = Py_None;
    int64_t ms = 0;
    int result;
    if (!PyArg_ParseTuple(arguments, "|O:wait", &timeout) ||
        convert_duration(timeout, "timeout", &ms) != 0) {
        return NULL;
    }
    larder *handle = map_enter(lease->map);
    if (handle == NULL) {
        return NULL;
    }
    if (ms == 0) {
        result = larder_lease_wait(handle, &lease->lease, 0);
    } else {
        WITHOUT_GIL(result = larder_lease_wait(handle, &lease->lease, ms));
    }
    PyObject *out = result < 0 ? errors_raise(result) : PyLong_FromLong(result);
    map_leave(lease->map);
    return out;
}

static PyObject *lease_ended(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    lease_object *lease = (lease_object *)self;
    larder *handle = map_handle(lease->map);
    if (handle == NULL) {
        return NULL;
    }
    int result = larder_lease_wait(handle, &lease->lease, 0);
    return result < 0 ? errors_raise(result) : convert_outcome(result);
}

static PyObject *lease_fill(PyObject *self, PyObject *const *values, Py_ssize_t count,
                            PyObject *names)
{
    lease_object *lease = (lease_object *)self;
    struct arguments arguments = {values, count, names};
    struct policy policy;
    struct bytes_in value;
    PyObject *out = NULL;
    if (!arguments_counted(&arguments, "fill", 1, 1) ||
        policy_take_all(&policy, &arguments, "fill") != 0) {
        return NULL;
    }
    memset(&value, 0, sizeof value);
    if (values[0] == Py_None) {
        policy.policy.flags |= LARDER_NEGATIVE;
    } else if (bytes_in_take(&value, values[0], "value") != 0) {
        policy_release(&policy);
        return NULL;
    }
    larder *handle = map_enter(lease->map);
    if (handle != NULL) {
        char *key = NULL;
        Py_ssize_t size = 0;
        int result = LARDER_EINVAL;
        if (PyBytes_AsStringAndSize(lease->key, &key, &size) == 0) {
            WITHOUT_GIL(result = larder_lease_fill(handle, &lease->lease, key, (size_t)size,
                                                   value.data, value.size, &policy.policy));
            lease->unused = lease->unused && result < 0;
            out = result < 0 ? errors_raise(result) : PyBool_FromLong(result == LARDER_OK);
        }
        map_leave(lease->map);
    }
    bytes_in_release(&value);
    policy_release(&policy);
    return out;
}

static PyObject *lease_renew(PyObject *self, PyObject *arguments)
{
    lease_object *lease = (lease_object *)self;
    PyObject *hold = Py_None;
    int64_t ms = 0;
    if (!PyArg_ParseTuple(arguments, "|O:renew", &hold) ||
        convert_duration(hold, "hold", &ms) != 0) {
        return NULL;
    }
    larder *handle = map_handle(lease->map);
    if (handle == NULL) {
        return NULL;
    }
    int result = larder_lease_renew(handle, &lease->lease, ms);
    return result < 0 ? errors_raise(result) : PyBool_FromLong(result == LARDER_OK);
}

static PyObject *lease_abandon(PyObject *self, PyObject *arguments)
{
    lease_object *lease = (lease_object *)self;
    int skip = 0;
    if (!PyArg_ParseTuple(arguments, "|p:abandon", &skip)) {
        return NULL;
    }
    larder *handle = map_handle(lease->map);
    if (handle == NULL) {
        return NULL;
    }
    int result = larder_lease_abandon(handle, &lease->lease, skip ? LARDER_SKIP : 0);
    lease->unused = lease->unused && result < 0;
    return result < 0 ? errors_raise(result) : PyBool_FromLong(result == LARDER_OK);
}

PyMethodDef map_lease_methods[] = {
    METHOD("fetch", map_fetch, METHOD_FAST,
           "fetch(key, fill, *, hold=10, wait=10, early=0, read_through=0, **policy) -> bytes\n\n"
           "The value, or what fill() returns, stored: of all callers of the host that miss at "
           "once one calls its fill, the others wait for it. fill() returns bytes, None (the "
           "origin has none: stored as a negative entry, and None is returned), Filled(value, "
           "**policy) or Skip(value) (not for the cache). Where it raises, a stale value is "
           "returned if there is one, else the exception passes."),
    METHOD("lease_acquire", map_lease_acquire, METHOD_FAST,
           "lease_acquire(key, *, hold=10, early=0) -> (outcome, Entry, Lease)\n\nRead a key, and "
           "where it is missing, stale or due take the right to fill it. Never waits. Outcomes: "
           "OK, ABSENT, STALE (another renews it), REFRESH and FILL (the lease is yours), WAIT."),
    {NULL, NULL, 0, NULL},
};

/* ---- Types ----------------------------------------------------------------------------------- */

static PyMethodDef lease_methods[] = {
    METHOD("wait", lease_wait, METH_VARARGS,
           "wait(timeout=0) -> int\n\nWhether the lease has ended: OK (acquire again), SKIP (get "
           "it yourself) or WAIT (not yet)."),
    METHOD(
        "ended", lease_ended, METH_NOARGS,
        "ended() -> int or None\n\nwait() without waiting, None for WAIT: what a loop asks at each "
        "message of notify_fd()."),
    METHOD("fill", lease_fill, METHOD_FAST,
           "fill(value, **policy) -> bool\n\nStore the value (None: a negative entry) and end the "
           "lease. False: a newer write or an invalidation stands there."),
    METHOD("renew", lease_renew, METH_VARARGS,
           "renew(hold=10) -> bool\n\nHold it so many seconds from now. False: it was lost."),
    METHOD("abandon", lease_abandon, METH_VARARGS,
           "abandon(skip=False) -> bool\n\nEnd it without a value; one who waits tries next, with "
           "skip all at once."),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lease_slots[] = {
    {Py_tp_doc,
     PyDoc_STR("A lease of Map.lease_acquire(). Ends with its process, and where it is let go of "
               "unused: the next one may fill.")},
    {Py_tp_dealloc, lease_dealloc},
    {Py_tp_methods, lease_methods},
    {0, NULL},
};

static PyType_Spec lease_spec = {
    .name = "larder.Lease",
    .basicsize = sizeof(lease_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = lease_slots,
};

/* What a fill returns is made in Python: larder._fill is read when the module is made. */
int lease_add(PyObject *module)
{
    PyObject *python = PyImport_ImportModule("larder._fill");
    if (python == NULL) {
        return -1;
    }
    filled_type = PyObject_GetAttrString(python, "Filled");
    skip_type = PyObject_GetAttrString(python, "Skip");
    Py_DECREF(python);
    if (filled_type == NULL || skip_type == NULL) {
        return -1;
    }
    lease_type = module_add_type(module, &lease_spec);
    return lease_type == NULL ? -1 : 0;
}
