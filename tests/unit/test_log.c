/* test_log.c: larderd's log: one line an event whatever it holds, a bound on lines a second that
 * keeps room for errors and tells what it swallowed, and no wait for whoever reads it.
 */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/log.h"
#include "tests/harness.h"

static int ends[2]; /* of a pipe that the log writes to */

static void open_pipe(void)
{
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    ck_assert_int_eq(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    (void)unsetenv("JOURNAL_STREAM");
    log_open(ends[1], LOG_INFO);
}

/* What has been written so far; good until the next call. */
static const char *written(void)
{
    static char text[1 << 17];
    ssize_t got = read(ends[0], text, sizeof text - 1);
    text[got > 0 ? got : 0] = '\0';
    return text;
}

static size_t count(const char *text, const char *piece)
{
    size_t found = 0;
    for (; (text = strstr(text, piece)) != NULL; text += strlen(piece)) {
        found++;
    }
    return found;
}

START_TEST(a_value_cannot_forge_a_line)
{
    open_pipe();
    log_line line;
    log_begin(&line, LOG_INFO, "test");
    log_text(&line, "plain", "abc/def:1");
    log_text(&line, "empty", "");
    log_text(&line, "evil", "a\nlevel=error \"x\"\\ \x1b[31m\x7f\xc2\x9b");
    log_text(&line, "pair", "a=b");
    log_number(&line, "number", -5);
    log_end(&line);
    const char *text = written();
    ck_assert_uint_eq(count(text, "\n"), 1);
    ck_assert_ptr_nonnull(strstr(text, " level=info event=test plain=abc/def:1 empty=\"\" evil="
                                       "\"a\\nlevel=error \\\"x\\\"\\\\ \\x1b[31m\\x7f\\xc2\\x9b\" "
                                       "pair=\"a=b\" number=-5\n"));
    ck_assert_int_eq(strncmp(text, "time=2", 6), 0);
}
END_TEST

START_TEST(a_long_value_is_cut_and_its_quote_closed)
{
    char value[3 * LOG_LINE_MAX];
    for (size_t length = LOG_LINE_MAX - 200; length < sizeof value; length += 7) {
        open_pipe();
        memset(value, 'x', length);
        value[10] = ' ';
        value[length] = '\0';
        log_line line;
        log_begin(&line, LOG_INFO, "test");
        log_text(&line, "msg", value);
        log_end(&line);
        const char *text = written();
        size_t size = strlen(text);
        ck_assert_uint_le(size, LOG_LINE_MAX);
        ck_assert_uint_ge(size, LOG_LINE_MAX - 200);
        ck_assert_msg(strcmp(text + size - 2, "\"\n") == 0, "length %zu ends in %s", length,
                      text + size - 12);
        close(ends[0]);
        close(ends[1]);
    }
}
END_TEST

START_TEST(less_important_lines_are_left_out)
{
    open_pipe();
    log_event(LOG_DEBUG, "quiet", "x");
    ck_assert_str_eq(written(), "");
    log_level(LOG_DEBUG);
    log_event(LOG_DEBUG, "loud", "x");
    ck_assert_uint_eq(count(written(), "level=debug event=loud"), 1);
    ck_assert_int_eq(log_level_number("warning"), LOG_WARNING);
    ck_assert_int_eq(log_level_number("Warning"), -1);
}
END_TEST

START_TEST(a_flood_is_bounded_errors_pass_and_the_loss_is_told)
{
    open_pipe();
    int64_t began = harness_now_ms();
    for (int i = 0; i < 1000; i++) {
        log_event(LOG_INFO, "flood", "%d", i);
    }
    log_event(LOG_ERR, "trouble", "still heard");
    const char *text = written();
    size_t most = 150 + (size_t)(harness_now_ms() - began) / 50 + 1;
    ck_assert_uint_ge(count(text, "event=flood"), 150);
    ck_assert_uint_le(count(text, "event=flood"), most);
    ck_assert_uint_eq(count(text, "event=trouble"), 1);
    ck_assert_uint_eq(count(text, "dropped_lines="), 1);
    ck_assert_uint_eq(log_dropped(), 1000 - count(text, "event=flood"));
}
END_TEST

START_TEST(a_reader_that_sleeps_holds_nobody)
{
    open_pipe();
    char filler[4096];
    memset(filler, 'x', sizeof filler);
    ck_assert_int_eq(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
    while (write(ends[1], filler, sizeof filler) > 0) {
    }
    ck_assert_int_eq(fcntl(ends[1], F_SETFL, 0), 0); /* a write would block now */
    log_event(LOG_ERR, "unheard", "x");
    ck_assert_uint_eq(log_dropped(), 1);
}
END_TEST

START_TEST(the_journal_gets_its_priority)
{
    char stream[64];
    struct stat status;
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    ck_assert_int_eq(fstat(ends[1], &status), 0);
    snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)status.st_dev,
             (unsigned long long)status.st_ino);
    ck_assert_int_eq(setenv("JOURNAL_STREAM", stream, 1), 0);
    log_open(ends[1], LOG_INFO);
    log_event(LOG_WARNING, "test", "x");
    ck_assert_str_eq(written(), "<4>level=warning event=test msg=x\n");
}
END_TEST

START_TEST(a_lasting_trouble_is_logged_once)
{
    log_trouble trouble = {.active = false};
    ck_assert(!log_trouble_ends(&trouble));
    ck_assert(log_trouble_begins(&trouble));
    ck_assert(!log_trouble_begins(&trouble));
    ck_assert(!log_trouble_begins(&trouble));
    ck_assert_uint_eq(trouble.occurrences, 3);
    ck_assert(log_trouble_ends(&trouble));
    ck_assert(!log_trouble_ends(&trouble));
    ck_assert(log_trouble_begins(&trouble));
}
END_TEST

START_TEST(escaping_ends_inside_its_buffer)
{
    char out[64];
    for (size_t size = 8; size <= sizeof out; size++) {
        memset(out, '#', sizeof out);
        size_t length = log_escape(out, size, "\x01\x02 plain \"quoted\" \n and more than fits it");
        ck_assert_uint_lt(length, size);
        ck_assert_uint_eq(strlen(out), length);
        ck_assert_msg(size == sizeof out || out[size] == '#', "size %zu", size);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("log");
    TCase *cases = tcase_create("log");
    tcase_add_test(cases, a_value_cannot_forge_a_line);
    tcase_add_test(cases, a_long_value_is_cut_and_its_quote_closed);
    tcase_add_test(cases, less_important_lines_are_left_out);
    tcase_add_test(cases, a_flood_is_bounded_errors_pass_and_the_loss_is_told);
    tcase_add_test(cases, a_reader_that_sleeps_holds_nobody);
    tcase_add_test(cases, the_journal_gets_its_priority);
    tcase_add_test(cases, a_lasting_trouble_is_logged_once);
    tcase_add_test(cases, escaping_ends_inside_its_buffer);
    suite_add_tcase(suite, cases);
    return harness_run(suite);
}
