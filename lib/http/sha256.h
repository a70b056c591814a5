/* sha256.h: SHA-256 (FIPS 180-4), for the keys of variants: they tell users apart by what their
 * requests carry, so nobody may be able to aim at another's. liblarder links nothing but LMDB and
 * libc, so that it cannot ask a library.
 */
#ifndef LARDER_LIB_HTTP_SHA256_H
#define LARDER_LIB_HTTP_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_SIZE = 32, SHA256_BLOCK = 64 };

struct sha256 {
    uint32_t state[8];
    uint64_t total; /* bytes so far */
    uint8_t block[SHA256_BLOCK];
};

void sha256_begin(struct sha256 *self);
void sha256_add(struct sha256 *self, const void *data, size_t size);
void sha256_end(struct sha256 *self, uint8_t digest[SHA256_SIZE]);

#endif
