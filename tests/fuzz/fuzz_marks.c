/* fuzz_marks.c: invalidations of many as anybody could have written them to the stream: the bytes
 * as an event, and, behind eight that say how new it is, as an invalidation's name. What is taken
 * is no newer than Redis's clock allows and kills nothing that is written later; what is refused
 * kills nothing; and what this map would tell others of, they take.
 */
#include "tests/fuzz/fuzz.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "daemon/redis/wire.h"
#include "handle.h"
#include "larder.h"
#include "replica.h"

enum { TELL_EVERY = 512, TELL_AT_ONCE = 3 * REPLICA_MARKS_AT_ONCE };

static const char *const keys[] = {"user:1", "page", "\x01\xff"};
static char directory[32];
static larder *map;
static uint64_t fence;

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    (void)remove(path);
    return 0;
}

static void close_map(void)
{
    larder_close(&map);
    (void)nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void open_map(void)
{
    int other = -1;
    larder_options options = {.dir = directory, .map_size = (uint64_t)16 << 20};
    (void)snprintf(directory, sizeof directory, "/dev/shm/larder-fuzz-XXXXXX");
    fuzz_check(mkdtemp(directory) != NULL);
    fuzz_check(larder_open("m", &options, &map) == LARDER_OK);
    fuzz_check(replica_claim(map, true, &fence, &other) == LARDER_OK);
    fuzz_check(replica_publish_clock(map, fence, clock_wall_ms() - clock_monotonic_ms()) ==
               LARDER_OK);
    (void)atexit(close_map);
}

static void set_all(void)
{
    larder_bytes tag = {"t", 1};
    larder_policy policy = {.group = {"g", 1}, .tags = &tag, .tag_count = 1};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        fuzz_check(larder_set(map, keys[i], strlen(keys[i]), "v", 1, i == 1 ? NULL : &policy) ==
                   LARDER_OK);
}

static bool all_live(void)
{
    char value[1];
    bool live = true;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        live = live &&
               larder_get(map, keys[i], strlen(keys[i]), value, sizeof value, NULL) == LARDER_OK;
    return live;
}

static void check_clocks(void)
{
    struct control *control = map_control(map->map);
    uint64_t limit = clock_limit(control);
    fuzz_check(atomic_load(&control->cleared) <= limit);
    fuzz_check(atomic_load(&control->barrier_max) <= limit);
    fuzz_check(atomic_load(&control->marks.newest) <= limit);
    fuzz_check(atomic_load(&control->marks.floor) <= limit);
    fuzz_check(atomic_load(&control->sweeps.newest) <= limit);
    fuzz_check(atomic_load(&control->sweeps.floor) <= limit);
}

static enum replica_verdict take(const replica_record *record)
{
    replica_event event = {.record = *record};
    fuzz_check(replica_apply(map, fence, &event, 1, NULL) == LARDER_OK);
    fuzz_check(event.verdict == REPLICA_APPLIED || event.verdict == REPLICA_REFUSED);
    return event.verdict;
}

static void one_mark(const replica_record *record)
{
    set_all();
    fuzz_check(all_live());
    if (take(record) == REPLICA_REFUSED)
        fuzz_check(all_live());
    check_clocks();
    set_all();
    fuzz_check(all_live());
}

/* What others would be told. */
static void tell(void)
{
    static replica_marks told;
    bool restart = true;
    memset(&told, 0, sizeof told);
    for (size_t count = 0; !told.end && count < TELL_AT_ONCE; count += told.count) {
        fuzz_check(replica_marks_read(map, &told, true, true, restart) == LARDER_OK);
        restart = false;
        for (size_t i = 0; i < told.count; i++) {
            const replica_mark *mark = &told.marks[i];
            fuzz_check(mark->name_size > 0 && mark->name_size <= REPLICA_MARK_NAME_MAX);
            replica_record record = {.key = mark->name,
                                     .key_size = mark->name_size,
                                     .version = {.clock = mark->clock},
                                     .kind = REPLICA_MARK,
                                     .expires_at_ms = INT64_MAX};
            fuzz_check(take(&record) == REPLICA_APPLIED);
        }
    }
}

/* An event that a larderd would write is read as what it is. */
static void one_name(uint64_t clock, const uint8_t *name, size_t size)
{
    char head[WIRE_RECORD_MAX], *event = malloc(WIRE_EVENT_HEAD_MAX + size);
    fuzz_check(event != NULL);
    replica_record record = {.version = {.clock = clock},
                             .kind = REPLICA_MARK,
                             .expires_at_ms = INT64_MAX,
                             .key_size = size};
    size_t head_size = wire_record(&record, head);
    size_t at = wire_event_head(head, head_size, size, false, 1, 2, event);
    memcpy(event + at, name, size);
    sync_change read;
    memset(&read, 0, sizeof read);
    wire_event_read(event, at + size, &read);
    fuzz_check(!read.malformed && read.record.kind == REPLICA_MARK && !read.value_missing);
    fuzz_check(read.record.version.clock == clock && read.record.key_size == size &&
               memcmp(read.record.key, name, size) == 0);
    one_mark(&read.record);
    free(event);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint64_t runs;
    sync_change read;
    uint64_t clock;
    if (map == NULL)
        open_map();
    memset(&read, 0, sizeof read);
    wire_event_read((const char *)data, size, &read);
    if (!read.malformed && !read.begin && read.record.kind == REPLICA_MARK)
        one_mark(&read.record);
    if (size > sizeof clock && size - sizeof clock <= LARDER_KEY_MAX) {
        memcpy(&clock, data, sizeof clock);
        one_name(clock == 0 ? 1 : clock, data + sizeof clock, size - sizeof clock);
    }
    if (++runs % TELL_EVERY == 0)
        tell();
    return 0;
}
