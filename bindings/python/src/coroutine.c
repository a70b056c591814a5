/* coroutine.c: what makes a fetch (fetch.c) a coroutine to asyncio and to `await`: the methods, the
 * errors and the end of Python's own, for as long as its caller drives it.
 */
#include "fetch.h"

#define QUALIFIED_NAME "Map.fetch_async"

PyTypeObject *fetch_type;

static PyObject *name_close, *name_throw;

/* ---- Driving it ------------------------------------------------------------------------------ */

static int fetch_clear(PyObject *self);

/* Whether it can be driven; else an exception. */
static bool enter(fetch_object *fetch)
{
    if (fetch->running) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
    } else if (fetch->state == FINISHED) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
    } else {
        fetch->running = true;
        return true;
    }
    return false;
}

static PySendResult leave(fetch_object *fetch, PySendResult sent)
{
    fetch->running = false;
    if (sent != PYGEN_NEXT) {
        fetch->state = FINISHED;
        (void)fetch_clear((PyObject *)fetch);
    }
    return sent;
}

static PySendResult fetch_am_send(PyObject *self, PyObject *value, PyObject **result)
{
    fetch_object *fetch = (fetch_object *)self;
    *result = NULL;
    if (fetch->state == CREATED && value != Py_None) {
        PyErr_SetString(PyExc_TypeError, "can't send non-None value to a just-started coroutine");
        return PYGEN_ERROR;
    }
    if (!enter(fetch)) {
        return PYGEN_ERROR;
    }
    PySendResult sent;
    if (fetch->state == CREATED) {
        fetch->state = STARTED;
        sent = fetch_begin(fetch, result);
    } else {
        sent = PyIter_Send(fetch->inner, value, result);
    }
    return leave(fetch, fetch_go_on(fetch, sent, result));
}

/* To a caller who is told of the end by StopIteration. */
static PyObject *give(PySendResult sent, PyObject *result)
{
    if (sent != PYGEN_RETURN) {
        return result;
    }
    /* An instance: a tuple would be taken for its arguments. */
    PyObject *stop = PyObject_CallFunctionObjArgs(PyExc_StopIteration, result, NULL);
    if (stop != NULL) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
    Py_DECREF(result);
    return NULL;
}

static PyObject *fetch_send(PyObject *self, PyObject *value)
{
    PyObject *result;
    PySendResult sent = fetch_am_send(self, value, &result);
    return give(sent, result);
}

static PyObject *fetch_next(PyObject *self)
{
    return fetch_send(self, Py_None);
}

/* The value of the StopIteration that is set, or NULL where another exception is. */
static PyObject *stopped_with(void)
{
    PyObject *type = NULL, *stop = NULL, *trace = NULL;
    if (!PyErr_ExceptionMatches(PyExc_StopIteration)) {
        return NULL;
    }
    PyErr_Fetch(&type, &stop, &trace);
    PyErr_NormalizeException(&type, &stop, &trace);
    PyObject *value = PyObject_GetAttrString(stop, "value");
    Py_XDECREF(type);
    Py_XDECREF(stop);
    Py_XDECREF(trace);
    return value;
}

static PyObject *fetch_throw(PyObject *self, PyObject *arguments)
{
    fetch_object *fetch = (fetch_object *)self;
    PyObject *throw = NULL, *result = NULL;
    if (!enter(fetch)) {
        return NULL;
    }
    if (fetch->state == CREATED) {
        fetch->state = STARTED;
        fetch->inner = fetch_nothing(); /* whose arguments and errors these are, too */
    }
    if (fetch->inner != NULL) {
        throw = PyObject_GetAttr(fetch->inner, name_throw);
    }
    if (throw != NULL) {
        result = PyObject_Call(throw, arguments, NULL);
        Py_DECREF(throw);
    }
    PySendResult sent = PYGEN_NEXT;
    if (result == NULL) {
        result = stopped_with();
        sent = result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
    }
    sent = leave(fetch, fetch_go_on(fetch, sent, &result));
    return give(sent, result);
}

static PyObject *fetch_close(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    fetch_object *fetch = (fetch_object *)self;
    PyObject *closed = Py_NewRef(Py_None);
    if (fetch->state == FINISHED) {
        return closed;
    }
    if (!enter(fetch)) {
        Py_DECREF(closed);
        return NULL;
    }
    if (fetch->state == STARTED) {
        Py_DECREF(closed);
        closed = PyObject_CallMethodObjArgs(fetch->inner, name_close, NULL);
    }
    (void)leave(fetch, PYGEN_RETURN);
    return closed;
}

/* Once at a time, as with a coroutine. */
static PyObject *fetch_await(PyObject *self)
{
    if (((fetch_object *)self)->state == STARTED) {
        PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
        return NULL;
    }
    return Py_NewRef(self);
}

/* ---- What asyncio, anyio and debuggers ask of one -------------------------------------------- */

static PyObject *fetch_name(PyObject *self, void *qualified)
{
    (void)self;
    return PyUnicode_FromString(qualified == NULL ? "fetch_async" : QUALIFIED_NAME);
}

static PyObject *fetch_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<coroutine object " QUALIFIED_NAME " at %p>", (void *)self);
}

static PyObject *fetch_running(PyObject *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(((fetch_object *)self)->running);
}

static PyObject *fetch_suspended(PyObject *self, void *closure)
{
    (void)closure;
    fetch_object *fetch = (fetch_object *)self;
    return PyBool_FromLong(fetch->state == STARTED && !fetch->running);
}

static PyObject *fetch_awaits(PyObject *self, void *closure)
{
    (void)closure;
    PyObject *inner = ((fetch_object *)self)->inner;
    return Py_NewRef(inner == NULL ? Py_None : inner);
}

static PyObject *fetch_frame(PyObject *self, void *closure)
{
    (void)self;
    (void)closure;
    return Py_NewRef(Py_None);
}

/* ---- The end --------------------------------------------------------------------------------- */

static int fetch_traverse(PyObject *self, visitproc visit, void *arg)
{
    fetch_object *fetch = (fetch_object *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)fetch->map);
    Py_VISIT(fetch->loop);
    Py_VISIT(fetch->watch);
    Py_VISIT((PyObject *)fetch->flight);
    Py_VISIT(fetch->inner);
    for (Py_ssize_t i = 0; i < fetch_size(fetch); i++) {
        Py_VISIT(fetch->values[i]);
    }
    return 0;
}

static void warn_never_awaited(void)
{
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%s' was never awaited",
                         QUALIFIED_NAME) != 0) {
        PyErr_WriteUnraisable(NULL);
    }
    PyErr_Restore(type, error, trace);
}

static int fetch_clear(PyObject *self)
{
    fetch_object *fetch = (fetch_object *)self;
    if (fetch->state == CREATED) {
        warn_never_awaited();
    }
    fetch->state = FINISHED;
    fetch->key = fetch->fill = fetch->wait = fetch->early = NULL;
    Py_CLEAR(fetch->map);
    Py_CLEAR(fetch->names);
    Py_CLEAR(fetch->name);
    Py_CLEAR(fetch->loop);
    Py_CLEAR(fetch->watch);
    Py_CLEAR(fetch->flight);
    Py_CLEAR(fetch->inner);
    for (Py_ssize_t i = 0; i < fetch_size(fetch); i++) {
        Py_CLEAR(fetch->values[i]);
    }
    return 0;
}

static void fetch_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)fetch_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF((PyObject *)type);
}

/* ---- The type -------------------------------------------------------------------------------- */

static PyMethodDef fetch_methods[] = {
    METHOD("send", fetch_send, METH_O, "send(None)\n\nGo on until the next wait."),
    METHOD("throw", fetch_throw, METH_VARARGS, "throw(exception)\n\nRaise it where this waits."),
    METHOD("close", fetch_close, METH_NOARGS, "close()\n\nEnd it where this waits."),
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef fetch_attributes[] = {
    {"__name__", fetch_name, NULL, NULL, NULL},
    {"__qualname__", fetch_name, NULL, NULL, QUALIFIED_NAME},
    {"cr_await", fetch_awaits, NULL, PyDoc_STR("What it waits for."), NULL},
    {"cr_frame", fetch_frame, NULL, PyDoc_STR("None: it is in C."), NULL},
    {"cr_running", fetch_running, NULL, NULL, NULL},
    {"cr_suspended", fetch_suspended, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot fetch_slots[] = {
    {Py_tp_doc, PyDoc_STR("A call of Map.fetch_async(): a coroutine that is made in C.")},
    {Py_tp_dealloc, fetch_dealloc},
    {Py_tp_traverse, fetch_traverse},
    {Py_tp_clear, fetch_clear},
    {Py_tp_repr, fetch_repr},
    {Py_tp_methods, fetch_methods},
    {Py_tp_getset, fetch_attributes},
    {Py_am_await, fetch_await},
    {Py_am_send, fetch_am_send},
    {Py_tp_iter, PyObject_SelfIter}, /* `yield from fetch.__await__()` wants that */
    {Py_tp_iternext, fetch_next},
    {0, NULL},
};

static PyType_Spec fetch_spec = {
    .name = "larder._larder.FetchCoroutine",
    .basicsize = (int)offsetof(fetch_object, values),
    .itemsize = (int)sizeof(PyObject *),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_HAVE_GC,
    .slots = fetch_slots,
};

int coroutine_add(PyObject *module)
{
    name_close = PyUnicode_InternFromString("close");
    name_throw = PyUnicode_InternFromString("throw");
    fetch_type = module_add_type(module, &fetch_spec);
    return name_close == NULL || name_throw == NULL || fetch_type == NULL ? -1 : 0;
}
