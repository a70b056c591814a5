/* map.c: attaching to a map's directory and keeping up with its generations.
 */
#include "map.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "notify.h"
#include "registry.h"

enum { ATTACH_TRIES = 5, REPLACE_WAIT_MS = 1000, RETRY_MS = 1000, BUSY_MS = 100 };

struct map_retired {
    struct map_retired *next;
    struct control *control;
    size_t size;
};

/* ---- The control segment ----------------------------------------------------------------------
 */

/* Put an unusable segment aside. Several processes may find it at once: one at a time, each looks
 * again, so that nobody retires what another has just made. */
static int replace_control(int directory)
{
    int64_t until = clock_monotonic_ms() + REPLACE_WAIT_MS;
    while (flock(directory, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return error_system(LARDER_ESYSTEM, "flock of the map's directory");
        }
        if (clock_monotonic_ms() > until) {
            return error_set(LARDER_EBUSY, "another process is replacing the map");
        }
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    struct control *control = NULL;
    size_t size = 0;
    bool replaceable = false;
    int result = control_attach(directory, &control, &size, &replaceable);
    if (result == LARDER_OK) {
        control_detach(&control, size);
    } else if (replaceable) {
        result = control_retire(directory);
    }
    (void)flock(directory, LOCK_UN);
    return result;
}

static int attach_control(int directory, const struct control_settings *settings, bool attach_only,
                          struct control **control, size_t *size)
{
    int result = LARDER_ESYSTEM;
    for (int tries = 0; tries < ATTACH_TRIES; tries++) {
        bool replaceable = false;
        result = control_attach(directory, control, size, &replaceable);
        if (result == LARDER_OK || attach_only) {
            return result;
        }
        if (result == LARDER_ENOTFOUND) {
            result = control_create(directory, settings);
        } else if (replaceable) {
            result = replace_control(directory);
        } else {
            return result;
        }
        if (result != LARDER_OK && result != LARDER_ENOTFOUND) {
            return result;
        }
    }
    return result;
}

/* The segment was replaced under a running process. */
static int reattach_control_locked(struct map *map)
{
    struct control *control = NULL;
    size_t size = 0;
    struct map_retired *retired = malloc(sizeof *retired);
    if (retired == NULL) {
        return error_set(LARDER_ENOMEM, "out of memory");
    }
    int result = attach_control(map->directory, &map->settings, map->attach_only, &control, &size);
    if (result != LARDER_OK) {
        free(retired);
        return result;
    }
    struct store *store = atomic_exchange(&map->store, NULL);
    if (store != NULL) {
        registry_store_drop_locked(store);
    }
    /* Other threads may be looking at the old one this moment: it stays mapped. */
    *retired = (struct map_retired){
        .next = map->retired, .control = map_control(map), .size = map->control_size};
    map->retired = retired;
    map->control_size = size;
    atomic_store(&map->stats, stats_claim(control));
    atomic_store_explicit(&map->control, control, memory_order_release);
    notify_move_locked(map);
    return LARDER_OK;
}

/* ---- Generations ------------------------------------------------------------------------------
 */

void map_damaged(struct map *map)
{
    struct control *control = map_control(map);
    if ((atomic_fetch_or(&control->generation, GENERATION_RETIRED) & GENERATION_RETIRED) == 0 &&
        !map->read_only) {
        (void)control_retire(map->directory);
    }
}

static int enter(struct map *map, struct gate *gate, int64_t wait_ms, const char *what)
{
    struct control *control = map_control(map);
    switch (gate_enter(gate, wait_ms)) {
    case GATE_RECOVERED:
        if (gate == &control->write_gate) { /* for the next writer */
            atomic_store(&control->recovery_due, 1);
        }
        return LARDER_OK;
    case GATE_ENTERED:
        return LARDER_OK;
    case GATE_BUSY:
        return error_set(LARDER_EBUSY, "the %s gate is held by another process", what);
    default:
        map_damaged(map);
        return error_set(LARDER_ECORRUPT, "the %s gate is damaged", what);
    }
}

int map_enter_gates(struct map *map)
{
    const int64_t wait_ms = MAP_OPEN_WAIT_MS;
    struct control *control = map_control(map);
    int result = enter(map, &control->open_gate, wait_ms, "open");
    if (result == LARDER_OK) {
        result = enter(map, &control->write_gate, wait_ms, "write");
        if (result != LARDER_OK) {
            gate_leave(&control->open_gate);
        }
    }
    return result;
}

void map_leave_gates(struct map *map)
{
    struct control *control = map_control(map);
    gate_leave(&control->write_gate);
    gate_leave(&control->open_gate);
}

/* Inside the open gate. A generation that cannot be made is not tried again at once, by anybody. */
static int start_generation(struct map *map, uint64_t word, int64_t wait_ms)
{
    struct control *control = map_control(map);
    int64_t now = clock_monotonic_ms();
    if (now < atomic_load(&control->retry_at_ms)) {
        return error_set(LARDER_EBUSY,
                         "the map could not be made a moment ago: not tried again yet");
    }
    int result = enter(map, &control->write_gate, wait_ms, "write");
    if (result != LARDER_OK) {
        return result;
    }
    result = generation_start(map, word);
    gate_leave(&control->write_gate);
    if (result != LARDER_OK && result != LARDER_EBUSY) {
        if (GENERATION_NUMBER(word) == 0) {
            map_damaged(map); /* nobody has used it: leave nothing behind */
        } else {
            atomic_store(&control->retry_at_ms, now + RETRY_MS);
        }
    }
    return result;
}

/* Open the current generation, making it where it is missing or damaged. Inside the open gate. */
static int open_generation(struct map *map, int64_t wait_ms, struct store **store)
{
    struct control *control = map_control(map);
    int result = LARDER_ECORRUPT;
    for (int tries = 0; tries < 2; tries++) {
        uint64_t word = atomic_load(&control->generation);
        if ((word & GENERATION_RETIRED) != 0) {
            return LARDER_EFORMAT;
        }
        bool damaged = (word & GENERATION_POISONED) != 0;
        if (damaged && map->read_only) {
            return error_set(LARDER_ECORRUPT,
                             "generation %" PRIu64 " of %s was found damaged: the next to open the "
                             "map for writing starts another",
                             GENERATION_NUMBER(word), map->path);
        }
        if (GENERATION_NUMBER(word) == 0 || damaged) {
            result = start_generation(map, word, wait_ms);
            if (result != LARDER_OK) {
                return result;
            }
            word = atomic_load(&control->generation);
        }
        char path[MAP_PATH_MAX + 64];
        (void)snprintf(path, sizeof path, "%s/g%" PRIu64, map->path, GENERATION_NUMBER(word));
        result = store_open(path, control, GENERATION_NUMBER(word), store);
        if (result != LARDER_ECORRUPT || map->read_only) {
            return result;
        }
        control_poison(control, word);
    }
    return result;
}

/* Whether the directory that was opened still stands under its name. LMDB opens its files by name,
 * the control segment is held by descriptor: they must be of one map. */
static int check_place(const struct map *map)
{
    struct stat status;
    if (stat(map->path, &status) != 0) {
        return errno == ENOENT || errno == ENOTDIR
                   ? error_set(LARDER_ENOTFOUND, "%s was removed: open the map again", map->path)
                   : error_system(LARDER_ESYSTEM, "%s", map->path);
    }
    if (status.st_dev != map->device || status.st_ino != map->inode) {
        return error_set(LARDER_ENOTFOUND, "%s was replaced: open the map again", map->path);
    }
    return LARDER_OK;
}

static int refresh(struct map *map, int64_t wait_ms)
{
    int result = LARDER_OK;
    for (int tries = 0; tries < 3; tries++) {
        struct control *control = map_control(map);
        uint64_t word = atomic_load_explicit(&control->generation, memory_order_acquire);
        if ((word & GENERATION_RETIRED) != 0) {
            result = reattach_control_locked(map);
            if (result != LARDER_OK) {
                return result;
            }
            continue;
        }
        struct store *store = atomic_load(&map->store);
        if (store != NULL && store->generation == word) {
            return LARDER_OK;
        }
        result = control_check_namespace(control); /* a child may have been born into another one */
        if (result == LARDER_OK) {
            result = check_place(map);
        }
        if (result == LARDER_OK) {
            result = enter(map, &control->open_gate, wait_ms, "open");
        }
        if (result != LARDER_OK) {
            return result;
        }
        struct store *opened = NULL;
        result = open_generation(map, wait_ms, &opened);
        gate_leave(&control->open_gate);
        if (result == LARDER_EFORMAT) {
            continue; /* retired meanwhile */
        }
        if (result != LARDER_OK) {
            return result;
        }
        opened->popularity = control_popularity(map->control_size);
        registry_store_add_locked(opened);
        store = atomic_exchange(&map->store, opened);
        if (store != NULL) {
            registry_store_drop_locked(store);
        }
        return LARDER_OK;
    }
    return result == LARDER_OK ? error_set(LARDER_EBUSY, "the map is being replaced") : result;
}

int map_refresh_locked(struct map *map, int64_t wait_ms)
{
    int result = refresh(map, wait_ms);
    atomic_store_explicit(&map->busy_until_ms,
                          result == LARDER_EBUSY ? clock_monotonic_ms() + BUSY_MS : 0,
                          memory_order_relaxed);
    return result;
}

/* ---- Maps -------------------------------------------------------------------------------------
 */

static void free_map(struct map *map)
{
    struct control *control = map_control(map);
    control_detach(&control, map->control_size);
    while (map->retired != NULL) {
        struct map_retired *retired = map->retired;
        map->retired = retired->next;
        control_detach(&retired->control, retired->size);
        free(retired);
    }
    int fifo = atomic_load(&map->wake_fifo);
    if (fifo >= 0) {
        (void)close(fifo);
    }
    if (map->directory >= 0) {
        (void)close(map->directory);
    }
    free(map->path);
    free(map);
}

static int new_map(const char *path, int directory, const struct control_settings *settings,
                   bool attach_only, bool read_only, struct map **out)
{
    struct stat status;
    struct control *control = NULL;
    struct map *map = calloc(1, sizeof *map);
    if (map == NULL || (map->path = strdup(path)) == NULL) {
        free(map);
        return error_set(LARDER_ENOMEM, "out of memory");
    }
    map->directory = fcntl(directory, F_DUPFD_CLOEXEC, 0);
    map->settings = *settings;
    map->read_only = read_only;
    map->attach_only = attach_only;
    atomic_store(&map->wake_fifo, -1);
    if (map->directory < 0 || fstat(directory, &status) != 0) {
        int result = error_system(LARDER_ESYSTEM, "%s", path);
        free_map(map);
        return result;
    }
    map->device = status.st_dev;
    map->inode = status.st_ino;
    int result = attach_control(directory, settings, attach_only, &control, &map->control_size);
    atomic_store(&map->control, control);
    if (result == LARDER_OK) {
        uint64_t word = atomic_load(&control->generation);
        if (attach_only && GENERATION_NUMBER(word) == 0) {
            result = error_set(LARDER_ENOTFOUND, "%s: there is no such map yet", path);
        } else {
            result = map_refresh_locked(map, MAP_OPEN_WAIT_MS);
        }
    }
    if (result != LARDER_OK) {
        free_map(map);
        return result;
    }
    atomic_store(&map->stats, stats_claim(map_control(map)));
    *out = map;
    return LARDER_OK;
}

int map_acquire(const char *path, int directory, const struct control_settings *settings,
                bool attach_only, bool read_only, struct map **out)
{
    struct stat status;
    if (fstat(directory, &status) != 0) {
        return error_system(LARDER_ESYSTEM, "%s", path);
    }
    registry_lock();
    int result = LARDER_OK;
    struct map *map = registry_find_locked(status.st_dev, status.st_ino);
    if (map == NULL) {
        result = new_map(path, directory, settings, attach_only, read_only, &map);
        if (result == LARDER_OK) {
            registry_add_locked(map);
        }
    }
    if (result == LARDER_OK) {
        result =
            control_check_namespace(map_control(map)); /* it may have been opened before fork */
    }
    if (result == LARDER_OK) {
        map->references++;
        map->read_only &= read_only;
        map->attach_only &= attach_only;
        *out = map;
    }
    registry_unlock();
    return result;
}

void map_release(struct map **handle)
{
    struct map *map = *handle;
    *handle = NULL;
    registry_lock();
    if (--map->references == 0) {
        registry_remove_locked(map);
        registry_free_spare_views_locked(map);
        registry_close_readers_locked(map);
        struct store *store = atomic_exchange(&map->store, NULL);
        if (store != NULL) {
            registry_store_drop_locked(store);
        }
        stats_release(map_control(map), map_stats(map));
        lease_abandon_all(map);
        notify_close_locked(map);
        free_map(map);
    }
    registry_unlock();
}
