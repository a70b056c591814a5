/* test_http_cases.c: tests/http/cases.txt, line by line: store the answer to a first request, look
 * for it with a second one some time later, and see whether the cache decides as the line says.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "http/headers.h"
#include "http/text.h"
#include "tests/harness.h"
#include "tests/http/cases.h"
#include "tests/http/messages.h"

enum { CASES_LEAST = 200, TEXT = 512 };

/* A map of two entries. */
struct map {
    larder_http_write entries[2];
    unsigned count;
};

static struct test_case test;
static unsigned failures;

static void differs(const char *what, const char *expected, const char *got)
{
    fprintf(stderr, "cases.txt:%d: %s: expected '%s', got '%s'\n    %s\n", test.line, what,
            expected, got, test.text);
    failures++;
}

static void same_text(const char *what, const char *expected, const char *got)
{
    if (strcmp(expected, got) != 0) {
        differs(what, expected, got);
    }
}

/* One word of the fifth column that says what is stored: NAME=SECONDS or a flag, "!flag" for its
 * absence. */
static void stored_word(const larder_http_stored *stored, const char *word)
{
    static const struct {
        const char *name;
        uint32_t flag;
    } flags[] = {
        {"revalidate", LARDER_HTTP_STORED_REVALIDATE}, {"no-stale", LARDER_HTTP_STORED_NO_STALE},
        {"private", LARDER_HTTP_STORED_PRIVATE},       {"public", LARDER_HTTP_STORED_PUBLIC},
        {"heuristic", LARDER_HTTP_STORED_HEURISTIC},   {"variant", LARDER_HTTP_STORED_VARIANT},
    };
    char got[TEXT] = "unknown word";
    bool negated = word[0] == '!';
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (strcmp(word + negated, flags[i].name) == 0) {
            bool has = (stored->flags & flags[i].flag) != 0;
            snprintf(got, sizeof got, "%s%s", has ? "" : "!", flags[i].name);
        }
    }
    if (strncmp(word, "life=", 5) == 0) {
        snprintf(got, sizeof got, "life=%g", (double)stored->lifetime_ms / 1000);
        if (stored->lifetime_ms == INT64_MAX) {
            snprintf(got, sizeof got, "life=ever");
        }
    } else if (strncmp(word, "made=", 5) == 0) {
        snprintf(got, sizeof got, "made=%g", (double)(stored->made_ms - CASE_TIME_MS) / 1000);
    } else if (strncmp(word, "swr=", 4) == 0) {
        snprintf(got, sizeof got, "swr=%g", (double)stored->stale_while_revalidate_ms / 1000);
    } else if (strncmp(word, "sie=", 4) == 0) {
        snprintf(got, sizeof got, "sie=%g", (double)stored->stale_if_error_ms / 1000);
    }
    same_text("stored", word, got);
}

static void check_header(struct headers headers, const char *part)
{
    char name[TEXT], got[TEXT] = "", text[TEXT];
    bool absent = part[0] == '!';
    snprintf(name, sizeof name, "%s", part + absent);
    char *colon = strchr(name, ':');
    if (colon != NULL) {
        *colon = '\0';
    }
    for (char *c = name; *c != '\0'; c++) {
        *c = text_lower(*c);
    }
    size_t at = 0;
    const larder_http_header *field;
    while ((field = headers_next(headers, name, &at)) != NULL) {
        size_t used = strlen(got);
        snprintf(got + used, sizeof got - used, "%s%.*s", used == 0 ? "" : ", ",
                 (int)field->value.size, (const char *)field->value.data);
    }
    if (absent) {
        same_text(part, "", got);
        return;
    }
    const char *value = strchr(part, ':') + 1;
    value += strspn(value, " ");
    if (value[0] == '@') {
        larder_http_date_write(CASE_TIME_MS + atoll(value + 1) * 1000, text);
        value = text;
    }
    same_text(part, value, got);
}

/* A first part of "(none)" keeps the rest from being compared. */
static void check_headers(struct headers headers, const struct cell *cell)
{
    for (unsigned i = 1; i < cell->count; i++) {
        check_header(headers, cell->parts[i]);
    }
}

static void store_first(struct map *map, larder_http_arena *arena)
{
    larder_http_place place = {
        .key = message_text("k"), .request_ms = CASE_TIME_MS, .response_ms = CASE_TIME_MS};
    static larder_http_plan plan;
    char got[TEXT], words[TEXT], *rest = words, *word;
    int result = larder_http_store(&test.policy, &test.first, &test.response, &place, arena, &plan);
    ck_assert_msg(result == LARDER_OK || result == LARDER_SKIP, "cases.txt:%d: %d: %s", test.line,
                  result, larder_last_error());
    map->count = plan.write_count;
    memcpy(map->entries, plan.writes, sizeof map->entries);
    snprintf(words, sizeof words, "%s", test.cells[4].parts[0]);
    word = strsep(&rest, " ");
    if (result == LARDER_SKIP || strcmp(word, "stored") != 0) {
        snprintf(got, sizeof got, "%s%s", result == LARDER_SKIP ? "not: " : "stored",
                 result == LARDER_SKIP ? larder_http_reason(plan.reason) : "");
        same_text("storing", test.cells[4].parts[0], got);
        return;
    }
    while ((word = strsep(&rest, " ")) != NULL) {
        stored_word(&plan.stored, word);
    }
    check_headers(headers_of_response(&plan.stored.response), &test.cells[4]);
}

/* What the second request finds under the key or that of its variant. */
static const larder_http_stored *look_up(const struct map *map, larder_http_arena *arena)
{
    static larder_http_stored stored;
    larder_bytes key = message_text("k"), variant = {NULL, 0};
    for (int hops = 0; hops < 2; hops++) {
        unsigned i = 0;
        while (i < map->count && !text_same(map->entries[i].key, key)) {
            i++;
        }
        if (i == map->count) {
            return NULL;
        }
        ck_assert_int_eq(larder_http_decode(map->entries[i].value, arena, &stored), LARDER_OK);
        int chosen = larder_http_select(&test.policy, &test.second, message_text("k"), &stored,
                                        arena, &variant);
        ck_assert_int_ge(chosen, 0);
        if (chosen != LARDER_HTTP_VARIANT) {
            return chosen == LARDER_HTTP_CHOSEN ? &stored : NULL;
        }
        key = variant;
    }
    return NULL;
}

static void check_answer(const larder_http_stored *stored, uint32_t cache_status,
                         larder_http_arena *arena)
{
    larder_http_response answer;
    int64_t now_ms = CASE_TIME_MS + test.later_ms;
    ck_assert_int_eq(larder_http_answer(&test.policy, &test.second, &stored->response, stored,
                                        cache_status, now_ms, arena, &answer),
                     LARDER_OK);
    ck_assert_uint_eq(answer.body.size, answer.status == 304 ? 0 : 4);
    check_headers(headers_of_response(&answer), &test.cells[7]);
}

static void serve_second(const struct map *map, larder_http_arena *arena)
{
    static const char *const actions[] = {"forward", "serve", "stale", "revalidate", "unavailable"};
    const larder_http_stored *stored = look_up(map, arena);
    larder_http_decision decision;
    char got[TEXT];
    ck_assert_int_eq(larder_http_serve(&test.policy, &test.second, stored,
                                       CASE_TIME_MS + test.later_ms, &decision),
                     LARDER_OK);
    bool serves =
        decision.action == LARDER_HTTP_SERVE || decision.action == LARDER_HTTP_SERVE_STALE;
    snprintf(got, sizeof got, "%s", actions[decision.action]);
    if (serves) {
        snprintf(got, sizeof got, "%s %u", actions[decision.action], decision.status);
    } else if (decision.action != LARDER_HTTP_UNAVAILABLE) {
        snprintf(got, sizeof got, "%s: %s%s", actions[decision.action],
                 larder_http_reason(decision.reason),
                 (decision.flags & LARDER_HTTP_IF_ERROR) != 0 ? ", if-error" : "");
    }
    same_text("serving", test.cells[7].parts[0], got);
    if (serves) {
        check_answer(stored,
                     decision.action == LARDER_HTTP_SERVE ? LARDER_HTTP_HIT : LARDER_HTTP_STALE_HIT,
                     arena);
    } else if (decision.action != LARDER_HTTP_UNAVAILABLE) {
        struct headers sent = {NULL, 0};
        ck_assert_int_eq(
            larder_http_forward(&test.policy, &test.second,
                                decision.action == LARDER_HTTP_REVALIDATE ? stored : NULL, arena,
                                &sent.fields, &sent.count),
            LARDER_OK);
        check_headers(sent, &test.cells[7]);
    }
}

/* "9111-4.2.1", "9110-13.1.2", "5861-3", or "policy" where the project has its own rule. */
static bool names_its_source(const char *source)
{
    return strncmp(source, "9111-", 5) == 0 || strncmp(source, "9110-", 5) == 0 ||
           strncmp(source, "5861-", 5) == 0 || strcmp(source, "policy") == 0;
}

START_TEST(every_case_is_decided_as_it_says)
{
    char path[1024];
    const char *sources = getenv("srcdir");
    unsigned count = 0;
    int line = 0;
    snprintf(path, sizeof path, "%s/tests/http/cases.txt", sources == NULL ? "." : sources);
    FILE *file = fopen(path, "re");
    ck_assert_msg(file != NULL, "%s", path);
    while (case_next(file, &line, &test)) {
        struct map map = {.count = 0};
        larder_http_arena *arena = message_arena();
        count++;
        if (!names_its_source(test.cells[0].parts[0])) {
            differs("source", "9111-..., 9110-..., 5861-... or policy", test.cells[0].parts[0]);
        }
        store_first(&map, arena);
        if (test.columns == CASE_COLUMNS) {
            serve_second(&map, arena);
        }
    }
    fclose(file);
    printf("# %u cases\n", count);
    ck_assert_uint_ge(count, CASES_LEAST);
    ck_assert_uint_eq(failures, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("http_cases");
    TCase *tests = tcase_create("http_cases");
    tcase_add_test(tests, every_case_is_decided_as_it_says);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
