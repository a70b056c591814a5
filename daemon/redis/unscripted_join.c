/* unscripted_join.c: joining without its script: the stream's end, or a new epoch. Two hosts may
 * begin one each at the same time: the later epoch is above the other, and the first host finds it
 * at its next heartbeat. See unscripted.h.
 */
#include "daemon/redis/unscripted_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/wire.h"

/* XINFO's last-generated-id; NULL: there is no stream. */
const char *unscripted_last_id(const reply *got)
{
    for (size_t i = 0; got->kind == REPLY_ARRAY && i + 1 < got->count; i += 2)
        if (got->elements[i]->kind == REPLY_STRING && got->elements[i + 1]->kind == REPLY_STRING &&
            reply_text_is(got->elements[i], "last-generated-id"))
            return got->elements[i + 1]->text;
    return NULL;
}

/* By the server's words, or by ours where it answered with something else than an error. */
static void refuse(struct call *join, const reply *got, const char *otherwise)
{
    if (got->kind == REPLY_ERROR)
        unscripted_refuse_as(join, got);
    else
        unscripted_refuse(join, otherwise);
}

/* Whose the map's node id is: ARGV[4], for ARGV[5] ms, unless somebody has it. */
static bool claims(const struct call *join)
{
    return *unscripted_argument(join, 5) != 0;
}

static void send_claim(unscripted *self, const char *only)
{
    const struct call *join = self->chunk[0];
    const char *words[] = {"SET", join->words[KEY(2)],         unscripted_argument(join, 4), only,
                           "PX",  unscripted_argument(join, 5)};
    unscripted_send_words(self, WHAT_IGNORED, 0, 6, words);
}

void unscripted_got_owner(unscripted *self, const reply *got)
{
    struct call *join = self->chunk[0];
    const char *ours = unscripted_argument(join, 4);
    reply own = unscripted_string(ours, strlen(ours));
    bool other = got->kind == REPLY_STRING && !reply_text_is(got, ours);
    if (!other)
        send_claim(self, "XX"); /* from now on */
    if (!unscripted_keep(&join->owner, other ? got : &own))
        unscripted_refuse(join, "ERR no memory");
}

void unscripted_read_stream(unscripted *self)
{
    const struct call *join = self->chunk[0];
    const char *stream = join->words[KEY(1)], *at = unscripted_argument(join, 1);
    const char *time[] = {"TIME"};
    const char *last[] = {"XREVRANGE", stream, "+", "-", "COUNT", "1"};
    const char *cursor[] = {"XRANGE", stream, at, at};
    const char *info[] = {"XINFO", "STREAM", stream};
    unscripted_send_words(self, WHAT_TIME, 0, 1, time);
    if (claims(join)) {
        send_claim(self, "NX");
        unscripted_send_key(self, WHAT_OWNER, 0, "GET", KEY(2));
    }
    if (*at != 0)
        unscripted_send_words(self, WHAT_CURSOR, 0, 4, cursor);
    unscripted_send_words(self, WHAT_STREAM, 0, 3, info);
    unscripted_send_words(self, WHAT_LAST, 0, 6, last);
}

static uint64_t number_of(const reply *got)
{
    return got->kind == REPLY_STRING ? strtoull(got->text, NULL, 10) : 0;
}

/* Epochs only rise: above one that was known. */
void unscripted_behind(struct call *join, const char *id)
{
    uint64_t known = strtoull(id, NULL, 10);
    if (known >= join->epoch && known < UINT64_C(9007199254730000))
        join->epoch = known + 1 + join->microseconds % 1000;
}

/* A time that is none would make epochs and comparisons of it. */
void unscripted_got_time(struct call *call, const reply *got)
{
    bool pair = got->kind == REPLY_ARRAY && got->count == 2;
    uint64_t seconds = pair ? number_of(got->elements[0]) : 0;
    uint64_t microseconds = pair ? number_of(got->elements[1]) : 0;
    if (seconds == 0 || seconds > REDIS_MS_MAX / 1000 || microseconds >= 1000000) {
        refuse(call, got, "ERR no time");
        return;
    }
    call->seconds = seconds;
    call->microseconds = microseconds;
    call->epoch = seconds * 1000000 + microseconds;
    if (call->script == SCRIPT_JOIN)
        unscripted_behind(call, unscripted_argument(call, 1));
}

/* The id and the event of the one entry of a range. */
bool unscripted_entry(const reply *got, const reply **id, const reply **event)
{
    if (got->kind != REPLY_ARRAY || got->count != 1 || got->elements[0]->kind != REPLY_ARRAY ||
        got->elements[0]->count != 2)
        return false;
    const reply *const *entry = (const reply *const *)got->elements[0]->elements;
    if (entry[0]->kind != REPLY_STRING || entry[1]->kind != REPLY_ARRAY || entry[1]->count < 2 ||
        entry[1]->elements[1]->kind != REPLY_STRING)
        return false;
    *id = entry[0];
    *event = entry[1]->elements[1];
    return true;
}

static void answer_join(unscripted *self)
{
    struct call *join = self->chunk[0];
    char now[32];
    snprintf(now, sizeof now, "%" PRIu64, join->seconds * 1000 + join->microseconds / 1000);
    reply parts[] = {unscripted_string(join->last_id.bytes, join->last_id.size),
                     unscripted_string(join->last_event.bytes, join->last_event.size),
                     unscripted_string(join->at.bytes, join->at.size),
                     unscripted_string(now, strlen(now)),
                     unscripted_string(join->owner.bytes, join->owner.size)};
    reply *elements[] = {&parts[0], &parts[1], &parts[2], &parts[3], &parts[4]};
    reply all = {.kind = REPLY_ARRAY, .elements = elements, .count = claims(join) ? 5 : 4};
    self->chunk_size = 0;
    self->attempts = 0;
    if (unscripted_answer(self, &all))
        unscripted_begin_chunk(self);
}

static void begin_epoch(unscripted *self)
{
    struct call *join = self->chunk[0];
    char id[48];
    wire_id(join->epoch, 0, id);
    const char *words[] = {"XADD", join->words[KEY(1)], id, "e", unscripted_argument(join, 2)};
    unscripted_send_words(self, WHAT_BEGUN, 0, 5, words);
}

/* The last of the reads. */
void unscripted_got_last(unscripted *self, const reply *got)
{
    struct call *join = self->chunk[0];
    const reply *id, *event;
    if (got->kind == REPLY_ERROR)
        unscripted_refuse_as(join, got);
    if (join->decision == DECISION_ERROR) {
        unscripted_answer_chunk(self);
    } else if (unscripted_entry(got, &id, &event)) {
        if (unscripted_keep(&join->last_id, id) && unscripted_keep(&join->last_event, event)) {
            answer_join(self);
        } else {
            unscripted_refuse(join, "ERR no memory");
            unscripted_answer_chunk(self);
        }
    } else {
        begin_epoch(self);
    }
}

void unscripted_got_begun(unscripted *self, const reply *got)
{
    struct call *join = self->chunk[0];
    const char *begin = unscripted_argument(join, 2);
    reply event = unscripted_string(begin, strlen(begin));
    if (got->kind == REPLY_ERROR && strstr(got->text, "equal or smaller") != NULL) {
        unscripted_begin_again(self); /* another host was first */
    } else if (got->kind != REPLY_STRING || !unscripted_keep(&join->last_id, got) ||
               !unscripted_keep(&join->last_event, &event)) {
        refuse(join, got, "ERR no epoch");
        unscripted_answer_chunk(self);
    } else {
        unscripted_send_message(self, WHAT_IGNORED, 0, unscripted_argument(join, 3), got->text,
                                got->size, begin, event.size);
        unscripted_forget_text(&join->at);
        answer_join(self);
    }
}
