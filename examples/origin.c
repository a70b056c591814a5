/* origin.c: the proxy's side towards the origin: one connection a request. The body is collected
 * while it may become an entry, and passed on from the piece on that makes it too large. What has
 * neither ended nor become that large within the origin's time has failed; what is passed on has,
 * where it says nothing for as long.
 */
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "examples/exchange.h"
#include "examples/fields.h"

/* The answer's head as larder_http.h wants it, in the arena. NULL, or what is wrong with it. */
static const char *response_read(exchange *self, struct evhttp_request *request,
                                 larder_http_response *response)
{
    larder_http_header *fields =
        exchange_take(self, LARDER_HTTP_HEADERS_MAX * sizeof(larder_http_header));
    size_t count = 0;
    bool spaced;
    if (fields == NULL)
        return "The origin's answer does not fit.\n";
    if (fields_read(evhttp_request_get_input_headers(request), fields, &count, &spaced) != NULL)
        return "The origin's answer has header fields that are none, or more than 256.\n";
    struct framing framing = fields_framing(fields, count);
    *response =
        (larder_http_response){.status = (uint32_t)evhttp_request_get_response_code(request),
                               .headers = fields,
                               .header_count = count};
    if (response->status < 200 || response->status > 599) /* 101 was not asked for */
        return "The origin's answer has a status that is none.\n";
    bool has_body =
        response->status != 204 && response->status != 304 && self->method != EVHTTP_REQ_HEAD;
    /* libevent has read it by the first of them, or not at all */
    if (framing.coding || (framing.faulty && has_body))
        return "It can be read in two ways where the origin's answer ends.\n";
    /* where only the end of the connection ends it, nobody knows whether it is whole */
    if (has_body && !framing.chunked && !framing.length)
        response->flags = LARDER_HTTP_OPEN_ENDED;
    return NULL;
}

/* ---- Interim answers (RFC 9110, 15.2)
 * --------------------------------------------------------------
 *
 * Of 1xx libevent knows 100 alone, and after that takes an origin that closes once it has answered
 * for one that has failed. So they are taken away in front of it: it reads nothing but whole lines,
 * and those of an interim answer it does not see. */

static bool is_interim(const char *line)
{
    return strncmp(line, "HTTP/1.", 7) == 0 && line[7] >= '0' && line[7] <= '9' && line[8] == ' ' &&
           line[9] == '1' && strspn(line + 9, "0123456789") == 3 &&
           strncmp(line + 9, "101", 3) != 0; /* that was not asked for, and ends HTTP */
}

/* One line of the input is done with. false: it has not come yet, or is libevent's. */
static bool take_interim_line(exchange *self, struct evbuffer *input)
{
    char begin[16] = "";
    size_t eol_size = 0;
    struct evbuffer_ptr eol = evbuffer_search_eol(input, NULL, &eol_size, EVBUFFER_EOL_CRLF);
    if (eol.pos < 0)
        return false;
    size_t size = (size_t)eol.pos;
    evbuffer_copyout(input, begin, size < sizeof begin - 1 ? size : sizeof begin - 1);
    if (self->interim == INTERIM_WITHIN)
        self->interim = size == 0 ? INTERIM_MAYBE : INTERIM_WITHIN;
    else
        self->interim = is_interim(begin) ? INTERIM_WITHIN : INTERIM_NONE;
    if (self->interim == INTERIM_NONE)
        return false;
    self->interim_size += size + eol_size;
    evbuffer_drain(input, size + eol_size);
    return true;
}

/* Something has come. All interim answers together may be as large as one head. */
static void on_input(struct evbuffer *input, const struct evbuffer_cb_info *info, void *context)
{
    exchange *self = context;
    if (info->n_added == 0)
        return;
    if (self->interim == INTERIM_NONE) {
        chunks_added(&self->chunks, input, info->n_added);
        return;
    }
    while (self->interim_size <= ORIGIN_HEAD_MAX && take_interim_line(self, input))
        ;
    if (self->interim_size > ORIGIN_HEAD_MAX) {
        evbuffer_drain(input, evbuffer_get_length(input));
        self->error = 502;
        event_active(self->deadline, EV_TIMEOUT, 0);
    }
}

/* The answer's head has been read, and its body begins: in chunks, where libevent says so. */
static int on_head(struct evhttp_request *request, void *context)
{
    exchange *self = context;
    struct bufferevent *stream = evhttp_connection_get_bufferevent(self->connection);
    const char *coding =
        evhttp_find_header(evhttp_request_get_input_headers(request), "Transfer-Encoding");
    if (coding != NULL && strcasecmp(coding, "chunked") == 0)
        chunks_begin_body(&self->chunks, bufferevent_get_input(stream));
    return 0;
}

static bool watch_input(exchange *self)
{
    struct bufferevent *stream = evhttp_connection_get_bufferevent(self->connection);
    self->interim = INTERIM_MAYBE;
    self->interim_size = 0;
    self->chunks = (struct chunks){.state = CHUNKS_UNKNOWN};
    return evbuffer_add_cb(bufferevent_get_input(stream), on_input, self) != NULL;
}

/* ---- One request
 * ----------------------------------------------------------------------------------- */

/* The request has ended, and its connection with it. libevent does not do that by itself where it
 * was refused, and none may be freed in its own callback: the proxy does, at once but later. */
static void done(exchange *self)
{
    proxy *owner = self->proxy;
    struct bufferevent *stream = evhttp_connection_get_bufferevent(self->connection);
    evbuffer_remove_cb(bufferevent_get_input(stream), on_input, self);
    if (self->deadline != NULL)
        evtimer_del(self->deadline);
    proxy_sweep(owner);
    owner->spent = self->connection;
    event_active(owner->sweep, EV_TIMEOUT, 0);
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
    exchange_failed(self, 502, "The origin cannot be asked.\n");
}

/* Called before on_complete() where something has failed. */
static void on_error(enum evhttp_request_error error, void *context)
{
    exchange *self = context;
    if (error == EVREQ_HTTP_TIMEOUT)
        self->error = 504;
    else if (error == EVREQ_HTTP_INVALID_HEADER || error == EVREQ_HTTP_DATA_TOO_LONG)
        self->error = 502;
}

static void answer_failure(exchange *self)
{
    if (self->error == 504)
        exchange_failed(self, 504, "The origin has not answered in time.\n");
    else if (self->error == 502)
        exchange_failed(self, 502, "The origin's answer is none, or has a head of over 32 KiB.\n");
    else
        exchange_failed(self, 502, "The origin does not answer.\n");
}

static void on_complete(struct evhttp_request *request, void *context)
{
    exchange *self = context;
    larder_http_response response;
    bool failed = request == NULL || evhttp_request_get_response_code(request) == 0;
    exchange_hold(self);
    done(self);
    const char *wrong = failed ? NULL : response_read(self, request, &response);
    if (self->streaming) {
        client_stream_end(self, !failed);
    } else if (failed || self->too_large) {
        answer_failure(self);
    } else if (wrong != NULL) {
        exchange_failed(self, 502, wrong);
    } else {
        size_t size = evbuffer_get_length(self->body);
        const unsigned char *bytes = evbuffer_pullup(self->body, -1);
        response.body = size == 0 ? (larder_bytes){"", 0} : (larder_bytes){bytes, size};
        exchange_answered(self, &response);
    }
    exchange_settle(self);
}

/* The origin has neither ended its answer nor sent more than an entry may have; or too much that
 * is no answer. */
static void on_deadline(evutil_socket_t descriptor, short what, void *context)
{
    exchange *self = context;
    (void)descriptor;
    (void)what;
    exchange_hold(self);
    if (self->asked != NULL && !self->streaming) {
        origin_cancel(self);
        self->error = self->error == 0 ? 504 : self->error;
        answer_failure(self);
    }
    exchange_settle(self);
}

static void stream_begin(exchange *self, struct evhttp_request *request)
{
    larder_http_response response, answer;
    if (response_read(self, request, &response) != NULL)
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
    coalesce_unshared(self); /* those who wait go themselves */
    stream_begin(self, request);
    if (self->streaming) {
        client_stream(self, self->body);
    } else {
        origin_cancel(self);
        exchange_failed(self, 502, "The origin's answer cannot be passed on.\n");
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
        /* the body is here, and its length is what has come: nobody has to wait for it */
        if (!fields_named(&fields[i], "Content-Length") && !fields_named(&fields[i], "Expect") &&
            !fields_add(headers, &fields[i]))
            return false;
    }
    size_t body = evbuffer_get_length(evhttp_request_get_output_buffer(request));
    bool passes_on = self->kind != LARDER_HTTP_LOOKUP;
    if (passes_on && fields_framing(self->request.headers, self->request.header_count).has_body) {
        char size[32];
        snprintf(size, sizeof size, "%zu", body);
        evhttp_add_header(headers, "Content-Length", size);
    }
    evhttp_add_header(headers, "Via", "1.1 larder");
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

/* false: no memory. */
static bool prepare(exchange *self, struct evhttp_request *request)
{
    const proxy_settings *settings = &self->proxy->settings;
    if (self->body == NULL)
        self->body = evbuffer_new();
    if (self->deadline == NULL)
        self->deadline = evtimer_new(self->proxy->base, on_deadline, self);
    self->connection =
        evhttp_connection_base_new(self->proxy->base, NULL, settings->address, settings->port);
    if (request == NULL || self->body == NULL || self->deadline == NULL ||
        self->connection == NULL || !watch_input(self))
        return false;
    evbuffer_drain(self->body, evbuffer_get_length(self->body));
    if (self->client != NULL && self->kind != LARDER_HTTP_LOOKUP)
        evbuffer_add_buffer(evhttp_request_get_output_buffer(request),
                            evhttp_request_get_input_buffer(self->client));
    evhttp_request_set_header_cb(request, on_head);
    evhttp_request_set_chunked_cb(request, on_piece);
    evhttp_request_set_error_cb(request, on_error);
    /* for what is passed on as it comes: so long without a byte; before that the deadline rules */
    struct timeval idle = {.tv_sec = settings->timeout_ms / 1000 + 1};
    evhttp_connection_set_timeout_tv(self->connection, &idle);
    evhttp_connection_set_max_headers_size(self->connection, ORIGIN_HEAD_MAX);
    return headers_add(self, request);
}

void origin_ask(exchange *self)
{
    int64_t timeout_ms = self->proxy->settings.timeout_ms;
    const struct timeval deadline = {.tv_sec = timeout_ms / 1000,
                                     .tv_usec = timeout_ms % 1000 * 1000};
    struct evhttp_request *request = evhttp_request_new(on_complete, self);
    const char *uri = target(self);
    self->asked_ms = exchange_now_ms();
    self->too_large = false;
    self->error = 0;
    if (uri == NULL || !prepare(self, request) || evtimer_add(self->deadline, &deadline) != 0) {
        if (request != NULL)
            evhttp_request_free(request);
        give_up(self);
        return;
    }
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
