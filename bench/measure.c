/* measure.c: see measure.h.
 */
#include "measure.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

double measure_quantile(double *values, size_t count, double share)
{
    test_check(count > 0, "a quantile of nothing");
    qsort(values, count, sizeof *values, compare);
    double at = share * (double)(count - 1);
    size_t below = (size_t)at;
    double rest = at - (double)below;
    return below + 1 < count ? values[below] * (1 - rest) + values[below + 1] * rest
                             : values[below];
}

double measure_median(double *values, size_t count)
{
    return measure_quantile(values, count, 0.5);
}

static double resampled_median(const double *values, size_t count, double *work,
                               test_random *random)
{
    for (size_t at = 0; at < count; at++)
        work[at] = values[test_random_below(random, count)];
    return measure_median(work, count);
}

double measure_median_bound(const double *values, size_t count, test_random *random)
{
    enum { SAMPLES = 2000 };
    static double medians[SAMPLES];
    double *work = malloc(count * sizeof *work);
    test_check(work != NULL, "malloc");
    for (size_t at = 0; at < SAMPLES; at++) {
        medians[at] = resampled_median(values, count, work, random);
    }
    free(work);
    return measure_quantile(medians, SAMPLES, 0.95);
}

void measure_uniform(uint32_t *out, size_t count, uint32_t limit, test_random *random)
{
    for (size_t at = 0; at < count; at++)
        out[at] = (uint32_t)test_random_below(random, limit);
}

/* By inversion of the cumulated weights; rank r has weight r^-0.99. */
void measure_zipf(uint32_t *out, size_t count, uint32_t limit, test_random *random)
{
    double *sums = malloc(limit * sizeof *sums), sum = 0;
    uint32_t *places = malloc(limit * sizeof *places);
    test_check(sums != NULL && places != NULL, "malloc");
    for (uint32_t rank = 0; rank < limit; rank++) {
        sum += pow((double)rank + 1, -0.99);
        sums[rank] = sum;
        places[rank] = rank;
    }
    for (uint32_t at = limit - 1; at > 0; at--) { /* the popular ones are not neighbours */
        uint32_t other = (uint32_t)test_random_below(random, at + 1), swap = places[at];
        places[at] = places[other];
        places[other] = swap;
    }
    for (size_t at = 0; at < count; at++) {
        double wanted = (double)(test_random_next(random) >> 11) * 0x1p-53 * sum;
        uint32_t low = 0, high = limit - 1;
        while (low < high) {
            uint32_t middle = low + (high - low) / 2;
            if (sums[middle] > wanted)
                high = middle;
            else
                low = middle + 1;
        }
        out[at] = places[low];
    }
    free(sums);
    free(places);
}

uint64_t measure_option(int argc, char **argv, const char *name, uint64_t fallback)
{
    for (int at = 1; at < argc; at++) {
        if (strcmp(argv[at], name) != 0)
            continue;
        char *end = NULL;
        uint64_t number = at + 1 < argc ? strtoull(argv[at + 1], &end, 10) : 0;
        if (end == NULL || end == argv[at + 1] || *end != '\0') {
            fprintf(stderr, "%s wants a number\n", name);
            exit(2);
        }
        return number;
    }
    return fallback;
}

uint64_t measure_memory(const char *field)
{
    FILE *file = fopen("/proc/self/smaps_rollup", "re");
    char line[256];
    uint64_t kilobytes = 0;
    test_check(file != NULL, "smaps_rollup: %s", strerror(errno));
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, field, strlen(field)) == 0) {
            kilobytes = strtoull(line + strlen(field), NULL, 10);
        }
    }
    fclose(file);
    return kilobytes * 1024;
}

void measure_begin(const char *name, unsigned limit_s)
{
    test_begin(name, limit_s);
}

static void must(int code, const char *what)
{
    test_check(code == MDB_SUCCESS, "lmdb: %s: %s", what, mdb_strerror(code));
}

static int lmdb_env(struct measure_lmdb *lmdb, const char *directory, uint64_t map_size)
{
    int file = -1;
    must(mdb_env_create(&lmdb->env), "create");
    must(mdb_env_set_mapsize(lmdb->env, map_size), "mapsize");
    unsigned flags = MDB_WRITEMAP | MDB_NOSYNC | MDB_NOTLS | MDB_NORDAHEAD | MDB_NOMEMINIT;
    must(mdb_env_open(lmdb->env, directory, flags, 0600), "open");
    must(mdb_env_get_fd(lmdb->env, &file), "fd");
    return file;
}

static void lmdb_database(struct measure_lmdb *lmdb)
{
    MDB_txn *txn = NULL;
    must(mdb_txn_begin(lmdb->env, NULL, 0, &txn), "begin");
    must(mdb_dbi_open(txn, NULL, 0, &lmdb->database), "database");
    must(mdb_txn_commit(txn), "commit");
}

void measure_lmdb_open(struct measure_lmdb *lmdb, const char *directory, uint64_t map_size)
{
    test_check(mkdir(directory, 0700) == 0, "mkdir %s: %s", directory, strerror(errno));
    int code = posix_fallocate(lmdb_env(lmdb, directory, map_size), 0, (off_t)map_size);
    test_check(code == 0, "posix_fallocate: %s", strerror(code));
    lmdb_database(lmdb);
}

void measure_lmdb_attach(struct measure_lmdb *lmdb, const char *directory, uint64_t map_size)
{
    (void)lmdb_env(lmdb, directory, map_size);
    lmdb_database(lmdb);
}

void measure_lmdb_put(struct measure_lmdb *lmdb, const void *key, size_t key_size,
                      const void *value, size_t value_size)
{
    MDB_txn *txn = NULL;
    MDB_val name = {key_size, (void *)(uintptr_t)key};
    MDB_val data = {value_size, (void *)(uintptr_t)value};
    must(mdb_txn_begin(lmdb->env, NULL, 0, &txn), "begin");
    must(mdb_put(txn, lmdb->database, &name, &data, 0), "put");
    must(mdb_txn_commit(txn), "commit");
}
