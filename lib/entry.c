/* entry.c: entries inside a write: record, chunks, log row and ledger change together here and
 * nowhere else.
 *
 * Invariants, which inspect.c checks: each record names one log row and that row names its key; each
 * chunk belongs to one record; the ledger counts what is there.
 */
#include <stdlib.h>
#include <string.h>

#include "chunks.h"
#include "clock.h"
#include "error.h"
#include "removal.h"
#include "writer.h"

int entry_find(struct transaction *t, const struct key *key, struct record *record)
{
    larder_bytes bytes;
    int result = store_entry_get(t, key->form, key->form_size, &bytes);
    if (result != LARDER_OK) {
        return result;
    }
    if (!record_decode(bytes.data, bytes.size, record)) {
        char text[128];
        control_poison(t->store->control, t->store->generation);
        return error_set(LARDER_ECORRUPT, "the record of \"%s\" is damaged",
                         key_printable(text, sizeof text, key->data, key->size));
    }
    return record_is_of(record, key) ? LARDER_OK : LARDER_MISS;
}

int entry_key(const larder_bytes *form, const struct record *record, struct key *key,
              void **memory)
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
}

static uint64_t tombstone_cap(const struct writer *writer)
{
    return atomic_load(&writer->control->map_size) / 4096;
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

int entry_store(struct writer *writer, const struct key *key, const struct record *old,
                struct record *record, const void *value)
{
    struct transaction *t = &writer->transaction;
    struct record_header *header = &record->header;
    struct record before;
    bool dirty = (header->flags & RECORD_DIRTY) != 0;
    /* A dirty entry waits in the log already; one that is not to travel needs no new place. */
    bool keep_row = false;
    if (old != NULL) {
        before = *old;
        keep_row = !dirty || (before.header.flags & RECORD_DIRTY) != 0;
        if (strip(writer, &before, keep_row) != LARDER_OK) {
            return t->error;
        }
    }
    header->row = keep_row ? before.header.row : writer->ledger.next_row++;
    header->flags &= (uint8_t) ~(RECORD_CHUNKED | RECORD_LONG_KEY);
    if (key->is_long) {
        header->flags |= RECORD_LONG_KEY;
        record->long_key = key->data;
        record->long_key_size = key->size;
    }
    if (record_needs_chunks(key, record)) {
        header->flags |= RECORD_CHUNKED;
        record->chunk_count = record_chunks(header->value_size);
        record->first_chunk = writer->ledger.next_chunk;
        record->value_checksum = record_value_hash(value, header->value_size);
        writer->ledger.next_chunk += record->chunk_count;
        (void)chunks_write(t, record->first_chunk, value, header->value_size);
    } else {
        record->value = value;
        record->chunk_count = 0;
    }
    if (!keep_row) {
        (void)store_log_append(t, header->row, key->form, key->form_size);
    }
    void *place = store_entry_reserve(t, key->form, key->form_size, record_size(record));
    if (place != NULL) {
        record_encode(place, record, key->hash);
        count(&writer->ledger, header, 1);
    }
    return t->error;
}

static int erase(struct writer *writer, const struct key *key, const struct record *old)
{
    struct transaction *t = &writer->transaction;
    struct record before = *old;
    (void)strip(writer, &before, false);
    (void)store_entry_delete(t, key->form, key->form_size);
    /* ahead of the commit: too early is wider, too late would let something older in */
    removal_raise_floor(writer->control, key->hash, before.header.clock);
    return t->error;
}

static int entomb(struct writer *writer, const struct key *key, const struct record *old,
                  larder_version version)
{
    if (writer->ledger.tombstones >= tombstone_cap(writer) &&
        (old == NULL || old->header.kind != RECORD_DELETED)) {
        removal_raise_barrier(writer->control, key->hash, version.clock);
        return old == NULL ? LARDER_OK : erase(writer, key, old);
    }
    struct record tombstone = {.header = {.clock = version.clock,
                                          .node = version.node,
                                          .kind = RECORD_DELETED,
                                          .flags = RECORD_DIRTY,
                                          .expires_at_ms = CLOCK_NEVER}};
    return entry_store(writer, key, old, &tombstone, NULL);
}

int entry_delete(struct writer *writer, const struct key *key, const struct record *old,
                 larder_version version)
{
    bool local = (writer->handle->flags & LARDER_LOCAL) != 0 ||
                 (old != NULL && (old->header.flags & RECORD_LOCAL) != 0);
    if (!writer->replicates || local) {
        removal_raise_floor(writer->control, key->hash, version.clock);
        return old == NULL ? LARDER_OK : erase(writer, key, old);
    }
    return entomb(writer, key, old, version);
}

int entry_drop(struct writer *writer, const struct key *key, const struct record *old)
{
    const struct record_header *header = &old->header;
    bool travels = writer->replicates && (header->flags & RECORD_LOCAL) == 0 &&
                   header->kind != RECORD_DELETED;
    int64_t now_s = clock_wall_ms() / 1000;
    bool recent = header->acked_s != 0 && now_s - header->acked_s < WRITER_ACKED_RECENTLY_S;
    if (travels && ((header->flags & RECORD_DIRTY) != 0 || recent)) {
        return entomb(writer, key, old, record_version(old));
    }
    return erase(writer, key, old);
}

int entry_reseal(struct writer *writer, const struct key *key, const struct record *old,
                 const struct record_header *header)
{
    struct transaction *t = &writer->transaction;
    struct record changed = *old;
    size_t size = record_size(old);
    uint8_t copy[RECORD_NODE_MAX];
    uint8_t *bytes = copy;
    void *memory = NULL;
    changed.header = *header;
    if (size > sizeof copy) { /* a long key */
        memory = malloc(size);
        if (memory == NULL) {
            t->error = error_set(LARDER_ENOMEM, "out of memory");
            return t->error;
        }
        bytes = memory;
    }
    /* Out of the page first: the put below may move what old points to. */
    record_encode(bytes, &changed, key->hash);
    void *place = store_entry_reserve(t, key->form, key->form_size, size);
    if (place != NULL) {
        memcpy(place, bytes, size);
        count(&writer->ledger, &old->header, -1);
        count(&writer->ledger, header, 1);
    }
    free(memory);
    return t->error;
}

int entry_requeue(struct writer *writer, const struct key *key, const struct record *old)
{
    struct record_header header = old->header;
    struct transaction *t = &writer->transaction;
    uint64_t before = header.row;
    header.row = writer->ledger.next_row++;
    (void)entry_reseal(writer, key, old, &header);
    (void)store_log_delete(t, before);
    (void)store_log_append(t, header.row, key->form, key->form_size);
    return t->error;
}
