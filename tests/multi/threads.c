/* threads.c: threads of one process. A thread per request, thousands of them one after another and
 * sixteen at once: reader slots are given back when a thread ends, so they never run out; and
 * sixteen threads that write and read the same keys through one handle see no torn and no lost
 * write.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "inspect.h"
#include "larder.h"

enum { AT_ONCE = 16, KEYS = 64, VALUE_MAX = 6000 };

static larder *handle;
static _Atomic uint64_t counted;
static _Atomic uint64_t bytes_read;

static size_t key_text(char out[32], uint64_t index)
{
    return (size_t)snprintf(out, 32, "key:%" PRIu64, index);
}

static size_t size_of(uint64_t tag)
{
    return 8 + (size_t)((tag >> 7) % (VALUE_MAX - 8));
}

static void one_request(uint64_t id)
{
    uint8_t value[VALUE_MAX];
    char key[32];
    test_random random = test_random_new(id);
    size_t size = key_text(key, test_random_below(&random, KEYS));
    larder_info info;
    int code = larder_get(handle, key, size, value, sizeof value, &info);
    test_check(code == LARDER_OK || code == LARDER_MISS, "get: %d %s", code, larder_last_error());
    uint64_t tag = 0;
    if (code == LARDER_OK) {
        test_check(test_value_tag(value, info.size, &tag) && info.size == size_of(tag),
                   "get %s: torn", key);
        atomic_fetch_add(&bytes_read, info.size);
    }
    tag = test_random_next(&random);
    test_value_fill(value, size_of(tag), tag);
    code = larder_set(handle, key, size, value, size_of(tag), NULL);
    test_check(code == LARDER_OK, "set: %d %s", code, larder_last_error());
    code = larder_incr(handle, "sum", 3, 1, NULL, NULL);
    test_check(code == LARDER_OK, "incr: %d %s", code, larder_last_error());
    atomic_fetch_add(&counted, 1);
}

static void *request_thread(void *context)
{
    one_request((uint64_t)(uintptr_t)context);
    return NULL;
}

static size_t own_readers(void)
{
    static inspect_reader readers[1100];
    size_t found = 0, own = 0;
    int code = inspect_readers(handle, readers, 1100, &found);
    test_check(code == LARDER_OK, "readers: %d %s", code, larder_last_error());
    test_check(found <= 1100, "%zu readers", found);
    for (size_t at = 0; at < found; at++)
        own += readers[at].pid == (int)getpid();
    return own;
}

static void thread_per_request(uint64_t count)
{
    size_t most = 0;
    for (uint64_t id = 0; id < count; id += 4) {
        pthread_t threads[4];
        for (unsigned at = 0; at < 4; at++) {
            test_check(pthread_create(&threads[at], NULL, request_thread,
                                      (void *)(uintptr_t)(id + at)) == 0,
                       "pthread_create");
        }
        for (unsigned at = 0; at < 4; at++) {
            test_check(pthread_join(threads[at], NULL) == 0, "pthread_join");
        }
        if (id % 100 == 0) {
            size_t own = own_readers();
            if (own > most)
                most = own;
            test_check(own <= 8, "%zu reader slots for 1 living thread, after %" PRIu64, own, id);
        }
    }
    test_figure("threads_requests", (double)count, "count");
    test_figure("threads_most_reader_slots", (double)most, "count");
}

static void *view_thread(void *context)
{
    (void)context;
    larder_view view; /* ends while it holds a view: released here, by the process's other thread */
    larder_view *kept = malloc(sizeof view);
    test_check(kept != NULL, "malloc");
    int code = larder_borrow(handle, "viewed", 6, kept);
    test_check(code == LARDER_OK, "borrow: %d %s", code, larder_last_error());
    return kept;
}

static void views_outlive_threads(void)
{
    static uint8_t value[VALUE_MAX];
    test_value_fill(value, sizeof value, 99);
    test_check(larder_set(handle, "viewed", 6, value, sizeof value, NULL) == LARDER_OK, "set");
    for (unsigned round = 0; round < 200; round++) {
        pthread_t thread;
        void *kept = NULL;
        test_check(pthread_create(&thread, NULL, view_thread, NULL) == 0, "pthread_create");
        test_check(pthread_join(thread, &kept) == 0, "pthread_join");
        one_request(round);
        larder_view *view = kept;
        uint64_t first = 0;
        test_check(view->part_count > 0 && view->parts[0].iov_len >= 8, "an empty view");
        memcpy(&first, view->parts[0].iov_base, 8);
        test_check(first == 99, "the view changed when its thread ended");
        larder_release(handle, view);
        free(view);
    }
    /* and no more than 64 at a time */
    larder_view views[65];
    for (unsigned at = 0; at < 64; at++) {
        int code = larder_borrow(handle, "viewed", 6, &views[at]);
        test_check(code == LARDER_OK, "view %u: %d %s", at, code, larder_last_error());
    }
    int code = larder_borrow(handle, "viewed", 6, &views[64]);
    test_check(code == LARDER_ELIMIT, "the 65th view: %d", code);
    test_check(larder_has(handle, "viewed", 6) == LARDER_OK, "reads go on beside 64 views");
    for (unsigned at = 0; at < 64; at++)
        larder_release(handle, &views[at]);
    code = larder_borrow(handle, "viewed", 6, &views[0]);
    test_check(code == LARDER_OK, "a view after the release: %d", code);
    larder_release(handle, &views[0]);
}

static void *busy_thread(void *context)
{
    uint64_t count = *(uint64_t *)context;
    static _Atomic uint64_t ids;
    for (uint64_t round = 0; round < count; round++) {
        one_request(1000000 + atomic_fetch_add(&ids, 1));
    }
    return NULL;
}

static void sixteen_at_once(uint64_t count)
{
    pthread_t threads[AT_ONCE];
    uint64_t began = test_now_us();
    for (unsigned at = 0; at < AT_ONCE; at++) {
        test_check(pthread_create(&threads[at], NULL, busy_thread, &count) == 0, "pthread_create");
    }
    for (unsigned at = 0; at < AT_ONCE; at++) {
        test_check(pthread_join(threads[at], NULL) == 0, "pthread_join");
    }
    test_figure("threads_sixteen_requests",
                (double)(count * AT_ONCE) / ((double)(test_now_us() - began) / 1e6), "1/s");
}

int main(void)
{
    test_begin("threads", 60);
    larder_options options = {
        .dir = test_directory(), .map_size = 64u << 20, .write_wait_ms = 10000};
    int code = larder_open("threads", &options, &handle);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    thread_per_request(test_number("LARDER_REQUESTS", 2000, 100000) / TEST_SLOWNESS / 4 * 4);
    views_outlive_threads();
    sixteen_at_once(test_number("LARDER_ROUNDS", 2000, 100000) / TEST_SLOWNESS);
    test_check(own_readers() <= 66, "%zu reader slots at the end", own_readers());
    char text[32] = "";
    test_check(larder_get(handle, "sum", 3, text, sizeof text - 1, NULL) == LARDER_OK, "get");
    test_check(strtoull(text, NULL, 10) == atomic_load(&counted),
               "the counter holds %s of %" PRIu64, text, atomic_load(&counted));
    inspect_report report;
    code = inspect_check(handle, &report);
    test_check(code == LARDER_OK && !report.damaged, "check: %d %s", code,
               report.damaged ? report.damage : larder_last_error());
    larder_close(&handle);
    test_check(atomic_load(&bytes_read) > 0, "nothing was read");
    test_end();
}
