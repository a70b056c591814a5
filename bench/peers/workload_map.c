/* workload_map.c: the workers' side: see workload.h. Also in uWSGI's module: needs nothing of the
 * harness.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "peer.h"
#include "workload.h"

const char *const workload_names[WORKLOAD_COUNT] = {"fill", "zipf", "uniform"};

struct workload_stream workload_map(const char *directory, const char *name)
{
    struct workload_stream stream = {NULL, 0, 0};
    struct stat status;
    char path[512];
    snprintf(path, sizeof path, "%s/keys.%s", directory, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return stream;
    if (fstat(file, &status) == 0 && status.st_size >= PEER_KEY_SIZE) {
        void *keys = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, file, 0);
        if (keys != MAP_FAILED) {
            stream.keys = keys;
            stream.count = (size_t)status.st_size / PEER_KEY_SIZE;
        }
    }
    close(file);
    return stream;
}
