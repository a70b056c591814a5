/* link_push.c: entries on their way to Redis: pushing, comparing, telling, and what the replies
 * mean. See link.h; replies are not trusted.
 */
#include "daemon/redis/link_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/wire.h"

#define EVENT_OVERHEAD 48u /* what an entry costs in a stream beside its text, about */
#define STREAM_LENGTH_MIN 1000u
#define PUSH_KEYS 3
#define PUSH_WORDS (3 + PUSH_KEYS + PUSH_ARGUMENTS)

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
    if (push->push.items[index].remove)
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
    *trouble = error->said;
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
