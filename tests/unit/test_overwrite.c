/* test_overwrite.c: records written over in place: what a reader sees at each step, what the next
 * holder of the gate finishes, which writes may do without a transaction.
 */
#include "overwrite.h"

#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "clock.h"
#include "format.h"
#include "key.h"
#include "registry.h"
#include "removal.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"
#include "upkeep.h"
#include "writer.h"

/* ---- The slot and the sequences ---------------------------------------------------------------
 */

enum { PLACES = 64, PLACE = 256, LIMIT = PLACES * PLACE, HASH = 77, LAST = 5, OWNER = 3 };

static struct overwrite_area area;
static uint8_t pages[LIMIT];
static uint8_t seen[OVERWRITE_MAX];

static void begin_area(void)
{
    memset(&area, 0, sizeof area);
    atomic_store(&area.owner, OWNER);
    memset(pages, 'o', sizeof pages);
}

/* A sealed record of PLACE bytes into bytes. */
static void make(uint8_t *bytes, char fill)
{
    uint8_t value[PLACE];
    memset(value, fill, sizeof value);
    struct record record = record_make((larder_version){.clock = 9, .node = 1}, RECORD_VALUE,
                                       RECORD_DIRTY, CLOCK_NEVER);
    record.value = value;
    record.value_size = PLACE - record_size(&record);
    record_encode(bytes, &record, HASH);
}

static void carry_out(uint8_t *base, uint64_t offset)
{
    struct overwrite what = {
        .offset = offset, .transaction = LAST, .hash = HASH, .size = PLACE, .request = 4};
    overwrite_carry_out(&area, base, &what);
}

static bool finish(uint64_t limit, uint64_t last)
{
    uint32_t request = 0;
    bool finished = overwrite_finish(&area, pages, limit, last, &request);
    ck_assert_uint_eq(request, finished ? 4 : 0);
    if (finished) {
        overwrite_end(&area);
    }
    return finished;
}

/* Stand where a writer of that place dies: the slot filled, the sequence moved so far, so many
 * bytes of the place written. */
static void die_at(uint64_t offset, bool odd, size_t written)
{
    make(area.redo.bytes, 'n');
    uint8_t fresh[PLACE], before[PLACE];
    memcpy(fresh, area.redo.bytes, PLACE);
    memcpy(before, pages + offset, PLACE);
    carry_out(pages, offset);
    ck_assert_mem_eq(pages + offset, fresh, PLACE);
    ck_assert(overwrite_unfinished(&area));
    overwrite_end(&area);
    ck_assert(!overwrite_unfinished(&area));
    atomic_store(&area.redo.active, 1);
    memcpy(pages + offset, before, PLACE);
    memcpy(pages + offset, fresh, written);
    size_t index = (size_t)(offset >> 6) % OVERWRITE_SEQUENCES;
    atomic_store(&area.sequences[index], odd ? 1 : 0);
}

static bool is_new(uint64_t offset)
{
    uint8_t fresh[PLACE];
    make(fresh, 'n');
    return overwrite_read(&area, OWNER, pages, offset, PLACE, seen) &&
           memcmp(seen, fresh, PLACE) == 0;
}

static bool is_old(uint64_t offset)
{
    uint8_t old[PLACE];
    memset(old, 'o', PLACE);
    return overwrite_read(&area, OWNER, pages, offset, PLACE, seen) &&
           memcmp(seen, old, PLACE) == 0;
}

START_TEST(a_reader_never_sees_a_mixture_of_what_a_dead_writer_left)
{
    for (size_t written = 0; written <= PLACE; written += 16) {
        begin_area();
        die_at(0, true, written);
        ck_assert(is_new(0));
        ck_assert(is_old(PLACE)); /* another place */
        ck_assert(overwrite_unfinished(&area));
        ck_assert(finish(LIMIT, LAST));
        ck_assert(is_new(0));
        ck_assert(is_old(PLACE));
        ck_assert(!overwrite_unfinished(&area));
        ck_assert_uint_eq(atomic_load(&area.sequences[0]) & 1, 0);
    }
}
END_TEST

START_TEST(what_was_announced_is_carried_out)
{
    begin_area();
    die_at(0, false, 0); /* announced, and no more */
    ck_assert(is_old(0));
    ck_assert(finish(LIMIT, LAST));
    ck_assert(is_new(0));
    die_at(0, false, PLACE); /* all but done */
    ck_assert(finish(LIMIT, LAST));
    ck_assert(is_new(0));
}
END_TEST

START_TEST(another_place_of_the_same_sequence_is_read_where_it_stands)
{
    static uint8_t wide[2 * 64 * OVERWRITE_SEQUENCES];
    begin_area();
    memset(wide, 'o', sizeof wide);
    uint64_t twin = UINT64_C(64) * OVERWRITE_SEQUENCES;
    make(area.redo.bytes, 'n');
    carry_out(wide, 0);
    memset(wide, 'x', PLACE);
    /* a word that was flipped: nobody announced anything */
    atomic_store(&area.redo.active, 0);
    atomic_store(&area.sequences[0], 1);
    ck_assert(overwrite_read(&area, OWNER, wide, 0, PLACE, seen));
    ck_assert_int_eq(seen[0], 'x');
    atomic_store(&area.redo.active, 1);
    atomic_store(&area.sequences[0], 1); /* stopped in the middle */
    ck_assert(overwrite_read(&area, OWNER, wide, twin, PLACE, seen));
    ck_assert_int_eq(seen[0], 'o');
    ck_assert(overwrite_read(&area, OWNER, wide, 0, PLACE, seen));
    ck_assert_mem_eq(seen, area.redo.bytes, PLACE);
}
END_TEST

START_TEST(a_damaged_slot_is_not_carried_out)
{
    for (int field = 0; field < 7; field++) {
        begin_area();
        die_at(0, true, 100);
        struct overwrite_redo *redo = &area.redo;
        switch (field) {
        case 0:
            atomic_store(&redo->offset, LIMIT - 10);
            break;
        case 1:
            redo->size = OVERWRITE_MAX + 1;
            break;
        case 2:
            redo->transaction++;
            break;
        case 3:
            redo->seal ^= 1;
            break;
        case 6:
            redo->request++;
            break;
        case 4:
            redo->hash ^= 1;
            break;
        default:
            redo->bytes[200] ^= 1;
            break;
        }
        uint8_t before[LIMIT];
        memcpy(before, pages, LIMIT);
        ck_assert_msg(!finish(LIMIT, LAST), "field %d", field);
        ck_assert_mem_eq(before, pages, LIMIT);
    }
    begin_area();
    die_at(0, true, 100);
    ck_assert(!finish(LIMIT, LAST + 1)); /* of another transaction */
    ck_assert(!finish(PLACE - 1, LAST)); /* of a larger mapping */
}
END_TEST

START_TEST(a_new_generation_finds_no_odd_sequence)
{
    begin_area();
    die_at(0, true, 100);
    atomic_store(&area.sequences[3], 4);
    overwrite_reset(&area, OWNER + 2);
    ck_assert(!overwrite_unfinished(&area));
    ck_assert_uint_eq(atomic_load(&area.sequences[0]), 2);
    ck_assert_uint_eq(atomic_load(&area.sequences[3]), 4);
    /* who slept since the generation before the last reads what nobody looks after any more */
    ck_assert(!overwrite_read(&area, OWNER, pages, 0, PLACE, seen));
    ck_assert(overwrite_read(&area, OWNER + 2, pages, PLACE, PLACE, seen));
}
END_TEST

static _Atomic int over;

static void *overwrite_always(void *context)
{
    (void)context;
    for (unsigned turn = 0; !atomic_load(&over); turn++) {
        make(area.redo.bytes, (char)('a' + turn % 26));
        carry_out(pages, (turn % PLACES) * PLACE);
        overwrite_end(&area);
    }
    return NULL;
}

START_TEST(readers_beside_a_writer_see_whole_records)
{
    pthread_t thread;
    begin_area();
    for (size_t place = 0; place < PLACES; place++) {
        make(pages + place * PLACE, 'o');
    }
    atomic_store(&over, 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, overwrite_always, NULL), 0);
    unsigned given_up = 0;
    for (unsigned turn = 0; turn < 300000; turn++) {
        uint64_t offset = (turn * UINT64_C(7) % PLACES) * PLACE;
        if (!overwrite_read(&area, OWNER, pages, offset, PLACE, seen)) {
            given_up++; /* the writer lost its processor in there: others' places are all there */
            continue;
        }
        ck_assert(record_intact(seen, PLACE, HASH));
    }
    atomic_store(&over, 1);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_uint_lt(given_up, 10);
}
END_TEST

/* ---- Sets -------------------------------------------------------------------------------------
 */

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

static uint64_t transactions(void)
{
    return atomic_load(&control_life(maps_control(map))->committed);
}

/* Set it, and say whether that took a transaction. */
static bool takes_transaction(const char *key, size_t size, char fill, const larder_policy *policy)
{
    static char value[4000], got[4000];
    larder_info info;
    uint64_t before = transactions();
    memset(value, fill, size);
    ck_assert_int_eq(larder_set(map, key, strlen(key), value, size, policy), LARDER_OK);
    bool took = transactions() != before;
    for (int turn = 0; turn < 2; turn++) { /* from the tree; from the hot set */
        ck_assert_int_eq(larder_get(map, key, strlen(key), got, sizeof got, &info), LARDER_OK);
        ck_assert_uint_eq(info.size, size);
        ck_assert_mem_eq(got, value, size);
    }
    return took;
}

START_TEST(an_overwrite_that_fits_needs_no_transaction)
{
    ck_assert(takes_transaction("key", 300, 'a', NULL)); /* new */
    ck_assert(!takes_transaction("key", 300, 'b', NULL));
    ck_assert(!takes_transaction("key", 299, 'c', NULL));
    ck_assert(!takes_transaction("key", 45, 'd', NULL));  /* RECORD_PADDING_MAX less */
    ck_assert(!takes_transaction("key", 300, 'e', NULL)); /* the room is still there */
    ck_assert(takes_transaction("key", 44, 'f', NULL));
    ck_assert(takes_transaction("key", 45, 'g', NULL)); /* and now it is not */
    ck_assert(!takes_transaction("key", 0, 'h', NULL));
    ck_assert_uint_eq(maps_stats(map).entries, 1);
    ck_assert_uint_eq(maps_stats(map).sets, 8);
}
END_TEST

START_TEST(large_values_and_long_keys_take_one)
{
    char key[700];
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    (void)takes_transaction(key, 10, 'a', NULL);
    ck_assert(takes_transaction(key, 10, 'b', NULL));
    (void)takes_transaction("chunked", 4000, 'a', NULL);
    ck_assert(takes_transaction("chunked", 4000, 'b', NULL));
    (void)takes_transaction("large", 1500, 'a', NULL);
    ck_assert(takes_transaction("large", 1500, 'b', NULL));
}
END_TEST

START_TEST(what_the_ledger_counts_takes_one)
{
    larder_policy later = {.expiry = {.kind = LARDER_EXPIRY_IN, .ms = 60000}};
    larder_policy sooner = {.expiry = {.kind = LARDER_EXPIRY_IN, .ms = 30000}};
    (void)takes_transaction("key", 100, 'a', NULL);
    ck_assert(takes_transaction("key", 92, 'b', &later)); /* the earliest expiry of all */
    ck_assert(!takes_transaction("key", 92, 'c', &later));
    ck_assert(takes_transaction("key", 92, 'd', &sooner));
    ck_assert(!takes_transaction("key", 92, 'e', &later));
    ck_assert(!takes_transaction("key", 92, 'f', NULL));
}
END_TEST

START_TEST(what_is_deleted_pending_or_followed_takes_one)
{
    larder_follower *follower = NULL;
    (void)takes_transaction("key", 100, 'a', NULL);
    ck_assert_int_eq(maps_delete(map, "key"), LARDER_OK);
    ck_assert(takes_transaction("key", 100, 'b', NULL));
    struct key other;
    ck_assert_int_eq(key_make(&other, "other", 5), LARDER_OK);
    struct control *control = maps_control(map);
    ck_assert(!removal_pend(control, &other, clock_next(control)));
    ck_assert(takes_transaction("key", 100, 'c', NULL)); /* it has promises to keep first */
    ck_assert_uint_eq(removal_count_pending(control), 0);
    ck_assert(!takes_transaction("key", 100, 'd', NULL));
    ck_assert_int_eq(larder_follow(map, NULL, &follower), LARDER_OK);
    ck_assert(takes_transaction("key", 100, 'e', NULL));
    larder_unfollow(&follower);
    ck_assert(!takes_transaction("key", 100, 'f', NULL));
}
END_TEST

START_TEST(many_keys_of_one_call_are_held_apart)
{
    larder_item items[3] = {{.key = "one", .key_size = 3},
                            {.key = "two", .key_size = 3},
                            {.key = "three", .key_size = 5}};
    void *memory = NULL;
    for (size_t i = 0; i < 3; i++) {
        ck_assert_int_eq(maps_set(map, items[i].key, items[i].key), LARDER_OK);
    }
    ck_assert_int_eq(larder_get_many(map, items, 3, &memory), LARDER_OK);
    for (size_t i = 0; i < 3; i++) {
        ck_assert_int_eq(items[i].outcome, LARDER_OK);
        ck_assert_uint_eq(items[i].value_size, items[i].key_size);
        ck_assert_mem_eq(items[i].value, items[i].key, items[i].key_size);
    }
    larder_free(memory);
}
END_TEST

START_TEST(a_view_keeps_what_it_was)
{
    larder_view view;
    (void)takes_transaction("key", 100, 'a', NULL);
    ck_assert_int_eq(larder_borrow(map, "key", 3, &view), LARDER_OK);
    ck_assert(!takes_transaction("key", 100, 'b', NULL));
    ck_assert_uint_eq(view.part_count, 1);
    for (size_t i = 0; i < 100; i++) {
        ck_assert_int_eq(((const char *)view.parts[0].iov_base)[i], 'a');
    }
    larder_release(map, &view);
}
END_TEST

/* The slot as a writer leaves it that dies inside; then any write finishes it. */
static void leave_unfinished(void)
{
    struct control *control = maps_control(map);
    struct overwrite_area *own =
        &control->overwrites[GENERATION_NUMBER(atomic_load(&control->generation)) & 1];
    atomic_store(&own->redo.active, 1);
}

START_TEST(the_next_writer_finishes_what_a_dead_one_began)
{
    (void)takes_transaction("key", 100, 'a', NULL);
    (void)takes_transaction("key", 100, 'b', NULL);
    leave_unfinished();
    ck_assert_int_eq(maps_set(map, "other", "value"), LARDER_OK);
    ck_assert_int_eq(takes_transaction("key", 100, 'c', NULL), 0);
}
END_TEST

START_TEST(a_damaged_slot_costs_the_generation_not_the_caller)
{
    struct control *control = maps_control(map);
    (void)takes_transaction("key", 100, 'a', NULL);
    (void)takes_transaction("key", 100, 'b', NULL);
    uint64_t generation = GENERATION_NUMBER(atomic_load(&control->generation));
    leave_unfinished();
    control->overwrites[generation & 1].redo.bytes[50] ^= 1;
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_ECORRUPT);
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "key"), "value");
    ck_assert_uint_eq(GENERATION_NUMBER(atomic_load(&control->generation)), generation + 1);
}
END_TEST

START_TEST(absence_takes_no_view)
{
    larder_policy negative = {.flags = LARDER_NEGATIVE};
    larder_view view;
    ck_assert_int_eq(larder_set(map, "none", 4, NULL, 0, &negative), LARDER_OK);
    for (int i = 0; i < 100; i++) {
        ck_assert_int_eq(larder_borrow(map, "none", 4, &view), LARDER_ABSENT);
        ck_assert_uint_eq(view.part_count, 0);
        ck_assert_ptr_null(view.parts);
    }
    larder_release(map, &view);
}
END_TEST

/* ---- Deaths in between ------------------------------------------------------------------------
 */

static struct store *own_store(void)
{
    struct transaction *reader = NULL;
    ck_assert_int_eq(registry_reader(map->map, &reader), LARDER_OK);
    return reader->store;
}

/* LMDB writes a commit's number to its meta page, then its root, then tells the readers. Between
 * the first two the page has the next number and the root of the last but one. */
static void number_without_root(const struct store *store)
{
    enum { META_NUMBER = 144 };
    uint64_t next = store_last_transaction((struct store *)(uintptr_t)store) + 1;
    uint8_t *meta = (uint8_t *)(uintptr_t)store->base + (next & 1) * store->page_size;
    uint64_t number;
    memcpy(&number, meta + META_NUMBER, sizeof number);
    ck_assert_uint_eq(number, next - 2);
    memcpy(meta + META_NUMBER, &next, sizeof next);
}

START_TEST(a_guess_is_made_in_a_commit_that_is_whole)
{
    struct key key;
    struct store_place guess = {.transaction = 0}, place = {.transaction = 0};
    (void)takes_transaction("key", 100, 'a', NULL);
    (void)takes_transaction("other", 100, 'a', NULL);
    struct store *store = own_store();
    ck_assert_int_eq(key_make(&key, "key", 3), LARDER_OK);
    uint64_t last = store_last_transaction(store);
    ck_assert_int_eq(store_entry_place(store, key.form, key.form_size, &place), LARDER_OK);
    number_without_root(store);
    store_look_ahead(store, key.form, key.form_size, &guess);
    ck_assert_uint_eq(guess.transaction, last);
    ck_assert_uint_eq(guess.offset, place.offset);
    atomic_store(&maps_control(map)->recovery_due, 1);
    ck_assert(takes_transaction("key", 100, 'b', NULL));
}
END_TEST

START_TEST(a_commit_that_died_before_its_root_has_not_happened)
{
    char key[16];
    for (int i = 0; i < 300; i++) {
        (void)snprintf(key, sizeof key, "key%d", i);
        ck_assert_int_eq(maps_set(map, key, "value"), LARDER_OK);
    }
    uint64_t generation = atomic_load(&maps_control(map)->generation);
    number_without_root(own_store());
    atomic_store(&maps_control(map)->recovery_due, 1);
    ck_assert_int_eq(maps_set(map, "one more", "value"), LARDER_OK);
    maps_whole(map);
    ck_assert_uint_eq(maps_stats(map).entries, 301);
    for (int i = 0; i < 300; i++) {
        (void)snprintf(key, sizeof key, "key%d", i);
        ck_assert_str_eq(maps_get(map, key), "value");
        ck_assert_int_eq(maps_set(map, key, "worth"), LARDER_OK);
    }
    ck_assert_uint_eq(atomic_load(&maps_control(map)->generation), generation);
}
END_TEST

static struct store_place where_is(struct store *store, const char *name, struct key *key)
{
    struct store_place place = {.transaction = 0};
    ck_assert_int_eq(key_make(key, name, strlen(name)), LARDER_OK);
    ck_assert_int_eq(store_entry_place(store, key->form, key->form_size, &place), LARDER_OK);
    return place;
}

static bool is_told(struct store *store, const struct key *key, uint64_t offset, uint64_t size)
{
    return store_place_told(store, 7, offset, size, key->form, key->form_size).transaction == 7;
}

START_TEST(a_place_that_is_told_is_looked_at)
{
    struct key key, other, longer;
    (void)takes_transaction("key1", 100, 'a', NULL);
    (void)takes_transaction("key2", 100, 'a', NULL);
    (void)takes_transaction("key10", 100, 'a', NULL);
    struct store *store = own_store();
    struct store_place place = where_is(store, "key1", &key);
    uint64_t end = store->max_pages * store->page_size, size = place.record.size;
    (void)where_is(store, "key2", &other);
    (void)where_is(store, "key10", &longer);
    ck_assert(is_told(store, &key, place.offset, size));
    ck_assert(!is_told(store, &other, place.offset, size));
    ck_assert(!is_told(store, &longer, place.offset, size));
    for (uint64_t off = 1; off < 200; off++) {
        ck_assert(!is_told(store, &key, place.offset + off, size));
        ck_assert(!is_told(store, &key, place.offset - off, size));
        ck_assert(!is_told(store, &key, off, size));
        ck_assert(!is_told(store, &key, end - off, size));
        ck_assert(!is_told(store, &key, UINT64_MAX - off, size));
        ck_assert(!is_told(store, &key, place.offset, size ^ off));
    }
    ck_assert(!is_told(store, &key, place.offset, OVERWRITE_MAX + 1));
    ck_assert(!is_told(store, &key, place.offset, UINT64_MAX));
    ck_assert(!is_told(store, &key, 0, 0));
}
END_TEST

/* Posted by this process, which serves it with its own next write. */
static int post_with(const char *name, const char *value, const struct combine_place *place)
{
    struct control *control = maps_control(map);
    struct combine_request request = {.operation = COMBINE_SET,
                                      .key = name,
                                      .key_size = strlen(name),
                                      .value = value,
                                      .value_size = strlen(value),
                                      .version = clock_next(control),
                                      .expires_at_ms = CLOCK_NEVER,
                                      .kind = RECORD_VALUE,
                                      .flags = RECORD_DIRTY,
                                      .place = *place};
    int outcome = LARDER_EBUSY;
    struct combine_slot *slot = combine_post(control, &request);
    ck_assert_ptr_ne(slot, NULL);
    ck_assert_int_eq(maps_set(map, "mine", "more"), LARDER_OK);
    ck_assert(!combine_withdraw(control, slot, &outcome));
    return outcome;
}

START_TEST(a_poster_that_tells_nonsense_is_served_all_the_same)
{
    struct key key;
    ck_assert_int_eq(maps_set(map, "mine", "some"), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "key1", "0000"), LARDER_OK);
    ck_assert_int_eq(maps_set(map, "key2", "kept"), LARDER_OK);
    struct store *store = own_store();
    struct store_place first = where_is(store, "key1", &key),
                       second = where_is(store, "key2", &key);
    uint64_t last = store_last_transaction(store);
    const struct combine_place told[] = {
        {store->generation, last, first.offset, first.record.size}, /* the truth */
        {store->generation, last, second.offset, second.record.size},
        {store->generation, last - 1, first.offset, first.record.size},
        {store->generation + 1, last, first.offset, first.record.size},
        {store->generation, last, first.offset + 1, first.record.size},
        {store->generation, last, UINT64_MAX, first.record.size},
        {store->generation, last, first.offset, UINT64_MAX},
        {0, 0, 0, 0},
    };
    for (size_t at = 0; at < sizeof told / sizeof told[0]; at++) {
        char value[8];
        (void)snprintf(value, sizeof value, "%04zu", at + 1);
        ck_assert_int_eq(post_with("key1", value, &told[at]), LARDER_OK);
        ck_assert_str_eq(maps_get(map, "key1"), value);
        ck_assert_str_eq(maps_get(map, "key2"), "kept");
        ck_assert_uint_eq(store_last_transaction(store), last); /* in place, all of them */
    }
    maps_whole(map);
}
END_TEST

struct stage {
    _Atomic int inside, stopped;
};
static struct stage *stage;

static void wait_for(_Atomic int *word)
{
    for (int i = 0; i < 5000 && atomic_load(word) == 0; i++) {
        (void)usleep(1000);
    }
}

/* Hold the gate, carry out in place what somebody has posted, and die before that one is told. */
static void serve_and_die(void)
{
    struct control *control = maps_control(map);
    struct store *store = own_store();
    static struct writer writer;
    struct combine_request request;
    struct store_place place = {.transaction = 0};
    struct key key;
    uint8_t bytes[COMBINE_BYTES];
    writer = (struct writer){.handle = map,
                             .map = map->map,
                             .control = control,
                             .transaction = {.store = store},
                             .change = atomic_load(&store->life->changes) + 1};
    ck_assert_int_eq(gate_enter(&control->write_gate, 1000), GATE_ENTERED);
    atomic_store(&stage->inside, 1);
    wait_for(&stage->stopped);
    if (combine_take(control, &writer.batch, store->generation, store_last_transaction(store),
                     &request, bytes) &&
        key_make(&key, request.key, request.key_size) == LARDER_OK) {
        struct record record =
            record_make(request.version, request.kind, request.flags, request.expires_at_ms);
        record.value_size = request.value_size;
        writer.request = writer.batch.taken[0].slot + 1u;
        (void)entry_overwrite(&writer, &key, &record, request.value, &place);
    }
    (void)kill(getpid(), SIGKILL);
}

START_TEST(what_a_dead_server_carried_out_is_not_done_again)
{
    int64_t number = 0;
    int status = 0;
    stage = mmap(NULL, sizeof *stage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(stage, MAP_FAILED);
    ck_assert_int_eq(maps_set(map, "count", "999"), LARDER_OK);
    pid_t server = fork();
    if (server == 0) {
        serve_and_die();
        _exit(2);
    }
    wait_for(&stage->inside);
    pid_t poster = fork();
    if (poster == 0) {
        map->write_wait_ms = 20000;
        _exit(maps_set(map, "count", "100") == LARDER_OK ? 0 : 3);
    }
    for (int i = 0; i < 5000 && !combine_any(maps_control(map)); i++) {
        (void)usleep(1000);
    }
    ck_assert(combine_any(maps_control(map)));
    ck_assert_int_eq(kill(poster, SIGSTOP), 0);
    ck_assert_int_eq(waitpid(poster, &status, WUNTRACED), poster);
    atomic_store(&stage->stopped, 1);
    ck_assert_int_eq(waitpid(server, &status, 0), server);
    ck_assert(WIFSIGNALED(status));
    ck_assert_int_eq(larder_incr(map, "count", 5, 1, &number, NULL), LARDER_OK);
    ck_assert_int_eq(number, 101); /* so the set came before */
    ck_assert_int_eq(kill(poster, SIGCONT), 0);
    ck_assert_int_eq(waitpid(poster, &status, 0), poster);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    ck_assert_str_eq(maps_get(map, "count"), "101");
    (void)munmap(stage, sizeof *stage);
}
END_TEST

static int die_in_the_gate(void *context)
{
    (void)context;
    (void)gate_enter(&maps_control(map)->write_gate, 1000);
    (void)kill(getpid(), SIGKILL);
    return 2;
}

START_TEST(whoever_finds_a_dead_writer_leaves_word_of_it)
{
    bool changed = false;
    (void)takes_transaction("key", 100, 'a', NULL);
    ck_assert_int_eq(maps_in_child(die_in_the_gate, NULL), -SIGKILL);
    ck_assert_int_eq(map_enter_gates(map->map), LARDER_OK);
    map_leave_gates(map->map);
    ck_assert_uint_eq(atomic_load(&maps_control(map)->recovery_due), 1);
    ck_assert(takes_transaction("key", 100, 'b', NULL));
    ck_assert_int_eq(maps_in_child(die_in_the_gate, NULL), -SIGKILL);
    ck_assert_int_eq(upkeep_resize(map, MAPS_SIZE * 2, &changed), LARDER_OK);
    ck_assert(changed);
    ck_assert_uint_eq(atomic_load(&maps_control(map)->recovery_due), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("overwrite");
    TCase *bytes = tcase_create("slot and sequences");
    tcase_add_test(bytes, a_reader_never_sees_a_mixture_of_what_a_dead_writer_left);
    tcase_add_test(bytes, what_was_announced_is_carried_out);
    tcase_add_test(bytes, another_place_of_the_same_sequence_is_read_where_it_stands);
    tcase_add_test(bytes, a_damaged_slot_is_not_carried_out);
    tcase_add_test(bytes, a_new_generation_finds_no_odd_sequence);
    tcase_add_test(bytes, readers_beside_a_writer_see_whole_records);
    suite_add_tcase(suite, bytes);
    TCase *sets = tcase_create("sets");
    tcase_add_checked_fixture(sets, open_map, close_map);
    tcase_add_test(sets, an_overwrite_that_fits_needs_no_transaction);
    tcase_add_test(sets, large_values_and_long_keys_take_one);
    tcase_add_test(sets, what_the_ledger_counts_takes_one);
    tcase_add_test(sets, what_is_deleted_pending_or_followed_takes_one);
    tcase_add_test(sets, many_keys_of_one_call_are_held_apart);
    tcase_add_test(sets, a_view_keeps_what_it_was);
    tcase_add_test(sets, absence_takes_no_view);
    tcase_add_test(sets, a_place_that_is_told_is_looked_at);
    tcase_add_test(sets, a_poster_that_tells_nonsense_is_served_all_the_same);
    tcase_add_test(sets, the_next_writer_finishes_what_a_dead_one_began);
    tcase_add_test(sets, a_damaged_slot_costs_the_generation_not_the_caller);
    suite_add_tcase(suite, sets);
    TCase *deaths = tcase_create("deaths");
    tcase_add_checked_fixture(deaths, open_map, close_map);
    tcase_set_timeout(deaths, 60);
    tcase_add_test(deaths, a_guess_is_made_in_a_commit_that_is_whole);
    tcase_add_test(deaths, a_commit_that_died_before_its_root_has_not_happened);
    tcase_add_test(deaths, what_a_dead_server_carried_out_is_not_done_again);
    tcase_add_test(deaths, whoever_finds_a_dead_writer_leaves_word_of_it);
    suite_add_tcase(suite, deaths);
    return harness_run(suite);
}
