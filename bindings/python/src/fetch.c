/* fetch.c: Map.fetch_async(): a coroutine that is made here, because of what a thousand callers of
 * one key do in one turn of their loop (doc/decisions/049): look at the map, find that another
 * coroutine of the loop is at the key, and wait for that one's flight.
 *
 * All else, who fills and how, is Python's (larder/_fetch.py), in a coroutine that this one awaits.
 * To asyncio it is a coroutine like any other: it has a coroutine's methods, and its errors.
 */
#include "fetch.h"

#define DEFAULT_WAIT_MS 10000 /* as larder_fetch() has it */

/* ---- What is Python's ------------------------------------------------------------------------ */

static PyObject *fetch_class, *nothing, *get_running_loop, *get_inside;

static PyObject *name_alone, *name_error, *name_lead, *name_time, *name_watch;

static PyObject *attribute_of(const char *module, const char *name)
{
    PyObject *imported = PyImport_ImportModule(module);
    PyObject *found = imported == NULL ? NULL : PyObject_GetAttrString(imported, name);
    Py_XDECREF(imported);
    return found;
}

/* Once, at the first fetch: larder._fetch is made of this module. */
static int find_python(void)
{
    if (fetch_class != NULL) {
        return 0;
    }
    get_running_loop = attribute_of("asyncio", "get_running_loop");
    PyObject *inside = attribute_of("larder._fetch", "_inside");
    get_inside = inside == NULL ? NULL : PyObject_GetAttrString(inside, "get");
    Py_XDECREF(inside);
    nothing = attribute_of("larder._fetch", "nothing");
    if (get_running_loop == NULL || get_inside == NULL || nothing == NULL) {
        return -1;
    }
    fetch_class = attribute_of("larder._fetch", "Fetch");
    return fetch_class == NULL ? -1 : 0;
}

PyObject *fetch_nothing(void)
{
    return PyObject_CallNoArgs(nothing);
}

/* ---- The call -------------------------------------------------------------------------------- */

/* fetch_async()'s own arguments, the first three used up here; all others are the value's policy.
 */
enum option { KEY, FILL, WAIT, EARLY, HOLD, READ_THROUGH, BACKGROUND, OPTIONS };

static const char *const option_texts[OPTIONS] = {[KEY] = "key",
                                                  [FILL] = "fill",
                                                  [WAIT] = "wait",
                                                  [EARLY] = "early",
                                                  [HOLD] = "hold",
                                                  [READ_THROUGH] = "read_through",
                                                  [BACKGROUND] = "background"};
static PyObject *option_names[OPTIONS]; /* interned, as most names of arguments are */

static enum option option_of(PyObject *name)
{
    unsigned i = 0;
    Py_INCREF(name);
    PyUnicode_InternInPlace(&name);
    while (i < OPTIONS && option_names[i] != name) {
        i++;
    }
    Py_DECREF(name);
    return (enum option)i;
}

Py_ssize_t fetch_size(fetch_object *fetch)
{
    return Py_SIZE((PyObject *)fetch);
}

static struct arguments arguments_of(fetch_object *fetch)
{
    Py_ssize_t named = fetch->names == NULL ? 0 : PyTuple_Size(fetch->names);
    return (struct arguments){fetch->values, fetch_size(fetch) - named, fetch->names};
}

static int take(fetch_object *fetch)
{
    struct arguments arguments = arguments_of(fetch);
    PyObject *options[OPTIONS] = {NULL};
    for (Py_ssize_t i = 0; i < arguments.count; i++) {
        options[i] = fetch->values[i]; /* key, fill */
    }
    for (Py_ssize_t i = 0; i < arguments_named(&arguments); i++) {
        PyObject *name = arguments_name(&arguments, i);
        enum option option = option_of(name);
        if (option < OPTIONS && options[option] != NULL) {
            PyErr_Format(PyExc_TypeError, "fetch_async() got two values for '%U'", name);
            return -1;
        }
        if (option < OPTIONS) {
            options[option] = arguments_value(&arguments, i);
        }
    }
    for (unsigned i = KEY; i <= FILL; i++) {
        if (options[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "fetch_async() takes a key and a fill: there is no %s",
                         option_texts[i]);
            return -1;
        }
    }
    fetch->key = options[KEY];
    fetch->fill = options[FILL];
    fetch->wait = options[WAIT];
    fetch->early = options[EARLY];
    return 0;
}

static PyObject *map_fetch_async(PyObject *self, PyObject *const *values, Py_ssize_t count,
                                 PyObject *given)
{
    struct arguments arguments = {values, count, given};
    if (!arguments_counted(&arguments, "fetch_async", 0, 2) || find_python() != 0) {
        return NULL;
    }
    Py_ssize_t size = count + arguments_named(&arguments);
    fetch_object *fetch = PyObject_GC_NewVar(fetch_object, fetch_type, size);
    if (fetch == NULL) {
        return NULL;
    }
    /* Until it has all it needs: what was never a fetch is not warned of. */
    fetch->state = FINISHED;
    fetch->running = false;
    fetch->name = fetch->loop = fetch->watch = fetch->inner = NULL;
    fetch->flight = NULL;
    fetch->map = (map_object *)Py_NewRef(self);
    fetch->names = Py_XNewRef(given);
    for (Py_ssize_t i = 0; i < size; i++) {
        fetch->values[i] = Py_NewRef(values[i]);
    }
    if (take(fetch) != 0) {
        Py_DECREF((PyObject *)fetch);
        return NULL;
    }
    fetch->state = CREATED;
    PyObject_GC_Track(fetch);
    return (PyObject *)fetch;
}

/* ---- The first turn -------------------------------------------------------------------------- */

/* The key as bytes, and what the map has: NULL: nothing is known. -1 with an exception. */
static int look(fetch_object *fetch, PyObject **value)
{
    struct bytes_in key;
    int early = fetch->early == NULL ? 0 : PyObject_IsTrue(fetch->early);
    *value = NULL;
    if (early < 0 || bytes_in_take(&key, fetch->key, "key") != 0) {
        return -1;
    }
    int result = early ? LARDER_MISS : map_read(fetch->map, &key, value);
    if (result == LARDER_EBUSY) {
        PyErr_Clear();
        result = LARDER_MISS;
    }
    if (result == LARDER_ABSENT) {
        *value = Py_NewRef(Py_None);
    }
    if (result >= 0 && *value == NULL) {
        fetch->name = PyBytes_CheckExact(fetch->key)
                          ? Py_NewRef(fetch->key)
                          : PyBytes_FromStringAndSize(key.data, (Py_ssize_t)key.size);
    }
    bytes_in_release(&key);
    return result < 0 || (*value == NULL && fetch->name == NULL) ? -1 : 0;
}

static int check_policy(fetch_object *fetch)
{
    struct arguments arguments = arguments_of(fetch);
    struct policy policy;
    int taken = 1;
    policy_begin(&policy);
    for (Py_ssize_t i = 0; taken > 0 && i < arguments_named(&arguments); i++) {
        PyObject *name = arguments_name(&arguments, i);
        if (option_of(name) == OPTIONS) {
            taken = policy_take(&policy, name, arguments_value(&arguments, i));
        }
        if (taken == 0) {
            taken = arguments_unknown("fetch_async", name);
        }
    }
    int result = taken < 0 ? -1 : policy_finish(&policy);
    policy_release(&policy);
    return result;
}

static int take_time(fetch_object *fetch)
{
    int64_t wait_ms = DEFAULT_WAIT_MS;
    if (fetch->wait != NULL && fetch->wait != Py_None &&
        convert_duration(fetch->wait, "wait", &wait_ms) != 0) {
        return -1;
    }
    PyObject *now = PyObject_CallMethodObjArgs(fetch->loop, name_time, NULL);
    if (now == NULL) {
        return -1;
    }
    fetch->deadline = PyFloat_AsDouble(now) + (double)wait_ms / 1000;
    Py_DECREF(now);
    return PyErr_Occurred() ? -1 : 0;
}

/* 1, 0, or -1 with an exception. */
static int is_inside(const fetch_object *fetch)
{
    PyObject *keys = PyObject_CallNoArgs(get_inside);
    Py_ssize_t size = keys == NULL ? -1 : PySet_Size(keys);
    int result = size > 0 ? PySet_Contains(keys, fetch->name) : (int)size;
    Py_XDECREF(keys);
    return result;
}

/* Where the loop waits; none where 256 processes have a descriptor already, or no file is left. */
static int find_watch(fetch_object *fetch)
{
    PyObject *watch = Py_XNewRef(fetch->map->watch);
    if (watch == NULL || !watch_is_of(watch, fetch->loop)) {
        Py_XDECREF(watch);
        watch = PyObject_CallMethodObjArgs((PyObject *)fetch->map, name_watch, NULL);
        if (watch == NULL && (errors_is_ours() || PyErr_ExceptionMatches(PyExc_OSError))) {
            PyErr_Clear();
            return 0;
        }
    }
    fetch->watch = watch;
    return watch == NULL ? -1 : 0;
}

/* ---- What is waited for ---------------------------------------------------------------------- */

/* What `await` of it would drive: taken over, and NULL is passed on. */
static PyObject *awaited(PyObject *awaitable)
{
    PyObject *inner = NULL;
    if (awaitable != NULL) {
        unaryfunc await = (unaryfunc)PyType_GetSlot(Py_TYPE(awaitable), Py_am_await);
        inner = await == NULL ? NULL : await(awaitable);
        if (await == NULL) {
            PyErr_Format(PyExc_TypeError, "%R cannot be awaited", awaitable);
        }
        Py_DECREF(awaitable);
    }
    return inner;
}

/* All named arguments that are not used up here. */
static PyObject *rest(fetch_object *fetch)
{
    struct arguments arguments = arguments_of(fetch);
    PyObject *dict = PyDict_New();
    for (Py_ssize_t i = 0; dict != NULL && i < arguments_named(&arguments); i++) {
        PyObject *name = arguments_name(&arguments, i);
        if (option_of(name) > WAIT &&
            PyDict_SetItem(dict, name, arguments_value(&arguments, i)) != 0) {
            Py_CLEAR(dict);
        }
    }
    return dict;
}

/* For all of the loop who want the key, or for this caller alone. */
static int lead(fetch_object *fetch)
{
    PyObject *named = rest(fetch), *call = NULL;
    PyObject *positional =
        Py_BuildValue("(OOOd)", (PyObject *)fetch->map, fetch->name, fetch->fill, fetch->deadline);
    if (named != NULL && positional != NULL) {
        call = PyObject_Call(fetch_class, positional, named);
    }
    Py_XDECREF(positional);
    Py_XDECREF(named);
    if (call != NULL) {
        /* lead(watch) or alone(): the NULL of no watch ends the arguments. */
        fetch->inner = PyObject_CallMethodObjArgs(
            call, fetch->watch == NULL ? name_alone : name_lead, fetch->watch, NULL);
        Py_DECREF(call);
    }
    return fetch->inner == NULL ? -1 : 0;
}

/* Behind another coroutine of the loop, if there is one; else this is the one. */
static int follow(fetch_object *fetch)
{
    if (fetch->watch != NULL && watch_flight(fetch->watch, fetch->name, &fetch->flight) != 0) {
        return -1;
    }
    if (fetch->flight == NULL) {
        return lead(fetch);
    }
    fetch->inner = awaited(flight_follow(fetch->flight, fetch->loop, fetch->deadline));
    return fetch->inner == NULL ? -1 : 0;
}

PySendResult fetch_begin(fetch_object *fetch, PyObject **result)
{
    if (look(fetch, result) != 0) {
        return PYGEN_ERROR;
    }
    if (*result != NULL) {
        return PYGEN_RETURN;
    }
    if (check_policy(fetch) != 0) {
        return PYGEN_ERROR;
    }
    fetch->loop = PyObject_CallNoArgs(get_running_loop);
    if (fetch->loop == NULL || take_time(fetch) != 0) {
        return PYGEN_ERROR;
    }
    int inside = is_inside(fetch);
    if (inside < 0 || (inside == 0 && find_watch(fetch) != 0) || follow(fetch) != 0) {
        return PYGEN_ERROR;
    }
    return PyIter_Send(fetch->inner, Py_None, result);
}

/* What a flight told, (kind, what): the end of this one, or PYGEN_NEXT: there is more to do. */
static PySendResult hear(fetch_object *fetch, PyObject *told, PyObject **result)
{
    bool is_pair = PyTuple_Check(told) && PyTuple_Size(told) == 2;
    PyObject *kind = is_pair ? PyTuple_GetItem(told, 0) : NULL;
    if (kind == NULL || !PyUnicode_Check(kind)) {
        /* No flight's: who drives this threw a StopIteration into it. */
        PyErr_SetString(PyExc_RuntimeError, "coroutine raised StopIteration");
        return PYGEN_ERROR;
    }
    PyObject *what = PyTuple_GetItem(told, 1);
    if (arguments_is(kind, "value")) {
        *result = Py_NewRef(what);
        return PYGEN_RETURN;
    }
    if (arguments_is(kind, "error")) {
        PyObject *error =
            PyObject_CallMethodObjArgs((PyObject *)fetch->flight, name_error, what, NULL);
        if (error != NULL) {
            PyErr_SetObject((PyObject *)Py_TYPE(error), error);
            Py_DECREF(error);
        }
        return PYGEN_ERROR;
    }
    if (arguments_is(kind, "alone")) {
        Py_CLEAR(fetch->watch);
    }
    return PYGEN_NEXT;
}

PySendResult fetch_go_on(fetch_object *fetch, PySendResult sent, PyObject **result)
{
    while (sent == PYGEN_RETURN && fetch->flight != NULL) {
        PyObject *told = *result;
        *result = NULL;
        Py_CLEAR(fetch->inner);
        sent = hear(fetch, told, result);
        Py_DECREF(told);
        Py_CLEAR(fetch->flight);
        if (sent == PYGEN_NEXT) {
            sent = follow(fetch) != 0 ? PYGEN_ERROR : PyIter_Send(fetch->inner, Py_None, result);
        }
    }
    return sent;
}

PyMethodDef map_fetch_methods[] = {
    METHOD("fetch_async", map_fetch_async, METHOD_FAST,
           "fetch_async(key, fill, *, hold=10, wait=10, early=0, read_through=0, background=True,\n"
           "    **policy) -> coroutine: bytes\n\n"
           "The value, or what `await fill()` returns, stored: one caller of the host asks the "
           "origin.\n\n"
           "All other coroutines, of this process and of all others, wait for it without blocking "
           "their loops; if its process dies, or its task is cancelled, another takes over at "
           "once. fill returns bytes or str, None (the origin has none: stored as a negative "
           "entry, and None is returned), Filled(value, **policy), or Skip(value): not for the "
           "cache. What it raises is raised to all who wait in this process. A stale value is "
           "returned at once and renewed beside (background=False: the one that has to renew it "
           "waits for that). hold: seconds after which another may fill; wait: seconds after which "
           "a waiter fills for itself; early: percent of XFetch's beta; read_through: seconds to "
           "wait for Redis first. A cache that cannot help never stands in the way: a value that "
           "the map does not take (too large, no room) is returned."),
    {NULL, NULL, 0, NULL},
};

int fetch_add(PyObject *module)
{
    for (unsigned i = 0; i < OPTIONS; i++) {
        option_names[i] = PyUnicode_InternFromString(option_texts[i]);
        if (option_names[i] == NULL) {
            return -1;
        }
    }
    name_alone = PyUnicode_InternFromString("alone");
    name_error = PyUnicode_InternFromString("error");
    name_lead = PyUnicode_InternFromString("lead");
    name_time = PyUnicode_InternFromString("time");
    name_watch = PyUnicode_InternFromString("watch");
    if (name_alone == NULL || name_error == NULL || name_lead == NULL || name_time == NULL ||
        name_watch == NULL) {
        return -1;
    }
    return flight_add(module) != 0 || coroutine_add(module) != 0 ? -1 : 0;
}
