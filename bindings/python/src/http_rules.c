/* http_rules.c: the methods of HttpRequest: each is one function of larder_http.h, which says what
 * it does and after which section of which RFC.
 */
#include "http.h"

#include <string.h>

static int bad_type(const char *what)
{
    PyErr_Format(PyExc_TypeError, "%s: not of larder._larder", what);
    return -1;
}

static const larder_http_policy *take_policy(PyObject *object)
{
    if (!Py_IS_TYPE(object, http_policy_type)) {
        (void)bad_type("policy");
        return NULL;
    }
    return &((http_policy_object *)object)->policy;
}

/* None is NULL. */
static int take_stored(PyObject *object, const larder_http_stored **stored)
{
    *stored = NULL;
    if (object == Py_None) {
        return 0;
    }
    if (!Py_IS_TYPE(object, http_stored_type)) {
        return bad_type("stored");
    }
    *stored = &((http_stored_object *)object)->stored;
    return 0;
}

static const larder_http_request *request_of(PyObject *self)
{
    return &((http_request_object *)self)->request;
}

static PyObject *request_classify(PyObject *self, PyObject *object)
{
    const larder_http_policy *policy = take_policy(object);
    if (policy == NULL) {
        return NULL;
    }
    int result = larder_http_classify(policy, request_of(self));
    return result < 0 ? errors_raise(result) : PyLong_FromLong(result);
}

static PyObject *request_key(PyObject *self, PyObject *arguments, PyObject *named)
{
    static char *names[] = {"form", "prefix", "group", "user", NULL};
    unsigned int form = 0;
    PyObject *text[3] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "|ISSS:key", names, &form, &text[0],
                                     &text[1], &text[2])) {
        return NULL;
    }
    larder_http_key_options options = {.form = form,
                                       .prefix = http_view(text[0]),
                                       .group = http_view(text[1]),
                                       .user = http_view(text[2])};
    struct http_memory memory;
    if (http_memory_begin(&memory, 0) != 0) {
        return NULL;
    }
    larder_bytes key = {NULL, 0};
    int result;
    do {
        result = larder_http_key(request_of(self), &options, &memory.arena, &key);
    } while (http_memory_more(&memory, result));
    PyObject *out = result == LARDER_OK && !PyErr_Occurred() ? http_bytes(key) : NULL;
    http_memory_end(&memory);
    return out;
}

static PyObject *request_select(PyObject *self, PyObject *arguments)
{
    PyObject *policy_object = NULL, *key = NULL, *stored_object = NULL;
    const larder_http_stored *stored = NULL;
    if (!PyArg_ParseTuple(arguments, "OSO:select", &policy_object, &key, &stored_object) ||
        take_stored(stored_object, &stored) != 0) {
        return NULL;
    }
    const larder_http_policy *policy = take_policy(policy_object);
    if (stored == NULL) {
        (void)bad_type("stored");
    }
    struct http_memory memory;
    if (policy == NULL || stored == NULL || http_memory_begin(&memory, 0) != 0) {
        return NULL;
    }
    larder_bytes variant = {NULL, 0};
    int result;
    do {
        result = larder_http_select(policy, request_of(self), http_view(key), stored, &memory.arena,
                                    &variant);
    } while (http_memory_more(&memory, result));
    PyObject *out = NULL;
    if (!PyErr_Occurred()) {
        out = result == LARDER_HTTP_VARIANT ? Py_BuildValue("(iN)", result, http_bytes(variant))
                                            : Py_BuildValue("(iO)", result, Py_None);
    }
    http_memory_end(&memory);
    return out;
}

static PyObject *request_serve(PyObject *self, PyObject *arguments)
{
    PyObject *policy_object = NULL, *stored_object = NULL;
    const larder_http_stored *stored = NULL;
    long long now_ms = 0;
    if (!PyArg_ParseTuple(arguments, "OOL:serve", &policy_object, &stored_object, &now_ms) ||
        take_stored(stored_object, &stored) != 0) {
        return NULL;
    }
    const larder_http_policy *policy = take_policy(policy_object);
    if (policy == NULL) {
        return NULL;
    }
    larder_http_decision decision;
    int result = larder_http_serve(policy, request_of(self), stored, now_ms, &decision);
    if (result != LARDER_OK) {
        return errors_raise(result);
    }
    return Py_BuildValue("(III)", decision.action, decision.reason, decision.flags);
}

/* ---- Storing --------------------------------------------------------------------------------- */

/* As the keyword arguments of Map.set(). */
static PyObject *policy_dict(const larder_policy *policy)
{
    PyObject *dict = PyDict_New(), *value = NULL;
    int failed = dict == NULL;
    const char *name = policy->expiry.kind == LARDER_EXPIRY_AT   ? "at"
                       : policy->expiry.kind == LARDER_EXPIRY_IN ? "ttl"
                                                                 : NULL;
    if (!failed && name != NULL) {
        value = convert_time_out(policy->expiry.ms);
        failed = value == NULL || PyDict_SetItemString(dict, name, value) != 0;
        Py_XDECREF(value);
    }
    if (!failed && policy->stale_ms > 0) {
        value = convert_time_out(policy->stale_ms);
        failed = value == NULL || PyDict_SetItemString(dict, "stale", value) != 0;
        Py_XDECREF(value);
    }
    if (failed) {
        Py_CLEAR(dict);
    }
    return dict;
}

/* (reason, [(key, value, policy)], HttpStored or None) */
static PyObject *plan_new(const larder_http_plan *plan, bool kept)
{
    PyObject *writes = PyList_New(0), *page = Py_NewRef(Py_None);
    for (uint32_t i = 0; kept && writes != NULL && i < plan->write_count; i++) {
        const larder_http_write *write = &plan->writes[i];
        PyObject *dict = policy_dict(&write->policy);
        PyObject *one = dict == NULL
                            ? NULL
                            : Py_BuildValue("(y#y#N)", write->key.data, (Py_ssize_t)write->key.size,
                                            write->value.data, (Py_ssize_t)write->value.size, dict);
        if (one == NULL || PyList_Append(writes, one) != 0) {
            Py_CLEAR(writes);
        }
        if (one != NULL && writes != NULL) {
            PyObject *decoded = http_stored_decode(PyTuple_GetItem(one, 1));
            if (decoded == NULL) {
                Py_CLEAR(writes);
            } else if (decoded != Py_None &&
                       ((http_stored_object *)decoded)->stored.kind == LARDER_HTTP_RESPONSE) {
                Py_DECREF(page);
                page = decoded;
            } else {
                Py_DECREF(decoded);
            }
        }
        Py_XDECREF(one);
    }
    if (writes == NULL || page == NULL) {
        Py_XDECREF(writes);
        Py_XDECREF(page);
        return NULL;
    }
    return Py_BuildValue("(INN)", plan->reason, writes, page);
}

static int take_response(larder_http_response *response, struct http_fields *fields,
                         unsigned int status, PyObject *headers, PyObject *body, bool open_ended)
{
    if (http_fields_take(fields, headers) != 0) {
        return -1;
    }
    *response = (larder_http_response){.status = status,
                                       .flags = open_ended ? (uint32_t)LARDER_HTTP_OPEN_ENDED : 0,
                                       .headers = fields->fields,
                                       .header_count = fields->count,
                                       .body = http_view(body)};
    return 0;
}

static PyObject *request_store(PyObject *self, PyObject *arguments)
{
    PyObject *policy_object = NULL, *headers = NULL, *body = NULL, *key = NULL, *found = NULL;
    unsigned int status = 0;
    long long request_ms = 0, response_ms = 0;
    unsigned long long seed = 0;
    int open_ended = 0;
    larder_http_place place = {.seed = 0};
    if (!PyArg_ParseTuple(arguments, "OIOSSOLLKp:store", &policy_object, &status, &headers, &body,
                          &key, &found, &request_ms, &response_ms, &seed, &open_ended) ||
        take_stored(found, &place.found) != 0) {
        return NULL;
    }
    const larder_http_policy *policy = take_policy(policy_object);
    struct http_fields fields;
    larder_http_response response;
    struct http_memory memory;
    if (policy == NULL ||
        take_response(&response, &fields, status, headers, body, open_ended != 0) != 0) {
        return NULL;
    }
    place.key = http_view(key);
    place.request_ms = request_ms;
    place.response_ms = response_ms;
    place.seed = seed;
    PyObject *out = NULL;
    if (http_memory_begin(&memory, response.body.size + 16384) == 0) {
        larder_http_plan plan = {.reason = 0};
        int result;
        do {
            result = larder_http_store(policy, request_of(self), &response, &place, &memory.arena,
                                       &plan);
        } while (http_memory_more(&memory, result));
        if (!PyErr_Occurred()) {
            out = plan_new(&plan, result == LARDER_OK);
        }
        http_memory_end(&memory);
    }
    http_fields_release(&fields);
    return out;
}

/* ---- Answering ------------------------------------------------------------------------------- */

static PyObject *answer_run(const larder_http_policy *policy, const larder_http_request *request,
                            const larder_http_response *response, const larder_http_stored *stored,
                            unsigned int status, int64_t now_ms)
{
    struct http_memory memory;
    larder_http_response answer = {.status = 0};
    PyObject *out = NULL;
    int result;
    if (http_memory_begin(&memory, 0) != 0) {
        return NULL;
    }
    do {
        result = larder_http_answer(policy, request, response, stored, status, now_ms,
                                    &memory.arena, &answer);
    } while (http_memory_more(&memory, result));
    if (!PyErr_Occurred()) {
        PyObject *fields = http_fields_new(answer.headers, answer.header_count);
        PyObject *body = fields == NULL ? NULL : http_bytes(answer.body);
        out = body == NULL ? NULL : Py_BuildValue("(IOO)", answer.status, fields, body);
        Py_XDECREF(fields);
        Py_XDECREF(body);
    }
    http_memory_end(&memory);
    return out;
}

static PyObject *request_answer(PyObject *self, PyObject *arguments)
{
    PyObject *policy_object = NULL, *stored_object = NULL;
    const larder_http_stored *stored = NULL;
    unsigned int status = 0;
    long long now_ms = 0;
    if (!PyArg_ParseTuple(arguments, "OOIL:answer", &policy_object, &stored_object, &status,
                          &now_ms) ||
        take_stored(stored_object, &stored) != 0) {
        return NULL;
    }
    const larder_http_policy *policy = take_policy(policy_object);
    if (policy == NULL || stored == NULL) {
        if (policy != NULL) {
            (void)bad_type("stored");
        }
        return NULL;
    }
    return answer_run(policy, request_of(self), &stored->response, stored, status, now_ms);
}

static PyObject *request_answer_unstored(PyObject *self, PyObject *arguments)
{
    PyObject *policy_object = NULL, *headers = NULL, *body = NULL;
    unsigned int status = 0, cache_status = 0;
    long long now_ms = 0;
    if (!PyArg_ParseTuple(arguments, "OIOSIL:answer_unstored", &policy_object, &status, &headers,
                          &body, &cache_status, &now_ms)) {
        return NULL;
    }
    const larder_http_policy *policy = take_policy(policy_object);
    struct http_fields fields;
    larder_http_response response;
    if (policy == NULL || take_response(&response, &fields, status, headers, body, false) != 0) {
        return NULL;
    }
    PyObject *out = answer_run(policy, request_of(self), &response, NULL, cache_status, now_ms);
    http_fields_release(&fields);
    return out;
}

PyMethodDef http_rule_methods[] = {
    METHOD("classify", request_classify, METH_O,
           "classify(policy) -> HTTP_LOOKUP, HTTP_BYPASS or HTTP_UNSAFE"),
    METHOD("key", request_key, METH_VARARGS | METH_KEYWORDS,
           "key(form=HTTP_KEY_ROUTE, prefix=b'', group=b'', user=b'') -> bytes"),
    METHOD("select", request_select, METH_VARARGS,
           "select(policy, key, stored) -> (HTTP_CHOSEN, HTTP_VARIANT or HTTP_OTHER, variant key)"),
    METHOD("serve", request_serve, METH_VARARGS,
           "serve(policy, stored, now_ms) -> (action, reason, flags)"),
    METHOD("store", request_store, METH_VARARGS,
           "store(policy, status, headers, body, key, found, request_ms, response_ms, seed, "
           "open_ended) -> (reason, [(key, value, policy)], stored)\n\nNo writes: not for the "
           "cache."),
    METHOD("answer", request_answer, METH_VARARGS,
           "answer(policy, stored, cache_status, now_ms) -> (status, headers, body)"),
    METHOD("answer_unstored", request_answer_unstored, METH_VARARGS,
           "answer_unstored(policy, status, headers, body, cache_status, now_ms) -> (status, "
           "headers, body)"),
    {NULL, NULL, 0, NULL},
};
