/* touch.h: giving an entry another expiry: larder_touch(), and what a read of a sliding entry does.
 */
#ifndef LARDER_LIB_TOUCH_H
#define LARDER_LIB_TOUCH_H

#include "larder.h"
#include "lookup.h"

void touch_slide(const struct larder *handle, const struct lookup *l);

/* After a read that found l, its snapshot given back: extend a sliding entry, if that is due. Never
 * waits and never fails: what cannot be written now, the next read tries again. */
static inline void touch_after_read(const struct larder *handle, const struct lookup *l,
                                    unsigned flags)
{
    if (__builtin_expect(l->record.sliding_ms != 0, 0) && (flags & LARDER_PEEK) == 0) {
        touch_slide(handle, l);
    }
}

/* Get-and-extend, after the get: the expiry (LARDER_EXPIRY_DEFAULT: the entry's own sliding period)
 * counts from now; *expires_ms changes where that worked. Waits like a write. */
void touch_extend(larder *handle, const void *key, size_t key_size, const larder_expiry *expiry,
                  int64_t *expires_ms);

#endif
