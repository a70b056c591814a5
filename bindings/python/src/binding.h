/* binding.h: what the files of the extension module larder._larder share.
 *
 * The module is written against Python's limited API of 3.11, so that one built file serves every
 * later version too. All of its state is static: liblarder is one per process as well, and the
 * module refuses to be loaded a second time. Everything here needs the GIL unless it says so.
 */
#ifndef LARDER_PYTHON_BINDING_H
#define LARDER_PYTHON_BINDING_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <larder.h>
#include <stdbool.h>

/* ---- errors.c -------------------------------------------------------------------------------- */

int errors_add(PyObject *module);

/* Raise the exception of an error code, with what larder_last_error() of this thread says. Returns
 * NULL, so that callers return it. */
PyObject *errors_raise(int code);

/* Raise ClosedError. */
void errors_closed(void);

/* Whether the exception that is set is one of ours. */
bool errors_is_ours(void);

/* ---- convert.c: bytes, times ----------------------------------------------------------------- */

/* Bytes that somebody else owns: of a str (as UTF-8), or of an object with the buffer interface. */
struct bytes_in {
    const void *data;
    size_t size;
    Py_buffer buffer;
    bool held; /* buffer is to be released */
};

/* 0, or -1 with an exception that names `what`. The object must outlive the struct. */
int bytes_in_take(struct bytes_in *bytes, PyObject *object, const char *what);
void bytes_in_release(struct bytes_in *bytes);

/* Seconds (int, float, timedelta) to milliseconds: to the nearest, but never from something to
 * nothing. Negative, infinite and NaN are a ValueError that names `what`. None is 0. */
int convert_duration(PyObject *object, const char *what, int64_t *ms);

/* The same where less than nothing has a meaning. */
int convert_signed_duration(PyObject *object, const char *what, int64_t *ms);

/* A datetime or seconds since the epoch to milliseconds since the epoch. */
int convert_instant(PyObject *object, const char *what, int64_t *ms);

/* An unsigned number. */
int convert_size(PyObject *object, const char *what, uint64_t *size);

/* Milliseconds since the epoch as float seconds. */
PyObject *convert_time_out(int64_t ms);

/* How a wait stands: None while it goes on. What a loop asks of all it waits for, at each message.
 */
PyObject *convert_outcome(int outcome);

/* ---- arguments.c: fast calls ----------------------------------------------------------------- */

struct arguments {
    PyObject *const *values;
    Py_ssize_t count; /* positional ones */
    PyObject *names;  /* tuple, or NULL */
};

/* Whether between least and most arguments came by position; else a TypeError. */
bool arguments_counted(const struct arguments *arguments, const char *function, Py_ssize_t least,
                       Py_ssize_t most);
Py_ssize_t arguments_named(const struct arguments *arguments);
PyObject *arguments_name(const struct arguments *arguments, Py_ssize_t i);
PyObject *arguments_value(const struct arguments *arguments, Py_ssize_t i); /* of the i-th name */
bool arguments_is(PyObject *name, const char *text);
/* TypeError: there is no such argument. Returns -1. */
int arguments_unknown(const char *function, PyObject *name);

/* ---- policy.c -------------------------------------------------------------------------------- */

struct policy {
    larder_policy policy;
    struct bytes_in group;
    PyObject *held; /* tuple that owns the tags */
    PyObject *offset;
    unsigned expiries; /* how many kinds were named: one at most */
    unsigned taken;    /* tags that are to be released; those behind are not even zeroed */
    struct bytes_in tags[LARDER_TAGS_MAX];
    larder_bytes names[LARDER_TAGS_MAX];
};

void policy_begin(struct policy *policy);
/* Take one keyword argument: 1, 0 where it is none of a policy's, -1 with an exception. */
int policy_take(struct policy *policy, PyObject *name, PyObject *value);
/* After the last: 0, or -1 with an exception. */
int policy_finish(struct policy *policy);
void policy_release(struct policy *policy);
/* Take all that is named, and nothing else; on -1 nothing is held. */
int policy_take_all(struct policy *policy, const struct arguments *arguments, const char *function);
/* The same of a dict (NULL: nothing), whose values must outlive the policy. */
int policy_take_dict(struct policy *policy, PyObject *dict, const char *function);
/* The expiry among named arguments (ttl, at, every and offset, sliding). */
int policy_take_expiry(larder_expiry *expiry, const struct arguments *arguments,
                       const char *function);

/* ---- map.c ----------------------------------------------------------------------------------- */

typedef struct map_object {
    PyObject_HEAD larder *handle; /* NULL: closed */
    unsigned users;               /* calls that are inside without the GIL; the last one closes */
    bool closing;
    PyObject *watch; /* larder.Map's, used last by a loop; or NULL */
} map_object;

/* Keep the handle open over a call without the GIL: NULL with an exception if it is closed. */
larder *map_enter(map_object *map);
void map_leave(map_object *map);
/* For calls that keep the GIL. */
larder *map_handle(map_object *map);

/* The value as a new reference, with LARDER_OK; another outcome, or an error's code and its
 * exception.
 */
int map_read(map_object *map, const struct bytes_in *key, PyObject **value);

extern PyTypeObject *map_type;
int map_add(PyObject *module);

/* Methods of Map that live in other files. */
extern PyMethodDef map_write_methods[], map_many_methods[], map_lease_methods[],
    map_asked_methods[], map_event_methods[], map_view_methods[], map_figure_methods[],
    map_fetch_methods[];

/* ---- entry.c --------------------------------------------------------------------------------- */

int entry_add(PyObject *module);
/* value is taken over; NULL is None. */
PyObject *entry_new(int outcome, PyObject *value, const larder_info *info);
PyObject *version_new(const larder_version *version);
int version_take(PyObject *object, larder_version *version);

/* ---- module.c -------------------------------------------------------------------------------- */

/* A new type from its specification, added to the module under its name. */
PyTypeObject *module_add_type(PyObject *module, PyType_Spec *spec);
/* A new, zeroed object of such a type; and the end of one whose members are gone. */
PyObject *module_new_object(PyTypeObject *type);
void module_free_object(PyObject *object);

/* ---- asked.c, fetch.c, lease.c, follow.c, view.c, session.c --------------------------------- */

int asked_add(PyObject *module);
int fetch_add(PyObject *module);
int lease_add(PyObject *module);
int follow_add(PyObject *module);
int view_add(PyObject *module);
int session_add(PyObject *module); /* after map_add() */

/* Run one statement that may wait. */
#define WITHOUT_GIL(statement)                                                                     \
    do {                                                                                           \
        PyThreadState *saved_thread = PyEval_SaveThread();                                         \
        statement;                                                                                 \
        PyEval_RestoreThread(saved_thread);                                                        \
    } while (0)

#define METHOD(name, function, flags, doc)                                                         \
    {                                                                                              \
        name, (PyCFunction)(void (*)(void))(function), flags, PyDoc_STR(doc)                       \
    }
#define METHOD_FAST METH_FASTCALL | METH_KEYWORDS

#endif
