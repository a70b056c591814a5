/* map.h: what a handle stands on: one map as this process has it open. Handles on the same
 * directory share one struct map, because LMDB allows one environment per process.
 */
#ifndef LARDER_LIB_MAP_H
#define LARDER_LIB_MAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "control.h"
#include "larder.h"
#include "stats.h"
#include "store.h"

#define HANDLE_MAGIC UINT32_C(0x6c617264)

enum {
    MAP_OPEN_WAIT_MS = 1000, /* for the open gate */
    MAP_READER_WAIT_MS = 50, /* for the reader gate: then the read is a miss */
    MAP_PATH_MAX = 3072
};

struct map {
    struct map *next;
    unsigned references;
    dev_t device;
    ino_t inode;
    int directory;
    char *path; /* absolute */
    struct control *_Atomic control;
    size_t control_size;
    struct map_retired *retired; /* segments that were replaced; kept mapped until the last close */
    struct store *_Atomic store; /* NULL until opened; the registry's lock to change it */
    struct stats_slot *_Atomic stats;
    _Atomic int wake_fifo;         /* writing end, -1 until needed */
    struct notify *_Atomic notify; /* NULL until larder_notify_fd(); the registry's lock */
    _Atomic unsigned views;
    struct control_settings settings; /* what to make a map with */
    bool attach_only;                 /* never make one */
    _Atomic int64_t busy_until_ms;    /* monotonic: reads do not try to open before */
    struct reader *spare_views;       /* the registry's: the reader that a view gave back */
    bool read_only; /* every handle is: a damaged generation is left for others to replace */
};

struct larder {
    uint32_t magic, flags;
    struct map *map;
    int64_t write_wait_ms;
    uint64_t max_value;    /* bytes: the smaller of the handle's and the map's */
    uint64_t wanted_value; /* the option; 0: the default */
    uint64_t fence;        /* replica_claim()'s; 0: not the map's larderd */
};

/* Open a directory's map, counted; see larder_open(). */
int map_acquire(const char *path, int directory, const struct control_settings *settings,
                bool attach_only, bool read_only, struct map **out);
void map_release(struct map **map);

/* The control segment itself is damaged (a gate is no mutex any more): put it aside, so that
 * whoever calls next makes another map. */
void map_damaged(struct map *map);

/* Bring map->store to the current generation, making one where there is none or a damaged one;
 * gates are waited for wait_ms each. The registry's lock is held. ENOTFOUND: the directory was
 * removed. */
int map_refresh_locked(struct map *map, int64_t wait_ms);

/* ---- Generations; under the open gate and the write gate ---------------------------------------
 */

/* Start an empty generation in place of the one of that word, which is none yet or damaged. */
int generation_start(struct map *map, uint64_t word);

/* Make the files of generation number, under a name that nobody looks for; path receives it. */
int generation_prepare(struct map *map, uint64_t number, uint64_t map_size, char *path,
                       size_t path_size);
void generation_abandon(struct map *map, uint64_t number);

/* Make the next one after expected_word's the current one, if that is still the word; the ledger
 * goes with it. Its control_life has its sizes already. */
int generation_publish(struct map *map, uint64_t expected_word, const struct ledger *ledger);

/* Give the map another size: a new generation with all that is dirty, the tombstones, and as much
 * of the rest, newest first to stay, as fits. The registry's lock and both gates are held. */
int generation_resize(struct map *map, uint64_t map_size);

/* Enter the gates that a switch of generations needs, within a second each. */
int map_enter_gates(struct map *map);
void map_leave_gates(struct map *map);

static inline struct control *map_control(struct map *map)
{
    return atomic_load_explicit(&map->control, memory_order_acquire);
}

static inline struct stats_slot *map_stats(struct map *map)
{
    return atomic_load_explicit(&map->stats, memory_order_relaxed);
}

#endif
