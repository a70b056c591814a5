/* fleet.c: see fleet.h. */
#include "tests/redis/fleet.h"
#include "lib/replica.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LOG_TOLD 4000 /* bytes of a log's end */

static host *started; /* of this test: told about where one of them fails */

static const char usual[] = "redis = { prefix = \"t:\"; " HOST_QUICK "};\n"
                            "map = { size = \"64M\"; };\n";

void host_start_daemon(host *self)
{
    const char *const arguments[] = {"-c", self->configuration, NULL};
    harness_larderd_start(&self->larderd, "m", self->directory, self->url, arguments);
}

void host_start(host *self, const char *name, const harness_redis *redis, const char *url,
                const char *configuration)
{
    char file[32];
    memset(self, 0, sizeof *self);
    (void)snprintf(self->name, sizeof self->name, "%s", name);
    (void)snprintf(self->directory, sizeof self->directory, "%s", harness_path("host-%s", name));
    (void)snprintf(self->url, sizeof self->url, "%s", url != NULL ? url : harness_redis_url(redis));
    (void)snprintf(file, sizeof file, "%s.conf", self->name);
    (void)snprintf(self->configuration, sizeof self->configuration, "%s",
                   harness_write(file, 0600, configuration != NULL ? configuration : usual));
    (void)mkdir(self->directory, 0700);
    host_start_daemon(self);
    larder_options options = {
        .dir = self->directory, .flags = LARDER_ATTACH, .write_wait_ms = 5000};
    int result = larder_open("m", &options, &self->map);
    ck_assert_msg(result == LARDER_OK, "%s", larder_last_error());
    self->next = started;
    started = self;
}

void host_stop_daemon(host *self)
{
    harness_larderd_end(&self->larderd, 10000);
}

void host_kill_daemon(host *self)
{
    (void)harness_end(&self->larderd.process, SIGKILL, 5000);
}

void host_end(host *self)
{
    host **at = &started;
    while (*at != NULL && *at != self)
        at = &(*at)->next;
    if (*at != NULL)
        *at = self->next;
    larder_close(&self->map);
    if (self->larderd.process.pid != 0)
        host_stop_daemon(self);
}

void pair_start(harness_redis *redis, host *a, host *b, const char *configuration)
{
    memset(redis, 0, sizeof *redis);
    harness_redis_start(redis, "redis");
    host_start(a, "a", redis, NULL, configuration);
    host_start(b, "b", redis, NULL, configuration);
    host_in_step(a);
    host_in_step(b);
}

void pair_end(harness_redis *redis, host *a, host *b)
{
    host_end(a);
    host_end(b);
    harness_redis_end(redis);
}

void pair_settles(host *a, host *b)
{
    host_set(a, "end a", "x");
    host_set(b, "end b", "x");
    host_comes_to(b, "end a", "x");
    host_comes_to(a, "end b", "x");
    host_drained(a);
    host_drained(b);
}

void host_set_bytes(host *self, const char *key, size_t key_size, const void *value, size_t size)
{
    int result = larder_set(self->map, key, key_size, value, size, NULL);
    ck_assert_msg(result == LARDER_OK, "%s: set: %s", self->name, larder_last_error());
}

void host_set(host *self, const char *key, const char *value)
{
    host_set_bytes(self, key, strlen(key), value, strlen(value));
}

void host_delete(host *self, const char *key)
{
    ck_assert_int_ge(larder_delete(self->map, key, strlen(key)), 0);
}

bool host_has(host *self, const char *key, const char *value)
{
    void *found = NULL;
    size_t size = 0;
    int result = larder_get_alloc(self->map, key, strlen(key), &found, &size, NULL);
    ck_assert_msg(result >= 0, "%s: get: %s", self->name, larder_last_error());
    bool same = value == NULL ? result == LARDER_MISS
                              : result == LARDER_OK && size == strlen(value) &&
                                    memcmp(found, value, size) == 0;
    larder_free(found);
    return same;
}

struct wanted {
    host *self;
    harness_redis *redis;
    const char *key, *value;
    bool up;
};

static void tell_log(const host *of)
{
    char *log = harness_log(&of->larderd.process);
    size_t size = strlen(log);
    printf("# %s: the end of the log of its larderd:\n%s\n", of->name,
           log + (size > LOG_TOLD ? size - LOG_TOLD : 0));
    free(log);
}

/* What one host lacks may be the doing of another. */
static void give_up(host *self, const char *what)
{
    for (const host *at = started; at != NULL; at = at->next)
        tell_log(at);
    (void)fflush(stdout);
    ck_abort_msg("%s: %s", self->name, what);
}

/* What it has instead, and whether it is dirty, tells a late value from a lost one. */
static void tell_entry(host *of, const char *key)
{
    void *found = NULL;
    size_t size = 0;
    larder_info info = {.flags = 0};
    int result = larder_get_alloc(of->map, key, strlen(key), &found, &size, &info);
    printf("# %s: %s is %.*s (%d), version %" PRIu64 "-%" PRIu32 ", %" PRIu64 " dirty\n", of->name,
           key, (int)(size < 60 ? size : 60), result == LARDER_OK ? (const char *)found : "",
           result, info.version.clock, info.version.node, host_dirty(of));
    larder_free(found);
}

static bool has(void *context)
{
    struct wanted *wanted = context;
    return host_has(wanted->self, wanted->key, wanted->value);
}

void host_comes_to(host *self, const char *key, const char *value)
{
    struct wanted wanted = {.self = self, .key = key, .value = value};
    char what[200];
    (void)snprintf(what, sizeof what, "%.60s never became %.60s", key,
                   value == NULL ? "absent" : value);
    if (!wait_until(has, &wanted, PATIENCE_MS)) {
        for (host *at = started; at != NULL; at = at->next)
            tell_entry(at, key);
        give_up(self, what);
    }
}

larder_info host_info(host *self, const char *key)
{
    larder_info info;
    char none[1];
    int result = larder_get(self->map, key, strlen(key), none, 0, &info);
    ck_assert_msg(result == LARDER_ESIZE || result == LARDER_OK, "%s: %d", key, result);
    return info;
}

static larder_stats stats(host *self)
{
    larder_stats read;
    ck_assert_int_eq(larder_stats_read(self->map, &read, sizeof read), LARDER_OK);
    return read;
}

uint64_t host_dirty(host *self)
{
    return stats(self).dirty;
}

static bool is_drained(void *context)
{
    return host_dirty(context) == 0;
}

void host_drained(host *self)
{
    if (!wait_until(is_drained, self, PATIENCE_MS)) {
        char what[80];
        (void)snprintf(what, sizeof what, "%" PRIu64 " entries are still dirty", host_dirty(self));
        give_up(self, what);
    }
}

struct wanted_dirty {
    host *self;
    uint64_t count;
};

static bool has_dirty(void *context)
{
    struct wanted_dirty *wanted = context;
    return host_dirty(wanted->self) == wanted->count;
}

void host_dirty_comes_to(host *self, uint64_t count)
{
    struct wanted_dirty wanted = {.self = self, .count = count};
    if (!wait_until(has_dirty, &wanted, PATIENCE_MS)) {
        char what[80];
        (void)snprintf(what, sizeof what, "%" PRIu64 " entries are dirty, not %" PRIu64,
                       host_dirty(self), count);
        give_up(self, what);
    }
}

static bool is_up(void *context)
{
    struct wanted *wanted = context;
    return (stats(wanted->self).redis_up != 0) == wanted->up;
}

void host_redis_up(host *self, bool up)
{
    struct wanted wanted = {.self = self, .up = up};
    if (!wait_until(is_up, &wanted, PATIENCE_MS))
        give_up(self, up ? "never connected" : "never saw the connection's end");
}

static bool has_place(void *context)
{
    replica_position position = {.epoch = 0};
    return replica_position_read(((host *)context)->map, &position) == LARDER_OK &&
           position.epoch != 0;
}

void host_in_step(host *self)
{
    if (!wait_until(has_place, self, PATIENCE_MS))
        give_up(self, "never stored its place in the stream");
}

void host_logs(host *self, const char *text)
{
    if (!harness_logged(&self->larderd.process, text, PATIENCE_MS))
        give_up(self, text);
}

static bool redis_has(void *context)
{
    struct wanted *wanted = context;
    return harness_redis_says(wanted->redis, wanted->value, "GET", wanted->key, NULL);
}

void redis_comes_to(harness_redis *redis, const char *key, const char *value)
{
    struct wanted wanted = {.redis = redis, .key = key, .value = value};
    if (!wait_until(redis_has, &wanted, PATIENCE_MS)) {
        char *found = harness_redis_command(redis, "GET", key, NULL);
        char *keys = harness_redis_command(redis, "KEYS", "*", NULL);
        ck_abort_msg("Redis: %s is %.100s instead of %.100s; its keys:\n%.2000s", key,
                     found == NULL ? "nil" : found, value == NULL ? "nil" : value, keys);
    }
}

uint64_t redis_calls(harness_redis *redis, const char *command)
{
    char name[64];
    char *info = harness_redis_command(redis, "INFO", "commandstats", NULL);
    ck_assert_ptr_nonnull(info);
    (void)snprintf(name, sizeof name, "cmdstat_%s:calls=", command);
    const char *at = strstr(info, name);
    uint64_t calls = at == NULL ? 0 : strtoull(at + strlen(name), NULL, 10);
    free(info);
    return calls;
}
