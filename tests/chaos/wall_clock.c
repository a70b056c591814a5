/* wall_clock.c: see wall_clock.h. */
#include "tests/chaos/wall_clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/multi/harness.h"

/* The shim, beside this program. */
static const char *shim(void)
{
    static char path[600];
    ssize_t size = TEST_SLOWNESS > 1 ? 0 : readlink("/proc/self/exe", path, sizeof path - 40);
    char *slash = size > 0 ? memrchr(path, '/', (size_t)size) : NULL;
    if (slash == NULL)
        return NULL;
    memcpy(slash, "/.libs/clock_shim.so", sizeof "/.libs/clock_shim.so");
    return access(path, R_OK) == 0 ? path : NULL;
}

bool wall_clock_can_be_set(void)
{
    return shim() != NULL;
}

void wall_clock_make(struct wall_clock *clock, const char *name)
{
    snprintf(clock->path, sizeof clock->path, "%s/%s.clock", test_directory(), name);
    int file = open(clock->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    test_check(file >= 0 && ftruncate(file, sizeof *clock->offset_ms) == 0, "%s: %s", clock->path,
               strerror(errno));
    clock->offset_ms =
        mmap(NULL, sizeof *clock->offset_ms, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    test_check(clock->offset_ms != MAP_FAILED, "mmap: %s", strerror(errno));
    close(file);
}

void wall_clock_set(const struct wall_clock *clock, int64_t offset_ms)
{
    atomic_store(clock->offset_ms, offset_ms);
}

const char *const *wall_clock_environment(const struct wall_clock *clock)
{
    static char preload[700], path[400];
    static const char *const variables[] = {path, preload, NULL}, *const none[] = {NULL};
    if (!wall_clock_can_be_set())
        return none;
    snprintf(path, sizeof path, "LARDER_CHAOS_CLOCK=%s", clock->path);
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", shim());
    return variables;
}
