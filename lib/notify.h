/* notify.h: waking event loops. A process that asked for larder_notify_fd() has a slot in the
 * control segment and a FIFO in the map's directory; whoever ends what that process waits for puts
 * a byte into it. Only slots named in a set of bits are touched: nobody else's writes cost
 * anything.
 *
 * Called by lease.c, fetch.c and whoever has an event for another process. Never blocks, never
 * raises SIGPIPE. Layout: MAP_FORMAT
 */
#ifndef LARDER_LIB_NOTIFY_H
#define LARDER_LIB_NOTIFY_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct control;
struct map;

enum {
    NOTIFY_SLOTS = 256, /* processes of a host that wait in event loops */
    NOTIFY_WORDS = NOTIFY_SLOTS / 64
};

struct notify_slot {
    _Atomic int32_t pid; /* 0: free */
    uint32_t reserved;
    _Atomic uint64_t start; /* of that process, see process.h; 0: not known */
};
static_assert(sizeof(struct notify_slot) == 16, "MAP_FORMAT");

struct notify_table {
    struct notify_slot slots[NOTIFY_SLOTS];
};
static_assert(sizeof(struct notify_table) == 4096, "MAP_FORMAT");

/* A set of slots, in shared memory: who is to be woken. */
struct notify_set {
    _Atomic uint64_t words[NOTIFY_WORDS];
};

/* This process's descriptor for the map, made at the first call: >= 0, or ELIMIT, ESYSTEM, ENOMEM.
 * It is readable from a notification until notify_clear(). */
int notify_fd(struct map *map);

/* This process's slot; -1 where it never asked for a descriptor. */
int notify_slot_of(const struct map *map);

/* Put this process into a set; false: it has no slot. Look again at what is waited for afterwards:
 * it may have come before. */
bool notify_join(const struct map *map, struct notify_set *set);

/* Make the descriptor readable when that process ends, or at that time (CLOCK_MONOTONIC), too. */
void notify_watch(struct map *map, pid_t pid, int64_t until_ms);

/* Make the descriptor of the process in that slot readable. */
void notify_process(struct map *map, unsigned slot);

/* The same for all of a set, which is empty afterwards. One load where nobody is in it. */
void notify_all_slow(struct map *map, struct notify_set *set);
static inline void notify_all(struct map *map, struct notify_set *set)
{
    uint64_t any = 0;
    for (int i = 0; i < NOTIFY_WORDS; i++) {
        /* seq_cst: after the change that is told; pairs with notify_join(), after which the waiter
         * looks once more */
        any |= atomic_load(&set->words[i]);
    }
    if (__builtin_expect(any != 0, 0)) {
        notify_all_slow(map, set);
    }
}

/* Up to max processes that were watched and have ended; returns how many. Each is named once. */
unsigned notify_ended(struct map *map, pid_t *ended, unsigned max);

/* Take all that was told: the descriptor is not readable then, unless more processes have ended. */
void notify_clear(struct map *map);

/* The control segment was replaced: take a slot of the new one. The registry's lock is held. */
void notify_move_locked(struct map *map);

/* The map's last handle goes. The registry's lock is held. */
void notify_close_locked(struct map *map);

#endif
