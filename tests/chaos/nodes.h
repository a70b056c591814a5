/* nodes.h: the servers of the chaos test as a Redis Cluster: put together, looked at as each of its
 * nodes sees it, its slots moved while keys in them are written, and what a broken move left open
 * mended. Used by servers.c and faults.c.
 */
#ifndef LARDER_TESTS_CHAOS_NODES_H
#define LARDER_TESTS_CHAOS_NODES_H

#include "tests/chaos/chaos.h"
#include "tests/chaos/servers.h"

/* Further words for redis-server, up to a NULL. */
extern const char *const nodes_settings[];

/* The servers run and know nothing of each other: the first half become masters. */
void nodes_join(struct redis_side *side);
/* All say the same of every slot, none of them is open, and it is in side->owner; replicas have
 * caught up. */
bool nodes_whole(struct redis_side *side);
/* Who serves the slot, as the first node that answers sees it; -1: nobody does. */
int nodes_server(const struct redis_side *side, uint16_t slot);
/* A move that was left open is finished; where its old owner knows nothing of it any more, the keys
 * go back to who serves the slot now: what that one has already, counts. views_too: nodes are also
 * told who serves a slot that they see elsewhere, which gossip should do first. Gives up where a
 * node does not answer; call it again. */
void nodes_mend(struct redis_side *side, bool views_too);

/* ---- Moving slots ------------------------------------------------------------------------------
 */

/* Open some slots of one master towards another: false if there are no two of them. The keys go by
 * and by, with nodes_move_step(). */
bool nodes_move_begin(struct redis_side *side, test_random *random);
/* A few keys of one slot; a slot without keys changes hands. false: all is done, or it cannot go
 * on, and slots may be left open. */
bool nodes_move_step(struct redis_side *side, test_random *random);
/* How many slots have changed hands since the beginning. */
uint64_t nodes_moved(void);
/* Whether that one was ever opened, however it ended. */
bool nodes_began_to_move(uint16_t slot);

#endif
