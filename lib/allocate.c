/* allocate.c: see allocate.h. */
#include "allocate.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#include "error.h"

static uint64_t size_limit(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY
               ? UINT64_MAX
               : (uint64_t)limit.rlim_cur;
}

bool allocate_allowed(uint64_t end)
{
    return end <= size_limit();
}

int allocate_check(uint64_t size, const char *what)
{
    uint64_t limit = size_limit();
    return size <= limit
               ? LARDER_OK
               : error_set(LARDER_ENOSPACE,
                           "%s of %" PRIu64 " bytes: this process may write files of %" PRIu64
                           " bytes at most (RLIMIT_FSIZE)",
                           what, size, limit);
}

int allocate_file(int file, uint64_t size, const char *what)
{
    sigset_t all, before;
    int result = allocate_check(size, what);
    if (result != LARDER_OK) {
        return result;
    }
    /* A signal would end the call early; on some file systems it starts over from the beginning. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int error;
    do {
        error = posix_fallocate(file, 0, (off_t)size);
    } while (error == EINTR);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0) {
        return LARDER_OK;
    }
    errno = error;
    return error_system(error == ENOSPC || error == EDQUOT ? LARDER_ENOSPACE : LARDER_ESYSTEM,
                        "%s of %" PRIu64 " bytes", what, size);
}
