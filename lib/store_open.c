/* store_open.c: environments: made, looked at before LMDB trusts them, opened, closed.
 */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "allocate.h"
#include "error.h"
#include "store_lmdb.h"

enum { DATABASES = 4, LOOK_TRIES = 100, OPEN_TRIES = 2, READER_GATE_WAIT_MS = 100 };

static int open_env(const char *path, uint64_t map_size, bool protect, mode_t mode, MDB_env **out)
{
    MDB_env *env = NULL;
    int code = mdb_env_create(&env);
    if (code != MDB_SUCCESS) {
        return code;
    }
    unsigned flags = MDB_NOSYNC | MDB_NOTLS | MDB_NORDAHEAD | MDB_NOMEMINIT;
    if (!protect) {
        flags |= MDB_WRITEMAP;
    }
    (void)mdb_env_set_maxdbs(env, DATABASES);
    (void)mdb_env_set_maxreaders(env, CONTROL_MAX_READERS);
    (void)mdb_env_set_mapsize(env, (size_t)map_size);
    (void)mdb_env_set_assert(env, lmdb_on_assertion);
    code = mdb_env_open(env, path, flags, mode);
    if (code != MDB_SUCCESS) {
        mdb_env_close(env);
        return code;
    }
    int file = -1;
    (void)mdb_env_get_fd(env, &file);
    (void)fcntl(file, F_SETFD, FD_CLOEXEC); /* LMDB leaves this one to children of exec */
    *out = env;
    return MDB_SUCCESS;
}

/* LMDB makes its lock file by its length alone, and writes into the mapping: on a file system that
 * has no room for it, now or when a reader first gets there, that is a SIGBUS. So it finds one that
 * is allocated. Not one byte more than it would ask for: it reckons its reader slots by the length.
 * (Afterwards the file may not be opened any more: to close it would end LMDB's locks.) */
static int make_lock_file(const char *path, mode_t mode)
{
    enum {
        HEADER = 192,
        READER = 64
    }; /* struct MDB_txninfo and MDB_reader, in whole cache lines */
    char name[4200];
    (void)snprintf(name, sizeof name, "%s/lock.mdb", path);
    int file = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, mode);
    if (file < 0) {
        return error_system(LARDER_ESYSTEM, "%s", name);
    }
    int result = allocate_file(file, HEADER + (CONTROL_MAX_READERS - 1) * READER, "lock file");
    (void)close(file);
    return result;
}

int store_create(const char *path, uint64_t map_size, bool protect, mode_t mode)
{
    MDB_env *env = NULL;
    MDB_txn *txn = NULL;
    MDB_dbi database;
    int result = allocate_check(map_size, "map"); /* LMDB begins to write at once */
    if (result == LARDER_OK) {
        result = make_lock_file(path, mode);
    }
    if (result != LARDER_OK) {
        return result;
    }
    int file = -1;
    int code = open_env(path, map_size, protect, mode, &env);
    if (code != MDB_SUCCESS) {
        return lmdb_convert(NULL, code, "making the map's files");
    }
    (void)mdb_env_get_fd(env, &file);
    result = allocate_file(file, map_size, "map");
    if (result != LARDER_OK) {
        mdb_env_close(env);
        return result;
    }
    code = mdb_txn_begin(env, NULL, 0, &txn);
    if (code == MDB_SUCCESS) {
        code = mdb_dbi_open(txn, LMDB_CHUNKS_NAME, MDB_CREATE | MDB_INTEGERKEY, &database);
    }
    if (code == MDB_SUCCESS) {
        code = mdb_txn_commit(txn);
    } else if (txn != NULL) {
        mdb_txn_abort(txn);
    }
    mdb_env_close(env);
    return lmdb_convert(NULL, code, "making the map's databases");
}

static int check_file(const char *path, const char *name, uint64_t least)
{
    char file[4200];
    struct stat status;
    (void)snprintf(file, sizeof file, "%s/%s", path, name);
    if (lstat(file, &status) != 0) {
        return error_system(errno == EACCES                       ? LARDER_EACCESS
                            : errno == ENOENT || errno == ENOTDIR ? LARDER_ECORRUPT
                                                                  : LARDER_ESYSTEM,
                            "%s", file);
    }
    if (!S_ISREG(status.st_mode)) {
        return error_set(LARDER_EACCESS, "%s is not a regular file", file);
    }
    if ((uint64_t)status.st_size < least) {
        return error_set(LARDER_ECORRUPT, "%s has %" PRId64 " bytes, it should have %" PRIu64, file,
                         (int64_t)status.st_size, least);
    }
    return LARDER_OK;
}

/* Where the mapping begins, from any record in it: its page starts with its own number. MAP_FORMAT
 */
static int find_base(struct store *store, MDB_txn *txn, MDB_dbi entries)
{
    MDB_val key = lmdb_value(LMDB_CHUNKS_NAME, sizeof LMDB_CHUNKS_NAME - 1), data;
    int code = mdb_get(txn, entries, &key, &data);
    if (code != MDB_SUCCESS) {
        return code;
    }
    uintptr_t page_size = store->page_size;
    uintptr_t page = (uintptr_t)data.mv_data & ~(page_size - 1);
    uint64_t number;
    memcpy(&number, (const void *)page, sizeof number);
    if (number >= store->max_pages) {
        return MDB_CORRUPTED;
    }
    store->base = (const uint8_t *)(page - number * page_size);
    return MDB_SUCCESS;
}

/* Whether descent.c sees in a snapshot what LMDB sees: it knows the pages of data version 1 only.
 * Writers may be quick enough to spoil a look, not so many of them. */
static bool check_descent(struct store *store, MDB_txn *txn, MDB_dbi entries)
{
    if (!descent_knows(store->base)) {
        return false;
    }
    for (int tries = 0; tries < LOOK_TRIES; tries++) {
        struct descent tree;
        struct descent_database chunks;
        MDB_stat main_tree, theirs;
        if (descent_begin(&tree, store->base, store->page_size, store->max_pages,
                          mdb_txn_id(txn)) &&
            mdb_stat(txn, entries, &main_tree) == MDB_SUCCESS &&
            mdb_stat(txn, store->chunks, &theirs) == MDB_SUCCESS &&
            tree.depth == main_tree.ms_depth &&
            descent_open(&tree, LMDB_CHUNKS_NAME, sizeof LMDB_CHUNKS_NAME - 1, &chunks) ==
                LARDER_OK &&
            chunks.tree.depth == theirs.ms_depth && chunks.entries == theirs.ms_entries &&
            chunks.leaf_pages == theirs.ms_leaf_pages) {
            return true;
        }
        mdb_txn_reset(txn);
        if (mdb_txn_renew(txn) != MDB_SUCCESS) {
            return false;
        }
    }
    return false;
}

/* Look at the way to the named database before LMDB walks it, which trusts what it finds there.
 * Where LMDB's mapping lies is not known yet: this one is ours, for the moment. */
static int look_first(struct store *store, MDB_txn *txn)
{
    size_t size = (size_t)store->max_pages * store->page_size;
    int file = -1, code = EBUSY;
    (void)mdb_env_get_fd(store->env, &file);
    void *mapping = mmap(NULL, size, PROT_READ, MAP_SHARED, file, 0);
    if (mapping == MAP_FAILED) {
        return errno;
    }
    if (!descent_knows(mapping)) { /* an LMDB that is newer than this library: it has to know */
        (void)munmap(mapping, size);
        return MDB_SUCCESS;
    }
    for (int tries = 0; tries < LOOK_TRIES; tries++) {
        struct descent tree;
        struct descent_database chunks;
        bool whole =
            descent_begin(&tree, mapping, store->page_size, store->max_pages, mdb_txn_id(txn));
        atomic_thread_fence(memory_order_seq_cst); /* as in store_read_begin() */
        if (atomic_load_explicit(&store->life->announced, memory_order_acquire) <
            mdb_txn_id(txn) + 2) {
            bool sane = whole && descent_open(&tree, LMDB_CHUNKS_NAME, sizeof LMDB_CHUNKS_NAME - 1,
                                              &chunks) == LARDER_OK;
            code = sane ? MDB_SUCCESS : MDB_CORRUPTED;
            break;
        }
        mdb_txn_reset(txn);
        code = mdb_txn_renew(txn);
        if (code != MDB_SUCCESS) {
            break;
        }
        code = EBUSY;
    }
    (void)munmap(mapping, size);
    return code;
}

static int open_databases(struct store *store)
{
    MDB_txn *txn = NULL;
    MDB_dbi entries;
    int code = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn);
    if (code != MDB_SUCCESS) {
        return code;
    }
    if (mdb_txn_id(txn) ==
        0) { /* a generation begins with a commit: the lock file is not finished */
        mdb_txn_abort(txn);
        return MDB_VERSION_MISMATCH;
    }
    code = look_first(store, txn);
    if (code == MDB_SUCCESS) {
        code = mdb_dbi_open(txn, NULL, 0, &entries);
    }
    if (code == MDB_SUCCESS) {
        code = mdb_dbi_open(txn, LMDB_CHUNKS_NAME, MDB_INTEGERKEY, &store->chunks);
    }
    if (code == MDB_SUCCESS) {
        code = find_base(store, txn, entries);
    }
    if (code != MDB_SUCCESS) {
        mdb_txn_abort(txn);
        return code == MDB_NOTFOUND ? MDB_CORRUPTED : code;
    }
    /* Keeps the handles. A transaction of its own for the comparison: to renew the one that opened
     * the database would take its handle away from the environment. */
    code = mdb_txn_commit(txn);
    if (code == MDB_SUCCESS) {
        code = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn);
    }
    if (code == MDB_SUCCESS) {
        store->descends = check_descent(store, txn, entries);
        mdb_txn_abort(txn);
    }
    return code;
}

static int open_once(struct store *store, const char *path, uint64_t map_size, bool protect)
{
    int code = open_env(path, map_size, protect, (mode_t)store->control->mode, &store->env);
    if (code != MDB_SUCCESS) {
        return code;
    }
    (void)mdb_env_set_userctx(store->env, store);
    volatile int opened = EBUSY;
    struct gate *gate = &store->control->reader_gate;
    if (gate_enter(gate, READER_GATE_WAIT_MS) >= 0) { /* it takes a reader slot */
        LMDB_GUARDED(opened = open_databases(store), opened = MDB_CORRUPTED);
        if (opened == MDB_READERS_FULL && mdb_reader_check(store->env, NULL) == MDB_SUCCESS) {
            LMDB_GUARDED(opened = open_databases(store), opened = MDB_CORRUPTED);
        }
        gate_leave(gate);
    }
    if (opened != MDB_SUCCESS && !atomic_load(&store->hosed)) {
        mdb_env_close(store->env);
    }
    return opened;
}

static int on_own_slot(const char *line, void *context)
{
    int pid = 0;
    if (sscanf(line, "%d", &pid) == 1 && pid == (int)getpid()) {
        ++*(int *)context;
    }
    return 0;
}

/* Slots under this process's number before it has taken any are a dead namesake's:
 * mdb_reader_check() would pass them over for ever. Closing an environment clears all of its own
 * number. */
static bool has_namesake(struct store *store)
{
    int slots = 0;
    (void)mdb_reader_list(store->env, on_own_slot, &slots);
    return slots > 0; /* open_databases() has given its own back */
}

int store_open(const char *path, struct control *control, uint64_t generation, struct store **out)
{
    uint64_t map_size = atomic_load(&control_life_of(control, generation)->map_size);
    bool protect = (control->flags & LARDER_PROTECT) != 0;
    uint32_t page_size = control->page_size; /* once: all bounds are reckoned with it */
    if (page_size != (uint32_t)sysconf(_SC_PAGESIZE)) {
        return error_set(LARDER_ECORRUPT, "pages of %" PRIu32 " bytes", page_size);
    }
    int result = check_file(path, "data.mdb", map_size);
    if (result == LARDER_OK) {
        result = check_file(path, "lock.mdb", 1);
    }
    if (result != LARDER_OK) {
        return result;
    }
    struct store *store = calloc(1, sizeof *store);
    if (store == NULL) {
        return error_set(LARDER_ENOMEM, "out of memory");
    }
    store->control = control;
    store->life = control_life_of(control, generation);
    store->overwrites = &control->overwrites[generation & 1];
    store->generation = generation;
    store->page_size = page_size;
    store->max_pages = map_size / page_size;
    store->writable = !protect;
    int code = open_once(store, path, map_size, protect);
    /* Whoever opens first sets up the lock file. One that was killed meanwhile keeps its file lock
     * until the kernel has closed its files, a moment after our gate has noticed: then LMDB takes
     * the unfinished file for good. By now it has been waited for, and next time it is set up anew.
     */
    for (int tries = 0; tries < OPEN_TRIES && !atomic_load(&store->hosed) &&
                        (code == MDB_INVALID || code == MDB_VERSION_MISMATCH);
         tries++) {
        code = open_once(store, path, map_size, protect);
    }
    if (code == MDB_SUCCESS && has_namesake(store)) {
        mdb_env_close(store->env);
        code = open_once(store, path, map_size, protect);
    }
    if (code == MDB_SUCCESS) {
        store->writable &= store->descends;
        result = hotset_open(path, atomic_load(&store->life->hot_size), &store->hot);
        if (result != LARDER_OK) {
            mdb_env_close(store->env);
            free(store);
            return result;
        }
    }
    if (code != MDB_SUCCESS) {
        free(store);
        if (code == EBUSY) {
            return error_set(LARDER_EBUSY, "the reader table is locked by another process");
        }
        /* Only what LMDB calls damage is damage: a process without descriptors must not cost the
         * others their map. */
        return lmdb_convert(NULL, code, "opening the map's files");
    }
    *out = store;
    return LARDER_OK;
}

void store_close(struct store **store)
{
    if (*store != NULL) {
        if (!atomic_load(&(*store)->hosed)) {
            mdb_env_close((*store)->env);
        }
        hotset_close(&(*store)->hot);
        free(*store);
        *store = NULL;
    }
}

void store_forget(struct store **store)
{
    /* mdb_env_close() clears only slots of getpid(), which in the child are none, and the parent's
     * file locks are the parent's: POSIX locks are not inherited and closing here drops none of
     * its. */
    store_close(store);
}
