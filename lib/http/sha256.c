/* sha256.c: see sha256.h. Names and numbers of the sections are those of FIPS 180-4.
 */
#include "http/sha256.h"

#include <string.h>

static const uint32_t K[64] = {/* 4.2.2 */
                               0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b,
                               0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
                               0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7,
                               0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
                               0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152,
                               0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
                               0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
                               0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
                               0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
                               0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
                               0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
                               0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
                               0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t value, unsigned bits)
{
    return value >> bits | value << (32 - bits);
}

static void block_add(struct sha256 *self, const uint8_t *block) /* 6.2.2 */
{
    uint32_t w[64], v[8];
    for (unsigned t = 0; t < 16; t++) {
        w[t] = (uint32_t)block[4 * t] << 24 | (uint32_t)block[4 * t + 1] << 16 |
               (uint32_t)block[4 * t + 2] << 8 | block[4 * t + 3];
    }
    for (unsigned t = 16; t < 64; t++) {
        uint32_t low = rotate(w[t - 15], 7) ^ rotate(w[t - 15], 18) ^ w[t - 15] >> 3;
        uint32_t high = rotate(w[t - 2], 17) ^ rotate(w[t - 2], 19) ^ w[t - 2] >> 10;
        w[t] = high + w[t - 7] + low + w[t - 16];
    }
    memcpy(v, self->state, sizeof v);
    for (unsigned t = 0; t < 64; t++) {
        uint32_t sum_e = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25);
        uint32_t choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
        uint32_t t1 = v[7] + sum_e + choice + K[t] + w[t];
        uint32_t sum_a = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22);
        uint32_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
        memmove(v + 1, v, 7 * sizeof v[0]);
        v[4] += t1;
        v[0] = t1 + sum_a + majority;
    }
    for (unsigned i = 0; i < 8; i++) {
        self->state[i] += v[i];
    }
}

void sha256_begin(struct sha256 *self)
{
    static const uint32_t initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, /* 5.3.3 */
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
            block_add(self, self->block);
        }
    }
}

void sha256_end(struct sha256 *self, uint8_t digest[SHA256_SIZE]) /* 5.1.1 */
{
    static const uint8_t padding[SHA256_BLOCK] = {0x80};
    uint8_t length[8];
    uint64_t bits = self->total * 8;
    for (unsigned i = 0; i < 8; i++) {
        length[i] = (uint8_t)(bits >> (56 - 8 * i));
    }
    size_t filled = self->total % SHA256_BLOCK;
    sha256_add(self, padding, (filled < 56 ? 56 : 120) - filled);
    sha256_add(self, length, sizeof length);
    for (unsigned i = 0; i < SHA256_SIZE; i++) {
        digest[i] = (uint8_t)(self->state[i / 4] >> (24 - 8 * (i % 4)));
    }
}
