/* drive.h: instances of peers, as the driver sees them: made in a directory, filled, asked to run a
 * cell, ended. A peer that cannot be started, answers nothing, or loses entries is taken out with a
 * reason that the report shows; the others go on.
 */
#ifndef LARDER_BENCH_DRIVE_H
#define LARDER_BENCH_DRIVE_H

#include "peer.h"
#include "workload.h"

enum drive_operation { DRIVE_GET, DRIVE_SET, DRIVE_MIX, DRIVE_OPERATIONS };
extern const char *const drive_operation_names[DRIVE_OPERATIONS];

struct drive_cell {
    enum drive_operation operation;
    enum workload workload;
    unsigned processes; /* 1 or 2 */
};

struct drive_instance {
    const struct peer *peer;
    char label[32], directory[256];
    struct peer_setup setup;
    pid_t workers[PEER_WORKERS];
    int in[PEER_WORKERS], out[PEER_WORKERS];
    bool alive;
    char why[300];            /* it is not alive */
    double loop_ns, timer_ns; /* a call, and a timed call, that does nothing; taken off */
    double entry_bytes;       /* 0: unknown */
    enum workload last;
};

/* In nanoseconds a call, the loop taken off; with two processes the mean of both, the worse
 * percentile, the sum of the rates. */
struct drive_figures {
    double mean_ns, rate_per_s;
    double get_p50, get_p99, get_p999, set_p50, set_p99, set_p999;
    double miss_share;
};

/* Make the directory under root, start what must be started, fill, measure the empty loop. */
void drive_open(struct drive_instance *instance, const struct peer *peer, const char *label,
                const char *root, const struct peer_setup *setup);
/* Both passes, after a short one that is not counted. false: it is out now. */
bool drive_cell(struct drive_instance *instance, const struct drive_cell *cell, uint64_t window_ns,
                struct drive_figures *figures);
void drive_close(struct drive_instance *instance);

#endif
