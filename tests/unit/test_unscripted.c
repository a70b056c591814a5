/* test_unscripted.c: scripts without scripts, against a server that is not one: a reply of another
 * kind than the command has, at every place, ends the session, and no number of a server's makes an
 * epoch or a comparison of it. Real servers that refuse scripts are tests/redis/unscripted.sh's.
 */
#include "tests/harness.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/unscripted.h"

#define SENT_MAX 64

static struct {
    uint32_t what;
    char words[120];
} sent[SENT_MAX];
static size_t sent_count, answered, unsent, out_of_step;
static char answer_text[200];
static unscripted *self;

static bool on_send(void *context, uint32_t what, int count, const char *const *words,
                    const size_t *sizes)
{
    (void)context;
    ck_assert_uint_lt(sent_count, SENT_MAX);
    sent[sent_count].what = what;
    sent[sent_count].words[0] = 0;
    for (int i = 0; i < count; i++) {
        char *text = sent[sent_count].words;
        size_t used = strlen(text);
        (void)snprintf(text + used, sizeof sent->words - used, "%s%.*s", i == 0 ? "" : " ",
                       (int)sizes[i], words[i]);
    }
    sent_count++;
    return true;
}

static void on_answer(void *context, const connection_tag *tag, const reply *got, int64_t sent_us)
{
    (void)context;
    (void)tag;
    (void)sent_us;
    answered++;
    if (got->kind == REPLY_ERROR)
        (void)snprintf(answer_text, sizeof answer_text, "%s", got->said);
    else
        (void)snprintf(answer_text, sizeof answer_text, "kind %d", (int)got->kind);
}

static void on_unsent(void *context)
{
    (void)context;
    unsent++;
}

static void on_out_of_step(void *context)
{
    (void)context;
    out_of_step++;
}

static void setup(void)
{
    static const unscripted_callbacks callbacks = {on_send, on_answer, on_unsent, on_out_of_step};
    sent_count = answered = unsent = out_of_step = 0;
    self = unscripted_create(&callbacks, NULL);
    ck_assert_ptr_nonnull(self);
}

static void teardown(void)
{
    unscripted_destroy(&self);
}

/* ---- Replies ----------------------------------------------------------------------------------
 */

static reply text(enum reply_kind kind, const char *words)
{
    return (reply){.kind = kind, .text = words, .size = strlen(words), .said = words};
}

static reply *elements[4];
static reply parts[4];

static reply array(size_t count, const char *first, const char *second)
{
    parts[0] = text(REPLY_STRING, first);
    parts[1] = text(REPLY_STRING, second);
    elements[0] = &parts[0];
    elements[1] = &parts[1];
    elements[2] = NULL;
    return (reply){.kind = REPLY_ARRAY, .elements = elements, .count = count};
}

/* As a server answers this that has nothing, and refuses nothing. */
static reply honest(const char *words)
{
    static const struct {
        const char *command;
        enum reply_kind kind;
        const char *text;
    } known[] = {{"WATCH", REPLY_STATUS, "OK"},    {"UNWATCH", REPLY_STATUS, "OK"},
                 {"MULTI", REPLY_STATUS, "OK"},    {"GET ", REPLY_NIL, ""},
                 {"HGET ", REPLY_NIL, ""},         {"XADD", REPLY_STRING, "7-0"},
                 {"HLEN", REPLY_INTEGER, ""},      {"SET", REPLY_STATUS, "OK"},
                 {"PUBLISH", REPLY_INTEGER, ""},   {"UNLINK", REPLY_INTEGER, ""},
                 {"XREVRANGE", REPLY_ARRAY, ""},   {"XRANGE", REPLY_ARRAY, ""},
                 {"GETRANGE", REPLY_STRING, ""},   {"EXISTS", REPLY_INTEGER, ""},
                 {"HSET", REPLY_STATUS, "QUEUED"}, {"EXEC", REPLY_NIL, ""}};
    if (strncmp(words, "TIME", 4) == 0)
        return array(2, "1700000000", "5");
    if (strncmp(words, "XINFO", 5) == 0)
        return array(2, "last-generated-id", "7-1");
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strncmp(words, known[i].command, strlen(known[i].command)) == 0)
            return known[i].kind == REPLY_ARRAY ? array(0, "", "")
                                                : text(known[i].kind, known[i].text);
    ck_abort_msg("no answer to %s", words);
}

static reply other_kind(enum reply_kind kind)
{
    return kind == REPLY_ARRAY ? array(2, "a", "b") : text(kind, "odd");
}

/* ---- Calls ------------------------------------------------------------------------------------
 */

#define RECORD                                                                                     \
    "1"                                                                                            \
    "0000000000000007"                                                                             \
    "00000001"                                                                                     \
    "1"                                                                                            \
    "1111111111111111"                                                                             \
    " - 1"

static void call(enum script_id script)
{
    static const char *const push[] = {"3",       "k", "v:{k}", "stream", RECORD, "event",
                                       "0",       "s", "",      "",       "7-*",  "1000",
                                       "channel", "",  "10",    "x",      "60000"};
    static const char *const remove_[] = {"2",     "k",       "v:{k}", RECORD,
                                          "event", "channel", "10",    "60000"};
    static const char *const join[] = {"2",     "stream",  "claim", "7-1",
                                       "begin", "channel", "owner", "1000"};
    static const char *const mark[] = {
        "2",  "marks", "stream", "7-*",   "1000",  "channel",          "id",
        "10", "5",     "",       "60000", "mname", "0000000000000007", "event"};
    const char *const *words = script == SCRIPT_PUSH     ? push
                               : script == SCRIPT_REMOVE ? remove_
                               : script == SCRIPT_JOIN   ? join
                                                         : mark;
    int count = script == SCRIPT_PUSH     ? (int)(sizeof push / sizeof *push)
                : script == SCRIPT_REMOVE ? (int)(sizeof remove_ / sizeof *remove_)
                : script == SCRIPT_JOIN   ? (int)(sizeof join / sizeof *join)
                                          : (int)(sizeof mark / sizeof *mark);
    size_t sizes[32];
    connection_tag tag = {.kind = 1};
    for (int i = 0; i < count; i++)
        sizes[i] = strlen(words[i]);
    ck_assert(unscripted_call(self, &tag, script, count, words, sizes));
}

/* Answer honestly, but the one request with that number. Its words, or NULL: there was none. */
static const char *play(size_t liar, enum reply_kind kind)
{
    bool in_multi = false;
    for (size_t i = 0; i < sent_count && answered == 0 && out_of_step == 0 && i < 40; i++) {
        reply got = honest(sent[i].words);
        if (in_multi && strncmp(sent[i].words, "EXEC", 4) != 0)
            got = text(REPLY_STATUS, "QUEUED");
        in_multi = (in_multi || strcmp(sent[i].words, "MULTI") == 0) &&
                   strncmp(sent[i].words, "EXEC", 4) != 0;
        if (i == liar)
            got = other_kind(kind);
        unscripted_got(self, sent[i].what, &got);
        if (i == liar)
            return sent[i].words;
    }
    return NULL;
}

/* What the reply of a command may be, beside an error. */
static bool may_be(const char *words, bool queued, enum reply_kind kind)
{
    reply right = honest(words);
    if (strncmp(words, "EXEC", 4) == 0) /* in an array are its results, which are counted */
        return kind == REPLY_NIL;
    if (queued)
        return kind == REPLY_STATUS;
    if (right.kind == REPLY_NIL)
        return kind == REPLY_NIL || kind == REPLY_STRING;
    return kind == right.kind;
}

static const enum script_id scripts[] = {SCRIPT_PUSH, SCRIPT_REMOVE, SCRIPT_JOIN, SCRIPT_MARK};

START_TEST(a_reply_of_another_kind_ends_the_session)
{
    static const enum reply_kind kinds[] = {REPLY_STRING, REPLY_ARRAY, REPLY_INTEGER, REPLY_NIL,
                                            REPLY_STATUS};
    size_t lies = 0;
    teardown();
    for (size_t s = 0; s < sizeof scripts / sizeof *scripts; s++) {
        for (size_t liar = 0; liar < 24; liar++) {
            for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
                setup();
                call(scripts[s]);
                const char *words = play(liar, kinds[k]);
                bool ignored = words != NULL && (sent[liar].what & 255u) == 0;
                bool queued = false;
                for (size_t i = 0; words != NULL && i < liar; i++)
                    queued = strncmp(sent[i].words, "EXEC", 4) != 0 &&
                             (queued || strcmp(sent[i].words, "MULTI") == 0);
                if (words != NULL && !ignored && !may_be(words, queued, kinds[k])) {
                    ck_assert_msg(out_of_step == 1 && answered == 0,
                                  "script %zu: %s was answered with kind %d", s, words,
                                  (int)kinds[k]);
                    lies++;
                }
                ck_assert_uint_eq(unsent, 0);
                teardown();
            }
        }
    }
    ck_assert_uint_gt(lies, 60);
    setup();
}
END_TEST

START_TEST(a_time_that_is_none_is_refused)
{
    static const char *const times[][2] = {{"18446744073709551615", "0"},
                                           {"9223372036854775807", "999999"},
                                           {"70368744178", "0"},
                                           {"1700000000", "1000000"},
                                           {"0", "1"},
                                           {"soon", "1"},
                                           {"-1700000000", "1"}};
    teardown();
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        setup();
        call(SCRIPT_JOIN);
        for (size_t at = 0; at < sent_count && answered == 0; at++) {
            reply got = strcmp(sent[at].words, "TIME") == 0 ? array(2, times[i][0], times[i][1])
                                                            : honest(sent[at].words);
            unscripted_got(self, sent[at].what, &got);
        }
        ck_assert_uint_eq(answered, 1);
        ck_assert_str_eq(answer_text, "ERR no time");
        for (size_t at = 0; at < sent_count; at++)
            ck_assert_msg(strncmp(sent[at].words, "XADD", 4) != 0, "an epoch was begun: %s",
                          sent[at].words);
        teardown();
    }
    setup();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("unscripted");
    TCase *all = tcase_create("replies");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, a_reply_of_another_kind_ends_the_session);
    tcase_add_test(all, a_time_that_is_none_is_refused);
    suite_add_tcase(suite, all);
    return harness_run(suite);
}
