/* test_events.c: the ring of events and those who follow it: what is told, in which order, to whom;
 * filters; limits; what a follower is told when it was too slow or a publisher died half-way.
 */
#include "events.h"

#include <check.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "clock.h"
#include "key.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"
#include "writer.h"

static larder *map;

static void make_map(void)
{
    map = maps_new();
}

static void close_map(void)
{
    larder_close(&map);
}

static larder_bytes text(const char *string)
{
    return (larder_bytes){string, strlen(string)};
}

static larder_follower *follow(const larder_filter *filter)
{
    larder_follower *follower = NULL;
    int result = larder_follow(map, filter, &follower);
    ck_assert_msg(result == LARDER_OK, "larder_follow: %d %s", result, larder_last_error());
    return follower;
}

static struct event_ring *ring(void)
{
    return &maps_control(map)->events;
}

static bool nobody_follows(void)
{
    return (uint32_t)atomic_load(&ring()->interest) == 0;
}

/* The next event is this one. */
static larder_event expect(larder_follower *follower, uint32_t kind, uint32_t cause,
                           const char *name)
{
    larder_event event;
    int result = larder_next_event(follower, &event);
    ck_assert_msg(result == LARDER_OK, "%s: %d %s", name, result, larder_last_error());
    ck_assert_uint_eq(event.kind, kind);
    ck_assert_uint_eq(event.cause, cause);
    ck_assert_uint_eq(event.name.size, strlen(name));
    ck_assert_mem_eq(event.name.data, name, event.name.size);
    ck_assert_uint_eq(event.name_size, strlen(name));
    ck_assert_uint_eq(event.flags, 0);
    return event;
}

static void expect_none(larder_follower *follower)
{
    larder_event event;
    ck_assert_int_eq(larder_next_event(follower, &event), LARDER_MISS);
}

static void expect_missed(larder_follower *follower, uint64_t count)
{
    larder_event event;
    ck_assert_int_eq(larder_next_event(follower, &event), LARDER_MISSED);
    ck_assert_uint_eq(event.missed, count);
}

/* ---- What is told ------------------------------------------------------------------------------
 */

START_TEST(writes_are_told_in_order_with_version_and_expiry)
{
    larder_follower *follower = follow(NULL);
    larder_policy timed = {.expiry = larder_expire_at(INT64_C(4102444800000))};
    larder_expiry never = larder_expire_never();
    int64_t number;
    larder_event event;
    ck_assert_int_eq(maps_set(map, "a", "1"), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "b", 1, "2", 1, &timed), LARDER_OK);
    ck_assert_int_eq(larder_touch(map, "b", 1, &never), LARDER_OK);
    ck_assert_int_eq(larder_incr(map, "n", 1, 4, &number, NULL), LARDER_OK);
    ck_assert_int_eq(maps_delete(map, "a"), LARDER_OK);
    ck_assert_int_eq(maps_delete(map, "nobody"), LARDER_MISS);
    event = expect(follower, LARDER_EVENT_SET, LARDER_CAUSE_NONE, "a");
    ck_assert_int_eq(event.expires_ms, INT64_MAX);
    ck_assert_uint_eq(event.name_hash, key_hash("a", 1));
    uint64_t first = event.number;
    event = expect(follower, LARDER_EVENT_SET, LARDER_CAUSE_NONE, "b");
    ck_assert_int_eq(event.expires_ms, INT64_C(4102444800000));
    ck_assert_uint_eq(event.number, first + 1);
    event = expect(follower, LARDER_EVENT_SET, LARDER_CAUSE_NONE, "b");
    ck_assert_int_eq(event.expires_ms, INT64_MAX);
    larder_info info = maps_info(map, "b");
    ck_assert_uint_eq(event.version.clock, info.version.clock);
    ck_assert_uint_eq(event.version.node, info.version.node);
    (void)expect(follower, LARDER_EVENT_SET, LARDER_CAUSE_NONE, "n");
    (void)expect(follower, LARDER_EVENT_DELETE, LARDER_CAUSE_NONE, "a");
    (void)expect(follower, LARDER_EVENT_DELETE, LARDER_CAUSE_NONE, "nobody");
    expect_none(follower);
    larder_unfollow(&follower);
    ck_assert_ptr_null(follower);
}
END_TEST

START_TEST(what_changed_nothing_is_not_told)
{
    ck_assert_int_eq(maps_set(map, "a", "x"), LARDER_OK);
    larder_follower *follower = follow(NULL);
    int64_t number;
    ck_assert_int_eq(larder_add(map, "a", 1, "y", 1, NULL), LARDER_EXISTS);
    ck_assert_int_eq(larder_replace(map, "b", 1, "y", 1, NULL), LARDER_MISS);
    ck_assert_int_eq(larder_incr(map, "a", 1, 1, &number, NULL), LARDER_ENUMBER);
    ck_assert_int_eq(maps_has(map, "a"), LARDER_OK);
    expect_none(follower);
    larder_unfollow(&follower);
}
END_TEST

START_TEST(many_keys_of_one_commit_are_told_each)
{
    larder_follower *follower = follow(NULL);
    larder_item items[3] = {{.key = "x", .key_size = 1, .value = "1", .value_size = 1},
                            {.key = "y", .key_size = 1, .value = "2", .value_size = 1},
                            {.key = "z", .key_size = 1, .value = "3", .value_size = 1}};
    ck_assert_int_eq(larder_set_many(map, items, 3, NULL), LARDER_OK);
    ck_assert_int_eq(larder_delete_many(map, items, 2), LARDER_OK);
    (void)expect(follower, LARDER_EVENT_SET, LARDER_CAUSE_NONE, "x");
    (void)expect(follower, LARDER_EVENT_SET, LARDER_CAUSE_NONE, "y");
    (void)expect(follower, LARDER_EVENT_SET, LARDER_CAUSE_NONE, "z");
    (void)expect(follower, LARDER_EVENT_DELETE, LARDER_CAUSE_NONE, "x");
    (void)expect(follower, LARDER_EVENT_DELETE, LARDER_CAUSE_NONE, "y");
    expect_none(follower);
    larder_unfollow(&follower);
}
END_TEST

START_TEST(a_refused_write_is_an_invalidation)
{
    larder_follower *follower = follow(NULL);
    struct maps_holder holder = maps_hold(&maps_control(map)->write_gate);
    ck_assert_int_eq(maps_set(map, "late", "1"), LARDER_EBUSY);
    ck_assert_int_eq(maps_delete(map, "gone"), LARDER_OK);
    (void)expect(follower, LARDER_EVENT_INVALIDATE, LARDER_CAUSE_KEY, "late");
    (void)expect(follower, LARDER_EVENT_INVALIDATE, LARDER_CAUSE_KEY, "gone");
    expect_none(follower);
    maps_let_go(&holder);
    larder_unfollow(&follower);
}
END_TEST

START_TEST(what_makes_room_is_told)
{
    larder_filter filter = {.kinds = LARDER_EVENT_EVICT};
    larder_follower *follower = follow(&filter);
    char key[32];
    static uint8_t value[16384];
    larder_event event = {0};
    int result = LARDER_MISS;
    for (int i = 0; i < 4000 && result != LARDER_OK; i++) {
        int length = snprintf(key, sizeof key, "fill:%d", i);
        ck_assert_int_eq(larder_set(map, key, (size_t)length, value, sizeof value, NULL),
                         LARDER_OK);
        result = larder_next_event(follower, &event);
        ck_assert_int_ge(result, 0);
    }
    ck_assert_int_eq(result, LARDER_OK);
    ck_assert_uint_eq(event.kind, LARDER_EVENT_EVICT);
    ck_assert_mem_eq(event.name.data, "fill:", 5);
    ck_assert_uint_gt(maps_stats(map).evictions, 0);
    larder_unfollow(&follower);
}
END_TEST

START_TEST(an_aborted_write_is_not_told)
{
    larder_follower *follower = follow(NULL);
    struct writer writer;
    struct key key;
    struct record record = record_make(clock_next(maps_control(map)), RECORD_VALUE, 0, CLOCK_NEVER);
    record.value_size = 1;
    bool inserted;
    ck_assert_int_eq(key_make(&key, "a", 1), LARDER_OK);
    ck_assert_int_eq(writer_begin(&writer, map, 1000), LARDER_OK);
    ck_assert_int_eq(entry_upsert(&writer, &key, &record, "1", &inserted), LARDER_OK);
    expect_none(follower); /* not yet */
    writer_abort(&writer);
    expect_none(follower);
    ck_assert_int_eq(writer_begin(&writer, map, 1000), LARDER_OK);
    ck_assert_int_eq(entry_upsert(&writer, &key, &record, "1", &inserted), LARDER_OK);
    ck_assert_int_eq(larder_publish(map, text("between"), text("")), LARDER_OK);
    expect_none(follower); /* stands behind one that is not decided */
    ck_assert_int_eq(writer_commit(&writer), LARDER_OK);
    (void)expect(follower, LARDER_EVENT_SET, LARDER_CAUSE_NONE, "a");
    (void)expect(follower, LARDER_EVENT_NAMED, LARDER_CAUSE_NONE, "between");
    expect_none(follower);
    larder_unfollow(&follower);
}
END_TEST

/* ---- Keys and names ----------------------------------------------------------------------------
 */

START_TEST(long_keys_are_whole_or_said_to_be_cut)
{
    static const size_t sizes[] = {1, 104, 105, 509, 510, 4095, 4096, 4097, 65535};
    static uint8_t key[65535];
    larder_follower *follower = follow(NULL);
    larder_event event;
    for (size_t i = 0; i < sizeof key; i++) {
        key[i] = (uint8_t)(i * 31 + 7);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        ck_assert_int_eq(larder_set(map, key, sizes[i], "v", 1, NULL), LARDER_OK);
        ck_assert_int_eq(larder_next_event(follower, &event), LARDER_OK);
        bool cut = sizes[i] > 4096;
        ck_assert_uint_eq(event.name.size, cut ? 4096 : sizes[i]);
        ck_assert_mem_eq(event.name.data, key, event.name.size);
        ck_assert_uint_eq(event.name_size, sizes[i]);
        ck_assert_uint_eq(event.name_hash, key_hash(key, sizes[i]));
        ck_assert_uint_eq(event.flags, cut ? LARDER_EVENT_CUT : 0);
    }
    larder_unfollow(&follower);
}
END_TEST

START_TEST(named_events_carry_any_bytes_up_to_their_limits)
{
    static uint8_t data[LARDER_EVENT_DATA_MAX + 1];
    uint8_t name[LARDER_EVENT_NAME_MAX + 1];
    larder_follower *follower = follow(NULL);
    larder_event event;
    memset(name, ':', sizeof name);
    name[3] = 0;
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i * 7);
    }
    static const size_t sizes[] = {0, 1, 90, 103, 104, 105, 1000, LARDER_EVENT_DATA_MAX};
    for (size_t round = 0; round < 200; round++) { /* several times round the ring of bytes */
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            size_t name_size = i % 2 == 0 ? 1 : LARDER_EVENT_NAME_MAX;
            ck_assert_int_eq(larder_publish(map, (larder_bytes){name, name_size},
                                            (larder_bytes){data, sizes[i]}),
                             LARDER_OK);
            ck_assert_int_eq(larder_next_event(follower, &event), LARDER_OK);
            ck_assert_uint_eq(event.kind, LARDER_EVENT_NAMED);
            ck_assert_uint_eq(event.name.size, name_size);
            ck_assert_mem_eq(event.name.data, name, name_size);
            ck_assert_uint_eq(event.data.size, sizes[i]);
            ck_assert_mem_eq(event.data.data, data, sizes[i]);
        }
    }
    uint64_t head = atomic_load(&ring()->head);
    ck_assert_int_eq(larder_publish(map, (larder_bytes){name, 0}, text("")), LARDER_EINVAL);
    ck_assert_int_eq(larder_publish(map, (larder_bytes){NULL, 3}, text("")), LARDER_EINVAL);
    ck_assert_int_eq(larder_publish(map, text("n"), (larder_bytes){NULL, 3}), LARDER_EINVAL);
    ck_assert_int_eq(larder_publish(map, (larder_bytes){name, sizeof name}, text("")),
                     LARDER_ETOOBIG);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "255"));
    ck_assert_int_eq(larder_publish(map, text("n"), (larder_bytes){data, sizeof data}),
                     LARDER_ETOOBIG);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "4096"));
    ck_assert_int_eq(larder_publish(NULL, text("n"), text("")), LARDER_EINVAL);
    ck_assert_uint_eq(atomic_load(&ring()->head), head);
    larder_unfollow(&follower);
}
END_TEST

START_TEST(a_read_only_handle_follows_and_does_not_publish)
{
    larder *reader = NULL;
    larder_follower *follower = NULL;
    larder_options options = {.dir = harness_directory(), .flags = LARDER_READ_ONLY};
    larder *writer = maps_open("readonly", MAPS_SIZE, 0);
    ck_assert_int_eq(larder_open("readonly", &options, &reader), LARDER_OK);
    ck_assert_int_eq(larder_publish(reader, text("n"), text("")), LARDER_EREADONLY);
    ck_assert_int_eq(larder_follow(reader, NULL, &follower), LARDER_OK);
    ck_assert_int_eq(maps_set(writer, "a", "1"), LARDER_OK);
    (void)expect(follower, LARDER_EVENT_SET, LARDER_CAUSE_NONE, "a");
    larder_unfollow(&follower);
    larder_close(&reader);
    larder_close(&writer);
}
END_TEST

/* ---- Filters -----------------------------------------------------------------------------------
 */

START_TEST(followers_are_independent_and_see_what_they_asked_for)
{
    larder_bytes names[2] = {text("order:paid"), text("order")};
    larder_filter filters[4] = {
        {.kinds = LARDER_EVENT_SET},
        {.kinds = LARDER_EVENT_SET | LARDER_EVENT_DELETE, .prefix = text("user:")},
        {.kinds = LARDER_EVENT_NAMED, .names = names, .name_count = 2},
        {.kinds = 0}};
    larder_follower *followers[4];
    for (size_t i = 0; i < 4; i++) {
        followers[i] = follow(&filters[i]);
    }
    names[0] = text("overwritten"); /* what was asked for has been copied */
    ck_assert_int_eq(maps_set(map, "user:1", "1"), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "use", "1"), LARDER_OK);
    ck_assert_int_eq(larder_publish(map, text("order:paid"), text("17")), LARDER_OK);
    ck_assert_int_eq(larder_publish(map, text("order:lost"), text("18")), LARDER_OK);
    ck_assert_int_eq(larder_publish(map, text("order"), text("19")), LARDER_OK);
    ck_assert_int_eq(maps_delete(map, "user:1"), LARDER_OK);
    (void)expect(followers[0], LARDER_EVENT_SET, LARDER_CAUSE_NONE, "user:1");
    (void)expect(followers[0], LARDER_EVENT_SET, LARDER_CAUSE_NONE, "use");
    expect_none(followers[0]);
    (void)expect(followers[1], LARDER_EVENT_SET, LARDER_CAUSE_NONE, "user:1");
    (void)expect(followers[1], LARDER_EVENT_DELETE, LARDER_CAUSE_NONE, "user:1");
    expect_none(followers[1]);
    larder_event event = expect(followers[2], LARDER_EVENT_NAMED, LARDER_CAUSE_NONE, "order:paid");
    ck_assert_uint_eq(event.data.size, 2);
    ck_assert_mem_eq(event.data.data, "17", 2);
    (void)expect(followers[2], LARDER_EVENT_NAMED, LARDER_CAUSE_NONE, "order");
    expect_none(followers[2]);
    for (int i = 0; i < 6; i++) {
        ck_assert_int_eq(larder_next_event(followers[3], &event), LARDER_OK);
    }
    expect_none(followers[3]);
    for (size_t i = 0; i < 4; i++) {
        larder_unfollow(&followers[i]);
    }
    ck_assert(nobody_follows());
}
END_TEST

START_TEST(an_invalidation_is_told_to_whom_it_may_concern)
{
    larder_filter filter = {.kinds = LARDER_EVENT_INVALIDATE, .prefix = text("user:")};
    larder_follower *follower = follow(&filter);
    static const struct {
        uint32_t cause;
        const char *name;
        bool told;
    } cases[] = {{LARDER_CAUSE_KEY, "user:1", true},    {LARDER_CAUSE_KEY, "other", false},
                 {LARDER_CAUSE_PREFIX, "us", true},     {LARDER_CAUSE_PREFIX, "user:1:", true},
                 {LARDER_CAUSE_PREFIX, "other", false}, {LARDER_CAUSE_GROUP, "any", true},
                 {LARDER_CAUSE_MATCH, "o*", true},      {LARDER_CAUSE_CLEAR, "", true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct event_draft draft = {
            .kind = LARDER_EVENT_INVALIDATE, .cause = cases[i].cause, .name = text(cases[i].name)};
        ck_assert_uint_ne(events_put(ring(), &draft), 0);
        if (cases[i].told) {
            (void)expect(follower, LARDER_EVENT_INVALIDATE, cases[i].cause, cases[i].name);
        } else {
            expect_none(follower);
        }
    }
    larder_unfollow(&follower);
}
END_TEST

START_TEST(wrong_filters_are_refused)
{
    larder_follower *follower = (larder_follower *)1;
    larder_event event;
    larder_bytes names[65];
    static uint8_t long_name[LARDER_EVENT_NAME_MAX + 1];
    for (size_t i = 0; i < 65; i++) {
        names[i] = text("n");
    }
    larder_filter filters[] = {{.kinds = 1u << 6},
                               {.reserved0 = 1},
                               {.reserved = {0, 1}},
                               {.prefix = {NULL, 1}},
                               {.names = NULL, .name_count = 1},
                               {.names = names, .name_count = 65}};
    for (size_t i = 0; i < sizeof filters / sizeof filters[0]; i++) {
        ck_assert_int_eq(larder_follow(map, &filters[i], &follower), LARDER_EINVAL);
        ck_assert_ptr_null(follower);
    }
    names[0] = (larder_bytes){long_name, sizeof long_name};
    larder_filter filter = {.names = names, .name_count = 1};
    ck_assert_int_eq(larder_follow(map, &filter, &follower), LARDER_EINVAL);
    filter = (larder_filter){.prefix = {long_name, 65536}};
    ck_assert_int_eq(larder_follow(map, &filter, &follower), LARDER_ETOOBIG);
    ck_assert_int_eq(larder_follow(map, NULL, NULL), LARDER_EINVAL);
    ck_assert_int_eq(larder_follow(NULL, NULL, &follower), LARDER_EINVAL);
    ck_assert_int_eq(larder_next_event(NULL, &event), LARDER_EINVAL);
    ck_assert(nobody_follows());
    follower = follow(NULL);
    ck_assert_int_eq(larder_next_event(follower, NULL), LARDER_EINVAL);
    ck_assert_int_eq(larder_wait_event(follower, -1, &event), LARDER_EINVAL);
    ck_assert_int_eq(larder_wait_event(follower, 3600001, &event), LARDER_EINVAL);
    larder_unfollow(&follower);
    larder_unfollow(&follower);
    larder_unfollow(NULL);
}
END_TEST

/* ---- Interest ----------------------------------------------------------------------------------
 */

START_TEST(nothing_is_put_while_nobody_follows)
{
    ck_assert_int_eq(maps_set(map, "a", "1"), LARDER_OK);
    ck_assert_int_eq(larder_publish(map, text("n"), text("")), LARDER_OK);
    ck_assert_uint_eq(atomic_load(&ring()->head), 0);
    larder_filter filter = {.kinds = LARDER_EVENT_DELETE};
    larder_follower *follower = follow(&filter);
    ck_assert_int_eq(maps_set(map, "a", "2"), LARDER_OK);
    ck_assert_uint_eq(atomic_load(&ring()->head), 0);
    ck_assert_int_eq(maps_delete(map, "a"), LARDER_OK);
    ck_assert_uint_eq(atomic_load(&ring()->head), 1);
    ck_assert_uint_eq(maps_stats(map).events, 1);
    larder_unfollow(&follower);
    ck_assert_int_eq(maps_delete(map, "a"), LARDER_MISS);
    ck_assert_uint_eq(atomic_load(&ring()->head), 1);
}
END_TEST

static int follow_and_die(void *context)
{
    larder_follower *follower = NULL;
    (void)context;
    return larder_follow(map, NULL, &follower);
}

START_TEST(the_dead_lose_their_interest)
{
    ck_assert_int_eq(maps_in_child(follow_and_die, NULL), 0);
    ck_assert(!nobody_follows());
    for (int i = 0; i < 2000 && !nobody_follows(); i++) {
        ck_assert_int_eq(larder_publish(map, text("n"), text("")), LARDER_OK);
    }
    ck_assert(nobody_follows());
}
END_TEST

START_TEST(the_table_of_followers_is_bounded)
{
    larder_follower *followers[EVENTS_FOLLOWERS], *another = NULL;
    ck_assert_int_eq(maps_in_child(follow_and_die, NULL), 0); /* its place is given away */
    for (size_t i = 0; i < EVENTS_FOLLOWERS; i++) {
        followers[i] = follow(NULL);
    }
    ck_assert_int_eq(larder_follow(map, NULL, &another), LARDER_ELIMIT);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "64"));
    larder_unfollow(&followers[5]);
    followers[5] = follow(NULL);
    for (size_t i = 0; i < EVENTS_FOLLOWERS; i++) {
        larder_unfollow(&followers[i]);
    }
    ck_assert(nobody_follows());
}
END_TEST

static int use_the_parents(void *context)
{
    larder_follower *follower = context, *own = NULL;
    larder_event event;
    if (larder_next_event(follower, &event) != LARDER_EINVAL ||
        strstr(larder_last_error(), "follows anew") == NULL) {
        return 1;
    }
    larder_unfollow(&follower); /* gives memory back, and leaves the parent's place */
    if (larder_follow(map, NULL, &own) != LARDER_OK || maps_set(map, "child", "1") != LARDER_OK ||
        larder_next_event(own, &event) != LARDER_OK) {
        return 2;
    }
    larder_unfollow(&own);
    return 0;
}

START_TEST(a_child_follows_anew)
{
    larder_follower *follower = follow(NULL);
    ck_assert_int_eq(maps_in_child(use_the_parents, follower), 0);
    (void)expect(follower, LARDER_EVENT_SET, LARDER_CAUSE_NONE, "child");
    ck_assert_int_eq(maps_set(map, "parent", "1"), LARDER_OK);
    (void)expect(follower, LARDER_EVENT_SET, LARDER_CAUSE_NONE, "parent");
    larder_unfollow(&follower);
}
END_TEST

/* ---- Too slow, half-way, damaged ---------------------------------------------------------------
 */

START_TEST(whoever_was_too_slow_is_told_once_and_goes_on)
{
    larder_follower *slow = follow(NULL), *other = follow(NULL);
    larder_event event;
    char name[16];
    const uint64_t total = EVENTS_SLOTS + 1000;
    for (uint64_t i = 0; i < total; i++) {
        (void)snprintf(name, sizeof name, "%d", (int)i);
        ck_assert_int_eq(larder_publish(map, text(name), text("")), LARDER_OK);
        (void)expect(other, LARDER_EVENT_NAMED, LARDER_CAUSE_NONE, name);
    }
    ck_assert_int_eq(larder_next_event(slow, &event), LARDER_MISSED);
    uint64_t missed = event.missed, seen = 0;
    ck_assert_uint_ge(missed, 1000);
    ck_assert_uint_le(missed, 1000 + EVENTS_SLOTS / 64);
    for (uint64_t i = missed; i < total; i++, seen++) {
        (void)snprintf(name, sizeof name, "%d", (int)i);
        (void)expect(slow, LARDER_EVENT_NAMED, LARDER_CAUSE_NONE, name);
    }
    expect_none(slow);
    ck_assert_uint_eq(seen + missed, total);
    ck_assert_uint_eq(maps_stats(map).events_missed, missed);
    ck_assert_uint_eq(maps_stats(map).events, total);
    larder_unfollow(&slow);
    larder_unfollow(&other);
}
END_TEST

/* A number that somebody took, and a slot in whatever state it left. */
static uint64_t abandon(uint64_t word_state, int32_t pid)
{
    uint64_t number = atomic_fetch_add(&ring()->head, 1) + 1;
    struct event_slot *slot = &ring()->slots[number % EVENTS_SLOTS];
    if (word_state != EVENT_FREE) {
        atomic_store(&slot->word, EVENT_WORD(number, word_state));
        atomic_store(&slot->pid, pid);
    }
    return number;
}

static int nothing(void *context)
{
    (void)context;
    return 0;
}

START_TEST(a_publisher_that_died_half_way_is_passed_over)
{
    larder_follower *follower = follow(NULL);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        _exit(nothing(NULL));
    }
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    (void)abandon(EVENT_WRITING, pid);
    ck_assert_int_eq(larder_publish(map, text("behind"), text("")), LARDER_OK);
    expect_missed(follower, 1);
    (void)expect(follower, LARDER_EVENT_NAMED, LARDER_CAUSE_NONE, "behind");
    /* one that died before it left its name, one that is merely stopped: after a while */
    (void)abandon(EVENT_FREE, 0);
    (void)abandon(EVENT_WRITING, 1);
    ck_assert_int_eq(larder_publish(map, text("behind"), text("")), LARDER_OK);
    expect_none(follower);
    larder_event event;
    int64_t began = harness_now_ms();
    uint64_t missed = 0;
    int result;
    while ((result = larder_wait_event(follower, 5000, &event)) == LARDER_MISSED) {
        missed += event.missed;
    }
    ck_assert_int_eq(result, LARDER_OK);
    ck_assert_uint_eq(missed, 2);
    ck_assert_mem_eq(event.name.data, "behind", 6);
    ck_assert_int_ge(harness_now_ms() - began, 100);
    ck_assert_int_lt(harness_now_ms() - began, harness_patience(2000));
    larder_unfollow(&follower);
}
END_TEST

START_TEST(a_late_publisher_does_not_overwrite_its_successor)
{
    larder_follower *follower = follow(NULL);
    uint64_t late = abandon(EVENT_WRITING, (int32_t)getpid());
    struct event_slot *slot = &ring()->slots[late % EVENTS_SLOTS];
    for (int i = 0; i < EVENTS_SLOTS; i++) {
        ck_assert_int_eq(larder_publish(map, text("lap"), text("data")), LARDER_OK);
    }
    larder_event event;
    ck_assert_int_eq(larder_next_event(follower, &event), LARDER_MISSED);
    /* it goes on: its last step fails, and what it scribbled is found out */
    uint64_t word = EVENT_WORD(late, EVENT_WRITING);
    ck_assert(!atomic_compare_exchange_strong(&slot->word, &word, EVENT_WORD(late, EVENT_READY)));
    slot->body[0] ^= 0xff;
    uint64_t seen = 0, missed = 0;
    int result;
    while ((result = larder_next_event(follower, &event)) != LARDER_MISS) {
        if (result == LARDER_MISSED) {
            missed += event.missed;
        } else {
            ck_assert_int_eq(result, LARDER_OK);
            ck_assert_mem_eq(event.name.data, "lap", 3);
            seen++;
        }
    }
    ck_assert_uint_eq(missed, 1);
    ck_assert_uint_gt(seen, EVENTS_SLOTS / 2);
    larder_unfollow(&follower);
}
END_TEST

static int die_prepared(void *context)
{
    bool commit = *(const bool *)context;
    struct writer writer;
    struct key key;
    struct record record = record_make(clock_next(maps_control(map)), RECORD_VALUE, 0, CLOCK_NEVER);
    bool inserted;
    record.value_size = 1;
    if (key_make(&key, "half", 4) != LARDER_OK || writer_begin(&writer, map, 1000) != LARDER_OK ||
        entry_upsert(&writer, &key, &record, "1", &inserted) != LARDER_OK) {
        return 1;
    }
    if (commit) { /* killed behind the commit, before it could tell */
        struct transaction *t = &writer.transaction;
        writer.ledger.transaction = t->number;
        ledger_write(t->store->life, &writer.ledger);
        if (store_write_commit(t) != LARDER_OK) {
            return 1;
        }
    }
    (void)kill(getpid(), SIGKILL);
    return 1;
}

START_TEST(what_a_dead_writer_had_prepared_is_decided_by_its_commit)
{
    for (int i = 0; i < 2; i++) {
        bool commit = i == 1;
        larder_follower *follower = follow(NULL);
        ck_assert_int_eq(maps_in_child(die_prepared, &commit), -SIGKILL);
        expect_none(follower); /* nobody knows yet */
        ck_assert_int_eq(maps_set(map, "next", "1"), LARDER_OK);
        if (commit) {
            (void)expect(follower, LARDER_EVENT_SET, LARDER_CAUSE_NONE, "half");
        }
        (void)expect(follower, LARDER_EVENT_SET, LARDER_CAUSE_NONE, "next");
        expect_none(follower);
        ck_assert_int_eq(maps_has(map, "half"), commit ? LARDER_OK : LARDER_MISS);
        larder_unfollow(&follower);
    }
}
END_TEST

START_TEST(garbage_in_the_ring_harms_nobody)
{
    uint64_t stream = harness_seed() ^ 77;
    for (int round = 0; round < 300; round++) {
        larder_follower *follower = follow(NULL);
        for (int i = 0; i < 20; i++) {
            ck_assert_int_eq(larder_publish(map, text("whole"), text("data")), LARDER_OK);
        }
        uint8_t *bytes = (uint8_t *)ring()->slots;
        uint64_t newest = atomic_load(&ring()->head);
        for (int i = 0; i < 40; i++) { /* into the slots that will be read */
            uint64_t number = newest - harness_random(&stream) % 20;
            size_t at = (number % EVENTS_SLOTS) * sizeof(struct event_slot) +
                        harness_random(&stream) % sizeof(struct event_slot);
            bytes[at] = (uint8_t)harness_random(&stream);
        }
        if (round % 10 == 0) {
            atomic_store(&ring()->head, harness_random(&stream) >> (harness_random(&stream) % 60));
        }
        larder_event event;
        int result;
        int told = 0;
        while ((result = larder_wait_event(follower, 0, &event)) != LARDER_MISS && told < 10000) {
            ck_assert(result == LARDER_OK || result == LARDER_MISSED);
            if (result == LARDER_OK && event.kind == LARDER_EVENT_NAMED) {
                ck_assert_uint_eq(event.name.size + event.data.size, 9);
                ck_assert_mem_eq(event.name.data, "whole", 5);
            }
            told++;
        }
        ck_assert_int_lt(told, 10000);
        larder_unfollow(&follower);
    }
}
END_TEST

static int publish_soon(void *context)
{
    (void)context;
    return larder_publish(map, text("wake"), text(""));
}

START_TEST(a_waiting_follower_is_woken)
{
    larder_follower *follower = follow(NULL);
    larder_event event;
    int64_t began = harness_now_ms();
    ck_assert_int_eq(larder_wait_event(follower, 30, &event), LARDER_MISS);
    ck_assert_int_ge(harness_now_ms() - began, 30);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        _exit(publish_soon(NULL));
    }
    ck_assert_int_eq(larder_wait_event(follower, harness_patience(10000), &event), LARDER_OK);
    ck_assert_mem_eq(event.name.data, "wake", 4);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    larder_unfollow(&follower);
}
END_TEST

static bool readable(int descriptor, int milliseconds)
{
    struct pollfd wanted = {.fd = descriptor, .events = POLLIN};
    return poll(&wanted, 1, milliseconds) == 1;
}

START_TEST(an_event_loop_is_woken)
{
    larder_follower *follower = follow(NULL);
    larder_event event;
    int descriptor = larder_notify_fd(map);
    ck_assert_int_ge(descriptor, 0);
    expect_none(follower);
    ck_assert(!readable(descriptor, 0));
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        _exit(publish_soon(NULL) == LARDER_OK && maps_set(map, "k", "v") == LARDER_OK ? 0 : 1);
    }
    ck_assert(readable(descriptor, harness_patience(10000)));
    larder_notify_clear(map);
    int status = 1;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    (void)expect(follower, LARDER_EVENT_NAMED, LARDER_CAUSE_NONE, "wake");
    (void)expect(follower, LARDER_EVENT_SET, LARDER_CAUSE_NONE, "k");
    expect_none(follower);
    /* a publisher that stopped half-way tells nobody: the descriptor says when to look again */
    (void)abandon(EVENT_FREE, 0);
    expect_none(follower);
    ck_assert(readable(descriptor, harness_patience(5000)));
    larder_notify_clear(map);
    ck_assert_int_eq(larder_next_event(follower, &event), LARDER_MISSED);
    expect_none(follower);
    larder_unfollow(&follower);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("events");
    TCase *tests = tcase_create("events");
    tcase_add_checked_fixture(tests, make_map, close_map);
    tcase_set_timeout(tests, 30);
    tcase_add_test(tests, writes_are_told_in_order_with_version_and_expiry);
    tcase_add_test(tests, what_changed_nothing_is_not_told);
    tcase_add_test(tests, many_keys_of_one_commit_are_told_each);
    tcase_add_test(tests, a_refused_write_is_an_invalidation);
    tcase_add_test(tests, what_makes_room_is_told);
    tcase_add_test(tests, an_aborted_write_is_not_told);
    tcase_add_test(tests, long_keys_are_whole_or_said_to_be_cut);
    tcase_add_test(tests, named_events_carry_any_bytes_up_to_their_limits);
    tcase_add_test(tests, a_read_only_handle_follows_and_does_not_publish);
    tcase_add_test(tests, followers_are_independent_and_see_what_they_asked_for);
    tcase_add_test(tests, an_invalidation_is_told_to_whom_it_may_concern);
    tcase_add_test(tests, wrong_filters_are_refused);
    tcase_add_test(tests, nothing_is_put_while_nobody_follows);
    tcase_add_test(tests, the_dead_lose_their_interest);
    tcase_add_test(tests, the_table_of_followers_is_bounded);
    tcase_add_test(tests, a_child_follows_anew);
    tcase_add_test(tests, whoever_was_too_slow_is_told_once_and_goes_on);
    tcase_add_test(tests, a_publisher_that_died_half_way_is_passed_over);
    tcase_add_test(tests, a_late_publisher_does_not_overwrite_its_successor);
    tcase_add_test(tests, what_a_dead_writer_had_prepared_is_decided_by_its_commit);
    tcase_add_test(tests, garbage_in_the_ring_harms_nobody);
    tcase_add_test(tests, a_waiting_follower_is_woken);
    tcase_add_test(tests, an_event_loop_is_woken);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
