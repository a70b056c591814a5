/* fetch.h: what the files of Map.fetch_async() share: fetch.c (what a call does), coroutine.c (that
 * it is a coroutine) and flight.c (whom it waits for).
 */
#ifndef LARDER_PYTHON_FETCH_H
#define LARDER_PYTHON_FETCH_H

#include "binding.h"

#include <stddef.h>

/* ---- flight.c: the parts of larder._aio's objects that every caller of one turn looks at -------
 */

/* A key that a coroutine of a loop is at. */
typedef struct flight_object {
    PyObject_HEAD PyObject *followers,
        *deadlines;    /* lists, in one order: futures; of the loop's clock */
    double expires_at; /* when the timer is due */
} flight_object;

int flight_add(PyObject *module);
/* A future of the loop that is told how the flight ended: NULL with an exception. */
PyObject *flight_follow(flight_object *flight, PyObject *loop, double deadline);
bool watch_is_of(PyObject *watch, PyObject *loop);
/* 0 with a new reference or, where nobody is at the key, NULL; or -1 with an exception. */
int watch_flight(PyObject *watch, PyObject *key, flight_object **flight);

/* ---- fetch.c --------------------------------------------------------------------------------- */

typedef struct fetch_object {
    PyObject_VAR_HEAD map_object *map;
    PyObject *key, *fill, *wait, *early; /* borrowed from values; the last two may be NULL */
    PyObject *names;                     /* of the values that came by name; or NULL */
    /* From the first turn on: */
    PyObject *name; /* the key as bytes */
    PyObject *loop;
    double deadline;       /* of the loop's clock */
    PyObject *watch;       /* NULL: nobody is waited for */
    flight_object *flight; /* that inner waits for; NULL: inner gives the value */
    PyObject *inner;       /* what this one awaits */
    enum { CREATED, STARTED, FINISHED } state;
    bool running;
    PyObject *values[]; /* all arguments, as many as the size says */
} fetch_object;

Py_ssize_t fetch_size(fetch_object *fetch);
/* The first turn. */
PySendResult fetch_begin(fetch_object *fetch, PyObject **result);
/* After what is awaited was driven: as long as that has ended and there is more, on to that. */
PySendResult fetch_go_on(fetch_object *fetch, PySendResult sent, PyObject **result);
/* A generator that does nothing. */
PyObject *fetch_nothing(void);

/* ---- coroutine.c ----------------------------------------------------------------------------- */

extern PyTypeObject *fetch_type;
int coroutine_add(PyObject *module);

#endif
