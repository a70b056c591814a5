/* test_session_id.c: ids are the kernel's randomness and nothing else; what cannot be one is told
 * apart before it is looked up; keys do not tell ids. A kernel without randomness is played by a
 * seccomp filter.
 */
#include "session_id.h"

#include <check.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "tests/harness.h"
#include "tests/unit/maps.h"

static larder_session_id draw(void)
{
    larder_session_id id;
    ck_assert_int_eq(session_id_draw(&id), LARDER_OK);
    return id;
}

START_TEST(ids_are_43_characters_of_base64url_and_never_the_same)
{
    enum { COUNT = 2000 };
    static larder_session_id ids[COUNT];
    unsigned seen[256] = {0};
    bool again = false;
    for (size_t i = 0; i < COUNT; i++) {
        ids[i] = draw();
        ck_assert_uint_eq(strlen(ids[i].text), LARDER_SESSION_ID_SIZE);
        ck_assert(session_id_is_valid(ids[i].text, LARDER_SESSION_ID_SIZE));
        for (size_t other = 0; other < i; other++) { /* no check each: check tells of every one */
            again = again || strcmp(ids[other].text, ids[i].text) == 0;
        }
        for (size_t at = 0; at < LARDER_SESSION_ID_SIZE; at++) {
            seen[(unsigned char)ids[i].text[at]]++;
        }
    }
    ck_assert(!again);
    unsigned kinds = 0;
    for (size_t c = 0; c < 256; c++) {
        kinds += seen[c] > 0;
        ck_assert_uint_lt(seen[c], COUNT * LARDER_SESSION_ID_SIZE / 32); /* twice its share */
    }
    ck_assert_uint_eq(kinds, 64);
}
END_TEST

START_TEST(every_bit_varies)
{
    /* 43 characters of 6 bits, the last of 4: each takes all its values in some thousand draws */
    static bool seen[LARDER_SESSION_ID_SIZE][256];
    for (int i = 0; i < 4000; i++) {
        larder_session_id id = draw();
        for (size_t at = 0; at < LARDER_SESSION_ID_SIZE; at++) {
            seen[at][(unsigned char)id.text[at]] = true;
        }
    }
    for (size_t at = 0; at < LARDER_SESSION_ID_SIZE; at++) {
        unsigned kinds = 0;
        for (size_t c = 0; c < 256; c++) {
            kinds += seen[at][c];
        }
        ck_assert_uint_eq(kinds, at + 1 < LARDER_SESSION_ID_SIZE ? 64 : 16);
    }
}
END_TEST

START_TEST(what_cannot_be_an_id_is_told)
{
    larder_session_id id = draw();
    static const char bad[] = "+/=.;, \"'\t\n\r\x7f*?[{%";
    ck_assert(!session_id_is_valid(NULL, 0));
    ck_assert(!session_id_is_valid(NULL, LARDER_SESSION_ID_SIZE));
    ck_assert(!session_id_is_valid(id.text, 0));
    ck_assert(!session_id_is_valid(id.text, LARDER_SESSION_ID_SIZE - 1));
    ck_assert(!session_id_is_valid(id.text, LARDER_SESSION_ID_SIZE + 1));
    for (size_t at = 0; at < LARDER_SESSION_ID_SIZE; at++) {
        larder_session_id spoiled = id;
        for (size_t i = 0; i < sizeof bad; i++) { /* the final 0, too */
            spoiled.text[at] = bad[i];
            ck_assert(!session_id_is_valid(spoiled.text, LARDER_SESSION_ID_SIZE));
        }
        spoiled.text[at] = (char)0xc3;
        ck_assert(!session_id_is_valid(spoiled.text, LARDER_SESSION_ID_SIZE));
    }
    /* 256 bits end in the middle of the last character */
    id.text[LARDER_SESSION_ID_SIZE - 1] = 'A';
    ck_assert(session_id_is_valid(id.text, LARDER_SESSION_ID_SIZE));
    id.text[LARDER_SESSION_ID_SIZE - 1] = 'B';
    ck_assert(!session_id_is_valid(id.text, LARDER_SESSION_ID_SIZE));
}
END_TEST

START_TEST(a_key_is_the_digest)
{
    char id[LARDER_SESSION_ID_SIZE];
    struct session_key key;
    memset(id, 'A', sizeof id);
    session_id_key((larder_bytes){"session:", 8}, id, &key);
    ck_assert_uint_eq(key.size, 8 + LARDER_SESSION_ID_SIZE);
    ck_assert_mem_eq(key.text, "session:DwBzhbb51LfusnSGBa_hqYSgo7-j8BTQnip4TOnlzRo", key.size);
}
END_TEST

/* getrandom() gives -code (0: that it gave 0 bytes) in this process from now on. */
static int draw_without_randomness(void *context)
{
    unsigned code = *(const unsigned *)context;
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrandom, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (code & SECCOMP_RET_DATA)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = sizeof program / sizeof program[0], .filter = program};
    larder_session_id id;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
        return 77;
    }
    if (session_id_draw(&id) != LARDER_ESYSTEM) {
        return 1;
    }
    return strstr(larder_last_error(), "getrandom()") != NULL ? 0 : 2;
}

START_TEST(without_randomness_there_is_no_id)
{
    static const unsigned codes[] = {EAGAIN, ENOSYS, EINTR, 0};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        unsigned code = codes[i];
        int status = maps_in_child(draw_without_randomness, &code);
        ck_assert_msg(status == 0 || status == 77, "code %u: %d", code, status);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("session_id");
    TCase *test_case = tcase_create("ids");
    tcase_add_test(test_case, ids_are_43_characters_of_base64url_and_never_the_same);
    tcase_add_test(test_case, every_bit_varies);
    tcase_add_test(test_case, what_cannot_be_an_id_is_told);
    tcase_add_test(test_case, a_key_is_the_digest);
    tcase_add_test(test_case, without_randomness_there_is_no_id);
    suite_add_tcase(suite, test_case);
    return harness_run(suite);
}
