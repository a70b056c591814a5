/* removal.c: barriers, floors and the pending table.
 */
#include "removal.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "monotone.h"

uint64_t removal_pending_clock_slow(struct control *control, uint64_t hash)
{
    uint64_t dead = 0;
    for (size_t word = 0; word < CONTROL_PENDING_WORDS; word++) {
        uint64_t bits = atomic_load_explicit(&control->pending[word], memory_order_acquire);
        for (; bits != 0; bits &= bits - 1) {
            size_t index = word * 64 + (size_t)__builtin_ctzll(bits);
            struct pending_row *row = &control->pending_rows[index];
            /* A row that is freed and taken again under our eyes: its first owner's commit came
             * before what will be read next (see the fence below), so no mixture does harm. */
            if (atomic_load_explicit(&row->hash, memory_order_relaxed) == hash) {
                uint64_t clock = atomic_load_explicit(&row->clock, memory_order_relaxed);
                dead = clock > dead ? clock : dead;
            }
        }
    }
    /* What is read next (a copy, a snapshot) comes after the rows; pairs with the fence in
     * removal_pend(). */
    atomic_thread_fence(memory_order_acquire);
    return dead;
}

uint64_t removal_count_pending(struct control *control)
{
    uint64_t count = 0;
    for (size_t i = 0; i < CONTROL_PENDING_WORDS; i++) {
        count += (uint64_t)__builtin_popcountll(atomic_load(&control->pending[i]));
    }
    return count;
}

size_t removal_copy_pending(struct control *control, struct removal_mark *marks)
{
    size_t count = 0;
    for (size_t word = 0; word < CONTROL_PENDING_WORDS; word++) {
        uint64_t bits = atomic_load_explicit(&control->pending[word], memory_order_acquire);
        for (; bits != 0; bits &= bits - 1) {
            struct pending_row *row =
                &control->pending_rows[word * 64 + (size_t)__builtin_ctzll(bits)];
            marks[count++] = (struct removal_mark){
                .hash = atomic_load_explicit(&row->hash, memory_order_relaxed),
                .clock = atomic_load_explicit(&row->clock, memory_order_relaxed)};
        }
    }
    return count;
}

void removal_raise_barrier(struct control *control, uint64_t hash, uint64_t clock)
{
    monotone_raise(&control->floors[control_bucket(hash)], clock);
    monotone_raise(&control->barriers[control_bucket(hash)], clock);
    monotone_raise(&control->barrier_max, clock);
    control_news(control);
}

void removal_raise_barrier_here(struct control *control, uint64_t hash, uint64_t clock)
{
    monotone_raise(&control->floors[control_bucket(hash)], clock);
    monotone_raise(&control->barriers_here[control_bucket(hash)], clock);
    monotone_raise(&control->barrier_max, clock);
}

void removal_clear_here(struct control *control, uint64_t clock)
{
    monotone_raise(&control->cleared_here, clock);
    monotone_raise(&control->barrier_max, clock);
}

void removal_clear(struct control *control, uint64_t clock)
{
    monotone_raise(&control->cleared, clock);
    monotone_raise(&control->barrier_max, clock);
    control_news(control);
}

void removal_told(_Atomic uint64_t *told, uint64_t clock)
{
    monotone_raise(told, clock);
}

void removal_raise_floor(struct control *control, uint64_t hash, uint64_t clock)
{
    monotone_raise(&control->floors[control_bucket(hash)], clock);
}

uint64_t removal_bucket_floor(struct control *control, uint64_t hash)
{
    return atomic_load_explicit(&control->floors[control_bucket(hash)], memory_order_acquire);
}

uint64_t removal_floor(struct control *control, uint64_t hash)
{
    uint64_t cleared = removal_higher(&control->cleared, &control->cleared_here);
    uint64_t floor = removal_bucket_floor(control, hash);
    return floor > cleared ? floor : cleared;
}

void removal_raise_fill_floor(struct control *control, uint64_t clock)
{
    monotone_raise(&control->fill_floor, clock);
}

uint64_t removal_fill_floor(struct control *control, uint64_t hash)
{
    uint64_t fills = atomic_load_explicit(&control->fill_floor, memory_order_acquire);
    uint64_t floor = removal_floor(control, hash);
    return floor > fills ? floor : fills;
}

static void lower_to(_Atomic uint64_t *word, uint64_t limit)
{
    uint64_t now = atomic_load_explicit(word, memory_order_relaxed);
    while (now > limit && !atomic_compare_exchange_weak_explicit(
                              word, &now, limit, memory_order_release, memory_order_relaxed)) {
    }
}

void removal_lower_floors(struct control *control, uint64_t limit)
{
    lower_to(&control->fill_floor, limit);
    for (size_t i = 0; i < CONTROL_BUCKETS; i++) {
        lower_to(&control->floors[i], limit);
    }
}

void removal_raise_all_floors(struct control *control, uint64_t clock)
{
    for (size_t i = 0; i < CONTROL_BUCKETS; i++) {
        monotone_raise(&control->floors[i], clock);
    }
}

/* renew: see removal_pend_now(). *version is what stands in the row in the end. */
static bool pend(struct control *control, const struct key *key, larder_version *version,
                 bool renew)
{
    size_t start = (size_t)(key->hash % CONTROL_PENDING_ROWS);
    uint64_t self = (uint64_t)(uint32_t)getpid() << 32;
    for (size_t i = 0; key->size <= CONTROL_PENDING_KEY && i < CONTROL_PENDING_ROWS; i++) {
        size_t index = (start + i) % CONTROL_PENDING_ROWS;
        struct pending_row *row = &control->pending_rows[index];
        _Atomic uint64_t *word = &control->pending[index / 64];
        uint64_t expected = PENDING_FREE, bit = UINT64_C(1) << (index % 64);
        if (!atomic_compare_exchange_strong_explicit(&row->state, &expected, self | PENDING_CLAIMED,
                                                     memory_order_acquire, memory_order_relaxed)) {
            continue;
        }
        /* Whoever reads the new content has seen the commit that freed the row. */
        atomic_thread_fence(memory_order_release);
        atomic_store_explicit(&row->hash, key->hash, memory_order_relaxed);
        atomic_store_explicit(&row->clock, version->clock, memory_order_relaxed);
        row->key_size = (uint32_t)key->size;
        memcpy(row->key, key->data, key->size);
        if (renew) {
            (void)atomic_fetch_or(word, bit); /* seq_cst: before the clock; with marks_fence() */
            *version = clock_next(control);
            atomic_store_explicit(&row->clock, version->clock, memory_order_relaxed);
        }
        row->node = version->node;
        atomic_store_explicit(&row->state, self | PENDING_READY, memory_order_release);
        /* seq_cst: before anything the caller tells others after this call has returned */
        (void)atomic_fetch_or(word, bit);
        return false;
    }
    if (!renew) {
        removal_raise_barrier_here(control, key->hash, version->clock);
        return true;
    }
    removal_raise_barrier(control, key->hash, version->clock);
    atomic_thread_fence(memory_order_release);
    *version = clock_next(control);
    removal_raise_barrier(control, key->hash, version->clock);
    return true;
}

bool removal_pend(struct control *control, const struct key *key, larder_version version)
{
    return pend(control, key, &version, false);
}

bool removal_pend_now(struct control *control, const struct key *key, larder_version *version)
{
    *version = clock_next(control);
    return pend(control, key, version, true);
}

bool removal_next_pending(struct control *control, size_t *index, struct removal_pending *out)
{
    for (size_t i = *index; i < CONTROL_PENDING_ROWS; i++) {
        struct pending_row *row = &control->pending_rows[i];
        uint64_t state = atomic_load_explicit(&row->state, memory_order_acquire);
        pid_t claimer = (pid_t)(state >> 32);
        switch ((uint32_t)state) {
        case PENDING_FREE:
            /* A claimer that was stopped just before it set its bit may set it after the row was
             * freed: take the row like any claimer, so that no other's bit is cleared. */
            if ((atomic_load(&control->pending[i / 64]) >> (i % 64) & 1) == 0 ||
                !atomic_compare_exchange_strong(
                    &row->state, &state, (uint64_t)(uint32_t)getpid() << 32 | PENDING_CLAIMED)) {
                continue;
            }
            break;
        case PENDING_READY:
            if (row->key_size > 0 && row->key_size <= CONTROL_PENDING_KEY) {
                out->index = i;
                out->version = (larder_version){
                    .clock = atomic_load_explicit(&row->clock, memory_order_relaxed),
                    .node = row->node};
                out->key_size = row->key_size;
                memcpy(out->key, row->key, row->key_size);
                *index = i + 1;
                return true;
            }
            break;
        default: /* being filled, or its claimer died doing so: then its call never returned */
            if (claimer > 0 && (kill(claimer, 0) == 0 || errno != ESRCH)) {
                continue;
            }
            /* Only from the very state that was looked at: it may have become ready before it died.
             */
            if (!atomic_compare_exchange_strong(
                    &row->state, &state, (uint64_t)(uint32_t)getpid() << 32 | PENDING_CLAIMED)) {
                i--;
                continue;
            }
        }
        removal_free_pending(control, i);
    }
    *index = CONTROL_PENDING_ROWS;
    return false;
}

void removal_free_pending(struct control *control, size_t index)
{
    /* the bit first: a row that is free is never announced */
    (void)atomic_fetch_and(&control->pending[index / 64], ~(UINT64_C(1) << (index % 64)));
    atomic_store_explicit(&control->pending_rows[index].state, PENDING_FREE, memory_order_release);
}
