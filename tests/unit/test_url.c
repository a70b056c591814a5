/* test_url.c: Redis URLs that are taken, and those that are refused with a sentence. */
#include "tests/harness.h"

#include <stdio.h>
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
    ck_assert_str_eq(url.places[0].host, "cache.example");
    ck_assert_uint_eq(url.places[0].port, 6379);
    ck_assert_uint_eq(url.database, 0);
    ck_assert_str_eq(url.user, "");
    url = parsed("redis://me%40here@10.0.0.1:7000/12");
    ck_assert_str_eq(url.user, "me@here");
    ck_assert_str_eq(url.places[0].host, "10.0.0.1");
    ck_assert_uint_eq(url.places[0].port, 7000);
    ck_assert_uint_eq(url.database, 12);
    ck_assert_str_eq(url.display, "10.0.0.1:7000/12");
    url = parsed("redis://[::1]:6380/");
    ck_assert_str_eq(url.places[0].host, "::1");
    ck_assert_uint_eq(url.places[0].port, 6380);
    ck_assert_str_eq(url.display, "[::1]:6380/0");
    ck_assert_uint_eq(parsed("redis://h?db=3").database, 3);
    ck_assert(!url.tls);
    url = parsed("rediss://h:1/2");
    ck_assert(url.tls);
    ck_assert_int_eq(url.kind, URL_TCP);
    ck_assert_str_eq(url.display, "h:1/2");
}
END_TEST

START_TEST(unix_sockets)
{
    redis_url url = parsed("unix:///run/redis/a%20b.sock?db=5");
    ck_assert_int_eq(url.kind, URL_UNIX);
    ck_assert_str_eq(url.places[0].path, "/run/redis/a b.sock");
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

START_TEST(sentinels)
{
    redis_url url = parsed("redis-sentinel://app@s1,10.0.0.2:26380,[::1]:7,s4/my%2Bmaster/3");
    ck_assert_int_eq(url.kind, URL_SENTINEL);
    ck_assert(!url.tls);
    ck_assert_uint_eq(url.place_count, 4);
    ck_assert_str_eq(url.places[0].host, "s1");
    ck_assert_uint_eq(url.places[0].port, 26379);
    ck_assert_uint_eq(url.places[1].port, 26380);
    ck_assert_str_eq(url.places[2].host, "::1");
    ck_assert_uint_eq(url.places[2].port, 7);
    ck_assert_str_eq(url.places[3].host, "s4");
    ck_assert_str_eq(url.service, "my+master");
    ck_assert_str_eq(url.user, "app");
    ck_assert_uint_eq(url.database, 3);
    ck_assert_str_eq(url.display, "my+master at s1:26379,10.0.0.2:26380,[::1]:7,s4:26379/3");
    ck_assert_uint_eq(parsed("redis-sentinel://s/name?db=4").database, 4);
    ck_assert(parsed("rediss-sentinel://s/name").tls);
    refused("redis-sentinel://s1,s2", "service");
    refused("redis-sentinel://s1,s2/", "service");
    refused("redis-sentinel://s1/a%20b", "space");
    refused("redis-sentinel://s1/a%2", "encoded");
    refused("redis-sentinel://s1/a/b", "database");
    refused("redis-sentinel://s1,,s2/a", "no host");
    refused("redis-sentinel://s1,/a", "no host");
    refused("redis-sentinel:///a", "no host");
    refused("redis-sentinel://me:secret@s1/a", "password");
    refused("redis-sentinel://1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17/a", "more than 16");
}
END_TEST

START_TEST(clusters)
{
    redis_url url = parsed("redis-cluster://app@n1,n2:7001");
    ck_assert_int_eq(url.kind, URL_CLUSTER);
    ck_assert_uint_eq(url.place_count, 2);
    ck_assert_uint_eq(url.places[0].port, 6379);
    ck_assert_uint_eq(url.places[1].port, 7001);
    ck_assert_str_eq(url.display, "n1:6379,n2:7001");
    ck_assert_uint_eq(parsed("redis-cluster://n1/0").place_count, 1);
    ck_assert(parsed("rediss-cluster://n1").tls);
    refused("redis-cluster://n1/1", "no database but 0");
    refused("redis-cluster://n1?db=1", "no database but 0");
}
END_TEST

/* However many hosts of whatever length. */
START_TEST(display_is_cut)
{
    char text[2048] = "redis-cluster://", host[256];
    memset(host, 'h', 120);
    host[120] = 0;
    for (int i = 0; i < 16; i++) {
        size_t used = strlen(text);
        (void)snprintf(text + used, sizeof text - used, "%s%s", i != 0 ? "," : "", host);
    }
    redis_url url = parsed(text);
    ck_assert_uint_eq(url.place_count, 16);
    ck_assert_str_eq(url.display + strlen(url.display) - 4, ",...");
}
END_TEST

START_TEST(places_of_servers)
{
    url_place place;
    char text[URL_PLACE_TEXT_MAX];
    ck_assert(url_place_set(&place, "10.1.2.3xyz", 8, 6379));
    url_place_text(&place, text);
    ck_assert_str_eq(text, "10.1.2.3:6379");
    ck_assert(url_place_set(&place, "::1", 3, 65535));
    url_place_text(&place, text);
    ck_assert_str_eq(text, "[::1]:65535");
    ck_assert(!url_place_set(&place, "", 0, 6379));
    ck_assert(!url_place_set(&place, "h", 1, 0));
    ck_assert(!url_place_set(&place, "h", 1, 65536));
    ck_assert(!url_place_set(&place, "h", 1, -1));
    ck_assert(!url_place_set(&place, "a/b", 3, 1));
    ck_assert(!url_place_set(&place, "a\0b", 3, 1));
    ck_assert(!url_place_set(&place, ":::", 3, 1));
}
END_TEST

static void append(char *text, size_t size, const char *part)
{
    size_t used = strlen(text);
    (void)snprintf(text + used, size - used, "%s", part);
}

/* Any bytes: an answer, and nothing else. */
START_TEST(chance)
{
    static const char *const parts[] = {
        "redis", "rediss", "unix", "-sentinel", "-cluster", "://", "@", ":",
        "/",     ",",      "[",    "]",         "?db=",     "%41", "%", "h",
        "::1",   "65535",  "\x01", "\xc3\xa9",  "6379",     ".",   "&", "99999999999"};
    uint64_t random = harness_seed();
    int taken = 0;
    for (int i = 0; i < 200000; i++) {
        char text[256] = "", error[256];
        redis_url url;
        size_t count = harness_random(&random) % 14;
        if (harness_random(&random) % 2 != 0)
            (void)snprintf(text, sizeof text, "redis-sentinel://");
        for (size_t j = 0; j < count; j++)
            append(text, sizeof text,
                   parts[harness_random(&random) % (sizeof parts / sizeof *parts)]);
        error[0] = 0;
        if (url_parse(text, &url, error, sizeof error) == 0) {
            taken++;
            ck_assert_uint_ge(url.place_count, 1);
            ck_assert_str_ne(url.display, "");
            ck_assert((url.places[0].host[0] != 0) != (url.places[0].path[0] != 0));
        } else {
            ck_assert_str_ne(error, "");
        }
    }
    ck_assert_int_gt(taken, 100);
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
    refused("redis://[hello]", "IPv6");
    refused("redis://h,i", "character");
    refused("redis://h/1/2", "database");
    refused("redis://@host", "user");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("url");
    TCase *all = tcase_create("url");
    tcase_add_test(all, tcp);
    tcase_add_test(all, unix_sockets);
    tcase_add_test(all, sentinels);
    tcase_add_test(all, clusters);
    tcase_add_test(all, display_is_cut);
    tcase_add_test(all, places_of_servers);
    tcase_add_test(all, chance);
    tcase_add_test(all, passwords_are_refused);
    tcase_add_test(all, nonsense);
    suite_add_tcase(suite, all);
    return harness_run(suite);
}
