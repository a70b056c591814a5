/* arena.c: see arena.h.
 */
#include "http/arena.h"

#include <stdint.h>

#include "error.h"

enum { ALIGNMENT = 8 };

struct arena arena_begin(larder_http_arena *memory)
{
    return (struct arena){.memory = memory, .at = memory->used, .too_small = false};
}

static void *take(struct arena *arena, size_t size)
{
    const larder_http_arena *memory = arena->memory;
    if (size > SIZE_MAX / 2 - arena->at) {
        size = SIZE_MAX / 2 - arena->at;
        arena->too_small = true;
    }
    size_t begin = arena->at;
    arena->at += size;
    if (memory->data == NULL || arena->at > memory->size) {
        arena->too_small = true;
    }
    return arena->too_small ? NULL : (char *)memory->data + begin;
}

void *arena_take(struct arena *arena, size_t size)
{
    uintptr_t address = (uintptr_t)arena->memory->data + arena->at;
    size_t gap = (size_t)(-address & (ALIGNMENT - 1));
    /* counted in full where there is no memory: its alignment is not known yet */
    if (arena->memory->data == NULL) {
        gap = ALIGNMENT - 1;
    }
    (void)take(arena, gap);
    return take(arena, size);
}

char *arena_take_text(struct arena *arena, size_t size)
{
    return take(arena, size);
}

void arena_give(struct arena *arena, size_t size)
{
    arena->at -= size;
}

int arena_end(struct arena *arena)
{
    larder_http_arena *memory = arena->memory;
    if (arena->too_small) {
        memory->wanted = arena->at + ALIGNMENT;
        return error_set(LARDER_ESIZE, "an arena of %zu bytes: %zu are enough", memory->size,
                         memory->wanted);
    }
    memory->used = arena->at;
    return LARDER_OK;
}
