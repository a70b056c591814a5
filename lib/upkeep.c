/* upkeep.c: the janitor's steps. Each is one transaction or a few, short enough to yield the gate.
 */
#include "upkeep.h"

#include <stdlib.h>
#include <string.h>

#include "chunks.h"
#include "clock.h"
#include "evict.h"
#include "format.h"
#include "handle.h"
#include "lookup.h"
#include "removal.h"
#include "replica_internal.h"
#include "writer.h"

enum { STEP_ROWS_MAX = 1024, STEP_WAIT_MS = 10, CANDIDATES_MAX = 256, EVICT_STEP = 64 };

/* ---- Expiry -----------------------------------------------------------------------------------
 */

/* Whether a mark, a barrier or a clear killed an entry; entry_drop() then removes it as if it had
 * been deleted at that time, so that the deletion travels, too. */
static bool is_dead(struct control *control, const larder_bytes *form, const struct record *record)
{
    return record->header.kind != RECORD_DELETED &&
           lookup_death_of_form(control, form, record) != 0;
}

static bool is_done_with(const struct record *record, int64_t tombstones_before_ms)
{
    const struct record_header *header = &record->header;
    if (header->kind == RECORD_DELETED) {
        /* what an invalidation of many has removed bears a version that may be old already */
        bool recent = record->acked_ms != 0 && record->acked_ms >= tombstones_before_ms &&
                      clock_wall_ms() - record->acked_ms < WRITER_ACKED_RECENTLY_MS;
        return (header->flags & RECORD_DIRTY) == 0 && !recent &&
               clock_version_ms(header->clock) < tombstones_before_ms;
    }
    return clock_expired(record_gone_ms(record));
}

/* Look in a snapshot, without the gate: most steps find nothing to do. */
static int find_candidates(struct transaction *t, upkeep_step *step, size_t max_rows,
                           int64_t before_ms, bool dead_too, uint64_t *rows, size_t *count)
{
    for (size_t i = 0; i < max_rows && *count < CANDIDATES_MAX; i++) {
        uint64_t row;
        larder_bytes form, bytes;
        struct record record;
        int result = store_log_next(t, step->next_row, &row, &form);
        if (result == LARDER_MISS) {
            step->next_row = 0;
            step->wrapped = true;
            return LARDER_OK;
        }
        if (result != LARDER_OK) {
            return result;
        }
        step->next_row = row + 1;
        step->looked_at++;
        result = store_entry_get(t, form.data, form.size, &bytes);
        if (result < 0) {
            return result;
        }
        if (result == LARDER_OK && record_decode(bytes.data, bytes.size, &record) &&
            (is_done_with(&record, before_ms) ||
             (dead_too && is_dead(t->store->control, &form, &record)))) {
            rows[(*count)++] = row;
        }
    }
    return LARDER_OK;
}

static int remove_row(struct writer *writer, uint64_t wanted, int64_t before_ms, size_t *removed)
{
    uint64_t row;
    larder_bytes form, bytes;
    struct record record;
    struct key key;
    void *memory = NULL;
    struct transaction *t = &writer->transaction;
    int result = store_log_next(t, wanted, &row, &form);
    if (result != LARDER_OK || row != wanted) {
        return result < 0 ? result : LARDER_OK;
    }
    result = store_entry_get(t, form.data, form.size, &bytes);
    if (result != LARDER_OK || !record_decode(bytes.data, bytes.size, &record) ||
        record.header.row != row) {
        return result < 0 ? result : LARDER_OK;
    }
    bool dead = is_dead(writer->control, &form, &record);
    bool done = is_done_with(&record, before_ms);
    if (!dead && !done) {
        return LARDER_OK;
    }
    result = entry_key(&form, &record, &key, &memory);
    if (result == LARDER_OK) {
        bool value = record.header.kind != RECORD_DELETED;
        result = entry_drop(writer, &key, &record);
        if (result == LARDER_OK) {
            ++*removed;
            if (value && !dead) {
                stats_count(map_stats(writer->map), STATS_EXPIRATIONS);
            }
        }
    }
    free(memory);
    return result;
}

/* A larderd that was stopped while another took its map over has no business here any more, and
 * perhaps other settings. */
static int begin_step(struct writer *writer, const larder *handle)
{
    int result = writer_begin(writer, handle, STEP_WAIT_MS);
    if (result == LARDER_OK && handle->fence != 0) {
        result = replica_check_fence(writer->control, handle->fence);
        if (result != LARDER_OK) {
            writer_abort(writer);
        }
    }
    return result;
}

int upkeep_expire(larder *handle, upkeep_step *step, size_t max_rows, int64_t tombstone_ms)
{
    struct transaction *t;
    struct writer writer;
    uint64_t rows[CANDIDATES_MAX];
    size_t count = 0;
    upkeep_step next = {.next_row = step->next_row};
    int64_t before_ms = 0;
    bool dead_too = true;
    struct ledger ledger;
    int result = handle_enter_write(handle);
    if (result == LARDER_OK) {
        /* by the clock that their versions are of, and that Redis forgets their records by */
        before_ms = clock_wall_ms() - tombstone_ms +
                    atomic_load(&map_control(handle->map)->clock_offset_ms);
        result = registry_snapshot(handle->map, NULL, &t);
    }
    if (result != LARDER_OK) {
        return result;
    }
    max_rows = max_rows > STEP_ROWS_MAX ? STEP_ROWS_MAX : max_rows;
    if (store_ledger(t, &ledger)) {
        uint64_t cap = entry_tombstone_cap(t->store);
        if (ledger.tombstones > cap / 2) {
            before_ms = INT64_MAX; /* those that Redis has go early: the floors stand for them */
        }
        /* Nobody sees what is dead. It waits, so that its removal is told to Redis, too. */
        dead_too = ledger.tombstones < cap / 4 * 3;
    }
    result = find_candidates(t, &next, max_rows, before_ms, dead_too, rows, &count);
    store_read_end(t);
    if (result == LARDER_OK && count > 0) {
        result = begin_step(&writer, handle);
        if (result != LARDER_OK) {
            return result;
        }
        for (size_t i = 0; i < count && result == LARDER_OK; i++) {
            result = remove_row(&writer, rows[i], before_ms, &next.removed);
        }
        if (result == LARDER_OK) {
            result = writer_commit(&writer);
        } else {
            writer_abort(&writer);
        }
    }
    if (result == LARDER_OK) {
        *step = next;
    }
    return result;
}

/* ---- Eviction ---------------------------------------------------------------------------------
 */

int upkeep_evict(larder *handle, double share, size_t max_entries, size_t *evicted)
{
    struct writer writer;
    *evicted = 0;
    int result = handle_enter_write(handle);
    if (result != LARDER_OK) {
        return result;
    }
    if (!(share >= 0.0 && share <= 1.0)) {
        return error_set(LARDER_EINVAL, "watermark of %f: it is 0 to 1", share);
    }
    while (*evicted < max_entries) {
        result = begin_step(&writer, handle);
        if (result != LARDER_OK) {
            return result;
        }
        uint64_t pages = writer.transaction.store->max_pages;
        uint64_t wanted = (uint64_t)(share * (double)pages);
        uint64_t used = store_used_pages(&writer.transaction);
        if (used <= wanted) {
            writer_abort(&writer);
            return LARDER_OK;
        }
        /* "need" so large that the eviction ends at the watermark, not at the reserve */
        uint64_t reserve = evict_reserve(writer.transaction.store->life, &writer.ledger);
        uint64_t need = pages - wanted > reserve ? pages - wanted - reserve : 0;
        size_t left = max_entries - *evicted;
        size_t gone = evict_some(&writer, need, left < EVICT_STEP ? left : EVICT_STEP);
        result = writer_commit(&writer);
        if (result != LARDER_OK) {
            return result;
        }
        *evicted += gone;
        if (writer.nothing_left) {
            return error_set(LARDER_EFULL, "nothing more can be evicted");
        }
        if (gone == 0) {
            return LARDER_OK; /* all it saw was spared; the hand goes on from there */
        }
    }
    return LARDER_OK;
}

/* ---- Readers ----------------------------------------------------------------------------------
 */

int upkeep_readers(larder *handle, int *cleared)
{
    struct transaction *t;
    int result = handle_enter_write(handle);
    *cleared = 0;
    if (result == LARDER_OK) {
        result = registry_reader(handle->map, &t);
    }
    if (result != LARDER_OK) {
        return result;
    }
    struct gate *gate = &t->store->control->reader_gate;
    if (gate_enter(gate, STEP_WAIT_MS) < 0) {
        return error_set(LARDER_EBUSY, "the reader table is locked by another process");
    }
    result = store_clear_dead_readers(t->store, cleared);
    gate_leave(gate);
    return result;
}

/* ---- Verification -----------------------------------------------------------------------------
 */

static int verify_row(struct transaction *t, const larder_bytes *form, uint64_t row)
{
    larder_bytes bytes;
    struct record record;
    struct key key;
    void *memory = NULL;
    char text[128];
    int result = store_entry_get(t, form->data, form->size, &bytes);
    if (result < 0) {
        return result;
    }
    bool whole = result == LARDER_OK && record_decode(bytes.data, bytes.size, &record) &&
                 record.header.row == row;
    if (whole && entry_key(form, &record, &key, &memory) == LARDER_OK) {
        whole = record_intact(bytes.data, bytes.size, key.hash) &&
                (record.chunk_count == 0 || (chunks_verify(t, &record) == LARDER_OK &&
                                             chunks_verify_pages(t, &record) == LARDER_OK));
        free(memory);
    }
    return whole ? LARDER_OK
                 : error_set(LARDER_ECORRUPT, "the entry \"%s\" of log row %llu is damaged",
                             key_printable(text, sizeof text, (const uint8_t *)form->data + 1,
                                           form->size - 1),
                             (unsigned long long)row);
}

int upkeep_verify(larder *handle, uint64_t *next_row, size_t max_rows)
{
    struct transaction *t;
    int result = handle_enter(handle);
    if (result == LARDER_OK) {
        result = registry_snapshot(handle->map, NULL, &t);
    }
    if (result != LARDER_OK) {
        return result;
    }
    for (size_t i = 0; i < max_rows && i < STEP_ROWS_MAX; i++) {
        uint64_t row;
        larder_bytes form;
        result = store_log_next(t, *next_row, &row, &form);
        if (result == LARDER_MISS) {
            *next_row = 0;
            result = LARDER_OK;
            break;
        }
        if (result == LARDER_OK) {
            *next_row = row + 1;
            result = verify_row(t, &form, row);
        }
        if (result != LARDER_OK) {
            break;
        }
    }
    store_read_end(t);
    return result;
}
