/* coalesce.c: which requests one answer of the origin is for. Whoever misses first has the key's
 * lease and asks; the others wait, on the map's descriptor. RFC 9111, 4 allows that for what may be
 * reused alone: where an answer turns out to be its own client's only, a mark beside the key says
 * so to all workers for a while, and whoever sees it asks by himself, at once. The mark goes with
 * the first answer that is stored. Requests with and without credentials have marks of their own:
 * what says nothing to a user may well be everybody else's.
 */
#include <string.h>

#include "examples/exchange.h"
#include "examples/fields.h"

enum {
    WAIT_MS = 10000,      /* for others' fills; then the origin is asked all the same */
    RETRY_MS = 20,        /* between two looks where no descriptor tells */
    FILLS_WAITED_FOR = 2, /* that came to nothing: as larder_fetch() has it */
    MARK_MS = 60000       /* that nobody waits after an answer that was not for the cache */
};

/* ---- Waiting for another's fill
 * ------------------------------------------------------------------------ */

static void wait_end(exchange *self)
{
    if (!self->waits)
        return;
    if (self->previous != NULL)
        self->previous->next = self->next;
    else
        self->proxy->waiting = self->next;
    if (self->next != NULL)
        self->next->previous = self->previous;
    self->waits = false;
    self->next = self->previous = NULL;
}

static void on_retry(evutil_socket_t descriptor, short what, void *context)
{
    exchange *self = context;
    (void)descriptor;
    (void)what;
    exchange_hold(self);
    wait_end(self);
    int ended = larder_lease_wait(self->proxy->settings.cache, &self->others, 0);
    if (ended != LARDER_WAIT)
        self->fills_waited_for += ended == LARDER_SKIP ? FILLS_WAITED_FOR : 1;
    exchange_look_up(self);
    exchange_settle(self);
}

/* Somebody's fill has ended: whose, each finds out for itself. */
void coalesce_notified(evutil_socket_t descriptor, short what, void *context)
{
    proxy *self = context;
    (void)descriptor;
    (void)what;
    larder_notify_clear(self->settings.cache);
    for (exchange *each = self->waiting; each != NULL; each = each->next)
        event_active(each->retry, EV_TIMEOUT, 0);
}

/* false: for too long already. */
static bool wait_begin(exchange *self)
{
    static const struct timeval pause = {.tv_usec = RETRY_MS * 1000};
    int64_t now = exchange_now_ms();
    if (self->wait_until_ms == 0)
        self->wait_until_ms = now + WAIT_MS;
    if (self->retry == NULL)
        self->retry = evtimer_new(self->proxy->base, on_retry, self);
    if (now >= self->wait_until_ms || self->retry == NULL || evtimer_add(self->retry, &pause) != 0)
        return false;
    self->waits = true;
    self->next = self->proxy->waiting;
    if (self->next != NULL)
        self->next->previous = self;
    self->proxy->waiting = self;
    return true;
}

/* ---- The mark
 * ------------------------------------------------------------------------------------------ */

static bool has_credentials(const exchange *self)
{
    for (size_t i = 0; i < self->request.header_count; i++) {
        if (fields_named(&self->request.headers[i], "Authorization") ||
            fields_named(&self->request.headers[i], "Cookie"))
            return true;
    }
    return false;
}

/* Beside the page's key, which is a URI without a fragment; variants' have a number there. Empty:
 * there is no memory for it, and so no mark. */
static larder_bytes mark_key(exchange *self)
{
    larder_bytes behind = has_credentials(self) ? (larder_bytes){"#unshared#users", 15}
                                                : (larder_bytes){"#unshared", 9};
    char *text = exchange_take(self, self->key.size + behind.size);
    if (text == NULL)
        return (larder_bytes){NULL, 0};
    memcpy(text, self->key.data, self->key.size);
    memcpy(text + self->key.size, behind.data, behind.size);
    return (larder_bytes){text, self->key.size + behind.size};
}

static bool is_marked(exchange *self)
{
    const larder_read read = {.flags = LARDER_PEEK};
    larder_info info;
    size_t used = self->arena.used;
    larder_bytes key = mark_key(self);
    int found = key.size == 0 ? LARDER_MISS
                              : larder_get_with(self->proxy->settings.cache, key.data, key.size,
                                                NULL, 0, &info, &read);
    self->arena.used = used;
    self->marked_until_ms = found == LARDER_ABSENT ? info.expires_ms : 0;
    return self->marked_until_ms != 0;
}

static void mark(exchange *self)
{
    const larder_policy policy = {.flags = LARDER_NEGATIVE | LARDER_LOCAL,
                                  .expiry = larder_expire_in(MARK_MS)};
    if (self->marked_until_ms - exchange_now_ms() > MARK_MS / 2)
        return; /* not one write a request */
    larder_bytes key = mark_key(self);
    if (key.size > 0)
        larder_set(self->proxy->settings.cache, key.data, key.size, NULL, 0, &policy);
}

/* See exchange.h. */
void coalesce_shared(exchange *self)
{
    if (self->marked_until_ms == 0)
        return;
    larder_bytes key = mark_key(self);
    if (key.size > 0)
        larder_delete(self->proxy->settings.cache, key.data, key.size);
}

/* ---- The lease
 * ----------------------------------------------------------------------------------------- */

void exchange_release_lease(exchange *self, int why)
{
    if (self->lease_key.size > 0)
        larder_lease_abandon(self->proxy->settings.cache, &self->lease, why);
    self->lease_key = (larder_bytes){NULL, 0};
}

/* See exchange.h. The mark comes first, so that whoever wakes up sees it. */
void coalesce_unshared(exchange *self)
{
    if (self->lease_key.size == 0 || self->method == EVHTTP_REQ_HEAD)
        return;
    mark(self);
    /* what is a user's own may be shared by all others, who wait for the next of them */
    exchange_release_lease(self, has_credentials(self) ? 0 : LARDER_SKIP);
}

/* See exchange.h. A lease is given up here, and kept in mind: what comes is stored as of when it
 * was given (larder_lease_fill()), so that it brings back nothing that was taken away since. Who
 * has had none stores nothing. */
bool coalesce_wait(exchange *self, int outcome)
{
    bool leased = outcome == LARDER_FILL || outcome == LARDER_REFRESH;
    if (!leased && outcome != LARDER_WAIT && outcome != LARDER_STALE)
        return false;
    bool alone = is_marked(self) || self->decision.reason == LARDER_HTTP_WHY_CREDENTIALS;
    if (leased) { /* the answer to HEAD fills nothing; to a user whom the page is not for, hardly */
        if (alone || self->method == EVHTTP_REQ_HEAD)
            larder_lease_abandon(self->proxy->settings.cache, &self->lease, 0);
        return false;
    }
    exchange_release_lease(self, 0); /* of the key, where a variant's is waited for */
    alone = alone || self->fills_waited_for >= FILLS_WAITED_FOR ||
            self->decision.reason == LARDER_HTTP_WHY_NO_CACHE; /* the client wants one of its own */
    if (!alone && wait_begin(self))
        return true;
    self->unversioned = true;
    return false;
}
