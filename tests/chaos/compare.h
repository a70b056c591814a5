/* compare.h: whether the hosts of the chaos test and Redis agree, looked at when nothing is written
 * any more: for every key one version wherever it is present, its value everywhere; nothing older
 * than the newest that anybody knows, deletions included; nothing that an invalidation of many has
 * hit; of the owned keys nothing but what their writer did last; each such invalidation known
 * everywhere; nothing waits in an outbox.
 *
 * What such an invalidation has hit may stand in Redis for a while, or for ever where no host
 * holds it: no larder reads it there, and hidden_stay_hidden() sees that none does.
 *
 * In a cluster a value may stand in Redis without its record, where no host knows of the key: a
 * slot was half moved, the record to a node that lost it. With the record went the version and the
 * marks that the value bore. It is what another program's value would be, also to who reads it:
 * nothing can be asked of it but that its writer wrote it last.
 *
 * For the same reason a value may stand beside the record of its deletion, in a slot that was
 * moved: a MIGRATE that gets no answer leaves the key with both nodes, the deletion reaches one of
 * them, and its record follows to the other. Hosts must agree on the deletion.
 */
#ifndef LARDER_TESTS_CHAOS_COMPARE_H
#define LARDER_TESTS_CHAOS_COMPARE_H

#include <stdio.h>

#include "tests/chaos/chaos.h"
#include "tests/chaos/servers.h"

struct differences {
    uint64_t total;
    uint64_t dirty;    /* rows that still wait, and hosts without a connection */
    uint64_t versions; /* present under another version, or where the newest is a deletion */
    uint64_t values;   /* another value under the newest version */
    uint64_t in_redis; /* Redis's value or record is not the newest, or they do not fit */
    uint64_t deeds;    /* an owned key is not what its writer did last */
    uint64_t marks;    /* invalidated, and there */
    uint64_t unheard;  /* invalidations of many that are not known everywhere (heard.h) */
    uint64_t hidden;   /* no difference: invalidated, and still in Redis alone */
    uint64_t bare;     /* no difference: in Redis alone, its record lost (of a cluster) */
    uint64_t beside;   /* no difference: a deletion's record has a value in a slot that was moved */
    uint64_t present[HOSTS + 1],
        deleted; /* keys: on each host and in Redis; whose newest is that */
    FILE *told;  /* where each of them is told; NULL: nowhere */
};

/* Look once. Redis must answer. */
void compare(struct host *hosts, struct redis_side *side, const struct board *board, FILE *told,
             struct differences *out);
/* Whether any of them knew of the key when they were looked at last. */
bool compare_knows(uint32_t key);
/* Whether the newest that is known of it is a deletion, and Redis has its record in a slot that was
 * never moved. */
bool compare_knows_deleted(uint32_t key);
/* After a comparison without differences: each host asks Redis for what is hidden there, and must
 * find it to be missing. answered: how often it was told so by its larderd. What is found is
 * explained in hidden.log of the test's directory. */
void hidden_stay_hidden(struct host *hosts, const struct redis_side *side,
                        const struct board *board, uint64_t *answered);

#endif
