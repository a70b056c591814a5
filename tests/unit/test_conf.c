/* test_conf.c: larderd's settings: each kind of mistake gets its sentence with file and line, all
 * of them at once; what is right lands where the table says; the table, its defaults, the help and
 * the example file in doc/ agree.
 */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/conf.h"
#include "tests/harness.h"

/* libconfig 1.5 loses the text it was reading when it meets a syntax error. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libconfig";
}

static const char *write_file(const char *name, const char *text, size_t size)
{
    const char *path = harness_path("%s", name);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(text, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
    return path;
}

/* Problems joined by '\n', with the directory's name taken away; to be freed. */
static char *problems_of(const char *text, size_t size, const conf_flag *flags, size_t flag_count)
{
    struct conf conf;
    conf_problems problems = {.count = 0};
    const char *path = write_file("t.conf", text, size);
    size_t skip = (size_t)(strrchr(path, '/') + 1 - path);
    conf_read(&conf, path, true, flags, flag_count, &problems);
    char *joined = calloc(1, 65536);
    ck_assert_ptr_nonnull(joined);
    for (size_t i = 0; i < problems.count && i < CONF_PROBLEMS_MAX; i++) {
        const char *problem = problems.text[i];
        ck_assert_ptr_nonnull(problem);
        bool ours = strncmp(problem, path, skip) == 0;
        snprintf(joined + strlen(joined), 65536 - strlen(joined), "%s%s", i ? "\n" : "",
                 problem + (ours ? skip : 0));
    }
    conf_problems_free(&problems);
    conf_free(&conf);
    return joined;
}

/* ---- Mistakes ----------------------------------------------------------------------------------
 */

#define FORM " (a setting is NAME = VALUE; a group NAME = { ... };)"

static const struct {
    const char *text, *expected;
} mistakes[] = {
    {"", ""},
    {"# nothing\n", ""},
    {"log_level = \"loud\";\n",
     "t.conf:1: log_level must be error, warning, notice, info or debug"},
    {"\n\nmap = { sise = 3; };\n", "t.conf:3: unknown setting map.sise (did you mean map.size?)"},
    {"colour = 1;\n", "t.conf:1: unknown setting colour"},
    {"cache = { a = 1; };\n", "t.conf:1: unknown setting cache"},
    {"map = 5;\n", "t.conf:1: map must be a group: map = { ... };"},
    {"map = { name = 5; };\n", "t.conf:1: map.name must be text in quotes, not a number"},
    {"map = { name = { a = 1; }; };\n", "t.conf:1: map.name must be text in quotes, not a group"},
    {"map = { name = [1]; };\n", "t.conf:1: map.name must be text in quotes, not an array"},
    {"map = { protect = 1; };\n", "t.conf:1: map.protect must be true or false, not a number"},
    {"map = { protect = \"yes\"; };\n", "t.conf:1: map.protect must be true or false, not text"},
    {"map = { name = \".x\"; };\n",
     "t.conf:1: map.name must be 1 to 63 of the characters A-Z a-z 0-9 . _ - and not begin with a "
     "dot"},
    {"map = { dir = \"here\"; };\n", "t.conf:1: map.dir must be an absolute path"},
    {"map = { size = 4096; };\n",
     "t.conf:1: map.size must be 0 (chosen by itself) or at least 16M"},
    {"map = { size = -1; };\n", "t.conf:1: map.size must be 0 to 16T, not -1"},
    {"map = { size = 1.5; };\n",
     "t.conf:1: map.size must be a number of bytes or text like \"8M\", not a fraction"},
    {"map = { size = \"12 apples\"; };\n",
     "t.conf:1: map.size must be a size: a number of bytes, or one with K, M, G, T"},
    {"map = { size = \"99999999T\"; };\n", "t.conf:1: map.size must be 0 to 16T, not 99999999T"},
    {"map = { size = \"99999999999999999999999999999999999999999\"; };\n",
     "t.conf:1: map.size must be 0 to 16T, not 9999999999999999999999999999999999999999"},
    {"map = { size = 99999999999999999999; };\n",
     "t.conf:1: map.size must be 0 to 16T, not a number beyond 64 bits"},
    {"map = { size = -99999999999999999999L; };\n",
     "t.conf:1: map.size must be 0 to 16T, not a number beyond 64 bits"},
    {"map = { size = 0xfffffffffffffffff; };\n",
     "t.conf:1: map.size must be 0 to 16T, not a number beyond 64 bits"},
    {"map = { size = 9999999999999999999999999999999999999999; };\n",
     "t.conf:1: map.size must be 0 to 16T, not a number beyond 64 bits"},
    {"map = { name = 99999999999999999999; };\n",
     "t.conf:1: map.name must be text in quotes, not a number"},
    {"redis = {\n batch_commands = 99999999999999999999; };\n",
     "t.conf:2: redis.batch_commands must be 1 to 4096, not a number beyond 64 bits"},
    {"redis = { linger = \"99999999999999999999s\"; };\n",
     "t.conf:1: redis.linger must be 0 to 1s, not 99999999999999999999s"},
    {"map = { mode = \"2777\"; };\n",
     "t.conf:1: map.mode must not let everybody in: whoever opens a map is trusted with all of it; "
     "use a group"},
    {"map = { mode = \"0099\"; };\n",
     "t.conf:1: map.mode must be permissions in octal, as \"2770\""},
    {"map = { mode = 2770; };\n",
     "t.conf:1: map.mode must be octal permissions in quotes, like \"2770\", not a number"},
    {"map = { mode = \"0070\"; };\n", "t.conf:1: map.mode must let the owner in (0700)"},
    {"redis = { reply_timeout = 0; };\n",
     "t.conf:1: redis.reply_timeout must be 10ms to 10m, not 0"},
    {"redis = { reply_timeout = \"5 s\"; };\n",
     "t.conf:1: redis.reply_timeout must be a duration: seconds, or a number with ms, s, m, h, d"},
    {"redis = { reply_timeout = \"-5s\"; };\n",
     "t.conf:1: redis.reply_timeout must be a duration: seconds, or a number with ms, s, m, h, d"},
    {"redis = { reply_timeout = 1e300; };\n",
     "t.conf:1: redis.reply_timeout must be 10ms to 10m, not 1e+300"},
    {"redis = { url = \"http://x\"; };\n", NULL /* the replicator's own words */},
    {"redis = { password = \"hush\"; };\n",
     "t.conf:1: redis.password: passwords do not belong in the configuration: use "
     "redis.password_file"},
    {"redis = { user = \"a\"; url = \"redis://b@h/0\"; };\n",
     "t.conf:1: redis.user: is given although redis.url names a user"},
    {"redis = { backoff_min = \"10s\"; };\n",
     "redis.backoff_max: must not be less than redis.backoff_min"},
    {"redis = { backoff_min = \"10s\";\n backoff_max = \"9s\"; };\n",
     "t.conf:2: redis.backoff_max: must not be less than redis.backoff_min"},
    {"redis = { breaker_failures = 0; };\n",
     "t.conf:1: redis.breaker_failures must be 1 to 1000, not 0"},
    {"redis = { breaker_failures = \"3\"; };\n",
     "t.conf:1: redis.breaker_failures must be a whole number, not text"},
    {"janitor = { watermark = 90; };\n",
     "t.conf:1: janitor.watermark must be 0.10 to 0.99, not 90"},
    {"janitor = { watermark = \"0.9\"; };\n",
     "t.conf:1: janitor.watermark must be a fraction like 0.9, not text"},
    {"listen = \"example.org:80\";\n",
     "t.conf:1: listen must be ADDRESS:PORT with a numeric address (IPv6 in brackets), or "
     "unix:/PATH"},
    {"listen = \"127.0.0.1:65536\";\n",
     "t.conf:1: listen must be ADDRESS:PORT with a numeric address (IPv6 in brackets), or "
     "unix:/PATH"},
    {"listen = \"unix:here\";\n",
     "t.conf:1: listen must be unix: and an absolute path of at most 103 bytes"},
    {"drain = \"2s\";\ndrain = \"3s\";\n", "t.conf:2: duplicate setting name"},
    {"map = { size = \"1G\"; };\nmap = { name = \"x\"; };\n", "t.conf:2: duplicate setting name"},
    {"drain = ;\n", "t.conf:1: syntax error at or after drain" FORM},
    {"map = {\n  size = \"1G\";\n", "t.conf:3: syntax error at or after map.size" FORM},
    {"drain = \"2s\n", "t.conf:2: syntax error at or after drain" FORM},
    {"= 5;\n", "t.conf:1: syntax error" FORM},
    {"map = { = 5; };\n", "t.conf:1: syntax error at or after map" FORM},
    {"@include \"other\"\n", "t.conf:1: @include is not supported: larderd reads one file"},
    {"# @include \"other\"\n/* @include */ drain = 1; // @include\n", ""},
    {"map = { name = \"a@b\"; };\n",
     "t.conf:1: map.name must be 1 to 63 of the characters A-Z a-z 0-9 . _ - and not begin with a "
     "dot"},
    /* All of them, also before a syntax error, and nothing that could forge a line. */
    {"drain = -1;\nlog_level = 3;\nx = 1;\nmap = { protect = 0; };\n",
     "t.conf:1: drain must be 0 to 1m, not -1\nt.conf:2: log_level must be text in quotes, not a number\n"
     "t.conf:3: unknown setting x\nt.conf:4: map.protect must be true or false, not a number"},
    {"drain = -1;\ny y y\n",
     "t.conf:2: syntax error at or after y" FORM
     "\nt.conf:1: drain must be 0 to 1m, not -1\nt.conf:2: unknown setting y"},
};

START_TEST(names_each_mistake_with_its_line)
{
    const char *text = mistakes[_i].text, *expected = mistakes[_i].expected;
    char *got = problems_of(text, strlen(text), NULL, 0);
    if (expected != NULL) {
        ck_assert_msg(strcmp(got, expected) == 0, "for\n%s\ngot\n%s\nand not\n%s", text, got,
                      expected);
    } else {
        ck_assert_msg(strncmp(got, "t.conf:1: redis.url ", 20) == 0, "got %s", got);
        ck_assert_ptr_null(strchr(got, '\n'));
    }
    free(got);
}
END_TEST

START_TEST(refuses_what_is_not_a_text_file)
{
    char *got = problems_of("drain = 1;\n\0evil", 16, NULL, 0);
    ck_assert_str_eq(got, "t.conf:2: a zero byte: this is not a text file");
    free(got);
    struct conf conf;
    conf_problems problems = {.count = 0};
    conf_read(&conf, harness_path("absent"), true, NULL, 0, &problems);
    ck_assert_uint_eq(problems.count, 1);
    ck_assert_ptr_nonnull(strstr(problems.text[0], "absent: No such file or directory"));
    conf_free(&conf);
    conf_read(&conf, harness_directory(), true, NULL, 0, &problems);
    ck_assert_uint_eq(problems.count, 2);
    ck_assert_ptr_nonnull(strstr(problems.text[1], "not a regular file"));
    conf_free(&conf);
    const char *fifo = harness_path("fifo");
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    conf_read(&conf, fifo, true, NULL, 0, &problems);
    ck_assert_uint_eq(problems.count, 3);
    ck_assert_ptr_nonnull(strstr(problems.text[2], "not a regular file"));
    conf_free(&conf);
    const char *large = harness_path("large");
    int file = open(large, O_CREAT | O_WRONLY, 0600);
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(ftruncate(file, CONF_FILE_MAX + 1), 0);
    close(file);
    conf_read(&conf, large, true, NULL, 0, &problems);
    ck_assert_uint_eq(problems.count, 4);
    ck_assert_ptr_nonnull(strstr(problems.text[3], "the limit is 1048576"));
    conf_free(&conf);
    conf_problems_free(&problems);
}
END_TEST

START_TEST(an_absent_default_file_is_fine)
{
    struct conf conf;
    conf_problems problems = {.count = 0};
    conf_read(&conf, harness_path("absent"), false, NULL, 0, &problems);
    ck_assert_uint_eq(problems.count, 0);
    ck_assert_str_eq(conf.map.name, "default");
    ck_assert_int_eq(conf.janitor.tombstone_ms, INT64_C(86400000));
    ck_assert_int_eq(conf.map.max_value, 8 << 20);
    ck_assert(conf.janitor.watermark > 0.899 && conf.janitor.watermark < 0.901);
    conf_free(&conf);
}
END_TEST

START_TEST(bounds_the_number_of_problems)
{
    struct conf conf;
    conf_problems problems = {.count = 0};
    char *text = calloc(1, 65536);
    for (int i = 0; i < 300; i++) {
        snprintf(text + strlen(text), 65536 - strlen(text), "unknown%d = 1;\n", i);
    }
    conf_read(&conf, write_file("many.conf", text, strlen(text)), true, NULL, 0, &problems);
    ck_assert_uint_eq(problems.count, 300);
    ck_assert_ptr_nonnull(strstr(problems.text[CONF_PROBLEMS_MAX - 1], "many.conf:100:"));
    conf_problems_free(&problems);
    conf_free(&conf);
    free(text);
}
END_TEST

/* ---- What is right -----------------------------------------------------------------------------
 */

START_TEST(takes_every_form_of_a_value)
{
    static const char text[] = "drain = 0.25;\n"
                               "listen = \"[::1]:9121\"; log_level = \"debug\";\n"
                               "map = { name = \"site\"; size = 4294967296; protect = TRUE;\n"
                               "        max_value = 0x100000; mode = \"0750\"; };\n"
                               "redis = { url = \"unix:///run/redis.sock?db=3\"; linger = 0;\n"
                               "          park = \"1.5m\"; stream_bytes = 2147483648L; };\n"
                               "janitor = { watermark = 0.5; verify_rate = 0;\n"
                               "            tombstone = \"2d\"; };\n";
    struct conf conf;
    conf_problems problems = {.count = 0};
    conf_read(&conf, write_file("good.conf", text, strlen(text)), true, NULL, 0, &problems);
    ck_assert_msg(problems.count == 0, "%s", problems.count ? problems.text[0] : "");
    ck_assert_int_eq(conf.drain_ms, 250);
    ck_assert_str_eq(conf.web.listen, "[::1]:9121");
    ck_assert_str_eq(conf.log_level, "debug");
    ck_assert_str_eq(conf.map.name, "site");
    ck_assert_int_eq(conf.map.size, INT64_C(4294967296)); /* libconfig alone makes a 0 of it */
    ck_assert(conf.map.protect);
    ck_assert_int_eq(conf.map.max_value, 1 << 20);
    ck_assert_int_eq(conf.map.mode, 0750);
    ck_assert_str_eq(conf.redis.url, "unix:///run/redis.sock?db=3");
    ck_assert_int_eq(conf.redis.linger_ms, 0);
    ck_assert_int_eq(conf.redis.park_ms, 90000);
    ck_assert_int_eq(conf.redis.stream_bytes, INT64_C(2147483648));
    ck_assert(conf.janitor.watermark == 0.5);
    ck_assert_int_eq(conf.janitor.verify_rate, 0);
    ck_assert_int_eq(conf.janitor.tombstone_ms, INT64_C(172800000));
    conf_free(&conf);
}
END_TEST

START_TEST(flags_override_the_file)
{
    static const char text[] = "map = { name = \"file\"; dir = \"/file\"; };\n";
    const conf_flag flags[] = {{"--map", "map.name", "flag"}};
    struct conf conf;
    conf_problems problems = {.count = 0};
    conf_read(&conf, write_file("f.conf", text, strlen(text)), true, flags, 1, &problems);
    ck_assert_uint_eq(problems.count, 0);
    ck_assert_str_eq(conf.map.name, "flag");
    ck_assert_str_eq(conf.map.dir, "/file");
    conf_free(&conf);
    const conf_flag secret[] = {{"--redis", "redis.url", "redis://user:hush@host/0"}};
    char *got = problems_of("", 0, secret, 1);
    ck_assert_msg(strncmp(got, "--redis: redis.url ", 19) == 0, "got %s", got);
    ck_assert_ptr_null(strstr(got, "hush"));
    free(got);
}
END_TEST

START_TEST(parses_sizes_and_durations)
{
    int64_t value;
    ck_assert(conf_parse_size("0", &value) && value == 0);
    ck_assert(conf_parse_size("1.5K", &value) && value == 1536);
    ck_assert(conf_parse_size("16T", &value) && value == INT64_C(17592186044416));
    ck_assert(!conf_parse_size("", &value));
    ck_assert(!conf_parse_size("K", &value));
    ck_assert(!conf_parse_size("1KB", &value));
    ck_assert(!conf_parse_size(" 1", &value));
    ck_assert(!conf_parse_size("+1", &value));
    ck_assert(!conf_parse_size("1.K", &value));
    ck_assert(conf_parse_size("9223372036854775808", &value) && value == INT64_MAX);
    ck_assert(conf_parse_size("8388608T", &value) && value == INT64_MAX);
    ck_assert(conf_parse_duration("250ms", &value) && value == 250);
    ck_assert(conf_parse_duration("30", &value) && value == 30000);
    ck_assert(conf_parse_duration("0.5", &value) && value == 500);
    ck_assert(conf_parse_duration("2h", &value) && value == 7200000);
    ck_assert(!conf_parse_duration("2 h", &value));
    ck_assert(!conf_parse_duration("-1", &value));
    ck_assert(conf_parse_duration("9223372036854775807d", &value) && value == INT64_MAX);
}
END_TEST

START_TEST(knows_what_is_a_loopback_address)
{
    conf_listen where;
    char error[256];
    ck_assert(conf_parse_listen("127.0.0.1:0", &where, error, sizeof error));
    ck_assert(where.loopback && !where.is_unix && where.port == 0);
    ck_assert(conf_parse_listen("127.9.9.9:80", &where, error, sizeof error) && where.loopback);
    ck_assert(conf_parse_listen("localhost:80", &where, error, sizeof error) && where.loopback);
    ck_assert(conf_parse_listen("[::1]:80", &where, error, sizeof error) && where.loopback);
    ck_assert(conf_parse_listen("[::]:80", &where, error, sizeof error) && !where.loopback);
    ck_assert(conf_parse_listen("0.0.0.0:80", &where, error, sizeof error) && !where.loopback);
    ck_assert(conf_parse_listen("[::ffff:127.0.0.1]:80", &where, error, sizeof error));
    ck_assert(!where.loopback);
    ck_assert(conf_parse_listen("unix:///a/b", &where, error, sizeof error) && where.is_unix);
    ck_assert_str_eq(where.path, "/a/b");
    static const char *const bad[] = {
        "",        "80",      ":80",     "::1:80",      "[1.2.3.4]:80",
        "1.2.3.4", "1.2.3:4", "[::1]80", "1.2.3.4:+80", "unix:"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_msg(!conf_parse_listen(bad[i], &where, error, sizeof error), "%s", bad[i]);
    }
}
END_TEST

/* ---- The table ---------------------------------------------------------------------------------
 */

static char *printed(void (*print)(FILE *out))
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(out);
    print(out);
    ck_assert_int_eq(fclose(out), 0);
    return text;
}

START_TEST(every_default_is_valid_and_no_row_is_double)
{
    struct conf conf;
    conf_problems problems = {.count = 0};
    char *help = printed(conf_print_help);
    conf_read(&conf, harness_path("absent"), false, NULL, 0, &problems);
    for (size_t i = 0; i < conf_row_count; i++) {
        char value[CONF_TEXT_MAX + 1], line[256];
        ck_assert_ptr_eq(conf_row_find(conf_rows[i].name), &conf_rows[i]);
        for (size_t j = 0; j < i; j++) {
            ck_assert_uint_ne(conf_rows[i].offset, conf_rows[j].offset);
        }
        conf_format(&conf, &conf_rows[i], value, sizeof value);
        ck_assert_str_eq(value, conf_rows[i].initial);
        snprintf(line, sizeof line, "\n%s = ", conf_rows[i].name);
        ck_assert_msg(strstr(help, line) != NULL, "%s is not in the help", conf_rows[i].name);
    }
    free(help);
    conf_free(&conf);
}
END_TEST

/* Without the '#' before its settings the example is a file that changes nothing. */
START_TEST(the_example_holds_the_defaults)
{
    struct conf defaults, conf;
    conf_problems problems = {.count = 0};
    char *text = printed(conf_print_example);
    for (char *at = text; (at = strchr(at, '#')) != NULL; at++) {
        if (at[1] >= 'a' && at[1] <= 'z') {
            *at = ' ';
        }
    }
    conf_read(&defaults, harness_path("absent"), false, NULL, 0, &problems);
    conf_read(&conf, write_file("example.conf", text, strlen(text)), true, NULL, 0, &problems);
    ck_assert_msg(problems.count == 0, "%s", problems.count ? problems.text[0] : "");
    for (size_t i = 0; i < conf_row_count; i++) {
        ck_assert_msg(conf_same(&defaults, &conf, &conf_rows[i]), "%s", conf_rows[i].name);
        ck_assert_msg(conf.line[i] != 0, "%s is not in the example", conf_rows[i].name);
    }
    conf_free(&defaults);
    conf_free(&conf);
    free(text);
}
END_TEST

START_TEST(the_example_in_doc_is_the_one_that_is_printed)
{
    char path[512], *text = printed(conf_print_example), *kept;
    const char *source = getenv("srcdir");
    snprintf(path, sizeof path, "%s/doc/larder.conf.example", source ? source : ".");
    FILE *file = fopen(path, "r");
    ck_assert_msg(file != NULL, "no %s", path);
    kept = calloc(1, strlen(text) + 4096);
    ck_assert_ptr_nonnull(kept);
    size_t size = fread(kept, 1, strlen(text) + 4095, file);
    fclose(file);
    ck_assert_msg(size == strlen(text) && strcmp(text, kept) == 0,
                  "%s is not what larderd --print-example prints", path);
    free(kept);
    free(text);
}
END_TEST

/* Whatever a file holds, reading it ends, and what is said about it stays on its lines. */
START_TEST(survives_any_bytes)
{
    uint64_t stream = harness_seed() ^ 77;
    static const char *const pieces[] = {"map", "=", "{",  "}",   ";",    "\"",   "/*", "*/",
                                         "#",   "1", "0x", "L",   "e9",   "\\",   "[",  "(",
                                         ".",   "-", "\n", "@in", "size", "true", ":",  "\x1b"};
    for (int round = 0; round < 3000; round++) {
        char text[256];
        size_t size = 0;
        for (int i = 0; i < 30; i++) {
            const char *piece = pieces[harness_random(&stream) % (sizeof pieces / sizeof *pieces)];
            memcpy(text + size, piece, strlen(piece));
            size += strlen(piece);
        }
        char *got = problems_of(text, size, NULL, 0);
        ck_assert_msg(strchr(got, '\x1b') == NULL, "an escape passed");
        free(got);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("conf");
    TCase *cases = tcase_create("settings");
    tcase_add_loop_test(cases, names_each_mistake_with_its_line, 0,
                        (int)(sizeof mistakes / sizeof *mistakes));
    tcase_add_test(cases, refuses_what_is_not_a_text_file);
    tcase_add_test(cases, an_absent_default_file_is_fine);
    tcase_add_test(cases, bounds_the_number_of_problems);
    tcase_add_test(cases, takes_every_form_of_a_value);
    tcase_add_test(cases, flags_override_the_file);
    tcase_add_test(cases, parses_sizes_and_durations);
    tcase_add_test(cases, knows_what_is_a_loopback_address);
    tcase_add_test(cases, every_default_is_valid_and_no_row_is_double);
    tcase_add_test(cases, the_example_holds_the_defaults);
    tcase_add_test(cases, the_example_in_doc_is_the_one_that_is_printed);
    tcase_add_test(cases, survives_any_bytes);
    suite_add_tcase(suite, cases);
    return harness_run(suite);
}
