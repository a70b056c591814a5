/* module.c: larder._larder, the extension module: its types, and larder.h's numbers.
 */
#include "binding.h"
#include "http.h"

#define NUMBER(name)                                                                               \
    {                                                                                              \
#name, LARDER_##name                                                                       \
    }

static const struct number {
    const char *name;
    long value;
} numbers[] = {
    NUMBER(OK),
    NUMBER(MISS),
    NUMBER(STALE),
    NUMBER(EXISTS),
    NUMBER(CONFLICT),
    NUMBER(ABSENT),
    NUMBER(REFRESH),
    NUMBER(FILL),
    NUMBER(WAIT),
    NUMBER(SKIP),
    NUMBER(EBUSY),
    NUMBER(EVENT_SET),
    NUMBER(EVENT_DELETE),
    NUMBER(EVENT_INVALIDATE),
    NUMBER(EVENT_EVICT),
    NUMBER(EVENT_EXPIRE),
    NUMBER(EVENT_NAMED),
    NUMBER(CAUSE_NONE),
    NUMBER(CAUSE_REPLICA),
    NUMBER(CAUSE_KEY),
    NUMBER(CAUSE_GROUP),
    NUMBER(CAUSE_TAG),
    NUMBER(CAUSE_PREFIX),
    NUMBER(CAUSE_MATCH),
    NUMBER(CAUSE_CLEAR),
    NUMBER(CAUSE_SMALL),
    NUMBER(CAUSE_MAIN),
    NUMBER(CAUSE_DEAD),
    NUMBER(LATENCY_HIT),
    NUMBER(LATENCY_MISS),
    NUMBER(LATENCY_SET),
    NUMBER(LATENCY_DELETE),
    NUMBER(LATENCY_FETCH),
    NUMBER(KEY_MAX),
    NUMBER(NAME_MAX),
    NUMBER(TAGS_MAX),
    NUMBER(MANY_MAX),
    NUMBER(HTTP_ROUTE),
    NUMBER(HTTP_GATEWAY),
    NUMBER(HTTP_KEY_ROUTE),
    NUMBER(HTTP_KEY_METHOD),
    NUMBER(HTTP_KEY_URI),
    NUMBER(HTTP_LOOKUP),
    NUMBER(HTTP_BYPASS),
    NUMBER(HTTP_UNSAFE),
    NUMBER(HTTP_CHOSEN),
    NUMBER(HTTP_VARIANT),
    NUMBER(HTTP_OTHER),
    NUMBER(HTTP_FORWARD),
    NUMBER(HTTP_SERVE),
    NUMBER(HTTP_SERVE_STALE),
    NUMBER(HTTP_REVALIDATE),
    NUMBER(HTTP_UNAVAILABLE),
    NUMBER(HTTP_HIT),
    NUMBER(HTTP_MISS),
    NUMBER(HTTP_BYPASSED),
    NUMBER(HTTP_STALE_HIT),
};

PyTypeObject *module_add_type(PyObject *module, PyType_Spec *spec)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromSpec(spec);
    if (type == NULL || PyModule_AddType(module, type) != 0) {
        Py_XDECREF((PyObject *)type);
        return NULL;
    }
    return type; /* static state keeps this reference for good */
}

PyObject *module_new_object(PyTypeObject *type)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    return allocate(type, 0);
}

void module_free_object(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF((PyObject *)type);
}

static PyObject *module_version(PyObject *self, PyObject *ignored)
{
    (void)self;
    (void)ignored;
    return PyUnicode_FromString(larder_version_text());
}

static PyObject *module_check_policy(PyObject *self, PyObject *const *values, Py_ssize_t count,
                                     PyObject *names)
{
    (void)self;
    struct arguments arguments = {values, count, names};
    struct policy policy;
    if (!arguments_counted(&arguments, "check_policy", 0, 0) ||
        policy_take_all(&policy, &arguments, "fetch_async") != 0) {
        return NULL;
    }
    policy_release(&policy);
    Py_RETURN_NONE;
}

static PyObject *module_seconds(PyObject *self, PyObject *arguments)
{
    (void)self;
    PyObject *duration;
    const char *name;
    int64_t ms = 0;
    if (!PyArg_ParseTuple(arguments, "Os:seconds", &duration, &name) ||
        convert_duration(duration, name, &ms) != 0) {
        return NULL;
    }
    return PyFloat_FromDouble((double)ms / 1000);
}

static PyObject *module_http_decode(PyObject *self, PyObject *bytes)
{
    (void)self;
    if (!PyBytes_Check(bytes)) {
        PyErr_SetString(PyExc_TypeError, "http_decode() takes bytes");
        return NULL;
    }
    return http_stored_decode(bytes);
}

static PyObject *module_http_etag(PyObject *self, PyObject *bytes)
{
    (void)self;
    char text[LARDER_HTTP_ETAG_SIZE];
    if (!PyBytes_Check(bytes)) {
        PyErr_SetString(PyExc_TypeError, "http_etag() takes bytes");
        return NULL;
    }
    larder_http_etag(http_view(bytes), text);
    return PyUnicode_FromString(text);
}

static PyMethodDef module_methods[] = {
    METHOD("http_decode", module_http_decode, METH_O,
           "http_decode(bytes) -> HttpStored\n\nNone: these are no stored response."),
    METHOD("http_etag", module_http_etag, METH_O,
           "http_etag(body) -> str\n\nA weak entity tag, the same everywhere and for ever."),
    METHOD("check_policy", module_check_policy, METHOD_FAST,
           "check_policy(**policy)\n\nRaise what Map.set() would raise for these arguments."),
    METHOD("seconds", module_seconds, METH_VARARGS,
           "seconds(duration, name) -> float\n\nOf an int, float or timedelta, to the millisecond; "
           "the argument of that name is the one that errors tell of."),
    METHOD("version_text", module_version, METH_NOARGS,
           "version_text() -> str\n\nMAJOR.MINOR.PATCH of the liblarder that is loaded."),
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "larder._larder",
    .m_doc = PyDoc_STR("liblarder for Python; use the package larder."),
    .m_size = -1, /* one a process, like the library */
    .m_methods = module_methods,
};

PyMODINIT_FUNC PyInit__larder(void);

PyMODINIT_FUNC PyInit__larder(void)
{
    PyObject *module = PyModule_Create(&definition);
    int failed = module == NULL || errors_add(module) != 0 || entry_add(module) != 0 ||
                 lease_add(module) != 0 || asked_add(module) != 0 || follow_add(module) != 0 ||
                 view_add(module) != 0 || http_add(module) != 0 || fetch_add(module) != 0 ||
                 map_add(module) != 0 || session_add(module) != 0;
    for (size_t i = 0; !failed && i < sizeof numbers / sizeof numbers[0]; i++) {
        failed = PyModule_AddIntConstant(module, numbers[i].name, numbers[i].value) != 0;
    }
    if (failed) {
        Py_CLEAR(module);
    }
    return module;
}
