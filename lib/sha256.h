/* sha256.h: SHA-256 (FIPS 180-4) of short texts, for what must not be found out from what is stored
 * (session ids). In the library because a worker links nothing but LMDB and libc.
 */
#ifndef LARDER_LIB_SHA256_H
#define LARDER_LIB_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_SIZE = 32 };

void sha256(const void *data, size_t size, uint8_t digest[SHA256_SIZE]);

#endif
