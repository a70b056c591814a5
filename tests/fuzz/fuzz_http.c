/* fuzz_http.c: any text as a request and a response: two heads, parted by an empty line, whose
 * first lines are "POLICY PATH?QUERY" and a status. Whatever their fields say (Cache-Control, Vary,
 * If-None-Match, dates), nothing reads too far, what is stored can be decoded again and is found
 * again by the same request, and never by one of another user unless it is public.
 */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "larder_http.h"

enum { FIELDS = 32 };

#define NOW INT64_C(1795651200000)

struct head {
    larder_bytes line;
    larder_http_header fields[FIELDS + 1];
    size_t count;
};

static larder_bytes line_next(larder_bytes *rest)
{
    const char *begin = rest->data;
    const char *end = rest->size == 0 ? NULL : memchr(begin, '\n', rest->size);
    size_t size = end == NULL ? rest->size : (size_t)(end - begin);
    size_t taken = end == NULL ? size : size + 1;
    *rest = (larder_bytes){rest->size == 0 ? begin : begin + taken, rest->size - taken};
    return (larder_bytes){begin, size};
}

static void head_read(larder_bytes *rest, struct head *head)
{
    head->line = line_next(rest);
    head->count = 0;
    while (rest->size > 0 && head->count < FIELDS) {
        larder_bytes line = line_next(rest);
        const char *begin = line.data,
                   *colon = line.size == 0 ? NULL : memchr(begin, ':', line.size);
        if (line.size == 0)
            return;
        if (colon == NULL)
            continue;
        head->fields[head->count++] = (larder_http_header){
            {begin, (size_t)(colon - begin)}, {colon + 1, line.size - (size_t)(colon - begin) - 1}};
    }
}

static bool same(larder_bytes a, larder_bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* What a request finds of what was written. */
static const larder_http_stored *find(const larder_http_policy *policy,
                                      const larder_http_request *request,
                                      const larder_http_plan *plan, larder_bytes key,
                                      larder_http_arena *arena, larder_http_stored *stored)
{
    larder_bytes at = key, variant = {NULL, 0};
    for (int hop = 0; hop < 2; hop++) {
        uint32_t i = 0;
        while (i < plan->write_count && !same(plan->writes[i].key, at))
            i++;
        if (i == plan->write_count)
            return NULL;
        fuzz_check(larder_http_decode(plan->writes[i].value, arena, stored) == LARDER_OK);
        int chosen = larder_http_select(policy, request, key, stored, arena, &variant);
        fuzz_check(chosen >= 0);
        if (chosen != LARDER_HTTP_VARIANT)
            return chosen == LARDER_HTTP_CHOSEN ? stored : NULL;
        at = variant;
    }
    return NULL;
}

static void check_stored(const larder_http_policy *policy, larder_http_request *request,
                         struct head *head, const larder_http_plan *plan, larder_bytes key,
                         larder_http_arena *arena)
{
    larder_http_stored stored;
    larder_http_decision decision;
    larder_http_response answer;
    const larder_http_header *sent;
    size_t count;
    const larder_http_stored *page = find(policy, request, plan, key, arena, &stored);
    fuzz_check(page != NULL);
    fuzz_check(larder_http_serve(policy, request, page, NOW + 1, &decision) == LARDER_OK);
    fuzz_check(larder_http_forward(policy, request, page, arena, &sent, &count) == LARDER_OK);
    fuzz_check(larder_http_answer(policy, request, &page->response, page, LARDER_HTTP_HIT, NOW + 1,
                                  arena, &answer) == LARDER_OK);
    fuzz_check(answer.status == 304 || answer.status == page->response.status);
    /* one more cookie: another user */
    head->fields[head->count] = (larder_http_header){{"Cookie", 6}, {"another-user", 12}};
    request->header_count++;
    page = find(policy, request, plan, key, arena, &stored);
    fuzz_check(page == NULL || (page->flags & LARDER_HTTP_STORED_PUBLIC) != 0);
}

static larder_http_request request_of(const struct head *head)
{
    larder_bytes target = head->line;
    if (target.size > 0) { /* the first byte is the policy's */
        target = (larder_bytes){(const char *)target.data + 1, target.size - 1};
    }
    const char *begin = target.data,
               *mark = target.size == 0 ? NULL : memchr(begin, '?', target.size);
    larder_http_request request = {
        .method = {"GET", 3},
        .authority = {"h", 1},
        .path = {begin, mark == NULL ? target.size : (size_t)(mark - begin)},
        .headers = head->fields,
        .header_count = head->count};
    if (mark != NULL)
        request.query = (larder_bytes){mark + 1, target.size - (size_t)(mark - begin) - 1};
    return request;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint64_t memory[131072];
    static struct head asked, answered;
    larder_http_arena arena = {.data = memory, .size = sizeof memory};
    larder_bytes rest = {data, size}, key = {NULL, 0};
    head_read(&rest, &asked);
    head_read(&rest, &answered);
    uint8_t kind = size == 0 ? 0 : data[0];
    larder_http_request request = request_of(&asked);
    larder_http_key_options options = {.form = kind % 3, .prefix = {"p", 1}, .group = {"g", 1}};
    larder_http_policy policy = {.kind = kind / 4 % 2, .ttl_ms = 60000};
    larder_http_response response = {
        .status = 200, .headers = answered.fields, .header_count = answered.count, .body = rest};
    if (answered.line.size > 0)
        response.status = 200 + ((const uint8_t *)answered.line.data)[0] % 8;
    int keyed = larder_http_key(&request, &options, &arena, &key);
    fuzz_check(keyed == LARDER_OK || keyed == LARDER_ETOOBIG);
    if (keyed != LARDER_OK)
        return 0;
    fuzz_check(key.size > 0 && key.size <= LARDER_KEY_MAX &&
               memchr(key.data, '#', key.size) == NULL);
    int classified = larder_http_classify(&policy, &request);
    fuzz_check(classified == LARDER_HTTP_LOOKUP || classified == LARDER_HTTP_BYPASS);
    larder_http_place place = {.key = key, .request_ms = NOW, .response_ms = NOW};
    larder_http_plan plan;
    int stored = larder_http_store(&policy, &request, &response, &place, &arena, &plan);
    fuzz_check(stored == LARDER_OK || stored == LARDER_SKIP || stored == LARDER_ETOOBIG);
    if (stored == LARDER_OK && classified == LARDER_HTTP_LOOKUP)
        check_stored(&policy, &request, &asked, &plan, key, &arena);
    return 0;
}
