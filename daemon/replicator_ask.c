/* replicator_ask.c: read-through's way between the workers' requests (lib/replica.h) and the
 * protocol machine. See replicator.h.
 */
#include <sched.h>

#include "daemon/replicator_internal.h"
#include "lib/spin.h"

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
    self->taking = true;
    replica_ask_attend(self->map, self->polling);
    for (size_t i = 0; i < ASKS_AT_A_TIME && replica_ask_next(self->map, &asked); i++) {
        sync_event event = {.kind = SYNC_EV_ASK};
        if (asked.slot >= SYNC_SLOTS_MAX)
            continue;
        poll_requested(&self->poll, connection_now_us());
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
    self->taking = false;
}

/* Before workers are told: who then asks for the next key, while what is left here is being done,
 * need not wake us. While requests are taken there is no second look: workers who get their answers
 * at once (there is no session, say) could keep the loop from all else. */
static void promise_look(replicator *self)
{
    if (!self->taking) {
        self->look_promised = true;
        replica_ask_attend(self->map, true);
    }
}

void replicator_keep_look(replicator *self)
{
    if (!self->look_promised)
        return;
    self->look_promised = false;
    if (self->fenced || self->finished)
        replica_ask_attend(self->map, false);
    else
        replicator_take_asks(self);
}

/* ---- Looking instead of sleeping (replicator_poll.h) ------------------------------------------
 */

/* A round of the loop without sleep. */
static void go_round(replicator *self)
{
    static const struct timeval at_once = {.tv_sec = 0};
    evtimer_add(self->round, &at_once);
}

static void look_on(replicator *self, int64_t now_us)
{
    if (self->polling || !poll_wanted(&self->poll, now_us))
        return;
    self->polling = true;
    replica_ask_attend(self->map, true);
    go_round(self);
}

static void on_round(evutil_socket_t fd, short what, void *context)
{
    replicator *self = context;
    (void)fd;
    (void)what;
    if (self->fenced || self->finished) {
        self->polling = false;
        replica_ask_attend(self->map, false);
        return;
    }
    if (replica_ask_is_posted(self->map))
        replicator_take_asks(self);
    int64_t now = connection_now_us();
    if (!poll_wanted(&self->poll, now)) {
        self->polling = false;
        replicator_take_asks(self); /* once more, now that workers wake us again */
        return;
    }
    (void)sched_yield();
    int64_t after = connection_now_us();
    poll_offered(&self->poll, after, after - now);
    go_round(self);
}

bool replicator_ask_begin(replicator *self)
{
    poll_init(&self->poll, self->settings.busy_poll_us, spin_processors());
    self->round = evtimer_new(self->base, on_round, self);
    return self->round != NULL;
}

bool replicator_ask(replicator *self, const sync_action *action)
{
    int sent = link_ask(self->link, action->fetch.id, action->fetch.key, action->fetch.key_size,
                        action->fetch.with_end);
    if (sent == -2) { /* a name that cannot be in Redis */
        sync_event event = {.kind = SYNC_EV_ASKED};
        event.asked.id = action->fetch.id;
        replicator_post(self, &event);
    } else if (sent == 0) {
        int64_t now_us = connection_now_us();
        poll_sent(&self->poll, now_us);
        look_on(self, now_us);
    }
    return sent != -1;
}

void replicator_answer(replicator *self, const sync_action *action)
{
    static const enum replica_answer answers[] = {[SYNC_ANSWER_FOUND] = REPLICA_ANSWER_FOUND,
                                                  [SYNC_ANSWER_ABSENT] = REPLICA_ANSWER_ABSENT,
                                                  [SYNC_ANSWER_UNKNOWN] = REPLICA_ANSWER_UNKNOWN};
    promise_look(self);
    for (uint32_t word = 0; word < SYNC_SLOTS_MAX / 64; word++) {
        for (uint64_t bits = action->answer.slots[word]; bits != 0; bits &= bits - 1) {
            uint32_t slot = word * 64 + (uint32_t)__builtin_ctzll(bits);
            replica_ask_answer(self->map, slot, self->ask_words[slot],
                               answers[action->answer.answer]);
        }
    }
    int64_t now_us = connection_now_us();
    poll_answered(&self->poll, now_us);
    look_on(self, now_us);
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
