/* arena.h: the caller's memory, handed out piece by piece. A function takes a mark when it begins,
 * asks as often as it needs, and ends in arena_end(): where memory was too small everything asked
 * for is given back and `wanted` says what would have been enough. Asking goes on after that, so
 * that one call learns the whole size; the pieces are NULL then and must not be written.
 */
#ifndef LARDER_LIB_HTTP_ARENA_H
#define LARDER_LIB_HTTP_ARENA_H

#include <stdbool.h>
#include <stddef.h>

#include "larder_http.h"

struct arena {
    larder_http_arena *memory;
    size_t at;      /* behind the last piece, as if there were memory enough */
    bool too_small; /* there was not */
};

struct arena arena_begin(larder_http_arena *memory);

/* size bytes, aligned for any of our types; NULL: too little memory. */
void *arena_take(struct arena *arena, size_t size);

/* The same, unaligned: for text. */
char *arena_take_text(struct arena *arena, size_t size);

/* Give the end of the last piece back: it was larger than needed. */
void arena_give(struct arena *arena, size_t size);

/* LARDER_OK and the pieces are the caller's, or LARDER_ESIZE and nothing was taken. */
int arena_end(struct arena *arena);

#endif
