/* follow.c: larder_publish() and the followers of the ring of events. A follower is memory of its
 * process; all the map knows of it is that somebody follows these kinds. It filters what it reads,
 * passes over what nobody will finish, and says when it has missed something.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "events.h"
#include "follow.h"
#include "handle.h"
#include "key.h"

#define FOLLOWER_MAGIC UINT32_C(0x666f6c6c)

enum {
    NAMES_MAX = 64,
    WAIT_MAX_MS = 3600000,
    SLICE_MS = 50,             /* of a wait: a map that was replaced rings no bell */
    SKIPS_MAX = EVENTS_SLOTS,  /* events that one call passes over because of the filter */
    AHEAD = EVENTS_SLOTS / 64, /* left to the writers where they overtook us */
    PATIENCE_MS = 100,         /* with an event that is not finished: its writer is stopped */
    PATIENCE_WRITE_MS = 2000   /* with one of a transaction, while its writer lives */
};

#define ALL_KINDS                                                                                  \
    (LARDER_EVENT_SET | LARDER_EVENT_DELETE | LARDER_EVENT_INVALIDATE | LARDER_EVENT_EVICT |       \
     LARDER_EVENT_EXPIRE | LARDER_EVENT_NAMED)

struct larder_follower {
    uint32_t magic, kinds;
    struct larder *handle;
    struct control *control;
    pid_t pid;
    int index; /* in the ring's table */
    uint64_t token;
    uint64_t next;       /* number of the event that is looked at next */
    uint64_t missed;     /* not told yet */
    uint64_t stuck;      /* number of an unfinished event that is waited for, or 0 */
    int64_t stuck_ms;    /* monotonic: since when */
    larder_bytes *names; /* their bytes stand behind them */
    size_t name_count;
    larder_bytes prefix;
    uint8_t body[EVENTS_BODY_MAX];
};

/* ---- Publishing -------------------------------------------------------------------------------
 */

void follow_tell_slow(struct map *map, const struct event_draft *given)
{
    struct event_ring *ring = &map_control(map)->events;
    struct event_draft draft = *given;
    draft.key_hash = draft.name.size > 0 ? key_hash(draft.name.data, draft.name.size) : 0;
    (void)events_put(ring, &draft);
    stats_count(map_stats(map), STATS_EVENTS);
    follow_wake(map);
}

void follow_wake(struct map *map)
{
    struct event_ring *ring = &map_control(map)->events;
    events_ring_bell(ring);
    notify_all(map, &ring->listeners);
}

int larder_publish(larder *handle, larder_bytes name, larder_bytes data)
{
    int result = handle_enter_write(handle);
    if (result != LARDER_OK) {
        return result;
    }
    if (name.data == NULL || name.size == 0 || (data.data == NULL && data.size > 0)) {
        return error_set(LARDER_EINVAL, "an event without a name, or a size without data");
    }
    if (name.size > LARDER_EVENT_NAME_MAX) {
        return error_set(LARDER_ETOOBIG, "name of an event of %zu bytes: the limit is %u",
                         name.size, LARDER_EVENT_NAME_MAX);
    }
    if (data.size > LARDER_EVENT_DATA_MAX) {
        return error_set(LARDER_ETOOBIG, "data of an event of %zu bytes: the limit is %u",
                         data.size, LARDER_EVENT_DATA_MAX);
    }
    if (events_wanted(&map_control(handle->map)->events, LARDER_EVENT_NAMED)) {
        follow_tell_slow(handle->map, &(struct event_draft){.kind = LARDER_EVENT_NAMED,
                                                            .name = name,
                                                            .data = data,
                                                            .expires_ms = INT64_MAX});
    }
    return LARDER_OK;
}

/* ---- Beginning and ending ---------------------------------------------------------------------
 */

static int check_filter(const larder_filter *filter)
{
    static const uint64_t none[sizeof filter->reserved / sizeof filter->reserved[0]];
    if ((filter->kinds & ~(uint32_t)ALL_KINDS) != 0 || filter->reserved0 != 0 ||
        memcmp(filter->reserved, none, sizeof none) != 0) {
        return error_set(LARDER_EINVAL, "unknown members or kinds of larder_filter are not 0");
    }
    if ((filter->prefix.data == NULL && filter->prefix.size > 0) ||
        (filter->names == NULL && filter->name_count > 0)) {
        return error_set(LARDER_EINVAL, "a size in larder_filter without what it is of");
    }
    if (filter->prefix.size > LARDER_KEY_MAX) {
        return error_set(LARDER_ETOOBIG, "prefix of %zu bytes: the limit is %u",
                         filter->prefix.size, LARDER_KEY_MAX);
    }
    if (filter->name_count > NAMES_MAX) {
        return error_set(LARDER_EINVAL, "%zu names of events: at most %d", filter->name_count,
                         NAMES_MAX);
    }
    for (size_t i = 0; i < filter->name_count; i++) {
        if (filter->names[i].data == NULL || filter->names[i].size == 0 ||
            filter->names[i].size > LARDER_EVENT_NAME_MAX) {
            return error_set(LARDER_EINVAL, "name of an event of %zu bytes: it has 1 to %u",
                             filter->names[i].size, LARDER_EVENT_NAME_MAX);
        }
    }
    return LARDER_OK;
}

/* One block of memory: the follower, its names, their bytes, the prefix. */
static larder_follower *make(const larder_filter *filter)
{
    size_t size =
        sizeof(larder_follower) + filter->name_count * sizeof(larder_bytes) + filter->prefix.size;
    for (size_t i = 0; i < filter->name_count; i++) {
        size += filter->names[i].size;
    }
    larder_follower *follower = calloc(1, size);
    if (follower == NULL) {
        return NULL;
    }
    follower->kinds = filter->kinds == 0 ? ALL_KINDS : filter->kinds;
    follower->names = (larder_bytes *)(void *)(follower + 1);
    follower->name_count = filter->name_count;
    uint8_t *at = (uint8_t *)(follower->names + filter->name_count);
    for (size_t i = 0; i < filter->name_count; i++) {
        memcpy(at, filter->names[i].data, filter->names[i].size);
        follower->names[i] = (larder_bytes){at, filter->names[i].size};
        at += filter->names[i].size;
    }
    if (filter->prefix.size > 0) {
        memcpy(at, filter->prefix.data, filter->prefix.size);
    }
    follower->prefix = (larder_bytes){at, filter->prefix.size};
    return follower;
}

static int join(larder_follower *follower)
{
    struct event_ring *ring = &follower->control->events;
    follower->token = clock_next(follower->control).clock ^ (uint64_t)(uintptr_t)follower;
    follower->index = events_join(ring, follower->kinds, follower->token);
    if (follower->index < 0) {
        return error_set(LARDER_ELIMIT, "%d followers of this map already", EVENTS_FOLLOWERS);
    }
    /* behind the interest: whoever writes from now on tells */
    follower->next = atomic_load(&ring->head) + 1;
    follower->stuck = 0;
    return LARDER_OK;
}

int larder_follow(larder *handle, const larder_filter *filter, larder_follower **out)
{
    static const larder_filter everything;
    struct transaction *reader;
    if (out == NULL) {
        return error_set(LARDER_EINVAL, "larder_follow() without a place for the follower");
    }
    *out = NULL;
    filter = filter == NULL ? &everything : filter;
    int result = handle_enter(handle);
    if (result == LARDER_OK) {
        result = check_filter(filter);
    }
    if (result == LARDER_OK) {
        result = registry_reader(handle->map, &reader); /* the segment that is in use now */
    }
    if (result != LARDER_OK) {
        return result;
    }
    larder_follower *follower = make(filter);
    if (follower == NULL) {
        return error_set(LARDER_ENOMEM, "out of memory");
    }
    follower->magic = FOLLOWER_MAGIC;
    follower->handle = handle;
    follower->control = map_control(handle->map);
    follower->pid = getpid();
    result = join(follower);
    if (result != LARDER_OK) {
        free(follower);
        return result;
    }
    *out = follower;
    return LARDER_OK;
}

void larder_unfollow(larder_follower **out)
{
    if (out == NULL || *out == NULL || (*out)->magic != FOLLOWER_MAGIC) {
        return;
    }
    larder_follower *follower = *out;
    *out = NULL;
    if (follower->pid == getpid()) { /* in a child it is still the parent's */
        events_leave(&follower->control->events, follower->index, follower->token);
    }
    follower->magic = 0;
    free(follower);
}

/* ---- Filtering --------------------------------------------------------------------------------
 */

static bool begins_with(larder_bytes bytes, larder_bytes prefix)
{
    return bytes.size >= prefix.size && memcmp(bytes.data, prefix.data, prefix.size) == 0;
}

static bool passes(const larder_follower *follower, const larder_event *event)
{
    if ((event->kind & follower->kinds) == 0) {
        return false;
    }
    if (event->kind == LARDER_EVENT_NAMED) {
        for (size_t i = 0; i < follower->name_count; i++) {
            const larder_bytes *name = &follower->names[i];
            if (name->size == event->name.size && begins_with(event->name, *name)) {
                return true;
            }
        }
        return follower->name_count == 0;
    }
    if (follower->prefix.size == 0) {
        return true;
    }
    if (event->kind == LARDER_EVENT_INVALIDATE && event->cause != LARDER_CAUSE_KEY) {
        return event->cause != LARDER_CAUSE_PREFIX || begins_with(event->name, follower->prefix) ||
               begins_with(follower->prefix, event->name);
    }
    if ((event->flags & LARDER_EVENT_CUT) != 0 && event->name.size < follower->prefix.size) {
        return begins_with(follower->prefix, event->name); /* it may: wider */
    }
    return begins_with(event->name, follower->prefix);
}

/* ---- Reading ----------------------------------------------------------------------------------
 */

static void lose(larder_follower *follower, uint64_t count)
{
    follower->next += count;
    follower->missed += count;
    follower->stuck = 0;
    stats_add(map_stats(follower->handle->map), STATS_EVENTS_MISSED, count);
}

static bool gone(int32_t pid)
{
    return pid > 0 && kill(pid, 0) != 0 && errno == ESRCH;
}

/* An event that is not finished: whether to pass over it. Its publisher died, or was stopped; a
 * transaction may last, and a dead writer's is decided by the next one. */
static bool give_up(larder_follower *follower, int32_t pid, bool prepared)
{
    int64_t now = clock_monotonic_ms();
    if (follower->stuck != follower->next) {
        follower->stuck = follower->next;
        follower->stuck_ms = now;
        return gone(pid) && !prepared;
    }
    int64_t waited = now - follower->stuck_ms;
    bool dead = gone(pid);
    return (dead && !prepared) || waited > PATIENCE_WRITE_MS ||
           (waited > PATIENCE_MS && (dead || !prepared));
}

static void describe(const larder_follower *follower, const struct event_fields *fields,
                     larder_event *event)
{
    *event = (larder_event){
        .kind = 1u << fields->kind,
        .cause = fields->cause,
        .flags = fields->flags,
        .number = follower->next,
        .version = {.clock = fields->clock, .node = fields->node},
        .expires_ms = fields->expires_ms,
        .name_hash = fields->key_hash,
        .name_size = fields->name_size,
        .name = {follower->body, fields->name_kept},
        .data = {follower->body + fields->name_kept, fields->data_size},
    };
}

static int tell_missed(larder_follower *follower, larder_event *event)
{
    *event = (larder_event){.missed = follower->missed, .number = follower->next - 1};
    follower->missed = 0;
    return LARDER_MISSED;
}

/* The segment that the ring stands in may have been replaced. Everything is another then. */
static int check_segment(larder_follower *follower)
{
    struct transaction *reader;
    struct control *control = follower->control;
    if (__builtin_expect((atomic_load_explicit(&control->generation, memory_order_acquire) &
                          GENERATION_RETIRED) != 0,
                         0)) {
        int result = registry_reader(follower->handle->map, &reader);
        if (result != LARDER_OK) {
            return result;
        }
    }
    control = map_control(follower->handle->map);
    if (__builtin_expect(control != follower->control, 0)) {
        follower->control = control;
        int result = join(follower);
        if (result != LARDER_OK) {
            return result;
        }
        follower->missed++;
    }
    return LARDER_OK;
}

/* OK, MISS or MISSED. */
static int next(larder_follower *follower, larder_event *event)
{
    struct event_ring *ring = &follower->control->events;
    struct event_fields fields;
    int32_t pid;
    for (int looks = 0; looks < SKIPS_MAX; looks++) {
        uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
        if (head < follower->next) {
            if (head + 1 < follower->next) { /* damaged: numbers never go back */
                follower->next = head + 1;
                follower->missed++;
            }
            break;
        }
        if (head - follower->next >= EVENTS_SLOTS) {
            lose(follower, head - follower->next - EVENTS_SLOTS + 1 + AHEAD);
            continue;
        }
        bool prepared;
        switch (events_read(ring, follower->next, &fields, follower->body, &pid, &prepared)) {
        case EVENT_READ_OK:
            if (follower->missed > 0) {
                return tell_missed(follower, event);
            }
            describe(follower, &fields, event);
            follower->next++;
            follower->stuck = 0;
            if (passes(follower, event)) {
                return LARDER_OK;
            }
            break;
        case EVENT_READ_NONE:
            follower->next++;
            follower->stuck = 0;
            break;
        case EVENT_READ_PENDING:
            if (!give_up(follower, pid, prepared)) {
                return follower->missed > 0 ? tell_missed(follower, event) : LARDER_MISS;
            }
            lose(follower, 1);
            break;
        case EVENT_READ_LOST:
        default:
            lose(follower, 1);
            break;
        }
    }
    return follower->missed > 0 ? tell_missed(follower, event) : LARDER_MISS;
}

static int enter(larder_follower *follower, const larder_event *event)
{
    if (follower == NULL || follower->magic != FOLLOWER_MAGIC || event == NULL) {
        return error_set(LARDER_EINVAL, "not a follower, or no place for the event");
    }
    int result = handle_enter(follower->handle);
    if (result == LARDER_OK && follower->pid != getpid()) {
        return error_set(LARDER_EINVAL, "a follower of process %d: a child follows anew",
                         (int)follower->pid);
    }
    return result == LARDER_OK ? check_segment(follower) : result;
}

int larder_next_event(larder_follower *follower, larder_event *event)
{
    int result = enter(follower, event);
    if (result != LARDER_OK) {
        return result;
    }
    *event = (larder_event){0};
    result = next(follower, event);
    struct map *map = follower->handle->map;
    if (result == LARDER_MISS && notify_slot_of(map) >= 0) {
        /* This process waits in an event loop: be woken for what comes, and look again, because it
         * may have come. An unfinished event may be one that nobody will tell of. */
        (void)notify_join(map, &follower->control->events.listeners);
        result = next(follower, event);
        if (result == LARDER_MISS && follower->stuck != 0) {
            notify_watch(map, getpid(), clock_monotonic_ms() + PATIENCE_MS + 1);
        }
    }
    return result;
}

int larder_wait_event(larder_follower *follower, int64_t wait_ms, larder_event *event)
{
    if (wait_ms < 0 || wait_ms > WAIT_MAX_MS) {
        return error_set(LARDER_EINVAL, "wait of %" PRId64 " ms for an event: it is 0 to %d",
                         wait_ms, WAIT_MAX_MS);
    }
    int result = larder_next_event(follower, event);
    if (result != LARDER_MISS || wait_ms == 0) {
        return result;
    }
    int64_t until = clock_monotonic_ms() + wait_ms;
    for (;;) {
        struct event_ring *ring = &follower->control->events;
        uint32_t seen = atomic_load(&ring->bell);
        /* seq_cst: before the look at the ring; pairs with events_ring_bell() */
        atomic_store(&ring->bell_wanted, 1);
        result = larder_next_event(follower, event);
        int64_t left = until - clock_monotonic_ms();
        if (result != LARDER_MISS || left <= 0) {
            return result;
        }
        if (follower->stuck == 0 && atomic_load(&ring->head) >= follower->next) {
            continue; /* many that the filter left out: there are more */
        }
        /* an unfinished event may be one that rings no bell any more */
        int64_t slice = follower->stuck != 0 ? 1 : SLICE_MS;
        events_sleep(ring, seen, left < slice ? left : slice);
    }
}
