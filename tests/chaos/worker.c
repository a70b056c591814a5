/* worker.c: a worker process of the chaos test: sets, deletes and reads at a steady pace, and looks
 * at what it reads: whole values of the key that was asked for, versions that never go back, and of
 * the keys that are its own nothing but what it wrote last.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/chaos/chaos.h"

struct worker {
    unsigned number;
    larder *map;
    struct board *board;
    struct worker_board *figures;
    struct deed *deeds;
    test_random random;
    uint64_t newest; /* of all clocks that it has read */
    larder_version seen[KEYS];
    uint8_t value[VALUE_MAX];
};

size_t key_name(uint32_t key, char out[32])
{
    if (key % 8 == 3)
        return (size_t)snprintf(out, 32, "{t%u}k:%u", key % 100, key);
    if (key % 8 == 5)
        return (size_t)snprintf(out, 32, "p%u:k:%u", key % PREFIXES, key);
    return (size_t)snprintf(out, 32, "k:%u", key);
}

int key_owner(uint32_t key)
{
    return key < KEYS - OWNED ? -1 : (int)(key % (HOSTS * WORKERS));
}

uint64_t tag_of(uint32_t key, unsigned worker, uint64_t count, bool deletion)
{
    return (uint64_t)key << 44 | (uint64_t)worker << 40 | (count & 0x1fffffffff) << 1 |
           (deletion ? 1 : 0);
}

uint32_t tag_key(uint64_t tag)
{
    return (uint32_t)(tag >> 44);
}

bool tag_deletes(uint64_t tag)
{
    return (tag & 1) != 0;
}

uint64_t tag_wide(uint64_t tag)
{
    return tag | UINT64_C(1) << 38;
}

bool tag_is_wide(uint64_t tag)
{
    return tag_deletes(tag) && (tag & UINT64_C(1) << 38) != 0;
}

uint64_t tag_refused(uint64_t tag)
{
    return tag | 1 | UINT64_C(1) << 39;
}

bool tag_is_refused(uint64_t tag)
{
    return (tag & UINT64_C(1) << 39) != 0;
}

struct board *board_map(const char *path, bool create)
{
    int file = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0), 0600);
    test_check(file >= 0, "%s: %s", path, strerror(errno));
    test_check(!create || ftruncate(file, sizeof(struct board)) == 0, "ftruncate");
    void *map = mmap(NULL, sizeof(struct board), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    test_check(map != MAP_FAILED, "mmap: %s", strerror(errno));
    close(file);
    return map;
}

static void add(_Atomic uint64_t *figure)
{
    atomic_fetch_add_explicit(figure, 1, memory_order_relaxed);
}

static size_t value_size(struct worker *self)
{
    if (test_random_below(&self->random, 30) == 0) /* too large for its event */
        return 2100 + (size_t)test_random_below(&self->random, VALUE_MAX - 2100);
    return 50 + (size_t)test_random_below(&self->random, 1900);
}

static uint32_t choose_key(struct worker *self, bool to_write)
{
    uint32_t key = (uint32_t)test_random_below(&self->random, KEYS);
    if (test_random_below(&self->random, 3) == 0)
        return (uint32_t)test_random_below(&self->random, HOT);
    if (to_write && key_owner(key) >= 0)
        key = key - key % (HOSTS * WORKERS) + self->number; /* one of its own nearby */
    return key < KEYS && (!to_write || key_owner(key) < 0 || key_owner(key) == (int)self->number)
               ? key
               : HOT;
}

static struct deed *deed_of(struct worker *self, uint32_t key)
{
    return key_owner(key) == (int)self->number ? &self->deeds[key - (KEYS - OWNED)] : NULL;
}

/* Once so many keys wait for the gate, or for room, that the table of them is full, buckets of keys
 * die instead. The library counts that, but does not say which call it was. */
static uint64_t overflows(struct worker *self)
{
    larder_stats stats;
    int code = larder_stats_read(self->map, &stats, sizeof stats);
    test_check(code == LARDER_OK, "stats: %d %s", code, larder_last_error());
    return stats.pending_overflows;
}

static int delete (struct worker *self, const char *name, size_t size, uint64_t *tag)
{
    uint64_t before = overflows(self);
    int code = larder_delete(self->map, name, size);
    test_check(code >= 0, "delete %s: %d %s", name, code, larder_last_error());
    add(&self->figures->deletes);
    if (overflows(self) != before)
        *tag = tag_wide(*tag);
    return code;
}

static int set(struct worker *self, uint32_t key, const char *name, size_t size, uint64_t tag)
{
    struct many_names text;
    larder_policy policy = {0};
    many_give(key, &text, &policy);
    if (deed_of(self, key) == NULL && test_random_below(&self->random, 10) == 0)
        policy.expiry = larder_expire_in(5000 + (int64_t)test_random_below(&self->random, 100000));
    size_t length = value_size(self);
    test_value_fill(self->value, length, tag);
    int code = larder_set(self->map, name, size, self->value, length, &policy);
    test_check(code == LARDER_OK || code == LARDER_EBUSY || code == LARDER_EFULL, "set %s: %d %s",
               name, code, larder_last_error());
    add(code == LARDER_OK ? &self->figures->sets : &self->figures->refused);
    return code;
}

static void write_key(struct worker *self, bool deletion)
{
    char name[32];
    uint32_t key = choose_key(self, true);
    size_t size = key_name(key, name);
    uint64_t count = atomic_fetch_add(&self->figures->count, 1) + 1;
    uint64_t tag = tag_of(key, self->number, count, deletion);
    struct deed *deed = deed_of(self, key);
    if (deed != NULL)
        atomic_store(&deed->begun, deletion ? tag_wide(tag) : tag); /* it may die inside */
    int code = deletion ? delete (self, name, size, &tag) : set(self, key, name, size, tag);
    if (deed == NULL)
        return;
    atomic_store(&deed->done_ms, test_now_us() / 1000);
    atomic_store(&deed->done, code >= 0 ? tag : tag_refused(tag));
}

static void check_own(struct worker *self, const struct deed *deed, const char *name, uint64_t tag)
{
    uint64_t done = atomic_load(&deed->done), begun = atomic_load(&deed->begun);
    /* after a death between begin and end either may be */
    test_check(tag == done || (tag == begun && done != tag_refused(begun)),
               "worker %u reads %s: %016" PRIx64 ", but wrote %016" PRIx64 " last", self->number,
               name, tag, done);
}

static void read_key(struct worker *self)
{
    char name[32];
    uint32_t key = choose_key(self, false);
    size_t size = key_name(key, name);
    larder_info info;
    uint64_t tag = 0, dead = many_dead(&self->board->dead[self->number / WORKERS], key);
    int code = larder_get(self->map, name, size, self->value, sizeof self->value, &info);
    add(&self->figures->gets);
    if (code == LARDER_MISS || code == LARDER_EBUSY)
        return;
    test_check(code == LARDER_OK, "get %s: %d %s", name, code, larder_last_error());
    add(&self->figures->hits);
    test_check(test_value_tag(self->value, info.size, &tag), "%s: a torn value", name);
    test_check(tag_key(tag) == key && !tag_deletes(tag), "%s has another key's value: %016" PRIx64,
               name, tag);
    larder_version *seen = &self->seen[key];
    test_check(info.version.clock > seen->clock ||
                   (info.version.clock == seen->clock && info.version.node >= seen->node),
               "%s went back: from %" PRIx64 "/%" PRIx32 " to %" PRIx64 "/%" PRIx32, name,
               seen->clock, seen->node, info.version.clock, info.version.node);
    *seen = info.version;
    self->newest = info.version.clock > self->newest ? info.version.clock : self->newest;
    test_check(info.version.clock > dead,
               "%s of %" PRIx64 "/%" PRIx32 ", over at %" PRId64
               " ms, was invalidated, up to %" PRIx64 " at least",
               name, info.version.clock, info.version.node, info.expires_ms, dead);
    const struct deed *deed = deed_of(self, key);
    if (deed != NULL)
        check_own(self, deed, name, tag);
}

static void work(struct worker *self, uint64_t rate)
{
    uint64_t next = test_now_us();
    while (!atomic_load(&self->board->stop)) {
        if (!atomic_load(&self->board->go)) {
            test_pause_us(2000);
            next = test_now_us();
            continue;
        }
        uint64_t die = test_random_below(&self->random, 10000);
        many_clear(self->map, self->board, self->number, self->newest);
        if (die < 5000)
            write_key(self, false);
        else if (die < 5600)
            write_key(self, true);
        else if (die < 5615)
            many_invalidate(self->map, self->board, self->number, self->newest, &self->random);
        else
            read_key(self);
        if (rate != 0 && atomic_load(&self->figures->count) > FILL) {
            uint64_t now = test_now_us();
            next += 1000000 / rate;
            if (now < next)
                test_pause_us(next - now);
            else if (now - next > 100000) /* it was stopped, or is too slow: no burst after it */
                next = now;
        }
    }
}

static uint64_t number(const char *text)
{
    return strtoull(text, NULL, 0);
}

int worker_main(int argc, char **argv)
{
    static struct worker self;
    test_check(argc == 5, "a worker takes five words");
    signal(SIGPIPE, SIG_IGN);
    self.number = (unsigned)number(argv[2]);
    self.board = board_map(argv[1], false);
    self.figures = &self.board->workers[self.number];
    self.deeds = self.board->deeds;
    self.random.state = number(argv[3]);
    larder_options options = {.dir = argv[0], .flags = LARDER_ATTACH};
    uint64_t deadline = test_now_us() + 60000000u * TEST_SLOWNESS;
    int code;
    while ((code = larder_open(MAP_NAME, &options, &self.map)) != LARDER_OK) {
        test_check((code == LARDER_ENOTFOUND || code == LARDER_EBUSY) && test_now_us() < deadline,
                   "open: %d %s", code, larder_last_error());
        test_pause_us(5000);
    }
    work(&self, number(argv[4]));
    larder_close(&self.map);
    return 0;
}
