/* link_requests.c: joining, reading the stream, fetching values: the commands for it and what is
 * read from their replies. See link.h. Replies are not trusted: what has another form than the
 * request allows ends the session.
 */
#include "daemon/redis/link_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/wire.h"

#define CLAIM_LASTS_MS 3600000 /* of a node id, from its last heartbeat */
#define RANGE_CUT 4u /* of a page whose reply was over the limit, one in so many is left */

void link_refused(struct link *self, const char *what, const reply *error)
{
    bool right = reply_error_is(error, "NOPERM") || strstr(error->text, "unknown command") != NULL;
    char why[300];
    snprintf(why, sizeof why, "%s: %.250s", what, error->said);
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
            if (link_load_now(self) && link_join(self, self->join_epoch, self->join_number,
                                                 self->join_node, self->join_identity))
                return;
        }
        bool wait = reply_error_is(got, "OOM") || reply_error_is(got, "NOSCRIPT") ||
                    reply_error_is(got, CLUSTER_LATER);
        link_fail(self, wait ? SYNC_NOT_READY : SYNC_NO_PERMISSION, got->said, false, false);
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

/* ---- Records and values ------------------------------------------------------------------------
 */

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

/* ---- Stream and channel -----------------------------------------------------------------------
 */

/* A page is as long as our own events allow (settings.page); those of hosts with other settings may
 * be larger, and a reply over the limit ends the session, as it would each session to come. So less
 * is asked for after that, until pages are small again. */

void link_range_failed(struct link *self)
{
    if (self->range_out)
        self->range_most = self->range_limit > RANGE_CUT ? self->range_limit / RANGE_CUT : 1;
}

static void lengthen_pages(struct link *self, size_t bytes)
{
    if (bytes <= self->settings.limits.max_bytes / (RANGE_CUT * RANGE_CUT))
        self->range_most =
            self->range_most > SYNC_PAGE_MAX / 2 ? SYNC_PAGE_MAX : self->range_most * 2;
}

bool link_range(struct link *self, uint64_t epoch, uint64_t number, uint32_t limit)
{
    char id[48], after[49], count[16];
    wire_id(epoch, number, id);
    snprintf(after, sizeof after, "(%s", id);
    self->range_epoch = epoch;
    self->range_number = number;
    self->range_limit = limit < self->range_most ? limit : self->range_most;
    snprintf(count, sizeof count, "%" PRIu32, self->range_limit);
    const char *words[] = {"XRANGE", self->stream, after, "+", "COUNT", count};
    self->range_out = link_send(self, self->commands, REQUEST_RANGE, 0, 0, NULL, 6, words, NULL);
    return self->range_out;
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

/* Entries that do not rise, or are not behind those that we have, would be asked for for ever. */
static bool follows(struct link *self, const sync_change *entry)
{
    if (entry->epoch < self->range_epoch ||
        (entry->epoch == self->range_epoch && entry->number <= self->range_number))
        return false;
    self->range_epoch = entry->epoch;
    self->range_number = entry->number;
    return true;
}

void link_got_range(struct link *self, const reply *got)
{
    size_t bytes = 0;
    self->range_out = false;
    if (got->kind == REPLY_ERROR) {
        link_refused(self, "XRANGE", got);
        return;
    }
    if (got->kind != REPLY_ARRAY || got->count > SYNC_PAGE_MAX || got->count > self->range_limit) {
        link_out_of_step(self, "XRANGE");
        return;
    }
    for (size_t i = 0; i < got->count; i++) {
        if (!read_entry(got->elements[i], &self->changes[i]) || !follows(self, &self->changes[i])) {
            link_out_of_step(self, "XRANGE");
            return;
        }
        bytes += self->changes[i].record.key_size + self->changes[i].record.value_size;
    }
    lengthen_pages(self, bytes);
    self->callbacks.ranged(self->context, self->changes, got->count,
                           got->count == self->range_limit);
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
