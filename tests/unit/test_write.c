/* test_write.c: larder_set and its kin as a caller sees them: outcomes, errors that name the thing
 * and the limit, and what a refusal leaves behind.
 */
#include <check.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"

static larder *map;

static void open_map(void)
{
    map = maps_new();
}

static void close_map(void)
{
    maps_whole(map);
    larder_close(&map);
}

/* The result is that code and this thread's sentence has the words. */
#define FAILS(code, words, call)                                                                   \
    do {                                                                                           \
        ck_assert_int_eq(call, code);                                                              \
        ck_assert_msg(strstr(larder_last_error(), words) != NULL, "\"%s\" does not say \"%s\"",    \
                      larder_last_error(), words);                                                 \
    } while (0)

START_TEST(set_get_delete)
{
    larder_info info;
    int64_t before = clock_wall_ms();
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    info = maps_info(map, "key");
    ck_assert_uint_eq(info.size, 5);
    ck_assert_int_ge(info.created_ms, before);
    ck_assert_int_le(info.created_ms, clock_wall_ms());
    ck_assert_int_eq(info.expires_ms, INT64_MAX);
    ck_assert_uint_eq(info.version.reserved, 0);
    ck_assert_int_eq(maps_set(map, "key", "other"), LARDER_OK);
    ck_assert_uint_gt(maps_info(map, "key").version.clock, info.version.clock);
    ck_assert_str_eq(maps_get(map, "key"), "other");
    ck_assert_int_eq(maps_delete(map, "key"), LARDER_OK);
    ck_assert_ptr_null(maps_get(map, "key"));
    ck_assert_int_eq(maps_delete(map, "key"), LARDER_MISS);
    ck_assert_int_eq(larder_set(map, "empty", 5, NULL, 0, NULL), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "empty"), ""); /* empty is a hit */
}
END_TEST

START_TEST(arguments_that_are_none)
{
    static uint8_t big[LARDER_KEY_MAX + 1];
    larder_item items[1] = {{.key = "k", .key_size = 1}};
    larder_version version = {0};
    larder_expiry never = larder_expire_never();
    int64_t number = 77;
    FAILS(LARDER_EINVAL, "not an open", larder_set(NULL, "k", 1, "v", 1, NULL));
    FAILS(LARDER_EINVAL, "0 bytes", larder_set(map, "", 0, "v", 1, NULL));
    FAILS(LARDER_EINVAL, "0 bytes", larder_set(map, NULL, 1, "v", 1, NULL));
    FAILS(LARDER_ETOOBIG, "65535", larder_set(map, big, sizeof big, "v", 1, NULL));
    FAILS(LARDER_EINVAL, "size of 3", larder_set(map, "k", 1, NULL, 3, NULL));
    FAILS(LARDER_EINVAL, "expected version", larder_cas(map, "k", 1, "v", 1, NULL, NULL));
    FAILS(LARDER_EINVAL, "0 bytes", larder_cas(map, "", 0, "v", 1, &version, NULL));
    FAILS(LARDER_EINVAL, "without an expiry", larder_touch(map, "k", 1, NULL));
    FAILS(LARDER_EINVAL, "0 bytes", larder_touch(map, "", 0, &never));
    FAILS(LARDER_EINVAL, "0 bytes", larder_delete(map, "", 0));
    FAILS(LARDER_ETOOBIG, "65536", larder_delete(map, big, sizeof big));
    FAILS(LARDER_EINVAL, "0 bytes", larder_incr(map, "", 0, 1, &number, NULL));
    ck_assert_int_eq(number, 77);
    FAILS(LARDER_EINVAL, "4097", larder_set_many(map, items, LARDER_MANY_MAX + 1, NULL));
    FAILS(LARDER_EINVAL, "1 items", larder_set_many(map, NULL, 1, NULL));
    FAILS(LARDER_EINVAL, "4097", larder_delete_many(map, items, LARDER_MANY_MAX + 1));
    items[0].key_size = 0;
    FAILS(LARDER_EINVAL, "0 bytes", larder_set_many(map, items, 1, NULL));
    FAILS(LARDER_EINVAL, "0 bytes", larder_delete_many(map, items, 1));
    ck_assert_int_eq(larder_set_many(map, NULL, 0, NULL), LARDER_OK);
    ck_assert_int_eq(larder_delete_many(map, NULL, 0), LARDER_OK);
    ck_assert_uint_eq(maps_stats(map).entries, 0);
    ck_assert_uint_eq(maps_stats(map).pending, 0); /* errors of the caller's invalidate nothing */
}
END_TEST

START_TEST(policies_that_are_not_valid)
{
    ck_assert_int_eq(maps_set(map, "k", "stays"), LARDER_OK);
    static const uint8_t big[LARDER_NAME_MAX + 1];
    larder_bytes tag = {"t", 1}, empty = {"", 0};
    const struct {
        larder_policy policy;
        int code;
        const char *words;
    } cases[] = {
        {{.flags = 1u << 7}, LARDER_EINVAL, "larder_policy"},
        {{.reserved0 = 1}, LARDER_EINVAL, "larder_policy"},
        {{.reserved = {0, 0, 0, 0, 0, 0, 0, 1}}, LARDER_EINVAL, "larder_policy"},
        {{.stale_ms = -1}, LARDER_EINVAL, "negative"},
        {{.jitter_ms = -1}, LARDER_EINVAL, "negative"},
        {{.max_lifetime_ms = -1}, LARDER_EINVAL, "negative"},
        {{.stale_ms = INT64_MAX, .expiry = {.kind = LARDER_EXPIRY_IN, .ms = 9}},
         LARDER_EOVERFLOW,
         "stale_ms"},
        {{.max_lifetime_ms = INT64_MAX}, LARDER_EOVERFLOW, "max_lifetime_ms"},
        {{.group = {NULL, 1}}, LARDER_EINVAL, "group of 0 bytes"},
        {{.group = {big, sizeof big}}, LARDER_ETOOBIG, "65535"},
        {{.tags = &tag, .tag_count = LARDER_TAGS_MAX + 1}, LARDER_EINVAL, "17 tags"},
        {{.tags = NULL, .tag_count = 1}, LARDER_EINVAL, "no pointer"},
        {{.tags = &empty, .tag_count = 1}, LARDER_EINVAL, "tag of 0 bytes"},
        {{.flags = LARDER_NEGATIVE}, LARDER_EINVAL, "1 bytes"},
        {{.expiry = {.kind = LARDER_EXPIRY_IN, .ms = -5}}, LARDER_EINVAL, "-5 ms"},
        {{.expiry = {.kind = LARDER_EXPIRY_IN, .ms = INT64_MAX}}, LARDER_EOVERFLOW, "does not fit"},
        {{.expiry = {.kind = LARDER_EXPIRY_SLIDING}}, LARDER_EINVAL, "sliding"},
        {{.expiry = {.kind = 99}}, LARDER_EINVAL, "99"},
        {{.expiry = {.kind = LARDER_EXPIRY_ALIGNED, .ms = 1}}, LARDER_EINVAL, "1 ms"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        FAILS(cases[i].code, cases[i].words, larder_set(map, "k", 1, "v", 1, &cases[i].policy));
        ck_assert_str_eq(maps_get(map, "k"), "stays"); /* nothing changed */
    }
}
END_TEST

START_TEST(a_value_over_the_limit_is_refused_and_the_old_one_not_served)
{
    uint64_t limit = map->max_value;
    ck_assert_uint_eq(limit, MAPS_SIZE / 16);
    char *value = calloc(1, limit + 1), text[32];
    ck_assert_ptr_nonnull(value);
    larder_item items[2] = {{.key = "many1", .key_size = 5, .value = value, .value_size = limit},
                            {.key = "many2", .key_size = 5, .value = value, .value_size = 1}};
    (void)snprintf(text, sizeof text, "%" PRIu64, limit);
    ck_assert_int_eq(larder_set(map, "k", 1, value, limit, NULL), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "k", "old"), LARDER_OK);
    FAILS(LARDER_ETOOBIG, text, larder_set(map, "k", 1, value, limit + 1, NULL));
    ck_assert_ptr_null(maps_get(map, "k"));
    ck_assert_int_eq(maps_set(map, "k", "old"), LARDER_OK);
    FAILS(LARDER_ETOOBIG, text, larder_add(map, "k", 1, value, limit + 1, NULL));
    ck_assert_str_eq(maps_get(map, "k"), "old"); /* add would have left it */
    ck_assert_int_eq(maps_set(map, "many2", "old"), LARDER_OK);
    FAILS(LARDER_ETOOBIG, text, larder_set_many(map, items, 2, NULL));
    ck_assert_int_eq(items[1].outcome, LARDER_ETOOBIG);
    ck_assert_ptr_null(maps_get(map, "many2"));
    ck_assert_uint_eq(maps_stats(map).refused_size, 3);
    free(value);
}
END_TEST

START_TEST(add_and_replace)
{
    ck_assert_int_eq(larder_replace(map, "k", 1, "1", 1, NULL), LARDER_MISS);
    ck_assert_ptr_null(maps_get(map, "k"));
    ck_assert_int_eq(larder_add(map, "k", 1, "1", 1, NULL), LARDER_OK);
    ck_assert_int_eq(larder_add(map, "k", 1, "2", 1, NULL), LARDER_EXISTS);
    ck_assert_str_eq(maps_get(map, "k"), "1");
    ck_assert_int_eq(larder_replace(map, "k", 1, "3", 1, NULL), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "k"), "3");
    ck_assert_int_eq(maps_delete(map, "k"), LARDER_OK);
    ck_assert_int_eq(larder_replace(map, "k", 1, "4", 1, NULL), LARDER_MISS);
    ck_assert_int_eq(larder_add(map, "k", 1, "5", 1, NULL), LARDER_OK);
    larder_policy negative = {.flags = LARDER_NEGATIVE};
    ck_assert_int_eq(larder_set(map, "n", 1, NULL, 0, &negative), LARDER_OK);
    ck_assert_int_eq(maps_has(map, "n"), LARDER_ABSENT);
    ck_assert_int_eq(larder_add(map, "n", 1, "x", 1, NULL), LARDER_EXISTS); /* something is known */
    ck_assert_int_eq(larder_replace(map, "n", 1, "x", 1, NULL), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "n"), "x");
}
END_TEST

START_TEST(compare_and_swap)
{
    ck_assert_int_eq(maps_set(map, "k", "1"), LARDER_OK);
    larder_version seen = maps_info(map, "k").version;
    larder_version other = seen;
    other.node ^= 1;
    ck_assert_int_eq(larder_cas(map, "k", 1, "2", 1, &other, NULL), LARDER_CONFLICT);
    other = seen;
    other.clock++;
    ck_assert_int_eq(larder_cas(map, "k", 1, "2", 1, &other, NULL), LARDER_CONFLICT);
    ck_assert_str_eq(maps_get(map, "k"), "1");
    ck_assert_int_eq(larder_cas(map, "k", 1, "2", 1, &seen, NULL), LARDER_OK);
    ck_assert_int_eq(larder_cas(map, "k", 1, "3", 1, &seen, NULL), LARDER_CONFLICT); /* used up */
    ck_assert_str_eq(maps_get(map, "k"), "2");
    ck_assert_int_eq(maps_delete(map, "k"), LARDER_OK);
    ck_assert_int_eq(larder_cas(map, "k", 1, "4", 1, &seen, NULL), LARDER_MISS);
    ck_assert_ptr_null(maps_get(map, "k"));
}
END_TEST

START_TEST(times_to_live_end_to_the_millisecond)
{
    larder_policy past = {.expiry = larder_expire_at(clock_wall_ms() - 1)};
    larder_policy soon = {.expiry = larder_expire_in(20)};
    larder_expiry later = larder_expire_in(100000);
    ck_assert_int_eq(maps_set(map, "k", "old"), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "k", 1, "new", 3, &past), LARDER_OK); /* a delete */
    ck_assert_ptr_null(maps_get(map, "k"));
    ck_assert_uint_eq(maps_stats(map).entries, 0);
    ck_assert_int_eq(larder_set(map, "k", 1, "new", 3, &soon), LARDER_OK);
    int64_t expires = maps_info(map, "k").expires_ms;
    ck_assert_int_le(expires, clock_wall_ms() + 20);
    int result;
    int64_t before, after;
    do {
        before = clock_wall_ms();
        result = maps_has(map, "k");
        after = clock_wall_ms();
        ck_assert(result == LARDER_OK ? before < expires : after >= expires);
    } while (result == LARDER_OK);
    ck_assert_int_eq(larder_touch(map, "k", 1, &later), LARDER_MISS); /* too late */
    ck_assert_int_eq(larder_replace(map, "k", 1, "x", 1, NULL), LARDER_MISS);
    ck_assert_int_eq(larder_add(map, "k", 1, "again", 5, NULL), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "k"), "again");
}
END_TEST

START_TEST(touch_changes_the_expiry_alone)
{
    static char value[30000];
    memset(value, 'v', sizeof value);
    larder_expiry expiry = larder_expire_in(100000), never = larder_expire_never();
    larder_expiry past = larder_expire_at(1), bad = larder_expire_in(-1);
    const size_t sizes[] = {0, 10, 4096, 4097, sizeof value};
    char *got = malloc(sizeof value);
    ck_assert_ptr_nonnull(got);
    ck_assert_int_eq(larder_touch(map, "k", 1, &expiry), LARDER_MISS);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        larder_info before, after;
        ck_assert_int_eq(larder_set(map, "k", 1, value, sizes[i], NULL), LARDER_OK);
        ck_assert_int_eq(larder_get(map, "k", 1, got, sizeof value, &before), LARDER_OK);
        ck_assert_int_eq(larder_touch(map, "k", 1, &expiry), LARDER_OK);
        ck_assert_int_eq(larder_get(map, "k", 1, got, sizeof value, &after), LARDER_OK);
        ck_assert_uint_eq(after.size, sizes[i]);
        ck_assert_mem_eq(got, value, sizes[i]);
        ck_assert_int_eq(after.created_ms, before.created_ms);
        ck_assert_uint_gt(after.version.clock, before.version.clock);
        ck_assert_int_lt(after.expires_ms, INT64_MAX);
        ck_assert_int_gt(after.expires_ms, clock_wall_ms() + 90000);
        ck_assert_int_eq(larder_touch(map, "k", 1, &never), LARDER_OK);
        ck_assert_int_eq(larder_get(map, "k", 1, got, sizeof value, &after), LARDER_OK);
        ck_assert_int_eq(after.expires_ms, INT64_MAX);
        FAILS(LARDER_EINVAL, "-1 ms", larder_touch(map, "k", 1, &bad));
        ck_assert_int_eq(larder_touch(map, "k", 1, &past), LARDER_OK); /* a delete */
        ck_assert_int_eq(maps_has(map, "k"), LARDER_MISS);
    }
    larder_policy negative = {.flags = LARDER_NEGATIVE};
    ck_assert_int_eq(larder_set(map, "n", 1, NULL, 0, &negative), LARDER_OK);
    ck_assert_int_eq(larder_touch(map, "n", 1, &expiry), LARDER_OK);
    ck_assert_int_eq(maps_has(map, "n"), LARDER_ABSENT);
    free(got);
}
END_TEST

START_TEST(counters)
{
    int64_t number = 0;
    larder_policy expiring = {.expiry = larder_expire_in(100000)};
    larder_policy negative = {.flags = LARDER_NEGATIVE};
    ck_assert_int_eq(larder_incr(map, "c", 1, 5, &number, NULL), LARDER_OK); /* from 0 */
    ck_assert_int_eq(number, 5);
    ck_assert_int_eq(larder_incr(map, "c", 1, -7, &number, NULL), LARDER_OK);
    ck_assert_int_eq(number, -2);
    ck_assert_str_eq(maps_get(map, "c"), "-2");
    ck_assert_int_eq(larder_incr(map, "c", 1, 0, NULL, &expiring), LARDER_OK);
    int64_t expires = maps_info(map, "c").expires_ms;
    ck_assert_int_lt(expires, INT64_MAX);
    ck_assert_int_eq(larder_incr(map, "c", 1, 1, NULL, NULL), LARDER_OK);
    ck_assert_int_eq(maps_info(map, "c").expires_ms, expires); /* kept */
    ck_assert_str_eq(maps_get(map, "c"), "-1");
    FAILS(LARDER_EINVAL, "counter", larder_incr(map, "c", 1, 1, NULL, &negative));

    ck_assert_int_eq(maps_set(map, "c", "9223372036854775806"), LARDER_OK);
    ck_assert_int_eq(larder_incr(map, "c", 1, 1, &number, NULL), LARDER_OK);
    ck_assert_int_eq(number, INT64_MAX);
    number = 77;
    FAILS(LARDER_EOVERFLOW, "9223372036854775807", larder_incr(map, "c", 1, 1, &number, NULL));
    ck_assert_int_eq(number, 77);
    ck_assert_str_eq(maps_get(map, "c"), "9223372036854775807");
    ck_assert_int_eq(larder_incr(map, "c", 1, INT64_MIN, &number, NULL), LARDER_OK);
    ck_assert_int_eq(number, -1);
    ck_assert_int_eq(larder_incr(map, "c", 1, INT64_MIN + 1, &number, NULL), LARDER_OK);
    ck_assert_int_eq(number, INT64_MIN);
    FAILS(LARDER_EOVERFLOW, "-9223372036854775808", larder_incr(map, "c", 1, -1, &number, NULL));
    ck_assert_str_eq(maps_get(map, "c"), "-9223372036854775808");

    static const char *const texts[] = {"",
                                        " 1",
                                        "1 ",
                                        "+1",
                                        "-",
                                        "--1",
                                        "01",
                                        "-0",
                                        "1.5",
                                        "0x1",
                                        "1\n",
                                        "a",
                                        "-01",
                                        "9223372036854775808",
                                        "-9223372036854775809",
                                        "100000000000000000000000000"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        ck_assert_int_eq(maps_set(map, "c", texts[i]), LARDER_OK);
        FAILS(LARDER_ENUMBER, "64-bit", larder_incr(map, "c", 1, 1, &number, NULL));
        ck_assert_str_eq(maps_get(map, "c"), texts[i]);
    }
    ck_assert_int_eq(larder_set(map, "c", 1, "1\0", 2, NULL), LARDER_OK);
    FAILS(LARDER_ENUMBER, "64-bit", larder_incr(map, "c", 1, 1, &number, NULL));
    static char chunked[10000];
    memset(chunked, '1', sizeof chunked);
    ck_assert_int_eq(larder_set(map, "c", 1, chunked, sizeof chunked, NULL), LARDER_OK);
    FAILS(LARDER_ENUMBER, "64-bit", larder_incr(map, "c", 1, 1, &number, NULL));
    ck_assert_int_eq(maps_set(map, "c", "0"), LARDER_OK);
    ck_assert_int_eq(larder_incr(map, "c", 1, 1, &number, NULL), LARDER_OK);
    ck_assert_int_eq(number, 1);
    /* known absent counts from 0; so does one that has expired, with no expiry of its past */
    ck_assert_int_eq(larder_set(map, "c", 1, NULL, 0, &negative), LARDER_OK);
    ck_assert_int_eq(larder_incr(map, "c", 1, 3, &number, NULL), LARDER_OK);
    ck_assert_int_eq(number, 3);
    larder_policy soon = {.expiry = larder_expire_in(1)};
    ck_assert_int_eq(larder_set(map, "c", 1, "50", 2, &soon), LARDER_OK);
    int64_t until = clock_wall_ms() + 2;
    while (!clock_expired(until)) {
    }
    ck_assert_int_eq(larder_incr(map, "c", 1, 3, &number, NULL), LARDER_OK);
    ck_assert_int_eq(number, 3);
    ck_assert_int_eq(maps_info(map, "c").expires_ms, INT64_MAX);
}
END_TEST

START_TEST(many_keys_are_one_commit)
{
    enum { COUNT = 500 };
    static char keys[COUNT][8];
    static larder_item items[COUNT];
    for (int i = 0; i < COUNT; i++) {
        int size = snprintf(keys[i], sizeof keys[i], "k%d", i % 490); /* some twice */
        items[i] = (larder_item){
            .key = keys[i], .key_size = (size_t)size, .value = keys[i], .value_size = (size_t)size};
    }
    uint64_t before = maps_stats(map).log_rows;
    ck_assert_int_eq(larder_set_many(map, items, COUNT, NULL), LARDER_OK);
    ck_assert_uint_eq(maps_stats(map).entries, 490);
    ck_assert_uint_eq(maps_stats(map).log_rows, before + 490);
    ck_assert_uint_eq(maps_stats(map).sets, COUNT);
    for (int i = 0; i < COUNT; i++) {
        ck_assert_int_eq(items[i].outcome, LARDER_OK);
        ck_assert_str_eq(maps_get(map, keys[i]), keys[i]);
    }
    ck_assert_int_eq(larder_delete_many(map, items, COUNT), LARDER_OK);
    for (int i = 0; i < COUNT; i++) { /* the second of a pair finds it gone */
        ck_assert_int_eq(items[i].outcome, i < 490 ? LARDER_OK : LARDER_MISS);
    }
    ck_assert_uint_eq(maps_stats(map).entries, 0);
}
END_TEST

START_TEST(a_read_only_handle_writes_nothing)
{
    larder *writing = maps_open("readonly", MAPS_SIZE, 0);
    ck_assert_int_eq(maps_set(writing, "k", "1"), LARDER_OK);
    larder *reading = maps_open("readonly", 0, LARDER_READ_ONLY);
    larder_expiry never = larder_expire_never();
    larder_item item = {.key = "k", .key_size = 1, .value = "2", .value_size = 1};
    larder_version version = maps_info(reading, "k").version;
    int64_t number;
    FAILS(LARDER_EREADONLY, "read-only", maps_set(reading, "k", "2"));
    FAILS(LARDER_EREADONLY, "read-only", maps_delete(reading, "k"));
    FAILS(LARDER_EREADONLY, "read-only", larder_add(reading, "n", 1, "2", 1, NULL));
    FAILS(LARDER_EREADONLY, "read-only", larder_replace(reading, "k", 1, "2", 1, NULL));
    FAILS(LARDER_EREADONLY, "read-only", larder_cas(reading, "k", 1, "2", 1, &version, NULL));
    FAILS(LARDER_EREADONLY, "read-only", larder_touch(reading, "k", 1, &never));
    FAILS(LARDER_EREADONLY, "read-only", larder_incr(reading, "k", 1, 1, &number, NULL));
    FAILS(LARDER_EREADONLY, "read-only", larder_set_many(reading, &item, 1, NULL));
    FAILS(LARDER_EREADONLY, "read-only", larder_delete_many(reading, &item, 1));
    ck_assert_str_eq(maps_get(reading, "k"), "1");
    ck_assert_uint_eq(maps_stats(writing).pending, 0);
    larder_close(&reading);
    larder_close(&writing);
}
END_TEST

START_TEST(a_busy_gate_refuses_within_the_deadline)
{
    int64_t number = 77;
    larder_expiry never = larder_expire_never(), past = larder_expire_at(1);
    ck_assert_int_eq(maps_set(map, "c", "5"), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "v", "5"), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "r", "5"), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "t", "5"), LARDER_OK);
    larder_version version = maps_info(map, "v").version, other = version;
    struct maps_holder holder = maps_hold(&maps_control(map)->write_gate);
    int64_t began = harness_now_ms();
    FAILS(LARDER_EBUSY, "write gate", larder_incr(map, "c", 1, 1, &number, NULL));
    ck_assert_int_eq(number, 77);
    FAILS(LARDER_EBUSY, "write gate", larder_touch(map, "c", 1, &never));
    ck_assert_str_eq(maps_get(map, "c"), "5"); /* what was refused changed nothing */
    other.clock++;
    FAILS(LARDER_EBUSY, "write gate", larder_cas(map, "v", 1, "6", 1, &other, NULL));
    ck_assert_str_eq(maps_get(map, "v"), "5");
    FAILS(LARDER_EBUSY, "write gate", larder_cas(map, "v", 1, "6", 1, &version, NULL));
    ck_assert_ptr_null(maps_get(map, "v")); /* it would have been replaced */
    FAILS(LARDER_EBUSY, "write gate", larder_replace(map, "r", 1, "6", 1, NULL));
    ck_assert_ptr_null(maps_get(map, "r"));
    ck_assert_int_eq(larder_touch(map, "t", 1, &past), LARDER_OK); /* a delete is never refused */
    ck_assert_ptr_null(maps_get(map, "t"));
    ck_assert_int_ge(harness_now_ms() - began, 290);
    ck_assert_int_le(harness_now_ms() - began, 300 + harness_patience(2000));
    maps_let_go(&holder);
    ck_assert_uint_eq(maps_stats(map).refused_busy, 6);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("write");
    TCase *tests = tcase_create("write");
    tcase_set_timeout(tests, 30);
    tcase_add_checked_fixture(tests, open_map, close_map);
    tcase_add_test(tests, set_get_delete);
    tcase_add_test(tests, arguments_that_are_none);
    tcase_add_test(tests, policies_that_are_not_valid);
    tcase_add_test(tests, a_value_over_the_limit_is_refused_and_the_old_one_not_served);
    tcase_add_test(tests, add_and_replace);
    tcase_add_test(tests, compare_and_swap);
    tcase_add_test(tests, times_to_live_end_to_the_millisecond);
    tcase_add_test(tests, touch_changes_the_expiry_alone);
    tcase_add_test(tests, counters);
    tcase_add_test(tests, many_keys_are_one_commit);
    tcase_add_test(tests, a_read_only_handle_writes_nothing);
    tcase_add_test(tests, a_busy_gate_refuses_within_the_deadline);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
