/* figures.c: Map.stats() and Map.latency(): counters as dicts, under their names in larder.h.
 */
#include "binding.h"

#include <stddef.h>

struct field {
    const char *name;
    size_t offset;
    enum { UNSIGNED, SIGNED, FLAG } type;
};

#define U(name)                                                                                    \
    {                                                                                              \
#name, offsetof(larder_stats, name), UNSIGNED                                              \
    }
#define S(name)                                                                                    \
    {                                                                                              \
#name, offsetof(larder_stats, name), SIGNED                                                \
    }
#define F(name)                                                                                    \
    {                                                                                              \
#name, offsetof(larder_stats, name), FLAG                                                  \
    }

static const struct field fields[] = {
    U(hits),
    U(misses),
    U(expired),
    U(absent),
    U(read_busy),
    U(read_corrupt),
    U(sets),
    U(deletes),
    U(touches),
    U(refused_busy),
    U(refused_full),
    U(refused_size),
    U(evictions),
    U(expirations),
    U(pending_overflows),
    U(gate_recoveries),
    U(generations),
    U(process_hits),
    U(process_misses),
    U(process_sets),
    U(entries),
    U(tombstones),
    U(dirty),
    U(log_rows),
    U(pending),
    U(map_size),
    U(used_bytes),
    U(generation),
    U(processes),
    S(oldest_dirty_ms),
    S(daemon_heartbeat_ms),
    F(replicates),
    F(redis_up),
    U(hot_hits),
    U(stale),
    U(invalidations_group),
    U(invalidations_tag),
    U(invalidations_prefix),
    U(invalidations_match),
    U(invalidations_clear),
    U(evicted_small),
    U(evicted_main),
    U(reclaimed_expired),
    U(reclaimed_dead),
    U(lease_fills),
    U(lease_waits),
    U(lease_takeovers),
    U(lease_timeouts),
    U(lease_refused_fills),
    U(refreshes),
    U(slides),
    U(combined),
    U(events),
    U(events_missed),
    U(hot_size),
    U(read_through_found),
    U(read_through_absent),
    U(read_through_timeouts),
    U(read_through_nobody),
    U(read_through_full),
    U(read_through_joined),
};

static PyObject *field_value(const larder_stats *stats, const struct field *field)
{
    const char *at = (const char *)stats + field->offset;
    switch (field->type) {
    case UNSIGNED:
        return PyLong_FromUnsignedLongLong(*(const uint64_t *)(const void *)at);
    case SIGNED:
        return PyLong_FromLongLong(*(const int64_t *)(const void *)at);
    case FLAG:
    default:
        return PyBool_FromLong(*(const uint32_t *)(const void *)at != 0);
    }
}

static int put(PyObject *dict, const char *name, PyObject *value)
{
    int result = value == NULL ? -1 : PyDict_SetItemString(dict, name, value);
    Py_XDECREF(value);
    return result;
}

static PyObject *map_stats(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    map_object *map = (map_object *)self;
    larder_stats stats;
    larder *handle = map_enter(map);
    if (handle == NULL) {
        return NULL;
    }
    int result;
    WITHOUT_GIL(result = larder_stats_read(handle, &stats, sizeof stats));
    PyObject *dict = result < 0 ? errors_raise(result) : PyDict_New();
    for (size_t i = 0; dict != NULL && i < sizeof fields / sizeof fields[0]; i++) {
        if (put(dict, fields[i].name, field_value(&stats, &fields[i])) != 0) {
            Py_CLEAR(dict);
        }
    }
    map_leave(map);
    return dict;
}

static PyObject *map_latency(PyObject *self, PyObject *arguments)
{
    larder_latency latency;
    unsigned int kind = 0;
    if (!PyArg_ParseTuple(arguments, "I:latency", &kind)) {
        return NULL;
    }
    larder *handle = map_handle((map_object *)self); /* last: an __index__ may close the map */
    if (handle == NULL) {
        return NULL;
    }
    int result = larder_latency_read(handle, kind, &latency, sizeof latency);
    if (result < 0) {
        return errors_raise(result);
    }
    return Py_BuildValue(
        "{sIsKsKsKsKsKsK}", "one_in", latency.one_in, "count", (unsigned long long)latency.count,
        "sum_ns", (unsigned long long)latency.sum_ns, "p50_ns", (unsigned long long)latency.p50_ns,
        "p90_ns", (unsigned long long)latency.p90_ns, "p99_ns", (unsigned long long)latency.p99_ns,
        "p999_ns", (unsigned long long)latency.p999_ns);
}

PyMethodDef map_figure_methods[] = {
    METHOD("stats", map_stats, METH_NOARGS,
           "stats() -> dict\n\nThe counters of struct larder_stats, under their names."),
    METHOD("latency", map_latency, METH_VARARGS,
           "latency(kind) -> dict\n\nSampled latencies of LATENCY_HIT, _MISS, _SET, _DELETE or "
           "_FETCH, in nanoseconds."),
    {NULL, NULL, 0, NULL},
};
