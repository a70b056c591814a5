/* replicator_ask.c: read-through's way between the workers' requests (lib/replica.h) and the
 * protocol machine. See replicator.h.
 */
#include "daemon/replicator_internal.h"

enum { ASKS_AT_A_TIME = SYNC_SLOTS_MAX };

/* Whether the answer to an earlier request has brought it already: whoever missed the key before
 * that and asks after it is no reason to ask Redis twice. */
static bool is_there(replicator *self, const uint8_t *key, size_t key_size)
{
    static const larder_read peek = {.flags = LARDER_PEEK};
    larder_info info;
    int result = larder_get_with(self->map, key, key_size, NULL, 0, &info, &peek);
    return result == LARDER_OK || result == LARDER_ESIZE || result == LARDER_ABSENT;
}

void replicator_take_asks(replicator *self)
{
    replica_asked asked;
    for (size_t i = 0; i < ASKS_AT_A_TIME && replica_ask_next(self->map, &asked); i++) {
        sync_event event = {.kind = SYNC_EV_ASK};
        if (asked.slot >= SYNC_SLOTS_MAX)
            continue;
        if (is_there(self, asked.key, asked.key_size)) {
            replica_ask_answer(self->map, asked.slot, asked.word, REPLICA_ANSWER_FOUND);
            continue;
        }
        self->ask_words[asked.slot] = asked.word;
        event.ask.slot = asked.slot;
        event.ask.key = asked.key;
        event.ask.key_size = asked.key_size;
        event.ask.fill = asked.fill;
        replicator_feed(self, &event);
    }
}

bool replicator_ask(replicator *self, const sync_action *action)
{
    int sent = link_ask(self->link, action->fetch.id, action->fetch.key, action->fetch.key_size,
                        action->fetch.with_end);
    if (sent == -2) { /* a name that cannot be in Redis */
        sync_event event = {.kind = SYNC_EV_ASKED};
        event.asked.id = action->fetch.id;
        replicator_post(self, &event);
    }
    return sent != -1;
}

void replicator_answer(replicator *self, const sync_action *action)
{
    static const enum replica_answer answers[] = {[SYNC_ANSWER_FOUND] = REPLICA_ANSWER_FOUND,
                                                  [SYNC_ANSWER_ABSENT] = REPLICA_ANSWER_ABSENT,
                                                  [SYNC_ANSWER_UNKNOWN] = REPLICA_ANSWER_UNKNOWN};
    for (uint32_t word = 0; word < SYNC_SLOTS_MAX / 64; word++) {
        for (uint64_t bits = action->answer.slots[word]; bits != 0; bits &= bits - 1) {
            uint32_t slot = word * 64 + (uint32_t)__builtin_ctzll(bits);
            replica_ask_answer(self->map, slot, self->ask_words[slot],
                               answers[action->answer.answer]);
        }
    }
}

void replicator_changed(void *context, const uint8_t *key, size_t key_size)
{
    replicator *self = context;
    sync_event event = {.kind = SYNC_EV_CHANGED};
    if (!is_there(self, key, key_size))
        return; /* then the next miss finds out */
    event.ask.key = key;
    event.ask.key_size = key_size;
    event.ask.fill = replica_fill_begin(self->map, key, key_size);
    replicator_feed(self, &event);
}
