/* test_wire.c: records and events as text: what is written is read back, and nothing else is;
 * replies within their limits, in pieces of any size.
 */
#include "tests/harness.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/codec.h"
#include "daemon/redis/wire.h"

static replica_record sample(void)
{
    replica_record record = {.version = {.clock = 0xfedcba9876543210u, .node = 0x89abcdefu},
                             .kind = REPLICA_VALUE,
                             .value_hash = 0x0123456789abcdefu,
                             .expires_at_ms = 1234567890123,
                             .key = (const uint8_t *)"k\0y",
                             .key_size = 3,
                             .value = (const uint8_t *)"va\nue",
                             .value_size = 5};
    return record;
}

static size_t sample_event(char *out, bool with_value)
{
    replica_record record = sample();
    char text[WIRE_RECORD_MAX];
    size_t size = wire_record(&record, text);
    size_t at =
        wire_event_head(text, size, record.key_size, with_value, 7, 0x8000000000000001u, out);
    memcpy(out + at, record.key, record.key_size);
    at += record.key_size;
    if (with_value) {
        memcpy(out + at, record.value, record.value_size);
        at += record.value_size;
    }
    return at;
}

START_TEST(records_round)
{
    replica_record record = sample();
    char text[WIRE_RECORD_MAX];
    for (int kind = REPLICA_VALUE; kind <= REPLICA_DELETED; kind++) {
        sync_change read;
        memset(&read, 0, sizeof read);
        record.kind = (enum replica_kind)kind;
        record.value_size = kind == REPLICA_VALUE ? 5 : 0;
        record.expires_at_ms = kind == REPLICA_NEGATIVE ? INT64_MAX : INT64_MAX - 1;
        size_t size = wire_record(&record, text);
        ck_assert_uint_lt(size, WIRE_RECORD_MAX);
        ck_assert(wire_record_read(text, size, &read));
        ck_assert_int_eq(sync_order(&read.record, &record), 0);
        ck_assert_int_eq(read.record.expires_at_ms, record.expires_at_ms);
        ck_assert_uint_eq(read.full_size, record.value_size);
        /* a later version may say more */
        (void)snprintf(text + size, sizeof text - size, " 5 6");
        ck_assert(wire_record_read(text, size + 4, &read));
        for (size_t cut = 0; cut + 1 < size; cut++)
            if (wire_record_read(text, cut, &read))
                ck_assert_msg(cut > 42, "half a record was read: %zu bytes", cut);
    }
}
END_TEST

static replica_record full_sample(void)
{
    replica_record record = sample();
    record.stale_until_ms = INT64_MAX - 1;
    record.sliding_ms = 60000;
    record.limit_ms = INT64_MAX - 2;
    record.created_ms = 1;
    record.mark_count = REPLICA_MARKS_MAX;
    for (size_t i = 0; i < sizeof record.marks; i++)
        record.marks[i] = (uint8_t)(i * 7);
    return record;
}

/* Times and marks travel with the entry; what is not so takes no room. */
START_TEST(fields_round)
{
    replica_record record = full_sample();
    char text[WIRE_RECORD_MAX];
    sync_change read;
    record.expires_at_ms = INT64_MAX - 1;
    record.value_size = SIZE_MAX / 2;
    size_t size = wire_record(&record, text);
    ck_assert_uint_lt(size, WIRE_RECORD_MAX);
    memset(&read, 0xee, sizeof read);
    ck_assert(wire_record_read(text, size, &read));
    ck_assert_int_eq(read.record.stale_until_ms, record.stale_until_ms);
    ck_assert_int_eq(read.record.sliding_ms, record.sliding_ms);
    ck_assert_int_eq(read.record.limit_ms, record.limit_ms);
    ck_assert_int_eq(read.record.created_ms, record.created_ms);
    ck_assert_uint_eq(read.record.mark_count, record.mark_count);
    ck_assert_mem_eq(read.record.marks, record.marks, sizeof record.marks);
    char event[WIRE_EVENT_HEAD_MAX];
    ck_assert_uint_lt(
        wire_event_head(text, size, LARDER_KEY_MAX, true, UINT64_MAX, UINT64_MAX, event),
        sizeof event);

    record = sample();
    size = wire_record(&record, text);
    ck_assert(wire_record_read(text, size, &read));
    ck_assert(read.record.stale_until_ms == 0 && read.record.sliding_ms == 0 &&
              read.record.limit_ms == 0 && read.record.created_ms == 0);
    ck_assert_uint_eq(read.record.mark_count, 0);
    ck_assert_msg(size < 75, "a plain record takes %zu bytes", size);

    static const char *const later[] = {" z", " z9/=m s", " z s5", " s5 z"};
    static const char *const bad[] = {" s",
                                      " s0",
                                      " s-5",
                                      " s9223372036854775807",
                                      " s99999999999999999999",
                                      " s5x",
                                      " p",
                                      " m",
                                      " m0",
                                      " m0123456789abcdef0123456789abcde",
                                      " m0123456789abcdef0123456789abcdeg",
                                      " "};
    for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
        size_t added = strlen(later[i]);
        memcpy(text + size, later[i], added);
        bool half = i == 1; /* a field of ours that says nothing */
        ck_assert_msg(wire_record_read(text, size + added, &read) != half, "\"%s\"", later[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t added = strlen(bad[i]);
        memcpy(text + size, bad[i], added);
        ck_assert_msg(!wire_record_read(text, size + added, &read), "read: \"%s\"", bad[i]);
    }
    /* one mark too many */
    record = full_sample();
    size = wire_record(&record, text);
    memset(text + size, '0', 32);
    ck_assert(!wire_record_read(text, size + 32, &read));
}
END_TEST

START_TEST(events_round)
{
    char text[1024];
    for (int with_value = 0; with_value < 2; with_value++) {
        size_t size = sample_event(text, with_value != 0);
        sync_change read;
        memset(&read, 0, sizeof read);
        wire_event_read(text, size, &read);
        replica_record record = sample();
        ck_assert(!read.malformed && !read.begin);
        ck_assert_uint_eq(read.emitter, 7);
        ck_assert_uint_eq(read.nonce, 0x8000000000000001u);
        ck_assert_int_eq(sync_order(&read.record, &record), 0);
        ck_assert_uint_eq(read.record.key_size, 3);
        ck_assert_mem_eq(read.record.key, "k\0y", 3);
        ck_assert_int_eq(read.value_missing, with_value == 0);
        if (with_value != 0)
            ck_assert_mem_eq(read.record.value, "va\nue", 5);
        for (size_t cut = 0; cut < size; cut++) {
            wire_event_read(text, cut, &read);
            ck_assert_msg(read.malformed, "an event cut to %zu bytes was read", cut);
        }
        wire_event_read(text, size + 1, &read);
        ck_assert(read.malformed);
    }
    sync_change read;
    memset(&read, 0, sizeof read);
    size_t size = wire_begin(1, 2, text);
    wire_event_read(text, size, &read);
    ck_assert(read.begin && !read.malformed && read.nonce == 2);
}
END_TEST

START_TEST(messages)
{
    char text[1024];
    sync_change read;
    int head = snprintf(text, sizeof text, "%" PRIu64 "-%" PRIu64 " ", UINT64_MAX, UINT64_MAX);
    size_t size = sample_event(text + head, true) + (size_t)head;
    ck_assert(wire_message_read(text, size, &read));
    ck_assert(read.numbered && read.epoch == UINT64_MAX && read.number == UINT64_MAX);
    ck_assert(!read.malformed);
    (void)memcpy(text, "- ", 2);
    size = sample_event(text + 2, false) + 2;
    ck_assert(wire_message_read(text, size, &read));
    ck_assert(!read.numbered && !read.malformed);
    static const char *const bad[] = {
        "", " ", "1 ", "1- x", "-1 x", "1-18446744073709551616 x", "x-y z", "1-2"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(!wire_message_read(bad[i], strlen(bad[i]), &read), "read: %s", bad[i]);
}
END_TEST

/* Any bytes: no crash (the sanitizers watch), and never a key or value outside the text. */
START_TEST(changed_bytes)
{
    uint64_t random = harness_seed();
    for (int i = 0; i < 200000; i++) {
        char text[512];
        size_t size = sample_event(text, true);
        for (uint64_t n = harness_random(&random) % 4 + 1; n > 0; n--)
            text[harness_random(&random) % size] = (char)harness_random(&random);
        char *tight = malloc(size);
        ck_assert_ptr_nonnull(tight);
        memcpy(tight, text, size);
        sync_change read;
        memset(&read, 0, sizeof read);
        wire_event_read(tight, size, &read);
        if (!read.malformed && !read.begin) {
            const char *key = (const char *)read.record.key;
            const char *end = (const char *)read.record.value + read.record.value_size;
            ck_assert(key >= tight && end <= tight + size);
        }
        free(tight);
    }
}
END_TEST

static const codec_limits limits = {.max_bytes = 4096, .max_elements = 16, .max_depth = 2};

START_TEST(replies_in_pieces)
{
    static const char text[] = "+OK\r\n:-7\r\n$5\r\nhe\r\no\r\n$-1\r\n*2\r\n*1\r\n:1\r\n$0\r\n\r\n"
                               "-ERR no\r\n*0\r\n*-1\r\n";
    static const enum reply_kind kinds[] = {REPLY_STATUS, REPLY_INTEGER, REPLY_STRING, REPLY_NIL,
                                            REPLY_ARRAY,  REPLY_ERROR,   REPLY_ARRAY,  REPLY_NIL};
    for (size_t piece = 1; piece < sizeof text; piece++) {
        codec *self = codec_create(&limits);
        size_t got = 0;
        for (size_t at = 0; at + 1 < sizeof text; at += piece) {
            size_t size = sizeof text - 1 - at < piece ? sizeof text - 1 - at : piece;
            ck_assert(codec_feed(self, text + at, size));
            for (const reply *r; (r = codec_next(self)) != NULL; got++) {
                ck_assert_uint_lt(got, 8);
                ck_assert_int_eq(r->kind, kinds[got]);
                if (got == 1)
                    ck_assert_int_eq(r->integer, -7);
                if (got == 2)
                    ck_assert_mem_eq(r->text, "he\r\no", 6);
                if (got == 4)
                    ck_assert_int_eq(r->elements[0]->elements[0]->integer, 1);
                if (got == 5)
                    ck_assert(reply_error_is(r, "ERR") && !reply_error_is(r, "ER"));
            }
            ck_assert_msg(codec_error(self) == NULL, "%s", codec_error(self));
        }
        ck_assert_uint_eq(got, 8);
        codec_destroy(&self);
    }
}
END_TEST

/* A server repeats the arguments of a command that it does not know. */
START_TEST(errors_without_the_secret)
{
    static const struct {
        const char *said, *secret, *other, *told;
    } rows[] = {
        {"-WRONGPASS invalid pair\r\n", "pw", NULL, "WRONGPASS invalid pair"},
        {"-ERR unknown command 'AUTH', with args beginning with: 'pw' \r\n", "pw", NULL,
         "ERR unknown command 'AUTH'"},
        {"-ERR pw is no pw\r\n", "pw", "", "ERR *** is no ***"},
        {"-ERR pw and pw2, p\r\n", "pw", "pw2", "ERR *** and ***, p"},
        {"*2\r\n:1\r\n-ERR of-a-sentinel\r\n", NULL, "of-a-sentinel", "ERR ***"},
        {"-ERR pw\r\n", NULL, NULL, "ERR pw"},
        {"-pppppppppp\r\n", "p", NULL, "******************************"},
        {"-\r\n", "pw", NULL, ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        codec_limits knowing = limits;
        knowing.secrets[0] = rows[i].secret;
        knowing.secrets[1] = rows[i].other;
        codec *self = codec_create(&knowing);
        ck_assert(codec_feed(self, rows[i].said, strlen(rows[i].said)));
        const reply *got = codec_next(self);
        ck_assert_ptr_nonnull(got);
        if (got->kind == REPLY_ARRAY)
            got = got->elements[1];
        ck_assert_str_eq(got->said, rows[i].told);
        codec_destroy(&self);
    }
}
END_TEST

/* A secret at the place where the text is cut shows no part of itself. */
START_TEST(a_long_error_is_cut_behind_a_secret)
{
    codec_limits knowing = limits;
    knowing.secrets[0] = "0123456789";
    for (size_t before = CODEC_SAID_MAX - 24; before < CODEC_SAID_MAX + 4; before++) {
        char text[2 * CODEC_SAID_MAX];
        codec *self = codec_create(&knowing);
        size_t size =
            (size_t)snprintf(text, sizeof text, "-%0*d%s\r\n", (int)before, 0, knowing.secrets[0]);
        ck_assert(codec_feed(self, text, size));
        const reply *got = codec_next(self);
        ck_assert_ptr_nonnull(got);
        ck_assert_uint_lt(strlen(got->said), CODEC_SAID_MAX);
        ck_assert_ptr_null(strchr(got->said, '1'));
        codec_destroy(&self);
    }
}
END_TEST

START_TEST(replies_over_a_limit)
{
    static const char *const bad[] = {
        "*17\r\n",       "*2000000000\r\n", "*1\r\n*1\r\n*1\r\n:1\r\n",
        "*9\r\n*16\r\n", "hello\r\n",       "$-2\r\n",
        "*-2\r\n",       ":\r\n",           "$12345678901234567890\r\n",
        "*x\r\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        codec *self = codec_create(&limits);
        (void)codec_feed(self, bad[i], strlen(bad[i]));
        const reply *r = codec_next(self);
        bool broken = codec_error(self) != NULL;
        /* hiredis takes an empty number for 0; that is no harm */
        ck_assert_msg(broken || (r != NULL && r->kind == REPLY_INTEGER), "taken: %s", bad[i]);
        if (broken)
            ck_assert(codec_next(self) == NULL);
        codec_destroy(&self);
    }
    /* larger than the limit, but all there at once */
    char large[8192];
    int header = snprintf(large, sizeof large, "$%d\r\n", 5000);
    memset(large + header, 'x', 5000);
    memcpy(large + header + 5000, "\r\n", 2);
    codec *whole = codec_create(&limits);
    (void)codec_feed(whole, large, (size_t)header + 5002);
    ck_assert_ptr_null(codec_next(whole));
    ck_assert_ptr_nonnull(codec_error(whole));
    codec_destroy(&whole);

    static const char *const endless[] = {"+", "$", "*1", "$100000\r\n", "*2\r\n$3000\r\n"};
    for (size_t i = 0; i < sizeof endless / sizeof *endless; i++) {
        codec *self = codec_create(&limits);
        (void)codec_feed(self, endless[i], strlen(endless[i]));
        size_t fed = 0;
        while (codec_next(self) == NULL && codec_error(self) == NULL) {
            (void)codec_feed(self, "111", 3);
            fed += 3;
            ck_assert_msg(fed < 5000, "%s goes on for ever", endless[i]);
        }
        ck_assert_ptr_nonnull(codec_error(self));
        codec_destroy(&self);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wire");
    TCase *all = tcase_create("wire");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, records_round);
    tcase_add_test(all, fields_round);
    tcase_add_test(all, events_round);
    tcase_add_test(all, messages);
    tcase_add_test(all, changed_bytes);
    tcase_add_test(all, replies_in_pieces);
    tcase_add_test(all, errors_without_the_secret);
    tcase_add_test(all, a_long_error_is_cut_behind_a_secret);
    tcase_add_test(all, replies_over_a_limit);
    suite_add_tcase(suite, all);
    return harness_run(suite);
}
