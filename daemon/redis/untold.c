/* untold.c: see untold.h. */
#include "daemon/redis/untold.h"

#include <stdlib.h>
#include <string.h>

untold *untold_begin(untold **list, const void *batch, size_t count)
{
    untold *self = calloc(1, sizeof *self + count * sizeof self->events[0]);
    if (self == NULL)
        return NULL;
    self->batch = batch;
    self->count = count;
    self->next = *list;
    *list = self;
    return self;
}

bool untold_keep(untold *self, size_t index, const void *event, size_t size)
{
    if (self->room - self->used < size) {
        size_t room = (self->used + size) * 2;
        uint8_t *grown = realloc(self->bytes, room);
        if (grown == NULL)
            return false;
        self->bytes = grown;
        self->room = room;
    }
    memcpy(self->bytes + self->used, event, size);
    self->events[index] = (untold_event){.at = self->used, .size = size};
    self->used += size;
    return true;
}

untold *untold_find(untold *const *list, const void *batch)
{
    untold *at = *list;
    while (at != NULL && at->batch != batch)
        at = at->next;
    return at;
}

void untold_forget(untold **list, const void *batch)
{
    while (*list != NULL && (*list)->batch != batch)
        list = &(*list)->next;
    untold *found = *list;
    if (found == NULL)
        return;
    *list = found->next;
    free(found->bytes);
    free(found);
}

void untold_answered(untold **list, const void *batch, size_t index, bool stored)
{
    untold *self = untold_find(list, batch);
    if (self == NULL || index >= self->count)
        return;
    stored = stored && self->events[index].size != 0; /* else a server that lies */
    self->answered++;
    self->stored += stored;
    self->events[index].stored = stored;
    if (self->answered == self->count && self->stored == 0)
        untold_forget(list, batch);
}

void untold_clear(untold **list)
{
    while (*list != NULL)
        untold_forget(list, (*list)->batch);
}
