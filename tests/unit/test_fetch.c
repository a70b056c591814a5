/* test_fetch.c: get or fill: what comes of each answer of a fill, and that nothing the cache does
 * keeps a caller from its origin.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "clock.h"
#include "maps.h"

struct origin {
    larder *map;
    const char *value;
    int outcome, calls, released;
    larder_policy policy;
    int depth; /* fetches of the same key from inside */
    jmp_buf *leave;
    long pause_ms;
};

static void on_release(void *owner)
{
    ((struct origin *)owner)->released++;
}

static int fetch(larder *map, const char *key, struct origin *origin, char text[64]);

static int ask_origin(void *context, const void *key, size_t key_size, larder_filled *filled)
{
    struct origin *origin = context;
    char name[64] = "", text[64];
    memcpy(name, key, key_size);
    origin->calls++;
    if (origin->leave != NULL) {
        longjmp(*origin->leave, 1);
    }
    if (origin->depth > 0) {
        origin->depth--;
        int result = fetch(origin->map, name, origin, text);
        if (result < 0) {
            return result;
        }
    }
    (void)nanosleep(&(struct timespec){.tv_nsec = origin->pause_ms * 1000000}, NULL);
    if (origin->outcome >= 0) {
        filled->value = origin->value;
        filled->value_size = origin->value == NULL ? 0 : strlen(origin->value);
    }
    filled->policy = origin->policy;
    filled->release = on_release;
    filled->owner = origin;
    return origin->outcome;
}

static int fetch_with(larder *map, const char *key, struct origin *origin,
                      const larder_lease_options *options, char text[64])
{
    void *value = NULL;
    size_t size = 0;
    larder_info info;
    int result =
        larder_fetch_with(map, key, strlen(key), ask_origin, origin, options, &value, &size, &info);
    text[0] = '\0';
    if (result == LARDER_OK || result == LARDER_STALE) {
        ck_assert_ptr_nonnull(value);
        ck_assert_uint_lt(size, 64);
        ck_assert_uint_eq(info.size, size);
        memcpy(text, value, size);
        text[size] = '\0';
    } else {
        ck_assert_ptr_null(value);
        ck_assert_uint_eq(size, 0);
    }
    larder_free(value);
    return result;
}

static int fetch(larder *map, const char *key, struct origin *origin, char text[64])
{
    return fetch_with(map, key, origin, NULL, text);
}

/* ---- Answers -----------------------------------------------------------------------------------
 */

START_TEST(a_miss_is_filled_once)
{
    larder *map = maps_new();
    struct origin origin = {.value = "value", .policy = {.expiry = larder_expire_in(60000)}};
    char text[64];
    ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_OK);
    ck_assert_str_eq(text, "value");
    ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_OK);
    ck_assert_str_eq(text, "value");
    ck_assert_int_eq(origin.calls, 1);
    ck_assert_int_eq(origin.released, 1);
    ck_assert_int_ne(maps_info(map, "k").expires_ms, INT64_MAX);
    ck_assert_uint_eq(maps_stats(map).lease_fills, 1);
    larder_close(&map);
}
END_TEST

START_TEST(an_empty_value_is_a_value)
{
    larder *map = maps_new();
    struct origin origin = {.value = ""};
    char text[64];
    ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_OK);
    ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_OK);
    ck_assert_int_eq(origin.calls, 1);
    larder_close(&map);
}
END_TEST

START_TEST(absence_is_remembered_under_its_own_policy)
{
    larder *map = maps_new();
    struct origin origin = {.outcome = LARDER_ABSENT, .policy = {.expiry = larder_expire_in(5000)}};
    char text[64];
    ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_ABSENT);
    ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_ABSENT);
    ck_assert_int_eq(origin.calls, 1);
    ck_assert_int_eq(origin.released, 1);
    ck_assert_int_eq(maps_has(map, "k"), LARDER_ABSENT);
    larder_close(&map);
}
END_TEST

START_TEST(what_is_skipped_is_not_stored)
{
    larder *map = maps_new();
    struct origin origin = {.outcome = LARDER_SKIP, .value = "private"};
    char text[64];
    for (int i = 1; i <= 3; i++) {
        ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_OK);
        ck_assert_str_eq(text, "private");
        ck_assert_int_eq(origin.calls, i);
        ck_assert_int_eq(origin.released, i);
    }
    ck_assert_ptr_null(maps_get(map, "k"));
    larder_close(&map);
}
END_TEST

START_TEST(a_failed_fill_is_the_callers_answer_and_frees_the_lease)
{
    larder *map = maps_new();
    struct origin origin = {.outcome = -7};
    char text[64];
    int64_t began = harness_now_ms();
    ck_assert_int_eq(fetch(map, "k", &origin, text), -7);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "-7"));
    ck_assert_int_eq(fetch(map, "k", &origin, text), -7);
    ck_assert_int_eq(origin.calls, 2);
    origin = (struct origin){.outcome = 77, .value = "x"};
    ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_EINVAL);
    ck_assert_int_eq(origin.released, 1);
    ck_assert_int_lt(harness_now_ms() - began, harness_patience(5000)); /* no lease waited for */
    larder_close(&map);
}
END_TEST

START_TEST(a_wrong_policy_of_the_fill_is_an_error)
{
    larder *map = maps_new();
    struct origin origin = {.value = "x", .policy = {.expiry = larder_expire_in(-1)}};
    char text[64];
    ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_EINVAL);
    ck_assert_int_eq(origin.released, 1);
    ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_EINVAL);
    ck_assert_int_eq(origin.calls, 2);
    larder_close(&map);
}
END_TEST

/* ---- Stale values -------------------------------------------------------------------------------
 */

static void store_stale(larder *map, const char *value, int64_t stale_ms)
{
    larder_policy policy = {.expiry = larder_expire_in(1), .stale_ms = stale_ms};
    ck_assert_int_eq(larder_set(map, "k", 1, value, strlen(value), &policy), LARDER_OK);
    (void)nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
    ck_assert_ptr_null(maps_get(map, "k"));
}

START_TEST(a_value_that_is_stale_already_is_kept_as_such)
{
    larder *map = maps_new();
    static const larder_read stale = {.flags = LARDER_ACCEPT_STALE};
    larder_policy policy = {.expiry = larder_expire_at(clock_wall_ms() - 1000), .stale_ms = 60000};
    char text[8];
    ck_assert_int_eq(larder_set(map, "k", 1, "old", 3, &policy), LARDER_OK);
    ck_assert_ptr_null(maps_get(map, "k"));
    ck_assert_int_eq(larder_get_with(map, "k", 1, text, sizeof text, NULL, &stale), LARDER_STALE);
    policy.stale_ms = 500; /* that is over, too: a delete */
    ck_assert_int_eq(larder_set(map, "k", 1, "old", 3, &policy), LARDER_OK);
    ck_assert_int_eq(larder_get_with(map, "k", 1, text, sizeof text, NULL, &stale), LARDER_MISS);
    larder_close(&map);
}
END_TEST

START_TEST(a_stale_value_is_served_while_one_renews_it)
{
    larder *map = maps_new();
    struct origin origin = {.value = "new"};
    larder_lease lease, other;
    void *value = NULL;
    size_t size = 0;
    char text[64];
    store_stale(map, "old", 60000);
    ck_assert_int_eq(larder_lease_acquire(map, "k", 1, NULL, &lease, &value, &size, NULL),
                     LARDER_REFRESH);
    ck_assert_uint_eq(size, 3);
    ck_assert_mem_eq(value, "old", 3);
    larder_free(value);
    ck_assert_int_eq(larder_lease_acquire(map, "k", 1, NULL, &other, &value, &size, NULL),
                     LARDER_STALE);
    ck_assert_mem_eq(value, "old", 3);
    larder_free(value);
    int64_t began = harness_now_ms();
    ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_STALE); /* it waits for nobody */
    ck_assert_str_eq(text, "old");
    ck_assert_int_eq(origin.calls, 0);
    ck_assert_int_lt(harness_now_ms() - began, harness_patience(5000));
    ck_assert_int_eq(larder_lease_abandon(map, &lease, 0), LARDER_OK);
    ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_OK);
    ck_assert_str_eq(text, "new");
    ck_assert_int_eq(origin.calls, 1);
    ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_OK);
    ck_assert_int_eq(origin.calls, 1);
    ck_assert_uint_eq(maps_stats(map).refreshes, 2);
    larder_close(&map);
}
END_TEST

START_TEST(a_stale_value_is_served_if_the_fill_fails)
{
    larder *map = maps_new();
    struct origin origin = {.outcome = -5};
    char text[64];
    store_stale(map, "old", 60000);
    for (int i = 1; i <= 2; i++) {
        ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_STALE);
        ck_assert_str_eq(text, "old");
        ck_assert_int_eq(origin.calls, i);
    }
    store_stale(map, "old", 1); /* not past its stale time */
    ck_assert_int_eq(fetch(map, "k", &origin, text), -5);
    store_stale(map, "old", 60000); /* nor after an invalidation */
    ck_assert_int_ge(maps_delete(map, "k"), 0);
    ck_assert_int_eq(fetch(map, "k", &origin, text), -5);
    larder_close(&map);
}
END_TEST

START_TEST(a_fill_loses_to_the_invalidation_of_its_group)
{
    larder *map = maps_new();
    larder_lease lease;
    larder_policy grouped = {.group = {.data = "g", .size = 1}};
    ck_assert_int_eq(larder_lease_acquire(map, "k", 1, NULL, &lease, NULL, NULL, NULL),
                     LARDER_FILL);
    ck_assert_int_eq(larder_invalidate_group(map, grouped.group, NULL), LARDER_OK);
    ck_assert_int_eq(larder_lease_fill(map, &lease, "k", 1, "old", 3, &grouped), LARDER_CONFLICT);
    ck_assert_ptr_null(maps_get(map, "k"));
    ck_assert_int_eq(larder_lease_acquire(map, "k", 1, NULL, &lease, NULL, NULL, NULL),
                     LARDER_FILL);
    ck_assert_int_eq(larder_lease_fill(map, &lease, "k", 1, "new", 3, &grouped), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "k"), "new");
    ck_assert_int_eq(larder_lease_acquire(map, "all", 3, NULL, &lease, NULL, NULL, NULL),
                     LARDER_FILL);
    ck_assert_int_eq(larder_clear(map), LARDER_OK);
    ck_assert_int_eq(larder_lease_fill(map, &lease, "all", 3, "old", 3, NULL), LARDER_CONFLICT);
    ck_assert_ptr_null(maps_get(map, "all"));
    larder_close(&map);
}
END_TEST

/* ---- A cache that cannot help -------------------------------------------------------------------
 */

START_TEST(a_busy_gate_does_not_keep_the_value)
{
    larder *map = maps_new();
    struct origin origin = {.value = "value"};
    char text[64];
    struct maps_holder holder = maps_hold(&maps_control(map)->write_gate);
    ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_OK);
    ck_assert_str_eq(text, "value");
    maps_let_go(&holder);
    ck_assert_ptr_null(maps_get(map, "k"));
    ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_OK);
    ck_assert_int_eq(origin.calls, 2);
    ck_assert_str_eq(maps_get(map, "k"), "value");
    larder_close(&map);
}
END_TEST

START_TEST(too_large_a_value_is_returned_all_the_same)
{
    larder *map = NULL;
    struct origin origin = {.value = "larger than sixteen bytes"};
    larder_options options = {.dir = harness_directory(), .map_size = MAPS_SIZE, .max_value = 16};
    char text[64];
    ck_assert_int_eq(larder_open("small", &options, &map), LARDER_OK);
    ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_OK);
    ck_assert_str_eq(text, origin.value);
    ck_assert_ptr_null(maps_get(map, "k"));
    larder_close(&map);
}
END_TEST

START_TEST(a_read_only_handle_fetches_without_storing)
{
    larder *map = maps_open("ro", MAPS_SIZE, 0), *reader = maps_open("ro", 0, LARDER_READ_ONLY);
    struct origin origin = {.value = "value"};
    char text[64];
    ck_assert_int_eq(fetch(reader, "k", &origin, text), LARDER_OK);
    ck_assert_str_eq(text, "value");
    ck_assert_ptr_null(maps_get(map, "k"));
    ck_assert_int_eq(maps_set(map, "k", "stored"), LARDER_OK);
    ck_assert_int_eq(fetch(reader, "k", &origin, text), LARDER_OK);
    ck_assert_str_eq(text, "stored");
    ck_assert_int_eq(origin.calls, 1);
    larder_close(&reader);
    larder_close(&map);
}
END_TEST

static void *open_store(void *context)
{
    (void)larder_has(context, "k", 1);
    return NULL; /* and its slot is free again */
}

/* All of them; this thread has none. */
static size_t take_reader_slots(larder *map, struct transaction *readers)
{
    pthread_t other;
    size_t count = 0;
    ck_assert_int_eq(pthread_create(&other, NULL, open_store, map), 0);
    ck_assert_int_eq(pthread_join(other, NULL), 0);
    struct store *store = atomic_load(&map->map->store);
    ck_assert_ptr_nonnull(store);
    while (store_reader_open(store, &readers[count], 50) == LARDER_OK) {
        count++;
        ck_assert_uint_le(count, CONTROL_MAX_READERS);
    }
    return count;
}

START_TEST(without_a_reader_slot_there_is_no_cache_and_no_delay)
{
    static struct transaction readers[CONTROL_MAX_READERS + 1];
    larder *map = maps_new();
    struct origin origin = {.value = "value"};
    larder_lease_options options = {.wait_ms = 60000}; /* it must not wait: that would show */
    larder_lease lease;
    char text[64];
    size_t taken = take_reader_slots(map, readers);
    int64_t began = harness_now_ms();
    for (int i = 1; i <= 3; i++) {
        ck_assert_int_eq(fetch_with(map, "k", &origin, &options, text), LARDER_OK);
        ck_assert_str_eq(text, "value");
        ck_assert_int_eq(origin.calls, i);
    }
    ck_assert_int_eq(larder_lease_acquire(map, "k", 1, NULL, &lease, NULL, NULL, NULL),
                     LARDER_ELIMIT);
    ck_assert_int_lt(harness_now_ms() - began, harness_patience(20000));
    while (taken > 0) {
        store_reader_close(&readers[--taken]);
    }
    ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "k"), "value");
    larder_close(&map);
}
END_TEST

START_TEST(who_has_waited_long_enough_fills_itself)
{
    larder *map = maps_new();
    larder_lease lease;
    larder_lease_options options = {.wait_ms = 30}, none = {.wait_ms = -1};
    struct origin origin = {.value = "own"};
    char text[64];
    ck_assert_int_eq(larder_lease_acquire(map, "k", 1, NULL, &lease, NULL, NULL, NULL),
                     LARDER_FILL);
    int64_t began = harness_now_ms();
    ck_assert_int_eq(fetch_with(map, "k", &origin, &options, text), LARDER_OK);
    ck_assert_str_eq(text, "own");
    ck_assert_int_ge(harness_now_ms() - began, 29);
    ck_assert_int_lt(harness_now_ms() - began, harness_patience(5000)); /* the lease has 10 s */
    /* what it stored is newer than the lease's */
    ck_assert_int_eq(larder_lease_fill(map, &lease, "k", 1, "old", 3, NULL), LARDER_CONFLICT);
    ck_assert_str_eq(maps_get(map, "k"), "own");
    ck_assert_int_eq(maps_delete(map, "k"), LARDER_OK);
    ck_assert_int_eq(larder_lease_acquire(map, "k", 1, NULL, &lease, NULL, NULL, NULL),
                     LARDER_FILL);
    began = harness_now_ms();
    ck_assert_int_eq(fetch_with(map, "k", &origin, &none, text), LARDER_OK);
    ck_assert_int_lt(harness_now_ms() - began, harness_patience(5000));
    larder_close(&map);
}
END_TEST

/* ---- Fills that do strange things
 * ---------------------------------------------------------------- */

START_TEST(a_fill_may_fetch_its_own_key)
{
    larder *map = maps_new();
    struct origin origin = {.map = map, .value = "value", .depth = 1};
    char text[64];
    int64_t began = harness_now_ms();
    ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_OK);
    ck_assert_str_eq(text, "value");
    ck_assert_int_eq(origin.calls, 2);
    ck_assert_str_eq(maps_get(map, "k"), "value");
    /* without end it is an error, not a deadlock and not a crash */
    origin = (struct origin){.map = map, .value = "value", .depth = 1000000};
    ck_assert_int_eq(fetch(map, "other", &origin, text), LARDER_EINVAL);
    ck_assert_int_lt(origin.calls, 20);
    ck_assert_int_lt(harness_now_ms() - began, harness_patience(5000));
    larder_close(&map);
}
END_TEST

START_TEST(a_fill_that_leaves_by_longjmp_holds_nobody_up_for_long)
{
    larder *map = maps_new();
    jmp_buf leave;
    volatile int64_t began = 0;
    static struct origin origin;
    larder_lease_options options = {.hold_ms = 50};
    char text[64];
    origin = (struct origin){.value = "value", .leave = &leave};
    if (setjmp(leave) == 0) {
        (void)fetch_with(map, "k", &origin, &options, text);
        ck_abort_msg("the fill came back");
    }
    origin.leave = NULL;
    began = harness_now_ms();
    /* this thread would wait for itself: it fills without a lease */
    ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_OK);
    ck_assert_int_lt(harness_now_ms() - began, harness_patience(5000));
    ck_assert_int_eq(maps_delete(map, "k"), LARDER_OK);
    (void)nanosleep(&(struct timespec){.tv_nsec = 60000000}, NULL);
    for (int i = 0; i < 20; i++) { /* and it is forgotten with the lease */
        ck_assert_int_eq(fetch(map, "k", &origin, text), LARDER_OK);
        ck_assert_int_eq(maps_delete(map, "k"), LARDER_OK);
    }
    larder_close(&map);
}
END_TEST

static int fork_inside(void *context, const void *key, size_t key_size, larder_filled *filled)
{
    struct origin *origin = context;
    origin->calls++;
    pid_t child = fork();
    if (child == 0) { /* it returns from the fill, too, with a lease that is its parent's */
        (void)key;
        (void)key_size;
        origin->outcome = 1;
        filled->value = "child's";
        filled->value_size = 7;
        return LARDER_OK;
    }
    int status = -1;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    filled->value = "parent's";
    filled->value_size = 8;
    return LARDER_OK;
}

START_TEST(a_fill_that_forks_stays_its_parents)
{
    larder *map = maps_new();
    static struct origin origin;
    larder_lease other;
    void *value = NULL;
    size_t size = 0;
    ck_assert_int_eq(larder_fetch(map, "k", 1, fork_inside, &origin, &value, &size, NULL),
                     LARDER_OK);
    if (origin.outcome == 1) { /* the child: its value, and the parent still holds the lease */
        bool own = size == 7 && memcmp(value, "child's", 7) == 0;
        _exit(own ? 0 : 1);
    }
    ck_assert_uint_eq(size, 8);
    ck_assert_mem_eq(value, "parent's", 8);
    larder_free(value);
    ck_assert_str_eq(maps_get(map, "k"), "parent's");
    ck_assert_int_eq(larder_lease_acquire(map, "k", 1, NULL, &other, NULL, NULL, NULL), LARDER_OK);
    larder_close(&map);
}
END_TEST

/* ---- Several
 * ------------------------------------------------------------------------------------- */

struct many {
    larder *map;
    struct origin origin; /* each thread's own */
    int result;
    char text[64];
};

static void *fetch_one(void *context)
{
    struct many *many = context;
    many->result = fetch(many->map, "k", &many->origin, many->text);
    return NULL;
}

enum { FETCHERS = 16 };

static int fetch_by_many(larder *map, int outcome)
{
    static struct many many[FETCHERS];
    pthread_t threads[FETCHERS];
    int calls = 0;
    for (size_t i = 0; i < FETCHERS; i++) {
        many[i] = (struct many){.map = map,
                                .origin = {.value = "v", .outcome = outcome, .pause_ms = 500}};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, fetch_one, &many[i]), 0);
    }
    for (size_t i = 0; i < FETCHERS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
        ck_assert_int_eq(many[i].result, LARDER_OK);
        ck_assert_str_eq(many[i].text, "v");
        calls += many[i].origin.calls;
    }
    return calls;
}

START_TEST(many_threads_make_one_call)
{
    larder *map = maps_new();
    ck_assert_int_eq(fetch_by_many(map, LARDER_OK), 1);
    ck_assert_uint_eq(maps_stats(map).lease_fills, 1);
    larder_close(&map);
}
END_TEST

struct failing {
    larder *map;
    atomic_int *calls;
    int result;
};

/* Fails whoever asks: the first and the second caller when all others wait for them, and whoever
 * comes then when all are in it: one after another they would never be. */
static int fail_together(void *context, const void *key, size_t key_size, larder_filled *filled)
{
    (void)key;
    (void)key_size;
    (void)filled;
    struct failing *failing = context;
    int call = atomic_fetch_add(failing->calls, 1);
    uint64_t waits = call == 0 ? FETCHERS - 1 : 2 * FETCHERS - 3;
    int64_t until = harness_now_ms() + harness_patience(20000);
    while (harness_now_ms() < until) {
        if (call < 2 ? maps_stats(failing->map).lease_waits >= waits
                     : atomic_load(failing->calls) == FETCHERS) {
            return -7;
        }
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return -8;
}

static void *fetch_failing(void *context)
{
    static const larder_lease_options patient = {.wait_ms = 600000};
    struct failing *failing = context;
    void *value;
    size_t size;
    failing->result = larder_fetch_with(failing->map, "k", 1, fail_together, failing, &patient,
                                        &value, &size, NULL);
    return NULL;
}

START_TEST(a_failing_origin_does_not_make_callers_queue)
{
    larder *map = maps_new();
    static struct failing failing[FETCHERS];
    static atomic_int calls;
    pthread_t threads[FETCHERS];
    for (size_t i = 0; i < FETCHERS; i++) {
        failing[i] = (struct failing){.map = map, .calls = &calls};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, fetch_failing, &failing[i]), 0);
    }
    for (size_t i = 0; i < FETCHERS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
        ck_assert_int_eq(failing[i].result, -7);
    }
    larder_close(&map);
}
END_TEST

START_TEST(what_is_not_for_the_cache_is_not_fetched_one_after_the_other)
{
    larder *map = maps_new();
    int64_t began = harness_now_ms();
    ck_assert_int_eq(fetch_by_many(map, LARDER_SKIP), FETCHERS);
    /* one fill that they waited for, then all at once: not sixteen times 500 ms */
    ck_assert_int_lt(harness_now_ms() - began, harness_patience(5000));
    larder_close(&map);
}
END_TEST

START_TEST(bad_arguments_are_refused)
{
    larder *map = maps_new();
    struct origin origin = {.value = "v"};
    larder_lease_options wrong = {.hold_ms = -1};
    void *value = NULL;
    size_t size = 0;
    char text[64];
    ck_assert_int_eq(larder_fetch(NULL, "k", 1, ask_origin, &origin, &value, &size, NULL),
                     LARDER_EINVAL);
    ck_assert_int_eq(larder_fetch(map, "k", 1, NULL, &origin, &value, &size, NULL), LARDER_EINVAL);
    ck_assert_int_eq(larder_fetch(map, "k", 1, ask_origin, &origin, NULL, &size, NULL),
                     LARDER_EINVAL);
    ck_assert_int_eq(larder_fetch(map, "k", 1, ask_origin, &origin, &value, NULL, NULL),
                     LARDER_EINVAL);
    ck_assert_int_eq(larder_fetch(map, "", 0, ask_origin, &origin, &value, &size, NULL),
                     LARDER_EINVAL);
    ck_assert_int_eq(
        larder_fetch(map, "k", LARDER_KEY_MAX + 1, ask_origin, &origin, &value, &size, NULL),
        LARDER_ETOOBIG);
    ck_assert_int_eq(fetch_with(map, "k", &origin, &wrong, text), LARDER_EINVAL);
    ck_assert_int_eq(origin.calls, 0);
    larder_close(&map);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fetch");
    TCase *answers = tcase_create("answers");
    tcase_add_test(answers, a_miss_is_filled_once);
    tcase_add_test(answers, an_empty_value_is_a_value);
    tcase_add_test(answers, absence_is_remembered_under_its_own_policy);
    tcase_add_test(answers, what_is_skipped_is_not_stored);
    tcase_add_test(answers, a_failed_fill_is_the_callers_answer_and_frees_the_lease);
    tcase_add_test(answers, a_wrong_policy_of_the_fill_is_an_error);
    suite_add_tcase(suite, answers);
    TCase *stale = tcase_create("stale values");
    tcase_add_test(stale, a_stale_value_is_served_while_one_renews_it);
    tcase_add_test(stale, a_value_that_is_stale_already_is_kept_as_such);
    tcase_add_test(stale, a_stale_value_is_served_if_the_fill_fails);
    tcase_add_test(stale, a_fill_loses_to_the_invalidation_of_its_group);
    suite_add_tcase(suite, stale);
    TCase *helpless = tcase_create("a cache that cannot help");
    tcase_set_timeout(helpless, 60); /* for a thousand threads */
    tcase_add_test(helpless, a_busy_gate_does_not_keep_the_value);
    tcase_add_test(helpless, too_large_a_value_is_returned_all_the_same);
    tcase_add_test(helpless, a_read_only_handle_fetches_without_storing);
    tcase_add_test(helpless, without_a_reader_slot_there_is_no_cache_and_no_delay);
    tcase_add_test(helpless, who_has_waited_long_enough_fills_itself);
    suite_add_tcase(suite, helpless);
    TCase *strange = tcase_create("strange fills");
    tcase_add_test(strange, a_fill_may_fetch_its_own_key);
    tcase_add_test(strange, a_fill_that_leaves_by_longjmp_holds_nobody_up_for_long);
    tcase_add_test(strange, a_fill_that_forks_stays_its_parents);
    suite_add_tcase(suite, strange);
    TCase *several = tcase_create("several");
    tcase_add_test(several, many_threads_make_one_call);
    tcase_add_test(several, a_failing_origin_does_not_make_callers_queue);
    tcase_add_test(several, what_is_not_for_the_cache_is_not_fetched_one_after_the_other);
    tcase_add_test(several, bad_arguments_are_refused);
    suite_add_tcase(suite, several);
    return harness_run(suite);
}
