/* key.c: forms of keys and their hashes. Pure functions.
 */
#include "key.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdio.h>
#include <string.h>

#include "error.h"

uint64_t key_hash(const void *data, size_t size)
{
    return XXH3_64bits(data, size);
}

void key_hash_wide(const void *data, size_t size, uint64_t hash[2])
{
    XXH128_hash_t wide = XXH3_128bits(data, size);
    hash[0] = wide.low64;
    hash[1] = wide.high64;
}

int key_begin(struct key *key, const void *data, size_t size)
{
    if (__builtin_expect(data == NULL || size == 0 || size > LARDER_KEY_MAX, 0)) {
        if (size > LARDER_KEY_MAX) {
            return error_set(LARDER_ETOOBIG, "key of %zu bytes: the limit is %u", size,
                             LARDER_KEY_MAX);
        }
        return error_set(LARDER_EINVAL, "key of 0 bytes: a key has 1 to %u", LARDER_KEY_MAX);
    }
    key->data = data;
    key->size = size;
    key->hash = XXH3_64bits(data, size);
    key->is_long = size > KEY_PLAIN_MAX;
    return LARDER_OK;
}

void key_shape(struct key *key)
{
    key->form[0] = KEY_TAG;
    if (__builtin_expect(!key->is_long, 1)) {
        memcpy(key->form + 1, key->data, key->size);
        key->form_size = key->size + 1;
        return;
    }
    memcpy(key->form + 1, key->data, KEY_LONG_PREFIX);
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(key->data, key->size));
    memcpy(key->form + 1 + KEY_LONG_PREFIX, &canonical, sizeof canonical);
    key->form_size = KEY_FORM_MAX;
}

int key_make(struct key *key, const void *data, size_t size)
{
    int result = key_begin(key, data, size);
    if (__builtin_expect(result == LARDER_OK, 1)) {
        key_shape(key);
    }
    return result;
}

size_t key_prefix_bound(uint8_t *bound, const void *prefix, size_t prefix_size)
{
    size_t size = prefix_size < KEY_LONG_PREFIX ? prefix_size : KEY_LONG_PREFIX;
    bound[0] = KEY_TAG;
    if (size > 0) {
        memcpy(bound + 1, prefix, size);
    }
    return size + 1;
}

const char *key_printable(char *text, size_t size, const void *data, size_t data_size)
{
    const uint8_t *bytes = data;
    size_t used = 0;
    if (size == 0) {
        return "";
    }
    for (size_t i = 0; i < data_size; i++) {
        bool plain = bytes[i] >= 0x20 && bytes[i] < 0x7f && bytes[i] != '\\';
        size_t need = plain ? 1 : 4;
        if (used + need + sizeof "..." > size) {
            if (used + sizeof "..." <= size) {
                memcpy(text + used, "...", 3);
                used += 3;
            }
            break;
        }
        if (plain) {
            text[used++] = (char)bytes[i];
        } else {
            (void)snprintf(text + used, size - used, "\\x%02x", bytes[i]);
            used += 4;
        }
    }
    text[used] = '\0';
    return text;
}
