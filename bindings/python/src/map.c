/* map.c: larder.Map: opening, closing, and reading. Writes are in map_write.c, calls for many keys
 * in map_many.c.
 *
 * A read never waits, so it keeps the GIL; what can wait (writes, read-through, large copies) gives
 * it up. While a call is inside without the GIL, close() only marks the map: the last call that
 * leaves closes it.
 */
#include "binding.h"

#include <stddef.h>
#include <string.h>
#include <structmember.h>

enum {
    SMALL = 4096,             /* a value up to so many bytes is copied over the stack */
    KEEP_GIL_BYTES = 1 << 18, /* larger ones are copied without the GIL */
    RESIZED_MAX = 8           /* how often a value may grow between asking its size and reading */
};

PyTypeObject *map_type;

/* ---- The handle ------------------------------------------------------------------------------ */

larder *map_handle(map_object *map)
{
    if (map->handle == NULL || map->closing) {
        errors_closed();
        return NULL;
    }
    return map->handle;
}

larder *map_enter(map_object *map)
{
    larder *handle = map_handle(map);
    if (handle != NULL) {
        map->users++;
        Py_INCREF((PyObject *)map);
    }
    return handle;
}

static void close_if_unused(map_object *map)
{
    if (map->users == 0 && map->closing && map->handle != NULL) {
        larder *handle = map->handle;
        map->handle = NULL;
        larder_close(&handle);
    }
}

void map_leave(map_object *map)
{
    map->users--;
    close_if_unused(map);
    Py_DECREF((PyObject *)map);
}

/* ---- Open and close -------------------------------------------------------------------------- */

static int map_init(PyObject *self, PyObject *arguments, PyObject *named)
{
    static char *names[] = {"name",      "dir",         "map_size",   "hot_size", "hot_set",
                            "max_value", "max_entries", "write_wait", "attach",   "read_only",
                            "protect",   "local",       "verify",     "mode",     NULL};
    map_object *map = (map_object *)self;
    larder_options options = {.flags = 0};
    const char *name = NULL;
    PyObject *dir = Py_None, *size[4] = {NULL}, *wait = Py_None, *path = NULL;
    int hot_set = 1, attach = 0, read_only = 0, protect = 0, local = 0, verify = 0;
    unsigned int mode = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "s|$OOOpOOOpppppI:Map", names, &name, &dir,
                                     &size[0], &size[1], &hot_set, &size[2], &size[3], &wait,
                                     &attach, &read_only, &protect, &local, &verify, &mode)) {
        return -1;
    }
    if (map->handle != NULL) {
        PyErr_SetString(PyExc_ValueError, "the map is open already");
        return -1;
    }
    struct {
        const char *name;
        uint64_t *to;
    } sizes[4] = {{"map_size", &options.map_size},
                  {"hot_size", &options.hot_size},
                  {"max_value", &options.max_value},
                  {"max_entries", &options.max_entries}};
    for (size_t i = 0; i < 4; i++) {
        if (size[i] != NULL && convert_size(size[i], sizes[i].name, sizes[i].to) != 0) {
            return -1;
        }
    }
    if (!hot_set) {
        options.hot_size = LARDER_NO_HOT_SET;
    }
    if (convert_duration(wait, "write_wait", &options.write_wait_ms) != 0) {
        return -1;
    }
    options.flags = (attach ? (uint32_t)LARDER_ATTACH : 0) |
                    (read_only ? (uint32_t)LARDER_READ_ONLY : 0) |
                    (protect ? (uint32_t)LARDER_PROTECT : 0) |
                    (local ? (uint32_t)LARDER_LOCAL : 0) | (verify ? (uint32_t)LARDER_VERIFY : 0);
    options.mode = mode;
    if (dir != Py_None) {
        if (!PyUnicode_FSConverter(dir, &path)) {
            return -1;
        }
        options.dir = PyBytes_AsString(path);
    }
    larder *handle = NULL;
    int result;
    WITHOUT_GIL(result = larder_open(name, &options, &handle));
    Py_XDECREF(path);
    if (result != LARDER_OK) {
        (void)errors_raise(result);
        return -1;
    }
    map->handle = handle;
    map->closing = false;
    return 0;
}

static PyObject *map_close(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    map_object *map = (map_object *)self;
    map->closing = true;
    close_if_unused(map);
    Py_RETURN_NONE;
}

static void map_dealloc(PyObject *self)
{
    map_object *map = (map_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(map->watch);
    if (map->handle != NULL) {
        larder_close(&map->handle);
    }
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static int map_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((map_object *)self)->watch);
    return 0;
}

static int map_clear(PyObject *self)
{
    Py_CLEAR(((map_object *)self)->watch);
    return 0;
}

static PyObject *map_closed(PyObject *self, void *closure)
{
    (void)closure;
    const map_object *map = (const map_object *)self;
    return PyBool_FromLong(map->handle == NULL || map->closing);
}

/* ---- Reading --------------------------------------------------------------------------------- */

static int get_into(larder *handle, const struct bytes_in *key, PyObject *value, larder_info *info)
{
    char *data = PyBytes_AsString(value);
    uint64_t size = info->size;
    int result;
    if (size <= KEEP_GIL_BYTES) {
        return larder_get(handle, key->data, key->size, data, size, info);
    }
    WITHOUT_GIL(result = larder_get(handle, key->data, key->size, data, size, info));
    return result;
}

/* A value larger than what the stack takes; *value is NULL unless the outcome is LARDER_OK, and an
 * exception may be set. */
static int get_large(larder *handle, const struct bytes_in *key, larder_info *info,
                     PyObject **value)
{
    for (unsigned i = 0; i < RESIZED_MAX; i++) {
        uint64_t size = info->size;
        *value = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
        if (*value == NULL) {
            return LARDER_ENOMEM;
        }
        int result = get_into(handle, key, *value, info);
        if (result == LARDER_OK && info->size == size) {
            return result;
        }
        Py_CLEAR(*value);
        if (result != LARDER_OK && result != LARDER_ESIZE) {
            return result;
        }
    }
    return LARDER_MISS; /* rewritten with another size each time: nothing to be had */
}

/* The same for any size. */
static int get_any(larder *handle, const struct bytes_in *key, larder_info *info, PyObject **value)
{
    char small[SMALL];
    *value = NULL;
    int result = larder_get(handle, key->data, key->size, small, sizeof small, info);
    if (result == LARDER_OK) {
        *value = PyBytes_FromStringAndSize(small, (Py_ssize_t)info->size);
        return *value == NULL ? LARDER_ENOMEM : LARDER_OK;
    }
    return result == LARDER_ESIZE ? get_large(handle, key, info, value) : result;
}

int map_read(map_object *map, const struct bytes_in *key, PyObject **value)
{
    larder_info info;
    *value = NULL;
    larder *handle = map_enter(map); /* a large copy gives the GIL up */
    if (handle == NULL) {
        return LARDER_EINVAL;
    }
    int result = get_any(handle, key, &info, value);
    if (result == LARDER_OK && *value == NULL) {
        result = LARDER_ENOMEM; /* Python's, whose exception is set */
    }
    if (result < 0 && !PyErr_Occurred()) {
        (void)errors_raise(result);
    }
    map_leave(map);
    return result;
}

static PyObject *map_get(PyObject *self, PyObject *const *values, Py_ssize_t count, PyObject *names)
{
    map_object *map = (map_object *)self;
    struct arguments arguments = {values, count, names};
    PyObject *missing = count == 2 ? values[1] : Py_None, *value = NULL;
    struct bytes_in key;
    if (!arguments_counted(&arguments, "get", 1, 2)) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < arguments_named(&arguments); i++) {
        if (count == 2 || !arguments_is(arguments_name(&arguments, i), "default")) {
            (void)arguments_unknown("get", arguments_name(&arguments, i));
            return NULL;
        }
        missing = arguments_value(&arguments, i);
    }
    if (bytes_in_take(&key, values[0], "key") != 0) {
        return NULL;
    }
    int result = map_read(map, &key, &value);
    bytes_in_release(&key);
    return result < 0 || result == LARDER_OK ? value : Py_NewRef(missing);
}

static int take_lookup(larder_read *read, PyObject *name, PyObject *value)
{
    int set;
    int64_t ms = 0;
    if (arguments_is(name, "extend")) {
        if (value == Py_None || value == Py_False) {
            return 0;
        }
        read->flags |= LARDER_EXTEND;
        if (value != Py_True) { /* else: its own sliding period */
            if (convert_duration(value, "extend", &ms) != 0) {
                return -1;
            }
            read->extend = ms == 0 ? larder_expire_never() : larder_expire_in(ms);
        }
        return 0;
    }
    if (arguments_is(name, "read_through")) {
        return convert_duration(value, "read_through", &read->read_through_ms);
    }
    uint32_t flag = arguments_is(name, "stale")  ? (uint32_t)LARDER_ACCEPT_STALE
                    : arguments_is(name, "peek") ? (uint32_t)LARDER_PEEK
                                                 : 0;
    if (flag == 0) {
        return arguments_unknown("lookup", name);
    }
    set = PyObject_IsTrue(value);
    read->flags |= set > 0 ? flag : 0;
    return set < 0 ? -1 : 0;
}

/* With the options of larder_get_with(): first into the stack, then into memory of its size. */
static int look(larder *handle, const struct bytes_in *key, const larder_read *read,
                larder_info *info, PyObject **value)
{
    char small[SMALL];
    larder_read again = *read;
    int result;
    bool waits = read->read_through_ms > 0 || (read->flags & LARDER_EXTEND) != 0;
    if (waits) {
        WITHOUT_GIL(result = larder_get_with(handle, key->data, key->size, small, sizeof small,
                                             info, read));
    } else {
        result = larder_get_with(handle, key->data, key->size, small, sizeof small, info, read);
    }
    if (result == LARDER_OK || result == LARDER_STALE) {
        *value = PyBytes_FromStringAndSize(small, (Py_ssize_t)info->size);
        return *value == NULL ? LARDER_ENOMEM : result;
    }
    again.read_through_ms = 0;
    for (unsigned i = 0; result == LARDER_ESIZE && i < RESIZED_MAX; i++) {
        uint64_t size = info->size;
        *value = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
        if (*value == NULL) {
            return LARDER_ENOMEM;
        }
        char *data = PyBytes_AsString(*value);
        WITHOUT_GIL(result =
                        larder_get_with(handle, key->data, key->size, data, size, info, &again));
        if ((result == LARDER_OK || result == LARDER_STALE) && info->size == size) {
            return result;
        }
        Py_CLEAR(*value);
        if (result == LARDER_OK || result == LARDER_STALE) {
            result = LARDER_ESIZE; /* shorter by now: once more */
        }
    }
    return result == LARDER_ESIZE ? LARDER_MISS : result;
}

static PyObject *map_lookup(PyObject *self, PyObject *const *values, Py_ssize_t count,
                            PyObject *names)
{
    map_object *map = (map_object *)self;
    struct arguments arguments = {values, count, names};
    larder_read read = {.flags = 0};
    struct bytes_in key;
    larder_info info = {.size = 0};
    PyObject *value = NULL;
    if (!arguments_counted(&arguments, "lookup", 1, 1)) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < arguments_named(&arguments); i++) {
        if (take_lookup(&read, arguments_name(&arguments, i), arguments_value(&arguments, i)) !=
            0) {
            return NULL;
        }
    }
    if (bytes_in_take(&key, values[0], "key") != 0) {
        return NULL;
    }
    larder *handle = map_enter(map);
    if (handle == NULL) {
        bytes_in_release(&key);
        return NULL;
    }
    int result = look(handle, &key, &read, &info, &value);
    if (result < 0 && !PyErr_Occurred()) {
        (void)errors_raise(result);
    }
    bytes_in_release(&key);
    map_leave(map);
    if (PyErr_Occurred()) {
        Py_XDECREF(value);
        return NULL;
    }
    if (result != LARDER_OK && result != LARDER_STALE && result != LARDER_ABSENT) {
        Py_RETURN_NONE;
    }
    return entry_new(result, value, &info);
}

static int map_contains(PyObject *self, PyObject *object)
{
    struct bytes_in key;
    if (bytes_in_take(&key, object, "key") != 0) {
        return -1;
    }
    larder *handle = map_handle((map_object *)self); /* last: what gives the bytes may close it */
    if (handle == NULL) {
        bytes_in_release(&key);
        return -1;
    }
    int result = larder_has(handle, key.data, key.size);
    if (result < 0) {
        (void)errors_raise(result);
    }
    bytes_in_release(&key);
    return result < 0 ? -1 : result == LARDER_OK;
}

static PyObject *map_has(PyObject *self, PyObject *key)
{
    int result = map_contains(self, key);
    return result < 0 ? NULL : PyBool_FromLong(result);
}

static PyObject *map_enter_context(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return Py_NewRef(self);
}

/* ---- The type -------------------------------------------------------------------------------- */

static PyMethodDef read_methods[] = {
    METHOD("get", map_get, METHOD_FAST,
           "get(key, default=None) -> bytes\n\nThe value of a key (bytes, or str as UTF-8), or the "
           "default where there is none, it has expired, or it is known to be absent. Never waits "
           "for another process, keeps the GIL, makes no system call."),
    METHOD("lookup", map_lookup, METHOD_FAST,
           "lookup(key, *, stale=False, peek=False, extend=None, read_through=0) -> Entry\n\nThe "
           "value with its times, or None. stale: a stale one too. peek: leave statistics and "
           "sliding expiry alone. extend: give it so many seconds from now (True: its own sliding "
           "period). read_through: on a miss have larderd ask Redis, and wait for that at most so "
           "many seconds."),
    METHOD("has", map_has, METH_O, "has(key) -> bool\n\nWhether there is a value, unread."),
    METHOD("close", map_close, METH_NOARGS,
           "close()\n\nClose the map. Calls of other threads that are inside end first."),
    METHOD("__enter__", map_enter_context, METH_NOARGS, "The map itself."),
    METHOD("__exit__", map_close, METH_VARARGS, "Close it."),
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef map_attributes[] = {
    {"closed", map_closed, NULL, PyDoc_STR("Whether close() was called."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef map_members[] = {
    {"_watch", T_OBJECT, offsetof(map_object, watch), 0, PyDoc_STR("larder.Map's (_map.py).")},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot map_slots[] = {
    {Py_tp_doc,
     PyDoc_STR(
         "Map(name, *, dir=None, map_size=0, hot_size=0, hot_set=True, max_value=0,\n"
         "    max_entries=0, write_wait=0, attach=False, read_only=False, protect=False,\n"
         "    local=False, verify=False, mode=0)\n\n"
         "A map in shared memory: one for all processes of the host that open its name, usable "
         "from every thread and in children of fork(). See larder_open() in larder.h; sizes are "
         "bytes, times seconds; 0 is the library's default.")},
    {Py_tp_init, map_init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, map_dealloc},
    {Py_tp_traverse, map_traverse},
    {Py_tp_clear, map_clear},
    {Py_tp_methods, read_methods},
    {Py_tp_getset, map_attributes},
    {Py_tp_members, map_members},
    {Py_sq_contains, map_contains},
    {0, NULL},
};

static PyType_Spec map_spec = {
    .name = "larder._larder.Map",
    .basicsize = sizeof(map_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = map_slots,
};

/* A type has one list of methods: those of the other files are added as descriptors. */
static int add_methods(PyMethodDef *methods)
{
    for (; methods->ml_name != NULL; methods++) {
        PyObject *method = PyDescr_NewMethod(map_type, methods);
        int result = method == NULL
                         ? -1
                         : PyObject_SetAttrString((PyObject *)map_type, methods->ml_name, method);
        Py_XDECREF(method);
        if (result != 0) {
            return -1;
        }
    }
    return 0;
}

int map_add(PyObject *module)
{
    map_type = module_add_type(module, &map_spec);
    return map_type == NULL || add_methods(map_write_methods) != 0 ||
                   add_methods(map_many_methods) != 0 || add_methods(map_lease_methods) != 0 ||
                   add_methods(map_asked_methods) != 0 || add_methods(map_event_methods) != 0 ||
                   add_methods(map_view_methods) != 0 || add_methods(map_figure_methods) != 0 ||
                   add_methods(map_fetch_methods) != 0
               ? -1
               : 0;
}
