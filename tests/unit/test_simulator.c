/* test_simulator.c: the replacement policies of bench/ against cases worked by hand, and LRU
 * against a plain list over random requests.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "bench/policies.h"
#include "tests/harness.h"

/* "h" a hit, "." a miss, for each request. */
static const char *outcome(const struct policy *policy, size_t capacity, const char *keys)
{
    static char text[128];
    void *self = policy->make(capacity, 26);
    size_t count = strlen(keys);
    ck_assert_uint_lt(count, sizeof text);
    for (size_t at = 0; at < count; at++) {
        text[at] = policy->request(self, (uint32_t)(keys[at] - 'a')) ? 'h' : '.';
    }
    text[count] = '\0';
    policy->end(self);
    return text;
}

START_TEST(lru_by_hand)
{
    /* a ab abc | a again: order b c a | d takes b | b misses and takes c | a, d are there; order
     * b a d | c takes b */
    ck_assert_str_eq(outcome(&policy_lru, 3, "abcadbadc"), "...h..hh.");
    ck_assert_str_eq(outcome(&policy_lru, 1, "aab"), ".h.");
    ck_assert_str_eq(outcome(&policy_lru, 3, "abcdabcdabcd"), "............"); /* a loop of four */
}
END_TEST

START_TEST(sieve_by_hand)
{
    /* a visited: d passes it and takes b, the hand stands at c; e takes c; a is there; f takes d:
     * that is what SIEVE does where all that is old was visited */
    ck_assert_str_eq(outcome(&policy_sieve, 3, "abcadeafad"), "...h..h.h.");
}
END_TEST

START_TEST(s3fifo_by_hand)
{
    /* Ten entries: one small, nine main, nine ghosts. Full with a..j, all in the first queue; a was
     * asked for twice. k: a is promoted, b leaves as a ghost. b: comes back straight to main (c
     * leaves). A flood then takes d..l in order and neither a nor b. */
    ck_assert_str_eq(outcome(&policy_s3fifo, 10, "abcdefghijaakbmnopqrstuvab"),
                     "..........hh............hh");
    /* one hit does not promote */
    ck_assert_str_eq(outcome(&policy_s3fifo, 10, "abcdefghijakab"), "..........h...");
}
END_TEST

START_TEST(larders_own_by_hand)
{
    /* Fourteen entries, two of them the first queue's share. o finds it grown to all: all but n and
     * o are main without proof, and a, the oldest there, leaves. p: n leaves as a ghost. n comes
     * back: main, though among the newest, and b leaves. q, r, s: o, p, q leave. */
    ck_assert_str_eq(outcome(&policy_inplace, 14, "abcdefghijklmnopnqrscdefghijklmn"),
                     "....................hhhhhhhhhhhh");
    /* two hits keep o, which then counts as main without them: p leaves, not o */
    ck_assert_str_eq(outcome(&policy_inplace, 14, "abcdefghijklmnooopqrstuo"),
                     "...............hh......h");
}
END_TEST

START_TEST(arc_and_tinylfu_keep_what_is_used)
{
    /* a loop of one-time keys over two that come again and again */
    const char *keys = "ababcabdabeabfabgabhabiabjabkab";
    const char *expected = "..hh.hh.hh.hh.hh.hh.hh.hh.hh.hh";
    ck_assert_str_eq(outcome(&policy_arc, 4, keys), expected);
    ck_assert_str_eq(outcome(&policy_tinylfu, 4, keys), expected);
}
END_TEST

enum { KEYS = 200, REQUESTS = 20000 };

START_TEST(lru_agrees_with_a_plain_list)
{
    uint64_t stream = harness_seed() ^ 1;
    for (size_t capacity = 1; capacity < KEYS; capacity = capacity * 3 + 1) {
        uint32_t list[KEYS];
        size_t used = 0;
        void *self = policy_lru.make(capacity, KEYS);
        for (size_t request = 0; request < REQUESTS; request++) {
            uint64_t random = harness_random(&stream);
            uint32_t key = (uint32_t)(random % (random % 3 == 0 ? KEYS : KEYS / 8));
            size_t at = 0;
            while (at < used && list[at] != key) {
                at++;
            }
            bool hit = at < used;
            ck_assert_int_eq(policy_lru.request(self, key), hit);
            if (!hit) {
                used += used < capacity;
                at = used - 1;
            }
            memmove(list + 1, list, at * sizeof *list);
            list[0] = key;
        }
        policy_lru.end(self);
    }
}
END_TEST

START_TEST(no_policy_holds_more_than_its_capacity)
{
    /* After any requests, at most capacity keys can be hits when asked for once each. */
    for (size_t i = 0; policies[i] != NULL; i++) {
        for (size_t capacity = 1; capacity <= 40; capacity += 13) {
            uint64_t stream = harness_seed() ^ capacity;
            void *self = policies[i]->make(capacity, KEYS);
            size_t longest = 0, hits = 0;
            for (size_t request = 0; request < REQUESTS; request++) {
                (void)policies[i]->request(self, (uint32_t)(harness_random(&stream) % KEYS));
            }
            /* of a run of different keys in ascending order, hits are keys that were there */
            for (uint32_t key = 0; key < KEYS; key++) {
                hits += policies[i]->request(self, key);
            }
            longest = hits > longest ? hits : longest;
            ck_assert_msg(longest <= capacity, "%s: %zu of %zu", policies[i]->name, longest,
                          capacity);
            policies[i]->end(self);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("simulator");
    TCase *tests = tcase_create("simulator");
    tcase_add_test(tests, lru_by_hand);
    tcase_add_test(tests, sieve_by_hand);
    tcase_add_test(tests, s3fifo_by_hand);
    tcase_add_test(tests, larders_own_by_hand);
    tcase_add_test(tests, arc_and_tinylfu_keep_what_is_used);
    tcase_add_test(tests, lru_agrees_with_a_plain_list);
    tcase_add_test(tests, no_policy_holds_more_than_its_capacity);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
