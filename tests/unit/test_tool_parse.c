/* test_tool_parse.c: what the tool's users type, and what it shows of what others stored:
 * tools/parse.c and tools/escape.c. Pure functions, no map.
 */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/harness.h"
#include "tools/escape.h"
#include "tools/parse.h"

/* ---- Durations */

START_TEST(durations_have_units)
{
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {{"250ms", 250},
                {"30s", 30000},
                {"30", 30000},
                {"5m", 300000},
                {"2h", 7200000},
                {"7d", 604800000},
                {"0", 0},
                {"0ms", 0},
                {"007s", 7000},
                {"9223372036854775807ms", INT64_MAX},
                {"9223372036854775s", INT64_C(9223372036854775000)}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        parse_error error = {""};
        int64_t ms = -1;
        ck_assert_msg(parse_duration(good[i].text, &ms, &error), "%s", error.text);
        ck_assert_msg(ms == good[i].ms, "%s gave %" PRId64, good[i].text, ms);
    }
}
END_TEST

START_TEST(wrong_durations_are_named)
{
    static const char *const bad[] = {"",      "s",    "ms",  "5x",    "5 m", " 5m", "5m ",
                                      "5M",    "1.5h", "+5s", "-5s",   "-0",  "0x5", "5mm",
                                      "1h30m", "inf",  "٣s",  "never", "5\n", "1e3"};
    static const char *const over[] = {"9223372036854775808ms", "9223372036854776s",
                                       "18446744073709551616",  "99999999999999999999999999ms",
                                       "2562047788016h",        "106751991168d"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        parse_error error = {""};
        int64_t ms = 42;
        ck_assert_msg(!parse_duration(bad[i], &ms, &error), "\"%s\" was taken", bad[i]);
        ck_assert_msg(strstr(error.text, bad[i]) != NULL, "\"%s\": %s", bad[i], error.text);
        ck_assert(ms == 42);
    }
    for (size_t i = 0; i < sizeof over / sizeof over[0]; i++) {
        parse_error error = {""};
        int64_t ms = 42;
        ck_assert_msg(!parse_duration(over[i], &ms, &error), "\"%s\" was taken", over[i]);
        ck_assert(strstr(error.text, over[i]) != NULL && strstr(error.text, "limit") != NULL);
    }
}
END_TEST

START_TEST(a_long_text_is_cut_in_the_message)
{
    char text[5000];
    parse_error error = {""};
    int64_t ms;
    memset(text, '7', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    ck_assert(!parse_duration(text, &ms, &error));
    ck_assert(strlen(error.text) < sizeof error.text && strstr(error.text, "777") != NULL);
}
END_TEST

/* ---- Times */

START_TEST(times_are_rfc3339_or_seconds)
{
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {{"0", 0},
                {"1700000000", INT64_C(1700000000000)},
                {"1700000000.5", INT64_C(1700000000500)},
                {"1700000000.123999999", INT64_C(1700000000123)},
                {"1970-01-01T00:00:00Z", 0},
                {"2023-11-14T22:13:20Z", INT64_C(1700000000000)},
                {"2023-11-14t22:13:20.25z", INT64_C(1700000000250)},
                {"2023-11-15 03:43:20+05:30", INT64_C(1700000000000)},
                {"2023-11-14T14:13:20-08:00", INT64_C(1700000000000)},
                {"2024-02-29T12:00:00Z", INT64_C(1709208000000)},
                {"2000-02-29T00:00:00Z", INT64_C(951782400000)},
                {"2016-12-31T23:59:60Z", INT64_C(1483228800000)},
                {"2100-03-01T00:00:00Z", INT64_C(4107542400000)},
                {"1969-12-31T23:00:00-01:00", 0},
                {"9999-12-31T23:59:59.999Z", INT64_C(253402300799999)}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        parse_error error = {""};
        int64_t ms = -1;
        ck_assert_msg(parse_time(good[i].text, &ms, &error), "%s", error.text);
        ck_assert_msg(ms == good[i].ms, "%s gave %" PRId64, good[i].text, ms);
    }
}
END_TEST

START_TEST(wrong_times_are_named)
{
    static const char *const bad[] = {
        "",
        "-1",
        "now",
        "1.",
        "1.1234567890",
        "1s",
        " 1",
        "2023-11-14",
        "2023-11-14T22:13Z",
        "2023-11-14T22:13:20",
        "2023-11-14T22:13:20.Z",
        "2023-11-14T22:13:20+0530",
        "2023-11-14T22:13:20+24:00",
        "2023-11-14T22:13:20Zx",
        "2023-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2023-00-10T00:00:00Z",
        "2023-13-10T00:00:00Z",
        "2023-04-31T00:00:00Z",
        "2023-04-00T00:00:00Z",
        "2023-04-10T24:00:00Z",
        "2023-04-10T10:60:00Z",
        "2023-04-10T10:00:61Z",
        "23-04-10T10:00:00Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+00:01",
        "9223372036854776",
        "99999999999999999999",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        parse_error error = {""};
        int64_t ms = 42;
        ck_assert_msg(!parse_time(bad[i], &ms, &error), "\"%s\" was taken", bad[i]);
        ck_assert_msg(strstr(error.text, bad[i]) != NULL, "\"%s\": %s", bad[i], error.text);
        ck_assert(ms == 42);
    }
}
END_TEST

/* Every day of 400 years and a bit against the C library's calendar. */
START_TEST(dates_agree_with_the_c_library)
{
    for (int64_t day = 0; day < 147000; day++) {
        time_t seconds = (time_t)(day * 86400 + 86399);
        struct tm parts;
        char text[64];
        int64_t ms = -1;
        parse_error error = {""};
        ck_assert(gmtime_r(&seconds, &parts) != NULL);
        ck_assert(strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts) > 0);
        ck_assert_msg(parse_time(text, &ms, &error), "%s", error.text);
        ck_assert_msg(ms == seconds * 1000, "%s gave %" PRId64, text, ms);
    }
}
END_TEST

/* ---- Sizes and counts */

START_TEST(sizes_are_powers_of_1024)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"1", 1},
                {"65536", 65536},
                {"64K", 65536},
                {"64k", 65536},
                {"256M", UINT64_C(268435456)},
                {"256MB", UINT64_C(268435456)},
                {"256MiB", UINT64_C(268435456)},
                {"2G", UINT64_C(2147483648)},
                {"1T", UINT64_C(1099511627776)},
                {"9223372036854775807", INT64_MAX}};
    static const char *const bad[] = {"",    "M",   "0",  "0M",  "-1",    "1.5G", "1X",
                                      "1 M", "1MM", "1B", "1iB", "1MiBs", "0x10"};
    static const char *const over[] = {"9223372036854775808", "8388608T", "99999999999999999999K"};
    parse_error error = {""};
    uint64_t bytes;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        ck_assert_msg(parse_size(good[i].text, &bytes, &error), "%s", good[i].text);
        ck_assert_msg(bytes == good[i].bytes, "%s gave %" PRIu64, good[i].text, bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_msg(!parse_size(bad[i], &bytes, &error), "\"%s\" was taken", bad[i]);
        ck_assert_msg(strstr(error.text, bad[i]) != NULL, "\"%s\": %s", bad[i], error.text);
    }
    for (size_t i = 0; i < sizeof over / sizeof over[0]; i++) {
        ck_assert_msg(!parse_size(over[i], &bytes, &error), "\"%s\" was taken", over[i]);
        ck_assert_msg(strstr(error.text, "limit") != NULL, "%s", error.text);
    }
}
END_TEST

START_TEST(counts_have_bounds)
{
    parse_error error = {""};
    uint64_t count = 0;
    ck_assert(parse_count("1", 1, 10, &count, &error) && count == 1);
    ck_assert(parse_count("10", 1, 10, &count, &error) && count == 10);
    static const char *const bad[] = {"0", "11", "", "-1", "1x", " 1", "18446744073709551617"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_msg(!parse_count(bad[i], 1, 10, &count, &error), "\"%s\" was taken", bad[i]);
        ck_assert(strstr(error.text, bad[i]) != NULL && count == 10);
    }
}
END_TEST

/* ---- Escapes */

static void expect_text(const char *data, size_t size, enum escape_style style,
                        const char *expected)
{
    char text[256];
    char *written = NULL;
    size_t written_size = 0;
    ck_assert_str_eq(escape_text(text, sizeof text, data, size, style), expected);
    FILE *stream = open_memstream(&written, &written_size);
    ck_assert(stream != NULL);
    escape_write(stream, data, size, style, false);
    ck_assert(fclose(stream) == 0);
    ck_assert_str_eq(written, expected);
    free(written);
}

#define EXPECT(data, style, expected) expect_text(data, sizeof(data) - 1, style, expected)

START_TEST(controls_and_sequences_are_escaped)
{
    EXPECT("user:1", ESCAPE_KEY, "user:1");
    EXPECT("", ESCAPE_KEY, "");
    EXPECT("\x1b[31mred\x07", ESCAPE_KEY, "\\x1b[31mred\\x07");
    EXPECT("a\0b", ESCAPE_KEY, "a\\x00b");
    EXPECT("a\nb\tc\rd\x7f", ESCAPE_KEY, "a\\nb\\tc\\rd\\x7f");
    EXPECT("a\\nb", ESCAPE_KEY, "a\\\\nb");
    EXPECT("a\nb\tc\rd\\", ESCAPE_VALUE, "a\nb\tc\\rd\\\\");
    EXPECT("a\nb\\x1b\x1b", ESCAPE_MESSAGE, "a\\nb\\x1b\\x1b");
    /* UTF-8 stays; C1 controls in it (CSI), bidi overrides, invisible ones do not */
    EXPECT("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\xa5\xab", ESCAPE_KEY,
           "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\xa5\xab");
    EXPECT("\xc2\x9b"
           "31m",
           ESCAPE_KEY, "\\xc2\\x9b31m");
    EXPECT("\xe2\x80\xae"
           "abc",
           ESCAPE_KEY,
           "\\xe2\\x80\\xae"
           "abc");
    EXPECT("a\xe2\x80\x8b"
           "b\xef\xbb\xbf",
           ESCAPE_KEY,
           "a\\xe2\\x80\\x8b"
           "b\\xef\\xbb\\xbf");
    EXPECT("\xf3\xa0\x81\x81", ESCAPE_KEY, "\\xf3\\xa0\\x81\\x81");
}
END_TEST

START_TEST(what_is_not_utf8_is_escaped)
{
    static const char *const bad[] = {
        "\xff",
        "\x80",
        "\xc3",
        "\xc0\x80",
        "\xc1\xbf",
        "\xe0\x80\x80",
        "\xed\xa0\x80",
        "\xed\xbf\xbf",
        "\xf0\x80\x80\x80",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xe2\x82",
        "\xf0\x9f\xa5",
        "\303a",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[64];
        size_t size = 0;
        ck_assert(!escape_is_utf8(bad[i], strlen(bad[i])));
        (void)escape_text(text, sizeof text, bad[i], strlen(bad[i]), ESCAPE_KEY);
        for (const char *at = text; *at != '\0'; at++) {
            ck_assert_msg(*at >= 0x20 && *at < 0x7f, "%s", text);
        }
        char *lossy = escape_lossy(bad[i], strlen(bad[i]), &size);
        ck_assert(lossy != NULL && size == strlen(lossy) && escape_is_utf8(lossy, size));
        ck_assert(strstr(lossy, "\xEF\xBF\xBD") != NULL);
        free(lossy);
    }
    ck_assert(escape_is_utf8("\x00\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80", 11));
    EXPECT("a\xff"
           "b",
           ESCAPE_KEY,
           "a\\xff"
           "b");
}
END_TEST

START_TEST(a_terminal_without_utf8_gets_ascii)
{
    char *written = NULL;
    size_t written_size = 0;
    FILE *stream = open_memstream(&written, &written_size);
    escape_write(stream,
                 "\xdb\x9b"
                 "a",
                 3, ESCAPE_VALUE, true); /* 9B is CSI in ISO 8859-1 */
    ck_assert(fclose(stream) == 0);
    ck_assert_str_eq(written, "\\xdb\\x9b"
                              "a");
    free(written);
}
END_TEST

START_TEST(long_text_is_cut_between_characters)
{
    char data[1000];
    char text[20];
    for (size_t size = 16; size <= sizeof text; size++) {
        memset(data, 0x1b, sizeof data);
        (void)escape_text(text, size, data, sizeof data, ESCAPE_KEY);
        ck_assert_msg(strlen(text) < size && strlen(text) % 4 == 3, "%s", text);
        ck_assert_str_eq(text + strlen(text) - 3, "...");
    }
    /* what just fits is not cut */
    memset(data, 'a', 19);
    ck_assert_uint_eq(strlen(escape_text(text, sizeof text, data, 19, ESCAPE_KEY)), 19);
    ck_assert_str_eq(escape_text(text, sizeof text, data, 20, ESCAPE_KEY), "aaaaaaaaaaaaaaaa...");
}
END_TEST

START_TEST(hex_and_base64)
{
    uint8_t bytes[8];
    size_t size = 99;
    size_t bad = 99;
    char text[] = "00fFA5";
    ck_assert(escape_from_hex(text, (uint8_t *)text, &size, &bad)); /* in place */
    ck_assert(size == 3 && memcmp(text, "\x00\xff\xa5", 3) == 0);
    ck_assert(escape_from_hex("", bytes, &size, &bad) && size == 0);
    ck_assert(!escape_from_hex("abc", bytes, &size, &bad) && bad == 2);
    ck_assert(!escape_from_hex("abxd", bytes, &size, &bad) && bad == 2);
    ck_assert(!escape_from_hex("0x12", bytes, &size, &bad) && bad == 1);

    char *hex = escape_hex("\x00\xff\xa5", 3);
    ck_assert_str_eq(hex, "00ffa5");
    free(hex);
    /* RFC 4648 section 10 */
    static const char *const vectors[][2] = {{"", ""},
                                             {"f", "Zg=="},
                                             {"fo", "Zm8="},
                                             {"foo", "Zm9v"},
                                             {"foob", "Zm9vYg=="},
                                             {"fooba", "Zm9vYmE="},
                                             {"foobar", "Zm9vYmFy"},
                                             {"\xff\xfe\xfd", "//79"},
                                             {"\xfb\xef", "++8="}};
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        char *base64 = escape_base64(vectors[i][0], strlen(vectors[i][0]));
        ck_assert_str_eq(base64, vectors[i][1]);
        free(base64);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tool_parse");
    TCase *numbers = tcase_create("numbers");
    tcase_add_test(numbers, durations_have_units);
    tcase_add_test(numbers, wrong_durations_are_named);
    tcase_add_test(numbers, a_long_text_is_cut_in_the_message);
    tcase_add_test(numbers, times_are_rfc3339_or_seconds);
    tcase_add_test(numbers, wrong_times_are_named);
    tcase_add_test(numbers, dates_agree_with_the_c_library);
    tcase_add_test(numbers, sizes_are_powers_of_1024);
    tcase_add_test(numbers, counts_have_bounds);
    suite_add_tcase(suite, numbers);
    TCase *escapes = tcase_create("escapes");
    tcase_add_test(escapes, controls_and_sequences_are_escaped);
    tcase_add_test(escapes, what_is_not_utf8_is_escaped);
    tcase_add_test(escapes, a_terminal_without_utf8_gets_ascii);
    tcase_add_test(escapes, long_text_is_cut_between_characters);
    tcase_add_test(escapes, hex_and_base64);
    suite_add_tcase(suite, escapes);
    return harness_run(suite);
}
