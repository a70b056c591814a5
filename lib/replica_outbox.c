/* replica_outbox.c: the part of the replicator's port that reads the map's log: what goes to Redis.
 */
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "handle.h"
#include "lookup.h"
#include "replica_internal.h"

enum { OUTBOX_LOOKS_MAX = 1024 };

static_assert(REPLICA_MARKS_MAX == RECORD_MARKS_MAX && REPLICA_MARK_SIZE == RECORD_MARK_SIZE,
              "the same marks");

static bool grow(replica_batch *batch, size_t used, size_t more)
{
    if (batch->memory_size - used >= more) {
        return true;
    }
    size_t size = batch->memory_size == 0 ? 65536 : batch->memory_size;
    while (size - used < more) {
        size *= 2;
    }
    void *memory = realloc(batch->memory, size);
    if (memory == NULL) {
        return false;
    }
    batch->memory = memory;
    batch->memory_size = size;
    return true;
}

static bool grow_records(replica_batch *batch, size_t max)
{
    if (batch->capacity >= max) {
        return true;
    }
    replica_record *records = realloc(batch->records, max * sizeof *records);
    if (records == NULL) {
        return false;
    }
    batch->records = records;
    batch->capacity = max;
    return true;
}

/* Copy a record behind the bytes used so far. MISS: it is none to send. */
static int copy_out(struct transaction *t, uint64_t row, const larder_bytes *form,
                    bool include_clean, replica_batch *batch, size_t *used)
{
    larder_bytes bytes;
    struct record record;
    int result = store_entry_get(t, form->data, form->size, &bytes);
    if (result != LARDER_OK || !record_decode(bytes.data, bytes.size, &record) ||
        record.header.row != row) {
        return result < 0 ? result : LARDER_MISS;
    }
    bool dirty = (record.header.flags & RECORD_DIRTY) != 0;
    if ((record.header.flags & RECORD_LOCAL) != 0 || (!dirty && !include_clean) ||
        (!dirty && replica_is_foreign(&record))) {
        return LARDER_MISS;
    }
    const uint8_t *key =
        record.long_key != NULL ? record.long_key : (const uint8_t *)form->data + 1;
    size_t key_size = record.long_key != NULL ? record.long_key_size : form->size - 1;
    if (record.header.kind != RECORD_DELETED &&
        lookup_death(t->store->control, &record, key_hash(key, key_size)) != 0) {
        if (!dirty) {
            return LARDER_MISS; /* the janitor makes a deletion of it, and that goes out */
        }
        record = record_make(record_version(&record, t->store->control->home), RECORD_DELETED, 0,
                             CLOCK_NEVER); /* dead: it goes out as what it is about to be */
    }
    size_t value_size = record.value_size;
    if (!grow(batch, *used, key_size + value_size)) {
        return error_set(LARDER_ENOMEM, "no memory for the outbox");
    }
    uint8_t *at = (uint8_t *)batch->memory + *used;
    memcpy(at, key, key_size);
    if (value_size > 0) {
        result = lookup_copy(t, &record, at + key_size);
        if (result == LARDER_ECORRUPT && t->error == LARDER_OK) {
            return LARDER_MISS; /* a chunk is gone: no reason to hold up the rest */
        }
        if (result != LARDER_OK) {
            return result;
        }
    }
    batch->records[batch->count++] = (replica_record){
        .version = record_version(&record, t->store->control->home),
        .kind = (enum replica_kind)record.header.kind,
        .row = row,
        .value_hash = replica_value_hash(at + key_size, value_size),
        .expires_at_ms = record.expires_at_ms,
        .stale_until_ms = record.stale_until_ms,
        .sliding_ms = record.sliding_ms,
        .limit_ms = record.limit_ms,
        .created_ms = record.created_ms,
        .acked_ms = record.acked_ms,
        .dirty = dirty,
        .mark_count = record.header.mark_count,
        .key_size = key_size,
        .value_size = value_size,
    };
    if (record.header.mark_count != 0) {
        memcpy(batch->records[batch->count - 1].marks, record.marks,
               (size_t)record.header.mark_count * RECORD_MARK_SIZE);
    }
    *used += key_size + value_size;
    return LARDER_OK;
}

static int fill(struct transaction *t, replica_batch *batch, size_t max_records, size_t max_bytes,
                bool include_clean)
{
    size_t used = 0;
    for (size_t looks = 0; looks < OUTBOX_LOOKS_MAX && batch->count < max_records; looks++) {
        uint64_t row;
        larder_bytes form;
        int result = store_log_next(t, batch->next_row, &row, &form);
        if (result == LARDER_MISS) {
            batch->end = true;
            break;
        }
        if (result == LARDER_OK) {
            size_t before = used;
            result = copy_out(t, row, &form, include_clean, batch, &used);
            if (result == LARDER_OK && used > max_bytes && batch->count > 1) {
                batch->count--; /* it comes first the next time */
                used = before;
                break;
            }
        }
        if (result < 0) {
            return result;
        }
        batch->next_row = row + 1;
    }
    const uint8_t *at = batch->memory;
    for (size_t i = 0; i < batch->count; i++) {
        replica_record *record = &batch->records[i];
        record->key = at;
        record->value = at + record->key_size;
        at += record->key_size + record->value_size;
    }
    return LARDER_OK;
}

int replica_outbox(larder *handle, replica_batch *batch, uint64_t from_row, size_t max_records,
                   size_t max_bytes, bool include_clean)
{
    struct transaction *t;
    batch->count = 0;
    batch->end = false;
    batch->next_row = from_row;
    int result = handle_enter(handle);
    if (result != LARDER_OK) {
        return result;
    }
    if (!grow_records(batch, max_records) || !grow(batch, 0, 1)) {
        return error_set(LARDER_ENOMEM, "no memory for the outbox");
    }
    result = registry_snapshot(handle->map, NULL, &t);
    if (result != LARDER_OK) {
        return result;
    }
    result = fill(t, batch, max_records, max_bytes, include_clean);
    store_read_end(t);
    return result;
}

void replica_batch_free(replica_batch *batch)
{
    free(batch->records);
    free(batch->memory);
    *batch = (replica_batch){.records = NULL};
}
