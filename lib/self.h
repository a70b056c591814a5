/* self.h: which process and thread this is, without a system call each time: slots and gates are
 * marked by number. registry.c says when there was a fork; nothing else may rely on a number that
 * was kept.
 */
#ifndef LARDER_LIB_SELF_H
#define LARDER_LIB_SELF_H

#include <stdatomic.h>
#include <stdint.h>

struct self {
    uint32_t forks; /* self_forks, when this was asked of the kernel */
    uint32_t process, thread;
};

extern __thread struct self self_known __attribute__((tls_model("initial-exec")));
extern _Atomic uint32_t self_forks; /* of this process's line; from 1 */

const struct self *self_ask(void);

/* The numbers of the calling thread. */
static inline const struct self *self(void)
{
    /* relaxed: whoever forks and whoever is asked in the child is one thread, or was started by it
     */
    uint32_t forks = atomic_load_explicit(&self_forks, memory_order_relaxed);
    return __builtin_expect(self_known.forks == forks, 1) ? &self_known : self_ask();
}

/* In a child, before anything else asks. */
static inline void self_forked(void)
{
    (void)atomic_fetch_add_explicit(&self_forks, 1, memory_order_relaxed);
}

#endif
