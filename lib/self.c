/* self.c: see self.h.
 */
#include "self.h"

#include <unistd.h>

__thread struct self self_known __attribute__((tls_model("initial-exec")));
_Atomic uint32_t self_forks = 1;

const struct self *self_ask(void)
{
    self_known = (struct self){
        .forks = atomic_load_explicit(&self_forks, memory_order_relaxed),
        .process = (uint32_t)getpid(),
        .thread = (uint32_t)gettid(),
    };
    return &self_known;
}
