/* marks.c: invalidations of groups and tags against everything else, in several processes. A set
 * that had returned before an invalidation began is never read after that has returned, however
 * often others touch the entry meanwhile; invalidators are killed and stopped at random instants
 * and the others go on.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "larder.h"

enum { PROCESSES = 4, KEYS_EACH = 8, KEYS = PROCESSES * KEYS_EACH, TAGS = 3 };

struct board {
    _Atomic uint64_t returned[KEYS]; /* the last value whose set has returned */
    _Atomic uint64_t dead[KEYS];     /* nothing up to this one may be read */
    _Atomic uint64_t hits, invalidations, next_name;
    _Atomic uint32_t stop;
};

static struct board *board;

static larder *open_map(void)
{
    larder *map = NULL;
    larder_options options = {
        .dir = test_directory(), .map_size = UINT64_C(16) << 20, .write_wait_ms = 5000};
    int result = larder_open("marks", &options, &map);
    test_check(result == LARDER_OK, "open: %d %s", result, larder_last_error());
    return map;
}

static void raise_to(_Atomic uint64_t *word, uint64_t value)
{
    uint64_t now = atomic_load(word);
    while (now < value && !atomic_compare_exchange_weak(word, &now, value)) {
    }
}

/* Key k has tag k % TAGS, and its process's group. */
static void set(larder *map, unsigned key)
{
    char name[16], group[16], tag[16];
    uint64_t value = atomic_load(&board->returned[key]) + 1;
    int size = snprintf(name, sizeof name, "key%u", key);
    int group_size = snprintf(group, sizeof group, "g%u", key / KEYS_EACH);
    int tag_size = snprintf(tag, sizeof tag, "t%u", key % TAGS);
    larder_bytes tags = {tag, (size_t)tag_size};
    larder_policy policy = {.group = {group, (size_t)group_size}, .tags = &tags, .tag_count = 1};
    int result = larder_set(map, name, (size_t)size, &value, sizeof value, &policy);
    test_check(result == LARDER_OK, "set: %d %s", result, larder_last_error());
    atomic_store(&board->returned[key], value);
}

/* Each value of a key of that tag (or group) whose set has returned by now is dead afterwards. */
static void invalidate(larder *map, bool group, unsigned number)
{
    uint64_t before[KEYS] = {0};
    char name[16];
    int size = snprintf(name, sizeof name, "%c%u", group ? 'g' : 't', number);
    larder_bytes bytes = {name, (size_t)size};
    for (unsigned key = 0; key < KEYS; key++) {
        if ((group ? key / KEYS_EACH : key % TAGS) == number) {
            before[key] = atomic_load(&board->returned[key]);
        }
    }
    int result =
        group ? larder_invalidate_group(map, bytes, NULL) : larder_invalidate_tag(map, bytes, NULL);
    test_check(result == LARDER_OK, "invalidate: %d %s", result, larder_last_error());
    for (unsigned key = 0; key < KEYS; key++) {
        raise_to(&board->dead[key], before[key]);
    }
    atomic_fetch_add(&board->invalidations, 1);
}

static void read_and_compare(larder *map, unsigned key)
{
    char name[16];
    uint64_t value = 0, dead = atomic_load(&board->dead[key]);
    int size = snprintf(name, sizeof name, "key%u", key);
    int result = larder_get(map, name, (size_t)size, &value, sizeof value, NULL);
    test_check(result == LARDER_OK || result == LARDER_MISS, "get: %d", result);
    if (result == LARDER_OK) {
        atomic_fetch_add(&board->hits, 1);
        test_check(value > dead, "%s is %llu, and %llu was invalidated", name,
                   (unsigned long long)value, (unsigned long long)dead);
    }
}

static int work(void *context)
{
    unsigned self = *(unsigned *)context;
    test_random random = test_random_new(self + 1);
    larder *map = open_map();
    larder_expiry hour = larder_expire_in(3600000);
    char name[16];
    while (atomic_load(&board->stop) == 0) {
        unsigned any = (unsigned)test_random_below(&random, KEYS);
        switch (test_random_below(&random, 16)) {
        case 0:
            invalidate(map, false, (unsigned)test_random_below(&random, TAGS));
            break;
        case 1:
            invalidate(map, true, (unsigned)test_random_below(&random, PROCESSES));
            break;
        case 2:
        case 3: {
            int size = snprintf(name, sizeof name, "key%u", any);
            int result = larder_touch(map, name, (size_t)size, &hour);
            test_check(result == LARDER_OK || result == LARDER_MISS, "touch: %d %s", result,
                       larder_last_error());
            break;
        }
        case 4:
        case 5:
        case 6:
        case 7:
            set(map, self * KEYS_EACH + (unsigned)test_random_below(&random, KEYS_EACH));
            break;
        default:
            read_and_compare(map, any);
        }
    }
    larder_close(&map);
    return 0;
}

/* New names all the time: it is in the table's gate most of the time. */
static int flood(void *context)
{
    (void)context;
    larder *map = open_map();
    while (atomic_load(&board->stop) == 0) {
        uint64_t name = atomic_fetch_add(&board->next_name, 1);
        (void)larder_invalidate_tag(map, (larder_bytes){&name, sizeof name}, NULL);
    }
    larder_close(&map);
    return 0;
}

/* An invalidation with a name of its own kills what has it, and in bounded time. */
static void still_works(larder *map, const char *when)
{
    uint64_t name = atomic_fetch_add(&board->next_name, 1);
    char buffer[8];
    larder_bytes tag = {&name, sizeof name};
    larder_policy policy = {.tags = &tag, .tag_count = 1};
    int result = larder_set(map, "probe", 5, "v", 1, &policy);
    test_check(result == LARDER_OK, "%s: set: %d %s", when, result, larder_last_error());
    uint64_t began = test_now_us();
    result = larder_invalidate_tag(map, tag, NULL);
    uint64_t took = test_now_us() - began;
    test_check(result == LARDER_OK, "%s: %d %s", when, result, larder_last_error());
    test_check(took < 2000000u * TEST_SLOWNESS, "%s: it took %llu us", when,
               (unsigned long long)took);
    result = larder_get(map, "probe", 5, buffer, sizeof buffer, NULL);
    test_check(result == LARDER_MISS, "%s: still read: %d", when, result);
}

int main(void)
{
    test_begin("marks", 120);
    board = test_shared(sizeof *board);
    larder *map = open_map();
    pid_t children[PROCESSES];
    static unsigned numbers[PROCESSES];
    for (unsigned i = 0; i < PROCESSES; i++) {
        numbers[i] = i;
        children[i] = test_spawn(work, &numbers[i]);
    }
    test_random random = test_random_new(99);
    uint64_t rounds = test_number("LARDER_KILLS", 30, 3000);
    for (uint64_t round = 0; round < rounds; round++) {
        pid_t flooder = test_spawn(flood, NULL);
        uint64_t names = atomic_load(&board->next_name);
        test_until(atomic_load(&board->next_name) > names, 20000, "nothing is invalidated");
        test_pause_us(test_random_below(&random, 5000));
        if (round % 2 == 0) {
            test_kill(flooder);
            still_works(map, "after a kill");
        } else {
            test_stop(flooder);
            still_works(map, "beside a stopped one");
            test_kill(flooder);
            still_works(map, "after it was killed");
        }
    }
    atomic_store(&board->stop, 1);
    for (unsigned i = 0; i < PROCESSES; i++) {
        test_join(children[i], 30000, "a worker");
    }
    test_check(atomic_load(&board->hits) > 100, "only %llu hits",
               (unsigned long long)atomic_load(&board->hits));
    test_figure("invalidations", (double)atomic_load(&board->invalidations), "calls");
    test_figure("names", (double)atomic_load(&board->next_name), "names");
    test_figure("hits", (double)atomic_load(&board->hits), "reads");
    larder_close(&map);
    test_end();
}
