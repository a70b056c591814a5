/* test_rights.c: the rights that doc/protocol.md names are enough, and each of them is used. The
 * rule is read from the document itself, so that the two cannot part.
 */
#include "tests/redis/fleet.h"
#include "tests/redis/rights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static harness_redis redis;
static host a, b;
static rights_rule rule;

static void setup(void)
{
    rights_read(&rule, false);
    memset(&redis, 0, sizeof redis);
    harness_redis_start(&redis, "redis");
    rights_give(&rule, &redis);
    host_start(&a, "a", &redis, NULL, rights_configuration());
    host_start(&b, "b", &redis, NULL, rights_configuration());
    host_in_step(&a);
    host_in_step(&b);
}

static void teardown(void)
{
    pair_end(&redis, &a, &b);
}

static bool stream_begun(void *context)
{
    (void)context;
    return !harness_redis_says(&redis, "0", "XLEN", "larder:{t:}:events", NULL);
}

/* To the newest 65,536, and beside them the set's id and what stands for the others. */
static bool set_is_cut(void *context)
{
    (void)context;
    char *fields = harness_redis_command(&redis, "HLEN", "larder:{t:}:marks", NULL);
    long count = strtol(fields, NULL, 10);
    free(fields);
    return count > 65536 && count <= 65536 + 4; /* those that came after the cut */
}

/* Invalidations, and a set of them that is full. */
static void invalidate_many(void)
{
    host_set(&a, "later", "v");
    host_comes_to(&b, "later", "v");
    free(harness_redis_command(
        &redis, "EVAL",
        "for i = 1, 98400 do redis.call('HSET', KEYS[1], string.format('m%016x', i),"
        " string.format('%016x', i * 65536)) end return 'OK'",
        "1", "larder:{t:}:marks", NULL));
    ck_assert_int_eq(larder_invalidate_group(a.map, (larder_bytes){"g", 1}, NULL), LARDER_OK);
    ck_assert_int_eq(larder_invalidate_prefix(a.map, (larder_bytes){"la", 2}, NULL), LARDER_OK);
    host_comes_to(&b, "later", NULL);
    ck_assert(wait_until(set_is_cut, NULL, PATIENCE_MS));
    host_set(&a, "larger", "v");
    host_comes_to(&b, "larger", "v");
}

/* Everything that larderd does with Redis, as far as a test can bring it about. */
static void do_everything(void)
{
    char large[10001];
    memset(large, 'v', 10000);
    large[10000] = 0;
    host_redis_up(&a, true);
    host_redis_up(&b, true);
    host_set(&a, "k", "v");
    host_set(&a, "{tag}k", "v"); /* its record's name has another form */
    host_set(&a, "large", large);
    host_comes_to(&b, "k", "v");
    host_comes_to(&b, "{tag}k", "v");
    host_comes_to(&b, "large", large); /* told without its value: fetched */
    large[0] = 'w';
    host_set(&a, "large", large);
    host_comes_to(&b, "large", large);
    host_delete(&b, "k");
    host_comes_to(&a, "k", NULL);
    /* a host that was away, and cannot read of it, pushes what is older, and is told the winner */
    host_stop_daemon(&b);
    host_set(&b, "old", "b");
    (void)usleep(5000); /* two in one millisecond are in the order of their hosts */
    host_set(&a, "old", "a");
    host_drained(&a);
    free(harness_redis_command(&redis, "XTRIM", "larder:{t:}:events", "MAXLEN", "0", NULL));
    host_start_daemon(&b);
    host_comes_to(&b, "old", "a");
    /* a stream that lost its end, and one that is gone */
    free(harness_redis_command(&redis, "XTRIM", "larder:{t:}:events", "MAXLEN", "0", NULL));
    ck_assert(wait_until(stream_begun, NULL, PATIENCE_MS));
    host_set(&a, "k", "2");
    host_comes_to(&b, "k", "2");
    ck_assert(harness_redis_says(&redis, "OK", "FLUSHALL", NULL));
    redis_comes_to(&redis, "t:k", "2");
    ck_assert(harness_redis_says(&redis, "OK", "SCRIPT", "FLUSH", NULL));
    host_set(&b, "k", "3");
    host_comes_to(&a, "k", "3");
    /* no memory: deletions go all the same */
    ck_assert(harness_redis_says(&redis, "OK", "CONFIG", "SET", "maxmemory", "1", NULL));
    host_delete(&a, "large");
    redis_comes_to(&redis, "t:large", NULL);
    ck_assert(harness_redis_says(&redis, "OK", "CONFIG", "SET", "maxmemory", "0", NULL));
    host_drained(&a);
    host_drained(&b);
}

START_TEST(the_rights_are_enough)
{
    do_everything();
    rights_sufficed(&redis);
}
END_TEST

/* A right that nothing uses is not the least. Commands of the test itself are counted, too: it asks
 * with few. */
START_TEST(every_right_is_used)
{
    do_everything();
    invalidate_many();
    for (size_t i = 0; i < rule.count; i++) {
        if (rule.words[i][0] != '+')
            continue;
        if (strcmp(rule.words[i], "+role") == 0) /* where Sentinels are asked: test_sentinel.c */
            continue;
        ck_assert_msg(redis_calls(&redis, rule.words[i] + 1) > 0, "%s is never used",
                      rule.words[i]);
    }
}
END_TEST

/* Those that the document names for a server without scripts, instead of the right to them. */
START_TEST(without_scripts)
{
    static const char *const rights[] = {"-evalsha", "-script|load", "+watch",   "+unwatch",
                                         "+multi",   "+exec",        "+getrange"};
    host_stop_daemon(&a);
    host_stop_daemon(&b);
    for (size_t i = 0; i < sizeof rights / sizeof *rights; i++)
        ck_assert(harness_redis_says(&redis, "OK", "ACL", "SETUSER", "larder", rights[i], NULL));
    ck_assert(harness_redis_says(&redis, "OK", "ACL", "LOG", "RESET", NULL));
    host_start_daemon(&a);
    host_start_daemon(&b);
    host_logs(&a, "it refuses scripts");
    ck_assert(harness_redis_says(&redis, "OK", "CONFIG", "RESETSTAT", NULL));
    free(harness_redis_command(&redis, "ACL", "LOG", "RESET", NULL));
    do_everything();
    /* what is tried at the beginning of each session, and nothing else */
    char *log = harness_redis_command(&redis, "ACL", "LOG", NULL), *rest = log;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;)
        if (strcmp(line, "object") == 0)
            ck_assert_str_eq(strsep(&rest, "\n"), "script|load");
    free(log);
    ck_assert_uint_eq(redis_calls(&redis, "evalsha"), 0);
    for (size_t i = 2; i < sizeof rights / sizeof *rights; i++)
        ck_assert_msg(redis_calls(&redis, rights[i] + 1) > 0, "%s is never used", rights[i]);
}
END_TEST

/* One that is missing is named, whatever it is needed for. */
START_TEST(a_missing_right_is_named)
{
    static const struct {
        const char *right, *named;
    } rights[] = {{"-evalsha", "'evalsha'"},
                  {"-xadd", "which the scripts need"},
                  {"-subscribe", "'subscribe'"},
                  {"-xrevrange", "which the scripts need"}};
    host_redis_up(&a, true);
    for (size_t i = 0; i < sizeof rights / sizeof *rights; i++) {
        ck_assert(
            harness_redis_says(&redis, "OK", "ACL", "SETUSER", "larder", rights[i].right, NULL));
        free(harness_redis_command(&redis, "CLIENT", "KILL", "TYPE", "normal", NULL));
        host_set(&a, "k", rights[i].right);
        host_logs(&a, rights[i].named);
        rights_give(&rule, &redis);
        redis_comes_to(&redis, "t:k", rights[i].right);
    }
}
END_TEST

/* Nothing outside the prefix. */
START_TEST(other_keys_are_out_of_reach)
{
    static const char *const keys[] = {"other", "v:{other}", "larder:{u:}:events", "u:k"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char *answer =
            harness_redis_command(&redis, "ACL", "DRYRUN", "larder", "SET", keys[i], "v", NULL);
        ck_assert_msg(strcmp(answer, "OK") != 0, "%s can be written", keys[i]);
        free(answer);
    }
    ck_assert(harness_redis_says(&redis, "OK", "ACL", "DRYRUN", "larder", "SET", "t:k", "v", NULL));
    static const char *const commands[] = {"FLUSHALL", "KEYS", "SCAN", "CONFIG", "DEBUG"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        char *answer =
            harness_redis_command(&redis, "ACL", "DRYRUN", "larder", commands[i], "*", "*", NULL);
        ck_assert_msg(strcmp(answer, "OK") != 0, "%s is allowed", commands[i]);
        free(answer);
    }
}
END_TEST

int main(void)
{
    harness_needs_redis();
    Suite *suite = suite_create("rights");
    TCase *all = tcase_create("rights");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 90);
    tcase_add_test(all, the_rights_are_enough);
    tcase_add_test(all, every_right_is_used);
    tcase_add_test(all, without_scripts);
    tcase_add_test(all, a_missing_right_is_named);
    tcase_add_test(all, other_keys_are_out_of_reach);
    suite_add_tcase(suite, all);
    return harness_run(suite);
}
