/* test_scan.c: walking live entries: order, prefixes of any bytes, resuming, long keys, and what is
 * not shown.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "removal.h"
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

static void set(const void *key, size_t size)
{
    ck_assert_int_eq(larder_set(map, key, size, key, size, NULL), LARDER_OK);
}

/* All keys of the prefix, page by page, with a blank between; good until the next call. */
static const char *scan(const char *prefix, size_t page)
{
    static char text[4096];
    size_t used = 0, found;
    larder_cursor cursor = {0};
    larder_item items[64];
    text[0] = '\0';
    do {
        void *memory;
        ck_assert_int_eq(larder_scan(map, &cursor, (larder_bytes){prefix, strlen(prefix)}, items,
                                     page, LARDER_SCAN_VALUES, &found, &memory),
                         LARDER_OK);
        ck_assert_uint_le(found, page);
        for (size_t i = 0; i < found; i++) {
            ck_assert_uint_eq(items[i].key_size, items[i].value_size);
            ck_assert_mem_eq(items[i].key, items[i].value, items[i].key_size);
            used +=
                (size_t)snprintf(text + used, sizeof text - used, "%s%.*s", used == 0 ? "" : " ",
                                 (int)items[i].key_size, (const char *)items[i].key);
        }
        larder_free(memory);
    } while (found > 0);
    return text;
}

START_TEST(keys_come_in_byte_order_whatever_the_page)
{
    static const char *const keys[] = {"b", "a", "ab", "a:b", "B", "z", "aa", "a\xff"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        set(keys[i], strlen(keys[i]));
    }
    for (size_t page = 1; page < 10; page++) {
        ck_assert_str_eq(scan("", page), "B a a:b aa ab a\xff b z");
        ck_assert_str_eq(scan("a", page), "a a:b aa ab a\xff");
        ck_assert_str_eq(scan("ab", page), "ab");
        ck_assert_str_eq(scan("a\xff", page), "a\xff");
        ck_assert_str_eq(scan("c", page), "");
        ck_assert_str_eq(scan("zz", page), "");
    }
}
END_TEST

START_TEST(binary_prefixes)
{
    const uint8_t keys[][3] = {
        {0, 0, 0}, {0, 0, 1}, {0, 1, 0}, {0xff, 0xff, 0}, {0xff, 0xff, 0xff}};
    const struct {
        const char *prefix;
        size_t size, count;
    } cases[] = {{"\0", 1, 3},       {"\0\0", 2, 2},         {"\0\0\1", 3, 1}, {"\xff", 1, 2},
                 {"\xff\xff", 2, 2}, {"\xff\xff\xff", 3, 1}, {"\1", 1, 0},     {"\xfe", 1, 0}};
    for (size_t i = 0; i < 5; i++) {
        set(keys[i], 3);
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        larder_cursor cursor = {0};
        larder_item items[8];
        size_t found;
        void *memory;
        ck_assert_int_eq(larder_scan(map, &cursor, (larder_bytes){cases[i].prefix, cases[i].size},
                                     items, 8, 0, &found, &memory),
                         LARDER_OK);
        ck_assert_uint_eq(found, cases[i].count);
        for (size_t at = 0; at < found; at++) {
            ck_assert_mem_eq(items[at].key, cases[i].prefix, cases[i].size);
            ck_assert_ptr_null(items[at].value); /* keys alone were asked for */
            ck_assert_uint_eq(items[at].info.size, 3);
        }
        larder_free(memory);
    }
}
END_TEST

START_TEST(long_keys_are_found_by_any_part)
{
    enum { SIZE = 600 };
    static char key[SIZE], prefix[SIZE + 1];
    larder_item items[20];
    size_t found, sizes[] = {0, 1, 493, 494, 495, 510, 598, 599};
    memset(key, 'k', sizeof key);
    for (int i = 0; i < 10; i++) {
        key[SIZE - 1] = (char)('0' + i);
        set(key, SIZE);
    }
    set(key, 500); /* a plain one among them */
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        void *memory;
        larder_cursor cursor = {0};
        memset(prefix, 'k', sizes[i]);
        ck_assert_int_eq(larder_scan(map, &cursor, (larder_bytes){prefix, sizes[i]}, items, 20, 0,
                                     &found, &memory),
                         LARDER_OK);
        ck_assert_uint_eq(found, sizes[i] <= 500 ? 11 : 10);
        larder_free(memory);
    }
    void *memory;
    larder_cursor cursor = {0};
    memset(prefix, 'k', SIZE);
    prefix[SIZE - 1] = '7';
    ck_assert_int_eq(
        larder_scan(map, &cursor, (larder_bytes){prefix, SIZE}, items, 20, 0, &found, &memory),
        LARDER_OK);
    ck_assert_uint_eq(found, 1);
    ck_assert_uint_eq(items[0].key_size, SIZE);
    ck_assert_mem_eq(items[0].key, prefix, SIZE);
    larder_free(memory);
}
END_TEST

START_TEST(what_is_dead_is_not_shown_what_is_absent_is)
{
    larder_policy negative = {.flags = LARDER_NEGATIVE}, soon = {.expiry = larder_expire_in(1)};
    larder_item items[8];
    larder_cursor cursor = {0};
    size_t found;
    void *memory;
    set("a", 1);
    set("b", 1);
    set("e", 1);
    set("f", 1);
    ck_assert_int_eq(larder_set(map, "c", 1, NULL, 0, &negative), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "d", 1, "d", 1, &soon), LARDER_OK);
    ck_assert_int_eq(maps_delete(map, "b"), LARDER_OK);
    struct key key;
    ck_assert_int_eq(key_make(&key, "e", 1), LARDER_OK);
    ck_assert(!removal_pend(maps_control(map), &key, clock_next(maps_control(map))));
    ck_assert_int_eq(key_make(&key, "f", 1), LARDER_OK);
    removal_raise_barrier(maps_control(map), key.hash, clock_next(maps_control(map)).clock);
    int64_t until = clock_wall_ms() + 2;
    while (!clock_expired(until)) {
    }
    ck_assert_int_eq(
        larder_scan(map, &cursor, (larder_bytes){NULL, 0}, items, 8, 0, &found, &memory),
        LARDER_OK);
    ck_assert_uint_eq(found, 2);
    ck_assert_mem_eq(items[0].key, "a", 1);
    ck_assert_int_eq(items[0].outcome, LARDER_OK);
    ck_assert_mem_eq(items[1].key, "c", 1);
    ck_assert_int_eq(items[1].outcome, LARDER_ABSENT);
    larder_free(memory);
}
END_TEST

START_TEST(a_walk_goes_on_over_changes)
{
    static const char *const keys[] = {"a", "b", "c", "d", "e"};
    larder_item items[2];
    larder_cursor cursor = {0}, copy;
    size_t found;
    void *memory;
    for (size_t i = 0; i < 5; i++) {
        set(keys[i], 1);
    }
    ck_assert_int_eq(
        larder_scan(map, &cursor, (larder_bytes){NULL, 0}, items, 2, 0, &found, &memory),
        LARDER_OK);
    ck_assert_mem_eq(items[1].key, "b", 1);
    larder_free(memory);
    copy = cursor;                                      /* plain bytes */
    ck_assert_int_eq(maps_delete(map, "b"), LARDER_OK); /* where it stands */
    ck_assert_int_eq(maps_delete(map, "c"), LARDER_OK);
    set("bb", 2);
    set("aa", 2); /* behind it */
    ck_assert_int_eq(larder_scan(map, &copy, (larder_bytes){NULL, 0}, items, 2, 0, &found, &memory),
                     LARDER_OK);
    ck_assert_uint_eq(found, 2);
    ck_assert_mem_eq(items[0].key, "bb", 2);
    ck_assert_mem_eq(items[1].key, "d", 1);
    larder_free(memory);
}
END_TEST

START_TEST(large_values_come_too)
{
    static char value[50000];
    larder_item items[4];
    larder_cursor cursor = {0};
    size_t found;
    void *memory;
    memset(value, 'v', sizeof value);
    ck_assert_int_eq(larder_set(map, "big", 3, value, sizeof value, NULL), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "empty", 5, NULL, 0, NULL), LARDER_OK);
    ck_assert_int_eq(larder_scan(map, &cursor, (larder_bytes){NULL, 0}, items, 4,
                                 LARDER_SCAN_VALUES, &found, &memory),
                     LARDER_OK);
    ck_assert_uint_eq(found, 2);
    ck_assert_uint_eq(items[0].value_size, sizeof value);
    ck_assert_mem_eq(items[0].value, value, sizeof value);
    ck_assert_uint_eq(items[1].value_size, 0);
    larder_free(memory);
}
END_TEST

START_TEST(arguments_that_are_none)
{
    larder_item items[1];
    larder_cursor cursor = {0};
    larder_bytes all = {NULL, 0};
    size_t found;
    void *memory;
    set("a", 1);
    ck_assert_int_eq(larder_scan(NULL, &cursor, all, items, 1, 0, &found, &memory), LARDER_EINVAL);
    ck_assert_int_eq(larder_scan(map, NULL, all, items, 1, 0, &found, &memory), LARDER_EINVAL);
    ck_assert_int_eq(larder_scan(map, &cursor, all, NULL, 1, 0, &found, &memory), LARDER_EINVAL);
    ck_assert_int_eq(larder_scan(map, &cursor, all, items, 1, 0, NULL, &memory), LARDER_EINVAL);
    ck_assert_int_eq(larder_scan(map, &cursor, all, items, 1, 0, &found, NULL), LARDER_EINVAL);
    ck_assert_int_eq(larder_scan(map, &cursor, all, items, 0, 0, &found, &memory), LARDER_EINVAL);
    ck_assert_int_eq(larder_scan(map, &cursor, all, items, LARDER_MANY_MAX + 1, 0, &found, &memory),
                     LARDER_EINVAL);
    ck_assert_int_eq(larder_scan(map, &cursor, all, items, 1, 2, &found, &memory), LARDER_EINVAL);
    ck_assert_int_eq(
        larder_scan(map, &cursor, (larder_bytes){NULL, 1}, items, 1, 0, &found, &memory),
        LARDER_EINVAL);
    cursor.size = 512;
    ck_assert_int_eq(larder_scan(map, &cursor, all, items, 1, 0, &found, &memory), LARDER_EINVAL);
    cursor = (larder_cursor){.reserved = 1};
    ck_assert_int_eq(larder_scan(map, &cursor, all, items, 1, 0, &found, &memory), LARDER_EINVAL);
    cursor = (larder_cursor){.size = 1}; /* bytes that no scan has left there */
    ck_assert_int_eq(larder_scan(map, &cursor, all, items, 1, 0, &found, &memory), LARDER_EINVAL);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "cursor"));
    ck_assert_uint_eq(maps_stats(map).generation, 1); /* and the map is none the worse */
    ck_assert_int_eq(maps_has(map, "a"), LARDER_OK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("scan");
    TCase *tests = tcase_create("scan");
    tcase_set_timeout(tests, 30);
    tcase_add_checked_fixture(tests, open_map, close_map);
    tcase_add_test(tests, keys_come_in_byte_order_whatever_the_page);
    tcase_add_test(tests, binary_prefixes);
    tcase_add_test(tests, long_keys_are_found_by_any_part);
    tcase_add_test(tests, what_is_dead_is_not_shown_what_is_absent_is);
    tcase_add_test(tests, a_walk_goes_on_over_changes);
    tcase_add_test(tests, large_values_come_too);
    tcase_add_test(tests, arguments_that_are_none);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
