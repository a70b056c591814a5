/* sentinel.c: see sentinel.h. One connection a Sentinel: it is asked for the address and for the
 * configuration's epoch, and subscribed to +switch-master in the same breath. Those that cannot be
 * reached are tried again for as long as the session lasts, with growing pauses.
 */
#include "daemon/redis/sentinel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SETTLE_US 500000       /* after the first answer: how long the others are waited for */
#define DECIDE_MS 50           /* how often that is looked at */
#define PAUSE_FIRST_US 1000000 /* before one that failed is tried again */
#define PAUSE_LONGEST_US 30000000

enum asked { ASKED_AUTH = 1, ASKED_ADDRESS, ASKED_EPOCH, ASKED_SUBSCRIBE, ASKED_PING };

struct watcher { /* one Sentinel */
    sentinel *owner;
    size_t index; /* of its place in the URL */
    connection *connection;
    bool addressed, answered; /* the address is known; and the epoch */
    bool failed, refused, timed_out;
    url_place master;
    uint64_t epoch;
    int64_t retry_us, pause_us;
};

/* What a Sentinel said by itself: whoever says untrue things is not listened to for a while, or it
 * could end every session as soon as it has begun. Outlives the sessions. */
struct hint {
    url_place master;
    bool acted_on; /* and whether it was true is yet to be seen */
    int64_t deaf_until_us, pause_us;
};

struct sentinel {
    sentinel_settings settings;
    sentinel_callbacks callbacks;
    void *context;
    resolver *names;
    struct event *timer;
    struct watcher watchers[URL_PLACES_MAX];
    struct hint hints[URL_PLACES_MAX];
    size_t count;
    int64_t first_answer_us; /* 0: none yet */
    bool decided;
    url_place master; /* once decided */
    uint64_t epoch;
    char why[512]; /* the last failure */
};

/* ---- Deciding ---------------------------------------------------------------------------------
 */

static const struct watcher *newest(const sentinel *self)
{
    const struct watcher *best = NULL;
    for (size_t i = 0; i < self->count; i++) {
        const struct watcher *each = &self->watchers[i];
        if (each->answered && (best == NULL || each->epoch > best->epoch))
            best = each;
    }
    return best;
}

static size_t votes_for(const sentinel *self, const struct watcher *best)
{
    size_t votes = 0;
    for (size_t i = 0; i < self->count; i++)
        votes += self->watchers[i].answered && self->watchers[i].epoch == best->epoch &&
                 url_place_same(&self->watchers[i].master, &best->master);
    return votes;
}

static void set_timer(sentinel *self, int64_t ms)
{
    struct timeval time = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    evtimer_add(self->timer, &time);
}

static void give_up(sentinel *self)
{
    bool refused = true, timed_out = false;
    for (size_t i = 0; i < self->count; i++) {
        refused = refused && self->watchers[i].refused;
        timed_out = timed_out || self->watchers[i].timed_out;
    }
    self->decided = true;
    self->callbacks.failed(self->context, refused ? SYNC_NO_PERMISSION : SYNC_LOST_CONNECTION,
                           self->why, timed_out);
}

static void longer(int64_t *pause_us)
{
    *pause_us = *pause_us == 0 ? PAUSE_FIRST_US : *pause_us * 2;
    if (*pause_us > PAUSE_LONGEST_US)
        *pause_us = PAUSE_LONGEST_US;
}

/* Now that it is known who the master is. */
static void judge_hints(sentinel *self)
{
    for (size_t i = 0; i < self->count; i++) {
        struct hint *hint = &self->hints[i];
        if (!hint->acted_on)
            continue;
        hint->acted_on = false;
        if (url_place_same(&hint->master, &self->master)) {
            hint->pause_us = 0;
        } else {
            longer(&hint->pause_us);
            hint->deaf_until_us = connection_now_us() + hint->pause_us;
        }
    }
}

/* One says that the master is another one now. */
static void moved(const struct watcher *said)
{
    sentinel *self = said->owner;
    struct hint *hint = &self->hints[said->index];
    if (connection_now_us() < hint->deaf_until_us)
        return;
    hint->acted_on = true;
    hint->master = said->master;
    self->callbacks.moved(self->context, &hint->master);
}

/* As soon as a majority agrees, or all have spoken, or those that spoke were first by far. */
static void decide(sentinel *self)
{
    size_t pending = 0;
    if (self->decided)
        return;
    for (size_t i = 0; i < self->count; i++)
        pending += !self->watchers[i].answered && !self->watchers[i].failed;
    const struct watcher *best = newest(self);
    if (best == NULL) {
        if (pending == 0)
            give_up(self);
        return;
    }
    if (pending != 0 && votes_for(self, best) * 2 <= self->count &&
        connection_now_us() - self->first_answer_us < SETTLE_US)
        return;
    self->decided = true;
    self->master = best->master;
    self->epoch = best->epoch;
    judge_hints(self);
    set_timer(self, self->settings.ping_ms);
    self->callbacks.found(self->context, &self->master);
}

/* ---- One Sentinel -----------------------------------------------------------------------------
 */

static void watcher_failed(struct watcher *self, const char *why, bool refused, bool timed_out)
{
    sentinel *owner = self->owner;
    char name[URL_PLACE_TEXT_MAX];
    url_place_text(&owner->settings.url->places[self->index], name);
    if (strncmp(why, name, strlen(name)) == 0)
        snprintf(owner->why, sizeof owner->why, "Sentinel %.200s", why);
    else
        snprintf(owner->why, sizeof owner->why, "Sentinel %s: %.200s", name, why);
    connection_close(&self->connection);
    self->failed = true;
    self->answered = self->addressed = false;
    self->refused = refused;
    self->timed_out = timed_out;
    longer(&self->pause_us);
    self->retry_us = connection_now_us() + self->pause_us;
    decide(owner);
}

static bool ask(struct watcher *self, enum asked what, int count, const char *const *words)
{
    size_t sizes[4];
    connection_tag tag = {.kind = what};
    for (int i = 0; i < count; i++)
        sizes[i] = strlen(words[i]);
    return connection_send(self->connection, &tag, count, words, sizes);
}

static void on_up(void *context)
{
    struct watcher *self = context;
    const sentinel_settings *settings = &self->owner->settings;
    const char *password = settings->password != NULL ? settings->password : "";
    bool named = settings->user != NULL;
    const char *login[] = {"AUTH", named ? settings->user : password, password};
    const char *address[] = {"SENTINEL", "GET-MASTER-ADDR-BY-NAME", settings->url->service};
    const char *epoch[] = {"SENTINEL", "MASTER", settings->url->service};
    const char *subscribe[] = {"SUBSCRIBE", "+switch-master"};
    /* one after the other without a pause: no switch falls between answer and subscription */
    bool sent = (!(named || *password) || ask(self, ASKED_AUTH, named ? 3 : 2, login)) &&
                ask(self, ASKED_ADDRESS, 3, address) && ask(self, ASKED_EPOCH, 3, epoch) &&
                ask(self, ASKED_SUBSCRIBE, 2, subscribe);
    if (!sent)
        watcher_failed(self, "no memory for a request", false, false);
}

static void got_address(struct watcher *self, const reply *got)
{
    char port[8] = "", why[256];
    bool pair = got->kind == REPLY_ARRAY && got->count == 2 &&
                got->elements[0]->kind == REPLY_STRING && got->elements[1]->kind == REPLY_STRING &&
                got->elements[1]->size < sizeof port;
    if (pair) {
        memcpy(port, got->elements[1]->text, got->elements[1]->size);
        char *end;
        long number = strtol(port, &end, 10);
        self->addressed = *end == 0 && url_place_set(&self->master, got->elements[0]->text,
                                                     got->elements[0]->size, number);
    }
    if (!self->addressed) {
        snprintf(why, sizeof why,
                 got->kind == REPLY_NIL ? "it does not know the service %.128s"
                                        : "what it says of %.128s cannot be an address",
                 self->owner->settings.url->service);
        watcher_failed(self, why, false, false);
    }
}

/* The value after the name in a flat list of names and values. Without it (no permission, say):
 * 0, and the others' word is as good. */
static uint64_t epoch_of(const reply *got)
{
    if (got->kind != REPLY_ARRAY)
        return 0;
    for (size_t i = 0; i + 1 < got->count; i += 2)
        if (got->elements[i]->kind == REPLY_STRING &&
            reply_text_is(got->elements[i], "config-epoch") &&
            got->elements[i + 1]->kind == REPLY_STRING)
            return strtoull(got->elements[i + 1]->text, NULL, 10);
    return 0;
}

static void got_epoch(struct watcher *self, const reply *got)
{
    sentinel *owner = self->owner;
    self->epoch = epoch_of(got);
    self->answered = true;
    self->failed = false;
    self->pause_us = 0;
    if (owner->first_answer_us == 0)
        owner->first_answer_us = connection_now_us();
    if (!owner->decided)
        decide(owner);
    else if (self->epoch > owner->epoch && !url_place_same(&self->master, &owner->master))
        moved(self);
}

static void on_answer(void *context, const connection_tag *tag, const reply *got, int64_t sent_us)
{
    struct watcher *self = context;
    (void)sent_us;
    if (got->kind == REPLY_ERROR && tag->kind != ASKED_EPOCH) {
        bool refused = reply_error_is(got, "NOAUTH") || reply_error_is(got, "WRONGPASS") ||
                       reply_error_is(got, "NOPERM") || tag->kind == ASKED_AUTH;
        watcher_failed(self, got->said, refused, false);
        return;
    }
    switch ((enum asked)tag->kind) {
    case ASKED_ADDRESS:
        got_address(self, got);
        break;
    case ASKED_EPOCH:
        got_epoch(self, got);
        break;
    case ASKED_AUTH:
    case ASKED_SUBSCRIBE:
    case ASKED_PING:
        break;
    }
}

/* Take the word at *at, up to a space or the end, off the text. */
static size_t take_word(const char **at, const char *end, const char **word)
{
    const char *space = *at < end ? memchr(*at, ' ', (size_t)(end - *at)) : NULL;
    const char *stop = space != NULL ? space : end;
    *word = *at;
    *at = space != NULL ? space + 1 : end;
    return (size_t)(stop - *word);
}

/* "service old-host old-port new-host new-port" */
static void on_message(void *context, const char *text, size_t size)
{
    struct watcher *self = context;
    sentinel *owner = self->owner;
    const char *at = text, *end = text + size, *words[5];
    size_t sizes[5];
    char port[8] = "";
    url_place master;
    for (size_t i = 0; i < 5; i++)
        sizes[i] = take_word(&at, end, &words[i]);
    const char *service = owner->settings.url->service;
    if (sizes[0] != strlen(service) || memcmp(words[0], service, sizes[0]) != 0 ||
        sizes[4] >= sizeof port)
        return;
    memcpy(port, words[4], sizes[4]);
    if (!url_place_set(&master, words[3], sizes[3], strtol(port, NULL, 10)))
        return;
    self->master = master;
    if (owner->decided && !url_place_same(&master, &owner->master))
        moved(self);
}

static void on_idle(void *context)
{
    (void)context;
}

static void on_down(void *context, const char *why, bool timed_out, bool protocol)
{
    struct watcher *self = context;
    (void)protocol;
    watcher_failed(self, why, connection_refused(self->connection), timed_out);
}

static void watch(struct watcher *self)
{
    static const connection_callbacks callbacks = {on_up,   on_answer, on_message,
                                                   on_idle, on_down,   NULL};
    const sentinel_settings *settings = &self->owner->settings;
    connection_settings wanted = {.base = settings->base,
                                  .resolver = self->owner->names,
                                  .tls = settings->tls,
                                  .place = settings->url->places[self->index],
                                  .limits = settings->limits,
                                  .connect_timeout_ms = settings->connect_timeout_ms,
                                  .reply_timeout_ms = settings->reply_timeout_ms};
    self->connection = connection_open(&wanted, &callbacks, self);
    self->failed = self->connection == NULL;
    if (self->failed)
        self->retry_us = connection_now_us() + PAUSE_FIRST_US;
}

/* ---- All of them ------------------------------------------------------------------------------
 */

static void keep_up(struct watcher *self)
{
    static const char *const words[] = {"PING"};
    if (self->failed && connection_now_us() >= self->retry_us)
        watch(self);
    else if (self->answered && connection_waiting(self->connection) == 0 &&
             !ask(self, ASKED_PING, 1, words))
        watcher_failed(self, "no memory for a request", false, false);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    sentinel *self = context;
    (void)fd;
    (void)what;
    if (!self->decided) {
        set_timer(self, DECIDE_MS);
        decide(self);
        return;
    }
    set_timer(self, self->settings.ping_ms);
    for (size_t i = 0; i < self->count; i++)
        keep_up(&self->watchers[i]);
}

sentinel *sentinel_create(const sentinel_settings *settings, const sentinel_callbacks *callbacks,
                          void *context)
{
    sentinel *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    self->settings = *settings;
    self->callbacks = *callbacks;
    self->context = context;
    self->count = settings->url->place_count;
    self->timer = evtimer_new(settings->base, on_timer, self);
    if (self->timer == NULL)
        sentinel_destroy(&self);
    return self;
}

void sentinel_rest(sentinel *self)
{
    evtimer_del(self->timer);
    for (size_t i = 0; i < self->count; i++)
        connection_close(&self->watchers[i].connection);
    self->decided = true;
}

void sentinel_destroy(sentinel **self)
{
    if (self == NULL || *self == NULL)
        return;
    if ((*self)->timer != NULL) {
        sentinel_rest(*self);
        event_free((*self)->timer);
    }
    free(*self);
    *self = NULL;
}

void sentinel_find(sentinel *self, resolver *names)
{
    sentinel_rest(self);
    memset(self->watchers, 0, sizeof self->watchers);
    self->names = names;
    self->decided = false;
    self->first_answer_us = 0;
    snprintf(self->why, sizeof self->why, "no memory to ask the Sentinels");
    set_timer(self, DECIDE_MS);
    for (size_t i = 0; i < self->count; i++) {
        self->watchers[i].owner = self;
        self->watchers[i].index = i;
        watch(&self->watchers[i]);
    }
}
