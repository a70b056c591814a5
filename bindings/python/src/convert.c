/* convert.c: Python's bytes, durations and instants to the library's.
 *
 * Python counts in seconds, the library in milliseconds. A positive time never becomes 0, which
 * means "no expiry", and nothing that is no number of seconds passes for one.
 */
#include "binding.h"

#include <math.h>
#include <string.h>

int bytes_in_take(struct bytes_in *bytes, PyObject *object, const char *what)
{
    memset(bytes, 0, sizeof *bytes);
    if (PyUnicode_Check(object)) {
        Py_ssize_t size = 0;
        bytes->data = PyUnicode_AsUTF8AndSize(object, &size);
        bytes->size = (size_t)size;
        return bytes->data == NULL ? -1 : 0;
    }
    if (PyBytes_Check(object)) {
        char *data = NULL;
        Py_ssize_t size = 0;
        if (PyBytes_AsStringAndSize(object, &data, &size) != 0) {
            return -1;
        }
        bytes->data = data;
        bytes->size = (size_t)size;
        return 0;
    }
    if (!PyObject_CheckBuffer(object)) {
        PyObject *type = PyType_GetName(Py_TYPE(object));
        if (type != NULL) {
            PyErr_Format(PyExc_TypeError, "%s: bytes or str, not %U", what, type);
            Py_DECREF(type);
        }
        return -1;
    }
    if (PyObject_GetBuffer(object, &bytes->buffer, PyBUF_SIMPLE) != 0) {
        return -1;
    }
    bytes->held = true;
    bytes->data = bytes->buffer.buf;
    bytes->size = (size_t)bytes->buffer.len;
    return 0;
}

void bytes_in_release(struct bytes_in *bytes)
{
    if (bytes->held) {
        bytes->held = false;
        PyBuffer_Release(&bytes->buffer);
    }
}

/* ---- Times ----------------------------------------------------------------------------------- */

static int not_a_time(PyObject *object, const char *what)
{
    PyErr_Format(PyExc_TypeError, "%s: seconds as int or float, or a timedelta, not %R", what,
                 object);
    return -1;
}

static int range(const char *what)
{
    PyErr_Format(PyExc_OverflowError, "%s: so many seconds do not fit into 64 bits of milliseconds",
                 what);
    return -1;
}

static int from_double(double seconds, const char *what, int64_t *ms)
{
    if (!isfinite(seconds)) {
        PyErr_Format(PyExc_ValueError, "%s: a finite number of seconds", what);
        return -1;
    }
    double value = floor(seconds * 1000.0 + 0.5);
    if (value >= 9.2e18 || value <= -9.2e18) {
        return range(what);
    }
    *ms = (int64_t)value;
    if (*ms == 0 && seconds > 0) {
        *ms = 1;
    }
    return 0;
}

static int from_number(PyObject *object, const char *what, int64_t *ms)
{
    if (PyBool_Check(object)) {
        return not_a_time(object, what);
    }
    if (PyLong_Check(object)) {
        int overflow = 0;
        long long seconds = PyLong_AsLongLongAndOverflow(object, &overflow);
        if (seconds == -1 && PyErr_Occurred()) {
            return -1;
        }
        if (overflow != 0 || seconds > INT64_MAX / 1000 || seconds < INT64_MIN / 1000) {
            return range(what);
        }
        *ms = seconds * 1000;
        return 0;
    }
    if (PyFloat_Check(object)) {
        return from_double(PyFloat_AsDouble(object), what, ms);
    }
    return 1; /* something else */
}

/* The float that a method without arguments gives. */
static int from_method(PyObject *object, const char *method, const char *what, int64_t *ms)
{
    PyObject *name = PyUnicode_FromString(method);
    if (name == NULL) {
        return -1;
    }
    if (!PyObject_HasAttr(object, name)) {
        Py_DECREF(name);
        return not_a_time(object, what);
    }
    PyObject *seconds = PyObject_CallMethodObjArgs(object, name, NULL);
    Py_DECREF(name);
    if (seconds == NULL) {
        return -1;
    }
    double value = PyFloat_AsDouble(seconds);
    Py_DECREF(seconds);
    return value == -1.0 && PyErr_Occurred() ? -1 : from_double(value, what, ms);
}

int convert_signed_duration(PyObject *object, const char *what, int64_t *ms)
{
    *ms = 0;
    if (object == Py_None) {
        return 0;
    }
    int result = from_number(object, what, ms);
    return result == 1 ? from_method(object, "total_seconds", what, ms) : result;
}

int convert_duration(PyObject *object, const char *what, int64_t *ms)
{
    if (convert_signed_duration(object, what, ms) != 0) {
        return -1;
    }
    if (*ms < 0 || (PyFloat_Check(object) && PyFloat_AsDouble(object) < 0)) {
        PyErr_Format(PyExc_ValueError, "%s: %R is negative", what, object);
        return -1;
    }
    return 0;
}

int convert_instant(PyObject *object, const char *what, int64_t *ms)
{
    int result = from_number(object, what, ms);
    return result == 1 ? from_method(object, "timestamp", what, ms) : result;
}

int convert_size(PyObject *object, const char *what, uint64_t *size)
{
    if (!PyLong_Check(object) || PyBool_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s: an int, not %R", what, object);
        return -1;
    }
    unsigned long long value = PyLong_AsUnsignedLongLong(object);
    if (value == (unsigned long long)-1 && PyErr_Occurred()) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s: %R is negative or does not fit into 64 bits", what,
                     object);
        return -1;
    }
    *size = value;
    return 0;
}

PyObject *convert_time_out(int64_t ms)
{
    return PyFloat_FromDouble((double)ms / 1000.0);
}

PyObject *convert_outcome(int outcome)
{
    return outcome == LARDER_WAIT ? Py_NewRef(Py_None) : PyLong_FromLong(outcome);
}
