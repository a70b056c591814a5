/* fill.c: the public lease functions. A key is read, claimed where it is missing, stale or due, and
 * read again under the claim, because the last holder may have filled it in between. The version is
 * drawn under the claim, too: nothing that happens after it is overwritten by the fill.
 *
 * Called by applications and by fetch.c. Blocks in larder_lease_wait() only.
 */
#include "fill.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "asking.h"
#include "clock.h"
#include "handle.h"
#include "stats.h"
#include "write.h"

enum { WAIT_MAX_MS = LEASE_HOLD_MAX_MS, EARLY_MAX_PERCENT = 10000 };

#define LEASE_MAGIC UINT32_C(0x6c656173)

/* What stands in larder_lease.internal. It is the caller's memory: checked before use. */
struct inside {
    uint64_t word;
    uint32_t slot, magic;
    uint64_t hash[2];
    int32_t pid;
    uint32_t mine;
    int64_t taken_ms; /* CLOCK_MONOTONIC */
};
static_assert(sizeof(struct inside) == sizeof(((larder_lease *)NULL)->internal), "larder_lease");

/* ---- Arguments --------------------------------------------------------------------------------
 */

int fill_check_options(const larder_lease_options *options)
{
    static const larder_lease_options none;
    if (options == NULL) {
        return LARDER_OK;
    }
    if (options->flags != 0 ||
        memcmp(options->reserved, none.reserved, sizeof none.reserved) != 0) {
        return error_set(LARDER_EINVAL,
                         "unknown members or flags of larder_lease_options are not 0");
    }
    if (options->hold_ms < 0 || options->hold_ms > LEASE_HOLD_MAX_MS) {
        return error_set(LARDER_EINVAL, "hold_ms of %" PRId64 ": it is 0 to %d", options->hold_ms,
                         LEASE_HOLD_MAX_MS);
    }
    if (options->wait_ms < -1 || options->wait_ms > WAIT_MAX_MS) {
        return error_set(LARDER_EINVAL, "wait_ms of %" PRId64 ": it is -1 to %d", options->wait_ms,
                         WAIT_MAX_MS);
    }
    if (options->read_through_ms != 0) {
        int valid = asking_check_budget(options->read_through_ms);
        if (valid != LARDER_OK) {
            return valid;
        }
    }
    if (options->early_percent > EARLY_MAX_PERCENT) {
        return error_set(LARDER_EINVAL, "early_percent of %" PRIu32 ": it is 0 to %d",
                         options->early_percent, EARLY_MAX_PERCENT);
    }
    return LARDER_OK;
}

int fill_ask_make(struct fill_ask *ask, const void *key, size_t key_size,
                  const larder_lease_options *options)
{
    static const larder_lease_options defaults;
    options = options == NULL ? &defaults : options;
    int result = key_make(&ask->key, key, key_size);
    if (result != LARDER_OK) {
        return result;
    }
    key_hash_wide(key, key_size, ask->hash);
    ask->hold_ms = options->hold_ms == 0 ? FILL_DEFAULT_MS : options->hold_ms;
    ask->wait_ms = options->wait_ms == 0 ? FILL_DEFAULT_MS : options->wait_ms;
    ask->patience_ms = 0;
    ask->early_percent = options->early_percent;
    ask->read_through_ms = options->read_through_ms;
    ask->with_value = true;
    return LARDER_OK;
}

/* ---- Leases as the caller has them ------------------------------------------------------------
 */

static void hand_out(larder *handle, const struct fill_ask *ask, const struct lease_ticket *ticket,
                     bool mine, larder_lease *lease)
{
    struct inside inside = {.word = ticket->word,
                            .slot = ticket->slot,
                            .magic = LEASE_MAGIC,
                            .hash = {ask->hash[0], ask->hash[1]},
                            .pid = (int32_t)getpid(),
                            .mine = mine,
                            .taken_ms = clock_monotonic_ms()};
    *lease = (larder_lease){.version = {0}};
    if (mine) {
        lease->version = clock_next(map_control(handle->map));
    }
    memcpy(lease->internal, &inside, sizeof inside);
}

static struct inside inside_of(const larder_lease *lease)
{
    struct inside inside;
    memcpy(&inside, lease->internal, sizeof inside);
    return inside;
}

static int check_lease(const larder_lease *lease, bool must_be_mine)
{
    if (lease == NULL || inside_of(lease).magic != LEASE_MAGIC) {
        return error_set(LARDER_EINVAL, "not a lease that larder_lease_acquire() gave");
    }
    if (!must_be_mine) {
        return LARDER_OK;
    }
    struct inside inside = inside_of(lease);
    if (inside.mine == 0) {
        return error_set(LARDER_EINVAL, "the lease is another's: it can only be waited for");
    }
    if (inside.pid != (int32_t)getpid()) {
        return error_set(LARDER_EINVAL,
                         "the lease belongs to process %d: a child does not inherit it",
                         (int)inside.pid);
    }
    return LARDER_OK;
}

bool fill_is_own(const larder_lease *lease)
{
    struct inside inside = inside_of(lease);
    return inside.mine != 0 && inside.pid == (int32_t)getpid();
}

struct lease_ticket fill_ticket(const larder_lease *lease)
{
    struct inside inside = inside_of(lease);
    return (struct lease_ticket){.word = inside.word, .slot = inside.slot};
}

void fill_without_lease(larder *handle, const struct fill_ask *ask, larder_lease *lease)
{
    hand_out(handle, ask, &(struct lease_ticket){.slot = LEASE_NONE}, true, lease);
}

bool fill_end(larder *handle, const larder_lease *lease, enum lease_end reason)
{
    struct lease_ticket ticket = fill_ticket(lease);
    return ticket.slot == LEASE_NONE ||
           (fill_is_own(lease) && lease_end(handle->map, &ticket, reason));
}

/* ---- Acquire ----------------------------------------------------------------------------------
 */

static int give(larder *handle, int outcome)
{
    struct stats_slot *stats = map_stats(handle->map);
    stats_count(stats, STATS_LEASE_FILLS);
    if (outcome == LARDER_REFRESH) {
        stats_count(stats, STATS_REFRESHES);
    }
    return outcome;
}

int fill_acquire_early(larder *handle, const struct fill_ask *ask, larder_lease *lease,
                       const struct fill_value *value)
{
    struct lease_ticket ticket;
    struct fill_value now = {.data = NULL};
    if (lease_claim(handle->map, ask->hash, ask->hold_ms, &ticket) != LEASE_TAKEN) {
        return LARDER_OK; /* whoever gets no lease just serves it */
    }
    hand_out(handle, ask, &ticket, true, lease);
    int found = fill_look(handle, ask, false, &now);
    if (found == LARDER_OK && clock_compare(now.info.version, value->info.version) == 0) {
        return give(handle, LARDER_REFRESH);
    }
    (void)lease_end(handle->map, &ticket, LEASE_FILLED); /* it has just been renewed */
    return LARDER_OK;
}

/* Found; or this thread cannot read the map at all, so that a lease would only hold up others. */
static bool is_final(int looked)
{
    return looked == LARDER_OK || looked == LARDER_ABSENT || looked == LARDER_ENOMEM ||
           looked == LARDER_ENAMESPACE || looked == LARDER_ELIMIT;
}

int fill_acquire(larder *handle, const struct fill_ask *ask, larder_lease *lease,
                 struct fill_value *value)
{
    struct lease_ticket ticket = {.slot = LEASE_NONE};
    *value = (struct fill_value){.data = NULL};
    enum lease_claim claim = lease_claim(handle->map, ask->hash, ask->hold_ms, &ticket);
    if (claim == LEASE_FULL) {
        ticket = (struct lease_ticket){.slot = LEASE_NONE};
    }
    hand_out(handle, ask, &ticket, claim != LEASE_HELD, lease);
    /* Under the claim: what the last holder stored is seen now, or it stored nothing. */
    int result = claim == LEASE_TAKEN ? fill_look_patiently(handle, ask, value)
                                      : fill_look(handle, ask, ask->with_value, value);
    if (is_final(result)) {
        if (claim == LEASE_TAKEN) {
            (void)lease_end(handle->map, &ticket, LEASE_FILLED);
        }
        return result;
    }
    /* stale, missing, or not to be looked at now: to the caller the cache just does not have it */
    if (claim != LEASE_HELD) {
        return give(handle, result == LARDER_STALE ? LARDER_REFRESH : LARDER_FILL);
    }
    if (result == LARDER_STALE) {
        return LARDER_STALE;
    }
    lease_watch(handle->map, &ticket);
    return LARDER_WAIT;
}

int larder_lease_acquire(larder *handle, const void *key, size_t key_size,
                         const larder_lease_options *options, larder_lease *lease, void **value,
                         size_t *value_size, larder_info *info)
{
    struct fill_ask ask;
    struct fill_value found;
    if (lease == NULL || (value == NULL) != (value_size == NULL)) {
        return error_set(LARDER_EINVAL,
                         "larder_lease_acquire() without a place for the lease or the value");
    }
    *lease = (larder_lease){.version = {0}};
    if (value != NULL) {
        *value = NULL;
        *value_size = 0;
    }
    int result = handle_enter_write(handle);
    if (result == LARDER_OK) {
        result = fill_check_options(options);
    }
    if (result == LARDER_OK) {
        result = fill_ask_make(&ask, key, key_size, options);
    }
    if (result != LARDER_OK) {
        return result;
    }
    ask.with_value = value != NULL;
    result = fill_look_first(handle, &ask, &found);
    if (result == LARDER_MISS) {
        result = fill_acquire(handle, &ask, lease, &found);
    } else if (result == LARDER_OK && fill_is_due(&found.info, ask.early_percent)) {
        result = fill_acquire_early(handle, &ask, lease, &found);
    }
    if (info != NULL && result >= 0 && result != LARDER_FILL && result != LARDER_WAIT) {
        *info = found.info;
    }
    if (value != NULL) {
        *value = found.data;
        *value_size = found.size;
    }
    return result;
}

/* ---- Wait, renew, abandon ---------------------------------------------------------------------
 */

int larder_lease_wait(larder *handle, const larder_lease *lease, int64_t wait_ms)
{
    int result = handle_enter(handle);
    if (result == LARDER_OK) {
        result = check_lease(lease, false);
    }
    if (result == LARDER_OK && (wait_ms < 0 || wait_ms > WAIT_MAX_MS)) {
        result = error_set(LARDER_EINVAL, "a wait of %" PRId64 " ms: it is 0 to %d", wait_ms,
                           WAIT_MAX_MS);
    }
    if (result == LARDER_OK && fill_is_own(lease)) {
        result = error_set(LARDER_EINVAL, "the lease is this process's own to fill");
    }
    if (result != LARDER_OK) {
        return result;
    }
    struct lease_ticket ticket = fill_ticket(lease);
    enum lease_end reason;
    bool held = lease_is_held(handle->map, &ticket, &reason);
    if (held && wait_ms > 0) {
        stats_count(map_stats(handle->map), STATS_LEASE_WAITS);
        held = !lease_sleep(handle->map, &ticket, clock_monotonic_ms() + wait_ms, &reason);
        if (held) {
            stats_count(map_stats(handle->map), STATS_LEASE_TIMEOUTS);
        }
    }
    if (held) {
        lease_watch(handle->map, &ticket);
        return LARDER_WAIT;
    }
    return reason == LEASE_SKIPPED ? LARDER_SKIP : LARDER_OK;
}

static int lost(void)
{
    return error_set(LARDER_CONFLICT, "the lease was lost: its deadline has passed");
}

static int enter_as_holder(const larder *handle, const larder_lease *lease)
{
    int result = handle_enter_write(handle);
    return result == LARDER_OK ? check_lease(lease, true) : result;
}

int larder_lease_renew(larder *handle, const larder_lease *lease, int64_t hold_ms)
{
    int result = enter_as_holder(handle, lease);
    if (result == LARDER_OK && (hold_ms < 0 || hold_ms > LEASE_HOLD_MAX_MS)) {
        result = error_set(LARDER_EINVAL, "hold_ms of %" PRId64 ": it is 0 to %d", hold_ms,
                           LEASE_HOLD_MAX_MS);
    }
    if (result != LARDER_OK) {
        return result;
    }
    struct lease_ticket ticket = fill_ticket(lease);
    if (ticket.slot == LEASE_NONE) {
        return LARDER_OK;
    }
    hold_ms = hold_ms == 0 ? FILL_DEFAULT_MS : hold_ms;
    return lease_extend(handle->map, &ticket, hold_ms) ? LARDER_OK : lost();
}

int larder_lease_abandon(larder *handle, const larder_lease *lease, int why)
{
    int result = enter_as_holder(handle, lease);
    if (result == LARDER_OK && why != 0 && why != LARDER_SKIP) {
        result =
            error_set(LARDER_EINVAL, "a lease is abandoned with 0 or LARDER_SKIP, not %d", why);
    }
    if (result != LARDER_OK) {
        return result;
    }
    enum lease_end reason = why == LARDER_SKIP ? LEASE_SKIPPED : LEASE_ABANDONED;
    return fill_end(handle, lease, reason) ? LARDER_OK : lost();
}

/* ---- Fill -------------------------------------------------------------------------------------
 */

int fill_store(larder *handle, const larder_lease *lease, const struct key *key, const void *value,
               size_t value_size, const larder_policy *policy, larder_info *info, bool *refused)
{
    struct write_fill fill = {.version = lease->version,
                              .took_ms = clock_monotonic_ms() - inside_of(lease).taken_ms};
    int result = write_fill(handle, key->data, key->size, value, value_size, policy, &fill);
    if (result == LARDER_CONFLICT) {
        stats_count(map_stats(handle->map), STATS_LEASE_REFUSED_FILLS);
    }
    (void)fill_end(handle, lease, result == LARDER_OK ? LEASE_FILLED : LEASE_ABANDONED);
    if (info != NULL) {
        *info = fill.info;
    }
    if (refused != NULL) {
        *refused = fill.refused;
    }
    return result;
}

int larder_lease_fill(larder *handle, const larder_lease *lease, const void *key, size_t key_size,
                      const void *value, size_t value_size, const larder_policy *policy)
{
    struct key made;
    uint64_t hash[2];
    int result = enter_as_holder(handle, lease);
    if (result == LARDER_OK) {
        result = key_make(&made, key, key_size);
    }
    if (result != LARDER_OK) {
        return result;
    }
    key_hash_wide(key, key_size, hash);
    struct inside inside = inside_of(lease);
    if (hash[0] != inside.hash[0] || hash[1] != inside.hash[1]) {
        return error_set(LARDER_EINVAL, "the lease is one of another key");
    }
    return fill_store(handle, lease, &made, value, value_size, policy, NULL, NULL);
}

/* ---- Event loops ------------------------------------------------------------------------------
 */

int larder_notify_fd(larder *handle)
{
    int result = handle_enter_write(handle);
    return result == LARDER_OK ? notify_fd(handle->map) : result;
}

int larder_notify_clear(larder *handle)
{
    pid_t ended[64];
    int result = handle_enter(handle);
    if (result != LARDER_OK) {
        return result;
    }
    unsigned count = notify_ended(handle->map, ended, sizeof ended / sizeof ended[0]);
    for (unsigned i = 0; i < count; i++) {
        lease_end_all(handle->map, ended[i]);
    }
    notify_clear(handle->map); /* last: the leases that ended just now told us, too */
    return LARDER_OK;
}
