/* test_session_cookie.c: what a Set-Cookie header says of a session, what it refuses to say, and
 * which id is found in what a browser, or an attacker, sends.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "larder_session.h"
#include "tests/harness.h"

#define TEXT(text)                                                                                 \
    {                                                                                              \
        (text), sizeof(text) - 1                                                                   \
    }
#define ID "abcdefghijklmnopqrstuvwxyz0123456789-_ABCDE"
#define OTHER "ABCDEfghijklmnopqrstuvwxyz0123456789-_abcdE"

static const struct {
    larder_cookie cookie;
    const char *id, *wanted;
} written[] = {
    {{.flags = 0}, ID, "session_id=" ID "; Max-Age=1800; Path=/; Secure; HttpOnly; SameSite=Lax"},
    {{.flags = 0}, NULL, "session_id=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax"},
    {{.name = TEXT("__Host-sid"), .max_age_ms = 1},
     ID,
     "__Host-sid=" ID "; Max-Age=1; Path=/; Secure; HttpOnly; SameSite=Lax"},
    {{.max_age_ms = 1000},
     ID,
     "session_id=" ID "; Max-Age=1; Path=/; Secure; HttpOnly; SameSite=Lax"},
    {{.max_age_ms = 1001},
     ID,
     "session_id=" ID "; Max-Age=2; Path=/; Secure; HttpOnly; SameSite=Lax"},
    {{.max_age_ms = INT64_MAX},
     ID,
     "session_id=" ID "; Max-Age=9223372036854776; Path=/; Secure; HttpOnly; SameSite=Lax"},
    {{.path = TEXT("/shop"), .domain = TEXT("example.org"), .flags = LARDER_COOKIE_STRICT},
     ID,
     "session_id=" ID "; Max-Age=1800; Path=/shop; Domain=example.org; Secure; HttpOnly; "
     "SameSite=Strict"},
    {{.flags = LARDER_COOKIE_CROSS | LARDER_COOKIE_BRIEF},
     ID,
     "session_id=" ID "; Path=/; Secure; HttpOnly; SameSite=None"},
    {{.flags = LARDER_COOKIE_BRIEF},
     NULL,
     "session_id=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax"},
    {{.flags = LARDER_COOKIE_PLAIN | LARDER_COOKIE_SCRIPT},
     ID,
     "session_id=" ID "; Max-Age=1800; Path=/; SameSite=Lax"},
};

START_TEST(a_cookie_says_what_it_should)
{
    char buffer[LARDER_COOKIE_SIZE];
    size_t size, wanted = strlen(written[_i].wanted);
    const char *id = written[_i].id;
    size_t id_size = id == NULL ? 0 : strlen(id);
    ck_assert_int_eq(
        larder_cookie_write(&written[_i].cookie, id, id_size, buffer, sizeof buffer, &size),
        LARDER_OK);
    ck_assert_str_eq(buffer, written[_i].wanted);
    ck_assert_uint_eq(size, wanted);
    /* a buffer that just fits, and one that does not, which stays as it was */
    ck_assert_int_eq(
        larder_cookie_write(&written[_i].cookie, id, id_size, buffer, wanted + 1, NULL), LARDER_OK);
    buffer[0] = '#';
    ck_assert_int_eq(larder_cookie_write(&written[_i].cookie, id, id_size, buffer, wanted, &size),
                     LARDER_ESIZE);
    ck_assert_int_eq(buffer[0], '#');
    ck_assert_uint_eq(size, wanted);
    ck_assert_int_eq(larder_cookie_write(&written[_i].cookie, id, id_size, NULL, 0, &size),
                     LARDER_ESIZE);
}
END_TEST

static const struct {
    larder_cookie cookie;
    int code;
} refused[] = {
    {{.name = TEXT("a b")}, LARDER_EINVAL},
    {{.name = TEXT("a=b")}, LARDER_EINVAL},
    {{.name = TEXT("a;b")}, LARDER_EINVAL},
    {{.name = TEXT("a\r\nX: y")}, LARDER_EINVAL},
    {{.name = TEXT("a\0b")}, LARDER_EINVAL},
    {{.name = TEXT("n\xc3\xa9")}, LARDER_EINVAL},
    {{.name = TEXT("\"a\"")}, LARDER_EINVAL},
    {{.name = {NULL, 3}}, LARDER_EINVAL},
    {{.path = TEXT("shop")}, LARDER_EINVAL},
    {{.path = TEXT("/a; Domain=evil.example")}, LARDER_EINVAL},
    {{.path = TEXT("/a\nSet-Cookie: x=y")}, LARDER_EINVAL},
    {{.path = {NULL, 1}}, LARDER_EINVAL},
    {{.domain = TEXT("a.example; Path=/")}, LARDER_EINVAL},
    {{.domain = TEXT("b\xc3\xbc.example")}, LARDER_EINVAL},
    {{.domain = {NULL, 1}}, LARDER_EINVAL},
    {{.max_age_ms = -1}, LARDER_EINVAL},
    {{.flags = 1u << 5}, LARDER_EINVAL},
    {{.reserved0 = 1}, LARDER_EINVAL},
    {{.reserved = {0, 0, 0, 1}}, LARDER_EINVAL},
    {{.flags = LARDER_COOKIE_CROSS | LARDER_COOKIE_PLAIN}, LARDER_EINVAL},
    {{.flags = LARDER_COOKIE_CROSS | LARDER_COOKIE_STRICT}, LARDER_EINVAL},
    {{.name = TEXT("__Secure-a"), .flags = LARDER_COOKIE_PLAIN}, LARDER_EINVAL},
    {{.name = TEXT("__host-a"), .flags = LARDER_COOKIE_PLAIN}, LARDER_EINVAL},
    {{.name = TEXT("__Host-a"), .path = TEXT("/shop")}, LARDER_EINVAL},
    {{.name = TEXT("__Host-a"), .domain = TEXT("a.example")}, LARDER_EINVAL},
};

START_TEST(a_cookie_that_would_say_more_is_refused)
{
    char buffer[LARDER_COOKIE_SIZE] = "#";
    ck_assert_int_eq(larder_cookie_write(&refused[_i].cookie, ID, LARDER_SESSION_ID_SIZE, buffer,
                                         sizeof buffer, NULL),
                     refused[_i].code);
    ck_assert_str_eq(buffer, "#");
    ck_assert_str_ne(larder_last_error(), "");
    ck_assert_ptr_null(strstr(larder_last_error(), ID));
}
END_TEST

START_TEST(so_long_and_no_longer)
{
    static char text[LARDER_COOKIE_PATH_MAX + 1], buffer[LARDER_COOKIE_SIZE];
    memset(text, 'a', sizeof text);
    text[0] = '/';
    larder_cookie cookie = {.name = {text + 1, LARDER_COOKIE_NAME_MAX},
                            .path = {text, LARDER_COOKIE_PATH_MAX},
                            .domain = {text + 1, LARDER_COOKIE_DOMAIN_MAX},
                            .max_age_ms = INT64_MAX,
                            .flags = LARDER_COOKIE_STRICT};
    ck_assert_int_eq(
        larder_cookie_write(&cookie, ID, LARDER_SESSION_ID_SIZE, buffer, sizeof buffer, NULL),
        LARDER_OK);
    larder_bytes *members[] = {&cookie.name, &cookie.path, &cookie.domain};
    for (size_t i = 0; i < 3; i++) {
        members[i]->size++;
        ck_assert_int_eq(
            larder_cookie_write(&cookie, ID, LARDER_SESSION_ID_SIZE, buffer, sizeof buffer, NULL),
            LARDER_ETOOBIG);
        members[i]->size--;
    }
}
END_TEST

START_TEST(only_an_id_goes_into_a_cookie)
{
    char buffer[LARDER_COOKIE_SIZE];
    static const char *const bad[] = {"", "short", ID "x",
                                      "abc; Domain=evil.example0123456789abcdefghi"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_int_eq(
            larder_cookie_write(NULL, bad[i], strlen(bad[i]), buffer, sizeof buffer, NULL),
            LARDER_EINVAL);
    }
    ck_assert_int_eq(larder_cookie_write(NULL, NULL, 43, buffer, sizeof buffer, NULL),
                     LARDER_EINVAL);
    ck_assert_int_eq(larder_cookie_write(NULL, ID, LARDER_SESSION_ID_SIZE, NULL, 100, NULL),
                     LARDER_EINVAL);
}
END_TEST

static const struct {
    const char *header, *wanted; /* NULL: none */
} read[] = {
    {"session_id=" ID, ID},
    {"a=b; session_id=" ID, ID},
    {"a=b;session_id=" ID ";c=d", ID},
    {" session_id = " ID " ; x", ID},
    {"session_id=\"" ID "\"", ID},
    {"session_id=" ID "; session_id=" OTHER, ID},
    {"session_id=nonsense; session_id=" OTHER, OTHER}, /* planted by a neighbour domain, say */
    {"session_id=" ID "x", NULL},
    {"session_id=\"" ID, NULL},
    {"Session_id=" ID, NULL},
    {"session_id2=" ID, NULL},
    {"xsession_id=" ID, NULL},
    {"session_id:" ID, NULL},
    {"session_id", NULL},
    {"=" ID, NULL},
    {"session_id=", NULL},
    {";;;;=;=;", NULL},
    {"", NULL},
};

START_TEST(an_id_is_found_in_a_header)
{
    larder_session_id id;
    const char *header = read[_i].header;
    /* of exactly its size, so that a sanitizer sees a byte too far */
    char *exact = malloc(strlen(header) + 1);
    ck_assert_ptr_nonnull(exact);
    memcpy(exact, header, strlen(header));
    int result =
        larder_cookie_read((larder_bytes){exact, strlen(header)}, (larder_bytes){NULL, 0}, &id);
    if (read[_i].wanted == NULL) {
        ck_assert_int_eq(result, LARDER_MISS);
    } else {
        ck_assert_int_eq(result, LARDER_OK);
        ck_assert_str_eq(id.text, read[_i].wanted);
    }
    free(exact);
}
END_TEST

START_TEST(a_header_may_be_any_bytes)
{
    uint64_t stream = harness_seed();
    static const char bytes[] = "; =\"session_id\t\0\xff" ID;
    larder_session_id id;
    for (int i = 0; i < 20000; i++) {
        size_t size = harness_random(&stream) % 200;
        char *header = malloc(size == 0 ? 1 : size);
        ck_assert_ptr_nonnull(header);
        for (size_t at = 0; at < size; at++) {
            header[at] = bytes[harness_random(&stream) % sizeof bytes];
        }
        int result = larder_cookie_read((larder_bytes){header, size}, (larder_bytes){"s", 1}, &id);
        ck_assert(result == LARDER_OK || result == LARDER_MISS);
        free(header);
    }
}
END_TEST

START_TEST(reading_wants_a_name_a_header_and_a_place)
{
    larder_session_id id;
    larder_bytes header = TEXT("a=b");
    ck_assert_int_eq(larder_cookie_read(header, (larder_bytes)TEXT("a;"), &id), LARDER_EINVAL);
    ck_assert_int_eq(larder_cookie_read(header, (larder_bytes)TEXT("a"), NULL), LARDER_EINVAL);
    ck_assert_int_eq(larder_cookie_read((larder_bytes){NULL, 1}, (larder_bytes)TEXT("a"), &id),
                     LARDER_EINVAL);
    ck_assert_int_eq(larder_cookie_read((larder_bytes){NULL, 0}, (larder_bytes)TEXT("a"), &id),
                     LARDER_MISS);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("session_cookie");
    TCase *writing = tcase_create("writing"), *reading = tcase_create("reading");
    tcase_add_loop_test(writing, a_cookie_says_what_it_should, 0,
                        (int)(sizeof written / sizeof written[0]));
    tcase_add_loop_test(writing, a_cookie_that_would_say_more_is_refused, 0,
                        (int)(sizeof refused / sizeof refused[0]));
    tcase_add_test(writing, so_long_and_no_longer);
    tcase_add_test(writing, only_an_id_goes_into_a_cookie);
    tcase_add_loop_test(reading, an_id_is_found_in_a_header, 0,
                        (int)(sizeof read / sizeof read[0]));
    tcase_add_test(reading, a_header_may_be_any_bytes);
    tcase_add_test(reading, reading_wants_a_name_a_header_and_a_place);
    suite_add_tcase(suite, writing);
    suite_add_tcase(suite, reading);
    return harness_run(suite);
}
