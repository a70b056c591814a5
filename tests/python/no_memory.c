/* no_memory.c: for test_memory.py, before all other objects (LD_PRELOAD): fails one allocation. */
#include <errno.h>
#include <stddef.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);

static long left; /* until the one that fails; 0: none does */

/* Fail the number-th from now on. */
void no_memory_at(long number);
/* Whether it has. */
int no_memory_end(void);

void no_memory_at(long number)
{
    left = number;
}

int no_memory_end(void)
{
    int failed = left == 0;
    left = 0;
    return failed;
}

static int fails(void)
{
    if (left == 0 || --left != 0) {
        return 0;
    }
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size)
{
    return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    return fails() ? NULL : __libc_realloc(memory, size);
}
