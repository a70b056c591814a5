/* trace.h: real request traces for the simulator and the hit-ratio benchmark: text, a key a line,
 * perhaps xz-compressed, from a folder beside the project's (../shared/traces) or $LARDER_TRACES.
 * Keys become numbers in order of their first appearance.
 */
#ifndef LARDER_BENCH_TRACE_H
#define LARDER_BENCH_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct trace {
    uint32_t *requests;
    size_t count, keys;
};

/* What is known of a trace: hit ratios of a public simulator (libCacheSim, defaults), per cent. */
enum { TRACE_LRU, TRACE_SIEVE, TRACE_S3FIFO, TRACE_TINYLFU, TRACE_ARC, TRACE_REFERENCES };
enum { TRACE_SHARES = 4 };
struct trace_reference {
    const char *name;
    size_t first; /* only so many requests */
    double ratios[TRACE_SHARES][TRACE_REFERENCES];
};
extern const struct trace_reference trace_references[]; /* the last has no name */
extern const double trace_shares[TRACE_SHARES];         /* of the unique keys */

/* Entries that a share of the trace's keys is, at least 1. */
size_t trace_capacity(const struct trace *trace, double share);

/* Read at most first requests (0: all) of the trace of that name. False: it is not there (a message
 * says where it was looked for). Ends the program on a file that cannot be read. */
bool trace_read(const char *name, size_t first, struct trace *trace);
void trace_end(struct trace *trace);

#endif
