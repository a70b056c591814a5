/* copy.h: copying a page's worth and more, whose source and target lie as they happen to. memcpy of
 * glibc leaves what is over 2 KiB to `rep movsb` where the processor claims to be fast at that; on
 * AMD's Zen 3 and 4 it moves a byte at a time where the target lies up to 63 bytes above the
 * source, as seen within a page: 4 KiB take 2,300 ns then instead of 80 (doc/decisions/050;
 * sourceware.org, bug 30994). Chunks begin 24 bytes into a page, large buffers of malloc() 16 and
 * of Python 48, so that is no accident. In parts that are too small for it, memcpy uses vectors:
 * as fast as the better of the two everywhere.
 */
#ifndef LARDER_LIB_COPY_H
#define LARDER_LIB_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    COPY_PAGE = 4096,
    COPY_NEAR = 64,  /* this near above is slow, or closer */
    COPY_PART = 1024 /* below any bound of `rep movsb` */
};

static inline bool copy_is_near_above(const void *to, const void *from)
{
    return ((uintptr_t)to - (uintptr_t)from - 1) % COPY_PAGE < COPY_NEAR - 1;
}

/* As memcpy(): the two do not overlap. */
static inline void copy_bytes(void *to, const void *from, size_t size)
{
    if (__builtin_expect(size > COPY_PART && copy_is_near_above(to, from), 0)) {
        do {
            size_t part = COPY_PART;
            __asm__("" : "+r"(part)); /* or gcc, which knows how much it is, uses `rep` itself */
            memcpy(to, from, part);
            to = (uint8_t *)to + part;
            from = (const uint8_t *)from + part;
            size -= part;
        } while (size > COPY_PART);
    }
    __asm__("" : "+r"(size)); /* nor by words, where it knows that it is not much */
    memcpy(to, from, size);
}

#endif
