/* fuzz_names.c: any prefix and any two keys (parted by 0 bytes): an entry's two names share a slot
 * of the cluster, no two keys share a name, and larder's own names are not taken.
 */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/names.h"

static bool same(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    return a_size == b_size && memcmp(a, b, a_size) == 0;
}

static bool name(names_pair *pair, const char *prefix, const uint8_t *key, size_t size)
{
    int result = names_of(pair, prefix, key, size);
    fuzz_check(result == 0 || result == -2);
    if (result != 0)
        return false;
    fuzz_check(pair->key_size >= size && pair->record_size > pair->key_size);
    fuzz_check(names_slot(pair->key, pair->key_size) ==
               names_slot(pair->record, pair->record_size));
    fuzz_check(memcmp(pair->record, "v:{", 3) == 0);
    fuzz_check(pair->key_size < 3 || memcmp(pair->key, "v:{", 3) != 0);
    fuzz_check(pair->key_size < 8 || memcmp(pair->key, "larder:{", 8) != 0);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const prefixes[] = {"", "p:", "{p}:", "{", "%7B", "v:", "larder:"};
    const uint8_t *zero = size < 2 ? NULL : memchr(data + 1, 0, size - 1);
    names_pair one = {0}, other = {0};
    if (zero == NULL || zero == data + 1 || zero + 1 == data + size)
        return 0;
    const char *prefix = prefixes[data[0] % (sizeof prefixes / sizeof *prefixes)];
    const uint8_t *a = data + 1, *b = zero + 1;
    size_t a_size = (size_t)(zero - a), b_size = (size_t)(data + size - b);
    if (name(&one, prefix, a, a_size) && name(&other, prefix, b, b_size)) {
        bool equal = same(a, a_size, b, b_size);
        fuzz_check(same(one.key, one.key_size, other.key, other.key_size) == equal);
        fuzz_check(same(one.record, one.record_size, other.record, other.record_size) == equal);
        fuzz_check(!same(one.key, one.key_size, other.record, other.record_size));
    }
    names_free(&one);
    names_free(&other);
    return 0;
}
