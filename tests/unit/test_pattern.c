/* test_pattern.c: glob patterns over bytes, against a table and against a matcher that is slow and
 * plain.
 */
#include "pattern.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

#include "tests/harness.h"

static larder_bytes text(const char *text)
{
    return (larder_bytes){text, strlen(text)};
}

static bool matches(const char *pattern, const char *subject)
{
    ck_assert_msg(pattern_check(text(pattern)) == LARDER_OK, "%s: %s", pattern,
                  larder_last_error());
    return pattern_matches(text(pattern), subject, strlen(subject));
}

START_TEST(what_matches_and_what_does_not)
{
    const struct {
        const char *pattern, *yes, *no;
    } cases[] = {
        {"abc", "abc", "abcd"},
        {"abc", "abc", "ab"},
        {"a?c", "a/c", "ac"},
        {"*", "", NULL},
        {"*", "anything/at:all", NULL},
        {"a*", "a", "ba"},
        {"*a", "bca", "ab"},
        {"a*c", "abcc", "abcd"},
        {"*a*b*", "xxaxxbxx", "xxbxxaxx"},
        {"user:*:page", "user:7:page", "user:7:pages"},
        {"[abc]x", "bx", "dx"},
        {"[a-c]x", "bx", "dx"},
        {"[!a-c]x", "dx", "bx"},
        {"[^a-c]x", "dx", "bx"},
        {"[]]", "]", "["},
        {"[!]]", "[", "]"},
        {"[a-]", "-", "b"},
        {"[-a]", "-", "b"},
        {"[\\]a]", "]", "\\"},
        {"\\*", "*", "x"},
        {"\\\\", "\\", "x"},
        {"a\\?b", "a?b", "axb"},
        {"{a}", "{a}", "a"},
        {"a.b", "a.b", "axb"},
        {"**a**", "a", "b"},
        {"]", "]", "["},
        {"a-z", "a-z", "b"},
        {"\xff?", "\xff\xfe", "\xfe\xff"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_msg(matches(cases[i].pattern, cases[i].yes), "%s does not match %s",
                      cases[i].pattern, cases[i].yes);
        ck_assert_msg(cases[i].no == NULL || !matches(cases[i].pattern, cases[i].no),
                      "%s matches %s", cases[i].pattern, cases[i].no);
    }
    larder_bytes nul = {"a\0*", 3};
    ck_assert_int_eq(pattern_check(nul), LARDER_OK);
    ck_assert(pattern_matches(nul, "a\0b", 3));
    ck_assert(!pattern_matches(nul, "ab", 2));
}
END_TEST

START_TEST(what_is_no_pattern)
{
    static const char big[LARDER_GLOB_MAX + 1];
    const struct {
        const char *pattern, *named;
    } cases[] = {{"", "0 bytes"},
                 {"a\\", "at the end"},
                 {"ab[", "byte 3"},
                 {"[a", "byte 1"},
                 {"[]", "no \"]\""},
                 {"[!]", "no \"]\""},
                 {"[z-a]", "before it begins"},
                 {"x[a\\", "byte 2"},
                 {"[a-", "no \"]\""}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_int_eq(pattern_check(text(cases[i].pattern)), LARDER_EINVAL);
        ck_assert_msg(strstr(larder_last_error(), cases[i].named) != NULL, "%s: %s",
                      cases[i].pattern, larder_last_error());
    }
    ck_assert_int_eq(pattern_check((larder_bytes){NULL, 1}), LARDER_EINVAL);
    ck_assert_int_eq(pattern_check((larder_bytes){big, sizeof big}), LARDER_ETOOBIG);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "1025"));
}
END_TEST

START_TEST(what_every_match_begins_with)
{
    const struct {
        const char *pattern, *prefix;
    } cases[] = {{"abc", "abc"}, {"ab*c", "ab"},    {"a?", "a"},   {"a[b]", "a"},
                 {"*a", ""},     {"a\\*b*", "a*b"}, {"\\[x", "[x"}};
    uint8_t prefix[LARDER_GLOB_MAX];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t size = pattern_literal_prefix(text(cases[i].pattern), prefix);
        ck_assert_uint_eq(size, strlen(cases[i].prefix));
        ck_assert_mem_eq(prefix, cases[i].prefix, size);
    }
}
END_TEST

/* Stars, question marks and letters only: recursion says the same. */
static bool plainly(const char *pattern, const char *subject)
{
    if (*pattern == '\0') {
        return *subject == '\0';
    }
    if (*pattern == '*') {
        return plainly(pattern + 1, subject) || (*subject != '\0' && plainly(pattern, subject + 1));
    }
    return *subject != '\0' && (*pattern == '?' || *pattern == *subject) &&
           plainly(pattern + 1, subject + 1);
}

START_TEST(a_plain_matcher_agrees)
{
    uint64_t stream = harness_seed();
    for (int round = 0; round < 200000; round++) {
        char pattern[8] = "", subject[10] = "";
        size_t pattern_size = 1 + harness_random(&stream) % 7;
        size_t size = harness_random(&stream) % 10;
        for (size_t i = 0; i < pattern_size; i++) {
            pattern[i] = "ab*?"[harness_random(&stream) % 4];
        }
        for (size_t i = 0; i < size; i++) {
            subject[i] = "ab"[harness_random(&stream) % 2];
        }
        ck_assert_msg(matches(pattern, subject) == plainly(pattern, subject), "%s and %s", pattern,
                      subject);
    }
}
END_TEST

START_TEST(many_stars_take_no_exponential_time)
{
    static char subject[20001], pattern[1001];
    memset(subject, 'a', sizeof subject - 1);
    for (size_t i = 0; i < sizeof pattern - 1; i++) {
        pattern[i] = i % 2 == 0 ? 'a' : '*';
    }
    pattern[sizeof pattern - 2] = 'b';
    int64_t began = harness_now_ms();
    ck_assert(!matches(pattern, subject));
    ck_assert_int_le(harness_now_ms() - began, harness_patience(2000));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pattern");
    TCase *tests = tcase_create("pattern");
    tcase_add_test(tests, what_matches_and_what_does_not);
    tcase_add_test(tests, what_is_no_pattern);
    tcase_add_test(tests, what_every_match_begins_with);
    tcase_add_test(tests, a_plain_matcher_agrees);
    tcase_add_test(tests, many_stars_take_no_exponential_time);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
