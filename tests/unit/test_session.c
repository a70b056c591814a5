/* test_session.c: sessions on a map: their life from create to delete, who may end them, what
 * slides and what does not, and that whatever is refused leaves them as they were. Times are made
 * short by turning the record's own clock back, not by waiting.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "larder_session.h"
#include "session_id.h"
#include "session_record.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"
#include "writer.h"

#define TEXT(text)                                                                                 \
    {                                                                                              \
        (text), sizeof(text) - 1                                                                   \
    }
#define NOBODY ((larder_bytes){NULL, 0})

enum { MINUTE = 60000, TTL = 30 * MINUTE };

static larder *map;
static const larder_bytes alice = TEXT("alice"), bob = TEXT("bob");

static void open_map(void)
{
    map = maps_new();
}

static void close_map(void)
{
    maps_whole(map);
    larder_close(&map);
}

/* ---- Helpers ----------------------------------------------------------------------------------
 */

static larder_session_field field(const char *name, const char *value)
{
    return (larder_session_field){.name = {name, strlen(name)},
                                  .value = {value, value == NULL ? 0 : strlen(value)},
                                  .flags = value == NULL ? LARDER_SESSION_REMOVE : 0};
}

static larder_session_id create_with(const larder_session_options *options, larder_bytes user)
{
    larder_session_id id;
    larder_session_field fields[] = {field("theme", "dark"), field("cart", "3")};
    int result = larder_session_create(map, options, user, fields, 2, &id);
    ck_assert_msg(result == LARDER_OK, "create: %d %s", result, larder_last_error());
    return id;
}

static larder_session_id create(larder_bytes user)
{
    return create_with(NULL, user);
}

static int get(const larder_session_id *id, larder_session *session)
{
    return larder_session_get(map, NULL, id->text, LARDER_SESSION_ID_SIZE, session);
}

static bool lives(const larder_session_id *id)
{
    larder_session session;
    int result = get(id, &session);
    ck_assert_msg(result == LARDER_OK || result == LARDER_MISS, "get: %d", result);
    ck_assert(result == LARDER_OK || session.memory == NULL);
    larder_session_free(&session);
    return result == LARDER_OK;
}

static int update(const larder_session_id *id, const char *name, const char *value)
{
    larder_session_field change = field(name, value);
    return larder_session_update(map, NULL, id->text, LARDER_SESSION_ID_SIZE, &change, 1, NULL);
}

static int end_it(const larder_session_id *id)
{
    return larder_session_delete(map, NULL, id->text, LARDER_SESSION_ID_SIZE);
}

static void expect_fields(const larder_session *session, const char *wanted)
{
    char text[512] = "";
    for (size_t i = 0; i < session->field_count; i++) {
        const larder_session_field *one = &session->fields[i];
        size_t used = strlen(text);
        (void)snprintf(text + used, sizeof text - used, "%s%.*s=%.*s", i == 0 ? "" : " ",
                       (int)one->name.size, (const char *)one->name.data, (int)one->value.size,
                       (const char *)one->value.data);
    }
    ck_assert_str_eq(text, wanted);
}

static void expect(const larder_session_id *id, const char *wanted)
{
    larder_session session;
    ck_assert_int_eq(get(id, &session), LARDER_OK);
    expect_fields(&session, wanted);
    larder_session_free(&session);
}

static struct session_key key_of(const larder_session_id *id)
{
    struct session_key key;
    session_id_key((larder_bytes)TEXT("session:"), id->text, &key);
    return key;
}

static larder_info info_of(const larder_session_id *id)
{
    struct session_key key = key_of(id);
    larder_read peek = {.flags = LARDER_PEEK};
    larder_info info;
    char bytes[4096];
    ck_assert_int_eq(larder_get_with(map, key.text, key.size, bytes, sizeof bytes, &info, &peek),
                     LARDER_OK);
    return info;
}

/* As if ms had passed: the times of the record that much earlier. */
static void age(const larder_session_id *id, int64_t ms)
{
    struct session_key text = key_of(id);
    struct writer writer;
    struct key key;
    struct record old, changed;
    ck_assert_int_eq(key_make(&key, text.text, text.size), LARDER_OK);
    ck_assert_int_eq(writer_begin(&writer, map, 1000), LARDER_OK);
    ck_assert_int_eq(entry_find(&writer.transaction, &key, &old), LARDER_OK);
    changed = old;
    changed.expires_at_ms -= ms;
    changed.limit_ms -= old.limit_ms != 0 ? ms : 0;
    ck_assert_int_eq(entry_retime(&writer, &key, &old, &changed), LARDER_OK);
    ck_assert_int_eq(writer_commit(&writer), LARDER_OK);
}

/* ---- Life -------------------------------------------------------------------------------------
 */

START_TEST(a_session_holds_what_it_was_given)
{
    int64_t before = clock_wall_ms();
    larder_session_id id = create(alice);
    larder_session session;
    ck_assert_int_eq(get(&id, &session), LARDER_OK);
    expect_fields(&session, "cart=3 theme=dark");
    ck_assert_uint_eq(session.user.size, 5);
    ck_assert_mem_eq(session.user.data, "alice", 5);
    ck_assert_int_ge(session.created_ms, before);
    ck_assert_int_le(session.created_ms, clock_wall_ms());
    ck_assert_int_ge(session.expires_ms, before + TTL);
    ck_assert_int_le(session.expires_ms, clock_wall_ms() + TTL);
    const larder_session_field *cart = larder_session_find(&session, (larder_bytes)TEXT("cart"));
    ck_assert_ptr_nonnull(cart);
    ck_assert_mem_eq(cart->value.data, "3", 1);
    ck_assert_ptr_nonnull(larder_session_find(&session, (larder_bytes)TEXT("theme")));
    ck_assert_ptr_null(larder_session_find(&session, (larder_bytes)TEXT("car")));
    ck_assert_ptr_null(larder_session_find(&session, (larder_bytes)TEXT("z")));
    ck_assert_ptr_null(larder_session_find(&session, NOBODY));
    ck_assert_ptr_null(larder_session_find(NULL, alice));
    larder_session_free(&session);
    ck_assert_ptr_null(session.fields);
    larder_session_free(&session);
    larder_session_free(NULL);
}
END_TEST

START_TEST(an_empty_one_of_nobody_is_a_session)
{
    larder_session_id id;
    larder_session session;
    ck_assert_int_eq(larder_session_create(map, NULL, NOBODY, NULL, 0, &id), LARDER_OK);
    ck_assert_int_eq(get(&id, &session), LARDER_OK);
    ck_assert_uint_eq(session.field_count, 0);
    ck_assert_uint_eq(session.user.size, 0);
    larder_session_free(&session);
    ck_assert_int_eq(update(&id, "a", "1"), LARDER_OK);
    expect(&id, "a=1");
}
END_TEST

START_TEST(a_large_one_comes_back_whole)
{
    static char large[60000];
    larder_session_id id = create(alice);
    larder_session session, after;
    memset(large, 'x', sizeof large);
    larder_session_field change = {.name = TEXT("large"), .value = {large, sizeof large}};
    ck_assert_int_eq(
        larder_session_update(map, NULL, id.text, LARDER_SESSION_ID_SIZE, &change, 1, &after),
        LARDER_OK);
    ck_assert_int_eq(get(&id, &session), LARDER_OK);
    for (int i = 0; i < 2; i++) {
        larder_session *one = i == 0 ? &session : &after;
        const larder_session_field *found = larder_session_find(one, change.name);
        ck_assert_uint_eq(one->field_count, 3);
        ck_assert_ptr_nonnull(found);
        ck_assert_uint_eq(found->value.size, sizeof large);
        ck_assert_mem_eq(found->value.data, large, sizeof large);
        larder_session_free(one);
    }
}
END_TEST

START_TEST(an_update_merges)
{
    larder_session_id id = create(alice);
    larder_session after;
    larder_session_field changes[] = {field("theme", NULL), field("cart", "4"), field("x", "")};
    ck_assert_int_eq(
        larder_session_update(map, NULL, id.text, LARDER_SESSION_ID_SIZE, changes, 3, &after),
        LARDER_OK);
    expect_fields(&after, "cart=4 x=");
    ck_assert_mem_eq(after.user.data, "alice", 5);
    ck_assert_int_gt(after.expires_ms, clock_wall_ms() + TTL - MINUTE);
    larder_session_free(&after);
    expect(&id, "cart=4 x=");
    ck_assert_int_eq(larder_session_delete_user(map, NULL, alice, NULL), LARDER_OK);
    ck_assert(!lives(&id)); /* it was still hers */
}
END_TEST

START_TEST(reading_extends_it_once_a_quarter_and_updating_always)
{
    larder_session_id id = create(alice);
    larder_info first = info_of(&id);
    for (int i = 0; i < 50; i++) {
        ck_assert(lives(&id));
    }
    ck_assert_uint_eq(info_of(&id).version.clock, first.version.clock);
    age(&id, TTL / 4 + MINUTE);
    ck_assert(lives(&id));
    ck_assert_int_ge(info_of(&id).expires_ms, first.expires_ms);
    ck_assert_uint_eq(maps_stats(map).slides, 1);
    age(&id, MINUTE);
    int64_t aged = info_of(&id).expires_ms;
    ck_assert_int_eq(
        larder_session_update(map, NULL, id.text, LARDER_SESSION_ID_SIZE, NULL, 0, NULL),
        LARDER_OK);
    ck_assert_int_ge(info_of(&id).expires_ms, aged + MINUTE);
    expect(&id, "cart=3 theme=dark");
    age(&id, TTL);
    ck_assert(!lives(&id));
    ck_assert_int_eq(update(&id, "a", "1"), LARDER_MISS);
}
END_TEST

START_TEST(its_own_times_hold_whoever_updates_it)
{
    larder_session_options brief = {.ttl_ms = 10 * MINUTE, .max_lifetime_ms = 15 * MINUTE};
    larder_session_id id = create_with(&brief, alice);
    larder_session after;
    int64_t now = clock_wall_ms();
    ck_assert_int_eq(
        larder_session_update(map, NULL, id.text, LARDER_SESSION_ID_SIZE, NULL, 0, &after),
        LARDER_OK);
    ck_assert_int_le(after.expires_ms, clock_wall_ms() + 10 * MINUTE);
    ck_assert_int_ge(after.expires_ms, now + 10 * MINUTE);
    larder_session_free(&after);
    age(&id, 9 * MINUTE);
    ck_assert(lives(&id));
    ck_assert_int_le(info_of(&id).expires_ms, now + 7 * MINUTE); /* its longest life, not its TTL */
}
END_TEST

START_TEST(no_update_lengthens_its_longest_life)
{
    larder_session_options brief = {.max_lifetime_ms = 1};
    larder_session_id id = create_with(&brief, alice);
    int64_t end = clock_wall_ms() + 2;
    while (clock_wall_ms() < end) {
    }
    ck_assert_int_eq(update(&id, "a", "1"), LARDER_MISS);
    ck_assert(!lives(&id));
    /* and a record that outlived it all the same is not written again */
    struct session_record record = {.created_ms = 1, .ttl_ms = TTL, .ends_ms = 2};
    uint8_t bytes[64];
    struct session_key key = key_of(&id);
    ck_assert_uint_le(session_record_size(&record), sizeof bytes);
    session_record_encode(&record, bytes);
    ck_assert_int_eq(larder_set(map, key.text, key.size, bytes, session_record_size(&record), NULL),
                     LARDER_OK);
    ck_assert_int_eq(update(&id, "a", "1"), LARDER_MISS);
}
END_TEST

/* ---- The end ----------------------------------------------------------------------------------
 */

START_TEST(a_deleted_one_is_gone_for_good)
{
    larder_session_id id = create(alice);
    ck_assert_int_eq(end_it(&id), LARDER_OK);
    ck_assert_int_eq(end_it(&id), LARDER_MISS);
    ck_assert(!lives(&id));
    ck_assert_int_eq(update(&id, "a", "1"), LARDER_MISS);
    ck_assert(!lives(&id));
}
END_TEST

START_TEST(all_of_a_user_and_nobody_elses)
{
    larder_bytes alic = TEXT("alic");
    larder_session_id hers[3], his = create(bob), nobodys = create(NOBODY), similar = create(alic);
    uint64_t count = 0;
    for (size_t i = 0; i < 3; i++) {
        hers[i] = create(alice);
    }
    ck_assert_int_eq(larder_session_delete_user(map, NULL, alice, &count), LARDER_OK);
    ck_assert_uint_eq(count, 3);
    for (size_t i = 0; i < 3; i++) {
        ck_assert(!lives(&hers[i]));
        ck_assert_int_eq(update(&hers[i], "a", "1"), LARDER_MISS);
        ck_assert(!lives(&hers[i]));
    }
    ck_assert(lives(&his) && lives(&nobodys) && lives(&similar));
    larder_session_id later = create(alice);
    ck_assert(lives(&later));
}
END_TEST

/* What a racing update does, step by step: it has read, then the session goes, then it writes. */
START_TEST(what_was_read_before_a_deletion_cannot_be_written_after_it)
{
    larder_policy policy = {.expiry = larder_expire_sliding(TTL)};
    for (int way = 0; way < 4; way++) {
        larder_session_id id = create(alice), other;
        struct session_key key = key_of(&id);
        larder_version version = info_of(&id).version;
        struct maps_holder holder = {.pid = 0};
        switch (way) {
        case 0:
            ck_assert_int_eq(end_it(&id), LARDER_OK);
            break;
        case 1:
            ck_assert_int_eq(larder_session_delete_user(map, NULL, alice, NULL), LARDER_OK);
            break;
        case 2:
            ck_assert_int_eq(
                larder_session_renew(map, NULL, id.text, LARDER_SESSION_ID_SIZE, NULL, &other),
                LARDER_OK);
            break;
        default: /* refused, and remembered */
            holder = maps_hold(&maps_control(map)->write_gate);
            ck_assert_int_eq(end_it(&id), LARDER_OK);
            maps_let_go(&holder);
        }
        ck_assert_int_eq(larder_cas(map, key.text, key.size, "x", 1, &version, &policy),
                         LARDER_MISS);
        ck_assert(!lives(&id));
    }
}
END_TEST

START_TEST(another_prefix_is_another_world)
{
    larder_session_options shop = {.prefix = TEXT("{shop}:")};
    larder_session_id here = create(alice), there = create_with(&shop, alice);
    larder_session session;
    ck_assert(lives(&here));
    ck_assert(!lives(&there));
    ck_assert_int_eq(larder_session_get(map, &shop, there.text, LARDER_SESSION_ID_SIZE, &session),
                     LARDER_OK);
    larder_session_free(&session);
    ck_assert_int_eq(larder_session_delete_user(map, &shop, alice, NULL), LARDER_OK);
    ck_assert_int_eq(larder_session_get(map, &shop, there.text, LARDER_SESSION_ID_SIZE, &session),
                     LARDER_MISS);
    ck_assert(lives(&here));
}
END_TEST

/* ---- Another id -------------------------------------------------------------------------------
 */

START_TEST(renewing_moves_it)
{
    larder_session_id id = create(alice), moved = id;
    int64_t created = info_of(&id).created_ms;
    ck_assert_int_eq(larder_session_renew(map, NULL, id.text, LARDER_SESSION_ID_SIZE, NULL, &moved),
                     LARDER_OK);
    ck_assert_str_ne(id.text, moved.text);
    ck_assert(!lives(&id));
    ck_assert_int_eq(update(&id, "a", "1"), LARDER_MISS);
    larder_session session;
    ck_assert_int_eq(get(&moved, &session), LARDER_OK);
    expect_fields(&session, "cart=3 theme=dark");
    ck_assert_mem_eq(session.user.data, "alice", 5);
    ck_assert_int_le(session.created_ms, created + MINUTE);
    larder_session_free(&session);
    ck_assert_int_eq(larder_session_renew(map, NULL, id.text, LARDER_SESSION_ID_SIZE, NULL, &id),
                     LARDER_MISS);
    ck_assert_str_eq(id.text, "");
    /* the id may be renewed in its own place */
    id = moved;
    ck_assert_int_eq(larder_session_renew(map, NULL, id.text, LARDER_SESSION_ID_SIZE, NULL, &id),
                     LARDER_OK);
    ck_assert(lives(&id) && !lives(&moved));
}
END_TEST

START_TEST(logging_in_makes_it_the_users)
{
    larder_session_options whole = {.max_lifetime_ms = 60 * MINUTE};
    larder_session_id id = create(NOBODY), hers;
    ck_assert_int_eq(
        larder_session_renew(map, &whole, id.text, LARDER_SESSION_ID_SIZE, &alice, &hers),
        LARDER_OK);
    larder_session session;
    ck_assert_int_eq(get(&hers, &session), LARDER_OK);
    ck_assert_mem_eq(session.user.data, "alice", 5);
    expect_fields(&session, "cart=3 theme=dark");
    larder_session_free(&session);
    ck_assert_int_eq(larder_session_delete_user(map, NULL, alice, NULL), LARDER_OK);
    ck_assert(!lives(&hers));
}
END_TEST

START_TEST(a_renewal_that_is_refused_leaves_the_old_one)
{
    larder_session_id id = create(alice), moved = id;
    uint64_t entries = maps_stats(map).entries;
    struct maps_holder holder = maps_hold(&maps_control(map)->write_gate);
    ck_assert_int_eq(larder_session_renew(map, NULL, id.text, LARDER_SESSION_ID_SIZE, NULL, &moved),
                     LARDER_EBUSY);
    maps_let_go(&holder);
    ck_assert_str_eq(moved.text, "");
    ck_assert(lives(&id));
    ck_assert_int_eq(maps_set(map, "next", "writer"), LARDER_OK);
    ck_assert_uint_eq(maps_stats(map).entries, entries + 1);
}
END_TEST

/* ---- Refusals ---------------------------------------------------------------------------------
 */

START_TEST(hostile_ids_are_misses_without_a_look_up)
{
    static const char *const ids[] = {"",
                                      "short",
                                      "../../../../etc/passwd",
                                      "session:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                                      "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA*",
                                      "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"};
    larder_session session;
    larder_session_id moved;
    larder_session_field change = field("a", "1");
    uint64_t misses = maps_stats(map).misses;
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        size_t size = strlen(ids[i]);
        ck_assert_int_eq(larder_session_get(map, NULL, ids[i], size, &session), LARDER_MISS);
        ck_assert_int_eq(larder_session_update(map, NULL, ids[i], size, &change, 1, NULL),
                         LARDER_MISS);
        ck_assert_int_eq(larder_session_delete(map, NULL, ids[i], size), LARDER_MISS);
        ck_assert_int_eq(larder_session_renew(map, NULL, ids[i], size, NULL, &moved), LARDER_MISS);
    }
    ck_assert_uint_eq(maps_stats(map).misses, misses);
    ck_assert_uint_eq(maps_stats(map).deletes, 0);
    ck_assert_int_eq(larder_session_get(map, NULL, NULL, 0, &session), LARDER_MISS);
    ck_assert_int_eq(larder_session_get(map, NULL, NULL, 43, &session), LARDER_EINVAL);
    /* one that could be one is looked for */
    ck_assert_int_eq(
        larder_session_get(map, NULL, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 43, &session),
        LARDER_MISS);
    ck_assert_uint_eq(maps_stats(map).misses, misses + 1);
}
END_TEST

START_TEST(the_id_is_nowhere_in_the_map)
{
    larder_session_id id = create(alice);
    larder_cursor cursor = {0};
    larder_item item;
    void *memory;
    size_t found;
    ck_assert_int_eq(
        larder_scan(map, &cursor, NOBODY, &item, 1, LARDER_SCAN_VALUES, &found, &memory),
        LARDER_OK);
    ck_assert_uint_eq(found, 1);
    ck_assert_ptr_null(memmem(item.key, item.key_size, id.text, LARDER_SESSION_ID_SIZE));
    ck_assert_ptr_null(memmem(item.value, item.value_size, id.text, LARDER_SESSION_ID_SIZE));
    ck_assert_mem_eq(item.key, "session:", 8);
    larder_free(memory);
}
END_TEST

START_TEST(what_is_too_large_changes_nothing)
{
    static char large[LARDER_SESSION_SIZE_MAX];
    larder_session_id id = create(alice), none;
    larder_session_field change = {.name = TEXT("l"), .value = {large, sizeof large}};
    larder_session_options more = {.max_size = sizeof large + 1000},
                           huge = {.max_size = UINT64_MAX};
    ck_assert_int_eq(
        larder_session_update(map, NULL, id.text, LARDER_SESSION_ID_SIZE, &change, 1, NULL),
        LARDER_ETOOBIG);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "65536"));
    expect(&id, "cart=3 theme=dark");
    ck_assert_int_eq(larder_session_create(map, NULL, alice, &change, 1, &none), LARDER_ETOOBIG);
    ck_assert_str_eq(none.text, "");
    ck_assert_int_eq(
        larder_session_update(map, &more, id.text, LARDER_SESSION_ID_SIZE, &change, 1, NULL),
        LARDER_OK);
    change.value.size = SIZE_MAX - 4; /* never looked at: the map's own limit is below */
    ck_assert_int_eq(
        larder_session_update(map, &huge, id.text, LARDER_SESSION_ID_SIZE, &change, 1, NULL),
        LARDER_ETOOBIG);
    ck_assert(lives(&id));
}
END_TEST

START_TEST(a_busy_gate_refuses_writes_and_loses_nothing)
{
    larder_session_id id = create(alice), other;
    struct maps_holder holder = maps_hold(&maps_control(map)->write_gate);
    ck_assert_int_eq(larder_session_create(map, NULL, alice, NULL, 0, &other), LARDER_EBUSY);
    ck_assert_int_eq(update(&id, "cart", "9"), LARDER_EBUSY);
    expect(&id, "cart=3 theme=dark"); /* a cas of the cache's would have taken it away */
    maps_let_go(&holder);
    ck_assert_int_eq(update(&id, "cart", "9"), LARDER_OK);
    expect(&id, "cart=9 theme=dark");
}
END_TEST

START_TEST(deletions_are_never_refused)
{
    larder_session_id first = create(alice), second = create(alice), third = create(bob);
    struct maps_holder holder = maps_hold(&maps_control(map)->write_gate);
    ck_assert_int_eq(end_it(&first), LARDER_OK);
    ck_assert(!lives(&first) && lives(&second));
    ck_assert_int_eq(larder_session_delete_user(map, NULL, alice, NULL), LARDER_OK);
    ck_assert(!lives(&second) && lives(&third));
    maps_let_go(&holder);
    ck_assert_int_eq(update(&first, "a", "1"), LARDER_MISS);
    ck_assert_int_eq(update(&second, "a", "1"), LARDER_MISS);
    ck_assert(!lives(&first) && !lives(&second) && lives(&third));
}
END_TEST

START_TEST(a_read_only_handle_reads)
{
    larder_session_id id = create(alice), other;
    char name[16];
    (void)snprintf(name, sizeof name, "readonly");
    larder *first = maps_open(name, MAPS_SIZE, 0), *kept = map;
    map = first;
    id = create(alice);
    larder *reader = maps_open(name, MAPS_SIZE, LARDER_READ_ONLY);
    map = reader;
    ck_assert(lives(&id));
    ck_assert_int_eq(update(&id, "a", "1"), LARDER_EREADONLY);
    ck_assert_int_eq(larder_session_create(map, NULL, alice, NULL, 0, &other), LARDER_EREADONLY);
    ck_assert_int_eq(larder_session_renew(map, NULL, id.text, LARDER_SESSION_ID_SIZE, NULL, &other),
                     LARDER_EREADONLY);
    ck_assert_int_eq(end_it(&id), LARDER_EREADONLY);
    ck_assert_int_eq(larder_session_delete_user(map, NULL, alice, NULL), LARDER_EREADONLY);
    ck_assert(lives(&id));
    map = kept;
    larder_close(&reader);
    larder_close(&first);
}
END_TEST

START_TEST(what_stands_there_and_is_no_session_is_a_miss)
{
    larder_session_id id = create(alice);
    struct session_key key = key_of(&id);
    larder_policy negative = {.flags = LARDER_NEGATIVE};
    uint64_t corrupt = maps_stats(map).read_corrupt;
    ck_assert_int_eq(larder_set(map, key.text, key.size, "nonsense", 8, NULL), LARDER_OK);
    ck_assert(!lives(&id));
    ck_assert_int_eq(update(&id, "a", "1"), LARDER_MISS);
    ck_assert_uint_eq(maps_stats(map).read_corrupt, corrupt + 2);
    ck_assert_int_eq(larder_set(map, key.text, key.size, NULL, 0, &negative), LARDER_OK);
    ck_assert(!lives(&id));
    ck_assert_int_eq(larder_set(map, key.text, key.size, "", 0, NULL), LARDER_OK);
    ck_assert(!lives(&id));
}
END_TEST

static const struct {
    larder_session_options options;
    int code;
} bad_options[] = {
    {{.ttl_ms = -1}, LARDER_EINVAL},
    {{.max_lifetime_ms = -1}, LARDER_EINVAL},
    {{.prefix = {NULL, 3}}, LARDER_EINVAL},
    {{.prefix = {"x", LARDER_SESSION_PREFIX_MAX + 1}}, LARDER_ETOOBIG},
    {{.reserved = {0, 0, 1, 0}}, LARDER_EINVAL},
};

START_TEST(options_are_checked_by_every_call)
{
    larder_session_id id = create(alice), other;
    larder_session session;
    const larder_session_options *options = &bad_options[_i].options;
    int code = bad_options[_i].code;
    size_t size = LARDER_SESSION_ID_SIZE;
    ck_assert_int_eq(larder_session_create(map, options, alice, NULL, 0, &other), code);
    ck_assert_int_eq(larder_session_get(map, options, id.text, size, &session), code);
    ck_assert_int_eq(larder_session_update(map, options, id.text, size, NULL, 0, NULL), code);
    ck_assert_int_eq(larder_session_renew(map, options, id.text, size, NULL, &other), code);
    ck_assert_int_eq(larder_session_delete(map, options, id.text, size), code);
    ck_assert_int_eq(larder_session_delete_user(map, options, alice, NULL), code);
    ck_assert(lives(&id));
}
END_TEST

START_TEST(arguments_are_checked)
{
    static char text[LARDER_SESSION_USER_MAX + 1];
    larder_session_id id = create(alice), other;
    larder_session session;
    size_t size = LARDER_SESSION_ID_SIZE;
    larder_session_options overflow = {.ttl_ms = INT64_MAX},
                           endless = {.max_lifetime_ms = INT64_MAX},
                           patient = {.read_through_ms = 60001};
    larder_bytes longest = {text, LARDER_SESSION_USER_MAX}, longer = {text, sizeof text},
                 pointless = {NULL, 4};
    larder_session_field unnamed = {.flags = 0};
    memset(text, 'u', sizeof text);
    ck_assert_int_eq(larder_session_create(map, NULL, longest, NULL, 0, &other), LARDER_OK);
    ck_assert_int_eq(larder_session_delete_user(map, NULL, longest, NULL), LARDER_OK);
    ck_assert_int_eq(larder_session_create(map, NULL, longer, NULL, 0, &other), LARDER_ETOOBIG);
    ck_assert_int_eq(larder_session_create(map, NULL, pointless, NULL, 0, &other), LARDER_EINVAL);
    ck_assert_int_eq(larder_session_create(map, NULL, alice, &unnamed, 1, &other), LARDER_EINVAL);
    ck_assert_int_eq(larder_session_create(map, NULL, alice, NULL, 0, NULL), LARDER_EINVAL);
    ck_assert_int_eq(larder_session_create(NULL, NULL, alice, NULL, 0, &other), LARDER_EINVAL);
    ck_assert_int_eq(larder_session_create(map, &overflow, alice, NULL, 0, &other),
                     LARDER_EOVERFLOW);
    ck_assert_int_eq(larder_session_create(map, &endless, alice, NULL, 0, &other),
                     LARDER_EOVERFLOW);
    ck_assert_int_eq(larder_session_get(map, NULL, id.text, size, NULL), LARDER_EINVAL);
    ck_assert_int_eq(larder_session_get(NULL, NULL, id.text, size, &session), LARDER_EINVAL);
    ck_assert_int_eq(larder_session_get(map, &patient, id.text, size, &session), LARDER_EINVAL);
    ck_assert_int_eq(larder_session_update(map, NULL, id.text, size, &unnamed, 1, NULL),
                     LARDER_EINVAL);
    ck_assert_int_eq(larder_session_update(NULL, NULL, id.text, size, NULL, 0, NULL),
                     LARDER_EINVAL);
    ck_assert_int_eq(larder_session_renew(map, NULL, id.text, size, NULL, NULL), LARDER_EINVAL);
    ck_assert_int_eq(larder_session_renew(map, NULL, id.text, size, &longer, &other),
                     LARDER_ETOOBIG);
    ck_assert_int_eq(larder_session_renew(map, &endless, id.text, size, &bob, &other),
                     LARDER_EOVERFLOW);
    ck_assert_int_eq(larder_session_delete(NULL, NULL, id.text, size), LARDER_EINVAL);
    ck_assert_int_eq(larder_session_delete_user(map, NULL, NOBODY, NULL), LARDER_EINVAL);
    ck_assert_int_eq(larder_session_delete_user(map, NULL, longer, NULL), LARDER_ETOOBIG);
    ck_assert_int_eq(larder_session_delete_user(map, NULL, pointless, NULL), LARDER_EINVAL);
    expect(&id, "cart=3 theme=dark");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("session");
    TCase *life = tcase_create("life"), *end = tcase_create("end"),
          *refusals = tcase_create("refusals");
    tcase_add_checked_fixture(life, open_map, close_map);
    tcase_add_test(life, a_session_holds_what_it_was_given);
    tcase_add_test(life, an_empty_one_of_nobody_is_a_session);
    tcase_add_test(life, a_large_one_comes_back_whole);
    tcase_add_test(life, an_update_merges);
    tcase_add_test(life, reading_extends_it_once_a_quarter_and_updating_always);
    tcase_add_test(life, its_own_times_hold_whoever_updates_it);
    tcase_add_test(life, no_update_lengthens_its_longest_life);
    tcase_add_test(life, renewing_moves_it);
    tcase_add_test(life, logging_in_makes_it_the_users);
    tcase_add_checked_fixture(end, open_map, close_map);
    tcase_add_test(end, a_deleted_one_is_gone_for_good);
    tcase_add_test(end, all_of_a_user_and_nobody_elses);
    tcase_add_test(end, what_was_read_before_a_deletion_cannot_be_written_after_it);
    tcase_add_test(end, another_prefix_is_another_world);
    tcase_add_test(end, deletions_are_never_refused);
    tcase_add_checked_fixture(refusals, open_map, close_map);
    tcase_add_test(refusals, a_renewal_that_is_refused_leaves_the_old_one);
    tcase_add_test(refusals, hostile_ids_are_misses_without_a_look_up);
    tcase_add_test(refusals, the_id_is_nowhere_in_the_map);
    tcase_add_test(refusals, what_is_too_large_changes_nothing);
    tcase_add_test(refusals, a_busy_gate_refuses_writes_and_loses_nothing);
    tcase_add_test(refusals, a_read_only_handle_reads);
    tcase_add_test(refusals, what_stands_there_and_is_no_session_is_a_miss);
    tcase_add_loop_test(refusals, options_are_checked_by_every_call, 0,
                        (int)(sizeof bad_options / sizeof bad_options[0]));
    tcase_add_test(refusals, arguments_are_checked);
    suite_add_tcase(suite, life);
    suite_add_tcase(suite, end);
    suite_add_tcase(suite, refusals);
    return harness_run(suite);
}
