/* asking.h: read-through as the callers of the library see it: larder_ask() and what read.c and
 * fetch.c do with it.
 */
#ifndef LARDER_LIB_ASKING_H
#define LARDER_LIB_ASKING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "larder.h"

/* EINVAL where it is none. */
int asking_check_budget(int64_t budget_ms);

/* Have larderd ask Redis for a key that was a miss, and wait. Whether to look again. */
bool asking_read_through(larder *handle, const void *key, size_t key_size, int64_t budget_ms);

#endif
