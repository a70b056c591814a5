/* unscripted_push.c: pushes and removals without their scripts: the comparison of COMPARE in
 * script.c, and what is written where it says so. See unscripted.h.
 */
#include "daemon/redis/unscripted_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/wire.h"

/* How far ahead of the server's clock a version may be; "": nobody asks. */
static const char *ahead_of(const struct call *call)
{
    return unscripted_argument(call, call->script == SCRIPT_PUSH ? 13 : 5);
}

void unscripted_read_records(unscripted *self)
{
    const char *info[] = {"XINFO", "STREAM", self->chunk[0]->words[KEY(3)]};
    const char *time[] = {"TIME"};
    if (*ahead_of(self->chunk[0]) != 0)
        unscripted_send_words(self, WHAT_TIME, 0, 1, time);
    if (self->chunk[0]->script == SCRIPT_PUSH)
        unscripted_send_words(self, WHAT_PLACE, 0, 3, info);
    for (size_t i = 0; i < self->chunk_size; i++) {
        unscripted_send_key(self, WHAT_WATCHED, i, "WATCH", KEY(2));
        unscripted_send_key(self, WHAT_RECORD, i, "GET", KEY(2));
    }
}

static bool is_ahead(const sync_change *change, int64_t most_ms)
{
    return (int64_t)(change->record.version.clock >> 16) > most_ms;
}

/* As NOT_AHEAD and COMPARE in script.c. */
static void decide(struct call *call, int64_t now_ms, bool quiet)
{
    sync_change there, ours;
    const char *head = unscripted_argument(call, 1), *ahead = ahead_of(call);
    int64_t most_ms = *ahead != 0 && now_ms != 0 ? now_ms + strtoll(ahead, NULL, 10) : INT64_MAX;
    if (call->decision == DECISION_ERROR)
        return;
    call->decision = DECISION_WRITE;
    memset(&there, 0, sizeof there);
    memset(&ours, 0, sizeof ours);
    bool ours_good = wire_record_read(head, strlen(head), &ours);
    if (ours_good && is_ahead(&ours, most_ms)) {
        call->decision = DECISION_AHEAD;
        call->written = -now_ms;
        return;
    }
    if (!call->has_record)
        return;
    if (!ours_good || !wire_record_read(call->record.bytes, call->record.size, &there)) {
        call->decision = DECISION_OPEN;
        unscripted_refuse(call, "FORMAT the record is of another version");
        return;
    }
    int order = sync_order(&there.record, &ours.record);
    if (is_ahead(&there, most_ms)) /* counts for nothing */
        return;
    if (order > 0)
        call->decision = DECISION_OLD;
    else if (order == 0 && quiet)
        call->decision = DECISION_SAME;
}

static const char *limit_of(const struct call *call)
{
    return call
        ->words[call->script == SCRIPT_PUSH ? PUSH_ARGUMENT(PUSH_INLINE) : REMOVE_ARGUMENT(4)];
}

/* SET or UNLINK, with an end where there is one. */
static void send_set(unscripted *self, size_t index, int key, const char *value, size_t value_size,
                     const char *expiry)
{
    const struct call *call = self->chunk[index];
    const char *words[] = {"SET", call->words[key], value, "PXAT", expiry};
    size_t sizes[] = {3, call->sizes[key], value_size, 4, strlen(expiry)};
    unscripted_send(self, WHAT_QUEUED, index, *expiry != 0 ? 5 : 3, words, sizes);
}

static void send_push_writes(unscripted *self, size_t index)
{
    const struct call *call = self->chunk[index];
    const char *const *argument = call->words + PUSH_ARGUMENT(0);
    const size_t *sizes = call->sizes + PUSH_ARGUMENT(0);
    const char *event = argument[PUSH_EVENT];
    const char *add[] = {"XADD", call->words[KEY(3)],   "NOMKSTREAM",         "MAXLEN",
                         "~",    argument[PUSH_LENGTH], argument[PUSH_EPOCH], "e",
                         event};
    size_t add_sizes[9];
    for (size_t i = 0; i < 9; i++)
        add_sizes[i] = i == 8 ? sizes[PUSH_EVENT] : strlen(add[i]);
    unscripted_send(self, WHAT_QUEUED, index, 9, add, add_sizes);
    if (*argument[PUSH_OPERATION] == 's') {
        size_t at = (size_t)strtoul(argument[PUSH_VALUE_AT], NULL, 10);
        bool inside = at != 0 && at - 1 <= sizes[PUSH_EVENT];
        send_set(self, index, KEY(1), inside ? event + at - 1 : argument[PUSH_VALUE],
                 inside ? sizes[PUSH_EVENT] - (at - 1) : sizes[PUSH_VALUE], argument[PUSH_EXPIRY]);
    } else {
        unscripted_send_key(self, WHAT_QUEUED, index, "UNLINK", KEY(1));
    }
    send_set(self, index, KEY(2), argument[PUSH_RECORD], sizes[PUSH_RECORD],
             argument[PUSH_RECORD_EXPIRY]);
}

#define WRITES_OF_A_PUSH 3u

/* Without MULTI, which Redis refuses when it has no memory. Nobody can store much in between, and
 * a newer value that goes with the old one is only evicted: its record is there. */
static void send_removal(unscripted *self)
{
    static const char *const unwatch[] = {"UNWATCH"};
    struct call *call = self->chunk[0];
    call->written = PUSH_REPLY_REMOVED;
    unscripted_send_key(self, WHAT_QUEUED, 0, "UNLINK", KEY(1));
    unscripted_send_message(self, WHAT_QUEUED, 0, call->words[REMOVE_ARGUMENT(3)], "-", 1,
                            call->words[REMOVE_ARGUMENT(2)], call->sizes[REMOVE_ARGUMENT(2)]);
    unscripted_send_words(self, WHAT_DONE, 0, 1, unwatch);
}

/* A stream that is gone or in another epoch: nothing is written. One whose epoch was over already
 * when the call was made (its place 0 would be taken) is given up, as the script does. */
static void look_at_stream(unscripted *self, size_t index, bool *given_up)
{
    struct call *call = self->chunk[index];
    uint64_t epoch = strtoull(call->words[PUSH_ARGUMENT(PUSH_EPOCH)], NULL, 10);
    if (call->decision != DECISION_WRITE || epoch == self->stream_epoch)
        return;
    call->decision = DECISION_NO_STREAM;
    if (self->stream_epoch != 0 && self->stream_epoch < epoch && !*given_up) {
        unscripted_send_key(self, WHAT_IGNORED, index, "UNLINK", KEY(3));
        *given_up = true;
    }
}

/* The records have been read: what is to be written, in one go, and what the winners are. */
static void carry_out(unscripted *self)
{
    static const char *const multi[] = {"MULTI"}, *const exec[] = {"EXEC"},
                             *const unwatch[] = {"UNWATCH"};
    const struct call *clock = self->chunk[0];
    int64_t now_ms = (int64_t)(clock->seconds * 1000 + clock->microseconds / 1000);
    bool writes = false, given_up = false;
    for (size_t i = 0; i < self->chunk_size; i++) {
        struct call *call = self->chunk[i];
        bool push = call->script == SCRIPT_PUSH;
        decide(call, now_ms, push && *call->words[PUSH_ARGUMENT(PUSH_QUIET)] == 'q');
        if (push)
            look_at_stream(self, i, &given_up);
        writes = writes || call->decision == DECISION_WRITE;
        if (call->decision == DECISION_OLD) {
            const char *key = call->words[KEY(1)];
            const char *range[] = {"GETRANGE", key, "0", limit_of(call)};
            size_t sizes[] = {8, call->sizes[KEY(1)], 1, strlen(limit_of(call))};
            unscripted_send(self, WHAT_VALUE, i, 4, range, sizes);
            unscripted_send_key(self, WHAT_EXISTS, i, "EXISTS", KEY(1));
        }
    }
    if (!writes) {
        unscripted_send_words(self, WHAT_DONE, 0, 1, unwatch);
        return;
    }
    if (self->chunk[0]->script == SCRIPT_REMOVE) {
        send_removal(self);
        return;
    }
    unscripted_send_words(self, WHAT_IGNORED, 0, 1, multi);
    for (size_t i = 0; i < self->chunk_size; i++)
        if (self->chunk[i]->decision == DECISION_WRITE)
            send_push_writes(self, i);
    unscripted_send_words(self, WHAT_DONE, 0, 1, exec);
}

void unscripted_got_record(unscripted *self, size_t index, const reply *got)
{
    struct call *call = self->chunk[index];
    if (got->kind == REPLY_ERROR)
        unscripted_refuse_as(call, got);
    else if (got->kind == REPLY_STRING) {
        call->has_record = unscripted_keep(&call->record, got);
        if (!call->has_record)
            unscripted_refuse(call, "ERR no memory");
    }
    if (index + 1 == self->chunk_size)
        carry_out(self);
}

void unscripted_got_value(struct call *call, const reply *got)
{
    size_t limit = (size_t)strtoul(limit_of(call), NULL, 10);
    if (got->kind == REPLY_STRING && got->size <= limit)
        call->has_value = unscripted_keep(&call->value, got);
}

static bool is_no_stream(const reply *added)
{
    return added->kind == REPLY_NIL ||
           (added->kind == REPLY_ERROR && strstr(added->text, "equal or smaller") != NULL);
}

static bool begins_an_epoch(const reply *added)
{
    return added->kind == REPLY_STRING && added->size > 2 &&
           memcmp(added->text + added->size - 2, "-0", 2) == 0;
}

static void tell(unscripted *self, size_t index, const reply *added)
{
    const struct call *call = self->chunk[index];
    unscripted_send_message(self, WHAT_IGNORED, 0, call->words[PUSH_ARGUMENT(PUSH_CHANNEL)],
                            added->text, added->size, call->words[PUSH_ARGUMENT(PUSH_EVENT)],
                            call->sizes[PUSH_ARGUMENT(PUSH_EVENT)]);
}

/* EXEC's results: three for each that was written. */
static void got_pushed(unscripted *self, const reply *got)
{
    size_t at = 0;
    bool over = false; /* the first of them began an epoch that was over */
    for (size_t i = 0; i < self->chunk_size; i++) {
        struct call *call = self->chunk[i];
        if (call->decision != DECISION_WRITE)
            continue;
        const reply *added = got->elements[at];
        call->written = PUSH_REPLY_STORED;
        if (begins_an_epoch(added)) {
            unscripted_send_key(self, WHAT_IGNORED, i, "UNLINK", KEY(3));
            over = true;
        }
        if (over || is_no_stream(added)) {
            call->written = PUSH_REPLY_NO_STREAM;
        } else {
            for (size_t j = 0; j < WRITES_OF_A_PUSH; j++)
                if (got->elements[at + j]->kind == REPLY_ERROR)
                    unscripted_refuse_as(call, got->elements[at + j]);
            if (added->kind == REPLY_STRING)
                tell(self, i, added);
        }
        at += WRITES_OF_A_PUSH;
    }
    unscripted_answer_chunk(self);
}

/* Nothing was written: what was refused is answered, the rest begun again. */
static void got_refused(unscripted *self, const reply *got)
{
    bool known = false;
    for (size_t i = 0; i < self->chunk_size; i++)
        known = known || self->chunk[i]->decision == DECISION_ERROR;
    for (size_t i = 0; i < self->chunk_size; i++)
        if (!known && self->chunk[i]->decision == DECISION_WRITE)
            unscripted_refuse_as(self->chunk[i], got);
    /* in order: those before the first that was refused have to be carried out before it */
    if (self->chunk[0]->decision == DECISION_WRITE) {
        size_t until = 1;
        while (until < self->chunk_size && self->chunk[until]->decision != DECISION_ERROR)
            until++;
        self->chunk_limit = until * 2; /* unscripted_begin_again() halves it */
        unscripted_begin_again(self);
        return;
    }
    self->chunk_size = 1; /* it alone; the others follow */
    unscripted_answer_chunk(self);
}

/* EXEC's results are counted: each is one of what was queued. Of UNWATCH there are none. */
static bool is_in_step(const struct call *first, size_t writes, const reply *got)
{
    if (got->kind == REPLY_ERROR)
        return true;
    if (first->script == SCRIPT_REMOVE || writes == 0)
        return got->kind == REPLY_STATUS;
    size_t results = first->script == SCRIPT_MARK ? first->queued : writes * WRITES_OF_A_PUSH;
    return got->kind == REPLY_NIL || (got->kind == REPLY_ARRAY && got->count == results);
}

void unscripted_got_done(unscripted *self, const reply *got)
{
    size_t writes = 0;
    for (size_t i = 0; i < self->chunk_size; i++)
        writes += self->chunk[i]->decision == DECISION_WRITE;
    const struct call *first = self->chunk[0];
    if (!is_in_step(first, writes, got))
        unscripted_break(self);
    else if (first->script == SCRIPT_REMOVE || got->kind == REPLY_STATUS)
        unscripted_answer_chunk(self);
    else if (got->kind == REPLY_NIL)
        unscripted_begin_again(self);
    else if (got->kind == REPLY_ERROR)
        got_refused(self, got);
    else if (first->script == SCRIPT_MARK)
        unscripted_got_marked(self, got);
    else
        got_pushed(self, got);
}
