/* test_cluster_access.c: who may use a cluster: a user that has but the rights that doc/protocol.md
 * names, nodes that speak TLS alone; and what a refusal does.
 */
#include "tests/redis/certificates.h"
#include "tests/redis/cluster.h"
#include "tests/redis/fleet.h"
#include "tests/redis/rights.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAY (24L * 3600)

static cluster_servers redis;
static host a, b;
static rights_rule rule;

static void at_all_nodes(const char *right)
{
    for (int i = 0; i < redis.count; i++)
        ck_assert(
            harness_redis_says(&redis.nodes[i], "OK", "ACL", "SETUSER", "larder", right, NULL));
}

static void start_cluster(void)
{
    rights_read(&rule, true);
    cluster_start(&redis, 2, false, NULL);
    for (int i = 0; i < redis.count; i++)
        rights_give(&rule, &redis.nodes[i]);
}

static void end_cluster(void)
{
    if (a.map != NULL)
        host_end(&a);
    if (b.map != NULL)
        host_end(&b);
    cluster_end(&redis);
}

static void start_hosts(const char *configuration)
{
    host_start(&a, "a", NULL, cluster_url(&redis, 0, 2), configuration);
    host_start(&b, "b", NULL, cluster_url(&redis, 1, 1), configuration);
    host_in_step(&a);
    host_in_step(&b);
}

static uint64_t calls(const char *command)
{
    uint64_t sum = 0;
    for (int i = 0; i < redis.count; i++)
        sum += redis_calls(&redis.nodes[i], command);
    return sum;
}

static bool has_asked(void *context)
{
    (void)context;
    return calls("asking") > 0;
}

/* Keys of both nodes, a value that must be fetched, invalidations, a slot that moves (ASK). */
static void do_everything(void)
{
    char large[10001], key[24];
    unsigned slot = cluster_slot(&redis, "{move}");
    int to = 1 - cluster_owner(&redis, slot);
    memset(large, 'v', 10000);
    large[10000] = 0;
    for (int i = 0; i < 50; i++) {
        (void)snprintf(key, sizeof key, "k%d", i);
        host_set(i % 2 == 0 ? &a : &b, key, "v");
    }
    for (int i = 0; i < 50; i++) {
        (void)snprintf(key, sizeof key, "k%d", i);
        host_comes_to(i % 2 == 0 ? &b : &a, key, "v");
    }
    host_set(&a, "large", large);
    host_comes_to(&b, "large", large);
    host_delete(&b, "k1");
    host_comes_to(&a, "k1", NULL);
    ck_assert_int_eq(larder_invalidate_prefix(a.map, (larder_bytes){"k2", 2}, NULL), LARDER_OK);
    host_comes_to(&b, "k20", NULL);
    host_set(&a, "{move}", "1");
    host_drained(&a);
    cluster_migrate_begin(&redis, slot, to);
    cluster_migrate_keys(&redis, slot, to);
    host_set(&a, "{move}", "2");
    host_comes_to(&b, "{move}", "2");
    ck_assert(wait_until(has_asked, NULL, PATIENCE_MS));
    cluster_migrate_end(&redis, slot, to);
    host_set(&b, "{move}", "3");
    host_comes_to(&a, "{move}", "3");
    pair_settles(&a, &b);
}

START_TEST(the_rights_are_enough)
{
    start_hosts(rights_configuration());
    do_everything();
    for (int i = 0; i < redis.count; i++)
        rights_sufficed(&redis.nodes[i]);
    ck_assert_uint_gt(calls("cluster|slots"), 0);
    ck_assert_uint_gt(calls("cluster|info"), 0);
}
END_TEST

/* No node tells where the slots are: asking again would change nothing. */
START_TEST(a_missing_right_parks)
{
    at_all_nodes("-cluster|slots");
    host_start(&a, "a", NULL, cluster_url(&redis, 0, 2), rights_configuration());
    host_logs(&a, "cluster|slots");
    host_logs(&a, "parked");
    host_set(&a, "k", "v");
    ck_assert(host_has(&a, "k", "v"));
    host_redis_up(&a, false);
    at_all_nodes("+cluster|slots"); /* put right there, without a restart here */
    cluster_comes_to(&redis, "t:k", "v");
}
END_TEST

/* One that refuses says nothing about those that cannot be reached. */
START_TEST(a_missing_right_at_one_node_does_not_park)
{
    ck_assert(harness_redis_says(&redis.nodes[0], "OK", "ACL", "SETUSER", "larder",
                                 "-cluster|slots", NULL));
    host_start(&a, "a", NULL, cluster_url(&redis, 0, 2), rights_configuration());
    host_set(&a, "k", "v");
    cluster_comes_to(&redis, "t:k", "v"); /* the other one was asked */
    harness_freeze(&redis.nodes[1].process);
    host_redis_up(&a, false);
    harness_thaw(&redis.nodes[1].process);
    cluster_is_well(&redis);
    host_redis_up(&a, true);
    harness_never_logged(&a.larderd.process, "parked");
}
END_TEST

START_TEST(a_wrong_password_parks)
{
    at_all_nodes("<pw");
    at_all_nodes(">other");
    host_start(&a, "a", NULL, cluster_url(&redis, 0, 2), rights_configuration());
    host_logs(&a, "WRONGPASS");
    host_logs(&a, "parked");
    at_all_nodes(">pw");
    host_set(&a, "k", "v");
    cluster_comes_to(&redis, "t:k", "v");
}
END_TEST

/* ---- TLS --------------------------------------------------------------------------------------
 */

static const char *trusting(const char *authority)
{
    static char text[600];
    (void)snprintf(text, sizeof text,
                   "redis = { prefix = \"t:\"; " HOST_QUICK "};\nmap = { size = \"64M\"; };\n"
                   "tls = { ca = \"%s\"; };\n",
                   harness_path("%s.crt", authority));
    return text;
}

static void start_tls_cluster(void)
{
    certificate_make("ca", NULL, NULL, -DAY, 10 * DAY);
    certificate_make("other", NULL, NULL, -DAY, 10 * DAY);
    certificate_make("node", "ca", "IP:127.0.0.1", -DAY, 10 * DAY);
    cluster_start_tls(&redis, 2, "node");
}

START_TEST(a_cluster_with_tls)
{
    start_hosts(trusting("ca"));
    do_everything();
    cluster_comes_to(&redis, "t:k0", "v");
}
END_TEST

START_TEST(an_unknown_issuer_parks)
{
    host_start(&a, "a", NULL, cluster_url(&redis, 0, 2), trusting("other"));
    host_logs(&a, "issuer of the server's certificate is not known");
    host_logs(&a, "parked");
    host_set(&a, "k", "v");
    host_redis_up(&a, false);
    ck_assert(cluster_has(&redis, "t:k", NULL));
    (void)harness_write("a.conf", 0600, trusting("ca"));
    ck_assert_int_eq(kill(a.larderd.process.pid, SIGHUP), 0);
    cluster_comes_to(&redis, "t:k", "v");
}
END_TEST

int main(void)
{
    harness_needs_redis();
    Suite *suite = suite_create("cluster access");
    TCase *user = tcase_create("rights");
    tcase_add_checked_fixture(user, start_cluster, end_cluster);
    tcase_set_timeout(user, 90);
    tcase_add_test(user, the_rights_are_enough);
    tcase_add_test(user, a_missing_right_parks);
    tcase_add_test(user, a_missing_right_at_one_node_does_not_park);
    tcase_add_test(user, a_wrong_password_parks);
    suite_add_tcase(suite, user);
    TCase *tls = tcase_create("TLS");
    tcase_add_checked_fixture(tls, start_tls_cluster, end_cluster);
    tcase_set_timeout(tls, 90);
    tcase_add_test(tls, a_cluster_with_tls);
    tcase_add_test(tls, an_unknown_issuer_parks);
    suite_add_tcase(suite, tls);
    return harness_run(suite);
}
