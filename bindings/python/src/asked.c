/* asked.c: what is not waited for in a call: questions to Redis (larder.Asked), and the descriptor
 * that tells an event loop of their answers, and of leases that end.
 */
#include "binding.h"

typedef struct asked_object {
    PyObject_HEAD map_object *map;
    larder_asked asked;
} asked_object;

static PyTypeObject *asked_type;

static void asked_dealloc(PyObject *self)
{
    Py_CLEAR(((asked_object *)self)->map);
    module_free_object(self);
}

static PyObject *map_ask(PyObject *self, PyObject *arguments)
{
    map_object *map = (map_object *)self;
    PyObject *object = NULL, *budget = NULL;
    struct bytes_in key;
    int64_t ms = 0;
    if (!PyArg_ParseTuple(arguments, "OO:ask", &object, &budget) ||
        convert_duration(budget, "budget", &ms) != 0) {
        return NULL;
    }
    if (bytes_in_take(&key, object, "key") != 0) {
        return NULL;
    }
    larder *handle = map_handle(map); /* last: what gives the bytes may close the map */
    if (handle == NULL) {
        bytes_in_release(&key);
        return NULL;
    }
    larder_asked token;
    int result = larder_ask(handle, key.data, key.size, ms, &token);
    bytes_in_release(&key);
    if (result != LARDER_WAIT) {
        return result < 0 ? errors_raise(result) : Py_NewRef(Py_None);
    }
    asked_object *asked = (asked_object *)module_new_object(asked_type);
    if (asked != NULL) {
        asked->asked = token;
        asked->map = (map_object *)Py_NewRef(self);
    }
    return (PyObject *)asked;
}

static PyObject *asked_wait(PyObject *self, PyObject *arguments)
{
    asked_object *asked = (asked_object *)self;
    PyObject *timeout = Py_None;
    int64_t ms = 0;
    if (!PyArg_ParseTuple(arguments, "|O:wait", &timeout) ||
        convert_duration(timeout, "timeout", &ms) != 0) {
        return NULL;
    }
    larder *handle = map_enter(asked->map);
    if (handle == NULL) {
        return NULL;
    }
    int result;
    if (ms == 0) {
        result = larder_ask_wait(handle, &asked->asked, 0);
    } else {
        WITHOUT_GIL(result = larder_ask_wait(handle, &asked->asked, ms));
    }
    PyObject *out =
        result < 0 && result != LARDER_EBUSY ? errors_raise(result) : PyLong_FromLong(result);
    map_leave(asked->map);
    return out;
}

static PyObject *asked_ended(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    asked_object *asked = (asked_object *)self;
    larder *handle = map_handle(asked->map);
    if (handle == NULL) {
        return NULL;
    }
    int result = larder_ask_wait(handle, &asked->asked, 0);
    return result < 0 && result != LARDER_EBUSY ? errors_raise(result) : convert_outcome(result);
}

/* ---- The notify descriptor ------------------------------------------------------------------- */

static PyObject *map_notify_fd(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    larder *handle = map_handle((map_object *)self);
    if (handle == NULL) {
        return NULL;
    }
    int result = larder_notify_fd(handle);
    return result < 0 ? errors_raise(result) : PyLong_FromLong(result);
}

static PyObject *map_notify_clear(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    larder *handle = map_handle((map_object *)self);
    if (handle == NULL) {
        return NULL;
    }
    int result = larder_notify_clear(handle);
    return result < 0 ? errors_raise(result) : Py_NewRef(Py_None);
}

PyMethodDef map_asked_methods[] = {
    METHOD("ask", map_ask, METH_VARARGS,
           "ask(key, budget) -> Asked\n\nHave larderd ask Redis for a key; None: nobody to ask."),
    METHOD("notify_fd", map_notify_fd, METH_NOARGS,
           "notify_fd() -> int\n\nThis process's descriptor of the map for event loops: readable "
           "when a lease, a question or a followed event may be ready. Not to be closed."),
    METHOD("notify_clear", map_notify_clear, METH_NOARGS,
           "notify_clear()\n\nCall it when notify_fd() is readable, then look again."),
    {NULL, NULL, 0, NULL},
};

/* ---- The type -------------------------------------------------------------------------------- */

static PyMethodDef asked_methods[] = {
    METHOD("wait", asked_wait, METH_VARARGS,
           "wait(timeout=0) -> int\n\nOK (worth another look), MISS (Redis has none), WAIT (not "
           "yet), EBUSY (no answer within the budget)."),
    METHOD(
        "ended", asked_ended, METH_NOARGS,
        "ended() -> int or None\n\nwait() without waiting, None for WAIT: what a loop asks at each "
        "message of notify_fd()."),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot asked_slots[] = {
    {Py_tp_doc, PyDoc_STR("A question of Map.ask().")},
    {Py_tp_dealloc, asked_dealloc},
    {Py_tp_methods, asked_methods},
    {0, NULL},
};

static PyType_Spec asked_spec = {
    .name = "larder.Asked",
    .basicsize = sizeof(asked_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = asked_slots,
};

int asked_add(PyObject *module)
{
    asked_type = module_add_type(module, &asked_spec);
    return asked_type == NULL ? -1 : 0;
}
