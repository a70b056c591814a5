/* test_marks.c: invalidations of many (groups, tags, prefixes, patterns, all) between two hosts on
 * one Redis: each way, through an outage, a server that has forgotten all, daemons that die.
 */
#include "tests/redis/fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static void set_marked(host *self, const char *key, const char *value, const char *group,
                       const char *tag)
{
    larder_bytes tags = {tag, tag == NULL ? 0 : strlen(tag)};
    larder_policy policy = {.group = {group, group == NULL ? 0 : strlen(group)},
                            .tags = tag == NULL ? NULL : &tags,
                            .tag_count = tag != NULL};
    int result = larder_set(self->map, key, strlen(key), value, strlen(value), &policy);
    ck_assert_msg(result == LARDER_OK, "%s", larder_last_error());
}

static larder_bytes text(const char *name)
{
    return (larder_bytes){name, strlen(name)};
}

static void invalidate_group(host *self, const char *name)
{
    ck_assert_int_eq(larder_invalidate_group(self->map, text(name), NULL), LARDER_OK);
}

/* On both, and in Redis. */
static void everywhere(const char *key, const char *value)
{
    char name[64];
    host_comes_to(&a, key, value);
    host_comes_to(&b, key, value);
    (void)snprintf(name, sizeof name, "t:%s", key);
    redis_comes_to(&redis, name, value);
}

/* Nothing is older than it, so that what comes after is what it tells. */
static void in_step(void)
{
    static int count;
    char value[16];
    (void)snprintf(value, sizeof value, "%d", ++count);
    host_set(&a, "step a", value);
    host_set(&b, "step b", value);
    host_comes_to(&b, "step a", value);
    host_comes_to(&a, "step b", value);
}

START_TEST(groups_and_tags_travel)
{
    set_marked(&a, "1", "one", "g", "t");
    set_marked(&b, "2", "two", "g", NULL);
    set_marked(&b, "3", "three", NULL, "t");
    host_set(&a, "4", "four");
    everywhere("1", "one");
    everywhere("2", "two");
    everywhere("3", "three");
    invalidate_group(&b, "g");
    ck_assert(host_has(&b, "1", NULL));
    everywhere("1", NULL);
    everywhere("2", NULL);
    everywhere("3", "three");
    ck_assert_int_eq(larder_invalidate_tag(a.map, text("t"), NULL), LARDER_OK);
    everywhere("3", NULL);
    everywhere("4", "four");
    /* and what is written after it is not older */
    set_marked(&a, "1", "uno", "g", "t");
    everywhere("1", "uno");
}
END_TEST

START_TEST(clear_travels)
{
    host_set(&a, "1", "one");
    host_set(&b, "2", "two");
    everywhere("1", "one");
    everywhere("2", "two");
    ck_assert_int_eq(larder_clear(b.map), LARDER_OK);
    host_set(&b, "3", "three");
    everywhere("1", NULL);
    everywhere("2", NULL);
    everywhere("3", "three");
}
END_TEST

/* Also to keys that the host where it was made does not hold. */
START_TEST(prefix_and_pattern_travel)
{
    char key[32], many[32];
    for (int i = 0; i < 500; i++) {
        (void)snprintf(many, sizeof many, "user:%d", i);
        host_set(&b, many, "v");
    }
    host_set(&b, "users", "all");
    host_set(&a, "x-1-y", "v");
    host_set(&a, "x-2-z", "w");
    host_comes_to(&a, "user:499", "v");
    everywhere("x-1-y", "v");
    everywhere("x-2-z", "w");
    /* a forgets what it has of them, as if they had been evicted long ago */
    host_stop_daemon(&a);
    larder_close(&a.map);
    char command[200];
    (void)snprintf(command, sizeof command, "rm -rf %s/m", a.directory);
    ck_assert_int_eq(system(command), 0);
    host_start(&a, "a", &redis, NULL, NULL);
    host_redis_up(&a, true);
    in_step();
    uint64_t count = 77;
    ck_assert_int_eq(larder_invalidate_prefix(a.map, text("user:"), &count), LARDER_OK);
    for (int i = 0; i < 500; i += 7) {
        (void)snprintf(key, sizeof key, "user:%d", i);
        everywhere(key, NULL);
    }
    host_set(&a, "user:1", "anew");
    everywhere("user:1", "anew");
    host_comes_to(&b, "users", "all");
    ck_assert_int_eq(larder_invalidate_match(b.map, text("x-?-y"), NULL), LARDER_OK);
    everywhere("x-1-y", NULL);
    host_comes_to(&b, "x-2-z", "w");
    redis_comes_to(&redis, "t:x-2-z", "w");
}
END_TEST

/* What was made while Redis was away comes to the others when it is back, in spite of a daemon that
 * was killed meanwhile; whether Redis has forgotten all (0) or nothing (1). */
START_TEST(outage_loses_none)
{
    set_marked(&a, "1", "one", "g", NULL);
    host_set(&a, "p:1", "v");
    everywhere("1", "one");
    everywhere("p:1", "v");
    host_drained(&a);
    if (_i == 0)
        harness_redis_kill(&redis);
    else
        harness_freeze(&redis.process);
    host_redis_up(&b, false);
    invalidate_group(&b, "g");
    ck_assert_int_eq(larder_invalidate_prefix(b.map, text("p:"), NULL), LARDER_OK);
    host_kill_daemon(&b);
    invalidate_group(&b, "h");
    host_start_daemon(&b);
    if (_i == 0)
        harness_redis_restart(&redis);
    else
        harness_thaw(&redis.process);
    everywhere("1", NULL);
    everywhere("p:1", NULL);
    set_marked(&a, "1", "uno", "g", NULL);
    everywhere("1", "uno");
}
END_TEST

/* A host that was away learns of what happened, though the stream does not tell any more. */
START_TEST(absent_host_catches_up)
{
    set_marked(&b, "1", "one", "g", NULL);
    host_set(&b, "p:1", "v");
    everywhere("1", "one");
    everywhere("p:1", "v");
    host_stop_daemon(&b);
    invalidate_group(&a, "g");
    ck_assert_int_eq(larder_invalidate_prefix(a.map, text("p:"), NULL), LARDER_OK);
    redis_comes_to(&redis, "t:1", NULL);
    redis_comes_to(&redis, "t:p:1", NULL);
    free(harness_redis_command(&redis, "XTRIM", "larder:{t:}:events", "MAXLEN", "0", NULL));
    /* Redis has the removals' records, too: as if T were over */
    free(harness_redis_command(&redis, "DEL", "v:{t:1}", "v:{t:p:1}", NULL));
    ck_assert(host_has(&b, "1", "one"));
    host_start_daemon(&b);
    everywhere("1", NULL);
    everywhere("p:1", NULL);
}
END_TEST

START_TEST(flushed_set_is_filled_again)
{
    set_marked(&a, "1", "one", "g", NULL);
    everywhere("1", "one");
    invalidate_group(&a, "g");
    ck_assert_int_eq(larder_invalidate_prefix(b.map, text("q:"), NULL), LARDER_OK);
    everywhere("1", NULL);
    in_step();
    free(harness_redis_command(&redis, "FLUSHALL", NULL));
    in_step();
    char *fields = NULL;
    int64_t until = harness_now_ms() + harness_patience(PATIENCE_MS);
    do {
        free(fields);
        fields = harness_redis_command(&redis, "HLEN", "larder:{t:}:marks", NULL);
        ck_assert_msg(harness_now_ms() < until, "the set has %s fields", fields);
    } while (strtol(fields, NULL, 10) != 3); /* its id, the group, the prefix */
    free(fields);
    /* the set alone goes */
    free(harness_redis_command(&redis, "DEL", "larder:{t:}:marks", NULL));
    do {
        fields = harness_redis_command(&redis, "HLEN", "larder:{t:}:marks", NULL);
        ck_assert_msg(harness_now_ms() < until, "the set has %s fields", fields);
    } while (strtol(fields, NULL, 10) != 3 && (free(fields), true));
    free(fields);
    /* a third host learns of both from it */
    host c;
    host_start(&c, "c", &redis, NULL, NULL);
    host_redis_up(&c, true);
    host_comes_to(&c, "step a", NULL); /* nothing is fetched that nobody has asked for */
    host_end(&c);
}
END_TEST

/* A plain value is taken away for other clients, too, but no newer one. */
START_TEST(plain_values_go)
{
    set_marked(&a, "1", "one", "g", NULL);
    everywhere("1", "one");
    invalidate_group(&a, "g");
    set_marked(&b, "2", "two", "g", NULL);
    redis_comes_to(&redis, "t:1", NULL);
    in_step();
    invalidate_group(&a, "g");
    set_marked(&a, "2", "dos", "g", NULL);
    everywhere("2", "dos");
    in_step();
    everywhere("2", "dos");
}
END_TEST

START_TEST(nothing_is_told_twice)
{
    for (int i = 0; i < 200; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "g%d", i);
        invalidate_group(i % 2 == 0 ? &a : &b, name);
    }
    int64_t until = harness_now_ms() + harness_patience(PATIENCE_MS);
    char *length = NULL;
    do {
        free(length);
        length = harness_redis_command(&redis, "HLEN", "larder:{t:}:marks", NULL);
        ck_assert_msg(harness_now_ms() < until, "%s marks arrived", length);
    } while (strtol(length, NULL, 10) != 201);
    free(length);
    in_step();
    length = harness_redis_command(&redis, "XLEN", "larder:{t:}:events", NULL);
    long events = strtol(length, NULL, 10);
    free(length);
    ck_assert_msg(events <= 200 + 3, "%ld events for 200 invalidations and two sets", events);
    ck_assert_msg(events >= 200, "%ld events for 200 invalidations", events);
}
END_TEST

int main(void)
{
    harness_needs_redis();
    Suite *suite = suite_create("marks");
    TCase *hosts = tcase_create("two hosts");
    tcase_add_checked_fixture(hosts, setup, teardown);
    tcase_set_timeout(hosts, 90);
    tcase_add_test(hosts, groups_and_tags_travel);
    tcase_add_test(hosts, clear_travels);
    tcase_add_test(hosts, prefix_and_pattern_travel);
    tcase_add_loop_test(hosts, outage_loses_none, 0, 2);
    tcase_add_test(hosts, absent_host_catches_up);
    tcase_add_test(hosts, flushed_set_is_filled_again);
    tcase_add_test(hosts, plain_values_go);
    tcase_add_test(hosts, nothing_is_told_twice);
    suite_add_tcase(suite, hosts);
    return harness_run(suite);
}
