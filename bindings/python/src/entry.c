/* entry.c: larder.Entry, what a look-up found, with its times and marks; made cheaply, each
 * attribute only when it is asked for. Versions are tuples (clock, node).
 */
#include "binding.h"

#include <limits.h>
#include <string.h>
#include <structmember.h>
#include <time.h>

typedef struct entry_object {
    PyObject_HEAD PyObject *value;
    larder_info info;
    int outcome;
} entry_object;

static PyTypeObject *entry_type;

PyObject *version_new(const larder_version *version)
{
    return Py_BuildValue("(KI)", (unsigned long long)version->clock, (unsigned int)version->node);
}

/* One of a version's; what does not fit is refused, and not another version's. */
static int number_take(PyObject *object, const char *what, uint64_t most, uint64_t *number)
{
    if (!PyLong_Check(object)) {
        PyErr_Format(PyExc_TypeError, "version: the %s is an int, not %R", what, object);
        return -1;
    }
    unsigned long long value = PyLong_AsUnsignedLongLong(object);
    bool beyond = value == ULLONG_MAX && PyErr_Occurred() != NULL;
    if (beyond || value > most) {
        PyErr_Clear();
        PyErr_Format(PyExc_OverflowError, "version: the %s is 0 to %llu, not %R", what,
                     (unsigned long long)most, object);
        return -1;
    }
    *number = value;
    return 0;
}

int version_take(PyObject *object, larder_version *version)
{
    PyObject *clock = NULL, *node = NULL;
    uint64_t number = 0;
    memset(version, 0, sizeof *version);
    if (!PyTuple_Check(object)) {
        PyErr_Format(PyExc_TypeError, "version: the tuple of an Entry's version, not %R", object);
        return -1;
    }
    if (!PyArg_ParseTuple(object, "OO;version: a tuple (clock, node)", &clock, &node) ||
        number_take(clock, "clock", UINT64_MAX, &version->clock) != 0 ||
        number_take(node, "node", UINT32_MAX, &number) != 0) {
        return -1;
    }
    version->node = (uint32_t)number;
    return 0;
}

PyObject *entry_new(int outcome, PyObject *value, const larder_info *info)
{
    entry_object *entry = (entry_object *)module_new_object(entry_type);
    if (entry == NULL) {
        Py_XDECREF(value);
        return NULL;
    }
    entry->value = value == NULL ? Py_NewRef(Py_None) : value;
    entry->info = *info;
    entry->outcome = outcome;
    return (PyObject *)entry;
}

static void entry_dealloc(PyObject *self)
{
    entry_object *entry = (entry_object *)self;
    Py_CLEAR(entry->value);
    module_free_object(self);
}

/* ---- Attributes ------------------------------------------------------------------------------ */

enum attribute { STALE, ABSENT, VERSION, CREATED, EXPIRES, STALE_UNTIL, TTL, AGE, MARKED, SLIDING };

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static PyObject *time_or_none(int64_t ms, bool none)
{
    return none ? Py_NewRef(Py_None) : convert_time_out(ms);
}

static PyObject *entry_get(PyObject *self, void *closure)
{
    const entry_object *entry = (const entry_object *)self;
    const larder_info *info = &entry->info;
    int64_t now = now_ms();
    switch ((enum attribute)(intptr_t)closure) {
    case STALE:
        return PyBool_FromLong(entry->outcome == LARDER_STALE || info->expires_ms <= now);
    case ABSENT:
        return PyBool_FromLong(entry->outcome == LARDER_ABSENT);
    case VERSION:
        return version_new(&info->version);
    case CREATED:
        return convert_time_out(info->created_ms);
    case EXPIRES:
        return time_or_none(info->expires_ms, info->expires_ms == INT64_MAX);
    case STALE_UNTIL:
        return time_or_none(info->stale_until_ms, info->stale_until_ms == 0);
    case TTL:
        return time_or_none(info->expires_ms > now ? info->expires_ms - now : 0,
                            info->expires_ms == INT64_MAX);
    case AGE:
        return convert_time_out(now > info->created_ms ? now - info->created_ms : 0);
    case MARKED:
        return PyBool_FromLong((info->flags & LARDER_INFO_MARKED) != 0);
    case SLIDING:
    default:
        return PyBool_FromLong((info->flags & LARDER_INFO_SLIDING) != 0);
    }
}

static PyObject *entry_repr(PyObject *self)
{
    const entry_object *entry = (const entry_object *)self;
    return PyUnicode_FromFormat("<larder.Entry of %llu bytes%s>",
                                (unsigned long long)entry->info.size,
                                entry->outcome == LARDER_ABSENT  ? ", absent"
                                : entry->outcome == LARDER_STALE ? ", stale"
                                                                 : "");
}

#define ATTRIBUTE(name, number, doc)                                                               \
    {                                                                                              \
        name, entry_get, NULL, PyDoc_STR(doc), (void *)(intptr_t)(number)                          \
    }

static PyGetSetDef entry_attributes[] = {
    ATTRIBUTE("stale", STALE, "Whether it is past its expiry."),
    ATTRIBUTE("absent", ABSENT, "A negative entry: known not to exist; value is None."),
    ATTRIBUTE("version", VERSION, "What Map.cas() compares: (clock, node)."),
    ATTRIBUTE("created", CREATED, "When it was made, by whichever host: seconds since the epoch."),
    ATTRIBUTE("expires", EXPIRES, "Seconds since the epoch, or None: never."),
    ATTRIBUTE("stale_until", STALE_UNTIL, "Seconds since the epoch, or None: never stale."),
    ATTRIBUTE("ttl", TTL, "Seconds left of its freshness, 0.0 when stale, None: for ever."),
    ATTRIBUTE("age", AGE, "Seconds since it was made."),
    ATTRIBUTE("marked", MARKED, "Whether it has a group or tags."),
    ATTRIBUTE("sliding", SLIDING, "Whether reads extend it."),
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef entry_members[] = {
    {"value", T_OBJECT, offsetof(entry_object, value), READONLY, PyDoc_STR("The bytes, or None.")},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot entry_slots[] = {
    {Py_tp_doc, PyDoc_STR("What Map.lookup() found.")},
    {Py_tp_dealloc, entry_dealloc},
    {Py_tp_repr, entry_repr},
    {Py_tp_getset, entry_attributes},
    {Py_tp_members, entry_members},
    {0, NULL},
};

static PyType_Spec entry_spec = {
    .name = "larder.Entry",
    .basicsize = sizeof(entry_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = entry_slots,
};

int entry_add(PyObject *module)
{
    entry_type = module_add_type(module, &entry_spec);
    return entry_type == NULL ? -1 : 0;
}
