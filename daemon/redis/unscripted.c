/* unscripted.c: see unscripted.h. One chunk of calls at a time is under way, because a connection
 * has one set of watched keys: its reads are sent in one go, then, in one go too, MULTI, its writes
 * and EXEC, so that no other command of the connection falls between the two. A chunk that
 * somebody else's write has made void is begun again, smaller, and not for ever.
 */
#include "daemon/redis/unscripted_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Calls ------------------------------------------------------------------------------------
 */

void unscripted_forget_text(struct text *text)
{
    free(text->bytes);
    text->bytes = NULL;
    text->size = 0;
}

static void forget_attempt(struct call *call)
{
    unscripted_forget_text(&call->record);
    unscripted_forget_text(&call->value);
    unscripted_forget_text(&call->last_id);
    unscripted_forget_text(&call->last_event);
    unscripted_forget_text(&call->at);
    unscripted_forget_text(&call->owner);
    free(call->marks);
    call->marks = NULL;
    call->has_record = call->has_value = false;
    call->error[0] = 0;
    call->decision = DECISION_OPEN;
}

static void call_free(struct call *call)
{
    forget_attempt(call);
    free(call->words);
    free(call);
}

bool unscripted_keep(struct text *text, const reply *got)
{
    text->bytes = malloc(got->size + 1);
    if (text->bytes == NULL)
        return false;
    memcpy(text->bytes, got->text, got->size);
    text->bytes[got->size] = 0;
    text->size = got->size;
    return true;
}

/* What is said of the call in place of a reply; the first thing counts. */
void unscripted_refuse(struct call *call, const char *error)
{
    if (call->decision == DECISION_ERROR)
        return;
    call->decision = DECISION_ERROR;
    snprintf(call->error, sizeof call->error, "%s", error);
    snprintf(call->said, sizeof call->said, "%s", error);
}

void unscripted_refuse_as(struct call *call, const reply *error)
{
    if (call->decision == DECISION_ERROR)
        return;
    unscripted_refuse(call, error->text);
    snprintf(call->said, sizeof call->said, "%s", error->said);
}

static struct call *copy_call(const connection_tag *tag, enum script_id script, int count,
                              const char *const *words, const size_t *sizes)
{
    struct call *call = calloc(1, sizeof *call);
    size_t total = 0, number = (size_t)count;
    for (size_t i = 0; i < number; i++)
        total += sizes[i] + 1;
    /* one block: pointers, sizes, bytes */
    size_t heads = number * (sizeof *call->words + sizeof *call->sizes);
    char *block = malloc(heads + total);
    if (call == NULL || block == NULL) {
        free(call);
        free(block);
        return NULL;
    }
    call->words = (const char **)(void *)block;
    call->sizes = (size_t *)(void *)(block + number * sizeof *call->words);
    char *at = block + heads;
    for (size_t i = 0; i < number; i++) {
        memcpy(at, words[i], sizes[i]);
        at[sizes[i]] = 0;
        call->words[i] = at;
        call->sizes[i] = sizes[i];
        at += sizes[i] + 1;
    }
    call->tag = *tag;
    call->script = script;
    call->count = count;
    call->sent_us = connection_now_us();
    return call;
}

unscripted *unscripted_create(const unscripted_callbacks *callbacks, void *context)
{
    unscripted *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    self->callbacks = *callbacks;
    self->context = context;
    self->last = &self->first;
    self->chunk_limit = CHUNK_MAX;
    return self;
}

void unscripted_reset(unscripted *self)
{
    while (self->first != NULL) {
        struct call *call = self->first;
        self->first = call->next;
        call_free(call);
    }
    self->last = &self->first;
    self->chunk_size = 0;
    self->chunk_limit = CHUNK_MAX;
    self->attempts = 0;
    self->under_way = self->broken = self->out_of_step = false;
    self->life++;
}

void unscripted_destroy(unscripted **self)
{
    if (self == NULL || *self == NULL)
        return;
    unscripted_reset(*self);
    free(*self);
    *self = NULL;
}

/* ---- Sending ----------------------------------------------------------------------------------
 */

void unscripted_send(unscripted *self, enum what what, size_t index, int count,
                     const char *const *words, const size_t *sizes)
{
    uint32_t tag = (uint32_t)what | (uint32_t)index << WHAT_BITS;
    if (!self->broken && !self->callbacks.send(self->context, tag, count, words, sizes))
        self->broken = true;
}

void unscripted_send_words(unscripted *self, enum what what, size_t index, int count,
                           const char *const *words)
{
    size_t sizes[8];
    for (int i = 0; i < count && i < 8; i++)
        sizes[i] = strlen(words[i]);
    unscripted_send(self, what, index, count, words, sizes);
}

/* A command and words of the call, of any bytes. */
void unscripted_send_key(unscripted *self, enum what what, size_t index, const char *command,
                         int word)
{
    const struct call *call = self->chunk[index];
    const char *words[] = {command, call->words[word]};
    size_t sizes[] = {strlen(command), call->sizes[word]};
    unscripted_send(self, what, index, 2, words, sizes);
}

static bool same_record(const struct call *a, const struct call *b)
{
    return a->sizes[KEY(2)] == b->sizes[KEY(2)] &&
           memcmp(a->words[KEY(2)], b->words[KEY(2)], a->sizes[KEY(2)]) == 0;
}

/* Pushes of different keys go together; anything else alone. */
static bool joins_chunk(const unscripted *self, const struct call *call)
{
    if (self->chunk_size == 0)
        return true;
    if (self->chunk_size == self->chunk_limit || call->script != SCRIPT_PUSH ||
        self->chunk[0]->script != SCRIPT_PUSH)
        return false;
    for (size_t i = 0; i < self->chunk_size; i++)
        if (same_record(self->chunk[i], call))
            return false;
    return true;
}

void unscripted_begin_chunk(unscripted *self)
{
    self->chunk_size = 0;
    for (struct call *call = self->first; call != NULL && joins_chunk(self, call);
         call = call->next) {
        forget_attempt(call);
        self->chunk[self->chunk_size++] = call;
    }
    self->under_way = self->chunk_size != 0;
    if (!self->under_way)
        return;
    enum script_id script = self->chunk[0]->script;
    if (script == SCRIPT_JOIN) {
        unscripted_read_stream(self);
    } else if (script == SCRIPT_MARK) {
        unscripted_read_marks(self);
    } else if (script != SCRIPT_PUSH && script != SCRIPT_REMOVE) {
        const char *nothing[] = {"UNWATCH"}; /* answered with its reply */
        unscripted_refuse(self->chunk[0], "UNSCRIPTED this cannot be done without scripts");
        unscripted_send_words(self, WHAT_DONE, 0, 1, nothing);
    } else {
        unscripted_read_records(self);
    }
}

const char *unscripted_argument(const struct call *call, int number)
{
    int at = (int)strtol(call->words[0], NULL, 10) + number;
    return at < call->count ? call->words[at] : "";
}

bool unscripted_call(unscripted *self, const connection_tag *tag, enum script_id script, int count,
                     const char *const *words, const size_t *sizes)
{
    struct call *call = copy_call(tag, script, count, words, sizes);
    if (call == NULL)
        return false;
    *self->last = call;
    self->last = &call->next;
    if (!self->under_way)
        unscripted_begin_chunk(self);
    return !self->broken;
}

/* ---- Answering --------------------------------------------------------------------------------
 */

/* The call is the list's first; it is gone afterwards. false: the session was ended. */
bool unscripted_answer(unscripted *self, const reply *got)
{
    uint64_t life = self->life;
    struct call *call = self->first;
    self->first = call->next;
    if (self->first == NULL)
        self->last = &self->first;
    self->callbacks.answer(self->context, &call->tag, got, call->sent_us);
    call_free(call);
    return self->life == life;
}

static bool answer_error(unscripted *self, const struct call *call)
{
    reply error = {
        .kind = REPLY_ERROR, .text = call->error, .size = strlen(call->error), .said = call->said};
    return unscripted_answer(self, &error); /* which frees the call afterwards */
}

static bool answer_number(unscripted *self, long long number)
{
    reply answered = {.kind = REPLY_INTEGER, .integer = number};
    return unscripted_answer(self, &answered);
}

reply unscripted_string(const char *bytes, size_t size)
{
    return (reply){.kind = REPLY_STRING, .text = bytes != NULL ? bytes : "", .size = size};
}

static bool answer_text(unscripted *self, const struct call *call)
{
    reply text = unscripted_string(call->error, strlen(call->error));
    return unscripted_answer(self, &text);
}

static bool answer_old(unscripted *self, struct call *call)
{
    reply record = unscripted_string(call->record.bytes, call->record.size);
    reply value = unscripted_string(call->value.bytes, call->value.size);
    reply *elements[] = {&record, &value};
    reply both = {.kind = REPLY_ARRAY, .elements = elements, .count = call->has_value ? 2 : 1};
    return unscripted_answer(self, &both);
}

void unscripted_answer_chunk(unscripted *self)
{
    bool alive = true;
    size_t size = self->chunk_size;
    self->chunk_size = 0;
    self->attempts = 0;
    for (size_t i = 0; i < size && alive; i++) {
        struct call *call = self->chunk[i];
        switch (call->decision) {
        case DECISION_SAME:
            alive = answer_number(self, PUSH_REPLY_SAME);
            break;
        case DECISION_NO_STREAM:
            alive = answer_number(self, PUSH_REPLY_NO_STREAM);
            break;
        case DECISION_WRITE:
        case DECISION_AHEAD:
            alive = answer_number(self, call->written);
            break;
        case DECISION_OLD:
            alive = answer_old(self, call);
            break;
        case DECISION_TEXT:
            alive = answer_text(self, call);
            break;
        case DECISION_OPEN:
        case DECISION_ERROR:
            alive = answer_error(self, call);
            break;
        }
    }
    if (!alive)
        return;
    if (self->chunk_limit < CHUNK_MAX)
        self->chunk_limit++;
    unscripted_begin_chunk(self);
}

/* Somebody wrote one of the records, or one of the calls was refused: the others once more. */
void unscripted_begin_again(unscripted *self)
{
    self->attempts++;
    if (self->attempts > ATTEMPTS_MAX) {
        for (size_t i = 0; i < self->chunk_size; i++)
            unscripted_refuse(self->chunk[i], "CONFLICT others write this key all the time");
        unscripted_answer_chunk(self);
        return;
    }
    self->chunk_limit = self->chunk_limit / 2 < 1 ? 1 : self->chunk_limit / 2;
    unscripted_begin_chunk(self);
}

/* "id event" on the channel. */
void unscripted_send_message(unscripted *self, enum what what, size_t index, const char *channel,
                             const char *id, size_t id_size, const char *event, size_t event_size)
{
    size_t size = id_size + 1 + event_size;
    char *message = malloc(size);
    if (message == NULL)
        return; /* the others find the gap */
    memcpy(message, id, id_size);
    message[id_size] = ' ';
    memcpy(message + id_size + 1, event, event_size);
    const char *words[] = {"PUBLISH", channel, message};
    size_t sizes[] = {7, strlen(channel), size};
    unscripted_send(self, what, index, 3, words, sizes);
    free(message);
}

/* ---- Replies ----------------------------------------------------------------------------------
 */

void unscripted_break(unscripted *self)
{
    self->broken = self->out_of_step = true;
}

/* May what was asked be answered by such a reply? Of a record that was none, a newer one would be
 * overwritten. Errors are looked at by each; EXEC's results in unscripted_got_done(). */
static bool answers(const unscripted *self, enum what what, enum reply_kind kind)
{
    if (kind == REPLY_ERROR)
        return true;
    switch (what) {
    case WHAT_WATCHED:
        return kind == REPLY_STATUS;
    case WHAT_QUEUED: /* a removal is carried out at once */
        return kind == (self->chunk[0]->script == SCRIPT_REMOVE ? REPLY_INTEGER : REPLY_STATUS);
    case WHAT_RECORD:
    case WHAT_OWNER:
    case WHAT_MARK:
        return kind == REPLY_STRING || kind == REPLY_NIL;
    case WHAT_VALUE:
    case WHAT_BEGUN:
        return kind == REPLY_STRING;
    case WHAT_EXISTS:
    case WHAT_FIELDS:
        return kind == REPLY_INTEGER;
    case WHAT_PLACE:
    case WHAT_TIME:
    case WHAT_LAST:
    case WHAT_CURSOR:
    case WHAT_STREAM:
        return kind == REPLY_ARRAY;
    case WHAT_DONE:
        return kind == REPLY_ARRAY || kind == REPLY_NIL || kind == REPLY_STATUS;
    case WHAT_IGNORED:
        break;
    }
    return true;
}

static void give_up(unscripted *self)
{
    if (self->out_of_step)
        self->callbacks.out_of_step(self->context);
    else
        self->callbacks.unsent(self->context);
}

void unscripted_got(unscripted *self, uint32_t tag, const reply *got)
{
    size_t index = tag >> WHAT_BITS;
    enum what what = (enum what)(tag & ((1u << WHAT_BITS) - 1));
    uint64_t life = self->life;
    const reply *id, *event;
    const char *last;
    if (what == WHAT_IGNORED || index >= self->chunk_size)
        return;
    struct call *call = self->chunk[index];
    if (!answers(self, what, got->kind)) {
        unscripted_break(self);
        give_up(self);
        return;
    }
    switch (what) {
    case WHAT_PLACE:
        last = unscripted_last_id(got);
        self->stream_epoch = last != NULL ? strtoull(last, NULL, 10) : 0;
        break;
    case WHAT_WATCHED:
    case WHAT_QUEUED:
        if (got->kind == REPLY_ERROR)
            unscripted_refuse_as(call, got);
        break;
    case WHAT_RECORD:
        unscripted_got_record(self, index, got);
        break;
    case WHAT_VALUE:
        unscripted_got_value(call, got);
        break;
    case WHAT_EXISTS:
        if (call->has_value && call->value.size == 0 &&
            (got->kind != REPLY_INTEGER || got->integer != 1))
            call->has_value = false;
        break;
    case WHAT_DONE:
        unscripted_got_done(self, got);
        break;
    case WHAT_TIME:
        unscripted_got_time(call, got);
        break;
    case WHAT_OWNER:
        unscripted_got_owner(self, got);
        break;
    case WHAT_FIELDS:
        unscripted_got_fields(call, got);
        break;
    case WHAT_MARK:
        unscripted_got_mark(self, got);
        break;
    case WHAT_STREAM:
        last = unscripted_last_id(got);
        if (last != NULL)
            unscripted_behind(call, last);
        break;
    case WHAT_CURSOR:
        if (unscripted_entry(got, &id, &event) && !unscripted_keep(&call->at, event))
            unscripted_refuse(call, "ERR no memory");
        break;
    case WHAT_LAST:
        unscripted_got_last(self, got);
        break;
    case WHAT_BEGUN:
        unscripted_got_begun(self, got);
        break;
    case WHAT_IGNORED:
        break;
    }
    if (self->life == life && self->broken)
        give_up(self);
}
