/* worker.c: one worker of the example server: libevent's HTTP server on the shared listening
 * socket, and pages from the cache. A page that is not there is asked of the "origin", which
 * answers after 20 ms (a timer: the loop never waits), and is stored until the next 5-minute mark.
 * This is how an application uses larder: a get, and a set after a miss; no answer of the cache is
 * an error to the visitor. It must never know that there is a daemon or a Redis.
 */
#include "examples/worker.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "examples/proxy.h"

#define KEY_PREFIX "page:"
#define HEADERS_MAX 16384 /* bytes of a request's line and headers */
#define BODY_MAX 65536    /* bytes of a request's body */
#define IDLE_SECONDS 300  /* a connection that says nothing for so long is closed */

typedef struct worker {
    const worker_settings *settings;
    struct event_base *base;
    struct evhttp *http;
    struct evhttp_bound_socket *bound;
    struct event *terminate, *interrupt, *drain;
    proxy *proxy;    /* NULL: the worker makes its pages itself */
    unsigned active; /* requests that are not answered to the last byte */
    bool draining;
    bool store_failing; /* so that a lasting trouble is one line in the log */
} worker;

/* One request under way. Lives from handle_request() until the answer was sent or nobody wants it.
 */
typedef struct exchange {
    worker *worker;
    struct evhttp_request *request;
    struct event *origin;  /* pending while the page is made */
    const site_page *page; /* NULL: there is none of that path */
    char key[sizeof KEY_PREFIX + SITE_PATH_MAX];
    size_t key_size;
    enum evhttp_cmd_type method;
} exchange;

static bool exchange_cacheable(const exchange *self)
{
    return self->method == EVHTTP_REQ_GET || self->method == EVHTTP_REQ_HEAD;
}

static void request_begun(void *context)
{
    worker *self = context;
    self->active++;
}

static void request_ended(void *context)
{
    worker *self = context;
    self->active--;
    if (self->draining && self->active == 0)
        event_base_loopbreak(self->base);
}

static void exchange_end(exchange *self)
{
    worker *owner = self->worker;
    if (self->origin != NULL)
        event_free(self->origin);
    free(self);
    request_ended(owner);
}

/* The last byte of the answer has left. */
static void on_sent(struct evhttp_request *request, void *context)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(request);
    if (connection != NULL)
        evhttp_connection_set_closecb(connection, NULL, NULL);
    exchange_end(context);
}

/* The visitor left in the middle of the answer. */
static void on_closed(struct evhttp_connection *connection, void *context)
{
    (void)connection;
    exchange_end(context);
}

/* Send the answer; the body may be NULL. Takes over nothing but the exchange. */
static void answer(exchange *self, int status, const char *from, int64_t expires_at,
                   struct evbuffer *body, size_t body_size)
{
    struct evhttp_request *request = self->request;
    struct evhttp_connection *connection = evhttp_request_get_connection(request);
    if (connection == NULL) { /* the visitor left while the page was made */
        evhttp_send_reply(request, status, NULL, NULL);
        exchange_end(self);
        return;
    }
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    char text[64];
    snprintf(text, sizeof text, "%u", self->worker->settings->number);
    evhttp_add_header(headers, "X-Worker", text);
    evhttp_add_header(headers, "X-Larder", from);
    if (status == 200 && self->page != NULL)
        evhttp_add_header(headers, "Content-Type", self->page->type);
    else if (status != 204)
        evhttp_add_header(headers, "Content-Type", "text/plain; charset=utf-8");
    if (status != 204) {
        snprintf(text, sizeof text, "%zu", body_size);
        evhttp_add_header(headers, "Content-Length", text);
    }
    if (expires_at > 0 && expires_at != INT64_MAX) {
        int64_t left = expires_at - site_now_ms();
        snprintf(text, sizeof text, "max-age=%lld", (long long)(left > 0 ? left / 1000 : 0));
        evhttp_add_header(headers, "Cache-Control", text);
    }
    if (self->worker->draining)
        evhttp_add_header(headers, "Connection", "close");
    evhttp_request_set_on_complete_cb(request, on_sent, self);
    evhttp_connection_set_closecb(connection, on_closed, self);
    evhttp_send_reply(request, status, NULL, self->method == EVHTTP_REQ_HEAD ? NULL : body);
}

static void answer_text(exchange *self, int status, const char *from, int64_t expires_at,
                        const char *text)
{
    struct evbuffer *body = evbuffer_new();
    size_t size = strlen(text);
    if (body == NULL || evbuffer_add(body, text, size) != 0)
        size = 0;
    answer(self, status, from, expires_at, body, size);
    if (body != NULL)
        evbuffer_free(body);
}

static void answer_status(exchange *self, uint32_t status, const char *from, int64_t expires_at)
{
    switch (status) {
    case 301:
        evhttp_add_header(evhttp_request_get_output_headers(self->request), "Location", "/");
        answer_text(self, 301, from, expires_at, "It has moved.\n");
        break;
    case 403:
        answer_text(self, 403, from, expires_at, "You may not see this.\n");
        break;
    case 404:
        answer_text(self, 404, from, expires_at, "There is no such page.\n");
        break;
    default:
        answer_text(self, (int)status, from, expires_at, "The origin could not make the page.\n");
        break;
    }
}

static void body_release(const void *data, size_t size, void *extra)
{
    (void)size;
    (void)extra;
    larder_free((void *)(uintptr_t)data);
}

static void origin_release(const void *data, size_t size, void *extra)
{
    (void)size;
    (void)extra;
    free((void *)(uintptr_t)data);
}

/* Answer with a page, which is handed over: evbuffer sends it from where it lies. */
static void answer_page(exchange *self, const char *from, int64_t expires_at, void *value,
                        size_t size, evbuffer_ref_cleanup_cb release)
{
    struct evbuffer *body = evbuffer_new();
    if (body == NULL || evbuffer_add_reference(body, value, size, release, NULL) != 0) {
        release(value, size, NULL);
        answer_text(self, 503, from, 0, "No memory.\n");
    } else {
        answer(self, 200, from, expires_at, body, size);
    }
    if (body != NULL)
        evbuffer_free(body);
}

/* ---- The cache ------------------------------------------------------------------------------ */

/* Answer from the cache; false: it is not there (or the cache cannot say: the same to us). */
static bool serve_cached(exchange *self)
{
    void *value = NULL;
    size_t size = 0;
    larder_info info = {0};
    int found = larder_get_alloc(self->worker->settings->cache, self->key, self->key_size, &value,
                                 &size, &info);
    if (found == LARDER_OK) {
        answer_page(self, "HIT", info.expires_ms, value, size, body_release);
        return true;
    }
    larder_free(value); /* "known absent" may come with an empty value */
    if (found == LARDER_ABSENT)
        answer_status(self, 404, "HIT", info.expires_ms);
    return found == LARDER_ABSENT;
}

/* Store until the next 5-minute mark. A refusal costs nothing but another visit to the origin. */
static void store(const exchange *self, const void *value, size_t size, uint32_t flags)
{
    worker *owner = self->worker;
    larder_policy policy = {.expiry = larder_expire_aligned(SITE_PERIOD_MS, 0), .flags = flags};
    int stored =
        larder_set(owner->settings->cache, self->key, self->key_size, value, size, &policy);
    if (stored < 0 && !owner->store_failing)
        fprintf(stderr, "worker %u: not stored: %s: %s\n", owner->settings->number,
                larder_strerror(stored), larder_last_error());
    owner->store_failing = stored < 0;
}

/* The origin's page as of now. It is made and stored within one period, so that what is stored
 * until the mark is never of the period before. NULL: no memory. */
static char *origin_page(exchange *self, int64_t *expires_at)
{
    char *body = malloc(self->page->size);
    if (body == NULL)
        return NULL;
    int64_t period;
    do {
        period = site_now_ms() / SITE_PERIOD_MS;
        site_body(self->page, period, body);
        if (self->method == EVHTTP_REQ_GET)
            store(self, body, self->page->size, 0);
    } while (site_now_ms() / SITE_PERIOD_MS != period);
    *expires_at = (period + 1) * SITE_PERIOD_MS;
    return body;
}

/* The origin has taken its 20 ms. */
static void on_origin(evutil_socket_t descriptor, short what, void *context)
{
    (void)descriptor;
    (void)what;
    exchange *self = context;
    const char *from = exchange_cacheable(self) ? "MISS" : "BYPASS";
    uint32_t status = self->page == NULL ? 404 : self->page->status;
    if (status == 200) {
        int64_t expires_at = 0;
        char *body = origin_page(self, &expires_at);
        if (body == NULL)
            answer_text(self, 503, from, 0, "No memory.\n");
        else
            answer_page(self, from, exchange_cacheable(self) ? expires_at : 0, body,
                        self->page->size, origin_release);
        return;
    }
    /* Known not to exist is worth remembering too; other errors may be gone the next time. */
    if (status == 404 && self->method == EVHTTP_REQ_GET)
        store(self, NULL, 0, LARDER_NEGATIVE);
    answer_status(self, status, from, 0);
}

/* ---- Requests ------------------------------------------------------------------------------- */

static void ask_origin(exchange *self)
{
    int64_t wait_ms = self->worker->settings->origin_ms;
    struct timeval wait = {.tv_sec = wait_ms / 1000, .tv_usec = (wait_ms % 1000) * 1000};
    self->origin = evtimer_new(self->worker->base, on_origin, self);
    if (self->origin == NULL || evtimer_add(self->origin, &wait) != 0)
        answer_text(self, 503, "MISS", 0, "No memory.\n");
}

static void on_request(struct evhttp_request *request, void *context)
{
    worker *owner = context;
    const char *path = evhttp_request_get_uri(request);
    exchange *self = calloc(1, sizeof *self);
    if (self == NULL || path == NULL || strlen(path) > SITE_PATH_MAX) {
        evhttp_send_error(request, self == NULL ? 503 : 414, NULL);
        free(self);
        return;
    }
    request_begun(owner);
    self->worker = owner;
    self->request = request;
    self->method = evhttp_request_get_command(request);
    self->page = site_find(owner->settings->site, path);
    self->key_size = (size_t)snprintf(self->key, sizeof self->key, KEY_PREFIX "%s", path);
    switch (self->method) {
    case EVHTTP_REQ_GET:
    case EVHTTP_REQ_HEAD:
        if (!serve_cached(self))
            ask_origin(self);
        break;
    case EVHTTP_REQ_OPTIONS:
        evhttp_add_header(evhttp_request_get_output_headers(request), "Allow",
                          "GET, HEAD, POST, OPTIONS");
        answer(self, 204, "BYPASS", 0, NULL, 0);
        break;
    default: /* a POST may change something: always the origin's, never stored */
        ask_origin(self);
        break;
    }
}

/* ---- Life of the process -------------------------------------------------------------------- */

static void on_drain_deadline(evutil_socket_t descriptor, short what, void *context)
{
    (void)descriptor;
    (void)what;
    worker *self = context;
    fprintf(stderr, "worker %u: %u requests given up at shutdown\n", self->settings->number,
            self->active);
    event_base_loopbreak(self->base);
}

/* SIGTERM: take no new connection, finish what is under way, then end. */
static void on_terminate(evutil_socket_t signal_number, short what, void *context)
{
    (void)signal_number;
    (void)what;
    worker *self = context;
    if (self->draining)
        return;
    self->draining = true;
    evhttp_del_accept_socket(self->http, self->bound);
    struct timeval wait = {.tv_sec = self->settings->drain_ms / 1000,
                           .tv_usec = (self->settings->drain_ms % 1000) * 1000};
    if (self->active == 0 || evtimer_add(self->drain, &wait) != 0)
        event_base_loopbreak(self->base);
}

static int worker_prepare_proxy(worker *self)
{
    const proxy_settings settings = {.address = self->settings->upstream,
                                     .port = self->settings->upstream_port,
                                     .timeout_ms = self->settings->upstream_timeout_ms,
                                     .cache = self->settings->cache,
                                     .number = self->settings->number,
                                     .begun = request_begun,
                                     .ended = request_ended,
                                     .context = self};
    self->proxy = proxy_new(self->base, &settings);
    if (self->proxy == NULL)
        return -1;
    evhttp_set_allowed_methods(self->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST |
                                               EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE |
                                               EVHTTP_REQ_PATCH | EVHTTP_REQ_OPTIONS);
    evhttp_set_max_headers_size(self->http, HEADERS_MAX);
    evhttp_set_max_body_size(self->http, PROXY_BODY_MAX);
    evhttp_set_timeout(self->http, IDLE_SECONDS);
    evhttp_set_default_content_type(self->http, NULL); /* what the origin leaves out stays out */
    evhttp_set_bevcb(self->http, proxy_stream, self->proxy);
    evhttp_set_gencb(self->http, proxy_request, self->proxy);
    self->bound = evhttp_accept_socket_with_handle(self->http, self->settings->listener);
    return self->bound == NULL ? -1 : 0;
}

static int worker_prepare(worker *self)
{
    self->base = event_base_new();
    if (self->base == NULL)
        return -1;
    self->http = evhttp_new(self->base);
    self->terminate = evsignal_new(self->base, SIGTERM, on_terminate, self);
    self->interrupt = evsignal_new(self->base, SIGINT, on_terminate, self);
    self->drain = evtimer_new(self->base, on_drain_deadline, self);
    if (self->http == NULL || self->terminate == NULL || self->interrupt == NULL ||
        self->drain == NULL || evsignal_add(self->terminate, NULL) != 0 ||
        evsignal_add(self->interrupt, NULL) != 0)
        return -1;
    if (self->settings->upstream != NULL)
        return worker_prepare_proxy(self);
    evhttp_set_allowed_methods(self->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST |
                                               EVHTTP_REQ_OPTIONS);
    evhttp_set_max_headers_size(self->http, HEADERS_MAX);
    evhttp_set_max_body_size(self->http, BODY_MAX);
    evhttp_set_timeout(self->http, IDLE_SECONDS);
    evhttp_set_gencb(self->http, on_request, self);
    self->bound = evhttp_accept_socket_with_handle(self->http, self->settings->listener);
    return self->bound == NULL ? -1 : 0;
}

int worker_run(const worker_settings *settings)
{
    worker self = {.settings = settings};
    int status = EXIT_FAILURE;
    if (worker_prepare(&self) == 0) {
        /* The parent forks with all signals blocked: now this one can end in good order. */
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        status = event_base_dispatch(self.base) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    } else {
        fprintf(stderr, "worker %u: cannot start its event loop\n", settings->number);
    }
    if (self.http != NULL)
        evhttp_free(self.http);
    proxy_free(&self.proxy);
    struct event *events[] = {self.terminate, self.interrupt, self.drain};
    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++)
        if (events[i] != NULL)
            event_free(events[i]);
    if (self.base != NULL)
        event_base_free(self.base);
    return status;
}
