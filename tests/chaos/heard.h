/* heard.h: which invalidations of many are known where: the tables of a host's map and the fleet's
 * set in Redis, by the names that doc/protocol.md gives them, and whether all that were made have
 * come everywhere. Keys alone do not show that: a host that lacks one may happen to hold nothing of
 * what it means, and would then take from Redis what it has hit.
 */
#ifndef LARDER_TESTS_CHAOS_HEARD_H
#define LARDER_TESTS_CHAOS_HEARD_H

#include <stdio.h>

#include "tests/chaos/chaos.h"
#include "tests/chaos/servers.h"

enum { HEARD_MAX = 16384 }; /* a map has 4,096 buckets, and not so many others in this test */

struct heard {
    struct heard_mark {
        char name[MANY_NAME];
        uint64_t clock;
    } marks[HEARD_MAX];
    size_t count;
};

/* What is known there. false: one of its tables is held, or the server does not have the set. */
bool heard_by_host(struct host *host, struct heard *out);
bool heard_by_redis(const struct redis_side *side, struct heard *out);
/* 0: it is not known. */
uint64_t heard_clock(const struct heard *heard, const char *name);

/* How many names of the invalidations on the board are not known there up to what was seen before
 * they were made, not by what stands for several either. place: for what is told (NULL: nothing).
 */
uint64_t heard_lacks(const struct heard *heard, const struct board *board, const char *place,
                     FILE *told);

#endif
