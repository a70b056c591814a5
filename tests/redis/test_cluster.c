/* test_cluster.c: two hosts on a real Redis Cluster: keys and the event stream on several nodes,
 * slots that move, masters that die, restart empty, or are replaced; afterwards everything is
 * everywhere.
 */
#include "tests/redis/cluster.h"
#include "tests/redis/fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/names.h"

static cluster_servers redis;
static host a, b;

static void start_hosts(void)
{
    host_start(&a, "a", NULL, cluster_url(&redis, 0, redis.masters), NULL);
    host_start(&b, "b", NULL, cluster_url(&redis, 1, 1), NULL);
    host_in_step(&a);
    host_in_step(&b);
}

static void setup(void)
{
    cluster_start(&redis, 3, false, NULL);
    start_hosts();
}

static void setup_with_replicas(void)
{
    cluster_start(&redis, 3, true, NULL);
    start_hosts();
}

static void teardown(void)
{
    host_end(&a);
    host_end(&b);
    cluster_end(&redis);
}

static void fill(host *self, const char *prefix, int count, const char *value)
{
    char key[48];
    for (int i = 0; i < count; i++) {
        (void)snprintf(key, sizeof key, "%s%d", prefix, i);
        host_set(self, key, value);
    }
}

static void expect_filled(host *self, const char *prefix, int count, const char *value)
{
    char key[48];
    for (int i = 0; i < count; i++) {
        (void)snprintf(key, sizeof key, "%s%d", prefix, i);
        host_comes_to(self, key, value);
    }
}

static void expect_in_redis(const char *prefix, int count, const char *value)
{
    char name[64];
    for (int i = 0; i < count; i++) {
        (void)snprintf(name, sizeof name, "t:%s%d", prefix, i);
        cluster_comes_to(&redis, name, value);
    }
}

static unsigned stream_slot(void)
{
    char stream[NAMES_FLEET_MAX];
    names_fleet("t:", "events", stream, sizeof stream);
    return cluster_slot(&redis, stream);
}

START_TEST(slots_are_those_of_redis)
{
    static const char *const keys[] = {
        "",      "a",  "foo{bar}baz", "{}x",          "{a}{b}",   "x{{y}}z",
        "v:{k}", "}{", "a{b",         "t:{user:1}:x", "\xc3\xa4", "larder:{t:}:events"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        ck_assert_uint_eq(names_slot((const uint8_t *)keys[i], strlen(keys[i])),
                          cluster_slot(&redis, keys[i]));
    uint64_t random = harness_seed();
    for (int i = 0; i < 300; i++) {
        char key[40];
        int size = 1 + (int)(harness_random(&random) % 30);
        for (int k = 0; k < size; k++)
            key[k] = "{}ab%:7"[harness_random(&random) % 7];
        key[size] = 0;
        ck_assert_msg(names_slot((const uint8_t *)key, (size_t)size) == cluster_slot(&redis, key),
                      "%s", key);
    }
}
END_TEST

START_TEST(two_hosts_converge)
{
    static char large[5000];
    memset(large, 'x', sizeof large - 1);
    fill(&a, "a", 300, "of a");
    fill(&b, "b", 300, "of b");
    fill(&a, "large", 10, large);
    fill(&a, "{tag}k", 20, "tagged");
    expect_filled(&b, "a", 300, "of a");
    expect_filled(&a, "b", 300, "of b");
    expect_filled(&b, "large", 10, large);
    expect_in_redis("a", 300, "of a");
    expect_in_redis("{tag}k", 20, "tagged");
    for (int i = 0; i < 100; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "a%d", i);
        host_delete(&b, key);
    }
    expect_filled(&a, "a", 100, NULL);
    expect_in_redis("a", 100, NULL);
    host_drained(&a);
    host_drained(&b);
    for (int i = 0; i < redis.masters; i++) { /* all of them have a share in it */
        char *size = harness_redis_command(&redis.nodes[i], "DBSIZE", NULL);
        ck_assert_int_gt(strtol(size, NULL, 10), 100);
        free(size);
    }
}
END_TEST

/* Both write the same keys at once: the event of the older may come after that of the newer. */
START_TEST(contended_keys_converge)
{
    char key[16], value[32];
    uint64_t random = harness_seed();
    for (int i = 0; i < 4000; i++) {
        host *self = harness_random(&random) % 2 != 0 ? &a : &b;
        (void)snprintf(key, sizeof key, "k%d", (int)(harness_random(&random) % 40));
        (void)snprintf(value, sizeof value, "%d", i);
        if (harness_random(&random) % 10 == 0)
            host_delete(self, key);
        else
            host_set(self, key, value);
    }
    pair_settles(&a, &b);
    for (int k = 0; k < 40; k++) {
        char name[24], *found;
        (void)snprintf(key, sizeof key, "k%d", k);
        (void)snprintf(name, sizeof name, "t:k%d", k);
        int owner = cluster_owner(&redis, cluster_slot(&redis, name));
        found = harness_redis_command(&redis.nodes[owner], "GET", name, NULL);
        host_comes_to(&a, key, found);
        host_comes_to(&b, key, found);
        free(found);
    }
}
END_TEST

/* Half of the keys of a slot here, half there, new ones in between; then it has moved. */
START_TEST(slot_moves_while_written)
{
    unsigned slot = cluster_slot(&redis, "{move}");
    int from = cluster_owner(&redis, slot), to = (from + 1) % redis.masters;
    fill(&a, "{move}old", 50, "1");
    host_drained(&a);
    cluster_migrate_begin(&redis, slot, to);
    fill(&a, "{move}old", 25, "2"); /* still there */
    fill(&b, "{move}new", 50, "1"); /* in neither place */
    fill(&a, "other", 200, "1");    /* nobody else waits for them */
    expect_filled(&b, "other", 200, "1");
    cluster_migrate_keys(&redis, slot, to);
    fill(&a, "{move}old", 50, "3"); /* all over there, where only who asks gets them */
    expect_filled(&b, "{move}old", 50, "3");
    cluster_migrate_end(&redis, slot, to);
    expect_filled(&a, "{move}new", 50, "1");
    fill(&b, "{move}old", 10, "4");
    expect_filled(&a, "{move}old", 10, "4");
    host_drained(&a);
    host_drained(&b);
    expect_in_redis("{move}old", 10, "4");
    expect_in_redis("{move}new", 50, "1");
    ck_assert_int_eq(cluster_owner(&redis, slot), to);
}
END_TEST

START_TEST(stream_moves_while_written)
{
    unsigned slot = stream_slot();
    int from = cluster_owner(&redis, slot), to = (from + 1) % redis.masters;
    fill(&a, "before", 50, "1");
    expect_filled(&b, "before", 50, "1");
    cluster_migrate_begin(&redis, slot, to);
    fill(&a, "during", 50, "1");
    expect_filled(&b, "during", 50, "1");
    cluster_migrate_keys(&redis, slot, to);
    fill(&b, "moved", 50, "1");
    expect_filled(&a, "moved", 50, "1");
    cluster_migrate_end(&redis, slot, to);
    fill(&a, "after", 50, "1");
    expect_filled(&b, "after", 50, "1");
    host_drained(&a);
    host_drained(&b);
}
END_TEST

/* More of them than one page of the set has. */
START_TEST(invalidations_travel)
{
    char name[24], key[24];
    for (int i = 0; i < 200; i++) {
        (void)snprintf(name, sizeof name, "tag %d", i);
        (void)snprintf(key, sizeof key, "k%d", i);
        larder_bytes tag = {name, strlen(name)};
        larder_policy policy = {.tags = &tag, .tag_count = 1};
        ck_assert_int_eq(larder_set(a.map, key, strlen(key), "v", 1, &policy), LARDER_OK);
    }
    expect_filled(&b, "k", 200, "v");
    host_stop_daemon(&b);
    for (int i = 0; i < 200; i++) {
        (void)snprintf(name, sizeof name, "tag %d", i);
        ck_assert_int_eq(larder_invalidate_tag(a.map, (larder_bytes){name, strlen(name)}, NULL),
                         LARDER_OK);
    }
    host_drained(&a);
    host_start_daemon(&b); /* a larderd that begins reads the whole set */
    expect_filled(&b, "k", 200, NULL);
    host_set(&b, "after", "it");
    host_comes_to(&a, "after", "it");
}
END_TEST

/* One that holds keys, or the one that holds the stream. */
START_TEST(node_restarts_empty)
{
    int of_stream = cluster_owner(&redis, stream_slot());
    int node = _i == 0 ? of_stream : (of_stream + 1) % redis.masters;
    fill(&a, "k", 300, "1");
    fill(&b, "gone", 50, "1");
    expect_filled(&b, "k", 300, "1");
    expect_filled(&a, "gone", 50, "1");
    host_drained(&a);
    host_drained(&b);
    harness_redis_kill(&redis.nodes[node]);
    host_redis_up(&a, false);
    host_redis_up(&b, false);
    fill(&a, "during", 100, "1");
    for (int i = 0; i < 50; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "gone%d", i);
        host_delete(&b, key);
    }
    ck_assert(host_has(&a, "k7", "1"));
    harness_redis_restart(&redis.nodes[node]);
    cluster_is_well(&redis);
    expect_filled(&b, "during", 100, "1");
    expect_filled(&a, "gone", 50, NULL);
    host_drained(&a);
    host_drained(&b);
    expect_in_redis("k", 300, "1");
    expect_in_redis("during", 100, "1");
    expect_in_redis("gone", 50, NULL);
}
END_TEST

/* Nobody is told, and the stream is elsewhere; the rolling comparison takes its ten minutes. */
START_TEST(node_is_flushed)
{
    int node = (cluster_owner(&redis, stream_slot()) + 1) % redis.masters;
    const char *how = _i == 0 ? "FLUSHALL" : "FLUSHDB";
    fill(&a, "k", 300, "1");
    fill(&b, "gone", 50, "1");
    expect_filled(&b, "k", 300, "1");
    expect_filled(&a, "gone", 50, "1");
    for (int i = 0; i < 50; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "gone%d", i);
        host_delete(&b, key);
    }
    expect_filled(&a, "gone", 50, NULL);
    host_drained(&a);
    host_drained(&b);
    free(harness_redis_command(&redis.nodes[node], how, NULL));
    expect_in_redis("k", 300, "1");
    expect_in_redis("gone", 50, NULL);
    host_logs(&a, "was flushed");
    expect_filled(&b, "gone", 50, NULL);
}
END_TEST

START_TEST(cluster_goes_and_returns)
{
    fill(&a, "k", 100, "1");
    expect_filled(&b, "k", 100, "1");
    for (int i = 0; i < redis.masters; i++)
        harness_redis_kill(&redis.nodes[i]);
    host_redis_up(&a, false);
    host_redis_up(&b, false);
    fill(&a, "k", 50, "2");
    fill(&b, "during", 50, "1");
    for (int i = 0; i < redis.masters; i++)
        harness_redis_restart(&redis.nodes[i]);
    cluster_is_well(&redis);
    expect_filled(&b, "k", 50, "2");
    expect_filled(&a, "during", 50, "1");
    host_drained(&a);
    host_drained(&b);
    expect_in_redis("k", 50, "2");
}
END_TEST

static bool has_new_owner(void *context)
{
    int *old = context;
    unsigned slot = CLUSTER_SLOTS * (unsigned)*old / (unsigned)redis.masters;
    int owner = cluster_owner(&redis, slot);
    return owner >= 0 && owner != *old;
}

/* A master is killed, its replica takes its place; the old one returns as a replica. */
START_TEST(replica_takes_over)
{
    int of_stream = cluster_owner(&redis, stream_slot());
    int node = _i == 0 ? of_stream : (of_stream + 1) % redis.masters;
    fill(&a, "k", 200, "1");
    expect_filled(&b, "k", 200, "1");
    host_drained(&a);
    harness_redis_kill(&redis.nodes[node]);
    host_redis_up(&a, false);
    fill(&a, "k", 100, "2");
    fill(&b, "during", 100, "1");
    ck_assert_msg(wait_until(has_new_owner, &node, 20000), "nobody took over");
    expect_filled(&b, "k", 100, "2");
    expect_filled(&a, "during", 100, "1");
    harness_redis_restart(&redis.nodes[node]);
    fill(&b, "k", 50, "3");
    expect_filled(&a, "k", 50, "3");
    host_drained(&a);
    host_drained(&b);
    expect_in_redis("k", 50, "3");
    expect_in_redis("during", 100, "1");
}
END_TEST

/* By hand, nothing is lost and nobody is disconnected: only redirections tell of it. */
START_TEST(replica_is_promoted)
{
    fill(&a, "k", 100, "1");
    expect_filled(&b, "k", 100, "1");
    for (int i = 0; i < redis.masters; i++) {
        char *done =
            harness_redis_command(&redis.nodes[redis.masters + i], "CLUSTER", "FAILOVER", NULL);
        ck_assert_str_eq(done, "OK");
        free(done);
        ck_assert_msg(wait_until(has_new_owner, &i, 20000), "nobody took over");
        fill(&a, "k", 100, i % 2 == 0 ? "2" : "3");
        expect_filled(&b, "k", 100, i % 2 == 0 ? "2" : "3");
    }
    host_drained(&a);
    expect_in_redis("k", 100, "2");
}
END_TEST

/* Killed while it stores and tells, again and again: what is stored is told in the end. */
START_TEST(larderd_killed)
{
    char prefix[16];
    for (int round = 0; round < 6; round++) {
        (void)snprintf(prefix, sizeof prefix, "r%d-", round);
        fill(&a, prefix, 300, "1");
        host_kill_daemon(&a);
        host_start_daemon(&a);
    }
    for (int round = 0; round < 6; round++) {
        (void)snprintf(prefix, sizeof prefix, "r%d-", round);
        expect_filled(&b, prefix, 300, "1");
    }
    host_drained(&a);
}
END_TEST

/* All nodes of the URL but one are gone for ever. */
START_TEST(any_seed_will_do)
{
    char url[200];
    host c;
    (void)snprintf(url, sizeof url, "redis-cluster://127.0.0.1:1,127.0.0.1:2,127.0.0.1:%s",
                   redis.ports[2]);
    host_start(&c, "c", NULL, url, NULL);
    host_redis_up(&c, true);
    host_set(&c, "k", "v");
    host_comes_to(&a, "k", "v");
    host_end(&c);
}
END_TEST

START_TEST(no_cluster_is_told)
{
    harness_redis single;
    char url[200];
    host c;
    const char *extra[] = {"--port", redis.bus_ports[CLUSTER_NODES_MAX - 1], NULL};
    memset(&single, 0, sizeof single);
    (void)snprintf(redis.bus_ports[CLUSTER_NODES_MAX - 1], 8, "%ld",
                   20000 + (long)(harness_seed() % 10000));
    single.extra = extra;
    harness_redis_start(&single, "single");
    (void)snprintf(url, sizeof url, "redis-cluster://127.0.0.1:%s", extra[1]);
    host_start(&c, "c", NULL, url, NULL);
    host_logs(&c, "not one of a cluster");
    host_end(&c);
    harness_redis_end(&single);
}
END_TEST

int main(void)
{
    harness_needs_redis();
    Suite *suite = suite_create("cluster");
    TCase *masters = tcase_create("three masters");
    tcase_add_checked_fixture(masters, setup, teardown);
    tcase_set_timeout(masters, 90);
    tcase_add_test(masters, slots_are_those_of_redis);
    tcase_add_test(masters, two_hosts_converge);
    tcase_add_test(masters, invalidations_travel);
    tcase_add_test(masters, contended_keys_converge);
    tcase_add_test(masters, slot_moves_while_written);
    tcase_add_test(masters, stream_moves_while_written);
    tcase_add_loop_test(masters, node_restarts_empty, 0, 2);
    tcase_add_loop_test(masters, node_is_flushed, 0, 2);
    tcase_add_test(masters, cluster_goes_and_returns);
    tcase_add_test(masters, larderd_killed);
    tcase_add_test(masters, any_seed_will_do);
    tcase_add_test(masters, no_cluster_is_told);
    suite_add_tcase(suite, masters);
    TCase *replicas = tcase_create("with replicas");
    tcase_add_checked_fixture(replicas, setup_with_replicas, teardown);
    tcase_set_timeout(replicas, 120);
    tcase_add_loop_test(replicas, replica_takes_over, 0, 2);
    tcase_add_test(replicas, replica_is_promoted);
    suite_add_tcase(suite, replicas);
    return harness_run(suite);
}
