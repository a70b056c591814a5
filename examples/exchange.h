/* exchange.h: one request on its way through the proxy, and what the parts of the proxy do with it:
 * proxy.c decides, origin.c asks the origin, client.c answers. An exchange lives until its client
 * has been answered (or has left) and its origin is done. libevent may call back from within the
 * calls that are made to it: what works on an exchange holds it until it has finished.
 */
#ifndef LARDER_EXAMPLES_EXCHANGE_H
#define LARDER_EXAMPLES_EXCHANGE_H

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <stdbool.h>
#include <stddef.h>

#include "examples/chunks.h"
#include "examples/proxy.h"
#include "larder_http.h"

enum {
    EXCHANGE_MEMORY = 192 * 1024, /* bytes for the request and for all decisions about it */
    ORIGIN_HEAD_MAX = 32 * 1024,  /* bytes of an answer's header section */
    LEASE_MORE_MS = 5000,         /* that a lease is held for beyond what the origin may take */
    CLIENT_BEHIND_MAX =
        1 << 20 /* bytes that a client may be behind before its origin has to wait */
};

typedef struct exchange exchange;

struct proxy {
    struct event_base *base;
    proxy_settings settings;
    larder_http_policy policy;
    struct event *notified;
    exchange *waiting;               /* for another's fill */
    struct evhttp_connection *spent; /* one to the origin that has ended: for proxy_sweep() */
    struct event *sweep;
    struct chunks_stream *streams; /* the clients' */
};

struct exchange {
    proxy *proxy;
    unsigned holds;            /* > 0: somebody works on it */
    exchange *next, *previous; /* in proxy->waiting */
    bool waits;
    struct event *retry; /* while it waits */
    int64_t wait_until_ms;
    larder_lease others;       /* what it waits for */
    unsigned fills_waited_for; /* that brought nothing for it */
    int64_t marked_until_ms;   /* so long the key is marked as not to be waited for; 0: it is not */
    bool unversioned;          /* asked without ever having had a lease: not stored */

    larder_http_arena arena;
    larder_http_request request;
    enum evhttp_cmd_type method;
    int kind; /* LARDER_HTTP_LOOKUP, ... */
    larder_bytes key;

    /* what was found */
    void *primary_value, *variant_value;
    larder_http_stored primary, variant;
    const larder_http_stored *found, *page; /* at the key; for this request. NULL: nothing */
    larder_http_decision decision;
    larder_lease lease;
    larder_bytes lease_key; /* size 0: none is held */

    /* the client */
    struct evhttp_request *client; /* NULL: answered, or gone */
    bool answering;                /* until the last byte has left */
    bool streaming;                /* the body is passed on as it comes */

    /* the origin */
    struct evhttp_connection *connection;
    struct evhttp_request *asked;                                 /* NULL: not being asked */
    enum { INTERIM_NONE, INTERIM_MAYBE, INTERIM_WITHIN } interim; /* the next line may begin one */
    size_t interim_size;  /* bytes of those that have come */
    struct chunks chunks; /* of its answer */
    struct evbuffer *body;
    struct event *deadline; /* until its answer is whole, or begins to be passed on */
    bool too_large;         /* for an entry: nothing of it is stored */
    int64_t asked_ms;
    int error;          /* 502: what it sent is no answer; 504: too late; 0: none */
    bool unconditional; /* do not revalidate */
};

int64_t exchange_now_ms(void); /* wall clock */

/* Memory that lives as long as the exchange; NULL: there is none left. */
void *exchange_take(exchange *self, size_t size);

/* Around whatever works on it: it stays until the last hold is let go of, which ends it if nothing
 * is left to do for it. */
void exchange_hold(exchange *self);
void exchange_settle(exchange *self);

/* What an unsafe method's answer makes old. */
void exchange_invalidate(exchange *self, const larder_http_response *response);

/* Free the connection to the origin that has ended, if there is one. */
void proxy_sweep(proxy *self);

/* Look again, after having waited. */
void exchange_look_up(exchange *self);

/* ---- coalesce.c ---- */

/* Give up the lease, if one is held; why: see larder_lease_abandon(). */
void exchange_release_lease(exchange *self, int why);

/* The cache does not have it, and outcome is the key's, of larder_lease_acquire(). true: another
 * asks, and this one waits for that: exchange_look_up() follows. false: ask the origin. */
bool coalesce_wait(exchange *self, int outcome);

/* What has come is not for the cache: all who wait ask for themselves, and for a while nobody waits
 * for this key. */
void coalesce_unshared(exchange *self);
/* It is, after all. */
void coalesce_shared(exchange *self);

/* For the event on the map's descriptor; context is the proxy. */
void coalesce_notified(evutil_socket_t descriptor, short what, void *context);

/* ---- incoming.c ---- */

/* Copy the client's request into self->request. 0, or the status that it is to be refused with. */
int incoming_read(exchange *self, const char **why);
bool incoming_goes_on(exchange *self);

/* ---- origin.c ---- */

/* Ask the origin; exchange_answered() or exchange_failed() follows, or client_stream_*() for what
 * is larger than the cache takes. */
void origin_ask(exchange *self);
void origin_cancel(exchange *self);
void origin_pause(exchange *self, bool pause);

void exchange_answered(exchange *self, const larder_http_response *response);
void exchange_failed(exchange *self, int status, const char *why);

/* ---- client.c ---- */

/* Send an answer of larder_http_answer()'s. */
void client_answer(exchange *self, const larder_http_response *answer);
void client_error(exchange *self, int status, const char *text);
/* The same, and the connection ends with it: what may follow is no request. */
void client_refuse(exchange *self, int status, const char *text);

/* The same piece by piece. */
void client_stream_begin(exchange *self, const larder_http_response *answer);
void client_stream(exchange *self, struct evbuffer *piece);
void client_stream_end(exchange *self, bool whole);

#endif
