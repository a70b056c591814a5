/* test_upkeep.c: the janitor's steps: what has expired goes, tombstones go when they are old and
 * clean, eviction stops at the watermark, dead readers are cleared, and each step is bounded.
 */
#include "upkeep.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "removal.h"
#include "replica.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"
#include "writer.h"

static larder *map;
static uint64_t fence;

static void open_map(void)
{
    int other;
    map = maps_new();
    ck_assert_int_eq(replica_claim(map, true, &fence, &other), LARDER_OK);
}

static void close_map(void)
{
    maps_whole(map);
    larder_close(&map);
}

/* Go once round the log. */
static size_t expire(int64_t tombstone_ms)
{
    upkeep_step step = {.next_row = 0};
    size_t removed = 0;
    do {
        ck_assert_int_eq(upkeep_expire(map, &step, 100, tombstone_ms), LARDER_OK);
        ck_assert_uint_le(step.looked_at, 100);
        removed += step.removed;
    } while (!step.wrapped);
    ck_assert_uint_eq(step.next_row, 0);
    return removed;
}

/* Acknowledge everything. */
static void clean(void)
{
    replica_batch batch = {0};
    static replica_ack acks[1000];
    ck_assert_int_eq(replica_outbox(map, &batch, 0, 1000, 1 << 22, false), LARDER_OK);
    for (size_t i = 0; i < batch.count; i++) {
        acks[i] = (replica_ack){batch.records[i].key, batch.records[i].key_size,
                                batch.records[i].version, batch.records[i].kind, REPLICA_STORED};
    }
    ck_assert_int_eq(replica_acknowledge(map, fence, acks, batch.count, NULL), LARDER_OK);
    replica_batch_free(&batch);
}

START_TEST(what_has_expired_goes)
{
    char key[16];
    int64_t until = clock_wall_ms() + 2000; /* the sets must all come before it */
    larder_policy soon = {.flags = LARDER_LOCAL, .expiry = larder_expire_at(until)};
    for (int i = 0; i < 600; i++) {
        (void)snprintf(key, sizeof key, "k%d", i);
        ck_assert_int_eq(larder_set(map, key, strlen(key), "v", 1, i % 2 == 0 ? &soon : NULL),
                         LARDER_OK);
    }
    while (!clock_expired(until)) {
    }
    uint64_t before = maps_stats(map).entries;
    ck_assert_uint_eq(expire(86400000), before - 300);
    ck_assert_uint_eq(maps_stats(map).entries, 300);
    ck_assert_uint_eq(maps_stats(map).tombstones, 0); /* local ones leave nothing behind */
    ck_assert_uint_eq(maps_stats(map).expirations, before - 300);
    ck_assert_uint_eq(expire(86400000), 0);
}
END_TEST

START_TEST(expired_ones_that_redis_has_not_got_leave_invalidations)
{
    int64_t until = clock_wall_ms() + 500;
    larder_policy soon = {.expiry = larder_expire_at(until)};
    ck_assert_int_eq(larder_set(map, "dirty", 5, "v", 1, &soon), LARDER_OK);
    while (!clock_expired(until)) {
    }
    ck_assert_uint_eq(expire(86400000), 1);
    ck_assert_uint_eq(maps_stats(map).entries, 0);
    ck_assert_uint_eq(maps_stats(map).tombstones, 1);
    ck_assert_uint_eq(maps_stats(map).dirty, 1);
}
END_TEST

START_TEST(tombstones_go_when_they_are_old_and_clean)
{
    ck_assert_int_eq(maps_set(map, "a", "1"), LARDER_OK);
    ck_assert_int_eq(maps_delete(map, "a"), LARDER_OK);
    ck_assert_int_eq(maps_delete(map, "b"), LARDER_MISS);
    ck_assert_uint_eq(expire(-1000), 0); /* dirty: Redis does not know yet */
    ck_assert_uint_eq(maps_stats(map).tombstones, 2);
    clean();
    ck_assert_uint_eq(expire(86400000), 0); /* clean, but young */
    ck_assert_uint_eq(expire(-1000), 2);
    ck_assert_uint_eq(maps_stats(map).tombstones, 0);
    struct key key;
    ck_assert_int_eq(key_make(&key, "b", 1), LARDER_OK);
    ck_assert_uint_ne(removal_floor(maps_control(map), key.hash), 0); /* the floor remembers */
}
END_TEST

START_TEST(what_a_barrier_killed_becomes_a_deletion_that_travels)
{
    struct key key;
    ck_assert_int_eq(maps_set(map, "a", "1"), LARDER_OK);
    uint64_t written = maps_info(map, "a").version.clock;
    clean();
    ck_assert_int_eq(key_make(&key, "a", 1), LARDER_OK);
    uint64_t barrier = clock_next(maps_control(map)).clock;
    removal_raise_barrier(maps_control(map), key.hash, barrier);
    ck_assert_ptr_null(maps_get(map, "a"));
    ck_assert_uint_eq(expire(86400000), 1);
    ck_assert_uint_eq(maps_stats(map).entries, 0);
    ck_assert_uint_eq(maps_stats(map).tombstones, 1);
    replica_batch batch = {0};
    ck_assert_int_eq(replica_outbox(map, &batch, 0, 10, 1000, false), LARDER_OK);
    ck_assert_uint_eq(batch.count, 1);
    ck_assert_int_eq(batch.records[0].kind, REPLICA_DELETED);
    ck_assert_uint_eq(batch.records[0].version.clock, written);
    replica_batch_free(&batch);
    ck_assert_uint_eq(expire(86400000), 0);
}
END_TEST

/* What this map had no room for, the others have: it is not to be deleted there. */
START_TEST(what_a_barrier_of_this_host_alone_killed_goes_untold)
{
    struct key key;
    replica_event event = {
        .record = {.version = {.clock = clock_next(maps_control(map)).clock, .node = 9},
                   .kind = REPLICA_VALUE,
                   .expires_at_ms = INT64_MAX,
                   .key = (const uint8_t *)"a",
                   .key_size = 1,
                   .value = (const uint8_t *)"1",
                   .value_size = 1,
                   .value_hash = replica_value_hash("1", 1)}};
    replica_event again = event;
    ck_assert_int_eq(replica_apply(map, fence, &event, 1, NULL), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "a"), "1");
    ck_assert_int_eq(key_make(&key, "a", 1), LARDER_OK);
    removal_raise_barrier_here(maps_control(map), key.hash, clock_next(maps_control(map)).clock);
    ck_assert_ptr_null(maps_get(map, "a"));
    ck_assert_uint_eq(expire(86400000), 1);
    ck_assert_uint_eq(maps_stats(map).entries, 0);
    ck_assert_uint_eq(maps_stats(map).tombstones, 0);
    ck_assert_uint_eq(maps_stats(map).dirty, 0);
    /* nor does it come in again: it is what was killed */
    ck_assert_int_eq(replica_apply(map, fence, &again, 1, NULL), LARDER_OK);
    ck_assert_int_eq(again.verdict, REPLICA_REFUSED);
    ck_assert_ptr_null(maps_get(map, "a"));
    ck_assert_uint_eq(maps_stats(map).tombstones, 0);
    ck_assert_int_eq(maps_set(map, "a", "newer"), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "a"), "newer");
}
END_TEST

START_TEST(a_busy_gate_leaves_the_step_where_it_was)
{
    upkeep_step step = {.next_row = 0};
    size_t evicted = 99;
    int64_t until = clock_wall_ms() + 20;
    larder_policy soon = {.flags = LARDER_LOCAL, .expiry = larder_expire_at(until)};
    ck_assert_int_eq(maps_set(map, "stays", "v"), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "goes", 4, "v", 1, &soon), LARDER_OK);
    while (!clock_expired(until)) {
    }
    struct maps_holder holder = maps_hold(&maps_control(map)->write_gate);
    ck_assert_int_eq(upkeep_expire(map, &step, 100, 1000), LARDER_EBUSY);
    ck_assert_uint_eq(step.next_row, 0);
    ck_assert_uint_eq(step.removed, 0);
    ck_assert(!step.wrapped);
    ck_assert_int_eq(upkeep_evict(map, 0.0, 10, &evicted), LARDER_EBUSY);
    ck_assert_uint_eq(evicted, 0);
    maps_let_go(&holder);
    ck_assert_uint_eq(expire(1000), 1);
    holder = maps_hold(&maps_control(map)->reader_gate);
    int cleared;
    ck_assert_int_eq(upkeep_readers(map, &cleared), LARDER_EBUSY);
    maps_let_go(&holder);
    ck_assert_int_eq(upkeep_readers(map, &cleared), LARDER_OK);
}
END_TEST

START_TEST(eviction_ends_at_the_watermark)
{
    static char value[1000];
    char key[16];
    size_t evicted;
    larder_policy local = {.flags = LARDER_LOCAL};
    for (int i = 0; i < 5000; i++) {
        (void)snprintf(key, sizeof key, "k%d", i);
        ck_assert_int_eq(larder_set(map, key, strlen(key), value, sizeof value, &local), LARDER_OK);
    }
    larder_stats before = maps_stats(map);
    double share = (double)before.used_bytes / (double)before.map_size;
    ck_assert_int_eq(upkeep_evict(map, 1.0, 1000, &evicted), LARDER_OK);
    ck_assert_uint_eq(evicted, 0);
    ck_assert_int_eq(upkeep_evict(map, share / 2, 100, &evicted), LARDER_OK);
    ck_assert_uint_eq(evicted, 100); /* the caller's limit */
    ck_assert_int_eq(upkeep_evict(map, share / 2, 100000, &evicted), LARDER_OK);
    larder_stats after = maps_stats(map);
    ck_assert_uint_le(after.used_bytes, (uint64_t)(share / 2 * (double)after.map_size));
    ck_assert_uint_ge(after.used_bytes, before.used_bytes / 3); /* and not far below */
    ck_assert_uint_eq(after.entries + evicted + 100, before.entries);
    ck_assert_int_eq(maps_has(map, "k4999"), LARDER_OK); /* the oldest went */
    ck_assert_int_eq(maps_has(map, "k0"), LARDER_MISS);
    ck_assert_int_eq(upkeep_evict(map, 0.0, 100000, &evicted),
                     LARDER_EFULL); /* it cannot be empty */
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "nothing more"));
    ck_assert_uint_eq(maps_stats(map).entries, 0);
    ck_assert_int_eq(upkeep_evict(map, -0.1, 10, &evicted), LARDER_EINVAL);
    ck_assert_int_eq(upkeep_evict(map, 1.1, 10, &evicted), LARDER_EINVAL);
}
END_TEST

static int read_and_die(void *context)
{
    larder_view view;
    (void)context;
    if (larder_borrow(map, "k", 1, &view) != LARDER_OK) {
        return 1;
    }
    (void)kill(getpid(), SIGKILL);
    return 2;
}

START_TEST(slots_of_dead_readers_are_cleared)
{
    int cleared = -1;
    ck_assert_int_eq(maps_set(map, "k", "1"), LARDER_OK);
    ck_assert_int_eq(upkeep_readers(map, &cleared), LARDER_OK);
    ck_assert_int_eq(cleared, 0);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(maps_in_child(read_and_die, NULL), -SIGKILL);
    }
    ck_assert_int_eq(upkeep_readers(map, &cleared), LARDER_OK);
    ck_assert_int_eq(cleared, 3);
}
END_TEST

START_TEST(verifying_goes_round_in_steps)
{
    uint64_t row = 0;
    char key[16];
    static char value[9000];
    size_t steps = 0;
    for (int i = 0; i < 25; i++) {
        (void)snprintf(key, sizeof key, "k%d", i);
        ck_assert_int_eq(larder_set(map, key, strlen(key), value, (size_t)i * 300, NULL),
                         LARDER_OK);
    }
    do {
        ck_assert_int_eq(upkeep_verify(map, &row, 10), LARDER_OK);
        steps++;
    } while (row != 0);
    ck_assert_uint_eq(steps, 3);
}
END_TEST

START_TEST(another_size_keeps_what_must_not_be_lost)
{
    bool changed = false;
    larder_stats stats;
    replica_position position = {.epoch = 4, .number = 44, .run_id = "run"}, read;
    static char big[30000];
    memset(big, 'b', sizeof big);
    ck_assert_int_eq(maps_set(map, "clean", "1"), LARDER_OK);
    clean();
    ck_assert_int_eq(maps_set(map, "dirty", "2"), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "big", 3, big, sizeof big, NULL), LARDER_OK);
    ck_assert_int_eq(maps_delete(map, "deleted"), LARDER_MISS);
    ck_assert_int_eq(replica_apply(map, fence, NULL, 0, &position), LARDER_OK);
    larder_version version = maps_info(map, "dirty").version;
    ck_assert_int_eq(upkeep_resize(map, 2 * MAPS_SIZE, &changed), LARDER_OK);
    ck_assert(changed);
    stats = maps_stats(map);
    ck_assert_uint_eq(stats.map_size, 2 * MAPS_SIZE);
    ck_assert_uint_eq(stats.generation, 2);
    ck_assert_uint_eq(stats.entries, 3);
    ck_assert_uint_eq(stats.tombstones, 1);
    ck_assert_uint_eq(stats.dirty, 3);
    ck_assert_str_eq(maps_get(map, "clean"), "1");
    ck_assert_str_eq(maps_get(map, "dirty"), "2");
    ck_assert_int_eq(clock_compare(maps_info(map, "dirty").version, version), 0);
    ck_assert_int_eq(replica_position_read(map, &read), LARDER_OK);
    ck_assert_uint_eq(read.number, 44);
    ck_assert_str_eq(read.run_id, "run");
    maps_whole(map);
    ck_assert_int_eq(upkeep_resize(map, 2 * MAPS_SIZE, &changed), LARDER_OK);
    ck_assert(!changed);
    ck_assert_int_eq(upkeep_resize(map, MAPS_SIZE, &changed), LARDER_OK);
    ck_assert(changed);
    ck_assert_uint_eq(maps_stats(map).entries, 3);
    char *got = malloc(sizeof big);
    ck_assert_ptr_nonnull(got);
    ck_assert_int_eq(larder_get(map, "big", 3, got, sizeof big, NULL), LARDER_OK);
    ck_assert_mem_eq(got, big, sizeof big);
    free(got);
    ck_assert_int_eq(maps_set(map, "after", "3"), LARDER_OK);
    ck_assert_int_eq(upkeep_resize(map, 4096, &changed), LARDER_EINVAL);
    ck_assert(!changed);
}
END_TEST

START_TEST(a_smaller_map_keeps_the_newest_and_all_that_is_dirty)
{
    bool changed = false;
    static char value[3000];
    char key[16];
    ck_assert_int_eq(upkeep_resize(map, 3 * MAPS_SIZE, &changed), LARDER_OK);
    static replica_event events[100];
    static char keys[100][16];
    for (int i = 0; i < 6000; i += 100) { /* clean ones, of another host */
        for (int at = 0; at < 100; at++) {
            int size = snprintf(keys[at], sizeof keys[at], "k%d", i + at);
            events[at] =
                (replica_event){.record = {.version = clock_next(maps_control(map)),
                                           .kind = REPLICA_VALUE,
                                           .expires_at_ms = INT64_MAX,
                                           .key = (uint8_t *)keys[at],
                                           .key_size = (size_t)size,
                                           .value = (uint8_t *)value,
                                           .value_size = sizeof value,
                                           .value_hash = replica_value_hash(value, sizeof value)}};
        }
        ck_assert_int_eq(replica_apply(map, fence, events, 100, NULL), LARDER_OK);
    }
    ck_assert_int_eq(maps_set(map, "k0", "dirty"), LARDER_OK);
    ck_assert_int_eq(upkeep_resize(map, MAPS_SIZE, &changed), LARDER_OK);
    ck_assert(changed);
    larder_stats stats = maps_stats(map);
    ck_assert_uint_gt(stats.entries, 1000);
    ck_assert_uint_lt(stats.entries, 5000);
    ck_assert_str_eq(maps_get(map, "k0"), "dirty");
    (void)snprintf(key, sizeof key, "k%d", 5999);
    ck_assert_int_eq(maps_has(map, key), LARDER_OK);
    ck_assert_int_eq(maps_has(map, "k1"), LARDER_MISS);
    ck_assert_int_eq(maps_set(map, "room", "is left"), LARDER_OK);
    /* what was left out keeps out what it had replaced */
    replica_event older = events[0];
    older.record.version.clock -= UINT64_C(600000) << 16;
    older.record.key = (const uint8_t *)"k1";
    older.record.key_size = 2;
    ck_assert_int_eq(replica_apply(map, fence, &older, 1, NULL), LARDER_OK);
    ck_assert_int_eq(older.verdict, REPLICA_REFUSED);
    ck_assert_int_eq(maps_has(map, "k1"), LARDER_MISS);
}
END_TEST

/* Two generations share a place for their numbers, in turn: the third finds the first's there. */
START_TEST(a_busy_map_can_have_many_lives)
{
    char text[16];
    for (unsigned life = 0; life < 6; life++) {
        bool changed = false;
        for (unsigned i = 0; i < 20; i++) {
            (void)snprintf(text, sizeof text, "%u", i);
            ck_assert_int_eq(maps_set(map, text, text), LARDER_OK);
        }
        if (life % 3 == 2) { /* found damaged, and made anew */
            control_poison(maps_control(map), maps_stats(map).generation);
            ck_assert_int_eq(maps_set(map, "0", "0"), LARDER_OK);
        } else {
            uint64_t size = (life + 2) * MAPS_SIZE;
            ck_assert_int_eq(upkeep_resize(map, size, &changed), LARDER_OK);
            ck_assert(changed);
        }
        ck_assert_int_eq(larder_has(map, "0", 1), LARDER_OK);
    }
}
END_TEST

START_TEST(a_map_too_small_for_what_redis_has_not_got_is_not_made)
{
    bool changed = true;
    static char value[3000];
    char key[16];
    ck_assert_int_eq(upkeep_resize(map, 3 * MAPS_SIZE, &changed), LARDER_OK);
    for (int i = 0; i < 5000; i++) {
        (void)snprintf(key, sizeof key, "k%d", i);
        ck_assert_int_eq(larder_set(map, key, strlen(key), value, sizeof value, NULL), LARDER_OK);
    }
    ck_assert_int_eq(upkeep_resize(map, MAPS_SIZE, &changed), LARDER_EFULL);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "16777216"));
    ck_assert(!changed);
    ck_assert_uint_eq(maps_stats(map).map_size, 3 * MAPS_SIZE);
    ck_assert_uint_eq(maps_stats(map).entries, 5000);
    ck_assert_int_eq(maps_set(map, "k0", "goes on"), LARDER_OK);
}
END_TEST

/* One that was stopped while another took the map over removes nothing more. */
START_TEST(a_larderd_that_was_relieved_leaves_the_map_alone)
{
    upkeep_step step = {.next_row = 0};
    size_t evicted = 99;
    ck_assert_int_eq(maps_set(map, "k", "v"), LARDER_OK);
    ck_assert_int_eq(larder_delete(map, "gone", 4), LARDER_MISS);
    clean();
    (void)atomic_fetch_add(&maps_control(map)->fence, 1);
    ck_assert_int_eq(upkeep_expire(map, &step, 100, -60000), REPLICA_FENCED);
    ck_assert_uint_eq(step.removed, 0);
    ck_assert_int_eq(upkeep_evict(map, 0, 100, &evicted), REPLICA_FENCED);
    ck_assert_uint_eq(evicted, 0);
    ck_assert_ptr_nonnull(maps_get(map, "k"));
    (void)atomic_fetch_sub(&maps_control(map)->fence, 1); /* as it was */
    ck_assert_uint_eq(expire(-60000), 1);
    ck_assert_int_eq(upkeep_evict(map, 0, 100, &evicted), LARDER_EFULL);
    ck_assert_uint_eq(evicted, 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("upkeep");
    TCase *tests = tcase_create("upkeep");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, open_map, close_map);
    tcase_add_test(tests, what_has_expired_goes);
    tcase_add_test(tests, expired_ones_that_redis_has_not_got_leave_invalidations);
    tcase_add_test(tests, tombstones_go_when_they_are_old_and_clean);
    tcase_add_test(tests, what_a_barrier_killed_becomes_a_deletion_that_travels);
    tcase_add_test(tests, what_a_barrier_of_this_host_alone_killed_goes_untold);
    tcase_add_test(tests, a_busy_gate_leaves_the_step_where_it_was);
    tcase_add_test(tests, eviction_ends_at_the_watermark);
    tcase_add_test(tests, slots_of_dead_readers_are_cleared);
    tcase_add_test(tests, verifying_goes_round_in_steps);
    tcase_add_test(tests, another_size_keeps_what_must_not_be_lost);
    tcase_add_test(tests, a_smaller_map_keeps_the_newest_and_all_that_is_dirty);
    tcase_add_test(tests, a_busy_map_can_have_many_lives);
    tcase_add_test(tests, a_map_too_small_for_what_redis_has_not_got_is_not_made);
    tcase_add_test(tests, a_larderd_that_was_relieved_leaves_the_map_alone);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
