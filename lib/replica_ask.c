/* replica_ask.c: the replicator's end of read-through: requests of workers, and what the map says
 * of their keys while they are asked for.
 */
#include <string.h>

#include "ask.h"
#include "clock.h"
#include "handle.h"
#include "removal.h"
#include "replica.h"

static_assert(REPLICA_SLOTS == ASK_SLOTS, "ask.h");
static_assert(REPLICA_ASKED_KEY_MAX == ASK_KEY_MAX, "ask.h");
static_assert((int)REPLICA_ANSWER_FOUND == (int)ASK_FOUND &&
                  (int)REPLICA_ANSWER_ABSENT == (int)ASK_ABSENT &&
                  (int)REPLICA_ANSWER_UNKNOWN == (int)ASK_FAILED,
              "ask.h");

replica_fill replica_fill_begin(larder *handle, const void *key, size_t key_size)
{
    if (handle_enter(handle) != LARDER_OK) {
        return (replica_fill){.kind = REPLICA_FILL_NONE};
    }
    struct control *control = map_control(handle->map);
    uint64_t hash = key_hash(key, key_size);
    return (replica_fill){.kind = REPLICA_FILL_ASKED,
                          .floor = removal_floor(control, hash),
                          .barrier = removal_dead_before(control, hash),
                          .clock = clock_next(control).clock};
}

bool replica_ask_next(larder *handle, replica_asked *out)
{
    struct ask_taken taken;
    if (handle_enter(handle) != LARDER_OK || !ask_take(handle->map, &taken)) {
        return false;
    }
    out->word = taken.word;
    out->slot = taken.slot;
    out->key_size = taken.key_size;
    memcpy(out->key, taken.key, taken.key_size);
    /* Before Redis is asked: what is removed later is seen by the difference. */
    out->fill = replica_fill_begin(handle, taken.key, taken.key_size);
    return true;
}

void replica_ask_answer(larder *handle, uint32_t slot, uint64_t word, enum replica_answer answer)
{
    if (handle_enter(handle) == LARDER_OK) {
        (void)ask_answer(handle->map, slot, word, (enum ask_end)answer);
    }
}

void replica_ask_sweep(larder *handle)
{
    if (handle_enter(handle) == LARDER_OK) {
        ask_sweep(handle->map);
    }
}

void replica_ask_attend(larder *handle, bool attended)
{
    if (handle_enter(handle) == LARDER_OK) {
        ask_attend(handle->map, attended);
    }
}

bool replica_ask_is_posted(larder *handle)
{
    return handle_enter(handle) == LARDER_OK && ask_is_posted(handle->map);
}

void replica_ask_spin(larder *handle, uint32_t limit_us)
{
    if (handle_enter(handle) == LARDER_OK) {
        ask_spin(handle->map, limit_us);
    }
}
