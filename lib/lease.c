/* lease.c: claiming, ending and waiting for leases.
 *
 * The word: state (2 bits) | sequence (16) | process (22) | fingerprint (24), from the top. Each
 * transition raises the sequence. A free word has the reason of its end in place of the process.
 */
#include "lease.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "map.h"
#include "process.h"
#include "stats.h"

enum { STATE_FREE = 0, STATE_CLAIMED = 1, STATE_HELD = 2 };

enum {
    CLAIM_TRIES = 256,
    POLITE_TRIES =
        16,       /* step back from a claim on a lower way; it may belong to a stopped process */
    GUARD_MS = 4, /* how often the guard looks after the holder */
    GUARD_GRACE_MS = 8,
    SLEEP_MS = 50, /* the others: for when the guard, or a holder in the middle of waking, died */
    HOLD_MAX_MS = LEASE_HOLD_MAX_MS
};

/* ---- Words ------------------------------------------------------------------------------------
 */

static unsigned state_of(uint64_t word)
{
    return (unsigned)(word >> 62);
}

static uint32_t process_of(uint64_t word)
{
    return (uint32_t)(word >> 24) & 0x3fffff;
}

static uint32_t fingerprint_of(uint64_t word)
{
    return (uint32_t)word & 0xffffff;
}

static uint16_t sequence_of(uint64_t word)
{
    return (uint16_t)(word >> 46);
}

/* What follows on a word. */
static uint64_t next_word(uint64_t word, unsigned state, uint32_t process, uint32_t fingerprint)
{
    uint16_t sequence = (uint16_t)(sequence_of(word) + 1);
    return (uint64_t)state << 62 | (uint64_t)sequence << 46 | (uint64_t)(process & 0x3fffff) << 24 |
           (fingerprint & 0xffffff);
}

static uint64_t freed_word(uint64_t word, enum lease_end reason)
{
    return next_word(word, STATE_FREE, (uint32_t)reason, 0);
}

static struct lease_table *table_of(struct map *map)
{
    return &map_control(map)->leases;
}

/* seq_cst here and in swap(): the claims of two processes and their looks at each other's ways must
 * have one order (lease.h). */
static uint64_t look(struct lease_table *table, size_t index)
{
    return atomic_load(&table->words[index]);
}

static bool swap(struct lease_table *table, size_t index, uint64_t before, uint64_t after)
{
    return atomic_compare_exchange_strong(&table->words[index], &before, after);
}

/* ---- Waking -----------------------------------------------------------------------------------
 */

static void wake(struct map *map, struct lease_slot *slot)
{
    /* seq_cst, after the word: a waiter that announces itself later sees that the word changed */
    (void)atomic_fetch_add(&slot->ends, 1);
    if (atomic_exchange(&slot->sleepers, 0) != 0) {
        (void)syscall(SYS_futex, &slot->ends, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    }
    notify_all(map, &slot->watchers);
}

/* True: the time was over. */
static bool sleep_on(struct lease_slot *slot, uint32_t ends, int64_t ms)
{
    struct timespec time = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    return syscall(SYS_futex, &slot->ends, FUTEX_WAIT, ends, &time, NULL, 0) != 0 &&
           errno == ETIMEDOUT;
}

static bool end_word(struct map *map, size_t index, uint64_t word, enum lease_end reason)
{
    struct lease_table *table = table_of(map);
    if (!swap(table, index, word, freed_word(word, reason))) {
        return false;
    }
    wake(map, &table->slots[index]);
    return true;
}

/* ---- Holders ----------------------------------------------------------------------------------
 */

/* Become the one who looks after the holder for the next milliseconds. */
static bool become_guard(struct lease_slot *slot, int64_t now, int64_t *guarded)
{
    int64_t until = atomic_load_explicit(&slot->guarded_ms, memory_order_relaxed);
    bool mine = until == *guarded && *guarded != 0;
    if (!mine && now < until && until <= now + GUARD_GRACE_MS) {
        return false;
    }
    int64_t next = now + GUARD_GRACE_MS;
    if (!atomic_compare_exchange_strong_explicit(&slot->guarded_ms, &until, next,
                                                 memory_order_relaxed, memory_order_relaxed)) {
        return false;
    }
    *guarded = next;
    return true;
}

static bool is_late(struct lease_slot *slot, int64_t now)
{
    int64_t deadline = atomic_load_explicit(&slot->deadline_ms, memory_order_relaxed);
    return now >= deadline || deadline > now + LEASE_HOLD_MAX_MS; /* the latter: damage */
}

/* End the lease where its holder is late or, if asked, dead. True: it has ended. */
static bool end_if_lost(struct map *map, size_t index, uint64_t word, bool ask)
{
    struct lease_slot *slot = &table_of(map)->slots[index];
    uint64_t start = atomic_load_explicit(&slot->start, memory_order_relaxed);
    bool lost = is_late(slot, clock_monotonic_ms()) ||
                (ask && process_gone((pid_t)process_of(word), start));
    if (lost && end_word(map, index, word, LEASE_LOST)) {
        stats_count(map_stats(map), STATS_LEASE_TAKEOVERS);
    }
    return lost;
}

/* The same for those who come by: they ask the kernel only where no guard does. */
static bool end_if_lost_passing(struct map *map, size_t index, uint64_t word)
{
    struct lease_slot *slot = &table_of(map)->slots[index];
    int64_t now = clock_monotonic_ms();
    int64_t guarded = atomic_load_explicit(&slot->guarded_ms, memory_order_relaxed);
    return end_if_lost(map, index, word, now >= guarded || guarded > now + GUARD_GRACE_MS);
}

/* ---- Claiming ---------------------------------------------------------------------------------
 */

struct claim {
    struct map *map;
    struct lease_table *table;
    const uint64_t *hash;
    int64_t hold_ms;
    uint32_t fingerprint, process;
    size_t first; /* of the set */
};

static bool same_key(const struct claim *claim, size_t index)
{
    return atomic_load_explicit(&claim->table->slots[index].key, memory_order_relaxed) ==
           claim->hash[1];
}

/* Write a field of the slot that is claimed. Only over what stood there before, so that whoever
 * comes late, after its claim was undone, spoils nobody's. */
static bool put(const struct claim *claim, size_t index, uint64_t word, _Atomic uint64_t *field,
                uint64_t before, uint64_t value)
{
    while (!atomic_compare_exchange_strong_explicit(field, &before, value, memory_order_relaxed,
                                                    memory_order_relaxed)) {
        if (look(claim->table, index) != word) {
            return false;
        }
    }
    return true;
}

static bool put_time(const struct claim *claim, size_t index, uint64_t word, _Atomic int64_t *field,
                     int64_t before, int64_t value)
{
    while (!atomic_compare_exchange_strong_explicit(field, &before, value, memory_order_relaxed,
                                                    memory_order_relaxed)) {
        if (look(claim->table, index) != word) {
            return false;
        }
    }
    return true;
}

/* Find the key's lease among the held ones. */
static bool find_held(const struct claim *claim, size_t except, struct lease_ticket *ticket)
{
    for (size_t way = 0; way < LEASE_WAYS; way++) {
        size_t index = claim->first + way;
        uint64_t word = look(claim->table, index);
        if (index != except && state_of(word) == STATE_HELD &&
            fingerprint_of(word) == claim->fingerprint && same_key(claim, index)) {
            *ticket = (struct lease_ticket){.word = word, .slot = (uint32_t)index};
            return true;
        }
    }
    return false;
}

/* A free way of the set; where there is none, one whose holder is gone. */
static bool find_free(const struct claim *claim, size_t *free_index, uint64_t *free_word)
{
    for (int pass = 0; pass < 2; pass++) {
        for (size_t way = 0; way < LEASE_WAYS; way++) {
            size_t index = claim->first + (way + claim->fingerprint) % LEASE_WAYS;
            uint64_t word = look(claim->table, index);
            if (pass == 1 && state_of(word) == STATE_HELD) {
                (void)end_if_lost(claim->map, index, word, true);
            } else if (pass == 1 && state_of(word) != STATE_FREE &&
                       process_gone((pid_t)process_of(word), 0)) {
                (void)swap(claim->table, index, word, freed_word(word, LEASE_LOST));
            }
            word = look(claim->table, index);
            if (state_of(word) == STATE_FREE) {
                *free_index = index;
                *free_word = word;
                return true;
            }
        }
    }
    return false;
}

/* Undo the claims of others on the key. False: step back from one instead. */
static bool undo_others(const struct claim *claim, size_t own, bool polite)
{
    for (size_t way = 0; way < LEASE_WAYS; way++) {
        size_t index = claim->first + way;
        uint64_t word = look(claim->table, index);
        if (index == own || state_of(word) != STATE_CLAIMED ||
            fingerprint_of(word) != claim->fingerprint) {
            continue;
        }
        if (polite && index < own) {
            return false;
        }
        if (!swap(claim->table, index, word, freed_word(word, LEASE_ABANDONED))) {
            return false; /* it has just become a lease, or it is gone: look again */
        }
    }
    return true;
}

/* One try. LEASE_FULL: it did not come to a decision. */
static enum lease_claim try_claim(const struct claim *claim, size_t index, uint64_t before,
                                  bool polite, struct lease_ticket *ticket)
{
    struct lease_slot *slot = &claim->table->slots[index];
    uint64_t old_key = atomic_load_explicit(&slot->key, memory_order_relaxed);
    uint64_t old_start = atomic_load_explicit(&slot->start, memory_order_relaxed);
    int64_t old_deadline = atomic_load_explicit(&slot->deadline_ms, memory_order_relaxed);
    uint64_t mine = next_word(before, STATE_CLAIMED, claim->process, claim->fingerprint);
    if (!swap(claim->table, index, before, mine)) {
        return LEASE_FULL;
    }
    if (!undo_others(claim, index, polite)) {
        (void)swap(claim->table, index, mine, freed_word(mine, LEASE_ABANDONED));
        return LEASE_FULL;
    }
    if (find_held(claim, index, ticket)) {
        (void)swap(claim->table, index, mine, freed_word(mine, LEASE_ABANDONED));
        return LEASE_HELD;
    }
    uint64_t held = next_word(mine, STATE_HELD, claim->process, claim->fingerprint);
    if (put(claim, index, mine, &slot->key, old_key, claim->hash[1]) &&
        put(claim, index, mine, &slot->start, old_start, process_start()) &&
        put_time(claim, index, mine, &slot->deadline_ms, old_deadline,
                 clock_monotonic_ms() + claim->hold_ms) &&
        swap(claim->table, index, mine, held)) {
        *ticket = (struct lease_ticket){.word = held, .slot = (uint32_t)index};
        return LEASE_TAKEN;
    }
    return LEASE_FULL;
}

enum lease_claim lease_claim(struct map *map, const uint64_t hash[2], int64_t hold_ms,
                             struct lease_ticket *ticket)
{
    struct claim claim = {.map = map,
                          .table = table_of(map),
                          .hash = hash,
                          .hold_ms = hold_ms,
                          .fingerprint = (uint32_t)(hash[0] & 0xffffff),
                          .process = (uint32_t)getpid(),
                          .first = (size_t)(hash[0] >> 24) % LEASE_SETS * LEASE_WAYS};
    for (int tries = 0; tries < CLAIM_TRIES; tries++) {
        size_t index;
        uint64_t before;
        if (find_held(&claim, LEASE_NONE, ticket)) {
            if (!end_if_lost_passing(map, ticket->slot, ticket->word)) {
                return LEASE_HELD;
            }
            continue;
        }
        if (!find_free(&claim, &index, &before)) {
            return LEASE_FULL;
        }
        enum lease_claim claimed = try_claim(&claim, index, before, tries < POLITE_TRIES, ticket);
        if (claimed != LEASE_FULL) {
            return claimed;
        }
    }
    return LEASE_FULL;
}

/* ---- Holding ----------------------------------------------------------------------------------
 */

bool lease_end(struct map *map, const struct lease_ticket *ticket, enum lease_end reason)
{
    return ticket->slot < LEASE_SLOTS && state_of(ticket->word) == STATE_HELD &&
           end_word(map, ticket->slot, ticket->word, reason);
}

bool lease_extend(struct map *map, const struct lease_ticket *ticket, int64_t hold_ms)
{
    if (ticket->slot >= LEASE_SLOTS || look(table_of(map), ticket->slot) != ticket->word) {
        return false;
    }
    struct lease_slot *slot = &table_of(map)->slots[ticket->slot];
    int64_t before = atomic_load_explicit(&slot->deadline_ms, memory_order_relaxed);
    int64_t deadline = clock_monotonic_ms() + hold_ms;
    /* Only over what was seen while the lease was held: the next holder's is not touched. */
    return look(table_of(map), ticket->slot) == ticket->word &&
           atomic_compare_exchange_strong_explicit(&slot->deadline_ms, &before, deadline,
                                                   memory_order_relaxed, memory_order_relaxed) &&
           look(table_of(map), ticket->slot) == ticket->word;
}

/* ---- Waiting ----------------------------------------------------------------------------------
 */

/* Where the slot was taken again since, nobody knows any more how the lease ended. */
static enum lease_end reason_of(uint64_t seen, uint64_t now)
{
    uint32_t reason = process_of(now);
    bool directly = state_of(now) == STATE_FREE &&
                    sequence_of(now) == (uint16_t)(sequence_of(seen) + 1) && reason <= LEASE_LOST;
    return directly ? (enum lease_end)reason : LEASE_ABANDONED;
}

static bool still_there(struct map *map, const struct lease_ticket *ticket, enum lease_end *reason)
{
    uint64_t now = look(table_of(map), ticket->slot);
    if (now == ticket->word) {
        return true;
    }
    *reason = reason_of(ticket->word, now);
    return false;
}

bool lease_is_held(struct map *map, const struct lease_ticket *ticket, enum lease_end *reason)
{
    *reason = LEASE_ABANDONED;
    if (ticket->slot >= LEASE_SLOTS || state_of(ticket->word) != STATE_HELD) {
        return false;
    }
    if (!still_there(map, ticket, reason)) {
        return false;
    }
    if (end_if_lost_passing(map, ticket->slot, ticket->word)) {
        *reason = LEASE_LOST;
        return false;
    }
    return true;
}

bool lease_sleep(struct map *map, const struct lease_ticket *ticket, int64_t until_ms,
                 enum lease_end *reason)
{
    *reason = LEASE_ABANDONED;
    if (ticket->slot >= LEASE_SLOTS || state_of(ticket->word) != STATE_HELD) {
        return true;
    }
    struct lease_slot *slot = &table_of(map)->slots[ticket->slot];
    int64_t guarded = 0;
    bool overslept = false;
    for (;;) {
        /* Before the word is looked at: pairs with wake(), which changes both after the word. */
        uint32_t ends = atomic_load(&slot->ends);
        atomic_store(&slot->sleepers, 1);
        if (!still_there(map, ticket, reason)) {
            if (overslept) { /* whoever ended it may have died before it told anybody */
                wake(map, slot);
            }
            return true;
        }
        int64_t now = clock_monotonic_ms();
        bool guard = become_guard(slot, now, &guarded);
        if (end_if_lost(map, ticket->slot, ticket->word, guard)) {
            *reason = LEASE_LOST;
            return true;
        }
        if (now >= until_ms) {
            return false;
        }
        int64_t slice = guard ? GUARD_MS : SLEEP_MS;
        slice = until_ms - now < slice ? until_ms - now : slice;
        int64_t deadline = atomic_load_explicit(&slot->deadline_ms, memory_order_relaxed);
        slice = deadline > now && deadline - now < slice ? deadline - now : slice;
        overslept = sleep_on(slot, ends, slice);
    }
}

void lease_watch(struct map *map, const struct lease_ticket *ticket)
{
    if (ticket->slot >= LEASE_SLOTS) {
        return;
    }
    struct lease_slot *slot = &table_of(map)->slots[ticket->slot];
    if (!notify_join(map, &slot->watchers)) {
        return;
    }
    notify_watch(map, (pid_t)process_of(ticket->word),
                 atomic_load_explicit(&slot->deadline_ms, memory_order_relaxed));
    if (look(table_of(map), ticket->slot) != ticket->word) {
        notify_process(map, (unsigned)notify_slot_of(map)); /* it ended before we had joined */
    }
}

static bool is_held_by(uint64_t word, pid_t pid)
{
    return state_of(word) == STATE_HELD && process_of(word) == (uint32_t)pid;
}

void lease_abandon_all(struct map *map)
{
    struct lease_table *table = table_of(map);
    for (size_t index = 0; index < LEASE_SLOTS; index++) {
        uint64_t word = look(table, index);
        if (is_held_by(word, getpid())) {
            (void)end_word(map, index, word, LEASE_ABANDONED);
        }
    }
}

void lease_end_all(struct map *map, pid_t pid)
{
    struct lease_table *table = table_of(map);
    for (size_t index = 0; index < LEASE_SLOTS; index++) {
        uint64_t word = look(table, index);
        if (is_held_by(word, pid)) {
            (void)end_if_lost(map, index, word, true);
        }
    }
}
