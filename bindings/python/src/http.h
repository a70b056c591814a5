/* http.h: what the files over larder_http.h share: requests, policies and stored responses as
 * Python objects. */
#ifndef LARDER_PYTHON_HTTP_H
#define LARDER_PYTHON_HTTP_H

#include <larder_http.h>

#include "binding.h"

/* Header fields of a list of pairs of bytes, in memory of their own; the list keeps the bytes. */
struct http_fields {
    PyObject *list; /* tuple of (name, value) */
    larder_http_header *fields;
    size_t count;
};

int http_fields_take(struct http_fields *fields, PyObject *object);
void http_fields_release(struct http_fields *fields);
PyObject *http_fields_new(const larder_http_header *fields, size_t count);

typedef struct http_policy_object {
    PyObject_HEAD larder_http_policy policy;
    PyObject *status_header; /* bytes */
} http_policy_object;

typedef struct http_request_object {
    PyObject_HEAD larder_http_request request;
    struct http_fields fields;
    PyObject *parts[5]; /* bytes: method, path, query, scheme, authority */
} http_request_object;

typedef struct http_stored_object {
    PyObject_HEAD larder_http_stored stored;
    PyObject *bytes; /* what it was decoded from */
    void *memory;
} http_stored_object;

extern PyTypeObject *http_policy_type, *http_request_type, *http_stored_type;

/* Memory for a call that wants some: doubled as long as the call says so. */
struct http_memory {
    larder_http_arena arena;
};

int http_memory_begin(struct http_memory *memory, size_t size);
/* Whether the call is to be repeated with more memory; on false with an exception set, or done. */
bool http_memory_more(struct http_memory *memory, int result);
void http_memory_end(struct http_memory *memory);

/* An HttpStored of bytes that larder_http_decode() takes; None (a new reference) of others. */
PyObject *http_stored_decode(PyObject *bytes);

PyObject *http_bytes(larder_bytes bytes);
larder_bytes http_view(PyObject *bytes);

/* Methods of HttpRequest that decide (http_rules.c). */
extern PyMethodDef http_rule_methods[];

int http_add(PyObject *module);

#endif
