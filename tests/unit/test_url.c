/* test_url.c: Redis URLs that are taken, and those that are refused with a sentence. */
#include "tests/harness.h"

#include <string.h>

#include "daemon/redis/url.h"
#include "daemon/replicator.h"

static redis_url parsed(const char *text)
{
    redis_url url;
    char error[256] = "";
    ck_assert_msg(url_parse(text, &url, error, sizeof error) == 0, "%s: %s", text, error);
    return url;
}

static void refused(const char *text, const char *because)
{
    char error[256] = "";
    ck_assert_msg(replicator_url_check(text, error, sizeof error) != 0, "%s was taken", text);
    ck_assert_msg(strstr(error, because) != NULL, "%s: %s", text, error);
}

START_TEST(tcp)
{
    redis_url url = parsed("redis://cache.example");
    ck_assert_int_eq(url.kind, URL_TCP);
    ck_assert_str_eq(url.host, "cache.example");
    ck_assert_uint_eq(url.port, 6379);
    ck_assert_uint_eq(url.database, 0);
    ck_assert_str_eq(url.user, "");
    url = parsed("redis://me%40here@10.0.0.1:7000/12");
    ck_assert_str_eq(url.user, "me@here");
    ck_assert_str_eq(url.host, "10.0.0.1");
    ck_assert_uint_eq(url.port, 7000);
    ck_assert_uint_eq(url.database, 12);
    ck_assert_str_eq(url.display, "10.0.0.1:7000/12");
    url = parsed("redis://[::1]:6380/");
    ck_assert_str_eq(url.host, "::1");
    ck_assert_uint_eq(url.port, 6380);
    ck_assert_str_eq(url.display, "[::1]:6380/0");
    ck_assert_uint_eq(parsed("redis://h?db=3").database, 3);
}
END_TEST

START_TEST(unix_sockets)
{
    redis_url url = parsed("unix:///run/redis/a%20b.sock?db=5");
    ck_assert_int_eq(url.kind, URL_UNIX);
    ck_assert_str_eq(url.path, "/run/redis/a b.sock");
    ck_assert_uint_eq(url.database, 5);
    ck_assert_str_eq(parsed("unix://me@/s").user, "me");
    ck_assert_str_eq(parsed("unix:///s").display, "unix:/s/0");
    refused("unix://relative", "absolute");
    refused("unix:///0123456789012345678901234567890123456789012345678901234567890123456789"
            "0123456789012345678901234567890123456789",
            "longer than 107");
    refused("unix:///s?db=x", "database");
    refused("unix:///s?timeout=3", "db=N");
    refused("unix:///a%00b", "encoded");
}
END_TEST

START_TEST(passwords_are_refused)
{
    refused("redis://me:secret@host", "password");
    refused("redis://:secret@host", "password");
    refused("unix://me:secret@/s", "password");
    refused("unix:///s?password=secret", "password");
    char error[256];
    (void)replicator_url_check("redis://me:hunter2@host", error, sizeof error);
    ck_assert_ptr_null(strstr(error, "hunter2"));
}
END_TEST

START_TEST(not_in_this_version)
{
    refused("rediss://host", "this version");
    refused("redis-sentinel://a,b/name", "this version");
    refused("redis-cluster://a,b", "this version");
}
END_TEST

START_TEST(nonsense)
{
    refused("", "empty");
    refused("host:6379", "begins with");
    refused("http://host", "begins with");
    refused("redis://", "no host");
    refused("redis://:6379", "no host");
    refused("redis://host:0", "port");
    refused("redis://host:65536", "port");
    refused("redis://host:", "port");
    refused("redis://host:12x", "port");
    refused("redis://host/-1", "database");
    refused("redis://host/65536", "database");
    refused("redis://::1", "brackets");
    refused("redis://[::1", "lacks");
    refused("redis://[::1]x", "port");
    refused("redis://a b", "character");
    refused("redis://@host", "user");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("url");
    TCase *all = tcase_create("url");
    tcase_add_test(all, tcp);
    tcase_add_test(all, unix_sockets);
    tcase_add_test(all, passwords_are_refused);
    tcase_add_test(all, not_in_this_version);
    tcase_add_test(all, nonsense);
    suite_add_tcase(suite, all);
    return harness_run(suite);
}
