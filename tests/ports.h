/* ports.h: TCP ports for the servers of tests and benchmarks. */
#ifndef LARDER_TESTS_PORTS_H
#define LARDER_TESTS_PORTS_H

#include <stdbool.h>

/* A port of the loopback, as text, that nobody has now and that nobody gets by chance before the
 * caller's server binds it: it lies below the range that the kernel takes the ports of outgoing
 * connections from (ip_local_port_range in ip(7)), and no other process that asks here is given it
 * while the caller lives. A child that is not exec'd shares the claim. False: none is to be had. */
bool port_claim(char out[8]);

#endif
