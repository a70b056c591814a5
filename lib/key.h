/* key.h: from a caller's key to what the store looks up.
 *
 * LMDB's keys end at 511 bytes; ours at 65,535. The *form* is what stands in the tree:
 *   0x02 KEY                               for keys of up to 509 bytes (form of up to 510 bytes)
 *   0x02 first 494 bytes, XXH3-128 of KEY  for longer ones (form of 511 bytes exactly)
 * The two cannot meet. Forms keep the keys' byte order up to 494 bytes, so that a prefix is a
 * range. 0x02 keeps entries apart from the records of the named databases, which begin with 0x01.
 * A long key stands in full in its record and is compared on every read. MAP_FORMAT
 */
#ifndef LARDER_LIB_KEY_H
#define LARDER_LIB_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "larder.h"

enum {
    KEY_FORM_MAX = 511,
    KEY_PLAIN_MAX = 509,   /* longest key that stands in the tree as it is */
    KEY_LONG_PREFIX = 494, /* bytes of a long key that stand in the tree */
    KEY_TAG = 0x02
};

struct key {
    const uint8_t *data;
    size_t size;
    uint64_t hash; /* XXH3 64 bits of the whole key: bucket, popularity, pending rows */
    size_t form_size;
    bool is_long;
    uint8_t form[KEY_FORM_MAX];
};

/* LARDER_OK, or EINVAL (empty), ETOOBIG. */
int key_make(struct key *key, const void *data, size_t size);

/* The same in two steps, for who may need no form: all but the form, and the form. */
int key_begin(struct key *key, const void *data, size_t size);
void key_shape(struct key *key);

uint64_t key_hash(const void *data, size_t size);

/* 128 bits of it, for what holds no key to compare with. */
void key_hash_wide(const void *data, size_t size, uint64_t hash[2]);

/* The lower bound of all forms whose key begins with prefix. Returns the bound's size; bound must
 * hold KEY_FORM_MAX bytes. */
size_t key_prefix_bound(uint8_t *bound, const void *prefix, size_t prefix_size);

/* Write size bytes of text for a message: control characters and non-ASCII as \xHH, cut with "...".
 */
const char *key_printable(char *text, size_t size, const void *data, size_t data_size);

#endif
