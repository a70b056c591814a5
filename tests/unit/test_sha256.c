/* test_sha256.c: the examples of FIPS 180-4 and of NIST's CAVP, and every length around a block
 * against Python's hashlib.
 */
#include "sha256.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"

static const char *hex_of(const void *data, size_t size)
{
    static char text[2 * SHA256_SIZE + 1];
    uint8_t digest[SHA256_SIZE];
    sha256(data, size, digest);
    for (size_t i = 0; i < SHA256_SIZE; i++) {
        (void)snprintf(text + 2 * i, 3, "%02x", digest[i]);
    }
    return text;
}

static const struct {
    const char *text, *digest;
} examples[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnop"
     "qrsmnopqrstnopqrstu",
     "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
};

START_TEST(the_standards_examples)
{
    ck_assert_str_eq(hex_of(examples[_i].text, strlen(examples[_i].text)), examples[_i].digest);
}
END_TEST

START_TEST(a_million_letters)
{
    char *text = malloc(1000000);
    ck_assert_ptr_nonnull(text);
    memset(text, 'a', 1000000);
    ck_assert_str_eq(hex_of(text, 1000000),
                     "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(text);
}
END_TEST

/* Of all lengths from 0 to 200 together: a digest of the digests. */
START_TEST(every_length_around_a_block)
{
    uint8_t text[200], all[201 * SHA256_SIZE];
    for (size_t i = 0; i < sizeof text; i++) {
        text[i] = (uint8_t)i;
    }
    for (size_t size = 0; size <= sizeof text; size++) {
        sha256(text, size, all + size * SHA256_SIZE);
    }
    ck_assert_str_eq(hex_of(all, sizeof all),
                     "64ef7c229fce2408b5336b6a542fea0e078c3a87d2da85cb3fc52e2008b65021");
}
END_TEST

START_TEST(in_pieces_of_every_size)
{
    static const char text[] = "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
                               "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu";
    uint8_t whole[SHA256_SIZE], digest[SHA256_SIZE];
    sha256(text, sizeof text, whole);
    for (size_t piece = 1; piece <= sizeof text; piece++) {
        struct sha256 hash;
        sha256_begin(&hash);
        for (size_t at = 0; at < sizeof text; at += piece) {
            sha256_add(&hash, text + at, sizeof text - at < piece ? sizeof text - at : piece);
        }
        sha256_end(&hash, digest);
        ck_assert_mem_eq(digest, whole, sizeof digest);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sha256");
    TCase *test_case = tcase_create("sha256");
    tcase_add_loop_test(test_case, the_standards_examples, 0,
                        (int)(sizeof examples / sizeof examples[0]));
    tcase_add_test(test_case, a_million_letters);
    tcase_add_test(test_case, every_length_around_a_block);
    tcase_add_test(test_case, in_pieces_of_every_size);
    suite_add_tcase(suite, test_case);
    return harness_run(suite);
}
