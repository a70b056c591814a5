/* fuzz_wire.c: version records, events and messages as anybody could have written them to Redis.
 * What is understood stays within the input and, written anew, is understood as the same.
 */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/redis/wire.h"

static void check_record(const sync_change *change)
{
    const replica_record *record = &change->record;
    fuzz_check(record->kind >= REPLICA_VALUE && record->kind <= REPLICA_MARK);
    fuzz_check(record->version.clock != 0 && record->version.reserved == 0);
    fuzz_check(record->expires_at_ms >= 0);
    fuzz_check(record->kind == REPLICA_VALUE || change->full_size == 0);
    fuzz_check(record->stale_until_ms >= 0 && record->sliding_ms >= 0 && record->limit_ms >= 0 &&
               record->created_ms >= 0);
    fuzz_check(record->mark_count <= REPLICA_MARKS_MAX);
}

static bool same_extras(const replica_record *x, const replica_record *y)
{
    return x->kind >= REPLICA_DELETED || /* which are written without them */
           (x->stale_until_ms == y->stale_until_ms && x->sliding_ms == y->sliding_ms &&
            x->limit_ms == y->limit_ms && x->created_ms == y->created_ms &&
            x->mark_count == y->mark_count &&
            memcmp(x->marks, y->marks, (size_t)x->mark_count * REPLICA_MARK_SIZE) == 0);
}

static bool same_record(const sync_change *a, const sync_change *b)
{
    const replica_record *x = &a->record, *y = &b->record;
    return sync_order(x, y) == 0 && x->value_hash == y->value_hash &&
           a->full_size == b->full_size && same_extras(x, y) &&
           /* 0 is written as 1: both are over */
           (x->expires_at_ms == y->expires_at_ms ||
            (x->expires_at_ms <= 1 && y->expires_at_ms <= 1));
}

static size_t write_record(const sync_change *from, char out[WIRE_RECORD_MAX])
{
    replica_record record = from->record;
    record.value_size = (size_t)from->full_size;
    size_t size = wire_record(&record, out);
    fuzz_check(size < WIRE_RECORD_MAX && strlen(out) == size);
    return size;
}

static void one_record(const char *text, size_t size)
{
    sync_change read, again;
    char out[WIRE_RECORD_MAX];
    memset(&read, 0, sizeof read);
    memset(&again, 0, sizeof again);
    if (!wire_record_read(text, size, &read))
        return;
    check_record(&read);
    fuzz_check(read.record.kind != REPLICA_MARK); /* which no key has */
    size_t written = write_record(&read, out);
    fuzz_check(wire_record_read(out, written, &again) && same_record(&read, &again));
}

static void one_event(const sync_change *read, const char *text, size_t size)
{
    char record[WIRE_RECORD_MAX], head[WIRE_EVENT_HEAD_MAX];
    if (read->malformed) {
        fuzz_check(read->record.key == NULL && read->record.value == NULL);
        return;
    }
    if (read->begin) {
        sync_change again;
        memset(&again, 0, sizeof again);
        size_t written = wire_begin(read->emitter, read->nonce, head);
        wire_event_read(head, written, &again);
        fuzz_check(again.begin && again.emitter == read->emitter && again.nonce == read->nonce);
        return;
    }
    const replica_record *event = &read->record;
    const uint8_t *from = (const uint8_t *)text, *to = from + size;
    check_record(read);
    fuzz_check(event->key_size > 0 && event->key_size <= LARDER_KEY_MAX);
    fuzz_check(event->key >= from && event->key_size <= (size_t)(to - event->key));
    fuzz_check(event->value >= from && event->value_size == (size_t)(to - event->value));
    fuzz_check(event->value == event->key + event->key_size);
    fuzz_check(!read->value_missing || event->kind == REPLICA_VALUE);
    fuzz_check(read->value_missing || event->value_size == read->full_size);

    bool with_value = !read->value_missing;
    size_t record_size = write_record(read, record);
    size_t head_size = wire_event_head(record, record_size, event->key_size, with_value,
                                       read->emitter, read->nonce, head);
    fuzz_check(head_size < WIRE_EVENT_HEAD_MAX);
    size_t whole = head_size + event->key_size + event->value_size;
    char *written = malloc(whole);
    fuzz_check(written != NULL);
    memcpy(written, head, head_size);
    memcpy(written + head_size, event->key, event->key_size);
    memcpy(written + head_size + event->key_size, event->value, event->value_size);
    sync_change again;
    memset(&again, 0, sizeof again);
    wire_event_read(written, whole, &again);
    fuzz_check(!again.malformed && !again.begin && same_record(read, &again));
    fuzz_check(again.emitter == read->emitter && again.nonce == read->nonce);
    fuzz_check(again.value_missing == read->value_missing);
    fuzz_check(again.record.key_size == event->key_size &&
               memcmp(again.record.key, event->key, event->key_size) == 0);
    fuzz_check(again.record.value_size == event->value_size &&
               memcmp(again.record.value, event->value, event->value_size) == 0);
    free(written);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    sync_change read;
    uint64_t epoch = 0, number = 0;
    one_record(text, size);
    memset(&read, 0, sizeof read);
    wire_event_read(text, size, &read);
    one_event(&read, text, size);
    if (wire_message_read(text, size, &read))
        one_event(&read, text, size);
    if (wire_id_read(text, size, &epoch, &number)) {
        char out[48];
        uint64_t again_epoch = 0, again_number = 0;
        size_t written = wire_id(epoch, number, out);
        fuzz_check(written < sizeof out);
        fuzz_check(wire_id_read(out, written, &again_epoch, &again_number));
        fuzz_check(again_epoch == epoch && again_number == number);
    }
    return 0;
}
