/* link_marks.c: invalidations of many on their way to the fleet's set, and the set on its way here,
 * page by page. See link.h; replies are not trusted.
 */
#include "daemon/redis/link_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/wire.h"

#define SET_LIMIT "98304" /* fields that the set may have before it is cut ... */
#define SET_KEEP "65536"  /* ... to so many */
#define PAGE_FIELDS "64"
/* A set that has not ended after so many pages, ten times of what it may have, or such a time, does
 * not end: until it does, nothing is pushed. */
#define PAGES_MAX 16384u
#define WALK_MAX_US (INT64_C(600) * 1000000)
#define WORDS_BEFORE (5 + MARK_ARGUMENTS)
#define WORDS_MAX (WORDS_BEFORE + 3 * REPLICA_MARKS_AT_ONCE)

struct mark_text {
    char clock[24], event[WIRE_EVENT_HEAD_MAX + REPLICA_MARK_NAME_MAX];
    size_t event_size;
};

static void write_mark(const sync_action *push, const replica_mark *mark, uint64_t nonce,
                       struct mark_text *text)
{
    replica_record record = {.version = {.clock = mark->clock},
                             .kind = REPLICA_MARK,
                             .expires_at_ms = INT64_MAX,
                             .key_size = mark->name_size};
    char head[WIRE_RECORD_MAX];
    size_t size = wire_record(&record, head);
    snprintf(text->clock, sizeof text->clock, "%016" PRIx64, mark->clock);
    size =
        wire_event_head(head, size, mark->name_size, false, push->mark.emitter, nonce, text->event);
    memcpy(text->event + size, mark->name, mark->name_size);
    text->event_size = size + mark->name_size;
}

bool link_mark(struct link *self, const sync_action *push)
{
    size_t count = push->mark.count;
    uint64_t nonces = push->mark.nonce_seed;
    char epoch[32], length[24], id[24], ahead[16];
    struct mark_text *texts = malloc((count == 0 ? 1 : count) * sizeof *texts);
    if (texts == NULL || count > REPLICA_MARKS_AT_ONCE) {
        free(texts);
        return false;
    }
    snprintf(epoch, sizeof epoch, "%" PRIu64 "-*", push->mark.epoch);
    snprintf(length, sizeof length, "%" PRIu64, link_stream_length(self));
    snprintf(id, sizeof id, "%016" PRIx64, sync_random(&nonces) | 1);
    snprintf(ahead, sizeof ahead, "%d", REPLICA_AHEAD_MS);
    const char *words[WORDS_MAX] = {"EVALSHA",    self->sha[SCRIPT_MARK],
                                    "2",          self->mark_set,
                                    self->stream, epoch,
                                    length,       self->channel_name,
                                    id,           SET_LIMIT,
                                    SET_KEEP,     push->mark.quiet ? "q" : "",
                                    ahead};
    size_t sizes[WORDS_MAX];
    for (size_t i = 0; i < WORDS_BEFORE; i++)
        sizes[i] = strlen(words[i]);
    for (size_t i = 0; i < count; i++) {
        const replica_mark *mark = &push->mark.marks[i];
        const char **word = &words[WORDS_BEFORE + 3 * i];
        size_t *size = &sizes[WORDS_BEFORE + 3 * i];
        write_mark(push, mark, sync_random(&nonces), &texts[i]);
        word[0] = (const char *)mark->name;
        size[0] = mark->name_size;
        word[1] = texts[i].clock;
        size[1] = 16;
        word[2] = texts[i].event;
        size[2] = texts[i].event_size;
    }
    bool sent = link_send(self, self->commands, REQUEST_MARK, 0, 0, NULL,
                          (int)(WORDS_BEFORE + 3 * count), words, sizes);
    free(texts);
    return sent;
}

bool link_mark_set(struct link *self)
{
    const char *words[] = {"HGET", self->mark_set, "i"};
    return link_send(self, self->commands, REQUEST_MARK_SET, 0, 0, NULL, 3, words, NULL);
}

void link_got_mark_set(struct link *self, const reply *got)
{
    if (got->kind != REPLY_STRING || !wire_clock_read(got->text, got->size, &self->marks_id))
        self->marks_id = 0; /* none, or somebody else's words */
}

void link_got_mark(struct link *self, const reply *got)
{
    uint64_t id = 0;
    enum sync_outcome outcome = SYNC_REFUSED_KEY;
    const char *trouble = NULL;
    if (got->kind == REPLY_STRING) {
        outcome = SYNC_STORED;
        if (!wire_clock_read(got->text, got->size, &id)) {
            outcome = SYNC_REFUSED_KEY;
            trouble = "the set of marks is not one of larder's";
        }
    } else if (got->kind == REPLY_INTEGER && got->integer == PUSH_REPLY_NO_STREAM) {
        outcome = SYNC_NO_STREAM;
    } else if (got->kind == REPLY_ERROR) {
        trouble = got->said;
        if (reply_error_is(got, "NOSCRIPT"))
            outcome = SYNC_NO_SCRIPT;
        else if (reply_error_is(got, "OOM"))
            outcome = SYNC_NO_MEMORY;
    } else {
        link_out_of_step(self, "a push of marks");
        return;
    }
    self->callbacks.marked(self->context, outcome, id, trouble);
}

bool link_mark_page(struct link *self, uint64_t from)
{
    char cursor[24];
    if (from == 0) {
        self->walk_us = connection_now_us();
        self->walk_pages = 0;
    }
    self->walk_pages++;
    snprintf(cursor, sizeof cursor, "%" PRIu64, from);
    const char *words[] = {"HSCAN", self->mark_set, cursor, "COUNT", PAGE_FIELDS};
    return link_send(self, self->commands, REQUEST_MARK_PAGE, 0, 0, NULL, 5, words, NULL);
}

/* A field of the set. false: none that says anything. */
static bool read_mark(const reply *name, const reply *clock, sync_change *out)
{
    memset(out, 0, sizeof *out);
    if (name->kind != REPLY_STRING || clock->kind != REPLY_STRING || name->size == 0 ||
        name->size > REPLICA_MARK_NAME_MAX || name->text[0] == 'i' ||
        !wire_clock_read(clock->text, clock->size, &out->record.version.clock) ||
        out->record.version.clock == 0)
        return false;
    out->record.kind = REPLICA_MARK;
    out->record.expires_at_ms = INT64_MAX;
    out->record.key = (const uint8_t *)name->text;
    out->record.key_size = name->size;
    return true;
}

void link_got_mark_page(struct link *self, const reply *got)
{
    char *end;
    if (got->kind == REPLY_ERROR) {
        link_refused(self, "HSCAN", got);
        return;
    }
    if (got->kind != REPLY_ARRAY || got->count != 2 || got->elements[0]->kind != REPLY_STRING ||
        got->elements[1]->kind != REPLY_ARRAY) {
        link_out_of_step(self, "HSCAN");
        return;
    }
    const reply *fields = got->elements[1];
    uint64_t next = strtoull(got->elements[0]->text, &end, 10);
    if (*end != 0 || fields->count % 2 != 0) {
        link_out_of_step(self, "HSCAN");
        return;
    }
    if (next != 0 &&
        (self->walk_pages >= PAGES_MAX || connection_now_us() - self->walk_us >= WALK_MAX_US)) {
        link_fail(self, SYNC_LOST_CONNECTION, "HSCAN of the set of marks does not end", false,
                  true);
        return;
    }
    size_t count = 0;
    for (size_t i = 0; i < fields->count; i += 2) {
        count += read_mark(fields->elements[i], fields->elements[i + 1], &self->changes[count]);
        if (count == SYNC_PAGE_MAX) {
            self->callbacks.mark_page(self->context, self->changes, count, false, 0);
            count = 0;
            if (!self->begun) /* what came of it ended the session */
                return;
        }
    }
    self->callbacks.mark_page(self->context, self->changes, count, true, next);
}
