/* map_write.c: Map's writes of one key, and what invalidates many. All give up the GIL: a write may
 * wait for the gate.
 */
#include "binding.h"

#include <string.h>

/* ---- A write with a value and a policy ------------------------------------------------------- */

enum kind { SET, ADD, REPLACE, CAS };

struct write {
    enum kind kind;
    const char *name;
    struct bytes_in key, value;
    larder_version version;
    struct policy policy;
};

static int run(larder *handle, struct write *write)
{
    const struct bytes_in *key = &write->key, *value = &write->value;
    const larder_policy *policy = &write->policy.policy;
    switch (write->kind) {
    case SET:
        return larder_set(handle, key->data, key->size, value->data, value->size, policy);
    case ADD:
        return larder_add(handle, key->data, key->size, value->data, value->size, policy);
    case REPLACE:
        return larder_replace(handle, key->data, key->size, value->data, value->size, policy);
    case CAS:
    default:
        return larder_cas(handle, key->data, key->size, value->data, value->size, &write->version,
                          policy);
    }
}

static PyObject *write_run(map_object *map, struct write *write)
{
    int result = LARDER_EINVAL;
    larder *handle = map_enter(map);
    if (handle != NULL) {
        WITHOUT_GIL(result = run(handle, write));
        if (result < 0) {
            (void)errors_raise(result);
        }
        map_leave(map);
    }
    return PyErr_Occurred() ? NULL : PyBool_FromLong(result == LARDER_OK);
}

static PyObject *write_call(PyObject *self, enum kind kind, const char *name,
                            const struct arguments *arguments)
{
    Py_ssize_t count = kind == CAS ? 3 : 2;
    struct write write = {.kind = kind, .name = name};
    PyObject *result = NULL;
    if (!arguments_counted(arguments, name, count, count) ||
        (kind == CAS && version_take(arguments->values[2], &write.version) != 0) ||
        policy_take_all(&write.policy, arguments, name) != 0) {
        return NULL;
    }
    PyObject *value = arguments->values[1];
    bool empty = value == Py_None && (write.policy.policy.flags & LARDER_NEGATIVE) != 0;
    if (bytes_in_take(&write.key, arguments->values[0], "key") == 0) {
        if (empty || bytes_in_take(&write.value, value, "value") == 0) {
            result = write_run((map_object *)self, &write);
            bytes_in_release(&write.value);
        }
        bytes_in_release(&write.key);
    }
    policy_release(&write.policy);
    return result;
}

static PyObject *map_set(PyObject *self, PyObject *const *values, Py_ssize_t count, PyObject *names)
{
    struct arguments arguments = {values, count, names};
    PyObject *done = write_call(self, SET, "set", &arguments);
    Py_XDECREF(done);
    return done == NULL ? NULL : Py_NewRef(Py_None);
}

static PyObject *map_add_key(PyObject *self, PyObject *const *values, Py_ssize_t count,
                             PyObject *names)
{
    struct arguments arguments = {values, count, names};
    return write_call(self, ADD, "add", &arguments);
}

static PyObject *map_replace(PyObject *self, PyObject *const *values, Py_ssize_t count,
                             PyObject *names)
{
    struct arguments arguments = {values, count, names};
    return write_call(self, REPLACE, "replace", &arguments);
}

static PyObject *map_cas(PyObject *self, PyObject *const *values, Py_ssize_t count, PyObject *names)
{
    struct arguments arguments = {values, count, names};
    return write_call(self, CAS, "cas", &arguments);
}

/* ---- Other writes of a key ------------------------------------------------------------------- */

static PyObject *map_delete(PyObject *self, PyObject *object)
{
    map_object *map = (map_object *)self;
    struct bytes_in key;
    int result = LARDER_EINVAL;
    if (bytes_in_take(&key, object, "key") != 0) {
        return NULL;
    }
    larder *handle = map_enter(map);
    if (handle != NULL) {
        WITHOUT_GIL(result = larder_delete(handle, key.data, key.size));
        if (result < 0) {
            (void)errors_raise(result);
        }
        map_leave(map);
    }
    bytes_in_release(&key);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(result == LARDER_OK);
}

static PyObject *map_touch(PyObject *self, PyObject *const *values, Py_ssize_t count,
                           PyObject *names)
{
    map_object *map = (map_object *)self;
    struct arguments arguments = {values, count, names};
    larder_expiry expiry;
    struct bytes_in key;
    int result = LARDER_EINVAL;
    if (!arguments_counted(&arguments, "touch", 1, 1) ||
        policy_take_expiry(&expiry, &arguments, "touch") != 0 ||
        bytes_in_take(&key, values[0], "key") != 0) {
        return NULL;
    }
    larder *handle = map_enter(map);
    if (handle != NULL) {
        WITHOUT_GIL(result = larder_touch(handle, key.data, key.size, &expiry));
        if (result < 0) {
            (void)errors_raise(result);
        }
        map_leave(map);
    }
    bytes_in_release(&key);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(result == LARDER_OK);
}

static PyObject *incr_run(map_object *map, const struct bytes_in *key, int64_t delta,
                          const larder_policy *policy)
{
    int64_t sum = 0;
    larder *handle = map_enter(map);
    if (handle != NULL) {
        int result;
        WITHOUT_GIL(result = larder_incr(handle, key->data, key->size, delta, &sum, policy));
        if (result < 0) {
            (void)errors_raise(result);
        }
        map_leave(map);
    }
    return PyErr_Occurred() ? NULL : PyLong_FromLongLong(sum);
}

static PyObject *map_incr(PyObject *self, PyObject *const *values, Py_ssize_t count,
                          PyObject *names)
{
    struct arguments arguments = {values, count, names};
    struct policy policy;
    struct bytes_in key;
    long long delta = 1;
    PyObject *result = NULL;
    if (!arguments_counted(&arguments, "incr", 1, 2)) {
        return NULL;
    }
    if (count == 2) {
        delta = PyLong_AsLongLong(values[1]);
        if (delta == -1 && PyErr_Occurred()) {
            return NULL;
        }
    }
    if (policy_take_all(&policy, &arguments, "incr") != 0) {
        return NULL;
    }
    if (bytes_in_take(&key, values[0], "key") == 0) {
        result = incr_run((map_object *)self, &key, delta, &policy.policy);
        bytes_in_release(&key);
    }
    policy_release(&policy);
    return result;
}

/* ---- Invalidating many ----------------------------------------------------------------------- */

typedef int invalidate(larder *handle, larder_bytes name, uint64_t *count);

static PyObject *invalidate_run(map_object *map, PyObject *object, const char *what,
                                invalidate *call, bool counted)
{
    struct bytes_in name;
    uint64_t count = 0;
    if (bytes_in_take(&name, object, what) != 0) {
        return NULL;
    }
    larder *handle = map_enter(map);
    if (handle != NULL) {
        int result;
        WITHOUT_GIL(
            result = call(handle, (larder_bytes){name.data, name.size}, counted ? &count : NULL));
        if (result < 0) {
            (void)errors_raise(result);
        }
        map_leave(map);
    }
    bytes_in_release(&name);
    if (PyErr_Occurred()) {
        return NULL;
    }
    return counted ? PyLong_FromUnsignedLongLong(count) : Py_NewRef(Py_None);
}

static PyObject *by_mark(PyObject *self, PyObject *arguments, PyObject *named, const char *format,
                         invalidate *call)
{
    static char *names[] = {"name", "count", NULL};
    PyObject *name = NULL;
    int counted = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, named, format, names, &name, &counted)) {
        return NULL;
    }
    return invalidate_run((map_object *)self, name, "name", call, counted != 0);
}

static PyObject *map_invalidate_group(PyObject *self, PyObject *arguments, PyObject *named)
{
    return by_mark(self, arguments, named, "O|$p:invalidate_group", larder_invalidate_group);
}

static PyObject *map_invalidate_tag(PyObject *self, PyObject *arguments, PyObject *named)
{
    return by_mark(self, arguments, named, "O|$p:invalidate_tag", larder_invalidate_tag);
}

static PyObject *map_invalidate_prefix(PyObject *self, PyObject *prefix)
{
    return invalidate_run((map_object *)self, prefix, "prefix", larder_invalidate_prefix, true);
}

static PyObject *map_invalidate_match(PyObject *self, PyObject *glob)
{
    return invalidate_run((map_object *)self, glob, "glob", larder_invalidate_match, true);
}

static PyObject *map_clear(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    map_object *map = (map_object *)self;
    larder *handle = map_enter(map);
    if (handle == NULL) {
        return NULL;
    }
    int result;
    WITHOUT_GIL(result = larder_clear(handle));
    if (result < 0) {
        (void)errors_raise(result);
    }
    map_leave(map);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

#define POLICY_DOC                                                                                 \
    "\n\nttl: seconds, 0 or None for ever; at: a datetime or seconds since the epoch; every "      \
    "(and offset): the next multiple of so many seconds on the wall clock; sliding: seconds "      \
    "after the last read. stale, jitter, max_lifetime: seconds. group, tags: what it belongs to. " \
    "local: does not travel."

PyMethodDef map_write_methods[] = {
    METHOD("set", map_set, METHOD_FAST,
           "set(key, value, *, ttl=None, at=None, every=None, offset=None, sliding=None, stale=0,\n"
           "    jitter=0, max_lifetime=0, group=None, tags=(), negative=False, local=False)\n\n"
           "Store a value (bytes, or str as UTF-8). Once it has returned every process sees it. "
           "Where it raises, the key reads as a miss: never the old value." POLICY_DOC),
    METHOD("add", map_add_key, METHOD_FAST,
           "add(key, value, **policy) -> bool\n\nStore it if the key is not there." POLICY_DOC),
    METHOD("replace", map_replace, METHOD_FAST,
           "replace(key, value, **policy) -> bool\n\nStore it if the key is there." POLICY_DOC),
    METHOD("cas", map_cas, METHOD_FAST,
           "cas(key, value, version, **policy) -> bool\n\nStore it if the key has this version "
           "still (Entry.version)." POLICY_DOC),
    METHOD("touch", map_touch, METHOD_FAST,
           "touch(key, *, ttl=None, at=None, every=None, offset=None, sliding=None) -> bool\n\n"
           "Give a key another expiry; whether it was there."),
    METHOD("incr", map_incr, METHOD_FAST,
           "incr(key, delta=1, **policy) -> int\n\nAdd to a decimal integer, atomically on this "
           "host; a missing key counts from 0. Without an expiry an entry keeps its own."),
    METHOD("delete", map_delete, METH_O,
           "delete(key) -> bool\n\nWhether it was there. Never refused for a busy gate."),
    METHOD("invalidate_group", map_invalidate_group, METH_VARARGS | METH_KEYWORDS,
           "invalidate_group(name, *, count=False)\n\nKill all that was stored with this group, "
           "in O(1) and never refused. count=True walks the map and returns how many lived."),
    METHOD("invalidate_tag", map_invalidate_tag, METH_VARARGS | METH_KEYWORDS,
           "invalidate_tag(name, *, count=False)\n\nThe same for a tag."),
    METHOD("invalidate_prefix", map_invalidate_prefix, METH_O,
           "invalidate_prefix(prefix) -> int\n\nDelete every key that begins so; how many."),
    METHOD("invalidate_match", map_invalidate_match, METH_O,
           "invalidate_match(glob) -> int\n\nDelete every key that matches: * ? [a-z] [!a-z] \\X."),
    METHOD("clear", map_clear, METH_NOARGS, "clear()\n\nKill everything, in O(1)."),
    {NULL, NULL, 0, NULL},
};
