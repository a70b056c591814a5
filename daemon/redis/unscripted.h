/* unscripted.h: does what the scripts of script.h do on a server that refuses them, with WATCH,
 * MULTI and EXEC: the comparison is made here, and stands if nobody wrote the record meanwhile.
 * Calls go in as the words of an EVALSHA and come out as its reply, so that link_push.c does
 * not know the difference. Two round trips for every few calls instead of one for all: slower.
 *
 * What a script does at once is in one respect done in two steps: the channel is told after the
 * stream has the event. Whoever dies in between leaves a gap, which the others close at the next
 * heartbeat. And where the stream turns out to be gone, record and value are written already: the
 * machine joins and pushes the row once more.
 */
#ifndef LARDER_DAEMON_REDIS_UNSCRIPTED_H
#define LARDER_DAEMON_REDIS_UNSCRIPTED_H

#include "daemon/redis/connection.h"
#include "daemon/redis/script.h"

typedef struct unscripted_callbacks {
    /* Send a command on the connection that these calls have for their own as to WATCH; its reply,
     * in order, goes to unscripted_got() with what. */
    bool (*send)(void *context, uint32_t what, int count, const char *const *words,
                 const size_t *sizes);
    void (*answer)(void *context, const connection_tag *tag, const reply *got, int64_t sent_us);
    /* A command could not be sent, or was answered by a reply of another kind than it has: the
     * session is of no more use. */
    void (*unsent)(void *context);
    void (*out_of_step)(void *context);
} unscripted_callbacks;

typedef struct unscripted unscripted;

unscripted *unscripted_create(const unscripted_callbacks *callbacks, void *context);
void unscripted_destroy(unscripted **self); /* NULL-safe, sets NULL */

/* The session is over: forget all calls. */
void unscripted_reset(unscripted *self);

/* The words from the number of keys on; they are copied. false: no memory, or it could not be
 * sent. Answered later, in the order of the calls. */
bool unscripted_call(unscripted *self, const connection_tag *tag, enum script_id script, int count,
                     const char *const *words, const size_t *sizes);

void unscripted_got(unscripted *self, uint32_t what, const reply *got);

#endif
