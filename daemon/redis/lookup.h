/* lookup.h: from a host's name or address to the addresses to connect to, without blocking: numeric
 * ones at once, names by libevent's resolver (the hosts file, then the name servers of
 * resolv.conf; not the other sources of nsswitch.conf). connection.c is the only one that looks up.
 */
#ifndef LARDER_DAEMON_REDIS_LOOKUP_H
#define LARDER_DAEMON_REDIS_LOOKUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <event2/event.h>

#define LOOKUP_ADDRESSES_MAX 16u

typedef struct lookup_addresses {
    struct sockaddr_storage addresses[LOOKUP_ADDRESSES_MAX];
    int sizes[LOOKUP_ADDRESSES_MAX];
    size_t count;
} lookup_addresses;

typedef struct resolver resolver;

/* Reads resolv.conf and the hosts file. A name server is given up for the next one in a part of
 * timeout_ms. NULL: no memory. */
resolver *resolver_create(struct event_base *base, int64_t timeout_ms);

/* For tests: one that knows this hosts file and this name server ("127.0.0.1:5353") alone; NULL:
 * none of that kind. */
resolver *resolver_create_with(struct event_base *base, int64_t timeout_ms, const char *hosts,
                               const char *server);

/* NULL-safe, sets NULL. Lookups that are under way must have been cancelled. */
void resolver_close(resolver **self);

typedef struct lookup lookup;

/* why: NULL, or a sentence; there is at least one address otherwise. They are ordered: the families
 * take turns, so that one that does not work costs one attempt. */
typedef void lookup_done(void *context, const lookup_addresses *addresses, const char *why);

/* Is the host a numeric address? Then it is put into out. */
bool lookup_numeric(const char *host, uint16_t port, lookup_addresses *out);

/* Look the name up; done is called once, perhaps before this returns, which is NULL then. */
lookup *lookup_start(resolver *names, const char *host, uint16_t port, lookup_done *done,
                     void *context);
/* done is not called any more. NULL-safe, sets NULL. */
void lookup_cancel(lookup **self);

#endif
