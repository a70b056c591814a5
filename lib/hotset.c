/* hotset.c: pages of copies, their locks, and who makes way for whom.
 *
 * A page's lock is a sequence lock whose holder is known. Readers never wait: a held page is a
 * miss. Who puts a copy in takes the lock at once or not at all. Who must have it (a writer that
 * takes a copy out) spins for microseconds; then the holder is dead, and the page is emptied and
 * taken over, or stopped, and the page is *retired*: nobody reads or fills it until the holder,
 * which might still scribble on it, has woken up, found that its unlock fails, and emptied it
 * itself.
 */
#include "hotset.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "larder.h"

enum {
    SPINS = 256,      /* some microseconds: many times what a fill takes */
    CHECK_DEAD = 1024 /* of so many fills that find a page held, one asks whether by a dead one */
};

#define RETIRED UINT64_C(1)
#define HOLDER(word) ((uint32_t)(word))
#define ALL_FREE (UINT64_MAX << HOTSET_HEAD_LINES)
#define WAY_LINE UINT16_C(63)
#define ALL_WAYS ((UINT32_C(1) << HOTSET_WAYS) - 1)
#define ALWAYS_INLINE inline __attribute__((always_inline))

/* ---- The lock ---------------------------------------------------------------------------------
 */

static void relax(void)
{
#ifdef __SSE2__
    _mm_pause();
#endif
}

/* Nothing in it. A fresh file's page of zeros has no free lines: the first to put a copy in, which
 * finds the sequence at zero, empties it too. */
static void empty(struct hotset_page *page)
{
    memset(page->ways, 0, sizeof page->ways);
    page->hand = 0;
    atomic_store_explicit(&page->free, ALL_FREE, memory_order_relaxed);
}

static uint64_t held_by(const struct hotset *hot, uint64_t free_word)
{
    return free_word | (uint64_t)(uint32_t)hot->pid << 1;
}

static uint64_t after(uint64_t word)
{
    return ((word >> 32) + 1) << 32;
}

/* Take a free page. On success *word is what it was. */
static bool try_lock(const struct hotset *hot, struct hotset_page *page, uint64_t *word)
{
    *word = atomic_load_explicit(&page->lock, memory_order_relaxed);
    /* seq_cst: a writer's `newest` before its look at the lock, our lock before our look at
     * `newest`: one of the two sees the other. */
    if (HOLDER(*word) != 0 ||
        !atomic_compare_exchange_strong(&page->lock, word, held_by(hot, *word))) {
        return false;
    }
    /* what is written from here on comes after the lock for every reader; pairs with the acquire
     * fence in hotset_find() */
    atomic_thread_fence(memory_order_release);
    if (*word == 0) {
        empty(page);
    }
    return true;
}

static void unlock(const struct hotset *hot, struct hotset_page *page, uint64_t word)
{
    uint64_t held = held_by(hot, word);
    if (atomic_compare_exchange_strong_explicit(&page->lock, &held, after(word),
                                                memory_order_release, memory_order_relaxed)) {
        return;
    }
    /* We were stopped, and the page was retired: what we have just written may be old by now. */
    empty(page);
    held = held_by(hot, word) | RETIRED;
    (void)atomic_compare_exchange_strong_explicit(&page->lock, &held, after(word),
                                                  memory_order_release, memory_order_relaxed);
}

/* Take a page over from a holder that is dead; it is emptied. word is what its lock shows. */
static bool take_over(const struct hotset *hot, struct hotset_page *page, uint64_t *word)
{
    pid_t holder = (pid_t)(HOLDER(*word) >> 1);
    if (holder > 0 && holder != hot->pid && (kill(holder, 0) == 0 || errno != ESRCH)) {
        return false;
    }
    if (holder == hot->pid) {
        return false; /* another thread of ours, or the code below this signal handler */
    }
    uint64_t free_word = after(*word);
    if (!atomic_compare_exchange_strong(&page->lock, word, held_by(hot, free_word))) {
        return false;
    }
    atomic_thread_fence(memory_order_release);
    empty(page);
    *word = free_word;
    return true;
}

/* The lock, for one who must have it. False: the page is retired, nobody reads it. */
static bool lock(const struct hotset *hot, struct hotset_page *page, uint64_t *word)
{
    for (int round = 0; round < 2; round++) {
        for (int spins = 0; spins < SPINS; spins++) {
            if (try_lock(hot, page, word)) {
                return true;
            }
            if ((*word & RETIRED) != 0) {
                break;
            }
            relax();
        }
        if (HOLDER(*word) == 0) {
            continue;
        }
        uint64_t seen = *word;
        if (take_over(hot, page, word)) {
            return true;
        }
        if ((seen & RETIRED) != 0 ||
            atomic_compare_exchange_strong(&page->lock, &seen, seen | RETIRED)) {
            return false;
        }
        *word = seen; /* it was let go in this very moment */
    }
    /* Others take it again and again: close it to everybody. */
    for (uint64_t seen = atomic_load(&page->lock);;) {
        if (HOLDER(seen) == 0) {
            if (try_lock(hot, page, word)) {
                return true;
            }
            seen = atomic_load(&page->lock);
        } else if ((seen & RETIRED) != 0 ||
                   atomic_compare_exchange_strong(&page->lock, &seen, seen | RETIRED)) {
            return false;
        }
    }
}

/* ---- Places -----------------------------------------------------------------------------------
 */

/* The bits of a hash that a way keeps; none of those that chose the page. Never 0, as in an empty
 * way. */
static ALWAYS_INLINE uint16_t tag_of(uint64_t hash)
{
    uint16_t tag = (uint16_t)((uint16_t)hash & ~WAY_LINE);
    return tag == 0 ? WAY_LINE + 1 : tag;
}

static size_t lines_of(size_t bytes)
{
    return (sizeof(struct hotset_entry) + bytes + HOTSET_LINE - 1) / HOTSET_LINE;
}

/* A bit for each way that is (way & mask) == wanted. */
static ALWAYS_INLINE uint32_t match(const uint16_t *ways, uint16_t mask, uint16_t wanted)
{
#ifdef __SSE2__
    static_assert(HOTSET_WAYS == 20, "two vectors and a half");
    const __m128i bits = _mm_set1_epi16((short)mask), same = _mm_set1_epi16((short)wanted);
    const __m128i *at = (const __m128i *)(const void *)ways;
    __m128i first = _mm_cmpeq_epi16(_mm_and_si128(_mm_loadu_si128(at), bits), same);
    __m128i second = _mm_cmpeq_epi16(_mm_and_si128(_mm_loadu_si128(at + 1), bits), same);
    __m128i rest = _mm_cmpeq_epi16(_mm_and_si128(_mm_loadl_epi64(at + 2), bits), same);
    uint32_t low = (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(first, second));
    uint32_t high = (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(rest, rest)) & 15;
    return low | high << 16;
#else
    uint32_t found = 0;
    for (unsigned way = 0; way < HOTSET_WAYS; way++) {
        found |= (uint32_t)((ways[way] & mask) == wanted) << way;
    }
    return found;
#endif
}

static ALWAYS_INLINE uint32_t ways_of(const struct hotset_page *page, uint64_t hash)
{
    return match(page->ways, (uint16_t)~WAY_LINE, tag_of(hash));
}

/* The copy of a way, if what stands there can be one; NULL. Contents may change under our eyes:
 * sizes are read once, into *entry, and checked. */
static ALWAYS_INLINE uint8_t *entry_at(struct hotset_page *page, unsigned way,
                                       struct hotset_entry *entry)
{
    /* volatile: what was checked is what is used, the compiler may not look again */
    size_t line = *(const volatile uint16_t *)&page->ways[way] & WAY_LINE;
    uint8_t *at = (uint8_t *)page + line * HOTSET_LINE;
    __builtin_prefetch(at + HOTSET_LINE); /* may lie past the page: a hint cannot fail */
    __builtin_prefetch(at + (size_t)2 * HOTSET_LINE);
    uint32_t sizes = *(const volatile uint32_t *)(const void *)at; /* it begins a line */
    memcpy(entry, &sizes, sizeof *entry);
    size_t bytes = (size_t)entry->key_size + entry->record_size;
    if (__builtin_expect(line < HOTSET_HEAD_LINES || bytes > HOTSET_RECORD_MAX ||
                             lines_of(bytes) > HOTSET_LINES - line,
                         0)) {
        return NULL;
    }
    return at;
}

/* memcmp() == 0 without the call: keys are short. */
static ALWAYS_INLINE bool equal(const uint8_t *a, const uint8_t *b, size_t size)
{
    uint64_t x, y;
    if (size < sizeof x) {
        for (size_t i = 0; i < size; i++) {
            if (a[i] != b[i]) {
                return false;
            }
        }
        return true;
    }
    for (size_t i = 0; i + sizeof x < size; i += sizeof x) {
        memcpy(&x, a + i, sizeof x);
        memcpy(&y, b + i, sizeof y);
        if (x != y) {
            return false;
        }
    }
    memcpy(&x, a + size - sizeof x, sizeof x);
    memcpy(&y, b + size - sizeof y, sizeof y);
    return x == y;
}

static ALWAYS_INLINE bool is_of(const struct hotset_entry *entry, const uint8_t *at,
                                const struct hotset_key *key)
{
    return entry->key_size == key->size && equal(at + sizeof *entry, key->data, key->size);
}

/* The way that holds the key's copy, -1: none. */
static int find_way(struct hotset_page *page, const struct hotset_key *key)
{
    for (uint32_t ways = ways_of(page, key->hash); ways != 0; ways &= ways - 1) {
        unsigned way = (unsigned)__builtin_ctz(ways);
        struct hotset_entry entry;
        const uint8_t *at = entry_at(page, way, &entry);
        if (at != NULL && is_of(&entry, at, key)) {
            return (int)way;
        }
    }
    return -1;
}

static unsigned counter_of(uint64_t counters, unsigned way)
{
    return (unsigned)(counters >> (2 * way)) & HOTSET_REFERENCED;
}

static void set_counter(struct hotset_page *page, unsigned way, unsigned count)
{
    uint64_t counters = atomic_load_explicit(&page->counters, memory_order_relaxed);
    counters &= ~((uint64_t)HOTSET_REFERENCED << (2 * way));
    atomic_store_explicit(&page->counters, counters | (uint64_t)count << (2 * way),
                          memory_order_relaxed);
}

static uint64_t line_bits(size_t first, size_t count)
{
    return ((UINT64_C(1) << count) - 1) << first; /* count < 64 */
}

static void clear_way_locked(struct hotset_page *page, unsigned way)
{
    struct hotset_entry entry;
    if (entry_at(page, way, &entry) == NULL) {
        empty(page); /* damaged: whose lines these are cannot be told any more */
        return;
    }
    uint64_t freed =
        line_bits(page->ways[way] & WAY_LINE, lines_of((size_t)entry.key_size + entry.record_size));
    uint64_t free_lines = atomic_load_explicit(&page->free, memory_order_relaxed);
    atomic_store_explicit(&page->free, free_lines | freed, memory_order_relaxed);
    page->ways[way] = 0;
}

/* The first of count free lines in a row, 0: there are none. */
static size_t find_run(uint64_t free_lines, size_t count)
{
    uint64_t starts = free_lines & ALL_FREE;
    for (size_t length = 1; length < count && starts != 0;) {
        size_t step = length < count - length ? length : count - length;
        starts &= starts >> step;
        length += step;
    }
    return starts == 0 ? 0 : (size_t)__builtin_ctzll(starts);
}

static int find_empty_way(const struct hotset_page *page)
{
    uint32_t ways = match(page->ways, WAY_LINE, 0);
    return ways == 0 ? -1 : __builtin_ctz(ways);
}

/* CLOCK: pass over what was asked for, and take from its counter. */
static void evict_one_locked(struct hotset_page *page)
{
    for (unsigned steps = 0; steps < HOTSET_WAYS * (HOTSET_REFERENCED + 1); steps++) {
        unsigned way = page->hand % HOTSET_WAYS;
        page->hand = (uint8_t)(way + 1);
        if (page->ways[way] == 0) {
            continue;
        }
        unsigned count =
            counter_of(atomic_load_explicit(&page->counters, memory_order_relaxed), way);
        if (count == 0) {
            clear_way_locked(page, way);
            return;
        }
        set_counter(page, way, count - 1);
    }
}

/* ---- Find -------------------------------------------------------------------------------------
 */

/* Whole lines, without a call: there is room for them on both sides. */
static ALWAYS_INLINE void copy_lines(uint8_t *to, const uint8_t *from, size_t lines)
{
    for (size_t i = 0; i < lines; i++) {
        memcpy(to + i * HOTSET_LINE, from + i * HOTSET_LINE, HOTSET_LINE);
    }
}

const uint8_t *hotset_find(const struct hotset *hot, const struct hotset_key *key, uint8_t *copy,
                           size_t *record_size, bool peek)
{
    if (hot->pages == NULL) {
        return NULL;
    }
    struct hotset_page *page = hotset_page_of(hot, key->hash);
    /* acquire: pairs with the release in unlock(): what the page held when it was let go */
    uint64_t word = atomic_load_explicit(&page->lock, memory_order_acquire);
    if (__builtin_expect(HOLDER(word) != 0, 0)) {
        return NULL;
    }
    for (uint32_t ways = ways_of(page, key->hash); ways != 0; ways &= ways - 1) {
        unsigned way = (unsigned)__builtin_ctz(ways);
        struct hotset_entry entry;
        uint8_t *at = entry_at(page, way, &entry);
        if (__builtin_expect(at == NULL || !is_of(&entry, at, key), 0)) {
            continue;
        }
        copy_lines(copy, at, lines_of((size_t)entry.key_size + entry.record_size));
        /* the copy before the second look; pairs with the fence in try_lock() */
        atomic_thread_fence(memory_order_acquire);
        if (__builtin_expect(atomic_load_explicit(&page->lock, memory_order_relaxed) != word, 0)) {
            return NULL;
        }
        unsigned count =
            counter_of(atomic_load_explicit(&page->counters, memory_order_relaxed), way);
        if (__builtin_expect(count < HOTSET_REFERENCED, 0) && !peek) {
            set_counter(page, way, count + 1); /* perhaps another copy's by now: a hint */
        }
        *record_size = entry.record_size;
        return copy + sizeof entry + entry.key_size;
    }
    return NULL;
}

/* ---- Forget -----------------------------------------------------------------------------------
 */

bool hotset_forget(const struct hotset *hot, const struct hotset_key *key, uint64_t change)
{
    if (hot->pages == NULL) {
        return false;
    }
    struct hotset_page *page = hotset_page_of(hot, key->hash);
    uint64_t newest = atomic_load_explicit(&page->newest, memory_order_relaxed);
    if (newest < change) { /* inside the write gate: nobody else raises it */
        atomic_store_explicit(&page->newest, change, memory_order_relaxed);
    }
    /* Whoever takes the lock from here on sees it; see try_lock(). */
    atomic_thread_fence(memory_order_seq_cst);
    uint64_t word = atomic_load_explicit(&page->lock, memory_order_acquire);
    if (HOLDER(word) == 0 && ways_of(page, key->hash) == 0) {
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&page->lock, memory_order_relaxed) == word) {
            return false; /* not there, and whoever comes now is refused */
        }
    }
    if (!lock(hot, page, &word)) {
        return false;
    }
    int way = find_way(page, key);
    if (way >= 0) {
        clear_way_locked(page, (unsigned)way);
    }
    unlock(hot, page, word);
    return way >= 0;
}

/* ---- Offer ------------------------------------------------------------------------------------
 */

/* One time in so many (a power of two); cheap, and different in every thread. */
static bool one_in(uint32_t many)
{
    static __thread uint32_t state __attribute__((tls_model("initial-exec")));
    state = state * UINT32_C(1664525) + UINT32_C(1013904223);
    return (state >> 16 & (many - 1)) == 0;
}

static void put_locked(struct hotset_page *page, const struct hotset_key *key, const void *record,
                       size_t record_size, enum hotset_claim claim)
{
    size_t lines = lines_of(key->size + record_size);
    int way = find_way(page, key);
    if (way >= 0) { /* an equal one, or one that no reader would take */
        clear_way_locked(page, (unsigned)way);
    }
    size_t first = 0;
    way = -1;
    for (unsigned evicted = 0; evicted <= HOTSET_WAYS; evicted++) {
        first = find_run(atomic_load_explicit(&page->free, memory_order_relaxed), lines);
        way = find_empty_way(page);
        if (first != 0 && way >= 0) {
            break;
        }
        if (claim == HOTSET_IF_ROOM) {
            return;
        }
        evict_one_locked(page);
    }
    if (first == 0 || way < 0) {
        return;
    }
    struct hotset_entry entry = {.key_size = (uint16_t)key->size,
                                 .record_size = (uint16_t)record_size};
    uint8_t *at = (uint8_t *)page + first * HOTSET_LINE;
    memcpy(at, &entry, sizeof entry);
    memcpy(at + sizeof entry, key->data, key->size);
    memcpy(at + sizeof entry + key->size, record, record_size);
    page->ways[way] = (uint16_t)(tag_of(key->hash) | first);
    set_counter(page, (unsigned)way, 0);
    uint64_t free_lines = atomic_load_explicit(&page->free, memory_order_relaxed);
    atomic_store_explicit(&page->free, free_lines & ~line_bits(first, lines), memory_order_relaxed);
}

/* Whether some copy in it has not been asked for lately. */
static bool is_idle(struct hotset_page *page)
{
    const uint64_t low_bits = UINT64_C(0x5555555555555555);
    uint64_t counters = atomic_load_explicit(&page->counters, memory_order_relaxed);
    uint64_t busy = (counters | counters >> 1) & low_bits;
    uint64_t all = low_bits & ((UINT64_C(1) << (2 * HOTSET_WAYS)) - 1);
    return (busy & all) != all;
}

void hotset_offer(const struct hotset *hot, const struct hotset_key *key, const void *record,
                  size_t record_size, uint64_t changes, enum hotset_claim claim)
{
    if (hot->pages == NULL || key->size + record_size > HOTSET_RECORD_MAX) {
        return;
    }
    struct hotset_page *page = hotset_page_of(hot, key->hash);
    uint64_t free_lines = atomic_load_explicit(&page->free, memory_order_relaxed);
    if (atomic_load_explicit(&page->newest, memory_order_relaxed) > changes) {
        return;
    }
    uint64_t word = atomic_load_explicit(&page->lock, memory_order_relaxed);
    bool fresh = word == 0; /* nothing was ever put into it, not even a list of free lines */
    if (!fresh && find_run(free_lines, lines_of(key->size + record_size)) == 0 &&
        (claim == HOTSET_IF_ROOM || !one_in(is_idle(page) ? 4 : 16))) {
        return;
    }
    if (!try_lock(hot, page, &word)) {
        if (HOLDER(word) == 0 || !one_in(CHECK_DEAD) || !take_over(hot, page, &word)) {
            return;
        }
    }
    if (atomic_load(&page->newest) <= changes) {
        put_locked(page, key, record, record_size, claim);
    }
    unlock(hot, page, word);
}

/* ---- What others ask --------------------------------------------------------------------------
 */

unsigned hotset_age(const struct hotset *hot, const struct hotset_key *key)
{
    if (hot->pages == NULL) {
        return 0;
    }
    struct hotset_page *page = hotset_page_of(hot, key->hash);
    uint64_t word = atomic_load_explicit(&page->lock, memory_order_acquire);
    int way = HOLDER(word) == 0 ? find_way(page, key) : -1;
    if (way < 0) {
        return 0;
    }
    /* by now it may be another copy's: a hint, nothing more */
    unsigned count =
        counter_of(atomic_load_explicit(&page->counters, memory_order_relaxed), (unsigned)way);
    set_counter(page, (unsigned)way, count / 2);
    return count;
}

uint64_t hotset_entries(const struct hotset *hot)
{
    uint64_t entries = 0;
    for (uint64_t i = 0; hot->pages != NULL && i < hot->count; i++) {
        entries += (uint64_t)__builtin_popcount(~match(hot->pages[i].ways, WAY_LINE, 0) & ALL_WAYS);
    }
    return entries;
}
