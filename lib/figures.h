/* figures.h: every figure of larder_stats, named and described once: larder_stats_read() fills the
 * counters by it, `larder stat` and larderd's /metrics print by it, the manual is compared with it.
 * A new member of larder_stats wants a row in figures.c and nothing else.
 */
#ifndef LARDER_LIB_FIGURES_H
#define LARDER_LIB_FIGURES_H

#include <stddef.h>
#include <stdint.h>

#include "larder.h"

enum figure_unit {
    FIGURE_COUNT, /* since the map was made: a counter */
    FIGURE_NOW,   /* as it stands: a gauge */
    FIGURE_BYTES,
    FIGURE_BOOL,  /* of 32 bits */
    FIGURE_SINCE, /* a time in ms, 0: never */
    FIGURE_RATIO  /* 0 to 1, of two others */
};

struct figure {
    const char *group; /* of `larder stat`; NULL: not shown there */
    const char *name;  /* the member's, or of what follows from members */
    enum figure_unit unit;
    int counter;        /* enum stats_counter that the member is the sum of, or -1 */
    size_t offset;      /* in larder_stats; not of a ratio */
    size_t whole[4];    /* of a ratio: offsets of what is added up and divided by; 0: none */
    const char *family; /* at /metrics, or NULL: not there */
    const char *label;  /* reason="busy", or NULL */
    const char *help;   /* a sentence */
};

extern const struct figure figures[];
extern const size_t figure_count;

/* The help of the family that the figure belongs to. */
const char *figure_family_help(const struct figure *figure);

/* The value; a time before 1970 counts as never. Not of a ratio. */
uint64_t figure_value(const larder_stats *stats, const struct figure *figure);

/* 0 to 1, or -1 where there is nothing to divide by. */
double figure_ratio(const larder_stats *stats, const struct figure *figure);

#endif
