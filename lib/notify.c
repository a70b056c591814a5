/* notify.c: the FIFO of each process that waits in an event loop, and the descriptor it is given:
 * an epoll instance over the FIFO, a timer, and a pidfd for each process it waits for. One
 * descriptor for all of that, and no thread: the death of a process makes it readable like any
 * message.
 *
 * What is told is told by a byte that means "look again"; nothing is lost when bytes run together.
 */
#include "notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "map.h"
#include "process.h"
#include "registry.h"

enum {
    WATCHED_MAX = 64,
    NAME_SIZE = 48,
    DATA_MESSAGE = 0, /* what epoll gives back: FIFO and timer, or a process */
    DATA_PROCESS = 1,
    UNWATCHED_MS = 20 /* where the kernel gives no pidfd: look again that often */
};

struct watched {
    pid_t pid;
    int file;
};

/* What this process has open for one map; under the registry's lock. */
struct notify {
    unsigned slot;
    int loop, fifo, timer;
    int64_t timer_ms; /* CLOCK_MONOTONIC; 0: not set */
    unsigned watched_count, replace;
    struct watched watched[WATCHED_MAX];
};

static void fifo_name(char name[NAME_SIZE], unsigned slot, pid_t pid)
{
    (void)snprintf(name, NAME_SIZE, "notify-%u-%d", slot, (int)pid);
}

/* ---- Slots ------------------------------------------------------------------------------------
 */

/* False: it is another's by now. The start goes first: whoever claims the slot next has his pid in
 * it before his start, and the start of the last one beside that pid would pass for a process that
 * is gone. (Where it is another's already, that one's start is lost, and his pid alone tells.) */
static bool free_slot(struct notify_slot *slot, int32_t pid)
{
    atomic_store(&slot->start, 0);
    return atomic_compare_exchange_strong(&slot->pid, &pid, 0);
}

/* Free the slots of processes that are gone, and their FIFOs. */
static void sweep(struct map *map)
{
    struct notify_table *table = &map_control(map)->notify;
    char name[NAME_SIZE];
    for (unsigned i = 0; i < NOTIFY_SLOTS; i++) {
        int32_t pid = atomic_load(&table->slots[i].pid);
        if (pid != 0 && process_gone(pid, atomic_load(&table->slots[i].start)) &&
            free_slot(&table->slots[i], pid)) {
            fifo_name(name, i, pid);
            (void)unlinkat(map->directory, name, 0);
        }
    }
}

static int claim_slot(struct map *map, unsigned *slot)
{
    struct notify_table *table = &map_control(map)->notify;
    for (unsigned i = 0; i < NOTIFY_SLOTS; i++) {
        int32_t none = 0;
        if (atomic_compare_exchange_strong(&table->slots[i].pid, &none, (int32_t)getpid())) {
            atomic_store(&table->slots[i].start, process_start());
            *slot = i;
            return LARDER_OK;
        }
    }
    return error_set(LARDER_ELIMIT, "%d processes have a notify descriptor of this map already",
                     NOTIFY_SLOTS);
}

/* ---- The descriptor ---------------------------------------------------------------------------
 */

static bool add_to_loop(const struct notify *notify, int file, uint64_t data)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = data};
    return epoll_ctl(notify->loop, EPOLL_CTL_ADD, file, &event) == 0;
}

static void close_files(struct notify *notify)
{
    for (unsigned i = 0; i < notify->watched_count; i++) {
        (void)close(notify->watched[i].file);
    }
    int files[] = {notify->loop, notify->fifo, notify->timer};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (files[i] >= 0) {
            (void)close(files[i]);
        }
    }
}

static int open_files(struct map *map, struct notify *notify)
{
    char name[NAME_SIZE];
    fifo_name(name, notify->slot, getpid());
    (void)unlinkat(map->directory, name, 0); /* of an earlier process of this number */
    if (mkfifoat(map->directory, name, map_control(map)->mode & 0660) != 0) {
        return error_system(LARDER_ESYSTEM, "mkfifo of %s in %s", name, map->path);
    }
    /* Open for writing, too: it never reads as ended when a notifier closes its end. */
    notify->fifo = openat(map->directory, name, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    notify->loop = epoll_create1(EPOLL_CLOEXEC);
    notify->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (notify->fifo < 0 || notify->loop < 0 || notify->timer < 0 ||
        fchmodat(map->directory, name, map_control(map)->mode & 0660, 0) != 0 ||
        !add_to_loop(notify, notify->fifo, DATA_MESSAGE) ||
        !add_to_loop(notify, notify->timer, DATA_MESSAGE)) {
        int result = error_system(LARDER_ESYSTEM, "opening a notify descriptor");
        (void)unlinkat(map->directory, name, 0);
        return result;
    }
    return LARDER_OK;
}

static int open_locked(struct map *map)
{
    struct notify *notify = calloc(1, sizeof *notify);
    if (notify == NULL) {
        return error_set(LARDER_ENOMEM, "out of memory");
    }
    notify->loop = notify->fifo = notify->timer = -1;
    sweep(map);
    int result = claim_slot(map, &notify->slot);
    if (result == LARDER_OK) {
        result = open_files(map, notify);
        if (result != LARDER_OK) {
            (void)free_slot(&map_control(map)->notify.slots[notify->slot], (int32_t)getpid());
        }
    }
    if (result != LARDER_OK) {
        close_files(notify);
        free(notify);
        return result;
    }
    atomic_store(&map->notify, notify);
    return LARDER_OK;
}

int notify_fd(struct map *map)
{
    int result = LARDER_OK;
    registry_lock();
    if (atomic_load(&map->notify) == NULL) {
        result = open_locked(map);
    }
    if (result == LARDER_OK) {
        result = atomic_load(&map->notify)->loop;
    }
    registry_unlock();
    return result;
}

void notify_move_locked(struct map *map)
{
    struct notify *notify = atomic_load(&map->notify);
    char before[NAME_SIZE], after[NAME_SIZE];
    unsigned slot;
    if (notify == NULL || claim_slot(map, &slot) != LARDER_OK) {
        return; /* the timer and the ends of processes still wake it */
    }
    fifo_name(before, notify->slot, getpid());
    fifo_name(after, slot, getpid());
    (void)renameat(map->directory, before, map->directory, after);
    notify->slot = slot;
    ssize_t written = write(notify->fifo, "", 1); /* what it waited for went with the segment */
    (void)written;
}

void notify_close_locked(struct map *map)
{
    struct notify *notify = atomic_exchange(&map->notify, NULL);
    char name[NAME_SIZE];
    if (notify == NULL) {
        return;
    }
    fifo_name(name, notify->slot, getpid());
    (void)unlinkat(map->directory, name, 0);
    (void)free_slot(&map_control(map)->notify.slots[notify->slot], (int32_t)getpid());
    close_files(notify);
    free(notify);
}

/* ---- Telling ----------------------------------------------------------------------------------
 */

int notify_slot_of(const struct map *map)
{
    const struct notify *notify = atomic_load(&map->notify);
    return notify == NULL ? -1 : (int)notify->slot;
}

bool notify_join(const struct map *map, struct notify_set *set)
{
    int slot = notify_slot_of(map);
    if (slot < 0) {
        return false;
    }
    /* seq_cst: before the look that follows; pairs with notify_all() */
    (void)atomic_fetch_or(&set->words[slot / 64], UINT64_C(1) << (slot % 64));
    return true;
}

void notify_process(struct map *map, unsigned slot)
{
    char name[NAME_SIZE];
    struct stat status;
    if (slot >= NOTIFY_SLOTS) {
        return;
    }
    int32_t pid = atomic_load(&map_control(map)->notify.slots[slot].pid);
    if (pid <= 0) {
        return;
    }
    fifo_name(name, slot, pid);
    /* Open for reading, too: then a write never raises SIGPIPE, whether or not a reader is left. */
    int file = openat(map->directory, name, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0) {
        return;
    }
    if (fstat(file, &status) == 0 && S_ISFIFO(status.st_mode)) {
        ssize_t written = write(file, "", 1);
        (void)written; /* a full FIFO is readable as well */
    }
    (void)close(file);
}

void notify_all_slow(struct map *map, struct notify_set *set)
{
    for (unsigned word = 0; word < NOTIFY_WORDS; word++) {
        uint64_t bits = atomic_exchange(&set->words[word], 0);
        for (; bits != 0; bits &= bits - 1) {
            notify_process(map, word * 64 + (unsigned)__builtin_ctzll(bits));
        }
    }
}

/* ---- Processes and times that are waited for --------------------------------------------------
 */

static void set_timer(struct notify *notify, int64_t until_ms)
{
    if (notify->timer_ms != 0 && notify->timer_ms <= until_ms) {
        return;
    }
    struct itimerspec time = {.it_value = {.tv_sec = (time_t)(until_ms / 1000),
                                           .tv_nsec = (long)(until_ms % 1000) * 1000000}};
    if (until_ms > 0 && timerfd_settime(notify->timer, TFD_TIMER_ABSTIME, &time, NULL) == 0) {
        notify->timer_ms = until_ms;
    }
}

/* False: the kernel cannot tell of its end. */
static bool watch_process(struct notify *notify, pid_t pid)
{
    for (unsigned i = 0; i < notify->watched_count; i++) {
        if (notify->watched[i].pid == pid) {
            return true;
        }
    }
    int file = pidfd_open(pid, 0);
    if (file < 0) {
        return false;
    }
    unsigned place = notify->watched_count;
    if (place == WATCHED_MAX) { /* the oldest is asked after by the timer from now on */
        place = notify->replace++ % WATCHED_MAX;
        (void)close(notify->watched[place].file);
        set_timer(notify, clock_monotonic_ms() + UNWATCHED_MS);
    } else {
        notify->watched_count++;
    }
    notify->watched[place] = (struct watched){.pid = pid, .file = file};
    return add_to_loop(notify, file, DATA_PROCESS);
}

void notify_watch(struct map *map, pid_t pid, int64_t until_ms)
{
    registry_lock();
    struct notify *notify = atomic_load(&map->notify);
    if (notify != NULL) {
        if (pid != getpid() && !watch_process(notify, pid)) {
            int64_t soon = clock_monotonic_ms() + UNWATCHED_MS;
            until_ms = until_ms < soon ? until_ms : soon;
        }
        set_timer(notify, until_ms);
    }
    registry_unlock();
}

/* Forget those of the watched that have ended. */
static unsigned take_ended(struct notify *notify, pid_t *ended, unsigned max)
{
    unsigned count = 0;
    for (unsigned i = 0; i < notify->watched_count;) {
        struct watched *watched = &notify->watched[i];
        if (count < max && process_gone(watched->pid, 0)) {
            (void)close(watched->file);
            ended[count++] = watched->pid;
            *watched = notify->watched[--notify->watched_count];
        } else {
            i++;
        }
    }
    return count;
}

unsigned notify_ended(struct map *map, pid_t *ended, unsigned max)
{
    struct epoll_event events[WATCHED_MAX + 2];
    unsigned count = 0;
    registry_lock();
    struct notify *notify = atomic_load(&map->notify);
    if (notify != NULL) {
        int ready = epoll_wait(notify->loop, events, WATCHED_MAX + 2, 0);
        bool any = false;
        for (int i = 0; i < ready; i++) {
            any |= events[i].data.u64 == DATA_PROCESS;
        }
        count = any ? take_ended(notify, ended, max) : 0;
    }
    registry_unlock();
    return count;
}

void notify_clear(struct map *map)
{
    uint8_t bytes[256];
    uint64_t expirations;
    registry_lock();
    struct notify *notify = atomic_load(&map->notify);
    if (notify != NULL) {
        while (read(notify->fifo, bytes, sizeof bytes) == (ssize_t)sizeof bytes) {
        }
        if (read(notify->timer, &expirations, sizeof expirations) > 0) {
            notify->timer_ms = 0;
        }
    }
    registry_unlock();
}
