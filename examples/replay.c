/* replay.c: see replay.h. A timer releases requests at their due times; a released request goes to
 * the client that has been idle for longest, or waits for one (and that wait counts in its latency:
 * a slow server cannot slow the clock down that it is measured with).
 */
#include "examples/replay.h"

#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct client {
    struct replay *replay;
    struct evhttp_connection *connection;
    struct client *next_idle;
    unsigned sent;       /* requests on this connection */
    size_t number;       /* of the request under way */
    int64_t sent_at_ms;  /* wall clock */
    const char *failure; /* in words, where libevent said why */
} client;

struct replay {
    replay_settings settings;
    struct event *pacer, *kick;
    client *clients;
    client *idle_first, *idle_last;
    replay_sample *samples;
    int64_t *due_us; /* monotonic, of each request */
    char *body;      /* what a page must say */
    char *errors[REPLAY_ERRORS_KEPT];
    replay_counts per_phase[REPLAY_PHASES];
    int64_t started_us;
    size_t released, sent, answered;
    unsigned phase;
    bool done;
};

static int64_t monotonic_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static const site_request *request_of(const replay *self, size_t number)
{
    const site *from = self->settings.site;
    return &from->requests[(self->settings.first + number) % from->request_count];
}

static const site_page *page_of(const replay *self, size_t number)
{
    return &self->settings.site->pages[request_of(self, number)->page];
}

/* ---- Checking an answer --------------------------------------------------------------------- */

static bool body_matches(replay *self, const site_page *page, const char *body, int64_t period)
{
    site_body(page, period, self->body);
    return memcmp(body, self->body, page->size) == 0;
}

/* The page as it was at some instant between asking and now: not torn, not another, not expired. */
static const char *body_check(replay *self, const client *from, const site_page *page,
                              struct evhttp_request *answer)
{
    struct evbuffer *buffer = evhttp_request_get_input_buffer(answer);
    if (evbuffer_get_length(buffer) != page->size)
        return "the body has another length than the page";
    const char *body = (const char *)evbuffer_pullup(buffer, -1);
    int64_t first = from->sent_at_ms / SITE_PERIOD_MS, last = site_now_ms() / SITE_PERIOD_MS;
    if (body == NULL)
        return "no memory for the body";
    for (int64_t period = first; period <= last; period++)
        if (body_matches(self, page, body, period))
            return NULL;
    if (body_matches(self, page, body, first - 1))
        return "the page is older than its 5-minute mark";
    return "the body is not what the page says";
}

/* NULL, or what is wrong with the answer; fills in outcome and worker. */
static const char *answer_check(replay *self, const client *from, struct evhttp_request *answer,
                                replay_sample *sample)
{
    const site_request *request = request_of(self, from->number);
    const site_page *page = page_of(self, from->number);
    struct evkeyvalq *headers = evhttp_request_get_input_headers(answer);
    const char *larder = evhttp_find_header(headers, "X-Larder");
    const char *worker = evhttp_find_header(headers, "X-Worker");
    const char *type = evhttp_find_header(headers, "Content-Type");
    const char *length = evhttp_find_header(headers, "Content-Length");
    unsigned long number = worker == NULL ? 0 : strtoul(worker, NULL, 10);
    bool cacheable = request->method == SITE_GET || request->method == SITE_HEAD;
    int status = request->method == SITE_OPTIONS ? 204 : (int)page->status;

    if (number < 1 || number > REPLAY_WORKERS_MAX)
        return "no X-Worker header";
    sample->worker = (uint8_t)number;
    if (larder != NULL && cacheable && strcmp(larder, "HIT") == 0)
        sample->outcome = REPLAY_HIT;
    else if (larder != NULL && cacheable && strcmp(larder, "MISS") == 0)
        sample->outcome = REPLAY_MISS;
    else if (larder != NULL && !cacheable && strcmp(larder, "BYPASS") == 0)
        sample->outcome = REPLAY_BYPASS;
    else
        return "no X-Larder header that fits the method";
    if (evhttp_request_get_response_code(answer) != status)
        return "another status than the page has";
    if (status != 200)
        return NULL;
    if (type == NULL || strcmp(type, page->type) != 0)
        return "another Content-Type than the page has";
    if (request->method != SITE_HEAD)
        return body_check(self, from, page, answer);
    if (length == NULL || strtoul(length, NULL, 10) != page->size)
        return "HEAD with another Content-Length than the page has";
    return evbuffer_get_length(evhttp_request_get_input_buffer(answer)) == 0 ? NULL
                                                                             : "HEAD with a body";
}

static void error_keep(replay *self, size_t number, const char *what)
{
    unsigned place = 0;
    while (place < REPLAY_ERRORS_KEPT && self->errors[place] != NULL)
        place++;
    if (place == REPLAY_ERRORS_KEPT)
        return;
    if (asprintf(&self->errors[place], "request %zu, %s %.200s: %s", number + 1,
                 site_method_name(request_of(self, number)->method), page_of(self, number)->path,
                 what) < 0)
        self->errors[place] = NULL;
}

/* ---- Clients -------------------------------------------------------------------------------- */

static void client_idle(client *self)
{
    replay *owner = self->replay;
    self->next_idle = NULL;
    if (owner->idle_last != NULL)
        owner->idle_last->next_idle = self;
    else
        owner->idle_first = self;
    owner->idle_last = self;
}

static void client_finish(client *self, struct evhttp_request *answer)
{
    replay *owner = self->replay;
    replay_sample *sample = &owner->samples[self->number];
    replay_counts *counts = &owner->per_phase[sample->phase];
    int64_t latency = monotonic_us() - owner->due_us[self->number];
    const char *wrong = self->failure;
    if (answer != NULL && evhttp_request_get_response_code(answer) != 0)
        wrong = answer_check(owner, self, answer, sample);
    else if (wrong == NULL)
        wrong = "no answer";
    if (wrong != NULL) {
        sample->outcome = REPLAY_ERROR;
        error_keep(owner, self->number, wrong);
    }
    sample->latency_us = latency < UINT32_MAX ? (uint32_t)latency : UINT32_MAX;
    counts->hits += sample->outcome == REPLAY_HIT;
    counts->misses += sample->outcome == REPLAY_MISS;
    counts->bypasses += sample->outcome == REPLAY_BYPASS;
    counts->errors += sample->outcome == REPLAY_ERROR;
    if (wrong != NULL) /* a connection that failed is not used again */
        self->sent = owner->settings.per_connection;
    client_idle(self);
    owner->answered++;
}

/* The next request goes out from the loop: in here libevent still uses the connection, which may
 * have served its turn. */
static void on_answer(struct evhttp_request *answer, void *context)
{
    client *self = context;
    client_finish(self, answer);
    event_active(self->replay->kick, EV_TIMEOUT, 0);
}

/* libevent tells here why the callback gets no answer. */
static void on_failure(enum evhttp_request_error error, void *context)
{
    client *self = context;
    switch (error) {
    case EVREQ_HTTP_TIMEOUT:
        self->failure = "no answer in time";
        break;
    case EVREQ_HTTP_EOF:
        self->failure = "the connection was closed before the answer was complete";
        break;
    case EVREQ_HTTP_INVALID_HEADER:
        self->failure = "the answer is not HTTP";
        break;
    default:
        self->failure = "the connection failed";
        break;
    }
}

static bool client_connect(client *self)
{
    const replay_settings *settings = &self->replay->settings;
    if (self->connection != NULL && self->sent < settings->per_connection)
        return true;
    if (self->connection != NULL)
        evhttp_connection_free(self->connection);
    self->sent = 0;
    self->connection = evhttp_connection_base_bufferevent_new(settings->base, NULL, NULL,
                                                              settings->address, settings->port);
    if (self->connection == NULL)
        return false;
    evhttp_connection_set_timeout(self->connection, settings->timeout_s);
    return true;
}

static bool client_ask(client *self)
{
    static const enum evhttp_cmd_type commands[] = {EVHTTP_REQ_GET, EVHTTP_REQ_HEAD,
                                                    EVHTTP_REQ_POST, EVHTTP_REQ_OPTIONS};
    replay *owner = self->replay;
    const site_request *request = request_of(owner, self->number);
    if (!client_connect(self))
        return false;
    struct evhttp_request *asked = evhttp_request_new(on_answer, self);
    if (asked == NULL)
        return false;
    evhttp_request_set_error_cb(asked, on_failure);
    evhttp_add_header(evhttp_request_get_output_headers(asked), "Host", "larder.example");
    self->sent++;
    self->failure = NULL;
    self->sent_at_ms = site_now_ms();
    return evhttp_make_request(self->connection, asked, commands[request->method],
                               page_of(owner, self->number)->path) == 0;
}

/* Give requests that are due to idle clients; when the last one is answered, say so. */
static void send_waiting(replay *self)
{
    while (self->sent < self->released && self->idle_first != NULL) {
        client *idle = self->idle_first;
        self->idle_first = idle->next_idle;
        if (self->idle_first == NULL)
            self->idle_last = NULL;
        idle->number = self->sent++;
        if (!client_ask(idle)) {
            idle->failure = "the request could not be sent";
            client_finish(idle, NULL);
        }
    }
    if (self->answered == self->settings.count && !self->done) {
        self->done = true;
        self->settings.finished(self->settings.context);
    }
}

static void on_kick(evutil_socket_t descriptor, short what, void *context)
{
    (void)descriptor;
    (void)what;
    send_waiting(context);
}

/* ---- Pace ----------------------------------------------------------------------------------- */

static void pace(replay *self)
{
    const replay_settings *settings = &self->settings;
    int64_t now = monotonic_us();
    size_t due = (size_t)((double)(now - self->started_us) / 1e6 * settings->rate) + 1;
    if (due > settings->count)
        due = settings->count;
    while (self->released < due) {
        settings->released(settings->context, self->released);
        self->due_us[self->released] = now;
        self->samples[self->released].phase = (uint8_t)self->phase;
        self->released++;
    }
    send_waiting(self);
    if (self->released == settings->count)
        return;
    int64_t next = self->started_us + (int64_t)((double)self->released / settings->rate * 1e6);
    int64_t wait = next - monotonic_us();
    if (wait < 0)
        wait = 0;
    struct timeval delay = {.tv_sec = wait / 1000000, .tv_usec = wait % 1000000};
    evtimer_add(self->pacer, &delay);
}

static void on_pace(evutil_socket_t descriptor, short what, void *context)
{
    (void)descriptor;
    (void)what;
    pace(context);
}

replay *replay_start(const replay_settings *settings)
{
    replay *self = calloc(1, sizeof *self);
    struct timeval now = {0};
    if (self == NULL)
        return NULL;
    self->settings = *settings;
    self->clients = calloc(settings->clients, sizeof *self->clients);
    self->samples = calloc(settings->count, sizeof *self->samples);
    self->due_us = calloc(settings->count, sizeof *self->due_us);
    self->body = malloc(SITE_PAGE_MAX);
    self->pacer = evtimer_new(settings->base, on_pace, self);
    self->kick = event_new(settings->base, -1, 0, on_kick, self);
    if (self->clients == NULL || self->samples == NULL || self->due_us == NULL ||
        self->body == NULL || self->pacer == NULL || self->kick == NULL ||
        evtimer_add(self->pacer, &now) != 0) {
        replay_free(&self);
        return NULL;
    }
    for (unsigned i = 0; i < settings->clients; i++) {
        self->clients[i].replay = self;
        client_idle(&self->clients[i]);
    }
    self->started_us = monotonic_us();
    return self;
}

void replay_free(replay **self)
{
    replay *gone = *self;
    if (gone == NULL)
        return;
    *self = NULL;
    for (unsigned i = 0; gone->clients != NULL && i < gone->settings.clients; i++)
        if (gone->clients[i].connection != NULL)
            evhttp_connection_free(gone->clients[i].connection);
    for (unsigned i = 0; i < REPLAY_ERRORS_KEPT; i++)
        free(gone->errors[i]);
    if (gone->pacer != NULL)
        event_free(gone->pacer);
    if (gone->kick != NULL)
        event_free(gone->kick);
    free(gone->clients);
    free(gone->samples);
    free(gone->due_us);
    free(gone->body);
    free(gone);
}

void replay_set_phase(replay *self, unsigned phase)
{
    self->phase = phase < REPLAY_PHASES ? phase : REPLAY_PHASES - 1;
}

void replay_read(const replay *self, replay_counts *total, replay_counts *per_phase)
{
    replay_counts sum = {0};
    for (unsigned i = 0; i < REPLAY_PHASES; i++) {
        sum.hits += self->per_phase[i].hits;
        sum.misses += self->per_phase[i].misses;
        sum.bypasses += self->per_phase[i].bypasses;
        sum.errors += self->per_phase[i].errors;
    }
    if (total != NULL)
        *total = sum;
    if (per_phase != NULL)
        memcpy(per_phase, self->per_phase, sizeof self->per_phase);
}

size_t replay_released(const replay *self)
{
    return self->released;
}

size_t replay_answered(const replay *self)
{
    return self->answered;
}

const replay_sample *replay_samples(const replay *self)
{
    return self->samples;
}

const char *replay_error(const replay *self, unsigned number)
{
    return number < REPLAY_ERRORS_KEPT ? self->errors[number] : NULL;
}
