/* room.h: what a write does that finds the map full: evicting in transactions of its own, and
 * readers that pin what was freed. Outside the write gate. For writer.c alone.
 */
#ifndef LARDER_LIB_ROOM_H
#define LARDER_LIB_ROOM_H

#include <stdbool.h>
#include <stdint.h>

#include "larder.h"

/* Evict until there is room for so many pages, or it is time. EFULL: nothing can be evicted, or a
 * reader pins what was; or what writer_begin() can give. */
int room_make(const struct larder *handle, uint64_t need, int64_t until_ms);

/* A process that was killed inside a read pins its snapshot for ever. Whether there was one. */
bool room_clear_readers(const struct larder *handle);

/* A reader that lost its processor inside a hit pins pages, too, but only for milliseconds: look
 * again. One that stays is waited for once a process, not at each write. false: no more patience,
 * of which each call takes a millisecond. */
bool room_wait_for_reader(const struct larder *handle, int *patience);

/* EFULL, and in its message why. */
int room_refuse(const struct larder *handle);

/* The snapshot that pins what is freed; 0: none does. While one does a full map stays full. */
uint64_t room_pinned_by(const struct larder *handle);

#endif
