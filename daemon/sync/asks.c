/* asks.c: read-through: what workers miss and have asked for. One request to Redis a key, whoever
 * asks how often; what comes goes through the collected changes into the map, and when it is there
 * (or is not to be had) all who wait are told at once. Nothing in here keeps anybody waiting: where
 * there is no session, the answer is that nobody knows.
 *
 * Called by session.c (events, the step's end) and inbound.c (what overtakes, what was applied).
 */
#include "daemon/sync/internal.h"

#include <stdlib.h>
#include <string.h>

bool asks_create(struct sync *self)
{
    self->asks.asks = calloc(ASKS_MAX, sizeof *self->asks.asks);
    if (self->settings.foreign)
        self->asks.expected = calloc(EXPECTED_MAX, sizeof *self->asks.expected);
    return self->asks.asks != NULL && (self->asks.expected != NULL || !self->settings.foreign);
}

void asks_destroy(struct sync *self)
{
    for (size_t i = 0; self->asks.asks != NULL && i < ASKS_MAX; i++)
        free(self->asks.asks[i].key);
    free(self->asks.asks);
    free(self->asks.expected);
}

static bool is_of(const struct ask *ask, const uint8_t *key, size_t key_size)
{
    return ask->key_size == key_size && memcmp(ask->key, key, key_size) == 0;
}

static bool is_open(const struct ask *ask)
{
    return ask->state == ASK_QUEUED || ask->state == ASK_OUT;
}

static void finish(struct sync *self, struct ask *ask, enum sync_answer answer)
{
    if (ask->state == ASK_OUT)
        self->asks.out--;
    if (ask->state == ASK_QUEUED)
        self->asks.queued--;
    ask->state = ASK_DONE;
    ask->answer = answer;
    self->asks.done++;
}

static void release(struct sync *self, struct ask *ask)
{
    free(ask->key);
    self->asks.checks -= ask->check;
    memset(ask, 0, sizeof *ask);
    self->asks.count--;
    self->asks.done--;
}

/* ---- Replies that cannot be read --------------------------------------------------------------
 *
 * A value beyond the limit of replies ends the session. So the key that was asked for longest when
 * that happened is not asked for again at once: a worker that wants it would end every session. */

static void shun(struct sync *self)
{
    struct ask *oldest = NULL;
    for (size_t i = 0; i < ASKS_MAX; i++) {
        struct ask *ask = &self->asks.asks[i];
        if (ask->state == ASK_OUT && (oldest == NULL || ask->order < oldest->order))
            oldest = ask;
    }
    if (oldest != NULL) {
        struct shunned *place = &self->asks.shunned[self->asks.shun_next++ % ASKS_SHUNNED];
        place->hash = replica_value_hash(oldest->key, oldest->key_size);
        place->until_ms = self->now_ms + ASKS_SHUN_MS;
    }
}

static bool is_shunned(const struct sync *self, const uint8_t *key, size_t key_size)
{
    uint64_t hash = replica_value_hash(key, key_size);
    for (size_t i = 0; i < ASKS_SHUNNED; i++)
        if (self->asks.shunned[i].hash == hash && self->now_ms < self->asks.shunned[i].until_ms)
            return true;
    return false;
}

/* ---- Events -----------------------------------------------------------------------------------
 */

/* The slot waits for something else now: whoever waited there before has given up. */
static void detach(struct sync *self, uint32_t slot)
{
    uint64_t bit = UINT64_C(1) << (slot % 64);
    size_t left = self->asks.count;
    for (size_t i = 0; left != 0 && i < ASKS_MAX; i++) {
        if (self->asks.asks[i].state == ASK_FREE)
            continue;
        left--;
        self->asks.asks[i].slots[slot / 64] &= ~bit;
    }
}

static struct ask *find(struct sync *self, const uint8_t *key, size_t key_size)
{
    size_t left = self->asks.count;
    for (size_t i = 0; left != 0 && i < ASKS_MAX; i++) {
        struct ask *ask = &self->asks.asks[i];
        if (ask->state == ASK_FREE)
            continue;
        left--;
        if (ask->state != ASK_DONE && is_of(ask, key, key_size))
            return ask;
    }
    return NULL;
}

static struct ask *add(struct sync *self, const sync_event *event)
{
    struct ask *ask = NULL;
    for (size_t i = 0; i < ASKS_MAX && ask == NULL; i++)
        if (self->asks.asks[i].state == ASK_FREE)
            ask = &self->asks.asks[i];
    if (ask == NULL)
        return NULL;
    ask->key = malloc(event->ask.key_size);
    if (ask->key == NULL)
        return NULL;
    memcpy(ask->key, event->ask.key, event->ask.key_size);
    ask->key_size = event->ask.key_size;
    ask->fill = event->ask.fill;
    ask->state = ASK_QUEUED;
    self->asks.queued++;
    self->asks.count++;
    return ask;
}

void asks_add(struct sync *self, const sync_event *event)
{
    uint32_t slot = event->ask.slot;
    if (slot >= SYNC_SLOTS_MAX)
        return;
    detach(self, slot);
    struct ask *ask = find(self, event->ask.key, event->ask.key_size);
    bool new = ask == NULL;
    if (new)
        ask = add(self, event);
    if (ask != NULL && ask->state == ASK_QUEUED)
        ask->due_ms = self->now_ms;
    if (ask == NULL)
        return; /* the slot ends by itself, at its deadline */
    ask->slots[slot / 64] |= UINT64_C(1) << (slot % 64);
    self->counters.asks++;
    if (!self->joined || is_shunned(self, ask->key, ask->key_size)) {
        if (ask->state != ASK_TAKEN)
            finish(self, ask, SYNC_ANSWER_UNKNOWN);
    } else if (!new) {
        self->counters.asks_joined++;
    }
}

/* An event of the key has come: an older reply, or one that was on its way before, is not taken. */
void asks_overtaken(struct sync *self, const replica_record *record)
{
    size_t left = self->asks.count;
    for (size_t i = 0; left != 0 && i < ASKS_MAX; i++) {
        struct ask *ask = &self->asks.asks[i];
        if (ask->state == ASK_FREE)
            continue;
        left--;
        if (!is_open(ask) || !is_of(ask, record->key, record->key_size) ||
            (ask->overtaken && sync_order(&ask->newest, record) >= 0))
            continue;
        ask->overtaken = true;
        ask->newest = *record;
        ask->newest.key = ask->newest.value = NULL;
    }
}

static void ask_again(struct sync *self, struct ask *ask)
{
    if (ask->tries >= ASKS_TRIES) {
        finish(self, ask, SYNC_ANSWER_UNKNOWN);
        return;
    }
    self->asks.out--;
    self->asks.queued++;
    ask->state = ASK_QUEUED;
}

void asks_answered(struct sync *self, const sync_event *event)
{
    uint64_t id = event->asked.id;
    struct ask *ask = &self->asks.asks[id % ASKS_MAX];
    const sync_change *change = event->asked.change;
    sync_change none;
    if (ask->state != ASK_OUT || ask->order != id / ASKS_MAX)
        return;
    enum replica_fill_kind kind = REPLICA_FILL_ASKED;
    if (change == NULL && ask->check && !event->asked.failed && !ask->overtaken) {
        memset(&none, 0, sizeof none);
        none.record.kind = REPLICA_VALUE;
        none.value_missing = true;
        change = &none;
        kind = REPLICA_FILL_GONE;
    }
    if (change == NULL) {
        finish(self, ask, event->asked.failed ? SYNC_ANSWER_UNKNOWN : SYNC_ANSWER_ABSENT);
        return;
    }
    if (sync_ahead(self,
                   change->record.version.clock)) { /* of nobody whose clock can be believed */
        finish(self, ask, SYNC_ANSWER_UNKNOWN);
        return;
    }
    bool older = ask->overtaken && sync_order(&change->record, &ask->newest) < 0;
    if (older || (change->foreign && (ask->overtaken || !change->with_end))) {
        ask->with_end = ask->with_end || change->foreign;
        ask_again(self, ask);
        return;
    }
    sync_change found = *change;
    if (found.foreign && found.left_ms != INT64_MAX)
        found.record.expires_at_ms =
            self->wall_ms + (found.left_ms < ASKS_LEFT_MAX ? found.left_ms : ASKS_LEFT_MAX);
    found.record.key = ask->key;
    found.record.key_size = ask->key_size;
    if (found.foreign)
        kind = ask->check ? REPLICA_FILL_CHANGED : REPLICA_FILL_FOREIGN;
    if (!inbound_take_fill(self, &found, &ask->fill, kind)) {
        ask_again(self, ask);
        return;
    }
    self->asks.out--;
    ask->state = ASK_TAKEN;
    ask->set = self->in.collecting;
}

/* ---- Changes by other programs ----------------------------------------------------------------
 *
 * Whatever changes is told, larder's own writes included: so record and value are looked at before
 * anything goes. What larder has just written is looked at later, once for all of a second. */

static struct expected *expected_place(const struct sync *self, uint64_t hash)
{
    return &self->asks.expected[hash % EXPECTED_MAX];
}

void asks_expect(struct sync *self, const uint8_t *key, size_t key_size)
{
    if (self->asks.expected == NULL)
        return;
    uint64_t hash = replica_value_hash(key, key_size);
    *expected_place(self, hash) =
        (struct expected){.hash = hash, .until_ms = self->now_ms + CHECK_OURS_MS};
}

static bool is_expected(const struct sync *self, const uint8_t *key, size_t key_size)
{
    uint64_t hash = replica_value_hash(key, key_size);
    const struct expected *place = expected_place(self, hash);
    return place->hash == hash && self->now_ms < place->until_ms;
}

/* No room to look: what is not expected goes unlooked at. */
static void drop_unseen(struct sync *self, const sync_event *event)
{
    sync_change none;
    memset(&none, 0, sizeof none);
    none.record.kind = REPLICA_VALUE;
    none.record.key = event->ask.key;
    none.record.key_size = event->ask.key_size;
    none.value_missing = true;
    if (!inbound_take_fill(self, &none, &event->ask.fill, REPLICA_FILL_GONE))
        self->counters.foreign_skipped++;
}

void asks_changed(struct sync *self, const sync_event *event)
{
    if (!self->joined || self->asks.expected == NULL)
        return;
    struct ask *ask = find(self, event->ask.key, event->ask.key_size);
    if (ask != NULL && ask->state == ASK_QUEUED)
        return; /* it is going to be looked at */
    bool ours = is_expected(self, event->ask.key, event->ask.key_size);
    ask = self->asks.checks < CHECKS_MAX ? add(self, event) : NULL;
    if (ask != NULL) {
        ask->check = true;
        ask->due_ms = self->now_ms + (ours ? CHECK_OURS_MS : CHECK_MS);
        self->asks.checks++;
        self->counters.foreign_checks++;
    } else if (ours) {
        self->counters.foreign_skipped++;
    } else {
        drop_unseen(self, event);
    }
}

/* The set was applied, or given up. */
void asks_applied(struct sync *self, const struct change_set *set, enum sync_answer answer)
{
    size_t left = self->asks.count;
    for (size_t i = 0; left != 0 && i < ASKS_MAX; i++) {
        struct ask *ask = &self->asks.asks[i];
        if (ask->state == ASK_FREE)
            continue;
        left--;
        if (ask->state == ASK_TAKEN && ask->set == set)
            finish(self, ask, answer);
    }
}

void asks_disconnected(struct sync *self, enum sync_cause cause)
{
    if (cause == SYNC_BAD_REPLY)
        shun(self);
    for (size_t i = 0; i < ASKS_MAX; i++)
        if (is_open(&self->asks.asks[i]))
            finish(self, &self->asks.asks[i], SYNC_ANSWER_UNKNOWN);
}

/* ---- At the end of every step -----------------------------------------------------------------
 */

static bool anybody_waits(const struct ask *ask)
{
    uint64_t any = 0;
    for (size_t word = 0; word < SYNC_SLOTS_MAX / 64; word++)
        any |= ask->slots[word];
    return any != 0;
}

static void tell(struct sync *self, struct ask *ask)
{
    if (!anybody_waits(ask)) {
        release(self, ask);
        return;
    }
    sync_action *action = sync_act(self, SYNC_ACT_ANSWER);
    if (action == NULL)
        return;
    memcpy(action->answer.slots, ask->slots, sizeof ask->slots);
    action->answer.answer = ask->answer;
    self->counters.answers[ask->answer]++;
    release(self, ask);
}

static void send(struct sync *self, struct ask *ask, size_t place)
{
    sync_action *action = sync_act(self, SYNC_ACT_ASK);
    if (action == NULL)
        return;
    self->asks.queued--;
    ask->state = ASK_OUT;
    ask->tries++;
    ask->order = ++self->asks.order;
    ask->overtaken = false;
    action->fetch.id = ask->order * ASKS_MAX + place;
    action->fetch.key = ask->key;
    action->fetch.key_size = ask->key_size;
    action->fetch.with_end = ask->with_end;
    self->asks.out++;
    self->counters.asks_sent++;
}

void asks_advance(struct sync *self)
{
    size_t left = self->asks.count;
    for (size_t i = 0; left != 0 && i < ASKS_MAX && sync_room(self) > ASKS_ROOM; i++) {
        struct ask *ask = &self->asks.asks[i];
        if (ask->state == ASK_FREE)
            continue;
        left--;
        if (ask->state == ASK_DONE)
            tell(self, ask);
        else if (ask->state == ASK_QUEUED && ask->due_ms <= self->now_ms && self->joined &&
                 self->asks.out < ASKS_OUT && !inbound_held_up(self))
            send(self, ask, i);
    }
}

static int64_t checks_deadline(const struct sync *self)
{
    int64_t due = self->asks.done != 0 ? self->now_ms : SYNC_NEVER;
    bool may_send = self->joined && self->asks.out < ASKS_OUT && !inbound_held_up(self);
    for (size_t i = 0; may_send && i < ASKS_MAX; i++)
        if (self->asks.asks[i].state == ASK_QUEUED && self->asks.asks[i].due_ms < due)
            due = self->asks.asks[i].due_ms;
    return due;
}

int64_t asks_deadline(const struct sync *self)
{
    if (self->asks.checks != 0)
        return checks_deadline(self);
    bool more = self->asks.queued != 0 && self->joined && self->asks.out < ASKS_OUT &&
                !inbound_held_up(self);
    return self->asks.done != 0 || more ? self->now_ms : SYNC_NEVER;
}
