/* arguments.c: the arguments of a fast call: some by position, the others by name. */
#include "binding.h"

bool arguments_counted(const struct arguments *arguments, const char *function, Py_ssize_t least,
                       Py_ssize_t most)
{
    if (arguments->count >= least && arguments->count <= most) {
        return true;
    }
    PyErr_Format(PyExc_TypeError, "%s() takes %zd to %zd arguments by position, not %zd", function,
                 least, most, arguments->count);
    return false;
}

Py_ssize_t arguments_named(const struct arguments *arguments)
{
    return arguments->names == NULL ? 0 : PyTuple_Size(arguments->names);
}

PyObject *arguments_name(const struct arguments *arguments, Py_ssize_t i)
{
    return PyTuple_GetItem(arguments->names, i);
}

PyObject *arguments_value(const struct arguments *arguments, Py_ssize_t i)
{
    return arguments->values[arguments->count + i];
}

bool arguments_is(PyObject *name, const char *text)
{
    return PyUnicode_CompareWithASCIIString(name, text) == 0;
}

int arguments_unknown(const char *function, PyObject *name)
{
    PyErr_Format(PyExc_TypeError, "%s() has no argument '%U'", function, name);
    return -1;
}
