/* test_hotset.c: pages of copies: what comes in, what goes, who may hold a page and die.
 */
#include "hotset.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "key.h"
#include "larder.h"
#include "tests/harness.h"

enum { PAGES = 16 };
static struct hotset hot;

static void open_hot(void)
{
    ck_assert_int_eq(hotset_create(harness_directory(), (uint64_t)PAGES * HOTSET_PAGE), LARDER_OK);
    ck_assert_int_eq(hotset_open(harness_directory(), (uint64_t)PAGES * HOTSET_PAGE, &hot),
                     LARDER_OK);
}

static void close_hot(void)
{
    hotset_close(&hot);
    ck_assert_int_eq(unlink(harness_path(HOTSET_NAME)), 0);
}

static struct hotset_key key_of(const char *text)
{
    return (struct hotset_key){
        .hash = key_hash(text, strlen(text)), .data = text, .size = strlen(text)};
}

/* The copy as text, "" if there is none. */
static const char *found(const char *name)
{
    static char text[HOTSET_COPY_MAX + 1];
    uint8_t copy[HOTSET_COPY_MAX];
    size_t size = 0;
    struct hotset_key key = key_of(name);
    const uint8_t *record = hotset_find(&hot, &key, copy, &size, false);
    if (record == NULL) {
        return "";
    }
    memcpy(text, record, size);
    text[size] = '\0';
    return text;
}

static void offer(const char *name, const char *record, uint64_t snapshot, enum hotset_claim claim)
{
    struct hotset_key key = key_of(name);
    hotset_offer(&hot, &key, record, strlen(record), snapshot, claim);
}

static bool forget(const char *name, uint64_t transaction)
{
    struct hotset_key key = key_of(name);
    return hotset_forget(&hot, &key, transaction);
}

static struct hotset_page *page_of(const char *name)
{
    return hotset_page_of(&hot, key_of(name).hash);
}

/* The next name ("k0", "k1", ...) of the page of the first; counts on. */
static const char *neighbour(unsigned *number)
{
    static char names[8][16];
    static unsigned turn;
    char *name = names[turn++ % 8];
    do {
        (void)snprintf(name, sizeof names[0], "k%u", (*number)++);
    } while (page_of(name) != page_of("k0"));
    return name;
}

START_TEST(what_is_offered_is_found_until_it_is_forgotten)
{
    ck_assert_str_eq(found("a"), "");
    ck_assert(!forget("a", 5));
    offer("a", "first", 5, HOTSET_IF_ROOM);
    ck_assert_str_eq(found("a"), "first");
    ck_assert_str_eq(found("b"), "");
    offer("a", "second", 6, HOTSET_IF_ROOM);
    ck_assert_str_eq(found("a"), "second");
    ck_assert_uint_eq(hotset_entries(&hot), 1);
    ck_assert(forget("a", 7));
    ck_assert_str_eq(found("a"), "");
    ck_assert(!forget("a", 8));
    ck_assert_uint_eq(hotset_entries(&hot), 0);
}
END_TEST

START_TEST(what_an_older_snapshot_saw_does_not_come_in)
{
    (void)forget("a", 10);
    offer("a", "old", 9, HOTSET_SOMETIMES);
    ck_assert_str_eq(found("a"), "");
    offer("a", "new", 10, HOTSET_SOMETIMES);
    ck_assert_str_eq(found("a"), "new");
    /* a page's word never goes back, whatever transaction number a mistaken writer names */
    (void)forget("a", 3);
    offer("a", "old", 9, HOTSET_SOMETIMES);
    ck_assert_str_eq(found("a"), "");
}
END_TEST

START_TEST(sizes_at_the_edges)
{
    char *record = calloc(1, HOTSET_RECORD_MAX + 2);
    ck_assert_ptr_nonnull(record);
    for (size_t size = HOTSET_RECORD_MAX - 3; size <= HOTSET_RECORD_MAX + 1; size++) {
        memset(record, 'x', size);
        record[size] = '\0';
        offer("k", record, 1, HOTSET_IF_ROOM); /* with its key: one byte more */
        ck_assert_uint_eq(strlen(found("k")), size + 1 <= HOTSET_RECORD_MAX ? size : 0);
        (void)forget("k", 1);
    }
    offer("k", "", 1, HOTSET_IF_ROOM);
    ck_assert_uint_eq(hotset_entries(&hot), 1); /* nothing is a record, but none that anybody has */
    free(record);
}
END_TEST

START_TEST(a_full_page_keeps_what_is_asked_for)
{
    unsigned number = 1;
    char record[101];
    memset(record, 'r', 100);
    record[100] = '\0';
    offer("k0", record, 1, HOTSET_IF_ROOM);
    for (int i = 0; i < HOTSET_WAYS * 2; i++) {
        offer(neighbour(&number), record, 1, HOTSET_IF_ROOM);
    }
    ck_assert_uint_eq(hotset_entries(&hot), HOTSET_WAYS);
    ck_assert_str_eq(found("k0"), record);
    for (int i = 0; i < 4000; i++) { /* a scan of what is known, one of two lookups of "k0" */
        offer(neighbour(&number), record, 1, HOTSET_SOMETIMES);
        ck_assert_str_eq(found("k0"), record);
    }
    /* another that is asked for comes in, too */
    const char *late = neighbour(&number);
    int tries = 0;
    while (strlen(found(late)) == 0 && tries < 1000) {
        offer(late, record, 1, HOTSET_SOMETIMES);
        tries++;
    }
    ck_assert_int_lt(tries, 1000);
    ck_assert_uint_le(hotset_entries(&hot), HOTSET_WAYS);
}
END_TEST

START_TEST(mixed_sizes_share_a_page)
{
    unsigned number = 1;
    uint64_t random = harness_seed();
    char record[HOTSET_RECORD_MAX];
    for (int i = 0; i < 20000; i++) {
        size_t size = (size_t)(harness_random(&random) % (HOTSET_RECORD_MAX - 20)) + 1;
        const char *name = neighbour(&number);
        if (number > 4000) {
            number = 0;
        }
        memset(record, name[1], size);
        record[size] = '\0';
        if (harness_random(&random) % 4 == 0) {
            (void)forget(name, 1);
            ck_assert_str_eq(found(name), "");
            continue;
        }
        offer(name, record, 1, HOTSET_SOMETIMES);
        const char *back = found(name);
        if (back[0] != '\0' && strcmp(back, record) != 0) {
            /* an earlier, other size of this name may still be there: then it is whole */
            for (const char *at = back; *at != '\0'; at++) {
                ck_assert_int_eq(*at, name[1]);
            }
        }
    }
}
END_TEST

START_TEST(a_peek_leaves_no_trace_and_age_halves)
{
    uint8_t copy[HOTSET_COPY_MAX];
    size_t size;
    struct hotset_key key = key_of("a");
    ck_assert_uint_eq(hotset_age(&hot, &key), 0);
    offer("a", "value", 1, HOTSET_IF_ROOM);
    ck_assert_ptr_nonnull(hotset_find(&hot, &key, copy, &size, true));
    ck_assert_uint_eq(hotset_age(&hot, &key), 0);
    for (int i = 0; i < 10; i++) {
        ck_assert_str_eq(found("a"), "value");
    }
    ck_assert_uint_eq(hotset_age(&hot, &key), 3);
    ck_assert_uint_eq(hotset_age(&hot, &key), 1);
    ck_assert_uint_eq(hotset_age(&hot, &key), 0);
}
END_TEST

/* A process that took a page and ended, or sleeps, in the middle of it. */
static pid_t hold(const char *name, bool stays)
{
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        atomic_fetch_or(&page_of(name)->lock, (uint64_t)getpid() << 1);
        memset(page_of(name)->lines, 0xee, 1000); /* half a copy */
        if (!stays) {
            _exit(0);
        }
        for (;;) {
            (void)pause();
        }
    }
    while ((uint32_t)atomic_load(&page_of(name)->lock) == 0) {
        (void)usleep(100);
    }
    if (!stays) {
        ck_assert_int_eq(waitpid(child, NULL, 0), child);
    }
    return child;
}

START_TEST(a_page_whose_holder_died_is_taken_over)
{
    offer("a", "value", 1, HOTSET_IF_ROOM);
    (void)hold("a", false);
    ck_assert_str_eq(found("a"), "");
    (void)forget("a", 2);
    offer("a", "after", 2, HOTSET_IF_ROOM);
    ck_assert_str_eq(found("a"), "after");
    /* who only wants to put something in asks now and then */
    (void)hold("a", false);
    int tries = 0;
    while (found("a")[0] == '\0' && tries < 100000) {
        offer("a", "again", 2, HOTSET_IF_ROOM);
        tries++;
    }
    ck_assert_str_eq(found("a"), "again");
}
END_TEST

START_TEST(a_page_whose_holder_sleeps_is_retired_until_it_wakes)
{
    offer("a", "value", 1, HOTSET_IF_ROOM);
    pid_t child = hold("a", true);
    int64_t before = harness_now_ms();
    ck_assert(!forget("a", 2)); /* does not wait for it */
    ck_assert_int_lt(harness_now_ms() - before, harness_patience(1000));
    ck_assert_uint_eq(atomic_load(&page_of("a")->lock) & 1, 1);
    ck_assert_str_eq(found("a"), "");
    offer("a", "new", 2, HOTSET_IF_ROOM);
    ck_assert_str_eq(found("a"), "");
    ck_assert(!forget("a", 3));
    /* it never wakes: the next who must have the page finds it dead */
    ck_assert_int_eq(kill(child, SIGKILL), 0);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    ck_assert(!forget("a", 4));
    offer("a", "after", 4, HOTSET_IF_ROOM);
    ck_assert_str_eq(found("a"), "after");
}
END_TEST

START_TEST(damaged_pages_are_misses)
{
    uint64_t random = harness_seed();
    unsigned number = 1;
    char record[200];
    memset(record, 'r', sizeof record - 1);
    record[sizeof record - 1] = '\0';
    for (int round = 0; round < 3000; round++) {
        for (int i = 0; i < 8; i++) {
            offer(neighbour(&number), record, 1, HOTSET_SOMETIMES);
        }
        number = number > 4000 ? 0 : number;
        uint8_t *bytes = (uint8_t *)page_of("k0");
        for (int i = 0; i < 40; i++) { /* anything but the lock, whose holder must be real */
            bytes[8 + harness_random(&random) % (i < 20 ? 120 : HOTSET_PAGE - 8)] =
                (uint8_t)harness_random(&random);
        }
        for (int i = 0; i < 8; i++) {
            (void)found(neighbour(&number));
            (void)forget(neighbour(&number), 1);
        }
        atomic_store(&page_of("k0")->newest, 0);
    }
}
END_TEST

START_TEST(no_hot_set_and_damaged_files)
{
    struct hotset none;
    uint8_t copy[HOTSET_COPY_MAX];
    size_t size;
    struct hotset_key key = key_of("a");
    ck_assert_int_eq(hotset_open(harness_directory(), 0, &none), LARDER_OK);
    ck_assert_ptr_null(hotset_find(&none, &key, copy, &size, false));
    ck_assert(!hotset_forget(&none, &key, 1));
    hotset_offer(&none, &key, "x", 1, 1, HOTSET_SOMETIMES);
    ck_assert_uint_eq(hotset_age(&none, &key), 0);
    ck_assert_uint_eq(hotset_entries(&none), 0);
    hotset_close(&none);
    ck_assert_int_eq(hotset_open(harness_directory(), 8192, &none), LARDER_ECORRUPT);
    ck_assert_int_eq(hotset_open(harness_path("nowhere"), 8192, &none), LARDER_ECORRUPT);
    ck_assert_int_eq(hotset_create(harness_directory(), 8192), LARDER_ESYSTEM); /* it is there */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hotset");
    TCase *tests = tcase_create("hotset");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, open_hot, close_hot);
    tcase_add_test(tests, what_is_offered_is_found_until_it_is_forgotten);
    tcase_add_test(tests, what_an_older_snapshot_saw_does_not_come_in);
    tcase_add_test(tests, sizes_at_the_edges);
    tcase_add_test(tests, a_full_page_keeps_what_is_asked_for);
    tcase_add_test(tests, mixed_sizes_share_a_page);
    tcase_add_test(tests, a_peek_leaves_no_trace_and_age_halves);
    tcase_add_test(tests, a_page_whose_holder_died_is_taken_over);
    tcase_add_test(tests, a_page_whose_holder_sleeps_is_retired_until_it_wakes);
    tcase_add_test(tests, damaged_pages_are_misses);
    tcase_add_test(tests, no_hot_set_and_damaged_files);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
