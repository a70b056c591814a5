/* hotset_file.c: the hot set's file: allocated, checked, mapped.
 */
#include "hotset.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "allocate.h"
#include "error.h"
#include "larder.h"

/* What is only allocated costs a page fault for each page in each process. What was touched once
 * the kernel maps sixteen pages at a time (fault-around). Where it cannot, nothing is lost but
 * time. */
static void touch_pages(int file, uint64_t size)
{
#ifdef MADV_POPULATE_WRITE
    void *memory = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory != MAP_FAILED) {
        (void)madvise(memory, (size_t)size, MADV_POPULATE_WRITE);
        (void)munmap(memory, (size_t)size);
    }
#else
    (void)file;
    (void)size;
#endif
}

int hotset_create(const char *directory, uint64_t size)
{
    char path[4200];
    if (size == 0) {
        return LARDER_OK;
    }
    (void)snprintf(path, sizeof path, "%s/" HOTSET_NAME, directory);
    int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0) {
        return error_system(LARDER_ESYSTEM, "%s", path);
    }
    int result = allocate_file(file, size, "hot set");
    if (result == LARDER_OK) {
        touch_pages(file, size);
    }
    (void)close(file);
    return result;
}

int hotset_open(const char *directory, uint64_t size, struct hotset *hot)
{
    char path[4200];
    struct stat status;
    *hot = (struct hotset){.pages = NULL};
    if (size == 0) {
        return LARDER_OK;
    }
    (void)snprintf(path, sizeof path, "%s/" HOTSET_NAME, directory);
    int file = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0) {
        return error_system(errno == ENOENT   ? LARDER_ECORRUPT
                            : errno == EACCES ? LARDER_EACCESS
                                              : LARDER_ESYSTEM,
                            "%s", path);
    }
    int result = LARDER_OK;
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || (uint64_t)status.st_size != size ||
        size % HOTSET_PAGE != 0 || size > HOTSET_SIZE_MAX) {
        result = error_set(LARDER_ECORRUPT, "%s is not a hot set of %" PRIu64 " bytes", path, size);
        goto out;
    }
    void *memory = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) {
        result = error_system(LARDER_ENOMEM, "mmap of a hot set of %" PRIu64 " bytes", size);
        goto out;
    }
    hot->pages = memory;
    hot->count = size / HOTSET_PAGE;
    hot->pid = getpid();
out:
    (void)close(file);
    return result;
}

void hotset_close(struct hotset *hot)
{
    if (hot->pages != NULL) {
        (void)munmap(hot->pages, (size_t)hot->count * HOTSET_PAGE);
        hot->pages = NULL;
    }
}
