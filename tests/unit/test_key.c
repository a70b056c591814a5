/* test_key.c: what stands in the tree for a key: plain and long forms, their order, the bound that
 * a prefix gives, and keys written into messages.
 */
#include "key.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "tests/harness.h"

static uint8_t bytes[LARDER_KEY_MAX + 1];

START_TEST(the_plain_form_is_the_tag_and_the_key)
{
    struct key key;
    const size_t sizes[] = {1, 2, 494, 508, KEY_PLAIN_MAX};
    memset(bytes, 'k', sizeof bytes);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        ck_assert_int_eq(key_make(&key, bytes, sizes[i]), LARDER_OK);
        ck_assert(!key.is_long);
        ck_assert_uint_eq(key.form_size, sizes[i] + 1);
        ck_assert_uint_eq(key.form[0], KEY_TAG);
        ck_assert_mem_eq(key.form + 1, bytes, sizes[i]);
        ck_assert_uint_eq(key.hash, key_hash(bytes, sizes[i]));
        ck_assert_uint_eq(key.size, sizes[i]);
        ck_assert_ptr_eq(key.data, bytes);
    }
}
END_TEST

START_TEST(the_long_form_is_the_longest_and_tells_keys_apart)
{
    struct key first, second;
    const size_t sizes[] = {KEY_PLAIN_MAX + 1, 511, 512, 4096, LARDER_KEY_MAX};
    memset(bytes, 'k', sizeof bytes);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        bytes[sizes[i] - 1] = 'k';
        ck_assert_int_eq(key_make(&first, bytes, sizes[i]), LARDER_OK);
        ck_assert(first.is_long);
        ck_assert_uint_eq(first.form_size, KEY_FORM_MAX);
        ck_assert_mem_eq(first.form + 1, bytes, KEY_LONG_PREFIX);
        bytes[sizes[i] - 1] = 'K';
        ck_assert_int_eq(key_make(&second, bytes, sizes[i]), LARDER_OK);
        ck_assert_mem_ne(first.form, second.form, KEY_FORM_MAX);
        ck_assert_uint_ne(first.hash, second.hash);
        bytes[sizes[i] - 1] = 'k';
    }
    /* a plain form is always shorter: the two cannot meet */
    ck_assert_int_lt(KEY_PLAIN_MAX + 1, KEY_FORM_MAX);
}
END_TEST

START_TEST(what_is_no_key_is_refused_with_the_limit)
{
    struct key key;
    ck_assert_int_eq(key_make(&key, "", 0), LARDER_EINVAL);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "0 bytes"));
    ck_assert_int_eq(key_make(&key, NULL, 0), LARDER_EINVAL);
    ck_assert_int_eq(key_make(&key, NULL, 5), LARDER_EINVAL);
    ck_assert_int_eq(key_make(&key, bytes, LARDER_KEY_MAX + 1), LARDER_ETOOBIG);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "65536"));
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "65535"));
    ck_assert_int_eq(key_make(&key, bytes, SIZE_MAX), LARDER_ETOOBIG);
}
END_TEST

static int compare_bytes(const void *a, size_t a_size, const void *b, size_t b_size)
{
    int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order != 0 ? order : a_size < b_size ? -1 : a_size > b_size;
}

START_TEST(forms_keep_the_order_of_keys)
{
    uint64_t stream = harness_seed();
    uint8_t left[KEY_PLAIN_MAX], right[KEY_PLAIN_MAX];
    for (int i = 0; i < 2000; i++) {
        size_t left_size = 1 + harness_random(&stream) % 12;
        size_t right_size = 1 + harness_random(&stream) % 12;
        for (size_t at = 0; at < 12; at++) { /* few letters, so that prefixes are common */
            left[at] = (uint8_t)(harness_random(&stream) % 3 * 127);
            right[at] = (uint8_t)(harness_random(&stream) % 3 * 127);
        }
        struct key a, b;
        ck_assert_int_eq(key_make(&a, left, left_size), LARDER_OK);
        ck_assert_int_eq(key_make(&b, right, right_size), LARDER_OK);
        int keys = compare_bytes(left, left_size, right, right_size);
        int forms = compare_bytes(a.form, a.form_size, b.form, b.form_size);
        ck_assert_int_eq((keys > 0) - (keys < 0), (forms > 0) - (forms < 0));
    }
}
END_TEST

START_TEST(the_bound_of_a_prefix_begins_every_form_of_it)
{
    uint8_t bound[KEY_FORM_MAX];
    struct key key;
    memset(bytes, 'p', sizeof bytes);
    ck_assert_uint_eq(key_prefix_bound(bound, NULL, 0), 1);
    ck_assert_uint_eq(bound[0], KEY_TAG);
    const size_t sizes[] = {1, 100, KEY_LONG_PREFIX, KEY_LONG_PREFIX + 1, 600, LARDER_KEY_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t size = key_prefix_bound(bound, bytes, sizes[i]);
        ck_assert_uint_le(size, KEY_LONG_PREFIX + 1);
        for (size_t longer = sizes[i]; longer <= LARDER_KEY_MAX; longer = longer * 2 + 1) {
            ck_assert_int_eq(key_make(&key, bytes, longer), LARDER_OK);
            ck_assert_uint_ge(key.form_size, size);
            ck_assert_mem_eq(key.form, bound, size);
        }
    }
}
END_TEST

static void printable_is(const char *expected, size_t room, const char *key, size_t key_size)
{
    char *text = malloc(room == 0 ? 1 : room); /* exact, so that a sanitizer sees a byte too many */
    ck_assert_ptr_nonnull(text);
    ck_assert_str_eq(key_printable(text, room, key, key_size), expected);
    free(text);
}

START_TEST(keys_in_messages_are_harmless_and_bounded)
{
    printable_is("plain/key:1", 64, "plain/key:1", 11);
    printable_is("a\\x0a\\x00\\x1b[31m\\x7f\\xff\\x5c", 64, "a\n\0\x1b[31m\x7f\xff\\", 11);
    printable_is("", 64, "", 0);
    printable_is("", 0, "abc", 3);
    printable_is("", 1, "abc", 3);
    printable_is("", 3, "abc", 3);
    printable_is("...", 4, "abcdefgh", 8);
    printable_is("abcd...", 8, "abcdefghijkl", 12);
    for (size_t room = 1; room < 40; room++) {
        char text[40];
        memset(text, '#', sizeof text);
        const char *printed = key_printable(text, room, "ab\n\n\ncdefghi\x80", 13);
        ck_assert_uint_lt(strlen(printed), room);
        for (const char *at = printed; *at != '\0'; at++) {
            ck_assert(*at >= 0x20 && *at < 0x7f);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("key");
    TCase *tests = tcase_create("key");
    tcase_add_test(tests, the_plain_form_is_the_tag_and_the_key);
    tcase_add_test(tests, the_long_form_is_the_longest_and_tells_keys_apart);
    tcase_add_test(tests, what_is_no_key_is_refused_with_the_limit);
    tcase_add_test(tests, forms_keep_the_order_of_keys);
    tcase_add_test(tests, the_bound_of_a_prefix_begins_every_form_of_it);
    tcase_add_test(tests, keys_in_messages_are_harmless_and_bounded);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
