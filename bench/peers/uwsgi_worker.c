/* uwsgi_worker.c: a module that is preloaded into uWSGI: each of its workers calls
 * uwsgi_bench_worker after fork and becomes a worker of the comparison that reaches uWSGI's cache
 * by the C functions its own plugins use. The two declarations are uwsgi.h's (2.0).
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peer.h"

extern char *uwsgi_cache_magic_get(char *key, uint16_t key_size, uint64_t *value_size,
                                   uint64_t *expires, char *cache);
extern int uwsgi_cache_magic_set(char *key, uint16_t key_size, char *value, uint64_t value_size,
                                 uint64_t expires, uint64_t flags, char *cache);
void uwsgi_bench_worker(void);

enum { UPDATE = 1 << 1 }; /* UWSGI_CACHE_FLAG_UPDATE */

static char cache_name[] = "bench";

static bool open_store(const struct peer_setup *setup)
{
    (void)setup;
    return true;
}

static int64_t get(const char *key, void *buffer, size_t buffer_size)
{
    uint64_t size = 0;
    char *value =
        uwsgi_cache_magic_get((char *)(uintptr_t)key, PEER_KEY_SIZE, &size, NULL, cache_name);
    if (value == NULL)
        return -1;
    if (size <= buffer_size)
        memcpy(buffer, value, size);
    free(value);
    return (int64_t)size;
}

static bool set(const char *key, const void *value, size_t size)
{
    int code = uwsgi_cache_magic_set((char *)(uintptr_t)key, PEER_KEY_SIZE,
                                     (char *)(uintptr_t)value, size, 0, UPDATE, cache_name);
    return code == 0 || peer_failed("uwsgi_cache_magic_set: %d", code);
}

static const struct peer inside = {
    .name = "uwsgi", .what = "", .open = open_store, .get = get, .set = set};

/* The first to make the file is worker 0. */
static unsigned claim_number(const char *directory)
{
    char path[512];
    for (unsigned number = 0;; number++) {
        snprintf(path, sizeof path, "%s/claimed.%u", directory, number);
        int file = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
        if (file >= 0) {
            close(file);
            return number;
        }
        if (number >= PEER_WORKERS)
            _exit(4);
    }
}

void uwsgi_bench_worker(void)
{
    static struct peer_setup setup;
    const char *entries = getenv("PEER_ENTRIES"), *value_size = getenv("PEER_VALUE_SIZE");
    setup.directory = getenv("PEER_DIRECTORY");
    setup.streams = getenv("PEER_STREAMS");
    if (setup.directory == NULL || setup.streams == NULL || entries == NULL || value_size == NULL)
        _exit(5);
    setup.entries = strtoull(entries, NULL, 10);
    setup.value_size = strtoull(value_size, NULL, 10);
    _exit(peer_worker(&inside, &setup, claim_number(setup.directory)));
}
