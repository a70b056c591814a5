/* test_hot_keys.c: the heavy keys of a skewed load are found among many others, in their order and
 * with about their share; the past fades; torn slots are not shown.
 */
#include "hot_keys.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "key.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"

static struct hot_key_table *table;
static struct hot_key found[HOT_KEYS_SLOTS];
static uint64_t stream;

static void make_table(void)
{
    table = calloc(1, sizeof *table);
    ck_assert_ptr_nonnull(table);
    stream = harness_seed() ^ 5;
}

static void drop_table(void)
{
    free(table);
}

static void ask(const char *key, bool hit)
{
    hot_keys_note(table, key_hash(key, strlen(key)), key, strlen(key), hit,
                  (uint32_t)harness_random(&stream));
}

START_TEST(heavy_keys_are_found_among_many)
{
    char key[32];
    uint64_t total;
    /* ten keys get 2 % each and more, 100,000 strangers share the rest */
    for (int i = 0; i < 30000; i++) {
        uint64_t dice = harness_random(&stream) % 1000;
        if (dice < 300) { /* heavy:0 3.0 %, then 2.9, 2.8 ... 2.1; some 25 % in all */
            int at = (int)(dice / 30);
            if (harness_random(&stream) % 30 >= (uint64_t)at) {
                (void)snprintf(key, sizeof key, "heavy:%d", at);
                ask(key, at % 2 == 0);
                continue;
            }
        }
        (void)snprintf(key, sizeof key, "rare:%d", (int)(harness_random(&stream) % 100000));
        ask(key, false);
    }
    size_t count = hot_keys_read(table, found, HOT_KEYS_SLOTS, &total);
    ck_assert_uint_eq(total, 30000);
    ck_assert_uint_ge(count, 10);
    for (size_t i = 0; i < 10; i++) {
        ck_assert_msg(memcmp(found[i].key, "heavy:", 6) == 0, "place %zu: %.*s", i,
                      (int)found[i].kept, found[i].key);
        double share = (double)found[i].count / (double)total;
        ck_assert_double_ge(share, 0.015);
        ck_assert_double_le(share, 0.035);
        bool hits = (found[i].key[6] - '0') % 2 == 0;
        ck_assert_uint_eq(found[i].hits > found[i].count / 2, hits);
        ck_assert_uint_le(found[i].hits, found[i].count);
        if (i > 0) {
            ck_assert_uint_ge(found[i - 1].count, found[i].count);
        }
    }
    ck_assert_uint_lt(found[10].count, found[9].count / 2);
    ck_assert_uint_eq(hot_keys_read(table, found, 3, &total), 3);
}
END_TEST

START_TEST(the_past_fades)
{
    uint64_t total;
    for (int i = 0; i < HOT_KEYS_HALVE_AT; i++) {
        ask("old", true);
    }
    for (int i = 0; i < 4 * HOT_KEYS_HALVE_AT; i++) {
        ask("new", true);
    }
    size_t count = hot_keys_read(table, found, HOT_KEYS_SLOTS, &total);
    ck_assert_uint_eq(count, 2);
    ck_assert_mem_eq(found[0].key, "new", 3);
    ck_assert_uint_lt(found[1].count * 10, found[0].count);
    ck_assert_uint_le(total, 2 * HOT_KEYS_HALVE_AT);
}
END_TEST

START_TEST(a_newcomer_gets_a_place_in_a_full_set)
{
    uint64_t total;
    char key[32];
    for (int i = 0; i < 20000; i++) { /* everything is full of strangers */
        (void)snprintf(key, sizeof key, "rare:%d", i);
        ask(key, false);
    }
    for (int i = 0; i < 1000; i++) {
        ask("newcomer", true);
    }
    ck_assert_uint_gt(hot_keys_read(table, found, 1, &total), 0);
    ck_assert_mem_eq(found[0].key, "newcomer", 8);
    ck_assert_uint_gt(found[0].count, 900);
}
END_TEST

START_TEST(long_keys_are_cut_and_told_apart)
{
    uint8_t key[1000];
    uint64_t total;
    memset(key, 'k', sizeof key);
    static const size_t sizes[] = {HOT_KEYS_KEPT, HOT_KEYS_KEPT + 1, 1000};
    for (size_t i = 0; i < 3; i++) {
        hot_keys_note(table, key_hash(key, sizes[i]), key, sizes[i], true, 0);
    }
    ck_assert_uint_eq(hot_keys_read(table, found, 10, &total), 3);
    for (size_t i = 0; i < 3; i++) {
        ck_assert_uint_eq(found[i].kept, HOT_KEYS_KEPT);
        ck_assert_uint_ge(found[i].key_size, HOT_KEYS_KEPT);
        ck_assert_uint_eq(found[i].hash, key_hash(key, found[i].key_size));
    }
}
END_TEST

START_TEST(torn_slots_are_not_shown)
{
    uint64_t total;
    char key[32];
    for (int i = 0; i < 100; i++) {
        (void)snprintf(key, sizeof key, "key:%d", i);
        ask(key, true);
    }
    for (int round = 0; round < 2000; round++) {
        uint8_t *bytes = (uint8_t *)table->slots;
        bytes[harness_random(&stream) % sizeof table->slots] = (uint8_t)harness_random(&stream);
        size_t count = hot_keys_read(table, found, HOT_KEYS_SLOTS, &total);
        for (size_t i = 0; i < count; i++) {
            ck_assert_mem_eq(found[i].key, "key:", 4);
            ck_assert_uint_le(found[i].kept, HOT_KEYS_KEPT);
        }
        (void)snprintf(key, sizeof key, "key:%d", round % 100);
        ask(key, true);
    }
}
END_TEST

START_TEST(lookups_of_a_map_are_sampled)
{
    larder *map = maps_new();
    uint64_t total;
    ck_assert_int_eq(maps_set(map, "there", "1"), LARDER_OK);
    for (int i = 0; i < 30000; i++) {
        ck_assert_int_eq(maps_has(map, "there"), LARDER_OK);
        if (i % 3 == 0) {
            ck_assert_int_eq(maps_has(map, "not there"), LARDER_MISS);
        }
    }
    size_t count = hot_keys_read(&maps_control(map)->hot_keys, found, 10, &total);
    ck_assert_uint_eq(count, 2);
    ck_assert_mem_eq(found[0].key, "there", 5);
    ck_assert_uint_eq(found[0].hits, found[0].count);
    ck_assert_mem_eq(found[1].key, "not there", 9);
    ck_assert_uint_eq(found[1].hits, 0);
    ck_assert_uint_gt(total, 80);
    larder_close(&map);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hot_keys");
    TCase *tests = tcase_create("hot_keys");
    tcase_add_checked_fixture(tests, make_table, drop_table);
    tcase_set_timeout(tests, 20);
    tcase_add_test(tests, heavy_keys_are_found_among_many);
    tcase_add_test(tests, the_past_fades);
    tcase_add_test(tests, a_newcomer_gets_a_place_in_a_full_set);
    tcase_add_test(tests, long_keys_are_cut_and_told_apart);
    tcase_add_test(tests, torn_slots_are_not_shown);
    tcase_add_test(tests, lookups_of_a_map_are_sampled);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
