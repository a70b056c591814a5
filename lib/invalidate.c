/* invalidate.c: what kills many entries at once: a group, a tag, a prefix, a pattern, all. None of
 * it is ever refused: where it cannot be exact it is wider. Marks and the clear are words in the
 * control segment; prefix and pattern delete key by key, in short transactions that let others in.
 */
#include "invalidate.h"

#include <stdlib.h>

#include "clock.h"
#include "follow.h"
#include "handle.h"
#include "lookup.h"
#include "marks.h"
#include "pattern.h"
#include "policy.h"
#include "removal.h"
#include "scan.h"
#include "sweeps.h"
#include "wake.h"
#include "writer.h"

enum { LOOK_KEYS = 1024, BATCH_KEYS = 64 };

static void count_wider(const struct larder *handle)
{
    stats_count(map_stats(handle->map), STATS_PENDING_OVERFLOWS);
}

static larder_version clear(struct control *control)
{
    /* In two steps, for the reason that marks_invalidate() gives. */
    removal_clear(control, clock_next(control).clock);
    atomic_thread_fence(memory_order_release); /* pairs with marks_fence() */
    larder_version version = clock_next(control);
    removal_clear(control, version.clock);
    return version;
}

void invalidate_later(const struct larder *handle, const struct key *key)
{
    struct control *control = map_control(handle->map);
    larder_version version;
    if (removal_pend_now(control, key, &version)) {
        count_wider(handle);
    }
    wake_daemon(handle->map);
    follow_tell_invalidation(handle->map, LARDER_CAUSE_KEY, (larder_bytes){key->data, key->size},
                             version);
}

/* ---- Groups and tags --------------------------------------------------------------------------
 */

/* Live entries that carry the mark; as many as could be seen. */
static uint64_t count_marked(larder *handle, const uint8_t *mark)
{
    larder_cursor cursor = {0};
    struct scan_filter filter = {.mark = mark};
    uint64_t count = 0;
    size_t found = 0;
    while (scan_run(handle, &cursor, &filter, NULL, SIZE_MAX, SCAN_COUNT, &found, NULL) ==
               LARDER_OK &&
           found > 0) {
        count += found;
    }
    return count;
}

/* An invalidation draws its version outside the write gate, where nothing keeps writers from going
 * on. Still no entry survives that was written before the call began, nor one that was made again
 * of such an entry (touch, incr, cas, a session's update, a fill):
 *
 * - Versions come from one word that only atomic steps change. A write that had returned before the
 *   call began has drawn its own before, so the invalidation's is newer, and kills it, whether or
 *   not the writer's process has been stopped since.
 * - A writer inside the gate has drawn its version before or after the invalidation's second one.
 *   If before, it is dead on arrival, however late it commits: an entry is judged by its version
 *   when it is read, not when it is written. So is a write that waits to be carried out by another
 *   process, whose version was drawn when it was posted.
 * - If after, it is a write of the same time as the call, and newer: its value is its caller's own.
 *   Where it is not, because it was made of what stood there, the writer has asked whether that was
 *   alive *after* drawing its version (marks_fence()): the first step had made the mark known
 *   before the second version was drawn, so the old entry was dead to it, and the write came to
 *   nothing. A fill keeps the version of its lease, from before it asked its origin.
 * - Clocks that are set back do not matter: the word never goes back, but where it had run ahead of
 *   Redis's by a fault; then it stays above all that this host has seen (clock_lower()).
 *
 * A reader can see a newer write of the same time and, for a moment, still an older entry of the
 * mark that was written in the midst of the call; once the call has returned, none. The same holds
 * of larder_clear(), of a delete that is remembered (removal_pend_now()), and of a prefix or
 * pattern whose keys are deleted inside the gate. unit/test_invalidate, multi/marks and
 * multi/sessions attack it. */
static int invalidate_mark(larder *handle, enum mark_kind kind, larder_bytes name, uint64_t *count)
{
    bool group = kind == MARK_GROUP;
    larder_version version;
    uint8_t mark[RECORD_MARK_SIZE];
    int result = handle_enter_write(handle);
    if (result == LARDER_OK) {
        result = policy_check_name(group ? "group" : "tag", name);
    }
    if (result != LARDER_OK) {
        return result;
    }
    marks_make(mark, kind, name.data, name.size);
    if (count != NULL) {
        *count = count_marked(handle, mark);
    }
    struct control *control = map_control(handle->map);
    bool exact = marks_invalidate(control, mark, &version);
    if (!exact) {
        count_wider(handle);
    }
    if ((handle->flags & LARDER_LOCAL) == 0) {
        marks_to_tell(control, mark, version.clock, exact);
        wake_daemon(handle->map);
    }
    stats_count(map_stats(handle->map),
                group ? STATS_INVALIDATIONS_GROUP : STATS_INVALIDATIONS_TAG);
    follow_tell_invalidation(handle->map, group ? LARDER_CAUSE_GROUP : LARDER_CAUSE_TAG, name,
                             version);
    return LARDER_OK;
}

int larder_invalidate_group(larder *handle, larder_bytes name, uint64_t *count)
{
    return invalidate_mark(handle, MARK_GROUP, name, count);
}

int larder_invalidate_tag(larder *handle, larder_bytes name, uint64_t *count)
{
    return invalidate_mark(handle, MARK_TAG, name, count);
}

int larder_clear(larder *handle)
{
    int result = handle_enter_write(handle);
    if (result == LARDER_OK) {
        larder_version version = clear(map_control(handle->map));
        wake_daemon(handle->map);
        stats_count(map_stats(handle->map), STATS_INVALIDATIONS_CLEAR);
        follow_tell_invalidation(handle->map, LARDER_CAUSE_CLEAR, (larder_bytes){"", 0}, version);
    }
    return result;
}

/* ---- Prefix and pattern -----------------------------------------------------------------------
 */

struct batch {
    const larder_item *items;
    size_t count;
    uint64_t died;
};

/* Whatever stands there now goes, at a version of now: what was written since the walk saw the key
 * may have been made of what was there before (incr, touch). */
static int delete_batch(struct writer *writer, void *context)
{
    struct batch *batch = context;
    batch->died = 0;
    for (size_t i = 0; i < batch->count; i++) {
        struct key key;
        struct record old;
        int result = key_make(&key, batch->items[i].key, batch->items[i].key_size);
        if (result == LARDER_OK) {
            result = entry_find(&writer->transaction, &key, &old);
        }
        if (result == LARDER_OK && old.header.kind != RECORD_DELETED) {
            batch->died += lookup_alive(writer->control, &old, key.hash);
            result = entry_delete(writer, &key, &old, clock_next(writer->control));
        }
        if (result < 0) {
            return result;
        }
    }
    return LARDER_OK;
}

/* The gate was busy, or there was no room for tombstones: shared memory remembers the keys until
 * the next writer deletes them. */
static void remember_batch(const struct larder *handle, struct batch *batch)
{
    batch->died = 0;
    for (size_t i = 0; i < batch->count; i++) {
        struct key key;
        if (key_make(&key, batch->items[i].key, batch->items[i].key_size) == LARDER_OK) {
            batch->died += batch->items[i].outcome != LARDER_STALE;
            invalidate_later(handle, &key);
        }
    }
}

/* Delete what a walk has found. The first refusal is waited for like any write's, later ones of the
 * same call are not. */
static uint64_t delete_all(struct larder *hasty, const larder_item *items, size_t count)
{
    uint64_t died = 0;
    for (size_t first = 0; first < count; first += BATCH_KEYS) {
        size_t left = count - first;
        struct batch batch = {.items = items + first,
                              .count = left < BATCH_KEYS ? left : BATCH_KEYS};
        if (writer_run(hasty, 0, delete_batch, &batch) != LARDER_OK) {
            hasty->write_wait_ms = 0;
            remember_batch(hasty, &batch);
        }
        died += batch.died;
    }
    return died;
}

/* Whoever is inside the gate may be storing a fill that looked at the floor before it rose: wait
 * until it has left, so that the walk sees what it stored. */
static void pass_gate(const struct larder *handle)
{
    struct writer writer;
    if (writer_begin(&writer, handle, handle->write_wait_ms) == LARDER_OK) {
        (void)writer_commit(&writer);
    }
}

/* Other hosts hold other keys: they are told what was meant, and so is this host's larderd, in case
 * this process does not live to see the end of its walk. */
static void announce(const struct larder *handle, struct sweep *sweep, uint32_t cause,
                     larder_bytes name)
{
    struct control *control = map_control(handle->map);
    if ((handle->flags & LARDER_LOCAL) != 0) {
        return;
    }
    enum sweep_kind kind = cause == LARDER_CAUSE_PREFIX ? SWEEP_PREFIX : SWEEP_GLOB;
    if (!sweeps_name(sweep, kind, name) || !sweeps_add(control, sweep)) {
        clear(control);
        count_wider(handle);
    }
    wake_daemon(handle->map);
}

static int invalidate_keys(larder *handle, const struct scan_filter *filter, uint32_t cause,
                           larder_bytes name, uint64_t *count)
{
    struct larder hasty = *handle;
    larder_cursor cursor = {0};
    struct control *control = map_control(handle->map);
    uint64_t died = 0;
    size_t found = 0;
    int result = LARDER_ENOMEM;
    struct sweep sweep = {.clock = clock_next(control).clock};
    removal_raise_fill_floor(control, sweep.clock);
    announce(handle, &sweep, cause, name);
    pass_gate(handle);
    larder_item *items = malloc(LOOK_KEYS * sizeof *items);
    if (items != NULL) {
        do {
            void *memory = NULL;
            result = scan_run(handle, &cursor, filter, items, LOOK_KEYS, LARDER_SCAN_KEYS, &found,
                              &memory);
            if (result == LARDER_OK) {
                died += delete_all(&hasty, items, found);
                larder_free(memory);
            }
        } while (result == LARDER_OK && found > 0);
    }
    free(items);
    if (result != LARDER_OK && result != LARDER_ENAMESPACE) {
        clear(control); /* which keys are meant cannot be seen: then all of them */
        count_wider(handle);
        wake_daemon(handle->map);
        result = LARDER_OK;
    }
    if (result == LARDER_OK && sweep.size != 0) {
        sweeps_done(control, &sweep, SWEEP_SWEPT);
    }
    stats_count(map_stats(handle->map), cause == LARDER_CAUSE_PREFIX ? STATS_INVALIDATIONS_PREFIX
                                                                     : STATS_INVALIDATIONS_MATCH);
    follow_tell_invalidation(handle->map, cause, name, clock_next(control));
    if (count != NULL) {
        *count = died;
    }
    return result;
}

int invalidate_check_prefix(larder_bytes prefix)
{
    if (prefix.data == NULL || prefix.size == 0) {
        return error_set(LARDER_EINVAL, "a prefix of 0 bytes: all keys are larder_clear()'s");
    }
    if (prefix.size > LARDER_KEY_MAX) {
        return error_set(LARDER_ETOOBIG, "prefix of %zu bytes: the limit is %u", prefix.size,
                         LARDER_KEY_MAX);
    }
    return LARDER_OK;
}

int invalidate_check_match(larder_bytes glob)
{
    uint8_t literal[LARDER_GLOB_MAX];
    int result = pattern_check(glob);
    if (result == LARDER_OK && glob.size > SWEEPS_NAME_MAX &&
        pattern_literal_prefix(glob, literal) == 0) {
        return error_set(
            LARDER_ETOOBIG,
            "a pattern of %zu bytes: one that begins with a wildcard has at most %d, or "
            "the fleet would have to be told of it as of everything",
            glob.size, SWEEPS_NAME_MAX);
    }
    return result;
}

int larder_invalidate_prefix(larder *handle, larder_bytes prefix, uint64_t *count)
{
    int result = handle_enter_write(handle);
    if (result == LARDER_OK) {
        result = invalidate_check_prefix(prefix);
    }
    if (result != LARDER_OK) {
        return result;
    }
    struct scan_filter filter = {.prefix = prefix, .past = true};
    return invalidate_keys(handle, &filter, LARDER_CAUSE_PREFIX, prefix, count);
}

int larder_invalidate_match(larder *handle, larder_bytes glob, uint64_t *count)
{
    uint8_t literal[LARDER_GLOB_MAX];
    int result = handle_enter_write(handle);
    if (result == LARDER_OK) {
        result = invalidate_check_match(glob);
    }
    if (result != LARDER_OK) {
        return result;
    }
    size_t literal_size = pattern_literal_prefix(glob, literal);
    struct scan_filter filter = {.prefix = {literal, literal_size}, .glob = &glob, .past = true};
    return invalidate_keys(handle, &filter, LARDER_CAUSE_MATCH, glob, count);
}
