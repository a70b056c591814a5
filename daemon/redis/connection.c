/* connection.c: see connection.h. */
#include "daemon/redis/connection.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/util.h>

#define READ_AT_ONCE ((size_t)64 * 1024)

struct request {
    connection_tag tag;
    int64_t sent_us;
};

struct connection {
    connection_callbacks callbacks;
    void *context;
    url_place place;
    char name[URL_PLACE_TEXT_MAX];
    struct bufferevent *socket;
    struct event *timer;
    codec *codec;
    int64_t connect_timeout_us, reply_timeout_us, opened_us;
    struct request *requests; /* a ring */
    size_t first, waiting, room;
    uint64_t bytes_in, bytes_out;
    unsigned inside; /* callbacks under way: freed only when there are none */
    bool connected, over, closed;
};

int64_t connection_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void release(connection *self)
{
    if (self->socket != NULL)
        bufferevent_free(self->socket);
    if (self->timer != NULL)
        event_free(self->timer);
    codec_destroy(&self->codec);
    free(self->requests);
    free(self);
}

static void enter(connection *self)
{
    self->inside++;
}

static void leave(connection *self)
{
    self->inside--;
    if (self->inside == 0 && self->closed)
        release(self);
}

/* The end: tell the owner once. */
static void fail(connection *self, const char *why, bool timed_out, bool protocol)
{
    if (self->over || self->closed)
        return;
    self->over = true;
    bufferevent_disable(self->socket, EV_READ | EV_WRITE);
    self->callbacks.down(self->context, why, timed_out, protocol);
}

static void set_timer(connection *self, int64_t at_us)
{
    int64_t left = at_us - connection_now_us();
    if (left < 1000)
        left = 1000;
    struct timeval time = {.tv_sec = left / 1000000, .tv_usec = left % 1000000};
    evtimer_add(self->timer, &time);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    connection *self = context;
    (void)fd;
    (void)what;
    int64_t now = connection_now_us(), due = 0;
    enter(self);
    if (!self->connected)
        due = self->opened_us + self->connect_timeout_us;
    else if (self->waiting != 0)
        due = self->requests[self->first].sent_us + self->reply_timeout_us;
    if (due != 0 && now >= due) {
        char why[128];
        snprintf(why, sizeof why,
                 self->connected ? "no reply within %lld ms" : "no connection within %lld ms",
                 (long long)((self->connected ? self->reply_timeout_us : self->connect_timeout_us) /
                             1000));
        fail(self, why, true, false);
    } else if (due != 0) {
        set_timer(self, due);
    }
    leave(self);
}

static bool is_message(const reply *got)
{
    return got->kind == REPLY_ARRAY && got->count == 3 && got->elements[0]->kind == REPLY_STRING &&
           reply_text_is(got->elements[0], "message") && got->elements[2]->kind == REPLY_STRING;
}

static void take_reply(connection *self, const reply *got)
{
    if (is_message(got)) {
        self->callbacks.message(self->context, got->elements[2]->text, got->elements[2]->size);
        return;
    }
    if (self->waiting == 0) {
        char why[160];
        if (got->kind == REPLY_ERROR) /* e.g. "max number of clients reached" */
            snprintf(why, sizeof why, "Redis says: %.120s", got->text);
        else
            snprintf(why, sizeof why, "a reply came that nobody had asked for");
        fail(self, why, false, got->kind != REPLY_ERROR);
        return;
    }
    struct request request = self->requests[self->first];
    self->first = (self->first + 1) % self->room;
    self->waiting--;
    self->callbacks.answer(self->context, &request.tag, got, request.sent_us);
}

static void on_read(struct bufferevent *socket, void *context)
{
    connection *self = context;
    struct evbuffer *input = bufferevent_get_input(socket);
    struct evbuffer_iovec piece;
    enter(self);
    while (!self->over && !self->closed && evbuffer_peek(input, -1, NULL, &piece, 1) > 0) {
        self->bytes_in += piece.iov_len;
        codec_feed(self->codec, piece.iov_base, piece.iov_len);
        evbuffer_drain(input, piece.iov_len);
        const reply *got;
        while (!self->over && !self->closed && (got = codec_next(self->codec)) != NULL)
            take_reply(self, got);
        if (!self->closed && codec_error(self->codec) != NULL)
            fail(self, codec_error(self->codec), false, true);
    }
    if (!self->over && !self->closed)
        self->callbacks.idle(self->context);
    leave(self);
}

static void on_event(struct bufferevent *socket, short what, void *context)
{
    connection *self = context;
    enter(self);
    if (what & BEV_EVENT_CONNECTED) {
        int one = 1, fd = bufferevent_getfd(socket);
        self->connected = true;
        if (self->place.path[0] == 0 && fd >= 0) {
            /* best effort: without them it is only slower to send and to notice a dead peer */
            (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
        }
        evtimer_del(self->timer);
        self->callbacks.up(self->context);
    } else if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) {
        int error = EVUTIL_SOCKET_ERROR(), dns = bufferevent_socket_get_dns_error(socket);
        char why[512];
        if (what & BEV_EVENT_EOF)
            snprintf(why, sizeof why, "Redis closed the connection");
        else if (dns != 0)
            snprintf(why, sizeof why, "%s: %s", self->place.host, evutil_gai_strerror(dns));
        else
            snprintf(why, sizeof why, "%s: %s", self->name,
                     error != 0 ? evutil_socket_error_to_string(error) : "cannot connect");
        fail(self, why, false, false);
    }
    leave(self);
}

bool connection_needs_lookup(const url_place *place)
{
    struct sockaddr_storage address;
    int size = (int)sizeof address;
    char text[URL_PLACE_TEXT_MAX];
    if (place->path[0] != 0)
        return false;
    url_place_text(place, text);
    return evutil_parse_sockaddr_port(text, (struct sockaddr *)&address, &size) != 0;
}

static int start_connect(connection *self, struct evdns_base *dns)
{
    if (self->place.path[0] != 0) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        snprintf(address.sun_path, sizeof address.sun_path, "%s", self->place.path);
        return bufferevent_socket_connect(self->socket, (struct sockaddr *)&address,
                                          (int)sizeof address);
    }
    if (connection_needs_lookup(&self->place))
        return bufferevent_socket_connect_hostname(self->socket, dns, AF_UNSPEC, self->place.host,
                                                   self->place.port);
    struct sockaddr_storage address;
    int size = (int)sizeof address;
    if (evutil_parse_sockaddr_port(self->name, (struct sockaddr *)&address, &size) != 0)
        return -1;
    return bufferevent_socket_connect(self->socket, (struct sockaddr *)&address, size);
}

connection *connection_open(const connection_settings *settings,
                            const connection_callbacks *callbacks, void *context)
{
    connection *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    self->callbacks = *callbacks;
    self->context = context;
    self->place = settings->place;
    url_place_text(&self->place, self->name);
    self->connect_timeout_us = settings->connect_timeout_ms * 1000;
    self->reply_timeout_us = settings->reply_timeout_ms * 1000;
    self->opened_us = connection_now_us();
    self->codec = codec_create(&settings->limits);
    self->timer = evtimer_new(settings->base, on_timer, self);
    /* deferred: a connect that fails at once must not call back into its caller */
    self->socket =
        bufferevent_socket_new(settings->base, -1, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
    bool lookup = connection_needs_lookup(&self->place);
    if (self->codec == NULL || self->timer == NULL || self->socket == NULL ||
        (lookup && settings->dns == NULL)) {
        release(self);
        return NULL;
    }
    bufferevent_setcb(self->socket, on_read, NULL, on_event, self);
    bufferevent_set_max_single_read(self->socket, READ_AT_ONCE);
    bufferevent_set_max_single_write(self->socket, READ_AT_ONCE * 4);
    bufferevent_enable(self->socket, EV_READ | EV_WRITE);
    int64_t due = self->opened_us + self->connect_timeout_us;
    if (start_connect(self, settings->dns) != 0)
        self->connect_timeout_us = 0; /* reported by the timer, should no event have come */
    set_timer(self, self->connect_timeout_us == 0 ? 0 : due);
    return self;
}

void connection_close(connection **self)
{
    if (self == NULL || *self == NULL)
        return;
    connection *closing = *self;
    *self = NULL;
    closing->closed = true;
    if (closing->inside == 0)
        release(closing);
}

static bool grow(connection *self)
{
    size_t room = self->room == 0 ? 64 : self->room * 2;
    if (room > CONNECTION_REQUESTS_MAX)
        return false;
    struct request *larger = malloc(room * sizeof *larger);
    if (larger == NULL)
        return false;
    for (size_t i = 0; i < self->waiting; i++)
        larger[i] = self->requests[(self->first + i) % self->room];
    free(self->requests);
    self->requests = larger;
    self->room = room;
    self->first = 0;
    return true;
}

bool connection_send(connection *self, const connection_tag *tag, int count,
                     const char *const *arguments, const size_t *sizes)
{
    if (self->over || (self->waiting == self->room && !grow(self)))
        return false;
    char *command;
    size_t size = codec_command(&command, count, arguments, sizes);
    if (size == 0)
        return false;
    int result = bufferevent_write(self->socket, command, size);
    codec_free_command(command);
    if (result != 0)
        return false;
    self->bytes_out += size;
    struct request *request = &self->requests[(self->first + self->waiting) % self->room];
    request->tag = *tag;
    request->sent_us = connection_now_us();
    self->waiting++;
    if (!evtimer_pending(self->timer, NULL))
        set_timer(self, request->sent_us + self->reply_timeout_us);
    return true;
}

size_t connection_waiting(const connection *self)
{
    return self->waiting;
}

uint64_t connection_bytes_in(const connection *self)
{
    return self->bytes_in;
}

uint64_t connection_bytes_out(const connection *self)
{
    return self->bytes_out;
}
