/* view.c: larder.View, a value read in place: its parts are memoryviews into the map. While a
 * memoryview (or a slice of one) is alive the page stays pinned; the borrow ends with the last.
 */
#include "binding.h"

#include <string.h>

typedef struct view_object {
    PyObject_HEAD map_object *map; /* NULL: released */
    larder_view view;
    size_t exports; /* parts that somebody has a buffer of */
    bool closing;
} view_object;

typedef struct part_object {
    PyObject_HEAD view_object *view;
    struct iovec bytes;
} part_object;

static PyTypeObject *view_type, *part_type;

static void release(view_object *view)
{
    if (view->map != NULL && view->exports == 0) {
        map_object *map = view->map;
        view->map = NULL;
        if (map->handle != NULL) {
            larder_release(map->handle, &view->view);
        }
        map_leave(map);
    }
}

/* ---- Parts ----------------------------------------------------------------------------------- */

static int part_buffer(PyObject *self, Py_buffer *buffer, int flags)
{
    part_object *part = (part_object *)self;
    if (part->view->map == NULL || part->view->closing) {
        PyErr_SetString(PyExc_BufferError, "the view was released");
        return -1;
    }
    if (PyBuffer_FillInfo(buffer, self, part->bytes.iov_base, (Py_ssize_t)part->bytes.iov_len, 1,
                          flags) != 0) {
        return -1;
    }
    part->view->exports++;
    return 0;
}

static void part_release(PyObject *self, Py_buffer *buffer)
{
    (void)buffer;
    view_object *view = ((part_object *)self)->view;
    view->exports--;
    if (view->closing) {
        release(view);
    }
}

static void part_dealloc(PyObject *self)
{
    Py_CLEAR(((part_object *)self)->view);
    module_free_object(self);
}

static PyType_Slot part_slots[] = {
    {Py_tp_dealloc, part_dealloc},
    {Py_bf_getbuffer, part_buffer},
    {Py_bf_releasebuffer, part_release},
    {0, NULL},
};

static PyType_Spec part_spec = {
    .name = "larder._larder._Part",
    .basicsize = sizeof(part_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = part_slots,
};

/* ---- Views ----------------------------------------------------------------------------------- */

static PyObject *view_parts(PyObject *self, void *closure)
{
    (void)closure;
    view_object *view = (view_object *)self;
    if (view->map == NULL || view->closing) {
        PyErr_SetString(PyExc_ValueError, "the view was released");
        return NULL;
    }
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < view->view.part_count; i++) {
        part_object *part = (part_object *)module_new_object(part_type);
        PyObject *memory = NULL;
        if (part != NULL) {
            part->view = (view_object *)Py_NewRef(self);
            part->bytes = view->view.parts[i];
            memory = PyMemoryView_FromObject((PyObject *)part);
            Py_DECREF((PyObject *)part);
        }
        if (memory == NULL || PyList_Append(list, memory) != 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(memory);
    }
    return list;
}

static PyObject *view_info(PyObject *self, void *closure)
{
    (void)closure;
    return entry_new(LARDER_OK, NULL, &((view_object *)self)->view.info);
}

static PyObject *view_release(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    view_object *view = (view_object *)self;
    view->closing = true;
    release(view);
    Py_RETURN_NONE;
}

static PyObject *view_enter(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    return Py_NewRef(self);
}

static void view_dealloc(PyObject *self)
{
    release((view_object *)self);
    module_free_object(self);
}

static PyMethodDef view_methods[] = {
    METHOD("release", view_release, METH_NOARGS,
           "release()\n\nEnd the borrow; where parts are still in use, with the last of them."),
    METHOD("__enter__", view_enter, METH_NOARGS, "The view itself."),
    METHOD("__exit__", view_release, METH_VARARGS, "Release it."),
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef view_attributes[] = {
    {"parts", view_parts, NULL, PyDoc_STR("Memoryviews, in order: the value, in place."), NULL},
    {"info", view_info, NULL, PyDoc_STR("An Entry without its value."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot view_slots[] = {
    {Py_tp_doc, PyDoc_STR("A value read in place, see Map.borrow().")},
    {Py_tp_dealloc, view_dealloc},
    {Py_tp_methods, view_methods},
    {Py_tp_getset, view_attributes},
    {0, NULL},
};

static PyType_Spec view_spec = {
    .name = "larder.View",
    .basicsize = sizeof(view_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = view_slots,
};

static PyObject *map_borrow(PyObject *self, PyObject *object)
{
    map_object *map = (map_object *)self;
    struct bytes_in key;
    if (bytes_in_take(&key, object, "key") != 0) {
        return NULL;
    }
    view_object *view = (view_object *)module_new_object(view_type);
    larder *handle = view == NULL ? NULL : map_enter(map);
    int result =
        handle == NULL ? LARDER_EINVAL : larder_borrow(handle, key.data, key.size, &view->view);
    bytes_in_release(&key);
    if (result == LARDER_OK) {
        view->map = map;
        return (PyObject *)view;
    }
    if (handle != NULL) {
        if (result < 0) {
            (void)errors_raise(result);
        }
        map_leave(map);
    }
    Py_XDECREF((PyObject *)view);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

PyMethodDef map_view_methods[] = {
    METHOD("borrow", map_borrow, METH_O,
           "borrow(key) -> View\n\nThe value in place, without a copy, or None. At most 64 views "
           "at a time in a process; hold them for milliseconds: they pin old pages."),
    {NULL, NULL, 0, NULL},
};

int view_add(PyObject *module)
{
    view_type = module_add_type(module, &view_spec);
    part_type = module_add_type(module, &part_spec);
    return view_type == NULL || part_type == NULL ? -1 : 0;
}
