/* test_order.c: the push script decides between two entries as sync_order() does, for versions
 * whose parts differ anywhere, also where a double could not tell them apart. So does what stands
 * in for the scripts where a server refuses them: each test is run with both.
 */
#include "tests/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/script.h"
#include "daemon/redis/unscripted.h"
#include "daemon/redis/wire.h"

static harness_redis redis;
static char sha[64];

/* ---- Without scripts: a connection on a loop of its own -----------------------------------------
 */

static struct event_base *loop;
static connection *made;
static unscripted *stand_in;
static char *answered;

static const char *intruder; /* a record that somebody stores between the reading and the writing */
static int intrusions;       /* how often */

static bool send_one(void *context, uint32_t what, int count, const char *const *words,
                     const size_t *sizes)
{
    connection_tag tag = {.index = what};
    (void)context;
    if (intrusions != 0 && strcmp(words[0], "MULTI") == 0) {
        intrusions--;
        free(harness_redis_command(&redis, "SET", "v:{k}", intruder, NULL));
        free(harness_redis_command(&redis, "SET", "k", "intruder", NULL));
    }
    return connection_send(made, &tag, count, words, sizes);
}

static void write_reply(FILE *out, const reply *got)
{
    if (got->kind == REPLY_INTEGER)
        (void)fprintf(out, "%lld", got->integer);
    else if (got->kind == REPLY_ERROR)
        (void)fprintf(out, "-%s", got->text);
    else if (got->kind == REPLY_STRING)
        (void)fwrite(got->text, 1, got->size, out);
    for (size_t i = 0; got->kind == REPLY_ARRAY && i < got->count; i++) {
        (void)fputs(i != 0 ? "\n" : "", out);
        write_reply(out, got->elements[i]);
    }
}

static void answer_one(void *context, const connection_tag *tag, const reply *got, int64_t sent_us)
{
    size_t size;
    (void)context, (void)tag, (void)sent_us;
    FILE *out = open_memstream(&answered, &size);
    write_reply(out, got);
    (void)fclose(out);
}

static void on_unsent(void *context)
{
    (void)context;
    ck_abort_msg("a command could not be sent");
}

static void on_out_of_step(void *context)
{
    (void)context;
    ck_abort_msg("a reply is out of step");
}

static void on_up(void *context)
{
    (void)context;
}

static void on_answer(void *context, const connection_tag *tag, const reply *got, int64_t sent_us)
{
    (void)context, (void)sent_us;
    unscripted_got(stand_in, tag->index, got);
}

static void on_message(void *context, const char *text, size_t size)
{
    (void)context, (void)text, (void)size;
}

static void on_down(void *context, const char *why, bool timed_out, bool protocol)
{
    (void)context, (void)timed_out, (void)protocol;
    ck_abort_msg("the connection ended: %s", why);
}

static void open_stand_in(void)
{
    static const connection_callbacks callbacks = {on_up, on_answer, on_message,
                                                   on_up, on_down,   NULL};
    static const unscripted_callbacks own = {send_one, answer_one, on_unsent, on_out_of_step};
    connection_settings settings = {
        .limits = {1u << 20, 1024, 4}, .connect_timeout_ms = 5000, .reply_timeout_ms = 5000};
    loop = settings.base = event_base_new();
    (void)snprintf(settings.place.path, sizeof settings.place.path, "%s", redis.socket);
    made = connection_open(&settings, &callbacks, NULL);
    stand_in = unscripted_create(&own, NULL);
    ck_assert(made != NULL && stand_in != NULL);
}

static char *call_stand_in(enum script_id script, int count, const char *const *words)
{
    size_t sizes[20];
    connection_tag tag = {0};
    for (int i = 0; i < count; i++)
        sizes[i] = strlen(words[i]);
    answered = NULL;
    if (stand_in == NULL)
        open_stand_in();
    ck_assert(unscripted_call(stand_in, &tag, script, count, words, sizes));
    while (answered == NULL)
        (void)event_base_loop(loop, EVLOOP_ONCE);
    return answered;
}

/* ---- Either way -------------------------------------------------------------------------------
 */

static bool without_scripts;

/* The number of keys, the keys, the arguments. */
static char *call(enum script_id script, const char *text_sha, int count, const char *const *words)
{
    if (without_scripts)
        return call_stand_in(script, count, words);
    const char *all[22] = {"EVALSHA", text_sha};
    memcpy(all + 2, words, (size_t)count * sizeof *words);
    return harness_redis_command_list(&redis, all);
}

static void setup(void)
{
    memset(&redis, 0, sizeof redis);
    harness_redis_start(&redis, "redis");
    char *loaded = harness_redis_command(&redis, "SCRIPT", "LOAD", script_text(SCRIPT_PUSH), NULL);
    ck_assert_uint_eq(strlen(loaded), 40);
    (void)snprintf(sha, sizeof sha, "%s", loaded);
    free(loaded);
    free(harness_redis_command(&redis, "XADD", "s", "5-0", "e", "begin", NULL));
}

static void teardown(void)
{
    connection_close(&made);
    unscripted_destroy(&stand_in);
    if (loop != NULL)
        event_base_free(loop);
    loop = NULL;
    harness_redis_end(&redis);
}

/* Versions may be ahead of the server's clock by ahead ms. */
static char *push_ahead(const char *record, const char *value, const char *epoch, const char *quiet,
                        const char *ahead)
{
    const char *const words[] = {"3", "k",   "v:{k}", "s", record, "event", "0",   "s",  "",
                                 "",  epoch, "1000",  "c", quiet,  "100",   value, ahead};
    return call(SCRIPT_PUSH, sha, sizeof words / sizeof *words, words);
}

static char *push(const char *record, const char *value, const char *epoch, const char *quiet)
{
    return push_ahead(record, value, epoch, quiet, "1000000000000000");
}

/* Which one is there after a and b were pushed in this order? */
static void expect_winner(const replica_record *a, const replica_record *b)
{
    char first[WIRE_RECORD_MAX], second[WIRE_RECORD_MAX];
    (void)wire_record(a, first);
    (void)wire_record(b, second);
    free(harness_redis_command(&redis, "DEL", "k", "v:{k}", NULL));
    char *stored = push(first, "first", "5-*", "");
    ck_assert_str_eq(stored, "1");
    free(stored);
    char *answer = push(second, "second", "5-*", "q");
    int order = sync_order(a, b);
    const char *expected = order < 0 ? "1" : order == 0 ? "2" : first;
    ck_assert_msg(strncmp(answer, expected, strlen(expected)) == 0, "%s, then %s: %s", first,
                  second, answer);
    if (order > 0)
        ck_assert_msg(strstr(answer, "first") != NULL, "the winner's value is missing: %s", answer);
    ck_assert(harness_redis_says(&redis, order < 0 ? "second" : "first", "GET", "k", NULL));
    free(answer);
}

START_TEST(every_part_counts)
{
    without_scripts = _i == 1;
    replica_record base = {.version = {.clock = 0x0123456789abcdefu, .node = 0x76543210u},
                           .kind = REPLICA_NEGATIVE,
                           .value_hash = 0xfedcba9876543210u,
                           .expires_at_ms = INT64_MAX};
    for (int bit = 0; bit < 64; bit++) {
        replica_record other = base;
        other.version.clock ^= (uint64_t)1 << bit;
        expect_winner(&base, &other);
        expect_winner(&other, &base);
        other = base;
        other.value_hash ^= (uint64_t)1 << bit;
        expect_winner(&base, &other);
        expect_winner(&other, &base);
        other = base;
        other.version.node ^= (uint32_t)1 << (bit % 32);
        expect_winner(&base, &other);
        expect_winner(&other, &base);
    }
    for (int kind = REPLICA_VALUE; kind <= REPLICA_DELETED; kind++) {
        replica_record other = base;
        other.kind = (enum replica_kind)kind;
        expect_winner(&base, &other);
        expect_winner(&other, &base);
    }
    expect_winner(&base, &base);
}
END_TEST

START_TEST(chance)
{
    without_scripts = _i == 1;
    uint64_t random = harness_seed();
    for (int i = 0; i < 300; i++) {
        replica_record pair[2];
        memset(pair, 0, sizeof pair);
        for (int j = 0; j < 2; j++) {
            pair[j].version.clock = 0xfffffffffffffff0u | harness_random(&random);
            pair[j].version.node = (uint32_t)(harness_random(&random) % 2);
            pair[j].kind = (enum replica_kind)(1 + harness_random(&random) % 3);
            pair[j].value_hash = harness_random(&random);
            pair[j].expires_at_ms = INT64_MAX;
        }
        expect_winner(&pair[0], &pair[1]);
    }
}
END_TEST

START_TEST(nothing_is_written_without_the_stream)
{
    without_scripts = _i == 1;
    replica_record record = {
        .version = {.clock = 1, .node = 1}, .kind = REPLICA_VALUE, .expires_at_ms = INT64_MAX};
    char text[WIRE_RECORD_MAX];
    (void)wire_record(&record, text);
    char *answer = push(text, "v", "4-*", ""); /* a newer epoch stands there */
    ck_assert_str_eq(answer, "4");
    free(answer);
    free(harness_redis_command(&redis, "DEL", "s", NULL));
    answer = push(text, "v", "5-*", "");
    ck_assert_str_eq(answer, "4");
    free(answer);
    ck_assert(harness_redis_says(&redis, "0", "EXISTS", "k", "v:{k}", "s", NULL));
}
END_TEST

/* Joining for a host that was at that place: the epoch of the stream then. */
static uint64_t joined_epoch(const char *at)
{
    char join[64];
    char *answer = harness_redis_command(&redis, "SCRIPT", "LOAD", script_text(SCRIPT_JOIN), NULL);
    (void)snprintf(join, sizeof join, "%s", answer);
    free(answer);
    const char *const words[] = {"2", "s", "n", at, "begin", "c", "we", "60000"};
    free(call(SCRIPT_JOIN, join, sizeof words / sizeof *words, words));
    answer = harness_redis_command(
        &redis, "EVAL", "return redis.call('XREVRANGE', KEYS[1], '+', '-')[1][1]", "1", "s", NULL);
    char *end;
    uint64_t epoch = strtoull(answer, &end, 10);
    ck_assert_msg(strcmp(end, "-0") == 0, "%s", answer);
    free(answer);
    return epoch;
}

/* Else who knew the first would go on in the second as if it were the same. */
START_TEST(streams_that_begin_in_one_millisecond_have_their_own_epochs)
{
    without_scripts = _i == 1;
    uint64_t before = 0;
    for (int i = 0; i < 200; i++) {
        free(harness_redis_command(&redis, "UNLINK", "s", NULL));
        uint64_t epoch = joined_epoch("");
        ck_assert_uint_gt(epoch, before);
        before = epoch;
    }
}
END_TEST

/* However far behind the server's clock may be. */
START_TEST(epochs_only_rise)
{
    without_scripts = _i == 1;
    free(harness_redis_command(&redis, "UNLINK", "s", NULL));
    uint64_t first = joined_epoch("9000000000000000-5");
    ck_assert_uint_gt(first, UINT64_C(9000000000000000));
    ck_assert_uint_eq(joined_epoch("17-5"), first); /* there is one */
    free(harness_redis_command(&redis, "XTRIM", "s", "MAXLEN", "0", NULL));
    ck_assert_uint_gt(joined_epoch(""), first);
}
END_TEST

START_TEST(an_epoch_that_was_over_is_not_begun_anew)
{
    without_scripts = _i == 1;
    replica_record record = {
        .version = {.clock = 1, .node = 1}, .kind = REPLICA_VALUE, .expires_at_ms = INT64_MAX};
    char text[WIRE_RECORD_MAX];
    (void)wire_record(&record, text);
    char *answer = push(text, "v", "6-*", ""); /* an older epoch stands there */
    ck_assert_str_eq(answer, "4");
    free(answer);
    ck_assert(harness_redis_says(&redis, "0", "EXISTS", "k", "v:{k}", "s", NULL));
}
END_TEST

START_TEST(foreign_record_is_left_alone)
{
    without_scripts = _i == 1;
    free(harness_redis_command(&redis, "SET", "v:{k}", "2something of the future", NULL));
    replica_record record = {
        .version = {.clock = 1, .node = 1}, .kind = REPLICA_VALUE, .expires_at_ms = INT64_MAX};
    char text[WIRE_RECORD_MAX];
    (void)wire_record(&record, text);
    char *answer = push(text, "v", "5-*", "");
    ck_assert_msg(strncmp(answer, "-FORMAT", 7) == 0, "%s", answer);
    free(answer);
    ck_assert(harness_redis_says(&redis, NULL, "GET", "k", NULL));
}
END_TEST

static void record_of(uint64_t clock, char text[WIRE_RECORD_MAX])
{
    replica_record record = {
        .version = {.clock = clock, .node = 1}, .kind = REPLICA_VALUE, .expires_at_ms = INT64_MAX};
    (void)wire_record(&record, text);
}

/* What was decided stands only if nobody wrote meanwhile. */
START_TEST(somebody_writes_in_between)
{
    char older[WIRE_RECORD_MAX], mine[WIRE_RECORD_MAX], newer[WIRE_RECORD_MAX];
    without_scripts = true;
    record_of(10, older);
    record_of(20, mine);
    record_of(30, newer);
    intruder = newer;
    intrusions = 1;
    char *answer = push(mine, "mine", "5-*", "");
    ck_assert_msg(strncmp(answer, newer, strlen(newer)) == 0 && strstr(answer, "intruder") != NULL,
                  "%s", answer);
    ck_assert(harness_redis_says(&redis, "intruder", "GET", "k", NULL));
    free(answer);
    free(harness_redis_command(&redis, "DEL", "k", "v:{k}", NULL));
    intruder = older;
    intrusions = 5;
    answer = push(mine, "mine", "5-*", "");
    ck_assert_str_eq(answer, "1");
    ck_assert_int_eq(intrusions, 0);
    ck_assert(harness_redis_says(&redis, "mine", "GET", "k", NULL));
    free(answer);
    /* not for ever */
    free(harness_redis_command(&redis, "DEL", "k", "v:{k}", NULL));
    intrusions = 1000;
    answer = push(mine, "mine", "5-*", "");
    ck_assert_msg(strncmp(answer, "-CONFLICT", 9) == 0, "%s", answer);
    ck_assert_int_gt(intrusions, 900);
    ck_assert(harness_redis_says(&redis, "intruder", "GET", "k", NULL));
    free(answer);
}
END_TEST

static char *push_at(int64_t ms, const char *value, const char *quiet)
{
    replica_record record = {.version = {.clock = (uint64_t)ms << 16, .node = 1},
                             .kind = REPLICA_VALUE,
                             .expires_at_ms = INT64_MAX};
    char text[WIRE_RECORD_MAX];
    (void)wire_record(&record, text);
    return push_ahead(text, value, "5-*", quiet, "60000");
}

static int64_t redis_now(void)
{
    char *answer = harness_redis_command(
        &redis, "EVAL", "local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000)",
        "0", NULL);
    int64_t now = strtoll(answer, NULL, 10);
    free(answer);
    return now;
}

/* It is told what time it is instead; a deletion under OOM, too. */
START_TEST(a_version_too_far_ahead_is_refused)
{
    without_scripts = _i != 0;
    int64_t before = redis_now();
    char *answer = push_at(before + 90000, "v", "");
    int64_t told = -strtoll(answer, NULL, 10);
    ck_assert_msg(told >= before && told <= before + 20000, "%s", answer);
    free(answer);
    ck_assert(harness_redis_says(&redis, "0", "EXISTS", "k", "v:{k}", NULL));
    answer = push_at(before + 30000, "v", "");
    ck_assert_str_eq(answer, "1");
    free(answer);

    char remove[64];
    answer = harness_redis_command(&redis, "SCRIPT", "LOAD", script_text(SCRIPT_REMOVE), NULL);
    (void)snprintf(remove, sizeof remove, "%s", answer);
    free(answer);
    replica_record record = {.version = {.clock = (uint64_t)(before + 90000) << 16, .node = 1},
                             .kind = REPLICA_DELETED,
                             .expires_at_ms = INT64_MAX};
    char text[WIRE_RECORD_MAX];
    (void)wire_record(&record, text);
    const char *const words[] = {"2", "k", "v:{k}", text, "event", "c", "100", "60000"};
    answer = call(SCRIPT_REMOVE, remove, sizeof words / sizeof *words, words);
    ck_assert_int_ge(-strtoll(answer, NULL, 10), before);
    free(answer);
    ck_assert(harness_redis_says(&redis, "v", "GET", "k", NULL));
}
END_TEST

/* The server's clock was ahead once, and was set back: what it holds of that time gives way. */
START_TEST(a_record_too_far_ahead_gives_way)
{
    without_scripts = _i != 0;
    int64_t now = redis_now();
    replica_record record = {.version = {.clock = (uint64_t)(now + 86400000) << 16, .node = 1},
                             .kind = REPLICA_VALUE,
                             .expires_at_ms = INT64_MAX};
    char text[WIRE_RECORD_MAX];
    (void)wire_record(&record, text);
    char *answer = push(text, "of tomorrow", "5-*", "");
    ck_assert_str_eq(answer, "1");
    free(answer);
    answer = push_at(now, "of today", "");
    ck_assert_str_eq(answer, "1");
    free(answer);
    ck_assert(harness_redis_says(&redis, "of today", "GET", "k", NULL));
}
END_TEST

static char *joined_as(const char *owner)
{
    char *join = harness_redis_command(&redis, "SCRIPT", "LOAD", script_text(SCRIPT_JOIN), NULL);
    const char *const words[] = {"2", "s", "n", "", "begin", "c", owner, "60000"};
    char *answer = call(SCRIPT_JOIN, join, sizeof words / sizeof *words, words);
    free(join);
    return answer;
}

START_TEST(a_node_id_has_one_owner)
{
    without_scripts = _i != 0;
    char *answer = joined_as("we");
    ck_assert_ptr_nonnull(strstr(answer, "we"));
    free(answer);
    ck_assert(harness_redis_says(&redis, "we", "GET", "n", NULL));
    answer = joined_as("they");
    ck_assert_ptr_nonnull(strstr(answer, "we"));
    ck_assert_ptr_null(strstr(answer, "they"));
    free(answer);
    ck_assert(harness_redis_says(&redis, "we", "GET", "n", NULL));
    char *lasts = harness_redis_command(&redis, "PTTL", "n", NULL);
    ck_assert_int_gt(strtol(lasts, NULL, 10), 0);
    free(lasts);
}
END_TEST

static void tell_mark(const char *name, const char *clock, const char *quiet)
{
    char text[64] = "";
    const char *const words[] = {
        "2",     "set",   "s",   "5-*",   "1000", "c",   "0000000000000001",
        "98304", "65536", quiet, "60000", name,   clock, "event"};
    char *loaded = harness_redis_command(&redis, "SCRIPT", "LOAD", script_text(SCRIPT_MARK), NULL);
    (void)snprintf(text, sizeof text, "%s", loaded);
    char *answer = call(SCRIPT_MARK, text, sizeof words / sizeof *words, words);
    ck_assert_str_eq(answer, "0000000000000001");
    free(answer);
    free(loaded);
}

/* A map's floor goes to all where the set was lost, though this set may know of a newer one: the
 * others need not. All else goes once. */
START_TEST(floors_of_maps_are_told_all_the_same)
{
    static const struct {
        const char *name, *quiet;
        int told;
    } rows[] = {{"F", "q", 0},
                {"F", "", 1},
                {"A", "", 1},
                {"A", "q", 0},
                {"f", "", 0},
                {"c", "", 0},
                {"m0123456789abcdef", "", 0}};
    without_scripts = _i == 1;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char length[16];
        free(harness_redis_command(&redis, "DEL", "set", "s", NULL));
        free(harness_redis_command(&redis, "XADD", "s", "5-0", "e", "begin", NULL));
        tell_mark(rows[i].name, "0000000000000200", "");
        tell_mark(rows[i].name, "0000000000000100", rows[i].quiet);
        (void)snprintf(length, sizeof length, "%d", 2 + rows[i].told);
        ck_assert_msg(harness_redis_says(&redis, length, "XLEN", "s", NULL), "%s", rows[i].name);
        ck_assert(
            harness_redis_says(&redis, "0000000000000200", "HGET", "set", rows[i].name, NULL));
    }
}
END_TEST

int main(void)
{
    harness_needs_redis();
    Suite *suite = suite_create("order");
    TCase *all = tcase_create("script");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 60);
    tcase_add_loop_test(all, every_part_counts, 0, 2);
    tcase_add_loop_test(all, chance, 0, 2);
    tcase_add_loop_test(all, nothing_is_written_without_the_stream, 0, 2);
    tcase_add_loop_test(all, streams_that_begin_in_one_millisecond_have_their_own_epochs, 0, 2);
    tcase_add_loop_test(all, epochs_only_rise, 0, 2);
    tcase_add_loop_test(all, an_epoch_that_was_over_is_not_begun_anew, 0, 2);
    tcase_add_loop_test(all, foreign_record_is_left_alone, 0, 2);
    tcase_add_test(all, somebody_writes_in_between);
    tcase_add_loop_test(all, a_version_too_far_ahead_is_refused, 0, 2);
    tcase_add_loop_test(all, a_record_too_far_ahead_gives_way, 0, 2);
    tcase_add_loop_test(all, a_node_id_has_one_owner, 0, 2);
    tcase_add_loop_test(all, floors_of_maps_are_told_all_the_same, 0, 2);
    suite_add_tcase(suite, all);
    return harness_run(suite);
}
