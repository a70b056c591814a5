/* measure.h: what the benchmarks share: medians, percentiles, a bootstrap bound, Zipf's law,
 * options, resident memory, and the environment of plain LMDB that they compare with. Processes,
 * directories and randomness come from tests/multi/harness.h. It knows nothing of the library.
 */
#ifndef LARDER_BENCH_MEASURE_H
#define LARDER_BENCH_MEASURE_H

#include <lmdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/multi/harness.h"

/* Sorts the values. share: 0.5 is the median. */
double measure_quantile(double *values, size_t count, double share);
double measure_median(double *values, size_t count);

/* The upper 95 % bound (one-sided) of the values' median, by 2,000 bootstrap samples. */
double measure_median_bound(const double *values, size_t count, test_random *random);

/* count numbers below limit: uniform, or by Zipf's law with exponent 0.99, scattered over the
 * range. */
void measure_uniform(uint32_t *out, size_t count, uint32_t limit, test_random *random);
void measure_zipf(uint32_t *out, size_t count, uint32_t limit, test_random *random);

/* "--name N" among the arguments, else fallback. Ends the program on anything that is no number. */
uint64_t measure_option(int argc, char **argv, const char *name, uint64_t fallback);

/* Sum of a field of /proc/self/smaps_rollup ("Rss:", "Pss:"), bytes. */
uint64_t measure_memory(const char *field);

/* Set up: name for messages, a watchdog of limit_s. */
void measure_begin(const char *name, unsigned limit_s);

/* Plain LMDB with the flags that the library uses (WRITEMAP, NOSYNC, NOTLS, NORDAHEAD, NOMEMINIT),
 * in a directory of its own beside the map, preallocated as the map is. */
struct measure_lmdb {
    MDB_env *env;
    MDB_dbi database;
};
void measure_lmdb_open(struct measure_lmdb *lmdb, const char *directory, uint64_t map_size);
/* The same files in another process. */
void measure_lmdb_attach(struct measure_lmdb *lmdb, const char *directory, uint64_t map_size);
void measure_lmdb_put(struct measure_lmdb *lmdb, const void *key, size_t key_size,
                      const void *value, size_t value_size); /* in a transaction of its own */

#endif
