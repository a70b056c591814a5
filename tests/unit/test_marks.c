/* test_marks.c: the table of invalidated groups and tags: what dies, what lives, what happens when
 * the table is full, its gate held, or its last holder dead.
 */
#include "marks.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "clock.h"
#include "control.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"

static struct control *control;

static void make_control(void)
{
    control =
        mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(control, MAP_FAILED);
    ck_assert_int_eq(marks_init(&control->marks), 0);
    /* far ahead of the wall clock: then each version is the last one and 1 */
    atomic_store(&control->clock, UINT64_C(1) << 62);
}

static void free_control(void)
{
    (void)munmap(control, sizeof *control);
}

struct mark {
    uint8_t bytes[RECORD_MARK_SIZE];
};

static struct mark tag(const void *name, size_t size)
{
    struct mark mark = {{0}};
    marks_make(mark.bytes, MARK_TAG, name, size);
    return mark;
}

static struct mark number_tag(unsigned number)
{
    return tag(&number, sizeof number);
}

static uint64_t invalidate(struct mark mark, bool exact)
{
    larder_version version;
    ck_assert_int_eq(marks_invalidate(control, mark.bytes, &version), exact);
    return version.clock;
}

static bool dead(struct mark mark, uint64_t clock)
{
    struct record record = {.header = {.clock = clock, .mark_count = 1}, .marks = mark.bytes};
    return marks_death(&control->marks, &record) != 0;
}

static uint64_t now(void)
{
    return clock_next(control).clock;
}

START_TEST(what_is_older_dies_what_is_newer_lives)
{
    struct mark one = tag("one", 3), other = tag("other", 5);
    uint64_t before = now();
    ck_assert(!dead(one, before));
    uint64_t clock = invalidate(one, true);
    ck_assert(dead(one, before));
    ck_assert(dead(one, clock));
    ck_assert(!dead(one, clock + 1));
    ck_assert(!dead(other, before));
    uint64_t again = invalidate(one, true);
    ck_assert(dead(one, clock + 1));
    ck_assert(!dead(one, again + 1));
    ck_assert_uint_eq(marks_count(&control->marks), 1);
}
END_TEST

START_TEST(an_unmarked_record_asks_nothing)
{
    struct record record = {.header = {.clock = 5}};
    (void)invalidate(tag("t", 1), true);
    atomic_store(&control->marks.floor, UINT64_MAX); /* kills every marked one */
    ck_assert_uint_eq(marks_death(&control->marks, &record), 0);
    ck_assert(dead(tag("u", 1), 5));
}
END_TEST

START_TEST(any_of_its_marks_kills_a_record)
{
    uint8_t marks[RECORD_MARKS_MAX * RECORD_MARK_SIZE];
    for (unsigned i = 0; i < RECORD_MARKS_MAX; i++) {
        struct mark mark = number_tag(i);
        memcpy(marks + (size_t)i * RECORD_MARK_SIZE, mark.bytes, RECORD_MARK_SIZE);
    }
    for (unsigned i = 0; i < RECORD_MARKS_MAX; i++) {
        struct record record = {.header = {.clock = now(), .mark_count = RECORD_MARKS_MAX},
                                .marks = marks};
        ck_assert_uint_eq(marks_death(&control->marks, &record), 0);
        uint64_t clock = invalidate(number_tag(i), true);
        ck_assert_uint_eq(marks_death(&control->marks, &record), clock); /* when it died */
    }
}
END_TEST

START_TEST(names_are_bytes_compared_whole)
{
    const larder_bytes names[] = {{"a", 1},        {"ab", 2}, {"a}", 2},  {"a*", 2}, {"a\0", 2},
                                  {"a\0b", 3},     {"*", 1},  {"{a}", 3}, {"A", 1},  {"\xff", 1},
                                  {"\xff\xfe", 2}, {" a", 2}, {"a ", 2},  {"[a]", 3}};
    const size_t count = sizeof names / sizeof names[0];
    uint64_t before = now();
    for (size_t i = 0; i < count; i++) {
        (void)invalidate(tag(names[i].data, names[i].size), true);
        for (size_t j = 0; j < count; j++) {
            ck_assert_int_eq(dead(tag(names[j].data, names[j].size), before), j <= i);
        }
    }
    struct mark group = {{0}}; /* a group of the same name is another thing */
    marks_make(group.bytes, MARK_GROUP, "a", 1);
    ck_assert(!dead(group, before));
    ck_assert_uint_eq(marks_count(&control->marks), count);
}
END_TEST

/* A hundred thousand tags, ten thousand of the early ones again at the end. */
START_TEST(the_newest_are_exact_beyond_that_the_floor)
{
    enum { TAGS = 100000, AGAIN = 10000 };
    static uint64_t when[TAGS];
    uint64_t first = now();
    for (unsigned i = 0; i < TAGS; i++) {
        when[i] = invalidate(number_tag(i), true);
    }
    for (unsigned i = 0; i < AGAIN; i++) {
        when[i] = invalidate(number_tag(i), true);
    }
    uint64_t floor = atomic_load(&control->marks.floor);
    ck_assert_uint_gt(floor, first); /* it is bounded */
    ck_assert_uint_le(marks_count(&control->marks), MARKS_SWEEP_AT);
    unsigned exact = 0;
    for (unsigned i = 0; i < TAGS; i++) {
        ck_assert_msg(dead(number_tag(i), when[i]), "tag %u forgotten", i);
        ck_assert(dead(number_tag(i), first));
        exact += when[i] > floor && !dead(number_tag(i), when[i] + 1);
    }
    ck_assert_uint_ge(exact, MARKS_EXACT);
    /* the order by age: the newest 65,536 are 0..9,999 and then 99,999 downwards */
    for (unsigned i = TAGS - (MARKS_EXACT - AGAIN); i < TAGS; i++) {
        ck_assert_msg(when[i] > floor, "tag %u is under the floor", i);
    }
    /* one that never was invalidated dies with the floor, and not above it */
    ck_assert(dead(number_tag(TAGS), floor));
    ck_assert(!dead(number_tag(TAGS), floor + 1));
}
END_TEST

/* Marks made to fall into the same two buckets. */
static struct mark colliding(uint64_t number)
{
    struct mark mark = {{0}};
    /* the bits that choose the buckets, and the others */
    uint64_t halves[2] = {5 | (number & 0x3ffff) << 14 | UINT64_C(7) << 32 | number >> 18 << 46, 0};
    memcpy(mark.bytes, halves, sizeof halves);
    return mark;
}

START_TEST(full_buckets_push_out_their_oldest)
{
    enum { BOTH = 2 * MARKS_WAYS };
    uint64_t when[BOTH + 1];
    for (unsigned i = 0; i < BOTH; i++) {
        when[i] = invalidate(colliding(i), true);
    }
    ck_assert_uint_eq(atomic_load(&control->marks.floor), 0);
    when[0] = invalidate(colliding(0), true); /* now 1 is the oldest */
    when[BOTH] = invalidate(colliding(BOTH), true);
    ck_assert_uint_eq(atomic_load(&control->marks.floor), when[1]);
    for (unsigned i = 0; i <= BOTH; i++) {
        ck_assert(dead(colliding(i), when[i]));
        ck_assert(i == 1 || !dead(colliding(i), when[i] + 1));
    }
    ck_assert_uint_eq(marks_count(&control->marks), BOTH);
}
END_TEST

START_TEST(a_held_gate_makes_it_wider_not_refused)
{
    struct mark known = number_tag(1), new = number_tag(2), bystander = number_tag(3);
    (void)invalidate(known, true);
    uint64_t before = now();
    struct maps_holder holder = maps_hold(&control->marks.gate);
    uint64_t clock = invalidate(known, true); /* that needs no gate */
    ck_assert(dead(known, before));
    ck_assert(!dead(bystander, before));
    int64_t began = harness_now_ms();
    uint64_t wide = invalidate(new, false);
    ck_assert_int_le(harness_now_ms() - began, 40 + harness_patience(1000));
    ck_assert(dead(new, clock));
    ck_assert(dead(bystander, clock)); /* wider */
    ck_assert(!dead(bystander, wide + 1));
    ck_assert(!dead(new, wide + 1));
    maps_let_go(&holder);
    (void)invalidate(new, true);
    ck_assert(!dead(bystander, wide + 1));
}
END_TEST

START_TEST(what_a_dead_holder_left_is_mended)
{
    struct mark mark = number_tag(1), half = colliding(9);
    uint64_t clock = invalidate(mark, true);
    struct maps_holder holder = maps_hold(&control->marks.gate);
    /* as if killed while it freed a slot, took another, and had not counted */
    struct marks_bucket *bucket = &control->marks.buckets[5];
    uint64_t word;
    memcpy(&word, half.bytes, sizeof word);
    atomic_store(&bucket->tags[3], word);
    atomic_store(&bucket->clocks[4], 77);
    atomic_store(&control->marks.used, 4711);
    maps_kill(&holder);
    ck_assert(!dead(half, clock));
    uint64_t after = invalidate(half, true);
    ck_assert(dead(half, after));
    ck_assert(dead(mark, clock));
    ck_assert_uint_eq(marks_count(&control->marks), 2);
    ck_assert_uint_eq(atomic_load(&control->marks.floor), 0);
}
END_TEST

START_TEST(a_damaged_table_is_survived)
{
    struct marks *marks = &control->marks;
    uint64_t stream = harness_seed();
    uint64_t *words = (uint64_t *)(void *)marks->buckets;
    for (size_t i = 0; i < (size_t)2 * MARKS_SLOTS; i++) {
        words[i] = harness_random(&stream) >> (i % 3 * 16);
    }
    atomic_store(&marks->used, UINT64_MAX);
    for (unsigned i = 0; i < 100; i++) {
        uint64_t clock = now();
        larder_version version;
        (void)marks_invalidate(control, number_tag(i).bytes, &version);
        ck_assert(dead(number_tag(i), clock));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("marks");
    TCase *tests = tcase_create("marks");
    tcase_set_timeout(tests, 30);
    tcase_add_checked_fixture(tests, make_control, free_control);
    tcase_add_test(tests, what_is_older_dies_what_is_newer_lives);
    tcase_add_test(tests, an_unmarked_record_asks_nothing);
    tcase_add_test(tests, any_of_its_marks_kills_a_record);
    tcase_add_test(tests, names_are_bytes_compared_whole);
    tcase_add_test(tests, the_newest_are_exact_beyond_that_the_floor);
    tcase_add_test(tests, full_buckets_push_out_their_oldest);
    tcase_add_test(tests, a_held_gate_makes_it_wider_not_refused);
    tcase_add_test(tests, what_a_dead_holder_left_is_mended);
    tcase_add_test(tests, a_damaged_table_is_survived);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
