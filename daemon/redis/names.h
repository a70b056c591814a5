/* names.h: what things are called in Redis: the plain key of an entry, its version record, the
 * fleet's event stream and channel. Pure. Key and record always hash to the same cluster slot.
 */
#ifndef LARDER_DAEMON_REDIS_NAMES_H
#define LARDER_DAEMON_REDIS_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAMES_PREFIX_MAX 255u /* bytes of a prefix */

/* The part of a name that decides its slot: what stands between the first { and the first } after
 * it, unless that is empty; else false (the whole name decides). */
bool names_hash_tag(const uint8_t *name, size_t size, size_t *tag_at, size_t *tag_size);

/* The slot (0 .. 16383), by Redis's CRC16 rule. */
uint16_t names_slot(const uint8_t *name, size_t size);

typedef struct names_pair { /* both in one buffer that grows and is used again */
    const uint8_t *key, *record;
    size_t key_size, record_size;
    uint8_t *memory;
    size_t memory_size;
} names_pair;

/* Name the plain key and the record of prefix+key. 0; -1: no memory; -2: the name is one of
 * larder's own (it begins with "v:{" or "larder:{") and cannot be stored. */
int names_of(names_pair *pair, const char *prefix, const uint8_t *key, size_t key_size);
void names_free(names_pair *pair);

/* The way back: the user's key of a plain key in Redis, in pair's memory. NULL: no key of larder's
 * has this name. */
const uint8_t *names_back(names_pair *pair, const char *prefix, const uint8_t *name, size_t size,
                          size_t *key_size);

/* "larder:{PREFIX}:events" and "larder:{PREFIX}:channel", with the braces and percent signs of the
 * prefix percent-encoded ("%" alone for an empty prefix). out: at least NAMES_FLEET_MAX bytes. */
#define NAMES_FLEET_MAX (3u * NAMES_PREFIX_MAX + 32u)
void names_fleet(const char *prefix, const char *what, char *out, size_t out_size);

#endif
