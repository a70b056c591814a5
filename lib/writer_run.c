/* writer_run.c: an operation on its way: done in place or in a transaction, others' requests taken
 * along, tried again with room made.
 */
#include "writer_internal.h"

#include "clock.h"
#include "evict.h"
#include "removal.h"
#include "room.h"
#include "wake.h"

enum {
    ROOM_WAITS = 4, /* of the handle, in all */
    ROOM_ROUNDS = 4,
    READER_PATIENCE_MS = 50
};

/* ---- Without a transaction --------------------------------------------------------------------
 */

/* Whether nothing has to come before the next write. */
static bool is_calm(const struct writer *writer)
{
    return atomic_load_explicit(&writer->control->recovery_due, memory_order_relaxed) == 0 &&
           !removal_any_pending(writer->control);
}

/* What others have posted meanwhile and can be done in the same way; the rest is left to its
 * posters. Should this process die, what it has noted an outcome of is done: hence the number. */
static void serve_quickly(struct writer *writer, writer_serve *serve)
{
    uint8_t bytes[COMBINE_BYTES];
    struct combine_request request;
    struct store *store = writer->transaction.store;
    uint64_t last = store_last_transaction(store);
    while (
        combine_take(writer->control, &writer->batch, store->generation, last, &request, bytes)) {
        writer_offer_fresh(writer);
        writer->fresh.size = 0;
        writer->change++;
        writer->request = writer->batch.taken[writer->batch.count - 1].slot + 1u;
        int outcome = serve(writer, &request);
        combine_note(writer->control, &writer->batch,
                     outcome == WRITER_NEEDS_TRANSACTION ? LARDER_EBUSY : outcome);
        overwrite_end(store->overwrites);
        writer_note_change(writer);
    }
}

int writer_try_quickly(struct writer *writer, struct quick *quick)
{
    if (quick->operation == NULL || !is_calm(writer)) {
        return LARDER_OK;
    }
    quick->outcome = quick->operation(writer, quick->context);
    if (quick->outcome == WRITER_NEEDS_TRANSACTION) {
        return LARDER_OK;
    }
    if (quick->outcome >= 0) {
        overwrite_end(writer->transaction.store->overwrites);
        writer_note_change(writer);
        if (combine_any(writer->control) && quick->serve != NULL) {
            serve_quickly(writer, quick->serve);
        }
    }
    writer_leave(writer, true);
    return WRITER_DONE_QUICKLY;
}

/* ---- Running ----------------------------------------------------------------------------------
 */

/* Take along what others have posted while this transaction went on: as much as has room. A failure
 * of one is the transaction's. */
static void serve_posted(struct writer *writer, writer_serve *serve)
{
    uint8_t bytes[COMBINE_BYTES];
    struct combine_request request;
    struct transaction *t = &writer->transaction;
    while (t->error == LARDER_OK && combine_any(writer->control) &&
           evict_ahead(writer, WRITER_PATH_PAGES / 4) &&
           combine_take(writer->control, &writer->batch, t->store->generation, t->number, &request,
                        bytes)) {
        combine_note(writer->control, &writer->batch, serve(writer, &request));
    }
}

struct run {
    writer_operation *operation;
    void *context;
    writer_serve *serve; /* NULL: nobody else's requests are taken along */
    struct posting posting;
    struct quick quick;
    uint64_t pages;
};

static int finish_quickly(struct writer *writer, const struct run *run)
{
    if (run->quick.outcome >= 0) {
        writer_offer_fresh(writer);
        if (atomic_load_explicit(&writer->control->replicates, memory_order_relaxed) != 0) {
            wake_daemon(writer->map);
        }
    }
    return run->quick.outcome;
}

/* One try: its outcome, or EFULL. */
static int run_once(const struct larder *handle, struct run *run)
{
    struct writer writer;
    int result =
        writer_enter(&writer, handle, handle->write_wait_ms, true, &run->posting, &run->quick);
    if (result == WRITER_DONE_QUICKLY) {
        return finish_quickly(&writer, run);
    }
    if (result == WRITER_CARRIED_OUT && run->posting.outcome == LARDER_EBUSY) {
        /* Refused by a holder that died after its commit. It needs a version that is drawn inside
         * the gate: ours. */
        run->posting.request = NULL;
        return run_once(handle, run);
    }
    if (result == WRITER_CARRIED_OUT) {
        stats_count(map_stats(handle->map), STATS_COMBINED);
        return run->posting.outcome;
    }
    if (result != LARDER_OK) {
        return result;
    }
    (void)evict_ahead(&writer, run->pages);
    result = run->operation(&writer, run->context);
    if (result < 0 || writer.transaction.error != LARDER_OK) {
        result = result < 0 ? result : writer.transaction.error;
        writer_abort(&writer);
        return result;
    }
    if (run->serve != NULL && combine_any(writer.control)) {
        serve_posted(&writer, run->serve);
    }
    bool alone = writer.batch.count == 0;
    int committed = writer.transaction.error;
    if (committed == LARDER_OK) {
        committed = writer_commit(&writer);
    } else {
        writer_abort(&writer);
    }
    if (committed != LARDER_OK && !alone) {
        run->serve = NULL; /* not for another's sake */
        return run_once(handle, run);
    }
    return committed == LARDER_OK ? result : committed;
}

static int run(const struct larder *handle, struct run *run)
{
    int patience = handle->write_wait_ms < READER_PATIENCE_MS ? (int)handle->write_wait_ms
                                                              : READER_PATIENCE_MS;
    int64_t started = 0;
    for (int round = 0; round < ROOM_ROUNDS;) {
        int result = run_once(handle, run);
        if (result != LARDER_EFULL) {
            return result;
        }
        int64_t now = clock_monotonic_ms();
        started = started == 0 ? now : started;
        int64_t until = started + ROOM_WAITS * handle->write_wait_ms;
        if (now > until) {
            break;
        }
        if (room_clear_readers(handle)) {
            continue; /* before anything that lives has to go for what they pinned */
        }
        int room = room_make(handle, run->pages, until);
        if (room == LARDER_EFULL && room_wait_for_reader(handle, &patience)) {
            continue;
        }
        if (room != LARDER_OK) {
            return room;
        }
        round++;
    }
    return room_refuse(handle);
}

int writer_run_plan(const struct larder *handle, const struct writer_plan *plan)
{
    /* a handle for entries that stay here would take others' along as such */
    bool local = (handle->flags & LARDER_LOCAL) != 0;
    struct run one = {.operation = plan->operation,
                      .context = plan->context,
                      .serve = local ? NULL : plan->serve,
                      .posting = {.request = plan->request},
                      .quick = {.operation = plan->quick,
                                .look = plan->look,
                                .serve = local ? NULL : plan->serve_quickly,
                                .context = plan->context},
                      .pages = record_chunks(plan->need) + WRITER_PATH_PAGES / 4};
    return run(handle, &one);
}

int writer_run(const struct larder *handle, size_t need, writer_operation *operation, void *context)
{
    struct writer_plan plan = {.operation = operation, .context = context, .need = need};
    return writer_run_plan(handle, &plan);
}
