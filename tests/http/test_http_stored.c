/* test_http_stored.c: the stored form, there and back, and damaged in every way; variants of a
 * page.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"
#include "tests/http/messages.h"

static larder_http_stored example(void)
{
    larder_http_stored stored = {
        .kind = LARDER_HTTP_RESPONSE,
        .flags = LARDER_HTTP_STORED_PUBLIC | LARDER_HTTP_STORED_COOKIE,
        .response = message_response(
            203, "Content-Type: text/html; charset=latin1\nLink: <a>\nX-Empty:\nLink: <b>", NULL),
        .made_ms = INT64_C(1795650000123),
        .lifetime_ms = INT64_MAX,
        .stale_while_revalidate_ms = 5,
        .stale_if_error_ms = 6,
        .seed = UINT64_C(0xfedcba9876543210),
        .vary = message_text("accept-encoding,cookie"),
        .digest = {1, 2, 3},
    };
    stored.response.body = (larder_bytes){"\0\xff\r\n body", 9};
    return stored;
}

static void same_bytes(larder_bytes a, larder_bytes b)
{
    ck_assert_uint_eq(a.size, b.size);
    ck_assert(a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

START_TEST(a_response_comes_back_as_it_was)
{
    larder_http_stored stored = example(), again;
    larder_http_arena *arena = message_arena();
    larder_bytes bytes;
    ck_assert_int_eq(larder_http_encode(&stored, arena, &bytes), LARDER_OK);
    ck_assert_int_eq(larder_http_decode(bytes, arena, &again), LARDER_OK);
    ck_assert_uint_eq(again.kind, stored.kind);
    ck_assert_uint_eq(again.flags, stored.flags);
    ck_assert_uint_eq(again.response.status, 203);
    ck_assert_uint_eq(again.response.header_count, 4);
    for (size_t i = 0; i < 4; i++) {
        same_bytes(again.response.headers[i].name, stored.response.headers[i].name);
        same_bytes(again.response.headers[i].value, stored.response.headers[i].value);
    }
    same_bytes(again.response.body, stored.response.body);
    same_bytes(again.vary, stored.vary);
    ck_assert_mem_eq(again.digest, stored.digest, sizeof again.digest);
    ck_assert_int_eq(again.made_ms, stored.made_ms);
    ck_assert_int_eq(again.lifetime_ms, INT64_MAX);
    ck_assert_int_eq(again.stale_while_revalidate_ms, 5);
    ck_assert_int_eq(again.stale_if_error_ms, 6);
    ck_assert_uint_eq(again.seed, stored.seed);
}
END_TEST

START_TEST(every_size_of_body)
{
    static char body[70000];
    larder_http_arena *arena;
    for (size_t size = 0; size < sizeof body; size = size * 2 + 1) {
        larder_http_stored stored = {.kind = LARDER_HTTP_RESPONSE,
                                     .response = {.status = 200, .body = {body, size}}},
                           again;
        larder_bytes bytes;
        arena = message_arena();
        int result = larder_http_encode(&stored, arena, &bytes);
        if (size > 65000) {
            ck_assert_int_eq(result, LARDER_ESIZE);
            ck_assert_uint_eq(arena->used, 0);
            larder_http_arena larger = {.data = malloc(arena->wanted), .size = arena->wanted};
            ck_assert_int_eq(larder_http_encode(&stored, &larger, &bytes), LARDER_OK);
            free(larger.data);
            continue;
        }
        ck_assert_int_eq(result, LARDER_OK);
        ck_assert_int_eq(larder_http_decode(bytes, arena, &again), LARDER_OK);
        same_bytes(again.response.body, stored.response.body);
    }
}
END_TEST

/* Exact memory of its own, so that a sanitizer sees each byte too far. */
static int decode_copy(const uint8_t *bytes, size_t size)
{
    uint8_t *copy = malloc(size == 0 ? 1 : size);
    larder_http_stored stored;
    memcpy(copy, bytes, size);
    int result = larder_http_decode((larder_bytes){copy, size}, message_arena(), &stored);
    ck_assert(result == LARDER_OK || (result == LARDER_ECORRUPT && stored.kind == 0));
    if (result == LARDER_OK) { /* all of it can be read */
        ck_assert_uint_le(stored.response.header_count, LARDER_HTTP_HEADERS_MAX);
        uintptr_t end = (uintptr_t)(copy + size);
        uintptr_t body_end = (uintptr_t)stored.response.body.data + stored.response.body.size;
        ck_assert_uint_eq(body_end, end);
    }
    free(copy);
    return result;
}

START_TEST(damage_is_found_or_harmless)
{
    larder_http_stored stored = example();
    larder_bytes bytes;
    uint64_t stream = harness_seed();
    static uint8_t good[4096], bad[4096];
    ck_assert_int_eq(larder_http_encode(&stored, message_arena(), &bytes), LARDER_OK);
    memcpy(good, bytes.data, bytes.size);
    for (size_t size = 0; size < bytes.size; size++) {
        ck_assert_int_eq(decode_copy(good, size), LARDER_ECORRUPT);
    }
    ck_assert_int_eq(decode_copy(good, bytes.size + 1), LARDER_ECORRUPT);
    for (size_t at = 0; at < 104; at++) { /* each byte of the head */
        for (unsigned bit = 0; bit < 8; bit++) {
            memcpy(bad, good, bytes.size);
            bad[at] ^= (uint8_t)(1u << bit);
            (void)decode_copy(bad, bytes.size);
        }
    }
    for (int round = 0; round < 20000; round++) {
        memcpy(bad, good, bytes.size);
        for (uint64_t times = harness_random(&stream) % 4 + 1; times > 0; times--) {
            bad[harness_random(&stream) % bytes.size] = (uint8_t)harness_random(&stream);
        }
        (void)decode_copy(bad, bytes.size);
    }
}
END_TEST

START_TEST(no_field_can_split_an_answer)
{
    static const larder_http_header fields[] = {
        {{"X-A", 3}, {"a\r\nSet-Cookie: x", 16}},
        {{"X-A", 3}, {"a\0b", 3}},
        {{"X A", 3}, {"a", 1}},
        {{"", 0}, {"a", 1}},
        {{"X-A:", 4}, {"a", 1}},
        {{"X-A\n", 4}, {"a", 1}},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        larder_http_stored stored = {
            .kind = LARDER_HTTP_RESPONSE,
            .response = {.status = 200, .headers = &fields[i], .header_count = 1}};
        larder_bytes bytes;
        ck_assert_int_eq(larder_http_encode(&stored, message_arena(), &bytes), LARDER_EINVAL);
    }
    /* nor one that was written by somebody else */
    larder_http_stored stored = {.kind = LARDER_HTTP_RESPONSE,
                                 .response = message_response(200, "X-A: a--b", NULL)};
    larder_bytes bytes;
    ck_assert_int_eq(larder_http_encode(&stored, message_arena(), &bytes), LARDER_OK);
    ck_assert_int_eq(decode_copy(bytes.data, bytes.size), LARDER_OK);
    memcpy((uint8_t *)(uintptr_t)bytes.data + bytes.size - 3, "\r\n", 2);
    ck_assert_int_eq(decode_copy(bytes.data, bytes.size), LARDER_ECORRUPT);
}
END_TEST

START_TEST(what_cannot_be_encoded)
{
    larder_http_stored cases[6];
    larder_bytes bytes;
    for (size_t i = 0; i < 6; i++) {
        cases[i] = example();
    }
    cases[0].kind = 3;
    cases[1].flags = 1u << 20;
    cases[2].response.status = 70000;
    cases[3].made_ms = -1;
    cases[4].vary = message_text("Cookie");
    cases[5].vary = message_text("b,a");
    for (size_t i = 0; i < 6; i++) {
        ck_assert_msg(larder_http_encode(&cases[i], message_arena(), &bytes) == LARDER_EINVAL,
                      "case %zu", i);
    }
    cases[4].vary = message_text("a, b");
    ck_assert_int_eq(larder_http_encode(&cases[4], message_arena(), &bytes), LARDER_EINVAL);
    cases[4].vary = message_text("a,,b");
    ck_assert_int_eq(larder_http_encode(&cases[4], message_arena(), &bytes), LARDER_EINVAL);
}
END_TEST

/* ---- Variants -----------------------------------------------------------------------------------
 */

static char variant_text[512];

/* "chosen", "other", or the variant's key. */
static const char *choice(const larder_http_policy *policy, const char *headers,
                          const larder_http_stored *stored)
{
    larder_http_request request = message_request("GET /", headers);
    larder_bytes variant = {NULL, 0};
    int result =
        larder_http_select(policy, &request, message_text("k"), stored, message_arena(), &variant);
    if (result == LARDER_HTTP_CHOSEN) {
        return "chosen";
    }
    if (result == LARDER_HTTP_OTHER) {
        return "other";
    }
    ck_assert_int_eq(result, LARDER_HTTP_VARIANT);
    ck_assert_uint_lt(variant.size, sizeof variant_text);
    memcpy(variant_text, variant.data, variant.size);
    variant_text[variant.size] = '\0';
    return variant_text;
}

START_TEST(variants_have_keys_of_their_own)
{
    const larder_http_policy policy = {.kind = LARDER_HTTP_GATEWAY};
    larder_http_stored names = {
        .kind = LARDER_HTTP_VARIANTS, .vary = message_text("accept-encoding,x-a"), .seed = 0xabc};
    char first[512];
    snprintf(first, sizeof first, "%s",
             choice(&policy, "Accept-Encoding: gzip, br\nX-A: 1", &names));
    ck_assert_uint_eq(strlen(first), 1 + 1 + 16 + 1 + 64);
    ck_assert(strncmp(first, "k#0000000000000abc#", 19) == 0);
    const struct {
        const char *headers;
        bool same;
    } cases[] = {
        {"x-a: 1\naccept-encoding: gzip,br", true},
        {"Accept-Encoding: gzip\nAccept-Encoding: br\nX-A: 1\nOther: x", true},
        {"Accept-Encoding: br, gzip\nX-A: 1", false},
        {"Accept-Encoding: gzip, br\nX-A: 2", false},
        {"Accept-Encoding: gzip, br\nX-A: 1\nX-A: 1", false},
        {"Accept-Encoding: gzip, br\nX-A:", false},
        {"Accept-Encoding: gzip, br", false},
        {"X-A: gzip, br\nAccept-Encoding: 1", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool same = strcmp(choice(&policy, cases[i].headers, &names), first) == 0;
        ck_assert_msg(same == cases[i].same, "%s", cases[i].headers);
    }
    names.seed = 0xabd; /* stored anew: what stood under the old one is out of reach */
    ck_assert_str_ne(choice(&policy, "Accept-Encoding: gzip, br\nX-A: 1", &names), first);
}
END_TEST

START_TEST(a_page_of_one_user_is_nobody_elses)
{
    const larder_http_policy route = {.kind = LARDER_HTTP_ROUTE},
                             shared = {.kind = LARDER_HTTP_ROUTE, .flags = LARDER_HTTP_SHARED},
                             gateway = {.kind = LARDER_HTTP_GATEWAY},
                             shared_gateway = {.kind = LARDER_HTTP_GATEWAY,
                                               .flags = LARDER_HTTP_SHARED};
    larder_http_stored page = {.kind = LARDER_HTTP_RESPONSE, .response = {.status = 200}};

    /* made for nobody in particular */
    ck_assert_str_eq(choice(&route, NULL, &page), "chosen");
    ck_assert_str_eq(choice(&gateway, NULL, &page), "chosen");
    char alice[512];
    snprintf(alice, sizeof alice, "%s", choice(&route, "Cookie: alice", &page));
    ck_assert(strncmp(alice, "k#", 2) == 0);
    ck_assert_str_ne(choice(&route, "Cookie: bob", &page), alice);
    ck_assert_str_ne(choice(&route, "Authorization: alice", &page), alice);
    ck_assert_str_eq(choice(&gateway, "Cookie: alice", &page), "other");
    ck_assert_str_eq(choice(&gateway, "Authorization: alice", &page), "other");
    ck_assert_str_eq(choice(&shared, "Authorization: alice\nCookie: alice", &page), "chosen");
    ck_assert_str_eq(choice(&shared_gateway, "Cookie: alice", &page), "chosen");
    ck_assert_str_eq(choice(&shared_gateway, "Authorization: alice", &page), "other");

    /* made for a user, whatever way it came to stand here */
    page.flags = LARDER_HTTP_STORED_COOKIE;
    ck_assert_str_eq(choice(&route, NULL, &page), "other");
    ck_assert_str_ne(choice(&route, "Cookie: alice", &page), "chosen");
    ck_assert_str_eq(choice(&gateway, "Cookie: alice", &page), "other");
    page.flags |= LARDER_HTTP_STORED_PUBLIC;
    ck_assert_str_eq(choice(&gateway, NULL, &page), "chosen");
    ck_assert_str_eq(choice(&gateway, "Authorization: alice", &page), "chosen");
    ck_assert_str_eq(choice(&route, "Cookie: bob", &page), "chosen");
}
END_TEST

START_TEST(a_variant_says_whose_it_is)
{
    const larder_http_policy policy = {.kind = LARDER_HTTP_ROUTE};
    larder_http_stored page = {.kind = LARDER_HTTP_RESPONSE,
                               .flags = LARDER_HTTP_STORED_VARIANT | LARDER_HTTP_STORED_COOKIE,
                               .vary = message_text("authorization,cookie"),
                               .response = {.status = 200}};
    /* of no request: the digest is all zeros */
    ck_assert_str_eq(choice(&policy, "Cookie: alice", &page), "other");
    ck_assert_str_eq(choice(&policy, NULL, &page), "other");
    /* a client that asks for a path which is written like a variant's key gets nothing */
    larder_http_key_options options = {.prefix = message_text("p")};
    larder_http_request request = message_request("GET /x%230123%23abcd", NULL);
    larder_bytes key;
    ck_assert_int_eq(larder_http_key(&request, &options, message_arena(), &key), LARDER_OK);
    ck_assert_ptr_null(memchr(key.data, '#', key.size));
}
END_TEST

START_TEST(a_key_without_room_for_variants)
{
    static char key[LARDER_KEY_MAX];
    const larder_http_policy policy = {.kind = LARDER_HTTP_ROUTE};
    larder_http_stored names = {.kind = LARDER_HTTP_VARIANTS, .vary = message_text("a")};
    larder_http_request request = message_request("GET /", NULL);
    larder_bytes variant;
    memset(key, 'k', sizeof key);
    ck_assert_int_eq(larder_http_select(&policy, &request, (larder_bytes){key, sizeof key}, &names,
                                        message_arena(), &variant),
                     LARDER_ETOOBIG);
    larder_http_arena none = {.data = NULL};
    ck_assert_int_eq(
        larder_http_select(&policy, &request, (larder_bytes){key, 10}, &names, &none, &variant),
        LARDER_ESIZE);
    ck_assert_uint_ge(none.wanted, 92);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("http_stored");
    TCase *tests = tcase_create("http_stored");
    tcase_add_test(tests, a_response_comes_back_as_it_was);
    tcase_add_test(tests, every_size_of_body);
    tcase_add_test(tests, damage_is_found_or_harmless);
    tcase_add_test(tests, no_field_can_split_an_answer);
    tcase_add_test(tests, what_cannot_be_encoded);
    tcase_add_test(tests, variants_have_keys_of_their_own);
    tcase_add_test(tests, a_page_of_one_user_is_nobody_elses);
    tcase_add_test(tests, a_variant_says_whose_it_is);
    tcase_add_test(tests, a_key_without_room_for_variants);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
