/* cases.c: see cases.h.
 */
#include "tests/http/cases.h"

#include <stdlib.h>
#include <string.h>

#include "tests/http/messages.h"

static void unreadable(const struct test_case *test, const char *what)
{
    fprintf(stderr, "cases.txt:%d: %s: %s\n", test->line, what, test->text);
    abort();
}

static char *trimmed(char *text)
{
    while (*text == ' ') {
        text++;
    }
    for (size_t size = strlen(text); size > 0 && text[size - 1] == ' '; size--) {
        text[size - 1] = '\0';
    }
    return text;
}

static void split(struct test_case *test)
{
    char *rest = test->memory, *column;
    test->columns = 0;
    while ((column = strsep(&rest, "|")) != NULL) {
        if (test->columns == CASE_COLUMNS) {
            unreadable(test, "more than 8 columns");
        }
        struct cell *cell = &test->cells[test->columns++];
        cell->count = 0;
        for (char *part = column, *next; part != NULL; part = next) {
            next = strstr(part, " ; ");
            if (next != NULL) {
                *next = '\0';
                next += 3;
            }
            if (cell->count == CASE_PARTS) {
                unreadable(test, "too many parts");
            }
            cell->parts[cell->count++] = trimmed(part);
        }
    }
    if (test->columns != 5 && test->columns != 8) {
        unreadable(test, "neither 5 nor 8 columns");
    }
}

static int64_t seconds_of(const struct test_case *test, const char *text)
{
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || *end != '\0') {
        unreadable(test, "not a number of seconds");
    }
    return (int64_t)(seconds * 1000 + (seconds < 0 ? -0.5 : 0.5));
}

static void policy_setting(struct test_case *test, const char *word)
{
    static const struct {
        const char *name;
        uint32_t flag;
    } flags[] = {{"private", LARDER_HTTP_PRIVATE},
                 {"shared", LARDER_HTTP_SHARED},
                 {"no-heuristic", LARDER_HTTP_NO_HEURISTIC}};
    larder_http_policy *policy = &test->policy;
    const char *equals = strchr(word, '=');
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (strcmp(word, flags[i].name) == 0) {
            policy->flags |= flags[i].flag;
            return;
        }
    }
    if (equals == NULL) {
        unreadable(test, "unknown word of a policy");
        return;
    }
    int64_t ms = seconds_of(test, equals + 1);
    if (strncmp(word, "ttl=", 4) == 0) {
        policy->ttl_ms = ms;
    } else if (strncmp(word, "until=", 6) == 0) {
        policy->expires_ms = CASE_TIME_MS + ms;
    } else if (strncmp(word, "swr=", 4) == 0) {
        policy->stale_while_revalidate_ms = ms;
    } else if (strncmp(word, "sie=", 4) == 0) {
        policy->stale_if_error_ms = ms;
    } else if (strncmp(word, "guess=", 6) == 0) {
        policy->heuristic_max_ms = ms;
    } else if (strncmp(word, "body=", 5) == 0) {
        policy->max_body = (uint64_t)ms / 1000;
    } else {
        unreadable(test, "unknown word of a policy");
    }
}

static void policy_read(struct test_case *test)
{
    char words[256], *rest = words, *word;
    snprintf(words, sizeof words, "%s", test->cells[1].parts[0]);
    test->policy = (larder_http_policy){.status_header = message_text("X-Cache")};
    word = strsep(&rest, " ");
    if (strcmp(word, "route") != 0 && strcmp(word, "gateway") != 0) {
        unreadable(test, "neither route nor gateway");
    }
    test->policy.kind = *word == 'r' ? LARDER_HTTP_ROUTE : LARDER_HTTP_GATEWAY;
    while ((word = strsep(&rest, " ")) != NULL) {
        policy_setting(test, word);
    }
}

/* Header fields of a cell from a part on. A value "@N" is the date N seconds after the first
 * request. */
static size_t headers_read(struct test_case *test, const struct cell *cell, unsigned from,
                           unsigned which)
{
    size_t count = 0;
    for (unsigned i = from; i < cell->count; i++) {
        const char *part = cell->parts[i], *colon = strchr(part, ':');
        if (colon == NULL) {
            unreadable(test, "a header field without a colon");
            return 0;
        }
        const char *value = colon + 1 + strspn(colon + 1, " ");
        larder_http_header *field = &test->headers[which][count];
        field->name = (larder_bytes){part, (size_t)(colon - part)};
        field->value = message_text(value);
        if (value[0] == '@') {
            larder_http_date_write(CASE_TIME_MS + seconds_of(test, value + 1),
                                   test->dates[which][count]);
            field->value = message_text(test->dates[which][count]);
        }
        count++;
    }
    return count;
}

/* "-": GET /. Else header fields, behind a request line where the first has a " /". */
static larder_http_request request_read(struct test_case *test, const struct cell *cell,
                                        unsigned which)
{
    bool has_line = strstr(cell->parts[0], " /") != NULL && strchr(cell->parts[0], ':') == NULL;
    bool empty = strcmp(cell->parts[0], "-") == 0;
    larder_http_request request = message_request(has_line ? cell->parts[0] : "GET /", NULL);
    request.authority = message_text("example.org");
    request.headers = test->headers[which];
    request.header_count = empty ? 0 : headers_read(test, cell, has_line ? 1 : 0, which);
    return request;
}

static void response_read(struct test_case *test, const struct cell *cell)
{
    char *end;
    test->response = message_response((uint32_t)strtoul(cell->parts[0], &end, 10), NULL, "body");
    while (*end == ' ') {
        end++;
    }
    if (strcmp(end, "open") == 0) {
        test->response.flags = LARDER_HTTP_OPEN_ENDED;
    } else if (*end != '\0') {
        unreadable(test, "not a status");
    }
    test->response.headers = test->headers[2];
    test->response.header_count = headers_read(test, cell, 1, 2);
}

bool case_next(FILE *file, int *line, struct test_case *test)
{
    do {
        if (fgets(test->text, sizeof test->text, file) == NULL) {
            return false;
        }
        *line += 1;
        test->text[strcspn(test->text, "\n")] = '\0';
    } while (test->text[0] == '#' || test->text[0] == '\0');
    test->line = *line;
    memcpy(test->memory, test->text, sizeof test->memory);
    split(test);
    policy_read(test);
    test->first = request_read(test, &test->cells[2], 0);
    response_read(test, &test->cells[3]);
    if (test->columns == CASE_COLUMNS) {
        test->later_ms = seconds_of(test, test->cells[5].parts[0]);
        test->second = request_read(test, &test->cells[6], 1);
    }
    return true;
}
