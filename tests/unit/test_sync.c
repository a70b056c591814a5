/* test_sync.c: the small parts of the protocol: order and back-off. The machine as a whole is put
 * through its paces in tests/sim; the Lua side of the order in tests/redis/test_order.c.
 */
#include "tests/harness.h"

#include "daemon/sync/sync.h"

static replica_record record(uint64_t clock, uint32_t node, enum replica_kind kind, uint64_t hash)
{
    replica_record made = {
        .version = {.clock = clock, .node = node}, .kind = kind, .value_hash = hash};
    return made;
}

START_TEST(order)
{
    replica_record ascending[] = {record(1, 9, REPLICA_DELETED, 9),
                                  record(2, 1, REPLICA_DELETED, 9),
                                  record(2, 2, REPLICA_VALUE, 1),
                                  record(2, 2, REPLICA_VALUE, 2),
                                  record(2, 2, REPLICA_NEGATIVE, 0),
                                  record(2, 2, REPLICA_DELETED, 0),
                                  record(UINT64_MAX - 1, 0, REPLICA_VALUE, 0),
                                  record(UINT64_MAX, 0, REPLICA_VALUE, 0),
                                  record(UINT64_MAX, UINT32_MAX, REPLICA_VALUE, UINT64_MAX)};
    int count = (int)(sizeof ascending / sizeof *ascending);
    for (int i = 0; i < count; i++)
        for (int j = 0; j < count; j++) {
            int found = sync_order(&ascending[i], &ascending[j]);
            ck_assert_msg((found > 0) - (found < 0) == (i > j) - (i < j), "%d against %d", i, j);
        }
}
END_TEST

START_TEST(backoff)
{
    sync_backoff self;
    sync_backoff_init(&self, 100, 5000, 3, 1000, harness_seed());
    int64_t longest = 0;
    for (int round = 0; round < 200; round++) {
        int64_t most = 100;
        for (int i = 0; i < 12; i++) {
            sync_backoff_attempt(&self);
            if (i >= 3)
                ck_assert_int_eq(self.breaker, SYNC_BREAKER_HALF_OPEN);
            int64_t pause = sync_backoff_failed(&self);
            int64_t limit = i >= 2 && most < 1000 ? 1000 : most;
            ck_assert_int_ge(pause, i >= 2 ? 500 : 0);
            ck_assert_int_le(pause, limit);
            ck_assert_int_eq(self.breaker, i >= 2 ? SYNC_BREAKER_OPEN : SYNC_BREAKER_CLOSED);
            longest = pause > longest ? pause : longest;
            most = most * 2 > 5000 ? 5000 : most * 2;
        }
        sync_backoff_worked(&self);
        ck_assert_int_eq(self.breaker, SYNC_BREAKER_CLOSED);
    }
    ck_assert_int_gt(longest, 4000);
}
END_TEST

START_TEST(hosts_do_not_come_back_in_step)
{
    int64_t first[64];
    int same = 0;
    for (int i = 0; i < 64; i++) {
        sync_backoff self;
        sync_backoff_init(&self, 1000, 5000, 3, 1000, harness_seed() + (uint64_t)i);
        first[i] = sync_backoff_failed(&self);
        for (int j = 0; j < i; j++)
            same += first[i] == first[j];
    }
    ck_assert_int_lt(same, 30);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sync");
    TCase *all = tcase_create("sync");
    tcase_add_test(all, order);
    tcase_add_test(all, backoff);
    tcase_add_test(all, hosts_do_not_come_back_in_step);
    suite_add_tcase(suite, all);
    return harness_run(suite);
}
