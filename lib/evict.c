/* evict.c: making room: the two hands over the log. evict.h says how the queues lie. Called inside
 * a write, by whoever needs room and by the janitor. What nobody can read any more goes first:
 * evict_walk.c.
 */
#include "evict_internal.h"

#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "error.h"
#include "format.h"
#include "lookup.h"

enum {
    LOOKS_LEAST = 256,     /* rows that one eviction looks at before it takes what is next */
    LOOKS_FORCED = 64,     /* of these only tombstones are spared */
    PAGES_PER_STEP = 2048, /* of values in chunks: a step holds the gate */
    BATCH = 512,           /* entries of one step that has to make room */
    GENTLE_LEAST = 1,      /* entries that a write evicts ahead of need, ... */
    GENTLE_SHARE = 8,      /* ... and one more for so many pages too few */
    RECOUNT_EVERY = 16,    /* entries between two counts of pages */
    PAGES_PER_ENTRY = 16,  /* free ones that it takes to evict an entry: see most_at_once() */
    RECENT_FADES = 16,     /* a large write is forgotten by that part with each smaller one */
    SHARE = 7,             /* the first queue is that part of the entries */
    PROMOTE_AT = 2,        /* hits that prove an entry */
    GHOSTS_MORE = 8,       /* ghosts: as many as there are entries, and that part more */
    JUMP_MOST = 2048       /* rows of the first queue after it grew unwatched */
};

/* ---- Room -------------------------------------------------------------------------------------
 */

uint64_t evict_reserve(const struct control_life *life, const struct ledger *ledger)
{
    uint64_t largest = record_chunks(atomic_load(&life->max_value));
    uint64_t recent = ledger != NULL ? ledger->recent_pages : largest;
    return largest + (recent < largest ? recent : largest) + 2 * (uint64_t)WRITER_PATH_PAGES;
}

/* A write comes that takes so many pages: others like it may follow. Most of that is forgotten
 * after some dozen smaller ones. */
static void note_need(struct ledger *ledger, uint64_t need)
{
    uint64_t recent = ledger->recent_pages;
    ledger->recent_pages =
        need >= recent ? need : recent - (recent - need + RECENT_FADES - 1) / RECENT_FADES;
}

bool evict_fits(struct writer *writer, uint64_t need)
{
    struct store *store = writer->transaction.store;
    uint64_t reserve = evict_reserve(store->life, &writer->ledger);
    if (store_has_fresh_pages(store, need + reserve)) {
        return true;
    }
    return store_used_pages(&writer->transaction) + need + reserve <= store->max_pages;
}

/* ---- What the ledger knows ---------------------------------------------------------------------
 */

void evict_count(struct ledger *ledger, const struct record_header *header, int64_t by)
{
    uint64_t step = (uint64_t)by; /* wraps like the counters do */
    if (header->kind != RECORD_DELETED && header->row >= ledger->small_hand) {
        ledger->small += step;
        ledger->returned += (header->flags & RECORD_RETURNED) != 0 ? step : 0;
    }
}

bool evict_returns(struct writer *writer, const struct key *key)
{
    const struct ledger *ledger = &writer->ledger;
    return ledger->ghosts != 0 && ghosts_take(writer->transaction.store, ledger, key->hash,
                                              ledger->values + ledger->values / GHOSTS_MORE);
}

/* Entries that the first queue may have. */
static uint64_t share(const struct ledger *ledger)
{
    return ledger->values >= SHARE ? ledger->values / SHARE : 1;
}

/* Entries that it has to prove. */
static uint64_t waiting(const struct ledger *ledger)
{
    return ledger->small - ledger->returned;
}

/* ---- Popularity --------------------------------------------------------------------------------
 */

/* Hits are counted in two places: those that the tree answered in the popularity bytes, those that
 * the hot set answered beside its copies. */
static struct hotset_key hot_key(const struct key *key)
{
    return (struct hotset_key){.hash = key->hash, .data = key->data, .size = key->size};
}

/* Whether the key was asked for as often as an entry must be to stay; if so its hits are used up.
 */
static bool proved(const struct store *store, const struct key *key)
{
    struct hotset_key hot = hot_key(key);
    unsigned hits = evict_hits(store, key->hash);
    hits += hits < PROMOTE_AT ? hotset_age(&store->hot, &hot) : 0;
    if (hits >= PROMOTE_AT) { /* what was promoted for them must not be spared for them, too */
        evict_forget_hits(store, key->hash);
        for (int i = 0; i < EVICT_POPULARITY_MOST && hotset_age(&store->hot, &hot) > 0; i++) {
        }
    }
    return hits >= PROMOTE_AT;
}

/* Whether the key was asked for; some of that is used up: one of the tree's, else half of the hot
 * set's. */
static bool age(const struct store *store, const struct hotset_key *key)
{
    unsigned count = evict_hits(store, key->hash);
    if (count > 0) { /* a hit that comes in between is lost: it was one of several */
        evict_set_hits(store, key->hash, count - 1);
        return true;
    }
    return hotset_age(&store->hot, key) > 0;
}

/* ---- Removing ----------------------------------------------------------------------------------
 */

int evict_remove(struct writer *writer, const struct key *key, const struct record *record,
                 enum evict_cause cause)
{
    struct stats_slot *stats = map_stats(writer->map);
    uint32_t before = writer->cause;
    int result;
    writer->cause = cause == EVICT_SMALL  ? LARDER_CAUSE_SMALL
                    : cause == EVICT_MAIN ? LARDER_CAUSE_MAIN
                    : cause == EVICT_DEAD ? LARDER_CAUSE_DEAD
                                          : LARDER_CAUSE_NONE;
    result = entry_drop(writer, key, record);
    writer->cause = before;
    if (result != LARDER_OK) {
        return result;
    }
    switch (cause) {
    case EVICT_EXPIRED:
        stats_count(stats, STATS_EXPIRATIONS);
        stats_count(stats, STATS_RECLAIMED_EXPIRED);
        break;
    case EVICT_DEAD: /* entry_drop() has counted it */
        break;
    default:
        stats_count(stats, STATS_EVICTIONS);
        stats_count(stats, cause == EVICT_SMALL ? STATS_EVICTED_SMALL : STATS_EVICTED_MAIN);
    }
    return LARDER_OK;
}

/* ---- The hands ---------------------------------------------------------------------------------
 */

/* Whether a value of ours stands there; rows that nothing names are removed. */
static bool read_row(struct writer *writer, uint64_t row, const larder_bytes *form,
                     struct candidate *candidate)
{
    struct transaction *t = &writer->transaction;
    larder_bytes bytes;
    candidate->memory = NULL;
    int result = store_entry_get(t, form->data, form->size, &bytes);
    if (result != LARDER_OK || !record_decode(bytes.data, bytes.size, &candidate->record) ||
        candidate->record.header.row != row) {
        if (result >= 0) { /* not ours to keep, nor to find again */
            (void)store_log_delete(t, row);
        }
        return false;
    }
    return candidate->record.header.kind != RECORD_DELETED && /* those are the janitor's */
           entry_key(form, &candidate->record, &candidate->key, &candidate->memory) == LARDER_OK;
}

bool evict_useless(struct writer *writer, const struct candidate *candidate,
                   enum evict_cause *cause)
{
    *cause = lookup_death(writer->control, &candidate->record, candidate->key.hash) != 0
                 ? EVICT_DEAD
                 : EVICT_EXPIRED;
    return *cause == EVICT_DEAD || clock_expired(evict_end_of_life(&candidate->record));
}

enum step evict_remove_candidate(struct writer *writer, const struct candidate *candidate,
                                 enum evict_cause cause, uint64_t *pages)
{
    size_t chunks = candidate->record.chunk_count;
    if (evict_remove(writer, &candidate->key, &candidate->record, cause) != LARDER_OK) {
        return STEP_PASSED;
    }
    *pages += 1 + chunks;
    return STEP_GONE;
}

/* The small hand passes one row. */
static enum step step_small(struct writer *writer, bool forced, uint64_t *pages)
{
    struct ledger *ledger = &writer->ledger;
    struct store *store = writer->transaction.store;
    struct candidate candidate;
    uint64_t row;
    larder_bytes form;
    enum step step = STEP_PASSED;
    enum evict_cause cause;
    int result = store_log_next(&writer->transaction, ledger->small_hand, &row, &form);
    if (result == LARDER_MISS) { /* past the newest: nothing is waiting */
        ledger->small_hand = ledger->next_row;
        ledger->small = ledger->returned = 0;
    }
    if (result != LARDER_OK) {
        return STEP_PASSED;
    }
    bool value = read_row(writer, row, &form, &candidate);
    if (value) {
        evict_count(ledger, &candidate.record.header, -1);
    }
    ledger->small_hand = row + 1;
    if (!value) {
        return STEP_PASSED;
    }
    if (evict_useless(writer, &candidate, &cause)) {
        step = evict_remove_candidate(writer, &candidate, cause, pages);
    } else if ((candidate.record.header.flags & RECORD_RETURNED) != 0) {
        /* main since it came */
    } else if (forced || !proved(store, &candidate.key)) {
        step = evict_remove_candidate(writer, &candidate, EVICT_SMALL, pages);
        if (step == STEP_GONE) {
            ghosts_add(store, ledger, candidate.key.hash,
                       ledger->values + ledger->values / GHOSTS_MORE);
        }
    }
    free(candidate.memory);
    return step;
}

/* Whether a row's popularity spares it, seen from the row alone: most are passed without looking at
 * the entry, which would be another descent. Long keys stand in their records. */
static bool spared_at_sight(const struct store *store, const larder_bytes *form)
{
    if (form->size < 2 || form->size >= KEY_FORM_MAX) {
        return false;
    }
    struct hotset_key key = {.data = (const uint8_t *)form->data + 1, .size = form->size - 1};
    key.hash = key_hash(key.data, key.size);
    return age(store, &key);
}

static bool long_is_spared(const struct store *store, const struct key *key)
{
    struct hotset_key hot = hot_key(key);
    return age(store, &hot);
}

/* The main hand passes one row, or turns at the end of its queue. */
static enum step step_main(struct writer *writer, bool forced, uint64_t *pages)
{
    struct ledger *ledger = &writer->ledger;
    struct store *store = writer->transaction.store;
    struct candidate candidate;
    uint64_t row;
    larder_bytes form;
    enum step step = STEP_PASSED;
    enum evict_cause cause;
    int result = store_log_next(&writer->transaction, ledger->hand, &row, &form);
    if (result == LARDER_MISS || (result == LARDER_OK && row >= ledger->small_hand)) {
        ledger->hand = 0;
        return STEP_PASSED;
    }
    if (result != LARDER_OK) {
        return STEP_PASSED;
    }
    ledger->hand = row + 1;
    if ((!forced && spared_at_sight(store, &form)) || !read_row(writer, row, &form, &candidate)) {
        return STEP_PASSED;
    }
    if (evict_useless(writer, &candidate, &cause)) {
        step = evict_remove_candidate(writer, &candidate, cause, pages);
    } else if (forced || !candidate.key.is_long || !long_is_spared(store, &candidate.key)) {
        step = evict_remove_candidate(writer, &candidate, EVICT_MAIN, pages);
    }
    free(candidate.memory);
    return step;
}

/* The first queue grew while nothing had to go: what is beyond its share need not be proved. */
static void jump(struct writer *writer)
{
    struct ledger *ledger = &writer->ledger;
    uint64_t left = share(ledger), row, at = UINT64_MAX;
    left = left < JUMP_MOST ? left : JUMP_MOST;
    struct ledger counted = {.small_hand = 0};
    larder_bytes form, bytes;
    struct record record;
    for (size_t looks = 2 * JUMP_MOST; looks > 0 && waiting(&counted) < left; looks--) {
        if (store_log_previous(&writer->transaction, at, &row, &form) != LARDER_OK ||
            row < ledger->small_hand) {
            return; /* it is shorter than the ledger says: the hand finds out */
        }
        at = row;
        if (store_entry_get(&writer->transaction, form.data, form.size, &bytes) == LARDER_OK &&
            record_decode(bytes.data, bytes.size, &record) && record.header.row == row) {
            evict_count(&counted, &record.header, 1);
        }
    }
    ledger->small_hand = at;
    ledger->small = counted.small;
    ledger->returned = counted.returned;
}

/* Evict one entry. False: none was found within a bounded walk. */
static bool evict_one(struct writer *writer, uint64_t *pages)
{
    const struct ledger *ledger = &writer->ledger;
    if (waiting(ledger) > 2 * share(ledger) + 1) {
        jump(writer);
    }
    for (size_t looks = 0; looks < LOOKS_LEAST + LOOKS_FORCED; looks++) {
        if (writer->transaction.error != LARDER_OK || ledger->values == 0) {
            return false;
        }
        bool forced = looks >= LOOKS_LEAST; /* everybody was asked for: the next one goes */
        bool small = waiting(ledger) > share(ledger) || ledger->small >= ledger->values;
        enum step step =
            small ? step_small(writer, forced, pages) : step_main(writer, forced, pages);
        if (step == STEP_GONE) {
            return true;
        }
    }
    return false;
}

/* ---- For others --------------------------------------------------------------------------------
 */

static void keep_hands(struct writer *writer, const struct ledger *before)
{
    /* so that they move on, even if all they saw was spared */
    const struct ledger *now = &writer->ledger;
    bool moved = now->hand != before->hand || now->small_hand != before->small_hand ||
                 now->walk_earliest_ms != before->walk_earliest_ms ||
                 now->earliest_expiry_ms != before->earliest_expiry_ms ||
                 now->swept_barrier != before->swept_barrier ||
                 now->walk_barrier != before->walk_barrier;
    if (!writer->transaction.changed && moved) {
        (void)store_touch(&writer->transaction);
    }
}

/* Entries that one transaction may evict: it writes up to five pages anew for each, and those that
 * it and the one before it free in exchange are not to be had before the third. More, and the map
 * would be too full to make room in. */
static size_t most_at_once(struct writer *writer)
{
    uint64_t used = store_used_pages(&writer->transaction);
    uint64_t all = writer->transaction.store->max_pages;
    uint64_t most = all > used ? (all - used) / PAGES_PER_ENTRY : 0;
    return most > GENTLE_LEAST ? (size_t)most : GENTLE_LEAST;
}

/* At least max entries or so many pages of values, but no more than it takes. */
static size_t evict_until(struct writer *writer, uint64_t need, size_t max, uint64_t least_pages,
                          size_t recount_every)
{
    struct ledger before = writer->ledger;
    uint64_t pages = 0;
    writer->nothing_left = false;
    size_t gone = evict_reclaim(writer, &pages), most = most_at_once(writer);
    bool fits = gone > 0 && evict_fits(writer, need);
    while (!fits && (gone < max || pages < least_pages) && gone < most && pages < PAGES_PER_STEP) {
        uint64_t had = pages;
        if (!evict_one(writer, &pages)) {
            break;
        }
        gone++;
        fits = (pages - had > 1 || gone % recount_every == 0) && evict_fits(writer, need);
    }
    writer->nothing_left = gone == 0 && writer->ledger.values == 0;
    keep_hands(writer, &before);
    return gone;
}

size_t evict_some(struct writer *writer, uint64_t need, size_t max)
{
    return evict_until(writer, need, max, 0, RECOUNT_EVERY);
}

bool evict_ahead(struct writer *writer, uint64_t need)
{
    const struct store *store = writer->transaction.store;
    bool fits = evict_fits(writer, need);
    uint64_t reserve = evict_reserve(store->life, &writer->ledger);
    note_need(&writer->ledger, need);
    if (fits) {
        return true;
    }
    uint64_t taken = store_used_pages(&writer->transaction) + need + reserve;
    uint64_t over = taken > store->max_pages ? taken - store->max_pages : 0;
    /* What was freed on pages that others share makes room for the next write, but frees no page:
     * whoever waited for one would evict by the dozen, now and then. The reserve holds a path more
     * than is needed at any time, so that each write may do a little instead. */
    if (over <= WRITER_PATH_PAGES + need) {
        uint64_t chunks = need > WRITER_PATH_PAGES / 4 ? need - WRITER_PATH_PAGES / 4 : 0;
        (void)evict_until(writer, need, GENTLE_LEAST + (size_t)over / GENTLE_SHARE, chunks, 1);
        return true;
    }
    (void)evict_until(writer, need, BATCH, 0, RECOUNT_EVERY);
    return evict_fits(writer, need);
}

void evict_excess(struct writer *writer)
{
    uint64_t most =
        atomic_load_explicit(&writer->transaction.store->life->max_entries, memory_order_relaxed);
    uint64_t pages = 0;
    while (most != 0 && writer->ledger.values > most && pages < PAGES_PER_STEP) {
        if (evict_reclaim(writer, &pages) == 0 && !evict_one(writer, &pages)) {
            break;
        }
    }
}
