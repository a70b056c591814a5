/* test_lease.c: the right to fill: who gets it, how it ends, what may be stored with it; and the
 * table under it (lib/lease.c, lib/fill.c).
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "clock.h"
#include "key.h"
#include "lease.h"
#include "maps.h"
#include "process.h"
#include "removal.h"

static int acquire(larder *map, const char *key, larder_lease *lease)
{
    return larder_lease_acquire(map, key, strlen(key), NULL, lease, NULL, NULL, NULL);
}

static int fill(larder *map, const larder_lease *lease, const char *key, const char *value)
{
    return larder_lease_fill(map, lease, key, strlen(key), value, strlen(value), NULL);
}

static void pause_ms(long ms)
{
    (void)nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* ---- Acquire ----------------------------------------------------------------------------------
 */

START_TEST(the_first_fills_and_the_others_wait)
{
    larder *map = maps_new();
    larder_lease first, second, third;
    ck_assert_int_eq(acquire(map, "k", &first), LARDER_FILL);
    ck_assert_int_eq(acquire(map, "k", &second), LARDER_WAIT);
    ck_assert_int_eq(acquire(map, "other", &third), LARDER_FILL);
    ck_assert_int_eq(larder_lease_wait(map, &second, 0), LARDER_WAIT);
    ck_assert_int_eq(fill(map, &first, "k", "value"), LARDER_OK);
    ck_assert_int_eq(larder_lease_wait(map, &second, 0), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "k"), "value");
    void *value = NULL;
    size_t size = 0;
    larder_info info;
    ck_assert_int_eq(larder_lease_acquire(map, "k", 1, NULL, &second, &value, &size, &info),
                     LARDER_OK);
    ck_assert_uint_eq(size, 5);
    ck_assert_mem_eq(value, "value", 5);
    ck_assert_int_eq(info.version.clock == first.version.clock, 1);
    larder_free(value);
    ck_assert_int_eq(larder_lease_abandon(map, &third, 0), LARDER_OK);
    ck_assert_uint_eq(maps_stats(map).lease_fills, 2);
    maps_whole(map);
    larder_close(&map);
}
END_TEST

START_TEST(a_negative_entry_needs_no_fill)
{
    larder *map = maps_new();
    larder_lease lease;
    larder_policy negative = {.flags = LARDER_NEGATIVE};
    void *value = &lease;
    size_t size = 1;
    ck_assert_int_eq(acquire(map, "k", &lease), LARDER_FILL);
    ck_assert_int_eq(larder_lease_fill(map, &lease, "k", 1, NULL, 0, &negative), LARDER_OK);
    ck_assert_int_eq(larder_lease_acquire(map, "k", 1, NULL, &lease, &value, &size, NULL),
                     LARDER_ABSENT);
    ck_assert_ptr_null(value);
    ck_assert_uint_eq(size, 0);
    larder_close(&map);
}
END_TEST

START_TEST(an_abandoned_lease_goes_to_the_next)
{
    larder *map = maps_new();
    larder_lease first, second;
    ck_assert_int_eq(acquire(map, "k", &first), LARDER_FILL);
    ck_assert_int_eq(acquire(map, "k", &second), LARDER_WAIT);
    ck_assert_int_eq(larder_lease_abandon(map, &first, 0), LARDER_OK);
    ck_assert_int_eq(larder_lease_wait(map, &second, 1000), LARDER_OK);
    ck_assert_int_eq(acquire(map, "k", &second), LARDER_FILL);
    ck_assert_int_eq(larder_lease_abandon(map, &first, 0), LARDER_CONFLICT); /* not its own */
    ck_assert_int_eq(acquire(map, "k", &first), LARDER_WAIT);
    ck_assert_int_eq(larder_lease_abandon(map, &second, LARDER_SKIP), LARDER_OK);
    ck_assert_int_eq(larder_lease_wait(map, &first, 1000), LARDER_SKIP);
    larder_close(&map);
}
END_TEST

START_TEST(a_lease_ends_at_its_deadline)
{
    larder *map = maps_new();
    larder_lease_options options = {.hold_ms = 30};
    larder_lease first, second;
    ck_assert_int_eq(larder_lease_acquire(map, "k", 1, &options, &first, NULL, NULL, NULL),
                     LARDER_FILL);
    ck_assert_int_eq(acquire(map, "k", &second), LARDER_WAIT);
    ck_assert_int_eq(larder_lease_renew(map, &first, 60), LARDER_OK);
    int64_t began = harness_now_ms();
    ck_assert_int_eq(larder_lease_wait(map, &second, 5000), LARDER_OK);
    ck_assert_int_ge(harness_now_ms() - began, 50);
    ck_assert_int_lt(harness_now_ms() - began, harness_patience(4000));
    ck_assert_int_eq(larder_lease_renew(map, &first, 0), LARDER_CONFLICT);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "lost"));
    ck_assert_int_eq(acquire(map, "k", &second), LARDER_FILL);
    /* late, but nothing newer is there yet; then the newer one comes */
    ck_assert_int_eq(fill(map, &first, "k", "late"), LARDER_OK);
    ck_assert_int_eq(fill(map, &second, "k", "newer"), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "k"), "newer");
    ck_assert_int_eq(fill(map, &first, "k", "later"), LARDER_CONFLICT);
    ck_assert_str_eq(maps_get(map, "k"), "newer");
    ck_assert_uint_eq(maps_stats(map).lease_takeovers, 1);
    ck_assert_uint_eq(maps_stats(map).lease_refused_fills, 1);
    larder_close(&map);
}
END_TEST

START_TEST(a_wait_ends_at_its_own_deadline)
{
    larder *map = maps_new();
    larder_lease first, second;
    ck_assert_int_eq(acquire(map, "k", &first), LARDER_FILL);
    ck_assert_int_eq(acquire(map, "k", &second), LARDER_WAIT);
    int64_t began = harness_now_ms();
    ck_assert_int_eq(larder_lease_wait(map, &second, 40), LARDER_WAIT);
    ck_assert_int_ge(harness_now_ms() - began, 39);
    ck_assert_int_lt(harness_now_ms() - began, harness_patience(4000));
    ck_assert_uint_eq(maps_stats(map).lease_waits, 1);
    ck_assert_uint_eq(maps_stats(map).lease_timeouts, 1);
    larder_close(&map);
}
END_TEST

/* ---- What may be stored ------------------------------------------------------------------------
 */

START_TEST(a_fill_loses_to_whatever_came_after_its_lease)
{
    larder *map = maps_new();
    larder_lease lease;
    int64_t never_mind;
    /* a set */
    ck_assert_int_eq(acquire(map, "set", &lease), LARDER_FILL);
    ck_assert_int_eq(maps_set(map, "set", "newer"), LARDER_OK);
    ck_assert_int_eq(fill(map, &lease, "set", "old"), LARDER_CONFLICT);
    ck_assert_str_eq(maps_get(map, "set"), "newer");
    /* a delete of what is not there */
    ck_assert_int_eq(acquire(map, "delete", &lease), LARDER_FILL);
    ck_assert_int_eq(maps_delete(map, "delete"), LARDER_MISS);
    ck_assert_int_eq(fill(map, &lease, "delete", "old"), LARDER_CONFLICT);
    ck_assert_ptr_null(maps_get(map, "delete"));
    /* the next lease is newer than the delete */
    ck_assert_int_eq(acquire(map, "delete", &lease), LARDER_FILL);
    ck_assert_int_eq(fill(map, &lease, "delete", "new"), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "delete"), "new");
    /* a counter */
    ck_assert_int_eq(acquire(map, "count", &lease), LARDER_FILL);
    ck_assert_int_eq(larder_incr(map, "count", 5, 1, &never_mind, NULL), LARDER_OK);
    ck_assert_int_eq(fill(map, &lease, "count", "0"), LARDER_CONFLICT);
    ck_assert_str_eq(maps_get(map, "count"), "1");
    /* a deletion that is not durable yet, and one that went into a barrier */
    ck_assert_int_eq(acquire(map, "pending", &lease), LARDER_FILL);
    struct key key;
    ck_assert_int_eq(key_make(&key, "pending", 7), LARDER_OK);
    ck_assert(!removal_pend(maps_control(map), &key, clock_next(maps_control(map))));
    ck_assert_int_eq(fill(map, &lease, "pending", "old"), LARDER_CONFLICT);
    ck_assert_ptr_null(maps_get(map, "pending"));
    ck_assert_int_eq(acquire(map, "barrier", &lease), LARDER_FILL);
    ck_assert_int_eq(key_make(&key, "barrier", 7), LARDER_OK);
    removal_raise_barrier(maps_control(map), key.hash, clock_next(maps_control(map)).clock);
    ck_assert_int_eq(fill(map, &lease, "barrier", "old"), LARDER_CONFLICT);
    ck_assert_ptr_null(maps_get(map, "barrier"));
    maps_whole(map);
    larder_close(&map);
}
END_TEST

START_TEST(a_fill_loses_to_a_tombstone)
{
    larder *map = maps_new();
    larder_lease lease;
    atomic_store(&maps_control(map)->replicates, 1);
    ck_assert_int_eq(maps_set(map, "k", "old"), LARDER_OK);
    ck_assert_int_eq(maps_delete(map, "k"), LARDER_OK);
    ck_assert_int_eq(acquire(map, "k", &lease), LARDER_FILL);
    ck_assert_int_eq(maps_delete(map, "k"), LARDER_MISS);
    ck_assert_int_eq(fill(map, &lease, "k", "old"), LARDER_CONFLICT);
    ck_assert_ptr_null(maps_get(map, "k"));
    ck_assert_int_eq(acquire(map, "k", &lease), LARDER_FILL);
    ck_assert_int_eq(fill(map, &lease, "k", "new"), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "k"), "new");
    maps_whole(map);
    larder_close(&map);
}
END_TEST

START_TEST(a_fill_replaces_an_expired_entry_and_ends_refused_leases)
{
    larder *map = maps_new();
    larder_lease lease, other;
    larder_policy soon = {.expiry = larder_expire_in(1)}, wrong = {.flags = 1u << 30};
    ck_assert_int_eq(larder_set(map, "k", 1, "old", 3, &soon), LARDER_OK);
    pause_ms(3);
    ck_assert_int_eq(acquire(map, "k", &lease), LARDER_FILL);
    ck_assert_int_eq(fill(map, &lease, "k", "new"), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "k"), "new");
    ck_assert_int_eq(acquire(map, "w", &lease), LARDER_FILL);
    ck_assert_int_eq(larder_lease_fill(map, &lease, "w", 1, "v", 1, &wrong), LARDER_EINVAL);
    ck_assert_int_eq(acquire(map, "w", &other), LARDER_FILL);
    larder_close(&map);
}
END_TEST

START_TEST(a_busy_gate_loses_the_fill_and_frees_the_lease)
{
    larder *map = maps_new();
    larder_lease lease;
    ck_assert_int_eq(acquire(map, "k", &lease), LARDER_FILL);
    struct maps_holder holder = maps_hold(&maps_control(map)->write_gate);
    ck_assert_int_eq(fill(map, &lease, "k", "value"), LARDER_EBUSY);
    maps_let_go(&holder);
    ck_assert_uint_eq(removal_count_pending(maps_control(map)), 0); /* nothing to invalidate */
    ck_assert_int_eq(acquire(map, "k", &lease), LARDER_FILL);
    ck_assert_int_eq(fill(map, &lease, "k", "value"), LARDER_OK);
    larder_close(&map);
}
END_TEST

/* ---- Early renewal -----------------------------------------------------------------------------
 */

START_TEST(one_caller_renews_ahead_of_expiry)
{
    larder *map = maps_new();
    larder_lease lease, second;
    larder_lease_options early = {.early_percent = 10000};
    larder_policy policy = {.expiry = larder_expire_in(60000)};
    void *value = NULL;
    size_t size = 0;
    ck_assert_int_eq(acquire(map, "k", &lease), LARDER_FILL);
    pause_ms(20);
    ck_assert_int_eq(larder_lease_fill(map, &lease, "k", 1, "v1", 2, &policy), LARDER_OK);
    larder_info info = maps_info(map, "k");
    ck_assert_int_ge(info.created_ms - (int64_t)(info.version.clock >> 16), 19);
    ck_assert_int_eq(acquire(map, "k", &second), LARDER_OK); /* not asked for */
    /* 100 times 20 ms and more, 60 s ahead: one in e^30; so bring the expiry near */
    policy.expiry = larder_expire_in(300);
    ck_assert_int_eq(maps_delete(map, "k"), LARDER_OK);
    ck_assert_int_eq(acquire(map, "k", &lease), LARDER_FILL);
    pause_ms(20);
    ck_assert_int_eq(larder_lease_fill(map, &lease, "k", 1, "v1", 2, &policy), LARDER_OK);
    int result = LARDER_OK;
    for (int i = 0; i < 1000 && result == LARDER_OK; i++) {
        free(value);
        result = larder_lease_acquire(map, "k", 1, &early, &lease, &value, &size, NULL);
    }
    ck_assert_int_eq(result, LARDER_REFRESH);
    ck_assert_mem_eq(value, "v1", 2);
    larder_free(value);
    for (int i = 0; i < 100; i++) { /* the others keep the fresh value */
        ck_assert_int_eq(larder_lease_acquire(map, "k", 1, &early, &second, NULL, NULL, NULL),
                         LARDER_OK);
    }
    policy.expiry = larder_expire_in(60000);
    ck_assert_int_eq(larder_lease_fill(map, &lease, "k", 1, "v2", 2, &policy), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "k"), "v2");
    ck_assert_uint_eq(maps_stats(map).refreshes, 1);
    larder_close(&map);
}
END_TEST

/* ---- Processes ---------------------------------------------------------------------------------
 */

struct inherited {
    larder *map;
    larder_lease lease;
};

static int use_parents_lease(void *context)
{
    struct inherited *inherited = context;
    if (fill(inherited->map, &inherited->lease, "k", "child's") != LARDER_EINVAL ||
        strstr(larder_last_error(), "does not inherit") == NULL) {
        return 1;
    }
    if (larder_lease_abandon(inherited->map, &inherited->lease, 0) != LARDER_EINVAL ||
        larder_lease_renew(inherited->map, &inherited->lease, 0) != LARDER_EINVAL) {
        return 2;
    }
    larder_lease own;
    return acquire(inherited->map, "k", &own) == LARDER_WAIT ? 0 : 3;
}

START_TEST(a_child_does_not_inherit_a_lease)
{
    struct inherited inherited = {.map = maps_new()};
    ck_assert_int_eq(acquire(inherited.map, "k", &inherited.lease), LARDER_FILL);
    ck_assert_int_eq(maps_in_child(use_parents_lease, &inherited), 0);
    ck_assert_int_eq(fill(inherited.map, &inherited.lease, "k", "parent's"), LARDER_OK);
    larder_close(&inherited.map);
}
END_TEST

static int take_and_die(void *context)
{
    larder_lease lease;
    return acquire(context, "k", &lease) == LARDER_FILL ? 0 : 1;
}

START_TEST(a_dead_holders_lease_is_free_at_once)
{
    larder *map = maps_new();
    larder_lease lease;
    ck_assert_int_eq(maps_in_child(take_and_die, map), 0);
    int64_t began = harness_now_ms();
    ck_assert_int_eq(acquire(map, "k", &lease), LARDER_FILL);
    ck_assert_int_lt(harness_now_ms() - began, harness_patience(4000));
    ck_assert_uint_eq(maps_stats(map).lease_takeovers, 1);
    larder_close(&map);
}
END_TEST

static int see_it_free(void *context)
{
    larder_lease lease;
    (void)context;
    larder *map = maps_open("closing", MAPS_SIZE, 0);
    int result = acquire(map, "k", &lease);
    larder_close(&map);
    return result == LARDER_FILL ? 0 : 1;
}

START_TEST(closing_the_map_gives_leases_back)
{
    larder *map = maps_open("closing", MAPS_SIZE, 0);
    larder_lease lease;
    ck_assert_int_eq(acquire(map, "k", &lease), LARDER_FILL);
    larder_close(&map);
    ck_assert_int_eq(maps_in_child(see_it_free, NULL), 0);
    map = maps_open("closing", MAPS_SIZE, 0);
    ck_assert_int_eq(acquire(map, "k", &lease), LARDER_FILL);
    ck_assert_uint_eq(maps_stats(map).lease_takeovers, 0);
    larder_close(&map);
}
END_TEST

START_TEST(a_zombie_is_gone_and_a_number_given_again_is_another)
{
    ck_assert_uint_ne(process_start(), 0);
    ck_assert(!process_gone(getpid(), process_start()));
    ck_assert(!process_gone(getpid(), 0));
    ck_assert(process_gone(getpid(), process_start() + 1));
    ck_assert(process_gone(0, 0));
    pid_t child = fork();
    if (child == 0) {
        (void)pause();
        _exit(0);
    }
    ck_assert_int_gt(child, 0);
    ck_assert(!process_gone(child, 0));
    ck_assert_int_eq(kill(child, SIGKILL), 0);
    int64_t until = harness_now_ms() + harness_patience(2000);
    while (!process_gone(child, 0)) {
        ck_assert_int_lt(harness_now_ms(), until);
    }
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    ck_assert(process_gone(child, 0));
}
END_TEST

/* ---- The table ---------------------------------------------------------------------------------
 */

START_TEST(a_full_set_makes_callers_fill_without_a_lease)
{
    larder *map = maps_new();
    larder_lease leases[LEASE_WAYS], more;
    char keys[LEASE_WAYS][24], key[24];
    uint64_t hash[2], wanted = UINT64_MAX;
    size_t found = 0;
    bool filled = false;
    for (unsigned i = 0; !filled; i++) {
        (void)snprintf(key, sizeof key, "key%u", i);
        key_hash_wide(key, strlen(key), hash);
        uint64_t set = (hash[0] >> 24) % LEASE_SETS;
        wanted = wanted == UINT64_MAX ? set : wanted;
        if (set != wanted) {
            continue;
        }
        if (found < LEASE_WAYS) {
            memcpy(keys[found], key, sizeof key);
            ck_assert_int_eq(acquire(map, key, &leases[found]), LARDER_FILL);
            ck_assert_int_eq(acquire(map, key, &more), LARDER_WAIT);
            found++;
        } else { /* both may fill; what they store is stored by version */
            larder_lease other;
            ck_assert_int_eq(acquire(map, key, &more), LARDER_FILL);
            ck_assert_int_eq(acquire(map, key, &other), LARDER_FILL);
            ck_assert_int_eq(larder_lease_renew(map, &more, 0), LARDER_OK);
            ck_assert_int_eq(fill(map, &other, key, "newer"), LARDER_OK);
            ck_assert_int_eq(fill(map, &more, key, "older"), LARDER_CONFLICT);
            ck_assert_str_eq(maps_get(map, key), "newer");
            filled = true;
        }
    }
    for (size_t i = 0; i < LEASE_WAYS; i++) {
        ck_assert_int_eq(fill(map, &leases[i], keys[i], "value"), LARDER_OK);
    }
    larder_close(&map);
}
END_TEST

START_TEST(keys_of_one_fingerprint_are_two_keys)
{
    larder *map = maps_new();
    struct lease_ticket first, second, third;
    const uint64_t left[2] = {UINT64_C(0x1234567890abcdef), 1};
    const uint64_t right[2] = {UINT64_C(0x1234567890abcdef), 2};
    ck_assert_int_eq(lease_claim(map->map, left, 10000, &first), LEASE_TAKEN);
    ck_assert_int_eq(lease_claim(map->map, right, 10000, &second), LEASE_TAKEN);
    ck_assert_int_eq(lease_claim(map->map, left, 10000, &third), LEASE_HELD);
    ck_assert_uint_eq(third.slot, first.slot);
    ck_assert(lease_end(map->map, &first, LEASE_FILLED));
    ck_assert(!lease_end(map->map, &first, LEASE_FILLED));
    ck_assert_int_eq(lease_claim(map->map, right, 10000, &third), LEASE_HELD);
    larder_close(&map);
}
END_TEST

START_TEST(a_damaged_table_only_costs_fills)
{
    larder *map = maps_new();
    larder_lease lease;
    uint64_t stream = harness_seed() ^ 77;
    struct lease_table *table = &maps_control(map)->leases;
    for (int round = 0; round < 300; round++) {
        uint8_t *bytes = (uint8_t *)table;
        for (size_t i = 0; i < sizeof *table; i += 8) {
            uint64_t noise = harness_random(&stream);
            memcpy(bytes + i, &noise, sizeof noise);
        }
        for (int i = 0; i < 10; i++) {
            char key[16];
            (void)snprintf(key, sizeof key, "k%d", i);
            int result = acquire(map, key, &lease);
            ck_assert_int_ge(result, 0);
            if (result == LARDER_FILL) {
                ck_assert_int_eq(fill(map, &lease, key, "value"), LARDER_OK);
                ck_assert_str_eq(maps_get(map, key), "value");
                ck_assert_int_eq(maps_delete(map, key), LARDER_OK);
            } else {
                ck_assert_int_eq(result, LARDER_WAIT);
                ck_assert_int_ge(larder_lease_wait(map, &lease, 1), 0);
            }
        }
    }
    memset(table, 0, sizeof *table);
    ck_assert_int_eq(acquire(map, "k", &lease), LARDER_FILL);
    maps_whole(map);
    larder_close(&map);
}
END_TEST

struct racer {
    larder *map;
    _Atomic int *holders, *most;
    _Atomic unsigned *taken;
};

static void *race_for_one_key(void *context)
{
    struct racer *racer = context;
    const uint64_t hash[2] = {UINT64_C(0xfeed), UINT64_C(0xbeef)};
    for (int i = 0; i < 20000; i++) {
        struct lease_ticket ticket;
        if (lease_claim(racer->map->map, hash, 10000, &ticket) != LEASE_TAKEN) {
            continue;
        }
        int now = atomic_fetch_add(racer->holders, 1) + 1;
        if (now > atomic_load(racer->most)) {
            atomic_store(racer->most, now);
        }
        atomic_fetch_add(racer->taken, 1);
        atomic_fetch_sub(racer->holders, 1);
        (void)lease_end(racer->map->map, &ticket, LEASE_FILLED);
    }
    return NULL;
}

START_TEST(a_key_never_has_two_holders)
{
    larder *map = maps_new();
    static _Atomic int holders, most;
    static _Atomic unsigned taken;
    pthread_t threads[4];
    struct racer racer = {.map = map, .holders = &holders, .most = &most, .taken = &taken};
    for (size_t i = 0; i < 4; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, race_for_one_key, &racer), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    }
    ck_assert_int_eq(atomic_load(&most), 1);
    ck_assert_uint_gt(atomic_load(&taken), 100);
    larder_close(&map);
}
END_TEST

/* ---- Arguments ---------------------------------------------------------------------------------
 */

START_TEST(bad_arguments_are_refused)
{
    larder *map = maps_new(), *reader;
    larder_lease lease, none = {.version = {0}}, waiting;
    void *value;
    ck_assert_int_eq(larder_lease_acquire(NULL, "k", 1, NULL, &lease, NULL, NULL, NULL),
                     LARDER_EINVAL);
    ck_assert_int_eq(larder_lease_acquire(map, "", 0, NULL, &lease, NULL, NULL, NULL),
                     LARDER_EINVAL);
    ck_assert_int_eq(larder_lease_acquire(map, "k", 1, NULL, NULL, NULL, NULL, NULL),
                     LARDER_EINVAL);
    ck_assert_int_eq(larder_lease_acquire(map, "k", 1, NULL, &lease, &value, NULL, NULL),
                     LARDER_EINVAL);
    const larder_lease_options wrong[] = {
        {.hold_ms = -1}, {.hold_ms = 600001},      {.wait_ms = -2},   {.wait_ms = 600001},
        {.flags = 1},    {.early_percent = 10001}, {.reserved = {1}},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        ck_assert_int_eq(larder_lease_acquire(map, "k", 1, &wrong[i], &lease, NULL, NULL, NULL),
                         LARDER_EINVAL);
    }
    ck_assert_int_eq(larder_lease_wait(map, &none, 0), LARDER_EINVAL);
    ck_assert_int_eq(fill(map, &none, "k", "v"), LARDER_EINVAL);
    ck_assert_int_eq(larder_lease_renew(map, NULL, 0), LARDER_EINVAL);
    ck_assert_int_eq(acquire(map, "k", &lease), LARDER_FILL);
    ck_assert_int_eq(acquire(map, "k", &waiting), LARDER_WAIT);
    ck_assert_int_eq(larder_lease_wait(map, &lease, 0), LARDER_EINVAL); /* one's own */
    ck_assert_int_eq(fill(map, &waiting, "k", "v"), LARDER_EINVAL);
    ck_assert_int_eq(fill(map, &lease, "another", "v"), LARDER_EINVAL);
    ck_assert_int_eq(larder_lease_wait(map, &waiting, -1), LARDER_EINVAL);
    ck_assert_int_eq(larder_lease_wait(map, &waiting, 600001), LARDER_EINVAL);
    ck_assert_int_eq(larder_lease_renew(map, &lease, 600001), LARDER_EINVAL);
    ck_assert_int_eq(larder_lease_abandon(map, &lease, 7), LARDER_EINVAL);
    ck_assert_int_eq(larder_lease_wait(map, &waiting, 0), LARDER_WAIT); /* nothing changed */
    larder_options options = {.dir = harness_directory(), .flags = LARDER_READ_ONLY};
    ck_assert_int_eq(maps_set(map, "there", "v"), LARDER_OK);
    ck_assert_int_eq(larder_open("map0", &options, &reader), LARDER_OK);
    ck_assert_int_eq(acquire(reader, "k2", &lease), LARDER_EREADONLY);
    larder_close(&reader);
    larder_close(&map);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lease");
    TCase *acquiring = tcase_create("acquire");
    tcase_add_test(acquiring, the_first_fills_and_the_others_wait);
    tcase_add_test(acquiring, a_negative_entry_needs_no_fill);
    tcase_add_test(acquiring, an_abandoned_lease_goes_to_the_next);
    tcase_add_test(acquiring, a_lease_ends_at_its_deadline);
    tcase_add_test(acquiring, a_wait_ends_at_its_own_deadline);
    suite_add_tcase(suite, acquiring);
    TCase *storing = tcase_create("store");
    tcase_add_test(storing, a_fill_loses_to_whatever_came_after_its_lease);
    tcase_add_test(storing, a_fill_loses_to_a_tombstone);
    tcase_add_test(storing, a_fill_replaces_an_expired_entry_and_ends_refused_leases);
    tcase_add_test(storing, a_busy_gate_loses_the_fill_and_frees_the_lease);
    tcase_add_test(storing, one_caller_renews_ahead_of_expiry);
    suite_add_tcase(suite, storing);
    TCase *processes = tcase_create("processes");
    tcase_add_test(processes, a_child_does_not_inherit_a_lease);
    tcase_add_test(processes, a_dead_holders_lease_is_free_at_once);
    tcase_add_test(processes, closing_the_map_gives_leases_back);
    tcase_add_test(processes, a_zombie_is_gone_and_a_number_given_again_is_another);
    suite_add_tcase(suite, processes);
    TCase *table = tcase_create("table");
    tcase_add_test(table, a_full_set_makes_callers_fill_without_a_lease);
    tcase_add_test(table, keys_of_one_fingerprint_are_two_keys);
    tcase_add_test(table, a_damaged_table_only_costs_fills);
    tcase_add_test(table, a_key_never_has_two_holders);
    suite_add_tcase(suite, table);
    TCase *arguments = tcase_create("arguments");
    tcase_add_test(arguments, bad_arguments_are_refused);
    suite_add_tcase(suite, arguments);
    return harness_run(suite);
}
