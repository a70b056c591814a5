/* fetch.c: larder_fetch(): get, or let one caller of the host fill, and the others wait.
 *
 * Between two calls into the library no lock is held and no transaction is open, so the fill may do
 * what it likes: call back in, fork, never return. The cache may slow a caller down to its
 * deadline, but never keep it from its origin.
 */
#include <stdlib.h>
#include <string.h>

#include "asking.h"
#include "clock.h"
#include "fill.h"
#include "handle.h"
#include "sample.h"

enum {
    NESTED_KEYS = 16,  /* fills that one thread is inside of and that are remembered */
    NESTED_DEPTH = 8,  /* calls for a key from inside its own fill */
    PATIENCE_MS = 250, /* of a holder whom the reader table keeps from looking */
    FAILURES_MAX = 2,  /* fills of others that came to nothing, before a waiter fills for itself */
    WAIT_ROUND_MS = 1000
};

struct fetch {
    larder *handle;
    larder_fill *fill;
    void *context;
    struct fill_ask ask;
    larder_lease lease;
    struct fill_value
        value;    /* what is handed over; before that, what is served if the fill fails */
    int fallback; /* outcome to serve it with; 0x0: LARDER_MISS = there is none */
};

/* ---- Fills that this thread is inside of ------------------------------------------------------
 *
 * Waiting for one's own lease would end at its deadline only. An entry is good while its lease is
 * held, so that a fill that left by longjmp() is forgotten with it. */

struct nested {
    const struct map *map;
    uint64_t hash[2];
    struct lease_ticket ticket;
    unsigned depth;
};

static __thread struct nested nested[NESTED_KEYS];
static __thread unsigned next_nested;

static struct nested *find_nested(const struct fetch *fetch)
{
    for (size_t i = 0; i < NESTED_KEYS; i++) {
        struct nested *entry = &nested[i];
        enum lease_end reason;
        if (entry->map == fetch->handle->map && entry->hash[0] == fetch->ask.hash[0] &&
            entry->hash[1] == fetch->ask.hash[1]) {
            if (lease_is_held(fetch->handle->map, &entry->ticket, &reason)) {
                return entry;
            }
            entry->map = NULL;
        }
    }
    return NULL;
}

/* NULL where there is no lease to wait for. */
static struct nested *enter_nested(const struct fetch *fetch)
{
    struct lease_ticket ticket = fill_ticket(&fetch->lease);
    if (ticket.slot == LEASE_NONE) {
        return NULL;
    }
    size_t place = next_nested++ % NESTED_KEYS;
    for (size_t i = 0; i < NESTED_KEYS; i++) {
        if (nested[i].map == NULL) {
            place = i;
            break;
        }
    }
    nested[place] = (struct nested){.map = fetch->handle->map,
                                    .hash = {fetch->ask.hash[0], fetch->ask.hash[1]},
                                    .ticket = ticket};
    return &nested[place];
}

static void leave_nested(struct nested *entry, const struct fetch *fetch)
{
    if (entry != NULL && entry->ticket.word == fill_ticket(&fetch->lease).word) {
        entry->map = NULL;
    }
}

/* ---- The fill ---------------------------------------------------------------------------------
 */

static int keep_copy(struct fetch *fetch, const larder_filled *filled)
{
    void *memory = malloc(filled->value_size == 0 ? 1 : filled->value_size);
    if (memory == NULL) {
        return error_set(LARDER_ENOMEM, "no memory for a value of %zu bytes", filled->value_size);
    }
    if (filled->value_size > 0) {
        memcpy(memory, filled->value, filled->value_size);
    }
    free(fetch->value.data);
    fetch->value.data = memory;
    fetch->value.size = filled->value_size;
    fetch->value.info.size = filled->value_size;
    return LARDER_OK;
}

/* Whether the fill itself made a mistake that its author must see; a cache that just could not
 * store the value is no reason not to return it. */
static bool is_mistake(int stored, bool refused)
{
    return refused && stored < 0 && stored != LARDER_ENOMEM;
}

static int store(struct fetch *fetch, larder_filled *filled, bool negative)
{
    bool refused = false;
    int stored = LARDER_EREADONLY;
    larder_info info = {.version = fetch->lease.version, .expires_ms = CLOCK_NEVER};
    if (negative) {
        filled->policy.flags |= LARDER_NEGATIVE;
    }
    /* In a child that returned from its parent's fill: the parent stores, too, and first come is
     * first served, so it is left to the parent. */
    if ((fetch->handle->flags & LARDER_READ_ONLY) == 0 && fill_is_own(&fetch->lease)) {
        stored = fill_store(fetch->handle, &fetch->lease, &fetch->ask.key,
                            negative ? NULL : filled->value, negative ? 0 : filled->value_size,
                            &filled->policy, &info, &refused);
    }
    if (is_mistake(stored, refused)) {
        return stored;
    }
    fetch->value.info = info;
    return LARDER_OK;
}

static int fail(struct fetch *fetch, int code)
{
    (void)fill_end(fetch->handle, &fetch->lease, LEASE_ABANDONED);
    if (fetch->fallback != LARDER_MISS) {
        return fetch->fallback;
    }
    return error_set(code, "the fill failed with %d", code);
}

static int take(struct fetch *fetch, int outcome, larder_filled *filled)
{
    int result;
    if (outcome >= 0 && filled->value == NULL && filled->value_size != 0) {
        outcome = error_set(LARDER_EINVAL, "the fill gave no value, but a size of %zu",
                            filled->value_size);
    }
    switch (outcome) {
    case LARDER_OK:
        result = store(fetch, filled, false);
        return result == LARDER_OK ? keep_copy(fetch, filled) : result;
    case LARDER_ABSENT:
        result = store(fetch, filled, true);
        if (result == LARDER_OK) {
            free(fetch->value.data);
            fetch->value.data = NULL;
            fetch->value.size = 0;
            return LARDER_ABSENT;
        }
        return result;
    case LARDER_SKIP:
        (void)fill_end(fetch->handle, &fetch->lease, LEASE_SKIPPED);
        fetch->value.info = (larder_info){.version = fetch->lease.version};
        return keep_copy(fetch, filled);
    default:
        if (outcome > 0) {
            outcome = error_set(LARDER_EINVAL,
                                "the fill returned %d: it returns LARDER_OK, "
                                "_ABSENT, _SKIP or an error",
                                outcome);
        }
        return fail(fetch, outcome);
    }
}

static int call_fill(struct fetch *fetch)
{
    larder_filled filled;
    memset(&filled, 0, sizeof filled);
    struct nested *entry = enter_nested(fetch);
    int outcome = fetch->fill(fetch->context, fetch->ask.key.data, fetch->ask.key.size, &filled);
    leave_nested(entry, fetch);
    registry_check_fork(); /* it may be the child of a fork inside the fill that returns here */
    int result = take(fetch, outcome, &filled);
    if (filled.release != NULL) {
        filled.release(filled.owner);
    }
    return result;
}

/* This host is without the value, and it is this caller's to get: another host may have put it into
 * Redis. OK or ABSENT: it had, and the lease has ended. */
static int ask_first(struct fetch *fetch)
{
    const struct fill_ask *ask = &fetch->ask;
    if (ask->read_through_ms == 0 || fetch->fallback != LARDER_MISS ||
        !asking_read_through(fetch->handle, ask->key.data, ask->key.size, ask->read_through_ms)) {
        return LARDER_MISS;
    }
    struct fill_value found;
    int result = fill_look(fetch->handle, ask, ask->with_value, &found);
    if (result != LARDER_OK && result != LARDER_ABSENT) {
        free(found.data);
        return LARDER_MISS;
    }
    free(fetch->value.data);
    fetch->value = found;
    (void)fill_end(fetch->handle, &fetch->lease, LEASE_FILLED);
    return result;
}

static int ask_or_fill(struct fetch *fetch)
{
    int result = ask_first(fetch);
    return result == LARDER_MISS ? call_fill(fetch) : result;
}

static int fill_alone(struct fetch *fetch)
{
    fill_without_lease(fetch->handle, &fetch->ask, &fetch->lease);
    return call_fill(fetch);
}

/* ---- Fetch ------------------------------------------------------------------------------------
 */

/* From inside a fill of the same key. */
static int fetch_nested(struct fetch *fetch, struct nested *entry)
{
    if (entry->depth >= NESTED_DEPTH) {
        return error_set(LARDER_EINVAL,
                         "larder_fetch() from inside the fill of the same key, %d deep",
                         NESTED_DEPTH);
    }
    entry->depth++;
    int result = fill_alone(fetch);
    entry->depth--;
    return result;
}

/* Another fills. Whether to ask the cache again (else: fill alone). */
static bool wait_for_other(struct fetch *fetch, int64_t until)
{
    int64_t left = until - clock_monotonic_ms();
    if (left <= 0) {
        return false;
    }
    return larder_lease_wait(fetch->handle, &fetch->lease, left) == LARDER_OK;
}

/* Whether the fill that was waited for ended by itself, and not with its process. */
static bool has_ended_alive(const struct fetch *fetch)
{
    struct lease_ticket ticket = fill_ticket(&fetch->lease);
    enum lease_end reason;
    return !lease_is_held(fetch->handle->map, &ticket, &reason) && reason != LEASE_LOST;
}

static int fetch_missing(struct fetch *fetch)
{
    int64_t until = clock_monotonic_ms() + fetch->ask.wait_ms;
    unsigned failures = 0; /* one after another they would add up to the deadline */
    for (;;) {
        int result = fill_acquire(fetch->handle, &fetch->ask, &fetch->lease, &fetch->value);
        switch (result) {
        case LARDER_OK:
        case LARDER_ABSENT:
        case LARDER_STALE:
        case LARDER_ENOMEM:
            return result;
        case LARDER_REFRESH:
            fetch->fallback = LARDER_STALE;
            return call_fill(fetch);
        case LARDER_FILL:
            return ask_or_fill(fetch);
        case LARDER_WAIT: {
            struct nested *entry = find_nested(fetch);
            if (entry != NULL) {
                return fetch_nested(fetch, entry);
            }
            if (failures == FAILURES_MAX || !wait_for_other(fetch, until)) {
                return fill_alone(fetch);
            }
            failures += has_ended_alive(fetch);
            break;
        }
        default:
            return fill_alone(fetch);
        }
    }
}

/* The value that was read is due: one renews it ahead of its expiry. */
static int fetch_early(struct fetch *fetch)
{
    int result = fill_acquire_early(fetch->handle, &fetch->ask, &fetch->lease, &fetch->value);
    if (result != LARDER_REFRESH) {
        return result;
    }
    fetch->fallback = LARDER_OK;
    return call_fill(fetch);
}

/* What follows on the caller's own look, if that was not enough: found and due, or not found. */
static int fetch_on(struct fetch *fetch, int found, const larder_lease_options *options,
                    const void *key, size_t key_size)
{
    int result = fill_ask_make(&fetch->ask, key, key_size, options);
    if (result != LARDER_OK) {
        return result;
    }
    fetch->ask.patience_ms = PATIENCE_MS;
    fetch->fallback = LARDER_MISS;
    if ((fetch->handle->flags & LARDER_READ_ONLY) != 0) {
        return found == LARDER_OK ? found : fill_alone(fetch);
    }
    return found == LARDER_OK     ? fetch_early(fetch)
           : found == LARDER_MISS ? fetch_missing(fetch)
                                  : fill_alone(fetch);
}

static int fetch_with(larder *handle, const void *key, size_t key_size, larder_fill *fill,
                      void *context, const larder_lease_options *options, void **value,
                      size_t *value_size, larder_info *info)
{
    larder_info own = {.size = 0};
    if (value == NULL || value_size == NULL || fill == NULL) {
        return error_set(LARDER_EINVAL, "larder_fetch() without a fill or a place for the value");
    }
    info = info == NULL ? &own : info;
    *value = NULL;
    *value_size = 0;
    int result = fill_check_options(options);
    if (result == LARDER_OK) {
        result = larder_get_alloc(handle, key, key_size, value, value_size, info);
    }
    bool due = result == LARDER_OK && options != NULL && fill_is_due(info, options->early_percent);
    if (__builtin_expect((result == LARDER_OK && !due) || result == LARDER_ABSENT ||
                             result == LARDER_EINVAL || result == LARDER_ETOOBIG ||
                             result == LARDER_ENOMEM,
                         1)) {
        return result;
    }
    struct fetch fetch = {.handle = handle,
                          .fill = fill,
                          .context = context,
                          .value = {.data = *value, .size = *value_size}};
    if (due) {
        fetch.value.info = *info;
    }
    *value = NULL;
    *value_size = 0;
    result = fetch_on(&fetch, result, options, key, key_size);
    if (result == LARDER_OK || result == LARDER_STALE) {
        *value = fetch.value.data;
        *value_size = fetch.value.size;
    } else {
        free(fetch.value.data);
    }
    if (result >= 0) {
        *info = fetch.value.info;
    }
    return result;
}

int larder_fetch_with(larder *handle, const void *key, size_t key_size, larder_fill *fill,
                      void *context, const larder_lease_options *options, void **value,
                      size_t *value_size, larder_info *info)
{
    uint64_t began = sample_begin_write();
    int result = fetch_with(handle, key, key_size, fill, context, options, value, value_size, info);
    return began == 0 ? result : sample_end_write(handle, began, LARDER_LATENCY_FETCH, result);
}

int larder_fetch(larder *handle, const void *key, size_t key_size, larder_fill *fill, void *context,
                 void **value, size_t *value_size, larder_info *info)
{
    return larder_fetch_with(handle, key, key_size, fill, context, NULL, value, value_size, info);
}
