/* combined: plain writes that another process carries out, against those that read what stands
 * there and write it again. One process sets (or deletes) a key and reads it back at once; others
 * touch it, add to it, compare and swap it; two more write other keys without a pause, so that
 * writes are combined. Whatever returned OK must have happened: a touch, incr or cas may come after
 * it, but none may bring back what stood there before.
 *
 *   LARDER_ROUNDS=N   writes of each kind that are looked at
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "larder.h"

enum { OTHERS = 4, BASE = 1000000000 };

enum kind { TOUCHED, INCREMENTED, SWAPPED, KINDS };
static const char *const names[KINDS] = {"touch", "incr", "cas"};

static larder *handle;
static enum kind kind;
static uint64_t rounds;
static struct {
    _Atomic bool stop;
} * shared;

static void meddle(uint64_t turn)
{
    char value[32];
    larder_info info;
    larder_expiry expiry = larder_expire_in((int64_t)(60000 + turn % 1000));
    switch (kind) {
    case TOUCHED:
        (void)larder_touch(handle, "key", 3, &expiry);
        break;
    case INCREMENTED:
        (void)larder_incr(handle, "key", 3, 1, NULL, NULL);
        break;
    default:
        if (larder_get(handle, "key", 3, value, sizeof value, &info) == LARDER_OK) {
            (void)larder_cas(handle, "key", 3, value, info.size, &info.version, NULL);
        }
    }
}

static int other(void *context)
{
    uintptr_t self = (uintptr_t)context;
    char key[32], value[200] = "";
    for (uint64_t turn = 0; !atomic_load(&shared->stop); turn++) {
        if (self < OTHERS / 2) {
            meddle(turn);
        } else {
            int size = snprintf(key, sizeof key, "other:%" PRIuPTR ":%" PRIu64, self, turn % 50);
            (void)larder_set(handle, key, (size_t)size, value, sizeof value, NULL);
        }
    }
    return 0;
}

/* A value that was set is there until the next set, or more than it by what was added. */
static void look_after_set(uint64_t number)
{
    char text[32], back[32] = "";
    int size = snprintf(text, sizeof text, "%" PRIu64, number * BASE);
    if (larder_set(handle, "key", 3, text, (size_t)size, NULL) != LARDER_OK) {
        return; /* refused: allowed, and counted by the library */
    }
    int code = larder_get(handle, "key", 3, back, sizeof back - 1, NULL);
    if (code == LARDER_OK) {
        uint64_t got = strtoull(back, NULL, 10);
        test_check(got / BASE == number, "%s: set(%" PRIu64 ") returned OK, then get gives %s",
                   names[kind], number * BASE, back);
    }
}

static void look_after_delete(void)
{
    int code = larder_delete(handle, "key", 3);
    if (code >= 0) {
        code = larder_has(handle, "key", 3);
        /* incr makes a key that is not there, beginning from 0 */
        test_check(code == LARDER_MISS || kind == INCREMENTED,
                   "%s: delete returned OK, then the key is there", names[kind]);
    }
}

static int looker(void *context)
{
    (void)context;
    for (uint64_t number = 1; number <= rounds; number++) {
        look_after_set(number);
        if (number % 3 == 0) {
            look_after_delete();
        }
        if (number % 7 == 0) {
            test_pause_us(50); /* so that the others are in the middle of it */
        }
    }
    return 0;
}

int main(void)
{
    test_begin("combined", 120);
    rounds = test_number("LARDER_ROUNDS", 4000, 200000);
    shared = test_shared(sizeof *shared);
    larder_options options = {.dir = test_directory(), .map_size = UINT64_C(64) << 20};
    int code = larder_open("combined", &options, &handle);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    for (kind = 0; kind < KINDS; kind++) {
        pid_t children[OTHERS];
        atomic_store(&shared->stop, false);
        for (uintptr_t i = 0; i < OTHERS; i++) {
            children[i] = test_spawn(other, (void *)i); /* NOLINT(performance-no-int-to-ptr) */
        }
        pid_t looks = test_spawn(looker, NULL);
        test_join(looks, 100000, "the one that looks");
        atomic_store(&shared->stop, true);
        for (size_t i = 0; i < OTHERS; i++) {
            test_join(children[i], 10000, "another");
        }
    }
    larder_stats stats;
    test_check(larder_stats_read(handle, &stats, sizeof stats) == LARDER_OK, "stats");
    test_figure("combined_writes", (double)stats.combined, "count");
    test_check(stats.combined > 0, "no write was combined: nothing was tested");
    larder_close(&handle);
    test_end();
}
