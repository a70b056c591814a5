/* session.c: larder._larder.Sessions: larder_session.h over one map. Fields are bytes here; what
 * they mean is larder.sessions' (JSON).
 */
#include <larder_session.h>
#include <string.h>

#include "binding.h"

typedef struct sessions_object {
    PyObject_HEAD map_object *map;
    PyObject *prefix; /* bytes */
    larder_session_options options;
} sessions_object;

static PyTypeObject *sessions_type;

/* ---- Fields ---------------------------------------------------------------------------------- */

struct fields {
    PyObject *held; /* a copy of the dict: what it names stays */
    size_t count;
    larder_session_field list[LARDER_SESSION_FIELDS_MAX];
    struct bytes_in bytes[2 * LARDER_SESSION_FIELDS_MAX];
};

static void fields_release(struct fields *fields)
{
    for (size_t i = 0; i < 2 * fields->count; i++) {
        bytes_in_release(&fields->bytes[i]);
    }
    Py_CLEAR(fields->held);
    PyMem_Free(fields);
}

/* Of a dict whose values are bytes, or None: the field goes. NULL with an exception. */
static struct fields *fields_take(PyObject *dict)
{
    PyObject *name = NULL, *value = NULL;
    Py_ssize_t place = 0;
    if (!PyDict_Check(dict)) {
        PyErr_SetString(PyExc_TypeError, "fields: a dict");
        return NULL;
    }
    if (PyDict_Size(dict) > (Py_ssize_t)LARDER_SESSION_FIELDS_MAX) {
        PyErr_Format(PyExc_ValueError, "%zd fields: the limit is %u", PyDict_Size(dict),
                     LARDER_SESSION_FIELDS_MAX);
        return NULL;
    }
    struct fields *fields = PyMem_Calloc(1, sizeof *fields);
    if (fields == NULL) {
        (void)PyErr_NoMemory();
        return NULL;
    }
    fields->held = PyDict_Copy(dict);
    if (fields->held == NULL) {
        fields_release(fields);
        return NULL;
    }
    while (PyDict_Next(fields->held, &place, &name, &value)) {
        struct bytes_in *bytes = &fields->bytes[2 * fields->count];
        larder_session_field *field = &fields->list[fields->count];
        if (bytes_in_take(&bytes[0], name, "name of a field") != 0) {
            fields_release(fields);
            return NULL;
        }
        fields->count++;
        field->name = (larder_bytes){bytes[0].data, bytes[0].size};
        if (value == Py_None) {
            field->flags = LARDER_SESSION_REMOVE;
        } else if (bytes_in_take(&bytes[1], value, "value of a field") != 0) {
            fields_release(fields);
            return NULL;
        }
        field->value = (larder_bytes){bytes[1].data, bytes[1].size};
    }
    return fields;
}

static PyObject *bytes_of(larder_bytes bytes)
{
    return PyBytes_FromStringAndSize(bytes.data, (Py_ssize_t)bytes.size);
}

/* (user, created, expires, fields) */
static PyObject *session_new(const larder_session *session)
{
    PyObject *fields = PyDict_New();
    for (size_t i = 0; fields != NULL && i < session->field_count; i++) {
        PyObject *name = bytes_of(session->fields[i].name);
        PyObject *value = name == NULL ? NULL : bytes_of(session->fields[i].value);
        if (value == NULL || PyDict_SetItem(fields, name, value) != 0) {
            Py_CLEAR(fields);
        }
        Py_XDECREF(name);
        Py_XDECREF(value);
    }
    if (fields == NULL) {
        return NULL;
    }
    PyObject *created = convert_time_out(session->created_ms);
    PyObject *expires = convert_time_out(session->expires_ms);
    PyObject *user = bytes_of(session->user);
    if (created == NULL || expires == NULL || user == NULL) {
        Py_XDECREF(created);
        Py_XDECREF(expires);
        Py_XDECREF(user);
        Py_DECREF(fields);
        return NULL;
    }
    return Py_BuildValue("(NNNN)", user, created, expires, fields);
}

/* ---- Calls ----------------------------------------------------------------------------------- */

enum call { CREATE, GET, UPDATE, RENEW, DELETE, DELETE_USER };

struct request {
    enum call call;
    struct bytes_in name; /* id, or user */
    struct bytes_in user; /* renew */
    bool has_user;
    struct fields *fields;
    larder_session session;
    larder_session_id id;
    uint64_t count;
};

static int call_library(larder *handle, const larder_session_options *options,
                        struct request *request)
{
    const struct bytes_in *name = &request->name;
    const larder_session_field *list = request->fields == NULL ? NULL : request->fields->list;
    size_t count = request->fields == NULL ? 0 : request->fields->count;
    larder_bytes user = {request->user.data, request->user.size};
    switch (request->call) {
    case CREATE:
        return larder_session_create(handle, options, (larder_bytes){name->data, name->size}, list,
                                     count, &request->id);
    case GET:
        return larder_session_get(handle, options, name->data, name->size, &request->session);
    case UPDATE:
        return larder_session_update(handle, options, name->data, name->size, list, count,
                                     &request->session);
    case RENEW:
        return larder_session_renew(handle, options, name->data, name->size,
                                    request->has_user ? &user : NULL, &request->id);
    case DELETE:
        return larder_session_delete(handle, options, name->data, name->size);
    case DELETE_USER:
    default:
        return larder_session_delete_user(handle, options, (larder_bytes){name->data, name->size},
                                          &request->count);
    }
}

static PyObject *answer(struct request *request, int result)
{
    if (result < 0) {
        return errors_raise(result);
    }
    switch (request->call) {
    case CREATE:
        return PyUnicode_FromString(request->id.text);
    case RENEW:
        return result == LARDER_OK ? PyUnicode_FromString(request->id.text) : Py_NewRef(Py_None);
    case GET:
    case UPDATE:
        return result == LARDER_OK ? session_new(&request->session) : Py_NewRef(Py_None);
    case DELETE:
        return PyBool_FromLong(result == LARDER_OK);
    case DELETE_USER:
    default:
        return PyLong_FromUnsignedLongLong(request->count);
    }
}

static PyObject *run(PyObject *self, struct request *request)
{
    sessions_object *sessions = (sessions_object *)self;
    larder *handle = map_enter(sessions->map);
    if (handle == NULL) {
        return NULL;
    }
    int result;
    WITHOUT_GIL(result = call_library(handle, &sessions->options, request));
    PyObject *out = answer(request, result);
    larder_session_free(&request->session);
    map_leave(sessions->map);
    return out;
}

static PyObject *call(PyObject *self, PyObject *arguments, enum call kind, const char *format)
{
    struct request request = {.call = kind};
    PyObject *name = NULL, *second = Py_None, *out = NULL;
    if (!PyArg_ParseTuple(arguments, format, &name, &second) ||
        bytes_in_take(&request.name, name, kind == CREATE ? "user" : "id") != 0) {
        return NULL;
    }
    bool taken = true;
    if (kind == RENEW && second != Py_None) {
        request.has_user = true;
        taken = bytes_in_take(&request.user, second, "user") == 0;
    } else if (second != Py_None) {
        request.fields = fields_take(second);
        taken = request.fields != NULL;
    }
    if (taken) {
        out = run(self, &request);
    }
    if (request.fields != NULL) {
        fields_release(request.fields);
    }
    bytes_in_release(&request.user);
    bytes_in_release(&request.name);
    return out;
}

static PyObject *sessions_create(PyObject *self, PyObject *arguments)
{
    return call(self, arguments, CREATE, "O|O:create");
}

static PyObject *sessions_get(PyObject *self, PyObject *arguments)
{
    return call(self, arguments, GET, "O:get");
}

static PyObject *sessions_update(PyObject *self, PyObject *arguments)
{
    return call(self, arguments, UPDATE, "OO:update");
}

static PyObject *sessions_renew(PyObject *self, PyObject *arguments)
{
    return call(self, arguments, RENEW, "O|O:renew");
}

static PyObject *sessions_delete(PyObject *self, PyObject *arguments)
{
    return call(self, arguments, DELETE, "O:delete");
}

static PyObject *sessions_delete_user(PyObject *self, PyObject *arguments)
{
    return call(self, arguments, DELETE_USER, "O:delete_user");
}

/* ---- The type -------------------------------------------------------------------------------- */

static PyObject *sessions_new(PyTypeObject *type, PyObject *arguments, PyObject *named)
{
    static char *names[] = {"map",      "ttl", "max_lifetime", "read_through", "prefix",
                            "max_size", NULL};
    PyObject *map = NULL, *ttl = Py_None, *lifetime = Py_None, *through = Py_None, *prefix = NULL,
             *size = NULL;
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "O|$OOOSO:Sessions", names, &map, &ttl,
                                     &lifetime, &through, &prefix, &size)) {
        return NULL;
    }
    int is_map = PyObject_IsInstance(map, (PyObject *)map_type);
    if (is_map <= 0) {
        if (is_map == 0) {
            PyErr_SetString(PyExc_TypeError, "Sessions() takes a Map");
        }
        return NULL;
    }
    sessions_object *self = (sessions_object *)module_new_object(type);
    if (self == NULL) {
        return NULL;
    }
    larder_session_options *options = &self->options;
    if (convert_duration(ttl, "ttl", &options->ttl_ms) != 0 ||
        convert_duration(lifetime, "max_lifetime", &options->max_lifetime_ms) != 0 ||
        convert_duration(through, "read_through", &options->read_through_ms) != 0 ||
        (size != NULL && convert_size(size, "max_size", &options->max_size) != 0)) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    if (prefix != NULL) {
        self->prefix = Py_NewRef(prefix);
        options->prefix = (larder_bytes){PyBytes_AsString(prefix), (size_t)PyBytes_Size(prefix)};
    }
    self->map = (map_object *)Py_NewRef(map);
    return (PyObject *)self;
}

static void sessions_dealloc(PyObject *self)
{
    sessions_object *sessions = (sessions_object *)self;
    Py_CLEAR(sessions->map);
    Py_CLEAR(sessions->prefix);
    module_free_object(self);
}

static PyMethodDef sessions_methods[] = {
    METHOD("create", sessions_create, METH_VARARGS,
           "create(user, fields={}) -> str\n\nA new session; its id is 256 bits of the kernel's."),
    METHOD("get", sessions_get, METH_VARARGS,
           "get(id) -> (user, created, expires, fields)\n\nOr None. Being read extends its life."),
    METHOD("update", sessions_update, METH_VARARGS,
           "update(id, fields) -> (user, created, expires, fields)\n\nMerge; a field that is None "
           "goes. None: there is no session, and it is never brought back."),
    METHOD("renew", sessions_renew, METH_VARARGS,
           "renew(id, user=None) -> str\n\nThe same session under a new id, the old one is worth "
           "nothing: at each login."),
    METHOD("delete", sessions_delete, METH_VARARGS, "delete(id) -> bool\n\nWhether it was there."),
    METHOD("delete_user", sessions_delete_user, METH_VARARGS,
           "delete_user(user) -> int\n\nAll sessions of a user; how many there were."),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot sessions_slots[] = {
    {Py_tp_doc, PyDoc_STR("Sessions(map, *, ttl=1800, max_lifetime=0, read_through=0,\n"
                          "    prefix=b'session:', max_size=65536)\n\n"
                          "larder_session.h over a map; larder.sessions is made of it.")},
    {Py_tp_new, sessions_new},
    {Py_tp_dealloc, sessions_dealloc},
    {Py_tp_methods, sessions_methods},
    {0, NULL},
};

static PyType_Spec sessions_spec = {
    .name = "larder._larder.Sessions",
    .basicsize = sizeof(sessions_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = sessions_slots,
};

static PyObject *module_session_cookie(PyObject *module, PyObject *arguments, PyObject *named)
{
    (void)module;
    static char *names[] = {"id", "name", "path", "domain", "max_age", "flags", NULL};
    PyObject *id = NULL, *age = Py_None;
    const char *text[3] = {NULL};
    Py_ssize_t sizes[3] = {0};
    unsigned int flags = 0;
    larder_cookie cookie = {.flags = 0};
    struct bytes_in taken;
    char buffer[LARDER_COOKIE_SIZE];
    size_t size = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "O|$z#z#z#OI:session_cookie", names, &id,
                                     &text[0], &sizes[0], &text[1], &sizes[1], &text[2], &sizes[2],
                                     &age, &flags) ||
        convert_duration(age, "max_age", &cookie.max_age_ms) != 0) {
        return NULL;
    }
    cookie.name = (larder_bytes){text[0], (size_t)sizes[0]};
    cookie.path = (larder_bytes){text[1], (size_t)sizes[1]};
    cookie.domain = (larder_bytes){text[2], (size_t)sizes[2]};
    cookie.flags = flags;
    memset(&taken, 0, sizeof taken);
    if (id != Py_None && bytes_in_take(&taken, id, "id") != 0) {
        return NULL;
    }
    int result = larder_cookie_write(&cookie, taken.data, taken.size, buffer, sizeof buffer, &size);
    bytes_in_release(&taken);
    return result < 0 ? errors_raise(result)
                      : PyUnicode_FromStringAndSize(buffer, (Py_ssize_t)size);
}

static PyObject *module_session_id(PyObject *module, PyObject *arguments)
{
    (void)module;
    const char *header = NULL, *name = NULL;
    Py_ssize_t header_size = 0, name_size = 0;
    larder_session_id id;
    if (!PyArg_ParseTuple(arguments, "y#y#:session_id", &header, &header_size, &name, &name_size)) {
        return NULL;
    }
    int result = larder_cookie_read((larder_bytes){header, (size_t)header_size},
                                    (larder_bytes){name, (size_t)name_size}, &id);
    if (result < 0) {
        return errors_raise(result);
    }
    return result == LARDER_OK ? PyUnicode_FromString(id.text) : Py_NewRef(Py_None);
}

static PyMethodDef session_functions[] = {
    METHOD("session_id", module_session_id, METH_VARARGS,
           "session_id(cookie_header, name) -> str\n\nThe id in a Cookie header, or None."),
    METHOD("session_cookie", module_session_cookie, METH_VARARGS | METH_KEYWORDS,
           "session_cookie(id, *, name='session', path='/', domain=None, max_age=1800, flags=0) "
           "-> str\n\nThe value of a Set-Cookie header; id None takes the cookie away."),
    {NULL, NULL, 0, NULL},
};

int session_add(PyObject *module)
{
    sessions_type = module_add_type(module, &sessions_spec);
    return sessions_type == NULL || PyModule_AddFunctions(module, session_functions) != 0 ? -1 : 0;
}
