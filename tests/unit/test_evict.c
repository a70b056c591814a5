/* test_evict.c: making room by SIEVE: the hand's way over a case worked by hand, what a scan cannot
 * push out, what is not evicted.
 */
#include "evict.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "format.h"
#include "replica.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"
#include "upkeep.h"

static larder *map;

static void open_map(void)
{
    maps_hot_size = LARDER_NO_HOT_SET;
    map = maps_new();
}

static void close_map(void)
{
    larder_close(&map);
}

static bool there(const char *key)
{
    larder_read peek = {.flags = LARDER_PEEK};
    int result = larder_get_with(map, key, strlen(key), NULL, 0, NULL, &peek);
    return result == LARDER_ESIZE || result == LARDER_OK;
}

/* Evict up to that many, whatever room there is. */
static size_t evict(size_t max)
{
    struct writer writer;
    ck_assert_int_eq(writer_begin(&writer, map, 1000), LARDER_OK);
    size_t gone = evict_some(&writer, MAPS_SIZE, max);
    ck_assert_int_eq(writer_commit(&writer), LARDER_OK);
    maps_whole(map);
    return gone;
}

enum { KEYS = 10 };
static char keys[KEYS][16];

/* Ten entries in order, of keys that share no popularity byte. */
static void fill(void)
{
    _Atomic uint8_t *seen[KEYS];
    size_t count = 0;
    for (unsigned number = 0; count < KEYS; number++) {
        int size = snprintf(keys[count], sizeof keys[count], "k%u", number);
        seen[count] =
            evict_popularity(atomic_load(&map->map->store), key_hash(keys[count], (size_t)size));
        bool shared = false;
        for (size_t i = 0; i < count; i++) {
            shared |= seen[i] == seen[count];
        }
        if (!shared) {
            ck_assert_int_eq(maps_set(map, keys[count], "value"), LARDER_OK);
            count++;
        }
    }
}

/* Which of the ten are there: "0.2......9". */
static const char *left(void)
{
    static char text[KEYS + 1];
    for (size_t i = 0; i < KEYS; i++) {
        text[i] = there(keys[i]) ? (char)('0' + i) : '.';
    }
    return text;
}

START_TEST(the_hand_takes_the_oldest_that_nobody_asked_for)
{
    fill();
    ck_assert_int_eq(maps_has(map, keys[1]), LARDER_OK);
    ck_assert_int_eq(maps_has(map, keys[3]), LARDER_OK);
    ck_assert_int_eq(maps_has(map, keys[5]), LARDER_OK);
    ck_assert_uint_eq(evict(3), 3); /* 0; 1 spared; 2; 3 spared; 4 */
    ck_assert_str_eq(left(), ".1.3.56789");
    ck_assert_uint_eq(evict(3), 3); /* 5 spared; 6 7 8 */
    ck_assert_str_eq(left(), ".1.3.5...9");
    ck_assert_uint_eq(evict(2), 2); /* 9; round: 1, whose mark was used up */
    ck_assert_str_eq(left(), "...3.5....");
    ck_assert_int_eq(maps_has(map, keys[3]), LARDER_OK);
    ck_assert_uint_eq(evict(1), 1); /* 3 spared; 5 */
    ck_assert_str_eq(left(), "...3......");
    ck_assert_uint_eq(evict(1), 1);
    ck_assert_str_eq(left(), "..........");
    ck_assert_uint_eq(evict(1), 0); /* nothing is left, and the hand stops */
    ck_assert_uint_eq(maps_stats(map).evictions, KEYS);
    ck_assert_uint_eq(maps_stats(map).expirations, 0);
}
END_TEST

START_TEST(a_hit_writes_its_mark_once_and_a_peek_never)
{
    fill();
    _Atomic uint8_t *mark =
        evict_popularity(atomic_load(&map->map->store), key_hash(keys[0], strlen(keys[0])));
    ck_assert_uint_eq(atomic_load(mark), 0);
    ck_assert(there(keys[0]));
    ck_assert_uint_eq(atomic_load(mark), 0);
    ck_assert_int_eq(maps_has(map, keys[0]), LARDER_OK);
    ck_assert_int_eq(maps_has(map, keys[0]), LARDER_OK);
    ck_assert_uint_eq(atomic_load(mark), 1);
    /* an overwrite keeps what was earned, a new life has to earn it again */
    ck_assert_int_eq(maps_set(map, keys[0], "again"), LARDER_OK);
    ck_assert_uint_eq(atomic_load(mark), 1);
    ck_assert_int_eq(maps_delete(map, keys[0]), LARDER_OK);
    ck_assert_int_eq(maps_set(map, keys[0], "reborn"), LARDER_OK);
    ck_assert_uint_eq(atomic_load(mark), 0);
}
END_TEST

START_TEST(the_expired_go_even_when_they_were_asked_for)
{
    fill();
    int64_t until = clock_wall_ms() + 30;
    larder_policy policy = {.expiry = larder_expire_at(until)};
    ck_assert_int_eq(larder_set(map, keys[0], strlen(keys[0]), "x", 1, &policy), LARDER_OK);
    (void)maps_has(map, keys[0]);
    atomic_store(
        evict_popularity(atomic_load(&map->map->store), key_hash(keys[0], strlen(keys[0]))), 1);
    while (!clock_expired(until)) {
    }
    ck_assert_uint_eq(evict(1), 1);
    ck_assert_str_eq(left(), ".123456789");
    ck_assert_uint_eq(maps_stats(map).expirations, 1);
    ck_assert_uint_eq(maps_stats(map).evictions, 0);
}
END_TEST

START_TEST(evicting_what_redis_has_not_got_leaves_invalidations)
{
    uint64_t fence;
    int other;
    ck_assert_int_eq(replica_claim(map, true, &fence, &other), LARDER_OK);
    fill();
    ck_assert_uint_eq(evict(4), 4);
    larder_stats stats = maps_stats(map);
    ck_assert_uint_eq(stats.entries, 6);
    ck_assert_uint_eq(stats.tombstones, 4);
    ck_assert_uint_eq(stats.dirty, 10);
    ck_assert_uint_eq(evict(100), 6); /* tombstones are not taken for entries */
    ck_assert_uint_eq(maps_stats(map).tombstones, 10);
    ck_assert_uint_eq(evict(100), 0);
    ck_assert_uint_eq(maps_stats(map).tombstones, 10);
}
END_TEST

START_TEST(a_row_that_nothing_names_is_cleared_away)
{
    struct writer writer;
    struct key key;
    fill();
    ck_assert_int_eq(key_make(&key, "nobody", 6), LARDER_OK);
    ck_assert_int_eq(writer_begin(&writer, map, 1000), LARDER_OK);
    ck_assert_int_eq(
        store_log_append(&writer.transaction, writer.ledger.next_row++, key.form, key.form_size),
        LARDER_OK);
    ck_assert_int_eq(writer_commit(&writer), LARDER_OK);
    inspect_report report;
    ck_assert_int_eq(inspect_check(map, &report), LARDER_ECORRUPT);
    ck_assert_uint_eq(evict(2 * KEYS), KEYS);
    ck_assert_uint_eq(maps_stats(map).log_rows, 0);
}
END_TEST

START_TEST(room_is_what_two_of_the_largest_writes_need)
{
    struct writer writer;
    uint64_t reserve = evict_reserve(control_life(maps_control(map)));
    uint64_t largest = record_chunks(atomic_load(&control_life(maps_control(map))->max_value));
    ck_assert_uint_ge(reserve, 2 * largest);
    ck_assert_int_eq(writer_begin(&writer, map, 1000), LARDER_OK);
    ck_assert(evict_fits(&writer, 0));
    ck_assert(evict_fits(&writer, 100));
    ck_assert(!evict_fits(&writer, MAPS_SIZE / 4096 - reserve));
    ck_assert(!evict_fits(&writer, MAPS_SIZE / 4096));
    writer_abort(&writer);
}
END_TEST

START_TEST(a_scan_does_not_push_out_what_is_used)
{
    enum { HOT = 200, FLOOD = 40000 };
    char key[24];
    static char value[1000];
    for (int i = 0; i < HOT; i++) {
        (void)snprintf(key, sizeof key, "hot%d", i);
        ck_assert_int_eq(larder_set(map, key, strlen(key), value, sizeof value, NULL), LARDER_OK);
    }
    for (int i = 0; i < FLOOD; i++) { /* about three times what fits, each asked for never */
        (void)snprintf(key, sizeof key, "flood%d", i);
        ck_assert_int_eq(larder_set(map, key, strlen(key), value, sizeof value, NULL), LARDER_OK);
        (void)snprintf(key, sizeof key, "hot%d", i % HOT);
        (void)maps_has(map, key);
    }
    int hot = 0;
    for (int i = 0; i < HOT; i++) {
        (void)snprintf(key, sizeof key, "hot%d", i);
        hot += there(key);
    }
    /* all, but for those whose mark a newcomer shares and resets */
    ck_assert_int_ge(hot, HOT * 95 / 100);
    larder_stats stats = maps_stats(map);
    ck_assert_uint_gt(stats.evictions, FLOOD / 2);
    ck_assert_uint_gt(stats.entries, 5000); /* and the map is well filled */
    ck_assert_uint_eq(stats.refused_full, 0);
    maps_whole(map);
}
END_TEST

START_TEST(one_huge_value_does_not_wipe_the_rest)
{
    char key[24];
    static char value[1000];
    uint64_t limit = atomic_load(&control_life(maps_control(map))->max_value);
    char *huge = calloc(1, limit);
    ck_assert_ptr_nonnull(huge);
    for (int i = 0; i < 20000; i++) {
        (void)snprintf(key, sizeof key, "small%d", i);
        ck_assert_int_eq(larder_set(map, key, strlen(key), value, sizeof value, NULL), LARDER_OK);
    }
    uint64_t before = maps_stats(map).entries;
    ck_assert_int_eq(larder_set(map, "huge", 4, huge, limit, NULL), LARDER_OK);
    ck_assert(there("huge"));
    ck_assert_uint_gt(maps_stats(map).entries, before * 3 / 4);
    maps_whole(map);
    free(huge);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("evict");
    TCase *tests = tcase_create("evict");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, open_map, close_map);
    tcase_add_test(tests, the_hand_takes_the_oldest_that_nobody_asked_for);
    tcase_add_test(tests, a_hit_writes_its_mark_once_and_a_peek_never);
    tcase_add_test(tests, the_expired_go_even_when_they_were_asked_for);
    tcase_add_test(tests, evicting_what_redis_has_not_got_leaves_invalidations);
    tcase_add_test(tests, a_row_that_nothing_names_is_cleared_away);
    tcase_add_test(tests, room_is_what_two_of_the_largest_writes_need);
    tcase_add_test(tests, a_scan_does_not_push_out_what_is_used);
    tcase_add_test(tests, one_huge_value_does_not_wipe_the_rest);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
