/* peer_larder.c: larder as its users call it: larder_get into a buffer, larder_set without a
 * policy, no daemon. `larder-cold` is the same with a hot set so small that practically every
 * look-up misses it: what a key costs that was never hot.
 */
#include <stdio.h>
#include <sys/stat.h>

#include "larder.h"
#include "peer.h"

enum { COLD_HOT_SIZE = 65536 /* the least that a map takes */ };

static larder *handle;
static const char *directory;

static bool open_with(const struct peer_setup *setup, uint64_t hot_size)
{
    /* Room for the records, their log rows, and half as much again for what overwrites leave. */
    uint64_t map_size = setup->entries * (setup->value_size * 3 / 2 + 400) + (128u << 20);
    larder_options options = {.dir = setup->directory,
                              .map_size = map_size & ~UINT64_C(4095),
                              .hot_size = hot_size,
                              .write_wait_ms = 10000};
    directory = setup->directory;
    int code = larder_open("bench", &options, &handle);
    return code == LARDER_OK || peer_failed("open: %s", larder_last_error());
}

static bool open_store(const struct peer_setup *setup)
{
    return open_with(setup, setup->hot_size);
}

static bool open_cold(const struct peer_setup *setup)
{
    return open_with(setup, COLD_HOT_SIZE);
}

static int64_t get(const char *key, void *buffer, size_t buffer_size)
{
    larder_info info;
    int code = larder_get(handle, key, PEER_KEY_SIZE, buffer, buffer_size, &info);
    return code == LARDER_OK ? (int64_t)info.size : -1;
}

static bool set(const char *key, const void *value, size_t size)
{
    int code = larder_set(handle, key, PEER_KEY_SIZE, value, size, NULL);
    return code == LARDER_OK || peer_failed("set: %s", larder_last_error());
}

/* The pages in use and the control segment; the hot set has a file of its own and is not in it. */
static uint64_t memory(void)
{
    larder_stats stats;
    struct stat status;
    char path[512];
    snprintf(path, sizeof path, "%s/bench/control", directory);
    if (stat(path, &status) != 0 || larder_stats_read(handle, &stats, sizeof stats) != LARDER_OK)
        return 0;
    return stats.used_bytes + (uint64_t)status.st_size;
}

static void close_store(void)
{
    larder_close(&handle);
}

const struct peer peer_larder = {.name = "larder",
                                 .what = "larder_get, larder_set",
                                 .open = open_store,
                                 .get = get,
                                 .set = set,
                                 .memory = memory,
                                 .close = close_store};

const struct peer peer_larder_cold = {
    .name = "larder-cold",
    .what = "larder with the smallest hot set: keys that were never hot",
    .open = open_cold,
    .get = get,
    .set = set,
    .memory = memory,
    .close = close_store};
