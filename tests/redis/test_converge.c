/* test_converge.c: two hosts on one Redis in good weather: what is set, replaced, deleted, expired
 * on one is so on the other and in Redis, for keys and values of every shape.
 */
#include "tests/redis/fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static harness_redis redis;
static host a, b;

static void setup(void)
{
    pair_start(&redis, &a, &b, NULL);
}

static void teardown(void)
{
    pair_end(&redis, &a, &b);
}

START_TEST(set_travels)
{
    host_set(&a, "greeting", "hello");
    host_comes_to(&b, "greeting", "hello");
    redis_comes_to(&redis, "t:greeting", "hello");
    larder_info there = host_info(&b, "greeting"), here = host_info(&a, "greeting");
    ck_assert_uint_eq(here.version.clock, there.version.clock);
    ck_assert_uint_eq(here.version.node, there.version.node);
    host_drained(&a);
    ck_assert_uint_eq(host_dirty(&b), 0);

    host_set(&b, "greeting", "and goodbye");
    host_comes_to(&a, "greeting", "and goodbye");
    redis_comes_to(&redis, "t:greeting", "and goodbye");
}
END_TEST

START_TEST(delete_travels)
{
    host_set(&a, "k", "v");
    host_comes_to(&b, "k", "v");
    host_delete(&b, "k");
    host_comes_to(&a, "k", NULL);
    redis_comes_to(&redis, "t:k", NULL);
    /* the record remembers it, with an end */
    char *ttl = harness_redis_command(&redis, "PTTL", "v:{t:k}", NULL);
    ck_assert_int_gt(strtol(ttl, NULL, 10), 80000000);
    free(ttl);
}
END_TEST

START_TEST(expiry_travels)
{
    larder_policy policy = {.expiry = larder_expire_in(100000)};
    ck_assert_int_eq(larder_set(a.map, "k", 1, "v", 1, &policy), LARDER_OK);
    host_comes_to(&b, "k", "v");
    ck_assert_int_eq(host_info(&a, "k").expires_ms, host_info(&b, "k").expires_ms);
    char *ends = harness_redis_command(&redis, "PEXPIRETIME", "t:k", NULL);
    ck_assert_int_eq(strtoll(ends, NULL, 10), host_info(&a, "k").expires_ms);
    char *record = harness_redis_command(&redis, "PEXPIRETIME", "v:{t:k}", NULL);
    ck_assert_int_eq(strtoll(record, NULL, 10), host_info(&a, "k").expires_ms + 86400000);
    free(ends);
    free(record);
    /* no end: no end there either */
    host_set(&a, "k", "w");
    redis_comes_to(&redis, "t:k", "w");
    ck_assert(harness_redis_says(&redis, "-1", "PTTL", "t:k", NULL));
    ck_assert(harness_redis_says(&redis, "-1", "PTTL", "v:{t:k}", NULL));
}
END_TEST

START_TEST(negative_travels)
{
    larder_policy policy = {.expiry = larder_expire_in(100000), .flags = LARDER_NEGATIVE};
    host_set(&a, "k", "v");
    host_comes_to(&b, "k", "v");
    ck_assert_int_eq(larder_set(a.map, "k", 1, "", 0, &policy), LARDER_OK);
    redis_comes_to(&redis, "t:k", NULL);
    int64_t until = harness_now_ms() + harness_patience(PATIENCE_MS);
    char buffer[8];
    while (larder_get(b.map, "k", 1, buffer, sizeof buffer, NULL) != LARDER_ABSENT)
        ck_assert_msg(harness_now_ms() < until, "b does not know that it is absent");
}
END_TEST

/* An entry is on the other host what it is here: stale, sliding, under its marks. */
START_TEST(times_and_marks_travel)
{
    larder_bytes tag = {"t", 1};
    larder_policy policy = {.expiry = larder_expire_sliding(60000),
                            .stale_ms = 20000,
                            .max_lifetime_ms = 3600000,
                            .group = {"g", 1},
                            .tags = &tag,
                            .tag_count = 1};
    char big[5001];
    memset(big, 'b', 5000);
    big[5000] = 0;
    ck_assert_int_eq(larder_set(a.map, "k", 1, "v", 1, &policy), LARDER_OK);
    ck_assert_int_eq(larder_set(a.map, "big", 3, big, 5000, &policy), LARDER_OK);
    host_comes_to(&b, "k", "v");
    host_comes_to(&b, "big", big);
    for (int i = 0; i < 2; i++) {
        const char *key = i == 0 ? "k" : "big";
        larder_info here = host_info(&a, key), there = host_info(&b, key);
        ck_assert_int_eq(there.expires_ms, here.expires_ms);
        ck_assert_int_eq(there.stale_until_ms, here.expires_ms + 20000);
        ck_assert_int_eq(there.created_ms, here.created_ms);
        ck_assert_uint_eq(there.flags, LARDER_INFO_MARKED | LARDER_INFO_SLIDING);
    }
    ck_assert_int_eq(larder_invalidate_group(b.map, (larder_bytes){"g", 1}, NULL), LARDER_OK);
    ck_assert(host_has(&b, "k", NULL));
    ck_assert(host_has(&b, "big", NULL));
}
END_TEST

START_TEST(sizes_travel)
{
    static const size_t sizes[] = {0, 1, 2047, 2048, 2049, 5000, 70000, 1000000};
    size_t count = sizeof sizes / sizeof *sizes;
    char *value = malloc(1000001);
    ck_assert_ptr_nonnull(value);
    for (size_t i = 0; i < count; i++) {
        char key[32];
        (void)snprintf(key, sizeof key, "size%zu", sizes[i]);
        memset(value, 'a' + (int)i, sizes[i]);
        value[sizes[i]] = 0;
        host_set(&a, key, value);
    }
    for (size_t i = 0; i < count; i++) {
        char key[32], name[40];
        (void)snprintf(key, sizeof key, "size%zu", sizes[i]);
        (void)snprintf(name, sizeof name, "t:%s", key);
        memset(value, 'a' + (int)i, sizes[i]);
        value[sizes[i]] = 0;
        host_comes_to(&b, key, value);
        redis_comes_to(&redis, name, value);
    }
    /* a large value replaced by a large one, and by a small one */
    memset(value, 'x', 5000);
    value[5000] = 0;
    host_set(&b, "size70000", value);
    host_comes_to(&a, "size70000", value);
    host_set(&b, "size1000000", "small");
    host_comes_to(&a, "size1000000", "small");
    free(value);
}
END_TEST

START_TEST(keys_travel)
{
    static const char *const plain[] = {"user:{42}:name", "a b", "{t}", "k%7Bk"};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        host_set(&a, plain[i], plain[i]);
    host_set(&a, "open{only", "1");
    host_set(&a, "close}only", "2");
    host_set(&a, "{}empty", "3");
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        host_comes_to(&b, plain[i], plain[i]);
    host_comes_to(&b, "open{only", "1");
    host_comes_to(&b, "close}only", "2");
    host_comes_to(&b, "{}empty", "3");
    /* what other clients know keeps its name, byte for byte */
    redis_comes_to(&redis, "t:user:{42}:name", "user:{42}:name");
    ck_assert(harness_redis_says(&redis, "1", "EXISTS", "v:{42}t:user:{42}:name", NULL));
    redis_comes_to(&redis, "t:a b", "a b");
    redis_comes_to(&redis, "t:open%7Bonly", "1");
    redis_comes_to(&redis, "t:close%7Donly", "2");
    redis_comes_to(&redis, "t:%7B%7Dempty", "3");
}
END_TEST

START_TEST(bytes_travel)
{
    char key[300], value[256];
    for (size_t i = 0; i < sizeof key; i++)
        key[i] = (char)(255 - i % 256);
    for (size_t i = 0; i < sizeof value; i++)
        value[i] = (char)i;
    host_set_bytes(&a, key, sizeof key, value, sizeof value);
    char *longest = malloc(LARDER_KEY_MAX);
    ck_assert_ptr_nonnull(longest);
    memset(longest, 'k', LARDER_KEY_MAX);
    host_set_bytes(&a, longest, LARDER_KEY_MAX, "v", 1);
    host_drained(&a);
    int64_t until = harness_now_ms() + harness_patience(PATIENCE_MS);
    char got[300];
    larder_info info;
    while (larder_get(b.map, key, sizeof key, got, sizeof got, &info) != LARDER_OK ||
           larder_get(b.map, longest, LARDER_KEY_MAX, got + 256, 8, NULL) != LARDER_OK)
        ck_assert_msg(harness_now_ms() < until, "binary or longest key did not come");
    ck_assert_uint_eq(info.size, sizeof value);
    ck_assert_mem_eq(got, value, sizeof value);
    free(longest);
}
END_TEST

/* Both write the same keys as fast as they can: in the end all three hold the same. */
START_TEST(concurrent_writes_end_equal)
{
    uint64_t random = harness_seed();
    char key[16], value[32], name[32];
    for (int i = 0; i < 3000; i++) {
        host *self = harness_random(&random) % 2 != 0 ? &a : &b;
        (void)snprintf(key, sizeof key, "k%d", (int)(harness_random(&random) % 7));
        (void)snprintf(value, sizeof value, "%s-%d", self->name, i);
        if (harness_random(&random) % 10 == 0)
            host_delete(self, key);
        else
            host_set(self, key, value);
    }
    pair_settles(&a, &b);
    for (int k = 0; k < 7; k++) {
        (void)snprintf(key, sizeof key, "k%d", k);
        (void)snprintf(name, sizeof name, "t:k%d", k);
        char *in_redis = harness_redis_command(&redis, "GET", name, NULL);
        host_comes_to(&a, key, in_redis);
        host_comes_to(&b, key, in_redis);
        free(in_redis);
    }
}
END_TEST

START_TEST(older_write_loses_to_the_newer)
{
    /* b writes while it cannot reach Redis; a writes later; b comes back with the older value */
    host_stop_daemon(&b);
    host_set(&b, "k", "older");
    int64_t written = (int64_t)(host_info(&b, "k").version.clock >> 16);
    do
        host_set(&a, "k", "newer");
    while ((int64_t)(host_info(&a, "k").version.clock >> 16) <= written);
    redis_comes_to(&redis, "t:k", "newer");
    host_start_daemon(&b);
    host_comes_to(&b, "k", "newer");
    host_drained(&b);
    redis_comes_to(&redis, "t:k", "newer");
    ck_assert(host_has(&a, "k", "newer"));
}
END_TEST

START_TEST(deletion_beats_an_older_value)
{
    host_stop_daemon(&b);
    host_set(&b, "k", "older");
    int64_t written = (int64_t)(host_info(&b, "k").version.clock >> 16);
    do
        host_set(&a, "k", "newer");
    while ((int64_t)(host_info(&a, "k").version.clock >> 16) <= written);
    host_delete(&a, "k");
    host_drained(&a);
    host_start_daemon(&b);
    host_comes_to(&b, "k", NULL);
    host_drained(&b);
    redis_comes_to(&redis, "t:k", NULL);
    ck_assert(host_has(&a, "k", NULL));
}
END_TEST

/* A host that missed events reads them from the stream; nobody pushes anything twice. */
START_TEST(absent_host_catches_up)
{
    host_set(&a, "old", "1");
    host_comes_to(&b, "old", "1");
    host_drained(&a);
    host_stop_daemon(&b);
    char key[16];
    for (int i = 0; i < 500; i++) {
        (void)snprintf(key, sizeof key, "k%d", i);
        host_set(&a, key, key);
    }
    host_set(&a, "old", "2");
    host_drained(&a);
    uint64_t pushes = redis_calls(&redis, "xadd");
    host_start_daemon(&b);
    host_comes_to(&b, "old", "2");
    for (int i = 0; i < 500; i++) {
        (void)snprintf(key, sizeof key, "k%d", i);
        host_comes_to(&b, key, key);
    }
    host_redis_up(&b, true);
    ck_assert_uint_eq(redis_calls(&redis, "xadd"), pushes);
}
END_TEST

static int compare(const void *x, const void *y)
{
    int64_t left = *(const int64_t *)x, right = *(const int64_t *)y;
    return left < right ? -1 : left > right;
}

START_TEST(half_of_the_sets_arrive_within_milliseconds)
{
    enum { ROUNDS = 101 };
    int64_t took[ROUNDS];
    char value[16];
    for (int i = 0; i < ROUNDS; i++) {
        (void)snprintf(value, sizeof value, "%d", i);
        struct timespec from, to;
        (void)clock_gettime(CLOCK_MONOTONIC, &from);
        host_set(&a, "k", value);
        int64_t until = harness_now_ms() + harness_patience(5000);
        while (!host_has(&b, "k", value))
            ck_assert_int_lt(harness_now_ms(), until);
        (void)clock_gettime(CLOCK_MONOTONIC, &to);
        took[i] = (to.tv_sec - from.tv_sec) * 1000000 + (to.tv_nsec - from.tv_nsec) / 1000;
    }
    qsort(took, ROUNDS, sizeof *took, compare);
    printf("# set to visible elsewhere: p50 %lld us, p99 %lld us\n", (long long)took[ROUNDS / 2],
           (long long)took[ROUNDS - 2]);
    ck_assert_int_lt(took[ROUNDS / 2], harness_patience(5) * 1000);
}
END_TEST

int main(void)
{
    harness_needs_redis();
    Suite *suite = suite_create("converge");
    TCase *fleet = tcase_create("two hosts");
    tcase_add_checked_fixture(fleet, setup, teardown);
    tcase_set_timeout(fleet, 60);
    tcase_add_test(fleet, set_travels);
    tcase_add_test(fleet, delete_travels);
    tcase_add_test(fleet, expiry_travels);
    tcase_add_test(fleet, negative_travels);
    tcase_add_test(fleet, times_and_marks_travel);
    tcase_add_test(fleet, sizes_travel);
    tcase_add_test(fleet, keys_travel);
    tcase_add_test(fleet, bytes_travel);
    tcase_add_test(fleet, concurrent_writes_end_equal);
    tcase_add_test(fleet, older_write_loses_to_the_newer);
    tcase_add_test(fleet, deletion_beats_an_older_value);
    tcase_add_test(fleet, absent_host_catches_up);
    tcase_add_test(fleet, half_of_the_sets_arrive_within_milliseconds);
    suite_add_tcase(suite, fleet);
    return harness_run(suite);
}
