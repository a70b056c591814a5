/* names.c: see names.h.
 *
 * A name with a valid hash tag keeps it: key NAME, record v:{tag}NAME. A name without braces is its
 * own tag: record v:{NAME}. A name with braces but no valid tag cannot be put between braces as it
 * is: its braces and percent signs are percent-encoded, in the key as in the record. So that no two
 * names become one, names without braces that look like the result of such an encoding (a "%", any
 * number of "25", then "7B" or "7D") are encoded too.
 */
#include "daemon/redis/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool names_hash_tag(const uint8_t *name, size_t size, size_t *tag_at, size_t *tag_size)
{
    const uint8_t *open = size == 0 ? NULL : memchr(name, '{', size);
    if (open == NULL)
        return false;
    size_t at = (size_t)(open - name) + 1;
    const uint8_t *close = at == size ? NULL : memchr(name + at, '}', size - at);
    if (close == NULL || close == name + at)
        return false;
    *tag_at = at;
    *tag_size = (size_t)(close - name) - at;
    return true;
}

uint16_t names_slot(const uint8_t *name, size_t size)
{
    size_t at = 0, tag = size;
    names_hash_tag(name, size, &at, &tag);
    unsigned crc = 0; /* CRC16/XMODEM, as in Redis's cluster specification */
    for (size_t i = at; i < at + tag; i++) {
        crc ^= (unsigned)name[i] << 8;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc & 0x8000u) != 0 ? (crc << 1) ^ 0x1021u : crc << 1;
        crc &= 0xffffu;
    }
    return (uint16_t)(crc & 16383u);
}

static bool looks_encoded(const uint8_t *name, size_t size)
{
    for (size_t i = 0; i + 2 < size; i++) {
        if (name[i] != '%')
            continue;
        size_t j = i + 1;
        while (j + 3 < size && name[j] == '2' && name[j + 1] == '5')
            j += 2;
        if (j + 1 < size && name[j] == '7' && (name[j + 1] == 'B' || name[j + 1] == 'D'))
            return true;
    }
    return false;
}

static size_t encode(const uint8_t *name, size_t size, uint8_t *out)
{
    size_t used = 0;
    for (size_t i = 0; i < size; i++) {
        const char *code = name[i] == '{' ? "%7B" : name[i] == '}' ? "%7D" : NULL;
        if (name[i] == '%')
            code = "%25";
        if (code != NULL) {
            memcpy(out + used, code, 3);
            used += 3;
        } else {
            out[used++] = name[i];
        }
    }
    return used;
}

static bool begins(const uint8_t *name, size_t size, const char *with)
{
    return size >= strlen(with) && memcmp(name, with, strlen(with)) == 0;
}

int names_of(names_pair *pair, const char *prefix, const uint8_t *key, size_t key_size)
{
    size_t prefix_size = strlen(prefix), size = prefix_size + key_size;
    /* the plain name, its encoded form (3 times), the record (at most twice that and 4) */
    size_t need = size + 3 * size + 2 * 3 * size + 8;
    if (pair->memory_size < need) {
        uint8_t *grown = realloc(pair->memory, need);
        if (grown == NULL)
            return -1;
        pair->memory = grown;
        pair->memory_size = need;
    }
    uint8_t *name = pair->memory;
    memcpy(name, prefix, prefix_size);
    memcpy(name + prefix_size, key, key_size);
    if (begins(name, size, "v:{") || begins(name, size, "larder:{"))
        return -2;

    size_t tag_at = 0, tag_size = 0;
    bool tagged = names_hash_tag(name, size, &tag_at, &tag_size);
    if (!tagged && (memchr(name, '{', size) != NULL || memchr(name, '}', size) != NULL ||
                    looks_encoded(name, size))) {
        uint8_t *encoded = name + size;
        size = encode(name, size, encoded);
        name = encoded;
    }
    uint8_t *record = name + size, *at = record;
    memcpy(at, "v:{", 3);
    at += 3;
    if (tagged) {
        memcpy(at, name + tag_at, tag_size);
        at += tag_size;
        *at++ = '}';
        memcpy(at, name, size);
        at += size;
    } else {
        memcpy(at, name, size);
        at += size;
        *at++ = '}';
    }
    pair->key = name;
    pair->key_size = size;
    pair->record = record;
    pair->record_size = (size_t)(at - record);
    return 0;
}

void names_free(names_pair *pair)
{
    free(pair->memory);
    memset(pair, 0, sizeof *pair);
}

void names_fleet(const char *prefix, const char *what, char *out, size_t out_size)
{
    uint8_t encoded[3 * NAMES_PREFIX_MAX + 1];
    size_t size = strlen(prefix);
    size =
        encode((const uint8_t *)prefix, size > NAMES_PREFIX_MAX ? NAMES_PREFIX_MAX : size, encoded);
    if (size == 0)
        encoded[size++] = '%';
    encoded[size] = 0;
    snprintf(out, out_size, "larder:{%s}:%s", (const char *)encoded, what);
}

/* Decode "%25", "%7B" and "%7D"; returns the size. */
static size_t decode(const uint8_t *in, size_t size, uint8_t *out)
{
    static const char *const codes[] = {"%25", "%7B", "%7D"};
    size_t used = 0;
    for (size_t i = 0; i < size; i++) {
        size_t code = 0;
        while (code < 3 && (size - i < 3 || memcmp(in + i, codes[code], 3) != 0))
            code++;
        out[used++] = code == 3 ? in[i] : (uint8_t) "%{}"[code];
        i += code == 3 ? 0 : 2;
    }
    return used;
}

const uint8_t *names_back(names_pair *pair, const char *prefix, const uint8_t *name, size_t size,
                          size_t *key_size)
{
    size_t prefix_size = strlen(prefix), used = size;
    uint8_t *raw = malloc(size + 1);
    bool found = false;
    if (raw == NULL)
        return NULL;
    memcpy(raw, name, size);
    for (int tries = 0; tries < 2 && !found; tries++) {
        if (tries == 1)
            used = decode(name, size, raw);
        if (used <= prefix_size || memcmp(raw, prefix, prefix_size) != 0 ||
            used - prefix_size > UINT16_MAX)
            continue;
        *key_size = used - prefix_size;
        found = names_of(pair, prefix, raw + prefix_size, *key_size) == 0 &&
                pair->key_size == size && memcmp(pair->key, name, size) == 0;
    }
    free(raw);
    return found ? pair->memory + prefix_size : NULL; /* where names_of() has put it */
}
