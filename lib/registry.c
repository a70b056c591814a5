/* registry.c: the process-wide tables behind the handles, and what becomes of them after fork().
 *
 * A child must not end its parent's read transactions (that would write the parent's slots) nor use
 * the parent's environment (LMDB's locks go by process). So it forgets the one, closes the other
 * without touching shared state, and opens its own on first use.
 */
#include "registry.h"

#include <link.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "self.h"

__thread struct reader *registry_current __attribute__((tls_model("initial-exec")));

/* Before the first open nobody has a handle; the mark reads as "no fork". */
static const uint8_t no_fork = 1;
const volatile uint8_t *registry_fork_mark = &no_fork;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int init_result = LARDER_OK;
static pthread_key_t thread_key;
static uint8_t *fork_page;
static struct map *maps;
static struct store *stores;
static struct reader *readers;

void registry_lock(void)
{
    (void)pthread_mutex_lock(&lock); /* held for bounded work only, never across a callback */
}

void registry_unlock(void)
{
    (void)pthread_mutex_unlock(&lock);
}

/* ---- Stores ---------------------------------------------------------------------------------- */

void registry_store_add_locked(struct store *store)
{
    store->users = 1;
    store->next = stores;
    stores = store;
}

void registry_store_use_locked(struct store *store)
{
    store->users++;
}

static void unlink_store(struct store *store)
{
    for (struct store **at = &stores; *at != NULL; at = &(*at)->next) {
        if (*at == store) {
            *at = store->next;
            return;
        }
    }
}

void registry_store_drop_locked(struct store *store)
{
    if (--store->users == 0) {
        unlink_store(store);
        store_close(&store);
    }
}

/* ---- Readers --------------------------------------------------------------------------------- */

static void close_reader_locked(struct reader *reader)
{
    if (reader->transaction.txn != NULL) {
        struct store *store = reader->transaction.store;
        store_reader_close(&reader->transaction);
        registry_store_drop_locked(store);
    }
    atomic_store_explicit(&reader->map, NULL, memory_order_relaxed);
}

static void link_reader_locked(struct reader *reader)
{
    reader->next = readers;
    if (readers != NULL) {
        readers->previous = reader;
    }
    readers = reader;
}

static void unlink_reader_locked(struct reader *reader)
{
    if (reader->previous != NULL) {
        reader->previous->next = reader->next;
    } else {
        readers = reader->next;
    }
    if (reader->next != NULL) {
        reader->next->previous = reader->previous;
    }
}

void registry_close_readers_locked(struct map *map)
{
    for (struct reader *reader = readers; reader != NULL; reader = reader->next) {
        if (atomic_load(&reader->map) == map) {
            close_reader_locked(reader);
        }
    }
}

static void on_thread_exit(void *list)
{
    registry_check_fork();
    registry_lock();
    registry_current = NULL;
    for (struct reader *reader = list; reader != NULL;) {
        struct reader *next = reader->next_of_thread;
        close_reader_locked(reader);
        unlink_reader_locked(reader);
        free(reader);
        reader = next;
    }
    registry_unlock();
}

/* This thread's reader for the map, or one of its unused ones, or a new one. */
static struct reader *thread_reader_locked(struct map *map)
{
    struct reader *list = pthread_getspecific(thread_key);
    struct reader *unused = NULL;
    for (struct reader *reader = list; reader != NULL; reader = reader->next_of_thread) {
        struct map *of = atomic_load(&reader->map);
        if (of == map) {
            return reader;
        }
        if (of == NULL) {
            unused = reader;
        }
    }
    if (unused == NULL) {
        unused = calloc(1, sizeof *unused);
        if (unused == NULL) {
            return NULL;
        }
        unused->next_of_thread = list;
        if (pthread_setspecific(thread_key, unused) != 0) {
            free(unused);
            return NULL;
        }
        link_reader_locked(unused);
    }
    return unused;
}

/* Give a reader without a transaction one of the map's current store. */
static int open_reader_locked(struct reader *reader, struct map *map)
{
    struct store *store = atomic_load(&map->store);
    int result = store_reader_open(store, &reader->transaction, MAP_READER_WAIT_MS);
    if (result == LARDER_OK) {
        registry_store_use_locked(store);
        reader->word = store->generation;
        atomic_store_explicit(&reader->map, map, memory_order_relaxed);
    }
    return result;
}

/* It was busy or failed a moment ago: a read is a miss then, it does not queue up behind others. */
static int check_busy(struct map *map)
{
    int64_t until = atomic_load_explicit(&map->busy_until_ms, memory_order_relaxed);
    return until == 0 || clock_monotonic_ms() >= until
               ? LARDER_OK
               : error_set(LARDER_EBUSY, "the map could not be opened a moment ago");
}

int registry_reader_slow(struct map *map, struct transaction **out)
{
    int result = check_busy(map);
    if (result != LARDER_OK) {
        return result;
    }
    registry_lock();
    result = check_busy(map);
    if (result == LARDER_OK) {
        result = map_refresh_locked(map, MAP_READER_WAIT_MS);
    }
    struct reader *reader = NULL;
    if (result == LARDER_OK) {
        reader = thread_reader_locked(map);
        if (reader == NULL) {
            result = error_set(LARDER_ENOMEM, "out of memory");
        }
    }
    if (result == LARDER_OK) {
        struct store *store = atomic_load(&map->store);
        if (reader->transaction.txn != NULL && reader->transaction.store != store) {
            close_reader_locked(reader);
        }
        if (reader->transaction.txn == NULL) {
            result = open_reader_locked(reader, map);
        }
    }
    if (result == LARDER_OK) {
        registry_current = reader;
        *out = &reader->transaction;
    }
    registry_unlock();
    return result;
}

/* One that an earlier view gave back, or a new one. */
static int view_reader_locked(struct map *map, struct reader **out)
{
    while (map->spare_views != NULL) {
        struct reader *spare = map->spare_views;
        map->spare_views = spare->next_of_thread;
        if (atomic_load(&spare->map) == map &&
            spare->transaction.store == atomic_load(&map->store)) {
            *out = spare;
            return LARDER_OK;
        }
        close_reader_locked(spare); /* of an older generation */
        unlink_reader_locked(spare);
        free(spare);
    }
    struct reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL) {
        return error_set(LARDER_ENOMEM, "out of memory");
    }
    int result = open_reader_locked(reader, map);
    if (result != LARDER_OK) {
        free(reader);
        return result;
    }
    link_reader_locked(reader);
    *out = reader;
    return LARDER_OK;
}

void registry_free_spare_views_locked(struct map *map)
{
    while (map->spare_views != NULL) {
        struct reader *spare = map->spare_views;
        map->spare_views = spare->next_of_thread;
        close_reader_locked(spare);
        unlink_reader_locked(spare);
        free(spare);
    }
}

int registry_view_begin(struct map *map, struct stats_slot *lookups, struct reader **out)
{
    struct reader *reader = NULL;
    int result = check_busy(map);
    if (result != LARDER_OK) {
        return result;
    }
    registry_lock();
    result = check_busy(map);
    if (result == LARDER_OK) {
        result = map_refresh_locked(map, MAP_READER_WAIT_MS);
    }
    if (result == LARDER_OK) {
        result = view_reader_locked(map, &reader);
    }
    registry_unlock();
    if (result != LARDER_OK) {
        return result;
    }
    result = store_read_begin(&reader->transaction, lookups);
    if (result != LARDER_OK) {
        registry_view_end(&reader);
        return result;
    }
    *out = reader;
    return LARDER_OK;
}

void registry_view_end(struct reader **handle)
{
    struct reader *reader = *handle;
    *handle = NULL;
    registry_check_fork();
    registry_lock();
    struct map *map = atomic_load(&reader->map);
    if (map != NULL && map->spare_views == NULL && /* one: slots are for everybody */
        reader->transaction.store == atomic_load(&map->store)) {
        store_read_end(&reader->transaction);
        reader->next_of_thread = map->spare_views;
        map->spare_views = reader;
    } else {
        close_reader_locked(reader); /* in a child nothing is left to close */
        unlink_reader_locked(reader);
        free(reader);
    }
    registry_unlock();
}

/* ---- Maps ------------------------------------------------------------------------------------ */

struct map *registry_find_locked(dev_t device, ino_t inode)
{
    for (struct map *map = maps; map != NULL; map = map->next) {
        if (map->device == device && map->inode == inode) {
            return map;
        }
    }
    return NULL;
}

void registry_add_locked(struct map *map)
{
    map->next = maps;
    maps = map;
}

void registry_remove_locked(struct map *map)
{
    for (struct map **at = &maps; *at != NULL; at = &(*at)->next) {
        if (*at == map) {
            *at = map->next;
            return;
        }
    }
}

/* ---- Fork ------------------------------------------------------------------------------------ */

void registry_after_fork(void)
{
    registry_lock();
    if (*registry_fork_mark != 0) {
        registry_unlock(); /* another thread of this child was first */
        return;
    }
    self_forked();
    for (struct reader *reader = readers; reader != NULL; reader = reader->next) {
        /* One block from calloc(), which mdb_txn_abort() would free after writing the slot. */
        free(reader->transaction.txn);
        reader->transaction.txn = NULL;
        atomic_store_explicit(&reader->map, NULL, memory_order_relaxed);
    }
    for (struct map *map = maps; map != NULL; map = map->next) {
        atomic_store(&map->store, NULL);
        atomic_store(&map->views, 0);
        atomic_store(&map->busy_until_ms, 0);
        /* The parent's descriptors stay open: their numbers may have been closed and given to
         * somebody else since. */
        atomic_store(&map->notify, NULL);
        atomic_store(&map->stats, stats_claim(map_control(map)));
    }
    while (stores != NULL) {
        struct store *store = stores;
        stores = store->next;
        store_forget(&store);
    }
    registry_current = NULL;
    *fork_page = 1;
    registry_unlock();
}

static void before_fork(void)
{
    registry_lock();
}

static void after_fork_in_parent(void)
{
    registry_unlock();
}

static void after_fork_in_child(void)
{
    /* The lock is held by the thread that forked, which is this one: but its owner's number
     * changed. */
    (void)pthread_mutex_init(&lock, NULL);
}

/* ---- Start ----------------------------------------------------------------------------------- */

static int count_copies(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size;
    const char *name = strrchr(info->dlpi_name, '/');
    name = name == NULL ? info->dlpi_name : name + 1;
    if (strncmp(name, "liblarder.so", strlen("liblarder.so")) == 0) {
        ++*(int *)context;
    }
    return 0;
}

static void init_once(void)
{
    long page = sysconf(_SC_PAGESIZE);
    uint8_t *mark =
        mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mark == MAP_FAILED) {
        init_result = error_system(LARDER_ENOMEM, "mmap of a page");
        return;
    }
    if (madvise(mark, (size_t)page, MADV_WIPEONFORK) != 0) {
        init_result = error_system(LARDER_ESYSTEM, "madvise(MADV_WIPEONFORK)");
        return;
    }
    if (pthread_key_create(&thread_key, on_thread_exit) != 0 ||
        pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) != 0) {
        init_result = error_set(LARDER_ESYSTEM, "no thread key or fork handler to be had");
        return;
    }
    *mark = 1;
    fork_page = mark;
    registry_fork_mark = mark;
}

int registry_init(void)
{
    int copies = 0;
    (void)pthread_once(&once, init_once);
    (void)dl_iterate_phdr(count_copies, &copies);
    if (copies > 1) {
        return error_set(LARDER_EDUPLICATE,
                         "%d copies of liblarder are loaded: their locks would undo each other's",
                         copies);
    }
    return init_result;
}
