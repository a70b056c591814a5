/* origin.c: the proxy's side towards the origin: one connection a request. The body is collected
 * while it may become an entry, and passed on from the piece on that makes it too large. A
 * connection that says nothing for ORIGIN_TIMEOUT_S has failed.
 */
#include <event2/bufferevent.h>
#include <event2/keyvalq_struct.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "examples/exchange.h"

/* The answer's head as larder_http.h wants it, in the arena. */
static bool response_read(exchange *self, struct evhttp_request *request,
                          larder_http_response *response)
{
    struct evkeyvalq *headers = evhttp_request_get_input_headers(request);
    struct evkeyval *field;
    larder_http_header *fields =
        exchange_take(self, LARDER_HTTP_HEADERS_MAX * sizeof(larder_http_header));
    size_t count = 0;
    bool framed = false;
    if (fields == NULL)
        return false;
    for (field = headers->tqh_first; field != NULL; field = field->next.tqe_next) {
        if (count == LARDER_HTTP_HEADERS_MAX)
            return false;
        framed = framed || strcasecmp(field->key, "Content-Length") == 0 ||
                 strcasecmp(field->key, "Transfer-Encoding") == 0;
        fields[count++] = (larder_http_header){{field->key, strlen(field->key)},
                                               {field->value, strlen(field->value)}};
    }
    *response =
        (larder_http_response){.status = (uint32_t)evhttp_request_get_response_code(request),
                               .headers = fields,
                               .header_count = count};
    /* where only the end of the connection ends it, nobody knows whether it is whole */
    if (!framed && response->status != 204 && response->status != 304 &&
        self->method != EVHTTP_REQ_HEAD)
        response->flags = LARDER_HTTP_OPEN_ENDED;
    return true;
}

/* libevent does not free a connection that was refused, and none may be freed in its own callback:
 * the last one that ended stays until the next one has. */
static void done(exchange *self)
{
    proxy *owner = self->proxy;
    if (owner->spent != NULL)
        evhttp_connection_free(owner->spent);
    owner->spent = self->connection;
    self->asked = NULL;
    self->connection = NULL;
}

/* The request is gone, and its connection has nothing to tell. */
static void give_up(exchange *self)
{
    if (self->connection != NULL)
        evhttp_connection_free(self->connection);
    self->asked = NULL;
    self->connection = NULL;
    exchange_failed(self);
}

static void on_complete(struct evhttp_request *request, void *context)
{
    exchange *self = context;
    larder_http_response response;
    bool failed = request == NULL || evhttp_request_get_response_code(request) == 0;
    exchange_hold(self);
    done(self);
    if (self->streaming) {
        client_stream_end(self, !failed);
    } else if (failed || self->too_large || !response_read(self, request, &response)) {
        exchange_failed(self);
    } else {
        size_t size = evbuffer_get_length(self->body);
        const unsigned char *bytes = evbuffer_pullup(self->body, -1);
        response.body = size == 0 ? (larder_bytes){"", 0} : (larder_bytes){bytes, size};
        exchange_answered(self, &response);
    }
    exchange_settle(self);
}

static void stream_begin(exchange *self, struct evhttp_request *request)
{
    larder_http_response response, answer;
    if (!response_read(self, request, &response))
        return;
    if (self->kind == LARDER_HTTP_UNSAFE)
        exchange_invalidate(self, &response);
    if (self->client == NULL || self->answering ||
        larder_http_answer(&self->proxy->policy, &self->request, &response, NULL,
                           LARDER_HTTP_BYPASSED, exchange_now_ms(), &self->arena,
                           &answer) != LARDER_OK)
        return;
    answer.status = response.status; /* a page that goes by is not compared */
    client_stream_begin(self, &answer);
}

/* The body has become too large for an entry. Whoever waits for it gets it as it comes; if nobody
 * does, the origin need not go on: a page without its end is none. */
static void overflow(exchange *self, struct evhttp_request *request)
{
    exchange_hold(self);
    self->too_large = true;
    exchange_release_lease(self, LARDER_SKIP); /* those who wait go themselves */
    stream_begin(self, request);
    if (self->streaming) {
        client_stream(self, self->body);
    } else {
        origin_cancel(self);
        exchange_failed(self);
    }
    exchange_settle(self);
}

/* Some of the body has come. */
static void on_piece(struct evhttp_request *request, void *context)
{
    exchange *self = context;
    struct evbuffer *piece = evhttp_request_get_input_buffer(request);
    if (self->streaming) {
        client_stream(self, piece);
    } else if (evbuffer_get_length(self->body) + evbuffer_get_length(piece) <= PROXY_BODY_MAX) {
        evbuffer_add_buffer(self->body, piece);
    } else {
        evbuffer_add_buffer(self->body, piece); /* passed on, or given up with the rest */
        overflow(self, request);
    }
}

static bool headers_add(exchange *self, struct evhttp_request *request)
{
    const larder_http_header *fields = NULL;
    size_t count = 0;
    bool revalidates = self->decision.action == LARDER_HTTP_REVALIDATE ||
                       self->decision.action == LARDER_HTTP_SERVE_STALE;
    if (larder_http_forward(&self->proxy->policy, &self->request,
                            revalidates && !self->unconditional ? self->page : NULL, &self->arena,
                            &fields, &count) != LARDER_OK)
        return false;
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    for (size_t i = 0; i < count; i++) {
        char name[256], value[8192];
        if (fields[i].name.size >= sizeof name || fields[i].value.size >= sizeof value)
            return false;
        snprintf(name, sizeof name, "%.*s", (int)fields[i].name.size,
                 (const char *)fields[i].name.data);
        snprintf(value, sizeof value, "%.*s", (int)fields[i].value.size,
                 (const char *)fields[i].value.data);
        if (evhttp_add_header(headers, name, value) != 0)
            return false;
    }
    evhttp_add_header(headers, "Via", "1.1 larder");
    evhttp_add_header(headers, "Connection", "close");
    return true;
}

static const char *target(exchange *self)
{
    size_t size = self->request.path.size + self->request.query.size + 3;
    char *text = exchange_take(self, size);
    if (text != NULL)
        snprintf(text, size, "%.*s%s%.*s", (int)self->request.path.size,
                 (const char *)self->request.path.data, self->request.query.size > 0 ? "?" : "",
                 (int)self->request.query.size, (const char *)self->request.query.data);
    return text;
}

void origin_ask(exchange *self)
{
    const proxy_settings *settings = &self->proxy->settings;
    struct evhttp_request *request = evhttp_request_new(on_complete, self);
    const char *uri = target(self);
    self->asked_ms = exchange_now_ms();
    self->too_large = false;
    if (self->body == NULL)
        self->body = evbuffer_new();
    if (self->body != NULL)
        evbuffer_drain(self->body, evbuffer_get_length(self->body));
    self->connection =
        evhttp_connection_base_new(self->proxy->base, NULL, settings->address, settings->port);
    if (request == NULL || uri == NULL || self->body == NULL || self->connection == NULL ||
        !headers_add(self, request)) {
        if (request != NULL)
            evhttp_request_free(request);
        give_up(self);
        return;
    }
    evhttp_connection_set_timeout(self->connection, ORIGIN_TIMEOUT_S);
    evhttp_connection_set_max_headers_size(self->connection, LARDER_HTTP_HEAD_MAX / 2);
    evhttp_request_set_chunked_cb(request, on_piece);
    if (self->client != NULL && self->kind != LARDER_HTTP_LOOKUP)
        evbuffer_add_buffer(evhttp_request_get_output_buffer(request),
                            evhttp_request_get_input_buffer(self->client));
    self->asked = request;
    if (evhttp_make_request(self->connection, request, self->method, uri) != 0 &&
        self->asked != NULL)
        give_up(self);
}

void origin_cancel(exchange *self)
{
    if (self->asked != NULL) {
        evhttp_cancel_request(self->asked); /* on_complete() is not called for it */
        done(self);
    }
}

void origin_pause(exchange *self, bool pause)
{
    if (self->connection == NULL)
        return;
    struct bufferevent *stream = evhttp_connection_get_bufferevent(self->connection);
    if (pause)
        bufferevent_disable(stream, EV_READ);
    else
        bufferevent_enable(stream, EV_READ);
}
