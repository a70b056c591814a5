/* proxy.c: what the proxy does with a request, step by step as larder_http.h has it: look up (and
 * where nothing is there take the lease, or wait for its holder), decide, ask the origin, store,
 * answer. No answer of the cache is an error to the client: what cannot be cached is passed on.
 */
#include "examples/proxy.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "examples/exchange.h"
#include "examples/fields.h"

int64_t exchange_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void *exchange_take(exchange *self, size_t size)
{
    size_t begin = (self->arena.used + 15) & ~(size_t)15;
    if (size > self->arena.size || begin > self->arena.size - size)
        return NULL;
    self->arena.used = begin + size;
    return (char *)self->arena.data + begin;
}

/* ---- Looking up
 * -------------------------------------------------------------------------------------- */

static void found_forget(exchange *self)
{
    larder_free(self->primary_value);
    larder_free(self->variant_value);
    self->primary_value = self->variant_value = NULL;
    self->found = self->page = NULL;
}

/* Read a key and, where it is due, take its lease. Returns the outcome, or LARDER_MISS. */
static int take(exchange *self, larder_bytes key, void **value, larder_http_stored *stored,
                bool *readable)
{
    const larder_lease_options options = {.hold_ms =
                                              self->proxy->settings.timeout_ms + LEASE_MORE_MS};
    size_t size = 0;
    larder_lease lease;
    int outcome = larder_lease_acquire(self->proxy->settings.cache, key.data, key.size, &options,
                                       &lease, value, &size, NULL);
    if (outcome == LARDER_FILL || outcome == LARDER_REFRESH) {
        exchange_release_lease(self, 0);
        self->lease = lease;
        self->lease_key = key;
    } else if (outcome == LARDER_WAIT || outcome == LARDER_STALE) {
        self->others = lease;
    }
    *readable = *value != NULL &&
                larder_http_decode((larder_bytes){*value, size}, &self->arena, stored) == LARDER_OK;
    return outcome < 0 ? LARDER_MISS : outcome;
}

/* The page for this request, or none; the outcome of the last key that was looked at. */
static int find(exchange *self)
{
    const larder_http_policy *policy = &self->proxy->policy;
    larder_bytes variant = {NULL, 0};
    bool readable = false;
    found_forget(self);
    int outcome = take(self, self->key, &self->primary_value, &self->primary, &readable);
    if (!readable)
        return outcome;
    self->found = &self->primary;
    int chosen = larder_http_select(policy, &self->request, self->key, &self->primary, &self->arena,
                                    &variant);
    if (chosen == LARDER_HTTP_CHOSEN)
        self->page = &self->primary;
    if (chosen != LARDER_HTTP_VARIANT)
        return chosen == LARDER_HTTP_CHOSEN ? outcome : LARDER_MISS;
    outcome = take(self, variant, &self->variant_value, &self->variant, &readable);
    if (readable && larder_http_select(policy, &self->request, self->key, &self->variant,
                                       &self->arena, &variant) == LARDER_HTTP_CHOSEN)
        self->page = &self->variant;
    return outcome;
}

static void answer_stored(exchange *self, const larder_http_stored *stored, uint32_t cache_status)
{
    larder_http_response answer;
    if (self->client == NULL)
        return;
    if (larder_http_answer(&self->proxy->policy, &self->request, &stored->response, stored,
                           cache_status, exchange_now_ms(), &self->arena, &answer) == LARDER_OK)
        client_answer(self, &answer);
    else
        client_error(self, 500, "The answer does not fit.\n");
}

void exchange_look_up(exchange *self)
{
    size_t used = self->arena.used; /* so that looking again takes no more */
    int outcome = find(self);
    larder_http_serve(&self->proxy->policy, &self->request, self->page, exchange_now_ms(),
                      &self->decision);
    bool leased = self->lease_key.size > 0;
    switch (self->decision.action) {
    case LARDER_HTTP_SERVE:
        exchange_release_lease(self, 0);
        answer_stored(self, self->page, LARDER_HTTP_HIT);
        break;
    case LARDER_HTTP_SERVE_STALE:
        answer_stored(self, self->page, LARDER_HTTP_STALE_HIT);
        if (leased)
            origin_ask(self);
        break;
    case LARDER_HTTP_UNAVAILABLE:
        exchange_release_lease(self, 0);
        client_error(self, 504, "It is not in the cache.\n");
        break;
    default:
        if (coalesce_wait(self, outcome))
            self->arena.used = used;
        else
            origin_ask(self);
    }
}

/* ---- What the origin answered
 * --------------------------------------------------------------------------
 */

static void store(exchange *self, larder_http_plan *plan)
{
    larder *cache = self->proxy->settings.cache;
    for (uint32_t i = 0; i < plan->write_count && !self->unversioned; i++) {
        const larder_http_write *write = &plan->writes[i];
        bool leased = self->lease_key.data != NULL && self->lease_key.size == write->key.size &&
                      memcmp(self->lease_key.data, write->key.data, write->key.size) == 0;
        int stored = leased
                         ? larder_lease_fill(cache, &self->lease, write->key.data, write->key.size,
                                             write->value.data, write->value.size, &write->policy)
                         : larder_set(cache, write->key.data, write->key.size, write->value.data,
                                      write->value.size, &write->policy);
        if (leased)
            self->lease_key = (larder_bytes){NULL, 0};
        if (stored == LARDER_CONFLICT)
            break;
    }
}

/* LARDER_OK and *plan, in memory of its own; or why it is not stored. */
static int plan_make(exchange *self, const larder_http_response *response, larder_http_arena *arena,
                     larder_http_plan *plan)
{
    const larder_http_policy *policy = &self->proxy->policy;
    larder_http_place place = {.key = self->key,
                               .found = self->found,
                               .request_ms = self->asked_ms,
                               .response_ms = exchange_now_ms(),
                               .seed = self->lease_key.size > 0 ? self->lease.version.clock : 0};
    bool updates = response->status == 304 && self->page != NULL && !self->unconditional;
    size_t body = updates ? self->page->response.body.size : response->body.size;
    arena->size = body + 2 * (size_t)LARDER_HTTP_HEAD_MAX + 65536;
    arena->data = malloc(arena->size);
    if (arena->data == NULL)
        return LARDER_ENOMEM;
    return updates ? larder_http_update(policy, &self->request, self->page, response, &place, arena,
                                        plan)
                   : larder_http_store(policy, &self->request, response, &place, arena, plan);
}

void exchange_invalidate(exchange *self, const larder_http_response *response)
{
    const larder_http_key_options options = {.form = LARDER_HTTP_KEY_URI};
    larder_bytes keys[LARDER_HTTP_KEYS_MAX];
    size_t count = 0;
    if (larder_http_invalidates(&self->request, response, &options, &self->arena, keys, &count) !=
        LARDER_OK)
        return;
    for (size_t i = 0; i < count; i++)
        larder_delete(self->proxy->settings.cache, keys[i].data, keys[i].size);
}

/* The answer to HEAD has the length of the body that GET would get, which only the origin knows. */
static bool pass_length(exchange *self, const larder_http_response *response,
                        larder_http_response *answer)
{
    size_t count = answer->header_count;
    larder_http_header *fields = exchange_take(self, (count + 1) * sizeof *fields);
    if (fields == NULL)
        return false;
    memcpy(fields, answer->headers, count * sizeof *fields);
    for (size_t i = 0; i < response->header_count && count == answer->header_count; i++) {
        if (fields_named(&response->headers[i], "Content-Length"))
            fields[count++] = response->headers[i];
    }
    answer->headers = fields;
    answer->header_count = count;
    answer->body = (larder_bytes){NULL, 0};
    return true;
}

static void answer_fresh(exchange *self, const larder_http_response *response,
                         uint32_t cache_status)
{
    larder_http_response answer;
    if (self->client == NULL)
        return;
    if (larder_http_answer(&self->proxy->policy, &self->request, response, NULL, cache_status,
                           exchange_now_ms(), &self->arena, &answer) == LARDER_OK &&
        (self->method != EVHTTP_REQ_HEAD || pass_length(self, response, &answer)))
        client_answer(self, &answer);
    else
        client_error(self, 502, "The origin's answer does not fit.\n");
}

/* A 304 has ended what was stored, and nothing takes its place: the origin takes it back. */
static void withdraw(exchange *self, const larder_http_plan *plan)
{
    if (plan->reason == LARDER_HTTP_WHY_NO_STORE || plan->reason == LARDER_HTTP_WHY_PRIVATE)
        larder_delete(self->proxy->settings.cache, self->key.data, self->key.size);
}

static void answered_lookup(exchange *self, const larder_http_response *response)
{
    larder_http_arena arena = {.data = NULL};
    larder_http_plan plan;
    bool updates = response->status == 304 && self->page != NULL && !self->unconditional;
    if (response->status == 304 && !updates) {
        exchange_failed(self, 502, "The origin has answered a condition that nobody made.\n");
        return;
    }
    int planned = plan_make(self, response, &arena, &plan);
    if (planned == LARDER_CONFLICT) {
        self->unconditional = true;
        free(arena.data);
        origin_ask(self);
        return;
    }
    if (planned == LARDER_OK) {
        store(self, &plan);
        coalesce_shared(self);
    } else if (response->status < 500) { /* an origin in trouble is not asked by all at once */
        coalesce_unshared(self);
    }
    exchange_release_lease(self, 0);
    if (planned == LARDER_OK) {
        answer_stored(self, &plan.stored, updates ? LARDER_HTTP_REVALIDATED : LARDER_HTTP_MISS);
    } else if (updates && planned == LARDER_SKIP) {
        withdraw(self, &plan);
        answer_fresh(self, &plan.stored.response, LARDER_HTTP_REVALIDATED);
    } else if (updates) {
        answer_stored(self, self->page, LARDER_HTTP_REVALIDATED);
    } else {
        answer_fresh(self, response, LARDER_HTTP_MISS);
    }
    free(arena.data);
}

/* RFC 5861, 4: what is stored answers for an origin that fails. */
static bool answer_in_its_place(exchange *self)
{
    if (self->kind != LARDER_HTTP_LOOKUP || self->page == NULL ||
        (self->decision.flags & LARDER_HTTP_IF_ERROR) == 0)
        return false;
    exchange_release_lease(self, 0);
    answer_stored(self, self->page, LARDER_HTTP_STALE_HIT);
    return true;
}

void exchange_answered(exchange *self, const larder_http_response *response)
{
    bool fails = response->status == 500 || (response->status >= 502 && response->status <= 504);
    if (fails && answer_in_its_place(self))
        return;
    if (self->kind == LARDER_HTTP_LOOKUP && self->key.size > 0) {
        answered_lookup(self, response);
        return;
    }
    if (self->kind == LARDER_HTTP_UNSAFE)
        exchange_invalidate(self, response);
    answer_fresh(self, response, LARDER_HTTP_BYPASSED);
}

void exchange_failed(exchange *self, int status, const char *why)
{
    if (answer_in_its_place(self))
        return;
    exchange_release_lease(self, 0);
    /* RFC 9111, 5.2.2.2: what may not be served without asking, where there is nobody to ask */
    bool must_ask = self->page != NULL && (self->page->flags & LARDER_HTTP_STORED_NO_STALE) != 0;
    client_error(self, must_ask ? 504 : status, why);
}

/* ---- Requests
 * ------------------------------------------------------------------------------------------
 */

void exchange_hold(exchange *self)
{
    self->holds++;
}

void exchange_settle(exchange *self)
{
    if (--self->holds > 0 || self->client != NULL || self->answering || self->asked != NULL ||
        self->waits)
        return;
    proxy *owner = self->proxy;
    exchange_release_lease(self, 0);
    found_forget(self);
    if (self->retry != NULL)
        event_free(self->retry);
    if (self->deadline != NULL)
        event_free(self->deadline);
    if (self->body != NULL)
        evbuffer_free(self->body);
    free(self->arena.data);
    free(self);
    owner->settings.ended(owner->settings.context);
}

static void request_handle(exchange *self)
{
    const larder_http_key_options options = {.form = LARDER_HTTP_KEY_URI};
    self->kind = larder_http_classify(&self->proxy->policy, &self->request);
    if (self->kind == LARDER_HTTP_LOOKUP &&
        larder_http_key(&self->request, &options, &self->arena, &self->key) == LARDER_OK)
        exchange_look_up(self);
    else
        origin_ask(self);
}

struct bufferevent *proxy_stream(struct event_base *base, void *context)
{
    return chunks_stream_new(base, &((proxy *)context)->streams);
}

void proxy_request(struct evhttp_request *request, void *context)
{
    proxy *owner = context;
    exchange *self = calloc(1, sizeof *self);
    void *memory = malloc(EXCHANGE_MEMORY);
    if (self == NULL || memory == NULL) {
        free(self);
        free(memory);
        evhttp_send_error(request, 503, NULL);
        return;
    }
    self->proxy = owner;
    self->client = request;
    self->arena = (larder_http_arena){.data = memory, .size = EXCHANGE_MEMORY};
    self->method = evhttp_request_get_command(request);
    exchange_hold(self);
    owner->settings.begun(owner->settings.context);
    const char *why;
    int refused = incoming_read(self, &why);
    if (refused != 0)
        client_refuse(self, refused, why);
    else if (incoming_goes_on(self))
        request_handle(self);
    exchange_settle(self);
}

void proxy_sweep(proxy *self)
{
    if (self->spent != NULL)
        evhttp_connection_free(self->spent);
    self->spent = NULL;
}

static void on_sweep(evutil_socket_t descriptor, short what, void *context)
{
    (void)descriptor;
    (void)what;
    proxy_sweep(context);
}

proxy *proxy_new(struct event_base *base, const proxy_settings *settings)
{
    proxy *self = calloc(1, sizeof *self);
    int descriptor = larder_notify_fd(settings->cache);
    if (self == NULL || descriptor < 0) {
        free(self);
        return NULL;
    }
    self->base = base;
    self->settings = *settings;
    self->policy = (larder_http_policy){
        .kind = LARDER_HTTP_GATEWAY, .max_body = PROXY_BODY_MAX, .status_header = {"X-Cache", 7}};
    self->notified = event_new(base, descriptor, EV_READ | EV_PERSIST, coalesce_notified, self);
    self->sweep = evtimer_new(base, on_sweep, self);
    if (self->sweep == NULL || self->notified == NULL || event_add(self->notified, NULL) != 0)
        proxy_free(&self);
    return self;
}

void proxy_free(proxy **self)
{
    if (*self == NULL)
        return;
    if ((*self)->notified != NULL)
        event_free((*self)->notified);
    if ((*self)->sweep != NULL)
        event_free((*self)->sweep);
    proxy_sweep(*self);
    chunks_streams_free(&(*self)->streams);
    free(*self);
    *self = NULL;
}
