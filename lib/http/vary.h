/* vary.h: variants of a page (RFC 9111, 4.1): the names that it varies by, the request's values of
 * these as a digest, and the key that is made of it.
 */
#ifndef LARDER_LIB_HTTP_VARY_H
#define LARDER_LIB_HTTP_VARY_H

#include <stdbool.h>
#include <stdint.h>

#include "http/arena.h"
#include "larder_http.h"
#include "sha256.h"

struct vary {
    larder_bytes names[LARDER_HTTP_VARY_MAX]; /* in any case; sorted by vary_sort() */
    size_t count;
    bool anything; /* "*" */
    bool too_many;
};

/* The names of all Vary fields of a response. */
void vary_read(const larder_http_response *response, struct vary *vary);
void vary_add(struct vary *vary, larder_bytes name); /* unless it is there already */

/* In lower case, sorted, parted by ','. NULL data where memory was too small; see arena.h. */
larder_bytes vary_join(struct vary *vary, struct arena *arena);

/* Is the name in a joined list? */
bool vary_has(larder_bytes joined, larder_bytes name);

/* Is it a list as vary_join() makes them (of at most LARDER_HTTP_VARY_MAX names)? */
bool vary_valid(larder_bytes joined);

void vary_digest(larder_bytes joined, const larder_http_request *request,
                 uint8_t digest[SHA256_SIZE]);

/* KEY#SEED#DIGEST. LARDER_OK, ETOOBIG, ESIZE. */
int vary_key(larder_bytes key, uint64_t seed, const uint8_t digest[SHA256_SIZE],
             larder_http_arena *arena, larder_bytes *variant);

#endif
