/* full.c: a map of 16 MiB filled far beyond its size, without a daemon. Writers make their own
 * room: no set fails, what is popular stays, the newest is there, one huge value does not push out
 * the rest, space that deletes gave back is used again. Then an old reader pins pages: the set is
 * refused with an error that names the reader's process, most of the map stays, and all goes on
 * when the reader lets go, is killed, or dies holding it.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "inspect.h"
#include "larder.h"

enum { MAP_SIZE = 16 << 20, VALUE_MAX = 64 << 10, POPULAR = 50, RECENT = 20, HUGE = 1 << 20 };

struct board {
    _Atomic uint32_t borrowed, release, released;
    _Atomic uint64_t sets, refused;
};
static struct board *board;
static const char *directory;
static larder *handle;
static uint8_t value[HUGE + 1];

static larder *open_named(const char *map)
{
    larder_options options = {.dir = directory, .map_size = MAP_SIZE, .write_wait_ms = 5000};
    larder *opened = NULL;
    int code = larder_open(map, &options, &opened);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    return opened;
}

static larder *open_map(void)
{
    return open_named("full");
}

static void is_whole(const char *when)
{
    inspect_report report;
    int code = inspect_check(handle, &report);
    test_check(code == LARDER_OK && !report.damaged, "%s: check: %d %s", when, code,
               report.damaged ? report.damage : larder_last_error());
}

static larder_stats statistics(void)
{
    larder_stats stats;
    int code = larder_stats_read(handle, &stats, sizeof stats);
    test_check(code == LARDER_OK, "stats: %d %s", code, larder_last_error());
    test_check(stats.used_bytes <= stats.map_size, "%" PRIu64 " bytes used of %" PRIu64,
               stats.used_bytes, stats.map_size);
    return stats;
}

/* 100 B .. 64 KiB, each power of two as likely as the next. */
static size_t size_of(uint64_t tag)
{
    uint64_t word = (tag + 1) * UINT64_C(0x9e3779b97f4a7c15);
    uint64_t power = 7 + (word >> 32) % 9;
    size_t size = ((size_t)1 << power) + (size_t)((word >> 40) % ((uint64_t)1 << power));
    return size < 100 ? 100 : size > VALUE_MAX ? VALUE_MAX : size;
}

static int set_tagged(larder *map, const char *key, uint64_t tag, size_t size)
{
    test_value_fill(value, size, tag);
    return larder_set(map, key, strlen(key), value, size, NULL);
}

/* 1 if the key is there with exactly these bytes, 0 if it is absent. */
static unsigned is_there(larder *map, const char *key, uint64_t tag, size_t size)
{
    larder_info info;
    int code = larder_get(map, key, strlen(key), value, sizeof value, &info);
    if (code == LARDER_MISS)
        return 0;
    test_check(code == LARDER_OK, "get %s: %d %s", key, code, larder_last_error());
    test_check(info.size == size && test_value_is(value, size, tag), "get %s: another value", key);
    return 1;
}

static void name(char out[48], const char *family, uint64_t index)
{
    snprintf(out, 48, "%s:%" PRIu64, family, index);
}

/* ---- Filling ------------------------------------------------------------------------------- */

static uint64_t flood(const char *family, uint64_t bytes, bool popular)
{
    char key[48];
    uint64_t written = 0, count = 0, misses = 0;
    for (; written < bytes; count++) {
        name(key, family, count);
        size_t size = size_of(count);
        int code = set_tagged(handle, key, count, size);
        test_check(code == LARDER_OK, "set %" PRIu64 " (%zu bytes, after %" PRIu64 " bytes): %d %s",
                   count, size, written, code, larder_last_error());
        written += size;
        if (count % 16 == 0) {
            test_check(is_there(handle, key, count, size), "%s is gone as soon as it is set", key);
        }
        if (!popular)
            continue;
        for (unsigned at = 0; at < 4; at++) { /* as readers do: a miss is filled again */
            uint64_t index = (count * 4 + at) % POPULAR;
            name(key, "popular", index);
            if (!is_there(handle, key, index, 500)) {
                misses++;
                test_check(set_tagged(handle, key, index, 500) == LARDER_OK, "set %s", key);
            }
        }
    }
    if (popular) {
        double ratio = 1.0 - (double)misses / (double)(count * 4);
        test_figure("full_popular_hit_ratio", ratio, "ratio");
        test_check(ratio > 0.95, "popular keys were pushed out by a flood: hit ratio %.3f", ratio);
    }
    return count;
}

static void fill_far_beyond(uint64_t bytes)
{
    char key[48];
    uint64_t began = test_now_us(), count = flood("k", bytes, true);
    double seconds = (double)(test_now_us() - began) / 1e6;
    unsigned recent = 0, popular = 0;
    for (uint64_t index = count - RECENT; index < count; index++) {
        name(key, "k", index);
        recent += is_there(handle, key, index, size_of(index));
    }
    for (uint64_t index = 0; index < POPULAR; index++) {
        name(key, "popular", index);
        popular += is_there(handle, key, index, 500);
    }
    larder_stats stats = statistics();
    test_figure("full_written", (double)bytes / 1e6, "MB");
    test_figure("full_sets", (double)count / seconds, "1/s");
    test_figure("full_recent_there", 100.0 * recent / RECENT, "%");
    test_figure("full_popular_there", 100.0 * popular / POPULAR, "%");
    test_figure("full_entries", (double)stats.entries, "count");
    test_figure("full_used", 100.0 * (double)stats.used_bytes / (double)stats.map_size, "%");
    test_figure("full_evictions", (double)stats.evictions, "count");
    test_check(recent >= RECENT * 3 / 4, "of the last %d keys %u are there", RECENT, recent);
    test_check(popular >= POPULAR * 9 / 10, "of %d popular keys %u are there", POPULAR, popular);
    test_check(stats.evictions > 0, "nothing was evicted");
    test_check(stats.used_bytes > stats.map_size / 4, "a full map uses only %" PRIu64 " bytes",
               stats.used_bytes);
    is_whole("after the flood");
}

static void one_huge_value(void)
{
    char key[48];
    enum { MANY = 1500 };
    unsigned before = 0, after = 0;
    larder *kept = handle;
    handle = open_named("huge");
    for (uint64_t index = 0; index < MANY; index++) {
        name(key, "many", index);
        test_check(set_tagged(handle, key, index, 6000) == LARDER_OK, "set %s: %s", key,
                   larder_last_error());
    }
    for (uint64_t index = 0; index < MANY; index++) {
        name(key, "many", index);
        before += is_there(handle, key, index, 6000);
    }
    int code = set_tagged(handle, "huge", 1, HUGE);
    test_check(code == LARDER_OK, "set of 1 MiB: %d %s", code, larder_last_error());
    test_check(is_there(handle, "huge", 1, HUGE), "the huge value is not there");
    for (uint64_t index = 0; index < MANY; index++) {
        name(key, "many", index);
        after += is_there(handle, key, index, 6000);
    }
    test_figure("full_before_a_huge_value", before, "count");
    test_figure("full_after_a_huge_value", after, "count");
    test_check(after * 2 >= before, "one huge value left %u of %u entries", after, before);
    /* over the limit: refused, the old value is not served, nothing else went */
    code = larder_set(handle, "huge", 4, value, HUGE + 1, NULL);
    test_check(code == LARDER_ETOOBIG, "set of 1 MiB + 1: %d", code);
    test_check(strstr(larder_last_error(), "1048576") != NULL, "the message names no limit: %s",
               larder_last_error());
    test_check(larder_has(handle, "huge", 4) == LARDER_MISS, "the old value is still served");
    unsigned left = 0;
    for (uint64_t index = 0; index < MANY; index++) {
        name(key, "many", index);
        left += is_there(handle, key, index, 6000);
    }
    test_check(left == after, "a refused value took %u entries with it", after - left);
    is_whole("after the huge value");
    larder_close(&handle);
    handle = kept;
}

static uint64_t delete_everything(void)
{
    larder_cursor cursor = {0};
    larder_item items[64];
    size_t found = 0;
    uint64_t count = 0;
    do {
        void *memory = NULL;
        int code = larder_scan(handle, &cursor, (larder_bytes){NULL, 0}, items, 64,
                               LARDER_SCAN_KEYS, &found, &memory);
        test_check(code == LARDER_OK, "scan: %d %s", code, larder_last_error());
        for (size_t at = 0; at < found; at++) {
            code = larder_delete(handle, items[at].key, items[at].key_size);
            /* a delete makes room like any write, and may evict what it was to delete */
            test_check(code == LARDER_OK || code == LARDER_MISS, "delete: %d %s", code,
                       larder_last_error());
            count++;
        }
        larder_free(memory);
    } while (found > 0);
    return count;
}

static void space_comes_back(void)
{
    uint64_t least = UINT64_MAX, most = 0;
    for (unsigned round = 0; round < 4; round++) {
        flood("again", MAP_SIZE * 2, false);
        uint64_t deleted = delete_everything();
        test_check(deleted > 0, "nothing to delete");
        larder_stats stats = statistics();
        test_check(stats.entries == 0, "%" PRIu64 " entries after deleting all", stats.entries);
        if (stats.used_bytes < least)
            least = stats.used_bytes;
        if (stats.used_bytes > most)
            most = stats.used_bytes;
        is_whole("after deleting all");
    }
    test_figure("full_used_when_empty", (double)most / 1e6, "MB");
    test_check(most < MAP_SIZE / 8, "an empty map uses %" PRIu64 " bytes", most);
}

/* ---- Several writers ----------------------------------------------------------------------- */

static int filler(void *context)
{
    uint64_t id = *(uint64_t *)context, bytes = 0;
    test_random random = test_random_new(id);
    larder *map = open_map();
    for (uint64_t index = 0; bytes < 30u << 20; index++) {
        char key[48];
        snprintf(key, sizeof key, "f%" PRIu64 ":%" PRIu64, id, index);
        size_t size = size_of(test_random_next(&random));
        uint64_t tag = id << 32 | index;
        int code = set_tagged(map, key, tag, size);
        atomic_fetch_add(&board->sets, 1);
        if (code == LARDER_EFULL) { /* a reader without a processor for long: seldom */
            atomic_fetch_add(&board->refused, 1);
        } else {
            test_check(code == LARDER_OK, "set: %d %s", code, larder_last_error());
        }
        is_there(map, key, tag, size); /* may be evicted already, never wrong */
        bytes += size;
    }
    larder_close(&map);
    return 0;
}

/* Reads large values, and so loses its processor inside a read now and then. */
static int hungry_reader(void *context)
{
    (void)context;
    larder *map = open_map();
    test_random random = test_random_new((uint64_t)getpid());
    while (!atomic_load(&board->release)) {
        char key[48];
        snprintf(key, sizeof key, "f%u:%u", 1 + (unsigned)test_random_below(&random, 3),
                 (unsigned)test_random_below(&random, 2000));
        int code = larder_get(map, key, strlen(key), value, sizeof value, NULL);
        test_check(code == LARDER_OK || code == LARDER_MISS, "get: %d %s", code,
                   larder_last_error());
        test_pause_us(50);
    }
    larder_close(&map);
    return 0;
}

static void fill_together(void)
{
    uint64_t ids[3] = {1, 2, 3};
    pid_t children[3], readers[3];
    *board = (struct board){0};
    for (unsigned at = 0; at < 3; at++)
        readers[at] = test_spawn(hungry_reader, NULL);
    for (unsigned at = 0; at < 3; at++)
        children[at] = test_spawn(filler, &ids[at]);
    for (unsigned at = 0; at < 3; at++)
        test_join(children[at], 60000, "one of three writers");
    atomic_store(&board->release, 1);
    for (unsigned at = 0; at < 3; at++)
        test_join(readers[at], 10000, "one of three readers");
    statistics();
    uint64_t refused = atomic_load(&board->refused), sets = atomic_load(&board->sets);
    test_figure("full_refused_beside_readers", 100.0 * (double)refused / (double)sets, "%");
    test_check(TEST_SLOWNESS > 1 || refused * 20 < sets, "%" PRIu64 " of %" PRIu64 " sets refused",
               refused, sets);
    is_whole("after three writers");
}

/* ---- An old reader ------------------------------------------------------------------------- */

static int pinner(void *context)
{
    (void)context;
    larder *map = open_map();
    larder_view view;
    int code = larder_borrow(map, "pinned", 6, &view);
    test_check(code == LARDER_OK, "borrow: %d %s", code, larder_last_error());
    atomic_store(&board->borrowed, 1);
    while (!atomic_load(&board->release))
        test_pause_us(500);
    uint8_t copy[5000];
    size_t at = 0;
    for (size_t part = 0; part < view.part_count; part++) {
        test_check(at + view.parts[part].iov_len <= sizeof copy, "the view grew");
        memcpy(copy + at, view.parts[part].iov_base, view.parts[part].iov_len);
        at += view.parts[part].iov_len;
    }
    test_check(at == sizeof copy && test_value_is(copy, at, 7), "the view changed");
    larder_release(map, &view);
    atomic_store(&board->released, 1);
    larder_close(&map);
    return 0;
}

enum way { LETS_GO, IS_KILLED, WAYS };

static void old_reader(enum way way)
{
    char key[48], pid_text[16];
    flood("base", MAP_SIZE * 2, false);
    test_check(set_tagged(handle, "pinned", 7, 5000) == LARDER_OK, "set");
    uint64_t before = statistics().entries, index = 0;
    *board = (struct board){0};
    pid_t child = test_spawn(pinner, NULL);
    test_until(atomic_load(&board->borrowed), 10000, "the reader does not borrow");
    int code = LARDER_OK;
    test_check(set_tagged(handle, "victim", 8, 300) == LARDER_OK, "set");
    for (; index < 20000 && code == LARDER_OK; index++) {
        name(key, "pressed", index);
        code = set_tagged(handle, key, index, 20000);
    }
    test_check(code == LARDER_EFULL, "20,000 sets of 20 kB beside an old reader: %d %s", code,
               larder_last_error());
    snprintf(pid_text, sizeof pid_text, "%d", (int)child);
    test_check(strstr(larder_last_error(), pid_text) != NULL, "the message names no pid %s: %s",
               pid_text, larder_last_error());
    printf("message: %s\n", larder_last_error());
    for (unsigned again = 0; again < 50; again++) { /* refused ones take nothing with them */
        name(key, "pressed", index + again);
        set_tagged(handle, key, index, 20000);
    }
    uint64_t left = statistics().entries;
    test_figure(way == LETS_GO ? "full_entries_before_an_old_reader"
                               : "full_entries_before_a_dead_one",
                (double)before, "count");
    test_figure(way == LETS_GO ? "full_entries_beside_an_old_reader"
                               : "full_entries_beside_a_dead_one",
                (double)left, "count");
    test_check(left * 3 >= before, "%" PRIu64 " of %" PRIu64 " entries left", left, before);
    /* a refused overwrite leaves no old value; a delete is never refused; reads go on */
    name(key, "pressed", 0);
    if (larder_has(handle, key, strlen(key)) == LARDER_OK &&
        set_tagged(handle, key, 1, HUGE) == LARDER_EFULL) {
        test_check(larder_has(handle, key, strlen(key)) == LARDER_MISS, "the old value is served");
    }
    code = larder_delete(handle, "victim", 6);
    test_check(code == LARDER_OK || code == LARDER_MISS, "delete in a full map: %d %s", code,
               larder_last_error());
    test_check(larder_has(handle, "victim", 6) == LARDER_MISS, "deleted and still there");
    if (way == LETS_GO) {
        atomic_store(&board->release, 1);
        test_join(child, 10000, "the reader");
    } else {
        test_kill(child);
    }
    uint64_t began = test_now_us();
    do {
        code = set_tagged(handle, "after", 9, 20000);
        test_check(code == LARDER_OK || code == LARDER_EFULL, "set: %d %s", code,
                   larder_last_error());
        test_check(test_now_us() - began < 2000000u * TEST_SLOWNESS,
                   "the map stays full after the reader %s: %s",
                   way == LETS_GO ? "let go" : "was killed", larder_last_error());
    } while (code != LARDER_OK);
    flood("on", MAP_SIZE * 2, false);
    test_check(larder_has(handle, "victim", 6) == LARDER_MISS, "deleted and back again");
    is_whole("after an old reader");
}

int main(void)
{
    test_begin("full", 90);
    directory = test_directory();
    board = test_shared(sizeof *board);
    handle = open_map();
    uint64_t began = test_now_us();
    fill_far_beyond(test_number("LARDER_MEGABYTES", 200 / TEST_SLOWNESS, 5000) << 20);
    one_huge_value();
    space_comes_back();
    fill_together();
    for (unsigned way = 0; way < WAYS; way++)
        old_reader((enum way)way);
    larder_close(&handle);
    test_figure("full_seconds", (double)(test_now_us() - began) / 1e6, "s");
    test_end();
}
