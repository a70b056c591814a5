/* link_requests.c: the protocol's commands and what is read from their replies. See link.h. Replies
 * are not trusted: what has another form than the request allows ends the session.
 */
#include "daemon/redis/link_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/wire.h"

#define EVENT_OVERHEAD 48u /* what an entry costs in a stream beside its text, about */
#define STREAM_LENGTH_MIN 1000u
#define CLAIM_LASTS_MS 3600000 /* of a node id, from its last heartbeat */
#define PUSH_KEYS 3
#define PUSH_WORDS (3 + PUSH_KEYS + PUSH_ARGUMENTS)

void link_refused(struct link *self, const char *what, const reply *error)
{
    bool right = reply_error_is(error, "NOPERM") || strstr(error->text, "unknown command") != NULL;
    char why[300];
    snprintf(why, sizeof why, "%s: %.250s", what, error->text);
    link_fail(self, right ? SYNC_NO_PERMISSION : SYNC_NOT_READY, why, false, false);
}

void link_out_of_step(struct link *self, const char *what)
{
    char why[96];
    snprintf(why, sizeof why, "%s was answered with something else", what);
    link_fail(self, SYNC_LOST_CONNECTION, why, false, true);
}

/* ---- Join -------------------------------------------------------------------------------------
 */

bool link_join(struct link *self, uint64_t epoch, uint64_t number, uint32_t node, uint64_t identity)
{
    char id[48] = "", begin[WIRE_EVENT_HEAD_MAX], name[32], claim[NAMES_FLEET_MAX], owner[20],
         lasts[16];
    self->join_epoch = epoch;
    self->join_number = number;
    self->join_node = node;
    self->join_identity = identity;
    if (epoch != 0)
        wire_id(epoch, number, id);
    wire_begin(sync_random(&self->random), sync_random(&self->random), begin);
    snprintf(name, sizeof name, "node:%08" PRIx32, node);
    names_fleet(self->settings.prefix, name, claim, sizeof claim);
    snprintf(owner, sizeof owner, "%016" PRIx64, identity);
    snprintf(lasts, sizeof lasts, "%d", CLAIM_LASTS_MS);
    const char *words[] = {"EVALSHA", self->sha[SCRIPT_JOIN], "2",   self->stream, claim, id,
                           begin,     self->channel_name,     owner, lasts};
    size_t sizes[10];
    for (size_t i = 0; i < 10; i++)
        sizes[i] = strlen(words[i]);
    return link_mark_set(self) &&
           link_send(self, self->commands, REQUEST_JOIN, 0, 0, NULL, 10, words, sizes);
}

static bool read_joined(const struct link *self, const reply *got, sync_joined *joined)
{
    char owner[20];
    memset(joined, 0, sizeof *joined);
    if (got->kind != REPLY_ARRAY || got->count != 5)
        return false;
    for (size_t i = 0; i < 5; i++)
        if (got->elements[i]->kind != REPLY_STRING)
            return false;
    const reply *const *e = (const reply *const *)got->elements;
    sync_change last, at;
    memset(&last, 0, sizeof last);
    memset(&at, 0, sizeof at);
    if (!wire_id_read(e[0]->text, e[0]->size, &joined->epoch, &joined->last_number) ||
        joined->epoch == 0)
        return false;
    wire_event_read(e[1]->text, e[1]->size, &last);
    joined->last_nonce = last.nonce;
    if (e[2]->size != 0) {
        wire_event_read(e[2]->text, e[2]->size, &at);
        joined->cursor_found = true;
        joined->cursor_nonce = at.nonce;
    }
    snprintf(owner, sizeof owner, "%016" PRIx64, self->join_identity);
    joined->node_taken = !reply_text_is(e[4], owner);
    char *end;
    joined->redis_ms = strtoll(e[3]->text, &end, 10);
    return *end == 0 && joined->redis_ms > 0 && joined->redis_ms <= REDIS_MS_MAX;
}

void link_got_join(struct link *self, const reply *got)
{
    sync_joined joined;
    if (got->kind == REPLY_ERROR) {
        if (reply_error_is(got, "NOSCRIPT") && !self->join_repeated) {
            self->join_repeated = true;
            if (link_load(self) && link_join(self, self->join_epoch, self->join_number,
                                             self->join_node, self->join_identity))
                return;
        }
        bool wait = reply_error_is(got, "OOM") || reply_error_is(got, "NOSCRIPT") ||
                    reply_error_is(got, CLUSTER_LATER);
        link_fail(self, wait ? SYNC_NOT_READY : SYNC_NO_PERMISSION, got->text, false, false);
        return;
    }
    if (!read_joined(self, got, &joined)) {
        link_out_of_step(self, "the join script");
        return;
    }
    self->join_repeated = false;
    joined.marks_id = self->marks_id;
    self->callbacks.joined(self->context, &joined);
}

/* ---- Push -------------------------------------------------------------------------------------
 */

static bool room_for_event(struct link *self, size_t size)
{
    if (self->event_size >= size)
        return true;
    uint8_t *grown = realloc(self->event, size + size / 2);
    if (grown == NULL)
        return false;
    self->event = grown;
    self->event_size = size + size / 2;
    return true;
}

uint64_t link_stream_length(const struct link *self)
{
    uint64_t length = self->settings.stream_bytes / self->average_event;
    return length < STREAM_LENGTH_MIN ? STREAM_LENGTH_MIN : length;
}

/* The record outlives its value by T; one without an end has none either. */
static void record_expiry(const struct link *self, const replica_record *record, int64_t redis_ms,
                          char *out, size_t out_size)
{
    int64_t until = redis_ms;
    out[0] = 0;
    if (record->kind != REPLICA_DELETED) {
        int64_t gone_ms = replica_gone_ms(record);
        if (gone_ms >= INT64_MAX - self->settings.tombstone_ms)
            return;
        if (gone_ms > until)
            until = gone_ms;
    }
    snprintf(out, out_size, "%" PRId64, until + self->settings.tombstone_ms);
}

struct push_text { /* the short arguments of one push */
    char record[WIRE_RECORD_MAX], value_at[16], expiry[24], record_expiry[24], length[24];
    size_t record_size, event_size;
    bool in_event, set;
};

static bool write_event(struct link *self, const replica_record *record, int64_t redis_ms,
                        uint64_t emitter, uint64_t nonce, struct push_text *text)
{
    char head[WIRE_EVENT_HEAD_MAX];
    /* What has expired is set no more, but others may want it as a stale value. */
    text->in_event =
        (text->set || (record->kind == REPLICA_VALUE && replica_gone_ms(record) > redis_ms)) &&
        record->value_size <= self->settings.inline_value;
    text->record_size = wire_record(record, text->record);
    size_t head_size = wire_event_head(text->record, text->record_size, record->key_size,
                                       text->in_event, emitter, nonce, head);
    size_t size = head_size + record->key_size + (text->in_event ? record->value_size : 0);
    if (!room_for_event(self, size + 1))
        return false;
    memcpy(self->event, head, head_size);
    memcpy(self->event + head_size, record->key, record->key_size);
    if (text->in_event && record->value_size != 0)
        memcpy(self->event + head_size + record->key_size, record->value, record->value_size);
    text->event_size = size;
    snprintf(text->value_at, sizeof text->value_at, "%zu",
             text->in_event ? head_size + record->key_size + 1 : 0);
    self->average_event = (self->average_event * 63 + size + EVENT_OVERHEAD) / 64;
    return true;
}

static bool send_remove(struct link *self, struct sync_batch *batch, uint32_t index,
                        const replica_record *record, const struct push_text *text)
{
    char limit[16], ahead[16];
    snprintf(limit, sizeof limit, "%u", self->settings.inline_value);
    snprintf(ahead, sizeof ahead, "%d", REPLICA_AHEAD_MS);
    const char *words[] = {"EVALSHA",
                           self->sha[SCRIPT_REMOVE],
                           "2",
                           (const char *)self->names.key,
                           (const char *)self->names.record,
                           text->record,
                           (const char *)self->event,
                           self->channel_name,
                           limit,
                           ahead};
    size_t sizes[] = {7,
                      40,
                      1,
                      self->names.key_size,
                      self->names.record_size,
                      text->record_size,
                      text->event_size,
                      strlen(self->channel_name),
                      strlen(limit),
                      strlen(ahead)};
    (void)record;
    return link_send(self, self->commands, REQUEST_PUSH, index, 0, batch, 10, words, sizes);
}

static bool send_push(struct link *self, const sync_action *push, uint32_t index,
                      const replica_record *record, const struct push_text *text)
{
    char epoch[32], limit[16], ahead[16];
    snprintf(ahead, sizeof ahead, "%d", REPLICA_AHEAD_MS);
    snprintf(epoch, sizeof epoch, "%" PRIu64 "-*", push->push.epoch);
    snprintf(limit, sizeof limit, "%u", self->settings.inline_value);
    const char *words[PUSH_WORDS] = {"EVALSHA",
                                     self->sha[SCRIPT_PUSH],
                                     "3",
                                     (const char *)self->names.key,
                                     (const char *)self->names.record,
                                     self->stream};
    const char **argv = words + 3 + PUSH_KEYS - 1; /* argv[PUSH_...] counts from 1, as in Lua */
    size_t sizes[PUSH_WORDS];
    bool value_apart = text->set && !text->in_event;
    argv[PUSH_RECORD] = text->record;
    argv[PUSH_EVENT] = (const char *)self->event;
    argv[PUSH_VALUE_AT] = text->value_at;
    argv[PUSH_OPERATION] = text->set ? "s" : "u";
    argv[PUSH_EXPIRY] = text->expiry;
    argv[PUSH_RECORD_EXPIRY] = text->record_expiry;
    argv[PUSH_EPOCH] = epoch;
    argv[PUSH_LENGTH] = text->length;
    argv[PUSH_CHANNEL] = self->channel_name;
    argv[PUSH_QUIET] = push->push.quiet ? "q" : "";
    argv[PUSH_INLINE] = limit;
    argv[PUSH_AHEAD] = ahead;
    argv[PUSH_VALUE] = value_apart ? (const char *)record->value : "";
    for (size_t i = 0; i < PUSH_WORDS; i++) {
        bool binary = i == 3 || i == 4 || i == 5 + PUSH_EVENT || i == 5 + PUSH_VALUE;
        sizes[i] = binary ? 0 : strlen(words[i]);
    }
    sizes[3] = self->names.key_size;
    sizes[4] = self->names.record_size;
    sizes[5 + PUSH_EVENT] = text->event_size;
    sizes[5 + PUSH_VALUE] = value_apart ? record->value_size : 0;
    return link_send(self, self->commands, REQUEST_PUSH, index, 0, push->push.batch, PUSH_WORDS,
                     words, sizes);
}

static bool send_store(struct link *self, const sync_action *push, uint32_t index,
                       const replica_record *record, const struct push_text *text)
{
    char limit[16], ahead[16];
    snprintf(limit, sizeof limit, "%u", self->settings.inline_value);
    snprintf(ahead, sizeof ahead, "%d", REPLICA_AHEAD_MS);
    const char *words[5 + STORE_ARGUMENTS] = {"EVALSHA", self->sha[SCRIPT_STORE], "2",
                                              (const char *)self->names.key,
                                              (const char *)self->names.record};
    const char **argv = words + 4; /* argv[STORE_...] counts from 1, as in Lua */
    size_t sizes[5 + STORE_ARGUMENTS];
    argv[STORE_RECORD] = text->record;
    argv[STORE_OPERATION] = text->set ? "s" : "u";
    argv[STORE_EXPIRY] = text->expiry;
    argv[STORE_RECORD_EXPIRY] = text->record_expiry;
    argv[STORE_QUIET] = push->push.quiet ? "q" : "";
    argv[STORE_INLINE] = limit;
    argv[STORE_AHEAD] = ahead;
    argv[STORE_VALUE] = text->set && !push->push.quiet ? (const char *)record->value : "";
    for (size_t i = 0; i < 5 + STORE_ARGUMENTS; i++)
        sizes[i] = i == 3 || i == 4 || i == 4 + STORE_VALUE ? 0 : strlen(words[i]);
    sizes[3] = self->names.key_size;
    sizes[4] = self->names.record_size;
    sizes[4 + STORE_VALUE] = text->set && !push->push.quiet ? record->value_size : 0;
    return link_send(self, self->commands, REQUEST_PUSH, index, 0, push->push.batch,
                     5 + STORE_ARGUMENTS, words, sizes);
}

/* A name that cannot be used in Redis: a request whose answer says so keeps the order of replies.
 */
static bool send_unnamed(struct link *self, struct sync_batch *batch, uint32_t index)
{
    static const char *const words[] = {"EVAL",
                                        "return redis.error_reply('NAME the key begins like one of"
                                        " larder\\'s own and is not stored in Redis')",
                                        "0"};
    return link_send(self, self->commands, REQUEST_PUSH, index, 0, batch, 3, words, NULL);
}

static bool send_one(struct link *self, const sync_action *push, uint32_t index,
                     const replica_record *record, const struct push_text *text)
{
    if (push->push.remove)
        return send_remove(self, push->push.batch, index, record, text);
    if (self->cluster != NULL)
        return send_store(self, push, index, record, text);
    return send_push(self, push, index, record, text);
}

bool link_push(struct link *self, const sync_action *push)
{
    uint64_t nonces = push->push.nonce_seed;
    untold *kept = NULL;
    if (self->cluster != NULL) {
        kept = untold_begin(&self->untold, push->push.batch, push->push.count);
        if (kept == NULL)
            return false;
    }
    for (size_t i = 0; i < push->push.count; i++) {
        const replica_record *record = push->push.records[i];
        struct push_text text = {.set = record->kind == REPLICA_VALUE &&
                                        record->expires_at_ms > push->push.redis_ms};
        int named = names_of(&self->names, self->settings.prefix, record->key, record->key_size);
        if (named == -2) {
            if (!send_unnamed(self, push->push.batch, (uint32_t)i))
                return false;
            continue;
        }
        if (named != 0 || !write_event(self, record, push->push.redis_ms, push->push.emitter,
                                       sync_random(&nonces), &text))
            return false;
        if (text.set && record->expires_at_ms != INT64_MAX)
            snprintf(text.expiry, sizeof text.expiry, "%" PRId64, record->expires_at_ms);
        record_expiry(self, record, push->push.redis_ms, text.record_expiry,
                      sizeof text.record_expiry);
        snprintf(text.length, sizeof text.length, "%" PRIu64, link_stream_length(self));
        if (kept != NULL && !push->push.quiet && /* quiet: nothing is stored */
            !untold_keep(kept, i, self->event, text.event_size))
            return false;
        if (!send_one(self, push, (uint32_t)i, record, &text))
            return false;
    }
    return true;
}

bool link_compare(struct link *self, const sync_action *push)
{
    for (size_t i = 0; i < push->push.count; i++) {
        const replica_record *record = push->push.records[i];
        int named = names_of(&self->names, self->settings.prefix, record->key, record->key_size);
        if (named == -2) {
            if (!send_unnamed(self, push->push.batch, (uint32_t)i))
                return false;
            continue;
        }
        const char *words[] = {"GET", (const char *)self->names.record};
        size_t sizes[] = {3, self->names.record_size};
        if (named != 0 || !link_send(self, self->commands, REQUEST_COMPARE, (uint32_t)i, 0,
                                     push->push.batch, 2, words, sizes))
            return false;
    }
    return true;
}

/* A value counts only if it is the one that its record names: others write to Redis too. */
static void check_value(sync_change *change)
{
    const replica_record *record = &change->record;
    if (record->kind != REPLICA_VALUE || change->value_missing)
        return;
    if (record->value_size != change->full_size ||
        replica_value_hash(record->value, record->value_size) != record->value_hash)
        change->value_missing = true;
}

bool link_read_winner(const reply *record, const reply *value, sync_change *out)
{
    memset(out, 0, sizeof *out);
    if (record->kind != REPLY_STRING || !wire_record_read(record->text, record->size, out))
        return false;
    out->value_missing = out->record.kind == REPLICA_VALUE && value == NULL;
    if (value != NULL && out->record.kind == REPLICA_VALUE) {
        out->record.value = (const uint8_t *)value->text;
        out->record.value_size = value->size;
    }
    check_value(out);
    return true;
}

void link_got_record(struct link *self, const connection_tag *tag, const reply *got)
{
    sync_change record;
    enum sync_outcome outcome = SYNC_FOUND;
    bool readable = false;
    if (got->kind == REPLY_NIL) {
        outcome = SYNC_NOT_FOUND;
    } else if (got->kind == REPLY_ERROR) { /* no right to it, or no record at all */
        outcome = SYNC_REFUSED_KEY;
    } else if (got->kind == REPLY_STRING) {
        readable = link_read_winner(got, NULL, &record);
    } else {
        link_out_of_step(self, "GET");
        return;
    }
    self->callbacks.replied(self->context, tag->pointer, tag->index, outcome,
                            readable ? &record : NULL, 0, NULL);
}

/* What an error reply says of what was to be stored or told. */
static enum sync_outcome refusal(const reply *error, const char **trouble)
{
    *trouble = error->text;
    if (reply_error_is(error, "OOM"))
        return SYNC_NO_MEMORY;
    if (reply_error_is(error, "NOSCRIPT"))
        return SYNC_NO_SCRIPT;
    if (!reply_error_is(error, CLUSTER_LATER))
        return SYNC_REFUSED_KEY;
    *trouble = NULL; /* slots move now and then */
    return SYNC_LATER;
}

void link_got_push(struct link *self, const connection_tag *tag, const reply *got)
{
    struct sync_batch *batch = tag->pointer;
    sync_change winner;
    enum sync_outcome outcome = SYNC_REFUSED_KEY;
    const sync_change *found = NULL;
    const char *trouble = NULL;
    int64_t redis_ms = 0;
    if (got->kind == REPLY_INTEGER && got->integer < 0 && got->integer >= -REDIS_MS_MAX) {
        outcome = SYNC_AHEAD;
        redis_ms = -got->integer;
    } else if (got->kind == REPLY_INTEGER && got->integer >= PUSH_REPLY_STORED &&
               got->integer <= PUSH_REPLY_LACKING) {
        static const enum sync_outcome outcomes[] = {SYNC_STORED, SYNC_SAME, SYNC_REMOVED,
                                                     SYNC_NO_STREAM, SYNC_LACKING};
        outcome = outcomes[got->integer - PUSH_REPLY_STORED];
    } else if (got->kind == REPLY_ARRAY && (got->count == 1 || got->count == 2)) {
        const reply *value = got->count == 2 ? got->elements[1] : NULL;
        if (value != NULL && value->kind != REPLY_STRING)
            value = NULL;
        outcome = SYNC_OLD;
        if (link_read_winner(got->elements[0], value, &winner))
            found = &winner;
        else
            trouble = "its record in Redis cannot be read";
    } else if (got->kind == REPLY_ERROR) {
        outcome = refusal(got, &trouble);
    } else {
        link_out_of_step(self, "a push");
        return;
    }
    untold_answered(&self->untold, batch, tag->index, outcome == SYNC_STORED);
    self->callbacks.replied(self->context, batch, tag->index, outcome, found, redis_ms, trouble);
}

/* ---- Emit -------------------------------------------------------------------------------------
 */

bool link_emit(struct link *self, const sync_action *emit)
{
    char epoch[32], length[24];
    untold *kept = untold_find(&self->untold, emit->emit.batch);
    if (kept == NULL)
        return false;
    size_t count = 4 + 3 + kept->stored, at = 0;
    const char **words = calloc(count, sizeof *words);
    size_t *sizes = calloc(count, sizeof *sizes);
    snprintf(epoch, sizeof epoch, "%" PRIu64 "-*", emit->emit.epoch);
    snprintf(length, sizeof length, "%" PRIu64, link_stream_length(self));
    const char *first[] = {"EVALSHA", self->sha[SCRIPT_EMIT], "1", self->stream, epoch,
                           length,    self->channel_name};
    for (; words != NULL && sizes != NULL && at < sizeof first / sizeof *first; at++) {
        words[at] = first[at];
        sizes[at] = strlen(first[at]);
    }
    for (size_t i = 0; at != 0 && i < kept->count; i++) {
        if (!kept->events[i].stored)
            continue;
        words[at] = (const char *)kept->bytes + kept->events[i].at;
        sizes[at++] = kept->events[i].size;
    }
    bool sent = at != 0 && link_send(self, self->commands, REQUEST_EMIT, 0, 0, emit->emit.batch,
                                     (int)at, words, sizes);
    untold_forget(&self->untold, emit->emit.batch);
    free(words);
    free(sizes);
    return sent;
}

void link_got_emit(struct link *self, struct sync_batch *batch, const reply *got)
{
    enum sync_outcome outcome;
    const char *trouble = NULL;
    if (got->kind == REPLY_ERROR) {
        outcome = refusal(got, &trouble);
    } else if (got->kind == REPLY_INTEGER && got->integer == PUSH_REPLY_STORED) {
        outcome = SYNC_STORED;
    } else if (got->kind == REPLY_INTEGER && got->integer == PUSH_REPLY_NO_STREAM) {
        outcome = SYNC_NO_STREAM;
    } else {
        link_out_of_step(self, "the emit script");
        return;
    }
    self->callbacks.emitted(self->context, batch, outcome, trouble);
}

/* ---- Stream and channel -----------------------------------------------------------------------
 */

bool link_range(struct link *self, uint64_t epoch, uint64_t number, uint32_t limit)
{
    char id[48], after[49], count[16];
    wire_id(epoch, number, id);
    snprintf(after, sizeof after, "(%s", id);
    snprintf(count, sizeof count, "%" PRIu32, limit);
    const char *words[] = {"XRANGE", self->stream, after, "+", "COUNT", count};
    return link_send(self, self->commands, REQUEST_RANGE, 0, 0, NULL, 6, words, NULL);
}

static bool read_entry(const reply *got, sync_change *out)
{
    memset(out, 0, sizeof *out);
    out->numbered = true;
    if (got->kind != REPLY_ARRAY || got->count != 2 || got->elements[0]->kind != REPLY_STRING ||
        !wire_id_read(got->elements[0]->text, got->elements[0]->size, &out->epoch, &out->number))
        return false;
    const reply *fields = got->elements[1];
    if (fields->kind == REPLY_ARRAY && fields->count >= 2 &&
        fields->elements[1]->kind == REPLY_STRING) {
        wire_event_read(fields->elements[1]->text, fields->elements[1]->size, out);
        check_value(out);
    } else {
        out->malformed = true;
    }
    return true;
}

void link_got_range(struct link *self, const reply *got)
{
    if (got->kind == REPLY_ERROR) {
        link_refused(self, "XRANGE", got);
        return;
    }
    if (got->kind != REPLY_ARRAY || got->count > SYNC_PAGE_MAX) {
        link_out_of_step(self, "XRANGE");
        return;
    }
    for (size_t i = 0; i < got->count; i++) {
        if (!read_entry(got->elements[i], &self->changes[i])) {
            link_out_of_step(self, "XRANGE");
            return;
        }
    }
    self->callbacks.ranged(self->context, self->changes, got->count);
}

void link_got_message(struct link *self, const char *text, size_t size)
{
    sync_change change;
    if (!wire_message_read(text, size, &change))
        return; /* somebody else's words on our channel; a lost event of ours shows as a gap */
    check_value(&change);
    self->callbacks.streamed(self->context, &change);
}

/* ---- Values -----------------------------------------------------------------------------------
 */

bool link_fetch(struct link *self, uint64_t id, const uint8_t *key, size_t key_size)
{
    if (names_of(&self->names, self->settings.prefix, key, key_size) != 0)
        return false;
    const char *words[] = {"MGET", (const char *)self->names.record, (const char *)self->names.key};
    size_t sizes[] = {4, self->names.record_size, self->names.key_size};
    return link_send(self, self->commands, REQUEST_FETCH, 0, id, NULL, 3, words, sizes);
}

void link_got_fetch(struct link *self, uint64_t id, const reply *got)
{
    sync_change found;
    if (got->kind == REPLY_ERROR) { /* no permission for this key, say: then it stays a miss */
        self->callbacks.fetched(self->context, id, NULL);
        return;
    }
    if (got->kind != REPLY_ARRAY || got->count != 2) {
        link_out_of_step(self, "MGET");
        return;
    }
    bool usable = got->elements[1]->kind == REPLY_STRING &&
                  link_read_winner(got->elements[0], got->elements[1], &found) &&
                  found.record.kind == REPLICA_VALUE && !found.value_missing;
    self->callbacks.fetched(self->context, id, usable ? &found : NULL);
}
