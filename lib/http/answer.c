/* answer.c: status and header fields for the client. The fields of a stored response and those of
 * one that has just come are the same but for what tells of their age, so that a client cannot see
 * which process answers.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "http/arena.h"
#include "http/condition.h"
#include "http/credentials.h"
#include "http/headers.h"
#include "http/policy.h"
#include "http/text.h"
#include "http/vary.h"

enum { ADDED_MAX = 5, CONTROL_SIZE = 64, AGE_SIZE = 24 };

struct answer {
    const larder_http_policy *policy;
    const larder_http_stored *stored; /* NULL: it is not */
    struct headers headers;           /* of the response */
    larder_http_header *fields;
    size_t count;
    bool not_modified;
};

static void add(struct answer *answer, const char *name, larder_bytes value)
{
    answer->fields[answer->count++] = (larder_http_header){text_of(name), value};
}

/* What goes with a 304 (RFC 9110, 15.4.5). Set-Cookie says nothing of the page, and is never
 * stored: it is for this client. */
static bool of_304(larder_bytes name)
{
    return text_is_name(name, "set-cookie") || text_is_name(name, "etag") ||
           text_is_name(name, "cache-control") || text_is_name(name, "vary") ||
           text_is_name(name, "content-location") || text_is_name(name, "expires") ||
           text_is_name(name, "date");
}

/* What is said anew below. */
static bool replaced(const struct answer *answer, larder_bytes name)
{
    const larder_http_policy *policy = answer->policy;
    if (policy->status_header.size > 0 && text_same_name(name, policy->status_header)) {
        return true;
    }
    if (answer->stored == NULL) {
        return false;
    }
    return policy->kind == LARDER_HTTP_ROUTE
               ? text_is_name(name, "cache-control") || text_is_name(name, "expires")
               : text_is_name(name, "date") || text_is_name(name, "age");
}

static void copy_fields(struct answer *answer)
{
    for (size_t i = 0; i < answer->headers.count; i++) {
        const larder_http_header *field = &answer->headers.fields[i];
        if (!headers_hop_by_hop(answer->headers, field->name) && !replaced(answer, field->name) &&
            !text_is_name(field->name, "content-length") &&
            (!answer->not_modified || of_304(field->name))) {
            answer->fields[answer->count++] = *field;
        }
    }
}

static void add_route_control(struct answer *answer, int64_t now_ms, char *text)
{
    const larder_http_stored *stored = answer->stored;
    const char *who = (answer->policy->flags & LARDER_HTTP_PRIVATE) != 0 ? "private, " : "";
    if (stored == NULL) { /* not kept here; nor may it be by others who serve many */
        if (*who != '\0' &&
            !headers_list_has(answer->headers, "cache-control", text_of("private")) &&
            !headers_list_has(answer->headers, "cache-control", text_of("no-store"))) {
            add(answer, "Cache-Control", text_of("private"));
        }
        return;
    }
    if (stored->lifetime_ms == INT64_MAX) {
        snprintf(text, CONTROL_SIZE, "%sno-cache", who);
    } else {
        int64_t age = now_ms > stored->made_ms ? now_ms - stored->made_ms : 0;
        int64_t left = age < stored->lifetime_ms ? (stored->lifetime_ms - age) / 1000 : 0;
        snprintf(text, CONTROL_SIZE, "%smax-age=%" PRId64, who, left);
    }
    add(answer, "Cache-Control", text_of(text));
}

/* What varies by who asks says so to the caches behind this one, also where nobody in particular
 * has asked: or a browser would show that page to who has logged in since. */
static void add_vary(struct answer *answer)
{
    static const struct {
        const char *name, *shown;
    } names[] = {{"authorization", "Authorization"}, {"cookie", "Cookie"}};
    const larder_http_stored *stored = answer->stored;
    if (stored == NULL) {
        return;
    }
    bool by_user = (stored->flags & LARDER_HTTP_STORED_PUBLIC) == 0 &&
                   credentials_that_matter(answer->policy) != 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        larder_bytes name = text_of(names[i].name);
        if ((by_user || vary_has(stored->vary, name)) &&
            !headers_list_has(answer->headers, "vary", name)) {
            add(answer, "Vary", text_of(names[i].shown));
        }
    }
}

static void add_gateway_age(struct answer *answer, uint32_t cache_status, int64_t now_ms,
                            char *date, char *age)
{
    const larder_http_stored *stored = answer->stored;
    if (stored == NULL) {
        return;
    }
    int64_t seconds = now_ms > stored->made_ms ? (now_ms - stored->made_ms) / 1000 : 0;
    bool cached = cache_status == LARDER_HTTP_HIT || cache_status == LARDER_HTTP_STALE_HIT;
    larder_http_date_write(stored->made_ms, date);
    add(answer, "Date", text_of(date));
    if (cached || seconds > 0) { /* RFC 9111, 5.1 */
        snprintf(age, AGE_SIZE, "%" PRId64, seconds);
        add(answer, "Age", text_of(age));
    }
}

static void add_status(struct answer *answer, uint32_t cache_status)
{
    static const char *const texts[] = {
        [LARDER_HTTP_HIT] = "HIT",
        [LARDER_HTTP_MISS] = "MISS",
        [LARDER_HTTP_BYPASSED] = "BYPASS",
        [LARDER_HTTP_STALE_HIT] = "STALE",
        [LARDER_HTTP_REVALIDATED] = "REVALIDATED",
    };
    if (answer->policy->status_header.size > 0 && cache_status < sizeof texts / sizeof texts[0]) {
        answer->fields[answer->count++] =
            (larder_http_header){answer->policy->status_header, text_of(texts[cache_status])};
    }
}

int larder_http_answer(const larder_http_policy *policy, const larder_http_request *request,
                       const larder_http_response *response, const larder_http_stored *stored,
                       uint32_t cache_status, int64_t now_ms, larder_http_arena *arena,
                       larder_http_response *out)
{
    struct answer answer = {
        .policy = policy, .stored = stored, .headers = headers_of_response(response)};
    struct arena memory = arena_begin(arena);
    int result = http_policy_check(policy);
    if (result != LARDER_OK) {
        return result;
    }
    answer.fields = arena_take(&memory, (answer.headers.count + ADDED_MAX) * sizeof *answer.fields);
    char *control = arena_take_text(&memory, CONTROL_SIZE);
    char *date = arena_take_text(&memory, LARDER_HTTP_DATE_SIZE);
    char *age = arena_take_text(&memory, AGE_SIZE);
    if (memory.too_small) {
        return arena_end(&memory);
    }
    answer.not_modified =
        condition_not_modified(request, response, stored == NULL ? now_ms : stored->made_ms);
    copy_fields(&answer);
    if (policy->kind == LARDER_HTTP_ROUTE) {
        add_route_control(&answer, now_ms, control);
        add_vary(&answer);
    } else {
        add_gateway_age(&answer, cache_status, now_ms, date, age);
    }
    add_status(&answer, cache_status);
    *out = (larder_http_response){.status = answer.not_modified ? 304 : response->status,
                                  .flags = response->flags,
                                  .headers = answer.fields,
                                  .header_count = answer.count};
    out->body = answer.not_modified ? (larder_bytes){"", 0} : response->body;
    return arena_end(&memory);
}
