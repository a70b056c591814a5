/* connection.c: see connection.h. */
#include "daemon/redis/connection.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/util.h>

#define READ_AT_ONCE ((size_t)64 * 1024)
#define SEND_AT_ONCE 4096u     /* bytes of a request that is copied once more if it does not go */
#define ATTEMPT_LEAST_US 50000 /* for one address of several */

struct request {
    connection_tag tag;
    int64_t sent_us;
};

struct connection {
    connection_callbacks callbacks;
    void *context;
    struct event_base *base;
    url_place place;
    char name[URL_PLACE_TEXT_MAX];
    tls *tls;
    lookup *lookup;
    lookup_addresses addresses;
    size_t tried;               /* of the addresses */
    struct bufferevent *socket; /* to the last one tried; NULL: none yet */
    struct event *readable;     /* where there is no TLS: see on_readable() */
    struct event *timer;
    codec *codec;
    int64_t connect_timeout_us, reply_timeout_us, opened_us;
    int64_t attempt_us;       /* until when the address is given time */
    char trouble[640];        /* before connected: what went wrong last; "": nothing yet */
    struct request *requests; /* a ring */
    size_t first, waiting, room;
    uint64_t bytes_in, bytes_out;
    unsigned inside;               /* callbacks under way: freed only when there are none */
    uint64_t answers, heard;       /* replies to requests so far; and messages, too */
    int64_t answered_us, heard_us; /* when the last of them had been dealt with */
    int64_t timer_us;              /* what the timer is set to */
    bool connected, over, closed, refused;
    bool reprieved; /* since then: a deadline was put off, see reply_is_late() */
};

int64_t connection_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void release(connection *self)
{
    lookup_cancel(&self->lookup);
    if (self->readable != NULL)
        event_free(self->readable);
    if (self->socket != NULL)
        bufferevent_free(self->socket);
    tls_release(&self->tls);
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
    if (self->readable != NULL)
        event_del(self->readable);
    if (self->socket != NULL)
        bufferevent_disable(self->socket, EV_READ | EV_WRITE);
    self->callbacks.down(self->context, why, timed_out, protocol);
}

static void set_timer(connection *self, int64_t at_us)
{
    int64_t left = at_us - connection_now_us();
    self->timer_us = at_us;
    if (left < 1000)
        left = 1000;
    struct timeval time = {.tv_sec = left / 1000000, .tv_usec = left % 1000000};
    evtimer_add(self->timer, &time);
}

static void try_next(connection *self);

/* What it was that took too long. */
static const char *missing(const connection *self)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    if (self->lookup != NULL)
        return "answer of a name server";
    if (self->tls != NULL && self->socket != NULL &&
        getpeername(bufferevent_getfd(self->socket), (struct sockaddr *)&peer, &size) == 0)
        return "TLS (is this the server's TLS port?)";
    return "connection";
}

static void connecting_took_too_long(connection *self, int64_t now)
{
    char why[512];
    if (self->trouble[0] != 0 && self->socket == NULL) { /* no address is left */
        fail(self, self->trouble, false, false);
    } else if (now < self->opened_us + self->connect_timeout_us) {
        snprintf(self->trouble, sizeof self->trouble, "%s: an address does not answer", self->name);
        try_next(self);
    } else {
        snprintf(why, sizeof why, "%s: no %s within %lld ms", self->name, missing(self),
                 (long long)(self->connect_timeout_us / 1000));
        fail(self, why, true, false);
    }
}

/* When the oldest request is late. What it waited behind others is not its own delay, and where
 * messages come in between, ever so many of them, Redis lives; not for ever, though. */
static int64_t reply_due(const connection *self)
{
    enum { HEARD_FOR = 10 }; /* deadlines */
    int64_t from = self->requests[self->first].sent_us;
    from = from > self->answered_us ? from : self->answered_us;
    int64_t at_most = from + HEARD_FOR * self->reply_timeout_us;
    int64_t heard = self->heard_us < at_most ? self->heard_us : at_most;
    return (from > heard ? from : heard) + self->reply_timeout_us;
}

/* A process that was stopped or busy finds its timer and the replies at the same time, the timer
 * first, and what it meant to send it has yet to send. So what can be read is read before, and what
 * the timer came too late is put on top. Once a reply, so that a drip does not help. */
static bool reply_is_late(connection *self, int64_t now)
{
    enum { LOOK_AGAIN_US = 20000, STALLED_US = 100000 };
    int bytes = 0;
    int64_t stalled = now - self->timer_us;
    bool waits = evbuffer_get_length(bufferevent_get_input(self->socket)) != 0 ||
                 (ioctl(bufferevent_getfd(self->socket), FIONREAD, &bytes) == 0 && bytes != 0);
    if (self->reprieved || (!waits && stalled < STALLED_US))
        return true;
    if (stalled > self->reply_timeout_us)
        stalled = self->reply_timeout_us;
    self->reprieved = true;
    set_timer(self, now + (stalled > LOOK_AGAIN_US ? stalled : LOOK_AGAIN_US));
    return false;
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    connection *self = context;
    (void)fd;
    (void)what;
    int64_t now = connection_now_us(), due = 0;
    enter(self);
    if (!self->connected)
        due = self->attempt_us;
    else if (self->waiting != 0)
        due = reply_due(self);
    if (due != 0 && now >= due && self->connected) {
        char why[128];
        snprintf(why, sizeof why, "no reply within %lld ms",
                 (long long)(self->reply_timeout_us / 1000));
        if (reply_is_late(self, now))
            fail(self, why, true, false);
    } else if (due != 0 && now >= due) {
        connecting_took_too_long(self, now);
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

/* Keys that tracking names (nil: all), or a keyspace notification. */
static bool is_change(const reply *got)
{
    if (got->kind != REPLY_ARRAY || got->count < 3 || got->elements[0]->kind != REPLY_STRING)
        return false;
    const reply *last = got->elements[got->count - 1];
    return (got->count == 3 && reply_text_is(got->elements[0], "message") &&
            (last->kind == REPLY_ARRAY || last->kind == REPLY_NIL)) ||
           (got->count == 4 && reply_text_is(got->elements[0], "pmessage") &&
            got->elements[2]->kind == REPLY_STRING && last->kind == REPLY_STRING);
}

static void take_reply(connection *self, const reply *got)
{
    self->heard++;
    if (is_message(got)) {
        self->callbacks.message(self->context, got->elements[2]->text, got->elements[2]->size);
        return;
    }
    if (self->callbacks.changed != NULL && is_change(got)) {
        self->callbacks.changed(self->context, got);
        return;
    }
    if (self->waiting == 0) {
        char why[160];
        if (got->kind == REPLY_ERROR) /* e.g. "max number of clients reached" */
            snprintf(why, sizeof why, "Redis says: %.120s", got->said);
        else
            snprintf(why, sizeof why, "a reply came that nobody had asked for");
        fail(self, why, false, got->kind != REPLY_ERROR);
        return;
    }
    struct request request = self->requests[self->first];
    self->first = (self->first + 1) % self->room;
    self->waiting--;
    self->answers++;
    self->callbacks.answer(self->context, &request.tag, got, request.sent_us);
}

/* An alert, which is how a TLS server answers plain text. */
static bool is_tls_record(const void *bytes, size_t size)
{
    const unsigned char *at = bytes;
    return size >= 2 && at[0] == 0x15 && at[1] == 0x03;
}

static void take_bytes(connection *self, const void *bytes, size_t size)
{
    const reply *got;
    uint64_t answers = self->answers, heard = self->heard;
    if (self->bytes_in == 0 && is_tls_record(bytes, size)) {
        char why[384];
        snprintf(why, sizeof why, "%s: the server speaks TLS: its URL begins with rediss",
                 self->name);
        self->refused = true;
        fail(self, why, false, true);
        return;
    }
    self->bytes_in += size;
    codec_feed(self->codec, bytes, size);
    while (!self->over && !self->closed && (got = codec_next(self->codec)) != NULL)
        take_reply(self, got);
    if (self->heard != heard)
        self->heard_us = connection_now_us();
    if (self->answers != answers) {
        self->answered_us = self->heard_us;
        self->reprieved = false;
    }
    if (!self->closed && codec_error(self->codec) != NULL)
        fail(self, codec_error(self->codec), false, true);
}

static void taken(connection *self)
{
    if (!self->over && !self->closed)
        self->callbacks.idle(self->context);
}

/* What TLS has decrypted. */
static void on_read(struct bufferevent *socket, void *context)
{
    connection *self = context;
    struct evbuffer *input = bufferevent_get_input(socket);
    struct evbuffer_iovec piece;
    enter(self);
    while (!self->over && !self->closed && evbuffer_peek(input, -1, NULL, &piece, 1) > 0) {
        take_bytes(self, piece.iov_base, piece.iov_len); /* keeps none of them */
        evbuffer_drain(input, piece.iov_len);
    }
    taken(self);
    leave(self);
}

static void lost(connection *self, bool closed, int error);

/* Straight from the socket: a bufferevent asks the kernel first how much there is, and what it read
 * waits for its turn of the loop. */
static void on_readable(evutil_socket_t socket, short what, void *context)
{
    static char bytes[READ_AT_ONCE];
    connection *self = context;
    ssize_t size = recv(socket, bytes, sizeof bytes, MSG_DONTWAIT);
    int error = size < 0 ? errno : 0;
    (void)what;
    enter(self);
    if (size > 0) {
        take_bytes(self, bytes, (size_t)size);
        taken(self);
    } else if (error != EAGAIN && error != EINTR) {
        lost(self, size == 0, error);
    }
    leave(self);
}

static bool read_ourselves(connection *self, int fd)
{
    self->readable = event_new(self->base, fd, EV_READ | EV_PERSIST, on_readable, self);
    return self->readable != NULL && event_add(self->readable, NULL) == 0;
}

static void now_connected(connection *self)
{
    int one = 1, fd = bufferevent_getfd(self->socket);
    self->connected = true;
    if (self->place.path[0] == 0 && fd >= 0) {
        /* best effort: without them it is only slower to send and to notice a dead peer */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    }
    if (self->tls == NULL && !self->over && !read_ourselves(self, fd)) {
        fail(self, "no memory for a connection", false, false);
        return;
    }
    evtimer_del(self->timer);
    if (self->waiting != 0)
        set_timer(self, reply_due(self));
    self->callbacks.up(self->context);
}

/* Was it TLS? Then why it was is left in trouble. Of a certificate of ours that it does not like a
 * TLS 1.3 server tells only after the handshake, in place of its first bytes. A server that has
 * sent some has refused nothing, whatever ends the session. */
static bool session_failed(connection *self)
{
    char why[256];
    bool refused = false;
    if (self->tls == NULL ||
        !tls_failure(bufferevent_openssl_get_ssl(self->socket),
                     bufferevent_get_openssl_error(self->socket), why, sizeof why, &refused))
        return false;
    self->refused = refused && self->bytes_in == 0;
    snprintf(self->trouble, sizeof self->trouble, "%s: %s", self->name, why);
    return true;
}

/* The other end closed it, or something went wrong; 0: with no number. */
static void lost(connection *self, bool closed, int error)
{
    if (self->over || self->closed)
        return;
    bool session = session_failed(self);
    bool plain = self->connected && self->tls == NULL && self->place.path[0] == 0;
    if (!session)
        snprintf(self->trouble, sizeof self->trouble, "%s: %s%s", self->name,
                 closed       ? "the connection was closed by Redis"
                 : error != 0 ? evutil_socket_error_to_string(error)
                              : "cannot connect",
                 plain && self->bytes_in == 0 ? " before a reply (does it want rediss://?)" : "");
    if (self->connected || session)
        fail(self, self->trouble, false, false);
    else
        try_next(self);
}

static void on_event(struct bufferevent *socket, short what, void *context)
{
    connection *self = context;
    int error = EVUTIL_SOCKET_ERROR();
    (void)socket;
    enter(self);
    if (what & BEV_EVENT_CONNECTED)
        now_connected(self);
    else if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
        lost(self, (what & BEV_EVENT_EOF) != 0, error);
    leave(self);
}

bool connection_needs_lookup(const url_place *place)
{
    lookup_addresses numeric;
    return place->path[0] == 0 && !lookup_numeric(place->host, place->port, &numeric);
}

bool connection_refused(const connection *self)
{
    return self != NULL && self->refused;
}

/* ---- Connecting -------------------------------------------------------------------------------
 */

/* deferred: a connect that fails at once must not call back into its caller */
#define SOCKET_OPTIONS (BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS)

static struct bufferevent *new_socket(connection *self)
{
    if (self->tls == NULL)
        return bufferevent_socket_new(self->base, -1, SOCKET_OPTIONS);
    struct ssl_st *session = tls_session(self->tls, self->place.host);
    if (session == NULL)
        return NULL;
    return bufferevent_openssl_socket_new(self->base, -1, session, BUFFEREVENT_SSL_CONNECTING,
                                          SOCKET_OPTIONS); /* frees the session where it fails */
}

/* Connect to the next address; there is none: over, by the timer. An address of several that stays
 * silent leaves the others their part of the time. */
static void try_next(connection *self)
{
    int64_t now = connection_now_us(), due = self->opened_us + self->connect_timeout_us;
    while (self->tried < self->addresses.count) {
        size_t i = self->tried++;
        if (self->socket != NULL)
            bufferevent_free(self->socket);
        self->socket = new_socket(self);
        if (self->socket == NULL) {
            snprintf(self->trouble, sizeof self->trouble, "%s: no memory", self->name);
            continue;
        }
        bufferevent_setcb(self->socket, on_read, NULL, on_event, self);
        bufferevent_set_max_single_read(self->socket, READ_AT_ONCE);
        bufferevent_set_max_single_write(self->socket, READ_AT_ONCE * 4);
        bufferevent_enable(self->socket, self->tls != NULL ? EV_READ | EV_WRITE : EV_WRITE);
        if (bufferevent_socket_connect(self->socket,
                                       (struct sockaddr *)&self->addresses.addresses[i],
                                       self->addresses.sizes[i]) == 0) {
            int64_t share = (due - now) / (int64_t)(self->addresses.count - i);
            self->attempt_us = now + (share < ATTEMPT_LEAST_US ? ATTEMPT_LEAST_US : share);
            if (self->attempt_us > due)
                self->attempt_us = due;
            set_timer(self, self->attempt_us);
            return;
        }
        snprintf(self->trouble, sizeof self->trouble, "%s: %s", self->name,
                 evutil_socket_error_to_string(EVUTIL_SOCKET_ERROR()));
    }
    if (self->socket != NULL)
        bufferevent_free(self->socket);
    self->socket = NULL;
    self->attempt_us = now;
    set_timer(self, now);
}

static void looked_up(void *context, const lookup_addresses *addresses, const char *why)
{
    connection *self = context;
    self->lookup = NULL;
    self->addresses = *addresses;
    if (why != NULL) {
        self->addresses.count = 0;
        snprintf(self->trouble, sizeof self->trouble, "%s: %s", self->place.host, why);
    }
    if (!self->over && !self->closed)
        try_next(self);
}

static void start_connect(connection *self, resolver *names)
{
    if (self->place.path[0] != 0) {
        struct sockaddr_un *address = (struct sockaddr_un *)&self->addresses.addresses[0];
        address->sun_family = AF_UNIX;
        snprintf(address->sun_path, sizeof address->sun_path, "%s", self->place.path);
        self->addresses.sizes[0] = (int)sizeof *address;
        self->addresses.count = 1;
    } else if (!lookup_numeric(self->place.host, self->place.port, &self->addresses)) {
        self->attempt_us = self->opened_us + self->connect_timeout_us;
        set_timer(self, self->attempt_us);
        self->lookup = lookup_start(names, self->place.host, self->place.port, looked_up, self);
        return;
    }
    try_next(self);
}

connection *connection_open(const connection_settings *settings,
                            const connection_callbacks *callbacks, void *context)
{
    connection *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    self->callbacks = *callbacks;
    self->context = context;
    self->base = settings->base;
    self->place = settings->place;
    url_place_text(&self->place, self->name);
    self->tls = tls_share(settings->tls);
    self->connect_timeout_us = settings->connect_timeout_ms * 1000;
    self->reply_timeout_us = settings->reply_timeout_ms * 1000;
    self->opened_us = connection_now_us();
    self->codec = codec_create(&settings->limits);
    self->timer = evtimer_new(settings->base, on_timer, self);
    if (self->codec == NULL || self->timer == NULL) {
        release(self);
        return NULL;
    }
    start_connect(self, settings->resolver);
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

/* A lone request goes straight to the kernel: a round of the loop less, which whoever waits for the
 * answer would notice. Returns how much went; the loop does the rest, and notices what is wrong. */
static size_t send_at_once(connection *self, const char *bytes, size_t size)
{
    if (!self->connected || self->waiting != 0 || self->tls != NULL || size > SEND_AT_ONCE ||
        evbuffer_get_length(bufferevent_get_output(self->socket)) != 0)
        return 0;
    ssize_t sent = send(bufferevent_getfd(self->socket), bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent > 0 ? (size_t)sent : 0;
}

bool connection_send_bytes(connection *self, const connection_tag *tag, const char *command,
                           size_t size)
{
    if (self->over || self->socket == NULL || (self->waiting == self->room && !grow(self)))
        return false;
    size_t sent = send_at_once(self, command, size);
    if (sent != size && bufferevent_write(self->socket, command + sent, size - sent) != 0)
        return false;
    self->bytes_out += size;
    struct request *request = &self->requests[(self->first + self->waiting) % self->room];
    request->tag = *tag;
    request->sent_us = connection_now_us();
    self->waiting++;
    if (self->connected && !evtimer_pending(self->timer, NULL))
        set_timer(self, request->sent_us + self->reply_timeout_us);
    return true;
}

bool connection_send(connection *self, const connection_tag *tag, int count,
                     const char *const *arguments, const size_t *sizes)
{
    char *command;
    size_t size = codec_command(&command, count, arguments, sizes);
    if (size == 0)
        return false;
    bool sent = connection_send_bytes(self, tag, command, size);
    codec_free_command(command);
    return sent;
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
