/* registry.h: what this process has open: maps, environments, each thread's readers. It notices a
 * fork, gives each thread its own read transaction, and takes it back when the thread ends.
 *
 * Lock order: the registry's lock, then the open gate, then the write gate. Nothing here is called
 * with a gate held.
 */
#ifndef LARDER_LIB_REGISTRY_H
#define LARDER_LIB_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "larder.h"
#include "map.h"
#include "store.h"

/* A thread's read transaction on one map. */
struct reader {
    struct transaction transaction;
    struct map *_Atomic map; /* NULL: its map was closed, or this is a child of the process */
    uint64_t word;           /* generation word it belongs to */
    struct reader *next_of_thread;
    struct reader *next, *previous; /* of the process */
};

/* This thread's last used reader; the others hang behind next_of_thread of the thread's list. */
extern __thread struct reader *registry_current __attribute__((tls_model("initial-exec")));

/* One byte on a page that the kernel wipes in a child: 0 there, 1 here. */
extern const volatile uint8_t *registry_fork_mark;

/* Once per process: fork mark, handlers, thread key. */
int registry_init(void);

void registry_after_fork(void);

static inline void registry_check_fork(void)
{
    if (__builtin_expect(*registry_fork_mark == 0, 0)) {
        registry_after_fork();
    }
}

void registry_lock(void);
void registry_unlock(void);

struct map *registry_find_locked(dev_t device, ino_t inode);
void registry_add_locked(struct map *map);
void registry_remove_locked(struct map *map);

/* Count users of a store; the last one closes it. */
void registry_store_add_locked(struct store *store);
void registry_store_use_locked(struct store *store);
void registry_store_drop_locked(struct store *store);

/* Close the readers that views gave back (the map's last handle is going). */
void registry_free_spare_views_locked(struct map *map);

/* Close every thread's reader of a map (its last handle is going). */
void registry_close_readers_locked(struct map *map);

/* The slow ways: this thread's reader of the map, for the current generation. */
int registry_reader_slow(struct map *map, struct transaction **out);

/* This thread's reader of the map; it keeps its store open, also for a write of this thread. */
static inline int registry_reader(struct map *map, struct transaction **out)
{
    struct reader *reader = registry_current;
    /* acquire: pairs with the release that publishes a generation */
    if (__builtin_expect(reader != NULL &&
                             atomic_load_explicit(&reader->map, memory_order_relaxed) == map &&
                             reader->word == atomic_load_explicit(&map_control(map)->generation,
                                                                  memory_order_acquire),
                         1)) {
        *out = &reader->transaction;
        return LARDER_OK;
    }
    return registry_reader_slow(map, out);
}

/* The same with a snapshot taken; a lookup is counted in the slot, if one is given. End it with
 * store_read_end(). */
static inline int registry_snapshot(struct map *map, struct stats_slot *lookups,
                                    struct transaction **out)
{
    int result = registry_reader(map, out);
    return __builtin_expect(result == LARDER_OK, 1) ? store_read_begin(*out, lookups) : result;
}

/* A reader of its own for a view, outside the threads' lists; with a snapshot. */
int registry_view_begin(struct map *map, struct stats_slot *lookups, struct reader **out);
void registry_view_end(struct reader **reader);

#endif
