/* test_copy.c: every distance within a page at which parts are used, and their neighbours; no byte
 * beside the target is touched; and the time it is for.
 */
#include "copy.h"

#include <check.h>
#include <stdlib.h>

#include "clock.h"
#include "tests/harness.h"

enum { ROOM = 4 * COPY_PAGE, AROUND = 128, RUNS = 200, TRIES = 20 };

static const size_t sizes[] = {0,    1,    COPY_PART - 1, COPY_PART, COPY_PART + 1, 2 * COPY_PART,
                               2200, 3000, 4072,          COPY_PAGE, 10239};

static uint8_t *from, *to;

static void setup(void)
{
    from = aligned_alloc(COPY_PAGE, ROOM);
    to = aligned_alloc(COPY_PAGE, ROOM);
    ck_assert(from != NULL && to != NULL);
    for (size_t i = 0; i < ROOM; i++) {
        from[i] = (uint8_t)(i * 2654435761U >> 13);
    }
}

static void teardown(void)
{
    free(from);
    free(to);
}

START_TEST(all_bytes_and_no_other)
{
    for (size_t above = 0; above <= 2 * AROUND; above++) { /* 128 below to 128 above */
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            const uint8_t *source = from + AROUND;
            uint8_t *target = to + above;
            memset(to, 0xA5, ROOM);
            copy_bytes(target, source, sizes[i]);
            ck_assert(memcmp(target, source, sizes[i]) == 0);
            for (size_t at = 0; at < AROUND; at++) {
                ck_assert(target[sizes[i] + at] == 0xA5);
                ck_assert(at >= above || to[at] == 0xA5);
            }
        }
    }
}
END_TEST

START_TEST(what_is_near_above)
{
    ck_assert(!copy_is_near_above(to + 100, from + 100));
    ck_assert(copy_is_near_above(to + 101, from + 100));
    ck_assert(copy_is_near_above(to + 163, from + 100));
    ck_assert(!copy_is_near_above(to + 164, from + 100));
    ck_assert(!copy_is_near_above(to + 99, from + 100));
    ck_assert(copy_is_near_above(to + 8, from + COPY_PAGE - 8)); /* across a page's end */
}
END_TEST

static uint64_t copy_ns(size_t above)
{
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < TRIES; i++) {
        uint64_t began = (uint64_t)clock_monotonic_ns();
        for (int run = 0; run < RUNS; run++) {
            copy_bytes(to + 24 + above, from + 24, COPY_PAGE);
        }
        uint64_t took = (uint64_t)clock_monotonic_ns() - began;
        best = took < best ? took : best;
    }
    return best;
}

/* With memcpy() alone it is 25 times as long on a processor that is slow there. */
START_TEST(no_distance_is_slow)
{
    uint64_t usual = copy_ns(1024);
    for (size_t above = 1; above < COPY_NEAR; above += 7) {
        ck_assert_uint_lt(copy_ns(above), usual * 6);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("copy");
    TCase *tests = tcase_create("copy");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, all_bytes_and_no_other);
    tcase_add_test(tests, what_is_near_above);
    tcase_add_test(tests, no_distance_is_slow);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
