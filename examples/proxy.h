/* proxy.h: a caching reverse proxy inside a worker of the example server (server --upstream URL):
 * larder_http.h's gateway policy over libevent's HTTP. What is cached is the map's, so all workers
 * share it; a cold page costs the origin one request, whichever workers are asked for it.
 */
#ifndef LARDER_EXAMPLES_PROXY_H
#define LARDER_EXAMPLES_PROXY_H

#include <event2/event.h>
#include <event2/http.h>
#include <stdint.h>

#include "larder.h"

#define PROXY_BODY_MAX (1u << 20) /* bytes of a body that is cached; larger ones are passed on */

typedef struct proxy_settings {
    const char *address; /* of the origin: an IP address */
    uint16_t port;
    int64_t timeout_ms; /* that its answer may take */
    larder *cache;
    unsigned number;              /* the worker's: the X-Worker header */
    void (*begun)(void *context); /* a request has come */
    void (*ended)(void *context); /* ... and is done with, its renewal included */
    void *context;
} proxy_settings;

typedef struct proxy proxy;

/* NULL: no memory, or the map gives no descriptor to wait with. */
proxy *proxy_new(struct event_base *base, const proxy_settings *settings);
void proxy_free(proxy **self); /* no request may be under way but in a process that ends */

/* Callbacks of evhttp_set_bevcb() and evhttp_set_gencb() with the proxy as their argument. */
struct bufferevent *proxy_stream(struct event_base *base, void *context);
void proxy_request(struct evhttp_request *request, void *context);

#endif
