/* hot_keys.h: which keys are asked for most, from sampled lookups: a small table in the control
 * segment in which heavy keys stay and the others wear each other away (HeavyKeeper: Yang et al.,
 * USENIX ATC 2018). Written by sample.c, read by the tool. Races lose a count or tear a slot, which
 * its checksum shows; nothing is locked, so nothing can be left locked.
 */
#ifndef LARDER_LIB_HOT_KEYS_H
#define LARDER_LIB_HOT_KEYS_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HOT_KEYS_SETS = 128,
    HOT_KEYS_WAYS = 4,
    HOT_KEYS_SLOTS = HOT_KEYS_SETS * HOT_KEYS_WAYS,
    HOT_KEYS_KEPT = 96,         /* bytes of a key */
    HOT_KEYS_HALVE_AT = 1 << 15 /* samples: then all counts are halved, so that the past fades */
};

struct hot_key_slot {
    _Atomic uint64_t hash; /* of the key in full; 0: free, or being written */
    _Atomic uint64_t checksum;
    _Atomic uint32_t count, hits;
    uint32_t key_size; /* in full */
    uint32_t reserved;
    uint8_t key[HOT_KEYS_KEPT];
};
static_assert(sizeof(struct hot_key_slot) == 128, "MAP_FORMAT");

struct hot_key_table {
    _Atomic uint64_t samples; /* ever taken */
    _Atomic uint64_t halved;  /* samples when the counts were halved last */
    _Atomic uint64_t total;   /* samples, halved as the counts are: the whole of which they are */
    uint8_t padding[40];
    struct hot_key_slot slots[HOT_KEYS_SLOTS];
};
static_assert(sizeof(struct hot_key_table) % 64 == 0, "MAP_FORMAT");

/* A lookup of the key was sampled. chance: any random number. */
void hot_keys_note(struct hot_key_table *table, uint64_t hash, const void *key, size_t key_size,
                   bool hit, uint32_t chance);

struct hot_key {
    uint64_t hash;
    uint32_t count, hits;
    uint32_t key_size, kept; /* kept < key_size: only the key's beginning is known */
    uint8_t key[HOT_KEYS_KEPT];
};

/* Up to max keys, the most asked for first; *total: of what their counts are a part. */
size_t hot_keys_read(const struct hot_key_table *table, struct hot_key *keys, size_t max,
                     uint64_t *total);

#endif
