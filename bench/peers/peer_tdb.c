/* peer_tdb.c: Samba's tdb on the same file system: no fsync, robust mutexes in the file, a hash
 * table as large as the number of entries, its better hash, and a few dead records kept (what
 * Samba's own volatile files use). A hit is tdb_parse_record with a copy.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "peer.h"

#ifdef HAVE_TDB
#include <sys/stat.h>
#include <tdb.h>

static struct tdb_context *tdb;

static bool available(const struct peer_setup *setup, char *why, size_t why_size)
{
    (void)setup;
    bool robust = tdb_runtime_check_for_robust_mutexes();
    if (!robust)
        snprintf(why, why_size, "tdb finds no robust mutexes here");
    return robust;
}

static bool open_store(const struct peer_setup *setup)
{
    char path[512];
    int flags =
        TDB_NOSYNC | TDB_CLEAR_IF_FIRST | TDB_MUTEX_LOCKING | TDB_INCOMPATIBLE_HASH | TDB_VOLATILE;
    snprintf(path, sizeof path, "%s/tdb", setup->directory);
    if (!tdb_runtime_check_for_robust_mutexes())
        return peer_failed("tdb finds no robust mutexes here");
    tdb = tdb_open_ex(path, (int)setup->entries, flags, O_RDWR | O_CREAT, 0600, NULL, NULL);
    return tdb != NULL || peer_failed("tdb: cannot open %.200s", path);
}

static TDB_DATA bytes(const void *data, size_t size)
{
    return (TDB_DATA){.dptr = (unsigned char *)(uintptr_t)data, .dsize = size};
}

struct target {
    void *buffer;
    size_t room;
};

static int copy(TDB_DATA key, TDB_DATA data, void *context)
{
    struct target *target = context;
    (void)key;
    if (data.dsize <= target->room)
        memcpy(target->buffer, data.dptr, data.dsize);
    return (int)data.dsize;
}

static int64_t get(const char *key, void *buffer, size_t buffer_size)
{
    struct target target = {buffer, buffer_size};
    return tdb_parse_record(tdb, bytes(key, PEER_KEY_SIZE), copy, &target);
}

static bool set(const char *key, const void *value, size_t size)
{
    int code = tdb_store(tdb, bytes(key, PEER_KEY_SIZE), bytes(value, size), TDB_REPLACE);
    return code == 0 || peer_failed("tdb: %s", tdb_errorstr(tdb));
}

static uint64_t memory(void)
{
    return tdb_map_size(tdb);
}

static void close_store(void)
{
    tdb_close(tdb);
}

const struct peer peer_tdb = {.name = "tdb",
                              .what = "tdb_parse_record, tdb_store; robust mutexes, no sync",
                              .available = available,
                              .open = open_store,
                              .get = get,
                              .set = set,
                              .memory = memory,
                              .close = close_store};
#else
static bool available(const struct peer_setup *setup, char *why, size_t why_size)
{
    (void)setup;
    snprintf(why, why_size, "built without libtdb-dev");
    return false;
}

const struct peer peer_tdb = {.name = "tdb", .what = "", .available = available};
#endif
