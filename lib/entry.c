/* entry.c: entries inside a write: record, chunks, log row and ledger change together here and
 * nowhere else.
 *
 * Invariants, which inspect.c checks: each record names one log row and that row names its key;
 * each chunk belongs to one record; the ledger counts what is there.
 */
#include <stdlib.h>
#include <string.h>

#include "chunks.h"
#include "clock.h"
#include "error.h"
#include "evict.h"
#include "lookup.h"
#include "removal.h"
#include "rows.h"
#include "writer.h"

static int damaged(struct transaction *t, const struct key *key)
{
    char text[128];
    control_poison(t->store->control, t->store->generation);
    t->error = error_set(LARDER_ECORRUPT, "the record of \"%s\" is damaged",
                         key_printable(text, sizeof text, key->data, key->size));
    return t->error;
}

int entry_find(struct transaction *t, const struct key *key, struct record *record)
{
    larder_bytes bytes;
    int result = store_entry_get(t, key->form, key->form_size, &bytes);
    if (result != LARDER_OK) {
        return result;
    }
    if (!record_decode(bytes.data, bytes.size, record)) {
        return damaged(t, key);
    }
    return record_is_of(record, key) ? LARDER_OK : LARDER_MISS;
}

int entry_key(const larder_bytes *form, const struct record *record, struct key *key, void **memory)
{
    *memory = NULL;
    if (record->long_key == NULL) {
        memcpy(key->form, form->data, form->size);
        key->form_size = form->size;
        key->data = key->form + 1;
        key->size = form->size - 1;
        key->is_long = false;
        key->hash = key_hash(key->data, key->size);
        return LARDER_OK;
    }
    *memory = malloc(record->long_key_size);
    if (*memory == NULL) {
        return error_set(LARDER_ENOMEM, "out of memory");
    }
    memcpy(*memory, record->long_key, record->long_key_size);
    return key_make(key, *memory, record->long_key_size);
}

static void count(struct ledger *ledger, const struct record_header *header, int64_t by)
{
    uint64_t step = (uint64_t)by; /* wraps like the counters do */
    if (header->kind == RECORD_DELETED) {
        ledger->tombstones += step;
    } else {
        ledger->values += step;
    }
    if ((header->flags & RECORD_DIRTY) != 0) {
        ledger->dirty += step;
    }
    evict_count(ledger, header, by);
}

uint64_t entry_tombstone_cap(const struct store *store)
{
    /* a quarter of the map, if a tombstone with its row takes 256 bytes */
    return atomic_load(&store->life->map_size) / 1024;
}

static uint64_t new_row(struct writer *writer, const struct key *key)
{
    struct ledger *ledger = &writer->ledger;
    uint64_t row = rows_number(ledger->next_row, key->form_size, &ledger->block_bytes);
    ledger->next_row = row + 1;
    return row;
}

/* Bytes of a record while it is put together: on the stack, but for long keys and large values. */
struct encoded {
    uint8_t *bytes;
    size_t size;
    void *memory;
    uint8_t room[RECORD_NODE_MAX];
};

/* Before anything of this transaction can be seen: the copy in the hot set goes, and none from an
 * older snapshot comes in. To be called wherever what readers see of a key changes. */
static bool forget_copy(struct writer *writer, const struct key *key)
{
    struct hotset_key hot = {.hash = key->hash, .data = key->data, .size = key->size};
    bool was_there = hotset_forget(&writer->transaction.store->hot, &hot, writer->change);
    if (writer->fresh.size != 0 && writer->fresh.hash == key->hash) {
        writer->fresh.size = 0;
    }
    return was_there;
}

/* The key's record is another one now. Where there was a copy, or the key is new, it is kept for
 * the hot set until it is committed: one of a transaction is enough. */
static void renew_copy(struct writer *writer, const struct key *key, const struct record *record,
                       const void *bytes, size_t size, bool is_new)
{
    struct writer_fresh *fresh = &writer->fresh;
    bool was_there = forget_copy(writer, key);
    if (!(was_there || is_new) || key->is_long || record->chunk_count > 0 ||
        record->header.kind == RECORD_DELETED || key->size + size > sizeof fresh->bytes) {
        return;
    }
    fresh->hash = key->hash;
    fresh->key_size = key->size;
    fresh->size = size;
    memcpy(fresh->bytes, key->data, key->size);
    memcpy(fresh->bytes + key->size, bytes, size);
}

/* Take away what stands behind old beside its record: chunks, and the row unless it is kept. */
static int strip(struct writer *writer, const struct record *old, bool keep_row)
{
    struct transaction *t = &writer->transaction;
    count(&writer->ledger, &old->header, -1);
    if (old->chunk_count > 0) {
        (void)chunks_delete(t, old->first_chunk, old->chunk_count);
    }
    if (!keep_row) {
        (void)store_log_delete(t, old->header.row);
    }
    return t->error;
}

static int encode(struct transaction *t, const struct record *record, uint64_t key_hash,
                  struct encoded *encoded)
{
    encoded->size = record_size(record);
    encoded->memory = NULL;
    encoded->bytes = encoded->room;
    if (encoded->size > sizeof encoded->room) {
        encoded->memory = malloc(encoded->size);
        encoded->bytes = encoded->memory;
        if (encoded->memory == NULL) {
            t->error = error_set(LARDER_ENOMEM, "out of memory");
            return t->error;
        }
    }
    record_encode(encoded->bytes, record, key_hash);
    return LARDER_OK;
}

/* Long key and chunks; the latter are written. */
static void furnish(struct writer *writer, const struct key *key, struct record *record,
                    const void *value)
{
    struct record_header *header = &record->header;
    record_leave_out(record, writer->control->home);
    header->flags &= (uint8_t) ~(RECORD_CHUNKED | RECORD_LONG_KEY);
    if (key->is_long) {
        header->flags |= RECORD_LONG_KEY;
        record->long_key = key->data;
        record->long_key_size = key->size;
    }
    record->value = value;
    record->chunk_count = 0;
    record->tail_size = 0;
    if (__builtin_expect(record_needs_chunks(key, record), 0)) {
        header->flags |= RECORD_CHUNKED;
        record_cut(key, record);
        size_t size = record->value_size - record->tail_size;
        record->tail = (const uint8_t *)value + size;
        record->first_chunk = writer->ledger.next_chunk;
        record->value_checksum = record_value_hash(value, record->value_size);
        record->pages = record->chunk_count <= RECORD_PAGES_MAX ? writer->pages : NULL;
        writer->ledger.next_chunk += record->chunk_count;
        (void)chunks_write(&writer->transaction, record->first_chunk, value, size,
                           record->pages != NULL ? writer->pages : NULL);
    }
}

/* Put a furnished record in place of old. */
static int replace(struct writer *writer, const struct key *key, const struct record *old,
                   struct record *record)
{
    struct transaction *t = &writer->transaction;
    struct record before = *old; /* what its pointers point to moves with the first write */
    bool dirty = (record->header.flags & RECORD_DIRTY) != 0;
    /* A dirty entry waits in the log already; one that is not to travel needs no new place. */
    bool keep_row = !dirty || (before.header.flags & RECORD_DIRTY) != 0;
    record->header.row = keep_row ? before.header.row : new_row(writer, key);
    record->header.flags &= (uint8_t)~RECORD_RETURNED;
    if (record->header.kind != RECORD_DELETED && before.header.kind != RECORD_DELETED &&
        (keep_row ? (before.header.flags & RECORD_RETURNED) != 0
                  : evict_is_proved(&writer->ledger, &before.header))) {
        record->header.flags |= RECORD_RETURNED;
    }
    struct encoded encoded;
    if (encode(t, record, key->hash, &encoded) == LARDER_OK) {
        (void)store_entry_put(t, key->form, key->form_size, encoded.bytes, encoded.size);
        renew_copy(writer, key, record, encoded.bytes, encoded.size, false);
        free(encoded.memory);
    }
    (void)strip(writer, &before, keep_row);
    if (!keep_row) {
        (void)store_log_append(t, record->header.row, key->form, key->form_size);
    }
    count(&writer->ledger, &record->header, 1);
    evict_note_expiry(&writer->ledger, evict_end_of_life(record));
    return t->error;
}

static int upsert(struct writer *writer, const struct key *key, struct record *record,
                  const void *value, bool *inserted)
{
    struct transaction *t = &writer->transaction;
    struct record old;
    larder_bytes existing;
    void *room;
    hotset_prefetch(&t->store->hot, key->hash);
    furnish(writer, key, record, value);
    if (record->header.kind != RECORD_DELETED && evict_returns(writer, key)) {
        record->header.flags |= RECORD_RETURNED;
    }
    int result =
        store_entry_insert(t, key->form, key->form_size, record_size(record), &room, &existing);
    *inserted = result == LARDER_OK;
    if (result == LARDER_OK) {
        record->header.row = new_row(writer, key);
        record_encode(room, record, key->hash); /* straight into its page */
        renew_copy(writer, key, record, room, record_size(record), true);
        (void)store_log_append(t, record->header.row, key->form, key->form_size);
        count(&writer->ledger, &record->header, 1);
        evict_note_expiry(&writer->ledger, evict_end_of_life(record));
        evict_forget_hits(t->store, key->hash);
        return t->error;
    }
    if (result != LARDER_EXISTS) {
        return result;
    }
    if (!record_decode(existing.data, existing.size, &old)) {
        return damaged(t, key);
    }
    return replace(writer, key, &old, record);
}

static int put(struct writer *writer, const struct key *key, const struct record *old,
               struct record *record, const void *value)
{
    if (old != NULL) {
        furnish(writer, key, record, value);
        return replace(writer, key, old, record);
    }
    /* Another long key of the same form may stand there all the same: then it makes way. */
    bool inserted;
    return upsert(writer, key, record, value, &inserted);
}

static int tell_stored(struct writer *writer, const struct key *key, const struct record *record,
                       int result)
{
    if (result == LARDER_OK) {
        bool deleted = record->header.kind == RECORD_DELETED;
        writer_tell(writer, deleted ? LARDER_EVENT_DELETE : LARDER_EVENT_SET, key,
                    record_version(record, writer->control->home), record->expires_at_ms);
    }
    return result;
}

int entry_store(struct writer *writer, const struct key *key, const struct record *old,
                struct record *record, const void *value)
{
    return tell_stored(writer, key, record, put(writer, key, old, record, value));
}

int entry_upsert(struct writer *writer, const struct key *key, struct record *record,
                 const void *value, bool *inserted)
{
    return tell_stored(writer, key, record, upsert(writer, key, record, value, inserted));
}

/* Whether one may stand in the other's place: what the ledger counts stays the same, and so do the
 * log row and the bytes that the node has. */
static bool may_overwrite(const struct writer *writer, const struct store_place *place,
                          const struct record *old, const struct record *record, size_t size)
{
    const struct store *store = writer->transaction.store;
    const struct ledger *ledger = &store->life->ledgers[place->transaction & 1];
    uint32_t home = writer->control->home;
    int64_t end_ms = evict_end_of_life(record);
    return record->header.kind != RECORD_DELETED && old->header.kind != RECORD_DELETED &&
           clock_compare(record_version(old, home), record_version(record, home)) < 0 &&
           (old->header.flags & RECORD_DIRTY) != 0 && (record->header.flags & RECORD_DIRTY) != 0 &&
           ((old->header.flags ^ record->header.flags) & RECORD_LOCAL) == 0 &&
           old->chunk_count == 0 && old->long_key == NULL && size <= place->record.size &&
           place->record.size - size <= RECORD_PADDING_MAX &&
           end_ms >= ledger->earliest_expiry_ms && end_ms >= ledger->walk_earliest_ms;
}

int entry_overwrite(struct writer *writer, const struct key *key, struct record *record,
                    const void *value, struct store_place *place)
{
    struct store *store = writer->transaction.store;
    struct record old;
    hotset_prefetch(&store->hot, key->hash);
    if (key->is_long || store_entry_place(store, key->form, key->form_size, place) != LARDER_OK ||
        !record_decode(place->record.data, place->record.size, &old)) {
        return WRITER_NEEDS_TRANSACTION;
    }
    record_leave_out(record, writer->control->home);
    size_t size = record_size(record);
    if (!may_overwrite(writer, place, &old, record, size)) {
        return WRITER_NEEDS_TRANSACTION;
    }
    record->header.row = old.header.row;
    record->header.flags |= old.header.flags & RECORD_RETURNED;
    record->padding = place->record.size - size;
    record->value = value;
    uint8_t *bytes = store->overwrites->redo.bytes;
    record_encode(bytes, record, key->hash);
    renew_copy(writer, key, record, bytes, place->record.size, false);
    store_overwrite(store, place, key->hash, writer->request);
    return LARDER_OK;
}

static int erase(struct writer *writer, const struct key *key, const struct record *old)
{
    struct transaction *t = &writer->transaction;
    struct record before = *old;
    (void)strip(writer, &before, false);
    (void)store_entry_delete(t, key->form, key->form_size);
    (void)forget_copy(writer, key);
    /* ahead of the commit: too early is wider, too late would let something older in */
    removal_raise_floor(writer->control, key->hash, before.header.clock);
    return t->error;
}

/* buried: it was dead before. */
static int entomb(struct writer *writer, const struct key *key, const struct record *old,
                  larder_version version, bool buried)
{
    if (writer->ledger.tombstones >= entry_tombstone_cap(writer->transaction.store) &&
        (old == NULL || old->header.kind != RECORD_DELETED)) {
        if (!buried) { /* else what killed it stands for it */
            removal_raise_barrier(writer->control, key->hash, version.clock);
        }
        return old == NULL ? LARDER_OK : erase(writer, key, old);
    }
    struct record tombstone = record_make(version, RECORD_DELETED, RECORD_DIRTY, CLOCK_NEVER);
    return put(writer, key, old, &tombstone, NULL);
}

static int remove_for_caller(struct writer *writer, const struct key *key, const struct record *old,
                             larder_version version, bool buried)
{
    bool local = (writer->handle->flags & LARDER_LOCAL) != 0 ||
                 (old != NULL && (old->header.flags & RECORD_LOCAL) != 0);
    if (!writer->replicates || local) {
        removal_raise_floor(writer->control, key->hash, version.clock);
        return old == NULL ? LARDER_OK : erase(writer, key, old);
    }
    return entomb(writer, key, old, version, buried);
}

static int remove_and_tell(struct writer *writer, const struct key *key, const struct record *old,
                           larder_version version, bool buried)
{
    int result = remove_for_caller(writer, key, old, version, buried);
    if (result == LARDER_OK) {
        /* what a group, tag or clear had made dead is cleared away, not deleted now */
        bool dead = writer->cause == LARDER_CAUSE_DEAD;
        writer_tell(writer, dead ? LARDER_EVENT_EVICT : LARDER_EVENT_DELETE, key, version,
                    CLOCK_NEVER);
    }
    return result;
}

int entry_delete(struct writer *writer, const struct key *key, const struct record *old,
                 larder_version version)
{
    return remove_and_tell(writer, key, old, version, false);
}

int entry_bury(struct writer *writer, const struct key *key, const struct record *old,
               larder_version version)
{
    return remove_and_tell(writer, key, old, version, true);
}

static int drop(struct writer *writer, const struct key *key, const struct record *old)
{
    const struct record_header *header = &old->header;
    bool travels =
        writer->replicates && (header->flags & RECORD_LOCAL) == 0 && header->kind != RECORD_DELETED;
    bool recent = old->acked_ms != 0 && clock_wall_ms() - old->acked_ms < WRITER_ACKED_RECENTLY_MS;
    if (travels && ((header->flags & RECORD_DIRTY) != 0 || recent)) {
        return entomb(writer, key, old, record_version(old, writer->control->home), false);
    }
    return erase(writer, key, old);
}

/* Of what is dead on this host alone the others are not told. */
static int drop_dead(struct writer *writer, const struct key *key, const struct record *old)
{
    uint32_t cause = writer->cause;
    larder_version version = record_version(old, writer->control->home);
    int result;
    writer->cause = cause == LARDER_CAUSE_REPLICA ? cause : LARDER_CAUSE_DEAD;
    if (lookup_death_in_fleet(writer->control, old, key->hash) != 0) {
        result = entry_bury(writer, key, old, version);
    } else {
        result = drop(writer, key, old);
        if (result == LARDER_OK) {
            writer_tell(writer, LARDER_EVENT_EVICT, key, version, CLOCK_NEVER);
        }
    }
    writer->cause = cause;
    if (result == LARDER_OK) {
        stats_count(map_stats(writer->map), STATS_RECLAIMED_DEAD);
    }
    return result;
}

int entry_stand_in(struct writer *writer, const struct key *key, const struct record *old,
                   larder_version version)
{
    bool had_value = old != NULL && old->header.kind != RECORD_DELETED;
    struct record tombstone = record_make(version, RECORD_DELETED, 0, CLOCK_NEVER);
    int result = LARDER_OK;
    if (writer->ledger.tombstones < entry_tombstone_cap(writer->transaction.store) ||
        (old != NULL && !had_value)) {
        result = put(writer, key, old, &tombstone, NULL);
    } else {
        removal_raise_floor(writer->control, key->hash, version.clock);
        result = old == NULL ? LARDER_OK : erase(writer, key, old);
    }
    if (result == LARDER_OK && had_value) {
        writer_tell(writer, LARDER_EVENT_DELETE, key, version, CLOCK_NEVER);
    }
    return result;
}

int entry_drop(struct writer *writer, const struct key *key, const struct record *old)
{
    bool value = old->header.kind != RECORD_DELETED; /* of tombstones nobody wants to know */
    if (value && lookup_death(writer->control, old, key->hash) != 0) {
        return drop_dead(writer, key, old);
    }
    bool expired = clock_expired(old->expires_at_ms);
    int64_t expires_ms = old->expires_at_ms;
    larder_version version = record_version(old, writer->control->home);
    int result = drop(writer, key, old);
    if (result == LARDER_OK && value) {
        uint32_t kind = writer->cause == LARDER_CAUSE_REPLICA ? LARDER_EVENT_DELETE
                        : expired                             ? LARDER_EVENT_EXPIRE
                                                              : LARDER_EVENT_EVICT;
        writer_tell(writer, kind, key, version, expires_ms);
    }
    return result;
}

int entry_reseal(struct writer *writer, const struct key *key, const struct record *old,
                 const struct record *changed)
{
    struct transaction *t = &writer->transaction;
    struct encoded encoded;
    struct record_header before = old->header;
    struct record sealed = *changed;
    record_leave_out(&sealed, writer->control->home);
    if (encode(t, &sealed, key->hash, &encoded) == LARDER_OK) {
        (void)store_entry_put(t, key->form, key->form_size, encoded.bytes, encoded.size);
        free(encoded.memory);
        count(&writer->ledger, &before, -1);
        count(&writer->ledger, &changed->header, 1);
        evict_note_expiry(&writer->ledger, evict_end_of_life(changed));
    }
    return t->error;
}

/* Reseal as the last row of the log. */
static int reseal_last(struct writer *writer, const struct key *key, const struct record *old,
                       struct record *moved)
{
    struct transaction *t = &writer->transaction;
    uint64_t before = old->header.row;
    if (moved->header.kind != RECORD_DELETED && evict_is_proved(&writer->ledger, &old->header)) {
        moved->header.flags |= RECORD_RETURNED;
    }
    moved->header.row = new_row(writer, key);
    (void)entry_reseal(writer, key, old, moved);
    (void)store_log_delete(t, before);
    (void)store_log_append(t, moved->header.row, key->form, key->form_size);
    return t->error;
}

int entry_requeue(struct writer *writer, const struct key *key, const struct record *old)
{
    struct record moved = *old;
    moved.header.flags |= RECORD_DIRTY;
    moved.acked_ms = 0;
    return reseal_last(writer, key, old, &moved);
}

int entry_retime(struct writer *writer, const struct key *key, const struct record *old,
                 const struct record *changed)
{
    struct record copy = *changed;
    uint8_t value[RECORD_PAGE_MAX];
    uint8_t marks[RECORD_MARKS_MAX * RECORD_MARK_SIZE];
    if (changed->chunk_count == 0 && record_needs_chunks(key, changed) &&
        changed->value_size <= sizeof value) {
        /* the times took the last bytes of the record's page: the value has to move out */
        memcpy(value, changed->value, changed->value_size);
        if (changed->header.mark_count > 0) {
            memcpy(marks, changed->marks, (size_t)changed->header.mark_count * RECORD_MARK_SIZE);
            copy.marks = marks;
        }
        return entry_store(writer, key, old, &copy, value);
    }
    (void)forget_copy(writer, key);
    bool newly_dirty = (changed->header.flags & ~old->header.flags & RECORD_DIRTY) != 0;
    return tell_stored(writer, key, &copy,
                       newly_dirty ? reseal_last(writer, key, old, &copy)
                                   : entry_reseal(writer, key, old, &copy));
}
