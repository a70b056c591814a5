/* expiry.h: from what a caller asks for to an absolute time. Pure functions, no clock of their own.
 */
#ifndef LARDER_LIB_EXPIRY_H
#define LARDER_LIB_EXPIRY_H

#include <stdint.h>

#include "larder.h"

/* The moment an entry written at now_ms expires: ms since the epoch, INT64_MAX for never. It may
 * lie in the past (LARDER_EXPIRY_AT): then the write is a delete. EINVAL: negative time, a period
 * that is not a whole number of seconds, offset outside
 * (-period, period), unknown kind; EOVERFLOW; EUNSUPPORTED: sliding. */
int expiry_resolve(const larder_expiry *expiry, int64_t now_ms, int64_t *expires_at_ms);

#endif
