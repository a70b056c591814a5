/* sha256.c: see sha256.h. Written after FIPS 180-4, sections 4.1.2, 4.2.2, 5 and 6.2.
 */
#include "sha256.h"

#include <endian.h>
#include <string.h>

enum { ROUNDS = 64, LENGTH_AT = 56 };

/* Section 4.2.2: the first 32 bits of the fractional parts of the cube roots of the first 64
 * primes. */
static const uint32_t constants[ROUNDS] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t word, unsigned by)
{
    return (word >> by) | (word << (32 - by));
}

static void schedule(uint32_t words[ROUNDS], const uint8_t *block)
{
    for (size_t i = 0; i < 16; i++) {
        memcpy(&words[i], block + i * sizeof words[i], sizeof words[i]);
        words[i] = be32toh(words[i]);
    }
    for (size_t i = 16; i < ROUNDS; i++) {
        uint32_t a = words[i - 15], b = words[i - 2];
        words[i] = words[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ (a >> 3)) + words[i - 7] +
                   (rotate(b, 17) ^ rotate(b, 19) ^ (b >> 10));
    }
}

static void compress(uint32_t state[8], const uint8_t *block)
{
    uint32_t words[ROUNDS], v[8];
    schedule(words, block);
    memcpy(v, state, sizeof v);
    for (size_t i = 0; i < ROUNDS; i++) {
        uint32_t a = v[0], e = v[4];
        uint32_t first = v[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) +
                         ((e & v[5]) ^ (~e & v[6])) + constants[i] + words[i];
        uint32_t second = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) +
                          ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
        memmove(&v[1], &v[0], 7 * sizeof v[0]);
        v[4] += first;
        v[0] = first + second;
    }
    for (size_t i = 0; i < 8; i++) {
        state[i] += v[i];
    }
}

void sha256_begin(struct sha256 *self)
{
    static const uint32_t initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(self->state, initial, sizeof initial);
    self->total = 0;
}

void sha256_add(struct sha256 *self, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    while (size > 0) {
        size_t filled = self->total % SHA256_BLOCK, part = SHA256_BLOCK - filled;
        part = part > size ? size : part;
        memcpy(self->block + filled, bytes, part);
        self->total += part;
        bytes += part;
        size -= part;
        if (filled + part == SHA256_BLOCK) {
            compress(self->state, self->block);
        }
    }
}

void sha256_end(struct sha256 *self, uint8_t digest[SHA256_SIZE])
{
    static const uint8_t padding[SHA256_BLOCK] = {0x80};
    uint64_t bits = htobe64(self->total * 8);
    size_t filled = self->total % SHA256_BLOCK;
    sha256_add(self, padding, (filled < LENGTH_AT ? LENGTH_AT : SHA256_BLOCK + LENGTH_AT) - filled);
    sha256_add(self, &bits, sizeof bits);
    for (size_t i = 0; i < 8; i++) {
        uint32_t word = htobe32(self->state[i]);
        memcpy(digest + i * sizeof word, &word, sizeof word);
    }
}

void sha256(const void *data, size_t size, uint8_t digest[SHA256_SIZE])
{
    struct sha256 hash;
    sha256_begin(&hash);
    sha256_add(&hash, data, size);
    sha256_end(&hash, digest);
}
