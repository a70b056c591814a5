/* test_order.c: the push script decides between two entries as sync_order() does, for versions
 * whose parts differ anywhere, also where a double could not tell them apart.
 */
#include "tests/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/script.h"
#include "daemon/redis/wire.h"

static harness_redis redis;
static char sha[64];

static void setup(void)
{
    memset(&redis, 0, sizeof redis);
    harness_redis_start(&redis, "redis");
    char *loaded = harness_redis_command(&redis, "SCRIPT", "LOAD", script_text(SCRIPT_PUSH), NULL);
    ck_assert_uint_eq(strlen(loaded), 40);
    (void)snprintf(sha, sizeof sha, "%s", loaded);
    free(loaded);
    free(harness_redis_command(&redis, "XADD", "s", "5-0", "e", "begin", NULL));
}

static void teardown(void)
{
    harness_redis_end(&redis);
}

static char *push(const char *record, const char *value, const char *epoch, const char *quiet)
{
    return harness_redis_command(&redis, "EVALSHA", sha, "3", "k", "v:{k}", "s", record, "event",
                                 "0", "s", "", "", epoch, "1000", "c", quiet, "100", value, NULL);
}

/* Which one is there after a and b were pushed in this order? */
static void expect_winner(const replica_record *a, const replica_record *b)
{
    char first[WIRE_RECORD_MAX], second[WIRE_RECORD_MAX];
    (void)wire_record(a, first);
    (void)wire_record(b, second);
    free(harness_redis_command(&redis, "DEL", "k", "v:{k}", NULL));
    char *stored = push(first, "first", "5-*", "");
    ck_assert_str_eq(stored, "1");
    free(stored);
    char *answer = push(second, "second", "5-*", "q");
    int order = sync_order(a, b);
    const char *expected = order < 0 ? "1" : order == 0 ? "2" : first;
    ck_assert_msg(strncmp(answer, expected, strlen(expected)) == 0, "%s, then %s: %s", first,
                  second, answer);
    if (order > 0)
        ck_assert_msg(strstr(answer, "first") != NULL, "the winner's value is missing: %s", answer);
    ck_assert(harness_redis_says(&redis, order < 0 ? "second" : "first", "GET", "k", NULL));
    free(answer);
}

START_TEST(every_part_counts)
{
    replica_record base = {.version = {.clock = 0x0123456789abcdefu, .node = 0x76543210u},
                           .kind = REPLICA_NEGATIVE,
                           .value_hash = 0xfedcba9876543210u,
                           .expires_at_ms = INT64_MAX};
    for (int bit = 0; bit < 64; bit++) {
        replica_record other = base;
        other.version.clock ^= (uint64_t)1 << bit;
        expect_winner(&base, &other);
        expect_winner(&other, &base);
        other = base;
        other.value_hash ^= (uint64_t)1 << bit;
        expect_winner(&base, &other);
        expect_winner(&other, &base);
        other = base;
        other.version.node ^= (uint32_t)1 << (bit % 32);
        expect_winner(&base, &other);
        expect_winner(&other, &base);
    }
    for (int kind = REPLICA_VALUE; kind <= REPLICA_DELETED; kind++) {
        replica_record other = base;
        other.kind = (enum replica_kind)kind;
        expect_winner(&base, &other);
        expect_winner(&other, &base);
    }
    expect_winner(&base, &base);
}
END_TEST

START_TEST(chance)
{
    uint64_t random = harness_seed();
    for (int i = 0; i < 300; i++) {
        replica_record pair[2];
        memset(pair, 0, sizeof pair);
        for (int j = 0; j < 2; j++) {
            pair[j].version.clock = 0xfffffffffffffff0u | harness_random(&random);
            pair[j].version.node = (uint32_t)(harness_random(&random) % 2);
            pair[j].kind = (enum replica_kind)(1 + harness_random(&random) % 3);
            pair[j].value_hash = harness_random(&random);
            pair[j].expires_at_ms = INT64_MAX;
        }
        expect_winner(&pair[0], &pair[1]);
    }
}
END_TEST

START_TEST(nothing_is_written_without_the_stream)
{
    replica_record record = {
        .version = {.clock = 1, .node = 1}, .kind = REPLICA_VALUE, .expires_at_ms = INT64_MAX};
    char text[WIRE_RECORD_MAX];
    (void)wire_record(&record, text);
    char *answer = push(text, "v", "4-*", ""); /* a newer epoch stands there */
    ck_assert_str_eq(answer, "4");
    free(answer);
    free(harness_redis_command(&redis, "DEL", "s", NULL));
    answer = push(text, "v", "5-*", "");
    ck_assert_str_eq(answer, "4");
    free(answer);
    ck_assert(harness_redis_says(&redis, "0", "EXISTS", "k", "v:{k}", "s", NULL));
}
END_TEST

/* Joining for a host that was at that place: the epoch of the stream then. */
static uint64_t joined_epoch(const char *at)
{
    char join[64];
    char *answer = harness_redis_command(&redis, "SCRIPT", "LOAD", script_text(SCRIPT_JOIN), NULL);
    (void)snprintf(join, sizeof join, "%s", answer);
    free(answer);
    free(harness_redis_command(&redis, "EVALSHA", join, "1", "s", at, "begin", "c", NULL));
    answer = harness_redis_command(
        &redis, "EVAL", "return redis.call('XREVRANGE', KEYS[1], '+', '-')[1][1]", "1", "s", NULL);
    char *end;
    uint64_t epoch = strtoull(answer, &end, 10);
    ck_assert_msg(strcmp(end, "-0") == 0, "%s", answer);
    free(answer);
    return epoch;
}

/* Else who knew the first would go on in the second as if it were the same. */
START_TEST(streams_that_begin_in_one_millisecond_have_their_own_epochs)
{
    uint64_t before = 0;
    for (int i = 0; i < 200; i++) {
        free(harness_redis_command(&redis, "UNLINK", "s", NULL));
        uint64_t epoch = joined_epoch("");
        ck_assert_uint_gt(epoch, before);
        before = epoch;
    }
}
END_TEST

/* However far behind the server's clock may be. */
START_TEST(epochs_only_rise)
{
    free(harness_redis_command(&redis, "UNLINK", "s", NULL));
    uint64_t first = joined_epoch("9000000000000000-5");
    ck_assert_uint_gt(first, UINT64_C(9000000000000000));
    ck_assert_uint_eq(joined_epoch("17-5"), first); /* there is one */
    free(harness_redis_command(&redis, "XTRIM", "s", "MAXLEN", "0", NULL));
    ck_assert_uint_gt(joined_epoch(""), first);
}
END_TEST

START_TEST(an_epoch_that_was_over_is_not_begun_anew)
{
    replica_record record = {
        .version = {.clock = 1, .node = 1}, .kind = REPLICA_VALUE, .expires_at_ms = INT64_MAX};
    char text[WIRE_RECORD_MAX];
    (void)wire_record(&record, text);
    char *answer = push(text, "v", "6-*", ""); /* an older epoch stands there */
    ck_assert_str_eq(answer, "4");
    free(answer);
    ck_assert(harness_redis_says(&redis, "0", "EXISTS", "k", "v:{k}", "s", NULL));
}
END_TEST

START_TEST(foreign_record_is_left_alone)
{
    free(harness_redis_command(&redis, "SET", "v:{k}", "2something of the future", NULL));
    replica_record record = {
        .version = {.clock = 1, .node = 1}, .kind = REPLICA_VALUE, .expires_at_ms = INT64_MAX};
    char text[WIRE_RECORD_MAX];
    (void)wire_record(&record, text);
    char *answer = push(text, "v", "5-*", "");
    ck_assert_msg(strncmp(answer, "-FORMAT", 7) == 0, "%s", answer);
    free(answer);
    ck_assert(harness_redis_says(&redis, NULL, "GET", "k", NULL));
}
END_TEST

int main(void)
{
    harness_needs_redis();
    Suite *suite = suite_create("order");
    TCase *all = tcase_create("script");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 60);
    tcase_add_test(all, every_part_counts);
    tcase_add_test(all, chance);
    tcase_add_test(all, nothing_is_written_without_the_stream);
    tcase_add_test(all, streams_that_begin_in_one_millisecond_have_their_own_epochs);
    tcase_add_test(all, epochs_only_rise);
    tcase_add_test(all, an_epoch_that_was_over_is_not_begun_anew);
    tcase_add_test(all, foreign_record_is_left_alone);
    suite_add_tcase(suite, all);
    return harness_run(suite);
}
