/* marks.c: the table of invalidated marks. Called by larder_invalidate_group() and _tag() and by
 * every judgement of a marked record; knows nothing of LMDB, takes no gate but its own.
 *
 * Order of stores, which readers rely on: the newest word rises before a slot is told of a clock;
 * the floor rises before a slot is freed; a slot's clock is stored before its tag, and zeroed
 * before its tag is. So whoever does not find a mark, or finds it without a clock, then sees a
 * floor that stands for it.
 */
#include "marks.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "clock.h"
#include "control.h"
#include "monotone.h"

enum { MARKS_WAIT_MS = 20, HISTOGRAM = 256 };

struct place {
    uint64_t tag;
    size_t buckets[2];
};

uint64_t marks_tag(const uint8_t *mark)
{
    uint64_t tag;
    memcpy(&tag, mark, sizeof tag);
    return tag != 0 ? tag : 1;
}

static struct place place_of_tag(uint64_t tag)
{
    struct place place = {.tag = tag};
    place.buckets[0] = (size_t)(tag % MARKS_BUCKETS);
    place.buckets[1] = (size_t)((tag >> 32) % MARKS_BUCKETS);
    if (place.buckets[1] == place.buckets[0]) {
        place.buckets[1] ^= 1;
    }
    return place;
}

static struct place place_of(const uint8_t *mark)
{
    return place_of_tag(marks_tag(mark));
}

int marks_init(struct marks *marks)
{
    return gate_init(&marks->gate);
}

void marks_make(uint8_t *out, enum mark_kind kind, const void *name, size_t size)
{
    XXH128_hash_t hash = XXH3_128bits_withSeed(name, size, (XXH64_hash_t)kind);
    memcpy(out, &hash.low64, sizeof hash.low64);
    memcpy(out + sizeof hash.low64, &hash.high64, sizeof hash.high64);
}

/* ---- Reading ----------------------------------------------------------------------------------
 */

static uint64_t newest_of(const struct marks *marks, const struct place *place)
{
    uint64_t newest = 0;
    for (size_t choice = 0; choice < 2; choice++) {
        const struct marks_bucket *bucket = &marks->buckets[place->buckets[choice]];
        for (size_t way = 0; way < MARKS_WAYS; way++) {
            /* acquire: pairs with the release that set, or freed, the slot */
            if (atomic_load_explicit(&bucket->tags[way], memory_order_acquire) != place->tag) {
                continue;
            }
            uint64_t clock = atomic_load_explicit(&bucket->clocks[way], memory_order_acquire);
            /* freed and taken by another mark meanwhile: then the floor tells */
            if (atomic_load_explicit(&bucket->tags[way], memory_order_acquire) == place->tag &&
                clock > newest) {
                newest = clock;
            }
        }
    }
    return newest;
}

uint64_t marks_death_slow(const struct marks *marks, const struct record *record)
{
    uint64_t newest = 0;
    size_t count = record->header.mark_count;
    count = count < RECORD_MARKS_MAX ? count : RECORD_MARKS_MAX;
    for (size_t i = 0; i < count; i++) {
        struct place place = place_of(record->marks + i * RECORD_MARK_SIZE);
        uint64_t clock = newest_of(marks, &place);
        newest = clock > newest ? clock : newest;
    }
    if (newest >= record->header.clock) {
        return newest;
    }
    /* after the table: a mark that was swept out in between is under the floor by now */
    uint64_t floor = atomic_load_explicit(&marks->floor, memory_order_acquire);
    return floor >= record->header.clock ? floor : 0;
}

/* ---- Raising what is there: no gate -----------------------------------------------------------
 */

static bool raise_slot(struct marks_bucket *bucket, size_t way, uint64_t tag, uint64_t clock)
{
    _Atomic uint64_t *word = &bucket->clocks[way];
    uint64_t now = atomic_load_explicit(word, memory_order_acquire);
    do {
        if (now == 0) {
            return false; /* it is being freed */
        }
    } while (now < clock && !atomic_compare_exchange_weak_explicit(
                                word, &now, clock, memory_order_acq_rel, memory_order_acquire));
    /* Another mark's by now? Then that one's invalidation has become a little newer, and ours is
     * still to be stored. */
    return atomic_load_explicit(&bucket->tags[way], memory_order_acquire) == tag;
}

static bool raise_there(struct marks *marks, const struct place *place, uint64_t clock)
{
    for (size_t choice = 0; choice < 2; choice++) {
        struct marks_bucket *bucket = &marks->buckets[place->buckets[choice]];
        for (size_t way = 0; way < MARKS_WAYS; way++) {
            if (atomic_load_explicit(&bucket->tags[way], memory_order_acquire) == place->tag &&
                raise_slot(bucket, way, place->tag, clock)) {
                return true;
            }
        }
    }
    return false;
}

/* ---- What Redis has not been told --------------------------------------------------------------
 */

/* Take the slot's bit away; whether it was set. */
static bool take_bit(struct marks *marks, const struct marks_bucket *bucket, size_t way)
{
    _Atomic uint8_t *bits = &marks->untold[bucket - marks->buckets];
    if ((atomic_load(bits) >> way & 1) == 0) {
        return false;
    }
    return (atomic_fetch_and(bits, (uint8_t) ~(1u << way)) >> way & 1) != 0;
}

static void set_bit(struct marks *marks, const struct marks_bucket *bucket, size_t way)
{
    (void)atomic_fetch_or(&marks->untold[bucket - marks->buckets], (uint8_t)(1u << way));
}

static struct marks_bucket *find(struct marks *marks, const struct place *place, size_t *way)
{
    for (size_t i = 0; i < (size_t)2 * MARKS_WAYS; i++) {
        struct marks_bucket *bucket = &marks->buckets[place->buckets[i / MARKS_WAYS]];
        if (atomic_load(&bucket->tags[i % MARKS_WAYS]) == place->tag) {
            *way = i % MARKS_WAYS;
            return bucket;
        }
    }
    return NULL;
}

void marks_to_tell(struct control *control, const uint8_t *mark, uint64_t clock, bool exact)
{
    struct marks *marks = &control->marks;
    struct place place = place_of(mark);
    size_t way;
    struct marks_bucket *bucket = exact ? find(marks, &place, &way) : NULL;
    if (bucket != NULL) {
        set_bit(marks, bucket, way);
        /* freed meanwhile, by one who did not see the bit? Then the floor stands for it. */
        if (atomic_load(&bucket->tags[way]) != place.tag) {
            bucket = NULL;
        }
    }
    if (bucket == NULL) {
        monotone_raise(&marks->floor_untold, clock);
    }
    control_news(control);
}

bool marks_next(struct control *control, bool all, size_t *index, uint64_t *tag, uint64_t *clock)
{
    struct marks *marks = &control->marks;
    for (size_t i = *index; i < MARKS_SLOTS; i++) {
        const struct marks_bucket *bucket = &marks->buckets[i / MARKS_WAYS];
        size_t way = i % MARKS_WAYS;
        uint8_t bits = atomic_load(&marks->untold[i / MARKS_WAYS]);
        if (!all && bits >> way == 0) {
            i += MARKS_WAYS - 1 - way; /* none in the rest of this bucket */
            continue;
        }
        if (!all && (bits >> way & 1) == 0) {
            continue;
        }
        *tag = atomic_load(&bucket->tags[way]);
        *clock = atomic_load(&bucket->clocks[way]);
        if (*tag != 0 && *clock != 0 && atomic_load(&bucket->tags[way]) == *tag) {
            *index = i + 1;
            return true;
        }
    }
    *index = MARKS_SLOTS;
    return false;
}

void marks_told(struct control *control, uint64_t tag, uint64_t clock)
{
    struct marks *marks = &control->marks;
    struct place place = place_of_tag(tag);
    size_t way;
    struct marks_bucket *bucket = find(marks, &place, &way);
    if (bucket == NULL || !take_bit(marks, bucket, way)) {
        return;
    }
    /* Invalidated again since it was read, or another mark's slot by now: whoever did that may have
     * set the bit that was just taken. */
    if (atomic_load(&bucket->clocks[way]) != clock || atomic_load(&bucket->tags[way]) != tag) {
        set_bit(marks, bucket, way);
    }
}

/* ---- Taking and freeing slots: inside the gate -------------------------------------------------
 */

/* Free the slot if its clock is at or below the floor, which has risen before. */
static bool free_slot(struct marks *marks, struct marks_bucket *bucket, size_t way)
{
    uint64_t floor = atomic_load_explicit(&marks->floor, memory_order_relaxed);
    uint64_t clock = atomic_load_explicit(&bucket->clocks[way], memory_order_relaxed);
    while (clock <= floor) {
        if (atomic_compare_exchange_weak_explicit(&bucket->clocks[way], &clock, 0,
                                                  memory_order_acq_rel, memory_order_relaxed)) {
            /* seq_cst: before the look at the bit; pairs with marks_to_tell(), which sets the bit
             * and then looks at the tag */
            atomic_store(&bucket->tags[way], 0);
            if (take_bit(marks, bucket, way)) {
                monotone_raise(&marks->floor_untold, clock);
            }
            atomic_store_explicit(&marks->used, marks_count(marks) - 1, memory_order_relaxed);
            return true;
        }
    }
    return false; /* it was raised meanwhile: its mark was invalidated again */
}

/* The clock under which all but the newest MARKS_EXACT marks are: a radix selection over the
 * clocks, which needs no memory. */
static uint64_t oldest_but_exact(struct marks *marks)
{
    uint64_t low = UINT64_MAX, high = 0;
    for (size_t i = 0; i < MARKS_SLOTS; i++) {
        uint64_t clock = atomic_load_explicit(
            &marks->buckets[i / MARKS_WAYS].clocks[i % MARKS_WAYS], memory_order_relaxed);
        if (atomic_load_explicit(&marks->buckets[i / MARKS_WAYS].tags[i % MARKS_WAYS],
                                 memory_order_relaxed) != 0 &&
            clock != 0) {
            low = clock < low ? clock : low;
            high = clock > high ? clock : high;
        }
    }
    while (low < high) {
        uint32_t histogram[HISTOGRAM] = {0};
        uint64_t width = (high - low) / HISTOGRAM + 1;
        uint64_t above = 0;
        for (size_t i = 0; i < MARKS_SLOTS; i++) {
            const struct marks_bucket *bucket = &marks->buckets[i / MARKS_WAYS];
            uint64_t clock =
                atomic_load_explicit(&bucket->clocks[i % MARKS_WAYS], memory_order_relaxed);
            if (atomic_load_explicit(&bucket->tags[i % MARKS_WAYS], memory_order_relaxed) == 0) {
                continue;
            }
            if (clock > high) {
                above++;
            } else if (clock >= low) {
                histogram[(clock - low) / width]++;
            }
        }
        size_t i = HISTOGRAM;
        while (i > 0 && above + histogram[i - 1] <= MARKS_EXACT) {
            above += histogram[--i];
        }
        if (i == 0) {
            return low - 1; /* no more than that altogether */
        }
        low += (i - 1) * width;
        high = width - 1 < high - low ? low + width - 1 : high;
    }
    return low;
}

static void free_below_floor(struct marks *marks)
{
    for (size_t i = 0; i < MARKS_SLOTS; i++) {
        struct marks_bucket *bucket = &marks->buckets[i / MARKS_WAYS];
        if (atomic_load_explicit(&bucket->tags[i % MARKS_WAYS], memory_order_relaxed) != 0) {
            (void)free_slot(marks, bucket, i % MARKS_WAYS);
        }
    }
}

/* What a holder that died inside can have left: a slot without a clock, a wrong count. */
static void repair(struct marks *marks)
{
    uint64_t used = 0;
    for (size_t i = 0; i < MARKS_SLOTS; i++) {
        struct marks_bucket *bucket = &marks->buckets[i / MARKS_WAYS];
        _Atomic uint64_t *tag = &bucket->tags[i % MARKS_WAYS];
        if (atomic_load_explicit(tag, memory_order_relaxed) != 0 &&
            atomic_load_explicit(&bucket->clocks[i % MARKS_WAYS], memory_order_relaxed) != 0) {
            used++;
            continue;
        }
        atomic_store(tag, 0);
        if (take_bit(marks, bucket, i % MARKS_WAYS)) { /* it was being freed, untold */
            monotone_raise(&marks->floor_untold, atomic_load(&marks->floor));
        }
    }
    atomic_store_explicit(&marks->used, used, memory_order_relaxed);
}

static bool take_free(struct marks *marks, const struct place *place, uint64_t clock)
{
    struct marks_bucket *best = NULL;
    size_t best_way = 0, best_free = 0;
    for (size_t choice = 0; choice < 2; choice++) {
        struct marks_bucket *bucket = &marks->buckets[place->buckets[choice]];
        size_t free_ways = 0, first = 0;
        for (size_t way = MARKS_WAYS; way-- > 0;) {
            if (atomic_load_explicit(&bucket->tags[way], memory_order_relaxed) == 0) {
                free_ways++;
                first = way;
            }
        }
        if (free_ways > best_free) {
            best = bucket;
            best_way = first;
            best_free = free_ways;
        }
    }
    if (best == NULL) {
        return false;
    }
    /* release: whoever sees this clock through an old tag also sees that the tag is gone */
    atomic_store_explicit(&best->clocks[best_way], clock, memory_order_release);
    atomic_store_explicit(&best->tags[best_way], place->tag, memory_order_release);
    atomic_store_explicit(&marks->used, marks_count(marks) + 1, memory_order_relaxed);
    return true;
}

/* Both buckets are full of marks that are among the newest: the oldest of them goes to the floor.
 */
static void drop_oldest_here(struct marks *marks, const struct place *place)
{
    struct marks_bucket *oldest = NULL;
    size_t oldest_way = 0;
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < (size_t)2 * MARKS_WAYS; i++) {
        struct marks_bucket *bucket = &marks->buckets[place->buckets[i / MARKS_WAYS]];
        uint64_t clock =
            atomic_load_explicit(&bucket->clocks[i % MARKS_WAYS], memory_order_relaxed);
        if (clock < least) {
            least = clock;
            oldest = bucket;
            oldest_way = i % MARKS_WAYS;
        }
    }
    if (oldest != NULL) {
        monotone_raise(&marks->floor, least);
        (void)free_slot(marks, oldest, oldest_way);
    }
}

static bool insert(struct marks *marks, const struct place *place, uint64_t clock)
{
    if (marks_count(marks) < MARKS_SWEEP_AT && take_free(marks, place, clock)) {
        return true;
    }
    if (marks_count(marks) > MARKS_EXACT) {
        monotone_raise(&marks->floor, oldest_but_exact(marks));
        free_below_floor(marks);
        if (take_free(marks, place, clock)) {
            return true;
        }
    }
    drop_oldest_here(marks, place);
    return take_free(marks, place, clock);
}

/* Store the clock for the mark: in its slot, or in a new one. */
static bool store(struct marks *marks, const struct place *place, uint64_t clock, int64_t wait_ms)
{
    if (raise_there(marks, place, clock)) {
        return true;
    }
    enum gate_result entered = gate_enter(&marks->gate, wait_ms);
    if (entered < 0) {
        return false;
    }
    if (entered == GATE_RECOVERED || marks_count(marks) > MARKS_SLOTS) {
        repair(marks);
    }
    bool stored = raise_there(marks, place, clock) || insert(marks, place, clock);
    gate_leave(&marks->gate);
    return stored;
}

bool marks_invalidate(struct control *control, const uint8_t *mark, larder_version *version)
{
    struct marks *marks = &control->marks;
    struct place place = place_of(mark);
    /* In two steps. The first makes the mark known; a writer that did not see it before it wrote an
     * old value again had drawn its version before, so that the second is newer. */
    uint64_t clock = clock_next(control).clock;
    monotone_raise(&marks->newest, clock);
    bool exact = store(marks, &place, clock, MARKS_WAIT_MS);
    if (!exact) {
        monotone_raise(&marks->floor, clock);
    }
    atomic_thread_fence(memory_order_release); /* pairs with marks_fence() */
    *version = clock_next(control);
    clock = version->clock;
    monotone_raise(&marks->newest, clock);
    exact = exact && store(marks, &place, clock, MARKS_WAIT_MS);
    if (!exact) {
        monotone_raise(&marks->floor, clock);
    }
    return exact;
}

bool marks_merge(struct control *control, uint64_t tag, uint64_t clock)
{
    struct marks *marks = &control->marks;
    struct place place = place_of_tag(tag);
    if (clock <= atomic_load(&marks->floor)) {
        return true; /* that stands for it */
    }
    monotone_raise(&marks->newest, clock);
    return store(marks, &place, clock, MARKS_WAIT_MS);
}

void marks_merge_floor(struct control *control, uint64_t clock)
{
    monotone_raise(&control->marks.newest, clock);
    monotone_raise(&control->marks.floor, clock);
}
