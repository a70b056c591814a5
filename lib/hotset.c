/* hotset.c: pages of copies, their locks, and who makes way for whom.
 *
 * A page's lock is a sequence lock whose holder is known. Readers never wait: a held page is a miss.
 * Who puts a copy in takes the lock at once or not at all. Who must have it (a writer that takes a
 * copy out) spins for microseconds; then the holder is dead, and the page is emptied and taken over,
 * or stopped, and the page is *retired*: nobody reads or fills it until the holder, which might
 * still scribble on it, has woken up, found that its unlock fails, and emptied it itself.
 */
#include "hotset.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "error.h"
#include "larder.h"

enum {
    SPINS = 256,      /* some microseconds: many times what a fill takes */
    CHECK_DEAD = 1024 /* of so many fills that find a page held, one asks whether by a dead one */
};

#define RETIRED UINT64_C(1)
#define HOLDER(word) ((uint32_t)(word))
#define ALL_FREE (UINT64_MAX << HOTSET_HEAD_LINES)

/* What stands before a copy's key and record. MAP_FORMAT */
struct entry {
    uint16_t key_size, record_size;
};
static_assert(sizeof(struct entry) + HOTSET_RECORD_MAX == HOTSET_ENTRY_LINES * HOTSET_LINE,
              "MAP_FORMAT");

/* ---- The file ---------------------------------------------------------------------------------
 */

int hotset_create(const char *directory, uint64_t size)
{
    char path[4200];
    if (size == 0) {
        return LARDER_OK;
    }
    (void)snprintf(path, sizeof path, "%s/" HOTSET_NAME, directory);
    int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0) {
        return error_system(LARDER_ESYSTEM, "%s", path);
    }
    int result = LARDER_OK;
    int error = EINTR;
    while (error == EINTR) {
        error = posix_fallocate(file, 0, (off_t)size);
    }
    if (error != 0) {
        errno = error;
        result = error_system(error == ENOSPC || error == EDQUOT ? LARDER_ENOSPACE : LARDER_ESYSTEM,
                              "hot set of %" PRIu64 " bytes", size);
    }
    (void)close(file);
    return result;
}

int hotset_open(const char *directory, uint64_t size, struct hotset *hot)
{
    char path[4200];
    struct stat status;
    *hot = (struct hotset){.pages = NULL};
    if (size == 0) {
        return LARDER_OK;
    }
    (void)snprintf(path, sizeof path, "%s/" HOTSET_NAME, directory);
    int file = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0) {
        return error_system(errno == ENOENT   ? LARDER_ECORRUPT
                            : errno == EACCES ? LARDER_EACCESS
                                              : LARDER_ESYSTEM,
                            "%s", path);
    }
    int result = LARDER_OK;
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) ||
        (uint64_t)status.st_size != size || size % HOTSET_PAGE != 0 || size > HOTSET_SIZE_MAX) {
        result = error_set(LARDER_ECORRUPT, "%s is not a hot set of %" PRIu64 " bytes", path, size);
        goto out;
    }
    void *memory = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) {
        result = error_system(LARDER_ENOMEM, "mmap of a hot set of %" PRIu64 " bytes", size);
        goto out;
    }
    hot->pages = memory;
    hot->count = size / HOTSET_PAGE;
    hot->pid = getpid();
out:
    (void)close(file);
    return result;
}

void hotset_close(struct hotset *hot)
{
    if (hot->pages != NULL) {
        (void)munmap(hot->pages, (size_t)hot->count * HOTSET_PAGE);
        hot->pages = NULL;
    }
}

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
    memset(page->tags, 0, sizeof page->tags);
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

static uint16_t tag_of(uint64_t hash)
{
    uint16_t tag = (uint16_t)hash;
    return tag == 0 ? 1 : tag;
}

static size_t lines_of(size_t bytes)
{
    return (sizeof(struct entry) + bytes + HOTSET_LINE - 1) / HOTSET_LINE;
}

/* A bit for each way whose tag it is. */
static uint32_t match(const uint16_t *tags, uint16_t tag)
{
    static_assert(HOTSET_WAYS == 24, "three vectors of eight");
#ifdef __SSE2__
    const __m128i wanted = _mm_set1_epi16((short)tag);
    __m128i part[3];
    memcpy(part, tags, sizeof part);
    __m128i low = _mm_packs_epi16(_mm_cmpeq_epi16(part[0], wanted), _mm_cmpeq_epi16(part[1], wanted));
    __m128i high = _mm_packs_epi16(_mm_cmpeq_epi16(part[2], wanted), _mm_setzero_si128());
    return (uint32_t)_mm_movemask_epi8(low) | (uint32_t)_mm_movemask_epi8(high) << 16;
#else
    uint32_t ways = 0;
    for (unsigned way = 0; way < HOTSET_WAYS; way++) {
        ways |= (uint32_t)(tags[way] == tag) << way;
    }
    return ways;
#endif
}

/* The copy of a way, if what stands there can be one. Contents may change under our eyes: sizes are
 * read once and checked. */
static const uint8_t *entry_at(const struct hotset_page *page, unsigned way, struct entry *entry)
{
    unsigned line = page->first[way];
    if (line < HOTSET_HEAD_LINES || line >= HOTSET_LINES) {
        return NULL;
    }
    const uint8_t *at = (const uint8_t *)page + (size_t)line * HOTSET_LINE;
    memcpy(entry, at, sizeof *entry);
    size_t bytes = (size_t)entry->key_size + entry->record_size;
    if (bytes > HOTSET_RECORD_MAX || lines_of(bytes) > HOTSET_LINES - line) {
        return NULL;
    }
    return at + sizeof *entry;
}

static bool is_of(const struct entry *entry, const uint8_t *bytes, const struct hotset_key *key)
{
    return entry->key_size == key->size && memcmp(bytes, key->data, key->size) == 0;
}

/* The way that holds the key's copy, -1: none. */
static int find_way(const struct hotset_page *page, const struct hotset_key *key)
{
    for (uint32_t ways = match(page->tags, tag_of(key->hash)); ways != 0; ways &= ways - 1) {
        unsigned way = (unsigned)__builtin_ctz(ways);
        struct entry entry;
        const uint8_t *bytes = entry_at(page, way, &entry);
        if (bytes != NULL && is_of(&entry, bytes, key)) {
            return (int)way;
        }
    }
    return -1;
}

static uint64_t line_bits(size_t first, size_t count)
{
    return ((UINT64_C(1) << count) - 1) << first; /* count < 64 */
}

static void clear_way_locked(struct hotset_page *page, unsigned way)
{
    struct entry entry;
    const uint8_t *bytes = entry_at(page, way, &entry);
    page->tags[way] = 0;
    atomic_store_explicit(&page->referenced[way], 0, memory_order_relaxed);
    if (bytes == NULL) {
        empty(page); /* damaged: whose lines these are cannot be told any more */
        return;
    }
    uint64_t freed =
        line_bits(page->first[way], lines_of((size_t)entry.key_size + entry.record_size));
    uint64_t free_lines = atomic_load_explicit(&page->free, memory_order_relaxed);
    atomic_store_explicit(&page->free, free_lines | freed, memory_order_relaxed);
}

/* The first of count free lines in a row, 0: there are none. */
static unsigned find_run(uint64_t free_lines, size_t count)
{
    uint64_t starts = free_lines & ALL_FREE;
    for (size_t length = 1; length < count && starts != 0;) {
        size_t step = length < count - length ? length : count - length;
        starts &= starts >> step;
        length += step;
    }
    return starts == 0 ? 0 : (unsigned)__builtin_ctzll(starts);
}

static int find_empty_way(const struct hotset_page *page)
{
    uint32_t ways = match(page->tags, 0);
    return ways == 0 ? -1 : __builtin_ctz(ways);
}

/* CLOCK: pass over what was asked for, and take from its counter. */
static void evict_one_locked(struct hotset_page *page)
{
    for (unsigned steps = 0; steps < HOTSET_WAYS * (HOTSET_REFERENCED + 1); steps++) {
        unsigned way = page->hand % HOTSET_WAYS;
        page->hand = (uint8_t)((way + 1) % HOTSET_WAYS);
        if (page->tags[way] == 0) {
            continue;
        }
        uint8_t referenced = atomic_load_explicit(&page->referenced[way], memory_order_relaxed);
        if (referenced == 0) {
            clear_way_locked(page, way);
            return;
        }
        referenced = referenced > HOTSET_REFERENCED ? HOTSET_REFERENCED : referenced;
        atomic_store_explicit(&page->referenced[way], (uint8_t)(referenced - 1),
                              memory_order_relaxed);
    }
}

/* ---- Find -------------------------------------------------------------------------------------
 */

size_t hotset_find(const struct hotset *hot, const struct hotset_key *key, void *record, bool peek)
{
    if (hot->pages == NULL) {
        return 0;
    }
    struct hotset_page *page = hotset_page_of(hot, key->hash);
    /* acquire: pairs with the release in unlock(): what the page held when it was let go */
    uint64_t word = atomic_load_explicit(&page->lock, memory_order_acquire);
    if (__builtin_expect(HOLDER(word) != 0, 0)) {
        return 0;
    }
    for (uint32_t ways = match(page->tags, tag_of(key->hash)); ways != 0; ways &= ways - 1) {
        unsigned way = (unsigned)__builtin_ctz(ways);
        struct entry entry;
        const uint8_t *bytes = entry_at(page, way, &entry);
        if (bytes == NULL || !is_of(&entry, bytes, key)) {
            continue;
        }
        memcpy(record, bytes + entry.key_size, entry.record_size);
        /* the copy before the second look; pairs with the fence in try_lock() */
        atomic_thread_fence(memory_order_acquire);
        if (__builtin_expect(atomic_load_explicit(&page->lock, memory_order_relaxed) != word, 0)) {
            return 0;
        }
        uint8_t referenced = atomic_load_explicit(&page->referenced[way], memory_order_relaxed);
        if (__builtin_expect(referenced < HOTSET_REFERENCED, 0) && !peek) {
            atomic_store_explicit(&page->referenced[way], (uint8_t)(referenced + 1),
                                  memory_order_relaxed);
        }
        return entry.record_size;
    }
    return 0;
}

/* ---- Forget -----------------------------------------------------------------------------------
 */

bool hotset_forget(const struct hotset *hot, const struct hotset_key *key, uint64_t transaction)
{
    if (hot->pages == NULL) {
        return false;
    }
    struct hotset_page *page = hotset_page_of(hot, key->hash);
    uint64_t newest = atomic_load_explicit(&page->newest, memory_order_relaxed);
    if (newest < transaction) { /* inside the write gate: nobody else raises it */
        atomic_store_explicit(&page->newest, transaction, memory_order_relaxed);
    }
    /* Whoever takes the lock from here on sees it; see try_lock(). */
    atomic_thread_fence(memory_order_seq_cst);
    uint64_t word = atomic_load_explicit(&page->lock, memory_order_acquire);
    if (HOLDER(word) == 0 && match(page->tags, tag_of(key->hash)) == 0) {
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
    unsigned first = 0;
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
    struct entry entry = {.key_size = (uint16_t)key->size, .record_size = (uint16_t)record_size};
    uint8_t *at = (uint8_t *)page + (size_t)first * HOTSET_LINE;
    memcpy(at, &entry, sizeof entry);
    memcpy(at + sizeof entry, key->data, key->size);
    memcpy(at + sizeof entry + key->size, record, record_size);
    page->first[way] = (uint8_t)first;
    page->tags[way] = tag_of(key->hash);
    atomic_store_explicit(&page->referenced[way], 0, memory_order_relaxed);
    uint64_t free_lines = atomic_load_explicit(&page->free, memory_order_relaxed);
    atomic_store_explicit(&page->free, free_lines & ~line_bits(first, lines), memory_order_relaxed);
}

void hotset_offer(const struct hotset *hot, const struct hotset_key *key, const void *record,
                  size_t record_size, uint64_t snapshot, enum hotset_claim claim)
{
    if (hot->pages == NULL || key->size + record_size > HOTSET_RECORD_MAX) {
        return;
    }
    struct hotset_page *page = hotset_page_of(hot, key->hash);
    uint64_t free_lines = atomic_load_explicit(&page->free, memory_order_relaxed);
    size_t room = (size_t)__builtin_popcountll(free_lines);
    bool fresh = free_lines == 0; /* never used, or brimful */
    if (room < lines_of(key->size + record_size) &&
        !(fresh && atomic_load_explicit(&page->lock, memory_order_relaxed) == 0) &&
        (claim == HOTSET_IF_ROOM || !one_in(8))) {
        return;
    }
    if (atomic_load_explicit(&page->newest, memory_order_relaxed) > snapshot) {
        return;
    }
    uint64_t word;
    if (!try_lock(hot, page, &word)) {
        if (HOLDER(word) == 0 || !one_in(CHECK_DEAD) || !take_over(hot, page, &word)) {
            return;
        }
    }
    if (atomic_load(&page->newest) <= snapshot) {
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
    uint8_t referenced = atomic_load_explicit(&page->referenced[way], memory_order_relaxed);
    referenced = referenced > HOTSET_REFERENCED ? HOTSET_REFERENCED : referenced;
    /* by now it may be another copy's: a hint, nothing more */
    atomic_store_explicit(&page->referenced[way], referenced / 2, memory_order_relaxed);
    return referenced;
}

uint64_t hotset_entries(const struct hotset *hot)
{
    uint64_t entries = 0;
    for (uint64_t i = 0; hot->pages != NULL && i < hot->count; i++) {
        entries += HOTSET_WAYS - (uint64_t)__builtin_popcount(match(hot->pages[i].tags, 0));
    }
    return entries;
}
