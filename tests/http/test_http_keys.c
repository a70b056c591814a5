/* test_http_keys.c: what a request's key is, in all three forms; what it is to the cache; entity
 * tags and dates.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"
#include "tests/http/messages.h"

static char key_text[LARDER_KEY_MAX + 1];

/* The key, or the error's number as text. */
static const char *key(const char *line, const char *headers, larder_http_key_options options)
{
    larder_http_request request = message_request(line, headers);
    larder_bytes made = {NULL, 0};
    int result = larder_http_key(&request, &options, message_arena(), &made);
    if (result != LARDER_OK) {
        snprintf(key_text, sizeof key_text, "%d", result);
        return key_text;
    }
    memcpy(key_text, made.data, made.size);
    key_text[made.size] = '\0';
    return key_text;
}

static const char *route(const char *line, const char *prefix, const char *group)
{
    return key(
        line, NULL,
        (larder_http_key_options){.prefix = message_text(prefix), .group = message_text(group)});
}

START_TEST(keys_of_routes)
{
    static const char sdk[] = "redis:fastapi:cache";
    const struct {
        const char *line, *prefix, *group, *key;
    } cases[] = {
        {"GET /api/v1/items", sdk, "products", "redis:fastapi:cache:{products}:api:v1:items"},
        {"GET /items?z=2&a=1", sdk, "products", "redis:fastapi:cache:{products}:items:a=1:z=2"},
        {"GET /api/v1/items", sdk, NULL, "redis:fastapi:cache:api:v1:items"},
        {"PUT /api/v1/items", sdk, NULL, "redis:fastapi:cache:api:v1:items"},
        {"GET /", "p", NULL, "p"},
        {"GET /", "p", "g", "p:{g}"},
        {"GET /?a=1", "p", NULL, "p:a=1"},
        {"GET //a/b//", "p", NULL, "p:a:b"},
        {"GET /a//b", "p", NULL, "p:a::b"},
        {"GET /a/b", NULL, NULL, "a:b"},
        {"GET /a/b", NULL, "g", "{g}:a:b"},
        {"GET /?x=1", NULL, NULL, "x=1"},
        {"GET /items:a=1", "p", NULL, "p:items%3Aa%3D1"},
        {"GET /items/a=1", "p", NULL, "p:items:a%3D1"},
        {"GET /items?a=1", "p", NULL, "p:items:a=1"},
        {"GET /%7Bproducts%7D/x", "p", NULL, "p:%7Bproducts%7D:x"},
        {"GET /{products}/x", "p", NULL, "p:%7Bproducts%7D:x"},
        {"GET /a%2Fb", "p", NULL, "p:a%2Fb"},
        {"GET /a%2fb", "p", NULL, "p:a%2Fb"},
        {"GET /%61%7e", "p", NULL, "p:a~"},
        {"GET /a%zz%4", "p", NULL, "p:a%25zz%254"},
        {"GET /a%2561", "p", NULL, "p:a%2561"},
        {"GET /caf%C3%A9", "p", NULL, "p:caf\xc3\xa9"},
        {"GET /a#b", "p", NULL, "p:a%23b"},
        {"GET /x?a=1%26b=2", "p", NULL, "p:x:a=1%26b%3D2"},
        {"GET /x?a=1&b=2", "p", NULL, "p:x:a=1:b=2"},
        {"GET /x?a=1:b=2", "p", NULL, "p:x:a=1%3Ab%3D2"},
        {"GET /x?a%3D1=2", "p", NULL, "p:x:a%3D1=2"},
        {"GET /x?a=1=2", "p", NULL, "p:x:a=1%3D2"},
        {"GET /x?q=a+b", "p", NULL, "p:x:q=a b"},
        {"GET /x?q=a%20b", "p", NULL, "p:x:q=a b"},
        {"GET /x?q=a%2Bb", "p", NULL, "p:x:q=a+b"},
        {"GET /x?b=2&a=9&b=1&a=8", "p", NULL, "p:x:a=9:a=8:b=2:b=1"},
        {"GET /x?b&a=&=c", "p", NULL, "p:x:=c:a=:b="},
        {"GET /x?&&a=1&&", "p", NULL, "p:x:a=1"},
        {"GET /x?", "p", NULL, "p:x"},
        {"GET /x?%62=2&a=1", "p", NULL, "p:x:a=1:b=2"},
        {"GET /x?ab=1&a=2&abc=3", "p", NULL, "p:x:a=2:ab=1:abc=3"},
        {"GET /x?\xc3\xa9=1&z=2", "p", NULL, "p:x:z=2:\xc3\xa9=1"},
        {"GET /x", "p", "a}:{b", "p:{a%7D:%7Bb}:x"},
        {"GET /x", "p", "100%", "p:{100%25}:x"},
        {"GET /x", "p", "g*[?", "p:{g*[?}:x"},
        {"GET /", NULL, NULL, "-1003"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_str_eq(route(cases[i].line, cases[i].prefix, cases[i].group), cases[i].key);
    }
}
END_TEST

START_TEST(keys_by_method_and_user)
{
    const struct {
        const char *line, *user, *key;
    } cases[] = {
        {"GET /items?b=1&a=2", NULL, "m:GET::items:a=2:b=1"},
        {"HEAD /items", NULL, "m:GET::items"},
        {"POST /items", NULL, "m:POST::items"},
        {"GET /items", "7", "m:GET:7:items"},
        {"GET /7/items", NULL, "m:GET::7:items"},
        {"GET /items", "a:b/c", "m:GET:a%3Ab%2Fc:items"},
        {"GET /", "u", "m:GET:u"},
        {"get /x", NULL, "m:get::x"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        larder_http_key_options options = {.form = LARDER_HTTP_KEY_METHOD,
                                           .prefix = message_text("m"),
                                           .user = message_text(cases[i].user)};
        ck_assert_str_eq(key(cases[i].line, NULL, options), cases[i].key);
    }
}
END_TEST

START_TEST(keys_by_uri)
{
    const struct {
        const char *line, *host, *scheme, *key;
    } cases[] = {
        {"GET /a?b=1", "Host: Example.ORG", NULL, "http://example.org/a?b=1"},
        {"GET /a", "Host: example.org:80", NULL, "http://example.org/a"},
        {"GET /a", "Host: example.org:443", "https", "https://example.org/a"},
        {"GET /a", "Host: example.org:80", "https", "https://example.org:80/a"},
        {"GET /a", "Host: example.org:", "HTTP", "http://example.org/a"},
        {"GET /a", "Host: [::1]:8080", NULL, "http://[::1]:8080/a"},
        {"GET ", "Host: h", NULL, "http://h/"},
        {"GET /%7euser/%c3%a9", "Host: h", NULL, "http://h/~user/%C3%A9"},
        {"GET /a%2fb", "Host: h", NULL, "http://h/a%2Fb"},
        {"GET /a/b", "Host: h", NULL, "http://h/a/b"},
        {"GET /a?z=1&a=2", "Host: h", NULL, "http://h/a?z=1&a=2"},
        {"GET /a?", "Host: h", NULL, "http://h/a"},
        {"GET /%zz", "Host: h", NULL, "http://h/%zz"},
        {"GET /\xc3\xa9", "Host: h", NULL, "http://h/%C3%A9"},
        {"GET /a", "Host: h/evil?x#y", NULL, "http://h%2Fevil%3Fx%23y/a"},
        {"GET /a", NULL, NULL, "-1003"},
        {"GET /a", "Host: one\nHost: two", NULL, "-1003"},
        {"GET /a", "Host:", NULL, "-1003"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        larder_http_request request = message_request(cases[i].line, cases[i].host);
        larder_http_key_options options = {.form = LARDER_HTTP_KEY_URI};
        larder_bytes made = {NULL, 0};
        request.scheme = message_text(cases[i].scheme);
        int result = larder_http_key(&request, &options, message_arena(), &made);
        if (result == LARDER_OK) {
            snprintf(key_text, sizeof key_text, "%.*s", (int)made.size, (const char *)made.data);
        } else {
            snprintf(key_text, sizeof key_text, "%d", result);
        }
        ck_assert_str_eq(key_text, cases[i].key);
    }
}
END_TEST

START_TEST(limits_of_keys)
{
    static char line[LARDER_KEY_MAX * 2];
    larder_http_key_options options = {.prefix = message_text("p")};
    larder_http_request request;
    larder_bytes made = {NULL, 0};
    uint64_t memory[4];
    larder_http_arena small = {.data = memory, .size = 10};

    request = message_request("GET /abcdefgh", NULL);
    ck_assert_int_eq(larder_http_key(&request, &options, &small, &made), LARDER_OK);
    ck_assert_uint_eq(small.used, 10);
    ck_assert_mem_eq(made.data, "p:abcdefgh", 10);
    small = (larder_http_arena){.data = memory, .size = 9};
    ck_assert_int_eq(larder_http_key(&request, &options, &small, &made), LARDER_ESIZE);
    ck_assert_uint_eq(small.used, 0);
    ck_assert_uint_ge(small.wanted, 10);
    small = (larder_http_arena){.data = NULL};
    ck_assert_int_eq(larder_http_key(&request, &options, &small, &made), LARDER_ESIZE);
    ck_assert_uint_ge(small.wanted, 10);
    request = message_request("GET /x?a=1", NULL);
    ck_assert_int_eq(larder_http_key(&request, &options, &small, &made), LARDER_ESIZE);
    ck_assert_uint_ge(small.wanted, 7);

    memset(line, 'a', sizeof line - 1);
    memcpy(line, "GET /", 5);
    ck_assert_str_eq(key(line, NULL, options), "-1004");
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "65535"));
    memset(line + 5, ':', 30000); /* three bytes each */
    line[5 + 30000] = '\0';
    ck_assert_str_eq(key(line, NULL, options), "-1004");
    memcpy(line, "GET /?", 6);
    for (size_t i = 0; i < 1025; i++) {
        memcpy(line + 6 + 2 * i, "a&", 3);
    }
    ck_assert_str_eq(key(line, NULL, options), "-1004");
    options.form = 3;
    ck_assert_str_eq(key("GET /x", NULL, options), "-1003");
    options = (larder_http_key_options){.reserved = {1}};
    ck_assert_str_eq(key("GET /x", NULL, options), "-1003");
}
END_TEST

START_TEST(what_connection_takes_away_goes_by_a_gateway)
{
    const struct {
        const char *headers;
        int kind;
    } cases[] = {
        {"Connection: close", LARDER_HTTP_LOOKUP},
        {"Connection: Keep-Alive, TE", LARDER_HTTP_LOOKUP},
        {"Connection: upgrade ,, Transfer-Encoding, trailer", LARDER_HTTP_LOOKUP},
        {"Connection: proxy-connection", LARDER_HTTP_LOOKUP},
        {"Connection:", LARDER_HTTP_LOOKUP},
        {"Connection: Host", LARDER_HTTP_BYPASS},
        {"Connection: close, Accept-Language", LARDER_HTTP_BYPASS},
        {"Connection: close\nConnection: Cookie", LARDER_HTTP_BYPASS},
        {"Connection: not a name", LARDER_HTTP_BYPASS},
    };
    const larder_http_policy gateway = {.kind = LARDER_HTTP_GATEWAY};
    const larder_http_policy route = {.kind = LARDER_HTTP_ROUTE};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        larder_http_request request = message_request("GET /", cases[i].headers);
        ck_assert_msg(larder_http_classify(&gateway, &request) == cases[i].kind, "%s",
                      cases[i].headers);
        ck_assert_int_eq(larder_http_classify(&route, &request), LARDER_HTTP_LOOKUP);
    }
}
END_TEST

START_TEST(what_requests_are)
{
    const struct {
        const char *line, *headers;
        int kind;
    } cases[] = {
        {"GET /", NULL, LARDER_HTTP_LOOKUP},
        {"HEAD /", NULL, LARDER_HTTP_LOOKUP},
        {"GET /", "Cache-Control: no-cache", LARDER_HTTP_LOOKUP},
        {"GET /", "Cache-Control: max-age=0, no-store", LARDER_HTTP_BYPASS},
        {"GET /", "cache-control: NO-STORE", LARDER_HTTP_BYPASS},
        {"GET /", "Cache-Control: x=\"no-store\"", LARDER_HTTP_LOOKUP},
        {"GET /", "Range: bytes=0-1", LARDER_HTTP_BYPASS},
        {"GET /", "If-Match: \"a\"", LARDER_HTTP_BYPASS},
        {"GET /", "If-Unmodified-Since: x", LARDER_HTTP_BYPASS},
        {"GET /", "If-None-Match: \"a\"", LARDER_HTTP_LOOKUP},
        {"GET /", "Bad Name: x", LARDER_HTTP_BYPASS},
        {"OPTIONS /", NULL, LARDER_HTTP_BYPASS},
        {"TRACE /", NULL, LARDER_HTTP_BYPASS},
        {"POST /", NULL, LARDER_HTTP_UNSAFE},
        {"PUT /", NULL, LARDER_HTTP_UNSAFE},
        {"DELETE /", NULL, LARDER_HTTP_UNSAFE},
        {"get /", NULL, LARDER_HTTP_UNSAFE},
        {"BREW /", "Cache-Control: no-store", LARDER_HTTP_UNSAFE},
    };
    const larder_http_policy route_policy = {.kind = LARDER_HTTP_ROUTE};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        larder_http_request request = message_request(cases[i].line, cases[i].headers);
        ck_assert_msg(larder_http_classify(&route_policy, &request) == cases[i].kind, "%s with %s",
                      cases[i].line, cases[i].headers);
    }
    static larder_http_header many[LARDER_HTTP_HEADERS_MAX + 1];
    larder_http_request request = message_request("GET /", NULL);
    for (size_t i = 0; i < sizeof many / sizeof many[0]; i++) {
        many[i] = (larder_http_header){{"x", 1}, {"", 0}};
    }
    request.headers = many;
    request.header_count = LARDER_HTTP_HEADERS_MAX;
    ck_assert_int_eq(larder_http_classify(&route_policy, &request), LARDER_HTTP_LOOKUP);
    request.header_count++;
    ck_assert_int_eq(larder_http_classify(&route_policy, &request), LARDER_HTTP_BYPASS);
}
END_TEST

START_TEST(policies_that_are_not_valid)
{
    const larder_http_policy cases[] = {
        {.kind = 2},
        {.flags = 8},
        {.ttl_ms = -1},
        {.expires_ms = -1},
        {.stale_while_revalidate_ms = -1},
        {.stale_if_error_ms = -1},
        {.heuristic_max_ms = -1},
        {.status_header = {"X Cache", 7}},
        {.reserved = {1}},
    };
    larder_http_request request = message_request("GET /", NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_int_eq(larder_http_classify(&cases[i], &request), LARDER_EINVAL);
    }
}
END_TEST

START_TEST(entity_tags_are_the_same_everywhere)
{
    char etag[LARDER_HTTP_ETAG_SIZE], other[LARDER_HTTP_ETAG_SIZE];
    larder_http_etag((larder_bytes){NULL, 0},
                     etag); /* XXH3-128 of nothing, as xxHash's tests have it */
    ck_assert_str_eq(etag, "W/\"99aa06d3014798d86001c324468d497f\"");
    larder_http_etag(message_text("{\"id\":1}"), etag);
    larder_http_etag(message_text("{\"id\":2}"), other);
    ck_assert_uint_eq(strlen(etag), LARDER_HTTP_ETAG_SIZE - 1);
    ck_assert_str_ne(etag, other);
}
END_TEST

START_TEST(dates)
{
    const struct {
        const char *text;
        int64_t ms; /* -1: refused */
    } cases[] = {
        {"Sun, 06 Nov 1994 08:49:37 GMT", INT64_C(784111777000)},
        {"Sunday, 06-Nov-94 08:49:37 GMT", INT64_C(784111777000)},
        {"Sun Nov  6 08:49:37 1994", INT64_C(784111777000)},
        {"Wed Nov 16 08:49:37 1994", INT64_C(784975777000)},
        {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
        {"Thu, 29 Feb 2024 23:59:60 GMT", INT64_C(1709251200000)},
        {"Friday, 01-Jan-60 00:00:00 GMT", INT64_C(2840140800000)}, /* 2060 */
        {"Friday, 01-Jan-77 00:00:00 GMT", INT64_C(220924800000)},  /* 1977 */
        {"Thu, 29 Feb 2023 00:00:00 GMT", -1},
        {"Sun, 31 Apr 1994 08:49:37 GMT", -1},
        {"Sun, 06 Nov 1994 24:00:00 GMT", -1},
        {"Sun, 06 Nov 1994 08:60:00 GMT", -1},
        {"Sun, 6 Nov 1994 08:49:37 GMT", -1},
        {"Sun, 06 nov 1994 08:49:37 GMT", -1},
        {"Sun, 06 Nov 1994 08:49:37 UTC", -1},
        {"Sun, 06 Nov 1994 08:49:37 GMT ", -1},
        {"Sun, 06 Nov 1994 08:49:37", -1},
        {"Sun, 00 Nov 1994 08:49:37 GMT", -1},
        {"06 Nov 1994 08:49:37 GMT", -1},
        {"0", -1},
        {"-1", -1},
        {"", -1},
    };
    const int64_t now_ms = INT64_C(1795650000000); /* November 2026 */
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t ms = -1;
        int result = larder_http_date_read(message_text(cases[i].text), now_ms, &ms);
        ck_assert_msg(result == (cases[i].ms < 0 ? LARDER_EINVAL : LARDER_OK), "%s: %d",
                      cases[i].text, result);
        ck_assert_msg(ms == cases[i].ms, "%s: %lld", cases[i].text, (long long)ms);
    }
    char text[LARDER_HTTP_DATE_SIZE];
    larder_http_date_write(INT64_C(784111777999), text);
    ck_assert_str_eq(text, "Sun, 06 Nov 1994 08:49:37 GMT");
    larder_http_date_write(-5, text);
    ck_assert_str_eq(text, "Thu, 01 Jan 1970 00:00:00 GMT");
    larder_http_date_write(INT64_MAX, text);
    ck_assert_str_eq(text, "Fri, 31 Dec 9999 23:59:59 GMT");
}
END_TEST

START_TEST(dates_go_both_ways)
{
    uint64_t stream = harness_seed();
    for (int round = 0; round < 20000; round++) {
        int64_t ms = (int64_t)(harness_random(&stream) % UINT64_C(253402300800)) * 1000, again;
        char text[LARDER_HTTP_DATE_SIZE];
        larder_http_date_write(ms, text);
        ck_assert_int_eq(larder_http_date_read(message_text(text), 0, &again), LARDER_OK);
        ck_assert_int_eq(ms, again);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("http_keys");
    TCase *tests = tcase_create("http_keys");
    tcase_add_test(tests, keys_of_routes);
    tcase_add_test(tests, keys_by_method_and_user);
    tcase_add_test(tests, keys_by_uri);
    tcase_add_test(tests, limits_of_keys);
    tcase_add_test(tests, what_requests_are);
    tcase_add_test(tests, what_connection_takes_away_goes_by_a_gateway);
    tcase_add_test(tests, policies_that_are_not_valid);
    tcase_add_test(tests, entity_tags_are_the_same_everywhere);
    tcase_add_test(tests, dates);
    tcase_add_test(tests, dates_go_both_ways);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
