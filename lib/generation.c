/* generation.c: lives of a map's data. A generation is made in a directory of its own, filled, and
 * published by rename and by the generation word; nothing is ever repaired in place.
 *
 * Invariant: whoever sees generation N in the word finds gN complete, its ledger written, and the
 * transaction numbers of the control segment at its start.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "hotset.h"
#include "map.h"
#include "removal.h"

static const char *const files[] = {"data.mdb", "lock.mdb", HOTSET_NAME};

static void remove_directory(int parent, const char *name)
{
    int directory = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory >= 0) {
        for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
            (void)unlinkat(directory, files[i], 0);
        }
        (void)close(directory);
    }
    (void)unlinkat(parent, name, AT_REMOVEDIR);
}

/* Whether it is the name of a generation, "gN", or of one that never was finished, "gN.new". */
static bool is_generation(const char *name, uint64_t *number, bool *unfinished)
{
    char *end = NULL;
    if (name[0] != 'g' || name[1] < '0' || name[1] > '9') {
        return false;
    }
    *number = strtoull(name + 1, &end, 10);
    *unfinished = strcmp(end, ".new") == 0;
    return *unfinished || *end == '\0';
}

/* A control segment that was being made or put aside by a process that is no more. */
static bool is_orphan(const char *name)
{
    int pid = 0;
    if (sscanf(name, "control.new-%d-", &pid) != 1 && sscanf(name, "control.old-%d-", &pid) != 1) {
        return false;
    }
    return pid > 0 && kill(pid, 0) != 0 && errno == ESRCH;
}

/* Inside the open gate nobody else makes or opens generations: all but the one to keep may go. What
 * other processes still have open stays theirs until they close it. */
static void remove_others(int parent, uint64_t keep)
{
    int copy = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = copy < 0 ? NULL : fdopendir(copy);
    if (listing == NULL) {
        if (copy >= 0) {
            (void)close(copy);
        }
        return; /* they cost space, nothing else; the next switch tries again */
    }
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        uint64_t number;
        bool unfinished;
        if (is_generation(entry->d_name, &number, &unfinished) && (unfinished || number != keep)) {
            remove_directory(parent, entry->d_name);
        } else if (is_orphan(entry->d_name)) {
            (void)unlinkat(parent, entry->d_name, 0);
        }
    }
    (void)closedir(listing);
}

/* The umask took bits away that the group needs. */
static int set_modes(const char *path, mode_t mode)
{
    char file[MAP_PATH_MAX + 192];
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        (void)snprintf(file, sizeof file, "%s/%s", path, files[i]);
        if (chmod(file, mode) != 0 && errno != ENOENT) { /* not every map has a hot set */
            return error_system(LARDER_ESYSTEM, "chmod of %s", file);
        }
    }
    return LARDER_OK;
}

int generation_prepare(struct map *map, uint64_t number, uint64_t map_size, char *path,
                       size_t path_size)
{
    struct control *control = map_control(map);
    char unfinished[64];
    (void)snprintf(unfinished, sizeof unfinished, "g%" PRIu64 ".new", number);
    (void)snprintf(path, path_size, "%s/%s", map->path, unfinished);
    /* The slot was the one's before the last: its numbers say nothing of this one, whose first
     * opener would wait for a writer that is not there. */
    struct control_life *life = control_life_of(control, number);
    atomic_store(&life->announced, 0);
    atomic_store(&life->committed, 0);
    atomic_store(&life->changes, 0);
    overwrite_reset(&control->overwrites[number & 1], number);
    remove_directory(map->directory, unfinished);
    if (mkdirat(map->directory, unfinished, 0700) != 0) {
        return error_system(errno == EACCES || errno == EPERM ? LARDER_EACCESS : LARDER_ESYSTEM,
                            "mkdir of %s", path);
    }
    mode_t directory_mode = (control->mode & 0060) != 0 ? 02770 : 0700;
    int result = LARDER_OK;
    if (fchmodat(map->directory, unfinished, directory_mode, 0) != 0) {
        result = error_system(LARDER_ESYSTEM, "chmod of %s", path);
    } else {
        result = store_create(path, map_size, (control->flags & LARDER_PROTECT) != 0,
                              (mode_t)control->mode);
    }
    if (result == LARDER_OK) {
        result = hotset_create(path, atomic_load(&control_life_of(control, number)->hot_size));
    }
    if (result == LARDER_OK) {
        result = set_modes(path, control->mode);
    }
    if (result != LARDER_OK) {
        remove_directory(map->directory, unfinished);
    }
    return result;
}

void generation_abandon(struct map *map, uint64_t number)
{
    char unfinished[64];
    (void)snprintf(unfinished, sizeof unfinished, "g%" PRIu64 ".new", number);
    remove_directory(map->directory, unfinished);
}

int generation_publish(struct map *map, uint64_t expected_word, const struct ledger *ledger)
{
    struct control *control = map_control(map);
    uint64_t number = GENERATION_NUMBER(expected_word) + 1;
    struct control_life *life = control_life_of(control, number);
    uint64_t transaction = atomic_load(&ledger->transaction);
    char name[64], unfinished[64];
    (void)snprintf(name, sizeof name, "g%" PRIu64, number);
    (void)snprintf(unfinished, sizeof unfinished, "g%" PRIu64 ".new", number);
    remove_directory(map->directory, name);
    if (renameat(map->directory, unfinished, map->directory, name) != 0) {
        int result = error_system(LARDER_ESYSTEM, "rename of %s/%s", map->path, unfinished);
        remove_directory(map->directory, unfinished);
        return result;
    }
    atomic_store(&life->ledgers[(transaction + 1) & 1].transaction, 0);
    ledger_write(life, ledger);
    atomic_store(&life->committed, transaction);
    atomic_store(&life->announced, transaction);
    /* The one store that makes it the current one: everything above is seen by whoever sees the new
     * word. Not over a word that has changed: the segment may have been put aside meanwhile. */
    if (!atomic_compare_exchange_strong(&control->generation, &expected_word, number)) {
        remove_directory(map->directory, name);
        return error_set(LARDER_EBUSY, "the map was replaced meanwhile");
    }
    stats_count(&control->stats[0], STATS_GENERATIONS);
    remove_others(map->directory, number);
    return LARDER_OK;
}

/* The number of the last transaction of an environment that nobody has used yet. */
static int first_transaction(struct map *map, const char *path, uint64_t number,
                             uint64_t *transaction)
{
    struct store *store = NULL;
    int result = store_open(path, map_control(map), number, &store);
    if (result == LARDER_OK) {
        *transaction = store_last_transaction(store);
        store_close(&store);
    }
    return result;
}

int generation_start(struct map *map, uint64_t word)
{
    struct control *control = map_control(map);
    uint64_t before = GENERATION_NUMBER(word);
    bool after_damage = before != 0;
    struct control_life *old = control_life_of(control, before);
    struct control_life *life = control_life_of(control, before + 1);
    char path[MAP_PATH_MAX + 128];
    struct ledger ledger = {.next_row = 1,
                            .next_chunk = 1,
                            .earliest_expiry_ms = CLOCK_NEVER,
                            .walk_earliest_ms = CLOCK_NEVER};
    if (before == 0) {
        /* Nobody has used it yet: the one who makes the first generation chooses. */
        atomic_store(&life->map_size, map->settings.map_size);
        atomic_store(&life->max_value, map->settings.max_value);
        atomic_store(&life->hot_size, map->settings.hot_size);
        atomic_store(&life->max_entries, map->settings.max_entries);
        control->flags = map->settings.flags;
    } else {
        atomic_store(&life->map_size, atomic_load(&old->map_size));
        atomic_store(&life->max_value, atomic_load(&old->max_value));
        atomic_store(&life->hot_size, atomic_load(&old->hot_size));
        atomic_store(&life->max_entries, atomic_load(&old->max_entries));
    }
    atomic_store(&life->generation, before + 1);
    /* The damaged one goes first: the file system may not hold two. */
    remove_others(map->directory, 0);
    int result =
        generation_prepare(map, before + 1, atomic_load(&life->map_size), path, sizeof path);
    if (result != LARDER_OK) {
        return result;
    }
    uint64_t transaction = 0;
    result = first_transaction(map, path, before + 1, &transaction);
    if (result != LARDER_OK) {
        generation_abandon(map, before + 1);
        return result;
    }
    atomic_store(&ledger.transaction, transaction);
    for (size_t i = 0; i < 2; i++) { /* what must never go back, whatever else was lost */
        uint64_t row = old->ledgers[i].next_row, chunk = old->ledgers[i].next_chunk;
        if (old->ledgers[i].ghosts > ledger.ghosts) {
            ledger.ghosts = old->ledgers[i].ghosts;
            ledger.ghost_bits = old->ledgers[i].ghost_bits;
        }
        ledger.next_row = row > ledger.next_row ? row : ledger.next_row;
        ledger.next_chunk = chunk > ledger.next_chunk ? chunk : ledger.next_chunk;
    }
    if (after_damage) {
        /* What stood in the lost data is unknown: nothing older than now may come back in. */
        removal_raise_all_floors(control, clock_next(control).clock);
    }
    return generation_publish(map, word, &ledger);
}
