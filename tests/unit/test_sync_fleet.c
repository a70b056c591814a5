/* test_sync_fleet.c: the protocol machine among its like, without sockets, clocks or LMDB: three
 * nodes, each with a model of its map, and a model of Redis. A seed chooses who writes, what
 * arrives, what is lost, who crashes, when Redis forgets. Afterwards all is let through, and Redis
 * must hold the newest write of each key, and no node anything older.
 */
#include "tests/harness.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/sync/sync.h"

enum {
    NODES = 3,
    KEYS = 6,
    STREAM_MAX = 8192,
    QUEUE_MAX = 4096,
    ASKED_MAX = 200,
    ROWS_MAX = 16384
};

/* ---- Models -----------------------------------------------------------------------------------
 */

typedef struct entry { /* of a map or of Redis */
    bool there;
    replica_record record; /* no pointers: the hash stands for the value */
    bool dirty, value_gone;
    uint64_t floor; /* nothing older is stored where nothing is */
    uint64_t row;
} entry;

typedef struct event_line { /* of the stream */
    uint64_t nonce, emitter;
    bool begin, with_value;
    int key;
    replica_record record;
} event_line;

static struct server {
    char run_id[16];
    int life;
    uint64_t epoch;
    size_t first, count; /* entries: numbers first .. count-1 are there */
    event_line *stream;
    entry keys[KEYS], saved_keys[KEYS];
    uint64_t saved_epoch;
    size_t saved_first, saved_count;
    event_line *saved_stream;
    bool scripts, no_memory;
} redis;

enum asked { ASK_CONNECT, ASK_JOIN, ASK_PUSH, ASK_RANGE, ASK_FETCH, ASK_LOAD };

typedef struct request {
    enum asked kind;
    uint64_t epoch, number, id, nonce, emitter;
    uint32_t limit;
    struct sync_batch *batch;
    size_t index;
    int key;
    bool quiet, remove;
    replica_record record;
    /* the reply, once Redis has worked it off */
    bool done;
    enum sync_outcome outcome;
    bool has_change;
    sync_joined joined;
    sync_change changes[SYNC_PAGE_MAX];
    size_t count;
} request;

typedef struct node {
    int number;
    struct sync *machine;
    entry keys[KEYS];
    int rows[ROWS_MAX]; /* row -> key */
    uint64_t next_row, clock;
    int64_t skew;
    replica_position position;
    request *queue;
    size_t head, worked, tail; /* head..worked: replies under way; worked..tail: not yet at Redis */
    struct {
        uint64_t epoch, number;
        bool numbered;
        event_line line;
    } * channel;
    size_t channel_head, channel_tail;
    bool subscribed, armed, busy;
    replica_batch rows_out;
} node;

static node nodes[NODES];
static int64_t now_ms;
static uint64_t chance;
static entry newest[KEYS]; /* of all writes ever */
static char key_names[KEYS][16];

static unsigned pick(unsigned below)
{
    return (unsigned)(sync_random(&chance) % below);
}

static bool is_large(uint64_t hash)
{
    return hash % 4 == 1;
}

static int key_of(const replica_record *record)
{
    for (int k = 0; k < KEYS; k++)
        if (record->key_size == strlen(key_names[k]) &&
            memcmp(record->key, key_names[k], record->key_size) == 0)
            return k;
    ck_abort_msg("a key that nobody wrote");
    return -1;
}

/* ---- Redis ------------------------------------------------------------------------------------
 */

static void publish(const event_line *line, bool numbered)
{
    for (int n = 0; n < NODES; n++) {
        node *to = &nodes[n];
        if (!to->subscribed || to->channel_tail == QUEUE_MAX)
            continue;
        to->channel[to->channel_tail].epoch = redis.epoch;
        to->channel[to->channel_tail].number = numbered ? redis.count - 1 : 0;
        to->channel[to->channel_tail].numbered = numbered;
        to->channel[to->channel_tail++].line = *line;
    }
}

static void emit(const event_line *line)
{
    ck_assert_uint_lt(redis.count, STREAM_MAX);
    redis.stream[redis.count++] = *line;
    publish(line, true);
}

static sync_change as_change(const event_line *line, uint64_t epoch, uint64_t number)
{
    sync_change change = {.epoch = epoch,
                          .number = number,
                          .nonce = line->nonce,
                          .emitter = line->emitter,
                          .numbered = true,
                          .begin = line->begin,
                          .record = line->record};
    if (!line->begin) {
        change.record.key = (const uint8_t *)key_names[line->key];
        change.record.key_size = strlen(key_names[line->key]);
        change.record.value = (const uint8_t *)"";
        change.value_missing = line->record.kind == REPLICA_VALUE && !line->with_value;
    }
    return change;
}

static void redis_push(request *r)
{
    entry *at = &redis.keys[r->key];
    event_line line = {.nonce = r->nonce,
                       .emitter = r->emitter,
                       .with_value =
                           r->record.kind == REPLICA_VALUE && !is_large(r->record.value_hash),
                       .key = r->key,
                       .record = r->record};
    int order = at->there ? sync_order(&at->record, &r->record) : -1;
    if (!redis.scripts) {
        r->outcome = SYNC_NO_SCRIPT;
    } else if (order > 0) {
        event_line winner = {.key = r->key, .record = at->record, .with_value = !at->value_gone};
        r->outcome = SYNC_OLD;
        r->changes[0] = as_change(&winner, 0, 0);
        r->changes[0].numbered = false;
        r->has_change = true;
    } else if (r->remove) {
        at->value_gone = true;
        publish(&line, false);
        r->outcome = SYNC_REMOVED;
    } else if (order == 0 && r->quiet) {
        r->outcome = SYNC_SAME;
    } else if (redis.epoch != r->epoch || redis.count == 0) {
        r->outcome = SYNC_NO_STREAM;
    } else if (redis.no_memory) {
        r->outcome = SYNC_NO_MEMORY;
    } else {
        emit(&line);
        at->there = true;
        at->value_gone = false;
        at->record = r->record;
        r->outcome = SYNC_STORED;
    }
}

static void redis_join(request *r)
{
    if (redis.count == 0) {
        event_line begin = {.nonce = sync_random(&chance), .begin = true};
        uint64_t wanted = (uint64_t)now_ms;
        redis.epoch = wanted > redis.epoch ? wanted : redis.epoch + 1;
        redis.first = 0;
        emit(&begin);
    }
    r->joined = (sync_joined){.epoch = redis.epoch,
                              .last_number = redis.count - 1,
                              .last_nonce = redis.stream[redis.count - 1].nonce,
                              .redis_ms = now_ms};
    if (r->epoch == redis.epoch && r->number >= redis.first && r->number < redis.count) {
        r->joined.cursor_found = true;
        r->joined.cursor_nonce = redis.stream[r->number].nonce;
    }
}

static void redis_work(request *r)
{
    switch (r->kind) {
    case ASK_PUSH:
        redis_push(r);
        break;
    case ASK_JOIN:
        redis_join(r);
        break;
    case ASK_RANGE:
        /* entries after (epoch, number), of whatever epoch stands there now */
        for (size_t i = redis.first; i < redis.count && r->count < r->limit; i++)
            if (redis.epoch > r->epoch || (redis.epoch == r->epoch && i > r->number))
                r->changes[r->count++] = as_change(&redis.stream[i], redis.epoch, i);
        break;
    case ASK_FETCH: {
        entry *at = &redis.keys[r->key];
        if (at->there && at->record.kind == REPLICA_VALUE && !at->value_gone) {
            event_line found = {.key = r->key, .record = at->record, .with_value = true};
            r->changes[0] = as_change(&found, 0, 0);
            r->has_change = true;
        }
        break;
    }
    case ASK_LOAD:
    case ASK_CONNECT:
        redis.scripts = true;
        break;
    }
    r->done = true;
}

static void redis_forget(void)
{
    redis.count = redis.first = 0;
    memset(redis.keys, 0, sizeof redis.keys);
}

static void redis_save(void)
{
    memcpy(redis.saved_keys, redis.keys, sizeof redis.keys);
    memcpy(redis.saved_stream, redis.stream, redis.count * sizeof *redis.stream);
    redis.saved_epoch = redis.epoch;
    redis.saved_first = redis.first;
    redis.saved_count = redis.count;
}

/* ---- A node: its map and its wires ------------------------------------------------------------
 */

static void feed(node *self, sync_event *event);

static void cut(node *self)
{
    self->head = self->worked = self->tail = 0;
    self->channel_head = self->channel_tail = 0;
    self->subscribed = false;
}

static request *ask(node *self, enum asked kind)
{
    if (self->tail == QUEUE_MAX) {
        memmove(self->queue, self->queue + self->head,
                (self->tail - self->head) * sizeof *self->queue);
        self->worked -= self->head;
        self->tail -= self->head;
        self->head = 0;
    }
    ck_assert_msg(self->tail - self->head < ASKED_MAX, "the machine asks without end");
    request *r = &self->queue[self->tail++];
    memset(r, 0, offsetof(request, changes));
    r->count = 0;
    r->kind = kind;
    return r;
}

static void map_write(node *self, int k, entry *to, bool fresh_row)
{
    to->there = true;
    if (fresh_row || !self->keys[k].there || !self->keys[k].dirty) {
        ck_assert_uint_lt(self->next_row, ROWS_MAX);
        to->row = self->next_row++;
        self->rows[to->row] = k;
    } else {
        to->row = self->keys[k].row;
    }
    to->floor = self->keys[k].floor;
    self->keys[k] = *to;
}

static void map_apply_one(node *self, replica_event *event)
{
    int k = key_of(&event->record);
    entry *ours = &self->keys[k];
    int order = ours->there ? sync_order(&ours->record, &event->record) : -1;
    if (order == 0) {
        event->verdict = REPLICA_EQUAL;
        ours->dirty = false;
    } else if (order > 0) {
        event->verdict = REPLICA_OLDER;
        if (!ours->dirty) {
            entry again = *ours;
            again.dirty = true;
            map_write(self, k, &again, true);
        }
    } else if (event->value_missing) {
        ours->floor = event->record.version.clock - 1;
        event->verdict = REPLICA_REFUSED;
        ours->there = false;
    } else if (!ours->there && event->record.version.clock <= ours->floor) {
        event->verdict = REPLICA_REFUSED;
    } else {
        entry theirs = {.record = event->record};
        theirs.record.key = NULL;
        theirs.record.value = NULL;
        event->verdict = REPLICA_APPLIED;
        map_write(self, k, &theirs, true);
    }
    uint64_t clock = event->record.version.clock;
    self->clock = clock > self->clock ? clock : self->clock;
}

static int do_apply(node *self, const sync_action *action)
{
    if (self->busy && pick(3) != 0)
        return LARDER_EBUSY;
    for (size_t i = 0; i < action->apply.count; i++)
        map_apply_one(self, &action->apply.events[i]);
    if (action->apply.position != NULL)
        self->position = *action->apply.position;
    return LARDER_OK;
}

static size_t do_acknowledge(node *self, const sync_action *action)
{
    size_t cleared = 0;
    for (size_t i = 0; i < action->acknowledge.count; i++) {
        const replica_ack *ack = &action->acknowledge.acks[i];
        replica_record named = {.key = ack->key, .key_size = ack->key_size};
        int k = key_of(&named);
        entry *ours = &self->keys[k];
        if (!ours->there || !ours->dirty)
            continue;
        if (ours->record.version.clock == ack->version.clock && ours->record.kind == ack->kind) {
            ours->dirty = false;
            cleared++;
        } else {
            entry again = *ours;
            map_write(self, k, &again, true);
        }
    }
    return cleared;
}

static int do_read(node *self, const sync_action *action)
{
    replica_batch *out = &self->rows_out;
    if (self->busy && pick(3) != 0)
        return LARDER_EBUSY;
    out->count = 0;
    out->end = true;
    out->next_row = action->read.from_row;
    for (uint64_t row = action->read.from_row; row < self->next_row; row++) {
        entry *at = &self->keys[self->rows[row]];
        if (out->count == action->read.max_records) {
            out->end = false;
            break;
        }
        out->next_row = row + 1;
        if (!at->there || at->row != row || (!at->dirty && !action->read.include_clean))
            continue;
        replica_record *record = &out->records[out->count++];
        *record = at->record;
        record->row = row;
        record->key = (const uint8_t *)key_names[self->rows[row]];
        record->key_size = strlen(key_names[self->rows[row]]);
        record->value = record->key;
    }
    return LARDER_OK;
}

static void do_push(node *self, const sync_action *action)
{
    uint64_t nonces = action->push.nonce_seed;
    for (size_t i = 0; i < action->push.count; i++) {
        request *r = ask(self, ASK_PUSH);
        r->batch = action->push.batch;
        r->index = i;
        r->key = key_of(action->push.records[i]);
        r->record = *action->push.records[i];
        r->record.key = r->record.value = NULL;
        r->epoch = action->push.epoch;
        r->emitter = action->push.emitter;
        r->nonce = sync_random(&nonces);
        r->quiet = action->push.quiet;
        r->remove = action->push.remove;
    }
}

static void carry_out(node *self, const sync_action *action)
{
    sync_event answer = {.kind = SYNC_EV_TICK};
    request *r;
    switch (action->kind) {
    case SYNC_ACT_CONNECT:
        cut(self);
        ask(self, ASK_CONNECT);
        return;
    case SYNC_ACT_DISCONNECT:
        cut(self);
        return;
    case SYNC_ACT_JOIN:
    case SYNC_ACT_RANGE:
        r = ask(self, action->kind == SYNC_ACT_JOIN ? ASK_JOIN : ASK_RANGE);
        r->epoch = action->cursor.epoch;
        r->number = action->cursor.number;
        r->limit = action->cursor.count;
        return;
    case SYNC_ACT_PUSH:
        do_push(self, action);
        return;
    case SYNC_ACT_LOAD:
        ask(self, ASK_LOAD);
        return;
    case SYNC_ACT_FETCH: {
        replica_record named = {.key = action->fetch.key, .key_size = action->fetch.key_size};
        r = ask(self, ASK_FETCH);
        r->id = action->fetch.id;
        r->key = key_of(&named);
        return;
    }
    case SYNC_ACT_ARM:
        self->armed = true;
        return;
    case SYNC_ACT_READ:
        answer.kind = SYNC_EV_ROWS;
        answer.status = do_read(self, action);
        answer.rows = &self->rows_out;
        break;
    case SYNC_ACT_APPLY:
        answer.kind = SYNC_EV_APPLIED;
        answer.status = do_apply(self, action);
        break;
    case SYNC_ACT_ACKNOWLEDGE:
        answer.kind = SYNC_EV_ACKNOWLEDGED;
        answer.acknowledged.batch = action->acknowledge.batch;
        if (self->busy && pick(3) != 0)
            answer.status = LARDER_EBUSY;
        else
            answer.acknowledged.cleared = do_acknowledge(self, action);
        break;
    }
    feed(self, &answer);
}

/* Actions that answer at once are worked off after the others of their step, as the daemon does. */
static void feed(node *self, sync_event *event)
{
    static sync_event waiting[64];
    static size_t count;
    static bool running;
    if (running) {
        ck_assert_uint_lt(count, 64);
        waiting[count++] = *event;
        return;
    }
    running = true;
    sync_event now = *event;
    for (;;) {
        sync_action_list actions;
        now.now_ms = now_ms;
        now.wall_ms = now_ms + self->skew;
        sync_step(self->machine, &now, &actions);
        for (size_t i = 0; i < actions.count; i++)
            carry_out(self, &actions.items[i]);
        if (count == 0)
            break;
        now = waiting[0];
        count--;
        memmove(waiting, waiting + 1, count * sizeof *waiting);
    }
    running = false;
}

static void give_reply(node *self)
{
    request *r = &self->queue[self->head++];
    sync_event event = {.kind = SYNC_EV_TICK};
    switch (r->kind) {
    case ASK_CONNECT:
        self->subscribed = true;
        event.kind = SYNC_EV_CONNECTED;
        event.run_id = redis.run_id;
        break;
    case ASK_JOIN:
        event.kind = SYNC_EV_JOINED;
        event.joined = r->joined;
        break;
    case ASK_PUSH:
        event.kind = SYNC_EV_REPLY;
        event.reply.batch = r->batch;
        event.reply.index = r->index;
        event.reply.outcome = r->outcome;
        event.reply.winner = r->has_change ? &r->changes[0] : NULL;
        break;
    case ASK_RANGE:
        event.kind = SYNC_EV_RANGE;
        event.range.changes = r->changes;
        event.range.count = r->count;
        break;
    case ASK_FETCH:
        event.kind = SYNC_EV_FETCHED;
        event.fetched.id = r->id;
        event.fetched.change = r->has_change ? &r->changes[0] : NULL;
        break;
    case ASK_LOAD:
        event.kind = SYNC_EV_SCRIPTS;
        break;
    }
    feed(self, &event);
    if (self->head == self->tail)
        self->head = self->worked = self->tail = 0;
}

static void give_message(node *self)
{
    sync_change change =
        as_change(&self->channel[self->channel_head].line, self->channel[self->channel_head].epoch,
                  self->channel[self->channel_head].number);
    change.numbered = self->channel[self->channel_head].numbered;
    sync_event event = {.kind = SYNC_EV_STREAM, .change = &change};
    self->channel_head++;
    if (self->channel_head == self->channel_tail)
        self->channel_head = self->channel_tail = 0;
    feed(self, &event);
}

static void say(node *self, enum sync_event_kind kind)
{
    sync_event event = {.kind = kind, .cause = SYNC_LOST_CONNECTION};
    feed(self, &event);
}

static void disconnect(node *self)
{
    cut(self);
    say(self, SYNC_EV_DISCONNECTED);
}

static void start_daemon(node *self)
{
    sync_settings settings = {.batch_commands = 1 + pick(4),
                              .batch_bytes = 65536,
                              .batches_in_flight = 1 + pick(3),
                              .retry_entries = 4,
                              .linger_ms = 2,
                              .backoff_min_ms = 10,
                              .backoff_max_ms = 200,
                              .park_ms = 1000,
                              .retry_max_ms = 500,
                              .heartbeat_ms = 300,
                              .breaker_failures = 3,
                              .breaker_open_ms = 100,
                              .page = 1 + pick(8),
                              .max_value = 1000,
                              .random_seed = sync_random(&chance)};
    sync_destroy(&self->machine);
    self->machine = sync_create(&settings);
    ck_assert_ptr_nonnull(self->machine);
    cut(self);
    sync_event event = {.kind = SYNC_EV_START, .position = &self->position};
    feed(self, &event);
}

/* ---- The schedule -----------------------------------------------------------------------------
 */

static void worker_writes(node *self)
{
    int k = (int)pick(KEYS);
    uint64_t clock = (uint64_t)(now_ms + self->skew) << 16;
    self->clock = clock > self->clock ? clock : self->clock + 1;
    entry written = {.dirty = true};
    written.record.version.clock = self->clock;
    written.record.version.node = (uint32_t)self->number + 1;
    written.record.kind = pick(4) == 0 ? REPLICA_DELETED : REPLICA_VALUE;
    written.record.value_hash = written.record.kind == REPLICA_VALUE ? sync_random(&chance) | 1 : 0;
    written.record.expires_at_ms = INT64_MAX;
    map_write(self, k, &written, false);
    if (!newest[k].there || sync_order(&newest[k].record, &written.record) < 0)
        newest[k] = written;
    if (self->armed) {
        self->armed = false;
        say(self, SYNC_EV_WAKE);
    }
}

static void trouble(node *self)
{
    switch (pick(9)) {
    case 0:
    case 1:
        disconnect(self);
        break;
    case 2:
        start_daemon(self); /* the old one died where it stood */
        break;
    case 3:
        self->busy = !self->busy;
        break;
    case 4:
        redis.scripts = false;
        break;
    case 5:
        redis.no_memory = !redis.no_memory;
        break;
    case 6:
        if (redis.count > redis.first + 1)
            redis.first += 1 + pick((unsigned)(redis.count - redis.first - 1));
        break;
    case 7:
        redis_save();
        break;
    case 8: /* the server dies: it comes back empty, or with what it had saved */
        for (int n = 0; n < NODES; n++)
            disconnect(&nodes[n]);
        (void)snprintf(redis.run_id, sizeof redis.run_id, "run%d", ++redis.life);
        redis.scripts = false;
        if (pick(3) == 0) {
            redis_forget();
        } else {
            memcpy(redis.keys, redis.saved_keys, sizeof redis.keys);
            memcpy(redis.stream, redis.saved_stream, redis.saved_count * sizeof *redis.stream);
            redis.epoch = redis.saved_epoch;
            redis.first = redis.saved_first;
            redis.count = redis.saved_count;
        }
        break;
    }
}

static void one_step(unsigned troubles)
{
    node *self = &nodes[pick(NODES)];
    switch (pick(12)) {
    case 0:
        worker_writes(self);
        break;
    case 1:
        if (pick(100) < troubles)
            trouble(self);
        break;
    case 2:
        now_ms += pick(20);
        say(self, SYNC_EV_TICK);
        break;
    case 3:
        say(self, SYNC_EV_IDLE);
        break;
    case 4:
    case 5:
        if (self->channel_head < self->channel_tail)
            give_message(self);
        break;
    case 6:
    case 7:
    case 8:
        if (self->worked < self->tail)
            redis_work(&self->queue[self->worked++]);
        break;
    default:
        if (self->head < self->worked)
            give_reply(self);
    }
}

static bool settled(void)
{
    for (int n = 0; n < NODES; n++) {
        sync_view view;
        sync_look(nodes[n].machine, &view);
        if (view.state != SYNC_UP || !view.drained || nodes[n].tail != 0 ||
            nodes[n].channel_tail != 0)
            return false;
        for (int k = 0; k < KEYS; k++)
            if (nodes[n].keys[k].there && nodes[n].keys[k].dirty)
                return false;
    }
    return true;
}

/* All that is under way for a node; false: nothing was. */
static bool let_through(node *self)
{
    bool any = self->tail != 0 || self->channel_tail != 0;
    while (self->worked < self->tail)
        redis_work(&self->queue[self->worked++]);
    while (self->channel_head < self->channel_tail)
        give_message(self);
    while (self->head < self->worked)
        give_reply(self);
    say(self, SYNC_EV_IDLE);
    return any;
}

static void let_all_through(uint64_t seed)
{
    redis.no_memory = false;
    for (int n = 0; n < NODES; n++)
        nodes[n].busy = false;
    int quiet = 0;
    for (int round = 0; round < 20000 && quiet < 100; round++) {
        now_ms += 10;
        for (int n = 0; n < NODES; n++)
            say(&nodes[n], SYNC_EV_TICK);
        bool more = true;
        for (int turn = 0; turn < 1000 && more; turn++) {
            more = false;
            for (int n = 0; n < NODES; n++)
                more = let_through(&nodes[n]) || more;
        }
        quiet = settled() ? quiet + 1 : 0; /* over several heartbeats */
    }
    if (quiet >= 100)
        return;
    for (int n = 0; n < NODES; n++) {
        sync_view view;
        unsigned dirty = 0;
        sync_look(nodes[n].machine, &view);
        for (int k = 0; k < KEYS; k++)
            dirty += nodes[n].keys[k].there && nodes[n].keys[k].dirty;
        printf("# seed %" PRIu64
               ": node %d: state %d drained %d resyncing %d catching up %d dirty %u in flight %u "
               "retry %u asked %zu heard %zu\n",
               seed, n, (int)view.state, (int)view.drained, (int)view.resyncing,
               (int)view.catching_up, dirty, view.in_flight_items, view.retry_entries,
               nodes[n].tail, nodes[n].channel_tail);
    }
    ck_abort_msg("seed %" PRIu64 ": never at rest", seed);
}

/* A removal that was told outside the numbers leaves a tombstone of a version just before the true
 * one: a miss all the same. */
static bool same_for_readers(const replica_record *found, const replica_record *wanted)
{
    return sync_order(found, wanted) == 0 ||
           (found->kind == REPLICA_DELETED && wanted->kind == REPLICA_DELETED);
}

static void expect_converged(uint64_t seed)
{
    for (int k = 0; k < KEYS; k++) {
        if (!newest[k].there)
            continue;
        ck_assert_msg(redis.keys[k].there &&
                          sync_order(&redis.keys[k].record, &newest[k].record) == 0,
                      "seed %" PRIu64 ": Redis lost the newest write of key %d", seed, k);
        for (int n = 0; n < NODES; n++)
            ck_assert_msg(!nodes[n].keys[k].there ||
                              same_for_readers(&nodes[n].keys[k].record, &newest[k].record),
                          "seed %" PRIu64 ": node %d kept an old key %d", seed, n, k);
    }
    for (int n = 0; n < NODES; n++)
        ck_assert_msg(nodes[n].position.epoch == redis.epoch,
                      "seed %" PRIu64 ": node %d has not stored its place", seed, n);
}

static void run(uint64_t seed, unsigned steps, unsigned troubles)
{
    chance = seed;
    now_ms = 1000000;
    memset(newest, 0, sizeof newest);
    event_line *stream = redis.stream, *saved = redis.saved_stream;
    memset(&redis, 0, sizeof redis);
    redis.stream = stream;
    redis.saved_stream = saved;
    (void)snprintf(redis.run_id, sizeof redis.run_id, "run0");
    for (int n = 0; n < NODES; n++) {
        node *self = &nodes[n];
        self->number = n;
        memset(self->keys, 0, sizeof self->keys);
        memset(&self->position, 0, sizeof self->position);
        self->next_row = 1;
        self->clock = 0;
        self->armed = self->busy = false;
        self->skew = (int64_t)pick(2000) - 1000;
        start_daemon(self);
    }
    for (unsigned i = 0; i < steps; i++)
        one_step(troubles);
    let_all_through(seed);
    expect_converged(seed);
}

static void make_models(void)
{
    redis.stream = calloc(STREAM_MAX, sizeof *redis.stream);
    redis.saved_stream = calloc(STREAM_MAX, sizeof *redis.stream);
    for (int n = 0; n < NODES; n++) {
        nodes[n].queue = calloc(QUEUE_MAX, sizeof *nodes[n].queue);
        nodes[n].channel = calloc(QUEUE_MAX, sizeof *nodes[n].channel);
        nodes[n].rows_out.records = calloc(SYNC_BATCH_MAX, sizeof(replica_record));
        ck_assert_ptr_nonnull(nodes[n].queue);
    }
    for (int k = 0; k < KEYS; k++)
        (void)snprintf(key_names[k], sizeof key_names[k], "key%d", k);
}

static void free_models(void)
{
    free(redis.stream);
    free(redis.saved_stream);
    for (int n = 0; n < NODES; n++) {
        sync_destroy(&nodes[n].machine);
        free(nodes[n].queue);
        free(nodes[n].channel);
        free(nodes[n].rows_out.records);
    }
}

static unsigned rounds(unsigned usual)
{
    return getenv("LARDER_LONG") != NULL ? usual * 200 : usual;
}

START_TEST(good_weather)
{
    for (unsigned i = 0; i < rounds(100); i++)
        run(harness_seed() + i, 500, 0);
}
END_TEST

START_TEST(some_trouble)
{
    for (unsigned i = 0; i < rounds(300); i++)
        run(harness_seed() + i, 1500, 20);
}
END_TEST

START_TEST(much_trouble)
{
    for (unsigned i = 0; i < rounds(300); i++)
        run(harness_seed() + i, 1500, 100);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sync_fleet");
    TCase *all = tcase_create("fleet");
    tcase_add_checked_fixture(all, make_models, free_models);
    tcase_set_timeout(all, 600);
    tcase_add_test(all, good_weather);
    tcase_add_test(all, some_trouble);
    tcase_add_test(all, much_trouble);
    suite_add_tcase(suite, all);
    return harness_run(suite);
}
