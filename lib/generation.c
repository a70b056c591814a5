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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "map.h"
#include "removal.h"

static void remove_directory(int parent, const char *name)
{
    static const char *const files[] = {"data.mdb", "lock.mdb"};
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
        }
    }
    (void)closedir(listing);
}

int generation_prepare(struct map *map, uint64_t number, uint64_t map_size, char *path,
                       size_t path_size)
{
    struct control *control = map_control(map);
    char unfinished[64];
    (void)snprintf(unfinished, sizeof unfinished, "g%" PRIu64 ".new", number);
    (void)snprintf(path, path_size, "%s/%s", map->path, unfinished);
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

int generation_publish(struct map *map, uint64_t number, const struct ledger *ledger)
{
    struct control *control = map_control(map);
    char name[64], unfinished[64];
    (void)snprintf(name, sizeof name, "g%" PRIu64, number);
    (void)snprintf(unfinished, sizeof unfinished, "g%" PRIu64 ".new", number);
    remove_directory(map->directory, name);
    if (renameat(map->directory, unfinished, map->directory, name) != 0) {
        int result = error_system(LARDER_ESYSTEM, "rename of %s/%s", map->path, unfinished);
        remove_directory(map->directory, unfinished);
        return result;
    }
    control->ledgers[ledger->transaction & 1] = *ledger;
    control->ledgers[(ledger->transaction + 1) & 1] = (struct ledger){0};
    atomic_store(&control->committed, ledger->transaction);
    atomic_store(&control->announced, ledger->transaction);
    stats_count(&control->stats[0], STATS_GENERATIONS);
    /* release: everything above is seen by whoever sees the new word */
    atomic_store_explicit(&control->generation, number, memory_order_release);
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

int generation_start(struct map *map, bool after_damage)
{
    struct control *control = map_control(map);
    uint64_t before = GENERATION_NUMBER(atomic_load(&control->generation));
    char path[MAP_PATH_MAX + 128];
    struct ledger ledger = {.next_row = 1, .next_chunk = 1};
    if (before == 0) {
        /* Nobody has used it yet: the one who makes the first generation chooses. */
        atomic_store(&control->map_size, map->settings.map_size);
        atomic_store(&control->max_value, map->settings.max_value);
        control->flags = map->settings.flags;
    }
    /* An old generation pins its pages until its last process lets go; gone files free the space.
     */
    remove_others(map->directory, after_damage ? 0 : before);
    int result =
        generation_prepare(map, before + 1, atomic_load(&control->map_size), path, sizeof path);
    if (result != LARDER_OK) {
        return result;
    }
    result = first_transaction(map, path, before + 1, &ledger.transaction);
    if (result != LARDER_OK) {
        generation_abandon(map, before + 1);
        return result;
    }
    for (size_t i = 0; i < 2; i++) { /* what must never go back, whatever else was lost */
        const struct ledger *old = &control->ledgers[i];
        ledger.next_row = old->next_row > ledger.next_row ? old->next_row : ledger.next_row;
        ledger.next_chunk =
            old->next_chunk > ledger.next_chunk ? old->next_chunk : ledger.next_chunk;
    }
    if (after_damage) {
        /* What stood in the lost data is unknown: nothing older than now may come back in. */
        removal_raise_all_floors(control, clock_next(control).clock);
    }
    return generation_publish(map, before + 1, &ledger);
}
