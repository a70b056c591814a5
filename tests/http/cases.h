/* cases.h: reading tests/http/cases.txt: what its columns mean is said at its beginning.
 */
#ifndef LARDER_TESTS_HTTP_CASES_H
#define LARDER_TESTS_HTTP_CASES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "larder_http.h"

enum { CASE_COLUMNS = 8, CASE_PARTS = 24, CASE_LINE = 4096 };

/* 2026-11-26 00:00:00 UTC: the time of every case's first request. */
#define CASE_TIME_MS INT64_C(1795651200000)

/* The parts of a cell: what stands between " ; ". */
struct cell {
    const char *parts[CASE_PARTS];
    unsigned count;
};

struct test_case {
    int line;
    char text[CASE_LINE]; /* as it stands there */
    char memory[CASE_LINE];
    unsigned columns;
    struct cell cells[CASE_COLUMNS];
    /* made of cells */
    larder_http_policy policy;
    larder_http_header headers[3][CASE_PARTS];
    char dates[3][CASE_PARTS][LARDER_HTTP_DATE_SIZE];
    larder_http_request first, second;
    larder_http_response response;
    int64_t later_ms;
};

/* The next case of the file; false at its end. A line that cannot be read ends the test. */
bool case_next(FILE *file, int *line, struct test_case *test);

#endif
