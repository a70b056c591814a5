/* test_format.c: records, byte by byte: every combination of extras, marks, flags and sizes comes
 * back as it went in; cut anywhere or with any bit wrong they are noticed, and decoding never looks
 * outside its bytes (each is tried in a block of exactly its size).
 */
#include "format.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"

static const uint32_t page_numbers[3] = {12, UINT32_MAX, 0};
static uint8_t long_bytes[LARDER_KEY_MAX];
static const uint8_t value_bytes[] = "a value of some bytes";
static const uint64_t HASH = UINT64_C(0x0123456789abcdef);

/* The record of a combination: extras, and what the flags bring. */
static struct record make(unsigned extras, unsigned flags, uint8_t marks, size_t value_size)
{
    static uint8_t mark_bytes[RECORD_MARKS_MAX * RECORD_MARK_SIZE];
    memset(mark_bytes, 0x5a, sizeof mark_bytes);
    memset(long_bytes, 'L', sizeof long_bytes);
    struct record record = {
        .header = {.clock = UINT64_C(0x1122334455667788),
                   .row = 99,
                   .kind = RECORD_VALUE,
                   .flags = (uint8_t)flags,
                   .mark_count = marks},
        .expires_at_ms = (extras & RECORD_HAS_EXPIRY) != 0 ? 1111 : INT64_MAX,
        .created_ms = (extras & RECORD_HAS_CREATED) != 0 ? 2222 : 0,
        .acked_ms = (extras & RECORD_HAS_ACKED) != 0 ? 3333 : 0,
        .stale_until_ms = (extras & RECORD_HAS_STALE) != 0 ? 4444 : 0,
        .sliding_ms = (extras & RECORD_HAS_SLIDING) != 0 ? 5555 : 0,
        .limit_ms = (extras & RECORD_HAS_LIMIT) != 0 ? 6666 : 0,
        .marks = mark_bytes,
        .value = value_bytes,
        .value_size = value_size,
        .padding = (flags & RECORD_PADDED) == 0 ? 0
                   : value_size == 1            ? 1
                                                : RECORD_PADDING_MAX,
    };
    if ((flags & RECORD_LONG_KEY) != 0) {
        record.long_key = long_bytes;
        record.long_key_size = 700;
    }
    if ((flags & RECORD_CHUNKED) != 0) {
        record.value = NULL;
        record.value_size = 3 * CHUNK_SIZE + 21;
        record.first_chunk = 77;
        record.value_checksum = UINT64_C(0xfeedfacecafebeef);
        record.chunk_count = 3;
        record.pages = page_numbers;
        record.tail = value_bytes;
        record.tail_size = 21;
    }
    return record;
}

/* Encoded into a block of exactly its size. */
static uint8_t *encode(const struct record *record, size_t *size)
{
    *size = record_size(record);
    uint8_t *bytes = malloc(*size);
    ck_assert_ptr_nonnull(bytes);
    record_encode(bytes, record, HASH);
    return bytes;
}

static void same(const struct record *in, const struct record *out)
{
    ck_assert_uint_eq(out->header.clock, in->header.clock);
    ck_assert_uint_eq(out->header.row, in->header.row);
    ck_assert_uint_eq(out->header.node, in->header.node);
    ck_assert_uint_eq(out->header.kind, in->header.kind);
    ck_assert_uint_eq(out->header.flags, in->header.flags & ~(unsigned)RECORD_PADDED);
    ck_assert_uint_eq(out->padding, 0);
    ck_assert_uint_eq(out->header.mark_count, in->header.mark_count);
    ck_assert_int_eq(out->expires_at_ms, in->expires_at_ms);
    ck_assert_int_eq(out->created_ms, in->created_ms);
    ck_assert_int_eq(out->acked_ms, in->acked_ms);
    ck_assert_int_eq(out->stale_until_ms, in->stale_until_ms);
    ck_assert_int_eq(out->sliding_ms, in->sliding_ms);
    ck_assert_int_eq(out->limit_ms, in->limit_ms);
    ck_assert_uint_eq(out->value_size, in->value_size);
    ck_assert_uint_eq(out->chunk_count, in->chunk_count);
    if (in->header.mark_count > 0) {
        ck_assert_mem_eq(out->marks, in->marks, (size_t)in->header.mark_count * RECORD_MARK_SIZE);
    }
    ck_assert_uint_eq(out->long_key_size, in->long_key_size);
    if (in->long_key_size > 0) {
        ck_assert_mem_eq(out->long_key, in->long_key, in->long_key_size);
    }
    if (in->chunk_count > 0) {
        ck_assert_ptr_null(out->value);
        ck_assert_uint_eq(out->first_chunk, in->first_chunk);
        ck_assert_uint_eq(out->value_checksum, in->value_checksum);
        for (size_t i = 0; i < in->chunk_count; i++) {
            ck_assert_uint_eq(record_page(out, i), record_page(in, i));
        }
        ck_assert_uint_eq(out->tail_size, in->tail_size);
        if (in->tail_size > 0) {
            ck_assert_mem_eq(out->tail, in->tail, in->tail_size);
        }
        ck_assert_uint_eq(record_parts(out), in->chunk_count + (in->tail_size > 0));
    } else if (in->value_size > 0) {
        ck_assert_mem_eq(out->value, in->value, in->value_size);
    }
}

typedef void visitor(const struct record *record);

static void each_combination(visitor *visit)
{
    static const uint8_t marks[] = {0, 1, RECORD_MARKS_MAX};
    static const size_t sizes[] = {0, 1, sizeof value_bytes};
    for (unsigned extras = 0; extras < 1u << RECORD_EXTRAS; extras++) {
        for (unsigned flags = 0; flags <= RECORD_FLAGS; flags++) {
            for (size_t m = 0; m < 3; m++) {
                for (size_t s = 0; s < ((flags & RECORD_CHUNKED) != 0 ? 1u : 3u); s++) {
                    struct record record = make(extras, flags, marks[m], sizes[s]);
                    visit(&record);
                    record.header.node = 0xdeadbeef;
                    visit(&record);
                }
            }
        }
    }
}

static void round_trip(const struct record *record)
{
    size_t size;
    struct record out;
    uint8_t *bytes = encode(record, &size);
    ck_assert(record_decode(bytes, size, &out));
    same(record, &out);
    ck_assert(record_intact(bytes, size, HASH));
    ck_assert(!record_intact(bytes, size, HASH + 1)); /* another key's record */
    free(bytes);
}

START_TEST(every_combination_comes_back)
{
    each_combination(round_trip);
}
END_TEST

START_TEST(a_chunk_list_without_pages_or_tail)
{
    struct record record = make(0, RECORD_CHUNKED, 0, 5);
    record.pages = NULL;
    round_trip(&record);
    record.value_size = 100000;
    record.chunk_count = record_chunks(100000);
    record.tail_size = 0;
    round_trip(&record);
    ck_assert_uint_eq(record_page(&record, 3), 0);
}
END_TEST

static void truncate_everywhere(const struct record *record)
{
    size_t size;
    struct record out;
    uint8_t *bytes = encode(record, &size);
    for (size_t cut = 0; cut < size; cut++) {
        uint8_t *part = malloc(cut == 0 ? 1 : cut);
        ck_assert_ptr_nonnull(part);
        memcpy(part, bytes, cut);
        bool decoded = record_decode(part, cut, &out);
        if (decoded) { /* only where the end of a plain value is missing, and then the sum tells */
            ck_assert_uint_eq(out.chunk_count, 0);
            ck_assert_uint_eq(out.value_size, record->value_size - (size - cut));
            ck_assert(out.value_size == 0 || (out.value >= part && out.value < part + cut));
        }
        ck_assert(!record_intact(part, cut, HASH));
        free(part);
    }
    free(bytes);
}

START_TEST(cut_anywhere_it_is_noticed)
{
    static const unsigned flags[] = {0, RECORD_LONG_KEY, RECORD_CHUNKED,
                                     RECORD_LONG_KEY | RECORD_CHUNKED | RECORD_DIRTY};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        for (unsigned extras = 0; extras < 1u << RECORD_EXTRAS; extras += 1 + extras % 3 * 5) {
            struct record record = make(extras, flags[i], (uint8_t)(extras % 3), 21);
            truncate_everywhere(&record);
        }
    }
}
END_TEST

static void flip_every_bit(const struct record *record)
{
    size_t size;
    struct record out;
    uint8_t *bytes = encode(record, &size);
    for (size_t bit = 0; bit < size * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        ck_assert_msg(!record_intact(bytes, size, HASH), "bit %zu of %zu bytes", bit, size);
        if (record_decode(bytes, size, &out)) { /* whatever it says, it is of these bytes */
            ck_assert(out.value == NULL || (out.value >= bytes && out.value <= bytes + size));
            ck_assert(out.value == NULL || out.value_size <= (size_t)(bytes + size - out.value));
            ck_assert(out.long_key == NULL || (out.long_key > bytes && out.long_key_size <= size));
            const uint8_t *end = bytes + size, *pages = out.pages;
            ck_assert(out.tail == NULL ||
                      (out.tail > bytes && out.tail_size <= (size_t)(end - out.tail)));
            ck_assert(pages == NULL || (pages > bytes && out.chunk_count * sizeof(uint32_t) <=
                                                             (size_t)(end - pages)));
        }
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    free(bytes);
}

START_TEST(one_wrong_bit_is_noticed)
{
    static const unsigned flags[] = {0, RECORD_DIRTY, RECORD_CHUNKED, RECORD_LONG_KEY,
                                     RECORD_FLAGS};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        for (unsigned extras = 0; extras < 1u << RECORD_EXTRAS; extras += 31) {
            struct record record = make(extras, flags[i], (uint8_t)(i % 2), 21);
            flip_every_bit(&record);
        }
    }
}
END_TEST

START_TEST(random_bytes_are_safe_to_decode)
{
    uint64_t stream = harness_seed();
    struct record out;
    for (int i = 0; i < 20000; i++) {
        size_t size = harness_random(&stream) % 200;
        uint8_t *bytes = malloc(size == 0 ? 1 : size);
        ck_assert_ptr_nonnull(bytes);
        for (size_t at = 0; at < size; at++) {
            bytes[at] = (uint8_t)harness_random(&stream);
        }
        if (size > sizeof(struct record_head)) { /* so that some get past the head */
            bytes[22] = (uint8_t)(1 + harness_random(&stream) % 3) |
                        (uint8_t)((bytes[22] & RECORD_FLAGS) << 2);
            bytes[23] &= 0x9f;
            bytes[24] %= 6;
        }
        if (record_decode(bytes, size, &out)) {
            uint8_t sum = 0;
            for (size_t at = 0; out.value != NULL && at < out.value_size; at++) {
                sum = (uint8_t)(sum + out.value[at]); /* a sanitizer watches */
            }
            for (size_t at = 0; at < out.tail_size; at++) {
                sum = (uint8_t)(sum + out.tail[at]);
            }
            if (out.pages != NULL) {
                sum = (uint8_t)(sum + record_page(&out, out.chunk_count - 1));
            }
            (void)sum;
        }
        ck_assert(!record_intact(bytes, size, HASH));
        free(bytes);
    }
}
END_TEST

/* Encode, change some bytes, see it refused. */
static void not_decoded(struct record record, size_t offset, const void *with, size_t with_size)
{
    size_t size;
    struct record out;
    uint8_t *bytes = encode(&record, &size);
    ck_assert(record_decode(bytes, size, &out));
    memcpy(bytes + offset, with, with_size);
    ck_assert(!record_decode(bytes, size, &out));
    free(bytes);
}

START_TEST(insane_fields_are_refused)
{
    const size_t kind = 22, body = sizeof(struct record_head); /* kind and flags share a byte */
    not_decoded(make(0, 0, 0, 5), kind, "\0", 1);
    not_decoded(make(0, 0, 0, 20), kind, "\0", 1);  /* large enough for the short way */
    not_decoded(make(0, 0, 0, 5), kind, "\x81", 1); /* a flag that there is not */
    not_decoded(make(0, 0, 0, 20), kind, "\x81", 1);
    not_decoded(make(0, 0, 1, 5), body, "\0", 1); /* marks */
    not_decoded(make(0, 0, 1, 5), body, "\x12", 1);
    struct record foreign = make(0, 0, 0, 5);
    foreign.header.node = UINT32_MAX;
    int64_t node = 0;
    not_decoded(foreign, body, &node, sizeof node);
    node = INT64_C(1) << 32;
    not_decoded(foreign, body, &node, sizeof node);
    node = -1;
    not_decoded(foreign, body, &node, sizeof node);
    uint32_t size = KEY_PLAIN_MAX; /* a long key that is not long */
    not_decoded(make(0, RECORD_LONG_KEY, 0, 5), body, &size, sizeof size);
    size = LARDER_KEY_MAX + 1;
    not_decoded(make(0, RECORD_LONG_KEY, 0, 5), body, &size, sizeof size);
    size = UINT32_MAX;
    not_decoded(make(0, RECORD_LONG_KEY, 0, 5), body, &size, sizeof size);
    uint64_t number = UINT64_MAX; /* chunks beyond the last number */
    not_decoded(make(0, RECORD_CHUNKED, 0, 5), body, &number, sizeof number);
}
END_TEST

/* The list in the record of make() with other sizes in it. */
static void not_a_list(uint32_t size, uint16_t tail, uint16_t pages)
{
    const size_t body = sizeof(struct record_head);
    uint8_t bytes[8];
    memcpy(bytes, &size, sizeof size);
    memcpy(bytes + 4, &tail, sizeof tail);
    memcpy(bytes + 6, &pages, sizeof pages);
    not_decoded(make(0, RECORD_CHUNKED, 0, 5), body + 16, bytes, sizeof bytes);
}

START_TEST(chunk_lists_that_contradict_themselves_are_refused)
{
    const uint32_t size = 3 * CHUNK_SIZE + 21;
    not_a_list(0, 0, 0); /* chunks of nothing */
    not_a_list(0, 21, 3);
    not_a_list(21, 21, 0); /* all of it behind them */
    not_a_list(size, 20, 3);
    not_a_list(size, 22, 3);
    not_a_list(size, 21 + 12, 0);
    not_a_list(size, 21, 2); /* pages of some of them */
    not_a_list(size, 21, 4);
    not_a_list(size + CHUNK_SIZE, 21, 3);
    not_a_list(size, 0, 3);
    not_a_list(UINT32_MAX, 21, UINT16_MAX);
    /* more pages than a record names */
    static uint32_t many[RECORD_PAGES_MAX + 1];
    struct record record = make(0, RECORD_CHUNKED, 0, 5), out;
    record.chunk_count = RECORD_PAGES_MAX + 1;
    record.value_size = record.chunk_count * CHUNK_SIZE;
    record.pages = many;
    record.tail_size = 0;
    size_t encoded;
    uint8_t *bytes = encode(&record, &encoded);
    ck_assert(!record_decode(bytes, encoded, &out));
    free(bytes);
}
END_TEST

START_TEST(bytes_behind_a_chunk_list_are_damage)
{
    struct record record = make(0, RECORD_CHUNKED, 0, 5), out;
    size_t size = record_size(&record);
    uint8_t *bytes = calloc(1, size + 1);
    ck_assert_ptr_nonnull(bytes);
    record_encode(bytes, &record, HASH);
    ck_assert(record_decode(bytes, size, &out));
    ck_assert(!record_decode(bytes, size + 1, &out));
    free(bytes);
}
END_TEST

START_TEST(values_go_to_chunks_only_when_a_page_does_not_hold_the_record)
{
    struct key key;
    ck_assert_int_eq(key_make(&key, "key", 3), LARDER_OK);
    struct record record = make(0, 0, 0, 0);
    size_t edge = RECORD_PAGE_MAX - key.form_size - sizeof(struct record_head);
    record.value_size = edge;
    ck_assert(!record_needs_chunks(&key, &record));
    record.value_size = edge + 1;
    ck_assert(record_needs_chunks(&key, &record));
    record.expires_at_ms = 5; /* an extra takes its bytes from the value */
    record.value_size = edge - 7;
    ck_assert(record_needs_chunks(&key, &record));
    record.value_size = edge - 8;
    ck_assert(!record_needs_chunks(&key, &record));
    /* beside a key that takes pages of its own there is what is left of the last of them */
    struct record huge_key = make(0, RECORD_LONG_KEY, 0, 10);
    huge_key.long_key_size = 60000;
    ck_assert(!record_needs_chunks(&key, &huge_key));
    huge_key.value_size = 28; /* what the list of one chunk takes */
    size_t size = key.form_size + record_size(&huge_key);
    huge_key.value_size += RECORD_PAGE_MAX - size % 4096;
    ck_assert(!record_needs_chunks(&key, &huge_key));
    huge_key.value_size++;
    ck_assert(record_needs_chunks(&key, &huge_key));
    ck_assert_uint_eq(record_chunks(0), 0);
    ck_assert_uint_eq(record_chunks(1), 1);
    ck_assert_uint_eq(record_chunks(CHUNK_SIZE), 1);
    ck_assert_uint_eq(record_chunks(CHUNK_SIZE + 1), 2);
}
END_TEST

/* Cut, sealed and counted: the pieces are the value, and a page is not taken for what fits. */
static void cut(const struct key *key, size_t value_size, size_t chunks, size_t tail)
{
    struct record record = make(0, 0, 0, 0);
    record.value_size = value_size;
    ck_assert(record_needs_chunks(key, &record));
    record_cut(key, &record);
    ck_assert_uint_eq(record.chunk_count, chunks);
    ck_assert_uint_eq(record.tail_size, tail);
    ck_assert_uint_le(record.chunk_count, record_chunks(value_size));
}

START_TEST(the_end_of_a_value_stands_in_its_record_where_it_fits)
{
    struct key key;
    ck_assert_int_eq(key_make(&key, "key", 3), LARDER_OK);
    const size_t room = RECORD_NODE_MAX - key.form_size - sizeof(struct record_head) - 24;
    cut(&key, CHUNK_SIZE, 1, 0);
    cut(&key, CHUNK_SIZE + 1, 1, 1);
    cut(&key, CHUNK_SIZE + room - 4, 1, room - 4);
    cut(&key, CHUNK_SIZE + room - 3, 2, 0);
    cut(&key, 2 * CHUNK_SIZE - 1, 2, 0);
    cut(&key, 4 * CHUNK_SIZE + room - 16, 4, room - 16);
    cut(&key, 4 * CHUNK_SIZE + room - 15, 5, 0);
    cut(&key, (size_t)RECORD_PAGES_MAX * CHUNK_SIZE + 500, RECORD_PAGES_MAX, 500);
    /* without the numbers of its pages a record has more room */
    cut(&key, (size_t)(RECORD_PAGES_MAX + 1) * CHUNK_SIZE + room, RECORD_PAGES_MAX + 1, room);
}
END_TEST

START_TEST(a_record_knows_its_long_key)
{
    struct key key, other, plain;
    struct record record = make(0, RECORD_LONG_KEY, 0, 5);
    ck_assert_int_eq(key_make(&key, long_bytes, 700), LARDER_OK);
    ck_assert(record_is_of(&record, &key));
    ck_assert_int_eq(key_make(&other, long_bytes, 701), LARDER_OK);
    ck_assert(!record_is_of(&record, &other));
    ck_assert_int_eq(key_make(&plain, "p", 1), LARDER_OK);
    ck_assert(!record_is_of(&record, &plain));
    record = make(0, 0, 0, 5);
    ck_assert(record_is_of(&record, &plain));
    ck_assert(!record_is_of(&record, &key));
}
END_TEST

START_TEST(a_node_is_written_only_where_it_is_anothers)
{
    const larder_version own = {.clock = 5, .node = 7}, others = {.clock = 5, .node = 8};
    struct record record = record_make(own, RECORD_VALUE, 0, INT64_MAX), out;
    size_t size;
    record_leave_out(&record, 7);
    uint8_t *bytes = encode(&record, &size);
    ck_assert_uint_eq(size, sizeof(struct record_head));
    ck_assert(record_decode(bytes, size, &out));
    ck_assert_uint_eq(record_version(&out, 7).node, 7);
    free(bytes);
    record = record_make(others, RECORD_VALUE, 0, INT64_MAX);
    record_leave_out(&record, 7);
    bytes = encode(&record, &size);
    ck_assert_uint_eq(size, sizeof(struct record_head) + 8);
    ck_assert(record_decode(bytes, size, &out));
    ck_assert_uint_eq(record_version(&out, 7).node, 8);
    free(bytes);
}
END_TEST

START_TEST(creation_time_is_the_versions_unless_it_is_said)
{
    struct record record = record_make((larder_version){.clock = UINT64_C(1234) << 16, .node = 3},
                                       RECORD_NEGATIVE, RECORD_DIRTY, 77);
    ck_assert_int_eq(record_created_ms(&record), 1234);
    record.created_ms = 55;
    ck_assert_int_eq(record_created_ms(&record), 55);
    ck_assert_uint_eq(record_version(&record, 9).node, 3);
    ck_assert_int_eq(record.expires_at_ms, 77);
    ck_assert_uint_eq(record.header.kind, RECORD_NEGATIVE);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("format");
    TCase *tests = tcase_create("format");
    tcase_set_timeout(tests, 30);
    tcase_add_test(tests, every_combination_comes_back);
    tcase_add_test(tests, a_chunk_list_without_pages_or_tail);
    tcase_add_test(tests, cut_anywhere_it_is_noticed);
    tcase_add_test(tests, one_wrong_bit_is_noticed);
    tcase_add_test(tests, random_bytes_are_safe_to_decode);
    tcase_add_test(tests, insane_fields_are_refused);
    tcase_add_test(tests, bytes_behind_a_chunk_list_are_damage);
    tcase_add_test(tests, chunk_lists_that_contradict_themselves_are_refused);
    tcase_add_test(tests, values_go_to_chunks_only_when_a_page_does_not_hold_the_record);
    tcase_add_test(tests, the_end_of_a_value_stands_in_its_record_where_it_fits);
    tcase_add_test(tests, a_record_knows_its_long_key);
    tcase_add_test(tests, a_node_is_written_only_where_it_is_anothers);
    tcase_add_test(tests, creation_time_is_the_versions_unless_it_is_said);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
