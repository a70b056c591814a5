/* result.h: what the rounds of a comparison gave, and what is made of it: medians, ratios within a
 * round, the table, the figures, the plot, the bars. Pure: it measures nothing.
 */
#ifndef LARDER_BENCH_RESULT_H
#define LARDER_BENCH_RESULT_H

#include <stdio.h>

#include "drive.h"

enum { RESULT_ROUNDS_MAX = 15, RESULT_PEERS_MAX = 12, RESULT_CELLS_MAX = 12, RESULT_SIZES_MAX = 6 };

struct result_line { /* one peer in one cell */
    unsigned rounds;
    struct drive_figures rounds_of[RESULT_ROUNDS_MAX];
};

struct result_size { /* one number of entries and size of values */
    char name[32];   /* "1m_100" */
    uint64_t entries, value_size;
    unsigned cell_count;
    struct drive_cell cells[RESULT_CELLS_MAX];
    double entry_bytes[RESULT_PEERS_MAX];
    char why[RESULT_PEERS_MAX][300];
    struct result_line lines[RESULT_CELLS_MAX][RESULT_PEERS_MAX];
};

struct result {
    unsigned peer_count, size_count;
    char peers[RESULT_PEERS_MAX][32];
    double loop_ns[RESULT_PEERS_MAX], timer_ns[RESULT_PEERS_MAX];
    struct result_size sizes[RESULT_SIZES_MAX];
};

#define RESULT_FIELD(name) offsetof(struct drive_figures, name)

/* The peer of that name; -1: none. */
int result_peer(const struct result *result, const char *name);
const struct result_size *result_size_of(const struct result *result, uint64_t entries,
                                         uint64_t value_size);
/* The cell, NULL: it was not run. */
const struct result_line *result_cell(const struct result_size *size,
                                      enum drive_operation operation, enum workload workload,
                                      unsigned processes);
/* The median over the rounds of a field; < 0: there is none. */
double result_median(const struct result_line *line, size_t field);
/* The median over the rounds of what this field of one line is to that of another. */
double result_ratio(const struct result_line *line, const struct result_line *other, size_t field);

void result_table(const struct result *result);
void result_figures(const struct result *result);
/* Returns how many of the bars were missed; prints them, figures last. */
unsigned result_bars(const struct result *result);
void result_plot(const struct result *result, FILE *file);

#endif
