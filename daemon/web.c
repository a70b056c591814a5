/* web.c: see web.h. evhttp does the protocol. It has no limit on connections and none on their
 * age, so each connection's bufferevent is made here and kept in a table with a reference of our
 * own: a swept slot is one whose callbacks evhttp has taken away (bufferevent_free() does that
 * first), and a connection past its age gets a timeout event, which makes evhttp close it. While
 * the table is full the listener rests and new clients wait in its backlog.
 */
#include "daemon/web.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>

#include "daemon/log.h"
#include "daemon/secret.h"
#include "daemon/web_page.h"

#define HEADERS_MAX 8192 /* bytes */
#define BODY_MAX 4096
#define AGE_FACTOR 12 /* a connection may last so many times the time it may be silent */
#define SWEEP_US 200000

struct slot {
    struct bufferevent *bufferevent; /* NULL: free */
    int64_t opened_ms;
};

struct web {
    web_settings settings;
    struct event_base *base;
    struct evhttp *http;
    struct evconnlistener *listener;
    struct event *sweep_timer;
    struct slot *slots;
    size_t used;
    char *token;
    unsigned port;
    dev_t socket_device;
    ino_t socket_inode;
    metrics_web counters;
    bool resting; /* accept() failed: it is tried again at the next sweep */
    log_trouble full, refused, accepting;
};

static int64_t monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- Connections ----------------------------------------------------------------------------- */

static bool is_closed(struct bufferevent *bufferevent)
{
    bufferevent_event_cb on_event = NULL;
    bufferevent_getcb(bufferevent, NULL, NULL, &on_event, NULL);
    return on_event == NULL;
}

static void sweep(web *self, int64_t now)
{
    for (int64_t i = 0; i < self->settings.connections; i++) {
        struct slot *slot = &self->slots[i];
        if (!slot->bufferevent) {
            continue;
        }
        if (!is_closed(slot->bufferevent) &&
            now - slot->opened_ms > AGE_FACTOR * self->settings.timeout_ms) {
            bufferevent_trigger_event(slot->bufferevent, BEV_EVENT_TIMEOUT | BEV_EVENT_READING,
                                      BEV_TRIG_IGNORE_WATERMARKS);
        }
        if (is_closed(slot->bufferevent)) {
            bufferevent_decref(slot->bufferevent);
            slot->bufferevent = NULL;
            self->used--;
        }
    }
    if (self->used < (size_t)self->settings.connections &&
        (log_trouble_ends(&self->full) || self->resting)) {
        self->resting = false;
        evconnlistener_enable(self->listener);
    }
}

static void on_sweep(evutil_socket_t fd, short what, void *context)
{
    web *self = context;
    struct timeval pause = {0, SWEEP_US};
    (void)fd, (void)what;
    sweep(self, monotonic_ms());
    if (self->used > 0) {
        event_add(self->sweep_timer, &pause);
    }
}

/* Out of descriptors, most likely: trying at once again would only burn time. */
static web *accepting; /* evhttp makes itself the listener's context; there is one web server */

static void on_accept_error(struct evconnlistener *listener, void *context)
{
    web *self = accepting;
    (void)context;
    struct timeval pause = {0, SWEEP_US};
    int reason = EVUTIL_SOCKET_ERROR();
    self->resting = true;
    evconnlistener_disable(listener);
    event_add(self->sweep_timer, &pause);
    if (log_trouble_begins(&self->accepting)) {
        log_event(LOG_WARNING, "web_accept_failed", "%s", evutil_socket_error_to_string(reason));
    }
}

/* evhttp asks for a bufferevent for a connection that has been accepted. */
static struct bufferevent *on_connection(struct event_base *base, void *context)
{
    web *self = context;
    struct timeval pause = {0, SWEEP_US};
    int64_t now = monotonic_ms();
    sweep(self, now);
    struct bufferevent *made = bufferevent_socket_new(base, -1, 0);
    for (int64_t i = 0; made && i < self->settings.connections; i++) {
        if (!self->slots[i].bufferevent) {
            bufferevent_incref(made);
            self->slots[i] = (struct slot){made, now};
            self->used++;
            break;
        }
    }
    if (self->used >= (size_t)self->settings.connections) {
        evconnlistener_disable(self->listener);
        if (log_trouble_begins(&self->full)) {
            log_event(LOG_NOTICE, "web_full", "%zu connections: others wait", self->used);
        }
    }
    if (!event_pending(self->sweep_timer, EV_TIMEOUT, NULL)) {
        event_add(self->sweep_timer, &pause);
    }
    return made;
}

/* ---- Requests -------------------------------------------------------------------------------- */

static void reply(web *self, struct evhttp_request *request, int code, const char *reason,
                  const char *type, struct evbuffer *body)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    self->counters.requests++;
    self->counters.errors += code >= 400 && code != 401 && code != 503;
    evhttp_add_header(headers, "Content-Type", type);
    evhttp_add_header(headers, "Cache-Control", "no-store");
    evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
    evhttp_add_header(headers, "Content-Security-Policy",
                      "default-src 'none'; style-src 'unsafe-inline'");
    if (evhttp_request_get_command(request) == EVHTTP_REQ_HEAD) {
        /* evhttp would send the body, which the client would take for the next answer. */
        char length[32];
        (void)snprintf(length, sizeof length, "%zu", evbuffer_get_length(body));
        evhttp_add_header(headers, "Content-Length", length);
        evbuffer_drain(body, evbuffer_get_length(body));
    }
    evhttp_send_reply(request, code, reason, body);
}

static void reply_text(web *self, struct evhttp_request *request, int code, const char *reason,
                       struct evbuffer *body)
{
    evbuffer_add_printf(body, "%d %s\n", code, reason);
    reply(self, request, code, reason, "text/plain; charset=utf-8", body);
}

static bool authorized(web *self, struct evhttp_request *request)
{
    const char *given =
        evhttp_find_header(evhttp_request_get_input_headers(request), "Authorization");
    if (!self->token) {
        return true;
    }
    if (!given || strncasecmp(given, "Bearer ", 7) != 0) {
        return false;
    }
    given += 7;
    given += strspn(given, " ");
    return secret_equal(self->token, given, strlen(given));
}

static void answer(web *self, struct evhttp_request *request, struct evbuffer *body)
{
    static metrics_snapshot snapshot; /* some kilobytes; there is one thread */
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
    const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
    enum evhttp_cmd_type method = evhttp_request_get_command(request);
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    if (!authorized(self, request)) {
        self->counters.refused++;
        if (log_trouble_begins(&self->refused)) {
            log_event(LOG_WARNING, "web_refused", "%llu requests without the right token so far",
                      (unsigned long long)self->counters.refused);
        }
        evhttp_add_header(headers, "WWW-Authenticate", "Bearer realm=\"larderd\"");
        reply_text(self, request, 401, "Unauthorized", body);
        return;
    }
    path = path && *path ? path : "/";
    bool state = strcmp(path, "/healthz") == 0 || strcmp(path, "/readyz") == 0;
    bool metrics = strcmp(path, "/metrics") == 0;
    if (!state && !metrics && strcmp(path, "/") != 0) {
        reply_text(self, request, 404, "Not Found", body);
        return;
    }
    if (method != EVHTTP_REQ_GET && method != EVHTTP_REQ_HEAD) {
        evhttp_add_header(headers, "Allow", "GET, HEAD");
        reply_text(self, request, 405, "Method Not Allowed", body);
        return;
    }
    memset(&snapshot, 0, sizeof snapshot);
    self->settings.snapshot(self->settings.context, &snapshot);
    snapshot.web = self->counters;
    snapshot.web.connections = self->used;
    metrics_complete(&snapshot);
    if (state) {
        web_page_state(&snapshot, body);
        reply(self, request, snapshot.map_fresh ? 200 : 503,
              snapshot.map_fresh ? "OK" : "Service Unavailable", "application/json", body);
    } else if (metrics) {
        metrics_write(&snapshot, body);
        reply(self, request, 200, "OK",
              "application/openmetrics-text; version=1.0.0; charset=utf-8", body);
    } else {
        web_page_status(&snapshot, body);
        reply(self, request, 200, "OK", "text/html; charset=utf-8", body);
    }
}

static void on_request(struct evhttp_request *request, void *context)
{
    struct evbuffer *body = evbuffer_new();
    if (!body) {
        evhttp_send_error(request, 500, NULL);
        return;
    }
    answer(context, request, body);
    evbuffer_free(body);
}

/* ---- Listening ------------------------------------------------------------------------------- */

/* Is there a socket at the path that nobody listens on? Then it is removed. */
static bool make_way(const char *path, char *error, size_t error_size)
{
    struct stat status;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (lstat(path, &status) != 0) {
        if (errno == ENOENT) {
            return true;
        }
        snprintf(error, error_size, "%s: %s", path, strerror(errno));
        return false;
    }
    if (!S_ISSOCK(status.st_mode)) {
        snprintf(error, error_size, "%s: there is something that is not a socket", path);
        return false;
    }
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int failed = fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0;
    int reason = failed ? errno : 0;
    if (fd >= 0) {
        close(fd);
    }
    if (!failed || reason != ECONNREFUSED) {
        snprintf(error, error_size, "%s: %s", path,
                 failed && reason != EAGAIN ? strerror(reason) : "another process listens there");
        return false;
    }
    if (unlink(path) != 0 && errno != ENOENT) {
        snprintf(error, error_size, "%s: removing the stale socket: %s", path, strerror(errno));
        return false;
    }
    return true;
}

static int bind_unix(web *self, char *error, size_t error_size)
{
    const char *path = self->settings.where.path;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;
    if (!make_way(path, error, error_size)) {
        return -1;
    }
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t mask = umask(0117); /* 0660 from its first moment */
    int failed = fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0;
    int reason = errno;
    umask(mask);
    if (failed || lstat(path, &status) != 0) {
        snprintf(error, error_size, "%s: %s", path, strerror(failed ? reason : errno));
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    self->socket_device = status.st_dev;
    self->socket_inode = status.st_ino;
    return fd;
}

static int bind_tcp(web *self, char *error, size_t error_size)
{
    const conf_listen *where = &self->settings.where;
    struct sockaddr_storage address;
    int size = sizeof address, on = 1;
    char text[96];
    bool v6 = strchr(where->address, ':') != NULL;
    snprintf(text, sizeof text, v6 ? "[%s]:%u" : "%s:%u", where->address, where->port);
    memset(&address, 0, sizeof address);
    if (where->port == 0) { /* evutil_parse_sockaddr_port() does not take it */
        snprintf(text, sizeof text, v6 ? "[%s]:1" : "%s:1", where->address);
    }
    if (evutil_parse_sockaddr_port(text, (struct sockaddr *)&address, &size) != 0) {
        snprintf(error, error_size, "%s: not an address", text);
        return -1;
    }
    if (where->port == 0) {
        if (v6) {
            ((struct sockaddr_in6 *)&address)->sin6_port = 0;
        } else {
            ((struct sockaddr_in *)&address)->sin_port = 0;
        }
    }
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t bound_size = sizeof address;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, (struct sockaddr *)&address, (socklen_t)size) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &bound_size) != 0) {
        snprintf(error, error_size, "%s port %u: %s", where->address, where->port, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    self->port = ntohs(v6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                          : ((struct sockaddr_in *)&address)->sin_port);
    return fd;
}

static bool listen_on(web *self, char *error, size_t error_size)
{
    int fd = self->settings.where.is_unix ? bind_unix(self, error, error_size)
                                          : bind_tcp(self, error, error_size);
    if (fd < 0) {
        return false;
    }
    if (listen(fd, 64) != 0) {
        snprintf(error, error_size, "listen: %s", strerror(errno));
        close(fd);
        return false;
    }
    self->listener = evconnlistener_new(self->base, NULL, NULL,
                                        LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
    if (!self->listener) {
        close(fd);
    } else if (evhttp_bind_listener(self->http, self->listener)) {
        accepting = self;
        evconnlistener_set_error_cb(self->listener, on_accept_error);
        return true;
    } else {
        evconnlistener_free(self->listener);
        self->listener = NULL;
    }
    snprintf(error, error_size, "no memory");
    return false;
}

/* ---- Life ------------------------------------------------------------------------------------ */

web *web_start(struct event_base *base, const web_settings *settings, char *error,
               size_t error_size)
{
    web *self = calloc(1, sizeof *self);
    if (self) {
        self->settings = *settings;
        self->base = base;
        self->slots = calloc((size_t)settings->connections, sizeof *self->slots);
        self->http = evhttp_new(base);
        self->sweep_timer = event_new(base, -1, 0, on_sweep, self);
    }
    if (!self || !self->slots || !self->http || !self->sweep_timer) {
        snprintf(error, error_size, "no memory");
        web_free(&self);
        return NULL;
    }
    struct timeval timeout = {.tv_sec = settings->timeout_ms / 1000,
                              .tv_usec = (suseconds_t)(settings->timeout_ms % 1000) * 1000};
    evhttp_set_timeout_tv(self->http, &timeout);
    evhttp_set_max_headers_size(self->http, HEADERS_MAX);
    evhttp_set_max_body_size(self->http, BODY_MAX);
    /* All of them, so that we answer the wrong ones with 405 and not evhttp with 501. */
    evhttp_set_allowed_methods(self->http, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD |
                                               EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE |
                                               EVHTTP_REQ_OPTIONS | EVHTTP_REQ_TRACE |
                                               EVHTTP_REQ_CONNECT | EVHTTP_REQ_PATCH);
    evhttp_set_bevcb(self->http, on_connection, self);
    evhttp_set_gencb(self->http, on_request, self);
    if (!listen_on(self, error, error_size)) {
        web_free(&self);
    }
    return self;
}

bool web_token(web *self, const char *token)
{
    char *copy = NULL;
    if (token && *token && !(copy = strdup(token))) {
        return false;
    }
    secret_free(&self->token);
    self->token = copy;
    return true;
}

unsigned web_port(const web *self)
{
    return self->port;
}

void web_free(web **self)
{
    web *gone = *self;
    struct stat status;
    if (!gone) {
        return;
    }
    if (gone->socket_inode && lstat(gone->settings.where.path, &status) == 0 &&
        status.st_dev == gone->socket_device && status.st_ino == gone->socket_inode) {
        unlink(gone->settings.where.path);
    }
    if (gone->http) {
        evhttp_free(gone->http); /* its connections and its listener too */
    }
    for (int64_t i = 0; gone->slots && i < gone->settings.connections; i++) {
        if (gone->slots[i].bufferevent) {
            bufferevent_decref(gone->slots[i].bufferevent);
        }
    }
    if (gone->sweep_timer) {
        event_free(gone->sweep_timer);
    }
    secret_free(&gone->token);
    free(gone->slots);
    free(gone);
    *self = NULL;
}
