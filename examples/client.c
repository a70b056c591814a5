/* client.c: the proxy's side towards its clients: answers, whole or piece by piece. A client that
 * leaves ends what is done for it alone; a fill that others may wait for goes on.
 */
#include <event2/bufferevent.h>
#include <stdio.h>
#include <string.h>

#include "examples/exchange.h"
#include "examples/fields.h"

static void on_sent(struct evhttp_request *request, void *context)
{
    exchange *self = context;
    struct evhttp_connection *connection = evhttp_request_get_connection(request);
    exchange_hold(self);
    if (connection != NULL)
        evhttp_connection_set_closecb(connection, NULL, NULL);
    self->client = NULL;
    self->answering = false;
    exchange_settle(self);
}

static void on_closed(struct evhttp_connection *connection, void *context)
{
    exchange *self = context;
    (void)connection;
    exchange_hold(self);
    /* one whose answer had not ended is no longer the connection's, and freed by nobody else */
    if (evhttp_request_get_connection(self->client) == NULL)
        evhttp_request_free(self->client);
    self->client = NULL;
    self->answering = false;
    if (self->streaming)
        origin_cancel(self);
    exchange_settle(self);
}

/* Headers, and who is told of the end. false: the client has left. */
static bool begin(exchange *self, const larder_http_response *answer)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(self->client);
    if (connection == NULL) {
        struct evhttp_request *request = self->client;
        self->client = NULL;
        evhttp_send_reply(request, 503, NULL, NULL); /* frees it */
        return false;
    }
    struct evkeyvalq *headers = evhttp_request_get_output_headers(self->client);
    for (size_t i = 0; i < answer->header_count; i++) {
        const larder_http_header *field = &answer->headers[i];
        if (!fields_add(headers, field)) { /* an answer without one of its fields is another */
            struct evhttp_request *request = self->client;
            self->client = NULL;
            evhttp_send_error(request, 502, NULL);
            return false;
        }
    }
    char number[32];
    snprintf(number, sizeof number, "%u", self->proxy->settings.number);
    evhttp_add_header(headers, "X-Worker", number);
    evhttp_add_header(headers, "Via", "1.1 larder");
    self->answering = true;
    evhttp_request_set_on_complete_cb(self->client, on_sent, self);
    evhttp_connection_set_closecb(connection, on_closed, self);
    return true;
}

void client_answer(exchange *self, const larder_http_response *answer)
{
    bool has_body = answer->status != 304 && answer->status != 204;
    if (self->client == NULL || self->answering || !begin(self, answer))
        return;
    if (has_body && answer->body.data != NULL) {
        char size[32];
        snprintf(size, sizeof size, "%zu", answer->body.size);
        evhttp_add_header(evhttp_request_get_output_headers(self->client), "Content-Length", size);
    }
    struct evbuffer *body = evbuffer_new();
    if (body != NULL && has_body && answer->body.size > 0 && self->method != EVHTTP_REQ_HEAD &&
        evbuffer_add(body, answer->body.data, answer->body.size) != 0) {
        evbuffer_free(body);
        body = NULL;
    }
    evhttp_send_reply(self->client, (int)answer->status, NULL, body);
    if (body != NULL)
        evbuffer_free(body);
}

void client_error(exchange *self, int status, const char *text)
{
    static const larder_http_header type = {{"Content-Type", 12}, {"text/plain", 10}};
    larder_http_response answer = {.status = (uint32_t)status,
                                   .headers = &type,
                                   .header_count = 1,
                                   .body = {text, strlen(text)}};
    client_answer(self, &answer);
}

void client_refuse(exchange *self, int status, const char *text)
{
    evhttp_add_header(evhttp_request_get_output_headers(self->client), "Connection", "close");
    client_error(self, status, text);
}

void client_stream_begin(exchange *self, const larder_http_response *answer)
{
    if (self->client != NULL && begin(self, answer)) {
        self->streaming = true;
        evhttp_send_reply_start(self->client, (int)answer->status, NULL);
    }
}

static void on_piece_sent(struct evhttp_connection *connection, void *context)
{
    (void)connection;
    origin_pause(context, false);
}

void client_stream(exchange *self, struct evbuffer *piece)
{
    if (self->client == NULL)
        return;
    struct evhttp_connection *connection = evhttp_request_get_connection(self->client);
    evhttp_send_reply_chunk_with_cb(self->client, piece, on_piece_sent, self);
    struct bufferevent *stream = evhttp_connection_get_bufferevent(connection);
    if (evbuffer_get_length(bufferevent_get_output(stream)) > CLIENT_BEHIND_MAX)
        origin_pause(self, true);
}

void client_stream_end(exchange *self, bool whole)
{
    if (self->client == NULL)
        return;
    struct evhttp_connection *connection = evhttp_request_get_connection(self->client);
    if (whole)
        evhttp_send_reply_end(self->client); /* may be the end of it already: on_sent() */
    else /* cut off where the origin's was: the client can see that; on_closed() */
        evhttp_connection_free(connection);
}
