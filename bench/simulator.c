/* simulator: hit ratios of replacement policies on real traces (../shared/traces, or the folder
 * that $LARDER_TRACES names), beside the reference figures of a public simulator. Capacity is a
 * share of the trace's unique keys, entries are of one size. "larder" is the map's own policy; what
 * a map really reaches with it is bench_hit_ratio's to say.
 *
 *   simulator [TRACE ...]
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench/policies.h"
#include "bench/trace.h"
#include "tests/multi/harness.h"

enum { POLICIES_MOST = 8 };

struct summary {
    double sum[POLICIES_MOST], worst[POLICIES_MOST]; /* against the reference's S3-FIFO */
    double off[POLICIES_MOST];                       /* against the reference's own figure */
    unsigned cells;
};

/* Which column of the reference is a policy's; TRACE_REFERENCES: none. */
static int reference_of(const struct policy *policy)
{
    static const struct policy *const columns[] = {&policy_lru, &policy_sieve, &policy_s3fifo,
                                                   &policy_tinylfu, &policy_arc};
    for (int column = 0; column < TRACE_REFERENCES; column++) {
        if (columns[column] == policy) {
            return column;
        }
    }
    return TRACE_REFERENCES;
}

static void cell(const struct trace *trace, const struct trace_reference *reference, size_t at,
                 struct summary *summary)
{
    size_t capacity = trace_capacity(trace, trace_shares[at]);
    (void)printf("%-10s %4.0f %% %7zu", reference->name, 100 * trace_shares[at], capacity);
    for (size_t i = 0; policies[i] != NULL; i++) {
        double ratio =
            policy_replay(policies[i], capacity, trace->keys, trace->requests, trace->count);
        double against = ratio - reference->ratios[at][TRACE_S3FIFO];
        int column = reference_of(policies[i]);
        if (column < TRACE_REFERENCES) {
            double off = fabs(ratio - reference->ratios[at][column]);
            summary->off[i] = off > summary->off[i] ? off : summary->off[i];
        }
        summary->sum[i] += against;
        summary->worst[i] = against < summary->worst[i] ? against : summary->worst[i];
        (void)printf(" %10.2f", ratio);
    }
    summary->cells++;
    (void)printf("\n");
}

static bool wanted(int argc, char **argv, const char *name)
{
    bool named = argc < 2;
    for (int i = 1; i < argc; i++) {
        named |= strcmp(argv[i], name) == 0;
    }
    return named;
}

int main(int argc, char **argv)
{
    static struct summary summary;
    struct trace trace;
    (void)printf("%-10s %6s %7s", "trace", "share", "entries");
    for (size_t i = 0; policies[i] != NULL; i++) {
        (void)printf(" %10s", policies[i]->name);
    }
    (void)printf("   (hit ratio, %%)\n");
    for (const struct trace_reference *r = trace_references; r->name != NULL; r++) {
        if (wanted(argc, argv, r->name) && trace_read(r->name, r->first, &trace)) {
            for (size_t at = 0; at < TRACE_SHARES; at++) {
                cell(&trace, r, at, &summary);
            }
            trace_end(&trace);
        }
    }
    if (summary.cells == 0) {
        (void)printf("no trace was found: nothing is measured\n");
        return 0;
    }
    for (size_t i = 0; policies[i] != NULL; i++) {
        char name[80];
        (void)snprintf(name, sizeof name, "simulator_%s_to_s3fifo_mean", policies[i]->name);
        test_figure(name, summary.sum[i] / summary.cells, "points");
        (void)snprintf(name, sizeof name, "simulator_%s_to_s3fifo_worst", policies[i]->name);
        test_figure(name, summary.worst[i], "points");
        if (reference_of(policies[i]) < TRACE_REFERENCES) {
            (void)snprintf(name, sizeof name, "simulator_%s_off_reference", policies[i]->name);
            test_figure(name, summary.off[i], "points");
        }
    }
    return 0;
}
