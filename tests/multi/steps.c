/* steps.c: a process is held after every single instruction (or a sample of them) of a read or a
 * write, another one writes, deletes or kills it right there, and lets it go on. What then is read
 * must be whole, not older than what had returned, and the same through the hot set and the trees.
 *
 * The process is stepped by ptrace(2); it marks its begin and end with breakpoints of its own.
 * x86-64 only. LARDER_STEPS: instructions tried of each scene (0: all of them). The short form
 * gives each scene SCENE_MS, so that a slow machine, or counted lines, make fewer trials and not a
 * timeout.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "handle.h"
#include "harness.h"
#include "inspect.h"
#include "key.h"
#include "larder.h"
#include "removal.h"
#include "upkeep.h"

enum { SIZE = 300, NEIGHBOURS = 64, FIRST_SIZE = 16 << 20, SECOND_SIZE = 20 << 20 };
enum { SCENE_MS = 12000, LEAST_TRIALS = 4 };
enum operation { OP_GET, OP_SET, OP_DELETE };

static struct board {
    enum operation operation;
    uint64_t number; /* of the value that OP_SET stores */
    _Atomic int done;
    int result;
    uint64_t size;
    uint8_t value[SIZE];
} * board;

static const char *directory;
static larder *handle;
static pid_t child;
static uint64_t last_number, trials;
static const char key[] = "key";
enum { KEY_SIZE = sizeof key - 1 };

static larder *open_map(void)
{
    larder_options options = {
        .dir = directory, .map_size = FIRST_SIZE, .hot_size = 64 << 10, .write_wait_ms = 1};
    larder *opened = NULL;
    int result = larder_open("steps", &options, &opened);
    test_check(result == LARDER_OK, "open: %d %s", result, larder_last_error());
    return opened;
}

/* ---- The process that is stepped --------------------------------------------------------------
 */

static void breakpoint(void)
{
#ifdef __x86_64__
    __asm__ volatile("int3" ::: "memory");
#endif
}

static int stepped(void *context)
{
    (void)context;
    uint8_t value[SIZE];
    test_check(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0, "ptrace: %s", strerror(errno));
    larder *own = open_map();
    (void)larder_has(own, "other", 5);
    for (;;) {
        larder_info info = {.size = 0};
        int result = LARDER_OK;
        breakpoint();
        if (board->operation == OP_GET) {
            result = larder_get(own, key, KEY_SIZE, value, sizeof value, &info);
        } else if (board->operation == OP_SET) {
            test_value_fill(value, SIZE, board->number);
            result = larder_set(own, key, KEY_SIZE, value, SIZE, NULL);
        } else {
            result = larder_delete(own, key, KEY_SIZE);
        }
        atomic_store(&board->done, 1);
        board->result = result;
        board->size = info.size;
        memcpy(board->value, value, sizeof value);
        breakpoint();
    }
}

static void wait_for_trap(void)
{
    int status = 0;
    pid_t got;
    while ((got = waitpid(child, &status, 0)) < 0 && errno == EINTR) {
    }
    test_check(got == child && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP,
               "the stepped process: %s", test_status_text(status));
}

static void go_on(void)
{
    test_check(ptrace(PTRACE_CONT, child, NULL, NULL) == 0, "PTRACE_CONT: %s", strerror(errno));
    wait_for_trap();
}

static void start(void)
{
    child = test_spawn(stepped, NULL);
    wait_for_trap();
}

/* Let it do something in one go. */
static void perform(enum operation operation)
{
    board->operation = operation;
    go_on();
    go_on();
}

/* ---- What is there ----------------------------------------------------------------------------
 */

static int set(uint64_t number)
{
    uint8_t value[SIZE];
    test_value_fill(value, sizeof value, number);
    return larder_set(handle, key, KEY_SIZE, value, sizeof value, NULL);
}

static uint64_t number_of(int result, const void *value, uint64_t size, const char *how)
{
    uint64_t number = 0;
    test_check(result == LARDER_OK || result == LARDER_MISS, "%s: %d %s", how, result,
               larder_last_error());
    test_check(result == LARDER_MISS || (size == SIZE && test_value_tag(value, SIZE, &number)),
               "%s: torn", how);
    return number;
}

/* The number of the value that all ways to read find, 0: none. */
static uint64_t look(const char *when)
{
    uint8_t value[SIZE];
    larder_info info = {.size = 0};
    larder_view view;
    larder_item item = {.key = key, .key_size = KEY_SIZE};
    void *memory = NULL;
    int result = larder_get(handle, key, KEY_SIZE, value, sizeof value, &info);
    uint64_t first = number_of(result, value, info.size, "get");
    result = larder_borrow(handle, key, KEY_SIZE, &view);
    uint64_t viewed = number_of(result, result == LARDER_OK ? view.parts[0].iov_base : NULL,
                                view.info.size, "borrow");
    larder_release(handle, &view);
    result = larder_get_many(handle, &item, 1, &memory);
    test_check(result == LARDER_OK, "get_many: %d", result);
    uint64_t many = number_of(item.outcome, item.value, item.value_size, "get_many");
    larder_free(memory);
    result = larder_get(handle, key, KEY_SIZE, value, sizeof value, &info);
    uint64_t again = number_of(result, value, info.size, "get");
    test_check(first == viewed && viewed == many && many == again,
               "%s: get finds %" PRIu64 ", borrow %" PRIu64 ", get_many %" PRIu64 ", get %" PRIu64,
               when, first, viewed, many, again);
    return first;
}

/* ---- Scenes -----------------------------------------------------------------------------------
 */

struct scene {
    const char *name;
    enum operation operation;
    bool cold;                      /* no copy in the hot set before */
    bool followed;                  /* so that the set takes a transaction */
    void (*meddle)(struct scene *); /* while it is held */
    uint64_t before, written;       /* numbers: what was there; what the operation stores */
    uint64_t meddled;               /* what the meddler stored, 0: nothing */
    bool removed;                   /* the meddler's, or a pending, delete has returned */
    bool ends;                      /* the process is killed */
    unsigned limit;                 /* trials at most, in the short form; 0: LARDER_STEPS */
};

static void write_over(struct scene *scene)
{
    uint64_t number = ++last_number;
    int result = set(number);
    if (result == LARDER_OK) {
        scene->meddled = number;
    } else {
        test_check(result == LARDER_EBUSY, "set: %d %s", result, larder_last_error());
        scene->removed = true; /* a refused set leaves a miss */
    }
}

static void delete_it(struct scene *scene)
{
    int result = larder_delete(handle, key, KEY_SIZE);
    test_check(result == LARDER_OK || result == LARDER_MISS, "delete: %d", result);
    scene->removed = true;
}

/* Everything on the key's page makes way for others, so that its lines hold other bytes. */
static void crowd_out(struct scene *scene)
{
    uint8_t value[SIZE];
    char other[32];
    delete_it(scene);
    for (unsigned i = 0; i < NEIGHBOURS; i++) {
        size_t size = (size_t)snprintf(other, sizeof other, "neighbour %u", i);
        test_value_fill(value, sizeof value, 1000 + i);
        (void)larder_set(handle, other, size, value, sizeof value, NULL);
        (void)larder_get(handle, other, size, value, sizeof value, NULL);
    }
}

static void kill_it(struct scene *scene)
{
    test_kill(child);
    scene->ends = true;
}

/* The delete was refused before the operation began; now the next generation makes it durable. */
static void switch_generation(struct scene *scene)
{
    static unsigned turn;
    bool changed = false;
    (void)scene;
    int result = upkeep_resize(handle, turn++ % 2 == 0 ? SECOND_SIZE : FIRST_SIZE, &changed);
    test_check(result == LARDER_OK && changed, "resize: %d %s", result, larder_last_error());
    result = larder_set(handle, "other", 5, "x", 1, NULL);
    test_check(result == LARDER_OK, "set: %d %s", result, larder_last_error());
    test_check(removal_count_pending(map_control(handle->map)) == 0, "it still pends");
}

static void prepare(struct scene *scene)
{
    struct key made;
    board->operation = OP_GET;
    scene->before = ++last_number;
    scene->written = scene->operation == OP_SET ? ++last_number : 0;
    scene->meddled = 0;
    scene->removed = false;
    test_check(set(scene->before) == LARDER_OK, "set: %s", larder_last_error());
    test_check(look("before") == scene->before, "before: not there");
    perform(OP_GET);   /* so that it has a reader of this generation */
    if (scene->cold) { /* a write of another process takes the copy out, or leaves a fresh one */
        struct transaction *t;
        test_check(registry_reader(handle->map, &t) == LARDER_OK, "no reader");
        test_check(key_make(&made, key, KEY_SIZE) == LARDER_OK, "key");
        struct hotset_key hot = {.hash = made.hash, .data = key, .size = KEY_SIZE};
        (void)hotset_forget(&t->store->hot, &hot, 0);
    }
    if (scene->meddle == switch_generation) {
        test_check(key_make(&made, key, KEY_SIZE) == LARDER_OK, "key");
        struct control *control = map_control(handle->map);
        (void)removal_pend(control, &made, clock_next(control));
        scene->removed = true;
    }
    board->operation = scene->operation;
    board->number = scene->written;
    atomic_store(&board->done, 0);
}

/* What the operation itself found, and what is there now that it has returned. */
static void judge(const struct scene *scene)
{
    bool pended = scene->meddle == switch_generation;
    if (scene->operation == OP_GET && !scene->ends) {
        uint64_t number = number_of(board->result, board->value, board->size, "the stepped get");
        if (pended) {
            test_check(number == 0, "it finds what was deleted before");
        } else {
            test_check(number == scene->before || (number == 0 && scene->removed) ||
                           (number != 0 && number == scene->meddled),
                       "it finds %" PRIu64 " where %" PRIu64 " was", number, scene->before);
        }
    }
    uint64_t now = look("afterwards");
    if (scene->operation == OP_GET) {
        uint64_t wanted = scene->removed ? 0 : scene->meddled != 0 ? scene->meddled : scene->before;
        test_check(now == wanted, "afterwards %" PRIu64 " is there, not %" PRIu64, now, wanted);
        return;
    }
    /* two writers at once: either may have been the last; the value of before is nobody's */
    bool killed = scene->ends;
    test_check(now != scene->before || killed, "the old value %" PRIu64 " is back", now);
    test_check(now == 0 || now == scene->written || now == scene->meddled || killed,
               "afterwards %" PRIu64 " is there", now);
    if (now == 0) {
        test_check(scene->removed || scene->operation == OP_DELETE, "nothing is there");
    }
}

/* Hold it after that many instructions. False: it has fewer. */
static bool trial(struct scene *scene, uint64_t instructions)
{
    prepare(scene);
    for (uint64_t i = 0; i < instructions && atomic_load(&board->done) == 0; i++) {
        test_check(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0, "PTRACE_SINGLESTEP: %s",
                   strerror(errno));
        wait_for_trap();
    }
    bool reached = atomic_load(&board->done) == 0;
    scene->meddle(scene);
    if (!scene->ends) {
        if (scene->removed && scene->meddled == 0 && scene->operation != OP_SET) {
            test_check(look("at once") == 0, "deleted, and still there");
        }
        go_on();
    }
    judge(scene);
    if (scene->ends) {
        scene->ends = false;
        start();
    } else {
        go_on();
    }
    trials++;
    return reached;
}

static uint64_t length_of(struct scene *scene)
{
    prepare(scene);
    uint64_t count = 0;
    for (; atomic_load(&board->done) == 0; count++) {
        test_check(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0, "PTRACE_SINGLESTEP: %s",
                   strerror(errno));
        wait_for_trap();
    }
    go_on();
    go_on();
    return count;
}

/* Steps of that many, taken round and round, come to each of `count` parts. */
static uint64_t coprime_near(uint64_t count, uint64_t number)
{
    for (uint64_t stride = number < 1 ? 1 : number;; stride++) {
        uint64_t a = count, b = stride;
        while (b != 0) {
            uint64_t rest = a % b;
            a = b;
            b = rest;
        }
        if (a == 1)
            return stride;
    }
}

static void play_through(struct scene *scene, test_random *random, uint64_t steps)
{
    uint64_t length = length_of(scene);
    uint64_t wanted = scene->limit != 0 && scene->limit < steps ? scene->limit : steps;
    printf("steps: %s: %" PRIu64 " instructions\n", scene->name, length);
    if (steps == 0 || wanted >= length) {
        for (uint64_t at = 0; trial(scene, at); at++) {
        }
        return;
    }
    const int64_t until = clock_monotonic_ms() + SCENE_MS;
    uint64_t stride = coprime_near(wanted, wanted * 5 / 8), part = 0;
    for (uint64_t i = 0; i < wanted; i++) { /* one of each part, so that none is left out */
        uint64_t first = length * part / wanted, end = length * (part + 1) / wanted;
        (void)trial(scene, first + test_random_below(random, end - first));
        part = (part + stride) % wanted; /* spread, wherever time ends it */
        if (i + 1 >= LEAST_TRIALS && i + 1 < wanted && clock_monotonic_ms() >= until) {
            printf("steps: %s: time for %" PRIu64 " of %" PRIu64 " trials\n", scene->name, i + 1,
                   wanted);
            break;
        }
    }
}

static void play(struct scene *scene, test_random *random, uint64_t steps)
{
    larder_follower *follower = NULL;
    if (scene->followed)
        test_check(larder_follow(handle, NULL, &follower) == LARDER_OK, "follow: %s",
                   larder_last_error());
    play_through(scene, random, steps);
    larder_unfollow(&follower);
}

int main(void)
{
    static struct scene scenes[] = {
        {.name = "hit, then written over", .operation = OP_GET, .meddle = write_over},
        {.name = "hit, then crowded out", .operation = OP_GET, .meddle = crowd_out},
        {.name = "fill, then written over",
         .operation = OP_GET,
         .cold = true,
         .meddle = write_over},
        {.name = "fill, then deleted", .operation = OP_GET, .cold = true, .meddle = delete_it},
        {.name = "fill, then killed", .operation = OP_GET, .cold = true, .meddle = kill_it},
        {.name = "set, then written over", .operation = OP_SET, .meddle = write_over},
        {.name = "set, then deleted", .operation = OP_SET, .meddle = delete_it},
        {.name = "set, then killed", .operation = OP_SET, .meddle = kill_it},
        {.name = "set in a transaction, then written over",
         .operation = OP_SET,
         .followed = true,
         .meddle = write_over,
         .limit = 20},
        {.name = "set in a transaction, then deleted",
         .operation = OP_SET,
         .followed = true,
         .meddle = delete_it,
         .limit = 20},
        {.name = "set in a transaction, then killed",
         .operation = OP_SET,
         .followed = true,
         .meddle = kill_it,
         .limit = 20},
        {.name = "delete, then written over",
         .operation = OP_DELETE,
         .meddle = write_over,
         .limit = 20},
        {.name = "deleted before, then another generation",
         .operation = OP_GET,
         .meddle = switch_generation,
         .limit = 60},
    };
    test_begin("steps", 240);
#ifndef __x86_64__
    test_skip("breakpoints are written for x86-64");
#endif
    if (TEST_SLOWNESS > 1) {
        test_skip("a sanitizer's instructions are not the library's");
    }
    test_random random = test_random_new(1);
    uint64_t steps = test_number("LARDER_STEPS", 80, 0);
    if (steps == 0) {
        (void)alarm(6 * 3600); /* every instruction is a trial, and each begins at the first */
    }
    board = test_shared(sizeof *board);
    directory = test_directory();
    handle = open_map();
    start();
    for (size_t i = 0; i < sizeof scenes / sizeof scenes[0]; i++) {
        play(&scenes[i], &random, steps);
    }
    test_kill(child);
    test_figure("steps_trials", (double)trials, "count");
    larder_close(&handle);
    test_end();
}
