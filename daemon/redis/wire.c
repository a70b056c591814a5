/* wire.c: see wire.h. */
#include "daemon/redis/wire.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct text {
    const char *at, *end;
    bool bad;
} text;

static size_t left(const text *self)
{
    return (size_t)(self->end - self->at);
}

static void expect(text *self, const char *word)
{
    size_t size = strlen(word);
    if (self->bad || left(self) < size || memcmp(self->at, word, size) != 0)
        self->bad = true;
    else
        self->at += size;
}

static uint64_t hex(text *self, size_t digits)
{
    uint64_t value = 0;
    if (self->bad || left(self) < digits) {
        self->bad = true;
        return 0;
    }
    for (size_t i = 0; i < digits; i++) {
        char c = *self->at++;
        unsigned digit;
        if (c >= '0' && c <= '9')
            digit = (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (unsigned)(c - 'a') + 10;
        else {
            self->bad = true;
            return 0;
        }
        value = value << 4 | digit;
    }
    return value;
}

static uint64_t decimal(text *self, uint64_t max)
{
    uint64_t value = 0;
    size_t digits = 0;
    while (!self->bad && self->at < self->end && *self->at >= '0' && *self->at <= '9') {
        unsigned digit = (unsigned)(*self->at++ - '0');
        if (value > (max - digit) / 10)
            self->bad = true;
        value = value * 10 + digit;
        digits++;
    }
    if (digits == 0)
        self->bad = true;
    return self->bad ? 0 : value;
}

/* ---- Records ----------------------------------------------------------------------------------
 */

static size_t put_time(char *out, char letter, int64_t ms)
{
    return ms < 1 ? 0 : (size_t)snprintf(out, 24, " %c%" PRId64, letter, ms);
}

/* A mark is two numbers, in the byte order of the host. */
static size_t put_mark(char *out, const uint8_t *mark)
{
    uint64_t halves[2];
    memcpy(halves, mark, sizeof halves);
    return (size_t)snprintf(out, 33, "%016" PRIx64 "%016" PRIx64, halves[0], halves[1]);
}

size_t wire_record(const replica_record *record, char out[WIRE_RECORD_MAX])
{
    char expires[24] = "-";
    if (record->expires_at_ms != INT64_MAX)
        snprintf(expires, sizeof expires, "%" PRId64,
                 record->expires_at_ms < 1 ? 1 : record->expires_at_ms);
    size_t at = (size_t)snprintf(
        out, WIRE_RECORD_MAX, "1%016" PRIx64 "%08" PRIx32 "%x%016" PRIx64 " %s %zu",
        record->version.clock, record->version.node, (unsigned)record->kind & 15u,
        record->value_hash, expires, record->value_size);
    if (record->kind >= REPLICA_DELETED)
        return at;
    at += put_time(out + at, 's', record->stale_until_ms);
    at += put_time(out + at, 'p', record->sliding_ms);
    at += put_time(out + at, 'l', record->limit_ms);
    at += put_time(out + at, 'c', record->created_ms);
    if (record->mark_count != 0)
        at += (size_t)snprintf(out + at, 3, " m");
    for (uint32_t i = 0; i < record->mark_count && i < REPLICA_MARKS_MAX; i++)
        at += put_mark(out + at, record->marks + (size_t)i * REPLICA_MARK_SIZE);
    return at;
}

static bool at_field_end(const text *self)
{
    return self->at == self->end || *self->at == ' ' || *self->at == '\n';
}

static int64_t time_of(text *self)
{
    int64_t ms = (int64_t)decimal(self, INT64_MAX - 1);
    if (ms == 0)
        self->bad = true;
    return ms;
}

static void read_marks(text *self, replica_record *record)
{
    record->mark_count = 0;
    while (!self->bad && !at_field_end(self)) {
        uint64_t halves[2] = {hex(self, 16), 0};
        halves[1] = hex(self, 16);
        if (record->mark_count == REPLICA_MARKS_MAX)
            self->bad = true;
        if (!self->bad)
            memcpy(record->marks + (size_t)record->mark_count++ * REPLICA_MARK_SIZE, halves,
                   sizeof halves);
    }
    if (record->mark_count == 0)
        self->bad = true;
}

static void read_field(text *self, replica_record *record)
{
    char letter = self->at < self->end ? *self->at : '\n';
    if (letter == '\n') {
        self->bad = true;
        return;
    }
    self->at++;
    switch (letter) {
    case 's':
        record->stale_until_ms = time_of(self);
        break;
    case 'p':
        record->sliding_ms = time_of(self);
        break;
    case 'l':
        record->limit_ms = time_of(self);
        break;
    case 'c':
        record->created_ms = time_of(self);
        break;
    case 'm':
        read_marks(self, record);
        break;
    default: /* a later version's */
        while (!at_field_end(self))
            self->at++;
    }
    if (!at_field_end(self))
        self->bad = true;
}

/* Up to the end of the text or of the line. */
static void read_record(text *self, sync_change *out)
{
    replica_record *record = &out->record;
    expect(self, "1");
    record->version.clock = hex(self, 16);
    record->version.node = (uint32_t)hex(self, 8);
    record->version.reserved = 0;
    record->kind = (enum replica_kind)hex(self, 1);
    record->value_hash = hex(self, 16);
    record->mark_count = 0;
    record->row = 0;
    record->stale_until_ms = record->sliding_ms = record->limit_ms = record->created_ms = 0;
    expect(self, " ");
    if (!self->bad && self->at < self->end && *self->at == '-') {
        self->at++;
        record->expires_at_ms = INT64_MAX;
    } else {
        record->expires_at_ms = (int64_t)decimal(self, INT64_MAX);
    }
    expect(self, " ");
    out->full_size = decimal(self, UINT64_MAX / 2);
    while (!self->bad && self->at < self->end && *self->at == ' ') {
        self->at++;
        read_field(self, record);
    }
    if (record->kind < REPLICA_VALUE || record->kind > REPLICA_MARK)
        self->bad = true;
    if (record->version.clock == 0)
        self->bad = true;
    if (record->kind != REPLICA_VALUE && out->full_size != 0)
        self->bad = true;
}

bool wire_record_read(const char *in, size_t size, sync_change *out)
{
    text self = {in, in + size, false};
    read_record(&self, out);
    return !self.bad && self.at == self.end && out->record.kind != REPLICA_MARK;
}

size_t wire_event_head(const char *record, size_t record_size, size_t key_size, bool with_value,
                       uint64_t emitter, uint64_t nonce, char out[WIRE_EVENT_HEAD_MAX])
{
    int size = snprintf(out, WIRE_EVENT_HEAD_MAX, "E1 %016" PRIx64 " %016" PRIx64 " %d %zu %.*s\n",
                        emitter, nonce, with_value ? 1 : 0, key_size, (int)record_size, record);
    return (size_t)size;
}

size_t wire_begin(uint64_t emitter, uint64_t nonce, char out[WIRE_EVENT_HEAD_MAX])
{
    return (size_t)snprintf(out, WIRE_EVENT_HEAD_MAX, "B1 %016" PRIx64 " %016" PRIx64 "\n", emitter,
                            nonce);
}

bool wire_clock_read(const char *in, size_t size, uint64_t *clock)
{
    text self = {in, in + size, false};
    *clock = hex(&self, 16);
    return !self.bad && self.at == self.end;
}

bool wire_id_read(const char *in, size_t size, uint64_t *epoch, uint64_t *number)
{
    text self = {in, in + size, false};
    *epoch = decimal(&self, UINT64_MAX);
    expect(&self, "-");
    *number = decimal(&self, UINT64_MAX);
    return !self.bad && self.at == self.end;
}

size_t wire_id(uint64_t epoch, uint64_t number, char out[48])
{
    return (size_t)snprintf(out, 48, "%" PRIu64 "-%" PRIu64, epoch, number);
}

static void read_event(text *self, sync_change *out)
{
    expect(self, "E1 ");
    out->emitter = hex(self, 16);
    expect(self, " ");
    out->nonce = hex(self, 16);
    expect(self, " ");
    bool with_value = hex(self, 1) == 1;
    expect(self, " ");
    uint64_t key_size = decimal(self, LARDER_KEY_MAX);
    expect(self, " ");
    read_record(self, out);
    expect(self, "\n");
    if (key_size == 0 || left(self) < key_size) {
        self->bad = true;
        return;
    }
    out->record.key = (const uint8_t *)self->at;
    out->record.key_size = (size_t)key_size;
    self->at += key_size;
    if (left(self) != (with_value ? out->full_size : 0)) {
        self->bad = true;
        return;
    }
    out->record.value = (const uint8_t *)self->at;
    out->record.value_size = left(self);
    out->value_missing = out->record.kind == REPLICA_VALUE && !with_value;
}

void wire_event_read(const char *in, size_t size, sync_change *out)
{
    text self = {in, in + size, false};
    uint64_t epoch = out->epoch, number = out->number;
    bool numbered = out->numbered;
    memset(out, 0, sizeof *out);
    out->epoch = epoch;
    out->number = number;
    out->numbered = numbered;
    if (size >= 3 && memcmp(in, "B1 ", 3) == 0) {
        expect(&self, "B1 ");
        out->emitter = hex(&self, 16);
        expect(&self, " ");
        out->nonce = hex(&self, 16);
        out->begin = true;
    } else {
        read_event(&self, out);
    }
    out->malformed = self.bad;
    if (self.bad)
        memset(&out->record, 0, sizeof out->record);
}

bool wire_message_read(const char *in, size_t size, sync_change *out)
{
    const char *space = size == 0 ? NULL : memchr(in, ' ', size);
    memset(out, 0, sizeof *out);
    if (space == NULL)
        return false;
    size_t id_size = (size_t)(space - in);
    if (id_size != 1 || *in != '-') {
        out->numbered = true;
        if (!wire_id_read(in, id_size, &out->epoch, &out->number))
            return false;
    }
    wire_event_read(space + 1, size - id_size - 1, out);
    return true;
}
