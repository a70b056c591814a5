/* test_http_rules.c: what takes more than one line of cases.txt: pages that come to vary, updates
 * by 304, invalidation, answers that are not stored, too little memory, wrong arguments.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/headers.h"
#include "http/text.h"
#include "tests/harness.h"
#include "tests/http/messages.h"

#define NOW INT64_C(1795651200000)

static const larder_http_policy route = {.kind = LARDER_HTTP_ROUTE, .ttl_ms = 60000},
                                gateway = {.kind = LARDER_HTTP_GATEWAY};

/* ---- A map of a few entries, and a client of it
 * --------------------------------------------------- */

enum { ENTRIES = 16 };

struct entry {
    char *key, *value;
    size_t key_size, value_size;
};

static struct entry map[ENTRIES];
static int64_t now_ms;

static struct entry *entry_of(larder_bytes key)
{
    struct entry *empty = NULL;
    for (unsigned i = 0; i < ENTRIES; i++) {
        if (map[i].key == NULL) {
            empty = empty == NULL ? &map[i] : empty;
        } else if (text_same((larder_bytes){map[i].key, map[i].key_size}, key)) {
            return &map[i];
        }
    }
    return empty;
}

static char *copy_of(larder_bytes bytes)
{
    char *copy = malloc(bytes.size + 1);
    memcpy(copy, bytes.data, bytes.size);
    return copy;
}

static void map_delete(struct entry *entry)
{
    free(entry->key);
    free(entry->value);
    *entry = (struct entry){NULL, NULL, 0, 0};
}

static void map_set(const larder_http_write *write)
{
    struct entry *entry = entry_of(write->key);
    ck_assert_ptr_nonnull(entry);
    map_delete(entry);
    *entry = (struct entry){copy_of(write->key), copy_of(write->value), write->key.size,
                            write->value.size};
}

static unsigned map_count(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < ENTRIES; i++) {
        count += map[i].key != NULL;
    }
    return count;
}

static void map_clear(void)
{
    for (unsigned i = 0; i < ENTRIES; i++) {
        map_delete(&map[i]);
    }
    now_ms = NOW;
}

static larder_http_plan plan; /* of the last store */

/* Ask for the page "k" and fill the cache with what the origin answers. Returns the body that the
 * client gets: "hit" bodies come from the map. */
static const char *get(const larder_http_policy *policy, const char *headers,
                       const char *response_headers, const char *body)
{
    static char text[256];
    larder_http_arena *arena = message_arena();
    larder_http_request request = message_request("GET /", headers);
    larder_http_response response = message_response(200, response_headers, body);
    larder_http_stored found, chosen;
    const larder_http_stored *primary = NULL, *page = NULL;
    larder_bytes key = message_text("k"), variant = {NULL, 0};
    struct entry *entry = entry_of(key);
    if (entry != NULL && entry->key != NULL) {
        larder_bytes value = {entry->value, entry->value_size};
        ck_assert_int_eq(larder_http_decode(value, arena, &found), LARDER_OK);
        primary = &found;
        int selected = larder_http_select(policy, &request, key, primary, arena, &variant);
        page = selected == LARDER_HTTP_CHOSEN ? primary : NULL;
        entry = selected == LARDER_HTTP_VARIANT ? entry_of(variant) : NULL;
        if (entry != NULL && entry->key != NULL) {
            value = (larder_bytes){entry->value, entry->value_size};
            ck_assert_int_eq(larder_http_decode(value, arena, &chosen), LARDER_OK);
            selected = larder_http_select(policy, &request, key, &chosen, arena, &variant);
            page = selected == LARDER_HTTP_CHOSEN ? &chosen : NULL;
        }
    }
    larder_http_decision decision;
    ck_assert_int_eq(larder_http_serve(policy, &request, page, now_ms, &decision), LARDER_OK);
    if (page != NULL && decision.action == LARDER_HTTP_SERVE) {
        snprintf(text, sizeof text, "%.*s", (int)page->response.body.size,
                 (const char *)page->response.body.data);
        return text;
    }
    static uint64_t seed;
    seed++;
    larder_http_place place = {
        .key = key, .found = primary, .request_ms = now_ms, .response_ms = now_ms, .seed = seed};
    int stored = larder_http_store(policy, &request, &response, &place, arena, &plan);
    ck_assert(stored == LARDER_OK || stored == LARDER_SKIP);
    for (uint32_t i = 0; i < plan.write_count; i++) {
        map_set(&plan.writes[i]);
    }
    return body;
}

START_TEST(a_page_that_varies_has_a_copy_for_each)
{
    const char *vary = "Vary: Accept-Language";
    map_clear();
    ck_assert_str_eq(get(&route, "Accept-Language: de", vary, "de"), "de");
    ck_assert_uint_eq(map_count(), 2); /* the note, and the page */
    ck_assert_str_eq(get(&route, "Accept-Language: en", vary, "en"), "en");
    ck_assert_uint_eq(map_count(), 3);
    ck_assert_str_eq(get(&route, "Accept-Language: de", vary, "X"), "de");
    ck_assert_str_eq(get(&route, "Accept-Language: en", vary, "X"), "en");
    /* more names: a new note, and the old pages are out of reach */
    now_ms += 60000;
    ck_assert_str_eq(get(&route, "Accept-Language: de", "Vary: X-A", "de2"), "de2");
    ck_assert_str_eq(get(&route, "Accept-Language: en", "Vary: X-A", "en2"), "en2");
    ck_assert_str_eq(get(&route, "Accept-Language: en\nX-A: 1", "Vary: X-A", "en3"), "en3");
    ck_assert_str_eq(get(&route, "Accept-Language: de", vary, "X"), "de2");
    ck_assert_str_eq(get(&route, "Accept-Language: en", vary, "X"), "en2");
    ck_assert_str_eq(get(&route, "Accept-Language: en\nX-A: 1", vary, "X"), "en3");
    map_clear();
}
END_TEST

START_TEST(deleting_the_key_deletes_all_variants)
{
    const char *vary = "Vary: Accept-Language";
    map_clear();
    get(&route, "Accept-Language: de", vary, "de");
    get(&route, "Accept-Language: en", vary, "en");
    map_delete(entry_of(message_text("k")));
    /* in the very same millisecond, with the same page */
    ck_assert_str_eq(get(&route, "Accept-Language: de", vary, "de"), "de");
    ck_assert_str_eq(get(&route, "Accept-Language: en", vary, "en-new"), "en-new");
    ck_assert_str_eq(get(&route, "Accept-Language: de", vary, "X"), "de");
    map_clear();
}
END_TEST

START_TEST(users_have_pages_of_their_own)
{
    map_clear();
    ck_assert_str_eq(get(&route, NULL, NULL, "for all"), "for all");
    ck_assert_str_eq(get(&route, "Cookie: a", NULL, "a's"), "a's");
    ck_assert_str_eq(get(&route, "Cookie: b", NULL, "b's"), "b's");
    ck_assert_uint_eq(map_count(), 3); /* no note: the page for all keeps its place */
    ck_assert_str_eq(get(&route, NULL, NULL, "X"), "for all");
    ck_assert_str_eq(get(&route, "Cookie: a", NULL, "X"), "a's");
    ck_assert_str_eq(get(&route, "Cookie: b", NULL, "X"), "b's");
    ck_assert_str_eq(get(&route, "Authorization: a", NULL, "c's"), "c's");
    /* made anew while the old one was at hand: the users' pages stay in reach */
    larder_http_request request = message_request("GET /", NULL);
    larder_http_response response = message_response(200, NULL, "for all 2");
    struct entry *entry = entry_of(message_text("k"));
    larder_http_stored found;
    larder_http_arena *arena = message_arena();
    ck_assert_int_eq(
        larder_http_decode((larder_bytes){entry->value, entry->value_size}, arena, &found),
        LARDER_OK);
    larder_http_place place = {.key = message_text("k"),
                               .found = &found,
                               .request_ms = now_ms + 1,
                               .response_ms = now_ms + 1};
    ck_assert_int_eq(larder_http_store(&route, &request, &response, &place, arena, &plan),
                     LARDER_OK);
    map_set(&plan.writes[0]);
    ck_assert_str_eq(get(&route, NULL, NULL, "X"), "for all 2");
    ck_assert_str_eq(get(&route, "Cookie: a", NULL, "X"), "a's");
    /* gone from the key: gone for all users */
    map_delete(entry_of(message_text("k")));
    ck_assert_str_eq(get(&route, "Cookie: a", NULL, "a's 2"), "a's 2");
    ck_assert_str_eq(get(&route, "Cookie: b", NULL, "b's 2"), "b's 2");
    ck_assert_str_eq(get(&route, NULL, NULL, "nobody's"), "nobody's");
    ck_assert_str_eq(get(&route, NULL, NULL, "X"), "nobody's");
    map_clear();
}
END_TEST

/* Any sequence of users and responses: a page that was made for one never reaches another, unless
 * its origin called it public. */
START_TEST(no_page_goes_to_another_user)
{
    static const char *const users[] = {NULL,
                                        "Cookie: a",
                                        "Cookie: b",
                                        "Authorization: a",
                                        "Cookie: a\nAuthorization: a",
                                        "Authorization: b",
                                        "Accept: x\nCookie: a",
                                        "Accept: x",
                                        "Accept: x\nCookie: b"};
    static const char *const responses[] = {NULL,
                                            "Cache-Control: private",
                                            "Vary: Accept",
                                            "Vary: Cookie",
                                            "Vary: Accept, Authorization",
                                            "Cache-Control: max-age=60",
                                            "Cache-Control: max-age=60\nVary: Cookie"};
    larder_http_policy policies[] = {route, route, gateway};
    uint64_t stream = harness_seed();
    policies[1].flags = LARDER_HTTP_PRIVATE;
    for (int round = 0; round < 2000; round++) {
        map_clear();
        const larder_http_policy *policy = &policies[harness_random(&stream) % 3];
        for (int step = 0; step < 12; step++) {
            size_t user = harness_random(&stream) % (sizeof users / sizeof users[0]);
            size_t response = harness_random(&stream) % (sizeof responses / sizeof responses[0]);
            char own[16];
            /* who a page is for: the user's number without what tells no users apart */
            size_t who = user == 6 ? 1 : user == 7 ? 0 : user == 8 ? 2 : user;
            snprintf(own, sizeof own, "%zu", who);
            ck_assert_str_eq(get(policy, users[user], responses[response], own), own);
            now_ms += (int64_t)(harness_random(&stream) % 30000);
            if (harness_random(&stream) % 8 == 0) {
                map_delete(entry_of(message_text("k")));
            }
            if (map_count() > ENTRIES - 3) {
                map_clear();
            }
        }
    }
    map_clear();
}
END_TEST

START_TEST(how_long_the_map_keeps_it)
{
    larder_http_policy policy = {
        .kind = LARDER_HTTP_ROUTE, .ttl_ms = 60000, .stale_while_revalidate_ms = 5000};
    map_clear();
    get(&policy, NULL, NULL, "a");
    ck_assert_uint_eq(plan.writes[0].policy.expiry.kind, LARDER_EXPIRY_AT);
    ck_assert_int_eq(plan.writes[0].policy.expiry.ms, NOW + 60000);
    ck_assert_int_eq(plan.writes[0].policy.stale_ms, 5000);
    map_clear();
    policy.ttl_ms = 0;
    get(&policy, NULL, NULL, "a");
    ck_assert_uint_eq(plan.writes[0].policy.expiry.kind, LARDER_EXPIRY_NEVER);
    ck_assert_int_eq(plan.writes[0].policy.stale_ms, 0);
    map_clear();
    get(&gateway, NULL, "Cache-Control: max-age=60", "a"); /* to be revalidated for a day */
    ck_assert_int_eq(plan.writes[0].policy.expiry.ms, NOW + 60000);
    ck_assert_int_eq(plan.writes[0].policy.stale_ms, 86400000);
    map_clear();
    get(&route, NULL, "Vary: A", "a"); /* the note stays longer than the pages */
    ck_assert_uint_eq(plan.write_count, 2);
    ck_assert(text_is(plan.writes[0].key, "k"));
    ck_assert_int_eq(plan.writes[0].policy.expiry.ms, NOW + 86400000 + 120000);
    ck_assert_int_eq(plan.writes[1].policy.expiry.ms, NOW + 60000);
    map_clear();
    policy.ttl_ms = INT64_MAX - 5;
    get(&policy, NULL, NULL, "a");
    ck_assert_uint_eq(plan.writes[0].policy.expiry.kind, LARDER_EXPIRY_NEVER);
    map_clear();
}
END_TEST

/* ---- Updates
 * --------------------------------------------------------------------------------------
 */

static const char *header(const larder_http_response *response, const char *name)
{
    static char text[256];
    larder_bytes value = headers_first(headers_of_response(response), name);
    snprintf(text, sizeof text, "%.*s", (int)value.size, (const char *)value.data);
    return text;
}

/* RFC 9111, 4.3.4, line by line: what a 304 carries, what the stored response has, and whether the
 * one speaks of the other. */
START_TEST(a_304_names_the_response_that_it_updates)
{
    static const struct {
        const char *stored, *same;
        int result;
    } rows[] = {
        /* strong: only the same strong one */
        {"ETag: \"a\"", "ETag: \"a\"", LARDER_OK},
        {"ETag: \"a\"", "ETag: \"b\"", LARDER_CONFLICT},
        {"ETag: W/\"a\"", "ETag: \"a\"", LARDER_CONFLICT},
        {"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
         "ETag: \"a\"\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT", LARDER_CONFLICT},
        /* weak: what it matches weakly */
        {"ETag: W/\"a\"", "ETag: W/\"a\"", LARDER_OK},
        {"ETag: \"a\"", "ETag: W/\"a\"", LARDER_OK},
        {"ETag: W/\"a\"", "ETag: W/\"b\"", LARDER_CONFLICT},
        {"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
         "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", LARDER_OK},
        {"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
         "Last-Modified: Mon, 07 Nov 1994 08:49:37 GMT", LARDER_CONFLICT},
        {"ETag: \"a\"", "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", LARDER_CONFLICT},
        /* none: it answers what was asked, which an origin with entity tags does with one */
        {"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", "X: 1", LARDER_OK},
        {"ETag: \"a\"", "X: 1", LARDER_CONFLICT},
        {"ETag: W/\"a\"", "X: 1", LARDER_CONFLICT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        larder_http_arena *arena = message_arena();
        larder_http_request request = message_request("GET /", NULL);
        char fields[256];
        snprintf(fields, sizeof fields, "Cache-Control: max-age=60\n%s", rows[i].stored);
        larder_http_response fresh = message_response(200, fields, "body");
        larder_http_place place = {.key = message_text("k"), .request_ms = NOW, .response_ms = NOW};
        larder_http_plan first, second;
        ck_assert_int_eq(larder_http_store(&gateway, &request, &fresh, &place, arena, &first),
                         LARDER_OK);
        place.found = &first.stored;
        larder_http_response same = message_response(304, rows[i].same, NULL);
        ck_assert_msg(larder_http_update(&gateway, &request, &first.stored, &same, &place, arena,
                                         &second) == rows[i].result,
                      "a 304 with \"%s\" for a response with \"%s\"", rows[i].same, rows[i].stored);
    }
}
END_TEST

START_TEST(a_304_with_a_cookie_is_for_its_client_alone)
{
    larder_http_arena *arena = message_arena();
    larder_http_request request = message_request("GET /", NULL);
    larder_http_response fresh =
        message_response(200, "Cache-Control: max-age=60\nETag: \"a\"\nContent-Type: t/x", "body");
    larder_http_place place = {.key = message_text("k"), .request_ms = NOW, .response_ms = NOW};
    larder_http_plan first, second;
    larder_http_response answer;
    ck_assert_int_eq(larder_http_store(&gateway, &request, &fresh, &place, arena, &first),
                     LARDER_OK);
    place.found = &first.stored;
    larder_http_response same = message_response(
        304, "ETag: \"a\"\nSet-Cookie: a=b\nSet-Cookie: c=d\nConnection: X-A\nX-A: 1", NULL);
    ck_assert_int_eq(
        larder_http_update(&gateway, &request, &first.stored, &same, &place, arena, &second),
        LARDER_SKIP);
    ck_assert_uint_eq(second.reason, LARDER_HTTP_WHY_SET_COOKIE);
    ck_assert_uint_eq(second.write_count, 0);
    ck_assert_int_eq(larder_http_answer(&gateway, &request, &second.stored.response, NULL,
                                        LARDER_HTTP_REVALIDATED, NOW, arena, &answer),
                     LARDER_OK);
    ck_assert_uint_eq(answer.status, 200);
    ck_assert(text_is(answer.body, "body"));
    ck_assert_str_eq(header(&answer, "content-type"), "t/x");
    ck_assert_str_eq(header(&answer, "set-cookie"), "a=b");
    ck_assert_str_eq(header(&answer, "x-a"), "");
    ck_assert_uint_eq(answer.header_count, 5);
    /* a client that has the page gets the cookies with its 304 */
    request = message_request("GET /", "If-None-Match: \"a\"");
    ck_assert_int_eq(larder_http_answer(&gateway, &request, &second.stored.response, NULL,
                                        LARDER_HTTP_REVALIDATED, NOW, arena, &answer),
                     LARDER_OK);
    ck_assert_uint_eq(answer.status, 304);
    ck_assert_str_eq(header(&answer, "set-cookie"), "a=b");
    ck_assert_str_eq(header(&answer, "content-type"), "");
    /* and nobody else does */
    ck_assert_int_eq(larder_http_answer(&gateway, &request, &first.stored.response, &first.stored,
                                        LARDER_HTTP_HIT, NOW, arena, &answer),
                     LARDER_OK);
    ck_assert_str_eq(header(&answer, "set-cookie"), "");
}
END_TEST

START_TEST(a_304_freshens_what_is_stored)
{
    larder_http_arena *arena = message_arena();
    larder_http_request request = message_request("GET /", NULL);
    larder_http_response fresh = message_response(
        200, "Cache-Control: max-age=60\nETag: \"a\"\nX-A: 1\nX-A: 2\nContent-Type: t/x", "body");
    larder_http_place place = {.key = message_text("k"), .request_ms = NOW, .response_ms = NOW};
    larder_http_plan first, second;
    ck_assert_int_eq(larder_http_store(&gateway, &request, &fresh, &place, arena, &first),
                     LARDER_OK);
    place.request_ms = place.response_ms = NOW + 100000;
    place.found = &first.stored;
    larder_http_response same = message_response(
        304, "Cache-Control: max-age=90\nETag: \"a\"\nX-A: 3\nContent-Type: u/y\nContent-Length: 9",
        NULL);
    ck_assert_int_eq(
        larder_http_update(&gateway, &request, &first.stored, &same, &place, arena, &second),
        LARDER_OK);
    ck_assert_uint_eq(second.stored.response.status, 200);
    ck_assert(text_is(second.stored.response.body, "body"));
    ck_assert_int_eq(second.stored.made_ms, NOW + 100000);
    ck_assert_int_eq(second.stored.lifetime_ms, 90000);
    ck_assert_str_eq(header(&second.stored.response, "x-a"), "3");
    ck_assert_str_eq(header(&second.stored.response, "content-type"), "t/x");
    ck_assert(second.writes[0].value.size > 0);

    same = message_response(304, "ETag: \"b\"", NULL);
    ck_assert_int_eq(
        larder_http_update(&gateway, &request, &first.stored, &same, &place, arena, &second),
        LARDER_CONFLICT);
    same = message_response(304, "ETag: W/\"a\"", NULL);
    ck_assert_int_eq(
        larder_http_update(&gateway, &request, &first.stored, &same, &place, arena, &second),
        LARDER_OK);
    same = message_response(304, "Cache-Control: no-store\nETag: \"a\"", NULL);
    ck_assert_int_eq(
        larder_http_update(&gateway, &request, &first.stored, &same, &place, arena, &second),
        LARDER_SKIP);
    ck_assert_uint_eq(second.reason, LARDER_HTTP_WHY_NO_STORE);
    same.status = 200;
    ck_assert_int_eq(
        larder_http_update(&gateway, &request, &first.stored, &same, &place, arena, &second),
        LARDER_EINVAL);
}
END_TEST

/* ---- Answers
 * ----------------------------------------------------------------------------------------
 */

START_TEST(answers_that_are_not_stored)
{
    const larder_http_policy is_private = {.kind = LARDER_HTTP_ROUTE,
                                           .ttl_ms = 60000,
                                           .flags = LARDER_HTTP_PRIVATE,
                                           .status_header = message_text("X-Redis-Cache")};
    larder_http_arena *arena = message_arena();
    larder_http_request request = message_request("GET /", NULL);
    larder_http_response response = message_response(
        200, "Set-Cookie: a=b\nContent-Length: 4\nConnection: close\nX-Redis-Cache: forged",
        "body");
    larder_http_response answer;
    ck_assert_int_eq(larder_http_answer(&is_private, &request, &response, NULL,
                                        LARDER_HTTP_BYPASSED, NOW, arena, &answer),
                     LARDER_OK);
    ck_assert_str_eq(header(&answer, "set-cookie"), "a=b");
    ck_assert_str_eq(header(&answer, "cache-control"), "private");
    ck_assert_str_eq(header(&answer, "x-redis-cache"), "BYPASS");
    ck_assert_str_eq(header(&answer, "connection"), "");
    ck_assert_str_eq(header(&answer, "content-length"), "");
    ck_assert_uint_eq(answer.header_count, 3);
    response = message_response(200, "Cache-Control: no-store", "body");
    ck_assert_int_eq(larder_http_answer(&is_private, &request, &response, NULL, LARDER_HTTP_MISS,
                                        NOW, arena, &answer),
                     LARDER_OK);
    ck_assert_str_eq(header(&answer, "cache-control"), "no-store");
    ck_assert_uint_eq(answer.header_count, 2);
    /* a gateway passes the origin's fields on as they are */
    response = message_response(200, "Cache-Control: private\nDate: x\nAge: 5", "body");
    ck_assert_int_eq(larder_http_answer(&gateway, &request, &response, NULL, LARDER_HTTP_MISS, NOW,
                                        arena, &answer),
                     LARDER_OK);
    ck_assert_uint_eq(answer.header_count, 3);
}
END_TEST

START_TEST(a_miss_is_answered_like_a_hit)
{
    larder_http_policy policy = route;
    policy.status_header = message_text("X-Redis-Cache");
    larder_http_arena *arena = message_arena();
    larder_http_request request = message_request("GET /", NULL);
    larder_http_response response = message_response(200, "Content-Type: a/b", "body"), miss, hit;
    larder_http_place place = {.key = message_text("k"), .request_ms = NOW, .response_ms = NOW};
    larder_http_stored stored;
    ck_assert_int_eq(larder_http_store(&policy, &request, &response, &place, arena, &plan),
                     LARDER_OK);
    ck_assert_int_eq(larder_http_answer(&policy, &request, &plan.stored.response, &plan.stored,
                                        LARDER_HTTP_MISS, NOW, arena, &miss),
                     LARDER_OK);
    ck_assert_int_eq(larder_http_decode(plan.writes[0].value, arena, &stored), LARDER_OK);
    ck_assert_int_eq(larder_http_answer(&policy, &request, &stored.response, &stored,
                                        LARDER_HTTP_HIT, NOW, arena, &hit),
                     LARDER_OK);
    ck_assert_str_eq(header(&miss, "cache-control"), "max-age=60");
    ck_assert_str_eq(header(&miss, "x-redis-cache"), "MISS");
    ck_assert_str_eq(header(&hit, "x-redis-cache"), "HIT");
    ck_assert_str_eq(header(&hit, "vary"), "Authorization"); /* and Cookie: whoever asked */
    ck_assert_uint_eq(miss.header_count, hit.header_count);
    for (size_t i = 0; i + 1 < hit.header_count; i++) {
        ck_assert(text_same(miss.headers[i].name, hit.headers[i].name));
        ck_assert(text_same(miss.headers[i].value, hit.headers[i].value));
    }
}
END_TEST

START_TEST(a_request_that_bypasses_is_forwarded_whole)
{
    larder_http_request request =
        message_request("GET /", "Range: bytes=0-1\nIf-None-Match: \"a\"\nConnection: x");
    const larder_http_header *headers;
    size_t count;
    ck_assert_int_eq(
        larder_http_forward(&gateway, &request, NULL, message_arena(), &headers, &count),
        LARDER_OK);
    ck_assert_uint_eq(count, 2);
    request = message_request("POST /", "If-None-Match: \"a\"");
    ck_assert_int_eq(
        larder_http_forward(&gateway, &request, NULL, message_arena(), &headers, &count),
        LARDER_OK);
    ck_assert_uint_eq(count, 1);
}
END_TEST

/* ---- Invalidation
 * -----------------------------------------------------------------------------------
 */

START_TEST(unsafe_methods_invalidate)
{
    const struct {
        const char *line;
        uint32_t status;
        const char *headers, *keys;
    } cases[] = {
        {"POST /a", 200, NULL, "http://h/a"},
        {"PUT /a?x=1", 204, NULL, "http://h/a?x=1"},
        {"DELETE /a", 302, NULL, "http://h/a"},
        {"BREW /a", 200, NULL, "http://h/a"},
        {"POST /a", 404, NULL, ""},
        {"POST /a", 500, NULL, ""},
        {"GET /a", 200, NULL, ""},
        {"HEAD /a", 200, NULL, ""},
        {"OPTIONS /a", 200, NULL, ""},
        {"POST /a", 201, "Location: /b?q=1#f", "http://h/a http://h/b?q=1"},
        {"POST /a", 201, "Location: http://H/b", "http://h/a http://h/b"},
        {"POST /a", 201, "Location: http://h", "http://h/a http://h/"},
        {"POST /a", 201, "Location: http://h:80/b", "http://h/a http://h/b"},
        {"POST /a", 201, "Location: http://h:/b", "http://h/a http://h/b"},
        {"POST /a", 201, "Location: http://h:443/b", "http://h/a"},
        {"POST /a", 201, "Location: http://other/b", "http://h/a"},
        {"POST /a", 201, "Location: https://h/b", "http://h/a"},
        {"POST /a", 201, "Location: http://h.evil/b", "http://h/a"},
        {"POST /a", 201, "Location: //other/b", "http://h/a"},
        {"POST /a", 201, "Location: b", "http://h/a"},
        {"POST /a", 201, "Location: /b\nContent-Location: /c", "http://h/a http://h/b http://h/c"},
    };
    const larder_http_key_options options = {.form = LARDER_HTTP_KEY_URI};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        larder_http_request request = message_request(cases[i].line, "Host: h");
        larder_http_response response = message_response(cases[i].status, cases[i].headers, NULL);
        larder_bytes keys[LARDER_HTTP_KEYS_MAX];
        size_t count = 9;
        char got[256] = "";
        ck_assert_int_eq(
            larder_http_invalidates(&request, &response, &options, message_arena(), keys, &count),
            LARDER_OK);
        for (size_t j = 0; j < count; j++) {
            size_t used = strlen(got);
            snprintf(got + used, sizeof got - used, "%s%.*s", j == 0 ? "" : " ", (int)keys[j].size,
                     (const char *)keys[j].data);
        }
        ck_assert_str_eq(got, cases[i].keys);
    }
    larder_http_request request = message_request("PUT /items/7", NULL);
    larder_http_response response = message_response(200, NULL, NULL);
    larder_http_arena none = {.data = NULL};
    larder_bytes keys[LARDER_HTTP_KEYS_MAX];
    size_t count;
    const larder_http_key_options by_method = {.form = LARDER_HTTP_KEY_METHOD};
    ck_assert_int_eq(
        larder_http_invalidates(&request, &response, &by_method, message_arena(), keys, &count),
        LARDER_OK);
    ck_assert_uint_eq(count, 1);
    ck_assert(text_is(keys[0], "GET::items:7"));
    ck_assert_int_eq(larder_http_invalidates(&request, &response, &by_method, &none, keys, &count),
                     LARDER_ESIZE);
    ck_assert_uint_eq(count, 0);
}
END_TEST

/* ---- Memory and arguments
 * ----------------------------------------------------------------------------
 */

START_TEST(what_is_wanted_is_enough)
{
    static uint64_t memory[65536];
    larder_http_request request = message_request("GET /", "Cookie: a\nAccept: b");
    larder_http_response response =
        message_response(200, "Vary: Accept\nX: 1\nY: 2\nETag: \"a\"", "body");
    larder_http_response same = message_response(304, "X: 2\nETag: \"a\"", NULL);
    larder_http_place place = {.key = message_text("k"), .request_ms = NOW, .response_ms = NOW};
    for (size_t size = 0; size < 4096; size += 8) {
        larder_http_arena arena = {.data = memory, .size = size};
        int result = larder_http_store(&route, &request, &response, &place, &arena, &plan);
        if (result == LARDER_OK) {
            ck_assert_uint_le(arena.used, size);
            continue;
        }
        ck_assert_int_eq(result, LARDER_ESIZE);
        ck_assert_uint_eq(arena.used, 0);
        ck_assert_uint_eq(plan.write_count, 0);
        ck_assert_uint_gt(arena.wanted, size);
        arena.size = arena.wanted;
        ck_assert_int_eq(larder_http_store(&route, &request, &response, &place, &arena, &plan),
                         LARDER_OK);
        ck_assert_uint_eq(plan.write_count, 2);
        larder_http_response answer;
        larder_http_stored stored = plan.stored;
        larder_http_arena small = {.data = memory + 32768, .size = size};
        result = larder_http_update(&route, &request, &stored, &same, &place, &small, &plan);
        if (result == LARDER_ESIZE) {
            ck_assert_uint_eq(small.used, 0);
            small.size = small.wanted;
            result = larder_http_update(&route, &request, &stored, &same, &place, &small, &plan);
        }
        ck_assert_int_eq(result, LARDER_OK);
        small = (larder_http_arena){.data = memory + 32768, .size = size / 8};
        result = larder_http_answer(&route, &request, &stored.response, &stored, LARDER_HTTP_HIT,
                                    NOW, &small, &answer);
        if (result == LARDER_ESIZE) {
            small.size = small.wanted;
            result = larder_http_answer(&route, &request, &stored.response, &stored,
                                        LARDER_HTTP_HIT, NOW, &small, &answer);
        }
        ck_assert_int_eq(result, LARDER_OK);
    }
}
END_TEST

START_TEST(arguments_that_are_not_valid)
{
    larder_http_policy wrong = {.kind = 7};
    larder_http_request request = message_request("GET /", NULL);
    larder_http_response response = message_response(200, NULL, "body"), answer;
    larder_http_place place = {.key = message_text("k")};
    larder_http_arena *arena = message_arena();
    larder_http_decision decision;
    const larder_http_header *headers;
    size_t count;
    ck_assert_int_eq(larder_http_serve(&wrong, &request, NULL, NOW, &decision), LARDER_EINVAL);
    ck_assert_int_eq(larder_http_serve(&route, &request, NULL, -1, &decision), LARDER_EINVAL);
    ck_assert_int_eq(larder_http_store(&wrong, &request, &response, &place, arena, &plan),
                     LARDER_EINVAL);
    ck_assert_int_eq(larder_http_answer(&wrong, &request, &response, NULL, 0, NOW, arena, &answer),
                     LARDER_EINVAL);
    ck_assert_int_eq(larder_http_forward(&wrong, &request, NULL, arena, &headers, &count),
                     LARDER_EINVAL);
    place.response_ms = -1;
    ck_assert_int_eq(larder_http_store(&route, &request, &response, &place, arena, &plan),
                     LARDER_EINVAL);
    place = (larder_http_place){.key = {NULL, 0}};
    ck_assert_int_eq(larder_http_store(&route, &request, &response, &place, arena, &plan),
                     LARDER_EINVAL);
    place = (larder_http_place){.key = message_text("k"), .reserved = {1}};
    ck_assert_int_eq(larder_http_store(&route, &request, &response, &place, arena, &plan),
                     LARDER_EINVAL);
    wrong = (larder_http_policy){.flags = LARDER_HTTP_PRIVATE | LARDER_HTTP_SHARED};
    ck_assert_int_eq(larder_http_classify(&wrong, &request), LARDER_EINVAL);
    wrong = (larder_http_policy){.kind = LARDER_HTTP_GATEWAY, .flags = LARDER_HTTP_PRIVATE};
    ck_assert_int_eq(larder_http_classify(&wrong, &request), LARDER_EINVAL);
    ck_assert_str_eq(larder_http_reason(LARDER_HTTP_WHY_FRESH), "fresh");
    ck_assert_str_eq(larder_http_reason(9), "unknown");
    ck_assert_str_eq(larder_http_reason(999), "unknown");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("http_rules");
    TCase *tests = tcase_create("http_rules");
    tcase_add_test(tests, a_page_that_varies_has_a_copy_for_each);
    tcase_add_test(tests, deleting_the_key_deletes_all_variants);
    tcase_add_test(tests, users_have_pages_of_their_own);
    tcase_add_test(tests, no_page_goes_to_another_user);
    tcase_add_test(tests, how_long_the_map_keeps_it);
    tcase_add_test(tests, a_304_names_the_response_that_it_updates);
    tcase_add_test(tests, a_304_with_a_cookie_is_for_its_client_alone);
    tcase_add_test(tests, a_304_freshens_what_is_stored);
    tcase_add_test(tests, answers_that_are_not_stored);
    tcase_add_test(tests, a_miss_is_answered_like_a_hit);
    tcase_add_test(tests, a_request_that_bypasses_is_forwarded_whole);
    tcase_add_test(tests, unsafe_methods_invalidate);
    tcase_add_test(tests, what_is_wanted_is_enough);
    tcase_add_test(tests, arguments_that_are_not_valid);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
