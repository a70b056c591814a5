/* peer_uwsgi.c: starts uWSGI with a cache2 and two workers, into which uwsgi_worker.c is preloaded:
 * its C functions are called where they live, without Python or a socket between.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "peer.h"

static bool available(const struct peer_setup *setup, char *why, size_t why_size)
{
    if (setup->uwsgi_library == NULL || access(setup->uwsgi_library, R_OK) != 0) {
        snprintf(why, why_size, "the module for uWSGI was not built");
        return false;
    }
    return peer_installed("uwsgi-core", why, why_size);
}

static void say(const char *name, uint64_t number)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64, number);
    setenv(name, text, 1);
}

static pid_t start(const struct peer_setup *setup)
{
    char cache[256], socket_path[300], log[300];
    uint64_t block = 64;
    while (block < setup->value_size)
        block += 64;
    /* Its sweeper may hold a block for a moment: a tenth more than the entries. */
    snprintf(cache, sizeof cache,
             "name=bench,items=%" PRIu64 ",blocks=%" PRIu64 ",blocksize=%" PRIu64
             ",keysize=32,hashsize=%" PRIu64,
             setup->entries + setup->entries / 10 + 16, setup->entries + setup->entries / 10 + 16,
             block, setup->entries);
    snprintf(socket_path, sizeof socket_path, "%s/socket", setup->directory);
    snprintf(log, sizeof log, "%s/log", setup->directory);
    setenv("PEER_DIRECTORY", setup->directory, 1);
    setenv("PEER_STREAMS", setup->streams, 1);
    say("PEER_ENTRIES", setup->entries);
    say("PEER_VALUE_SIZE", setup->value_size);
    const char *words[] = {"uwsgi-core",
                           "--master",
                           "--no-orphans",
                           "--processes",
                           "2",
                           "--socket",
                           socket_path,
                           "--cache2",
                           cache,
                           "--hook-post-fork",
                           "call:uwsgi_bench_worker",
                           NULL};
    return peer_run(words, log, setup->uwsgi_library);
}

const struct peer peer_uwsgi = {.name = "uwsgi",
                                .what = "uwsgi_cache_magic_get, _set from C in its workers",
                                .available = available,
                                .start = start,
                                .foreign = true};
