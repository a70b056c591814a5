/* errors.c: one exception class for each error of liblarder, all of them under larder.Error.
 *
 * The message is the library's own, which names the thing and the limit.
 */
#include "binding.h"

#include <string.h>

enum { CLOSED = 0 }; /* no number of larder.h's */

static PyObject *error_class;

static struct kind {
    int code;
    const char *name, *base, *doc; /* base: a built-in exception it is as well */
    PyObject *class;
} kinds[] = {
    {LARDER_EBUSY, "BusyError", NULL, "Another process held a lock past the deadline.", NULL},
    {LARDER_ESIZE, "SizeError", NULL, "The buffer is too small.", NULL},
    {LARDER_EINVAL, "InvalidError", "ValueError", "An argument is not valid.", NULL},
    {LARDER_ETOOBIG, "TooBigError", "ValueError", "A key or value is over the limit.", NULL},
    {LARDER_EFULL, "FullError", NULL, "No space, and nothing could be evicted in time.", NULL},
    {LARDER_ENAMESPACE, "NamespaceError", NULL, "The map belongs to another PID namespace.", NULL},
    {LARDER_ECORRUPT, "CorruptError", NULL, "Damaged data in the map.", NULL},
    {LARDER_EFORMAT, "FormatError", NULL, "The map was made by another version or machine.", NULL},
    {LARDER_EACCESS, "AccessError", "PermissionError", "Permissions of the map's files.", NULL},
    {LARDER_ENOTFOUND, "NotFoundError", "LookupError", "There is no such map.", NULL},
    {LARDER_ENOSPACE, "NoSpaceError", NULL, "The file system cannot hold the map.", NULL},
    {LARDER_ENOMEM, "NoMemoryError", "MemoryError", "No memory.", NULL},
    {LARDER_ESYSTEM, "SystemCallError", NULL, "A system call failed.", NULL},
    {LARDER_ENUMBER, "NumberError", "ValueError", "The value is not a decimal number.", NULL},
    {LARDER_EOVERFLOW, "RangeError", "OverflowError", "A number or time does not fit.", NULL},
    {LARDER_EREADONLY, "ReadOnlyError", NULL, "The map was opened read-only.", NULL},
    {LARDER_EUNSUPPORTED, "UnsupportedError", NULL, "This version cannot do that.", NULL},
    {LARDER_ELIMIT, "LimitError", NULL, "A bounded resource is used up.", NULL},
    {LARDER_EDUPLICATE, "DuplicateError", NULL, "A second liblarder in one process.", NULL},
    {CLOSED, "ClosedError", "ValueError", "The map is closed; of Python alone.", NULL},
};

enum { KINDS = sizeof kinds / sizeof kinds[0] };

static PyObject *new_class(const char *name, const char *doc, PyObject *bases, int code)
{
    char full[64];
    PyObject *number = PyLong_FromLong(code);
    PyObject *dict = number == NULL ? NULL : Py_BuildValue("{sO}", "code", number);
    PyObject *class = NULL;
    if (dict != NULL) {
        (void)PyOS_snprintf(full, sizeof full, "larder.%s", name);
        class = PyErr_NewExceptionWithDoc(full, doc, bases, dict);
    }
    Py_XDECREF(dict);
    Py_XDECREF(number);
    return class;
}

static PyObject *base_of(const struct kind *kind)
{
    if (kind->base == NULL) {
        return Py_NewRef(error_class);
    }
    PyObject *builtins = PyImport_ImportModule("builtins");
    PyObject *other = builtins == NULL ? NULL : PyObject_GetAttrString(builtins, kind->base);
    PyObject *bases = other == NULL ? NULL : PyTuple_Pack(2, error_class, other);
    Py_XDECREF(other);
    Py_XDECREF(builtins);
    return bases;
}

int errors_add(PyObject *module)
{
    error_class = new_class("Error",
                            "What liblarder could not do. `code` is its number in larder.h; the "
                            "message names the thing and the limit.",
                            PyExc_Exception, 0);
    if (error_class == NULL || PyModule_AddObjectRef(module, "Error", error_class) != 0) {
        return -1;
    }
    for (size_t i = 0; i < KINDS; i++) {
        struct kind *kind = &kinds[i];
        PyObject *bases = base_of(kind);
        if (bases != NULL) {
            kind->class = new_class(kind->name, kind->doc, bases, kind->code);
            Py_DECREF(bases);
        }
        if (kind->class == NULL || PyModule_AddObjectRef(module, kind->name, kind->class) != 0) {
            return -1;
        }
    }
    return 0;
}

PyObject *errors_raise(int code)
{
    const char *text = larder_last_error();
    if (*text == '\0') {
        text = larder_strerror(code);
    }
    /* Names of files and keys may be any bytes. */
    PyObject *message = PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "backslashreplace");
    if (message == NULL) {
        return NULL;
    }
    PyObject *class = error_class;
    for (size_t i = 0; i < KINDS; i++) {
        if (kinds[i].code == code) {
            class = kinds[i].class;
        }
    }
    PyErr_SetObject(class, message);
    Py_DECREF(message);
    return NULL;
}

void errors_closed(void)
{
    for (size_t i = 0; i < KINDS; i++) {
        if (kinds[i].code == CLOSED) {
            PyErr_SetString(kinds[i].class, "the map is closed");
        }
    }
}

bool errors_is_ours(void)
{
    return PyErr_ExceptionMatches(error_class) != 0;
}
