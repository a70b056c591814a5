/* test_names.c: what things are called in Redis: byte for byte where a key allows it, the same slot
 * always, and never one name for two keys.
 */
#include "tests/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/names.h"

static void expect(const char *prefix, const char *key, const char *name, const char *record)
{
    names_pair pair = {.memory = NULL};
    ck_assert_int_eq(names_of(&pair, prefix, (const uint8_t *)key, strlen(key)), 0);
    ck_assert_msg(pair.key_size == strlen(name) && memcmp(pair.key, name, pair.key_size) == 0,
                  "%s: key %.*s", key, (int)pair.key_size, (const char *)pair.key);
    ck_assert_msg(pair.record_size == strlen(record) &&
                      memcmp(pair.record, record, pair.record_size) == 0,
                  "%s: record %.*s", key, (int)pair.record_size, (const char *)pair.record);
    names_free(&pair);
}

START_TEST(known_names)
{
    expect("p:", "key", "p:key", "v:{p:key}");
    expect("", "key", "key", "v:{key}");
    expect("p:", "a{tag}b", "p:a{tag}b", "v:{tag}p:a{tag}b");
    expect("{app}:", "key", "{app}:key", "v:{app}{app}:key");
    expect("p:", "a{b", "p:a%7Bb", "v:{p:a%7Bb}");
    expect("p:", "a}b", "p:a%7Db", "v:{p:a%7Db}");
    expect("p:", "{}x{y}", "p:%7B%7Dx%7By%7D", "v:{p:%7B%7Dx%7By%7D}");
    expect("p:", "100%", "p:100%", "v:{p:100%}");
    expect("p:", "100%{", "p:100%25%7B", "v:{p:100%25%7B}");
    expect("p:", "a%7Bb", "p:a%257Bb", "v:{p:a%257Bb}");
    expect("p:", "a%257Bb", "p:a%25257Bb", "v:{p:a%25257Bb}");
}
END_TEST

START_TEST(slots_of_redis)
{
    /* CLUSTER KEYSLOT's answers */
    ck_assert_uint_eq(names_slot((const uint8_t *)"123456789", 9), 12739);
    ck_assert_uint_eq(names_slot((const uint8_t *)"foo", 3), 12182);
    ck_assert_uint_eq(names_slot((const uint8_t *)"{foo}bar", 8), 12182);
    ck_assert_uint_eq(names_slot((const uint8_t *)"bar{foo}{zap}", 13), 12182);
    ck_assert_uint_ne(names_slot((const uint8_t *)"{}foo", 5), 12182);
}
END_TEST

START_TEST(own_names_are_refused)
{
    names_pair pair = {.memory = NULL};
    ck_assert_int_eq(names_of(&pair, "", (const uint8_t *)"v:{x}", 5), -2);
    ck_assert_int_eq(names_of(&pair, "", (const uint8_t *)"larder:{x}:events", 17), -2);
    ck_assert_int_eq(names_of(&pair, "p:", (const uint8_t *)"v:{x}", 5), 0);
    names_free(&pair);
}
END_TEST

/* All keys of up to six letters of this alphabet: one slot a pair, no two keys one name. */
START_TEST(one_slot_and_one_key_a_name)
{
    static const char alphabet[] = "{}%27BD5";
    enum { LETTERS = 8, LENGTH = 5, TOTAL = 8 + 64 + 512 + 4096 + 32768 };
    char(*seen)[24] = calloc(TOTAL, sizeof *seen);
    size_t count = 0;
    names_pair pair = {.memory = NULL};
    ck_assert_ptr_nonnull(seen);
    for (int length = 1, all = LETTERS; length <= LENGTH; length++, all *= LETTERS)
        for (int i = 0; i < all; i++) {
            uint8_t key[8];
            for (int at = 0, rest = i; at < length; at++, rest /= LETTERS)
                key[at] = (uint8_t)alphabet[rest % LETTERS];
            ck_assert_int_eq(names_of(&pair, "", key, (size_t)length), 0);
            ck_assert_uint_eq(names_slot(pair.key, pair.key_size),
                              names_slot(pair.record, pair.record_size));
            ck_assert_uint_lt(pair.key_size, 24);
            memcpy(seen[count++], pair.key, pair.key_size);
        }
    qsort(seen, count, sizeof *seen, (int (*)(const void *, const void *))strcmp);
    for (size_t i = 1; i < count; i++)
        ck_assert_msg(strcmp(seen[i - 1], seen[i]) != 0, "two keys are called %s", seen[i]);
    free(seen);
    names_free(&pair);
}
END_TEST

START_TEST(the_way_back)
{
    static const char letters[] = "ab{}%257BD:";
    names_pair pair = {.memory = NULL};
    uint64_t stream = harness_seed();
    size_t size;
    for (int i = 0; i < 20000; i++) {
        uint8_t key[12], name[128];
        size_t key_size = 1 + harness_random(&stream) % 11;
        for (size_t j = 0; j < key_size; j++)
            key[j] = (uint8_t)letters[harness_random(&stream) % (sizeof letters - 1)];
        ck_assert_int_eq(names_of(&pair, "p:", key, key_size), 0);
        size_t name_size = pair.key_size;
        memcpy(name, pair.key, name_size);
        const uint8_t *back = names_back(&pair, "p:", name, name_size, &size);
        ck_assert_msg(back != NULL, "%.*s", (int)key_size, (const char *)key);
        ck_assert_uint_eq(size, key_size);
        ck_assert_mem_eq(back, key, key_size);
    }
    ck_assert_ptr_null(names_back(&pair, "p:", (const uint8_t *)"p:", 2, &size));
    ck_assert_ptr_null(names_back(&pair, "p:", (const uint8_t *)"q:key", 5, &size));
    ck_assert_ptr_null(names_back(&pair, "p:", (const uint8_t *)"p:{", 3, &size)); /* %7B */
    ck_assert_ptr_null(names_back(&pair, "", (const uint8_t *)"v:{k}", 5, &size));
    ck_assert_ptr_nonnull(names_back(&pair, "", (const uint8_t *)"k", 1, &size));
    names_free(&pair);
}
END_TEST

START_TEST(fleet_names)
{
    char name[NAMES_FLEET_MAX];
    names_fleet("p:", "events", name, sizeof name);
    ck_assert_str_eq(name, "larder:{p:}:events");
    names_fleet("{a}%", "channel", name, sizeof name);
    ck_assert_str_eq(name, "larder:{%7Ba%7D%25}:channel");
    names_fleet("", "events", name, sizeof name);
    ck_assert_str_eq(name, "larder:{%}:events");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("names");
    TCase *all = tcase_create("names");
    tcase_add_test(all, known_names);
    tcase_add_test(all, slots_of_redis);
    tcase_add_test(all, own_names_are_refused);
    tcase_add_test(all, one_slot_and_one_key_a_name);
    tcase_add_test(all, the_way_back);
    tcase_add_test(all, fleet_names);
    suite_add_tcase(suite, all);
    return harness_run(suite);
}
