/* unscripted_mark.c: invalidations of many without their script: newest wins, and the event comes
 * first. A set that is full is not cut to its newest fields, as the script does, which takes all of
 * it at once: what is new raises the floor instead. Wider, never narrower. See unscripted.h.
 */
#include "daemon/redis/unscripted_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FLOOR_EACH, FLOOR_ALL, ID, NAMES }; /* the order in which fields are read */

static int argument_at(int number)
{
    return 2 + number; /* two keys */
}

static int name_at(size_t mark)
{
    return argument_at(MARK_ARGUMENTS + 1 + 3 * (int)mark);
}

static uint64_t clock_of(const char *text)
{
    return strtoull(text, NULL, 16);
}

/* HGET, or a field that is written. */
static void send_field(unscripted *self, enum what what, const char *command, const char *name,
                       size_t name_size, const char *value)
{
    const struct call *call = self->chunk[0];
    const char *words[] = {command, call->words[KEY(1)], name, value};
    size_t sizes[] = {strlen(command), call->sizes[KEY(1)], name_size,
                      value != NULL ? strlen(value) : 0};
    unscripted_send(self, what, 0, value != NULL ? 4 : 3, words, sizes);
}

void unscripted_read_marks(unscripted *self)
{
    struct call *call = self->chunk[0];
    const char *length[] = {"HLEN", call->words[KEY(1)]};
    const char *info[] = {"XINFO", "STREAM", call->words[KEY(2)]};
    call->mark_count = (size_t)(call->count - name_at(0)) / 3;
    call->marks_read = 0;
    call->marks = calloc(NAMES + call->mark_count, sizeof *call->marks);
    if (call->marks == NULL)
        unscripted_refuse(call, "ERR no memory");
    unscripted_send_key(self, WHAT_WATCHED, 0, "WATCH", KEY(1));
    unscripted_send_words(self, WHAT_PLACE, 0, 3, info);
    unscripted_send_words(self, WHAT_FIELDS, 0, 2, length);
    send_field(self, WHAT_MARK, "HGET", "F", 1, NULL);
    send_field(self, WHAT_MARK, "HGET", "A", 1, NULL);
    send_field(self, WHAT_MARK, "HGET", "i", 1, NULL);
    for (size_t i = 0; i < call->mark_count; i++)
        send_field(self, WHAT_MARK, "HGET", call->words[name_at(i)], call->sizes[name_at(i)], NULL);
}

static struct mark *floor_of(struct call *call, char first)
{
    if (first == 'm')
        return &call->marks[FLOOR_EACH];
    return first == 'p' || first == 'g' ? &call->marks[FLOOR_ALL] : NULL;
}

static void raise_floor(struct mark *floor, const char *clock)
{
    if (floor->there && clock_of(clock) <= floor->clock)
        return;
    floor->there = floor->set = true;
    floor->clock = clock_of(clock);
    floor->text = clock;
}

/* The same name earlier in this call: what it will have left. */
static void look_back(struct call *call, size_t index)
{
    struct mark *mark = &call->marks[NAMES + index];
    for (size_t i = 0; i < index; i++) {
        const struct mark *earlier = &call->marks[NAMES + i];
        if (earlier->set && call->sizes[name_at(i)] == call->sizes[name_at(index)] &&
            memcmp(call->words[name_at(i)], call->words[name_at(index)], call->sizes[name_at(i)]) ==
                0) {
            mark->there = true;
            mark->clock = earlier->clock;
        }
    }
}

static void decide_mark(struct call *call, size_t index, bool quiet, bool full)
{
    struct mark *mark = &call->marks[NAMES + index];
    const char *name = call->words[name_at(index)], *clock = call->words[name_at(index) + 1];
    size_t size = call->sizes[name_at(index)];
    look_back(call, index);
    bool news = !mark->there || clock_of(clock) > mark->clock;
    struct mark *floor = size != 0 ? floor_of(call, *name) : NULL;
    bool covered = floor != NULL && !mark->there && floor->there && clock_of(clock) <= floor->clock;
    bool of_map = size == 1 && (*name == 'F' || *name == 'A') && !quiet;
    if ((!news && !of_map) || (covered && quiet))
        return;
    mark->told = true;
    if (covered || !news)
        return;
    if (full && !mark->there && floor != NULL) {
        raise_floor(floor, clock);
        return;
    }
    mark->set = true;
    mark->clock = clock_of(clock);
    if (size == 1 && (*name == 'F' || *name == 'A')) { /* covers those behind it */
        floor = &call->marks[*name == 'F' ? FLOOR_EACH : FLOOR_ALL];
        floor->there = true;
        floor->clock = mark->clock;
    }
}

static void send_event(unscripted *self, size_t index)
{
    const struct call *call = self->chunk[0];
    const char *words[] = {"XADD",
                           call->words[KEY(2)],
                           "NOMKSTREAM",
                           "MAXLEN",
                           "~",
                           unscripted_argument(call, MARK_LENGTH),
                           unscripted_argument(call, MARK_EPOCH),
                           "e",
                           call->words[name_at(index) + 2]};
    size_t sizes[9];
    for (size_t i = 0; i < 9; i++)
        sizes[i] = i == 8 ? call->sizes[name_at(index) + 2] : strlen(words[i]);
    unscripted_send(self, WHAT_QUEUED, 0, 9, words, sizes);
}

/* Nothing is written. */
static void let_go(unscripted *self)
{
    static const char *const unwatch[] = {"UNWATCH"};
    unscripted_send_words(self, WHAT_DONE, 0, 1, unwatch);
}

/* All has been read. */
static void carry_out(unscripted *self)
{
    static const char *const multi[] = {"MULTI"}, *const exec[] = {"EXEC"};
    struct call *call = self->chunk[0];
    bool quiet = *unscripted_argument(call, MARK_QUIET) == 'q', told = false;
    bool full = call->fields >= strtoull(unscripted_argument(call, MARK_LIMIT), NULL, 10);
    uint64_t epoch = strtoull(unscripted_argument(call, MARK_EPOCH), NULL, 10);
    for (size_t i = 0; i < call->mark_count && call->decision != DECISION_ERROR; i++) {
        decide_mark(call, i, quiet, full);
        told = told || call->marks[NAMES + i].told;
    }
    if (call->decision != DECISION_ERROR)
        call->decision = told && epoch != self->stream_epoch ? DECISION_NO_STREAM : DECISION_WRITE;
    if (call->decision == DECISION_NO_STREAM && self->stream_epoch != 0 &&
        self->stream_epoch < epoch)
        unscripted_send_key(self, WHAT_IGNORED, 0, "UNLINK", KEY(2));
    if (call->decision != DECISION_WRITE) {
        let_go(self);
        return;
    }
    unscripted_send_words(self, WHAT_IGNORED, 0, 1, multi);
    call->queued = 0;
    for (size_t i = 0; i < call->mark_count; i++) {
        struct mark *mark = &call->marks[NAMES + i];
        mark->result = call->queued;
        if (mark->told) {
            send_event(self, i);
            call->queued++;
        }
        if (mark->set) {
            send_field(self, WHAT_QUEUED, "HSET", call->words[name_at(i)], call->sizes[name_at(i)],
                       call->words[name_at(i) + 1]);
            call->queued++;
        }
    }
    for (size_t i = FLOOR_EACH; i <= FLOOR_ALL; i++) {
        if (call->marks[i].set) {
            send_field(self, WHAT_QUEUED, "HSET", i == FLOOR_EACH ? "F" : "A", 1,
                       call->marks[i].text);
            call->queued++;
        }
    }
    send_field(self, WHAT_QUEUED, "HSETNX", "i", 1, unscripted_argument(call, MARK_ID));
    call->queued++;
    unscripted_send_words(self, WHAT_DONE, 0, 1, exec);
}

void unscripted_got_fields(struct call *call, const reply *got)
{
    if (got->kind == REPLY_ERROR)
        unscripted_refuse_as(call, got);
    else
        call->fields = got->kind == REPLY_INTEGER && got->integer > 0 ? (size_t)got->integer : 0;
}

void unscripted_got_mark(unscripted *self, const reply *got)
{
    struct call *call = self->chunk[0];
    size_t index = call->marks_read++;
    if (got->kind == REPLY_ERROR)
        unscripted_refuse_as(call, got);
    else if (got->kind == REPLY_STRING && call->marks != NULL) {
        call->marks[index].there = true;
        call->marks[index].clock = clock_of(got->text);
        if (index == ID && !unscripted_keep(&call->record, got))
            unscripted_refuse(call, "ERR no memory");
    }
    if (call->marks_read != NAMES + call->mark_count)
        return;
    if (call->marks != NULL)
        carry_out(self);
    else
        let_go(self);
}

static bool is_stream_error(const reply *added)
{
    return added->kind == REPLY_NIL ||
           (added->kind == REPLY_ERROR && strstr(added->text, "equal or smaller") != NULL);
}

/* EXEC's results: the channel is told, and the set's id answered. */
void unscripted_got_marked(unscripted *self, const reply *got)
{
    struct call *call = self->chunk[0];
    const char *id =
        call->record.bytes != NULL ? call->record.bytes : unscripted_argument(call, MARK_ID);
    call->decision = DECISION_TEXT;
    for (size_t i = 0; i < got->count; i++)
        if (got->elements[i]->kind == REPLY_ERROR && !is_stream_error(got->elements[i]))
            unscripted_refuse_as(call, got->elements[i]);
    for (size_t i = 0; i < call->mark_count && call->decision == DECISION_TEXT; i++) {
        const struct mark *mark = &call->marks[NAMES + i];
        const reply *added = mark->told ? got->elements[mark->result] : NULL;
        if (added == NULL)
            continue;
        if (is_stream_error(added)) {
            call->decision = DECISION_NO_STREAM;
        } else if (added->kind == REPLY_STRING) {
            if (added->size > 2 && memcmp(added->text + added->size - 2, "-0", 2) == 0) {
                unscripted_send_key(self, WHAT_IGNORED, 0, "UNLINK", KEY(2));
                call->decision = DECISION_NO_STREAM;
            } else {
                unscripted_send_message(
                    self, WHAT_IGNORED, 0, unscripted_argument(call, MARK_CHANNEL), added->text,
                    added->size, call->words[name_at(i) + 2], call->sizes[name_at(i) + 2]);
            }
        }
    }
    snprintf(call->error, call->decision == DECISION_TEXT ? sizeof call->error : 0, "%s", id);
    unscripted_answer_chunk(self);
}
