/* test_evict.c: making room: the hands' ways over cases worked by hand, ghosts, what goes ahead of
 * all others, a capacity in entries, what a scan cannot push out, what is not evicted.
 */
#include "evict.h"

#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "format.h"
#include "removal.h"
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

/* Pages that can be taken before anything has to go. */
static uint64_t evict_room(void)
{
    struct writer writer;
    uint64_t room = 0;
    ck_assert_int_eq(writer_begin(&writer, map, 1000), LARDER_OK);
    while (room < 1000 && evict_fits(&writer, room + 40)) {
        room++;
    }
    writer_abort(&writer);
    return room;
}

enum { KEYS = 14 }; /* the first queue's share of them is two */
static char keys[KEYS][16];

/* The popularity of a key. */
static unsigned hits(const char *key)
{
    return evict_hits(atomic_load(&map->map->store), key_hash(key, strlen(key)));
}

/* Entries in order, of keys that share no popularity counter. */
static void fill(void)
{
    struct evict_counter seen[KEYS];
    size_t count = 0;
    for (unsigned number = 0; count < KEYS; number++) {
        int size = snprintf(keys[count], sizeof keys[count], "k%u", number);
        seen[count] =
            evict_counter(atomic_load(&map->map->store), key_hash(keys[count], (size_t)size));
        bool shared = false;
        for (size_t i = 0; i < count; i++) {
            shared |= seen[i].byte == seen[count].byte && seen[i].shift == seen[count].shift;
        }
        if (!shared) {
            ck_assert_int_eq(maps_set(map, keys[count], "value"), LARDER_OK);
            count++;
        }
    }
}

/* Which of them are there: "0.2......9abcd". */
static const char *left(void)
{
    static char text[KEYS + 1];
    for (size_t i = 0; i < KEYS; i++) {
        text[i] = there(keys[i]) ? "0123456789abcd"[i] : '.';
    }
    return text;
}

static struct ledger ledger_now(void)
{
    struct ledger ledger;
    struct store *store = atomic_load(&map->map->store);
    ck_assert(ledger_read(store->life, store_last_transaction(store), &ledger));
    return ledger;
}

static void hit(size_t key, unsigned times)
{
    for (; times > 0; times--) {
        ck_assert_int_eq(maps_has(map, keys[key]), LARDER_OK);
    }
}

START_TEST(what_grew_unwatched_is_main_but_for_its_newest_seventh)
{
    fill();
    ck_assert_uint_eq(ledger_now().small, KEYS);
    ck_assert_uint_eq(evict(1), 1); /* the first queue becomes c and d, and is no longer than two */
    ck_assert_str_eq(left(), ".123456789abcd");
    ck_assert_uint_eq(ledger_now().small, 2);
    ck_assert_uint_eq(evict(1), 1); /* of thirteen one is its share: c goes */
    ck_assert_str_eq(left(), ".123456789ab.d");
    ck_assert_uint_eq(evict(2), 2);
    ck_assert_str_eq(left(), "...3456789ab.d");
    ck_assert_uint_eq(maps_stats(map).evictions, 4);
    ck_assert_uint_eq(maps_stats(map).evicted_small, 1);
    ck_assert_uint_eq(maps_stats(map).evicted_main, 3);
    ck_assert_uint_eq(maps_stats(map).expirations, 0);
}
END_TEST

START_TEST(the_main_hand_spares_as_often_as_was_asked)
{
    fill();
    ck_assert_uint_eq(evict(1), 1); /* 0 */
    hit(1, 1);
    hit(2, 3);
    hit(3, 9);                      /* three count */
    ck_assert_uint_eq(evict(1), 1); /* c */
    ck_assert_uint_eq(evict(8), 8); /* 1, 2, 3 spared; 4 to b */
    ck_assert_str_eq(left(), ".123.........d");
    ck_assert_uint_eq(evict(1), 1); /* round: 1 has used up what it had */
    ck_assert_str_eq(left(), "..23.........d");
    ck_assert_uint_eq(evict(1), 1); /* 2 and 3 alike are spared twice and go in order */
    ck_assert_str_eq(left(), "...3.........d");
    ck_assert_uint_eq(evict(1), 1);
    ck_assert_str_eq(left(), ".............d");
    ck_assert_uint_eq(evict(1), 1);
    ck_assert_uint_eq(evict(1), 0); /* nothing is left, and the hands stop */
    ck_assert_uint_eq(maps_stats(map).evictions, KEYS);
}
END_TEST

START_TEST(two_hits_prove_an_entry_and_one_does_not)
{
    fill();
    ck_assert_uint_eq(evict(1), 1); /* 0; c and d wait */
    hit(12, 2);
    hit(13, 1);
    ck_assert_uint_eq(evict(1),
                      1); /* c passes and is main, its hits used up; 1 goes: only d waits */
    ck_assert_str_eq(left(), "..23456789abcd");
    ck_assert_int_eq(maps_set(map, keys[0], "again"), LARDER_OK); /* was main: no ghost */
    ck_assert_int_eq(maps_set(map, keys[1], "again"), LARDER_OK);
    ck_assert_uint_eq(evict(1), 1); /* d, asked for once */
    ck_assert_str_eq(left(), "0123456789abc.");
}
END_TEST

START_TEST(what_comes_back_soon_is_not_put_to_the_test_again)
{
    fill();
    ck_assert_uint_eq(evict(2), 2); /* 0, c */
    ck_assert_str_eq(left(), ".123456789ab.d");
    ck_assert_int_eq(maps_set(map, keys[12], "again"), LARDER_OK);
    ck_assert_uint_eq(ledger_now().returned, 1);
    ck_assert_int_eq(maps_set(map, keys[0], "again"), LARDER_OK);
    ck_assert_uint_eq(ledger_now().returned, 1);
    ck_assert_uint_eq(evict(1), 1); /* c does not wait, 0 and d may, being two: 1 goes */
    ck_assert_str_eq(left(), "0.23456789abcd");
    ck_assert_uint_eq(evict(1), 1); /* of thirteen only one may */
    ck_assert_str_eq(left(), "0.23456789abc.");
    /* an overwrite keeps it so, and a delete forgets it */
    ck_assert_int_eq(maps_set(map, keys[12], "once more"), LARDER_OK);
    ck_assert_int_eq(maps_delete(map, keys[12]), LARDER_OK);
    ck_assert_uint_eq(ledger_now().returned, 0);
    ck_assert_int_eq(maps_set(map, keys[12], "new"), LARDER_OK);
    ck_assert_uint_eq(ledger_now().returned, 0);
    maps_whole(map);
}
END_TEST

/* Remember many, ask for all and for as many strangers: how many of the window are still known, of
 * the older ones, of the strangers. */
static void fade(uint64_t ghosts, uint64_t window, unsigned found[3])
{
    struct store *store = atomic_load(&map->map->store);
    struct ledger ledger = {.ghosts = 0};
    found[0] = found[1] = found[2] = 0;
    for (uint64_t i = 1; i <= ghosts; i++) {
        ghosts_add(store, &ledger, key_hash(&i, sizeof i), window);
    }
    ck_assert_uint_eq(ledger.ghosts, ghosts);
    ck_assert(ghosts_take(store, &ledger, key_hash(&ghosts, sizeof ghosts), window));
    ck_assert(!ghosts_take(store, &ledger, key_hash(&ghosts, sizeof ghosts), window)); /* once */
    for (uint64_t i = 1; i <= 2 * ghosts; i++) {
        found[i > ghosts            ? 2
              : i > ghosts - window ? 0
                                    : 1] +=
            ghosts_take(store, &ledger, key_hash(&i, sizeof i), window);
    }
}

START_TEST(ghosts_fade)
{
    unsigned found[3];
    fade(1000, 100, found);
    ck_assert_uint_ge(found[0], 85); /* time is counted in sixteenths of 256 */
    ck_assert_uint_le(found[1], 40);
    ck_assert_uint_le(found[2], 20); /* ten bits of the hash are compared, in eight ways */
    fade(20000, 3000, found);
    ck_assert_uint_ge(found[0], 2400);
    ck_assert_uint_le(found[1], 1200);
    ck_assert_uint_le(found[2], 300);
}
END_TEST

START_TEST(ghosts_forget_when_there_are_more_than_slots)
{
    const struct store *store = atomic_load(&map->map->store);
    uint64_t slots = store->popularity * CONTROL_GHOST_BYTES / sizeof(ghost_slot);
    unsigned found[3];
    fade(8 * slots, 2 * slots, found);
    ck_assert_uint_ge(found[0], slots * 7 / 8);
    ck_assert_uint_le(found[1], slots / 4);
}
END_TEST

START_TEST(the_ghosts_table_grows_and_shrinks_with_the_entries)
{
    struct store *store = atomic_load(&map->map->store);
    struct ledger ledger = {.ghosts = 0};
    static const struct {
        uint64_t window, bits;
    } steps[] = {{40, 6},     {51, 6},    {52, 7},    {100, 7},
                 {104, 8},    {33, 8},    {31, 6},    {30000, 16},
                 {50000, 16}, {8193, 16}, {8100, 14}, {UINT64_C(1) << 50, 40}};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        ghosts_add(store, &ledger, i, steps[i].window);
        ck_assert_msg(ledger.ghost_bits == steps[i].bits, "%zu: %llu bits", i,
                      (unsigned long long)ledger.ghost_bits);
    }
    ledger.ghost_bits = UINT64_MAX; /* read from shared memory: no more than a wrong guess */
    (void)ghosts_take(store, &ledger, 1, 100);
    ghosts_add(store, &ledger, 1, 100);
    ck_assert(ghosts_take(store, &ledger, 1, 100));
}
END_TEST

START_TEST(a_hit_raises_its_mark_to_three_and_a_peek_never)
{
    fill();
    ck_assert_uint_eq(hits(keys[0]), 0);
    ck_assert(there(keys[0]));
    ck_assert_uint_eq(hits(keys[0]), 0);
    hit(0, 2);
    ck_assert_uint_eq(hits(keys[0]), 2);
    hit(0, 20);
    ck_assert_uint_eq(hits(keys[0]), EVICT_POPULARITY_MOST);
    /* an overwrite keeps what was earned, a new life has to earn it again */
    ck_assert_int_eq(maps_set(map, keys[0], "again"), LARDER_OK);
    ck_assert_uint_eq(hits(keys[0]), EVICT_POPULARITY_MOST);
    ck_assert_int_eq(maps_delete(map, keys[0]), LARDER_OK);
    ck_assert_int_eq(maps_set(map, keys[0], "reborn"), LARDER_OK);
    ck_assert_uint_eq(hits(keys[0]), 0);
    evict_note_hot(atomic_load(&map->map->store), key_hash(keys[0], strlen(keys[0])), 2);
    ck_assert_uint_eq(hits(keys[0]), 2);
    evict_note_hot(atomic_load(&map->map->store), key_hash(keys[0], strlen(keys[0])), 1000);
    ck_assert_uint_eq(hits(keys[0]), EVICT_POPULARITY_MOST);
}
END_TEST

START_TEST(keys_that_share_a_byte_share_no_hits)
{
    struct store *store = atomic_load(&map->map->store);
    const uint64_t counter = UINT64_C(0xffffffff) / (4 * store->popularity); /* of the hash */
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_ptr_eq(evict_counter(store, i * counter + i + 1).byte,
                         store->control->popularity);
        evict_set_hits(store, i * counter + i + 1, i);
    }
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_uint_eq(evict_hits(store, i * counter + i + 1), i);
    }
    ck_assert(!evict_touch(store, 0));
    evict_forget_hits(store, 3 * counter + 4);
    ck_assert_uint_eq(atomic_load(&store->control->popularity[0]), 1 | 1 << 2 | 2 << 4);
    ck_assert_ptr_eq(evict_counter(store, UINT64_MAX).byte,
                     &store->control->popularity[store->popularity - 1]);
}
END_TEST

START_TEST(an_aborted_write_moves_no_hand)
{
    struct writer writer;
    fill();
    ck_assert_uint_eq(evict(2), 2);
    struct ledger before = ledger_now();
    ck_assert_int_eq(writer_begin(&writer, map, 1000), LARDER_OK);
    ck_assert_uint_eq(evict_some(&writer, MAPS_SIZE, 5), 5);
    ck_assert_uint_ne(writer.ledger.hand, before.hand);
    writer_abort(&writer);
    struct ledger after = ledger_now();
    ck_assert_uint_eq(after.hand, before.hand);
    ck_assert_uint_eq(after.small_hand, before.small_hand);
    ck_assert_uint_eq(after.small, before.small);
    ck_assert_str_eq(left(), ".123456789ab.d");
    maps_whole(map);
}
END_TEST

static int evict_and_die(void *context)
{
    (void)context;
    struct writer writer;
    if (writer_begin(&writer, map, 1000) != LARDER_OK || evict_some(&writer, MAPS_SIZE, 5) != 5) {
        return 1;
    }
    (void)raise(SIGKILL);
    return 2;
}

START_TEST(a_process_killed_while_it_evicts_moves_no_hand)
{
    fill();
    ck_assert_uint_eq(evict(2), 2);
    ck_assert_int_eq(maps_in_child(evict_and_die, NULL), -SIGKILL);
    ck_assert_str_eq(left(), ".123456789ab.d");
    ck_assert_uint_eq(evict(1), 1); /* and it goes on where it was: 1 */
    ck_assert_str_eq(left(), "..23456789ab.d");
}
END_TEST

START_TEST(the_expired_go_even_when_they_were_asked_for)
{
    fill();
    int64_t until = clock_wall_ms() + 30;
    larder_policy policy = {.expiry = larder_expire_at(until)};
    ck_assert_int_eq(larder_set(map, keys[0], strlen(keys[0]), "x", 1, &policy), LARDER_OK);
    (void)maps_has(map, keys[0]);
    evict_set_hits(atomic_load(&map->map->store), key_hash(keys[0], strlen(keys[0])), 1);
    while (!clock_expired(until)) {
    }
    ck_assert_uint_eq(evict(1), 1);
    ck_assert_str_eq(left(), ".123456789abcd");
    ck_assert_uint_eq(maps_stats(map).expirations, 1);
    ck_assert_uint_eq(maps_stats(map).reclaimed_expired, 1);
    ck_assert_uint_eq(maps_stats(map).evictions, 0);
}
END_TEST

START_TEST(nothing_is_walked_while_nothing_can_have_expired)
{
    fill();
    ck_assert_int_eq(ledger_now().earliest_expiry_ms, CLOCK_NEVER);
    int64_t until = clock_wall_ms() + 3600000;
    larder_policy later = {.expiry = larder_expire_at(until + 5)},
                  soon = {.expiry = larder_expire_at(until)};
    ck_assert_int_eq(larder_set(map, "soon", 4, "x", 1, &soon), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "later", 5, "x", 1, &later), LARDER_OK);
    ck_assert_int_eq(ledger_now().earliest_expiry_ms, until);
    ck_assert_uint_eq(evict(1), 1);
    ck_assert_int_eq(ledger_now().earliest_expiry_ms, until); /* a bound, until a walk is through */
    ck_assert_uint_eq(maps_stats(map).reclaimed_expired, 0);
    ck_assert_uint_eq(atomic_load(&maps_control(map)->evict_walk.size), 0);
}
END_TEST

START_TEST(the_dead_go_first)
{
    fill();
    uint64_t hash = key_hash(keys[5], strlen(keys[5]));
    removal_raise_barrier(maps_control(map), hash, clock_next(maps_control(map)).clock);
    hit(0, 3);
    ck_assert_uint_eq(evict(1), 1);
    ck_assert_str_eq(left(), "01234.6789abcd");
    ck_assert_uint_eq(maps_stats(map).reclaimed_dead, 1);
    ck_assert_uint_eq(maps_stats(map).evictions, 0);
    ck_assert_uint_eq(evict(1), 1); /* the walk was through: now for room */
    ck_assert_uint_eq(maps_stats(map).evictions, 1);
}
END_TEST

START_TEST(of_a_full_map_half_expired_all_that_lives_stays)
{
    enum { ENTRIES = 4000 };
    static char value[1000];
    char key[24];
    int64_t until = clock_wall_ms() + 1500;
    larder_policy expires = {.expiry = larder_expire_at(until)};
    for (int i = 0; i < ENTRIES; i++) { /* in turn, so that every page has both */
        (void)snprintf(key, sizeof key, "%s%d", i % 2 == 0 ? "short" : "long", i);
        ck_assert_int_eq(
            larder_set(map, key, strlen(key), value, sizeof value, i % 2 == 0 ? &expires : NULL),
            LARDER_OK);
    }
    for (int i = 0; evict_room() > 0; i++) { /* to the brim, with the like */
        (void)snprintf(key, sizeof key, "brim%d", i);
        ck_assert_int_eq(larder_set(map, key, strlen(key), value, sizeof value, &expires),
                         LARDER_OK);
    }
    ck_assert_uint_eq(maps_stats(map).evictions, 0);
    while (!clock_expired(until)) {
    }
    for (int i = 0; i < ENTRIES / 4; i++) {
        (void)snprintf(key, sizeof key, "new%d", i);
        ck_assert_int_eq(larder_set(map, key, strlen(key), value, sizeof value, NULL), LARDER_OK);
    }
    for (int i = 1; i < ENTRIES; i += 2) {
        (void)snprintf(key, sizeof key, "long%d", i);
        ck_assert_msg(there(key), "%s is gone", key);
    }
    ck_assert_uint_eq(maps_stats(map).evictions, 0);
    ck_assert_uint_gt(maps_stats(map).reclaimed_expired, 100);
    maps_whole(map);
}
END_TEST

START_TEST(a_capacity_in_entries_is_kept)
{
    larder *bounded = NULL;
    larder_options options = {
        .dir = harness_directory(), .map_size = MAPS_SIZE, .max_entries = 100};
    larder_item items[50];
    char many[50][16], key[24];
    ck_assert_int_eq(larder_open("bounded", &options, &bounded), LARDER_OK);
    for (int i = 0; i < 1000; i++) {
        (void)snprintf(key, sizeof key, "k%d", i);
        ck_assert_int_eq(maps_set(bounded, key, "value"), LARDER_OK);
        ck_assert_uint_eq(maps_stats(bounded).entries, (uint64_t)(i < 100 ? i + 1 : 100));
    }
    ck_assert_int_eq(maps_has(bounded, "k999"), LARDER_OK); /* the newest is there */
    ck_assert_int_eq(maps_set(bounded, "k999", "over"), LARDER_OK);
    ck_assert_uint_eq(maps_stats(bounded).evictions, 900);
    for (size_t i = 0; i < 50; i++) { /* a write of many, too */
        int size = snprintf(many[i], sizeof many[i], "many%zu", i);
        items[i] =
            (larder_item){.key = many[i], .key_size = (size_t)size, .value = "v", .value_size = 1};
    }
    ck_assert_int_eq(larder_set_many(bounded, items, 50, NULL), LARDER_OK);
    ck_assert_uint_eq(maps_stats(bounded).entries, 100);
    /* who attaches does not choose, and what was chosen outlives a change of size */
    larder *other = NULL;
    bool changed;
    options.max_entries = 7;
    ck_assert_int_eq(larder_open("bounded", &options, &other), LARDER_OK);
    ck_assert_int_eq(upkeep_resize(bounded, 2 * MAPS_SIZE, &changed), LARDER_OK);
    ck_assert(changed);
    maps_whole(bounded);
    ck_assert_int_eq(maps_set(other, "one more", "value"), LARDER_OK);
    ck_assert_uint_eq(maps_stats(bounded).entries, 100);
    maps_whole(bounded);
    larder_close(&other);
    larder_close(&bounded);
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
    ck_assert_uint_eq(stats.entries, KEYS - 4);
    ck_assert_uint_eq(stats.tombstones, 4);
    ck_assert_uint_eq(stats.dirty, KEYS);
    ck_assert_uint_eq(evict(100), KEYS - 4); /* tombstones are not taken for entries */
    ck_assert_uint_eq(maps_stats(map).tombstones, KEYS);
    ck_assert_uint_eq(evict(100), 0);
    ck_assert_uint_eq(maps_stats(map).tombstones, KEYS);
    maps_whole(map);
}
END_TEST

START_TEST(a_row_that_nothing_names_is_cleared_away)
{
    struct writer writer;
    struct key key;
    ck_assert_int_eq(key_make(&key, "nobody", 6), LARDER_OK);
    ck_assert_int_eq(writer_begin(&writer, map, 1000), LARDER_OK);
    ck_assert_int_eq(
        store_log_append(&writer.transaction, writer.ledger.next_row++, key.form, key.form_size),
        LARDER_OK);
    ck_assert_int_eq(writer_commit(&writer), LARDER_OK);
    fill();
    inspect_report report;
    ck_assert_int_eq(inspect_check(map, &report), LARDER_ECORRUPT);
    ck_assert_uint_eq(evict(2 * KEYS), KEYS);
    ck_assert_uint_eq(maps_stats(map).log_rows, 0);
}
END_TEST

START_TEST(room_is_what_the_largest_write_and_one_of_late_need)
{
    struct writer writer;
    const struct control_life *life = control_life(maps_control(map));
    uint64_t most = evict_reserve(life, NULL);
    uint64_t largest = record_chunks(atomic_load(&life->max_value));
    ck_assert_uint_ge(most, 2 * largest);
    ck_assert_int_eq(writer_begin(&writer, map, 1000), LARDER_OK);
    uint64_t reserve = evict_reserve(life, &writer.ledger);
    ck_assert_uint_ge(reserve, largest);
    ck_assert_uint_eq(reserve, most - largest); /* nothing came yet */
    ck_assert(evict_fits(&writer, 0));
    ck_assert(evict_fits(&writer, 100));
    ck_assert(!evict_fits(&writer, MAPS_SIZE / 4096 - reserve));
    ck_assert(!evict_fits(&writer, MAPS_SIZE / 4096));
    (void)evict_ahead(&writer, 50);
    ck_assert_uint_eq(evict_reserve(life, &writer.ledger), reserve + 50);
    (void)evict_ahead(&writer, 2 * largest); /* no more than that is kept */
    ck_assert_uint_eq(evict_reserve(life, &writer.ledger), most);
    for (int i = 0; i < 200; i++) {
        (void)evict_ahead(&writer, 16);
    }
    ck_assert_uint_eq(evict_reserve(life, &writer.ledger), reserve + 16);
    writer_abort(&writer);
}
END_TEST

static int set_sized(unsigned number, size_t size)
{
    static uint8_t value[MAPS_SIZE / 16];
    char key[24];
    (void)snprintf(key, sizeof key, "%016llx", number * 0x9e3779b97f4a7c15ull);
    return larder_set(map, key, 16, value, size, NULL);
}

/* They have to push out thousands of small ones, which stand on as many pages. */
START_TEST(large_values_come_into_a_map_full_of_small_ones)
{
    enum { SMALL = 200000, LARGE = 5, ROUNDS = 3 };
    unsigned number = 0;
    map->write_wait_ms = 5000; /* on a busy machine the processor is away for longer than usual */
    for (; number < SMALL; number++) {
        ck_assert_int_eq(set_sized(number, 100), LARDER_OK);
    }
    ck_assert_uint_gt(maps_stats(map).evictions, SMALL / 4);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < LARGE; i++) {
            ck_assert_msg(set_sized(number, MAPS_SIZE / 16) == LARDER_OK, "%s",
                          larder_last_error());
            number++;
        }
        for (unsigned i = 0; i < 2000; i++, number++) {
            ck_assert_int_eq(set_sized(number, 100), LARDER_OK);
        }
    }
    maps_whole(map);
}
END_TEST

START_TEST(where_all_was_asked_for_a_flood_passes)
{
    enum { ENTRIES = 140 };
    larder *bounded = NULL;
    larder_options options = {.dir = harness_directory(),
                              .map_size = MAPS_SIZE,
                              .hot_size = LARDER_NO_HOT_SET,
                              .max_entries = ENTRIES};
    char key[24];
    int old = 0;
    ck_assert_int_eq(larder_open("visited", &options, &bounded), LARDER_OK);
    for (int i = 0; i < 4 * ENTRIES; i++) { /* set each, then ask thrice */
        (void)snprintf(key, sizeof key, "old%d", i % ENTRIES);
        ck_assert_int_eq(i < ENTRIES ? maps_set(bounded, key, "v") : maps_has(bounded, key),
                         LARDER_OK);
    }
    for (int i = 0; i < 5 * ENTRIES; i++) {
        (void)snprintf(key, sizeof key, "flood%d", i);
        ck_assert_int_eq(maps_set(bounded, key, "v"), LARDER_OK);
    }
    for (int i = 0; i < ENTRIES; i++) {
        (void)snprintf(key, sizeof key, "old%d", i);
        old += maps_has(bounded, key) == LARDER_OK;
    }
    ck_assert_int_ge(old, ENTRIES * 80 / 100);
    maps_whole(bounded);
    larder_close(&bounded);
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
    ck_assert_uint_gt(stats.entries, 4500); /* and the map is well filled */
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
    tcase_set_timeout(tests, harness_patience(60000) / 1000);
    tcase_add_checked_fixture(tests, open_map, close_map);
    tcase_add_test(tests, what_grew_unwatched_is_main_but_for_its_newest_seventh);
    tcase_add_test(tests, the_main_hand_spares_as_often_as_was_asked);
    tcase_add_test(tests, two_hits_prove_an_entry_and_one_does_not);
    tcase_add_test(tests, what_comes_back_soon_is_not_put_to_the_test_again);
    tcase_add_test(tests, ghosts_fade);
    tcase_add_test(tests, ghosts_forget_when_there_are_more_than_slots);
    tcase_add_test(tests, the_ghosts_table_grows_and_shrinks_with_the_entries);
    tcase_add_test(tests, keys_that_share_a_byte_share_no_hits);
    tcase_add_test(tests, a_hit_raises_its_mark_to_three_and_a_peek_never);
    tcase_add_test(tests, an_aborted_write_moves_no_hand);
    tcase_add_test(tests, a_process_killed_while_it_evicts_moves_no_hand);
    tcase_add_test(tests, nothing_is_walked_while_nothing_can_have_expired);
    tcase_add_test(tests, the_dead_go_first);
    tcase_add_test(tests, of_a_full_map_half_expired_all_that_lives_stays);
    tcase_add_test(tests, a_capacity_in_entries_is_kept);
    tcase_add_test(tests, the_expired_go_even_when_they_were_asked_for);
    tcase_add_test(tests, evicting_what_redis_has_not_got_leaves_invalidations);
    tcase_add_test(tests, a_row_that_nothing_names_is_cleared_away);
    tcase_add_test(tests, room_is_what_the_largest_write_and_one_of_late_need);
    tcase_add_test(tests, large_values_come_into_a_map_full_of_small_ones);
    tcase_add_test(tests, where_all_was_asked_for_a_flood_passes);
    tcase_add_test(tests, a_scan_does_not_push_out_what_is_used);
    tcase_add_test(tests, one_huge_value_does_not_wipe_the_rest);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
