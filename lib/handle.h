/* handle.h: the first lines of every public function.
 */
#ifndef LARDER_LIB_HANDLE_H
#define LARDER_LIB_HANDLE_H

#include "error.h"
#include "larder.h"
#include "map.h"
#include "registry.h"

/* A valid handle, and the fork noticed; or EINVAL. */
static inline int handle_enter(const struct larder *handle)
{
    if (__builtin_expect(handle == NULL || handle->magic != HANDLE_MAGIC, 0)) {
        return error_set(LARDER_EINVAL, "not an open larder handle");
    }
    registry_check_fork();
    return LARDER_OK;
}

/* The largest value a map of that size takes; wanted 0: the default. */
uint64_t handle_value_limit(uint64_t wanted, uint64_t map_size);

/* EINVAL where a map cannot have that size. */
int handle_check_size(uint64_t map_size);

static inline int handle_enter_write(const struct larder *handle)
{
    int result = handle_enter(handle);
    if (result == LARDER_OK && __builtin_expect((handle->flags & LARDER_READ_ONLY) != 0, 0)) {
        return error_set(LARDER_EREADONLY, "the handle was opened read-only");
    }
    return result;
}

#endif
