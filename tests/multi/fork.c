/* fork.c: a map opened before fork by a parent and used by its children and by the parent at once,
 * with two handles in one process, threads in the children, children of children, forks from a
 * program with many threads and forks while a view is borrowed or a transaction's snapshot is
 * cached. Meant to be run under AddressSanitizer, too.
 *
 * The sums at the end are exact: each child adds to shared counters and owns keys of its own.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
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

enum { CHILDREN = 8, OWN_KEYS = 40, MANY = 16, VALUE_MAX = 12000, THREADS = 4 };

static const char *directory;
static larder *handle, *second; /* opened by the first process, inherited by all */
static uint64_t rounds;

struct board {
    _Atomic uint64_t counted;  /* successful increments */
    _Atomic uint64_t finished; /* children */
    _Atomic uint32_t end;
};
static struct board *board;

static larder *open_map(void)
{
    larder_options options = {.dir = directory, .map_size = 64u << 20, .write_wait_ms = 5000};
    larder *opened = NULL;
    int code = larder_open("fork", &options, &opened);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    return opened;
}

static void count_one(larder *map)
{
    int code = larder_incr(map, "counter", 7, 1, NULL, NULL);
    test_check(code == LARDER_OK, "incr: %d %s", code, larder_last_error());
    atomic_fetch_add(&board->counted, 1);
}

static size_t size_of(uint64_t tag)
{
    return 8 + (size_t)((tag * 2654435761u) % (VALUE_MAX - 8));
}

struct user {
    uint64_t id, tags[OWN_KEYS]; /* what this one's keys hold; 0 = absent */
    test_random random;
    uint8_t *value;
};

static size_t own_key(char out[48], uint64_t id, unsigned index)
{
    return (size_t)snprintf(out, 48, "own:%" PRIu64 ":%02u", id, index);
}

static void verify_own(struct user *user, larder *map, unsigned index)
{
    char key[48];
    size_t size = own_key(key, user->id, index);
    larder_info info;
    int code = larder_get(map, key, size, user->value, VALUE_MAX, &info);
    uint64_t tag = user->tags[index];
    if (tag == 0) {
        test_check(code == LARDER_MISS, "get %s: %d, it is deleted", key, code);
    } else {
        test_check(code == LARDER_OK, "get %s: %d %s", key, code, larder_last_error());
        test_check(info.size == size_of(tag) && test_value_is(user->value, info.size, tag),
                   "get %s: another value", key);
    }
}

static void write_many(struct user *user, larder *map)
{
    larder_item items[MANY] = {0};
    char keys[MANY][48];
    void *memory = NULL;
    for (unsigned at = 0; at < MANY; at++) {
        uint64_t tag = test_random_next(&user->random) | 1;
        items[at].key_size = own_key(keys[at], user->id, at);
        items[at].key = keys[at];
        items[at].value = user->value; /* all the same bytes */
        items[at].value_size = size_of(tag);
        if (at == 0)
            test_value_fill(user->value, VALUE_MAX, tag);
        user->tags[at] = 0;
    }
    int code = larder_set_many(map, items, MANY, NULL);
    test_check(code == LARDER_OK, "set_many: %d %s", code, larder_last_error());
    code = larder_get_many(map, items, MANY, &memory);
    test_check(code == LARDER_OK, "get_many: %d %s", code, larder_last_error());
    for (unsigned at = 0; at < MANY; at++) {
        test_check(items[at].outcome == LARDER_OK, "get_many item: %d", items[at].outcome);
        test_check(memcmp(items[at].value, user->value, items[at].value_size) == 0,
                   "get_many %s: another value", keys[at]);
    }
    larder_free(memory);
    code = larder_delete_many(map, items, MANY);
    test_check(code == LARDER_OK, "delete_many: %d %s", code, larder_last_error());
    for (unsigned at = 0; at < MANY; at++) {
        test_check(items[at].outcome == LARDER_OK, "delete_many item: %d", items[at].outcome);
    }
}

static void scan_own(struct user *user, larder *map)
{
    char prefix[48];
    larder_bytes bytes = {prefix,
                          (size_t)snprintf(prefix, sizeof prefix, "own:%" PRIu64 ":", user->id)};
    larder_cursor cursor = {0};
    larder_item items[7];
    unsigned expected = 0, found_all = 0;
    for (unsigned index = 0; index < OWN_KEYS; index++)
        expected += user->tags[index] != 0;
    for (;;) {
        size_t found = 0;
        void *memory = NULL;
        int code = larder_scan(map, &cursor, bytes, items, 7, LARDER_SCAN_VALUES, &found, &memory);
        test_check(code == LARDER_OK, "scan: %d %s", code, larder_last_error());
        larder_free(memory);
        if (found == 0)
            break;
        found_all += (unsigned)found;
    }
    test_check(found_all == expected, "scan brought %u keys of %u", found_all, expected);
}

static void view_own(struct user *user, larder *map, unsigned index)
{
    char key[48];
    size_t size = own_key(key, user->id, index), at = 0;
    larder_view view;
    int code = larder_borrow(map, key, size, &view);
    uint64_t tag = user->tags[index];
    test_check(code == (tag != 0 ? LARDER_OK : LARDER_MISS), "borrow %s: %d", key, code);
    if (code != LARDER_OK)
        return;
    for (size_t part = 0; part < view.part_count; part++) {
        test_check(at + view.parts[part].iov_len <= VALUE_MAX, "a view too long");
        memcpy(user->value + at, view.parts[part].iov_base, view.parts[part].iov_len);
        at += view.parts[part].iov_len;
    }
    test_check(at == size_of(tag) && test_value_is(user->value, at, tag), "borrow %s: torn", key);
    larder_release(map, &view);
}

static void forget_own(struct user *user, larder *map)
{
    larder_item items[OWN_KEYS] = {0};
    char keys[OWN_KEYS][48];
    for (unsigned at = 0; at < OWN_KEYS; at++) {
        items[at].key_size = own_key(keys[at], user->id, at);
        items[at].key = keys[at];
    }
    int code = larder_delete_many(map, items, OWN_KEYS);
    test_check(code == LARDER_OK, "delete_many: %d %s", code, larder_last_error());
}

/* What every process and thread of this test does: all kinds of calls, both handles. */
static void use_map(uint64_t id, uint64_t count, larder *one, larder *other)
{
    struct user user = {.id = id, .random = test_random_new(id + 17), .value = malloc(VALUE_MAX)};
    test_check(user.value != NULL, "malloc");
    forget_own(&user, one); /* an earlier user of this number may have left some */
    for (uint64_t round = 0; round < count; round++) {
        larder *map = test_random_below(&user.random, 2) ? one : other;
        unsigned index = (unsigned)test_random_below(&user.random, OWN_KEYS);
        char key[48];
        size_t size = own_key(key, id, index);
        uint64_t dice = test_random_below(&user.random, 100);
        if (dice < 35) {
            uint64_t tag = test_random_next(&user.random) | 1;
            test_value_fill(user.value, size_of(tag), tag);
            int code = larder_set(map, key, size, user.value, size_of(tag), NULL);
            test_check(code == LARDER_OK, "set %s: %d %s", key, code, larder_last_error());
            user.tags[index] = tag;
        } else if (dice < 50) {
            int code = larder_delete(map, key, size);
            test_check(code == (user.tags[index] != 0 ? LARDER_OK : LARDER_MISS),
                       "delete %s: %d %s", key, code, larder_last_error());
            user.tags[index] = 0;
        } else if (dice < 60) {
            count_one(map);
        } else if (dice < 66) {
            view_own(&user, map, index);
        } else if (dice < 68) {
            write_many(&user, map);
        } else if (dice < 70) {
            scan_own(&user, map);
        } else {
            verify_own(&user, map, index);
        }
    }
    for (unsigned index = 0; index < OWN_KEYS; index++)
        verify_own(&user, one, index);
    free(user.value);
}

static void is_whole(larder *map)
{
    inspect_report report;
    int code = inspect_check(map, &report);
    test_check(code == LARDER_OK && !report.damaged, "check: %d %s", code,
               report.damaged ? report.damage : larder_last_error());
}

struct thread_task {
    uint64_t id;
};

static void *thread_uses(void *context)
{
    struct thread_task *task = context;
    use_map(task->id, rounds / 4, handle, second);
    return NULL;
}

static void use_in_threads(uint64_t id)
{
    pthread_t threads[THREADS];
    struct thread_task tasks[THREADS];
    for (unsigned at = 0; at < THREADS; at++) {
        tasks[at].id = id + at;
        test_check(pthread_create(&threads[at], NULL, thread_uses, &tasks[at]) == 0,
                   "pthread_create");
    }
    for (unsigned at = 0; at < THREADS; at++) {
        test_check(pthread_join(threads[at], NULL) == 0, "pthread_join");
    }
}

static int grandchild(void *context)
{
    use_map(*(uint64_t *)context, rounds / 2, second, handle);
    count_one(handle);
    return 0; /* without closing: exit runs the destructors */
}

/* Even ones close what they inherited, odd ones do not; two use threads, two fork on. */
static int child(void *context)
{
    uint64_t id = *(uint64_t *)context;
    use_map(id, rounds, handle, second);
    if (id % 4 == 1)
        use_in_threads(id * 1000);
    if (id % 4 == 2) {
        uint64_t next = id * 1000 + 500;
        pid_t further = test_spawn(grandchild, &next);
        use_map(id * 1000 + 600, rounds / 2, handle, second);
        test_join(further, 60000, "a child's child");
    }
    if (id % 4 == 3) { /* a third handle, opened and closed here */
        larder *third = open_map();
        use_map(id * 1000 + 700, rounds / 2, third, handle);
        larder_close(&third);
    }
    if (id % 2 == 0) {
        larder_close(&second);
        use_map(id * 1000 + 800, rounds / 4, handle, handle);
        larder_close(&handle);
    }
    atomic_fetch_add(&board->finished, 1);
    return 0;
}

static void eight_at_once(void)
{
    uint64_t ids[CHILDREN];
    pid_t children[CHILDREN];
    for (unsigned at = 0; at < CHILDREN; at++) {
        ids[at] = at + 1;
        children[at] = test_spawn(child, &ids[at]);
    }
    use_map(100, rounds, handle, second);
    for (unsigned at = 0; at < CHILDREN; at++)
        test_join(children[at], 60000, "a child");
    test_check(atomic_load(&board->finished) == CHILDREN, "not all children came to their end");
    use_map(101, rounds / 2, second, handle);
    is_whole(handle);
}

/* ---- Fork while a view is borrowed --------------------------------------------------------- */

static larder_view parents_view;

static int child_of_a_view(void *context)
{
    (void)context;
    use_map(300, rounds / 4, handle, second);
    larder_release(handle, &parents_view); /* does nothing here */
    use_map(301, rounds / 4, handle, second);
    for (unsigned at = 0; at < 60; at++) { /* the parent's views do not count against the child's */
        larder_view view;
        int code = larder_borrow(handle, "viewed", 6, &view);
        test_check(code == LARDER_OK, "borrow: %d %s", code, larder_last_error());
        larder_release(handle, &view);
    }
    return 0;
}

static void fork_with_a_view(void)
{
    static uint8_t value[VALUE_MAX];
    test_value_fill(value, sizeof value, 4711);
    test_check(larder_set(handle, "viewed", 6, value, sizeof value, NULL) == LARDER_OK, "set");
    int code = larder_borrow(handle, "viewed", 6, &parents_view);
    test_check(code == LARDER_OK, "borrow: %d %s", code, larder_last_error());
    test_join(test_spawn(child_of_a_view, NULL), 30000, "the child of a view");
    /* overwrite the key and much else: the pages of the view must stay as they were */
    static uint8_t other[VALUE_MAX];
    memset(other, 0x5a, sizeof other);
    for (unsigned round = 0; round < 50; round++) {
        test_check(larder_set(handle, "viewed", 6, other, sizeof other, NULL) == LARDER_OK, "set");
        use_map(302, 20, handle, second);
    }
    size_t at = 0;
    for (size_t part = 0; part < parents_view.part_count; part++) {
        const struct iovec *piece = &parents_view.parts[part];
        test_check(at + piece->iov_len <= sizeof value &&
                       memcmp(piece->iov_base, value + at, piece->iov_len) == 0,
                   "the view changed under its holder");
        at += piece->iov_len;
    }
    test_check(at == sizeof value, "the view has %zu bytes", at);
    larder_release(handle, &parents_view);
    is_whole(handle);
}

/* ---- Forks from a program with threads ----------------------------------------------------- */

static void *busy_thread(void *context)
{
    struct thread_task *task = context;
    while (!atomic_load(&board->end))
        use_map(task->id, 50, handle, second);
    return NULL;
}

static int short_child(void *context)
{
    use_map(*(uint64_t *)context, 30, handle, second);
    return 0;
}

static void fork_from_threads(uint64_t forks)
{
    pthread_t threads[THREADS];
    struct thread_task tasks[THREADS];
    atomic_store(&board->end, 0);
    for (unsigned at = 0; at < THREADS; at++) {
        tasks[at].id = 400 + at;
        test_check(pthread_create(&threads[at], NULL, busy_thread, &tasks[at]) == 0,
                   "pthread_create");
    }
    for (uint64_t round = 0; round < forks; round++) {
        uint64_t id = 500 + round;
        test_join(test_spawn(short_child, &id), 20000, "a child of a program with threads");
    }
    atomic_store(&board->end, 1);
    for (unsigned at = 0; at < THREADS; at++) {
        test_check(pthread_join(threads[at], NULL) == 0, "pthread_join");
    }
    is_whole(handle);
}

/* ---- Handles of one process ---------------------------------------------------------------- */

static void many_handles(void)
{
    larder *handles[20];
    for (unsigned at = 0; at < 20; at++)
        handles[at] = open_map();
    test_check(larder_set(handles[3], "h", 1, "one", 3, NULL) == LARDER_OK, "set");
    for (unsigned at = 0; at < 20; at++) {
        char value[3];
        test_check(larder_get(handles[at], "h", 1, value, 3, NULL) == LARDER_OK &&
                       memcmp(value, "one", 3) == 0,
                   "handle %u does not see it", at);
        larder_close(&handles[at]);
        test_check(handles[at] == NULL, "close leaves the pointer");
    }
    larder_close(&handles[0]);
    test_check(larder_has(handle, "h", 1) == LARDER_OK, "the others' closing hurt this handle");
}

int main(void)
{
    test_begin("fork", 90);
    rounds = test_number("LARDER_ROUNDS", 1500 / TEST_SLOWNESS, 40000 / TEST_SLOWNESS);
    directory = test_directory();
    board = test_shared(sizeof *board);
    handle = open_map();
    second = open_map();
    use_map(99, 200, handle, second); /* so that the parent has a cached transaction */
    uint64_t began = test_now_us();
    many_handles();
    eight_at_once();
    fork_with_a_view();
    /* Sanitizers' own locks do not survive a fork beside running threads: not with them. */
    if (TEST_SLOWNESS == 1)
        fork_from_threads(test_number("LARDER_FORKS", 100, 2000));
    int64_t sum = 0;
    char text[32] = "";
    test_check(larder_get(handle, "counter", 7, text, sizeof text - 1, NULL) == LARDER_OK, "get");
    sum = strtoll(text, NULL, 10);
    test_check(sum == (int64_t)atomic_load(&board->counted),
               "the counter holds %" PRId64 " of %" PRIu64, sum, atomic_load(&board->counted));
    inspect_reader readers[64];
    size_t found = 0;
    test_check(inspect_readers(handle, readers, 64, &found) == LARDER_OK, "readers");
    larder_close(&second);
    larder_close(&handle);
    test_figure("fork_increments", (double)sum, "count");
    test_figure("fork_readers_at_the_end", (double)found, "count");
    test_figure("fork_seconds", (double)(test_now_us() - began) / 1e6, "s");
    test_end();
}
