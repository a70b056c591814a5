/* flight.c: the parts of larder._aio's Watch and Flight that every caller of one turn looks at:
 * whether a watch is of the loop that runs, the flight of a key, and joining that. What comes
 * later, when a wait ends, is Python's, which derives its classes from these.
 */
#include "fetch.h"

#include <math.h>
#include <pthread.h>
#include <structmember.h>
#include <unistd.h>

/* One map's descriptor in one loop. */
typedef struct watch_object {
    PyObject_HEAD PyObject *loop; /* weak reference */
    PyObject *flights;            /* dict */
    int file, pid;
} watch_object;

static PyTypeObject *watch_type, *flight_type;

static PyObject *name_create_future, *name_expire_at;

/* Asked of the kernel once: a thousand callers of one turn would each ask. */
static int own_pid;

static void begin_in_child(void)
{
    own_pid = (int)getpid();
}

/* ---- Watches --------------------------------------------------------------------------------- */

bool watch_is_of(PyObject *object, PyObject *loop)
{
    if (!PyObject_TypeCheck(object, watch_type)) {
        return false;
    }
    const watch_object *watch = (const watch_object *)object;
    return watch->file >= 0 && watch->pid == own_pid && watch->loop != NULL &&
           PyWeakref_GetObject(watch->loop) == loop;
}

int watch_flight(PyObject *object, PyObject *key, flight_object **flight)
{
    PyObject *found = NULL;
    *flight = NULL;
    if (PyObject_TypeCheck(object, watch_type)) {
        found = PyDict_GetItemWithError(((watch_object *)object)->flights, key);
        if (found == NULL) {
            return PyErr_Occurred() ? -1 : 0;
        }
    }
    if (found == NULL || !PyObject_TypeCheck(found, flight_type)) {
        PyErr_SetString(PyExc_TypeError, "a watch with flights");
        return -1;
    }
    *flight = (flight_object *)Py_NewRef(found);
    return 0;
}

static PyObject *watch_new(PyTypeObject *type, PyObject *arguments, PyObject *named)
{
    PyObject *self = PyType_GenericNew(type, arguments, named);
    if (self != NULL) {
        watch_object *watch = (watch_object *)self;
        watch->file = -1;
        watch->pid = own_pid;
        watch->flights = PyDict_New();
        if (watch->flights == NULL) {
            Py_CLEAR(self);
        }
    }
    return self;
}

static PyObject *watch_is_of_loop(PyObject *self, PyObject *loop)
{
    return PyBool_FromLong(watch_is_of(self, loop));
}

static int watch_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((watch_object *)self)->loop);
    Py_VISIT(((watch_object *)self)->flights);
    return 0;
}

static int watch_clear(PyObject *self)
{
    Py_CLEAR(((watch_object *)self)->loop);
    Py_CLEAR(((watch_object *)self)->flights);
    return 0;
}

static void watch_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)watch_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF((PyObject *)type);
}

static PyMethodDef watch_methods[] = {
    METHOD("is_of", watch_is_of_loop, METH_O,
           "is_of(loop) -> bool\n\nWhether it is open, of this loop, and of this process."),
    {NULL, NULL, 0, NULL},
};

static PyMemberDef watch_members[] = {
    {"_loop", T_OBJECT, offsetof(watch_object, loop), 0, PyDoc_STR("A weak reference.")},
    {"flights", T_OBJECT, offsetof(watch_object, flights), READONLY,
     PyDoc_STR("Of keys, the Flight of the coroutine of the loop that is at them.")},
    {"_file", T_INT, offsetof(watch_object, file), 0, PyDoc_STR("-1: closed.")},
    {"pid", T_INT, offsetof(watch_object, pid), READONLY, PyDoc_STR("Of the process it is of.")},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot watch_slots[] = {
    {Py_tp_doc, PyDoc_STR("What fetch_async() asks of a larder._aio.Watch.")},
    {Py_tp_new, watch_new},
    {Py_tp_dealloc, watch_dealloc},
    {Py_tp_traverse, watch_traverse},
    {Py_tp_clear, watch_clear},
    {Py_tp_methods, watch_methods},
    {Py_tp_members, watch_members},
    {0, NULL},
};

static PyType_Spec watch_spec = {
    .name = "larder._larder.Watch",
    .basicsize = sizeof(watch_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = watch_slots,
};

/* ---- Flights --------------------------------------------------------------------------------- */

/* Both, or neither: who stands behind one that is in one list alone would get another's deadline,
 * and the last of all none. */
static int list_follower(flight_object *flight, PyObject *future, PyObject *until)
{
    Py_ssize_t size = PyList_Size(flight->deadlines);
    if (PyList_Append(flight->deadlines, until) != 0) {
        return -1;
    }
    if (PyList_Append(flight->followers, future) != 0) {
        (void)PyList_SetSlice(flight->deadlines, size, size + 1, NULL);
        return -1;
    }
    return 0;
}

/* As little as can be, and no object beside the future, lest the collector come in between. */
PyObject *flight_follow(flight_object *flight, PyObject *loop, double deadline)
{
    PyObject *until = PyFloat_FromDouble(deadline), *timer = NULL;
    PyObject *future =
        until == NULL ? NULL : PyObject_CallMethodObjArgs(loop, name_create_future, NULL);
    bool failed = future == NULL || list_follower(flight, future, until) != 0;
    if (!failed && deadline < flight->expires_at) {
        timer = PyObject_CallMethodObjArgs((PyObject *)flight, name_expire_at, loop, until, NULL);
        failed = timer == NULL;
    }
    if (failed) {
        Py_CLEAR(future);
    }
    Py_XDECREF(timer);
    Py_XDECREF(until);
    return future;
}

static PyObject *flight_new(PyTypeObject *type, PyObject *arguments, PyObject *named)
{
    PyObject *self = PyType_GenericNew(type, arguments, named);
    if (self != NULL) {
        flight_object *flight = (flight_object *)self;
        flight->followers = PyList_New(0);
        flight->deadlines = PyList_New(0);
        flight->expires_at = INFINITY;
        if (flight->followers == NULL || flight->deadlines == NULL) {
            Py_CLEAR(self);
        }
    }
    return self;
}

static int flight_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((flight_object *)self)->followers);
    Py_VISIT(((flight_object *)self)->deadlines);
    return 0;
}

static int flight_clear(PyObject *self)
{
    Py_CLEAR(((flight_object *)self)->followers);
    Py_CLEAR(((flight_object *)self)->deadlines);
    return 0;
}

static void flight_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)flight_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF((PyObject *)type);
}

static PyMemberDef flight_members[] = {
    {"_followers", T_OBJECT, offsetof(flight_object, followers), READONLY, PyDoc_STR("Futures.")},
    {"_deadlines", T_OBJECT, offsetof(flight_object, deadlines), READONLY,
     PyDoc_STR("The followers', in their order.")},
    {"_expires_at", T_DOUBLE, offsetof(flight_object, expires_at), 0,
     PyDoc_STR("When the timer is due.")},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot flight_slots[] = {
    {Py_tp_doc, PyDoc_STR("What fetch_async() asks of a larder._aio.Flight.")},
    {Py_tp_new, flight_new},
    {Py_tp_dealloc, flight_dealloc},
    {Py_tp_traverse, flight_traverse},
    {Py_tp_clear, flight_clear},
    {Py_tp_members, flight_members},
    {0, NULL},
};

static PyType_Spec flight_spec = {
    .name = "larder._larder.Flight",
    .basicsize = sizeof(flight_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = flight_slots,
};

int flight_add(PyObject *module)
{
    begin_in_child();
    name_create_future = PyUnicode_InternFromString("create_future");
    name_expire_at = PyUnicode_InternFromString("_expire_at");
    watch_type = module_add_type(module, &watch_spec);
    flight_type = module_add_type(module, &flight_spec);
    if (name_create_future == NULL || name_expire_at == NULL || watch_type == NULL ||
        flight_type == NULL) {
        return -1;
    }
    if (pthread_atfork(NULL, NULL, begin_in_child) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}
