/* link_ask.c: read-through: what Redis has for a key that a worker waits for. One MGET of record
 * and value, as for other fetches. Where the value is not its record's, another program has put it
 * there: then the machine asks once more, and for the value's end, too. See link.h.
 */
#include <string.h>

#include "daemon/redis/link_internal.h"

int link_ask(struct link *self, uint64_t id, const uint8_t *key, size_t key_size, bool with_end)
{
    int named = names_of(&self->names, self->settings.prefix, key, key_size);
    if (named != 0)
        return named;
    const char *plain = (const char *)self->names.key;
    const char *words[] = {"MGET", (const char *)self->names.record, plain};
    size_t sizes[] = {4, self->names.record_size, self->names.key_size};
    const char *end[] = {"PTTL", plain};
    size_t end_sizes[] = {4, self->names.key_size};
    if (with_end && !link_send(self, self->commands, REQUEST_TTL, 0, id, NULL, 2, end, end_sizes))
        return -1;
    return link_send(self, self->commands, REQUEST_ASK, with_end, id, NULL, 3, words, sizes) ? 0
                                                                                             : -1;
}

void link_got_ttl(struct link *self, uint64_t id, const reply *got)
{
    self->ends[id % LINK_ENDS].id = id;
    self->ends[id % LINK_ENDS].left_ms = got->kind == REPLY_INTEGER ? got->integer : 0;
}

/* How long a value still lives, as far as is known: one that is not known has ended. */
static int64_t value_left_ms(const struct link *self, uint64_t id)
{
    if (self->ends[id % LINK_ENDS].id != id)
        return 0;
    int64_t left_ms = self->ends[id % LINK_ENDS].left_ms;
    return left_ms == -1 ? INT64_MAX : left_ms < 0 ? 0 : left_ms;
}

/* A value without a version of its own. clock: of the record under which it stands. */
static void make_foreign(const struct link *self, uint64_t id, const reply *value, uint64_t clock,
                         bool with_end, sync_change *out)
{
    memset(out, 0, sizeof *out);
    out->foreign = true;
    out->with_end = with_end;
    out->full_size = value->size;
    out->record.kind = REPLICA_VALUE;
    out->record.version.clock = clock;
    out->record.value = (const uint8_t *)value->text;
    out->record.value_size = value->size;
    out->record.value_hash = replica_value_hash(value->text, value->size);
    out->record.expires_at_ms = INT64_MAX;
    out->left_ms = with_end ? value_left_ms(self, id) : INT64_MAX;
}

/* What the two replies are. false: Redis has nothing that could be served. */
static bool read_found(const struct link *self, uint64_t id, const reply *record,
                       const reply *value, bool with_end, sync_change *out)
{
    bool there = value->kind == REPLY_STRING;
    uint64_t clock = 0;
    if (record->kind == REPLY_STRING) {
        if (!link_read_winner(record, there ? value : NULL, out))
            return false; /* of a format that is not known here: left alone */
        if (out->record.kind == REPLICA_NEGATIVE && !there)
            return true;
        if (out->record.kind == REPLICA_VALUE && there && !out->value_missing)
            return true;
        clock = out->record.version.clock;
    }
    if (there)
        make_foreign(self, id, value, clock, with_end, out);
    return there;
}

void link_got_ask(struct link *self, const connection_tag *tag, const reply *got)
{
    sync_change found;
    if (got->kind == REPLY_ERROR) { /* no permission for this key, say: nobody knows */
        self->callbacks.asked(self->context, tag->id, NULL, true);
        return;
    }
    if (got->kind != REPLY_ARRAY || got->count != 2) {
        link_fail(self, SYNC_LOST_CONNECTION, "MGET was answered with something else", false, true);
        return;
    }
    bool any =
        read_found(self, tag->id, got->elements[0], got->elements[1], tag->index != 0, &found);
    self->callbacks.asked(self->context, tag->id, any ? &found : NULL, false);
}
