/* test_touch.c: what time does to an entry on the map: fresh and stale, sliding, get-and-extend,
 * jitter, longest life, negative entries of their own life. Times are made short by turning the
 * record's own clock back, not by waiting.
 */
#include "touch.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "policy.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"
#include "upkeep.h"
#include "writer.h"

enum { HOUR = 3600000 };

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

static void set_with(const char *key, larder_policy policy)
{
    ck_assert_int_eq(larder_set(map, key, strlen(key), "value", 5, &policy), LARDER_OK);
}

/* As if ms had passed: all times of the record that much earlier. */
static void age(const char *text, int64_t ms)
{
    struct writer writer;
    struct key key;
    struct record old, changed;
    ck_assert_int_eq(key_make(&key, text, strlen(text)), LARDER_OK);
    ck_assert_int_eq(writer_begin(&writer, map, 1000), LARDER_OK);
    ck_assert_int_eq(entry_find(&writer.transaction, &key, &old), LARDER_OK);
    changed = old;
    changed.created_ms = record_created_ms(&old) - ms;
    changed.expires_at_ms -= old.expires_at_ms != CLOCK_NEVER ? ms : 0;
    changed.stale_until_ms -= old.stale_until_ms != 0 ? ms : 0;
    changed.limit_ms -= old.limit_ms != 0 ? ms : 0;
    ck_assert_int_eq(entry_retime(&writer, &key, &old, &changed), LARDER_OK);
    ck_assert_int_eq(writer_commit(&writer), LARDER_OK);
}

static int get_with(const char *key, larder_read read, larder_info *info)
{
    char buffer[64];
    return larder_get_with(map, key, strlen(key), buffer, sizeof buffer, info, &read);
}

/* Looks without touching anything. */
static larder_info peek(const char *key)
{
    larder_info info;
    ck_assert_int_eq(get_with(key, (larder_read){.flags = LARDER_PEEK}, &info), LARDER_OK);
    return info;
}

START_TEST(fresh_then_stale_then_gone)
{
    const larder_read accept = {.flags = LARDER_ACCEPT_STALE};
    larder_info info;
    set_with("k", (larder_policy){.expiry = larder_expire_in(HOUR), .stale_ms = HOUR});
    ck_assert_int_eq(get_with("k", accept, &info), LARDER_OK); /* fresh to them, too */
    ck_assert_int_eq(info.stale_until_ms, info.expires_ms + HOUR);
    age("k", HOUR);
    ck_assert_int_eq(maps_has(map, "k"), LARDER_MISS);
    ck_assert_ptr_null(maps_get(map, "k"));
    ck_assert_int_eq(get_with("k", accept, &info), LARDER_STALE);
    ck_assert_uint_eq(info.size, 5);
    upkeep_step step = {0};
    ck_assert_int_eq(upkeep_expire(map, &step, 100, 0), LARDER_OK);
    ck_assert_uint_eq(step.removed, 0); /* it may still be served */
    ck_assert_int_eq(larder_add(map, "k", 1, "new", 3, NULL), LARDER_OK); /* stale is not there */
    set_with("k", (larder_policy){.expiry = larder_expire_in(HOUR), .stale_ms = HOUR});
    age("k", 2 * HOUR);
    ck_assert_int_eq(get_with("k", accept, &info), LARDER_MISS);
    step = (upkeep_step){0};
    ck_assert_int_eq(upkeep_expire(map, &step, 100, 0), LARDER_OK);
    ck_assert_uint_eq(step.removed, 1);
    ck_assert_uint_eq(maps_stats(map).expirations, 1);
}
END_TEST

START_TEST(negative_knowledge_is_never_stale_and_has_its_own_life)
{
    larder_policy policy = {
        .expiry = larder_expire_in(HOUR), .stale_ms = HOUR, .flags = LARDER_NEGATIVE};
    larder_info info;
    ck_assert_int_eq(larder_set(map, "k", 1, NULL, 0, &policy), LARDER_OK);
    ck_assert_int_eq(get_with("k", (larder_read){.flags = 0}, &info), LARDER_ABSENT);
    ck_assert_int_gt(info.expires_ms, clock_wall_ms());
    age("k", HOUR);
    ck_assert_int_eq(get_with("k", (larder_read){.flags = LARDER_ACCEPT_STALE}, &info),
                     LARDER_MISS);
}
END_TEST

START_TEST(a_read_extends_a_sliding_entry_once_a_quarter)
{
    set_with("k", (larder_policy){.expiry = larder_expire_sliding(HOUR)});
    larder_info first = peek("k");
    ck_assert_uint_eq(first.flags & LARDER_INFO_SLIDING, LARDER_INFO_SLIDING);
    ck_assert_ptr_nonnull(maps_get(map, "k"));
    ck_assert_uint_eq(peek("k").version.clock, first.version.clock); /* too early to write */
    age("k", HOUR / 4);
    first = peek("k");
    ck_assert_int_eq(maps_has(map, "k"), LARDER_OK);
    ck_assert_int_eq(peek("k").expires_ms, first.expires_ms); /* asking is no reading */
    ck_assert_str_eq(maps_get(map, "k"), "value");
    larder_info second = peek("k");
    ck_assert_int_ge(second.expires_ms, first.expires_ms + HOUR / 4);
    ck_assert_uint_gt(second.version.clock, first.version.clock);
    ck_assert_int_eq(second.created_ms, first.created_ms);
    for (int i = 0; i < 100; i++) {
        ck_assert_ptr_nonnull(maps_get(map, "k"));
    }
    ck_assert_uint_eq(peek("k").version.clock, second.version.clock);
    ck_assert_uint_eq(maps_stats(map).slides, 1);
    age("k", HOUR);
    ck_assert_ptr_null(maps_get(map, "k")); /* not read for so long */
}
END_TEST

static void read_alloc(void)
{
    void *value;
    size_t size;
    ck_assert_int_eq(larder_get_alloc(map, "k", 1, &value, &size, NULL), LARDER_OK);
    larder_free(value);
}

static void read_view(void)
{
    larder_view view;
    ck_assert_int_eq(larder_borrow(map, "k", 1, &view), LARDER_OK);
    larder_release(map, &view);
}

static void read_many(void)
{
    void *memory;
    larder_item item = {.key = "k", .key_size = 1};
    ck_assert_int_eq(larder_get_many(map, &item, 1, &memory), LARDER_OK);
    ck_assert_int_eq(item.outcome, LARDER_OK);
    larder_free(memory);
}

START_TEST(every_kind_of_read_extends)
{
    void (*const reads[])(void) = {read_alloc, read_view, read_many};
    for (size_t i = 0; i < sizeof reads / sizeof reads[0]; i++) {
        set_with("k", (larder_policy){.expiry = larder_expire_sliding(HOUR)});
        age("k", HOUR / 2);
        int64_t before = peek("k").expires_ms;
        reads[i]();
        ck_assert_int_ge(peek("k").expires_ms, before + HOUR / 2);
    }
}
END_TEST

START_TEST(a_large_sliding_value_stays_where_it_is)
{
    static uint8_t large[100000], back[100000];
    memset(large, 'x', sizeof large);
    larder_policy policy = {.expiry = larder_expire_sliding(HOUR)};
    ck_assert_int_eq(larder_set(map, "k", 1, large, sizeof large, &policy), LARDER_OK);
    age("k", HOUR / 2);
    uint64_t chunks = maps_stats(map).used_bytes;
    ck_assert_int_eq(larder_get(map, "k", 1, back, sizeof back, NULL), LARDER_OK);
    ck_assert_int_eq(larder_get(map, "k", 1, back, sizeof back, NULL), LARDER_OK);
    ck_assert_mem_eq(back, large, sizeof large);
    ck_assert_uint_le(maps_stats(map).used_bytes, chunks + 16 * 4096);
    ck_assert_uint_eq(maps_stats(map).slides, 1);
}
END_TEST

/* A record that fills its leaf's node to the last byte: the time of creation no longer fits. */
START_TEST(a_record_that_grows_over_its_node_moves_out)
{
    static uint8_t value[RECORD_NODE_MAX], back[RECORD_NODE_MAX];
    larder_expiry hour = larder_expire_in(HOUR);
    memset(value, 'x', sizeof value);
    for (size_t size = RECORD_NODE_MAX - 60; size < RECORD_NODE_MAX - 20; size++) {
        larder_policy policy = {.group = {"g", 1}};
        ck_assert_int_eq(larder_set(map, "k", 1, value, size, &policy), LARDER_OK);
        ck_assert_int_eq(larder_touch(map, "k", 1, &hour), LARDER_OK);
        ck_assert_int_eq(larder_get(map, "k", 1, back, sizeof back, NULL), LARDER_OK);
        ck_assert_mem_eq(back, value, size);
        maps_whole(map);
        ck_assert_int_eq(larder_invalidate_group(map, (larder_bytes){"g", 1}, NULL), LARDER_OK);
        ck_assert_int_eq(maps_has(map, "k"), LARDER_MISS);
    }
}
END_TEST

START_TEST(an_extension_that_is_refused_is_tried_again)
{
    set_with("k", (larder_policy){.expiry = larder_expire_sliding(HOUR)});
    age("k", HOUR / 2);
    int64_t before = peek("k").expires_ms;
    struct maps_holder holder = maps_hold(&maps_control(map)->write_gate);
    int64_t began = harness_now_ms();
    for (int i = 0; i < 10; i++) {
        ck_assert_str_eq(maps_get(map, "k"), "value");
    }
    ck_assert_int_le(harness_now_ms() - began, harness_patience(400)); /* ten waits were 500 */
    ck_assert_int_eq(peek("k").expires_ms, before);
    maps_let_go(&holder);
    ck_assert_str_eq(maps_get(map, "k"), "value");
    ck_assert_int_gt(peek("k").expires_ms, before);
}
END_TEST

START_TEST(a_read_only_handle_extends_nothing)
{
    larder *reader = NULL;
    char buffer[16];
    larder_read extend = {.flags = LARDER_EXTEND, .extend = larder_expire_in(HOUR)};
    larder_options options = {.dir = harness_directory(), .flags = LARDER_READ_ONLY};
    set_with("k", (larder_policy){.expiry = larder_expire_sliding(HOUR)});
    age("k", HOUR / 2);
    int64_t before = peek("k").expires_ms;
    ck_assert_int_eq(larder_open(strrchr(map->map->path, '/') + 1, &options, &reader), LARDER_OK);
    ck_assert_int_eq(larder_get(reader, "k", 1, buffer, sizeof buffer, NULL), LARDER_OK);
    ck_assert_int_eq(larder_get_with(reader, "k", 1, buffer, sizeof buffer, NULL, &extend),
                     LARDER_EREADONLY);
    larder_close(&reader);
    ck_assert_int_eq(peek("k").expires_ms, before);
}
END_TEST

START_TEST(the_longest_life_ends_a_sliding_one)
{
    set_with("k", (larder_policy){.expiry = larder_expire_sliding(HOUR),
                                  .max_lifetime_ms = HOUR + HOUR / 2});
    age("k", HOUR * 3 / 4);
    ck_assert_str_eq(maps_get(map, "k"), "value");
    larder_info info = peek("k");
    ck_assert_int_le(info.expires_ms, info.created_ms + HOUR + HOUR / 2 + 1);
    larder_expiry never = larder_expire_never();
    ck_assert_int_eq(larder_touch(map, "k", 1, &never), LARDER_OK); /* nor does a touch exceed it */
    ck_assert_int_le(peek("k").expires_ms, info.created_ms + HOUR + HOUR / 2 + 1);
    age("k", HOUR * 3 / 4);
    ck_assert_ptr_null(maps_get(map, "k"));
}
END_TEST

START_TEST(get_and_extend)
{
    larder_info info;
    larder_read extend = {.flags = LARDER_EXTEND, .extend = larder_expire_in(2 * HOUR)};
    set_with("k", (larder_policy){.expiry = larder_expire_in(HOUR), .stale_ms = 1000});
    int64_t before = clock_wall_ms();
    ck_assert_int_eq(get_with("k", extend, &info), LARDER_OK);
    ck_assert_int_ge(info.expires_ms, before + 2 * HOUR);
    ck_assert_int_eq(peek("k").expires_ms, info.expires_ms);
    ck_assert_int_eq(peek("k").stale_until_ms, info.expires_ms + 1000);
    ck_assert_int_eq(get_with("none", extend, &info), LARDER_MISS);
    /* without an expiry of its own: what the entry has */
    extend.extend = (larder_expiry){0};
    ck_assert_int_eq(get_with("k", extend, &info), LARDER_OK);
    int64_t unchanged = peek("k").expires_ms;
    ck_assert_int_eq(info.expires_ms, unchanged);
    set_with("s", (larder_policy){.expiry = larder_expire_sliding(HOUR)});
    age("s", 60000); /* no quarter of an hour */
    before = clock_wall_ms();
    ck_assert_int_eq(get_with("s", extend, &info), LARDER_OK);
    ck_assert_int_ge(peek("s").expires_ms, before + HOUR);
    ck_assert_uint_ne(peek("s").flags & LARDER_INFO_SLIDING, 0);
    /* the gate is busy: the value comes, the expiry stays */
    extend.extend = larder_expire_in(9 * HOUR);
    struct maps_holder holder = maps_hold(&maps_control(map)->write_gate);
    ck_assert_int_eq(get_with("k", extend, &info), LARDER_OK);
    maps_let_go(&holder);
    ck_assert_int_eq(info.expires_ms, unchanged);
    ck_assert_int_eq(peek("k").expires_ms, unchanged);
}
END_TEST

START_TEST(a_touch_chooses_between_sliding_and_fixed)
{
    larder_expiry fixed = larder_expire_in(HOUR), sliding = larder_expire_sliding(HOUR);
    set_with("k", (larder_policy){.expiry = sliding});
    ck_assert_int_eq(larder_touch(map, "k", 1, &fixed), LARDER_OK);
    ck_assert_uint_eq(peek("k").flags & LARDER_INFO_SLIDING, 0);
    ck_assert_int_eq(larder_touch(map, "k", 1, &sliding), LARDER_OK);
    ck_assert_uint_ne(peek("k").flags & LARDER_INFO_SLIDING, 0);
    sliding.ms = -1;
    ck_assert_int_eq(larder_touch(map, "k", 1, &sliding), LARDER_EINVAL);
    sliding.ms = INT64_MAX;
    ck_assert_int_eq(larder_touch(map, "k", 1, &sliding), LARDER_EOVERFLOW);
    ck_assert_uint_ne(peek("k").flags & LARDER_INFO_SLIDING, 0);
    /* the time that it may be stale for does not fit behind the last moment: nothing changes */
    set_with("k", (larder_policy){.expiry = fixed, .stale_ms = HOUR});
    larder_expiry last = larder_expire_at(INT64_MAX - 5);
    ck_assert_int_eq(larder_touch(map, "k", 1, &last), LARDER_EOVERFLOW);
    ck_assert_int_eq(maps_has(map, "k"), LARDER_OK);
}
END_TEST

START_TEST(jitter_spreads_what_was_written_together)
{
    larder_policy policy = {.expiry = larder_expire_in(HOUR), .jitter_ms = HOUR / 2};
    int64_t earliest = INT64_MAX, latest = 0;
    for (int i = 0; i < 100; i++) {
        set_with("k", policy);
        int64_t now = clock_wall_ms(), expires = peek("k").expires_ms;
        ck_assert_int_le(expires, now + HOUR);
        ck_assert_int_ge(expires, now + HOUR / 2 - harness_patience(1000));
        earliest = expires < earliest ? expires : earliest;
        latest = expires > latest ? expires : latest;
    }
    ck_assert_int_gt(latest - earliest, HOUR / 8);
}
END_TEST

START_TEST(flags_that_make_no_sense)
{
    larder_info info;
    set_with("k", (larder_policy){.stale_ms = 0});
    ck_assert_int_eq(get_with("k", (larder_read){.flags = LARDER_PEEK | LARDER_EXTEND}, &info),
                     LARDER_EINVAL);
    ck_assert_int_eq(get_with("k", (larder_read){.extend = larder_expire_in(5)}, &info),
                     LARDER_EINVAL);
    ck_assert_int_eq(
        get_with("k", (larder_read){.flags = LARDER_EXTEND, .extend = larder_expire_in(-5)}, &info),
        LARDER_EINVAL);
    ck_assert_int_eq(get_with("k", (larder_read){.flags = 1u << 3}, &info), LARDER_EINVAL);
    ck_assert_int_eq(get_with("k", (larder_read){.reserved = {0, 0, 1}}, &info), LARDER_EINVAL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("touch");
    TCase *tests = tcase_create("touch");
    tcase_set_timeout(tests, 20);
    tcase_add_checked_fixture(tests, open_map, close_map);
    tcase_add_test(tests, fresh_then_stale_then_gone);
    tcase_add_test(tests, negative_knowledge_is_never_stale_and_has_its_own_life);
    tcase_add_test(tests, a_read_extends_a_sliding_entry_once_a_quarter);
    tcase_add_test(tests, every_kind_of_read_extends);
    tcase_add_test(tests, a_large_sliding_value_stays_where_it_is);
    tcase_add_test(tests, a_record_that_grows_over_its_node_moves_out);
    tcase_add_test(tests, an_extension_that_is_refused_is_tried_again);
    tcase_add_test(tests, a_read_only_handle_extends_nothing);
    tcase_add_test(tests, the_longest_life_ends_a_sliding_one);
    tcase_add_test(tests, get_and_extend);
    tcase_add_test(tests, a_touch_chooses_between_sliding_and_fixed);
    tcase_add_test(tests, jitter_spreads_what_was_written_together);
    tcase_add_test(tests, flags_that_make_no_sense);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
