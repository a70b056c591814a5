/* fuzz_http_stored.c: any bytes as a stored response: refused, or decoded into what lies within
 * them, can be sent without splitting an answer, and gives the same bytes when it is encoded again.
 */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "larder_http.h"

static bool within(larder_bytes part, const uint8_t *data, size_t size)
{
    const uint8_t *begin = part.data;
    return part.size == 0 ||
           (begin >= data && part.size <= size && (size_t)(begin - data) <= size - part.size);
}

static bool has(larder_bytes bytes, char c)
{
    return bytes.size > 0 && memchr(bytes.data, c, bytes.size) != NULL;
}

static void use(const larder_http_stored *stored, larder_http_arena *arena)
{
    static const larder_http_header fields[] = {{{"Cookie", 6}, {"a", 1}},
                                                {{"If-None-Match", 13}, {"\"a\"", 3}}};
    const larder_http_request request = {
        .method = {"GET", 3}, .path = {"/", 1}, .headers = fields, .header_count = 2};
    const larder_http_policy policies[] = {{.kind = LARDER_HTTP_ROUTE},
                                           {.kind = LARDER_HTTP_GATEWAY}};
    for (size_t i = 0; i < 2; i++) {
        larder_http_decision decision;
        larder_http_response answer;
        larder_bytes variant = {NULL, 0};
        size_t used = arena->used;
        int chosen = larder_http_select(&policies[i], &request, (larder_bytes){"k", 1}, stored,
                                        arena, &variant);
        fuzz_check(chosen >= 0 && chosen <= LARDER_HTTP_OTHER);
        fuzz_check(larder_http_serve(&policies[i], &request, stored, 1795651200000, &decision) ==
                   LARDER_OK);
        fuzz_check(decision.age_ms >= 0 && decision.action <= LARDER_HTTP_UNAVAILABLE);
        fuzz_check(larder_http_answer(&policies[i], &request, &stored->response, stored,
                                      LARDER_HTTP_HIT, 1795651200000, arena, &answer) == LARDER_OK);
        arena->used = used;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint64_t memory[65536];
    larder_http_arena arena = {.data = memory, .size = sizeof memory};
    larder_http_stored stored, again;
    larder_bytes bytes = {NULL, 0};
    int decoded = larder_http_decode((larder_bytes){data, size}, &arena, &stored);
    fuzz_check(decoded == LARDER_OK || decoded == LARDER_ECORRUPT);
    if (decoded != LARDER_OK)
        return 0;
    fuzz_check(within(stored.vary, data, size) && within(stored.response.body, data, size));
    fuzz_check(stored.response.header_count <= LARDER_HTTP_HEADERS_MAX);
    for (size_t i = 0; i < stored.response.header_count; i++) {
        const larder_http_header *field = &stored.response.headers[i];
        fuzz_check(within(field->name, data, size) && within(field->value, data, size));
        fuzz_check(field->name.size > 0 && !has(field->name, ':') && !has(field->name, '\n'));
        fuzz_check(!has(field->value, '\n') && !has(field->value, '\r') && !has(field->value, 0));
    }
    use(&stored, &arena);
    fuzz_check(larder_http_encode(&stored, &arena, &bytes) == LARDER_OK);
    fuzz_check(larder_http_decode(bytes, &arena, &again) == LARDER_OK);
    fuzz_check(again.response.header_count == stored.response.header_count &&
               again.response.body.size == stored.response.body.size &&
               again.made_ms == stored.made_ms && again.flags == stored.flags);
    return 0;
}
