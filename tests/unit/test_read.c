/* test_read.c: reading in all its forms: buffers too small, views of chunked values, batches,
 * absent entries, reads that cannot look, and what is no argument.
 */
#include <check.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "evict.h"
#include "format.h"
#include "hotset.h"
#include "key.h"
#include "registry.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"

static larder *map;
static uint8_t big[3 * CHUNK_SIZE + 100];

static void open_map(void)
{
    larder_policy negative = {.flags = LARDER_NEGATIVE};
    map = maps_new();
    for (size_t i = 0; i < sizeof big; i++) {
        big[i] = (uint8_t)(i * 31 + i / 4080);
    }
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "big", 3, big, sizeof big, NULL), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "empty", 5, "", 0, NULL), LARDER_OK);
    ck_assert_int_eq(larder_set(map, "absent", 6, NULL, 0, &negative), LARDER_OK);
}

static void close_map(void)
{
    maps_whole(map);
    larder_close(&map);
}

START_TEST(a_buffer_that_is_too_small_is_left_alone)
{
    char buffer[8];
    larder_info info = {.size = 0};
    memset(buffer, '#', sizeof buffer);
    ck_assert_int_eq(larder_get(map, "key", 3, buffer, 4, &info), LARDER_ESIZE);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "5 bytes"));
    ck_assert_mem_eq(buffer, "########", 8);
    ck_assert_uint_eq(info.size, 5);
    ck_assert_uint_ne(info.version.clock, 0);
    ck_assert_int_eq(larder_get(map, "key", 3, buffer, 5, NULL), LARDER_OK);
    ck_assert_mem_eq(buffer, "value###", 8);
    ck_assert_int_eq(larder_get(map, "key", 3, NULL, 0, &info), LARDER_ESIZE); /* asks the size */
    ck_assert_int_eq(larder_get(map, "empty", 5, NULL, 0, &info), LARDER_OK);
    ck_assert_uint_eq(info.size, 0);
    ck_assert_int_eq(larder_get(map, "absent", 6, NULL, 0, &info), LARDER_ABSENT);
    ck_assert_int_eq(larder_get(map, "nothing", 7, buffer, 8, &info), LARDER_MISS);
    ck_assert_int_eq(larder_get(map, "big", 3, big, sizeof big - 1, &info), LARDER_ESIZE);
    ck_assert_uint_eq(info.size, sizeof big);
}
END_TEST

START_TEST(memory_of_the_librarys_own)
{
    void *value = &value;
    size_t size = 99;
    larder_info info;
    ck_assert_int_eq(larder_get_alloc(map, "big", 3, &value, &size, &info), LARDER_OK);
    ck_assert_uint_eq(size, sizeof big);
    ck_assert_uint_eq(info.size, sizeof big);
    ck_assert_mem_eq(value, big, sizeof big);
    larder_free(value);
    ck_assert_int_eq(larder_get_alloc(map, "empty", 5, &value, &size, NULL), LARDER_OK);
    ck_assert_ptr_nonnull(value); /* an empty value is one */
    ck_assert_uint_eq(size, 0);
    larder_free(value);
    ck_assert_int_eq(larder_get_alloc(map, "absent", 6, &value, &size, NULL), LARDER_ABSENT);
    larder_free(value);
    ck_assert_int_eq(larder_get_alloc(map, "nothing", 7, &value, &size, NULL), LARDER_MISS);
    ck_assert_ptr_null(value);
    larder_free(NULL);
}
END_TEST

START_TEST(a_view_is_the_value_in_parts)
{
    larder_view view;
    ck_assert_int_eq(larder_borrow(map, "big", 3, &view), LARDER_OK);
    ck_assert_uint_eq(view.part_count, 4);
    ck_assert_uint_eq(view.info.size, sizeof big);
    size_t at = 0;
    for (size_t i = 0; i < view.part_count; i++) {
        ck_assert_uint_eq(view.parts[i].iov_len, i < 3 ? CHUNK_SIZE : 100);
        ck_assert_mem_eq(view.parts[i].iov_base, big + at, view.parts[i].iov_len);
        at += view.parts[i].iov_len;
    }
    for (int i = 0; i < 20; i++) { /* it stands still while others write */
        ck_assert_int_eq(larder_set(map, "big", 3, "other", 5, NULL), LARDER_OK);
        ck_assert_int_eq(maps_delete(map, "big"), LARDER_OK);
    }
    ck_assert_mem_eq(view.parts[0].iov_base, big, CHUNK_SIZE);
    ck_assert_mem_eq(view.parts[3].iov_base, big + 3 * (size_t)CHUNK_SIZE, 100);
    larder_release(map, &view);
    ck_assert_ptr_null(view.parts);
    ck_assert_int_eq(larder_borrow(map, "empty", 5, &view), LARDER_OK);
    ck_assert_uint_eq(view.part_count, 0);
    larder_release(map, &view);
    ck_assert_int_eq(larder_borrow(map, "absent", 6, &view), LARDER_ABSENT);
    ck_assert_uint_eq(view.part_count, 0);
    larder_release(map, &view);
    ck_assert_int_eq(larder_borrow(map, "nothing", 7, &view), LARDER_MISS);
    ck_assert_ptr_null(view.parts);
    larder_release(map, &view);
    larder_release(map, NULL);
}
END_TEST

START_TEST(many_keys_in_one_snapshot)
{
    larder_item items[5] = {{.key = "key", .key_size = 3},
                            {.key = "nothing", .key_size = 7},
                            {.key = "big", .key_size = 3},
                            {.key = "absent", .key_size = 6},
                            {.key = "key", .key_size = 3}};
    void *memory;
    ck_assert_int_eq(larder_get_many(map, items, 5, &memory), LARDER_OK);
    ck_assert_int_eq(items[0].outcome, LARDER_OK);
    ck_assert_uint_eq(items[0].value_size, 5);
    ck_assert_mem_eq(items[0].value, "value", 5);
    ck_assert_int_eq(items[1].outcome, LARDER_MISS);
    ck_assert_ptr_null(items[1].value);
    ck_assert_uint_eq(items[2].value_size, sizeof big);
    ck_assert_mem_eq(items[2].value, big, sizeof big);
    ck_assert_int_eq(items[3].outcome, LARDER_ABSENT);
    ck_assert_mem_eq(items[4].value, "value", 5);
    ck_assert_uint_eq(items[4].info.size, 5);
    larder_free(memory);
    ck_assert_int_eq(larder_get_many(map, NULL, 0, &memory), LARDER_OK);
    ck_assert_ptr_null(memory);
    larder_stats stats = maps_stats(map);
    ck_assert_uint_eq(stats.hits, 3);
    ck_assert_uint_eq(stats.misses, 1);
    ck_assert_uint_eq(stats.absent, 1);
}
END_TEST

START_TEST(a_peek_leaves_no_trace)
{
    char buffer[8];
    larder_read peek = {.flags = LARDER_PEEK};
    ck_assert_int_eq(larder_get_with(map, "key", 3, buffer, 8, NULL, &peek), LARDER_OK);
    ck_assert_int_eq(larder_get_with(map, "nothing", 7, buffer, 8, NULL, &peek), LARDER_MISS);
    ck_assert_uint_eq(evict_hits(atomic_load(&map->map->store), key_hash("key", 3)), 0);
    ck_assert_uint_eq(maps_stats(map).hits, 0);
    ck_assert_uint_eq(maps_stats(map).misses, 0);
    ck_assert_int_eq(larder_get_with(map, "key", 3, buffer, 8, NULL, NULL), LARDER_OK);
    ck_assert_uint_eq(maps_stats(map).hits, 1);
}
END_TEST

/* Copies are input: one that says its value stands in chunks is none that was ever put there. */
START_TEST(a_copy_that_claims_chunks_is_passed_over)
{
    uint8_t bytes[256];
    char buffer[8];
    struct key key;
    struct transaction *t;
    larder_version late = {.clock = UINT64_MAX};
    struct record record = record_make(late, RECORD_VALUE, RECORD_CHUNKED, CLOCK_NEVER);
    record.value_size = CHUNK_SIZE + 1;
    record.first_chunk = 1;
    record.chunk_count = record_chunks(record.value_size);
    ck_assert_int_eq(key_make(&key, "key", 3), LARDER_OK);
    ck_assert_uint_le(record_size(&record), sizeof bytes);
    record_encode(bytes, &record, key.hash);
    ck_assert_int_eq(registry_reader(map->map, &t), LARDER_OK);
    struct hotset_key hot = {.hash = key.hash, .data = "key", .size = 3};
    hotset_offer(&t->store->hot, &hot, bytes, record_size(&record), UINT64_MAX, HOTSET_IF_ROOM);
    ck_assert_int_eq(larder_get(map, "key", 3, buffer, sizeof buffer, NULL), LARDER_OK);
    ck_assert_mem_eq(buffer, "value", 5);
    ck_assert_int_eq(maps_set(map, "key", "other"), LARDER_OK);
    ck_assert_int_eq(larder_get(map, "key", 3, buffer, sizeof buffer, NULL), LARDER_OK);
    ck_assert_mem_eq(buffer, "other", 5);
}
END_TEST

START_TEST(arguments_that_are_none)
{
    char buffer[8];
    void *memory;
    size_t size;
    larder_view view;
    larder_item item = {.key = "key", .key_size = 3};
    larder_read read = {.flags = 1u << 9};
    larder *none = NULL;
    ck_assert_int_eq(larder_get(none, "key", 3, buffer, 8, NULL), LARDER_EINVAL);
    ck_assert_int_eq(larder_has(none, "key", 3), LARDER_EINVAL);
    ck_assert_int_eq(larder_borrow(none, "key", 3, &view), LARDER_EINVAL);
    ck_assert_int_eq(larder_get_many(none, &item, 1, &memory), LARDER_EINVAL);
    ck_assert_int_eq(larder_get(map, "", 0, buffer, 8, NULL), LARDER_EINVAL);
    ck_assert_int_eq(larder_get(map, big, LARDER_KEY_MAX + 1, buffer, 8, NULL), LARDER_ETOOBIG);
    ck_assert_int_eq(larder_get(map, "key", 3, NULL, 8, NULL), LARDER_EINVAL);
    ck_assert_int_eq(larder_get_with(map, "key", 3, buffer, 8, NULL, &read), LARDER_EINVAL);
    read = (larder_read){.reserved0 = 1};
    ck_assert_int_eq(larder_get_with(map, "key", 3, buffer, 8, NULL, &read), LARDER_EINVAL);
    read = (larder_read){.read_through_ms = -1};
    ck_assert_int_eq(larder_get_with(map, "key", 3, buffer, 8, NULL, &read), LARDER_EINVAL);
    read = (larder_read){.read_through_ms = 60001};
    ck_assert_int_eq(larder_get_with(map, "key", 3, buffer, 8, NULL, &read), LARDER_EINVAL);
    ck_assert_int_eq(larder_get_alloc(map, "key", 3, NULL, &size, NULL), LARDER_EINVAL);
    ck_assert_int_eq(larder_get_alloc(map, "key", 3, &memory, NULL, NULL), LARDER_EINVAL);
    ck_assert_int_eq(larder_borrow(map, "key", 3, NULL), LARDER_EINVAL);
    ck_assert_int_eq(larder_borrow(map, "", 0, &view), LARDER_EINVAL);
    ck_assert_int_eq(larder_get_many(map, &item, 1, NULL), LARDER_EINVAL);
    ck_assert_int_eq(larder_get_many(map, NULL, 1, &memory), LARDER_EINVAL);
    ck_assert_int_eq(larder_get_many(map, &item, LARDER_MANY_MAX + 1, &memory), LARDER_EINVAL);
    item.key_size = 0;
    ck_assert_int_eq(larder_get_many(map, &item, 1, &memory), LARDER_EINVAL);
    ck_assert_uint_eq(maps_stats(map).misses, 0); /* a mistake is not a miss */
}
END_TEST

/* In a child, whose first read needs a slot of the table. */
static int read_while_it_is_locked(void *context)
{
    char buffer[8];
    void *memory;
    larder_view view;
    larder_item item = {.key = "key", .key_size = 3};
    (void)context;
    if (larder_get(map, "key", 3, buffer, 8, NULL) != LARDER_MISS) {
        return 1;
    }
    if (larder_borrow(map, "key", 3, &view) != LARDER_MISS) {
        return 2;
    }
    if (larder_get_many(map, &item, 1, &memory) != LARDER_OK || item.outcome != LARDER_MISS) {
        return 3;
    }
    return 0;
}

START_TEST(a_locked_reader_table_makes_a_miss_in_time)
{
    struct maps_holder holder = maps_hold(&maps_control(map)->reader_gate);
    int64_t began = harness_now_ms();
    ck_assert_int_eq(maps_in_child(read_while_it_is_locked, NULL), 0);
    ck_assert_int_le(harness_now_ms() - began, harness_patience(3000));
    ck_assert_str_eq(maps_get(map, "key"), "value"); /* who has a slot needs no lock */
    maps_let_go(&holder);
    ck_assert_uint_ge(maps_stats(map).read_busy, 3);
}
END_TEST

/* LMDB's MDB_rxbody, at the start of each of the lock file's lines of 64 bytes. */
struct slot {
    uint64_t transaction;
    int32_t pid;
    uint64_t thread;
};

/* The first slot of that process and thread, *count: how many are the process's. */
static volatile struct slot *find_slot(void *memory, size_t size, unsigned *count)
{
    volatile struct slot *found = NULL;
    *count = 0;
    for (size_t at = 0; at + sizeof *found <= size; at += 64) {
        volatile struct slot *slot = (void *)((uint8_t *)memory + at);
        if (slot->pid == getpid() && slot->thread == (uint64_t)pthread_self()) {
            found = found == NULL ? slot : found;
            ++*count;
        }
    }
    return found;
}

/* One miss, counted as damage; the read after it has another slot. */
static void damage_slot(bool borrowed, bool its_pid)
{
    maps_hot_size = LARDER_NO_HOT_SET; /* a copy there would need no slot */
    larder *cold = maps_new();
    larder_view view;
    char path[PATH_MAX];
    struct stat status;
    unsigned before = 0, after = 0;
    maps_hot_size = 0;
    ck_assert_int_eq(maps_set(cold, "key", "value"), LARDER_OK);
    if (borrowed) {
        ck_assert_int_eq(larder_borrow(cold, "key", 3, &view), LARDER_OK);
        larder_release(cold, &view);
    } else {
        ck_assert_str_eq(maps_get(cold, "key"), "value");
    }
    (void)snprintf(path, sizeof path, "%s/g1/lock.mdb", cold->map->path);
    int file = open(path, O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(fstat(file, &status), 0);
    size_t size = (size_t)status.st_size;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    uint64_t corrupt = maps_stats(cold).read_corrupt;
    uint8_t *first = (uint8_t *)(uintptr_t)find_slot(memory, size, &before);
    ck_assert_ptr_nonnull(first);
    for (volatile struct slot *slot; (slot = find_slot(memory, size, &after)) != NULL;) {
        if (its_pid) {
            slot->pid ^= 1 << 20;
        } else {
            slot->transaction = UINT64_C(1) << 40;
            slot->thread ^= 1; /* not found again */
        }
    }
    if (borrowed) {
        ck_assert_int_eq(larder_borrow(cold, "key", 3, &view), LARDER_MISS);
        ck_assert_int_eq(larder_borrow(cold, "key", 3, &view), LARDER_OK);
        larder_release(cold, &view);
    } else {
        ck_assert_ptr_null(maps_get(cold, "key"));
        ck_assert_str_eq(maps_get(cold, "key"), "value");
        ck_assert_uint_eq(maps_stats(cold).read_corrupt, corrupt + 1);
    }
    (void)maps_get(cold, "key"); /* by the thread's own, which was damaged beside the view's */
    ck_assert_str_eq(maps_get(cold, "key"), "value");
    (void)find_slot(memory, size, &after);
    ck_assert_uint_eq(after, before); /* and the damaged ones are free */
    for (uint8_t *at = first; at + 64 <= (uint8_t *)memory + size; at += 64) {
        int32_t pid = ((volatile struct slot *)(void *)at)->pid;
        ck_assert_msg(pid == 0 || pid == getpid(), "a slot of process %d is left", (int)pid);
    }
    ck_assert_int_eq(munmap(memory, size), 0);
    maps_whole(cold);
    larder_close(&cold);
    (void)close(file); /* not before: with it would go LMDB's locks */
}

START_TEST(a_damaged_slot_costs_one_read)
{
    damage_slot(_i % 2 != 0, _i / 2 != 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("read");
    TCase *tests = tcase_create("read");
    tcase_set_timeout(tests, 30);
    tcase_add_checked_fixture(tests, open_map, close_map);
    tcase_add_test(tests, a_buffer_that_is_too_small_is_left_alone);
    tcase_add_test(tests, memory_of_the_librarys_own);
    tcase_add_test(tests, a_view_is_the_value_in_parts);
    tcase_add_test(tests, many_keys_in_one_snapshot);
    tcase_add_test(tests, a_peek_leaves_no_trace);
    tcase_add_test(tests, a_copy_that_claims_chunks_is_passed_over);
    tcase_add_test(tests, arguments_that_are_none);
    tcase_add_test(tests, a_locked_reader_table_makes_a_miss_in_time);
    tcase_add_loop_test(tests, a_damaged_slot_costs_one_read, 0, 4);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
