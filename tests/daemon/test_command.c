/* test_command.c: larderd's command line with real processes: --check and its file:line, flags,
 * what is printed and what is refused, exit codes, and starts that cannot succeed.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/daemon/shell.h"

static void holds(const char *output, const char *text)
{
    ck_assert_msg(strstr(output, text) != NULL, "no \"%s\" in: %s", text, output);
}

/* Run larderd with these arguments; it must end with that exit code and say that. */
static char *expect(int wanted, const char *text, const char *const argv[])
{
    char *output;
    int code = shell_run(argv, &output);
    ck_assert_msg(code == wanted, "exit code %d and not %d: %s", code, wanted, output);
    holds(output, text);
    return output;
}

#define EXPECT(code, text, ...)                                                                    \
    expect(code, text, (const char *const[]){shell_program(), __VA_ARGS__, NULL})

START_TEST(check_prints_every_problem_with_its_place)
{
    char *output;
    const char *file = shell_file("bad.conf", "%s",
                                  "drain = \"an hour\";\n"
                                  "map = {\n  sise = 1;\n  owner = \"no-such-user-here\";\n};\n"
                                  "redis = { password_file = \"/no/such/file\"; };\n"
                                  "listen = \"0.0.0.0:9\";\n"
                                  "unheard\x1b[2J = 1;\n");
    output = EXPECT(2, "bad.conf:1: drain must be a duration", "--check", "-c", file);
    holds(output, "bad.conf:3: unknown setting map.sise (did you mean map.size?)");
    holds(output, "bad.conf:4: map.owner: there is no such user");
    holds(output, "bad.conf:6: redis.password_file: /no/such/file: No such file");
    holds(output, "bad.conf:7: listen: is not a loopback address: that needs listen_token_file");
    holds(output, "bad.conf:8: syntax error");
    ck_assert_ptr_null(strchr(output, '\x1b'));
    free(output);
    /* The same mistakes keep it from starting. */
    output = EXPECT(2, "bad.conf:3: unknown setting map.sise", "-c", file);
    free(output);
}
END_TEST

START_TEST(check_accepts_good_settings)
{
    char *output;
    const char *file = shell_file("good.conf", "map = { size = \"32M\"; };\n");
    output = EXPECT(0, "in order", "--check", "-c", file);
    free(output);
    output = EXPECT(2, "--map: map.name must", "--check", "-c", file, "--map", "a/b");
    free(output);
    output =
        EXPECT(2, "/no/such.conf: No such file or directory", "--check", "-c", "/no/such.conf");
    free(output);
}
END_TEST

START_TEST(a_password_on_the_command_line_is_refused)
{
    static const char *const urls[] = {"redis://u:hush1234@localhost/0", "redis://:hush1234@h",
                                       "unix://u:hush1234@/tmp/s"};
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        char *output;
        output = EXPECT(2, "--redis: redis.url", "--check", "--redis", urls[i]);
        ck_assert_ptr_null(strstr(output, "hush1234"));
        free(output);
    }
}
END_TEST

START_TEST(a_secret_must_be_kept_secret)
{
    char *output;
    const char *secret = shell_file("secret", "hush\n");
    const char *file = shell_file("s.conf", "redis = { password_file = \"%s\"; };\n", secret);
    output = EXPECT(0, "in order", "--check", "-c", file);
    free(output);
    ck_assert_int_eq(chmod(secret, 0644), 0);
    output = EXPECT(2, "readable or writable by others", "--check", "-c", file);
    free(output);
    ck_assert_int_eq(chmod(secret, 0600), 0);
    ck_assert_int_eq(truncate(secret, 0), 0);
    output = EXPECT(2, "the file is empty", "--check", "-c", file);
    free(output);
    (void)shell_file("secret", "%s", "two\nlines\n");
    output = EXPECT(2, "control character", "--check", "-c", file);
    free(output);
    (void)shell_file("secret", "%s", "too short\n");
    file = shell_file("s.conf", "listen_token_file = \"%s\";\n", secret);
    output = EXPECT(2, "less than 16 characters", "--check", "-c", file);
    free(output);
}
END_TEST

START_TEST(prints_what_it_is_asked_for)
{
    char *output;
    output = EXPECT(0, "larderd ", "--version");
    free(output);
    output = EXPECT(0, "Usage: larderd", "--help");
    free(output);
    output = EXPECT(0, "janitor.watermark = 0.90", "--help-settings");
    free(output);
    output = EXPECT(0, "\n    #watermark = 0.90;\n", "--print-example");
    free(output);
    output = EXPECT(0, "| `larder_lookups_total{result=}` |", "--help-metrics");
    free(output);
}
END_TEST

START_TEST(the_metrics_in_doc_are_those_that_are_printed)
{
    char path[512], *output, *kept;
    const char *source = getenv("srcdir");
    snprintf(path, sizeof path, "%s/doc/metrics.md", source ? source : ".");
    output = EXPECT(0, "larder_redis_up", "--help-metrics");
    FILE *file = fopen(path, "r");
    ck_assert_msg(file != NULL, "no %s", path);
    kept = calloc(1, strlen(output) + 4096);
    ck_assert_ptr_nonnull(kept);
    size_t size = fread(kept, 1, strlen(output) + 4095, file);
    fclose(file);
    ck_assert_msg(size == strlen(output) && strcmp(output, kept) == 0,
                  "%s is not what larderd --help-metrics prints", path);
    free(kept);
    free(output);
}
END_TEST

START_TEST(the_manual_has_every_option)
{
    char path[512], *help = EXPECT(0, "Usage: larderd", "--help"), *manual;
    const char *source = getenv("srcdir");
    snprintf(path, sizeof path, "%s/doc/larderd.8", source ? source : ".");
    FILE *file = fopen(path, "r");
    ck_assert_msg(file != NULL, "no %s", path);
    manual = calloc(1, 65536);
    ck_assert_ptr_nonnull(manual);
    ck_assert_uint_gt(fread(manual, 1, 65535, file), 1000);
    fclose(file);
    int options = 0;
    for (const char *at = help; (at = strstr(at, "--")) != NULL; options++) {
        char option[64] = "", *out = option;
        for (; *at == '-' || (*at >= 'a' && *at <= 'z'); at++) {
            ck_assert_int_lt(out - option, 60);
            if (*at == '-') {
                *out++ = '\\';
            }
            *out++ = *at;
        }
        *out = '\0';
        ck_assert_msg(strstr(manual, option) != NULL, "%s is not in %s", option, path);
    }
    ck_assert_int_gt(options, 12);
    free(manual);
    free(help);
}
END_TEST

START_TEST(refuses_what_it_does_not_know)
{
    char *output;
    output = EXPECT(2, "--help", "--colour");
    free(output);
    output = EXPECT(2, "--help", "--map");
    free(output);
    output = EXPECT(2, "no arguments", "redis://u:hush1234@h");
    ck_assert_ptr_null(strstr(output, "hush1234"));
    free(output);
}
END_TEST

START_TEST(a_map_that_cannot_be_made_is_a_clear_error)
{
    char *output, missing[160];
    snprintf(missing, sizeof missing, "%s", harness_path("missing"));
    output = EXPECT(1, "event=map_failed", "--dir", missing);
    ck_assert_ptr_nonnull(strstr(output, missing));
    free(output);
    char folder[160];
    snprintf(folder, sizeof folder, "%s", harness_path("open"));
    ck_assert_int_eq(mkdir(folder, 0700), 0);
    ck_assert_int_eq(chmod(folder, 0777), 0);
    output = EXPECT(1, "writable by everybody", "--dir", folder);
    free(output);
}
END_TEST

START_TEST(a_taken_address_is_a_clear_error)
{
    char *output, folder[160];
    shell self = {.manager = 0};
    snprintf(folder, sizeof folder, "%s", harness_path("other"));
    ck_assert_int_eq(mkdir(folder, 0700), 0);
    shell_start(&self, "first", NULL);
    char at[128];
    snprintf(at, sizeof at, "unix:%s", self.web);
    output = EXPECT(1, "another process listens there", "--dir", folder, "--listen", at);
    free(output);
    ck_assert_int_eq(shell_get(self.web, "/healthz", NULL), 200); /* and it still does */
    shell_end(&self, 0, 5000);
    ck_assert_int_ne(access(self.web, F_OK), 0);
    const char *file = shell_file("not-a-socket", "precious\n");
    snprintf(at, sizeof at, "unix:%s", file);
    output = EXPECT(1, "is not a socket", "--dir", folder, "--listen", at);
    ck_assert_int_eq(access(file, F_OK), 0);
    free(output);
}
END_TEST

START_TEST(the_map_is_given_to_its_group)
{
    char *output, folder[160], path[200];
    shell self = {.manager = 0};
    if (geteuid() != 0) {
        return; /* only root can give a directory away */
    }
    snprintf(folder, sizeof folder, "%s", harness_path("grouped"));
    ck_assert_int_eq(mkdir(folder, 0755), 0);
    const char *file = shell_file("group.conf", "map = { group = \"65534\"; };\n");
    output = EXPECT(2, "map.group: needs map.dir", "--check", "-c", file);
    free(output);
    snprintf(self.map_dir, sizeof self.map_dir, "%.100s", folder);
    shell_start(&self, "grouped", (const char *const[]){"-c", file, NULL});
    struct stat status;
    snprintf(path, sizeof path, "%s/m", folder);
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_uint_eq(status.st_gid, 65534);
    ck_assert_uint_eq(status.st_mode & 07777, 02770);
    snprintf(path, sizeof path, "%s/m/control", folder);
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_uint_eq(status.st_gid, 65534);
    ck_assert_uint_eq(status.st_mode & 0777, 0660);
    shell_end(&self, 0, 5000);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("command");
    TCase *cases = tcase_create("command line");
    tcase_set_timeout(cases, 30);
    tcase_add_test(cases, check_prints_every_problem_with_its_place);
    tcase_add_test(cases, check_accepts_good_settings);
    tcase_add_test(cases, a_password_on_the_command_line_is_refused);
    tcase_add_test(cases, a_secret_must_be_kept_secret);
    tcase_add_test(cases, prints_what_it_is_asked_for);
    tcase_add_test(cases, the_metrics_in_doc_are_those_that_are_printed);
    tcase_add_test(cases, the_manual_has_every_option);
    tcase_add_test(cases, refuses_what_it_does_not_know);
    tcase_add_test(cases, a_map_that_cannot_be_made_is_a_clear_error);
    tcase_add_test(cases, a_taken_address_is_a_clear_error);
    tcase_add_test(cases, the_map_is_given_to_its_group);
    suite_add_tcase(suite, cases);
    return harness_run(suite);
}
