/* limits.c: what stands at the edges. Keys of 0 to 65,536 bytes, with zeros and foreign letters,
 * two long ones with one prefix; values of 0 bytes, around every size where the way of storing
 * changes, at the cap and over it; counters at the ends of 64 bits; expiry around the marks of the
 * wall clock, with a clock that this program moves (it replaces clock_gettime() for the library
 * that it links).
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "format.h"
#include "harness.h"
#include "inspect.h"
#include "larder.h"

static larder *handle;
static const char *directory;

/* ---- A wall clock that can be moved -------------------------------------------------------- */

static _Atomic int64_t frozen_ms; /* 0: the real one */

int clock_gettime(clockid_t which, struct timespec *now)
{
    int64_t frozen = atomic_load(&frozen_ms);
    if (frozen != 0 && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) {
        now->tv_sec = (time_t)(frozen / 1000);
        now->tv_nsec = (long)(frozen % 1000) * 1000000L;
        return 0;
    }
    return (int)syscall(SYS_clock_gettime, which, now);
}

static int64_t at_time(int year, int month, int day, int hour, int minute, int second, int ms)
{
    struct tm parts = {.tm_year = year - 1900,
                       .tm_mon = month - 1,
                       .tm_mday = day,
                       .tm_hour = hour,
                       .tm_min = minute,
                       .tm_sec = second};
    return (int64_t)timegm(&parts) * 1000 + ms;
}

/* ---- Keys ---------------------------------------------------------------------------------- */

static void set_value(const void *key, size_t key_size, uint64_t tag, size_t size)
{
    static uint8_t *value;
    value = realloc(value, size + 1);
    test_value_fill(value, size, tag);
    int code = larder_set(handle, key, key_size, value, size, NULL);
    test_check(code == LARDER_OK, "set (key of %zu, value of %zu): %d %s", key_size, size, code,
               larder_last_error());
}

/* The value by every way of reading. */
static void has_value(const void *key, size_t key_size, uint64_t tag, size_t size)
{
    void *memory = NULL;
    size_t got = 12345;
    larder_info info;
    int code = larder_get_alloc(handle, key, key_size, &memory, &got, &info);
    test_check(code == LARDER_OK, "get_alloc (key of %zu): %d %s", key_size, code,
               larder_last_error());
    test_check(
        memory != NULL && got == size && info.size == size && test_value_is(memory, size, tag),
        "get_alloc (key of %zu): another value of %zu bytes, expected %zu", key_size, got, size);
    larder_free(memory);
    uint8_t *buffer = malloc(size + 9);
    test_check(buffer != NULL, "malloc");
    memset(buffer, 0xee, size + 9);
    code = larder_get(handle, key, key_size, buffer, size, &info);
    test_check(code == LARDER_OK && test_value_is(buffer, size, tag), "get: %d", code);
    for (size_t at = size; at < size + 9; at++)
        test_check(buffer[at] == 0xee, "get wrote beyond");
    if (size > 0) {
        memset(buffer, 0xee, size);
        memset(&info, 0, sizeof info);
        code = larder_get(handle, key, key_size, buffer, size - 1, &info);
        test_check(code == LARDER_ESIZE && info.size == size, "get, a byte too little: %d", code);
        for (size_t at = 0; at < size; at++)
            test_check(buffer[at] == 0xee, "ESIZE and a write");
        code = larder_get(handle, key, key_size, NULL, 0, &info);
        test_check(code == LARDER_ESIZE && info.size == size, "get for the size: %d", code);
    }
    free(buffer);
    larder_view view;
    code = larder_borrow(handle, key, key_size, &view);
    test_check(code == LARDER_OK && view.info.size == size, "borrow: %d", code);
    uint8_t *copy = malloc(size + 1);
    size_t at = 0;
    for (size_t part = 0; part < view.part_count; part++) {
        test_check(at + view.parts[part].iov_len <= size, "the view is too long");
        memcpy(copy + at, view.parts[part].iov_base, view.parts[part].iov_len);
        at += view.parts[part].iov_len;
    }
    test_check(at == size && test_value_is(copy, size, tag), "borrow: another value");
    free(copy);
    larder_release(handle, &view);
    larder_item item = {.key = key, .key_size = key_size};
    code = larder_get_many(handle, &item, 1, &memory);
    test_check(code == LARDER_OK && item.outcome == LARDER_OK && item.value_size == size &&
                   test_value_is(item.value, size, tag),
               "get_many: %d %d", code, item.outcome);
    larder_free(memory);
    test_check(larder_has(handle, key, key_size) == LARDER_OK, "has");
}

static void refused_key(const void *key, size_t size, int expected)
{
    int code = larder_set(handle, key, size, "v", 1, NULL);
    test_check(code == expected, "set with a key of %zu bytes: %d", size, code);
    if (size > 0) {
        char number[24];
        snprintf(number, sizeof number, "%zu", size);
        test_check(strstr(larder_last_error(), number) != NULL &&
                       strstr(larder_last_error(), "65535") != NULL,
                   "the message names neither size nor limit: %s", larder_last_error());
    }
    code = larder_get(handle, key, size, NULL, 0, NULL);
    test_check(code == expected, "get with a key of %zu bytes: %d", size, code);
    code = larder_delete(handle, key, size);
    test_check(code == expected, "delete with a key of %zu bytes: %d", size, code);
    larder_view view;
    code = larder_borrow(handle, key, size, &view);
    test_check(code == expected, "borrow with a key of %zu bytes: %d", size, code);
    code = larder_incr(handle, key, size, 1, NULL, NULL);
    test_check(code == expected, "incr with a key of %zu bytes: %d", size, code);
}

static void key_sizes(void)
{
    static const size_t sizes[] = {1,   2,   8,   255, 493,  494,  495,   496,   508,  509,
                                   510, 511, 512, 513, 1024, 4096, 32768, 65534, 65535};
    enum { COUNT = sizeof sizes / sizeof sizes[0] };
    static uint8_t key[65537];
    memset(key, 'k', sizeof key); /* each is a prefix of the next */
    for (unsigned at = 0; at < COUNT; at++)
        set_value(key, sizes[at], at + 100, 40 + at * 300);
    for (unsigned at = 0; at < COUNT; at++)
        has_value(key, sizes[at], at + 100, 40 + at * 300);
    refused_key(key, 0, LARDER_EINVAL);
    refused_key(NULL, 0, LARDER_EINVAL);
    refused_key(key, 65536, LARDER_ETOOBIG);
    refused_key(key, 65537, LARDER_ETOOBIG);
    for (unsigned at = 0; at < COUNT; at += 2) {
        test_check(larder_delete(handle, key, sizes[at]) == LARDER_OK, "delete %zu", sizes[at]);
    }
    for (unsigned at = 0; at < COUNT; at++) {
        if (at % 2 == 0) {
            test_check(larder_has(handle, key, sizes[at]) == LARDER_MISS, "deleted and there");
            test_check(larder_delete(handle, key, sizes[at]) == LARDER_MISS, "deleted twice");
        } else {
            has_value(key, sizes[at], at + 100, 40 + at * 300);
        }
    }
}

/* Long keys that differ only far behind, or only in length. */
static void keys_of_one_prefix(void)
{
    static uint8_t one[60000], two[60000];
    memset(one, 'p', sizeof one);
    memcpy(two, one, sizeof two);
    two[59999] = 'q';
    set_value(one, 60000, 1, 100);
    set_value(two, 60000, 2, 9000);
    set_value(one, 59999, 3, 50);
    has_value(one, 60000, 1, 100);
    has_value(two, 60000, 2, 9000);
    has_value(one, 59999, 3, 50);
    test_check(larder_delete(handle, two, 60000) == LARDER_OK, "delete");
    has_value(one, 60000, 1, 100);
    test_check(larder_has(handle, two, 60000) == LARDER_MISS, "has");
    has_value(one, 59999, 3, 50);
}

static void odd_keys(void)
{
    static const struct {
        const char *text;
        size_t size;
    } keys[] = {{"\0", 1},
                {"\0\0", 2},
                {"a\0b", 3},
                {"a\0c", 3},
                {"a", 1},
                {"\xff\xfe", 2},
                {"\x80", 1},
                {"\xc3\x28", 2},
                {"{}", 2},
                {":", 1},
                {"*?[", 3},
                {"\r\n\x1b[31m", 7},
                {"\x01log", 4},
                {"\x02", 1},
                {"\x01", 1},
                {"\x01"
                 "chunks",
                 7},
                {"\xff\xff\xff\xff", 4}};
    enum { COUNT = sizeof keys / sizeof keys[0] };
    for (unsigned at = 0; at < COUNT; at++) {
        set_value(keys[at].text, keys[at].size, at + 500, 20 + at * 400);
    }
    for (unsigned at = 0; at < COUNT; at++) {
        has_value(keys[at].text, keys[at].size, at + 500, 20 + at * 400);
    }
    larder_cursor cursor = {0};
    larder_item items[8];
    size_t found = 0, total = 0;
    void *memory = NULL;
    int code = larder_scan(handle, &cursor, (larder_bytes){"a\0", 2}, items, 8, LARDER_SCAN_KEYS,
                           &found, &memory);
    test_check(code == LARDER_OK && found == 2, "scan of a prefix with a zero: %d, %zu", code,
               found);
    larder_free(memory);
    memset(&cursor, 0, sizeof cursor);
    do { /* a prefix of 0xff bytes has no upper neighbour */
        code = larder_scan(handle, &cursor, (larder_bytes){"\xff", 1}, items, 1, LARDER_SCAN_VALUES,
                           &found, &memory);
        test_check(code == LARDER_OK, "scan: %d", code);
        larder_free(memory);
        total += found;
    } while (found > 0);
    test_check(total == 2, "%zu keys that begin with 0xff", total);
    for (unsigned at = 0; at < COUNT; at++) {
        code = larder_delete(handle, keys[at].text, keys[at].size);
        test_check(code == LARDER_OK, "delete %u: %d", at, code);
    }
}

/* ---- Values -------------------------------------------------------------------------------- */

static void one_size(size_t size)
{
    char key[32];
    size_t key_size = (size_t)snprintf(key, sizeof key, "v%zu", size);
    set_value(key, key_size, size + 1, size);
    has_value(key, key_size, size + 1, size);
    set_value(key, key_size, size + 2, size); /* over itself */
    has_value(key, key_size, size + 2, size);
    test_check(larder_delete(handle, key, key_size) == LARDER_OK, "delete");
}

static void value_sizes(void)
{
    for (size_t size = 0; size <= 20; size++)
        one_size(size);
    for (size_t size = RECORD_NODE_MAX - 100; size <= RECORD_NODE_MAX + 20; size++)
        one_size(size);
    for (size_t size = RECORD_PAGE_MAX - 100; size <= RECORD_PAGE_MAX + 20; size++)
        one_size(size);
    for (size_t tail = RECORD_NODE_MAX - 120; tail <= RECORD_NODE_MAX; tail++)
        one_size(CHUNK_SIZE + tail);
    for (size_t chunks = 1; chunks <= 20; chunks++) {
        for (size_t size = chunks * CHUNK_SIZE - 2; size <= chunks * CHUNK_SIZE + 2; size++) {
            one_size(size);
        }
        for (size_t size = chunks * 4096 - 1; size <= chunks * 4096 + 1; size++)
            one_size(size);
    }
    /* from one way of storing to another and back, under one key */
    static const size_t sizes[] = {10, 5000, 0, 100000, 2000, 4080, 4081, 1, 0};
    for (unsigned at = 0; at < sizeof sizes / sizeof sizes[0]; at++) {
        set_value("changing", 8, at, sizes[at]);
        has_value("changing", 8, at, sizes[at]);
    }
}

static void value_cap(void)
{
    larder *capped = NULL, *kept = handle;
    larder_options options = {.dir = directory, .max_value = 100000};
    int code = larder_open("limits", &options, &capped);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    handle = capped;
    set_value("cap", 3, 1, 99999);
    set_value("cap", 3, 2, 100000);
    has_value("cap", 3, 2, 100000);
    static uint8_t value[5u << 20];
    code = larder_set(capped, "cap", 3, value, 100001, NULL);
    test_check(code == LARDER_ETOOBIG, "a byte over the cap: %d", code);
    test_check(strstr(larder_last_error(), "100001") && strstr(larder_last_error(), "100000"),
               "the message: %s", larder_last_error());
    test_check(larder_has(capped, "cap", 3) == LARDER_MISS, "the old value is still served");
    handle = kept;
    test_check(larder_has(handle, "cap", 3) == LARDER_MISS, "the old value is still served");
    larder_close(&capped);
    /* the map's own cap: a sixteenth of 64 MiB */
    set_value("cap", 3, 3, 4u << 20);
    has_value("cap", 3, 3, 4u << 20);
    code = larder_set(handle, "cap", 3, value, (4u << 20) + 1, NULL);
    test_check(code == LARDER_ETOOBIG, "a byte over a sixteenth of the map: %d", code);
    larder_item items[3] = {{.key = "i1", .key_size = 2, .value = value, .value_size = 10},
                            {.key = "i2", .key_size = 2, .value = value, .value_size = 5u << 20},
                            {.key = "i3", .key_size = 2, .value = value, .value_size = 10}};
    set_value("i1", 2, 1, 5);
    code = larder_set_many(handle, items, 3, NULL); /* one commit: all or none */
    test_check(code == LARDER_ETOOBIG && items[1].outcome == LARDER_ETOOBIG,
               "set_many with one too large: %d, %d", code, items[1].outcome);
    for (unsigned at = 0; at < 3; at++) {
        test_check(larder_has(handle, items[at].key, 2) == LARDER_MISS, "%u is there", at);
    }
    test_check(larder_set_many(handle, items, LARDER_MANY_MAX + 1, NULL) == LARDER_EINVAL,
               "set_many of 4,097");
}

/* ---- Counters ------------------------------------------------------------------------------ */

static void set_text(const char *key, const char *text)
{
    int code = larder_set(handle, key, strlen(key), text, strlen(text), NULL);
    test_check(code == LARDER_OK, "set %s: %d", key, code);
}

static void holds(const char *key, const char *text)
{
    char value[64] = "";
    larder_info info;
    int code = larder_get(handle, key, strlen(key), value, sizeof value - 1, &info);
    test_check(code == LARDER_OK && info.size == strlen(text) && strcmp(value, text) == 0,
               "%s holds '%s' (%d), expected '%s'", key, value, code, text);
}

static void adds(const char *key, int64_t delta, int expected, int64_t expected_result)
{
    int64_t result = 42424242;
    int code = larder_incr(handle, key, strlen(key), delta, &result, NULL);
    test_check(code == expected, "incr %s by %" PRId64 ": %d %s", key, delta, code,
               larder_last_error());
    if (expected == LARDER_OK) {
        test_check(result == expected_result, "incr %s: %" PRId64, key, result);
    }
}

static void counters(void)
{
    adds("n", INT64_MAX, LARDER_OK, INT64_MAX);
    adds("n", 0, LARDER_OK, INT64_MAX);
    adds("n", 1, LARDER_EOVERFLOW, 0);
    holds("n", "9223372036854775807");
    adds("n", INT64_MIN, LARDER_OK, -1);
    adds("n", INT64_MIN, LARDER_EOVERFLOW, 0);
    holds("n", "-1");
    adds("n", INT64_MIN + 1, LARDER_OK, INT64_MIN);
    holds("n", "-9223372036854775808");
    adds("n", -1, LARDER_EOVERFLOW, 0);
    adds("n", INT64_MAX, LARDER_OK, -1);
    static const char *const wrong[] = {
        "",    "x", "1x", " 1",   "1 ",  "9223372036854775808",    "-9223372036854775809",
        "--1", "+", "-",  "0x10", "1.0", "99999999999999999999999"};
    for (unsigned at = 0; at < sizeof wrong / sizeof wrong[0]; at++) {
        set_text("w", wrong[at]);
        adds("w", 1, LARDER_ENUMBER, 0);
        holds("w", wrong[at]);
    }
    test_check(larder_set(handle, "w", 1,
                          "1\0"
                          "2",
                          3, NULL) == LARDER_OK,
               "set");
    adds("w", 1, LARDER_ENUMBER, 0);
    set_text("w", "-5");
    adds("w", 5, LARDER_OK, 0);
    holds("w", "0");
    test_check(larder_delete(handle, "w", 1) == LARDER_OK, "delete");
    adds("w", -3, LARDER_OK, -3);
}

static void compare_and_swap(void)
{
    larder_info info;
    larder_version never = {.clock = 1, .node = 1};
    set_text("c", "one");
    test_check(larder_get(handle, "c", 1, NULL, 0, &info) == LARDER_ESIZE, "get");
    larder_version first = info.version;
    test_check(larder_cas(handle, "c", 1, "two", 3, &first, NULL) == LARDER_OK, "cas");
    test_check(larder_cas(handle, "c", 1, "three", 5, &first, NULL) == LARDER_CONFLICT,
               "cas, late");
    test_check(larder_cas(handle, "c", 1, "three", 5, &never, NULL) == LARDER_CONFLICT,
               "cas, never");
    holds("c", "two");
    test_check(larder_get(handle, "c", 1, NULL, 0, &info) == LARDER_ESIZE, "get");
    test_check(larder_delete(handle, "c", 1) == LARDER_OK, "delete");
    test_check(larder_cas(handle, "c", 1, "four", 4, &info.version, NULL) == LARDER_MISS,
               "cas on a deleted key");
    test_check(larder_has(handle, "c", 1) == LARDER_MISS, "cas revived a deleted key");
    test_check(larder_add(handle, "c", 1, "five", 4, NULL) == LARDER_OK, "add");
    test_check(larder_add(handle, "c", 1, "six", 3, NULL) == LARDER_EXISTS, "add again");
    test_check(larder_replace(handle, "no", 2, "six", 3, NULL) == LARDER_MISS, "replace");
    test_check(larder_has(handle, "no", 2) == LARDER_MISS, "replace made a key");
    holds("c", "five");
}

/* ---- Expiry -------------------------------------------------------------------------------- */

static int set_until(const char *key, larder_expiry expiry)
{
    larder_policy policy = {.expiry = expiry};
    return larder_set(handle, key, strlen(key), "value", 5, &policy);
}

static int64_t expires(const char *key)
{
    larder_info info;
    char value[8];
    int code = larder_get(handle, key, strlen(key), value, sizeof value, &info);
    test_check(code == LARDER_OK, "get %s: %d", key, code);
    return info.expires_ms;
}

static void aligned(int64_t now, int64_t period_ms, int64_t offset_ms, int64_t expected)
{
    atomic_store(&frozen_ms, now);
    int code = set_until("aligned", larder_expire_aligned(period_ms, offset_ms));
    test_check(code == LARDER_OK, "set: %d %s", code, larder_last_error());
    int64_t when = expires("aligned");
    test_check(when == expected,
               "set at %" PRId64 ", period %" PRId64 ": until %" PRId64 ", expected %" PRId64, now,
               period_ms, when, expected);
    test_check(when > now, "expires at once");
    /* half open: there one millisecond before, gone at the mark; either way for all ways to ask */
    atomic_store(&frozen_ms, expected - 1);
    test_check(larder_has(handle, "aligned", 7) == LARDER_OK, "gone before its time");
    atomic_store(&frozen_ms, expected);
    test_check(larder_has(handle, "aligned", 7) == LARDER_MISS, "there at its end");
    atomic_store(&frozen_ms, expected + 1);
    test_check(larder_has(handle, "aligned", 7) == LARDER_MISS, "there after its end");
}

static void marks_of_the_clock(void)
{
    enum { MINUTE = 60000, FIVE = 5 * MINUTE };
    int64_t noon = at_time(2026, 3, 14, 12, 0, 0, 0);
    aligned(noon + 2 * MINUTE, FIVE, 0, noon + 5 * MINUTE);
    aligned(noon + 9 * MINUTE, FIVE, 0, noon + 10 * MINUTE);
    aligned(noon + 23 * MINUTE, FIVE, 0, noon + 25 * MINUTE);
    aligned(noon + 4 * MINUTE + 59999, FIVE, 0, noon + 5 * MINUTE);
    aligned(noon + 5 * MINUTE, FIVE, 0, noon + 10 * MINUTE);
    aligned(noon + 5 * MINUTE + 1, FIVE, 0, noon + 10 * MINUTE);
    aligned(noon + 55 * MINUTE, FIVE, 0, noon + 60 * MINUTE);
    aligned(noon + 59 * MINUTE + 59999, 10 * MINUTE, 0, noon + 60 * MINUTE);
    aligned(noon + 7 * MINUTE, 15 * MINUTE, 0, noon + 15 * MINUTE);
    aligned(noon + 31 * MINUTE, 30 * MINUTE, 0, noon + 60 * MINUTE);
    aligned(noon, 1000, 0, noon + 1000);
    aligned(noon + 999, 1000, 0, noon + 1000);
    aligned(noon + 2 * MINUTE, FIVE, 30000, noon + 5 * MINUTE + 30000);
    aligned(noon + 20000, FIVE, 30000, noon + 30000);
    aligned(noon + 30000, FIVE, 30000, noon + 5 * MINUTE + 30000);
    aligned(noon + 2 * MINUTE, FIVE, -30000, noon + 5 * MINUTE - 30000);
    aligned(noon + 5 * MINUTE - 30000, FIVE, -30000, noon + 10 * MINUTE - 30000);
    aligned(at_time(2026, 3, 14, 23, 59, 0, 0), FIVE, 0, at_time(2026, 3, 15, 0, 0, 0, 0));
    aligned(at_time(2026, 12, 31, 23, 59, 59, 999), FIVE, 0, at_time(2027, 1, 1, 0, 0, 0, 0));
    aligned(at_time(2028, 2, 29, 23, 58, 0, 1), FIVE, 0, at_time(2028, 3, 1, 0, 0, 0, 0));
    int64_t seven = 7 * MINUTE; /* does not divide an hour: multiples since the epoch */
    aligned(noon + 1, seven, 0, (noon / seven + 1) * seven);
}

static void other_expiries(void)
{
    int64_t now = at_time(2027, 6, 1, 12, 0, 0, 500);
    atomic_store(&frozen_ms, now);
    test_check(set_until("e", larder_expire_in(1)) == LARDER_OK && expires("e") == now + 1,
               "in 1 ms");
    test_check(set_until("e", larder_expire_in(0)) == LARDER_OK && expires("e") == INT64_MAX,
               "a TTL of 0 is no expiry");
    test_check(set_until("e", larder_expire_never()) == LARDER_OK && expires("e") == INT64_MAX,
               "never");
    test_check(set_until("e", larder_expire_in(-1)) == LARDER_EINVAL, "a negative TTL");
    test_check(set_until("e", larder_expire_in(INT64_MIN)) == LARDER_EINVAL, "the least TTL");
    test_check(set_until("e", larder_expire_in(INT64_MAX)) == LARDER_EOVERFLOW, "the largest TTL");
    test_check(set_until("e", larder_expire_in(INT64_MAX - now)) == LARDER_EOVERFLOW,
               "a TTL that ends at 'never'");
    test_check(set_until("e", larder_expire_aligned(0, 0)) == LARDER_EINVAL, "a period of 0");
    test_check(set_until("e", larder_expire_aligned(1500, 0)) == LARDER_EINVAL,
               "a period of 1.5 s");
    test_check(set_until("e", larder_expire_aligned(-1000, 0)) == LARDER_EINVAL,
               "a negative period");
    test_check(set_until("e", larder_expire_aligned(1000, 1000)) == LARDER_EINVAL,
               "offset = period");
    test_check(set_until("e", (larder_expiry){.kind = 99}) == LARDER_EINVAL, "an unknown kind");
    test_check(set_until("e", larder_expire_at(-5)) == LARDER_EINVAL ||
                   larder_has(handle, "e", 1) == LARDER_MISS,
               "before the epoch");
    test_check(set_until("e", larder_expire_at(now + 1)) == LARDER_OK && expires("e") == now + 1,
               "at");
    int code = set_until("e", larder_expire_at(now));
    test_check(code >= 0, "at a time that has come: %d", code);
    test_check(larder_has(handle, "e", 1) == LARDER_MISS, "a set that is past deletes");
    test_check(set_until("e", larder_expire_at(INT64_MAX - 1)) == LARDER_OK &&
                   expires("e") == INT64_MAX - 1,
               "the last moment");
    /* touch: another time, the same value; on an expired one a miss */
    test_check(set_until("t", larder_expire_in(1000)) == LARDER_OK, "set");
    larder_expiry later = larder_expire_in(5000), past = larder_expire_at(1);
    test_check(larder_touch(handle, "t", 1, &later) == LARDER_OK && expires("t") == now + 5000,
               "touch");
    atomic_store(&frozen_ms, now + 5000);
    test_check(larder_touch(handle, "t", 1, &later) == LARDER_MISS,
               "touch revives an expired entry");
    test_check(larder_has(handle, "t", 1) == LARDER_MISS, "it is there again");
    test_check(set_until("t", larder_expire_in(1000)) == LARDER_OK, "set");
    code = larder_touch(handle, "t", 1, &past);
    test_check(code >= 0 && larder_has(handle, "t", 1) == LARDER_MISS, "touch into the past: %d",
               code);
    /* an expired entry is not there for add, replace, cas, incr, delete, scan */
    now = atomic_load(&frozen_ms);
    test_check(set_until("x", larder_expire_in(10)) == LARDER_OK, "set");
    larder_info info;
    test_check(larder_get(handle, "x", 1, NULL, 0, &info) == LARDER_ESIZE, "get");
    atomic_store(&frozen_ms, now + 10);
    larder_item item;
    larder_cursor cursor = {0};
    size_t found = 1;
    void *memory = NULL;
    test_check(larder_replace(handle, "x", 1, "v", 1, NULL) == LARDER_MISS,
               "replace of an expired one");
    test_check(larder_cas(handle, "x", 1, "v", 1, &info.version, NULL) == LARDER_MISS, "cas");
    test_check(larder_scan(handle, &cursor, (larder_bytes){"x", 1}, &item, 1, 0, &found, &memory) ==
                       LARDER_OK &&
                   found == 0,
               "scan shows an expired one");
    larder_free(memory);
    test_check(larder_delete(handle, "x", 1) == LARDER_MISS, "delete of an expired one");
    test_check(set_until("x", larder_expire_in(10)) == LARDER_OK, "set");
    atomic_store(&frozen_ms, now + 20);
    test_check(larder_add(handle, "x", 1, "v", 1, NULL) == LARDER_OK, "add over an expired one");
    larder_policy ten = {.expiry = larder_expire_in(10)};
    test_check(larder_set(handle, "x", 1, "41", 2, &ten) == LARDER_OK, "set");
    int64_t result = 0, until = expires("x");
    test_check(larder_incr(handle, "x", 1, 1, &result, NULL) == LARDER_OK && result == 42, "incr");
    test_check(expires("x") == until, "incr keeps the expiry");
    atomic_store(&frozen_ms, until);
    test_check(larder_incr(handle, "x", 1, 1, &result, NULL) == LARDER_OK && result == 1,
               "incr of an expired counter begins anew: %" PRId64, result);
    test_check(expires("x") == INT64_MAX, "and has no expiry of the old one");
}

/* The wall clock goes back by a day and forward by a year: writes still win over older ones. */
static void moving_clock(void)
{
    int64_t now = at_time(2029, 1, 1, 0, 0, 0, 0);
    larder_info before, after;
    atomic_store(&frozen_ms, now);
    set_text("m", "first");
    test_check(larder_get(handle, "m", 1, NULL, 0, &before) == LARDER_ESIZE, "get");
    atomic_store(&frozen_ms, now - 86400000);
    set_text("m", "second");
    test_check(larder_get(handle, "m", 1, NULL, 0, &after) == LARDER_ESIZE, "get");
    test_check(after.version.clock > before.version.clock, "the version went back with the clock");
    holds("m", "second");
    test_check(larder_delete(handle, "m", 1) == LARDER_OK, "delete");
    test_check(larder_has(handle, "m", 1) == LARDER_MISS, "deleted");
    set_text("m", "third");
    holds("m", "third");
    test_check(set_until("u", larder_expire_in(3600000)) == LARDER_OK, "set");
    atomic_store(&frozen_ms, now + (int64_t)86400000 * 365);
    test_check(larder_has(handle, "u", 1) == LARDER_MISS, "a year later it is there");
    set_text("m", "fourth");
    atomic_store(&frozen_ms, now);
    set_text("m", "fifth");
    holds("m", "fifth");
}

int main(void)
{
    test_begin("limits", 60);
    directory = test_directory();
    larder_options options = {.dir = directory, .map_size = 64u << 20};
    int code = larder_open("limits", &options, &handle);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    key_sizes();
    keys_of_one_prefix();
    odd_keys();
    value_sizes();
    value_cap();
    counters();
    compare_and_swap();
    marks_of_the_clock();
    other_expiries();
    moving_clock();
    atomic_store(&frozen_ms, 0);
    inspect_report report;
    code = inspect_check(handle, &report);
    test_check(code == LARDER_OK && !report.damaged, "check: %d %s", code,
               report.damaged ? report.damage : larder_last_error());
    larder_close(&handle);
    test_end();
}
