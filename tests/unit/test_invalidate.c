/* test_invalidate.c: groups, tags, prefixes, patterns, everything at once: who dies, who lives,
 * what is counted, and that none of it is ever refused.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "removal.h"
#include "replica.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"
#include "upkeep.h"

static larder *map;

static void open_map(void)
{
    map = maps_new();
}

static void close_map(void)
{
    maps_whole(map);
    larder_close(&map);
}

static larder_bytes bytes(const char *text)
{
    return (larder_bytes){text, strlen(text)};
}

/* group and tags may be NULL; tags are separated by spaces. */
static void set_marked(const char *key, const char *group, const char *tags)
{
    larder_bytes list[LARDER_TAGS_MAX];
    larder_policy policy = {.tags = list};
    char copy[256];
    if (group != NULL) {
        policy.group = bytes(group);
    }
    if (tags != NULL) {
        (void)snprintf(copy, sizeof copy, "%s", tags);
        for (char *rest = copy, *word; (word = strsep(&rest, " ")) != NULL;) {
            list[policy.tag_count++] = bytes(word);
        }
    }
    ck_assert_int_eq(larder_set(map, key, strlen(key), key, strlen(key), &policy), LARDER_OK);
}

/* Exactly these keys, separated by spaces, are found by every kind of read; others by none. */
static void alive(const char *keys, const char *gone)
{
    char copy[512];
    (void)snprintf(copy, sizeof copy, "%s", keys);
    size_t count = 0;
    for (char *rest = copy, *word; (word = strsep(&rest, " ")) != NULL;) {
        if (*word != '\0') {
            ck_assert_msg(maps_get(map, word) != NULL, "%s is dead", word);
            ck_assert_int_eq(maps_has(map, word), LARDER_OK);
            count++;
        }
    }
    (void)snprintf(copy, sizeof copy, "%s", gone);
    for (char *rest = copy, *word; (word = strsep(&rest, " ")) != NULL;) {
        if (*word == '\0') {
            continue;
        }
        larder_view view;
        larder_item item = {.key = word, .key_size = strlen(word)};
        void *memory, *value;
        size_t size;
        ck_assert_msg(maps_get(map, word) == NULL, "%s is alive", word);
        ck_assert_int_eq(maps_has(map, word), LARDER_MISS);
        ck_assert_int_eq(larder_borrow(map, word, strlen(word), &view), LARDER_MISS);
        ck_assert_int_eq(larder_get_alloc(map, word, strlen(word), &value, &size, NULL),
                         LARDER_MISS);
        ck_assert_int_eq(larder_get_many(map, &item, 1, &memory), LARDER_OK);
        ck_assert_int_eq(item.outcome, LARDER_MISS);
        larder_free(memory);
    }
    larder_cursor cursor = {0};
    larder_item items[64];
    size_t found;
    void *memory;
    ck_assert_int_eq(larder_scan(map, &cursor, (larder_bytes){NULL, 0}, items, 64, LARDER_SCAN_KEYS,
                                 &found, &memory),
                     LARDER_OK);
    ck_assert_uint_eq(found, count);
    larder_free(memory);
}

START_TEST(a_group_dies_together)
{
    set_marked("a1", "a", NULL);
    set_marked("a2", "a", "t");
    set_marked("ab1", "ab", NULL);
    set_marked("t1", NULL, "t");
    set_marked("x", NULL, NULL);
    set_marked("tag-a", NULL, "a"); /* a tag of the group's name */
    ck_assert_int_eq(larder_invalidate_group(map, bytes("a"), NULL), LARDER_OK);
    alive("ab1 t1 x tag-a", "a1 a2");
    set_marked("a1", "a", NULL); /* written later: lives */
    alive("a1 ab1 t1 x tag-a", "a2");
    ck_assert_int_eq(larder_invalidate_tag(map, bytes("t"), NULL), LARDER_OK);
    alive("a1 ab1 x tag-a", "a2 t1");
    ck_assert_int_eq(larder_invalidate_tag(map, bytes("a"), NULL), LARDER_OK);
    alive("a1 ab1 x", "tag-a");
    ck_assert_int_eq(maps_set(map, "a2", "unmarked now"), LARDER_OK);
    ck_assert_int_eq(larder_invalidate_group(map, bytes("a"), NULL), LARDER_OK);
    alive("a2 ab1 x", "a1");
}
END_TEST

START_TEST(any_of_sixteen_tags_kills_and_doubles_count_once)
{
    set_marked("k", "g", "0 1 2 3 4 5 6 7 8 9 a b c d e f");
    set_marked("double", NULL, "z z z z z z z z z z z z z z z z");
    ck_assert_uint_eq(maps_info(map, "k").flags & LARDER_INFO_MARKED, LARDER_INFO_MARKED);
    ck_assert_int_eq(larder_invalidate_tag(map, bytes("f"), NULL), LARDER_OK);
    alive("double", "k");
    set_marked("k", "g", "0 1 2 3 4 5 6 7 8 9 a b c d e f");
    ck_assert_int_eq(larder_invalidate_group(map, bytes("g"), NULL), LARDER_OK);
    ck_assert_int_eq(larder_invalidate_tag(map, bytes("z"), NULL), LARDER_OK);
    alive("", "k double");
}
END_TEST

START_TEST(the_count_is_of_live_entries)
{
    uint64_t count = 77;
    char key[32];
    ck_assert_int_eq(larder_invalidate_group(map, bytes("g"), &count), LARDER_OK);
    ck_assert_uint_eq(count, 0);
    for (int i = 0; i < 20000; i++) { /* more than one snapshot looks at */
        larder_policy policy = {.group = bytes(i % 4 == 0 ? "g" : "h")};
        int size = snprintf(key, sizeof key, "key%d", i);
        ck_assert_int_eq(larder_set(map, key, (size_t)size, "v", 1, &policy), LARDER_OK);
    }
    ck_assert_int_eq(maps_delete(map, "key0"), LARDER_OK);
    ck_assert_int_eq(larder_invalidate_group(map, bytes("g"), &count), LARDER_OK);
    ck_assert_uint_eq(count, 4999);
    ck_assert_int_eq(larder_invalidate_group(map, bytes("g"), &count), LARDER_OK);
    ck_assert_uint_eq(count, 0);
    ck_assert_int_eq(larder_invalidate_prefix(map, bytes("key1"), &count), LARDER_OK);
    uint64_t expected = 0;
    for (int i = 0; i < 20000; i++) {
        (void)snprintf(key, sizeof key, "key%d", i);
        expected += i % 4 != 0 && strncmp(key, "key1", 4) == 0;
    }
    ck_assert_uint_eq(count, expected);
}
END_TEST

START_TEST(what_is_dead_is_not_there_for_writers_either)
{
    larder_info info;
    larder_expiry hour = larder_expire_in(3600000);
    int64_t number = 0;
    set_marked("n", "g", NULL);
    info = maps_info(map, "n");
    larder_policy group = {.group = bytes("g")};
    ck_assert_int_eq(larder_set(map, "count", 5, "41", 2, &group), LARDER_OK);
    ck_assert_int_eq(larder_invalidate_group(map, bytes("g"), NULL), LARDER_OK);
    ck_assert_int_eq(larder_touch(map, "n", 1, &hour), LARDER_MISS);
    ck_assert_int_eq(larder_replace(map, "n", 1, "2", 1, NULL), LARDER_MISS);
    ck_assert_int_eq(larder_cas(map, "n", 1, "2", 1, &info.version, NULL), LARDER_MISS);
    ck_assert_int_eq(maps_delete(map, "n"), LARDER_MISS);
    ck_assert_int_eq(larder_incr(map, "count", 5, 1, &number, &group), LARDER_OK);
    ck_assert_int_eq(number, 1);
    ck_assert_int_eq(larder_add(map, "n", 1, "3", 1, NULL), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "n"), "3");
}
END_TEST

START_TEST(touch_and_incr_keep_the_marks)
{
    larder_expiry hour = larder_expire_in(3600000);
    int64_t number;
    larder_policy group = {.group = bytes("g")};
    set_marked("touched", "g", "t");
    ck_assert_int_eq(larder_touch(map, "touched", 7, &hour), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "count", 5, "41", 2, &group), LARDER_OK);
    ck_assert_int_eq(larder_incr(map, "count", 5, 1, &number, NULL), LARDER_OK);
    ck_assert_int_eq(number, 42);
    ck_assert_int_eq(larder_invalidate_group(map, bytes("g"), NULL), LARDER_OK);
    alive("", "touched count");
}
END_TEST

START_TEST(clear_kills_all_and_nothing_later)
{
    set_marked("a", "g", NULL);
    ck_assert_int_eq(maps_set(map, "b", "1"), LARDER_OK);
    uint64_t node = maps_info(map, "b").version.node;
    ck_assert_uint_ne(node, 0);
    ck_assert_int_eq(larder_clear(map), LARDER_OK);
    alive("", "a b");
    ck_assert_int_eq(maps_set(map, "b", "2"), LARDER_OK);
    set_marked("c", "g", NULL);
    alive("b c", "a");
    ck_assert_int_eq(larder_clear(map), LARDER_OK);
    alive("", "a b c");
    /* the floor of a fill rises with it */
    struct key key;
    ck_assert_int_eq(key_make(&key, "b", 1), LARDER_OK);
    ck_assert_uint_ne(removal_floor(maps_control(map), key.hash), 0);
    ck_assert_uint_eq(removal_pending_clock(maps_control(map), key.hash), 0);
}
END_TEST

START_TEST(a_prefix_and_a_pattern)
{
    uint64_t count;
    static const char *const keys[] = {"user:1:a", "user:1:b", "user:10:a", "user:2:a",
                                       "use",      "page*1",   "page21",    "[x]"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        ck_assert_int_eq(maps_set(map, keys[i], "v"), LARDER_OK);
    }
    ck_assert_int_eq(larder_invalidate_prefix(map, bytes("user:1:"), &count), LARDER_OK);
    ck_assert_uint_eq(count, 2);
    alive("user:10:a user:2:a use page*1 page21 [x]", "user:1:a user:1:b");
    ck_assert_int_eq(larder_invalidate_match(map, bytes("user:*:a"), &count), LARDER_OK);
    ck_assert_uint_eq(count, 2);
    alive("use page*1 page21 [x]", "user:10:a user:2:a");
    ck_assert_int_eq(larder_invalidate_match(map, bytes("page\\*1"), &count), LARDER_OK);
    ck_assert_uint_eq(count, 1);
    alive("use page21 [x]", "page*1");
    ck_assert_int_eq(larder_invalidate_prefix(map, bytes("[x"), NULL), LARDER_OK);
    alive("use page21", "[x]"); /* a prefix is bytes, no pattern */
    ck_assert_int_eq(larder_invalidate_match(map, bytes("*"), &count), LARDER_OK);
    ck_assert_uint_eq(count, 2);
    ck_assert_uint_eq(maps_stats(map).entries, 0);
}
END_TEST

START_TEST(long_keys_of_a_prefix)
{
    static char key[4096];
    uint64_t count;
    memset(key, 'k', sizeof key);
    ck_assert_int_eq(larder_set(map, key, 600, "1", 1, NULL), LARDER_OK);
    ck_assert_int_eq(larder_set(map, key, 4096, "2", 1, NULL), LARDER_OK);
    ck_assert_int_eq(larder_set(map, key, 509, "3", 1, NULL), LARDER_OK);
    ck_assert_int_eq(larder_invalidate_prefix(map, (larder_bytes){key, 601}, &count), LARDER_OK);
    ck_assert_uint_eq(count, 1);
    ck_assert_int_eq(larder_has(map, key, 600), LARDER_OK);
    ck_assert_int_eq(larder_has(map, key, 4096), LARDER_MISS);
    ck_assert_int_eq(larder_invalidate_match(map, bytes("kkk*k"), &count), LARDER_OK);
    ck_assert_uint_eq(count, 2);
}
END_TEST

START_TEST(stale_ones_of_a_prefix_die_too)
{
    larder_policy policy = {.expiry = larder_expire_in(200), .stale_ms = 600000};
    larder_read stale = {.flags = LARDER_ACCEPT_STALE};
    char buffer[8];
    uint64_t count = 77;
    ck_assert_int_eq(larder_set(map, "k1", 2, "v", 1, &policy), LARDER_OK);
    int64_t until = harness_now_ms() + 210;
    while (harness_now_ms() < until) {
    }
    ck_assert_int_eq(larder_get_with(map, "k1", 2, buffer, sizeof buffer, NULL, &stale),
                     LARDER_STALE);
    ck_assert_int_eq(larder_invalidate_prefix(map, bytes("k"), &count), LARDER_OK);
    ck_assert_uint_eq(count, 0); /* it was not live */
    ck_assert_int_eq(larder_get_with(map, "k1", 2, buffer, sizeof buffer, NULL, &stale),
                     LARDER_MISS);
}
END_TEST

START_TEST(a_held_write_gate_refuses_none)
{
    uint64_t count;
    char key[32];
    for (int i = 0; i < 400; i++) {
        (void)snprintf(key, sizeof key, "p:%03d", i);
        ck_assert_int_eq(maps_set(map, key, "v"), LARDER_OK);
    }
    set_marked("g1", "g", NULL);
    set_marked("x", NULL, NULL);
    struct maps_holder holder = maps_hold(&maps_control(map)->write_gate);
    int64_t began = harness_now_ms();
    ck_assert_int_eq(larder_invalidate_group(map, bytes("g"), &count), LARDER_OK);
    ck_assert_uint_eq(count, 1);
    ck_assert_int_eq(maps_has(map, "g1"), LARDER_MISS);
    ck_assert_int_eq(maps_has(map, "x"), LARDER_OK);
    ck_assert_int_eq(larder_invalidate_prefix(map, bytes("p:39"), &count), LARDER_OK);
    ck_assert_uint_eq(count, 10);
    ck_assert_int_eq(maps_has(map, "p:395"), LARDER_MISS);
    ck_assert_int_eq(maps_has(map, "p:385"), LARDER_OK); /* so few are told apart */
    ck_assert_int_eq(larder_invalidate_match(map, bytes("p:*"), &count), LARDER_OK);
    ck_assert_uint_eq(count, 390);
    for (int i = 0; i < 400; i++) {
        (void)snprintf(key, sizeof key, "p:%03d", i);
        ck_assert_int_eq(maps_has(map, key), LARDER_MISS);
    }
    ck_assert_int_eq(larder_clear(map), LARDER_OK);
    ck_assert_int_eq(maps_has(map, "x"), LARDER_MISS);
    /* three waits for the gate, not one for each batch */
    ck_assert_int_le(harness_now_ms() - began, 300 + harness_patience(3000));
    maps_let_go(&holder);
    ck_assert_int_eq(maps_set(map, "p:001", "new"), LARDER_OK);
    ck_assert_int_eq(maps_has(map, "p:001"), LARDER_OK);
    ck_assert_int_eq(maps_has(map, "p:002"), LARDER_MISS);
}
END_TEST

START_TEST(the_janitor_removes_the_dead)
{
    set_marked("a", "g", NULL);
    set_marked("b", "h", NULL);
    ck_assert_int_eq(larder_invalidate_group(map, bytes("g"), NULL), LARDER_OK);
    upkeep_step step = {0};
    ck_assert_int_eq(upkeep_expire(map, &step, 100, 0), LARDER_OK);
    ck_assert_uint_eq(step.removed, 1);
    ck_assert_uint_eq(maps_stats(map).entries, 1);
    ck_assert_uint_eq(maps_stats(map).expirations, 0); /* it did not expire */
    ck_assert_int_eq(larder_clear(map), LARDER_OK);
    step = (upkeep_step){0};
    ck_assert_int_eq(upkeep_expire(map, &step, 100, 0), LARDER_OK);
    ck_assert_uint_eq(maps_stats(map).entries, 0);
}
END_TEST

/* Where the map replicates, the dead travel as deletions of the moment they died at, never as
 * values; also what Redis has acknowledged already. */
START_TEST(a_replicating_map_sends_deletions)
{
    uint64_t fence;
    int pid;
    replica_batch batch = {0};
    ck_assert_int_eq(replica_claim(map, true, &fence, &pid), LARDER_OK);
    set_marked("clean", "g", NULL);
    larder_version clean = maps_info(map, "clean").version;
    replica_ack ack = {(const uint8_t *)"clean", 5, clean, REPLICA_VALUE, REPLICA_STORED};
    size_t cleared;
    ck_assert_int_eq(replica_acknowledge(map, fence, &ack, 1, &cleared), LARDER_OK);
    ck_assert_uint_eq(cleared, 1);
    set_marked("dirty", "g", NULL);
    larder_version dirty = maps_info(map, "dirty").version;
    set_marked("other", "h", NULL);
    ck_assert_int_eq(larder_invalidate_group(map, bytes("g"), NULL), LARDER_OK);
    ck_assert_int_eq(replica_outbox(map, &batch, 0, 10, 1 << 20, false), LARDER_OK);
    ck_assert_uint_eq(batch.count, 2);
    /* dead, and not yet known to Redis: it goes out as what it is about to be */
    ck_assert_mem_eq(batch.records[0].key, "dirty", 5);
    ck_assert_int_eq(batch.records[0].kind, REPLICA_DELETED);
    ck_assert_uint_eq(batch.records[0].value_size, 0);
    ck_assert_mem_eq(batch.records[1].key, "other", 5);
    upkeep_step step = {0};
    ck_assert_int_eq(upkeep_expire(map, &step, 100, 1000000), LARDER_OK);
    ck_assert_int_eq(replica_outbox(map, &batch, 0, 10, 1 << 20, false), LARDER_OK);
    ck_assert_uint_eq(batch.count, 3);
    size_t deletions = 0;
    for (size_t i = 0; i < batch.count; i++) {
        if (batch.records[i].kind == REPLICA_DELETED) {
            /* of just these versions: what is newer elsewhere stays */
            bool was_clean = memcmp(batch.records[i].key, "clean", 5) == 0;
            ck_assert_uint_eq(batch.records[i].version.clock,
                              was_clean ? clean.clock : dirty.clock);
            ck_assert_uint_eq(batch.records[i].version.node, clean.node);
            deletions++;
        }
    }
    ck_assert_uint_eq(deletions, 2);
    /* or it becomes that when Redis has it */
    set_marked("late", "h", NULL);
    larder_version late = maps_info(map, "late").version;
    ck_assert_int_eq(larder_invalidate_group(map, bytes("h"), NULL), LARDER_OK);
    ack = (replica_ack){(const uint8_t *)"late", 4, late, REPLICA_DELETED, REPLICA_STORED};
    uint64_t tombstones = maps_stats(map).tombstones;
    ck_assert_int_eq(replica_acknowledge(map, fence, &ack, 1, &cleared), LARDER_OK);
    ck_assert_uint_eq(cleared, 1);
    ck_assert_uint_eq(maps_stats(map).tombstones, tombstones + 1);
    replica_batch_free(&batch);
}
END_TEST

#define FAILS(code, words, call)                                                                   \
    do {                                                                                           \
        ck_assert_int_eq(call, code);                                                              \
        ck_assert_msg(strstr(larder_last_error(), words) != NULL, "\"%s\" does not say \"%s\"",    \
                      larder_last_error(), words);                                                 \
    } while (0)

START_TEST(bad_arguments_change_nothing)
{
    static const char big[LARDER_NAME_MAX + 1];
    larder_bytes none = {NULL, 0}, half = {NULL, 3}, huge = {big, sizeof big};
    uint64_t count = 77;
    set_marked("k", "g", "t");
    FAILS(LARDER_EINVAL, "group of 0 bytes", larder_invalidate_group(map, none, &count));
    FAILS(LARDER_EINVAL, "tag of 0 bytes", larder_invalidate_tag(map, half, NULL));
    FAILS(LARDER_ETOOBIG, "65535", larder_invalidate_group(map, huge, &count));
    FAILS(LARDER_EINVAL, "larder_clear", larder_invalidate_prefix(map, none, &count));
    FAILS(LARDER_ETOOBIG, "65535", larder_invalidate_prefix(map, huge, &count));
    FAILS(LARDER_EINVAL, "0 bytes", larder_invalidate_match(map, none, &count));
    FAILS(LARDER_EINVAL, "no \"]\"", larder_invalidate_match(map, bytes("[k"), &count));
    FAILS(LARDER_ETOOBIG, "1024", larder_invalidate_match(map, huge, &count));
    char wild[114] = "*";
    memset(wild + 1, 'u', 112);
    FAILS(LARDER_ETOOBIG, "at most 112", larder_invalidate_match(map, bytes(wild), &count));
    FAILS(LARDER_EINVAL, "not an open", larder_clear(NULL));
    FAILS(LARDER_EINVAL, "not an open", larder_invalidate_group(NULL, bytes("g"), NULL));
    ck_assert_uint_eq(count, 77);
    larder *reader = NULL;
    larder_options options = {.dir = harness_directory(), .flags = LARDER_READ_ONLY};
    ck_assert_int_eq(larder_open(strrchr(map->map->path, '/') + 1, &options, &reader), LARDER_OK);
    FAILS(LARDER_EREADONLY, "read-only", larder_invalidate_group(reader, bytes("g"), NULL));
    FAILS(LARDER_EREADONLY, "read-only", larder_invalidate_prefix(reader, bytes("k"), NULL));
    FAILS(LARDER_EREADONLY, "read-only", larder_clear(reader));
    larder_close(&reader);
    alive("k", "");
    uint64_t largest = 0;
    ck_assert_int_eq(larder_invalidate_group(map, (larder_bytes){big, LARDER_NAME_MAX}, &largest),
                     LARDER_OK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("invalidate");
    TCase *tests = tcase_create("invalidate");
    tcase_set_timeout(tests, 20);
    tcase_add_checked_fixture(tests, open_map, close_map);
    tcase_add_test(tests, a_group_dies_together);
    tcase_add_test(tests, any_of_sixteen_tags_kills_and_doubles_count_once);
    tcase_add_test(tests, the_count_is_of_live_entries);
    tcase_add_test(tests, what_is_dead_is_not_there_for_writers_either);
    tcase_add_test(tests, touch_and_incr_keep_the_marks);
    tcase_add_test(tests, clear_kills_all_and_nothing_later);
    tcase_add_test(tests, a_prefix_and_a_pattern);
    tcase_add_test(tests, long_keys_of_a_prefix);
    tcase_add_test(tests, stale_ones_of_a_prefix_die_too);
    tcase_add_test(tests, a_held_write_gate_refuses_none);
    tcase_add_test(tests, the_janitor_removes_the_dead);
    tcase_add_test(tests, a_replicating_map_sends_deletions);
    tcase_add_test(tests, bad_arguments_change_nothing);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
