/* test_latency.c: the histograms: buckets and bounds agree, quantiles stand where they should, and
 * the calls of a map are sampled into the right ones.
 */
#include "latency.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "sample.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"

START_TEST(buckets_and_bounds_agree)
{
    ck_assert_uint_eq(larder_latency_bound_ns(0), 0);
    for (size_t i = 0; i + 1 < LARDER_LATENCY_BUCKETS; i++) {
        uint64_t low = larder_latency_bound_ns(i), next = larder_latency_bound_ns(i + 1);
        ck_assert_uint_lt(low, next);
        ck_assert_uint_eq(latency_bucket(low), i);
        ck_assert_uint_eq(latency_bucket(next - 1), i);
        if (low >= 16) { /* none is wider than a quarter */
            ck_assert_uint_le(next - low, low / 4);
        }
    }
    ck_assert_uint_eq(larder_latency_bound_ns(LARDER_LATENCY_BUCKETS), UINT64_MAX);
    ck_assert_uint_eq(latency_bucket(UINT64_MAX), LARDER_LATENCY_BUCKETS - 1);
    ck_assert_uint_gt(larder_latency_bound_ns(LARDER_LATENCY_BUCKETS - 1), UINT64_C(25000000000));
}
END_TEST

START_TEST(quantiles_stand_where_they_should)
{
    struct latency_table *table = calloc(1, sizeof *table);
    larder_latency latency;
    ck_assert_ptr_nonnull(table);
    latency_sum(table, LARDER_LATENCY_SET, &latency);
    ck_assert_uint_eq(latency.count, 0);
    ck_assert_uint_eq(latency.p50_ns, 0);
    for (uint32_t i = 1; i <= 10000; i++) { /* 1 to 10 us, evenly, over all stripes */
        latency_note(table, LARDER_LATENCY_SET, i, i);
    }
    latency_note(table, LATENCY_KINDS, 0, 5); /* no such kind: nothing happens */
    latency_sum(table, LARDER_LATENCY_SET, &latency);
    ck_assert_uint_eq(latency.count, 10000);
    ck_assert_uint_eq(latency.sum_ns, 50005000);
    ck_assert_uint_ge(latency.p50_ns, 4700);
    ck_assert_uint_le(latency.p50_ns, 5300);
    ck_assert_uint_ge(latency.p90_ns, 8400);
    ck_assert_uint_le(latency.p90_ns, 9600);
    ck_assert_uint_ge(latency.p99_ns, 9200);
    ck_assert_uint_le(latency.p999_ns, 10240);
    ck_assert_uint_le(latency.p99_ns, latency.p999_ns);
    latency_sum(table, LARDER_LATENCY_HIT, &latency);
    ck_assert_uint_eq(latency.count, 0);
    free(table);
}
END_TEST

static uint64_t sampled(larder *map, uint32_t kind)
{
    larder_latency latency;
    ck_assert_int_eq(larder_latency_read(map, kind, &latency, sizeof latency), LARDER_OK);
    if (latency.count > 0) {
        ck_assert_uint_gt(latency.p50_ns, 0);
        ck_assert_uint_le(latency.p50_ns, latency.p999_ns);
        ck_assert_uint_gt(latency.sum_ns, 0);
    }
    return latency.count;
}

START_TEST(calls_are_sampled_by_kind)
{
    larder *map = maps_new();
    for (int i = 0; i < 400; i++) {
        ck_assert_int_eq(maps_set(map, "a", "1"), LARDER_OK);
    }
    for (int i = 0; i < 20000; i++) {
        ck_assert_int_eq(maps_has(map, "a"), LARDER_OK);
    }
    if (sampled(map, LARDER_LATENCY_HIT) == 0) {
        larder_close(&map); /* the clock of this machine is a system call: nothing is timed */
        return;
    }
    /* expected 50 of 400 sets and 78 of 20,000 lookups; the distances are random */
    ck_assert_uint_ge(sampled(map, LARDER_LATENCY_SET), 20);
    ck_assert_uint_le(sampled(map, LARDER_LATENCY_SET), 120);
    uint64_t hits = sampled(map, LARDER_LATENCY_HIT);
    ck_assert_uint_ge(hits, 30);
    ck_assert_uint_le(hits, 200);
    ck_assert_uint_eq(sampled(map, LARDER_LATENCY_MISS), 0);
    ck_assert_uint_eq(sampled(map, LARDER_LATENCY_DELETE), 0);
    for (int i = 0; i < 20000; i++) {
        char room[8];
        larder_read peek = {.flags = LARDER_PEEK};
        ck_assert_int_eq(maps_has(map, "nobody"), LARDER_MISS);
        ck_assert_int_eq(larder_get_with(map, "a", 1, room, sizeof room, NULL, &peek), LARDER_OK);
        if (i % 50 == 0) {
            ck_assert_int_ge(maps_delete(map, "b"), 0);
        }
    }
    ck_assert_uint_eq(sampled(map, LARDER_LATENCY_HIT), hits); /* whoever peeks leaves no trace */
    ck_assert_uint_ge(sampled(map, LARDER_LATENCY_MISS), 30);
    ck_assert_uint_ge(sampled(map, LARDER_LATENCY_DELETE), 10);
    larder_close(&map);
}
END_TEST

START_TEST(wrong_arguments_and_older_callers)
{
    larder *map = maps_new();
    larder_latency latency;
    uint8_t small[16];
    ck_assert_int_eq(larder_latency_read(NULL, 0, &latency, sizeof latency), LARDER_EINVAL);
    ck_assert_int_eq(larder_latency_read(map, 0, NULL, 8), LARDER_EINVAL);
    ck_assert_int_eq(larder_latency_read(map, LATENCY_KINDS, &latency, sizeof latency),
                     LARDER_EINVAL);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "5"));
    memset(small, 0xee, sizeof small);
    ck_assert_int_eq(larder_latency_read(map, LARDER_LATENCY_SET, (void *)small, 8), LARDER_OK);
    uint32_t one_in;
    memcpy(&one_in, small + offsetof(larder_latency, one_in), sizeof one_in);
    ck_assert_uint_eq(one_in, SAMPLE_WRITES);
    ck_assert_mem_eq(small + 8, "\xee\xee\xee\xee\xee\xee\xee\xee", 8);
    larder_close(&map);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("latency");
    TCase *tests = tcase_create("latency");
    tcase_add_test(tests, buckets_and_bounds_agree);
    tcase_add_test(tests, quantiles_stand_where_they_should);
    tcase_add_test(tests, calls_are_sampled_by_kind);
    tcase_add_test(tests, wrong_arguments_and_older_callers);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
