/* test_lifecycle.c: larderd from its start to its end with real processes and a real Redis: what
 * the service manager is told, one daemon a map, signals, reloads, the end in bounded time whatever
 * Redis does, the janitor's work on a map that workers fill.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "larder.h"
#include "tests/daemon/shell.h"

static larder *attach(const shell *self)
{
    larder *map = NULL;
    larder_options options = {.dir = self->map_dir, .flags = LARDER_ATTACH};
    int code = larder_open("m", &options, &map);
    ck_assert_msg(code == LARDER_OK, "%s", larder_last_error());
    return map;
}

static void set_many(larder *map, const char *prefix, int count, size_t size,
                     const larder_policy *policy)
{
    char *value = calloc(1, size + 1);
    ck_assert_ptr_nonnull(value);
    memset(value, 'v', size);
    for (int i = 0; i < count; i++) {
        char key[64];
        int length = snprintf(key, sizeof key, "%s%d", prefix, i);
        int code = larder_set(map, key, (size_t)length, value, size, policy);
        ck_assert_msg(code == LARDER_OK, "%s: %s", key, larder_last_error());
    }
    free(value);
}

static larder_stats stats_of(larder *map)
{
    larder_stats stats;
    ck_assert_int_eq(larder_stats_read(map, &stats, sizeof stats), LARDER_OK);
    return stats;
}

/* ---- The service manager -----------------------------------------------------------------------
 */

START_TEST(tells_the_service_manager)
{
    for (int abstract = 0; abstract < 2; abstract++) {
        shell self = {.manager = 0};
        const char *name = abstract ? "abstract" : "path";
        shell_launch(&self, name, NULL, NULL, abstract);
        ck_assert(shell_said(
            &self, "READY=1\nSTATUS=map m: 0 entries; redis not used; 0 waiting\n|", 10000));
        larder *map = attach(&self);
        set_many(map, "k", 3, 10, NULL);
        larder_close(&map);
        ck_assert(shell_said(&self, "|STATUS=map m: 3 entries;", 5000)); /* nobody asked for it */
        ck_assert_int_eq(kill(self.process.pid, SIGINT), 0);
        ck_assert(shell_said(&self, "|STOPPING=1\n", 5000));
        int status = harness_end(&self.process, 0, 3000);
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        close(self.manager);
    }
}
END_TEST

START_TEST(feeds_the_watchdog)
{
    shell self = {.manager = 0};
    shell_launch(&self, "watchdog", NULL, (const char *const[]){"WATCHDOG_USEC=100000", NULL},
                 false);
    ck_assert(shell_said(&self, "READY=1", 10000));
    for (int i = 0; i < 5; i++) {
        shell_forget(&self);
        ck_assert(shell_said(&self, "WATCHDOG=1\n|", 5000));
    }
    shell_end(&self, 0, 5000);
}
END_TEST

START_TEST(a_manager_that_is_gone_changes_nothing)
{
    shell self = {.manager = 0};
    const char *extra[] = {NULL};
    shell_launch(&self, "gone", extra, (const char *const[]){"NOTIFY_SOCKET=/no/such/socket", NULL},
                 false);
    ck_assert(harness_logged(&self.process, "event=ready", 10000));
    ck_assert_int_eq(shell_get(self.web, "/healthz", NULL), 200);
    shell_end(&self, 0, 5000);
    shell_launch(&self, "unusable", extra, (const char *const[]){"NOTIFY_SOCKET=relative", NULL},
                 false);
    ck_assert(harness_logged(&self.process, "event=ready", 10000));
    ck_assert(harness_logged(&self.process, "event=notify_unusable", 0));
    ck_assert_int_eq(shell_get(self.web, "/healthz", NULL), 200);
    shell_end(&self, 0, 5000);
}
END_TEST

/* ---- One larderd a map -------------------------------------------------------------------------
 */

START_TEST(a_second_larderd_is_refused)
{
    shell self = {.manager = 0};
    char *output, pid[32];
    shell_start(&self, "first", NULL);
    int code = shell_run(
        (const char *const[]){shell_program(), "--map", "m", "--dir", self.map_dir, NULL}, &output);
    ck_assert_int_eq(code, 3);
    snprintf(pid, sizeof pid, " pid=%ld ", (long)self.process.pid);
    ck_assert_msg(strstr(output, "event=map_claimed") && strstr(output, pid), "%s", output);
    free(output);
    ck_assert_int_eq(shell_get(self.web, "/healthz", NULL), 200);
    /* Killed or ended, it leaves nothing behind that keeps the next one out. */
    (void)harness_end(&self.process, SIGKILL, 5000);
    shell_start(&self, "first", NULL);
    shell_end(&self, 0, 5000);
    shell_start(&self, "first", NULL);
    shell_end(&self, 0, 5000);
}
END_TEST

/* Only an operator who removes the lock can bring two daemons to one map; the earlier one goes. */
START_TEST(a_fenced_larderd_ends_itself)
{
    shell first = {.manager = 0}, second = {.manager = 0};
    char lock[200];
    shell_start(&first, "earlier", NULL);
    snprintf(lock, sizeof lock, "%s/m/larderd.lock", first.map_dir);
    ck_assert_int_eq(unlink(lock), 0);
    snprintf(second.map_dir, sizeof second.map_dir, "%s", first.map_dir);
    shell_start(&second, "later", NULL);
    int status = harness_end(&first.process, 0, 5000);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 4);
    ck_assert(harness_logged(&first.process, "event=fenced", 1000));
    ck_assert_int_eq(shell_get(second.web, "/healthz", NULL), 200);
    shell_end(&second, 0, 5000);
}
END_TEST

/* Who removes a map's directory gets another map: larderd must not keep the old one for ever. */
START_TEST(a_removed_map_ends_it)
{
    shell self = {.manager = 0};
    char path[200];
    shell_start(&self, "removed", NULL);
    snprintf(path, sizeof path, "%s/m", self.map_dir);
    ck_assert_int_eq(shell_run((const char *const[]){"rm", "-r", path, NULL}, NULL), 0);
    int status = harness_end(&self.process, 0, 5000);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    ck_assert(harness_logged(&self.process, "event=map_gone", 1000));
    shell_start(&self, "removed", NULL);
    ck_assert_int_eq(shell_get(self.web, "/healthz", NULL), 200);
    shell_end(&self, 0, 5000);
}
END_TEST

/* ---- Redis -------------------------------------------------------------------------------------
 */

START_TEST(is_ready_without_redis_and_notices_when_it_comes)
{
    shell self = {.manager = 0};
    harness_redis redis = {.append_only = false};
    char *body;
    harness_redis_start(&redis, "redis-later");
    harness_redis_end(&redis); /* the socket's name is known now, and nobody listens */
    const char *file = shell_file("fast.conf", "redis = { backoff_max = \"200ms\"; "
                                               "breaker_open = \"200ms\"; };\n");
    shell_start(&self, "health",
                (const char *const[]){"-c", file, "--redis", harness_redis_url(&redis), NULL});
    ck_assert_int_eq(shell_get(self.web, "/readyz", &body), 200);
    ck_assert_msg(strstr(body, "\"status\":\"degraded\"") != NULL, "%s", body);
    ck_assert_msg(strstr(body, "\"degraded_since\":\"2") != NULL, "%s", body);
    free(body);
    larder *map = attach(&self);
    set_many(map, "k", 5, 10, NULL);
    ck_assert(shell_shows(&self, "/healthz", "\"queue_depth\":5", 5000));
    ck_assert(shell_metric(&self, "larder_redis_up") == 0);
    ck_assert(shell_metric(&self, "larder_outbox_entries") == 5);
    ck_assert(shell_metric_reaches(&self, "larder_outbox_oldest_age_seconds", 0.001, 5000));
    harness_redis_restart(&redis);
    ck_assert(shell_shows(&self, "/healthz", "\"status\":\"ok\"", 10000));
    ck_assert(shell_shows(&self, "/healthz", "\"degraded_since\":null,\"queue_depth\":0", 10000));
    ck_assert(shell_metric(&self, "larder_redis_up") == 1);
    ck_assert(shell_metric(&self, "larder_redis_state{state=\"up\"}") == 1);
    ck_assert_uint_eq(stats_of(map).redis_up, 1);
    ck_assert(harness_redis_says(&redis, "vvvvvvvvvv", "GET", "m:k4", (char *)NULL));
    /* Reached, and out of memory: what is written does not go. */
    ck_assert(harness_redis_says(&redis, "OK", "CONFIG", "SET", "maxmemory", "1", (char *)NULL));
    set_many(map, "refused", 1, 10, NULL);
    ck_assert(shell_shows(&self, "/healthz", "\"redis\":\"up\",\"degraded_since\":\"2", 20000));
    ck_assert(harness_redis_says(&redis, "OK", "CONFIG", "SET", "maxmemory", "0", (char *)NULL));
    ck_assert(shell_shows(&self, "/healthz", "\"status\":\"ok\"", 10000));
    harness_redis_kill(&redis);
    ck_assert(shell_shows(&self, "/healthz", "\"status\":\"degraded\"", 10000));
    larder_close(&map);
    shell_end(&self, 0, 5000);
}
END_TEST

START_TEST(pushes_what_waits_before_it_ends)
{
    shell self = {.manager = 0};
    harness_redis redis = {.append_only = false};
    harness_redis_start(&redis, "redis-drain");
    shell_start(&self, "drain", (const char *const[]){"--redis", harness_redis_url(&redis), NULL});
    ck_assert(shell_metric_reaches(&self, "larder_redis_up", 1, 10000));
    larder *map = attach(&self);
    set_many(map, "k", 2000, 100, NULL);
    shell_end(&self, 0, 5000);
    ck_assert_uint_eq(stats_of(map).dirty, 0);
    ck_assert(harness_redis_says(&redis, "2000", "EVAL",
                                 "local n = 0 for i = 0, 1999 do n = n + "
                                 "redis.call('EXISTS', 'm:k' .. i) end return n",
                                 "0", (char *)NULL));
    larder_close(&map);
    harness_redis_end(&redis);
}
END_TEST

/* With a Redis that hangs the drain is over after its time, and nothing is lost. */
START_TEST(ends_in_time_while_redis_hangs)
{
    shell self = {.manager = 0};
    harness_redis redis = {.append_only = false};
    harness_redis_start(&redis, "redis-hung");
    const char *file = shell_file("drain.conf", "drain = \"1s\";\n");
    const char *extra[] = {"-c", file, "--redis", harness_redis_url(&redis), NULL};
    shell_start(&self, "hung", extra);
    ck_assert(shell_metric_reaches(&self, "larder_redis_up", 1, 10000));
    harness_freeze(&redis.process);
    larder *map = attach(&self);
    set_many(map, "k", 100, 100, NULL);
    int64_t began = harness_now_ms();
    shell_end(&self, 0, 2000);
    ck_assert_int_ge(harness_now_ms() - began, 500); /* it did wait for Redis */
    ck_assert_uint_eq(stats_of(map).dirty, 100);
    harness_thaw(&redis.process);
    shell_start(&self, "hung", extra);
    ck_assert(shell_shows(&self, "/healthz", "\"queue_depth\":0", 10000));
    ck_assert(harness_redis_says(&redis, "1", "EXISTS", "m:k99", (char *)NULL));
    /* A second signal does not wait for the drain. */
    harness_freeze(&redis.process);
    set_many(map, "l", 100, 100, NULL);
    (void)shell_file("drain.conf", "drain = \"50s\";\n");
    ck_assert_int_eq(kill(self.process.pid, SIGHUP), 0);
    ck_assert(
        harness_logged(&self.process, "event=reload_changed setting=drain from=1s to=50s", 5000));
    shell_forget(&self);
    ck_assert_int_eq(kill(self.process.pid, SIGTERM), 0);
    ck_assert(shell_said(&self, "STOPPING=1", 5000));
    shell_end(&self, 0, 3000);
    harness_thaw(&redis.process);
    larder_close(&map);
    harness_redis_end(&redis);
}
END_TEST

START_TEST(reads_the_password_again)
{
    shell self = {.manager = 0};
    harness_redis redis = {.password = "correct-horse"};
    harness_redis_start(&redis, "redis-locked");
    const char *secret = shell_file("password", "wrong-battery\n");
    const char *file =
        shell_file("password.conf", "redis = { url = \"%s\"; password_file = \"%s\"; };\n",
                   harness_redis_url(&redis), secret);
    shell_start(&self, "password", (const char *const[]){"-c", file, NULL});
    ck_assert(shell_shows(&self, "/healthz", "\"redis\":\"parked\"", 10000));
    (void)shell_file("password", "correct-horse\n");
    ck_assert_int_eq(kill(self.process.pid, SIGHUP), 0);
    ck_assert(shell_shows(&self, "/healthz", "\"redis\":\"up\"", 10000));
    shell_end(&self, 0, 5000);
    char *log = harness_log(&self.process);
    ck_assert_ptr_null(strstr(log, "wrong-battery"));
    ck_assert_ptr_null(strstr(log, "correct-horse"));
    free(log);
    harness_redis_end(&redis);
}
END_TEST

/* ---- SIGHUP ------------------------------------------------------------------------------------
 */

START_TEST(a_bad_reload_changes_nothing)
{
    shell self = {.manager = 0};
    const char *file = shell_file("r.conf", "log_level = \"info\";\ndrain = \"1s\";\n");
    shell_start(&self, "bad-reload", (const char *const[]){"-c", file, NULL});
    (void)shell_file("r.conf", "log_level = \"debug\";\ndrain = \"2s\";\nmap = { sise = 1; };\n");
    shell_forget(&self);
    ck_assert_int_eq(kill(self.process.pid, SIGHUP), 0);
    ck_assert(shell_said(&self, "RELOADING=1\nMONOTONIC_USEC=", 5000));
    ck_assert(shell_said(&self, "|READY=1\n", 5000));
    ck_assert(harness_logged(&self.process, "event=reload_refused", 5000));
    ck_assert(harness_logged(&self.process, "r.conf:3: unknown setting map.sise", 1000));
    /* The next reload starts from the old values: nothing of the bad file was taken. */
    (void)shell_file("r.conf", "log_level = \"info\";\ndrain = \"3s\";\n");
    ck_assert_int_eq(kill(self.process.pid, SIGHUP), 0);
    ck_assert(harness_logged(&self.process, "event=reloaded", 5000));
    char *log = harness_log(&self.process);
    ck_assert_ptr_nonnull(strstr(log, "event=reload_changed setting=drain from=1s to=3s"));
    ck_assert_ptr_null(strstr(log, "setting=log_level"));
    free(log);
    /* A file that is gone is as bad. */
    ck_assert_int_eq(unlink(file), 0);
    ck_assert_int_eq(kill(self.process.pid, SIGHUP), 0);
    ck_assert(harness_logged(&self.process, "r.conf: No such file or directory", 5000));
    shell_end(&self, 0, 5000);
}
END_TEST

/* A SIGHUP that comes while the map is opened used to end it. Here it comes earlier still, which is
 * the same wherever it is between the first instruction and the loop: the mask is inherited. */
START_TEST(a_reload_while_it_starts_is_done_when_it_has_started)
{
    shell self = {.manager = 0};
    sigset_t hangup, before;
    const char *file = shell_file("early.conf", "log_level = \"info\";\n");
    ck_assert_int_eq(sigemptyset(&hangup), 0);
    ck_assert_int_eq(sigaddset(&hangup, SIGHUP), 0);
    ck_assert_int_eq(sigprocmask(SIG_BLOCK, &hangup, &before), 0);
    shell_launch(&self, "early-reload", (const char *const[]){"-c", file, NULL}, NULL, false);
    ck_assert_int_eq(kill(self.process.pid, SIGHUP), 0);
    ck_assert_int_eq(sigprocmask(SIG_SETMASK, &before, NULL), 0);
    ck_assert(shell_said(&self, "READY=1\n", 10000));
    ck_assert(harness_logged(&self.process, "event=reloaded", 5000));
    shell_end(&self, 0, 5000);
}
END_TEST

START_TEST(a_good_reload_says_what_takes_a_restart)
{
    shell self = {.manager = 0};
    const char *file = shell_file("g.conf", "map = { size = \"32M\"; };\n");
    shell_start(&self, "good-reload", (const char *const[]){"-c", file, NULL});
    (void)shell_file("g.conf", "map = { size = \"64M\"; };\nredis = { url = \"redis://h/0\"; };\n"
                               "janitor = { watermark = 0.5; };\n");
    ck_assert_int_eq(kill(self.process.pid, SIGHUP), 0);
    ck_assert(harness_logged(&self.process, "event=reloaded changed=1 need_restart=2", 5000));
    char *log = harness_log(&self.process);
    ck_assert_ptr_nonnull(
        strstr(log, "event=reload_needs_restart setting=map.size from=32M to=64M"));
    ck_assert_ptr_nonnull(strstr(log, "event=reload_needs_restart setting=redis.url"));
    ck_assert_ptr_nonnull(
        strstr(log, "event=reload_changed setting=janitor.watermark from=0.90 to=0.50"));
    free(log);
    ck_assert(shell_metric(&self, "larder_map_size_bytes") == 32 << 20);
    shell_end(&self, 0, 5000);
}
END_TEST

START_TEST(a_reload_moves_to_another_redis)
{
    shell self = {.manager = 0};
    harness_redis one = {.append_only = false}, two = {.append_only = false};
    harness_redis_start(&one, "redis-one");
    harness_redis_start(&two, "redis-two");
    const char *file =
        shell_file("move.conf", "redis = { url = \"%s\"; };\n", harness_redis_url(&one));
    shell_start(&self, "move", (const char *const[]){"-c", file, NULL});
    larder *map = attach(&self);
    set_many(map, "a", 1, 10, NULL);
    ck_assert(shell_shows(&self, "/healthz", "\"queue_depth\":0", 10000));
    ck_assert(harness_redis_says(&one, "1", "EXISTS", "m:a0", (char *)NULL));
    (void)shell_file("move.conf", "redis = { url = \"%s\"; };\n", harness_redis_url(&two));
    ck_assert_int_eq(kill(self.process.pid, SIGHUP), 0);
    ck_assert(shell_shows(&self, "/healthz", "redis-two", 10000));
    ck_assert(shell_shows(&self, "/healthz", "\"redis\":\"up\"", 10000));
    set_many(map, "b", 1, 10, NULL);
    ck_assert(shell_shows(&self, "/healthz", "\"queue_depth\":0", 10000));
    ck_assert(harness_redis_says(&two, "1", "EXISTS", "m:b0", (char *)NULL));
    ck_assert(harness_redis_says(&one, "0", "EXISTS", "m:b0", (char *)NULL));
    larder_close(&map);
    shell_end(&self, 0, 5000);
    harness_redis_end(&one);
    harness_redis_end(&two);
}
END_TEST

/* Signals in quick succession, while the replicator is being stopped for the one before. */
START_TEST(many_reloads_end_in_order)
{
    shell self = {.manager = 0};
    harness_redis redis = {.append_only = false};
    harness_redis_start(&redis, "redis-busy");
    const char *file =
        shell_file("many.conf", "redis = { url = \"%s\"; };\n", harness_redis_url(&redis));
    shell_start(&self, "many", (const char *const[]){"-c", file, NULL});
    for (int i = 0; i < 40; i++) {
        (void)shell_file("many.conf", "redis = { url = \"%s\"; linger = \"%dms\"; };\n",
                         harness_redis_url(&redis), 1 + i % 7);
        ck_assert_int_eq(kill(self.process.pid, SIGHUP), 0);
        ck_assert(shell_said(&self, "RELOADING=1", 5000));
        shell_forget(&self);
    }
    ck_assert(shell_shows(&self, "/healthz", "\"redis\":\"up\"", 10000));
    ck_assert_int_eq(kill(self.process.pid, SIGHUP), 0);
    shell_end(&self, 0, 5000);
    harness_redis_end(&redis);
}
END_TEST

/* ---- The janitor -------------------------------------------------------------------------------
 */

START_TEST(removes_what_has_expired)
{
    shell self = {.manager = 0};
    const char *file =
        shell_file("expiry.conf", "janitor = { pass = \"1s\"; period = \"20ms\"; };\n");
    shell_start(&self, "expiry", (const char *const[]){"-c", file, NULL});
    larder *map = attach(&self);
    larder_policy policy = {.expiry = larder_expire_in(300)};
    set_many(map, "short", 3000, 20, &policy);
    set_many(map, "long", 10, 20, NULL);
    ck_assert(shell_metric_reaches(&self, "larder_janitor_removed_total", 3000, 15000));
    ck_assert_uint_eq(stats_of(map).entries, 10); /* nobody has read them */
    ck_assert(shell_metric(&self, "larder_evictions_total{reason=\"expired\"}") >= 3000);
    larder_close(&map);
    shell_end(&self, 0, 5000);
}
END_TEST

struct share {
    larder *map;
    double most;
};

static bool used_less(void *context)
{
    struct share *share = context;
    larder_stats stats = stats_of(share->map);
    return (double)stats.used_bytes <= share->most * (double)stats.map_size;
}

START_TEST(evicts_to_the_watermark)
{
    shell self = {.manager = 0};
    const char *file =
        shell_file("full.conf", "map = { size = \"16M\"; };\njanitor = { watermark = 0.4; };\n");
    shell_start(&self, "full", (const char *const[]){"-c", file, NULL});
    larder *map = attach(&self);
    set_many(map, "k", 5000, 2000, NULL);
    ck_assert(shell_metric_reaches(&self, "larder_janitor_evicted_total", 100, 15000));
    ck_assert(wait_until(used_less, &(struct share){map, 0.4}, 15000));
    ck_assert_uint_gt(stats_of(map).entries, 500); /* and no further */
    larder_close(&map);
    shell_end(&self, 0, 5000);
}
END_TEST

/* A worker that dies in the middle of a borrowed view leaves its reader slot behind. */
START_TEST(clears_the_slots_of_dead_readers)
{
    shell self = {.manager = 0};
    const char *file = shell_file("readers.conf", "janitor = { readers = \"1s\"; };\n");
    shell_start(&self, "readers", (const char *const[]){"-c", file, NULL});
    larder *map = attach(&self);
    set_many(map, "k", 1, 10, NULL);
    larder_close(&map);
    pid_t child = fork();
    if (child == 0) {
        larder_view view;
        larder_options options = {.dir = self.map_dir, .flags = LARDER_ATTACH};
        if (larder_open("m", &options, &map) == LARDER_OK &&
            larder_borrow(map, "k0", 2, &view) == LARDER_OK) {
            (void)raise(SIGKILL);
        }
        _exit(1);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    ck_assert(shell_metric_reaches(&self, "larder_janitor_readers_cleared_total", 1, 15000));
    shell_end(&self, 0, 5000);
}
END_TEST

/* A map that is there keeps its size and its entries, and larderd says so. */
START_TEST(another_size_starts_a_generation)
{
    shell self = {.manager = 0};
    const char *file = shell_file("size.conf", "map = { size = \"16M\"; };\n");
    shell_start(&self, "size", (const char *const[]){"-c", file, NULL});
    larder *map = attach(&self);
    set_many(map, "k", 10, 10, NULL);
    shell_end(&self, 0, 5000);
    ck_assert(!harness_logged(&self.process, "event=map_size", 0));
    (void)shell_file("size.conf", "map = { size = \"32M\"; };\n");
    shell_start(&self, "size", (const char *const[]){"-c", file, NULL});
    ck_assert(
        harness_logged(&self.process, "event=map_size configured=33554432 before=16777216 ", 5000));
    ck_assert(shell_metric(&self, "larder_map_size_bytes") == 32 << 20);
    ck_assert_uint_eq(stats_of(map).entries, 10);
    ck_assert_uint_eq(stats_of(map).generation, 2);
    larder_close(&map);
    shell_end(&self, 0, 5000);
}
END_TEST

/* Refused again and again: not by a janitor's step, which may be slow, but ends. */
static bool gate_stays_held(larder *map)
{
    for (int i = 0; i < 5; i++) {
        if (larder_set(map, "x", 1, "y", 1, NULL) != LARDER_EBUSY) {
            return false;
        }
    }
    return true;
}

/* A stopped writer holds the gate: steps are put off, the daemon lives and serves, and goes on. */
START_TEST(lives_through_a_gate_that_is_held)
{
    shell self = {.manager = 0};
    const char *file =
        shell_file("gate.conf", "map = { size = \"16M\"; };\njanitor = { watermark = 0.3; period = "
                                "\"20ms\"; pass = \"1s\"; };\n");
    shell_start(&self, "gate", (const char *const[]){"-c", file, NULL});
    larder *map = attach(&self);
    pid_t child = fork();
    if (child == 0) {
        char value[2000] = {0};
        if (larder_open("m", &(larder_options){.dir = self.map_dir, .flags = LARDER_ATTACH},
                        &map) != LARDER_OK) {
            _exit(1);
        }
        for (unsigned i = 0;; i++) {
            larder_policy policy = {.expiry = larder_expire_in(100)};
            (void)larder_set(map, &i, sizeof i, value, sizeof value, &policy);
        }
    }
    /* Stop it again and again, until it is caught with the gate. */
    bool caught = false;
    for (int i = 0; i < 400 && !caught; i++) {
        ck_assert_int_eq(kill(child, SIGSTOP), 0);
        ck_assert_int_eq(waitpid(child, NULL, WUNTRACED), child);
        caught = gate_stays_held(map);
        if (!caught) {
            ck_assert_int_eq(kill(child, SIGCONT), 0);
            usleep(1000 + (useconds_t)i * 7); /* let it run into another instant */
        }
    }
    if (caught) {
        ck_assert(shell_metric_reaches(&self, "larder_janitor_put_off_total", 3, 15000));
        ck_assert_int_eq(shell_get(self.web, "/readyz", NULL), 200);
        ck_assert_int_eq(kill(child, SIGCONT), 0);
    }
    double removed = shell_metric(&self, "larder_janitor_removed_total");
    ck_assert(shell_metric_reaches(&self, "larder_janitor_removed_total", removed + 1, 15000));
    ck_assert_int_eq(kill(child, SIGKILL), 0);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    ck_assert_msg(caught, "the writer was never caught with the gate in 400 stops");
    larder_close(&map);
    shell_end(&self, 0, 5000);
}
END_TEST

int main(void)
{
    harness_needs_redis();
    Suite *suite = suite_create("lifecycle");
    TCase *alone = tcase_create("alone");
    tcase_set_timeout(alone, 60);
    tcase_add_test(alone, tells_the_service_manager);
    tcase_add_test(alone, feeds_the_watchdog);
    tcase_add_test(alone, a_manager_that_is_gone_changes_nothing);
    tcase_add_test(alone, a_second_larderd_is_refused);
    tcase_add_test(alone, a_fenced_larderd_ends_itself);
    tcase_add_test(alone, a_removed_map_ends_it);
    tcase_add_test(alone, a_bad_reload_changes_nothing);
    tcase_add_test(alone, a_reload_while_it_starts_is_done_when_it_has_started);
    tcase_add_test(alone, a_good_reload_says_what_takes_a_restart);
    tcase_add_test(alone, removes_what_has_expired);
    tcase_add_test(alone, evicts_to_the_watermark);
    tcase_add_test(alone, clears_the_slots_of_dead_readers);
    tcase_add_test(alone, another_size_starts_a_generation);
    tcase_add_test(alone, lives_through_a_gate_that_is_held);
    suite_add_tcase(suite, alone);
    TCase *redis = tcase_create("with Redis");
    tcase_set_timeout(redis, 60);
    tcase_add_test(redis, is_ready_without_redis_and_notices_when_it_comes);
    tcase_add_test(redis, pushes_what_waits_before_it_ends);
    tcase_add_test(redis, ends_in_time_while_redis_hangs);
    tcase_add_test(redis, reads_the_password_again);
    tcase_add_test(redis, a_reload_moves_to_another_redis);
    tcase_add_test(redis, many_reloads_end_in_order);
    suite_add_tcase(suite, redis);
    return harness_run(suite);
}
