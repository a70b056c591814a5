/* ports.c: see ports.h. A port is claimed by an abstract unix socket that is named after it: its
 * names belong to the network namespace, as ports do, and go with the process. The servers of
 * bench/http claim theirs in the same way (bench/http/servers.py).
 */
#include "tests/ports.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FIRST = 10240, LAST = 19999 }; /* tests/apache takes its own from 20000 on */

/* A socket bound to that address, or -1. */
static int bound(int family, const void *address, socklen_t size)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && bind(fd, address, size) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static bool claim(unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int length = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "larder-port-%u", port);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
    int held = bound(AF_UNIX, &name, size); /* never closed: it is the claim */
    if (held < 0)
        return false;
    int probe = bound(AF_INET, &address, sizeof address);
    if (probe < 0) {
        (void)close(held);
        return false;
    }
    (void)close(probe);
    return true;
}

bool port_claim(char out[8])
{
    const unsigned count = LAST - FIRST + 1;
    unsigned start = 0;
    if (getrandom(&start, sizeof start, 0) != (ssize_t)sizeof start)
        return false;
    for (unsigned i = 0; i < count; i++) {
        unsigned port = FIRST + (start % count + i) % count;
        if (claim(port)) {
            (void)snprintf(out, 8, "%u", port);
            return true;
        }
    }
    return false;
}
