/* store.c: the only user of lmdb.h. Environments, transactions, and the two trees.
 *
 * What is written for whom: LMDB 0.9.24 (Debian 12). Its locks have no deadline, so each is entered
 * only inside a gate (gate.h); its assertions abort, so each call that can meet one runs under a
 * guard that a failed assertion leaves by a jump, after poisoning the generation.
 */
#include "store.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lmdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "format.h"
#include "key.h"
#include "rows.h"
#include "stats.h"

#define CHUNKS_NAME                                                                                \
    "\x01"                                                                                         \
    "chunks"                 /* two literals: \x takes every hexadecimal digit */
#define TICK_NAME "\x01tick" /* see store_touch() */

enum {
    ENTRIES = 1, /* LMDB's fixed handle of the main tree */
    FREE_LIST = 0,
    DATABASES = 4,
    ROW_TAG = 0x03, /* first byte of a key of the log: past all entries, so that it grows there */
    ROW_FORM = 7,   /* the tag and a block's number, most significant byte first. MAP_FORMAT */
    ROW_SHIFT = 16, /* of a 64-bit number: its first two bytes are always zero */
    RENEW_TRIES = 100,
    OPEN_TRIES = 2,
    READER_GATE_WAIT_MS = 100,
    META_PAGES = 2,
    PAGE_HEADER = 16, /* LMDB's, before a page's content, and in it: */
    PAGE_LOWER = 12,  /* where the room between pointers and nodes begins */
    PAGE_UPPER = 14   /* and ends */
};

/* ---- Assertions ------------------------------------------------------------------------------ */

/* Where a failed assertion of this thread goes. A pointer per thread, only in this file. */
static __thread void **guard __attribute__((tls_model("initial-exec")));

static void on_assertion(MDB_env *env, const char *message)
{
    struct store *store = mdb_env_get_userctx(env);
    if (store == NULL || guard == NULL) {
        return; /* LMDB aborts: only while making a new generation, before anybody uses it */
    }
    atomic_store(&store->hosed, true);
    control_poison(store->control, store->generation);
    (void)error_set(LARDER_ECORRUPT, "LMDB's assertion failed: %s", message);
    void **target = guard;
    guard = NULL;
    __builtin_longjmp(target, 1);
}

/* Run the statement under a guard; on a failed assertion run the other one. The compiler's own jump
 * saves three words; sigsetjmp would be a fifth of a hit. */
#define GUARDED(statement, failed)                                                                 \
    do {                                                                                           \
        void *here_[5];                                                                            \
        if (__builtin_setjmp(here_) == 0) {                                                        \
            guard = here_;                                                                         \
            statement;                                                                             \
            guard = NULL;                                                                          \
        } else {                                                                                   \
            failed;                                                                                \
        }                                                                                          \
    } while (0)

/* ---- Errors ---------------------------------------------------------------------------------- */

/* The one converter from LMDB's codes. Damage poisons the generation. */
static int convert(struct store *store, int code, const char *what)
{
    switch (code) {
    case MDB_SUCCESS:
        return LARDER_OK;
    case MDB_NOTFOUND:
        return LARDER_MISS;
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
        return error_set(LARDER_EFULL, "%s: the map is full", what);
    case MDB_READERS_FULL:
        return error_set(LARDER_ELIMIT, "%s: all %d reader slots are in use", what,
                         CONTROL_MAX_READERS);
    case ENOMEM:
        return error_set(LARDER_ENOMEM, "%s: out of memory", what);
    case ENOSPC:
    case EDQUOT:
        return error_set(LARDER_ENOSPACE, "%s: %s", what, mdb_strerror(code));
    case EACCES:
    case EPERM:
    case EROFS:
        return error_set(LARDER_EACCESS, "%s: %s", what, mdb_strerror(code));
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_PANIC:
    case MDB_BAD_TXN:
    case MDB_CURSOR_FULL:
    case MDB_PAGE_FULL:
    case MDB_INCOMPATIBLE:
    case MDB_BAD_DBI:
        if (store != NULL) {
            control_poison(store->control, store->generation);
        }
        return error_set(LARDER_ECORRUPT, "%s: %s", what, mdb_strerror(code));
    default:
        return error_set(LARDER_ESYSTEM, "%s: %s", what, mdb_strerror(code));
    }
}

static int fail(struct transaction *t, int code, const char *what)
{
    t->error = convert(t->store, code, what);
    return t->error;
}

static int hosed(struct transaction *t)
{
    t->error = LARDER_ECORRUPT;
    return t->error;
}

static MDB_val value_of(const void *data, size_t size)
{
    return (MDB_val){.mv_size = size, .mv_data = (void *)(uintptr_t)data};
}

/* ---- Environments ---------------------------------------------------------------------------- */

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
    (void)mdb_env_set_assert(env, on_assertion);
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

static int preallocate(MDB_env *env, uint64_t map_size)
{
    int file = -1;
    sigset_t all, before;
    (void)mdb_env_get_fd(env, &file);
    /* A signal would end the call early; on some file systems it starts over from the beginning. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int code;
    do {
        code = posix_fallocate(file, 0, (off_t)map_size);
    } while (code == EINTR);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

int store_create(const char *path, uint64_t map_size, bool protect, mode_t mode)
{
    MDB_env *env = NULL;
    MDB_txn *txn = NULL;
    MDB_dbi database;
    int code = open_env(path, map_size, protect, mode, &env);
    if (code != MDB_SUCCESS) {
        return convert(NULL, code, "making the map's files");
    }
    code = preallocate(env, map_size);
    if (code != 0) {
        mdb_env_close(env);
        errno = code;
        return error_system(code == ENOSPC || code == EDQUOT ? LARDER_ENOSPACE : LARDER_ESYSTEM,
                            "map of %" PRIu64 " bytes", map_size);
    }
    code = mdb_txn_begin(env, NULL, 0, &txn);
    if (code == MDB_SUCCESS) {
        code = mdb_dbi_open(txn, CHUNKS_NAME, MDB_CREATE | MDB_INTEGERKEY, &database);
    }
    if (code == MDB_SUCCESS) {
        code = mdb_txn_commit(txn);
    } else if (txn != NULL) {
        mdb_txn_abort(txn);
    }
    mdb_env_close(env);
    return convert(NULL, code, "making the map's databases");
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
    MDB_val key = value_of(CHUNKS_NAME, sizeof CHUNKS_NAME - 1), data;
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
    for (int tries = 0; tries < RENEW_TRIES; tries++) {
        struct descent tree;
        struct descent_database chunks;
        MDB_stat main_tree, theirs;
        if (descent_begin(&tree, store->base, store->page_size, store->max_pages,
                          mdb_txn_id(txn)) &&
            mdb_stat(txn, entries, &main_tree) == MDB_SUCCESS &&
            mdb_stat(txn, store->chunks, &theirs) == MDB_SUCCESS &&
            tree.depth == main_tree.ms_depth &&
            descent_open(&tree, CHUNKS_NAME, sizeof CHUNKS_NAME - 1, &chunks) == LARDER_OK &&
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
    for (int tries = 0; tries < RENEW_TRIES; tries++) {
        struct descent tree;
        struct descent_database chunks;
        bool whole =
            descent_begin(&tree, mapping, store->page_size, store->max_pages, mdb_txn_id(txn));
        atomic_thread_fence(memory_order_seq_cst); /* as in store_read_begin() */
        if (atomic_load_explicit(&store->life->announced, memory_order_acquire) <
            mdb_txn_id(txn) + 2) {
            bool sane = whole && descent_open(&tree, CHUNKS_NAME, sizeof CHUNKS_NAME - 1,
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
        code = mdb_dbi_open(txn, CHUNKS_NAME, MDB_INTEGERKEY, &store->chunks);
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
        GUARDED(opened = open_databases(store), opened = MDB_CORRUPTED);
        if (opened == MDB_READERS_FULL && mdb_reader_check(store->env, NULL) == MDB_SUCCESS) {
            GUARDED(opened = open_databases(store), opened = MDB_CORRUPTED);
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
        return convert(NULL, code, "opening the map's files");
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

/* ---- Readers --------------------------------------------------------------------------------- */

int store_reader_open(struct store *store, struct transaction *reader, int64_t wait_ms)
{
    *reader = (struct transaction){.store = store};
    enum gate_result entered = gate_enter(&store->control->reader_gate, wait_ms);
    if (entered < 0) {
        return error_set(entered == GATE_BUSY ? LARDER_EBUSY : LARDER_ECORRUPT,
                         "the reader table's gate is %s",
                         entered == GATE_BUSY ? "held by another process" : "damaged");
    }
    volatile int code = MDB_PANIC;
    GUARDED(code = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &reader->txn), code = MDB_CORRUPTED);
    if (code == MDB_READERS_FULL && mdb_reader_check(store->env, NULL) == MDB_SUCCESS) {
        GUARDED(code = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &reader->txn),
                code = MDB_CORRUPTED);
    }
    gate_leave(&store->control->reader_gate);
    if (code != MDB_SUCCESS) {
        reader->txn = NULL;
        return convert(store, code, "taking a reader slot");
    }
    mdb_txn_reset(reader->txn);
    return LARDER_OK;
}

void store_reader_close(struct transaction *reader)
{
    if (reader->txn != NULL && !atomic_load(&reader->store->hosed)) {
        mdb_txn_abort(reader->txn);
    }
    reader->txn = NULL;
}

int store_read_begin(struct transaction *reader, struct stats_slot *lookups)
{
    const struct store *store = reader->store;
    struct control_life *life = store->life;
    reader->error = LARDER_OK;
    reader->chunks_known = false;
    for (int tries = 0; tries < RENEW_TRIES; tries++) {
        /* acquire: what these changes did is in the snapshot */
        reader->changes = atomic_load_explicit(&life->changes, memory_order_acquire);
        int code = mdb_txn_renew(reader->txn);
        if (__builtin_expect(code != MDB_SUCCESS, 0)) {
            return fail(reader, code, "renewing a snapshot");
        }
        reader->number = mdb_txn_id(reader->txn);
        /* The root stands on the meta page, like what LMDB copies: it is read before the check. */
        bool whole = !store->descends || descent_begin(&reader->tree, store->base, store->page_size,
                                                       store->max_pages, reader->number);
        /* LMDB publishes the slot with a plain store and copies the meta page after its last check.
         * The fence puts the slot before the load; a writer two ahead of the snapshot may have
         * reused its meta page meanwhile (three ahead: its pages), so that one is not trusted.
         * Pairs with the store of announced in store_write_begin(). */
        if (__builtin_expect(lookups != NULL, 1)) {
            stats_count_and_fence(lookups, STATS_LOOKUPS);
            lookups = NULL;
        } else {
            atomic_thread_fence(memory_order_seq_cst);
        }
        uint64_t announced = atomic_load_explicit(&life->announced, memory_order_acquire);
        if (__builtin_expect(announced < reader->number + 2, 1)) {
            if (__builtin_expect(whole, 1)) {
                return LARDER_OK;
            }
            mdb_txn_reset(reader->txn);
            return fail(reader, MDB_CORRUPTED, "the meta page of a snapshot");
        }
        mdb_txn_reset(reader->txn);
    }
    reader->error = error_set(LARDER_EBUSY, "no stable snapshot in %d tries", RENEW_TRIES);
    return reader->error;
}

bool store_ledger(struct transaction *reader, struct ledger *ledger)
{
    struct control_life *life = reader->store->life;
    if (ledger_read(life, reader->number, ledger)) {
        return true;
    }
    for (int tries = 0; tries < RENEW_TRIES; tries++) {
        if (ledger_read(life, atomic_load_explicit(&life->committed, memory_order_acquire),
                        ledger)) {
            return true;
        }
    }
    return false;
}

void store_read_end(struct transaction *reader)
{
    if (__builtin_expect(!atomic_load_explicit(&reader->store->hosed, memory_order_relaxed), 1)) {
        mdb_txn_reset(reader->txn);
    }
}

/* The number that readers begin with, 0: not to be had. */
static uint64_t published_transaction(struct store *store)
{
    MDB_txn *volatile txn = NULL;
    volatile int code = MDB_PANIC;
    GUARDED(
        {
            MDB_txn *begun = NULL;
            code = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &begun);
            txn = begun;
        },
        return 0);
    if (code != MDB_SUCCESS) {
        return 0;
    }
    uint64_t number = mdb_txn_id(txn);
    mdb_txn_abort(txn);
    return number;
}

int store_undo_unpublished(struct store *store)
{
    uint64_t last = store_last_transaction(store);
    uint64_t published = published_transaction(store);
    if (published == 0) {
        return error_set(LARDER_EBUSY, "a writer died, and no reader slot is free");
    }
    if (last == published || !store->writable) { /* else the page is written in one piece */
        return LARDER_OK;
    }
    if (last != published + 1 || last < 2) {
        control_poison(store->control, store->generation);
        return error_set(LARDER_ECORRUPT, "a writer died, and its meta page is damaged");
    }
    descent_take_back((uint8_t *)(uintptr_t)store->base, store->page_size, last);
    return LARDER_OK;
}

/* ---- Writers --------------------------------------------------------------------------------- */

int store_write_begin(struct store *store, struct transaction *writer)
{
    MDB_envinfo info;
    *writer = (struct transaction){.store = store, .write = true};
    if (atomic_load(&store->hosed)) {
        return hosed(writer);
    }
    (void)mdb_env_info(store->env, &info);
    uint64_t next = (uint64_t)info.me_last_txnid + 1;
    /* Seen before any page of this transaction is written and before the reader table is looked at.
     * Pairs with store_read_begin(). */
    atomic_store_explicit(&store->life->announced, next, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    volatile int code = MDB_PANIC;
    GUARDED(code = mdb_txn_begin(store->env, NULL, 0, &writer->txn), return hosed(writer));
    if (code != MDB_SUCCESS) {
        writer->txn = NULL;
        return fail(writer, code, "beginning a write");
    }
    writer->number = mdb_txn_id(writer->txn);
    if (writer->number != next) {
        mdb_txn_abort(writer->txn);
        writer->txn = NULL;
        return fail(writer, MDB_CORRUPTED, "transaction numbers");
    }
    return LARDER_OK;
}

int store_write_commit(struct transaction *writer)
{
    if (writer->txn == NULL || writer->error != LARDER_OK || !writer->changed) {
        store_write_abort(writer);
        return writer->error;
    }
    volatile int code = MDB_PANIC;
    GUARDED(code = mdb_txn_commit(writer->txn), code = MDB_CORRUPTED);
    writer->txn = NULL;
    if (atomic_load(&writer->store->hosed)) {
        return hosed(writer);
    }
    if (code != MDB_SUCCESS) {
        return fail(writer, code, "committing a write");
    }
    atomic_store_explicit(&writer->store->life->committed, writer->number, memory_order_release);
    return LARDER_OK;
}

void store_write_abort(struct transaction *writer)
{
    if (writer->txn != NULL && !atomic_load(&writer->store->hosed)) {
        GUARDED(mdb_txn_abort(writer->txn), (void)hosed(writer));
    }
    writer->txn = NULL;
}

/* ---- Trees ----------------------------------------------------------------------------------- */

static larder_bytes bytes_of(const MDB_val *value)
{
    return (larder_bytes){.data = value->mv_data, .size = value->mv_size};
}

/* LMDB gives out what a node says of itself. What it says must lie on the node's own page, or, for
 * what has pages of its own, inside the file: a damaged size must not lead a copy out of the
 * mapping. */
static bool in_page(const struct transaction *t, const MDB_val *data)
{
    const struct store *store = t->store;
    const uint8_t *at = data->mv_data;
    size_t page = store->page_size;
    size_t offset = (size_t)(at - store->base);
    if (at < store->base || offset >= store->max_pages * page) {
        /* a protected map's writer has changed pages in memory of its own */
        return t->write && (store->control->flags & LARDER_PROTECT) != 0;
    }
    size_t in = offset % page;
    if (in == PAGE_HEADER && data->mv_size > page / 2 - PAGE_HEADER) {
        return data->mv_size <= store->max_pages * page - offset; /* pages of its own */
    }
    return data->mv_size <= page - in;
}

static int get(struct transaction *t, MDB_dbi database, MDB_val *key, MDB_val *data,
               const char *what)
{
    if (__builtin_expect(t->error != LARDER_OK, 0)) {
        return t->error;
    }
    volatile int code = MDB_PANIC;
    GUARDED(code = mdb_get(t->txn, database, key, data), return hosed(t));
    if (__builtin_expect(code == MDB_SUCCESS, 1)) {
        return __builtin_expect(in_page(t, data), 1) ? LARDER_OK : fail(t, MDB_CORRUPTED, what);
    }
    return code == MDB_NOTFOUND ? LARDER_MISS : fail(t, code, what);
}

static int put(struct transaction *t, MDB_dbi database, MDB_val *key, MDB_val *data, unsigned flags,
               const char *what)
{
    if (t->error != LARDER_OK) {
        return t->error;
    }
    t->changed = true;
    volatile int code = MDB_PANIC;
    GUARDED(code = mdb_put(t->txn, database, key, data, flags), return hosed(t));
    return code == MDB_SUCCESS ? LARDER_OK : fail(t, code, what);
}

/* Room for a value. Numbers come in ascending order, and then the page that takes them is filled to
 * the brim; where they do not (a generation that is copied), LMDB says so and the ordinary way is
 * taken. */
static int append_room(struct transaction *t, MDB_dbi database, MDB_val *key, MDB_val *room,
                       const char *what)
{
    if (t->error != LARDER_OK) {
        return t->error;
    }
    t->changed = true;
    volatile int code = MDB_PANIC;
    GUARDED(
        {
            code = mdb_put(t->txn, database, key, room, MDB_RESERVE | MDB_APPEND);
            if (code == MDB_KEYEXIST) { /* but never over another's */
                code = mdb_put(t->txn, database, key, room, MDB_RESERVE | MDB_NOOVERWRITE);
            }
        },
        return hosed(t));
    return code == MDB_SUCCESS ? LARDER_OK
                               : fail(t, code == MDB_KEYEXIST ? MDB_CORRUPTED : code, what);
}

static int delete (struct transaction *t, MDB_dbi database, MDB_val *key, const char *what)
{
    if (t->error != LARDER_OK) {
        return t->error;
    }
    volatile int code = MDB_PANIC;
    GUARDED(code = mdb_del(t->txn, database, key, NULL), return hosed(t));
    if (code == MDB_SUCCESS) {
        t->changed = true;
        return LARDER_OK;
    }
    return code == MDB_NOTFOUND ? LARDER_MISS : fail(t, code, what);
}

/* The first record at or after key. */
static int seek(struct transaction *t, MDB_dbi database, MDB_val *key, MDB_val *data, bool after,
                const char *what)
{
    MDB_cursor *cursor = NULL;
    MDB_val wanted = *key;
    if (t->error != LARDER_OK) {
        return t->error;
    }
    volatile int code = MDB_PANIC;
    GUARDED(
        {
            code = mdb_cursor_open(t->txn, database, &cursor);
            if (code == MDB_SUCCESS) {
                code = mdb_cursor_get(cursor, key, data, MDB_SET_RANGE);
                if (code == MDB_SUCCESS && after && key->mv_size == wanted.mv_size &&
                    memcmp(key->mv_data, wanted.mv_data, wanted.mv_size) == 0) {
                    code = mdb_cursor_get(cursor, key, data, MDB_NEXT);
                }
                mdb_cursor_close(cursor);
            }
        },
        return hosed(t));
    if (code == MDB_SUCCESS) {
        return in_page(t, key) && in_page(t, data) ? LARDER_OK : fail(t, MDB_CORRUPTED, what);
    }
    return code == MDB_NOTFOUND ? LARDER_MISS : fail(t, code, what);
}

/* A writer looks up through its cursor, which stays where the entry is. */
static int get_at_cursor(struct transaction *t, MDB_val *key, MDB_val *data)
{
    if (t->error != LARDER_OK) {
        return t->error;
    }
    volatile int code = MDB_PANIC;
    GUARDED(
        {
            code = MDB_SUCCESS;
            if (t->cursor == NULL) {
                code = mdb_cursor_open(t->txn, ENTRIES, &t->cursor);
            }
            if (code == MDB_SUCCESS) {
                code = mdb_cursor_get(t->cursor, key, data, MDB_SET_KEY);
            }
        },
        return hosed(t));
    if (code == MDB_SUCCESS) {
        return in_page(t, data) ? LARDER_OK : fail(t, MDB_CORRUPTED, "looking for an entry");
    }
    return code == MDB_NOTFOUND ? LARDER_MISS : fail(t, code, "looking for an entry");
}

/* What descent.c found, as the transaction's result. Damage poisons the generation. */
static int found(struct transaction *t, int result, const char *what)
{
    return __builtin_expect(result >= 0, 1) ? result : fail(t, MDB_CORRUPTED, what);
}

/* Whether this is a reader that finds its own way. */
static bool is_own_way(const struct transaction *t)
{
    return !t->write && t->store->descends && t->error == LARDER_OK;
}

/* A small record may be written over while a reader looks: give it a copy. MISS: none is to be had.
 */
static int hold_still(struct transaction *t, larder_bytes *record)
{
    const struct store *store = t->store;
    if (t->write || record->size > OVERWRITE_MAX) {
        return LARDER_OK;
    }
    uint64_t offset = (uint64_t)((const uint8_t *)record->data - store->base);
    if (__builtin_expect(!overwrite_read(store->overwrites, store->generation, store->base, offset,
                                         record->size, t->record),
                         0)) {
        return LARDER_MISS;
    }
    record->data = t->record;
    return LARDER_OK;
}

static int entry_get(struct transaction *t, const void *form, size_t size, larder_bytes *record)
{
    if (__builtin_expect(is_own_way(t), 1)) {
        return found(t, descent_find(&t->tree, form, size, record), "reading an entry");
    }
    MDB_val key = value_of(form, size), data;
    int result =
        t->write ? get_at_cursor(t, &key, &data) : get(t, ENTRIES, &key, &data, "reading an entry");
    if (__builtin_expect(result == LARDER_OK, 1)) {
        *record = bytes_of(&data);
    }
    return result;
}

int store_entry_get(struct transaction *t, const void *form, size_t size, larder_bytes *record)
{
    int result = entry_get(t, form, size, record);
    return __builtin_expect(result == LARDER_OK, 1) ? hold_still(t, record) : result;
}

/* In the tree of transaction last. Pages may change under a guess, which trusts none of them. Those
 * of the last transaction do not, but for records that are written over: a writer changes copies.
 */
static void find_place(struct store *store, const void *form, size_t size, uint64_t last,
                       struct store_place *place)
{
    struct descent tree;
    place->transaction = last;
    if (store->writable && !atomic_load_explicit(&store->hosed, memory_order_relaxed) &&
        descent_begin(&tree, store->base, store->page_size, store->max_pages, last) &&
        descent_find(&tree, form, size, &place->record) == LARDER_OK &&
        place->record.size <= OVERWRITE_MAX) {
        place->offset = (uint64_t)((const uint8_t *)place->record.data - store->base);
    } else {
        place->record.data = NULL;
    }
}

void store_look_ahead(struct store *store, const void *form, size_t size, struct store_place *place)
{
    /* Not LMDB's number: it stands on the meta page a moment before the root does. acquire: the
     * whole commit is seen, pairs with store_write_commit(). */
    find_place(store, form, size,
               atomic_load_explicit(&store->life->committed, memory_order_acquire), place);
}

int store_entry_place(struct store *store, const void *form, size_t size, struct store_place *place)
{
    uint64_t last = store_last_transaction(store);
    if (place->transaction != last) {
        find_place(store, form, size, last, place);
    }
    return place->record.data != NULL ? LARDER_OK : LARDER_MISS;
}

void store_overwrite(struct store *store, const struct store_place *place, uint64_t key_hash,
                     uint32_t request)
{
    struct overwrite what = {.offset = place->offset,
                             .transaction = place->transaction,
                             .hash = key_hash,
                             .size = (uint32_t)place->record.size,
                             .request = request};
    overwrite_carry_out(store->overwrites, (uint8_t *)(uintptr_t)store->base, &what);
}

int store_finish_overwrite(struct store *store, uint32_t *request)
{
    bool finished =
        store->writable && overwrite_finish(store->overwrites, (uint8_t *)(uintptr_t)store->base,
                                            store->max_pages * store->page_size,
                                            store_last_transaction(store), request);
    if (!finished) {
        control_poison(store->control, store->generation);
        return error_set(LARDER_ECORRUPT, "the slot of a record being overwritten is damaged");
    }
    return LARDER_OK;
}

int store_entry_insert(struct transaction *t, const void *form, size_t size, size_t record_size,
                       void **room, larder_bytes *existing)
{
    MDB_val key = value_of(form, size), data = {.mv_size = record_size};
    if (t->error != LARDER_OK) {
        return t->error;
    }
    volatile int code = MDB_PANIC;
    GUARDED(
        {
            code = MDB_SUCCESS;
            if (t->cursor == NULL) {
                code = mdb_cursor_open(t->txn, ENTRIES, &t->cursor);
            }
            if (code == MDB_SUCCESS) {
                code = mdb_cursor_put(t->cursor, &key, &data, MDB_NOOVERWRITE | MDB_RESERVE);
            }
        },
        return hosed(t));
    if (code == MDB_KEYEXIST) {
        if (!in_page(t, &data)) {
            return fail(t, MDB_CORRUPTED, "inserting an entry");
        }
        *existing = bytes_of(&data);
        return LARDER_EXISTS;
    }
    if (code != MDB_SUCCESS) {
        return fail(t, code, "inserting an entry");
    }
    t->changed = true;
    *room = data.mv_data;
    return LARDER_OK;
}

/* Whether the writer's cursor stands at that entry. */
static bool is_at(struct transaction *t, const MDB_val *form)
{
    MDB_val key, data;
    return t->cursor != NULL &&
           mdb_cursor_get(t->cursor, &key, &data, MDB_GET_CURRENT) == MDB_SUCCESS &&
           key.mv_size == form->mv_size && memcmp(key.mv_data, form->mv_data, form->mv_size) == 0;
}

int store_entry_put(struct transaction *t, const void *form, size_t size, const void *record,
                    size_t record_size)
{
    MDB_val key = value_of(form, size), data = value_of(record, record_size);
    if (t->error != LARDER_OK) {
        return t->error;
    }
    t->changed = true;
    volatile int code = MDB_PANIC;
    GUARDED(code = is_at(t, &key) ? mdb_cursor_put(t->cursor, &key, &data, MDB_CURRENT)
                                  : mdb_put(t->txn, ENTRIES, &key, &data, 0),
            return hosed(t));
    return code == MDB_SUCCESS ? LARDER_OK : fail(t, code, "writing an entry");
}

int store_entry_next(struct transaction *t, const void *form, size_t size, bool after,
                     larder_bytes *key, larder_bytes *record)
{
    int result;
    if (is_own_way(t)) {
        result =
            found(t, descent_next(&t->tree, form, size, after, key, record), "walking the entries");
    } else {
        MDB_val at = value_of(form, size), data;
        result = seek(t, ENTRIES, &at, &data, after, "walking the entries");
        *key = bytes_of(&at);
        *record = result == LARDER_OK ? bytes_of(&data) : (larder_bytes){0};
    }
    if (result == LARDER_OK) {
        uint8_t tag = key->size == 0 ? 0 : ((const uint8_t *)key->data)[0];
        if (tag != KEY_TAG) { /* behind the last entry the log begins */
            return tag == ROW_TAG ? LARDER_MISS : fail(t, MDB_CORRUPTED, "walking the entries");
        }
        if (hold_still(t, record) != LARDER_OK) {
            record->size = 0; /* no record: who walks passes over it */
        }
    }
    return result;
}

int store_entry_walk(struct transaction *t, const void *form, size_t size, bool after, size_t max,
                     store_visitor *visit, void *context)
{
    MDB_cursor *volatile cursor = NULL;
    MDB_val wanted = value_of(form, size), key = wanted, data;
    if (t->error != LARDER_OK) {
        return t->error;
    }
    volatile int code = MDB_PANIC;
    GUARDED(
        {
            MDB_cursor *opened = NULL;
            code = mdb_cursor_open(t->txn, ENTRIES, &opened);
            cursor = opened;
            if (code == MDB_SUCCESS) {
                code = mdb_cursor_get(opened, &key, &data, MDB_SET_RANGE);
                if (code == MDB_SUCCESS && after && key.mv_size == wanted.mv_size &&
                    memcmp(key.mv_data, wanted.mv_data, wanted.mv_size) == 0) {
                    code = mdb_cursor_get(opened, &key, &data, MDB_NEXT);
                }
            }
        },
        return hosed(t));
    bool more = true;
    while (code == MDB_SUCCESS && more) {
        larder_bytes found = bytes_of(&key), record = bytes_of(&data);
        if (!in_page(t, &key) || !in_page(t, &data)) {
            code = MDB_CORRUPTED;
        } else if (found.size == 0 || *(const uint8_t *)found.data != KEY_TAG) {
            code = MDB_NOTFOUND; /* behind the last entry the log begins */
        } else if (!visit(context, &found, &record) || --max == 0) {
            more = false;
        } else {
            GUARDED(code = mdb_cursor_get(cursor, &key, &data, MDB_NEXT), return hosed(t));
        }
    }
    if (cursor != NULL) {
        mdb_cursor_close(cursor);
    }
    if (code == MDB_SUCCESS) {
        return LARDER_OK;
    }
    return code == MDB_NOTFOUND ? LARDER_MISS : fail(t, code, "walking the entries");
}

/* ---- Leaves that have become empty -------------------------------------------------------------
 *
 * LMDB joins two leaves only where both are less than a quarter full. Of a full map, into which as
 * much goes as is evicted, two fifths of the leaves' bytes are then in use (doc/decisions/020). So
 * whoever deletes an entry joins its leaf with the one before it where both fit into one: their
 * values are taken away until LMDB finds both less than a quarter full, and put back once it has
 * joined them, all of it inside the transaction. MAP_FORMAT
 */

enum {
    LEAF_PAGE = 4096,
    LEAF_BYTES = LEAF_PAGE - PAGE_HEADER,
    LEAF_QUARTER = LEAF_BYTES / 4, /* LMDB's FILL_THRESHOLD; below it */
    LEAF_LOW = LEAF_BYTES / 2,     /* that empty a leaf is looked at, ... */
    LEAF_JOINED =
        LEAF_BYTES / 4 * 3, /* ... and so full it may become: there is to be room for more */
    LEAF_NODES = LEAF_QUARTER / 12,
    NODE_FLAGS = 4, /* in a node's header */
    NODE_KEY_SIZE = 6,
    NODE_HEADER = 8
};

struct leaf_node {
    MDB_val key, data;
    bool emptied;
};

/* A leaf, copied and taken apart. */
struct leaf {
    uint8_t bytes[LEAF_PAGE];
    struct leaf_node nodes[LEAF_NODES];
    size_t count, used;
};

static uint16_t half_at(const uint8_t *at)
{
    uint16_t half;
    memcpy(&half, at, sizeof half);
    return half;
}

/* The page on which a record stands, NULL: it cannot be seen. A protected map's writer has changed
 * pages in memory of its own. */
static const uint8_t *leaf_of(const struct transaction *t, const MDB_val *data)
{
    const struct store *store = t->store;
    size_t offset = (size_t)((const uint8_t *)data->mv_data - store->base);
    if ((store->control->flags & LARDER_PROTECT) != 0 || !store->descends ||
        store->page_size != LEAF_PAGE || offset >= store->max_pages * LEAF_PAGE) {
        return NULL;
    }
    return store->base + offset / LEAF_PAGE * LEAF_PAGE;
}

static size_t leaf_used(const uint8_t *page)
{
    size_t lower = half_at(page + PAGE_LOWER), upper = half_at(page + PAGE_UPPER);
    return upper >= lower && upper <= LEAF_PAGE ? LEAF_BYTES - (upper - lower) : LEAF_BYTES;
}

/* False: there is something on it that is no small entry, or more than can be joined. */
static bool take_leaf(const uint8_t *page, struct leaf *leaf)
{
    size_t keys = 0;
    memcpy(leaf->bytes, page, sizeof leaf->bytes);
    page = leaf->bytes;
    leaf->used = leaf_used(page);
    leaf->count = ((size_t)half_at(page + PAGE_LOWER) - PAGE_HEADER) / sizeof(uint16_t);
    if (leaf->count == 0 || leaf->count > LEAF_NODES) {
        return false;
    }
    for (size_t i = 0; i < leaf->count; i++) {
        size_t at = half_at(page + PAGE_HEADER + i * sizeof(uint16_t));
        if (at < PAGE_HEADER || at > LEAF_PAGE - NODE_HEADER) {
            return false;
        }
        const uint8_t *node = page + at;
        size_t key_size = half_at(node + NODE_KEY_SIZE);
        size_t size = half_at(node) | (size_t)half_at(node + 2) << 16;
        if (half_at(node + NODE_FLAGS) != 0 || key_size == 0 || key_size > KEY_FORM_MAX ||
            size > LEAF_PAGE || at + NODE_HEADER + key_size + size > LEAF_PAGE ||
            node[NODE_HEADER] != KEY_TAG) {
            return false;
        }
        leaf->nodes[i] = (struct leaf_node){.key = value_of(node + NODE_HEADER, key_size),
                                            .data = value_of(node + NODE_HEADER + key_size, size)};
        keys += sizeof(uint16_t) + NODE_HEADER + key_size + 1;
    }
    return keys < LEAF_QUARTER;
}

/* Take away as many values as it takes. */
static int empty_leaf(struct transaction *t, struct leaf *leaf)
{
    MDB_val none = {0};
    size_t left = leaf->used;
    int code = MDB_SUCCESS;
    for (size_t i = 0; i < leaf->count && code == MDB_SUCCESS; i++) {
        struct leaf_node *node = &leaf->nodes[i];
        if (left < LEAF_QUARTER) {
            break;
        }
        if (node->data.mv_size <= 1) {
            continue;
        }
        MDB_val key = node->key, data;
        code = mdb_cursor_get(t->cursor, &key, &data, MDB_SET_KEY);
        if (code == MDB_SUCCESS) {
            key = node->key;
            code = mdb_cursor_put(t->cursor, &key, &none, MDB_CURRENT);
            node->emptied = true;
            left -= node->data.mv_size & ~(size_t)1;
        }
    }
    return code;
}

static int fill_leaf(struct transaction *t, const struct leaf *leaf)
{
    int code = MDB_SUCCESS;
    for (size_t i = 0; i < leaf->count && code == MDB_SUCCESS; i++) {
        const struct leaf_node *node = &leaf->nodes[i];
        if (node->emptied) {
            MDB_val key = node->key, data = node->data;
            code = mdb_cursor_put(t->cursor, &key, &data, 0);
        }
    }
    return code;
}

/* What LMDB joins is the leaf of an entry that is deleted, with the one before it. */
static int join(struct transaction *t, struct leaf *before, struct leaf *leaf)
{
    struct leaf_node *last = &leaf->nodes[leaf->count - 1];
    MDB_val key = last->key, data = {0};
    int code = empty_leaf(t, before);
    if (code == MDB_SUCCESS) {
        code = empty_leaf(t, leaf);
    }
    if (code == MDB_SUCCESS) {
        code = mdb_cursor_get(t->cursor, &key, &data, MDB_SET_KEY);
    }
    if (code == MDB_SUCCESS) {
        last->emptied = true; /* to be put back */
        code = mdb_cursor_del(t->cursor, 0);
    }
    if (code == MDB_SUCCESS) {
        code = fill_leaf(t, before);
    }
    if (code == MDB_SUCCESS) {
        code = fill_leaf(t, leaf);
    }
    return code == MDB_NOTFOUND ? MDB_CORRUPTED : code; /* they were there a moment ago */
}

/* The leaf beside the one with that key at its edge; NULL: there is none, or code says why. */
static const uint8_t *neighbour(struct transaction *t, const MDB_val *edge, MDB_cursor_op way,
                                int *code)
{
    MDB_val key = *edge, data = {0};
    *code = mdb_cursor_get(t->cursor, &key, &data, MDB_SET_KEY);
    if (*code == MDB_SUCCESS) {
        *code = mdb_cursor_get(t->cursor, &key, &data, way);
    }
    if (*code == MDB_NOTFOUND) {
        *code = MDB_SUCCESS;
        return NULL;
    }
    return *code == MDB_SUCCESS ? leaf_of(t, &data) : NULL;
}

/* Join the leaves around the place where an entry was, if they fit into one. */
static int join_around(struct transaction *t, MDB_val *form)
{
    struct leaf other, leaf;
    MDB_val key = *form, data = {0};
    int code = mdb_cursor_get(t->cursor, &key, &data, MDB_SET_RANGE);
    const uint8_t *page = code == MDB_SUCCESS ? leaf_of(t, &data) : NULL;
    if (page == NULL || leaf_used(page) >= LEAF_JOINED || !take_leaf(page, &leaf)) {
        return code == MDB_NOTFOUND ? MDB_SUCCESS : code;
    }
    page = neighbour(t, &leaf.nodes[0].key, MDB_PREV, &code);
    if (page != NULL && leaf_used(page) + leaf.used <= LEAF_JOINED && take_leaf(page, &other)) {
        return join(t, &other, &leaf);
    }
    page =
        code == MDB_SUCCESS ? neighbour(t, &leaf.nodes[leaf.count - 1].key, MDB_NEXT, &code) : NULL;
    if (page != NULL && leaf_used(page) + leaf.used <= LEAF_JOINED && take_leaf(page, &other)) {
        return join(t, &leaf, &other);
    }
    return code;
}

int store_entry_delete(struct transaction *t, const void *form, size_t size)
{
    static const char what[] = "deleting an entry";
    MDB_val key = value_of(form, size), wanted = key, data = {0};
    int found = get_at_cursor(t, &key, &data);
    if (found != LARDER_OK) {
        return found;
    }
    const uint8_t *page = leaf_of(t, &data);
    bool low = page != NULL && leaf_used(page) < LEAF_LOW + data.mv_size;
    t->changed = true;
    volatile int code = MDB_PANIC;
    GUARDED(
        {
            code = mdb_cursor_del(t->cursor, 0);
            if (code == MDB_SUCCESS && low) {
                code = join_around(t, &wanted);
            }
        },
        return hosed(t));
    return code == MDB_SUCCESS ? LARDER_OK : fail(t, code, what);
}

int store_touch(struct transaction *t)
{
    MDB_val key = value_of(TICK_NAME, sizeof TICK_NAME - 1);
    MDB_val data = value_of(&t->number, sizeof t->number);
    return put(t, ENTRIES, &key, &data, 0, "touching the tree");
}

static MDB_val block_form(uint8_t form[ROW_FORM], uint64_t row)
{
    row = row < RECORD_ROW_MAX ? row : RECORD_ROW_MAX;
    uint64_t big_endian = htobe64(ROWS_BLOCK(row) << ROW_SHIFT);
    form[0] = ROW_TAG;
    memcpy(form + 1, &big_endian, ROW_FORM - 1);
    return value_of(form, ROW_FORM);
}

/* The first row of the block under that key. False: it is none. */
static bool take_block(const MDB_val *key, uint64_t *row)
{
    uint64_t big_endian = 0;
    if (key->mv_size != ROW_FORM || *(const uint8_t *)key->mv_data != ROW_TAG) {
        return false;
    }
    memcpy(&big_endian, (const uint8_t *)key->mv_data + 1, ROW_FORM - 1);
    *row = be64toh(big_endian) >> ROW_SHIFT << ROWS_BITS;
    return true;
}

/* What rows.c found, as the transaction's result. */
static int rows_found(struct transaction *t, int result, const char *what)
{
    return result == LARDER_ECORRUPT ? fail(t, MDB_CORRUPTED, what) : result;
}

/* The writer's cursor in the log, opened when it is first needed. */
static int rows_get(struct transaction *t, MDB_val *key, MDB_val *data, MDB_cursor_op op)
{
    volatile int code = MDB_PANIC;
    GUARDED(
        {
            code = MDB_SUCCESS;
            if (t->rows == NULL) {
                code = mdb_cursor_open(t->txn, ENTRIES, &t->rows);
            }
            if (code == MDB_SUCCESS) {
                code = mdb_cursor_get(t->rows, key, data, op);
            }
        },
        return MDB_CORRUPTED);
    if (code == MDB_SUCCESS && (!in_page(t, key) || !in_page(t, data))) {
        return MDB_CORRUPTED;
    }
    return code;
}

static int rows_put(struct transaction *t, MDB_val *key, MDB_val *data, unsigned flags,
                    const char *what)
{
    t->changed = true;
    volatile int code = MDB_PANIC;
    GUARDED(code = mdb_cursor_put(t->rows, key, data, flags), return hosed(t));
    return code == MDB_SUCCESS ? LARDER_OK : fail(t, code, what);
}

/* The one where the cursor stands. */
static int delete_block(struct transaction *t, const char *what)
{
    t->changed = true;
    volatile int code = MDB_PANIC;
    GUARDED(code = mdb_cursor_del(t->rows, 0), return hosed(t));
    return code == MDB_SUCCESS ? LARDER_OK : fail(t, code, what);
}

/* Whether a record may grow by so much on its page. Where the page cannot be seen: yes. MAP_FORMAT
 */
static bool may_grow(const struct transaction *t, const MDB_val *data, size_t more)
{
    const uint8_t *page = leaf_of(t, data);
    return page == NULL || LEAF_BYTES - leaf_used(page) > more; /* sizes are rounded up to even */
}

/* Numbers come in ascending order: then the newest block grows at the tree's right edge. LMDB
 * halves a page where a record outgrows it, but not where one is appended: so that block is
 * appended anew. Where they do not (a generation that is copied), their block is looked for. */
int store_log_append(struct transaction *t, uint64_t row, const void *form, size_t size)
{
    static const char what[] = "appending to the log";
    uint8_t block_key[ROW_FORM], bytes[ROWS_BUFFER];
    MDB_val key = {0}, data = {0};
    uint64_t last = 0;
    larder_bytes block = {0}, added = {form, size};
    unsigned flags = MDB_CURRENT;
    if (t->error != LARDER_OK) {
        return t->error;
    }
    int code = rows_get(t, &key, &data, MDB_LAST);
    if (code != MDB_SUCCESS || !take_block(&key, &last) || ROWS_BLOCK(last) < ROWS_BLOCK(row)) {
        flags = MDB_APPEND;
    } else if (ROWS_BLOCK(last) > ROWS_BLOCK(row)) {
        key = block_form(block_key, row);
        code = rows_get(t, &key, &data, MDB_SET_KEY);
        flags = code == MDB_NOTFOUND ? MDB_NOOVERWRITE : MDB_CURRENT;
    }
    if (code != MDB_SUCCESS && code != MDB_NOTFOUND) {
        return atomic_load(&t->store->hosed) ? hosed(t) : fail(t, code, what);
    }
    bool outgrows = false;
    if (flags == MDB_CURRENT) {
        block = bytes_of(&data);
        outgrows = ROWS_BLOCK(last) == ROWS_BLOCK(row) && !may_grow(t, &data, 1 + size);
    }
    int result = rows_insert(&block, ROWS_INDEX(row), &added, bytes, &data.mv_size);
    if (result != LARDER_OK) { /* never over another's */
        return fail(t, MDB_CORRUPTED, what);
    }
    if (outgrows) {
        if (delete_block(t, what) != LARDER_OK) {
            return t->error;
        }
        flags = MDB_APPEND;
    }
    data.mv_data = bytes;
    key = block_form(block_key, row);
    return rows_put(t, &key, &data, flags, what);
}

int store_log_delete(struct transaction *t, uint64_t row)
{
    static const char what[] = "removing a log row";
    uint8_t block_key[ROW_FORM], bytes[ROWS_BUFFER];
    MDB_val key = block_form(block_key, row), data = {0};
    if (t->error != LARDER_OK) {
        return t->error;
    }
    int code = rows_get(t, &key, &data, MDB_SET_KEY);
    if (code != MDB_SUCCESS) {
        return code == MDB_NOTFOUND            ? LARDER_MISS
               : atomic_load(&t->store->hosed) ? hosed(t)
                                               : fail(t, code, what);
    }
    larder_bytes block = bytes_of(&data);
    int result = rows_remove(&block, ROWS_INDEX(row), bytes, &data.mv_size);
    if (result != LARDER_OK) {
        return rows_found(t, result, what);
    }
    if (data.mv_size > 0) {
        data.mv_data = bytes;
        key = block_form(block_key, row);
        return rows_put(t, &key, &data, MDB_CURRENT, what);
    }
    return delete_block(t, what);
}

/* The first block at or behind that of a row. */
static int next_block(struct transaction *t, uint64_t from, uint64_t *first, larder_bytes *block)
{
    static const char what[] = "walking the log";
    uint8_t block_key[ROW_FORM];
    MDB_val key = block_form(block_key, from), data = {0};
    int result;
    if (is_own_way(t)) {
        larder_bytes at = {0};
        result =
            found(t, descent_next(&t->tree, block_key, sizeof block_key, false, &at, block), what);
        key = value_of(at.data, at.size);
    } else {
        result = seek(t, ENTRIES, &key, &data, false, what);
        *block = bytes_of(&data);
    }
    if (result == LARDER_OK && !take_block(&key, first)) {
        return fail(t, MDB_CORRUPTED, what);
    }
    return result;
}

int store_log_next(struct transaction *t, uint64_t from, uint64_t *row, larder_bytes *form)
{
    uint64_t first = 0;
    larder_bytes block = {0};
    unsigned index = 0;
    for (int looks = 0; looks < 2 && from <= RECORD_ROW_MAX; looks++) {
        int result = next_block(t, from, &first, &block);
        if (result != LARDER_OK) {
            return result;
        }
        bool is_own = first == ROWS_BLOCK(from) << ROWS_BITS;
        result = rows_next(&block, is_own ? ROWS_INDEX(from) : 0, &index, form);
        if (result == LARDER_OK) {
            *row = first + index;
            return LARDER_OK;
        }
        if (result != LARDER_MISS || !is_own) { /* a block has rows */
            return fail(t, MDB_CORRUPTED, "walking the log");
        }
        from = first + ROWS_IN_BLOCK; /* the rest of it has gone */
    }
    return LARDER_MISS;
}

int store_log_previous(struct transaction *t, uint64_t before, uint64_t *row, larder_bytes *form)
{
    static const char what[] = "walking the log back";
    uint8_t block_key[ROW_FORM];
    MDB_val key = block_form(block_key, before), data;
    MDB_cursor *cursor = NULL;
    uint64_t first = 0;
    unsigned index = 0;
    volatile int result = LARDER_MISS;
    if (t->error != LARDER_OK) {
        return t->error;
    }
    volatile int code = MDB_PANIC;
    GUARDED(
        {
            code = mdb_cursor_open(t->txn, ENTRIES, &cursor);
            if (code == MDB_SUCCESS) {
                code = mdb_cursor_get(cursor, &key, &data, MDB_SET_RANGE);
                if (code == MDB_NOTFOUND) {
                    code = mdb_cursor_get(cursor, &key, &data, MDB_LAST);
                }
                while (code == MDB_SUCCESS && result == LARDER_MISS) {
                    larder_bytes block = bytes_of(&data);
                    if (!in_page(t, &key) || !in_page(t, &data)) {
                        code = MDB_CORRUPTED;
                    } else if (!take_block(&key, &first)) {
                        break;
                    } else {
                        if (first < before) {
                            result = rows_previous(&block,
                                                   before - first < ROWS_IN_BLOCK
                                                       ? (unsigned)(before - first)
                                                       : ROWS_IN_BLOCK,
                                                   &index, form);
                        }
                        if (result == LARDER_MISS) {
                            code = mdb_cursor_get(cursor, &key, &data, MDB_PREV);
                        }
                    }
                }
                mdb_cursor_close(cursor);
            }
        },
        return hosed(t));
    if (code != MDB_SUCCESS || result < 0) {
        return code == MDB_NOTFOUND ? LARDER_MISS
                                    : fail(t, result < 0 ? MDB_CORRUPTED : code, what);
    }
    *row = first + index;
    return result;
}

/* The chunks database of a reader's snapshot. */
static int open_chunks(struct transaction *t, const char *what)
{
    struct descent_database chunks;
    if (t->chunks_known) {
        return LARDER_OK;
    }
    int result =
        found(t, descent_open(&t->tree, CHUNKS_NAME, sizeof CHUNKS_NAME - 1, &chunks), what);
    if (result != LARDER_OK) {
        return result == LARDER_MISS ? fail(t, MDB_CORRUPTED, what) : result;
    }
    t->chunks = chunks.tree;
    t->place = (struct descent_place){.page = NULL};
    t->chunks_known = true;
    return LARDER_OK;
}

static int next_number(struct transaction *t, MDB_dbi database, uint64_t from, uint64_t *number,
                       MDB_val *data, const char *what)
{
    if (is_own_way(t)) {
        larder_bytes bytes = {0};
        int own = open_chunks(t, what);
        if (own == LARDER_OK) {
            own = found(t, descent_next_number(&t->chunks, from, number, &bytes), what);
        }
        *data = value_of(bytes.data, bytes.size);
        return own;
    }
    MDB_val key = value_of(&from, sizeof from);
    int result = seek(t, database, &key, data, false, what);
    if (result == LARDER_OK) {
        if (key.mv_size != sizeof *number) {
            return fail(t, MDB_CORRUPTED, what);
        }
        memcpy(number, key.mv_data, sizeof *number);
    }
    return result;
}

/* The number of the page that begins before those bytes, from its header; 0: they do not begin a
 * page, or its number takes more than 32 bits. A writer's page may lie in memory of its own, but
 * bears the number it will have. MAP_FORMAT */
static uint32_t page_of(const struct store *store, const void *content)
{
    uint64_t number;
    memcpy(&number, (const uint8_t *)content - PAGE_HEADER, sizeof number);
    return store->page_size == STORE_CHUNKS_PAGE && number < store->max_pages &&
                   number <= UINT32_MAX
               ? (uint32_t)number
               : 0;
}

int store_chunk_put(struct transaction *t, uint64_t id, const void *data, size_t size,
                    uint32_t *page)
{
    MDB_val key = value_of(&id, sizeof id), room = {.mv_size = CHUNK_PAGE};
    int result = append_room(t, t->store->chunks, &key, &room, "writing a chunk");
    *page = 0;
    if (result == LARDER_OK) {
        memcpy(room.mv_data, &id, sizeof id);
        if (size > 0) {
            memcpy((uint8_t *)room.mv_data + sizeof id, data, size);
        }
        *page = page_of(t->store, room.mv_data);
    }
    return result;
}

/* The bytes of a chunk, if it is that one. */
static int open_chunk(const larder_bytes *content, uint64_t id, larder_bytes *data)
{
    uint64_t theirs;
    if (content->size != CHUNK_PAGE) {
        return LARDER_MISS;
    }
    memcpy(&theirs, content->data, sizeof theirs);
    *data =
        (larder_bytes){.data = (const uint8_t *)content->data + sizeof theirs, .size = CHUNK_SIZE};
    return theirs == id ? LARDER_OK : LARDER_MISS;
}

int store_chunk_get(struct transaction *t, uint64_t id, larder_bytes *data)
{
    if (is_own_way(t)) {
        int result = open_chunks(t, "reading a chunk");
        if (result != LARDER_OK) {
            return result;
        }
        larder_bytes content = {0};
        result =
            found(t, descent_find_number(&t->chunks, id, &t->place, &content), "reading a chunk");
        return result == LARDER_OK ? open_chunk(&content, id, data) : result;
    }
    MDB_val key = value_of(&id, sizeof id), value;
    int result = get(t, t->store->chunks, &key, &value, "reading a chunk");
    if (result == LARDER_OK) {
        larder_bytes content = bytes_of(&value);
        result = open_chunk(&content, id, data);
    }
    return result;
}

int store_chunk_delete(struct transaction *t, uint64_t id)
{
    MDB_val key = value_of(&id, sizeof id);
    return delete (t, t->store->chunks, &key, "removing a chunk");
}

int store_chunk_next(struct transaction *t, uint64_t from, uint64_t *id)
{
    MDB_val data;
    return next_number(t, t->store->chunks, from, id, &data, "walking the chunks");
}

/* ---- Space and readers ----------------------------------------------------------------------- */

uint64_t store_used_pages(struct transaction *t)
{
    const MDB_dbi databases[] = {FREE_LIST, ENTRIES, t->store->chunks};
    uint64_t pages = META_PAGES;
    for (size_t i = 0; i < sizeof databases / sizeof databases[0] && t->error == LARDER_OK; i++) {
        MDB_stat stat;
        struct descent_database chunks;
        if (databases[i] == t->store->chunks && is_own_way(t)) { /* LMDB would walk to its record */
            if (found(t, descent_open(&t->tree, CHUNKS_NAME, sizeof CHUNKS_NAME - 1, &chunks),
                      "counting pages") == LARDER_OK) {
                pages += chunks.branch_pages + chunks.leaf_pages + chunks.overflow_pages;
            }
            continue;
        }
        volatile int code = MDB_PANIC;
        GUARDED(code = mdb_stat(t->txn, databases[i], &stat), {
            (void)hosed(t);
            return pages;
        });
        if (code != MDB_SUCCESS) {
            (void)fail(t, code, "counting pages");
            break;
        }
        pages += stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
    }
    return pages;
}

bool store_has_fresh_pages(struct store *store, uint64_t pages)
{
    MDB_envinfo info;
    (void)mdb_env_info(store->env, &info);
    return info.me_last_pgno + pages < store->max_pages;
}

uint64_t store_last_transaction(struct store *store)
{
    MDB_envinfo info;
    (void)mdb_env_info(store->env, &info);
    return info.me_last_txnid;
}

int store_clear_dead_readers(struct store *store, int *cleared)
{
    int count = 0;
    int code = mdb_reader_check(store->env, &count);
    if (cleared != NULL) {
        *cleared = count;
    }
    return convert(store, code, "clearing dead readers");
}

struct reader_list {
    inspect_reader *readers;
    size_t max, found;
    int oldest_pid;
    uint64_t oldest, newest;
};

/* One line of mdb_reader_list(): "%10d %zx %zu" or "... -" without a snapshot. The thread is
 * printed in hexadecimal. */
static int on_reader(const char *line, void *context)
{
    struct reader_list *list = context;
    int pid = 0;
    unsigned long thread = 0;
    char snapshot[32] = "";
    if (sscanf(line, "%d %lx %31s", &pid, &thread, snapshot) != 3) {
        return 0; /* the heading */
    }
    uint64_t transaction = UINT64_MAX;
    if (snapshot[0] != '-') {
        transaction = strtoull(snapshot, NULL, 10);
        if (transaction < list->oldest) {
            list->oldest = transaction;
            list->oldest_pid = pid;
        }
    }
    if (list->found < list->max) {
        list->readers[list->found] = (inspect_reader){
            .pid = pid,
            .thread = thread,
            .transaction = transaction,
            .lag = transaction < list->newest ? list->newest - transaction : 0,
            .alive = kill(pid, 0) == 0 || errno == EPERM,
        };
    }
    list->found++;
    return 0;
}

int store_list_readers(struct store *store, inspect_reader *readers, size_t max, size_t *found)
{
    struct reader_list list = {.readers = readers,
                               .max = max,
                               .oldest = UINT64_MAX,
                               .newest = store_last_transaction(store)};
    int code = mdb_reader_list(store->env, on_reader, &list);
    *found = list.found;
    return code < 0 ? convert(store, code, "listing readers") : LARDER_OK;
}

int store_oldest_reader(struct store *store, uint64_t *snapshot)
{
    struct reader_list list = {.oldest = store_last_transaction(store)};
    (void)mdb_reader_list(store->env, on_reader, &list);
    *snapshot = list.oldest;
    return list.oldest_pid;
}
