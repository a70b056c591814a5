/* test_model.c: thousands of random operations of every kind on one map and on a plain table in
 * memory; what each call returns and what can be read afterwards must be the same, and the map must
 * be whole. LARDER_SEED repeats a run.
 */
#include <check.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "replica.h"
#include "tests/harness.h"
#include "tests/unit/maps.h"
#include "upkeep.h"

enum { KEYS = 60, STEPS = 6000, VALUE_MAX = 14000, CHECK_EVERY = 250, MANY = 12 };

/* What the model knows of a key. */
struct fact {
    char key[720];
    size_t key_size;
    enum { NOTHING, VALUE, NEGATIVE } kind;
    uint8_t *value;
    size_t value_size;
    int64_t expires_ms;
    larder_version version; /* as the map said after the last write */
};

static larder *map;
static struct fact facts[KEYS];
static uint64_t stream, fence;
static bool replicates;
static unsigned step;
static int64_t far_future;

static uint64_t below(uint64_t limit)
{
    return harness_random(&stream) % limit;
}

/* A key of every sort: short, binary, long, and long ones that share a prefix. */
static void make_keys(void)
{
    for (unsigned i = 0; i < KEYS; i++) {
        struct fact *fact = &facts[i];
        *fact = (struct fact){.expires_ms = INT64_MAX};
        switch (i % 6) {
        case 0:
            fact->key_size = (size_t)snprintf(fact->key, sizeof fact->key, "k%u", i);
            break;
        case 1:
            fact->key_size = (size_t)snprintf(fact->key, sizeof fact->key, "group/%u", i);
            break;
        case 2:
            fact->key_size = 3;
            memcpy(fact->key, (uint8_t[]){0, 0xff, (uint8_t)i}, 3);
            break;
        case 3:
            memset(fact->key, 'x', 509);
            fact->key_size = 509;
            fact->key[508] = (char)i;
            break;
        case 4:
            memset(fact->key, 'x', 510);
            fact->key_size = 510;
            fact->key[509] = (char)i;
            break;
        default:
            memset(fact->key, 'x', 700);
            fact->key_size = 700;
            fact->key[699] = (char)i;
        }
        fact->value = malloc(VALUE_MAX);
        ck_assert_ptr_nonnull(fact->value);
    }
}

static void drop_keys(void)
{
    for (unsigned i = 0; i < KEYS; i++) {
        free(facts[i].value);
    }
}

#define SAME(actual, expected)                                                                     \
    ck_assert_msg((int64_t)(actual) == (int64_t)(expected),                                        \
                  "step %u: %s is %" PRId64 ", the model says %" PRId64 " (%s)", step, #actual,    \
                  (int64_t)(actual), (int64_t)(expected), larder_last_error())

static int outcome_of(const struct fact *fact)
{
    return fact->kind == NOTHING ? LARDER_MISS : fact->kind == VALUE ? LARDER_OK : LARDER_ABSENT;
}

/* Read the key in every way and compare with the model; learn its version. */
static void compare(struct fact *fact)
{
    static uint8_t buffer[VALUE_MAX];
    larder_info info = {.size = 12345};
    larder_view view;
    void *memory;
    size_t size;
    int expected = outcome_of(fact);
    SAME(larder_get(map, fact->key, fact->key_size, buffer, sizeof buffer, &info), expected);
    SAME(larder_has(map, fact->key, fact->key_size), expected);
    SAME(larder_get_alloc(map, fact->key, fact->key_size, &memory, &size, NULL), expected);
    SAME(larder_borrow(map, fact->key, fact->key_size, &view), expected);
    if (expected == LARDER_MISS) {
        ck_assert_ptr_null(memory);
        return;
    }
    SAME(info.size, fact->value_size);
    SAME(info.expires_ms, fact->expires_ms);
    SAME(size, fact->value_size);
    ck_assert_mem_eq(buffer, fact->value, fact->value_size);
    ck_assert(memory != NULL || expected == LARDER_ABSENT);
    if (fact->value_size > 0) {
        ck_assert_mem_eq(memory, fact->value, fact->value_size);
    }
    size_t at = 0;
    for (size_t i = 0; i < view.part_count; i++) {
        ck_assert_uint_le(at + view.parts[i].iov_len, fact->value_size);
        ck_assert_mem_eq(view.parts[i].iov_base, fact->value + at, view.parts[i].iov_len);
        at += view.parts[i].iov_len;
    }
    SAME(at, fact->value_size);
    larder_release(map, &view);
    larder_free(memory);
    fact->version = info.version;
}

/* ---- What is written ---------------------------------------------------------------------------
 */

static size_t make_value(uint8_t *value)
{
    static const size_t sizes[] = {0, 1, 20, 500, 1900, 2100, 4080, 4081, 8160, VALUE_MAX};
    size_t size = sizes[below(sizeof sizes / sizeof sizes[0])];
    uint8_t first = (uint8_t)below(256);
    for (size_t i = 0; i < size; i++) {
        value[i] = (uint8_t)(first + i * 13);
    }
    if (below(4) == 0) { /* a number, for counters */
        size = (size_t)snprintf((char *)value, 32, "%" PRId64,
                                (int64_t)harness_random(&stream) >> below(63));
    }
    return size;
}

/* An expiry that is long past or far ahead, so that the clock does not matter. */
static larder_policy make_policy(int64_t *expires_ms)
{
    larder_policy policy = {.flags = 0};
    *expires_ms = INT64_MAX;
    switch (below(6)) {
    case 0:
        *expires_ms = far_future + (int64_t)below(1000);
        policy.expiry = larder_expire_at(*expires_ms);
        break;
    case 1:
        *expires_ms = 1000 + (int64_t)below(1000);
        policy.expiry = larder_expire_at(*expires_ms);
        break;
    case 2:
        policy.expiry = larder_expire_never();
        break;
    default:
        break;
    }
    return policy;
}

static void model_set(struct fact *fact, int kind, const uint8_t *value, size_t size,
                      int64_t expires_ms)
{
    bool past = expires_ms < far_future - 1;
    fact->kind = past ? NOTHING : kind;
    fact->value_size = size;
    fact->expires_ms = expires_ms;
    if (size > 0) {
        memcpy(fact->value, value, size);
    }
}

static void do_set(struct fact *fact, unsigned how)
{
    static uint8_t value[VALUE_MAX];
    int64_t expires_ms;
    size_t size = make_value(value);
    larder_policy policy = make_policy(&expires_ms);
    int kind = VALUE, expected = LARDER_OK;
    if (below(8) == 0) {
        policy.flags |= LARDER_NEGATIVE;
        kind = NEGATIVE;
        size = 0;
    }
    larder_version version = fact->version;
    switch (how) {
    case 0:
        SAME(larder_set(map, fact->key, fact->key_size, value, size, &policy), LARDER_OK);
        break;
    case 1:
        expected = fact->kind == NOTHING ? LARDER_OK : LARDER_EXISTS;
        SAME(larder_add(map, fact->key, fact->key_size, value, size, &policy), expected);
        break;
    case 2:
        expected = fact->kind == NOTHING ? LARDER_MISS : LARDER_OK;
        SAME(larder_replace(map, fact->key, fact->key_size, value, size, &policy), expected);
        break;
    default:
        if (below(3) == 0) {
            version.clock ^= 1 + below(1000);
        }
        expected = fact->kind == NOTHING                        ? LARDER_MISS
                   : clock_compare(version, fact->version) == 0 ? LARDER_OK
                                                                : LARDER_CONFLICT;
        SAME(larder_cas(map, fact->key, fact->key_size, value, size, &version, &policy), expected);
    }
    if (expected == LARDER_OK) {
        model_set(fact, kind, value, size, expires_ms);
    }
}

static void do_touch(struct fact *fact)
{
    int64_t expires_ms;
    larder_policy policy = make_policy(&expires_ms);
    int expected = fact->kind == NOTHING ? LARDER_MISS : LARDER_OK;
    SAME(larder_touch(map, fact->key, fact->key_size, &policy.expiry), expected);
    if (expected == LARDER_OK) {
        fact->expires_ms = expires_ms;
        if (expires_ms < far_future - 1) {
            fact->kind = NOTHING;
        }
    }
}

/* A decimal integer as Redis has it; not the library's way to find out. */
static bool is_number(const struct fact *fact, int64_t *number)
{
    char text[32] = "", again[32];
    if (fact->value_size == 0 || fact->value_size > 20) {
        return false;
    }
    memcpy(text, fact->value, fact->value_size);
    return sscanf(text, "%" SCNd64, number) == 1 &&
           (size_t)snprintf(again, sizeof again, "%" PRId64, *number) == fact->value_size &&
           memcmp(again, fact->value, fact->value_size) == 0;
}

static void do_incr(struct fact *fact)
{
    int64_t before = 0, sum, got = 0;
    int64_t delta = below(2) == 0 ? (int64_t)below(100) - 50 : (int64_t)harness_random(&stream);
    int expected = LARDER_OK;
    if (fact->kind == VALUE && !is_number(fact, &before)) {
        expected = LARDER_ENUMBER;
    } else if (__builtin_add_overflow(before, delta, &sum)) {
        expected = LARDER_EOVERFLOW;
    }
    SAME(larder_incr(map, fact->key, fact->key_size, delta, &got, NULL), expected);
    if (expected == LARDER_OK) {
        char text[32];
        int size = snprintf(text, sizeof text, "%" PRId64, sum);
        SAME(got, sum);
        model_set(fact, VALUE, (uint8_t *)text, (size_t)size,
                  fact->kind == VALUE ? fact->expires_ms : INT64_MAX);
    }
}

/* ---- Many keys and scans -----------------------------------------------------------------------
 */

static size_t choose_many(struct fact *chosen[MANY], larder_item *items)
{
    size_t count = below(MANY) + 1;
    for (size_t i = 0; i < count; i++) { /* some of them twice */
        chosen[i] = &facts[below(KEYS)];
        items[i] = (larder_item){.key = chosen[i]->key, .key_size = chosen[i]->key_size};
    }
    return count;
}

static void do_many(void)
{
    static uint8_t values[MANY][VALUE_MAX];
    struct fact *chosen[MANY];
    larder_item items[MANY];
    void *memory;
    int64_t expires_ms;
    size_t count = choose_many(chosen, items);
    larder_policy policy = make_policy(&expires_ms);
    switch (below(3)) {
    case 0:
        SAME(larder_get_many(map, items, count, &memory), LARDER_OK);
        for (size_t i = 0; i < count; i++) {
            SAME(items[i].outcome, outcome_of(chosen[i]));
            if (chosen[i]->kind == VALUE) {
                SAME(items[i].value_size, chosen[i]->value_size);
                ck_assert_mem_eq(items[i].value, chosen[i]->value, chosen[i]->value_size);
                ck_assert_uint_eq(items[i].info.size, chosen[i]->value_size);
            }
        }
        larder_free(memory);
        break;
    case 1:
        for (size_t i = 0; i < count; i++) {
            items[i].value = values[i];
            items[i].value_size = make_value(values[i]);
        }
        SAME(larder_set_many(map, items, count, &policy), LARDER_OK);
        for (size_t i = 0; i < count; i++) {
            SAME(items[i].outcome, LARDER_OK);
            model_set(chosen[i], VALUE, values[i], items[i].value_size, expires_ms);
        }
        break;
    default:
        SAME(larder_delete_many(map, items, count), LARDER_OK);
        for (size_t i = 0; i < count; i++) {
            SAME(items[i].outcome, chosen[i]->kind == NOTHING ? LARDER_MISS : LARDER_OK);
            chosen[i]->kind = NOTHING;
        }
    }
}

static void do_scan(void)
{
    static const larder_bytes prefixes[] = {
        {NULL, 0}, {"k", 1}, {"group/", 6}, {"xxxx", 4}, {"\0", 1}};
    larder_bytes prefix = prefixes[below(5)];
    larder_cursor cursor = {0};
    larder_item items[7];
    size_t found, seen = 0, expected = 0;
    bool met[KEYS] = {false};
    do {
        void *memory;
        SAME(larder_scan(map, &cursor, prefix, items, 1 + below(7), LARDER_SCAN_VALUES, &found,
                         &memory),
             LARDER_OK);
        for (size_t i = 0; i < found; i++) {
            size_t at = 0;
            while (at < KEYS && (facts[at].key_size != items[i].key_size ||
                                 memcmp(facts[at].key, items[i].key, items[i].key_size) != 0)) {
                at++;
            }
            ck_assert_uint_lt(at, KEYS);
            ck_assert(!met[at]);
            met[at] = true;
            SAME(items[i].outcome, outcome_of(&facts[at]));
            SAME(items[i].value_size, facts[at].value_size);
            ck_assert_mem_eq(items[i].value, facts[at].value, items[i].value_size);
            seen++;
        }
        larder_free(memory);
    } while (found > 0);
    for (size_t i = 0; i < KEYS; i++) {
        expected += facts[i].kind != NOTHING && facts[i].key_size >= prefix.size &&
                    (prefix.size == 0 || memcmp(facts[i].key, prefix.data, prefix.size) == 0);
    }
    SAME(seen, expected);
}

/* ---- The daemon's part -------------------------------------------------------------------------
 */

static void do_upkeep(void)
{
    upkeep_step part = {.next_row = 0};
    uint64_t row = 0;
    int cleared;
    size_t steps = 0;
    do {
        SAME(upkeep_expire(map, &part, 16, below(2) == 0 ? 0 : 86400000), LARDER_OK);
        ck_assert_uint_lt(++steps, 100);
    } while (!part.wrapped);
    do {
        SAME(upkeep_verify(map, &row, 16), LARDER_OK);
    } while (row != 0);
    SAME(upkeep_readers(map, &cleared), LARDER_OK);
    SAME(cleared, 0);
}

/* Read a batch, acknowledge some of it, sometimes after another write. */
static void do_acknowledge(void)
{
    replica_batch batch = {0};
    replica_ack acks[8];
    size_t cleared = 0, expected = 0;
    SAME(replica_outbox(map, &batch, 0, 8, 1 << 16, false), LARDER_OK);
    for (size_t i = 0; i < batch.count; i++) {
        acks[i] = (replica_ack){batch.records[i].key, batch.records[i].key_size,
                                batch.records[i].version, batch.records[i].kind, REPLICA_STORED};
        if (below(4) == 0) { /* it has become another one meanwhile */
            acks[i].version.clock--;
        } else {
            expected++;
        }
    }
    uint64_t before = maps_stats(map).dirty;
    SAME(replica_acknowledge(map, fence, acks, batch.count, &cleared), LARDER_OK);
    SAME(cleared, expected);
    SAME(maps_stats(map).dirty, before - expected);
    replica_batch_free(&batch);
}

/* What another host did to the key, a moment from now or long ago. */
static void do_apply(struct fact *fact)
{
    static uint8_t value[VALUE_MAX];
    uint64_t newest = clock_next(maps_control(map)).clock;
    bool newer = below(3) != 0;
    size_t size = make_value(value);
    uint64_t ancient = ((uint64_t)1 << 24) - step; /* older than any before, too */
    replica_event event = {.record = {.version = {.clock = newer ? newest + 1 : ancient, .node = 5},
                                      .kind = (enum replica_kind)(1 + below(3)),
                                      .expires_at_ms = below(3) == 0 ? far_future : INT64_MAX,
                                      .key = (const uint8_t *)fact->key,
                                      .key_size = fact->key_size}};
    if (event.record.kind == REPLICA_VALUE) {
        event.record.value = value;
        event.record.value_size = size;
        event.record.value_hash = replica_value_hash(value, size);
    } else {
        size = 0;
    }
    if (event.record.kind == REPLICA_DELETED) {
        event.record.expires_at_ms = INT64_MAX;
    }
    replica_position position = {.epoch = 1, .number = step, .nonce = newest, .run_id = "model"};
    replica_position read;
    SAME(replica_apply(map, fence, &event, 1, &position), LARDER_OK);
    SAME(replica_position_read(map, &read), LARDER_OK);
    SAME(read.number, step);
    SAME(read.nonce, newest);
    if (newer) {
        SAME(event.verdict, REPLICA_APPLIED);
        model_set(fact,
                  event.record.kind == REPLICA_VALUE      ? VALUE
                  : event.record.kind == REPLICA_NEGATIVE ? NEGATIVE
                                                          : NOTHING,
                  value, size, event.record.expires_at_ms);
    } else if (fact->kind != NOTHING) {
        SAME(event.verdict, REPLICA_OLDER);
    } else if (event.verdict == REPLICA_APPLIED) {
        /* nothing of the key is known any more, not even its removal: it never was there */
        model_set(fact,
                  event.record.kind == REPLICA_VALUE      ? VALUE
                  : event.record.kind == REPLICA_NEGATIVE ? NEGATIVE
                                                          : NOTHING,
                  value, size, event.record.expires_at_ms);
        ck_assert_msg(fact->version.clock == 0, "step %u: a removed key came back", step);
    }
}

/* ---- The run -----------------------------------------------------------------------------------
 */

static void do_one(struct fact *fact)
{
    unsigned what = (unsigned)below(100);
    if (what < 40) {
        do_set(fact, what / 10);
    } else if (what < 52) {
        SAME(larder_delete(map, fact->key, fact->key_size),
             fact->kind == NOTHING ? LARDER_MISS : LARDER_OK);
        fact->kind = NOTHING;
        fact->version.clock |= 1; /* it was removed: nothing older may come back */
    } else if (what < 60) {
        do_touch(fact);
    } else if (what < 68) {
        do_incr(fact);
    } else if (what < 80) {
        do_many();
    } else if (what < 84) {
        do_scan();
    } else if (what < 87) {
        do_upkeep();
    } else if (what < 93 && replicates) {
        do_acknowledge();
    } else {
        do_apply(fact);
    }
}

static void run(bool with_replication)
{
    int other;
    replicates = with_replication;
    stream = harness_seed() ^ (with_replication ? 1u : 0u);
    far_future = clock_wall_ms() + INT64_C(86400000) * 365;
    map = maps_new();
    ck_assert_int_eq(replica_claim(map, with_replication, &fence, &other), LARDER_OK);
    make_keys();
    for (step = 0; step < STEPS; step++) {
        struct fact *fact = &facts[below(KEYS)];
        compare(fact);
        do_one(fact);
        compare(fact);
        compare(&facts[below(KEYS)]);
        if (step % CHECK_EVERY == 0) {
            maps_whole(map);
        }
        if (step % 1000 == 500) { /* another life of the process's handle */
            char name[16];
            (void)snprintf(name, sizeof name, "%s", strrchr(map->map->path, '/') + 1);
            larder *second = maps_open(name, 0, LARDER_ATTACH);
            larder_close(&map);
            map = second;
        }
    }
    uint64_t live = 0;
    for (unsigned i = 0; i < KEYS; i++) {
        compare(&facts[i]);
        live += facts[i].kind != NOTHING;
    }
    do_upkeep();
    larder_stats stats = maps_stats(map);
    SAME(stats.entries, live);
    SAME(stats.read_corrupt, 0);
    SAME(stats.refused_full, 0);
    SAME(stats.generation, 1);
    if (!with_replication) {
        /* inbound deletes leave tombstones in any map; upkeep took those away */
        ck_assert_uint_le(stats.tombstones, KEYS);
    }
    maps_whole(map);
    larder_close(&map);
    drop_keys();
}

START_TEST(a_map_that_replicates)
{
    run(true);
}
END_TEST

START_TEST(a_map_that_does_not)
{
    run(false);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("model");
    TCase *tests = tcase_create("model");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, a_map_that_replicates);
    tcase_add_test(tests, a_map_that_does_not);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
