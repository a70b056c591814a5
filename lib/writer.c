/* writer.c: entering the write gate, beginning, committing, leaving. What is done inside, and again
 * with room made: writer_run.c.
 */
#include "writer_internal.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "error.h"
#include "evict.h"
#include "follow.h"
#include "registry.h"
#include "removal.h"
#include "room.h"
#include "wake.h"

enum { GENERATION_TRIES = 3, PATIENCE_NS = 1500 /* half a commit */ };

/* ---- Begin and end ----------------------------------------------------------------------------
 */

static void leave(struct writer *writer)
{
    gate_leave(&writer->control->write_gate);
    (void)pthread_setcancelstate(writer->cancelled, NULL);
}

void writer_leave(struct writer *writer, bool committed)
{
    if (__builtin_expect(writer->batch.count > 0, 0)) {
        combine_finish(writer->control, &writer->batch, committed);
    }
    leave(writer);
    if (__builtin_expect(writer->batch.count > 0, 0)) {
        combine_wake(writer->control, &writer->batch);
    }
}

/* This thread's last write was carried out by another process: then that one is at it, has the
 * pages in its processor's cache, and will most likely carry out the next one, too. So the gate is
 * left to it unless it stays away. 0.30 -> 0.43 M sets/s of two processes (bench_writers). */
static __thread bool carried __attribute__((tls_model("initial-exec")));

/* Into the gate, or have it done by whoever is there. */
static enum combine_verdict enter_or_post(struct control *control, struct posting *posting,
                                          int64_t wait_ms, enum gate_result *entered)
{
    struct gate *gate = &control->write_gate;
    posting->slot = NULL;
    if (posting->request != NULL && wait_ms > 0) {
        *entered = carried ? GATE_BUSY : gate_try(gate);
        if (__builtin_expect(*entered >= 0, 1)) {
            return COMBINE_HELD;
        }
        if (*entered == GATE_BUSY && !gate_is_own(gate)) {
            int64_t until_ns = clock_monotonic_ns() + wait_ms * 1000000;
            posting->request->version = clock_next(control);
            posting->slot = combine_post(control, posting->request);
            if (posting->slot != NULL) {
                enum combine_verdict verdict =
                    combine_wait(control, &posting->slot, until_ns, carried ? PATIENCE_NS : 0,
                                 entered, &posting->outcome);
                carried = verdict == COMBINE_CARRIED_OUT;
                return verdict;
            }
        }
    }
    *entered = gate_enter(gate, wait_ms);
    return *entered >= 0 ? COMBINE_HELD : COMBINE_NOT;
}

static int enter_gate(struct writer *writer, int64_t wait_ms, struct posting *posting)
{
    enum gate_result entered;
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &writer->cancelled);
    enum combine_verdict verdict = enter_or_post(writer->control, posting, wait_ms, &entered);
    if (verdict == COMBINE_HELD) {
        if (__builtin_expect(entered == GATE_RECOVERED, 0)) {
            stats_count(map_stats(writer->map), STATS_GATE_RECOVERIES);
            atomic_store(&writer->control->recovery_due, 1);
        } else if (posting->slot != NULL) {
            struct combine_slot *slot = posting->slot;
            posting->slot = NULL;
            if (!combine_withdraw(writer->control, slot, &posting->outcome)) {
                leave(writer);
                return WRITER_CARRIED_OUT;
            }
        }
        return LARDER_OK;
    }
    (void)pthread_setcancelstate(writer->cancelled, NULL);
    if (verdict == COMBINE_CARRIED_OUT) {
        return WRITER_CARRIED_OUT;
    }
    switch (entered) {
    case GATE_BUSY:
        return error_set(LARDER_EBUSY,
                         "the write gate was held by another process for %" PRId64 " ms", wait_ms);
    case GATE_OWN:
        return error_set(LARDER_EBUSY, "this thread is inside a write already: a signal handler?");
    default:
        map_damaged(writer->map);
        return error_set(LARDER_ECORRUPT, "the write gate is damaged");
    }
}

static int apply_one_pending(struct writer *writer, const struct removal_pending *pending)
{
    struct key key;
    struct record record;
    int result = key_make(&key, pending->key, pending->key_size);
    if (result == LARDER_OK) {
        result = entry_find(&writer->transaction, &key, &record);
    }
    if (pending->version.node == REMOVAL_LEAVES_NOTHING) {
        bool goes = result == LARDER_OK && record.header.kind != RECORD_DELETED &&
                    (record.header.flags & RECORD_DIRTY) == 0 &&
                    record.header.clock <= pending->version.clock;
        record.acked_ms = 0; /* nor an invalidation, however lately Redis took it */
        return goes ? entry_drop(writer, &key, &record) : result;
    }
    if (result == LARDER_MISS) {
        return entry_delete(writer, &key, NULL, pending->version);
    }
    if (result != LARDER_OK) {
        return result;
    }
    int order = clock_compare(record_version(&record, writer->control->home), pending->version);
    bool dies = order < 0 || (order == 0 && record.header.kind != RECORD_DELETED);
    return dies ? entry_delete(writer, &key, &record, pending->version) : LARDER_OK;
}

/* Make invalidations durable that were refused before. They were promised: so they come first. */
static int apply_pending(struct writer *writer)
{
    struct removal_pending pending;
    size_t index = 0;
    writer->cause = LARDER_CAUSE_KEY;
    while (writer->applied_count < WRITER_PENDING_MAX &&
           removal_next_pending(writer->control, &index, &pending)) {
        int result = apply_one_pending(writer, &pending);
        if (result < 0) {
            return result;
        }
        writer->applied[writer->applied_count++] = (uint16_t)pending.index;
    }
    writer->cause = LARDER_CAUSE_NONE;
    return LARDER_OK;
}

/* The first write after a writer died: LMDB repairs its mutex and looks through the reader table,
 * for which it takes the reader mutex. That one has no deadline, so it is entered through its gate.
 */
static int begin_recovering(struct writer *writer, struct store *store, int64_t wait_ms)
{
    struct gate *gate = &writer->control->reader_gate;
    if (gate_enter(gate, wait_ms) < 0) {
        return error_set(LARDER_EBUSY, "a writer died, and the reader table is locked");
    }
    int result = store_undo_unpublished(store);
    if (result == LARDER_OK) {
        result = store_write_begin(store, &writer->transaction);
    }
    gate_leave(gate);
    if (result == LARDER_OK) {
        /* what it had to tell is true if it came to commit */
        events_recover(&writer->control->events, store->generation, writer->transaction.number - 1);
        combine_settle(writer->control, store->generation, writer->transaction.number - 1);
        atomic_store(&store->life->committed, writer->transaction.number - 1);
        atomic_store(&writer->control->recovery_due, 0);
    }
    return result;
}

static int begin_inside(struct writer *writer, struct store *store, int64_t wait_ms,
                        bool pending_first)
{
    writer->transaction = (struct transaction){.store = store};
    int result = __builtin_expect(atomic_load(&writer->control->recovery_due) != 0, 0)
                     ? begin_recovering(writer, store, wait_ms)
                     : store_write_begin(store, &writer->transaction);
    if (result != LARDER_OK) {
        return result;
    }
    uint64_t last = writer->transaction.number - 1;
    if (!ledger_read(store->life, last, &writer->ledger)) {
        control_poison(writer->control, store->generation);
        return error_set(LARDER_ECORRUPT, "there is no ledger of transaction %" PRIu64, last);
    }
    writer->dirty_before = writer->ledger.dirty;
    writer->quiet = false;
    writer->replicates = atomic_load(&writer->control->replicates) != 0;
    if (pending_first && removal_any_pending(writer->control)) {
        return apply_pending(writer);
    }
    return LARDER_OK;
}

/* A read gives up early where the map is just being opened by others; a write has its own patience.
 */
static int wait_for_map(struct map *map, int64_t wait_ms, struct transaction **reader)
{
    int result = registry_reader(map, reader);
    if (__builtin_expect(result != LARDER_EBUSY, 1)) {
        return result;
    }
    int64_t until = clock_monotonic_ms() + wait_ms;
    while (result == LARDER_EBUSY && clock_monotonic_ms() < until) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        result = registry_reader(map, reader);
    }
    return result;
}

/* A request that the last holder may have taken before it died: now that is settled. */
static int take_back(struct writer *writer, struct posting *posting)
{
    if (__builtin_expect(posting->slot == NULL, 1)) {
        return LARDER_OK;
    }
    bool back = combine_withdraw(writer->control, posting->slot, &posting->outcome);
    posting->slot = NULL;
    return back ? LARDER_OK : WRITER_CARRIED_OUT;
}

/* What a dead holder of the gate had announced is carried out, and its poster will learn that. */
static int finish_overwrite(struct writer *writer)
{
    struct store *store = writer->transaction.store;
    uint32_t request = 0;
    int result = store_finish_overwrite(store, &request);
    if (result == LARDER_OK) {
        if (request != 0) {
            combine_note_done(writer->control, request - 1, store->generation,
                              store_last_transaction(store));
        }
        overwrite_end(store->overwrites);
    }
    return result;
}

int writer_enter(struct writer *writer, const struct larder *handle, int64_t wait_ms,
                 bool pending_first, struct posting *posting, struct quick *quick)
{
    struct map *map = handle->map;
    writer->handle = handle;
    writer->map = map;
    writer->applied_count = 0;
    writer->cause = LARDER_CAUSE_NONE;
    writer->events = (struct event_batch){0};
    writer->fresh.size = 0;
    writer->batch.count = 0;
    writer->request = 0;
    for (int tries = 0; tries < GENERATION_TRIES; tries++) {
        struct transaction *reader;
        int result = wait_for_map(map, wait_ms, &reader);
        if (result != LARDER_OK) {
            return result;
        }
        struct store *store = reader->store;
        writer->control = store->control;
        if (quick->look != NULL) {
            quick->look(store, posting->request, quick->context);
        }
        result = enter_gate(writer, wait_ms, posting);
        if (result != LARDER_OK) {
            return result;
        }
        if (atomic_load_explicit(&writer->control->generation, memory_order_acquire) !=
            store->generation) {
            result = take_back(writer, posting);
            leave(writer); /* it changed while we waited */
            if (result != LARDER_OK) {
                return result;
            }
            continue;
        }
        writer->transaction = (struct transaction){.store = store};
        writer->change = atomic_load_explicit(&store->life->changes, memory_order_relaxed) + 1;
        if (overwrite_unfinished(store->overwrites)) {
            result = finish_overwrite(writer);
        }
        if (result == LARDER_OK) {
            result = writer_try_quickly(writer, quick);
        }
        if (result == WRITER_DONE_QUICKLY) {
            return result;
        }
        if (result == LARDER_OK) {
            result = begin_inside(writer, store, wait_ms, pending_first);
        }
        int taken_back = take_back(writer, posting);
        result = taken_back != LARDER_OK ? taken_back : result;
        if (result != LARDER_OK) {
            writer_abort(writer);
        }
        return result;
    }
    return error_set(LARDER_EBUSY, "the map's generation keeps changing");
}

int writer_begin(struct writer *writer, const struct larder *handle, int64_t wait_ms)
{
    struct posting none = {.request = NULL};
    struct quick slow = {.operation = NULL};
    return writer_enter(writer, handle, wait_ms, true, &none, &slow);
}

int writer_begin_bare(struct writer *writer, const struct larder *handle, int64_t wait_ms)
{
    struct posting none = {.request = NULL};
    struct quick slow = {.operation = NULL};
    return writer_enter(writer, handle, wait_ms, false, &none, &slow);
}

void writer_offer_fresh(const struct writer *writer)
{
    const struct writer_fresh *fresh = &writer->fresh;
    if (fresh->size > 0) {
        struct hotset_key key = {
            .hash = fresh->hash, .data = fresh->bytes, .size = fresh->key_size};
        hotset_offer(&writer->transaction.store->hot, &key, fresh->bytes + fresh->key_size,
                     fresh->size, writer->change, HOTSET_IF_ROOM);
    }
}

int writer_commit(struct writer *writer)
{
    struct transaction *t = &writer->transaction;
    if (t->changed && t->error == LARDER_OK) {
        evict_excess(writer);
    }
    bool changed = t->changed;
    if (changed && t->error == LARDER_OK) {
        writer->ledger.transaction = t->number;
        ledger_write(t->store->life, &writer->ledger);
        /* the ledger before the commit, also for whoever looks after this thread was killed */
        atomic_signal_fence(memory_order_seq_cst);
    }
    int result = store_write_commit(t);
    if (result == LARDER_OK) {
        writer_note_change(writer);
    }
    bool told = writer->events.first != 0;
    /* Inside the gate: events stand in the order of commits, and none waits for a later one. */
    events_decide(&writer->control->events, &writer->events, result == LARDER_OK);
    if (result == LARDER_OK) {
        for (size_t i = 0; i < writer->applied_count; i++) {
            removal_free_pending(writer->control, writer->applied[i]);
        }
    }
    writer_leave(writer, result == LARDER_OK);
    if (told) {
        follow_wake(writer->map);
    }
    if (result == LARDER_OK) {
        writer_offer_fresh(writer);
    }
    bool nothing_to_send = writer->quiet && writer->ledger.dirty == writer->dirty_before;
    if (result == LARDER_OK && changed && writer->replicates && !nothing_to_send) {
        wake_daemon(writer->map);
    }
    return result;
}

void writer_abort(struct writer *writer)
{
    store_write_abort(&writer->transaction);
    events_decide(&writer->control->events, &writer->events, false);
    writer_leave(writer, false);
}

void writer_tell_slow(struct writer *writer, uint32_t kind, const struct key *key,
                      larder_version version, int64_t expires_ms)
{
    struct event_draft draft = {.kind = kind,
                                .cause = writer->cause,
                                .version = version,
                                .expires_ms = expires_ms,
                                .key_hash = key->hash,
                                .name = {key->data, key->size},
                                .transaction = writer->transaction.number,
                                .generation = writer->transaction.store->generation};
    events_prepare(&writer->control->events, &draft, &writer->events);
    stats_count(map_stats(writer->map), STATS_EVENTS);
}
