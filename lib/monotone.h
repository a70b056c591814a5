/* monotone.h: words of shared memory that several processes raise at once: clocks, floors,
 * barriers.
 */
#ifndef LARDER_LIB_MONOTONE_H
#define LARDER_LIB_MONOTONE_H

#include <stdatomic.h>
#include <stdint.h>

/* Let the word be `to` at least. Lock-free: a try fails only where another process has just raised
 * it.
 *
 * seq_cst, also where nothing is stored: who sees the word risen sees what was written before
 * (pairs with the acquire loads of those who judge by it), and a look at another word afterwards
 * stays behind it. Raising is rare, no hit does it, and on x86 a weaker order is the same
 * instruction. */
static inline void monotone_raise(_Atomic uint64_t *word, uint64_t to)
{
    uint64_t now = atomic_load(word);
    while (now < to && !atomic_compare_exchange_weak(word, &now, to)) {
    }
}

#endif
