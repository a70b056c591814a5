/* fleet.h: what the tests of replication share: hosts (a map, its larderd, and a handle of the
 * test's own) on one redis-server. Built on tests/harness.h; every wait has a deadline, and what
 * does not come in time fails the test with the host's log.
 */
#ifndef LARDER_TESTS_REDIS_FLEET_H
#define LARDER_TESTS_REDIS_FLEET_H

#include "tests/harness.h"

#include "larder.h"

#define PATIENCE_MS 15000

typedef struct host {
    char name[16], directory[128], url[160], configuration[256];
    harness_larderd larderd;
    larder *map;
    struct host *next;
} host;

/* Of the group redis: pauses and deadlines that suit a test. */
#define HOST_QUICK                                                                                  \
    "backoff_min = \"20ms\"; backoff_max = \"200ms\"; breaker_open = \"100ms\"; ping = \"300ms\"; " \
    "reply_timeout = \"1s\"; connect_timeout = \"1s\"; park = \"1s\"; retry_max = \"300ms\"; "

/* Start a larderd of this name on a map "m" of its own and attach to it. url NULL: the server's.
 * configuration: the text of one; NULL: HOST_QUICK, the prefix "t:" and a map of 64M. */
void host_start(host *self, const char *name, const harness_redis *redis, const char *url,
                const char *configuration);
/* larderd alone: SIGTERM and SIGKILL, and start it again on the same map. */
void host_stop_daemon(host *self);
void host_kill_daemon(host *self);
void host_start_daemon(host *self);
void host_end(host *self);

/* Two hosts, "a" and "b", in step with a redis-server of their own. */
void pair_start(harness_redis *redis, host *a, host *b, const char *configuration);
void pair_end(harness_redis *redis, host *a, host *b);
/* After whatever was written at once: each hears the other's next write, and all is in Redis. */
void pair_settles(host *a, host *b);

void host_set(host *self, const char *key, const char *value);
void host_set_bytes(host *self, const char *key, size_t key_size, const void *value, size_t size);
void host_delete(host *self, const char *key);

/* Does the host serve exactly this now? NULL: nothing. */
bool host_has(host *self, const char *key, const char *value);
/* Wait for it. */
void host_comes_to(host *self, const char *key, const char *value);
larder_info host_info(host *self, const char *key);

uint64_t host_dirty(host *self);
void host_dirty_comes_to(host *self, uint64_t count);
void host_drained(host *self); /* wait until Redis has acknowledged everything */
/* Its place in the stream is stored: from now on it hears what was told while it was away. One that
 * loses Redis before begins at the stream's end, and what it has not heard of are misses. */
void host_in_step(host *self);
void host_redis_up(host *self, bool up);
void host_logs(host *self, const char *text);

/* Wait until Redis's plain key is this; NULL: not there. */
void redis_comes_to(harness_redis *redis, const char *key, const char *value);

/* How often a command was called, from INFO commandstats ("evalsha"). */
uint64_t redis_calls(harness_redis *redis, const char *command);

#endif
