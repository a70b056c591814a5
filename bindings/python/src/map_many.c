/* map_many.c: Map's calls for many keys (one snapshot to read, one commit to write), and scans.
 */
#include "binding.h"

#include <string.h>

/* ---- Items ----------------------------------------------------------------------------------- */

struct items {
    PyObject *keys; /* tuple */
    size_t count;
    larder_item *items;
    struct bytes_in *bytes; /* keys, then values */
};

static void items_release(struct items *items)
{
    for (size_t i = 0; items->bytes != NULL && i < 2 * items->count; i++) {
        bytes_in_release(&items->bytes[i]);
    }
    PyMem_Free(items->bytes);
    PyMem_Free(items->items);
    Py_CLEAR(items->keys);
}

static int items_take(struct items *items, PyObject *keys)
{
    memset(items, 0, sizeof *items);
    if (PyUnicode_Check(keys) || PyBytes_Check(keys)) {
        PyErr_SetString(PyExc_TypeError, "keys: an iterable of keys, not one key");
        return -1;
    }
    items->keys = PySequence_Tuple(keys);
    if (items->keys == NULL) {
        return -1;
    }
    items->count = (size_t)PyTuple_Size(items->keys);
    if (items->count > LARDER_MANY_MAX) {
        PyErr_Format(PyExc_ValueError, "%zu keys in one call: the limit is %u", items->count,
                     LARDER_MANY_MAX);
        items->count = 0;
        items_release(items);
        return -1;
    }
    items->items = PyMem_Calloc(items->count + 1, sizeof *items->items);
    items->bytes = PyMem_Calloc(2 * items->count + 1, sizeof *items->bytes);
    if (items->items == NULL || items->bytes == NULL) {
        (void)PyErr_NoMemory();
        items_release(items);
        return -1;
    }
    for (size_t i = 0; i < items->count; i++) {
        struct bytes_in *key = &items->bytes[i];
        if (bytes_in_take(key, PyTuple_GetItem(items->keys, (Py_ssize_t)i), "key") != 0) {
            items_release(items);
            return -1;
        }
        items->items[i].key = key->data;
        items->items[i].key_size = key->size;
    }
    return 0;
}

static PyObject *key_of(const struct items *items, size_t i)
{
    return PyTuple_GetItem(items->keys, (Py_ssize_t)i);
}

/* ---- Get, set, delete ------------------------------------------------------------------------ */

static PyObject *found_items(const struct items *items)
{
    PyObject *found = PyDict_New();
    for (size_t i = 0; found != NULL && i < items->count; i++) {
        const larder_item *item = &items->items[i];
        if (item->outcome != LARDER_OK) {
            continue;
        }
        PyObject *value = PyBytes_FromStringAndSize(item->value, (Py_ssize_t)item->value_size);
        if (value == NULL || PyDict_SetItem(found, key_of(items, i), value) != 0) {
            Py_CLEAR(found);
        }
        Py_XDECREF(value);
    }
    return found;
}

static PyObject *map_get_many(PyObject *self, PyObject *keys)
{
    map_object *map = (map_object *)self;
    struct items items;
    void *memory = NULL;
    PyObject *found = NULL;
    if (items_take(&items, keys) != 0) {
        return NULL;
    }
    larder *handle = map_enter(map);
    if (handle != NULL) {
        int result;
        WITHOUT_GIL(result = larder_get_many(handle, items.items, items.count, &memory));
        found = result < 0 ? errors_raise(result) : found_items(&items);
        larder_free(memory);
        map_leave(map);
    }
    items_release(&items);
    return found;
}

static int take_values(struct items *items, PyObject *mapping)
{
    for (size_t i = 0; i < items->count; i++) {
        struct bytes_in *value = &items->bytes[items->count + i];
        PyObject *object = PyDict_GetItemWithError(mapping, key_of(items, i));
        if (object == NULL) {
            if (!PyErr_Occurred()) {
                PyErr_SetObject(PyExc_KeyError, key_of(items, i));
            }
            return -1;
        }
        if (bytes_in_take(value, object, "value") != 0) {
            return -1;
        }
        items->items[i].value = value->data;
        items->items[i].value_size = value->size;
    }
    return 0;
}

/* The keys whose outcome is not LARDER_OK. */
static PyObject *refused_items(const struct items *items)
{
    PyObject *refused = PyList_New(0);
    for (size_t i = 0; refused != NULL && i < items->count; i++) {
        if (items->items[i].outcome != LARDER_OK && PyList_Append(refused, key_of(items, i)) != 0) {
            Py_CLEAR(refused);
        }
    }
    return refused;
}

static PyObject *set_items(map_object *map, struct items *items, const larder_policy *policy)
{
    larder *handle = map_enter(map);
    if (handle == NULL) {
        return NULL;
    }
    int result;
    WITHOUT_GIL(result = larder_set_many(handle, items->items, items->count, policy));
    PyObject *refused = result < 0 ? errors_raise(result) : refused_items(items);
    map_leave(map);
    return refused;
}

static PyObject *map_set_many(PyObject *self, PyObject *const *values, Py_ssize_t count,
                              PyObject *names)
{
    struct arguments arguments = {values, count, names};
    struct policy policy;
    struct items items;
    if (!arguments_counted(&arguments, "set_many", 1, 1)) {
        return NULL;
    }
    if (!PyDict_Check(values[0])) {
        PyErr_SetString(PyExc_TypeError, "set_many() takes a dict of keys and values");
        return NULL;
    }
    if (policy_take_all(&policy, &arguments, "set_many") != 0) {
        return NULL;
    }
    /* What is written without the GIL must be owned: others may change the dict meanwhile. */
    PyObject *refused = NULL, *held = PyDict_Copy(values[0]);
    if (held != NULL && items_take(&items, held) == 0) {
        if (take_values(&items, held) == 0) {
            refused = set_items((map_object *)self, &items, &policy.policy);
        }
        items_release(&items);
    }
    Py_XDECREF(held);
    policy_release(&policy);
    return refused;
}

static PyObject *map_delete_many(PyObject *self, PyObject *keys)
{
    map_object *map = (map_object *)self;
    struct items items;
    PyObject *deleted = NULL;
    if (items_take(&items, keys) != 0) {
        return NULL;
    }
    larder *handle = map_enter(map);
    if (handle != NULL) {
        int result;
        WITHOUT_GIL(result = larder_delete_many(handle, items.items, items.count));
        size_t there = 0;
        for (size_t i = 0; i < items.count; i++) {
            there += items.items[i].outcome == LARDER_OK;
        }
        deleted = result < 0 ? errors_raise(result) : PyLong_FromSize_t(there);
        map_leave(map);
    }
    items_release(&items);
    return deleted;
}

/* ---- Scan ------------------------------------------------------------------------------------ */

enum { PAGE_MAX = 1024 };

static PyObject *page_items(const larder_item *items, size_t found, bool values)
{
    PyObject *page = PyList_New(0);
    for (size_t i = 0; page != NULL && i < found; i++) {
        const larder_item *item = &items[i];
        Py_ssize_t key_size = (Py_ssize_t)item->key_size, size = (Py_ssize_t)item->value_size;
        PyObject *one;
        if (!values) {
            one = PyBytes_FromStringAndSize(item->key, key_size);
        } else if (item->outcome == LARDER_ABSENT) {
            one = Py_BuildValue("(y#O)", item->key, key_size, Py_None);
        } else {
            one = Py_BuildValue("(y#y#)", item->key, key_size,
                                item->value == NULL ? "" : item->value, size);
        }
        if (one == NULL || PyList_Append(page, one) != 0) {
            Py_CLEAR(page);
        }
        Py_XDECREF(one);
    }
    return page;
}

struct scan {
    struct bytes_in name;
    bool glob, values;
    size_t max;
    larder_cursor cursor;
};

static PyObject *scan_run(map_object *map, struct scan *scan)
{
    size_t found = 0;
    void *memory = NULL;
    PyObject *page = NULL;
    larder_item *items = PyMem_Calloc(scan->max, sizeof *items);
    if (items == NULL) {
        return PyErr_NoMemory();
    }
    larder *handle = map_enter(map);
    if (handle != NULL) {
        larder_bytes name = {scan->name.data, scan->name.size};
        uint32_t flags = scan->values ? (uint32_t)LARDER_SCAN_VALUES : 0;
        int result;
        WITHOUT_GIL(result = scan->glob ? larder_scan_match(handle, &scan->cursor, name, items,
                                                            scan->max, flags, &found, &memory)
                                        : larder_scan(handle, &scan->cursor, name, items, scan->max,
                                                      flags, &found, &memory));
        page = result < 0 ? errors_raise(result) : page_items(items, found, scan->values);
        larder_free(memory);
        map_leave(map);
    }
    PyMem_Free(items);
    if (page == NULL) {
        return NULL;
    }
    return found == 0 ? Py_BuildValue("(NO)", page, Py_None)
                      : Py_BuildValue("(Ny#)", page, (const char *)&scan->cursor,
                                      (Py_ssize_t)sizeof scan->cursor);
}

static PyObject *map_scan_page(PyObject *self, PyObject *arguments)
{
    PyObject *name = NULL;
    const char *cursor = NULL;
    Py_ssize_t cursor_size = 0, max = 0;
    int glob = 0, values = 0;
    struct scan scan = {.glob = false};
    if (!PyArg_ParseTuple(arguments, "Oppz#n:_scan_page", &name, &glob, &values, &cursor,
                          &cursor_size, &max)) {
        return NULL;
    }
    if (max < 1 || max > PAGE_MAX) {
        PyErr_Format(PyExc_ValueError, "page: 1 to %d keys, not %zd", PAGE_MAX, max);
        return NULL;
    }
    if (cursor != NULL && cursor_size != (Py_ssize_t)sizeof scan.cursor) {
        PyErr_SetString(PyExc_ValueError, "this is no cursor");
        return NULL;
    }
    if (cursor != NULL) {
        memcpy(&scan.cursor, cursor, sizeof scan.cursor);
    }
    if (bytes_in_take(&scan.name, name, glob ? "match" : "prefix") != 0) {
        return NULL;
    }
    scan.glob = glob != 0;
    scan.values = values != 0;
    scan.max = (size_t)max;
    PyObject *result = scan_run((map_object *)self, &scan);
    bytes_in_release(&scan.name);
    return result;
}

PyMethodDef map_many_methods[] = {
    METHOD("get_many", map_get_many, METH_O,
           "get_many(keys) -> dict\n\nThose of up to 4,096 keys that are there, in one snapshot."),
    METHOD("set_many", map_set_many, METHOD_FAST,
           "set_many(dict, **policy) -> list\n\nStore up to 4,096 values under one policy and in "
           "one commit. Returns the keys that were refused (they read as misses)."),
    METHOD("delete_many", map_delete_many, METH_O,
           "delete_many(keys) -> int\n\nDelete up to 4,096 keys in one commit; how many there "
           "were."),
    METHOD("_scan_page", map_scan_page, METH_VARARGS,
           "_scan_page(name, glob, values, cursor, max) -> (items, cursor or None at the end)"),
    {NULL, NULL, 0, NULL},
};
