/* clock_shim.c: preloaded into the processes of a host, or into a Redis, so that the test can set
 * its wall clock: what $LARDER_CHAOS_CLOCK (a file of one int64_t, milliseconds) holds is added to
 * the real time. The monotonic clock goes on as it does on a real machine whose clock is set.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

typedef int clock_function(clockid_t, struct timespec *);

static clock_function *real_clock;
static const _Atomic int64_t *offset_ms;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("LARDER_CHAOS_CLOCK");
    real_clock = (clock_function *)(uintptr_t)dlsym(RTLD_NEXT, "clock_gettime");
    int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return;
    void *map = mmap(NULL, sizeof *offset_ms, PROT_READ, MAP_SHARED, file, 0);
    if (map != MAP_FAILED)
        offset_ms = map;
    close(file);
}

__attribute__((visibility("default"))) int clock_gettime(clockid_t id, struct timespec *out)
{
    if (real_clock == NULL) /* another constructor was first */
        real_clock = (clock_function *)(uintptr_t)dlsym(RTLD_NEXT, "clock_gettime");
    int result = real_clock(id, out);
    if (result != 0 || offset_ms == NULL || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE))
        return result;
    int64_t ms = atomic_load_explicit(offset_ms, memory_order_relaxed);
    int64_t ns = (int64_t)out->tv_nsec + ms % 1000 * 1000000;
    out->tv_sec += (time_t)(ms / 1000) + (ns < 0 ? -1 : ns >= 1000000000 ? 1 : 0);
    out->tv_nsec = (long)(ns < 0 ? ns + 1000000000 : ns >= 1000000000 ? ns - 1000000000 : ns);
    return 0;
}

__attribute__((visibility("default"))) int gettimeofday(struct timeval *restrict out,
                                                        void *restrict zone)
{
    struct timespec now;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return result;
}

__attribute__((visibility("default"))) time_t time(time_t *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out != NULL)
        *out = now.tv_sec;
    return now.tv_sec;
}
