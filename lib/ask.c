/* ask.c: posting, joining, taking and ending requests.
 *
 * The word: state (2 bits) | end (2) | sequence (28) | deadline (32), from the top. The sequence
 * rises with each claim, and with it a request is known; the deadline is CLOCK_MONOTONIC in ms, its
 * lower 32 bits, compared by their distance.
 */
#include "ask.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "key.h"
#include "map.h"
#include "wake.h"

enum { STATE_FREE = 0, STATE_CLAIMED = 1, STATE_POSTED = 2, STATE_TAKEN = 3 };

enum {
    CLAIM_MS = 1000, /* writing a key takes microseconds: who takes longer has lost its claim */
    TRIES = 8,
    SLEEP_MS = 50 /* for when whoever ended the request died before it told anybody */
};

/* ---- Words ------------------------------------------------------------------------------------
 */

static unsigned state_of(uint64_t word)
{
    return (unsigned)(word >> 62);
}

static uint32_t sequence_of(uint64_t word)
{
    return (uint32_t)(word >> 32) & 0xfffffff;
}

static uint64_t make_word(unsigned state, enum ask_end end, uint32_t sequence, uint32_t deadline)
{
    return (uint64_t)state << 62 | (uint64_t)end << 60 | (uint64_t)(sequence & 0xfffffff) << 32 |
           deadline;
}

/* The same request in another state. */
static uint64_t with_state(uint64_t word, unsigned state, enum ask_end end)
{
    return make_word(state, end, sequence_of(word), (uint32_t)word);
}

/* ms until the word's deadline; what lies too far ahead is damage, and over. */
static int64_t left_of(uint64_t word, int64_t now_ms)
{
    int64_t left = (int32_t)((uint32_t)word - (uint32_t)now_ms);
    return left > ASK_BUDGET_MAX_MS ? 0 : left;
}

static struct ask_table *table_of(struct map *map)
{
    return &map_control(map)->asks;
}

static uint64_t look(struct ask_table *table, size_t index)
{
    return atomic_load(&table->words[index]);
}

static bool swap(struct ask_table *table, size_t index, uint64_t before, uint64_t after)
{
    return atomic_compare_exchange_strong(&table->words[index], &before, after);
}

/* ---- Waking -----------------------------------------------------------------------------------
 */

static void wake_waiters(struct map *map, struct ask_slot *slot)
{
    /* seq_cst, after the word: who announces itself later sees that the word changed */
    (void)atomic_fetch_add(&slot->ends, 1);
    if (atomic_exchange(&slot->sleepers, 0) != 0) {
        (void)syscall(SYS_futex, &slot->ends, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    }
    notify_all(map, &slot->watchers);
}

static bool end_word(struct map *map, size_t index, uint64_t word, enum ask_end end)
{
    struct ask_table *table = table_of(map);
    if (!swap(table, index, word, with_state(word, STATE_FREE, end))) {
        return false;
    }
    wake_waiters(map, &table->slots[index]);
    return true;
}

/* Free the slot if its time is over. True: the word is another one now, or should be looked at
 * again. */
static bool end_if_late(struct map *map, size_t index, uint64_t word, int64_t now_ms)
{
    return state_of(word) != STATE_FREE && left_of(word, now_ms) <= 0 &&
           (end_word(map, index, word, ASK_FAILED), true);
}

/* False: this process cannot (no descriptor left, say); another may. */
static bool wake_daemon_of_asks(struct map *map)
{
    int fifo = wake_open(map);
    return fifo >= 0 &&
           (write(fifo, "", 1) == 1 || errno == EAGAIN); /* a full FIFO wakes as well */
}

/* Say that there is something to take. The first one wakes the daemon for all who come until it has
 * looked. Should that one die over it, who waits for long does it again (ask_sleep()). */
static void tell_daemon(struct map *map, size_t index)
{
    struct ask_table *table = table_of(map);
    _Atomic uint64_t *posted = &table->posted[index / 64];
    uint64_t bit = UINT64_C(1) << (index % 64);
    uint32_t attended = 0;
    if ((atomic_load(posted) & bit) == 0) {
        /* seq_cst: after the word; pairs with ask_take() */
        (void)atomic_fetch_or(posted, bit);
    }
    /* seq_cst, after the bit: pairs with ask_attend(), after which the daemon looks at the bits */
    if (atomic_load(&table->attended) == 0 &&
        atomic_compare_exchange_strong(&table->attended, &attended, 1)) {
        if (!wake_daemon_of_asks(map)) {
            atomic_store(&table->attended, 0);
        }
    }
}

/* ---- Whether to ask ---------------------------------------------------------------------------
 */

/* Whether there is a daemon that reaches Redis. */
static bool daemon_is_up(const struct control *control)
{
    int64_t age = clock_wall_ms() - atomic_load(&control->daemon_heartbeat_ms);
    return atomic_load(&control->redis_up) != 0 && age < ASK_HEARTBEAT_MS &&
           age > -ASK_HEARTBEAT_MS;
}

/* After some failures in a row only one now and then finds out whether it has got better. */
static bool may_ask(struct ask_table *table, int64_t now_ms)
{
    if (__builtin_expect(atomic_load(&table->failures) < ASK_FAILURES, 1)) {
        return true;
    }
    int64_t until = atomic_load(&table->rest_until_ms);
    return (now_ms >= until || until > now_ms + ASK_REST_MS) &&
           atomic_compare_exchange_strong(&table->rest_until_ms, &until, now_ms + ASK_REST_MS);
}

void ask_note_answer(struct map *map)
{
    struct ask_table *table = table_of(map);
    if (__builtin_expect(atomic_load(&table->failures) != 0, 0)) {
        atomic_store(&table->failures, 0);
    }
}

void ask_note_timeout(struct map *map)
{
    struct ask_table *table = table_of(map);
    uint32_t failures = atomic_load(&table->failures);
    if (failures < ASK_FAILURES) {
        failures = atomic_fetch_add(&table->failures, 1) + 1;
        if (failures >= ASK_FAILURES) {
            atomic_store(&table->rest_until_ms, clock_monotonic_ms() + ASK_REST_MS);
        }
    }
}

/* ---- Asking -----------------------------------------------------------------------------------
 */

struct asker {
    struct map *map;
    struct ask_table *table;
    const void *key;
    size_t key_size;
    const uint64_t *hash;
    int64_t now_ms, budget_ms;
    size_t first;
};

static bool is_of_key(const struct asker *asker, size_t index)
{
    const struct ask_slot *slot = &asker->table->slots[index];
    return atomic_load_explicit(&slot->hash[0], memory_order_relaxed) == asker->hash[0] &&
           atomic_load_explicit(&slot->hash[1], memory_order_relaxed) == asker->hash[1];
}

/* Wait with somebody else, for at least our budget. */
static void join(const struct asker *asker, size_t index, uint64_t word, struct ask_ticket *ticket)
{
    if (left_of(word, asker->now_ms) < asker->budget_ms) {
        uint64_t later = make_word(state_of(word), ASK_FOUND, sequence_of(word),
                                   (uint32_t)(asker->now_ms + asker->budget_ms));
        /* The daemon knows a request that it took by its whole word: that one is left alone. */
        if (state_of(word) == STATE_POSTED && swap(asker->table, index, word, later)) {
            word = later;
        }
    }
    *ticket = (struct ask_ticket){.word = word, .slot = (uint32_t)index};
    if (state_of(word) == STATE_POSTED) { /* whoever posted it may have died before it said so */
        tell_daemon(asker->map, index);
    }
}

/* Find the key's request; else *free_index names a slot that is free. */
static bool find(const struct asker *asker, struct ask_ticket *ticket, size_t *free_index)
{
    *free_index = ASK_SLOTS;
    for (size_t probe = 0; probe < ASK_PROBES; probe++) {
        size_t index = (asker->first + probe) % ASK_SLOTS;
        uint64_t word = look(asker->table, index);
        if (end_if_late(asker->map, index, word, asker->now_ms)) {
            word = look(asker->table, index);
        }
        unsigned state = state_of(word);
        if (state == STATE_FREE && *free_index == ASK_SLOTS) {
            *free_index = index;
        } else if ((state == STATE_POSTED || state == STATE_TAKEN) && is_of_key(asker, index)) {
            join(asker, index, word, ticket);
            return true;
        }
    }
    return false;
}

static bool post(const struct asker *asker, size_t index, struct ask_ticket *ticket)
{
    struct ask_slot *slot = &asker->table->slots[index];
    uint64_t before = look(asker->table, index);
    uint32_t sequence = sequence_of(before) + 1;
    uint64_t claimed =
        make_word(STATE_CLAIMED, ASK_FOUND, sequence, (uint32_t)(asker->now_ms + CLAIM_MS));
    if (state_of(before) != STATE_FREE || !swap(asker->table, index, before, claimed)) {
        return false;
    }
    atomic_store_explicit(&slot->hash[0], asker->hash[0], memory_order_relaxed);
    atomic_store_explicit(&slot->hash[1], asker->hash[1], memory_order_relaxed);
    atomic_store_explicit(&slot->key_size, (uint32_t)asker->key_size, memory_order_relaxed);
    memcpy(slot->key, asker->key, asker->key_size);
    uint64_t posted =
        make_word(STATE_POSTED, ASK_FOUND, sequence, (uint32_t)(asker->now_ms + asker->budget_ms));
    if (!swap(asker->table, index, claimed, posted)) { /* stopped for so long that it was undone */
        return false;
    }
    *ticket = (struct ask_ticket){.word = posted, .slot = (uint32_t)index, .own = true};
    tell_daemon(asker->map, index);
    return true;
}

enum ask_begin ask_begin(struct map *map, const void *key, size_t key_size, const uint64_t hash[2],
                         int64_t budget_ms, struct ask_ticket *ticket)
{
    struct control *control = map_control(map);
    struct asker asker = {.map = map,
                          .table = &control->asks,
                          .key = key,
                          .key_size = key_size,
                          .hash = hash,
                          .now_ms = clock_monotonic_ms(),
                          .budget_ms = budget_ms,
                          .first = (size_t)hash[0] % ASK_SLOTS};
    *ticket = (struct ask_ticket){.slot = ASK_SLOTS};
    if (!daemon_is_up(control) || !may_ask(asker.table, asker.now_ms)) {
        return ASK_NOBODY;
    }
    if (key_size > ASK_KEY_MAX) {
        return ASK_NO_ROOM;
    }
    for (int tries = 0; tries < TRIES; tries++) {
        size_t index;
        if (find(&asker, ticket, &index)) {
            return ASK_BEGUN;
        }
        if (index == ASK_SLOTS) {
            return ASK_NO_ROOM;
        }
        if (post(&asker, index, ticket)) {
            return ASK_BEGUN;
        }
    }
    return ASK_NO_ROOM;
}

/* ---- Waiting ----------------------------------------------------------------------------------
 */

enum ask_end ask_look(struct map *map, const struct ask_ticket *ticket)
{
    if (ticket->slot >= ASK_SLOTS) {
        return ASK_FAILED;
    }
    uint64_t word = look(table_of(map), ticket->slot);
    if (sequence_of(word) != sequence_of(ticket->word)) {
        return ASK_OVER;
    }
    if (state_of(word) == STATE_FREE) {
        return (enum ask_end)((word >> 60) & 3);
    }
    return ASK_PENDING;
}

/* Look for a while, where that is allowed and has been of use. */
static enum ask_end look_on(struct map *map, const struct ask_ticket *ticket, int64_t until_ms)
{
    struct spin spin;
    enum ask_end end = ask_look(map, ticket);
    if (end != ASK_PENDING || !spin_begin(&table_of(map)->spins, until_ms * 1000, &spin)) {
        return end;
    }
    while (end == ASK_PENDING && spin_on(&spin)) {
        end = ask_look(map, ticket);
    }
    spin_end(&spin, end != ASK_PENDING);
    return end;
}

/* Nobody has taken it for a while: whoever was to wake the daemon may have died over it. */
static void remind_daemon(struct map *map, const struct ask_ticket *ticket)
{
    uint64_t word = look(table_of(map), ticket->slot);
    if (sequence_of(word) == sequence_of(ticket->word) && state_of(word) == STATE_POSTED) {
        tell_daemon(map, ticket->slot);
        (void)wake_daemon_of_asks(map);
    }
}

enum ask_end ask_sleep(struct map *map, const struct ask_ticket *ticket, int64_t until_ms)
{
    enum ask_end end = look_on(map, ticket, until_ms);
    if (end != ASK_PENDING) {
        return end;
    }
    struct ask_slot *slot = &table_of(map)->slots[ticket->slot];
    for (;;) {
        /* Before the word is looked at: pairs with wake_waiters(), which changes both after it. */
        uint32_t ends = atomic_load(&slot->ends);
        atomic_store(&slot->sleepers, 1);
        end = ask_look(map, ticket);
        int64_t left = until_ms - clock_monotonic_ms();
        if (end != ASK_PENDING || left <= 0) {
            return end;
        }
        left = left < SLEEP_MS ? left : SLEEP_MS;
        struct timespec time = {.tv_nsec = (long)left * 1000000};
        if (syscall(SYS_futex, &slot->ends, FUTEX_WAIT, ends, &time, NULL, 0) != 0 &&
            errno == ETIMEDOUT) {
            remind_daemon(map, ticket);
        }
    }
}

void ask_watch(struct map *map, const struct ask_ticket *ticket, int64_t until_ms)
{
    if (ticket->slot >= ASK_SLOTS ||
        !notify_join(map, &table_of(map)->slots[ticket->slot].watchers)) {
        return;
    }
    notify_watch(map, getpid(), until_ms);
    if (ask_look(map, ticket) != ASK_PENDING) {
        notify_process(map, (unsigned)notify_slot_of(map)); /* it ended before we had joined */
    }
}

/* ---- The daemon's side ------------------------------------------------------------------------
 */

/* Copy the key and see that it is whole: shared memory is input. */
static bool copy_key(const struct ask_slot *slot, struct ask_taken *taken)
{
    uint64_t hash[2];
    taken->key_size = atomic_load_explicit(&slot->key_size, memory_order_relaxed);
    if (taken->key_size == 0 || taken->key_size > ASK_KEY_MAX) {
        return false;
    }
    memcpy(taken->key, slot->key, taken->key_size);
    key_hash_wide(taken->key, taken->key_size, hash);
    return hash[0] == atomic_load_explicit(&slot->hash[0], memory_order_relaxed) &&
           hash[1] == atomic_load_explicit(&slot->hash[1], memory_order_relaxed);
}

static bool take(struct map *map, size_t index, struct ask_taken *taken)
{
    struct ask_table *table = table_of(map);
    for (;;) {
        uint64_t word = look(table, index);
        if (state_of(word) != STATE_POSTED || end_if_late(map, index, word, clock_monotonic_ms())) {
            return false;
        }
        if (!copy_key(&table->slots[index], taken)) {
            (void)end_word(map, index, word, ASK_FAILED);
            return false;
        }
        uint64_t mine = with_state(word, STATE_TAKEN, ASK_FOUND);
        if (swap(table, index, word, mine)) {
            taken->slot = (uint32_t)index;
            taken->word = mine;
            return true;
        }
    }
}

void ask_attend(struct map *map, bool attended)
{
    /* seq_cst: before the bits are looked at; pairs with tell_daemon() */
    atomic_store(&table_of(map)->attended, attended ? 1 : 0);
}

bool ask_is_posted(struct map *map)
{
    struct ask_table *table = table_of(map);
    uint64_t bits = 0;
    for (size_t word = 0; word < ASK_WORDS; word++) {
        bits |= atomic_load(&table->posted[word]);
    }
    return bits != 0;
}

void ask_spin(struct map *map, uint32_t limit_us)
{
    atomic_store(&table_of(map)->spins.limit_us, limit_us);
}

bool ask_take(struct map *map, struct ask_taken *taken)
{
    struct ask_table *table = table_of(map);
    for (size_t word = 0; word < ASK_WORDS; word++) {
        uint64_t bits = atomic_load(&table->posted[word]);
        while (bits != 0) {
            size_t bit = (size_t)__builtin_ctzll(bits);
            /* seq_cst: before the slot's word; pairs with tell_daemon() */
            (void)atomic_fetch_and(&table->posted[word], ~(UINT64_C(1) << bit));
            if (take(map, word * 64 + bit, taken)) {
                return true;
            }
            bits &= bits - 1;
        }
    }
    return false;
}

bool ask_answer(struct map *map, uint32_t slot, uint64_t word, enum ask_end end)
{
    return slot < ASK_SLOTS && state_of(word) == STATE_TAKEN && end_word(map, slot, word, end);
}

void ask_sweep(struct map *map)
{
    struct ask_table *table = table_of(map);
    int64_t now_ms = clock_monotonic_ms();
    for (size_t index = 0; index < ASK_SLOTS; index++) {
        uint64_t word = look(table, index);
        if (!end_if_late(map, index, word, now_ms) && state_of(word) == STATE_POSTED) {
            (void)atomic_fetch_or(&table->posted[index / 64], UINT64_C(1) << (index % 64));
        }
    }
}

void ask_begin_daemon(struct map *map)
{
    struct ask_table *table = table_of(map);
    for (size_t index = 0; index < ASK_SLOTS; index++) {
        uint64_t word = look(table, index);
        if (state_of(word) == STATE_TAKEN) {
            (void)end_word(map, index, word, ASK_FAILED);
        }
    }
    atomic_store(&table->failures, 0);
    atomic_store(&table->attended, 0);
    ask_sweep(map);
}
