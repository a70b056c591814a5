/* evict_walk.c: the walk over the entries for what nobody can read any more, ahead of what lives: a
 * step with each write that needs room, and by the janitor.
 */
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "evict_internal.h"
#include "format.h"
#include "lookup.h"

enum { WALK_ENTRIES = 64 /* looked at by one step */, WALK_REMOVALS = 16 };

struct walk {
    struct control *control;
    int64_t earliest_ms; /* of those that are left */
    size_t found;
    struct walk_found {
        size_t size;
        uint8_t form[KEY_FORM_MAX];
    } dead[WALK_REMOVALS];
    size_t last_size; /* where it ended */
    uint8_t last[KEY_FORM_MAX];
};

static bool visit(void *context, const larder_bytes *form, const larder_bytes *bytes)
{
    struct walk *walk = context;
    struct record record;
    if (form->size < 2 || form->size > KEY_FORM_MAX) {
        return false;
    }
    memcpy(walk->last, form->data, form->size);
    walk->last_size = form->size;
    if (!record_decode(bytes->data, bytes->size, &record) || record.header.kind == RECORD_DELETED) {
        return true;
    }
    int64_t end_ms = evict_end_of_life(&record);
    bool dead = clock_expired(end_ms) || lookup_death_of_form(walk->control, form, &record) != 0;
    if (dead) {
        struct walk_found *found = &walk->dead[walk->found++];
        memcpy(found->form, form->data, form->size);
        found->size = form->size;
        return walk->found < WALK_REMOVALS;
    }
    walk->earliest_ms = end_ms < walk->earliest_ms ? end_ms : walk->earliest_ms;
    return true;
}

/* Where the last walk ended; what it says is checked, because a process may have died writing it.
 */
static size_t walk_position(struct control *control, uint8_t form[KEY_FORM_MAX])
{
    size_t size = atomic_load_explicit(&control->evict_walk.size, memory_order_relaxed);
    if (size < 2 || size > KEY_FORM_MAX || control->evict_walk.form[0] != KEY_TAG) {
        form[0] = KEY_TAG;
        return 0;
    }
    memcpy(form, control->evict_walk.form, size);
    return size;
}

static void keep_position(struct control *control, const struct walk *walk)
{
    atomic_store_explicit(&control->evict_walk.size, 0, memory_order_relaxed);
    memcpy(control->evict_walk.form, walk->last, walk->last_size);
    atomic_store_explicit(&control->evict_walk.size, (uint32_t)walk->last_size,
                          memory_order_release);
}

static size_t remove_found(struct writer *writer, const struct walk *walk, uint64_t *pages)
{
    struct transaction *t = &writer->transaction;
    struct candidate candidate;
    enum evict_cause cause;
    larder_bytes bytes;
    size_t gone = 0;
    for (size_t i = 0; i < walk->found && t->error == LARDER_OK; i++) {
        larder_bytes form = {walk->dead[i].form, walk->dead[i].size};
        candidate.memory = NULL;
        if (store_entry_get(t, form.data, form.size, &bytes) == LARDER_OK &&
            record_decode(bytes.data, bytes.size, &candidate.record) &&
            entry_key(&form, &candidate.record, &candidate.key, &candidate.memory) == LARDER_OK &&
            evict_useless(writer, &candidate, &cause) &&
            evict_remove_candidate(writer, &candidate, cause, pages) == STEP_GONE) {
            gone++;
        }
        free(candidate.memory);
    }
    return gone;
}

/* Of a bucket, of everything, or of any group or tag. */
static uint64_t newest_invalidation(struct control *control)
{
    uint64_t barrier = atomic_load_explicit(&control->barrier_max, memory_order_acquire);
    uint64_t mark = atomic_load_explicit(&control->marks.newest, memory_order_acquire);
    return barrier > mark ? barrier : mark;
}

size_t evict_reclaim(struct writer *writer, uint64_t *pages)
{
    struct ledger *ledger = &writer->ledger;
    uint64_t barrier = newest_invalidation(writer->control);
    if (!clock_expired(ledger->earliest_expiry_ms) && barrier <= ledger->swept_barrier) {
        return 0;
    }
    struct walk walk;
    uint8_t from[KEY_FORM_MAX];
    size_t size = walk_position(writer->control, from);
    if (size == 0) { /* a new one */
        ledger->walk_earliest_ms = CLOCK_NEVER;
        ledger->walk_barrier = barrier;
    }
    walk.control = writer->control;
    walk.earliest_ms = ledger->walk_earliest_ms;
    walk.found = walk.last_size = 0;
    int result = store_entry_walk(&writer->transaction, from, size == 0 ? 1 : size, size != 0,
                                  WALK_ENTRIES, visit, &walk);
    if (result < 0) {
        return 0;
    }
    ledger->walk_earliest_ms = walk.earliest_ms;
    if (result == LARDER_MISS) { /* it is through */
        ledger->earliest_expiry_ms = ledger->walk_earliest_ms;
        ledger->swept_barrier = ledger->walk_barrier;
        walk.last_size = 0;
    }
    keep_position(writer->control, &walk);
    return remove_found(writer, &walk, pages);
}
