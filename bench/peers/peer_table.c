/* peer_table.c: the floor: a hash table of fixed slots in a shared file, a sequence lock a slot. No
 * expiry, no eviction, no deletes, no room for a larger value, and a writer that is killed leaves
 * its slot locked for ever: what a look-up in shared memory costs when nothing at all is promised.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "peer.h"

struct slot {
    _Atomic uint32_t sequence; /* odd while it is written; 0 = never used */
    uint32_t size;
    char key[PEER_KEY_SIZE];
    uint8_t value[];
};

static uint8_t *memory_begin;
static size_t stride, slots;

static bool open_store(const struct peer_setup *setup)
{
    char path[512];
    stride = (sizeof(struct slot) + setup->value_size + 63) & ~(size_t)63;
    slots = setup->entries + setup->entries / 2 + 16;
    snprintf(path, sizeof path, "%s/table", setup->directory);
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0)
        return peer_failed("table: open: %s", strerror(errno));
    int code = posix_fallocate(file, 0, (off_t)(slots * stride));
    void *begin = code == 0
                      ? mmap(NULL, slots * stride, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
                      : MAP_FAILED;
    close(file);
    if (begin == MAP_FAILED)
        return peer_failed("table: %s", strerror(code != 0 ? code : errno));
    memory_begin = begin;
    return true;
}

static struct slot *slot_at(size_t at)
{
    return (struct slot *)(void *)(memory_begin + at * stride);
}

static size_t first_slot(const char *key)
{
    return (size_t)((XXH3_64bits(key, PEER_KEY_SIZE) >> 32) * slots >> 32);
}

static int64_t get(const char *key, void *buffer, size_t buffer_size)
{
    for (size_t at = first_slot(key);; at = at + 1 == slots ? 0 : at + 1) {
        struct slot *slot = slot_at(at);
        for (;;) {
            /* Acquire: pairs with the release that ends a write. */
            uint32_t before = atomic_load_explicit(&slot->sequence, memory_order_acquire);
            if (before == 0)
                return -1;
            if ((before & 1) != 0)
                continue;
            bool same = memcmp(slot->key, key, PEER_KEY_SIZE) == 0;
            uint32_t size = slot->size;
            if (same && size <= buffer_size)
                memcpy(buffer, slot->value, size);
            atomic_thread_fence(memory_order_acquire); /* the copy is done before the second look */
            if (atomic_load_explicit(&slot->sequence, memory_order_relaxed) != before)
                continue;
            if (same)
                return (int64_t)size;
            break;
        }
    }
}

static bool set(const char *key, const void *value, size_t size)
{
    for (size_t at = first_slot(key);; at = at + 1 == slots ? 0 : at + 1) {
        struct slot *slot = slot_at(at);
        uint32_t before = atomic_load_explicit(&slot->sequence, memory_order_relaxed);
        while ((before & 1) != 0 ||
               !atomic_compare_exchange_weak_explicit(&slot->sequence, &before, before + 1,
                                                      memory_order_acquire, memory_order_relaxed))
            before = atomic_load_explicit(&slot->sequence, memory_order_relaxed);
        if (before != 0 && memcmp(slot->key, key, PEER_KEY_SIZE) != 0) {
            atomic_store_explicit(&slot->sequence, before, memory_order_release);
            continue;
        }
        atomic_thread_fence(memory_order_release); /* readers see the odd number first */
        memcpy(slot->key, key, PEER_KEY_SIZE);
        memcpy(slot->value, value, size);
        slot->size = (uint32_t)size;
        atomic_store_explicit(&slot->sequence, before + 2, memory_order_release);
        return true;
    }
}

static uint64_t memory(void)
{
    return slots * stride;
}

const struct peer peer_table = {.name = "table",
                                .what = "a bare hash table with sequence locks: the floor",
                                .open = open_store,
                                .get = get,
                                .set = set,
                                .memory = memory};
