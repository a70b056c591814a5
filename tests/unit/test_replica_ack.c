/* test_replica_ack.c: what Redis answered to entries: that a version is too far ahead of its clock,
 * that nobody knows an entry any more; and the clock and the node id that larderd sets.
 */
#include "replica.h"

#include <check.h>
#include <string.h>

#include "clock.h"
#include "removal.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"
#include "writer.h"

#define YEAR_MS INT64_C(31536000000)

static larder *map;
static uint64_t fence;

static void open_map(void)
{
    int other = -1;
    map = maps_new();
    ck_assert_int_eq(replica_claim(map, true, &fence, &other), LARDER_OK);
}

static void close_map(void)
{
    maps_whole(map);
    larder_close(&map);
}

/* Redis's clock is that far ahead of this host's. */
static void redis_is_ahead(int64_t ms)
{
    int64_t ours = clock_wall_ms() - clock_monotonic_ms();
    ck_assert_int_eq(replica_publish_clock(map, fence, ours + ms), LARDER_OK);
}

static bool find(const char *key, bool clean, replica_record *out)
{
    replica_batch batch = {0};
    bool found = false;
    ck_assert_int_eq(replica_outbox(map, &batch, 0, 1000, 1 << 20, clean), LARDER_OK);
    for (size_t i = 0; i < batch.count; i++) {
        if (batch.records[i].key_size == strlen(key) &&
            memcmp(batch.records[i].key, key, strlen(key)) == 0) {
            *out = batch.records[i];
            found = true;
        }
    }
    replica_batch_free(&batch);
    return found;
}

static size_t answer(const char *key, const replica_record *record, enum replica_ack_kind what)
{
    size_t cleared = 99;
    replica_ack ack = {.key = (const uint8_t *)key,
                       .key_size = strlen(key),
                       .version = record->version,
                       .kind = record->kind,
                       .what = what};
    ck_assert_int_eq(replica_acknowledge(map, fence, &ack, 1, &cleared), LARDER_OK);
    maps_whole(map);
    return cleared;
}

static int64_t written_ms(const replica_record *record)
{
    return clock_version_ms(record->version.clock);
}

/* ---- The clock --------------------------------------------------------------------------------
 */

START_TEST(versions_go_by_the_clock_of_redis)
{
    replica_record record;
    redis_is_ahead(5000);
    int64_t before = clock_wall_ms();
    ck_assert_int_eq(maps_set(map, "k", "v"), LARDER_OK);
    ck_assert(find("k", false, &record));
    ck_assert_int_ge(written_ms(&record), before + 4990);
    ck_assert_int_le(written_ms(&record), clock_wall_ms() + 5010);
    ck_assert_int_eq(replica_publish_clock(map, fence + 1, 0), REPLICA_FENCED);
}
END_TEST

/* Another host's clock stands a year ahead, and it invalidates: what is written here from now on is
 * not dead for a year. */
START_TEST(invalidations_of_a_far_clock_count_as_just_so_far_ahead)
{
    static const char *const names[] = {"c", "f", "F", "A", "b000", "m00000000000000ff", "puser:"};
    struct control *control = maps_control(map);
    redis_is_ahead(0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        replica_event event = {
            .record = {.key = (const uint8_t *)names[i],
                       .key_size = strlen(names[i]),
                       .version = {.clock = (uint64_t)(clock_wall_ms() + YEAR_MS) << 16, .node = 7},
                       .kind = REPLICA_MARK,
                       .expires_at_ms = INT64_MAX}};
        ck_assert_int_eq(maps_set(map, "user:1", "old"), LARDER_OK);
        ck_assert_int_eq(replica_apply(map, fence, &event, 1, NULL), LARDER_OK);
        ck_assert_msg(event.verdict == REPLICA_APPLIED, "%s", names[i]);
        uint64_t limit = clock_limit(control);
        ck_assert_uint_le(atomic_load(&control->cleared), limit);
        ck_assert_uint_le(atomic_load(&control->barrier_max), limit);
        ck_assert_uint_le(atomic_load(&control->marks.newest), limit);
        ck_assert_uint_le(atomic_load(&control->marks.floor), limit);
        ck_assert_uint_le(atomic_load(&control->sweeps.newest), limit);
        ck_assert_int_eq(maps_set(map, "user:1", "new"), LARDER_OK);
        ck_assert_msg(larder_has(map, "user:1", 6) == LARDER_OK, "dead at once after %s", names[i]);
    }
}
END_TEST

/* This host's clock stood a year ahead, then it was set right. */
START_TEST(a_host_that_stood_a_year_ahead_heals)
{
    struct control *control = maps_control(map);
    replica_record old, anew, next;
    redis_is_ahead(0);
    atomic_store(&control->clock, (uint64_t)(clock_wall_ms() + YEAR_MS) << 16);
    ck_assert_int_eq(maps_set(map, "k", "v"), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "gone", "v"), LARDER_OK);
    ck_assert_int_eq(maps_delete(map, "gone"), LARDER_OK);
    removal_raise_floor(control, 0, clock_next(control).clock);
    redis_is_ahead(0);
    ck_assert(find("k", false, &old));
    ck_assert_int_gt(written_ms(&old), clock_wall_ms() + YEAR_MS / 2);

    ck_assert_uint_eq(answer("k", &old, REPLICA_AHEAD), 0);
    ck_assert(find("k", false, &anew)); /* it waits to be pushed */
    ck_assert_int_le(written_ms(&anew), clock_wall_ms() + CLOCK_NOTED_EVERY_MS + 10);
    ck_assert_uint_gt(anew.row, old.row);
    ck_assert_str_eq(maps_get(map, "k"), "v");
    ck_assert(find("gone", false, &old));
    ck_assert_uint_eq(answer("gone", &old, REPLICA_AHEAD), 0);
    ck_assert(find("gone", false, &anew));
    ck_assert_int_eq(anew.kind, REPLICA_DELETED);
    ck_assert_int_le(written_ms(&anew), clock_wall_ms() + CLOCK_NOTED_EVERY_MS + 10);

    ck_assert_int_eq(maps_set(map, "next", "v"), LARDER_OK);
    ck_assert(find("next", false, &next));
    ck_assert_int_le(written_ms(&next), clock_wall_ms() + CLOCK_NOTED_EVERY_MS + 10);
    ck_assert_int_le(clock_version_ms(removal_floor(control, 0)),
                     clock_wall_ms() + CLOCK_AHEAD_MS + 10);
}
END_TEST

START_TEST(only_the_version_that_was_refused_is_stamped_anew)
{
    replica_record refused, now;
    redis_is_ahead(0);
    ck_assert_int_eq(maps_set(map, "k", "old"), LARDER_OK);
    ck_assert(find("k", false, &refused));
    ck_assert_int_eq(maps_set(map, "k", "new"), LARDER_OK);
    ck_assert(find("k", false, &now));
    ck_assert_uint_eq(answer("k", &refused, REPLICA_AHEAD), 0);
    ck_assert(find("k", false, &refused));
    ck_assert_uint_eq(refused.version.clock, now.version.clock);
    ck_assert_str_eq(maps_get(map, "k"), "new");
}
END_TEST

/* What was invalidated before it got its new version must not come back to life by that. */
START_TEST(what_is_dead_is_not_stamped_alive)
{
    replica_record old;
    redis_is_ahead(0);
    ck_assert_int_eq(maps_set(map, "k", "v"), LARDER_OK);
    ck_assert(find("k", false, &old));
    ck_assert_int_eq(larder_clear(map), LARDER_OK);
    ck_assert_uint_eq(answer("k", &old, REPLICA_AHEAD), 0);
    ck_assert_ptr_null(maps_get(map, "k"));
}
END_TEST

START_TEST(what_comes_in_too_far_ahead_does_not_raise_the_clock_beyond_it)
{
    replica_record ours;
    redis_is_ahead(0);
    replica_event event = {
        .record = {.version = {.clock = (uint64_t)(clock_wall_ms() + YEAR_MS) << 16, .node = 9},
                   .kind = REPLICA_DELETED,
                   .expires_at_ms = INT64_MAX,
                   .key = (const uint8_t *)"theirs",
                   .key_size = 6}};
    ck_assert_int_eq(replica_apply(map, fence, &event, 1, NULL), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "ours", "v"), LARDER_OK);
    ck_assert(find("ours", false, &ours));
    ck_assert_int_le(written_ms(&ours), clock_wall_ms() + CLOCK_AHEAD_MS + 10);
    ck_assert_int_gt(written_ms(&ours), clock_wall_ms() + CLOCK_AHEAD_MS / 2);

    /* and it does not rule over what Redis takes in its place */
    event.record.version.clock = ours.version.clock - (UINT64_C(1000) << 16);
    event.record.kind = REPLICA_NEGATIVE;
    ck_assert_int_eq(replica_apply(map, fence, &event, 1, NULL), LARDER_OK);
    ck_assert_int_eq(event.verdict, REPLICA_APPLIED);
}
END_TEST

/* ---- Forgetting -------------------------------------------------------------------------------
 */

START_TEST(only_what_is_clean_and_the_same_is_forgotten)
{
    replica_record dirty, clean;
    ck_assert_int_eq(maps_set(map, "dirty", "v"), LARDER_OK);
    ck_assert(find("dirty", false, &dirty) && dirty.dirty);
    ck_assert_uint_eq(answer("dirty", &dirty, REPLICA_FORGET), 0);
    ck_assert_str_eq(maps_get(map, "dirty"), "v");

    replica_event event = {.record = {.version = {.clock = dirty.version.clock, .node = 9},
                                      .kind = REPLICA_VALUE,
                                      .expires_at_ms = INT64_MAX,
                                      .key = (const uint8_t *)"clean",
                                      .key_size = 5,
                                      .value = (const uint8_t *)"v",
                                      .value_size = 1,
                                      .value_hash = replica_value_hash("v", 1)}};
    ck_assert_int_eq(replica_apply(map, fence, &event, 1, NULL), LARDER_OK);
    ck_assert(find("clean", true, &clean) && !clean.dirty);
    clean.version.clock--;
    ck_assert_uint_eq(answer("clean", &clean, REPLICA_FORGET), 0);
    ck_assert_str_eq(maps_get(map, "clean"), "v");
    clean.version.clock++;
    ck_assert_uint_eq(answer("clean", &clean, REPLICA_FORGET), 1);
    ck_assert_ptr_null(maps_get(map, "clean"));
    ck_assert(!find("clean", true, &clean)); /* and nothing of it is told */
}
END_TEST

/* ---- Node ids and places ----------------------------------------------------------------------
 */

START_TEST(another_node_id_may_be_drawn)
{
    uint32_t before = replica_node(map);
    replica_record record;
    ck_assert_int_eq(maps_set(map, "old", "v"), LARDER_OK);
    ck_assert_int_eq(replica_draw_node(map, fence + 1), REPLICA_FENCED);
    ck_assert_uint_eq(replica_node(map), before);
    ck_assert_int_eq(replica_draw_node(map, fence), LARDER_OK);
    ck_assert_uint_ne(replica_node(map), before);
    ck_assert_int_eq(maps_set(map, "new", "v"), LARDER_OK);
    ck_assert(find("new", false, &record));
    ck_assert_uint_eq(record.version.node, replica_node(map));
    ck_assert(find("old", false, &record));
    ck_assert_uint_eq(record.version.node, before);
    ck_assert_uint_eq(replica_identity(map), replica_identity(map));
    ck_assert_uint_ne(replica_identity(map), 0);
}
END_TEST

START_TEST(the_place_remembers_when_it_was_the_end)
{
    replica_position at = {.epoch = 1,
                           .number = 2,
                           .nonce = 3,
                           .run_id = "r",
                           .seen_ms = 4,
                           .since_ms = 5,
                           .marks_id = 6},
                     got;
    ck_assert_int_eq(replica_apply(map, fence, NULL, 0, &at), LARDER_OK);
    ck_assert_int_eq(replica_position_read(map, &got), LARDER_OK);
    ck_assert_int_eq(got.seen_ms, 4);
    ck_assert_int_eq(got.since_ms, 5);
    ck_assert_uint_eq(got.marks_id, 6);
    ck_assert_uint_eq(got.number, 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("replica_ack");
    TCase *all = tcase_create("answers");
    tcase_add_checked_fixture(all, open_map, close_map);
    tcase_add_test(all, invalidations_of_a_far_clock_count_as_just_so_far_ahead);
    tcase_add_test(all, versions_go_by_the_clock_of_redis);
    tcase_add_test(all, a_host_that_stood_a_year_ahead_heals);
    tcase_add_test(all, only_the_version_that_was_refused_is_stamped_anew);
    tcase_add_test(all, what_is_dead_is_not_stamped_alive);
    tcase_add_test(all, what_comes_in_too_far_ahead_does_not_raise_the_clock_beyond_it);
    tcase_add_test(all, only_what_is_clean_and_the_same_is_forgotten);
    tcase_add_test(all, another_node_id_may_be_drawn);
    tcase_add_test(all, the_place_remembers_when_it_was_the_end);
    suite_add_tcase(suite, all);
    return harness_run(suite);
}
