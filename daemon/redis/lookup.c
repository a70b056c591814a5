/* lookup.c: see lookup.h. libevent's own connect by name tries the first address alone; and it
 * answers a cancelled request later, from the loop, looking at the resolver once more. So a
 * resolver lives until the last of its requests has been answered.
 */
#include "daemon/redis/lookup.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/dns.h>
#include <event2/util.h>

#include "daemon/redis/url.h"

struct resolver {
    struct event_base *base;
    struct evdns_base *dns;
    size_t under_way;
    bool closed;
};

struct lookup {
    resolver *resolver;
    struct evdns_getaddrinfo_request *request;
    lookup_done *done; /* NULL: cancelled */
    void *context;
};

/* ---- Resolvers --------------------------------------------------------------------------------
 */

static void set_number(struct evdns_base *dns, const char *option, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    (void)evdns_base_set_option(dns, option, text);
}

/* A server that is silent once is left alone for a while; the next one answers within the time. */
static void set_times(struct evdns_base *dns, int64_t timeout_ms)
{
    char seconds[32];
    int64_t each = timeout_ms / 5 < 100 ? 100 : timeout_ms / 5;
    snprintf(seconds, sizeof seconds, "%lld.%03lld", (long long)(each / 1000),
             (long long)(each % 1000));
    (void)evdns_base_set_option(dns, "timeout:", seconds);
    (void)evdns_base_set_option(dns, "getaddrinfo-allow-skew:", seconds);
    set_number(dns, "max-timeouts:", 1);
    set_number(dns, "attempts:", 3);
}

static resolver *create(struct event_base *base)
{
    resolver *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    self->base = base;
    self->dns = evdns_base_new(base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    if (self->dns == NULL) {
        free(self);
        return NULL;
    }
    return self;
}

resolver *resolver_create(struct event_base *base, int64_t timeout_ms)
{
    resolver *self = create(base);
    if (self == NULL)
        return NULL;
    /* without resolv.conf the hosts file still counts */
    if (evdns_base_resolv_conf_parse(self->dns, DNS_OPTIONS_ALL, "/etc/resolv.conf") != 0)
        (void)evdns_base_load_hosts(self->dns, "/etc/hosts");
    set_times(self->dns, timeout_ms);
    return self;
}

resolver *resolver_create_with(struct event_base *base, int64_t timeout_ms, const char *hosts,
                               const char *server)
{
    resolver *self = create(base);
    if (self == NULL)
        return NULL;
    if (hosts != NULL)
        (void)evdns_base_load_hosts(self->dns, hosts);
    if (server != NULL)
        (void)evdns_base_nameserver_ip_add(self->dns, server);
    set_times(self->dns, timeout_ms);
    return self;
}

static void release(evutil_socket_t fd, short what, void *context)
{
    resolver *self = context;
    (void)fd;
    (void)what;
    evdns_base_free(self->dns, 0);
    free(self);
}

void resolver_close(resolver **self)
{
    if (self == NULL || *self == NULL)
        return;
    resolver *closing = *self;
    *self = NULL;
    closing->closed = true;
    if (closing->under_way == 0)
        release(-1, 0, closing);
}

/* ---- Lookups ----------------------------------------------------------------------------------
 */

bool lookup_numeric(const char *host, uint16_t port, lookup_addresses *out)
{
    url_place place;
    char text[URL_PLACE_TEXT_MAX];
    memset(out, 0, sizeof *out);
    out->sizes[0] = (int)sizeof out->addresses[0];
    if (!url_place_set(&place, host, strlen(host), port))
        return false;
    url_place_text(&place, text);
    if (evutil_parse_sockaddr_port(text, (struct sockaddr *)&out->addresses[0], &out->sizes[0]) !=
        0)
        return false;
    out->count = 1;
    return true;
}

static void add(lookup_addresses *out, const struct evutil_addrinfo *from)
{
    if (out->count < LOOKUP_ADDRESSES_MAX && from->ai_addrlen <= sizeof out->addresses[0]) {
        memcpy(&out->addresses[out->count], from->ai_addr, from->ai_addrlen);
        out->sizes[out->count++] = (int)from->ai_addrlen;
    }
}

static const struct evutil_addrinfo *next_of(const struct evutil_addrinfo *at, bool ipv6)
{
    while (at != NULL && (at->ai_family == AF_INET6) != ipv6)
        at = at->ai_next;
    return at;
}

/* The families in turn, beginning with the first answer's. */
static void order(const struct evutil_addrinfo *list, lookup_addresses *out)
{
    bool ipv6 = list != NULL && list->ai_family == AF_INET6;
    const struct evutil_addrinfo *mine = next_of(list, ipv6), *other = next_of(list, !ipv6);
    memset(out, 0, sizeof *out);
    while (mine != NULL || other != NULL) {
        if (mine != NULL) {
            add(out, mine);
            mine = next_of(mine->ai_next, ipv6);
        }
        if (other != NULL) {
            add(out, other);
            other = next_of(other->ai_next, !ipv6);
        }
    }
}

static void on_answer(int error, struct evutil_addrinfo *list, void *context)
{
    lookup *self = context;
    resolver *from = self->resolver;
    if (self->done != NULL) {
        lookup_addresses found;
        order(list, &found);
        if (error == 0 && found.count == 0)
            error = EVUTIL_EAI_NONAME;
        self->done(self->context, &found, error != 0 ? evutil_gai_strerror(error) : NULL);
    }
    if (list != NULL)
        evutil_freeaddrinfo(list);
    free(self);
    if (--from->under_way == 0 && from->closed) {
        struct timeval now = {0, 0}; /* libevent is still inside it */
        if (event_base_once(from->base, -1, EV_TIMEOUT, release, from, &now) != 0)
            return; /* no memory: it is left to the end of the process */
    }
}

lookup *lookup_start(resolver *names, const char *host, uint16_t port, lookup_done *done,
                     void *context)
{
    static const lookup_addresses none;
    char service[8];
    struct evutil_addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_protocol = IPPROTO_TCP};
    lookup *self = names == NULL ? NULL : calloc(1, sizeof *self);
    if (self == NULL) {
        done(context, &none, names == NULL ? "there is no resolver" : "no memory");
        return NULL;
    }
    self->resolver = names;
    self->done = done;
    self->context = context;
    names->under_way++;
    snprintf(service, sizeof service, "%u", (unsigned)port);
    /* answered at once: self is gone, and there is no request */
    struct evdns_getaddrinfo_request *request =
        evdns_getaddrinfo(names->dns, host, service, &hints, on_answer, self);
    if (request == NULL)
        return NULL;
    self->request = request;
    return self;
}

void lookup_cancel(lookup **self)
{
    if (self == NULL || *self == NULL)
        return;
    lookup *cancelled = *self;
    *self = NULL;
    cancelled->done = NULL;
    evdns_getaddrinfo_cancel(cancelled->request);
}
