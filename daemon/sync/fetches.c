/* fetches.c: large values that other hosts told of. An event of one takes the older copy away, and
 * the value is fetched. It may not be there yet: a Redis that came back empty has it again when the
 * host that wrote it has pushed it, which tells nobody once more. So it is asked for again, a few
 * times. A wish may be dropped at any time: the key is then a miss.
 */
#include "daemon/sync/internal.h"

#include <stdlib.h>
#include <string.h>

bool fetches_create(struct sync *self)
{
    self->fetches.list = calloc(FETCHES_MAX, sizeof *self->fetches.list);
    self->fetches.due_ms = SYNC_NEVER;
    return self->fetches.list != NULL;
}

void fetches_destroy(struct sync *self)
{
    for (size_t i = 0; self->fetches.list != NULL && i < FETCHES_MAX; i++)
        free((void *)(uintptr_t)self->fetches.list[i].wanted.key);
    free(self->fetches.list);
}

/* It is no longer out. */
static void take_back(struct fetches *all, struct fetch *fetch)
{
    if (fetch->state != FETCH_OUT)
        return;
    all->out--;
    all->bytes_out -= fetch->size;
    fetch->state = FETCH_QUEUED;
}

static void drop(struct fetches *all, struct fetch *fetch)
{
    take_back(all, fetch);
    free((void *)(uintptr_t)fetch->wanted.key);
    memset(fetch, 0, sizeof *fetch);
    all->count--;
}

static void queue(struct fetches *all, struct fetch *fetch, int64_t due_ms)
{
    take_back(all, fetch);
    fetch->state = FETCH_QUEUED;
    fetch->due_ms = due_ms;
    if (due_ms < all->due_ms)
        all->due_ms = due_ms;
}

/* A free place; else that of one that has been asked for in vain; else NULL. */
static struct fetch *make_room(struct sync *self)
{
    struct fetches *all = &self->fetches;
    struct fetch *waiting = NULL;
    for (size_t i = 0; i < FETCHES_MAX; i++) {
        struct fetch *fetch = &all->list[(all->last_id + i) % FETCHES_MAX];
        if (fetch->state == FETCH_FREE)
            return fetch;
        if (fetch->state == FETCH_QUEUED && fetch->tries != 0 && waiting == NULL)
            waiting = fetch;
    }
    self->counters.fetches_dropped++;
    if (waiting != NULL)
        drop(all, waiting);
    return waiting;
}

void fetches_want(struct sync *self, const replica_record *record, uint64_t size)
{
    struct fetches *all = &self->fetches;
    if (size > self->settings.max_value || record->expires_at_ms <= sync_redis_now(self))
        return;
    struct fetch *fetch = make_room(self);
    uint8_t *key = fetch == NULL ? NULL : malloc(record->key_size);
    if (key == NULL) {
        self->counters.fetches_dropped += fetch != NULL;
        return;
    }
    memcpy(key, record->key, record->key_size);
    fetch->id = ++all->last_id;
    fetch->size = size;
    fetch->wanted = *record;
    fetch->wanted.key = key;
    fetch->wanted.value = NULL;
    fetch->wanted.value_size = 0;
    all->count++;
    queue(all, fetch, self->now_ms);
}

/* An event overtakes fetches of its key: what they bring, if it is older, would come after it, into
 * a map that holds nothing to compare it with. */
void fetches_outdate(struct sync *self, const replica_record *record)
{
    size_t left = self->fetches.count;
    for (size_t i = 0; left != 0 && i < FETCHES_MAX; i++) {
        struct fetch *fetch = &self->fetches.list[i];
        if (fetch->state == FETCH_FREE)
            continue;
        left--;
        if (fetch->wanted.key_size != record->key_size ||
            memcmp(fetch->wanted.key, record->key, record->key_size) != 0 ||
            sync_order(&fetch->wanted, record) >= 0)
            continue;
        fetch->overtaken = true;
        fetch->wanted.version = record->version;
        fetch->wanted.kind = record->kind;
        fetch->wanted.value_hash = record->value_hash;
    }
}

/* Nothing came, or what is older. */
static void came_to_nothing(struct sync *self, struct fetch *fetch)
{
    if (fetch->overtaken || ++fetch->tries >= FETCH_TRIES ||
        fetch->wanted.expires_at_ms <= sync_redis_now(self)) {
        self->counters.fetches_dropped += !fetch->overtaken;
        drop(&self->fetches, fetch);
        return;
    }
    queue(&self->fetches, fetch, self->now_ms + ((int64_t)FETCH_AGAIN_MS << (fetch->tries - 1)));
}

void fetches_came(struct sync *self, uint64_t id, const sync_change *change)
{
    for (size_t i = 0; i < FETCHES_MAX; i++) {
        struct fetch *fetch = &self->fetches.list[i];
        if (fetch->state != FETCH_OUT || fetch->id != id)
            continue;
        if (change == NULL || sync_order(&change->record, &fetch->wanted) < 0) {
            came_to_nothing(self, fetch);
            return;
        }
        sync_change found = *change;
        found.record.key = fetch->wanted.key;
        found.record.key_size = fetch->wanted.key_size;
        found.value_missing = false;
        if (inbound_take(self, &found, false))
            drop(&self->fetches, fetch);
        else
            queue(&self->fetches, fetch, self->now_ms); /* no room now: ask again */
        return;
    }
}

/* One that was out when a reply was over its limit is dropped: it would end each session to come.
 * The others begin anew, since in the new session there may be what was not there in this one. */
void fetches_disconnected(struct sync *self, enum sync_cause cause)
{
    for (size_t i = 0; i < FETCHES_MAX; i++) {
        struct fetch *fetch = &self->fetches.list[i];
        if (fetch->state == FETCH_OUT && cause == SYNC_BAD_REPLY) {
            drop(&self->fetches, fetch);
        } else if (fetch->state != FETCH_FREE) {
            fetch->tries = 0;
            queue(&self->fetches, fetch, self->now_ms);
        }
    }
}

void fetches_advance(struct sync *self)
{
    struct fetches *all = &self->fetches;
    if (!self->joined || self->in.apply_wanted || all->due_ms > self->now_ms ||
        all->out == FETCHES_OUT)
        return;
    int64_t due_ms = SYNC_NEVER;
    for (size_t i = 0; i < FETCHES_MAX; i++) {
        struct fetch *fetch = &all->list[i];
        if (all->out == FETCHES_OUT) {
            due_ms = self->now_ms; /* of the rest some may be due */
            break;
        }
        if (fetch->state != FETCH_QUEUED)
            continue;
        bool may_go = fetch->due_ms <= self->now_ms &&
                      (all->out == 0 || all->bytes_out + fetch->size <= FETCH_BYTES_OUT) &&
                      sync_room(self) >= 8;
        if (!may_go) {
            due_ms = fetch->due_ms < due_ms ? fetch->due_ms : due_ms;
            continue;
        }
        sync_action *action = sync_act(self, SYNC_ACT_FETCH);
        action->fetch.id = fetch->id;
        action->fetch.key = fetch->wanted.key;
        action->fetch.key_size = fetch->wanted.key_size;
        fetch->state = FETCH_OUT;
        all->out++;
        all->bytes_out += fetch->size;
        self->counters.fetches++;
    }
    all->due_ms = due_ms;
}

/* What is due and has not gone waits for an answer, or for the map. */
int64_t fetches_deadline(const struct sync *self)
{
    int64_t due_ms = self->fetches.due_ms;
    return self->joined && due_ms > self->now_ms ? due_ms : SYNC_NEVER;
}
