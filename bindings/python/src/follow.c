/* follow.c: events: Map.publish(), Map.follow(), larder.Follower and larder.Event.
 *
 * A follower is for one thread at a time: a call while another is inside is refused.
 */
#include "binding.h"

#include <string.h>
#include <structmember.h>

enum { NAMES_MAX = 64 };

typedef struct follower_object {
    PyObject_HEAD map_object *map;
    larder_follower *follower;
    bool busy;
} follower_object;

typedef struct event_object {
    PyObject_HEAD PyObject *name, *data;
    larder_event event; /* its name and data are not to be used */
} event_object;

static PyTypeObject *follower_type, *event_type;

/* ---- Events ---------------------------------------------------------------------------------- */

static PyObject *event_new(const larder_event *from)
{
    event_object *event = (event_object *)module_new_object(event_type);
    if (event == NULL) {
        return NULL;
    }
    event->event = *from;
    event->name = PyBytes_FromStringAndSize(from->name.data, (Py_ssize_t)from->name.size);
    event->data = PyBytes_FromStringAndSize(from->data.data, (Py_ssize_t)from->data.size);
    if (event->name == NULL || event->data == NULL) {
        Py_CLEAR(event);
    }
    return (PyObject *)event;
}

static void event_dealloc(PyObject *self)
{
    event_object *event = (event_object *)self;
    Py_CLEAR(event->name);
    Py_CLEAR(event->data);
    module_free_object(self);
}

static PyObject *event_version(PyObject *self, void *closure)
{
    (void)closure;
    return version_new(&((event_object *)self)->event.version);
}

static PyObject *event_expires(PyObject *self, void *closure)
{
    (void)closure;
    const larder_event *event = &((event_object *)self)->event;
    bool none = event->kind != LARDER_EVENT_SET || event->expires_ms == INT64_MAX;
    return none ? Py_NewRef(Py_None) : convert_time_out(event->expires_ms);
}

static PyObject *event_cut(PyObject *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong((((event_object *)self)->event.flags & LARDER_EVENT_CUT) != 0);
}

static PyObject *event_repr(PyObject *self)
{
    const event_object *event = (const event_object *)self;
    if (event->event.missed != 0) {
        return PyUnicode_FromFormat("<larder.Event: %llu missed>",
                                    (unsigned long long)event->event.missed);
    }
    return PyUnicode_FromFormat("<larder.Event kind=%u cause=%u name=%R>", event->event.kind,
                                event->event.cause, event->name);
}

#define FIELD(name, type, field, doc)                                                              \
    {                                                                                              \
        name, type, (Py_ssize_t)offsetof(event_object, field), READONLY, PyDoc_STR(doc)            \
    }

static PyMemberDef event_members[] = {
    FIELD("kind", T_UINT, event.kind, "One of larder.EVENT_*; 0: some were missed."),
    FIELD("cause", T_UINT, event.cause, "One of larder.CAUSE_*."),
    FIELD("number", T_ULONGLONG, event.number, "Dense over all kinds; larger is later."),
    FIELD("missed", T_ULONGLONG, event.missed,
          "How many, at most, went by unseen: forget copies of what the map holds."),
    FIELD("name", T_OBJECT, name, "bytes: the key, mark, pattern, or name of a named event."),
    FIELD("data", T_OBJECT, data, "bytes: of a named event."),
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef event_attributes[] = {
    {"version", event_version, NULL, PyDoc_STR("Of the entry or invalidation."), NULL},
    {"expires", event_expires, NULL, PyDoc_STR("EVENT_SET: when it expires, None: never."), NULL},
    {"cut", event_cut, NULL, PyDoc_STR("Whether name is only the beginning of a key."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot event_slots[] = {
    {Py_tp_doc, PyDoc_STR("What happened to a map.")},
    {Py_tp_dealloc, event_dealloc},
    {Py_tp_repr, event_repr},
    {Py_tp_members, event_members},
    {Py_tp_getset, event_attributes},
    {0, NULL},
};

static PyType_Spec event_spec = {
    .name = "larder.Event",
    .basicsize = sizeof(event_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = event_slots,
};

/* ---- Followers ------------------------------------------------------------------------------- */

static void unfollow(follower_object *follower)
{
    if (follower->follower != NULL && !follower->busy) {
        larder_unfollow(&follower->follower);
        map_leave(follower->map); /* the map stays open as long as it is followed */
        follower->map = NULL;
    }
}

static void follower_dealloc(PyObject *self)
{
    unfollow((follower_object *)self);
    module_free_object(self);
}

static PyObject *follower_close(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    follower_object *follower = (follower_object *)self;
    if (follower->busy) {
        PyErr_SetString(PyExc_RuntimeError, "another thread is inside this follower");
        return NULL;
    }
    unfollow(follower);
    Py_RETURN_NONE;
}

static PyObject *follower_wait(PyObject *self, PyObject *arguments)
{
    follower_object *follower = (follower_object *)self;
    PyObject *timeout = Py_None;
    larder_event event = {.kind = 0};
    int64_t ms = 0;
    int result;
    if (!PyArg_ParseTuple(arguments, "|O:next", &timeout) ||
        convert_duration(timeout, "timeout", &ms) != 0) {
        return NULL;
    }
    if (follower->follower == NULL || follower->busy) {
        PyErr_SetString(PyExc_RuntimeError, follower->busy
                                                ? "another thread is inside this follower"
                                                : "the follower is closed");
        return NULL;
    }
    if (ms == 0) {
        result = larder_next_event(follower->follower, &event);
    } else {
        follower->busy = true;
        WITHOUT_GIL(result = larder_wait_event(follower->follower, ms, &event));
        follower->busy = false;
    }
    if (result < 0) {
        return errors_raise(result);
    }
    if (result == LARDER_MISS) {
        Py_RETURN_NONE;
    }
    if (result == LARDER_MISSED) {
        event = (larder_event){.number = event.number, .missed = event.missed};
    }
    return event_new(&event);
}

static PyObject *follower_enter(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return Py_NewRef(self);
}

static PyMethodDef follower_methods[] = {
    METHOD("next", follower_wait, METH_VARARGS,
           "next(timeout=0) -> Event\n\nThe next event, after at most so many seconds, or None. "
           "An event of kind 0 says that some were missed."),
    METHOD("close", follower_close, METH_NOARGS, "close()\n\nStop following."),
    METHOD("__enter__", follower_enter, METH_NOARGS, "The follower itself."),
    METHOD("__exit__", follower_close, METH_VARARGS, "Close it."),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot follower_slots[] = {
    {Py_tp_doc, PyDoc_STR("Follows what happens to a map; for one thread at a time.")},
    {Py_tp_dealloc, follower_dealloc},
    {Py_tp_methods, follower_methods},
    {0, NULL},
};

static PyType_Spec follower_spec = {
    .name = "larder.Follower",
    .basicsize = sizeof(follower_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = follower_slots,
};

/* ---- Map's methods --------------------------------------------------------------------------- */

static PyObject *follow_run(map_object *map, const larder_filter *filter)
{
    follower_object *follower = (follower_object *)module_new_object(follower_type);
    larder *handle = follower == NULL ? NULL : map_enter(map);
    if (handle == NULL) {
        Py_XDECREF((PyObject *)follower);
        return NULL;
    }
    int result = larder_follow(handle, filter, &follower->follower);
    if (result != LARDER_OK) {
        follower->follower = NULL;
        (void)errors_raise(result);
        map_leave(map);
        Py_CLEAR(follower);
        return NULL;
    }
    follower->map = map;
    return (PyObject *)follower;
}

/* Of any size: what does not fit is no kind either. */
static int kinds_take(PyObject *object, uint32_t *kinds)
{
    int beyond = 0;
    *kinds = 0;
    if (object == NULL) {
        return 0;
    }
    long long number = PyLong_AsLongLongAndOverflow(object, &beyond);
    if (number == -1 && PyErr_Occurred()) {
        return -1;
    }
    *kinds = beyond != 0 || number < 0 || number > UINT32_MAX ? UINT32_MAX : (uint32_t)number;
    return 0;
}

static PyObject *map_follow(PyObject *self, PyObject *arguments, PyObject *named)
{
    static char *keywords[] = {"kinds", "prefix", "names", NULL};
    PyObject *prefix = Py_None, *names = Py_None, *held = NULL, *follower = NULL, *wanted = NULL;
    uint32_t kinds = 0;
    struct bytes_in key, taken[NAMES_MAX];
    larder_bytes list[NAMES_MAX];
    Py_ssize_t count = 0, i = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "|$OOO:follow", keywords, &wanted, &prefix,
                                     &names) ||
        kinds_take(wanted, &kinds) != 0) {
        return NULL;
    }
    memset(&key, 0, sizeof key);
    if (prefix != Py_None && bytes_in_take(&key, prefix, "prefix") != 0) {
        return NULL;
    }
    if (names != Py_None) {
        held = PyUnicode_Check(names) || PyBytes_Check(names) ? PyTuple_Pack(1, names)
                                                              : PySequence_Tuple(names);
        count = held == NULL ? 0 : PyTuple_Size(held);
        if (count > NAMES_MAX) {
            PyErr_Format(PyExc_ValueError, "names: %zd of them: the limit is %d", count, NAMES_MAX);
        }
    }
    for (; !PyErr_Occurred() && i < count; i++) {
        if (bytes_in_take(&taken[i], PyTuple_GetItem(held, i), "names") != 0) {
            break;
        }
        list[i] = (larder_bytes){taken[i].data, taken[i].size};
    }
    if (!PyErr_Occurred()) {
        larder_filter filter = {.kinds = kinds,
                                .prefix = {key.data, key.size},
                                .names = count == 0 ? NULL : list,
                                .name_count = (size_t)count};
        follower = follow_run((map_object *)self, &filter);
    }
    while (i > 0) {
        bytes_in_release(&taken[--i]);
    }
    bytes_in_release(&key);
    Py_XDECREF(held);
    return follower;
}

static PyObject *map_publish(PyObject *self, PyObject *arguments)
{
    PyObject *object = NULL, *payload = NULL;
    struct bytes_in name, data;
    if (!PyArg_ParseTuple(arguments, "O|O:publish", &object, &payload)) {
        return NULL;
    }
    if (bytes_in_take(&name, object, "name") != 0) {
        return NULL;
    }
    memset(&data, 0, sizeof data);
    PyObject *out = NULL;
    if (payload == NULL || bytes_in_take(&data, payload, "data") == 0) {
        larder *handle =
            map_handle((map_object *)self); /* last: what gives the bytes may close it */
        if (handle != NULL) {
            int result = larder_publish(handle, (larder_bytes){name.data, name.size},
                                        (larder_bytes){data.data, data.size});
            out = result < 0 ? errors_raise(result) : Py_NewRef(Py_None);
        }
        bytes_in_release(&data);
    }
    bytes_in_release(&name);
    return out;
}

PyMethodDef map_event_methods[] = {
    METHOD("follow", map_follow, METH_VARARGS | METH_KEYWORDS,
           "follow(*, kinds=0, prefix=b'', names=()) -> Follower\n\nFollow the map's events from "
           "now on: EVENT_* kinds (0: all), those of keys under the prefix, named events of these "
           "names (none: all). A child of fork() follows anew."),
    METHOD("publish", map_publish, METH_VARARGS,
           "publish(name, data=b'')\n\nTell all who follow this name on this host. Never waits."),
    {NULL, NULL, 0, NULL},
};

int follow_add(PyObject *module)
{
    event_type = module_add_type(module, &event_spec);
    follower_type = module_add_type(module, &follower_spec);
    return event_type == NULL || follower_type == NULL ? -1 : 0;
}
