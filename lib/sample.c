/* sample.c: see sample.h.
 */
#include "sample.h"

#include <stdatomic.h>
#include <time.h>

#include "handle.h"
#include "hot_keys.h"
#include "key.h"
#include "latency.h"

enum { CLOCK_TRIES = 8, CLOCK_CHEAP_NS = 250 };

__thread struct sample_thread sample_thread;

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Whether the clock can be read without the kernel: then it takes some 25 ns, else several hundred.
 * Asked once a process. */
static bool clock_is_cheap(void)
{
    static _Atomic int known; /* 0: not yet, 1: cheap, 2: not */
    int answer = atomic_load_explicit(&known, memory_order_relaxed);
    if (__builtin_expect(answer == 0, 0)) {
        uint64_t best = UINT64_MAX;
        for (int i = 0; i < CLOCK_TRIES; i++) {
            uint64_t began = now_ns();
            uint64_t took = now_ns() - began;
            best = took < best ? took : best;
        }
        answer = best <= CLOCK_CHEAP_NS ? 1 : 2;
        atomic_store_explicit(&known, answer, memory_order_relaxed);
    }
    return answer == 1;
}

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016 */
static uint32_t next_random(void)
{
    uint64_t x = sample_thread.random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    sample_thread.random = x;
    return (uint32_t)(x * UINT64_C(2685821657736338717) >> 32);
}

uint64_t sample_begin_slow(uint32_t *left, uint32_t one_in)
{
    if (sample_thread.random == 0) {
        /* a thread's first call opens things: not one of many */
        sample_thread.random = now_ns() ^ (uint64_t)(uintptr_t)&sample_thread;
        sample_thread.random |= 1;
        *left = next_random() % one_in;
        return 0;
    }
    *left = next_random() % (2 * one_in - 1); /* on average one_in - 1 that are not sampled */
    return clock_is_cheap() ? now_ns() : 1;
}

static void note(const larder *handle, uint64_t began, uint32_t kind)
{
    if (began != 1) {
        uint32_t stripe = (uint32_t)((uintptr_t)&sample_thread >> 12);
        latency_note(&map_control(handle->map)->latency, kind, stripe, now_ns() - began);
    }
}

int sample_end_read(const larder *handle, uint64_t began, const void *key, size_t key_size,
                    int outcome)
{
    bool found = outcome == LARDER_OK || outcome == LARDER_ABSENT || outcome == LARDER_STALE;
    if (!found && outcome != LARDER_MISS) {
        return outcome; /* an error tells of no key */
    }
    note(handle, began, found ? LARDER_LATENCY_HIT : LARDER_LATENCY_MISS);
    hot_keys_note(&map_control(handle->map)->hot_keys, key_hash(key, key_size), key, key_size,
                  found, next_random());
    return outcome;
}

int sample_end_write(const larder *handle, uint64_t began, uint32_t kind, int outcome)
{
    if (outcome >= 0) {
        note(handle, began, kind);
    }
    return outcome;
}
