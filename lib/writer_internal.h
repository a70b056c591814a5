/* writer_internal.h: what writer.c and writer_run.c share: a write that others may carry out, or
 * that may do without a transaction, on its way through the gate.
 */
#ifndef LARDER_LIB_WRITER_INTERNAL_H
#define LARDER_LIB_WRITER_INTERNAL_H

#include "writer.h"

/* Results of writer_enter() that are no outcome of a write. */
enum {
    WRITER_CARRIED_OUT = 1 << 20, /* by another process */
    WRITER_DONE_QUICKLY           /* without a transaction */
};

/* A request that may be left to whoever holds the gate. */
struct posting {
    struct combine_request *request; /* NULL: there is none */
    struct combine_slot *slot;       /* NULL: not posted */
    int outcome;
};

/* A write that may do without a transaction. */
struct quick {
    writer_quick *operation; /* NULL: it may not */
    writer_look *look;
    writer_serve *serve; /* for others' requests */
    void *context;
    int outcome;
};

/* Into the gate and a transaction. LARDER_OK, an error, or one of the two above. pending_first:
 * invalidations that were refused before are made durable. */
int writer_enter(struct writer *writer, const struct larder *handle, int64_t wait_ms,
                 bool pending_first, struct posting *posting, struct quick *quick);
/* Out of the gate, and whose requests were taken along learn what came of them. */
void writer_leave(struct writer *writer, bool committed);
/* What is being read stays in the hot set: outside the gate, and only where nothing else has to go
 * for it. A later writer of the key has raised the page's `newest` if it was faster. */
void writer_offer_fresh(const struct writer *writer);
/* Inside the gate: try to do without a transaction. LARDER_OK: no, and the gate is still held. */
int writer_try_quickly(struct writer *writer, struct quick *quick);

/* What follows is the next change; see hotset.h. Before the gate is left. */
static inline void writer_note_change(const struct writer *writer)
{
    /* release: who sees the number sees the change; pairs with store_read_begin() */
    atomic_store_explicit(&writer->transaction.store->life->changes, writer->change,
                          memory_order_release);
}

#endif
