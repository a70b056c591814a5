/* peer.h: what the comparison of caches is made of. A *peer* is one kind of store, reached from C
 * by get and set (larder, plain LMDB, tdb, ...) or a program of its own that carries out the
 * worker's commands itself (PHP, uWSGI). An *instance* is a peer that was opened in a directory,
 * with two worker processes on it. The driver (bench_peers.c) speaks to all workers alike, over
 * FIFOs (worker.c), so that no peer is measured in another way than the rest.
 */
#ifndef LARDER_BENCH_PEER_H
#define LARDER_BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    PEER_KEY_SIZE = 16, /* "bench:0000000000" */
    PEER_VALUE_MAX = 16384,
    PEER_WORKERS = 2,
    PEER_STREAM_KEYS = 1 << 20
};

/* What a store must hold, and where. */
struct peer_setup {
    const char *directory; /* the instance's own; made by the driver */
    const char *streams;   /* directory of the key streams: see workload.h */
    uint64_t entries, value_size;
    uint64_t hot_size;                                    /* larder's; 0 = its default */
    const char *php_script, *yac_library, *uwsgi_library; /* paths, or NULL */
    pid_t server;                                         /* what start() returned */
    bool create; /* the first worker makes the store, the second attaches */
};

struct peer {
    const char *name, *what; /* what: one line for the report */

    /* Whether it can be run here; else why not, for the report. NULL: always. */
    bool (*available)(const struct peer_setup *setup, char *why, size_t why_size);

    /* In the driver, before the workers: a server, its pid; or a program that is itself the
     * workers (foreign). NULL: nothing to start. */
    pid_t (*start)(const struct peer_setup *setup);
    bool foreign;

    /* In a worker. All return false (or -1) on error and leave a text in peer_error. */
    bool (*open)(const struct peer_setup *setup);
    /* The value's size; -1: a miss. */
    int64_t (*get)(const char *key, void *buffer, size_t buffer_size);
    bool (*set)(const char *key, const void *value, size_t size);
    /* To fill sooner where set waits for a server: set_quietly may wait for nothing, settle for
     * all. NULL: set. */
    bool (*set_quietly)(const char *key, const void *value, size_t size);
    bool (*settle)(void);
    /* Bytes that the entries take, all told; 0: it cannot be said. */
    uint64_t (*memory)(void);
    void (*close)(void);
};

extern char peer_error[256];
bool peer_failed(const char *format, ...) __attribute__((format(printf, 1, 2))); /* false */

extern const struct peer peer_larder, peer_larder_cold, peer_lmdb, peer_table, peer_tdb, peer_apcu,
    peer_yac, peer_uwsgi, peer_memcached, peer_redis;

/* Run a program in the background: no input, output to the file log; it dies with the driver. */
pid_t peer_run(const char *const *words, const char *log, const char *preload);
bool peer_installed(const char *program, char *why, size_t why_size);

/* ---- worker.c ------------------------------------------------------------------------------- */

/* Carry out commands from SETUP->directory/wN.in, answers to wN.out, until "quit" or end of file.
 *   fill                          open, store all entries, look at some of them
 *   attach                        open what the other worker filled
 *   mean OP STREAM START DURATION calls without a timer for DURATION ns from START (monotonic)
 *   times OP STREAM START DURATION each call timed: percentiles
 *   memory                        bytes of the entries
 * OP: get, set, mix (every tenth is a set), empty (a call that does nothing). */
int peer_worker(const struct peer *peer, struct peer_setup *setup, unsigned number);

/* What "times" answers, in ns, and what "mean" does. */
struct peer_mean {
    uint64_t calls, elapsed_ns, misses;
};
struct peer_times {
    uint64_t gets, sets, misses;
    double get_p50, get_p99, get_p999, set_p50, set_p99, set_p999;
};

#endif
