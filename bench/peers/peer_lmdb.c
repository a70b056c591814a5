/* peer_lmdb.c: plain LMDB, the yardstick: a hit is renew, get, copy, reset; a set is one put in a
 * transaction of its own. Flags as the library's (bench/measure.h), one database, preallocated.
 */
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <string.h>

#include "bench/measure.h"
#include "peer.h"

static struct measure_lmdb lmdb;
static MDB_txn *reader;

static bool failed(const char *what, int code)
{
    return peer_failed("lmdb: %s: %s", what, mdb_strerror(code));
}

static bool attach(const char *path, uint64_t map_size)
{
    MDB_txn *txn = NULL;
    unsigned flags = MDB_WRITEMAP | MDB_NOSYNC | MDB_NOTLS | MDB_NORDAHEAD | MDB_NOMEMINIT;
    int code = mdb_env_create(&lmdb.env);
    if (code == 0)
        code = mdb_env_set_mapsize(lmdb.env, map_size);
    if (code == 0)
        code = mdb_env_open(lmdb.env, path, flags, 0600);
    if (code == 0)
        code = mdb_txn_begin(lmdb.env, NULL, MDB_RDONLY, &txn);
    if (code == 0)
        code = mdb_dbi_open(txn, NULL, 0, &lmdb.database);
    if (code == 0)
        code = mdb_txn_commit(txn);
    return code == 0 || failed("attach", code);
}

static bool open_store(const struct peer_setup *setup)
{
    char path[512];
    uint64_t map_size = setup->entries * (setup->value_size * 3 / 2 + 400) + (128u << 20);
    map_size &= ~UINT64_C(4095);
    snprintf(path, sizeof path, "%s/plain", setup->directory);
    if (setup->create)
        measure_lmdb_open(&lmdb, path, map_size);
    else if (!attach(path, map_size))
        return false;
    int code = mdb_txn_begin(lmdb.env, NULL, MDB_RDONLY, &reader);
    if (code != 0)
        return failed("begin", code);
    mdb_txn_reset(reader);
    return true;
}

static int64_t get(const char *key, void *buffer, size_t buffer_size)
{
    MDB_val name = {PEER_KEY_SIZE, (void *)(uintptr_t)key}, data;
    if (__builtin_expect(mdb_txn_renew(reader) != 0, 0))
        return -1;
    int code = mdb_get(reader, lmdb.database, &name, &data);
    if (__builtin_expect(code == 0 && data.mv_size <= buffer_size, 1))
        memcpy(buffer, data.mv_data, data.mv_size);
    mdb_txn_reset(reader);
    return code == 0 ? (int64_t)data.mv_size : -1;
}

static bool set(const char *key, const void *value, size_t size)
{
    measure_lmdb_put(&lmdb, key, PEER_KEY_SIZE, value, size);
    return true;
}

/* Every page that was ever used, but those on the free list. */
static uint64_t memory(void)
{
    MDB_stat stat;
    MDB_txn *txn = NULL;
    uint64_t pages = 2; /* the meta pages */
    if (mdb_txn_begin(lmdb.env, NULL, MDB_RDONLY, &txn) != 0)
        return 0;
    for (MDB_dbi database = 0; database <= lmdb.database; database++) {
        if (mdb_stat(txn, database, &stat) == 0)
            pages += stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
    }
    mdb_txn_abort(txn);
    return pages * 4096;
}

static void close_store(void)
{
    mdb_txn_abort(reader);
    mdb_env_close(lmdb.env);
}

const struct peer peer_lmdb = {.name = "lmdb",
                               .what = "mdb_txn_renew, mdb_get, copy, mdb_txn_reset; mdb_put",
                               .open = open_store,
                               .get = get,
                               .set = set,
                               .memory = memory,
                               .close = close_store};
