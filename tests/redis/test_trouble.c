/* test_trouble.c: a Redis that is there and makes trouble: scripts and data flushed under us, the
 * channel cut, wrong credentials, rights too narrow, no memory, keys of another type.
 */
#include "tests/redis/fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static harness_redis redis;
static host a, b;

static void setup(void)
{
    pair_start(&redis, &a, &b, NULL);
    host_set(&a, "first", "1");
    host_comes_to(&b, "first", "1");
    host_drained(&a);
}

static void teardown(void)
{
    pair_end(&redis, &a, &b);
}

static void ok(const char *expected, char *reply)
{
    ck_assert_msg(reply != NULL && strcmp(reply, expected) == 0, "Redis says %s",
                  reply == NULL ? "nil" : reply);
    free(reply);
}

START_TEST(scripts_flushed)
{
    for (int i = 0; i < 5; i++) {
        char value[16];
        (void)snprintf(value, sizeof value, "%d", i);
        ok("OK", harness_redis_command(&redis, "SCRIPT", "FLUSH", NULL));
        host_set(&a, "k", value);
        host_comes_to(&b, "k", value);
    }
    host_drained(&a);
}
END_TEST

START_TEST(everything_flushed)
{
    char key[16];
    for (int i = 0; i < 100; i++) {
        (void)snprintf(key, sizeof key, "k%d", i);
        host_set(&a, key, key);
    }
    host_comes_to(&b, "k99", "k99");
    host_drained(&a);
    ok("OK", harness_redis_command(&redis, "FLUSHALL", NULL));
    /* nobody writes: it is noticed all the same, and "empty" is not "all deleted" */
    redis_comes_to(&redis, "t:first", "1");
    for (int i = 0; i < 100; i++) {
        char name[24];
        (void)snprintf(key, sizeof key, "k%d", i);
        (void)snprintf(name, sizeof name, "t:k%d", i);
        redis_comes_to(&redis, name, key);
        ck_assert(host_has(&a, key, key));
        ck_assert(host_has(&b, key, key));
    }
    host_set(&b, "k1", "new");
    host_comes_to(&a, "k1", "new");
}
END_TEST

START_TEST(stream_lost)
{
    ok("1", harness_redis_command(&redis, "DEL", "larder:{t:}:events", NULL));
    host_set(&a, "k", "1");
    host_comes_to(&b, "k", "1");
    host_set(&b, "k", "2");
    host_comes_to(&a, "k", "2");
    host_drained(&a);
    host_drained(&b);
}
END_TEST

/* As with a Redis that evicts it: all entries are compared less and less often, and no write waits
 * for that. */
START_TEST(stream_lost_again_and_again)
{
    char value[16];
    for (int i = 0; i < 9; i++) {
        ok("1", harness_redis_command(&redis, "DEL", "larder:{t:}:events", NULL));
        (void)snprintf(value, sizeof value, "%d", i);
        host_set(&a, "k", value);
        host_comes_to(&b, "k", value);
    }
    host_logs(&a, "lost again and again");
    char *log = harness_log(&a.larderd.process);
    const char *first = strstr(log, "lost again and again");
    ck_assert_msg(strstr(first + 1, "lost again and again") == NULL, "said again: %s", log);
    free(log);
    /* and what Redis has lost comes back all the same */
    ok("1", harness_redis_command(&redis, "DEL", "v:{t:first}", NULL));
    ok("1", harness_redis_command(&redis, "DEL", "t:first", NULL));
    ok("1", harness_redis_command(&redis, "DEL", "larder:{t:}:events", NULL));
    redis_comes_to(&redis, "t:first", "1");
    host_drained(&a);
    host_drained(&b);
}
END_TEST

/* Less memory than the maps have: the stream is evicted, too, and is again as soon as it is there.
 */
START_TEST(redis_that_evicts)
{
    enum { KEYS = 4000 };
    static char value[1500], key[16];
    memset(value, 'v', sizeof value - 1);
    ok("OK",
       harness_redis_command(&redis, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru", NULL));
    ok("OK", harness_redis_command(&redis, "CONFIG", "SET", "maxmemory", "4mb", NULL));
    for (int i = 0; i < KEYS; i++) {
        (void)snprintf(key, sizeof key, "k%d", i);
        host_set(&a, key, value);
    }
    host_logs(&a, "lost again and again");
    ok("OK", harness_redis_command(&redis, "CONFIG", "SET", "maxmemory", "0", NULL));
    host_set(&b, "after", "x");
    host_comes_to(&a, "after", "x");
    redis_comes_to(&redis, "t:after", "x");
    host_drained(&a);
    host_drained(&b);
}
END_TEST

/* Events fall out of the stream while b is away: b notices, and is put right by pushing its log. */
START_TEST(stream_trimmed)
{
    host_set(&b, "k", "b's");
    host_comes_to(&a, "k", "b's");
    host_drained(&b);
    host_stop_daemon(&b);
    host_set(&a, "k", "a's");
    host_set(&a, "other", "x");
    host_drained(&a);
    free(harness_redis_command(&redis, "XTRIM", "larder:{t:}:events", "MAXLEN", "1", NULL));
    host_start_daemon(&b);
    host_comes_to(&b, "k", "a's");
    ck_assert(host_has(&a, "k", "a's"));
    redis_comes_to(&redis, "t:k", "a's");
}
END_TEST

START_TEST(channel_cut)
{
    for (int i = 0; i < 5; i++) {
        char value[16];
        free(harness_redis_command(&redis, "CLIENT", "KILL", "TYPE", "pubsub", NULL));
        (void)snprintf(value, sizeof value, "%d", i);
        host_set(&a, "k", value);
        host_comes_to(&b, "k", value);
    }
    free(harness_redis_command(&redis, "CLIENT", "KILL", "TYPE", "normal", NULL));
    host_set(&b, "k", "after");
    host_comes_to(&a, "k", "after");
}
END_TEST

START_TEST(no_memory)
{
    char *value = malloc(100001), key[16];
    ck_assert_ptr_nonnull(value);
    memset(value, 'v', 100000);
    value[100000] = 0;
    for (int i = 0; i < 20; i++) {
        (void)snprintf(key, sizeof key, "big%d", i);
        host_set(&a, key, value);
    }
    host_drained(&a);
    host_comes_to(&b, "big0", value);
    ok("OK", harness_redis_command(&redis, "CONFIG", "SET", "maxmemory", "1mb", NULL));
    host_set(&a, "refused", "v");
    host_logs(&a, "OOM");
    ck_assert_uint_ge(host_dirty(&a), 1);
    ck_assert(host_has(&a, "refused", "v"));
    /* the old value does not outlive its deletion, in Redis or elsewhere */
    host_delete(&a, "big0");
    redis_comes_to(&redis, "t:big0", NULL);
    host_comes_to(&b, "big0", NULL);
    ok("OK", harness_redis_command(&redis, "CONFIG", "SET", "maxmemory", "0", NULL));
    redis_comes_to(&redis, "t:refused", "v");
    host_comes_to(&b, "refused", "v");
    host_drained(&a);
    ck_assert(harness_redis_says(&redis, "1", "EXISTS", "v:{t:big0}", NULL));
    free(value);
}
END_TEST

static bool only_one_is_dirty(void *context)
{
    return host_dirty(context) == 1;
}

START_TEST(one_key_refused)
{
    ok("1", harness_redis_command(&redis, "LPUSH", "v:{t:bad}", "not a record", NULL));
    host_set(&a, "bad", "v");
    host_logs(&a, "WRONGTYPE");
    host_set(&a, "good", "v");
    host_comes_to(&b, "good", "v");
    /* the other host may learn of it before this one has noted the acknowledgement */
    ck_assert(wait_until(only_one_is_dirty, &a, 10000));
    ok("1", harness_redis_command(&redis, "DEL", "v:{t:bad}", NULL));
    redis_comes_to(&redis, "t:bad", "v");
    host_drained(&a);
}
END_TEST

static host lone;

/* A host whose larderd reads this password, and has the prefix that a map has by itself. */
static void start_with_password(const char *name, const char *url, const char *password)
{
    char file[32], configuration[600];
    (void)snprintf(file, sizeof file, "%s.password", name);
    (void)snprintf(configuration, sizeof configuration,
                   "redis = { " HOST_QUICK "password_file = \"%s\"; };\n"
                   "map = { size = \"64M\"; };\n",
                   harness_write(file, 0600, password));
    host_start(&lone, name, NULL, url, configuration);
}

START_TEST(wrong_password)
{
    const char *url = harness_redis_url(&redis);
    ok("OK", harness_redis_command(&redis, "ACL", "SETUSER", "larder", "on", ">right", "~*", "&*",
                                   "+@all", NULL));
    char with_user[160];
    (void)snprintf(with_user, sizeof with_user, "unix://larder@%s", url + strlen("unix://"));
    start_with_password("wrong", with_user, "wrong");
    host_logs(&lone, "WRONGPASS");
    host_logs(&lone, "parked");
    host_set(&lone, "k", "v"); /* the map goes on */
    ck_assert(host_has(&lone, "k", "v"));
    char *log = harness_log(&lone.larderd.process);
    ck_assert_msg(strstr(log, "=wrong") == NULL && strstr(log, "right") == NULL,
                  "a password is in the log: %s", log);
    free(log);
    /* put right in Redis: the next attempt works, without a restart */
    ok("OK", harness_redis_command(&redis, "ACL", "SETUSER", "larder", ">wrong", NULL));
    redis_comes_to(&redis, "t:k", NULL); /* another prefix: this host uses its map's */
    host_drained(&lone);
    redis_comes_to(&redis, "m:k", "v");
    host_end(&lone);
}
END_TEST

START_TEST(rights_too_narrow)
{
    const char *url = harness_redis_url(&redis);
    char with_user[160];
    /* all is allowed but the keys that begin with m:secret */
    ok("OK", harness_redis_command(&redis, "ACL", "SETUSER", "narrow", "on", ">pw", "~m:open*",
                                   "~v:{m:open*", "~larder:*", "&*", "+@all", NULL));
    (void)snprintf(with_user, sizeof with_user, "unix://narrow@%s", url + strlen("unix://"));
    start_with_password("narrow", with_user, "pw");
    host_redis_up(&lone, true);
    host_set(&lone, "secret", "v");
    host_set(&lone, "open", "v");
    redis_comes_to(&redis, "m:open", "v");
    host_logs(&lone, "refused");
    host_dirty_comes_to(&lone, 1);
    ok("OK", harness_redis_command(&redis, "ACL", "SETUSER", "narrow", "~*", NULL));
    redis_comes_to(&redis, "m:secret", "v");
    host_end(&lone);
}
END_TEST

static uint64_t metric(const char *name)
{
    static char text[65536];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t size = 0;
    ssize_t got = 1;
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", harness_path("web"));
    int to = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(to, 0);
    ck_assert_int_eq(connect(to, (struct sockaddr *)&address, sizeof address), 0);
    static const char request[] = "GET /metrics HTTP/1.0\r\n\r\n";
    ck_assert_int_eq(send(to, request, sizeof request - 1, MSG_NOSIGNAL), sizeof request - 1);
    while (got > 0 && size + 1 < sizeof text) {
        got = recv(to, text + size, sizeof text - 1 - size, 0);
        size += got > 0 ? (size_t)got : 0;
    }
    (void)close(to);
    text[size] = 0;
    char line[100];
    (void)snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr(text, line);
    ck_assert_msg(at != NULL, "no %s in %s", name, text);
    return strtoull(at + strlen(line), NULL, 10);
}

static bool left_over(void *context)
{
    return metric("larder_redis_retry_left_entries") == *(const uint64_t *)context;
}

/* What Redis refuses beyond what is remembered key by key is seen, and said once. */
START_TEST(more_refused_than_remembered)
{
    enum { KEYS = 20, REMEMBERED = 4 };
    char configuration[700], key[16];
    uint64_t left = KEYS - REMEMBERED, none = 0;
    ok("OK", harness_redis_command(&redis, "ACL", "SETUSER", "narrow", "on", ">pw", "~n:open*",
                                   "~v:{n:open*", "~larder:*", "&*", "+@all", NULL));
    (void)snprintf(configuration, sizeof configuration,
                   "listen = \"unix:%s\";\n"
                   "redis = { " HOST_QUICK
                   "user = \"narrow\"; password_file = \"%s\"; prefix = \"n:\"; "
                   "retry_entries = %d; };\n"
                   "map = { size = \"64M\"; };\n",
                   harness_path("web"), harness_write("narrow.password", 0600, "pw"), REMEMBERED);
    host_start(&lone, "narrow", &redis, NULL, configuration);
    host_redis_up(&lone, true);
    for (int i = 0; i < KEYS; i++) {
        (void)snprintf(key, sizeof key, "secret%d", i);
        host_set(&lone, key, "v");
    }
    ck_assert_msg(wait_until(left_over, &left, PATIENCE_MS), "%d are left over",
                  (int)metric("larder_redis_retry_left_entries"));
    host_logs(&lone, "refuses more keys than the 4");
    ok("OK", harness_redis_command(&redis, "ACL", "SETUSER", "narrow", "~*", NULL));
    host_drained(&lone);
    ck_assert(wait_until(left_over, &none, PATIENCE_MS));
    host_logs(&lone, "no more keys are refused");
    char *log = harness_log(&lone.larderd.process);
    const char *first = strstr(log, "refuses more keys");
    ck_assert_msg(strstr(first + 1, "refuses more keys") == NULL, "said again: %s", log);
    free(log);
    host_end(&lone);
}
END_TEST

int main(void)
{
    harness_needs_redis();
    Suite *suite = suite_create("trouble");
    TCase *fleet = tcase_create("two hosts");
    tcase_add_checked_fixture(fleet, setup, teardown);
    tcase_set_timeout(fleet, 60);
    tcase_add_test(fleet, scripts_flushed);
    tcase_add_test(fleet, everything_flushed);
    tcase_add_test(fleet, stream_lost);
    tcase_add_test(fleet, stream_lost_again_and_again);
    tcase_add_test(fleet, redis_that_evicts);
    tcase_add_test(fleet, stream_trimmed);
    tcase_add_test(fleet, channel_cut);
    tcase_add_test(fleet, no_memory);
    tcase_add_test(fleet, one_key_refused);
    tcase_add_test(fleet, wrong_password);
    tcase_add_test(fleet, rights_too_narrow);
    tcase_add_test(fleet, more_refused_than_remembered);
    suite_add_tcase(suite, fleet);
    return harness_run(suite);
}
