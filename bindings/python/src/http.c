/* http.c: the types of larder._larder that the HTTP rules work on: HttpPolicy, HttpRequest,
 * HttpStored. The rules themselves are liblarder's (larder_http.h); http_rules.c calls them.
 */
#include "http.h"

#include <string.h>
#include <structmember.h>

enum { ARENA = 16384, ARENA_MAX = 1 << 26 };

PyTypeObject *http_policy_type, *http_request_type, *http_stored_type;

/* ---- Bytes, fields, memory ------------------------------------------------------------------- */

PyObject *http_bytes(larder_bytes bytes)
{
    return PyBytes_FromStringAndSize(bytes.data, (Py_ssize_t)bytes.size);
}

larder_bytes http_view(PyObject *bytes)
{
    char *data = NULL;
    Py_ssize_t size = 0;
    if (bytes == NULL || PyBytes_AsStringAndSize(bytes, &data, &size) != 0) {
        return (larder_bytes){NULL, 0};
    }
    return (larder_bytes){data, (size_t)size};
}

static int take_field(larder_http_header *field, PyObject *pair)
{
    PyObject *name = NULL, *value = NULL;
    if (!PyTuple_Check(pair) || PyTuple_Size(pair) != 2 ||
        !PyBytes_Check(name = PyTuple_GetItem(pair, 0)) ||
        !PyBytes_Check(value = PyTuple_GetItem(pair, 1))) {
        PyErr_SetString(PyExc_TypeError, "headers: a list of (name, value), both of them bytes");
        return -1;
    }
    *field = (larder_http_header){http_view(name), http_view(value)};
    return 0;
}

int http_fields_take(struct http_fields *fields, PyObject *object)
{
    memset(fields, 0, sizeof *fields);
    PyObject *list = PySequence_Tuple(object);
    if (list == NULL) {
        return -1;
    }
    Py_ssize_t count = PyTuple_Size(list);
    fields->list = PyTuple_New(count); /* of tuples: a server may use lists */
    fields->fields = PyMem_Calloc((size_t)count + 1, sizeof *fields->fields);
    if (fields->list == NULL || fields->fields == NULL) {
        Py_DECREF(list);
        http_fields_release(fields);
        (void)PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *pair = PySequence_Tuple(PyTuple_GetItem(list, i));
        if (pair == NULL || take_field(&fields->fields[i], pair) != 0) {
            Py_XDECREF(pair);
            Py_DECREF(list);
            http_fields_release(fields);
            return -1;
        }
        (void)PyTuple_SetItem(fields->list, i, pair);
    }
    fields->count = (size_t)count;
    Py_DECREF(list);
    return 0;
}

void http_fields_release(struct http_fields *fields)
{
    PyMem_Free(fields->fields);
    fields->fields = NULL;
    Py_CLEAR(fields->list);
}

PyObject *http_fields_new(const larder_http_header *fields, size_t count)
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *pair =
            Py_BuildValue("(y#y#)", fields[i].name.data, (Py_ssize_t)fields[i].name.size,
                          fields[i].value.size == 0 ? "" : fields[i].value.data,
                          (Py_ssize_t)fields[i].value.size);
        if (pair == NULL || PyList_Append(list, pair) != 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(pair);
    }
    return list;
}

static int make_memory(struct http_memory *memory, size_t size)
{
    memory->arena = (larder_http_arena){.data = PyMem_Malloc(size), .size = size};
    if (memory->arena.data == NULL) {
        (void)PyErr_NoMemory();
        return -1;
    }
    return 0;
}

int http_memory_begin(struct http_memory *memory, size_t size)
{
    return make_memory(memory, size < ARENA ? ARENA : size);
}

bool http_memory_more(struct http_memory *memory, int result)
{
    if (result >= 0) {
        return false;
    }
    size_t wanted = memory->arena.wanted;
    if (result != LARDER_ESIZE || wanted <= memory->arena.size || wanted > ARENA_MAX) {
        (void)errors_raise(result);
        return false;
    }
    http_memory_end(memory);
    return make_memory(memory, wanted) == 0;
}

void http_memory_end(struct http_memory *memory)
{
    PyMem_Free(memory->arena.data);
    memory->arena.data = NULL;
}

/* ---- Policy ---------------------------------------------------------------------------------- */

static PyObject *policy_new(PyTypeObject *type, PyObject *arguments, PyObject *named)
{
    static char *names[] = {"kind",  "private",        "shared",   "ttl",           "expires",
                            "stale", "stale_if_error", "max_body", "status_header", NULL};
    unsigned int kind = 0;
    int private = 0, shared = 0;
    PyObject *ttl = Py_None, *expires = Py_None, *stale = Py_None, *if_error = Py_None,
             *max_body = NULL, *status_header = NULL;
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "|$IppOOOOOS:HttpPolicy", names, &kind,
                                     &private, &shared, &ttl, &expires, &stale, &if_error,
                                     &max_body, &status_header)) {
        return NULL;
    }
    http_policy_object *self = (http_policy_object *)module_new_object(type);
    if (self == NULL) {
        return NULL;
    }
    larder_http_policy *policy = &self->policy;
    policy->kind = kind;
    policy->flags =
        (private ? (uint32_t)LARDER_HTTP_PRIVATE : 0) | (shared ? (uint32_t)LARDER_HTTP_SHARED : 0);
    if (convert_duration(ttl, "ttl", &policy->ttl_ms) != 0 ||
        (expires != Py_None && convert_instant(expires, "expires", &policy->expires_ms) != 0) ||
        convert_duration(stale, "stale", &policy->stale_while_revalidate_ms) != 0 ||
        convert_duration(if_error, "stale_if_error", &policy->stale_if_error_ms) != 0 ||
        (max_body != NULL && convert_size(max_body, "max_body", &policy->max_body) != 0)) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    if (status_header != NULL) {
        self->status_header = Py_NewRef(status_header);
        policy->status_header = http_view(status_header);
    }
    return (PyObject *)self;
}

static void policy_dealloc(PyObject *self)
{
    Py_CLEAR(((http_policy_object *)self)->status_header);
    module_free_object(self);
}

static PyType_Slot policy_slots[] = {
    {Py_tp_doc,
     PyDoc_STR("HttpPolicy(*, kind=HTTP_ROUTE, private=False, shared=False, ttl=0, expires=None,\n"
               "    stale=0, stale_if_error=0, max_body=0, status_header=b'')\n\n"
               "struct larder_http_policy of larder_http.h; times are seconds.")},
    {Py_tp_new, policy_new},
    {Py_tp_dealloc, policy_dealloc},
    {0, NULL},
};

static PyType_Spec policy_spec = {
    .name = "larder._larder.HttpPolicy",
    .basicsize = sizeof(http_policy_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = policy_slots,
};

/* ---- Request --------------------------------------------------------------------------------- */

static PyObject *request_new(PyTypeObject *type, PyObject *arguments, PyObject *named)
{
    static char *names[] = {"method", "path", "query", "headers", "scheme", "authority", NULL};
    PyObject *parts[5] = {NULL}, *headers = NULL;
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "SSSO|SS:HttpRequest", names, &parts[0],
                                     &parts[1], &parts[2], &headers, &parts[3], &parts[4])) {
        return NULL;
    }
    http_request_object *self = (http_request_object *)module_new_object(type);
    if (self == NULL) {
        return NULL;
    }
    if (http_fields_take(&self->fields, headers) != 0) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    for (size_t i = 0; i < 5; i++) {
        self->parts[i] = Py_XNewRef(parts[i]);
    }
    self->request = (larder_http_request){
        .method = http_view(parts[0]),
        .path = http_view(parts[1]),
        .query = http_view(parts[2]),
        .scheme = http_view(parts[3]),
        .authority = http_view(parts[4]),
        .headers = self->fields.fields,
        .header_count = self->fields.count,
    };
    return (PyObject *)self;
}

static void request_dealloc(PyObject *self)
{
    http_request_object *request = (http_request_object *)self;
    http_fields_release(&request->fields);
    for (size_t i = 0; i < 5; i++) {
        Py_CLEAR(request->parts[i]);
    }
    module_free_object(self);
}

static PyType_Slot request_slots[] = {
    {Py_tp_doc, PyDoc_STR("HttpRequest(method, path, query, headers, scheme=b'', authority=b'')\n\n"
                          "A request as it came, in bytes; headers are (name, value) pairs.")},
    {Py_tp_new, request_new},
    {Py_tp_dealloc, request_dealloc},
    {Py_tp_methods, http_rule_methods},
    {0, NULL},
};

static PyType_Spec request_spec = {
    .name = "larder._larder.HttpRequest",
    .basicsize = sizeof(http_request_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = request_slots,
};

/* ---- Stored responses ------------------------------------------------------------------------ */

PyObject *http_stored_decode(PyObject *bytes)
{
    http_stored_object *self = (http_stored_object *)module_new_object(http_stored_type);
    size_t size = 32 * (LARDER_HTTP_HEADERS_MAX + 1);
    if (self == NULL) {
        return NULL;
    }
    larder_http_arena arena = {.size = size};
    self->memory = arena.data = PyMem_Malloc(size);
    if (self->memory == NULL) {
        Py_DECREF((PyObject *)self);
        return PyErr_NoMemory();
    }
    self->bytes = Py_NewRef(bytes);
    int result = larder_http_decode(http_view(bytes), &arena, &self->stored);
    if (result != LARDER_OK) { /* not of this form: a miss */
        Py_DECREF((PyObject *)self);
        Py_RETURN_NONE;
    }
    return (PyObject *)self;
}

static void stored_dealloc(PyObject *self)
{
    http_stored_object *stored = (http_stored_object *)self;
    PyMem_Free(stored->memory);
    Py_CLEAR(stored->bytes);
    module_free_object(self);
}

static PyObject *stored_status(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromUnsignedLong(((http_stored_object *)self)->stored.response.status);
}

static PyObject *stored_body(PyObject *self, void *closure)
{
    (void)closure;
    return http_bytes(((http_stored_object *)self)->stored.response.body);
}

static PyObject *stored_headers(PyObject *self, void *closure)
{
    (void)closure;
    const larder_http_response *response = &((http_stored_object *)self)->stored.response;
    return http_fields_new(response->headers, response->header_count);
}

static PyGetSetDef stored_attributes[] = {
    {"status", stored_status, NULL, PyDoc_STR("Its status."), NULL},
    {"headers", stored_headers, NULL, PyDoc_STR("Its header fields, in order."), NULL},
    {"body", stored_body, NULL, PyDoc_STR("Its body."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot stored_slots[] = {
    {Py_tp_doc, PyDoc_STR("A response as the cache keeps it, see http_decode().")},
    {Py_tp_dealloc, stored_dealloc},
    {Py_tp_getset, stored_attributes},
    {0, NULL},
};

static PyType_Spec stored_spec = {
    .name = "larder._larder.HttpStored",
    .basicsize = sizeof(http_stored_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = stored_slots,
};

int http_add(PyObject *module)
{
    http_policy_type = module_add_type(module, &policy_spec);
    http_request_type = module_add_type(module, &request_spec);
    http_stored_type = module_add_type(module, &stored_spec);
    return http_policy_type == NULL || http_request_type == NULL || http_stored_type == NULL ? -1
                                                                                             : 0;
}
